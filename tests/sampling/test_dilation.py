"""Paths, step rules and weights: the dilation sheet's identities, bias laws and tables."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciml.errors import ConfigError, ConvergenceError
from sciml.sampling.dilation import Annealed, Rule, anneal
from sciml.sampling.divergences import mmd_squared, modes_found, weight_error
from sciml.sampling.noise import SampleNoise
from sciml.sampling.paths import SCHEDULES, DilationPath, GeometricPath, Path, levels
from sciml.sampling.smc import annealed_smc, systematic
from sciml.sampling.targets import (
    Counted,
    FunctionDensity,
    IsotropicMixture,
    ScoreDensity,
    gmm40,
    three_modes,
)


def normal(d: int) -> FunctionDensity:
    return FunctionDensity(lambda x: -x.square().sum(1) / 2, d, lambda x: -x)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(schedule: str) -> None:
    lam = levels(200, schedule, 0.01)
    assert lam[0] == 0.01
    assert lam[-1] == pytest.approx(1.0, abs=1e-15)
    assert (np.diff(lam) > 0).all()
    if schedule == "exponential":
        t = np.linspace(0, 1, 200)
        pure = np.exp(-6 * (1 - t))
        np.testing.assert_allclose((lam - 0.01) / 0.99, (pure - pure[0]) / (1 - pure[0]), atol=1e-12)


def test_paths_are_their_densities() -> None:
    target = three_modes()
    x = torch.linspace(-3, 3, 10, dtype=torch.float64).reshape(5, 2)
    centre = torch.tensor([1.0, -2.0])
    dilated = DilationPath(target, centre).at(0.3)
    # The mixture with means and deviation drawn to the centre, normalised.
    c = centre.numpy()
    small = IsotropicMixture(target.weights, c + math.sqrt(0.3) * (target.means - c), math.sqrt(0.3))
    for mine, exact in zip(dilated.value_and_score(x), small.value_and_score(x), strict=True):
        np.testing.assert_allclose(mine, exact, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dilated.log_density(x), small.log_density(x), rtol=1e-12)
    path = GeometricPath(target, 5.0, centre)
    reference = IsotropicMixture([1.0], [c.tolist()], 5.0)
    value, score = path.at(0.3).value_and_score(x)
    np.testing.assert_allclose(
        value, 0.7 * reference.log_density(x) + 0.3 * target.log_density(x), rtol=1e-12
    )
    np.testing.assert_allclose(score, 0.7 * reference.score(x) + 0.3 * target.score(x), rtol=1e-12)
    np.testing.assert_allclose(path.at(0.3).log_density(x), value, rtol=1e-14)
    known = path.known(x)
    for lam in (0.0, 0.5, 1.0):
        for one, two in zip(
            path.value_and_score(x, lam, known), path.at(lam).value_and_score(x), strict=True
        ):
            assert torch.equal(one, two)


@pytest.mark.parametrize("schedule", ["linear", "square", "exponential"])
def test_proportional_steps_are_langevin_and_a_shrink(schedule: str) -> None:
    """Sheet 4.1, exactly."""
    target, eta = three_modes(), 0.1
    lam = levels(400, schedule, 1e-3)
    y, noise = torch.zeros(50, 2, dtype=torch.float64), SampleNoise(3)
    for k in range(400):
        y = y + eta * target.score(y) + math.sqrt(2 * eta) * noise(k, y)
        if k < 399:
            y = y * math.sqrt(lam[k] / lam[k + 1])
    found = anneal(DilationPath(target), lam, Rule("proportional", eta), 50, seed=3).x
    assert float((found - y).abs().max()) < 1e-13


def test_a_shrink_is_a_confinement() -> None:
    """Sheet 4.1: at a constant rate of log lambda weights are those of pi exp(-kappa |x|^2 / 2)."""
    target = IsotropicMixture([0.3, 0.7], [[1.0], [-3.0]], 0.7)
    eta, kappa = 0.05, 0.3
    steps = 1200
    lam = np.exp(-2 * kappa * eta * np.arange(steps - 1, -1, -1))
    start = torch.where(torch.arange(4000)[:, None] % 2 == 0, 1.0, -3.0).double() * math.sqrt(lam[0])
    found = anneal(DilationPath(target), lam, Rule("proportional", eta), x=start, seed=1).x
    weight = float((found[:, 0] > -1).double().mean())
    factors = target.weights * np.exp(-kappa * target.means[:, 0] ** 2 / (2 * (1 + kappa * 0.49)))
    assert factors[0] / factors.sum() == pytest.approx(0.55, abs=0.002)
    assert weight == pytest.approx(0.55, abs=0.035)


def late(rule: Rule, d: int, steps: int = 1500, n: int = 2000, seed: int = 0) -> Annealed:
    """Steps at lambda = 1 from exact samples of a normal."""
    x = torch.from_numpy(np.random.default_rng(5).standard_normal((n, d)))
    return anneal(DilationPath(normal(d)), np.ones(steps), rule, x=x, seed=seed)


@pytest.mark.parametrize("d", [2, 10])
def test_bias_of_steps_that_depend_on_the_state(d: int) -> None:
    """Sheet 5: R2 samples |x| exp(-|x|^2 / 2), whose E|x|^2 is d + 1; weights or R4 mend it, R3 has none."""
    rule = Rule("drift", 0.02, cap=0.5)
    plain = late(rule, d)
    square = plain.x.square().sum(1)
    assert float(square.mean()) == pytest.approx(d + 1, abs=5 * float(square.std()) / 44)
    h = rule.steps(-plain.x, 1.0)[:, 0]
    assert float((h * square).sum() / h.sum()) == pytest.approx(d, abs=0.15 if d == 2 else 0.4)
    for rule in (
        Rule("corrected", 0.02, cap=0.02 / 0.3),
        Rule("population", 0.02, cap=20.0),
        Rule("drift", 0.5, cap=1.0, adjusted=True),
    ):
        square = late(rule, d, steps=1000).x.square().sum(1)
        assert float(square.mean()) == pytest.approx(d, abs=5 * float(square.std()) / 44), rule


def test_virial_finds_the_bias() -> None:
    """E[x . s] = -d of samples of pi: not of those of plain R2."""
    x = late(Rule("drift", 0.02, cap=20.0), 2).x
    assert float((x * -x).sum(1).mean()) < -2.7


@pytest.mark.parametrize(
    ("rule", "modes", "error"),
    [
        (Rule("proportional", 0.2), 2, 0.5),
        (Rule("drift", 0.3, cap=0.2), 3, 0.182),
        (Rule("drift", 0.1, cap=0.1), 2, 0.43),
    ],
)
def test_three_modes_of_the_sheet(rule: Rule, modes: int, error: float) -> None:
    target = three_modes()
    found = anneal(DilationPath(target), levels(2000, "linear", 1 / 2000), rule, 1000)
    assert modes_found(found.x, target.modes) == modes
    assert weight_error(found.x, target.modes) == pytest.approx(error, abs=0.05)


def test_forty_modes_of_the_sheet() -> None:
    target = Counted(gmm40())
    rule = Rule("drift", 1.0, cap=1.0)
    found = anneal(DilationPath(target), levels(2000, "linear", 1 / 2000), rule, 1000, seed=2)
    assert target.evaluations == 2_001_000
    assert target.modes is not None
    assert modes_found(found.x, target.modes) == 40
    assert weight_error(found.x, target.modes) < 0.17
    bound = anneal(DilationPath(target), levels(2000, "linear", 1 / 2000), Rule("proportional", 0.3), 300)
    assert modes_found(bound.x, target.modes) < 14


def test_weights_make_modes_right() -> None:
    """ "Must show", with a seed that is not one of the benchmark's: all modes of forty, and the unequal three."""
    forty = Counted(gmm40())
    found = annealed_smc(GeometricPath(forty, 25.0), levels(1998, "square", 1e-6), 1000, seed=17)
    assert forty.evaluations <= 2000 * 1000
    assert forty.modes is not None
    assert modes_found(found.x, forty.modes) == 40
    assert weight_error(found.x, forty.modes) < 0.12
    assert mmd_squared(found.x, forty.sample(2000, 5)) < 0.005
    assert found.log_z == pytest.approx(0, abs=0.12)
    assert found.acceptance == pytest.approx(0.574, abs=0.02)
    three = three_modes()
    few = annealed_smc(GeometricPath(three, 8.0), levels(600, "square", 1e-6), 1000, seed=17)
    assert weight_error(few.x, three.modes) < 0.07


