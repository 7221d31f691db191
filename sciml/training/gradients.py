"""Gradients of training steps; on GPUs, where small kernels are done sooner than they are launched, by replay."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.operators import Operator

from .objective import Batch

__all__ = ["Gradients"]

WARM_UP = 3
"""Steps before a recording, in which libraries choose algorithms and take memory."""


@dataclass(frozen=True)
class _Recording:
    """A step as a CUDA graph: work on the memory of given tensors."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    losses: Tensor
    gradients: list[Tensor | None]


class Gradients:
    """Gradients of the mean loss of batches with respect to a model's parameters.

    On a GPU a step of each shape is recorded once and replayed, which a model that needs the host in between does
    not allow: its steps are taken as they come.

    Parameters
    ----------
    model : Operator
    losses : callable
        From the model, inputs, targets and mask to the loss of each sample.

    Examples
    --------
    >>> from sciml.operators import FNO
    >>> model, x = FNO(modes=(4, 4), width=4), torch.ones(2, 8, 8, 1)
    >>> gradients = Gradients(model, lambda model, x, y, mask: (model(x) - y).square().mean((1, 2, 3)))
    >>> gradients((x, x, None), divisor=2).shape, model.lifting.bias.grad.shape
    (torch.Size([2]), torch.Size([4]))
    """

    def __init__(self, model: Operator, losses: Callable[..., Tensor]) -> None:
        self._model, self._losses = model, losses
        self._recordings: dict[tuple[object, ...], _Recording | None] = {}

    def __call__(self, batch: Batch, divisor: int) -> Tensor:
        """Set the gradients of the sum of the losses over ``divisor``; return the losses.

        Parameters
        ----------
        batch : (inputs, targets, mask or None)
        divisor : int
            Samples of the whole batch, those of other processes included.

        Returns
        -------
        Tensor, shape (len(inputs),)
            On a GPU in memory that the next call uses again.
        """
        if batch[0].device.type != "cuda":
            return self._take(batch, divisor)
        key = divisor, *(None if tensor is None else tensor.shape for tensor in batch)
        if key not in self._recordings:
            self._recordings[key] = self._recorded(batch, divisor)
        recording = self._recordings[key]
        if recording is None:
            return self._take(batch, divisor)
        for place, tensor in zip(recording.batch, batch, strict=True):
            if place is not None and tensor is not None:
                place.copy_(tensor)
        for parameter, gradient in zip(self._model.parameters(), recording.gradients, strict=True):
            parameter.grad = gradient
        recording.graph.replay()
        return recording.losses

    def _take(self, batch: Batch, divisor: int) -> Tensor:
        self._model.zero_grad()
        losses = self._losses(self._model, *batch)
        (losses.sum() / divisor).backward()
        return losses.detach()

    def _recorded(self, batch: Batch, divisor: int) -> _Recording | None:
        inputs, targets, mask = batch
        places = inputs.clone(), targets.clone(), None if mask is None else mask.clone()
        # As PyTorch asks for: on another stream, or the recording would wait for work that is not in it.
        stream = torch.cuda.Stream(inputs.device)
        stream.wait_stream(torch.cuda.current_stream(inputs.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._take(places, divisor)
        torch.cuda.current_stream(inputs.device).wait_stream(stream)
        # Of gradients that are not there the recording makes its own.
        self._model.zero_grad()
        graph = torch.cuda.CUDAGraph()
        # Entered anew: a recording that fails would leave its stream behind.
        here = torch.cuda.stream(torch.cuda.current_stream(inputs.device))
        try:
            with torch.cuda.device(inputs.device), here, torch.cuda.graph(graph, stream=stream):
                losses = self._take(places, divisor)
        except RuntimeError:
            return None
        return _Recording(graph, places, losses, [parameter.grad for parameter in self._model.parameters()])
