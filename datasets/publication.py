"""Publication: shards become one file, or a folder that The Well's loader opens, whole or not at all.

Specification of the folder, manifest version 1
-----------------------------------------------
``data/{train,valid,test}/<name>.hdf5``
    Contiguous runs of trajectories (they are independent, so nothing is shuffled), each a complete
    dataset; an empty part is left out.
``stats.yaml``
    Statistics of the training part, as The Well's normalization reads them; kind ``fields`` only.
``<name>.yaml``
    The card: what the data are. JSON, which is YAML too.
``manifest.json``
    ``config``; ``trajectories`` by part; ``rejected``, a count; ``cpu_seconds``; ``files``: SHA-256 and
    size of every other file; ``statistics``: min, max, mean, std and count of NaN of every array with a
    trajectory axis, by file (of a steady problem without the zero frame).
"""

import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sciml.errors import ConfigError, DatasetFormatError, OutputExistsError
from sciml.files import atomic_path, exchanged_folder, read_json, write_json

from .reader import open_dataset, open_hdf5
from .recipe import FieldsLayout, Recipe
from .record import Record
from .rows import row_datasets
from .shards import Shard, block_size, copy_trajectories
from .well import write_statistics

__all__ = [
    "MANIFEST",
    "bias_warning",
    "publish_file",
    "publish_folder",
    "published_config",
    "refuse_strangers",
    "split_counts",
    "summary",
    "verify_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
PARTS = ("train", "valid", "test")
RAGGED_ROWS = 1 << 16
"""Points whose statistics are taken at a time."""
BIAS = 0.1
"""Of all trajectories drawn, so many may be rejected without a warning."""


def split_counts(n: int, fractions: Sequence[float]) -> tuple[int, ...]:
    """Divide ``n`` trajectories among training, validation and test by largest remainder.

    A part with a positive fraction gets at least one.

    Raises
    ------
    ConfigError
        If the fractions are not three numbers that are not negative and sum to 1, or more of them are
        positive than there are trajectories.

    Examples
    --------
    >>> split_counts(11, (0.8, 0.1, 0.1))
    (9, 1, 1)
    >>> split_counts(3, (0.98, 0.01, 0.01))
    (1, 1, 1)
    """
    shares = np.asarray(fractions, dtype=float)
    if shares.shape != (3,) or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-9:
        raise ConfigError(
            f"split={tuple(fractions)}: give the fractions of training, validation and test, which sum to 1"
        )
    filled = int((shares > 0).sum())
    if n < filled:
        raise ConfigError(
            f"split={tuple(fractions)}: n={n} cannot fill {filled} parts; take n={filled} or more, or give a "
            "fraction of 0"
        )
    exact = n * shares
    counts = np.floor(exact).astype(int)
    for part in np.argsort(counts - exact, kind="stable")[: n - counts.sum()]:
        counts[part] += 1
    for part in np.flatnonzero((shares > 0) & (counts == 0)):
        counts[counts.argmax()] -= 1
        counts[part] = 1
    return tuple(counts.tolist())


def publish_file(
    recipe: Recipe, config: dict[str, Any], shards: Sequence[Shard], path: Path, parts: Path
) -> None:
    """Merge all shards into one file, which is written among them and then moved."""
    record = Record.join([shard.record(config) for shard in shards], config)
    copy_trajectories(shards, recipe.layout(), path, parts, record, 0, len(record.seeds))


def publish_folder(
    recipe: Recipe,
    config: dict[str, Any],
    shards: Sequence[Shard],
    path: Path,
    split: Sequence[float],
) -> None:
    """Divide all shards among the files of a folder, which takes the place of any that was there."""
    record, layout = Record.join([shard.record(config) for shard in shards], config), recipe.layout()
    counts = split_counts(len(record.seeds), split)
    stops = np.cumsum(counts).tolist()
    with exchanged_folder(path) as folder:
        files: dict[str, Path] = {}
        for part, count, stop in zip(PARTS, counts, stops, strict=True):
            if count:
                files[part] = folder / "data" / part / f"{path.name}.hdf5"
                files[part].parent.mkdir(parents=True)
                own = dataclasses.replace(
                    record.select(stop - count, stop), config={**config, "part": part, "first": stop - count}
                )
                copy_trajectories(shards, layout, files[part], files[part].parent, own, stop - count, stop)
        if isinstance(layout, FieldsLayout) and "train" in files:
            write_statistics(folder, [files["train"]])
        numbers = {part: count for part, count in zip(PARTS, counts, strict=True) if count}
        _write_card(folder / f"{path.name}.yaml", path.name, recipe, numbers, record)
        rows = max(1, block_size(layout) // 8)
        write_manifest(folder, config, numbers, len(record.rejected), record.cpu_seconds, rows)


def write_manifest(
    folder: Path,
    config: dict[str, Any],
    trajectories: dict[str, int],
    rejected: int,
    cpu_seconds: float,
    rows: int = 1,
) -> None:
    """Write ``manifest.json`` of a folder whose other files are complete.

    ``trajectories`` counts them by part; statistics are taken over ``rows`` of them at a time.
    """
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    manifest = {
        "format": "sciml",
        "manifest_version": MANIFEST_VERSION,
        "config": config,
        "trajectories": trajectories,
        "rejected": rejected,
        "cpu_seconds": cpu_seconds,
        "files": {
            file.relative_to(folder).as_posix(): {"sha256": _sha256(file), "bytes": file.stat().st_size}
            for file in files
        },
        "statistics": {
            file.relative_to(folder).as_posix(): _statistics(file, rows)
            for file in files
            if file.suffix == ".hdf5"
        },
    }
    write_json(folder / MANIFEST, manifest)


def _write_card(path: Path, name: str, recipe: Recipe, trajectories: dict[str, int], record: Record) -> None:
    layout = recipe.layout()
    card = {
        "dataset_name": name,
        "description": inspect.cleandoc(type(recipe).__doc__ or ""),
        "equation": recipe.equation,
        **recipe.config(),
        "resolution": list(layout.grid.shape) if isinstance(layout, FieldsLayout) else [],
        "frames": len(layout.times),
        "time": [float(layout.times[0]), float(layout.times[-1])],
        "trajectories": trajectories,
        "accuracy": recipe.accuracy,
        "checks": {
            label: {
                measure: {"largest": float(values.max()), "limit": limits.get(measure)}
                for measure, values in measures.items()
            }
            for label, measures, limits in (
                ("every trajectory", record.checks, record.limits),
                ("solved again more finely", record.verification, record.verification_limits),
            )
        },
    }
    # A YAML 1.1 parser takes 1e-05, which has no point, for a string.
    text = re.sub(r'(?m)^(\s*(?:"[^"]*": )?-?\d+)e', r"\1.0e", json.dumps(card, indent=2))
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _statistics(path: Path, rows: int) -> dict[str, dict[str, float | None]]:
    """Statistics of every array of numbers with a trajectory axis, ``rows`` trajectories at a time."""
    with open_hdf5(path) as file:
        names = [name for name in row_datasets(file) if file[name].dtype.kind == "f"]
        ragged = {name for name in names if "offsets" in file[name].attrs}
        return {name: _moments(file, name, RAGGED_ROWS if name in ragged else rows) for name in names}


def _moments(file: h5py.File, name: str, rows: int) -> dict[str, float | None]:
    dataset = file[name]
    # The zeros before the solution of a steady problem are no data.
    steady = bool(file.attrs.get("steady", False)) and bool(dataset.attrs["time_varying"])
    frames = (slice(1, None),) if steady else ()
    count = nan_count = 0
    low, high, mean, squares = np.inf, -np.inf, 0.0, 0.0
    for start in range(0, len(dataset), rows):
        values = dataset[(slice(start, start + rows), *frames)].astype(np.float64)
        nan = np.isnan(values)
        nan_count += int(nan.sum())
        values = values[~nan]
        if not values.size:
            continue
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        # Blocks are joined so that nothing cancels: the update of Chan, Golub and LeVeque (1979).
        here, total = float(values.mean()), count + len(values)
        squares += float(((values - here) ** 2).sum()) + (here - mean) ** 2 * count * len(values) / total
        mean += (here - mean) * len(values) / total
        count = total
    if not count:
        return {**dict.fromkeys(("min", "max", "mean", "std")), "nan_count": nan_count}
    std = float(np.sqrt(squares / count))
    return {"min": low, "max": high, "mean": mean, "std": std, "nan_count": nan_count}


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise DatasetFormatError(
            f"{str(folder)!r} holds no {MANIFEST}: give an HDF5 file, or a folder made with --split or by "
            "convert --to well"
        )
    return read_json(folder / MANIFEST)


def verify_manifest(folder: str | Path) -> list[str]:
    """Compare the files of a folder with its manifest.

    Returns
    -------
    list of str
        Which files are missing or differ, and how; empty if the folder is as it was published.

    Raises
    ------
    DatasetFormatError
        If there is no manifest, or it is damaged.

    Examples
    --------
    >>> verify_manifest("darcy")  # doctest: +SKIP
    ['data/test/darcy.hdf5: its content differs']
    """
    folder = Path(folder)
    problems = []
    for name, known in _read_manifest(folder)["files"].items():
        file = folder / name
        if not file.is_file():
            problems.append(f"{name}: missing")
        elif file.stat().st_size != known["bytes"]:
            problems.append(f"{name}: {file.stat().st_size} bytes where {known['bytes']} are recorded")
        elif _sha256(file) != known["sha256"]:
            problems.append(f"{name}: its content differs")
    return problems


def refuse_strangers(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but what its manifest names.

    Raises
    ------
    OutputExistsError
    """
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
    ours = {MANIFEST, *_read_manifest(folder)["files"]} if MANIFEST in present else set()
    strangers = sorted(present - ours)
    if strangers:
        raise OutputExistsError(
            f"output {str(folder)!r} holds other things ({strangers[0]}): choose another folder"
        )


def published_config(path: Path) -> dict[str, Any]:
    """Return the configuration of a published file or folder.

    Raises
    ------
    DatasetFormatError
        If it is neither.
    """
    if path.is_dir():
        return _read_manifest(path)["config"]
    with open_dataset(path) as data:
        return data.config


def summary(path: str | Path) -> str:
    """Say in one line what a published file or folder holds.

    Examples
    --------
    >>> summary("darcy.h5")  # doctest: +SKIP
    'darcy.h5 holds 1100 trajectories (0 rejected and replaced, 31.2 CPU seconds)'
    """
    parts, rejected, cpu_seconds = _counts(Path(path))
    what = ", ".join(f"{count} {part}".strip() for part, count in parts.items())
    return (
        f"{path} holds {what} trajectories ({rejected} rejected and replaced, {cpu_seconds:.1f} CPU seconds)"
    )


def bias_warning(path: str | Path) -> str:
    """Warn of a published file or folder for which many trajectories were rejected; "" if few were.

    Examples
    --------
    >>> bias_warning("burgers.h5")  # doctest: +SKIP
    '20 of 120 trajectories (17 %) were rejected: the others may be a biased sample, ...'
    """
    parts, rejected, _ = _counts(Path(path))
    drawn = sum(parts.values()) + rejected
    if rejected <= BIAS * drawn:
        return ""
    return (
        f"{rejected} of {drawn} trajectories ({rejected / drawn:.0%}) were rejected: the others may be a biased "
        "sample, of what is easy to solve; a smaller step or a higher resolution may reject fewer"
    )


def _counts(path: Path) -> tuple[dict[str, int], int, float]:
    """Trajectories by part ("" for a file), rejected ones, CPU seconds."""
    if path.is_dir():
        manifest = _read_manifest(path)
        return manifest["trajectories"], manifest["rejected"], manifest["cpu_seconds"]
    with open_dataset(path) as data:
        assert data.record is not None
        return {"": data.n_trajectories}, len(data.record.rejected), data.record.cpu_seconds
