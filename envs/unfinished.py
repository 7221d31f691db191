"""What an interrupted evaluation has found so far: a file of JSON lines beside its folder, removed in the end."""

import json
import os
from pathlib import Path
from typing import Any

from sciml.errors import OutputExistsError
from sciml.files import atomic_path, storage_errors
from sciml.provenance import first_difference, jsonable

__all__ = ["Unfinished"]


class Unfinished:
    """Results by key that are on the disk once they are added.

    Parameters
    ----------
    path : Path
        Read if it is there; a last line that a kill left torn is ignored.
    settings : dict
        On which results depend.
    overwrite : bool
        Whether to discard results of other settings.

    Raises
    ------
    OutputExistsError
        If there are results of other settings.
    StorageError
        If the disk is full or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Unfinished(Path(folder) / "found", {"budget": 40}).add(["a", 1], 0.25)
    ...     Unfinished(Path(folder) / "found", {"budget": 40}).get(["a", 1])
    0.25
    """

    def __init__(self, path: Path, settings: dict[str, Any], overwrite: bool = False) -> None:
        self.path, settings = path, jsonable(settings)
        self._found: dict[str, Any] = {}
        known, entries = _read(path) if path.exists() else (None, [])
        if known == settings:
            self._found = {json.dumps(key): value for key, value in entries}
        elif known is not None and not overwrite:
            raise OutputExistsError(
                f"{str(path)!r} holds an unfinished evaluation of other settings "
                f"({first_difference(known, settings)}): finish it with its own, or pass --overwrite to discard it"
            )
        kept = [settings, *([json.loads(key), value] for key, value in self._found.items())]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def get(self, key: list[Any]) -> Any:
        """Return a result, None if it is not there yet."""
        return self._found.get(json.dumps(key))

    def add(self, key: list[Any], value: Any) -> None:
        """Keep a result."""
        with storage_errors(self.path), self.path.open("a") as file:
            file.write(json.dumps([key, value]) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._found[json.dumps(key)] = value

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink()


def _read(path: Path) -> tuple[dict[str, Any], list[list[Any]]]:
    """Return the settings and the results, but a last line that has no end."""
    try:
        known, *entries = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    except ValueError as error:
        raise OutputExistsError(f"{str(path)!r} is no unfinished evaluation: remove it") from error
    return known, entries
