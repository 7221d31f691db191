"""Taylor-Hood elements: orders from manufactured solutions, exact flows, meshes, what is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import ConfigError, ConvergenceError, GeometryError
from sciml.solvers.fem import (
    HyperElasticity,
    IncompressibleFlow,
    MixedProblem,
    MixedSolution,
    QuadMesh,
    channel,
    solve_mixed,
    square_with_void,
)

X, Y = sympy.symbols("x y")


def curved(n: int) -> QuadMesh:
    """The unit square with curved elements; its right side stays straight."""
    t = np.linspace(0, 1, 2 * n + 1)
    x, y = np.meshgrid(t, t, indexing="ij")
    bent = x + 0.03 * np.sin(np.pi * x) * np.sin(2 * np.pi * y), y + 0.1 * np.sin(np.pi * y) * x
    return QuadMesh.mapped(np.stack(bent, axis=-1))


def function(expression: sympy.Expr) -> Callable:
    raw = sympy.lambdify((X, Y), expression)
    return lambda x, y: np.broadcast_to(raw(x, y), np.shape(x))


class Manufactured:
    """A problem with the solution u, p, of which ``stress`` is the flux by sympy."""

    def __init__(
        self, problem: MixedProblem, u: tuple, p: sympy.Expr, stress: sympy.Matrix, convection: tuple
    ) -> None:
        force = [convection[i] - sympy.diff(stress[i, 0], X) - sympy.diff(stress[i, 1], Y) for i in range(2)]
        self.exact = tuple(map(function, u))
        self.slopes = tuple(tuple(function(sympy.diff(part, axis)) for axis in (X, Y)) for part in u)
        self.pressure = function(p)
        self.closed = replace(problem, dirichlet=self.exact, force=tuple(map(function, force)))
        # The outward normal of the right side is (1, 0).
        self.open = replace(
            self.closed,
            natural=lambda x, y: x > 1 - 1e-9,
            traction=(function(stress[0, 0]), function(stress[1, 0])),
        )

    def errors(self, solution: MixedSolution) -> list[float]:
        found = solution.errors(
            lambda x, y: tuple(part(x, y) for part in self.exact),
            lambda x, y: tuple(tuple(part(x, y) for part in row) for row in self.slopes),
            self.pressure,
        )
        return [found["u"], found["slopes"], found["p"]]


def solid() -> Manufactured:
    """A large deformation that keeps areas: two shears, one after the other."""
    x = X + sympy.Rational(3, 10) * sympy.sin(2 * Y)
    y = Y + sympy.Rational(1, 5) * sympy.cos(2 * x)
    p = 1 + X * Y + sympy.sin(X)
    f = sympy.Matrix([[sympy.diff(a, b) for b in (X, Y)] for a in (x, y)])
    cofactor = sympy.Matrix([[f[1, 1], -f[1, 0]], [-f[0, 1], f[0, 0]]])
    return Manufactured(HyperElasticity(c1=1.5, c2=0.5), (x - X, y - Y), p, 4 * f - p * cofactor, (0, 0))


def kovasznay() -> Manufactured:
    """Kovasznay's flow behind a grid (Proc. Camb. Phil. Soc. 44, 1948), Reynolds number 40."""
    nu = sympy.Rational(1, 40)
    rate = 1 / (2 * nu) - sympy.sqrt(1 / (4 * nu**2) + 4 * sympy.pi**2)
    u = (
        1 - sympy.exp(rate * X) * sympy.cos(2 * sympy.pi * Y),
        rate / (2 * sympy.pi) * sympy.exp(rate * X) * sympy.sin(2 * sympy.pi * Y),
    )
    p = -sympy.exp(2 * rate * X) / 2
    stress = nu * sympy.Matrix([[sympy.diff(part, axis) for axis in (X, Y)] for part in u]) - p * sympy.eye(2)
    convection = [sum(u[j] * sympy.diff(part, (X, Y)[j]) for j in range(2)) for part in u]
    return Manufactured(IncompressibleFlow(viscosity=1 / 40), u, p, stress, tuple(convection))


