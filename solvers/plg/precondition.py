"""A preconditioner for PLG matrices: a solve with the boundary block, then multigrid of a low-order matrix.

The matrix of a PLG discretisation is a central stencil at regular nodes, which the low-order matrix
on the same nodes represents well, and wide local fits at the irregular ones, which it does not. So
the irregular rows and columns are solved as a block of their own before one V-cycle of algebraic
multigrid for the low-order matrix: the iteration count does not grow with the grid. A second block
solve after the cycle would change nothing for a Krylov method: solving twice with the block, at the end
of one iteration and at the beginning of the next, is solving once.
"""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from ..boundary import BoundaryCondition
from ..grid import CartesianGrid
from ..operators import EllipticOperator

if TYPE_CHECKING:
    from .discretise import LinearSystem

__all__ = ["BoundaryBlockMultigrid", "low_order_matrix", "precondition"]


def low_order_matrix(
    operator: EllipticOperator, grid: CartesianGrid, node_index: np.ndarray, known: np.ndarray
) -> sp.csr_array:
    """Return a second-order finite difference matrix of the operator on given nodes.

    Cross derivatives use the diagonals that keep off-diagonal entries of one sign as far as the
    coefficients allow; first derivatives are upwind.

    Parameters
    ----------
    operator : EllipticOperator
    grid : CartesianGrid
    node_index : ndarray of int, shape (m, D)
        Grid indices of the unknowns.
    known : ndarray, shape (m,)
        How far a neighbour that is no unknown counts as a known value: 1 with Dirichlet data close by,
        0 with Neumann data (no flux), h alpha with Robin data.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid, Laplacian
    >>> line = CartesianGrid((0.0,), (4.0,), (4,))
    >>> low_order_matrix(Laplacian(1), line, np.array([[1], [2], [3]]), np.ones(3)).toarray()
    array([[-2.,  1.,  0.],
           [ 1., -2.,  1.],
           [ 0.,  1., -2.]])
    """
    m, dim = node_index.shape
    h = np.asarray(grid.spacing)
    second, first, zeroth = operator.coefficients(grid.coordinates(node_index))
    second = second / np.multiply.outer(h, h)
    first = first / h
    axial = np.einsum("mii->mi", second).copy()
    directions: list[tuple[np.ndarray, np.ndarray]] = []
    for i in range(dim):
        for j in range(i):
            if second[:, i, j].any():
                for sign in (1, -1):
                    strength = np.maximum(sign * second[:, i, j], 0.0)
                    # A quarter of the axial coefficients must remain, or the matrix loses ellipticity.
                    strength = np.minimum(
                        strength, 0.75 * np.minimum(second[:, i, i], second[:, j, j]) / (dim - 1)
                    )
                    axial[:, [i, j]] -= strength[:, None]
                    directions += [
                        (side * (np.eye(dim, dtype=int)[i] + sign * np.eye(dim, dtype=int)[j]), strength)
                        for side in (1, -1)
                    ]
    for i in range(dim):
        unit = np.eye(dim, dtype=int)[i]
        directions.append((unit, axial[:, i] + np.maximum(first[:, i], 0.0)))
        directions.append((-unit, axial[:, i] + np.maximum(-first[:, i], 0.0)))
    number = np.full(np.add(grid.shape, 2), -1, dtype=np.int32)
    number[tuple(node_index.T + 1)] = np.arange(m)
    rows, columns, values = [np.arange(m)], [np.arange(m)], [zeroth]
    for offset, strength in directions:
        neighbour = number[tuple((node_index + offset + 1).T)]
        present = neighbour >= 0
        rows.append(np.flatnonzero(present))
        columns.append(neighbour[present])
        values.append(strength[present])
        values[0] = values[0] - strength * np.where(present, 1.0, known)
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sp.coo_array(entries, shape=(m, m)).tocsr()


