"""Supervised pairs from datasets of kind ``points``: clouds as `sciml.operators.clouds` describes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sciml.datasets import PointsDataset
from sciml.errors import ConfigError
from sciml.registry import unknown_name

from .data import Pairs

__all__ = ["check_weights", "cloud_channels", "load_clouds", "read_cloud"]

FEWEST = 2
"""Points of a sample."""


def load_clouds(
    data: PointsDataset, code: bool = False, inputs: Sequence[str] | None = None, weights: bool = True
) -> Pairs:
    """Read all samples; shorter ones are filled up with points of weight 0.

    Parameters
    ----------
    data : PointsDataset
    code : bool
        Give every point the scalars that describe its sample, too.
    inputs : sequence of str, optional
        Fields that are given, in place of those that the dataset declares.
    weights : bool
        Take the dataset's quadrature weights, if it has some, in place of 1 / N.

    Raises
    ------
    ConfigError
        If one of these is what is to be predicted; if the dataset declares no targets or, though ``code`` is asked
        for, none of these scalars; if values are not finite, points coincide, or a sample has too few.
    """
    name = str(data.path)
    if not data.targets:
        raise ConfigError(
            f"dataset {name!r} declares no learning task (fields {', '.join(data.fields)}): use one whose recipe names "
            "target fields, such as elasticity"
        )
    if code and not data.code:
        raise ConfigError(
            f"code=True: dataset {name!r} names no scalars that describe its samples; leave it out"
        )
    fields = data.inputs if inputs is None else tuple(inputs)
    if leaked := [field for field in fields if field in data.targets]:
        raise ConfigError(f"inputs={fields}: {leaked[0]!r} is what is to be predicted; leave it out")
    scalars = data.code if code else ()
    counts = np.diff(data.offsets)
    channels = cloud_channels(data, fields, scalars)
    outputs = sum(int(np.prod(data[field].shape[1:])) for field in data.targets)
    longest = int(counts.max())
    points = np.zeros((data.n_trajectories, longest, channels), dtype=np.float32)
    targets = np.zeros((data.n_trajectories, longest, outputs), dtype=np.float32)
    for row, count in enumerate(counts):
        points[row, :count] = read_cloud(data, row, fields, scalars, weights)
        # What fills up is inside of the box, too.
        points[row, count:] = points[row, 0]
        points[row, count:, data.dim] = 0.0
        targets[row, :count] = np.concatenate([_values(data, field, row) for field in data.targets], axis=1)
    ragged = (counts < longest).any()
    inside = np.arange(longest) < counts[:, None]
    return Pairs(
        torch.from_numpy(points),
        torch.from_numpy(targets),
        torch.from_numpy(inside[..., None].astype(np.float32)) if ragged else None,
        (1.0,),
        (False,) * data.dim,
        (fields, data.targets),
        data.seeds,
        data.config,
        turnable=all(data[field].ndim == 1 for field in (*fields, *data.targets)),
        cloud=True,
        code=scalars,
        weight=data.weight if weights else "",
        ranks=tuple(data[field].ndim - 1 for field in data.targets),
    )


def cloud_channels(data: PointsDataset, fields: Sequence[str], scalars: Sequence[str]) -> int:
    """Return the channels of a point: position, weight, fields, code."""
    known = [name for name in data.fields if name != "positions" and not name.startswith("cells/")]
    for field in fields:
        if field not in known:
            raise unknown_name(f"field of {data.path.name}", field, known)
    return data.dim + 1 + sum(int(np.prod(data[field].shape[1:])) for field in fields) + len(scalars)


def check_weights(data: PointsDataset, trained: dict[str, Any]) -> bool:
    """Return whether a model was trained with quadrature weights; ``trained`` is the part "data" of its header.

    Raises
    ------
    ConfigError
        If it was, and the dataset has none.
    """
    if trained["weight"] and not data.weight:
        raise ConfigError(
            f"{str(data.path)!r} declares no quadrature weights, with which the model was trained "
            f"({trained['weight']!r}): generate it with them, or train without"
        )
    return bool(trained["weight"])


def read_cloud(
    data: PointsDataset, row: int, fields: Sequence[str], scalars: Sequence[str], weights: bool = True
) -> np.ndarray:
    """Return one sample's points as an operator takes them, shape (N, channels), float32.

    Without quadrature weights, or ``weights``, every point has 1 / N.

    Raises
    ------
    ConfigError
        If fields or scalars are missing, values are not finite, points coincide, or there are too few.
    """
    name = str(data.path)
    missing = [
        field
        for field in (*fields, *scalars)
        if field not in data.fields and field not in data.file["scalars"]
    ]
    if missing:
        raise ConfigError(
            f"input {name!r} has no {', '.join(missing)} (it has {', '.join(data.fields)}): the model needs "
            f"{', '.join((*fields, *scalars))}"
        )
    x = _values(data, "positions", row)
    if len(x) < FEWEST:
        raise ConfigError(f"sample {row} of {name!r} has {len(x)} points: give at least {FEWEST}")
    same = len(x) - len(np.unique(x, axis=0))
    if same:
        raise ConfigError(f"sample {row} of {name!r}: {same} of its points coincide with others; merge them")
    weight = _values(data, data.weight, row) if weights and data.weight else np.full((len(x), 1), 1 / len(x))
    if not (weight > 0).all():
        raise ConfigError(
            f"sample {row} of {name!r} has a quadrature weight of {weight.min():.3g}: give positive ones"
        )
    code = np.array([float(data[scalar][row]) for scalar in scalars])
    if not np.isfinite(code).all():
        raise ConfigError(f"a scalar of sample {row} of {name!r} is not finite: generate the file again")
    parts = [
        x,
        weight,
        *(_values(data, field, row) for field in fields),
        np.broadcast_to(code, (len(x), len(code))),
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _values(data: PointsDataset, field: str, row: int) -> np.ndarray:
    """A field of one sample, shape (N, components)."""
    values = data.read(field, row)
    if not np.isfinite(values).all():
        raise ConfigError(
            f"field {field!r} of {str(data.path)!r} is not finite in sample {row}: mend it or leave the sample out"
        )
    return values.reshape(len(values), -1)
