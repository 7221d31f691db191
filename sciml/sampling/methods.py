"""Methods that sample a density within a budget of evaluations, by name, as the command line has them.

All start from N(0, reach^2), but the dilation path at the origin. Where no step is given, that of Langevin chains is
tuned before, by the acceptance of Metropolised steps; what that costs is a part of the budget.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.registry import unknown_name

from .chains import run_chains
from .dilation import Rule, anneal
from .langevin import Kernel, Overdamped, Underdamped
from .noise import SampleNoise
from .paths import DilationPath, GeometricPath, levels
from .smc import ACCEPTANCE, annealed_smc
from .targets import Counted, Density

__all__ = ["METHODS", "Budget", "Drawn", "draw"]

TUNING = 60
"""Steps that tune h."""
APART = 2**40
"""Number of the first of these, whose noise no later step has again."""
POLISH = 0.15
"""Share of the dilation's budget that is spent at the target."""
LEAST_BUDGET = 100


@dataclass(frozen=True)
class Budget:
    """What a method may use.

    Attributes
    ----------
    n : int
        Samples, one chain or particle each.
    evaluations : int
        Of the target by each; density and score at once count once.
    step : float or None
        h of Langevin chains, tuned by default; the length of the dilation's drifts, 1; h of the first moves of smc,
        which then follows the acceptance.
    deviation : float or None
        Of the start; the target's ``reach`` by default. The dilation path begins in the origin, and takes it for the
        states by which the steps of its polish are tuned.
    seed : int
        Samples depend on it and on ``n``: steps are tuned by all chains.

    Raises
    ------
    ConfigError
        If one of them is out of its range.
    """

    n: int = 1000
    evaluations: int = 2000
    step: float | None = None
    deviation: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ConfigError(f"n={self.n}: give two samples or more")
        if self.evaluations < LEAST_BUDGET:
            raise ConfigError(f"evaluations={self.evaluations}: give {LEAST_BUDGET} or more")
        for name in ("step", "deviation"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name}={value}: it must be positive and finite")


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a method gave.

    Attributes
    ----------
    x : Tensor, shape (n, d)
    evaluations : float
        Of the target, by each sample.
    step : float
    acceptance : float
        Of Metropolised steps, else 1.
    """

    x: Tensor
    evaluations: float
    step: float
    acceptance: float


Method = Callable[[Density, Budget, bool], tuple[Tensor, float, float]]
"""From a target, a budget and whether to show a bar to samples, step and acceptance."""


def _start(target: Density, budget: Budget) -> Tensor:
    deviation = target.reach if budget.deviation is None else budget.deviation
    empty = torch.empty((budget.n, target.d), dtype=torch.float64)
    return deviation * SampleNoise(budget.seed)(APART - 1, empty)


def _tuned(target: Density, budget: Budget) -> tuple[Tensor, float, int]:
    """Return states, h, and how many steps it took to find it."""
    x, noise = _start(target, budget), SampleNoise(budget.seed)
    if budget.step is not None:
        return x, budget.step, 0
    h = (0.1 * target.reach) ** 2
    state = None
    for k in range(TUNING):
        kernel = Overdamped(target, h, adjusted=True)
        if state is None:
            state = kernel.start(x, x)
        before = state.accepted
        state = kernel.step(state, noise(APART + k, x.new_empty((len(x), kernel.width))))
        assert state.accepted is not None
        assert before is not None
        share = float((state.accepted - before).double().mean())
        h *= math.exp(share - ACCEPTANCE)
    assert state is not None
    return state.q, h, TUNING + 1


def _chains(make: Callable[[Density, float], Kernel]) -> Method:
    def run(target: Density, budget: Budget, progress: bool) -> tuple[Tensor, float, float]:
        x, h, spent = _tuned(target, budget)
        kernel = make(target, h)
        # One to see that the start is finite, one before the first step.
        steps = budget.evaluations - spent - 2
        found = run_chains(kernel, x, steps, seed=budget.seed, observables={}, progress=progress)
        return found.x, kernel.h, found.acceptance

    return run


def _dilation(target: Density, budget: Budget, progress: bool) -> tuple[Tensor, float, float]:
    _, h, spent = _tuned(target, Budget(budget.n, seed=budget.seed, deviation=budget.deviation))
    size = 1.0 if budget.step is None else budget.step
    left = budget.evaluations - spent - 1
    polish = int(POLISH * left) // 2
    found = anneal(
        DilationPath(target),
        levels(left - 2 * polish, "linear", 1e-3),
        Rule("drift", size, cap=size),
        budget.n,
        polish=polish,
        polish_step=h,
        polish_adjusted=True,
        seed=budget.seed,
        progress=progress,
    )
    return found.x, size, found.acceptance


def _smc(target: Density, budget: Budget, progress: bool) -> tuple[Tensor, float, float]:
    deviation = target.reach if budget.deviation is None else budget.deviation
    first = (0.5 * deviation) ** 2 if budget.step is None else budget.step
    found = annealed_smc(
        GeometricPath(target, deviation),
        levels(budget.evaluations - 2, "square", 1e-6),
        budget.n,
        step=first,
        seed=budget.seed,
        progress=progress,
    )
    return found.x, found.step, found.acceptance


METHODS: dict[str, Method] = {
    "ula": _chains(lambda target, h: Overdamped(target, h / 4)),
    "mala": _chains(lambda target, h: Overdamped(target, h, adjusted=True)),
    # A step of h^(1/2) in momenta is one of h in positions.
    "baoab": _chains(lambda target, h: Underdamped(target, math.sqrt(h))),
    "dilation": _dilation,
    "smc": _smc,
}
"""ula: unadjusted Langevin chains at a quarter of the tuned step; mala: Metropolised ones; baoab: underdamped ones;
dilation: drifts of a fixed length along the dilation path, then Metropolised steps; smc: annealed sequential Monte
Carlo along the geometric path, the one that gets weights of modes right."""


def draw(
    target: Density, method: str = "smc", budget: Budget | None = None, *, progress: bool = False
) -> Drawn:
    """Sample a density.

    Parameters
    ----------
    target : Density
    method : {"ula", "mala", "baoab", "dilation", "smc"}
    budget : Budget, optional
    progress : bool
        Show a bar on a terminal.

    Returns
    -------
    Drawn

    Raises
    ------
    ConfigError
        If the method is not known.
    ConvergenceError
        If a chain diverges, or the target is not finite at the start.

    Examples
    --------
    >>> from sciml.sampling.targets import three_modes
    >>> found = draw(three_modes(), "smc", Budget(500, 400))
    >>> found.x.shape, found.evaluations
    (torch.Size([500, 2]), 400.0)
    """
    if method not in METHODS:
        raise unknown_name("method", method, list(METHODS))
    budget = budget or Budget()
    counted = Counted(target)
    x, step, acceptance = METHODS[method](counted, budget, progress)
    return Drawn(x, counted.evaluations / budget.n, step, acceptance)
