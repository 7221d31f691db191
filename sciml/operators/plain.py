"""Which tensors and modules code that is not PyTorch's own may take apart."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._python_dispatch import _get_current_dispatch_mode

__all__ = ["is_plain", "owned", "watched"]

_KINDS = (Tensor, nn.Parameter)


def is_plain(*tensors: Tensor | None) -> bool:
    """Return whether tensors are their memory and nothing else; None is.

    Not those that stand for others, as in `torch.func`, batched gradients, compilers, exporters and tracers, nor
    those with a tangent of forward-mode differentiation.

    Examples
    --------
    >>> is_plain(torch.zeros(2)), bool(torch.func.vmap(lambda x: x + is_plain(x))(torch.zeros(2)).any())
    (True, False)
    """
    functorch = torch._C._functorch
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return False
    if torch._C._are_functorch_transforms_active():
        return False
    for x in tensors:
        if x is None:
            continue
        if (
            type(x) not in _KINDS
            or functorch.is_functorch_wrapped_tensor(x)
            or functorch.is_legacy_batchedtensor(x)
        ):
            return False
        if forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None:
            return False
    return True


def owned(x: Tensor) -> Tensor:
    """Return a plain tensor if it may be overwritten, else a copy.

    While gradients are recorded leaves and views are not: what is written into a view belongs to another node.

    Examples
    --------
    >>> x = torch.zeros(4)
    >>> owned(x) is x, owned(x.view(2, 2)) is x, owned(x.requires_grad_()) is x
    (True, False, False)
    """
    shared = torch.is_grad_enabled() and (x._is_view() or (x.is_leaf and x.requires_grad))
    return x.clone(memory_format=torch.contiguous_format) if shared or not x.is_contiguous() else x


def watched(module: nn.Module) -> bool:
    """Return whether hooks of a module or its parts wait for calls, and may keep what goes in and comes out.

    Examples
    --------
    >>> layers = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    >>> before, _ = watched(layers), layers[1].register_forward_hook(print)
    >>> before, watched(layers)
    (False, True)
    """
    return bool(_has_any_global_hook()) or any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in module.modules()
    )
