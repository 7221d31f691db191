"""GELU, x Phi(x) (Hendrycks and Gimpel, arXiv 1606.08415), the activation of the operators here.

On processors it takes a third of their time as PyTorch computes it. Where numba is installed (extra `fast`), float32
tensors on the CPU take compiled kernels, which are about twice as fast forward and three times backward, to two units
in the last place; all else is left to PyTorch.
"""

import functools
import importlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["GELU", "gelu", "gelu_in_place"]

GRAIN = 100_000
"""Numbers that are worth a thread of their own."""


@functools.cache
def _kernels() -> ModuleType | None:
    try:
        numba = importlib.import_module("numba")
    except ImportError:
        return None
    # Interpreted, loops over numbers would take minutes.
    return None if numba.config.DISABLE_JIT else importlib.import_module("sciml.operators.compiled")


@functools.cache
def _helpers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "sciml-gelu")


# A forked process, which Windows has not, has none of the threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)


def _run(kernel: Any, *tensors: Tensor) -> None:
    """Apply a kernel to tensors of one size, by as many threads as PyTorch uses."""
    arrays = [tensor.detach().numpy().reshape(-1) for tensor in tensors]
    size = arrays[0].size
    count = min(torch.get_num_threads(), size // GRAIN)
    if count < 2:
        kernel(*arrays)
        return
    ends = np.linspace(0, size, count + 1).astype(int)
    parts = [[array[start:stop] for array in arrays] for start, stop in itertools.pairwise(ends)]
    others = [_helpers(count - 1).submit(kernel, *part) for part in parts[1:]]
    kernel(*parts[0])
    for other in others:
        other.result()


class _Compiled(torch.autograd.Function):
    """GELU of a contiguous float32 tensor on the CPU, with derivatives of any order and PyTorch's transforms."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        _run(_kernels().gelu_forward, x, y)  # type: ignore[union-attr]
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,), gradient = ctx.saved_tensors, gradients[0]
        # With gradients of gradients PyTorch's own, which has them.
        if torch.is_grad_enabled() or not gradient.is_contiguous():
            return torch.ops.aten.gelu_backward(gradient, x)
        result = torch.empty_like(x)
        _run(_kernels().gelu_backward, gradient, x, result)  # type: ignore[union-attr]
        return result

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return torch.ops.aten.gelu_backward(tangents[0], *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
        return gelu(x), in_dims[0]


def gelu(x: Tensor) -> Tensor:
    """Return x Phi(x).

    Examples
    --------
    >>> [round(value, 6) for value in gelu(torch.tensor([-1.0, 0.0, 1.0])).tolist()]
    [-0.158655, 0.0, 0.841345]
    """
    if not _compilable(x):
        return nn.functional.gelu(x)
    return _Compiled.apply(x)


def gelu_in_place(x: Tensor) -> Tensor:
    """Return x Phi(x) of a tensor that is not used again, where no gradients are recorded in its memory."""
    if torch.is_grad_enabled() or not _compilable(x):
        return gelu(x)
    _run(_kernels().gelu_in_place, x)  # type: ignore[union-attr]
    return x


def _compilable(x: Tensor) -> bool:
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.is_contiguous()
        and not torch.compiler.is_compiling()
        and _kernels() is not None
    )


class GELU(nn.Module):
    """`gelu` as a layer, of what is not used again."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x Phi(x)."""
        return gelu_in_place(x)
