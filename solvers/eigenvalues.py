"""Smallest eigenvalues of elliptic operators by shift-and-invert Arnoldi iteration.

The matrix A of a PLG discretisation with homogeneous boundary data approximates L; the eigenvalues
closest to a shift s are the dominant ones of (A - s)^-1 (Ericsson and Ruhe, Math. Comp. 35, 1980),
which ARPACK finds with one sparse LU factorisation.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

from sciml.errors import ConfigError, ConvergenceError

from .boundary import BoundaryCondition, Dirichlet
from .domains import Domain
from .functions import expect
from .grid import CartesianGrid
from .linear import DirectSolver
from .operators import EllipticOperator
from .plg import PLG
from .problems import EllipticProblem

__all__ = ["EigenSolution", "eigenvalues"]

REAL = 1e-3  # relative imaginary parts up to here are discretisation errors of nearly equal eigenvalues
SPARE = 2  # eigenvalues computed beyond the wanted ones: a pair is not cut, a late one not missed


@dataclass(frozen=True)
class EigenSolution:
    """Eigenvalues and eigenfunctions, L u = -lambda u.

    Attributes
    ----------
    operator : EllipticOperator
    domain : Domain
    grid : CartesianGrid
    values : ndarray, shape (count,)
        lambda, by increasing modulus; real, or complex where the spectrum is.
    fields : ndarray, shape (count, *grid.shape)
        u at the nodes inside the domain, NaN elsewhere. The sum of |u|^2 times the volume of a grid
        cell is 1; the entry of largest modulus is positive. Those of equal eigenvalues are some basis
        of the eigenspace.
    info : dict
        ``"residuals"``, norms of L u + lambda u divided by the largest |lambda| computed, shape
        (count,); ``"imaginary"``, the largest |Im lambda| divided by the same, before a spectrum was
        made real; ``"shift"``; diagnostics of the discretisation; seconds.
    """

    operator: EllipticOperator
    domain: Domain
    grid: CartesianGrid
    values: np.ndarray
    fields: np.ndarray = field(repr=False)
    info: dict[str, Any] = field(default_factory=dict, repr=False)


def eigenvalues(
    operator: EllipticOperator,
    domain: Domain,
    grid: CartesianGrid,
    boundary: BoundaryCondition | None = None,
    count: int = 6,
    method: PLG | None = None,
) -> EigenSolution:
    """Compute the eigenvalues of smallest modulus of L u = -lambda u.

    With the minus sign those of the Laplacian are positive, squares of wavenumbers. One sparse LU
    factorisation limits the size: a million unknowns in 2D, 1e5 in 3D.

    Parameters
    ----------
    operator : EllipticOperator
        L.
    domain : Domain
    grid : CartesianGrid
        Its box must contain the domain.
    boundary : BoundaryCondition, optional
        Homogeneous `Dirichlet` by default. Its data count as zero.
    count : int
        Number of eigenvalues, multiple ones counted as often as they occur.
    method : PLG, optional
        ``PLG()`` by default: fourth order.

    Returns
    -------
    EigenSolution
        Pairs of nearly equal eigenvalues, which a discretisation may turn into complex ones, are
        made real; a spectrum with imaginary parts above 1e-3 of the modulus is returned as it is.

    Raises
    ------
    ConfigError
        If ``count`` is not from 1 to the number of unknowns minus 2, or operator and domain have
        different dimensions.
    ConvergenceError
        If zero is an eigenvalue up to round-off (other than that of constants), or the iteration does
        not converge.
    GeometryError, StencilError
        As for `solve`.

    Examples
    --------
    >>> from sciml.solvers import Box, CartesianGrid, Laplacian
    >>> grid = CartesianGrid.uniform(24, (-0.1, -0.1), (1.1, 1.1))
    >>> found = eigenvalues(Laplacian(), Box((0.0, 0.0), (1.0, 1.0)), grid, count=3)
    >>> (found.values / np.pi**2).round(2).tolist()
    [2.0, 5.0, 5.0]
    """
    expect("operator", operator, EllipticOperator, "Laplacian(2), for example")
    expect("domain", domain, Domain, "Disk(), for example")
    expect("grid", grid, CartesianGrid, "CartesianGrid.uniform(64)")
    started = time.process_time()
    problem = EllipticProblem(domain, operator, 0.0, boundary or Dirichlet())
    system = (method or PLG()).discretise(problem, grid)
    matrix, size = system.matrix, len(system.node_index)
    if not 1 <= count <= size - 2:
        raise ConfigError(
            f"count={count}: choose 1 to {size - 2}, for {size} unknowns; a finer grid has more eigenvalues"
        )
    shift = 0.0
    if problem.determined_up_to_constants:
        # Of the size of the first non-zero eigenvalue, so that the one of constants does not drown the others.
        extent = float(np.subtract(*domain.bounds[::-1]).max())
        second = operator.coefficients(grid.coordinates(system.node_index[:1]))[0]
        shift = float(np.trace(second[0])) / extent**2
    mu, vectors = _closest(matrix, shift, min(count + SPARE, size - 2))
    order = np.argsort(np.abs(mu), kind="stable")
    largest = float(np.abs(mu).max())
    mu, vectors = mu[order[:count]], vectors[:, order[:count]]
    residuals = np.linalg.norm(matrix @ vectors - mu * vectors, axis=0) / largest
    imaginary = float((np.abs(mu.imag) / largest).max())
    values, vectors = (-mu.real, _real(mu, vectors)) if imaginary <= REAL else (-mu, _phased(vectors))
    fields = np.full((count, *grid.shape), np.nan, dtype=vectors.dtype)
    fields[:, *system.node_index.T] = vectors.T / np.sqrt(np.prod(grid.spacing))
    info = {
        **system.info,
        "residuals": residuals,
        "imaginary": imaginary,
        "shift": shift,
        "cpu_seconds": time.process_time() - started,
    }
    return EigenSolution(operator, domain, grid, values, fields, info)


def _closest(matrix: sp.csr_array, shift: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a matrix closest to a real shift, and unit eigenvectors, both complex."""
    size = matrix.shape[0]
    factored = DirectSolver(sp.csr_array(matrix - shift * sp.eye_array(size)))
    inverse = LinearOperator((size, size), matvec=factored.solve, dtype=float)
    start = np.random.default_rng(0).standard_normal(size)
    try:
        return eigs(matrix, count, sigma=shift, OPinv=inverse, v0=start)
    except ArpackNoConvergence as error:
        raise ConvergenceError(
            f"Arnoldi iteration: {len(error.eigenvalues)} of {count} eigenvalues converged; "
            "ask for another count, or use a finer grid"
        ) from error


def _phased(vectors: np.ndarray) -> np.ndarray:
    """Unit multiples of columns whose entries of largest modulus are positive."""
    top = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return vectors * (np.abs(top) / top / np.linalg.norm(vectors, axis=0))


def _real(mu: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Real basis of the eigenspaces: real part of one, imaginary part of the other of a conjugate pair."""
    # A vector of a real eigenvalue may have any phase: its real part alone could vanish.
    phased = _phased(vectors)
    return _phased(np.where(mu.imag < 0, phased.imag, phased.real))
