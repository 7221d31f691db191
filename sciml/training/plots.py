"""Pictures of trained operators: transfer across resolution, spectra, roll-outs, samples, comparisons."""

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .data import Pairs
from .scores import relative_errors
from .spectra import BANDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "draw_samples",
    "plain_numbers",
    "plot_costs",
    "plot_curves",
    "plot_frames",
    "plot_matrix",
    "plot_spectrum",
    "plot_transfer",
    "size",
    "whole_epochs",
]

WORST = ("worst", "second worst", "third worst")


def size(resolution: list[int] | tuple[int, ...]) -> str:
    """Return a grid as text.

    Examples
    --------
    >>> size((43, 43))
    '43 x 43'
    """
    return " x ".join(map(str, resolution))


def _axes(width: float = 6.0, height: float = 3.6) -> tuple["Figure", "Axes"]:
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.grid(alpha=0.3, which="both")
    return figure, ax


def whole_epochs(ax: "Axes") -> None:
    """Label whole epochs only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch")


def plain_numbers(*axes: "Axis") -> None:
    """Label logarithmic axes that span a few decades with several plain numbers."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    for axis in axes:
        low, high = axis.get_view_interval()
        if high > 1000 * low:
            continue
        # Within a factor of 6 there may be one of 1, 2 and 5 only.
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 6 * low else MaxNLocator(5))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def plot_transfer(rows: list[dict[str, Any]]) -> "Figure":
    """Draw errors by resolution of an evaluation, the one of training marked."""
    figure, ax = _axes()
    nodes = [row["resolution"][0] for row in rows]
    for name, label in (
        ("relative_l2", "relative L2, mean"),
        ("worst_relative_l2", "relative L2, worst"),
        ("relative_h1", "relative H1, mean"),
    ):
        ax.plot(nodes, [row.get(name, np.nan) for row in rows], "o-", ms=4, label=label)
    trained = rows[0]["train_resolution"][0]
    ax.axvline(trained, color="k", ls="--", lw=1, label=f"trained at {trained}")
    ax.set(xscale="log", yscale="log", xlabel="nodes along the first axis", ylabel="relative error")
    ax.set_xticks(sorted({*nodes, trained}), [str(n) for n in sorted({*nodes, trained})])
    ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    plain_numbers(ax.yaxis)
    ax.legend()
    return figure


def plot_spectrum(rows: list[dict[str, Any]]) -> "Figure":
    """Draw the energy of target and errors by wavenumber, of an evaluation with spectra."""
    figure, ax = _axes(7.0, 4.0)
    with_spectra = [row for row in rows if "spectrum" in row]
    finest = max(with_spectra, key=lambda row: row["resolution"][0])
    curves = [("target, finest grid", finest["spectrum"]["target"], "k-")]
    curves += [(f"error, {size(row['resolution'])}", row["spectrum"]["error"], "o-") for row in with_spectra]
    for label, energy, style in curves:
        # Of the first shell the lower end is 0, which a logarithmic axis has not.
        ax.plot(np.arange(len(energy)) + 0.5, energy, style, ms=3, label=label)
    for first, _ in list(BANDS.values())[1:]:
        ax.axvline(first, color="0.6", ls=":", lw=1)
    top = max(finest["spectrum"]["target"])
    lowest = min((e for _, energy, _ in curves for e in energy if e > 0), default=top)
    ax.set(xscale="log", yscale="log", ylim=(max(0.3 * lowest, 1e-14 * top), 3 * top))
    ax.set(xlabel="cycles along the longest side (shells k to k + 1)", ylabel="energy")
    ax.legend()
    return figure


def plot_frames(row: dict[str, Any]) -> "Figure":
    """Draw the error of a roll-out over time, with the band from the 10th to the 90th percentile."""
    figure, ax = _axes()
    errors, times = row["frames"]["relative_l2"], row["frames"]["times"]
    ax.plot(times, errors["mean"], "o-", ms=3, label="mean over samples")
    ax.fill_between(times, errors["p10"], errors["p90"], alpha=0.25, label="10 % to 90 % of samples")
    if "correlation_time" in row and row["correlation_time"]["mean"] < row["correlation_time"]["horizon"]:
        threshold = row["correlation_time"]["threshold"]
        mean = row["correlation_time"]["mean"] + row["frames"]["from"]
        ax.axvline(mean, color="k", ls="--", lw=1, label=f"correlation falls to {threshold:g}, mean")
    ax.set(yscale="log", xlabel="time", ylabel="relative L2 error of the frame")
    plain_numbers(ax.yaxis)
    ax.legend()
    return figure


