"""How good a trained operator is, and how it transfers across resolution."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.errors import ConfigError
from sciml.files import atomic_folder, refuse_folder, write_json
from sciml.metrics import relative_h1, relative_l2
from sciml.operators import Operator
from sciml.operators.base import MODEL_FILE
from sciml.operators.storage import load_tensors

from .data import Pairs, load_pairs
from .parallel import resolve_device
from .prediction import predict_pairs
from .reports import report_evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["evaluate", "held_out_pairs", "plot_samples"]


MARKER = "evaluation.json"


def held_out_pairs(data: str | Path, stride: int, run: str | Path) -> Pairs:
    """Read the pairs of a dataset on which a run did not train.

    Trajectories of the run's own recipe whose seeds it trained on are left out, at any resolution; of a file
    without seeds that was imported from the same source, or has the same name, those at the same places.

    Raises
    ------
    ConfigError
        If nothing is left, or the dataset's fields are not those of the run.
    """
    header = load_tensors(Path(run) / MODEL_FILE, "model")[1]
    trained, settings = header["data"], header["train"]
    pairs = load_pairs(data, stride, settings["task"], settings["n_in"], settings["n_out"])
    for role, names in zip(("inputs", "targets"), pairs.names, strict=True):
        if list(names) != trained[role]:
            raise ConfigError(
                f"dataset {str(data)!r} has {role} {', '.join(names)}, the run {', '.join(trained[role])}: "
                "evaluate on the same fields"
            )
    if pairs.seeds is not None and (pairs.seeds >= 0).all():
        if trained["config"].get("recipe") != pairs.config.get("recipe"):
            return pairs
        rows = np.flatnonzero(~np.isin(pairs.seeds, trained["train_seeds"] or []))
    elif pairs.config == trained["config"] and (pairs.config or Path(data).name == trained["file"]):
        rows = np.setdiff1d(np.arange(len(pairs)), np.arange(*trained["train_rows"]))
    else:
        return pairs
    if len(rows) == 0:
        raise ConfigError(f"dataset {str(data)!r}: the run trained on all of it; give one with other seeds")
    return pairs.subset(rows)


def _fits(model: Operator, resolution: tuple[int, ...]) -> bool:
    try:
        model.check_resolution(resolution)
    except ConfigError:
        return False
    return True


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
        Dataset; samples that the run trained on are left out.
    strides : tuple of int
        Evaluate on every stride-th node; by default 1, 2, 4, ... as long as the grid allows it and
        the model's wavenumbers are resolved.
    device : str
    output : path, optional
        Folder for ``evaluation.json``, ``samples.png`` and ``report.html``.
    overwrite : bool
        Replace an existing folder's files.

    Returns
    -------
    list of dict
        Per stride: "resolution", "stride", "samples", "relative_l2" and "relative_h1" (means over the
        samples), "worst_relative_l2".

    Raises
    ------
    ConfigError
        If the dataset's fields or grid do not fit the model.
    OutputExistsError
        If ``output`` exists.
    """
    if output is not None:
        refuse_folder(output, MARKER, overwrite)
    model = Operator.load(run).to(resolve_device(device))
    rows: list[dict[str, Any]] = []
    for stride in strides or (1, 2, 4, 8, 16):
        try:
            pairs = held_out_pairs(data, stride, run)
        except ConfigError:
            if strides or stride == 1:
                raise
            break
        if pairs.periodic != model.periodic:
            raise ConfigError(
                f"dataset {str(data)!r} has periodic axes {pairs.periodic}, the model {model.periodic}: "
                "evaluate on the same kind of grid"
            )
        if not strides and stride > 1 and not _fits(model, pairs.resolution):
            break
        prediction = predict_pairs(model, pairs)
        l2 = relative_l2(prediction, pairs.targets, pairs.target_mask)
        h1 = relative_h1(prediction, pairs.targets, pairs.spacing, pairs.periodic, pairs.target_mask)
        rows.append(
            {
                "resolution": list(pairs.resolution),
                "stride": stride,
                "samples": len(pairs),
                "relative_l2": float(l2.mean()),
                "relative_h1": float(h1.mean()),
                "worst_relative_l2": float(l2.max()),
            }
        )
    if output is not None:
        finest = min(rows, key=lambda row: row["stride"])
        figure = plot_samples(run, data, finest["stride"])
        with atomic_folder(output, MARKER, overwrite) as folder:
            write_json(folder / MARKER, rows)
            report_evaluation(folder, Path(run).name, Path(data).name, rows, figure)
    return rows


def plot_samples(run: str | Path, data: str | Path, stride: int = 1) -> "Figure":
    """Draw the median and the worst held-out sample: input, target, prediction and error."""
    import matplotlib.pyplot as plt

    model, pairs = Operator.load(run), held_out_pairs(data, stride, run)
    prediction = predict_pairs(model, pairs)
    errors = relative_l2(prediction, pairs.targets, pairs.target_mask).numpy()
    order = np.argsort(errors)
    chosen = [("median", order[len(order) // 2]), ("worst", order[-1])]
    dim = len(pairs.resolution)
    # Of a volume, the middle slice.
    middle = (slice(None), slice(None), pairs.resolution[-1] // 2) if dim == 3 else ()
    figure, axes = plt.subplots(2, 4, figsize=(12, 5.6), layout="constrained")
    for line, (label, row) in zip(axes, chosen, strict=True):
        inside = None if pairs.mask is None else pairs.mask[row, ..., 0].numpy() > 0
        target, guess = pairs.targets[row, ..., 0].numpy(), prediction[row, ..., 0].numpy()
        span = {"vmin": float(target.min()), "vmax": float(target.max())}
        panels: list[tuple[str, np.ndarray, dict[str, Any]]] = [
            (f"input {pairs.names[0][0]}", pairs.inputs[row, ..., 0].numpy(), {}),
            (f"target {pairs.names[1][0]}", target, span),
            (f"prediction ({label}, {errors[row]:.2%})", guess, span),
            ("error", guess - target, {"cmap": "RdBu_r"}),
        ]
        for ax, (title, values, options) in zip(line, panels, strict=True):
            shown = (values if inside is None else np.where(inside, values, np.nan))[middle]
            if dim == 1:
                ax.plot(shown)
            else:
                figure.colorbar(ax.imshow(shown.T, origin="lower", **options), ax=ax, shrink=0.8)
                ax.set(xticks=[], yticks=[])
            ax.set_title(title)
    return figure
