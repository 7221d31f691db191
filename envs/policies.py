"""Policies: rules that mark cells, all with one interface, from the trivial to oracles.

A policy looks at a state and the part of a budget in use, and returns an action for every cell. What it is compared by
is the loop `deploy`, the same for all: decide, act, solve, until the budget is reached or nothing changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from sciml.errors import ConfigError
from sciml.registry import Registry, unknown_name
from sciml.solvers.fem import mark_doerfler, mark_fraction, mark_maximum

from .observations import largest_of_neighbours
from .states import COARSEN, KEEP, REFINE, State

__all__ = [
    "Doerfler",
    "End",
    "FixedFraction",
    "LookAhead",
    "Policy",
    "RandomPolicy",
    "Rule",
    "Threshold",
    "Trace",
    "TrueError",
    "Uniform",
    "deploy",
    "policy_registry",
    "within_budget",
]

policy_registry: Registry[type["Policy"]] = Registry("policy")
"""Policies by name."""


class Policy(ABC):
    """A rule that marks cells.

    Attributes
    ----------
    afresh : bool
        Whether in time it makes a mesh for every step anew, for it only refines, one cell after another: oracles.
    """

    afresh: ClassVar[bool] = False

    @abstractmethod
    def actions(self, state: State, budget: int, rng: np.random.Generator) -> np.ndarray:
        """Return -1, 0 or 1 for each cell, shape (N,)."""


class End(NamedTuple):
    """What a run comes to: cells, degrees of freedom, and the relative L2 error."""

    cells: float
    unknowns: float
    error: float


class Trace(NamedTuple):
    """Cells, degrees of freedom and relative L2 errors of a run, from the coarsest mesh on, and the last state."""

    cells: np.ndarray
    unknowns: np.ndarray
    errors: np.ndarray
    state: State

    @property
    def end(self) -> End:
        """The last mesh."""
        return End(float(self.cells[-1]), float(self.unknowns[-1]), float(self.errors[-1]))


def deploy(
    policy: Policy,
    state: State,
    budget: int,
    *,
    cycles: int = 1000,
    seed: int = 0,
    visit: Callable[[State], object] | None = None,
) -> Trace:
    """Let a policy act until its mesh would have ``budget`` cells, was there before, or cycles are over.

    Meshes that reach the budget are no part of the trace: all policies have the same budget. ``visit`` is called with
    every other state but the first.

    Examples
    --------
    >>> import gymnasium, sciml.envs
    >>> env = gymnasium.make("sciml/AMR1DAdvection-v0", start="coarse").unwrapped
    >>> _ = env.reset(seed=1)
    >>> trace = deploy(Doerfler(theta=0.5), env.state, 40)
    >>> bool(trace.cells[-1] < 40), bool(trace.errors[-1] < 0.1 * trace.errors[0])
    (True, True)
    """
    _check(policy, state, budget)
    rng = np.random.default_rng(seed)
    states, seen = [state], {state.digest()}
    for _ in range(cycles):
        following = state.acted(policy.actions(state, budget, rng))
        if following is state or len(following) >= budget or (digest := following.digest()) in seen:
            break
        seen.add(digest)
        state = following
        states.append(state)
        if visit is not None:
            visit(state)
    cells, unknowns, errors = zip(*((len(one), one.unknowns, one.error) for one in states), strict=True)
    return Trace(np.array(cells), np.array(unknowns), np.array(errors), state)


def _check(policy: object, state: object, budget: object) -> None:
    if not isinstance(policy, Policy):
        raise ConfigError(f"policy={policy!r}: give a Policy, such as Doerfler(0.5)")
    if not isinstance(state, State):
        raise ConfigError(f"state={state!r}: give a State, such as the environment's after reset")
    if not isinstance(budget, int | np.integer):
        raise ConfigError(f"budget={budget!r}: give an integer")
    if budget <= len(state):
        raise ConfigError(f"budget={budget}: the mesh has {len(state)} cells already, give more")


def within_budget(
    state: State, order: np.ndarray, budget: int, actions: np.ndarray | None = None
) -> np.ndarray:
    """Return the longest beginning of a list of cells whose refinement leaves room in the budget.

    All that balance and conformity refine besides counts, and so does what ``actions``, shape (N,), do to other cells.

    Examples
    --------
    >>> import gymnasium, sciml.envs
    >>> env = gymnasium.make("sciml/AMR1DAdvection-v0", start="coarse").unwrapped
    >>> _ = env.reset(seed=0)
    >>> within_budget(env.state, np.array([3, 1, 6, 2]), budget=11).tolist()
    [3, 1]
    """
    others = np.full(len(state), KEEP) if actions is None else actions

    def fitting(count: int) -> bool:
        tried = others.copy()
        tried[order[:count]] = REFINE
        return len(state.acted(tried)) < budget

    if len(order) and fitting(len(order)):
        return order
    fits, too_many = 0, len(order)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if fitting(middle):
            fits = middle
        else:
            too_many = middle
    return order[:fits]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _check_part(name: str, value: float) -> None:
    if not _is_number(value) or not 0 < value <= 1:
        raise ConfigError(f"{name}={value!r}: it must be in (0, 1]")


def _marks(state: State, cells: np.ndarray) -> np.ndarray:
    actions = np.full(len(state), KEEP)
    actions[cells] = REFINE
    return actions


@policy_registry.register("uniform")
@dataclass(frozen=True)
class Uniform(Policy):
    """All cells."""

    def actions(self, state: State, budget: int, rng: np.random.Generator) -> np.ndarray:
        """Refine everything."""
        return np.full(len(state), REFINE)


@policy_registry.register("random")
@dataclass(frozen=True)
class RandomPolicy(Policy):
    """Each cell with a probability.

    Parameters
    ----------
    share : float
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        _check_part("share", self.share)

    def actions(self, state: State, budget: int, rng: np.random.Generator) -> np.ndarray:
        """Refine at random."""
        return np.where(rng.random(len(state)) < self.share, REFINE, KEEP)


