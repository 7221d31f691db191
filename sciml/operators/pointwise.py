"""Steps between Fourier transforms that begin with an activation, and keep for their gradients what they were given.

    y = W gelu(x) + b,      (v, W v + a, W' v + b) with v = gelu(x), W' diagonal

An activation is cheap to compute again, so that it is not kept beside its argument, and each gradient is computed in
the memory of what is not needed any more. Memory is what training is short of, and what such steps wait for.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from .activation import activated, activated_in_place, gelu, times_derivative
from .plain import is_plain, owned

__all__ = ["activated_branches", "activated_linear"]

CACHED = 2**16
"""Numbers of a part of two gradients that are multiplied and summed."""


def activated_linear(x: Tensor, weight: Tensor, start: Tensor) -> Tensor:
    """Return weight gelu(x) + start, of a tensor x that is not used again.

    Parameters
    ----------
    x : Tensor, shape (..., channels)
    weight : Tensor, shape (out, channels)
    start : Tensor, shape (out,) or that of the result
        The latter is overwritten where that can be.

    Examples
    --------
    >>> activated_linear(torch.tensor([[0.0, 10.0]]), torch.ones(1, 2), torch.ones(1)).tolist()
    [[11.0]]
    """
    if not _lean(x, weight, start):
        return _plain_linear(x, weight, start)
    start = owned(start) if start.ndim > 1 else start
    if torch.is_grad_enabled():
        return _ActivatedLinear.apply(start, x, weight)
    return _product(activated_in_place(x), weight, start)


def activated_branches(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    gate: Tensor | None,
    shift: Tensor | None,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return v = gelu(x), weight v + bias and gate v + shift.

    Parameters
    ----------
    x : Tensor, shape (..., channels)
    weight : Tensor, shape (out, channels)
    bias : Tensor, shape (out,)
    gate, shift : Tensor, shape (channels,), optional
        Without them there is no third branch.
    overwrite : bool
        Whether x is not used again and may hold v.
    """
    if not _lean(x, weight, bias, gate, shift):
        return _plain_branches(x, weight, bias, gate, shift)
    if torch.is_grad_enabled():
        return _ActivatedBranches.apply(x, weight, bias, gate, shift)
    v = activated_in_place(x) if overwrite else activated(x)
    return _branches(v, weight, bias, gate, shift)


def _lean(x: Tensor, *others: Tensor | None) -> bool:
    return not torch.is_autocast_enabled(x.device.type) and is_plain(x, *others)


def _plain_linear(x: Tensor, weight: Tensor, start: Tensor) -> Tensor:
    v = gelu(x)
    if start.ndim == 1:
        return linear(v, weight, start)
    if torch.is_autocast_enabled(x.device.type):
        # Sums of many layers are not for half precision.
        return start + linear(v, weight)
    return torch.addmm(_rows(start), _rows(v), weight.T).view(start.shape)


def _plain_branches(
    x: Tensor, weight: Tensor, bias: Tensor, gate: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    return _branches(gelu(x), weight, bias, gate, shift)


def _product(v: Tensor, weight: Tensor, start: Tensor) -> Tensor:
    if start.ndim == 1:
        return linear(v, weight, start)
    start.view(-1, len(weight)).addmm_(_rows(v), weight.T)
    return start


def _branches(
    v: Tensor, weight: Tensor, bias: Tensor, gate: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    gated = None if gate is None or shift is None else torch.addcmul(shift, v, gate)
    return v, linear(v, weight, bias), gated


class _ActivatedLinear(torch.autograd.Function):
    """Keeps x; what is overwritten comes first, as PyTorch takes for granted."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.onto = start.ndim > 1
        if ctx.onto:
            ctx.mark_dirty(start)
        return _product(activated(x), weight, start)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        of_start = gradient if ctx.onto else _rows(gradient).sum(0)
        if _again(gradients):
            nothing = weight.new_zeros(len(weight))
            needed = (*ctx.needs_input_grad[1:], False)
            return of_start, *_differentiable(_plain_linear, (x, weight, nothing), needed, gradients)[:2]
        v, rows = activated(x), _rows(gradient)
        of_weight = torch.mm(rows.T, _rows(v)) if ctx.needs_input_grad[2] else None
        torch.mm(rows, weight, out=v.view(-1, v.shape[-1]))
        return of_start, times_derivative(x, v), of_weight


class _ActivatedBranches(torch.autograd.Function):
    """Keeps x; the gradient is summed in the memory of v."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, gate: Tensor | None, shift: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.save_for_backward(x, weight, bias, gate, shift)
        return _branches(activated(x), weight, bias, gate, shift)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _, gate, _ = inputs = ctx.saved_tensors
        if _again(gradients):
            return _differentiable(_plain_branches, inputs, ctx.needs_input_grad, gradients)
        straight, mixed, gated = gradients
        v, rows = activated(x), _rows(mixed)
        of_weight = torch.mm(rows.T, _rows(v)) if ctx.needs_input_grad[1] else None
        of_gate = None if gate is None else _summed_products(_rows(gated), _rows(v))
        torch.mm(rows, weight, out=v.view(-1, v.shape[-1]))
        v += straight
        if gate is not None:
            v.addcmul_(gated, gate)
        of_shift = None if gate is None else _rows(gated).sum(0)
        return times_derivative(x, v), of_weight, rows.sum(0), of_gate, of_shift


def _rows(v: Tensor) -> Tensor:
    return v.reshape(-1, v.shape[-1])


def _summed_products(a: Tensor, b: Tensor) -> Tensor:
    """Return the sums of a b over rows, part by part: their products stay in the processor's caches."""
    count = max(1, CACHED // a.shape[1]) if a.device.type == "cpu" else max(1, len(a))
    total = a.new_zeros(a.shape[1])
    for one, other in zip(a.split(count), b.split(count), strict=True):
        total += (one * other).sum(0)
    return total


def _again(gradients: Sequence[Tensor]) -> bool:
    """Whether gradients of gradients are asked for, or many gradients at once."""
    return torch.is_grad_enabled() or not is_plain(*gradients)


def _differentiable(
    function: Callable[..., Any],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    gradients: Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of a function that is built of PyTorch's steps, which has gradients of them."""
    nested = torch.is_grad_enabled()
    if not any(needed):
        return (None,) * len(inputs)
    with torch.enable_grad():
        # Under other names: hooks of the given ones are called for their whole gradients.
        inputs = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        results = function(*inputs)
    results = [results] if isinstance(results, Tensor) else results
    pairs = [(r, g) for r, g in zip(results, gradients, strict=True) if r is not None]
    wanted = [
        tensor for tensor, is_needed in zip(inputs, needed, strict=True) if tensor is not None and is_needed
    ]
    outputs, vectors = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, vectors, create_graph=nested))
    return tuple(
        next(found) if tensor is not None and is_needed else None
        for tensor, is_needed in zip(inputs, needed, strict=True)
    )
