"""Terms and coefficients of equations: noise, chaos, standard errors, what may not be asked."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.dynamics import roll_out
from sciml.dynamics.identification import PolynomialShooting, bootstrap, identify, weakest_terms
from sciml.dynamics.shooting import segments
from sciml.errors import ConfigError, ConvergenceError
from sciml.symbolic import PolynomialMap, monomial_exponents

EXPONENTS = monomial_exponents(2, 2)
TRUE = np.zeros((6, 2))
TRUE[1, 0], TRUE[4, 0], TRUE[2, 1], TRUE[4, 1] = 1.56, -1.12, -3.10, 1.21


def predators(t: float, z: torch.Tensor) -> torch.Tensor:
    x, y = z.unbind(-1)
    return torch.stack([1.56 * x - 1.12 * x * y, -3.10 * y + 1.21 * x * y], -1)


def lorenz(t: float, w: torch.Tensor) -> torch.Tensor:
    x, y, z = w.unbind(-1)
    return torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)


@pytest.fixture(scope="module")
def orbit() -> tuple[np.ndarray, np.ndarray]:
    times = np.linspace(0, 6, 100)
    states = roll_out(predators, torch.ones(1, 2, dtype=torch.float64), times, substeps=60)
    return times, states.numpy().swapaxes(0, 1)


def noisy(states: np.ndarray, level: float, seed: int) -> np.ndarray:
    draw = np.random.default_rng([seed, 7]).standard_normal(states.shape)
    return states + level * states.std(axis=(0, 1)) * draw


def dense(seed: int = 0) -> PolynomialMap:
    """All terms, not far from the truth: as a network gives them."""
    return PolynomialMap(
        EXPONENTS, TRUE + 0.02 * np.random.default_rng(seed).normal(size=TRUE.shape), ("x", "y")
    )


def full_table(p: PolynomialMap, exponents: np.ndarray) -> np.ndarray:
    zero = PolynomialMap(exponents, np.zeros((len(exponents), p.coefficients.shape[1])), p.variables)
    return (zero + p).coefficients


def test_without_noise_only_true_terms_are_left(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    found = identify(dense(), states, times, substeps=16)
    assert found.window == 100
    table = full_table(found.polynomial, EXPONENTS)
    assert ((table != 0) == (TRUE != 0)).all()
    assert abs(table - TRUE).max() < 1e-9


@pytest.mark.parametrize(("level", "limit"), [(0.01, 0.004), (0.05, 0.02)])
def test_noise(orbit: tuple[np.ndarray, np.ndarray], level: float, limit: float) -> None:
    times, states = orbit
    errors, ratios = [], []
    for seed in range(8):
        found = identify(dense(seed), noisy(states, level, seed), times)
        table = full_table(found.polynomial, EXPONENTS)
        assert ((table != 0) == (TRUE != 0)).all()
        there = TRUE != 0
        errors.append(abs(table - TRUE)[there] / abs(TRUE)[there])
        deviations = found.errors[found.active]
        ratios.append((found.polynomial.coefficients - _rows(found.polynomial))[found.active] / deviations)
        assert np.allclose(found.residual, level * states.std(axis=(0, 1)), rtol=0.25)
    assert np.median(np.max(errors, axis=1)) < limit
    # Errors are as large as they say: a mean square of 1, of 32 numbers.
    assert 0.4 < np.mean(np.square(ratios)) < 2.0


def _rows(p: PolynomialMap) -> np.ndarray:
    return np.array([TRUE[EXPONENTS.tolist().index(row)] for row in p.exponents.tolist()])


def test_bootstrap_agrees_with_standard_errors(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    data = noisy(states, 0.02, 1)
    found = identify(dense(), data, times)
    tables = np.stack(list(bootstrap(found, data, times, 60, seed=3)))
    spread = tables.std(axis=0)[found.active]
    assert np.allclose(spread, found.errors[found.active], rtol=0.4)
    again = list(bootstrap(found, data, times, 2, seed=3))
    assert (again[1] == tables[1]).all()


def test_chaos_is_fitted_to_predictable_parts() -> None:
    times = np.linspace(0, 4, 401)
    start = torch.tensor([[-8.0, 7.0, 27.0]], dtype=torch.float64)
    states = roll_out(lorenz, start, times, substeps=20).numpy().swapaxes(0, 1)
    exponents = monomial_exponents(3, 2)
    names = [PolynomialMap(exponents, np.zeros((10, 3)), ("x", "y", "z")).monomial_name(m) for m in range(10)]
    truth = np.zeros((10, 3))
    for output, terms in enumerate(
        ({"x": -10, "y": 10}, {"x": 28, "y": -1, "x z": -1}, {"z": -8 / 3, "x y": 1})
    ):
        for name, value in terms.items():
            truth[names.index(name), output] = value
    near = truth + 0.01 * np.random.default_rng(0).normal(size=truth.shape)
    found = identify(PolynomialMap(exponents, near, ("x", "y", "z")), noisy(states, 0.01, 0), times)
    table = full_table(found.polynomial, exponents)
    assert ((table != 0) == (truth != 0)).all()
    assert (abs(table - truth)[truth != 0] < 0.01 * abs(truth)[truth != 0]).all()
    assert found.window > 10


def test_unequal_noise_is_weighed(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    data = states.copy()
    data[..., 0] = noisy(states, 0.1, 0)[..., 0]
    data[..., 1] = noisy(states, 0.001, 0)[..., 1]
    found = identify(dense(), data, times)
    table = full_table(found.polynomial, EXPONENTS)
    assert ((table != 0) == (TRUE != 0)).all()
    # As exact as the second state allows, which has a hundredth of the first one's noise.
    assert abs(table - TRUE).max() < 0.01
    assert found.residual[0] > 20 * found.residual[1]


def test_window_that_is_given_is_kept(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    assert identify(dense(), states, times, window=20).window == 20


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_terms_go_as_linear_fits_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, price = rng.normal(size=(40, 5)), 6.0
    y = x @ np.array([3.0, 0.0, -2.0, 0.0, 0.0]) + rng.normal(size=40)

    def errors(kept: list[int]) -> float:
        return float(np.sum((y - x[:, kept] @ np.linalg.lstsq(x[:, kept], y)[0]) ** 2))

    full = np.linalg.lstsq(x, y)[0]
    gone = weakest_terms(full, np.linalg.inv(x.T @ x), price)
    # Each step is the best of one or two, in terms of fits without them.
    left = list(range(5))
    expected: list[int] = []
    while left:
        choices = [[i] for i in left] + [[i, j] for i in left for j in left if i < j]
        costs = [errors([k for k in left if k not in c]) - errors(left) - price * len(c) for c in choices]
        if min(costs) >= 0:
            break
        best = choices[int(np.argmin(costs))]
        expected += best
        left = [k for k in left if k not in best]
    assert sorted(gone) == sorted(expected)


def test_two_terms_that_stand_for_each_other_go_together() -> None:
    # Each alone is five deviations from zero, both together are nothing.
    theta = np.array([5.0, -5.0, 50.0])
    covariance = np.eye(3)
    assert sorted(weakest_terms(theta, covariance, 16.0)) == []
    covariance[0, 1] = covariance[1, 0] = -0.999
    assert (theta[:2] ** 2 > 16).all()
    assert sorted(weakest_terms(theta, covariance, 16.0)) == [0, 1]


def test_terms_that_data_cannot_tell_apart(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times = np.linspace(0, 3, 40)
    x = np.exp(-times)
    # y = 3 x: of many equations the one with the fewest terms.
    states = np.stack([x, 3 * x], -1)[None]
    start = PolynomialMap(EXPONENTS, np.full((6, 2), -0.1), ("x", "y"))
    found = identify(start, states, times)
    assert found.polynomial.degree == 1
    for output in range(2):
        assert len(found.polynomial.terms(output)) == 1
    ends = found.roll_out(states[:, 0], times)[0, -1]
    assert np.allclose(ends, states[0, -1], rtol=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_a_state_at_rest_has_an_equation_without_terms(level: float) -> None:
    times = np.linspace(0, 3, 40)
    states = noisy(np.ones((1, 40, 2)), 0.0, 0) + level * np.random.default_rng(0).normal(size=(1, 40, 2))
    start = PolynomialMap(EXPONENTS, np.zeros((6, 2)), ("x", "y"))
    found = identify(start, states, times)
    assert found.polynomial.exponents.shape == (0, 2)
    assert found.text() == "dx/dt = 0\ndy/dt = 0"
    assert (found.roll_out(np.ones((3, 2)), times) == 1).all()
    assert len(list(bootstrap(found, states, times, 2))) == 2


@pytest.mark.parametrize("units", [(1e-9, 1e-9), (1e9, 1e9), (1e-6, 1e6)])
def test_units_do_not_matter(orbit: tuple[np.ndarray, np.ndarray], units: tuple[float, float]) -> None:
    times, states = orbit
    data, slower = noisy(states, 0.02, 0), 1e-3
    plain = identify(dense(), data, times)
    start = replace(
        dense().rescaled(units, units), coefficients=dense().rescaled(units, units).coefficients * slower
    )
    found = identify(start, data * units, times / slower)
    assert found.active.sum() == plain.active.sum() == 4
    expected = plain.polynomial.rescaled(units, units).coefficients * slower
    assert np.allclose(found.polynomial.coefficients, expected, rtol=1e-6)
    assert found.window == plain.window


def test_frames_of_two_segments_count_once(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    data = segments(states, times, 80)
    assert data.counted.sum(1).tolist() == [80.0, 20.0]
    problem = PolynomialShooting(dense(), np.ones((6, 2), bool), data, torch.ones(2, dtype=torch.float64), 8)
    assert problem.count == 200
    changed = data.states.clone()
    # A frame that the first segment holds, too.
    changed[1, 30] += 5
    again = PolynomialShooting(
        dense(), np.ones((6, 2), bool), replace(data, states=changed), torch.ones(2, dtype=torch.float64), 8
    )
    again.units, start = problem.units, problem.start()
    assert again.assess(start).cost == start.cost
    assert torch.equal(again.normal(start).g, problem.normal(start).g)


def test_standard_errors_without_noise_hold_the_integrators_error() -> None:
    times = np.linspace(0, 4, 60)
    states = (3 / (1 + 29 * np.exp(-3 * times)))[None, :, None] / 3
    start = PolynomialMap(monomial_exponents(1, 2), np.array([[0.0], [2.9], [-3.1]]), ("x",))
    found = identify(start, states, times)
    truth = np.array([[3.0], [-3.0]])
    assert (abs(found.polynomial.coefficients - truth) < 2 * found.errors).all()


def test_growth_of_a_start_s_error() -> None:
    times = np.linspace(0, 2, 21)
    states = np.stack([np.exp(-times), np.exp(-times)], -1)[None]
    p = PolynomialMap(np.array([[1, 0], [0, 1]]), np.array([[1.5, 0.0], [0.0, -1.0]]), ("x", "y"))
    problem = PolynomialShooting(
        p, p.coefficients != 0, segments(states, times, 21), torch.ones(2, dtype=torch.float64), 8
    )
    assert problem.growth(problem.start(), np.ones(2)) == pytest.approx(np.exp(3), rel=1e-5)


def test_bad_input_is_named(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    with pytest.raises(ConfigError, match=r"expected \(trajectories, times, 2\)"):
        identify(dense(), states[0], times)
    with pytest.raises(ConfigError, match="window=101"):
        identify(dense(), states, times, window=101)
    with pytest.raises(ConfigError, match="--no-terms"):
        identify(dense(), states[:, :4], times[:4], window=2)
    wild = PolynomialMap(EXPONENTS, TRUE + 1e6, ("x", "y"))
    with pytest.raises(ConvergenceError, match="not finite"):
        identify(wild, states, times)
    with pytest.raises(ConfigError, match="substeps=0"):
        identify(dense(), states, times, substeps=0)
    with pytest.raises(ConfigError, match="floor=0"):
        identify(dense(), states, times, floor=0.0)
    with pytest.raises(ConfigError, match="2 variables, not 1"):
        identify(PolynomialMap(np.array([[1]]), np.ones((1, 2)), ("x",)), states, times)
    many = monomial_exponents(2, 22)
    with pytest.raises(ConfigError, match="552 coefficients to choose from, the limit is 500"):
        identify(PolynomialMap(many, np.zeros((len(many), 2)), ("x", "y")), states, times)
    found = identify(dense(), states, times)
    with pytest.raises(ConfigError, match="n=0"):
        next(bootstrap(found, states, times, 0))
