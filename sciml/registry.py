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
from pathlib import Path
from typing import Generic, TypeVar

from sciml.errors import ConfigError

__all__ = ["Registry", "load_entry_points", "load_plugin", "unknown_name"]

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


def load_plugin(path: str | Path) -> None:
    """Run a user's Python file so that its decorators register what it defines.

    The module name is derived from the absolute path, so that worker processes, which load the same
    file, agree on it and can unpickle instances of its classes.

    Raises
    ------
    ConfigError
        If the file does not exist or fails to run.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise ConfigError(f"plugin {str(path)!r} is not a file: give the path of a Python file")
    name = f"sciml_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"plugin {str(path)!r} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
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
