"""Rows of a dataset file: what belongs to one trajectory, whatever the kind.

Every array with a trajectory axis carries the attribute ``sample_varying``, true, outside
``/provenance``. Rows are copied and hashed through these, so that the engine and the verification
need to know no kind. Where trajectories have different lengths, their rows lie one after the other,
and the attribute ``offsets`` names the array that says where each begins; such arrays grow as rows are
appended.
"""

import hashlib

import h5py
import numpy as np

__all__ = [
    "append_row",
    "checksums",
    "copy_rows",
    "header_checksum",
    "not_finite",
    "read_row",
    "row_datasets",
]


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


def read_row(file: h5py.File, name: str, row: int) -> np.ndarray:
    """Return what an array holds of one trajectory."""
    offsets = file[name].attrs.get("offsets")
    if offsets is None:
        return file[name][row]
    start, stop = file[offsets][row : row + 2]
    return file[name][start:stop]


def append_row(file: h5py.File, target: h5py.Dataset, row: int, values: np.ndarray) -> None:
    """Write trajectory ``row`` of an array with offsets, after those before it."""
    offsets = file[target.attrs["offsets"]]
    start = int(offsets[row])
    target.resize(start + len(values), axis=0)
    target[start:] = values
    offsets[row + 1] = start + len(values)


def _append_rows(source: h5py.File, target: h5py.File, name: str, start: int, rows: slice) -> None:
    """Append trajectories ``rows`` of an array with offsets to those before ``start``."""
    places = source[name].attrs["offsets"]
    first, last, _ = rows.indices(int(source.attrs["n_trajectories"]))
    offsets = source[places][first : last + 1]
    grown, ends = target[name], target[places]
    begin = int(ends[start])
    grown.resize(begin + offsets[-1] - offsets[0], axis=0)
    grown[begin:] = source[name][offsets[0] : offsets[-1]]
    ends[start + 1 : start + len(offsets)] = begin + offsets[1:] - offsets[0]


def copy_rows(source: h5py.File, target: h5py.File, start: int, rows: slice = slice(None)) -> None:
    """Copy trajectories ``rows`` of one file into another of the same layout, from row ``start`` on.

    Where they have different lengths, those before ``start`` must be there already.
    """
    for name in row_datasets(source):
        if "offsets" in source[name].attrs:
            _append_rows(source, target, name, start, rows)
            continue
        values = source[name][(rows, *_stored(source, name))]
        target[name][(slice(start, start + len(values)), *_stored(source, name))] = values


def checksums(file: h5py.File) -> np.ndarray:
    """Return the SHA-256 of each trajectory as it is stored, in hexadecimal, shape (B,), dtype S64."""
    names = row_datasets(file)
    digests = []
    for row in range(int(file.attrs["n_trajectories"])):
        digest = hashlib.sha256()
        for name in names:
            values = np.ascontiguousarray(read_row(file, name, row))
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
                values = read_row(file, name, row)
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
