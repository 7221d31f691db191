"""Training of operators on clouds: ragged samples, other inputs, reflections, interruptions, what cannot be learned."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from sciml.cli import main
from sciml.datasets import FieldSpec, PointsDataset, PointsLayout, Recipe, Trajectory, generate
from sciml.errors import ConfigError
from sciml.metrics import relative_l2
from sciml.operators import GeoFNO, GeoFNOConfig, Operator, PointMLP
from sciml.operators import geofno as module
from sciml.training import TrainConfig, evaluate, train
from sciml.training.data import load_pairs
from sciml.training.held_out import thinned
from sciml.training.objective import Objective
from sciml.training.scores import no_skill_errors

SMALL = {"modes": (6,), "point_modes": (4,), "width": 8, "latent": (8,), "deformation_width": 16}


@dataclass(frozen=True)
class Blobs(Recipe):
    """u = s f in random disks, given at 60 to 90 points."""

    check_limits = {}  # noqa: RUF012 - read only

    def layout(self) -> PointsLayout:
        fields = tuple(FieldSpec(name, name) for name in ("f", "u", "weight"))
        roles = {"inputs": ("f",), "targets": ("u",), "weight": "weight", "code": ("s",)}
        return PointsLayout("blobs", 2, fields, 80, scalars=("s",), **roles)  # type: ignore[arg-type]

    def sample(self, seed: int) -> Trajectory:
        rng = np.random.default_rng(seed)
        n, s, centre = int(rng.integers(60, 91)), rng.uniform(1, 2), rng.uniform(-0.2, 0.2, 2)
        radius, angle = np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
        x = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        f = np.sin(3 * x[:, 0]) + 1.5
        weight = np.full(n, np.pi / n)
        return Trajectory({"positions": x, "f": f, "u": s * f, "weight": weight}, {"s": s})


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(Blobs(), 40, tmp_path_factory.mktemp("blobs") / "blobs.h5", progress=False)


def test_pairs_of_clouds(blobs: Path) -> None:
    pairs = load_pairs(blobs, code=True)
    with PointsDataset(blobs) as data:
        counts = np.diff(data.offsets)
        assert pairs.inputs.shape == (40, counts.max(), 5)
        assert pairs.mask is not None
        assert np.array_equal(pairs.mask[..., 0].sum(1).numpy(), counts)
        row = int(counts.argmin())
        cut = slice(0, counts[row])
        assert np.allclose(pairs.inputs[row, cut, :2], data.read("positions", row))
        assert np.allclose(pairs.inputs[row, :, 2].sum(), np.pi, atol=1e-5)
        assert np.allclose(pairs.targets[row, cut, 0], data.read("u", row))
        assert (pairs.inputs[row, :, 4] == float(data["s"][row])).all()
        mean = data["u"][:].mean()
        errors = [
            np.linalg.norm(mean - u) / np.linalg.norm(u)
            for u in np.split(data["u"][:], np.cumsum(counts)[:-1])
        ]
    assert no_skill_errors(pairs)["mean"] == pytest.approx(np.mean(errors), rel=1e-5)
    with pytest.raises(ConfigError, match="stride=2: clouds have no grid"):
        thinned(pairs, 2, 1)


@pytest.mark.parametrize(
    ("model", "changes"), [(module.GeoFNOConfig(**SMALL), {}), (PointMLP.config_type(width=32, depth=2), {})]
)
def test_training_on_ragged_clouds(model: Any, changes: dict, blobs: Path, tmp_path: Path) -> None:
    config = TrainConfig(epochs=30, batch_size=8, lr=1e-2, code=True)
    result = train(config, blobs, tmp_path / "run", model=model, progress=False)
    assert result["test_relative_l2"] < 0.1
    assert result["no_skill"]["mean"] < 1
    rows = evaluate(tmp_path / "run", blobs, output=tmp_path / "report")
    assert [row["stride"] for row in rows] == [1]
    assert rows[0]["relative_l2"] == pytest.approx(result["test_relative_l2"], rel=1e-4)
    assert ("folded" in rows[0]) == isinstance(model, GeoFNOConfig)
    assert (tmp_path / "report" / "report.html").stat().st_size > 1000


def test_interrupted_training_of_clouds_ends_with_the_same_weights(blobs: Path, tmp_path: Path) -> None:
    config, model = TrainConfig(epochs=3, batch_size=8), module.GeoFNOConfig(**SMALL)
    train(config, blobs, tmp_path / "whole", model=model, progress=False)

    class Stop(Exception):
        pass

    def once(*arguments: Any) -> Tensor:
        errors.append(relative_l2(*arguments))
        if len(errors) == 2:
            raise Stop
        return errors[-1]

    errors: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sciml.training.loop.relative_l2", once)
        with pytest.raises(Stop):
            train(config, blobs, tmp_path / "cut", model=model, progress=False, checkpoint_seconds=0)
    train(config, blobs, tmp_path / "cut", model=model, progress=False, resume=True)
    first, second = (Operator.load(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_inputs_than_declared(blobs: Path, tmp_path: Path) -> None:
    assert load_pairs(blobs, inputs=()).inputs.shape[-1] == 3
    both = load_pairs(blobs, inputs=("weight", "f"))
    inside = both.inputs[..., 2] > 0
    assert torch.equal(both.inputs[..., 3][inside], both.inputs[..., 2][inside])
    with pytest.raises(ConfigError, match="'u' is what is to be predicted"):
        load_pairs(blobs, inputs=("u",))
    with pytest.raises(ConfigError, match="did you mean 'weight'"):
        load_pairs(blobs, inputs=("weights",))
    config = TrainConfig(epochs=1, inputs=())
    train(config, blobs, tmp_path / "run", model=GeoFNOConfig(**SMALL), progress=False)  # type: ignore[arg-type]
    assert evaluate(tmp_path / "run", blobs)[0]["samples"] == 4
    assert main(["predict", str(tmp_path / "run"), str(blobs), "-o", str(tmp_path / "p.h5"), "--quiet"]) == 0
    with PointsDataset(tmp_path / "p.h5") as data:
        assert data.fields == ("positions", "weight", "u")


def test_reflected_batches(blobs: Path, tmp_path: Path) -> None:
    pairs = load_pairs(blobs)
    model = GeoFNO(4, 1, **SMALL)  # type: ignore[arg-type]
    model.set_normalisers(pairs.inputs, pairs.targets)
    samples = np.arange(20)
    plain = Objective(TrainConfig(), pairs).batch(model, samples, 1, 2)[0]
    objective = Objective(TrainConfig(reflect=(0, 1)), pairs)
    found = objective.batch(model, samples, 1, 2)[0]
    assert torch.equal(found, objective.batch(model, samples, 1, 2)[0])
    assert not torch.equal(found, objective.batch(model, samples, 1, 3)[0])
    assert torch.equal(found[..., 2:], plain[..., 2:])
    for axis in (0, 1):
        low, high = (float(extreme(pairs.inputs[..., axis])) for extreme in (torch.min, torch.max))
        turned = (found[..., axis] - plain[..., axis]).abs().amax(1) > 1e-6
        assert 3 < turned.sum() < 17
        assert torch.allclose(found[turned][..., axis], low + high - plain[turned][..., axis], atol=1e-5)
    for wrong in ("cells/quad", "positions"):
        with pytest.raises(ConfigError, match=f"unknown field of blobs.h5 '{wrong}'"):
            load_pairs(blobs, inputs=(wrong,))
    with pytest.raises(ConfigError, match=r"code_size=3: .* gives 0 scalars"):
        train(TrainConfig(), blobs, tmp_path / "run", model=PointMLP.config_type(code_size=3), progress=False)
    for changes in ({"reflect": (2,)}, {"reflect": (0,), "code": True}):
        config = TrainConfig(epochs=1, **changes)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="reflect="):
            train(config, blobs, tmp_path / "run", model=GeoFNOConfig(**SMALL), progress=False)  # type: ignore[arg-type]


def test_half_precision_computes_transforms_in_single(blobs: Path, tmp_path: Path) -> None:
    config = TrainConfig(epochs=2, batch_size=8, precision="bfloat16")
    result = train(config, blobs, tmp_path / "run", model=GeoFNOConfig(**SMALL), progress=False)  # type: ignore[arg-type]
    assert result["test_relative_l2"] < 1


def altered(blobs: Path, tmp_path: Path, change: Any) -> Path:
    path = tmp_path / "altered.h5"
    path.write_bytes(blobs.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def same_point(file: h5py.File) -> None:
    file["points/positions"][1] = file["points/positions"][0]


def no_number(file: h5py.File) -> None:
    file["fields/f"][3] = np.nan


def no_weight(file: h5py.File) -> None:
    file["fields/weight"][2] = 0.0


def no_targets(file: h5py.File) -> None:
    file.attrs["target_fields"] = np.array([], dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (same_point, "sample 0 .* 1 of its points coincide"),
        (no_number, "field 'f' .* not finite in sample 0"),
        (no_weight, "quadrature weight of 0"),
        (no_targets, "declares no learning task"),
    ],
)
def test_clouds_that_cannot_be_learned(change: Any, message: str, blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_pairs(altered(blobs, tmp_path, change))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fno"], "FNO: .* holds functions at points; choose geofno"),
        (["geofno", "--stride", "2"], "holds functions at points, without a grid"),
        (["geofno", "--loss", "h1"], "scattered points have no differences"),
        (["geofno", "--point-modes", "16"], "too few points"),
    ],
)
def test_command_line(
    arguments: list[str], message: str, blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operator, *rest = arguments
    assert (
        main(["train", operator, str(blobs), "-o", str(tmp_path / "run"), "--epochs", "1", "--quiet", *rest])
        == 1
    )
    error = capsys.readouterr().err
    assert error.startswith("sciml: error:")
    assert re.search(message, error)
