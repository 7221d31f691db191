"""What a solver needs to know of u_t = L u + N(u) on a periodic box, with L diagonal in Fourier space."""

import math
import reprlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from sciml.errors import ConfigError

from .transforms import Transforms

__all__ = ["SpectralEquation", "Term", "check", "half_square", "is_finite_number", "square_norm"]

Array = Any  # NumPy array, torch tensor, ...
Term = Callable[[Array], Array]
"""From modes to modes, both of shape (B, components, *mode_shape); the result is a new array."""


class SpectralEquation(ABC):
    """An equation u_t = L u + N(u) for `components` real functions on a periodic box.

    Examples
    --------
    >>> from sciml.solvers.spectral import Burgers
    >>> Burgers(0.01).symbol((np.array([0.0, 2.0]),))
    array([-0.  , -0.04])
    """

    @property
    def dim(self) -> int:
        """Space dimensions, D."""
        return 1

    @property
    def components(self) -> int:
        """Unknown functions."""
        return 1

    @property
    def degree(self) -> int:
        """Degree of the polynomial N; 1 if there is none."""
        return 2

    @property
    def advective(self) -> bool:
        """Whether `flow` is defined."""
        return False

    @abstractmethod
    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return L at wavenumbers k_d, real or complex, to broadcast to (components, *mode_shape)."""

    @abstractmethod
    def nonlinear(self, transforms: Transforms) -> Term:
        """Return N as a function of modes, with everything computed that does not depend on them."""

    def flow(self, transforms: Transforms, modes: Array) -> Array:
        """Return the velocity of the explicit transport on the product grid, shape (B, D, *nodes)."""
        raise ConfigError(f"step='cfl': {type(self).__name__} has no velocity, so give a number")


def square_norm(wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return k^2, of the wavenumbers' common shape.

    Examples
    --------
    >>> square_norm((np.array([[1.0], [2.0]]), np.array([[0.0, 3.0]]))).tolist()
    [[1.0, 10.0], [4.0, 13.0]]
    """
    return np.asarray(sum(k**2 for k in wavenumbers))


def is_finite_number(value: Any, least: float = -math.inf) -> bool:
    """Return whether a value is a finite real number, not below ``least`` and no boolean.

    Examples
    --------
    >>> [is_finite_number(value) for value in (1, 0.5, True, "1", math.nan)]
    [True, True, False, False, False]
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    # A float32 cannot be compared with the largest float64, nor can a large integer become one.
    number = value.item() if isinstance(value, np.generic) else value
    return max(least, -sys.float_info.max) <= number <= sys.float_info.max


def check(equation: object, minima: dict[str, float]) -> None:
    """Raise a ConfigError unless the named parameters are finite numbers, not below, and dim is 1, 2 or 3.

    Examples
    --------
    >>> from sciml.solvers.spectral import Burgers
    >>> check(Burgers(0.01), {"viscosity": 0})
    """
    name = type(equation).__name__
    for parameter, least in minima.items():
        value = getattr(equation, parameter)
        if not is_finite_number(value, least):
            bound = f" of at least {least}" if math.isfinite(least) else ""
            raise ConfigError(f"{parameter}={_short(value)} of {name}: give a finite number{bound}")
    dim = getattr(equation, "dim", 1)
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or dim not in (1, 2, 3):
        raise ConfigError(f"dim={_short(dim)} of {name}: choose 1, 2 or 3")


def _short(value: object) -> str:
    """Of one line, also for an array."""
    return " ".join(reprlib.repr(value).split())


def half_square(transforms: Transforms, factor: float) -> Term:
    """Return the map of modes of u to those of -factor (u^2 / 2)_x, in one dimension.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid
    >>> from sciml.solvers.spectral import FourierBasis
    >>> basis = FourierBasis(CartesianGrid((0.0,), (2 * np.pi,), (8,), (True,)))
    >>> term = half_square(Transforms(basis, (12,), np.zeros(1)), 1.0)  # u = cos x
    >>> term(np.array([0, 0.5, 0, 0]) + 0j)[2].imag.round(12).item()
    -0.25
    """
    weight = transforms.factor(-0.5j * factor * np.asarray(transforms.basis.wavenumbers[0]))
    return lambda modes: transforms.squared(modes, weight)
