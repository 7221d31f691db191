"""The Mu-layer, a polynomial of degree two in each token, and the block of two of them.

Cheng, Chrysos, Georgopoulos and Cevher, "Multilinear Operator Networks", ICLR 2024, arXiv 2401.17992.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sciml.errors import ConfigError

from .shift import SpatialShift

__all__ = ["MuLayer", "Norm", "PolyBlock"]

Norm = Literal["layer", "batch"] | None
RATIO = 8
EPS = 1e-6


class ChannelNorm(nn.BatchNorm1d):
    """Batch normalisation of the last axis, over all others."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., channels)."""
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def norm_of(kind: Norm, channels: int) -> nn.Module | None:
    """Return a norm of the last axis; None is none."""
    if kind is None:
        return None
    if kind not in ("layer", "batch"):
        raise ConfigError(f"norm={kind!r}: choose 'layer', 'batch' or None")
    return nn.LayerNorm(channels, eps=EPS) if kind == "layer" else ChannelNorm(channels, eps=EPS)


class MuLayer(nn.Module):
    """The layer C [(A x) * (B D x) + A x] of each token x, with * entry by entry.

    Without a norm it is a polynomial of degree two, which `sciml.symbolic.expand` writes down. With one it is what the
    released network computes, C [n_1 + alpha n_1 * n_2] with n_1 = N_1(A x), n_2 = N_2(B D x) and a learned scale
    alpha; a layer norm divides by a deviation that depends on x, so that this is no polynomial. Biases of A, B and D
    start at 1, that of C at 0.

    Parameters
    ----------
    in_features, hidden, out_features : int
        Sizes of x, of A x and of the output: d, m, o.
    rank : int, optional
        Rows of D, hence the largest rank of B D; by default hidden // 8, the released "shrinkage ratio", at least 1.
    bias : bool
        Of all four maps.
    norm : {"layer", "batch", None}
        Of both branches. "batch" is affine in eval mode, and then a part of the polynomial.
    shift : SpatialShift, optional
        Applied to A x and to D x.
    dtype : torch.dtype, optional

    Raises
    ------
    ConfigError
        If a size is out of its range, or the input's last axis is not ``in_features``.

    Examples
    --------
    >>> layer = MuLayer(2, 4, 3, rank=2, norm=None)
    >>> layer(torch.ones(7, 2)).shape, sum(p.numel() for p in layer.parameters())
    (torch.Size([7, 3]), 45)
    """

    def __init__(
        self,
        in_features: int,
        hidden: int,
        out_features: int,
        rank: int | None = None,
        *,
        bias: bool = True,
        norm: Norm = "layer",
        shift: SpatialShift | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        rank = max(hidden // RATIO, 1) if rank is None else rank
        sizes = {"in_features": in_features, "hidden": hidden, "out_features": out_features, "rank": rank}
        for name, value in sizes.items():
            if value < 1:
                raise ConfigError(f"MuLayer {name}={value}: it must be at least 1")
        if shift is not None:
            for name in ("hidden", "rank"):
                if sizes[name] < len(shift.offsets):
                    raise ConfigError(
                        f"MuLayer {name}={sizes[name]}: the shift has {len(shift.offsets)} groups of channels; "
                        "give at least as many"
                    )
        self.in_features, self.hidden, self.out_features, self.rank = in_features, hidden, out_features, rank
        self.A = nn.Linear(in_features, hidden, bias, dtype=dtype)
        self.D = nn.Linear(in_features, rank, bias, dtype=dtype)
        self.B = nn.Linear(rank, hidden, bias, dtype=dtype)
        self.C = nn.Linear(hidden, out_features, bias, dtype=dtype)
        self.norm_a, self.norm_b = norm_of(norm, hidden), norm_of(norm, hidden)
        self.alpha = None if norm is None else nn.Parameter(torch.ones((), dtype=dtype))
        self.shift = shift
        if dtype is not None:
            self.to(dtype)
        for part in (self.A, self.B, self.D):
            nn.init.kaiming_normal_(part.weight)
            if bias:
                nn.init.ones_(part.bias)
        nn.init.kaiming_normal_(self.C.weight, a=0.001)
        if bias:
            nn.init.zeros_(self.C.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (..., in_features), with a shift (B, *space, in_features), to (..., out_features)."""
        return linear(self.products(x), self.C.weight, self.C.bias)

    def products(self, x: Tensor) -> Tensor:
        """Return (A x) * (B D x) + A x, what C is applied to, (..., hidden)."""
        if x.shape[-1] != self.in_features:
            raise ConfigError(
                f"MuLayer input of shape {tuple(x.shape)}: the last axis must be {self.in_features}"
            )
        p = linear(x, self.A.weight, self.A.bias)
        q = linear(x, self.D.weight, self.D.bias)
        if self.shift is not None:
            p, q = self.shift(p), self.shift(q)
        q = linear(q, self.B.weight, self.B.bias)
        if self.norm_a is not None and self.norm_b is not None:
            p, q = self.norm_a(p), self.norm_b(q) * self.alpha
        return torch.addcmul(p, p, q)


class PolyBlock(nn.Module):
    """x + Mu_1(N x), then x + Mu_2(N x) with the same layer norm N: of degree four without norms.

    Of batch norms each layer has its own: running statistics of a shared one would fit neither place. The hidden size
    is d in the first layer, which shifts, and ``expansion`` d in the second.

    Parameters
    ----------
    channels : int
        d.
    expansion : int
    rank_ratio : int
        Hidden sizes over ranks.
    norm : {"layer", "batch", None}
        Before and in the layers.
    shift : SpatialShift, optional
    drop_path : float
        Probability that a training sample skips a layer; the others are scaled up.

    Raises
    ------
    ConfigError
        If a value is out of its range.

    Examples
    --------
    >>> PolyBlock(16, shift=SpatialShift(2), rank_ratio=4)(torch.zeros(1, 8, 8, 16)).shape
    torch.Size([1, 8, 8, 16])
    """

    def __init__(
        self,
        channels: int,
        expansion: int = 3,
        *,
        rank_ratio: int = RATIO,
        norm: Norm = "layer",
        shift: SpatialShift | None = None,
        drop_path: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("expansion", expansion), ("rank_ratio", rank_ratio)):
            if value < 1:
                raise ConfigError(f"PolyBlock {name}={value}: it must be at least 1")
        if not 0 <= drop_path < 1:
            raise ConfigError(f"PolyBlock drop_path={drop_path}: choose a probability below 1")
        self.drop_path = drop_path
        self.norm = norm_of(norm, channels)
        self.norm2 = norm_of(norm, channels) if norm == "batch" else None
        if dtype is not None:
            for part in (self.norm, self.norm2):
                if part is not None:
                    part.to(dtype)
        sizes = (channels, channels * expansion)
        self.mu1, self.mu2 = (
            MuLayer(
                channels,
                hidden,
                channels,
                max(hidden // rank_ratio, 1),
                norm=norm,
                shift=moved,
                dtype=dtype,
            )
            for hidden, moved in zip(sizes, (shift, None), strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, *space, channels) to the same shape."""
        for layer, norm in ((self.mu1, self.norm), (self.mu2, self.norm2 or self.norm)):
            change = layer(x if norm is None else norm(x))
            if self.training and self.drop_path:
                kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.drop_path
                change = change * kept / (1 - self.drop_path)
            x = x + change
        return x
