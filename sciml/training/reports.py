"""The pages that training and evaluation leave in their folders."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.report import Report

from .plots import (
    plain_numbers,
    plot_costs,
    plot_curves,
    plot_frames,
    plot_matrix,
    plot_spectrum,
    plot_transfer,
    size,
    whole_epochs,
)
from .scores import WINDOWS
from .spectra import BANDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "bands_table",
    "comparison_tables",
    "evaluation_table",
    "metrics_table",
    "no_skill",
    "plot_history",
    "report_comparison",
    "report_evaluation",
    "report_training",
]

PER_SAMPLE = "of one ratio over all points, frames and channels of a sample"
MEAN = "mean over samples, frames and channels"
BANDED = "root mean square over samples, mean over shells, frames and channels"
# Part of an evaluation's row, name, label, reduction.
METRICS = (
    ("", "relative_l2", "relative L2", f"mean over samples {PER_SAMPLE}"),
    ("", "median_relative_l2", "relative L2", f"median over samples {PER_SAMPLE}"),
    ("", "worst_relative_l2", "relative L2", f"largest over samples {PER_SAMPLE}"),
    ("", "relative_h1", "relative H1", f"mean over samples {PER_SAMPLE}, gradients in space"),
    ("pdebench", "RMSE", "PDEBench RMSE", f"{MEAN} of the root over points"),
    ("pdebench", "nRMSE", "PDEBench nRMSE", f"{MEAN} of the ratio of roots over points"),
    (
        "pdebench",
        "max",
        "PDEBench max",
        "mean over frames and channels of the largest over samples and points",
    ),
    (
        "pdebench",
        "cRMSE",
        "PDEBench cRMSE",
        "root mean square over samples of the mean over points, mean of these",
    ),
    ("pdebench", "bRMSE", "PDEBench bRMSE", f"{MEAN} of the root over the sides"),
    ("pdebench", "fRMSE low", "PDEBench fRMSE low", BANDED),
    ("pdebench", "fRMSE mid", "PDEBench fRMSE mid", BANDED),
    ("pdebench", "fRMSE high", "PDEBench fRMSE high", BANDED),
    ("well", "VRMSE", "The Well's VRMSE", MEAN),
    *(
        ("well", f"VRMSE {first}:{stop}", f"The Well's VRMSE {first}:{stop}", f"{MEAN}, these frames only")
        for first, stop in WINDOWS
    ),
    ("well", "NRMSE", "The Well's NRMSE", MEAN),
    ("well", "NMAE", "The Well's NMAE", MEAN),
    ("well", "Linf", "The Well's Linf", f"{MEAN} of the largest over points"),
    ("well", "Pearson r", "The Well's Pearson r", MEAN),
)


def plot_history(history: list[dict[str, float]]) -> "Figure":
    """Draw training loss and test error by epoch."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    epochs = [record["epoch"] + 1 for record in history]
    ax.semilogy(epochs, [record["train_loss"] for record in history], "o-", ms=3, label="training loss")
    ax.semilogy(
        epochs, [record["test_relative_l2"] for record in history], "s-", ms=3, label="test relative L2"
    )
    if "valid_relative_l2" in history[0]:
        ax.semilogy(
            epochs,
            [record["valid_relative_l2"] for record in history],
            "^-",
            ms=3,
            label="validation relative L2",
        )
    ax.set(ylabel="relative error")
    whole_epochs(ax)
    plain_numbers(ax.yaxis)
    ax.grid(alpha=0.3, which="both")
    ax.legend()
    return figure


def report_training(output: Path, resolved: dict[str, Any], result: dict[str, Any]) -> None:
    """Write ``report.html`` and ``loss.png`` of a run."""
    data, model, settings = resolved["data"], resolved["model"], resolved["train"]
    report = Report(f"Training run {output.name}", output)
    report.text(
        f"{model['architecture']} ({result['parameters']:,} parameters), trained on {result['n_train']} samples of "
        f"{data['file']} at {size(data['resolution'])} for {len(result['history'])} epochs in "
        f"{result['seconds']:.0f} s."
    )
    report.text(
        f"Relative L2 error on {result['n_test']} test samples: {result['test_relative_l2']:.4f}, of the weights after "
        f"epoch {result['epoch'] + 1}{no_skill(result['no_skill'])}."
    )
    report.figure(
        plot_history(result["history"]),
        "loss",
        "Training loss, and relative L2 errors of samples that are not trained on.",
    )
    report.section("Settings")
    report.table(["setting", "value"], [*model.items(), *settings.items()])
    report.save()


def _number(value: float | None, form: str = ".4f") -> str:
    """A cell; what is not defined, or has diverged, has no number."""
    return "-" if value is None else f"{value:{form}}"


NO_SKILL = {"zero": "zero", "mean": "the mean of the other targets", "last frame": "the last given frame"}


