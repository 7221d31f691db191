"""Neural operators: maps between functions, at any resolution; solvers as differentiable layers."""

from .base import Operator, operator_registry
from .cloud_baselines import InterpolatedFNO, InterpolatedFNOConfig, PointMLP, PointMLPConfig
from .clouds import CloudOperator, cloud
from .deeponet import DeepONet, DeepONetConfig
from .denoiser import Denoiser, DenoiserConfig
from .differentiable import DifferentiableSolve
from .export import export_onnx
from .fno import FNO, FNOConfig
from .geofno import GeoFNO, GeoFNOConfig
from .legacy import from_legacy
from .nonuniform import NonuniformFourier
from .spectral import SpectralConv
from .unet import UNet, UNetConfig

__all__ = [
    "FNO",
    "CloudOperator",
    "DeepONet",
    "DeepONetConfig",
    "Denoiser",
    "DenoiserConfig",
    "DifferentiableSolve",
    "FNOConfig",
    "GeoFNO",
    "GeoFNOConfig",
    "InterpolatedFNO",
    "InterpolatedFNOConfig",
    "NonuniformFourier",
    "Operator",
    "PointMLP",
    "PointMLPConfig",
    "SpectralConv",
    "UNet",
    "UNetConfig",
    "cloud",
    "export_onnx",
    "from_legacy",
    "operator_registry",
]
