"""Problem and grid in, solution out."""

import time
from dataclasses import replace
from typing import Literal

import numpy as np
from scipy.sparse.csgraph import connected_components

from sciml.errors import ConfigError, ConvergenceError

from .boundary import BoundaryCondition
from .functions import DataFunction, evaluate, expect
from .grid import CartesianGrid
from .linear import DirectSolver, KrylovSolver, ZeroMeanDirectSolver
from .plg import PLG, LinearSystem
from .plg.precondition import BoundaryBlockMultigrid, precondition
from .problems import EllipticProblem
from .solution import Solution

__all__ = ["EllipticSolver", "LinearSolverName", "refuse_free_constants", "refuse_unknown_solver", "solve"]

LinearSolverName = Literal["auto", "direct", "krylov"]
COMPATIBILITY = 0.02  # of the mean of |f - G g|: above the discretisation error of usable grids
DIRECT_UNKNOWNS = {1: 10**9, 2: 6000, 3: 1500}  # up to here a factorisation is the faster solver
FALLBACK_UNKNOWNS = 200_000  # up to here a factorisation can stand in for a Krylov method that failed


def refuse_unknown_solver(solver: str) -> None:
    """Raise a ConfigError for anything but the names of linear solvers."""
    if solver not in ("auto", "direct", "krylov"):
        raise ConfigError(f"solver={solver!r}: choose 'auto', 'direct' or 'krylov'")


def refuse_free_constants(problem: EllipticProblem, grid: CartesianGrid, system: LinearSystem) -> None:
    """Refuse components of the domain on which a constant may be added without the problem saying so.

    Raises
    ------
    ConfigError
        That names a point of the first such component.
    """
    matrix = system.matrix
    count, component = connected_components(matrix, directed=False)
    ones = np.ones(matrix.shape[0])
    free = np.abs(matrix @ ones) <= 1e-9 * (abs(matrix) @ ones)
    floating = np.flatnonzero(np.bincount(component, weights=~free, minlength=count) == 0)
    if len(floating) == 0 or (count == 1 and problem.determined_up_to_constants):
        return
    place = grid.coordinates(system.node_index[np.argmax(component == floating[0])])
    where = f"on the component of the domain around {np.round(place, 4).tolist()} " if count > 1 else ""
    raise ConfigError(
        f"the solution is determined {where}up to a constant only: no Dirichlet or Robin data and no "
        "zeroth-order term act there; give some, solve components one by one, or state Neumann() and zeroth=0.0"
    )


