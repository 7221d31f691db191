"""Neural operators: maps between functions, at any resolution."""

from .fno import FNO, FNOConfig
from .spectral import SpectralConv

__all__ = ["FNO", "FNOConfig", "SpectralConv"]
