"""Linear solvers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import solve_triangular
from scipy.sparse.linalg import splu

from sciml.errors import ConvergenceError

__all__ = ["DirectSolver", "KrylovSolver", "ZeroMeanDirectSolver", "conjugate_gradient", "dot", "gmres"]


class DirectSolver:
    """Sparse LU factorisation of one matrix, for any number of right-hand sides.

    Parameters
    ----------
    matrix : sparse array, shape (m, m)
    tolerance : float
        Largest accepted relative residual |A x - b| / (|A| |x| + |b|) in the maximum norm.
    pivoting : float
        A diagonal pivot is accepted if it is at least so large relative to the rest of its column. 0 keeps the order
        that leaves little fill as long as pivots are not zero, as those of saddle-point matrices need not be.

    Raises
    ------
    ConvergenceError
        If the matrix is singular, or a residual exceeds the tolerance.

    Examples
    --------
    >>> DirectSolver(sp.csr_array(np.diag([2.0, 4.0]))).solve(np.array([2.0, 2.0]))
    array([1. , 0.5])
    """

    def __init__(self, matrix: sp.csr_array, tolerance: float = 1e-10, pivoting: float = 1.0) -> None:
        self.matrix = matrix
        self.tolerance = tolerance
        self._norm = float(abs(matrix).sum(axis=1).max())
        # Nearly symmetric patterns: minimum degree on A^T + A leaves far less fill than COLAMD.
        order: dict[str, Any] = {"permc_spec": "MMD_AT_PLUS_A", "options": {"SymmetricMode": True}}
        try:
            self._lu = splu(matrix.tocsc(), diag_pivot_thresh=pivoting, **order)
        except RuntimeError as error:
            raise ConvergenceError(
                f"the {matrix.shape[0]} x {matrix.shape[1]} matrix is singular ({error}): check the boundary data"
            ) from error

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """Return x with A x = rhs, with one step of iterative refinement."""
        return self._solve(rhs, self.matrix, "N")

    def solve_transposed(self, rhs: np.ndarray) -> np.ndarray:
        """Return x with A^T x = rhs."""
        return self._solve(rhs, self.matrix.T, "T")

    def _solve(self, rhs: np.ndarray, matrix: sp.csr_array, trans: str) -> np.ndarray:
        x = self._lu.solve(rhs, trans)
        x += self._lu.solve(rhs - matrix @ x, trans)
        residual = np.abs(matrix @ x - rhs).max()
        scale = self._norm * np.abs(x).max() + np.abs(rhs).max()
        if not residual <= self.tolerance * max(scale, np.finfo(float).tiny):
            raise ConvergenceError(
                f"direct solve left a relative residual of {residual / scale:.1e} (tolerance {self.tolerance:.0e}): "
                "the matrix is close to singular; change the grid or the degree"
            )
        return x


class ZeroMeanDirectSolver:
    """Sparse LU for A u + c = b with A 1 = 0, for u of mean zero and the constant c.

    With u = 0 at the first node, whose row and column are left out, u = v - c w; the first row then
    gives c. One factorisation, no dense row.

    Parameters
    ----------
    matrix : sparse array, shape (m, m)
        A, of rank m - 1.

    Examples
    --------
    >>> a = sp.csr_array(np.array([[-1.0, 1.0], [2.0, -2.0]]))
    >>> ZeroMeanDirectSolver(a).solve(np.array([1.0, 1.0, 0.0])).tolist()
    [0.0, 0.0, 1.0]
    """

    def __init__(self, matrix: sp.csr_array) -> None:
        self._reduced = DirectSolver(matrix[1:, 1:])
        self._row = matrix[[0], 1:]
        self._w = self._reduced.solve(np.ones(matrix.shape[0] - 1))

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """Return (u, c), shape (m + 1,), from (b, mean of u)."""
        v = self._reduced.solve(rhs[1:-1])
        c = float((rhs[0] - (self._row @ v)[0]) / (1.0 - (self._row @ self._w)[0]))
        u = np.concatenate([[0.0], v - c * self._w])
        return np.append(u - u.mean() + rhs[-1], c)


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Return the sum of a b over all entries, the same bits whatever the number of BLAS threads.

    Examples
    --------
    >>> dot(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    11.0
    """
    return float(np.einsum("i,i", a.ravel(), b.ravel()))


def conjugate_gradient(
    apply: Callable[[np.ndarray], np.ndarray],
    rhs: np.ndarray,
    precondition: Callable[[np.ndarray], np.ndarray],
    tolerance: float = 1e-10,
    max_iterations: int = 200,
    scale: float | None = None,
) -> tuple[np.ndarray, list[float]]:
    """Preconditioned conjugate gradients for a symmetric positive definite operator.

    Parameters
    ----------
    apply, precondition : callable
        v to A v and v to M^-1 v, on arrays of any shape.
    rhs : ndarray
    tolerance : float
        Stop at |r| <= tolerance scale in the Euclidean norm.
    max_iterations : int
    scale : float, optional
        |rhs| by default.

    Returns
    -------
    x : ndarray
    history : list of float
        Residuals |r| / scale, the first one of x = 0.

    Raises
    ------
    ConvergenceError
        If the tolerance is not reached; the message ends with the last residuals.
    """
    r = np.array(rhs, dtype=float)
    x = np.zeros_like(r)
    start = math.sqrt(dot(r, r))
    if start == 0:
        return x, [0.0]
    scale = scale or start
    history = [start / scale]
    z = precondition(r)
    p, rz = z.copy(), dot(r, z)
    for _ in range(max_iterations):
        ap = apply(p)
        alpha = rz / dot(p, ap)
        x += alpha * p
        ap *= alpha
        r -= ap
        history.append(math.sqrt(dot(r, r)) / scale)
        if history[-1] <= tolerance:
            return x, history
        z = precondition(r)
        rz, old = dot(r, z), rz
        p *= rz / old
        p += z
    tail = ", ".join(f"{value:.1e}" for value in history[-3:])
    raise ConvergenceError(
        f"conjugate gradients: no convergence to {tolerance:.0e} in {max_iterations} iterations (residuals {tail}); "
        "check that the coefficient is positive and its contrast moderate"
    )


