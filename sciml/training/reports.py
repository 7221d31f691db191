"""The pages that training and evaluation leave in their folders."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["evaluation_table", "plot_history", "report_evaluation", "report_training"]


def plot_history(history: list[dict[str, float]]) -> "Figure":
    """Draw training loss and test error by epoch."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    epochs = [record["epoch"] + 1 for record in history]
    ax.semilogy(epochs, [record["train_loss"] for record in history], "o-", ms=3, label="training loss")
    ax.semilogy(
        epochs, [record["test_relative_l2"] for record in history], "s-", ms=3, label="test relative L2"
    )
    ax.set(xlabel="epoch", ylabel="relative L2 error")
    ax.grid(alpha=0.3, which="both")
    ax.legend()
    return figure


def report_training(output: Path, resolved: dict[str, Any], result: dict[str, Any]) -> None:
    """Write ``report.html`` and ``loss.png`` of a run."""
    data, model, settings = resolved["data"], resolved["model"], resolved["train"]
    report = Report(f"Training run {output.name}", output)
    report.text(
        f"{model['architecture']} ({result['parameters']:,} parameters), trained on {result['n_train']} samples of "
        f"{data['file']} at {' x '.join(map(str, data['resolution']))} for {settings['epochs']} epochs in "
        f"{result['seconds']:.0f} s."
    )
    report.text(f"Relative L2 error on {result['n_test']} test samples: {result['test_relative_l2']:.4f}.")
    report.figure(plot_history(result["history"]), "loss", "Training loss and test error, relative L2.")
    report.section("Settings")
    report.table(["setting", "value"], [*model.items(), *settings.items()])
    report.save()


def evaluation_table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """Return head and cells of an evaluation's table."""
    head = ["resolution", "samples", "relative L2", "relative H1", "worst relative L2"]
    cells = [
        [
            " x ".join(map(str, row["resolution"])),
            row["samples"],
            f"{row['relative_l2']:.4f}",
            f"{row['relative_h1']:.4f}",
            f"{row['worst_relative_l2']:.4f}",
        ]
        for row in rows
    ]
    return head, cells


def report_evaluation(
    output: Path, run: str, data: str, rows: list[dict[str, Any]], samples: "Figure"
) -> None:
    """Write ``report.html`` and ``samples.png`` of an evaluation."""
    report = Report(f"Evaluation of {run} on {data}", output)
    report.text(
        "The same weights on every grid. Relative L2 and H1 errors are ratios over all points of a sample, "
        "averaged over samples that the run did not train on."
    )
    report.table(*evaluation_table(rows))
    report.figure(samples, "samples", "The median and the worst sample at the finest resolution.")
    report.save()
