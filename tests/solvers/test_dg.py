"""Discontinuous Galerkin methods: exactness, orders on meshes with hanging nodes, conservation, jumps."""

import functools
import math
from dataclasses import astuple

import numpy as np
import pytest

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers.dg import (
    AdvectionProblem,
    DGAdvection,
    DGDiffusion,
    DiffusionProblem,
    TreeFunction,
    TreeMesh,
    advect,
    advection_jumps,
    diffusion_jumps,
    solve_advection,
    solve_diffusion,
)
from sciml.solvers.dg.reference import reference_cell


def line(count: int, periodic: bool = False) -> TreeMesh:
    """Leaves of two sizes."""
    mesh = TreeMesh((0.0,), (1.0,), (count,), (periodic,))
    return mesh.refine(np.flatnonzero(np.abs(mesh.centres[:, 0] - 0.4) < 0.2))


def plane(count: int, periodic: tuple[bool, bool] = (False, False)) -> TreeMesh:
    """Leaves of three sizes, with hanging nodes on all sides."""
    mesh = TreeMesh((0.0, 0.0), (1.0, 1.0), (count, count), periodic)
    for radius in (0.35, 0.15):
        mesh = mesh.refine(np.hypot(*(mesh.centres - [0.45, 0.55]).T) < radius)
    return mesh


def fitted(counts: list[int], errors: list[float]) -> float:
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


def rotation() -> tuple:
    return (lambda x, y: 0.5 - y, lambda x, y: x - 0.5)


# Steady advection


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("velocity", [1.0, -2.0])
def test_order_of_steady_advection_on_an_interval(order: int, velocity: float) -> None:
    exact = lambda x: np.sin(5 * x)  # noqa: E731
    problem = AdvectionProblem((velocity,), lambda x: 5 * velocity * np.cos(5 * x), exact)
    counts = [8, 16, 32, 64]
    errors = [solve_advection(problem, line(n), order).errors(exact)["l2"] for n in counts]
    assert order + 0.85 < fitted(counts, errors) < order + 1.4
    assert errors[-1] < 10.0 * 64.0 ** -(order + 1)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("flow", ["constant", "variable"])
def test_order_of_steady_advection_on_quadtrees(order: int, flow: str) -> None:
    exact = lambda x, y: np.sin(3 * x + 2 * y)  # noqa: E731
    slope = lambda x, y: np.cos(3 * x + 2 * y)  # noqa: E731
    if flow == "constant":
        problem = AdvectionProblem((1.0, -0.7), lambda x, y: (3 - 1.4) * slope(x, y), exact)
    else:
        # Free of divergence, and entering through parts of sides.
        velocity = (lambda x, y: 1.0 + y, lambda x, y: x - 0.3)
        problem = AdvectionProblem(velocity, lambda x, y: (3 * (1 + y) + 2 * (x - 0.3)) * slope(x, y), exact)
    counts = [6, 12, 24, 48] if order == 0 else [3, 6, 12, 24] if flow == "constant" else [4, 6, 8, 12]
    errors = [solve_advection(problem, plane(n), order).errors(exact)["l2"] for n in counts]
    assert order + 0.8 < fitted(counts, errors) < order + 1.4
    assert errors[-1] < 3.0 * counts[-1] ** -(order + 1.0)


def test_polynomials_of_the_space_are_solved_for_exactly() -> None:
    exact = lambda x, y: x**3 * y**3 - y  # noqa: E731
    problem = AdvectionProblem((2.0, 1.0), lambda x, y: 6 * x**2 * y**3 + 3 * x**3 * y**2 - 1, exact)
    assert solve_advection(problem, plane(2), 3).errors(exact)["linf"] < 1e-12


