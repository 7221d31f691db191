"""Where a result came from: versions, commit, command line, time, machine."""

import dataclasses
import datetime
import functools
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ._version import __version__

__all__ = ["collect", "first_difference", "git_commit", "jsonable", "package_versions", "processor"]

PACKAGES = ("numpy", "scipy", "h5py", "torch", "numba")


def package_versions(others: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions of Python, sciml and the packages that decide its numbers, and of others."""
    versions = {"python": platform.python_version(), "sciml": __version__}
    for package in (*PACKAGES, *others):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


@functools.cache
def git_commit() -> str:
    """Return the commit of the checkout that sciml runs from, "unknown" for an installed wheel."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        completed = subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, timeout=10, check=True
        )
        return completed.stdout.strip()

    try:
        # A wheel installed below somebody else's checkout must not report that checkout's commit.
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=40")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@functools.cache
def processor() -> str:
    """Return the processor's model name: libraries choose their kernels, and so the last bits, by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def command_line() -> str:
    """Return the command that started this process, quoted for a shell, without folder names."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv[0] else "interactive"


def collect(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Return a JSON-ready record of where and how this process runs, with the versions of these packages, too."""
    return {
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "git_commit": git_commit(),
        "versions": package_versions(packages),
        "machine": platform.machine(),
        "processor": processor(),
        "system": platform.system(),
    }


def first_difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Describe the first setting in which two configurations differ, for a message.

    Examples
    --------
    >>> first_difference({"n": 3, "recipe": {"high": 12}}, {"n": 3, "recipe": {"high": 10}})
    'high was 12, now 10'
    """
    for key, value in new.items():
        known = old.get(key)
        if known == value:
            continue
        if isinstance(known, dict) and isinstance(value, dict):
            return first_difference(known, value)
        return f"{key} differ" if isinstance(value, list) else f"{key} was {known!r}, now {value!r}"
    return "settings of another version"


def jsonable(value: Any) -> Any:
    """Turn dataclasses, tuples, NumPy values and paths into what JSON can hold.

    Examples
    --------
    >>> jsonable({"modes": (12, 12)})
    {'modes': [12, 12]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if type(value).__module__ == "numpy":
        return value.tolist()
    return value
