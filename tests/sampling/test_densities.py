"""Densities: sheet values of moments and constants, scores against autograd, exact samples, what is refused."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from sciml.errors import ConfigError, ConvergenceError
from sciml.sampling.chains import run_chains
from sciml.sampling.langevin import Overdamped
from sciml.sampling.targets import (
    TARGETS,
    Counted,
    Density,
    DoubleWells,
    FourParticles,
    FunctionDensity,
    Funnel,
    IsotropicMixture,
    Line,
    ManyWell,
    ModifiedHarmonic,
    MuellerBrown,
    Phi4Chain,
    SteepDoubleWell,
    SteepPrior,
    TwoPathways,
    checked,
    gmm40,
    three_modes,
)


def moments(target: Density) -> list[float]:
    return [moment.value for moment in target.moments]


@pytest.mark.parametrize("name", list(TARGETS))
def test_scores_are_gradients(name: str) -> None:
    target = TARGETS[name]()
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(-2, 2, (7, target.d)))
    value, score = target.value_and_score(x)
    step = 1e-5
    for i in range(min(target.d, 5)):
        shift = step * torch.eye(target.d, dtype=torch.float64)[i]
        difference = (target.log_density(x + shift) - target.log_density(x - shift)) / (2 * step)
        # Of a quotient of differences of large numbers.
        scale = 1 + float(value.abs().max()) * 1e-2 + float(score.abs().max())
        assert float((score[:, i] - difference).abs().max()) < 1e-7 * scale
    assert torch.equal(value, target.log_density(x))


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("dw4",)])
def test_single_precision_agrees(name: str) -> None:
    target = TARGETS[name]()
    x = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (5, target.d)))
    single, double = target.score(x.float()), target.score(x)
    assert single.dtype == torch.float32
    assert float((single - double).abs().max()) < 1e-3 * (1 + float(double.abs().max()))


@pytest.mark.parametrize(
    ("target", "values"),
    [
        (SteepDoubleWell(), [-0.38295, 1.01146, 0.30256]),
        (ModifiedHarmonic(), [-1.1948913, 9.3783709]),
        (ModifiedHarmonic(temperature=0.1), [-0.582124, 0.782455]),
        (ModifiedHarmonic(1, 1, temperature=0.1), [-0.250127, 0.362553]),
        (ModifiedHarmonic(10, temperature=0.1), [-0.60842, 0.80067]),
        (ManyWell(), [1.187961, 2.959806, 0.844307]),
        (DoubleWells(1, 1, 2.0), [1.835342]),
        (DoubleWells(1, 1, 3.0), [2.907059]),
        (DoubleWells(1, 1, 4.0), [3.934105]),
        (gmm40(), [-2.140513, 1.240038, 1071.3700]),
        (Funnel(), [0.0, 9.0, 90.0171]),
        (MuellerBrown(10), [-0.5437, 1.3945, 0.3403, 2.0047, -134.934]),
        (MuellerBrown(25), [-0.3933, 1.0637, 0.4110, 1.4662, -101.297]),
        (Phi4Chain(), [0.0, 0.95421, 0.5]),
        (Phi4Chain(0.001), [-0.03782, 0.95422, 0.48052]),
        (Phi4Chain(0.01), [-0.36039, 0.95524, 0.31445]),
    ],
)
def test_known_moments(target: Density, values: list[float]) -> None:
    np.testing.assert_allclose(moments(target)[: len(values)], values, rtol=2e-6, atol=6e-5)


def test_known_constants() -> None:
    """Logarithms of integrals, by other means than those of the code where it computes them."""
    assert ManyWell(32).log_z == pytest.approx(164.695675, abs=1e-6)
    assert ManyWell(2).log_z == pytest.approx(10.293480, abs=1e-6)
    for delta, z in ((2.0, 1.340445), (3.0, 1.048248), (4.0, 0.897438)):
        assert DoubleWells(1, 1, delta).log_z == pytest.approx(math.log(z), abs=1e-6)
    for temperature, log_z in ((10, 11.7296), (15, 7.3649), (20, 5.3661), (25, 4.2882)):
        assert MuellerBrown(temperature).log_z == pytest.approx(log_z, abs=1e-4)
    for h, log_z in ((0, -196.91222), (0.001, -196.91146), (0.005, -196.89325), (0.01, -196.83769)):
        assert Phi4Chain(h).log_z == pytest.approx(log_z, abs=1e-5)
    # A finer grid than the code's.
    target = TwoPathways()
    x, y = (torch.linspace(-end, end, n, dtype=torch.float64) for end, n in ((3.2, 451), (6, 12001)))
    logs = torch.cat([target.log_density(torch.stack([x[i].expand(len(y)), y], 1)) for i in range(len(x))])
    log_z = float(torch.logsumexp(logs, 0) + torch.log((x[1] - x[0]) * (y[1] - y[0])))
    assert target.log_z == pytest.approx(log_z, abs=1e-5)


def test_potentials_by_hand() -> None:
    """At one point each, from the sheet's formulas."""
    channels = TwoPathways().potential(torch.tensor([[2.0, 1.0]]).double())  # p1 = p2 = 1
    assert float(channels) == pytest.approx(1 / 1.1 + 50 / 51 + 0.1 * 4)
    chain = Phi4Chain(0.5).log_density(torch.ones(1, 100).double())
    assert float(chain) == pytest.approx(-20 * (0.1 / 0.02 * 2 + 0.01 / 0.4 * 50))
    wells = DoubleWells(3, 2, 1.5).log_density(torch.tensor([[1.0, 2.0, 3.0]]).double())
    assert float(wells) == pytest.approx(-(0.25 + 6.25 + 9))
    many = ManyWell(4).log_density(torch.tensor([[1.0, 2.0, -1.0, 0.0]]).double())
    assert float(many) == pytest.approx((0.5 + 6 - 1 - 2) + (-0.5 + 6 - 1))
    posterior = SteepPrior().potential(torch.tensor([1.0]).double())
    assert float(posterior) == pytest.approx(5 - 17.2 + 1)


