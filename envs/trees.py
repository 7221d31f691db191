"""States on trees: steady advection and diffusion on intervals, transport in time on quadtrees."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from sciml.solvers.dg import (
    AdvectionProblem,
    DGAdvection,
    DGDiffusion,
    DiffusionProblem,
    Jumps,
    TreeFunction,
    TreeMesh,
    advection_jumps,
    diffusion_jumps,
)
from sciml.solvers.dg.fields import positions
from sciml.solvers.functions import at_time, evaluate

from .states import State

__all__ = ["AdvectionState", "DiffusionState", "TransportState", "TreeState"]

ERROR_NODES = 4
"""More Gauss nodes per axis than polynomials have, for errors against exact solutions with fronts."""


class TreeState(State):
    """What states on trees share; subclasses are dataclasses that solve."""

    mesh: TreeMesh
    order: int
    u: TreeFunction
    jumps: Jumps

    def __len__(self) -> int:
        return len(self.mesh)

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.mesh.dim

    @property
    def unknowns(self) -> int:
        return len(self.mesh) * (self.order + 1) ** self.mesh.dim

    def _with(self, mesh: TreeMesh) -> "TreeState":
        return self if mesh.codes is self.mesh.codes else replace(self, mesh=mesh)  # type: ignore[type-var]

    @property
    def levels(self) -> np.ndarray:
        return self.mesh.levels

    def fresh(self) -> "TreeState":
        return replace(self, mesh=self.mesh.fresh())  # type: ignore[type-var]

    def refined(self, cells: np.ndarray) -> "TreeState":
        return self._with(self.mesh.refine(cells))

    def coarsened(self, cells: np.ndarray) -> "TreeState":
        mesh = self.mesh.coarsen(cells)
        return self if len(mesh) == len(self.mesh) else self._with(mesh)

    @property
    def family_size(self) -> int:
        return self.mesh.children

    @cached_property
    def siblings(self) -> np.ndarray:
        found = np.full(len(self.mesh), -1)
        first = self.mesh.mergeable
        found[first[:, None] + np.arange(self.mesh.children)] = first[:, None]
        return found

    @cached_property
    def pairs(self) -> np.ndarray:
        return np.stack([self.mesh.faces.lower, self.mesh.faces.upper], axis=1)

    @property
    def sizes(self) -> np.ndarray:
        return self.mesh.volumes

    @property
    def centres(self) -> np.ndarray:
        return self.mesh.centres

    def find(self, points: np.ndarray) -> np.ndarray:
        return self.mesh.find(points)

    @property
    def nonconformity(self) -> np.ndarray:
        return self.jumps.nonconformity

    @cached_property
    def indicators(self) -> dict[str, np.ndarray]:
        """Jumps of both kinds, and the part of the solution that is of the highest degree along an axis."""
        mesh, degree = self.mesh, np.arange(self.order + 1)
        highest = degree == self.order
        if mesh.dim == 2:
            highest = (highest[:, None] | highest).ravel()
        modes = np.sqrt(mesh.volumes * (self.u.coefficients[:, highest] ** 2).sum(axis=1))
        size = np.sqrt(mesh.volumes)
        return {
            "jump": self.jumps.nonconformity * size,
            "entering": self.jumps.entering * np.sqrt(size) if mesh.dim == 2 else self.jumps.entering * size,
            "modes": modes,
        }

    @cached_property
    def deviation(self) -> float:
        c, volumes = self.u.coefficients, self.mesh.volumes
        total, mean = volumes.sum(), volumes @ c[:, 0]
        return math.sqrt(max((volumes @ c**2).sum() / total - (mean / total) ** 2, 0.0))

    @property
    def _exact(self) -> Any:
        return self.problem.exact

    @cached_property
    def _squares(self) -> tuple[np.ndarray, float]:
        """Squares of L2 errors, shape (N,), and of the exact solution's norm."""
        cell, mesh = self.u.cell, self.mesh
        nodes, weights = cell.rule(self.order + 1 + ERROR_NODES)
        points = positions(mesh, nodes)
        wanted = evaluate(self._exact, points.reshape(-1, mesh.dim), "exact solution").reshape(len(mesh), -1)
        found = self.u.coefficients @ cell.evaluate(nodes).T
        return mesh.volumes * ((found - wanted) ** 2 @ weights), float(mesh.volumes @ (wanted**2 @ weights))

    @property
    def errors(self) -> np.ndarray:
        return np.sqrt(self._squares[0])

    @property
    def error(self) -> float:
        squares, norm = self._squares
        return float(np.sqrt(squares.sum() / norm))

    def distance(self, other: State) -> float:
        return self.u.distance(other.u)  # type: ignore[attr-defined]

    def plot(self, ax: Any) -> None:
        self.u.plot(ax)

    def digest(self) -> str:
        return self.mesh.digest()


