"""GELU: compiled kernels against PyTorch's own in double precision."""

import pytest
import torch
from torch import Tensor, nn

from sciml.operators import activation
from sciml.operators.activation import GELU, gelu, gelu_in_place

pytest.importorskip("numba")
X = torch.cat([torch.linspace(-10, 10, 400_001), torch.tensor([0.0, 5.6, -5.6, 6.0, -6.0, 1e-30, 3e38])])


def test_values() -> None:
    error = (gelu(X).double() - nn.functional.gelu(X.double())).abs()
    # Two units in the last place of x: where gelu is near zero, at negative x, it is a difference of close numbers.
    assert (error / X.double().abs().clamp(min=1e-30)).max() < 2.4e-7
    assert gelu(torch.tensor([-30.0, -5.7, 0.0])).tolist() == [0.0, 0.0, 0.0]
    assert gelu(torch.tensor([5.7, 30.0])).tolist() == [pytest.approx(5.7), 30.0]
    assert gelu(torch.tensor([float("nan"), float("inf")])).isnan().tolist() == [True, False]


def test_derivative() -> None:
    x, exact = X[:-1].clone().requires_grad_(), X[:-1].double().requires_grad_()
    weights = torch.linspace(-1, 1, len(x))
    (gelu(x) * weights).sum().backward()
    (nn.functional.gelu(exact) * weights.double()).sum().backward()
    assert (x.grad.double() - exact.grad).abs().max() < 4e-7


def test_place_and_threads_do_not_matter() -> None:
    whole = gelu(X)
    for start in (1, 2, 3, 5, 7, 11):
        assert torch.equal(gelu(X[start:]), whole[start:])
    x = X.clone().requires_grad_()
    (one,) = torch.autograd.grad(gelu(x).sum(), x)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(gelu(X), whole)
        assert torch.equal(torch.autograd.grad(gelu(x).sum(), x)[0], one)
    finally:
        torch.set_num_threads(threads)


def test_in_place_only_without_gradients() -> None:
    x = X.clone()
    with torch.no_grad():
        assert gelu_in_place(x) is x
    assert torch.equal(x, gelu(X))
    kept = X.clone().requires_grad_()
    gelu_in_place(kept)
    assert torch.equal(kept, X)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_transforms() -> None:
    def total(v: Tensor) -> Tensor:
        return gelu(v).sum()

    def exact(v: Tensor) -> Tensor:
        return nn.functional.gelu(v).sum()

    torch.manual_seed(0)
    x = torch.randn(3, 5)
    for transform in (torch.func.grad, torch.func.hessian, torch.func.jacfwd):
        assert torch.allclose(transform(total)(x), transform(exact)(x), atol=1e-6)
    each = torch.func.vmap(torch.func.grad(total))(x)
    assert torch.allclose(each, torch.func.grad(exact)(x), atol=1e-6)


@pytest.mark.parametrize("change", [Tensor.double, Tensor.bfloat16, lambda x: x[:-1].view(8, -1).T])
def test_all_else_is_pytorchs(change) -> None:
    x = change(X[:400_001])
    assert torch.equal(gelu(x), nn.functional.gelu(x))


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "_kernels", lambda: None)
    assert torch.equal(GELU()(X), nn.functional.gelu(X))