def test_sweeping_an_interval_solves_the_system() -> None:
    problem = AdvectionProblem((-1.5,), lambda x: np.exp(x), 0.3)
    method = DGAdvection(problem, line(7), 3)
    u = method.solve().coefficients
    assert np.abs(method.matrix @ u.ravel() - method.load().ravel()).max() < 1e-13
    # Of a velocity that is a function the system is solved.
    general = AdvectionProblem((lambda x: -1.5 + 0 * x,), lambda x: np.exp(x), 0.3)
    assert np.allclose(DGAdvection(general, line(7), 3).solve().coefficients, u, rtol=0, atol=1e-13)


def test_circles_in_the_flow_are_solved_as_a_system() -> None:
    """Round about a spring in the middle no leaf is upstream of all others."""
    spiral = (lambda x, y: 0.5 - y + 0.2 * (x - 0.5), lambda x, y: x - 0.5 + 0.2 * (y - 0.5))
    exact = lambda x, y: 1 + x * y  # noqa: E731
    problem = AdvectionProblem(
        spiral, lambda x, y: 0.4 * exact(x, y) + spiral[0](x, y) * y + spiral[1](x, y) * x, exact
    )
    method = DGAdvection(problem, plane(2), 2)
    assert method._in_fronts() is None
    assert method.solve().errors(exact)["linf"] < 1e-11


def test_flow_round_in_circles_has_no_steady_solution() -> None:
    with pytest.raises(ConvergenceError, match="no unique solution"):
        solve_advection(AdvectionProblem((1.0,), 1.0), TreeMesh((0.0,), (1.0,), (4,), (True,)), 1)
    with pytest.raises(ConvergenceError, match="no unique solution"):
        solve_advection(AdvectionProblem((0.0,), 1.0), line(4), 1)


# Advection in time


def travelling(x: np.ndarray, t: float = 0.0) -> np.ndarray:
    return np.exp(np.sin(2 * np.pi * (x - t)))


def swinging(x: np.ndarray, y: np.ndarray, t: float = 0.0) -> np.ndarray:
    return np.exp(np.sin(2 * np.pi * (x - t)) * np.cos(2 * np.pi * (y + t)))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("dim", [1, 2])
def test_order_of_advection_in_time(order: int, dim: int) -> None:
    counts = [4, 8, 16, 32] if dim == 1 else [3, 5, 8, 12]
    problem = AdvectionProblem((1.0,) if dim == 1 else (1.0, -1.0))
    exact = travelling if dim == 1 else swinging
    errors = []
    for n in counts:
        mesh = line(n, periodic=True) if dim == 1 else plane(n, (True, True))
        *_, last = advect(problem, TreeFunction.projected(exact, mesh, order), [0.0, 0.35])
        errors.append(last.errors(functools.partial(exact, t=0.35))["l2"])
    assert order + 0.75 < fitted(counts, errors) < order + 1.6


def test_velocities_are_asked_for_where_something_flows() -> None:
    """The midpoint of a coarse side with a hanging node is no node of a face: the vortex may stand there."""

    def square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x - 0.5) ** 2 + (y - 0.5) ** 2

    vortex = (lambda x, y: (0.5 - y) / square(x, y), lambda x, y: (x - 0.5) / square(x, y))
    mesh = TreeMesh((0.0, 0.0), (1.0, 1.0), (2, 1)).refine([0])
    assert np.isfinite(DGAdvection(AdvectionProblem(vortex), mesh, 2).face_flow.flux).all()


@pytest.mark.parametrize("dim", [1, 2])
def test_steady_solutions_are_of_the_data_at_time_zero(dim: int) -> None:
    def source(*arguments: np.ndarray) -> np.ndarray:
        return 1 + arguments[0] + arguments[-1]

    def inflow(*arguments: np.ndarray) -> np.ndarray:
        return arguments[0] ** 2 + arguments[-1]

    given = {1: (lambda x, t: source(x, t), lambda x, t: inflow(x, t))}
    given[2] = (lambda x, y, t: source(x, t), lambda x, y, t: inflow(x, t))
    problems = (
        AdvectionProblem((1.0,) * dim, *data)
        for data in (given[dim], (lambda *x: source(x[0], 0.0), lambda *x: inflow(x[0], 0.0)))
    )
    mesh = TreeMesh((0.0,) * dim, (1.0,) * dim, (3,) * dim).refine([1])
    changing, constant = (solve_advection(problem, mesh, 2).coefficients for problem in problems)
    assert np.array_equal(changing, constant)
    assert np.abs(constant).max() > 1


