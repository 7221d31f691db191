"""Schedules: sheet sections 8 and 12 (check values, round trips, single precision)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sciml.errors import ConfigError
from sciml.sampling import VE, DiscreteSchedule, FlowMatching, Schedule, VPCosine, VPLinear, time_grid
from sciml.sampling.parametrisations import edm_preconditioning, to_data, to_noise

SCHEDULES = (
    VPLinear(),
    VPCosine(),
    VE(),
    FlowMatching(),
    FlowMatching(shift=3.0),
    DiscreteSchedule.scaled_linear(),
)


def test_check_values_of_linear() -> None:
    s = VPLinear()
    found = [
        s.half_log_snr(1.0),
        s.half_log_snr(1e-3),
        s.alpha(1.0),
        s.sigma(1e-3),
        s.alpha(0.4),
        s.sigma(0.4),
    ]
    wanted = [
        -5.024978406659204,
        4.557714932729898,
        0.006571586494929619,
        0.010485416335094895,
        0.4421969092798986,
        0.8969179970450505,
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-14)
    assert s.half_log_snr(0.4) == pytest.approx(-0.7072091597728719, rel=1e-14)


def test_check_values_of_cosine() -> None:
    s = VPCosine()
    found = [s.alpha(0.5), s.sigma(0.5), s.half_log_snr(0.5), s.half_log_snr(1e-3), s.half_log_snr(0.9946)]
    wanted = [
        0.7027400589411691,
        0.7114467018402448,
        -0.012313441405757186,
        5.047494405729713,
        -4.777640,
    ]
    np.testing.assert_allclose(found[:3], wanted[:3], rtol=1e-13)
    np.testing.assert_allclose(found[3:], wanted[3:], rtol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_time_inverts_the_half_log_snr(schedule: Schedule) -> None:
    t = np.geomspace(schedule.t_min, schedule.t_max, 200)
    limit = 4e-15
    np.testing.assert_allclose(schedule.time(schedule.half_log_snr(t)), t, rtol=limit)
    tensor = torch.from_numpy(t)
    np.testing.assert_allclose(schedule.time(schedule.half_log_snr(tensor)).numpy(), t, rtol=limit)


@pytest.mark.parametrize("schedule", [VPLinear(), VPCosine()])
def test_smallest_times(schedule: Schedule) -> None:
    # Of the cosine schedule the logarithm of a quotient of cosines keeps 9 digits here: see the module.
    t = np.geomspace(1e-6, 0.99, 100)
    np.testing.assert_allclose(schedule.time(schedule.half_log_snr(t)), t, rtol=4e-15)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_single_precision_is_stable(schedule: Schedule) -> None:
    t = torch.from_numpy(np.geomspace(schedule.t_min, schedule.t_max * 0.99, 100))
    exact, found = schedule.half_log_snr(t), schedule.half_log_snr(t.float()).double()
    # The float32 time itself moves lambda by its rate times the rounding.
    moved = schedule.half_log_snr(t.float().double())
    limit = 6e-7
    assert float(((found - moved).abs() / exact.abs().clamp_min(1)).max()) < limit


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_rates_are_derivatives(schedule: Schedule) -> None:
    t = np.linspace(schedule.t_min, schedule.t_max, 9)[1:-1]
    if isinstance(schedule, DiscreteSchedule):
        t = np.floor(t * 1000) / 1000 + 5e-4  # inside of pieces
    h = 1e-6 * t
    for value, rate in (
        (schedule.log_alpha, schedule.log_alpha_rate),
        (schedule.half_log_snr, schedule.half_log_snr_rate),
    ):
        difference = (value(t + h) - value(t - h)) / (2 * h)
        np.testing.assert_allclose(rate(t), difference, rtol=2e-7, atol=1e-12)
    level = schedule.level(float(t[3]))
    change = (schedule.sigma(t[3] + h[3]) - schedule.sigma(t[3] - h[3])) / (2 * h[3])
    assert level.sigma_rate == pytest.approx(float(change), rel=1e-6)


def test_variance_is_preserved() -> None:
    for schedule in (VPLinear(), VPCosine(), DiscreteSchedule.linear()):
        t = np.linspace(schedule.t_min, schedule.t_max, 50)
        np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, rtol=1e-14)


def test_discrete_betas() -> None:
    s = DiscreteSchedule.scaled_linear()
    bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    for n in (0, 200, 999):
        t = (n + 1) / 1000
        assert float(s.alpha(t)) == pytest.approx(bar[n] ** 0.5, rel=1e-13)
        assert s.label(t) == pytest.approx(n, abs=1e-9)
    ratio = float(np.exp(-s.half_log_snr(1.0)))
    assert ratio == pytest.approx(14.61465, abs=1e-4)
    # Trailing steps of cosine betas are dropped.
    assert DiscreteSchedule.cosine().half_log_snr(DiscreteSchedule.cosine().t_max) >= -5.1


def test_grids() -> None:
    wanted = [80, 42.415189, 21.108677, 9.723201, 4.066124, 1.501742, 0.469979, 0.116639, 0.020435, 0.002]
    np.testing.assert_allclose(time_grid(VE(), 9, "karras"), wanted, atol=5e-7)
    wanted = [
        *(1, 0.8991229323, 0.7855680750, 0.6534385068, 0.4934395340, 0.3046314098, 0.1406364135),
        *(0.0536043148, 0.0180953998, 0.0049919010, 0.001),
    ]
    np.testing.assert_allclose(time_grid(VPLinear(), 10), wanted, atol=5e-11)
    np.testing.assert_allclose(time_grid(VPLinear(), 2, "quadratic")[1], ((1 + 1e-3**0.5) / 2) ** 2)
    np.testing.assert_allclose(time_grid(VPLinear(), 4, "time"), np.linspace(1, 1e-3, 5))
    with pytest.raises(ConfigError, match=r"unknown grid 'karas'.*'karras'"):
        time_grid(VE(), 4, "karas")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must differ"):
        time_grid(VE(), 4, start=1.0, end=1.0)
    with pytest.raises(ConfigError, match="t=0"):
        time_grid(VE(), 4, end=0.0)


@given(st.sampled_from(SCHEDULES), st.floats(0.05, 0.95), st.floats(-3, 3), st.floats(-3, 3))
def test_parametrisations_agree(schedule: Schedule, part: float, data: float, noise: float) -> None:
    level = schedule.level(schedule.t_min + part * (schedule.t_max - schedule.t_min))
    x = level.alpha * data + level.sigma * noise
    outputs = {
        "noise": noise,
        "data": data,
        "score": -noise / level.sigma,
        "velocity": level.alpha_rate * data + level.sigma_rate * noise,
    }
    if schedule.variance_preserving:
        outputs["v"] = level.alpha * noise - level.sigma * data
    for name, output in outputs.items():
        for convert, wanted, factor in ((to_data, data, level.alpha), (to_noise, noise, level.sigma)):
            a, b = convert(name, level)
            scale = (abs(x) + abs(noise) + abs(data) + 1) / factor
            assert abs(a * x + b * output - wanted) < 1e-12 * scale


def test_edm_preconditioning() -> None:
    skip, out, into, label = edm_preconditioning(2.0, 0.5)
    assert (skip, out, into, label) == pytest.approx(
        (0.25 / 4.25, 1 / 4.25**0.5, 1 / 4.25**0.5, np.log(2) / 4)
    )
    # The target of the network has unit variance: (1 - c_skip)^2 sd^2 + c_skip^2 s^2 = c_out^2.
    assert (1 - skip) ** 2 * 0.25 + skip**2 * 4 == pytest.approx(out**2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VPLinear(20.0, 0.1), "0 <= beta_0 < beta_1"),
        (lambda: VPCosine(t_max=1.5), "t_min < t_max < 1"),
        (lambda: FlowMatching(shift=0.0), "shift=0"),
        (lambda: DiscreteSchedule([0.1, 1.2]), "between 0 and 1"),
        (lambda: DiscreteSchedule.linear().level(0.0), "t=0"),
        (lambda: VPCosine().level(1.0), "alpha=.*both must be positive|t=1"),
        (lambda: FlowMatching().level(1.0), "both must be positive"),
    ],
)
def test_bad_schedules(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
