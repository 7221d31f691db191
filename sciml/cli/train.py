"""``sciml train``: operators from datasets."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from sciml.errors import ConfigError
from sciml.training.config import TrainConfig

from .parsing import parse, take_name

__all__ = ["run"]

ARCHITECTURES = ("fno",)
EXAMPLE = "sciml train fno darcy.h5 --stride 2 --epochs 12 -o runs/darcy"


@dataclass(frozen=True)
class TrainFiles:
    """Where from and where to."""

    data: tyro.conf.Positional[str]
    """Dataset, an HDF5 file."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])]
    """Run folder."""
    resume: bool = False
    """Go on with an interrupted run."""
    overwrite: bool = False
    """Discard a run that is there."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class TrainArguments:
    """All of it."""

    files: TrainFiles
    config: TrainConfig


def run(arguments: list[str], plugins: list[str]) -> None:
    """Train an operator and write its run folder."""
    name = take_name(
        arguments, "architecture", ARCHITECTURES, "sciml train ARCHITECTURE DATA -o RUN", EXAMPLE
    )
    if name is None:
        return
    description = "Train a Fourier neural operator on a dataset."
    parsed: Any = parse(TrainArguments, f"sciml train {name}", arguments[1:], description, EXAMPLE)
    files: TrainFiles = parsed.files
    if not files.output:
        raise ConfigError(f"output={files.output!r}: name a folder")

    from sciml.training import train

    result = train(
        parsed.config,
        files.data,
        files.output,
        resume=files.resume,
        overwrite=files.overwrite,
        progress=not files.quiet,
    )
    print(
        f"test relative L2 error {result['test_relative_l2']:.4f} on {result['n_test']} samples; "
        f"wrote {files.output}, evaluate it with: sciml evaluate {files.output} {files.data}"
    )
