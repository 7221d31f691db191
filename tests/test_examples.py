"""Every example is short, runs, and gives the number that it should."""

import importlib.util
import types
from pathlib import Path

import numpy as np
import pytest

from sciml.datasets import open_dataset

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_all_examples_are_tested_and_short() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    for path in EXAMPLES.glob("*.py"):
        assert path.stem in tested, f"{path.name} has no test"
        assert len(path.read_text().splitlines()) < 30


def test_solve_poisson_star() -> None:
    errors = load("solve_poisson_star").main()
    assert -np.polyfit(np.log([40, 80, 160, 320]), np.log(errors), 1)[0] > 4
    assert errors[-1] < 1.3e-12
    assert Path("star.vtu").exists()
    assert Path("star.png").exists()


def test_generate_darcy() -> None:
    module = load("generate_darcy")
    assert module.main() < 1e-9
    assert module.main() < 1e-9  # a second run finds the file complete


def test_train_fno() -> None:
    fine, coarse = load("train_fno").main()[:2]
    assert coarse["resolution"] == [22, 22]
    assert coarse["relative_l2"] < 0.08
    assert fine["relative_l2"] < 1.3 * coarse["relative_l2"]


def test_allen_cahn_star() -> None:
    assert load("allen_cahn_star").main() > 3.8
    stored = open_dataset("allen_cahn.h5")
    assert stored.times.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_verified_burgers() -> None:
    assert load("verified_burgers").main() < 1e-6


def test_train_refinement_agent() -> None:
    ratios = load("train_refinement_agent").main()
    assert ratios["advection-tanh"] < 1.1
    assert ratios["advection-gaussians"] < 1.25


def test_design_void() -> None:
    error, gain, material = load("design_void").main()
    assert error < 0.11
    assert gain > 1.5
    assert abs(material - 1) < 0.01


def test_sparse_sensors() -> None:
    posterior, interpolation, mean = load("sparse_sensors").main()
    assert posterior < 0.9 * interpolation
    assert posterior < 0.4 * mean


def test_hidden_modes() -> None:
    found = load("hidden_modes").main()
    assert found["smc"][0] == 40
    assert found["smc"][1] < 0.12
    assert found["smc"][2] < 0.005
    assert found["mala"][1] > 0.15


def test_learn_equation() -> None:
    terms = load("learn_equation").main()
    assert set(terms) == {"x", "x y"}
    assert abs(terms["x"] - 1.56) < 0.05
    assert abs(terms["x y"] + 1.12) < 0.04
