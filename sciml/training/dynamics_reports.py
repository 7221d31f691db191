"""Pictures and the page of a run that learned dynamics."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.dynamics import LearnedField, StencilODE
from sciml.dynamics.identification import Equation
from sciml.report import Report

from .dynamics_data import Trajectories

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["error_rows", "report_dynamics"]


def error_rows(errors: dict[str, dict[str, float | None]]) -> list[list[object]]:
    """Return table rows of roll-out errors: trajectories, over the training frames, at the last one."""
    return [
        [name, *("diverged" if value is None else f"{value:.3g}" for value in values.values())]
        for name, values in errors.items()
    ]


def plot_roll_out(
    model: LearnedField | Equation, data: Trajectories, row: int, frames: int, substeps: int
) -> "Figure":
    """Draw one trajectory and its roll-out: components against time, or space-time images."""
    import matplotlib.pyplot as plt

    from .dynamics import predict_states

    truth = data.states[row]
    found = predict_states(model, truth[None, 0], data.times, substeps)[0]
    span = float(np.nanmax(abs(truth))) or 1.0
    found = np.where(np.isfinite(found), found, np.nan)
    if not data.spacing:
        figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
        for k, name in enumerate(data.variables):
            axes.plot(data.times, truth[:, k], color=f"C{k}", label=name)
            axes.plot(data.times, found[:, k], "--", color="k", lw=0.9, label="roll-out" if k == 0 else None)
        axes.axvline(data.times[frames - 1], color="0.6", lw=0.8)
        axes.set_ylim(-1.3 * span if truth.min() < 0 else 0, 1.3 * span)
        axes.set_xlabel("t")
        axes.legend()
        return figure
    figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True, layout="constrained")
    # Of two axes the middle row.
    middle = (slice(None), slice(None), *[truth.shape[2] // 2] * (len(data.spacing) - 1), 0)
    both = [truth[middle], found[middle]]
    extent = (0.0, data.spacing[0] * truth.shape[1], data.times[0], data.times[-1])
    for panel, values, title in zip(
        panels, [*both, both[1] - both[0]], ("truth", "roll-out", "difference"), strict=True
    ):
        image = panel.imshow(values, origin="lower", aspect="auto", extent=extent)
        panel.axhline(data.times[frames - 1], color="w", lw=0.8)
        panel.set_title(title)
        panel.set_xlabel("x")
        figure.colorbar(image, ax=panel)
    panels[0].set_ylabel("t")
    return figure


def plot_costs(history: list[dict[str, float]]) -> "Figure":
    """Draw the cost against steps, stage by stage."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    costs = [record["cost"] for record in history]
    axes.semilogy(range(1, len(costs) + 1), np.maximum(costs, 1e-300))
    for place in range(1, len(history)):
        if history[place]["stage"] != history[place - 1]["stage"]:
            axes.axvline(place + 0.5, color="0.6", lw=0.8)
    axes.set_xlabel("step")
    axes.set_ylabel("mean squared error of segments")
    return figure


def report_dynamics(
    output: Path,
    resolved: dict[str, Any],
    result: dict[str, Any],
    model: LearnedField,
    data: Trajectories,
    equation: Equation | None,
) -> None:
    """Write ``report.html`` with the errors, the equation, and pictures."""
    train = resolved["train"]
    frames = train["frames"] or len(data.times)
    report = Report(f"Dynamics: {output.name}", output)
    report.text(
        f"{resolved['model']['architecture']} of {result['parameters']} numbers, trained on "
        f"{resolved['data']['file']}, {frames} of {len(data.times)} frames, in {result['seconds']:.1f} s."
    )
    report.section("Errors of roll-outs from the first frame")
    report.table(["trajectories", "over training frames", "last frame"], error_rows(result["errors"]))
    if equation is not None:
        report.section("Equation")
        report.code(equation.text())
        report.text(
            f"Standard errors in brackets. Fitted to segments of {equation.window} frames; errors of the fit: "
            + ", ".join(f"{v:.3g}" for v in equation.residual)
        )
    elif result["note"]:
        report.section("Equation")
        report.text(result["note"])
    elif isinstance(model, StencilODE):
        report.section("Stencil")
        report.code(model.polynomial().text([f"d{name}/dt" for name in model.variables]))
    report.section("Roll-out")
    rows = resolved["data"]["test_rows"]
    row = rows[0] if rows[1] > rows[0] else 0
    figure = plot_roll_out(equation or model, data, row, frames, train["substeps"])
    by = "network" if equation is None else "equation"
    caption = f"Trajectory {row}, by the {by}; the line is the last training time."
    report.figure(figure, "roll-out", caption)
    if result["history"]:
        report.section("Training")
        report.figure(plot_costs(result["history"]), "cost", "Cost; lines part stages.")
    report.save()
