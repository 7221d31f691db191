"""Spectra of PLG matrices on many shapes: no eigenvalue in the right half plane."""

from functools import cache

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, splu

from sciml.solvers import (
    PLG,
    Annulus,
    Ball,
    BoundaryCondition,
    Box,
    CartesianGrid,
    Dirichlet,
    Disk,
    Domain,
    Ellipse,
    Mixed,
    Neumann,
    Poisson,
    Robin,
    Spline,
    Star,
    Torus,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DENSE_UNKNOWNS = 2000
SHIFTS = (0.05, 0.5, 5.0)  # of 1 / h^2


def right_half(*position: np.ndarray) -> np.ndarray:
    return position[0] > 0


def seeded_spline() -> Spline:
    rng = np.random.default_rng(12)
    angles, radii = 2 * np.pi * np.arange(12) / 12, rng.uniform(0.28, 0.42, 12)
    return Spline(tuple(zip(radii * np.cos(angles), radii * np.sin(angles), strict=True)))


PLANE: dict[str, Domain] = {
    "disk": Disk(),
    "ellipse": Ellipse((0.44, 0.11)),
    "three petals": Star(0.3, 0.1, 3),
    "six petals": Star(),
    "annulus": Annulus(),
    "L": Box() - Box((0.0, 0.0), (0.4, 0.4)),
    "two disks": Disk(0.25, (-0.15, 0.0)) | Disk(0.25, (0.15, 0.05)),
    "spline": seeded_spline(),
}
SPACE: dict[str, tuple[Domain, int]] = {
    "ball, 16": (Ball(0.35), 16),
    "ball, 20": (Ball(0.35), 20),
    "torus, 18": (Torus(0.28, 0.15), 18),
    "torus, 24": (Torus(0.28, 0.15), 24),
}
CONDITIONS: dict[str, BoundaryCondition] = {
    "dirichlet": Dirichlet(),
    "neumann": Neumann(),
    "robin": Robin(1.0),
    "mixed": Mixed(((right_half, Neumann()),)),
}


@cache
def scaled_matrix(domain: Domain, condition: BoundaryCondition, n: int, method: PLG) -> sp.csr_array:
    """Return h^2 A on the unit square or cube."""
    grid = CartesianGrid.uniform(n, (-0.5,) * domain.dim, (0.5,) * domain.dim)
    return method.discretise(Poisson(domain, 0.0, condition), grid).matrix / n**2


def abscissa(matrix: sp.csr_array) -> float:
    """Return the largest real part of the eigenvalues, all of which are computed."""
    return float(np.linalg.eigvals(matrix.toarray()).real.max())


def cayley_radius(matrix: sp.csr_array, shift: float) -> float:
    """Return the largest modulus of the eigenvalues of (A + s) (A - s)^-1.

    Moduli above 1 belong to eigenvalues of A in the right half plane. Below 1 the moduli of a fine grid
    crowd together, and ARPACK may tell none of them apart: then the result is 0.
    """
    size = matrix.shape[0]
    unit = sp.eye_array(size, format="csc")
    lu = splu((matrix - shift * unit).tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})

    def apply(v: np.ndarray) -> np.ndarray:
        return v + 2 * shift * lu.solve(np.ravel(v))

    start = np.random.default_rng(0).standard_normal(size)
    try:
        operator = LinearOperator(matrix.shape, apply, dtype=float)
        values = eigs(operator, k=4, ncv=40, v0=start, maxiter=100, tol=1e-12, return_eigenvectors=False)
    except ArpackNoConvergence as failure:
        values = failure.eigenvalues
    return float(np.abs(values).max(initial=0.0))


@pytest.mark.parametrize("shape", PLANE)
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("n", [48, 96])
def test_plane_spectra_lie_in_the_left_half_plane(n: int, condition: str, shape: str) -> None:
    matrix = scaled_matrix(PLANE[shape], CONDITIONS[condition], n, PLG())
    if matrix.shape[0] < DENSE_UNKNOWNS:
        assert abscissa(matrix) <= 1e-10
    else:
        assert 0 < max(cayley_radius(matrix, shift) for shift in SHIFTS) <= 1 + 1e-9


@pytest.mark.parametrize("condition", ["dirichlet", "neumann"])
@pytest.mark.parametrize("shape", PLANE)
def test_the_cayley_transform_finds_unstable_matrices(shape: str, condition: str) -> None:
    """Unweighted fits are unstable; and spectra of both kinds, shifted to just this or that side."""
    for power in (0.0, 3.0):
        matrix = scaled_matrix(PLANE[shape], CONDITIONS[condition], 48, PLG(weight_power=power))
        rightmost = abscissa(matrix)
        assert (rightmost > 1e-3) == (power == 0)
        for target in (rightmost, 1e-6, -1e-6) if power == 0 else (1e-6, -1e-6):
            shifted = matrix + (target - rightmost) * sp.eye_array(matrix.shape[0], format="csr")
            radius = max(cayley_radius(shifted, shift) for shift in SHIFTS)
            assert (radius > 1 + 1e-9) == (target > 0)


@pytest.mark.parametrize("shape", SPACE)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_space_spectra_lie_in_the_left_half_plane(condition: str, shape: str) -> None:
    domain, n = SPACE[shape]
    assert abscissa(scaled_matrix(domain, CONDITIONS[condition], n, PLG())) <= 1e-10
