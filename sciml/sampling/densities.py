"""Samples of densities as datasets, with a report beside them, and methods compared on targets."""

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciml.datasets.atomic_hdf5 import atomic_hdf5
from sciml.datasets.kinds import create, write
from sciml.datasets.recipe import OdeLayout, Trajectory
from sciml.datasets.record import Record
from sciml.datasets.rows import checksums
from sciml.errors import ConfigError, ConvergenceError
from sciml.files import refuse_existing, write_json
from sciml.registry import unknown_name
from sciml.report import Report

from .divergences import mmd_squared, modes_found, table, weight_error
from .methods import METHODS, Budget, Drawn, draw
from .targets import TARGETS, Density

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["compare_methods", "measure_rows", "sample_density"]

EXACT = "exact samples"
MEASURES = ("modes", "weight error", "MMD^2", "moments off")
SHOWN = 2000
"""Samples in a picture."""


def sample_density(
    target: str,
    output: str | Path,
    method: str = "smc",
    budget: Budget | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> tuple[Path, dict[str, dict[str, float]]]:
    """Sample a target by name, and write the samples as a dataset and a report.

    The dataset is of kind ``ode`` with one time: sample i is trajectory i, its states are the coordinates, and
    "log_density" is a scalar. The report, ``report.html`` in a folder of the dataset's name without its suffix, has
    pictures and `sciml.sampling.divergences.table`.

    Parameters
    ----------
    target : str
        A name of `sciml.sampling.TARGETS`.
    output : path
        HDF5 file.
    method : str
        A name of `sciml.sampling.methods.METHODS`.
    budget : Budget, optional
    overwrite : bool
        Replace files that are there.
    progress : bool
        Show a bar on a terminal.

    Returns
    -------
    path, dict
        Of the report, and its table.

    Raises
    ------
    ConfigError
        If a name is not known.
    ConvergenceError
        If a chain diverges.
    OutputExistsError
        If the output exists and is not to be replaced.

    Examples
    --------
    >>> from sciml.sampling.methods import Budget
    >>> page, found = sample_density("three-modes", "three.h5", budget=Budget(300, 200), overwrite=True)
    >>> page.name, found["modes"]["value"]
    ('report.html', 3.0)
    """
    density, output = TARGETS[target](), Path(output)
    folder = output.with_suffix("")
    if output.suffix not in (".h5", ".hdf5"):
        raise ConfigError(f"output {str(output)!r}: give a name that ends in .h5")
    if not overwrite:
        refuse_existing(output)
        refuse_existing(folder / "report.html")
    if method not in METHODS:
        raise unknown_name("method", method, list(METHODS))
    budget, started = budget or Budget(), time.process_time()
    found = draw(density, method, budget, progress=progress)
    seconds = time.process_time() - started
    measures = table(found.x, density)
    _write(output, target, density, method, budget, found, seconds)
    page = _report(folder, target, density, method, budget, found, measures, seconds)
    return page, measures


def _write(
    output: Path, target: str, density: Density, method: str, budget: Budget, found: Drawn, seconds: float
) -> None:
    names = {f"x_{i + 1}": "coordinate, dimensionless" for i in range(density.d)}
    layout = OdeLayout(f"{target}-samples", names, (0.0,), ("log_density",))
    config = {
        "sampled_by": {
            "target": target,
            "method": method,
            "n": budget.n,
            "evaluations": found.evaluations,
            "step": found.step,
            "deviation": density.reach if budget.deviation is None else budget.deviation,
            "seed": budget.seed,
        }
    }
    logs = density.log_density(found.x).numpy()
    with atomic_hdf5(output) as writer:
        create(writer.file, layout, budget.n)
        for row, x in enumerate(found.x.numpy()):
            write(
                writer.file, layout, row, [Trajectory({"states": x[None]}, {"log_density": float(logs[row])})]
            )
        Record(
            config,
            np.full(budget.n, budget.seed),
            {"not_finite": 1 - np.isfinite(found.x.numpy()).mean(1)},
            {"not_finite": 0.0},
            "a known density, sampled",
            seconds,
            checksums(writer.file),
        ).write(writer.file)


def _report(
    folder: Path,
    target: str,
    density: Density,
    method: str,
    budget: Budget,
    found: Drawn,
    measures: dict[str, dict[str, float]],
    seconds: float,
) -> Path:
    report = Report(f"{budget.n} samples of {target} by {method}", folder)
    report.text(
        f"{found.evaluations:.0f} evaluations of density and score for each sample, {seconds:.1f} CPU seconds, last "
        f"step {found.step:.3g}, {100 * found.acceptance:.0f} % of Metropolised proposals accepted, seed {budget.seed}."
    )
    report.figure(_picture(density, found.x), "samples", "Samples, and what is known of the density.")
    report.section("Measures")
    report.text(
        "Beside each value that of as many exact samples, where there are such: no measure is 0 for these. The Stein "
        "discrepancy does not see the weights of modes. Sinkhorn's epsilon and the length of KSD's kernel are 1."
    )
    report.table(["measure", "samples", "exact samples", "true value"], measure_rows(density, measures))
    return report.save()


def measure_rows(density: Density, measures: dict[str, dict[str, float]]) -> list[list[object]]:
    """Return a row for each measure: name, value, that of exact samples, and what is known."""
    known = {moment.name: f"{moment.value:.5g}" for moment in density.moments}
    return [
        [
            name,
            f"{pair['value']:.4g}",
            "-" if np.isnan(pair["exact"]) else f"{pair['exact']:.4g}",
            known.get(name, "-"),
        ]
        for name, pair in measures.items()
    ]


def _picture(density: Density, x: Tensor) -> "Figure":
    """A histogram on a line, points over the density in the plane, pairs of coordinates else."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.2) if density.d < 3 else (9.6, 3.4), layout="constrained")
    points = x[:SHOWN].numpy()
    if density.d == 1:
        axes = figure.add_subplot()
        axes.hist(x[:, 0].numpy(), 80, density=True, color="0.75", label="samples")
        line = torch.linspace(float(x.min()), float(x.max()), 600, dtype=torch.float64)[:, None]
        if density.log_z is not None:
            curve = torch.exp(density.log_density(line) - density.log_z)
            axes.plot(line[:, 0].numpy(), curve.numpy(), label="density")
        axes.legend(frameon=False)
        axes.set_xlabel("x")
    elif density.d == 2:
        axes = figure.add_subplot()
        low, high = np.quantile(points, [0.002, 0.998], axis=0)
        margin = 0.15 * (high - low) + 1e-9
        ends = zip(low - margin, high + margin, strict=True)
        grid = [np.linspace(a, b, 240) for a, b in ends]
        nodes = torch.cartesian_prod(*map(torch.from_numpy, grid))
        logs = density.log_density(nodes).view(240, 240).T.numpy()
        axes.contour(*grid, logs - logs.max(), [-12, -8, -5, -3, -1.5, -0.5], colors="0.6", linewidths=0.7)
        axes.plot(points[:, 0], points[:, 1], ".", ms=2)
        axes.set(xlabel="x_1", ylabel="x_2", xlim=grid[0][[0, -1]], ylim=grid[1][[0, -1]])
    else:
        for place, (i, j) in enumerate(((0, 1), (1, 2), (0, density.d - 1))):
            axes = figure.add_subplot(1, 3, place + 1)
            axes.plot(points[:, i], points[:, j], ".", ms=2)
            axes.set_xlabel(f"x_{i + 1}")
            axes.set_ylabel(f"x_{j + 1}")
    return figure


def compare_methods(
    targets: Sequence[str],
    methods: Sequence[str],
    output: str | Path,
    budget: Budget | None = None,
    *,
    seeds: int = 3,
    overwrite: bool = False,
    progress: bool = False,
) -> tuple[list[str], list[list[object]]]:
    """Sample targets by methods with several seeds, and write ``report.html`` and ``results.json``.

    When it is run again after an interruption it takes up what ``results.json`` has.

    Parameters
    ----------
    targets, methods : sequence of str
    output : path
        Folder.
    budget : Budget, optional
        Its seed is the first.
    seeds : int
    overwrite : bool
        Replace results that are there.
    progress : bool
        Show a bar on a terminal.

    Returns
    -------
    head, rows
        Of the table: mean and deviation over seeds, and exact samples last, where there are such.

    Raises
    ------
    ConfigError
        If a name is not known, or there is no seed.
    OutputExistsError
        If there are results, and they are not to be replaced.
    """
    budget, folder = budget or Budget(), Path(output)
    for name in methods:
        if name not in METHODS:
            raise unknown_name("method", name, list(METHODS))
    if seeds < 1 or not targets or not methods:
        raise ConfigError(
            f"seeds={seeds}, {len(targets)} targets, {len(methods)} methods: give one of each at least"
        )
    densities = {name: TARGETS[name]() for name in targets}
    if not overwrite:
        refuse_existing(folder / "report.html")
    head = ["target", "method", "evaluations", *MEASURES, "CPU s"]
    settings = {**asdict(budget), "seeds": seeds}
    stored = folder / "results.json"
    results = [] if overwrite else _finished(stored, settings)
    known = {(result["target"], result["method"]): result["runs"] for result in results}
    plan = [(target, method) for target in targets for method in (*methods, EXACT)]
    rows: list[list[object]] = []
    with tqdm(total=len(plan) * seeds, desc="bench", disable=None if progress else True) as bar:
        for target, method in plan:
            if (target, method) not in known:
                known[target, method] = _compared(densities[target], method, budget, seeds)
                results.append({"target": target, "method": method, "runs": known[target, method]})
                write_json(stored, {"settings": settings, "results": results})
            bar.update(seeds)
            if known[target, method]:
                rows.append([target, method, *_cells(known[target, method])])
    report = Report("Samplers of densities beside each other", folder)
    report.text(
        f"{budget.n} samples, {budget.evaluations} evaluations of density and score for each, mean and deviation of "
        f"{seeds} seeds from {budget.seed} on. Moments off: the largest error of a known moment, in parts of it, or of "
        "1 where it is less."
    )
    report.table(head, rows)
    report.save()
    return head, rows


def _finished(stored: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what an interrupted comparison with the same settings has."""
    if not stored.exists():
        return []
    found = json.loads(stored.read_text())
    if found["settings"] != settings:
        raise ConfigError(
            f"{str(stored)!r} is of a comparison with other settings that was not finished: run that again, choose "
            "another folder, or pass --overwrite"
        )
    return list(found["results"])


def _compared(density: Density, method: str, budget: Budget, seeds: int) -> list[dict[str, float]]:
    """Return what each seed gives, nothing of one that diverged; of exact samples that there are not no runs."""
    found: list[dict[str, float]] = []
    for seed in range(budget.seed, budget.seed + seeds):
        started, spent = time.process_time(), 0.0
        if method == EXACT:
            try:
                x = density.sample(budget.n, seed + 10_000)
            except ConfigError:
                return []
        else:
            try:
                drawn = draw(density, method, replace(budget, seed=seed))
            except ConvergenceError:
                found.append({})
                continue
            x, spent = drawn.x, drawn.evaluations
        seconds = time.process_time() - started
        found.append({"evaluations": spent, **_measured(density, x), "CPU s": seconds})
    return found


def _cells(found: list[dict[str, float]]) -> list[object]:
    """Return mean and deviation of runs that did not diverge, and how many did."""
    kept = [run for run in found if run]
    if not kept:
        return ["diverges", *["-"] * (len(MEASURES) + 1)]
    lost = f" ({len(found) - len(kept)} of {len(found)} diverged)" if len(kept) < len(found) else ""
    cells: list[object] = [f"{np.mean([run['evaluations'] for run in kept]):.0f}{lost}"]
    for name in MEASURES:
        values = [run[name] for run in kept if name in run]
        cells.append(f"{np.mean(values):.3g} +- {np.std(values):.2g}" if values else "-")
    return [*cells, f"{np.mean([run['CPU s'] for run in kept]):.1f}"]


def _measured(density: Density, x: Tensor) -> dict[str, float]:
    """Return modes, weight error, MMD^2 and the worst moment, as far as these are known."""
    found: dict[str, float] = {}
    if density.modes is not None and len(density.modes.weights) <= 100:
        found["modes"] = float(modes_found(x, density.modes))
        found["weight error"] = weight_error(x, density.modes)
    with contextlib.suppress(ConfigError):
        found["MMD^2"] = mmd_squared(x, density.sample(2000, 99))
    if density.moments:
        found["moments off"] = max(
            abs(float(moment.of(x).mean()) - moment.value) / max(abs(moment.value), 1.0)
            for moment in density.moments
        )
    return found
