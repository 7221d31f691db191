"""What is minimised: errors of single steps, of steps in a row, of gradients, of the equation."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.metrics import relative_h1, relative_l2
from sciml.operators import Operator

from .config import TrainConfig
from .data import Pairs, advance, rows_on
from .physics import PeriodicResidual

__all__ = ["Batch", "Objective", "fit_normalisers", "random_symmetry"]

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Inputs, targets and a mask."""


class Objective:
    """The loss of single training samples.

    Of an autoregressive task a sample is a window: ``history`` given frames and ``unroll`` later ones, from
    any place of a trajectory.

    Parameters
    ----------
    config : TrainConfig
    pairs : Pairs
        What is trained on.

    Raises
    ------
    ConfigError
        If there are too few frames for ``unroll``, or there is no equation for ``physics``.
    """

    def __init__(self, config: TrainConfig, pairs: Pairs) -> None:
        self.config, self.pairs = config, pairs
        self.starts = 1
        if pairs.history:
            self.starts = pairs.windows - config.unroll + 1
            if self.starts < 1:
                raise ConfigError(
                    f"unroll={config.unroll}: {pairs.windows} frames follow the given ones, ask for fewer steps in "
                    "a row"
                )
        if config.reflect and not (
            set(config.reflect) <= {*range(len(pairs.periodic))}
            and not config.symmetric
            and _reflects(pairs, config.reflect)
        ):
            raise ConfigError(
                f"reflect={config.reflect}: give coordinates, from 0, of clouds without a code or of grids that are "
                "mapped, whose first inputs are the positions x, y, ..., each along its own axis; of scalar fields, "
                "and without symmetric"
            )
        if config.loss == "h1" and pairs.cloud:
            raise ConfigError("loss='h1': scattered points have no differences; use loss='l2'")
        if config.loss == "h1" and min(pairs.resolution) < 3:
            raise ConfigError(
                f"loss='h1' on {' x '.join(map(str, pairs.resolution))} nodes: differences need three along each axis, "
                "frames included; use a finer grid, more frames, or loss='l2'"
            )
        self.residual = PeriodicResidual(pairs) if config.physics else None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.pairs) * self.starts

    def batch(self, model: Operator, samples: np.ndarray, epoch: int, step: int) -> Batch:
        """Return inputs, targets and their mask, if there is one, on the model's device.

        Random draws depend on the seed, the epoch, the step and the sample alone.

        Parameters
        ----------
        model : Operator
        samples : ndarray of int
        epoch, step : int
        """
        device = model.input_mean.device
        pairs, config = self.pairs, self.config
        rows, starts = np.divmod(samples, self.starts)
        if pairs.history:
            windows = [pairs.window(int(r), int(s), config.unroll) for r, s in zip(rows, starts, strict=True)]
            inputs, targets = (torch.stack(part).to(device) for part in zip(*windows, strict=True))
        else:
            inputs, targets = (rows_on(device, part, rows) for part in (pairs.inputs, pairs.targets))
        turn: Callable[[Tensor], Tensor] = lambda v: v  # noqa: E731 - the other is made by a call
        if config.symmetric:
            turn = random_symmetry(np.random.default_rng([config.seed, epoch, step, 2]), pairs.periodic)
        inputs, targets = turn(inputs), turn(targets)
        mask = None if pairs.mask is None else turn(rows_on(device, pairs.mask, rows))
        if config.reflect:
            inputs, targets, mask = self._reflected(model, (inputs, targets, mask), epoch, step)
        if config.noise:
            inputs = self._noisy(model, inputs, samples, epoch)
        return inputs, targets, mask

    def losses(self, model: Operator, inputs: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
        """Return the loss of each sample of a batch, shape (len(inputs),)."""
        if self.pairs.history:
            return self._unrolled(model, inputs, targets, mask)
        prediction = self._apply(model, inputs)
        loss = self._error(prediction, targets, mask)
        if self.residual is not None:
            loss = loss + self.config.physics * self.residual.relative(inputs, prediction, targets)
        return loss

    def _apply(self, model: Operator, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            return model(inputs)

    def _error(self, prediction: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        if self.config.loss == "l2":
            return relative_l2(prediction, target, mask)
        return relative_h1(prediction, target, self.pairs.spacing, self.pairs.periodic, mask)

    def _unrolled(self, model: Operator, inputs: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
        terms = []
        for step in range(self.config.unroll):
            prediction = self._apply(model, inputs)
            terms.append(self._error(prediction, targets[..., step, :], mask))
            frame = prediction.detach() if self.config.pushforward else prediction
            inputs = advance(inputs, frame, self.pairs.history)
        return torch.stack(terms).mean(0)

    def _reflected(self, model: Operator, batch: Batch, epoch: int, step: int) -> Batch:
        """Reflect some samples: their positions, and on a grid the order of the nodes of that axis."""
        rng = np.random.default_rng([self.config.seed, epoch, step, 3])
        inputs, targets, mask = (None if part is None else part.clone() for part in batch)
        assert inputs is not None and targets is not None  # noqa: PT018 - for mypy
        for axis in self.config.reflect:
            chosen = torch.from_numpy(rng.integers(2, size=len(inputs)).astype(bool)).to(inputs.device)
            middle = 2 * model.input_mean[axis]
            if self.pairs.cloud:
                # Mean and deviation of positions are a corner of the box and its sides.
                middle = middle + model.input_std[axis]
            inputs[chosen, ..., axis] = middle - inputs[chosen, ..., axis]
            for part in () if self.pairs.cloud else (inputs, targets, mask):
                if part is not None:
                    part[chosen] = part[chosen].flip(axis + 1)
        return inputs, targets, mask

    def _noisy(self, model: Operator, inputs: Tensor, samples: np.ndarray, epoch: int) -> Tensor:
        """Add noise to the given frames, not to what is constant in time."""
        channels = self.pairs.history * self.pairs.targets.shape[-1]
        shape = (*inputs.shape[1:-1], channels)
        draws = [
            np.random.default_rng([self.config.seed, epoch, int(sample), 1]).standard_normal(
                shape, dtype=np.float32
            )
            for sample in samples
        ]
        noise = torch.from_numpy(np.stack(draws)).to(inputs.device)
        noise = self.config.noise * model.input_std[:channels] * noise
        return torch.cat([inputs[..., :channels] + noise, inputs[..., channels:]], -1)


def _reflects(pairs: Pairs, axes: tuple[int, ...]) -> bool:
    """Whether samples have positions that can be reflected, and fields that this does not change."""
    if pairs.cloud:
        return pairs.turnable and not pairs.code
    dim, (given, wanted) = len(pairs.resolution), pairs.names
    mapped = given[:dim] == ("x", "y", "z")[:dim] and pairs.task == "steady" and not any(pairs.periodic)
    scalars = (len(given), len(wanted)) == (pairs.inputs.shape[-1], pairs.targets.shape[-1])
    # Around an airfoil no axis runs along y: its nodes in reverse are not the reflected ones.
    return (
        mapped
        and scalars
        and all(bool((pairs.inputs[..., axis].diff(dim=axis + 1) > 0).all()) for axis in axes)
    )


def random_symmetry(rng: np.random.Generator, periodic: tuple[bool, ...]) -> Callable[[Tensor], Tensor]:
    """Reflect some of the axes of space, x to -x, and exchange them, of tensors of shape (B, *space, ...)."""
    dim = len(periodic)
    flipped = [axis + 1 for axis in range(dim) if rng.integers(2)]
    # The node at 0 of a periodic axis stays where it is.
    rolled = [axis for axis in flipped if periodic[axis - 1]]
    order = (0, *(1 + rng.permutation(dim)).tolist())

    def turn(v: Tensor) -> Tensor:
        v = v.flip(flipped)
        v = v.roll([1] * len(rolled), rolled) if rolled else v
        return v.permute(*order, *range(dim + 1, v.ndim))

    return turn


def fit_normalisers(model: Operator, pairs: Pairs, increments: bool) -> None:
    """Set a model's normalisers from training data, those of a frame from all frames."""
    if not pairs.history:
        model.set_normalisers(pairs.inputs, pairs.targets)
        return
    channels = pairs.targets.shape[-1]
    split = pairs.history * channels
    frames = torch.cat(
        [pairs.inputs[..., :split].unflatten(-1, (pairs.history, channels)), pairs.targets], -2
    )
    inputs = [frames] * pairs.history
    if pairs.inputs.shape[-1] > split:
        inputs.append(pairs.inputs[..., split:])
    model.set_normalisers(inputs, frames.diff(dim=-2) if increments else frames)
