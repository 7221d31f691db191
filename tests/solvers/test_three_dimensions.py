"""PLG in three dimensions: exactness, orders, spectra, solver, gaps."""

import numpy as np
import pytest

from sciml.errors import GeometryError, StencilError
from sciml.solvers import (
    PLG,
    Ball,
    BoundaryCondition,
    CartesianGrid,
    Cuboid,
    Dirichlet,
    DivAGrad,
    Domain,
    EllipticOperator,
    LevelSet,
    Mixed,
    Neumann,
    Poisson,
    Robin,
    Torus,
    manufactured,
    solve,
)
from sciml.solvers.polynomials import multi_indices

SMOOTH = "exp(x)*sin(2*y)*cos(z) + sin(3*x*y + 0.3 + z)"
SIX_LOBES = LevelSet(
    "sqrt(x**2 + y**2 + z**2) - 0.21 - 0.15*(x**4 + y**4 + z**4)/(x**2 + y**2 + z**2 + 1e-12)**2",
    (-0.45,) * 3,
    (0.45,) * 3,
)
CROSS = EllipticOperator(((1.0, 0.3, 0.0), (0.3, 2.0, -0.4), (0.0, -0.4, 1.5)), ("y", -0.5, 0.2), "-exp(x)")


def cube(n: int) -> CartesianGrid:
    return CartesianGrid.uniform(n, (-0.5,) * 3, (0.5,) * 3)


def upper_half(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return z > 0


def polynomial(degree: int) -> str:
    return " + ".join(
        f"{(-1) ** k * (1 + k % 3) / 3}*x**{a}*y**{b}*z**{c}"
        for k, (a, b, c) in enumerate(multi_indices(degree, 3).tolist())
    )


CONDITIONS: dict[str, BoundaryCondition] = {
    "dirichlet": Dirichlet(),
    "neumann": Neumann(),
    "robin": Robin(1.0),
    "mixed": Mixed(((upper_half, Neumann()),)),
}


@pytest.mark.parametrize("degree", [2, 3, 4])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_polynomials_are_reproduced(condition: str, degree: int) -> None:
    problem = manufactured(polynomial(degree), Ball(0.42), CROSS, boundary=CONDITIONS[condition])
    assert solve(problem, cube(20), PLG(degree=degree)).errors()["linf"] < 1e-10


@pytest.mark.parametrize(
    "domain", [Torus(0.28, 0.15), SIX_LOBES, Cuboid() - Ball(0.2)], ids=["torus", "lobes", "hole"]
)
def test_polynomials_are_reproduced_on_other_shapes(domain: Domain) -> None:
    problem = manufactured(polynomial(4), domain, DivAGrad("1 + x*y + z**2", 3))
    assert solve(problem, cube(24)).errors()["linf"] < 1e-10


@pytest.mark.parametrize(("condition", "low"), [("dirichlet", 4.3), ("neumann", 3.8)])
def test_order_on_the_ball(condition: str, low: float) -> None:
    grids = (16, 20, 26, 34)
    problem = manufactured(SMOOTH, Ball(), boundary=CONDITIONS[condition])
    errors = [solve(problem, cube(n)).errors()["l2"] for n in grids]
    assert -np.polyfit(np.log(grids), np.log(errors), 1)[0] > low


@pytest.mark.parametrize("degree", [2, 3, 4])
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("domain", [Ball(0.35), Torus(0.28, 0.15)], ids=["ball", "torus"])
def test_spectrum_lies_in_the_left_half_plane(domain: Domain, condition: str, degree: int) -> None:
    n = 16 if isinstance(domain, Ball) else 18
    problem = Poisson(domain, 0.0, CONDITIONS[condition])
    matrix = PLG(degree=degree).discretise(problem, cube(n)).matrix
    values = np.linalg.eigvals(matrix.toarray()) / n**2
    assert values.real.max() < 1e-10
    assert (values.real > -1e-9).sum() == (condition == "neumann")


def test_krylov_gives_what_the_factorisation_gives() -> None:
    for condition in CONDITIONS.values():
        problem = manufactured(SMOOTH, Torus(), CROSS if condition != Neumann() else None, boundary=condition)
        direct, krylov = (solve(problem, cube(32), solver=name) for name in ("direct", "krylov"))
        assert np.nanmax(np.abs(direct.values - krylov.values)) < 1e-9
        assert krylov.info["iterations"] <= 25


def test_a_gap_keeps_both_sides_apart() -> None:
    """Two half balls with a slit thinner than the spacing between them: smooth on each side, not across."""
    slit = Cuboid((-0.5, -0.5, -0.004), (0.5, 0.5, 0.004))
    halves = Ball(0.42) - slit

    def exact(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.where(z > 0, np.exp(x) * np.sin(y), 5 + x**2 - y**2)

    solution = solve(Poisson(halves, 0.0, Dirichlet(exact), exact), cube(23))
    assert solution.errors()["linf"] < 1e-4


def test_bad_input() -> None:
    with pytest.raises(GeometryError, match="leaves the grid's box"):
        solve(Poisson(Ball(0.6), 1.0), cube(16))
    with pytest.raises(GeometryError, match="needs a 3D grid"):
        solve(Poisson(Ball(), 1.0), CartesianGrid.uniform(16))
    with pytest.raises(StencilError, match="thinner than the stencil"):
        solve(Poisson(Torus(0.3, 0.05), 1.0), cube(16))
