"""What surrogates save at equal error: each beside our own solver at the surrogate's accuracy.

A solver on a coarser grid, with larger steps, is faster and less accurate, too; most published speed-ups
compare a surrogate with a solver that is far more accurate than it (McGreivy and Hakim, Nature Machine
Intelligence 6, 2024). Here errors of both are taken on the same test samples, at the same nodes, against the
stored solutions, and the solver's best grid and step are searched for at every error. One thread, inputs in
memory, samples in batches, both after a first run.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from _operators import dataset, trained
from _results import record
from fno_burgers import CONFIG as BURGERS_CONFIG
from fno_burgers import MODEL as BURGERS_MODEL
from fno_burgers import RECIPE as BURGERS
from fno_darcy import CONFIG as DARCY_CONFIG
from fno_darcy import MODEL as DARCY_MODEL
from fno_darcy import RECIPE as DARCY
from fno_navier_stokes import small as navier_stokes_small
from scipy.ndimage import map_coordinates
from threadpoolctl import threadpool_limits

from sciml.datasets.recipes.periodic import PeriodicRecipe
from sciml.files import atomic_path
from sciml.metrics import relative_l2
from sciml.operators import Operator
from sciml.solvers import CartesianGrid
from sciml.solvers.five_point import FivePoint
from sciml.solvers.spectral import SpectralSolver
from sciml.training.data import Pairs, load_pairs
from sciml.training.prediction import predict

FIGURE = Path(__file__).parents[1] / "docs" / "equal_error.png"
SAMPLES = 100
Point = tuple[str, float, float]
"""Name, error, CPU seconds per sample."""


def timed(name: str, run: Callable[[], np.ndarray], target: np.ndarray) -> Point:
    """Mean relative L2 error of predictions like the targets, and the median time of three runs after one."""
    error = float(relative_l2(run(), target).mean())
    seconds = []
    for _ in range(3):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return name, error, sorted(seconds)[1] / len(target)


def surrogate(run: Path, pairs: Pairs) -> Point:
    model = Operator.load(run)
    name = f"FNO at {' x '.join(map(str, pairs.resolution))}"
    return timed(name, lambda: predict(model, pairs.inputs).numpy(), pairs.targets.numpy())


def periodic(
    recipe: PeriodicRecipe,
    u0: np.ndarray,
    target: np.ndarray,
    times: Sequence[float],
    sizes: Sequence[int],
    steps: Sequence[float],
) -> list[Point]:
    """The spectral solver on several grids with several steps, evaluated at the targets' nodes.

    u0 of shape (n, *space), targets (n, frames, *space), at all times but the first.
    """
    points = []
    for size, step in itertools.product(sizes, steps):
        upper = (recipe.length,) * recipe.dim
        grid = CartesianGrid.uniform(size, (0.0,) * recipe.dim, upper, periodic=True)
        solver = SpectralSolver(recipe.pde(), grid, step=step, source=recipe.forcing(grid.axes))

        def run(solver: SpectralSolver = solver) -> np.ndarray:
            start = solver.basis.to_grid(solver.basis.to_modes(u0[:, None]))
            frames = solver.run(start, times, resolution=u0.shape[1:], on_blowup="keep")
            return np.nan_to_num(frames[:, 1:, 0], nan=1e9, posinf=1e9, neginf=-1e9)

        points.append(timed(f"{size} nodes, step {step:g}", run, target))
    return points


def darcy(a: np.ndarray, target: np.ndarray, strides: Sequence[int]) -> list[Point]:
    """The five-point scheme on every stride-th node of the finest grid, interpolated to the targets' nodes."""
    nodes = target.shape[1]
    points = []
    for stride in strides:
        coarse = np.ascontiguousarray(a[:, ::stride, ::stride], dtype=float)
        size = coarse.shape[1]
        grid = CartesianGrid.uniform(size - 1, (0.0, 0.0), (1.0, 1.0))
        source = np.ones(grid.shape)
        where = np.meshgrid(*[np.linspace(0, size - 1, nodes)] * 2, indexing="ij")

        def run(
            coarse: np.ndarray = coarse, grid: CartesianGrid = grid, source=source, where=where
        ) -> np.ndarray:
            found = []
            for coefficient in coarse:
                u, _ = FivePoint(coefficient, grid).solve(source, 1e-4)
                found.append(u if u.shape[0] == nodes else map_coordinates(u, where, order=3))
            return np.stack(found)[..., None]

        points.append(timed(f"{size} x {size} nodes", run, target))
    return points


