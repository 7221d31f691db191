"""Problem and grid in, solution out."""

import time

import numpy as np
import scipy.sparse as sp

from sciml.errors import ConfigError

from .functions import evaluate
from .grid import CartesianGrid
from .linear import DirectSolver
from .plg import PLG
from .problems import EllipticProblem
from .solution import Solution

__all__ = ["solve"]

COMPATIBILITY = 0.02  # of the mean of |f - G g|: above the discretisation error of usable grids


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
        With pure Neumann data and no zeroth-order term the solution of mean zero over the unknowns;
        ``info["compatibility_defect"]`` is the constant that had to be taken off the source to make a
        solution exist, of the size of the discretisation error if the data are compatible.

    Raises
    ------
    GeometryError
        If the domain leaves the grid's box.
    StencilError
        If the domain is somewhere thinner than the stencil.
    ConfigError
        If the source or the boundary data are not finite, or pure Neumann data are incompatible with
        the source.
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
    defect = 0.0
    if problem.determined_up_to_constants:
        unknowns, defect = _zero_mean(system.matrix, rhs)
        rhs -= defect
    else:
        unknowns = DirectSolver(system.matrix).solve(rhs)
    values = np.full(grid.shape, np.nan)
    values[tuple(system.node_index.T)] = unknowns
    info = {
        "method": repr(method),
        **system.info,
        "compatibility_defect": defect,
        "residual": _relative(system.matrix @ unknowns - rhs, rhs),
        "cpu_seconds": time.process_time() - started,
    }
    return Solution(problem, grid, values, info)


def _relative(residual: np.ndarray, rhs: np.ndarray) -> float:
    scale = float(np.abs(rhs).max())
    return float(np.abs(residual).max()) / (scale or 1.0)


def _zero_mean(matrix: sp.csr_array, rhs: np.ndarray) -> tuple[np.ndarray, float]:
    """Solve A u = rhs - c with A 1 = 0 for u of mean zero and the constant c.

    With u = 0 at the first node, whose row and column are left out, u = v - c w; the first row then
    gives c. One factorisation, no dense row.
    """
    reduced = DirectSolver(matrix[1:, 1:])
    v, w = reduced.solve(rhs[1:]), reduced.solve(np.ones(len(rhs) - 1))
    row = matrix[[0], 1:]
    c = float((rhs[0] - (row @ v)[0]) / (1.0 - (row @ w)[0]))
    scale = float(np.mean(np.abs(rhs)))
    if abs(c) > COMPATIBILITY * scale:
        raise ConfigError(
            f"pure Neumann data are incompatible: the source exceeds the boundary flux by {c:.3g} on average "
            f"({abs(c) / scale:.0%} of the data's size); subtract it from the source, or correct the data"
        )
    u = np.concatenate([[0.0], v - c * w])
    return u - u.mean(), c
