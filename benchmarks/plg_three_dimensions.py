"""PLG in three dimensions: errors and fitted orders on a ball, a torus and a level set."""

import os

# Before numpy is imported: process_time adds up the threads, so that idle helpers would count.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
from _results import record

from sciml.solvers import (
    Ball,
    BoundaryCondition,
    CartesianGrid,
    Dirichlet,
    Domain,
    LevelSet,
    Neumann,
    Torus,
    manufactured,
    solve,
)
from sciml.solvers.plg.lattice import canonical_search

SMOOTH = "exp(x)*sin(2*y)*cos(z) + sin(3*x*y + 0.3 + z)"
GRIDS = (24, 34, 48, 68, 96)
DOMAINS: dict[str, Domain] = {
    "ball": Ball(),
    "torus": Torus(0.28, 0.15),
    "six lobes": LevelSet(
        "sqrt(x**2 + y**2 + z**2) - 0.21 - 0.15*(x**4 + y**4 + z**4)/(x**2 + y**2 + z**2 + 1e-12)**2",
        (-0.45,) * 3,
        (0.45,) * 3,
    ),
}
CONDITIONS: dict[str, BoundaryCondition] = {"Dirichlet": Dirichlet(), "Neumann": Neumann()}


def main() -> None:
    rows: list[list[object]] = []
    for shape, domain in DOMAINS.items():
        for name, condition in CONDITIONS.items():
            problem = manufactured(SMOOTH, domain, boundary=condition)
            grids = [CartesianGrid.uniform(n, (-0.5,) * 3, (0.5,) * 3) for n in GRIDS]
            # The fastest solver differs from grid to grid; iterations are compared along one.
            solutions = []
            for grid in grids:
                canonical_search.cache_clear()  # lattices of the last run would be found for nothing
                solutions.append(solve(problem, grid, solver="krylov"))
            errors = [solution.errors()["l2"] for solution in solutions]
            rows.append(
                [
                    shape,
                    name,
                    f"{solutions[-1].info['unknowns']:,}",
                    ", ".join(f"{error:.1e}" for error in errors),
                    f"{-np.polyfit(np.log(GRIDS), np.log(errors), 1)[0]:.2f}",
                    ", ".join(str(solution.info["iterations"]) for solution in solutions),
                    ", ".join(f"{solution.info['cpu_seconds']:.1f}" for solution in solutions),
                ]
            )
    record(
        "plg_three_dimensions",
        f"PLG in three dimensions, degree 4, N = {', '.join(map(str, GRIDS))}",
        ["domain", "data", "unknowns, last N", "L2 errors", "order", "iterations", "CPU s"],
        rows,
        "Order fitted over all five grids. Pure Neumann errors are up to a constant. GMRES to an estimated "
        "relative error of 1e-13; CPU seconds of set-up and solve. The cube has side 1.",
    )


if __name__ == "__main__":
    main()