def precondition(
    system: "LinearSystem",
    operator: EllipticOperator,
    boundary: BoundaryCondition,
    grid: CartesianGrid,
    identity: float = 0.0,
    factor: float = 1.0,
) -> "BoundaryBlockMultigrid":
    """Build a preconditioner of identity * I + factor * A for the matrix A of a discretised problem.

    Examples
    --------
    >>> from sciml.solvers import PLG, Disk, Dirichlet, Laplacian, Poisson
    >>> problem, grid = Poisson(Disk(), 0.0), CartesianGrid.uniform(40)
    >>> system = PLG().discretise(problem, grid)
    >>> m = precondition(system, problem.operator, problem.boundary, grid)
    >>> u = np.ones(len(system.node_index))
    >>> bool(np.linalg.norm(m(system.matrix @ u) - u) < 0.3 * np.linalg.norm(u))
    True
    """
    known = np.zeros(len(system.node_index))
    feet = system.boundary_points[np.arange(len(system.irregular))]
    constant, h = np.zeros((1, grid.dim), dtype=int), np.asarray(grid.spacing)
    on_constants = boundary.rows(np.zeros_like(feet.points), feet, constant, h)[:, 0]
    known[system.irregular] = np.clip(on_constants, 0.0, 1.0)
    low_order = low_order_matrix(operator, grid, system.node_index, known)
    if not known.any() and identity == 0.0:
        # A singular coarsest grid would blow up constants and cost digits.
        extent = float(np.subtract(grid.upper, grid.lower).max())
        second = operator.coefficients(grid.coordinates(system.node_index[:1]))[0]
        low_order -= 0.1 * float(np.trace(second[0])) / extent**2 * sp.eye_array(len(known))
    matrix = system.matrix
    if identity != 0.0 or factor != 1.0:
        unit = identity * sp.eye_array(len(known), format="csr")
        matrix, low_order = unit + factor * matrix, unit + factor * low_order
    return BoundaryBlockMultigrid(matrix, low_order, system.irregular, exact=grid.dim < 3)


class BoundaryBlockMultigrid:
    """Block solve, then a V-cycle on the residual that it leaves.

    Parameters
    ----------
    matrix : csr_array, shape (m, m)
        A.
    low_order : csr_array, shape (m, m)
        A second-order matrix on the same nodes, with a diagonal of one sign.
    irregular : ndarray of int
        Rows that are local fits.
    exact : bool
        Factor their block: cheap on the curves of 2D, where it has the bandwidth of a few nodes, but
        not on the surfaces of 3D. Two symmetric Gauss-Seidel sweeps do as well for matrices with the
        strong diagonal of weights from p = 1 on.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> a = sp.csr_array(-2.0 * np.eye(5) + np.eye(5, k=1) + np.eye(5, k=-1))
    >>> m = BoundaryBlockMultigrid(a, a, np.array([0, 4]))
    >>> m(a @ np.ones(5)).round(12).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(
        self, matrix: sp.csr_array, low_order: sp.csr_array, irregular: np.ndarray, exact: bool = True
    ) -> None:
        import pyamg

        self.matrix, self.irregular = matrix, irregular
        self.sign = float(np.sign(low_order.diagonal().sum()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sp.SparseEfficiencyWarning)
            hierarchy = pyamg.ruge_stuben_solver(sp.csr_matrix(self.sign * low_order))
        self._cycle = hierarchy.aspreconditioner()
        block = matrix[irregular][:, irregular]
        self._solve_block = _factored(block) if exact else _swept(block)

    def __call__(self, rhs: np.ndarray) -> np.ndarray:
        """Return M^-1 rhs, shape (m,)."""
        x = np.zeros_like(rhs)
        x[self.irregular] = self._solve_block(rhs[self.irregular])
        x += self.sign * self._cycle.matvec(rhs - self.matrix @ x)
        return x


def _factored(block: sp.csr_array) -> Callable[[np.ndarray], np.ndarray]:
    return splu(block.tocsc(), permc_spec="MMD_AT_PLUS_A").solve if block.shape[0] else np.copy


def _swept(block: sp.csr_array) -> Callable[[np.ndarray], np.ndarray]:
    from pyamg.relaxation.relaxation import gauss_seidel

    matrix = sp.csr_matrix(block)

    def solve(rhs: np.ndarray) -> np.ndarray:
        x = np.zeros_like(rhs)
        gauss_seidel(matrix, x, rhs, iterations=2, sweep="symmetric")
        return x

    return solve
