"""Supervised pairs from datasets: of kind ``fields``; those of kind ``points`` are read by `sciml.training.clouds`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sciml.datasets import FieldsDataset, PointsDataset, open_dataset
from sciml.errors import ConfigError
from sciml.operators.base import unrepeated

__all__ = ["Pairs", "TaskName", "advance", "load_pairs", "read_inputs", "rows_on"]

TaskName = Literal["auto", "steady", "final", "spacetime", "step"]


@dataclass(frozen=True)
class Pairs:
    """Input and target functions on one grid, in memory.

    Attributes
    ----------
    inputs, targets : Tensor, float32, shape (n, *space, channels)
        Targets of an autoregressive task have all frames, (n, *space, frames, channels); its inputs have
        ``history`` frames in a row, each with the targets' channels, then what is constant in time.
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
        Whether axes can be reflected and exchanged: scalar fields on a grid of equal axes of space, or at points.
    history : int
        Given frames of an autoregressive task; 0 for others.
    task : TaskName
        Which task, never ``auto``.
    last_channels : tuple of int
        Channels of the inputs with the last given frame of the targets'; empty if they are not all there.
    cloud : bool
        Whether these are functions at points, see `sciml.operators.clouds`: the grid is the list of points then, and
        ``periodic`` has one value for each coordinate of a position.
    code : tuple of str
        Scalars that are the last channels of a cloud.
    weight : str
        The field of a cloud's quadrature weights; empty if they are 1 / N.
    ranks : tuple of int
        Of a cloud's targets: 0 for scalars, 1 for vectors, 2 for tensors.
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
    history: int = 0
    task: TaskName = "steady"
    last_channels: tuple[int, ...] = ()
    cloud: bool = False
    code: tuple[str, ...] = ()
    weight: str = ""
    ranks: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def resolution(self) -> tuple[int, ...]:
        """Nodes per axis."""
        return tuple(self.inputs.shape[1:-1])

    @property
    def target_mask(self) -> Tensor | None:
        """The mask with the axes of the targets."""
        if self.mask is None or not self.history:
            return self.mask
        return _along_time(self.mask, self.targets.shape[-2])

    @property
    def last_given(self) -> Tensor | None:
        """The last given frame of what is predicted, like the targets; None where it is not among the inputs."""
        if not self.last_channels:
            return None
        last = self.inputs[..., list(self.last_channels)]
        return last[..., None, :].expand_as(self.targets) if self.history else last

    @property
    def windows(self) -> int:
        """Places where an autoregressive task can begin, with one frame to predict; 1 for others."""
        return self.targets.shape[-2] if self.history else 1

    def window(self, row: int, start: int, steps: int) -> tuple[Tensor, Tensor]:
        """Return the inputs of an autoregressive task from frame ``start`` on, and the next frames.

        Parameters
        ----------
        row, start : int
            Sample and first given frame.
        steps : int
            Frames to predict.

        Returns
        -------
        inputs : Tensor, shape (*space, channels)
        targets : Tensor, shape (*space, steps, channels of one frame)
        """
        given, later, channels = self.inputs[row], self.targets[row], self.targets.shape[-1]
        split = self.history * channels
        first = given[..., start * channels : split].unflatten(-1, (-1, channels))
        frames = torch.cat([first, later[..., max(0, start - self.history) : start + steps, :]], -2)
        history, targets = frames.split([self.history, steps], dim=-2)
        return torch.cat([history.flatten(-2), given[..., split:]], -1), targets

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
    path: str | Path,
    stride: int = 1,
    task: TaskName = "auto",
    n_in: int = 1,
    n_out: int = 0,
    start: int = 0,
    code: bool = False,
    inputs: Sequence[str] | None = None,
    weights: bool = True,
) -> Pairs:
    """Read a learning task from a dataset that declares its input and target fields.

    Parameters
    ----------
    path : path
    stride : int
        Use every ``stride``-th node along each axis of space.
    task : {"auto", "steady", "final", "spacetime", "step"}
        ``steady``: from constant inputs to the solution. ``final``: from the first ``n_in`` frames to the
        ``n_out``-th after them. ``spacetime``: from the first ``n_in`` frames to the next ``n_out`` at once,
        time being the last axis of the grid, along which the inputs are constant. ``step``: from ``n_in``
        frames to the next one, again and again. ``auto`` is ``steady`` for steady problems, else ``final``.
    n_in, n_out, start : int
        ``n_out=0`` goes to the last frame; ``start`` is the first one that is used.
    code : bool
        Of clouds of points: give the scalars that describe a sample, too.
    inputs : sequence of str, optional
        Of clouds of points: fields in place of those that the dataset declares.
    weights : bool
        Of clouds of points: take the dataset's quadrature weights, if it has some, in place of 1 / N.

    Raises
    ------
    ConfigError
        If the dataset declares no such task, the stride or the frames do not fit, or values are not finite.
    DatasetFormatError
        If the file cannot be read.
    """
    with open_dataset(path) as data:
        if isinstance(data, PointsDataset):
            from .clouds import load_clouds  # which imports this module

            others = {"stride": stride, "n_in": n_in, "n_out": n_out, "start": start}
            meant = [
                f"{name}={value}" for name, value in others.items() if value != (name in ("stride", "n_in"))
            ]
            meant += [f"task={task!r}"] if task not in ("auto", "steady") else []
            if meant:
                raise ConfigError(
                    f"{', '.join(meant)}: {str(path)!r} holds functions at points, without a grid or frames; leave "
                    "it out"
                )
            return load_clouds(data, code, inputs, weights)
    if code or inputs is not None:
        raise ConfigError(
            f"code={code}, inputs={inputs}: {str(path)!r} holds no clouds of points; leave them out"
        )
    with FieldsDataset(path) as data:
        if not (data.inputs and data.targets):
            raise ConfigError(
                f"dataset {str(path)!r} declares no learning task (fields {', '.join(data.fields)}): use one whose "
                "recipe names input and target fields, such as darcy"
            )
        if task == "auto":
            task = "steady" if data.steady else "final"
        if task == "steady" and (n_in, n_out, start) != (1, 0, 0):
            raise ConfigError(
                f"n_in={n_in}, n_out={n_out}, start={start}: {str(path)!r} has no frames to learn; leave them out"
            )
        if (task == "steady") != data.steady:
            state = "steady" if data.steady else "time-dependent"
            raise ConfigError(
                f"task={task!r}: {str(path)!r} holds a {state} problem; leave it out, or choose another"
            )
        first, last = _frames(data, task, n_in, n_out, start)
        # Reading has checked that the stride leaves two nodes on every axis.
        given = read_inputs(data, data.inputs, stride, first, data.targets if task == "step" else ())
        targets = torch.cat([_read(data, name, stride, last) for name in data.targets], -1)
        mask = _read(data, data.mask, stride, -1) if data.mask else None
        spacing = tuple(float(x[stride] - x[0]) for x in data.axes.values())
        periodic = data.periodic
        if task == "spacetime":
            steps = np.diff(np.atleast_2d(data.times)[0][last])
            # Times are stored in single precision.
            rounding = 4 * np.finfo(np.float32).eps * np.abs(data.times).max()
            if len(steps) == 0 or np.ptp(steps) > 1e-6 * steps.mean() + rounding:
                raise ConfigError(
                    f"task='spacetime': {str(path)!r} needs two or more frames at equal intervals"
                )
            spacing, periodic = (*spacing, float(steps.mean())), (*periodic, False)
            given = _along_time(given, targets.shape[-2])
            mask = None if mask is None else _along_time(mask, targets.shape[-2])
        turnable = (
            task != "spacetime"
            and all(data[name].parent.name == "/t0_fields" for name in (*data.inputs, *data.targets))
            and len(
                {*zip(data.resolution, periodic, np.round(np.divide(spacing, spacing[0]), 5), strict=True)}
            )
            == 1
        )
        history = n_in if task == "step" else 0
        names = data.inputs, data.targets
        return Pairs(
            given,
            targets,
            mask,
            spacing,
            periodic,
            names,
            data.seeds,
            data.config,
            turnable,
            history,
            task,
            _last_channels(data, task, n_in),
        )


