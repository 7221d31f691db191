"""``sciml export``: a trained operator as an ONNX program."""

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from sciml.errors import ConfigError

from .parsing import parse

__all__ = ["run"]

EXAMPLE = "sciml export runs/darcy -o darcy.onnx --resolution 43 43"


@dataclass(frozen=True)
class ExportArguments:
    """What to export."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Run folder of a finished training, or a model.safetensors."""
    resolution: tuple[int, ...]
    """Nodes per axis, which the program is for; models of task spacetime: then the predicted frames."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """ONNX file to write."""
    overwrite: bool = False
    """Replace an existing output."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Write the file and say what its input is."""
    description = "Write a trained operator as an ONNX program for one grid."
    options = parse(ExportArguments, "sciml export", arguments, description, EXAMPLE)
    if not options.output:
        raise ConfigError(f"output is missing: name it with -o, as in '{EXAMPLE}'")

    from sciml.operators import Operator
    from sciml.operators.export import export_onnx

    model = Operator.load(options.model)
    print(f"exporting {type(model).__name__}, which can take a minute", file=sys.stderr)
    export_onnx(model, options.output, options.resolution, options.overwrite)
    shape = ", ".join(map(str, ("batch", *options.resolution, model.in_channels)))
    print(f"wrote {options.output}: input a, float32, of shape ({shape}), output u")
