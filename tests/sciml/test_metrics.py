"""Metrics: closed forms, masks, NumPy and torch alike."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import ConfigError
from sciml.metrics import relative_h1, relative_l2


def sine(n: int, periodic: bool) -> tuple[np.ndarray, float]:
    h = 1 / n if periodic else 1 / (n - 1)
    x = h * np.arange(n)
    return np.sin(2 * np.pi * x)[None, :, None], h


def test_relative_l2_is_joint_over_channels() -> None:
    u = np.stack([np.full((2, 3, 3), 3.0), np.full((2, 3, 3), 4.0)], axis=-1)
    p = u + np.array([0.0, 1.0])
    assert relative_l2(p, u) == pytest.approx([0.2, 0.2])


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 100), st.integers(0, 2**31), st.booleans())
def test_relative_errors_are_scale_free_and_agree_with_torch(scale: float, seed: int, masked: bool) -> None:
    rng = np.random.default_rng(seed)
    u, p = rng.normal(size=(2, 3, 6, 5, 2))
    mask = (rng.random((3, 6, 5, 1)) < 0.8).astype(float) if masked else None
    torch_mask = None if mask is None else torch.tensor(mask)
    l2 = relative_l2(p, u, mask)
    assert relative_l2(scale * p, scale * u, mask) == pytest.approx(l2)
    assert relative_l2(torch.tensor(p), torch.tensor(u), torch_mask).numpy() == pytest.approx(l2)
    h1 = relative_h1(p, u, (0.2, 0.3), (True, False), mask)
    ours = relative_h1(torch.tensor(p), torch.tensor(u), (0.2, 0.3), (True, False), torch_mask).numpy()
    assert ours == pytest.approx(h1)


@pytest.mark.parametrize("periodic", [True, False])
def test_h1_of_a_sine_converges_to_the_closed_form(periodic: bool) -> None:
    """u = sin 2 pi x, p = u + sin(4 pi x) / 10: the H1 ratio is known; differences are of order two."""
    exact = 0.1 * np.sqrt((1 + 16 * np.pi**2) / (1 + 4 * np.pi**2))
    grids, errors = (32, 64, 128, 256), []
    for n in grids:
        u, h = sine(n if periodic else n + 1, periodic)
        x = h * np.arange(u.shape[1])
        p = u + 0.1 * np.sin(4 * np.pi * x)[None, :, None]
        errors.append(abs(relative_h1(p, u, (h,), (periodic,))[0] - exact))
    rate = -np.polyfit(np.log(grids), np.log(errors), 1)[0]
    assert rate > (1.9 if periodic else 0.9), errors  # the ends weigh fully, not half, in the sum


def test_mask_leaves_out_what_is_outside() -> None:
    rng = np.random.default_rng(0)
    u, p = rng.normal(size=(2, 1, 9, 9, 1))
    mask = np.zeros((1, 9, 9, 1))
    mask[:, 2:7, 2:7] = 1
    wild = np.where(mask > 0, p, 1e6)
    assert relative_l2(wild, u, mask) == pytest.approx(relative_l2(p[:, 2:7, 2:7], u[:, 2:7, 2:7]))
    assert relative_h1(wild, u, (0.1, 0.1), (False, False), mask) == pytest.approx(
        relative_h1(p, u, (0.1, 0.1), (False, False), mask)
    )


def test_shapes_must_agree() -> None:
    with pytest.raises(ConfigError, match="prediction of shape"):
        relative_l2(np.ones((1, 3, 1)), np.ones((1, 4, 1)))
    with pytest.raises(ConfigError, match="mask of shape"):
        relative_l2(np.ones((1, 4, 1)), np.ones((1, 4, 1)), np.ones((1, 3, 1)))