def draw_samples(pairs: Pairs, prediction: Tensor, spacetime: bool = False) -> "Figure":
    """Draw the median and the three worst samples: input, target, prediction and error of the first field.

    Of frames in one dimension all are shown, as an image over space and time; of frames in more, the last one.
    Of volumes the middle slice is shown. Clouds of points have no input but their places.
    """
    import matplotlib.pyplot as plt

    if pairs.cloud:
        return _draw_clouds(pairs, prediction)
    chosen = _median_and_worst(relative_errors(prediction, pairs).numpy())
    framed, dim = spacetime or bool(pairs.history), len(pairs.resolution) - spacetime
    figure, axes = plt.subplots(
        len(chosen), 4, figsize=(12, 2.8 * len(chosen)), layout="constrained", squeeze=False
    )
    channel = max(pairs.history - 1, 0) * pairs.targets.shape[-1]
    for line, (label, row, error) in zip(axes, chosen, strict=True):
        given = pairs.inputs[row, ..., channel]
        given = given[..., 0] if spacetime else given
        target, guess = (values[row, ..., 0] for values in (pairs.targets, prediction))
        inside = None if pairs.mask is None else pairs.mask[row, ..., 0] > 0
        if inside is not None and spacetime:
            inside = inside[..., 0]
        if framed and dim > 1:
            target, guess = target[..., -1], guess[..., -1]
        span = {"vmin": float(target.min()), "vmax": float(target.max())}
        # White is no error.
        largest = float((guess - target).nan_to_num(0.0, 0.0, 0.0).abs().max())
        panels: list[tuple[str, Tensor, dict[str, Any]]] = [
            (f"input {pairs.names[0][0]}", given, {}),
            (f"target {pairs.names[1][0]}", target, span),
            (f"prediction ({label}, {error:.2%})", guess, span),
            ("error", guess - target, {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}),
        ]
        for ax, (title, values, options) in zip(line, panels, strict=True):
            shown = np.where(np.isfinite(values.numpy()), values.numpy(), np.nan)
            if inside is not None:
                over = inside.numpy() if shown.ndim == dim else inside.numpy()[..., None]
                shown = np.where(over, shown, np.nan)
            shown = shown[..., shown.shape[-1] // 2] if dim == 3 else shown
            if shown.ndim == 1:
                ax.plot(pairs.spacing[0] * np.arange(len(shown)), shown)
                ax.set(xlabel="distance from the first node")
            else:
                image = ax.imshow(shown.T, origin="lower", aspect="auto" if dim == 1 else "equal", **options)
                figure.colorbar(image, ax=ax, shrink=0.8)
                ax.set(xticks=[], yticks=[])
            if framed and dim == 1 and shown.ndim == 2:
                ax.set(xlabel="space", ylabel="time")
            ax.set_title(title)
    return figure


def _draw_clouds(pairs: Pairs, prediction: Tensor) -> "Figure":
    """Draw the median and the three worst samples at their points."""
    import matplotlib.pyplot as plt

    from sciml.datasets.point_plots import draw_points

    dim = len(pairs.periodic)
    chosen = _median_and_worst(relative_errors(prediction, pairs).numpy())
    figure = plt.figure(figsize=(10, 2.8 * len(chosen)), layout="constrained")
    for line, (label, row, error) in enumerate(chosen):
        inside = pairs.inputs[row, :, dim] > 0
        shown = pairs.inputs[..., :dim], pairs.targets[..., 0], prediction[..., 0]
        x, target, guess = (values[row, inside].numpy() for values in shown)
        span = {"vmin": float(target.min()), "vmax": float(target.max())} if dim > 1 else {}
        largest = float(np.abs(np.nan_to_num(guess - target, posinf=0.0, neginf=0.0)).max())
        extremes = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest} if dim > 1 else {}
        panels: tuple[tuple[str, np.ndarray, dict[str, Any]], ...] = (
            (f"target {pairs.names[1][0]}", target, span),
            (f"prediction ({label}, {error:.2%})", guess, span),
            ("error", guess - target, extremes),
        )
        for place, (title, values, options) in enumerate(panels, 3 * line + 1):
            ax = figure.add_subplot(len(chosen), 3, place, projection="3d" if dim == 3 else None)
            image = draw_points(ax, x, values, None, **options)
            if dim > 1:
                figure.colorbar(image, ax=ax, shrink=0.8)
            ax.set_title(title)
    return figure


