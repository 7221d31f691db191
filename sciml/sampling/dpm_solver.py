"""DPM-Solver and DPM-Solver++: fast solvers of diffusion models' ODEs and SDEs.

Lu, Zhou, Bao, Chen, Li and Zhu, "DPM-Solver", NeurIPS 2022, arXiv 2206.00927, and "DPM-Solver++", arXiv 2211.01095;
`sciml.sampling.plans` has the mathematics. The multistep solver of order 3 is one of third order here: public
implementations take half the coefficient of the second derivative, and measure order 2 (``compat=True`` is theirs).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
from .plans import SOLVERS, Solver, Stage, fast_orders, multistep_plan, singlestep_plan
from .schedules import Level, Schedule
from .updates import Operation, Workspace, operations, total, workspace

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


def _key(x: Tensor) -> tuple[object, ...]:
    return x.shape, x.dtype, x.device, torch.is_inference_mode_enabled()


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
    _spaces: dict[tuple[object, ...], Workspace] = field(init=False, repr=False)
    _operations: list[Operation] = field(init=False, repr=False)

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
            ("_spaces", {}),
            ("_operations", operations(plan, conversions, self.data_hook is None)),
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
        if x.device.type == "cpu" and not math.isfinite(total(x).item()):
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

        On a GPU nothing here waits for it: after a first run the loop can be captured in a CUDA graph.
        """
        space = self._spaces.pop(_key(x), None)
        if space is None:
            labels = self.evaluation.labels([stage.level for stage in self.plan], x)
            space = workspace(self._operations, labels, x)
        x = space.start(x)
        sums: list[Tensor] = []
        done, on_cpu, evaluate = 0, x.device.type == "cpu", self.evaluation.output
        with tqdm(total=len(self.levels) - 1, desc="sample", disable=None if progress else True) as bar:
            for i, stage in enumerate(self.plan):
                output = evaluate(x, stage.level, space.labels[i])
                if not on_cpu:
                    sums.append(total(output))
                z = like(noise(done, x), x, "noise") if stage.advance.noise else None
                x, finite = space.advance(i, output, z)
                if finite is None and on_cpu and (i + 1) % space.count == 0:
                    # A state stays so, and the first output that made it is among those that are kept.
                    finite = math.isfinite(total(x).item())
                if finite is False:
                    self._check([*map(total, space.last_outputs(i)), total(x)], i)
                if stage.ends:
                    done += 1
                    bar.update()
                    if self.state_hook is not None:
                        x.copy_(like(self.state_hook(x.clone(), stage.next, done), x, "state_hook"))
        if on_cpu:
            sums = [*map(total, space.last_outputs(len(self.plan) - 1))]
        sums.append(total(x))
        result = x.clone()
        # Of the last shape only. Of two runs at the same time each takes or makes its own.
        self._spaces.clear()
        self._spaces[_key(x)] = space
        return result, sums

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
