"""The PLG method: exactness, order, stability, speed of convergence on the fact sheet's star."""

import itertools

import numpy as np
import pytest
from scipy.sparse.linalg import eigs

from sciml.errors import ConfigError, ConvergenceError, GeometryError, StencilError
from sciml.solvers import (
    PLG,
    Box,
    CartesianGrid,
    Dirichlet,
    Disk,
    Domain,
    EllipticOperator,
    EllipticProblem,
    Laplacian,
    Poisson,
    Star,
    manufactured,
    problem_registry,
    solve,
)
from sciml.solvers.plane import PlaneDomain
from sciml.solvers.plg.discretise import regular_stencil
from sciml.solvers.plg.lattice import lattice_points
from sciml.solvers.plg.stencil import enrich, fit_functional, fit_polynomial
from sciml.solvers.polynomials import monomials, multi_indices

MIXED = EllipticOperator(((1.0, 0.5), (0.5, 2.0)), first=(0.3, -0.7), zeroth=-1.5)
VARIABLE = EllipticOperator((("2 + x*y", "x/4"), ("x/4", "1 + y**2")), first=("y", -0.7), zeroth="-exp(x)")


def polynomial(degree: int, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return " + ".join(f"({rng.uniform(-1, 1):.3f})*x**{i}*y**{j}" for i, j in terms)


@pytest.mark.parametrize("degree", [2, 3, 4])
@pytest.mark.parametrize(
    "domain", [Star(), Disk(0.37, (0.03, 0.01)), Box() - Disk(0.15)], ids=["star", "disk", "hole"]
)
@pytest.mark.parametrize("operator", [Laplacian(2), MIXED], ids=["laplace", "mixed"])
def test_polynomials_are_reproduced_to_round_off(
    degree: int, domain: Domain, operator: EllipticOperator
) -> None:
    problem = manufactured(polynomial(degree), domain, operator)
    for power in (1.0, 3.0):
        solution = solve(problem, CartesianGrid.uniform(40), PLG(degree=degree, weight_power=power))
        assert solution.errors()["linf"] < 2e-12


def test_polynomials_are_reproduced_on_unequal_spacings() -> None:
    grid = CartesianGrid((-0.5, -0.5), (0.5, 0.5), (48, 60))
    assert solve(manufactured(polynomial(4), Star(), MIXED), grid).errors()["linf"] < 2e-12


@pytest.mark.parametrize("rho", [0.0, 0.5, 1.0])
def test_residual_of_polynomials_is_round_off(rho: float) -> None:
    """A u + G g = f holds row by row, also where the matrix would hide it."""
    problem, grid = manufactured(polynomial(4), Star()), CartesianGrid.uniform(48)
    system = PLG(enrichment=rho).discretise(problem, grid)
    x = grid.coordinates(system.node_index)
    left = system.matrix @ problem.exact(*x.T) + system.boundary_matrix @ problem.boundary.data(
        system.boundary_points
    )
    assert np.abs(left - problem.source(*x.T)).max() < 1e-9  # entries are of order 48^2


@pytest.mark.parametrize(
    ("dim", "degree", "cross"),
    [
        (2, 2, (-2.0, 1.0)),
        (2, 4, (-5 / 2, 4 / 3, -1 / 12)),
        (2, 6, (-49 / 18, 3 / 2, -3 / 20, 1 / 90)),
        (3, 2, (-2.0, 1.0)),
        (3, 4, (-5 / 2, 4 / 3, -1 / 12)),
    ],
)
def test_centred_lattice_gives_the_classical_cross(dim: int, degree: int, cross: tuple[float, ...]) -> None:
    exponents = multi_indices(degree, dim)
    near_first = [sign * k for k in range(1, degree // 2 + 1) for sign in (1, -1)]
    points = lattice_points(((0, *near_first),) * dim)
    rows = monomials(points.astype(float), exponents)[None]
    functional = Laplacian(dim).monomial_coefficients(exponents, np.ones(dim), np.zeros((1, dim)))
    s, condition = fit_functional(rows, np.ones((1, len(points))), functional[..., None])
    for point, weight in zip(points, s[0, :, 0], strict=True):
        away = np.abs(point).max()
        expected = dim * cross[0] if away == 0 else cross[away] if (point != 0).sum() == 1 else 0.0
        assert weight == pytest.approx(expected, abs=1e-12)
    total = {(2, 4): 32 / 3, (3, 4): 16.0}.get((dim, degree))
    assert total is None or np.abs(s).sum() == pytest.approx(total)
    # Table 2.1 of the sheet, without column scaling.
    raw = {(2, 2): 8.069, (2, 4): 109.2, (2, 6): 5559, (3, 2): 14.11, (3, 4): 273.9}[dim, degree]
    assert np.linalg.cond(rows[0]) == pytest.approx(raw, rel=1e-3)
    scaled = rows[0] / np.linalg.norm(rows[0], axis=0)
    assert condition[0] == pytest.approx(np.linalg.cond(scaled), rel=0.05)


def test_regular_stencil_differentiates_exactly() -> None:
    x = np.random.default_rng(0).uniform(-0.4, 0.4, (5, 2))
    for operator in (MIXED, VARIABLE):
        for degree, order in ((2, 2), (3, 4), (4, 4), (5, 6), (6, 6)):
            offsets, weights = regular_stencil(operator, (0.5, 0.25), degree, x)
            exponents = multi_indices(order, 2)
            applied = weights @ monomials(offsets.astype(float), exponents)
            expected = operator.monomial_coefficients(exponents, np.array([0.5, 0.25]), x)
            assert applied == pytest.approx(expected, abs=1e-10)


def test_weights_do_not_change_exactness_and_padding_has_no_effect() -> None:
    rng = np.random.default_rng(4)
    exponents = multi_indices(3, 2)
    xi = rng.normal(size=(5, 25, 2))
    functional = Laplacian(2).monomial_coefficients(exponents, np.ones(2), np.zeros((1, 2)))
    functional = np.stack([np.repeat(functional, 5, axis=0), rng.normal(size=(5, 10))], axis=-1)
    rows, w = monomials(xi, exponents), rng.uniform(0.1, 2, (5, 25))
    s, _ = fit_functional(rows, w, functional)
    assert np.einsum("bmk,bmn->bnk", s, rows) == pytest.approx(functional, abs=1e-9)
    exact = rng.normal(size=(5, 10))
    coefficients, _ = fit_polynomial(rows, w, np.einsum("bmn,bn->bm", rows, exact))
    assert coefficients == pytest.approx(exact, abs=1e-9)
    padded, _ = fit_functional(
        np.concatenate([rows, rng.normal(size=(5, 3, 10))], 1),
        np.concatenate([w, np.zeros((5, 3))], 1),
        functional,
    )
    assert padded[:, :25] == pytest.approx(s, abs=1e-10)
    assert not padded[:, 25:].any()


def test_rank_deficient_fit_is_reported() -> None:
    exponents = multi_indices(2, 2)
    on_a_line = np.stack([np.arange(8.0), np.arange(8.0)], axis=1)[None]
    _, condition = fit_functional(monomials(on_a_line, exponents), np.ones((1, 8)), np.ones((1, 6, 1)))
    assert np.isinf(condition).all()


def test_enrichment_takes_the_core_first_then_the_nearest() -> None:
    core = lattice_points(((0, 1, 2), (0, 1, 2)))
    shells = [[(-1, 0), (0, -1)], [(-1, -1), (-1, 1), (1, -1)], [(-2, 0), (0, -2)]]
    for count, whole in ((6, 0), (7, 0), (8, 1), (10, 1), (11, 2), (13, 3)):
        nodes = enrich(np.ones((5, 5), bool), core, count)
        assert nodes[: len(core)].tolist() == core.tolist()
        assert sorted(map(tuple, nodes[len(core) :].tolist())) == sorted(itertools.chain(*shells[:whole]))


# Sheet: star, smooth u, Dirichlet, n = 4, rho = 1. L2 errors at N = 40, 80, 160, 320.
STAR_L2 = {1.0: (1.7e-7, 4.5e-9, 1.3e-10, 5.0e-12), 3.0: (None, 5.8e-10, 1.9e-11, 6.4e-13)}


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_star_reference_errors_and_order(power: float) -> None:
    grids = (40, 80, 160, 320)
    problem = problem_registry["poisson"](Star())
    solutions = [solve(problem, CartesianGrid.uniform(n), PLG(weight_power=power)) for n in grids]
    assert [s.info["unknowns"] for s in solutions] == [501, 2033, 8137, 32573]
    assert [s.info["irregular"] for s in solutions] == [280, 596, 1208, 2432]
    errors = [s.errors()["l2"] for s in solutions]
    for error, reference in zip(errors, STAR_L2[power], strict=True):
        assert reference is None or error <= 2 * reference
    rate = -np.polyfit(np.log(grids), np.log(errors), 1)[0]
    assert 4.0 <= rate <= 5.6
    assert 0.98 * 344_229 <= solutions[-1].info["nonzeros"] <= 344_229  # parts of a shell are left out


@pytest.mark.parametrize(("degree", "low", "high"), [(2, 1.8, 3.2), (3, 3.7, 5.0), (4, 4.0, 5.8)])
def test_order_follows_the_degree(degree: int, low: float, high: float) -> None:
    grids = (40, 57, 80, 113)
    problem = problem_registry["poisson"](Disk(0.41, (0.013, 0.007)))
    errors = [solve(problem, CartesianGrid.uniform(n), PLG(degree=degree)).errors()["l2"] for n in grids]
    rate = -np.polyfit(np.log(grids), np.log(errors), 1)[0]
    assert low <= rate <= high, errors


def test_johansen_colella_problem() -> None:
    """Sheet, n = 4, rho = 1, p = 1: L2 of 5.4e-7, 1.5e-8, 4.2e-10 at N = 40, 80, 160."""
    problem = problem_registry["johansen-colella"](Star())
    for n, reference in ((40, 5.4e-7), (80, 1.5e-8), (160, 4.2e-10)):
        assert solve(problem, CartesianGrid.uniform(n), PLG(weight_power=1.0)).errors()["l2"] <= 2 * reference


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_spectrum_lies_in_the_left_half_plane(power: float) -> None:
    system = PLG(weight_power=power).discretise(
        problem_registry["poisson"](Star()), CartesianGrid.uniform(48)
    )
    assert np.linalg.eigvals(system.matrix.toarray()).real.max() / 48**2 < -0.05


def test_unweighted_fits_are_unstable() -> None:
    """The sheet's warning: without weights some eigenvalue has a positive real part."""
    system = PLG(weight_power=0.0).discretise(problem_registry["poisson"](Star()), CartesianGrid.uniform(48))
    assert np.linalg.eigvals(system.matrix.toarray()).real.max() / 48**2 > 0.1


def test_first_eigenvalue_of_the_disk() -> None:
    """The smallest eigenvalue of -Laplace on the unit-type disk is (j_01 / R)^2."""
    radius = 0.4
    system = PLG().discretise(Poisson(Disk(radius), 0.0), CartesianGrid.uniform(64))
    value = eigs(system.matrix.tocsc(), k=1, sigma=0, return_eigenvectors=False)[0]
    assert -value.real == pytest.approx((2.404825557695773 / radius) ** 2, rel=1e-6)


def test_nodes_across_a_gap_are_refused() -> None:
    """Two half disks separated by a slit of 1.5 h carry different solutions; each must be exact."""
    n = 60
    slit = Box((-0.4, -0.0125), (0.4, 0.0125))
    domain = Disk(0.4) - slit

    def exact(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(y > 0, np.exp(x) * np.sin(y), 5 + x**2 - y**2)

    problem = Poisson(domain, 0.0, Dirichlet(exact), exact)
    assert solve(problem, CartesianGrid.uniform(n)).errors()["linf"] < 1e-6


class Scaled(PlaneDomain):
    """The same region with another function that is negative inside."""

    def __init__(self, domain: Domain, scale: float) -> None:
        self.domain, self.scale = domain, scale

    def phi(self, points: np.ndarray) -> np.ndarray:
        return self.scale * self.domain.phi(points)

    def arcs(self) -> tuple:
        return self.domain.arcs()


@pytest.mark.parametrize("scale", [1e-9, 0.05, 20.0])
def test_phi_need_not_be_a_distance(scale: float) -> None:
    slit = Box((-0.4, -0.0125), (0.4, 0.0125))

    def exact(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(y > 0, np.exp(x) * np.sin(y), 5 + x**2 - y**2)

    problem = Poisson(Scaled(Disk(0.4) - slit, scale), 0.0, Dirichlet(exact), exact)
    assert solve(problem, CartesianGrid.uniform(60)).errors()["linf"] < 1e-6


def test_operands_that_touch_leave_no_seam() -> None:
    halves = Box((-0.4, -0.4), (0.0, 0.4)) | Box((0.0, -0.4), (0.4, 0.4))
    whole = Box((-0.4, -0.4), (0.4, 0.4))
    solutions = [solve(manufactured(polynomial(4), d), CartesianGrid.uniform(40)) for d in (halves, whole)]
    assert solutions[0].info["unknowns"] == solutions[1].info["unknowns"]
    assert solutions[0].errors()["linf"] < 1e-11


def test_thin_domain_is_refused_with_a_remedy() -> None:
    sliver = Disk(0.4) & Disk(0.4, (0.78, 0.0))
    with pytest.raises(StencilError, match=r"thinner than the stencil .* use about 80 cells"):
        solve(Poisson(sliver, 1.0), CartesianGrid.uniform(40, (-0.6, -0.6), (0.6, 0.6)))


def test_fallbacks_are_counted() -> None:
    """A channel four nodes wide holds no lattice of degree 4; its boundary data make up the rank."""
    channel = Box((-0.4, -0.045), (0.4, 0.06))
    solution = solve(manufactured(polynomial(4), channel), CartesianGrid.uniform(40), PLG())
    assert solution.info["least_squares_fallbacks"] > 0
    assert solution.errors()["linf"] < 1e-11


def test_manufactured_takes_any_symbols_of_the_right_name() -> None:
    import sympy

    problem = manufactured(sympy.exp(sympy.Symbol("x")) * sympy.Symbol("y", positive=True), Disk())
    assert problem.exact(np.array([0.0]), np.array([2.0])) == pytest.approx([2.0])


def test_conjugate_gradients_without_preconditioner() -> None:
    from sciml.solvers.linear import conjugate_gradient

    matrix = np.diag(np.arange(1.0, 11.0)) + 0.1
    rhs = np.arange(10)
    x, history = conjugate_gradient(lambda v: matrix @ v, rhs, lambda r: r, 1e-12)
    assert matrix @ x == pytest.approx(rhs, abs=1e-9)
    assert len(history) <= 12  # at most as many iterations as distinct eigenvalues
    with pytest.raises(ConvergenceError, match="no convergence"):
        conjugate_gradient(lambda v: matrix @ v, rhs, lambda r: r, 1e-12, max_iterations=3)


def test_bad_input() -> None:
    grid = CartesianGrid.uniform(40)
    with pytest.raises(GeometryError, match="leaves the grid's box"):
        solve(Poisson(Disk(0.6), 1.0), grid)
    with pytest.raises(GeometryError, match="no node"):
        solve(Poisson(Disk(0.01, (0.0125, 0.0125)), 1.0), grid)
    with pytest.raises(ConfigError, match=r"source is nan at \("):
        solve(Poisson(Disk(), lambda x, y: np.where(x > 0.2, np.nan, 1.0)), grid)
    with pytest.raises(ConfigError, match="Dirichlet data is inf"):
        solve(Poisson(Disk(), 1.0, Dirichlet(np.inf)), grid)
    with pytest.raises(ConfigError, match=r"source returned .* of shape \(3,\)"):
        solve(Poisson(Disk(), lambda x, y: np.ones(3)), grid)
    with pytest.raises(ConfigError, match="degree=7"):
        PLG(degree=7)
    with pytest.raises(ConfigError, match="not elliptic"):
        EllipticOperator(((1.0, 0.0), (0.0, -1.0)))
    with pytest.raises(ConfigError, match="contains t"):
        manufactured("x*t", Disk())
    with pytest.raises(ConfigError, match="cannot be read"):
        manufactured("x +* y", Disk())
    with pytest.raises(ConfigError, match="source returned ndarray"):
        solve(Poisson(Disk(), lambda x, y: x + 1j), grid)
    with pytest.raises(ConfigError, match="bounded grid"):
        solve(Poisson(Disk(), 1.0), CartesianGrid.uniform(40, periodic=True))
    with pytest.raises(ConfigError, match="3D operator on a 2D domain"):
        EllipticProblem(Disk(), Laplacian(3), 0.0, Dirichlet())
    with pytest.raises(ConfigError, match="no exact solution"):
        solve(Poisson(Disk(), 1.0), grid).errors()


def test_singular_matrix_is_reported() -> None:
    import scipy.sparse as sp

    from sciml.solvers.linear import DirectSolver

    with pytest.raises(ConvergenceError, match="singular"):
        DirectSolver(sp.csr_array(np.array([[1.0, 1.0], [1.0, 1.0]])))
