"""Plug-ins: what was loaded is what the file holds."""

import hashlib
import sys
from pathlib import Path

import pytest

from sciml.errors import ConfigError
from sciml.registry import load_plugin, plugin_digest


def loaded(path: Path) -> str:
    """Return the name of a plug-in's module."""
    return next(name for name, module in sys.modules.items() if getattr(module, "__file__", "") == str(path))


def test_an_edited_plugin_is_not_taken_for_the_one_that_was_loaded(tmp_path: Path) -> None:
    path = (tmp_path / "mine.py").resolve()
    path.write_text("level = 1")
    first = plugin_digest(path)
    assert first == hashlib.sha256(b"level = 1").hexdigest()
    load_plugin(path, first)
    load_plugin(path)
    path.write_text("level = 2")
    for attempt in (load_plugin, plugin_digest, lambda path: load_plugin(path, first)):
        with pytest.raises(ConfigError, match=r"mine\.py' was edited after a process loaded it: restart"):
            attempt(path)
    # In a new process, whatever translation of a file of this size and second is cached.
    del sys.modules[loaded(path)]
    with pytest.raises(ConfigError, match="has another content than when the work began"):
        load_plugin(path, first)
    load_plugin(path)
    assert sys.modules[loaded(path)].level == 2


def test_a_plugin_that_failed_may_be_mended(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    with pytest.raises(ConfigError, match="failed to load: ZeroDivisionError"):
        load_plugin(path)
    path.write_text("level = 1")
    load_plugin(path)
