"""Random fields: covariance, resolution independence, nesting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    with pytest.raises(ConfigError, match="axes: 1 given"):
        GaussianRandomField(2.0, 3.0).sample(0, (np.zeros(3),))
