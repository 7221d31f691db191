"""``sciml plot``: pictures of a dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sciml.errors import ConfigError
from sciml.files import atomic_path

from .parsing import parse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sciml.datasets import FieldsDataset, PointsDataset

__all__ = ["run"]

EXAMPLE = "sciml plot burgers.h5 --kind space-time -o burgers.png"
ANIMATIONS = (".gif", ".mp4")
PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class PlotArguments:
    """What to draw."""

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """Dataset, an HDF5 file."""
    field: str = ""
    """Field; by default the first target. States of ODEs are all drawn."""
    trajectory: int = 0
    """Which one, counted from 0; -1 is the last."""
    kind: Literal["auto", "fields", "space-time", "spectrum", "animation", "states"] = "auto"
    """What to draw: by default an animation into .gif and .mp4, else states of ODEs over time and in phase
    space, a space-time image in 1D, and frames otherwise."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """File to write, replaced if it exists: .png, .pdf, .svg, .gif or .mp4; FILE.png by default."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Draw frames, a space-time image, a spectrum, an animation or states of one trajectory."""
    options = parse(PlotArguments, "sciml plot", arguments, "Draw one trajectory of a dataset.", EXAMPLE)

    from sciml.datasets import FieldsDataset, OdeDataset, PointsDataset, open_dataset, plots

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
    with open_dataset(options.file) as data:
        if isinstance(data, OdeDataset):
            _refuse_fields(options, path)
            figure = plots.plot_states(data, options.trajectory)
        elif isinstance(data, PointsDataset):
            figure = _draw_points(data, options, path)
        elif isinstance(data, FieldsDataset) and moving:
            plots.animate(data, path, options.field, options.trajectory)
        elif isinstance(data, FieldsDataset):
            figure = _draw_fields(data, options)
    if not moving:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=120)
    print(f"wrote {path}")


def _draw_points(data: "PointsDataset", options: PlotArguments, path: Path) -> "Figure":
    from sciml.datasets.point_plots import plot_points

    if options.kind not in ("auto", "fields"):
        raise ConfigError(f"kind={options.kind!r}: {options.file} holds functions at points, leave it out")
    if path.suffix in ANIMATIONS:
        raise ConfigError(f"output {str(path)!r}: functions at points are drawn into {', '.join(PICTURES)}")
    return plot_points(data, options.field, options.trajectory)


def _draw_fields(data: "FieldsDataset", options: PlotArguments) -> "Figure":
    from sciml.datasets import plots

    kind = options.kind
    if kind == "auto":
        kind = "fields" if len(data.axes) > 1 or data.steady else "space-time"
    draw = {
        "fields": plots.plot_fields,
        "space-time": plots.plot_space_time,
        "spectrum": plots.plot_spectrum,
    }.get(kind)
    if draw is None:
        raise ConfigError(f"kind={kind!r} is for ODEs, {options.file} holds fields on a grid: leave it out")
    return draw(data, options.field, options.trajectory)


def _refuse_fields(options: PlotArguments, path: Path) -> None:
    """Refuse what states of ordinary differential equations, which have no grid, cannot give."""
    if options.kind not in ("auto", "states"):
        raise ConfigError(f"kind={options.kind!r}: {options.file} holds states of ODEs, leave it out")
    if path.suffix in ANIMATIONS:
        raise ConfigError(f"output {str(path)!r}: states of ODEs are drawn into {', '.join(PICTURES)}")
    if options.field:
        raise ConfigError(f"field={options.field!r}: all states of {options.file} are drawn, leave it out")
