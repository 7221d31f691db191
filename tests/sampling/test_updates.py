"""Updates by one compiled pass against PyTorch's operations, and what both make of odd outputs."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sciml.errors import ConvergenceError
from sciml.sampling import SOLVERS, Mixture1D, Sampler, VPLinear, sample, updates
from sciml.solvers.compiled import kernels

VP = VPLinear()
GMM3 = Mixture1D((0.3, 0.5, 0.2), (-2.0, 0.5, 3.0), (0.5, 0.3, 0.8))
FIXED = [name for name, solver in SOLVERS.items() if solver.kind != "adaptive"]
# Neither a multiple of a vector's length nor of a block's.
SHAPE = 3, 1501

compiled = pytest.mark.skipif(kernels("fused", updates.__package__) is None, reason="needs the extra fast")


@pytest.fixture(params=[pytest.param("compiled", marks=compiled), "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(updates, "kernels", lambda *name: None)


def linear(x: Tensor, t: Tensor) -> Tensor:
    return 0.3 * x + t[:, None]


def found(
    solver: str, model: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype, **settings: object
) -> Tensor:
    return sample(model, VP, solver, 12, shape=SHAPE, dtype=dtype, **settings).x  # type: ignore[arg-type]


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", FIXED)
def test_one_pass_is_what_many_are(solver: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    advance = updates.Workspace.advance
    monkeypatch.setattr(
        updates.Workspace, "advance", lambda self, *given: (calls.append(1), advance(self, *given))[1]
    )
    hooks: list[dict[str, object]] = [{}, {"data_hook": lambda data, x, level: data.clamp(-1.5, 1.5)}]
    by_one = [found(solver, linear, dtype, **hook) for hook in hooks]
    assert not calls
    monkeypatch.setattr(updates, "kernels", lambda *name: None)
    for one, hook in zip(by_one, hooks, strict=True):
        many = found(solver, linear, dtype, **hook)
        assert calls
        assert float((one - many).abs().max()) <= 50 * torch.finfo(dtype).eps * float(many.abs().max())


@compiled
@pytest.mark.parametrize("solver", ["dpm++1", "unipc-3", "dpm-3s", "sde-dpm++2m"])
def test_outputs_of_any_form(solver: str) -> None:
    """Transposed, of another type, with gradients, or negated when read, in turn."""
    number = 0

    def model(x: Tensor, t: Tensor) -> Tensor:
        nonlocal number
        number += 1
        output = linear(x, t)
        forms = (
            output,
            output.T.contiguous().T,
            torch.nn.Parameter(output),
            output.double(),
            output.clone().requires_grad_(),
            torch._neg_view(-output),
        )
        return forms[number % 6]

    plain = found(solver, linear, torch.float32)
    torch.testing.assert_close(found(solver, model, torch.float32), plain, rtol=1e-4, atol=1e-5)


def test_the_state_itself_may_be_the_output(way: None) -> None:
    for solver in FIXED:
        given = found(solver, lambda x, t: x, torch.float64, prediction="data")
        copied = found(solver, lambda x, t: x.clone(), torch.float64, prediction="data")
        assert torch.equal(given, copied)


@compiled
def test_threads_change_nothing() -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(sample(linear, VP, "sde-dpm++2m", 4, shape=(2, 130_001)).x)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("solver", ["dpm++1", "dpm++3m", "unipc-3", "dpm-2s"])
def test_what_is_not_finite_is_found_at_its_step(solver: str, bad: float, way: None) -> None:
    per_step = 2 if solver == "dpm-2s" else 1
    calls = 0

    def model(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        output = linear(x, t)
        if calls == 5:
            output[1, 1400] = bad
        return output

    step = (5 + per_step - 1) // per_step
    with pytest.raises(ConvergenceError, match=re.escape(f"not finite in step {step} of 12")):
        found(solver, model, torch.float32)


def test_noise_that_is_not_finite_is_not_laid_to_the_model(way: None) -> None:
    with pytest.raises(ConvergenceError, match="a state is not finite, the model's outputs are"):
        found(
            "sde-dpm++1",
            linear,
            torch.float32,
            noise=lambda step, x: torch.full_like(x, torch.nan if step == 11 else 0.1),
        )


def test_memory_is_not_kept_beyond_inference_mode(way: None) -> None:
    sampler = Sampler(linear, VP, "dpm++2m", 5)
    x = torch.linspace(-1, 1, 6)[:, None]
    with torch.inference_mode():
        inferred = sampler(x).x
    assert torch.equal(sampler(x).x, inferred)
    with torch.inference_mode():
        assert torch.equal(sampler(x).x, inferred)
