"""Kind ``fields``: trajectories on a Cartesian grid, in the HDF5 layout of The Well.

Specification, format version 2
-------------------------------
B trajectories, T frames, D axes. The Well's loader opens the file as it is; what it does not know
(marked +) it ignores.

``/``
    ``dataset_name``, ``grid_type`` = "cartesian", ``n_spatial_dims``, ``n_trajectories``,
    ``simulation_parameters`` (list of names) and one float attribute for each.
    + ``format`` = "sciml", ``kind`` = "fields", ``format_version``, ``steady``,
    ``input_fields``, ``target_fields`` (lists), ``mask_field``.
``/dimensions``
    ``spatial_dims`` (list, in axis order); ``time`` float32 (T); one float32 array per axis.
``/boundary_conditions/<axis>_<type>``
    ``bc_type`` PERIODIC, WALL or OPEN; ``mask`` bool, true at the first and last index.
``/scalars``
    ``field_names``; per parameter a float32 () (float64 where it is beyond the range of float32) and per
    varying scalar a float32 (B).
``/t0_fields``, ``/t1_fields``, ``/t2_fields``
    ``field_names``; per field float32 (B, [T,] space, D * rank) with ``dim_varying``,
    ``sample_varying``, ``time_varying`` (and + ``description``). A chunk is one trajectory's run of
    whole frames.
+ ``/provenance``
    As for every kind (`sciml.datasets.record`).

A steady problem has two frames: zero (never written, so it takes no space) and the solution.
The same recipe, seed and count give the same datasets bit for bit, whatever the workers and
interruptions; only attributes of ``/provenance`` differ.
"""

import h5py
import numpy as np

from sciml.errors import ConfigError, DatasetFormatError

from .recipe import FieldsLayout, FieldSpec, Layout, Trajectory

__all__ = [
    "FORMAT_VERSION",
    "check_fields",
    "create_fields",
    "declare_scalars",
    "fits",
    "flags",
    "identify",
    "refuse_reserved",
    "scalar_problems",
    "texts",
    "write_trajectories",
]

FORMAT_VERSION = 2
CHUNK_BYTES = 1 << 20
AXES = ("x", "y", "z")
RESERVED = {
    "dataset_name", "format", "format_version", "grid_type", "input_fields", "kind", "mask_field",
    "n_spatial_dims", "n_trajectories", "simulation_parameters", "steady", "target_fields",
}  # fmt: skip
TEXT = h5py.string_dtype()


def texts(names: tuple[str, ...]) -> np.ndarray:
    """Return names as variable-length UTF-8, also if empty: fixed-length bytes break The Well's loader."""
    return np.array(names, dtype=TEXT)


def flags(target: h5py.Dataset | h5py.Group, **values: bool) -> None:
    """Set attributes that are true HDF5 booleans, as checkers demand."""
    for name, value in values.items():
        target.attrs[name] = np.bool_(value)


def fits(values: np.ndarray | float, dtype: np.typing.DTypeLike) -> bool:
    """Whether a floating-point type holds numbers without turning any into infinity.

    Examples
    --------
    >>> fits(1e39, np.float32), fits(np.array([0.1, np.inf]), np.float32)
    (False, True)
    """
    with np.errstate(over="ignore"):
        return bool((np.isinf(np.asarray(values).astype(dtype)) == np.isinf(values)).all())


def identify(file: h5py.File, kind: str, layout: Layout, n: int) -> None:
    """Write the root attributes that files of every kind have."""
    file.attrs["format"] = "sciml"
    file.attrs["kind"] = kind
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["dataset_name"] = layout.name
    file.attrs["n_trajectories"] = n


def scalar_problems(file: h5py.File) -> list[str]:
    """Return what is wrong with ``/scalars`` and the seeds of an open file without a grid."""
    n, problems = int(file.attrs["n_trajectories"]), []
    for name in file["scalars"].attrs.get("field_names", ()):
        entry = file["scalars"].get(name)
        shape = (n,) if entry is not None and entry.attrs.get("sample_varying") else ()
        if entry is None or entry.shape != shape:
            problems.append(f"scalars/{name}: missing, or not of shape {shape}")
    if file["provenance/seed"].shape != (n,):
        problems.append(f"provenance/seed: shape {file['provenance/seed'].shape} where {(n,)} is expected")
    return problems


