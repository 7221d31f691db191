"""What Geo-FNO is measured against: interpolation to a grid, and a network that sees one point at a time."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from sciml.errors import ConfigError

from .activation import GELU
from .base import operator_registry
from .clouds import CloudOperator
from .fno import FNO, FNOConfig

__all__ = ["InterpolatedFNO", "InterpolatedFNOConfig", "PointMLP", "PointMLPConfig"]


@dataclass(frozen=True)
class InterpolatedFNOConfig(FNOConfig):
    """Architecture of an `InterpolatedFNO`: that of its FNO, and the grid.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    grid: int = 41
    """Nodes per axis of the box."""
    neighbours: int = 3
    """Points that a node takes its values from, weighted by the inverse square of their distances."""
    code_size: int = 0
    """Scalars of each sample that are given, the last channels; training sets it."""
    magnitude: int = 0
    """Components of which a target is the magnitude, as in `GeoFNOConfig`; 0 for others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid < 2 or self.neighbours < 1 or self.code_size < 0 or self.magnitude < 0:
            raise ConfigError(
                f"InterpolatedFNO grid={self.grid}, neighbours={self.neighbours}, code_size={self.code_size}, "
                f"magnitude={self.magnitude}: use at least 2, 1, 0 and 0"
            )


@operator_registry.register("interpolated-fno")
class InterpolatedFNO(CloudOperator):
    """An FNO on a grid of the box, to which clouds are interpolated and from which their points are.

    A node is given the fields at its nearest points, its distance to the nearest one, by which it can tell whether it
    is in the domain, and the code. Values at points are multilinear between nodes, and what is trained: nodes outside
    of the domain may take any value that helps.

    Parameters
    ----------
    in_channels : int
        Of a point: position, weight, fields, code.
    out_channels : int
    periodic : tuple of bool
        One value, False, for each of the 1 to 3 coordinates of a position.
    config : InterpolatedFNOConfig, optional
    **overrides
        Fields of `InterpolatedFNOConfig` to replace.

    Examples
    --------
    >>> from sciml.operators import cloud
    >>> model = InterpolatedFNO(in_channels=3, modes=(4,), width=8, grid=9).eval()
    >>> model(cloud(torch.rand(3, 100, 2))).shape
    torch.Size([3, 100, 1])
    """

    config_type = InterpolatedFNOConfig
    config: InterpolatedFNOConfig

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        periodic: tuple[bool, ...] = (False, False),
        config: InterpolatedFNOConfig | None = None,
        **overrides: object,
    ) -> None:
        super().__init__(in_channels, out_channels, periodic, config, **overrides)
        axis = np.linspace(0, 1, self.config.grid)
        self.nodes = np.stack(np.meshgrid(*[axis] * self.dim, indexing="ij"), -1).reshape(-1, self.dim)
        channels = self.field_channels + 1 + self.config.code_size
        inner = {name: getattr(self.config, name) for name in FNOConfig.__dataclass_fields__}
        self.fno = FNO(channels, self.predicted_channels, self.periodic, FNOConfig(**inner))
        self.fno.check_resolution((self.config.grid,) * self.dim)

    @property
    def least_points(self) -> int:
        """How few points a cloud may have."""
        return max(self.dim + 1, self.config.neighbours)

    def map_normalised(self, a: Tensor) -> Tensor:
        """Map normalised clouds to normalised functions at their points."""
        x, weight, fields, code = self.split(a)
        space = (self.config.grid,) * self.dim
        nodes = torch.stack([self._at_nodes(*parts) for parts in zip(x, weight, fields, strict=True)])
        given = torch.cat([nodes, code[:, None].expand(-1, nodes.shape[1], -1)], -1)
        u = self.fno.map_normalised(given.view(len(a), *space, -1))
        return self.targets_of(self._at_points(u, x))

    def _at_nodes(self, x: Tensor, weight: Tensor, fields: Tensor) -> Tensor:
        """Fields of one cloud at the nodes, and the distance to its nearest point in units of the spacing."""
        inside = weight > 0
        tree = cKDTree(x[inside].detach().cpu().numpy())
        distances, chosen = tree.query(self.nodes, k=np.arange(1, self.config.neighbours + 1))
        spacing = 1 / (self.config.grid - 1)
        shares = 1 / (distances**2 + (1e-3 * spacing) ** 2)
        shares /= shares.sum(axis=1, keepdims=True)
        nearest = torch.from_numpy(np.minimum(distances[:, :1] / spacing, 4.0)).to(x)
        values = fields[inside][torch.from_numpy(chosen).to(x.device)]
        return torch.cat([(values * torch.from_numpy(shares).to(x)[..., None]).sum(1), nearest], -1)

    def _at_points(self, u: Tensor, x: Tensor) -> Tensor:
        """Values at points, multilinear between nodes: (B, *space, C) to (B, N, C)."""
        count = self.config.grid
        place = (x * (count - 1)).clamp(0, count - 1)
        low = place.detach().floor().clamp(max=count - 2)
        part, first = place - low, low.long()
        flat = u.flatten(1, -2)
        found = u.new_zeros(*x.shape[:2], u.shape[-1])
        for corner in itertools.product((0, 1), repeat=self.dim):
            index = torch.zeros_like(first[..., 0])
            share = torch.ones_like(part[..., 0])
            for axis, step in enumerate(corner):
                index = index * count + first[..., axis] + step
                share = share * (part[..., axis] if step else 1 - part[..., axis])
            values = flat.gather(1, index[..., None].expand(-1, -1, u.shape[-1]))
            found = found + share[..., None] * values
        return found


@dataclass(frozen=True)
class PointMLPConfig:
    """Architecture of a `PointMLP`.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    width: int = 256
    """Hidden channels."""
    depth: int = 5
    """Hidden layers."""
    code_size: int = 0
    """Scalars of each sample that are given, the last channels; training sets it."""
    magnitude: int = 0
    """Components of which a target is the magnitude, as in `GeoFNOConfig`; 0 for others."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1 or self.code_size < 0 or self.magnitude < 0:
            raise ConfigError(
                f"PointMLP width={self.width}, depth={self.depth}, code_size={self.code_size}, "
                f"magnitude={self.magnitude}: use at least 1, 1, 0 and 0"
            )


@operator_registry.register("point-mlp")
class PointMLP(CloudOperator):
    """A network that maps position, fields and code of a point to its output, and sees no other point.

    Parameters
    ----------
    in_channels : int
        Of a point: position, weight, fields, code.
    out_channels : int
    periodic : tuple of bool
        One value, False, for each of the 1 to 3 coordinates of a position.
    config : PointMLPConfig, optional
    **overrides
        Fields of `PointMLPConfig` to replace.

    Examples
    --------
    >>> from sciml.operators import cloud
    >>> PointMLP(in_channels=8, code_size=5).eval()(cloud(torch.rand(3, 10, 2), code=torch.rand(3, 5))).shape
    torch.Size([3, 10, 1])
    """

    config_type = PointMLPConfig
    config: PointMLPConfig

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        periodic: tuple[bool, ...] = (False, False),
        config: PointMLPConfig | None = None,
        **overrides: object,
    ) -> None:
        super().__init__(in_channels, out_channels, periodic, config, **overrides)
        width = self.config.width
        layers: list[nn.Module] = []
        into = in_channels - 1
        for _ in range(self.config.depth):
            layers += [nn.Linear(into, width), GELU()]
            into = width
        self.net = nn.Sequential(*layers, nn.Linear(width, self.predicted_channels))

    def map_normalised(self, a: Tensor) -> Tensor:
        """Map normalised clouds to normalised functions at their points."""
        return self.targets_of(self.net(torch.cat([a[..., : self.dim], a[..., self.dim + 1 :]], -1)))
