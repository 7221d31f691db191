"""Fixtures of the engine's tests."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sciml.datasets import (
    Recipe,
    recipe_registry,
)
from sciml.errors import StorageError
from sciml.registry import load_plugin

UNSTABLE = """
import os, time
from dataclasses import dataclass
import numpy as np
from sciml.datasets import FieldSpec, FieldsLayout, Recipe, Trajectory, recipe_registry
from sciml.errors import ConvergenceError
from sciml.solvers import CartesianGrid

PAUSE = float(os.environ.get("UNSTABLE_PAUSE", 0))

@recipe_registry.register("unstable")
@dataclass(frozen=True)
class Unstable(Recipe):
    "Noise; every seventh seed blows up."
    equation = "none"
    check_limits = {"overshoot": 1.0}
    accuracy = 1e-6

    trouble: str = "nan"
    "How: nan, raise or check."

    def layout(self):
        specs = FieldSpec("u", "noise"), FieldSpec("a", "noise", rank=1, time_varying=False)
        times = 0.0, 0.5, 1.0
        return FieldsLayout(
            "unstable", CartesianGrid.uniform(4), specs, times, False, ("s",), {"p": 1e-3}, ("a",), ("u",)
        )

    def sample(self, seed):
        time.sleep(PAUSE)
        rng = np.random.default_rng(seed)
        u, a, s = rng.random((3, 5, 5)), rng.random((5, 5, 2)), rng.random()
        bad = seed % 7 == 0
        if bad and self.trouble == "raise":
            raise ConvergenceError(f"seed {seed} blew up")
        if bad and self.trouble == "nan":
            u[2, 1, 1] = np.nan
        return Trajectory({"u": u, "a": a}, {"s": s}, {"overshoot": 2.0 if bad else s})

    def refined(self):
        return self
"""


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "unstable.py"
    path.write_text(UNSTABLE)
    load_plugin(path)
    return path


@pytest.fixture(scope="session")
def unstable(plugin: Path) -> Callable[..., Recipe]:
    return recipe_registry["unstable"]


@pytest.fixture
def full_disks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Iterator[bool]]:
    """Run something again and again, the disk full at one flush of each; say whether there was such a flush."""
    flush = os.fsync

    def run(write: Callable[[], object], stride: int = 1) -> Iterator[bool]:
        moment, refused = 1, True
        while refused:
            calls = 0

            def refuse(descriptor: int, last: int = moment) -> None:
                nonlocal calls
                calls += 1
                if calls == last:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                flush(descriptor)

            with monkeypatch.context() as patch, contextlib.suppress(StorageError):
                patch.setattr(os, "fsync", refuse)
                write()
            refused = calls >= moment
            yield refused
            moment += stride
        assert moment > 10

    return run
