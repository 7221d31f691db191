"""Evaluation of agents beside classical strategies, at equal numbers of unknowns.

Nothing here is chosen for the agent: problems are drawn from streams that no training sees; classical strategies run
with every parameter of a sweep and beyond the agent's budget, so that their errors are known on both sides of its mesh,
between which they are interpolated in logarithms; the best parameter of each is that of the lowest mean over all
problems of a family. Ratios are geometric means over problems.
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

__all__ = ["Comparison", "compare_policies", "error_at", "held_out", "strategies"]

THETAS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MOST_FOR_ORACLE = 100
"""Cells up to which looking ahead is affordable: it solves once for every cell."""
BEYOND = 2.2
"""How far classical strategies run, over the budget: uniform refinement passes it, too."""
SWEPT = {"doerfler": Doerfler, "threshold": Threshold, "fraction": FixedFraction}


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
    """Return the error of a run at a number of unknowns, the lowest so far, interpolated in logarithms."""
    errors = np.minimum.accumulate(trace.errors)
    tiny = 1e-300
    return float(np.exp(np.interp(np.log(unknowns), np.log(trace.unknowns), np.log(errors + tiny))))


def strategies(env: RefinementEnv, look_ahead: bool) -> dict[str, Policy]:
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


@dataclass(frozen=True)
class Comparison:
    """Agents and strategies on the same held-out problems.

    Attributes
    ----------
    budget : int
    agents : list of list of Trace
        Of each agent, of each problem.
    curves : dict of str to list of Trace
        Of each strategy, with its parameter.
    """

    budget: int
    agents: list[list[Trace]]
    curves: dict[str, list[Trace]]

    def ratios(self, name: str, agent: int) -> np.ndarray:
        """Return an agent's errors over those of a strategy at as many unknowns, one for each problem."""
        return np.array(
            [
                own.errors[-1] / max(error_at(other, own.unknowns[-1]), 1e-300)
                for own, other in zip(self.agents[agent], self.curves[name], strict=True)
            ]
        )

    def best(self, *kinds: str) -> str:
        """Return the swept strategy, with its parameter, that is best against all agents together."""
        means = {
            name: np.mean([np.log(self.ratios(name, agent)).mean() for agent in range(len(self.agents))])
            for name in self.curves
            if name.split()[0] in kinds
        }
        return max(means, key=means.__getitem__)

    def table(self) -> list[dict[str, Any]]:
        """Return for each strategy the geometric means of the agents' ratios, and their range."""
        rows = {name: name for name in self.curves if " " not in name}
        rows |= {f"best {kind}": self.best(kind) for kind in SWEPT}
        rows["best of doerfler and threshold"] = self.best("doerfler", "threshold")
        found = []
        for row, name in rows.items():
            means = [
                float(np.exp(np.log(self.ratios(name, agent)).mean())) for agent in range(len(self.agents))
            ]
            found.append(
                {
                    "against": row,
                    "strategy": name,
                    "ratio": float(np.exp(np.mean(np.log(means)))),
                    "least": min(means),
                    "largest": max(means),
                }
            )
        return found

    def failures(self) -> dict[str, int]:
        """Return how many runs of agents stopped below half of the budget."""
        last = [trace.cells[-1] for runs in self.agents for trace in runs]
        return {"runs": len(last), "stopped early": int(sum(cells < 0.5 * self.budget for cells in last))}


def compare_policies(
    env: RefinementEnv,
    agents: Sequence[Policy],
    *,
    problems: int = 24,
    look_ahead: bool | None = None,
    start: Callable[[State], State] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Run agents and all strategies on held-out problems of an environment's family, within its budget.

    Parameters
    ----------
    env : RefinementEnv
    agents : sequence of Policy
        Such as those of several seeds.
    problems : int
    look_ahead : bool, optional
        Whether to run that oracle; by default for budgets of at most 100 cells.
    start : callable, optional
        What makes of the coarsest state the one that agents begin from.
    progress : callable, optional
        Told what is done at the moment.
    """
    if look_ahead is None:
        look_ahead = env.budget <= MOST_FOR_ORACLE
    named = strategies(env, look_ahead)
    runs: list[list[Trace]] = [[] for _ in agents]
    curves: dict[str, list[Trace]] = {name: [] for name in named}
    for number, state in enumerate(held_out(env, problems)):
        progress(f"problem {number + 1} of {problems}")
        for agent, found in zip(agents, runs, strict=True):
            found.append(deploy(agent, state if start is None else start(state), env.budget, cycles=200))
        for name, policy in named.items():
            most = env.budget if name == "look-ahead" else int(BEYOND * env.budget)
            curves[name].append(deploy(policy, state, most))
    return Comparison(env.budget, runs, curves)
