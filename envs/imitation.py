"""Learning from oracles: a network classifies cells by what an oracle's mesh has in their place.

An oracle, which may look at exact solutions, refines from the coarsest mesh on; of its meshes the last one within a
budget is what to aim at. A cell that is coarser than that is to be refined, one that is finer to be merged, others are
right. The network sees no more than the agent: the cell, its surroundings and the part of the budget in use. After
the oracle's own meshes it is shown those where its own decisions lead, with the right answers (Ross, Gordon and
Bagnell, AISTATS 2011).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .agents import Agent, AgentConfig, environment, preferences
from .environments import RefinementEnv
from .marching import CYCLES
from .policies import deploy, policy_registry
from .states import COARSEN, KEEP, REFINE, State
from .trees import TransportState

if TYPE_CHECKING:
    from torch import nn

__all__ = ["imitate", "wanted_actions"]

OVER, UNDER = 1.5, 0.35
"""Budgets of the examples, over the environment's: up to, and from, with uniform logarithms."""
OWN_MESHES, RANDOM_MESHES, VISITED = 12, 6, 8
"""Examples of each problem: meshes of the oracle, random ones, and in each round of the agent's."""
ROUNDS, EPOCHS, BATCH, RATE = 2, 20, 512, 2e-3
STEPS = 6
"""Of problems in time; examples are divided among them."""


def wanted_actions(state: State, target: State) -> np.ndarray:
    """Return for each cell what leads to the target mesh: -1, 0 or 1, shape (N,)."""
    levels = target.levels[target.find(state.centres)]
    return np.where(levels > state.levels, REFINE, np.where(levels < state.levels, COARSEN, KEEP))


@dataclass(frozen=True)
class Course:
    """An oracle's meshes of one problem, from the coarsest on."""

    states: list[State]

    def keep(self, state: State) -> None:
        """Add a mesh; its solution is computed again where it is needed, for few of many are."""
        self.states.append(state.fresh())

    def target(self, budget: int) -> int:
        """Return the number of the last mesh within a budget, at least the first."""
        return max(number for number, state in enumerate(self.states) if number == 0 or len(state) < budget)


def _problems(env: RefinementEnv, config: AgentConfig, rng: np.random.Generator) -> Iterator[list[Course]]:
    """Yield an oracle's meshes of each problem, one course for every step in time."""
    oracle, most = policy_registry[config.oracle](), int(OVER * env.budget)
    for _ in range(config.imitate):
        env.reset(seed=int(rng.integers(2**31)), options={"start": "coarse"})
        state, courses = env.state, []
        for _ in range(_steps(state)):
            course = Course([state])
            deploy(oracle, state, most, visit=course.keep)
            courses.append(course)
            if isinstance(state, TransportState):
                # Time passes on the oracle's mesh, and the next course begins from the coarsest one.
                moved = course.states[course.target(env.budget)]
                assert isinstance(moved, TransportState)
                state = moved.next().on(state.mesh)
        yield courses


def _steps(state: State) -> int:
    return STEPS if isinstance(state, TransportState) else 1


class _Examples:
    """Observations and the right actions, in the numbers of the environment's."""

    def __init__(self, env: RefinementEnv) -> None:
        self.env = env
        number = {action: place for place, action in enumerate(env.actions)}
        # Where cells cannot be merged, those that are too fine are kept.
        self.numbers = np.array([number.get(action, number[KEEP]) for action in (COARSEN, KEEP, REFINE)])
        self.observations: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []

    def add(self, state: State, course: Course, budget: int) -> None:
        wanted = wanted_actions(state, course.states[course.target(budget)])
        self.observations.append(self.env.observe(state, len(state) / budget))
        self.actions.append(self.numbers[wanted - COARSEN])


def imitate(
    kind: str,
    config: AgentConfig,
    network: "nn.Module",
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, float]:
    """Teach a network the oracle's decisions; return how often it agrees with them, and on how many cells.

    Parameters
    ----------
    kind : str
    config : AgentConfig
    network : Module
        Policy of stable-baselines3; it is changed.
    progress : callable, optional
        Told what is done at the moment.

    Raises
    ------
    ConfigError
        If there is no such oracle.
    """
    import torch

    env = environment(kind, config)
    rng = np.random.default_rng([config.seed, 1])
    generator = torch.Generator().manual_seed(config.seed)
    examples, problems = _Examples(env), []
    for courses in _problems(env, config, rng):
        problems.append(courses)
        progress(f"oracle meshes of problem {len(problems)} of {config.imitate}")
        for before, course in zip([None, *courses], courses, strict=False):
            coarsest, each = course.states[0], len(courses)
            for _ in range(OWN_MESHES // each):
                budget = _budget(env, coarsest, rng)
                last = course.target(budget)
                examples.add(course.states[int(rng.integers(last + 1))], course, budget)
                if before is not None:
                    examples.add(_carried(before, coarsest, budget), course, budget)
            for _ in range(RANDOM_MESHES // each):
                budget = _budget(env, coarsest, rng)
                examples.add(_scattered(coarsest, budget, rng), course, budget)
    agreement = _fit(network, examples, generator)
    agent = Agent(kind, config, network)
    for number in range(ROUNDS):
        for place, courses in enumerate(problems):
            progress(f"round {number + 1} of {ROUNDS}, problem {place + 1} of {len(problems)}")
            budget, state = _budget(env, courses[0].states[0], rng), courses[0].states[0]
            for course in courses:
                visited = [] if course is courses[0] else [state]
                cycles = 60 if course is courses[0] else CYCLES
                deploy(agent, state, budget, cycles=cycles, visit=visited.append)
                for one in visited[-VISITED:]:
                    examples.add(one, course, budget)
                if isinstance(state, TransportState):
                    ended = visited[-1] if visited else state
                    assert isinstance(ended, TransportState)
                    state = ended.next()
        agreement = _fit(network, examples, generator)
    return {"agreement": agreement, "cells": float(sum(map(len, examples.actions)))}


def _budget(env: RefinementEnv, coarsest: State, rng: np.random.Generator) -> int:
    low, high = max(UNDER * env.budget, len(coarsest) + 2), max(OVER * env.budget, len(coarsest) + 3)
    return int(np.exp(rng.uniform(np.log(low), np.log(high))))


def _carried(before: Course, state: State, budget: int) -> State:
    """Return the state on the oracle's mesh for the step before."""
    assert isinstance(state, TransportState)
    return state.on(before.states[before.target(budget)].mesh)  # type: ignore[attr-defined]


def _scattered(state: State, budget: int, rng: np.random.Generator) -> State:
    target = rng.uniform(len(state), max(0.9 * budget, len(state)))
    while len(state) < target:
        cells = np.unique(rng.integers(len(state), size=1 + len(state) // 16))
        finer = state.refined(cells[state.refinable[cells]])
        if len(finer) >= budget or finer is state:
            break
        state = finer
    return state


def _fit(network: "nn.Module", examples: _Examples, generator: object) -> float:
    """Minimise the cross entropy; return the part of the cells on which the network is right."""
    import torch

    x = torch.from_numpy(np.concatenate(examples.observations))
    y = torch.from_numpy(np.concatenate(examples.actions)).long()
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    steps = max(1, EPOCHS * len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (BATCH,), generator=generator)  # type: ignore[call-overload]
        loss = torch.nn.functional.cross_entropy(preferences(network, x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return float((preferences(network, x).argmax(dim=1) == y).float().mean())