class EllipticSolver:
    """A discretised problem with its linear solver, for any number of right-hand sides.

    Parameters
    ----------
    problem : EllipticProblem
    grid : CartesianGrid
        Its box must contain the domain.
    method : PLG, optional
        ``PLG()`` by default: fourth order.
    solver : {"auto", "direct", "krylov"}
        Sparse LU; or GMRES preconditioned by a boundary-block solve and multigrid, whose cost grows
        linearly; by default the one that is faster for the number of unknowns, and LU where GMRES
        does not converge (then ``info["solver"]`` says so).
    tolerance : float
        Of the Krylov method: estimated relative error left in the solution of the linear system.
    system : LinearSystem, optional
        A and G of A u = f - G g, if they have been built already; also an attribute.

    Raises
    ------
    GeometryError, StencilError, ConfigError
        As `solve`.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid, Disk, Poisson
    >>> solver = EllipticSolver(Poisson(Disk(0.4), 0.0), CartesianGrid.uniform(40))
    >>> centre = [float(solver.solve(source=f).values[20, 20]) for f in (-1.0, -2.0)]
    >>> np.allclose(centre, [0.04, 0.08])
    True
    """

    def __init__(
        self,
        problem: EllipticProblem,
        grid: CartesianGrid,
        method: PLG | None = None,
        solver: LinearSolverName = "auto",
        tolerance: float = 1e-13,
        system: LinearSystem | None = None,
    ) -> None:
        refuse_unknown_solver(solver)
        expect("problem", problem, EllipticProblem, "evolve solves problems that change in time")
        expect("grid", grid, CartesianGrid, "CartesianGrid.uniform(64)")
        method = PLG() if method is None else method
        expect("method", method, PLG, "PLG(degree=4)")
        started = time.process_time()
        self.problem, self.grid, self.method = problem, grid, method
        self.tolerance = tolerance
        self.system = system or self.method.discretise(problem, grid)
        refuse_free_constants(problem, grid, self.system)
        size = len(self.system.node_index)
        direct = solver == "direct" or (solver == "auto" and size <= DIRECT_UNKNOWNS[grid.dim])
        self.name = "direct" if direct else "krylov"
        self._may_fall_back = solver == "auto" and size <= FALLBACK_UNKNOWNS
        self._solver = self._direct() if direct else self._krylov()
        self._setup_seconds = time.process_time() - started

    def solve(
        self, source: DataFunction | None = None, boundary: BoundaryCondition | None = None
    ) -> Solution:
        """Solve with the problem's data, or with others.

        Parameters
        ----------
        source : float or callable, optional
            Another f.
        boundary : BoundaryCondition, optional
            Other data g; it must be the same condition B, which the matrix has in it.

        Returns
        -------
        Solution

        Raises
        ------
        ConfigError
            If the condition is another one, or data cannot be used.
        """
        problem = self.problem
        if boundary is not None:
            self._refuse_another(boundary)
        if source is not None or boundary is not None:
            problem = replace(
                problem,
                source=problem.source if source is None else source,
                boundary=boundary or problem.boundary,
                exact=None,
            )
        started = time.process_time()
        system = self.system
        x = self.grid.coordinates(system.node_index)
        rhs = evaluate(problem.source, x, "source")
        rhs -= system.boundary_matrix @ problem.boundary.data(system.boundary_points)
        unknowns, defect = self.solve_unknowns(rhs)
        values = np.full(self.grid.shape, np.nan)
        values[tuple(system.node_index.T)] = unknowns
        info = {
            "method": repr(self.method),
            **system.info,
            "solver": self.name,
            "iterations": max(len(self.history) - 1, 0),
            "residual_history": self.history,
            "compatibility_defect": defect,
            "residual": _relative(system.matrix @ unknowns + defect - rhs, rhs),
            "setup_cpu_seconds": self._setup_seconds,
            "cpu_seconds": self._setup_seconds + time.process_time() - started,
        }
        return Solution(problem, self.grid, values, info, self.method, system.places)

    def _refuse_another(self, boundary: BoundaryCondition) -> None:
        """Compare two conditions by what they make of first-degree polynomials."""
        points, dim = self.system.boundary_points, self.grid.dim
        exponents = np.concatenate([np.zeros((1, dim), dtype=int), np.eye(dim, dtype=int)])
        xi, h = np.ones_like(points.points), np.asarray(self.grid.spacing)
        mine, other = (b.rows(xi, points, exponents, h) for b in (self.problem.boundary, boundary))
        if not np.allclose(mine, other, rtol=1e-12, atol=1e-12):
            raise ConfigError(
                f"boundary={boundary}: the matrix was built for {self.problem.boundary}; only the data may differ"
            )

    @property
    def history(self) -> list[float]:
        """Estimated relative errors of the last Krylov solve; empty after a direct one."""
        return list(getattr(self._solver, "history", []))

    def solve_unknowns(self, rhs: np.ndarray) -> tuple[np.ndarray, float]:
        """Return u and the constant c with A u = rhs - c; c = 0 unless A 1 = 0.

        Raises
        ------
        ConfigError
            If A 1 = 0 and c is too large for data that are compatible up to discretisation errors.
        ConvergenceError
            If GMRES does not converge and nothing may stand in for it.
        """
        try:
            unknowns, c = self._solve(rhs)
        except ConvergenceError:
            if not self._may_fall_back or self.name != "krylov":
                raise
            self._solver, self.name = self._direct(), "direct, as GMRES did not converge"
            unknowns, c = self._solve(rhs)
        scale = float(np.mean(np.abs(rhs)))
        if abs(c) > COMPATIBILITY * scale:
            raise ConfigError(
                f"pure Neumann data are incompatible: the source exceeds the boundary flux by {c:.3g} on average "
                f"({abs(c) / scale:.0%} of the data's size); subtract it from the source, or correct the data"
            )
        return unknowns, c

    def _solve(self, rhs: np.ndarray) -> tuple[np.ndarray, float]:
        if not self.problem.determined_up_to_constants:
            return self._solver.solve(rhs), 0.0
        solution = self._solver.solve(np.append(rhs, 0.0))
        return solution[:-1], float(solution[-1])

    def _direct(self) -> "DirectSolver | ZeroMeanDirectSolver":
        singular = self.problem.determined_up_to_constants
        return (ZeroMeanDirectSolver if singular else DirectSolver)(self.system.matrix)

    def _krylov(self) -> KrylovSolver:
        matrix, preconditioner = self.system.matrix, self.preconditioner()
        if not self.problem.determined_up_to_constants:
            return KrylovSolver(lambda v: matrix @ v, preconditioner, self.tolerance)
        # For a nearly symmetric A with A 1 = 0 the mean of the right-hand side is what cannot be met.
        return KrylovSolver(
            lambda v: np.append(matrix @ v[:-1] + v[-1], v[:-1].mean()),
            lambda r: _bordered(preconditioner, r),
            self.tolerance,
        )

    def preconditioner(self) -> BoundaryBlockMultigrid:
        """Build the preconditioner of A."""
        problem = self.problem
        return precondition(self.system, problem.operator, problem.boundary, self.grid)


def _bordered(preconditioner: BoundaryBlockMultigrid, rhs: np.ndarray) -> np.ndarray:
    c = rhs[:-1].mean()
    u = preconditioner(rhs[:-1] - c)
    return np.append(u + (rhs[-1] - u.mean()), c)


def _relative(residual: np.ndarray, rhs: np.ndarray) -> float:
    scale = float(np.linalg.norm(rhs))
    return float(np.linalg.norm(residual)) / (scale or 1.0)


def solve(
    problem: EllipticProblem,
    grid: CartesianGrid,
    method: PLG | None = None,
    solver: LinearSolverName = "auto",
    tolerance: float = 1e-13,
) -> Solution:
    """Solve an elliptic problem on a Cartesian grid.

    Parameters
    ----------
    problem : EllipticProblem
    grid : CartesianGrid
        Its box must contain the domain.
    method : PLG, optional
        ``PLG()`` by default: fourth order.
    solver, tolerance
        As for `EllipticSolver`.

    Returns
    -------
    Solution
        With pure Neumann data and no zeroth-order term the solution of mean zero over the unknowns;
        ``info["compatibility_defect"]`` is the constant that had to be taken off the source to make a
        solution exist, of the size of the discretisation error if the data are compatible.

    Raises
    ------
    GeometryError
        If the domain leaves the grid's box.
    StencilError
        If the domain is somewhere thinner than the stencil.
    ConfigError
        If the source or the boundary data are not finite, or pure Neumann data are incompatible with
        the source.
    ConvergenceError
        If the linear system cannot be solved.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid, Star, manufactured, solve
    >>> problem = manufactured("exp(x)*sin(2*y)", Star())
    >>> solve(problem, CartesianGrid.uniform(80)).errors()["l2"] < 1e-8
    True
    """
    return EllipticSolver(problem, grid, method, solver, tolerance).solve()
