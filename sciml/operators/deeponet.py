"""DeepONet (Lu, Jin, Pang, Zhang and Karniadakis, Nature Machine Intelligence 3, 2021, arXiv 1910.03193).

    u(x) = sum_i b_i(a(s_1), ..., a(s_m)) t_i(x) + c

A baseline for operators: the branch net reads the input function at fixed sensors, the trunk net the place.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from sciml.errors import ConfigError

from .activation import GELU
from .base import Operator, operator_registry
from .fourier import coordinates_on

__all__ = ["DeepONet", "DeepONetConfig"]

INTERPOLATIONS = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class DeepONetConfig:
    """Architecture of a `DeepONet`.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    sensors: int = 32
    """Per axis; the input is interpolated linearly to them."""
    width: int = 256
    """Hidden channels of branch and trunk."""
    depth: int = 3
    """Hidden layers of branch and trunk."""
    basis: int = 128
    """Products b_i t_i of each output channel."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "basis"):
            if getattr(self, name) < 1:
                raise ConfigError(f"DeepONet {name}={getattr(self, name)}: it must be at least 1")
        if self.sensors < 2:
            raise ConfigError(f"DeepONet sensors={self.sensors}: it must be at least 2")


def _net(into: int, width: int, depth: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(into, width), GELU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), GELU()]
    return nn.Sequential(*layers, nn.Linear(width, out))


@operator_registry.register("deeponet")
class DeepONet(Operator):
    """DeepONet between functions on a box.

    Parameters
    ----------
    in_channels, out_channels : int
        Of the input and of the output function.
    periodic : tuple of bool
        Which axes are periodic.
    config : DeepONetConfig, optional
    **overrides
        Fields of `DeepONetConfig` to replace.

    Raises
    ------
    ConfigError
        From ``forward``, if the input's channels or axes do not fit.

    Examples
    --------
    >>> model = DeepONet(sensors=8, width=16, basis=4)
    >>> model(torch.zeros(2, 17, 20, 1)).shape
    torch.Size([2, 17, 20, 1])
    """

    config_type = DeepONetConfig
    config: DeepONetConfig

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        periodic: tuple[bool, ...] = (False, False),
        config: DeepONetConfig | None = None,
        **overrides: object,
    ) -> None:
        super().__init__(in_channels, out_channels, periodic, config, **overrides)
        config = self.config
        dim, out = len(periodic), config.basis * out_channels
        self.branch = _net(in_channels * config.sensors**dim, config.width, config.depth, out)
        self.trunk = _net(dim + sum(periodic), config.width, config.depth, out)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def check_resolution(self, space: tuple[int, ...]) -> None:
        """Raise `ConfigError` if an axis has fewer than two nodes."""
        for axis, size in enumerate(space):
            if size < 2:
                raise ConfigError(f"axis {axis} with {size} nodes is too coarse: use at least 2 nodes")

    def map_normalised(self, a: Tensor) -> Tensor:
        """Map normalised input functions to normalised output functions, both channels last."""
        config, space = self.config, tuple(a.shape[1:-1])
        axes = []
        for size, periodic in zip(space, self.periodic, strict=True):
            x = coordinates_on(a.device, a.dtype, size, periodic)
            turn = 2 * math.pi * x
            axes.append(torch.stack([turn.cos(), turn.sin()], -1) if periodic else x[:, None])
        columns = [
            part[(None,) * axis + (slice(None),) + (None,) * (len(space) - 1 - axis)].expand(*space, -1)
            for axis, part in enumerate(axes)
        ]
        places = torch.cat(columns, -1)
        trunk = self.trunk(places).unflatten(-1, (self.out_channels, config.basis))
        branch = self.branch(self._at_sensors(a).flatten(1)).unflatten(-1, (self.out_channels, config.basis))
        return torch.einsum("bcp,...cp->b...c", branch, trunk) / math.sqrt(config.basis) + self.bias

    def _at_sensors(self, a: Tensor) -> Tensor:
        """Values at ``sensors`` points per axis, x_j = j / m on periodic axes, j / (m - 1) on bounded ones."""
        v = a.movedim(-1, 1)
        dim = len(self.periodic)
        for axis, periodic in enumerate(self.periodic):
            if periodic:
                ends = [0] * (2 * dim)
                ends[2 * (dim - 1 - axis) + 1] = 1
                v = pad(v, ends, mode="circular")
        sizes = [self.config.sensors + periodic for periodic in self.periodic]
        v = interpolate(v, sizes, mode=INTERPOLATIONS[dim], align_corners=True)
        for axis in range(dim):
            v = v.narrow(axis + 2, 0, self.config.sensors)
        return v
