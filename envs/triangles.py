"""States on triangulations: elliptic problems by P1 elements, refined by newest vertex bisection."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from sciml.errors import ConfigError
from sciml.solvers.fem import FEFunction, FEMProblem, Galerkin, TriMesh, estimate
from sciml.solvers.fem.estimators import flux_jumps
from sciml.solvers.fem.lagrange import triangle_rule

from .states import State

__all__ = ["TriangleState"]

ERROR_DEGREE = 8
"""Of the quadrature of errors against exact solutions."""


@dataclass(frozen=True, eq=False)
class TriangleState(State):
    """An elliptic problem on a triangulation. Cells are refined, and not coarsened.

    Parameters
    ----------
    problem : FEMProblem
    mesh : TriMesh
    level_cap : int
    depth : ndarray of int, shape (T,), optional
        How often each triangle was bisected; 0 by default.
    """

    kind: ClassVar[str] = "triangles"
    problem: FEMProblem
    mesh: TriMesh
    level_cap: int = 20
    depth: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.mesh)

    @property
    def unknowns(self) -> int:
        return self.method.space.size

    @cached_property
    def levels(self) -> np.ndarray:
        return np.zeros(len(self.mesh), dtype=np.int64) if self.depth is None else self.depth

    def fresh(self) -> "TriangleState":
        return replace(self, mesh=replace(self.mesh))

    def refined(self, cells: np.ndarray) -> "TriangleState":
        mesh = self.mesh.refine(cells)
        assert mesh.parents is not None
        # Of its parent's area a triangle is all, a half or a quarter.
        part = mesh.areas / self.mesh.areas[mesh.parents]
        depth = self.levels[mesh.parents] + (part < 0.75) + (part < 0.375)
        return TriangleState(self.problem, mesh, self.level_cap, depth)

    def prospects(self, cell: int) -> list[State]:
        """The triangle bisected, and its halves as well: only then its longest side is halved."""
        once = self.refined(np.array([cell]))
        return [once, once.refined(np.flatnonzero(once.mesh.parents == cell))]

    def coarsened(self, cells: np.ndarray) -> "TriangleState":
        return self

    @property
    def family_size(self) -> int:
        return 1

    @cached_property
    def siblings(self) -> np.ndarray:
        return np.full(len(self.mesh), -1)

    @cached_property
    def pairs(self) -> np.ndarray:
        owners = self.mesh.edge_triangles
        return owners[owners[:, 1] >= 0]

    @property
    def sizes(self) -> np.ndarray:
        return self.mesh.areas

    @property
    def centres(self) -> np.ndarray:
        return self.mesh.centroids

    def find(self, points: np.ndarray) -> np.ndarray:
        return self.u.locate(points)

    @cached_property
    def method(self) -> Galerkin:
        """The solver."""
        return Galerkin(self.problem, self.mesh)

    @cached_property
    def u(self) -> FEFunction:
        """The solution."""
        return self.method.solve()

    @cached_property
    def nonconformity(self) -> np.ndarray:
        """Mean of |[a du/dn]| over the boundary of each triangle: the solution itself does not jump."""
        mesh = self.mesh
        # Constant along an edge, so that its root mean square is its mean.
        jumps = np.sqrt(flux_jumps(self.method, self.u) * mesh.edge_lengths)
        sides = mesh.triangle_edges.T
        return jumps[sides].sum(axis=0) / mesh.edge_lengths[sides].sum(axis=0)

    @cached_property
    def indicators(self) -> dict[str, np.ndarray]:
        return {name: estimate(self.method, self.u, name) for name in ("residual", "kelly", "zz")}

    @cached_property
    def deviation(self) -> float:
        areas, corners = self.mesh.areas, self.u.values[self.mesh.triangles.T]
        sums = corners.sum(axis=0)
        # int u^2 of a linear function from its values at the corners.
        square = areas @ ((corners**2).sum(axis=0) + sums**2) / 12
        total, integral = areas.sum(), areas @ sums / 3
        return float(np.sqrt(max(square / total - (integral / total) ** 2, 0.0)))

    @cached_property
    def _squares(self) -> tuple[np.ndarray, float]:
        assert self.problem.exact is not None
        nodes, weights = triangle_rule(ERROR_DEGREE)
        wanted = self.u.space.data(self.problem.exact, nodes, "exact solution")
        areas = self.mesh.areas
        found = self.u.at(nodes)[0]
        return areas * ((found - wanted) ** 2 @ weights), float(areas @ (wanted**2 @ weights))

    @property
    def errors(self) -> np.ndarray:
        return np.sqrt(self._squares[0])

    @property
    def error(self) -> float:
        squares, norm = self._squares
        return float(np.sqrt(squares.sum() / norm))

    def distance(self, other: State) -> float:
        if not isinstance(other, TriangleState):
            raise ConfigError(f"other={type(other).__name__}: give another state on triangles")
        if len(other) > len(self):
            return other.distance(self)
        if other is self:
            return 0.0
        gap = self.u.values - other.u.on(self.mesh).values
        return float(self.mesh.areas @ _mean_of_modulus(gap[self.mesh.triangles.T]))

    def plot(self, ax: Any) -> None:
        self.u.plot(ax)

    def digest(self) -> str:
        return self.mesh.digest()


def _mean_of_modulus(corners: np.ndarray) -> np.ndarray:
    """Return the means of |v| over triangles, v linear with these values at the corners, shape (3, T) to (T,).

    Where v changes its sign, one corner v_i is alone on its side: the triangle that its sign cuts off has a part
    v_i^2 / ((v_i - v_j) (v_i - v_k)) of the area, and v the mean v_i / 3 there.
    """
    means = corners.sum(axis=0) / 3
    found = np.abs(means)
    (mixed,) = ((corners.min(axis=0) < 0) & (corners.max(axis=0) > 0)).nonzero()
    a, b, c = corners[:, mixed]
    low, high = np.minimum(a, b), np.maximum(a, b)
    low, middle, high = np.minimum(low, c), np.maximum(low, np.minimum(high, c)), np.maximum(high, c)
    alone, far = np.where(middle < 0, (high, low), (low, high))
    cut = alone**3 / ((alone - middle) * (alone - far)) / 3
    found[mixed] = np.abs(means[mixed] - cut) + np.abs(cut)
    return found
