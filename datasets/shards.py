"""Shards: a run of trajectories that one task computes, judges and writes.

What a shard holds depends on the recipe, the dataset's seed and the trajectories' indices only.
"""

import contextlib
import dataclasses
import json
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sciml.errors import ConvergenceError, DatasetFormatError, SciMLError
from sciml.provenance import collect
from sciml.registry import load_plugin

from .atomic_hdf5 import atomic_hdf5
from .kinds import bytes_per_trajectory, create, stored_dtype, write
from .pools import one_thread
from .reader import Dataset, open_dataset
from .recipe import ATTEMPTS, Layout, Recipe, Trajectory, trajectory_seeds
from .record import Record
from .rows import checksums, copy_rows
from .verification import is_verified, sampled, self_convergence

__all__ = ["Shard", "ShardTask", "block_size", "compute_shard", "copy_trajectories", "open_shard"]

BLOCK_BYTES = 64 << 20
BLOCK_TRAJECTORIES = 32
DEVICE_BLOCK_BYTES = 512 << 20
DEVICE_BLOCK_TRAJECTORIES = 512
"""It takes hundreds of trajectories to fill a GPU."""


@dataclass(frozen=True)
class Shard:
    """Trajectories start <= i < stop in the file ``path``."""

    start: int
    stop: int
    path: Path

    def __len__(self) -> int:
        return self.stop - self.start

    def entries(self) -> list[dict[str, Any]]:
        """Read what the journal says about its trajectories."""
        with open_shard(self.path) as data:
            return json.loads(data.file["provenance/journal"].asstr()[()])

    def record(self, config: dict[str, Any]) -> Record:
        """Read its record; a shard that is damaged, or not of the dataset ``config``, is removed.

        Raises
        ------
        DatasetFormatError
            If it was removed.
        """
        with open_shard(self.path) as data:
            record = data.record
        recipe = {name: config[name] for name in ("recipe", "parameters")}
        seeds = np.array(
            [
                trajectory_seeds(config["seed"], self.start, self.stop, attempt)
                for attempt in range(ATTEMPTS + 1)
            ]
        )
        if (
            record is None
            or record.config != recipe
            or record.seeds.shape != (len(self),)
            or not (seeds == record.seeds).any(axis=0).all()
        ):
            self.path.unlink(missing_ok=True)
            raise DatasetFormatError(
                f"{str(self.path)!r} holds trajectories of another dataset; it is removed, "
                "run the same command again"
            )
        return record


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs; the recipe stays pickled until the plug-ins that define it are loaded."""

    recipe: bytes
    plugins: tuple[tuple[str, str], ...]
    """Path and SHA-256 of each."""
    seed: int
    device: str
    start: int
    stop: int
    path: str


@dataclass(frozen=True)
class _Draw:
    """An accepted trajectory, its seed, and the seeds that were rejected before it, with reasons."""

    index: int
    seed: int
    trajectory: Trajectory
    rejected: tuple[tuple[int, str], ...]


def block_size(layout: Layout, device: str = "cpu") -> int:
    """Return how many trajectories are held in memory at once.

    At most 32 and, as stored, 64 MB; on another device than "cpu" 512, and 512 MB.

    Examples
    --------
    >>> from sciml.datasets.recipes import DarcyRecipe
    >>> block_size(DarcyRecipe(resolution=43).layout())
    32
    """
    most, room = BLOCK_TRAJECTORIES, BLOCK_BYTES
    if device != "cpu":
        most, room = DEVICE_BLOCK_TRAJECTORIES, DEVICE_BLOCK_BYTES
    return max(1, min(most, room // bytes_per_trajectory(layout)))


def compute_shard(task: ShardTask) -> list[dict[str, Any]]:
    """Compute a shard and write it; return its entries for the journal.

    Raises
    ------
    ConvergenceError
        If a trajectory and all its replacements are rejected.
    ConfigError
        If a plug-in has another content than when the work began, here or when this worker loaded it.
    DatasetFormatError
        If a trajectory does not fit its layout, or its checks are not those declared.
    StorageError
        If the shard cannot be written.
    """
    for plugin, digest in task.plugins:
        load_plugin(plugin, digest)
    recipe: Recipe = pickle.loads(task.recipe)
    shard = Shard(task.start, task.stop, Path(task.path))
    if shard.path.exists():
        # A worker died after writing it, before saying so; or one that an earlier, cancelled generation of
        # other settings left behind wrote it: then it is removed, and made again.
        with contextlib.suppress(DatasetFormatError):
            shard.record({**recipe.config(), "seed": task.seed})
            return shard.entries()
    layout = recipe.layout()
    size = block_size(layout, task.device)
    started = time.process_time()
    records: list[Record] = []
    entries: list[dict[str, Any]] = []
    with atomic_hdf5(shard.path) as writer:
        file = writer.file
        create(file, layout, len(shard))
        for start in range(task.start, task.stop, size):
            with one_thread:
                draws = _draw_block(recipe, task, start, min(start + size, task.stop))
                records.append(_block_record(recipe, draws, task.device))
            write(file, layout, start - task.start, [draw.trajectory for draw in draws])
            writer.check()
            for draw in draws:
                entries += _entries(draw)
        cpu_seconds = time.process_time() - started
        for entry in entries:
            if entry["status"] == "done":
                entry["cpu_seconds"] = cpu_seconds / len(shard)
        dataclasses.replace(
            Record.join(records, recipe.config()),
            cpu_seconds=cpu_seconds,
            checksums=checksums(file),
            device=task.device,
        ).write(file)
        file["provenance"].create_dataset("journal", data=json.dumps(entries), dtype=h5py.string_dtype())
    return entries


def _entries(draw: _Draw) -> list[dict[str, Any]]:
    rejected = [
        {"index": draw.index, "seed": seed, "status": "rejected", "reason": reason}
        for seed, reason in draw.rejected
    ]
    checks = {name: float(value) for name, value in draw.trajectory.checks.items()}
    return [*rejected, {"index": draw.index, "seed": draw.seed, "status": "done", "checks": checks}]


def _draw_block(recipe: Recipe, task: ShardTask, start: int, stop: int) -> list[_Draw]:
    """Draw trajectories start <= i < stop, each replaced until it is right."""
    seeds = [int(seed) for seed in trajectory_seeds(task.seed, start, stop)]
    samples = _sample(recipe, seeds, task.device)
    return [
        _settle(recipe, task, index, seed, sample)
        for index, seed, sample in zip(range(start, stop), seeds, samples, strict=True)
    ]


def _settle(recipe: Recipe, task: ShardTask, index: int, seed: int, sample: Trajectory | str) -> _Draw:
    """Return a trajectory, or the first of its replacements that is right."""
    rejected: list[tuple[int, str]] = []
    for attempt in range(1, ATTEMPTS + 2):
        reason = sample if isinstance(sample, str) else _fault(recipe, seed, sample)
        if isinstance(sample, Trajectory) and not reason:
            return _Draw(index, seed, sample, tuple(rejected))
        rejected.append((seed, reason))
        if attempt <= ATTEMPTS:
            seed = int(trajectory_seeds(task.seed, index, index + 1, attempt)[0])
            (sample,) = _sample(recipe, [seed], task.device)
    raise ConvergenceError(
        f"trajectory {index} and its {ATTEMPTS} replacements were rejected, the last with seed {seed}: "
        f"{reason}; change the recipe's parameters, e.g. a smaller step or a higher resolution"
    )


def _sample(recipe: Recipe, seeds: Sequence[int], device: str) -> Sequence[Trajectory | str]:
    """Sample seeds; one that does not converge gives the reason."""
    try:
        samples = sampled(recipe, seeds, device)
    except ConvergenceError as error:
        if len(seeds) == 1:
            return [str(error)]
        return [sample for seed in seeds for sample in _sample(recipe, [seed], device)]
    except SciMLError:
        raise
    except OSError as error:
        # Not the shard's file: that one is not to be blamed.
        raise SciMLError(f"the recipe failed on seeds {seeds[0]}, ...: {error}") from error
    kind = recipe.config()["recipe"]
    if not isinstance(samples, Sequence):
        raise DatasetFormatError(
            f"{kind}: sample_batch returned a {type(samples).__name__} for seeds {seeds[0]}, ...: return a list"
        )
    if len(samples) != len(seeds):
        raise DatasetFormatError(
            f"sample_batch returned {len(samples)} trajectories for {len(seeds)} seeds: return one for each"
        )
    for seed, sample in zip(seeds, samples, strict=True):
        if not isinstance(sample, Trajectory):
            raise DatasetFormatError(
                f"{kind}: sample returned a {type(sample).__name__} for seed {seed}: return a Trajectory"
            )
    return samples


def _fault(recipe: Recipe, seed: int, trajectory: Trajectory) -> str:
    """Return why a trajectory must not be stored, "" if it may be."""
    if set(trajectory.checks) != set(recipe.check_limits):
        raise DatasetFormatError(
            f"the trajectory with seed {seed} has checks {sorted(trajectory.checks)}, "
            f"the recipe declares limits for {sorted(recipe.check_limits)}: give both"
        )
    layout = recipe.layout()
    for name, values in {**trajectory.fields, **trajectory.scalars}.items():
        if np.iscomplexobj(np.asarray(values)):
            raise DatasetFormatError(
                f"{name!r} of the trajectory with seed {seed} is complex: store its real and imaginary parts"
            )
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.asarray(values).astype(stored_dtype(layout, name))).all()
        if not finite:
            return f"{name!r} is not finite"
    for name, limit in recipe.check_limits.items():
        # Not ">": a check that is NaN has failed.
        if not trajectory.checks[name] <= limit:
            return f"check {name!r} is {trajectory.checks[name]:.2e}, above its limit {limit:.2e}"
    return ""


def _block_record(recipe: Recipe, draws: Sequence[_Draw], device: str) -> Record:
    """Solve the sample of verified trajectories again, and record everything but the checksums."""
    again = [row for row, draw in enumerate(draws) if is_verified(draw.index)]
    measures = (
        self_convergence(
            recipe, [draws[row].seed for row in again], [draws[row].trajectory for row in again], device
        )
        if again
        else {}
    )
    return Record(
        {},
        np.array([draw.seed for draw in draws], dtype=np.int64),
        {name: np.array([draw.trajectory.checks[name] for draw in draws]) for name in recipe.check_limits},
        recipe.check_limits,
        recipe.equation,
        rejected=np.array([seed for draw in draws for seed, _ in draw.rejected], dtype=np.int64),
        rejected_index=np.array(
            [row for row, draw in enumerate(draws) for _ in draw.rejected], dtype=np.int64
        ),
        rejected_reason=tuple(reason for draw in draws for _, reason in draw.rejected),
        verified=np.array(again if measures else [], dtype=np.int64),
        verification=measures,
        verification_limits=recipe.verification_limits() if measures else {},
    )


def open_shard(path: Path) -> Dataset:
    """Open a shard; one that is damaged is removed.

    Raises
    ------
    DatasetFormatError
        If it is damaged.
    """
    try:
        return open_dataset(path)
    except DatasetFormatError as error:
        path.unlink(missing_ok=True)
        raise DatasetFormatError(
            f"{error}; the damaged shard is removed, run the same command again"
        ) from error


def copy_trajectories(
    shards: Sequence[Shard], layout: Layout, path: Path, folder: Path, record: Record, start: int, stop: int
) -> None:
    """Write trajectories start <= i < stop of shards into a new file, a block at a time.

    Parameters
    ----------
    shards : sequence of Shard
        Ascending, without gaps.
    layout : Layout
    path : Path
        Of the new file.
    folder : Path
        Where it lies until it is complete.
    record : Record
        Of these trajectories.
    start, stop : int
    """
    size, places = block_size(layout), []
    with atomic_hdf5(path, folder) as writer:
        create(writer.file, layout, stop - start)
        for shard in shards:
            low, high = max(start, shard.start), min(stop, shard.stop)
            if low >= high:
                continue
            with open_shard(shard.path) as data:
                places.append(data.provenance)
                for row in range(low, high, size):
                    rows = slice(row - shard.start, min(row + size, high) - shard.start)
                    copy_rows(data.file, writer.file, row - start, rows)
            writer.check()
        record.write(writer.file, _made(places))


def _made(places: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return where and how the numbers of shards were made: every value that an attribute has there."""
    now = collect()
    texts = {
        name: dict.fromkeys(str(place[name]) for place in places)
        for name in ("git_commit", "versions", "machine", "processor", "system")
    }
    # What merges the shards had a part in it, too.
    texts["git_commit"][now["git_commit"]] = None
    return {**now, **{name: ", ".join(values) for name, values in texts.items()}}