def frontier(points: list[Point]) -> list[Point]:
    """The points that no other beats in both error and time, by error."""
    best, kept = np.inf, []
    for point in sorted(points, key=lambda p: (p[1], p[2])):
        if point[2] < best:
            best = point[2]
            kept.append(point)
    return kept


def burgers_case() -> tuple[Point, list[Point]]:
    done = trained("burgers", dataset("burgers", BURGERS, 1200), BURGERS_CONFIG, BURGERS_MODEL)
    pairs = load_pairs(done.data, 4).subset(slice(-SAMPLES, None))
    u0, u1 = (part[..., 0].double().numpy() for part in (pairs.inputs, pairs.targets))
    steps = [1 / n for n in (16, 24, 32, 48, 64, 96, 128, 192, 256, 512)]
    sizes = (64, 96, 128, 192, 256, 384, 512)
    return surrogate(done.run, pairs), periodic(BURGERS, u0, u1[:, None], (0.0, 1.0), sizes, steps)


def navier_stokes_case() -> tuple[Point, list[Point]]:
    recipe, config, model = navier_stokes_small()
    done = trained("navier-stokes-20-run", dataset("navier-stokes-20", recipe, 1200), config, model)
    pairs = load_pairs(done.data, config.stride, config.task, config.n_in, 0, config.start)
    pairs = pairs.subset(slice(-SAMPLES, None))
    # The last given frame is all that the equation needs.
    u0 = pairs.inputs[..., 0, -1].double().numpy()
    target = pairs.targets[..., 0].movedim(-1, 1).double().numpy()
    points = periodic(
        recipe, u0, target, range(10, 21), (16, 20, 24, 32, 48), (1.0, 0.5, 0.25, 0.125, 0.0625)
    )
    return surrogate(done.run, pairs), points


def darcy_case() -> tuple[Point, list[Point]]:
    done = trained("darcy-tucker", dataset("darcy", DARCY, 1100), DARCY_CONFIG, DARCY_MODEL)
    pairs = load_pairs(done.data, 2).subset(slice(-SAMPLES, None))
    fine = load_pairs(done.data).subset(slice(-SAMPLES, None))
    points = darcy(fine.inputs[..., 0].numpy(), pairs.targets.double().numpy(), (7, 6, 4, 3, 2, 1))
    return surrogate(done.run, pairs), points


def main() -> None:
    rows: list[list[object]] = []
    cases = {
        "Burgers, u(0) to u(1), at 1024 nodes": burgers_case,
        "Navier-Stokes, t = 10 to 20, at 32 x 32": navier_stokes_case,
        "Darcy, at 43 x 43": darcy_case,
    }
    figure, axes = plt.subplots(1, len(cases), figsize=(13, 4.2), layout="constrained")
    with threadpool_limits(1):
        torch.set_num_threads(1)
        for ax, (title, case) in zip(axes, cases.items(), strict=True):
            (name, error, seconds), points = case()
            best = frontier(points)
            # The cheapest solver that is no less accurate.
            equal = min((p for p in points if p[1] <= error), key=lambda p: p[2])
            rows.append(
                [
                    title,
                    f"{name}: {error:.4f}",
                    f"{1e3 * seconds:.3f}",
                    f"{equal[0]}: {equal[1]:.4f}",
                    f"{1e3 * equal[2]:.3f}",
                    f"{equal[2] / seconds:.2f}",
                ]
            )
            ax.loglog([1e3 * p[2] for p in points], [p[1] for p in points], ".", color="0.8")
            ax.loglog([1e3 * p[2] for p in best], [p[1] for p in best], "o-", ms=4, label="solver")
            ax.loglog([1e3 * seconds], [error], "r*", ms=12, label=name)
            ax.set(
                title=title, xlabel="CPU milliseconds per sample", ylabel="relative L2 error", ylim=(1e-7, 2)
            )
            ax.grid(alpha=0.3)
            ax.legend(fontsize=8)
    with atomic_path(FIGURE) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    record(
        "equal_error",
        "Surrogates beside our own solvers at equal error, one thread",
        [
            *("problem", "surrogate: relative L2", "CPU ms a sample"),
            *("cheapest solver that is as accurate", "CPU ms a sample", "solver / surrogate"),
        ],
        rows,
        f"{SAMPLES} test samples at once; a ratio below 1: the solver is faster. Neither generating training data "
        "nor training is counted. The solvers of the first two are given the last input frame of the surrogate, that "
        "of Darcy flow, whose stored solutions are those on 85 x 85 nodes, every n-th of their coefficients, and it "
        "stops at a residual of 1e-4. Figure: docs/equal_error.png.",
    )


if __name__ == "__main__":
    main()
