"""Semilinear elliptic problems, L u + r(u) = f, by Newton's method on a PLG discretisation.

    F(u) = A u + r(u) + G g - f = 0,      (A + diag r'(u_k)) v_k = -F(u_k),      u_(k+1) = u_k + t v_k

with the largest t = 1, 1/2, 1/4, ... that decreases |F| by Armijo's rule (Dennis and Schnabel,
Numerical Methods for Unconstrained Optimization and Nonlinear Equations, SIAM 1996, section 6.3).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from sciml.errors import ConfigError, ConvergenceError

from .boundary import BoundaryCondition
from .domains import Domain
from .elliptic import EllipticSolver, LinearSolverName, refuse_unknown_solver
from .functions import DataFunction, Expression, coordinates, derivative, evaluate, expect
from .grid import CartesianGrid
from .operators import EllipticOperator
from .plg import PLG
from .plg.discretise import LinearSystem
from .problems import EllipticProblem, manufactured
from .solution import Solution

__all__ = ["Reaction", "manufactured_nonlinear", "solve_nonlinear"]

ARMIJO = 1e-4
SHORTEST = 2.0**-12  # of a Newton step
ROUNDING = 4 * np.finfo(float).eps  # of |A| |u| + |r| + |f - G g|: no iterate has a smaller residual


@dataclass(frozen=True)
class Reaction:
    """The term r(u) of L u + r(u) = f.

    Parameters
    ----------
    function : str or callable
        r: text in the symbol u (evaluated by sympy: never pass text that you do not trust), or a
        function of one array that keeps its shape.
    derivative : callable, optional
        r'. That of text is symbolic; that of a function is taken by complex steps, exact to round-off
        for functions made of analytic operations (not of ``abs`` or ``maximum``).

    Raises
    ------
    ConfigError
        If text cannot be read or holds other symbols than u, or (when it is evaluated) r or r' is not
        one real number per value, not finite, or r cannot be differentiated.

    Examples
    --------
    >>> Reaction("u - u**3").slope(np.array([0.0, 1.0])).tolist()
    [1.0, -2.0]
    >>> Reaction(np.exp).slope(np.array([0.0])).tolist()
    [1.0]
    """

    function: str | Callable[[np.ndarray], np.ndarray]
    derivative: Callable[[np.ndarray], np.ndarray] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.function, str):
            import sympy

            parsed = Expression(self.function, (sympy.Symbol("u", real=True),))
            object.__setattr__(self, "function", parsed)
        if not callable(self.function):
            raise ConfigError(f"reaction function={self.function!r}: give text in u, or a function of u")

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """Return r(u), shape (m,) to (m,)."""
        with np.errstate(all="ignore"):
            return evaluate(self.function, u[:, None], "reaction r(u)")  # type: ignore[arg-type]

    def slope(self, u: np.ndarray) -> np.ndarray:
        """Return r'(u), shape (m,) to (m,)."""
        slope = self.derivative or derivative(self.function, 0, 1)  # type: ignore[arg-type]
        with np.errstate(all="ignore"):
            try:
                return evaluate(slope, u[:, None], "reaction derivative r'(u)")
            except ConfigError as error:
                if self.derivative is not None or isinstance(self.function, Expression):
                    raise
                raise ConfigError(
                    f"reaction function={self.function!r} has no derivative by complex steps: give derivative="
                ) from error


@dataclass(frozen=True)
class _Semilinear(EllipticProblem):
    """The problem that a `Solution` refers to: r determines u also where L alone would not."""

    reaction: Reaction | None = None

    @property
    def determined_up_to_constants(self) -> bool:
        return False


def manufactured_nonlinear(
    expression: object,
    reaction: Reaction,
    domain: Domain,
    operator: EllipticOperator | None = None,
    boundary: BoundaryCondition | None = None,
) -> EllipticProblem:
    """Build the problem of `solve_nonlinear` whose exact solution is a given expression.

    Parameters
    ----------
    expression : str or sympy.Expr
        u in the symbols x, y (and z).
    reaction : Reaction
    domain : Domain
    operator : EllipticOperator, optional
        The Laplacian by default.
    boundary : BoundaryCondition, optional
        Kind of condition, `Dirichlet` by default; its data are replaced by those of u.

    Returns
    -------
    EllipticProblem
        With source L u + r(u), symbolic for a reaction given as text.

    Raises
    ------
    ConfigError
        If the expression contains other symbols.

    Examples
    --------
    >>> from sciml.solvers import Disk
    >>> manufactured_nonlinear("x + y", Reaction("u**2"), Disk()).source
    Expression((x + y)**2)
    """
    linear = manufactured(expression, domain, operator, boundary=boundary)
    u, r, symbols = linear.exact, reaction.function, coordinates(domain.dim)
    assert isinstance(u, Expression)
    assert isinstance(linear.source, Expression)
    source: DataFunction = _Sum(linear.source, u, reaction)
    if isinstance(r, Expression):
        source = Expression(linear.source.expression + r.expression.subs(r.symbols[0], u.expression), symbols)
    return replace(linear, source=source)


