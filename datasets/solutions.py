"""Solutions as datasets."""

import re
from pathlib import Path

import numpy as np

from sciml.files import refuse_existing
from sciml.solvers import Evolution, ParabolicProblem, Solution, WaveProblem
from sciml.solvers.functions import evaluate

from .atomic_hdf5 import atomic_hdf5
from .kinds import create, write
from .recipe import FieldsLayout, FieldSpec, Trajectory
from .record import Record
from .rows import checksums as row_checksums

__all__ = ["save"]


def save(solution: Solution | Evolution, path: str | Path, overwrite: bool = False) -> None:
    """Store a solution, or one at several times, as a dataset of kind ``fields`` with one trajectory.

    Fields: source ``f``, ``mask`` and solution ``u``, the first and last 0 outside the domain. The
    source of an evolution is that at its first time, and ``u`` has a frame for every time. Fields are
    float32, as the format has them: a solution of more digits keeps seven.

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
    terms = (
        "domain",
        "operator",
        "source",
        "boundary",
        "velocity",
        "reaction",
        "initial",
        "initial_velocity",
    )
    stated = {name: _text(getattr(problem, name)) for name in terms if hasattr(problem, name)}
    config = {"problem": problem.name, **stated, "info": solution.info}
    more = "".join(
        f", {name} = {stated[name]}"
        for name in ("velocity", "reaction")
        if stated.get(name, "()") not in ("()", "None")
    )
    finite = float(np.isfinite(solution.values[..., mask]).all())
    checks = {"not_finite": np.array([1.0 - finite])}
    limits = {"not_finite": 0.0}
    if "residual" in solution.info:
        checks, limits = (
            {"relative_residual": np.array([solution.info["residual"]])},
            {"relative_residual": 1e-9},
        )
    with atomic_hdf5(path) as writer:
        file = writer.file
        create(file, layout, 1)
        write(file, layout, 0, [Trajectory(fields)])
        equation = _equation(problem) + f" = f, L = {stated['operator']}" + more
        Record(
            config,
            np.zeros(1, dtype=np.int64),
            checks,
            limits,
            equation,
            solution.info["cpu_seconds"],
            row_checksums(file),
        ).write(file)


def _text(value: object) -> str:
    """Describe data; a function without a name of its own by what Python calls it, not by its address."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _equation(problem: object) -> str:
    if isinstance(problem, WaveProblem):
        return "u_tt - L u"
    if isinstance(problem, ParabolicProblem):
        return "u_t + velocity . grad u - L u - reaction(u)"
    return "L u + reaction(u)" if getattr(problem, "reaction", None) else "L u"
