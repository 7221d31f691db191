"""Matrix products, on processors by kernels of our own where numba is installed (extra `fast`).

They are nearly all that an operator does. Plain float32 tensors whose gradients are not recorded take
`sciml.operators.tiles`; all else is left to PyTorch.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.solvers.compiled import kernels

from .plain import is_plain

__all__ = ["NARROW", "compiled_steps", "compiled_tiles", "numbers", "product"]

NARROW = 4
"""Rows and columns of a result below which it is no work for tiles."""


def product(a: Tensor, b: Tensor, start: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Return start + a b.

    Parameters
    ----------
    a, b : Tensor, shapes (m, k) and (k, n), or one or both with a batch before
    start : Tensor, shape (n,) of two matrices, or that of the result, optional
    out : Tensor, contiguous, optional
        Where to write the result; it may be ``start``.

    Examples
    --------
    >>> product(torch.ones(2, 3), torch.ones(3, 2), torch.tensor([0.0, 1.0])).tolist()
    [[3.0, 4.0], [3.0, 4.0]]
    """
    if not _fit(a, b, start, out) or (tiles := compiled_tiles()) is None:
        return _by_torch(a, b, start, out)
    (rows, terms), shape = a.shape[-2:], _shape(a, b)
    batch, columns = shape[0] if len(shape) == 3 else 1, shape[-1]
    if out is None:
        out = a.new_empty(shape)
    else:
        torch.autograd.graph.increment_version(out)
    b = b if b.stride(-1) == 1 else b.contiguous()
    initial = _zeros(columns) if start is None else start
    strides = [_strides(part) for part in (a, b, initial, out)]
    (a_n, a_i, a_k), (b_n, b_k, _), (s_n, s_i, _), (c_n, c_i, _) = strides
    from_a, from_b, from_start, to = (part.data_ptr() for part in (a, b, initial, out))
    tiles.multiply(
        *(batch, rows, terms, columns, from_a, a_n, a_i, a_k, from_b, b_n, b_k),
        *(from_start, s_n, s_i, to, c_n, c_i),
    )
    return out


def _by_torch(a: Tensor, b: Tensor, start: Tensor | None, out: Tensor | None) -> Tensor:
    if start is None:
        return torch.matmul(a, b, out=out)
    if a.ndim == b.ndim == 2:
        return torch.addmm(start, a, b, out=out)
    batch = a.shape[0] if a.ndim == 3 else b.shape[0]
    return torch.baddbmm(start, a.expand(batch, *a.shape[-2:]), b.expand(batch, *b.shape[-2:]), out=out)


def compiled_tiles() -> Any:
    """Return the kernels, None where there are none or PyTorch's are better.

    PyTorch's threads wait actively for their next work, in the way of others: with several of them a step of training
    took 1.4 times as long with these kernels as without.
    """
    if torch.get_num_threads() > 1:
        return None
    module = kernels("tiles", __package__)
    return module if module is not None and module.AVAILABLE else None


def compiled_steps() -> Any:
    """Return the kernels of `sciml.operators.fused`, likewise."""
    return None if compiled_tiles() is None else kernels("fused", __package__)


def numbers(x: Tensor | None) -> np.ndarray:
    """Return those of a float32 tensor, of None none, as kernels take them: in its memory if it is contiguous."""
    return np.empty(0, np.float32) if x is None else x.detach().contiguous().numpy().reshape(-1)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def _zeros(count: int) -> Tensor:
    # Whatever the defaults are.
    return torch.zeros(count, dtype=torch.float32, device="cpu")


def _strides(part: Tensor) -> tuple[int, ...]:
    """In bytes, of the batch, rows and columns."""
    strides = [4 * step for step in part.stride()]
    return *[0] * (3 - len(strides)), *strides


def _shape(a: Tensor, b: Tensor) -> tuple[int, ...]:
    """Of the result."""
    batches = [part.shape[0] for part in (a, b) if part.ndim == 3]
    return *batches[:1], a.shape[-2], b.shape[-1]


def _fit(a: Tensor, b: Tensor, start: Tensor | None, out: Tensor | None) -> bool:
    """Whether tiles can do it; what does not fit together is for PyTorch to refuse."""
    given = [part for part in (a, b, start, out) if part is not None]
    if not is_plain(*given):
        return False
    shape = _shape(a, b)
    batches = {part.shape[0] for part in (a, b) if part.ndim == 3}
    return (
        all(part.dtype == torch.float32 and part.device.type == "cpu" for part in given)
        and all(part.stride(-1) == 1 for part in given[2:])
        and min(shape[-2:]) >= NARROW
        and not (torch.is_grad_enabled() and any(part.requires_grad for part in given))
        and a.shape[-1] == b.shape[-2]
        and len(batches) < 2
        and (start is None or start.shape in (shape, shape[-1:]))
        and (out is None or out.shape == shape)
    )
