"""Steps of many Metropolis-adjusted Langevin chains per second: ours, blackjax (JAX, compiled), a plain torch loop."""

import math
import os
from collections.abc import Callable

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import blackjax
import jax
import jax.numpy as jnp
import torch
from _results import alternate, record
from torch import Tensor

from sciml.sampling import TARGETS, Overdamped, run_chains
from sciml.sampling.targets import Density, IsotropicMixture

CHAINS, STEPS, REPEATS = 1000, 320, 7
STEP = {"gmm40": 0.3, "funnel": 0.02, "many-well": 0.02, "steep-double-well": 0.05}


def in_jax(name: str, target: Density) -> Callable[[jax.Array], jax.Array]:
    """The same log-density of one state, (d,)."""
    if isinstance(target, IsotropicMixture):
        means = jnp.asarray(target.means, jnp.float32)
        s2 = target.deviation**2
        return lambda x: jax.scipy.special.logsumexp(-0.5 * ((x - means) ** 2).sum(-1) / s2)
    if name == "funnel":
        return lambda x: (
            -(x[0] ** 2 / 18 + 0.5 * (x[1:] ** 2).sum() * jnp.exp(-x[0]) + 0.5 * (target.d - 1) * x[0])
        )
    if name == "many-well":
        return lambda x: (0.5 * x[::2] + 6 * x[::2] ** 2 - x[::2] ** 4 - 0.5 * x[1::2] ** 2).sum()
    return lambda x: -0.3 * (x[0] ** 2 - 1) ** 2 * (1 + 9 * jax.nn.sigmoid(8 * x[0]))


def blackjax_run(name: str, target: Density, h: float) -> Callable[[], float]:
    kernel = blackjax.mala(in_jax(name, target), h)

    def chain(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(state, key):  # type: ignore[no-untyped-def]
            state, info = kernel.step(key, state)
            return state, info.is_accepted

        state, accepted = jax.lax.scan(step, kernel.init(x), jax.random.split(key, STEPS))
        return state.position, accepted.mean()

    run = jax.jit(jax.vmap(chain))
    x = jnp.zeros((CHAINS, target.d), jnp.float32)
    number = 0

    def timed() -> float:
        nonlocal number
        number += 1
        return float(run(jax.random.split(jax.random.key(number), CHAINS), x)[1].mean())

    return timed


def plain_run(target: Density, h: float) -> Callable[[], float]:
    """What one writes first: autograd for the score, torch's generator for the noise."""

    def gradient(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        value = target.log_density(x)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]

    def timed() -> float:
        x = torch.zeros(CHAINS, target.d)
        value, score = gradient(x)
        accepted = 0.0
        for _ in range(STEPS):
            new = x + h * score + math.sqrt(2 * h) * torch.randn_like(x)
            new_value, new_score = gradient(new)
            forward = ((new - x - h * score) ** 2).sum(1) / (4 * h)
            backward = ((x - new - h * new_score) ** 2).sum(1) / (4 * h)
            accept = torch.rand(CHAINS).log() < new_value - value + forward - backward
            x = torch.where(accept[:, None], new, x)
            score = torch.where(accept[:, None], new_score, score)
            value = torch.where(accept, new_value, value)
            accepted += float(accept.float().mean())
        return accepted / STEPS

    return timed


def main() -> None:
    torch.set_num_threads(1)
    rows: list[list[object]] = []
    for name, h in STEP.items():
        target = TARGETS[name]()
        kernel = Overdamped(target, h, adjusted=True)
        x = torch.zeros(CHAINS, target.d)

        def ours(compiled: bool, kernel: Overdamped = kernel, x: Tensor = x) -> float:
            return run_chains(kernel, x, STEPS, observables={}, compiled=compiled).acceptance

        candidates = {
            "compiled": lambda ours=ours: ours(True),
            "steps": lambda ours=ours: ours(False),
            "blackjax": blackjax_run(name, target, h),
            "plain": plain_run(target, h),
        }
        shares = [f"{run():.3f}" for run in candidates.values()]
        seconds = alternate(candidates, REPEATS)
        rows.append(
            [
                name,
                target.d,
                *(f"{CHAINS * STEPS / seconds[key] / 1e6:.2f}" for key in candidates),
                *(
                    f"{seconds[peer] / seconds[way]:.2f}"
                    for way in ("compiled", "steps")
                    for peer in ("blackjax", "plain")
                ),
                " / ".join(shares),
            ]
        )
    record(
        "langevin_speed",
        f"Metropolis-adjusted Langevin, million chain-steps per CPU second, {CHAINS} chains, float32",
        [
            *("target", "d", "compiled", "by steps", f"blackjax {blackjax.__version__}", "plain torch"),
            *("compiled / blackjax", "compiled / plain", "steps / blackjax", "steps / plain", "accepted"),
        ],
        rows,
        f"CPU seconds of {STEPS} steps, median of {REPEATS} runs in turn, all on one thread; JAX compiled before. "
        "Steps h are the same; accepted shares (from a start at the origin) differ by noise. Ours checks for "
        "divergence. Compiled: run_chains(compiled=True), by steps: the default, whose noise is drawn in double "
        "precision; the plain loop has scores by autograd.",
    )


if __name__ == "__main__":
    main()
