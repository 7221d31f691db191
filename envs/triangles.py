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
        halvings = np.rint(np.log2(self.mesh.areas[mesh.parents] / mesh.areas)).astype(np.int64)
        return TriangleState(self.problem, mesh, self.level_cap, self.levels[mesh.parents] + halvings)

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
        return jumps[mesh.triangle_edges].sum(axis=1) / mesh.edge_lengths[mesh.triangle_edges].sum(axis=1)

    @cached_property
    def indicators(self) -> dict[str, np.ndarray]:
        return {name: estimate(self.method, self.u, name) for name in ("residual", "kelly", "zz")}

    @cached_property
    def deviation(self) -> float:
        mesh, corners = self.mesh, self.u.values[self.mesh.triangles]
        # int u^2 of a linear function from its values at the corners.
        square = mesh.areas @ ((corners**2).sum(axis=1) + corners.sum(axis=1) ** 2) / 12
        total, integral = mesh.areas.sum(), mesh.areas @ corners.mean(axis=1)
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
        gap = (
            (self.u.values - other.u.on(self.mesh).values)[self.mesh.triangles] if other is not self else None
        )
        return 0.0 if gap is None else float(self.mesh.areas @ _mean_of_modulus(gap))

    def plot(self, ax: Any) -> None:
        self.u.plot(ax)

    def digest(self) -> str:
        return self.mesh.digest()


def _mean_of_modulus(corners: np.ndarray) -> np.ndarray:
    """Return the means of |v| over triangles, v linear with these values at the corners, shape (T, 3) to (T,).

    Where v changes its sign, one corner v_i is alone on its side: the triangle that its sign cuts off has a part
    v_i^2 / ((v_i - v_j) (v_i - v_k)) of the area, and v the mean v_i / 3 there.
    """
    v = np.sort(corners, axis=1)
    mean = v.mean(axis=1)
    # Of the sorted values the lowest or the highest is alone.
    alone = np.where(v[:, 1] < 0, v[:, 2], v[:, 0])
    others = np.where((v[:, 1] < 0)[:, None], v[:, :2], v[:, 1:])
    mixed = (v[:, 0] < 0) & (v[:, 2] > 0)
    bottom = np.where(mixed, (alone - others[:, 0]) * (alone - others[:, 1]), 1.0)
    cut = alone**3 / bottom / 3
    return np.where(mixed, np.abs(mean - cut) + np.abs(cut), np.abs(mean))