def no_skill(errors: dict[str, float]) -> str:
    """Return the smallest error that takes no model, in brackets.

    Examples
    --------
    >>> no_skill({"mean": 0.5, "last frame": 0.25})
    ' (0.2500 without a model: the last given frame)'
    """
    name = min(errors, key=lambda guess: errors[guess])
    return f" ({errors[name]:.4f} without a model: {NO_SKILL[name]})"


def evaluation_table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """Return head and cells of an evaluation's main table, one line per resolution."""
    head = [
        *("resolution", "samples", "relative L2", "no model", "median", "worst", "relative H1"),
        *(["VRMSE"] if any("well" in row for row in rows) else []),
        *(["folded"] if any("folded" in row for row in rows) else []),
        "ms/sample",
    ]
    cells: list[list[object]] = [
        [
            size(row["resolution"]) + (" (trained)" if row["trained_here"] else ""),
            row["samples"],
            _number(row.get("relative_l2")),
            _number(min(row["no_skill"].values())),
            _number(row.get("median_relative_l2")),
            _number(row.get("worst_relative_l2")),
            _number(row.get("relative_h1")),
            *([_number(row.get("well", {}).get("VRMSE"))] if "VRMSE" in head else []),
            *([f"{row['folded']:.2%}"] if "folded" in head else []),
            _number(1000 * row["seconds_per_sample"], ".3g"),
        ]
        for row in rows
    ]
    return head, cells


def metrics_table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """Return head and cells of the table of all metrics, with what each number is a mean of."""
    head = ["metric", "reduction", *(size(row["resolution"]) for row in rows)]
    cells: list[list[object]] = []
    for part, name, label, reduction in METRICS:
        values = [(row if not part else row.get(part, {})).get(name) for row in rows]
        if any(value is not None for value in values):
            cells.append([label, reduction, *(_number(value, ".4g") for value in values)])
    return head, cells


def bands_table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """Return head and cells of the errors by band of wavenumbers."""
    head = ["resolution", *(f"{band}, of {whole}" for band in BANDS for whole in ("target", "band"))]
    cells: list[list[object]] = [
        [
            size(row["resolution"]),
            *(
                _number(row["spectrum"]["bands"].get(band, {}).get(f"of_{whole}"), ".4g")
                for band in BANDS
                for whole in ("target", "band")
            ),
        ]
        for row in rows
        if "spectrum" in row
    ]
    return head, cells


def report_evaluation(
    output: Path, run: str, data: str, rows: list[dict[str, Any]], samples: "Figure"
) -> None:
    """Write ``report.html`` and the pictures of an evaluation."""
    report = Report(f"Evaluation of {run} on {data}", output)
    report.text(
        f"The same weights on every grid, trained at {size(rows[0]['train_resolution'])}, on samples that the run "
        "neither trained on nor chose its weights by. Relative L2 is one ratio over all points, frames and channels "
        "of a sample; the table has its mean, median and largest value over samples, and the mean of relative H1 "
        "(gradients in space). VRMSE is the mean over samples, frames and channels; 'folded' the share of points where "
        "a learned deformation turns orientations over. 'no model' is the mean relative L2 "
        "of the best of these guesses: zero, the mean of the other samples' targets and, in time, the last given frame."
    )
    report.table(*evaluation_table(rows))
    if diverged := max(row["diverged"] for row in rows):
        report.text(f"Up to {diverged} predictions are not finite: means over samples are then left out.")
    if len(rows) > 1:
        report.figure(plot_transfer(rows), "transfer", "Errors by resolution, with the same weights.")
    first = rows[0]
    report.text(
        f"Time per sample: wall-clock, for the whole target, in batches of {first['batch_size']} on "
        f"{first['device']}, after a first batch that does not count."
    )
    finest = min(rows, key=lambda row: row["stride"])
    if "frames" in finest:
        _report_frames(report, finest)
    if any("spectrum" in row for row in rows):
        report.section("Error by wavenumber")
        report.text(
            "Energy by cycles along the longest side, all directions together, means over samples and frames, channels "
            "added. Periodic axes by the Fourier transform, bounded ones by the cosine transform (the function "
            "reflected at both ends, so that it does not jump). Bands: low below 4 cycles, mid from 4, high from 12. "
            "'of target': root of the error's energy in the band over all of the target's; the squares of the bands "
            "add up. 'of band': over the target's energy in the same band."
        )
        report.table(*bands_table(rows))
        report.figure(plot_spectrum(rows), "spectrum", "Energy of the target, and of the error on each grid.")
    report.section("Samples")
    report.figure(
        samples,
        "samples",
        f"Samples at {size(finest['resolution'])}, by relative L2: the worst ones and, unless it is one of them, the "
        "median one.",
    )
    report.section("All metrics")
    report.table(*metrics_table(rows))
    if "pdebench" not in first:
        report.text("The targets are defined on a part of the grid: other metrics do not know of masks.")
    report.save()


