"""GELU, x Phi(x) (Hendrycks and Gimpel, arXiv 1606.08415), the activation of the operators here.

On processors it takes a third of their time as PyTorch computes it. Where numba is installed (extra `fast`), float32
tensors on the CPU take compiled kernels, which are about twice as fast forward and three times backward; all else is
left to PyTorch. Errors are at most 2.4e-7 |x| (PyTorch's 1.2e-7) and, of the derivative, 4e-7.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sciml.solvers.compiled import kernels

from .plain import is_plain
from .threads import in_parts

__all__ = ["GELU", "activated", "activated_in_place", "gelu", "gelu_in_place", "times_derivative"]

GRAIN = 100_000
"""Numbers that are worth a thread of their own."""


def _kernel(name: str) -> Any:
    module = kernels("compiled", __package__)
    return None if module is None else getattr(module, name)


def _run(kernel: Any, *tensors: Tensor) -> None:
    """Apply a kernel to tensors of one size."""
    arrays = [tensor.detach().numpy().reshape(-1) for tensor in tensors]
    size = arrays[0].size
    in_parts(lambda start, stop: kernel(*(array[start:stop] for array in arrays)), size, size // GRAIN)


class _Compiled(torch.autograd.Function):
    """GELU by the kernels, with derivatives of any order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return activated(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,), gradient = ctx.saved_tensors, gradients[0]
        # With gradients of gradients PyTorch's own, which has them.
        if torch.is_grad_enabled() or not _compilable(gradient):
            return torch.ops.aten.gelu_backward(gradient, x)
        return times_derivative(x, gradient.clone())


def activated(x: Tensor, out: Tensor | None = None) -> Tensor:
    """Return gelu(x) of a plain tensor, without gradients, in ``out``, contiguous, or else in memory of its own."""
    out = x.new_empty(x.shape) if out is None else out
    if not _compilable(x):
        return torch.ops.aten.gelu.out(x, out=out)
    _run(_kernel("gelu_forward"), x, out)
    return out


def activated_in_place(x: Tensor) -> Tensor:
    """Return gelu(x) of a plain tensor, without gradients, in its memory."""
    if not _compilable(x):
        return torch.ops.aten.gelu.out(x, out=x)
    _run(_kernel("gelu_in_place"), x)
    torch.autograd.graph.increment_version(x)
    return x


def times_derivative(x: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient, which is contiguous, times gelu'(x) in its memory, without gradients of its own."""
    if not (_compilable(x) and _compilable(gradient)):
        return torch.ops.aten.gelu_backward.grad_input(gradient, x, grad_input=gradient)
    _run(_kernel("gelu_backward"), x, gradient)
    return gradient


def gelu(x: Tensor) -> Tensor:
    """Return x Phi(x).

    Examples
    --------
    >>> [round(value, 6) for value in gelu(torch.tensor([-1.0, 0.0, 1.0])).tolist()]
    [-0.158655, 0.0, 0.841345]
    """
    return _Compiled.apply(x) if _compilable(x) else nn.functional.gelu(x)


def gelu_in_place(x: Tensor) -> Tensor:
    """Return x Phi(x) of a tensor that is not used again; in its memory if no gradients are recorded."""
    return gelu(x) if torch.is_grad_enabled() or not is_plain(x) else activated_in_place(x)


def _compilable(x: Tensor) -> bool:
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.is_contiguous()
        and is_plain(x)
        and _kernel("gelu_forward") is not None
    )


class GELU(nn.Module):
    """`gelu` as a layer, of what is not used again."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x Phi(x)."""
        return gelu_in_place(x)
