"""Policies: the loop that compares them, and that oracles are oracles."""

import gymnasium
import numpy as np
import pytest

import sciml.envs  # noqa: F401
from sciml.envs.policies import (
    Doerfler,
    FixedFraction,
    LookAhead,
    RandomPolicy,
    Rule,
    Threshold,
    Trace,
    TrueError,
    Uniform,
    deploy,
    policy_registry,
)
from sciml.envs.states import REFINE, State
from sciml.errors import ConfigError

KINDS = {
    "advection": "sciml/AMR1DAdvection-v0",
    "poisson": "sciml/AMR1DPoisson-v0",
    "triangles": "sciml/AMRTriPoisson-v0",
}


def problem(family: str, seed: int) -> State:
    env = gymnasium.make(KINDS[family.split("-")[0]], family=family, start="coarse").unwrapped
    env.reset(seed=seed)
    return env.state


def error_at(trace: Trace, cells: float) -> float:
    """Of a curve of errors, the lowest so far, at a number of cells."""
    return float(
        np.exp(np.interp(np.log(cells), np.log(trace.cells), np.log(np.minimum.accumulate(trace.errors))))
    )


@pytest.mark.parametrize("name", [name for name in policy_registry if name != "look-ahead"])
def test_policies_stay_within_the_budget_and_refine_only(name: str) -> None:
    state = problem("advection-tanh", 0)
    trace = deploy(policy_registry[name](), state, 60, cycles=100)
    assert trace.cells[-1] < 60
    assert (np.diff(trace.cells) > 0).all()
    assert len(trace.cells) == len(trace.errors) > 1
    again = deploy(policy_registry[name](), state, 60, cycles=100)
    assert again.state.digest() == trace.state.digest()


def test_marks_are_those_of_their_definitions() -> None:
    state = problem("advection-steps", 1).acted(np.full(8, REFINE))
    eta = state.indicators["jump"]
    rng = np.random.default_rng(0)
    assert (Threshold(0.5).actions(state, 99, rng) == (eta > 0.5 * eta.max())).all()
    carried = (eta[Doerfler(0.7).actions(state, 99, rng) == REFINE] ** 2).sum()
    assert carried >= 0.7 * (eta**2).sum()
    assert FixedFraction(0.25).actions(state, 99, rng).sum() == 4
    assert Uniform().actions(state, 99, rng).sum() == 16
    worst = TrueError().actions(state, 99, rng)
    assert worst.argmax() == state.errors.argmax()
    assert worst.sum() == 1
    assert Rule().actions(state, 17, rng).sum() == 0
    assert 0 < RandomPolicy(0.5).actions(state, 99, rng).sum() < 16


def test_looking_ahead_takes_the_best_of_all_single_refinements() -> None:
    state = problem("poisson-tanh", 2).acted(np.full(8, REFINE))
    outcomes = [state.changed(cell, REFINE).error for cell in range(len(state))]
    chosen = LookAhead().actions(state, 99, np.random.default_rng(0))
    assert chosen.argmax() == np.argmin(outcomes)


@pytest.mark.parametrize("family", ["advection-tanh", "advection-gaussians", "poisson-gaussians"])
def test_no_classical_marking_beats_looking_ahead_on_average(family: str) -> None:
    """If one does, the oracle or the comparison is broken, or its level cap; it happened."""
    budget, ratios = 40, []
    for seed in range(4):
        state = problem(family, seed)
        oracle = deploy(LookAhead(), state, budget)
        for policy in (Doerfler(0.3), Doerfler(0.3, "modes"), Threshold(0.5), TrueError(), Rule(), Uniform()):
            trace = deploy(policy, state, budget)
            ratios.append((error_at(trace, trace.cells[-1]) / error_at(oracle, trace.cells[-1]), policy))
    kinds = {type(policy) for _, policy in ratios}
    for kind in kinds:
        mean = np.exp(np.mean([np.log(ratio) for ratio, policy in ratios if type(policy) is kind]))
        assert mean > 0.97, f"{kind.__name__} has {mean:.2f} times the error of looking ahead"


@pytest.mark.parametrize(("family", "seeds"), [("triangles-fronts", 4), ("triangles-peaks", 2)])
def test_nor_on_triangles_where_one_bisection_says_little(family: str, seeds: int) -> None:
    budget, ratios = 72, []
    for seed in range(seeds):
        state = problem(family, seed)
        oracle = deploy(LookAhead(), state, budget)
        for policy in (Doerfler(0.1, "residual"), Threshold(0.5, "zz"), TrueError(), Uniform()):
            trace = deploy(policy, state, budget)
            ratios.append((error_at(trace, trace.cells[-1]) / error_at(oracle, trace.cells[-1]), policy))
    for kind in {type(policy) for _, policy in ratios}:
        mean = np.exp(np.mean([np.log(ratio) for ratio, policy in ratios if type(policy) is kind]))
        assert mean > 0.97, f"{kind.__name__} has {mean:.2f} times the error of looking ahead"


def test_cells_at_the_cap_are_not_marked_again() -> None:
    """The trap of section 5.6: one cell split for ever while the front waits."""
    # Gaussians: a front's tails are constant to the last bit, and cells without any jump are never marked.
    env = gymnasium.make(
        KINDS["advection"], family="advection-gaussians", start="coarse", level_cap=3
    ).unwrapped
    env.reset(seed=0)
    for policy in (Threshold(0.9), Doerfler(0.1), FixedFraction(0.05), TrueError(), LookAhead()):
        trace = deploy(policy, env.state, 65)
        assert trace.state.levels.max() == 3
        assert trace.cells[-1] == 64


def test_bad_input_is_named() -> None:
    state, rng = problem("advection-tanh", 0), np.random.default_rng(0)
    with pytest.raises(ConfigError, match="budget=8"):
        deploy(Uniform(), state, 8)
    with pytest.raises(ConfigError, match="did you mean 'jump'"):
        Doerfler(0.5, "jmp").actions(state, 40, rng)
    with pytest.raises(ConfigError, match="theta=2"):
        Threshold(2.0).actions(state, 40, rng)
