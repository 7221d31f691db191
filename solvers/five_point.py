"""The five-point scheme for -div(a grad u) = f on a rectangle, u = 0 on its boundary.

Second-order finite differences on the nodes of a Cartesian grid, the coefficient averaged
arithmetically onto the faces between them: the discretisation of the Darcy benchmark of
arXiv 2010.08895. Solved by conjugate gradients preconditioned with the fast sine transform of the
constant-coefficient operator: the iteration count depends on the contrast of a, not on the grid.
"""

import numpy as np
import scipy.sparse as sp
from scipy.fft import dstn

from sciml.errors import ConfigError

from .grid import CartesianGrid
from .linear import conjugate_gradient

__all__ = ["FivePoint"]


class FivePoint:
    """The discrete operator u -> -div(a grad u) on the inner nodes of a 2D grid.

    Parameters
    ----------
    coefficient : ndarray, shape grid.shape
        a at the nodes, positive.
    grid : CartesianGrid
        Two-dimensional, bounded.

    Raises
    ------
    ConfigError
        If the shapes differ or the coefficient is not positive and finite.

    Examples
    --------
    >>> grid = CartesianGrid.uniform(16, lower=(0.0, 0.0), upper=(1.0, 1.0))
    >>> scheme = FivePoint(np.ones(grid.shape), grid)
    >>> u, residual = scheme.solve(np.ones(grid.shape))
    >>> u.shape, bool(abs(u[8, 8] - 0.0737) < 5e-4), residual < 1e-10
    ((17, 17), True, True)
    """

    def __init__(self, coefficient: np.ndarray, grid: CartesianGrid) -> None:
        if grid.dim != 2 or any(grid.periodic) or min(grid.cells) < 2:
            raise ConfigError(f"five-point scheme on {grid}: use a bounded 2D grid of at least 2 x 2 cells")
        if coefficient.shape != grid.shape:
            raise ConfigError(f"coefficient of shape {coefficient.shape}: the grid has shape {grid.shape}")
        if not (np.isfinite(coefficient).all() and coefficient.min() > 0):
            raise ConfigError(f"coefficient with minimum {coefficient.min()}: it must be positive everywhere")
        self.grid = grid
        hx, hy = grid.spacing
        a = coefficient
        # Conductances of the faces normal to x and to y, between inner nodes and all neighbours.
        self.face_x = 0.5 * (a[1:, 1:-1] + a[:-1, 1:-1]) / hx**2
        self.face_y = 0.5 * (a[1:-1, 1:] + a[1:-1, :-1]) / hy**2
        self.diagonal = self.face_x[1:] + self.face_x[:-1] + self.face_y[:, 1:] + self.face_y[:, :-1]
        m, n = self.diagonal.shape
        eigen_x = (2 - 2 * np.cos(np.pi * np.arange(1, m + 1) / (m + 1))) / hx**2
        eigen_y = (2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))) / hy**2
        # Any positive factor gives the same iterates.
        self._inverse_eigenvalues = 1.0 / (eigen_x[:, None] + eigen_y[None, :])

    def apply(self, u: np.ndarray) -> np.ndarray:
        """Return -div(a grad u) at the inner nodes, for u given there, shape (m, n)."""
        result = self.diagonal * u
        result[1:] -= self.face_x[1:-1] * u[:-1]
        result[:-1] -= self.face_x[1:-1] * u[1:]
        result[:, 1:] -= self.face_y[:, 1:-1] * u[:, :-1]
        result[:, :-1] -= self.face_y[:, 1:-1] * u[:, 1:]
        return result

    def matrix(self) -> sp.csr_array:
        """Return the operator as a sparse matrix on the inner nodes, in row-major order."""
        m, n = self.diagonal.shape
        side_y = self.face_y[:, 1:-1].copy()
        upper = np.concatenate([side_y, np.zeros((m, 1))], axis=1).ravel()[:-1]
        side_x = self.face_x[1:-1].ravel()
        return sp.diags_array(
            [self.diagonal.ravel(), -upper, -upper, -side_x, -side_x], offsets=[0, 1, -1, n, -n]
        ).tocsr()

    def solve(self, source: np.ndarray, tolerance: float = 1e-11) -> tuple[np.ndarray, float]:
        """Solve for u.

        Parameters
        ----------
        source : ndarray, shape grid.shape
            f at the nodes.
        tolerance : float
            Of the relative residual.

        Returns
        -------
        u : ndarray, shape grid.shape
            Zero on the boundary.
        residual : float
            |f - A u| / |f|, computed from u.

        Raises
        ------
        ConvergenceError
            If the tolerance is not reached.
        """
        f = np.asarray(source, dtype=float)[1:-1, 1:-1]

        def precondition(r: np.ndarray) -> np.ndarray:
            return dstn(self._inverse_eigenvalues * dstn(r, type=1, norm="ortho"), type=1, norm="ortho")

        inner, _ = conjugate_gradient(self.apply, f, precondition, tolerance)
        u = np.zeros(self.grid.shape)
        u[1:-1, 1:-1] = inner
        scale = float(np.linalg.norm(f))
        return u, float(np.linalg.norm(f - self.apply(inner))) / scale if scale else 0.0
