"""Multiple shooting: a vector field is fitted to segments of trajectories, each rolled out from its own start.

The segments' errors r, in units of each component's size, are minimised in the sense of least squares by
Levenberg-Marquardt steps (Marquardt, SIAM J. 11, 431, 1963) with exact derivatives, forward through the integrator.
Starts are those of the data, or free: then they are unknowns of their segment alone and are eliminated from the
normal equations (Bock's structure, 1981), so that noise in a start is not taken for dynamics. What is left is

    (S + lambda diag S) d theta = -(g - sum_b E_b^T F_b^-1 h_b),    S = H - sum_b E_b^T F_b^-1 E_b,

with the blocks H = J_theta^T J_theta, E_b = J_b^T J_theta and F_b = J_b^T J_b of segment b. Only the polynomial that a
network of Mu-layers is can be known from data, not its weights; the damping chooses among those.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap

from sciml.errors import ConfigError, ConvergenceError

from .models import LearnedField, PolynomialODE, StencilODE
from .rollout import advance, check_times

__all__ = ["LeastSquares", "Segments", "Shooting", "ShootingState", "levenberg_marquardt", "segments"]

ENTRIES = 2e7
"""Numbers of a Jacobian in memory at a time."""
SMALLEST, LARGEST = 1e-14, 1e10


@dataclass(frozen=True)
class Segments:
    """Parts of trajectories of equal numbers of frames.

    Attributes
    ----------
    states : Tensor, shape (B, W, *space, components)
    lengths : Tensor, shape (B, W - 1)
        Times between frames.
    counted : Tensor, shape (B, W), optional
        1, or 0 for frames that another segment holds, too.
    """

    states: Tensor
    lengths: Tensor
    counted: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.counted is None:
            object.__setattr__(self, "counted", self.states.new_ones(self.states.shape[:2]))

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice | Tensor) -> "Segments":
        return Segments(self.states[rows], self.lengths[rows], self.counted[rows])


def segments(
    states: np.ndarray, times: np.ndarray, window: int, stride: int = 0, dtype: torch.dtype = torch.float64
) -> Segments:
    """Cut trajectories into segments of ``window`` frames.

    Parameters
    ----------
    states : ndarray, shape (n, T, *space, components)
    times : ndarray, shape (T,)
    window : int
    stride : int
        Frames from the start of one to that of the next; 0 is ``window``. What is left at the end of a trajectory is a
        part of a last segment that overlaps the one before; with ``window`` frames of both count once.

    Raises
    ------
    ConfigError
        If there are not enough frames, times do not grow, or a state is not finite.

    Examples
    --------
    >>> parts = segments(np.zeros((2, 10, 3)), np.arange(10.0), 4)
    >>> parts.states.shape, parts.lengths[0].tolist()
    (torch.Size([6, 4, 3]), [1.0, 1.0, 1.0])
    """
    states, clock = np.asarray(states), check_times(times)
    if states.ndim < 3 or states.shape[1] != len(clock):
        raise ConfigError(
            f"states of shape {states.shape}: expected (trajectories, {len(clock)} times, ..., components)"
        )
    if not 2 <= window <= len(clock):
        raise ConfigError(f"window={window}: choose 2 to {len(clock)} frames, as many as there are")
    if stride < 0:
        raise ConfigError(f"stride={stride}: it must not be negative")
    wrong = np.argwhere(~np.isfinite(states))
    if len(wrong):
        row, frame, *_ = wrong[0]
        raise ConfigError(
            f"states: trajectory {row}, frame {frame} (t={clock[frame]:g}) is not finite, and {len(wrong)} numbers in "
            "all: leave them out"
        )
    starts = sorted({*range(0, len(clock) - window + 1, stride or window), len(clock) - window})
    cut = np.concatenate([states[:, s : s + window] for s in starts])
    lengths = np.concatenate(
        [np.repeat(np.diff(clock[s : s + window])[None], len(states), 0) for s in starts]
    )
    counted = np.ones((len(starts), window))
    if stride in (0, window) and len(starts) > 1:
        counted[-1, : starts[-2] + window - starts[-1]] = 0
    return Segments(
        *(torch.as_tensor(part, dtype=dtype) for part in (cut, lengths, np.repeat(counted, len(states), 0)))
    )


@dataclass
class ShootingState:
    """Where a fit is: everything that it needs to go on.

    Attributes
    ----------
    theta : Tensor, shape (P,)
    starts : Tensor, shape (B, *space, components)
    damping : float
    cost : float
        Mean of the squared errors, in units of the components' sizes.
    iteration : int
    slow : int
        Steps in a row that brought nearly nothing.
    done : bool
    """

    theta: Tensor
    starts: Tensor
    damping: float = 1e-2
    cost: float = math.inf
    iteration: int = 0
    slow: int = 0
    done: bool = False


class Weights(Protocol):
    """Whatever has weights as one vector."""

    theta: Tensor


class LeastSquares(ABC):
    """Errors of segments that depend on unknowns theta of all and, where these are free, on the segments' starts.

    Parameters
    ----------
    data : Segments
    scale : Tensor, shape (components,)
        Sizes in whose units errors are counted.
    free_starts : bool

    Attributes
    ----------
    count : int
        Numbers that are compared: of the first frames only where these are free.
    """

    def __init__(self, data: Segments, scale: Tensor, free_starts: bool) -> None:
        self.data, self.scale, self.free = data, scale, free_starts
        self.mask = data.counted if free_starts else data.counted[:, 1:]
        self.count = int(self.mask.sum()) * data.states[0, 0].numel()

    @abstractmethod
    def roll_out(self, theta: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        """Return all frames, shape (B, W, *space, components)."""

    @abstractmethod
    def jacobians(
        self, theta: Tensor, starts: Tensor, data: Segments
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return errors (B, R) and their derivatives by theta (P, B, R) and by the start's D numbers (B, D, R)."""

    def errors(self, theta: Tensor, starts: Tensor, data: Segments) -> Tensor:
        """Return the errors of all frames, of the first ones where these are free."""
        return self.compared(self.roll_out(theta, starts, data.lengths), data)

    def compared(self, frames: Tensor, data: Segments) -> Tensor:
        """Return frames less the data, in units of the scale, 0 where frames do not count."""
        first = 0 if self.free else 1
        difference = (frames[:, first:] - data.states[:, first:]) / self.scale
        return difference * data.counted[:, first:].view(*difference.shape[:2], *[1] * (difference.ndim - 2))

    def split(self, frames: Tensor, data: Segments) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what `jacobians` does from states with derivatives beside them, (B, W, *space, d, 1 + D + P).

        On a grid there are none by the start, D = 0.
        """
        first, d = 0 if self.free else 1, frames.shape[2] if frames.ndim == 4 else 0
        errors = self.compared(frames[..., 0], data).flatten(1)
        counted = data.counted[:, first:].view(len(frames), -1, *[1] * (frames.ndim - 2))
        frames = frames[:, first:] / self.scale[:, None] * counted
        of_theta = frames[..., 1 + d :].movedim(-1, 0).flatten(2)
        return errors, of_theta, frames[..., 1 : 1 + d].movedim(-1, 1).flatten(2) if self.free else None

    def assess(self, state: ShootingState) -> ShootingState:
        """Return a state with its cost."""
        total = 0.0
        for rows in self._parts(1):
            total += float(self.errors(state.theta, state.starts[rows], self.data[rows]).square().sum())
        cost = total / self.count
        return replace(state, cost=cost if math.isfinite(cost) else math.inf)

    def step(self, state: ShootingState) -> ShootingState:
        """Take one step that lowers the cost, with as much damping as that needs.

        Afterwards the damping follows how much of what the quadratic model promised came true (Nielsen,
        IMM-REP-1999-05).
        """
        normal = self.normal(state)
        damping, growth = state.damping, 2.0
        while damping <= LARGEST:
            tried, promised = self._moved(state, normal, damping)
            if tried.cost < state.cost:
                ratio = (state.cost - tried.cost) / max(promised, 1e-300)
                damping = max(damping * max(0.1, 1 - (2 * ratio - 1) ** 3), SMALLEST)
                return replace(tried, damping=damping, iteration=state.iteration + 1)
            damping, growth = damping * growth, growth * 2
        return replace(state, done=True)

    def normal(self, state: ShootingState) -> "Normal":
        """Return the blocks of the normal equations."""
        theta, count = state.theta, len(state.theta)
        h, g = torch.zeros(count, count, dtype=theta.dtype), torch.zeros_like(theta)
        blocks: list[tuple[Tensor, Tensor, Tensor]] = []
        for rows in self._parts(count + self.data.states[0, 0].numel() * self.free):
            errors, of_theta, of_start = self.jacobians(theta, state.starts[rows], self.data[rows])
            h += of_theta.flatten(1) @ of_theta.flatten(1).T
            g += of_theta.flatten(1) @ errors.flatten()
            if of_start is not None:
                e = of_start @ of_theta.permute(1, 2, 0)
                blocks.append((of_start @ of_start.mT, e, (of_start @ errors[..., None]).squeeze(-1)))
        if not blocks:
            return Normal(h, g, None)
        f, e, starts_g = (torch.cat(part) for part in zip(*blocks, strict=True))
        return Normal(h, g, (f, e, starts_g))

    def _parts(self, tangents: int) -> Iterator[slice]:
        """Segments of which Jacobians fit into memory."""
        size = max(int(ENTRIES / max(self.data.states[0].numel() * tangents, 1)), 1)
        return (slice(a, a + size) for a in range(0, len(self.data), size))

    def _moved(self, state: ShootingState, normal: "Normal", damping: float) -> tuple[ShootingState, float]:
        """Return the state after the step of a damping, with its cost, and the fall of the cost that it promises."""
        if not bool(torch.isfinite(normal.h).all()):
            return replace(state, cost=math.inf), 0.0
        h, g, solved = normal.reduced(damping)
        diagonal = normal.h.diagonal()
        # The floor lets weights stay that nothing depends on.
        weight = damping * (diagonal + 1e-12 * diagonal.sum() + 1e-300)
        matrix = h + torch.diag(weight)
        change, info = torch.linalg.solve_ex(matrix, -g)
        if int(info) or not bool(torch.isfinite(change).all()):
            return replace(state, cost=math.inf), 0.0
        promised = float(change @ (weight * change - normal.g))
        starts = state.starts
        if solved is not None and normal.starts is not None:
            moved = -(solved[1] + solved[0] @ change)
            f, _, own = normal.starts
            promised += float((moved * (damping * f.diagonal(dim1=1, dim2=2) * moved - own)).sum())
            starts = starts + moved.view_as(starts)
        tried = self.assess(replace(state, theta=state.theta + change, starts=starts))
        return tried, promised / self.count


class Shooting(LeastSquares):
    """The least-squares problem of a network's weights.

    Parameters
    ----------
    model : LearnedField
    data : Segments
    substeps : int
        Steps of the classical Runge-Kutta method from each frame to the next.
    free_starts : bool
        Whether the segments' starts are unknowns, too.

    Raises
    ------
    ConfigError
        If components do not fit the model.
    """

    def __init__(self, model: LearnedField, data: Segments, substeps: int, free_starts: bool) -> None:
        if data.states.shape[-1] != len(model.variables) or data.states.ndim != 3 + model.axes:
            raise ConfigError(
                f"segments of shape {tuple(data.states.shape)}: {type(model).__name__} has {model.axes} axes and "
                f"{len(model.variables)} components"
            )
        if substeps < 1:
            raise ConfigError(f"substeps={substeps}: it must be at least 1")
        if data.states.dtype != model.dtype:
            raise ConfigError(
                f"segments of {data.states.dtype}, the model is of {model.dtype}: give segments(..., dtype=model.dtype)"
            )
        super().__init__(data, model.scale, free_starts)
        self.model = model
        self.shapes = {name: p.shape for name, p in model.named_parameters()}
        self.unrolled = _Unrolled(model, substeps)
        self.flow = model.flow(substeps)

    def start(self) -> ShootingState:
        """Return the state before the first step: the model's weights and the data's starts."""
        return self.assess(ShootingState(self.theta(), self.data.states[:, 0].clone()))

    def theta(self) -> Tensor:
        """Return the model's weights as one vector."""
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])

    def write(self, state: Weights) -> None:
        """Put a state's weights into the model."""
        weights = self._weights(state.theta)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(weights[f"model.{name}"])

    def _weights(self, theta: Tensor) -> dict[str, Tensor]:
        parts = theta.split([shape.numel() for shape in self.shapes.values()])
        return {
            f"model.{name}": part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def roll_out(self, theta: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        """Return all frames, shape (B, W, *space, components)."""
        if self.flow is not None:
            return torch.from_numpy(
                self.flow.frames(self._table(theta).numpy(), starts.numpy(), lengths.numpy())
            )
        return self._unroll(theta, starts, lengths)

    def _unroll(self, theta: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        found: Tensor = functional_call(self.unrolled, self._weights(theta), (starts, lengths))
        return found

    def _table(self, theta: Tensor) -> Tensor:
        found: Tensor = functional_call(self.unrolled, self._weights(theta))
        return found

    def jacobians(
        self, theta: Tensor, starts: Tensor, data: Segments
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return errors and their derivatives, one direction beside the other, forward through the integrator."""

        def unrolled(theta: Tensor, starts: Tensor) -> Tensor:
            return self.compared(self._unroll(theta, starts, data.lengths), data)

        def along_theta(v: Tensor) -> Tensor:
            return jvp(lambda value: unrolled(value, starts), (theta,), (v,))[1]

        def along_start(v: Tensor) -> Tensor:
            direction = v.view_as(starts[0]).expand_as(starts)
            return jvp(lambda value: unrolled(theta, value), (starts,), (direction,))[1]

        if self.flow is not None and (starts.ndim == 2 or not self.free):
            # Of coefficients there are fewer than of weights, and their roll-outs are one loop.
            leaf = theta.detach().requires_grad_()
            with torch.enable_grad():
                coefficients = self._table(leaf)
            # All rows at once; forward mode would first load a compiler's worth of rules.
            each = torch.eye(coefficients.numel(), dtype=theta.dtype).view(-1, *coefficients.shape)
            (by_weights,) = torch.autograd.grad(coefficients, leaf, each, is_grads_batched=True)
            table = coefficients.detach()
            rows, outputs = (index.ravel() for index in np.indices(table.shape))
            arrays = (part.numpy() for part in (starts, data.lengths))
            frames = torch.from_numpy(self.flow.sensitivities(table.numpy(), rows, outputs, *arrays))
            errors, of_table, of_start = self.split(frames, data)
            return errors, (by_weights.T @ of_table.flatten(1)).view(-1, *errors.shape), of_start
        errors = unrolled(theta, starts).flatten(1)
        of_theta = vmap(along_theta)(torch.eye(len(theta), dtype=theta.dtype)).flatten(2)
        if not self.free:
            return errors, of_theta, None
        of_start = vmap(along_start)(torch.eye(starts[0].numel(), dtype=theta.dtype)).flatten(2)
        return errors, of_theta, of_start.movedim(1, 0)


@dataclass(frozen=True)
class Normal:
    """H and g of the weights, and F_b, E_b and h_b of free starts."""

    h: Tensor
    g: Tensor
    starts: tuple[Tensor, Tensor, Tensor] | None

    def reduced(self, damping: float = 0.0) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Return S and the right-hand side without the starts, and F_b^-1 E_b and F_b^-1 h_b."""
        if self.starts is None:
            return self.h, self.g, None
        f, e, h = self.starts
        damped = f + damping * torch.diag_embed(f.diagonal(dim1=1, dim2=2))
        # A start that nothing depends on stays.
        damped = damped + torch.diag_embed((damped.diagonal(dim1=1, dim2=2) == 0).to(f))
        both = torch.linalg.solve_ex(damped, torch.cat([e, h[..., None]], -1))[0]
        by_theta, by_data = both[..., :-1], both[..., -1]
        return (
            self.h - (e.mT @ by_theta).sum(0),
            self.g - torch.einsum("bsp,bs->p", e, by_data),
            (by_theta, by_data),
        )


class _Unrolled(nn.Module):
    """A whole roll-out as one module, so that weights are exchanged once and not at every evaluation."""

    def __init__(self, model: LearnedField, substeps: int) -> None:
        super().__init__()
        self.model, self.substeps = model, substeps

    def forward(self, starts: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """Return all frames, shape (B, W, *space, components); without starts the field's coefficients."""
        if starts is None or lengths is None:
            assert isinstance(self.model, PolynomialODE | StencilODE)
            return self.model.table()
        frames, tail = [starts], (1,) * (starts.ndim - 1)
        for length in lengths.unbind(1):
            frames.append(advance(self.model, frames[-1], length.view(-1, *tail), self.substeps))
        return torch.stack(frames, 1)


def levenberg_marquardt(
    problem: LeastSquares,
    state: ShootingState,
    *,
    iterations: int = 100,
    tolerance: float = 1e-6,
    floor: float = 1e-30,
) -> Iterator[ShootingState]:
    """Fit; yield the state after every step, from each of which a later call goes on.

    Parameters
    ----------
    problem : LeastSquares
    state : ShootingState
        From which to go on.
    iterations : int
        Most steps, those of the given state included.
    tolerance : float
        The fit ends when the cost falls by less than this part of it in three steps in a row, or below ``floor``.

    Raises
    ------
    ConvergenceError
        If roll-outs are not finite with the unknowns of the state.

    Examples
    --------
    >>> from sciml.dynamics import PolynomialODE
    >>> times = np.linspace(0, 2, 21)
    >>> data = segments(np.exp(-times)[None, :, None], times, 5)
    >>> model = PolynomialODE(("x",))
    >>> problem = Shooting(model, data, 4, False)
    >>> *_, last = levenberg_marquardt(problem, problem.start())
    >>> problem.write(last)
    >>> bool(abs(model.polynomial().coefficients[1, 0] + 1) < 1e-6)
    True
    """
    if not math.isfinite(state.cost):
        state = problem.assess(state)
    if not math.isfinite(state.cost):
        raise ConvergenceError(
            "roll-outs of the first unknowns are not finite: take shorter windows, or more substeps"
        )
    while state.iteration < iterations and not state.done:
        before = state.cost
        state = problem.step(state)
        slow = state.slow + 1 if before - state.cost <= tolerance * before else 0
        state = replace(state, slow=slow, done=state.done or slow == 3 or state.cost <= floor)
        yield state
