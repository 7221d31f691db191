"""Numerical core: grids, domains, and solvers for partial differential equations. No torch."""

from .boundary import BoundaryCondition, Dirichlet, Mixed, Neumann, Robin, WithNormal
from .domains import Box, Disk, Domain, Star, domain_registry
from .elliptic import EllipticSolver, solve
from .functions import Expression
from .grid import CartesianGrid
from .operators import DivAGrad, EllipticOperator, Laplacian
from .plg import PLG
from .problems import EllipticProblem, Poisson, manufactured, problem_registry
from .solution import Solution

__all__ = [
    "PLG",
    "BoundaryCondition",
    "Box",
    "CartesianGrid",
    "Dirichlet",
    "Disk",
    "DivAGrad",
    "Domain",
    "EllipticOperator",
    "EllipticProblem",
    "EllipticSolver",
    "Expression",
    "Laplacian",
    "Mixed",
    "Neumann",
    "Poisson",
    "Robin",
    "Solution",
    "Star",
    "WithNormal",
    "domain_registry",
    "manufactured",
    "problem_registry",
    "solve",
]
