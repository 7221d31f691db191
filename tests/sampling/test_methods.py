"""Methods within a budget, samples as datasets, reports, and the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sciml.cli import main
from sciml.datasets import OdeDataset
from sciml.errors import ConfigError, OutputExistsError
from sciml.sampling import (
    TARGETS,
    DilationPath,
    Overdamped,
    Rule,
    ScoreDensity,
    anneal,
    densities,
    levels,
    run_chains,
)
from sciml.sampling.densities import compare_methods, sample_density
from sciml.sampling.divergences import weight_error
from sciml.sampling.methods import METHODS, Budget, Drawn, draw
from sciml.sampling.targets import Density, FunctionDensity, three_modes


@pytest.mark.parametrize("method", METHODS)
def test_methods_keep_to_their_budget(method: str) -> None:
    target = three_modes()
    found = draw(target, method, Budget(200, 400, seed=2))
    assert found.x.shape == (200, 2)
    assert 390 < found.evaluations <= 400
    assert torch.equal(found.x, draw(target, method, Budget(200, 400, seed=2)).x)
    assert not torch.equal(found.x, draw(target, method, Budget(200, 400, seed=3)).x)
    given = draw(target, method, Budget(200, 400, step=0.5, deviation=3.0))
    assert given.evaluations <= 400
    # In double precision all that stays near the modes.
    assert float(target.modes.means.sub(given.x[:, None]).norm(dim=2).amin(1).max()) < 6


@pytest.mark.parametrize("method", ["mala", "ula", "baoab", "smc"])
@pytest.mark.parametrize("scale", [0.01, 30.0])
def test_steps_are_tuned_to_the_scale(method: str, scale: float) -> None:
    target = FunctionDensity(lambda x: -(x / scale).square().sum(1) / 2, 3)
    target.reach = scale
    found = draw(target, method, Budget(1000, 400))
    x = found.x / scale
    # About 1.3 for Metropolised steps on a unit normal in three dimensions.
    h = {"ula": 4 * found.step, "baoab": found.step**2}.get(method, found.step) / scale
    assert 0.5 < h / scale < 4
    if method in ("mala", "smc"):
        assert found.acceptance == pytest.approx(0.574, abs=0.12)
    np.testing.assert_allclose(x.square().mean(0), 1, atol=0.2)


def test_weights_by_smc_alone() -> None:
    errors = {
        method: weight_error(draw(three_modes(), method, Budget(1000, 500)).x, three_modes().modes)
        for method in METHODS
    }
    assert min(errors, key=lambda name: errors[name]) == "smc"
    assert errors["smc"] < 0.07


def test_samples_are_a_dataset(tmp_path: Path) -> None:
    page, measures = sample_density("mueller-brown", tmp_path / "mb.h5", budget=Budget(150, 300))
    assert page == tmp_path / "mb" / "report.html"
    assert (tmp_path / "mb" / "samples.png").exists()
    assert measures["E y"]["value"] == pytest.approx(1.165, abs=0.2)
    with OdeDataset(tmp_path / "mb.h5") as data:
        states = data["states"][:]
        assert states.shape == (150, 1, 2)
        target = TARGETS["mueller-brown"]()
        logs = target.log_density(torch.from_numpy(states[:, 0]))
        np.testing.assert_allclose(logs, data["log_density"][:])
        assert data.config["sampled_by"]["method"] == "smc"
        assert data.config["sampled_by"]["evaluations"] == 300
    with pytest.raises(OutputExistsError):
        sample_density("mueller-brown", tmp_path / "mb.h5", budget=Budget(150, 300))
    with pytest.raises(ConfigError, match=r"ends in \.h5"):
        sample_density("mueller-brown", tmp_path / "mb")


@pytest.mark.parametrize("target", ["steep-double-well", "many-well"])
def test_reports_of_other_dimensions(target: str, tmp_path: Path) -> None:
    page, _ = sample_density(target, tmp_path / "x.h5", "mala", Budget(60, 150))
    text = page.read_text()
    assert "true value" in text
    assert "samples of" in text


def test_methods_compared(tmp_path: Path) -> None:
    head, rows = compare_methods(
        ["three-modes", "two-pathways"], ["smc", "baoab"], tmp_path / "b", Budget(150, 200), seeds=2
    )
    assert [row[1] for row in rows] == ["smc", "baoab", "exact samples", "smc", "baoab"]
    # One without exact samples, and wide starts in narrow channels.
    assert rows[-1][2] == "diverges"
    stored = json.loads((tmp_path / "b" / "results.json").read_text())
    assert head[3] == "modes"
    assert stored["settings"]["seeds"] == 2
    assert [len(result["runs"]) for result in stored["results"]] == [2, 2, 2, 2, 2, 0]
    assert stored["results"][0]["runs"][0]["modes"] == 3
    for arguments, message in (
        ((["three-modes"], ["hmc"]), "unknown method 'hmc'"),
        ((["three"], ["smc"]), "unknown target"),
        (([], ["smc"]), "0 targets"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare_methods(*arguments, tmp_path / "c")
    with pytest.raises(OutputExistsError):
        compare_methods(["three-modes"], ["smc"], tmp_path / "b")


def test_a_comparison_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = densities.draw

    def counted(density: Density, method: str, budget: Budget) -> Drawn:
        calls.append(method)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(density, method, budget)

    monkeypatch.setattr(densities, "draw", counted)
    arguments = ["three-modes"], ["mala", "smc"], tmp_path, Budget(50, 100)
    with pytest.raises(KeyboardInterrupt):
        compare_methods(*arguments, seeds=2)
    with pytest.raises(ConfigError, match="with other settings"):
        compare_methods(*arguments, seeds=3)
    _, rows = compare_methods(*arguments, seeds=2)
    assert calls == ["mala", "mala", "smc", "smc", "smc", "smc"]
    _, whole = compare_methods(*arguments[:2], tmp_path / "whole", Budget(50, 100), seeds=2)
    assert [row[:-1] for row in rows] == [row[:-1] for row in whole]


def test_a_score_alone_is_enough_for_some() -> None:
    """The dilated score is a rescaling; what needs the density says so."""
    known = three_modes()
    alone = ScoreDensity(known.score, 2)
    x = torch.zeros(20, 2, dtype=torch.float64)
    rule = Rule("drift", 1.0, cap=1.0)
    by_score = anneal(DilationPath(alone), levels(50), rule, x=x, polish=5).x
    assert torch.equal(by_score, anneal(DilationPath(known), levels(50), rule, x=x, polish=5).x)
    chains = [run_chains(Overdamped(target, 0.1), x, 20, observables={}).x for target in (alone, known)]
    assert torch.equal(*chains)
    for fails in (
        lambda: anneal(DilationPath(alone), levels(50), Rule("drift", 1.0, cap=1.0, adjusted=True), x=x),
        lambda: anneal(DilationPath(alone), levels(50), Rule("corrected", 1.0, cap=1.0), x=x),
        lambda: run_chains(Overdamped(alone, 0.1, adjusted=True), x, 20, observables={}),
    ):
        with pytest.raises(ConfigError, match="only the score is known"):
            fails()
    with pytest.raises(ConfigError, match="d=0"):
        ScoreDensity(lambda x: x, 0)


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "sample --target three-modes --method smc -n 200 --budget 200"
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    assert "weight error" in out
    assert "wrote three-modes-smc.h5: 200 samples; report: three-modes-smc/report.html" in out
    assert (
        main(
            [
                "bench",
                "sampling",
                "--targets",
                "three-modes",
                "--methods",
                "smc",
                "-n",
                "100",
                "--budget",
                "100",
            ]
        )
        == 0
    )
    assert "exact samples" in capsys.readouterr().out
    for arguments, message in (
        ("sample", "give a RUN"),
        ("sample run --target gmm40", "and not both"),
        ("sample --target gmm4", "unknown target 'gmm4': did you mean 'gmm40'"),
        ("sample --target gmm40 --method nuts", "unknown method 'nuts'"),
        ("sample --target gmm40 -n 1", "n=1"),
        ("sample --target gmm40 --budget 3", "evaluations=3"),
        ("sample --target gmm40 --step 0", "step=0"),
        ("sample --target gmm40 --steps 99", "--steps belongs to a RUN"),
        ("sample runs/x --budget 99", "--budget belongs to a density"),
        (words, "exists: pass --overwrite"),
        ("inspect three-modes-smc.h5 --verify", "it was sampled from a density"),
        ("bench", "name the comparison first (sampling)"),
        ("bench sampling --seeds 0 -o c", "seeds=0"),
    ):
        assert main(arguments.split()) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_plugins_add_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from sciml.sampling import TARGETS, FunctionDensity\n"
        "@TARGETS.register('cup')\n"
        "def cup():\n"
        "    return FunctionDensity(lambda x: -x.square().sum(1).square(), 2)\n"
    )
    output = str(tmp_path / "cup.h5")
    words = f"sample --plugin {plugin} --target cup -n 50 --budget 100 -o {output}".split()
    assert main(words) == 0
    assert "KSD^2" in capsys.readouterr().out