def gmres(
    apply: Callable[[np.ndarray], np.ndarray],
    rhs: np.ndarray,
    precondition: Callable[[np.ndarray], np.ndarray],
    tolerance: float = 1e-12,
    max_iterations: int = 100,
    restart: int = 50,
) -> tuple[np.ndarray, list[float]]:
    """Left-preconditioned GMRES (Saad and Schultz, SIAM J. Sci. Stat. Comput. 7, 1986).

    Minimises |M^-1 (b - A x)| over Krylov spaces. With a good preconditioner M^-1 A is close to the
    identity, so that this norm estimates the error |A^-1 b - x| and not the residual, which is
    larger by the condition number.

    Parameters
    ----------
    apply, precondition : callable
        v to A v and v to M^-1 v, on arrays of shape (m,).
    rhs : ndarray, shape (m,)
    tolerance : float
        Stop at |M^-1 (b - A x)| <= tolerance |M^-1 b| in the Euclidean norm.
    max_iterations : int
        In all.
    restart : int
        Largest dimension of a Krylov space.

    Returns
    -------
    x : ndarray, shape (m,)
    history : list of float
        |M^-1 (b - A x)| / |M^-1 b| after every iteration, the first being 1.

    Raises
    ------
    ConvergenceError
        If the tolerance is not reached; the message ends with the last entries of the history.

    Examples
    --------
    >>> a = np.array([[2.0, 1.0], [0.0, 4.0]])
    >>> x, history = gmres(lambda v: a @ v, np.array([3.0, 4.0]), lambda v: v / 4)
    >>> x.round(12).tolist(), len(history)
    ([1.0, 1.0], 3)
    """
    x = np.zeros(len(rhs))
    residual = precondition(np.array(rhs, dtype=float))
    scale = start = float(np.linalg.norm(residual))
    history = [1.0]
    if scale == 0:
        return x, [0.0]
    while len(history) <= max_iterations and np.isfinite(start):
        basis = [residual / start]
        # Q^T H and Q^T e_1 of the least-squares problem, updated by one rotation a step.
        triangle, rotations, target = np.zeros((restart, restart)), np.zeros((restart, 2)), [start]
        for k in range(min(restart, max_iterations + 1 - len(history))):
            w = precondition(apply(basis[k]))
            column = np.zeros(k + 2)
            for i, v in enumerate(basis):
                column[i] = v @ w
                w -= column[i] * v
            column[k + 1] = np.linalg.norm(w)
            for i, (c, s) in enumerate(rotations[:k]):
                column[i : i + 2] = c * column[i] + s * column[i + 1], c * column[i + 1] - s * column[i]
            length = float(np.hypot(column[k], column[k + 1]))
            if length == 0 or not np.isfinite(length):
                break
            rotations[k] = column[k] / length, column[k + 1] / length
            breakdown = column[k + 1] <= 1e-15 * length
            triangle[: k + 1, k] = *column[:k], length
            target += [-rotations[k, 1] * target[k]]
            target[k] *= rotations[k, 0]
            history.append(abs(target[k + 1]) / scale)
            if history[-1] <= tolerance or breakdown:
                break
            basis.append(w / np.linalg.norm(w))
        size = len(target) - 1
        if size == 0:
            break
        y = solve_triangular(triangle[:size, :size], target[:size])
        x += sum(factor * v for factor, v in zip(y, basis, strict=False))
        residual = precondition(rhs - apply(x))
        start = float(np.linalg.norm(residual))
        # The recursion may run ahead of the true residual.
        if start <= 10 * tolerance * scale and history[-1] <= tolerance:
            return x, history
    tail = ", ".join(f"{value:.1e}" for value in history[-3:])
    raise ConvergenceError(
        f"GMRES: no convergence to {tolerance:.0e} in {len(history) - 1} iterations (last of the history: {tail}); "
        "use solver='direct', or a finer grid if advection dominates"
    )


class KrylovSolver:
    """GMRES with a preconditioner built once, for any number of right-hand sides.

    Parameters
    ----------
    apply, precondition : callable
        v to A v and v to M^-1 v.
    tolerance, max_iterations
        As for `gmres`.

    Attributes
    ----------
    history : list of float
        Of the last solve.
    """

    def __init__(
        self,
        apply: Callable[[np.ndarray], np.ndarray],
        precondition: Callable[[np.ndarray], np.ndarray],
        tolerance: float = 1e-12,
        max_iterations: int = 100,
    ) -> None:
        self.apply, self.precondition = apply, precondition
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.history: list[float] = []

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """Return x with A x = rhs."""
        x, self.history = gmres(self.apply, rhs, self.precondition, self.tolerance, self.max_iterations)
        scale = float(np.linalg.norm(rhs))
        residual = float(np.linalg.norm(rhs - self.apply(x))) / (scale or 1.0)
        if not residual <= max(1e-6, 1e3 * self.tolerance):
            raise ConvergenceError(
                f"GMRES: the residual is {residual:.1e} of the right-hand side after {len(self.history) - 1} "
                "iterations, as the preconditioner is almost singular; use solver='direct'"
            )
        return x
