"""The DPM-Solver family as linear updates, made before sampling starts.

A step from s to t, h = lambda_t - lambda_s, integrates the model's output m exactly against an exponential
(arXiv 2206.00927, proposition 3.1; arXiv 2211.01095, proposition 4.1). With m a polynomial in
r = (lambda - lambda_s) / h, m = sum_k c_k r^k,

    noise:  x_t = (alpha_t / alpha_s) x_s + sum_k c_k I_k,             I_k = -(1 + eta) sigma_t k! h phi_(k+1)(h)
    data:   x_t = (sigma_t / sigma_s) e^(-eta h) x_s + sum_k c_k I_k,  I_k = alpha_t k! H phi_(k+1)(-H), H = (1 + eta) h

plus sigma_t sqrt(eta (e^(2h) - 1)) z, or sigma_t sqrt(1 - e^(-2 eta h)) z. eta = 0 is the probability-flow ODE, eta = 1
the reverse SDE. All solvers differ only in how they find the c_k, so that each of them is a list of `Stage`: numbers in
double precision, and no work but the model's and a few additions when it runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sciml.errors import ConfigError

from .phi import phi
from .schedules import Level, Schedule

__all__ = ["SOLVERS", "Solver", "Stage", "Step", "Update", "fast_orders", "multistep_plan", "singlestep_plan"]

LOWER_ORDER_STEPS = 15
"""Of fewer steps the last ones can be of lower order."""


@dataclass(frozen=True)
class Solver:
    """Which of the solvers.

    Raises
    ------
    ConfigError
        If a value is out of its range, or two do not go together.

    Examples
    --------
    >>> Solver(order=3) == SOLVERS["dpm++3m"]
    True
    """

    form: Literal["data", "noise"] = "data"
    """What is integrated: data (DPM-Solver++) or noise (DPM-Solver)."""
    order: int = 2
    """1, 2 or 3."""
    kind: Literal["multistep", "singlestep", "fast", "adaptive"] = "multistep"
    """multistep: one evaluation a step, and those before it. singlestep: ``order`` evaluations a step. fast: steps of
    the order and of lower ones, as many as spend a number of evaluations. adaptive: a step of the order and one of the
    order below estimate the error."""
    rule: Literal["midpoint", "taylor"] = "midpoint"
    """How the derivative of m enters at order 2, and in single steps of order 3: midpoint (dpmsolver in the authors'
    code) or taylor (elsewhere heun). Multistep solvers of order 3 have one rule."""
    eta: float = 0.0
    """Noise that is added: 0 none, 1 as much as the reverse SDE."""
    corrector: bool = False
    """Multistep: correct every state by the evaluation there (UniC, arXiv 2302.04867), at no further evaluation."""
    compat: bool = False
    """Multistep of order 3: the second derivative's coefficient of the public implementations, half of what it must
    be, which makes the solver one of second order; with eta its sign, too, is that of a public library."""
    r1: float | None = None
    """Single steps: the place of the first inner evaluation in the step, in lambda; 1/2, of order 3 1/3."""
    r2: float = 2 / 3
    """Single steps of order 3: that of the second one. Any other value lowers the order to 2."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("form", ("data", "noise")),
            ("kind", ("multistep", "singlestep", "fast", "adaptive")),
            ("rule", ("midpoint", "taylor")),
            ("order", (1, 2, 3)),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"Solver {name}={getattr(self, name)!r}: choose {', '.join(map(str, choices))}"
                )
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"Solver eta={self.eta}: give a number from 0 to 1")
        if self.eta and (self.kind != "multistep" or self.corrector):
            raise ConfigError(
                f"Solver eta={self.eta}: noise is added by multistep solvers without corrector only"
            )
        if self.eta and self.order == 3 and not self.compat:
            raise ConfigError(
                "Solver order=3 with eta: a third order is not reached by it, use order=2 (compat=True has the public "
                "one, for comparisons)"
            )
        if self.corrector and self.kind != "multistep":
            raise ConfigError(f"Solver corrector=True: it belongs to multistep solvers, not to {self.kind}")
        if self.compat and (self.kind != "multistep" or self.order != 3):
            raise ConfigError("Solver compat=True: it belongs to multistep solvers of order 3")
        if self.kind == "adaptive" and self.order == 1:
            raise ConfigError("Solver kind='adaptive', order=1: choose order 2 or 3")
        if self.kind not in ("singlestep", "fast") and (self.r1 is not None or self.r2 != 2 / 3):
            raise ConfigError(
                f"Solver r1={self.r1}, r2={self.r2}: they belong to single steps, not to {self.kind}"
            )
        if self.eta and self.compat and self.form == "noise":
            raise ConfigError("Solver form='noise', compat=True with eta: no public implementation has it")
        r1 = self.first_ratio
        if not 0 < r1 < 1 or (self.order == 3 and not 0 < r1 < self.r2 <= 1):
            raise ConfigError(f"Solver r1={r1}, r2={self.r2}: give 0 < r1 < r2 <= 1")

    @property
    def first_ratio(self) -> float:
        """The value of r1, where it was left out, too."""
        if self.r1 is not None:
            return self.r1
        return 1 / 3 if self.order == 3 else 1 / 2


