"""Reading PDEBench's layouts (`sciml.datasets.pdebench`) as trajectories on a grid."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sciml.errors import ConfigError, DatasetFormatError
from sciml.solvers.grid import CartesianGrid

from .fields import RESERVED
from .reader import FLOW, is_pdebench
from .recipe import FieldsLayout, FieldSpec, Trajectory

__all__ = ["ABOUT", "AXES", "SCALARS", "Source", "read_source"]

AXES = ("x", "y", "z")
ABOUT = "sciml"
"""Root attribute with what the layouts have no place for, JSON."""
SCALARS = "scalars"
"""Group of files of arrays: the scalars that vary by trajectory, which ``ABOUT`` lists."""


@dataclass(frozen=True)
class Source:
    """What an import reads: the layout, the number of trajectories, and how to read one."""

    layout: FieldsLayout
    n: int
    read: Callable[[int], Trajectory]
    config: dict[str, Any] = field(default_factory=dict)


def read_source(
    file: h5py.File, periodic: bool | Sequence[bool] | None, channels: Sequence[str], target: str
) -> Source:
    """Find out what an open file of PDEBench holds.

    The arguments are those of `sciml.datasets.pdebench.import_pdebench`, with the same errors.
    """
    path = file.filename
    if not is_pdebench(file):
        raise DatasetFormatError(
            f"{path!r} is in no layout of PDEBench that describes itself (it holds "
            f"{', '.join(list(file)[:8])}): give 'tensor', {', '.join(FLOW)}, or groups with 'data'"
        )
    about = _read_about(file)
    name, known = Path(path).stem, _periodic(file, about, periodic, target)
    if "tensor" in file:
        found = _tensor(file, name, known, about)
    elif FLOW[0] in file:
        found = _flow(file, name, known)
    else:
        found = _groups(file, name, known, about, channels)
    if about:
        return dataclasses.replace(found, config={**found.config, "converted_from": about["converted_from"]})
    return found


def _read_about(file: h5py.File) -> dict[str, Any]:
    """What `export_pdebench` noted, with ``fields`` as `FieldSpec`; {} of other files."""
    if ABOUT not in file.attrs:
        return {}
    try:
        about = json.loads(file.attrs[ABOUT])
        about["fields"] = [FieldSpec(**entry) for entry in about["fields"]]
        # Older exports list no scalars; they lie where a foreign file has them.
        about["scalars"] = list(about["scalars"]) if "scalars" in about else None
        return {key: about[key] for key in ("fields", "periodic", "roles", "converted_from", "scalars")}
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetFormatError(
            f"{file.filename!r}: attribute {ABOUT!r} cannot be read ({error}): delete it, or export again"
        ) from error


def _periodic(
    file: h5py.File, about: dict[str, Any], periodic: bool | Sequence[bool] | None, target: str
) -> bool | Sequence[bool]:
    """Which axes are periodic: as given, else as the file says."""
    path, words = file.filename, Path(file.filename).stem.split("_")
    if periodic is not None and (isinstance(periodic, str) or not isinstance(periodic, bool | Sequence)):
        raise ConfigError(f"periodic={periodic!r}: give True, False, or a list of one bool per axis")
    if about:
        noted = about["periodic"]
        given = (periodic,) * len(noted) if isinstance(periodic, bool) else periodic
        if given is not None and list(given) != noted:
            axes = ", ".join(axis for axis, wraps in zip(AXES, noted, strict=False) if wraps) or "no axis"
            raise ConfigError(
                f"periodic={periodic}: {path!r} was written periodic along {axes}, leave it out"
            )
        return noted
    if periodic is not None:
        return periodic
    if _has_coefficient(file) or (FLOW[0] in file and "trans" in words):
        return False
    if FLOW[0] in file and "periodic" in words:
        return True
    raise ConfigError(
        f"periodic is missing: {path!r} does not say; give --periodic all, none, or axes such as x (in Python True, "
        f"False or one bool per axis), as in: sciml convert {path} --to sciml --periodic all -o {target}"
    )


def _has_coefficient(file: h5py.File) -> bool:
    """Whether ``nu`` is a coefficient, (N, X, Y), not a number for each trajectory."""
    return isinstance(file.get("nu"), h5py.Dataset) and file["nu"].ndim == 3


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
    roles = {"inputs": inputs if steady else (*inputs, *targets), "targets": targets}
    return FieldsLayout(name, grid, tuple(fields), **{**roles, **more})


def _other_fields(path: str) -> DatasetFormatError:
    return DatasetFormatError(f"{path!r}: attribute {ABOUT!r} describes other fields: delete it")


def _roles(about: dict[str, Any]) -> dict[str, Any]:
    """Inputs, targets, mask and kind of boundary, where they are stated."""
    stated = {key: value for key, value in about.get("roles", {}).items() if value}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in stated.items()}


def _columns(file: h5py.File, about: dict[str, Any]) -> dict[str, h5py.Dataset]:
    """Scalars that vary by trajectory: as listed, else the datasets (N,) of the root."""
    if about.get("scalars") is None:
        n = len(file["tensor"])
        found = {key: item for key, item in file.items() if isinstance(item, h5py.Dataset)}
        return {key: item for key, item in found.items() if item.shape == (n,) and "coordinate" not in key}
    columns = {name: file.get(f"{SCALARS}/{name}") for name in about["scalars"]}
    if any(item is None or item.shape != (len(file["tensor"]),) for item in columns.values()):
        raise _other_fields(file.filename)
    return columns


def _tensor(file: h5py.File, name: str, periodic: bool | Sequence[bool], about: dict[str, Any]) -> Source:
    tensor, path, steady = file["tensor"], file.filename, _has_coefficient(file)
    columns, parameters = _columns(file, about), _numbers(file)
    both = sorted(set(columns) & set(parameters))
    if both:
        raise DatasetFormatError(f"{path!r}: {both[0]!r} is an attribute and a dataset: rename one of them")

    def scalars(row: int) -> dict[str, float]:
        return {key: float(values[row]) for key, values in columns.items()}

    common: dict[str, Any] = {"parameters": parameters, "scalars": tuple(columns), **_roles(about)}
    coefficient = [FieldSpec("a", "coefficient", time_varying=False)] if steady else []
    specs = about.get("fields") or [*coefficient, FieldSpec("u", "solution" if coefficient else "")]
    names = {spec.time_varying: spec.name for spec in specs if spec.rank == 0}
    if len(specs) != len(names) or set(names) != {True, not coefficient}:
        raise _other_fields(path)
    if not steady and tensor.ndim == 3 and "y-coordinate" not in file:
        grid = _grid(file, ["x-coordinate"], tensor.shape[2:], periodic)
        times = _times(file, "t-coordinate", tensor.shape[1])
        layout = _layout(name, grid, specs, times=times, **common)
        return Source(layout, len(tensor), lambda row: Trajectory({names[True]: tensor[row]}, scalars(row)))
    if steady and tensor.ndim == 4 and tensor.shape[1] == 1:
        nu = file["nu"]
        if nu.shape != (len(tensor), *tensor.shape[2:]):
            raise DatasetFormatError(
                f"{path!r}: 'nu' of shape {nu.shape} does not fit 'tensor' of {tensor.shape}"
            )
        grid = _grid(file, ["x-coordinate", "y-coordinate"], tensor.shape[2:], periodic)
        layout = _layout(name, grid, specs, steady=True, **common)

        def read(row: int) -> Trajectory:
            return Trajectory({names[False]: nu[row], names[True]: tensor[row, 0]}, scalars(row))

        return Source(layout, len(tensor), read)
    remedy = (
        "a steady problem is (N, 1, X, Y) with 'nu' (N, X, Y)"
        if steady or tensor.ndim == 3
        else "store a scalar in 2D that varies in time in groups, in a file named *.h5"
    )
    raise DatasetFormatError(
        f"{path!r}: 'tensor' of shape {tensor.shape} {'with' if steady else 'without'} 'nu' is not what "
        f"PDEBench's loader takes it for; 1D scalars are (N, T, X), {remedy}"
    )


def _flow(file: h5py.File, name: str, periodic: bool | Sequence[bool]) -> Source:
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
    # PDEBench's word for sides through which waves leave.
    boundary = "OPEN" if "trans" in name.split("_") else "WALL"
    layout = _layout(name, grid, specs, times=times, parameters=_numbers(file), boundary=boundary)

    def read(row: int) -> Trajectory:
        velocity = np.stack([file[key][row] for key in keys[2:]], axis=-1)
        return Trajectory(
            {"density": file["density"][row], "pressure": file["pressure"][row], "velocity": velocity}
        )

    return Source(layout, shape[0], read)


def _groups(
    file: h5py.File,
    name: str,
    periodic: bool | Sequence[bool],
    about: dict[str, Any],
    channels: Sequence[str],
) -> Source:
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
    noted, dim = about.get("fields", []), len(shape) - 2
    constant = [spec for spec in noted if not spec.time_varying]
    varying = [spec for spec in noted if spec.time_varying and not channels]
    varying = varying or [FieldSpec(channel, "") for channel in names]
    stops = np.cumsum([dim**spec.rank for spec in varying])
    if stops[-1] != shape[-1] or any(spec.name not in first for spec in constant):
        raise _other_fields(file.filename)
    grid = _grid(first, [f"grid/{axis}" for axis in AXES[:dim]], shape[1:-1], periodic)
    parameters, scalars = _numbers(file), about.get("scalars")
    if scalars is None:
        scalars = sorted(set(_numbers(first)) - set(parameters))
        scalars = [key for key in scalars if all(key in file[sample].attrs for sample in samples)]
    elif any(key not in file[sample].attrs for key in scalars for sample in samples):
        raise _other_fields(file.filename)
    layout = _layout(
        name,
        grid,
        [*constant, *varying],
        times=_times(first, "grid/t", shape[0]),
        scalars=tuple(scalars),
        parameters=parameters,
        **({} if channels else _roles(about)),
    )

    def read(row: int) -> Trajectory:
        group = file[samples[row]]
        parts = np.split(group["data"][()], stops[:-1], axis=-1)
        parts += [group[spec.name][()] for spec in constant]
        fields = {
            spec.name: part.reshape(*shape[not spec.time_varying : -1], *(dim,) * spec.rank)
            for spec, part in zip([*varying, *constant], parts, strict=True)
        }
        return Trajectory(fields, {key: float(group.attrs[key]) for key in scalars})

    config = {"config": str(first.attrs["config"])} if "config" in first.attrs else {}
    return Source(layout, len(samples), read, config)
