"""Poisson's equation on random star-shaped domains, given at scattered points."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from sciml.solvers import Poisson, Star, solve

from ..recipe import MOST, FieldSpec, PointsLayout, Trajectory, recipe_registry
from .random_star import RandomStarRecipe, star_scalars

__all__ = ["PoissonStarCloudRecipe"]


@recipe_registry.register("poisson-star-cloud")
@dataclass(frozen=True)
class PoissonStarCloudRecipe(RandomStarRecipe):
    """Poisson's equation on random star domains, as ``poisson-star``, at scattered points.

    Laplace u = f in the star r < R + R sum_(k=2..5) a_k cos(k theta - p_k), u = 0 on its boundary; all dimensionless.
    R, a_k, p_k and f are those that ``poisson-star`` draws from the same seed. Source, solution and quadrature weights
    are stored at the points of a scrambled Halton sequence in the box [-1/2, 1/2]^2 that are inside, ``density`` per
    unit area; more of them begin with the same points. Solved by fourth-order PLG finite differences (65 x 65
    nodes), evaluated by local polynomials. Stated accuracy, as the relative L2 difference to the solution with
    half the spacing: 2e-4.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    equation = "Laplace u = f in a random star, u = 0 on its boundary"
    check_limits = {"relative_residual": 1e-9}  # noqa: RUF012 - read only
    accuracy = 2e-4
    ranges = {"density": (64, MOST)}  # noqa: RUF012 - read only

    density: int = 2048
    """Points per unit area."""

    def layout(self) -> PointsLayout:
        """Return source, solution and weights at points, with the star's parameters as scalars."""
        return PointsLayout(
            name="poisson-star-cloud",
            dim=2,
            fields=(
                FieldSpec("f", "source, dimensionless"),
                FieldSpec("u", "solution, dimensionless"),
                FieldSpec("weight", "quadrature weight, dimensionless"),
            ),
            size=self.density // 2,
            scalars=self.scalars,
            inputs=("f",),
            targets=("u",),
            weight="weight",
        )

    def points(self, star: Star, seed: int) -> np.ndarray:
        """Return the points of a seed, shape (N, 2)."""
        own = np.random.SeedSequence(seed, spawn_key=(2,)).generate_state(1)[0]
        box = qmc.Halton(2, rng=np.random.default_rng(own)).random(self.density) - 0.5
        return box[star.phi(box) < 0]

    def sample(self, seed: int) -> Trajectory:
        """Return one star, its source and its solution."""
        star, source = self.star(seed), self.function(seed)
        solution = solve(Poisson(star, source), self.grid(self.refine), self.method(), solver="direct")
        x = self.points(star, seed)
        return Trajectory(
            {
                "positions": x,
                "f": source(*x.T),
                "u": solution.evaluate(x),
                "weight": np.full(len(x), 1 / self.density),
            },
            star_scalars(star),
            {"relative_residual": solution.info["residual"]},
        )
