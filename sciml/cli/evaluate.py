"""``sciml evaluate``: a trained operator at several resolutions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .parsing import parse, print_table

__all__ = ["run"]

EXAMPLE = "sciml evaluate runs/darcy darcy.h5"


@dataclass(frozen=True)
class EvaluateArguments:
    """What to evaluate."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run folder of a finished training."""
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """Dataset; samples that the run trained on, or chose its weights by, are left out."""
    strides: tuple[int, ...] = ()
    """Evaluate on every stride-th node; by default 1, 2, 4, ... while the model can."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """Folder for the results; RUN/evaluation-DATA by default."""
    overwrite: bool = False
    """Replace results that are there."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Evaluate, print the table and write it with pictures."""
    options = parse(EvaluateArguments, "sciml evaluate", arguments, "Evaluate a trained operator.", EXAMPLE)

    from sciml.training import evaluate
    from sciml.training.reports import evaluation_table

    output = Path(options.output or Path(options.run) / f"evaluation-{Path(options.data).stem}")
    rows = evaluate(
        options.run,
        options.data,
        strides=options.strides,
        device=options.device,
        output=output,
        overwrite=options.overwrite,
    )
    print_table(*evaluation_table(rows))
    print(f"\nwrote {output / 'report.html'}")
