"""Random fields: covariance, resolution independence, nesting."""

import itertools
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import idctn

from sciml.datasets import GaussianRandomField
from sciml.errors import ConfigError


@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
@pytest.mark.parametrize("dim", [1, 2])
def test_basis_is_orthonormal(boundary: str, dim: int) -> None:
    field = GaussianRandomField(2.0, 3.0, boundary, dim, modes=6)
    x = (np.arange(400) + 0.5) / 400
    basis = field.basis(x)
    assert basis.T @ basis / 400 == pytest.approx(np.eye(basis.shape[1]), abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**40), st.sampled_from(["neumann", "periodic"]), st.integers(1, 3))
def test_one_seed_is_one_function_at_every_resolution(seed: int, boundary: str, dim: int) -> None:
    field = GaussianRandomField(2.0, 3.0, boundary, dim, modes=5)
    x = np.linspace(0, 1, 17)
    fine, coarse = field.sample(seed, (x,) * dim), field.sample(seed, (x[::4],) * dim)
    assert coarse == pytest.approx(fine[(slice(None, None, 4),) * dim], abs=1e-12)


def test_more_modes_keep_the_lower_ones() -> None:
    small, large = (GaussianRandomField(2.0, 3.0, modes=m).coefficients(11) for m in (8, 20))
    assert (large[:8, :8] == small).all()


@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
def test_sample_covariance_of_the_modes(boundary: str) -> None:
    """Projected on the basis, fields have the variances sigma^2 (lambda + tau^2)^-alpha, uncorrelated."""
    field = GaussianRandomField(2.0, 3.0, boundary, 1, modes=4)
    x = (np.arange(64) + 0.5) / 64
    samples = np.stack([field.sample(seed, (x,)) for seed in range(4000)])
    projected = samples @ field.basis(x) / 64
    covariance = projected.T @ projected / len(samples)
    expected = np.diag(3.0 ** (2 * 2 - 1) * (field.wavenumbers**2 + 9.0) ** -2.0)
    expected[0, 0] = 0.0
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected))) + 1e-12
    # Sampling error of a covariance is about scale / sqrt(4000) = 0.016 scale.
    assert (np.abs(covariance - expected) / scale).max() < 0.1


@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
@pytest.mark.parametrize("dim", [1, 2])
def test_sample_covariance_in_space(boundary: Literal["neumann", "periodic"], dim: int) -> None:
    """Of values at points, beside sigma^2 (-Laplace + tau^2)^-alpha written as a sum over k != 0.

    Periodic: cos 2 pi k . (x - y), k over positive and negative integers. Neumann: products of
    cos k pi x and cos k pi y, twice along each axis where k > 0.
    """
    alpha, tau, modes, sigma = 2.0, 3.0, 5, 2.0
    field = GaussianRandomField(alpha, tau, boundary, dim, modes, sigma)
    x = np.array([0.05, 0.3, 0.75])
    samples = np.stack([field.sample(seed, (x,) * dim).ravel() for seed in range(4000)])
    points = np.stack(np.meshgrid(*[x] * dim, indexing="ij"), -1).reshape(-1, dim)
    expected = np.zeros((len(points), len(points)))
    low = 0 if boundary == "neumann" else 1 - modes
    for k in itertools.product(range(low, modes), repeat=dim):
        if not any(k):
            continue
        if boundary == "periodic":
            eigenvalue = 4 * np.pi**2 * np.dot(k, k)
            factor = np.cos(2 * np.pi * ((points[:, None] - points[None]) @ np.array(k)))
        else:
            eigenvalue = np.pi**2 * np.dot(k, k)
            phi = np.prod(
                [(np.sqrt(2) if m else 1) * np.cos(m * np.pi * points[:, d]) for d, m in enumerate(k)], 0
            )
            factor = np.outer(phi, phi)
        expected += sigma**2 * (eigenvalue + tau**2) ** -alpha * factor
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    # Sampling error of a covariance is at most sqrt(2 / 4000) = 0.022 scale.
    assert (np.abs(samples.T @ samples / len(samples) - expected) / scale).max() < 0.1
    assert (np.abs(samples.mean(axis=0)) / np.sqrt(np.diag(expected))).max() < 0.07


