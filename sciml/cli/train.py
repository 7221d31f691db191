"""``sciml train``: operators, score models and vector fields from datasets."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sciml.errors import ConfigError
from sciml.training.config import TrainConfig

from .parsing import parse, print_table, take_name

__all__ = ["run"]

DYNAMICS = "dynamics"
EXAMPLE = "sciml train fno darcy.h5 --stride 2 --epochs 12 -o runs/darcy"


@dataclass(frozen=True)
class TrainFiles:
    """Where from and where to."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """Dataset, an HDF5 file."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])]
    """Run folder."""
    resume: bool = False
    """Go on with an interrupted run."""
    overwrite: bool = False
    """Discard a run that is there."""
    tensorboard: bool = False
    """Write loss, errors and learning rate to RUN/tensorboard."""
    checkpoint_seconds: float = 30.0
    """Time between checkpoints: what an interruption can cost."""
    quiet: bool = False
    """No progress bar, nor a line for each epoch where there is no terminal."""


@dataclass(frozen=True)
class DynamicsFiles:
    """Where from and where to."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """Dataset of trajectories: of ODEs, or of fields on a periodic grid."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])]
    """Run folder."""
    resume: bool = False
    """Go on with an interrupted run."""
    overwrite: bool = False
    """Discard a run that is there."""
    checkpoint_seconds: float = 30.0
    """Time between checkpoints: what an interruption can cost."""
    quiet: bool = False
    """No progress bar."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Train an operator, whose architecture is flags too, and write its run folder."""
    from sciml.operators import CloudOperator, operator_registry
    from sciml.training.denoising import ScoreConfig

    usage = "sciml train MODEL DATA -o RUN"
    name = take_name(arguments, "model", [*operator_registry, DYNAMICS], usage, EXAMPLE)
    if name is None:
        return
    if name == DYNAMICS:
        _train_dynamics(arguments[1:])
        return
    operator = operator_registry[name]
    config: type[TrainConfig] = ScoreConfig if name == "score" else TrainConfig
    parts: list[tuple[str, type]] = [
        ("files", TrainFiles),
        ("model", operator.config_type),
        ("config", config),
    ]
    names = [field.name for _, part in parts for field in dataclasses.fields(part)]
    if clash := sorted({field for field in names if names.count(field) > 1}):
        raise ConfigError(
            f"operator {name!r} has settings {clash}, which are options of 'sciml train': rename them"
        )
    both = dataclasses.make_dataclass("TrainArguments", parts)
    description = (operator.__doc__ or "").strip().split("\n")[0]
    example = EXAMPLE
    if issubclass(operator, CloudOperator):
        example = f"sciml train {name} elasticity.h5 --epochs 20 -o runs/{name}"
    elif name == "score":
        example = "sciml train score darcy.h5 --stride 2 --symmetric -o runs/prior"
    elif name != "fno":
        example = f"sciml train {name} darcy.h5 --stride 2 -o runs/{name}"
    parsed: Any = parse(both, f"sciml train {name}", arguments[1:], description, example)
    files: TrainFiles = parsed.files
    if not files.output:
        raise ConfigError(f"output={files.output!r}: name a folder")

    from sciml.operators.base import MODEL_FILE
    from sciml.training import train
    from sciml.training.reports import no_skill

    finished = files.resume and (Path(files.output) / MODEL_FILE).exists()
    result = train(
        parsed.config,
        files.data,
        files.output,
        model=parsed.model,
        resume=files.resume,
        overwrite=files.overwrite,
        progress=not files.quiet,
        tensorboard=files.tensorboard,
        checkpoint_seconds=files.checkpoint_seconds,
    )
    if os.environ.get("RANK", "0") != "0":
        return
    print(
        f"test relative L2 error {result['test_relative_l2']:.4f} on {result['n_test']} samples"
        f"{no_skill(result['no_skill'])}; {'was finished before:' if finished else 'wrote'} {files.output}, "
        f"evaluate it with: sciml evaluate {files.output} {files.data}"
    )


def _train_dynamics(arguments: list[str]) -> None:
    """Learn a vector field from trajectories."""
    from sciml.training.dynamics import DynamicsConfig

    parts: list[tuple[str, type]] = [("files", DynamicsFiles), ("config", DynamicsConfig)]
    both = dataclasses.make_dataclass("DynamicsArguments", parts)
    example = """sciml generate lotka-volterra -n 1 --frames 100 --final-time 6 -o lv.h5
  sciml train dynamics lv.h5 -o runs/lv"""
    description = "Learn the vector field of trajectories: a polynomial, a stencil, or a neural ODE."
    parsed: Any = parse(both, f"sciml train {DYNAMICS}", arguments, description, example)
    files: DynamicsFiles = parsed.files
    if not files.output:
        raise ConfigError(f"output={files.output!r}: name a folder")

    from sciml.operators.base import MODEL_FILE
    from sciml.training import train_dynamics
    from sciml.training.dynamics_reports import error_rows

    finished = files.resume and (Path(files.output) / MODEL_FILE).exists()

    result = train_dynamics(
        parsed.config,
        files.data,
        files.output,
        resume=files.resume,
        overwrite=files.overwrite,
        progress=not files.quiet,
        checkpoint_seconds=files.checkpoint_seconds,
    )
    print_table(
        ["roll-outs, relative L2", "over training frames", "last frame"], error_rows(result["errors"])
    )
    if result["equation"]:
        print(f"\n{result['equation']}")
    if result["note"]:
        print(f"\n{result['note']}")
    wrote = "was finished before:" if finished else "wrote"
    after = f"evaluate it with: sciml evaluate {files.output} {files.data}"
    print(f"\n{wrote} {files.output}; {after}")
