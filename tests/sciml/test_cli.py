"""The command line: the loop end to end, help that works when pasted, errors of one line."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import meshio
import numpy as np
import pytest

from sciml.cli import COMMANDS, main
from sciml.datasets import generate, open_dataset
from sciml.datasets.recipes import DarcyRecipe
from sciml.operators import FNOConfig
from sciml.training import TrainConfig, train


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a user has after a few commands."""
    folder = tmp_path_factory.mktemp("cli")
    generate(DarcyRecipe(resolution=33), 30, folder / "darcy.h5")
    train(
        TrainConfig(epochs=1),
        folder / "darcy.h5",
        folder / "runs" / "darcy",
        model=FNOConfig(modes=(8,), width=4),
    )
    content = (folder / "darcy.h5").read_bytes()
    (folder / "cut.h5").write_bytes(content[: len(content) // 2])
    (folder / "text.h5").write_text("not a dataset")
    (folder / "k.h5.parts").mkdir()
    (folder / "k.h5.parts" / "plan.json").write_text("{}")
    (folder / "new.h5").write_bytes(content)
    import h5py

    with h5py.File(folder / "new.h5", "r+") as file:
        file.attrs["format_version"] = 99
    (folder / "bad.py").write_text("raise RuntimeError('boom')")
    (folder / "nan.py").write_text(
        "import numpy as np\n"
        "from sciml.solvers import Poisson, problem_registry\n"
        "@problem_registry.register('nan')\n"
        "def nan(domain):\n"
        "    return Poisson(domain, lambda x, y: np.where(x > 0, np.nan, 1.0))\n"
        "from sciml.solvers import Disk, domain_registry\n"
        "domain_registry.register('huge')(lambda: Disk(0.7))\n"
        "from dataclasses import dataclass\n"
        "from sciml.datasets import Recipe, recipe_registry\n"
        "@recipe_registry.register('clash')\n"
        "@dataclass(frozen=True)\n"
        "class Clash(Recipe):\n"
        "    n: int = 1\n"
    )
    return folder


BAD = {
    "no name": ("solve", "name the problem first"),
    "unknown command": ("slove poisson", "unknown command 'slove': did you mean 'solve'?"),
    "unknown problem": ("solve poisson-", "unknown problem 'poisson-': did you mean 'poisson'?"),
    "unknown recipe": (
        "generate darci",
        "unknown recipe 'darci': did you mean 'darcy'? known: ",
    ),
    "unknown shape": (
        "solve poisson --domain strr",
        "unknown domain 'strr': did you mean 'star'? known: annulus, ball, box",
    ),
    "unknown operator": ("train fnoo darcy.h5 -o x", "unknown model 'fnoo': did you mean 'fno'?"),
    "unknown flag": ("solve poisson --oder 4", "--oder"),
    "not a number": ("solve poisson --n many", "many"),
    "wrong order": ("solve poisson --order 9", "9"),
    "missing argument": ("train fno darcy.h5", "output"),
    "n too small": ("solve poisson --n 6", "thinner than the stencil of degree 4"),
    "n not positive": ("solve poisson --n 0", "n=0"),
    "no plane": ("solve johansen-colella --domain ball", "choose a plane domain"),
    "no exact solution": ("solve nan --plugin nan.py --convergence", "has no exact solution"),
    "domain outside the box": ("solve poisson --domain huge --plugin nan.py", "leaves the grid's box"),
    "nan in a source": ("solve nan --domain disk --plugin nan.py", "source is nan at ("),
    "no such plugin": ("solve poisson --plugin none.py", "plugin"),
    "broken plugin": ("solve poisson --plugin bad.py", "failed to load: RuntimeError: boom"),
    "recipe parameter": ("generate darcy --resolution 3 -o x.h5", "resolution=3: use at least 5"),
    "clashing parameter": ("generate clash --plugin nan.py", "parameters ['n'], which are options"),
    "no trajectories": ("generate darcy -n 0 -o x.h5", "n=0"),
    "no split": ("generate darcy --split 0.8 0.1 0.2 -o x", "split=(0.8, 0.1, 0.2): give the fractions"),
    "no ranks": ("generate darcy --mpi -o x.h5", "mpi needs"),
    "no cluster": ("generate darcy --dask nowhere:0:0 -o x.h5", "dask='nowhere:0:0'"),
    "no GPU": ("generate darcy --device cuda -o x.h5", "device='cuda': this recipe runs on the CPU only"),
    "output exists": ("generate darcy -n 30 --resolution 33 -o darcy.h5", "exists: pass --resume"),
    "resume other data": ("generate darcy -n 31 --resolution 33 -o darcy.h5 --resume", "n was 30, now 31"),
    "output folder not writable": ("generate darcy -n 2 -o /proc/none/x.h5", "cannot write"),
    "inspect missing": ("inspect none.h5", "does not exist"),
    "inspect truncated": ("inspect cut.h5", "truncated"),
    "inspect text": ("inspect text.h5", "not an HDF5 file"),
    "inspect newer": ("inspect new.h5", "format version 99, this sciml reads up to 2: upgrade"),
    "train on truncated": ("train fno cut.h5 -o x", "truncated"),
    "inspect unfinished": (
        "inspect k.h5",
        "'k.h5' does not exist yet, its generation is unfinished ('k.h5.parts'): run the same 'sciml generate'",
    ),
    "convert to nowhere": (
        "convert darcy.h5 --to pdebench",
        "with -o, as in 'sciml convert darcy.h5 --to pde",
    ),
    "convert to no folder": (
        "convert darcy.h5 --to well",
        "as in 'sciml convert darcy.h5 --to well -o darcy'",
    ),
    "import to nowhere": ("convert a.hdf5 --to sciml", "DarcyFlow.hdf5 --to sciml -o darcy.h5'"),
    "train on nothing": ("train fno none.h5 -o x", "does not exist"),
    "run exists": ("train fno darcy.h5 -o runs/darcy", "holds a finished run: pass --resume"),
    "run of other settings": ("train fno darcy.h5 -o runs/darcy --lr 1 --resume", "run of other settings"),
    "evaluate no run": ("evaluate runs/none darcy.h5", "does not exist"),
    "evaluate newer": ("evaluate runs/darcy new.h5", "upgrade"),
    "evaluate into a run": ("evaluate runs/darcy darcy.h5 -o runs/darcy --overwrite", "holds other things"),
    "solve into a run": ("solve poisson --n 40 -o runs/darcy --overwrite", "holds other things"),
    "solve into a file": ("solve poisson --n 40 -o text.h5 --overwrite", "is a file: give a folder"),
    "no memory": ("solve poisson --n 10000000", "out of memory"),
    "infinite parameter": ("generate darcy --high inf -o x.h5", "high=inf"),
    "a setting's own message comes first": (
        "train fno darcy.h5 -o x --epochs 0",
        "error: epochs=0: it must be",
    ),
    "too coarse for the modes": (
        "train fno darcy.h5 -o x --stride 4",
        "(a smaller stride) or a model of 9 modes",
    ),
    "model and data exchanged": (
        "predict darcy.h5 runs/darcy -o x.h5",
        "darcy.h5' is an HDF5 file, not a model: name",
    ),
    "infinite rate": ("train fno darcy.h5 -o x --lr inf", "lr=inf"),
    "nan decay": ("train fno darcy.h5 -o x --weight-decay nan", "weight_decay=nan"),
    "empty output": ("train fno darcy.h5 -o ''", "output=''"),
    "stride too large": ("train fno darcy.h5 -o x --stride 100", "stride=100"),
    "not a demo": ("demo -o runs/darcy --overwrite", "holds other things than a demo"),
    "generate into a folder": ("generate darcy -n 2 -o runs", "is a folder"),
    "train into a file": ("train fno darcy.h5 -o text.h5", "is a file"),
    "train among other files": ("train fno darcy.h5 -o . --overwrite", "holds other files than a run"),
}


def call(command: str) -> int:
    """Run a command in this process, as the console script would."""
    try:
        return main(shlex.split(command))
    except SystemExit as stop:  # --help
        return int(stop.code or 0)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_one_line(
    workplace: Path, name: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    command, message = BAD[name]
    assert call(command) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("sciml: error: ")
    assert errors.strip().count("\n") == 0, errors
    assert message in errors
    assert not (workplace / "x.h5").exists()
    assert not (workplace / "x").exists()


@pytest.mark.parametrize("name", ["unknown recipe", "unknown flag", "inspect truncated", "nan in a source"])
def test_bad_input_in_a_process_of_its_own(workplace: Path, name: str, sciml: Callable) -> None:
    command, message = BAD[name]
    run = sciml(*shlex.split(command), cwd=workplace)
    assert run.returncode == 1
    assert run.stderr.startswith("sciml: error: ")
    assert run.stderr.strip().count("\n") == 0, run.stderr
    assert message in run.stderr


@pytest.mark.parametrize(
    "command", [*COMMANDS, "solve poisson", "generate darcy", "generate poisson-star", "train fno"]
)
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture) -> None:
    assert call(f"{command} --help") == 0
    example = capsys.readouterr().out.split("example:\n")[1].strip().split("\n")[0]
    assert example.startswith(f"sciml {command.split()[0]}")


def test_help_without_arguments_and_version(sciml: Callable) -> None:
    assert "example:" in sciml().stdout
    assert sciml("--version").stdout.startswith("sciml 0.")


def test_the_loop(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Solve, generate, inspect, train, evaluate, each as a user types it."""
    monkeypatch.chdir(tmp_path)
    for command in (
        "solve poisson --domain star --n 60 --order 3 -o runs/solve",
        "generate darcy -n 40 --resolution 33 -o darcy.h5 --workers 2 --shard-size 8",
        "generate darcy -n 40 --resolution 33 -o darcy.h5 --resume",
        "inspect darcy.h5",
        "train fno darcy.h5 --stride 2 --modes 8 --width 6 --epochs 2 -o runs/darcy",
        "train fno darcy.h5 --stride 2 --modes 8 --width 6 --epochs 2 -o runs/darcy --resume",
        "evaluate runs/darcy darcy.h5",
    ):
        assert call(command) == 0, capsys.readouterr().err
        printed = capsys.readouterr()
        assert printed.out
        if command.startswith("train"):
            resumed = "--resume" in command
            assert ("runs/darcy" in printed.out, "was finished before" in printed.out) == (True, resumed)
            assert "without a model: the mean of the other targets)" in printed.out
            # Without a terminal a line for each epoch.
            assert printed.err.count("training loss") == (0 if resumed else 2)
    mesh = meshio.read(tmp_path / "runs" / "solve" / "solution.vtu")
    assert np.abs(mesh.point_data["u"] - mesh.point_data["exact"]).max() < 1e-5
    for path in (
        "solve/report.html",
        "solve/solution.png",
        "darcy/report.html",
        "darcy/evaluation-darcy/samples.png",
    ):
        assert (tmp_path / "runs" / path).stat().st_size > 1000
    with open_dataset(tmp_path / "runs" / "solve" / "solution.h5") as data:
        assert data.n_trajectories == 1


def test_solve_in_space_with_a_convergence_study(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("solve poisson-neumann --domain ball -n 24 --convergence -o runs/ball") == 0
    printed = capsys.readouterr().out
    fit = next(line.split() for line in printed.splitlines() if line.strip().startswith("fit"))
    assert all(float(order) > 3.5 for order in fit[1:])
    report = (tmp_path / "runs" / "ball" / "report.html").read_text()
    assert "Convergence" in report
    assert (tmp_path / "runs" / "ball" / "convergence.png").stat().st_size > 1000
    mesh = meshio.read(tmp_path / "runs" / "ball" / "solution.vtu")
    assert mesh.cells[0].type == "hexahedron"
    with open_dataset(tmp_path / "runs" / "ball" / "solution.h5") as data:
        assert len(data.resolution) == 3


def test_a_reader_that_leaves_early_ends_a_command_quietly(workplace: Path) -> None:
    for command in ("inspect darcy.h5", "--help"):
        reader, writer = os.pipe()
        os.close(reader)
        run = subprocess.run(
            [sys.executable, "-m", "sciml", *command.split()],
            cwd=workplace,
            stdout=writer,
            stderr=subprocess.PIPE,
        )
        os.close(writer)
        assert (run.returncode, run.stderr) == (1, b"")


def test_an_error_without_a_file_ends_in_no_empty_name(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, message in (
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError(5, "Input/output error", "a.h5"), "Input/output error: a.h5"),
        (TimeoutError(), "TimeoutError"),
    ):
        monkeypatch.setattr("sciml.cli._dispatch", Mock(side_effect=error))
        assert main(["inspect"]) == 1
        assert capsys.readouterr().err == f"sciml: error: {message}\n"


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        ("train fno a.h5", "--resume"),
        ("generate darcy", "it goes on"),
        ("evaluate run a.h5", "again"),
        ("refine train poisson --overwrite", "and --resume, in place of --overwrite"),
        ("refine evaluate train", "the same command again, it goes on"),
        ("refine watch evaluate -o film", "the same command again"),
    ],
)
def test_an_interruption_says_how_to_go_on(
    command: str, remedy: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sciml.cli._dispatch", Mock(side_effect=KeyboardInterrupt))
    assert call(command) == 130
    assert capsys.readouterr().err.strip().endswith(remedy)


def test_inspect_leaves_out_an_equation_that_is_not_given(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import h5py

    path = tmp_path / "mute.h5"
    path.write_bytes((workplace / "darcy.h5").read_bytes())
    assert call(f"inspect {path}") == 0
    assert "\nequation: -div(a grad u) = 1" in capsys.readouterr().out
    with h5py.File(path, "r+") as file:
        file["provenance"].attrs["equation"] = ""
    assert call(f"inspect {path}") == 0
    assert "equation" not in capsys.readouterr().out


def test_inspect_fails_on_a_check_above_its_limit(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import h5py

    path = tmp_path / "altered.h5"
    path.write_bytes((workplace / "darcy.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file["provenance/checks/relative_residual"][3] = 1e-3
    assert call(f"inspect {path}") == 1
    output = capsys.readouterr()
    assert "FAIL" in output.out
    assert "stored relative_residual exceeds its limit" in output.err


def test_threads_of_torch_do_not_wait_busily_for_long() -> None:
    code = (
        "import os, sys; from sciml.cli import main; main(['--version']); "
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    plain = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    for given, wanted in (({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7")):
        run = subprocess.run(
            [sys.executable, "-c", code], env={**plain, **given}, capture_output=True, text=True, check=True
        )
        assert run.stdout.splitlines()[-1] == f"{wanted} False"
