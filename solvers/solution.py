"""Solutions: values on a grid with what is needed to judge and to show them."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.spatial import Delaunay

from sciml.errors import ConfigError
from sciml.files import atomic_path

from .boundary import Dirichlet
from .functions import evaluate
from .grid import CartesianGrid
from .problems import EllipticProblem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Solution"]

EXPORT_FORMATS = (".vtu", ".vtk")


@dataclass(frozen=True)
class Solution:
    """The discrete solution of a problem.

    Attributes
    ----------
    problem : EllipticProblem
    grid : CartesianGrid
    values : ndarray, shape grid.shape
        u at the nodes inside the domain, NaN elsewhere.
    info : dict
        Diagnostics: method, unknowns, irregular nodes, fallbacks, largest condition number of a
        local fit, residual, seconds.
    """

    problem: EllipticProblem
    grid: CartesianGrid
    values: np.ndarray
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def mask(self) -> np.ndarray:
        """Whether a node lies inside the domain, shape grid.shape."""
        return np.isfinite(self.values)

    def errors(self) -> dict[str, float]:
        """Return the errors against the exact solution over all unknowns.

        Up to a constant, if the problem determines u only up to one.

        Returns
        -------
        dict
            "linf": max |u - exact|; "l2": sqrt(mean |u - exact|^2); "relative_l2": the second divided
            by sqrt(mean |exact|^2).

        Raises
        ------
        ConfigError
            If the problem has no exact solution.
        """
        if self.problem.exact is None:
            raise ConfigError(
                f"problem {self.problem.name!r} has no exact solution: compare two grids instead"
            )
        mask = self.mask
        exact = evaluate(self.problem.exact, self.grid.nodes()[mask], "exact solution")
        error = self.values[mask] - exact
        if self.problem.determined_up_to_constants:
            error, exact = error - error.mean(), exact - exact.mean()
        l2, scale = (float(np.sqrt(np.mean(value**2))) for value in (error, exact))
        return {"linf": float(np.abs(error).max()), "l2": l2, "relative_l2": l2 / scale if scale else np.inf}

    @cached_property
    def triangulation(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boundary-fitted triangles for display: points (m, 2), triangles (t, 3), values (m,).

        The nodes inside and boundary points at the grid's spacing, with the Dirichlet data or, for
        other conditions, values extrapolated for display.
        """
        nodes = self.grid.nodes()[self.mask]
        boundary = self.problem.domain.boundary(min(self.grid.spacing))
        inner = self.values[self.mask]
        if isinstance(self.problem.boundary, Dirichlet):
            outer = self.problem.boundary.data(boundary)
        else:
            outer = RBFInterpolator(nodes, inner, neighbors=min(20, len(nodes)), degree=2)(boundary.points)
        points = np.concatenate([nodes, boundary.points])
        values = np.concatenate([inner, outer])
        triangles = Delaunay(points).simplices
        centroids = points[triangles].mean(axis=1)
        return points, triangles[self.problem.domain.contains(centroids)], values

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> "Axes":
        """Draw the solution up to the curved boundary.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Made if not given.
        **kwargs
            Passed on to ``tripcolor``.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            ax = plt.subplots(figsize=(5, 4), layout="constrained")[1]
        points, triangles, values = self.triangulation
        options: dict[str, Any] = {"shading": "gouraud", "cmap": "viridis", **kwargs}
        image = ax.tripcolor(points[:, 0], points[:, 1], triangles, values, **options)  # type: ignore[call-overload]
        ax.figure.colorbar(image, ax=ax, shrink=0.85)
        ax.set(aspect="equal", xlabel="x", ylabel="y", title=f"{self.problem.name}: u")
        return ax

    def export(self, path: str | Path) -> None:
        """Write the boundary-fitted triangles with u (and the exact solution) for ParaView.

        Parameters
        ----------
        path : path
            Ending in .vtu or .vtk; written through meshio.

        Raises
        ------
        ConfigError
            If the ending is not known.
        """
        import meshio

        path = Path(path)
        if path.suffix not in EXPORT_FORMATS:
            raise ConfigError(f"export to {str(path)!r}: the name must end in {', '.join(EXPORT_FORMATS)}")
        points, triangles, values = self.triangulation
        data = {"u": values}
        if self.problem.exact is not None:
            data["exact"] = evaluate(self.problem.exact, points, "exact solution")
        flat = np.column_stack([points, np.zeros(len(points))])
        mesh = meshio.Mesh(flat, [("triangle", triangles)], point_data=data)
        with atomic_path(path) as temporary:
            mesh.write(temporary, file_format=meshio.extension_to_filetypes[path.suffix][0])
