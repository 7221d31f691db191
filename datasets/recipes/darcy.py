"""Darcy flow through random media on the unit square."""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from sciml.errors import ConfigError
from sciml.solvers.five_point import FivePoint
from sciml.solvers.grid import CartesianGrid
from sciml.solvers.linear import dot

from ..random_fields import GaussianRandomField
from ..recipe import MOST, POSITIVE, FieldsLayout, FieldSpec, Recipe, Trajectory, recipe_registry

__all__ = ["DarcyRecipe"]

TOLERANCE = 1e-9  # of the relative residual: far below the error of the scheme
SMOOTH_ACCURACY = 4e-3
CONTRAST = 1e6


@recipe_registry.register("darcy")
@dataclass(frozen=True)
class DarcyRecipe(Recipe):
    """Steady Darcy flow through a random medium: the setting of the FNO benchmark, and a smooth one.

    -div(a grad u) = 1 on the unit square, u = 0 on its boundary; all dimensionless. The medium follows
    from a Gaussian random field g ~ N(0, (-Laplace + 9)^-2) with Neumann boundary and mean 0:

    - ``binary``: a is 12 where g is at least 0, else 3 (arXiv 2010.08895);
    - ``smooth``: log a is ``amplitude`` times g, scaled to an expected mean square of 1.

    Five-point scheme on (resolution - 1) refine + 1 nodes per axis, 85 by default, solved to a relative
    residual of 1e-9. Where the coefficient jumps, the scheme converges at first order only, else at
    second order; the benchmark defines the map at its own resolution (``refine`` 5 for its 421 nodes).
    Stated accuracy, as the relative L2 difference to the solution with half the spacing h, at the
    default contrast or amplitude: 2e-2 for the binary medium, 4e-3 for the smooth one, times h / h_85 or
    its square on other grids (20 media at 85 nodes: at most 6.6e-3 and 1.2e-3; 8 media at 421 nodes: at
    most 1.3e-3 and 4.7e-5).

    The published files (coefficients smeared by interpolation) cannot be regenerated exactly: compare
    with published errors as "a similar problem".

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    equation = "-div(a grad u) = 1 on (0, 1)^2, u = 0 on the boundary"
    check_limits = {"relative_residual": 1e-8}  # noqa: RUF012 - read only
    accuracy = 2e-2
    ranges = {  # noqa: RUF012 - read only
        "resolution": (5, MOST),
        "refine": (1, MOST),
        "high": POSITIVE,
        "low": POSITIVE,
        "amplitude": (0, 3),
    }

    resolution: int = 85
    """Stored nodes per axis, both ends included."""
    refine: int = 1
    """The solver's grid is this many times finer (5 gives the benchmark's 421 at resolution 85)."""
    medium: Literal["binary", "smooth"] = "binary"
    """Two phases, or a lognormal coefficient."""
    high: float = 12.0
    """Coefficient of a binary medium where the random field is at least 0."""
    low: float = 3.0
    """Coefficient of a binary medium elsewhere."""
    amplitude: float = 1.0
    """Standard deviation of log a in a smooth medium."""
    alpha: float = 2.0
    """Smoothness of the random field."""
    tau: float = 3.0
    """Inverse length scale of the random field."""
    modes: int = 128
    """Wavenumbers per axis in the random field; the same at every resolution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.high / self.low, self.low / self.high) > CONTRAST:
            raise ConfigError(
                f"darcy high={self.high}, low={self.low}: the linear systems are too ill-conditioned, keep the "
                f"ratio of the two below {CONTRAST:g}"
            )
        self._field()

    def _field(self) -> GaussianRandomField:
        return GaussianRandomField(self.alpha, self.tau, "neumann", 2, self.modes)

    def _grid(self, refine: int) -> CartesianGrid:
        return CartesianGrid.uniform((self.resolution - 1) * refine, (0.0, 0.0), (1.0, 1.0))

    def layout(self) -> FieldsLayout:
        """Return coefficient and pressure on the unit square."""
        binary = self.medium == "binary"
        return FieldsLayout(
            name="darcy",
            grid=self._grid(1),
            fields=(
                FieldSpec("a", "permeability, dimensionless", time_varying=False),
                FieldSpec("u", "pressure, dimensionless"),
            ),
            parameters={"high": self.high, "low": self.low} if binary else {"amplitude": self.amplitude},
            inputs=("a",),
            targets=("u",),
        )

    def coefficient(self, seed: int, axes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return a on a tensor-product grid of the unit square."""
        if self.medium == "smooth":
            return np.exp(self.amplitude * self._field().normalised().sample(seed, axes))
        return np.where(self._field().sample(seed, axes) >= 0, self.high, self.low)

    def sample(self, seed: int) -> Trajectory:
        """Return one coefficient and its pressure."""
        grid = self._grid(self.refine)
        a = self.coefficient(seed, grid.axes)
        u, _ = FivePoint(a, grid).solve(np.ones(grid.shape), TOLERANCE)
        every = slice(None, None, self.refine)
        checks = {"relative_residual": _relative_residual(a, u, grid)}
        return Trajectory({"a": a[every, every], "u": u[every, every]}, {}, checks)

    def working_memory(self, batch: int) -> float:
        """Estimate from measurements: the multigrid solver of one sample, and the field's basis."""
        nodes = (self.resolution - 1.0) * self.refine + 1
        return 140 * nodes**2 + 24 * nodes * self.modes + 32.0 * self.modes**2

    def refined(self) -> Self:
        """Return the recipe solved on a grid twice as fine."""
        return replace(self, refine=2 * self.refine)

    def verification_limits(self) -> dict[str, float]:
        """Return the stated accuracy of the medium, scaled to other grids by the order of convergence."""
        coarseness = 84 / ((self.resolution - 1) * self.refine)
        binary = self.medium == "binary"
        limit = self.accuracy * coarseness if binary else SMOOTH_ACCURACY * coarseness**2
        # Stored numbers have single precision.
        return {"self_convergence": max(limit, 1e-6)}


def _relative_residual(a: np.ndarray, u: np.ndarray, grid: CartesianGrid) -> float:
    """Return |f - A u| / |f| of the whole system, f = 1 inside and u = 0 on the boundary.

    Formed anew from the two arrays: what the solver says of itself would pass a wrong u.
    """
    residual = u.copy()
    residual[1:-1, 1:-1] = 1 - FivePoint(a, grid).apply(u[1:-1, 1:-1])
    inner = math.prod(n - 2 for n in grid.shape)
    return math.sqrt(dot(residual, residual) / inner)
