"""The Fourier neural operator (Li et al., ICLR 2021, arXiv 2010.08895).

    u = Q o L_T o ... o L_1 o P (a),      L v = sigma(K v + W v)

P and Q act point by point, K is a spectral convolution with a bias, W a skip connection; the last layer
has no activation. Bounded axes are extended by a fraction of the domain after P, by zeros, and cut before
Q: what the layers put there in between is a continuation that is learned. With a channel MLP each layer
goes on as in the neuraloperator library (Kossaifi et al., arXiv 2412.10354):
L v = sigma(M(sigma(K v + W v)) + W' v). Without normalisation layers (batch normalisation makes published
errors up to six times worse) and with GELU.
"""

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from sciml.errors import ConfigError

from .activation import GELU, gelu, gelu_in_place
from .base import Operator, operator_registry
from .fourier import TruncatedFourier, with_coordinates
from .plain import watched
from .pointwise import branches, pointwise_mlp
from .spectral import SpectralConv, SpectralWeights
from .sweeps import sweep, sweepable

__all__ = ["FNO", "FNOConfig", "Norm", "Skip"]

Skip = Literal["linear", "identity", "gate", "none"]
Norm = Literal["none", "instance", "group"]
EPSILON = 1e-5
LARGEST = 2_400_000
"""Numbers of one intermediate result in inference on the CPU: of more, memory is asked for anew each time."""
CHOICES = {
    "weights": ("dense", "tucker", "separable"),
    "skip": ("linear", "identity", "gate", "none"),
    "channel_mlp_skip": ("linear", "identity", "gate", "none"),
    "norm": ("none", "instance", "group"),
}


@dataclass(frozen=True)
class FNOConfig:
    """Architecture of an FNO.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    modes: tuple[int, ...] = (24,)
    """Wavenumbers kept, per axis or one number for all: 24 keeps -12..11, on the last axis 0..12, the paper's
    k_max = 12. Grids need as many nodes per axis, bounded ones fewer by the padding."""
    width: int = 32
    """Channels inside."""
    layers: int = 4
    """Fourier layers, T."""
    padding: float = 1 / 6
    """Length of the extension of bounded axes, as a fraction of the domain's."""
    weights: SpectralWeights = "dense"
    """Spectral weights: dense, tucker or separable."""
    rank: float = 0.1
    """Parameters of Tucker weights as a fraction of dense ones."""
    skip: Skip = "linear"
    """W: linear, identity, gate (one factor per channel) or none."""
    activation: bool = True
    """GELU between the layers; without, the operator is linear but for Q (for ablations)."""
    channel_mlp: float = 0.0
    """Hidden width of each layer's channel MLP in units of the width; 0 leaves it out."""
    channel_mlp_skip: Skip = "gate"
    """W', as skip."""
    norm: Norm = "none"
    """Of K v and of the channel MLP's result: none, instance or group (all channels together)."""
    lifting_width: int = 0
    """Hidden channels of the lifting P; 0 makes it linear."""
    projection_width: int = 128
    """Hidden channels of the projection Q."""
    coordinates: bool = True
    """Append the coordinates to the input: x_j = j / s on periodic axes, j / (s - 1) on bounded ones."""

    def __post_init__(self) -> None:
        for name in ("width", "layers", "projection_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"FNO {name}={getattr(self, name)}: it must be at least 1")
        for name in ("channel_mlp", "lifting_width"):
            if getattr(self, name) < 0:
                raise ConfigError(f"FNO {name}={getattr(self, name)}: it must not be negative")
        if not 1 <= len(self.modes) <= 3 or min(self.modes) < 1:
            raise ConfigError(
                f"FNO modes={self.modes}: give one positive number for all axes, or one for each of 1 to 3"
            )
        if not 0 <= self.padding <= 1:
            raise ConfigError(f"FNO padding={self.padding}: choose a fraction from 0 to 1")
        if not 0 < self.rank <= 1:
            raise ConfigError(f"FNO rank={self.rank}: choose a fraction above 0, at most 1")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"FNO {name}={getattr(self, name)!r}: choose {', '.join(choices)}")


