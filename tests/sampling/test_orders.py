"""Solvers against exact flows: sheet sections 12.1 to 12.6."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import ndtr
from torch import Tensor

from sciml.sampling import (
    SOLVERS,
    VE,
    FlowMatching,
    Gaussian,
    Mixture1D,
    Schedule,
    Solver,
    StepControl,
    VPCosine,
    VPLinear,
    classifier_free_guidance,
    sample,
)
from sciml.sampling.grids import Grid
from sciml.sampling.plans import fast_orders

VP = VPLinear()
GMM3 = Mixture1D((0.3, 0.5, 0.2), (-2.0, 0.5, 3.0), (0.5, 0.3, 0.8))
GAUSSIAN = Gaussian([1.5], [[0.36]])
TAYLOR_2S, TAYLOR_3S = Solver("noise", 2, "singlestep", "taylor"), Solver("noise", 3, "singlestep", "taylor")
HEUN_2M = Solver("data", 2, rule="taylor")
COMPAT, COMPAT_NOISE = Solver("data", 3, compat=True), Solver("noise", 3, compat=True)


def quantiles(schedule: Schedule, t: float) -> Tensor:
    """Those of the noised mixture, (i + 1/2) / 64."""
    level = schedule.level(t)
    deviations = np.sqrt(level.alpha**2 * GMM3.deviations**2 + level.sigma**2)
    reach = 6 * deviations.max() + 3

    def excess(x: float, p: float) -> float:
        return float(GMM3.weights @ ndtr((x - level.alpha * GMM3.means) / deviations)) - p

    rows = [brentq(excess, -reach, reach, ((i + 0.5) / 64,), xtol=1e-14) for i in range(64)]
    return torch.tensor(rows, dtype=torch.float64)[:, None]


@pytest.fixture(scope="module")
def start() -> Tensor:
    return quantiles(VP, 1.0)


@pytest.fixture(scope="module")
def exact(start: Tensor) -> Tensor:
    return GMM3.flow(start, VP, 1.0, 1e-3)


def errors(solver: str | Solver, start: Tensor, exact: Tensor, steps: list[int]) -> list[float]:
    model = GMM3.model(VP)
    return [float((sample(model, VP, solver, n, x=start).x - exact).abs().max()) for n in steps]


def test_spot_check() -> None:
    x, t = torch.tensor([[0.7]]).double(), torch.tensor([0.4]).double()
    level = VP.level(0.4)
    assert float(GMM3.score(x, level.alpha, level.sigma)) == pytest.approx(-0.42196752, abs=1e-8)
    assert float(GMM3.model(VP)(x, t)) == pytest.approx(0.37847026, abs=2e-8)
    assert float(GMM3.model(VP, "data")(x, t)) == pytest.approx(0.81534539, abs=2e-8)


# Errors at 160 and 320 steps of the sheet's table, and the order between them.
TABLE = [
    ("dpm-1", 7.689e-2, 4.130e-2, 1),
    ("dpm++1", 7.689e-2, 4.130e-2, 1),
    ("dpm-2s", 1.874e-3, 4.640e-4, 2),
    (TAYLOR_2S, 9.761e-4, 2.484e-4, 2),
    ("dpm-3s", 1.040e-5, 1.344e-6, 3),
    (TAYLOR_3S, 1.685e-5, 2.191e-6, 3),
    ("dpm-2m", 2.584e-3, 6.698e-4, 2),
    ("dpm++2s", 1.607e-3, 4.135e-4, 2),
    ("dpm++3s", 2.883e-5, 3.725e-6, 3),
    (Solver("data", 3, "singlestep", "taylor"), 2.108e-5, 2.752e-6, 3),
    ("dpm++2m", 2.659e-3, 6.598e-4, 2),
    (HEUN_2M, 3.584e-3, 8.852e-4, 2),
    (COMPAT, 6.639e-4, 1.689e-4, 2),
    ("dpm++3m", 1.070e-4, 1.306e-5, 3),
]


@pytest.mark.parametrize(("solver", "coarse", "fine", "order"), TABLE, ids=lambda v: str(v)[:60])
def test_orders(
    solver: str | Solver, coarse: float, fine: float, order: int, start: Tensor, exact: Tensor
) -> None:
    found = errors(solver, start, exact, [40, 80, 160, 320])
    assert found[2:] == pytest.approx([coarse, fine], rel=2e-3)
    # DDIM nears order 1 from below: the sheet's own last figure is 0.95.
    assert math.log2(found[2] / found[3]) == pytest.approx(order, abs=0.15)
    slope = np.polyfit(np.log([40, 80, 160, 320]), np.log(found), 1)[0]
    assert -slope == pytest.approx(order, abs=0.3)


def test_third_order_multistep_has_it_and_the_public_one_has_not(start: Tensor, exact: Tensor) -> None:
    for ours, public in (("dpm++3m", COMPAT), ("dpm-3m", COMPAT_NOISE)):
        good, half = (errors(solver, start, exact, [160, 320, 640]) for solver in (ours, public))
        assert math.log2(good[1] / good[2]) > 2.9
        assert math.log2(half[1] / half[2]) == pytest.approx(2.0, abs=0.15)
        assert good[2] < half[2] / 9


def test_the_corrector_adds_an_order(start: Tensor, exact: Tensor) -> None:
    # Errors of diffusers' UniPC of order 3 on this grid; benchmarks/dpm_solver.py has both.
    found = errors("unipc-3", start, exact, [40, 80, 160, 320])
    assert found == pytest.approx([5.15e-3, 3.77e-4, 2.37e-5, 1.46e-6], rel=5e-3)
    assert math.log2(found[2] / found[3]) == pytest.approx(4.0, abs=0.15)
    second = errors(Solver(corrector=True, rule="taylor"), start, exact, [160, 320])
    assert math.log2(second[0] / second[1]) == pytest.approx(3.0, abs=0.3)


def test_gaussian(start: Tensor) -> None:
    wanted = GAUSSIAN.flow(start, VP, 1.0, 1e-3)
    for solver, table in (
        ("dpm-1", (3.089e-1, 4.278e-2, 5.418e-3)),
        ("dpm-2s", (9.675e-2, 1.327e-3, 2.037e-5)),
        ("dpm-3s", (2.824e-3, 3.217e-6, 5.729e-9)),
        ("dpm++2m", (4.869e-2, 1.293e-3, 2.029e-5)),
        ("dpm++3s", (2.664e-4, 2.566e-6, 5.558e-9)),
    ):
        # The sheet starts at the mixture's quantiles, too; the Gaussian's own differ little.
        for n, error in zip((10, 80, 640), table, strict=True):
            found = float((sample(GAUSSIAN.model(VP), VP, solver, n, x=start).x - wanted).abs().max())
            assert found == pytest.approx(error, rel=0.03)


def test_second_inner_place_must_be_two_thirds(start: Tensor, exact: Tensor) -> None:
    for ratios, order in (((1 / 4, 1 / 2), 2), ((1 / 4, 2 / 3), 3), ((1 / 2, 2 / 3), 3)):
        found = errors(Solver("noise", 3, "singlestep", r1=ratios[0], r2=ratios[1]), start, exact, [160, 320])
        assert math.log2(found[0] / found[1]) == pytest.approx(order, abs=0.15)


ANCHORS = [
    ("dpm-1", (-1.5917390453, 0.3968125574, 1.4823651032)),
    ("dpm++1", (-1.5917390453, 0.3968125574, 1.4823651032)),
    ("dpm-2s", (-2.0988853344, 0.4429272191, 2.4698552183)),
    (TAYLOR_2S, (-2.0231450143, 0.4339017350, 2.3368624909)),
    ("dpm-3s", (-1.9549879411, 0.4189119977, 2.3493267724)),
    (TAYLOR_3S, (-1.9624525234, 0.4212115596, 2.3336186963)),
    ("dpm++2s", (-1.9119691943, 0.4222926046, 2.1437229669)),
    ("dpm++3s", (-1.9680611782, 0.4231517966, 2.3201799322)),
    ("dpm-2m", (-1.8944661483, 0.4237094887, 2.0872828925)),
    ("dpm++2m", (-2.0579673677, 0.4421069703, 2.3096208029)),
    (HEUN_2M, (-2.1605100059, 0.4529783111, 2.4732130412)),
    (COMPAT, (-1.9900243682, 0.4306696162, 2.4440255697)),
    ("dpm++3m", (-1.9284785375, 0.4220571805, 2.4162430312)),
    (COMPAT_NOISE, (-1.9169888509, 0.4238998762, 2.1755255485)),
    ("dpm-3m", (-1.9303252213, 0.4246326535, 2.2130350601)),
]
THREE = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)


@pytest.mark.parametrize(("solver", "wanted"), ANCHORS, ids=lambda v: str(v)[:60])
def test_anchors(solver: str | Solver, wanted: tuple[float, ...]) -> None:
    found = sample(GMM3.model(VP), VP, solver, 10, x=THREE).x.flatten()
    np.testing.assert_allclose(found, wanted, atol=1.1e-10, rtol=0)


def test_exact_flow_and_lower_order_final() -> None:
    wanted = (-1.9653066192, 0.4227091686, 2.3397816441)
    np.testing.assert_allclose(GMM3.flow(THREE, VP, 1.0, 1e-3).flatten(), wanted, atol=1e-10)
    found = sample(GMM3.model(VP), VP, "dpm++2m", 10, x=THREE, lower_order_final=True).x.flatten()
    np.testing.assert_allclose(found, (-2.0544990338, 0.4425750756, 2.3060108335), atol=1.1e-10)
    plain, lowered = (
        sample(GMM3.model(VP), VP, "dpm++2m", 15, x=THREE, lower_order_final=value).x
        for value in (False, True)
    )
    assert torch.equal(plain, lowered)


def test_result_does_not_depend_on_the_schedule() -> None:
    lams = np.linspace(-4.5, 4.5, 16)
    z = torch.tensor([[-0.7], [0.1], [1.4]], dtype=torch.float64)
    for solver, wanted in (
        ("dpm++2m", (-1.57739721, 0.48854052, 3.24224349)),
        ("dpm-3s", (-1.56935290, 0.48267686, 3.19217807)),
    ):
        ends = []
        for schedule in (VP, VPCosine(), VE(), FlowMatching()):
            times = schedule.time(lams)
            x = schedule.level(float(times[0])).sigma * z
            result = sample(GMM3.model(schedule), schedule, solver, x=x, times=times)
            ends.append(result.x.flatten() / schedule.level(float(times[-1])).alpha)
        np.testing.assert_allclose(ends[0], wanted, atol=1e-8)
        for other in ends[1:]:
            np.testing.assert_allclose(other, ends[0], rtol=0, atol=1e-13)


def test_point_mass_is_exact_in_one_step() -> None:
    point = Gaussian([0.7], [[0.0]])
    wanted = point.flow(THREE, VP, 1.0, 1e-3)
    model = point.model(VP)
    for solver, limit in (
        ("dpm++1", 2e-14),
        ("dpm-1", 1e-11),
        ("dpm-2s", 1e-9),
        ("dpm-3s", 2e-9),
        ("dpm++3s", 2e-14),
    ):
        assert float((sample(model, VP, solver, 1, x=THREE).x - wanted).abs().max()) < limit


def test_standard_normal_is_a_product_of_cosines() -> None:
    found = sample(Gaussian([0.0], [[1.0]]).model(VP), VP, "dpm-1", 10, x=torch.ones(1, 1).double()).x
    assert float(found) == pytest.approx(0.7869992513165773, rel=1e-13)


def test_guided_gaussians() -> None:
    up, down, both = (Gaussian([mean], [[0.25]]) for mean in (2.0, -1.0, -1.0 + 7.5 * 3.0))
    model = classifier_free_guidance(up.model(VP), down.model(VP), 7.5)
    exact = both.flow(THREE, VP, 1.0, 1e-3)
    np.testing.assert_allclose(exact.flatten(), (20.92807017, 21.42816072, 21.92825127), atol=5e-9)
    for n, error in ((10, 1.868e-2), (20, 7.433e-3), (40, 2.001e-3)):
        found = sample(model, VP, "dpm++2m", n, x=THREE).x
        assert float((found - exact).abs().max()) == pytest.approx(error, rel=1e-3)


def test_first_order_is_euler_where_it_should_be() -> None:
    flow = FlowMatching()
    times = np.linspace(0.999, 0.001, 21)
    x = torch.linspace(-1, 1, 5).double()[:, None]
    model = GMM3.model(flow)
    found = sample(model, flow, "dpm-1", x=x, times=times).x
    for t, later in itertools.pairwise(times):
        noise = model(x, torch.full((5,), t, dtype=torch.float64))
        x = x + (later - t) * (noise - (x - t * noise) / (1 - t))
    np.testing.assert_allclose(found, x, atol=1e-12)


KARRAS = 2.70e-1, 5.30e-2, 1.28e-2, 3.09e-3
STRAIGHT = 1.13e-1, 3.26e-2, 9.61e-3, 2.97e-3


@pytest.mark.parametrize(
    ("schedule", "solver", "grid", "table"),
    [
        (VE(), "dpm++2m", "karras", KARRAS),
        (VE(), "dpm++1", "karras", (6.46e-1, 2.99e-1, 1.40e-1, 6.87e-2)),
        (FlowMatching(), "dpm++2m", "time", STRAIGHT),
        (FlowMatching(), "dpm++1", "time", (4.68e-1, 1.89e-1, 1.13e-1, 6.22e-2)),
    ],
)
def test_other_schedules(schedule: Schedule, solver: str, grid: Grid, table: tuple[float, ...]) -> None:
    x = quantiles(schedule, schedule.t_max)
    exact = GMM3.flow(x, schedule, schedule.t_max, schedule.t_min)
    model = GMM3.model(schedule)
    found = [sample(model, schedule, solver, n, x=x, grid=grid).x - exact for n in (20, 40, 80, 160)]
    assert [float(difference.abs().max()) for difference in found] == pytest.approx(table, rel=5e-3)


def test_fast_spends_what_it_is_given(start: Tensor, exact: Tensor) -> None:
    orders = {
        10: [3, 3, 3, 1],
        11: [3, 3, 3, 2],
        12: [3, 3, 3, 2, 1],
        15: [3, 3, 3, 3, 2, 1],
        20: [3] * 6 + [2],
    }
    assert {n: fast_orders(n) for n in orders} == orders
    for n, error in ((10, 1.109), (12, 0.2388), (15, 0.3282), (20, 0.0800), (30, 0.0208), (60, 0.00358)):
        found = sample(GMM3.model(VP), VP, "dpm-fast", n, x=start)
        assert found.evaluations == n
        assert float((found.x - exact).abs().max()) == pytest.approx(error, rel=2e-3)


@pytest.mark.parametrize(
    ("rtol", "atol", "solver", "trials", "accepted", "rejected", "error"),
    [
        (0.05, 0.0078, "dpm-12", 98, 31, 18, 9.0e-2),
        (0.05, 0.0078, "dpm-23", 72, 16, 8, 3.1e-3),
        (1e-3, 1e-4, "dpm-12", 312, 140, 16, 4.3e-3),
        (1e-3, 1e-4, "dpm-23", 189, 46, 17, 1.2e-3),
        (1e-5, 1e-6, "dpm-23", 543, 165, 16, 2.1e-5),
    ],
)
def test_adaptive_steps(
    rtol: float, atol: float, solver: str, trials: int, accepted: int, rejected: int, error: float,
    start: Tensor, exact: Tensor,
) -> None:  # fmt: skip
    found = sample(GMM3.model(VP), VP, solver, x=start, control=StepControl(rtol, atol))
    order = SOLVERS[solver].order
    assert (found.accepted, found.rejected) == (accepted, rejected)
    assert order * (accepted + rejected) == trials
    # After a rejected step the first evaluation is there already.
    assert found.evaluations == trials - rejected
    assert float((found.x - exact).abs().max()) == pytest.approx(error, rel=0.03)


def test_steps_of_each_sample_do_not_depend_on_the_batch(start: Tensor, exact: Tensor) -> None:
    control = StepControl(1e-3, 1e-4, per_sample=True)
    together = sample(GMM3.model(VP), VP, "dpm-23", x=start, control=control)
    alone = [sample(GMM3.model(VP), VP, "dpm-23", x=start[i : i + 1], control=control) for i in (0, 31)]
    assert torch.equal(torch.cat([found.x for found in alone]), together.x[[0, 31]])
    # Where trajectories part, a sample's own steps are too long for its neighbours.
    assert float((together.x - exact).abs().mean()) < 2e-3
    shared = sample(GMM3.model(VP), VP, "dpm-23", x=start, control=StepControl(1e-3, 1e-4))
    assert not torch.equal(shared.x[[0]], alone[0].x)


def test_inversion_returns(start: Tensor) -> None:
    model = GMM3.model(VP)
    data = sample(model, VP, "dpm-3s", 80, x=start).x
    noise = sample(model, VP, "dpm-3s", 80, x=data, start=1e-3, end=1.0).x
    assert float((noise - start).abs().max()) < 2e-3
    exact = GMM3.flow(data, VP, 1e-3, 1.0)
    assert float((noise - exact).abs().max()) < 2e-3


@pytest.mark.parametrize(
    ("solver", "table", "order"),
    [
        ("sde-dpm++1", (1.19e-1, 6.77e-2, 3.63e-2, 1.88e-2, 9.55e-3, 4.82e-3), 1),
        ("sde-dpm++2m", (1.65e-2, 5.13e-3, 1.33e-3, 3.35e-4, 8.39e-5, 2.10e-5), 2),
        (
            Solver("data", 2, rule="taylor", eta=1.0),
            (4.78e-2, 1.18e-2, 2.85e-3, 7.00e-4, 1.73e-4, 4.32e-5),
            2,
        ),
        (
            Solver("data", 3, eta=1.0, compat=True),
            (6.77e-2, 3.33e-2, 1.52e-2, 7.18e-3, 3.54e-3, 1.81e-3),
            1,
        ),
    ],
    ids=["1", "2M", "2M heun", "3M with the public sign"],
)
def test_moments_of_sdes(solver: str | Solver, table: tuple[float, ...], order: int) -> None:
    """Unit impulses through a linear model give the variance; with the public sign the third order is worse than 2M."""
    deviation = 0.6
    start, end = VP.level(0.5), VP.level(0.01)
    wanted = end.alpha**2 * deviation**2 + end.sigma**2
    assert wanted == pytest.approx(0.36127552723852707, rel=1e-14)
    model = Gaussian([0.0], [[deviation**2]]).model(VP)
    found = []
    for n in (10, 20, 40, 80, 160, 320):
        # Row 0 carries the start, row k the noise of step k.
        x = torch.zeros(n + 1, 1, dtype=torch.float64)
        x[0] = 1.0

        def impulses(step: int, x: Tensor) -> Tensor:
            unit = torch.zeros_like(x)
            unit[step + 1] = 1.0
            return unit

        result = sample(model, VP, solver, n, x=x, start=0.5, end=0.01, noise=impulses).x.flatten()
        factor = start.alpha / end.alpha * wanted / (start.alpha**2 * deviation**2 + start.sigma**2)
        assert factor == pytest.approx(0.1071055030, abs=1e-9)
        first = start.alpha**2 * deviation**2 + start.sigma**2
        if order == 2 or n == 10:
            # The data are a martingale: the mean is exact.
            assert float(result[0]) == pytest.approx(factor, rel=2e-12)
        found.append(abs(float(result[0] ** 2 * first + result[1:].square().sum()) - wanted))
    assert found == pytest.approx(table, rel=6e-3)
    assert math.log2(found[-2] / found[-1]) == pytest.approx(order, abs=0.15)


def test_noise_and_data_forms_of_the_sde_agree_in_the_limit() -> None:
    """The noise form adds as much noise, and reaches the same moments."""
    target = Gaussian([1.5], [[0.36]])
    for solver in ("sde-dpm-2m", "sde-dpm++2m", Solver("data", 2, eta=0.5), Solver("noise", 2, eta=0.5)):
        found = sample(
            target.model(VP), VP, solver, 60, shape=(20_000, 1), dtype=torch.float64, start=1.0, end=0.01
        ).x
        level = VP.level(0.01)
        assert float(found.mean()) == pytest.approx(level.alpha * 1.5, abs=0.02)
        assert float(found.var()) == pytest.approx(0.36127552723852707, rel=0.04)
