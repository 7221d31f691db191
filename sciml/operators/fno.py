"""The Fourier neural operator (Li et al., ICLR 2021, arXiv 2010.08895).

    u = Q o L_T o ... o L_1 o P (a),      L v = sigma(W v + b + K v)

P and Q act point by point, K is a spectral convolution; the last layer has no activation. Without
normalisation layers (they make published errors up to six times worse) and with GELU.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError

from .spectral import SpectralConv, coordinates

__all__ = ["FNO", "FNOConfig"]


@dataclass(frozen=True)
class FNOConfig:
    """Architecture of an `FNO`.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    in_channels: int = 1
    """Channels of the input function."""
    out_channels: int = 1
    """Channels of the output function."""
    modes: tuple[int, ...] = (12, 12)
    """Wavenumbers kept per axis: -m..m-1, on the last axis 0..m-1."""
    width: int = 32
    """Channels inside."""
    layers: int = 4
    """Fourier layers, T."""
    periodic: tuple[bool, ...] = field(default=(False, False))
    """Which axes are periodic."""
    padding: float = 0.125
    """Fraction of the domain by which bounded axes are continued."""
    projection_width: int = 128
    """Hidden channels of the projection Q."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "width", "layers", "projection_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"FNO {name}={getattr(self, name)}: it must be at least 1")
        if not 1 <= len(self.modes) <= 3 or min(self.modes) < 1:
            raise ConfigError(f"FNO modes={self.modes}: give one positive number for each of 1 to 3 axes")
        if len(self.periodic) != len(self.modes):
            raise ConfigError(
                f"FNO periodic={self.periodic}: give one value per axis, {len(self.modes)} in all"
            )
        if not 0 <= self.padding <= 1:
            raise ConfigError(f"FNO padding={self.padding}: choose a fraction from 0 to 1")


class FNO(nn.Module):
    """Fourier neural operator between functions on a box, at any resolution.

    Physical values go in and come out: scalar normalisers, one mean and deviation per channel, are
    part of the model. Grid coordinates are appended to the input inside.

    Parameters
    ----------
    config : FNOConfig, optional
    **overrides
        Fields of `FNOConfig`.

    Raises
    ------
    ConfigError
        From ``forward``, if the input's channels or axes do not fit or its grid is too coarse.

    Examples
    --------
    >>> model = FNO(modes=(4, 4), width=8)
    >>> model(torch.zeros(2, 17, 33, 1)).shape
    torch.Size([2, 17, 33, 1])
    """

    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor

    def __init__(self, config: FNOConfig | None = None, **overrides: object) -> None:
        super().__init__()
        if config is None:
            config = FNOConfig(**overrides)  # type: ignore[arg-type]
        self.config = config
        width, dim = config.width, len(config.modes)
        for part, channels in (("input", config.in_channels), ("output", config.out_channels)):
            self.register_buffer(f"{part}_mean", torch.zeros(channels))
            self.register_buffer(f"{part}_std", torch.ones(channels))
        self.lifting = nn.Linear(config.in_channels + dim, width)
        self.spectral = nn.ModuleList(
            SpectralConv(width, config.modes, config.periodic, config.padding) for _ in range(config.layers)
        )
        self.pointwise = nn.ModuleList(nn.Linear(width, width) for _ in range(config.layers))
        self.projection = nn.Sequential(
            nn.Linear(width, config.projection_width),
            nn.GELU(),
            nn.Linear(config.projection_width, config.out_channels),
        )

    def set_normalisers(self, inputs: Tensor, outputs: Tensor) -> None:
        """Set mean and deviation per channel from training data of shape (..., channels)."""
        for part, values in (("input", inputs), ("output", outputs)):
            flat = values.reshape(-1, values.shape[-1]).double()
            getattr(self, f"{part}_mean").copy_(flat.mean(0))
            deviation = flat.std(0)
            getattr(self, f"{part}_std").copy_(torch.where(deviation > 0, deviation, 1.0))

    def forward(self, a: Tensor) -> Tensor:
        """Map input functions (B, *space, in_channels) to output functions (B, *space, out_channels)."""
        config = self.config
        if a.ndim != len(config.modes) + 2 or a.shape[-1] != config.in_channels:
            raise ConfigError(
                f"FNO input of shape {tuple(a.shape)}: expected (batch, {len(config.modes)} axes, "
                f"{config.in_channels} channels)"
            )
        space = a.shape[1:-1]
        axes = [coordinates(n, p).to(a) for n, p in zip(space, config.periodic, strict=True)]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).expand(
            a.shape[0], *space, len(space)
        )
        v = self.lifting(torch.cat([(a - self.input_mean) / self.input_std, grid], dim=-1))
        for layer, (spectral, pointwise) in enumerate(zip(self.spectral, self.pointwise, strict=True)):
            v = spectral(v) + pointwise(v)
            if layer < config.layers - 1:
                v = nn.functional.gelu(v)
        return self.projection(v) * self.output_std + self.output_mean