@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
@pytest.mark.parametrize("dim", [1, 2])
def test_mean_over_the_cube_is_zero(boundary: Literal["neumann", "periodic"], dim: int) -> None:
    x = (np.arange(64) + 0.5) / 64
    field = GaussianRandomField(2.0, 3.0, boundary, dim, modes=9)
    assert [field.sample(seed, (x,) * dim).mean() for seed in range(3)] == pytest.approx([0] * 3, abs=1e-14)


def test_neumann_field_is_an_inverse_cosine_transform() -> None:
    """At cell centres, s times the orthonormal inverse DCT-II: the convention of the FNO code."""
    field, s = GaussianRandomField(2.0, 3.0, modes=16), 40
    coefficients = np.zeros((s, s))
    coefficients[:16, :16] = field.coefficients(5)
    centres = (np.arange(s) + 0.5) / s
    assert field.sample(5, (centres, centres)) == pytest.approx(
        s * idctn(coefficients, norm="ortho"), abs=1e-13
    )


def test_variance_of_initial_states_of_burgers() -> None:
    """N(0, 625 (-Laplace + 25)^-2) on the circle, k = 0 left out, in closed form."""
    tau = 5.0
    field = GaussianRandomField(2.0, tau, "periodic", 1, modes=4000, sigma=25.0)
    # The sum over all k of 1 / (4 pi^2 k^2 + tau^2) is coth(tau / 2) / (2 tau); -d/d(tau^2) of it:
    half = tau / 2
    total = (1 / np.sinh(half) ** 2 / (4 * tau) + 1 / np.tanh(half) / (2 * tau**2)) / (2 * tau)
    assert np.sum(field.spectrum() ** 2) == pytest.approx(625 * (total - tau**-4), rel=1e-9)


@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
def test_derivatives_of_the_basis(boundary: Literal["neumann", "periodic"]) -> None:
    field = GaussianRandomField(2.0, 3.0, boundary, 1, modes=5)
    x, step = np.linspace(0.03, 0.97, 11), 1e-5
    differences = (field.basis(x + step) - field.basis(x - step)) / (2 * step)
    assert field.basis_derivative(x) == pytest.approx(differences, abs=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_normalised_field_has_mean_square_one(dim: int) -> None:
    field = GaussianRandomField(2.5, 4.0, "periodic", dim, modes=5).normalised()
    x = (np.arange(16) + 0.5) / 16
    squares = [np.mean(field.sample(seed, (x,) * dim) ** 2) for seed in range(400)]
    assert np.mean(squares) == pytest.approx(1, abs=5 * np.std(squares) / 20)
    assert np.sum(field.spectrum() ** 2) == pytest.approx(1)
    assert field.normalised() == field


def test_pointwise_variance_in_2d() -> None:
    field = GaussianRandomField(2.0, 3.0, modes=24)
    axes = (np.array([0.5]), np.array([0.25]))
    values = np.array([field.sample(seed, axes)[0, 0] for seed in range(3000)])
    basis = np.multiply.outer(field.basis(axes[0])[0], field.basis(axes[1])[0])
    exact = np.sum((field.spectrum() * basis) ** 2)
    assert values.mean() == pytest.approx(0, abs=4 * np.sqrt(exact / 3000))
    assert values.var() == pytest.approx(exact, rel=0.1)


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="boundary='dirichlet'"):
        GaussianRandomField(2.0, 3.0, "dirichlet")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tau=0"):
        GaussianRandomField(2.0, 0.0)
    for sigma in (0.0, -1.0, np.nan, np.inf, "1", True):
        with pytest.raises(ConfigError, match=f"sigma={sigma!r}: it must be positive and finite, or None"):
            GaussianRandomField(2.0, 3.0, sigma=sigma)  # type: ignore[arg-type]
    for modes in (8.0, "8", True, None):
        with pytest.raises(ConfigError, match=f"modes={modes!r}: give an integer"):
            GaussianRandomField(2.0, 3.0, modes=modes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="modes=1"):
        GaussianRandomField(2.0, 3.0, modes=1)
    with pytest.raises(ConfigError, match="axes: 1 given"):
        GaussianRandomField(2.0, 3.0).sample(0, (np.zeros(3),))
