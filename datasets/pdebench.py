"""PDEBench's files: export and import.

PDEBench tells two layouts apart by the file's suffix.

``.hdf5``
    Arrays with a sample axis. ``tensor`` (N, T, X), ``x-coordinate``, ``t-coordinate``: one scalar in 1D.
    ``tensor`` (N, 1, X, Y) and ``nu`` (N, X, Y): the solution and the coefficient of a steady problem
    (Darcy). ``density``, ``pressure``, ``Vx``, [``Vy``, ``Vz``] (N, T, X, [Y, Z]): compressible flow.
``.h5``
    One group per sample, ``0000``, ``0001``, ...: ``data`` (T, X, [Y], C), ``grid/x``, [``grid/y``],
    ``grid/t``, and an attribute ``config``, YAML.

PDEBench's loader takes every ``tensor`` of rank 4 for Darcy, so a scalar in 2D that varies in time is
stored in groups. Source: arXiv 2210.07182 and the files that the project publishes.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from sciml.errors import ConfigError, DatasetFormatError
from sciml.files import refuse_existing
from sciml.solvers.grid import CartesianGrid

from .atomic_hdf5 import atomic_hdf5
from .fields import RESERVED
from .kinds import create, write
from .reader import FieldsDataset, open_hdf5
from .recipe import FieldsLayout, FieldSpec, Trajectory
from .record import Record
from .rows import checksums
from .well import imported_from

__all__ = ["export_pdebench", "import_pdebench"]

NAMES = {"nu": "Nu", "viscosity": "Nu", "mach": "M"}
AXES = ("x", "y", "z")
FLOW = ("density", "pressure", "Vx")

Kind = Literal["array", "darcy", "groups"]


def _rank(data: FieldsDataset, name: str) -> int:
    return int(data[name].name.split("/")[1][1])


def _row(data: FieldsDataset, name: str, row: int) -> np.ndarray:
    """One trajectory's field, shape ([frames,] *space, components)."""
    dataset = data[name]
    values = dataset[row] if dataset.attrs["sample_varying"] else dataset[()]
    time = values.shape[:1] if data.is_time_varying(name) else ()
    varies = dataset.attrs["dim_varying"]
    kept = [m if along else 1 for m, along in zip(data.resolution, varies, strict=True)]
    full = (*time, *data.resolution, len(data.axes) ** _rank(data, name))
    return np.broadcast_to(values.reshape(*time, *kept, -1), full)


def _kind(data: FieldsDataset) -> Kind:
    varying = [name for name in data.fields if data.is_time_varying(name)]
    constant = [name for name in data.fields if not data.is_time_varying(name)]
    dim = len(data.axes)
    scalars = all(_rank(data, name) == 0 for name in data.fields)
    if data.steady:
        if dim == 2 and scalars and len(varying) == len(constant) == 1:
            return "darcy"
        raise ConfigError(
            f"{data.path.name}: PDEBench's layout of steady problems holds one scalar coefficient and one scalar "
            f"solution in 2D, not {', '.join(data.fields)} in {dim}D: convert to 'well'"
        )
    if not varying or dim == 3:
        raise ConfigError(
            f"{data.path.name}: PDEBench has no layout for its fields ({', '.join(data.fields)}) in {dim}D: "
            "convert to 'well'"
        )
    return "array" if dim == 1 and scalars and len(data.fields) == 1 else "groups"


def _parameters(data: FieldsDataset) -> tuple[dict[str, float], list[str]]:
    """Parameters by PDEBench's names, and the names of the scalars that vary by trajectory."""
    scalars = data.file["scalars"]
    names = [str(name) for name in scalars.attrs["field_names"]]
    # The file's attributes have all digits, /scalars those of float32.
    exact = data.file.attrs
    constant = {
        name: float(exact.get(name, scalars[name][()])) for name in names if scalars[name].shape == ()
    }
    if data.name == "burgers" and "nu" in constant:
        # PDEBench's equation has the diffusion Nu / pi.
        constant["nu"] *= math.pi
    varying = [name for name in names if scalars[name].shape == (data.n_trajectories,)]
    return {NAMES.get(name, name): value for name, value in constant.items()}, varying


