"""Runs beside each other: over seeds, models, settings, and over the resolutions of one dataset."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sciml.errors import ConfigError, SciMLError
from sciml.files import atomic_folder, read_json, refuse_folder, write_json
from sciml.operators import Operator
from sciml.operators.base import MODEL_FILE

from .data import Pairs
from .evaluation import timed_prediction
from .held_out import at_strides, model_header, read_pairs, unseen_rows
from .parallel import resolve_device
from .reports import report_comparison
from .run_folder import Progress
from .scores import relative_errors

__all__ = ["compare"]

MARKER = "comparison.json"
# Which samples a run saw follows from the dataset and the split; seeds would fill pages.
SAMPLES = tuple(
    f"data.{part}" for part in ("train_seeds", "valid_seeds", "test_seeds", "train_rows", "valid_rows")
)


@dataclass(frozen=True)
class _Run:
    """A finished run: its folder's files."""

    folder: Path
    name: str
    config: dict[str, Any]
    history: list[dict[str, float]]
    model: Operator

    @property
    def architecture(self) -> str:
        return str(self.config["model"]["architecture"])

    @property
    def settings(self) -> dict[str, Any]:
        """All settings but the seed, flat; the file's name only where nothing else says what it holds."""
        parts = {name: self.config[name] for name in ("train", "model", "data")}
        flat = _flat(parts) | {"processes": self.config["processes"]}
        dropped = ["train.seed", "train.device", *(["data.file"] if self.config["data"]["config"] else [])]
        return {name: value for name, value in flat.items() if name not in dropped}

    def record(self) -> dict[str, Any]:
        kept = Progress(self.history).best() or self.history[-1]
        return {
            "run": self.name,
            "architecture": self.architecture,
            "parameters": self.model.parameter_count,
            "seed": self.config["train"]["seed"],
            "train_resolution": self.config["data"]["resolution"],
            "epochs": len(self.history),
            "seconds": sum(record["seconds"] for record in self.history),
            "test_relative_l2": kept["test_relative_l2"],
        }


