"""A network that takes noise from fields: a U-Net that knows how much noise there is.

Of normalised fields z, z + sigma n with n ~ N(0, I) is given, and E[z | z + sigma n] is learned, as

    D(y, sigma) = c_skip y + c_out F(c_in y; log(sigma) / 4)

with the factors of EDM (Karras et al., NeurIPS 2022, arXiv 2206.00364, table 1) for data of deviation 1. The score of
the noised density is (D - y) / sigma^2 (Miyasawa 1961, Tweedie). Noise is independent from node to node.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, silu

from sciml.errors import ConfigError

from .base import Operator, operator_registry
from .fourier import with_coordinates
from .unet import CONVOLUTIONS, POOLS, check_depth

__all__ = ["Denoiser", "DenoiserConfig"]

LARGEST_NOISE = 80.0
"""Deviation at which sampling starts, of 32 x 32 nodes: EDM's."""
LEAST_NOISE = 0.002


@dataclass(frozen=True)
class DenoiserConfig:
    """Architecture of a `Denoiser`, and the noise that it learns from.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    width: int = 32
    """Channels on the finest grid; doubled on each coarser one."""
    depth: int = 2
    """Coarser grids, each of half as many nodes per axis."""
    blocks: int = 1
    """Residual blocks on each grid, on the way down and up."""
    embedding: int = 64
    """Numbers that describe the noise's deviation."""
    noise_mean: float = 0.3
    """Training draws log sigma from a normal distribution of this mean, for 32 x 32 nodes; log(n / 1024) / 2 is added
    of n nodes, as the same noise hides less of a smooth field then,"""
    noise_std: float = 1.7
    """and of this deviation."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "blocks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Denoiser {name}={getattr(self, name)}: it must be at least 1")
        if self.embedding < 4 or self.embedding % 2:
            raise ConfigError(f"Denoiser embedding={self.embedding}: give an even number from 4 on")
        if not 0 < self.noise_std < math.inf or not math.isfinite(self.noise_mean):
            raise ConfigError(
                f"Denoiser noise_mean={self.noise_mean}, noise_std={self.noise_std}: give finite numbers, the second "
                "positive"
            )


class _Convolution(nn.Module):
    """Three nodes wide, around periodic axes."""

    def __init__(self, into: int, out: int, periodic: tuple[bool, ...]) -> None:
        super().__init__()
        self.periodic = periodic
        self.convolution = CONVOLUTIONS[len(periodic)](into, out, 3)

    def forward(self, v: Tensor) -> Tensor:
        dim = len(self.periodic)
        for wraps in set(self.periodic):
            ends = [int(self.periodic[axis] == wraps) for axis in reversed(range(dim)) for _ in range(2)]
            v = pad(v, ends, mode="circular" if wraps else "replicate")
        return self.convolution(v)


class _Block(nn.Module):
    """A residual block, whose second normalisation the noise scales and shifts."""

    def __init__(self, into: int, out: int, periodic: tuple[bool, ...], embedding: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(math.gcd(8, n), n) for n in (into, out))
        self.first, self.second = _Convolution(into, out, periodic), _Convolution(out, out, periodic)
        self.modulation = nn.Linear(embedding, 2 * out)
        self.skip = CONVOLUTIONS[len(periodic)](into, out, 1) if into != out else nn.Identity()
        # A block begins as the identity.
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, v: Tensor, noise: Tensor) -> Tensor:
        u = self.first(silu(self.norms[0](v)))
        scale, shift = self.modulation(noise).view(len(v), -1, *(1,) * (v.ndim - 2)).chunk(2, 1)
        u = self.second(silu(self.norms[1](u) * (1 + scale) + shift))
        return u + self.skip(v)


@operator_registry.register("score")
class Denoiser(Operator):
    """Score model of fields on a grid, as the denoiser E[z | z + sigma n].

    Parameters
    ----------
    in_channels, out_channels : int
        Components of the fields, the same number twice.
    periodic : tuple of bool
        Which axes are periodic.
    config : DenoiserConfig, optional
    **overrides
        Fields of `DenoiserConfig` to replace.

    Raises
    ------
    ConfigError
        If both numbers differ; from ``forward`` if channels or axes do not fit or the grid is too coarse.

    Examples
    --------
    >>> model = Denoiser(1, 1, (True, True), width=8)
    >>> model(torch.zeros(2, 16, 16, 1), torch.tensor([0.1, 10.0])).shape
    torch.Size([2, 16, 16, 1])
    """

    config_type = DenoiserConfig
    config: DenoiserConfig

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        periodic: tuple[bool, ...] = (False, False),
        config: DenoiserConfig | None = None,
        **overrides: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, periodic, config, **overrides)
        if in_channels != out_channels:
            raise ConfigError(
                f"Denoiser in_channels={in_channels}, out_channels={out_channels}: they must be the same"
            )
        config, convolution = self.config, CONVOLUTIONS[len(periodic)]
        sizes = periodic, config.embedding
        widths = [config.width * 2**level for level in range(config.depth + 1)]
        self.embedding = nn.Sequential(
            nn.Linear(config.embedding, config.embedding),
            nn.SiLU(),
            nn.Linear(config.embedding, config.embedding),
        )
        self.first = _Convolution(in_channels + len(periodic), widths[0], periodic)
        self.down = nn.ModuleList(_blocks(n, n, config.blocks, sizes) for n in widths)
        self.wider = nn.ModuleList(
            convolution(fine, coarse, 1) for fine, coarse in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(
            _blocks(fine + coarse, fine, config.blocks, sizes) for fine, coarse in itertools.pairwise(widths)
        )
        self.norm = nn.GroupNorm(math.gcd(8, widths[0]), widths[0])
        self.last = _Convolution(widths[0], out_channels, periodic)

    def check_resolution(self, space: tuple[int, ...]) -> None:
        """Raise `ConfigError` if the coarsest grid would have fewer than four nodes on an axis."""
        check_depth(space, self.config.depth)

    def noise_levels(self, space: tuple[int, ...]) -> tuple[float, float]:
        """Return the least and the largest sigma of sampling at a resolution: 80 at 32 x 32 nodes.

        The mean of n nodes keeps a share 1 / n of the noise's variance, and must be hidden by it.
        """
        return LEAST_NOISE, LARGEST_NOISE * math.sqrt(math.prod(space)) / 32

    def noise_scale(self, space: tuple[int, ...]) -> float:
        """Return the median sigma of training at a resolution."""
        return math.exp(self.config.noise_mean) * math.sqrt(math.prod(space)) / 32

    def normalise(self, fields: Tensor) -> Tensor:
        """Return z of physical fields (B, *space, channels)."""
        return (fields - self.output_mean) / self.output_std

    def denormalise(self, z: Tensor) -> Tensor:
        """Return the physical fields of z."""
        return z * self.output_std + self.output_mean

    def forward(self, y: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Return E[z | y] of y = z + sigma n, (B, *space, channels), with sigma of shape (B,).

        Raises
        ------
        ConfigError
            If shapes or the precision do not fit, or the grid is too coarse.
        """
        if sigma is None or sigma.shape != y.shape[:1]:
            raise ConfigError(
                f"sigma={None if sigma is None else tuple(sigma.shape)}: a Denoiser needs the deviation of the noise "
                f"of each of {len(y)} fields"
            )
        if y.ndim != self.axes + 2 or y.shape[-1] != self.in_channels or y.dtype != self.input_mean.dtype:
            raise ConfigError(
                f"Denoiser input of {y.dtype}, shape {tuple(y.shape)}: expected {self.input_mean.dtype}, (batch, "
                f"{self.axes} axes, {self.in_channels} channels)"
            )
        self.check_resolution(tuple(y.shape[1:-1]))
        sigma = sigma.to(y.dtype)
        s = sigma.view(-1, *(1,) * (y.ndim - 1))
        scale = torch.rsqrt(1 + s * s)
        return scale**2 * y + s * scale * self._network(scale * y, torch.log(sigma) / 4).to(y.dtype)

    def _network(self, a: Tensor, label: Tensor) -> Tensor:
        frequencies = torch.logspace(-1, 1.5, self.config.embedding // 2, device=a.device, dtype=a.dtype)
        angles = label[:, None] * frequencies
        noise = silu(self.embedding(torch.cat([angles.sin(), angles.cos()], 1)))
        dim = len(self.periodic)
        v = self.first(with_coordinates(a, self.periodic).movedim(-1, 1))
        finer: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            if level:
                v = self.wider[level - 1](POOLS[dim](v, 2))
            v = _through(blocks, v, noise)
            finer.append(v)
        finer.pop()
        for blocks, skipped in zip(reversed(self.up), reversed(finer), strict=True):
            v = interpolate(v, skipped.shape[2:], mode="nearest")
            v = _through(blocks, torch.cat([skipped, v], 1), noise)
        return self.last(silu(self.norm(v))).movedim(1, -1)


def _blocks(into: int, out: int, count: int, sizes: tuple[tuple[bool, ...], int]) -> nn.ModuleList:
    return nn.ModuleList(_Block(into if i == 0 else out, out, *sizes) for i in range(count))


def _through(blocks: nn.Module, v: Tensor, noise: Tensor) -> Tensor:
    for block in blocks.children():
        v = block(v, noise)
    return v
