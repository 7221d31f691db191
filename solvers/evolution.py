"""Time evolution on curved domains: the PLG discretisation in space, ARK4 in time.

Diffusion is implicit (L-stable), advection and reaction are explicit; one factorisation of I - c A
serves all stages and steps of equal length.

A Runge-Kutta stage is not a solution at its time but carries the errors of its order, the *stage order*
(2 here). Boundary data taken at the stage's time would disagree with it and cost up to two orders. So
the boundary gets the stages that the method itself makes of the data: G_i = g_n + dt sum_j a_ij g'(t_j)
(Abarbanel, Gottlieb and Carpenter, SIAM J. Sci. Comput. 17, 1996), with g' from a polynomial through
values of g within the step.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import eigs

from sciml.errors import ConfigError, ConvergenceError

from .elliptic import DIRECT_UNKNOWNS, LinearSolverName, refuse_unknown_solver
from .evolution_problems import ParabolicProblem, WaveProblem
from .functions import DataFunction, at_time, evaluate, expect, takes_time
from .grid import CartesianGrid
from .linear import DirectSolver, KrylovSolver
from .nonlinear import Reaction
from .plg import PLG, LinearSystem
from .plg.precondition import precondition
from .solution import Solution
from .timestepping import Stage, Tableau, integrate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Evolution", "evolve"]

SAMPLES = 0.5 - 0.5 * np.cos(np.pi * np.arange(7) / 6)  # of the boundary data, in steps
FACTORISATIONS = 6  # kept, each for one length of the step
# ARK4 is stable for |z_E|^2 <= FREE + DAMPED |z_I|, z_I <= 0 and z_E on or left of the imaginary axis.
FREE, DAMPED = 13.7, 0.6
NEWTON_STEPS, NEWTON_TOLERANCE, NEWTON_ROUNDING = 30, 1e-13, 1e-10  # relative to max |u|
REUSE = 20  # a factorisation that serves many solves may cost more than one that serves one


class _Parabolic:
    """u' = A u + G g + f - v . grad u + r(u), the last two terms implicit or explicit: a `SplitSystem`."""

    def __init__(
        self,
        problem: ParabolicProblem,
        grid: CartesianGrid,
        method: PLG,
        solver: LinearSolverName,
        explicit: bool,
    ) -> None:
        operators = (problem.operator, *([problem.advection] if problem.advection else []))
        system, *flow = method.discretise_all(operators, problem.domain, problem.boundary, grid)
        self.flow = flow[0] if flow and explicit else None
        if flow and not explicit:
            matrices = (system.matrix - flow[0].matrix, system.boundary_matrix - flow[0].boundary_matrix)
            system = replace(system, matrix=matrices[0], boundary_matrix=matrices[1])
        self.explicit_reaction = problem.reaction if explicit else None
        self.space = _Space(
            problem, system, grid, solver, None if explicit else problem.reaction, self.explicit_reaction
        )
        size = len(self.space.x)
        self.transport = abs(self.flow.matrix) @ np.ones(size) if self.flow else np.zeros(size)
        self.radius = _spectral_radius(self.flow.matrix) if self.flow else 0.0
        self.damping = np.maximum(-system.matrix.diagonal(), 0.0)

    def state(self) -> np.ndarray:
        """Initial state at the unknowns."""
        return self.space.evaluate(self.space.problem.initial, "initial")

    def solution(self, y: np.ndarray) -> np.ndarray:
        """Values of u in a state."""
        return y

    def implicit(self, stage: Stage, y: np.ndarray) -> np.ndarray:
        return self.space.slope(stage, y)

    def solve(self, stage: Stage, rhs: np.ndarray, shift: float, guess: np.ndarray) -> np.ndarray:
        return self.space.solve(shift, rhs + shift * self.space.forcing(stage), guess)

    def explicit(self, stage: Stage, y: np.ndarray) -> np.ndarray | None:
        if self.flow is None and self.explicit_reaction is None:
            return None
        # The first stage is also evaluated to choose a step.
        limit = self.largest_step(y) if stage.index else np.inf
        if stage.step > limit:
            raise ConvergenceError(f"advection and reaction, which are explicit, allow a step of {limit:.3g}")
        slope = np.zeros_like(y)
        if self.flow is not None:
            slope -= self.flow.matrix @ y + self.flow.boundary_matrix @ self.space.data(stage)
        if self.explicit_reaction is not None:
            slope += self.explicit_reaction(y)
        return slope

    def largest_step(self, y: np.ndarray) -> float:
        """Longest step for which the explicit part is stable at a state.

        The longer one that two bounds of the rate of the explicit terms allow: the spectral radius, or
        row sums, which may be the larger the more diffusion damps the row.
        """
        slope = (
            np.zeros(len(y)) if self.explicit_reaction is None else np.abs(self.explicit_reaction.slope(y))
        )
        rate, radius = self.transport + slope, self.radius + float(slope.max())
        if radius == 0.0:
            return np.inf
        # (dt rate)^2 <= FREE + DAMPED dt damping, solved for dt.
        half = 0.5 * DAMPED * self.damping
        square = np.maximum(rate, 1e-100) ** 2
        by_row = float(((half + np.sqrt(half**2 + FREE * square)) / square).min())
        return max(by_row, FREE**0.5 / radius)


