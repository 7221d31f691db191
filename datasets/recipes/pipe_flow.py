"""Steady viscous flow through a random channel."""

from dataclasses import dataclass, replace

import numpy as np

from sciml.solvers import CartesianGrid
from sciml.solvers.fem import IncompressibleFlow, channel, solve_mixed

from ..recipe import MOST, POSITIVE, FieldsLayout, FieldSpec, Recipe, Trajectory, recipe_registry

__all__ = ["PipeFlowRecipe"]

LENGTH, WIDTH = 10.0, 1.0
STATIONS = 5


@recipe_registry.register("pipe-flow")
@dataclass(frozen=True)
class PipeFlowRecipe(Recipe):
    """Steady incompressible flow through a random channel (after Li et al., Geo-FNO, arXiv 2207.05209).

    (u . grad) u - nu Laplace u + grad p = 0, div u = 0 in a channel of length 10 and width 1 (in y) about a centre line
    of four cubic pieces, with heights uniform in [-2, 2] and slopes uniform in [-1, 1] where they meet; u = (1 - (2 y /
    width)^2, 0) at the inlet, where y is the distance from the centre line, no slip at the walls, free outflow; all
    dimensionless. Stored on the grid of the map from the unit square, along and across the channel: positions x and y,
    the horizontal velocity u, the vertical one v, and p. The mesh is the deformation of Geo-FNO.

    Solved by Taylor-Hood elements, 160 along and 20 across the channel: third order in the velocity. Stated accuracy,
    as the relative L2 difference to the solution on a mesh of half the spacing: 5e-3.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    equation = "(u . grad) u - nu Laplace u + grad p = 0, div u = 0 in a random channel"
    check_limits = {"relative_residual": 1e-9}  # noqa: RUF012 - read only
    accuracy = 5e-3
    ranges = {  # noqa: RUF012 - read only
        "resolution": (5, MOST),
        "along": (8, MOST),
        "across": (2, MOST),
        "viscosity": POSITIVE,
    }

    resolution: int = 129
    """Stored nodes along and across the channel."""
    along: int = 160
    """Elements along the channel."""
    across: int = 20
    """Elements across it."""
    viscosity: float = 0.005
    """nu."""

    def layout(self) -> FieldsLayout:
        """Return positions, velocity and pressure by index, with the centre line's numbers as scalars."""
        return FieldsLayout(
            name="pipe-flow",
            grid=CartesianGrid((0.0, 0.0), (1.0, 1.0), (self.resolution - 1,) * 2),
            fields=(
                FieldSpec("x", "position along the channel's axis, dimensionless", time_varying=False),
                FieldSpec("y", "position across it, dimensionless", time_varying=False),
                FieldSpec("u", "velocity along x, dimensionless"),
                FieldSpec("v", "velocity along y, dimensionless"),
                FieldSpec("p", "pressure, dimensionless"),
            ),
            scalars=tuple(f"{name}_{i}" for name in ("height", "slope") for i in range(STATIONS)),
            parameters={"viscosity": self.viscosity},
            inputs=("x", "y"),
            targets=("u",),
        )

    def sample(self, seed: int) -> Trajectory:
        """Return the flow through one channel."""
        rng = np.random.default_rng(seed)
        heights, slopes = rng.uniform(-2, 2, STATIONS), rng.uniform(-1, 1, STATIONS)
        mesh = channel(np.linspace(0, LENGTH, STATIONS), heights, slopes, WIDTH, self.along, self.across)
        problem = IncompressibleFlow(
            dirichlet=(lambda x, y: np.where(x < 1e-9, 1 - (2 * (y - heights[0]) / WIDTH) ** 2, 0.0), 0.0),
            natural=lambda x, y: x > LENGTH - 1e-9,
            viscosity=self.viscosity,
            name="pipe-flow",
        )
        solution = solve_mixed(problem, mesh)
        positions, velocity, _, p = solution.at(self.layout().grid.nodes().reshape(-1, 2))
        values = dict(zip("xyuvp", (*positions.T, *velocity.T, p), strict=True))
        scalars = {f"height_{i}": float(h) for i, h in enumerate(heights)}
        scalars |= {f"slope_{i}": float(s) for i, s in enumerate(slopes)}
        return Trajectory(
            {name: part.reshape(self.resolution, self.resolution) for name, part in values.items()},
            scalars,
            {"relative_residual": solution.info["residual"]},
        )

    def working_memory(self, batch: int) -> float:
        """Estimate from measurements: element matrices and factors of one sample."""
        return 5.5e4 * self.along * self.across + 400.0 * self.resolution**2

    def refined(self) -> "PipeFlowRecipe":
        """Return the recipe solved on a mesh of half the spacing."""
        return replace(self, along=2 * self.along, across=2 * self.across)

    def verification_limits(self) -> dict[str, float]:
        """Return the stated accuracy, scaled to other meshes by the order of convergence."""
        return {"self_convergence": self.accuracy * max(1.0, 160 / self.along, 20 / self.across) ** 2}
