"""The generation engine: many trajectories into one file, without losing work.

The trajectories are divided into shards of fixed size. Each shard is computed by one task, written
to a temporary name, flushed and renamed, so that a kill at any moment costs at most the shards in
hand. When all are there they are merged into the final file, which appears whole or not at all.
What a shard holds depends on the recipe, the seed and its number only: any executor, any number of
workers and any number of interruptions give the same datasets.
"""

import contextlib
import hashlib
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from sciml.errors import ConfigError, ConvergenceError, DatasetFormatError, OutputExistsError, SciMLError
from sciml.files import read_json, refuse_existing, storage_errors, write_json
from sciml.provenance import first_difference, git_commit, package_versions
from sciml.registry import load_plugin

from .atomic_hdf5 import atomic_hdf5
from .fields import create_fields, write_provenance, write_trajectories
from .reader import FieldsDataset
from .recipe import Recipe, Trajectory, trajectory_seeds

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["generate"]

PLAN_VERSION = 1


@dataclass(frozen=True)
class _ShardTask:
    """What a worker needs; the recipe stays pickled until the plug-ins that define it are loaded."""

    recipe: bytes
    plugins: tuple[str, ...]
    seed: int
    start: int
    stop: int
    path: str


def generate(
    recipe: Recipe,
    n: int,
    path: str | Path,
    *,
    seed: int = 0,
    executor: Executor | None = None,
    workers: int = 1,
    shard_size: int = 32,
    resume: bool = False,
    overwrite: bool = False,
    plugins: Sequence[str] = (),
    progress: bool = True,
) -> Path:
    """Generate ``n`` trajectories into one HDF5 file.

    An unfinished generation of the same plan (left in ``<path>.parts``) is always taken up again.

    Parameters
    ----------
    recipe : Recipe
    n : int
        Trajectories.
    path : path
        Of the final file.
    seed : int
        Of the dataset; every trajectory's own seed is derived from it and stored.
    executor : concurrent.futures.Executor, optional
        Where shards are computed (a Dask client's ``get_executor()``, an ``MPIPoolExecutor``, ...).
        Its workers must see the same file system. By default local processes.
    workers : int
        Local processes if no executor is given; 1 computes in this process.
    shard_size : int
        Trajectories per shard.
    resume : bool
        Accept a finished file of the same plan and leave it as it is.
    overwrite : bool
        Replace a finished file, and discard unfinished work of another plan. The old file survives
        until the new one is complete.
    plugins : sequence of str
        Python files that worker processes load first.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    Path

    Raises
    ------
    OutputExistsError
        If the file exists, or unfinished work of another plan does.
    ConvergenceError
        If a trajectory fails its checks or is not finite; the message names its seed.
    DatasetFormatError
        If a shard is damaged (it is removed: run again), or a trajectory does not fit its layout.
    StorageError
        If the disk is full or cannot be written; finished shards are kept.
    ConfigError
        If ``n``, ``workers`` or ``shard_size`` is below 1.

    Examples
    --------
    >>> from sciml.datasets import generate
    >>> from sciml.datasets.recipes import Darcy
    >>> generate(Darcy(resolution=43), 100, "darcy.h5", workers=2)  # doctest: +SKIP
    PosixPath('darcy.h5')
    """
    for name, value in (("n", n), ("workers", workers), ("shard_size", shard_size)):
        if value < 1:
            raise ConfigError(f"{name}={value}: it must be at least 1")
    if seed < 0:
        raise ConfigError(f"seed={seed}: it must not be negative")
    # A link stays one: the file that it names is written.
    path, n, seed = Path(os.path.realpath(path)), int(n), int(seed)
    if path.is_dir():
        raise ConfigError(f"path={str(path)!r} is a folder: give the name of a file")
    parts = path.with_name(path.name + ".parts")
    config = {**recipe.config(), "n": n, "seed": seed}
    plan = {
        "plan_version": PLAN_VERSION,
        **config,
        "shard_size": shard_size,
        "plugins": {Path(p).name: hashlib.sha256(Path(p).read_bytes()).hexdigest() for p in plugins},
        "environment": {**package_versions(), "commit": git_commit()},
    }
    if path.exists() and not overwrite:
        if _owned_plan(parts) == plan:
            # Killed after the file was published, before its shards were removed.
            _discard(parts)
            return path
        if not resume:
            refuse_existing(path, "pass --resume to keep it if it is complete, --overwrite to replace it")
        with FieldsDataset(path) as existing:
            if existing.config != config:
                raise OutputExistsError(
                    f"output {str(path)!r} holds another dataset ({first_difference(existing.config, config)}): "
                    "choose another path, or pass --overwrite"
                )
        return path

    bounds = [(start, min(start + shard_size, n)) for start in range(0, n, shard_size)]
    _prepare(parts, plan, overwrite)
    with _locked(parts):
        blob, files = pickle.dumps(recipe), tuple(str(Path(p).resolve()) for p in plugins)
        tasks = [
            _ShardTask(blob, files, seed, start, stop, str(_shard(parts, start)))
            for start, stop in bounds
            if not _shard(parts, start).exists()
        ]
        done = n - sum(task.stop - task.start for task in tasks)
        silent = None if progress else True
        with (
            tqdm(total=n, initial=done, desc=f"generate {path.name}", unit="traj", disable=silent) as bar,
            contextlib.closing(_run(tasks, executor, workers)) as finished,
        ):
            for count in finished:
                bar.update(count)
        _merge(recipe, config, parts, bounds, path)
    _discard(parts)
    return path


