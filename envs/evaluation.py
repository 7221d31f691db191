"""Evaluation of agents beside classical strategies, at equal numbers of unknowns.

Nothing here is chosen for the agent: problems are drawn from streams that no training sees, and of strategies with a
parameter the best value is that of the lowest mean over all problems of a family. A strategy marks until it has as
many cells as the agent, in its last cycle only the foremost of what it would mark; where balance or conformity make it
miss that number, its error is interpolated between two such meshes on both sides. Between distant meshes of large steps
that would flatter it: errors against cells fall ever faster while a feature is found, and chords lie below such curves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .environments import RefinementEnv
from .policies import (
    Doerfler,
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

__all__ = ["COLLAPSE", "Comparison", "compare_policies", "error_at", "error_with", "held_out", "strategies"]

COLLAPSE = 0.5
"""Part of a budget below which an agent that stops has not done its work."""
THETAS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MOST_FOR_ORACLE = 100
"""Cells up to which looking ahead is affordable: it solves once for every cell."""
BEYOND, NARROWLY = 2.2, 1.1
"""How far strategies run first whose errors are interpolated, over the budget; looking ahead goes in small steps."""
STEPS_FURTHER = 40
"""Cells more than an agent has, among which a strategy's next mesh is looked for."""
SWEPT: dict[str, Callable[[float, str], Policy]] = {
    "doerfler": Doerfler,
    "threshold": Threshold,
    "fraction": FixedFraction,
}


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


def strategies(env: RefinementEnv, look_ahead: bool = False) -> dict[str, Policy]:
    """Return all that agents are compared with by name; of swept ones every parameter."""
    found: dict[str, Policy] = {
        "uniform": Uniform(),
        "random": RandomPolicy(),
        "rule": Rule(most=np.inf),
        "true-error": TrueError(),
    }
    if look_ahead:
        found["look-ahead"] = LookAhead()
    for name, kind in SWEPT.items():
        for indicator in env.indicators:
            found |= {f"{name} {indicator} {theta}": kind(theta, indicator) for theta in THETAS}
    return found


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


@dataclass(frozen=True)
class Comparison:
    """Agents and strategies on the same held-out problems.

    Attributes
    ----------
    budget : int
    agents : list of list of Trace
        Of each agent, of each problem.
    errors : dict of str to ndarray, shape (agents, problems)
        Of each strategy with its parameter, with as many unknowns as the agent had in the end.
    """

    budget: int
    agents: list[list[Trace]]
    errors: dict[str, np.ndarray]

    def ratios(self, name: str) -> np.ndarray:
        """Return the agents' errors over those of a strategy, shape (agents, problems)."""
        own = np.array([[trace.errors[-1] for trace in runs] for runs in self.agents])
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
        last = [trace.cells[-1] for runs in self.agents for trace in runs]
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
    progress: Callable[[], object] = lambda: None,
) -> Comparison:
    """Run agents and all strategies on held-out problems of an environment's family, within its budget.

    Of problems in time the first step is compared.

    Parameters
    ----------
    env : RefinementEnv
    agents : sequence of Policy
        Such as those of several seeds.
    problems : int
    look_ahead : bool, optional
        Whether to run that oracle; by default for budgets of at most 100 cells.
    progress : callable, optional
        Called after each problem.
    """
    if look_ahead is None:
        look_ahead = env.budget <= MOST_FOR_ORACLE
    named = strategies(env, look_ahead)
    runs: list[list[Trace]] = [[] for _ in agents]
    errors = {name: np.empty((len(agents), problems)) for name in named}
    for number, state in enumerate(held_out(env, problems)):
        for agent, found in zip(agents, runs, strict=True):
            found.append(deploy(agent, state, env.budget, cycles=200))
        ends = [(int(found[-1].cells[-1]), int(found[-1].unknowns[-1])) for found in runs]
        for name, policy in named.items():
            if name.split()[0] in SWEPT:
                known = {end: error_with(policy, state, *end) for end in sorted(set(ends))}
            else:
                beyond = NARROWLY if name == "look-ahead" else BEYOND
                curve = _curve(policy, state, int(beyond * env.budget), max(end[1] for end in ends))
                known = {end: error_at(curve, end[1]) for end in sorted(set(ends))}
            errors[name][:, number] = [known[end] for end in ends]
        progress()
    return Comparison(env.budget, runs, errors)
