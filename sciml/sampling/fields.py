"""Samples of fields from a trained score model, as tensors and as datasets."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciml.datasets.atomic_hdf5 import atomic_hdf5
from sciml.datasets.kinds import create, write
from sciml.datasets.recipe import FieldsLayout, FieldSpec, Trajectory
from sciml.datasets.record import Record
from sciml.datasets.rows import checksums
from sciml.errors import ConfigError
from sciml.files import refuse_existing
from sciml.operators import Denoiser
from sciml.operators.base import MODEL_FILE
from sciml.solvers import CartesianGrid
from sciml.training.held_out import model_header
from sciml.training.parallel import resolve_device

from .dpm_solver import Sampler
from .evaluation import Model
from .noise import SampleNoise
from .plans import SOLVERS, Solver
from .schedules import VE

__all__ = ["draw_fields", "field_sampler", "field_schedule", "load_score_model", "sample_fields"]


def field_schedule(model: Denoiser, space: Sequence[int]) -> VE:
    """Return the schedule of a score model at a resolution: sigma = t, from the least to the largest noise."""
    least, largest = model.noise_levels(tuple(space))
    return VE(least, largest)


def field_sampler(
    model: Denoiser, denoiser: Model, space: Sequence[int], solver: str | Solver, steps: int
) -> Sampler:
    """Return the sampler of a score model, or of a denoiser made from it; its last step takes away all noise.

    Raises
    ------
    ConfigError
        If the solver is not one of data and fixed steps, or steps are too few.
    """
    named = SOLVERS.get(solver) if isinstance(solver, str) else solver
    if named is not None and (named.kind == "adaptive" or named.form == "noise"):
        why = (
            "chooses its own steps"
            if named.kind == "adaptive"
            else "is of the noise form, which cannot end at 0"
        )
        raise ConfigError(f"solver={solver!r}: it {why}; choose dpm++3m, or another of data and fixed steps")
    schedule = field_schedule(model, space)
    return Sampler(denoiser, schedule, solver, steps, prediction="data", final_zero=True)


def load_score_model(run: str | Path, device: str = "auto") -> tuple[Denoiser, dict[str, Any]]:
    """Return the score model of a run, and what its file says about it.

    Raises
    ------
    ConfigError
        If the run is one of an operator.
    DatasetFormatError
        If there is none, or it is damaged.
    """
    header = model_header(run, score=True)
    return Denoiser.load(run).to(resolve_device(device)), header


def draw_fields(
    model: Denoiser,
    n: int,
    space: Sequence[int],
    *,
    solver: str | Solver = "dpm++3m",
    steps: int = 15,
    seed: int = 0,
    batch_size: int = 50,
    progress: bool = False,
) -> Tensor:
    """Draw fields, shape (n, *space, channels), float32, in their own units.

    The grid is uniform in the log-SNR, and its last step returns the denoised fields. Sample i depends on the seed
    and i alone.

    Parameters
    ----------
    model : Denoiser
    n : int
    space : sequence of int
        Nodes per axis.
    solver, steps, seed
        As for `sciml.sampling.sample`; not an adaptive solver.
    batch_size : int
        Samples in memory at a time.
    progress : bool
        Show a bar on a terminal.

    Raises
    ------
    ConfigError
        If an argument cannot be used.
    ConvergenceError
        If the model's output is not finite.
    """
    for name, value in (("n", n), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name}={value}: it must be at least 1")
    model.check_resolution(tuple(space))
    sampler = field_sampler(model, model, space, solver, steps)
    device = model.input_mean.device
    parts = []
    with tqdm(total=n, desc="sample", disable=None if progress else True) as bar:
        for start in range(0, n, batch_size):
            noise = SampleNoise(seed, start)
            count = min(batch_size, n - start)
            empty = torch.empty((count, *space, model.out_channels), device=device)
            x = sampler(sampler.levels[0].sigma * noise(-1, empty), noise).x
            parts.append(model.denormalise(x).cpu())
            bar.update(count)
    return torch.cat(parts)


def sample_fields(
    run: str | Path,
    output: str | Path,
    n: int = 64,
    *,
    solver: str | Solver = "dpm++3m",
    steps: int = 15,
    seed: int = 0,
    resolution: Sequence[int] = (),
    batch_size: int = 50,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Draw fields from a trained score model into a dataset of kind ``fields``.

    The fields are those of the training data, steady; of a steady problem inputs and solution have their parts in the
    learning task. ``config`` in ``/provenance`` names the model, the solver and the seed.

    Parameters
    ----------
    run : path
        Run folder of ``sciml train score``, or its model file.
    output : path
    n : int
        Samples.
    solver, steps, seed, batch_size
        As for `draw_fields`.
    resolution : sequence of int
        Nodes per axis; those of the training data by default.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    overwrite : bool
        Replace an existing file; it survives until the new one is complete.
    progress : bool

    Returns
    -------
    Path
        Of the output.

    Raises
    ------
    ConfigError
        If an argument cannot be used, or the run is one of an operator.
    DatasetFormatError
        If the run is missing or damaged.
    OutputExistsError
        If the output exists.

    Examples
    --------
    >>> from sciml.sampling import sample_fields
    >>> sample_fields("runs/prior", "samples.h5", 64, steps=15)  # doctest: +SKIP
    PosixPath('samples.h5')
    """
    if not overwrite:
        refuse_existing(output)
    started = time.process_time()
    model, header = load_score_model(run, device)
    trained = header["data"]
    space = tuple(np.atleast_1d(resolution).tolist()) or tuple(trained["resolution"])
    if len(space) != model.axes or any(size < 2 for size in space):
        raise ConfigError(f"resolution={space}: give the nodes of each of {model.axes} axes")
    fields = draw_fields(
        model, n, space, solver=solver, steps=steps, seed=seed, batch_size=batch_size, progress=progress
    )
    layout, sizes = _layout(model, trained, space)
    path = Path(run) / MODEL_FILE if Path(run).is_dir() else Path(run)
    config = {
        "sampled_by": {
            "file": f"{path.resolve().parent.name}/{path.name}",
            "sha256": header["sha256"],
            "trained_on": trained["file"],
            "solver": str(solver),
            "steps": steps,
            "seed": seed,
        }
    }
    with atomic_hdf5(output) as writer:
        create(writer.file, layout, n)
        for row, values in enumerate(fields.double().numpy()):
            parts = np.split(values, np.cumsum(sizes)[:-1], axis=-1)
            shaped = {
                spec.name: part.reshape(*space, *(model.axes,) * spec.rank)
                for spec, part in zip(layout.fields, parts, strict=True)
            }
            write(writer.file, layout, row, [Trajectory(shaped)])
        Record(
            config,
            np.full(n, -1),
            {"not_finite": 1 - np.isfinite(fields.numpy()).reshape(n, -1).mean(1)},
            {"not_finite": 0.0},
            "sampled from a score model, not solved",
            time.process_time() - started,
            checksums(writer.file),
            device=model.input_mean.device.type,
        ).write(writer.file)
    return Path(output)


def _layout(
    model: Denoiser, trained: dict[str, Any], space: tuple[int, ...]
) -> tuple[FieldsLayout, list[int]]:
    """The layout of samples, and the components of each field."""
    # The box of the training data.
    sides = [
        h * (n if wraps else n - 1)
        for h, n, wraps in zip(trained["spacing"], trained["resolution"], model.periodic, strict=True)
    ]
    lower = tuple(trained["lower"])
    upper = tuple(low + side for low, side in zip(lower, sides, strict=True))
    cells = tuple(n if wraps else n - 1 for n, wraps in zip(space, model.periodic, strict=True))
    names, given = tuple(trained["targets"]), tuple(trained["given"])
    specs = tuple(
        FieldSpec(name, f"{description} (sampled)", rank, time_varying=name not in given)
        for name, description, rank in zip(names, trained["descriptions"], trained["ranks"], strict=True)
    )
    layout = FieldsLayout(
        name=f"{trained['dataset']}-samples",
        grid=CartesianGrid(lower, upper, cells, model.periodic),
        fields=specs,
        inputs=given,
        targets=tuple(name for name in names if name not in given),
    )
    return layout, [math.prod((model.axes,) * spec.rank) for spec in specs]
