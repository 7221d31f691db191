"""Numerical core: grids, domains, and solvers for partial differential equations. No torch."""

from .boundary import Dirichlet
from .domains import Box, Disk, Domain, Star, domain_registry
from .elliptic import solve
from .functions import Expression
from .grid import CartesianGrid
from .operators import EllipticOperator, Laplacian
from .plg import PLG
from .problems import EllipticProblem, Poisson, manufactured, problem_registry
from .solution import Solution

__all__ = [
    "PLG",
    "Box",
    "CartesianGrid",
    "Dirichlet",
    "Disk",
    "Domain",
    "EllipticOperator",
    "EllipticProblem",
    "Expression",
    "Laplacian",
    "Poisson",
    "Solution",
    "Star",
    "domain_registry",
    "manufactured",
    "problem_registry",
    "solve",
]
