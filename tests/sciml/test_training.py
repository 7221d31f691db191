"""Training: learns, resumes to the bit, refuses what cannot be; evaluation leaves out what was trained on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sciml.datasets import generate, open_dataset
from sciml.datasets.recipes import DarcyRecipe, PipeFlowRecipe, PoissonStarRecipe
from sciml.errors import ConfigError, ConvergenceError, DatasetFormatError, OutputExistsError
from sciml.files import read_json
from sciml.metrics import relative_l2
from sciml.operators import FNO, DeepONetConfig, FNOConfig, Operator, UNet, UNetConfig
from sciml.operators.storage import FORMAT_VERSION
from sciml.training import TrainConfig, evaluate, train
from sciml.training.data import load_pairs
from sciml.training.evaluation import held_out_pairs
from sciml.training.loop import learning_rate
from sciml.training.objective import Objective, random_symmetry
from sciml.training.parallel import resolve_device
from sciml.training.prediction import predict

SMALL = TrainConfig(epochs=4, batch_size=8, lr=1e-2)
MODEL = FNOConfig(modes=(8,), width=8)
train_small = partial(train, SMALL, model=MODEL)
FLAGS = ["--modes", "8", "--width", "8", "--epochs", "4", "--batch-size", "8", "--lr", "1e-2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(DarcyRecipe(resolution=33), 60, tmp_path_factory.mktemp("data") / "darcy.h5")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "small"
    train_small(data, output)
    return output


def test_it_learns_and_stores_what_it_did(run: Path, data: Path) -> None:
    history = read_json(run / "history.json")
    assert len(history) == 4
    assert history[-1]["test_relative_l2"] < 0.6 * history[0]["test_relative_l2"]
    config = read_json(run / "config.json")
    assert config["train"]["lr"] == 1e-2
    assert config["provenance"]["versions"]["torch"]
    with open_dataset(data) as opened:
        assert config["data"]["train_seeds"] == opened.seeds[:54].tolist()
    model = FNO.load(run)
    pairs = load_pairs(data).subset(slice(54, 60))
    error = relative_l2(predict(model, pairs.inputs), pairs.targets).mean()
    assert float(error) == pytest.approx(history[-1]["test_relative_l2"], rel=1e-5)
    assert (run / "report.html").read_text().count("data:image/png;base64,") == 1
    assert (run / "loss.png").exists()


def test_killed_and_resumed_gives_the_same_bits(run: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    command = [sys.executable, "-m", "sciml", "train", "fno", str(data), "-o", str(output), *FLAGS]
    command += ["--checkpoint-seconds", "0"]
    # As many threads as this process has: sums are ordered by thread.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (output / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "model.safetensors").exists(), "the run finished before it could be killed"
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "holds an unfinished run" in refused.stderr
    subprocess.run([*command, "--resume"], env=environment, check=True, capture_output=True)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (output, run))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_step_is_a_place_to_resume(run: Path, data: Path, tmp_path: Path, monkeypatch) -> None:
    """Interrupt after each step in turn; the optimiser's moments, the schedule and the sums go on."""
    from sciml.training import loop

    save = loop.save_checkpoint

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", save_and_stop)
    for _ in range(28):
        with pytest.raises(KeyboardInterrupt):
            train_small(data, tmp_path / "stopped", resume=True, checkpoint_seconds=0)
    monkeypatch.undo()
    train_small(data, tmp_path / "stopped", resume=True)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "stopped", run))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    ours, theirs = (read_json(folder / "history.json") for folder in (tmp_path / "stopped", run))
    assert [record["train_loss"] for record in ours] == [record["train_loss"] for record in theirs]


def test_global_random_state_is_untouched(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(TrainConfig(epochs=1, seed=9), data, tmp_path / "run", model=FNOConfig(modes=(4,), width=2))
    assert torch.equal(torch.rand(3), expected)


def test_existing_runs_are_kept(run: Path, data: Path) -> None:
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match=r"holds a finished run: pass --resume .* --overwrite"):
        train_small(data, run)
    other = TrainConfig(epochs=4, batch_size=8, lr=2e-2)
    with pytest.raises(OutputExistsError, match=r"lr was 0.01, now 0.02"):
        train(other, data, run, resume=True)
    assert train_small(data, run, resume=True)["test_relative_l2"] > 0
    assert load_file(run / "model.safetensors").keys()
    assert (run / "model.safetensors").read_bytes() == before