SOLVERS = {
    "dpm-1": Solver("noise", 1),
    "dpm-2s": Solver("noise", 2, "singlestep"),
    "dpm-3s": Solver("noise", 3, "singlestep"),
    "dpm-2m": Solver("noise", 2),
    "dpm-3m": Solver("noise", 3),
    "dpm-fast": Solver("noise", 3, "fast"),
    "dpm-12": Solver("noise", 2, "adaptive"),
    "dpm-23": Solver("noise", 3, "adaptive"),
    "dpm++1": Solver("data", 1),
    "dpm++2s": Solver("data", 2, "singlestep"),
    "dpm++3s": Solver("data", 3, "singlestep"),
    "dpm++2m": Solver("data", 2),
    "dpm++3m": Solver("data", 3),
    "dpm++fast": Solver("data", 3, "fast"),
    "dpm++12": Solver("data", 2, "adaptive"),
    "dpm++23": Solver("data", 3, "adaptive"),
    "unipc-3": Solver("data", 3, corrector=True),
    "sde-dpm-1": Solver("noise", 1, eta=1.0),
    "sde-dpm-2m": Solver("noise", 2, eta=1.0),
    "sde-dpm++1": Solver("data", 1, eta=1.0),
    "sde-dpm++2m": Solver("data", 2, eta=1.0),
}
"""Solvers by name. dpm-1 and dpm++1 are the same map, DDIM."""


@dataclass(frozen=True)
class Update:
    """x = scale base + sum_j weights_j m_j + noise z, the newest m first."""

    scale: float
    weights: tuple[float, ...]
    noise: float = 0.0


@dataclass(frozen=True)
class Stage:
    """One evaluation and what follows from it.

    Attributes
    ----------
    level : Level
        Where the model is evaluated.
    advance : Update
        The next state, from the base of the step.
    inner : bool
        Whether the state is one within a step: the base of the step is then another one.
    correction : Update or None
        The base in place of the state, from the base of the step before.
    next : Level
        Where the next state is.
    ends : bool
        Whether the next state is the end of a step.
    """

    level: Level
    advance: Update
    next: Level
    inner: bool = False
    correction: Update | None = None
    ends: bool = True


class Step:
    """The integrals of a step from one level to another."""

    def __init__(self, form: str, source: Level, target: Level, eta: float = 0.0) -> None:
        self.form, self.source, self.target, self.eta = form, source, target, eta
        self.h = target.half_log_snr - source.half_log_snr
        if target.sigma == 0:
            # lambda is infinite: the data are what the model says.
            self.scale, self.noise = 0.0, 0.0
        elif form == "data":
            self.scale = target.sigma / source.sigma * math.exp(-eta * self.h)
            self.noise = target.sigma * math.sqrt(-math.expm1(-2 * eta * self.h)) if eta else 0.0
        else:
            self.scale = target.alpha / source.alpha
            self.noise = target.sigma * math.sqrt(eta * math.expm1(2 * self.h)) if eta else 0.0

    def integral(self, k: int) -> float:
        """Return I_k, of r^k."""
        if self.target.sigma == 0:
            return self.target.alpha
        if self.form == "data":
            length = (1 + self.eta) * self.h
            return self.target.alpha * math.factorial(k) * length * phi(k + 1, -length)
        return -(1 + self.eta) * self.target.sigma * math.factorial(k) * self.h * phi(k + 1, self.h)

    def place(self, level: Level) -> float:
        """Return r of another level."""
        return (level.half_log_snr - self.source.half_log_snr) / self.h

    def update(self, *weights: float) -> Update:
        """Return the update with given weights."""
        return Update(self.scale, weights, self.noise)

    def first_order(self) -> Update:
        """Return the update with m constant: DPM-Solver-1, DDIM."""
        return self.update(self.integral(0))

    def interpolated(self, levels: Sequence[Level]) -> Update:
        """Return the update with the polynomial through m at these levels."""
        places = np.array([self.place(level) for level in levels])
        powers = np.vander(places, increasing=True).T
        moments = [self.integral(k) for k in range(len(levels))]
        return self.update(*np.linalg.solve(powers, moments).tolist())


