"""Which tensors code that is not PyTorch's own may read and write."""

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.utils._python_dispatch import _get_current_dispatch_mode

__all__ = ["is_plain"]


def is_plain(x: Tensor) -> bool:
    """Return whether a tensor is its memory and nothing else.

    Not those that stand for others, as in `torch.func`, batched gradients, compilers, exporters and tracers, nor
    those with a tangent of forward-mode differentiation.

    Examples
    --------
    >>> is_plain(torch.zeros(2)), bool(torch.func.vmap(lambda x: x + is_plain(x))(torch.zeros(2)).any())
    (True, False)
    """
    functorch = torch._C._functorch
    return (
        type(x) in (Tensor, nn.Parameter)
        and not torch.compiler.is_compiling()
        and not functorch.is_functorch_wrapped_tensor(x)
        and not functorch.is_legacy_batchedtensor(x)
        and _get_current_dispatch_mode() is None
        and unpack_dual(x).tangent is None
    )
