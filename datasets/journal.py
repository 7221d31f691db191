"""The journal of a generation: what became of every trajectory, one JSON line each.

It tells; it does not decide. Shards are what a generation resumes from, so a line that is lost, torn
or doubled by a kill costs nothing.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sciml.files import append_lines, atomic_path

__all__ = ["Journal"]


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line, None if a kill or a power cut left no whole one."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"index", "seed", "status"} <= entry.keys() else None


class Journal:
    """An append-only file of JSON lines.

    An entry has ``index``, ``seed`` and ``status``: "done", with ``checks`` and ``cpu_seconds`` (its
    share of its shard's), or "rejected", with ``reason``.

    Parameters
    ----------
    path : Path
        Opened if it exists; lines that are not whole are removed.

    Raises
    ------
    StorageError
        If the disk is full or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     journal = Journal(Path(folder) / "journal.jsonl")
    ...     journal.append([{"index": 0, "seed": 7, "status": "rejected", "reason": "blew up"}])
    ...     Journal(journal.path).rejected
    1
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: dict[int, float] = {}
        self._rejected: set[tuple[int, int]] = set()
        content = path.read_bytes() if path.exists() else b""
        lines = [line for line in content.split(b"\n") if _parse(line) is not None]
        whole = b"".join(line + b"\n" for line in lines)
        if whole != content:
            with atomic_path(path) as temporary:
                temporary.write_bytes(whole)
        self._count(json.loads(line) for line in lines)

    def _count(self, entries: Iterable[dict[str, Any]]) -> None:
        for entry in entries:
            if entry["status"] == "done":
                self._done[entry["index"]] = float(entry.get("cpu_seconds", 0.0))
            else:
                self._rejected.add((entry["index"], entry["seed"]))

    def append(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add entries; they are on the disk when this returns."""
        append_lines(self.path, entries)
        self._count(entries)

    def knows(self, index: int) -> bool:
        """Whether trajectory ``index`` is journalled as done."""
        return index in self._done

    @property
    def rejected(self) -> int:
        """Number of seeds that were rejected; a line that is there twice counts once."""
        return len(self._rejected)

    @property
    def cpu_seconds(self) -> float:
        """Mean CPU seconds of a finished trajectory, 0 if there is none."""
        return sum(self._done.values()) / len(self._done) if self._done else 0.0
