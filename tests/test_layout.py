"""The house: floors, imports, the wheel, start-up time."""

import ast
import itertools
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("sciml", "solvers", "datasets", "envs")

FLOORS = {
    "sciml": 0,
    "sciml._version": 0,
    "sciml.errors": 0,
    "sciml.files": 0,
    "sciml.metrics": 0,
    "sciml.provenance": 0,
    "sciml.registry": 0,
    "sciml.report": 0,
    "sciml.runs": 0,
    "sciml.solvers": 1,
    "sciml.datasets": 2,
    "sciml.envs": 3,
    "sciml.dynamics": 3,
    "sciml.networks": 3,
    "sciml.operators": 3,
    "sciml.symbolic": 3,
    "sciml.sampling": 4,
    "sciml.training": 4,
    "sciml.cli": 5,
    "sciml.__main__": 5,
}


def imports(name: str, path: Path) -> list[str]:
    """Absolute names of everything that a module imports, also inside functions."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def floor(name: str) -> int:
    key = ".".join(name.split(".")[:2])
    assert key in FLOORS, f"{key} has no floor: add it to FLOORS"
    return FLOORS[key]


def test_imports_only_go_down(modules: dict[str, Path]) -> None:
    for name, path in modules.items():
        for target in imports(name, path):
            if target.split(".")[0] == "sciml" and target != "sciml.__version__":
                assert floor(target) <= floor(name), f"{name} imports {target} from a higher floor"


def test_no_bare_imports_of_the_folders(modules: dict[str, Path]) -> None:
    for name, path in modules.items():
        for target in imports(name, path):
            assert target.split(".")[0] not in ("solvers", "datasets", "envs"), f"{name} imports {target}"


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("sciml", {"torch", "matplotlib", "gymnasium", "numpy"}),
        ("sciml.solvers", {"torch", "matplotlib", "gymnasium"}),
        ("sciml.datasets", {"torch", "matplotlib", "gymnasium"}),
        ("sciml.metrics", {"torch", "matplotlib"}),
        ("sciml.cli", {"torch", "matplotlib", "numpy", "tyro"}),
    ],
)
def test_import_pulls_in_nothing_heavy(module: str, banned: set[str]) -> None:
    code = f"import sys, {module}; print(sorted(set(sys.modules) & {banned!r}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_files_are_short(modules: dict[str, Path]) -> None:
    for path in modules.values():
        assert len(path.read_text().splitlines()) <= 500, f"{path} is too long"


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    wanted = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    for requirement in wanted:
        assert requirement.split(">")[0] in pinned, f"{requirement} is not in constraints.txt"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy: setuptools leaves build folders in the tree that it builds from."""
    source = tmp_path_factory.mktemp("source")
    for name in (*FOLDERS, "pyproject.toml", "README.md", "LICENSE"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        out,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_wheel_contains_every_module(wheel: Path, modules: dict[str, Path]) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".py", "py.typed"))}
    tree = {"sciml/py.typed"}
    for name, path in modules.items():
        tree.add(name.replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py"))
    assert packed == tree


def test_wheel_installs_without_dependencies(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        wheel,
    ]
    subprocess.run(command, check=True, capture_output=True)
    code = "import sciml, sciml.errors, sciml.cli; print(sciml.__file__); sys = __import__('sys'); sciml.cli.main([])"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr
    assert str(site) in run.stdout
    assert "usage: sciml" in run.stdout
