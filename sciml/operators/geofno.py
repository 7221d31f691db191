"""Geo-FNO: Fourier neural operators on general domains (Li, Huang, Liu and Anandkumar, JMLR 24, 2023, 2207.05209).

A function is given at points x_n of a domain of its own. A deformation takes them to points xi_n of the unit box, where
functions have Fourier coefficients:

    v_0 = P(x, fields, code)                                            at the points
    v_1 = Re sum_k e^(2 pi i k z) R_1k sum_n w_n v_0(x_n) e^(-2 pi i k xi_n) + b(z)      on a uniform grid of nodes z
    v_(l+1) = K_l sigma(v_l) + W_l sigma(v_l)                           Fourier layers of an FNO on it
    u(x_n) = Q(Re sum_k e^(2 pi i k xi_n) R_Lk v_Lk + W v_0(x_n))       v_Lk of sigma(v_L), and back at the points,
                                                                        or, of a magnitude, |Q(...)|

with xi = c(x) + d(x, fields, code), d a network that is learned with the rest and begins at 0 (``learned``); with xi
given as the first fields of each point, as the index coordinates of structured meshes can be (``given``); or xi = c(x)
(``none``). Here c is the identity or, in the plane, radius and angle about the centre of the box: what surrounds a void
is smooth and periodic in these. On a structured mesh a plain `FNO` over its indices, with the positions as inputs, is
the same idea without scattered points: there the mesh is the deformation.

Different from the paper's code: sums over points have quadrature weights, or at least 1 / N, so that results do not
grow with the number of points; coefficients with k = 0 on the last axis are completed by their conjugates
(`sciml.operators.nonuniform`); d is added, where the paper has x + x d, and sees fields, too; angles enter it as sine
and cosine of 2^j theta, which do not jump at theta = pi as those of 2^j pi theta do; the code enters the lifting as
well; W v_0 goes past all layers between; b stands in the first layer alone; and the box is followed by an extension, as
in an FNO, so that its opposite sides are no neighbours.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError

from .activation import gelu
from .base import operator_registry
from .clouds import CloudOperator
from .fno import FNOConfig, FourierLayer, PointwiseMLP
from .fourier import TruncatedFourier, with_coordinates
from .nonuniform import NonuniformFourier
from .spectral import SpectralConv

__all__ = ["GeoFNO", "GeoFNOConfig"]

LARGEST = 2**17
"""Points that are in memory at a time in inference."""


@dataclass(frozen=True)
class GeoFNOConfig:
    """Architecture of a `GeoFNO`.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    modes: tuple[int, ...] = (24,)
    """Wavenumbers kept, per axis or one number for all: 24 keeps -12..11, on the last axis 0..12."""
    point_modes: tuple[int, ...] = (16,)
    """Wavenumbers of the transform from the points, of which the shortest wave should be twice as long as points are
    apart: sums over sparser ones are no integrals. Clouds of fewer points than a quarter of the product are refused."""
    width: int = 32
    """Channels inside."""
    layers: int = 5
    """Spectral layers, the first from the points and the last to them included."""
    latent: tuple[int, ...] = (40,)
    """Nodes of the grid between, one number for all axes, or one for each."""
    coordinates: Literal["box", "polar"] = "box"
    """Where deformations begin: positions in the box, or, in the plane, radius and angle about its centre."""
    deformation: Literal["learned", "given", "none"] = "learned"
    """Where Fourier transforms see the points: learned; given by the first fields, one for each coordinate, on the unit
    torus; or none, where they are in the box."""
    deformation_width: int = 128
    """Hidden channels of the deformation."""
    deformation_layers: int = 3
    """Its hidden layers."""
    frequencies: int = 8
    """Octaves of sines and cosines that it is given of each coordinate, radius and angle."""
    padding: float = 0.25
    """Length of the extension of the box or of the radius, as a fraction of its own; not of given coordinates."""
    magnitude: int = 0
    """Components of which a target is the magnitude: for norms of smooth fields, which have kinks where these vanish,
    as von Mises's stress does; 0 for others."""
    code_size: int = 0
    """Scalars of each sample that are given, the last channels; training sets it."""
    lifting_width: int = 64
    """Hidden channels of the lifting P."""
    projection_width: int = 128
    """Hidden channels of the projection Q."""

    def __post_init__(self) -> None:
        for name in ("width", "deformation_width", "deformation_layers", "lifting_width", "projection_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"GeoFNO {name}={getattr(self, name)}: it must be at least 1")
        for name in ("frequencies", "code_size", "magnitude"):
            if getattr(self, name) < 0:
                raise ConfigError(f"GeoFNO {name}={getattr(self, name)}: it must not be negative")
        if self.layers < 2:
            raise ConfigError(f"GeoFNO layers={self.layers}: it needs a first and a last one, use at least 2")
        for name in ("latent", "modes", "point_modes"):
            counts = getattr(self, name)
            if not 1 <= len(counts) <= 3 or min(counts) < 2:
                raise ConfigError(
                    f"GeoFNO {name}={counts}: give one number of at least 2 for all axes, or one for each of 1 to 3"
                )
            axes = max(len(counts), len(self.latent))
            if any(
                nodes < k for nodes, k in zip(spread(self.latent, axes), spread(counts, axes), strict=False)
            ):
                raise ConfigError(
                    f"GeoFNO latent={self.latent}: the grid cannot tell {name}={counts} apart, use as many nodes"
                )
        if not 0 <= self.padding <= 1:
            raise ConfigError(f"GeoFNO padding={self.padding}: choose a fraction from 0 to 1")
        if self.deformation not in ("learned", "given", "none"):
            raise ConfigError(f"GeoFNO deformation={self.deformation!r}: choose learned, given, none")
        if self.coordinates not in ("box", "polar"):
            raise ConfigError(f"GeoFNO coordinates={self.coordinates!r}: choose box, polar")
        if self.coordinates == "polar" and self.deformation == "given":
            raise ConfigError(
                "GeoFNO coordinates='polar': deformation='given' has its own, choose learned or none"
            )


def spread(counts: tuple[int, ...], dim: int) -> tuple[int, ...]:
    """Return one number for each axis."""
    return counts * dim if len(counts) == 1 else counts


class Deformation(nn.Module):
    """d(x, fields, code), in place of the paper's IPHI, of positions in the unit box; 0 at first.

    d sees x, its distance and direction from the centre of the box, sines and cosines of 2^j pi times these and, in
    the plane, of 2^j times the angle; and the fields at the point.
    """

    def __init__(self, dim: int, fields: int, config: GeoFNOConfig) -> None:
        super().__init__()
        self.dim, self.frequencies = dim, config.frequencies
        width = config.deformation_width
        features = 2 * dim + 2 * config.frequencies * (dim + 1 + (dim == 2)) + fields
        self.code = nn.Linear(config.code_size, width, bias=False) if config.code_size else None
        sizes = [features, *[width] * config.deformation_layers]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.out = nn.Linear(width, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, fields: Tensor, code: Tensor) -> Tensor:
        """Displace positions, shape (B, N, dim), with fields (B, N, channels) and a code (B, numbers)."""
        h = torch.cat([self.features(x), fields], -1)
        for number, layer in enumerate(self.hidden):
            h = layer(h)
            if number == 0 and self.code is not None:
                h = h + self.code(code)[:, None]
            h = gelu(h)
        return self.out(h)

    def features(self, x: Tensor) -> Tensor:
        """Return what d is given of positions, shape (..., dim)."""
        offset = x - 0.5
        # Of no distance there is no direction, nor a derivative.
        radius = (offset.square().sum(-1, keepdim=True) + 1e-12).sqrt()
        octaves = 2.0 ** torch.arange(self.frequencies, device=x.device, dtype=x.dtype)
        phases = [math.pi * (torch.cat([x, radius], -1)[..., None] * octaves).flatten(-2)]
        if self.dim == 2:
            phases.append(torch.atan2(offset[..., 1:] + 1e-12, offset[..., :1]) * octaves)
        phase = torch.cat(phases, -1)
        return torch.cat([x, offset / radius, phase.sin(), phase.cos()], -1)


@operator_registry.register("geofno")
class GeoFNO(CloudOperator):
    """Fourier neural operator between functions at points of general domains.

    Input and output are clouds, see `sciml.operators.clouds.cloud`. Functions may be evaluated at other points than in
    training, more of them or fewer. In inference a part of the points is in memory at a time. Before
    `set_normalisers`, which training calls, the box is the unit box.

    Parameters
    ----------
    in_channels : int
        Of a point: position, weight, fields, code.
    out_channels : int
    periodic : tuple of bool
        One value, False, for each of the 1 to 3 coordinates of a position.
    config : GeoFNOConfig, optional
    **overrides
        Fields of `GeoFNOConfig` to replace.

    Raises
    ------
    ConfigError
        From ``forward``, if the channels do not fit, points are too few, or outside of the box of the training points.

    Examples
    --------
    >>> from sciml.operators import cloud
    >>> model = GeoFNO(in_channels=5, modes=(8,), point_modes=(6,), width=8).eval()
    >>> a = cloud(torch.rand(3, 100, 2), fields=torch.rand(3, 100, 2))
    >>> model(a).shape
    torch.Size([3, 100, 1])
    """

    config_type = GeoFNOConfig
    config: GeoFNOConfig
    remedy = "give more, or set smaller point_modes"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        periodic: tuple[bool, ...] = (False, False),
        config: GeoFNOConfig | None = None,
        **overrides: object,
    ) -> None:
        super().__init__(in_channels, out_channels, periodic, config, **overrides)
        config, dim = self.config, self.dim
        for name in ("modes", "point_modes", "latent"):
            if len(getattr(config, name)) not in (1, dim):
                raise ConfigError(
                    f"GeoFNO {name}={getattr(config, name)}: give one number for all axes, or one for each of {dim}"
                )
        modes, from_points = spread(config.modes, dim), spread(config.point_modes, dim)
        if config.coordinates == "polar" and dim != 2:
            raise ConfigError(
                f"GeoFNO coordinates='polar': positions of {dim} coordinates have none, use box"
            )
        if config.deformation == "given" and self.field_channels < dim:
            raise ConfigError(
                f"GeoFNO deformation='given': of {self.field_channels} fields the first {dim} must be coordinates"
            )
        width, wraps = config.width, (True,) * dim
        self.space = spread(config.latent, dim)
        self.fourier = TruncatedFourier(modes, wraps, 0.0)
        self.from_points, self.to_points = NonuniformFourier(from_points), NonuniformFourier(modes)
        self.deformation = (
            Deformation(dim, self.field_channels, config) if config.deformation == "learned" else None
        )
        self.lifting = PointwiseMLP(dim + self.field_channels, config.lifting_width, width)
        self.embedding = nn.Linear(config.code_size, width) if config.code_size else None
        self.first = SpectralConv(width, from_points, wraps, 0.0)
        self.place = nn.Linear(dim + (config.coordinates == "polar"), width)
        inner = FNOConfig(modes=modes, width=width, padding=0.0)
        self.layers = nn.ModuleList(
            FourierLayer(inner, self.fourier, first=False, last=True) for _ in range(config.layers - 2)
        )
        self.last = SpectralConv(width, modes, wraps, 0.0)
        for layer in (self.first, self.last):
            # Others stand in its place: b, and that of W.
            layer.register_parameter("bias", None)
        self.skip = nn.Linear(width, width)
        self.projection = PointwiseMLP(width, config.projection_width, self.predicted_channels)

    @property
    def least_points(self) -> int:
        """How few points a cloud may have: a quarter of the Fourier coefficients of a channel."""
        return max(self.dim + 1, math.prod(self.from_points.modes) // 4)

    def set_normalisers(self, inputs: Tensor, outputs: Tensor) -> None:  # type: ignore[override]
        """Set box, means and deviations from training clouds; given coordinates stay as they are."""
        super().set_normalisers(inputs, outputs)
        if self.config.deformation == "given":
            given = slice(self.dim + 1, 2 * self.dim + 1)
            self.input_mean[given], self.input_std[given] = 0.0, 1.0

    def map_normalised(self, a: Tensor) -> Tensor:
        """Map normalised clouds to normalised functions at their points."""
        if torch.is_grad_enabled() or a.shape[0] * a.shape[1] <= LARGEST:
            h, xi = self._encode(a)
            return self._decode(self._latent(self._analyse(a, h, xi)), h, xi)
        coefficients = sum(self._analyse(part, *self._encode(part)) for part in _parts(a))
        assert isinstance(coefficients, Tensor)
        found = self._latent(coefficients)
        return torch.cat([self._decode(found, *self._encode(part)) for part in _parts(a)], 1)

    def folded(self, a: Tensor) -> Tensor:
        """Return at which share of its points the deformation turns orientations over, shape (B,); 0 if none does.

        Where it folds two points of the domain have one place in the box, where a function has one value. Of the
        derivative by x, with the fields and the code as they are. A given deformation is not looked at.

        Parameters
        ----------
        a : Tensor, shape (B, N, in_channels)
        """
        if self.deformation is None:
            return a.new_zeros(len(a))
        x, weight, fields, code = self.split((a - self.input_mean) / self.input_std)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            xi = self._deformed(x, fields, code)
            rows = [torch.autograd.grad(xi[..., i].sum(), x, retain_graph=True)[0] for i in range(self.dim)]
        inside = weight > 0
        negative = (torch.linalg.det(torch.stack(rows, -2)) < 0) & inside
        return negative.sum(1) / inside.sum(1).clamp_min(1)

    def _encode(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return v_0 and xi."""
        x, _, fields, code = self.split(a)
        h = self.lifting(torch.cat([x, fields], -1))
        if self.embedding is not None:
            h = h + self.embedding(code)[:, None]
        if self.config.deformation == "given":
            return h, fields[..., : self.dim]
        return h, self._deformed(x, fields, code)

    def _deformed(self, x: Tensor, fields: Tensor, code: Tensor) -> Tensor:
        """xi on the unit torus, of positions in the unit box."""
        reach = 1 + self.config.padding
        d = 0.0 if self.deformation is None else self.deformation(x, fields, code)
        if self.config.coordinates == "box":
            return (x + d) / reach
        offset = x - 0.5
        # At the centre there is no angle, nor a derivative.
        radius = (offset.square().sum(-1) + 1e-12).sqrt()
        angle = torch.atan2(offset[..., 1] + 1e-12, offset[..., 0])
        return torch.stack([math.sqrt(2) * radius / reach, angle / (2 * math.pi)], -1) + d / reach

    def _analyse(self, a: Tensor, h: Tensor, xi: Tensor) -> Tensor:
        return self.from_points.analyse(h, xi, a[..., self.dim])

    def _latent(self, coefficients: Tensor) -> Tensor:
        """From the coefficients of v_0 to those of the last layer."""
        space, dim = self.space, self.dim
        z = with_coordinates(coefficients.new_zeros(1, *space, 0), (True,) * dim)
        if self.config.coordinates == "polar":
            turn = 2 * math.pi * z[..., 1:]
            z = torch.cat([z[..., :1], turn.cos(), turn.sin()], -1)
        start = self.place(z).expand(len(coefficients), *space, -1).contiguous()
        v = self.first(coefficients, space, start, analysed=True)
        for layer in self.layers:
            v = layer(v, space)
        return self.last.mix(self.fourier.analyse(gelu(v), space))

    def _decode(self, coefficients: Tensor, h: Tensor, xi: Tensor) -> Tensor:
        return self.targets_of(self.projection(self.to_points.synthesise(coefficients, xi) + self.skip(h)))


def _parts(a: Tensor) -> Iterator[Tensor]:
    """Clouds in parts of so many points that they fit into memory."""
    yield from a.split(max(1, LARGEST // len(a)), 1)
