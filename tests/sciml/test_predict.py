"""Predictions of files: what the model gives, in datasets that open, whole or not at all."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from sciml.cli import main
from sciml.datasets import FieldsDataset, generate
from sciml.datasets.kinds import create, write
from sciml.datasets.recipe import FieldsLayout, FieldSpec, Trajectory
from sciml.datasets.recipes import BurgersRecipe, DarcyRecipe, HeatStarRecipe
from sciml.datasets.record import Record
from sciml.errors import ConfigError, DatasetFormatError, OutputExistsError
from sciml.operators import FNO
from sciml.solvers import CartesianGrid
from sciml.training import TrainConfig, prediction_files
from sciml.training.data import TaskName, load_pairs
from sciml.training.prediction import predict_pairs, roll_out
from sciml.training.prediction_files import predict_file

BURGERS = BurgersRecipe(resolution=64, frames=6, modes=20, viscosity=0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predict")
    generate(DarcyRecipe(resolution=17), 5, path / "darcy.h5")
    generate(BURGERS, 5, path / "burgers.h5")
    return path


def untrained(
    data: Path, model: Path, task: TaskName = "auto", n_in: int = 1, n_out: int = 0, modes: int = 4
) -> FNO:
    """Save an operator with random weights as training on a dataset does."""
    pairs = load_pairs(data, task=task, n_in=n_in, n_out=n_out)
    torch.manual_seed(0)
    operator = FNO(pairs.inputs.shape[-1], pairs.targets.shape[-1], pairs.periodic, modes=(modes,), width=4)
    operator.set_normalisers(pairs.inputs, pairs.targets)
    trained = {
        "file": data.name,
        "config": pairs.config,
        "inputs": pairs.names[0],
        "targets": pairs.names[1],
        "resolution": pairs.resolution,
    }
    settings = dataclasses.asdict(TrainConfig(task=pairs.task, n_in=n_in, n_out=n_out))
    operator.save(model, {"data": trained, "train": settings})
    return operator.eval()


def hand_made(path: Path, layout: FieldsLayout, fields: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        n = len(next(iter(fields.values())))
        create(file, layout, n)
        trajectories = [Trajectory({name: values[i] for name, values in fields.items()}) for i in range(n)]
        write(file, layout, 0, trajectories)
        Record({}, np.full(n, -1)).write(file)
    return path


def test_steady(folder: Path, tmp_path: Path) -> None:
    data, model = folder / "darcy.h5", tmp_path / "model.safetensors"
    operator = untrained(data, model)
    out = predict_file(model, data, tmp_path / "out.h5", batch_size=2)
    with FieldsDataset(data) as source, FieldsDataset(out) as found, torch.no_grad():
        a = torch.from_numpy(source["a"][:])
        expected = torch.cat([operator(part[..., None])[..., 0] for part in a.split(2)])
        assert np.array_equal(found.read("u"), expected.numpy())
        assert np.array_equal(found["a"][:], a)
        assert not found["u"][:, 0].any()
        assert (found.inputs, found.targets, found.steady) == (("a",), ("u",), True)
        assert found.seeds is not None
        assert found.seeds.tolist() == source.seeds.tolist()  # type: ignore[union-attr]
        assert all(np.array_equal(found.axes[name], source.axes[name]) for name in "xy")
        assert found.config["predicted_by"]["task"] == "steady"
        assert found.config["predicted_by"]["file"] == "model.safetensors"
        assert len(found.config["predicted_by"]["sha256"]) == 64
        assert found.config["predicted_from"]["file"] == "darcy.h5"
        assert found.record is not None
        assert found.record.failures() == []
    assert torch.equal(load_pairs(out).targets[..., 0], expected)


def test_final(folder: Path, tmp_path: Path) -> None:
    data, model = folder / "burgers.h5", tmp_path / "model.safetensors"
    operator = untrained(data, model, "final", 2, 3)
    out = predict_file(model, data, tmp_path / "out.h5", stride=2)
    pairs = load_pairs(data, 2, "final", 2, 3)
    with FieldsDataset(data) as source, FieldsDataset(out) as found:
        assert found.times.tolist() == pytest.approx(source.times[[0, 1, 4]].tolist())
        assert np.array_equal(found["u"][:, :2], source["u"][:, :2, ::2])
        assert np.array_equal(found["u"][:, 2], predict_pairs(operator, pairs)[..., 0].numpy())
        assert found.periodic == (True,)
        assert np.array_equal(found.axes["x"], source.axes["x"][::2])
        condition = found.file["boundary_conditions/x_periodic"]
        assert np.flatnonzero(condition["mask"][()]).tolist() == [0, 31]
        assert float(found.file["scalars/nu"][()]) == pytest.approx(0.02)


def test_all_frames_at_once(folder: Path, tmp_path: Path) -> None:
    data, model = folder / "burgers.h5", tmp_path / "model.safetensors"
    operator = untrained(data, model, "spacetime", 1, modes=4)
    out = predict_file(model, data, tmp_path / "out.h5")
    expected = predict_pairs(operator, load_pairs(data, 1, "spacetime"))[..., 0].movedim(-1, 1)
    with FieldsDataset(data) as source, FieldsDataset(out) as found:
        assert np.array_equal(found["u"][:, 1:], expected.numpy())
        assert np.array_equal(found["u"][:, 0], source["u"][:, 0])
        assert found.times.tolist() == pytest.approx(source.times.tolist())


def test_roll_out_further_than_trained(folder: Path, tmp_path: Path) -> None:
    data, model = folder / "burgers.h5", tmp_path / "model.safetensors"
    operator = untrained(data, model, "step", 2)
    pairs = load_pairs(data, 1, "step", 2)
    for frames in (0, 9):
        out = predict_file(model, data, tmp_path / f"{frames}.h5", frames=frames, batch_size=5)
        steps = frames or 4
        expected = roll_out(operator, pairs.inputs, 2, steps)[..., 0].movedim(-1, 1)
        with FieldsDataset(data) as source, FieldsDataset(out) as found:
            assert np.array_equal(found["u"][:, 2:], expected.numpy())
            assert np.array_equal(found["u"][:, :2], source["u"][:, :2])
            interval = float(source.times[1])
            assert found.times.tolist() == pytest.approx((interval * np.arange(2 + steps)).tolist())
    # What was predicted can be predicted on: its own first frames are given.
    again = predict_file(model, out, tmp_path / "again.h5", frames=9, batch_size=5)
    with FieldsDataset(out) as first, FieldsDataset(again) as second:
        assert np.array_equal(first["u"][:], second["u"][:])


def test_inputs_alone(folder: Path, tmp_path: Path) -> None:
    """A file with a coefficient, or with an initial condition, and nothing else."""
    model = tmp_path / "darcy.safetensors"
    operator = untrained(folder / "darcy.h5", model)
    a = np.random.default_rng(0).uniform(3, 12, (3, 17, 17)).astype(np.float32)
    grid = CartesianGrid((0.0, 0.0), (1.0, 1.0), (16, 16))
    layout = FieldsLayout(
        "mine", grid, (FieldSpec("a", "permeability", time_varying=False),), boundary="OPEN"
    )
    alone = hand_made(tmp_path / "a.h5", layout, {"a": a})
    out = predict_file(model, alone, tmp_path / "u.h5")
    with FieldsDataset(out) as found, torch.no_grad():
        assert np.array_equal(found.read("u"), operator(torch.from_numpy(a)[..., None])[..., 0].numpy())
        assert sorted(found.file["boundary_conditions"]) == ["x_open", "y_open"]
        assert found.seeds is not None
        assert found.seeds.tolist() == [-1, -1, -1]
        assert found["a"].attrs["description"] == "permeability"

    untrained(folder / "burgers.h5", tmp_path / "burgers.safetensors", "spacetime", 1)
    with FieldsDataset(folder / "burgers.h5") as source:
        u, times, lower = source["u"][:, :1], source.times, float(source.axes["x"][0])
        line = CartesianGrid((lower,), (lower + 64 * float(np.diff(source.axes["x"])[0]),), (64,), (True,))
    one = FieldsLayout("start", line, (FieldSpec("u", ""),), times=(2.0,), steady=False)
    start = hand_made(tmp_path / "start.h5", one, {"u": u})
    whole = predict_file(tmp_path / "burgers.safetensors", folder / "burgers.h5", tmp_path / "whole.h5")
    later = predict_file(tmp_path / "burgers.safetensors", start, tmp_path / "later.h5")
    with FieldsDataset(whole) as expected, FieldsDataset(later) as found:
        assert np.array_equal(found["u"][:], expected["u"][:])
        # How far ahead the model looks is known from the recipe of its data.
        assert found.times.tolist() == pytest.approx((2.0 + times).tolist())


def test_masks_are_copied_and_vectors_stay_vectors(tmp_path: Path) -> None:
    heat = generate(HeatStarRecipe(resolution=33), 2, tmp_path / "heat.h5")
    untrained(heat, tmp_path / "heat.safetensors", "step", 1, 2)
    out = predict_file(tmp_path / "heat.safetensors", heat, tmp_path / "out.h5")
    with FieldsDataset(heat) as source, FieldsDataset(out) as found:
        assert found.mask == "mask"
        assert np.array_equal(found["mask"][:], source["mask"][:])
        assert np.array_equal(found["u"][:, 0], source["u"][:, 0])
        assert len(found.times) == 3

    rng = np.random.default_rng(0)
    grid = CartesianGrid((0.0, 0.0), (1.0, 1.0), (8, 8), (True, True))
    layout = FieldsLayout(
        "flow",
        grid,
        (FieldSpec("p", "", 0), FieldSpec("v", "", 1)),
        times=(0.0, 0.5),
        steady=False,
        inputs=("p", "v"),
        targets=("v", "p"),
    )
    fields = {"p": rng.normal(size=(2, 2, 8, 8)), "v": rng.normal(size=(2, 2, 8, 8, 2))}
    flow = hand_made(tmp_path / "flow.h5", layout, fields)
    operator = untrained(flow, tmp_path / "flow.safetensors", "final", modes=3)
    out = predict_file(tmp_path / "flow.safetensors", flow, tmp_path / "vp.h5")
    expected = predict_pairs(operator, load_pairs(flow)).numpy()
    with FieldsDataset(out) as found:
        assert np.array_equal(found["v"][:, 1], expected[..., :2])
        assert np.array_equal(found["p"][:, 1], expected[..., 2])
        assert np.array_equal(found["v"][:, 0], fields["v"][:, 0].astype(np.float32))
        assert found.times.tolist() == [0.0, 0.5]


def test_it_appears_whole_or_not_at_all(folder: Path, tmp_path: Path, monkeypatch) -> None:
    data, model, out = folder / "darcy.h5", tmp_path / "model.safetensors", tmp_path / "out" / "u.h5"
    untrained(data, model)
    apply, calls = prediction_files.predict, []

    def interrupted(*arguments: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return apply(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(prediction_files, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_file(model, data, out, batch_size=2)
    assert list(out.parent.iterdir()) == []
    monkeypatch.undo()
    predict_file(model, data, out)
    before = out.read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        predict_file(model, data, out)
    calls.clear()
    monkeypatch.setattr(prediction_files, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_file(model, data, out, batch_size=2, overwrite=True)
    assert out.read_bytes() == before
    for taken in (data, model):
        with pytest.raises(OutputExistsError, match="is the input"):
            predict_file(model, data, taken, overwrite=True)


def test_what_does_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    darcy, burgers = folder / "darcy.h5", folder / "burgers.h5"
    steady, final, step = (tmp_path / f"{name}.safetensors" for name in ("steady", "final", "step"))
    operator = untrained(darcy, steady, modes=16)
    untrained(burgers, final, "final", 3, 2)
    untrained(burgers, step, "step")
    out = tmp_path / "out.h5"
    for model, data, settings, message in (
        (steady, burgers, {}, r"burgers.h5' has no field a \(it has u\): the model needs a"),
        (steady, darcy, {"stride": 2}, "stride=2: axis 0 with 9 nodes is too coarse for modes=16"),
        (steady, darcy, {"stride": 3}, "stride=3 does not fit 17 bounded nodes"),
        (steady, darcy, {"frames": 2}, "frames=2: it belongs to models of task 'step', not 'steady'"),
        (steady, darcy, {"batch_size": 0}, "batch_size=0"),
        (steady, darcy, {"device": "gpu"}, "device='gpu'"),
    ):
        with pytest.raises(ConfigError, match=message):
            predict_file(model, data, out, **settings)  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="0 GPUs are available"):
            predict_file(steady, darcy, out, device="cuda")

    def altered(data: Path, edit: Callable[[h5py.File], None]) -> Path:
        copy = tmp_path / "altered.h5"
        copy.write_bytes(data.read_bytes())
        with h5py.File(copy, "r+") as file:
            edit(file)
        return copy

    def spoil(file: h5py.File) -> None:
        file["t0_fields/a"][3, 2, 2] = np.nan

    def close(file: h5py.File) -> None:
        file["boundary_conditions/x_periodic"].attrs["bc_type"] = "WALL"

    def shorten(file: h5py.File) -> None:
        values, times, attributes = file["t0_fields/u"][:, :2], file["dimensions/time"], {}
        attributes = dict(file["t0_fields/u"].attrs)
        del file["t0_fields/u"]
        file["t0_fields"].create_dataset("u", data=values).attrs.update(attributes)
        kept, attributes = times[:2], dict(times.attrs)
        del file["dimensions/time"]
        file["dimensions"].create_dataset("time", data=kept).attrs.update(attributes)

    with pytest.raises(ConfigError, match=r"field 'a' .* not finite in trajectory 3"):
        predict_file(steady, altered(darcy, spoil), out, batch_size=2)
    with pytest.raises(ConfigError, match=r"has 1 axes, periodic \(False,\), the FNO 1, periodic \(True,\)"):
        predict_file(step, altered(burgers, close), out)
    with pytest.raises(ConfigError, match=r"has 2 frames, the model needs 3 from frame 0 on"):
        predict_file(final, altered(burgers, shorten), out)
    header = {
        "data": {"file": "x", "config": {}, "inputs": ["a"], "targets": ["u"], "resolution": [17, 17]},
        "train": dataclasses.asdict(TrainConfig()),
    }
    FNO(2, 1, modes=(4,), width=2).save(tmp_path / "two.safetensors", header)
    with pytest.raises(ConfigError, match=r"gives 1 channels \(a\), the FNO takes 2"):
        predict_file(tmp_path / "two.safetensors", darcy, out)
    operator.save(tmp_path / "bare.safetensors")
    with pytest.raises(
        DatasetFormatError, match="does not say what it was trained on, nor which fields it maps"
    ):
        predict_file(tmp_path / "bare.safetensors", darcy, out)
    with pytest.raises(DatasetFormatError, match="does not exist"):
        predict_file(tmp_path / "nowhere", darcy, out)
    (tmp_path / "cut.safetensors").write_bytes(steady.read_bytes()[:-50])
    with pytest.raises(DatasetFormatError, match="damaged"):
        predict_file(tmp_path / "cut.safetensors", darcy, out)
    assert not out.exists()


def test_overflow_is_recorded(folder: Path, tmp_path: Path) -> None:
    operator = untrained(folder / "burgers.h5", tmp_path / "model.safetensors", "step")
    operator.output_std.fill_(1e20)
    header = {
        "data": {"file": "b", "config": {}, "inputs": ["u"], "targets": ["u"], "resolution": [64]},
        "train": dataclasses.asdict(TrainConfig(task="step")),
    }
    operator.save(tmp_path / "wild.safetensors", header)
    out = predict_file(tmp_path / "wild.safetensors", folder / "burgers.h5", tmp_path / "out.h5", frames=4)
    with FieldsDataset(out) as found:
        assert found.record is not None
        assert found.record.failures() == ["not_finite"]
        lost = 1 - np.isfinite(found["u"][:, 1:]).mean((1, 2))
        assert found.checks["not_finite"][0] == pytest.approx(lost)


def test_command_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run, data = tmp_path / "run", str(folder / "burgers.h5")
    run.mkdir()
    untrained(folder / "burgers.h5", run / "model.safetensors", "step")
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "run", data, "-o", "out.h5", "--frames", "7", "--stride", "2"]) == 0
    assert (
        "wrote out.h5: u of 5 trajectories at 32, 8 frames, the first 1 of them given"
        in capsys.readouterr().out
    )
    expected = predict_file(run, data, tmp_path / "same.h5", frames=7, stride=2)
    with FieldsDataset(tmp_path / "out.h5") as found, FieldsDataset(expected) as ours:
        assert np.array_equal(found["u"][:], ours["u"][:])
        assert found.config["predicted_by"]["file"] == "run/model.safetensors"
    assert main(["inspect", "out.h5"]) == 0
    assert "not_finite" in capsys.readouterr().out
    assert main(["plot", "out.h5"]) == 0
    assert main(["predict", "run", data]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "name it with -o" in error
