"""Darcy flow through a two-phase medium."""

from dataclasses import dataclass

import numpy as np

from sciml.errors import ConfigError
from sciml.solvers.five_point import FivePoint
from sciml.solvers.grid import CartesianGrid

from ..random_fields import GaussianRandomField
from ..recipe import FieldsLayout, FieldSpec, Recipe, Trajectory, recipe_registry

__all__ = ["Darcy"]


@recipe_registry.register("darcy")
@dataclass(frozen=True)
class Darcy(Recipe):
    """Steady Darcy flow with a binary coefficient: the setting of the FNO benchmark.

    -div(a grad u) = 1 on the unit square, u = 0 on its boundary; a is 12 where a Gaussian random
    field N(0, (-Laplace + 9)^-2) with Neumann boundary is at least 0, else 3 (arXiv 2010.08895).
    Five-point scheme, conjugate gradients to a relative residual of 1e-11. The coefficient jumps,
    so the discrete solution converges at first order only; the benchmark defines the map at its own
    resolution. The published files (421 x 421, coefficients smeared by interpolation) cannot be
    regenerated exactly: compare with published errors as "a similar problem".

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    equation = "-div(a grad u) = 1 on (0, 1)^2, u = 0 on the boundary"
    check_limits = {"relative_residual": 1e-9}  # noqa: RUF012 - read only

    resolution: int = 85
    """Stored nodes per axis, both ends included."""
    refine: int = 1
    """The solver's grid is this many times finer (5 gives the benchmark's 421 at resolution 85)."""
    high: float = 12.0
    """Coefficient where the random field is at least 0."""
    low: float = 3.0
    """Coefficient elsewhere."""
    alpha: float = 2.0
    """Smoothness of the random field."""
    tau: float = 3.0
    """Inverse length scale of the random field."""
    modes: int = 128
    """Wavenumbers per axis in the random field; the same at every resolution."""

    def __post_init__(self) -> None:
        if self.resolution < 5:
            raise ConfigError(f"darcy resolution={self.resolution}: use at least 5 nodes per axis")
        if self.refine < 1:
            raise ConfigError(f"darcy refine={self.refine}: use at least 1")
        if not (0 < self.high < np.inf and 0 < self.low < np.inf):
            raise ConfigError(f"darcy high={self.high}, low={self.low}: both must be positive and finite")
        self._field()

    def _field(self) -> GaussianRandomField:
        return GaussianRandomField(self.alpha, self.tau, "neumann", 2, self.modes)

    def _grid(self, refine: int) -> CartesianGrid:
        return CartesianGrid.uniform((self.resolution - 1) * refine, (0.0, 0.0), (1.0, 1.0))

    def layout(self) -> FieldsLayout:
        """Return coefficient and pressure on the unit square."""
        return FieldsLayout(
            name="darcy",
            grid=self._grid(1),
            fields=(
                FieldSpec("a", "permeability, dimensionless", time_varying=False),
                FieldSpec("u", "pressure, dimensionless"),
            ),
            parameters={"high": self.high, "low": self.low},
            inputs=("a",),
            targets=("u",),
        )

    def sample(self, seed: int) -> Trajectory:
        """Return one coefficient and its pressure."""
        grid = self._grid(self.refine)
        coefficient = np.where(self._field().sample(seed, grid.axes) >= 0, self.high, self.low)
        u, residual = FivePoint(coefficient, grid).solve(np.ones(grid.shape))
        every = slice(None, None, self.refine)
        return Trajectory(
            {"a": coefficient[every, every], "u": u[every, every]}, {}, {"relative_residual": residual}
        )
