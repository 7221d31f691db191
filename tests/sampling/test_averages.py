"""Averages over chains and their errors."""

import math

import numpy as np
import pytest

from sciml.errors import ConfigError
from sciml.sampling.averages import average, effective_sample_size, split_r_hat


def geyer(x: np.ndarray) -> float:
    """The initial monotone sequence, lag by lag, of chains whose variance between counts."""
    n, chains = x.shape
    centred = x - x.mean(0)
    within = (centred**2).sum() / (chains * (n - 1))
    total = within * (n - 1) / n + x.mean(0).var(ddof=1)
    rho = [
        1 - (within - (centred[: n - lag] * centred[lag:]).sum() / (chains * (n - 1))) / total
        for lag in range(n)
    ]
    rho[0] = 1.0
    time, last = -1.0, math.inf
    for even in range(0, n - 1, 2):
        pair = rho[even] + rho[even + 1]
        if pair <= 0:
            break
        last = min(last, pair)
        time += 2 * last
    return x.size / time


def test_averages() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        x = np.zeros((400, 5))
        noise = rng.standard_normal((400, 5))
        x[0] = noise[0] / math.sqrt(1 - 0.64)
        for i in range(1, 400):
            x[i] = 0.8 * x[i - 1] + noise[i]
        found = average(x)
        covered += abs(found.mean) < 2 * found.error
    assert 180 < covered < 200
    assert effective_sample_size(x) == pytest.approx(2000 / 9, rel=0.5)
    weights = rng.random((400, 5))
    assert average(x, weights).mean == pytest.approx(float((x * weights).sum() / weights.sum()))
    short = rng.standard_normal((40, 3)).cumsum(0) * 0.2 + rng.standard_normal((40, 3))
    assert effective_sample_size(short) == pytest.approx(geyer(short), rel=1e-10)
    # Chains in two modes are worth about as many samples as there are chains.
    apart = rng.standard_normal((1000, 6)) * 0.1 + np.array([-1, 1, 1, -1, 1, -1])
    assert effective_sample_size(apart) < 20
    assert split_r_hat(apart) > 3
    for bad, message in ((np.zeros(3), "shape"), (np.full((4, 4), np.nan), "not finite")):
        with pytest.raises(ConfigError, match=message):
            average(bad)
    with pytest.raises(ConfigError, match="weights of shape"):
        average(x, weights[:10])


def test_few_states_are_not_taken_for_independent() -> None:
    x = np.random.default_rng(0).standard_normal((1, 200)).repeat(3, 0)
    assert average(x).effective == 200
    assert math.isnan(average(x[:, :1]).error)
