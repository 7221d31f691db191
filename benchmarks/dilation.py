"""Samplers of densities with hidden modes beside each other: the same evaluations of the target, five seeds."""

import math
import sys
from collections.abc import Callable

import numpy as np
import torch
from _results import record
from torch import Tensor

from sciml.sampling import (
    TARGETS,
    DilationPath,
    GeometricPath,
    IsotropicMixture,
    Overdamped,
    Rule,
    anneal,
    annealed_smc,
    levels,
    run_chains,
)
from sciml.sampling.dilation import Annealed
from sciml.sampling.divergences import (
    kde_divergence,
    ksd_squared,
    mmd_squared,
    modes_found,
    sinkhorn_divergence,
    weight_error,
)
from sciml.sampling.noise import SampleNoise
from sciml.sampling.paths import Path
from sciml.sampling.targets import Counted, Density

N, BUDGET, SEEDS = 1000, 2000, 5
# One evaluation is that of the start, which must be finite.
STEPS = BUDGET - 1
LINEAR = levels(STEPS, "linear", 1 / BUDGET)
Method = Callable[[Density, int], Tensor]


def langevin(deviation: float, h: float, adjusted: bool = False) -> Method:
    def run(target: Density, seed: int) -> Tensor:
        x = deviation * SampleNoise(seed)(-2, torch.empty(N, target.d, dtype=torch.float64))
        kernel = Overdamped(target, h, adjusted=adjusted)
        return run_chains(kernel, x, STEPS - 1, seed=seed, observables={}).x

    return run


def annealed(path: Callable[[Density], object], lambdas: np.ndarray, rule: Rule, polish: int = 0) -> Method:
    def run(target: Density, seed: int) -> Tensor:
        found: Annealed = anneal(
            path(target),
            lambdas,
            rule,
            N,
            polish=polish,
            polish_step=0.1,
            seed=seed,  # type: ignore[arg-type]
        )
        return found.x

    return run


def weighted(deviation: float, schedule: str) -> Method:
    def run(target: Density, seed: int) -> Tensor:
        path = GeometricPath(target, deviation)
        return annealed_smc(path, levels(STEPS - 1, schedule, 1e-6), N, seed=seed).x

    return run


class Convolution(Path):
    """The law of sqrt(lambda) X + sqrt(1 - lambda) Z: of a mixture its score is known, else it must be learned."""

    def __init__(self, target: Density) -> None:
        self.target = target

    def at(self, lam: float) -> Density:
        mixture = self.target.density if isinstance(self.target, Counted) else self.target
        assert isinstance(mixture, IsotropicMixture)
        deviation = math.sqrt(lam * mixture.deviation**2 + 1 - lam)
        return IsotropicMixture(mixture.weights, math.sqrt(lam) * mixture.means, deviation)

    def start(self, n: int, noise: Tensor, lam: float) -> Tensor:
        return noise

    def log_start(self, x: Tensor, lam: float) -> Tensor:
        raise NotImplementedError("no weights are asked for here")


def fewer(polish: int) -> np.ndarray:
    return levels(STEPS - polish, "linear", 1 / BUDGET)


def methods(eta: float, wide: float) -> dict[str, Method]:
    rules = {
        "R2, 0.3, cap 0.2": Rule("drift", 0.3, cap=0.2),
        "R2, 1, cap 1": Rule("drift", 1.0, cap=1.0),
        "R3, 1, cap 1": Rule("population", 1.0, cap=1.0),
        "R4, 1, cap 1": Rule("corrected", 1.0, cap=1.0),
        "R2, 3, cap 1": Rule("drift", 3.0, cap=1.0),
    }
    return {
        "ULA from N(0, I)": langevin(1.0, eta),
        "ULA from N(0, 400 I)": langevin(20.0, eta),
        "geometric, nu = N(0, I)": annealed(GeometricPath, LINEAR, Rule("fixed", eta)),
        "geometric, nu = N(0, 400 I)": annealed(
            lambda target: GeometricPath(target, 20.0), LINEAR, Rule("fixed", eta)
        ),
        "dilation R1, lambda = t": annealed(DilationPath, LINEAR, Rule("proportional", eta)),
        "dilation R1, t^2": annealed(DilationPath, levels(STEPS, "square", 1e-4), Rule("proportional", eta)),
        "dilation R1, exponential": annealed(
            DilationPath, levels(STEPS, "exponential", 1e-3), Rule("proportional", eta)
        ),
        "dilation, fixed h, from 0.3": annealed(
            DilationPath, levels(STEPS, "linear", 0.3), Rule("fixed", eta)
        ),
        **{f"dilation {name}": annealed(DilationPath, LINEAR, rule) for name, rule in rules.items()},
        "dilation R2, 1, cap 1, 300 of polish": annealed(
            DilationPath, fewer(300), rules["R2, 1, cap 1"], 300
        ),
        "convolution path, exact score": annealed(Convolution, LINEAR, Rule("fixed", eta)),
        "annealed SMC, t^2": weighted(wide, "square"),
        "annealed SMC, t^4": weighted(wide, "quartic"),
        "exact samples": lambda target, seed: target.sample(N, seed + 50),
    }


def main(name: str, eta: float, wide: float) -> None:
    target = TARGETS[name]()
    reference = target.sample(4000, 1234)
    few = reference[:N]
    modes = target.modes
    assert modes is not None
    rows: list[list[object]] = []
    for label, method in methods(eta, wide).items():
        found: list[list[float]] = []
        counted = Counted(target)
        for seed in range(SEEDS):
            before = counted.evaluations
            x = method(counted, seed)
            spent = (counted.evaluations - before) / N
            found.append(
                [
                    spent,
                    modes_found(x, modes),
                    weight_error(x, modes),
                    mmd_squared(x, reference),
                    ksd_squared(x, target.score),
                    sinkhorn_divergence(x, few, 1.0) if seed == 0 else np.nan,
                    kde_divergence(x, target),
                    float(x.square().sum(1).mean()),
                ]
            )
        mean, spread = np.nanmean(found, 0), np.std(found, 0)
        rows.append(
            [
                label,
                f"{mean[0]:.0f}",
                f"{min(f[1] for f in found):.0f} - {max(f[1] for f in found):.0f}",
                *(f"{mean[i]:.4f} +- {spread[i]:.4f}" for i in (2, 3, 4)),
                f"{mean[5]:.2f}",
                f"{mean[6]:.2f}",
                f"{mean[7]:.0f}",
            ]
        )
        print(rows[-1], flush=True)
    square = next(moment.value for moment in target.moments if moment.name == "E |x|^2")
    record(
        f"dilation_{name.replace('-', '_')}",
        f"{name}: {N} particles, {BUDGET} evaluations of each, mean and deviation of {SEEDS} seeds",
        [
            *("method", "evaluations", "modes", "weight error", "MMD^2", "KSD^2"),
            *("Sinkhorn", "KL by KDE", f"E x^2 ({square:.0f})"),
        ],
        rows,
        f"Evaluations of density and score count once, together. eta = h = {eta}; kernel exp(-r^2 / m^2), m the median "
        "distance of exact samples; Sinkhorn's divergence of squared distances, epsilon 1, of the first seed. Exact "
        f"samples at the end are the best that can be. nu of the annealed SMC has deviation {wide:g}.",
    )


if __name__ == "__main__":
    for name, eta, wide in (("three-modes", 0.2, 8.0), ("gmm40", 0.3, 25.0)):
        if name in sys.argv or len(sys.argv) == 1:
            main(name, eta, wide)
