"""The Well's directories: export, import and normalisation statistics.

A dataset of The Well is a folder with ``data/{train,valid,test}/*.hdf5``, ``stats.yaml`` and a card,
``<name>.yaml``. Files of kind ``fields`` have its HDF5 layout already. Source: arXiv 2412.00568 and
the project's ``docs/data_format.md``.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sciml.errors import ConfigError, DatasetFormatError
from sciml.files import (
    atomic_path,
    exchanged_folder,
    locked,
    recover_folder,
    refuse_existing,
    refuse_folder,
    refuse_input,
)
from sciml.provenance import collect

from .atomic_hdf5 import HDF5Writer, atomic_hdf5
from .fields import FORMAT_VERSION, check_fields, fits, flags, texts
from .reader import FieldsDataset, open_dataset
from .record import Record
from .rows import checksums, copy_rows, not_finite

__all__ = ["export_well", "field_statistics", "identity", "import_well", "open_fields", "write_statistics"]

STATISTICS = ("mean", "std", "mean_delta", "std_delta", "rms", "rms_delta")
MARKER = "stats.yaml"
BLOCK_BYTES = 16 << 20


@dataclass
class _Moments:
    """Count, mean and sum of squared deviations per component, merged block by block (Chan et al. 1979)."""

    count: np.ndarray
    mean: np.ndarray
    square: np.ndarray

    @classmethod
    def empty(cls, components: int) -> "_Moments":
        return cls(*(np.zeros(components) for _ in range(3)))

    def add(self, values: np.ndarray) -> None:
        """Merge finite values, shape (points, components)."""
        finite = np.isfinite(values)
        count = finite.sum(axis=0)
        # Measured from one of the values, the mean of equal values is exact.
        first = values[np.argmax(finite, axis=0), np.arange(values.shape[1])]
        first = np.where(count > 0, first, 0.0)
        offset = np.where(finite, values - first, 0.0)
        mean = offset.sum(axis=0) / np.maximum(count, 1)
        square = (np.where(finite, offset - mean, 0.0) ** 2).sum(axis=0)
        mean += first
        total = np.maximum(self.count + count, 1)
        step = np.where(self.count > 0, mean - self.mean, 0.0)
        self.square += square + step**2 * self.count * count / total
        self.mean = np.where(self.count > 0, self.mean + step * count / total, mean)
        self.count += count

    def statistics(self) -> dict[str, np.ndarray]:
        """Mean, standard deviation (dividing by the count) and root mean square; NaN of nothing."""
        nothing = np.where(self.count > 0, 0.0, np.nan)
        variance = self.square / np.maximum(self.count, 1) + nothing
        mean = self.mean + nothing
        return {"mean": mean, "std": np.sqrt(variance), "rms": np.sqrt(variance + mean**2)}


def _blocks(data: FieldsDataset, name: str, components: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Runs of frames and of their differences, each of shape (frames, points, components), float64."""
    dataset = data[name]
    varying = data.is_time_varying(name)
    rows = [(i,) for i in range(data.n_trajectories)] if dataset.attrs["sample_varying"] else [()]
    frames = data.times.shape[-1] if varying else 1
    frame_bytes = 8 * math.prod(dataset.shape[len(rows[0]) + varying :])
    step = max(1, BLOCK_BYTES // max(1, frame_bytes))
    for row in rows:
        for start in range(0, frames, step):
            before = max(0, start - 1)
            index = (*row, slice(before, start + step)) if varying else row
            values = np.asarray(dataset[index], dtype=float).reshape(
                -1, frame_bytes // 8 // components, components
            )
            if not varying:
                yield values, np.zeros_like(values)
            elif data.steady:
                # Frame 0 is a placeholder, not data.
                yield values[1:], np.diff(values, axis=0)
            else:
                yield values[start - before :], np.diff(values, axis=0)


def field_statistics(paths: Sequence[str | Path]) -> dict[str, dict[str, Any]]:
    """Return statistics of every field over all trajectories, frames and points of some files.

    Some frames of a trajectory are in memory at a time; sums are float64 and exact for constant
    fields. Values that are not finite are left out and counted.

    Parameters
    ----------
    paths : sequence of path
        Files of kind ``fields`` with the same fields.

    Returns
    -------
    dict of dict
        By statistic, then by field: a number, for a vector a list of D, for a tensor D lists of D.
        The Well's "mean", "std", "rms" and "mean_delta", "std_delta", "rms_delta" (of the difference of
        consecutive frames; 0 for a field without a time axis); "min", "max"; "nan_count" (values that
        are not finite, one number per field). Standard deviations divide by the number of values. Of a
        steady problem the zero frame counts only in the differences.

    Raises
    ------
    ConfigError
        If ``paths`` is one path or empty, or the fields of the files differ.
    DatasetFormatError
        If a file cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> from sciml.datasets import save
    >>> from sciml.solvers import CartesianGrid, Disk, Poisson, solve
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "torsion.h5")
    ...     save(solve(Poisson(Disk(), -1.0), CartesianGrid.uniform(32)), path)
    ...     statistics = field_statistics([path])
    >>> statistics["min"]["f"], statistics["max"]["mask"], statistics["nan_count"]["u"]
    (-1.0, 1.0, 0)
    """
    if isinstance(paths, str | bytes | Path):
        raise ConfigError(f"paths={str(paths)!r}: give a list of files, also of one")
    if not paths:
        raise ConfigError("paths=[]: give at least one file")
    values: dict[str, _Moments] = {}
    deltas: dict[str, _Moments] = {}
    low: dict[str, np.ndarray] = {}
    high: dict[str, np.ndarray] = {}
    missing: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        with FieldsDataset(path) as data:
            dim = len(data.axes)
            ranks = {name: int(data[name].name.split("/")[1][1]) for name in data.fields}
            found = {name: (dim,) * rank for name, rank in ranks.items()}
            if shapes and found != shapes:
                raise ConfigError(
                    f"{str(path)!r} has fields {found}, the first file {shapes}: give files of one kind"
                )
            for name, shape in found.items():
                components = math.prod(shape)
                if name not in shapes:
                    values[name], deltas[name] = _Moments.empty(components), _Moments.empty(components)
                    low[name], high[name] = np.full(components, np.inf), np.full(components, -np.inf)
                    missing[name] = 0
                for frames, difference in _blocks(data, name, components):
                    flat = frames.reshape(-1, components)
                    values[name].add(flat)
                    if difference.size:
                        deltas[name].add(difference.reshape(-1, components))
                    finite = np.isfinite(flat)
                    missing[name] += int(finite.size - finite.sum())
                    low[name] = np.minimum(low[name], flat.min(axis=0, where=finite, initial=np.inf))
                    high[name] = np.maximum(high[name], flat.max(axis=0, where=finite, initial=-np.inf))
            shapes = found
    result: dict[str, dict[str, Any]] = {key: {} for key in (*STATISTICS, "min", "max", "nan_count")}
    for name, shape in shapes.items():
        entries = {
            **values[name].statistics(),
            **{f"{key}_delta": value for key, value in deltas[name].statistics().items()},
            "min": low[name],
            "max": high[name],
        }
        for key, value in entries.items():
            result[key][name] = value.reshape(shape).tolist()
        result["nan_count"][name] = missing[name]
    return result


def _yaml(value: Any) -> str:
    """A value in YAML's flow style. Floats carry a dot and a signed exponent: YAML 1.1 takes 1e-05 for text."""
    if isinstance(value, list):
        return f"[{', '.join(_yaml(entry) for entry in value)}]"
    if isinstance(value, float):
        if math.isfinite(value):
            return f"{value:.16e}"
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return json.dumps(value)


def write_statistics(folder: str | Path, paths: Sequence[str | Path]) -> None:
    """Write ``stats.yaml`` of The Well, `field_statistics` of the training files, into a folder.

    Raises
    ------
    ConfigError, DatasetFormatError
        As `field_statistics`.
    StorageError
        If it cannot be written.
    """
    statistics = field_statistics(paths)
    lines = []
    for key in STATISTICS:
        lines.append(f"{key}:" if statistics[key] else f"{key}: {{}}")
        lines += [f"  {json.dumps(name)}: {_yaml(value)}" for name, value in statistics[key].items()]
    with atomic_path(Path(folder) / MARKER) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _copy(source: h5py.File, writer: HDF5Writer, rows: range, float32: bool = False) -> None:
    """Copy everything but ``/provenance``, of trajectories ``rows`` only, one at a time."""
    target = writer.file
    target.attrs.update(source.attrs)
    target.attrs["n_trajectories"] = len(rows)

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name.split("/")[0] == "provenance":
            return
        if isinstance(item, h5py.Group):
            target.create_group(name).attrs.update(item.attrs)
            return
        varying = bool(item.attrs.get("sample_varying", False))
        dtype = np.float32 if float32 and item.dtype.kind == "f" else item.dtype
        if name.startswith("scalars/") and not fits(item[()], dtype):
            dtype = item.dtype
        shape = (len(rows), *item.shape[1:]) if varying else item.shape
        chunks = (1, *item.chunks[1:]) if varying and item.chunks and item.ndim > 1 else None
        dataset = target.create_dataset(name, shape, dtype, chunks=chunks)
        dataset.attrs.update(item.attrs)
        if not varying:
            dataset[()] = item[()]

    source.visititems(visit)
    for i, row in enumerate(rows):
        copy_rows(source, target, i, slice(row, row + 1))
        writer.check()


def _split(n: int) -> dict[str, range]:
    """8:1:1 by trajectory, in order; each part has at least one."""
    if n < 3:
        raise ConfigError(f"{n} trajectories cannot be split into train, valid and test: give at least 3")
    part = max(1, round(n / 10))
    return {"train": range(n - 2 * part), "valid": range(n - 2 * part, n - part), "test": range(n - part, n)}


def export_well(source: str | Path, folder: str | Path, overwrite: bool = False) -> None:
    """Write a dataset of kind ``fields`` as a directory of The Well.

    ``data/train``, ``data/valid`` and ``data/test`` hold one file each, with 8:1:1 of the trajectories
    in their order (seeds are independent, so any split is random); ``stats.yaml`` is of the training
    file; ``<name>.yaml`` is the card and ``manifest.json`` that of `sciml.datasets.publication`. Each
    file has a ``/provenance``, which The Well's loader ignores: seeds, checks and origin of its
    trajectories, and in ``config`` name, size and SHA-256 of the source (``converted_from``). What a
    recipe generated can be verified as if it had been generated in parts.

    Parameters
    ----------
    source : path
    folder : path
    overwrite : bool
        Replace such a directory; it survives until the new one is complete.

    Raises
    ------
    ConfigError
        If there are fewer than three trajectories, or they have no grid (kind ``ode``).
    OutputExistsError
        If the folder holds something: without ``overwrite`` anything, with it what its manifest does not
        name, or the source.
    DatasetFormatError
        If the source cannot be read.

    Examples
    --------
    >>> export_well("gray-scott.h5", "gray-scott")  # doctest: +SKIP
    >>> from the_well.data import WellDataset  # doctest: +SKIP
    >>> WellDataset(path="gray-scott", well_split_name="train")  # doctest: +SKIP
    """
    from .publication import refuse_strangers, write_manifest  # which imports this module

    with open_fields(source, "The Well") as data, locked(folder):
        recover_folder(folder)
        refuse_folder(folder, MARKER, overwrite)
        refuse_input(source, folder)
        if Path(folder).exists():
            refuse_strangers(Path(folder))
        splits = _split(data.n_trajectories)
        counts = {split: len(rows) for split, rows in splits.items()}
        config = {**data.config, "converted_from": identity(source)}
        first = int(data.config.get("first", 0))
        now = collect()
        # Where the numbers were made, and where they were copied.
        made = {**data.provenance, "converted_utc": now["created_utc"], "converted_command": now["command"]}
        with exchanged_folder(folder) as temporary:
            for split, rows in splits.items():
                with atomic_hdf5(temporary / "data" / split / f"{data.name}.hdf5") as writer:
                    _copy(data.file, writer, rows)
                    if data.record is not None:
                        own = {**config, "part": split, "first": first + rows.start}
                        part = data.record.select(rows.start, rows.stop)
                        dataclasses.replace(part, config=own).write(writer.file, made)
            write_statistics(temporary, [temporary / "data" / "train" / f"{data.name}.hdf5"])
            card = {
                "dataset_name": data.name,
                "equation": str(data.provenance.get("equation", "")),
                "n_spatial_dims": len(data.axes),
                "spatial_resolution": list(data.resolution),
                "spatial_dims": list(data.axes),
                "grid_type": "cartesian",
                "n_steps_per_trajectory": data.times.shape[-1],
                "n_trajectories": counts,
                "fields": {name: str(data[name].attrs.get("description", "")) for name in data.fields},
                "config": config,
            }
            # JSON is YAML.
            (temporary / f"{data.name}.yaml").write_text(json.dumps(card, indent=2) + "\n")
            rejected, cpu_seconds = (
                (len(data.record.rejected), data.record.cpu_seconds) if data.record else (0, 0.0)
            )
            write_manifest(temporary, config, counts, rejected, cpu_seconds)


def open_fields(source: str | Path, layout: str) -> FieldsDataset:
    """Open a dataset to export; one of ordinary differential equations fits into no other layout.

    Raises
    ------
    ConfigError
        If it is of kind ``ode``.
    DatasetFormatError
        If it cannot be read.
    """
    data = open_dataset(source)
    if not isinstance(data, FieldsDataset):
        data.close()
        raise ConfigError(
            f"{str(source)!r} is of kind {data.kind!r}, {layout} has no layout without a grid: read it with "
            "open_dataset(...) as NumPy, or its windows with .torch(...)"
        )
    return data


def identity(source: str | Path) -> dict[str, Any]:
    """Return a file's name, size and SHA-256, for the configuration of what is made from it."""
    path = Path(source)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}