def _shard(parts: Path, start: int) -> Path:
    return parts / f"shard-{start:08d}.h5"


def _owned_plan(parts: Path) -> dict[str, Any] | None:
    """Return the plan of a folder of shards, or None if it holds none."""
    return read_json(parts / "plan.json") if (parts / "plan.json").is_file() else None


def _is_ours(file: Path) -> bool:
    """Whether a file in a folder of shards was written by the engine; a kill can leave any of them alone."""
    return file.name in ("plan.json", "lock") or any(map(file.match, ("shard-*.h5", ".*.tmp")))


def _discard(parts: Path) -> None:
    """Remove a folder of shards, its plan last: killed on the way, the same command still knows it."""
    for file in parts.iterdir():
        if file.name != "plan.json" and _is_ours(file):
            file.unlink()
    shutil.rmtree(parts)


def _prepare(parts: Path, plan: dict[str, Any], overwrite: bool) -> None:
    """Make the folder of shards, or accept it if it belongs to the same plan."""
    old = _owned_plan(parts)
    if old == plan:
        return
    if old is not None and not overwrite:
        raise OutputExistsError(
            f"{str(parts)!r} holds an unfinished generation ({first_difference(old, plan)}): "
            "finish it with its own settings, or pass --overwrite to discard it"
        )
    if old is None and parts.exists() and not (parts.is_dir() and all(map(_is_ours, parts.iterdir()))):
        raise OutputExistsError(
            f"{str(parts)!r} is needed for unfinished work but holds something else: move it away"
        )
    if parts.exists():
        _discard(parts)
    with storage_errors(parts):
        parts.mkdir(parents=True)
    write_json(parts / "plan.json", plan)


@contextlib.contextmanager
def _locked(parts: Path) -> Iterator[None]:
    """Refuse a second process on the same generation; the lock goes with the process, however it ends."""
    with (parts / "lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputExistsError(
                    f"another process is generating into {str(parts)!r}: wait for it, or choose another path"
                ) from error
        yield


