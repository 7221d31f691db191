"""Agents: imitation, segments of reinforcement learning that can be done again, files, and what they reach."""

import json
import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from safetensors import safe_open

import sciml.envs  # noqa: F401
from sciml.cli import main
from sciml.envs import training
from sciml.envs.agents import AGENT_FILE, Agent, AgentConfig, algorithm, environment, plan, preferences
from sciml.envs.evaluation import compare_policies, error_with, held_out
from sciml.envs.families import Mixture, family_registry
from sciml.envs.imitation import imitate, wanted_actions
from sciml.envs.policies import Doerfler, TrueError, deploy
from sciml.envs.render import episode
from sciml.envs.states import COARSEN, KEEP, REFINE
from sciml.envs.training import train_agent
from sciml.envs.trees import TransportState
from sciml.errors import ConfigError, DatasetFormatError, OutputExistsError

SMALL = AgentConfig(imitate=3, steps=400, segment=200, environments=2, validate=2, hidden=(16,), seed=5)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / AGENT_FILE, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def checkpoint_of(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "checkpoint.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


@pytest.fixture(scope="module")
def cloned() -> Agent:
    """An agent of the 1D advection that has seen a handful of problems."""
    config = AgentConfig(imitate=12, steps=0)
    network = algorithm("advection", config).policy
    imitate("advection", config, network)
    return Agent("advection", config, network)


# What is imitated


def test_wanted_actions_lead_to_the_target() -> None:
    env = environment("advection", AgentConfig(), start="coarse")
    env.reset(seed=3)
    target = deploy(TrueError(), env.state, 30).state
    state = env.state.refined(np.arange(8)).refined(np.array([0, 1]))
    for _ in range(12):
        state = state.acted(wanted_actions(state, target))
    assert state.digest() == target.digest()
    found = wanted_actions(target, env.state)
    assert set(found) <= {COARSEN, KEEP}


def test_an_imitating_agent_is_as_good_as_marking_in_small_steps(cloned: Agent) -> None:
    env = environment("advection", cloned.config, start="coarse")
    found = compare_policies(env, [cloned], problems=4, look_ahead=True)
    means = {row["against"]: row["ratio"] for row in found.table()}
    assert means["uniform"] < 0.1
    assert means["look-ahead"] < 1.3
    assert means["best of doerfler and threshold"] < 1.3
    assert found.failures() == {"runs": 4, "stopped early": 0}


def test_budgets_that_were_never_seen(cloned: Agent) -> None:
    for budget in (20, 160):
        env = environment("advection", cloned.config, start="coarse", budget=budget)
        for state in held_out(env, 2):
            trace = deploy(cloned, state, budget, cycles=200)
            assert 0.5 * budget < trace.cells[-1] < budget
            assert trace.errors[-1] < 2 * error_with(
                Doerfler(0.1, "entering"), state, int(trace.cells[-1]), int(trace.unknowns[-1])
            )


def test_agents_do_not_see_signs_sizes_and_sides(cloned: Agent) -> None:
    """The mirror image of a mesh and its solution is refined in mirror image."""
    env = environment("poisson", AgentConfig(), start="coarse", family="poisson-gaussians")
    network = algorithm("poisson", AgentConfig()).policy
    agent, state = Agent("poisson", AgentConfig(), network), held_out(env, 1)[0].refined(np.array([2, 5]))
    from dataclasses import replace

    from sciml.solvers.dg import DiffusionProblem

    p = state.problem
    turned = DiffusionProblem(lambda x: -3 * p.source(1 - x), lambda x: -3 * p.boundary(1 - x), name="turned")
    other = replace(state, problem=turned, mesh=state.mesh.coarsen(np.arange(len(state))).refine([2, 5]))
    assert np.allclose(agent.seen(state, 40)[::-1], agent.seen(other, 40), atol=2e-4)


# Training


def interrupted_after(monkeypatch: pytest.MonkeyPatch, segments: int) -> None:
    save, calls = training._Run._save, []

    def stopped(self: training._Run) -> None:
        save(self)
        calls.append(self)
        if len(calls) == segments:
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Run, "_save", stopped)


