"""Steps between Fourier transforms: channel MLPs and the branches of a layer.

    y = W2 gelu(W1 v + b1) + b2,      (F v, W v + b, W' v + b') with W' diagonal,      v = x or gelu(x)

Memory is what training is short of. Of a step its argument x is all that is kept for gradients: what lies between is
cheap to compute again. Points are taken part by part, so that it stays in the processor's caches.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from .activation import activated, activated_in_place, gelu, times_derivative
from .fourier import TruncatedFourier
from .plain import is_plain, owned
from .products import compiled_steps, numbers, product

__all__ = ["branches", "pointwise_mlp"]

CACHED = 2**18
"""Numbers of one array that processors' caches hold beside a few others."""
LANES = 8
"""Hidden channels are multiplied by as many at once: with zeros to fill up, 10 take a third of the time."""
Transform = tuple[TruncatedFourier, tuple[int, ...]]
"""A transform, and the nodes of the domain per axis."""


def pointwise_mlp(
    x: Tensor, first: Tensor, bias: Tensor, second: Tensor, start: Tensor, activate: bool = False
) -> Tensor:
    """Return second gelu(first v + bias) + start.

    Parameters
    ----------
    x : Tensor, shape (..., channels)
    first, second : Tensor, shapes (hidden, channels) and (out, hidden)
    bias : Tensor, shape (hidden,)
    start : Tensor, shape (out,) or that of the result
        The latter is overwritten where that can be.
    activate : bool
        Whether v is gelu(x) instead of x.

    Examples
    --------
    >>> one = torch.ones(1, 1)
    >>> pointwise_mlp(torch.tensor([[0.0], [10.0]]), one, torch.zeros(1), one, torch.ones(1)).tolist()
    [[1.0], [11.0]]
    """
    if not _lean(x, first, bias, second, start):
        return _plain_mlp(x, first, bias, second, start, activate)
    start = owned(start) if start.ndim > 1 else start
    # What is overwritten comes first, as PyTorch takes for granted.
    return (_MLP.apply if torch.is_grad_enabled() else _mlp)(start, x, first, bias, second, activate)


