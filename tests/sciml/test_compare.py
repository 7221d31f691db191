"""Comparisons: seeds are put together, differences shown, all tested on what none has seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sciml.cli import main
from sciml.datasets import generate
from sciml.datasets.recipes import DarcyRecipe
from sciml.errors import ConfigError, OutputExistsError
from sciml.files import read_json, write_json
from sciml.metrics import relative_l2
from sciml.operators import DeepONetConfig, FNOConfig, Operator
from sciml.training import TrainConfig, compare, train
from sciml.training.data import load_pairs
from sciml.training.prediction import predict

CONFIG = TrainConfig(epochs=2, n_train=30, n_test=6, stride=2, batch_size=10)
MODEL = FNOConfig(modes=(6,), width=4, layers=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(DarcyRecipe(resolution=17), 40, tmp_path_factory.mktemp("data") / "darcy.h5")


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three seeds of one model, one that has seen other samples, and one of another architecture."""
    folder = tmp_path_factory.mktemp("runs")
    settings = [(replace(CONFIG, seed=seed), MODEL) for seed in range(3)]
    settings += [(replace(CONFIG, n_train=32), MODEL), (CONFIG, DeepONetConfig(sensors=4, width=8, basis=4))]
    for place, (config, model) in enumerate(settings):
        train(config, data, folder / str(place), model=model, progress=False)
    return [folder / str(place) for place in range(5)]


def test_seeds_are_one_group(runs: list[Path]) -> None:
    result = compare([runs[0], runs[4], runs[1], runs[2]])
    errors = [read_json(run / "history.json")[-1]["test_relative_l2"] for run in runs[:3]]
    fno, deeponet = result["groups"]
    assert fno["seeds"] == [0, 1, 2]
    assert fno["test_relative_l2"] == pytest.approx(
        {"mean": np.mean(errors), "std": np.std(errors, ddof=1), "min": min(errors), "max": max(errors)}
    )
    assert "std" not in deeponet["test_relative_l2"]
    assert [fno["label"], deeponet["label"]] == ["FNO", "DeepONet"]
    assert result["runs"][0]["parameters"] == Operator.load(runs[0]).parameter_count
    assert result["notes"] == []


def test_only_what_differs_is_shown(runs: list[Path]) -> None:
    result = compare([runs[0], runs[3]])
    assert result["settings"] == {"train.n_train": [30, 32]}
    assert [group["label"] for group in result["groups"]] == ["FNO n_train=30", "FNO n_train=32"]
    assert compare([runs[0], runs[1]])["settings"] == {}
    # Settings of a model that the other one does not have say nothing.
    assert set(compare([runs[0], runs[4]])["settings"]) == {"model.architecture", "model.width"}


def test_many_differences_do_not_fill_a_label(runs: list[Path], data: Path, tmp_path: Path) -> None:
    other = replace(CONFIG, epochs=1, lr=1e-3, clip=1.0, weight_decay=0.0)
    train(other, data, tmp_path / "other", model=MODEL, progress=False)
    groups = compare([runs[0], tmp_path / "other"])["groups"]
    assert [group["label"] for group in groups] == ["FNO 0", "FNO other"]


def test_all_are_tested_on_what_none_has_seen(runs: list[Path], data: Path, tmp_path: Path) -> None:
    result = compare([*runs[:2], *runs[3:]], data, output=tmp_path / "out")
    assert result["samples"] == 8  # 40 but for the 32 of one of the runs
    assert result["resolutions"] == [[17, 17], [9, 9], [5, 5], [3, 3], [2, 2]]
    fno, _, deeponet = result["matrix"]
    # Its modes need more nodes; a DeepONet reads any grid.
    assert [cell["resolution"] for cell in fno["cells"]] == [[17, 17], [9, 9]]
    assert len(deeponet["cells"]) == 5
    assert [cell["trained_here"] for cell in fno["cells"]] == [False, True]
    pairs = load_pairs(data, 1).subset(slice(32, 40))
    errors = [
        float(relative_l2(predict(Operator.load(run), pairs.inputs), pairs.targets).mean())
        for run in runs[:2]
    ]
    assert fno["cells"][0]["relative_l2"]["mean"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert fno["cells"][0]["relative_l2"]["max"] == pytest.approx(max(errors), rel=1e-5)
    assert read_json(tmp_path / "out" / "comparison.json") == result
    assert (tmp_path / "out" / "report.html").read_text().count("data:image/png;base64,") == 3
    with pytest.raises(OutputExistsError):
        compare(runs, output=tmp_path / "out")


def test_other_data_is_stated(runs: list[Path], tmp_path: Path) -> None:
    other = generate(DarcyRecipe(resolution=17, high=6.0), 36, tmp_path / "other.h5")
    train(CONFIG, other, tmp_path / "run", model=MODEL, progress=False)
    result = compare([runs[0], tmp_path / "run"])
    assert result["notes"] == [
        "The runs differ in datasets, test samples: their test errors are not of the same problems."
    ]
    assert result["settings"]["data.config.parameters.high"] == [12.0, 6.0]


def test_what_cannot_be_compared(runs: list[Path], data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere' does not exist: give folders"):
        compare([runs[0], tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match=r"holds no training run \(no config.json\)"):
        compare([tmp_path])
    write_json(tmp_path / "begun" / "config.json", {})
    with pytest.raises(ConfigError, match=r"begun' is not finished \(no model.safetensors\): resume it"):
        compare([tmp_path / "begun"])
    with pytest.raises(ConfigError, match="is named twice"):
        compare([runs[0], runs[0].parent / "." / runs[0].name])
    with pytest.raises(ConfigError, match="name one run folder at least"):
        compare([])
    seen = generate(DarcyRecipe(resolution=17), 30, tmp_path / "seen.h5")
    with pytest.raises(ConfigError, match=r"run '0': .*trained on all of it"):
        compare(runs, seen)


def test_the_command(runs: list[Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", *map(str, runs), "--data", str(data), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    for text in ("Over seeds:", "std (n - 1)", "Settings that differ:", "Across resolution", "(trained)"):
        assert text in printed
    assert read_json(tmp_path / "out" / "comparison.json")["samples"] == 8
    assert main(["compare", str(runs[0]), "nothing"]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "'nothing' does not exist" in message
