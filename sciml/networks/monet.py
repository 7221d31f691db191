"""MONet, an image classifier without activations, in its multi-stage form.

Sizes of the presets reproduce the published counts: 10,339,436 (T) and 32,880,688 (S) numbers.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from sciml.errors import ConfigError, DatasetFormatError
from sciml.operators.storage import load_tensors, save_tensors
from sciml.provenance import jsonable

from .mu_layer import RATIO, PolyBlock
from .shift import SpatialShift

__all__ = ["MONET_S", "MONET_T", "MONet", "MONetConfig"]


@dataclass(frozen=True)
class MONetConfig:
    """Architecture of a `MONet`; the defaults are the published MONet-T.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    depths: tuple[int, ...] = (4, 8, 12, 10)
    """Blocks of each stage."""
    widths: tuple[int, ...] = (64, 128, 192, 192)
    """Channels of each stage; between two a convolution halves the grid."""
    expansion: int = 3
    """Hidden size of a block's second layer over its channels."""
    rank_ratio: int = RATIO
    """Hidden sizes over the ranks of the products."""
    patches: tuple[int, ...] = (2, 2)
    """Strides of the convolutions, without overlap, that make tokens of an image."""
    pyramid: bool = False
    """Add an embedding of the image at the token's own scale, times a learned number, to that through all steps."""
    shift: bool = True
    """Without it tokens see each other only in the convolutions and the mean."""
    norm: Literal["layer", "batch", "none"] = "layer"
    """Of the blocks and their layers."""
    drop_path: float = 0.0
    """Probability, in the last block, that a training sample skips a layer; it grows from 0 in the first one."""

    def __post_init__(self) -> None:
        if not self.depths or len(self.depths) != len(self.widths):
            raise ConfigError(
                f"MONet depths={self.depths}, widths={self.widths}: give one number of each for every stage"
            )
        for name in ("depths", "widths", "patches"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ConfigError(f"MONet {name}={getattr(self, name)}: all must be at least 1")
        if self.norm not in ("layer", "batch", "none"):
            raise ConfigError(f"MONet norm={self.norm!r}: choose layer, batch or none")
        if self.pyramid and len(self.patches) < 2:
            raise ConfigError(f"MONet pyramid=True, patches={self.patches}: it needs two steps at least")


CUT = 0.87962566103423978
"""Deviation of a standard normal number between -2 and 2."""
MONET_T = MONetConfig()
MONET_S = MONetConfig(depths=(4, 6, 12, 14), widths=(128, 192, 256, 384))


class MONet(nn.Module):
    """Classifier of images: an embedding in small steps, stages of `PolyBlock`, the mean over tokens, a linear map.

    Values in [0, 1] become (x - 0.5) / 0.5 first. The linear map starts at zero, convolutions as LeCun's.

    Parameters
    ----------
    in_channels, classes : int
    config : MONetConfig, optional
    **overrides
        Fields of it to replace.

    Raises
    ------
    ConfigError
        If an argument is out of its range, or an image has the wrong channels or is too small.

    Examples
    --------
    >>> model = MONet(1, 10, depths=(2,), widths=(32,), patches=(2,))
    >>> model(torch.rand(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self, in_channels: int = 3, classes: int = 1000, config: MONetConfig | None = None, **overrides: Any
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("classes", classes)):
            if value < 1:
                raise ConfigError(f"MONet {name}={value}: it must be at least 1")
        self.in_channels, self.classes = in_channels, classes
        self.config = replace(config or MONET_T, **overrides)
        config = self.config
        width = config.widths[0]
        inputs = (in_channels, *[width] * (len(config.patches) - 1))
        self.embedding = nn.ModuleList(
            nn.Conv2d(channels, width, patch, patch)
            for channels, patch in zip(inputs, config.patches, strict=True)
        )
        self.coarse: nn.Conv2d | None = None
        if config.pyramid:
            patch = int(np.prod(config.patches))
            self.coarse = nn.Conv2d(in_channels, width, patch, patch)
            self.coarse_scale = nn.Parameter(torch.ones(()))
        shift = SpatialShift(2) if config.shift else None
        rates = iter(np.linspace(0, config.drop_path, sum(config.depths)).tolist())
        self.stages = nn.ModuleList(
            nn.ModuleList(
                PolyBlock(
                    width,
                    config.expansion,
                    rank_ratio=config.rank_ratio,
                    norm=None if config.norm == "none" else config.norm,
                    shift=shift,
                    drop_path=next(rates),
                )
                for _ in range(depth)
            )
            for depth, width in zip(config.depths, config.widths, strict=True)
        )
        self.transitions = nn.ModuleList(
            nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(config.widths[:-1], config.widths[1:], strict=True)
        )
        self.head = nn.Linear(config.widths[-1], classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                # Cut at two deviations, of which it takes a part.
                std = fan_in**-0.5 / CUT
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels, height, width) to logits (B, classes)."""
        # The last stage's shift needs two tokens along each axis.
        smallest = int(np.prod(self.config.patches))
        if self.config.shift:
            smallest *= 2 ** (len(self.config.depths) - 1) + 1
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(x.shape[2:]) < smallest:
            raise ConfigError(
                f"MONet input of shape {tuple(x.shape)}: expected (batch, {self.in_channels}, height, width), both at "
                f"least {smallest}"
            )
        image = z = (x - 0.5) / 0.5
        for convolution in self.embedding:
            z = convolution(z)
        if self.coarse is not None:
            z = z + self.coarse_scale * self.coarse(image)
        z = z.movedim(1, -1)
        for number, stage in enumerate(self.stages):
            if number:
                z = self.transitions[number - 1](z.movedim(-1, 1)).movedim(1, -1)
            for block in stage:  # type: ignore[attr-defined]
                z = block(z)
        return self.head(z.flatten(1, 2).mean(1))

    @property
    def parameter_count(self) -> int:
        """Learned real numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def save(self, path: str | Path) -> None:
        """Write the model to one file, ``*.safetensors``, atomically."""
        header = {
            "architecture": "MONet",
            "in_channels": self.in_channels,
            "classes": self.classes,
            "config": jsonable(self.config),
        }
        save_tensors(path, self.state_dict(), "classifier", header)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model from its file, ready to be evaluated.

        Raises
        ------
        DatasetFormatError
            If the file is missing, damaged, or of another architecture or version.
        """
        tensors, header = load_tensors(path, "classifier")
        try:
            known = {setting.name for setting in fields(MONetConfig)}
            values: dict[str, Any] = {
                n: tuple(v) if isinstance(v, list) else v for n, v in header["config"].items()
            }
            if header["architecture"] != "MONet" or not set(values) <= known:
                raise ConfigError("another architecture, or settings that this sciml does not know")
            model = cls(header["in_channels"], header["classes"], MONetConfig(**values))
            model.load_state_dict(tensors)
        except (TypeError, KeyError, RuntimeError, ConfigError) as error:
            raise DatasetFormatError(f"{str(path)!r} is not a MONet's file ({error}): restore it") from error
        return model.eval()
