"""Predictions of whole files, HDF5 to HDF5, with a few trajectories in memory at a time."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciml.datasets import FieldsDataset, PointsDataset
from sciml.datasets.atomic_hdf5 import atomic_hdf5
from sciml.datasets.kinds import create, write
from sciml.datasets.recipe import FieldsLayout, FieldSpec, Trajectory
from sciml.datasets.record import Record
from sciml.datasets.rows import checksums
from sciml.datasets.verification import recipe_of
from sciml.datasets.well import identity
from sciml.errors import ConfigError
from sciml.files import refuse_existing, refuse_input
from sciml.operators import CloudOperator, Operator
from sciml.operators.base import MODEL_FILE
from sciml.solvers import CartesianGrid

from .cloud_predictions import predict_mesh, predict_points
from .data import read_inputs
from .held_out import model_header
from .parallel import resolve_device
from .prediction import predict, roll_out

__all__ = ["predict_file"]

HDF5_ENDINGS = (".h5", ".hdf5")


@dataclass(frozen=True)
class _Plan:
    """What a model makes of a file.

    ``given`` are the frames that it reads, ``steps`` those that it predicts, one of task ``final``; ``kept``
    are the fields that are copied. The last of ``times`` are those of the predicted frames; those of the
    given ones come first if these are stored too, which they are if they hold all ``targets``.
    """

    task: str
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    kept: tuple[str, ...]
    given: int | slice
    steps: int
    times: tuple[float, ...]

    @property
    def steady(self) -> bool:
        return self.task == "steady"

    @property
    def shows_given(self) -> bool:
        return not self.steady and len(self.times) > self.steps

    def read(self, data: FieldsDataset, stride: int, rows: range) -> Tensor:
        """Read the model's inputs."""
        state = self.targets if self.task == "step" else ()
        inputs = read_inputs(data, self.inputs, stride, self.given, state, rows)
        if self.task != "spacetime":
            return inputs
        return inputs.unsqueeze(-2).expand(*inputs.shape[:-1], self.steps, inputs.shape[-1])

    def predict(self, model: Operator, inputs: Tensor) -> Tensor:
        """Return predicted frames, (B, frames, *space, channels); those of a steady problem without the axis."""
        if self.task == "step":
            history = self.given.stop - self.given.start if isinstance(self.given, slice) else 1
            return roll_out(model, inputs, history, self.steps, len(inputs)).movedim(-2, 1)
        values = predict(model, inputs, len(inputs))
        if self.task == "spacetime":
            return values.movedim(-2, 1)
        return values if self.steady else values.unsqueeze(1)


