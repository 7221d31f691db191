"""How much samples of a score model look like data: spectra and one-point distributions.

Distances are of two sets of fields, per channel:

- spectrum: mean over shells of |log10| of the ratio of the mean energies, over the shells that hold at least 1e-5 of
  the data's energy (0.04 is a tenth);
- one point: Wasserstein distance of the values at all nodes, in units of the data's deviation.

Those of the training data from the unseen data say what two finite sets of the same fields differ by.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import wasserstein_distance
from torch import Tensor

from sciml.errors import ConfigError
from sciml.files import atomic_folder, refuse_folder, write_json
from sciml.report import Report
from sciml.training.denoising import ScoreConfig, load_fields
from sciml.training.held_out import unseen_rows
from sciml.training.spectra import wave_spectrum

from .fields import draw_fields, load_score_model
from .plans import Solver

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["distance_table", "distances", "evaluate_score"]

MARKER = "evaluation.json"
LEAST_ENERGY = 1e-5


def distances(
    fields: Tensor, data: Tensor, spacing: tuple[float, ...], periodic: tuple[bool, ...]
) -> dict[str, list[float]]:
    """Return the distances of two sets of fields, (n, *space, channels), per channel: "spectrum" and "one_point".

    Examples
    --------
    >>> import torch
    >>> fields = torch.randn(50, 16, 1, generator=torch.Generator().manual_seed(0))
    >>> {name: round(*found, 6) for name, found in distances(10 * fields, fields, (1.0,), (True,)).items()}
    {'spectrum': 2.0, 'one_point': 7.11...}
    """
    found: dict[str, list[float]] = {"spectrum": [], "one_point": []}
    for channel in range(fields.shape[-1]):
        ours, theirs = (part[..., channel : channel + 1].double().numpy() for part in (fields, data))
        energies = [wave_spectrum(part, spacing, periodic).mean(0) for part in (ours, theirs)]
        held = energies[1] >= LEAST_ENERGY * energies[1].sum()
        ratio = np.log10(np.maximum(energies[0][held], 1e-300) / energies[1][held])
        found["spectrum"].append(float(np.abs(ratio).mean()))
        found["one_point"].append(float(wasserstein_distance(ours.ravel(), theirs.ravel()) / theirs.std()))
    return found


def evaluate_score(
    run: str | Path,
    data: str | Path,
    *,
    n: int = 200,
    solver: str | Solver = "dpm++3m",
    steps: int = 15,
    reference_steps: int = 200,
    seed: int = 0,
    device: str = "auto",
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare samples of a score model with data that it has not seen, and with samples of many steps.

    Parameters
    ----------
    run, data : path
        Run folder, and dataset with samples that the run did not train on.
    n : int
        Samples to draw with ``steps``, and with ``reference_steps`` from the same noise; as many unseen and training
        samples are taken, or all that there are.
    solver, steps, seed
        As for `sciml.sampling.sample`.
    reference_steps : int
    device : str
    output : path, optional
        Folder for ``evaluation.json``, pictures and ``report.html``.
    overwrite : bool
    progress : bool

    Returns
    -------
    dict
        "fields", names of the channels; per pair of sets, such as "15 steps, 200 steps", the `distances`;
        "samples", how many of each set; "difference", the mean relative L2 difference of the two sets of samples.

    Raises
    ------
    ConfigError
        If fields or periodic axes are others than the run's, or nothing is unseen.
    OutputExistsError
        If ``output`` exists.

    Examples
    --------
    >>> evaluate_score("runs/prior", "vorticity.h5")["15 steps, unseen"]  # doctest: +SKIP
    {'spectrum': [0.02], 'one_point': [0.01]}
    """
    if n < 2 or reference_steps <= steps:
        raise ConfigError(
            f"n={n}, reference_steps={reference_steps}: give two samples or more, and more steps than steps={steps}"
        )
    if output is not None:
        refuse_folder(output, MARKER, overwrite)
    model, header = load_score_model(run, device)
    settings = header["train"]
    config = ScoreConfig(**{name: settings[name] for name in ("stride", "n_in", "n_out", "start")})
    pairs = load_fields(data, config)
    if list(pairs.names[1]) != header["data"]["targets"] or pairs.periodic != model.periodic:
        raise ConfigError(
            f"dataset {str(data)!r} has fields {', '.join(pairs.names[1])}, periodic axes {pairs.periodic}; the run "
            f"{', '.join(header['data']['targets'])}, {model.periodic}: evaluate on the same"
        )
    unseen = unseen_rows(header, pairs, data)
    seen = np.setdiff1d(np.arange(len(pairs)), unseen)
    if pairs.seeds is not None and header["data"]["train_seeds"]:
        # Not those by which weights were chosen.
        seen = seen[np.isin(pairs.seeds[seen], header["data"]["train_seeds"])]
    sets = {
        f"{count} steps": draw_fields(
            model, n, pairs.resolution, solver=solver, steps=count, seed=seed, progress=progress
        )
        for count in (steps, reference_steps)
    }
    few, many = sets
    sets["unseen"] = pairs.targets[unseen[-n:]]
    if len(seen):
        sets["training"] = pairs.targets[seen[:n]]
    rows: dict[str, Any] = {
        "fields": _channels(header["data"], model.axes),
        "samples": {name: len(part) for name, part in sets.items()},
        "solver": str(solver),
    }
    couples = [(few, many), (few, "unseen"), (many, "unseen")]
    couples += [("training", "unseen")] if len(seen) else []
    for first, second in couples:
        rows[f"{first}, {second}"] = distances(sets[first], sets[second], pairs.spacing, pairs.periodic)
    gap = (sets[few] - sets[many]).flatten(1).norm(dim=1) / sets[many].flatten(1).norm(dim=1)
    rows["difference"] = float(gap.mean())
    if output is not None:
        with atomic_folder(output, MARKER, overwrite) as folder:
            write_json(folder / MARKER, rows)
            _report(
                folder, Path(run).resolve().name, Path(data).name, rows, sets, pairs.spacing, pairs.periodic
            )
    return rows


