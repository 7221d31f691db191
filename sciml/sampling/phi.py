"""The functions phi_k of exponential integrators."""

import math

__all__ = ["phi"]


def phi(k: int, z: float) -> float:
    """Return phi_k(z) = integral over r from 0 to 1 of e^((1 - r) z) r^(k - 1) / (k - 1)!, k >= 1.

    phi_1 = (e^z - 1) / z, phi_(k+1) = (phi_k - 1/k!) / z, phi_k(0) = 1/k! (Hochbruck and Ostermann, Acta Numerica
    2010). Where the recurrence would cancel a Taylor series takes its place.

    Examples
    --------
    >>> phi(1, 0.0), phi(3, 0.0) == 1 / 6
    (1.0, True)
    """
    if abs(z) < 1:
        return sum(z**n / math.factorial(n + k) for n in range(20))
    value = math.expm1(z) / z
    for j in range(1, k):
        value = (value - 1 / math.factorial(j)) / z
    return value
