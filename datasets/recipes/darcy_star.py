"""Darcy flow through a smooth random medium in random star-shaped domains."""

from dataclasses import dataclass

import numpy as np

from sciml.solvers import Dirichlet, DivAGrad, EllipticProblem, solve

from ..recipe import FieldsLayout, FieldSpec, Trajectory, recipe_registry
from .random_star import RandomFunction, RandomStarRecipe, star_scalars

__all__ = ["DarcyStarRecipe", "LogNormal"]


class LogNormal:
    """The coefficient a = exp(amplitude g) of a random function g, and its gradient.

    Parameters
    ----------
    function : RandomFunction
        g.
    amplitude : float
        Standard deviation of log a, where g has mean square 1.
    """

    def __init__(self, function: RandomFunction, amplitude: float) -> None:
        self.function, self.amplitude = function, amplitude

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Evaluate a at points, shapes (m,) and (m,) to (m,)."""
        return np.exp(self.amplitude * self.function(x, y))

    def along_x(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Evaluate da/dx at points."""
        return self.amplitude * self(x, y) * self.function.derivative(0, x, y)

    def along_y(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Evaluate da/dy at points."""
        return self.amplitude * self(x, y) * self.function.derivative(1, x, y)


@recipe_registry.register("darcy-star")
@dataclass(frozen=True)
class DarcyStarRecipe(RandomStarRecipe):
    """Darcy flow in random star domains, solved to fourth order by PLG finite differences.

    -div(a grad u) = 1 in the star r < R + R sum_(k=2..5) a_k cos(k theta - p_k), u = 0 on its boundary;
    all dimensionless. R is uniform in [0.28, 0.36], a_k = roughness / 4 times a uniform number in
    [-1, 1], p_k uniform; log a is amplitude times a smooth Gaussian random field of mean 0 and unit
    variance with Neumann boundary on the box [-1/2, 1/2]^2 that contains every star. Outside the star u
    and the mask are 0; a is given on the whole box. Solved on the stored grid (65 x 65); the solution
    converges at fourth order in the grid spacing. Stated accuracy, as the relative L2
    difference to the solution with half the spacing: 2e-4 (20 stars: median 8e-6, largest 5e-5).

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    equation = "-div(a grad u) = 1 in a random star, u = 0 on its boundary"
    check_limits = {"relative_residual": 1e-9}  # noqa: RUF012 - read only
    accuracy = 2e-4
    ranges = {"amplitude": (0, 3)}  # noqa: RUF012 - read only

    amplitude: float = 1.0
    """Standard deviation of log a."""

    def layout(self) -> FieldsLayout:
        """Return coefficient, mask and solution on the box, with the star's parameters as scalars."""
        return FieldsLayout(
            name="darcy-star",
            grid=self.grid(),
            fields=(
                FieldSpec("a", "permeability, dimensionless", time_varying=False),
                FieldSpec("mask", "1 inside the star, 0 outside", time_varying=False),
                FieldSpec("u", "pressure, dimensionless, 0 outside the star"),
            ),
            scalars=self.scalars,
            inputs=("a", "mask"),
            targets=("u",),
            mask="mask",
            boundary="OPEN",
        )

    def sample(self, seed: int) -> Trajectory:
        """Return one star, its coefficient and its pressure."""
        star, grid = self.star(seed), self.grid()
        a = LogNormal(self.function(seed), self.amplitude)
        operator = DivAGrad(a, gradient=(a.along_x, a.along_y))
        problem = EllipticProblem(star, operator, -1.0, Dirichlet(), name="darcy")
        solution = solve(problem, self.grid(self.refine), self.method(), solver="direct")
        u, mask = self.stored(solution.values)
        return Trajectory(
            {"a": a(*grid.nodes().reshape(-1, 2).T).reshape(grid.shape), "mask": mask, "u": u},
            star_scalars(star),
            {"relative_residual": solution.info["residual"]},
        )
