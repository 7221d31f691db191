"""Trajectories for learned dynamics, from datasets of kinds ``ode`` and ``fields``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sciml.datasets import FieldsDataset, OdeDataset, open_dataset
from sciml.dynamics.rollout import check_times
from sciml.errors import ConfigError

__all__ = ["Trajectories", "load_trajectories"]


@dataclass(frozen=True)
class Trajectories:
    """States of trajectories at common times.

    Attributes
    ----------
    states : ndarray of float64, shape (n, T, *space, components)
    times : ndarray, shape (T,)
    variables : tuple of str
        Names of the components.
    spacing : tuple of float
        h of each axis of space; empty for ordinary differential equations.
    seeds : ndarray or None
    config : dict
        Recipe and parameters of what made them.
    """

    states: np.ndarray
    times: np.ndarray
    variables: tuple[str, ...]
    spacing: tuple[float, ...]
    seeds: np.ndarray | None
    config: dict[str, Any]

    def __len__(self) -> int:
        return len(self.states)


def load_trajectories(path: str | Path, stride: int = 1) -> Trajectories:
    """Read trajectories, of fields on every ``stride``-th node.

    Raises
    ------
    ConfigError
        If the dataset holds no trajectories, fields are not scalars on a periodic grid of one or two axes, times do
        not grow, or a number is not finite.
    DatasetFormatError
        If it cannot be read.
    """
    with open_dataset(path) as data:
        name = str(path)
        if isinstance(data, OdeDataset):
            if stride != 1:
                raise ConfigError(f"stride={stride}: {name!r} has no grid; leave it out")
            states, variables = data["states"][()].astype(float), data.components
            spacing: tuple[float, ...] = ()
        elif isinstance(data, FieldsDataset):
            states, variables, spacing = _fields(data, name, stride)
        else:
            raise ConfigError(
                f"{name!r} is of kind {data.kind!r}: dynamics are learned from trajectories, of kind 'ode' or 'fields'"
            )
        times, seeds, config = np.asarray(data.times, float), data.seeds, data.config
    try:
        check_times(times)
    except ConfigError as error:
        raise ConfigError(f"{name!r}: {error}") from None
    wrong = np.argwhere(~np.isfinite(states))
    if len(wrong):
        row, frame = wrong[0, :2].tolist()
        raise ConfigError(
            f"{name!r}: trajectory {row}, frame {frame} (t={times[frame]:g}) holds {len(wrong)} numbers that are not "
            "finite, all trajectories together; leave them out"
        )
    return Trajectories(states, times, variables, spacing, seeds, config)


def _fields(
    data: FieldsDataset, name: str, stride: int
) -> tuple[np.ndarray, tuple[str, ...], tuple[float, ...]]:
    if data.steady or len(data.times) < 2:
        raise ConfigError(f"{name!r} holds steady problems: dynamics are learned from trajectories in time")
    if not all(data.periodic) or len(data.axes) > 2:
        raise ConfigError(
            f"{name!r}: a stencil needs a grid of one or two axes, all periodic; this one's are "
            f"{dict(zip(data.axes, data.periodic, strict=True))} (periodic)"
        )
    names = tuple(field for field in data.fields if data.is_time_varying(field))
    steady = [field for field in data.fields if field not in names]
    if steady or not names:
        raise ConfigError(
            f"{name!r}: field {steady[0]!r} is constant in time: a stencil is of fields that all evolve"
            if steady
            else f"{name!r}: no field varies in time"
        )
    parts = [data.read(field, stride, frames=slice(None)) for field in names]
    if any(part.ndim != 2 + len(data.axes) for part in parts):
        raise ConfigError(f"{name!r}: fields {', '.join(names)} are not all scalars")
    spacing = tuple(float(x[stride] - x[0]) for x in data.axes.values())
    return np.stack(parts, -1).astype(float), names, spacing
