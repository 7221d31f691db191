"""Supervised pairs from datasets of kind ``fields``."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sciml.datasets import FieldsDataset
from sciml.errors import ConfigError

__all__ = ["Pairs", "TaskName", "load_pairs"]

TaskName = Literal["auto", "steady", "final", "spacetime"]


@dataclass(frozen=True)
class Pairs:
    """Input and target functions on one grid, in memory.

    Attributes
    ----------
    inputs, targets : Tensor, float32, shape (n, *space, channels)
    mask : Tensor or None, shape (n, *space, 1)
        1 where targets are defined.
    spacing : tuple of float
        h per axis.
    periodic : tuple of bool
        Per axis.
    names : tuple of tuples of str
        Input and target fields.
    seeds : ndarray of int64 or None
        Of the trajectories.
    config : dict
        Recipe and parameters of what made them.
    turnable : bool
        Whether axes can be reflected and exchanged: scalar fields on a grid of equal axes of space.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor | None
    spacing: tuple[float, ...]
    periodic: tuple[bool, ...]
    names: tuple[tuple[str, ...], tuple[str, ...]]
    seeds: np.ndarray | None
    config: dict[str, Any]
    turnable: bool

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def resolution(self) -> tuple[int, ...]:
        """Nodes per axis."""
        return tuple(self.inputs.shape[1:-1])

    def subset(self, rows: np.ndarray | slice) -> "Pairs":
        """Return some of the pairs."""
        return replace(
            self,
            inputs=self.inputs[rows],
            targets=self.targets[rows],
            mask=None if self.mask is None else self.mask[rows],
            seeds=None if self.seeds is None else self.seeds[rows],
        )


def load_pairs(
    path: str | Path, stride: int = 1, task: TaskName = "auto", n_in: int = 1, n_out: int = 0
) -> Pairs:
    """Read a learning task from a dataset that declares its input and target fields.

    Parameters
    ----------
    path : path
    stride : int
        Use every ``stride``-th node along each axis of space.
    task : {"auto", "steady", "final", "spacetime"}
        ``steady``: from constant inputs to the solution. ``final``: from the first ``n_in`` frames to the
        ``n_out``-th after them. ``spacetime``: from the first ``n_in`` frames to the next ``n_out`` at once,
        time being the last axis of the grid, along which the inputs are constant. ``auto`` is ``steady`` for
        steady problems, else ``final``.
    n_in, n_out : int
        ``n_out=0`` goes to the last frame.

    Raises
    ------
    ConfigError
        If the dataset declares no such task, the stride or the frames do not fit, or values are not finite.
    DatasetFormatError
        If the file cannot be read.
    """
    with FieldsDataset(path) as data:
        if not (data.inputs and data.targets):
            raise ConfigError(
                f"dataset {str(path)!r} declares no learning task (fields {', '.join(data.fields)}): use one whose "
                "recipe names input and target fields, such as darcy"
            )
        if task == "auto":
            task = "steady" if data.steady else "final"
        if task == "steady" and (n_in, n_out) != (1, 0):
            raise ConfigError(
                f"n_in={n_in}, n_out={n_out}: {str(path)!r} is to be learned without frames; leave them out"
            )
        if (task == "steady") != data.steady:
            state = "steady" if data.steady else "time-dependent"
            raise ConfigError(
                f"task={task!r}: {str(path)!r} holds a {state} problem; leave it out, or choose another"
            )
        first, last = _frames(data, task, n_in, n_out)
        dim = len(data.axes)

        def read(name: str, frames: int | slice) -> Tensor:
            """Values of shape (n, *space, [frames,] components)."""
            values = data.read(name, stride, frames=frames)
            if not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0, 0])
                raise ConfigError(
                    f"field {name!r} of {str(path)!r} is not finite in trajectory {row}: generate the file again"
                )
            tensor = torch.from_numpy(np.ascontiguousarray(values)).float()
            if isinstance(frames, slice) and data.is_time_varying(name):
                return tensor.reshape(*tensor.shape[: 2 + dim], -1).movedim(1, -2)
            return tensor.reshape(*tensor.shape[: 1 + dim], -1)

        # Reading has checked that the stride leaves two nodes on every axis.
        inputs = torch.cat([read(name, first).flatten(1 + dim) for name in data.inputs], -1)
        targets = torch.cat([read(name, last) for name in data.targets], -1)
        mask = read(data.mask, -1) if data.mask else None
        spacing = tuple(float(x[stride] - x[0]) for x in data.axes.values())
        periodic = data.periodic
        if task == "spacetime":
            steps = np.diff(np.atleast_2d(data.times)[0][last])
            if len(steps) == 0 or np.ptp(steps) > 1e-6 * steps.mean():
                raise ConfigError(
                    f"task='spacetime': {str(path)!r} needs two or more frames at equal intervals"
                )
            spacing, periodic = (*spacing, float(steps.mean())), (*periodic, False)
            inputs = _along_time(inputs, targets.shape[-2])
            mask = None if mask is None else _along_time(mask, targets.shape[-2])
        turnable = (
            task != "spacetime"
            and all(data[name].parent.name == "/t0_fields" for name in (*data.inputs, *data.targets))
            and len({*zip(data.resolution, periodic, strict=True)}) == 1
        )
        names = data.inputs, data.targets
        return Pairs(inputs, targets, mask, spacing, periodic, names, data.seeds, data.config, turnable)


def _frames(data: FieldsDataset, task: str, n_in: int, n_out: int) -> tuple[int | slice, int | slice]:
    """Frames of inputs and targets."""
    if task == "steady":
        return -1, -1
    count = np.shape(data.times)[-1]
    n_out = n_out or count - n_in
    if n_in < 1 or n_out < 1 or n_in + n_out > count:
        raise ConfigError(
            f"n_in={n_in} and n_out={n_out} need {max(n_in, 1) + max(n_out, 1)} frames, {str(data.path)!r} has "
            f"{count}: ask for fewer"
        )
    return slice(0, n_in), n_in + n_out - 1 if task == "final" else slice(n_in, n_in + n_out)


def _along_time(values: Tensor, frames: int) -> Tensor:
    """A view that repeats values (n, *space, channels) along a new last axis of the grid."""
    return values.unsqueeze(-2).expand(*values.shape[:-1], frames, values.shape[-1])
