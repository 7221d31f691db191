"""How good a trained operator is, and how it transfers across resolution."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.files import atomic_folder, refuse_folder, write_json
from sciml.operators import GeoFNO, Operator

from .data import Pairs, rows_on
from .held_out import at_strides, frame_times, held_out_pairs, model_header, read_pairs, unseen_rows
from .parallel import resolve_device
from .plots import draw_samples
from .prediction import predict, predict_pairs
from .reports import report_evaluation
from .scores import scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["device_name", "evaluate", "held_out_pairs", "plot_samples", "timed_prediction"]

MARKER = "evaluation.json"
BATCH = 20


def evaluate(
    run: str | Path,
    data: str | Path,
    *,
    strides: tuple[int, ...] = (),
    device: str = "auto",
    output: str | Path | None = None,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Evaluate a trained operator at several resolutions.

    Parameters
    ----------
    run : path
        Run folder.
    data : path
        Dataset; samples that the run trained on, or chose its weights by, are left out.
    strides : tuple of int
        Evaluate on every stride-th node; by default 1, 2, 4, ... as long as the grid allows it and
        the model's wavenumbers are resolved.
    device : str
    output : path, optional
        Folder for ``evaluation.json``, pictures and ``report.html``.
    overwrite : bool
        Replace an existing folder's files.

    Returns
    -------
    list of dict
        Per stride: "resolution", "stride", "samples", "train_resolution" and "trained_here", whether both agree;
        the metrics of `sciml.training.scores.scores`: "no_skill", "relative_l2" and "relative_h1" (means over the
        samples), "median_relative_l2", "worst_relative_l2", "pdebench", "well", "spectrum", "frames",
        "correlation_time", where they are defined; "seconds_per_sample", wall-clock time to predict one whole sample
        (all frames of a roll-out), in batches of "batch_size" on "device", after one batch that does not count; of a
        `GeoFNO` "folded", the share of points where its deformation turns orientations over.

    Raises
    ------
    ConfigError
        If the dataset's fields or grid do not fit the model.
    OutputExistsError
        If ``output`` exists.

    Examples
    --------
    >>> from sciml.training import evaluate
    >>> for row in evaluate("runs/darcy", "darcy.h5"):  # doctest: +SKIP
    ...     print(row["resolution"], row["relative_l2"], row["well"]["VRMSE"])
    """
    if output is not None:
        refuse_folder(output, MARKER, overwrite)
    model, header = Operator.load(run).to(resolve_device(device)), model_header(run)
    # The file is read once, the coarser grids are part of the finest.
    single = strides[0] if len(strides) == 1 else 1
    pairs = read_pairs(header, data, single)
    pairs = pairs.subset(unseen_rows(header, pairs, data))
    times = frame_times(header, data, pairs)
    spacetime = header["train"]["task"] == "spacetime"
    axes = len(pairs.resolution) - spacetime
    grids = [(single, pairs)] if len(strides) == 1 else at_strides(model, pairs, axes, strides)
    rows: list[dict[str, Any]] = []
    finest: tuple[int, Pairs, Tensor] | None = None
    for stride, part in grids:
        prediction, seconds = timed_prediction(model, part)
        trained = header["data"]["resolution"]
        rows.append(
            {
                "resolution": list(part.resolution),
                "stride": stride,
                "samples": len(part),
                "train_resolution": trained,
                "trained_here": list(part.resolution) == trained,
                **scores(prediction, part, times),
                "seconds_per_sample": seconds,
                "batch_size": min(BATCH, len(part)),
                "device": device_name(model),
            }
        )
        if isinstance(model, GeoFNO):
            rows[-1]["folded"] = _folded(model, part)
        if finest is None or stride < finest[0]:
            finest = stride, part, prediction
    if output is not None and finest is not None:
        figure = draw_samples(finest[1], finest[2], spacetime)
        with atomic_folder(output, MARKER, overwrite) as folder:
            write_json(folder / MARKER, rows)
            report_evaluation(folder, Path(run).resolve().name, Path(data).name, rows, figure)
    return rows


def timed_prediction(model: Operator, pairs: Pairs) -> tuple[Tensor, float]:
    """Predict the targets of pairs; return seconds per sample, too, transfer from and to memory included."""
    # What is allocated and planned once is not timed.
    predict(model, pairs.inputs[:BATCH], BATCH)
    started = time.perf_counter()
    # Results are on the CPU: nothing is still to be computed when they are there.
    prediction = predict_pairs(model, pairs, BATCH)
    return prediction, (time.perf_counter() - started) / len(pairs)


def _folded(model: GeoFNO, pairs: Pairs) -> float:
    """Share of the points of all samples where the deformation turns orientations over."""
    device = model.input_mean.device
    rows = (rows_on(device, pairs.inputs, slice(row, row + 1)) for row in range(len(pairs)))
    return float(torch.cat([model.folded(row) for row in rows]).mean())


def device_name(model: Operator) -> str:
    """Return what a model runs on, for a table of timings."""
    device = model.input_mean.device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads()
    return f"CPU, {count} thread{'s' if count > 1 else ''}"


def plot_samples(run: str | Path, data: str | Path, stride: int = 1) -> "Figure":
    """Draw the median and the worst held-out samples: input, target, prediction and error."""
    header, pairs = model_header(run), held_out_pairs(data, stride, run)
    prediction = predict_pairs(Operator.load(run), pairs)
    return draw_samples(pairs, prediction, header["train"]["task"] == "spacetime")
