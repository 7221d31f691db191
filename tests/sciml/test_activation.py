"""GELU: compiled kernels against PyTorch's own in double precision."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from sciml.operators import FNO, activation
from sciml.operators.activation import GELU, gelu, gelu_in_place

pytest.importorskip("numba")
X = torch.cat([torch.linspace(-10, 10, 400_001), torch.tensor([0.0, 5.6, -5.6, 6.0, -6.0, 1e-30, 3e38])])


def test_values() -> None:
    error = (gelu(X).double() - nn.functional.gelu(X.double())).abs()
    # Two units in the last place of x: where gelu is near zero, at negative x, it is a difference of close numbers.
    assert (error / X.double().abs().clamp(min=1e-30)).max() < 2.4e-7
    assert gelu(torch.tensor([-30.0, -5.7, 0.0])).tolist() == [0.0, 0.0, 0.0]
    assert (gelu(X)[X < 0] <= 0).all()
    assert gelu(torch.tensor([5.7, 30.0])).tolist() == [pytest.approx(5.7), 30.0]
    assert gelu(torch.tensor([float("nan"), float("inf")])).isnan().tolist() == [True, False]


def test_derivative() -> None:
    x, exact = X[:-1].clone().requires_grad_(), X[:-1].double().requires_grad_()
    weights = torch.linspace(-1, 1, len(x))
    (gelu(x) * weights).sum().backward()
    (nn.functional.gelu(exact) * weights.double()).sum().backward()
    assert (x.grad.double() - exact.grad).abs().max() < 4e-7
    (nan,) = torch.autograd.grad(gelu(x[:1] * math.nan), x, torch.ones(1))
    assert nan[0].isnan()


def test_place_and_threads_do_not_matter() -> None:
    whole = gelu(X)
    for start in (1, 2, 3, 5, 7, 11):
        assert torch.equal(gelu(X[start:]), whole[start:])
    x, weights = X.clone().requires_grad_(), torch.linspace(-1, 1, len(X))
    (one,) = torch.autograd.grad(gelu(x), x, weights)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(gelu(X), whole)
        assert torch.equal(torch.autograd.grad(gelu(x), x, weights)[0], one)
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


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script:DeprecationWarning", "ignore:There is a performance drop"
)
def test_models_under_transforms() -> None:
    """What stands for other tensors has no memory that a kernel could read, with and without gradients."""
    torch.manual_seed(0)
    model, a = FNO(modes=(4, 4), width=4, layers=2), torch.randn(2, 9, 9, 1)
    given = torch.randn_like(a)
    with torch.no_grad(), forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(model(forward_ad.make_dual(a, given))).tangent
    h = 1e-3
    quotient = (model.double()(a.double() + h * given) - model(a.double() - h * given)) / (2 * h)
    model.float()
    assert torch.allclose(tangent.double(), quotient, atol=1e-5)
    with torch.no_grad():
        each = torch.func.vmap(lambda one: model(one[None])[0])(a)
        assert torch.allclose(each, model(a), atol=1e-6)
        assert torch.allclose(torch.func.jvp(model, (a,), (given,))[1], tangent, atol=1e-6)
        assert torch.allclose(make_fx(model)(a)(a), model(a), atol=1e-6)
    a.requires_grad_()
    u = model(a)
    directions = torch.randn(3, *u.shape)
    (batched,) = torch.autograd.grad(u, a, directions, is_grads_batched=True, retain_graph=True)
    for direction, gradient in zip(directions, batched, strict=True):
        (single,) = torch.autograd.grad(u, a, direction, retain_graph=True)
        assert torch.allclose(gradient, single, atol=1e-6)


def test_a_change_in_place_is_seen() -> None:
    h = torch.ones(4, requires_grad=True)
    y = h * 1
    s = (y * y).sum()
    with torch.no_grad():
        gelu_in_place(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        s.backward()


@pytest.mark.parametrize("change", [Tensor.double, Tensor.bfloat16, lambda x: x[:-1].view(8, -1).T])
def test_all_else_is_pytorchs(change) -> None:
    x = change(X[:400_001])
    assert torch.equal(gelu(x), nn.functional.gelu(x))


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "kernels", lambda *arguments: None)
    assert torch.equal(GELU()(X), nn.functional.gelu(X))