def test_a_bump_comes_back_after_a_turn() -> None:
    bump = lambda x, y: np.exp(-100 * ((x - 0.5) ** 2 + (y - 0.75) ** 2))  # noqa: E731
    start = TreeFunction.projected(bump, plane(8), 3)
    *_, half, whole = advect(AdvectionProblem(rotation()), start, [0.0, math.pi, 2 * math.pi])
    assert half.errors(lambda x, y: np.exp(-100 * ((x - 0.5) ** 2 + (y - 0.25) ** 2)))["l2"] < 2e-3
    assert whole.errors(bump)["l2"] < 3e-3


def test_mass_is_kept_and_energy_never_grows() -> None:
    rng = np.random.default_rng(1)
    mesh = plane(3, (True, True))
    u = TreeFunction(mesh, 2, rng.normal(size=(len(mesh), 9)))
    energies = []
    for v in advect(AdvectionProblem((0.8, -1.1)), u, [0.0, 0.05, 0.2, 1.0]):
        assert abs(v.integral() - u.integral()) < 1e-13
        energies.append(mesh.volumes @ (v.coefficients**2).sum(axis=1))
    assert (np.diff(energies) < 0).all()


def test_matrix_is_dissipative_also_at_hanging_nodes() -> None:
    for problem, mesh in (
        (AdvectionProblem((0.8, -1.1)), plane(2)),
        (AdvectionProblem(rotation()), plane(2)),
        (AdvectionProblem((1.0,)), line(5, periodic=True)),
    ):
        matrix = DGAdvection(problem, mesh, 2).matrix.toarray()
        assert np.linalg.eigvalsh(matrix + matrix.T).min() > -1e-13
        # What leaves a leaf enters another or the outside: constants are weighed by boundary terms alone.
        if mesh.periodic[0]:
            ones = np.zeros((len(mesh), reference_cell(mesh.dim, 2).size))
            ones[:, 0] = 1.0
            assert np.abs(ones.ravel() @ matrix).max() < 1e-13


@pytest.mark.parametrize("order", [1, 2, 3])
def test_longest_step_is_stable(order: int) -> None:
    """The polynomial of the step stays below 1 on all eigenvalues, at hanging nodes too."""
    method = DGAdvection(AdvectionProblem((1.0, 0.4)), plane(2, (True, True)), order)
    rates = -method.matrix.toarray() / np.repeat(method.mesh.volumes, method.cell.size)[:, None]
    z = method.stable_step * np.linalg.eigvals(rates)
    growth = sum(z**k / math.factorial(k) for k in range(max(order + 1, 3) + 1))
    assert np.abs(growth).max() < 1 + 1e-12


def test_data_that_change_in_time() -> None:
    exact = lambda x, t: np.sin(x - 2 * t) + t * x  # noqa: E731
    problem = AdvectionProblem((2.0,), lambda x, t: x + 2 * t, exact)
    start = TreeFunction.projected(lambda x: exact(x, 0.5), line(12), 3)
    *_, last = advect(problem, start, [0.5, 1.3])
    assert last.errors(lambda x: exact(x, 1.3))["linf"] < 1e-6


# Diffusion


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_order_of_diffusion(order: int) -> None:
    exact = lambda x: np.cos(4 * x) + x  # noqa: E731
    problem = DiffusionProblem(lambda x: 16 * np.cos(4 * x), exact)
    counts = [4, 8, 16, 32]
    errors = [solve_diffusion(problem, line(n), order).errors(exact)["l2"] for n in counts]
    assert order + 0.8 < fitted(counts, errors) < order + 1.4


