"""Evaluation: errors at equal unknowns, held-out problems, and runs that were interrupted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sciml.envs import evaluation, reports
from sciml.envs.agents import AGENT_FILE, Agent, AgentConfig, environment
from sciml.envs.evaluation import error_at, error_with, held_out
from sciml.envs.policies import Doerfler, Threshold, Trace, deploy, within_budget
from sciml.envs.reports import evaluate_agents
from sciml.envs.training import train_agent
from sciml.errors import OutputExistsError
from sciml.files import locked

SMALL = AgentConfig(imitate=1, steps=0, validate=1, hidden=(16,), seed=5)


def test_errors_between_meshes() -> None:
    trace = Trace(np.array([10, 40]), np.array([40, 160]), np.array([1e-2, 1e-4]), None)  # type: ignore[arg-type]
    assert error_at(trace, 80) == pytest.approx(1e-3)
    assert error_at(trace, 1000) == pytest.approx(1e-4)


def test_strategies_fill_the_budget_by_their_own_order() -> None:
    env = environment("advection", AgentConfig(), start="coarse", family="advection-gaussians")
    for state in held_out(env, 3):
        for policy in (Threshold(0.1, "jump"), Doerfler(0.9, "jump")):
            trace = deploy(policy, state, 40)
            assert 37 <= trace.cells[-1] < 40
        fine = deploy(Doerfler(0.3), state, 30).state
        eta = fine.indicators["jump"]
        order = np.argsort(-eta)
        kept = within_budget(fine, order, 40)
        assert (kept == order[: len(kept)]).all()
        assert len(fine.refined(kept)) < 40 <= len(fine.refined(order[: len(kept) + 1]))


def test_errors_at_equal_unknowns_are_of_neighbouring_meshes() -> None:
    env = environment("advection", AgentConfig(), start="coarse")
    state = held_out(env, 1)[0]
    policy = Doerfler(0.05, "entering")
    dense = deploy(policy, state, 60)
    for cells in (20, 33, 41):
        assert error_with(policy, state, cells, 4 * cells) == pytest.approx(
            error_at(dense, 4 * cells), rel=0.2
        )


def test_held_out_problems_are_always_the_same_and_not_those_of_training() -> None:
    env = environment("advection", AgentConfig())
    first, again, others = held_out(env, 3), held_out(env, 3), held_out(env, 3, stream=0)
    assert [state.problem.exact for state in first] == [state.problem.exact for state in again]
    assert not {state.problem.exact for state in first} & {state.problem.exact for state in others}


def test_an_evaluated_run_can_be_overwritten(tmp_path: Path) -> None:
    train_agent("advection", SMALL, tmp_path / "run")
    evaluate_agents([tmp_path / "run" / AGENT_FILE], families=["advection-tanh"], budget=20, problems=1)
    assert (tmp_path / "run" / "evaluation-20" / "report.html").exists()
    train_agent("advection", SMALL, tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run" / "evaluation-20" / "report.html").exists()
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 - what others draw from
    Agent.load(tmp_path / "run")
    assert np.array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of two agents that differ."""
    folders = [tmp_path_factory.mktemp("runs") / str(seed) for seed in (5, 6)]
    for folder in folders:
        train_agent("advection", replace(SMALL, seed=int(folder.name)), folder)
    return folders


def test_a_digest_knows_settings_and_weights(runs: list[Path]) -> None:
    one, other = (Agent.load(run) for run in runs)
    mixed = replace(one, network=other.network), replace(other, network=one.network)
    assert len({agent.digest() for agent in (one, other, *mixed)}) == 4
    assert Agent.load(runs[0]).digest() == one.digest()


class Counter:
    """Counts the calls of functions; each is interrupted after so many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **limits: float) -> None:
        self.calls = dict.fromkeys(limits, 0)
        for name, limit in limits.items():
            module = evaluation if name == "_outcome" else reports
            monkeypatch.setattr(module, name, self._counted(name, getattr(module, name), limit))

    def _counted(self, name: str, inner: Any, limit: float) -> Any:
        def counted(*arguments: object) -> object:
            if self.calls[name] >= limit:
                raise KeyboardInterrupt
            self.calls[name] += 1
            return inner(*arguments)

        return counted


def evaluated(runs: list[Path], folder: Path, **options: Any) -> dict:
    settings = {"families": ["advection-tanh"], "budget": 20, "problems": 2, **options}
    return evaluate_agents(runs, output=folder / "out", **settings)["results"]


def test_an_interrupted_evaluation_goes_on_where_it_was(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infinite = float("inf")
    with monkeypatch.context() as patched:
        counter = Counter(patched, _outcome=infinite, run_policy=infinite)
        whole = evaluated(runs[:1], tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["out"]
    curves = counter.calls["run_policy"]
    assert counter.calls["_outcome"] == 2

    unfinished = tmp_path / "out.unfinished.jsonl"
    with monkeypatch.context() as patched:
        Counter(patched, _outcome=1)
        with pytest.raises(KeyboardInterrupt):
            evaluated(runs[:1], tmp_path)
    assert len(unfinished.read_text().splitlines()) == 2
    assert not (tmp_path / "out").exists()
    with unfinished.open("a") as file:
        file.write('[["torn')
    # The last problem, and the curves of the first.
    with monkeypatch.context() as patched:
        counter = Counter(patched, _outcome=infinite, run_policy=curves // 2)
        with pytest.raises(KeyboardInterrupt):
            evaluated(runs[:1], tmp_path)
    assert counter.calls == {"_outcome": 1, "run_policy": curves // 2}
    with monkeypatch.context() as patched:
        counter = Counter(patched, _outcome=infinite, run_policy=infinite)
        assert evaluated(runs[:1], tmp_path) == whole
    assert counter.calls == {"_outcome": 0, "run_policy": curves // 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    assert (tmp_path / "out/report.html").exists()


def test_an_unfinished_evaluation_is_not_lost(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(after: int, **options: Any) -> None:
        with monkeypatch.context() as patched:
            Counter(patched, _outcome=after)
            with pytest.raises(KeyboardInterrupt):
                evaluated(runs[:1], tmp_path, **options)

    interrupted(0, families=["advection-steps"])
    # Nothing was found that could get lost.
    interrupted(1)
    unfinished = tmp_path / "out.unfinished.jsonl"
    content = unfinished.read_bytes()
    for others, options, name in (
        (runs[:1], {"look_ahead": False}, "look_ahead was True, now False"),
        (runs[:1], {"families": ["advection-steps"]}, "families differ"),
        (runs[:1], {"budget": 21}, "budget was 20, now 21"),
        (runs[1:], {}, "agents differ"),
    ):
        with pytest.raises(OutputExistsError, match=rf"unfinished evaluation of other settings \({name}\)"):
            evaluated(others, tmp_path, **options)
    with locked(tmp_path / "out"), pytest.raises(OutputExistsError, match="another process"):
        evaluated(runs[:1], tmp_path)
    assert unfinished.read_bytes() == content
    for text in ("no JSON\n", "[1, 2]\n", "null\n", '{"a": 1}\n', '{"unfinished evaluation": {}}\n[1]\n'):
        unfinished.write_text(text)
        with pytest.raises(OutputExistsError, match="is no unfinished evaluation"):
            evaluated(runs[:1], tmp_path, overwrite=True)
        assert unfinished.read_text() == text
    unfinished.write_bytes(content)
    evaluated(runs[1:], tmp_path, problems=1, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