class _Wave:
    """u' = v, v' = A u + G g + f, all of it implicit: a `SplitSystem` with the state (u, v)."""

    def __init__(
        self, problem: WaveProblem, grid: CartesianGrid, method: PLG, solver: LinearSolverName, explicit: bool
    ) -> None:
        system = method.discretise_all((problem.operator,), problem.domain, problem.boundary, grid)[0]
        self.space = _Space(problem, system, grid, solver, order=2)

    def state(self) -> np.ndarray:
        """Initial state at the unknowns, shape (2, m)."""
        problem = self.space.problem
        assert isinstance(problem, WaveProblem)
        velocity = self.space.evaluate(problem.initial_velocity, "initial_velocity")
        return np.stack([self.space.evaluate(problem.initial, "initial"), velocity])

    def solution(self, y: np.ndarray) -> np.ndarray:
        """Values of u in a state."""
        return y[0]

    def implicit(self, stage: Stage, y: np.ndarray) -> np.ndarray:
        return np.stack([y[1], self.space.slope(stage, y[0])])

    def solve(self, stage: Stage, rhs: np.ndarray, shift: float, guess: np.ndarray) -> np.ndarray:
        # u = rhs_u + c v and v = rhs_v + c (A u + F) give (I - c^2 A) u = rhs_u + c rhs_v + c^2 F.
        forcing = self.space.forcing(stage)
        u = self.space.solve(shift**2, rhs[0] + shift * rhs[1] + shift**2 * forcing, guess[0])
        return np.stack([u, (u - rhs[0]) / shift])

    def explicit(self, stage: Stage, y: np.ndarray) -> None:
        return None

    def largest_step(self, y: np.ndarray) -> float:
        """No limit."""
        return np.inf