@dataclass(frozen=True)
class _Marking(Policy):
    """Marks by an indicator, those cells left out that are at the level cap, the largest first if not all have room.

    Parameters
    ----------
    theta : float
        In (0, 1].
    indicator : str
        Of `State.indicators`: on trees "jump" (of the solution, over all sides of a cell), "entering" (over those where
        the flow enters), "modes" (the part of the highest degree) and, of diffusion, "flux" (jumps of the derivative);
        on triangles the estimators "residual", "kelly" and "zz". Or "error": that of the exact solution, for oracles.
    coarsen : float
        How much is merged where siblings agree, for problems in time, in [0, 1); by default nothing.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    theta: float = 0.5
    indicator: str = "jump"
    coarsen: float = 0.0

    def __post_init__(self) -> None:
        _check_part("theta", self.theta)
        if not _is_number(self.coarsen) or not 0 <= self.coarsen < 1:
            raise ConfigError(f"coarsen={self.coarsen!r}: it must be in [0, 1)")

    def eta(self, state: State) -> np.ndarray:
        """Return the indicator, shape (N,)."""
        if self.indicator == "error":
            return state.errors
        if self.indicator in state.indicators:
            return state.indicators[self.indicator]
        raise unknown_name("indicator", self.indicator, [*state.indicators, "error"])

    @abstractmethod
    def marks(self, eta: np.ndarray) -> np.ndarray:
        """Return the numbers of the cells that are marked, from an indicator of shape (N,)."""

    @abstractmethod
    def spared(self, eta: np.ndarray) -> np.ndarray:
        """Return the numbers of the cells that may be merged, likewise."""

    def actions(self, state: State, budget: int, rng: np.random.Generator) -> np.ndarray:
        """Refine those marked."""
        eta, actions = self.eta(state), np.full(len(state), KEEP)
        if self.coarsen:
            actions[self.spared(eta)] = COARSEN
        eta = np.where(state.refinable, eta, 0.0)
        marked = self.marks(eta)
        order = marked[np.argsort(-eta[marked], kind="stable")]
        actions[within_budget(state, order, budget, actions)] = REFINE
        return actions


@policy_registry.register("threshold")
@dataclass(frozen=True)
class Threshold(_Marking):
    """All cells above theta times the largest indicator; those below ``coarsen`` times that may be merged."""

    def marks(self, eta: np.ndarray) -> np.ndarray:
        """Mark by the maximum."""
        return mark_maximum(eta, self.theta)

    def spared(self, eta: np.ndarray) -> np.ndarray:
        """Return those below."""
        return np.flatnonzero(eta < self.coarsen * eta.max(initial=0.0))


@policy_registry.register("doerfler")
@dataclass(frozen=True)
class Doerfler(_Marking):
    """The fewest cells that carry a part theta of the sum of squares; the most that carry ``coarsen`` may be merged.

    As bulk(X, Y) of Foucart et al., section 4, but of squares.
    """

    def marks(self, eta: np.ndarray) -> np.ndarray:
        """Mark in bulk."""
        return mark_doerfler(eta, self.theta)

    def spared(self, eta: np.ndarray) -> np.ndarray:
        """Return the most that carry no more."""
        order = np.argsort(eta, kind="stable")
        carried = np.cumsum(eta[order] ** 2)
        return order[(carried <= self.coarsen * carried[-1]) & (carried[-1] > 0)]


@policy_registry.register("fraction")
@dataclass(frozen=True)
class FixedFraction(_Marking):
    """A part theta of the cells, those of the largest indicators; of the smallest ones ``coarsen`` may be merged.

    fixed(X, Y) of Foucart et al., section 4.
    """

    def marks(self, eta: np.ndarray) -> np.ndarray:
        """Mark a fixed part."""
        return mark_fraction(eta, self.theta)

    def spared(self, eta: np.ndarray) -> np.ndarray:
        """Return a fixed part."""
        return np.argsort(eta, kind="stable")[: round(self.coarsen * len(eta))]


@policy_registry.register("true-error")
@dataclass(frozen=True)
class TrueError(Policy):
    """One cell at a time, that of the largest error against the exact solution: an oracle, but a short-sighted one."""

    afresh: ClassVar[bool] = True

    def actions(self, state: State, budget: int, rng: np.random.Generator) -> np.ndarray:
        """Mark the worst cell."""
        return _marks(state, np.array([np.where(state.refinable, state.errors, -1.0).argmax()]))


@policy_registry.register("look-ahead")
@dataclass(frozen=True)
class LookAhead(Policy):
    """One cell at a time, that whose refinement leaves the smallest error for each cell that it costs: an oracle.

    It solves once for each cell of the mesh in every step; of triangles twice, for one bisection halves a triangle in
    one direction only: what it is good for shows in the next.
    """

    afresh: ClassVar[bool] = True

    def actions(self, state: State, budget: int, rng: np.random.Generator) -> np.ndarray:
        """Mark the cell with the best outcome."""
        gains = self.gains(state)
        return (
            _marks(state, np.array([gains.argmax()]))
            if gains.max() > -np.inf
            else _marks(state, np.arange(0))
        )

    @staticmethod
    def gains(state: State) -> np.ndarray:
        """Return the largest log(e / e_new) / log(n_new / n) that refining each cell promises, shape (N,).

        -inf where it cannot be.
        """
        found = np.full(len(state), -np.inf)
        for cell in np.flatnonzero(state.refinable):
            found[cell] = max(
                np.log(state.error / finer.error) / np.log(len(finer) / len(state))
                for finer in state.prospects(int(cell))
            )
        return found


@policy_registry.register("rule")
@dataclass(frozen=True)
class Rule(Policy):
    """Refine what jumps more than the mean, itself or a neighbour, while less than a part of the budget is in use.

    Parameters
    ----------
    most : float
    """

    most: float = 0.9

    def __post_init__(self) -> None:
        if not _is_number(self.most) or not self.most > 0:
            raise ConfigError(f"most={self.most!r}: give a positive number")

    def actions(self, state: State, budget: int, rng: np.random.Generator) -> np.ndarray:
        """Apply the rule."""
        gamma = state.nonconformity
        high = np.maximum(gamma, largest_of_neighbours(state, gamma)) > gamma.mean()
        return np.where(high & (len(state) < self.most * budget), REFINE, KEEP)
