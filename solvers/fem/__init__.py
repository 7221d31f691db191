"""Adaptive finite elements on triangles."""

from .adaptive import AdaptiveStep, solve_adaptively
from .elliptic import FEMProblem, Galerkin, solve_fem
from .estimators import estimate
from .exchange import read_mesh, to_skfem, write_mesh
from .lagrange import FEFunction, Lagrange
from .marking import mark_doerfler, mark_fraction, mark_maximum
from .mesh import TriMesh, l_shape, rectangle

__all__ = [
    "AdaptiveStep",
    "FEFunction",
    "FEMProblem",
    "Galerkin",
    "Lagrange",
    "TriMesh",
    "estimate",
    "l_shape",
    "mark_doerfler",
    "mark_fraction",
    "mark_maximum",
    "read_mesh",
    "rectangle",
    "solve_adaptively",
    "solve_fem",
    "to_skfem",
    "write_mesh",
]