class _Space:
    """The discretisation in space: data, forcing and solves with u - c (A u + r(u)).

    Parameters
    ----------
    problem, grid, solver
        As for `evolve`.
    system : LinearSystem
        A and G.
    reaction, explicit_reaction : Reaction, optional
        r, as the one or the other.
    order : {1, 2}
        Of the time derivative.
    """

    def __init__(
        self,
        problem: ParabolicProblem | WaveProblem,
        system: LinearSystem,
        grid: CartesianGrid,
        solver: LinearSolverName,
        reaction: Reaction | None = None,
        explicit_reaction: Reaction | None = None,
        order: int = 1,
    ) -> None:
        refuse_unknown_solver(solver)
        self.problem, self.system, self.grid = problem, system, grid
        self.reaction, self.explicit_reaction, self.order = reaction, explicit_reaction, order
        self.x = grid.coordinates(system.node_index)
        few = len(self.x) <= REUSE * DIRECT_UNKNOWNS[grid.dim]
        self.direct = solver == "direct" or (solver == "auto" and few)
        self.counts = {"factorisations": 0, "solves": 0, "iterations": 0}
        self._solvers: OrderedDict[float, DirectSolver | KrylovSolver] = OrderedDict()
        self._weights: dict[str, tuple[np.ndarray, ...]] = {}
        self._sampled: tuple[float, float] | None = None
        self._samples = self._forces = self._reactions = np.empty(0)
        points = system.boundary_points
        self._dirichlet = problem.boundary.scale(points, 0.5) == 1.0
        self._timed_source = takes_time(problem.source, grid.dim)
        self._steady_source = None if self._timed_source else self._source(0.0)

    def evaluate(self, function: DataFunction | np.ndarray, name: str) -> np.ndarray:
        """Values of a function of position, or of an array on the grid, at the unknowns."""
        if isinstance(function, np.ndarray):
            if function.shape != self.grid.shape:
                raise ConfigError(
                    f"{name} of shape {function.shape}: give values on the grid, {self.grid.shape}"
                )
            values = function[tuple(self.system.node_index.T)]
            return evaluate(lambda *_: values, self.x, name)
        return evaluate(function, self.x, name)

    def _source(self, t: float) -> np.ndarray:
        return self.evaluate(at_time(self.problem.source, t, self.grid.dim), "source")

    def data(self, stage: Stage) -> np.ndarray:
        """Boundary data that belong to a stage."""
        if self._sampled != (stage.start, stage.step):
            self._sampled = (stage.start, stage.step)
            self._sample(stage.start + SAMPLES * stage.step)
        name = stage.tableau.name
        if name not in self._weights:
            self._weights[name] = _stage_weights(stage.tableau, self.order)
        stages, own, forces, explicit = self._weights[name]
        data = stages[stage.index] @ self._samples
        if len(self._forces):
            data += own[stage.index] @ self._samples - stage.step * (forces[stage.index] @ self._forces)
        if len(self._reactions):
            data += stage.step * (explicit[stage.index] @ self._reactions)
        return data

    def _sample(self, times: np.ndarray) -> None:
        """Evaluate g, and f + r(g) where g is the solution, at times within a step."""
        dim, points = self.grid.dim, self.system.boundary_points
        conditions = [self.problem.boundary.at(t, dim) for t in times]
        if conditions[0] == self.problem.boundary and not self._timed_source:
            self._samples = np.tile(conditions[0].data(points), (len(times), 1))
            self._forces = self._reactions = np.empty(0)
            return
        self._samples = np.stack([condition.data(points) for condition in conditions])
        if not self._dirichlet.all() or self.order == 2:
            return
        sources = [at_time(self.problem.source, t, dim) for t in times]
        self._forces = np.stack([evaluate(f, points.points, "source on the boundary") for f in sources])
        if self.reaction is not None:
            # Stage errors pass through A + r'; what r' does to them is taken out of r.
            values = self.reaction(self._samples.ravel()).reshape(self._samples.shape)
            rates = self.reaction.slope(self._samples[len(times) // 2])
            self._forces += values - rates * self._samples
        if self.explicit_reaction is not None:
            self._reactions = self.explicit_reaction(self._samples.ravel()).reshape(self._samples.shape)
            self._forces += self._reactions

    def forcing(self, stage: Stage) -> np.ndarray:
        """G g + f at a stage."""
        source = self._source(stage.time) if self._steady_source is None else self._steady_source
        return source + self.system.boundary_matrix @ self.data(stage)

    def slope(self, stage: Stage, u: np.ndarray) -> np.ndarray:
        """A u + G g + f + r(u)."""
        slope = self.system.matrix @ u + self.forcing(stage)
        return slope if self.reaction is None else slope + self.reaction(u)

    def solve(self, c: float, rhs: np.ndarray, guess: np.ndarray) -> np.ndarray:
        """Solve u - c (A u + r(u)) = rhs, with a reaction by Newton steps with a Jacobian kept for long."""
        if self.reaction is None:
            return self._linear(c, rhs, rhs)
        u, last = guess, np.inf
        for attempt in range(2):
            for _ in range(NEWTON_STEPS):
                residual = rhs - u + c * (self.system.matrix @ u + self.reaction(u))
                change = self._linear(c, residual, u)
                u = u + change
                size = float(np.abs(change).max()) / max(float(np.abs(u).max()), 1e-300)
                stuck = not size < 0.5 * last
                if size <= NEWTON_TOLERANCE or (stuck and size <= NEWTON_ROUNDING):
                    return u
                if stuck:
                    break
                last = size
            if attempt == 0:
                # The Jacobian is of another time.
                self._solvers.pop(c, None)
                u, last = guess, np.inf
        raise ConvergenceError("Newton's method for the implicit reaction does not converge")

    def _linear(self, c: float, rhs: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Solve with I - c (A + r'), r' at the state u when the solver was made."""
        if c not in self._solvers:
            self.counts["factorisations"] += 1
            self._solvers[c] = self._solver(c, u)
            if len(self._solvers) > FACTORISATIONS:
                self._solvers.popitem(last=False)
        self._solvers.move_to_end(c)
        solver = self._solvers[c]
        self.counts["solves"] += 1
        change = solver.solve(rhs)
        self.counts["iterations"] += max(len(getattr(solver, "history", [])) - 1, 0)
        return change

    def _solver(self, c: float, u: np.ndarray) -> DirectSolver | KrylovSolver:
        problem = self.problem
        rates = np.zeros(len(u)) if self.reaction is None else self.reaction.slope(u)
        matrix = sp.diags_array(1.0 - c * rates, format="csr") - c * self.system.matrix
        if self.direct:
            return DirectSolver(matrix)
        preconditioner = precondition(self.system, problem.operator, problem.boundary, self.grid, 1.0, -c)
        return KrylovSolver(lambda v: matrix @ v, preconditioner)


def _stage_weights(tableau: Tableau, order: int) -> tuple[np.ndarray, ...]:
    """Weights of samples within a step for the stages of boundary data, each (stages, samples).

    First: of g for the stages of quadrature, g_n + dt sum_j a_ij g'(t_j) for u' = F; for u'' = F, which
    the method integrates twice, g_n + c_i dt g'_n + dt^2 sum_j (a a)_ij g''(t_j). Second and third: of g
    and of dt times the forces f + r for the next term of the stages' error, dt^4 sum_j a_ij d_j A D^3 u with
    D = d/dt, where dt^3 d_i D^3 u is the leading one and A u = D u - (f + r) on the boundary. Fourth: of
    an explicit r, which the stages weigh by the explicit coefficients.
    """
    degree, c = len(SAMPLES) - 1, tableau.c
    stages = tableau.explicit if tableau.implicit is None else tableau.implicit
    # Rows: stages; columns: the powers of s = (t - t_n) / dt.
    powers, own, forces = np.zeros((3, len(c), degree + 1))
    powers[:, 0] = 1.0
    k = np.arange(1, degree + 1)
    if order == 1:
        powers[:, 1:] = stages @ (k * c[:, None] ** (k - 1))
    else:
        powers[:, 1] = c
        powers[:, 2:] = stages @ stages @ (k[1:] * (k[1:] - 1) * c[:, None] ** (k[1:] - 2))
    second = stages @ (stages @ c**2 / 2 - c**3 / 6)
    k = np.arange(degree + 1)
    falling = k * (k - 1) * (k - 2)
    own[:, 4:] = second[:, None] * (falling * (k - 3))[4:] * 0.5 ** (k[4:] - 4)
    forces[:, 3:] = second[:, None] * falling[3:] * 0.5 ** (k[3:] - 3)
    inverse = np.linalg.inv(np.vander(SAMPLES, increasing=True))
    explicit = (tableau.explicit - stages) @ tableau.c[:, None] ** k
    return powers @ inverse, own @ inverse, forces @ inverse, explicit @ inverse


def _spectral_radius(matrix: sp.csr_array) -> float:
    """Largest modulus of an eigenvalue, to a few per cent."""
    start = np.random.default_rng(0).normal(size=matrix.shape[0])
    if matrix.shape[0] < 20:
        return float(np.abs(np.linalg.eigvals(matrix.toarray())).max())
    value = eigs(matrix, k=1, which="LM", v0=start, tol=0.02, return_eigenvectors=False, maxiter=5000)
    return float(np.abs(value[0]))


@dataclass(frozen=True)
class Evolution:
    """A solution at several times; ``evolution[k]`` is the `Solution` at times[k].

    `sciml.datasets.save` stores it.

    Attributes
    ----------
    problem : ParabolicProblem or WaveProblem
    grid : CartesianGrid
    times : ndarray, shape (T,)
    values : ndarray, shape (T, *grid.shape)
        u at the nodes inside the domain, NaN elsewhere.
    info : dict
        Diagnostics of the discretisation and of the time steps: accepted, rejected, smallest and
        largest step, factorisations, solves, iterations, seconds.
    method : PLG
    """

    problem: ParabolicProblem | WaveProblem
    grid: CartesianGrid
    times: np.ndarray
    values: np.ndarray
    info: dict[str, Any] = field(default_factory=dict)
    method: PLG = field(default_factory=PLG)

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, k: int) -> Solution:
        """Return the state at times[k] as a `Solution`, with the data of that time."""
        if not isinstance(k, int | np.integer):
            raise ConfigError(f"evolution[{k}]: give one number; values and times take slices")
        problem = self.problem.at(float(self.times[k]))
        return Solution(problem, self.grid, self.values[k], self.info, self.method)

    def plot(self, ax: "Axes | None" = None, k: int = -1, **kwargs: Any) -> "Axes":
        """Draw the solution at times[k]; arguments as for `Solution.plot`."""
        axes = self[k].plot(ax, **kwargs)
        return axes


def evolve(
    problem: ParabolicProblem | WaveProblem,
    grid: CartesianGrid,
    times: Sequence[float] | np.ndarray,
    *,
    step: float | None = None,
    tolerance: float | tuple[float, float] | None = None,
    method: PLG | None = None,
    solver: LinearSolverName = "auto",
    explicit: bool = False,
    progress: bool = False,
) -> Evolution:
    """Evolve a parabolic problem or a wave from times[0]; keep the solution at every time.

    Parameters
    ----------
    problem : ParabolicProblem or WaveProblem
    grid : CartesianGrid
    times : sequence of float, increasing
        The first is that of the initial data.
    step : float, optional
        Length of the time steps, fitted to the distance of two times.
    tolerance : float or (float, float), optional
        Adaptive steps instead, by powers of two, so that a change costs one factorisation: relative and
        absolute tolerance of the error of one step.
    method : PLG, optional
        Fourth order by default, for explicit terms with ``weight_power=1``: longer steps are stable then.
    solver : {"auto", "direct", "krylov"}
        As for `solve`.
    explicit : bool
        Take advection and reaction by the explicit half of the additive pair: one linear solve a stage,
        but steps are limited, and boundary data that change in time cost one order or more. By
        default all terms are implicit, a reaction by Newton's method with a Jacobian that is kept.
    progress : bool
        Show a bar.

    Returns
    -------
    Evolution

    Raises
    ------
    GeometryError, StencilError
        As `solve`.
    ConfigError
        If data cannot be used, or a fixed step is longer than the explicit part allows; the message
        says how long it may be.
    ConvergenceError
        If the solution is no longer finite, or adaptive steps become too small.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid, Disk, manufactured_evolution
    >>> heat = manufactured_evolution("exp(-2*t)*cos(x + y)", Disk())
    >>> run = evolve(heat, CartesianGrid.uniform(24), [0, 0.5, 1], step=0.05)
    >>> run[-1].errors()["l2"] < 1e-6
    True
    """
    expect("problem", problem, (ParabolicProblem, WaveProblem), "solve takes problems without time")
    expect("grid", grid, CartesianGrid, "CartesianGrid.uniform(64)")
    expect("method", method or PLG(), PLG, "PLG(degree=4)")
    if np.ndim(times) != 1:
        raise ConfigError(f"times={times}: give a sequence, the first that of the initial data")
    started = time.process_time()
    method = method or PLG(weight_power=1.0 if explicit else 3.0)
    kind: Any = _Wave if isinstance(problem, WaveProblem) else _Parabolic
    system = kind(problem, grid, method, solver, explicit)
    y = system.state()
    limit = system.largest_step(y)
    if step is not None and step > limit:
        raise ConfigError(
            f"step={step}: advection and reaction, which are explicit, allow at most {limit:.3g} at the start (a "
            "reaction may allow less later); take a shorter step, tolerance= for adaptive ones, or explicit=False"
        )
    inside = tuple(system.space.system.node_index.T)
    values = np.full((len(times), *grid.shape), np.nan)
    states = integrate(system, y, times, step=step, tolerance=tolerance, progress=progress)
    statistics: dict[str, Any] = {}
    for k, (_, y, run) in enumerate(states):
        values[(k, *inside)] = system.solution(y)
        statistics = asdict(run)
    info = {
        "method": repr(method),
        **system.space.system.info,
        **statistics,
        **system.space.counts,
        "solver": "direct" if system.space.direct else "krylov",
        "cpu_seconds": time.process_time() - started,
    }
    return Evolution(problem, grid, np.asarray(times, dtype=float), values, info, method)
