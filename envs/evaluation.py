"""Evaluation of agents beside classical strategies, at equal numbers of unknowns.

Nothing here is chosen for the agent: problems are drawn from streams that no training sees, and of strategies with
parameters the best values are those of the lowest mean over all problems of a family. A strategy marks until it has as
many cells as the agent, in its last cycle only the foremost of what it would mark; where balance or conformity make it
miss that number, its error is interpolated between two such meshes on both sides. Between distant meshes of large steps
that would flatter it: errors against cells fall ever faster while a feature is found, and chords lie below such curves.

Of problems in time errors after `STEPS` steps are compared, at equal numbers of unknowns in the mean over time: of a
strategy the budget is chosen that leads there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from sciml.errors import ConfigError

from .environments import RefinementEnv
from .marching import March, march
from .policies import (
    Doerfler,
    End,
    FixedFraction,
    LookAhead,
    Policy,
    RandomPolicy,
    Rule,
    Threshold,
    Trace,
    TrueError,
    Uniform,
    deploy,
)
from .states import State
from .trees import TransportState

__all__ = [
    "COLLAPSE",
    "STEPS",
    "Comparison",
    "Outcome",
    "compare_policies",
    "error_at",
    "error_with",
    "errors_in_time",
    "held_out",
    "marked",
    "run_policy",
    "strategies",
]

COLLAPSE = 0.5
"""Part of a budget below which an agent that stops has not done its work."""
THETAS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MOST_FOR_ORACLE = 100
"""Cells up to which looking ahead is affordable: it solves once for every cell."""
BEYOND, NARROWLY = 2.2, 1.1
"""How far strategies run first whose errors are interpolated, over the budget; looking ahead goes in small steps."""
STEPS_FURTHER = 40
"""Cells more than an agent has, among which a strategy's next mesh is looked for."""
SWEPT: dict[str, Callable[..., Policy]] = {
    "doerfler": Doerfler,
    "threshold": Threshold,
    "fraction": FixedFraction,
}
STEPS = 20
"""Of problems in time."""
THETAS_IN_TIME = (0.5, 0.8, 0.95)
"""There budgets, not theta, decide how many cells are refined, but what is merged makes room for them."""
COARSENED = {
    "doerfler": (1e-3, 3e-3, 0.01, 0.03, 0.1),
    "threshold": (0.01, 0.03, 0.1, 0.2),
    "fraction": (0.1, 0.2, 0.4, 0.5),
}
"""What strategies merge in time."""
SEARCHES, FURTHER, CLOSE = 5, 1.02, 1.1
"""Budgets tried for a number of unknowns in time, how far beyond it they aim, and ratios that are close enough."""


def held_out(env: RefinementEnv, count: int, stream: int = 1) -> list[State]:
    """Return the coarsest states of problems that training does not see; stream 0 is for choosing agents.

    Examples
    --------
    >>> import gymnasium, sciml.envs
    >>> env = gymnasium.make("sciml/AMR1DAdvection-v0").unwrapped
    >>> [len(state) for state in held_out(env, 2)]
    [8, 8]
    """
    return [
        env.first_state(env.family.sample(np.random.default_rng([stream, number, 20230])))
        for number in range(count)
    ]


def error_at(trace: Trace, unknowns: float) -> float:
    """Return the error of a run at a number of unknowns, the lowest so far, interpolated in logarithms.

    Beyond its end, that of its last mesh.
    """
    errors = np.minimum.accumulate(trace.errors)
    tiny = 1e-300
    return float(np.exp(np.interp(np.log(unknowns), np.log(trace.unknowns), np.log(errors + tiny))))


def run_policy(policy: Policy, state: State, budget: int) -> Trace | March:
    """Run a policy from the coarsest state on: once, or in time for `STEPS` steps."""
    if isinstance(state, TransportState):
        return march(policy, state, budget, STEPS)
    return deploy(policy, state, budget, cycles=200)


def strategies(env: RefinementEnv, look_ahead: bool | None = None) -> dict[str, Policy]:
    """Return all that agents are compared with by name; of swept ones every parameter.

    In time those that only refine are left out, but for uniform and random refinement and the oracle of true errors.

    Parameters
    ----------
    env : RefinementEnv
    look_ahead : bool, optional
        Whether looking ahead is one of them; by default for budgets of at most 100 cells. Never in time.

    Examples
    --------
    >>> import gymnasium, sciml.envs
    >>> env = gymnasium.make("sciml/AMR1DAdvection-v0", budget=20).unwrapped
    >>> len(strategies(env)), "look-ahead" in strategies(env, look_ahead=False)
    (95, False)
    """
    found: dict[str, Policy] = {"uniform": Uniform(), "random": RandomPolicy(), "true-error": TrueError()}
    if env.kind == TransportState.kind:
        for name, kind in SWEPT.items():
            for indicator in env.indicators:
                for theta in THETAS_IN_TIME:
                    found |= {
                        f"{name} {indicator} {theta} {part}": kind(theta, indicator, part)
                        for part in COARSENED[name]
                    }
        return found
    found["rule"] = Rule(most=np.inf)
    if env.budget <= MOST_FOR_ORACLE if look_ahead is None else look_ahead:
        found["look-ahead"] = LookAhead()
    for name, kind in SWEPT.items():
        for indicator in env.indicators:
            found |= {f"{name} {indicator} {theta}": kind(theta, indicator) for theta in THETAS}
    return found


