"""DPM-Solver and DPM-Solver++: fast solvers of diffusion models' ODEs and SDEs.

Lu, Zhou, Bao, Chen, Li and Zhu, "DPM-Solver", NeurIPS 2022, arXiv 2206.00927, and "DPM-Solver++", arXiv 2211.01095;
`sciml.sampling.plans` has the mathematics. The multistep solver of order 3 is one of third order here: public
implementations take half the coefficient of the second derivative, and measure order 2 (``compat=True`` is theirs).
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciml.errors import ConfigError, ConvergenceError
from sciml.registry import unknown_name

from .adaptive import StepControl, integrate_adaptively
from .evaluation import DataHook, Evaluation, Model, like
from .grids import Grid, time_grid
from .noise import SampleNoise
from .parametrisations import Parametrisation
from .plans import SOLVERS, Solver, Stage, Update, fast_orders, multistep_plan, singlestep_plan
from .schedules import Level, Schedule

__all__ = ["Sampled", "Sampler", "StateHook", "sample"]

StateHook = Callable[[Tensor, Level, int], Tensor]
"""From a state, its level and the number of its step, from 1, to the state in its place."""


@dataclass(frozen=True)
class Sampled:
    """What a sampler returns.

    Attributes
    ----------
    x : Tensor, shape (B, ...)
        At the end of the grid.
    evaluations : int
        Calls of the model; guided ones count once.
    accepted, rejected : int
        Steps; of fixed steps none is rejected. With control by sample those of the slowest one.
    """

    x: Tensor
    evaluations: int
    accepted: int
    rejected: int = 0


def sample(
    model: Model,
    schedule: Schedule,
    solver: str | Solver = "dpm++2m",
    steps: int = 20,
    *,
    x: Tensor | None = None,
    shape: Sequence[int] | None = None,
    seed: int = 0,
    prediction: Parametrisation = "noise",
    grid: Grid = "log-snr",
    times: Sequence[float] | np.ndarray | None = None,
    start: float | None = None,
    end: float | None = None,
    final_zero: bool = False,
    lower_order_final: bool = False,
    label: Callable[[float], float] | None = None,
    data_hook: DataHook | None = None,
    state_hook: StateHook | None = None,
    noise: Callable[[int, Tensor], Tensor] | None = None,
    control: StepControl | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Sampled:
    """Solve a diffusion model's ODE or SDE from noise to data, or with ``start`` below ``end`` from data to noise.

    Parameters
    ----------
    model : callable
        ``model(x, t)``, x of shape (B, ...), t of shape (B,), to a tensor like x. The memory of x is used again:
        a model that keeps states must copy them.
    schedule : Schedule
        What the model was trained with.
    solver : str or Solver
        A name of `SOLVERS`: dpm++2m for guided models, dpm++3m or dpm-3s for others, sde-dpm++2m for noise on the way.
    steps : int
        Steps of the grid. A single step of order k takes k evaluations; "fast" solvers spend ``steps`` evaluations
        in all, adaptive ones choose for themselves, and ``times`` say it themselves.
    x : Tensor, optional
        The state at the start; else ``shape`` (B, ...), for noise of deviation sigma from ``seed``.
    seed : int
        Of that noise and of the steps': that of a sample depends on its row, not on the batch.
    prediction : {"noise", "data", "score", "v", "velocity"}
        What the model returns (`sciml.sampling.parametrisations`).
    grid : {"log-snr", "time", "quadratic", "karras", "beta"}
    times : sequence of float, optional
        The grid itself, steps + 1 times, in place of ``grid``, ``start`` and ``end``.
    start, end : float, optional
        ``t_max`` and ``t_min`` by default.
    final_zero : bool
        Make the last of the steps one to sigma = 0, which returns the data that the model predicts. Data solvers only.
    lower_order_final : bool
        With fewer than 15 steps end with orders 2 and 1, for models that are inaccurate near the data. Multistep
        solvers only.
    label : callable, optional
        From t to what the model gets in its place, such as `DiscreteSchedule.label`.
    data_hook : callable, optional
        ``data_hook(x_0, x, level)`` returns the predicted data in place of x_0: thresholding, measurements.
    state_hook : callable, optional
        ``state_hook(x, level, step)`` returns the state after a step. Not with a corrector.
    noise : callable, optional
        ``noise(step, x)``, standard normal like x, in place of that from ``seed``.
    control : StepControl, optional
        Of adaptive solvers.
    dtype : torch.dtype
        Of the noise that ``shape`` asks for.
    device : str or torch.device
        Likewise.
    progress : bool
        Show a bar on a terminal.

    Returns
    -------
    Sampled

    Raises
    ------
    ConfigError
        If an argument cannot be used, the model's output has another shape, the noise form is asked for sigma = 0, or
        steps are fewer than the order.
    ConvergenceError
        If the model's output is not finite: the message names the step. On a GPU it is found at the end, as looking
        at every step would stop it.

    Examples
    --------
    Of data N(0, 4) the score is known:

    >>> from sciml.sampling import VPLinear, sample
    >>> schedule = VPLinear()
    >>> def noise(x, t):
    ...     variance = 4 * schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
    ...     return x * (schedule.sigma(t) / variance)[:, None]
    >>> found = sample(noise, schedule, "dpm++3m", 20, shape=(4000, 1))
    >>> found.evaluations, round(float(found.x.std()), 1)
    (20, 2.0)
    """
    sampler = Sampler(
        *(model, schedule, solver, steps),
        prediction=prediction, grid=grid, times=times, start=start, end=end, final_zero=final_zero,
        lower_order_final=lower_order_final, label=label, data_hook=data_hook, state_hook=state_hook,
        control=control,
    )  # fmt: skip
    draw = noise or SampleNoise(seed)
    if isinstance(shape, int):
        raise ConfigError(f"shape={shape}: give a size for each axis, samples first, such as ({shape}, 1)")
    if (x is None) == (shape is None):
        raise ConfigError("x, shape: give the state at the start, or the shape of noise, not both")
    if x is None:
        if len(tuple(shape or ())) < 1 or any(n < 1 for n in shape or ()):
            raise ConfigError(f"shape={shape}: give positive sizes, samples first")
        empty = torch.empty(tuple(shape or ()), dtype=dtype, device=device)
        x = sampler.levels[0].sigma * draw(-1, empty)
    return sampler(x, noise=draw, progress=progress)


class _Operation(NamedTuple):
    """A stage by outputs that are not converted in full."""

    ratio: float | None
    correction: Update | None
    update: Update
    in_place: bool


class _Memory(NamedTuple):
    """What a run works on, and leaves to the next one of the same shape."""

    states: tuple[Tensor, Tensor]
    outputs: list[Tensor]
    column: Tensor
    times: Tensor
    labels: Sequence[Tensor]


def _key(x: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return x.shape, x.dtype, x.device


@dataclass(frozen=True, eq=False)
class Sampler:
    """`sample` with everything prepared that does not depend on the state.

    Parameters
    ----------
    model, schedule, solver, steps, prediction, grid, times, start, end, final_zero, lower_order_final, label, \
