"""Problems in time: markings that merge what a feature leaves behind, oracles, and comparisons at equal unknowns."""

from collections.abc import Callable

import gymnasium
import numpy as np
import pytest

from sciml.envs import evaluation
from sciml.envs.agents import Agent, AgentConfig, algorithm, environment
from sciml.envs.evaluation import compare_policies, errors_in_time, held_out, run_policy
from sciml.envs.imitation import STEPS, _problems, wanted_actions
from sciml.envs.marching import march
from sciml.envs.policies import (
    Doerfler,
    FixedFraction,
    Policy,
    RandomPolicy,
    Rule,
    Threshold,
    TrueError,
    Uniform,
    within_budget,
)
from sciml.envs.states import COARSEN, KEEP, REFINE, State
from sciml.envs.trees import TransportState
from sciml.errors import ConfigError

BUDGET = 120


@pytest.fixture(scope="module")
def bump() -> TransportState:
    state = held_out(environment("transport", AgentConfig()), 1)[0]
    assert isinstance(state, TransportState)
    return state


def test_time_passes_within_the_budget(bump: TransportState) -> None:
    visited: list[State] = []
    found = march(Doerfler(0.5, "entering", 0.01), bump, BUDGET, 6, visit=visited.append)
    assert [state.time for state in visited] == pytest.approx(0.05 * np.arange(6))  # type: ignore[attr-defined]
    assert [len(state) for state in visited] == found.cells.tolist()
    assert [state.error for state in visited] == found.errors.tolist()
    assert (found.unknowns == 9 * found.cells).all()
    assert found.cells.min() > 0.8 * BUDGET
    assert found.cells.max() < BUDGET
    assert found.end == (found.cells.mean(), found.unknowns.mean(), found.errors[-1])
    again = march(Doerfler(0.5, "entering", 0.01), bump, BUDGET, 6)
    assert again.errors.tolist() == found.errors.tolist()


def test_markings_that_merge_follow_what_moves(bump: TransportState) -> None:
    ends = {coarsen: march(Doerfler(0.5, "jump", coarsen), bump, 200, 20).end for coarsen in (0.0, 0.01)}
    assert ends[0.01].error < 0.5 * ends[0.0].error
    assert ends[0.01].cells == pytest.approx(ends[0.0].cells, rel=0.03)


def test_oracles_are_no_worse(bump: TransportState) -> None:
    oracle = run_policy(TrueError(), bump, BUDGET).end
    for policy in (Doerfler(0.8, "entering", 0.01), Threshold(0.5, "entering", 0.05), Uniform()):
        assert run_policy(policy, bump, BUDGET).end.error > 0.97 * oracle.error


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        # Squares are 1, 9, 4 and 0.01 of 14.01.
        (Doerfler(0.5, "jump", 0.08), [0, 3]),
        (Doerfler(0.5, "jump", 0.07), [3]),
        (Threshold(0.5, "jump", 0.34), [0, 3]),
        (FixedFraction(0.5, "jump", 0.5), [0, 3]),
        (FixedFraction(0.5, "jump", 0.29), [3]),
        (FixedFraction(0.5, "jump", 0.1), []),
    ],
)
def test_what_may_be_merged(policy: Doerfler, wanted: list[int]) -> None:
    assert sorted(policy.spared(np.array([1.0, 3.0, 2.0, 0.1])).tolist()) == wanted
    if not isinstance(policy, FixedFraction):
        assert len(policy.spared(np.zeros(4))) == 0


def test_what_is_merged_makes_room(bump: TransportState) -> None:
    state = bump.refined(np.array([0]))
    assert len(state) == 19
    actions = np.full(19, KEEP)
    order = np.array([18, 17])
    assert within_budget(state, order, 23, actions).tolist() == [18]
    actions[state.siblings >= 0] = COARSEN
    assert within_budget(state, order, 23, actions).tolist() == [18, 17]
    assert (actions[order] == KEEP).all()


def test_errors_at_equal_unknowns(bump: TransportState) -> None:
    policy = Doerfler(0.5, "entering", 0.01)
    coarse, fine = (run_policy(policy, bump, most).end for most in (BUDGET, 150))
    middle = 1.1 * coarse.unknowns
    found = errors_in_time(policy, bump, BUDGET, [coarse.unknowns, middle])
    assert found[0] == pytest.approx(coarse.error, rel=1e-12)
    assert fine.error < found[1] < coarse.error
    # Between the uniform meshes of 64 and 256 cells; of one that stays at 16 the least error there is.
    (between,) = errors_in_time(Uniform(), bump, BUDGET, [9 * 128])
    ends = [run_policy(Uniform(), bump, most).end.error for most in (65, 257)]
    assert between == pytest.approx(np.sqrt(ends[0] * ends[1]))

    class Idle(Policy):
        def actions(self, state: State, budget: int, rng: np.random.Generator) -> np.ndarray:
            return np.full(len(state), KEEP)

    idle = run_policy(Idle(), bump, BUDGET).end.error
    # With fewer unknowns than the coarsest mesh has, that one.
    assert errors_in_time(Idle(), bump, BUDGET, [1000, 100]) == [idle, idle]