@pytest.mark.parametrize("boundary", ["closed", "open"])
@pytest.mark.parametrize(("case", "sizes"), [(solid, (4, 6, 8, 12, 16)), (kovasznay, (8, 12, 16, 24))])
def test_orders(case: Callable[[], Manufactured], sizes: tuple[int, ...], boundary: str) -> None:
    made = case()
    solutions = [solve_mixed(getattr(made, boundary), curved(n)) for n in sizes]
    # Quadratic convergence: a wrong derivative would take many more.
    assert max(found.info["iterations"] for found in solutions) <= 6
    errors = np.array([made.errors(found) for found in solutions])
    orders = -np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert orders[0] > 2.9
    assert (orders[1:] > 1.9).all()
    # Nothing much better either: errors are measured against the right thing.
    assert (orders < (3.2, 2.2, 3.0)).all()


def test_kovasznay_needs_no_force() -> None:
    made = kovasznay()
    x, y = np.random.default_rng(0).uniform(size=(2, 50))
    assert max(abs(part(x, y)).max() for part in made.closed.force) < 1e-10


@settings(max_examples=15, deadline=None)
@given(st.floats(0.01, 10), st.floats(0.2, 3), st.integers(2, 5))
def test_poiseuille_is_exact(viscosity: float, width: float, n: int) -> None:
    mesh = channel(np.array([0.0, 2.0]), np.zeros(2), np.zeros(2), width, n, 2)
    flow = IncompressibleFlow(
        dirichlet=(lambda x, y: 1 - (2 * y / width) ** 2, 0.0),
        natural=lambda x, y: x > 2 - 1e-9,
        viscosity=viscosity,
    )
    found = solve_mixed(flow, mesh)
    assert np.allclose(found.u[:, 0], 1 - (2 * mesh.nodes[:, 1] / width) ** 2, atol=1e-10)
    assert np.allclose(found.u[:, 1], 0, atol=1e-10)
    drop = 8 * viscosity / width**2 * 2
    assert found.p.max() - found.p.min() == pytest.approx(drop, rel=1e-8)


def test_stokes_flow_is_linear() -> None:
    def flow(factor: float) -> MixedSolution:
        stokes = IncompressibleFlow(
            dirichlet=(lambda x, y: factor * y * (1 - y) * (1 + x), 0.0), viscosity=0.01, inertia=False
        )
        return solve_mixed(replace(stokes, natural=lambda x, y: x > 1 - 1e-9), curved(4))

    once, back = flow(1.0), flow(-100.0)
    assert once.info["iterations"] <= 2
    assert np.allclose(back.u, -100 * once.u, atol=1e-10)
    assert np.allclose(back.p, -100 * once.p, atol=1e-10)
    with_inertia = solve_mixed(replace(once.problem, inertia=True), curved(4))
    assert np.abs(with_inertia.u - once.u).max() > 1e-6


def test_affine_deformations_are_exact() -> None:
    # F = diag(2, 1/2), p any constant: with u given everywhere, that of rest.
    solid = HyperElasticity(dirichlet=(lambda x, y: x, lambda x, y: -y / 2))
    found = solve_mixed(solid, curved(3))
    assert np.allclose(found.u, found.mesh.nodes * (1, -0.5), atol=1e-12)
    assert np.allclose(found.p, solid.stiffness, atol=1e-10)
    # Pulled on its right side by S n = (mu - p / 4 ..., 0), p = mu F22^2 where nothing is pulled across.
    mu = solid.stiffness
    p = mu * 0.25
    pulled = HyperElasticity(
        dirichlet=(lambda x, y: x, lambda x, y: -y / 2),
        natural=lambda x, y: x > 1 - 1e-9,
        traction=(2 * mu - p / 2, 0.0),
    )
    found = solve_mixed(pulled, curved(3))
    assert np.allclose(found.p, p, atol=1e-9)
    _, _, slopes, _ = found.at(np.array([[0.3, 0.7]]))
    # Cauchy stress mu diag(4, 1/4) - p, out of the plane mu - p.
    s = mu * np.array([4, 0.25, 1])
    s -= s.mean()
    assert pulled.von_mises(slopes)[0] == pytest.approx(np.sqrt(1.5 * (s**2).sum()))


