"""Evolution in time: orders in space and time together, adaptive steps, limits of explicit terms, waves."""

from dataclasses import replace

import numpy as np
import pytest

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers import (
    PLG,
    Ball,
    BoundaryCondition,
    CartesianGrid,
    Dirichlet,
    Disk,
    Domain,
    EllipticOperator,
    Laplacian,
    Mixed,
    Neumann,
    ParabolicProblem,
    Reaction,
    Robin,
    Star,
    WaveProblem,
    WithNormal,
    evolve,
    manufactured_evolution,
)

WAVY = "exp(-t)*sin(2*x + 3*t)*cos(y) + cos(2*t)*x*y"
SLOW = EllipticOperator(((0.1, 0.0), (0.0, 0.1)))
ALLEN_CAHN = Reaction("u - u**3")
ROTATION = ("-y", "x")


def right_half(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x > 0


def order(problem: object, grids: tuple[int, ...], cells_a_step: float, **options: object) -> float:
    errors = [
        evolve(problem, CartesianGrid.uniform(n), [0, 1], step=cells_a_step / n, **options)[-1].errors()["l2"]  # type: ignore[arg-type]
        for n in grids
    ]
    return float(-np.polyfit(np.log(grids), np.log(errors), 1)[0])


CASES: dict[str, dict] = {
    "heat, Dirichlet": {},
    "heat, Neumann": {"boundary": Neumann()},
    "heat, mixed": {"boundary": Mixed(((right_half, Robin(1.0)),))},
    "advection-diffusion, Dirichlet": {"operator": SLOW, "velocity": ROTATION},
    "advection-diffusion, Neumann": {"operator": SLOW, "velocity": ROTATION, "boundary": Neumann()},
    "Allen-Cahn, Dirichlet": {"operator": SLOW, "reaction": ALLEN_CAHN},
    "Allen-Cahn, Neumann": {"operator": SLOW, "reaction": ALLEN_CAHN, "boundary": Neumann()},
    "Fisher": {"operator": SLOW, "reaction": Reaction("u*(1 - u)"), "velocity": ROTATION},
    "wave": {"wave": True},
}


@pytest.mark.parametrize("case", CASES)
def test_fourth_order_in_space_and_time_together(case: str) -> None:
    """Data of all boundaries change in time: the stages' order, 2, must not show."""
    problem = manufactured_evolution(WAVY, Star(), **CASES[case])
    assert order(problem, (32, 48, 64, 80), 2.4) > 3.7


def test_explicit_terms_have_the_order_of_the_pair_away_from_the_boundary() -> None:
    """Homogeneous Neumann data and nothing at the boundary: u = u(t) solves u' = r(u), order 4."""
    decay = ParabolicProblem(Disk(), Laplacian(2), Neumann(), 0.2, reaction=Reaction("u - u**3"))
    exact = 1 / np.sqrt(1 + (1 / 0.2**2 - 1) * np.exp(-2.0))
    grid, errors, steps = CartesianGrid.uniform(20), [], (0.25, 0.125, 0.0625, 0.03125)
    for step in steps:
        values = evolve(decay, grid, [0, 1], step=step, explicit=True).values[-1]
        errors.append(np.nanmax(np.abs(values - exact)))
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] > 3.8


def test_explicit_and_implicit_terms_agree() -> None:
    problem = manufactured_evolution(WAVY, Star(), SLOW, ROTATION, ALLEN_CAHN)
    grid = CartesianGrid.uniform(48)
    explicit = evolve(problem, grid, [0, 1], step=0.01, explicit=True)
    assert explicit[-1].errors()["l2"] < 1e-6
    implicit = evolve(problem, grid, [0, 1], step=0.05)
    assert implicit[-1].errors()["l2"] < 1e-6


