"""Chains in one compiled loop: their noise, the same steps as by PyTorch, the same laws."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from sciml.errors import ConfigError, ConvergenceError
from sciml.sampling import TARGETS, GradientMonitor, Overdamped, Underdamped, run_chains
from sciml.sampling.langevin import Kernel
from sciml.sampling.targets import (
    Counted,
    Density,
    Funnel,
    IsotropicMixture,
    ManyWell,
    MuellerBrown,
    SteepDoubleWell,
)

module: Any = pytest.importorskip("sciml.sampling.compiled_chains", reason="needs the extra fast")
if __import__("numba").config.DISABLE_JIT:
    pytest.skip("kernels need numba's compiler", allow_module_level=True)

MIXTURE = IsotropicMixture([1, 2, 3], [[0.0, 1.0, 0.5], [2.0, -1.0, 0.0], [-1.5, 0.0, 1.0]], 0.7)
FORMS = [MIXTURE, ManyWell(6), Funnel(4), SteepDoubleWell()]


def noise(groups: int, chain: int, step: int, seed: int) -> np.ndarray:
    out, room = np.empty((4 * groups, module.WIDTH), np.float32), np.empty((4, module.WIDTH), np.int32)
    module._normals(out, chain, step, module.keys_of(seed), room)
    return out


def test_words_are_those_of_philox() -> None:
    """The known answer of the published code for counter and key 0."""
    room = np.empty((4, module.WIDTH), np.int32)
    zero = np.uint64(0)
    module._words(room, zero, zero, zero, module.keys_of(0))
    assert [hex(word & 0xFFFFFFFF) for word in room[:, 0].tolist()] == [
        "0x6627e8d5",
        "0xe169c58d",
        "0xbc57ac4c",
        "0x9b00dbd8",
    ]


def test_noise_is_normal() -> None:
    parts = [noise(20, 64 * chain, step, 5) for chain in range(15) for step in range(10)]
    many = np.stack(parts).astype(float)
    flat = many.ravel()
    assert kstest(flat, "norm").pvalue > 0.001
    for power, mean, deviation in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert (flat**power).mean() == pytest.approx(mean, abs=4 * math.sqrt(deviation / flat.size))
    assert 4.3 < np.abs(flat).max() < 6.7
    # Neither neighbours in a group, nor chains, nor steps know of each other.
    for axis in (0, 1, 2):
        a, b = many.take(range(many.shape[axis] - 1), axis), many.take(range(1, many.shape[axis]), axis)
        assert abs((a * b).mean()) < 4 / math.sqrt(a.size)
    assert not np.array_equal(noise(1, 0, 0, 1), noise(1, 0, 0, 2))
    assert not np.array_equal(noise(1, 0, 0, 1), noise(1, 0, 0, 1 + 2**32))
    # Chain 64 in the first column of the second tile is not chain 0.
    assert np.array_equal(noise(1, 0, 0, 1)[:, 1:], noise(1, 1, 0, 1)[:, :-1])


@pytest.mark.parametrize("target", FORMS, ids=lambda target: type(target).__name__)
def test_steps_are_those_of_the_kernel(target: Density) -> None:
    n, h = 100, 0.01
    x = torch.linspace(-1, 1, n * target.d).reshape(n, target.d)
    found = run_chains(Overdamped(target, h), x, 5, seed=9, observables={}, compiled=True).x
    y = x.double()
    for step in range(5):
        z = np.concatenate([noise(-(-target.d // 4), chain, step, 9) for chain in (0, 64)], 1)
        y = y + h * target.score(y) + math.sqrt(2 * h) * torch.from_numpy(z[: target.d, :n].T.astype(float))
    np.testing.assert_allclose(found, y, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("target", FORMS, ids=lambda target: type(target).__name__)
def test_metropolised_chains_have_the_law(target: Density) -> None:
    h = {"IsotropicMixture": 0.3, "ManyWell": 0.05, "Funnel": 0.1, "SteepDoubleWell": 0.05}[
        type(target).__name__
    ]
    kernel = Overdamped(target, h, adjusted=True)
    # Exact at the start, or not far from it.
    if isinstance(target, ManyWell):
        signs = np.sign(np.random.default_rng(0).random((2000, 6)) - 0.155693)
        x = torch.from_numpy(1.7 * signs).float()
    else:
        x = target.sample(2000, 1).float()
    found = run_chains(kernel, x, 600, burn=200, every=10, seed=2, compiled=True)
    slow = run_chains(kernel, x, 60, seed=2)
    assert found.acceptance == pytest.approx(slow.acceptance, abs=0.02)
    for moment in target.moments:
        result = found.average(moment.name)
        if not math.isnan(result.error) and moment.name != "E x_2^2":
            assert abs(result.mean - moment.value) < 5 * result.error, (moment.name, result)


def test_chains_depend_on_their_number_alone() -> None:
    kernel = Overdamped(MIXTURE, 0.2, adjusted=True)
    x = torch.linspace(-1, 1, 3 * 130).reshape(130, 3)
    many = run_chains(kernel, x, 50, seed=3, keep=True, compiled=True)
    assert many.states is not None
    few = run_chains(kernel, x[:70], 50, seed=3, keep=True, compiled=True)
    assert torch.equal(many.states[:, :70], few.states)  # type: ignore[arg-type]
    thinned = run_chains(kernel, x, 30, burn=20, every=7, seed=3, keep=True, compiled=True)
    # States of few steps at a time: values and scores are found anew at each stop, from the same states.
    torch.testing.assert_close(thinned.states, many.states[26::7], rtol=1e-5, atol=1e-5)  # type: ignore[arg-type]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(run_chains(kernel, x, 50, seed=3, keep=True, compiled=True).states, many.states)  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)


def test_divergence_is_named() -> None:
    x = torch.full((80, 6), 1.0)
    x[70] = 40.0
    with pytest.raises(ConvergenceError, match=r"chain 70 of 80 diverged in step \d of 100, h=0.01"):
        run_chains(Overdamped(ManyWell(6), 0.01), x, 100, compiled=True)
    kept = run_chains(Overdamped(ManyWell(6), 0.01), x, 100, on_divergence="keep", compiled=True)
    assert (kept.diverged > 0).nonzero().tolist() == [[70]]
    assert torch.isfinite(kept.x).all(1).sum() == 79


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Overdamped(MuellerBrown(), 0.1), "MuellerBrown has no compiled form"),
        (lambda: Overdamped(Counted(TARGETS["gmm40"]()), 0.1), "Counted has no compiled form"),
        (lambda: Overdamped(MIXTURE, 0.1, GradientMonitor(MIXTURE, 1.0)), "without a monitor"),
        (lambda: Underdamped(MIXTURE, 0.1), "for Overdamped kernels"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    kernel: Kernel = make()
    with pytest.raises(ConfigError, match=message):
        run_chains(kernel, torch.zeros(3, kernel.target.d), 10, compiled=True)


def test_double_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="float32 states"):
        run_chains(Overdamped(MIXTURE, 0.1), torch.zeros(3, 3).double(), 10, compiled=True)