class FunctionNorm(nn.Module):
    """Normalise a function by its mean and deviation over the nodes, and over channels for ``group``.

    Those of the extension of bounded axes are counted too; ``group`` has learned factors and shifts, as
    `torch.nn.GroupNorm` with one group.
    """

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.group = norm == "group"
        if self.group:
            self.weight = nn.Parameter(torch.ones(width))
            self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, v: Tensor) -> Tensor:
        """Normalise v, shape (B, *space, width)."""
        axes = tuple(range(1, v.ndim if self.group else v.ndim - 1))
        variance, mean = torch.var_mean(v, axes, correction=0, keepdim=True)
        v = (v - mean) * torch.rsqrt(variance + EPSILON)
        return v * self.weight + self.bias if self.group else v


class SkipConnection(nn.Module):
    """W: a matrix (``linear``), one factor per channel (``gate``), one or zero."""

    def __init__(self, kind: Skip, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "linear":
            self.weight = nn.Parameter(nn.Linear(width, width, bias=False).weight.detach())
        elif kind == "gate":
            self.weight = nn.Parameter(torch.ones(width))

    def forward(self, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W v + bias in memory of its own, v of shape (..., width)."""
        if self.kind == "linear":
            return linear(v, self.weight, bias)
        if self.kind == "gate":
            return v * self.weight if bias is None else torch.addcmul(bias, v, self.weight)
        v = torch.zeros_like(v) if self.kind == "none" else v
        return v.clone() if bias is None else v + bias

    def own(self, v: Tensor, bias: Tensor | None) -> Tensor:
        """Return W v + bias in memory that no hook has seen, either."""
        result = self(v, bias)
        return result.clone() if watched(self) else result


class PointwiseMLP(nn.Sequential):
    """Two matrices with an activation between them, at every point."""

    def __init__(self, into: int, hidden: int, out: int) -> None:
        super().__init__(nn.Linear(into, hidden), GELU(), nn.Linear(hidden, out))

    @property
    def numbers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both matrices, each with its bias."""
        first, second = cast("list[nn.Linear]", [self[0], self[2]])
        return first.weight, first.bias, second.weight, second.bias

    def forward(self, v: Tensor, activate: bool = False, start: Tensor | None = None) -> Tensor:
        """Apply it to v, to the activation of v on demand, with ``start`` in place of the last bias."""
        if any(map(watched, self)):
            # Hooks may renew what the parts have, as those of pruning do.
            result = super().forward(gelu(v) if activate else v)
            return result if start is None else start + (result - self.numbers[-1])
        first, bias, second, last = self.numbers
        return pointwise_mlp(v, first, bias, second, last if start is None else start, activate)


class FourierLayer(nn.Module):
    """One layer L without the activation at its end, and with that of the layer before: what is between two layers is
    the argument of an activation.
    """

    def __init__(self, config: FNOConfig, fourier: TruncatedFourier, first: bool, last: bool) -> None:
        super().__init__()
        width = config.width
        self.activate_given = config.activation and not first
        self.activate = config.activation and not last
        self.spectral = SpectralConv(
            width, fourier.modes, fourier.periodic, fourier.padding, config.weights, config.rank
        )
        self.skip = SkipConnection(config.skip, width)
        hidden = max(1, round(config.channel_mlp * width)) if config.channel_mlp else 0
        self.mlp = PointwiseMLP(width, hidden, width) if hidden else None
        self.mlp_skip = SkipConnection(config.channel_mlp_skip, width) if hidden else None
        count = 0 if config.norm == "none" else 2 if hidden else 1
        self.norms = nn.ModuleList(FunctionNorm(width, config.norm) for _ in range(count))
        self.together = (
            config.skip == "linear"
            and (not hidden or config.channel_mlp_skip == "gate")
            and config.weights != "separable"
            and not count
        )
        """Whether `branches` finds all that the layer makes of its argument."""

    def forward(self, x: Tensor, space: tuple[int, ...], overwrite: bool = False) -> Tensor:
        """Apply the layer to x, shape (B, *extended, width), of a domain with ``space`` nodes per axis.

        With ``overwrite`` x is not used again.
        """
        # The biases are put where something is added anyway.
        inner = None if self.norms else self.spectral.bias
        outer = None if self.mlp is None else self.mlp.numbers[-1]
        skips = [skip for skip in (self.skip, self.mlp_skip) if skip is not None]
        if self.together and inner is not None and not any(map(watched, skips)):
            gate = None if self.mlp_skip is None else self.mlp_skip.weight
            transform = self.spectral.fourier, space
            coefficients, skipped, start = branches(
                x, self.skip.weight, inner, gate, outer, transform, self.activate_given, overwrite
            )
            result = self.spectral(coefficients, space, skipped, analysed=True)
        else:
            v = x
            if self.activate_given:
                v = gelu_in_place(x) if overwrite else gelu(x)
            skipped = self.skip.own(v, inner)
            start = None if self.mlp_skip is None else self.mlp_skip.own(v, outer)
            if self.norms:
                result = skipped.add_(self.norms[0](self.spectral(v, space)))
            else:
                result = self.spectral(v, space, skipped)
        if self.mlp is not None:
            result = self.mlp(result, self.activate, start)
            result = self.norms[1](result) if self.norms else result
        return result


@operator_registry.register("fno")
class FNO(Operator):
    """Fourier neural operator between functions on a box, at any resolution.

    Physical values go in and come out: scalar normalisers, one mean and deviation per channel, are
    part of the model. Grid coordinates are appended to the input inside.

    Parameters
    ----------
    in_channels, out_channels : int
        Of the input and of the output function.
    periodic : tuple of bool
        Which axes are periodic.
    config : FNOConfig, optional
    **overrides
        Fields of `FNOConfig` to replace.

    Raises
    ------
    ConfigError
        From ``forward``, if the input's channels or axes do not fit or its grid is too coarse.

    Examples
    --------
    >>> model = FNO(modes=(8, 8), width=8)
    >>> model(torch.zeros(2, 17, 33, 1)).shape
    torch.Size([2, 17, 33, 1])
    """

    config_type = FNOConfig
    config: FNOConfig

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        periodic: tuple[bool, ...] = (False, False),
        config: FNOConfig | None = None,
        **overrides: object,
    ) -> None:
        super().__init__(in_channels, out_channels, periodic, config, **overrides)
        config = self.config
        modes = config.modes * len(periodic) if len(config.modes) == 1 else config.modes
        if len(modes) != len(periodic):
            raise ConfigError(
                f"FNO modes={modes}: give one number for all axes, or one for each of {len(periodic)}"
            )
        self.fourier = TruncatedFourier(modes, tuple(periodic), config.padding)
        width, hidden = config.width, config.lifting_width
        into = in_channels + len(modes) * config.coordinates
        self.lifting = PointwiseMLP(into, hidden, width) if hidden else nn.Linear(into, width)
        self.layers = nn.ModuleList(
            FourierLayer(config, self.fourier, first=layer == 0, last=layer == config.layers - 1)
            for layer in range(config.layers)
        )
        self.projection = PointwiseMLP(width, config.projection_width, out_channels)

    def check_resolution(self, space: tuple[int, ...]) -> None:
        """Raise `ConfigError` if a grid is too coarse for the model's wavenumbers."""
        self.fourier.check_resolution(space)

    def map_normalised(self, a: Tensor) -> Tensor:
        """Map normalised input functions to normalised output functions, both channels last."""
        # An exported or compiled program must hold for batches of any length.
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or a.device.type != "cpu":
            return self._map(a)
        parts = min(len(a), math.ceil(math.prod(a.shape[:-1]) * self.config.width / LARGEST))
        return torch.cat([self._map(part) for part in a.tensor_split(max(1, parts))])

    def _map(self, a: Tensor) -> Tensor:
        space = tuple(a.shape[1:-1])
        v = with_coordinates(a, self.periodic) if self.config.coordinates else a
        v = self.lifting(v)
        extended = self.fourier.extended(space)
        if extended != space:
            ends = [n - m for n, m in zip(extended, space, strict=True)]
            v = pad(v, (0, 0, *(end for n in reversed(ends) for end in (0, n))))
        layers = cast("list[FourierLayer]", list(self.layers))
        if not watched(self.lifting) and sweepable(v, layers):
            v = sweep(v, layers, space)
        else:
            # Hooks may keep what the next layer would overwrite.
            kept = watched(self.lifting)
            for layer in layers:
                kept, before = watched(layer), kept
                v = layer(v, space, overwrite=not (before or kept))
        for axis, n in enumerate(space):
            if n != extended[axis]:
                v = v.narrow(axis + 1, 0, n)
        return self.projection(v)
