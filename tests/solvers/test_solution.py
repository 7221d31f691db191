"""Solutions between the nodes: exactness, orders, balances, gaps, refusals, 3D pictures and files."""

import functools
import pickle
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import meshio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.polynomial import polyder, polyval2d

from sciml.errors import ConfigError, StencilError
from sciml.solvers import (
    PLG,
    Ball,
    BoundaryCondition,
    Box,
    CartesianGrid,
    Dirichlet,
    Disk,
    Domain,
    EllipticProblem,
    Laplacian,
    Mixed,
    Neumann,
    Poisson,
    Polygon,
    Robin,
    Solution,
    Star,
    manufactured,
    problem_registry,
    solve,
)
from sciml.solvers.functions import derivative
from sciml.solvers.polynomials import multi_indices
from sciml.solvers.quadrature import cut_cell_quadrature

GRIDS = (40, 50, 63, 80)


def right_half(x: np.ndarray, *rest: np.ndarray) -> np.ndarray:
    return x > 0


def cube(n: int, dim: int) -> CartesianGrid:
    return CartesianGrid.uniform(n, (-0.5,) * dim, (0.5,) * dim)


def polynomial(degree: int, dim: int, seed: int) -> str:
    weights = np.random.default_rng(seed).uniform(-1, 1, 200).round(3)
    terms = multi_indices(degree, dim).tolist()
    return " + ".join(
        f"({weight})*" + "*".join(f"{s}**{k}" for s, k in zip("xyz", e, strict=False))
        for weight, e in zip(weights, terms, strict=False)
    )


def gradient_of(problem: EllipticProblem, points: np.ndarray) -> np.ndarray:
    dim = points.shape[1]
    columns = [np.broadcast_to(derivative(problem.exact, d, dim)(*points.T), len(points)) for d in range(dim)]
    return np.stack(columns, axis=1)


def probes(domain: Domain, h: float, count: int = 400) -> np.ndarray:
    """Random points inside, points on the boundary and points just inside it."""
    rng = np.random.default_rng(0)
    anywhere = rng.uniform(-0.5, 0.5, (count, domain.dim))
    wall = domain.boundary(h)
    wall = wall[rng.permutation(len(wall.points))[:200]]
    depth = h * rng.choice([1e-9, 1e-6, 1e-3, 0.1, 0.5], (len(wall.points), 1))
    beside = wall.points - depth * wall.normals
    return np.concatenate([points[domain.contains(points)] for points in (anywhere, beside)] + [wall.points])


CASES: dict[str, tuple[Domain, BoundaryCondition, int, int]] = {
    "star": (Star(), Dirichlet(), 4, 50),
    "three petals, Neumann": (Star(0.3, 0.1, 3), Neumann(), 4, 30),
    "three petals, n = 6": (Star(0.3, 0.1, 3), Robin(1.0), 6, 30),
    "annulus": (Disk(0.45) - Disk(0.2), Mixed(((right_half, Neumann()),)), 5, 40),
    "box, n = 2": (Box(), Dirichlet(), 2, 20),
    "ball": (Ball(0.42), Dirichlet(), 4, 12),
    "ball, n = 2": (Ball(0.42), Mixed(((right_half, Neumann()),)), 2, 12),
}


@pytest.mark.parametrize("case", CASES)
def test_polynomials_are_evaluated_exactly(case: str) -> None:
    domain, condition, degree, n = CASES[case]
    problem = manufactured(polynomial(degree, domain.dim, degree), domain, boundary=condition)
    solution = solve(problem, cube(n, domain.dim), PLG(degree=degree))
    points = probes(domain, 1 / n)
    values, gradients = solution.evaluate(points, gradient=True)
    error = values - problem.exact(*points.T)
    if problem.determined_up_to_constants:
        error -= error.mean()
    assert np.abs(error).max() < 1e-11
    assert np.abs(gradients - gradient_of(problem, points)).max() < 1e-9
    assert np.array_equal(solution.evaluate(points), values)
    wall = domain.boundary(1 / n)
    flux = np.sum(wall.normals * gradient_of(problem, wall.points), axis=1)
    assert np.abs(solution.normal_derivative(wall) - flux).max() < 1e-9
    assert np.array_equal(solution.boundary_values(wall), solution.evaluate(wall.points))