@pytest.mark.parametrize("velocity", [20.0, -20.0])
def test_boundary_layers(velocity: float) -> None:
    """u = 1 - (1 - e^(b x / k)) / (1 - e^(b / k)) solves the problem without a source."""
    kappa = 0.5
    exact = lambda x: np.expm1(-velocity * (1 - x) / kappa) / np.expm1(-velocity / kappa)  # noqa: E731
    scaled = lambda x: 1 - np.expm1(velocity * x / kappa) / np.expm1(velocity / kappa)  # noqa: E731
    problem = DiffusionProblem(0.0, scaled, kappa, velocity)
    counts = [16, 32, 64, 128]
    errors = [solve_diffusion(problem, line(n), 2).errors(scaled)["l2"] for n in counts]
    assert 2.7 < fitted(counts, errors) < 3.4
    assert exact(0.0) <= 1.0


def test_diffusion_is_symmetric_and_coercive_without_a_wind() -> None:
    mesh = TreeMesh((0.0,), (1.0,), (3,))
    for _ in range(6):
        mesh = mesh.refine([1])
    for order in (1, 2, 3, 5):
        method = DGDiffusion(DiffusionProblem(1.0), mesh, order)
        diagonal, below, above = method.blocks
        n, count = method.cell.size, len(mesh)
        matrix = np.zeros((count, n, count, n))
        for i in range(count):
            matrix[i, :, i] = diagonal[i]
        for i in range(count - 1):
            matrix[i + 1, :, i], matrix[i, :, i + 1] = below[i], above[i]
        matrix = matrix.reshape(count * n, -1)
        assert np.allclose(matrix, matrix.T, rtol=1e-13)
        assert np.linalg.eigvalsh(matrix).min() > 0
        u = method.solve().coefficients.ravel()
        assert np.abs(matrix @ u - method.load.ravel()).max() < 1e-11


def test_polynomials_of_diffusion_are_exact_with_wind_and_data() -> None:
    exact = lambda x: x**3 - 2 * x + 1  # noqa: E731
    for wind in (0.0, 3.0, -3.0):
        problem = DiffusionProblem(lambda x, b=wind: -0.1 * 6 * x + b * (3 * x**2 - 2), exact, 0.1, wind)
        assert solve_diffusion(problem, line(4), 3).errors(exact)["linf"] < 1e-12


# Jumps


def test_jumps_vanish_with_the_error_and_know_their_side() -> None:
    exact = lambda x, y: x**2 - y  # noqa: E731
    problem = AdvectionProblem((1.0, -2.0), lambda x, y: 2 * x + 2, exact)
    method = DGAdvection(problem, plane(3), 2)
    found = advection_jumps(method, method.solve().coefficients)
    assert max(map(np.max, (found.nonconformity, found.entering, found.leaving))) < 1e-13
    # One leaf is lifted: all its sides jump by 1, and those of its neighbours that it touches.
    leaf = int(method.mesh.find(np.array([0.45, 0.55])))
    u = np.zeros((len(method.mesh), 9))
    u[leaf, 0] = 1.0
    still = DGAdvection(AdvectionProblem((1.0, -2.0)), method.mesh, 2)
    found = advection_jumps(still, u)
    h = method.mesh.sizes[leaf]
    assert np.isclose(found.nonconformity[leaf], 1.0)
    assert np.isclose(found.entering[leaf], h.sum())
    assert np.isclose(found.leaving[leaf], h.sum())
    assert np.isclose(found.entering.sum(), 2 * h.sum())
    assert np.isclose(found.entering.sum(), found.leaving.sum())


@pytest.mark.parametrize("velocity", [2.0, -2.0])
def test_jumps_on_a_line_are_those_of_faces(velocity: float) -> None:
    u = np.random.default_rng(4).normal(size=(len(line(5)), 3))
    constant = DGAdvection(AdvectionProblem((velocity,), 0.0, 0.7), line(5), 2)
    general = DGAdvection(AdvectionProblem((lambda x: velocity + 0 * x,), 0.0, 0.7), line(5), 2)
    for a, b in zip(astuple(advection_jumps(constant, u)), astuple(advection_jumps(general, u)), strict=True):
        assert np.allclose(a, b, rtol=1e-13)


