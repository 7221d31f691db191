"""What a dataset is to be learned from: frames, shapes, files of others."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from sciml.cli import main
from sciml.datasets import FieldsDataset, generate, open_dataset
from sciml.datasets.recipes import BurgersRecipe, DarcyRecipe, GrayScottRecipe, HeatStarRecipe
from sciml.errors import ConfigError
from sciml.files import read_json
from sciml.metrics import relative_l2
from sciml.operators import FNO, FNOConfig
from sciml.training import TrainConfig, evaluate, train
from sciml.training.data import load_pairs
from sciml.training.prediction import predict


@pytest.fixture(scope="module")
def burgers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = BurgersRecipe(resolution=64, frames=6, modes=20, viscosity=0.02)
    return generate(recipe, 40, tmp_path_factory.mktemp("data") / "burgers.h5")


def test_the_final_frame(burgers: Path) -> None:
    with FieldsDataset(burgers) as data:
        u = torch.from_numpy(data["u"][:])
    pairs = load_pairs(burgers)
    assert torch.equal(pairs.inputs, u[:, 0, :, None])
    assert torch.equal(pairs.targets, u[:, -1, :, None])
    assert pairs.periodic == (True,)
    pairs = load_pairs(burgers, 4, "final", 2, 3)
    assert torch.equal(pairs.inputs, u[:, :2, ::4].movedim(1, -1))
    assert torch.equal(pairs.targets, u[:, 4, ::4, None])
    assert pairs.spacing == pytest.approx((4 / 64,))


def test_all_frames_at_once(burgers: Path, tmp_path: Path) -> None:
    with FieldsDataset(burgers) as data:
        u, times = torch.from_numpy(data["u"][:]), data.times
    pairs = load_pairs(burgers, 2, "spacetime", 2)
    assert torch.equal(pairs.targets[..., 0], u[:, 2:, ::2].movedim(1, -1))
    assert pairs.inputs.shape == (40, 32, 4, 2)
    for t in range(4):
        assert torch.equal(pairs.inputs[:, :, t], u[:, :2, ::2].movedim(1, -1))
    assert pairs.periodic == (True, False)
    assert pairs.spacing == pytest.approx((2 / 64, times[1]))
    # Of a repeated view the mean is that of what is repeated, and the copy is not made.
    model = FNO(2, 1, (True, False), modes=(4, 4), width=2)
    model.set_normalisers(pairs.inputs, pairs.targets)
    assert torch.allclose(model.input_mean, u[:, :2, ::2].mean((0, 2)), atol=1e-6)
    assert torch.allclose(model.input_std, u[:, :2, ::2].movedim(1, 0).flatten(1).std(1), atol=1e-6)


def test_masks_and_constant_inputs_go_along_time(tmp_path: Path) -> None:
    path = generate(HeatStarRecipe(resolution=33), 3, tmp_path / "heat.h5")
    with FieldsDataset(path) as data:
        u, mask = torch.from_numpy(data["u"][:]), torch.from_numpy(data["mask"][:])
    pairs = load_pairs(path, 1, "spacetime", 1, 2)
    assert pairs.mask is not None
    assert pairs.mask.shape == (3, 33, 33, 2, 1)
    assert torch.equal(pairs.inputs[..., 1, :], torch.stack([u[:, 0], mask], -1))
    assert torch.equal(pairs.mask[..., 1, 0], mask)
    assert torch.equal(pairs.targets[..., 0], u[:, 1:3].movedim(1, -1))


def test_fields_of_several_components(tmp_path: Path) -> None:
    path = generate(
        GrayScottRecipe(resolution=32, refine=4, frames=3, final_time=20.0), 2, tmp_path / "gray.h5"
    )
    pairs = load_pairs(path, task="final", n_in=2)
    with FieldsDataset(path) as data:
        names = data.inputs
        frames = [torch.from_numpy(data[name][:]) for name in names]
    assert torch.equal(pairs.inputs, torch.cat([u[:, :2].movedim(1, -1) for u in frames], -1))
    assert torch.equal(pairs.targets, torch.stack([u[:, -1] for u in frames], -1))


def test_what_does_not_fit_is_named(burgers: Path, tmp_path: Path) -> None:
    darcy = generate(DarcyRecipe(resolution=9), 2, tmp_path / "darcy.h5")
    with pytest.raises(ConfigError, match=r"task='final': .*darcy\.h5' holds a steady problem"):
        load_pairs(darcy, task="final")
    with pytest.raises(ConfigError, match="time-dependent"):
        load_pairs(burgers, task="steady")
    with pytest.raises(ConfigError, match=r"need 7 frames, .* has 6"):
        load_pairs(burgers, task="final", n_in=3, n_out=4)
    with pytest.raises(ConfigError, match="two or more frames"):
        load_pairs(burgers, task="spacetime", n_in=5)
    with pytest.raises(ConfigError, match=r"n_in=2, n_out=0, start=0: .*leave them out"):
        load_pairs(darcy, n_in=2)
    assert load_pairs(darcy).turnable
    assert not load_pairs(burgers, task="spacetime", n_in=2).turnable
    with pytest.raises(ConfigError, match=r"symmetric=True: .*burgers"):
        train(TrainConfig(symmetric=True, task="spacetime"), burgers, tmp_path / "run")
    with pytest.raises(ConfigError, match="n_in=0"):
        TrainConfig(n_in=0)


@pytest.mark.parametrize("task", ["final", "spacetime"])
def test_training_and_evaluation(burgers: Path, tmp_path: Path, task: str) -> None:
    config = TrainConfig(task=task, n_in=2, epochs=6, batch_size=6, lr=1e-2)  # type: ignore[arg-type]
    result = train(
        config, burgers, tmp_path / "run", model=FNOConfig(modes=(8,) if task == "final" else (8, 2), width=8)
    )
    assert result["test_relative_l2"] < 0.5 * result["history"][0]["test_relative_l2"]
    rows = evaluate(tmp_path / "run", burgers, strides=(1, 2), output=tmp_path / "evaluation")
    time = [] if task == "final" else [4]
    assert [row["resolution"] for row in rows] == [[64, *time], [32, *time]]
    assert rows[0]["relative_l2"] == pytest.approx(result["test_relative_l2"], rel=1e-5)
    pairs = load_pairs(burgers, 1, task, 2).subset(slice(36, 40))  # type: ignore[arg-type]
    error = relative_l2(predict(FNO.load(tmp_path / "run"), pairs.inputs), pairs.targets).mean()
    assert float(error) == pytest.approx(result["test_relative_l2"], rel=1e-5)


def test_a_pdebench_file_made_by_hand(tmp_path: Path, sciml: Callable) -> None:
    """Another code's layout, end to end through the command line: travelling waves of random phase."""
    rng = np.random.default_rng(0)
    x, t = (np.arange(64) + 0.5) / 64, np.linspace(0, 1, 5)
    phase = rng.uniform(0, 1, (30, 1, 1))
    amplitude = rng.uniform(0.5, 1.5, (30, 1, 1))
    u = amplitude * np.sin(2 * np.pi * (x - 0.4 * t[:, None] + phase))
    with h5py.File(tmp_path / "1D_Advection_Sols_beta0.4.hdf5", "w") as file:
        file["tensor"] = u.astype(np.float32)
        file["x-coordinate"], file["t-coordinate"] = (
            x.astype(np.float32),
            np.append(t, 1.25).astype(np.float32),
        )
    for command in (
        "convert 1D_Advection_Sols_beta0.4.hdf5 --to sciml --periodic all -o waves.h5",
        "train fno waves.h5 --modes 8 --width 8 --epochs 20 --batch-size 5 --lr 1e-2 -o run",
        "evaluate run waves.h5",
    ):
        done = sciml(*command.split())
        assert done.returncode == 0, done.stderr
    model = FNO.load(tmp_path / "run")
    a = torch.from_numpy(u[-3:, 0, :, None]).float()
    with torch.no_grad():
        error = relative_l2(model(a), torch.from_numpy(u[-3:, -1, :, None]).float())
    assert float(error.max()) < 0.1
    assert read_json(tmp_path / "run/evaluation-waves/evaluation.json")[0]["samples"] == 3


def test_what_is_not_a_number_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, out = tmp_path / "bad.hdf5", tmp_path / "bad.h5"
    values = np.ones((3, 5, 8), np.float32)
    values[1, 2, 3] = np.nan
    with h5py.File(path, "w") as file:
        file["tensor"], file["x-coordinate"] = values, (np.arange(8) + 0.5) / 8
    assert main(["convert", str(path), "--to", "sciml", "--periodic", "all", "-o", str(out)]) == 0
    assert "warning: 1 trajectories, the first of them 1, have values that are not" in capsys.readouterr().err
    with open_dataset(out) as data:
        assert data.checks["not_finite"][0].tolist() == [0, pytest.approx(1 / 40), 0]
    assert main(["inspect", str(out)]) == 0
    assert "not_finite" in capsys.readouterr().out
    with pytest.raises(
        ConfigError, match="not finite in trajectory 1: mend or leave out such trajectories where"
    ):
        load_pairs(out, task="spacetime")