@pytest.mark.parametrize("scale", [0.99, 0.8])
def test_steps_that_explicit_terms_allow_are_stable(scale: float) -> None:
    fast = ParabolicProblem(
        Star(),
        EllipticOperator(((0.01, 0.0), (0.0, 0.01))),
        Dirichlet(),
        lambda x, y: np.exp(-40 * (x**2 + (y - 0.1) ** 2)),
        velocity=("1 - y", "x"),
    )
    grid = CartesianGrid.uniform(48)
    with pytest.raises(ConfigError, match="allow at most") as caught:
        evolve(fast, grid, [0, 10], step=10.0, explicit=True)
    limit = float(str(caught.value).split("at most ")[1].split()[0])
    run = evolve(fast, grid, [0, 300 * limit], step=scale * limit, explicit=True)
    assert np.nanmax(np.abs(run.values[-1])) < 1.0


def test_a_reaction_that_grows_too_fast_for_the_step_is_named() -> None:
    blow_up = ParabolicProblem(Disk(), SLOW, Neumann(), 1.0, reaction=Reaction("u**2"))
    with pytest.raises(ConvergenceError, match=r"explicit, allow a step of .* take a smaller step"):
        evolve(blow_up, CartesianGrid.uniform(20), [0, 0.99], step=0.33, explicit=True)


def test_adaptive_steps_meet_the_tolerance_with_few_factorisations() -> None:
    problem = manufactured_evolution(WAVY, Star())
    for tolerance in (1e-4, 1e-6):
        run = evolve(problem, CartesianGrid.uniform(64), [0, 0.5, 1], tolerance=tolerance)
        assert run[-1].errors()["linf"] < 10 * tolerance
        assert run.info["factorisations"] <= 8
    assert run.info["accepted"] > 10


def test_decay_rate_of_the_disk() -> None:
    """exp(-lambda t) J0(k r): diffusion without data, long after the start."""
    from scipy.special import j0, jn_zeros

    k = jn_zeros(0, 1)[0] / 0.4
    problem = ParabolicProblem(Disk(0.4), Laplacian(2), Dirichlet(), lambda x, y: j0(k * np.hypot(x, y)))
    run = evolve(problem, CartesianGrid.uniform(48), [0, 0.05], step=0.0025)
    r = np.linalg.norm(run.grid.nodes(), axis=-1)
    expected = np.exp(-(k**2) * 0.05) * j0(k * r)
    assert np.nanmax(np.abs(run.values[-1] - expected)) < 1e-5


