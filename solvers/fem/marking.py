"""Which triangles to refine, given eta_T of each.

    Doerfler    the fewest with sum eta_T^2 >= theta sum of all        SIAM J. Numer. Anal. 33, 1106 (1996)
    maximum     all with eta_T > theta max eta
    fraction    the theta T largest

Of equals the first come first, so that results do not depend on the machine.
"""

import numpy as np

from sciml.errors import ConfigError

__all__ = ["mark_doerfler", "mark_fraction", "mark_maximum"]


def _checked(eta: np.ndarray, theta: float) -> np.ndarray:
    eta = np.asarray(eta, dtype=float)
    if not 0 < theta <= 1:
        raise ConfigError(f"theta={theta}: it must be in (0, 1]")
    if eta.ndim != 1 or not np.isfinite(eta).all() or (eta < 0).any():
        raise ConfigError("eta: give finite indicators of shape (T,), none negative")
    return eta


def mark_doerfler(eta: np.ndarray, theta: float = 0.5) -> np.ndarray:
    """Return the numbers of the fewest triangles that carry a part theta of sum eta^2.

    Raises
    ------
    ConfigError
        If theta is not in (0, 1] or indicators are negative or not finite.

    Examples
    --------
    >>> mark_doerfler(np.array([1.0, 3.0, 2.0]), 0.9).tolist()
    [1, 2]
    """
    eta = _checked(eta, theta)
    order = np.argsort(-eta, kind="stable")
    carried = np.cumsum(eta[order] ** 2)
    if carried.size == 0 or carried[-1] == 0:
        return order[:0]
    # Rounding must not ask for more than there is.
    count = int(np.searchsorted(carried, min(theta * carried[-1] * (1 - 1e-12), carried[-1]))) + 1
    return np.sort(order[:count])


def mark_maximum(eta: np.ndarray, theta: float = 0.5) -> np.ndarray:
    """Return the numbers of all triangles with eta > theta max eta, of theta = 1 those that reach it.

    Raises
    ------
    ConfigError
        If theta is not in (0, 1] or indicators are negative or not finite.

    Examples
    --------
    >>> mark_maximum(np.array([1.0, 3.0, 2.0])).tolist()
    [1, 2]
    """
    eta = _checked(eta, theta)
    largest = eta.max(initial=0.0)
    if largest == 0:
        return np.arange(0)
    return np.flatnonzero(eta >= largest if theta == 1 else eta > theta * largest)


def mark_fraction(eta: np.ndarray, theta: float = 0.1) -> np.ndarray:
    """Return the numbers of the ceil(theta T) triangles of the largest eta.

    Raises
    ------
    ConfigError
        If theta is not in (0, 1] or indicators are negative or not finite.

    Examples
    --------
    >>> mark_fraction(np.array([1.0, 3.0, 2.0]), 0.3).tolist()
    [1]
    """
    eta = _checked(eta, theta)
    count = int(np.ceil(theta * len(eta) - 1e-9))
    return np.sort(np.argsort(-eta, kind="stable")[:count])