def import_well(source: str | Path, target: str | Path, overwrite: bool = False) -> None:
    """Turn one file of The Well, on a Cartesian grid, into a dataset of kind ``fields``.

    Fields become float32, uncompressed; all are inputs, those that vary in time are targets. Seeds are not known: -1.
    The check ``not_finite`` is the fraction of a trajectory's numbers that are not.

    Parameters
    ----------
    source, target : path
    overwrite : bool
        Replace an existing file; it survives until the new one is complete.

    Raises
    ------
    ConfigError
        If the file is sciml's, its grid is not Cartesian or its trajectories have different times.
    DatasetFormatError
        If it is damaged.
    OutputExistsError
        If the target exists, or is the source.

    Examples
    --------
    >>> import_well("turbulence.hdf5", "turbulence.h5")  # doctest: +SKIP
    """
    refuse_input(source, target)
    if not overwrite:
        refuse_existing(target)
    with FieldsDataset(source) as data:
        if data.record is not None:
            raise ConfigError(f"{str(source)!r} was made by sciml: it needs no import")
        if str(data.file.attrs["grid_type"]).lower() != "cartesian":
            raise ConfigError(
                f"{str(source)!r} has grid_type {data.file.attrs['grid_type']!r}: only 'cartesian' can be imported"
            )
        if data.times.ndim == 2 and (data.times != data.times[0]).any():
            raise ConfigError(
                f"{str(source)!r}: times differ by trajectory; split it into files of equal times"
            )
        with atomic_hdf5(target) as writer:
            file = writer.file
            _copy(data.file, writer, range(data.n_trajectories), float32=True)
            if data.times.ndim == 2:
                del file["dimensions/time"]
                file["dimensions/time"] = data.times[0].astype(np.float32)
                flags(file["dimensions/time"], sample_varying=False, time_varying=True)
            file.attrs["format"], file.attrs["kind"] = "sciml", "fields"
            file.attrs["format_version"] = FORMAT_VERSION
            flags(file, steady=False)
            varying = tuple(name for name in data.fields if data.is_time_varying(name))
            file.attrs["input_fields"], file.attrs["target_fields"] = texts(data.fields), texts(varying)
            file.attrs["mask_field"] = ""
            seeds = np.full(data.n_trajectories, -1)
            config = {"imported_from": {"format": "The Well", **identity(source)}}
            Record(config, seeds, {"not_finite": not_finite(file)}, checksums=checksums(file)).write(file)
            problems = check_fields(file)
            if problems:
                raise DatasetFormatError(f"{str(source)!r} cannot be imported: {problems[0]}; mend that file")
