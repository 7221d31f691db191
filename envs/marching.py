"""Policies on problems in time: before each step the mesh is made for what the step brings.

A step is taken on the mesh there is, the policy sees its end, acts, and the step is taken again, until the policy is
content or has acted so often; then time passes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sciml.errors import ConfigError

from .policies import End, Policy, deploy
from .states import State
from .trees import TransportState

__all__ = ["March", "march"]

CYCLES = 4
"""Of actions in a step, by default."""
FIRST_CYCLES = 200
"""Of actions before the first step, whose initial data are known on every mesh."""


class March(NamedTuple):
    """Cells, degrees of freedom and relative L2 errors of every step, and the state at the end of the last one."""

    cells: np.ndarray
    unknowns: np.ndarray
    errors: np.ndarray
    state: State

    @property
    def end(self) -> End:
        """Means over time, and the error at last."""
        return End(float(self.cells.mean()), float(self.unknowns.mean()), float(self.errors[-1]))


def march(
    policy: Policy,
    state: TransportState,
    budget: int,
    steps: int,
    *,
    cycles: int = CYCLES,
    seed: int = 0,
    visit: Callable[[State], object] | None = None,
) -> March:
    """Let a policy refine and coarsen within a budget while time passes.

    Parameters
    ----------
    policy : Policy
    state : TransportState
        At time 0, on the coarsest mesh.
    budget : int
        Cells that may not be reached.
    steps : int
        Of time.
    cycles : int
        How often the policy acts in a step at most; in the first one as often as it likes. Oracles that make a mesh
        for every step anew (`Policy.afresh`) do so in all steps.
    seed : int
        Of policies that draw.
    visit : callable, optional
        Called with the state at the end of every step.

    Raises
    ------
    ConfigError
        If there is no step or no cycle, the state is not of a problem in time, or the budget is no more than the
        coarsest mesh.

    Examples
    --------
    >>> import gymnasium, sciml.envs
    >>> from sciml.envs.policies import Doerfler
    >>> env = gymnasium.make("sciml/AMRTreeAdvection-v0", start="coarse").unwrapped
    >>> _ = env.reset(seed=1)
    >>> found = march(Doerfler(0.5, coarsen=0.01), env.state, budget=120, steps=4)
    >>> bool(found.cells.max() < 120), bool(found.errors[-1] < 0.05)
    (True, True)
    """
    if not isinstance(state, TransportState):
        raise ConfigError(f"state={state!r}: give that of a problem in time, such as env.state after reset")
    for name, value in (("steps", steps), ("cycles", cycles)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ConfigError(f"{name}={value!r}: give an integer, at least 1")
    if not isinstance(policy, Policy):
        raise ConfigError(f"policy={policy!r}: give a Policy, such as Doerfler(0.5, coarsen=0.01)")
    coarsest, passed = state.mesh, []
    for number in range(steps):
        often = budget if policy.afresh else FIRST_CYCLES if number == 0 else cycles
        ended = deploy(policy, state, budget, cycles=often, seed=seed + number).state
        assert isinstance(ended, TransportState)
        passed.append((len(ended), ended.unknowns, ended.error))
        if visit is not None:
            visit(ended)
        state = ended.next()
        if policy.afresh:
            state = state.on(coarsest)
    cells, unknowns, errors = (np.array(part) for part in zip(*passed, strict=True))
    return March(cells, unknowns, errors, ended)