def multistep_plan(solver: Solver, levels: Sequence[Level], lower_order_final: bool = False) -> list[Stage]:
    """Return the stages of a multistep solver through levels, one for each but the last.

    The first steps are of the orders that there are evaluations for, a step to sigma = 0 is of order 1; with
    ``lower_order_final`` and fewer than 15 steps the last step is of order 1, the one before of order 2.
    """
    steps, stages = len(levels) - 1, []
    lowered = lower_order_final and steps < LOWER_ORDER_STEPS
    correction: Update | None = None
    for i in range(steps):
        step = Step(solver.form, levels[i], levels[i + 1], solver.eta)
        order = min(solver.order, i + 1, steps - i if lowered else solver.order)
        # Newest first.
        past = levels[i::-1][:order]
        ends = levels[i + 1].sigma == 0
        advance = _multistep(solver, step, past[:1] if ends else past)
        stages.append(Stage(levels[i], advance, levels[i + 1], correction=correction))
        correction = None
        if solver.corrector and not ends:
            correction = step.interpolated([levels[i + 1], *past])
    return stages


def _multistep(solver: Solver, step: Step, past: Sequence[Level]) -> Update:
    order, first = len(past), step.integral(0)
    if order == 1:
        return step.first_order()
    r0 = -step.place(past[1])
    if order == 2:
        slope = (first / 2 if solver.rule == "midpoint" else step.integral(1)) / r0
        return step.update(first + slope, -slope)
    if not solver.compat:
        return step.interpolated(past)
    # Divided differences D1_0 and D1_1, then D1 and D2; the second derivative is twice D2.
    r1 = -step.place(past[2]) - r0
    newer, older = np.array([1, -1, 0]) / r0, np.array([0, 1, -1]) / r1
    bend = (newer - older) / (r0 + r1)
    curvature = step.integral(2) / 2 - (step.target.alpha if solver.eta else 0.0)
    weights = first * np.array([1, 0, 0]) + step.integral(1) * (newer + r0 * bend) + curvature * bend
    return step.update(*weights.tolist())


def singlestep_plan(
    solver: Solver, schedule: Schedule, levels: Sequence[Level], orders: Sequence[int]
) -> list[Stage]:
    """Return the stages of single steps between levels, each of its order; a step to sigma = 0 is of order 1."""
    stages: list[Stage] = []
    for source, target, order in zip(levels[:-1], levels[1:], orders, strict=True):
        stages += single_step(solver, schedule, source, target, 1 if target.sigma == 0 else order)
    return stages


def single_step(
    solver: Solver, schedule: Schedule, source: Level, target: Level, order: int, r1: float | None = None
) -> list[Stage]:
    """Return the stages of one step of order 1, 2 or 3."""
    whole = Step(solver.form, source, target)
    if order == 1:
        return [Stage(source, whole.first_order(), target)]
    if r1 is None:
        r1 = solver.first_ratio if order == solver.order else 1 / 2 if order == 2 else 1 / 3
    inner = _inside(schedule, source, whole.h, r1)
    start = Stage(source, Step(solver.form, source, inner).first_order(), inner, ends=False)
    i0, i1 = whole.integral(0), whole.integral(1)
    if order == 2:
        slope = (i0 / 2 if solver.rule == "midpoint" else i1) / r1
        return [start, Stage(inner, whole.update(slope, i0 - slope), target, inner=True)]
    r2 = solver.r2
    second = _inside(schedule, source, whole.h, r2)
    part = Step(solver.form, source, second)
    slope = r2 / r1 * part.integral(1)
    middle = Stage(inner, part.update(slope, part.integral(0) - slope), second, inner=True, ends=False)
    if solver.rule == "midpoint":
        last = (i1 / r2, 0.0, i0 - i1 / r2)
    else:
        polynomial = whole.interpolated([second, inner, source])
        last = polynomial.weights[0], polynomial.weights[1], polynomial.weights[2]
    return [start, middle, Stage(second, whole.update(*last), target, inner=True)]


def _inside(schedule: Schedule, source: Level, h: float, ratio: float) -> Level:
    return schedule.level(float(schedule.time(source.half_log_snr + ratio * h)))


def fast_orders(evaluations: int, order: int = 3) -> list[int]:
    """Return the orders of steps that spend a number of evaluations (arXiv 2206.00927, appendix D.3).

    Examples
    --------
    >>> fast_orders(10), fast_orders(12), fast_orders(5, order=2)
    ([3, 3, 3, 1], [3, 3, 3, 2, 1], [2, 2, 1])
    """
    if order < 3:
        return [order] * (evaluations // order) + [1] * (evaluations % order)
    whole, rest = divmod(evaluations, 3)
    if rest:
        return [3] * whole + [rest]
    return [3] * (whole - 1) + [2, 1]