def marked(env: RefinementEnv, state: State) -> Trace:
    """Return errors against unknowns of the marking by which agents are chosen in training.

    In time of three runs with budgets round that of the environment.
    """
    if isinstance(state, TransportState):
        policy = Doerfler(0.1, env.indicators[0], 0.01)
        budgets = [max(len(state) + 1, round(part * env.budget)) for part in (0.4, 0.7, 1.1)]
        cells, unknowns, errors = zip(*(run_policy(policy, state, most).end for most in budgets), strict=True)
        return Trace(np.array(cells), np.array(unknowns), np.array(errors), state)
    return deploy(Doerfler(0.1, env.indicators[0]), state, 2 * env.budget)


def errors_in_time(
    policy: Policy, state: TransportState, budget: int, unknowns: Sequence[float]
) -> list[float]:
    """Return the errors that a strategy ends with, with numbers of unknowns in the mean over time.

    Budgets are tried, the first of which is given, until the numbers lie between those of two runs close to each other:
    the errors are interpolated in logarithms. Of a strategy that never gets so far it is the least one, of one that has
    more unknowns with every budget that of the fewest.
    """
    runs: dict[int, End] = {}
    return [_error_in_time(policy, state, budget, number, runs) for number in unknowns]


def _error_in_time(
    policy: Policy, state: TransportState, budget: int, unknowns: float, runs: dict[int, End]
) -> float:
    for _ in range(SEARCHES):
        if budget not in runs:
            runs[budget] = run_policy(policy, state, budget).end
        # The budgets of the nearest runs on both sides.
        low = max((tried for tried, end in runs.items() if end.unknowns <= unknowns), default=0)
        high = min((tried for tried, end in runs.items() if end.unknowns >= unknowns), default=0)
        if not high:
            budget = math.ceil(low * FURTHER * unknowns / runs[low].unknowns)
        elif not low:
            budget = max(len(state) + 1, math.floor(high / FURTHER * unknowns / runs[high].unknowns))
        elif runs[high].unknowns > CLOSE * runs[low].unknowns:
            budget = round(math.sqrt(low * high))
        else:
            break
    if low and high:
        numbers, errors = (
            np.log([getattr(runs[k], name) for k in (low, high)]) for name in ("unknowns", "error")
        )
        return float(np.exp(np.interp(np.log(unknowns), numbers, errors)))
    return min(end.error for end in runs.values()) if low else runs[high].error


def error_with(policy: Policy, state: State, cells: int, unknowns: int) -> float:
    """Return the error that a marking strategy has with a number of unknowns, of about so many cells.

    It is that of such a mesh, or interpolated between the nearest two that marking less and more in the last cycle
    gives; of a strategy that marks nothing more, that of its last mesh.
    """
    states, rng = [state], np.random.default_rng(0)
    deploy(policy, state, cells + 1, visit=states.append)
    below = max((one for one in states if one.unknowns <= unknowns), key=lambda one: one.unknowns)
    origin = below
    for more in range(1, STEPS_FURTHER):
        if below.unknowns == unknowns:
            break
        further = origin.acted(policy.actions(origin, len(origin) + 1 + more, rng))
        if further.unknowns > unknowns:
            return _between(below, further, unknowns)
        below = further if further.unknowns > below.unknowns else below
    return below.error


def _between(first: State, second: State, unknowns: int) -> float:
    cells, numbers = (len(first), len(second)), (first.unknowns, second.unknowns)
    trace = Trace(np.array(cells), np.array(numbers), np.array([first.error, second.error]), second)
    return error_at(trace, unknowns)


def _curve(policy: Policy, state: State, budget: int, unknowns: int) -> Trace:
    """Return a run that ends with no fewer unknowns, if the policy gets so far."""
    trace = deploy(policy, state, budget)
    for _ in range(3):
        if trace.unknowns[-1] >= unknowns:
            break
        budget *= 2
        trace = deploy(policy, state, budget)
    return trace


class Outcome(NamedTuple):
    """Of one problem.

    Attributes
    ----------
    ends : list of End
        Of the agents' runs.
    errors : dict of str to list of float
        Of each strategy, with as many unknowns as each agent had in the end.
    """

    ends: list[End]
    errors: dict[str, list[float]]


