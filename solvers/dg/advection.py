"""Discontinuous Galerkin methods for advection on trees: upwind fluxes, steady and in time.

    u_t + div(b u) = f,      u = g where b points into the domain.

On a leaf K with outward normal n and the upwind value u* (from where b comes, g at the inflow boundary)

    (u_t, v)_K - (u, b . grad v)_K + <b . n u*, v>_dK = (f, v)_K      for all polynomials v of degree p per axis:

order p + 1 in L2 on smooth solutions; Cockburn and Shu, J. Sci. Comput. 16, 173 (2001). Faces with a hanging node are
integrated over the finer side, so that what leaves a leaf enters its neighbours. All matrices are products of weights
b(x_q) with tables of the unit cell.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers.compiled import kernels
from sciml.solvers.functions import DataFunction, at_time, evaluate, takes_time
from sciml.solvers.linear import DirectSolver
from sciml.solvers.timestepping import DORMAND_PRINCE, explicit_system, step

from .fields import TreeFunction, positions, project
from .reference import ReferenceCell, reference_cell
from .tree import TreeMesh

__all__ = ["AdvectionProblem", "DGAdvection", "advect", "solve_advection"]

LARGEST_GROWTH = 1e12
"""Of errors, beyond which a matrix counts as singular."""


@dataclass(frozen=True)
class AdvectionProblem:
    """u_t + div(b u) = f in a box, or its steady state div(b u) = f.

    Attributes
    ----------
    velocity : tuple of float or of callable
        b, one component per axis, constant in time.
    source : float or callable
        f(x), f(x, y), or with the time as last argument.
    inflow : float or callable
        g, likewise; used where b points into the domain.
    exact : callable, optional
        The solution, likewise, where it is known.
    name : str

    Raises
    ------
    ConfigError
        If the velocity is no tuple of one or two components.
    """

    velocity: tuple[DataFunction, ...]
    source: DataFunction = 0.0
    inflow: DataFunction = 0.0
    exact: Callable | None = None
    name: str = "advection"

    def __post_init__(self) -> None:
        if not isinstance(self.velocity, tuple) or not 1 <= len(self.velocity) <= 2:
            raise ConfigError(f"velocity={self.velocity!r}: give a tuple of one component per axis")
        for component in self.velocity:
            if not callable(component) and not math.isfinite(component):
                raise ConfigError(f"velocity={self.velocity}: give finite numbers or functions of position")

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.velocity)

    @cached_property
    def changing(self) -> tuple[bool, bool]:
        """Whether source and inflow change in time."""
        return takes_time(self.source, self.dim), takes_time(self.inflow, self.dim)

    def source_at(self, time: float) -> DataFunction:
        """Return f as a function of position."""
        return at_time(self.source, time, self.dim) if self.changing[0] else self.source

    def inflow_at(self, time: float) -> DataFunction:
        """Return g as a function of position."""
        return at_time(self.inflow, time, self.dim) if self.changing[1] else self.inflow


class FaceFlow(NamedTuple):
    """The flow through faces between leaves, faces of one kind after another.

    Attributes
    ----------
    lower, upper : tuple of ndarray of int, shape (m,)
        Places in arrays of shape (N, axis, side, part, ...), such as `DGAdvection.at_sides`: the leaf below, its
        upper side, and the part of that; the leaf above, its lower side, and the part of that.
    weights : ndarray, shape (m, F)
        Of the Gauss nodes, areas included.
    flux : ndarray, shape (m, F)
        Velocity along the axis, times the weights.
    kind : ndarray of int, shape (m,)
        As of `ReferenceCell.face_products`.
    """

    lower: tuple[np.ndarray, ...]
    upper: tuple[np.ndarray, ...]
    weights: np.ndarray
    flux: np.ndarray
    kind: np.ndarray


class BoundaryFlow(NamedTuple):
    """The flow through sides in the boundary.

    Attributes
    ----------
    places : tuple of ndarray of int, shape (m,)
        As of a `FaceFlow`.
    points : ndarray, shape (m, F, d)
        Gauss nodes.
    weights, flux : ndarray, shape (m, F)
        As of a `FaceFlow`, but the velocity is that along the outward normal.
    """

    places: tuple[np.ndarray, ...]
    points: np.ndarray
    weights: np.ndarray
    flux: np.ndarray


@dataclass(frozen=True, eq=False)
class DGAdvection:
    """The method on one mesh: u' = M^-1 (load - matrix u), with the mass M = |K| on each leaf.

    Parameters
    ----------
    problem : AdvectionProblem
    mesh : TreeMesh
    order : int
        Degree p of the polynomials.

    Raises
    ------
    ConfigError
        If problem and mesh differ in their number of axes.

    Examples
    --------
    >>> problem = AdvectionProblem((1.0,), source=lambda x: 2 * x)
    >>> u = DGAdvection(problem, TreeMesh((0.0,), (1.0,), (3,)), order=2).solve()
    >>> bool(u.errors(lambda x: x**2)["linf"] < 1e-14)
    True
    """

    problem: AdvectionProblem
    mesh: TreeMesh
    order: int

    def __post_init__(self) -> None:
        if self.problem.dim != self.mesh.dim:
            raise ConfigError(
                f"a velocity of {self.problem.dim} components on a {self.mesh.dim}D mesh: choose the same dimension"
            )

    @cached_property
    def cell(self) -> ReferenceCell:
        """Polynomials on the unit cell."""
        return reference_cell(self.mesh.dim, self.order)

    def _velocity(self, points: np.ndarray, axis: int) -> np.ndarray:
        """Component of b at points, shape (..., d) to (...,)."""
        component = self.problem.velocity[axis]
        if not callable(component):
            return np.full(points.shape[:-1], float(component))
        flat = points.reshape(-1, self.mesh.dim)
        return evaluate(component, flat, f"velocity component {axis}").reshape(points.shape[:-1])

    @cached_property
    def _flows(self) -> tuple[FaceFlow, BoundaryFlow]:
        mesh, cell, faces, boundary = self.mesh, self.cell, self.mesh.faces, self.mesh.boundary
        kind = 5 * faces.axis + faces.part_of_lower
        kind += np.where(faces.part_of_upper > 0, faces.part_of_upper + 2, 0)
        order = kind.argsort(kind="stable")
        axis, count = faces.axis[order], len(order)
        lower = faces.lower[order], axis, 0 * axis + 1, faces.part_of_lower[order]
        upper = faces.upper[order], axis, 0 * axis, faces.part_of_upper[order]
        # The finer side, or the lower one of equals, is the face.
        of_upper = lower[3] > 0
        leaves = np.concatenate([np.where(of_upper, upper[0], lower[0]), boundary.cell])
        axes = np.concatenate([axis, boundary.axis])
        sides = np.concatenate([1 - of_upper, boundary.side])
        sizes = mesh.sizes[leaves]
        points = mesh.origins[leaves][:, None] + sizes[:, None] * cell.side_nodes[axes, sides]
        weights = (mesh.volumes[leaves] / sizes[np.arange(len(leaves)), axes])[:, None] * cell.face_weights
        flux = np.empty_like(weights)
        for number in range(mesh.dim):
            here = axes == number
            flux[here] = self._velocity(points[here], number) * weights[here]
        flux[count:] *= (2 * boundary.side - 1)[:, None]
        outer = boundary.cell, boundary.axis, boundary.side, 0 * boundary.cell
        between = FaceFlow(lower, upper, weights[:count], flux[:count], kind[order])
        return between, BoundaryFlow(outer, points[count:], weights[count:], flux[count:])

    @property
    def face_flow(self) -> FaceFlow:
        """Through faces between leaves."""
        return self._flows[0]

    @property
    def boundary_flow(self) -> BoundaryFlow:
        """Through sides in the boundary."""
        return self._flows[1]

    @cached_property
    def inflow_boundary(self) -> BoundaryFlow:
        """Through those sides in the boundary where something enters."""
        places, *others = self.boundary_flow
        active = np.flatnonzero((self.boundary_flow.flux < 0).any(axis=1))
        return BoundaryFlow(tuple(part[active] for part in places), *(part[active] for part in others))

    @cached_property
    def one_way(self) -> float:
        """Velocity, a number, of a flow from one end of an interval to the other; 0 of others."""
        component = self.problem.velocity[0]
        return 0.0 if self.mesh.dim > 1 or self.mesh.periodic[0] or callable(component) else float(component)

    @cached_property
    def _entering(self) -> float:
        return self._entering_at(0.0)

    def _entering_at(self, time: float) -> float:
        end = self.mesh.lower if self.one_way > 0 else self.mesh.upper
        return float(evaluate(self.problem.inflow_at(time), np.array([end]), "inflow")[0])

    def entering(self, time: float = 0.0) -> float:
        """Return the inflow data where a `one_way` flow enters."""
        return self._entering_at(time) if self.problem.changing[1] else self._entering

    @cached_property
    def _inside(self) -> np.ndarray:
        """Velocity at the nodes of leaves, shape (d, N, nodes)."""
        points = positions(self.mesh, self.cell.nodes)
        return np.array([self._velocity(points, axis) for axis in range(self.mesh.dim)])

    @cached_property
    def _blocks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Diagonal blocks (N, n, n), and others (m, n, n) with the leaves downstream and upstream of them."""
        mesh, cell, size = self.mesh, self.cell, self.cell.size
        faces, sides, traces = self.face_flow, self.boundary_flow, self.cell.traces
        upwards, downwards = faces.flux.clip(min=0.0), faces.flux.clip(max=0.0)
        leaving = np.zeros((len(mesh), *traces.shape[:-1]))
        leaving[faces.lower] = upwards
        leaving[faces.upper] = -downwards
        leaving[sides.places] = sides.flux.clip(min=0.0)
        inside = self._inside * (mesh.volumes / mesh.sizes.T)[..., None]
        diagonal = leaving.reshape(len(mesh), -1) @ cell.side_products
        diagonal -= np.hstack([*inside]) @ cell.stiffness.reshape(-1, size**2)
        found = []
        for weights, products, down, up in (
            (-upwards, cell.face_products[0], faces.upper[0], faces.lower[0]),
            (downwards, cell.face_products[1], faces.lower[0], faces.upper[0]),
        ):
            active = np.flatnonzero(weights.any(axis=1))
            weights, blocks = weights[active], np.empty((len(active), size**2))
            ends = np.searchsorted(faces.kind[active], np.arange(len(products) + 1))
            for product, start, end in zip(products, ends[:-1], ends[1:], strict=True):
                np.matmul(weights[start:end], product, out=blocks[start:end])
            found.append((down[active], up[active], blocks))
        down, up, others = (np.concatenate(part) for part in zip(*found, strict=True))
        return diagonal.reshape(-1, size, size), others.reshape(-1, size, size), down, up

    def at_sides(self, coefficients: np.ndarray) -> np.ndarray:
        """Return a solution at the Gauss nodes of all sides of leaves, shape (N, axis, side, part, F).

        Sides and their parts are those of `ReferenceCell.traces`.
        """
        traces = self.cell.traces
        found = coefficients @ traces.reshape(-1, self.cell.size).T
        return found.reshape(len(self.mesh), *traces.shape[:-1])

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The blocks (m, n, n) row by row, their columns (m,), and where rows begin (N + 1,)."""
        diagonal, others, down, up = self._blocks
        count, size, own = len(self.mesh), self.cell.size, np.arange(len(self.mesh))
        rows, columns = np.concatenate([own, down]), np.concatenate([own, up])
        order = (rows * count + columns).argsort(kind="stable")
        starts = np.append(0, np.bincount(rows).cumsum())
        place, data = np.empty_like(order), np.empty((len(order), size, size))
        place[order] = np.arange(len(order))
        data[place[:count]], data[place[count:]] = diagonal, others
        return data, columns[order], starts

    @cached_property
    def matrix(self) -> sp.bsr_array:
        """Of -(u, b . grad v) + <b . n u*, v>, shape (N n, N n), in blocks of n x n."""
        size = len(self.mesh) * self.cell.size
        return sp.bsr_array(self._rows, shape=(size, size))

    def load(self, time: float = 0.0) -> np.ndarray:
        """Return (f, v) and the inflow's part, shape (N, n), at a time."""
        problem, dim = self.problem, self.mesh.dim
        source = problem.source_at(time)
        found = np.zeros((len(self.mesh), self.cell.size))
        if callable(source) or source:
            found += self.mesh.volumes[:, None] * project(source, self.mesh, self.cell, "source")
        inflow = problem.inflow_at(time)
        sides, cell = self.inflow_boundary, self.cell
        if len(sides.flux):
            values = evaluate(inflow, sides.points.reshape(-1, dim), "inflow").reshape(sides.flux.shape)
            entering = np.zeros((len(self.mesh), *cell.traces.shape[:-1]))
            entering[sides.places] = sides.flux.clip(max=0.0) * values
            found -= entering.reshape(len(self.mesh), -1) @ cell.traces.reshape(-1, cell.size)
        return found

    def rate(self, coefficients: np.ndarray, time: float = 0.0) -> np.ndarray:
        """Return du/dt, shape (N, n)."""
        change = self.load(time) - (self.matrix @ coefficients.ravel()).reshape(coefficients.shape)
        return change / self.mesh.volumes[:, None]

    def solve(self) -> TreeFunction:
        """Return the steady solution, of data that change those at time 0.

        Raises
        ------
        ConvergenceError
            If there is none, or not one only: the flow goes round in circles, or stands still.
        """
        if self.one_way:
            return TreeFunction(self.mesh, self.order, self._swept())
        u = self._in_fronts()
        if u is None:
            try:
                u = self._solved_at_once()
            except ConvergenceError as error:
                raise ConvergenceError(
                    f"the steady problem {self.problem.name!r} has no unique solution ({error}): every point must be "
                    "reached from the inflow boundary"
                ) from error
        return TreeFunction(self.mesh, self.order, u)

    def _solved_at_once(self) -> np.ndarray:
        matrix, load = self.matrix.tocsr(), self.load().ravel()
        u = DirectSolver(matrix).solve(load)
        # A factorisation may miss a singular matrix by rounding; its solution then is nothing but that.
        growth = float(abs(matrix).sum(axis=1).max() * np.abs(u).max()) / max(
            float(np.abs(load).max()), 1e-300
        )
        if growth > LARGEST_GROWTH:
            raise ConvergenceError(f"the matrix is singular: it enlarges errors {growth:.0e} times")
        return u.reshape(len(self.mesh), -1)

    def _in_fronts(self) -> np.ndarray | None:
        """Solve leaf by leaf along the flow, those together that are not downstream of each other.

        None if leaves are in circles, or a block is singular.
        """
        diagonal, others, down, up = self._blocks
        waiting = np.bincount(down, minlength=len(self.mesh))
        u, rhs, front, done = np.zeros_like(self.load()), self.load(), np.flatnonzero(waiting == 0), 0
        while len(front):
            done += len(front)
            try:
                u[front] = np.linalg.solve(diagonal[front], rhs[front, :, None])[..., 0]
            except np.linalg.LinAlgError:
                return None
            reached = np.zeros(len(self.mesh), dtype=bool)
            reached[front] = True
            here = np.flatnonzero(reached[up])
            np.subtract.at(rhs, down[here], (others[here] @ u[up[here], :, None])[..., 0])
            np.subtract.at(waiting, down[here], 1)
            reached[:] = False
            reached[down[here]] = True
            front = np.flatnonzero(reached & (waiting == 0))
        return u if done == len(self.mesh) else None

    def _swept(self) -> np.ndarray:
        """Solve from the inflow to the outflow: a leaf's solution is the value that enters it plus a local one."""
        velocity, forward = self.one_way, self.one_way > 0
        mean = project(self.problem.source_at(0.0), self.mesh, self.cell, "source")
        added = mean * (self.mesh.volumes / abs(velocity))[:, None]
        gains = added[:, 0] if forward else added[::-1, 0]
        entering = gains.cumsum() - gains + self.entering()
        found = added @ self.cell.local_solver[0 if forward else 1].T
        found[:, 0] += entering if forward else entering[::-1]
        return found

    @cached_property
    def stable_step(self) -> float:
        """Longest step of `advect`: 1 / ((2 p + 1) sum_a max |b_a| / h_a), of the leaf where it is least."""
        speeds = np.abs(self._inside).max(axis=2)
        fastest = float((speeds.T / self.mesh.sizes).sum(axis=1).max())
        return 1.0 / ((2 * self.order + 1) * fastest) if fastest else math.inf

    def advance(self, coefficients: np.ndarray, start: float, end: float) -> np.ndarray:
        """Return coefficients at a later time, shape (N, n).

        In equal steps no longer than `stable_step`: where data are constant in time by the Taylor polynomial of
        degree max(p + 1, 3) of the exact flow, a Runge-Kutta method of as many stages for linear equations; else by
        Dormand and Prince's of order 5.

        Raises
        ------
        ConvergenceError
            If the solution grows beyond all bounds.
        """
        count = max(1, math.ceil((end - start) / self.stable_step - 1e-9))
        dt = (end - start) / count
        problem, u = self.problem, coefficients
        if any(problem.changing):
            system = explicit_system(lambda t, y: self.rate(y, t))
            for i in range(count):
                u, _ = step(DORMAND_PRINCE, system, start + i * dt, u, dt)
        else:
            u = self._taylor_steps(u, dt, count)
        if not np.isfinite(u).all():
            raise ConvergenceError(
                f"the solution of {problem.name!r} is not finite at time {end}: check its data"
            )
        return u

    def _taylor_steps(self, u: np.ndarray, dt: float, count: int) -> np.ndarray:
        (data, columns, starts), gain, degree = self._rows, self.load(), max(self.order + 1, 3)
        scale, size = dt / self.mesh.volumes, self.cell.size
        # Of single numbers rows would be empty but for one.
        if size > 1 and (module := kernels("advection")):
            return module.taylor_steps(data, columns, starts, scale, gain, u, count, degree)
        rows = np.repeat(scale, np.diff(starts))
        generator = sp.bsr_array((data * -rows[:, None, None], columns, starts), shape=(u.size, u.size))
        shape, gain, u = u.shape, (gain * scale[:, None]).ravel(), u.ravel()
        for _ in range(count):
            later = u
            # Horner's scheme.
            for k in range(degree, 0, -1):
                later = u + (generator @ later + gain) / k
            u = later
        return u.reshape(shape)