def test_jumps_do_not_depend_on_sign_and_scale_with_the_solution() -> None:
    method = DGAdvection(AdvectionProblem(rotation()), plane(3), 2)
    u = np.random.default_rng(2).normal(size=(len(method.mesh), 9))
    first, second = advection_jumps(method, u), advection_jumps(method, -3 * u)
    for name in ("nonconformity", "entering", "leaving"):
        assert np.allclose(3 * getattr(first, name), getattr(second, name), rtol=1e-13)


def test_jumps_point_at_what_is_poorly_resolved() -> None:
    """A front in the middle: of steady advection's leaves the one with the front jumps most, seen from downstream."""
    exact = lambda x: np.tanh(40 * (x - 0.55))  # noqa: E731
    problem = AdvectionProblem((1.0,), lambda x: 40 / np.cosh(40 * (x - 0.55)) ** 2, exact)
    method = DGAdvection(problem, TreeMesh((0.0,), (1.0,), (8,)), 3)
    u = method.solve()
    assert advection_jumps(method, u.coefficients).entering.argmax() == 4
    layer = DiffusionProblem(lambda x: 3200 * np.tanh(40 * (x - 0.55)) / np.cosh(40 * (x - 0.55)) ** 2, exact)
    method = DGDiffusion(layer, TreeMesh((0.0,), (1.0,), (8,)), 3)
    assert diffusion_jumps(method, method.solve().coefficients).nonconformity.argmax() == 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AdvectionProblem(1.0), "velocity=1.0"),
        (lambda: AdvectionProblem((1.0, np.inf)), "finite"),
        (lambda: DGAdvection(AdvectionProblem((1.0,)), plane(2), 1), "1 components on a 2D mesh"),
        (lambda: solve_advection(AdvectionProblem((1.0,), lambda x: x / 0), line(2)), "source"),
        (lambda: solve_advection(AdvectionProblem((1.0,), 1.0, np.nan), line(2)), "inflow"),
        (lambda: DiffusionProblem(1.0, diffusion=0.0), "diffusion=0.0"),
        (lambda: DiffusionProblem(1.0, velocity=np.nan), "velocity=nan"),
        (lambda: DGDiffusion(DiffusionProblem(1.0), plane(2), 1), "2 axes"),
        (lambda: solve_diffusion(DiffusionProblem(1.0), line(2), 0), "order=0"),
        (
            lambda: list(
                advect(AdvectionProblem((1.0,)), TreeFunction.projected(0.0, line(2), 1), [1.0, 0.5])
            ),
            "times",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_input_is_named(make, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_solutions_are_drawn() -> None:
    for mesh in (line(3), plane(2)):
        u = TreeFunction.projected(lambda x, *_: np.sin(x), mesh, 2)
        ax = u.plot()
        assert ax.get_xlabel() == "x"
        assert len(ax.lines) == (2 if mesh.dim == 1 else 1)
        if mesh.dim == 1:
            drawn = ax.lines[0].get_xydata()
            assert np.nanmax(np.abs(drawn[:, 1] - np.sin(drawn[:, 0]))) < 1e-2


@pytest.mark.parametrize("dim", [1, 2])
def test_jumps_on_a_single_leaf(dim: int) -> None:
    velocity = (lambda *x: 1 + 0 * x[0],) * dim
    mesh = TreeMesh((0.0,) * dim, (1.0,) * dim, (1,) * dim)
    method = DGAdvection(AdvectionProblem(velocity, inflow=2.0), mesh, 0)
    found = advection_jumps(method, np.array([[5.0]]))
    # Through half of the sides something enters, 3 less than there is.
    assert found.entering == pytest.approx([3.0 * dim])
    assert found.nonconformity == pytest.approx([1.5])
    assert found.leaving.tolist() == [0.0]
