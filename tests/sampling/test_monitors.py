"""Monitor functions: gradients, forms, corners, and what is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import ConvergenceError
from sciml.sampling.chains import run_chains
from sciml.sampling.langevin import Overdamped
from sciml.sampling.monitors import BoundedMonitor, FunctionMonitor, GradientMonitor, Monitor
from sciml.sampling.targets import SteepDoubleWell, SteepPrior, TwoPathways, three_modes

WELL = SteepDoubleWell()
MONITOR = BoundedMonitor(lambda x: 1 / WELL.steepness(x[:, 0]), least=0.1, most=1.5)


def monitors() -> list[Monitor]:
    prior, ways = SteepPrior(), TwoPathways()
    return [
        MONITOR,
        BoundedMonitor(lambda x: 2 * (x[:, 0] - 1.86).square(), stiff=True, least=0.1**0.5, most=1.0),
        BoundedMonitor(
            lambda x: (x[:, 1] + x[:, 0].square() - 4).square(),
            lambda x: (
                2
                * (x[:, 1:] + x[:, :1].square() - 4)
                * torch.cat([2 * x[:, :1], torch.ones_like(x[:, :1])], 1)
            ),
            least=0.2**0.5,
        ),
        GradientMonitor(three_modes(), 1.5),
        GradientMonitor(prior, 3.0),
        GradientMonitor(ways, 3.0, smoothing=0.5),
        FunctionMonitor(lambda x: 1 / (1 + x.square().sum(1))),
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 6), st.lists(st.floats(-2.5, 2.5), min_size=2, max_size=2))
def test_gradients_of_monitors(number: int, at: list[float]) -> None:
    monitor = monitors()[number]
    d = 1 if number in (0, 1, 4) else 2
    x = torch.tensor([at[:d]], dtype=torch.float64)
    value, gradient = monitor.value_and_gradient(x)
    assert torch.equal(value, monitor.value(x))
    assert value.shape == (1, 1)
    if isinstance(monitor, BoundedMonitor):
        floor = monitor.least * monitor.most / (monitor.least + monitor.most)
        assert floor * (1 - 1e-12) <= float(value) <= monitor.most
    for i in range(d):
        shift = 1e-5 * torch.eye(d, dtype=torch.float64)[i]
        difference = float(monitor.value(x + shift) - monitor.value(x - shift)) / 2e-5
        assert float(gradient[0, i]) == pytest.approx(difference, abs=1e-6, rel=1e-5)


def test_monitors_of_both_forms_are_the_same() -> None:
    """phi where it is short, f = 1 / phi where it is large; the sheet's forms 6.2 and 6.4."""
    x = torch.linspace(0.1, 3, 20, dtype=torch.float64)[:, None]
    short = BoundedMonitor(lambda x: x[:, 0], least=0.3, most=1.2)
    large = BoundedMonitor(lambda x: 1 / x[:, 0], stiff=True, least=0.3, most=1.2)
    for one, two in zip(short.value_and_gradient(x), large.value_and_gradient(x), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)
    f, m1 = x[:, 0], 0.1
    form = BoundedMonitor(lambda x: x[:, 0], stiff=True, least=m1**0.5, most=1.0)
    root = torch.sqrt(1 + m1 * f**2)
    np.testing.assert_allclose(form.value(x)[:, 0], root / (root + f), rtol=1e-12)
    other = BoundedMonitor(lambda x: x[:, 0], least=0.2**0.5, most=1.0)
    np.testing.assert_allclose(other.value(x)[:, 0], 1 / (1 + 1 / torch.sqrt(0.2 + f**2)), rtol=1e-12)


def test_monitors_of_corners() -> None:
    """Constants, overflow, chains that have left."""
    x = torch.tensor([[1e20], [1e38], [1.0]])
    steep = BoundedMonitor(lambda x: x[:, 0] ** 2, stiff=True, least=0.1, most=1.0)
    value, gradient = steep.value_and_gradient(x)
    np.testing.assert_allclose(value[:, 0], [1 / 11, 1 / 11, 1 / (1 + 1 / math.hypot(1, 0.1))], rtol=1e-5)
    flat = BoundedMonitor(lambda x: 1 / (x[:, 0] * 0), lambda x: torch.ones_like(x), least=0.1, most=1.0)
    value, gradient = flat.value_and_gradient(torch.ones(2, 1))
    assert value.tolist() == [[1.0], [1.0]]
    assert gradient.tolist() == [[0.0], [0.0]]
    one = FunctionMonitor(lambda x: torch.ones_like(x[:, 0]))
    same, fixed = (
        run_chains(Overdamped(WELL, 0.1, monitor), x.double() * 0, 20, observables={}).x
        for monitor in (one, None)
    )
    torch.testing.assert_close(same, fixed)
    fading = FunctionMonitor(lambda x: 1 / (1 + x.square().sum(1)))
    far = run_chains(
        Overdamped(SteepPrior(), 0.3, fading),
        5 * torch.ones(6, 1).double(),
        50,
        on_divergence="keep",
        observables={},
    )
    assert (far.diverged > 0).all()


def test_a_monitor_must_be_positive() -> None:
    monitor = FunctionMonitor(lambda x: x[:, 0])
    with pytest.raises(ConvergenceError, match="monitor: g=-1 at"):
        run_chains(Overdamped(WELL, 0.1, monitor), -torch.ones(3, 1), 5)
