"""Writing HDF5 files that appear whole or not at all, also when the disk is full.

The HDF5 library does not survive a failed write: closing the file fails again, and the process may
crash at exit. So it never sees one. It writes through a file object that, after the first failure,
keeps further writes in memory, as if they had succeeded; the error is raised once the library has
closed the file, or earlier by `HDF5Writer.check`.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py

from sciml.files import atomic_path

__all__ = ["HDF5Writer", "atomic_hdf5"]


class _Sink(io.RawIOBase):
    """A file on disk whose writes always seem to succeed; the first error is kept in ``error``."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._position = self._size = 0
        self._lost: list[tuple[int, bytes]] = []
        self.error: OSError | None = None

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: object) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        if self.error is None:
            try:
                self._file.seek(self._position)
                done = 0
                while done < len(view):
                    done += self._file.write(view[done:])
            except OSError as error:
                self.error = error
        if self.error is not None:
            self._lost.append((self._position, bytes(view)))
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        start, stop = self._position, min(self._position + len(view), self._size)
        self._file.seek(start)
        content = self._file.read(stop - start).ljust(stop - start, b"\0")
        view[: stop - start] = content
        for offset, data in self._lost:
            low, high = max(offset, start), min(offset + len(data), stop)
            if low < high:
                view[low - start : high - start] = data[low - offset : high - offset]
        self._position = stop
        return stop - start

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        if self.error is None:
            try:
                self._file.truncate(self._size)
            except OSError as error:
                self.error = error
        return self._size

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass(frozen=True)
class HDF5Writer:
    """An HDF5 file being written.

    Attributes
    ----------
    file : h5py.File
    """

    file: h5py.File
    _sink: _Sink

    def check(self) -> None:
        """Raise the operating system's error if a write has failed; call it between large writes."""
        if self._sink.error is not None:
            raise self._sink.error


@contextlib.contextmanager
def atomic_hdf5(path: str | Path, folder: Path | None = None) -> Iterator[HDF5Writer]:
    """Write a new HDF5 file; it replaces ``path`` when the block ends without an error.

    Until then it lies in ``folder``, by default that of ``path``.

    Raises
    ------
    StorageError
        If the disk is full or the folder cannot be written. ``path`` is then as it was before.

    Examples
    --------
    >>> with atomic_hdf5("numbers.h5") as writer:  # doctest: +SKIP
    ...     writer.file["n"] = [1, 2, 3]
    """
    with atomic_path(path, folder) as temporary, contextlib.closing(_Sink(temporary)) as sink:
        with h5py.File(sink, "w", libver="v110") as file:
            writer = HDF5Writer(file, sink)
            yield writer
        writer.check()