def test_resume_on_other_data_is_refused(run: Path, tmp_path: Path) -> None:
    other = generate(DarcyRecipe(resolution=33), 60, tmp_path / "darcy.h5", seed=1)
    with pytest.raises(OutputExistsError, match="seed was 0, now 1"):
        train_small(other, run, resume=True)
    altered = generate(DarcyRecipe(resolution=33, high=10.0), 60, tmp_path / "altered" / "darcy.h5")
    with pytest.raises(OutputExistsError, match=r"high was 12.0, now 10.0"):
        train_small(altered, run, resume=True)


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(data: Path, tmp_path: Path, monkeypatch) -> None:
    from sciml.training import loop

    monkeypatch.setattr(loop, "learning_rate", lambda step, *more: 1e-3 if step < 9 else 1e30)
    with pytest.raises(ConvergenceError, match=r"in epoch 1, batch 3 \(samples"):
        train_small(data, tmp_path / "run", checkpoint_seconds=0)
    state = load_file(tmp_path / "run" / "checkpoint.safetensors")
    assert all(torch.isfinite(value).all() for value in state.values())


def test_masked_targets(tmp_path: Path) -> None:
    stars = generate(PoissonStarRecipe(resolution=33), 12, tmp_path / "stars.h5")
    result = train(TrainConfig(epochs=2), stars, tmp_path / "run", model=FNOConfig(modes=(8,), width=6))
    model = FNO.load(tmp_path / "run")
    pairs = load_pairs(stars)
    assert pairs.inputs.shape == (12, 33, 33, 2)
    assert pairs.mask is not None
    test = pairs.subset(slice(11, 12))
    outside = test.mask == 0
    wild = torch.where(outside, torch.tensor(1e6), predict(model, test.inputs))
    assert float(relative_l2(wild, test.targets, test.mask)[0]) == pytest.approx(
        result["test_relative_l2"], rel=1e-5
    )


def test_evaluation_at_several_resolutions(run: Path, data: Path, tmp_path: Path) -> None:
    rows = evaluate(run, data, output=tmp_path / "evaluation")
    assert [row["resolution"] for row in rows] == [[33, 33], [17, 17], [9, 9]]
    assert all(row["samples"] == 6 for row in rows)  # the 54 training samples are left out
    history = read_json(run / "history.json")
    assert rows[0]["relative_l2"] == pytest.approx(history[-1]["test_relative_l2"], rel=1e-4)
    assert rows[1]["relative_l2"] < 2 * rows[0]["relative_l2"]
    assert read_json(tmp_path / "evaluation" / "evaluation.json") == rows
    assert "data:image/png" in (tmp_path / "evaluation" / "report.html").read_text()
    with pytest.raises(OutputExistsError):
        evaluate(run, data, output=tmp_path / "evaluation")


def test_training_samples_are_left_out_at_any_resolution(run: Path, tmp_path: Path) -> None:
    fine = generate(DarcyRecipe(resolution=65), 64, tmp_path / "fine.h5")
    assert len(held_out_pairs(fine, 1, run)) == 10
    other = generate(DarcyRecipe(resolution=33), 8, tmp_path / "other.h5", seed=3)
    assert len(held_out_pairs(other, 1, run)) == 8
    seen = generate(DarcyRecipe(resolution=33), 20, tmp_path / "seen.h5")
    with pytest.raises(ConfigError, match="trained on all of it"):
        evaluate(run, seen)


def test_evaluation_refuses_what_does_not_fit(run: Path, data: Path, tmp_path: Path) -> None:
    stars = generate(PoissonStarRecipe(resolution=33), 2, tmp_path / "stars.h5")
    with pytest.raises(ConfigError, match="has inputs f, mask, the run a"):
        evaluate(run, stars)
    with pytest.raises(ConfigError, match="too coarse for modes=8"):
        evaluate(run, data, strides=(8,))
    with pytest.raises(DatasetFormatError, match="does not exist"):
        evaluate(tmp_path / "nowhere", data)


