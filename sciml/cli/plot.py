"""``sciml plot``: pictures of a dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sciml.errors import ConfigError
from sciml.files import atomic_path

from .parsing import parse

__all__ = ["run"]

EXAMPLE = "sciml plot burgers.h5 --kind space-time -o burgers.png"
ANIMATIONS = (".gif", ".mp4")
PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class PlotArguments:
    """What to draw."""

    file: tyro.conf.Positional[str]
    """Dataset of kind fields, an HDF5 file."""
    field: str = ""
    """Field; by default the first target."""
    trajectory: int = 0
    """Which one, counted from 0."""
    kind: Literal["auto", "fields", "space-time", "spectrum", "animation"] = "auto"
    """What to draw: by default an animation into .gif and .mp4, else a space-time image in 1D and
    frames otherwise."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """File to write, replaced if it exists: .png, .pdf, .svg, .gif or .mp4; FILE.png by default."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Draw frames, a space-time image, a spectrum or an animation of one trajectory."""
    options = parse(PlotArguments, "sciml plot", arguments, "Draw one trajectory of a dataset.", EXAMPLE)

    from sciml.datasets import plots
    from sciml.datasets.reader import FieldsDataset

    suffix = ANIMATIONS[0] if options.kind == "animation" else PICTURES[0]
    path = Path(options.output or Path(options.file).with_suffix(suffix).name)
    moving = path.suffix in ANIMATIONS
    if moving and options.kind not in ("auto", "animation"):
        raise ConfigError(
            f"output {str(path)!r}: a picture of kind {options.kind!r} ends in {', '.join(PICTURES)}"
        )
    if not moving and (options.kind == "animation" or path.suffix not in PICTURES):
        known = ANIMATIONS if options.kind == "animation" else PICTURES + ANIMATIONS
        raise ConfigError(f"output {str(path)!r}: name a file that ends in {', '.join(known)}")
    with FieldsDataset(options.file) as data:
        if moving:
            plots.animate(data, path, options.field, options.trajectory)
        else:
            kind = options.kind
            if kind == "auto":
                kind = "fields" if len(data.axes) > 1 or data.steady else "space-time"
            draw = {
                "fields": plots.plot_fields,
                "space-time": plots.plot_space_time,
                "spectrum": plots.plot_spectrum,
            }[kind]
            figure = draw(data, options.field, options.trajectory)
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=path.suffix[1:], dpi=120)
    print(f"wrote {path}")