@dataclass(frozen=True)
class Comparison:
    """Agents and strategies on the same held-out problems.

    Attributes
    ----------
    budget : int
    policies : dict of str to Policy
        The strategies by name.
    ends : list of list of End
        Of each agent, of its run on each problem.
    errors : dict of str to ndarray, shape (agents, problems)
        Of each strategy with its parameter, with as many unknowns as the agent had in the end.
    """

    budget: int
    policies: dict[str, Policy]
    ends: list[list[End]]
    errors: dict[str, np.ndarray]

    def ratios(self, name: str) -> np.ndarray:
        """Return the agents' errors over those of a strategy, shape (agents, problems)."""
        own = np.array([[end.error for end in ends] for ends in self.ends])
        return own / np.maximum(self.errors[name], 1e-300)

    def best(self, *kinds: str) -> str:
        """Return the strategy of some kinds, with its parameter, that has the lowest errors."""
        names = [name for name in self.errors if name.split()[0] in kinds]
        return max(names, key=lambda name: float(np.log(self.ratios(name)).mean()))

    def table(self) -> list[dict[str, Any]]:
        """Return for each strategy the geometric mean of the agents' ratios, and the range of the agents' own means."""
        rows = {name: name for name in self.errors if " " not in name}
        rows |= {f"best {kind}": self.best(kind) for kind in SWEPT}
        rows["best of doerfler and threshold"] = self.best("doerfler", "threshold")
        found = []
        for row, name in rows.items():
            means = np.exp(np.log(self.ratios(name)).mean(axis=1))
            ratio = float(np.exp(np.log(means).mean()))
            found.append(
                {
                    "against": row,
                    "strategy": name,
                    "ratio": ratio,
                    "least": float(means.min()),
                    "largest": float(means.max()),
                }
            )
        return found

    def failures(self) -> dict[str, int]:
        """Return how many runs of agents stopped below `COLLAPSE` of the budget."""
        last = [end.cells for ends in self.ends for end in ends]
        return {
            "runs": len(last),
            "stopped early": int(sum(cells < COLLAPSE * self.budget for cells in last)),
        }


def compare_policies(
    env: RefinementEnv,
    agents: Sequence[Policy],
    *,
    problems: int = 24,
    look_ahead: bool | None = None,
    once: Callable[[int, Callable[[], Outcome]], Outcome] = lambda number, make: make(),
) -> Comparison:
    """Run agents and all strategies on held-out problems of an environment's family, within its budget.

    Parameters
    ----------
    env : RefinementEnv
    agents : sequence of Policy
        Such as those of several seeds.
    problems : int
    look_ahead : bool, optional
        Whether to run that oracle; by default for budgets of at most 100 cells. Not in time.
    once : callable, optional
        Called with the number of each problem and the function that runs it, for the outcome: to keep outcomes, or to
        show progress.

    Returns
    -------
    Comparison
        Its ``table()`` has a row for each strategy, ``failures()`` counts agents that stopped early.

    Raises
    ------
    ConfigError
        If there is no agent or no problem, or the environment's agents do not act on cells.

    Examples
    --------
    >>> import gymnasium, sciml.envs
    >>> env = gymnasium.make("sciml/AMR1DAdvection-v0", budget=20).unwrapped
    >>> found = compare_policies(env, [Doerfler(0.5, "entering")], problems=2, look_ahead=False)
    >>> [(row["against"], round(row["ratio"], 2)) for row in found.table() if row["against"] == "best doerfler"]
    [('best doerfler', 1.0)]
    """
    if not isinstance(env, RefinementEnv):
        raise ConfigError(f"env={env!r}: give an environment whose agents act on cells, unwrapped")
    if not isinstance(agents, Sequence) or not agents or not all(isinstance(one, Policy) for one in agents):
        raise ConfigError(f"agents={agents!r}: give a list of at least one policy")
    if problems < 1:
        raise ConfigError(f"problems={problems}: it must be at least 1")
    named = strategies(env, look_ahead)
    outcomes = [
        once(number, partial(_outcome, agents, named, state, env.budget))
        for number, state in enumerate(held_out(env, problems))
    ]
    ends = [list(runs) for runs in zip(*(found.ends for found in outcomes), strict=True)]
    errors = {name: np.array([found.errors[name] for found in outcomes]).T for name in named}
    return Comparison(env.budget, named, ends, errors)


def _outcome(agents: Sequence[Policy], named: dict[str, Policy], state: State, budget: int) -> Outcome:
    ends, errors = [run_policy(agent, state, budget).end for agent in agents], {}
    for name, policy in named.items():
        found = _errors(name, policy, state, budget, sorted(set(ends)))
        errors[name] = [found[end] for end in ends]
    return Outcome(ends, errors)


def _errors(name: str, policy: Policy, state: State, budget: int, ends: list[End]) -> dict[End, float]:
    """Return a strategy's errors with as many unknowns as agents had."""
    if isinstance(state, TransportState):
        found = errors_in_time(policy, state, budget, [end.unknowns for end in ends])
        return dict(zip(ends, found, strict=True))
    if name.split()[0] in SWEPT:
        return {end: error_with(policy, state, int(end.cells), int(end.unknowns)) for end in ends}
    beyond = NARROWLY if name == "look-ahead" else BEYOND
    curve = _curve(policy, state, int(beyond * budget), int(max(end.unknowns for end in ends)))
    return {end: error_at(curve, end.unknowns) for end in ends}
