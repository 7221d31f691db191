"""Our ETDRK4 beside exponax on one CPU thread: two equations, both precisions, batches."""

import os
import sys
from collections.abc import Callable

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["OMP_NUM_THREADS"] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
import torch
from _results import alternate, record

from sciml.datasets import GaussianRandomField
from sciml.solvers import CartesianGrid
from sciml.solvers.spectral import KuramotoSivashinsky, NavierStokes, SpectralSolver

try:
    import exponax
    import jax
except ImportError:
    sys.exit('exponax is missing: pip install exponax "jax[cpu]"')

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)


def vorticity(batch: int, n: int) -> tuple[np.ndarray, CartesianGrid]:
    grid = CartesianGrid.uniform(n, (0.0, 0.0), (1.0, 1.0), periodic=True)
    field = GaussianRandomField(2.5, 7.0, "periodic", 2, 20)
    return np.stack([field.sample(seed, grid.axes)[None] for seed in range(batch)]), grid


def waves(batch: int, n: int) -> tuple[np.ndarray, CartesianGrid]:
    grid = CartesianGrid((0.0,), (64.0,), (n,), (True,))
    phase = np.random.default_rng(1).uniform(0, 2 * np.pi, (batch, 1, 1, 4))
    return np.cos(2 * np.pi / 64 * np.arange(1, 5) * grid.axes[0][:, None] + phase).sum(-1), grid


def theirs(stepper: Callable, u0: np.ndarray, steps: int) -> dict[str, Callable[[], np.ndarray]]:
    """Return runs without transforms between steps, in each way to treat a batch."""
    repeated = exponax.RepeatedStepper(stepper, steps).__call__
    starts = [jax.numpy.asarray(u) for u in u0]
    whole = jax.numpy.asarray(u0)
    advance = jax.jit(repeated)
    ways = {"loop": lambda: np.stack([np.asarray(advance(u).block_until_ready()) for u in starts])}
    if len(u0) > 1:
        at_once = jax.jit(jax.vmap(repeated))
        in_turn = jax.jit(lambda u: jax.lax.map(repeated, u))
        ways["vmap"] = lambda: np.asarray(at_once(whole).block_until_ready())
        ways["map"] = lambda: np.asarray(in_turn(whole).block_until_ready())
    return ways


def main() -> None:
    rows: list[list[object]] = []
    cases = (
        ("Navier-Stokes", 64, 16, 40),
        ("Navier-Stokes", 64, 1, 200),
        ("Navier-Stokes", 256, 4, 5),
        ("Navier-Stokes", 256, 1, 10),
        ("Kuramoto-Sivashinsky", 256, 32, 200),
        ("Kuramoto-Sivashinsky", 256, 1, 1000),
    )
    for name, n, batch, steps in cases:
        for dtype in (np.float64, np.float32):
            # Their linear operators are built in the default precision.
            jax.config.update("jax_enable_x64", dtype == np.float64)
            if name == "Navier-Stokes":
                dt, (u0, grid) = 1 / 64, vorticity(batch, n)
                solver = SpectralSolver(NavierStokes(1e-3), grid, step=dt)
                # Its stream function solves Laplace psi = w, of the other sign.
                settings = {"diffusivity": 1e-3, "vorticity_convection_scale": -1.0, "order": 4}
                peer = exponax.stepper.NavierStokesVorticity(2, 1.0, n, dt, **settings)
            else:
                dt, (u0, grid) = 0.05, waves(batch, n)
                solver = SpectralSolver(KuramotoSivashinsky(), grid, step=dt)
                peer = exponax.stepper.KuramotoSivashinskyConservative(1, 64.0, n, dt, order=4)
            u0 = u0.astype(dtype)
            tensor, times = torch.from_numpy(u0), [0.0, steps * dt]
            candidates: dict[str, Callable[[], np.ndarray]] = {
                "numpy": lambda solver=solver, u0=u0, times=times: solver.run(u0, times)[:, -1],
                "torch": lambda solver=solver, u0=tensor, times=times: solver.run(u0, times)[:, -1].numpy(),
                **theirs(peer, u0, steps),
            }
            ways = [key for key in candidates if key not in ("numpy", "torch")]
            answers = {key: run() for key, run in candidates.items()}
            difference = np.abs(answers["numpy"] - answers["loop"]).max() / np.abs(u0).max()
            seconds = alternate(candidates, repeats=7)
            micro = {key: value / batch / steps * 1e6 for key, value in seconds.items()}
            best = min(ways, key=lambda way: micro[way])
            rows.append(
                [
                    f"{name}, {n}{'²' if grid.dim == 2 else ''}, batch {batch}",
                    np.dtype(dtype).name,
                    *(f"{micro[key]:.3g}" for key in ("numpy", "torch", best)),
                    best,
                    f"{micro[best] / micro['numpy']:.2f}",
                    f"{micro[best] / micro['torch']:.2f}",
                    f"{difference:.1e}",
                ]
            )
            print(*rows[-1], flush=True)
    record(
        "spectral_exponax",
        "One ETDRK4 step on a periodic grid, one CPU thread",
        [
            "case",
            "precision",
            "NumPy, µs",
            "torch, µs",
            f"exponax {exponax.__version__}, µs",
            "as",
            "exponax / NumPy",
            "exponax / torch",
            "largest difference",
        ],
        rows,
        "CPU microseconds per step and member of the batch, medians of 7 runs in turn; compilation is not "
        "counted, the computation of our coefficients is. NumPy with the extra `fast`. exponax is jitted and "
        "stays in Fourier space between steps; of vmap, lax.map and a loop, its fastest is shown. The "
        "difference, relative to the largest initial value, is that of the truncations.",
    )


if __name__ == "__main__":
    main()
