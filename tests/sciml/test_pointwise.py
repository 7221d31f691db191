"""Pointwise steps: values, gradients and gradients of gradients against PyTorch's own steps, and what they keep."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sciml.operators import FNO
from sciml.operators.pointwise import activated_branches, activated_linear

Step = Callable[..., tuple[Tensor, ...]]


def exact_linear(x: Tensor, shift: Tensor, weight: Tensor, start: Tensor) -> tuple[Tensor, ...]:
    return (torch.nn.functional.gelu(x + shift) @ weight.T + start,)


def exact_branches(x: Tensor, weight: Tensor, gate: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
    v = torch.nn.functional.gelu(x)
    return v, v @ weight.T, v * gate + shift


def our_linear(x: Tensor, shift: Tensor, weight: Tensor, start: Tensor) -> tuple[Tensor, ...]:
    # A start of the result's shape is overwritten, which leaves of a graph must not be.
    return (activated_linear(x, shift, weight, start * 1 if start.ndim > 1 else start),)


STEPS = {
    "bias": (our_linear, exact_linear, [(6, 5, 4), (4,), (3, 4), (3,)]),
    "onto": (our_linear, exact_linear, [(6, 5, 4), (4,), (3, 4), (6, 5, 3)]),
    "branches": (activated_branches, exact_branches, [(6, 5, 4), (3, 4), (4,), (4,)]),
}


def arguments(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("name", STEPS)
def test_values_and_gradients(name: str) -> None:
    ours, exact, shapes = STEPS[name]
    # Enough rows for several parts; their sums are of 200,000 numbers in single precision.
    for rows, tolerance in ((6, 2e-6), (40_000, 3e-5)):
        given = [(rows, *shape[1:]) if len(shape) > 2 else shape for shape in shapes]
        single, double = arguments(given, torch.float32), arguments(given, torch.float64)
        double = [x.detach().double().requires_grad_() for x in single]
        results, expected = ours(*single), exact(*double)
        for result, value in zip(results, expected, strict=True):
            assert torch.allclose(result.double(), value, rtol=1e-5, atol=3e-6)
        vectors = [torch.randn_like(value) for value in expected]
        found = torch.autograd.grad(results, single, [vector.float() for vector in vectors])
        wanted = torch.autograd.grad(expected, double, vectors)
        for gradient, value in zip(found, wanted, strict=True):
            assert (gradient.double() - value).norm() < tolerance * value.norm()


@pytest.mark.parametrize("name", STEPS)
def test_derivatives_of_any_order(name: str) -> None:
    ours, _, shapes = STEPS[name]
    inputs = arguments(shapes, torch.float64)
    assert torch.autograd.gradcheck(ours, inputs)
    assert torch.autograd.gradgradcheck(ours, inputs)
    assert torch.autograd.gradcheck(ours, inputs, check_batched_grad=True)


@pytest.mark.parametrize("name", STEPS)
def test_without_gradients(name: str) -> None:
    ours, exact, shapes = STEPS[name]
    inputs = arguments(shapes, torch.float32)
    expected = exact(*inputs)
    with torch.no_grad():
        results = ours(*inputs)
    for result, value in zip(results, expected, strict=True):
        assert torch.allclose(result, value, atol=1e-6)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_order_of_axes_in_memory(name: str, dtype: torch.dtype) -> None:
    ours, exact, shapes = STEPS[name]
    first, *others = arguments(shapes, dtype)
    for x in (
        first.detach().transpose(0, 1).contiguous().transpose(0, 1),
        first.detach()[:, :1].expand(-1, 5, -1),
    ):
        inputs = [x.requires_grad_(), *others]
        results, expected = ours(*inputs), exact(*inputs)
        total, wanted = (sum(part.square().sum() for part in parts) for parts in (results, expected))
        for gradient, value in zip(
            torch.autograd.grad(total, inputs), torch.autograd.grad(wanted, inputs), strict=True
        ):
            assert torch.allclose(gradient, value, rtol=1e-4, atol=1e-4)


def test_some_gradients_only() -> None:
    x, shift, weight, start = arguments([(6, 5, 4), (4,), (3, 4), (3,)], torch.float64)
    for wanted in ([x], [weight], [x, start], [shift]):
        (ours,), (exact,) = our_linear(x, shift, weight, start), exact_linear(x, shift, weight, start)
        for one, other in zip(
            torch.autograd.grad(ours.sum(), wanted), torch.autograd.grad(exact.sum(), wanted), strict=True
        ):
            assert torch.allclose(one, other)
    x = x.detach()
    v, mixed, gated = activated_branches(x, weight, None, None)
    assert gated is None
    assert torch.allclose(torch.autograd.grad(mixed.sum(), weight)[0], v.sum((0, 1)).expand(3, 4))


def kept(model: FNO, a: Tensor) -> int:
    """Numbers that a forward pass keeps for its gradients, parameters apart."""
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    memory: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            memory[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(a)
    return sum(memory.values())


def test_arguments_of_activations_are_all_that_is_kept() -> None:
    """Of each layer after the first one its argument, and that of its channel MLP's activation."""
    torch.manual_seed(0)
    numbers = 2 * 32 * 32 * 16
    sizes = []
    for layers in (3, 4):
        model = FNO(
            modes=(4, 4),
            width=16,
            layers=layers,
            periodic=(True, True),
            channel_mlp=0.5,
            channel_mlp_skip="gate",
        )
        sizes.append(kept(model, torch.randn(2, 32, 32, 1)))
    # Two of the layer's width, one of half of it, and a few coefficients.
    assert 2.5 * numbers <= sizes[1] - sizes[0] < 2.7 * numbers
