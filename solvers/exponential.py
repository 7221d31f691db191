"""Exponential time differencing for y' = L y + N(t, y) with a diagonal, stiff L.

The linear part is integrated exactly, the rest by a Runge-Kutta formula whose weights are built from

    phi_0(z) = e^z,    phi_(k+1)(z) = (phi_k(z) - 1 / k!) / z,    phi_k(0) = 1 / k!.

States are arrays of any library of the array API standard, real or complex, of any shape that
broadcasts with L.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from sciml.errors import ConfigError

from .compiled import kernels

__all__ = ["ETDRK4", "phi_functions"]

Array = Any  # NumPy array, torch tensor, ...


def phi_functions(z: np.ndarray, count: int) -> np.ndarray:
    """Evaluate phi_0, ..., phi_(count - 1) entry by entry, without cancellation.

    The recurrence loses all digits near z = 0. For |z| < 1 the last function is summed from its Taylor
    series and the others follow downwards, which is stable there; elsewhere the recurrence runs upwards
    and loses a factor of about count! at |z| = 1: phi_3 has a relative error below 1e-14.

    Parameters
    ----------
    z : array-like, any shape
        Real or complex numbers; computed in double precision.
    count : int
        How many functions, 1 to 6.

    Returns
    -------
    ndarray, shape (count, *z.shape)
        Real for real z. Infinite where e^z overflows.

    Raises
    ------
    ConfigError
        If count is out of its range.

    Examples
    --------
    >>> phi_functions(0.0, 4).round(6).tolist()
    [1.0, 1.0, 0.5, 0.166667]
    """
    if not 1 <= count <= 6:
        raise ConfigError(f"count={count}: ask for 1 to 6 functions")
    z = np.asarray(z)
    z = z.astype(complex if np.iscomplexobj(z) else float)
    small = np.abs(z) < 1
    # Each branch is evaluated everywhere, at harmless arguments where the other one counts.
    near, far = np.where(small, z, 0), np.where(small, 1, z)
    last = count - 1
    below = np.empty((count, *z.shape), dtype=z.dtype)
    below[last] = 1 / math.factorial(last + 18)
    for k in range(17, -1, -1):
        below[last] = below[last] * near + 1 / math.factorial(last + k)
    for k in range(last - 1, -1, -1):
        below[k] = near * below[k + 1] + 1 / math.factorial(k)
    above = np.empty_like(below)
    with np.errstate(over="ignore", invalid="ignore"):
        above[0] = np.exp(far)
        for k in range(last):
            above[k + 1] = (above[k] - 1 / math.factorial(k)) / far
    return np.where(small, below, above)


def _compiled_step(linear: Array, y: Array) -> Callable | None:
    """Return a compiled step where there is one for these arrays, which sizes of one member decide."""
    suits = is_numpy_array(y) and y.dtype.char in "FD" and y.dtype.isnative and y.dtype == linear.dtype
    if not suits or linear.size < 32 or y.shape[y.ndim - linear.ndim :] != linear.shape:
        return None
    module = kernels("exponential")
    return None if module is None else module.etdrk4_step


@dataclass(frozen=True, eq=False)
class ETDRK4:
    """The fourth-order method of Cox and Matthews, J. Comput. Phys. 176, 430 (2002), eqs. 26-29.

    With E = e^(L dt / 2) and Q = dt / 2 phi_1(L dt / 2),

        a = E y + Q N(y),    b = E y + Q N(a),    c = E a + Q (2 N(b) - N(y)),
        y_new = E^2 y + dt [alpha N(y) + beta (N(a) + N(b)) + gamma N(c)],

    alpha = phi_1 - 3 phi_2 + 4 phi_3, beta = 2 phi_2 - 4 phi_3, gamma = 4 phi_3 - phi_2 at L dt. Exact
    for N = 0, fourth order otherwise; where |L dt| is large and N does not vanish there, the order can
    drop to two or three (Hochbruck and Ostermann, SIAM J. Numer. Anal. 43, 1069, 2005).

    Parameters
    ----------
    linear : array
        The diagonal L, real or complex, on the device and in the precision of the states. A real L goes
        with real and complex states; a complex one makes states complex.
    dt : float
        The step.

    Raises
    ------
    ConfigError
        If dt is not positive and finite.

    Examples
    --------
    >>> method, y = ETDRK4(np.array([-1.0, -1000.0]), 0.1), np.ones(2)
    >>> for n in range(10):
    ...     y = method.step(0.1 * n, y, lambda t, y: np.array([t, 0.0]))
    >>> bool(abs(y[0] - 2 / np.e) < 1e-14)
    True
    """

    linear: Array
    dt: float
    _weights: tuple[Array, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.dt < math.inf:
            raise ConfigError(f"dt={self.dt}: the step must be positive and finite")
        xp, dt = array_namespace(self.linear), self.dt
        place = device(self.linear)
        z = dt * np.asarray(self.linear.cpu() if hasattr(self.linear, "cpu") else self.linear)
        full, half = phi_functions(z, 4), phi_functions(z / 2, 2)
        weights = (
            full[0],
            half[0],
            dt / 2 * half[1],
            dt * (full[1] - 3 * full[2] + 4 * full[3]),
            dt * (2 * full[2] - 4 * full[3]),
            dt * (4 * full[3] - full[2]),
        )
        ready = tuple(xp.asarray(w, dtype=self.linear.dtype, device=place) for w in weights)
        object.__setattr__(self, "_weights", ready)

    def step(self, t: float, y: Array, nonlinear: Callable[[float, Array], Array]) -> Array:
        """Return the state at t + dt.

        Parameters
        ----------
        t : float
        y : array
            State at t; kept.
        nonlinear : callable
            N(t, y), a new array of y's shape each time: it may be overwritten. States in between are reused
            likewise, so automatic differentiation cannot go through a step.

        Raises
        ------
        ConfigError
            If N has another shape.

        Examples
        --------
        >>> bool(abs(ETDRK4(np.zeros(1), 1e-3).step(0.0, np.ones(1), lambda t, y: y + 0)[0] - np.exp(1e-3)) < 1e-15)
        True
        """

        def rate(t: float, y: Array) -> Array:
            change = nonlinear(t, y)
            if tuple(change.shape) != tuple(y.shape):
                raise ConfigError(
                    f"nonlinear returns shape {tuple(change.shape)}: return that of the state, {tuple(y.shape)}"
                )
            return change

        compiled = _compiled_step(self.linear, y)
        if compiled is not None:
            return compiled(self._weights, self.dt, t, y, rate)
        full, half, q, alpha, beta, gamma = self._weights
        middle_time = t + self.dt / 2
        first = rate(t, y)
        decayed = half * y
        a = q * first
        a += decayed
        middle = rate(middle_time, a)
        b = q * middle
        b += decayed
        second = rate(middle_time, b)
        middle += second
        second += second
        second -= first
        second *= q
        a *= half
        a += second
        last = rate(t + self.dt, a)
        last *= gamma
        middle *= beta
        last += middle
        first *= alpha
        last += first
        last += full * y
        return last
