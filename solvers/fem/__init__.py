"""Finite elements: adaptive ones on triangles; incompressible solids and fluids on mapped quadrilaterals."""

from .adaptive import AdaptiveStep, solve_adaptively
from .elliptic import FEMProblem, Galerkin, solve_fem
from .estimators import estimate
from .exchange import read_mesh, to_skfem, write_mesh
from .lagrange import FEFunction, Lagrange
from .marking import mark_doerfler, mark_fraction, mark_maximum
from .mesh import TriMesh, l_shape, rectangle
from .mixed import HyperElasticity, IncompressibleFlow, MixedProblem, solve_mixed
from .quad_domains import channel, square_with_void
from .quad_fields import MixedSolution
from .quads import QuadMesh

__all__ = [
    "AdaptiveStep",
    "FEFunction",
    "FEMProblem",
    "Galerkin",
    "HyperElasticity",
    "IncompressibleFlow",
    "Lagrange",
    "MixedProblem",
    "MixedSolution",
    "QuadMesh",
    "TriMesh",
    "channel",
    "estimate",
    "l_shape",
    "mark_doerfler",
    "mark_fraction",
    "mark_maximum",
    "read_mesh",
    "rectangle",
    "solve_adaptively",
    "solve_fem",
    "solve_mixed",
    "square_with_void",
    "to_skfem",
    "write_mesh",
]
