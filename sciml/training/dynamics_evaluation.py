"""Roll-outs of a learned vector field beside trajectories that it did not see."""

from pathlib import Path
from typing import Any

import numpy as np

from sciml.dynamics import LearnedField
from sciml.errors import ConfigError
from sciml.files import atomic_folder, refuse_folder, write_json
from sciml.operators.base import MODEL_FILE
from sciml.operators.storage import load_tensors
from sciml.report import Report

from .dynamics import DynamicsConfig, predict_states
from .dynamics_data import load_trajectories
from .dynamics_reports import plot_roll_out
from .equations import read_equation

__all__ = ["dynamics_table", "evaluate_dynamics"]

MARKER = "evaluation.json"
TOLERATED = 0.1
"""Error, as a part of the trajectory's size, up to which a roll-out is valid."""


def evaluate_dynamics(
    run: str | Path, data: str | Path, output: str | Path | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Roll trajectories of a dataset out from their first frames, and compare.

    By the equation with chosen terms, where the run has one, else by the network. Trajectories that the run trained on
    are left out, unless there are no others.

    Parameters
    ----------
    run : path
        Run folder of `train_dynamics`.
    data : path
        Dataset with the variables of the run's, at times of its own.
    output : path, optional
        Folder for ``evaluation.json``, pictures and ``report.html``.
    overwrite : bool

    Returns
    -------
    dict
        "trajectories", "by" ("network" or "equation"), "seen" (whether these were trained on), "times", and by time of
        the relative L2 errors of states "median", "mean", "worst" and how many are "diverged" (not finite);
        "valid_time", the median of the times up to which the error is below a tenth.

    Raises
    ------
    ConfigError
        If variables, or the spacing of a grid, are not those of the run.
    OutputExistsError
        If the folder is taken.
    """
    if output is not None:
        refuse_folder(output, MARKER, overwrite)
    model = LearnedField.load(run)
    header = load_tensors(Path(run) / MODEL_FILE, "dynamics")[1]
    config = DynamicsConfig.stored(header["train"])
    found = load_trajectories(data, config.stride)
    if found.variables != model.variables or not np.allclose(
        found.spacing, header["data"]["spacing"], rtol=1e-6
    ):
        raise ConfigError(
            f"dataset {str(data)!r} has {', '.join(found.variables)} at spacing {found.spacing}; the run "
            f"{', '.join(model.variables)} at {tuple(header['data']['spacing'])}: evaluate on the same"
        )
    rows = np.arange(len(found))
    seen = False
    if found.config == header["data"]["config"]:
        start, stop = header["data"]["train_rows"]
        unseen = rows[(rows < start) | (rows >= stop)]
        rows, seen = (unseen, False) if len(unseen) else (rows, True)
    truth = found.states[rows]
    equation = read_equation(run)
    field = model if equation is None else equation
    predicted = predict_states(field, truth[:, 0], found.times, config.substeps)
    flat = (len(rows), len(found.times), -1)
    with np.errstate(all="ignore"):
        size = np.linalg.norm(truth.reshape(flat), axis=2).clip(1e-300)
        errors = np.linalg.norm((predicted - truth).reshape(flat), axis=2) / size
    errors = np.where(np.isfinite(errors), errors, np.inf)
    valid = [
        found.times[np.argmax(e > TOLERATED) - 1] if (e > TOLERATED).any() else found.times[-1]
        for e in errors
    ]
    result: dict[str, Any] = {
        "trajectories": len(rows),
        "by": "network" if equation is None else "equation",
        "seen": seen,
        "times": found.times.tolist(),
        "median": _numbers(np.median(errors, axis=0)),
        "mean": _numbers(errors.mean(axis=0)),
        "worst": _numbers(errors.max(axis=0)),
        "diverged": np.isinf(errors).sum(axis=0).tolist(),
        "valid_time": float(np.median(valid)),
    }
    if output is not None:
        with atomic_folder(output, MARKER, overwrite) as folder:
            report = Report(f"Evaluation of {run} on {data}", folder)
            report.text(summary(result))
            report.table(*dynamics_table(result))
            frames = config.frames or len(found.times)
            worst = int(rows[int(errors[:, -1].argmax())])
            figure = plot_roll_out(field, found, worst, min(frames, len(found.times)), config.substeps)
            report.figure(figure, "roll-out", f"Trajectory {worst}, that with the largest error at the end.")
            report.save()
            write_json(folder / MARKER, result)
    return result


def summary(result: dict[str, Any]) -> str:
    """Return one sentence about an evaluation."""
    what = "that the run trained on" if result["seen"] else "that the run did not see"
    return (
        f"Roll-outs, by the {result['by']}, of {result['trajectories']} trajectories {what}, from their first frames: "
        f"relative L2 errors by time; below {TOLERATED:g} up to t = {result['valid_time']:.4g} (median)."
    )


def dynamics_table(result: dict[str, Any], lines: int = 8) -> tuple[list[str], list[list[object]]]:
    """Return head and rows of a table of some of the times."""
    last = len(result["times"]) - 1
    places = sorted({round(last * k / lines) for k in range(1, lines + 1)} - {0})
    rows: list[list[object]] = []
    for k in places:
        values = (result[name][k] for name in ("median", "mean", "worst"))
        cells = ("diverged" if value is None else f"{value:.3g}" for value in values)
        rows.append([f"{result['times'][k]:.4g}", *cells, result["diverged"][k]])
    return ["t", "median", "mean", "worst", "diverged"], rows


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]
