"""Rows of a dataset file: what belongs to one trajectory, whatever the kind.

Every array with a trajectory axis carries the attribute ``sample_varying``, true, outside
``/provenance``. Rows are copied and hashed through these, so that the engine and the verification
need to know no kind.
"""

import hashlib

import h5py
import numpy as np

__all__ = ["checksums", "copy_rows", "header_checksum", "row_datasets"]


def _datasets(file: h5py.File) -> list[str]:
    """Paths of all datasets outside ``/provenance``, sorted."""
    found: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("provenance/"):
            found.append(name)

    file.visititems(visit)
    return sorted(found)


def row_datasets(file: h5py.File) -> list[str]:
    """Return the paths of every dataset with a trajectory axis, sorted."""
    return [name for name in _datasets(file) if bool(file[name].attrs.get("sample_varying", False))]


def _stored(file: h5py.File, name: str) -> tuple[slice, ...]:
    """Frame 0 of a steady problem is never written; reading or copying it would only cost time."""
    steady = bool(file.attrs.get("steady", False)) and bool(file[name].attrs.get("time_varying", False))
    return (slice(1, None),) if steady else ()


def copy_rows(source: h5py.File, target: h5py.File, start: int, rows: slice = slice(None)) -> None:
    """Copy trajectories ``rows`` of one file into another of the same layout, from row ``start`` on."""
    for name in row_datasets(source):
        values = source[name][(rows, *_stored(source, name))]
        target[name][(slice(start, start + len(values)), *_stored(source, name))] = values


def checksums(file: h5py.File) -> np.ndarray:
    """Return the SHA-256 of each trajectory as it is stored, in hexadecimal, shape (B,), dtype S64."""
    names = row_datasets(file)
    digests = []
    for row in range(int(file.attrs["n_trajectories"])):
        digest = hashlib.sha256()
        for name in names:
            values = np.ascontiguousarray(file[name][(row, *_stored(file, name))])
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(values.tobytes())
        digests.append(digest.hexdigest())
    return np.array(digests, dtype="S64")


def header_checksum(file: h5py.File) -> str:
    """Return the SHA-256 of what all trajectories share: axes, times, parameters, seeds, configuration."""
    rows = set(row_datasets(file))
    digest = hashlib.sha256()
    for name in [*_datasets(file), "provenance/seed", "provenance/config"]:
        if name not in rows and name in file:
            values = np.asarray(file[name][()])
            digest.update(name.encode())
            digest.update(repr(values.tolist()).encode())
    for name in sorted(file.attrs):
        value = file.attrs[name]
        digest.update(
            f"{name} {value.tolist() if isinstance(value, np.ndarray | np.generic) else value}".encode()
        )
    return digest.hexdigest()