def export_pdebench(source: str | Path, target: str | Path, overwrite: bool = False) -> None:
    """Write a dataset of kind ``fields`` in PDEBench's layout.

    Which layout it is follows from the fields (see above). Vectors are flattened to channels. Parameters
    become attributes of the file, by PDEBench's names (``Nu``, ``beta``, ``rho``, ``M``, ...; of the
    Burgers equation ``Nu`` is pi times the viscosity). Scalars that vary by trajectory are datasets
    (N,) of an ``.hdf5`` file and attributes of the groups of an ``.h5`` file; fields without a time axis
    are further datasets of the groups. PDEBench's loaders ignore those. ``t-coordinate`` holds the T
    times of the frames, not T + 1 edges.

    Parameters
    ----------
    source, target : path
        The target's suffix must be that of the layout.
    overwrite : bool
        Replace an existing file; it survives until the new one is complete.

    Raises
    ------
    ConfigError
        If PDEBench has no layout for the fields, or the suffix is wrong.
    OutputExistsError
        If the target exists.
    DatasetFormatError
        If the source cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> first, ours, second = (os.path.join(folder.name, name) for name in ("1.hdf5", "2.h5", "3.hdf5"))
    >>> with h5py.File(first, "w") as file:
    ...     file["tensor"] = np.ones((3, 5, 8), np.float32)
    ...     file["x-coordinate"] = np.arange(8) / 8
    >>> import_pdebench(first, ours, periodic=True)
    >>> export_pdebench(ours, second)
    >>> with h5py.File(second) as file:
    ...     sorted(file), file["tensor"].shape
    (['t-coordinate', 'tensor', 'x-coordinate'], (3, 5, 8))
    >>> folder.cleanup()
    """
    if not overwrite:
        refuse_existing(target)
    with FieldsDataset(source) as data:
        kind = _kind(data)
        suffix = ".h5" if kind == "groups" else ".hdf5"
        if Path(target).suffix != suffix:
            raise ConfigError(
                f"target {str(target)!r}: PDEBench reads this layout from files named *{suffix}"
            )
        parameters, varying = _parameters(data)
        with atomic_hdf5(target) as writer:
            file = writer.file
            file.attrs.update(parameters)
            if kind != "groups":
                for axis, values in data.axes.items():
                    file[f"{axis}-coordinate"] = values.astype(np.float32)
                for name in varying:
                    file[name] = data[name][()]
            if kind == "array":
                file["t-coordinate"] = np.asarray(data.times, dtype=np.float32)
            for row in range(data.n_trajectories):
                if kind == "groups":
                    _write_group(file, data, row, parameters, varying)
                else:
                    _write_arrays(file, data, row)
                writer.check()


def _write_arrays(file: h5py.File, data: FieldsDataset, row: int) -> None:
    """Write row ``row`` of ``tensor`` and, of a steady problem, of ``nu``."""
    for name in data.fields:
        values = _row(data, name, row)[..., 0]
        varying = data.is_time_varying(name)
        values = values[-1:] if data.steady and varying else values
        key = "tensor" if varying else "nu"
        if row == 0:
            shape = (data.n_trajectories, *values.shape)
            file.create_dataset(key, shape, np.float32, chunks=(1, *values.shape))
        file[key][row] = values


