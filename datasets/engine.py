"""The generation engine: many trajectories into one dataset, without losing work.

The trajectories are divided into shards of fixed size. Each shard is computed by one task, written
to a temporary name, flushed and renamed, so that a kill at any moment costs at most the shards in
hand. When all are there they are merged into the final file, or the files of a folder, which appears
whole or not at all. What a trajectory holds depends on the recipe, the seed and its index only: any
executor, any number of workers, any size of shard and any number of interruptions give the same
datasets.
"""

import contextlib
import inspect
import os
import pickle
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from tqdm import tqdm

from sciml.errors import ConfigError, DatasetFormatError, OutputExistsError, SciMLError
from sciml.files import locked, read_json, recover_folder, refuse_existing, write_json
from sciml.provenance import first_difference, git_commit, package_versions
from sciml.registry import plugin_digest

from .journal import Journal
from .pools import run
from .publication import publish_file, publish_folder, published_config, refuse_strangers, split_counts
from .recipe import Recipe
from .resources import refuse_many_steps, refuse_small_disk, refuse_small_memory
from .shards import Shard, ShardTask, block_size, compute_shard

__all__ = ["generate"]

PLAN_VERSION = 3
OWN_NAMES = ("plan.json", "journal.jsonl")
OWN_PATTERNS = ("shard-*.h5", ".*.tmp")
NAME_BYTES = 200
"""File systems allow 255; the rest is for the additions to names of temporary files."""


