"""Random windows of frames per second, beside The Well's own loader on the same file.

Wall and CPU seconds (of this process and its workers) of a pass over shuffled windows; ours, ours in
memory and The Well's alternate, medians are reported.
"""

import os
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from _results import record
from torch.utils.data import DataLoader, Dataset, RandomSampler

from sciml.datasets import FieldsLayout, FieldSpec, Trajectory
from sciml.datasets.kinds import create, write
from sciml.datasets.record import Record
from sciml.datasets.windows import Windows
from sciml.solvers import CartesianGrid

TRAJECTORIES, FRAMES, NODES, BATCH, SAMPLES, REPEATS = 40, 50, 64, 16, 1280, 5


def make(path: Path) -> None:
    """Smooth random fields: what they hold does not matter, nothing is compressed."""
    grid = CartesianGrid.uniform(NODES, (0.0, 0.0), (1.0, 1.0), periodic=True)
    layout = FieldsLayout(
        "windows", grid, (FieldSpec("u", "any"),), times=tuple(np.arange(FRAMES)), steady=False
    )
    rng = np.random.default_rng(0)
    with h5py.File(path, "w", libver="v110") as file:
        create(file, layout, TRAJECTORIES)
        for i in range(TRAJECTORIES):
            write(file, layout, i, [Trajectory({"u": rng.normal(size=(FRAMES, *grid.shape))})])
        Record({}, np.arange(TRAJECTORIES)).write(file)


def loader(dataset: Dataset, workers: int) -> DataLoader:
    sampler = RandomSampler(dataset, num_samples=SAMPLES)  # type: ignore[arg-type]
    return DataLoader(
        dataset, batch_size=BATCH, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )


def worker_seconds(batches: DataLoader) -> float:
    """CPU seconds so far of the worker processes, from the system's accounts."""
    ticks = 0
    for worker in getattr(batches._iterator, "_workers", ()):
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(batches: DataLoader) -> tuple[float, float]:
    wall, cpu, children = time.perf_counter(), time.process_time(), worker_seconds(batches)
    for _ in batches:
        pass
    return (
        time.perf_counter() - wall,
        time.process_time() - cpu + worker_seconds(batches) - children,
    )


def main() -> None:
    from the_well.data import WellDataset

    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "windows.h5")
        for workers in (2, 0):
            for n_in in (4, 10):
                candidates = {
                    "ours": Windows(Path(folder) / "windows.h5", n_in),
                    "ours, in memory": Windows(Path(folder) / "windows.h5", n_in, in_memory=True),
                    "The Well": WellDataset(path=folder, n_steps_input=n_in, n_steps_output=1),
                }
                batches = {name: loader(dataset, workers) for name, dataset in candidates.items()}
                seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in batches}
                for one in batches.values():
                    measure(one)
                for _ in range(REPEATS):
                    for name, one in batches.items():
                        seconds[name].append(measure(one))
                median = {name: np.median(values, axis=0) for name, values in seconds.items()}
                for name, (wall, cpu) in median.items():
                    peer = median["The Well"]
                    rows.append(
                        [
                            workers,
                            f"{n_in} + 1",
                            name,
                            f"{SAMPLES / wall:.0f}",
                            f"{peer[0] / wall:.1f}",
                            f"{1e3 * cpu / SAMPLES:.3f}",
                            f"{peer[1] / cpu:.1f}",
                        ]
                    )
                del batches
    record(
        "window_reads",
        f"Random windows of {TRAJECTORIES} trajectories of {FRAMES} frames of {NODES} x {NODES} float32",
        ["workers", "frames", "loader", "windows/s", "ratio, wall", "CPU ms/window", "ratio, CPU"],
        rows,
        f"Median of {REPEATS} alternating passes over {SAMPLES} windows in batches of {BATCH}; the file is "
        "in the page cache. Ratios are The Well's time divided by ours.",
    )


if __name__ == "__main__":
    main()
