"""``sciml evaluate``: a trained operator at several resolutions, a score model, learned dynamics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sciml.errors import ConfigError

from .parsing import parse, print_table

__all__ = ["run"]

EXAMPLE = "sciml evaluate runs/darcy darcy.h5"


@dataclass(frozen=True)
class EvaluateArguments:
    """What to evaluate."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run folder of a finished training."""
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """Dataset; samples that the run trained on, or chose its weights by, are left out. Of a score model's run samples
    are drawn and compared with it: spectra, distributions of values. Learned dynamics are rolled out."""
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

    from sciml.operators import Denoiser, Operator
    from sciml.operators.base import kind_of
    from sciml.training import evaluate
    from sciml.training.reports import evaluation_table

    output = Path(options.output or Path(options.run) / f"evaluation-{Path(options.data).stem}")
    if kind_of(options.run) == "dynamics":
        _evaluate_dynamics(options, output)
        return
    if isinstance(Operator.load(options.run), Denoiser):
        _evaluate_score(options, output)
        return
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


def _evaluate_dynamics(options: EvaluateArguments, output: Path) -> None:
    from sciml.training.dynamics_evaluation import dynamics_table, evaluate_dynamics, summary

    if options.strides or options.device != "auto":
        raise ConfigError(
            "strides and device: learned dynamics use the run's grid and the CPU; leave them out"
        )
    result = evaluate_dynamics(options.run, options.data, output, options.overwrite)
    print(summary(result))
    print_table(*dynamics_table(result))
    print(f"\nwrote {output / 'report.html'}")


def _evaluate_score(options: EvaluateArguments, output: Path) -> None:
    from sciml.sampling import evaluate_score
    from sciml.sampling.score_evaluation import distance_table

    if options.strides:
        raise ConfigError(
            f"strides={options.strides}: a score model is evaluated with the stride of its run; leave it out"
        )
    rows = evaluate_score(
        options.run, options.data, device=options.device, output=output, overwrite=options.overwrite
    )
    print_table(*distance_table(rows))
    print(f"\nwrote {output / 'report.html'}")