def test_constants_and_few_levels() -> None:
    """The integral of 3 exp(-|x - 1|^2 / 2) in three dimensions; weights, not moves, find it in few levels."""
    target = FunctionDensity(lambda x: math.log(3) - (x - 1).square().sum(1) / 2, 3)
    exact = math.log(3) + 1.5 * math.log(2 * math.pi)
    found = annealed_smc(GeometricPath(target, 2.0), levels(8, "linear", 0.05), 4000, step=0.3, seed=1)
    assert found.log_z == pytest.approx(exact, abs=0.06)
    assert found.resampled > 0
    np.testing.assert_allclose(found.x.mean(0), 1, atol=0.1)


def test_particles_along_the_dilation_path() -> None:
    """From a normal law that is drawn to the centre, too: modes get their weights at the start, Z is that of pi."""
    target = Counted(three_modes())
    path = DilationPath(target, deviation=8.0)
    found = annealed_smc(path, levels(300, "square", 1e-2), 2000, step=0.02, moves=2, seed=1)
    # As many samples of the start are of use as lie near modes: about a hundred.
    assert weight_error(found.x, target.modes) < 0.1
    assert found.log_z == pytest.approx(0, abs=0.3)
    assert found.resampled > 0
    # Two at the start, one more at each other level, and the moves.
    assert target.evaluations == 2000 * (2 + 299 + 600)
    with pytest.raises(ConfigError, match="path: it begins in a point"):
        annealed_smc(DilationPath(target), levels(10), 10)


