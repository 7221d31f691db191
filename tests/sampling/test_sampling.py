"""What solvers refuse, hooks, guidance, noise, and the dynamics that they stand beside."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sciml.dynamics import DriftDiffusion, VectorField, integrate_field, integrate_sde
from sciml.errors import ConfigError, ConvergenceError
from sciml.sampling import (
    VE,
    DynamicThreshold,
    FlowMatching,
    Gaussian,
    Level,
    Mixture1D,
    ProbabilityFlow,
    ReverseDiffusion,
    SampleNoise,
    Sampler,
    Schedule,
    Solver,
    StepControl,
    VPLinear,
    classifier_guidance,
    measured_denoiser,
    sample,
)

VP = VPLinear()
GMM3 = Mixture1D((0.3, 0.5, 0.2), (-2.0, 0.5, 3.0), (0.5, 0.3, 0.8))
X = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]


class NoInverse(Schedule):
    """A schedule with lambda(t) = 1 - 2 t only."""

    variance_preserving = True

    def log_sigma(self, t: Tensor | float) -> Tensor:
        return -0.5 * torch.log1p(torch.exp(2 - 4 * torch.as_tensor(t)))

    def log_alpha(self, t: Tensor | float) -> Tensor:
        return 1 - 2 * torch.as_tensor(t) + self.log_sigma(t)

    def log_alpha_rate(self, t: Tensor | float) -> Tensor:
        return -2 * torch.sigmoid(4 * torch.as_tensor(t) - 2)

    def half_log_snr_rate(self, t: Tensor | float) -> Tensor:
        return torch.full_like(torch.as_tensor(t), -2.0)


def test_schedules_without_inverse_are_refused_where_it_is_needed() -> None:
    schedule = NoInverse()
    for solver in ("dpm++2s", "dpm++2m"):
        with pytest.raises(ConfigError, match="NoInverse has no inverse"):
            sample(GMM3.model(schedule), schedule, solver, 10, x=X)
    with pytest.raises(ConfigError, match="has no inverse"):
        sample(GMM3.model(schedule), schedule, "dpm++3s", x=X, times=[1.0, 0.5])
    found = sample(GMM3.model(schedule), schedule, "dpm++2m", 80, x=X, grid="time").x
    assert float((found - GMM3.flow(X, schedule, 1.0, 1e-3)).abs().max()) < 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "dpm++2n"}, "unknown solver 'dpm\\+\\+2n': did you mean"),
        ({"prediction": "epsilon"}, "unknown parametrisation 'epsilon'"),
        ({"grid": "linear"}, "unknown grid"),
        ({"steps": 0}, "steps=0"),
        ({"solver": "dpm++3m", "steps": 2}, "steps=2: a multistep solver of order 3 needs at least 3"),
        ({"solver": "dpm-fast", "steps": 2}, "steps=2"),
        ({"solver": "dpm-2m", "final_zero": True}, "noise form divides by sigma = 0"),
        ({"times": [1.0, 0.5, 0.6]}, "strictly"),
        ({"times": [1.0, 0.5], "start": 1.0, "solver": "dpm++1"}, "leave them out"),
        ({"end": 0.0}, "t=0"),
        ({"solver": "sde-dpm++2m", "start": 0.1, "end": 0.9}, "noise to data only"),
        ({"control": StepControl()}, "choose an adaptive solver"),
        ({"solver": "dpm-23", "times": [1.0, 0.5]}, "chooses its steps"),
        ({"shape": (3, 1)}, "not both"),
        ({"steps": 20.0}, "whole number"),
        ({"x": None, "shape": 4}, "shape=4"),
        ({"x": X * torch.nan}, "not finite"),
        ({"times": [[1.0, 0.5]]}, "times of shape"),
        ({"solver": "dpm-fast", "times": [1.0, 0.5]}, "makes its own grid"),
        ({"solver": "dpm++3s", "lower_order_final": True}, "belongs to multistep"),
        ({"solver": "unipc-3", "state_hook": lambda x, level, step: x}, "corrector would undo"),
        ({"solver": "dpm++1", "steps": 1, "final_zero": True, "end": 0.5}, "end=0.5"),
        ({"data_hook": lambda data, x, level: data[:1]}, "data_hook returned"),
        ({"state_hook": lambda x, level, step: None}, "state_hook returned NoneType"),
        ({"solver": "sde-dpm++1", "noise": lambda step, x: torch.zeros(1)}, "noise returned"),
        ({"x": torch.ones(2, 1, dtype=torch.int64)}, "floating-point"),
    ],
)
def test_bad_arguments(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sample(GMM3.model(VP), VP, **{"x": X, **settings})


def test_prediction_by_v_needs_preserved_variance() -> None:
    with pytest.raises(ConfigError, match="VE does not preserve the variance"):
        sample(GMM3.model(VE()), VE(), x=X, prediction="v")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 4}, "order=4"),
        ({"eta": 1.5}, "eta=1.5"),
        ({"eta": 1.0, "kind": "singlestep"}, "multistep solvers without corrector"),
        ({"eta": 1.0, "order": 3}, "third order is not reached"),
        ({"compat": True}, "compat"),
        ({"corrector": True, "kind": "singlestep"}, "corrector"),
        ({"kind": "adaptive", "order": 1}, "adaptive"),
        ({"kind": "singlestep", "order": 3, "r1": 0.8}, "r1=0.8"),
        ({"r1": 0.3}, "belong to single steps"),
        ({"form": "noise", "order": 3, "eta": 1.0, "compat": True}, "no public implementation"),
    ],
)
def test_bad_solvers(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Solver(**settings)


def test_shape_of_the_output_is_checked() -> None:
    with pytest.raises(
        ConfigError, match=r"the model returned torch.float64, \(9,\) for states of torch.float64, \(9, 1\)"
    ):
        sample(lambda x, t: x[:, 0], VP, x=X)


@pytest.mark.parametrize("solver", ["dpm++2m", "dpm-3s", "dpm-23", "sde-dpm++1"])
def test_nan_names_the_step(solver: str) -> None:
    calls = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t[0]))
        return x * (math.nan if len(calls) == 5 else 0.1)

    with pytest.raises(ConvergenceError, match=r"not finite in step \d+.*t=") as raised:
        sample(model, VP, solver, 10, x=X)
    assert len(calls) in (5, 6)
    step = {"dpm++2m": 5, "dpm-3s": 2, "sde-dpm++1": 5}.get(solver)
    assert step is None or f"step {step} of 10" in str(raised.value)


def test_a_hook_that_ends_in_nan_is_named() -> None:
    with pytest.raises(ConvergenceError, match="look at hooks"):
        sample(GMM3.model(VP), VP, x=X, state_hook=lambda x, level, step: x * (math.nan if step == 20 else 1))


def test_labels_may_be_changed_in_place() -> None:
    def model(x: Tensor, t: Tensor) -> Tensor:
        return 0.1 * x * t.mul_(2)[:, None]

    sampler = Sampler(model, VP, "dpm++2m", 5)
    assert torch.equal(sampler(X).x, sampler(X).x)


def test_runs_of_a_sampler_do_not_share_what_they_return() -> None:
    sampler = Sampler(GMM3.model(VP), VP, "dpm++3m", 6)
    first = sampler(X).x
    kept = first.clone()
    second = sampler(X + 1).x
    assert torch.equal(first, kept)
    assert not torch.equal(first, second)
    assert torch.equal(sampler(X[:4]).x, kept[:4])

    # A run within a run, of the same sampler.
    depth = 0

    def nested(x: Tensor, t: Tensor) -> Tensor:
        nonlocal depth
        depth += 1
        if depth == 3:
            recursive(X + 1)
        return GMM3.model(VP)(x, t)

    recursive = Sampler(nested, VP, "dpm++3m", 6)
    assert torch.equal(recursive(X).x, kept)


def test_half_precision() -> None:
    seen = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return torch.full_like(x, 1.5)

    found = sample(
        model, VP, "dpm++1", 2, x=torch.ones(1, 3, 256, 256, dtype=torch.float16), label=lambda t: 999 * t
    )
    assert found.x.dtype == torch.float16
    assert seen[0] == 999.0


def test_hooks_see_every_step() -> None:
    seen: list[tuple[int, float]] = []

    def state(x: Tensor, level: Level, step: int) -> Tensor:
        seen.append((step, level.t))
        return x

    clean = sample(GMM3.model(VP), VP, "dpm-3s", 6, x=X)
    hooked = sample(
        GMM3.model(VP), VP, "dpm-3s", 6, x=X, state_hook=state, data_hook=lambda data, x, level: data
    )
    np.testing.assert_allclose(hooked.x, clean.x, atol=1e-11)
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1][1] == VP.t_min


def test_data_hook_fixes_what_is_known() -> None:
    """Inpainting by replacement: coordinate 0 of two correlated ones is given, the other follows."""
    target = Gaussian([0.0, 0.0], [[1.0, 0.9], [0.9, 1.0]])

    def known(data: Tensor, x: Tensor, level: Level) -> Tensor:
        return torch.stack([torch.full_like(data[:, 0], 1.0), data[:, 1]], 1)

    found = sample(
        target.model(VE()),
        VE(),
        "dpm++2m",
        100,
        shape=(500, 2),
        dtype=torch.float64,
        data_hook=known,
        final_zero=True,
    ).x
    assert torch.equal(found[:, 0], torch.ones(500, dtype=torch.float64))
    # Replacement is not exact, whose answer is 0.9; unconditional samples have mean 0.
    assert float(found[:, 1].mean()) > 0.3


def test_thresholds() -> None:
    hook = DynamicThreshold(0.5)
    data = torch.tensor([[4.0, -2.0, 1.0], [0.5, 0.25, 0.1]])
    np.testing.assert_allclose(hook(data, data, VP.level(0.5)), [[1.0, -1.0, 0.5], [0.5, 0.25, 0.1]])
    np.testing.assert_allclose(DynamicThreshold(1.0, 1.0)(data, data, VP.level(0.5))[0], [1.0, -1.0, 1.0])
    with pytest.raises(ConfigError, match="quantile"):
        DynamicThreshold(0.0)
    plain = sample(GMM3.model(VP), VP, x=X).x
    held = sample(GMM3.model(VP), VP, x=X, data_hook=DynamicThreshold(1.0), final_zero=True).x
    assert float(plain.abs().max()) > 2
    assert float(held.abs().max()) <= 1


def test_classifier_guidance_is_bayes() -> None:
    """Data N(0, 1), condition y = x_0 + N(0, 1): the guided model is that of the posterior N(y / 2, 1 / 2)."""
    prior, posterior, y = Gaussian([0.0], [[1.0]]), Gaussian([0.75], [[0.5]]), 1.5

    def log_probability(x: Tensor, t: Tensor) -> Tensor:
        # y given x_t: mean alpha x, variance sigma^2 + 1.
        return -0.5 * (y - VP.alpha(t) * x[:, 0]) ** 2 / (VP.sigma(t) ** 2 + 1)

    guided = classifier_guidance(prior.model(VP), log_probability, VP, 1.0)
    t = torch.full((9,), 0.3, dtype=torch.float64)
    np.testing.assert_allclose(guided(X, t), posterior.model(VP)(X, t), atol=1e-13)
    # With labels in place of t for the model, t stays what sigma is of.
    labelled = classifier_guidance(
        lambda x, n: prior.model(VP)(x, n / 1000), log_probability, VP, 1.0, label=lambda t: 1000 * t
    )
    np.testing.assert_allclose(labelled(X, t), guided(X, t), atol=1e-13)


def test_measurements_of_a_gaussian_give_its_posterior() -> None:
    """The denoiser is linear: moment matching is exact, and three products solve for three measurements."""
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((5, 5))
    covariance = factor @ factor.T + 0.1 * np.eye(5)
    covariance = (covariance + covariance.T) / 2
    target = Gaussian(rng.standard_normal(5), covariance)
    mask = torch.tensor([True, False, True, False, True])
    values, noise = torch.from_numpy(rng.standard_normal(5)), 0.3
    picked = np.eye(5)[mask.numpy()]
    gain = covariance @ picked.T @ np.linalg.inv(picked @ covariance @ picked.T + noise**2 * np.eye(3))
    mean = target.mean.numpy() + gain @ (values[mask].numpy() - picked @ target.mean.numpy())
    matrix = covariance - gain @ picked @ covariance
    posterior = Gaussian(mean, (matrix + matrix.T) / 2)
    x, sigma = torch.from_numpy(rng.standard_normal((4, 5))), torch.full((4,), 0.8, dtype=torch.float64)
    found = measured_denoiser(target.model(VE(), "data"), mask, values, noise, iterations=3)(x, sigma)
    np.testing.assert_allclose(found, posterior.model(VE(), "data")(x, sigma), atol=1e-10)


def test_noise_belongs_to_samples() -> None:
    together = SampleNoise(7)(2, torch.zeros(6, 3, 5))
    apart = torch.cat([SampleNoise(7, first)(2, torch.zeros(2, 3, 5)) for first in (0, 2, 4)])
    assert torch.equal(together, apart)
    assert not torch.equal(together, SampleNoise(7)(3, torch.zeros(6, 3, 5)))
    assert not torch.equal(together, SampleNoise(8)(2, torch.zeros(6, 3, 5)))
    assert torch.equal(together, SampleNoise(7)(2, torch.zeros(6, 3, 5, dtype=torch.float64)).float())
    many = SampleNoise()(-1, torch.zeros(2000, 50, dtype=torch.float64))
    moments = [float((many**k).mean()) for k in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.05)
    with pytest.raises(ConfigError, match="seed=-1"):
        SampleNoise(-1)


def test_samples_do_not_depend_on_the_batch() -> None:
    sampler = Sampler(GMM3.model(VP), VP, "sde-dpm++2m", 12)
    sigma = sampler.levels[0].sigma
    whole = sampler(sigma * SampleNoise(3)(-1, torch.empty(8, 2)), SampleNoise(3)).x
    part = sampler(sigma * SampleNoise(3, 5)(-1, torch.empty(3, 2)), SampleNoise(3, 5)).x
    assert torch.equal(whole[5:], part)
    assert torch.equal(whole, sample(GMM3.model(VP), VP, "sde-dpm++2m", 12, shape=(8, 2), seed=3).x)


def test_labels_and_dtypes() -> None:
    seen = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.append((float(t[0]), t.shape, t.dtype, x.dtype))
        return x * 0.1

    sample(model, VP, "dpm++1", 2, x=torch.ones(3, 2), label=lambda t: 1000 * t)
    assert seen[0] == (1000.0, (3,), torch.float32, torch.float32)
    sample(model, VP, "dpm++1", 2, x=torch.ones(3, 2, dtype=torch.float16), label=lambda t: 1000 * t)
    assert seen[2] == (1000.0, (3,), torch.float32, torch.float16)


def test_probability_flow_by_generic_integrators() -> None:
    flow = ProbabilityFlow(GMM3.model(VP), VP)
    assert isinstance(flow, VectorField)
    exact = GMM3.flow(X, VP, 1.0, 0.01)
    found = []
    for step in (0.02, 0.01, 0.005, 0.0025):
        x = integrate_field(flow, X, [1.0, 0.01], step=step)[-1]
        found.append(float((x - exact).abs().max()))
    slope = -np.polyfit(np.log([1, 2, 4, 8]), np.log(found), 1)[0]
    assert slope == pytest.approx(4.0, abs=0.5), found
    adaptive = integrate_field(flow, X, [1.0, 0.5, 0.01], tolerance=1e-9)
    np.testing.assert_allclose(adaptive[1], GMM3.flow(X, VP, 1.0, 0.5), atol=1e-7)
    np.testing.assert_allclose(adaptive[2], exact, atol=1e-6)


def test_reverse_diffusion_has_the_moments() -> None:
    target = Gaussian([1.5], [[0.36]])
    sde = ReverseDiffusion(ProbabilityFlow(target.model(VP), VP))
    assert isinstance(sde, DriftDiffusion)
    noise = SampleNoise(0)
    x = integrate_sde(
        sde, noise(-1, torch.empty(20_000, 1, dtype=torch.float64)), np.linspace(1, 0.01, 200), noise
    )
    level = VP.level(0.01)
    assert float(x.mean()) == pytest.approx(1.5 * level.alpha, abs=0.02)
    assert float(x.var()) == pytest.approx(0.36 * level.alpha**2 + level.sigma**2, rel=0.05)
    # Without noise it is the flow.
    np.testing.assert_allclose(ReverseDiffusion(sde.flow, 0.0).drift(0.3, X), sde.flow(0.3, X), atol=1e-13)
    assert ReverseDiffusion(sde.flow, 0.0).diffusion(0.3, X) == 0
    with pytest.raises(ConfigError, match="all grow, or all fall"):
        integrate_sde(sde, X, [1.0, 0.5, 0.7], noise)
    with pytest.raises(ConfigError, match="two or more"):
        integrate_field(sde.flow, X, [1.0], step=0.1)


def test_velocity_of_flow_matching() -> None:
    flow = FlowMatching()
    model = GMM3.model(flow)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        noise = model(x, t)
        return noise - (x - t[:, None] * noise) / (1 - t[:, None])

    by_noise, by_velocity = (
        sample(m, flow, "dpm++3m", 20, x=X, prediction=p).x
        for m, p in ((model, "noise"), (velocity, "velocity"))
    )
    np.testing.assert_allclose(by_noise, by_velocity, atol=1e-11)
    # As a field it is its own probability flow.
    t = torch.full((9,), 0.4, dtype=torch.float64)
    np.testing.assert_allclose(ProbabilityFlow(model, flow)(0.4, X), velocity(X, t), atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian([0.0], [[-1.0]]), "negative"),
        (lambda: Gaussian([0.0, 1.0], [[1.0]]), "symmetric"),
        (lambda: Mixture1D((1.0,), (0.0, 1.0), (1.0,)), "as many of each"),
        (lambda: Mixture1D((0.0,), (0.0,), (1.0,)), "must be positive"),
        (lambda: GMM3.model(VP, "score"), "noise or data"),
        (lambda: StepControl(rtol=0.0), "rtol=0"),
    ],
)
def test_bad_targets_and_controls(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