def bent(middle: float) -> np.ndarray:
    """The nodes of the unit square with the middle of a side elsewhere on it."""
    grid = np.stack(np.meshgrid(*[[0.0, 0.5, 1.0]] * 2, indexing="ij"), axis=-1)
    grid[1, 0, 0] = middle
    return grid


@pytest.mark.parametrize("problem", [IncompressibleFlow, HyperElasticity])
@pytest.mark.parametrize("force", [(0.0, -1.0), (lambda x, y: x, lambda x, y: y), (0.0, 0.0)])
def test_what_pressure_balances_stays_at_rest(problem: Any, force: Any) -> None:
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 2, indexing="ij"), axis=-1)
    found = solve_mixed(problem(force=force), QuadMesh.mapped(grid))
    assert np.abs(found.u).max() < 1e-14
    assert found.info["residual"] < 1e-14
    assert found.info["continuation"] == 0


def test_small_strains_are_proportional_to_the_load() -> None:
    """Half the load, half the displacement, to the square of the strain."""
    cells = square_with_void(lambda angle: 0.25 + 0.03 * np.cos(3 * angle), 32, 8)
    clamped = HyperElasticity(
        natural=lambda x, y: y > 1e-9, traction=(0.0, lambda x, y: 1e-4 * (y > 1 - 1e-9))
    )
    whole, half = solve_mixed(clamped, cells), solve_mixed(clamped.easier(), cells)
    assert np.linalg.norm(whole.u - 2 * half.u) < 1e-3 * np.linalg.norm(whole.u)
    assert whole.u[:, 1].max() > 0


def test_work_of_the_load_is_the_work_of_the_stress() -> None:
    cells = square_with_void(lambda angle: 0.3 + 0 * angle, 32, 6)
    clamped = HyperElasticity(
        natural=lambda x, y: y > 1e-9, traction=(0.0, lambda x, y: 0.3 * (y > 1 - 1e-9))
    )
    found = solve_mixed(clamped, cells)
    inner = found.integral(lambda x, u, slopes, p: (clamped.stress(slopes, p) * slopes).sum(axis=(-2, -1)))
    top = np.flatnonzero(cells.nodes[:, 1] > 1 - 1e-9)
    top = top[np.argsort(cells.nodes[top, 0])]
    # Simpson's rule is exact for quadratic functions.
    weights = np.full(len(top), 2.0)
    weights[1::2] = 4
    weights[[0, -1]] = 1
    outer = 0.3 * (weights / weights.sum() * found.u[top, 1]).sum()
    # S : grad u is not S : dF for a finite step, but the discrete equations hold for v = u.
    assert inner == pytest.approx(outer, rel=1e-9)
    assert abs(found.integral(lambda x, u, slopes, p: clamped.constraint(slopes))) < 1e-12


def test_hard_flows_are_found_by_easier_ones() -> None:
    mesh = channel(np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.8, 0.0]), np.zeros(3), 1.0, 12, 6)
    flow = IncompressibleFlow(
        dirichlet=(lambda x, y: np.where(x < 1e-9, 1 - 4 * y**2, 0.0), 0.0),
        natural=lambda x, y: x > 2 - 1e-9,
        viscosity=0.003,
    )
    found = solve_mixed(flow, mesh, max_iterations=6)
    assert found.info["continuation"] > 0
    assert found.info["residual"] < 1e-12
    with pytest.raises(ConvergenceError, match=r"'flow' has no solution .* after 0 easier ones"):
        solve_mixed(flow, mesh, max_iterations=6, continuation=0)


