"""Langevin kernels: the adaptive sheet's tables and laws, divergence."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciml.errors import ConfigError, ConvergenceError
from sciml.sampling.averages import average
from sciml.sampling.chains import run_chains
from sciml.sampling.langevin import SCHEMES, Kernel, Overdamped, Underdamped
from sciml.sampling.monitors import BoundedMonitor, FunctionMonitor, GradientMonitor
from sciml.sampling.stationary import stationary_averages
from sciml.sampling.targets import (
    Density,
    FunctionDensity,
    ModifiedHarmonic,
    SteepDoubleWell,
    SteepPrior,
    three_modes,
)

WELL = SteepDoubleWell()
SPAN = -2.8, 2.4
MONITOR = BoundedMonitor(lambda x: 1 / WELL.steepness(x[:, 0]), least=0.1, most=1.5)
MEANS = {"E x": lambda x: x[:, 0], "E x^2": lambda x: x[:, 0].square()}
E_X = -0.38295


def g(x: Tensor) -> Tensor:
    return MONITOR.value(x)[:, 0]


def bias(kernel: Kernel, quadrature: int = 24) -> tuple[float, float]:
    found = stationary_averages(
        kernel,
        SPAN,
        MEANS,
        nodes=(160, 1) if isinstance(kernel, Overdamped) else (100, 32),
        quadrature=quadrature,
    )
    return found["E x"] - WELL.moments[0].value, found["E x^2"] - WELL.moments[1].value


def order(errors: list[float]) -> float:
    """Of halved steps, from the last two."""
    return math.log2(abs(errors[-2] / errors[-1]))


def test_monitor_of_the_sheet() -> None:
    values = MONITOR.value(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))[:, 0]
    np.testing.assert_allclose(values, [0.6007, 0.1293], atol=5e-5)
    x, p, _ = WELL._quadrature
    assert float(p @ g(torch.from_numpy(x[:, None])).numpy()) == pytest.approx(0.4289, abs=1e-4)


@pytest.mark.parametrize(
    ("h", "fixed", "naive", "corrected", "weighted"),
    [
        (0.04, -0.61189, 0.30350, -0.27864, -0.33870),
        (0.02, -0.42707, 0.28171, -0.33538, -0.36169),
        (0.01, -0.40048, 0.27087, -0.36075, -0.37279),
        (0.005, -0.39128, 0.26572, -0.37227, -0.37801),
        (0.0025, -0.38705, 0.26323, -0.37771, -0.38052),
    ],
)
def test_laws_of_euler_steps(h: float, fixed: float, naive: float, corrected: float, weighted: float) -> None:
    """Sheet 4.5: the plain mean of rescaled steps goes to pi / g, the others to pi."""
    rescaled = Overdamped(WELL, h, MONITOR, "weights")
    for kernel, expected in (
        (Overdamped(WELL, h), fixed),
        (rescaled, naive),
        (Overdamped(WELL, h, MONITOR), corrected),
    ):
        assert bias(kernel)[0] + WELL.moments[0].value == pytest.approx(expected, abs=3e-5)
    both = {"g x": lambda x: g(x) * x[:, 0], "g": g}
    found = stationary_averages(rescaled, SPAN, both, nodes=(160, 1))
    assert found["g x"] / found["g"] == pytest.approx(weighted, abs=2e-5)


def test_euler_is_of_order_1() -> None:
    for kernel in (lambda h: Overdamped(WELL, h, MONITOR), lambda h: Overdamped(WELL, h)):
        errors = [bias(kernel(h))[0] for h in (0.02, 0.01, 0.005, 0.0025)]
        fit = np.polyfit(np.log([0.02, 0.01, 0.005, 0.0025]), np.log(np.abs(errors)), 1)[0]
        assert order(errors) == pytest.approx(1, abs=0.1)
        assert 0.9 < fit < 1.25


@pytest.mark.parametrize(
    ("sweeps", "correction", "errors", "wanted"),
    [
        (60, "hat", (-0.00841, -0.00222), 2.0),
        (60, "tilde", (0.00743, 0.00167), 2.0),
        (1, "hat", (-0.0420, -0.00979), 2.0),
        (0, "hat", (0.181, 0.0902), 1.0),
    ],
)
def test_orders_of_baoab(sweeps: int, correction: Any, errors: tuple[float, float], wanted: float) -> None:
    """Sheet 4.5: the midpoint makes the order 2, an explicit A leaves 1."""
    found = [
        bias(Underdamped(WELL, h, monitor=MONITOR, correction=correction, sweeps=sweeps))[0]
        for h in (0.4, 0.2)
    ]
    np.testing.assert_allclose(found, errors, rtol=6e-3, atol=6e-5)
    assert order(found) == pytest.approx(wanted, abs=0.25)


def test_two_sweeps_are_near_and_fixed_steps_known() -> None:
    two = [bias(Underdamped(WELL, h, monitor=MONITOR, correction="hat", sweeps=2))[0] for h in (0.4, 0.2)]
    np.testing.assert_allclose(two, [-0.00183, -0.00147], atol=6e-5)
    found = stationary_averages(Underdamped(WELL, 0.2), SPAN, MEANS)
    assert found["E x"] - E_X == pytest.approx(0.03312, abs=1e-4)
    assert found["E p^2"] - 1 == pytest.approx(-0.0888, abs=1e-4)
    lost = stationary_averages(Underdamped(WELL, 0.2, monitor=MONITOR, correction="weights"), SPAN, MEANS)
    assert lost["E x"] == pytest.approx(0.2591, abs=0.01)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("correction", ["hat", "tilde"])
def test_all_splittings_are_of_order_2(scheme: str, correction: Any) -> None:
    steps = (0.2, 0.1) if scheme == "BAOAB" else (0.1, 0.05)
    errors = [
        bias(
            Underdamped(WELL, h, scheme, monitor=MONITOR, correction=correction, sweeps=8),
            10 if scheme == "OBABO" else 24,
        )[1]
        for h in steps
    ]
    assert order(errors) == pytest.approx(2, abs=0.25)
    assert abs(errors[-1]) < 4e-3


def test_weak_friction_and_hot_chains() -> None:
    """The shift of O does not divide by a small friction; temperature enters all parts."""
    for correction in ("hat", "tilde"):
        kernel = Underdamped(
            WELL,
            0.1,
            friction=0.02,
            monitor=MONITOR,
            correction=correction,
            sweeps=8,  # type: ignore[arg-type]
        )
        assert abs(bias(kernel)[0]) < 4e-3
    cool = FunctionDensity(lambda x: -5 * (x[:, 0].square() - 1).square(), 1)
    plain = FunctionDensity(lambda x: -x[:, 0].square() / 0.5, 1)  # V = x^2 / 2 * 1 at T = 1/4
    found = stationary_averages(Underdamped(plain, 0.3, temperature=0.25), (-4, 4), MEANS)
    # BAOAB is exact for positions of a harmonic potential.
    assert found["E x^2"] == pytest.approx(0.25, abs=1e-8)
    for kernel in (
        Overdamped(cool, 0.001, MONITOR, temperature=0.3),
        Underdamped(cool, 0.02, monitor=MONITOR, temperature=0.3),
    ):
        nodes = (120, 1) if isinstance(kernel, Overdamped) else (100, 32)
        law = stationary_averages(kernel, (-2.4, 2.4), MEANS, nodes=nodes)
        x = np.linspace(-2.4, 2.4, 4001)
        mass = np.exp(-5 * (x**2 - 1) ** 2)
        assert law["E x^2"] == pytest.approx(float(mass @ x**2 / mass.sum()), abs=4e-3)


@pytest.mark.parametrize("correction", ["drift", "weights"])
def test_estimators_by_chains(correction: Any) -> None:
    """Sheet 2.3 and "Must show": -0.383 with the term, or weights; +0.261 without."""
    kernel = Overdamped(WELL, 0.02, MONITOR, correction)
    found = run_chains(kernel, WELL.sample(2000), 2000, burn=1500, every=8, seed=4)
    result = found.average("E x")
    # First order: the bias that quadrature finds is taken off.
    if correction == "drift":
        assert abs(result.mean - bias(kernel)[0] - E_X) < 4 * result.error
        assert result.error < 0.02
    else:
        both = {"g x": lambda x: g(x) * x[:, 0], "g": g}
        law = stationary_averages(kernel, SPAN, both, nodes=(160, 1))
        assert abs(result.mean - law["g x"] / law["g"]) < 4 * result.error
        assert average(found.values["E x"]).mean == pytest.approx(0.2608, abs=0.06)


@pytest.mark.parametrize("drift", ["drift", "weights"])
def test_metropolised_steps_are_exact(drift: Any) -> None:
    """Sheet 6: steps 0.8 / (1 + |s|), two Gaussians in the plane; without decisions E x_2^2 is 1.57."""
    target = FunctionDensity(
        lambda x: torch.logsumexp(
            torch.stack([-(x - x.new_tensor([m, 0.0])).square().sum(1) / 2 for m in (0.0, 4.0)]), 0
        ),
        2,
    )
    monitor = FunctionMonitor(lambda x: 1 / (1 + _norm(target, x)))
    x = torch.zeros(1500, 2).double()
    across = {"E x_2^2": lambda x: x[:, 1].square()}
    chains = run_chains(
        Overdamped(target, 0.8, monitor, drift, adjusted=True), x, 500, burn=50, every=5, observables=across
    )
    result = chains.average("E x_2^2")
    assert abs(result.mean - 1) < 4 * result.error
    assert result.error < 0.01
    if drift == "weights":
        assert chains.acceptance == pytest.approx(0.855, abs=0.02)
        free = run_chains(
            Overdamped(target, 0.8, monitor, drift), x, 200, burn=50, every=5, observables=across
        )
        assert average(free.values["E x_2^2"]).mean == pytest.approx(1.5676, abs=0.08)


def _norm(target: Density, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        (score,) = torch.autograd.grad(target.log_density(x).sum(), x, create_graph=True)
        return score.norm(dim=1)


def test_virial_tells_the_wrong_law() -> None:
    """E[x V'] = T of a right law; without the term it is far off."""
    virial = {"E x V'": lambda x: x[:, 0] * WELL.slope(x[:, 0])}
    right = stationary_averages(Overdamped(WELL, 0.0025, MONITOR), SPAN, virial, nodes=(160, 1))
    wrong = stationary_averages(Overdamped(WELL, 0.0025, MONITOR, "weights"), SPAN, virial, nodes=(160, 1))
    assert right["E x V'"] == pytest.approx(1, abs=0.02)
    assert abs(wrong["E x V'"] - 1) > 0.04


def test_fixed_point_needs_few_sweeps() -> None:
    """Sheet 4.4: about four to 1e-12; chains that are there stop moving."""
    target = ModifiedHarmonic()
    monitor = BoundedMonitor(lambda x: 1 / target.frequency(x[:, 0]), least=0.001, most=1.1)
    start = torch.linspace(-1, 2, 50, dtype=torch.float64)[:, None]
    p = torch.linspace(-2, 2, 50, dtype=torch.float64)[:, None]
    exact = Underdamped(target, 0.1, monitor=monitor, tolerance=1e-15)
    limit = exact._moved(exact.place(start), p, 0.05)
    errors = []
    for sweeps in (1, 2, 4, 8):
        kernel = Underdamped(target, 0.1, monitor=monitor, sweeps=sweeps)
        errors.append(float((kernel._moved(kernel.place(start), p, 0.05) - limit).abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9
    midpoint = start + 0.05 * p * monitor.value((start + limit) / 2)
    assert float((midpoint - limit).abs().max()) < 1e-14


def test_steep_prior_at_large_steps() -> None:
    """Sheet 5.2: fixed steps leave where those with a monitor stay; tilde is the more stable one."""
    target = SteepPrior()
    monitor = BoundedMonitor(lambda x: 2 * (x[:, 0] - 1.86).square(), stiff=True, least=0.1**0.5, most=1.0)
    x = torch.full((100, 1), 1.23, dtype=torch.float64)
    common = {"on_divergence": "keep", "observables": {}, "bound": 1e6}
    fixed = run_chains(Underdamped(target, 0.85 * 0.22, friction=0.1), x, 4000, **common)  # type: ignore[arg-type]
    moved = run_chains(
        Underdamped(target, 0.22, friction=0.1, monitor=monitor, sweeps=6),
        x,
        4000,
        **common,  # type: ignore[arg-type]
    )
    assert int((fixed.diverged > 0).sum()) > 25
    assert int((moved.diverged > 0).sum()) == 0
    assert torch.isnan(fixed.x[fixed.diverged > 0]).all()
    assert torch.isfinite(fixed.x[fixed.diverged == 0]).all()


def test_divergence_is_named() -> None:
    normal = FunctionDensity(lambda x: -50 * x.square().sum(1), 2)
    x = torch.ones(4, 2)
    x[2] *= 1e5
    with pytest.raises(ConvergenceError, match=r"chain 2 of 4 diverged in step \d+ of 200, h=0.05") as raised:
        run_chains(Overdamped(normal, 0.05), x, 200)
    first = int(str(raised.value).split("in step ")[1].split()[0])
    kept = run_chains(Overdamped(normal, 0.05), x, 200, on_divergence="keep", observables={})
    assert int(kept.diverged.min()) == first == int(kept.diverged[2])
    # The step before is within the bound.
    inside = run_chains(Overdamped(normal, 0.05), x, first - 1, on_divergence="keep", observables={})
    assert int(inside.diverged[2]) == 0
    with pytest.raises(ConfigError, match="all chains diverged"):
        run_chains(
            Overdamped(normal, 0.05), x, 300, on_divergence="keep", observables={"x": lambda x: x[:, 0]}
        ).average("x")


def test_chains_depend_on_their_number_alone() -> None:
    kernel = Underdamped(WELL, 0.2, monitor=MONITOR, tolerance=1e-12)
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    together = run_chains(kernel, x, 40, seed=5, keep=True)
    assert together.states is not None
    assert together.states.shape == (40, 6, 1)
    fewer = run_chains(kernel, x[:4], 40, seed=5, keep=True)
    assert torch.equal(together.states[:, :4], fewer.states)  # type: ignore[arg-type]
    thinned = run_chains(kernel, x, 30, burn=10, every=3, seed=5, keep=True)
    assert torch.equal(thinned.states, together.states[12::3])  # type: ignore[arg-type]
    assert torch.equal(thinned.x, together.x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Overdamped(WELL, 0.0), "h=0"),
        (lambda: Overdamped(WELL, 0.1, temperature=-1), "temperature=-1"),
        (lambda: Overdamped(WELL, 0.1, MONITOR, "none"), "correction='none'"),
        (lambda: Underdamped(WELL, 0.1, "BOAAB"), "scheme='BOAAB'"),
        (lambda: Underdamped(WELL, 0.1, friction=0.0), "friction=0"),
        (lambda: Underdamped(WELL, 0.1, correction="no"), "correction='no'"),
        (lambda: BoundedMonitor(lambda x: x[:, 0], most=math.inf), "without a cap"),
        (lambda: BoundedMonitor(lambda x: x[:, 0], least=0.0), "least=0"),
        (lambda: GradientMonitor(WELL, 0.0), "scale=0"),
        (lambda: BoundedMonitor(lambda x: x).value(torch.ones(3, 1)), "monitor: its function returned shape"),
        (lambda: run_chains(Overdamped(WELL, 0.1), torch.ones(3, 1), 0), "steps=0"),
        (lambda: run_chains(Overdamped(WELL, 0.1), torch.ones(3, 1), 5, on_divergence="no"), "on_divergence"),
        (lambda: run_chains(Overdamped(WELL, 0.1), torch.ones(3), 5), "give floating-point states"),
        (lambda: run_chains(Overdamped(WELL, 0.1), torch.ones(3, 1), 5, every=9), "every from 1 to steps"),
        (
            lambda: run_chains(Overdamped(WELL, 0.1), torch.ones(3, 1), 5, observables={"x": torch.sum}),
            "observable 'x'",
        ),
        (
            lambda: run_chains(
                Overdamped(FunctionDensity(lambda x: -x.square().sum(), 1), 0.1), torch.ones(3, 1), 5
            ),
            r"log_density has shape \(\)",
        ),
        (
            lambda: run_chains(
                Overdamped(FunctionDensity(lambda x: torch.zeros(len(x)), 1), 0.1), torch.ones(3, 1), 5
            ),
            "give a gradient",
        ),
        (
            lambda: FunctionMonitor(lambda x: x[:, 0], lambda x: x[:, 0]).value_and_gradient(
                torch.ones(3, 1)
            ),
            "its gradient has shape",
        ),
        (lambda: run_chains(Overdamped(WELL, 0.1), torch.ones(3, 1), 5).average("x"), "observable 'x'"),
        (lambda: stationary_averages(Overdamped(three_modes(), 0.1), SPAN), "on a line"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_chains_that_leave_do_not_take_others_along() -> None:
    """Nor is one marked that was out between two looks, because another one is out."""
    normal = FunctionDensity(lambda x: -x.square().sum(1) / 2, 1)
    x = torch.zeros(300, 1).double()
    together = run_chains(
        Overdamped(normal, 0.1), x, 64, on_divergence="keep", bound=1.8, observables={}, seed=2
    )
    gone = together.diverged > 0
    assert 5 < int(gone.sum()) < 60
    fewer = run_chains(
        Overdamped(normal, 0.1), x[:40], 64, on_divergence="keep", bound=1.8, observables={}, seed=2
    )
    assert torch.equal(fewer.diverged, together.diverged[:40])
    # All left while nothing was kept: nothing to average, and no crash.
    steep = Overdamped(SteepPrior(), 1.0)
    none = run_chains(steep, 5 * torch.ones(3, 1).double(), 5, burn=200, on_divergence="keep", keep=True)
    assert none.values["E x"].shape == (0, 3)
    with pytest.raises(ConfigError, match="all chains diverged"):
        none.average("E x")


def test_friction_that_is_tiny() -> None:
    """The force in the S part does not cancel in single precision."""
    target = FunctionDensity(lambda x: -x.square().sum(1) / 2, 1)
    kernel = Underdamped(target, 0.1, "ASA", friction=1e-7)
    state = kernel.start(torch.ones(1, 1), torch.zeros(1, 1))
    p = kernel.step(state, torch.zeros(1, 1)).p
    assert float(p) == pytest.approx(-0.1, rel=1e-4)
