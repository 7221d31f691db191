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
stored in groups. What the layouts have no place for (names and ranks of fields, names of the scalars
that vary by trajectory, periodic axes, the mask) is in a root attribute ``sciml``, JSON; PDEBench's
loaders read no attributes. Source: arXiv 2210.07182 and the files that the project publishes.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from sciml.errors import ConfigError
from sciml.files import refuse_existing, refuse_input

from .atomic_hdf5 import atomic_hdf5
from .kinds import create, write
from .pdebench_layouts import ABOUT, SCALARS, read_source
from .reader import FieldsDataset, open_hdf5
from .record import Record
from .rows import checksums, not_finite
from .well import identity, open_fields

__all__ = ["export_pdebench", "import_pdebench"]

NAMES = {"nu": "Nu", "viscosity": "Nu", "mach": "M"}

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
    lost = sorted(set(names) - set(constant) - set(varying))
    if lost:
        raise ConfigError(
            f"{data.path.name}: scalar {lost[0]!r} varies in time, which PDEBench has no place for: "
            "convert to 'well'"
        )
    parameters = {NAMES.get(name, name): value for name, value in constant.items()}
    if len(parameters) < len(constant):
        raise ConfigError(
            f"{data.path.name}: parameters {', '.join(constant)} would share the names {', '.join(parameters)} "
            "of PDEBench: rename one"
        )
    if data.config.get("recipe") == "darcy":
        # PDEBench's name for the constant right-hand side.
        parameters.setdefault("beta", 1.0)
    return parameters, varying


def _refuse_names(data: FieldsDataset, kind: Kind, parameters: dict[str, float], varying: list[str]) -> None:
    """Refuse names that the layout needs for itself, before anything is written."""
    constant = [name for name in data.fields if kind == "groups" and not data.is_time_varying(name)]
    for what, names, taken in (
        ("parameter", parameters, {ABOUT, *varying}),
        ("scalar", varying, {"config"} if kind == "groups" else set()),
        ("field", constant, {"data", "grid"}),
    ):
        clash = [name for name in names if name.split("/")[0] in taken]
        if clash:
            raise ConfigError(
                f"{data.path.name}: {what} {clash[0]!r} has a name that its layout of PDEBench uses for something "
                "else: rename it, or convert to 'well'"
            )


def _about(data: FieldsDataset, varying: list[str]) -> str:
    """What the layouts have no place for."""
    conditions = data.file["boundary_conditions"].values()
    sides = [str(condition.attrs["bc_type"]).upper() for condition in conditions]
    about = {
        "fields": [
            {
                "name": name,
                "description": str(data[name].attrs.get("description", "")),
                "rank": _rank(data, name),
                "time_varying": data.is_time_varying(name),
            }
            for name in data.fields
        ],
        "scalars": varying,
        "periodic": data.periodic,
        "roles": {
            "inputs": data.inputs,
            "targets": data.targets,
            "mask": data.mask,
            "boundary": next((side for side in sides if side != "PERIODIC"), "WALL"),
        },
        "converted_from": identity(data.path),
    }
    return json.dumps(about)


