"""Neural operators: maps between functions, at any resolution; solvers as differentiable layers."""

from .base import Operator, operator_registry
from .deeponet import DeepONet, DeepONetConfig
from .differentiable import DifferentiableSolve
from .export import export_onnx
from .fno import FNO, FNOConfig
from .legacy import from_legacy
from .spectral import SpectralConv
from .unet import UNet, UNetConfig

__all__ = [
    "FNO",
    "DeepONet",
    "DeepONetConfig",
    "DifferentiableSolve",
    "FNOConfig",
    "Operator",
    "SpectralConv",
    "UNet",
    "UNetConfig",
    "export_onnx",
    "from_legacy",
    "operator_registry",
]
