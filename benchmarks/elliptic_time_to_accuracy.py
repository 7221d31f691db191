"""CPU seconds to a given L2 error: PLG beside finite elements (scikit-fem) on fitted curved triangles."""

import os

# Before numpy is imported: process_time adds up the threads, so that idle helpers would count.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from _fem import Macro, assemble, direct, l2_error, macro_mesh, multigrid, subdivide
from _results import record

from sciml.solvers import PLG, CartesianGrid, Disk, EllipticProblem, Star, manufactured, solve
from sciml.solvers.plg.lattice import canonical_search

SMOOTH = "exp(x)*sin(2*y) + sin(3*x*y + 0.3)"
TARGETS = (1e-6, 1e-9)
SHORT = 2.0  # seconds: runs below are repeated
REPEATS = 3
PLG_GRIDS = {4: (16, 20, 24, 28, 34, 40, 57, 80, 113, 160, 226), 6: (12, 16, 20, 24, 28, 34, 40, 57, 80, 113)}
PICTURE = Path(__file__).parent.parent / "docs" / "time_to_accuracy.png"


@dataclass(frozen=True)
class Case:
    """A domain, the macro mesh that serves P4 best on it, and divisions n per degree."""

    domain: type[Disk] | type[Star]
    macro: dict[str, float]
    divisions: dict[int, tuple[int, ...]]


# From a scan of 90 combinations of spacing, bend, growth and clearance: within a tenth of the fewest P4
# unknowns per accuracy, and no folded triangle for any of six random seeds.
CASES = {
    "star": Case(
        Star,
        {"spacing": 0.04, "growth": 0.7},
        {1: (2, 4, 8, 16, 32), 2: (1, 2, 4, 8, 16), 4: (1, 2, 3, 4, 6)},
    ),
    "disk": Case(
        Disk,
        {"spacing": 0.2},
        {1: (4, 8, 16, 32, 64, 96), 2: (2, 4, 8, 16, 32, 64), 4: (1, 2, 3, 4, 6, 9)},
    ),
}


@dataclass
class Run:
    """One method at one resolution; ``run`` returns seconds of meshing and of the rest."""

    method: str
    level: int
    run: Callable[[], tuple[float, float]]
    unknowns: int
    error: float
    note: str = ""
    seconds: list[tuple[float, float]] = field(default_factory=list)

    def median(self, meshing: bool) -> float:
        return float(np.median([mesh * meshing + rest for mesh, rest in self.seconds]))


def plg_run(problem: EllipticProblem, case: Case, degree: int, n: int) -> Run:
    grid, method = CartesianGrid.uniform(n), PLG(degree=degree)

    def run() -> tuple[float, float]:
        # A new domain and no lattices: nothing may be left over from the last run.
        canonical_search.cache_clear()
        fresh = replace(problem, domain=case.domain())
        started = time.process_time()
        solve(fresh, grid, method)
        return 0.0, time.process_time() - started

    solution = solve(problem, grid, method)
    return Run(f"PLG {degree}", n, run, solution.info["unknowns"], solution.errors()["l2"])


def fem_run(problem: EllipticProblem, macro: Macro, macro_seconds: float, degree: int, n: int) -> Run:
    """Prepare a run with the faster of both linear solvers.

    Multigrid stops where its L2 error is within 5 % of the direct solver's.
    """
    source, exact = problem.source, problem.exact
    mesh = subdivide(macro, n, degree)
    matrix, rhs, values, free = assemble(mesh, source, exact)

    def error(x: np.ndarray) -> float:
        values[free] = x
        return l2_error(mesh, values, exact)

    started = time.process_time()
    x = direct(matrix, rhs)
    direct_seconds = time.process_time() - started
    best = error(x)
    tolerance = 0.1 * best
    while error(multigrid(matrix, rhs, tolerance)) > 1.05 * best and tolerance > 1e-15:
        tolerance /= 4
    started = time.process_time()
    multigrid(matrix, rhs, tolerance)
    iterate = time.process_time() - started < direct_seconds

    def run() -> tuple[float, float]:
        started = time.process_time()
        mesh = subdivide(macro, n, degree)
        meshed = time.process_time()
        matrix, rhs, values, free = assemble(mesh, source, exact)
        values[free] = multigrid(matrix, rhs, tolerance) if iterate else direct(matrix, rhs)
        return macro_seconds + meshed - started, time.process_time() - meshed

    return Run(f"P{degree}", n, run, len(rhs), best, "AMG-CG" if iterate else "LU")