def generate(
    recipe: Recipe,
    n: int,
    path: str | Path,
    *,
    seed: int = 0,
    executor: Executor | None = None,
    workers: int = 1,
    shard_size: int | None = None,
    device: str = "cpu",
    split: Sequence[float] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    mix_commits: bool = False,
    plugins: Sequence[str] = (),
    progress: bool = True,
) -> Path:
    """Generate ``n`` trajectories into one HDF5 file, or a folder of three.

    An unfinished generation of the same plan (left in ``<path>.parts``) is always taken up again; its
    ``journal.jsonl`` tells what became of every trajectory. A trajectory that is not finite or fails a
    check is rejected and replaced by one of another seed; the rejected seeds are stored.

    Parameters
    ----------
    recipe : Recipe
    n : int
        Trajectories.
    path : path
        Of the final file or folder.
    seed : int
        Of the dataset; every trajectory's own seed is derived from it and stored.
    executor : concurrent.futures.Executor, optional
        Where shards are computed (a Dask client's ``get_executor()``, an ``MPIPoolExecutor``, ...).
        Its workers must see the same file system. By default local processes.
    workers : int
        Local processes if no executor is given; 1 computes in this process.
    shard_size : int, optional
        Trajectories per shard; by default that of the unfinished work, or at most 32 and 64 MB.
    device : str
        Where recipes that can are computed. Elsewhere than on the CPU the data agree to round-off.
    split : (float, float, float), optional
        Fractions of training, validation and test. ``path`` is then a folder in The Well's layout
        (`sciml.datasets.publication`).
    resume : bool
        Accept a finished dataset of the same plan and leave it as it is.
    overwrite : bool
        Replace a finished dataset, and discard unfinished work of another plan. The old one survives
        until the new one is complete.
    mix_commits : bool
        Finish unfinished work that another commit of sciml began. The file names both, and is verified
        to a tolerance, not bit for bit.
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
        If the dataset exists, or unfinished work of another plan or another commit does.
    ConvergenceError
        If a trajectory and five replacements are rejected; the message names the last seed.
    DatasetFormatError
        If a shard proves damaged when it is merged (it is removed: run again), or a trajectory does not
        fit its layout.
    StorageError
        If the disk has too little space (nothing is then written), is full or cannot be written.
    SciMLError
        If the executor fails, or worker processes die three times in a row. Finished shards are kept
        whatever happens.
    ConfigError
        If ``recipe`` is no recipe object or ``executor`` no executor, ``n``, ``workers`` or ``shard_size``
        is not an integer of at least 1, ``seed`` not one of at least 0, ``split`` is not three fractions, a
        plug-in is missing or was edited after a process loaded it, ``path`` cannot be the name of a file
        (with ``split``, of a folder), the recipe does not run on the device, or the memory or the number of
        steps that it needs is too large (`sciml.datasets.resources`; the memory of an executor's workers or
        of a device is not known).

    Examples
    --------
    >>> from sciml.datasets import generate
    >>> from sciml.datasets.recipes import DarcyRecipe
    >>> generate(DarcyRecipe(resolution=43), 100, "darcy.h5", workers=2)  # doctest: +SKIP
    PosixPath('darcy.h5')
    """
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"recipe={recipe!r}: give a recipe object such as BurgersRecipe()")
    try:
        blob = pickle.dumps(recipe)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"recipe={type(recipe).__name__}: it cannot be sent to a worker ({error}); define its class at the top "
            "level of a module, with parameters that can be pickled"
        ) from error
    # A Dask client has the method, too, but its futures are of another kind.
    if executor is not None and (not hasattr(executor, "submit") or hasattr(executor, "get_executor")):
        raise ConfigError(
            f"executor={executor!r}: give a concurrent.futures.Executor, of a Dask client its get_executor()"
        )
    integers = {"n": n, "seed": seed, "workers": workers}
    if shard_size is not None:
        integers["shard_size"] = shard_size
    for name, value in integers.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ConfigError(f"{name}={value!r}: it must be an integer")
        if name != "seed" and value < 1:
            raise ConfigError(f"{name}={value}: it must be at least 1")
    if seed < 0:
        raise ConfigError(f"seed={seed}: it must not be negative")
    if "\0" in str(path):
        raise ConfigError(f"path={str(path)!r} contains a null character: choose another path")
    if device != "cpu" and "device" not in inspect.signature(recipe.sample_batch).parameters:
        raise ConfigError(f"device={device!r}: this recipe runs on the CPU only")
    if split is not None:
        split_counts(n, split)
    if str(path).endswith(("/", os.sep)) and split is None:
        raise ConfigError(f"path={str(path)!r} is a folder: give the name of a file, or a split")
    if split is not None and Path(path).suffix.lower() in (".h5", ".hdf5"):
        raise ConfigError(
            f"path={str(path)!r}: a split makes a folder, give it a name that does not end in {Path(path).suffix}"
        )
    missing = [str(plugin) for plugin in plugins if not Path(plugin).is_file()]
    if missing:
        raise ConfigError(f"plugins={missing}: no such file; give the paths of Python files")
    # A link stays one: the file that it names is written.
    path, n, seed = Path(os.path.realpath(path)), int(n), int(seed)
    if not path.name:
        raise ConfigError(f"path={str(path)!r} is a folder: give the name of a file")
    if len(os.fsencode(path.name)) > NAME_BYTES:
        raise ConfigError(
            f"path={str(path)!r}: its name is longer than {NAME_BYTES} bytes, choose a shorter one"
        )
    layout = recipe.layout()
    config = {**recipe.config(), "n": n, "seed": seed}
    if split is not None:
        config["split"] = [float(share) for share in split]
    plan = {
        "plan_version": PLAN_VERSION,
        **config,
        "shard_size": int(shard_size or block_size(layout, device)),
        "device": device,
        "plugins": {Path(p).name: plugin_digest(p) for p in plugins},
        "environment": package_versions(),
    }
    with locked(path):
        parts = path.with_name(path.name + ".parts")
        recover_folder(path)
        old = _owned_plan(parts)[0]
        if shard_size is None and old == {**plan, "shard_size": (old or {}).get("shard_size")}:
            plan = old
        size = plan["shard_size"]
        if split is None and path.is_dir():
            raise ConfigError(f"path={str(path)!r} is a folder: give the name of a file")
        if split is not None and path.is_file():
            raise OutputExistsError(f"output {str(path)!r} is a file: with split, give a folder")
        if _is_there(path):
            if not overwrite:
                _accept(path, parts, config, plan, resume)
                return path
            if split is not None:
                refuse_strangers(path)
        shards = [
            Shard(start, min(start + size, n), parts / f"shard-{start:08d}.h5") for start in range(0, n, size)
        ]
        to_do = sum(old != plan or not shard.path.exists() for shard in shards)
        if to_do:
            refuse_many_steps(recipe)
            if executor is None and device == "cpu":
                block = min(n, size, block_size(layout))
                refuse_small_memory(recipe, layout, block, min(workers, to_do))
        refuse_small_disk(path, parts, layout, n)
        _prepare(parts, plan, overwrite, mix_commits)
        for shard in shards:
            if shard.path.exists():
                # One that is damaged, or of another dataset, is removed, and made again like any missing.
                with contextlib.suppress(DatasetFormatError):
                    shard.record(config)
        files = tuple((str(Path(p).resolve()), plan["plugins"][Path(p).name]) for p in plugins)
        tasks = [
            ShardTask(blob, files, seed, device, shard.start, shard.stop, str(shard.path))
            for shard in shards
            if not shard.path.exists()
        ]
        try:
            _compute(tasks, shards, parts, executor, workers, f"generate {path.name}", progress)
        except Exception as error:
            finished = sum(shard.path.exists() for shard in shards)
            if not finished:
                # Nothing to go on with; another attempt, with other settings, should find nothing in its way.
                _discard(parts)
            elif isinstance(error, SciMLError):
                error.args = (f"{error}; finished shards are kept ({finished} of {len(shards)})",)
            raise
        if split is None:
            publish_file(recipe, config, shards, path, parts)
        else:
            publish_folder(recipe, config, shards, path, split)
        _discard(parts)
    return path


