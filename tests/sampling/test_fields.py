"""Score models of fields: network, training, samples as datasets, evaluation, the command line."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from sciml.cli import main
from sciml.datasets import FieldsDataset, generate
from sciml.datasets.recipes import DarcyRecipe
from sciml.datasets.verification import verify
from sciml.errors import ConfigError, DatasetFormatError, OutputExistsError
from sciml.operators import Denoiser, DenoiserConfig, Operator
from sciml.operators.export import export_onnx
from sciml.sampling import (
    Measurements,
    draw_fields,
    evaluate_score,
    load_score_model,
    reconstruct,
    sample_fields,
)
from sciml.sampling.score_evaluation import distances
from sciml.training import ScoreConfig, TrainConfig, load_fields, train
from sciml.training.denoising import DenoisingObjective

SMALL = DenoiserConfig(width=8, depth=1, embedding=8)
CONFIG = ScoreConfig(epochs=2, n_train=24, n_test=4, batch_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset, and a run on it."""
    folder = tmp_path_factory.mktemp("score")
    generate(DarcyRecipe(resolution=16, medium="smooth"), 32, folder / "darcy.h5", progress=False)
    train(CONFIG, folder / "darcy.h5", folder / "prior", model=SMALL, progress=False)
    return folder


def test_preconditioning() -> None:
    """With a network that is zero the denoiser is the best linear one of white data, y / (1 + sigma^2)."""
    model = Denoiser(2, 2, (True, False), SMALL)
    for parameter in model.last.parameters():
        torch.nn.init.zeros_(parameter)
    y, sigma = torch.randn(3, 8, 9, 2), torch.tensor([0.1, 1.0, 10.0])
    expected = y / (1 + sigma[:, None, None, None] ** 2)
    np.testing.assert_allclose(model(y, sigma).detach(), expected, rtol=1e-5, atol=1e-7)