def test_fits_far_from_the_boundary_share_one_factorisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """They agree with fits one by one of polynomials, need no other fit, and do reach most nodes."""
    problem = manufactured(polynomial(4, 2, 1), Disk(0.45))
    solution = solve(problem, CartesianGrid((-0.5, -0.5), (0.5, 0.5), (60, 75)))
    points = np.random.default_rng(2).uniform(-0.2, 0.2, (500, 2))
    monkeypatch.setattr("sciml.solvers.local_evaluation.LocalFits.around", None)
    values, gradients = solution.evaluate(points, gradient=True)
    assert np.abs(values - problem.exact(*points.T)).max() < 1e-11
    assert np.abs(gradients - gradient_of(problem, points)).max() < 1e-9


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**31), st.floats(0.0, 2 * np.pi), st.floats(0.0, 1.0))
def test_hand_made_solutions_of_any_polynomial(degree: int, seed: int, angle: float, radius: float) -> None:
    weights = np.random.default_rng(seed).uniform(-1, 1, (degree + 1, degree + 1))
    weights = (weights * np.tri(degree + 1))[::-1]

    def exact(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return polyval2d(x, y, weights)

    domain, grid = Disk(0.4), cube(20, 2)
    nodes = grid.nodes()
    values = np.where(domain.contains(nodes), exact(*np.moveaxis(nodes, -1, 0)), np.nan)
    solution = Solution(Poisson(domain, 0.0, Dirichlet(exact)), grid, values, method=PLG(degree=degree))
    x, y = 0.4 * radius * np.cos(angle), 0.4 * radius * np.sin(angle)
    (got,), (gradient,) = solution.evaluate(np.array([[x, y]]), gradient=True)
    assert got == pytest.approx(exact(x, y), abs=1e-12)
    slopes = [polyval2d(x, y, polyder(weights, axis=axis)) for axis in (0, 1)]
    assert gradient == pytest.approx(slopes, abs=1e-9)


@functools.cache
def smooth_solutions() -> tuple[Solution, ...]:
    return tuple(solve(problem_registry["poisson"](Star()), cube(n, 2)) for n in GRIDS)


def order(errors: list[float], grids: tuple[int, ...] = GRIDS) -> float:
    return float(-np.polyfit(np.log(grids), np.log(errors), 1)[0])


def test_orders_of_values_and_gradients() -> None:
    points = probes(Star(), 0.02, 1000)
    problem = smooth_solutions()[0].problem
    exact, slopes = problem.exact(*points.T), gradient_of(problem, points)
    both = [solution.evaluate(points, gradient=True) for solution in smooth_solutions()]
    values = [float(np.abs(value - exact).max()) for value, _ in both]
    gradients = [float(np.abs(gradient - slopes).max()) for _, gradient in both]
    assert order(values) > 4.5, values
    assert order(gradients) > 3.8, gradients
    assert values[-1] < 5e-9
    assert gradients[-1] < 2e-6


def test_integrals_over_the_star() -> None:
    problem = smooth_solutions()[0].problem
    points, weights = cut_cell_quadrature(Star(), cube(40, 2), 12)
    u = problem.exact(*points.T)
    solution = smooth_solutions()[-1]
    assert abs(solution.integral() - weights @ u) < 2e-10
    assert abs(solution.integral(lambda u, x, y: x * u**2) - weights @ (points[:, 0] * u**2)) < 2e-10
    # Green: the boundary integral of u du/dn is the integral of |grad u|^2 + u f.
    dirichlet = (gradient_of(problem, points) ** 2).sum(axis=1) + u * problem.source(*points.T)
    assert abs(solution.boundary_integral(lambda u, flux, x, y: u * flux) - weights @ dirichlet) < 1e-7


def test_orders_of_integrals_and_of_the_flux_balance() -> None:
    """The integral of n . grad u over the boundary is that of Laplace u = f over the domain."""
    problem, grids = manufactured("cos(3*x)*cos(2*y)", Disk(0.45)), (24, 40, 66, 110)
    points, weights = cut_cell_quadrature(problem.domain, cube(40, 2), 12)
    exact = weights @ problem.exact(*points.T)
    errors, defects = [], []
    for n in grids:
        solution = solve(problem, cube(n, 2))
        errors.append(abs(solution.integral() - exact))
        source = solution.integral(lambda u, x, y: problem.source(x, y))
        defects.append(abs(solution.boundary_integral() - source))
    assert order(errors, grids) > 3.8, errors
    assert order(defects, grids) > 3.8, defects
    assert errors[-1] < 2e-10
    assert defects[-1] < 1e-6


@pytest.mark.parametrize("radius", [0.3, 0.45])
def test_torsion_of_the_disk(radius: float) -> None:
    solution = solve(Poisson(Disk(radius), -1.0), cube(40, 2))
    wall = Disk(radius).boundary(0.05)
    assert solution.evaluate(np.zeros((1, 2)))[0] == pytest.approx(radius**2 / 4, abs=1e-13)
    assert solution.normal_derivative(wall) == pytest.approx(
        np.full(len(wall.points), -radius / 2), abs=1e-11
    )
    assert solution.integral() == pytest.approx(np.pi * radius**4 / 8, rel=1e-8)
    assert solution.boundary_integral() == pytest.approx(-np.pi * radius**2, rel=1e-9)
    # The moment of the flux, with u = 0: r dS integrated over a circle.
    moment = solution.boundary_integral(lambda u, flux, x, y: u + flux * (x**2 + y**2))
    assert moment == pytest.approx(-np.pi * radius**4, rel=1e-9)


@pytest.mark.parametrize("centre", [0.0, 0.4])
@pytest.mark.parametrize("width", [1.5, 0.5, 0.01])
def test_both_sides_of_a_gap(width: float, centre: float) -> None:
    """A slit of 1.5 h to 0.01 h, on a row of nodes or between two, cuts a disk in two solutions."""
    h, half, y0 = 1 / 60, width / 120, centre / 60

    def exact(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(y > y0, x * y + x**3 - 3 * x * y**2, 5 + x**2 - y**2)

    domain = Disk(0.4) - Box((-0.45, y0 - half), (0.45, y0 + half))
    problem = EllipticProblem(domain, Laplacian(2), 0.0, Dirichlet(exact), exact)
    solution = solve(problem, cube(60, 2))
    depths = half + h * np.array([0.0, 1e-6, 1e-3, 0.1, 0.5, 1.0, 1.5])
    y = y0 + np.concatenate([depths, -depths])
    x = np.random.default_rng(3).uniform(-0.37, 0.37, (30, 1))
    points = np.stack([np.broadcast_to(x, (30, 14)), np.broadcast_to(y, (30, 14))], axis=-1).reshape(-1, 2)
    assert np.abs(solution.evaluate(points) - exact(*points.T)).max() < 1e-11


def test_pickles_and_copies() -> None:
    solution = solve(manufactured("x**3 + y", Disk()), cube(30, 2), PLG(degree=3))
    points = np.array([[0.1, 0.2], [0.3, -0.1]])
    again = pickle.loads(pickle.dumps(solution))
    assert solution.places is not None
    assert again.places is None
    assert again.method == PLG(degree=3)
    assert np.array_equal(again.evaluate(points), solution.evaluate(points))
    assert np.allclose(replace(again, values=2 * again.values).evaluate(np.zeros((1, 2))), 0.0, atol=1e-13)
    assert "places" not in repr(solution)


def test_empty_and_nearly_outside() -> None:
    solution = solve(Poisson(Disk(0.4), -1.0), cube(20, 2))
    values, gradients = solution.evaluate(np.zeros((0, 2)), gradient=True)
    assert (values.shape, gradients.shape) == ((0,), (0, 2))
    angle = np.linspace(0, 2 * np.pi, 50)
    circle = 0.4 * (1 + 1e-9) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert np.abs(solution.evaluate(circle)).max() < 1e-9


def test_bad_input() -> None:
    solution = solve(Poisson(Disk(0.4), -1.0), cube(20, 2))
    with pytest.raises(ConfigError, match=r"points\[1\] = \[0.39, 0.1\] lies 0.0026.* \(2 of 3 .*contains"):
        solution.evaluate(np.array([[0.1, 0.1], [0.39, 0.1], [3.0, 0.0]]))
    with pytest.raises(ConfigError, match=r"points\[1\] = \[nan, 0.0\] \(1 of 2 points are not finite\)"):
        solution.evaluate(np.array([[0.1, 0.1], [np.nan, 0.0]]))
    for shape in ((2,), (3, 3), (1, 1, 2)):
        with pytest.raises(ConfigError, match=r"give an array of shape \(m, 2\)"):
            solution.evaluate(np.zeros(shape))
    with pytest.raises(ConfigError, match=r"integrand of \(u, \*position\) is nan"):
        solution.integral(lambda u, x, y: u * np.nan)
    with pytest.raises(ConfigError, match=r"integrand of \(u, flux, \*position\) returned"):
        solution.boundary_integral(lambda u, flux, x, y: u[:3])
    holes = solution.values.copy()
    holes[10, 10] = np.nan
    with pytest.raises(ConfigError, match=r"values\[10, 10\] is nan at a node inside the domain \(1 of"):
        replace(solution, values=holes).evaluate(np.zeros((1, 2)))
    with pytest.raises(ConfigError, match=r"values of shape \(4, 4\)"):
        replace(solution, values=np.zeros((4, 4))).evaluate(np.zeros((1, 2)))


def test_a_spike_does_not_take_nodes_of_the_body_below() -> None:
    """At its tip the body's nodes are nearer than its own; the gap between is 2 h wide."""

    def exact(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(y > 0.05, x * y, 5 + x)

    spike = (
        (0.025, 0.115),
        (0.049, 0.23),
        (0.3, 0.23),
        (0.3, 0.45),
        (-0.25, 0.45),
        (-0.25, 0.23),
        (0.001, 0.23),
    )
    domain, grid = Polygon(spike) | Box((-0.4, -0.4), (0.4, 0.01)), cube(20, 2)
    nodes = grid.nodes()
    values = np.where(domain.contains(nodes), exact(nodes[..., 0], nodes[..., 1]), np.nan)
    solution = Solution(Poisson(domain, 0.0, Dirichlet(exact)), grid, values, method=PLG(degree=2))
    points = np.array([[0.025, 0.12], [0.025, 0.0]])
    assert np.abs(solution.evaluate(points) - exact(*points.T)).max() < 1e-12


def test_points_that_no_node_sees() -> None:
    """The far end of a bent channel without nodes."""
    channel = Polygon(((-0.4, -0.4), (0.4, -0.4), (0.4, 0.0), (-0.3, 0.0), (-0.3, 0.03), (0.4, 0.03),
                       (0.4, 0.04), (-0.31, 0.04), (-0.31, 0.0), (-0.4, 0.0)))  # fmt: skip
    grid = cube(20, 2)
    values = np.where(channel.contains(grid.nodes()), 0.0, np.nan)
    solution = Solution(Poisson(channel, 0.0), grid, values)
    with pytest.raises(StencilError, match=r"no node sees the point \[0\.2, 0\.035\] \(1 of 2"):
        solution.evaluate(np.array([[0.0, -0.2], [0.2, 0.035]]))


def test_triangulation_shows_boundary_values() -> None:
    problem = manufactured("x**2 + x*y", Star(), boundary=Robin(1.0))
    points, triangles, values = solve(problem, cube(40, 2)).triangulation
    assert np.abs(values - problem.exact(*points.T)).max() < 1e-11
    assert Star().contains(points[triangles].mean(axis=1)).all()


@functools.cache
def ball_solution() -> Solution:
    return solve(manufactured("1 + x + 2*y*z", Ball(0.4)), cube(14, 3), PLG(degree=2))


@pytest.mark.parametrize("ending", [".vtu", ".vtk"])
def test_export_of_a_ball(ending: str, tmp_path: Path) -> None:
    solution, h = ball_solution(), 1 / 14
    solution.export(tmp_path / f"ball{ending}")
    mesh = meshio.read(tmp_path / f"ball{ending}")
    (block,) = mesh.cells
    lower = np.stack(np.meshgrid(*[np.arange(14)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    corners = -0.5 + h * (lower + np.array(list(np.ndindex(2, 2, 2))))
    assert block.type == "hexahedron"
    assert len(block.data) == (np.linalg.norm(corners, axis=-1) < 0.4).all(axis=1).sum() > 100
    assert set(mesh.point_data) == {"u", "exact"}
    assert mesh.point_data["u"] == pytest.approx(solution.problem.exact(*mesh.points.T), abs=1e-12)
    assert mesh.point_data["exact"] == pytest.approx(mesh.point_data["u"], abs=1e-12)
    # VTK: bottom and top run around counterclockwise, the top is above the bottom.
    p = np.moveaxis(mesh.points[block.data], 1, 0) / h
    assert np.allclose(p[4:] - p[:4], [0, 0, 1])
    assert np.allclose(p[1] - p[0], [1, 0, 0])
    assert np.allclose(p[2] - p[1], [0, 1, 0])
    assert np.allclose(p[3] - p[0], [0, 1, 0])


def test_plot_of_a_ball() -> None:
    solution = ball_solution()
    ax = solution.plot()
    faces, outline = ax.collections
    colours = np.asarray(faces.get_array())
    low, high = colours.min(), colours.max()
    assert ax.name == "3d"
    assert 0.55 < low < 0.75
    assert 1.25 < high < 1.45
    segments = np.asarray(outline._segments3d)
    assert np.linalg.norm(segments, axis=-1) == pytest.approx(0.4, abs=1e-9)
    assert all((segments[..., d] == 0).all(axis=1).sum() > 100 for d in range(3))
    ax.figure.canvas.draw()
    again = plt.figure().add_subplot(projection="3d")
    assert solution.plot(again, slices={"z": 0.3}, cmap="magma") is again
    assert np.all(np.asarray(again.collections[1]._segments3d)[..., 2] == 0.3)
    assert again.collections[0].get_cmap().name == "magma"
    plt.close("all")


def test_bad_slices(tmp_path: Path) -> None:
    solution = ball_solution()
    with pytest.raises(ConfigError, match=r"slice z=0.45 misses the domain, which reaches from -0.4 to 0.4"):
        solution.plot(slices={"z": 0.45})
    with pytest.raises(ConfigError, match=r"slice 'w': choose an axis"):
        solution.plot(slices={"w": 0.0})
    with pytest.raises(ConfigError, match=r"'rectilinear': a solution in 3D needs '3d'"):
        solution.plot(plt.figure().add_subplot())
    plane = solve(Poisson(Disk(0.4), -1.0), cube(20, 2))
    with pytest.raises(ConfigError, match=r"only 3D ones are sliced"):
        plane.plot(slices={"x": 0.0})
    with pytest.raises(ConfigError, match=r"'3d': a solution in 2D needs 'rectilinear'"):
        plane.plot(plt.figure().add_subplot(projection="3d"))
    with pytest.raises(ConfigError, match="must end in"):
        solution.export(tmp_path / "ball.xyz")
    tiny = Solution(Poisson(Ball(0.1), 0.0), cube(10, 3), np.full((11,) * 3, np.nan))
    with pytest.raises(ConfigError, match="no cell lies inside the domain"):
        tiny.export(tmp_path / "ball.vtu")
    plt.close("all")
