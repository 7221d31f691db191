"""Samples that a run has not seen, at the resolutions that its model can read."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sciml.datasets import FieldsDataset, PointsDataset, open_dataset
from sciml.errors import ConfigError, DatasetFormatError
from sciml.operators import Denoiser, Operator
from sciml.operators.base import MODEL_FILE
from sciml.operators.storage import load_tensors

from .clouds import check_weights
from .data import Pairs, load_pairs

__all__ = [
    "at_strides",
    "frame_times",
    "held_out_pairs",
    "model_header",
    "read_pairs",
    "thinned",
    "unseen_rows",
]

STRIDES = (1, 2, 4, 8, 16)


def model_header(run: str | Path, score: bool = False) -> dict[str, Any]:
    """Return what a model file, or that of a run, says about it: architecture, "data" and "train" settings.

    Raises
    ------
    ConfigError
        If it is a score model and an operator is wanted, or with ``score`` the other way round.
    DatasetFormatError
        If there is no such file, it is damaged, or was not written by a training run.
    """
    path = Path(run) / MODEL_FILE if Path(run).is_dir() else Path(run)
    header = load_tensors(path, "model")[1]
    if not {"data", "train"} <= set(header):
        raise DatasetFormatError(
            f"{str(path)!r} does not say what it was trained on, nor which fields it maps: give the folder of a run of "
            "'sciml train', or apply it in Python, Operator.load(path)(inputs)"
        )
    if score != (header["architecture"] == Denoiser.__name__):
        found, wanted = ("an operator", "a score model") if score else ("a score model", "an operator")
        remedy = "give a run of 'sciml train score'" if score else "use 'sciml sample' or 'sciml evaluate'"
        raise ConfigError(f"{str(path)!r} holds {found}, not {wanted}: {remedy}")
    return header


def read_pairs(header: dict[str, Any], data: str | Path, stride: int = 1) -> Pairs:
    """Read all pairs of a dataset for the task of a run.

    Raises
    ------
    ConfigError
        If the dataset's fields or grid are not of the run's kind, or it was predicted by a model.
    """
    trained, settings = header["data"], header["train"]
    frames = settings["n_in"], settings["n_out"], settings["start"], settings["code"], settings["inputs"]
    weights = True
    if "weight" in trained:
        with open_dataset(data) as read:
            weights = not isinstance(read, PointsDataset) or check_weights(read, trained)
    pairs = load_pairs(data, stride, settings["task"], *frames, weights)
    if "predicted_by" in pairs.config:
        raise ConfigError(
            f"dataset {str(data)!r} was predicted by {pairs.config['predicted_by']['architecture']}, not solved: "
            "evaluate on the dataset that it was predicted from"
        )
    for role, names in zip(("inputs", "targets"), pairs.names, strict=True):
        if list(names) != trained[role]:
            raise ConfigError(
                f"dataset {str(data)!r} has {role} {', '.join(names)}, the run {', '.join(trained[role])}: "
                "evaluate on the same fields"
            )
    if list(pairs.periodic) != header["periodic"]:
        raise ConfigError(
            f"dataset {str(data)!r} has periodic axes {pairs.periodic}, the model {tuple(header['periodic'])}: "
            "evaluate on the same kind of grid"
        )
    return pairs


def unseen_rows(header: dict[str, Any], pairs: Pairs, data: str | Path) -> np.ndarray:
    """Return which samples of a dataset a run neither trained on nor chose its weights by.

    Trajectories of the run's own recipe are known by their seeds, at any resolution, and so are those of which
    it is not known that their recipe is another, such as of predictions; those of a file without seeds that was
    imported from the same source, or has the same name, by their places. An export to another format and back
    loses the seeds: what was trained on before cannot be recognised after.

    Raises
    ------
    ConfigError
        If nothing is left.
    """
    trained = header["data"]
    everything = np.arange(len(pairs))
    if pairs.seeds is not None and (pairs.seeds >= 0).all():
        seen = [*(trained["train_seeds"] or []), *(trained["valid_seeds"] or [])]
        recipes = {_recipe(trained["config"]), _recipe(pairs.config)} - {None}
        rows = everything[~np.isin(pairs.seeds, seen)] if len(recipes) < 2 else everything
    elif pairs.config == trained["config"] and (pairs.config or Path(data).name == trained["file"]):
        parts = trained["train_rows"], trained["valid_rows"]
        rows = np.setdiff1d(everything, np.concatenate([np.arange(*part) for part in parts]))
    else:
        rows = everything
    if len(rows) == 0:
        raise ConfigError(
            f"dataset {str(data)!r}: the run trained on all of it, or chose its weights by it; give one with other "
            "seeds"
        )
    return rows


def _recipe(config: dict[str, Any]) -> str | None:
    """The recipe that a file's trajectories, or those that it was predicted from, come from."""
    while "recipe" not in config and "predicted_from" in config:
        config = config["predicted_from"]["config"]
    return config.get("recipe")