def test_models_load_safely(run: Path, tmp_path: Path) -> None:
    model = FNO.load(run)
    model.save(tmp_path / "copy.safetensors")
    again = FNO.load(tmp_path / "copy.safetensors")
    a = torch.randn(1, 20, 20, 1)
    assert torch.equal(model(a), again(a))
    content = (run / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-100])
    with pytest.raises(DatasetFormatError, match="damaged"):
        FNO.load(tmp_path / "cut.safetensors")
    with pytest.raises(DatasetFormatError, match="kind 'checkpoint', not 'model'"):
        FNO.load(run / "checkpoint.safetensors")
    for version, remedy in ((9, "upgrade"), (1, "train again")):
        other = content.replace(
            b'\\"format_version\\": %d' % FORMAT_VERSION, b'\\"format_version\\": %d' % version
        )
        (tmp_path / "other.safetensors").write_bytes(other)
        with pytest.raises(DatasetFormatError, match=f"format version {version}.*{remedy}"):
            FNO.load(tmp_path / "other.safetensors")


def test_a_bit_that_flipped_is_found(run: Path, tmp_path: Path) -> None:
    content = bytearray((run / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(content)
    with pytest.raises(DatasetFormatError, match="checksum"):
        FNO.load(tmp_path / "flipped.safetensors")


@pytest.mark.parametrize(
    ("name", "model", "flags"),
    [
        ("unet", UNetConfig(width=4, depth=2), ["--width", "4", "--depth", "2"]),
        (
            "deeponet",
            DeepONetConfig(sensors=8, width=16, basis=8),
            ["--sensors", "8", "--width", "16", "--basis", "8"],
        ),
    ],
)
def test_baselines_are_trained_and_evaluated_like_the_fno(
    data: Path, tmp_path: Path, sciml: Callable, name: str, model: object, flags: list[str]
) -> None:
    run = tmp_path / "run"
    result = train(SMALL, data, run, model=model)
    assert result["test_relative_l2"] < result["history"][0]["test_relative_l2"]
    assert evaluate(run, data)[0]["resolution"] == [33, 33]
    again = sciml("train", name, data, "-o", "again", *flags, *FLAGS[4:])
    assert again.returncode == 0, again.stderr
    ours, other = load_file(run / "model.safetensors"), load_file(tmp_path / "again/model.safetensors")
    assert all(torch.equal(ours[key], other[key]) for key in ours)
    assert type(Operator.load(run)).__name__.lower() == name
    with pytest.raises(DatasetFormatError, match="not a FNO"):
        FNO.load(run)


def test_architectures_of_files(run: Path, tmp_path: Path) -> None:
    model = Operator.load(run)
    assert isinstance(model, FNO)
    assert model.config == MODEL
    with pytest.raises(DatasetFormatError, match="holds a FNO, not a UNet"):
        UNet.load(run)
    model.save(tmp_path / "other.safetensors", {"architecture": "Transformer"})
    with pytest.raises(DatasetFormatError, match="Transformer"):
        Operator.load(tmp_path / "other.safetensors")
    model.save(tmp_path / "later.safetensors", {"config": {"modes": [8], "heads": 3}})
    with pytest.raises(DatasetFormatError, match="no setting heads"):
        FNO.load(tmp_path / "later.safetensors")
    with pytest.raises(ConfigError, match="FNOConfig"):
        train(SMALL, "any.h5", tmp_path / "x", model="fno")


def test_random_symmetries_map_pairs_to_pairs(data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    v = torch.arange(2 * 3 * 3 * 2.0).view(2, 3, 3, 2)
    found = {tuple(random_symmetry(rng, (False, False))(v)[0, ..., 0].flatten().tolist()) for _ in range(100)}
    assert len(found) == 8
    assert random_symmetry(rng, (True, False, False))(torch.zeros(2, 3, 3, 3, 1)).shape == (2, 3, 3, 3, 1)
    # On a periodic axis x goes to -x, and the node at 0 stays.
    x = torch.arange(5.0)[None, :, None]
    for _ in range(5):
        turned = random_symmetry(rng, (True,))(x).flatten().tolist()
        assert turned in ([0, 1, 2, 3, 4], [0, 4, 3, 2, 1])
    plain = train_small(data, tmp_path / "plain")
    turned = train(replace(SMALL, symmetric=True), data, tmp_path / "turned", model=MODEL)
    assert turned["test_relative_l2"] != plain["test_relative_l2"]
    assert turned["test_relative_l2"] < 0.7 * turned["history"][0]["test_relative_l2"]


class Mirrored:
    """A generator that draws the negative of another."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.Generator(np.random.PCG64(seed))

    def uniform(self, *arguments: float) -> np.ndarray:
        return -self.rng.uniform(*arguments)


def test_reflected_pipes_are_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = PipeFlowRecipe(resolution=9, along=20, across=4, viscosity=0.05)
    pairs = load_pairs(generate(recipe, 8, tmp_path / "pipes.h5"))
    objective = Objective(TrainConfig(reflect=(1,)), pairs)
    model = FNO(2, 1)
    model.set_normalisers(pairs.inputs, pairs.targets)
    samples = np.arange(8)
    inputs, targets, _ = objective.batch(model, samples, 0, 0)
    mirrored = (inputs != pairs.inputs).flatten(1).any(1)
    assert 0 < mirrored.sum() < 8
    assert torch.equal(targets[~mirrored], pairs.targets[~mirrored])
    assert torch.equal(targets[mirrored], pairs.targets[mirrored].flip(2))
    torch.testing.assert_close(inputs[mirrored][..., 0], pairs.inputs[mirrored][..., 0].flip(2))
    middle = 2 * model.input_mean[1]
    torch.testing.assert_close(inputs[mirrored][..., 1], middle - pairs.inputs[mirrored][..., 1].flip(2))
    # As the equations have it: the flow through the mirrored channel.
    monkeypatch.setattr("sciml.datasets.recipes.pipe_flow.np.random.default_rng", Mirrored)
    there = recipe.sample(3)
    monkeypatch.undo()
    here = recipe.sample(3)
    np.testing.assert_allclose(there.fields["u"], here.fields["u"][:, ::-1], atol=1e-8)
    np.testing.assert_allclose(there.fields["y"], -here.fields["y"][:, ::-1], atol=1e-12)
    # Around an airfoil the position across is no coordinate of its own axis.
    around = replace(pairs, inputs=pairs.inputs.transpose(1, 2))
    for changes, wrong in (
        ({"reflect": (2,)}, pairs),
        ({"reflect": (0,), "symmetric": True}, pairs),
        ({"reflect": (1,)}, around),
    ):
        with pytest.raises(ConfigError, match="reflect="):
            Objective(TrainConfig(**changes), wrong)  # type: ignore[arg-type]


def test_schedule() -> None:
    rates = [learning_rate(step, 100, 2.0) for step in range(101)]
    assert max(rates) == rates[20] == 2.0
    assert rates[0] == pytest.approx(0.08)
    assert rates[100] == pytest.approx(0)
    assert np.all(np.diff(rates[:21]) > 0)
    assert np.all(np.diff(rates[20:]) < 0)


def test_bad_settings(data: Path, tmp_path: Path) -> None:
    for name, value in (("epochs", 0), ("lr", 0.0), ("n_train", -1), ("batch_size", 0)):
        with pytest.raises(ConfigError, match=f"{name}={value}"):
            TrainConfig(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="need 61 samples, the dataset has 60"):
        train(TrainConfig(n_train=55, n_test=6), data, tmp_path / "run")
    with pytest.raises(ConfigError, match="too coarse for modes=60"):
        train(TrainConfig(), data, tmp_path / "run", model=FNOConfig(modes=(60,)))
    with pytest.raises(ConfigError, match="stride=5"):
        train(TrainConfig(stride=5), data, tmp_path / "run")
    with pytest.raises(ConfigError, match="device='gpu'"):
        resolve_device("gpu")
    with pytest.raises(ConfigError, match="device='meta'"):
        resolve_device("meta")
    with pytest.raises(ConfigError, match="exclude each other"):
        train_small(data, tmp_path / "run", resume=True, overwrite=True)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="0 GPUs are available"):
            resolve_device("cuda")
    assert not (tmp_path / "run").exists()
    copy = tmp_path / "nan.h5"
    copy.write_bytes(data.read_bytes())
    with h5py.File(copy, "r+") as file:
        file["t0_fields/a"][7, 3, 3] = np.nan
    with pytest.raises(ConfigError, match=r"field 'a' .* not finite in trajectory 7"):
        train_small(copy, tmp_path / "run")