class _OneThread:
    """Limit BLAS to one thread while any shard is computed in this process.

    Sums in another order would change the last bits with the number of workers. The limit belongs to
    the process, so threads that compute shards share it: the last one out lifts it.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limits = threadpool_limits(limits=1)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limits.restore_original_limits()


_one_thread = _OneThread()


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Deliver Ctrl-C at the end of the block; processes started inside never receive it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _run(tasks: list[_ShardTask], executor: Executor | None, workers: int) -> Generator[int]:
    """Compute shards and yield the number of trajectories in each as it is finished."""
    if executor is None and (workers == 1 or len(tasks) <= 1):
        for task in tasks:
            yield _compute_shard(task)
        return
    own = executor is None
    pool: Executor = executor or ProcessPoolExecutor(
        min(workers, len(tasks)), multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    futures: list[Future[int]] = []
    try:
        # Workers start while tasks are submitted; until they are ready, Ctrl-C would print their tracebacks.
        with _interrupts_held_back():
            futures = [pool.submit(_compute_shard, task) for task in tasks]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise SciMLError(
            "a worker process died (killed, or out of memory): finished shards are kept; "
            "run the same command again, with fewer workers if memory is short"
        ) from error
    finally:
        for future in futures:
            future.cancel()
        if own:
            # Shards in hand are finished and kept.
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and die with it.

    A worker whose parent was killed would wait for its next task for ever: all workers hold both
    ends of the task queue, so that it never reports an end of file.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _compute_shard(task: _ShardTask) -> int:
    """Compute one shard and write it; return its number of trajectories."""
    for plugin in task.plugins:
        load_plugin(plugin)
    recipe: Recipe = pickle.loads(task.recipe)
    seeds = trajectory_seeds(task.seed, task.start, task.stop)
    started = time.process_time()
    with _one_thread:
        trajectories = recipe.sample_batch([int(seed) for seed in seeds])
    _check(recipe, seeds, trajectories)
    layout = recipe.layout()
    with atomic_hdf5(task.path) as writer:
        file = writer.file
        create_fields(file, layout, len(trajectories))
        write_trajectories(file, layout, 0, trajectories)
        checks = {name: np.array([t.checks[name] for t in trajectories]) for name in trajectories[0].checks}
        cpu_seconds = time.process_time() - started
        write_provenance(
            file, seeds, recipe.config(), checks, recipe.check_limits, recipe.equation, cpu_seconds
        )
    return len(trajectories)


def _check(recipe: Recipe, seeds: np.ndarray, trajectories: list[Trajectory]) -> None:
    """Refuse trajectories that are not finite as stored, or fail a check."""
    remedy = "change the recipe's parameters; finished shards are kept"
    for seed, trajectory in zip(seeds, trajectories, strict=True):
        for name, values in {**trajectory.fields, **trajectory.scalars}.items():
            with np.errstate(over="ignore"):
                finite = np.isfinite(np.asarray(values).astype(np.float32)).all()
            if not finite:
                raise ConvergenceError(f"{name!r} of the trajectory with seed {seed} is not finite: {remedy}")
        if set(trajectory.checks) != set(recipe.check_limits):
            raise DatasetFormatError(
                f"the trajectory with seed {seed} has checks {sorted(trajectory.checks)}, "
                f"the recipe declares limits for {sorted(recipe.check_limits)}: give both"
            )
        for name, limit in recipe.check_limits.items():
            if not trajectory.checks[name] <= limit:
                raise ConvergenceError(
                    f"check {name!r} of the trajectory with seed {seed} is {trajectory.checks[name]:.2e}, "
                    f"above its limit {limit:.2e}: {remedy}"
                )


def _merge(
    recipe: Recipe, config: dict[str, Any], parts: Path, bounds: list[tuple[int, int]], path: Path
) -> None:
    """Copy all shards into the final file, which is written among them and then moved."""
    layout = recipe.layout()
    checks: dict[str, list[np.ndarray]] = {name: [] for name in recipe.check_limits}
    seeds: list[np.ndarray] = []
    cpu_seconds = 0.0
    with atomic_hdf5(path, parts) as writer:
        file = writer.file
        create_fields(file, layout, config["n"])
        for start, stop in bounds:
            with _open_shard(_shard(parts, start)) as shard:
                for spec in layout.fields:
                    # Frame 0 of a steady problem stays unwritten, here as in the shard.
                    last = (-1,) if layout.steady and spec.time_varying else ()
                    target = file[f"t{spec.rank}_fields/{spec.name}"]
                    target[(slice(start, stop), *last)] = shard[spec.name][(slice(None), *last)]
                for name in layout.scalars:
                    file["scalars"][name][start:stop] = shard[name][()]
                for name in checks:
                    checks[name].append(shard.checks[name][0])
                assert shard.seeds is not None
                seeds.append(shard.seeds)
                cpu_seconds += float(shard.provenance["cpu_seconds"])
            writer.check()
        joined = {name: np.concatenate(values) for name, values in checks.items()}
        write_provenance(
            file, np.concatenate(seeds), config, joined, recipe.check_limits, recipe.equation, cpu_seconds
        )


def _open_shard(path: Path) -> FieldsDataset:
    try:
        return FieldsDataset(path)
    except DatasetFormatError as error:
        path.unlink(missing_ok=True)
        raise DatasetFormatError(
            f"{error}; the damaged shard is removed, run the same command again"
        ) from error