def _compute(
    tasks: Sequence[ShardTask],
    shards: Sequence[Shard],
    parts: Path,
    executor: Executor | None,
    workers: int,
    label: str,
    progress: bool,
) -> None:
    """Compute the shards that are missing, and keep the journal."""
    journal = Journal(parts / "journal.jsonl")
    # Killed between a shard and its lines, or a line was torn.
    _catch_up(journal, shards)
    n = shards[-1].stop
    done = n - sum(task.stop - task.start for task in tasks)
    with (
        tqdm(
            total=n, initial=done, desc=label, unit="traj", smoothing=0.1, disable=None if progress else True
        ) as bar,
        contextlib.closing(run(compute_shard, tasks, executor, workers)) as finished,
        _interrupts_kept() as raise_lost_interrupt,
    ):
        try:
            for entries in finished:
                raise_lost_interrupt()
                journal.append(entries)
                bar.set_postfix_str(
                    f"{journal.rejected} rejected, {journal.cpu_seconds:.2g} CPU s each", refresh=False
                )
                bar.update(sum(entry["status"] == "done" for entry in entries))
        except KeyboardInterrupt:
            # Tasks in hand are finished first.
            finished.close()
            _catch_up(journal, shards)
            raise


@contextlib.contextmanager
def _interrupts_kept() -> Iterator[Callable[[], None]]:
    """Yield a function that raises a Ctrl-C which came in a destructor, where Python drops exceptions."""
    handler = signal.getsignal(signal.SIGINT)
    received = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = True
        handler(number, frame)  # type: ignore[misc, operator]

    def raise_lost() -> None:
        if received:
            raise KeyboardInterrupt

    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield raise_lost
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield raise_lost
    finally:
        signal.signal(signal.SIGINT, handler)


def _catch_up(journal: Journal, shards: Sequence[Shard]) -> None:
    """Journal finished shards that it does not know."""
    for shard in shards:
        if shard.path.exists() and not all(map(journal.knows, range(shard.start, shard.stop))):
            journal.append(shard.entries())


def _is_there(path: Path) -> bool:
    """Whether there is a file or a folder that is not empty."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _accept(path: Path, parts: Path, config: dict[str, Any], plan: dict[str, Any], resume: bool) -> None:
    """Return if a finished dataset may stay as it is."""
    same_plan = _owned_plan(parts)[0] == plan
    if not (resume or same_plan):
        refuse_existing(path, "pass --resume to keep it if it is complete, --overwrite to replace it")
    found = published_config(path)
    if found != config:
        raise OutputExistsError(
            f"output {str(path)!r} holds another dataset ({first_difference(found, config)}): "
            "choose another path, or pass --overwrite"
        )
    if same_plan:
        # Killed after the file was published, before its shards were removed.
        _discard(parts)


def _owned_plan(parts: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the plan of a folder of shards, None if it holds none, and the commits that worked on it."""
    if not (parts / "plan.json").is_file():
        return None, []
    plan = read_json(parts / "plan.json")
    return plan, plan.pop("commits", [])


def _is_ours(file: Path) -> bool:
    """Whether a file in a folder of shards was written by the engine; a kill can leave any of them alone."""
    return file.name in OWN_NAMES or any(map(file.match, OWN_PATTERNS))


def _discard(parts: Path) -> None:
    """Remove a folder of shards, its plan last: killed on the way, the same command still knows it."""
    for file in parts.iterdir():
        if file.is_file() and file.name != "plan.json" and _is_ours(file):
            file.unlink()
    shutil.rmtree(parts)


def _prepare(parts: Path, plan: dict[str, Any], overwrite: bool, mix_commits: bool) -> None:
    """Make the folder of shards, or accept it if it belongs to the same plan and commit."""
    (old, commits), commit = _owned_plan(parts), git_commit()
    if old == plan and (mix_commits or commit in commits):
        if commit not in commits:
            write_json(parts / "plan.json", {**plan, "commits": [*commits, commit]})
        return
    if old is not None and not overwrite:
        if old == plan:
            raise OutputExistsError(
                f"{str(parts)!r} holds an unfinished generation of commit {', '.join(commits)}, now {commit}: "
                "check that one out, pass --mix-commits to finish it with this one (the file names both), or "
                "--overwrite to discard it"
            )
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
    write_json(parts / "plan.json", {**plan, "commits": [commit]})
