"""Numerical core: grids, domains, and solvers for partial differential equations. No torch."""

from .boundary import BoundaryCondition, Dirichlet, Mixed, Neumann, Robin, WithNormal
from .domains import Domain, domain_registry
from .elliptic import EllipticSolver, solve
from .functions import Expression
from .grid import CartesianGrid
from .implicit import Ball, Cuboid, Ellipsoid, LevelSet, Torus
from .operators import DifferentialOperator, DivAGrad, EllipticOperator, Laplacian
from .plane import Annulus, Box, Disk, Ellipse, Parametric, Polygon, Spline, Star
from .plg import PLG
from .problems import EllipticProblem, Poisson, manufactured, problem_registry
from .solution import Solution

__all__ = [
    "PLG",
    "Annulus",
    "Ball",
    "BoundaryCondition",
    "Box",
    "CartesianGrid",
    "Cuboid",
    "DifferentialOperator",
    "Dirichlet",
    "Disk",
    "DivAGrad",
    "Domain",
    "Ellipse",
    "Ellipsoid",
    "EllipticOperator",
    "EllipticProblem",
    "EllipticSolver",
    "Expression",
    "Laplacian",
    "LevelSet",
    "Mixed",
    "Neumann",
    "Parametric",
    "Poisson",
    "Polygon",
    "Robin",
    "Solution",
    "Spline",
    "Star",
    "Torus",
    "WithNormal",
    "domain_registry",
    "manufactured",
    "problem_registry",
    "solve",
]
