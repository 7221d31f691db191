"""What an interrupted evaluation has found so far: a file of JSON lines beside its folder, removed in the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sciml.errors import OutputExistsError
from sciml.files import append_lines, atomic_path
from sciml.provenance import first_difference, jsonable

__all__ = ["Unfinished"]

HEAD = "unfinished evaluation"


class Unfinished:
    """Results that are computed once, and on the disk when they are.

    Parameters
    ----------
    path : Path
        Read if it is there, but for a last line that a kill left torn; made with the first result.
    settings : dict
        On which results depend.
    overwrite : bool
        Whether to discard results of other settings.

    Raises
    ------
    OutputExistsError
        If there are results of other settings, or it is another file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Unfinished(Path(folder) / "found", {"budget": 40}).once(["a", 1], lambda: 0.25)
    ...     Unfinished(Path(folder) / "found", {"budget": 40}).once(["a", 1], lambda: 1 / 0)
    0.25
    0.25
    """

    def __init__(self, path: Path, settings: dict[str, Any], overwrite: bool = False) -> None:
        self.path, self.settings = path, jsonable(settings)
        self._found: dict[str, Any] = {}
        self._begun = False
        known, found = _read(path) if path.exists() else (self.settings, {})
        if known == self.settings:
            self._found = found
        elif not overwrite:
            raise OutputExistsError(
                f"{str(path)!r} holds an unfinished evaluation of other settings "
                f"({first_difference(known, self.settings)}): finish it with its own, or pass --overwrite "
                "(overwrite=True) to discard it"
            )

    def once(self, key: list[Any], make: Callable[[], Any]) -> Any:
        """Return the result of that key, of what JSON can hold; it is made if it is not there yet.

        Raises
        ------
        StorageError
            If the disk is full or cannot be written.
        """
        text = json.dumps(key)
        if text not in self._found:
            self._found[text] = jsonable(make())
            self._keep(text)
        return self._found[text]

    def _keep(self, text: str) -> None:
        if self._begun:
            append_lines(self.path, [[text, self._found[text]]])
            return
        # Without results of other settings, and a torn line.
        with atomic_path(self.path) as temporary:
            append_lines(temporary, [{HEAD: self.settings}, *self._found.items()])
        self._begun = True

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return settings and results."""
    try:
        head, *entries = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        return dict(head[HEAD]), {str(key): value for key, value in entries}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputExistsError(f"{str(path)!r} is no unfinished evaluation: move it away") from error
