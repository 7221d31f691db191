"""Every example in a docstring runs, and gives what it shows."""

import doctest
import importlib
import importlib.util
from pathlib import Path

import pytest


def test_examples(
    modules: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    attempted = 0
    for name in modules:
        if name.startswith("sciml.solvers.compiled.") and importlib.util.find_spec("numba") is None:
            continue
        result = doctest.testmod(
            importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
        )
        assert not result.failed, f"{name}\n{capsys.readouterr().out}"
        attempted += result.attempted
    assert attempted > 40