@dataclass(frozen=True)
class _Sum:
    """L u + r(u) of an exact solution, as a function of position."""

    linear: Expression
    exact: Expression
    reaction: Reaction

    def __call__(self, *position: np.ndarray) -> np.ndarray:
        return self.linear(*position) + self.reaction.function(self.exact(*position))  # type: ignore[operator]


def solve_nonlinear(
    problem: EllipticProblem,
    reaction: Reaction,
    grid: CartesianGrid,
    method: PLG | None = None,
    guess: DataFunction | np.ndarray = 0.0,
    solver: LinearSolverName = "auto",
    tolerance: float = 1e-12,
    max_iterations: int = 30,
) -> Solution:
    """Solve L u + r(u) = f with the problem's boundary condition.

    -Laplace u + s(u) = q is L = Laplace, r = -s, f = -q. A reaction that depends on position only
    through a factor of u belongs into the operator's zeroth coefficient.

    Parameters
    ----------
    problem : EllipticProblem
        L, f, the domain and the boundary condition.
    reaction : Reaction
    grid : CartesianGrid
        Its box must contain the domain.
    method : PLG, optional
        ``PLG()`` by default: fourth order.
    guess : float, callable or ndarray of shape grid.shape
        The first iterate, a function ``u(x, y)``, or values as in `Solution.values`. It decides which
        solution is found, where there are several.
    solver : {"auto", "direct", "krylov"}
        For the Newton steps, as for `EllipticSolver`.
    tolerance : float
        Newton's method ends after a step of at most this fraction of the largest |u|, or where the
        residual is round-off and cannot be decreased.
    max_iterations : int
        Newton steps.

    Returns
    -------
    Solution
        ``info["newton_iterations"]``; ``info["residual_history"]``, |F(u_k)| divided by the norm of
        |A| |u| + |r(u)| + |f - G g| at the solution; ``info["step_history"]``, max |v_k| divided by the
        largest |u| so far; ``info["linear_iterations"]``, of GMRES in every step.

    Raises
    ------
    ConfigError
        If the data, or r or r' at an iterate, are not finite, or an argument is out of its range.
    ConvergenceError
        If Newton's method does not converge; the message ends with the last residuals.
    GeometryError, StencilError
        As for `solve`.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid, Star
    >>> reaction = Reaction("-u**3")
    >>> problem = manufactured_nonlinear("exp(x)*sin(2*y)", reaction, Star())
    >>> solve_nonlinear(problem, reaction, CartesianGrid.uniform(80)).errors()["l2"] < 1e-8
    True
    """
    if not 0 < tolerance < 1:
        raise ConfigError(f"tolerance={tolerance}: choose a number between 0 and 1")
    expect("problem", problem, EllipticProblem, "Poisson(Disk(), 1.0), for example")
    expect("reaction", reaction, Reaction, 'Reaction("exp(u)"), for example')
    expect("grid", grid, CartesianGrid, "CartesianGrid.uniform(64)")
    refuse_unknown_solver(solver)
    if max_iterations < 1:
        raise ConfigError(f"max_iterations={max_iterations}: allow at least one Newton step")
    started = time.process_time()
    method = method or PLG()
    system = method.discretise(problem, grid)
    x = grid.coordinates(system.node_index)
    rhs = evaluate(problem.source, x, "source")
    rhs -= system.boundary_matrix @ problem.boundary.data(system.boundary_points)
    newton = _Newton(problem, reaction, grid, system, rhs, solver)
    unknowns = newton.run(_first_iterate(guess, grid, system.node_index), tolerance, max_iterations)
    values = np.full(grid.shape, np.nan)
    values[tuple(system.node_index.T)] = unknowns
    info: dict[str, Any] = {
        "method": repr(method),
        **system.info,
        "solver": newton.name,
        "newton_iterations": len(newton.steps),
        "residual_history": newton.residuals,
        "step_history": newton.steps,
        "linear_iterations": newton.linear_iterations,
        "iterations": sum(newton.linear_iterations),
        "residual": newton.residuals[-1],
        "cpu_seconds": time.process_time() - started,
    }
    fields = {name: getattr(problem, name) for name in EllipticProblem.__dataclass_fields__}
    return Solution(_Semilinear(**fields, reaction=reaction), grid, values, info, method, system.places)