def held_out_pairs(data: str | Path, stride: int, run: str | Path) -> Pairs:
    """Read the pairs of a dataset on which a run neither trained nor chose its weights.

    Raises
    ------
    ConfigError
        If nothing is left, or the dataset's fields or grid are not of the run's kind.
    """
    header = model_header(run)
    pairs = read_pairs(header, data, stride)
    return pairs.subset(unseen_rows(header, pairs, data))


def frame_times(header: dict[str, Any], data: str | Path, pairs: Pairs) -> np.ndarray | None:
    """Return the times of the last given frame and of those that are predicted; None if it is one at most."""
    settings = header["train"]
    if settings["task"] not in ("step", "spacetime"):
        return None
    last = settings["start"] + settings["n_in"] - 1
    with FieldsDataset(data) as opened:
        return np.atleast_2d(opened.times)[0][last : last + 1 + pairs.targets.shape[-2]].astype(float)


def thinned(pairs: Pairs, factor: int, axes: int) -> Pairs:
    """Return pairs on every ``factor``-th node along their first ``axes`` axes, without a copy.

    Raises
    ------
    ConfigError
        If the factor does not divide the nodes of periodic axes and the intervals of bounded ones.
    """
    if pairs.cloud and factor != 1:
        raise ConfigError(f"stride={factor}: clouds have no grid, generate them with other points")
    for m, wraps in zip(pairs.resolution[:axes], pairs.periodic, strict=False):
        if factor < 1 or (m if wraps else m - 1) % factor or m <= factor:
            raise ConfigError(
                f"stride={factor} does not fit {m} {'periodic' if wraps else 'bounded'} nodes: it must divide "
                f"{m if wraps else m - 1} and leave two nodes"
            )
    index = (slice(None), *(slice(None, None, factor),) * axes)

    def thin(values: Tensor) -> Tensor:
        return values[index]

    return replace(
        pairs,
        inputs=thin(pairs.inputs),
        targets=thin(pairs.targets),
        mask=None if pairs.mask is None else thin(pairs.mask),
        spacing=(*(factor * h for h in pairs.spacing[:axes]), *pairs.spacing[axes:]),
    )


def at_strides(
    model: Operator, pairs: Pairs, axes: int, strides: tuple[int, ...] = ()
) -> Iterator[tuple[int, Pairs]]:
    """Yield strides and the pairs on these nodes.

    Parameters
    ----------
    model : Operator
    pairs : Pairs
        On all nodes.
    axes : int
        Axes of space.
    strides : tuple of int
        By default 1, 2, 4, ... as long as the grid allows it and the model can read it.

    Raises
    ------
    ConfigError
        If a stride that was asked for does not fit.
    """
    for stride in strides or STRIDES:
        try:
            part = thinned(pairs, stride, axes)
            if stride > 1 and not strides:
                model.check_resolution(part.resolution)
        except ConfigError:
            if strides:
                raise
            return
        yield stride, part
