"""Lagrange elements P1 and P2 on triangles, in barycentric coordinates.

    P1:  lambda_i                    P2:  lambda_i (2 lambda_i - 1),   4 lambda_j lambda_k

for vertices i and edges opposite to i, {i, j, k} = {0, 1, 2}. Gradients are sums of (d phi / d lambda_k) grad lambda_k:
tables of the reference triangle times geometry, for all triangles at once.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.errors import ConfigError, GeometryError
from sciml.solvers.functions import DataFunction, evaluate

from .mesh import TriMesh

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FEFunction", "Lagrange", "basis", "triangle_rule"]

OPPOSITE = ((1, 2), (2, 0), (0, 1))


@functools.cache
def triangle_rule(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Return barycentric nodes, shape (Q, 3), and weights that add up to 1, exact to a degree.

    Examples
    --------
    >>> nodes, weights = triangle_rule(2)
    >>> round(float(weights @ nodes[:, 0] ** 2), 12)  # 1 / 6
    0.166666666667
    """
    from skfem.quadrature import get_quadrature
    from skfem.refdom import RefTri

    points, weights = get_quadrature(RefTri, degree)
    return np.stack([1 - points[0] - points[1], points[0], points[1]], axis=1), 2 * weights


def basis(order: int, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return basis functions and their derivatives by barycentric coordinates, shapes (Q, n) and (Q, n, 3).

    Examples
    --------
    >>> values, derivatives = basis(2, np.array([[0.5, 0.5, 0.0]]))
    >>> (values[0] + 0.0).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """
    if order == 1:
        return nodes, np.broadcast_to(np.eye(3), (len(nodes), 3, 3))
    values, derivatives = np.empty((len(nodes), 6)), np.zeros((len(nodes), 6, 3))
    values[:, :3] = nodes * (2 * nodes - 1)
    derivatives[:, range(3), range(3)] = 4 * nodes - 1
    for i, (j, k) in enumerate(OPPOSITE):
        values[:, 3 + i] = 4 * nodes[:, j] * nodes[:, k]
        derivatives[:, 3 + i, j], derivatives[:, 3 + i, k] = 4 * nodes[:, k], 4 * nodes[:, j]
    return values, derivatives


@dataclass(frozen=True, eq=False)
class Lagrange:
    """Continuous functions that are polynomials of degree 1 or 2 on each triangle.

    Parameters
    ----------
    mesh : TriMesh
    order : int
        1 or 2.

    Raises
    ------
    ConfigError
        If the order is another.

    Examples
    --------
    >>> from sciml.solvers.fem import rectangle
    >>> Lagrange(rectangle(2, 2), 2).size
    25
    """

    mesh: TriMesh
    order: int

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ConfigError(f"order={self.order}: elements are of degree 1 or 2")

    @property
    def size(self) -> int:
        """Number of nodes."""
        return len(self.mesh.vertices) + (len(self.mesh.edges) if self.order == 2 else 0)

    @cached_property
    def nodes(self) -> np.ndarray:
        """Vertices and, of degree 2, the midpoints of edges, shape (size, 2)."""
        vertices = self.mesh.vertices
        if self.order == 1:
            return vertices
        return np.concatenate([vertices, vertices[self.mesh.edges].mean(axis=1)])

    @cached_property
    def elements(self) -> np.ndarray:
        """Nodes of each triangle in the order of `basis`, shape (T, n)."""
        if self.order == 1:
            return self.mesh.triangles
        return np.concatenate(
            [self.mesh.triangles, len(self.mesh.vertices) + self.mesh.triangle_edges], axis=1
        )

    def positions(self, nodes: np.ndarray) -> np.ndarray:
        """Return where barycentric coordinates (Q, 3) lie in each triangle, shape (T, Q, 2)."""
        # The coordinates one after the other, as functions are called with them.
        return (self.mesh.corners.transpose(0, 2, 1) @ nodes.T).transpose(1, 2, 0)

    def data(self, function: DataFunction, nodes: np.ndarray, name: str) -> np.ndarray:
        """Evaluate a data function there, shape (T, Q).

        Raises
        ------
        ConfigError
            If it cannot be evaluated, or is not finite.
        """
        if not callable(function):
            return np.full((len(self.mesh), len(nodes)), float(function))
        return evaluate(function, self.positions(nodes).reshape(-1, 2), name).reshape(len(self.mesh), -1)


@dataclass(frozen=True, eq=False)
class FEFunction:
    """A function of a `Lagrange` space.

    Attributes
    ----------
    space : Lagrange
    values : ndarray, shape (size,)
        At the nodes.

    Raises
    ------
    ConfigError
        If the values are of another shape.

    Examples
    --------
    >>> from sciml.solvers.fem import rectangle
    >>> u = FEFunction.interpolated(lambda x, y: x * y, rectangle(2, 2), order=2)
    >>> bool(abs(u(np.array([[0.3, 0.9]])) - 0.27) < 1e-14)
    True
    """

    space: Lagrange
    values: np.ndarray

    def __post_init__(self) -> None:
        if np.shape(self.values) != (self.space.size,):
            raise ConfigError(f"values have shape {np.shape(self.values)}: give ({self.space.size},)")

    @classmethod
    def interpolated(cls, function: DataFunction, mesh: TriMesh, order: int = 1) -> "FEFunction":
        """Return the function with the given values at the nodes."""
        space = Lagrange(mesh, order)
        return cls(space, evaluate(function, space.nodes, "function"))

    @property
    def mesh(self) -> TriMesh:
        """Of the space."""
        return self.space.mesh

    def at(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values and gradients at barycentric coordinates (Q, 3) of each triangle, (T, Q) and (T, Q, 2)."""
        values, derivatives = basis(self.space.order, nodes)
        local = self.values[self.space.elements]
        slopes = np.einsum("ti,qik->tqk", local, derivatives)
        return local @ values.T, slopes @ self.mesh.gradients

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return values at points, shape (..., 2) to (...,).

        Raises
        ------
        GeometryError
            If a point is outside the mesh.
        """
        points = np.asarray(points, dtype=float)
        flat = points.reshape(-1, 2)
        owner = self.locate(flat)
        mesh = self.mesh
        offset = flat - mesh.vertices[mesh.triangles[owner, 0]]
        outer = (mesh.gradients[owner, 1:] * offset[:, None]).sum(axis=-1)
        nodes = np.concatenate([1 - outer.sum(axis=1, keepdims=True), outer], axis=1)
        found = (basis(self.space.order, nodes)[0] * self.values[self.space.elements[owner]]).sum(axis=1)
        return found.reshape(points.shape[:-1])

    def locate(self, points: np.ndarray) -> np.ndarray:
        """Return the triangle that holds each point, shape (m, 2) to (m,).

        Raises
        ------
        GeometryError
            If a point is outside the mesh.
        """
        try:
            return self._finder(*points.T)
        except ValueError as error:
            raise GeometryError(f"a point is outside the mesh ({error}): leave it out") from error

    @cached_property
    def _finder(self) -> Any:
        from .exchange import to_skfem

        return to_skfem(self.mesh).element_finder()

    def on(self, mesh: TriMesh) -> "FEFunction":
        """Return the same function on the mesh that `TriMesh.refine` made of this one's.

        Raises
        ------
        ConfigError
            If it is another mesh's.

        Examples
        --------
        >>> from sciml.solvers.fem import rectangle
        >>> u = FEFunction.interpolated(lambda x, y: x - y, rectangle(1, 1))
        >>> u.on(u.mesh.refine([0])).values.tolist()
        [0.0, -1.0, 1.0, 0.0, 0.0]
        """
        old = len(self.mesh.vertices)
        if mesh.ends is None or mesh.parents is None or len(mesh.vertices) != old + len(mesh.ends):
            raise ConfigError("the mesh is not a refinement of the function's own: refine that one")
        if self.space.order == 1:
            return FEFunction(Lagrange(mesh, 1), np.append(self.values, self.values[mesh.ends].mean(axis=1)))
        space, coarse = Lagrange(mesh, 2), self.mesh
        offset = space.nodes[space.elements] - coarse.vertices[coarse.triangles[mesh.parents, :1]]
        outer = offset @ np.moveaxis(coarse.gradients[mesh.parents, 1:], 1, 2)
        nodes = np.concatenate([1 - outer.sum(axis=-1, keepdims=True), outer], axis=-1)
        local = basis(2, nodes.reshape(-1, 3))[0].reshape(*nodes.shape[:2], 6)
        values = np.empty(space.size)
        values[space.elements] = np.einsum(
            "tni,ti->tn", local, self.values[self.space.elements[mesh.parents]]
        )
        return FEFunction(space, values)

    def integral(self) -> float:
        """Return the integral over the domain."""
        nodes, weights = triangle_rule(self.space.order)
        return float(self.mesh.areas @ (self.at(nodes)[0] @ weights))

    def errors(self, exact: Callable, gradient: Callable | None = None, degree: int = 8) -> dict[str, float]:
        """Return norms of u - exact by quadrature of a degree.

        Parameters
        ----------
        exact : callable
            u(x, y).
        gradient : callable, optional
            (u_x, u_y)(x, y).
        degree : int

        Returns
        -------
        dict
            "l2", "relative_l2", "linf" (at the nodes of the rule) and, with a gradient, "h1": that of the gradient.
        """
        nodes, weights = triangle_rule(degree)
        values, slopes = self.at(nodes)
        wanted = self.space.data(exact, nodes, "exact solution")
        areas = self.mesh.areas
        l2, size = (float(np.sqrt(areas @ (v**2 @ weights))) for v in (values - wanted, wanted))
        found = {
            "l2": l2,
            "relative_l2": l2 / size if size else np.inf,
            "linf": float(np.abs(values - wanted).max()),
        }
        if gradient is not None:
            points = self.space.positions(nodes)
            exact_slopes = np.stack(np.broadcast_arrays(*gradient(points[..., 0], points[..., 1])), axis=-1)
            found["h1"] = float(np.sqrt(areas @ (((slopes - exact_slopes) ** 2).sum(axis=-1) @ weights)))
        return found

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> "Axes":
        """Draw the values at vertices with the mesh.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Made if not given.
        **kwargs
            Passed on to ``tripcolor``.
        """
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=(5, 4), layout="constrained")[1] if ax is None else ax
        options: dict[str, Any] = {"shading": "gouraud", "cmap": "viridis", **kwargs}
        x, y = self.mesh.vertices.T
        image = ax.tripcolor(x, y, self.mesh.triangles, self.values[: len(x)], **options)  # type: ignore[call-overload]
        ax.figure.colorbar(image, ax=ax, shrink=0.85)
        ax.triplot(x, y, self.mesh.triangles, color="k", linewidth=0.3)
        ax.set(aspect="equal", xlabel="x", ylabel="y")
        return ax
