"""Environments: Gymnasium's and stable-baselines3's rules, seeds, invariances, rewards, bad input."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import sciml.envs  # noqa: F401
from sciml.envs.environments import RefinementEnv
from sciml.envs.families import family_of, family_registry
from sciml.envs.observations import RichObservation, StandardObservation
from sciml.envs.policies import Uniform, deploy
from sciml.envs.rewards import OVERRUN, ErrorDrop, LogErrorDrop, PublishedReward
from sciml.envs.states import COARSEN, KEEP, REFINE
from sciml.envs.trees import AdvectionState, DiffusionState
from sciml.errors import ConfigError
from sciml.solvers.dg import AdvectionProblem, DiffusionProblem

IDS = [
    "sciml/AMR1DAdvection-v0",
    "sciml/AMR1DPoisson-v0",
    "sciml/AMRTreeAdvection-v0",
    "sciml/AMRTriPoisson-v0",
]
MARKING = "sciml/MarkingTheta-v0"


def made(name: str, **options: object) -> RefinementEnv:
    env = gymnasium.make(name, **options).unwrapped
    assert isinstance(env, RefinementEnv)
    return env


@pytest.mark.parametrize("name", [*IDS, MARKING])
def test_gymnasium_and_stable_baselines_find_nothing_wrong(name: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(name, render_mode="rgb_array").unwrapped, skip_render_check=False)
        check_for_sb3(gymnasium.make(name).unwrapped, warn=True)
        for observation in () if name == MARKING else ("rich", "raw"):
            check_for_sb3(made(name, observation=observation), warn=True)


def walk(name: str, seed: int, steps: int = 60, **options: object) -> list[str]:
    env = made(name, **options)
    env.reset(seed=seed)
    rng, digests = np.random.default_rng(seed), [env.digest()]
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(int(rng.integers(env.action_space.n)))
        digests.append(f"{env.digest()} {env.cell}")
        if terminated or truncated:
            env.reset()
    return digests


@pytest.mark.parametrize("name", IDS)
def test_a_seed_decides_everything(name: str) -> None:
    first = walk(name, 3)
    np.random.default_rng().random()
    assert walk(name, 3) == first
    assert walk(name, 4) != first
    assert len(set(first)) > 20


@pytest.mark.parametrize("name", [IDS[0], IDS[3]])
def test_processes_see_the_same_meshes(name: str) -> None:
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    seen = []
    for kind, options in ((DummyVecEnv, {}), (SubprocVecEnv, {"start_method": "spawn"})):
        env = make_vec_env(f"sciml.envs:{name}", n_envs=2, seed=7, vec_env_cls=kind, vec_env_kwargs=options)
        env.reset()
        rng, digests = np.random.default_rng(0), []
        for _ in range(25):
            env.step(rng.integers(env.action_space.n, size=2))
            digests.append(tuple(env.env_method("digest")))
        env.close()
        seen.append(digests)
    assert seen[0] == seen[1]
    assert len({d for pair in seen[0] for d in pair}) > 10


@dataclass(frozen=True)
class Scaled:
    function: Callable
    factor: float
    mirrored: bool = False

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.factor * self.function(1 - x if self.mirrored else x)


def variants(problem: AdvectionProblem | DiffusionProblem, factor: float, mirrored: bool) -> object:
    """The problem whose solution is so many times as large, or the mirror image."""
    if isinstance(problem, DiffusionProblem):
        return replace(
            problem,
            source=Scaled(problem.source, factor, mirrored),
            boundary=Scaled(problem.boundary, factor, mirrored),
        )
    turned = -1.0 if mirrored else 1.0
    return replace(
        problem,
        velocity=(turned * problem.velocity[0],),
        source=Scaled(problem.source, factor, mirrored),
        inflow=Scaled(problem.inflow, factor, mirrored),
    )


@given(st.integers(0, 10**6), st.sampled_from([-1.0, 1e-3, 250.0]), st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_observations_do_not_know_sign_size_and_side(
    seed: int, factor: float, mirrored: bool, diffusion: bool
) -> None:
    rng = np.random.default_rng(seed)
    kind = "poisson" if diffusion else "advection"
    problem, mesh = family_of(f"{kind}-gaussians", kind).sample(rng)
    state_type = DiffusionState if diffusion else AdvectionState
    state = state_type(problem, mesh)
    twin = state_type(variants(problem, factor, mirrored), mesh)
    for _ in range(10):
        cell = int(rng.integers(len(state)))
        twin = twin.changed(len(state) - 1 - cell if mirrored else cell, REFINE)
        state = state.changed(cell, REFINE)
    for observation in (StandardObservation(), RichObservation()):
        seen, other = observation(state, 0.3), observation(twin, 0.3)
        other = other[::-1] if mirrored else other
        # Logarithms of jumps that are rounding errors are noise.
        real = state.nonconformity > 1e-9 * state.deviation
        assert np.allclose(seen[real], other[real], atol=2e-3)


def test_the_published_observation_is_the_papers() -> None:
    env = made(IDS[0], observation="raw")
    env.reset(seed=2)
    gamma = env.state.nonconformity
    seen = env.all_observations()
    assert np.allclose(seen[3], [gamma[3], gamma[2], gamma[4], gamma.mean(), len(env.state) / env.budget])
    assert seen[0, 1] == seen[-1, 2] == 0.0


def test_refining_and_coarsening_back_cancel_but_for_nothing() -> None:
    env = made(IDS[0], start="coarse", budget=60)
    env.reset(seed=5)
    start = env.state
    env.cell = 3
    _, up, _, _, info = env.step(2)
    assert info["action_applied"] == REFINE
    assert info["cells"] == 9
    env.cell = 4
    _, down, _, _, info = env.step(0)
    assert info["action_applied"] == COARSEN
    assert env.state.digest() == start.digest()
    assert up == pytest.approx(-down, rel=1e-9)
    # A cell without a parent: nothing.
    _, reward, _, _, info = env.step(0)
    assert (reward, info["action_applied"]) == (0.0, KEEP)


def test_the_published_reward_number_by_number() -> None:
    env = made(IDS[0], start="coarse", budget=40)
    env.reset(seed=5)
    before = env.state
    env.cell = 4
    _, reward, *_ = env.step(2)
    x = np.linspace(0, 1, 200_001)[:-1, None]
    change = np.abs(env.state.u(x) - before.u(x)).mean()
    cost = [math.sqrt(n / 40) / (1 - n / 40) for n in (8, 9)]
    wanted = math.log(change + 1e-16) - math.log(1e-16) - 25 * (cost[1] - cost[0])
    assert reward == pytest.approx(wanted, abs=0.01)
    hortative = PublishedReward(barrier="hortative")
    assert hortative.cost(0.25) == pytest.approx(1 / 3 - 1)
    assert hortative.cost(0.01) < 0 < hortative.cost(0.9)


def test_rewards_by_the_true_error() -> None:
    env = made(IDS[0], reward="error-drop", start="coarse")
    env.reset(seed=5)
    before = env.state.error
    env.cell = 4
    _, reward, *_ = env.step(2)
    assert reward == pytest.approx(before - env.state.error)
    state = env.state
    finer = state.changed(4, REFINE)
    price = LogErrorDrop(price=2.0)(state, finer, REFINE, 0.2, 0.3)
    assert price == pytest.approx(math.log(state.error / finer.error) - 0.2)
    assert ErrorDrop(3.0)(state, finer, REFINE, 0.2, 0.3) == pytest.approx(3 * (state.error - finer.error))


def test_using_up_the_budget_ends_the_episode() -> None:
    env = made(IDS[0], start="coarse", budget=11)
    env.reset(seed=0)
    ends = []
    for _ in range(4):
        observation, reward, terminated, truncated, _ = env.step(2)
        ends.append((reward, terminated, truncated))
        if terminated:
            break
    assert ends[-1] == (OVERRUN, True, False)
    assert env.observation_space.contains(observation)
    assert all(not end[1] for end in ends[:-1])


def test_idling_and_long_episodes_are_cut_off() -> None:
    env = made(IDS[0], idle_limit=5)
    env.reset(seed=0)
    assert [env.step(1)[3] for _ in range(5)] == [False] * 4 + [True]
    env = made(IDS[0], max_steps=3)
    env.reset(seed=0)
    assert [env.step(1)[3] for _ in range(3)] == [False, False, True]


def test_cells_at_the_level_cap_stay() -> None:
    env = made(IDS[0], level_cap=2, start="coarse", budget=500)
    env.reset(seed=0)
    for _ in range(5):
        env.apply(np.full(len(env.state), 2))
    assert len(env.state) == 32
    assert env.action_masks().tolist() == [True, True, False]


def test_acting_on_all_cells_at_once() -> None:
    env = made(IDS[0], start="coarse")
    env.reset(seed=1)
    env.apply(np.array([2, 1, 1, 1, 1, 1, 1, 2]))
    assert env.state.levels.tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    # One goes, one comes.
    env.apply(np.array([0, 0, 1, 1, 1, 2, 1, 1, 1, 1]))
    assert env.state.levels.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 1, 1]
    assert env.all_observations().shape == (10, 9)
    # Siblings that disagree stay.
    env.apply(np.array([1, 1, 1, 1, 0, 1, 1, 1, 1, 1]))
    assert len(env.state) == 10


def test_time_passes_in_transport() -> None:
    env = made(IDS[2], most_actions=3, start="coarse")
    env.reset(seed=0)
    times = []
    for _ in range(30):
        env.step(1)
        times.append(env.state.time)
    steps = np.diff(times)
    assert times[-1] > 0.4
    assert set(np.round(steps, 12)) == {0.0, 0.05}
    waits = np.diff(np.flatnonzero(steps > 0))
    assert set(waits) == {1, 2, 3}


def test_finer_meshes_make_smaller_errors() -> None:
    for name in IDS:
        env = made(name, start="coarse")
        env.reset(seed=0)
        coarse = env.state.error
        env.apply(np.full(len(env.state), len(env.actions) - 1))
        assert env.state.error < 0.75 * coarse


@pytest.mark.parametrize("name", list(family_registry))
def test_families_draw_problems_that_are_solved(name: str) -> None:
    """Exact solutions are exact: uniform refinement converges to them."""
    family = family_registry[name]()
    env = made(
        dict(zip(("advection", "poisson", "transport", "triangles"), IDS, strict=True))[family.kind],
        family=name,
        budget=10**6,
    )
    # Bisecting twice halves the edges: of corners with an angle of 1.9 pi the error is 2^(-2 / 1.9) = 0.48 times.
    rounds, factor = {"transport": (4, 0.35), "triangles": (9, 0.55)}.get(family.kind, (6, 0.35))
    for seed in range(3):
        env.reset(seed=seed, options={"start": "coarse"})
        errors = []
        for _ in range(rounds):
            errors.append(env.state.error)
            env.apply(np.full(len(env.state), len(env.actions) - 1))
        assert errors[-1] < (0.05 if family.kind in ("transport", "triangles") else 1e-3)
        assert errors[-1] < factor * errors[-3 if family.kind == "triangles" else -2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": 8}, "budget=8: the coarsest mesh has 8 cells"),
        ({"budget": -3}, "budget=-3"),
        ({"family": "advection-tanhh"}, "did you mean 'advection-tanh'"),
        ({"family": "poisson-tanh"}, "of kind 'poisson', not 'advection'"),
        ({"reward": "publishd"}, "did you mean 'published'"),
        ({"observation": "row"}, "unknown observation"),
        ({"start": "fine"}, "start='fine'"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"level_cap": 0}, "level_cap=0"),
        ({"render_mode": "human"}, "render_mode='human'"),
    ],
)
def test_bad_options_are_named(options: dict, words: str) -> None:
    from sciml.envs.environments import AdvectionEnv

    with pytest.raises(ConfigError, match=words):
        AdvectionEnv(**options)


def test_bad_options_of_a_reset_and_types_are_named() -> None:
    from sciml.envs.environments import AdvectionEnv

    env = made(IDS[0])
    for options, words in (
        ({"foo": 1}, "options="),
        ({"start": "bla"}, "start='bla'"),
        ({"sample": 3}, "sample.*Sample"),
    ):
        with pytest.raises(ConfigError, match=words):
            env.reset(seed=0, options=options)
    for wrong, words in (
        ({"budget": "a"}, "budget='a'"),
        ({"order": -1}, "order=-1"),
        ({"family": 3}, "family=3"),
    ):
        with pytest.raises(ConfigError, match=words):
            AdvectionEnv(**wrong)


def test_bad_actions_are_named() -> None:
    env = made(IDS[0])
    env.reset(seed=0)
    for action in (3, -1, 0.5, None):
        with pytest.raises(ConfigError, match="action="):
            env.step(action)
    n = len(env.state)
    for actions in (np.ones(n - 1, dtype=int), np.ones(n), np.full(n, 3)):
        with pytest.raises(ConfigError, match="actions"):
            env.apply(actions)
    with pytest.raises(ConfigError, match="gamma_c=-1"):
        PublishedReward(gamma_c=-1.0)
    with pytest.raises(ConfigError, match="barrier"):
        PublishedReward(barrier="high")


def test_the_budget_of_triangles_counts_what_conformity_adds() -> None:
    env = made(IDS[3], start="coarse")
    env.reset(seed=0)
    grown = []
    for cell in (0, 5, 9, 3):
        before = len(env.state)
        env.cell = cell
        *_, info = env.step(1)
        grown.append(info["cells"] - before)
        assert info["used"] == len(env.state) / env.budget
    assert max(grown) > 1
    assert env.action_masks().tolist() == [True, True]


def test_change_of_linear_functions_is_integrated_exactly() -> None:
    from sciml.envs.triangles import _mean_of_modulus

    rng = np.random.default_rng(0)
    corners = rng.normal(size=(200, 3))
    corners[:5] = [[0, 0, 0], [1, -1, 0], [0, 0, -2], [-1, 0, 0], [1, 2, 3]]
    n = 400
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    inside = i + j < n
    a, b = (i[inside] + 1 / 3) / n, (j[inside] + 1 / 3) / n
    sampled = np.abs(corners @ np.stack([1 - a - b, a, b])).mean(axis=1)
    assert np.allclose(_mean_of_modulus(corners.T), sampled, rtol=5e-3, atol=1e-9)


def test_setting_theta_trades_solves_for_meshes() -> None:
    """With the same budget of all solves together, neither all at once nor one at a time is best."""
    gains = {}
    for theta in (0.02, 0.5, 1.0):
        total = []
        for seed in range(3):
            env = gymnasium.make(MARKING).unwrapped
            env.reset(seed=seed)
            gained, over, cut = 0.0, False, False
            while not (over or cut):
                _, reward, over, cut, info = env.step(np.array([2 * theta - 1], dtype=np.float32))
                gained += reward
                assert info["spent"] <= env.budget
            assert gained == pytest.approx(math.log(env.first / env.estimate))
            total.append(gained)
        gains[theta] = np.mean(total)
    assert gains[0.5] > max(gains[0.02], gains[1.0])
    env = gymnasium.make(MARKING).unwrapped
    env.reset(seed=0)
    for action in ([1.5], [0.0, 0.0], [np.nan]):
        with pytest.raises(ConfigError, match="action="):
            env.step(np.array(action))
    for options, words in (({"budget": 5}, "budget=5"), ({"estimator": "zzz"}, "estimator='zzz'")):
        with pytest.raises(ConfigError, match=words):
            gymnasium.make(MARKING, **options)


@pytest.mark.parametrize("name", [*IDS, MARKING])
def test_nothing_is_there_before_the_first_episode(name: str) -> None:
    env = gymnasium.make(name).unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset first"):
        env.digest()
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset first"):
        env.step(env.action_space.sample())


def test_families_that_are_unknown_point_to_those_of_the_kind() -> None:
    with pytest.raises(ConfigError, match=r"known: transport-bumps, transport-discs; .*--plugin"):
        gymnasium.make(IDS[2], family="transport-bump")


def test_environments_are_no_states() -> None:
    env = gymnasium.make(IDS[0]).unwrapped
    with pytest.raises(ConfigError, match="such as the environment's after reset"):
        deploy(Uniform(), env, 40)  # type: ignore[arg-type]