def test_minima_of_mueller_and_brown() -> None:
    target = MuellerBrown(1.0)
    minima = torch.tensor([[-0.55822, 1.44173], [0.62350, 0.02804], [-0.05001, 0.46669]], dtype=torch.float64)
    value, score = target.value_and_score(minima)
    np.testing.assert_allclose(-value, [-146.6995, -108.1667, -80.7678], atol=1e-4)
    assert float(score.abs().max()) < 0.05


@pytest.mark.parametrize("target", [gmm40(), three_modes(), Funnel(), SteepDoubleWell(), TARGETS["digits"]()])
def test_exact_samples_have_the_moments(target: Density) -> None:
    x = target.sample(40_000, 3)
    for moment in target.moments:
        if target.__class__ is Funnel and moment.name == "E x_2^2":
            continue  # Its variance is e^(18): no average of samples finds it.
        values = moment.of(x)
        assert abs(float(values.mean()) - moment.value) < 4.5 * float(values.std()) / 200, moment.name
    if target.modes is not None and len(target.modes.weights) < 100:
        counts = torch.bincount(target.modes.nearest(x), minlength=len(target.modes.weights)) / len(x)
        # Of forty modes some overlap.
        assert 0.5 * float((counts - target.modes.weights).abs().sum()) < 0.06
    assert torch.equal(target.sample(5, 3), target.sample(5, 3))


@pytest.mark.parametrize(
    ("name", "h", "steps", "start"),
    [
        ("many-well", 0.02, 1500, "wells"),
        ("double-wells", 0.03, 1000, "wells"),
        ("steep-prior", 0.05, 600, "modes"),
        ("modified-harmonic", 0.7, 3000, "zero"),
        ("mueller-brown", 0.004, 3000, "quadrature"),
        ("phi4", 0.0006, 2500, "chain"),
    ],
)
def test_chains_find_the_moments(name: str, h: float, steps: int, start: str) -> None:
    """MALA, which is exact, from starts with the right weights of modes, where these are known."""
    target, chains = TARGETS[name](), 300
    rng = np.random.default_rng(2)
    if start == "wells":
        x = 1.7 * np.sign(rng.random((chains, target.d)) - (0.155693 if name == "many-well" else 0.5))
    elif start == "chain":
        ends = np.minimum(np.arange(1, 101), np.arange(100, 0, -1))
        x = np.where(rng.random((chains, 1)) < 0.5, 1.0, -1.0) * np.tanh(ends / 10)
    elif start == "quadrature":
        assert isinstance(target, MuellerBrown)
        nodes, p, _ = target._quadrature
        x = nodes.numpy()[rng.choice(len(p), chains, p=p.numpy())]
    else:
        x = np.full((chains, target.d), 1.7 if start == "modes" else 0.0)
    found = run_chains(
        Overdamped(target, h, adjusted=True),
        torch.from_numpy(np.ascontiguousarray(x)),
        steps,
        burn=steps // 5,
        every=5,
    )
    assert 0.3 < found.acceptance < 0.98
    for moment in target.moments:
        result = found.average(moment.name)
        if not math.isnan(result.error):
            assert abs(result.mean - moment.value) < 5 * result.error + moment.tolerance, (
                moment.name,
                result,
            )


