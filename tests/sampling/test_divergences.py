"""Measures of samples: closed forms, sums by hand, oracles, and what each is blind to."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import gaussian_kde
from torch import Tensor

from sciml.errors import ConfigError, ConvergenceError
from sciml.sampling import divergences
from sciml.sampling.divergences import (
    kde_divergence,
    ksd_squared,
    median_distance,
    mmd_squared,
    mode_weights,
    modes_found,
    sinkhorn_divergence,
    table,
    weight_error,
)
from sciml.sampling.targets import TARGETS, IsotropicMixture, ManyWell, gmm40, three_modes


def draws(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)))


@pytest.mark.parametrize("kernel", ["imq", "gaussian"])
@pytest.mark.parametrize("unbiased", [False, True])
def test_stein_kernel_by_derivatives(kernel: str, unbiased: bool) -> None:
    """k_pi from second derivatives of the kernel by automatic differentiation."""
    x, scale, beta = draws(6, 3), 1.7, -0.4
    target = IsotropicMixture([1.0, 2.0], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], 0.8)
    s = target.score(x)

    def k(a: Tensor, b: Tensor) -> Tensor:
        square = (a - b).square().sum() / scale**2
        return (1 + square) ** beta if kernel == "imq" else torch.exp(-square / 2)

    total = 0.0
    for i in range(6):
        for j in range(6):
            if unbiased and i == j:
                continue
            a, b = x[i].clone().requires_grad_(), x[j].clone().requires_grad_()
            by_a, by_b = torch.autograd.grad(k(a, b), (a, b), create_graph=True)
            trace = sum(
                float(torch.autograd.grad(by_a[c], b, retain_graph=True)[0][c].detach()) for c in range(3)
            )
            total += float((s[i] @ s[j] * k(a, b) + s[i] @ by_b + s[j] @ by_a).detach()) + trace
    expected = total / (30 if unbiased else 36)
    found = ksd_squared(x, target.score, kernel=kernel, scale=scale, beta=beta, unbiased=unbiased)
    assert found == pytest.approx(expected, rel=1e-10)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draws(50, 2), draws(40, 2, 1) + 1
    target = IsotropicMixture([1.0], [[0.0, 0.0]], 1.0)

    def values() -> list[float]:
        return [
            ksd_squared(x, target.score),
            ksd_squared(x, target.score, unbiased=True),
            mmd_squared(x, y, kernel="mixed"),
            kde_divergence(x, target, leave_one_out=True),
        ]

    before = values()
    monkeypatch.setattr(divergences, "CHUNK", 100)
    np.testing.assert_allclose(values(), before, rtol=1e-12)


def test_discrepancy_is_blind_to_weights() -> None:
    """Sheet 8: a mode of weight 0.5 is missing, and the discrepancy says nothing; the others do."""
    target, reference = three_modes(), three_modes().sample(1000, 3)
    exact = target.sample(1000, 1)
    without = IsotropicMixture([0.4, 0.6], target.means[:2], 1.0).sample(1000, 1)
    assert ksd_squared(without, target.score) < 3 * ksd_squared(exact, target.score)
    assert mmd_squared(without, reference) > 100 * abs(mmd_squared(exact, reference))
    assert weight_error(without, target.modes) == pytest.approx(0.5, abs=0.03)
    assert modes_found(without, target.modes) == 2
    assert kde_divergence(without, target) > kde_divergence(exact, target) + 0.5


def test_mean_discrepancy() -> None:
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0], [3.0]])
    k = lambda r: math.exp(-(r**2) / 4)  # noqa: E731
    expected = k(1) + (k(2) + k(3) + k(1)) / 3 - (k(0) + k(2) + k(3) + k(1) + k(1) + k(2)) / 3
    assert mmd_squared(x, y, 2.0) == pytest.approx(expected, rel=1e-12)
    energy = -1 - (2 + 3 + 1) / 3 + (0 + 2 + 3 + 1 + 1 + 2) / 3
    assert mmd_squared(x, y, kernel="energy") == pytest.approx(energy, rel=1e-12)
    one = mmd_squared(x, y, 2.0, kernel="mixed")
    several = np.mean([mmd_squared(x, y, 2.0 * f) for f in (0.25, 0.5, 1, 2, 4)])
    assert one == pytest.approx(float(several), rel=1e-12)
    # Of two normals with means delta apart, kernel exp(-r^2 / s^2): closed form.
    delta, s2 = 1.0, 4.0
    a, b = draws(4000, 1, 2), draws(4000, 1, 3) + delta
    closed = 2 * (s2 / (s2 + 4)) ** 0.5 * (1 - math.exp(-(delta**2) / (s2 + 4)))
    assert mmd_squared(a, b, 2.0) == pytest.approx(closed, abs=0.01)
    assert median_distance(draws(3000, 1)) == pytest.approx(2**0.5 * 0.6745, abs=0.03)


def test_transport_against_sweeps_and_assignment() -> None:
    """Plain Sinkhorn sweeps where these converge; the assignment problem for a small epsilon."""
    x, y = draws(30, 2), draws(25, 2, 1) * 1.3 + 0.5

    def swept(a: Tensor, b: Tensor, epsilon: float) -> float:
        cost = torch.cdist(a, b).square()
        kernel = torch.exp(-cost / epsilon)
        u, v = torch.ones(len(a)).double(), torch.ones(len(b)).double()
        for _ in range(20_000):
            u = 1 / len(a) / (kernel @ v)
            v = 1 / len(b) / (kernel.T @ u)
        plan = u[:, None] * kernel * v
        return float((plan * cost).sum() + epsilon * (plan * (plan * len(a) * len(b)).log()).sum())

    for epsilon in (2.0, 0.3):
        expected = swept(x, y, epsilon) - swept(x, x, epsilon) / 2 - swept(y, y, epsilon) / 2
        assert sinkhorn_divergence(x, y, epsilon) == pytest.approx(expected, rel=1e-7)
    z = draws(30, 2, 2) + 1
    cost = torch.cdist(x, z).square().numpy()
    rows, columns = linear_sum_assignment(cost)
    assert sinkhorn_divergence(x, z, 1e-3) == pytest.approx(cost[rows, columns].mean(), rel=1e-2)
    assert sinkhorn_divergence(x, x.clone()) == pytest.approx(0, abs=1e-10)


def test_transport_against_pot() -> None:
    ot = pytest.importorskip("ot", reason="needs the extra peers")
    x, y = draws(20, 3), draws(25, 3, 1) + 0.4

    def public(a: Tensor, b: Tensor) -> float:
        weights = [np.full(len(part), 1 / len(part)) for part in (a, b)]
        cost = torch.cdist(a, b).square().numpy()
        plan = ot.sinkhorn(*weights, cost, 2.0, method="sinkhorn_log", numItermax=20_000, stopThr=1e-11)
        return float((plan * cost).sum() + 2.0 * (plan * np.log(plan * plan.size)).sum())

    expected = public(x, y) - public(x, x) / 2 - public(y, y) / 2
    assert sinkhorn_divergence(x, y, 2.0) == pytest.approx(expected, rel=1e-6)


def test_transport_between_modes_that_are_apart() -> None:
    """Where sweeps hardly move: 10 of 1000 samples must cross, their cost is known."""
    x = torch.cat([torch.zeros(500, 1), torch.full((500, 1), 20.0)]).double() + 0.1 * draws(1000, 1)
    y = torch.cat([torch.zeros(490, 1), torch.full((510, 1), 20.0)]).double() + 0.1 * draws(1000, 1, 1)
    # 0.01 of the mass by 20: 4.0, and noise.
    assert sinkhorn_divergence(x[::4], y[::4], 0.2) == pytest.approx(0.01 * 400, rel=0.3)


def test_density_estimate() -> None:
    x, target = three_modes().sample(500, 1), three_modes()
    public = gaussian_kde(x.numpy().T)
    log_q = np.log(public(x.numpy().T))
    assert kde_divergence(x, target) == pytest.approx(
        float(log_q.mean() - target.log_density(x).mean()), rel=1e-9
    )
    assert kde_divergence(x, target) == pytest.approx(-0.37, abs=0.06)
    # Leave-one-out by hand for one sample.
    q = public(x.numpy().T)
    self_term = 1 / (500 * math.sqrt(float(np.linalg.det(2 * math.pi * public.covariance))))
    left = np.log((q - self_term) * 500 / 499)
    expected = float(left.mean() - target.log_density(x).mean())
    assert kde_divergence(x, target, leave_one_out=True) == pytest.approx(expected, rel=1e-9)


def test_counts_of_modes() -> None:
    x = torch.tensor([[3.0, 0.1], [2.0, 0.0], [-9.0, 0.0], [0.0, -5.0]])
    modes = three_modes().modes
    assert mode_weights(x, modes).tolist() == [0.5, 0.25, 0.25]
    assert weight_error(x, modes) == pytest.approx(0.3)
    assert modes_found(x, modes) == 3
    assert modes_found(x[:2], modes) == 1


def test_table_of_samples_that_are_all_the_same() -> None:
    found = table(torch.zeros(5, 2).double(), three_modes())
    assert math.isnan(found["KL by KDE"]["value"])
    assert found["modes"]["value"] == 1


def test_table_has_exact_samples_beside() -> None:
    target = gmm40()
    found = table(target.sample(300, 8), target, target.sample(300, 9))
    assert found["modes"]["value"] > 35
    assert found["weight error"]["exact"] == pytest.approx(0.13, abs=0.05)
    assert abs(found["MMD^2"]["value"]) < 0.01
    assert set(found) >= {"Sinkhorn", "KSD^2", "KL by KDE", "KL by KDE, one out", "E |x|^2"}
    # Without exact samples what needs them is left out.
    few = table(draws(50, 32), ManyWell())
    assert "MMD^2" not in few
    assert math.isnan(few["KSD^2"]["exact"])
    assert "modes" not in table(TARGETS["digits"]().sample(60, 1), TARGETS["digits"]())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: mmd_squared(x, x[:, :1]), "coordinates"),
        (lambda x: mmd_squared(x, x, kernel="cubic"), "kernel='cubic'"),
        (lambda x: mmd_squared(x, x, 0.0), "scale=0"),
        (lambda x: mmd_squared(x[:1], x), "x of shape"),
        (lambda x: mmd_squared(x * torch.nan, x), "5 samples are not finite"),
        (lambda x: ksd_squared(x, lambda x: -x, beta=-1.5), "beta=-1.5"),
        (lambda x: ksd_squared(x, lambda x: x[:, 0]), "score: it must be finite and of shape"),
        (lambda x: sinkhorn_divergence(x, x, 0.0), "epsilon=0"),
        (lambda x: kde_divergence(x, TARGETS["dw4"]()), "log_z must be known"),
        (lambda x: kde_divergence(x * 0, gmm40()), "no kernel density estimate"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(draws(5, 2))


def test_too_small_an_epsilon_is_named() -> None:
    with pytest.raises(ConvergenceError, match="take a larger epsilon"):
        sinkhorn_divergence(1e6 * draws(20, 2), 1e6 * draws(20, 2, 1), 1e-12)