def compare(
    runs: Sequence[str | Path],
    data: str | Path | None = None,
    *,
    device: str = "auto",
    output: str | Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Compare finished training runs; those that differ only in the seed are one group.

    Parameters
    ----------
    runs : sequence of path
        Run folders.
    data : path, optional
        Dataset on which all of them are evaluated, at every resolution that each model can read, on samples that none
        of them trained on or chose its weights by.
    device : str
        For this evaluation.
    output : path, optional
        Folder for ``comparison.json``, pictures and ``report.html``.
    overwrite : bool
        Replace an existing folder's files.

    Returns
    -------
    dict
        "runs": by run its "run" (name), "group", "architecture", "parameters", "seed", "train_resolution", "epochs",
        "seconds" of training and "test_relative_l2", the mean over its own test samples.
        "groups": by group its "label", "runs", and "test_relative_l2" over seeds: "mean", "std" (divided by n - 1;
        absent for one run), "min", "max"; "seconds" is a mean.
        "settings": what differs between groups, by name the value of each group, None where it has none.
        "notes": why errors of different groups may not be comparable.
        With ``data`` also "samples", "resolutions" (of space, finest first), and "matrix": by group its "label" and
        "cells", each with "resolution", "trained_here", "relative_l2" as above over seeds, and "seconds_per_sample", a
        mean.

    Raises
    ------
    ConfigError
        If a folder holds no finished run, one is named twice, or the dataset does not fit a run.
    OutputExistsError
        If ``output`` exists.

    Examples
    --------
    >>> from sciml.training import compare
    >>> compare(["runs/fno", "runs/unet"], "darcy.h5")["matrix"]  # doctest: +SKIP
    """
    if output is not None:
        refuse_folder(output, MARKER, overwrite)
    opened = _open(runs)
    groups: list[list[_Run]] = []
    for run in opened:
        same = next((group for group in groups if group[0].settings == run.settings), None)
        if same is None:
            groups.append([run])
        else:
            same.append(run)
    settings = _differences([group[0] for group in groups])
    labels = _labels([group[0] for group in groups], settings)
    records = [
        {**run.record(), "group": label} for label, group in zip(labels, groups, strict=True) for run in group
    ]
    result: dict[str, Any] = {
        "runs": records,
        "groups": [_summary(label, records) for label in labels],
        "settings": settings,
        "notes": _notes(opened),
    }
    if data is not None:
        result |= _matrix(groups, labels, data, device)
    if output is not None:
        with atomic_folder(output, MARKER, overwrite) as folder:
            write_json(folder / MARKER, result)
            report_comparison(folder, result, {run.name: run.history for run in opened})
    return result


def _open(runs: Sequence[str | Path]) -> list[_Run]:
    folders = [Path(run) for run in runs]
    if not folders:
        raise ConfigError("runs: name one run folder at least")
    resolved = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, resolved, strict=True):
        if resolved.count(place) > 1:
            raise ConfigError(f"run {str(folder)!r} is named twice: name each run once")
    short = [place.name for place in resolved]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    return [_open_one(folder, name) for folder, name in zip(folders, names, strict=True)]


def _open_one(folder: Path, name: str) -> _Run:
    if not (folder / "config.json").is_file():
        state = "holds no training run (no config.json)" if folder.exists() else "does not exist"
        raise ConfigError(f"run {str(folder)!r} {state}: give folders that 'sciml train' wrote")
    for file in (MODEL_FILE, "history.json"):
        if not (folder / file).is_file():
            raise ConfigError(
                f"run {str(folder)!r} is not finished (no {file}): resume it (sciml train --resume), or leave it out"
            )
    config, history = read_json(folder / "config.json"), read_json(folder / "history.json")
    if not ({"train", "model", "data", "processes"} <= set(config) and history):
        raise ConfigError(f"run {str(folder)!r} is not one of 'sciml train' of this version: leave it out")
    model_header(folder)
    return _Run(folder, name, config, history, Operator.load(folder))


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _differences(runs: list[_Run]) -> dict[str, list[Any]]:
    """Settings that are not the same in all groups, by name the value in each; None where it has none.

    Of a setting of the model those that have it are compared.
    """
    flat = [run.settings for run in runs]
    names = dict.fromkeys(name for one in flat for name in one if name not in SAMPLES)
    differing = {}
    for name in names:
        have = [one for one in flat if name in one or not name.startswith("model.")]
        if any(one.get(name) != have[0].get(name) for one in have):
            differing[name] = [one.get(name) for one in flat]
    return differing


def _labels(runs: list[_Run], settings: dict[str, list[Any]]) -> list[str]:
    """Architectures, with the settings that tell groups of the same one apart, or the name of a run."""
    labels = []
    for place, run in enumerate(runs):
        architecture = run.architecture
        alike = [other for other, peer in enumerate(runs) if peer.architecture == architecture]
        telling = [
            f"{name.rsplit('.', 1)[-1]}={_plain(values[place])}"
            for name, values in settings.items()
            if any(values[other] != values[place] for other in alike)
        ]
        # More would not fit a legend.
        labels.append(" ".join([architecture, *(telling if len(telling) <= 3 else [run.name])]))
    return [
        f"{run.architecture} {run.name}" if labels.count(label) > 1 else label
        for run, label in zip(runs, labels, strict=True)
    ]


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _spread(values: list[float]) -> dict[str, float]:
    spread = {"mean": statistics.fmean(values), "min": min(values), "max": max(values)}
    return spread | ({"std": statistics.stdev(values)} if len(values) > 1 else {})


def _summary(label: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    own = [record for record in records if record["group"] == label]
    return {
        "label": label,
        "runs": [record["run"] for record in own],
        "seeds": [record["seed"] for record in own],
        "parameters": own[0]["parameters"],
        "train_resolution": own[0]["train_resolution"],
        "seconds": statistics.fmean(record["seconds"] for record in own),
        "test_relative_l2": _spread([record["test_relative_l2"] for record in own]),
    }


def _notes(runs: list[_Run]) -> list[str]:
    """Say where test errors of the runs are not errors of the same thing."""
    data, frames = [run.config["data"] for run in runs], ("task", "n_in", "n_out", "start")
    answers: dict[str, list[Any]] = {
        "datasets": [one["config"] or one["file"] for one in data],
        "fields": [(one["inputs"], one["targets"]) for one in data],
        "tasks or frames": [[run.config["train"].get(name) for name in frames] for run in runs],
        "resolutions": [one["resolution"] for one in data],
        # Without seeds a sample is known by its place, and that by the split.
        "test samples": [
            one["test_seeds"] or [run.config["train"][name] for name in ("n_train", "n_test")]
            for run, one in zip(runs, data, strict=True)
        ],
    }
    different = [name for name, values in answers.items() if any(value != values[0] for value in values)]
    if not different:
        return []
    return [f"The runs differ in {', '.join(different)}: their test errors are not of the same problems."]


def _matrix(groups: list[list[_Run]], labels: list[str], data: str | Path, device: str) -> dict[str, Any]:
    place = resolve_device(device)
    loaded: dict[str, Pairs] = {}
    rows: np.ndarray | None = None
    headers: dict[str, dict[str, Any]] = {}
    for run in (run for group in groups for run in group):
        header = headers[run.name] = model_header(run.folder)
        try:
            key = _task(header)
            # What runs of one task share is read once; the check of fields and axes is each run's.
            pairs = loaded[key] if key in loaded else read_pairs(header, data)
            loaded[key] = pairs
            unseen = unseen_rows(header, pairs, data)
        except SciMLError as error:
            raise type(error)(f"run {run.name!r}: {error}") from error
        rows = unseen if rows is None else np.intersect1d(rows, unseen)
    if rows is None or len(rows) == 0:
        raise ConfigError(
            f"dataset {str(data)!r}: each of its samples was seen by one of the runs; give one with other seeds"
        )
    held_out = {key: pairs.subset(rows) for key, pairs in loaded.items()}
    del loaded
    matrix, columns = [], []
    for label, group in zip(labels, groups, strict=True):
        cells: dict[tuple[int, ...], dict[str, Any]] = {}
        for run in group:
            header = headers[run.name]
            pairs = held_out[_task(header)]
            axes = len(pairs.resolution) - (header["train"]["task"] == "spacetime")
            model = run.model.to(place)
            try:
                for _, part in at_strides(model, pairs, axes):
                    prediction, seconds = timed_prediction(model, part)
                    mean = float(relative_errors(prediction, part).double().mean())
                    cell = cells.setdefault(part.resolution[:axes], {"errors": [], "seconds": []})
                    cell["errors"].append(mean)
                    cell["seconds"].append(seconds)
                    cell["trained_here"] = list(part.resolution) == header["data"]["resolution"]
            except ConfigError as error:
                raise ConfigError(f"run {run.name!r}: {error}") from error
            finally:
                model.to("cpu")
        columns += [resolution for resolution in cells if resolution not in columns]
        matrix.append({"label": label, "cells": [_cell(*item) for item in cells.items()]})
    return {
        "data": Path(data).name,
        "samples": len(rows),
        "resolutions": [list(resolution) for resolution in sorted(columns, reverse=True)],
        "matrix": matrix,
    }


def _task(header: dict[str, Any]) -> str:
    """What decides how pairs are read and whether they fit."""
    train, data = header["train"], header["data"]
    parts = [train["task"], train["n_in"], train["n_out"], train["start"]]
    of_clouds = [data.get(name) for name in ("code", "weight")]
    return repr([*parts, data["inputs"], data["targets"], header["periodic"], *of_clouds])


def _cell(resolution: tuple[int, ...], cell: dict[str, Any]) -> dict[str, Any]:
    """A cell; an error that is not finite is absent."""
    result = {"resolution": list(resolution), "trained_here": cell["trained_here"]}
    if all(map(math.isfinite, cell["errors"])):
        result["relative_l2"] = _spread(cell["errors"])
    return {**result, "seconds_per_sample": statistics.fmean(cell["seconds"])}
