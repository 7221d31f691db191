"""Linear solvers: against dense algebra, flat iteration counts, failures that say what happened."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers import (
    PLG,
    CartesianGrid,
    EllipticSolver,
    Expression,
    Poisson,
    Star,
    problem_registry,
    solve,
)
from sciml.solvers.functions import coordinates
from sciml.solvers.linear import DirectSolver, KrylovSolver, ZeroMeanDirectSolver, gmres
from sciml.solvers.operators import EllipticOperator, Laplacian
from sciml.solvers.plg.precondition import low_order_matrix


def random_system(size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return np.eye(size) * 4 + rng.normal(size=(size, size)) / 3, rng.normal(size=size)


def test_gmres_solves_and_its_history_is_the_preconditioned_residual() -> None:
    a, b = random_system()
    diagonal = np.diag(a)
    x, history = gmres(lambda v: a @ v, b, lambda v: v / diagonal, tolerance=1e-12)
    assert np.allclose(x, np.linalg.solve(a, b), atol=1e-10)
    assert all(later <= earlier for earlier, later in itertools.pairwise(history))
    early, short = gmres(lambda v: a @ v, b, lambda v: v / diagonal, tolerance=1e-3)
    residual = np.linalg.norm((b - a @ early) / diagonal) / np.linalg.norm(b / diagonal)
    assert residual == pytest.approx(short[-1], rel=1e-9)


def test_gmres_restarts_and_refuses_to_stop_too_early() -> None:
    a, b = random_system()
    x, history = gmres(lambda v: a @ v, b, lambda v: v, tolerance=1e-11, restart=9, max_iterations=300)
    assert len(history) > 10
    assert np.allclose(x, np.linalg.solve(a, b), atol=1e-9)
    with pytest.raises(ConvergenceError, match=r"in 5 iterations.*solver='direct'"):
        gmres(lambda v: a @ v, b, lambda v: v, max_iterations=5)
    assert gmres(lambda v: a @ v, np.zeros(40), lambda v: v)[0].tolist() == [0.0] * 40


def test_direct_solver_transposed() -> None:
    a, b = random_system()
    solver = DirectSolver(sp.csr_array(a))
    assert np.allclose(solver.solve(b), np.linalg.solve(a, b))
    assert np.allclose(solver.solve_transposed(b), np.linalg.solve(a.T, b))
    assert np.allclose(solver.solve(np.stack([b, 2 * b], axis=1))[:, 1], np.linalg.solve(a, 2 * b))


def test_zero_mean_solver_meets_the_bordered_system() -> None:
    a = random_system(12)[0]
    a -= np.diag(a.sum(axis=1))
    b = np.arange(12.0)
    solution = ZeroMeanDirectSolver(sp.csr_array(a)).solve(np.append(b, 0.5))
    assert np.allclose(a @ solution[:-1] + solution[-1], b)
    assert solution[:-1].mean() == pytest.approx(0.5)


NAMES = ["poisson", "poisson-neumann", "poisson-robin", "poisson-mixed", "anisotropic", "advection-diffusion"]


@pytest.mark.parametrize("name", NAMES)
def test_krylov_gives_what_the_factorisation_gives(name: str) -> None:
    problem, grid = problem_registry[name](Star()), CartesianGrid.uniform(60)
    direct = solve(problem, grid, solver="direct")
    krylov = solve(problem, grid, solver="krylov")
    assert np.nanmax(np.abs(direct.values - krylov.values)) < 1e-10
    assert krylov.info["solver"] == "krylov"
    assert krylov.info["residual_history"][-1] <= 1e-12


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_iteration_count_does_not_grow(power: float) -> None:
    problem = problem_registry["poisson"](Star())
    counts = [
        solve(problem, CartesianGrid.uniform(n), PLG(weight_power=power), "krylov").info["iterations"]
        for n in (40, 80, 160)
    ]
    assert max(counts) <= 20


def test_low_order_matrix_has_one_sign_and_is_consistent() -> None:
    grid = CartesianGrid.uniform(12)
    index = np.argwhere(np.ones(grid.shape, bool))[:, :]
    operator = EllipticOperator(((1.0, -0.6), (-0.6, 2.0)), first=(3.0, -5.0), zeroth=-1.0)
    matrix = low_order_matrix(operator, grid, index, np.zeros(len(index)))
    off = matrix - sp.diags_array(matrix.diagonal())
    assert off.min() >= 0
    inner = ((index > 0) & (index < 12)).all(axis=1)
    x, y = grid.coordinates(index).T
    # Exact for second-degree polynomials but for the upwind first derivatives, of first order.
    values = (matrix @ (x * y) - (-1.2 + 3 * y - 5 * x - x * y))[inner]
    assert np.abs(values).max() < 1e-10
    laplace = low_order_matrix(Laplacian(2), grid, index, np.zeros(len(index)))
    assert np.abs(laplace.sum(axis=1)).max() < 1e-10


def test_one_factorisation_serves_many_sources() -> None:
    torsion = Poisson(Star(), -1.0)
    solver = EllipticSolver(torsion, CartesianGrid.uniform(80), solver="krylov")
    one, two = solver.solve(), solver.solve(source=-2.0)
    assert np.nanmax(np.abs(2 * one.values - two.values)) < 1e-11
    x, y = coordinates(2)
    other = solver.solve(source=Expression(x * y, (x, y)))
    again = solve(Poisson(Star(), Expression(x * y, (x, y))), CartesianGrid.uniform(80), solver="direct")
    assert np.nanmax(np.abs(other.values - again.values)) < 1e-12


def test_auto_takes_the_factorisation_where_gmres_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: KrylovSolver, rhs: np.ndarray) -> np.ndarray:
        raise ConvergenceError("no convergence")

    monkeypatch.setattr(KrylovSolver, "solve", fail)
    problem, grid = problem_registry["poisson"](Star()), CartesianGrid.uniform(160)
    solution = solve(problem, grid)
    assert "did not converge" in solution.info["solver"]
    assert solution.errors()["l2"] < 1e-10
    with pytest.raises(ConvergenceError):
        solve(problem, grid, solver="krylov")
    with pytest.raises(ConfigError, match="'auto', 'direct' or 'krylov'"):
        solve(problem, grid, solver="cg")  # type: ignore[arg-type]


def test_a_coarse_tolerance_is_no_failure() -> None:
    problem, grid = problem_registry["poisson"](Star()), CartesianGrid.uniform(80)
    coarse = solve(problem, grid, solver="krylov", tolerance=1e-3)
    assert 1 < coarse.info["iterations"] < 6