def refuse_reserved(layout: Layout, reserved: set[str]) -> None:
    """Refuse parameters whose names the format uses for root attributes."""
    if clash := reserved & set(layout.parameters):
        raise ConfigError(
            f"layout {layout.name!r} has parameters {sorted(clash)}, which the format uses: rename"
        )


def declare_scalars(file: h5py.File, layout: Layout, n: int, dtype: type) -> None:
    """Write the parameters, as root attributes and in ``/scalars``, and room for the varying scalars."""
    file.attrs["simulation_parameters"] = texts(tuple(layout.parameters))
    scalars = file.create_group("scalars")
    scalars.attrs["field_names"] = texts((*layout.parameters, *layout.scalars))
    for name, value in layout.parameters.items():
        file.attrs[name] = float(value)
        number = (dtype if fits(value, dtype) else np.float64)(value)
        flags(scalars.create_dataset(name, data=number), sample_varying=False, time_varying=False)
    for name in layout.scalars:
        flags(scalars.create_dataset(name, (n,), dtype), sample_varying=True, time_varying=False)


def create_fields(file: h5py.File, layout: FieldsLayout, n: int) -> None:
    """Write the skeleton of a dataset of ``n`` trajectories into an empty file."""
    grid = layout.grid
    refuse_reserved(layout, RESERVED)
    identify(file, "fields", layout, n)
    file.attrs["grid_type"] = "cartesian"
    file.attrs["n_spatial_dims"] = grid.dim
    file.attrs["steady"] = np.bool_(layout.steady)
    file.attrs["input_fields"] = texts(layout.inputs)
    file.attrs["target_fields"] = texts(layout.targets)
    file.attrs["mask_field"] = layout.mask
    names = AXES[: grid.dim]
    dimensions = file.create_group("dimensions")
    dimensions.attrs["spatial_dims"] = texts(names)
    for name, values in zip(("time", *names), (layout.times, *grid.axes), strict=True):
        axis = dimensions.create_dataset(name, data=np.asarray(values, dtype=np.float32))
        flags(axis, sample_varying=False, time_varying=name == "time")

    conditions = file.create_group("boundary_conditions")
    for name, count, periodic in zip(names, grid.shape, grid.periodic, strict=True):
        kind = "PERIODIC" if periodic else layout.boundary
        condition = conditions.create_group(f"{name}_{kind.lower()}")
        condition.attrs["bc_type"] = kind
        condition.attrs["associated_dims"] = texts((name,))
        condition.attrs["associated_fields"] = texts(())
        flags(condition, sample_varying=False, time_varying=False)
        ends = np.zeros(count, dtype=bool)
        ends[[0, -1]] = True
        condition.create_dataset("mask", data=ends)

    declare_scalars(file, layout, n, np.float32)
    for rank in range(3):
        group = file.create_group(f"t{rank}_fields")
        specs = [spec for spec in layout.fields if spec.rank == rank]
        group.attrs["field_names"] = texts(tuple(spec.name for spec in specs))
        for spec in specs:
            shape = layout.shape(spec)
            dataset = group.create_dataset(spec.name, (n, *shape), np.float32, chunks=_chunks(layout, spec))
            dataset.attrs["dim_varying"] = np.ones(grid.dim, dtype=bool)
            dataset.attrs["description"] = spec.description
            flags(dataset, sample_varying=True, time_varying=spec.time_varying)


