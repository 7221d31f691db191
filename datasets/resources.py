"""What a generation will take, and what there is: refused before the start rather than killed by the kernel."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sciml.errors import ConfigError, StorageError

from .kinds import bytes_per_trajectory
from .recipe import Layout, Recipe
from .verification import is_verified

__all__ = ["available_memory", "refuse_many_steps", "refuse_small_disk", "refuse_small_memory"]

MOST_STEPS = 1e8
"""Of one trajectory: hours of the fastest recipes, and beyond any time step that is of use."""


V1_NAMES = "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")
V2_NAMES = "memory.max", "memory.current", ("inactive_file", "active_file")
"""Of a control group's limit, its use, and what of it is files in the cache."""


def refuse_many_steps(recipe: Recipe) -> None:
    """Refuse steps so small that a trajectory would take for ever.

    Raises
    ------
    ConfigError
        If a trajectory takes more than 1e8 steps.

    Examples
    --------
    >>> from sciml.datasets import recipe_registry
    >>> refuse_many_steps(recipe_registry["lorenz"](step=1e-3))
    """
    steps = recipe.steps()
    if not steps <= MOST_STEPS:
        settings = _settings(recipe, ("step", "substeps", "final_time", "frames"))
        raise ConfigError(
            f"{settings}: a trajectory would take {steps:.1e} steps, at most {MOST_STEPS:.0e} are accepted; "
            "take longer steps or a shorter time"
        )


def refuse_small_memory(recipe: Recipe, layout: Layout, block: int, workers: int) -> None:
    """Refuse what does not fit into memory, as far as the recipe can tell.

    Parameters
    ----------
    recipe : Recipe
    layout : Layout
        Of the recipe.
    block : int
        Trajectories that a worker computes at once.
    workers : int
        Processes on this machine.

    Raises
    ------
    ConfigError
        If the estimate, good to a factor of 3 or so, exceeds the memory that is available.
    """
    work = recipe.working_memory(block)
    # A recipe at the end of its range cannot be refined; the message should be about what was asked for.
    with contextlib.suppress(ConfigError):
        fine = recipe.refined()
        if fine is not None:
            work = max(work, fine.working_memory(sum(map(is_verified, range(block)))))
    # Fields as computed, as stacked, and as stored.
    needed = workers * (work + 3 * block * bytes_per_trajectory(layout))
    available = available_memory()
    if needed > available:
        sizes, steps = ("resolution", "refine", "frames", "modes"), ("step",)
        parameters = recipe.config()["parameters"]
        smaller = [name for name in sizes if name in parameters]
        remedies = ["a smaller " + ", ".join(smaller)] if smaller else []
        remedies += ["a larger step"] if "step" in parameters else []
        remedies += ["fewer workers"] if workers > 1 else []
        raise ConfigError(
            f"{_settings(recipe, sizes + steps)}: {workers} worker{'s' if workers > 1 else ''} would need about "
            f"{_size(needed)} of memory, {_size(available)} are available; "
            f"choose {' or '.join(remedies) or 'a smaller problem'}"
        )


def refuse_small_disk(path: Path, parts: Path, layout: Layout, n: int) -> None:
    """Refuse to begin what cannot end: shards and the final dataset are there at the same time.

    Raises
    ------
    StorageError
        If the disk has too little space.
    """
    there = sum(shard.stat().st_size for shard in parts.glob("shard-*.h5"))
    needed = 2 * n * bytes_per_trajectory(layout) - there
    folder = next(parent for parent in path.parents if parent.exists())
    usage = shutil.disk_usage(folder)
    # Some file systems do not tell, and give zeros.
    if usage.total and needed > usage.free:
        raise StorageError(
            f"cannot write {str(path)!r}: shards and the final data need {_size(needed)} more, "
            f"{_size(usage.free)} are free in {str(folder)!r}; free some space, choose another disk "
            "or fewer trajectories"
        )


def available_memory() -> float:
    """Return the bytes that processes can still take, inf where the system does not tell.

    The smallest of what the machine has left and what control groups (containers, Slurm) allow.

    Examples
    --------
    >>> available_memory() > 0
    True
    """
    amounts = [float("inf"), *_group_limits()]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        amounts += [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        with contextlib.suppress(AttributeError, ValueError, OSError):
            amounts.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    return min(amounts)


def _group_limits() -> Iterator[float]:
    """What this process's control groups, versions 1 and 2, and those above them still allow."""
    groups = Path("/proc/self/cgroup")
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        names = V1_NAMES if controllers else V2_NAMES
        # Controllers mounted together have a link for each. A container may see its own group as the root.
        root = Path("/sys/fs/cgroup", "memory" if controllers else "")
        own = root / group.lstrip("/")
        for folder in (own, *own.parents):
            yield _group_room(folder, *names)
            if folder == root:
                break


def _group_room(folder: Path, limit: str, use: str, cached: tuple[str, ...]) -> float:
    """Bytes that a control group may still take; files in the cache make room when it is needed."""
    try:
        room = float((folder / limit).read_text())
    except (OSError, ValueError):
        # The group has no such file, or "max" in it.
        return float("inf")
    used = 0.0
    with contextlib.suppress(OSError, ValueError):
        used = float((folder / use).read_text())
    with contextlib.suppress(OSError, ValueError):
        entries = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        used -= sum(float(entries.get(name, 0)) for name in cached)
    return max(0.0, room - max(0.0, used))


def _size(amount: float) -> str:
    """Return bytes in the unit that suits, for a message."""
    units = {"TB": 1e12, "GB": 1e9, "MB": 1e6}
    unit = next((unit for unit, scale in units.items() if amount >= 0.1 * scale), "kB")
    return f"{amount / units.get(unit, 1e3):.1f} {unit}"


def _settings(recipe: Recipe, names: tuple[str, ...]) -> str:
    """Return the recipe and those of its parameters that decide, for a message."""
    config = recipe.config()
    given = [f"{name}={config['parameters'][name]}" for name in names if name in config["parameters"]]
    return " ".join([config["recipe"], ", ".join(given)]).strip()
