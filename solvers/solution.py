"""Solutions: values on a grid with what is needed to judge, evaluate, integrate and show them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from scipy.spatial import Delaunay

from sciml.errors import ConfigError
from sciml.files import atomic_path

from .boundary import Dirichlet
from .domains import BoundaryPoints, Domain
from .functions import evaluate
from .grid import CartesianGrid
from .local_evaluation import LocalPolynomials
from .plg import PLG
from .plg.neighbourhoods import Neighbourhoods
from .problems import EllipticProblem
from .quadrature import boundary_quadrature, cut_cell_quadrature

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Solution"]

EXPORT_FORMATS = (".vtu", ".vtk")
AXES = "xyz"
SLICE_NODES = 49  # per axis of a slice
# Corners of a cell in the order of VTK.
HEXAHEDRON = np.array(
    [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]
)


@dataclass(frozen=True)
class Solution:
    """The discrete solution of a problem.

    Between the nodes it is made of the method's local polynomials, of degree n = ``method.degree``:
    values are of order n + 1 in h and gradients of order n, where the node values are.

    Attributes
    ----------
    problem : EllipticProblem
    grid : CartesianGrid
    values : ndarray, shape grid.shape
        u at the nodes inside the domain, NaN elsewhere.
    info : dict
        Diagnostics: method, unknowns, irregular nodes, fallbacks, largest condition number of a
        local fit, residual, seconds.
    method : PLG
        Of the local polynomials; that of the solve, or the default one.
    places : Neighbourhoods, optional
        Made when needed if not given; left out of comparisons and pickles.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid, Disk, Poisson, solve
    >>> torsion = solve(Poisson(Disk(0.4), -1.0), CartesianGrid.uniform(20))
    >>> values, gradients = torsion.evaluate(np.array([[0.4, 0.0], [0.0, 0.2]]), gradient=True)
    >>> np.allclose(values, [0.0, 0.03]), np.allclose(gradients, [[-0.2, 0.0], [0.0, -0.1]])
    (True, True)
    """

    problem: EllipticProblem
    grid: CartesianGrid
    values: np.ndarray
    info: dict[str, Any] = field(default_factory=dict)
    method: PLG = field(default_factory=PLG)
    places: Neighbourhoods | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        # What follows from the other fields is larger than they are.
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"places": None}

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
    def _polynomials(self) -> LocalPolynomials:
        method, domain = self.method, self.problem.domain
        places = self.places or Neighbourhoods(
            domain, self.grid, method.degree, method.enrichment, method.node_limit
        )
        return LocalPolynomials(places, self.problem.boundary, self.values, method.weight_power)

    @overload
    def evaluate(self, points: np.ndarray, gradient: Literal[False] = False) -> np.ndarray: ...

    @overload
    def evaluate(self, points: np.ndarray, gradient: Literal[True]) -> tuple[np.ndarray, np.ndarray]: ...

    def evaluate(
        self, points: np.ndarray, gradient: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Evaluate u, and grad u, anywhere in the domain and on its boundary.

        Every point takes the local polynomial of the nearest node that sees it, so that nothing is
        mixed across gaps of the domain; u is not exactly continuous between nodes.

        Parameters
        ----------
        points : ndarray, shape (m, D)
            Physical coordinates.
        gradient : bool

        Returns
        -------
        values : ndarray, shape (m,)
        gradients : ndarray, shape (m, D)
            Only if asked for.

        Raises
        ------
        ConfigError
            If ``points`` has another shape, or one is not finite or outside the domain, or ``values``
            is not finite at some node inside.
        StencilError
            If no node sees one of the points, or the domain is too thin for a fit there.

        Examples
        --------
        >>> from sciml.solvers import CartesianGrid, Disk, Poisson, solve
        >>> torsion = solve(Poisson(Disk(0.4), -1.0), CartesianGrid.uniform(20))
        >>> np.allclose(torsion.evaluate(np.array([[0.12, 0.16]])), 0.03)
        True
        """
        result = self._polynomials.evaluate(points, gradient)
        return (result[:, 0], result[:, 1:]) if gradient else result[:, 0]

    def boundary_values(self, boundary: BoundaryPoints) -> np.ndarray:
        """Return u at boundary points, shape (b,); errors as for `evaluate`.

        Examples
        --------
        >>> from sciml.solvers import CartesianGrid, Disk, Poisson, solve
        >>> torsion = solve(Poisson(Disk(0.4), -1.0), CartesianGrid.uniform(20))
        >>> bool(abs(torsion.boundary_values(Disk(0.4).boundary(0.1))).max() < 1e-12)
        True
        """
        return self.evaluate(boundary.points)

    def normal_derivative(self, boundary: BoundaryPoints) -> np.ndarray:
        """Return n . grad u at boundary points, n their outward normals, shape (b,); errors as for `evaluate`.

        Examples
        --------
        >>> from sciml.solvers import CartesianGrid, Disk, Poisson, solve
        >>> torsion = solve(Poisson(Disk(0.4), -1.0), CartesianGrid.uniform(20))
        >>> np.allclose(torsion.normal_derivative(Disk(0.4).boundary(0.1)), -0.2)
        True
        """
        gradients = self.evaluate(boundary.points, gradient=True)[1]
        return np.asarray(np.sum(boundary.normals * gradients, axis=1))

    def integral(self, function: Callable[..., np.ndarray] | None = None) -> float:
        """Integrate a function of the solution over the domain, by quadrature of order n + 2 in h.

        Parameters
        ----------
        function : callable, optional
            Called as ``function(u, x, y)`` with arrays of shape (m,); u by default.

        Raises
        ------
        ConfigError
            If the function's values are not finite real numbers, one per point; or as `evaluate`.
        StencilError
            As `evaluate`.

        Examples
        --------
        >>> from sciml.solvers import CartesianGrid, Disk, Poisson, solve
        >>> torsion = solve(Poisson(Disk(0.4), -1.0), CartesianGrid.uniform(20))
        >>> np.allclose([torsion.integral(), torsion.integral(lambda u, x, y: u * x)], [np.pi * 0.4**4 / 8, 0])
        True
        """
        points, weights = cut_cell_quadrature(self.problem.domain, self.grid, self.method.degree + 2)
        values = self.evaluate(points)
        if function is not None:
            values = evaluate(function, np.column_stack([values, points]), "integrand of (u, *position)")
        return float(weights @ values)

    def boundary_integral(self, function: Callable[..., np.ndarray] | None = None) -> float:
        """Integrate a function of the solution over the boundary, by quadrature of order n + 2 in h.

        With the flux in it the error is that of gradients, of order n.

        Parameters
        ----------
        function : callable, optional
            Called as ``function(u, flux, x, y)`` with arrays of shape (b,), flux = n . grad u, n the
            outward normal; the flux by default.

        Raises
        ------
        ConfigError, StencilError
            As `integral`.

        Examples
        --------
        >>> from sciml.solvers import CartesianGrid, Disk, Poisson, solve
        >>> torsion = solve(Poisson(Disk(0.4), -1.0), CartesianGrid.uniform(20))
        >>> np.allclose(torsion.boundary_integral(), -np.pi * 0.4**2)
        True
        """
        boundary, weights = boundary_quadrature(
            self.problem.domain, min(self.grid.spacing), self.method.degree + 2
        )
        values, gradients = self.evaluate(boundary.points, gradient=True)
        flux = np.sum(boundary.normals * gradients, axis=1)
        if function is not None:
            arguments = np.column_stack([values, flux, boundary.points])
            flux = evaluate(function, arguments, "integrand of (u, flux, *position)")
        return float(weights @ flux)

    @cached_property
    def triangulation(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boundary-fitted triangles of a plane domain for display: points (m, 2), triangles (t, 3), values (m,).

        The nodes inside and boundary points at the grid's spacing, with the Dirichlet data or, for
        other conditions, the `boundary_values`.
        """
        nodes, domain = self.grid.nodes()[self.mask], self.problem.domain
        boundary = domain.boundary(min(self.grid.spacing))
        condition = self.problem.boundary
        outer = (
            condition.data(boundary) if isinstance(condition, Dirichlet) else self.boundary_values(boundary)
        )
        points = np.concatenate([nodes, boundary.points])
        return points, _triangles(domain, points, points), np.concatenate([self.values[self.mask], outer])

    def plot(
        self, ax: "Axes | None" = None, slices: Mapping[str, float] | None = None, **kwargs: Any
    ) -> "Axes":
        """Draw the solution up to the curved boundary; in 3D on slices, with the boundary's outline.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Made if not given; in 3D of ``projection="3d"``.
        slices : mapping, optional
            In 3D the planes, such as ``{"z": 0.1}``; by default the three through the middle of the
            domain's bounding box.
        **kwargs
            Passed on to ``tripcolor``, in 3D to ``Poly3DCollection``.

        Raises
        ------
        ConfigError
            If a slice misses the domain or is not along an axis, slices are asked for in the plane, or
            ``ax`` has the wrong projection.
        """
        import matplotlib.pyplot as plt

        dim = self.grid.dim
        if dim < 3 and slices is not None:
            raise ConfigError(f"slices={dict(slices)} of a solution in {dim}D: only 3D ones are sliced")
        if ax is None:
            projection = {"projection": "3d"} if dim == 3 else None
            ax = plt.subplots(figsize=(5, 4), layout="constrained", subplot_kw=projection)[1]
        if (ax.name == "3d") != (dim == 3):
            raise ConfigError(
                f"ax has projection {ax.name!r}: a solution in {dim}D needs {'3d' if dim == 3 else 'rectilinear'!r}"
            )
        if dim == 3:
            self._draw_slices(ax, slices, kwargs)
            return ax
        points, triangles, values = self.triangulation
        options: dict[str, Any] = {"shading": "gouraud", "cmap": "viridis", **kwargs}
        image = ax.tripcolor(points[:, 0], points[:, 1], triangles, values, **options)  # type: ignore[call-overload]
        ax.figure.colorbar(image, ax=ax, shrink=0.85)
        ax.set(aspect="equal", xlabel="x", ylabel="y", title=f"{self.problem.name}: u")
        return ax

    def _draw_slices(self, ax: Any, slices: Mapping[str, float] | None, options: dict[str, Any]) -> None:
        from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection

        domain = self.problem.domain
        lower, upper = domain.bounds
        if slices is None:
            slices = dict(zip(AXES, (lower + upper) / 2, strict=True))
        faces, colours, outline = [], [], []
        for name, position in slices.items():
            points, triangles = _slice(domain, name, float(position))
            faces.append(points[triangles])
            colours.append(self.evaluate(points)[triangles].mean(axis=1))
            edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
            edges, count = np.unique(edges, axis=0, return_counts=True)
            outline.append(points[edges[count == 1]])
        # One collection for all: the triangles of slices that meet must be sorted by depth together.
        options = {"array": np.concatenate(colours), "antialiased": False, **options}
        image = ax.add_collection3d(Poly3DCollection(np.concatenate(faces), **options))
        ax.add_collection3d(Line3DCollection(np.concatenate(outline), colors="black", linewidths=0.8))
        ax.figure.colorbar(image, ax=ax, shrink=0.7, pad=0.12)
        limits = dict(zip(("xlim", "ylim", "zlim"), zip(lower, upper, strict=True), strict=True))
        ax.set(xlabel="x", ylabel="y", zlabel="z", title=f"{self.problem.name}: u", aspect="equal", **limits)

    def _hexahedra(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells inside: points (m, 3), cells (c, 8), values (m,)."""
        full = np.lib.stride_tricks.sliding_window_view(self.mask, (2, 2, 2)).all(axis=(3, 4, 5))
        corners = np.argwhere(full)[:, None, :] + HEXAHEDRON
        flat = np.ravel_multi_index(tuple(np.moveaxis(corners, -1, 0)), self.grid.shape)
        if flat.size == 0:
            raise ConfigError(
                f"export with cells={self.grid.cells}: no cell lies inside the domain, use more cells"
            )
        used, cells = np.unique(flat, return_inverse=True)
        return self.grid.nodes().reshape(-1, 3)[used], cells.reshape(-1, 8), self.values.ravel()[used]

    def export(self, path: str | Path) -> None:
        """Write u (and the exact solution) at the points of a mesh for ParaView.

        In the plane boundary-fitted triangles; in 3D the grid's cells whose corners are all inside.

        Parameters
        ----------
        path : path
            Ending in .vtu or .vtk; written through meshio.

        Raises
        ------
        ConfigError
            If the ending is not known, or no cell lies inside a 3D domain.
        """
        import meshio

        path = Path(path)
        if path.suffix not in EXPORT_FORMATS:
            raise ConfigError(f"export to {str(path)!r}: the name must end in {', '.join(EXPORT_FORMATS)}")
        points, cells, values = self._hexahedra() if self.grid.dim == 3 else self.triangulation
        data = {"u": values}
        if self.problem.exact is not None:
            data["exact"] = evaluate(self.problem.exact, points, "exact solution")
        padded = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
        kind = "hexahedron" if self.grid.dim == 3 else "triangle"
        mesh = meshio.Mesh(padded, [(kind, cells)], point_data=data)
        with atomic_path(path) as temporary:
            mesh.write(temporary, file_format=meshio.extension_to_filetypes[path.suffix][0])


def _triangles(domain: Domain, flat: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Triangles (t, 3) inside the domain, of points (m, D) with coordinates (m, 2) in their plane."""
    triangles = Delaunay(flat).simplices
    return np.asarray(triangles[domain.contains(points[triangles].mean(axis=1))])


def _slice(domain: Domain, name: str, position: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (m, 3) and triangles (t, 3) of a plane section, up to the boundary."""
    if name not in tuple(AXES):
        raise ConfigError(f"slice {name!r}: choose an axis, 'x', 'y' or 'z'")
    axis, (lower, upper) = AXES.index(name), domain.bounds
    lines = [np.linspace(low, high, SLICE_NODES) for low, high in zip(lower, upper, strict=True)]
    lines[axis] = np.array([position])
    lattice = np.squeeze(np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1), axis=axis)
    inside = domain.contains(lattice)
    if not inside.any():
        raise ConfigError(
            f"slice {name}={position:.6g} misses the domain, which reaches from {lower[axis]:.6g} to "
            f"{upper[axis]:.6g}: choose another position by slices={{{name!r}: ...}}"
        )
    within, beyond = [], []
    for nodes, known in ((lattice, inside), (lattice.swapaxes(0, 1), inside.T)):
        low, high, crossed = known[:-1], known[1:], known[:-1] != known[1:]
        within.append(np.where(low[..., None], nodes[:-1], nodes[1:])[crossed])
        beyond.append(np.where(high[..., None], nodes[:-1], nodes[1:])[crossed])
    inner, outer = np.concatenate(within), np.concatenate(beyond)
    for _ in range(50):
        middle = (inner + outer) / 2
        kept = domain.contains(middle)[:, None]
        inner, outer = np.where(kept, middle, inner), np.where(kept, outer, middle)
    points = np.concatenate([lattice[inside], inner])
    return points, _triangles(domain, np.delete(points, axis, axis=1), points)