def test_periodic_axes_have_no_border() -> None:
    torch.manual_seed(0)
    model = Denoiser(1, 1, (True, True), SMALL)
    for block in model.modules():
        if isinstance(block, torch.nn.Conv2d):
            torch.nn.init.normal_(block.weight, std=0.1)
    # Without the coordinates the network commutes with shifts by whole coarse cells.
    model.first.convolution.weight.data[:, 1:] = 0
    y, sigma = torch.randn(1, 8, 8, 1), torch.ones(1)
    shifted = model(y.roll((2, 4), (1, 2)), sigma)
    np.testing.assert_allclose(shifted.detach(), model(y, sigma).roll((2, 4), (1, 2)).detach(), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width=0"),
        ({"embedding": 5}, "embedding=5"),
        ({"noise_std": 0.0}, "noise_std=0"),
    ],
)
def test_bad_configurations(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DenoiserConfig(**settings)


def test_bad_inputs_of_the_network() -> None:
    model = Denoiser(1, 1, (False, False), SMALL)
    y = torch.zeros(2, 8, 8, 1)
    for given, message in (
        ((y,), "deviation of the noise"),
        ((y, torch.ones(3)), "deviation of the noise"),
        ((y[..., 0], torch.ones(2)), "expected torch.float32"),
        ((y.double(), torch.ones(2)), "expected torch.float32"),
        ((y[:, :4], torch.ones(2)), "too coarse"),
    ):
        with pytest.raises(ConfigError, match=message):
            model(*given)
    with pytest.raises(ConfigError, match="must be the same"):
        Denoiser(1, 2)


def test_fields_of_a_steady_problem_are_input_and_solution(folder: Path) -> None:
    pairs = load_fields(folder / "darcy.h5", CONFIG)
    assert pairs.names == (("a", "u"), ("a", "u"))
    with FieldsDataset(folder / "darcy.h5") as data:
        np.testing.assert_array_equal(pairs.targets[3, ..., 0], data["a"][3])
        np.testing.assert_array_equal(pairs.targets[3, ..., 1], data["u"][3, -1])


def test_loss_weighs_levels_alike() -> None:
    """Of white data of deviation 1 the best loss is 1 at every sigma: its error is sigma^2 / (1 + sigma^2)."""

    class White(Denoiser):
        def forward(self, y: torch.Tensor, sigma: torch.Tensor | None = None) -> torch.Tensor:
            assert sigma is not None
            return y / (1 + sigma[:, None, None, None] ** 2)

    model = White(1, 1, (True, True), SMALL)
    z = torch.randn(4, 64, 64, 1)
    objective = DenoisingObjective.__new__(DenoisingObjective)
    objective.config = CONFIG
    sigma = torch.tensor([0.05, 0.5, 5.0, 50.0])
    noised = z + sigma[:, None, None, None] * torch.randn(z.shape)
    np.testing.assert_allclose(objective.losses(model, noised, z, sigma), 1, atol=0.06)


def test_training_goes_on_with_the_same_bits(folder: Path, tmp_path: Path) -> None:
    data = folder / "darcy.h5"
    calls = 0

    def stopping(self: DenoisingObjective, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return original(self, *arguments)

    original = DenoisingObjective.batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DenoisingObjective, "batch", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, data, tmp_path / "run", model=SMALL, progress=False, checkpoint_seconds=0)
    train(CONFIG, data, tmp_path / "run", model=SMALL, progress=False, resume=True)
    whole, parts = (Denoiser.load(run).state_dict() for run in (folder / "prior", tmp_path / "run"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "h1"}, "loss='h1'"),
        ({"task": "step"}, "task='step'"),
        ({"code": True}, "code=True"),
        ({"reflect": (0,)}, "reflect"),
    ],
)
def test_settings_of_supervised_runs_are_refused(
    settings: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(ScoreConfig(**settings), folder / "darcy.h5", tmp_path / "run", model=SMALL, progress=False)


def test_samples_are_a_dataset(folder: Path, tmp_path: Path) -> None:
    path = sample_fields(folder / "prior", tmp_path / "samples.h5", 5, steps=4, seed=3, progress=False)
    failed = [finding for finding in verify(path) if not finding.passed]
    assert [finding.subject for finding in failed] == ["not checked"]
    assert "sampled from a model" in failed[0].found
    with FieldsDataset(path) as data:
        assert (data.n_trajectories, data.steady, data.inputs, data.targets) == (5, True, ("a",), ("u",))
        assert data.config["sampled_by"]["seed"] == 3
        assert data.config["sampled_by"]["solver"] == "dpm++3m"
        with FieldsDataset(folder / "darcy.h5") as source:
            for name, axis in source.axes.items():
                np.testing.assert_allclose(data.axes[name], axis, atol=1e-6)
        stored = np.stack([data["a"][:], data["u"][:, -1]], -1)
    model, _ = load_score_model(folder / "prior")
    # The same whatever the batch.
    drawn = draw_fields(model, 5, (16, 16), steps=4, seed=3, batch_size=2)
    np.testing.assert_allclose(stored, drawn, rtol=1e-4, atol=1e-5)
    with pytest.raises(OutputExistsError):
        sample_fields(folder / "prior", path, 5, progress=False)
    finer = sample_fields(
        folder / "prior", path, 2, steps=4, resolution=(24, 20), overwrite=True, progress=False
    )
    with FieldsDataset(finer) as data:
        assert data.resolution == (24, 20)
        np.testing.assert_allclose([axis[-1] for axis in data.axes.values()], 1.0)


def test_noise_grows_with_the_nodes() -> None:
    model = Denoiser(1, 1, (False, False), SMALL)
    assert model.noise_levels((32, 32)) == (0.002, 80.0)
    assert model.noise_levels((64, 64))[1] == 160.0
    assert model.noise_scale((64, 64)) == pytest.approx(2 * np.exp(0.3))
    objective = DenoisingObjective.__new__(DenoisingObjective)
    objective.config = CONFIG
    sigmas = []
    for nodes in (8, 16):
        objective.pairs = SimpleNamespace(targets=torch.zeros(3, nodes, nodes, 1))  # type: ignore[assignment]
        sigmas.append(objective.batch(model, np.arange(3), 0, 0)[2])
    assert torch.allclose(sigmas[1], 2 * sigmas[0])


def test_runs_are_not_mistaken(folder: Path, tmp_path: Path) -> None:
    from sciml.operators import UNetConfig
    from sciml.training import compare, evaluate, predict_file

    operator = tmp_path / "operator"
    train(
        TrainConfig(epochs=1),
        folder / "darcy.h5",
        operator,
        model=UNetConfig(width=4, depth=1),
        progress=False,
    )
    with pytest.raises(ConfigError, match="holds an operator, not a score model"):
        sample_fields(operator, tmp_path / "x.h5", progress=False)
    for call in (
        lambda: predict_file(folder / "prior", folder / "darcy.h5", tmp_path / "x.h5"),
        lambda: evaluate(folder / "prior", folder / "darcy.h5"),
        lambda: compare([folder / "prior", operator], [folder / "darcy.h5"]),
    ):
        with pytest.raises(ConfigError, match="holds a score model, not an operator"):
            call()
    with pytest.raises(ConfigError, match="a score model is sampled"):
        export_onnx(Operator.load(folder / "prior"), tmp_path / "x.onnx", (16, 16))
    with pytest.raises(DatasetFormatError, match="does not exist"):
        sample_fields(tmp_path / "none", tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_distances_of_known_sets() -> None:
    rng = np.random.default_rng(0)
    data = torch.from_numpy(rng.standard_normal((400, 32, 1)))
    found = distances(2 * data + 1, data, (1.0,), (True,))
    # Energies of all shells but that of the mean are 4 times as large.
    assert found["spectrum"][0] == pytest.approx(np.log10(4), abs=0.1)
    # Of 1 + 2 x and x the distance is E|1 + x|.
    assert found["one_point"][0] == pytest.approx(1.1666, abs=0.02)
    # Its unit is the deviation of the data.
    scaled = distances(6 * data + 3, 3 * data, (1.0,), (True,))
    assert scaled["one_point"][0] == pytest.approx(found["one_point"][0], rel=1e-9)
    assert distances(data, data, (1.0,), (True,)) == {"spectrum": [0.0], "one_point": [0.0]}


def test_evaluation(folder: Path, tmp_path: Path) -> None:
    rows = evaluate_score(
        folder / "prior",
        folder / "darcy.h5",
        n=6,
        steps=4,
        reference_steps=8,
        output=tmp_path / "e",
        progress=False,
    )
    assert rows["fields"] == ["a", "u"]
    assert rows["samples"] == {"4 steps": 6, "8 steps": 6, "unseen": 6, "training": 6}
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["difference"] == rows["difference"]
    assert {"report.html", "samples.png", "spectra.png"} <= {file.name for file in (tmp_path / "e").iterdir()}
    with pytest.raises(ConfigError, match="more steps than"):
        evaluate_score(folder / "prior", folder / "darcy.h5", steps=300)


def test_reconstruction_agrees_with_measurements(folder: Path) -> None:
    model, _ = load_score_model(folder / "prior")
    truth = load_fields(folder / "darcy.h5", CONFIG).targets[-1]
    mask = torch.zeros(truth.shape, dtype=torch.bool)
    mask[::4, ::4] = True
    found = reconstruct(model, Measurements(mask, truth, 0.01), 4, steps=10, iterations=8)
    spread = model.output_std
    gap = ((found - truth) / spread)[:, mask.all(-1)].square().mean().sqrt()
    free = (
        ((draw_fields(model, 4, (16, 16), steps=10) - truth) / spread)[:, mask.all(-1)].square().mean().sqrt()
    )
    assert float(gap) < 0.1 * float(free)
    for arguments, message in (
        ((mask & False, truth), "nothing was measured"),
        ((mask.float(), truth), "mask of torch.float32"),
        ((mask, truth * torch.nan), "not finite"),
        ((mask, truth, 0.0), "noise=0"),
    ):
        with pytest.raises(ConfigError, match=message):
            Measurements(*arguments)
    with pytest.raises(ConfigError, match="axes of space"):
        reconstruct(model, Measurements(mask[0], truth[0]))


def test_command_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(folder / "darcy.h5")
    words = [
        "train",
        "score",
        "DATA",
        "--width",
        "8",
        "--depth",
        "1",
        "--embedding",
        "8",
        "--epochs",
        "1",
        "--n-train",
        "8",
        "-o",
        "prior",
        "--quiet",
    ]
    assert main([data if word == "DATA" else word for word in words]) == 0
    assert main(["sample", "prior", "-n", "3", "--steps", "4", "--quiet"]) == 0
    assert "wrote prior/samples.h5: 3 samples" in capsys.readouterr().out
    with h5py.File("prior/samples.h5") as file:
        assert file["t0_fields/a"].shape == (3, 16, 16)
    for arguments, message in (
        (["sample", "prior", "-n", "3"], "exists"),
        (["sample", "none"], "does not exist"),
        (["sample", "prior", "--solver", "dpm++9", "--overwrite"], "unknown solver"),
        (["sample", "prior", "--solver", "dpm-2m", "--overwrite"], "of the noise form"),
        (["sample", "prior", "--solver", "dpm++23", "--overwrite"], "chooses its own steps"),
        (["sample", "prior", "--steps", "2", "--overwrite"], "steps=2"),
        (["sample", "prior", "-n", "0", "--overwrite"], "n=0"),
        (["sample", "prior", "--resolution", "16", "--overwrite"], "resolution=(16,)"),
        (["sample", "prior", "--seed", "-1", "--overwrite"], "seed=-1"),
        (["evaluate", "prior", data, "--strides", "2"], "strides=(2,)"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    with h5py.File("prior/samples.h5") as file:
        assert file["t0_fields/a"].shape == (3, 16, 16)
    # What another model drew does not stay.
    train(CONFIG, data, "prior", model=SMALL, progress=False, overwrite=True)
    assert not Path("prior/samples.h5").exists()
