"""Eigenvalues against zeros of Bessel functions, exact spectra and dense algebra."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.sparse.linalg import ArpackNoConvergence
from scipy.special import jn_zeros, jnp_zeros, jv, jvp

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers import (
    PLG,
    Ball,
    Box,
    CartesianGrid,
    Disk,
    EllipticOperator,
    Laplacian,
    Neumann,
    Robin,
    Star,
    eigenvalues,
)
from sciml.solvers.eigenvalues import _real

RADIUS = 0.4
DISK = Disk(RADIUS)


def bessel(zeros: Callable[[int, int], np.ndarray], count: int = 6) -> np.ndarray:
    """Squares of the smallest zeros over R, twice those of order m > 0: cos and sin of m theta."""
    parts = [np.repeat(zeros(m, 3), 1 if m == 0 else 2) for m in range(6)]
    return np.sort(np.concatenate(parts) / RADIUS)[:count] ** 2


def order(grids: list[int], errors: list[float]) -> float:
    return float(-np.polyfit(np.log(grids), np.log(errors), 1)[0])


def test_dirichlet_disk() -> None:
    exact, grids, errors = bessel(jn_zeros), [32, 64, 96, 144], []
    for n in grids:
        found = eigenvalues(Laplacian(), DISK, CartesianGrid.uniform(n))
        errors.append(float(np.abs(found.values / exact - 1).max()))
        assert found.values.dtype == float
        assert found.info["residuals"].max() < 1e-11
    # The errors of the interior, O(h^4), and of the boundary, O(h^5), have opposite signs.
    assert order(grids, errors) > 3.4
    assert errors[-1] < 5e-7
    pairs = found.values[[1, 3]], found.values[[2, 4]]
    assert np.allclose(*pairs, rtol=5e-7)
    assert found.values[5] - found.values[4] > 5


def test_dirichlet_disk_of_degree_six() -> None:
    exact, grids = bessel(jn_zeros, 3), [20, 28, 40, 56]
    errors = [
        float(
            np.abs(
                eigenvalues(Laplacian(), DISK, CartesianGrid.uniform(n), count=3, method=PLG(6)).values
                / exact
                - 1
            ).max()
        )
        for n in grids
    ]
    assert order(grids, errors) > 5.5


def test_neumann_disk() -> None:
    exact = np.append(0.0, bessel(jnp_zeros, 8)[:5])
    grids, errors = [24, 34, 48, 68], []
    for n in grids:
        found = eigenvalues(Laplacian(), DISK, CartesianGrid.uniform(n), Neumann(1.0))
        assert abs(found.values[0]) < 1e-9
        assert np.nanstd(found.fields[0]) < 1e-9
        errors.append(float(np.abs(found.values[1:] / exact[1:] - 1).max()))
    assert found.info["shift"] > 0
    assert order(grids, errors) > 4
    assert errors[-1] < 2e-5


def robin_zeros(m: int, count: int, alpha: float = 2.0) -> np.ndarray:
    """Smallest zeros z = k R of alpha J_m(k R) + k J_m'(k R)."""

    def condition(z: float) -> float:
        return float(alpha * RADIUS * jv(m, z) + z * jvp(m, z))

    ends = np.linspace(0.01, 15, 300)
    signs = [condition(z) > 0 for z in ends]
    found = [brentq(condition, ends[i], ends[i + 1]) for i in range(299) if signs[i] != signs[i + 1]]
    return np.array(found[:count])


def test_robin_disk() -> None:
    exact, grids = bessel(robin_zeros), [24, 34, 48, 68]
    found = [eigenvalues(Laplacian(), DISK, CartesianGrid.uniform(n), Robin(2.0)).values for n in grids]
    errors = [float(np.abs(values / exact - 1).max()) for values in found]
    assert order(grids, errors) > 4
    assert errors[-1] < 1e-5
    assert found[-1][0] == pytest.approx(exact[0], rel=1e-6)


def test_first_eigenvalue_of_a_ball() -> None:
    grids, errors = [10, 12, 14, 17], []
    for n in grids:
        grid = CartesianGrid.uniform(n, (-0.5,) * 3, (0.5,) * 3)
        found = eigenvalues(Laplacian(3), Ball(RADIUS), grid, count=1)
        errors.append(abs(found.values[0] / (np.pi / RADIUS) ** 2 - 1))
    assert order(grids, errors) > 4
    assert errors[-1] < 3e-4