def test_evaluations_of_a_geometric_path() -> None:
    target = Counted(three_modes())
    annealed_smc(GeometricPath(target, 8.0), levels(50), 20, moves=3)
    assert target.evaluations == 20 * (2 + 150)


def test_a_score_alone_goes_along_both_paths() -> None:
    known, lam = three_modes(), levels(40, first=0.1)
    alone = ScoreDensity(known.score, 2)
    for make in (DilationPath, GeometricPath):
        found = [anneal(make(target), lam, Rule("fixed", 0.01), 9).x for target in (known, alone)]
        assert torch.equal(*found)
        with pytest.raises(ConfigError, match="only the score is known"):
            annealed_smc(make(alone), lam, 9)


@pytest.mark.parametrize("u", [0.0, 0.3, 0.999999])
def test_systematic_draws(u: float) -> None:
    """Each particle as often as n times its weight, rounded up or down."""
    weights = torch.from_numpy(np.random.default_rng(0).random(50)) ** 3
    counts = torch.bincount(systematic(weights.log() + 7, u), minlength=50)
    assert float((counts - 50 * weights / weights.sum()).abs().max()) < 1
    assert systematic(torch.tensor([0.0, -math.inf]), u).tolist() == [0, 0]


def test_a_path_is_not_blind_to_translation() -> None:
    """Re-centring: from the middle of two modes both are found alike; from one of them that one."""
    target = IsotropicMixture([0.5, 0.5], [[0.0, 0.0], [10.0, 0.0]], 1.0)
    lam, rule = levels(600, "linear", 1e-3), Rule("proportional", 0.2)
    shares = []
    for centre in (torch.tensor([5.0, 0.0]), torch.zeros(2)):
        x = anneal(DilationPath(target, centre), lam, rule, 800).x
        shares.append(float((x[:, 0] > 5).double().mean()))
    assert shares[0] == pytest.approx(0.5, abs=0.06)
    assert shares[1] < 0.1


def test_particles_depend_on_their_number_alone() -> None:
    path, lam = DilationPath(three_modes()), levels(30)
    rule = Rule("drift", 1.0, cap=1.0, adjusted=True)
    many = anneal(path, lam, rule, 7, polish=5, polish_adjusted=True, seed=4)
    few = anneal(path, lam, rule, 3, polish=5, polish_adjusted=True, seed=4)
    assert torch.equal(many.x[:3], few.x)
    assert 0.2 < many.acceptance < 1
    # Of Metropolised steps alone.
    free = anneal(
        path, lam, Rule("drift", 1.0, cap=1.0), 500, polish=30, polish_step=1.5, polish_adjusted=True
    )
    assert free.acceptance == pytest.approx(0.56, abs=0.1)


