"""Terms and coefficients of equations: noise, chaos, standard errors, what may not be asked."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.dynamics import roll_out
from sciml.dynamics.identification import PolynomialShooting, _wald, bootstrap, identify
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
    times = np.linspace(0, 10, 1001)
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
    assert 10 < found.window < 1001


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
def test_wald_is_the_growth_of_a_linear_fit_s_errors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=30)
    full, residual, *_ = np.linalg.lstsq(x, y)
    gone = sorted(rng.permutation(5)[:2].tolist())
    left = [k for k in range(5) if k not in gone]
    _, smaller, *_ = np.linalg.lstsq(x[:, left], y)
    assert _wald(full, np.linalg.inv(x.T @ x), gone) == pytest.approx(
        float(smaller[0] - residual[0]), rel=1e-8
    )


def test_growth_of_a_start_s_error() -> None:
    times = np.linspace(0, 2, 21)
    states = np.stack([np.exp(-times), np.exp(-times)], -1)[None]
    p = PolynomialMap(np.array([[1, 0], [0, 1]]), np.array([[1.5, 0.0], [0.0, -1.0]]), ("x", "y"))
    problem = PolynomialShooting(
        p, p.coefficients != 0, segments(states, times, 21), torch.ones(2, dtype=torch.float64), 8
    )
    assert problem.growth(problem.start()) == pytest.approx(np.exp(3), rel=1e-5)


def test_bad_input_is_named(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    with pytest.raises(ConfigError, match=r"expected \(trajectories, times, 2\)"):
        identify(dense(), states[0], times)
    with pytest.raises(ConfigError, match="window=101"):
        identify(dense(), states, times, window=101)
    with pytest.raises(ConfigError, match="give more frames, or longer windows"):
        identify(dense(), states[:, :4], times[:4], window=2)
    wild = PolynomialMap(EXPONENTS, TRUE + 1e6, ("x", "y"))
    with pytest.raises(ConvergenceError, match="not finite"):
        identify(wild, states, times)
    found = identify(dense(), states, times)
    with pytest.raises(ConfigError, match="n=0"):
        next(bootstrap(found, states, times, 0))