def _write_group(
    file: h5py.File, data: FieldsDataset, row: int, parameters: dict[str, float], varying: list[str]
) -> None:
    digits = max(4, len(str(data.n_trajectories - 1)))
    group = file.create_group(f"{row:0{digits}d}")
    fields = [name for name in data.fields if data.is_time_varying(name)]
    group["data"] = np.concatenate([_row(data, name, row) for name in fields], axis=-1).astype(np.float32)
    for name in data.fields:
        if name not in fields:
            group[name] = _row(data, name, row).astype(np.float32)
    for axis, values in data.axes.items():
        group[f"grid/{axis}"] = values.astype(np.float32)
    group["grid/t"] = np.asarray(data.times, dtype=np.float32)
    scalars = {name: float(data[name][row]) for name in varying}
    group.attrs.update(scalars)
    config = {
        "dataset": data.name,
        "fields": {name: len(data.axes) ** _rank(data, name) for name in fields},
        "parameters": {**parameters, **scalars},
        "seed": int(data.seeds[row]) if data.seeds is not None else None,
    }
    group.attrs["config"] = json.dumps(config)


@dataclass(frozen=True)
class _Source:
    """What an import reads: the layout, the number of trajectories, and how to read one."""

    layout: FieldsLayout
    n: int
    read: Callable[[int], Trajectory]
    config: str = ""


