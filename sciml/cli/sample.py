"""``sciml sample``: fields from a trained score model, or samples of a known density."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sciml.errors import ConfigError

from .parsing import parse, print_table

__all__ = ["run"]

EXAMPLE = """sciml sample runs/prior -n 64 --solver dpm++3m --steps 15
  sciml sample --target gmm40 --method smc -n 1000 -o gmm40.h5"""
OF_FIELDS = ("solver", "steps", "resolution", "batch_size", "device")
OF_DENSITIES = ("method", "budget", "step", "deviation")


@dataclass(frozen=True)
class SampleArguments:
    """What to sample."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[RUN]")] = ""
    """Run folder of 'sciml train score', or its model.safetensors."""
    target: str = ""
    """Instead of a run, a density: digits, double-wells, dw4, funnel, gmm40, many-well, modified-harmonic,
    mueller-brown, phi4, steep-double-well, steep-prior, three-modes, two-pathways, or one that a plug-in registers."""
    method: str = "smc"
    """Of a density: ula, mala, baoab (Langevin chains), dilation (drifts of fixed length along the dilation path), smc
    (annealed sequential Monte Carlo)."""
    budget: int = 2000
    """Of a density: evaluations of it and its score for each sample."""
    step: float | None = None
    """Of a density: h of chains, tuned by default; the length of the dilation's drifts, 1; h of smc's first moves."""
    deviation: float | None = None
    """Of a density: that of the normal law at the start; by default one that covers the target."""
    n: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """Samples; by default 64 fields, or 1000 of a density."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """HDF5 file to write; by default RUN/samples.h5, or TARGET-METHOD.h5 with a report beside it."""
    solver: str = "dpm++3m"
    """dpm++1, dpm++2s, dpm++3s, dpm++2m, dpm++3m, dpm++fast, unipc-3; with noise on the way sde-dpm++1, sde-dpm++2m."""
    steps: int = 15
    """Steps of the solver, the last one of which takes away all noise that is left."""
    seed: int = 0
    """Field i depends on the seed and i alone; samples of a density on their number, too."""
    resolution: tuple[int, ...] = ()
    """Nodes per axis; those of the training data by default."""
    batch_size: int = 50
    """Samples in memory at a time."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    overwrite: bool = False
    """Replace an existing output."""
    quiet: bool = False
    """No progress bar."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Sample, write the file and say what is in it."""
    description = (
        "Draw fields from a score model, made by 'sciml train score DATASET -o RUN', or sample a density."
    )
    options = parse(SampleArguments, "sciml sample", arguments, description, EXAMPLE)
    if bool(options.run) == bool(options.target):
        raise ConfigError(
            "give a RUN of 'sciml train score', or the name of a density by --target, and not both"
        )
    wrong = OF_FIELDS if options.target else OF_DENSITIES
    given = [name for name in wrong if getattr(options, name) != getattr(SampleArguments(), name)]
    if given:
        owner = "a RUN, not to a density" if options.target else "a density (--target), not to a RUN"
        raise ConfigError(f"--{given[0].replace('_', '-')} belongs to {owner}; leave it out")
    if options.target:
        _density(options)
    else:
        _fields(options)


def _fields(options: SampleArguments) -> None:
    from sciml.sampling import sample_fields

    folder, n = Path(options.run), 64 if options.n is None else options.n
    output = options.output or (folder if folder.is_dir() else folder.parent) / "samples.h5"
    path = sample_fields(
        options.run,
        output,
        n,
        solver=options.solver,
        steps=options.steps,
        seed=options.seed,
        resolution=options.resolution,
        batch_size=options.batch_size,
        device=options.device,
        overwrite=options.overwrite,
        progress=not options.quiet,
    )
    print(f"wrote {path}: {n} samples; look at them with: sciml plot {path} -o samples.png")


def _density(options: SampleArguments) -> None:
    from sciml.sampling.densities import measure_rows, sample_density
    from sciml.sampling.methods import Budget
    from sciml.sampling.targets import TARGETS

    output = options.output or f"{options.target}-{options.method}.h5"
    budget = Budget(
        1000 if options.n is None else options.n,
        options.budget,
        options.step,
        options.deviation,
        options.seed,
    )
    page, measures = sample_density(
        options.target,
        output,
        options.method,
        budget,
        overwrite=options.overwrite,
        progress=not options.quiet,
    )
    head = ["measure", "samples", "exact samples", "true value"]
    print_table(head, measure_rows(TARGETS[options.target](), measures))
    print(f"wrote {output}: {budget.n} samples; report: {page}")
