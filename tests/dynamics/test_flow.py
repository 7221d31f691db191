"""Flows of polynomial fields: compiled against NumPy and plain torch, derivatives against differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.dynamics import PolynomialODE, StencilODE, roll_out
from sciml.dynamics.polynomial_flow import PolynomialFlow, StencilFlow, roll_out_polynomial
from sciml.symbolic import PolynomialMap, monomial_exponents

needs_numba = pytest.mark.skipif(
    PolynomialFlow(np.eye(1, dtype=int), 1).kernels is None, reason="needs numba"
)


def random_field(
    d: int, degree: int, seed: int, batch: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    exponents = rng.permutation(monomial_exponents(d, degree))[: 2 + seed % 5]
    table = 0.3 * rng.normal(size=(len(exponents), d))
    return exponents, table, 0.5 * rng.normal(size=(batch, d)), rng.uniform(0.02, 0.1, (batch, 5))


@needs_numba
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 1000), st.sampled_from([1, 15, 16, 17, 40]))
def test_compiled_flow_is_that_of_numpy(d: int, degree: int, seed: int, batch: int) -> None:
    exponents, table, starts, lengths = random_field(d, degree, seed, batch)
    own, plain = PolynomialFlow(exponents, 3), PolynomialFlow(exponents, 3)
    plain.kernels = None
    rows, outputs = (index.ravel()[::2] for index in np.indices(table.shape))
    frames = own.frames(table, starts, lengths)
    assert np.allclose(frames, plain.frames(table, starts, lengths), rtol=0, atol=1e-13)
    found = own.sensitivities(table, rows, outputs, starts, lengths)
    assert np.allclose(found, plain.sensitivities(table, rows, outputs, starts, lengths), rtol=0, atol=1e-13)
    upstream = np.random.default_rng(seed).normal(size=frames.shape)
    for a, b in zip(
        own.adjoint(table, frames, lengths, upstream),
        plain.adjoint(table, frames, lengths, upstream),
        strict=True,
    ):
        assert np.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("compiled", [True, False])
def test_derivatives_are_those_of_the_discrete_states(compiled: bool) -> None:
    exponents, table, starts, lengths = random_field(2, 3, 4, 3)
    flow = PolynomialFlow(exponents, 2)
    if not compiled:
        flow.kernels = None
    t, s = torch.tensor(table, requires_grad=True), torch.tensor(starts, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda t, s: roll_out_polynomial(flow, t, s, torch.tensor(lengths)), (t, s)
    )
    rows, outputs = np.array([1]), np.array([0])
    found = flow.sensitivities(table, rows, outputs, starts, lengths)
    step = 1e-6
    more, less = table.copy(), table.copy()
    more[1, 0] += step
    less[1, 0] -= step
    difference = (flow.frames(more, starts, lengths) - flow.frames(less, starts, lengths)) / (2 * step)
    assert np.allclose(found[..., -1], difference, rtol=1e-7, atol=1e-9)


def test_results_do_not_depend_on_threads() -> None:
    exponents, table, starts, lengths = random_field(3, 2, 3, 100)
    flow, before = PolynomialFlow(exponents, 2), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            frames = flow.frames(table, starts, lengths)
            results.append((frames, *flow.adjoint(table, frames, lengths, frames)))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert (a == b).all()


@pytest.mark.parametrize("bias", [True, False])
def test_table_of_a_layer_is_its_expansion_and_its_flow_the_roll_out(bias: bool) -> None:
    torch.manual_seed(0)
    field = PolynomialODE(("x", "y", "z"), bias=bias)
    torch.nn.init.normal_(field.layers[0].C.weight, std=0.2)
    field.scale.copy_(torch.tensor([0.5, 2.0, 1.3]))
    field.rate.fill_(0.7)
    table = field.table()
    exponents = monomial_exponents(3, 2)
    difference = PolynomialMap(exponents, -table.detach().numpy(), field.variables) + field.polynomial()
    assert abs(difference.coefficients).max() < 1e-13
    flow = field.flow(5)
    assert flow is not None
    starts = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    times = [0.0, 0.1, 0.25]
    lengths = torch.tensor(np.diff(times)).expand(4, -1)
    fast = roll_out_polynomial(flow, table, starts, lengths)
    slow = roll_out(field, starts, times, substeps=5).transpose(0, 1)
    assert torch.allclose(fast, slow, rtol=0, atol=1e-12)
    weights = list(field.parameters())
    a = torch.autograd.grad(fast.square().sum(), weights)
    b = torch.autograd.grad(slow.square().sum(), weights)
    for x, y in zip(a, b, strict=True):
        assert torch.allclose(x, y, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("axes", "reach", "k"), [(1, 1, 1), (1, 2, 1), (1, 1, 2), (2, 1, 1)])
def test_stencil_flows(axes: int, reach: int, k: int) -> None:
    torch.manual_seed(1)
    names = [f"u{i}" for i in range(k)]
    field = StencilODE(names, axes=axes, reach=reach, bias=True)  # type: ignore[arg-type]
    torch.nn.init.normal_(field.layers[0].C.weight, std=0.1)
    field.scale.copy_(torch.rand(k) + 0.5)
    p, table = field.polynomial(), field.table().detach().numpy()
    exponents = monomial_exponents(len(p.variables), 2)
    assert abs((PolynomialMap(exponents, -table, p.variables) + p).coefficients).max() < 1e-13
    x = 0.3 * torch.randn(3, *[9] * axes, k, dtype=torch.float64)
    lengths = np.full((3, 2), 0.05)
    flow = field.flow(3)
    assert isinstance(flow, StencilFlow)
    frames = flow.frames(table, x.numpy(), lengths)
    slow = roll_out(field, x, [0.0, 0.05, 0.1], substeps=3).detach().numpy().swapaxes(0, 1)
    assert abs(frames - slow).max() < 1e-13
    rows, outputs = np.array([0, 2, 5]), np.array([0, k - 1, 0])
    found = flow.sensitivities(table, rows, outputs, x.numpy(), lengths)
    step = 1e-6
    for place, (row, output) in enumerate(zip(rows, outputs, strict=True), 1):
        more = table.copy()
        more[row, output] += step
        difference = (flow.frames(more, x.numpy(), lengths) - frames) / step
        assert np.allclose(found[..., place], difference, rtol=1e-4, atol=1e-6)
    flow.kernels = None
    plain = flow.sensitivities(table, rows, outputs, x.numpy(), lengths)
    assert np.allclose(found, plain, rtol=0, atol=1e-13)


def test_large_systems_go_without_sensitivities() -> None:
    assert PolynomialODE([f"x{i}" for i in range(20)]).flow(4) is None
    assert PolynomialODE(("x", "y"), layers=2).flow(4) is None
    assert PolynomialODE(("x", "y"), dtype=torch.float32).flow(4) is None