def distance_table(rows: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Return head and cells of the distances, a line for each pair and channel."""
    head = ["between", "and", "field", "spectrum", "one point"]
    cells: list[list[object]] = []
    for name, found in rows.items():
        if isinstance(found, dict) and "spectrum" in found:
            for field, spectrum, point in zip(
                rows["fields"], found["spectrum"], found["one_point"], strict=True
            ):
                cells.append([*name.split(", "), field, f"{spectrum:.4f}", f"{point:.4f}"])
    return head, cells


def _channels(trained: dict[str, Any], dim: int) -> list[str]:
    """Names of the channels: components of vectors and tensors are numbered."""
    names: list[str] = []
    for name, rank in zip(trained["targets"], trained["ranks"], strict=True):
        names += [name] if rank == 0 else [f"{name}{i}" for i in range(dim**rank)]
    return names


def _report(
    folder: Path,
    run: str,
    data: str,
    rows: dict[str, Any],
    sets: dict[str, Tensor],
    spacing: tuple[float, ...],
    periodic: tuple[bool, ...],
) -> None:
    report = Report(f"Samples of {run}", folder)
    report.text(
        f"Samples by {rows['solver']}, beside {data}. Spectrum: mean |log10| of the ratio of mean energies by shell of "
        "wavenumbers. One point: Wasserstein distance of the values, in deviations."
    )
    report.table(*distance_table(rows))
    report.figure(
        _curves(rows, sets, spacing, periodic), "spectra", "Mean energy by wavenumber, and density of values."
    )
    if len(periodic) == 2:
        report.figure(_gallery(rows, sets), "samples", "The first fields of each set, channel by channel.")
    report.save()


def _curves(
    rows: dict[str, Any], sets: dict[str, Tensor], spacing: tuple[float, ...], periodic: tuple[bool, ...]
) -> "Figure":
    import matplotlib.pyplot as plt

    channels = len(rows["fields"])
    figure, axes = plt.subplots(channels, 2, figsize=(9, 3.2 * channels), layout="constrained", squeeze=False)
    for channel, (left, right) in enumerate(axes):
        span = sets["unseen"][..., channel]
        bins = np.linspace(float(span.min()), float(span.max()), 81)
        for name, part in sets.items():
            values = part[..., channel : channel + 1].double().numpy()
            left.loglog(wave_spectrum(values, spacing, periodic).mean(0)[1:], label=name)
            right.hist(values.ravel(), bins, density=True, histtype="step", label=name)
        left.set(xlabel="wavenumber", ylabel=f"energy of {rows['fields'][channel]}")
        right.set(xlabel=rows["fields"][channel], ylabel="density", yscale="log")
        left.legend()
    return figure


def _gallery(rows: dict[str, Any], sets: dict[str, Tensor]) -> "Figure":
    import matplotlib.pyplot as plt

    lines = [(name, channel) for channel in range(len(rows["fields"])) for name in sets]
    figure, axes = plt.subplots(
        len(lines), 6, figsize=(9, 1.55 * len(lines)), layout="constrained", squeeze=False
    )
    for line, (name, channel) in zip(axes, lines, strict=True):
        span = sets["unseen"][:6, ..., channel]
        for ax, values in zip(line, sets[name][..., channel], strict=False):
            ax.imshow(values.numpy().T, origin="lower", vmin=float(span.min()), vmax=float(span.max()))
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(f"{rows['fields'][channel]}, {name}", fontsize=7)
    return figure
