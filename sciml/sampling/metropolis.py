"""Which of Langevin's proposals are accepted (Metropolis and Hastings).

A proposal is y = m(x) + sqrt(v(x)) z. With r the logarithm of pi(y) N(x; m(y), v(y)) / (pi(x) N(y; m(x), v(x))), in
which the normalisers stay, as v differs between both ways, it is accepted where log u < r. The uniform number is the
normal one that z has beside those of the coordinates: u = Phi(z_d).
"""

from typing import Any

import torch
from torch import Tensor

from sciml.operators.plain import is_plain
from sciml.solvers.compiled import kernels

__all__ = ["accepted"]


def accepted(
    x: Tensor,
    z: Tensor,
    gain: Tensor,
    back: Tensor,
    variance: Tensor | float,
    back_variance: Tensor | float,
) -> Tensor:
    """Return which proposals are accepted, shape (B,).

    Parameters
    ----------
    x : Tensor, shape (B, d)
        States.
    z : Tensor, shape (B, d + 1)
        Normal numbers: those of the proposals, and one for the decision.
    gain : Tensor, shape (B,)
        log pi(y) - log pi(x); what is not a number is refused.
    back : Tensor, shape (B, d)
        m(y).
    variance, back_variance : Tensor, shape (B, 1), or float
        v(x) and v(y); numbers must be the same.

    Examples
    --------
    >>> z = torch.tensor([[0.0, 5.0], [0.0, -5.0]])  # Phi(5) is nearly 1, Phi(-5) nearly 0
    >>> x = torch.zeros(2, 1)
    >>> accepted(x, z, torch.tensor([-0.1, -0.1]), x, 1.0, 1.0).tolist()
    [False, True]
    """
    d = x.shape[1]
    if isinstance(variance, float) and isinstance(back_variance, float):
        assert variance == back_variance
        fast = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
        if fast and is_plain(x, z, gain, back) and (module := _kernels()) is not None:
            accept = torch.empty(len(x), dtype=torch.bool)
            arrays = (part.contiguous().numpy() for part in (x, z, gain, back))
            module.decide(*arrays, variance, accept.numpy())
            return accept
        ratio = gain - (x - back).square().sum(1) / (2 * back_variance)
    else:
        v, w = (torch.as_tensor(part).to(x).expand(len(x), 1)[:, 0] for part in (variance, back_variance))
        ratio = gain - (x - back).square().sum(1) / (2 * w) + 0.5 * d * (v / w).log()
    return torch.special.log_ndtr(z[:, d]) < ratio + z[:, :d].square().sum(1) / 2


def _kernels() -> Any:
    return kernels("fused", __package__)
