"""The five-point Darcy solve beside sparse direct solvers, and what `generate` makes of it."""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from _results import alternate, record
from scipy.sparse.linalg import splu, spsolve

from sciml.datasets import generate
from sciml.datasets.recipes import DarcyRecipe
from sciml.solvers import CartesianGrid
from sciml.solvers.five_point import FivePoint

TOLERANCES = (1e-8, 1e-11)
SAMPLES, WORKERS = 400, 2


def solves() -> list[list[object]]:
    rows: list[list[object]] = []
    for n in (85, 211, 421):
        grid = CartesianGrid.uniform(n - 1, (0.0, 0.0), (1.0, 1.0))
        ones = np.ones(grid.shape)
        for medium in ("binary", "smooth") if n == 421 else ("binary",):
            a = DarcyRecipe(medium=medium).coefficient(1, grid.axes)  # type: ignore[arg-type]
            matrix, rhs = FivePoint(a, grid).matrix().tocsc(), np.ones((n - 2) ** 2)
            lu = {"permc_spec": "MMD_AT_PLUS_A", "options": {"SymmetricMode": True}, "diag_pivot_thresh": 0.0}
            seconds = alternate(
                {
                    **{
                        f"{tolerance}": lambda a=a, grid=grid, ones=ones, tolerance=tolerance: FivePoint(
                            a, grid
                        ).solve(ones, tolerance)
                        for tolerance in TOLERANCES
                    },
                    "spsolve": lambda matrix=matrix, rhs=rhs: spsolve(matrix, rhs),
                    "splu": lambda matrix=matrix, rhs=rhs, lu=lu: splu(matrix, **lu).solve(rhs),
                },
                repeats=5,
            )
            for tolerance in TOLERANCES:
                ours = seconds[f"{tolerance}"]
                rows.append(
                    [
                        f"{n} x {n}",
                        medium,
                        f"{tolerance:.0e}",
                        f"{ours:.4f}",
                        f"{seconds['spsolve']:.4f}",
                        f"{seconds['splu']:.4f}",
                        f"{seconds['spsolve'] / ours:.1f}",
                        f"{seconds['splu'] / ours:.1f}",
                        f"{FivePoint(a, grid).solve(ones, tolerance)[1]:.1e}",
                    ]
                )
    return rows


def generated() -> str:
    """Samples a second at the benchmark's 421 nodes, verification and the start of the workers included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    before, started = usage.ru_utime + usage.ru_stime, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        generate(DarcyRecipe(resolution=85, refine=5), SAMPLES, Path(folder) / "darcy.h5", workers=WORKERS)
    wall, usage = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime - before
    return (
        f"`generate` darcy, resolution 85, refine 5 (421 x 421), {SAMPLES} samples on {WORKERS} workers, their "
        f"start and verification included: {SAMPLES / wall:.1f} samples a second, {cpu / SAMPLES:.3f} CPU s each."
    )


def main() -> None:
    record(
        "darcy_solver",
        "One Darcy solve, coefficient 12 or 3, or lognormal",
        [
            "grid",
            "medium",
            "tolerance",
            "ours CPU s",
            "spsolve CPU s",
            "splu (MMD) CPU s",
            "spsolve / ours",
            "splu / ours",
            "our residual",
        ],
        solves(),
        "Matrix assembly is not counted for the direct solvers; our time includes everything but the coefficient. "
        + generated(),
    )


if __name__ == "__main__":
    main()