def solve_advection(problem: AdvectionProblem, mesh: TreeMesh, order: int = 3) -> TreeFunction:
    """Return the steady solution of div(b u) = f.

    Raises
    ------
    ConfigError
        If problem and mesh do not fit together.
    ConvergenceError
        If there is no unique solution.

    Examples
    --------
    >>> mesh = TreeMesh((0.0, 0.0), (1.0, 1.0), (2, 2)).refine([0])
    >>> problem = AdvectionProblem((1.0, 2.0), source=lambda x, y: 2 * x + 2, inflow=lambda x, y: x**2 + y)
    >>> bool(solve_advection(problem, mesh, order=2).errors(lambda x, y: x**2 + y)["linf"] < 1e-13)
    True
    """
    return DGAdvection(problem, mesh, order).solve()


def advect(problem: AdvectionProblem, u: TreeFunction, times: Sequence[float]) -> Iterator[TreeFunction]:
    """Yield the solution at each time, the first of which is that of u, on the mesh of u.

    Raises
    ------
    ConfigError
        If times do not increase, or problem and mesh do not fit together.
    ConvergenceError
        If the solution grows beyond all bounds.

    Examples
    --------
    >>> mesh = TreeMesh((0.0,), (1.0,), (16,), (True,))
    >>> wave = lambda x, t=0.0: np.sin(2 * np.pi * (x - t))
    >>> u = TreeFunction.projected(wave, mesh, order=3)
    >>> *_, last = advect(AdvectionProblem((1.0,)), u, [0.0, 0.5, 1.0])
    >>> bool(last.errors(wave)["l2"] < 1e-5)
    True
    """
    if len(times) < 1 or not all(a < b < math.inf for a, b in zip(times, [*times[1:], 1e300], strict=True)):
        raise ConfigError(f"times={list(times)}: give finite times in increasing order")
    method, coefficients = DGAdvection(problem, u.mesh, u.order), u.coefficients
    yield u
    for start, end in itertools.pairwise(times):
        coefficients = method.advance(coefficients, start, end)
        yield TreeFunction(u.mesh, u.order, coefficients)
