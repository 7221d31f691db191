"""Neural operators: maps between functions, at any resolution; solvers as differentiable layers."""

from .differentiable import DifferentiableSolve
from .fno import FNO, FNOConfig
from .legacy import from_legacy
from .spectral import SpectralConv

__all__ = ["FNO", "DifferentiableSolve", "FNOConfig", "SpectralConv", "from_legacy"]
