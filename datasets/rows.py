"""Rows of a dataset file: what belongs to one trajectory, whatever the kind.

Every array with a trajectory axis carries the attribute ``sample_varying``, true, outside
``/provenance``. Rows are copied and hashed through these, so that the engine and the verification
need to know no kind.
"""

import hashlib

import h5py
import numpy as np

__all__ = ["checksums", "copy_rows", "header_checksum", "not_finite", "row_datasets"]


def _objects(file: h5py.File) -> list[str]:
    """Paths of all groups and datasets, sorted."""
    found: list[str] = []
    file.visit(found.append)
    return sorted(found)


def row_datasets(file: h5py.File) -> list[str]:
    """Return the paths of every dataset with a trajectory axis, sorted."""
    return [
        name
        for name in _objects(file)
        if not name.startswith("provenance") and bool(file[name].attrs.get("sample_varying", False))
        if isinstance(file[name], h5py.Dataset)
    ]


def _stored(file: h5py.File, name: str) -> tuple[slice, ...]:
    """Frame 0 of a steady problem is never written, so that it takes no space; a copy would."""
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
            values = np.ascontiguousarray(file[name][row])
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(values.tobytes())
        digests.append(digest.hexdigest())
    return np.array(digests, dtype="S64")


def not_finite(file: h5py.File) -> np.ndarray:
    """Return which fraction of each trajectory's stored numbers are not finite, shape (B,)."""
    bad, stored = (np.zeros(int(file.attrs["n_trajectories"])) for _ in range(2))
    for name in row_datasets(file):
        if file[name].dtype.kind == "f":
            for row in range(len(bad)):
                values = file[name][row]
                bad[row] += np.count_nonzero(~np.isfinite(values))
                stored[row] += np.size(values)
    return bad / np.maximum(stored, 1)


def _text(value: object) -> str:
    return repr(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)


def header_checksum(file: h5py.File) -> str:
    """Return the SHA-256 of everything but the rows: axes, parameters, attributes, ``/provenance``."""
    rows = set(row_datasets(file))
    digest = hashlib.sha256()
    for name in ["/", *_objects(file)]:
        item = file[name]
        digest.update(f"{name}\n".encode())
        for key in sorted(item.attrs):
            if key != "header_checksum":
                digest.update(f"{key} {_text(item.attrs[key])}\n".encode())
        if isinstance(item, h5py.Dataset) and name not in rows:
            digest.update(_text(item[()]).encode())
    return digest.hexdigest()