def _chunks(layout: FieldsLayout, spec: FieldSpec) -> tuple[int, ...]:
    """One trajectory, whole frames, about a MiB: windows of frames are what is read."""
    shape = layout.shape(spec)
    if not spec.time_varying:
        return (1, *shape)
    frame_bytes = 4 * int(np.prod(shape[1:]))
    frames = 1 if layout.steady else int(np.clip(CHUNK_BYTES // frame_bytes, 1, shape[0]))
    return (1, frames, *shape[1:])


def write_trajectories(
    file: h5py.File, layout: FieldsLayout, start: int, trajectories: list[Trajectory]
) -> None:
    """Write the fields of trajectories start, start + 1, ... into a file made by `create_fields`.

    Raises
    ------
    DatasetFormatError
        If a trajectory does not fit the layout.
    """
    rows = slice(start, start + len(trajectories))
    for spec in layout.fields:
        dataset = file[f"t{spec.rank}_fields/{spec.name}"]
        steady = layout.steady and spec.time_varying
        expected = layout.shape(spec)[1:] if steady else layout.shape(spec)
        for trajectory in trajectories:
            values = trajectory.fields.get(spec.name)
            if values is None or values.shape != expected:
                got = "missing" if values is None else f"of shape {values.shape}"
                raise DatasetFormatError(
                    f"field {spec.name!r} is {got}: {layout.name!r} declares shape {expected}"
                )
        stacked = np.stack([trajectory.fields[spec.name] for trajectory in trajectories]).astype(np.float32)
        if steady:
            dataset[rows, -1] = stacked
        else:
            dataset[rows] = stacked


def check_fields(file: h5py.File) -> list[str]:
    """Return everything that is wrong with the layout of an open file; empty if nothing is.

    The rules of The Well's own checker: every declared name exists, flags are booleans, and every
    shape is [B] [T] space, D * rank, as its flags say.
    """
    problems: list[str] = []

    def names(group: str, attribute: str) -> list[str]:
        if group not in file or attribute not in file[group].attrs:
            problems.append(f"{group}: attribute {attribute!r} is missing")
            return []
        return [
            name.decode() if isinstance(name, bytes) else str(name) for name in file[group].attrs[attribute]
        ]

    for attribute in ("dataset_name", "grid_type", "n_spatial_dims", "n_trajectories"):
        if attribute not in file.attrs:
            problems.append(f"/: attribute {attribute!r} is missing")
    for group in ("dimensions", "boundary_conditions", "scalars", "t0_fields", "t1_fields", "t2_fields"):
        if group not in file:
            problems.append(f"/: group {group!r} is missing")
    if problems:
        return problems

    def flag(path: str, name: str) -> bool:
        value = file[path].attrs.get(name)
        if not isinstance(value, bool | np.bool_):
            problems.append(f"{path}: attribute {name!r} must be a boolean, not {value!r}")
        return bool(value)

    dim, n = int(file.attrs["n_spatial_dims"]), int(file.attrs["n_trajectories"])
    axes = names("dimensions", "spatial_dims")
    missing = [axis for axis in ("time", *axes) if axis not in file["dimensions"]]
    if missing or len(axes) != dim:
        return [*problems, f"dimensions: {dim} axes and time expected, {axes} declared, {missing} missing"]
    space = tuple(file["dimensions"][axis].shape[-1] for axis in axes)
    frames = file["dimensions/time"].shape[-1]
    for axis in ("time", *axes):
        flag(f"dimensions/{axis}", "sample_varying")

    def check(path: str, space_shape: tuple[int, ...], components: tuple[int, ...]) -> None:
        if path not in file:
            problems.append(f"{path}: declared but missing")
            return
        leading = (n,) if flag(path, "sample_varying") else ()
        leading += (frames,) if flag(path, "time_varying") else ()
        expected = (*leading, *space_shape, *components)
        if file[path].shape != expected:
            problems.append(f"{path}: shape {file[path].shape} where {expected} is declared")

    for name in names("scalars", "field_names"):
        check(f"scalars/{name}", (), ())
    for rank in range(3):
        for name in names(f"t{rank}_fields", "field_names"):
            path = f"t{rank}_fields/{name}"
            varying = file[path].attrs.get("dim_varying") if path in file else None
            if path in file and (varying is None or len(varying) != dim):
                problems.append(f"{path}: attribute 'dim_varying' must hold {dim} booleans")
                continue
            kept = space if varying is None else tuple(m for m, v in zip(space, varying, strict=True) if v)
            check(path, kept, (dim,) * rank)
    for name, condition in file["boundary_conditions"].items():
        if str(condition.attrs.get("bc_type", "")).upper() not in ("PERIODIC", "WALL", "OPEN"):
            problems.append(f"boundary_conditions/{name}: bc_type must be PERIODIC, WALL or OPEN")
        if "mask" not in condition:
            problems.append(f"boundary_conditions/{name}: mask is missing")
    if file.attrs.get("format") == "sciml":
        seeds = file.get("provenance/seed")
        if seeds is None or "provenance/config" not in file:
            problems.append("provenance: seed or config is missing")
        elif seeds.shape != (n,):
            problems.append(f"provenance/seed: shape {seeds.shape} where {(n,)} is expected")
    return problems