def test_agents_are_compared_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "STEPS", 3)
    monkeypatch.setattr(evaluation, "THETAS_IN_TIME", (0.5,))
    env = environment("transport", AgentConfig(), budget=80)
    policy = Doerfler(0.5, "jump", 0.01)
    found = compare_policies(env, [policy], problems=2)
    # A strategy beside itself.
    assert found.ratios("doerfler jump 0.5 0.01") == pytest.approx(np.ones((1, 2)))
    rows = {row["against"]: row for row in found.table()}
    assert rows["uniform"]["ratio"] < 0.8
    assert rows["best of doerfler and threshold"]["ratio"] >= 1


def test_oracles_of_every_step_are_imitated() -> None:
    env = environment("transport", AgentConfig(), budget=60)
    courses = next(_problems(env, AgentConfig(imitate=1), np.random.default_rng(0)))
    times = [course.states[0].time for course in courses]  # type: ignore[attr-defined]
    assert times == pytest.approx(0.05 * np.arange(STEPS))
    assert all(len(course.states[0]) == 16 for course in courses)
    # Of hundreds of meshes that are kept two have a solution and matrices: the first, and that on which time passed.
    assert all(
        sum("u" in vars(state) for state in course.states) <= 2 < len(course.states) for course in courses
    )
    # What the oracle left behind is to be merged, and what moves on to be refined.
    first, last = courses[0], courses[-1]
    carried = last.states[0].on(first.states[first.target(60)].mesh)  # type: ignore[attr-defined]
    wanted = wanted_actions(carried, last.states[last.target(60)])
    assert (wanted == COARSEN).any()
    assert (wanted == REFINE).any()


def test_siblings_are_merged_by_the_mean_of_what_they_prefer(
    bump: TransportState, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AgentConfig()
    agent = Agent("transport", config, algorithm("transport", config).policy)
    state = bump.refined(np.array([0, 15]))
    found = np.zeros((len(state), 3))
    found[:, 1] = 1.0
    first = np.unique(state.siblings[state.siblings >= 0])
    found[first[0] : first[0] + 4, 0] = [0.9, 1.5, 1.5, 1.5]
    found[first[1] : first[1] + 4, 0] = [-9.0, 1.5, 1.5, 1.5]
    monkeypatch.setattr(Agent, "seen", lambda *arguments: found)
    actions = agent.actions(state, BUDGET, np.random.default_rng(0))
    assert np.flatnonzero(actions == COARSEN).tolist() == (first[0] + np.arange(4)).tolist()
    # One of them that is refined keeps all.
    found[first[0]] = [5.0, 1.0, 6.0]
    actions = agent.actions(state, BUDGET, np.random.default_rng(0))
    assert actions[first[0]] == REFINE
    assert len(state.acted(actions)) == len(state) + 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps=0: give an integer, at least 1"),
        ({"steps": 2.5}, r"steps=2\.5: give an integer"),
        ({"cycles": 0}, "cycles=0: give an integer, at least 1"),
        ({"budget": 16}, "budget=16: the mesh has 16 cells"),
        ({"budget": float("nan")}, "budget=nan: give an integer"),
        ({"budget": "120"}, "budget='120': give an integer"),
        ({"policy": "doerfler"}, "policy='doerfler': give a Policy"),
        ({"state": None}, "state=None: give that of a problem in time"),
    ],
)
def test_what_a_march_refuses(bump: TransportState, change: dict[str, object], message: str) -> None:
    given = {"policy": Uniform(), "state": bump, "budget": BUDGET, "steps": 2, **change}
    with pytest.raises(ConfigError, match=message):
        march(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Doerfler(0.5, coarsen=1.5), r"coarsen=1\.5: it must be in \[0, 1\)"),
        (lambda: Doerfler(0.0), r"theta=0\.0: it must be in \(0, 1\]"),
        (lambda: Threshold(float("nan")), "theta=nan: it must be in"),
        (lambda: FixedFraction("a"), "theta='a': it must be in"),  # type: ignore[arg-type]
        (lambda: RandomPolicy(2), r"share=2: it must be in \(0, 1\]"),
        (lambda: RandomPolicy(0.0), r"share=0\.0: it must be in \(0, 1\]"),
        (lambda: Rule(-1), "most=-1: give a positive number"),
    ],
)
def test_parameters_of_policies(make: Callable[[], Policy], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_what_a_comparison_refuses() -> None:
    env = environment("transport", AgentConfig())
    for agents in ([], Uniform(), ["agent"]):
        with pytest.raises(ConfigError, match="give a list of at least one policy"):
            compare_policies(env, agents)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="problems=0"):
        compare_policies(env, [Uniform()], problems=0)
    with pytest.raises(ConfigError, match="whose agents act on cells"):
        compare_policies(gymnasium.make("sciml/MarkingTheta-v0").unwrapped, [Uniform()])  # type: ignore[arg-type]
