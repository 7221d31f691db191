"""``sciml compare``: training runs beside each other."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from .parsing import parse, print_table

__all__ = ["run"]

EXAMPLE = "sciml compare runs/darcy runs/unet --data darcy.h5"


@dataclass(frozen=True)
class CompareArguments:
    """What to compare."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUNS")]
    """Run folders of finished trainings; those that differ only in the seed are put together."""
    data: str = ""
    """Dataset on which all are evaluated, at every resolution that they can read."""
    device: str = "auto"
    """For that: auto, cpu, cuda or cuda:N."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """Folder for the results, with pictures and a report; without, tables are only printed."""
    overwrite: bool = False
    """Replace results that are there."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Compare, print the tables and write them with pictures."""
    options = parse(CompareArguments, "sciml compare", arguments, "Compare training runs.", EXAMPLE)

    from sciml.training import compare
    from sciml.training.reports import comparison_tables

    result = compare(
        options.runs,
        options.data or None,
        device=options.device,
        output=options.output or None,
        overwrite=options.overwrite,
    )
    for note in result["notes"]:
        print(f"{note}\n")
    for heading, (head, cells) in comparison_tables(result):
        print(f"{heading}:")
        print_table(head, cells)
        print()
    if options.output:
        print(f"wrote {options.output}/report.html")