@dataclass(frozen=True, eq=False)
class AdvectionState(TreeState):
    """Steady advection.

    Parameters
    ----------
    problem : AdvectionProblem
    mesh : TreeMesh
    order : int
    level_cap : int
    """

    kind: ClassVar[str] = "advection"
    problem: AdvectionProblem
    mesh: TreeMesh
    order: int = 3
    level_cap: int = 12

    @cached_property
    def method(self) -> DGAdvection:
        """The solver."""
        return DGAdvection(self.problem, self.mesh, self.order)

    @cached_property
    def u(self) -> TreeFunction:  # type: ignore[override]
        """The solution."""
        return self.method.solve()

    @cached_property
    def jumps(self) -> Jumps:  # type: ignore[override]
        """Of the solution."""
        return advection_jumps(self.method, self.u.coefficients)


@dataclass(frozen=True, eq=False)
class DiffusionState(TreeState):
    """Diffusion on an interval.

    Parameters
    ----------
    problem : DiffusionProblem
    mesh : TreeMesh
    order : int
    level_cap : int
    """

    kind: ClassVar[str] = "poisson"
    problem: DiffusionProblem
    mesh: TreeMesh
    order: int = 3
    level_cap: int = 12

    @cached_property
    def method(self) -> DGDiffusion:
        """The solver."""
        return DGDiffusion(self.problem, self.mesh, self.order)

    @cached_property
    def u(self) -> TreeFunction:  # type: ignore[override]
        """The solution."""
        return self.method.solve()

    @cached_property
    def jumps(self) -> Jumps:  # type: ignore[override]
        """Of the solution."""
        return diffusion_jumps(self.method, self.u.coefficients)

    @cached_property
    def indicators(self) -> dict[str, np.ndarray]:
        """Those of all trees, and jumps of the derivative."""
        size, cell = self.mesh.sizes[:, 0], self.u.cell
        ends = cell.gradients(np.array([[0.0], [1.0]]))[:, 0]
        slopes = self.u.coefficients @ ends.T / size[:, None]
        jump = np.zeros(len(size) + 1)
        jump[1:-1] = slopes[1:, 0] - slopes[:-1, 1]
        flux = np.sqrt(0.5 * size**3 * (jump[:-1] ** 2 + jump[1:] ** 2))
        return {**super().indicators, "flux": flux}


@dataclass(frozen=True, eq=False)
class TransportState(TreeState):
    """The solution at the end of one step in time, computed on this mesh from the one before.

    Parameters
    ----------
    problem : AdvectionProblem
    mesh : TreeMesh
    start : TreeFunction, optional
        At the beginning of the step, on the mesh of that time; it is projected onto this mesh. At time 0 there is none:
        initial data, those of the exact solution, are known on every mesh.
    time, step : float
        The beginning, and how long the step takes.
    order : int
    level_cap : int
    """

    kind: ClassVar[str] = "transport"
    problem: AdvectionProblem
    mesh: TreeMesh
    start: TreeFunction | None = None
    time: float = 0.0
    step: float = 0.05
    order: int = 2
    level_cap: int = 4

    @cached_property
    def method(self) -> DGAdvection:
        """The solver."""
        return DGAdvection(self.problem, self.mesh, self.order)

    @cached_property
    def u(self) -> TreeFunction:  # type: ignore[override]
        """The solution at the end."""
        if self.start is None:
            begin = TreeFunction.projected(
                at_time(self.problem.exact, 0.0, self.mesh.dim), self.mesh, self.order
            )
        else:
            begin = self.start.on(self.mesh)
        end = self.method.advance(begin.coefficients, self.time, self.time + self.step)
        return TreeFunction(self.mesh, self.order, end)

    @cached_property
    def jumps(self) -> Jumps:  # type: ignore[override]
        """Of the solution at the end."""
        return advection_jumps(self.method, self.u.coefficients, self.time + self.step)

    @property
    def _exact(self) -> Any:
        return at_time(self.problem.exact, self.time + self.step, self.mesh.dim)

    @cached_property
    def inflow_from_worst(self) -> np.ndarray:
        """b . r / |r|^2 times the step, r from the neighbour of the largest jump to the cell: 1 if it arrives."""
        gamma, count = self.nonconformity, len(self)
        ends = np.concatenate([self.pairs, self.pairs[:, ::-1]])
        # Of each cell the last in the order of jumps.
        order = np.argsort(gamma[ends[:, 1]], kind="stable")
        worst = np.arange(count)
        worst[ends[order, 0]] = ends[order, 1]
        r = self.centres - self.centres[worst]
        b = np.stack(
            [evaluate(part, self.centres, "velocity") for part in self.problem.velocity],
            axis=1,
        )
        return self.step * (b * r).sum(axis=1) / np.maximum((r**2).sum(axis=1), 1e-300)

    def next(self) -> "TransportState":
        """Return the state of the next step, on the same mesh."""
        later = replace(self, start=self.u, time=self.time + self.step)
        # Of problem, mesh and order, which are the same.
        vars(later)["method"] = self.method
        return later

    def on(self, mesh: TreeMesh) -> "TransportState":
        """Return the state of the same step on another mesh."""
        return replace(self, mesh=mesh)
