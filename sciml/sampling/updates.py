"""What a step does beside the model: linear updates of states that share a few tensors.

Memory that is asked for anew costs more than the arithmetic, and passes over it cost most of the rest. Plain float32
and float64 tensors on the CPU take one pass for all of a step where numba is installed (extra `fast`); all else takes
PyTorch's operations.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciml.operators.plain import is_plain
from sciml.operators.threads import in_parts
from sciml.solvers.compiled import kernels

from .plans import Stage, Update

__all__ = ["Operation", "Workspace", "operations", "total", "workspace"]

GRAIN = 100_000
"""Numbers that are worth a thread of their own."""


class Operation(NamedTuple):
    """A stage by outputs that are not converted in full: m = output + ratio x.

    Attributes
    ----------
    ratio : float or None
        None: the output as it is, which no later step needs.
    correction : Update or None
        The base in place of the state, from the base of the step before.
    update : Update
        The next state, from the base.
    inner : bool
        Whether the base is that of the stage before.
    in_place : bool
        Whether the next state may take the place of the base.
    """

    ratio: float | None
    correction: Update | None
    update: Update
    inner: bool
    in_place: bool


def operations(
    plan: Sequence[Stage], conversions: Sequence[tuple[float, float]], linear: bool
) -> list[Operation]:
    """Put the factor b of m = a x + b output into the updates, for one pass over memory less.

    ``linear`` says that outputs are the model's own, without a hook.
    """
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
        in_place = stage.ends and not kept and not once
        found.append(Operation(None if once else a / b, correction, update, stage.inner, in_place))
    return found


def total(x: Tensor) -> Tensor:
    """Return the sum, by which entries that are not finite are known; of half precision it would overflow."""
    return x.sum(dtype=torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x.sum()


def workspace(steps: Sequence[Operation], labels: Tensor, x: Tensor) -> "Workspace":
    """Return memory for runs of states like x."""
    fits = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and is_plain(x)
    fast = fits and kernels("fused", __package__) is not None
    return (_Compiled if fast else Workspace)(steps, labels, x)


class Workspace:
    """Two states, outputs that later steps need, and what the model gets for the time, for runs of one shape.

    Attributes
    ----------
    x : Tensor
        The state.
    labels : sequence of Tensor, shape (B,)
        By step.
    """

    def __init__(self, steps: Sequence[Operation], labels: Tensor, x: Tensor) -> None:
        self.steps = steps
        weights = max(len(step.update.weights) for step in steps)
        self.count = weights + any(step.correction is not None for step in steps)
        self.states = x.new_empty((2, *x.shape)).unbind()
        rows = x.new_empty((self.count, *x.shape))
        self.outputs, self.rows = rows.unbind(), rows.flatten(1)
        self.labels = labels.unbind()
        self._labels, self._times = labels, labels[:, :1].clone()
        self.base = self.x = self.given = self.states[0]

    def start(self, x: Tensor) -> Tensor:
        """Begin with a state, and return it."""
        # A model may have changed what it was given.
        self._labels.copy_(self._times.expand_as(self._labels))
        self.base = self.x = self.states[0].copy_(x)
        return self.x

    def advance(self, i: int, output: Tensor, noise: Tensor | None = None) -> tuple[Tensor, bool | None]:
        """Return the state after evaluation i, and whether it is finite: None says that it is not known."""
        self.given, step = output, self.steps[i]
        if step.ratio is not None:
            kept = self.outputs[i % self.count]
            output = (
                torch.add(output, self.x, alpha=step.ratio, out=kept) if step.ratio else kept.copy_(output)
            )
        if step.correction is not None:
            # The state at which the model was evaluated is not needed any more.
            self.base = self._combined(step.correction, i, output, self.x)
        elif not step.inner:
            self.base = self.x
        self.x = self._combined(step.update, i, output, self.base if step.in_place else self.other())
        if noise is not None:
            self.x.add_(noise, alpha=step.update.noise)
        return self.x, None

    def _combined(self, update: Update, i: int, output: Tensor, out: Tensor) -> Tensor:
        base = self.base
        out = base.mul_(update.scale) if out is base else torch.mul(base, update.scale, out=out)
        for j, weight in enumerate(update.weights):
            if weight:
                out.add_(self.outputs[(i - j) % self.count] if j else output, alpha=weight)
        return out

    def other(self) -> Tensor:
        """Return the state that is not the base."""
        return self.states[self.base is self.states[0]]

    def last_outputs(self, i: int) -> list[Tensor]:
        """Return the outputs up to that of evaluation i that are kept, oldest first."""
        if self.steps[i].ratio is None:
            return [self.given]
        return [self.outputs[j % self.count] for j in range(max(0, i + 1 - self.count), i + 1)]


class _Compiled(Workspace):
    """The same by `sciml.sampling.fused`, for outputs and noise that are plain, too."""

    def __init__(self, steps: Sequence[Operation], labels: Tensor, x: Tensor) -> None:
        super().__init__(steps, labels, x)
        self._kernel = kernels("fused", __package__).advance  # type: ignore[union-attr]
        self._arrays = {id(state): state.numpy().reshape(-1) for state in self.states}
        self._array_rows = self.rows.numpy()
        self._nothing = self._array_rows[0, :0]
        self._numbers = [
            tuple(part and self._packed(step.ratio or 0.0, part) for part in (step.correction, step.update))
            for step in steps
        ]

    def _packed(self, ratio: float, update: Update) -> np.ndarray:
        return np.array([ratio, update.scale, update.noise, *update.weights], self._nothing.dtype)

    def advance(self, i: int, output: Tensor, noise: Tensor | None = None) -> tuple[Tensor, bool | None]:
        """Return what `Workspace.advance` does."""
        if not self._fits(output) or (noise is not None and not self._fits(noise)):
            return super().advance(i, output, noise)
        self.given, step, newest = output, self.steps[i], i % self.count
        correction, update = self._numbers[i]
        arrays, given, keep = self._arrays, output.numpy().reshape(-1), step.ratio is not None
        z = self._nothing if noise is None else noise.numpy().reshape(-1)
        x, rows = arrays[id(self.x)], self._array_rows
        if correction is not None:
            # The state at which the model was evaluated is not needed any more.
            self._run(correction, given, x, arrays[id(self.base)], rows, newest, True, z, x)
            self.base, given, keep = self.x, rows[newest], False
        elif not step.inner:
            self.base = self.x
        self.x = self.other()
        finite = self._run(update, given, x, arrays[id(self.base)], rows, newest, keep, z, arrays[id(self.x)])
        return self.x, finite

    def _fits(self, x: Tensor) -> bool:
        return type(x) is Tensor and x.dtype == self.x.dtype and x.device.type == "cpu" and not x.is_neg()

    def _run(self, *given: Any) -> bool:
        finite: list[bool] = []
        size = self._array_rows.shape[1]
        in_parts(lambda *part: finite.append(self._kernel(*given, *part)), size, size // GRAIN)
        return all(finite)
