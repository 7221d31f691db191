"""Dynamics as objects: vector fields, drifts with diffusions, and the integrators that run them."""

from .fields import DriftDiffusion, VectorField, integrate_field, integrate_sde

__all__ = ["DriftDiffusion", "VectorField", "integrate_field", "integrate_sde"]
