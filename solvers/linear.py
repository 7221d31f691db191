"""Linear solvers."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from sciml.errors import ConvergenceError

__all__ = ["DirectSolver", "conjugate_gradient"]


class DirectSolver:
    """Sparse LU factorisation of one matrix, for any number of right-hand sides.

    Parameters
    ----------
    matrix : sparse array, shape (m, m)
    tolerance : float
        Largest accepted relative residual |A x - b| / (|A| |x| + |b|) in the maximum norm.

    Raises
    ------
    ConvergenceError
        If the matrix is singular, or a residual exceeds the tolerance.

    Examples
    --------
    >>> DirectSolver(sp.csr_array(np.diag([2.0, 4.0]))).solve(np.array([2.0, 2.0]))
    array([1. , 0.5])
    """

    def __init__(self, matrix: sp.csr_array, tolerance: float = 1e-10) -> None:
        self.matrix = matrix
        self.tolerance = tolerance
        self._norm = float(abs(matrix).sum(axis=1).max())
        try:
            # Nearly symmetric patterns: minimum degree on A^T + A leaves far less fill than COLAMD.
            self._lu = splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        except RuntimeError as error:
            raise ConvergenceError(
                f"the {matrix.shape[0]} x {matrix.shape[1]} matrix is singular ({error}): check the boundary data"
            ) from error

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """Return x with A x = rhs, with one step of iterative refinement."""
        x = self._lu.solve(rhs)
        x += self._lu.solve(rhs - self.matrix @ x)
        residual = np.abs(self.matrix @ x - rhs).max()
        scale = self._norm * np.abs(x).max() + np.abs(rhs).max()
        if not residual <= self.tolerance * max(scale, np.finfo(float).tiny):
            raise ConvergenceError(
                f"direct solve left a relative residual of {residual / scale:.1e} (tolerance {self.tolerance:.0e}): "
                "the matrix is close to singular; change the grid or the degree"
            )
        return x


def conjugate_gradient(
    apply: Callable[[np.ndarray], np.ndarray],
    rhs: np.ndarray,
    precondition: Callable[[np.ndarray], np.ndarray],
    tolerance: float = 1e-10,
    max_iterations: int = 200,
) -> tuple[np.ndarray, list[float]]:
    """Preconditioned conjugate gradients for a symmetric positive definite operator.

    Parameters
    ----------
    apply, precondition : callable
        v to A v and v to M^-1 v, on arrays of any shape.
    rhs : ndarray
    tolerance : float
        Stop at |r| <= tolerance |rhs| in the Euclidean norm.
    max_iterations : int

    Returns
    -------
    x : ndarray
    history : list of float
        Relative residuals, the first being 1.

    Raises
    ------
    ConvergenceError
        If the tolerance is not reached; the message ends with the last residuals.
    """
    r = np.array(rhs, dtype=float)
    x = np.zeros_like(r)
    target = float(np.linalg.norm(rhs))
    history = [1.0]
    if target == 0:
        return x, [0.0]
    z = precondition(r)
    p, rz = z.copy(), float(np.vdot(r, z))
    for _ in range(max_iterations):
        ap = apply(p)
        alpha = rz / float(np.vdot(p, ap))
        x += alpha * p
        r -= alpha * ap
        history.append(float(np.linalg.norm(r)) / target)
        if history[-1] <= tolerance:
            return x, history
        z = precondition(r)
        rz, old = float(np.vdot(r, z)), rz
        p = z + (rz / old) * p
    tail = ", ".join(f"{value:.1e}" for value in history[-3:])
    raise ConvergenceError(
        f"conjugate gradients: no convergence to {tolerance:.0e} in {max_iterations} iterations (residuals {tail}); "
        "check that the coefficient is positive and its contrast moderate"
    )