@pytest.mark.parametrize("name", ["ppo", "a2c", "dqn"])
def test_interrupted_and_resumed_is_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    # Enough for updates of dqn, and with actions on both sides of the interruption that were not explored.
    config = replace(
        SMALL, algorithm=name, seed=11, **(dict(steps=800, segment=400) if name == "dqn" else {})
    )
    whole = train_agent("advection", config, tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupted_after(patched, 2)
        with pytest.raises(KeyboardInterrupt):
            train_agent("advection", config, tmp_path / "parts")
    assert not (tmp_path / "parts" / AGENT_FILE).exists()
    again = train_agent("advection", config, tmp_path / "parts", resume=True)
    assert again == whole
    first, second = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert [record["segment"] for record in whole["history"]] == [0, 1, 2]
    # The last weights, too, and not those of imitation.
    last = [checkpoint_of(tmp_path / folder) for folder in ("whole", "parts")]
    assert all(torch.equal(last[0][key], last[1][key]) for key in last[0])
    moved = [key for key in first if not torch.equal(last[0][f"policy/{key}"], last[0][f"best/{key}"])]
    assert moved or whole["best"] == 2


def test_segments_are_whole_roll_outs_and_no_more_than_asked(tmp_path: Path) -> None:
    from dataclasses import replace

    for name, steps, segment, environments in (
        ("ppo", 8100, 8000, 8),
        ("ppo", 500, 8000, 8),
        ("a2c", 100, 30, 8),
        ("dqn", 7, 3, 2),
        ("ppo", 5, 5, 1),
    ):
        config = AgentConfig(algorithm=name, steps=steps, segment=segment, environments=environments)
        segments, length, size = plan(config)
        assert segments == -(-steps // segment)
        assert size % (length * environments) == 0
        assert steps <= segments * size <= steps + segments * (size // length + environments) + 2
    config = replace(SMALL, imitate=1, steps=90, segment=50, environments=4, validate=1)
    records = train_agent("advection", config, tmp_path / "run")["history"]
    assert [record.get("steps", 0) for record in records] == [0, 48, 96]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    config = replace(SMALL, imitate=1, steps=0, validate=1)
    for seed in (5, 6):
        train_agent("advection", replace(config, seed=seed), tmp_path / str(seed))
    other = tmp_path / "6" / "checkpoint.safetensors"
    other.write_bytes((tmp_path / "5" / "checkpoint.safetensors").read_bytes())
    with pytest.raises(DatasetFormatError, match="is of another run"):
        train_agent("advection", replace(config, seed=6), tmp_path / "6", resume=True)
    file = tmp_path / "5" / AGENT_FILE
    file.write_bytes(file.read_bytes().replace(rb"hidden\": [16]", rb"hidden\": [17]"))
    with pytest.raises(DatasetFormatError, match="cannot be made again"):
        Agent.load(file)


def test_an_agent_in_a_file_decides_the_same(tmp_path: Path) -> None:
    train_agent("poisson", SMALL, tmp_path / "run")
    agent = Agent.load(tmp_path / "run")
    assert (agent.kind, agent.config) == ("poisson", SMALL)
    env = environment("poisson", SMALL, start="coarse")
    state = held_out(env, 1)[0]
    again = Agent.load(tmp_path / "run" / AGENT_FILE)
    assert np.array_equal(agent.seen(state, 40), again.seen(state, 40))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["kind"] == "poisson"
    assert config["provenance"]["versions"]
    # Scales of rewards belong to what was learned.
    with safe_open(tmp_path / "run" / "checkpoint.safetensors", framework="pt") as file:
        progress = json.loads(file.metadata()["sciml"])["progress"]
    assert progress["rewards"]["var"] > 0
    assert not [file for file in (tmp_path / "run").rglob("*") if file.suffix in (".pkl", ".zip", ".pt")]


def test_the_best_agent_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([(2.0, 0.0), (1.0, 0.5), (3.0, 0.0)])
    weights = []

    def score(self: training._Run) -> tuple[float, float]:
        weights.append({key: value.clone() for key, value in self.model.policy.state_dict().items()})
        return next(scores)

    monkeypatch.setattr(training._Run, "_score", score)
    result = train_agent("advection", SMALL, tmp_path / "run")
    assert (result["score"], result["best"]) == (1.0, 1)
    kept = tensors_of(tmp_path / "run")
    assert all(torch.equal(kept[key], weights[1][key]) for key in kept)
    assert not all(torch.equal(kept[key], weights[2][key]) for key in kept)


@pytest.mark.parametrize("kind", ["transport", "triangles"])
def test_agents_in_the_plane(kind: str, tmp_path: Path) -> None:
    from dataclasses import replace

    config = replace(SMALL, imitate=4, steps=40, segment=40, validate=1, budget=120)
    assert np.isfinite(train_agent(kind, config, tmp_path / "run")["score"])
    agent = Agent.load(tmp_path / "run")
    env = environment(kind, config, start="coarse")
    states = episode(agent, held_out(env, 1)[0], env.budget, steps=4)
    assert len(states) > 1
    assert all(len(state) < 120 for state in states)
    if kind == "transport":
        assert [state.time for state in states] == pytest.approx([0.0, 0.05, 0.1, 0.15])


def test_mixtures_draw_from_all_their_families() -> None:
    env = environment("advection", AgentConfig(families=("advection-tanh", "advection-gaussians")))
    assert isinstance(env.family, Mixture)
    rng = np.random.default_rng(0)
    assert {env.family.sample(rng).problem.name for _ in range(20)} == {
        "advection-tanh",
        "advection-gaussians",
    }


# Bad input and the command line


def test_bad_input_is_named(tmp_path: Path, cloned: Agent) -> None:
    for settings, message in (
        ({"budget": -1}, "budget=-1"),
        ({"imitate": 0, "steps": 0}, "nothing would be learned"),
        ({"algorithm": "sac"}, "unknown algorithm 'sac'"),
        ({"hidden": ()}, "hidden="),
        ({"learning_rate": 2.0}, "learning_rate=2.0"),
        ({"discount": 1.5}, "discount=1.5"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"budget": 10**6}, "budget=1000000"),
    ):
        with pytest.raises(ConfigError, match=message):
            AgentConfig(**settings)
    for settings, message in (
        ({"hidden": ["64"]}, "hidden="),
        ({"families": [1]}, "families="),
        ({"steps": True}, "steps=True"),
        (3, "settings 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            AgentConfig.of(settings)
    with pytest.raises(ConfigError, match="budget=28"):
        environment("triangles", AgentConfig(families=("triangles-fronts", "triangles-lshape"), budget=28))
    with pytest.raises(ConfigError, match="unknown policy 'true-eror'"):
        train_agent("advection", AgentConfig(oracle="true-eror"), tmp_path / "run")
    with pytest.raises(ConfigError, match="budget=5"):
        train_agent("advection", AgentConfig(budget=5), tmp_path / "run")
    with pytest.raises(ConfigError, match="unknown kind of problems"):
        train_agent("advektion", SMALL, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    poisson = environment("poisson", AgentConfig(), start="coarse")
    with pytest.raises(ConfigError, match="trained on 'advection' problems cannot act on 'poisson'"):
        deploy(cloned, held_out(poisson, 1)[0], 40)
    with pytest.raises(DatasetFormatError, match="does not exist"):
        Agent.load(tmp_path)


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--imitate", "2", "--steps", "60", "--segment", "60", "--environments", "2", "--validate", "1"]
    train = ["refine", "train", "advection", "-o", "run", *options, "--quiet", "--tensorboard"]
    assert main(train) == 0
    assert "held-out problems" in capsys.readouterr().out
    assert list(tmp_path.glob("run/tensorboard/*/events*"))
    assert main(train) == 1
    assert "holds a finished run" in capsys.readouterr().err
    assert main([*train, "--resume"]) == 0
    Path("settings.json").write_text('{"imitate": "all"}')
    capsys.readouterr()
    assert main(["refine", "train", "advection", "-o", "other", "--settings", "settings.json"]) == 1
    assert "imitate='all': give an integer" in capsys.readouterr().err
    assert main(["refine", "train", "poisson", "-o", "other", "--settings", "run/config.json"]) == 1
    assert "of a run on 'advection' problems" in capsys.readouterr().err
    again = ["refine", "train", "advection", "-o", "other", "--settings=run/config.json", "--seed", "1"]
    assert main([*again, "--quiet"]) == 0
    old, new = (json.loads(Path(name, "config.json").read_text())["config"] for name in ("run", "other"))
    assert new == {**old, "seed": 1}
    evaluate = ["refine", "evaluate", "run", "--problems", "2", "--families", "advection-gaussians"]
    assert main([*evaluate, "--budget", "24"]) == 0
    assert "best of doerfler and threshold" in capsys.readouterr().out
    assert (tmp_path / "run/evaluation-24/report.html").exists()
    recorded = json.loads((tmp_path / "run/evaluation-24/evaluation.json").read_text())
    assert recorded["families"]["advection-gaussians"]["runs"] == 2
    assert main([*evaluate, "--budget", "24"]) == 1
    assert main(["refine", "watch", "run", "-o", "film", "--steps", "3"]) == 0
    assert (tmp_path / "film/refinement.gif").read_bytes()[:3] == b"GIF"
    assert len(list((tmp_path / "film").glob("*.vtu"))) > 1
    for wrong, text in (
        (["refine", "tune"], "unknown command of 'sciml refine'"),
        (["refine", "watch", "nothing", "-o", "x"], "does not exist"),
        (["refine", "evaluate", "run", "--families", "poisson-tanh"], "is of kind 'poisson'"),
        (["refine", "evaluate", "run", "--budget", "3", "-o", "y"], "budget=3"),
    ):
        capsys.readouterr()
        assert main(wrong) == 1
        error = capsys.readouterr().err
        assert text in error
        assert error.count("\n") == 1


def test_files_hold_the_meshes(tmp_path: Path) -> None:
    import meshio

    from sciml.envs.render import write_states

    for kind, cells in (("advection", "line"), ("transport", "quad"), ("triangles", "triangle")):
        env = environment(kind, AgentConfig(), start="coarse")
        state = held_out(env, 1)[0]
        states = [state, state.refined(np.array([1]))]
        if isinstance(states[1], TransportState):
            states[1] = states[1].next()
        (tmp_path / kind).mkdir()
        files = write_states(tmp_path / kind, states)
        for file, one in zip(files, states, strict=True):
            mesh = meshio.read(file)
            assert len(mesh.cells_dict[cells]) == len(one)
            assert np.allclose(mesh.cell_data["level"][0], one.levels)
        text = (tmp_path / kind / "meshes.pvd").read_text()
        assert re.findall('timestep="(.*?)"', text) == (
            ["0.05", "0.1"] if kind == "transport" else ["0", "1"]
        )


def test_every_family_has_an_agent_kind() -> None:
    from sciml.envs.agents import ENVIRONMENTS

    assert {family_registry[name].kind for name in family_registry} == set(ENVIRONMENTS)
    for name in ENVIRONMENTS.values():
        assert gymnasium.spec(name)
    network = algorithm("advection", SMALL).policy
    assert preferences(network, torch.zeros(3, network.observation_space.shape[0])).shape == (3, 3)
    assert REFINE == 1


def test_a_run_in_the_way_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "note.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="holds other files"):
        train_agent("advection", SMALL, tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "note.txt").read_text() == "mine"


def test_damaged_settings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(OutputExistsError, match="lacks the settings of a run"):
        train_agent("advection", SMALL, tmp_path / "run", resume=True)


def test_versions_are_recorded(tmp_path: Path) -> None:
    train_agent("advection", AgentConfig(imitate=1, steps=0, validate=1), tmp_path / "run")
    versions = json.loads((tmp_path / "run" / "config.json").read_text())["provenance"]["versions"]
    assert {"stable-baselines3", "gymnasium", "torch", "numpy"} <= set(versions)
    assert "not installed" not in (versions["stable-baselines3"], versions["gymnasium"])