def _median_and_worst(errors: np.ndarray) -> list[tuple[str, int, float]]:
    """Labels, rows and errors of the median sample and the three worst."""
    order = np.argsort(errors)
    chosen = list(zip(WORST, order[::-1].tolist(), strict=False))
    median = int(order[len(order) // 2])
    if median not in [row for _, row in chosen]:
        chosen.insert(0, ("median", median))
    return [(label, row, float(errors[row])) for label, row in chosen]


def plot_curves(groups: list[dict[str, Any]], histories: dict[str, list[dict[str, float]]]) -> "Figure":
    """Draw test errors by epoch of a comparison, seeds as a band from the smallest to the largest."""
    figure, ax = _axes(7.0, 4.2)
    for group in groups:
        curves = [[record["test_relative_l2"] for record in histories[run]] for run in group["runs"]]
        # Runs may stop early: the mean goes as far as all of them do.
        length = min(map(len, curves))
        values = np.array([curve[:length] for curve in curves])
        epochs = np.arange(1, length + 1)
        (line,) = ax.plot(epochs, values.mean(0), label=f"{group['label']} ({len(curves)})")
        if len(curves) > 1:
            ax.fill_between(epochs, values.min(0), values.max(0), color=line.get_color(), alpha=0.2)
    ax.set(yscale="log", ylabel="test relative L2 error")
    whole_epochs(ax)
    plain_numbers(ax.yaxis)
    ax.legend(fontsize="small")
    return figure


def plot_costs(groups: list[dict[str, Any]]) -> "Figure":
    """Draw the test error against parameters and training time, from the smallest to the largest seed."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
    for ax, name, label in zip(
        panels, ("parameters", "seconds"), ("parameters", "training time in seconds"), strict=True
    ):
        for group in groups:
            error = group["test_relative_l2"]
            ends = [[error["mean"] - error["min"]], [error["max"] - error["mean"]]]
            ax.errorbar([group[name]], [error["mean"]], yerr=ends, fmt="o", capsize=3, label=group["label"])
        ax.set(xscale="log", yscale="log", xlabel=label)
        plain_numbers(ax.xaxis, ax.yaxis)
        ax.grid(alpha=0.3, which="both")
    panels[0].set(ylabel="test relative L2 error")
    panels[1].legend(fontsize="small")
    return figure


def plot_matrix(result: dict[str, Any]) -> "Figure":
    """Draw a comparison's mean errors by group and test resolution as a heat map, cells of training framed."""
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    columns = result["resolutions"]
    values = np.full((len(result["matrix"]), len(columns)), np.nan)
    figure, ax = _axes(3.5 + 1.3 * len(columns), 1.4 + 0.5 * len(values))
    ax.grid(visible=False)
    for line, group in enumerate(result["matrix"]):
        for cell in group["cells"]:
            column = columns.index(cell["resolution"])
            values[line, column] = cell.get("relative_l2", {}).get("mean", np.nan)
            if cell["trained_here"]:
                ax.add_patch(
                    Rectangle((column - 0.5, line - 0.5), 1, 1, fill=False, edgecolor="crimson", lw=2.5)
                )
    image = ax.imshow(values, norm=LogNorm(), cmap="viridis_r", aspect="auto")
    figure.colorbar(image, ax=ax, label="relative L2")
    finite = values[np.isfinite(values)]
    middle = np.sqrt(finite.min() * finite.max()) if len(finite) else 0.0
    for (line, column), value in np.ndenumerate(values):
        colour = "white" if value > middle else "black"
        text = f"{value:.4f}" if np.isfinite(value) else "-"
        ax.text(column, line, text, ha="center", va="center", color=colour)
    ax.set_xticks(range(len(columns)), [size(column) for column in columns])
    ax.set_yticks(range(len(values)), [group["label"] for group in result["matrix"]])
    ax.set(xlabel="tested at")
    return figure
