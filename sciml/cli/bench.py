"""``sciml bench``: methods compared under equal conditions."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from .parsing import parse, print_table, take_name

__all__ = ["run"]

USAGE = "sciml bench COMPARISON [options]"
EXAMPLE = "sciml bench sampling --targets gmm40 many-well --seeds 2 -o runs/samplers"


@dataclass(frozen=True)
class SamplingArguments:
    """What to compare."""

    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = "runs/samplers"
    """Folder for report.html and results.json."""
    targets: tuple[str, ...] = ("three-modes", "gmm40", "many-well", "mueller-brown")
    """Densities; sciml sample --help lists them."""
    methods: tuple[str, ...] = ("ula", "mala", "baoab", "dilation", "smc")
    """ula, mala, baoab, dilation, smc."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """Samples."""
    budget: int = 2000
    """Evaluations of density and score for each sample."""
    seeds: int = 3
    """Runs of each."""
    seed: int = 0
    """The first seed."""
    overwrite: bool = False
    """Replace results that are there."""
    quiet: bool = False
    """No progress bar."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Compare, print the table and write the report."""
    if take_name(arguments, "comparison", ["sampling"], USAGE, EXAMPLE) is None:
        return
    description = "Samplers of densities beside each other, with as many evaluations."
    options = parse(SamplingArguments, "sciml bench sampling", arguments[1:], description, EXAMPLE)

    from sciml.sampling.densities import compare_methods
    from sciml.sampling.methods import Budget

    head, rows = compare_methods(
        options.targets,
        options.methods,
        options.output,
        Budget(options.n, options.budget, seed=options.seed),
        seeds=options.seeds,
        overwrite=options.overwrite,
        progress=not options.quiet,
    )
    print_table(head, rows)
    print(f"report: {options.output}/report.html")
