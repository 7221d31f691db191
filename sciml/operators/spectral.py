"""Spectral convolutions with an explicit, truncated Fourier transform.

On an axis of period P (in units of the domain's length) with nodes x_j and quadrature weights w_j,

    v_k = sum_j w_j v(x_j) exp(-2 pi i k x_j / P),      (K v)(x) = Re sum_k R_k v_k exp(2 pi i k x / P),

for the few wavenumbers that are kept. This is the Fourier layer of arXiv 2010.08895 with forward
normalisation, written as matrix products: the cost per point is that of two small dense products,
any number of nodes is as good as a power of two, and v_k is a quadrature of an integral, so it does
not depend on the resolution.

Periodic axis: P = 1, x_j = j / s, w_j = 1 / s: exactly the discrete Fourier transform. Bounded axis:
x_j = j / (s - 1), trapezoidal weights, and P = 1 + padding: the function is continued by zero over a
fixed *fraction* of the domain, which keeps the two ends apart at every resolution.

Wavenumbers -m..m-1 are kept on every axis but the last, which keeps 0..m-1 and takes the rest from
the symmetry of real functions; taking the real part makes any unpaired wavenumber harmless.
"""

import functools
import math

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError

__all__ = ["SpectralConv", "coordinates"]


def coordinates(size: int, periodic: bool) -> Tensor:
    """Return x_j in units of the domain's length, shape (size,), float64."""
    return torch.arange(size, dtype=torch.float64) / (size if periodic else size - 1)


@functools.lru_cache(maxsize=64)
def _transform(
    size: int, wavenumbers: tuple[int, ...], periodic: bool, padding: float, device: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cosines and sines of one axis: (w cos, w sin) of shape (k, size) and (cos, sin) of shape (size, k)."""
    x = coordinates(size, periodic)
    weight = torch.full((size,), 1.0 / (size if periodic else size - 1), dtype=torch.float64)
    if not periodic:
        weight[[0, -1]] *= 0.5
    period = 1.0 if periodic else 1.0 + padding
    phase = 2 * math.pi / period * torch.outer(torch.tensor(wavenumbers, dtype=torch.float64), x)
    cosine, sine = phase.cos(), phase.sin()
    tables = (weight * cosine, weight * sine, cosine.T.contiguous(), sine.T.contiguous())
    return tuple(table.to(device=device, dtype=dtype) for table in tables)  # type: ignore[return-value]


class SpectralConv(nn.Module):
    """Multiply the low Fourier coefficients by learned matrices.

    Parameters
    ----------
    width : int
        Channels, in and out.
    modes : tuple of int
        m per axis; one to three axes.
    periodic : tuple of bool
        Per axis.
    padding : float
        Fraction of the domain by which bounded axes are continued by zero.

    Notes
    -----
    The complex weights are stored as reals, shape (modes, 2, width, width), so that every
    optimiser, distributed backend and file format can handle them. Input and output have shape
    (B, *space, width).
    """

    def __init__(
        self, width: int, modes: tuple[int, ...], periodic: tuple[bool, ...], padding: float
    ) -> None:
        super().__init__()
        self.width, self.modes, self.periodic, self.padding = width, modes, periodic, padding
        count = math.prod(2 * m for m in modes[:-1]) * modes[-1]
        self.weight = nn.Parameter(torch.randn(count, 2, width, width) * math.sqrt(1 / width) / math.sqrt(2))

    def check_resolution(self, space: tuple[int, ...]) -> None:
        """Raise `ConfigError` if a grid cannot tell the kept wavenumbers apart."""
        for axis, (size, m, periodic) in enumerate(zip(space, self.modes, self.periodic, strict=True)):
            points = size if periodic else (size - 1) * (1 + self.padding)
            if points < 2 * m - 1e-9:
                needed = 2 * m if periodic else math.ceil(2 * m / (1 + self.padding) - 1e-9) + 1
                raise ConfigError(
                    f"axis {axis} with {size} nodes is too coarse for modes={m}: use at least {needed} nodes, "
                    "or a model with fewer modes"
                )

    def _tables(self, axis: int, size: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        m = self.modes[axis]
        last = axis == len(self.modes) - 1
        wavenumbers = tuple(range(m)) if last else tuple(range(-m, m))
        return _transform(size, wavenumbers, self.periodic[axis], self.padding, str(like.device), like.dtype)

    def forward(self, v: Tensor) -> Tensor:
        """Apply K to v, shape (B, *space, width)."""
        space = tuple(v.shape[1:-1])
        self.check_resolution(space)
        batch, dim = v.shape[0], len(space)
        # Forward: the last axis from real values, then the others on (re, im). At each step the axis
        # in hand is contracted at position -2 ("rows"), everything after it being channels.
        cosine, sine, _, _ = self._tables(dim - 1, space[-1], v)
        both = torch.matmul(torch.cat([cosine, -sine]), v)
        re, im = both.split(self.modes[-1], dim=-2)
        for axis in range(dim - 2, -1, -1):
            cosine, sine, _, _ = self._tables(axis, space[axis], v)
            head = (batch, *space[:axis], space[axis])
            tail = re.shape[axis + 2 :]
            stacked = torch.cat([re.reshape(*head, -1), im.reshape(*head, -1)], dim=-2)
            table = torch.cat([torch.cat([cosine, sine], 1), torch.cat([-sine, cosine], 1)])
            both = torch.matmul(table, stacked)
            re, im = (part.reshape(*part.shape[:-1], *tail) for part in both.split(len(cosine), dim=-2))
        re, im = self._mix(re, im)
        # Inverse: the same steps backwards; the last one keeps the real part only.
        for axis in range(dim - 1):
            _, _, cosine, sine = self._tables(axis, space[axis], v)
            head = (batch, *space[:axis], cosine.shape[1])
            tail = re.shape[axis + 2 :]
            stacked = torch.cat([re.reshape(*head, -1), im.reshape(*head, -1)], dim=-2)
            table = torch.cat([torch.cat([cosine, -sine], 1), torch.cat([sine, cosine], 1)])
            both = torch.matmul(table, stacked)
            re, im = (part.reshape(*part.shape[:-1], *tail) for part in both.split(space[axis], dim=-2))
        _, _, cosine, sine = self._tables(dim - 1, space[-1], v)
        # Wavenumbers k > 0 of the last axis stand for -k as well.
        double = torch.full((self.modes[-1],), 2.0, dtype=v.dtype, device=v.device)
        double[0] = 1.0
        return torch.matmul(torch.cat([cosine * double, -sine * double], 1), torch.cat([re, im], dim=-2))

    def _mix(self, re: Tensor, im: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply each coefficient by its own complex matrix: one real batched product."""
        shape, width = re.shape, self.width
        coefficients = torch.cat([re, im], dim=-1).reshape(shape[0], -1, 2 * width).transpose(0, 1)
        w_re, w_im = self.weight.unbind(1)
        block = torch.cat([torch.cat([w_re, w_im], -1), torch.cat([-w_im, w_re], -1)], dim=1)
        mixed = torch.bmm(coefficients, block).transpose(0, 1)
        return tuple(part.reshape(shape) for part in mixed.split(width, dim=-1))
