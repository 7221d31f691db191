"""Our ETDRK4 on a GPU, beside exponax on the same GPU and ours on one CPU thread; `generate --device`."""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"

import numpy as np
import torch
from _results import alternate, record

# Importing it leaves this process one thread.
from spectral_exponax import exponax, jax, vorticity, waves

from sciml.datasets import generate
from sciml.datasets.recipes import NavierStokesRecipe
from sciml.solvers.spectral import KuramotoSivashinsky, NavierStokes, SpectralSolver

DT = {"Navier-Stokes": 1 / 64, "Kuramoto-Sivashinsky": 0.05}
# Equation, points along an axis, batch, steps.
CASES = (
    ("Navier-Stokes", 64, 32, 100),
    ("Navier-Stokes", 64, 1024, 20),
    ("Navier-Stokes", 256, 64, 20),
    ("Kuramoto-Sivashinsky", 256, 1024, 100),
)


def measured(name: str, n: int, batch: int, steps: int, dtype: type) -> list[object]:
    """Return a row of the table."""
    jax.config.update("jax_enable_x64", dtype == np.float64)
    dt = DT[name]
    if name == "Navier-Stokes":
        u0, grid = vorticity(min(batch, 32), n)
        solver = SpectralSolver(NavierStokes(1e-3), grid, step=dt)
        settings = {"diffusivity": 1e-3, "vorticity_convection_scale": -1.0, "order": 4}
        peer = exponax.stepper.NavierStokesVorticity(2, 1.0, n, dt, **settings)
    else:
        u0, grid = waves(min(batch, 32), n)
        solver = SpectralSolver(KuramotoSivashinsky(), grid, step=dt)
        peer = exponax.stepper.KuramotoSivashinskyConservative(1, 64.0, n, dt, order=4)
    u0 = u0.astype(dtype)
    # States repeated: what they hold does not change the time.
    many, times = np.concatenate([u0] * (batch // len(u0))), [0.0, steps * dt]
    tensor, start = torch.from_numpy(many).cuda(), jax.numpy.asarray(many)
    advance = jax.jit(jax.vmap(exponax.RepeatedStepper(peer, steps).__call__))
    found = alternate(
        {
            "ours": lambda: solver.run(tensor, times),
            "exponax": lambda: advance(start).block_until_ready(),
        },
        repeats=5,
        gpu=True,
    )
    # The processor's time per member does not depend on the batch any more.
    few = u0[:16]
    solver.run(few, times)
    started = time.process_time()
    expected = solver.run(few, times)[:, -1]
    processor = (time.process_time() - started) / len(few)
    answer = solver.run(tensor, times)[: len(few), -1].cpu().numpy()
    ours, their = (found[key] / batch / steps * 1e6 for key in ("ours", "exponax"))
    return [
        f"{name}, {n}{'²' if grid.dim == 2 else ''}, batch {batch}",
        np.dtype(dtype).name,
        f"{ours:.3g}",
        f"{their:.3g}",
        f"{their / ours:.2f}",
        f"{processor / steps * 1e6:.3g}",
        f"{processor / steps * 1e6 / ours:.0f}",
        f"{np.abs(answer - expected).max() / np.abs(few).max():.1e}",
    ]


def generated(device: str, n: int) -> float:
    """Return trajectories a minute of the recipe at its defaults, verification included."""
    with tempfile.TemporaryDirectory() as folder:
        generate(NavierStokesRecipe(), 1, Path(folder, "warm-up.h5"), device=device, progress=False)
        started = time.perf_counter()
        generate(NavierStokesRecipe(), n, Path(folder, "x.h5"), device=device, progress=False)
        return n / (time.perf_counter() - started) * 60


def main() -> None:
    if not torch.cuda.is_available():
        print("spectral_gpu: there is no GPU, nothing is measured", file=sys.stderr)
        return
    rows = []
    for case in CASES:
        for dtype in (np.float64, np.float32):
            rows.append(measured(*case, dtype))
            print(*rows[-1], flush=True)
    graphics, processor = generated("cuda", 1024), generated("cpu", 32)
    record(
        "spectral_gpu",
        "One ETDRK4 step on a periodic grid, on a GPU",
        [
            "case",
            "precision",
            "ours, µs",
            f"exponax {exponax.__version__}, µs",
            "exponax / ours",
            "one CPU thread, µs",
            "CPU / GPU",
            "largest difference to the CPU",
        ],
        rows,
        f"Microseconds per step and member of the batch on one {torch.cuda.get_device_name()}, medians of 5 runs "
        "in turn; compilation is not counted. exponax is vmapped, jitted and stays in Fourier space between "
        f"steps. `sciml generate navier-stokes`: {graphics:.0f} trajectories a minute with `--device cuda`, "
        f"{processor:.0f} on one CPU core, verification included.",
    )


if __name__ == "__main__":
    main()
