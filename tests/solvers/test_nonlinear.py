"""Semilinear problems: quadratic convergence, orders, closed forms, exactness, both linear solvers, refusals."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers import (
    PLG,
    Ball,
    BoundaryCondition,
    CartesianGrid,
    Dirichlet,
    Disk,
    EllipticOperator,
    EllipticProblem,
    Neumann,
    Poisson,
    Reaction,
    Robin,
    Star,
    manufactured_nonlinear,
    solve_nonlinear,
)

SMOOTH = "exp(x)*sin(2*y) + 1"
GRID = CartesianGrid.uniform(24)
RADIUS = 0.4


def test_newton_converges_quadratically() -> None:
    reaction = Reaction("-u**3")
    problem = manufactured_nonlinear(SMOOTH, reaction, Disk(RADIUS), boundary=Neumann())
    solution = solve_nonlinear(problem, reaction, GRID, guess=0.7)
    steps = solution.info["step_history"]
    errors = []
    for step in steps[:-1]:
        # A tolerance just above a step ends the iteration after it.
        iterate = solve_nonlinear(problem, reaction, GRID, guess=0.7, tolerance=min(1.01 * step, 0.99))
        errors.append(float(np.nanmax(np.abs(iterate.values - solution.values))))
    ratios = [later / earlier**2 for earlier, later in itertools.pairwise(errors) if later > 1e-13]
    assert len(ratios) >= 3
    assert all(0.1 < ratio < 3 for ratio in ratios)
    assert steps[-1] < 1e-12
    assert len(steps) == solution.info["newton_iterations"] <= 7


@pytest.mark.parametrize(
    ("reaction", "condition"),
    [("-u**3", Dirichlet()), ("-u**3", Neumann()), ("exp(u)", Dirichlet()), ("exp(u)", Robin(1.0))],
)
def test_fourth_order_on_the_star(reaction: str, condition: BoundaryCondition) -> None:
    term = Reaction(reaction)
    problem = manufactured_nonlinear(SMOOTH, term, Star(), boundary=condition)
    grids = [32, 44, 60, 84]
    errors = [
        solve_nonlinear(problem, term, CartesianGrid.uniform(n), guess=1.0).errors()["l2"] for n in grids
    ]
    assert -np.polyfit(np.log(grids), np.log(errors), 1)[0] > 4
    assert errors[-1] < 1e-8


def bratu(b: float) -> tuple[EllipticProblem, Reaction]:
    """Laplace u + lambda exp(u) = 0, u = 0 at r = R: u = 2 log((1 + b) / (1 + b (r/R)^2)), lambda = 8b / ((1+b) R)^2.

    Two solutions for each lambda < 2 / R^2, with b < 1 and b > 1.
    """
    exact = lambda x, y: 2 * np.log((1 + b) / (1 + b * (x**2 + y**2) / RADIUS**2))  # noqa: E731
    return Poisson(Disk(RADIUS), 0.0, exact=exact), Reaction(f"{8 * b / ((1 + b) * RADIUS) ** 2}*exp(u)")


def test_upper_branch_of_bratu_on_a_disk() -> None:
    problem, reaction = bratu(3.0)
    grids = [24, 34, 48, 68]
    errors = [
        solve_nonlinear(
            problem, reaction, CartesianGrid.uniform(n), guess=lambda x, y: 3 - 18 * (x**2 + y**2)
        ).errors()["linf"]
        for n in grids
    ]
    assert -np.polyfit(np.log(grids), np.log(errors), 1)[0] > 3.9
    assert errors[-1] < 6e-6


def test_lower_branch_of_bratu_on_a_disk() -> None:
    errors = [solve_nonlinear(*bratu(b), CartesianGrid.uniform(48)).errors()["linf"] for b in (0.5, 1 / 3)]
    assert max(errors) < 2e-6


def test_no_solution_beyond_the_fold_of_bratu() -> None:
    with pytest.raises(ConvergenceError, match=r"residuals .*e-.*guess="):
        solve_nonlinear(Poisson(Disk(RADIUS), 0.0), Reaction(f"{2.2 / RADIUS**2}*exp(u)"), GRID)


@settings(deadline=None, max_examples=6)
@given(st.lists(st.floats(-1, 1), min_size=5, max_size=5))
def test_quartics_are_exact(c: list[float]) -> None:
    reaction = Reaction("-u**3 - u")
    u = f"({c[0]})*x**4 + ({c[1]})*x**2*y**2 + ({c[2]})*x*y**3 + ({c[3]})*y + ({c[4]})"
    problem = manufactured_nonlinear(u, reaction, Disk(RADIUS), boundary=Robin(2.0))
    assert solve_nonlinear(problem, reaction, GRID).errors()["linf"] < 1e-11


def test_quartics_are_exact_in_a_ball() -> None:
    reaction = Reaction("-exp(u)")
    problem = manufactured_nonlinear("x**4 + x*y*z**2 - y*z + 1", reaction, Ball(RADIUS))
    grid = CartesianGrid.uniform(14, (-0.5,) * 3, (0.5,) * 3)
    solution = solve_nonlinear(problem, reaction, grid)
    assert solution.errors()["linf"] < 1e-12
    krylov = solve_nonlinear(problem, reaction, grid, solver="krylov")
    assert krylov.errors()["linf"] < 1e-12


def test_krylov_agrees_with_direct_for_advection_and_a_zeroth_coefficient() -> None:
    operator = EllipticOperator(((1.0, 0.2), (0.2, 2.0)), ("y", "-3*x"), "-exp(x)")
    reaction = Reaction("-10*u**3")
    problem = manufactured_nonlinear(SMOOTH, reaction, Star(), operator)
    grid = CartesianGrid.uniform(60)
    direct = solve_nonlinear(problem, reaction, grid, solver="direct")
    krylov = solve_nonlinear(problem, reaction, grid, solver="krylov")
    assert np.allclose(direct.values, krylov.values, rtol=0, atol=1e-11, equal_nan=True)
    assert direct.info["solver"] == "direct"
    assert direct.info["iterations"] == 0
    assert krylov.info["solver"] == "krylov"
    assert len(krylov.info["linear_iterations"]) == krylov.info["newton_iterations"]
    assert max(krylov.info["linear_iterations"]) <= 25
    assert krylov.errors()["l2"] < 1e-7


@pytest.mark.parametrize(("reaction", "guess"), [("-300*atan(10*u)", 5.0), ("-100*log(u)", 8.0)])
def test_shorter_steps_where_newtons_overshoot_or_leave_the_domain_of_r(reaction: str, guess: float) -> None:
    term = Reaction(reaction)
    problem = manufactured_nonlinear("x/2 + 1", term, Disk(RADIUS))
    solution = solve_nonlinear(problem, term, GRID, guess=guess)
    assert solution.errors()["linf"] < 1e-12
    history = solution.info["residual_history"]
    assert all(later < earlier for earlier, later in itertools.pairwise(history[:-1]))
    assert history[-1] < 1e-15


def test_neumann_data_and_a_reaction_determine_the_constant() -> None:
    reaction = Reaction("-u**3")
    problem = manufactured_nonlinear("x + 2", reaction, Disk(RADIUS), boundary=Neumann())
    solution = solve_nonlinear(problem, reaction, GRID, guess=1.0)
    assert solution.problem.source is problem.source
    assert problem.determined_up_to_constants
    assert not solution.problem.determined_up_to_constants
    assert solution.errors()["linf"] < 1e-12
    assert np.nanmean(solution.values) == pytest.approx(2.0)
    with pytest.raises(ConvergenceError, match="guess="):
        solve_nonlinear(problem, reaction, GRID)


def test_text_and_functions_are_the_same_reaction() -> None:
    text = Reaction("u - u**3")
    steps = Reaction(lambda u: u - u**3)
    given_slope = Reaction(lambda u: u - u**3, derivative=lambda u: 1 - 3 * u**2)
    u = np.linspace(-2, 2, 9)
    solutions = []
    for reaction in (text, steps, given_slope):
        assert np.allclose(reaction(u), u - u**3, rtol=1e-15)
        assert np.allclose(reaction.slope(u), 1 - 3 * u**2, rtol=1e-14)
        problem = manufactured_nonlinear(SMOOTH, reaction, Disk(RADIUS))
        assert np.shape(problem.source(*GRID.nodes().T)) == GRID.shape  # type: ignore[operator]
        solutions.append(solve_nonlinear(problem, reaction, GRID).values)
    assert np.allclose(solutions[1:], solutions[0], rtol=0, atol=1e-13, equal_nan=True)


def test_a_solution_is_a_guess() -> None:
    reaction = Reaction("-exp(u)")
    problem = manufactured_nonlinear(SMOOTH, reaction, Disk(RADIUS))
    values = solve_nonlinear(problem, reaction, GRID).values
    assert solve_nonlinear(problem, reaction, GRID, guess=values).info["newton_iterations"] == 1
    assert solve_nonlinear(Poisson(Disk(RADIUS), 0.0), Reaction("u**3"), GRID).info["newton_iterations"] == 0


@pytest.mark.parametrize(
    ("reaction", "match"),
    [
        ("log(u)", r"reaction r\(u\) is -inf"),
        (lambda u: u * np.nan, r"reaction r\(u\) is nan"),
        (lambda u: u[:3], "one real number per point"),
        (np.abs, "give derivative="),
        (lambda u: np.floor(u + 0.5), "give derivative="),
    ],
)
def test_unusable_reactions(reaction: object, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        solve_nonlinear(Poisson(Disk(RADIUS), 1.0), Reaction(reaction), GRID)  # type: ignore[arg-type]


def test_refusals_name_the_argument() -> None:
    problem, reaction = Poisson(Disk(RADIUS), 1.0), Reaction("u**2")
    with pytest.raises(ConfigError, match="contains v"):
        Reaction("u*v")
    with pytest.raises(ConfigError, match=r"function=3\.0"):
        Reaction(3.0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"derivative r'\(u\) is nan"):
        solve_nonlinear(problem, Reaction("u**2", derivative=lambda u: u * np.nan), GRID)
    with pytest.raises(ConfigError, match=r"guess of shape \(3,\)"):
        solve_nonlinear(problem, reaction, GRID, guess=np.zeros(3))
    with pytest.raises(ConfigError, match="guess is nan"):
        solve_nonlinear(problem, reaction, GRID, guess=np.full(GRID.shape, np.nan))
    with pytest.raises(ConfigError, match="tolerance=0"):
        solve_nonlinear(problem, reaction, GRID, tolerance=0)
    with pytest.raises(ConfigError, match="max_iterations=0"):
        solve_nonlinear(problem, reaction, GRID, max_iterations=0)
    with pytest.raises(ConfigError, match="solver='lu'"):
        solve_nonlinear(problem, reaction, GRID, solver="lu")  # type: ignore[arg-type]
    with pytest.raises(ConvergenceError, match=r"in 1 steps \(residuals .*, .*\)"):
        solve_nonlinear(problem, Reaction("2*exp(u)"), GRID, max_iterations=1)


def test_the_solution_is_evaluated_by_the_method_that_made_it() -> None:
    reaction = Reaction("-u**3")
    problem = manufactured_nonlinear(SMOOTH, reaction, Disk(RADIUS))
    solution = solve_nonlinear(problem, reaction, CartesianGrid.uniform(60), PLG(degree=6))
    assert solution.method.degree == 6
    points = np.random.default_rng(0).uniform(-0.2, 0.2, (100, 2))
    assert np.abs(solution.evaluate(points) - problem.exact(*points.T)).max() < 1e-9