def test_four_particles() -> None:
    target = FourParticles()
    x = target.start(5, 1)
    places = target.positions(x)
    assert float(places.sum(1).abs().max()) < 1e-12
    np.testing.assert_allclose(places.square().sum((1, 2)), x.square().sum(1))
    # Distances by hand, and the energy from them.
    for i in range(4):
        for j in range(i):
            distance = (places[:, i] - places[:, j]).norm(dim=1)
            assert float((target.distances(x) - distance[:, None]).abs().amin(1).max()) < 1e-12
    assert float(-target.log_density(x).max()) > -25.795
    found = run_chains(Overdamped(target, 0.012, adjusted=True), target.start(400), 2500, burn=500, every=10)
    for moment in target.moments:
        result = found.average(moment.name)
        assert abs(result.mean - moment.value) < 4 * result.error + moment.tolerance, (moment.name, result)


def test_what_is_refused() -> None:
    for make, message in (
        (lambda: ManyWell(3), "d=3"),
        (lambda: DoubleWells(2, 3), "m=3"),
        (lambda: Funnel(1), "d=1"),
        (lambda: MuellerBrown(0), "temperature=0"),
        (lambda: IsotropicMixture([1.0], [[0.0], [1.0]], 1.0), "weights of shape"),
        (lambda: IsotropicMixture([1.0], [[0.0]], 0.0), "deviation=0"),
        (lambda: ModifiedHarmonic(c=0.0), "c=0"),
        (lambda: ManyWell().sample(3), "no exact samples"),
        (lambda: TARGETS["gmm4"], "unknown target 'gmm4': did you mean 'gmm40'"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()  # type: ignore[no-untyped-call]
    x = torch.zeros(3, 2)
    normal = FunctionDensity(lambda x: -x.square().sum(1) / 2, 2)
    with pytest.raises(ConfigError, match="give floating-point states of shape \\(chains, 2\\)"):
        checked(normal, torch.zeros(3, 1))
    with pytest.raises(ConfigError, match="log_density has shape \\(3, 2\\)"):
        checked(FunctionDensity(lambda x: x, 2, lambda x: x), x)
    with pytest.raises(ConfigError, match="score has shape \\(3,\\)"):
        checked(FunctionDensity(lambda x: x[:, 0], 2, lambda x: x[:, 0]), x)
    with pytest.raises(ConvergenceError, match="log_density is not finite at the start of chain 1"):
        checked(FunctionDensity(lambda x: x[:, 0].log(), 2), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))


def test_evaluations_are_counted() -> None:
    counted = Counted(gmm40())

    def states(x: Tensor) -> Tensor:
        return x[:, 0]

    run_chains(Overdamped(counted, 0.1), torch.zeros(10, 2), 7, observables={"x": states})
    # One more before the first step, to see that the start is fit.
    assert counted.evaluations == 80


def test_lines_are_normalised() -> None:
    for name in TARGETS:
        target = TARGETS[name]()
        if isinstance(target, Line):
            mass, _ = quad(
                lambda x, target=target: math.exp(float(target.log_density(torch.tensor([[x]]).double()))),
                *target.span,
                points=[-1.0, 0.0, 0.5, 1.0, 2.0],
                limit=200,
            )
            assert math.log(mass) == pytest.approx(target.log_z, abs=1e-6)
