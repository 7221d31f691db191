"""``sciml sample``: fields from a trained score model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .parsing import parse

__all__ = ["run"]

EXAMPLE = "sciml sample runs/prior -n 64 --solver dpm++3m --steps 15"


@dataclass(frozen=True)
class SampleArguments:
    """What to sample."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run folder of 'sciml train score', or its model.safetensors."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """Samples."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """HDF5 file to write; RUN/samples.h5 by default."""
    solver: str = "dpm++3m"
    """dpm++1, dpm++2s, dpm++3s, dpm++2m, dpm++3m, dpm++fast, unipc-3; with noise on the way sde-dpm++1, sde-dpm++2m."""
    steps: int = 15
    """Steps of the solver, the last one of which takes away all noise that is left."""
    seed: int = 0
    """Sample i depends on the seed and i alone."""
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
    description = "Draw fields from a score model, made by 'sciml train score DATASET -o RUN'."
    options = parse(SampleArguments, "sciml sample", arguments, description, EXAMPLE)

    from sciml.sampling import sample_fields

    folder = Path(options.run)
    output = options.output or (folder if folder.is_dir() else folder.parent) / "samples.h5"
    path = sample_fields(
        options.run,
        output,
        options.n,
        solver=options.solver,
        steps=options.steps,
        seed=options.seed,
        resolution=options.resolution,
        batch_size=options.batch_size,
        device=options.device,
        overwrite=options.overwrite,
        progress=not options.quiet,
    )
    print(f"wrote {path}: {options.n} samples; look at them with: sciml plot {path} -o samples.png")
