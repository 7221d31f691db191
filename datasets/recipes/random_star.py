"""Base of the recipes on random star-shaped domains, solved by PLG finite differences."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from sciml.solvers import PLG, CartesianGrid, Star

from ..random_fields import GaussianRandomField
from ..recipe import MOST, Recipe

__all__ = ["PETALS", "RandomFunction", "RandomStarRecipe", "star_scalars"]

PETALS = (2, 3, 4, 5)


class RandomFunction:
    """A random field on the unit square, moved to the box [-1/2, 1/2]^2, at scattered points.

    Parameters
    ----------
    field : GaussianRandomField
        Two-dimensional.
    seed : int

    Examples
    --------
    >>> g = RandomFunction(GaussianRandomField(alpha=5.0, tau=8.0, modes=16), seed=1)
    >>> x, step = np.array([0.1, 0.2]), 1e-5
    >>> bool(np.allclose(g.derivative(0, x, x), (g(x + step, x) - g(x - step, x)) / (2 * step)))
    True
    """

    def __init__(self, field: GaussianRandomField, seed: int) -> None:
        self.field, self.coefficients = field, field.coefficients(seed)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Evaluate at points, shapes (m,) and (m,) to (m,)."""
        return self._sum(self.field.basis(x + 0.5), self.field.basis(y + 0.5))

    def derivative(self, axis: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Evaluate the derivative along an axis at points."""
        field = self.field
        if axis == 0:
            return self._sum(field.basis_derivative(x + 0.5), field.basis(y + 0.5))
        return self._sum(field.basis(x + 0.5), field.basis_derivative(y + 0.5))

    def _sum(self, along_x: np.ndarray, along_y: np.ndarray) -> np.ndarray:
        return np.einsum("pi,ij,pj->p", along_x, self.coefficients, along_y, optimize=True)


def star_scalars(star: Star) -> dict[str, float]:
    """Return the numbers that describe a star: radius, amplitudes and phases.

    Examples
    --------
    >>> star_scalars(Star(0.3, (0.1, 0.02), (3, 5), (0.0, 1.0)))["amplitude_5"]
    0.02
    """
    scalars = {"radius": star.radius}
    modes = (np.atleast_1d(values) for values in (star.petals, star.amplitude, star.phase))
    for k, amplitude, phase in zip(*modes, strict=True):
        scalars |= {f"amplitude_{k}": float(amplitude), f"phase_{k}": float(phase)}
    return scalars


@dataclass(frozen=True)
class RandomStarRecipe(Recipe):
    """A problem in a random star, with one random function on the box [-1/2, 1/2]^2 that contains it.

    The star is r < R + R sum_(k=2..5) a_k cos(k theta - p_k), with R uniform in [0.28, 0.36], a_k =
    roughness / 4 times a uniform number in [-1, 1], and p_k uniform. The function is a Gaussian random
    field N(0, sigma^2 (-Laplace + tau^2)^-alpha) with Neumann boundary on the box, mean 0 and mean
    square 1.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    ranges = {  # noqa: RUF012 - read only
        "resolution": (33, MOST),
        "refine": (1, MOST),
        "degree": (2, 4),
        "roughness": (0, 0.35),
    }

    resolution: int = 65
    """Stored nodes per axis of the box, both ends included."""
    refine: int = 1
    """The solver's grid is this many times finer than the stored one."""
    degree: int = 4
    """Degree of the local polynomials: 2, 3 or 4."""
    roughness: float = 0.3
    """Bound on the relative radial perturbation, at most 0.35."""
    alpha: float = 5.0
    """Smoothness of the random function."""
    tau: float = 8.0
    """Inverse length scale of the random function."""
    modes: int = 16
    """Wavenumbers per axis in the random function; the same at every resolution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._field()

    def _field(self) -> GaussianRandomField:
        return GaussianRandomField(self.alpha, self.tau, "neumann", 2, self.modes).normalised()

    def method(self) -> PLG:
        """Return the discretisation."""
        return PLG(degree=self.degree)

    def grid(self, refine: int = 1) -> CartesianGrid:
        """Return the stored grid, or a finer one."""
        return CartesianGrid.uniform((self.resolution - 1) * refine)

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the star's numbers."""
        return ("radius", *(f"{part}_{k}" for k in PETALS for part in ("amplitude", "phase")))

    def star(self, seed: int) -> Star:
        """Return the domain of a seed."""
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
        radius = float(rng.uniform(0.28, 0.36))
        amplitude = radius * self.roughness / len(PETALS) * rng.uniform(-1, 1, len(PETALS))
        return Star(
            radius, tuple(amplitude.tolist()), PETALS, tuple(rng.uniform(0, 2 * np.pi, len(PETALS)).tolist())
        )

    def function(self, seed: int) -> RandomFunction:
        """Return the random function of a seed."""
        own = np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(1, np.uint64)[0]
        return RandomFunction(self._field(), int(own))

    def stored(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values at the stored nodes, 0 outside, and the mask, of values (..., x, y) with NaN outside."""
        every = slice(None, None, self.refine)
        kept = values[..., every, every]
        inside = np.isfinite(kept)
        return np.where(inside, kept, 0.0), inside.reshape(-1, *inside.shape[-2:])[0].astype(float)

    def working_memory(self, batch: int) -> float:
        """Estimate from measurements: stencils and factors of one sample, and the function's basis."""
        nodes = ((self.resolution - 1.0) * self.refine + 1) ** 2
        # A third of the box is inside; the function is also evaluated on all stored nodes.
        points = max(nodes / 3, float(self.resolution) ** 2)
        return 900 * nodes + 40 * points * self.modes + 32.0 * self.modes**2

    def refined(self) -> Self:
        """Return the recipe solved on a grid twice as fine."""
        return replace(self, refine=2 * self.refine)

    @property
    def coarseness(self) -> float:
        """Spacing of the solver's grid relative to that of the default grid."""
        return 64 / ((self.resolution - 1) * self.refine)

    def verification_limits(self) -> dict[str, float]:
        """Return the stated accuracy, scaled to other grids and degrees by the order of convergence."""
        limit = self.accuracy * 5.0 ** (4 - self.degree) * self.coarseness**self.degree
        # Stored numbers have single precision.
        return {"self_convergence": max(limit, 1e-6)}
