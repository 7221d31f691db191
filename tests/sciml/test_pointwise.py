"""Pointwise steps: values, gradients and gradients of gradients against PyTorch's own steps, and what they keep."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.utils import prune

from sciml.operators import FNO
from sciml.operators.fno import Skip
from sciml.operators.fourier import TruncatedFourier
from sciml.operators.pointwise import branches, pointwise_mlp

Step = Callable[..., tuple[Tensor, ...]]


def exact_mlp(x: Tensor, first: Tensor, bias: Tensor, second: Tensor, start: Tensor) -> tuple[Tensor, ...]:
    hidden = torch.nn.functional.gelu(x @ first.T + bias)
    return (hidden @ second.T + start,)


def exact_activated(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    return exact_mlp(torch.nn.functional.gelu(x), *others)


TRANSFORM = TruncatedFourier((3,), (False,), 0.0), (5,)


def exact_branches(
    x: Tensor, weight: Tensor, bias: Tensor, gate: Tensor, shift: Tensor
) -> tuple[Tensor, ...]:
    return TRANSFORM[0].analyse(x, TRANSFORM[1]), x @ weight.T + bias, x * gate + shift


def exact_activated_branches(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    return exact_branches(torch.nn.functional.gelu(x), *others)


def our_branches(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    return branches(x, *others, TRANSFORM)


def our_activated_branches(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    return branches(x, *others, TRANSFORM, activate=True)


def our_mlp(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    return (pointwise_mlp(x, *others),)


def our_activated(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    return (pointwise_mlp(x, *others, activate=True),)


def onto_result(*others: Tensor) -> tuple[Tensor, ...]:
    """Onto what another step made, which is overwritten."""
    return (pointwise_mlp(*others[:-1], others[-1] * 1, activate=True),)


def onto_view(*others: Tensor) -> tuple[Tensor, ...]:
    """Onto a view of that, whose memory belongs to another tensor, as that of most linear layers does."""
    start = others[-1]
    return (pointwise_mlp(*others[:-1], (start * 1).flatten().view(start.shape), activate=True),)


def mlp(*sizes: int, onto: bool = False) -> list[tuple[int, ...]]:
    """Shapes of the arguments of an MLP, of channels in, hidden and out."""
    into, hidden, out = sizes
    return [(6, 5, into), (hidden, into), (hidden,), (out, hidden), (6, 5, out) if onto else (out,)]


STEPS = {
    "bias": (our_mlp, exact_mlp, mlp(4, 3, 2)),
    "bias, activated": (our_activated, exact_activated, mlp(4, 8, 2)),
    "onto leaf": (our_activated, exact_activated, mlp(4, 10, 3, onto=True)),
    "onto result": (onto_result, exact_activated, mlp(4, 3, 2, onto=True)),
    "onto view": (onto_view, exact_activated, mlp(4, 3, 2, onto=True)),
    # Of equal widths a gradient given to the wrong tensor fits.
    "onto view, square": (onto_view, exact_activated, mlp(4, 4, 4, onto=True)),
    "branches": (our_branches, exact_branches, [(6, 5, 4), (3, 4), (3,), (4,), (4,)]),
    "branches, activated": (
        our_activated_branches,
        exact_activated_branches,
        [(6, 5, 4), (3, 4), (3,), (4,), (4,)],
    ),
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_some_gradients_only(dtype: torch.dtype) -> None:
    inputs = arguments(mlp(4, 3, 2), dtype)
    for chosen in ([0], [1], [2], [3], [4], [0, 4], [1, 3]):
        wanted = [inputs[one] for one in chosen]
        found = torch.autograd.grad(our_activated(*inputs)[0].square().sum(), wanted)
        expected = torch.autograd.grad(exact_activated(*inputs)[0].square().sum(), wanted)
        frozen = [x if one in chosen else x.detach() for one, x in enumerate(inputs)]
        loss = our_activated(*frozen)[0].square().sum()
        again = torch.autograd.grad(loss, wanted, create_graph=True)
        for values in zip(found, expected, again, strict=True):
            assert torch.allclose(values[0], values[1], rtol=1e-5, atol=1e-5)
            assert torch.allclose(values[2], values[1], rtol=1e-5, atol=1e-5)
        loss.backward()
        assert all((x.grad is not None) == (one in chosen) for one, x in enumerate(frozen))
        for x in inputs:
            x.grad = None
    x, weight, bias = arguments([(6, 5, 4), (3, 4), (3,)], dtype)
    _, mixed, gated = branches(x.detach(), weight, bias, None, None, TRANSFORM)
    assert gated is None
    assert torch.allclose(torch.autograd.grad(mixed.sum(), weight)[0], x.sum((0, 1)).expand(3, 4), atol=1e-5)


def test_hooks_see_each_gradient_once() -> None:
    inputs = arguments(mlp(4, 3, 2), torch.float64)
    (expected,) = torch.autograd.grad(exact_mlp(*inputs)[0].sum(), inputs[1])
    inputs[1].register_hook(lambda gradient: 2 * gradient)
    for nested in (False, True):
        (found,) = torch.autograd.grad(our_mlp(*inputs)[0].sum(), inputs[1], create_graph=nested)
        assert torch.allclose(found, 2 * expected)


SKIPS = ("linear", "identity", "gate", "none")


@pytest.mark.parametrize("inner", SKIPS)
@pytest.mark.parametrize("outer", [None, *SKIPS])
def test_gradients_of_whole_models(inner: Skip, outer: Skip | None) -> None:
    """Those that are recorded against those that `torch.func` finds through PyTorch's own steps."""
    for norm, weights in (("none", "dense"), ("group", "dense"), ("none", "separable")):
        torch.manual_seed(0)
        model = FNO(
            modes=(3, 4),
            width=4,
            layers=3,
            projection_width=5,
            lifting_width=4,
            skip=inner,
            channel_mlp=1.0 if outer else 0.0,
            channel_mlp_skip=outer or "gate",
            norm=norm,
            weights=weights,
        ).double()
        a = torch.randn(2, 6, 7, 1, dtype=torch.float64)
        parameters = dict(model.named_parameters())

        def loss(values: dict[str, Tensor], model: FNO = model, a: Tensor = a) -> Tensor:
            return torch.func.functional_call(model, values, (a,)).square().sum()

        expected = torch.func.grad(loss)({name: p.detach() for name, p in parameters.items()})
        recorded = model(a)
        recorded.square().sum().backward()
        for name, parameter in parameters.items():
            assert torch.allclose(parameter.grad, expected[name], rtol=1e-8, atol=1e-10), (
                norm,
                weights,
                name,
            )
        with torch.no_grad():
            assert torch.allclose(model(a), recorded, atol=1e-12)


