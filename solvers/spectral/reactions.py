"""Equations of reaction and diffusion: Allen-Cahn, Fisher-KPP, Gray-Scott."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .basis import multiplied
from .equation import SpectralEquation, Term, check, square_norm
from .transforms import Transforms

__all__ = [
    "AllenCahn",
    "GrayScott",
    "ReactionDiffusion",
]

Array = Any  # NumPy array, torch tensor, ...


@dataclass(frozen=True)
class AllenCahn(SpectralEquation):
    """u_t = D Laplace u + u - u^3 (Allen and Cahn, Acta Metall. 27, 1085, 1979).

    Interfaces between the states -1 and 1 have a width of about sqrt(2 D): with fewer than some five
    nodes in it they stick to the grid.

    Parameters
    ----------
    diffusivity : float
        D >= 0.
    dim : int

    Raises
    ------
    ConfigError
        If a parameter is out of its range.

    Examples
    --------
    >>> AllenCahn(0.01).degree
    3
    """

    diffusivity: float
    dim: int = 1

    def __post_init__(self) -> None:
        check(self, {"diffusivity": 0})

    @property
    def degree(self) -> int:
        """3."""
        return 3

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return 1 - D k^2."""
        return np.asarray(1 - self.diffusivity * square_norm(wavenumbers))

    def nonlinear(self, transforms: Transforms) -> Term:
        """Return -u^3."""

        def term(modes: Array) -> Array:
            u = transforms.to_grid(modes)
            return transforms.to_modes(multiplied(multiplied(u * u, u), -1))

        return term


@dataclass(frozen=True)
class ReactionDiffusion(SpectralEquation):
    """u_t = nu Laplace u + rho u (1 - u), the equation of Fisher, Kolmogorov, Petrovsky and Piskunov.

    u = 0 is unstable: where the solution undershoots below it, it falls without bound.

    Parameters
    ----------
    diffusivity : float
        nu >= 0.
    rate : float
        rho.
    dim : int

    Raises
    ------
    ConfigError
        If a parameter is out of its range.

    Examples
    --------
    >>> ReactionDiffusion(0.5, 1.0).symbol((np.array([0.0, 1.0]),)).tolist()
    [1.0, 0.5]
    """

    diffusivity: float
    rate: float
    dim: int = 1

    def __post_init__(self) -> None:
        check(self, {"diffusivity": 0, "rate": -math.inf})

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return rho - nu k^2."""
        return np.asarray(self.rate - self.diffusivity * square_norm(wavenumbers))

    def nonlinear(self, transforms: Transforms) -> Term:
        """Return -rho u^2."""

        def term(modes: Array) -> Array:
            u = transforms.to_grid(modes)
            return transforms.to_modes(multiplied(u, u)) * -self.rate

        return term


@dataclass(frozen=True)
class GrayScott(SpectralEquation):
    """A_t = D_A Laplace A - A B^2 + F (1 - A), B_t = D_B Laplace B + A B^2 - (F + k) B.

    Components A, B. Pearson, Science 261, 189 (1993), with D_A = 2e-5, D_B = 1e-5 on a box of side 2.5.
    The state A = 1, B = 0 is stable: patterns need a finite initial disturbance.

    Parameters
    ----------
    diffusivity_a, diffusivity_b : float
        D_A, D_B >= 0.
    feed, kill : float
        F, k >= 0.
    dim : int

    Raises
    ------
    ConfigError
        If a parameter is out of its range.

    Examples
    --------
    >>> GrayScott(2e-5, 1e-5, feed=0.029, kill=0.057).components
    2
    """

    diffusivity_a: float
    diffusivity_b: float
    feed: float
    kill: float
    dim: int = 2

    def __post_init__(self) -> None:
        check(self, dict.fromkeys(("diffusivity_a", "diffusivity_b", "feed", "kill"), 0))

    @property
    def components(self) -> int:
        """2, A and B."""
        return 2

    @property
    def degree(self) -> int:
        """3."""
        return 3

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return -D_A k^2 - F and -D_B k^2 - F - k."""
        square = square_norm(wavenumbers)
        return np.stack(
            [-self.diffusivity_a * square - self.feed, -self.diffusivity_b * square - self.feed - self.kill]
        )

    def nonlinear(self, transforms: Transforms) -> Term:
        """Return F - A B^2 and A B^2."""
        mean_of_a = (slice(None), 0, *(0,) * self.dim)

        def term(modes: Array) -> Array:
            values = transforms.to_grid(modes)
            reaction = multiplied(values[:, 1:] * values[:, 1:], values[:, :1])
            gain = transforms.to_modes(reaction)
            change = array_namespace(modes).concat([-gain, gain], axis=1)
            change[mean_of_a] += self.feed
            return change

        return term