def export_pdebench(source: str | Path, target: str | Path, overwrite: bool = False) -> None:
    """Write a dataset of kind ``fields`` in PDEBench's layout.

    Which layout it is follows from the fields (see above). Vectors are flattened to channels. Parameters
    become attributes of the file, by PDEBench's names (``Nu``, ``beta``, ``rho``, ``M``, ...; of the
    Burgers equation ``Nu`` is pi times the viscosity; ``beta`` of the recipe ``darcy`` is its right-hand
    side, 1). Scalars that vary by trajectory are datasets ``scalars/<name>`` (N,) of an ``.hdf5`` file and
    attributes of the groups of an ``.h5`` file; fields without a time axis are further datasets of the
    groups. PDEBench's loaders ignore those, `import_pdebench` restores them.
    ``t-coordinate`` holds the T times of the frames, not T + 1 edges.

    Parameters
    ----------
    source, target : path
        The target's suffix must be that of the layout.
    overwrite : bool
        Replace an existing file; it survives until the new one is complete.

    Raises
    ------
    ConfigError
        If PDEBench has no layout for the fields or the kind, a name is one that the layout uses, or the
        suffix is wrong.
    OutputExistsError
        If the target exists, or is the source.
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
    refuse_input(source, target)
    if not overwrite:
        refuse_existing(target)
    with open_fields(source, "PDEBench") as data:
        kind = _kind(data)
        suffix = ".h5" if kind == "groups" else ".hdf5"
        if Path(target).suffix != suffix:
            raise ConfigError(
                f"target {str(target)!r}: PDEBench reads this layout from files named *{suffix}"
            )
        parameters, varying = _parameters(data)
        _refuse_names(data, kind, parameters, varying)
        with atomic_hdf5(target) as writer:
            file = writer.file
            file.attrs.update(parameters)
            file.attrs[ABOUT] = _about(data, varying)
            if kind != "groups":
                for axis, values in data.axes.items():
                    file[f"{axis}-coordinate"] = values.astype(np.float32)
                for name in varying:
                    file[f"{SCALARS}/{name}"] = data.file["scalars"][name][()]
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
    scalars = {name: float(data.file["scalars"][name][row]) for name in varying}
    group.attrs.update(scalars)
    config = {
        "dataset": data.name,
        "fields": {name: len(data.axes) ** _rank(data, name) for name in fields},
        "parameters": {**parameters, **scalars},
        "seed": int(data.seeds[row]) if data.seeds is not None else None,
    }
    group.attrs["config"] = json.dumps(config)


def import_pdebench(
    source: str | Path,
    target: str | Path,
    *,
    periodic: bool | Sequence[bool] | None = None,
    channels: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Turn a file of PDEBench into a dataset of kind ``fields``.

    A ``tensor`` becomes ``u``, ``nu`` the constant field ``a`` of a steady problem; the velocity
    components of a flow become the vector ``velocity``; the channels of groups become scalars ``u0``,
    ``u1``, ... (``u`` if there is one). A file that `export_pdebench` wrote gets the fields back that it was
    made from. Numeric attributes of the file become parameters, those that all groups have scalars. Seeds
    are not known: -1. The check ``not_finite`` is the fraction
    of a trajectory's numbers that are not. Without ``t-coordinate``, times are frame numbers.

    Parameters
    ----------
    source, target : path
    periodic : bool or sequence of bool, optional
        Whether the domain is periodic, for all axes or per axis. Can be left out where that is known: of
        files that `export_pdebench` wrote, of Darcy flow (bounded), and of flows whose file name has
        PDEBench's word for it, ``_periodic_`` or ``_trans_``.
    channels : sequence of str
        Names for the channels of groups, then scalars.
    overwrite : bool
        Replace an existing file; it survives until the new one is complete.

    Raises
    ------
    DatasetFormatError
        If the file is of another layout, or of one that PDEBench's own loader misreads.
    ConfigError
        If ``periodic`` or ``channels`` do not fit the file, or ``periodic`` is needed.
    OutputExistsError
        If the target exists, or is the source.

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
    refuse_input(source, target)
    if not overwrite:
        refuse_existing(target)
    with open_hdf5(source) as file:
        found = read_source(file, periodic, channels, str(target))
        config = {"imported_from": {"format": "PDEBench", **identity(source)}, **found.config}
        with atomic_hdf5(target) as writer:
            create(writer.file, found.layout, found.n)
            for row in range(found.n):
                write(writer.file, found.layout, row, [found.read(row)])
                writer.check()
            seeds, checks = np.full(found.n, -1), {"not_finite": not_finite(writer.file)}
            Record(config, seeds, checks, checksums=checksums(writer.file)).write(writer.file)