data_hook, state_hook, control
        As those of `sample`.

    Attributes
    ----------
    method : Solver
        That which was named.
    levels : list of Level
        The grid.
    plan : list of Stage
        What is done, empty for adaptive solvers.
    """

    model: Model
    schedule: Schedule
    solver: str | Solver = "dpm++2m"
    steps: int = 20
    prediction: Parametrisation = "noise"
    grid: Grid = "log-snr"
    times: Sequence[float] | np.ndarray | None = None
    start: float | None = None
    end: float | None = None
    final_zero: bool = False
    lower_order_final: bool = False
    label: Callable[[float], float] | None = None
    data_hook: DataHook | None = None
    state_hook: StateHook | None = None
    control: StepControl | None = None
    levels: list[Level] = field(init=False)
    plan: list[Stage] = field(init=False)
    method: Solver = field(init=False)
    evaluation: Evaluation = field(init=False)
    _memory: dict[tuple[torch.Size, torch.dtype, torch.device], _Memory] = field(init=False, repr=False)
    _operations: list[_Operation] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        solver = self.solver
        if isinstance(solver, str):
            if solver not in SOLVERS:
                raise unknown_name("solver", solver, list(SOLVERS))
            solver = SOLVERS[solver]
        evaluation = Evaluation(
            self.model, self.schedule, solver.form, self.prediction, self.label, self.data_hook
        )
        adaptive = solver.kind == "adaptive"
        if self.control is not None and not adaptive:
            raise ConfigError("control: fixed steps need none; choose an adaptive solver, such as dpm-23")
        if not isinstance(self.steps, int):
            raise ConfigError(f"steps={self.steps!r}: give a whole number")
        if self.state_hook is not None and solver.corrector:
            raise ConfigError(
                "state_hook: a corrector would undo it; choose a solver without, such as dpm++3m"
            )
        if self.lower_order_final and solver.kind != "multistep":
            raise ConfigError(
                f"lower_order_final=True: it belongs to multistep solvers, not to {solver.kind}"
            )
        if self.times is not None and (np.ndim(self.times) != 1 or len(self.times) < 2 - self.final_zero):
            raise ConfigError(
                f"times of shape {np.shape(self.times)}: give a sequence of two numbers or more"
            )
        if self.times is not None and solver.kind == "fast":
            raise ConfigError("times: a fast solver makes its own grid; leave them out, or choose dpm++3s")
        if adaptive and (self.times is not None or self.state_hook is not None or self.final_zero):
            raise ConfigError(
                "times, state_hook, final_zero: an adaptive solver chooses its steps, leave them out"
            )
        orders = self._orders(solver)
        levels = self._levels(solver, len(orders))
        plan: list[Stage] = []
        if solver.kind == "multistep":
            plan = multistep_plan(solver, levels, self.lower_order_final)
        elif not adaptive:
            plan = singlestep_plan(solver, self.schedule, levels, orders)
        conversions = [evaluation.conversion(stage.level) for stage in plan]
        for name, value in (
            ("_memory", {}),
            ("_operations", _operations(plan, conversions, self.data_hook is None)),
            ("method", solver),
            ("levels", levels),
            ("plan", plan),
            ("evaluation", evaluation),
        ):
            object.__setattr__(self, name, value)

    def _orders(self, solver: Solver) -> list[int]:
        """The order of each step, as far as it is chosen beforehand."""
        if solver.kind == "adaptive":
            return [solver.order]
        count = self.steps if self.times is None else len(self.times) - 1 + self.final_zero
        if count < 1:
            raise ConfigError(f"steps={count}: it must be at least 1")
        if solver.kind == "fast":
            if count < solver.order:
                raise ConfigError(
                    f"steps={count}: a fast solver of order {solver.order} needs {solver.order} evaluations"
                )
            return fast_orders(count - self.final_zero, solver.order) + [1] * self.final_zero
        if solver.kind == "multistep" and count < solver.order:
            raise ConfigError(
                f"steps={count}: a multistep solver of order {solver.order} needs at least {solver.order}"
            )
        return [solver.order] * count

    def _levels(self, solver: Solver, count: int) -> list[Level]:
        if self.final_zero and solver.form == "noise":
            raise ConfigError(
                "final_zero=True: the noise form divides by sigma = 0 there; choose a data solver (dpm++...)"
            )
        if self.times is not None:
            given = [self.start, self.end]
            if given != [None, None]:
                raise ConfigError(f"start={self.start}, end={self.end}: the times say that, leave them out")
            times = np.asarray(self.times, float)
        elif self.final_zero and count == 1:
            if self.end is not None:
                raise ConfigError(
                    f"end={self.end}: one step to sigma = 0 has no time before it; leave it out"
                )
            times = np.array([self.schedule.t_max if self.start is None else self.start])
        else:
            inner = count - self.final_zero
            times = time_grid(self.schedule, inner, self.grid, self.start, self.end)
        levels = self.schedule.levels(times)
        down = np.diff([level.half_log_snr for level in levels])
        if not ((down > 0).all() or (down < 0).all()):
            raise ConfigError(f"times={times}: they must fall or grow, and lambda with them, strictly")
        if solver.eta and (down < 0).any():
            raise ConfigError("start, end: a solver that adds noise goes from noise to data only")
        if self.final_zero:
            if (down < 0).any():
                raise ConfigError("final_zero=True: it belongs to sampling from noise to data")
            levels.append(Level(0.0, 1.0, 0.0, math.inf, 0.0, 0.0))
        return levels

    def __call__(
        self, x: Tensor, noise: Callable[[int, Tensor], Tensor] | None = None, progress: bool = False
    ) -> Sampled:
        """Solve from states x at the first level; see `sample`."""
        if not x.is_floating_point() or x.ndim < 1 or len(x) < 1:
            raise ConfigError(
                f"x of {x.dtype}, shape {tuple(x.shape)}: give floating-point states, samples first"
            )
        if x.device.type == "cpu" and not math.isfinite(_total(x).item()):
            raise ConfigError("x: a state at the start is not finite")
        if self.method.kind == "adaptive":
            control = self.control or StepControl()
            result = integrate_adaptively(self.evaluation, self.method, self.levels, x, control, progress)
            return Sampled(*result)
        x, sums = self.integrate(x, noise or SampleNoise(), progress)
        self._check(sums, len(self.plan) - 1)
        return Sampled(x, len(self.plan), len(self.levels) - 1)

    @torch.no_grad()
    def integrate(
        self, x: Tensor, noise: Callable[[int, Tensor], Tensor], progress: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the plan; return the last state, and sums by which it is known whether all was finite (`_check`).

        On a GPU nothing here waits for it: after a first run the loop can be captured in a CUDA graph. States
        and outputs share a few tensors, which the next run of the same shape takes again: memory that is asked for anew
        costs more than the arithmetic.
        """
        memory = self._memory.pop(_key(x), None) or self._new_memory(x)
        states, outputs, labels = memory.states, memory.outputs, memory.labels
        base = x = states[0].copy_(x)
        # A model may change what it is given.
        memory.times.copy_(memory.column.expand_as(memory.times))
        past: deque[Tensor] = deque(maxlen=len(outputs))
        sums: list[Tensor] = []
        done, on_cpu, evaluate = 0, x.device.type == "cpu", self.evaluation.unscaled
        with tqdm(total=len(self.levels) - 1, desc="sample", disable=None if progress else True) as bar:
            for i, (stage, step) in enumerate(zip(self.plan, self._operations, strict=True)):
                output = evaluate(x, stage.level, labels[i], outputs[i % len(outputs)], step.ratio)
                past.appendleft(output)
                if not on_cpu:
                    sums.append(_total(output))
                if step.correction is not None:
                    # The state at which the model was evaluated is not needed any more.
                    base = _apply(step.correction, base, past, x)
                elif not stage.inner:
                    base = x
                x = _apply(step.update, base, past, base if step.in_place else states[base is states[0]])
                if step.update.noise:
                    x.add_(like(noise(done, x), x, "noise"), alpha=step.update.noise)
                if on_cpu and (i + 1) % len(outputs) == 0 and not math.isfinite(_total(x).item()):
                    # A state stays so, and the first output that made it is among those that are kept.
                    self._check([*map(_total, reversed(past)), _total(x)], i)
                if stage.ends:
                    done += 1
                    bar.update()
                    if self.state_hook is not None:
                        x.copy_(like(self.state_hook(x.clone(), stage.next, done), x, "state_hook"))
        if on_cpu:
            sums = [*map(_total, reversed(past))]
        sums.append(_total(x))
        result = x.clone()
        # Of the last shape only. Of two runs at the same time each takes or makes its own.
        self._memory.clear()
        self._memory[_key(x)] = memory
        return result, sums

    def _new_memory(self, x: Tensor) -> _Memory:
        kept = max(len(operation.update.weights) for operation in self._operations)
        kept += any(operation.correction is not None for operation in self._operations)
        times = self.evaluation.labels([stage.level for stage in self.plan], x)
        outputs = [torch.empty_like(x) for _ in range(kept)]
        return _Memory(
            (torch.empty_like(x), torch.empty_like(x)), outputs, times[:, :1].clone(), times, times.unbind()
        )

    def _check(self, sums: list[Tensor], last: int) -> None:
        """Raise an error if a sum is not finite: of evaluations up to the ``last`` one, and of the state after it."""
        finite = torch.isfinite(torch.stack(sums)).tolist()
        if all(finite):
            return
        first = finite.index(False)
        if first == len(sums) - 1:
            raise ConvergenceError(
                "a state is not finite, the model's outputs are: look at hooks and noise, or use a wider number type"
            )
        number = last + 2 - len(sums) + first
        stage = self.plan[number]
        step = sum(s.ends for s in self.plan[:number]) + 1
        raise ConvergenceError(
            f"the model's output is not finite in step {step} of {len(self.levels) - 1}, at t={stage.level.t:.6g}: "
            "mend the model, lower its guidance scale, or start at a smaller t"
        )


