"""Solutions as datasets."""

from pathlib import Path

import numpy as np

from sciml.files import refuse_existing
from sciml.solvers import Evolution, Solution
from sciml.solvers.functions import evaluate

from .atomic_hdf5 import atomic_hdf5
from .fields import create_fields, write_provenance, write_trajectories
from .recipe import FieldsLayout, FieldSpec, Trajectory

__all__ = ["save"]


def save(solution: Solution | Evolution, path: str | Path, overwrite: bool = False) -> None:
    """Store a solution, or one at several times, as a dataset of kind ``fields`` with one trajectory.

    Fields: source ``f``, ``mask`` and solution ``u``, the first and last 0 outside the domain. The
    source of an evolution is that at its first time, and ``u`` has a frame for every time.

    Parameters
    ----------
    solution : Solution or Evolution
    path : path
    overwrite : bool
        Replace an existing file; it survives until the new one is complete.

    Raises
    ------
    OutputExistsError
        If the file exists.
    StorageError
        If it cannot be written.

    Examples
    --------
    >>> from sciml.datasets import save
    >>> from sciml.solvers import CartesianGrid, Disk, Poisson, solve
    >>> save(solve(Poisson(Disk(), -1.0), CartesianGrid.uniform(32)), "torsion.h5")  # doctest: +SKIP
    """
    if not overwrite:
        refuse_existing(path)
    evolution = solution if isinstance(solution, Evolution) else None
    first = solution[0] if isinstance(solution, Evolution) else solution
    problem, grid, mask = solution.problem, solution.grid, first.mask
    source = np.zeros(grid.shape)
    source[mask] = evaluate(first.problem.source, grid.nodes()[mask], "source")
    layout = FieldsLayout(
        name=problem.name,
        grid=grid,
        fields=(
            FieldSpec("f", "source, 0 outside the domain", time_varying=False),
            FieldSpec("mask", "1 inside the domain, 0 outside", time_varying=False),
            FieldSpec("u", "solution, 0 outside the domain"),
        ),
        inputs=("f", "mask"),
        targets=("u",),
        mask="mask",
        boundary="OPEN",
        times=tuple(evolution.times.tolist()) if evolution else (0.0, 1.0),
        steady=evolution is None,
    )
    fields = {"f": source, "mask": mask.astype(float), "u": np.where(mask, solution.values, 0.0)}
    config = {
        "problem": problem.name,
        "domain": repr(problem.domain),
        "operator": repr(problem.operator),
        "source": repr(problem.source),
        "boundary": repr(problem.boundary),
        "info": solution.info,
    }
    finite = float(np.isfinite(solution.values[..., mask]).all())
    checks = {"not_finite": np.array([1.0 - finite])}
    limits = {"not_finite": 0.0}
    if evolution is None:
        checks, limits = (
            {"relative_residual": np.array([solution.info["residual"]])},
            {"relative_residual": 1e-9},
        )
    with atomic_hdf5(path) as writer:
        file = writer.file
        create_fields(file, layout, 1)
        write_trajectories(file, layout, 0, [Trajectory(fields)])
        write_provenance(
            file,
            np.zeros(1, dtype=np.int64),
            config,
            checks,
            limits,
            ("u_t = L u + ..., L = " if evolution else "L u = f, L = ") + repr(problem.operator),
            solution.info["cpu_seconds"],
        )