def read_inputs(
    data: FieldsDataset,
    names: Sequence[str],
    stride: int,
    frames: int | slice,
    state: Sequence[str] = (),
    rows: range | None = None,
) -> Tensor:
    """Read input functions, (n, *space, channels): of each field the given frames, or its constant value.

    With ``state``, the fields that an autoregressive task predicts, their frames come first, one after the
    other, each with all these fields; then what is constant in time. ``rows`` are the trajectories, in a
    row; all by default.

    Raises
    ------
    ConfigError
        If a field is missing or not finite, or an autoregressive task has other inputs that vary in time.
    """
    dim = len(data.axes)
    if state:
        moving = {name for name in names if data.is_time_varying(name)}
        if moving != set(state):
            raise ConfigError(
                f"task='step': {str(data.path)!r} has inputs {sorted(moving)} that vary in time, targets "
                f"{sorted(state)}: a step from frame to frame needs them to be the same"
            )
        given = torch.cat([_read(data, name, stride, frames, rows) for name in state], -1).flatten(1 + dim)
        names = [name for name in names if name not in moving]
        return torch.cat([given, *(_read(data, name, stride, frames, rows) for name in names)], -1)
    return torch.cat([_read(data, name, stride, frames, rows).flatten(1 + dim) for name in names], -1)


