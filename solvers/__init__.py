"""Numerical core: grids, domains, and solvers for partial differential equations. No torch."""

from .boundary import BoundaryCondition, Dirichlet, Mixed, Neumann, Robin, WithNormal
from .domains import Domain, domain_registry
from .eigenvalues import EigenSolution, eigenvalues
from .elliptic import EllipticSolver, solve
from .evolution import Evolution, evolve
from .evolution_problems import ParabolicProblem, WaveProblem, manufactured_evolution
from .functions import Expression
from .grid import CartesianGrid
from .implicit import Ball, Cuboid, Ellipsoid, LevelSet, Torus
from .nonlinear import Reaction, manufactured_nonlinear, solve_nonlinear
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
    "EigenSolution",
    "Ellipse",
    "Ellipsoid",
    "EllipticOperator",
    "EllipticProblem",
    "EllipticSolver",
    "Evolution",
    "Expression",
    "Laplacian",
    "LevelSet",
    "Mixed",
    "Neumann",
    "ParabolicProblem",
    "Parametric",
    "Poisson",
    "Polygon",
    "Reaction",
    "Robin",
    "Solution",
    "Spline",
    "Star",
    "Torus",
    "WaveProblem",
    "WithNormal",
    "domain_registry",
    "eigenvalues",
    "evolve",
    "manufactured",
    "manufactured_evolution",
    "manufactured_nonlinear",
    "problem_registry",
    "solve",
    "solve_nonlinear",
]
