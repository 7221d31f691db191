"""Dynamics as objects: vector fields given or learned, drifts with diffusions, and the integrators that run them."""

from .fields import DriftDiffusion, VectorField, integrate_field, integrate_sde
from .models import LearnedField, NeuralODE, PolynomialODE, StencilODE
from .rollout import roll_out
from .shooting import Segments, Shooting, ShootingState, levenberg_marquardt, segments

__all__ = [
    "DriftDiffusion",
    "LearnedField",
    "NeuralODE",
    "PolynomialODE",
    "Segments",
    "Shooting",
    "ShootingState",
    "StencilODE",
    "VectorField",
    "integrate_field",
    "integrate_sde",
    "levenberg_marquardt",
    "roll_out",
    "segments",
]
