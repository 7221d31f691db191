"""Datasets of samples that other programs made."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .atomic_hdf5 import atomic_hdf5
from .kinds import create, write
from .recipe import Layout, Trajectory
from .record import Record
from .rows import checksums, not_finite
from .well import identity

__all__ = ["write_imported"]


def write_imported(
    output: str | Path, layout: Layout, samples: Iterable[Trajectory], n: int, sources: list[Path], note: str
) -> Path:
    """Write ``n`` samples as a dataset, whole or not at all.

    Parameters
    ----------
    output : path
        HDF5 file.
    layout : Layout
    samples : iterable of Trajectory
    n : int
    sources : list of path
        Files that they come from, whose names, sizes and SHA-256 are stored.
    note : str
        What they are, in place of an equation.
    """
    with atomic_hdf5(output) as writer:
        create(writer.file, layout, n)
        for row, sample in enumerate(samples):
            write(writer.file, layout, row, [sample])
            writer.check()
        Record(
            {"imported_from": {path.name: identity(path) for path in sources}},
            np.full(n, -1),
            {"not_finite": not_finite(writer.file)},
            {"not_finite": 0.0},
            note,
            0.0,
            checksums(writer.file),
        ).write(writer.file)
    return Path(output)
