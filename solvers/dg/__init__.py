"""Discontinuous Galerkin methods on binary trees and quadtrees."""

from .advection import AdvectionProblem, DGAdvection, advect, solve_advection
from .diffusion import DGDiffusion, DiffusionProblem, solve_diffusion
from .fields import TreeFunction
from .indicators import Jumps, advection_jumps, diffusion_jumps
from .tree import TreeMesh

__all__ = [
    "AdvectionProblem",
    "DGAdvection",
    "DGDiffusion",
    "DiffusionProblem",
    "Jumps",
    "TreeFunction",
    "TreeMesh",
    "advect",
    "advection_jumps",
    "diffusion_jumps",
    "solve_advection",
    "solve_diffusion",
]