def test_heat_is_conserved_without_flux() -> None:
    def bump(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.maximum(1 - (x**2 + y**2) / 0.14**2, 0.0) ** 6

    problem = ParabolicProblem(Disk(), Laplacian(2), Neumann(), bump)
    run = evolve(problem, CartesianGrid.uniform(80), [0, 0.05, 0.1, 3.0], step=0.01)
    heat = [run[k].integral() for k in (0, 1, 3)]
    assert np.nanstd(run.values[-1]) < 1e-8
    assert heat == pytest.approx([heat[0]] * 3, rel=1e-5)


def test_errors_of_evolutions_include_the_mean() -> None:
    problem = manufactured_evolution("exp(-t)*x + 5", Disk(), boundary=Neumann())
    shifted = replace(problem, initial=lambda x, y: x)
    assert evolve(shifted, CartesianGrid.uniform(24), [0, 0.1], step=0.05)[-1].errors()["linf"] > 4.9


def test_time_with_a_default_value_is_time() -> None:
    growing = ParabolicProblem(
        Disk(), Laplacian(2), Dirichlet(lambda x, y, t=0.0: t + 0 * x), 0.0, source=1.0
    )
    run = evolve(growing, CartesianGrid.uniform(24), [0, 1], step=0.1)
    assert np.nanmax(np.abs(run.values[-1] - 1.0)) < 1e-9


def test_velocity_zero_and_adaptive_explicit_steps() -> None:
    grid = CartesianGrid.uniform(32)
    still = ParabolicProblem(Disk(), Laplacian(2), Dirichlet(), lambda x, y: x, velocity=(0.0, 0.0))
    evolve(still, grid, [0, 1], step=0.5, explicit=True)
    problem = manufactured_evolution(WAVY, Disk(), SLOW, ROTATION)
    run = evolve(problem, grid, [0, 1], tolerance=1e-4, explicit=True)
    assert run[-1].errors()["linf"] < 1e-3


def test_long_steps_of_an_implicit_reaction() -> None:
    problem = manufactured_evolution(WAVY, Star(), SLOW, reaction=ALLEN_CAHN, boundary=Neumann())
    assert evolve(problem, CartesianGrid.uniform(24), [0, 1], step=0.5)[-1].errors()["l2"] < 1e-2


def test_standing_wave_keeps_its_frequency() -> None:
    from scipy.special import j0, jn_zeros

    k = jn_zeros(0, 1)[0] / 0.4
    shape = lambda x, y: j0(k * np.hypot(x, y))  # noqa: E731
    problem = WaveProblem(Disk(0.4), Laplacian(2), Dirichlet(), shape)
    period = 2 * np.pi / k
    run = evolve(problem, CartesianGrid.uniform(48), [0, period / 2, period], step=period / 160)
    assert np.nanmax(np.abs(run.values[1] + run.values[0])) < 1e-5
    assert np.nanmax(np.abs(run.values[2] - run.values[0])) < 1e-5


@pytest.mark.parametrize("boundary", [Dirichlet(), Neumann()], ids=["dirichlet", "neumann"])
def test_three_dimensions_and_krylov(boundary: BoundaryCondition) -> None:
    domain: Domain = Ball()
    problem = manufactured_evolution("exp(-t)*cos(x + y)*cosh(z)", domain, boundary=boundary)
    grid = CartesianGrid.uniform(20, (-0.5,) * 3, (0.5,) * 3)
    runs = [evolve(problem, grid, [0, 0.5], step=0.05, solver=name) for name in ("direct", "krylov")]
    assert runs[0][-1].errors()["l2"] < 3e-6
    assert np.nanmax(np.abs(runs[0].values - runs[1].values)) < 1e-9


def test_data_may_be_steady_or_take_the_time() -> None:
    grid = CartesianGrid.uniform(24)
    steady = ParabolicProblem(Disk(), Laplacian(2), Dirichlet(lambda x, y: x), lambda x, y: x)
    assert np.nanmax(np.abs(evolve(steady, grid, [0, 1], step=0.1)[-1].values - grid.nodes()[..., 0])) < 1e-12
    flux = Neumann(WithNormal(lambda x, y, t, nx, ny: nx + 0 * t))
    moving = ParabolicProblem(Disk(), Laplacian(2), flux, lambda x, y: x, source=lambda x, y, t: t + 0 * x)
    run = evolve(moving, grid, [0, 2], step=0.25)
    assert np.nanmax(np.abs(run.values[-1] - grid.nodes()[..., 0] - 2.0)) < 1e-9


def test_the_method_and_bad_input() -> None:
    problem = manufactured_evolution(WAVY, Star(), velocity=ROTATION)
    grid = CartesianGrid.uniform(24)
    run = evolve(problem, grid, [0, 0.1], step=0.01, explicit=True)
    assert "weight_power=1.0" in run.info["method"]
    assert evolve(problem, grid, [0, 0.1], step=0.1, method=PLG(degree=3)).info["method"] == repr(
        PLG(degree=3)
    )
    with pytest.raises(ConfigError, match="exactly one of them"):
        evolve(problem, grid, [0, 1])
    with pytest.raises(ConfigError, match="increasing order"):
        evolve(problem, grid, [0, 0], step=0.1)
    with pytest.raises(ConfigError, match="'auto', 'direct' or 'krylov'"):
        evolve(problem, grid, [0, 1], step=0.1, solver="lu")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="give 2 components"):
        ParabolicProblem(Disk(), Laplacian(2), Dirichlet(), 0.0, velocity=(1.0,))
    with pytest.raises(ConfigError, match="source is nan"):
        evolve(
            ParabolicProblem(Disk(), Laplacian(2), Dirichlet(), 0.0, source=float("nan")),
            grid,
            [0, 1],
            step=1,
        )
    with pytest.raises(ConfigError, match="initial is nan"):
        evolve(ParabolicProblem(Disk(), Laplacian(2), Dirichlet(), float("nan")), grid, [0, 1], step=1)
    with pytest.raises(ConfigError, match="no velocity"):
        manufactured_evolution(WAVY, Star(), velocity=ROTATION, wave=True)
