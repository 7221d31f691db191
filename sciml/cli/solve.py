"""``sciml solve``: a PDE on a curved domain."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sciml.errors import ConfigError
from sciml.files import atomic_folder, refuse_folder

from .parsing import parse, print_table, take_name

if TYPE_CHECKING:
    from sciml.report import Report
    from sciml.solvers import Solution

__all__ = ["run"]

MARKER = "solution.h5"
EXAMPLE = "sciml solve poisson --domain star --n 160 --order 4"
DEFAULT_CELLS = {2: 128, 3: 48}
FRACTIONS = (0.25, 0.25 * 2**0.5, 0.5, 0.5 * 2**0.5)  # of n, the coarser grids of a convergence study


@dataclass(frozen=True)
class SolveArguments:
    """How to solve."""

    domain: str = "star"
    """Shape: star, disk, box, ellipse or annulus; in 3D ball, ellipsoid, torus or cuboid."""
    n: Annotated[int | None, tyro.conf.arg(aliases=["-n"], metavar="INT")] = None
    """Grid cells per unit length, by default 128, in 3D 48; the grid's box is [-1/2, 1/2]^D."""
    order: Literal[2, 3, 4, 5, 6] = 4
    """Degree of the local polynomials. With Dirichlet data the error falls at least at order
    2, 4, 4, 6 and 6."""
    weight_power: float = 3.0
    """Fits weigh nodes by distance to this power: 3 is accurate, 1 less stiff."""
    solver: Literal["auto", "direct", "krylov"] = "auto"
    """Sparse LU, or GMRES with a multigrid preconditioner; by default what is faster."""
    convergence: bool = False
    """Solve on five grids up to n: a table and a plot of errors and orders."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """Folder for the results; runs/PROBLEM-DOMAIN-nN-oORDER by default."""
    overwrite: bool = False
    """Replace results that are there."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Solve a named problem and write its table, picture, VTK and HDF5 files."""
    from sciml.solvers import domain_registry, problem_registry

    usage = "sciml solve PROBLEM [options]"
    name = take_name(arguments, "problem", problem_registry, usage, EXAMPLE)
    if name is None:
        return
    description = (problem_registry[name].__doc__ or "").split("\n")[0]
    options = parse(
        SolveArguments, f"sciml solve {name}", arguments[1:], description, EXAMPLE.replace("poisson", name)
    )
    domain = domain_registry[options.domain]()
    n = options.n if options.n is not None else DEFAULT_CELLS[domain.dim]
    if n < 1:
        raise ConfigError(f"n={n}: it must be at least 1")
    problem = problem_registry[name](domain)
    if options.convergence and problem.exact is None:
        raise ConfigError(f"convergence: problem {name!r} has no exact solution to measure errors with")
    output = Path(options.output or f"runs/{name}-{options.domain}-n{n}-o{options.order}")
    refuse_folder(output, MARKER, options.overwrite)

    from sciml.datasets import save
    from sciml.report import Report
    from sciml.solvers import PLG, CartesianGrid, solve

    method = PLG(degree=options.order, weight_power=options.weight_power)
    box = ((-0.5,) * domain.dim, (0.5,) * domain.dim)
    grids = [round(n * factor) for factor in FRACTIONS] if options.convergence else []
    solutions = [
        solve(problem, CartesianGrid.uniform(cells, *box), method, options.solver) for cells in [*grids, n]
    ]
    solution = solutions[-1]
    info = solution.info
    rows: list[list[object]] = [
        ["unknowns", info["unknowns"]],
        ["irregular nodes", info["irregular"]],
        ["equations refitted for stability", info["refitted"]],
        ["widened stencils", info["widened"]],
        ["least-squares fallbacks", info["least_squares_fallbacks"]],
        ["largest local condition number", f"{info['max_condition']:.1f}"],
        ["linear solver", info["solver"]],
        ["iterations", info["iterations"] or "none"],
        ["relative residual", f"{info['residual']:.1e}"],
        ["CPU seconds", f"{info['cpu_seconds']:.2f}"],
    ]
    if problem.exact is not None:
        rows += [[f"error, {norm}", f"{value:.3e}"] for norm, value in solution.errors().items()]
    with atomic_folder(output, MARKER, options.overwrite) as folder:
        save(solution, folder / MARKER)
        solution.export(folder / "solution.vtu")
        report = Report(f"{name} on {options.domain}", folder)
        report.text(description)
        report.table(["quantity", "value"], rows)
        if options.convergence:
            head, table = _convergence(solutions, report)
        figure = solution.plot().get_figure(root=True)
        assert figure is not None
        report.figure(figure, "solution", "The solution up to the curved boundary.")
        report.save()
    print_table(["quantity", "value"], rows)
    if options.convergence:
        print()
        print_table(head, table)
    pictures = "solution.png, convergence.png" if options.convergence else "solution.png"
    print(f"\nwrote {output / 'report.html'}, {pictures}, solution.vtu and solution.h5")


def _convergence(solutions: list["Solution"], report: "Report") -> tuple[list[str], list[list[object]]]:
    """Add a table and a plot of the errors to the report; return the table."""
    import matplotlib.pyplot as plt
    import numpy as np

    cells = np.array([solution.grid.cells[0] for solution in solutions])
    norms = ("linf", "l2")
    errors = np.array([[solution.errors()[norm] for norm in norms] for solution in solutions])
    orders = -np.diff(np.log(errors), axis=0) / np.diff(np.log(cells))[:, None]
    fitted = -np.polyfit(np.log(cells), np.log(errors), 1)[0]
    head = ["N", "unknowns", "error, linf", "order", "error, l2", "order", "CPU seconds"]
    table: list[list[object]] = []
    for k, solution in enumerate(solutions):
        row: list[object] = [cells[k], solution.info["unknowns"]]
        for norm in range(2):
            row += [f"{errors[k, norm]:.2e}", f"{orders[k - 1, norm]:.2f}" if k else ""]
        table.append([*row, f"{solution.info['cpu_seconds']:.2f}"])
    table.append(["fit", "", "", f"{fitted[0]:.2f}", "", f"{fitted[1]:.2f}", ""])
    figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
    for norm, name in enumerate(norms):
        ax.loglog(cells, errors[:, norm], "o-", label=f"{name}, order {fitted[norm]:.2f}")
    ax.set(xlabel="cells per unit length, N", ylabel="error")
    ax.set_xticks(cells, [str(value) for value in cells], minor=False)
    ax.minorticks_off()
    ax.legend()
    report.section("Convergence")
    report.table(head, table)
    report.figure(figure, "convergence", "Errors over all unknowns and their fitted orders.")
    return head, table