def test_meshes() -> None:
    ring = square_with_void(lambda angle: 0.3 + 0.02 * np.cos(5 * angle), 64, 6)
    area = 1 - np.pi * (0.3**2 + 0.02**2 / 2)
    assert ring.weights.sum() == pytest.approx(area, abs=1e-6)
    bent = channel(
        np.array([0.0, 1.0, 3.0]), np.array([0.0, 1.0, -1.0]), np.array([0.0, 0.5, 1.0]), 0.5, 40, 4
    )
    assert bent.weights.sum() == pytest.approx(1.5)
    middle = bent.nodes.reshape(81, 9, 2)[:, 4]
    assert np.interp([1.0, 3.0], *middle.T) == pytest.approx([1.0, -1.0], abs=0.05)


def test_boundary_sides_have_the_domain_to_the_left() -> None:
    for mesh, area in ((curved(3), 1.0), (square_with_void(lambda t: 0.25 + 0 * t, 64, 4), 1 - np.pi / 16)):
        first, _, last = np.moveaxis(mesh.nodes[mesh.sides], 1, 0)
        # Green's formula, on the polygon of the ends of the sides.
        assert 0.5 * (first[:, 0] * last[:, 1] - first[:, 1] * last[:, 0]).sum() == pytest.approx(
            area, abs=0.01
        )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: HyperElasticity(c1=-1.0), ConfigError, "c1=-1.0, c2=0.0: they must not be negative"),
        (lambda: IncompressibleFlow(viscosity=0.0), ConfigError, "viscosity=0.0: it must be positive"),
        (lambda: HyperElasticity(dirichlet=1.0), ConfigError, "dirichlet=1.0: give a tuple"),  # type: ignore[arg-type]
        (
            lambda: solve_mixed(HyperElasticity(natural=lambda x, y: x == x), curved(2)),
            ConfigError,
            "tractions are given everywhere",
        ),
        (
            lambda: solve_mixed(HyperElasticity(dirichlet=(lambda x, y: x / 0, 0.0)), curved(2)),
            ConfigError,
            "Dirichlet data",
        ),
        (lambda: QuadMesh.mapped(np.zeros((4, 5, 2))), ConfigError, r"grid of shape \(4, 5, 2\)"),
        (lambda: QuadMesh.mapped(curved(2).nodes.reshape(5, 5, 2)[::-1]), GeometryError, "is folded"),
        # Only at a corner, where quadrature does not look.
        (lambda: QuadMesh.mapped(bent(0.78)), GeometryError, "is folded"),
        (lambda: QuadMesh.mapped(np.full((5, 5, 2), np.nan)), GeometryError, "not finite"),
        (lambda: square_with_void(lambda t: 0.6 + 0 * t, 16, 4), GeometryError, "inside of the unit square"),
        (lambda: square_with_void(lambda t: 0.2 + 0 * t, 18, 4), ConfigError, "around=18"),
        (lambda: channel(np.array([1.0, 0.0]), np.zeros(2), np.zeros(2), 1.0, 4, 4), ConfigError, "ascend"),
        (
            lambda: channel(np.array([0.0, 1.0]), np.zeros(2), np.zeros(2), 0.0, 4, 4),
            ConfigError,
            "width=0.0",
        ),
        (lambda: curved(2).locate(np.array([[0.5, 1.5]])), ConfigError, r"parameters=\[0.5, 1.5\]"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_input(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_picture() -> None:
    found = solve_mixed(IncompressibleFlow(dirichlet=(lambda x, y: y, 0.0)), curved(2))
    ax = found.plot()
    assert len(ax.collections[0].get_array()) == len(found.mesh.nodes)  # type: ignore[arg-type]