def test_coefficients_scale_and_shift_the_spectrum() -> None:
    # The Laplacian's eigenvalues are pi^2 (m^2 + n^2).
    box, grid = Box((0.0, 0.0), (1.0, 1.0)), CartesianGrid.uniform(24, (-0.1, -0.1), (1.1, 1.1))
    plain = eigenvalues(Laplacian(), box, grid).values
    assert plain[0] == pytest.approx(2 * np.pi**2, rel=1e-4)
    twice = ((2.0, 0.0), (0.0, 2.0))
    assert np.allclose(eigenvalues(EllipticOperator(twice), box, grid).values, 2 * plain, rtol=1e-10)
    decay = EllipticOperator(twice, zeroth=-10.0)
    assert np.allclose(eigenvalues(decay, box, grid).values, 2 * plain + 10, rtol=1e-4)
    # By modulus: -10.3, 19.3, 19.3.
    shifted = eigenvalues(EllipticOperator(((1.0, 0.0), (0.0, 1.0)), zeroth=30.0), box, grid, count=3).values
    assert np.allclose(shifted, plain[:3] - 30, rtol=1e-4)


def test_a_rotating_flow_has_complex_eigenvalues() -> None:
    # L exp(i m theta) J_m(k r) = (-k^2 + 30 i m) of it.
    operator = EllipticOperator(((1.0, 0.0), (0.0, 1.0)), ("-30*y", "30*x"))
    found = eigenvalues(operator, DISK, CartesianGrid.uniform(40), count=3)
    exact = bessel(jn_zeros, 3)
    assert np.allclose(found.values.real, exact, rtol=1e-3)
    assert np.allclose(np.sort(found.values.imag), [-30, 0, 30], rtol=1e-3, atol=1e-9)
    assert found.info["residuals"].max() < 1e-11


def test_fields_are_normalised_eigenvectors() -> None:
    grid, operator = CartesianGrid.uniform(30), EllipticOperator(((1.0, 0.2), (0.2, 2.0)))
    found = eigenvalues(operator, Star(), grid, count=4)
    system = PLG().discretise_all((operator,), Star(), Robin(), grid)[0]
    mask = np.isfinite(found.fields[0])
    assert found.fields.shape == (4, *grid.shape)
    assert np.array_equal(np.argwhere(mask), system.node_index)
    inside = found.fields[:, mask]
    assert np.allclose((inside**2).sum(axis=1) * np.prod(grid.spacing), 1.0)
    assert (inside.max(axis=1) >= -inside.min(axis=1)).all()
    assert inside[0].min() > 0
    again = eigenvalues(operator, Star(), grid, count=4)
    assert np.array_equal(found.values, again.values)


def test_all_eigenvalues_but_two_of_a_small_matrix() -> None:
    grid = CartesianGrid.uniform(10)
    matrix = PLG(2).discretise_all((Laplacian(),), DISK, Robin(), grid)[0].matrix.toarray()
    dense = -np.linalg.eigvals(matrix)
    dense = dense[np.argsort(np.abs(dense))]
    count = len(dense) - 2
    found = eigenvalues(Laplacian(), DISK, grid, Robin(), count=count, method=PLG(2))
    assert np.allclose(np.abs(found.values), np.abs(dense[:count]), rtol=1e-9)
    for bad in (0, count + 1):
        with pytest.raises(ConfigError, match=rf"count={bad}: choose 1 to {count}"):
            eigenvalues(Laplacian(), DISK, grid, Robin(), count=bad, method=PLG(2))


def test_a_conjugate_pair_spans_a_real_eigenspace() -> None:
    rotation = np.array([[0.6, 0.8], [-0.8, 0.6]])
    mu, vectors = np.linalg.eig(-3 * np.eye(2) + 1e-6 * rotation)
    basis = _real(mu, vectors * np.exp(0.7j))
    assert np.linalg.cond(basis) < 3
    assert np.isrealobj(basis)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="3D operator on a 2D domain"):
        eigenvalues(Laplacian(3), DISK, CartesianGrid.uniform(20))


def test_iteration_that_does_not_converge_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*arguments: object, **options: object) -> None:
        raise ArpackNoConvergence("no", np.ones(2), np.ones((3, 2)))

    monkeypatch.setattr(sys.modules["sciml.solvers.eigenvalues"], "eigs", give_up)
    with pytest.raises(ConvergenceError, match="2 of 8 eigenvalues converged"):
        eigenvalues(Laplacian(), DISK, CartesianGrid.uniform(20))