def test_what_hooks_and_callers_keep_is_not_overwritten() -> None:
    torch.manual_seed(0)
    model = FNO(modes=(4, 4), width=8, layers=3)
    a, outputs = torch.randn(2, 9, 9, 1), []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        layer.spectral.register_full_backward_hook(lambda module, given, wanted: None)
    model(a).sum().backward()
    with torch.no_grad():
        model(a)
    for recorded, plain in zip(outputs[:3], outputs[3:], strict=True):
        assert torch.allclose(recorded, plain, atol=1e-5)
    with torch.no_grad():
        v = torch.randn(2, 11, 11, 8)
        copy = v.clone()
        model.layers[1](v, (9, 9))
    assert torch.equal(v, copy)


def test_hooks_of_all_parts_are_called() -> None:
    torch.manual_seed(0)
    model = FNO(modes=(4, 4), width=8, layers=2, lifting_width=4, channel_mlp=0.5, periodic=(True, True))
    a, calls = torch.randn(2, 9, 9, 1), []
    expected = model(a)
    parts = [part for part in model.modules() if not isinstance(part, torch.nn.ModuleList)]
    for part in parts:
        part.register_forward_hook(lambda part, inputs, output: calls.append((part, output, output.clone())))
    for gradients in (True, False):
        calls.clear()
        with torch.set_grad_enabled(gradients):
            assert torch.allclose(model(a), expected, atol=1e-6)
        called = [part for part, *_ in calls]
        assert {id(part) for part in called} == {id(part) for part in parts}
        assert len(called) == len(parts)
        # Activations work in place where no gradients are recorded.
        assert all(
            torch.equal(output, copy) for part, output, copy in calls if not isinstance(part, torch.nn.Linear)
        )


def test_pruned_matrices_are_those_that_are_used() -> None:
    model = FNO(modes=(4, 4), width=8, layers=2)
    a = torch.randn(2, 9, 9, 1)
    prune.random_unstructured(model.layers[0].skip, "weight", 0.5)
    for _ in range(2):
        model(a).square().sum().backward()
    assert (model.layers[0].skip.weight_orig.grad == 0).float().mean() >= 0.5


def test_frozen_parts_and_gradients_of_gradients() -> None:
    torch.manual_seed(0)
    model = FNO(modes=(4, 4), width=8, layers=3, periodic=(True, True), channel_mlp=0.5).double()
    a = torch.randn(2, 9, 9, 1, dtype=torch.float64)
    parameters = [*model.layers.parameters(), *model.projection.parameters()]
    expected = torch.autograd.grad(model(a).square().sum(), parameters)
    model.lifting.requires_grad_(False)
    found = torch.autograd.grad(model(a).square().sum(), parameters, create_graph=True)
    assert all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))
    total = sum(gradient.square().sum() for gradient in found)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(total, parameters))


def test_gradients_under_autocast_of_steps_without() -> None:
    torch.manual_seed(0)
    model = FNO(modes=(4, 4), width=8, layers=2, channel_mlp=0.5)
    a, parameters = torch.randn(2, 9, 9, 1), [*model.parameters()]
    expected = torch.autograd.grad(model(a).sum(), parameters)
    loss = model(a).sum()
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(loss, parameters)
    # PyTorch's own steps are of half precision.
    assert all((one - other).norm() < 0.02 * other.norm() for one, other in zip(found, expected, strict=True))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("skip", ["linear", "identity"])
@torch.no_grad()
def test_transforms_without_recorded_gradients(skip: Skip) -> None:
    torch.manual_seed(0)
    model = FNO(modes=(4, 4), width=8, layers=3, skip=skip).double()
    a, tangent = torch.randn(2, 2, 9, 9, 1, dtype=torch.float64)
    _, found = torch.func.jvp(model, (a,), (tangent,))
    difference = (model(a + 1e-6 * tangent) - model(a - 1e-6 * tangent)) / 2e-6
    assert torch.allclose(found, difference, atol=1e-7)
    assert torch.allclose(torch.func.vmap(model)(a[None])[0], model(a))
    # Of what the transform does not see.
    with torch.enable_grad():
        assert torch.allclose(torch.func.vmap(lambda x: x * model(a))(torch.ones(1).double())[0], model(a))


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


def test_arguments_of_steps_are_all_that_is_kept() -> None:
    """Of each layer after the first one its argument and that of its channel MLP, nothing of hidden width."""
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
    # Two of the layer's width, and a few coefficients.
    assert 2 * numbers <= sizes[1] - sizes[0] < 2.2 * numbers
