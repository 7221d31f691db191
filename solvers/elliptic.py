"""Problem and grid in, solution out."""

import time

import numpy as np

from .functions import evaluate
from .grid import CartesianGrid
from .linear import DirectSolver
from .plg import PLG
from .problems import EllipticProblem
from .solution import Solution

__all__ = ["solve"]


def solve(problem: EllipticProblem, grid: CartesianGrid, method: PLG | None = None) -> Solution:
    """Solve an elliptic problem on a Cartesian grid.

    Parameters
    ----------
    problem : EllipticProblem
    grid : CartesianGrid
        Its box must contain the domain.
    method : PLG, optional
        ``PLG()`` by default: fourth order.

    Returns
    -------
    Solution

    Raises
    ------
    GeometryError
        If the domain leaves the grid's box.
    StencilError
        If the domain is somewhere thinner than the stencil.
    ConfigError
        If the source or the boundary data are not finite.
    ConvergenceError
        If the linear system cannot be solved.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid, Star, manufactured, solve
    >>> problem = manufactured("exp(x)*sin(2*y)", Star())
    >>> solve(problem, CartesianGrid.uniform(80)).errors()["l2"] < 1e-8
    True
    """
    method = method or PLG()
    started = time.process_time()
    system = method.discretise(problem, grid)
    x = grid.coordinates(system.node_index)
    rhs = evaluate(problem.source, x, "source")
    rhs -= system.boundary_matrix @ problem.boundary.data(system.boundary_points)
    solver = DirectSolver(system.matrix)
    unknowns = solver.solve(rhs)
    values = np.full(grid.shape, np.nan)
    values[tuple(system.node_index.T)] = unknowns
    info = {
        "method": repr(method),
        **system.info,
        "residual": float(np.abs(system.matrix @ unknowns - rhs).max() / max(np.abs(rhs).max(), 1e-300)),
        "cpu_seconds": time.process_time() - started,
    }
    return Solution(problem, grid, values, info)