def _operations(
    plan: Sequence[Stage], conversions: Sequence[tuple[float, float]], linear: bool
) -> list[_Operation]:
    """Put what `Evaluation.unscaled` lacks into the updates; ``linear`` says that no hook is in between."""
    found = []
    # Where no output is used twice a x goes into the update, too.
    once = linear and all(len(stage.advance.weights) == 1 and stage.correction is None for stage in plan)
    for i, (stage, (a, b)) in enumerate(zip(plan, conversions, strict=True)):
        correction, update = (
            part
            and replace(
                part, weights=tuple(w * c[1] for w, c in zip(part.weights, conversions[i::-1], strict=False))
            )
            for part in (stage.correction, stage.advance)
        )
        assert update is not None
        if once:
            update = replace(update, scale=update.scale + stage.advance.weights[0] * a)
        # The base is needed again within a step, to correct the next state, and where an output may be a view of it.
        kept = i + 1 < len(plan) and plan[i + 1].correction is not None
        found.append(
            _Operation(None if once else a / b, correction, update, stage.ends and not kept and not once)
        )
    return found


def _total(x: Tensor) -> Tensor:
    """The sum, by which entries that are not finite are known; of half precision it would overflow."""
    return x.sum(dtype=torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x.sum()


def _apply(update: Update, base: Tensor, past: Sequence[Tensor], out: Tensor) -> Tensor:
    out = base.mul_(update.scale) if out is base else torch.mul(base, update.scale, out=out)
    for weight, output in zip(update.weights, past, strict=False):
        if weight:
            out.add_(output, alpha=weight)
    return out
