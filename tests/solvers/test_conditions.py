"""Boundary conditions and operators: exactness, reference errors, orders, spectra, refusals."""

import pickle

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from sciml.errors import ConfigError
from sciml.solvers import (
    PLG,
    BoundaryCondition,
    Box,
    CartesianGrid,
    Dirichlet,
    Disk,
    DivAGrad,
    Domain,
    EllipticOperator,
    EllipticProblem,
    Laplacian,
    Mixed,
    Neumann,
    Poisson,
    Robin,
    Star,
    WithNormal,
    manufactured,
    problem_registry,
    solve,
)
from sciml.solvers.plg.neighbourhoods import Neighbourhoods

SMOOTH = "exp(x)*sin(2*y) + sin(3*x*y + 0.3)"
CROSS = EllipticOperator(((1.0, 0.5), (0.5, 2.0)))
VARIABLE = EllipticOperator((("2 + x*y", "x/4"), ("x/4", "1 + y**2")), first=("y", -0.7), zeroth="-exp(x)")
CORNERS = Box() - Box((0.0, 0.0), (0.4, 0.4))


def right_half(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x > 0


def slowly(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 1 + x**2


CONDITIONS: dict[str, BoundaryCondition] = {
    "dirichlet": Dirichlet(),
    "neumann": Neumann(),
    "robin": Robin(slowly),
    "mixed": Mixed(((right_half, Neumann()), (0, Robin(2.0)))),
}


def errors(problem: EllipticProblem, grids: tuple[int, ...], method: PLG) -> list[float]:
    return [solve(problem, CartesianGrid.uniform(n), method).errors()["l2"] for n in grids]


def rate(grids: tuple[int, ...], values: list[float]) -> float:
    return float(-np.polyfit(np.log(grids), np.log(values), 1)[0])


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS.keys())
@pytest.mark.parametrize("degree", [2, 3, 4, 5, 6])
def test_residual_of_polynomials_is_round_off(degree: int, condition: BoundaryCondition) -> None:
    """A u + G g = f for every u of degree n, whatever the condition, on unequal spacings too."""
    rng = np.random.default_rng(degree)
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    expression = " + ".join(f"({rng.uniform(-1, 1):.3f})*x**{i}*y**{j}" for i, j in terms)
    for domain, operator in ((Star(0.3, 0.1, 3), VARIABLE), (CORNERS, CROSS)):
        grid = CartesianGrid((-0.5, -0.5), (0.5, 0.5), (52, 60))
        problem = manufactured(expression, domain, operator, boundary=condition)
        system = PLG(degree=degree).discretise(problem, grid)
        x = grid.coordinates(system.node_index)
        left = system.matrix @ problem.exact(*x.T)
        left += system.boundary_matrix @ problem.boundary.data(system.boundary_points)
        assert np.abs(left - problem.source(*x.T)).max() < 1e-9 * 60**2


# Sheet, section 4.3, star, smooth u, n = 4, rho = 1, p = 1: L2 at N = 40, 80, 160, 320.
REFERENCE = {
    "robin": (Laplacian(2), Robin(1.0), 4, (1.5e-6, 6.6e-8, 5.3e-9, 3.5e-10)),
    "neumann": (Laplacian(2), Neumann(), 4, (2.7e-6, 1.2e-7, 1.0e-8, 7.0e-10)),
    "cross": (CROSS, Dirichlet(), 4, (2.3e-7, 4.3e-9, 9.6e-11, 3.8e-12)),
    "cross, n = 5": (CROSS, Dirichlet(), 5, (5.3e-8, 2.3e-9, 7.0e-12, 2.4e-13)),
}


@pytest.mark.parametrize("row", REFERENCE)
def test_reference_errors_and_orders(row: str) -> None:
    operator, condition, degree, reference = REFERENCE[row]
    grids = (40, 80, 160, 320) if degree == 4 else (40, 80, 160)
    problem = manufactured(SMOOTH, Star(), operator, boundary=condition)
    got = errors(problem, grids, PLG(degree=degree, weight_power=1.0))
    assert all(a <= 2 * b for a, b in zip(got, reference, strict=False)), got
    assert rate(grids, got) > (5.5 if degree == 5 else 3.8)


@pytest.mark.parametrize(
    ("degree", "rho", "reference"),
    [
        (4, 0.0, (1.5e-7, 1.9e-8, 2.4e-10)),
        (4, 0.5, (3.5e-7, 9.1e-9, 2.7e-10)),
        (4, 2.0, (2.4e-6, 7.2e-8, 9.1e-10)),
        (3, 1.0, (3.6e-6, 2.1e-7, 1.3e-8)),
    ],
)
def test_johansen_colella_problem_1(degree: int, rho: float, reference: tuple[float, ...]) -> None:
    method = PLG(degree=degree, enrichment=rho, weight_power=1.0)
    got = errors(problem_registry["johansen-colella"](Star()), (40, 80, 160), method)
    assert all(a <= 2 * b for a, b in zip(got, reference, strict=True)), got


def test_johansen_colella_problem_3() -> None:
    """Neumann on a star-shaped hole, Dirichlet on the box around it, which is aligned with the grid."""
    plain = problem_registry["johansen-colella"](Star())

    def flux(x: np.ndarray, y: np.ndarray, nx: np.ndarray, ny: np.ndarray) -> np.ndarray:
        r, cubic = np.hypot(x, y), x**3 - 3 * x * y**2
        return nx * (x / r * cubic + r * (3 * x**2 - 3 * y**2)) + ny * (y / r * cubic - 6 * r * x * y)

    def on_the_star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.hypot(x, y) < 0.35

    domain = Box((-0.5, -0.5), (0.5, 0.5)) - Star(0.25, 0.05, 6)
    condition = Mixed(((on_the_star, Neumann(WithNormal(flux))),), Dirichlet(plain.exact))
    problem = EllipticProblem(domain, Laplacian(2), plain.source, condition, plain.exact)
    grids = (40, 80, 160, 320)
    got = errors(problem, grids, PLG(weight_power=1.0))
    assert all(a <= 2 * b for a, b in zip(got, (6.8e-7, 2.8e-8, 1.8e-9, 9.9e-11), strict=True)), got
    assert rate(grids, got) > 3.8


ORDERS: dict[str, tuple[EllipticOperator, BoundaryCondition, Domain, int, tuple[int, ...]]] = {
    "mixed": (Laplacian(2), CONDITIONS["mixed"], Star(), 4, (40, 57, 80, 113)),
    "variable": (VARIABLE, Dirichlet(), Star(), 4, (40, 57, 80, 113)),
    "div a grad": (DivAGrad("1 + x*y + x**2"), Dirichlet(), Star(), 4, (40, 57, 80, 113)),
    "corners": (Laplacian(2), Dirichlet(), CORNERS, 4, (37, 75, 113, 151)),
    "sixth order": (Laplacian(2), Dirichlet(), Star(), 6, (40, 57, 80, 113)),
}


@pytest.mark.parametrize("row", ORDERS)
def test_orders(row: str) -> None:
    operator, condition, domain, degree, grids = ORDERS[row]
    got = errors(manufactured(SMOOTH, domain, operator, boundary=condition), grids, PLG(degree=degree))
    assert rate(grids, got) > (5.5 if degree == 6 else 3.8), got


SHAPES: dict[str, Domain] = {
    "disk": Disk(),
    "three petals": Star(0.3, 0.1, 3),
    "six petals": Star(),
    "annulus": Disk(0.45) - Disk(0.2),
    "L": CORNERS,
    "two disks": Disk(0.25, (-0.15, 0.0)) | Disk(0.25, (0.15, 0.05)),
}


def real_parts(condition: BoundaryCondition, domain: Domain, n: int, method: PLG) -> np.ndarray:
    """Real parts of the spectrum, times h^2."""
    matrix = method.discretise(Poisson(domain, 0.0, condition), CartesianGrid.uniform(n)).matrix / n**2
    return np.linalg.eigvals(matrix.toarray()).real


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("condition", ["dirichlet", "neumann", "mixed"])
def test_spectrum_lies_in_the_left_half_plane(condition: str, shape: str) -> None:
    values = real_parts(CONDITIONS[condition], SHAPES[shape], 36, PLG())
    assert values.max() < 1e-10
    assert (values > -1e-9).sum() == (condition == "neumann")  # constants, and nothing else


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("degree", [2, 3, 4, 5, 6])
def test_spectrum_on_finer_grids(degree: int, condition: str, shape: str) -> None:
    values = real_parts(CONDITIONS[condition], SHAPES[shape], 48, PLG(degree=degree))
    assert values.max() < 1e-10


def test_weak_diagonals_are_refitted() -> None:
    """A node all but on the point where Dirichlet data change to Neumann data: unstable when left alone."""
    condition = Mixed(((right_half, Neumann()),))
    grid = CartesianGrid.uniform(48)
    system = PLG().discretise(Poisson(Disk(0.4), 0.0, condition), grid)
    assert system.info["refitted"] == 1
    assert np.linalg.eigvals(system.matrix.toarray()).real.max() < 0
    assert PLG().discretise(Poisson(Disk(0.4), 0.0), grid).info["refitted"] == 0


@pytest.mark.parametrize("centre", [0.0, 0.4])
@pytest.mark.parametrize("width", [1.5, 0.5, 0.2, 0.01])
def test_nodes_across_a_gap_are_refused(width: float, centre: float) -> None:
    """A slit of width 1.5 h to 0.01 h, on a row of nodes or between two, cuts a disk in two solutions."""
    n = 60
    y0 = centre / n

    def exact(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(y > y0, np.exp(x) * np.sin(y), 5 + x**2 - y**2)

    domain = Disk(0.4) - Box((-0.45, y0 - width / n / 2), (0.45, y0 + width / n / 2))
    solution = solve(Poisson(domain, 0.0, Dirichlet(exact), exact), CartesianGrid.uniform(n))
    assert solution.errors()["linf"] < 1e-9
    # The matrix falls into two blocks.
    system = PLG().discretise(solution.problem, solution.grid)
    assert connected_components(system.matrix, directed=False)[0] == 2


def test_links_are_cut_by_gaps_only() -> None:
    grid = CartesianGrid.uniform(60)
    assert not Neighbourhoods(Star(), grid, 4, 1.0, 300).cut.any()
    slit = Star() - Box((-0.45, 0.006), (0.45, 0.007))
    cut = Neighbourhoods(slit, grid, 4, 1.0, 300).cut
    assert not cut[0].any()
    assert np.unique(np.nonzero(cut[1])[1]).tolist() == [30]  # from y = 0 to y = h


def test_pure_neumann_is_solved_for_mean_zero_and_checked() -> None:
    problem = manufactured(SMOOTH, Star(), boundary=Neumann())
    solution = solve(problem, CartesianGrid.uniform(80))
    assert abs(np.nanmean(solution.values)) < 1e-12
    assert abs(solution.info["compatibility_defect"]) < 1e-6
    assert solution.errors()["l2"] < 1e-7
    wrong = EllipticProblem(problem.domain, problem.operator, 1.0, Neumann(0.0))
    with pytest.raises(ConfigError, match=r"incompatible: the source exceeds the boundary flux by 1 "):
        solve(wrong, CartesianGrid.uniform(80))
    assert Poisson(Star(), 0.0, Robin(0.0)).determined_up_to_constants
    # A zeroth-order term determines the constant.
    reaction = EllipticOperator(Laplacian(2).second, zeroth=-1.0)
    helmholtz = manufactured(SMOOTH, Star(), reaction, boundary=Neumann())
    assert not helmholtz.determined_up_to_constants
    assert solve(helmholtz, CartesianGrid.uniform(80)).errors()["l2"] < 1e-7


def test_div_a_grad_forms_agree() -> None:
    """Text, a function by complex steps, and a function with a stated gradient are one operator."""
    x = np.random.default_rng(0).uniform(-0.4, 0.4, (50, 2))

    def a(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 2 + np.sin(3 * x) * np.exp(y)

    forms = [DivAGrad("2 + sin(3*x)*exp(y)"), DivAGrad(a)]
    forms.append(DivAGrad(a, gradient=("3*cos(3*x)*exp(y)", "sin(3*x)*exp(y)")))
    first = [form.coefficients(x)[1] for form in forms]
    assert first[1] == pytest.approx(first[0], abs=1e-14)
    assert first[2] == pytest.approx(first[0], abs=1e-14)


def test_problems_survive_pickling() -> None:
    for condition in CONDITIONS.values():
        problem = manufactured(SMOOTH, Star(), VARIABLE, boundary=condition)
        again = pickle.loads(pickle.dumps(problem))
        grid = CartesianGrid.uniform(40)
        assert np.array_equal(solve(problem, grid).values, solve(again, grid).values, equal_nan=True)


def test_bad_input() -> None:
    grid, x = CartesianGrid.uniform(40), np.zeros((3, 2))
    with pytest.raises(ConfigError, match=r"not elliptic at \["):
        solve(manufactured("x", Disk(), EllipticOperator((("x + 0.3", 0.0), (0.0, 1.0)))), grid)
    with pytest.raises(ConfigError, match="symmetric"):
        EllipticOperator(((1.0, "x"), (0.0, 1.0))).coefficients(x + 0.1)
    with pytest.raises(ConfigError, match="zeroth is nan"):
        solve(Poisson(Disk(), 1.0).__class__(Disk(), EllipticOperator(Laplacian(2).second, zeroth=np.nan),
                                             1.0, Dirichlet()), grid)  # fmt: skip
    with pytest.raises(ConfigError, match="analytic operations"):
        DivAGrad(lambda x, y: 2 + np.abs(x + y)).coefficients(x + 0.1)
    with pytest.raises(ConfigError, match="no expression"):
        manufactured("x", Disk(), EllipticOperator(((lambda x, y: 1 + x**2, 0.0), (0.0, 1.0))))
    with pytest.raises(ConfigError, match="one truth value per point"):
        solve(Poisson(Disk(), 1.0, Mixed(((lambda x, y: x, Neumann()),))), grid)
    with pytest.raises(ConfigError, match="Robin alpha is inf"):
        solve(Poisson(Disk(), 1.0, Robin(np.inf)), grid)
    with pytest.raises(ConfigError, match=r"Neumann data returned .* shape \(2,\)"):
        solve(Poisson(Disk(), 1.0, Neumann(lambda x, y: np.ones(2))), grid)


@pytest.mark.parametrize("alpha", [1e3, 1e9, 1e12])
def test_robin_tends_to_dirichlet(alpha: float) -> None:
    problem = manufactured(SMOOTH, Star(), boundary=Robin(alpha))
    assert solve(problem, CartesianGrid.uniform(60)).errors()["l2"] < 1e-8


def test_a_constant_given_as_text_is_a_number() -> None:
    operator = EllipticOperator(((1.0, 0.0), (0.0, 1.0)), zeroth="0")
    assert operator.annihilates_constants
    problem = manufactured(SMOOTH, Star(), operator, boundary=Neumann())
    assert solve(problem, CartesianGrid.uniform(60)).errors()["l2"] < 1e-6


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-9])
def test_small_functions_that_are_not_analytic_are_refused_too(scale: float) -> None:
    x = np.random.default_rng(0).uniform(-0.4, 0.4, (50, 2))
    with pytest.raises(ConfigError, match="analytic operations"):
        DivAGrad(lambda x, y: scale * np.abs(1 + x)).coefficients(x)
    first = DivAGrad(lambda x, y: scale * (1 + x**2)).coefficients(x)[1]
    assert np.allclose(first[:, 0], scale * 2 * x[:, 0], rtol=1e-12)