def branches(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    gate: Tensor | None,
    shift: Tensor | None,
    transform: Transform,
    activate: bool = False,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the Fourier coefficients of v, shape (B, 2, *modes, channels), weight v + bias, and gate v + shift.

    Parameters
    ----------
    x : Tensor, shape (B, *extended, channels)
    weight : Tensor, shape (out, channels)
    bias : Tensor, shape (out,)
    gate, shift : Tensor, shape (channels,), optional
        Without them there is no third branch.
    transform : (TruncatedFourier, tuple of int)
        And the nodes of the domain per axis.
    activate : bool
        Whether v is gelu(x) instead of x.
    overwrite : bool
        Whether x is not used again.

    Raises
    ------
    ConfigError
        If the grid is too coarse.

    Examples
    --------
    >>> transform, one = (TruncatedFourier((2,), (True,), 0.0), (4,)), torch.ones(1)
    >>> mean, doubled, shifted = branches(torch.ones(1, 4, 1), 2 * one[None], 0 * one, one, one, transform)
    >>> mean[0, 0, 0].tolist(), doubled.flatten().tolist(), shifted.flatten().tolist()
    ([1.0], [2.0, 2.0, 2.0, 2.0], [2.0, 2.0, 2.0, 2.0])
    """
    given = x, weight, bias, gate, shift, transform, activate
    if not _lean(x, weight, bias, gate, shift):
        return _plain_branches(*given)
    return _Branches.apply(*given) if torch.is_grad_enabled() else _branches(*given, overwrite)


def _lean(x: Tensor, *others: Tensor | None) -> bool:
    # Sums of many parts are not for half precision.
    full = x.dtype in (torch.float32, torch.float64)
    return full and not torch.is_autocast_enabled(x.device.type) and is_plain(x, *others)


def _full_precision(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Run it without autocast, as its forward step was."""

    @functools.wraps(backward)
    def run(ctx: Any, *gradients: Tensor) -> Any:
        with torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
            return backward(ctx, *gradients)

    return run


def _plain_mlp(
    x: Tensor, first: Tensor, bias: Tensor, second: Tensor, start: Tensor, activate: bool
) -> Tensor:
    hidden = gelu(linear(gelu(x) if activate else x, first, bias))
    if start.ndim == 1:
        return linear(hidden, second, start)
    if torch.is_autocast_enabled(x.device.type):
        # Sums of many layers are not for half precision.
        return start + linear(hidden, second)
    return torch.addmm(_rows(start), _rows(hidden), second.T).view(start.shape)


def _plain_branches(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    gate: Tensor | None,
    shift: Tensor | None,
    transform: Transform,
    activate: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    v, (fourier, space) = gelu(x) if activate else x, transform
    gated = None if gate is None or shift is None else torch.addcmul(shift, v, gate)
    return fourier.analyse(v, space), linear(v, weight, bias), gated


def _mlp(start: Tensor, x: Tensor, first: Tensor, bias: Tensor, second: Tensor, activate: bool) -> Tensor:
    onto = start.ndim > 1
    result = start if onto else x.new_empty(*x.shape[:-1], len(second))
    first, bias, second = _filled_up(first, bias, second)
    if _fused_mlp(start, x, first, bias, second) and start.is_contiguous():
        compiled_steps().mlp(
            *(x.shape[-1], len(first), len(second), numbers(x), numbers(first.T), numbers(bias)),
            *(numbers(second), numbers(second.T), numbers(start), numbers(result), activate),
        )
        torch.autograd.graph.increment_version(result)
        return result
    for rows, out in _parts(x, result, width=len(first)):
        hidden = activated_in_place(product(activated(rows) if activate else rows, first.T, bias))
        product(hidden, second.T, out if onto else start, out)
    return result


def _fused_mlp(start: Tensor, x: Tensor, first: Tensor, bias: Tensor, second: Tensor) -> bool:
    """Whether kernels can do it; what does not fit together is for PyTorch to refuse."""
    hidden, out = len(first), len(second)
    return (
        _fused(start, x, first, bias, second)
        and (first.shape, bias.shape) == ((hidden, x.shape[-1]), (hidden,))
        and second.shape == (out, hidden)
        and start.shape in ((out,), (*x.shape[:-1], out))
    )


def _fused(x: Tensor, *others: Tensor | None) -> bool:
    return compiled_steps() is not None and all(
        part is None or (part.dtype, part.device.type) == (torch.float32, "cpu") for part in (x, *others)
    )


class _MLP(torch.autograd.Function):
    """`_mlp` that keeps x."""

    @staticmethod
    def forward(
        ctx: Any, start: Tensor, x: Tensor, first: Tensor, bias: Tensor, second: Tensor, activate: bool
    ) -> Tensor:
        ctx.save_for_backward(x, first, bias, second)
        ctx.onto, ctx.activate = start.ndim > 1, activate
        if ctx.onto:
            ctx.mark_dirty(start)
        return _mlp(start, x, first, bias, second, activate)

    @staticmethod
    @_full_precision
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        (gradient,) = gradients
        of_start = gradient if ctx.onto else _rows(gradient).sum(0)
        needed = ctx.needs_input_grad[1:-1]
        if _again(gradients):

            def function(x: Tensor, first: Tensor, bias: Tensor, second: Tensor) -> Tensor:
                return _plain_mlp(x, first, bias, second, second.new_zeros(len(second)), ctx.activate)

            return of_start, *_differentiable(function, (x, *parameters), needed, gradients), None
        hidden = len(parameters[0])
        found = _mlp_gradients(x, *_filled_up(*parameters), gradient.contiguous(), ctx.activate, needed)
        of_x, of_first, of_bias, of_second = (
            part if is_needed else None for part, is_needed in zip(found, needed, strict=True)
        )
        return (
            of_start,
            of_x,
            None if of_first is None else of_first[:hidden],
            None if of_bias is None else of_bias[:hidden],
            None if of_second is None else of_second[:, :hidden],
            None,
        )


def _mlp_gradients(
    x: Tensor,
    first: Tensor,
    bias: Tensor,
    second: Tensor,
    gradient: Tensor,
    activate: bool,
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x and the parameters, at least those needed, from that of the result."""
    of_x = x.new_empty(x.shape) if needed[0] else None
    of_first = of_bias = of_second = None
    if _fused_mlp(gradient, x, first, bias, second):
        if any(needed[1:3]):
            of_first, of_bias = first.new_zeros(first.shape[::-1]), torch.zeros_like(bias)
        of_second = torch.zeros_like(second) if needed[3] else None
        compiled_steps().mlp_backward(
            *(x.shape[-1], len(first), len(second), numbers(x), numbers(first.T), numbers(first)),
            *(numbers(bias), numbers(second), numbers(gradient), activate),
            *map(numbers, (of_x, of_first, of_bias, of_second)),
        )
        return of_x, None if of_first is None else of_first.T, of_bias, of_second
    for rows, change, *result in _parts(x, gradient, *([] if of_x is None else [of_x]), width=len(first)):
        v = activated(rows) if activate else rows
        argument = product(v, first.T, bias)
        hidden = activated(argument)
        if needed[3]:
            of_second = _plus_product(of_second, change.T, hidden)
        if not any(needed[:3]):
            continue
        product(change, second, out=hidden)
        times_derivative(argument, hidden)
        if needed[1]:
            of_first = _plus_product(of_first, hidden.T, v)
        if needed[2]:
            of_bias = _plus_sum(of_bias, hidden)
        for part in result:
            product(hidden, first, out=part)
            if activate:
                times_derivative(rows, part)
    return of_x, of_first, of_bias, of_second


def _branches(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    gate: Tensor | None,
    shift: Tensor | None,
    transform: Transform,
    activate: bool,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    fourier, space = transform
    if _fused_branches(x, weight, bias, gate, shift, transform):
        lines, points, kept = _lines(x, transform)
        analysis, _ = fourier.last_tables(space, x)
        rows, mixed = x.new_empty(lines, kept, x.shape[-1]), x.new_empty(*x.shape[:-1], len(weight))
        gated = None if gate is None else x.new_empty(x.shape)
        parameters = map(numbers, (weight.T, bias, gate, shift))
        compiled_steps().branches(
            *(lines, points, x.shape[-1], kept, len(weight), numbers(x), *parameters, activate),
            *map(numbers, (analysis, rows, mixed, gated)),
        )
        return fourier.analyse_rows(rows, space), mixed, gated
    overwrite = overwrite and x.is_contiguous()
    v = x.new_empty(x.shape) if activate and not overwrite else x
    mixed = x.new_empty(*x.shape[:-1], len(weight))
    for rows, part, out in _parts(x, v, mixed):
        if activate and overwrite:
            activated_in_place(rows)
        elif activate:
            activated(rows, part)
        product(part, weight.T, bias, out)
    coefficients, gated = fourier.analyse(v, space), None
    if gate is not None and shift is not None:
        gated = torch.addcmul(shift, v, gate, out=v if activate or overwrite else x.new_empty(x.shape))
    return coefficients, mixed, gated


class _Branches(torch.autograd.Function):
    """`_branches` that keeps x."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        *tensors, ctx.transform, ctx.activate = given
        ctx.save_for_backward(*tensors)
        return _branches(*given)

    @staticmethod
    @_full_precision
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _, gate, _ = inputs = ctx.saved_tensors
        needed = ctx.needs_input_grad[:-2]
        if _again(gradients):
            function = functools.partial(_plain_branches, transform=ctx.transform, activate=ctx.activate)
            return *_differentiable(function, inputs, needed, gradients), None, None
        found = _branches_gradients(x, weight, gate, ctx.transform, ctx.activate, gradients, needed)
        return *found, None, None


def _branches_gradients(
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    transform: Transform,
    activate: bool,
    gradients: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x and the parameters that are needed from those of the results."""
    fourier, space = transform
    of_coefficients, *changes = (change.contiguous() for change in gradients if change is not None)
    of_weight = of_bias = of_gate = of_shift = None
    if _fused_branches(x, weight, None, gate, gate, transform, *changes):
        lines, points, kept = _lines(x, transform)
        analysis, _ = fourier.last_tables(space, x)
        of_x = x.new_empty(x.shape)
        if any(needed[1:3]):
            of_weight, of_bias = torch.zeros_like(weight), weight.new_zeros(len(weight))
        if any(needed[3:]) and gate is not None:
            of_gate, of_shift = torch.zeros_like(gate), torch.zeros_like(gate)
        rows = fourier.analyse_transposed_rows(of_coefficients, space)
        compiled_steps().branches_backward(
            *(lines, points, x.shape[-1], kept, len(weight), numbers(x), numbers(weight), numbers(gate)),
            *(activate, numbers(analysis), numbers(rows), *map(numbers, [*changes, None][:2])),
            *map(numbers, (of_x, of_weight, of_bias, of_gate, of_shift)),
        )
        return of_x, of_weight, of_bias, of_gate, of_shift
    of_x = fourier.analyse_transposed(of_coefficients, space)
    for rows, result, mixed, *gated in _parts(x, of_x, *changes):
        v = activated(rows) if activate else rows
        if needed[1]:
            of_weight = _plus_product(of_weight, mixed.T, v)
        if needed[2]:
            of_bias = _plus_sum(of_bias, mixed)
        product(mixed, weight, result, result)
        for change in gated:
            result.addcmul_(change, cast("Tensor", gate))
            if needed[3]:
                of_gate = _plus_sum(of_gate, v * change)
            if needed[4]:
                of_shift = _plus_sum(of_shift, change)
        if activate:
            times_derivative(rows, result)
    return of_x, of_weight, of_bias, of_gate, of_shift


def _fused_branches(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    shift: Tensor | None,
    transform: Transform,
    *changes: Tensor,
) -> bool:
    """Whether kernels can do it; what does not fit together is for PyTorch to refuse."""
    (fourier, space), channels = transform, x.shape[-1]
    fourier.check_resolution(space)
    return (
        _fused(x, weight, bias, gate, shift, *changes)
        and weight.shape[1:] == (channels,)
        and x.shape[1:-1] == fourier.extended(space)
        and (bias is None or bias.shape == (len(weight),))
        and (gate is None) == (shift is None)
        and all(part is None or part.shape == (channels,) for part in (gate, shift))
    )


def _lines(x: Tensor, transform: Transform) -> tuple[int, int, int]:
    """Lines of x along its last axis, their points, and real and imaginary parts that are kept of each."""
    points = x.shape[-2]
    return x.shape[:-1].numel() // points, points, 2 * transform[0].shape[-1]


def _rows(v: Tensor) -> Tensor:
    return v.reshape(-1, v.shape[-1])


def _parts(*tensors: Tensor, width: int = 0) -> Iterator[tuple[Tensor, ...]]:
    """Rows of all tensors, a number at a time that caches hold; ``width`` numbers of other arrays belong to each."""
    rows = [_rows(tensor) for tensor in tensors]
    most = max(width, *(part.shape[1] for part in rows))
    count = CACHED // most if tensors[0].device.type == "cpu" else len(rows[0])
    return zip(*(part.split(max(1, count)) for part in rows), strict=True)


def _plus_product(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """Return a b, added to the total of the parts before."""
    return product(a, b, total, total)


def _plus_sum(total: Tensor | None, rows: Tensor) -> Tensor:
    """Return the sum of rows, added to the total of the parts before."""
    return rows.sum(0) if total is None else total.add_(rows.sum(0))


def _filled_up(first: Tensor, bias: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return parameters of hidden channels whose number is a multiple of `LANES`; those added are zero."""
    missing = -len(first) % LANES
    if not missing or first.device.type != "cpu":
        return first, bias, second
    return pad(first, (0, 0, 0, missing)), pad(bias, (0, missing)), pad(second, (0, missing))


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
    pairs = [(r, g) for r, g in zip(results, gradients, strict=True) if r is not None and r.requires_grad]
    wanted = [
        tensor for tensor, is_needed in zip(inputs, needed, strict=True) if tensor is not None and is_needed
    ]
    outputs, vectors = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, vectors, create_graph=nested))
    return tuple(
        next(found) if tensor is not None and is_needed else None
        for tensor, is_needed in zip(inputs, needed, strict=True)
    )
