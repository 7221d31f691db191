"""Kind ``points``: functions at points of domains that differ from sample to sample.

Specification, format version 2
-------------------------------
B samples, P points of all of them, d axes. Arrays of all samples lie one after the other; those of sample i are rows
offsets[i] to offsets[i + 1].

``/``
    ``format`` = "sciml", ``kind`` = "points", ``format_version``, ``dataset_name``, ``n_trajectories`` (B),
    ``n_spatial_dims``, ``input_fields``, ``target_fields``, ``code_scalars`` (lists), ``weight_field``,
    ``simulation_parameters`` (list of names) and one float attribute for each.
``/points``
    ``offsets`` int64 (B + 1); ``positions`` float64 (P, d).
``/fields``
    ``field_names``; per field float32 (P, d * rank) with ``description``.
``/cells/<type>``
    For each type of cells, in meshio's terms: ``offsets`` int64 (B + 1); ``connectivity`` int32 (M, vertices),
    numbers of points within the sample.
``/scalars``
    ``field_names``; per parameter a float32 () and per varying scalar a float32 (B).
``/provenance``
    As for every kind (`sciml.datasets.record`).

Ragged arrays have ``sample_varying``, true, ``time_varying``, false, and ``offsets``, the path of theirs.
"""

from collections.abc import Sequence

import h5py
import numpy as np

from sciml.errors import DatasetFormatError

from .fields import declare_scalars, fits, flags, identify, refuse_reserved, scalar_problems, texts
from .recipe import VERTICES, PointsLayout, Trajectory
from .rows import append_row

__all__ = ["check_points", "create_points", "write_points"]

CHUNK_BYTES = 1 << 16
RESERVED = {
    "code_scalars", "dataset_name", "format", "format_version", "input_fields", "kind", "n_spatial_dims",
    "n_trajectories", "simulation_parameters", "target_fields", "weight_field",
}  # fmt: skip


def create_points(file: h5py.File, layout: PointsLayout, n: int) -> None:
    """Write the skeleton of a dataset of ``n`` samples into an empty file."""
    refuse_reserved(layout, RESERVED)
    identify(file, "points", layout, n)
    file.attrs["n_spatial_dims"] = layout.dim
    for name, values in (("input", layout.inputs), ("target", layout.targets)):
        file.attrs[f"{name}_fields"] = texts(values)
    file.attrs["code_scalars"] = texts(layout.code)
    file.attrs["weight_field"] = layout.weight
    points = file.create_group("points")
    points.create_dataset("offsets", (n + 1,), np.int64)
    _ragged(points, "positions", (layout.dim,), np.float64, "/points/offsets")
    fields = file.create_group("fields")
    fields.attrs["field_names"] = texts(tuple(spec.name for spec in layout.fields))
    for spec in layout.fields:
        stored = _ragged(fields, spec.name, layout.components(spec), np.float32, "/points/offsets")
        stored.attrs["description"] = spec.description
    cells = file.create_group("cells")
    for kind in layout.cells:
        group = cells.create_group(kind)
        group.create_dataset("offsets", (n + 1,), np.int64)
        _ragged(group, "connectivity", (VERTICES[kind],), np.int32, f"/cells/{kind}/offsets")
    declare_scalars(file, layout, n, np.float32)


def _ragged(
    group: h5py.Group, name: str, components: tuple[int, ...], dtype: type, offsets: str
) -> h5py.Dataset:
    rows = max(1, CHUNK_BYTES // (np.dtype(dtype).itemsize * int(np.prod(components))))
    stored = group.create_dataset(
        name, (0, *components), dtype, maxshape=(None, *components), chunks=(rows, *components)
    )
    flags(stored, sample_varying=True, time_varying=False)
    stored.attrs["offsets"] = offsets
    return stored


def write_points(
    file: h5py.File, layout: PointsLayout, start: int, trajectories: Sequence[Trajectory]
) -> None:
    """Append samples start, start + 1, ... to a file made by `create_points`.

    Raises
    ------
    DatasetFormatError
        If a sample does not fit the layout.
    """
    shapes = {"positions": (layout.dim,), **{spec.name: layout.components(spec) for spec in layout.fields}}
    cells = {f"cells/{kind}": VERTICES[kind] for kind in layout.cells}
    for row, trajectory in enumerate(trajectories, start):
        found, declared = set(trajectory.fields), {*shapes, *cells}
        if found != declared:
            raise DatasetFormatError(
                f"the sample has fields {sorted(found)}: {layout.name!r} declares {sorted(declared)}"
            )
        count = len(trajectory.fields["positions"])
        if not count:
            raise DatasetFormatError(f"the sample has no points: {layout.name!r} needs some")
        for name, components in shapes.items():
            values = np.asarray(trajectory.fields[name])
            if values.shape != (count, *components):
                raise DatasetFormatError(
                    f"field {name!r} has shape {values.shape}: for {count} points {layout.name!r} declares "
                    f"{(count, *components)}"
                )
            target = file["points/positions" if name == "positions" else f"fields/{name}"]
            if not fits(values, target.dtype):
                raise DatasetFormatError(
                    f"field {name!r} does not fit {target.dtype}: give it in another unit"
                )
            append_row(file, target, row, values)
        for name, vertices in cells.items():
            values = np.asarray(trajectory.fields[name])
            if values.dtype.kind not in "iu" or values.shape[1:] != (vertices,):
                raise DatasetFormatError(
                    f"{name} has shape {values.shape}: give integers of shape (M, {vertices})"
                )
            if values.size and not 0 <= values.min() <= values.max() < count:
                raise DatasetFormatError(f"{name} names point {values.max()}: there are {count}")
            append_row(file, file[f"{name}/connectivity"], row, values)


def check_points(file: h5py.File) -> list[str]:
    """Return everything that is wrong with the layout of an open file; empty if nothing is."""
    problems = [
        f"/: attribute {name!r} is missing"
        for name in ("dataset_name", "n_trajectories", "n_spatial_dims")
        if name not in file.attrs
    ]
    problems += [
        f"/: {name!r} is missing"
        for name in (
            "points/offsets",
            "points/positions",
            "fields",
            "scalars",
            "provenance/seed",
            "provenance/config",
        )
        if name not in file
    ]
    if problems:
        return problems
    n = int(file.attrs["n_trajectories"])
    arrays = {"points/positions": "points/offsets"}
    for name in file["fields"].attrs.get("field_names", ()):
        arrays[f"fields/{name}"] = "points/offsets"
    for kind in file.get("cells", ()):
        arrays[f"cells/{kind}/connectivity"] = f"cells/{kind}/offsets"
    for name, places in arrays.items():
        if name not in file or places not in file:
            problems.append(f"{name}: it or {places} is missing")
            continue
        offsets = file[places][()]
        if offsets.shape != (n + 1,) or offsets[0] != 0 or (np.diff(offsets) < 0).any():
            problems.append(f"{places}: {n + 1} numbers from 0 on are expected that do not decrease")
        elif file[name].shape[0] != offsets[-1]:
            problems.append(f"{name}: {file[name].shape[0]} rows where {offsets[-1]} are expected")
    return problems + scalar_problems(file)