def _read(
    data: FieldsDataset, name: str, stride: int, frames: int | slice, rows: range | None = None
) -> Tensor:
    """Values of shape (n, *space, [frames,] components)."""
    dim = len(data.axes)
    selected = None if rows is None else slice(rows.start, rows.stop)
    values = data.read(name, stride, selected, frames)
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0]) + (rows.start if rows else 0)
        remedy = "mend or leave out such trajectories where the file comes from"
        if data.provenance and "recipe" in data.config:
            remedy = "generate the file again"
        raise ConfigError(f"field {name!r} of {str(data.path)!r} is not finite in trajectory {row}: {remedy}")
    tensor = torch.from_numpy(np.ascontiguousarray(values)).float()
    if isinstance(frames, slice) and data.is_time_varying(name):
        return tensor.reshape(*tensor.shape[: 2 + dim], -1).movedim(1, -2)
    return tensor.reshape(*tensor.shape[: 1 + dim], -1)


def _last_channels(data: FieldsDataset, task: str, n_in: int) -> tuple[int, ...]:
    """Channels of inputs, as `read_inputs` orders them, with the last given frame of the targets'."""
    if task == "steady":
        return ()
    sizes = {name: len(data.axes) ** int(data[name].parent.name[2]) for name in (*data.inputs, *data.targets)}
    if task == "step":
        channels = sum(sizes[name] for name in data.targets)
        return tuple(range((n_in - 1) * channels, n_in * channels))
    places: dict[str, range] = {}
    end = 0
    for name in data.inputs:
        end += sizes[name] * (n_in if data.is_time_varying(name) else 1)
        places[name] = range(end - sizes[name], end)
    if not set(data.targets) <= set(places):
        return ()
    return tuple(channel for name in data.targets for channel in places[name])


def rows_on(device: torch.device, values: Tensor, rows: np.ndarray | slice) -> Tensor:
    """Return rows of values on a device, of which only what is not repeated along an axis was copied.

    Examples
    --------
    >>> frames = torch.arange(3.0)[:, None].expand(3, 5)
    >>> some = rows_on(torch.device("cpu"), frames, np.array([2, 0]))
    >>> some[:, 4].tolist(), some.stride()
    ([2.0, 0.0], (1, 0))
    """
    return unrepeated(values, first=1)[rows].to(device).expand(-1, *values.shape[1:])


def advance(inputs: Tensor, frame: Tensor, history: int) -> Tensor:
    """Return the inputs of an autoregressive task one step later: its oldest frame leaves, the new one enters.

    Parameters
    ----------
    inputs : Tensor, shape (..., channels)
    frame : Tensor, shape (..., channels of one frame)
    history : int
        Given frames.

    Examples
    --------
    >>> a = torch.tensor([1.0, 2.0, 9.0])  # two frames of one channel, and a constant
    >>> advance(a, torch.tensor([3.0]), history=2).tolist()
    [2.0, 3.0, 9.0]
    """
    channels = frame.shape[-1]
    split = history * channels
    return torch.cat([inputs[..., channels:split], frame, inputs[..., split:]], -1)


def _frames(
    data: FieldsDataset, task: str, n_in: int, n_out: int, start: int
) -> tuple[int | slice, int | slice]:
    """Frames of inputs and targets."""
    if task == "steady":
        return -1, -1
    count = np.shape(data.times)[-1]
    n_out = n_out or count - start - n_in
    first, last = start + n_in, start + n_in + n_out
    if n_in < 1 or n_out < 1 or start < 0 or last > count:
        raise ConfigError(
            f"start={start}, n_in={n_in} and n_out={n_out} need {start + max(n_in, 1) + max(n_out, 1)} frames, "
            f"{str(data.path)!r} has {count}: ask for fewer"
        )
    return slice(start, first), last - 1 if task == "final" else slice(first, last)


def _along_time(values: Tensor, frames: int) -> Tensor:
    """A view that repeats values (n, *space, channels) along a new last axis of the grid."""
    return values.unsqueeze(-2).expand(*values.shape[:-1], frames, values.shape[-1])
