"""Neural operators: maps between functions, at any resolution; solvers as differentiable layers."""

from .differentiable import DifferentiableSolve
from .fno import FNO, FNOConfig
from .spectral import SpectralConv

__all__ = ["FNO", "DifferentiableSolve", "FNOConfig", "SpectralConv"]
