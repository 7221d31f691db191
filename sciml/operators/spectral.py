"""Spectral convolutions: learned matrices between the low Fourier coefficients of channels.

    (K v)(x) = Re sum_k R_k c_k exp(2 pi i k x) + b,      c_k the coefficients of v,

the Fourier layer of arXiv 2010.08895 with forward normalisation. R is learned

- ``dense``: one complex matrix for each kept k;
- ``tucker``: the same tensor as a Tucker decomposition, of a fraction of the parameters, whose factors are
  contracted one after the other (Kossaifi et al., TMLR 2024, arXiv 2310.00120);
- ``separable``: one transform along each axis, with a matrix for each of its wavenumbers, the results
  summed (factorised FNO: Tran et al., ICLR 2023, arXiv 2111.13802).

Complex weights are stored as reals, so that every optimiser, distributed backend and file format can
handle them.
"""

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from sciml.errors import ConfigError

from .fourier import TruncatedFourier, wavenumbers
from .products import product

__all__ = ["SpectralConv", "SpectralWeights", "multiply_modes", "tucker_ranks"]

SpectralWeights = Literal["dense", "tucker", "separable"]


class SpectralConv(nn.Module):
    """Multiply the low Fourier coefficients by learned matrices.

    Parameters
    ----------
    width : int
        Channels C, in and out.
    modes : tuple of int
        Wavenumbers kept per axis, see `sciml.operators.fourier`; one to three axes.
    periodic : tuple of bool
        Per axis.
    padding : float
        Length of the extension of bounded axes, as a fraction of the domain's.
    weights : {"dense", "tucker", "separable"}
    rank : float
        Parameters of ``tucker`` as a fraction of the dense ones.

    Raises
    ------
    ConfigError
        From ``forward``, if the grid is too coarse for the modes.

    Notes
    -----
    Input and output have shape (B, *extended, C): the nodes of the domain and of its extension, see
    `TruncatedFourier.extended`; of periodic axes those of the domain. ``weight`` of ``dense`` has shape
    (K, C, 2, C): the flattened coefficients, channels in, real and imaginary part, channels out; entries are
    normal with variance 1 / (2 C).

    Examples
    --------
    >>> layer = SpectralConv(8, (6, 6), (True, True), 0.0)
    >>> layer(torch.zeros(2, 16, 20, 8), (16, 20)).shape
    torch.Size([2, 16, 20, 8])
    """

    def __init__(
        self,
        width: int,
        modes: tuple[int, ...],
        periodic: tuple[bool, ...],
        padding: float,
        weights: SpectralWeights = "dense",
        rank: float = 0.1,
    ) -> None:
        super().__init__()
        fourier = TruncatedFourier(modes, periodic, padding)
        self.fourier, self.kind = fourier, weights
        deviation = math.sqrt(0.5 / width)
        self.bias = nn.Parameter(torch.zeros(width))
        if weights == "dense":
            self.weight = nn.Parameter(deviation * torch.randn(math.prod(fourier.shape), width, 2, width))
        elif weights == "separable":
            self.lines = [TruncatedFourier((n,), (p,), padding) for n, p in zip(modes, periodic, strict=True)]
            self.axis_weights = nn.ParameterList(
                deviation / math.sqrt(len(modes)) * torch.randn(n // 2 + 1, width, 2, width) for n in modes
            )
        else:
            sizes = (*fourier.shape, width, width)
            ranks = tucker_ranks(sizes, rank)
            # Of the channels orthonormal columns, scaled so that entries have the variance of the dense ones. Of
            # the modes the lowest wavenumbers, which matter most: Darcy flow after 12 epochs, at the same ranks,
            # 0.034 from random mixtures of all and 0.027 from these.
            gain = math.prod(n / r for n, r in zip(sizes[-2:], ranks[-2:], strict=True)) ** 0.5
            self.core = nn.Parameter(deviation * gain * torch.randn(*ranks[:-1], 2, ranks[-1]))
            lowest = [
                _lowest(wavenumbers(count, axis == len(modes) - 1), r)
                for axis, (count, r) in enumerate(zip(modes, ranks[:-2], strict=True))
            ]
            mixing = [torch.linalg.qr(torch.randn(width, r))[0] for r in ranks[-2:]]
            self.factors = nn.ParameterList([*lowest, *mixing])

    def forward(
        self, v: Tensor, space: tuple[int, ...], add_to: Tensor | None = None, analysed: bool = False
    ) -> Tensor:
        """Return K v, of a domain with ``space`` nodes per axis; or K v - b + ``add_to``, which may be overwritten.

        With ``analysed`` v are the coefficients, shape (B, 2, *fourier.shape, C); not of ``separable`` weights.
        """
        if torch.is_autocast_enabled(v.device.type):
            # Coefficients span more orders of magnitude than half precision resolves.
            with torch.autocast(v.device.type, enabled=False):
                return self.forward(v.float(), space, None if add_to is None else add_to.float(), analysed)
        if self.kind == "separable":
            return self._separable(v, space, add_to)
        c = v if analysed else self.fourier.analyse(v, space)
        mixed = self.mix(c)
        if add_to is None:
            # The bias is the real coefficient of wavenumber 0, the first.
            modes = math.prod(self.fourier.shape)
            mixed = mixed + pad(self.bias[None, None], (0, 0, 0, modes - 1, 0, 1)).view(1, *c.shape[1:])
        return self.fourier.synthesise(mixed, space, add_to)

    def mix(self, c: Tensor) -> Tensor:
        """Return R_k c_k, shapes (B, 2, *fourier.shape, C); not of ``separable`` weights."""
        if torch.is_autocast_enabled(c.device.type):
            with torch.autocast(c.device.type, enabled=False):
                return self.mix(c.float())
        flat = c.flatten(2, -2)
        return (_mix(flat, self.weight) if self.kind == "dense" else self._tucker(flat)).view(c.shape)

    def _tucker(self, c: Tensor) -> Tensor:
        *modes, into, out = self.factors
        weight = multiply_modes(self.core, modes).flatten(0, len(modes) - 1)
        return torch.matmul(_mix(torch.matmul(c, into), weight), out.T)

    def _separable(self, v: Tensor, space: tuple[int, ...], add_to: Tensor | None) -> Tensor:
        self.fourier.check_resolution(space)
        result = self.bias if add_to is None else add_to
        for axis, (line, weight) in enumerate(zip(self.lines, self.axis_weights, strict=True)):
            # The axis in hand last, the others in the batch.
            turned = v.movedim(axis + 1, -2)
            nodes = (space[axis],)
            c = _mix(line.analyse(turned.flatten(0, -3), nodes), weight)
            part = line.synthesise(c, nodes).view(turned.shape)
            result = result + part.movedim(-2, axis + 1)
        return result

    def full_weight(self) -> Tensor:
        """Return R of all kept wavenumbers, shape (K, C, 2, C), for ``dense`` and ``tucker``."""
        if self.kind == "dense":
            return self.weight
        if self.kind == "separable":
            raise ConfigError("weights='separable' has no matrix per wavenumber: use 'dense' or 'tucker'")
        *others, out = self.factors
        weight = torch.matmul(multiply_modes(self.core, others), out.T)
        return weight.flatten(0, len(others) - 2)


def multiply_modes(core: Tensor, factors: Iterable[Tensor]) -> Tensor:
    """Return the core of a Tucker decomposition times its factors along its first axes.

    Parameters
    ----------
    core : Tensor, shape (r_1, r_2, ...)
    factors : iterable of Tensor, shapes (n_j, r_j)

    Returns
    -------
    Tensor, shape (n_1, n_2, ...), axes without a factor as they are
    """
    for axis, factor in enumerate(factors):
        core = torch.tensordot(factor, core, dims=([1], [axis])).movedim(0, axis)
    return core


def _mix(c: Tensor, weight: Tensor) -> Tensor:
    """Multiply each coefficient by its own complex matrix: (B, 2, K, I), (K, I, 2, O) to (B, 2, K, O)."""
    batch, _, modes, channels = c.shape
    rows = c.permute(2, 1, 0, 3).reshape(modes, 2 * batch, channels)
    parts = product(rows, weight.flatten(2)).view(modes, 2, batch, 2, weight.shape[-1])
    (re_re, re_im), (im_re, im_im) = (part.unbind(2) for part in parts.unbind(1))
    return torch.stack([re_re - im_im, re_im + im_re]).permute(2, 0, 1, 3)


def _lowest(numbers: list[int], rank: int) -> Tensor:
    """Columns that each pick one of the lowest wavenumbers, nearly: shape (len(numbers), rank)."""
    order = sorted(range(len(numbers)), key=lambda row: abs(numbers[row]))[:rank]
    return torch.eye(len(numbers))[:, order] + 0.02 * torch.randn(len(numbers), rank)


def tucker_ranks(sizes: tuple[int, ...], fraction: float) -> tuple[int, ...]:
    """Return ranks with at most ``fraction`` of the dense tensor's parameters, at least 1 each.

    Those of the channels, the last two axes, are the sizes while the others, in proportion to theirs, can be small
    enough. At the same number of parameters more channels were worth more than more modes: Darcy flow after 12
    epochs, 0.027 with ranks (15, 8, 20, 20), 0.025 with (12, 7, 23, 23) and 0.021 with (9, 5, 31, 31). The last axis
    but one is doubled by the real and imaginary parts.

    Examples
    --------
    >>> tucker_ranks((24, 13, 32, 32), 0.14), tucker_ranks((24, 13, 32, 32), 0.002)
    ((8, 5, 32, 32), (1, 1, 13, 13))
    """
    dense = 2 * math.prod(sizes)

    def ranks(modes: float, channels: float) -> tuple[int, ...]:
        shares = (*[modes] * (len(sizes) - 2), channels, channels)
        return tuple(max(1, round(share * n)) for share, n in zip(shares, sizes, strict=True))

    def fits(chosen: tuple[int, ...]) -> bool:
        factors = sum(n * r for n, r in zip(sizes, chosen, strict=True))
        return 2 * math.prod(chosen) + factors <= fraction * dense

    def largest(choose: Callable[[float], tuple[int, ...]]) -> tuple[int, ...]:
        low, high = 0.0, 1.0
        if fits(choose(high)):
            return choose(high)
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(choose(middle)) else (low, middle)
        return choose(low)

    if fits(ranks(0.0, 1.0)):
        return largest(lambda share: ranks(share, 1.0))
    return largest(lambda share: ranks(0.0, share))
