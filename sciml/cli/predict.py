"""``sciml predict``: a trained operator applied to a dataset."""

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from sciml.errors import ConfigError

from .parsing import parse

__all__ = ["run"]

EXAMPLE = "sciml predict runs/darcy darcy.h5 -o predicted.h5"
OF_MESH = "sciml predict runs/cells cells/elasticity-119.vtu -o out.vtu"


@dataclass(frozen=True)
class PredictArguments:
    """What to predict."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Run folder of a finished training, or a model.safetensors."""
    input: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INPUT")]
    """Dataset with the model's input fields; or, for an operator on clouds of points, a mesh such as mesh.vtu with them
    as point data. Quadrature weights are its point data of their name, or taken from its cells."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """HDF5 file to write; for a mesh, a mesh."""
    stride: int = 1
    """Read every stride-th node."""
    frames: int = 0
    """Frames that a model of task step predicts, also more than in training; 0 for as many."""
    batch_size: int = 20
    """Trajectories in memory at a time."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    overwrite: bool = False
    """Replace an existing output."""
    quiet: bool = False
    """No progress bar."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Predict, write the file and say what is in it."""
    description = (
        "Apply a trained operator to a dataset, HDF5 to HDF5, or to a mesh, to which it adds fields."
    )
    options = parse(PredictArguments, "sciml predict", arguments, description, f"{EXAMPLE}\n  {OF_MESH}")
    if not options.output:
        raise ConfigError(f"output is missing: name it with -o, as in '{EXAMPLE}'")

    from sciml.datasets import FieldsDataset, PointsDataset, open_dataset
    from sciml.training.prediction_files import HDF5_ENDINGS, predict_file

    path = predict_file(
        options.model,
        options.input,
        options.output,
        stride=options.stride,
        device=options.device,
        batch_size=options.batch_size,
        frames=options.frames,
        overwrite=options.overwrite,
        progress=not options.quiet,
    )
    if path.suffix not in HDF5_ENDINGS:
        print(
            f"wrote {path}: the predicted fields are among its point data, <name>_predicted where a name was taken"
        )
        return
    with open_dataset(path) as data:
        if isinstance(data, PointsDataset):
            print(
                f"wrote {path}: {', '.join(data.targets)} of {data.n_trajectories} samples at {data.offsets[-1]} "
                f"points; look at it with: sciml inspect {path}"
            )
            return
        assert isinstance(data, FieldsDataset)
        count = "" if data.steady else f", {len(data.times)} frames"
        if given := data.config["predicted_by"]["given_frames"]:
            count += f", the first {given} of them given"
        grid = " x ".join(map(str, data.resolution))
        overflowed = int((data.checks["not_finite"][0] > 0).sum())
        print(
            f"wrote {path}: {', '.join(data.targets)} of {data.n_trajectories} trajectories at {grid}{count}; "
            f"look at it with: sciml inspect {path}"
        )
    if overflowed:
        print(
            f"sciml: warning: the prediction of {overflowed} trajectories is not finite: predict fewer frames",
            file=sys.stderr,
        )