def predict_file(
    model: str | Path,
    source: str | Path,
    output: str | Path,
    *,
    stride: int = 1,
    device: str = "auto",
    batch_size: int = 20,
    frames: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Apply a trained operator to every trajectory of a dataset, and write a dataset of what it predicts.

    The result is of kind ``fields``, float32, on the input's grid, with its boundary conditions, scalars and
    seeds: the model's constant input fields, the mask, and the predicted fields by their names, as the model
    gives them, also outside the mask. Of a steady problem they are the solution. In time the frames that the
    model is given come first, if they hold all predicted fields, then those that it predicts: the last one
    alone for task ``final``.

    The model is given the frames that it was trained with, of a file with just ``n_in`` frames these. The
    times that follow are as far ahead as in training if its data came from a recipe; else they are those of
    the input's own next frames or, where it has no more, go on at its last interval, at 1 if it has a single
    frame. ``config`` in ``/provenance`` names model, input and task; the check ``not_finite`` is the fraction
    of a trajectory's predicted values that overflowed, as those of unstable roll-outs do.

    An operator on clouds takes a dataset of kind ``points``, sample by sample, or a mesh of a format that meshio knows
    by its ending, to whose point data the predicted fields are added (`sciml.training.cloud_predictions`).

    Parameters
    ----------
    model : path
        Run folder or model file.
    source : path
        Dataset of kind ``fields`` with the model's input fields; it needs no others.
    output : path
        HDF5 file, or mesh; it appears whole or not at all.
    stride : int
        Read every ``stride``-th node along each axis of space.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    batch_size : int
        Trajectories in memory at a time; of clouds always one.
    frames : int
        Frames that a model of task ``step`` predicts, also more than in training; 0 for as many.
    overwrite : bool
        Replace an existing file; it survives until the new one is complete.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    Path
        Of the output.

    Raises
    ------
    ConfigError
        If fields, frames, channels, axes or their periodicity do not fit the model, the grid is too coarse
        for it, values are not finite, or the device is not there.
    DatasetFormatError
        If the model or the dataset is missing, damaged or of another version.
    OutputExistsError
        If ``output`` exists and ``overwrite`` is not given, or is one of the inputs.
    StorageError
        If it cannot be written.

    Examples
    --------
    >>> predict_file("runs/darcy", "new.h5", "solutions.h5")  # doctest: +SKIP
    PosixPath('solutions.h5')
    """
    path = Path(model) / MODEL_FILE if Path(model).is_dir() else Path(model)
    for name, value, least in (("batch_size", batch_size, 1), ("frames", frames, 0)):
        if value < least:
            raise ConfigError(f"{name}={value}: it must be at least {least}")
    for existing in (path, source):
        refuse_input(existing, output)
    if not overwrite:
        refuse_existing(output)
    header = model_header(path)
    where = resolve_device(device)
    operator = Operator.load(path).to(where)
    if isinstance(operator, CloudOperator):
        if stride != 1 or frames:
            raise ConfigError(
                f"stride={stride}, frames={frames}: clouds of points have neither; leave them out"
            )
        return _predict_clouds(operator, header, path, model, source, output, progress)
    with FieldsDataset(source) as data:
        plan = _plan(header, data, frames)
        _check(operator, data, plan, stride)
        layout = _layout(operator, data, plan, stride)
        n, started, not_finite = data.n_trajectories, time.process_time(), []
        shown = len(plan.times) - plan.steps if plan.shows_given else 0
        config = {
            "predicted_by": _described(header, path, model, plan.task, shown),
            "predicted_from": {**identity(source), "stride": stride, "config": data.config},
        }
        with (
            atomic_hdf5(output) as writer,
            tqdm(total=n, desc=f"predict {Path(output).name}", disable=None if progress else True) as bar,
        ):
            file = writer.file
            create(file, layout, n)
            _copy_grid(data.file, file, stride)
            for start in range(0, n, batch_size):
                rows = range(start, min(start + batch_size, n))
                prediction = plan.predict(operator, plan.read(data, stride, rows))
                not_finite.append(1 - torch.isfinite(prediction).flatten(1).double().mean(1).numpy())
                write(file, layout, start, _trajectories(data, layout, plan, stride, rows, prediction))
                writer.check()
                bar.update(len(rows))
            Record(
                config,
                np.full(n, -1) if data.seeds is None else data.seeds,
                {"not_finite": np.concatenate(not_finite)},
                {"not_finite": 0.0},
                f"predicted by {header['architecture']}, not solved",
                time.process_time() - started,
                checksums(file),
                device=where.type,
            ).write(file)
    return Path(output)


def _described(
    header: dict[str, Any], path: Path, model: str | Path, task: str, given: int
) -> dict[str, Any]:
    """What predicted, for ``/provenance``."""
    return {
        "architecture": header["architecture"],
        "file": path.name if path == Path(model) else f"{path.resolve().parent.name}/{path.name}",
        "sha256": header["sha256"],
        "task": task,
        "given_frames": given,
        "trained_on": header["data"]["file"],
    }


def _predict_clouds(
    operator: CloudOperator,
    header: dict[str, Any],
    path: Path,
    model: str | Path,
    source: str | Path,
    output: str | Path,
    progress: bool,
) -> Path:
    """Predict at the points of a dataset or, if the file is none, of a mesh."""
    operator.eval()
    if Path(source).suffix in HDF5_ENDINGS or Path(source).is_dir():
        if Path(output).suffix not in HDF5_ENDINGS:
            raise ConfigError(
                f"output {str(output)!r}: a dataset gives a dataset, name it {' or '.join(HDF5_ENDINGS)}; meshes of "
                "its samples: sciml convert --to vtu"
            )
        with PointsDataset(source) as data:
            config = {
                "predicted_by": _described(header, path, model, "steady", 0),
                "predicted_from": {**identity(source), "config": data.config},
            }
            predict_points(operator, header, data, output, config, progress)
    else:
        predict_mesh(operator, header, source, output)
    return Path(output)


def _trained_layout(config: dict[str, Any]) -> FieldsLayout | None:
    """Layout of the data that a model was trained on, if a recipe that is known here made it."""
    with contextlib.suppress(ConfigError):
        layout = recipe_of(config).layout()
        return layout if isinstance(layout, FieldsLayout) else None
    return None


def _plan(header: dict[str, Any], data: FieldsDataset, frames: int) -> _Plan:
    """Find out what to read and what to write."""
    settings, trained, name = header["train"], header["data"], str(data.path)
    inputs, targets = tuple(trained["inputs"]), tuple(trained["targets"])
    layout = _trained_layout(trained["config"])
    task = settings["task"]
    if frames and task != "step":
        raise ConfigError(f"frames={frames}: it belongs to models of task 'step', not {task!r}; leave it out")
    missing = [field for field in inputs if field not in data.fields]
    if missing:
        raise ConfigError(
            f"input {name!r} has no field {', '.join(missing)} (it has {', '.join(data.fields)}): the model needs "
            f"{', '.join(inputs)}"
        )
    moving = {field for field in inputs if data.is_time_varying(field)}
    if moving and data.steady != (task == "steady"):
        raise ConfigError(
            f"input {name!r} holds a {'steady' if data.steady else 'time-dependent'} problem, the model is of task "
            f"{task!r}: give a dataset like those that it was trained on"
        )
    fixed = [
        field
        for field in dict.fromkeys((*inputs, data.mask))
        if field and field not in targets and (task == "steady" or not data.is_time_varying(field))
    ]
    if task == "steady":
        return _Plan(task, inputs, targets, tuple(fixed), -1, 1, (0.0, 1.0))
    if data.times.ndim > 1:
        raise ConfigError(f"input {name!r} has other times for every trajectory: give one file for each")
    n_in, start, known = settings["n_in"], settings["start"], data.times.astype(float)
    first = 0 if len(known) == n_in else start
    if len(known) < first + n_in:
        raise ConfigError(
            f"input {name!r} has {len(known)} frames, the model needs {n_in} from frame {first} on: give more, or just "
            f"{n_in}"
        )
    # Of the given frames the last, in the file and in the times that say how far ahead the model looks.
    last = first + n_in - 1
    reference, here = (np.array(layout.times), start + n_in - 1) if layout else (known, last)
    later = len(reference) - 1 - here
    steps = frames or settings["n_out"] or later
    if task == "spacetime":
        steps = trained["resolution"][-1]
    elif task == "step" and steps < 1:
        raise ConfigError(
            f"frames=0: input {name!r} has just the frames that the model is given: say how many to predict"
        )
    steps = max(steps, 1)
    interval = reference[-1] - reference[-2] if len(reference) > 1 else 1.0
    further = reference[-1] + interval * np.arange(1, max(0, steps - later) + 1)
    ahead = np.concatenate([reference, further])[here + 1 : here + 1 + steps] - reference[here]
    if task == "final":
        ahead, steps = ahead[-1:], 1
    shown = known[first : last + 1] if set(targets) <= moving else known[:0]
    times = tuple(np.concatenate([shown, known[last] + ahead]).tolist())
    return _Plan(task, inputs, targets, tuple(fixed), slice(first, last + 1), steps, times)


def _check(model: Operator, data: FieldsDataset, plan: _Plan, stride: int) -> None:
    """Refuse a file that does not fit the model, before anything is written."""
    name, kind = str(data.path), type(model).__name__
    periodic = (*data.periodic, False) if plan.task == "spacetime" else data.periodic
    if periodic != model.periodic:
        axes = "axes of space and time" if plan.task == "spacetime" else "axes"
        raise ConfigError(
            f"input {name!r} has {len(periodic)} {axes}, periodic {periodic}, the {kind} {len(model.periodic)}, "
            f"periodic {model.periodic}: give a dataset on the same kind of grid"
        )
    inputs = plan.read(data, stride, range(1))
    if inputs.shape[-1] != model.in_channels:
        raise ConfigError(
            f"input {name!r} gives {inputs.shape[-1]} channels ({', '.join(plan.inputs)}), the {kind} takes "
            f"{model.in_channels}: give fields of the same ranks as those that it was trained on"
        )
    try:
        model.check_resolution(tuple(inputs.shape[1:-1]))
    except ConfigError as error:
        raise ConfigError(f"input {name!r}, stride={stride}: {error}") from error


def _rank(data: FieldsDataset, name: str) -> int:
    return int(data[name].parent.name[2])


def _target_ranks(model: Operator, data: FieldsDataset, targets: tuple[str, ...]) -> list[int]:
    """Ranks of the predicted fields: those of the input's fields of these names, the others' all the same."""
    dim, known = len(data.axes), {name: _rank(data, name) for name in targets if name in data.fields}
    rest = model.out_channels - sum(dim**rank for rank in known.values())
    others = len(targets) - len(known)
    rank = next((rank for rank in range(3) if others * dim**rank == rest), None)
    if rank is None:
        raise ConfigError(
            f"input {str(data.path)!r}: the {model.out_channels} channels of the {type(model).__name__} cannot be told "
            f"apart as fields {', '.join(targets)}: add fields of these names and ranks to it"
        )
    return [known.get(name, rank) for name in targets]


def _layout(model: Operator, data: FieldsDataset, plan: _Plan, stride: int) -> FieldsLayout:
    axes = [x[::stride] for x in data.axes.values()]
    ends = [x[-1] + wraps * (x[1] - x[0]) for x, wraps in zip(axes, data.periodic, strict=True)]
    cells = tuple(len(x) if wraps else len(x) - 1 for x, wraps in zip(axes, data.periodic, strict=True))

    def description(name: str) -> str:
        return str(data[name].attrs.get("description", "")) if name in data.fields else ""

    copied = [
        FieldSpec(name, description(name), _rank(data, name), data.is_time_varying(name))
        for name in plan.kept
    ]
    ranks = _target_ranks(model, data, plan.targets)
    predicted = [
        FieldSpec(name, f"{description(name)} (predicted)".strip(), rank)
        for name, rank in zip(plan.targets, ranks, strict=True)
    ]
    stored = data.file["scalars"]
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in stored.attrs["field_names"]]
    # The file's attributes have all digits, /scalars those of float32.
    exact = data.file.attrs
    state = plan.targets if plan.shows_given else ()
    return FieldsLayout(
        name=f"{data.name}-predicted",
        grid=CartesianGrid(tuple(x[0] for x in axes), tuple(ends), cells, data.periodic),
        fields=(*copied, *predicted),
        times=plan.times,
        steady=plan.steady,
        scalars=tuple(name for name in names if stored[name].shape == (data.n_trajectories,)),
        parameters={
            name: float(exact.get(name, stored[name][()])) for name in names if stored[name].shape == ()
        },
        inputs=tuple(name for name in plan.inputs if name in (*plan.kept, *state)),
        targets=plan.targets,
        mask=data.mask if data.mask in plan.kept else "",
    )


def _copy_grid(source: h5py.File, target: h5py.File, stride: int) -> None:
    """Copy coordinates to the last digit, and the boundary conditions, which may differ from side to side."""
    for name in source["dimensions"].attrs["spatial_dims"]:
        target["dimensions"][name][...] = source["dimensions"][name][::stride]
    del target["boundary_conditions"]
    source.copy("boundary_conditions", target)
    for condition in target["boundary_conditions"].values() if stride > 1 else ():
        mask = condition["mask"][()]
        kept = mask[(slice(None, None, stride),) * mask.ndim]
        # The last node of a periodic axis stays marked, though it is another one.
        kept[(-1,) * mask.ndim] = mask[(-1,) * mask.ndim]
        del condition["mask"]
        condition["mask"] = kept


def _trajectories(
    data: FieldsDataset, layout: FieldsLayout, plan: _Plan, stride: int, rows: range, prediction: Tensor
) -> list[Trajectory]:
    """Split a prediction, (B, [frames,] *space, channels), into fields, after what is copied."""
    dim, selected = len(data.axes), slice(rows.start, rows.stop)
    fields = {name: data.read(name, stride, selected) for name in plan.kept}
    components = [(dim,) * spec.rank for spec in layout.fields[len(plan.kept) :]]
    parts = prediction.split([int(np.prod(shape)) for shape in components], -1)
    for name, part, shape in zip(plan.targets, parts, components, strict=True):
        values = part.reshape(*part.shape[:-1], *shape).numpy()
        if plan.shows_given:
            values = np.concatenate([data.read(name, stride, selected, plan.given), values], 1)
        fields[name] = values
    scalars = {name: data.file["scalars"][name][selected] for name in layout.scalars}
    return [
        Trajectory(
            {name: values[i] for name, values in fields.items()},
            {name: float(values[i]) for name, values in scalars.items()},
        )
        for i in range(len(rows))
    ]
