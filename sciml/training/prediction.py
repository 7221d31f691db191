"""What a trained operator makes of inputs: of samples in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .data import Pairs, advance, rows_on

__all__ = ["predict", "predict_pairs", "roll_out"]


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor, batch_size: int = 20) -> Tensor:
    """Apply a model to many samples, batch by batch, on the device where it is."""
    device = next(model.parameters()).device
    return torch.cat([model(batch).cpu() for batch in _batches(device, inputs, batch_size)])


@torch.no_grad()
def roll_out(model: nn.Module, inputs: Tensor, history: int, steps: int, batch_size: int = 20) -> Tensor:
    """Predict frame after frame from a model's own predictions.

    Parameters
    ----------
    model : Module
        From ``history`` frames, and what is constant in time, to the next frame.
    inputs : Tensor, shape (n, *space, channels)
    history, steps : int
        Given and predicted frames.
    batch_size : int

    Returns
    -------
    Tensor, shape (n, *space, steps, channels of one frame)
    """
    device = next(model.parameters()).device
    results = []
    for state in _batches(device, inputs, batch_size):
        frames = []
        for _ in range(steps):
            frame = model(state)
            frames.append(frame.cpu())
            state = advance(state, frame, history)
        results.append(torch.stack(frames, -2))
    return torch.cat(results)


def _batches(device: torch.device, inputs: Tensor, batch_size: int) -> Iterator[Tensor]:
    # Of no samples there is one batch, without any.
    for start in range(0, max(len(inputs), 1), batch_size):
        yield rows_on(device, inputs, slice(start, start + batch_size))


def predict_pairs(model: nn.Module, pairs: Pairs, batch_size: int = 20) -> Tensor:
    """Predict the targets of pairs, those of an autoregressive task by a roll-out."""
    if pairs.history:
        return roll_out(model, pairs.inputs, pairs.history, pairs.windows, batch_size)
    return predict(model, pairs.inputs, batch_size)
