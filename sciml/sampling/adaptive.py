"""DPM-Solver-12 and -23: steps in lambda as long as an estimate of their error allows (arXiv 2206.00927, appendix C).

A step of order k - 1 and one of order k share evaluations; with

    E = sqrt(mean(((high - low) / max(atol, rtol max(|low|, |previous low|)))^2))

over the entries of a sample, a step is accepted where E <= 1, and the next one is 0.9 h E^(-1/k), at most what is left.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciml.errors import ConfigError, ConvergenceError

from .evaluation import Evaluation
from .plans import Solver, Stage, single_step
from .schedules import Level

__all__ = ["StepControl", "integrate_adaptively"]


@dataclass(frozen=True)
class StepControl:
    """How an adaptive solver chooses its steps.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    rtol: float = 0.05
    """Relative tolerance."""
    atol: float = 0.0078
    """Absolute tolerance; 2 / 256 is a step of an image's brightness in [-1, 1]."""
    safety: float = 0.9
    """Factor of the next step."""
    first: float = 0.05
    """The first step, in lambda."""
    per_sample: bool = False
    """Give every sample its own steps, so that it does not depend on the others of its batch. Else all take the steps
    of the one that needs the shortest."""
    most: int = 10_000
    """Steps to try."""

    def __post_init__(self) -> None:
        for name in ("rtol", "atol", "first"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"StepControl {name}={getattr(self, name)}: it must be positive and finite")
        if not 0 < self.safety < 1 or self.most < 1:
            raise ConfigError(
                f"StepControl safety={self.safety}, most={self.most}: give a factor in (0, 1) and a step or more"
            )


class _Group:
    """Samples that take the same steps: all of a batch, or a single one."""

    def __init__(self, level: Level, rows: slice, first: float) -> None:
        self.level, self.rows, self.h = level, rows, first
        self.accepted = self.rejected = self.evaluations = 0
        self.start: Tensor | None = None
        """The model's output at the state, kept over a rejected step."""


@torch.no_grad()
def integrate_adaptively(
    evaluation: Evaluation,
    solver: Solver,
    levels: list[Level],
    x: Tensor,
    control: StepControl,
    progress: bool = False,
) -> tuple[Tensor, int, int, int]:
    """Integrate from the first to the last level; return the state, evaluations, accepted and rejected steps."""
    first, last = levels[0], levels[-1]
    sign = math.copysign(1.0, last.half_log_snr - first.half_log_snr)
    length = abs(last.half_log_snr - first.half_log_snr)
    rows = [slice(i, i + 1) for i in range(len(x))] if control.per_sample else [slice(0, len(x))]
    groups = [_Group(first, part, sign * min(control.first, length)) for part in rows]
    x, low = x.clone(), x.clone()
    with tqdm(total=round(length, 3), desc="sample", disable=None if progress else True) as bar:
        while active := [group for group in groups if group.level is not last]:
            for group in active:
                _try(evaluation, solver, control, last, group, x, low)
            nearest = min(abs(group.level.half_log_snr - first.half_log_snr) for group in groups)
            bar.update(round(nearest, 3) - bar.n)
    slowest = max(groups, key=lambda group: group.evaluations)
    return x, slowest.evaluations, slowest.accepted, slowest.rejected


def _try(
    evaluation: Evaluation,
    solver: Solver,
    control: StepControl,
    last: Level,
    group: _Group,
    x: Tensor,
    low: Tensor,
) -> None:
    """Try one step; where it is accepted put its end into x and that of the lower order into ``low``."""
    schedule, level, state = evaluation.schedule, group.level, x[group.rows]
    trial = group.accepted + group.rejected + 1
    if trial > control.most:
        raise ConvergenceError(
            f"most={control.most}: as many steps were tried up to t={level.t:.6g}; allow more, or larger tolerances"
        )
    target = last
    if abs(group.h) < abs(last.half_log_snr - level.half_log_snr) * (1 - 1e-9):
        target = schedule.level(float(schedule.time(level.half_log_snr + group.h)))
    r1 = 1 / 2 if solver.order == 2 else 1 / 3
    stages = single_step(solver, schedule, level, target, solver.order, r1)
    lower = single_step(solver, schedule, level, target, solver.order - 1, r1)
    if group.start is None:
        group.start = _evaluated(evaluation, state, stages[0], group)
    outputs = [group.start]
    inner = _advanced(state, stages[0], outputs)
    for stage in stages[1:]:
        outputs.insert(0, _evaluated(evaluation, inner, stage, group))
        inner = _advanced(state, stage, outputs)
    new_low = _advanced(state, lower[-1], outputs[len(outputs) - len(lower) :])
    allowed = control.rtol * torch.maximum(new_low.abs(), low[group.rows].abs())
    weighted = ((inner - new_low) / allowed.clamp_min(control.atol)).reshape(len(state), -1)
    error = float(weighted.square().mean(1).sqrt().max())
    if not math.isfinite(error):
        raise ConvergenceError(
            f"the model's output is not finite in step {trial}, between t={level.t:.6g} and {target.t:.6g}: mend the "
            "model, lower its guidance scale, or start at a smaller t"
        )
    if error <= 1:
        x[group.rows], low[group.rows] = inner, new_low
        group.level, group.start, group.accepted = target, None, group.accepted + 1
    else:
        group.rejected += 1
    # An error of zero asks for all that is left.
    factor = control.safety * error ** (-1 / solver.order) if error > 0 else math.inf
    left = last.half_log_snr - group.level.half_log_snr
    group.h = float(np.sign(left)) * min(abs(group.h) * factor, abs(left))


def _evaluated(evaluation: Evaluation, x: Tensor, stage: Stage, group: _Group) -> Tensor:
    group.evaluations += 1
    return evaluation(x, stage.level, evaluation.labels([stage.level], x)[0])


def _advanced(base: Tensor, stage: Stage, outputs: list[Tensor]) -> Tensor:
    update = stage.advance
    x = base * update.scale
    for weight, output in zip(update.weights, outputs, strict=True):
        x = x.add(output, alpha=weight)
    return x
