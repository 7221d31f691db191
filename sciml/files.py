"""Files that appear whole or not at all.

Every artefact is written to a temporary name beside its destination, flushed to the disk, then
renamed. A crash, a full disk or a kill leaves the old file as it was.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from sciml.errors import ConfigError, DatasetFormatError, OutputExistsError, SciMLError, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "append_lines",
    "atomic_folder",
    "atomic_path",
    "exchanged_folder",
    "fsync",
    "locked",
    "read_json",
    "recover_folder",
    "refuse_existing",
    "refuse_input",
    "storage_errors",
    "write_json",
]


def fsync(path: Path) -> None:
    """Force a file's or a folder's content onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors(path: str | Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into a `StorageError` that says what to do."""
    try:
        yield
    except SciMLError:
        raise
    except (OSError, RuntimeError) as error:
        # h5py reports a failed flush as RuntimeError and buries the errno in the text.
        text = str(error)
        code = getattr(error, "errno", None)
        if code == errno.ENOSPC or "No space left" in text or "errno = 28" in text:
            reason, remedy = "no space left on the disk", "free some space and run again"
        elif code == errno.EFBIG or "File too large" in text or "errno = 27" in text:
            reason, remedy = "the file would exceed the size limit", "raise the limit and run again"
        elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason, remedy = "permission denied", "choose a folder that can be written"
        elif isinstance(error, OSError) and code is not None:
            reason, remedy = os.strerror(code), "choose another path"
        else:
            raise
        raise StorageError(
            f"cannot write {str(path)!r}: {reason}; nothing that was there is lost, {remedy}"
        ) from error


@contextlib.contextmanager
def atomic_path(path: str | Path, folder: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to ``path`` on success, delete it on failure.

    The temporary file lies in the same folder, or in another one of the same file system (a rename
    across file systems is not atomic), and carries the process id, so that two processes never
    share one.

    Raises
    ------
    StorageError
        If the disk is full or the folder cannot be written. ``path`` is then as it was before.

    Examples
    --------
    >>> with atomic_path("note.txt") as temporary:  # doctest: +SKIP
    ...     temporary.write_text("all or nothing")
    """
    path = Path(path)
    temporary = (folder or path.parent) / f".{path.name}.{os.getpid()}.tmp"
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            fsync(temporary)
            os.replace(temporary, path)
            fsync(path.parent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def append_lines(path: str | Path, entries: Iterable[Any]) -> None:
    """Add entries to a file of JSON lines; they are on the disk when this returns.

    A kill leaves whole lines but for the last one.

    Raises
    ------
    StorageError
        If the disk is full or cannot be written.
    """
    with storage_errors(path), Path(path).open("a") as file:
        file.write("".join(json.dumps(entry) + "\n" for entry in entries))
        file.flush()
        os.fsync(file.fileno())


def refuse_folder(path: str | Path, marker: str, overwrite: bool) -> None:
    """Refuse an output folder that must not be written to.

    An empty one is accepted; with ``overwrite`` also one that holds ``marker``, the file by which
    results of the same kind are known.

    Raises
    ------
    OutputExistsError
        Otherwise.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise OutputExistsError(f"output {str(path)!r} is a file: give a folder")
    if not path.exists() or not any(path.iterdir()):
        return
    if overwrite and not (path / marker).exists():
        raise OutputExistsError(
            f"output {str(path)!r} holds other things (no {marker}): choose another folder"
        )
    if not overwrite:
        refuse_existing(path)


@contextlib.contextmanager
def atomic_folder(path: str | Path, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder to fill; it becomes ``path`` on success, is deleted on failure.

    With ``overwrite``, files of an existing folder are replaced one by one, ``marker`` last; others stay.

    Raises
    ------
    OutputExistsError
        As `refuse_folder`.
    StorageError
        If it cannot be written.
    """
    path = Path(path)
    refuse_folder(path, marker, overwrite)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for entry in (*temporary.rglob("*"), temporary):
                fsync(entry)
            # An empty folder gives way to a whole one, at once.
            with contextlib.suppress(OSError):
                os.rename(temporary, path)
                return
            for file in sorted(temporary.iterdir(), key=lambda file: file.name == marker):
                os.replace(file, path / file.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep other processes from an output, by ``.<name>.lock`` beside it; a lock ends with its process.

    Its folder is made, and removed again if nothing was written there.

    Raises
    ------
    OutputExistsError
        If another process is writing to it.
    StorageError
        If the folder cannot be written.

    Examples
    --------
    >>> with locked("runs"):  # doctest: +SKIP
    ...     recover_folder("runs")
    ...     refuse_folder("runs", "run.json", overwrite=True)
    """
    # Through a link what it names is locked.
    target = Path(path).resolve()
    lock = target.with_name(f".{target.name}.lock")
    with storage_errors(path):
        made = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        file = _open_lock(lock, path)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()
        for folder in made:
            # Not if anything was written there.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _open_lock(lock: Path, path: str | Path) -> IO[str]:
    while True:
        file = lock.open("w")
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise OutputExistsError(
                f"another process is writing to {str(path)!r}: wait for it, or choose another path"
            ) from error
        # The last holder may have removed the file between its opening and its locking.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == lock.stat().st_ino:
                return file
        file.close()


def _exchange(path: str | Path) -> tuple[Path, Path, Path]:
    # Through a link the folder is exchanged, not the link.
    target = Path(path).resolve()
    work = target.with_name(f".{target.name}.exchange")
    return target, work, work / "old"


def recover_folder(path: str | Path) -> None:
    """Undo an `exchanged_folder` that was killed: the old folder is put back if the new one is not there."""
    target, work, old = _exchange(path)
    with storage_errors(path):
        if old.exists() and not target.exists():
            os.rename(old, target)
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def exchanged_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder to fill; as a whole it then takes the place of ``path``.

    A kill at any moment leaves the old folder or the new one, at worst aside in ``.<name>.exchange``; the
    next call, or `recover_folder`, puts it back and clears what else was left. Two processes must not do
    this at once, see `locked`; whether ``path`` may be replaced is for the caller to say.

    Raises
    ------
    StorageError
        If it cannot be written. ``path`` is then as it was before.

    Examples
    --------
    >>> with locked("runs"), exchanged_folder("runs") as new:  # doctest: +SKIP
    ...     write_json(new / "run.json", {})
    """
    target, work, old = _exchange(path)
    recover_folder(path)
    with storage_errors(path):
        try:
            new = work / "new"
            new.mkdir(parents=True)
            yield new
            for folder in (*(inner for inner in new.rglob("*") if inner.is_dir()), new):
                fsync(folder)
            if target.exists():
                os.rename(target, old)
            os.rename(new, target)
            fsync(target.parent)
        finally:
            recover_folder(path)


def refuse_input(source: str | Path, target: str | Path) -> None:
    """Refuse an output that is the input itself, by whatever name, or a folder that holds it.

    Raises
    ------
    OutputExistsError
    """
    source, target = Path(source), Path(target)
    if not (source.exists() and target.exists()):
        return
    if any(target.samefile(path) for path in (source, *source.resolve().parents)):
        raise OutputExistsError(
            f"output {str(target)!r} {'holds' if target.is_dir() else 'is'} the input {str(source)!r}: "
            "choose another path"
        )


def refuse_existing(
    path: str | Path, remedy: str = "pass --overwrite (overwrite=True) to replace it"
) -> None:
    """Raise `OutputExistsError` if ``path`` exists."""
    if Path(path).exists():
        raise OutputExistsError(f"output {str(path)!r} exists: {remedy}, or choose another path")


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically.

    Raises
    ------
    ConfigError
        If it contains a number that is not finite, which JSON cannot hold.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except ValueError as error:
        raise ConfigError(
            f"cannot write {str(path)!r}: a value is not finite ({error}); give numbers"
        ) from error
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; a damaged file raises `DatasetFormatError` with the path."""
    try:
        return json.loads(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetFormatError(
            f"{str(path)!r} is not valid JSON ({error}): restore or delete it"
        ) from error