def _first_iterate(guess: DataFunction | np.ndarray, grid: CartesianGrid, index: np.ndarray) -> np.ndarray:
    if not isinstance(guess, np.ndarray):
        return evaluate(guess, grid.coordinates(index), "guess")
    if guess.shape != grid.shape:
        raise ConfigError(f"guess of shape {guess.shape}: give values on the grid, shape {grid.shape}")
    values = guess[tuple(index.T)]
    return evaluate(lambda *_: values, grid.coordinates(index), "guess")


class _Newton:
    """Newton's method for one system and one right-hand side, with its records."""

    def __init__(
        self,
        problem: EllipticProblem,
        reaction: Reaction,
        grid: CartesianGrid,
        system: LinearSystem,
        rhs: np.ndarray,
        solver: LinearSolverName,
    ) -> None:
        self.problem, self.reaction, self.grid = problem, reaction, grid
        self.system, self.rhs, self.solver = system, rhs, solver
        self.name: str = solver
        self._norms: list[float] = []
        self._scale = 1.0
        self.steps: list[float] = []
        self.linear_iterations: list[int] = []

    def run(self, u: np.ndarray, tolerance: float, max_iterations: int) -> np.ndarray:
        residual = self._evaluate(u)
        if not residual.any():
            return u
        largest, failure = 0.0, f"no convergence to {tolerance:.0e} in {max_iterations} steps"
        for _ in range(max_iterations):
            step = self._step(u, residual)
            largest = max(largest, float(np.abs(u).max()), float(np.abs(u + step).max()))
            self.steps.append(float(np.abs(step).max()) / largest)
            if self.steps[-1] <= tolerance:
                self._evaluate(u + step)
                return u + step
            length = self._length(u, step, residual)
            if length == 0:
                failure = "no step along Newton's direction decreases the residual"
                break
            u = u + length * step
            residual = self._evaluate(u)
        if self.residuals[-1] <= ROUNDING:
            return u
        raise self._failure(failure)

    def _evaluate(self, u: np.ndarray) -> np.ndarray:
        """Return F(u) and record its norm."""
        r = self.reaction(u)
        residual = self.system.matrix @ u + r - self.rhs
        self._norms.append(float(np.linalg.norm(residual)))
        self._scale = float(
            np.linalg.norm(abs(self.system.matrix) @ np.abs(u) + np.abs(r) + np.abs(self.rhs))
        )
        return residual

    @property
    def residuals(self) -> list[float]:
        """Norms of F at all iterates, in terms of what F is the sum of at the last."""
        return [norm / (self._scale or 1.0) for norm in self._norms]

    def _step(self, u: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """Solve the linearised problem, in which r'(u) is a zeroth coefficient that the nodes sample."""
        slope = self.reaction.slope(u)
        field = np.zeros(self.grid.shape)
        field[tuple(self.system.node_index.T)] = slope
        operator, base = self.problem.operator, self.problem.operator.zeroth

        def zeroth(*position: np.ndarray) -> np.ndarray:
            points = np.stack(position, axis=1)
            linear = evaluate(base, points, "operator zeroth")  # type: ignore[arg-type]
            return linear + field[tuple(self.grid.index(points).T)]

        problem = replace(self.problem, operator=replace(operator, zeroth=zeroth))
        system = replace(self.system, matrix=sp.csr_array(self.system.matrix + sp.diags_array(slope)))
        try:
            linear = EllipticSolver(problem, self.grid, solver=self.solver, system=system)
            step = linear.solve_unknowns(-residual)[0]
        except (ConfigError, ConvergenceError) as error:
            raise self._failure(f"step {len(self.steps) + 1} has no solution ({error})") from error
        self.name = linear.name
        self.linear_iterations.append(max(len(linear.history) - 1, 0))
        return step

    def _length(self, u: np.ndarray, step: np.ndarray, residual: np.ndarray) -> float:
        """Return the largest t = 1, 1/2, ... that decreases |F| enough, 0 if none does."""
        norm, t = float(np.linalg.norm(residual)), 1.0
        while t >= SHORTEST:
            trial = u + t * step
            try:
                new = self.system.matrix @ trial + self.reaction(trial) - self.rhs
                if np.linalg.norm(new) <= (1 - ARMIJO * t) * norm:
                    return t
            except ConfigError:
                # r had values at u, so that the step has left its domain or range: a shorter one need not.
                pass
            t /= 2
        return 0.0

    def _failure(self, what: str) -> ConvergenceError:
        tail = ", ".join(f"{value:.1e}" for value in self.residuals[-5:])
        return ConvergenceError(
            f"Newton's method: {what} (residuals {tail}); give a better guess=, for example the solution for a "
            "weaker reaction, or a finer grid; a solution need not exist"
        )
