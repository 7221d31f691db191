"""``sciml solve``: a PDE on a curved domain."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sciml.errors import ConfigError
from sciml.files import atomic_folder, refuse_folder

from .parsing import parse, print_table, take_name

__all__ = ["run"]

MARKER = "solution.h5"
EXAMPLE = "sciml solve poisson --domain star --n 160 --order 4"


@dataclass(frozen=True)
class SolveArguments:
    """How to solve."""

    domain: str = "star"
    """Shape: star, disk or box."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 128
    """Grid cells per unit length; the grid's box is [-1/2, 1/2]^2."""
    order: Literal[2, 3, 4, 5, 6] = 4
    """Degree of the local polynomials. With Dirichlet data the error falls at least at order
    2, 4, 4, 6 and 6."""
    weight_power: float = 3.0
    """Fits weigh nodes by distance to this power: 3 is accurate, 1 less stiff."""
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
    if options.n < 1:
        raise ConfigError(f"n={options.n}: it must be at least 1")
    output = Path(options.output or f"runs/{name}-{options.domain}-n{options.n}-o{options.order}")
    refuse_folder(output, MARKER, options.overwrite)

    import matplotlib.pyplot as plt

    from sciml.datasets import save
    from sciml.report import Report
    from sciml.solvers import PLG, CartesianGrid, solve

    method = PLG(degree=options.order, weight_power=options.weight_power)
    solution = solve(problem_registry[name](domain), CartesianGrid.uniform(options.n), method)
    info = solution.info
    rows: list[list[object]] = [
        ["unknowns", info["unknowns"]],
        ["irregular nodes", info["irregular"]],
        ["equations refitted for stability", info["refitted"]],
        ["widened stencils", info["widened"]],
        ["least-squares fallbacks", info["least_squares_fallbacks"]],
        ["largest local condition number", f"{info['max_condition']:.1f}"],
        ["relative residual", f"{info['residual']:.1e}"],
        ["CPU seconds", f"{info['cpu_seconds']:.2f}"],
    ]
    if solution.problem.exact is not None:
        rows += [[f"error, {norm}", f"{value:.3e}"] for norm, value in solution.errors().items()]
    with atomic_folder(output, MARKER, options.overwrite) as folder:
        save(solution, folder / MARKER)
        solution.export(folder / "solution.vtu")
        report = Report(f"{name} on {options.domain}", folder)
        report.text(description)
        report.table(["quantity", "value"], rows)
        figure, ax = plt.subplots(figsize=(6, 5), layout="constrained")
        solution.plot(ax)
        report.figure(figure, "solution", "The solution up to the curved boundary.")
        report.save()
    print_table(["quantity", "value"], rows)
    print(f"\nwrote {output / 'report.html'}, solution.png, solution.vtu and solution.h5")
