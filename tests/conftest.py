"""Fixtures shared by all tests."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
from hypothesis import settings

matplotlib.use("Agg")
# The same examples in every run: what fails once fails again.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")

ROOT = Path(__file__).parents[1]
FOLDERS = {"sciml": "sciml", "sciml.solvers": "solvers", "sciml.datasets": "datasets", "sciml.envs": "envs"}


@pytest.fixture(scope="session")
def modules() -> dict[str, Path]:
    """Every module of the package, by its name as users import it."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


@pytest.fixture
def sciml(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run the command line in a fresh process, in an empty folder."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "sciml", *map(str, arguments)],
            cwd=options.pop("cwd", tmp_path),
            capture_output=True,
            text=True,
            timeout=200,
            **options,
        )

    return run
