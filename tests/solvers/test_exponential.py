"""Exponential integrators: phi functions, exactness and order of ETDRK4."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import expm

from sciml.errors import ConfigError
from sciml.solvers.exponential import ETDRK4, phi_functions


def series(z: complex, k: int) -> complex:
    """phi_k(z) from its Taylor series in 80 digits."""
    with localcontext() as context:
        context.prec = 80
        x, y = Decimal(z.real), Decimal(z.imag)
        re, im, total_re, total_im = Decimal(1), Decimal(0), Decimal(0), Decimal(0)
        factorial = Decimal(math.factorial(k))
        for j in range(150):
            total_re, total_im = total_re + re / factorial, total_im + im / factorial
            re, im = re * x - im * y, re * y + im * x
            factorial *= k + j + 1
        return complex(float(total_re), float(total_im))


@given(st.floats(0, 20), st.floats(-math.pi, math.pi))
def test_phi_functions_against_80_digits(radius: float, angle: float) -> None:
    z = radius * complex(math.cos(angle), math.sin(angle))
    for k, value in enumerate(phi_functions(z, 4)):
        exact = series(z, k)
        # Near a zero of phi_k only the absolute error is small.
        assert abs(complex(value) - exact) <= 2e-14 * max(abs(exact), 1e-2 / (1 + abs(z)))


@pytest.mark.parametrize("z", [0.0, 1e-12, -1e-5, 1e-3j, -0.999999, -1.0, -1.000001, 1.0, 1j, -30.0, -1e4])
def test_phi_functions_near_the_seam_and_far_out(z: complex) -> None:
    values = phi_functions(z, 6)
    # e^(augmented z) holds phi_1, phi_2, ... in its first row.
    augmented = np.diag(np.ones(5, dtype=complex), 1)
    augmented[0, 0] = z
    exact = expm(augmented)[0]
    assert values[1:] == pytest.approx(exact[1:], rel=1e-12)
    assert values[0] == pytest.approx(np.exp(z), rel=1e-15)
    assert np.isrealobj(values) == np.isrealobj(z)


def test_phi_functions_agree_with_contour_means() -> None:
    """Kassam and Trefethen's means over circles, SIAM J. Sci. Comput. 26 (2005)."""
    z = np.r_[-np.geomspace(1e-6, 50, 40), 1j * np.geomspace(1e-6, 20, 20)]
    w = z[:, None] + np.exp(2j * np.pi * (np.arange(64) + 0.5) / 64)
    phi = [np.exp(w)]
    for k in range(3):
        phi.append((phi[-1] - 1 / math.factorial(k)) / w)
    assert phi_functions(z, 4) == pytest.approx(np.mean(phi, axis=-1), rel=1e-12)


def test_linear_part_is_exact() -> None:
    linear = np.array([-1e6, -3.0, 0.0, 2.0])
    y = ETDRK4(linear, 0.5).step(0.0, np.ones((3, 4)), lambda t, y: np.zeros_like(y))
    assert y == pytest.approx(np.broadcast_to(np.exp(0.5 * linear), (3, 4)), rel=1e-15)


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_polynomials_in_time_are_integrated_exactly(power: int) -> None:
    """y' = -y + t^p + p t^(p-1) has the solution t^p; three moments enter the weights."""
    y = ETDRK4(np.array([-1.0]), 0.25).step(
        0.0,
        np.array([0.0**power]),
        lambda t, y: np.array([t**power + (power * t ** (power - 1) if power else 0)]),
    )
    error = abs(y[0] - 0.25**power)
    assert error < 1e-15 if power < 3 else 1e-6 < error < 1e-4


@pytest.mark.parametrize("linear", [-1.0, -50.0, 2j])
def test_order_four(linear: complex) -> None:
    """y' = L y + y^2, a Bernoulli equation."""
    y0, end = 0.5, 1.0
    exact = 1 / ((1 / y0 + 1 / linear) * np.exp(-linear * end) - 1 / linear)
    errors, steps = [], np.array([16, 32, 64, 128]) * (8 if linear == -50 else 1)
    for n in steps:
        method, y = ETDRK4(np.array([linear]), end / n), np.array([y0 + 0 * linear])
        for i in range(n):
            y = method.step(i * end / n, y, lambda t, y: y * y)
        errors.append(abs(y[0] - exact) / abs(exact))
    assert 3.8 < -np.polyfit(np.log(steps), np.log(errors), 1)[0] < 4.3


def test_libraries_agree_and_single_precision_is_kept() -> None:
    linear, y = -np.geomspace(0.1, 100, 6), np.random.default_rng(1).normal(size=(4, 6))
    ours = ETDRK4(linear, 0.1).step(0.0, y, lambda t, y: y * y)
    theirs = ETDRK4(torch.from_numpy(linear), 0.1).step(0.0, torch.from_numpy(y), lambda t, y: y * y)
    assert theirs.numpy() == pytest.approx(ours, rel=1e-14)
    single = ETDRK4(linear.astype(np.float32), 0.1).step(0.0, y.astype(np.float32), lambda t, y: y * y)
    assert single.dtype == np.float32
    assert single == pytest.approx(ours, rel=1e-5)


def test_the_state_is_kept() -> None:
    y = np.ones(3)
    ETDRK4(np.zeros(3), 0.1).step(0.0, y, lambda t, y: -y)
    assert (y == 1).all()


@pytest.mark.parametrize("dt", [0.0, -1.0, math.inf, math.nan])
def test_bad_steps(dt: float) -> None:
    with pytest.raises(ConfigError, match="the step must be positive"):
        ETDRK4(np.zeros(1), dt)


@pytest.mark.parametrize("count", [0, 7])
def test_bad_counts(count: int) -> None:
    with pytest.raises(ConfigError, match=f"count={count}"):
        phi_functions(0.0, count)


@pytest.mark.parametrize("size", [8, 40])
def test_a_rate_of_another_shape_is_refused(size: int) -> None:
    """Kernels would read beyond it."""
    for wrong in ((size,), (1, size), (10, size), (size, 5)):
        with pytest.raises(ConfigError, match=r"nonlinear returns shape .* return that of the state"):
            ETDRK4(np.zeros(size) + 0j, 0.1).step(
                0.0, np.zeros((5, size)) + 0j, lambda t, y, shape=wrong: np.zeros(shape) + 0j
            )