@pytest.mark.parametrize("path", [DilationPath(three_modes()), GeometricPath(three_modes(), 3.0)])
def test_polish_keeps_the_target(path: Path) -> None:
    x = three_modes().sample(1500, 1)
    found = anneal(path, [1.0], Rule("fixed", 1e-6), x=x, polish=200, polish_step=0.5, polish_adjusted=True).x
    assert mmd_squared(found, three_modes().sample(1500, 2)) < 0.004


def test_divergence_is_named() -> None:
    with pytest.raises(ConvergenceError, match=r"particles diverged by step \d+ of 2000, lambda=0.00"):
        anneal(DilationPath(three_modes()), levels(2000, "linear", 1e-3), Rule("fixed", 0.2), 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: levels(10, "cubic"), "unknown schedule 'cubic'"),
        (lambda: levels(10, first=0.0), "first=0.0: lambda must begin"),
        (lambda: levels(1), "count=1"),
        (lambda: DilationPath(three_modes()).at(0.0), "lambda=0"),
        (lambda: GeometricPath(three_modes(), 0.0), "deviation=0"),
        (lambda: GeometricPath(three_modes()).at(1.5), "lambda=1.5"),
        (lambda: DilationPath(three_modes(), math.nan), "centre"),
        (lambda: Rule("drift", 1.0), "without a cap"),
        (lambda: Rule("corrected", 1.0), "without a cap"),
        (lambda: Rule("adaptive"), "kind='adaptive'"),
        (lambda: Rule("population", 1.0, cap=1.0, adjusted=True), "take 'drift'"),
        (lambda: DilationPath(three_modes(), deviation=-1.0), "deviation=-1"),
        (lambda: Rule("fixed", 0.0), "size=0"),
        (lambda: anneal(DilationPath(three_modes()), [0.0, 1.0], Rule("fixed", 0.1)), "lambdas"),
        (lambda: anneal(DilationPath(three_modes()), [0.5, 0.4], Rule("fixed", 0.1)), "lambdas"),
        (lambda: anneal(DilationPath(three_modes()), [1.0], Rule("fixed", 0.1), 0), "n=0"),
        (lambda: annealed_smc(GeometricPath(three_modes()), [0.5, 0.9]), "lambdas"),
        (lambda: annealed_smc(GeometricPath(three_modes()), [0.5, 1.0], moves=0), "moves=0"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_steps_by_hand() -> None:
    score = torch.tensor([[3.0, 4.0], [0.03, 0.04]], dtype=torch.float64)

    def steps(kind: Any, lam: float = 1.0) -> list[float]:
        return Rule(kind, 0.5, cap=0.4).steps(score, lam)[:, 0].tolist()

    assert steps("fixed", 0.1) == [0.5, 0.5]
    assert steps("proportional", 0.1) == pytest.approx([0.05, 0.05])
    assert steps("drift") == pytest.approx([0.1, 0.4])
    assert steps("population") == pytest.approx([0.5 / 2.525] * 2)
    assert steps("corrected") == pytest.approx([0.5 / math.hypot(5, 1.25), 0.5 / math.hypot(0.05, 1.25)])


def test_slope_of_corrected_steps() -> None:
    """Its drift is h s + grad h: against differences."""
    target = three_modes()
    rule, x = Rule("corrected", 0.3, cap=0.2), torch.tensor([[0.5, -3.0]], dtype=torch.float64)

    def size(x: Tensor) -> Tensor:
        return rule.steps(target.score(x), 1.0)[:, 0]

    lam, zero = [1.0], torch.zeros
    moved = anneal(DilationPath(target), lam, rule, x=x, seed=0)
    noise = SampleNoise(0)(0, zero(1, 2, dtype=torch.float64))
    h = float(size(x))
    slope = torch.tensor(
        [
            [
                float(size(x + shift) - size(x - shift)) / 2e-5
                for shift in 1e-5 * torch.eye(2, dtype=torch.float64)
            ]
        ]
    )
    expected = x + h * target.score(x) + slope + math.sqrt(2 * h) * noise
    np.testing.assert_allclose(moved.x, expected, atol=1e-8)