def _report_frames(report: Report, row: dict[str, Any]) -> None:
    report.section("Error over time")
    frames = row["frames"]
    report.text(
        f"Relative L2 by predicted frame, over points and channels, at {size(row['resolution'])}; the last given frame "
        f"is that of t = {frames['from']:g}."
    )
    if "correlation_time" in row:
        found = row["correlation_time"]
        whole = f"{found['horizon']:.4g}"
        if found["never"] == row["samples"]:
            text = f"stays above {found['threshold']:g} for all {whole} units of time, in all samples."
        else:
            text = (
                f"falls below {found['threshold']:g} after {found['mean']:.4g} units of time, mean over samples; "
                f"{found['never']} of {row['samples']} never do and count with all {whole}."
            )
        report.text(f"Correlation with the target {text}")
    if frames["times"]:
        report.figure(plot_frames(row), "frames", "Error over time: mean, and 10 % to 90 % of the samples.")


Table = tuple[list[str], list[list[object]]]


def comparison_tables(result: dict[str, Any]) -> list[tuple[str, Table]]:
    """Return headings and tables of a comparison: runs, seeds, settings, resolutions; those that there are."""
    labels = [group["label"] for group in result["groups"]]
    runs: list[list[object]] = [
        [
            *(run["run"], run["group"], f"{run['parameters']:,}", run["seed"], size(run["train_resolution"])),
            *(run["epochs"], f"{run['seconds']:.0f}", f"{run['test_relative_l2']:.4f}"),
        ]
        for run in result["runs"]
    ]
    head = ["run", "model", "parameters", "seed", "trained at", "epochs", "seconds", "test relative L2"]
    tables: list[tuple[str, Table]] = [("Runs", (head, runs))]
    if any(len(group["runs"]) > 1 for group in result["groups"]):
        seeds: list[list[object]] = [
            [
                *(group["label"], len(group["runs"])),
                *(_number(group["test_relative_l2"].get(name)) for name in ("mean", "std", "min", "max")),
            ]
            for group in result["groups"]
        ]
        head = ["test relative L2", "runs", "mean", "std (n - 1)", "min", "max"]
        tables.append(("Over seeds", (head, seeds)))
    if result["settings"]:
        settings: list[list[object]] = [
            [name, *("-" if value is None else value for value in values)]
            for name, values in result["settings"].items()
        ]
        tables.append(("Settings that differ", (["setting", *labels], settings)))
    if "matrix" in result:
        head = ["tested at", *(size(resolution) for resolution in result["resolutions"])]
        tables.append((f"Across resolution, on {result['data']}", (head, _matrix_cells(result))))
    return tables


def _matrix_cells(result: dict[str, Any]) -> list[list[object]]:
    lines: list[list[object]] = []
    for group in result["matrix"]:
        cells = {tuple(cell["resolution"]): cell for cell in group["cells"]}
        line: list[object] = [group["label"]]
        for resolution in result["resolutions"]:
            cell = cells.get(tuple(resolution), {"trained_here": False})
            mean = _number(cell.get("relative_l2", {}).get("mean"))
            line.append(f"{mean} (trained)" if cell["trained_here"] else mean)
        lines.append(line)
    return lines


def report_comparison(
    output: Path, result: dict[str, Any], histories: dict[str, list[dict[str, float]]]
) -> None:
    """Write ``report.html`` and the pictures of a comparison."""
    report = Report(f"Comparison of {len(result['runs'])} runs", output)
    report.text(
        "Test errors are those of the weights that each run kept, means over its own test samples of the relative L2 "
        "error over all points, frames and channels of a sample. Runs that differ only in the seed are one model."
    )
    for note in result["notes"]:
        report.text(note)
    for heading, (head, cells) in comparison_tables(result):
        report.section(heading)
        report.table(head, cells)
    if "matrix" in result:
        report.text(
            f"Mean relative L2 on the same {result['samples']} samples for all, which none of the runs trained on or "
            "chose its weights by; means over seeds; '-' where a model cannot read the grid. 'trained' marks the "
            "resolution of training."
            + (" The runs are not of the same problem, see above." if result["notes"] else "")
        )
        report.figure(plot_matrix(result), "matrix", "Errors by model and test resolution, training framed.")
    report.section("Training")
    curves = plot_curves(result["groups"], histories)
    report.figure(
        curves,
        "curves",
        "Test error by epoch: mean over seeds, shaded from the smallest to the largest; runs in brackets.",
    )
    report.figure(
        plot_costs(result["groups"]),
        "costs",
        "Test error against size and training time; bars from the smallest to the largest seed.",
    )
    report.save()
