"""Names for recipes, problems and domains, and plug-ins that add to them.

A registry maps a name to a factory. Everything registered is available to the command line:
``--plugin my_file.py`` runs a user's file first, and so does an installed distribution's entry
point in the group ``sciml.plugins``.
"""

import difflib
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Generic, TypeVar

from sciml.errors import ConfigError

__all__ = ["Registry", "load_entry_points", "load_plugin", "plugin_digest", "unknown_name"]

T = TypeVar("T")


def unknown_name(kind: str, name: str, known: list[str]) -> ConfigError:
    """Build the error for a name that is not known: it suggests the nearest and lists them all."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ConfigError(f"unknown {kind} {name!r}: {hint}known: {', '.join(sorted(known)) or 'none'}")


def _origin(entry: object) -> tuple[str | None, str | None]:
    """File and qualified name: the same for a script's class when a spawned worker imports it again."""
    module = sys.modules.get(getattr(entry, "__module__", ""))
    return getattr(module, "__file__", None), getattr(entry, "__qualname__", None)


class Registry(Generic[T]):
    """Mapping from names to factories, filled by a decorator.

    Parameters
    ----------
    kind : str
        What is registered, for error messages ("recipe", "domain", ...).

    Examples
    --------
    >>> shapes = Registry("shape")
    >>> @shapes.register("point")
    ... class Point: ...
    >>> shapes["pont"]
    Traceback (most recent call last):
    ...
    sciml.errors.ConfigError: unknown shape 'pont': did you mean 'point'? known: point
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its argument under ``name``."""

        def decorate(entry: T) -> T:
            old = self._entries.get(name)
            if old is not None and _origin(old) != _origin(entry):
                raise ConfigError(f"{self.kind} {name!r} is already registered; choose another name")
            self._entries[name] = entry
            return entry

        return decorate

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise unknown_name(self.kind, name, list(self._entries)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def name_of(self, entry: T) -> str | None:
        """Return the name under which ``entry`` was registered, or None."""
        return next((name for name, known in self._entries.items() if known is entry), None)


_digests: dict[str, str] = {}
"""SHA-256 of each plug-in as it was loaded, by module name."""


def _read_plugin(path: str | Path) -> tuple[Path, str, bytes, str]:
    """Return absolute path, module name, content and SHA-256 of a plug-in; refuse an edited one."""
    path = Path(path).resolve()
    if not path.is_file():
        raise ConfigError(f"plugin {str(path)!r} is not a file: give the path of a Python file")
    name = f"sciml_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if name in sys.modules and _digests.get(name, digest) != digest:
        raise ConfigError(
            f"plugin {str(path)!r} was edited after a process loaded it: restart the process "
            "(Dask or MPI workers, a notebook's kernel)"
        )
    return path, name, content, digest


def plugin_digest(path: str | Path) -> str:
    """Return the SHA-256 of a plug-in.

    Raises
    ------
    ConfigError
        If the file does not exist, or this process has loaded it with another content.

    Examples
    --------
    >>> len(plugin_digest(__file__))
    64
    """
    return _read_plugin(path)[-1]


def load_plugin(path: str | Path, expected: str = "") -> None:
    """Run a user's Python file so that its decorators register what it defines.

    The module name is derived from the absolute path, so that worker processes, which load the same
    file, agree on it and can unpickle instances of its classes.

    Parameters
    ----------
    path : path
    expected : str
        Its SHA-256, where another process decides what is right.

    Raises
    ------
    ConfigError
        If the file does not exist or fails to run, has another content than expected, or was edited
        after this process loaded it.
    """
    path, name, content, digest = _read_plugin(path)
    if expected and digest != expected:
        raise ConfigError(
            f"plugin {str(path)!r} has another content than when the work began: run the same again"
        )
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or not isinstance(spec.loader, SourceFileLoader):
        raise ConfigError(f"plugin {str(path)!r} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _digests[name] = digest
    try:
        # Not by the loader: a cached translation passes for that of a file edited in the same second.
        exec(compile(content, path, "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"plugin {str(path)!r} failed to load: {type(error).__name__}: {error}") from error


def load_entry_points() -> None:
    """Load the plug-ins of installed distributions (entry-point group ``sciml.plugins``)."""
    for entry in importlib.metadata.entry_points(group="sciml.plugins"):
        try:
            entry.load()
        except Exception as error:
            raise ConfigError(
                f"plugin entry point {entry.name!r} ({entry.value}) failed to load: {error}; "
                "update or uninstall the distribution that provides it"
            ) from error