def seconds_at(target: float, runs: list[Run], meshing: bool) -> tuple[float, str]:
    """Return seconds to an L2 error: log-log along the runs that no other beats in both.

    Beyond the most accurate run extrapolated with the slope of the last three, marked "*"; for less
    accuracy than the fastest run's, that run's seconds, marked "<".
    """
    front: list[Run] = []
    for run in sorted(runs, key=lambda run: run.median(meshing)):
        if not front or run.error < front[-1].error:
            front.append(run)
    front.reverse()
    wanted = np.log(target)
    error = np.log([run.error for run in front])
    if wanted < error[0]:
        # The macro mesh's fixed seconds would flatten the slope.
        slope = np.polyfit(error[:3], np.log([run.median(False) for run in front[:3]]), 1)[0]
        return float(front[0].median(meshing) * np.exp(slope * (wanted - error[0]))), "*"
    seconds = np.log([run.median(meshing) for run in front])
    return float(np.exp(np.interp(wanted, error, seconds))), "<" if wanted > error[-1] else ""


def measure(name: str, case: Case) -> list[Run]:
    problem = manufactured(SMOOTH, case.domain())
    spans = []
    for _ in range(REPEATS):
        domain = case.domain()
        started = time.process_time()
        macro = macro_mesh(domain, **case.macro)
        spans.append(time.process_time() - started)
    macro_seconds = float(np.median(spans))
    print(
        f"{name}: {len(macro.triangles)} macro triangles, {macro.curved} of them curved, "
        f"smallest angle {macro.smallest_angle:.1f} degrees, made in {macro_seconds:.3f} CPU s"
    )
    runs = [plg_run(problem, case, degree, n) for degree, grids in PLG_GRIDS.items() for n in grids]
    for degree, divisions in case.divisions.items():
        runs += [fem_run(problem, macro, macro_seconds, degree, n) for n in divisions]
    for _ in range(REPEATS):
        for run in runs:
            if not run.seconds or run.seconds[0][1] < SHORT:
                run.seconds.append(run.run())
    for run in runs:
        print(
            f"{name:5s} {run.method:6s} {run.level:4d} {run.unknowns:7d} unknowns, L2 {run.error:.2e}, "
            f"{run.median(False):7.3f} s, with meshing {run.median(True):7.3f} s {run.note}"
        )
    return runs


def table(name: str, runs: list[Run]) -> list[list[object]]:
    methods: dict[str, list[Run]] = {}
    for run in runs:
        methods.setdefault(run.method, []).append(run)
    orders = ["order"]
    for several in methods.values():
        levels, errors = zip(*[(run.level, run.error) for run in several], strict=True)
        orders.append(f"{-np.polyfit(np.log(levels), np.log(errors), 1)[0]:.2f}")
    rows: list[list[object]] = [[name, *orders, "", ""]]
    for target in TARGETS:
        for meshing in (False, True):
            found = {method: seconds_at(target, several, meshing) for method, several in methods.items()}
            ours, theirs = (
                min((value[0], method) for method, value in found.items() if method.startswith("PLG") == plg)
                for plg in (True, False)
            )
            label = f"{target:.0e}" + (", meshing counted" if meshing else "")
            cells = [f"{seconds:.3g}{mark}" for seconds, mark in found.values()]
            rows.append([name, label, *cells, f"{theirs[1]} / {ours[1]}", f"{theirs[0] / ours[0]:.2f}"])
    return rows


def draw(results: dict[str, list[Run]]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for ax, (name, runs) in zip(axes, results.items(), strict=True):
        for index, method in enumerate(dict.fromkeys(run.method for run in runs)):
            several = [run for run in runs if run.method == method]
            errors = [run.error for run in several]
            ours = method.startswith("PLG")
            style = {"color": f"C{index}", "marker": "o" if ours else "s", "ms": 3.5}
            ax.loglog([run.median(False) for run in several], errors, label=method, **style)
            if not ours:
                ax.loglog([run.median(True) for run in several], errors, ls=":", lw=1, **{**style, "ms": 1.5})
        ax.set(title=name, xlabel="CPU seconds (dotted: meshing counted)")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("L2 error")
    axes[1].legend(fontsize=8)
    figure.savefig(PICTURE, dpi=80)


def main() -> None:
    results = {name: measure(name, case) for name, case in CASES.items()}
    draw(results)
    record(
        "elliptic_time_to_accuracy",
        "Poisson's equation on curved domains: CPU seconds to an L2 error, PLG and finite elements",
        ["domain", "L2 error", *dict.fromkeys(run.method for run in results["star"]), "best", "FEM / PLG"],
        [row for name, runs in results.items() for row in table(name, runs)],
        "Dirichlet data; P1, P2, P4: scikit-fem, isoparametric at the boundary, the faster of sparse LU and "
        "AMG-CG. PLG's seconds always hold all geometry. Ratio above 1: PLG is faster. "
        "*: extrapolated with the measured slope. <: the fastest run is more accurate than asked for.",
    )


if __name__ == "__main__":
    main()
