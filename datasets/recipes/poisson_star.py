"""Poisson's equation on random star-shaped domains."""

from dataclasses import dataclass, replace

import numpy as np

from sciml.errors import ConfigError
from sciml.solvers import PLG, CartesianGrid, Poisson, Star, solve

from ..random_fields import GaussianRandomField
from ..recipe import FieldsLayout, FieldSpec, Recipe, Trajectory, recipe_registry

__all__ = ["PoissonStar"]

PETALS = (2, 3, 4, 5)


class _Source:
    """A random field on the unit square, moved to the box [-1/2, 1/2]^2, at scattered points."""

    def __init__(self, field: GaussianRandomField, seed: int) -> None:
        self.field, self.coefficients = field, field.coefficients(seed)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.einsum(
            "pi,ij,pj->p",
            self.field.basis(x + 0.5),
            self.coefficients,
            self.field.basis(y + 0.5),
            optimize=True,
        )


@recipe_registry.register("poisson-star")
@dataclass(frozen=True)
class PoissonStar(Recipe):
    """Poisson's equation on random star domains, solved to fourth order by PLG finite differences.

    Laplace u = f in the star r < R (1 + sum_(k=2..5) a_k cos(k theta - p_k)), u = 0 on its boundary.
    R is uniform in [0.28, 0.36], a_k = roughness / 4 times a uniform number in [-1, 1], p_k uniform;
    f is a smooth Gaussian random field of unit variance on the box [-1/2, 1/2]^2 that contains every star. Outside
    the star u is 0 and the mask 0. The solution converges at fourth order in the grid spacing.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    equation = "Laplace u = f in a random star, u = 0 on its boundary"
    check_limits = {"relative_residual": 1e-9}  # noqa: RUF012 - read only

    resolution: int = 65
    """Nodes per axis of the box, both ends included."""
    degree: int = 4
    """Degree of the local polynomials: 2, 3 or 4."""
    roughness: float = 0.3
    """Bound on the relative radial perturbation, at most 0.35."""
    alpha: float = 5.0
    """Smoothness of the source."""
    tau: float = 8.0
    """Inverse length scale of the source."""
    modes: int = 16
    """Wavenumbers per axis in the source; the same at every resolution."""

    def __post_init__(self) -> None:
        if self.resolution < 33:
            raise ConfigError(f"poisson-star resolution={self.resolution}: use at least 33 nodes per axis")
        if not 0 <= self.roughness <= 0.35:
            raise ConfigError(f"poisson-star roughness={self.roughness}: choose a value from 0 to 0.35")
        PLG(degree=self.degree)
        self._field()

    def _field(self) -> GaussianRandomField:
        unit = GaussianRandomField(self.alpha, self.tau, "neumann", 2, self.modes, sigma=1.0)
        return replace(unit, sigma=float(np.sum(unit.spectrum() ** 2) ** -0.5))

    def _grid(self) -> CartesianGrid:
        return CartesianGrid.uniform(self.resolution - 1)

    def layout(self) -> FieldsLayout:
        """Return source, mask and solution on the box, with the star's parameters as scalars."""
        return FieldsLayout(
            name="poisson-star",
            grid=self._grid(),
            fields=(
                FieldSpec("f", "source, dimensionless", time_varying=False),
                FieldSpec("mask", "1 inside the star, 0 outside", time_varying=False),
                FieldSpec("u", "solution, dimensionless, 0 outside the star"),
            ),
            scalars=("radius", *(f"{part}_{k}" for k in PETALS for part in ("amplitude", "phase"))),
            inputs=("f", "mask"),
            targets=("u",),
            mask="mask",
            boundary="OPEN",
        )

    def star(self, seed: int) -> Star:
        """Return the domain of a seed."""
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
        radius = float(rng.uniform(0.28, 0.36))
        amplitude = radius * self.roughness / len(PETALS) * rng.uniform(-1, 1, len(PETALS))
        return Star(
            radius, tuple(amplitude.tolist()), PETALS, tuple(rng.uniform(0, 2 * np.pi, len(PETALS)).tolist())
        )

    def source(self, seed: int) -> _Source:
        """Return the source of a seed, a function of position in the box."""
        source_seed = np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(1, np.uint64)[0]
        return _Source(self._field(), int(source_seed))

    def sample(self, seed: int) -> Trajectory:
        """Return one star, its source and its solution."""
        star, source, grid = self.star(seed), self.source(seed), self._grid()
        solution = solve(Poisson(star, source), grid, PLG(degree=self.degree))
        nodes = grid.nodes().reshape(-1, 2)
        modes = zip(PETALS, np.atleast_1d(star.amplitude), np.atleast_1d(star.phase), strict=True)
        scalars = {"radius": star.radius}
        for k, amplitude, phase in modes:
            scalars |= {f"amplitude_{k}": float(amplitude), f"phase_{k}": float(phase)}
        return Trajectory(
            {
                "f": source(*nodes.T).reshape(grid.shape),
                "mask": solution.mask.astype(float),
                "u": np.where(solution.mask, solution.values, 0.0),
            },
            scalars,
            {"relative_residual": solution.info["residual"]},
        )
