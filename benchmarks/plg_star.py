"""PLG on the six-petal star: errors beside the reference values, and where the time goes."""

import time

import numpy as np
from _results import record

from sciml.solvers import PLG, CartesianGrid, Star, problem_registry, solve
from sciml.solvers.plg.lattice import canonical_search

GRIDS = (40, 80, 160, 320)
# Errors of an independent prototype of the same scheme (n = 4, rho = 1), L2 at each grid.
REFERENCE = {1.0: (1.7e-7, 4.5e-9, 1.3e-10, 5.0e-12), 3.0: (None, 5.8e-10, 1.9e-11, 6.4e-13)}


def main() -> None:
    rows: list[list[object]] = []
    for power, reference in REFERENCE.items():
        method = PLG(degree=4, weight_power=power)
        errors = []
        for n, expected in zip(GRIDS, reference, strict=True):
            grid = CartesianGrid.uniform(n)
            setups = []
            for _ in range(5):
                # A new domain and no lattices: nothing may be left over from the last run.
                canonical_search.cache_clear()
                fresh = problem_registry["poisson"](Star())
                started = time.process_time()
                method.discretise(fresh, grid)
                setups.append(time.process_time() - started)
            canonical_search.cache_clear()
            solution = solve(problem_registry["poisson"](Star()), grid, method)
            error = solution.errors()
            errors.append(error["l2"])
            ratio = f"{error['l2'] / expected:.2f}" if expected else ""
            rows.append(
                [
                    f"p = {power:g}",
                    n,
                    solution.info["unknowns"],
                    f"{error['linf']:.2e}",
                    f"{error['l2']:.2e}",
                    ratio,
                    f"{sorted(setups)[2]:.3f}",
                    f"{solution.info['cpu_seconds']:.3f}",
                ]
            )
        rate = -np.polyfit(np.log(GRIDS), np.log(errors), 1)[0]
        rows.append([f"p = {power:g}", "fit", "", "", f"order {rate:.2f}", "", "", ""])
    record(
        "plg_star",
        "PLG on the six-petal star, degree 4, Dirichlet",
        [
            "weights",
            "N",
            "unknowns",
            "max error",
            "L2 error",
            "L2 / reference",
            "set-up CPU s",
            "set-up + solve CPU s",
        ],
        rows,
        "Set-up is geometry, search, fits and assembly together, from a domain that nothing is known of; median of 5.",
    )


if __name__ == "__main__":
    main()
