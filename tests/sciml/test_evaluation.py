"""What an evaluation measures: spectra that add up, metrics by definition, roll-outs by frame, unseen samples."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciml.datasets import FieldsDataset, generate
from sciml.datasets.recipes import BurgersRecipe, DarcyRecipe, HeatStarRecipe
from sciml.errors import ConfigError, DatasetFormatError
from sciml.files import read_json
from sciml.metrics import correlation_time, pdebench_metrics, relative_l2, well
from sciml.operators import FNO, FNOConfig, Operator
from sciml.training import TrainConfig, evaluate, predict_file, train
from sciml.training.data import Pairs, load_pairs
from sciml.training.held_out import held_out_pairs, model_header, thinned, unseen_rows
from sciml.training.prediction import predict_pairs
from sciml.training.reports import evaluation_table, metrics_table, no_skill
from sciml.training.scores import no_skill_errors, scores
from sciml.training.spectra import spectrum_by_band, wave_spectrum

MODEL = FNOConfig(modes=(8,), width=4, layers=2)


def pairs_of(targets: torch.Tensor, **changes: object) -> Pairs:
    dim = targets.ndim - 2
    one = Pairs(
        torch.zeros_like(targets),
        targets,
        None,
        (1 / 16,) * dim,
        (True,) * dim,
        (("a",), ("u",)),
        None,
        {},
        False,
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def test_errors_without_a_model(burgers: Path) -> None:
    u = torch.tensor([[1.0, 1.0], [3.0, 3.0], [8.0, 8.0]])[..., None]
    # Of each sample the mean of the other two: 5.5, 4.5 and 2.
    assert no_skill_errors(pairs_of(u)) == {
        "zero": 1.0,
        "mean": pytest.approx((4.5 + 0.5 + 0.75) / 3),
    }
    assert no_skill_errors(pairs_of(u[:1])) == {"zero": 1.0}
    assert no_skill({"zero": 1.0, "last frame": 0.3}) == " (0.3000 without a model: the last given frame)"
    # Of two fields with one given frame each, in another order than that of the targets.
    both = pairs_of(torch.stack([u, 2 * u], -1)[..., 0, :], inputs=torch.stack([3 * u, u], -1)[..., 0, :])
    assert "last frame" not in no_skill_errors(both)
    assert no_skill_errors(replace(both, last_channels=(1, 0)))["last frame"] == pytest.approx(0.2**0.5)
    frames = FieldsDataset(burgers).read("u", 1, None, slice(0, 6))
    last = torch.from_numpy(frames[:, 1:2]), torch.from_numpy(frames[:, 2:])
    expected = {
        "spacetime": relative_l2(last[0].expand_as(last[1]), last[1]).mean(),
        "final": relative_l2(last[0], last[1][:, -1:]).mean(),
    }
    for task in ("spacetime", "step", "final"):
        found = no_skill_errors(load_pairs(burgers, 1, task, n_in=2))
        assert found["last frame"] == pytest.approx(
            float(expected.get(task, expected["spacetime"])), rel=1e-5
        )


@pytest.fixture(scope="module")
def darcy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(DarcyRecipe(resolution=17), 40, tmp_path_factory.mktemp("data") / "darcy.h5")


@pytest.fixture(scope="module")
def burgers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = BurgersRecipe(resolution=32, frames=6, modes=10, viscosity=0.02)
    return generate(recipe, 20, tmp_path_factory.mktemp("data") / "burgers.h5")


@pytest.mark.parametrize("periodic", [(True, True), (False, False), (True, False)])
def test_spectra_add_up_to_the_mean_square(periodic: tuple[bool, bool]) -> None:
    values = np.random.default_rng(0).normal(size=(3, 12, 9, 2))
    weights = np.ones((12, 9))
    for axis, wraps in enumerate(periodic):
        if not wraps:
            weights[(slice(None),) * axis + ([0, -1],)] *= 0.5
    mean = (values**2 * (weights / weights.sum())[..., None]).sum((1, 2, 3))
    np.testing.assert_allclose(wave_spectrum(values, (0.1, 0.1), periodic).sum(1), mean, rtol=1e-12)


def test_single_waves_are_in_their_shells() -> None:
    x, y = np.arange(32) / 32, np.linspace(0, 1, 33)
    # |k| = 5 from the sides 3 and 4; cosines of m half waves have k = m / 2.
    both = np.cos(2 * np.pi * 3 * x)[:, None] * np.cos(8 * np.pi * y)
    energy = wave_spectrum(both[None, ..., None], (1 / 32, 1 / 32), (True, False))[0]
    assert energy[5] == pytest.approx(0.25)
    assert energy.sum() == pytest.approx(0.25)
    # A box twice as long: its waves are counted along the longest side.
    long = np.cos(2 * np.pi * 3 * x)[:, None] * np.ones(16)
    assert wave_spectrum(long[None, ..., None], (2 / 32, 1 / 16), (True, True))[0, 3] == pytest.approx(0.5)
    short = np.cos(2 * np.pi * 3 * x)[None, :] * np.ones((16, 1))
    assert wave_spectrum(short[None, ..., None], (2 / 16, 1 / 32), (True, True))[0, 6] == pytest.approx(0.5)


def test_ends_of_bounded_axes_do_not_leak() -> None:
    """A slope jumps if its axis is taken for a periodic one, reflected it does not: energy k^-2 and k^-4."""
    x = np.linspace(0, 1, 257)[None, :, None]
    bounded = wave_spectrum(x, (1 / 256,), (False,))[0]
    wrapped = wave_spectrum(x, (1 / 256,), (True,))[0]
    # The transforms of a slope are sin(half the phase)^-2 and ^-1; of cosines only odd m occur, k = m / 2.
    sines = np.sin(np.pi * 8.5 / 256) / np.sin(np.pi * 32.5 / 256)
    assert bounded[32] / bounded[8] == pytest.approx(sines**4)
    sines = np.sin(np.pi * 8 / 257) / np.sin(np.pi * 32 / 257)
    assert wrapped[32] / wrapped[8] == pytest.approx(sines**2)


def test_bands() -> None:
    error, target = np.zeros(20), np.zeros(20)
    error[[2, 4, 19]], target[[1, 11]] = (0.01, 0.04, 0.09), (0.84, 0.16)
    bands = spectrum_by_band(error, target)
    assert bands["low"]["of_target"] == pytest.approx(0.1)
    assert bands["mid"] == pytest.approx({"of_target": 0.2, "of_band": 0.5})
    assert bands["high"] == pytest.approx({"of_target": 0.3})  # the target has nothing there
    assert list(spectrum_by_band(error[:5], target[:5])) == ["low", "mid"]


def test_scores_are_the_metrics_of_the_suite() -> None:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(40, 16, 16, 5, 2, generator=generator)
    p = u + 0.3 * torch.randn(u.shape, generator=generator)
    times = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    pairs = pairs_of(u, history=1, spacing=(1 / 16, 1 / 16), periodic=(True, True))
    found = scores(p, pairs, times)
    frames, guess = u.movedim(-2, 1), p.movedim(-2, 1)
    whole = torch.cat([frames[:, :1], frames], 1)
    for name, value in pdebench_metrics(guess, whole, 1, (1.0, 1.0)).items():
        if np.isfinite(value):
            assert found["pdebench"][name] == pytest.approx(value, rel=1e-5)
        else:
            assert name not in found["pdebench"]
    assert found["well"]["VRMSE"] == pytest.approx(float(well.vrmse(guess, frames).mean()), rel=1e-5)
    l2 = relative_l2(p, u)
    assert found["relative_l2"] == pytest.approx(float(l2.mean()), rel=1e-6)
    assert found["median_relative_l2"] == pytest.approx(float(np.median(l2)), rel=1e-6)
    assert found["worst_relative_l2"] == pytest.approx(float(l2.max()), rel=1e-6)
    bands = found["spectrum"]["bands"].values()
    pooled = float(((p - u) ** 2).sum() / (u**2).sum())
    assert sum(band["of_target"] ** 2 for band in bands) == pytest.approx(pooled, rel=1e-5)
    horizon = correlation_time(guess, whole, 1, times).clamp(max=2.5)
    assert found["correlation_time"]["mean"] == pytest.approx(float(horizon.mean()), rel=1e-5)


def test_errors_by_frame() -> None:
    """An error that grows by a tenth with each frame."""
    x = torch.arange(32) / 32
    u = (1 + torch.arange(20.0))[:, None, None, None] * torch.sin(2 * torch.pi * x)[:, None, None]
    u = u.expand(20, 32, 40, 1).clone()
    factors = 1 + 0.1 * torch.arange(1, 41.0)
    pairs = pairs_of(u, history=1, spacing=(1 / 32,), periodic=(True,))
    times = np.arange(41) * 0.25
    found = scores(u * factors[:, None], pairs, times)
    mean = found["frames"]["relative_l2"]["mean"]
    assert mean == pytest.approx((factors - 1).tolist(), rel=1e-4)
    assert found["frames"]["relative_l2"]["p10"] == pytest.approx(mean, rel=1e-4)
    assert found["frames"]["times"] == times[1:].tolist()
    # Of zero mean: VRMSE is the relative error but for n - 1; The Well's first window is frames 6 to 11.
    expected = float((factors[6:12] - 1).mean()) * (31 / 32) ** 0.5
    assert found["well"]["VRMSE 6:12"] == pytest.approx(expected, rel=1e-4)
    assert found["correlation_time"] == {"threshold": 0.8, "mean": 10.0, "horizon": 10.0, "never": 20}
    spread = u * (1 + 0.01 * torch.arange(20.0))[:, None, None, None]
    frame = scores(spread, pairs, times)["frames"]["relative_l2"]
    ends = frame["p10"][0], frame["mean"][0], frame["p90"][0]
    assert ends == pytest.approx((0.019, 0.095, 0.171), rel=1e-3)


def test_what_diverges_has_no_numbers() -> None:
    u = torch.randn(4, 16, 6, 1, generator=torch.Generator().manual_seed(1))
    p = 1.1 * u
    p[2, :, 3:] = torch.nan
    pairs = pairs_of(u, history=1, spacing=(1 / 16,), periodic=(True,))
    found = scores(p, pairs, np.arange(7.0))
    assert found["diverged"] == 1
    assert "relative_l2" not in found
    assert "spectrum" not in found
    assert found["frames"]["relative_l2"]["mean"] == pytest.approx([0.1] * 3, rel=1e-4)
    assert found["frames"]["times"] == [1.0, 2.0, 3.0]
    assert found["correlation_time"]["never"] == 3


def test_masked_targets_have_relative_errors_only(tmp_path: Path) -> None:
    heat = generate(HeatStarRecipe(resolution=33), 4, tmp_path / "heat.h5")
    pairs = load_pairs(heat, 1, "spacetime", 1, 3)
    assert pairs.mask is not None
    wild = torch.where(pairs.mask > 0, 1.5 * pairs.targets, torch.tensor(1e6))
    found = scores(wild, pairs, np.arange(4.0))
    assert found["relative_l2"] == pytest.approx(0.5, rel=1e-4)
    assert found["relative_h1"] == pytest.approx(0.5, rel=1e-4)
    assert found["frames"]["relative_l2"]["mean"] == pytest.approx([0.5] * 3, rel=1e-4)
    assert not {"pdebench", "well", "spectrum", "correlation_time"} & set(found)


def test_thinned_pairs_are_those_of_the_file(darcy: Path, burgers: Path) -> None:
    for path, task, axes in ((darcy, "auto", 2), (burgers, "spacetime", 1), (burgers, "step", 1)):
        ours, read = thinned(load_pairs(path, 1, task), 4, axes), load_pairs(path, 4, task)  # type: ignore[arg-type]
        assert torch.equal(ours.inputs, read.inputs)
        assert torch.equal(ours.targets, read.targets)
        assert ours.spacing == pytest.approx(read.spacing)
    with pytest.raises(ConfigError, match=r"stride=5 does not fit 17 bounded nodes"):
        thinned(load_pairs(darcy), 5, 2)


def test_validation_samples_are_left_out(darcy: Path, tmp_path: Path) -> None:
    train(
        TrainConfig(epochs=1, n_train=20, n_valid=6, n_test=4),
        darcy,
        tmp_path / "run",
        model=MODEL,
        progress=False,
    )
    # The 20 of training at the start of the file, and the 6 before the 4 of the test.
    with FieldsDataset(darcy) as opened:
        seeds = opened.seeds
    assert held_out_pairs(darcy, 1, tmp_path / "run").seeds.tolist() == [*seeds[20:30], *seeds[36:]]


@pytest.mark.parametrize("task", ["step", "spacetime"])
def test_roll_outs(burgers: Path, tmp_path: Path, task: str) -> None:
    config = TrainConfig(task=task, n_in=2, n_out=3, epochs=2, n_test=4, stride=2)  # type: ignore[arg-type]
    model = replace(MODEL, modes=(8, 2)) if task == "spacetime" else MODEL
    result = train(config, burgers, tmp_path / "run", model=model, progress=False)
    rows = evaluate(tmp_path / "run", burgers, output=tmp_path / "evaluation")
    assert read_json(tmp_path / "evaluation" / "evaluation.json") == rows
    assert [row["trained_here"] for row in rows] == [False, True, *[False] * (len(rows) - 2)]
    assert rows[1]["relative_l2"] == pytest.approx(result["test_relative_l2"], rel=1e-4)
    with FieldsDataset(burgers) as opened:
        assert rows[0]["frames"]["times"] == pytest.approx(opened.times[2:5].tolist())
        assert rows[0]["frames"]["from"] == pytest.approx(opened.times[1])
    pairs = held_out_pairs(burgers, 2, tmp_path / "run")
    prediction = predict_pairs(Operator.load(tmp_path / "run"), pairs)
    last = float(relative_l2(prediction[..., -1, :], pairs.targets[..., -1, :]).mean())
    assert rows[1]["frames"]["relative_l2"]["mean"][-1] == pytest.approx(last, rel=1e-4)
    page = (tmp_path / "evaluation" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4  # transfer, frames, spectrum, samples
    head, cells = evaluation_table(rows)
    assert "(trained)" in str(cells[1][0])
    assert cells[0][head.index("VRMSE")] == f"{rows[0]['well']['VRMSE']:.4f}"
    assert {line[0] for line in metrics_table(rows)[1]} >= {
        "relative L2",
        "PDEBench nRMSE",
        "The Well's VRMSE",
    }


def test_predictions_of_training_samples_are_no_test_samples(darcy: Path, tmp_path: Path) -> None:
    """The seeds go with a prediction; what another recipe makes of the same seed is another function."""
    train(TrainConfig(epochs=1), darcy, tmp_path / "run", model=MODEL)
    header = model_header(tmp_path / "run")
    pairs = load_pairs(darcy)
    predicted = {"predicted_by": {}, "predicted_from": {"config": pairs.config}}
    own = unseen_rows(header, pairs, darcy).tolist()
    assert 0 < len(own) < len(pairs)
    assert unseen_rows(header, replace(pairs, config=predicted), "other.h5").tolist() == own
    assert unseen_rows(header, replace(pairs, config={}), "other.h5").tolist() == own
    other = {"recipe": "poisson-star", "parameters": {}}
    assert len(unseen_rows(header, replace(pairs, config=other), "other.h5")) == len(pairs)


def test_predictions_are_no_truth(darcy: Path, tmp_path: Path) -> None:
    train(TrainConfig(epochs=1), darcy, tmp_path / "run", model=MODEL)
    predict_file(tmp_path / "run", darcy, tmp_path / "predicted.h5")
    with pytest.raises(ConfigError, match=r"predicted\.h5' was predicted by FNO, not solved"):
        evaluate(tmp_path / "run", tmp_path / "predicted.h5")


def test_models_that_no_run_trained(darcy: Path, tmp_path: Path) -> None:
    FNO(modes=(4,), width=2).save(tmp_path / "model.safetensors")
    with pytest.raises(DatasetFormatError, match="does not say what it was trained on"):
        evaluate(tmp_path, darcy)