def import_pdebench(
    source: str | Path,
    target: str | Path,
    *,
    periodic: bool | Sequence[bool],
    channels: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Turn a file of PDEBench into a dataset of kind ``fields``.

    A ``tensor`` becomes ``u``, ``nu`` the constant field ``a`` of a steady problem; the velocity
    components of a flow become the vector ``velocity``; the channels of groups become scalars ``u0``,
    ``u1``, ... (``u`` if there is one). Numeric attributes of the file become parameters, those that all
    groups have scalars. Seeds are not known: -1. Without ``t-coordinate``, times are frame numbers.

    Parameters
    ----------
    source, target : path
    periodic : bool or sequence of bool
        Whether the domain is periodic, for all axes or per axis: the file does not say.
    channels : sequence of str
        Names for the channels of groups.
    overwrite : bool
        Replace an existing file; it survives until the new one is complete.

    Raises
    ------
    DatasetFormatError
        If the file is of another layout, or of one that PDEBench's own loader misreads.
    ConfigError
        If ``periodic`` or ``channels`` do not fit the file.
    OutputExistsError
        If the target exists.

    Examples
    --------
    >>> import os, tempfile
    >>> from sciml.datasets import open_dataset
    >>> folder = tempfile.TemporaryDirectory()
    >>> theirs, ours = (os.path.join(folder.name, name) for name in ("theirs.hdf5", "ours.h5"))
    >>> with h5py.File(theirs, "w") as file:
    ...     file["tensor"] = np.ones((3, 5, 8), np.float32)
    ...     file["x-coordinate"] = (np.arange(8) + 0.5) / 8
    >>> import_pdebench(theirs, ours, periodic=True)
    >>> with open_dataset(ours) as data:
    ...     data["u"].shape, data.periodic
    ((3, 5, 8), (True,))
    >>> folder.cleanup()
    """
    if not overwrite:
        refuse_existing(target)
    with open_hdf5(source) as file:
        name = Path(source).stem
        if "tensor" in file:
            found = _tensor(file, name, periodic)
        elif set(FLOW) <= set(file):
            found = _flow(file, name, periodic)
        elif any(isinstance(item, h5py.Group) and "data" in item for item in file.values()):
            found = _groups(file, name, periodic, channels)
        else:
            raise DatasetFormatError(
                f"{str(source)!r} is in no layout of PDEBench that describes itself (it holds "
                f"{', '.join(list(file)[:8])}): give 'tensor', {', '.join(FLOW)}, or groups with 'data'"
            )
        config = {**imported_from(source, "PDEBench"), **({"config": found.config} if found.config else {})}
        with atomic_hdf5(target) as writer:
            create(writer.file, found.layout, found.n)
            for row in range(found.n):
                write(writer.file, found.layout, row, [found.read(row)])
                writer.check()
            Record(config, np.full(found.n, -1), checksums=checksums(writer.file)).write(writer.file)


def _axis(group: h5py.Group, key: str, count: int) -> np.ndarray:
    """Coordinates along one axis, checked."""
    if key not in group:
        raise DatasetFormatError(f"{group.file.filename!r} has no {key!r}: add the coordinates")
    values = group[key][()].astype(float)
    steps = np.diff(values)
    if len(values) != count or count < 2 or steps.min() <= 0 or np.ptp(steps) > 0.02 * steps.mean():
        raise DatasetFormatError(
            f"{group.file.filename!r}: {key!r} must hold {count} evenly spaced, increasing coordinates"
        )
    return values


def _grid(
    group: h5py.Group, keys: Sequence[str], shape: tuple[int, ...], periodic: bool | Sequence[bool]
) -> CartesianGrid:
    axes = [_axis(group, key, count) for key, count in zip(keys, shape, strict=True)]
    wraps = (periodic,) * len(shape) if isinstance(periodic, bool) else tuple(periodic)
    if len(wraps) != len(shape):
        raise ConfigError(f"periodic={periodic}: give one bool, or one for each of {len(shape)} axes")
    cells = tuple(len(x) if wrap else len(x) - 1 for x, wrap in zip(axes, wraps, strict=True))
    upper = tuple(
        float(x[-1] + wrap * (x[-1] - x[0]) / (len(x) - 1)) for x, wrap in zip(axes, wraps, strict=True)
    )
    return CartesianGrid(tuple(float(x[0]) for x in axes), upper, cells, wraps)


def _times(group: h5py.Group, key: str, frames: int) -> tuple[float, ...]:
    """Times of the frames: T of them, or the first T of T + 1 edges."""
    if key not in group:
        return tuple(float(t) for t in range(frames))
    values = group[key][()]
    if values.shape not in ((frames,), (frames + 1,)):
        raise DatasetFormatError(
            f"{group.file.filename!r}: {key!r} has shape {values.shape}, {frames} frames need ({frames},) or "
            f"({frames + 1},)"
        )
    return tuple(values[:frames].astype(float).tolist())


def _numbers(item: h5py.HLObject) -> dict[str, float]:
    """Attributes that are finite numbers."""
    numbers = {
        name: value for name, value in item.attrs.items() if isinstance(value, np.number | int | float)
    }
    return {name: float(v) for name, v in numbers.items() if np.isfinite(v) and name not in RESERVED}


def _layout(name: str, grid: CartesianGrid, fields: Sequence[FieldSpec], **more: Any) -> FieldsLayout:
    targets = tuple(spec.name for spec in fields if spec.time_varying)
    inputs = tuple(spec.name for spec in fields if not spec.time_varying)
    steady = more.setdefault("steady", False)
    return FieldsLayout(
        name, grid, tuple(fields), inputs=inputs if steady else (*inputs, *targets), targets=targets, **more
    )


def _tensor(file: h5py.File, name: str, periodic: bool | Sequence[bool]) -> _Source:
    tensor, path = file["tensor"], file.filename
    columns = {
        key: file[key]
        for key in file
        if isinstance(file[key], h5py.Dataset)
        and file[key].shape == tensor.shape[:1]
        and "coordinate" not in key
    }

    def scalars(row: int) -> dict[str, float]:
        return {key: float(values[row]) for key, values in columns.items()}

    common: dict[str, Any] = {"parameters": _numbers(file), "scalars": tuple(columns)}
    if "nu" not in file and tensor.ndim == 3 and "y-coordinate" not in file:
        grid = _grid(file, ["x-coordinate"], tensor.shape[2:], periodic)
        times = _times(file, "t-coordinate", tensor.shape[1])
        layout = _layout(name, grid, [FieldSpec("u", "")], times=times, **common)
        return _Source(layout, len(tensor), lambda row: Trajectory({"u": tensor[row]}, scalars(row)))
    if "nu" in file and tensor.ndim == 4 and tensor.shape[1] == 1:
        nu = file["nu"]
        if nu.shape != (len(tensor), *tensor.shape[2:]):
            raise DatasetFormatError(
                f"{path!r}: 'nu' of shape {nu.shape} does not fit 'tensor' of {tensor.shape}"
            )
        grid = _grid(file, ["x-coordinate", "y-coordinate"], tensor.shape[2:], periodic)
        specs = [FieldSpec("a", "coefficient", time_varying=False), FieldSpec("u", "solution")]
        layout = _layout(name, grid, specs, steady=True, **common)
        return _Source(
            layout, len(tensor), lambda row: Trajectory({"a": nu[row], "u": tensor[row, 0]}, scalars(row))
        )
    remedy = (
        "a steady problem is (N, 1, X, Y) with 'nu' (N, X, Y)"
        if "nu" in file or tensor.ndim == 3
        else "store a scalar in 2D that varies in time in groups, in a file named *.h5"
    )
    raise DatasetFormatError(
        f"{path!r}: 'tensor' of shape {tensor.shape} {'with' if 'nu' in file else 'without'} 'nu' is not what "
        f"PDEBench's loader takes it for; 1D scalars are (N, T, X), {remedy}"
    )


def _flow(file: h5py.File, name: str, periodic: bool | Sequence[bool]) -> _Source:
    shape = file["density"].shape
    dim = len(shape) - 2
    keys = ["density", "pressure", *(f"V{axis}" for axis in AXES[: max(dim, 0)])]
    wrong = [key for key in keys if key not in file or file[key].shape != shape]
    if wrong or not 1 <= dim <= 3 or set(file) & {f"V{axis}" for axis in AXES[dim:]}:
        raise DatasetFormatError(
            f"{file.filename!r}: 'density' of shape {shape} needs {', '.join(keys)} of that shape, (N, T, space), "
            "and no other component of the velocity"
        )
    grid = _grid(file, [f"{axis}-coordinate" for axis in AXES[:dim]], shape[2:], periodic)
    specs = [FieldSpec("density", ""), FieldSpec("pressure", ""), FieldSpec("velocity", "", rank=1)]
    times = _times(file, "t-coordinate", shape[1])
    layout = _layout(name, grid, specs, times=times, parameters=_numbers(file))

    def read(row: int) -> Trajectory:
        velocity = np.stack([file[key][row] for key in keys[2:]], axis=-1)
        return Trajectory(
            {"density": file["density"][row], "pressure": file["pressure"][row], "velocity": velocity}
        )

    return _Source(layout, shape[0], read)


def _groups(file: h5py.File, name: str, periodic: bool | Sequence[bool], channels: Sequence[str]) -> _Source:
    samples = sorted(key for key, item in file.items() if isinstance(item, h5py.Group) and "data" in item)
    first = file[samples[0]]
    shape = first["data"].shape
    unlike = [key for key in samples if file[key]["data"].shape != shape]
    if unlike or not 3 <= len(shape) <= 4:
        raise DatasetFormatError(
            f"{file.filename!r}: 'data' of group {(unlike or samples)[0]} has shape "
            f"{file[(unlike or samples)[0]]['data'].shape}; all must be (T, X, C) or (T, X, Y, C), of one shape"
        )
    names = tuple(channels) or (("u",) if shape[-1] == 1 else tuple(f"u{c}" for c in range(shape[-1])))
    if len(set(names)) != shape[-1]:
        raise ConfigError(f"channels={list(channels)}: give {shape[-1]} different names, one per channel")
    grid = _grid(first, [f"grid/{axis}" for axis in AXES[: len(shape) - 2]], shape[1:-1], periodic)
    parameters = _numbers(file)
    common = set(_numbers(first)).intersection(*(file[sample].attrs for sample in samples)) - set(parameters)
    scalars = tuple(sorted(common))
    layout = _layout(
        name,
        grid,
        [FieldSpec(channel, "") for channel in names],
        times=_times(first, "grid/t", shape[0]),
        scalars=scalars,
        parameters=parameters,
    )

    def read(row: int) -> Trajectory:
        group = file[samples[row]]
        values = group["data"][()]
        fields = {channel: values[..., c] for c, channel in enumerate(names)}
        return Trajectory(fields, {key: float(group.attrs[key]) for key in scalars})

    return _Source(layout, len(samples), read, str(first.attrs.get("config", "")))
