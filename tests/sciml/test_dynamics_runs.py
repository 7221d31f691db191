"""Runs of learned dynamics: the command line, exact resumption, equations of one run and of several, bad input."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import sciml.training.dynamics as runs
from sciml.cli import main
from sciml.datasets import generate
from sciml.datasets.recipes.conservation_laws import BurgersRecipe
from sciml.datasets.recipes.darcy import DarcyRecipe
from sciml.datasets.recipes.odes import LotkaVolterraRecipe
from sciml.datasets.recipes.reactions import GrayScottRecipe
from sciml.dynamics import LearnedField, PolynomialODE, StencilODE, polynomial_flow
from sciml.errors import ConfigError, DatasetFormatError, OutputExistsError
from sciml.operators.storage import load_tensors
from sciml.training import DynamicsConfig, train_dynamics
from sciml.training.dynamics_evaluation import evaluate_dynamics
from sciml.training.equations import read_equation, read_polynomials


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dynamics") / "lv.h5"
    recipe = LotkaVolterraRecipe(frames=100, final_time=6.0, alpha=1.56, beta=1.12, gamma=3.10, delta=1.21)
    generate(recipe, 2, path, seed=0, progress=False)
    return path


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dynamics") / "burgers.h5"
    generate(
        BurgersRecipe(resolution=64, refine=8, frames=13, final_time=0.12), 5, path, seed=0, progress=False
    )
    return path


def test_train_and_equation(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        folder = str(tmp_path / f"lv-{seed}")
        arguments = ["train", "dynamics", str(data), "--frames", "60", "--noise", "0.01", "--seed", str(seed)]
        assert main([*arguments, "-o", folder, "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "over training frames" in printed
    assert "dx/dt = 1.5" in printed
    first, second = (str(tmp_path / f"lv-{seed}") for seed in (0, 1))
    for name in ("config.json", "history.json", "equation.json", "report.html", "roll-out.png", "cost.png"):
        assert (Path(first) / name).is_file()
    assert main(["equation", first]) == 0
    one = capsys.readouterr().out
    assert "(standard errors of the fit)" in one
    equation = read_equation(first)
    assert equation is not None
    assert equation.polynomial.terms(0)["x"] == pytest.approx(1.56, abs=0.03)
    assert equation.polynomial.terms(1) == {
        "y": pytest.approx(-3.10, abs=0.06),
        "x y": pytest.approx(1.21, abs=0.03),
    }
    assert main(["equation", first, second]) == 0
    assert "(standard deviations over 2 runs)" in capsys.readouterr().out
    assert main(["equation", first, "--data", str(data), "--bootstrap", "5", "--quiet"]) == 0
    assert "over 5 fits with new noise" in capsys.readouterr().out
    assert main(["equation", first, "--network", "--digits", "3"]) == 0
    assert "x^2" in capsys.readouterr().out
    assert main(["equation", first, "--latex"]) == 0
    assert r"\frac{d x}{d t} &= 1.5" in capsys.readouterr().out
    config = json.loads((Path(first) / "config.json").read_text())
    assert config["data"]["variables"] == ["x", "y"]
    assert config["model"]["architecture"] == "PolynomialODE"


def test_evaluation_of_unseen_trajectories(
    data: Path, fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train_dynamics(DynamicsConfig(frames=40, n_train=1, n_test=1), data, run, progress=False)
    assert main(["evaluate", str(run), str(data)]) == 0
    printed = capsys.readouterr().out
    assert "Roll-outs, by the equation, of 1 trajectories that the run did not see" in printed
    assert "up to t = 6 (median)" in printed
    result = json.loads((run / "evaluation-lv" / "evaluation.json").read_text())
    assert result["median"][-1] < 1e-4
    assert result["diverged"] == [0] * 100
    assert (run / "evaluation-lv" / "report.html").is_file()
    assert main(["evaluate", str(run), str(data)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["evaluate", str(run), str(fields), "-o", str(tmp_path / "other")]) == 1
    assert "has u at spacing" in capsys.readouterr().err


def test_a_field_that_leaves_its_range_is_told(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_dynamics(DynamicsConfig(frames=20, iterations=1, terms=False), data, run, progress=False)
    model = LearnedField.load(run)
    assert isinstance(model, PolynomialODE)
    with torch.no_grad():
        model.last.weight.mul_(-40)
    header = load_tensors(run / "model.safetensors", "dynamics")[1]
    model.save(run / "model.safetensors", {name: header[name] for name in ("data", "train")})
    result = evaluate_dynamics(run, data)
    # All training rows are left out; the last one is unseen.
    assert result["trajectories"] == 1
    assert result["worst"][-1] is None
    assert result["diverged"][-1] == 1
    assert result["valid_time"] < 1


def test_roll_outs_of_a_noise_free_run_hold_beyond_the_horizon(data: Path, tmp_path: Path) -> None:
    config = DynamicsConfig(frames=34, substeps=16)
    result = train_dynamics(config, data, tmp_path / "run", progress=False)
    assert result["errors"]["training, network"]["training"] < 1e-7
    assert result["errors"]["test, network"]["end"] < 1e-6
    assert result["errors"]["test, equation"]["end"] < 1e-7
    assert result["cost"] < 1e-15
    model = LearnedField.load(tmp_path / "run")
    assert isinstance(model, PolynomialODE)


@pytest.mark.parametrize("optimiser", ["lm", "adam"])
def test_interrupted_runs_end_with_the_same_bits(
    data: Path, tmp_path: Path, optimiser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DynamicsConfig(
        optimiser=optimiser,  # type: ignore[arg-type]
        noise=0.02,
        windows=(3, 6),
        iterations=5,
        epochs=5,
        terms=False,
        free_starts=optimiser == "lm",
    )
    train_dynamics(config, data, tmp_path / "whole", progress=False)
    save = runs._Trainer._save
    for calls in (1, 3, 6, 8):
        folder, left = tmp_path / f"cut-{calls}", [calls]

        def cut(self: object, *arguments: object, left: list[int] = left) -> None:
            save(self, *arguments)  # type: ignore[arg-type]
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        monkeypatch.setattr(runs._Trainer, "_save", cut)
        with pytest.raises(KeyboardInterrupt):
            train_dynamics(config, data, folder, progress=False, checkpoint_seconds=0)
        assert not (folder / "model.safetensors").exists()
        monkeypatch.setattr(runs._Trainer, "_save", save)
        train_dynamics(config, data, folder, resume=True, progress=False)
        assert _tensors(folder / "model.safetensors") == _tensors(tmp_path / "whole" / "model.safetensors")
        histories = [json.loads((f / "history.json").read_text()) for f in (folder, tmp_path / "whole")]
        costs = [[record["cost"] for record in history] for history in histories]
        assert costs[0] == costs[1]


def _tensors(path: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_tensors(path, "dynamics")[0].items()}


def test_fields_give_a_stencil_and_its_equation(
    fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DynamicsConfig(frames=7, n_train=3, n_test=2, windows=(3, 7))
    result = train_dynamics(config, fields, tmp_path / "run", progress=False)
    assert isinstance(LearnedField.load(tmp_path / "run"), StencilODE)
    assert result["equation"] is None
    assert result["errors"]["test, network"]["end"] < 0.02
    (p,) = read_polynomials([tmp_path / "run"], derivatives=2)
    assert p.terms()["u_xx"] == pytest.approx(0.01, rel=0.1)
    assert p.terms()["u u_x"] == pytest.approx(-1, rel=0.05)
    assert main(["equation", str(tmp_path / "run"), "--tolerance", "0.01"]) == 0
    assert "u[-1]" in capsys.readouterr().out
    assert main(["equation", str(tmp_path / "run"), "--derivatives", "2", "--tolerance", "0.005"]) == 0
    assert capsys.readouterr().out.startswith("du/dt =")


def test_neural_ode_is_a_baseline_without_an_equation(data: Path, tmp_path: Path) -> None:
    config = DynamicsConfig(model="mlp", width=24, epochs=10, windows=(3,))
    result = train_dynamics(config, data, tmp_path / "run", progress=False)
    assert result["equation"] is None
    assert result["cost"] < 0.01
    with pytest.raises(ConfigError, match="only Mu-layers are polynomials"):
        read_polynomials([tmp_path / "run"])


def test_an_equation_without_terms_and_one_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, recipe = tmp_path / "lv.h5", LotkaVolterraRecipe(frames=40, final_time=2.0)
    generate(recipe, 1, path, seed=0, progress=False)
    rest = tmp_path / "rest.h5"
    shutil.copy(path, rest)
    with h5py.File(rest, "r+") as file:
        file["states"][...] = 1.0
    assert main(["train", "dynamics", str(rest), "-o", str(tmp_path / "rest"), "--quiet"]) == 0
    assert "dx/dt = 0" in capsys.readouterr().out
    assert main(["equation", str(tmp_path / "rest")]) == 0
    assert capsys.readouterr().out == "dx/dt = 0\ndy/dt = 0\n(standard errors of the fit)\n"
    few = ["train", "dynamics", str(path), "--frames", "4", "--windows", "3", "-o", str(tmp_path / "few")]
    assert main([*few, "--quiet"]) == 0
    assert "no terms chosen" in capsys.readouterr().out
    assert (tmp_path / "few" / "model.safetensors").exists()
    assert "no terms chosen" in (tmp_path / "few" / "report.html").read_text()
    assert main(["equation", str(tmp_path / "few")]) == 0
    assert "x^2" in capsys.readouterr().out


def test_finished_runs_are_left_as_they_are(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ["train", "dynamics", str(data), "--frames", "30", "-o", str(run), "--quiet"]
    assert main(command) == 0
    first = capsys.readouterr().out
    ages = {path: path.stat().st_mtime_ns for path in run.iterdir() if path.suffix != ".lock"}
    assert main([*command, "--resume"]) == 0
    assert capsys.readouterr().out == first.replace("wrote", "was finished before:")
    assert ages == {path: path.stat().st_mtime_ns for path in ages}


def test_without_numba_runs_are_the_same(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DynamicsConfig(frames=12, n_train=1, windows=(3,), iterations=8, substeps=2)
    results = []
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(polynomial_flow, "kernels", lambda *_: None)
        train_dynamics(config, data, tmp_path / name, progress=False)
        equation = read_equation(tmp_path / name)
        assert equation is not None
        results.append(equation.polynomial.coefficients)
    assert np.allclose(*results, rtol=1e-8)


def test_two_fields_in_the_plane_two_layers_and_strides(tmp_path: Path) -> None:
    recipe = GrayScottRecipe(resolution=64, frames=4, final_time=30.0)
    plane = generate(recipe, 2, tmp_path / "gray-scott.h5", seed=0, progress=False)
    config = DynamicsConfig(windows=(2,), iterations=2, n_train=1, n_test=1, stride=4, substeps=4)
    result = train_dynamics(config, plane, tmp_path / "plane", progress=False)
    assert result["cost"] < 0.01
    model = LearnedField.load(tmp_path / "plane")
    assert isinstance(model, StencilODE)
    assert (model.axes, len(model.variables)) == (2, 2)
    (form,) = read_polynomials([tmp_path / "plane"], derivatives=1)
    assert form.variables[:3] == tuple(f"{model.variables[0]}{d}" for d in ("", "_x", "_y"))
    with pytest.raises(ConfigError, match="spans 17 nodes, the grid has 16"):
        train_dynamics(
            DynamicsConfig(reach=8, stride=4, windows=(3,)), plane, tmp_path / "wide", progress=False
        )


def test_taken_folders_and_other_settings(data: Path, tmp_path: Path) -> None:
    config = DynamicsConfig(frames=20, iterations=2, terms=False)
    train_dynamics(config, data, tmp_path / "run", progress=False)
    with pytest.raises(OutputExistsError, match="finished run"):
        train_dynamics(config, data, tmp_path / "run", progress=False)
    with pytest.raises(OutputExistsError, match="iterations"):
        train_dynamics(
            DynamicsConfig(frames=20, iterations=3), data, tmp_path / "run", resume=True, progress=False
        )
    train_dynamics(config, data, tmp_path / "run", overwrite=True, progress=False)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"layers": 0}, "layers=0"),
        ({"windows": ()}, "windows=()"),
        ({"windows": (1, 5)}, "at least 2 frames"),
        ({"noise": float("nan")}, "noise=nan"),
        ({"optimiser": "sgd"}, "optimiser='sgd'"),
        ({"model": "cnn"}, "model='cnn'"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"free_starts": True, "optimiser": "adam"}, "unknowns of lm only"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DynamicsConfig(**settings)  # type: ignore[arg-type]
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"n_train": 3}, "the dataset has 2"),
        ({"frames": 200}, "frames=200: the dataset has 100"),
        ({"windows": (3, 50), "frames": 20}, "choose shorter windows"),
        ({"model": "stencil"}, "the dataset holds states of ODEs"),
        ({"stride": 2}, "has no grid"),
    ],
)
def test_settings_that_do_not_fit_the_data(
    data: Path, tmp_path: Path, settings: dict[str, object], text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        train_dynamics(DynamicsConfig(**settings), data, tmp_path / "run", progress=False)  # type: ignore[arg-type]
    assert text in str(caught.value)
    assert not (tmp_path / "run" / "config.json").exists()


def test_data_that_cannot_be_learned(data: Path, fields: Path, tmp_path: Path) -> None:
    steady = tmp_path / "darcy.h5"
    generate(DarcyRecipe(resolution=8), 2, steady, seed=0, progress=False)
    with pytest.raises(ConfigError, match="steady problems"):
        train_dynamics(DynamicsConfig(), steady, tmp_path / "run", progress=False)
    with pytest.raises(ConfigError, match="holds fields on a grid"):
        train_dynamics(DynamicsConfig(model="mlp"), fields, tmp_path / "run", progress=False)
    for name, change, text in (
        ("nan", lambda f: f["states"].__setitem__((1, 7, 0), np.nan), r"trajectory 1, frame 7 \(t=0.42"),
        ("times", lambda f: f["time"].__setitem__(5, 0.0), r"number 5\) follows"),
    ):
        broken = tmp_path / f"{name}.h5"
        shutil.copy(data, broken)
        with h5py.File(broken, "r+") as file:
            change(file)
        with pytest.raises(ConfigError, match=text):
            train_dynamics(DynamicsConfig(), broken, tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["equation"], "name a run"),
        (["equation", "nowhere"], "'nowhere' is not a run folder"),
        (["equation", "{run}", "--bootstrap", "5"], "--data and --bootstrap go together"),
        (["equation", "{run}", "--derivatives", "2"], "has no grid"),
        (["equation", "{run}", "--digits", "0"], "digits=0"),
        (["equation", "{run}", "--tolerance", "nan"], "tolerance=nan"),
        (["equation", "{run}", "--data", "{data}", "--bootstrap", "1"], "two fits at least"),
        (["equation", "{run}", "{run}", "--data", "{data}", "--bootstrap", "5"], "of one run"),
        (["train", "dynamics", "{data}"], "output"),
        (["train", "dynamics", "missing.h5", "-o", "{new}"], "does not exist"),
        (["train", "dynamic", "{data}", "-o", "{new}"], "did you mean 'dynamics'"),
    ],
)
def test_errors_of_the_command_line_are_one_line(
    data: Path, tmp_path: Path, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train_dynamics(DynamicsConfig(frames=20, iterations=2), data, run, progress=False)
    words = [a.format(run=run, data=data, new=tmp_path / "new") for a in arguments]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert text in error


def test_damaged_equation_is_refused(data: Path, tmp_path: Path) -> None:
    train_dynamics(DynamicsConfig(frames=30, iterations=4), data, tmp_path / "run", progress=False)
    (tmp_path / "run" / "equation.json").write_text('{"variables": ["x", "y"]}')
    with pytest.raises(DatasetFormatError, match="damaged"):
        read_equation(tmp_path / "run")
