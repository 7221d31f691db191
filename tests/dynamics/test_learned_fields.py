"""Roll-outs, models, multiple shooting: orders, exact elimination, recovery of known systems, bad input."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from sciml.dynamics import (
    LearnedField,
    NeuralODE,
    PolynomialODE,
    Segments,
    Shooting,
    StencilODE,
    VectorField,
    integrate_field,
    levenberg_marquardt,
    roll_out,
    segments,
)
from sciml.dynamics.gradient_descent import descend, segment_loss
from sciml.errors import ConfigError, ConvergenceError, DatasetFormatError

TRUE = {"x": {"x": 1.56, "x y": -1.12}, "y": {"y": -3.10, "x y": 1.21}}


def predators(t: float, z: torch.Tensor) -> torch.Tensor:
    x, y = z.unbind(-1)
    return torch.stack([1.56 * x - 1.12 * x * y, -3.10 * y + 1.21 * x * y], -1)


@pytest.fixture(scope="module")
def orbit() -> tuple[np.ndarray, np.ndarray]:
    times = np.linspace(0, 6, 100)
    states = roll_out(predators, torch.ones(1, 2, dtype=torch.float64), times, substeps=60)
    return times, states.numpy().swapaxes(0, 1)


def fitted(
    model: LearnedField, states: np.ndarray, times: np.ndarray, window: int = 9, substeps: int = 8
) -> float:
    model.fit_scales(states, times)
    model.fit_last_map(states, times)
    problem = Shooting(model, segments(states, times, window, 1), substeps, False)
    *_, last = levenberg_marquardt(problem, problem.start())
    problem.write(last)
    return last.cost


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lotka_volterra_without_noise(orbit: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    times, states = orbit
    torch.manual_seed(seed)
    model = PolynomialODE(("x", "y"))
    assert fitted(model, states, times) < 1e-16
    p = model.polynomial()
    for output, terms in enumerate(TRUE.values()):
        found = p.terms(output)
        for name in ("1", "x", "y", "x^2", "x y", "y^2"):
            limit = 1e-5 if name in terms else 1e-6
            assert abs(found.get(name, 0.0) - terms.get(name, 0.0)) < limit


def test_lorenz_without_noise() -> None:
    def lorenz(t: float, w: torch.Tensor) -> torch.Tensor:
        x, y, z = w.unbind(-1)
        return torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)

    times = np.linspace(0, 4, 401)
    start = torch.tensor([[-8.0, 7.0, 27.0]], dtype=torch.float64)
    states = roll_out(lorenz, start, times, substeps=20).numpy().swapaxes(0, 1)
    torch.manual_seed(0)
    model = PolynomialODE(("x", "y", "z"))
    fitted(model, states, times, 5)
    p = model.polynomial()
    assert p.terms(1)["x z"] == pytest.approx(-1, abs=1e-5)
    assert p.terms(2)["x y"] == pytest.approx(1, abs=1e-5)
    assert p.terms(2)["z"] == pytest.approx(-8 / 3, abs=1e-4)
    others = [p.terms(0)[name] for name in ("x y", "x z", "y z", "x^2", "y^2", "z^2")]
    assert max(map(abs, others)) < 1e-5


def test_two_layers_hold_a_cubic() -> None:
    times = np.linspace(0, 3, 61)
    starts = torch.tensor([[-1.6], [-0.4], [0.2], [1.8]], dtype=torch.float64)
    states = roll_out(lambda t, x: x - x**3, starts, times, substeps=20).numpy().swapaxes(0, 1)
    torch.manual_seed(0)
    model = PolynomialODE(("x",), layers=2)
    model.fit_scales(states, times)
    model.fit_last_map(states, times)
    problem = Shooting(model, segments(states, times, 5, 4), 4, False)
    assert problem.flow is None
    *_, last = levenberg_marquardt(problem, problem.start(), iterations=60)
    problem.write(last)
    p = model.polynomial()
    x = np.linspace(-1.6, 1.8, 50)[:, None]
    assert p.degree == 4
    assert abs(p(x) - (x - x**3)).max() < 2e-3


def test_scheme_s_own_stencil_is_found_to_rounding() -> None:
    n, nu, rng = 32, 0.02, np.random.default_rng(0)
    h = 1 / n

    def scheme(t: float, u: torch.Tensor) -> torch.Tensor:
        up, um = u.roll(-1, 1), u.roll(1, 1)
        return -(up**2 - um**2) / (4 * h) + nu * (up - 2 * u + um) / h**2

    times = np.linspace(0, 0.05, 6)
    start = torch.as_tensor(0.3 * rng.normal(size=(6, n, 1)))
    states = roll_out(scheme, start, times, substeps=8).numpy().swapaxes(0, 1)
    torch.manual_seed(0)
    model = StencilODE(("u",))
    assert fitted(model, states, times, 3) < 1e-20
    true = {"u[-1]": nu / h**2, "u[0]": -2 * nu / h**2, "u[1]": nu / h**2}
    true |= {"u[-1]^2": 0.25 / h, "u[1]^2": -0.25 / h}
    found = model.polynomial().terms()
    for name in {*true, *found}:
        assert abs(found.get(name, 0.0) - true.get(name, 0.0)) < 1e-8
    # The same at every node: a larger grid of the same spacing needs no training.
    large = torch.as_tensor(0.3 * rng.normal(size=(1, 2 * n, 1)))
    assert torch.allclose(model(0.0, large), scheme(0.0, large), atol=1e-8)


def test_free_starts_are_eliminated_exactly(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    noisy = states + 0.02 * np.random.default_rng(0).normal(size=states.shape)
    torch.manual_seed(0)
    model = PolynomialODE(("x", "y"), hidden=3)
    model.fit_scales(noisy, times)
    model.fit_last_map(noisy, times)
    data = segments(noisy[:, :20], times[:20], 5)
    problem = Shooting(model, data, 2, True)
    state = replace(problem.start(), damping=0.3)
    normal = problem.normal(state)
    moved, promised = problem._moved(state, normal, 0.3)
    # The whole system, with all unknowns together.
    errors, of_theta, of_start = problem.jacobians(state.theta, state.starts, data)
    assert of_start is not None
    p, (b, d, r) = len(state.theta), of_start.shape
    jacobian = torch.zeros(b, r, p + b * d, dtype=torch.float64)
    jacobian[..., :p] = of_theta.permute(1, 2, 0)
    for k in range(b):
        jacobian[k, :, p + k * d : p + (k + 1) * d] = of_start[k].T
    jacobian = jacobian.flatten(0, 1)
    h, g = jacobian.T @ jacobian, jacobian.T @ errors.flatten()
    weight = 0.3 * h.diagonal()
    weight[:p] += 0.3 * 1e-12 * h.diagonal()[:p].sum()
    change = torch.linalg.solve(h + torch.diag(weight), -g)
    assert torch.allclose(moved.theta - state.theta, change[:p], rtol=1e-6, atol=1e-9)
    assert torch.allclose((moved.starts - state.starts).flatten(), change[p:], rtol=1e-6, atol=1e-9)
    # The linear model's fall of the cost.
    linear = (errors.flatten() + jacobian @ change).square().sum() / problem.count
    assert state.cost - float(linear) == pytest.approx(promised, rel=1e-6)


def test_jacobians_of_the_two_ways_agree(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    torch.manual_seed(0)
    model = PolynomialODE(("x", "y"))
    model.fit_scales(states, times)
    model.fit_last_map(states, times)
    data = segments(states[:, :12], times[:12], 4)
    fast, slow = Shooting(model, data, 3, True), Shooting(model, data, 3, True)
    slow.flow = None
    theta, starts = fast.theta(), data.states[:, 0]
    for a, b in zip(fast.jacobians(theta, starts, data), slow.jacobians(theta, starts, data), strict=True):
        assert a is not None
        assert b is not None
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11)


def test_a_fit_goes_on_from_any_step(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    torch.manual_seed(0)
    model = PolynomialODE(("x", "y"))
    model.fit_scales(states, times)
    problem = Shooting(model, segments(states, times, 5, 1), 4, False)
    whole = list(levenberg_marquardt(problem, problem.start(), iterations=12))
    again = list(levenberg_marquardt(problem, whole[3], iterations=12))
    assert [s.cost for s in again] == [s.cost for s in whole[4:]]
    assert torch.equal(again[-1].theta, whole[-1].theta)
    assert all(b.cost < a.cost or b.done for a, b in itertools.pairwise(whole))


def test_descent_goes_on_and_learns(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    torch.manual_seed(0)
    model = NeuralODE(("x", "y"), width=24)
    model.fit_scales(states, times)
    model.fit_last_map(states, times)
    problem = Shooting(model, segments(states, times, 5, 1), 2, False)
    options = {"epochs": 25, "batch_size": 32, "lr": 5e-3, "seed": [0]}
    whole = list(descend(problem, None, **options))
    assert whole[-1].cost < 0.2 * whole[0].cost
    again = list(descend(problem, whole[9], **options))
    assert torch.equal(again[-1].theta, whole[-1].theta)


def test_descent_is_adam_s(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    torch.manual_seed(0)
    model = PolynomialODE(("x", "y"))
    model.fit_scales(states, times)
    model.fit_last_map(states, times)
    data = segments(states, times, 5, 1)
    problem = Shooting(model, data, 2, False)
    start = problem.theta()
    *_, last = descend(problem, None, epochs=4, batch_size=1000, lr=1e-3, seed=[0])
    theta = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([theta], 1e-3)
    for step in range(4):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + np.cos(np.pi * step / 4))
        problem.write(replace(last, theta=theta.detach()))
        gradient = torch.autograd.grad(segment_loss(problem, data), list(model.parameters()))
        theta.grad = torch.cat([g.flatten() for g in gradient])
        optimiser.step()
    assert torch.allclose(last.theta, theta.detach(), rtol=1e-9, atol=1e-12)


def test_stencils_with_free_starts() -> None:
    torch.manual_seed(0)
    model = StencilODE(("u",))
    states = 0.3 * np.random.default_rng(0).normal(size=(2, 3, 8, 1))
    times = np.array([0.0, 0.1, 0.2])
    model.fit_scales(states, times)
    model.fit_last_map(states, times)
    data = segments(states, times, 3)
    free, given = Shooting(model, data, 2, True), Shooting(model, data, 2, False)
    errors, of_theta, of_start = free.jacobians(free.theta(), data.states[:, 0], data)
    assert of_start is not None
    assert of_start.shape == (2, 8, 24)
    # What does not depend on whether starts are free is that of the compiled loop.
    expected = given.jacobians(given.theta(), data.states[:, 0], data)
    assert torch.allclose(errors[:, 8:], expected[0], atol=1e-12)
    assert torch.allclose(of_theta[..., 8:], expected[1], rtol=1e-9, atol=1e-11)
    first = free.start()
    assert free.step(first).cost < first.cost


def test_compiled_gradients_are_those_of_plain_torch(orbit: tuple[np.ndarray, np.ndarray]) -> None:
    times, states = orbit
    torch.manual_seed(0)
    model = PolynomialODE(("x", "y"))
    model.fit_scales(states, times)
    model.fit_last_map(states, times)
    data = segments(states, times, 6)
    fast, slow = Shooting(model, data, 3, False), Shooting(model, data, 3, False)
    slow.flow = None
    gradients = [
        torch.autograd.grad(segment_loss(problem, data), list(model.parameters())) for problem in (fast, slow)
    ]
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-14)


def test_order_of_roll_outs_and_fields_of_the_suite() -> None:
    model = PolynomialODE(("x", "y"))
    assert isinstance(model, VectorField)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.layers[0].C.weight, std=0.3)
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    with torch.no_grad():
        exact = integrate_field(model, x, [0.0, 2.0], tolerance=1e-12)[-1]
        steps = np.array([4, 8, 16, 32, 64])
        errors = [float((roll_out(model, x, [0.0, 2.0], substeps=int(n))[-1] - exact).norm()) for n in steps]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(order - 4) < 0.3
    backward = integrate_field(model, exact, [2.0, 0.0], tolerance=1e-11)[-1]
    assert torch.allclose(backward, x, atol=1e-8)


def test_blow_up_says_when_and_where() -> None:
    # 1 / (1 - x_0 t): infinite at t = 1 and t = 0.8.
    start = torch.tensor([1.0, 1.25], dtype=torch.float64)
    with pytest.raises(ConvergenceError) as caught:
        roll_out(lambda t, x: x**2, start, [0.0, 0.25, 0.5, 0.75, 1.0], substeps=40)
    assert "not finite at t=1; at t=0.75 the state was (4, 20), largest entry 20" in str(caught.value)


@pytest.mark.parametrize("kind", [PolynomialODE, NeuralODE, StencilODE])
def test_files(kind: type[LearnedField], tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(3)
    model = kind(("u", "v"))
    model.scale.copy_(torch.tensor([2.0, 3.0]))
    torch.nn.init.normal_(model.last.weight)
    model.save(tmp_path / "model.safetensors")
    again = LearnedField.load(tmp_path)
    x = torch.randn(1, 8, 2, dtype=torch.float64)
    assert type(again) is kind
    assert torch.equal(again(0.0, x), model(0.0, x))
    other = NeuralODE if kind is not NeuralODE else PolynomialODE
    with pytest.raises(DatasetFormatError, match=f"holds a {kind.__name__}, not a {other.__name__}"):
        other.load(tmp_path)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: PolynomialODE(()), "different names"),
        (lambda: PolynomialODE(("x", "x")), "different names"),
        (lambda: PolynomialODE(("x",), layers=0), "layers=0"),
        (lambda: StencilODE(("u",), axes=3), "axes=3"),  # type: ignore[arg-type]
        (lambda: segments(np.zeros((1, 5, 2)), np.arange(5.0), 6), "window=6: choose 2 to 5"),
        (lambda: segments(np.zeros((1, 5, 2)), np.arange(4.0), 2), "expected (trajectories, 4 times"),
        (
            lambda: segments(np.zeros((1, 3, 1)), np.array([0.0, 2.0, 1.0]), 2),
            "times: 1 (number 2) follows 2",
        ),
        (lambda: segments(np.zeros((1, 3, 1)), np.array([0.0, np.nan, 1.0]), 2), "number 1 is not finite"),
        (
            lambda: segments(np.where(np.arange(6).reshape(1, 6, 1) == 4, np.nan, 0), np.arange(6.0), 2),
            "trajectory 0, frame 4 (t=4) is not finite",
        ),
        (lambda: segments(np.zeros((1, 5, 2)), np.arange(5.0), 2, -1), "stride=-1"),
        (
            lambda: Shooting(
                PolynomialODE(("x",), dtype=torch.float32),
                segments(np.zeros((1, 5, 1)), np.arange(5.0), 2),
                1,
                False,
            ),
            "the model is of torch.float32",
        ),
        (lambda: PolynomialODE(("x",)).fit_scales(np.ones((1, 4, 2)), np.arange(4.0)), "1 components"),
        (
            lambda: PolynomialODE(("x",)).fit_scales(np.full((1, 4, 1), np.nan), np.arange(4.0)),
            "4 numbers are not",
        ),
        (lambda: roll_out(lambda t, x: x, torch.ones(1), [0.0]), "give two or more"),
        (lambda: roll_out(lambda t, x: x, torch.ones(1), [0.0, 1.0], substeps=0), "substeps=0"),
        (
            lambda: Shooting(
                PolynomialODE(("x",)), Segments(torch.zeros(1, 3, 2), torch.ones(1, 2)), 1, False
            ),
            "0 axes and 1 components",
        ),
        (
            lambda: PolynomialODE(("x", "y")).fit_scales(np.ones((1, 3, 2)) * [0, 1], np.arange(3.0)),
            "'x' is zero in all training data",
        ),
    ],
)
def test_bad_input_is_named(make, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as caught:
        make()
    assert text in str(caught.value)
