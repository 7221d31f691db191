"""A U-Net (Ronneberger, Fischer and Brox, MICCAI 2015, arXiv 1505.04597) as a baseline for operators.

Convolutions of fixed width in nodes: unlike a neural operator it means another map at every resolution.
Group normalisation and GELU in place of the original's batch normalisation and ReLU; padding keeps the grid,
around periodic axes, by the nearest value beyond bounded ones.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, avg_pool2d, avg_pool3d, interpolate, pad

from sciml.errors import ConfigError

from .activation import gelu_in_place
from .base import Operator, operator_registry
from .fourier import with_coordinates

__all__ = ["UNet", "UNetConfig"]

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLS = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}
SMALLEST = 4
"""Nodes per axis of the coarsest grid."""


@dataclass(frozen=True)
class UNetConfig:
    """Architecture of a `UNet`.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    width: int = 32
    """Channels on the finest grid; doubled on each coarser one."""
    depth: int = 3
    """Coarser grids, each of half as many nodes per axis."""

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"UNet {name}={getattr(self, name)}: it must be at least 1")


def check_depth(space: tuple[int, ...], depth: int) -> None:
    """Raise `ConfigError` if a grid halved ``depth`` times would have fewer than four nodes on an axis."""
    needed = SMALLEST * 2**depth
    for axis, size in enumerate(space):
        if size < needed:
            raise ConfigError(
                f"axis {axis} with {size} nodes is too coarse for depth={depth}: use at least {needed} nodes, or a "
                "model with fewer grids"
            )


class _Convolution(nn.Module):
    """Three nodes wide, around periodic axes; normalised, activated."""

    def __init__(self, into: int, out: int, periodic: tuple[bool, ...]) -> None:
        super().__init__()
        self.periodic = periodic
        self.convolution = CONVOLUTIONS[len(periodic)](into, out, 3, bias=False)
        self.norm = nn.GroupNorm(1, out)

    def forward(self, v: Tensor) -> Tensor:
        dim = len(self.periodic)
        for axis, periodic in enumerate(self.periodic):
            ends = [0] * (2 * dim)
            ends[2 * (dim - 1 - axis) : 2 * (dim - axis)] = (1, 1)
            v = pad(v, ends, mode="circular" if periodic else "replicate")
        return gelu_in_place(self.norm(self.convolution(v)))


def _block(into: int, out: int, periodic: tuple[bool, ...]) -> nn.Module:
    return nn.Sequential(_Convolution(into, out, periodic), _Convolution(out, out, periodic))


@operator_registry.register("unet")
class UNet(Operator):
    """U-Net between functions on a grid; coordinates are appended to the input inside.

    Parameters
    ----------
    in_channels, out_channels : int
        Of the input and of the output function.
    periodic : tuple of bool
        Which axes are periodic.
    config : UNetConfig, optional
    **overrides
        Fields of `UNetConfig` to replace.

    Raises
    ------
    ConfigError
        From ``forward``, if the input's channels or axes do not fit or its grid is too coarse.

    Examples
    --------
    >>> model = UNet(width=4, periodic=(True, False))
    >>> model(torch.zeros(2, 32, 33, 1)).shape
    torch.Size([2, 32, 33, 1])
    """

    config_type = UNetConfig
    config: UNetConfig

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        periodic: tuple[bool, ...] = (False, False),
        config: UNetConfig | None = None,
        **overrides: object,
    ) -> None:
        super().__init__(in_channels, out_channels, periodic, config, **overrides)
        config = self.config
        widths = [config.width * 2**level for level in range(config.depth + 1)]
        self.first = _block(in_channels + len(periodic), widths[0], periodic)
        self.down = nn.ModuleList(
            _block(fine, coarse, periodic) for fine, coarse in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(
            _block(fine + coarse, fine, periodic) for fine, coarse in itertools.pairwise(widths)
        )
        self.last = CONVOLUTIONS[len(periodic)](widths[0], out_channels, 1)

    def check_resolution(self, space: tuple[int, ...]) -> None:
        """Raise `ConfigError` if the coarsest grid would have fewer than four nodes on an axis."""
        check_depth(space, self.config.depth)

    def map_normalised(self, a: Tensor) -> Tensor:
        """Map normalised input functions to normalised output functions, both channels last."""
        dim = len(self.periodic)
        v = self.first(with_coordinates(a, self.periodic).movedim(-1, 1))
        finer = []
        for block in self.down:
            finer.append(v)
            v = block(POOLS[dim](v, 2))
        for block, skipped in zip(reversed(self.up), reversed(finer), strict=True):
            v = interpolate(v, skipped.shape[2:], mode="nearest")
            v = block(torch.cat([skipped, v], 1))
        return self.last(v).movedim(1, -1)
