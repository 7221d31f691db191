"""Matrix products and sweeps by compiled tiles: what PyTorch's steps give; several threads are PyTorch's."""

import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sciml.operators import FNO, fno, pointwise, products, sweeps
from sciml.operators.fourier import TruncatedFourier
from sciml.operators.products import compiled_tiles, product

compiled = pytest.mark.skipif(compiled_tiles() is None, reason="no compiled products here")
sizes = st.integers(1, 70)


@pytest.fixture
def threads() -> Iterator[None]:
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, expected: Tensor, terms: int) -> bool:
    """Up to the roundings of so many terms of order one."""
    return bool((found.double() - expected).abs().max() < 1e-6 * (terms + 4))


@settings(deadline=None)
@given(sizes, st.integers(0, 300), sizes, st.booleans())
def test_products_are_those_in_double_precision(rows: int, terms: int, columns: int, turned: bool) -> None:
    a = numbers(0, terms, rows).T if turned else numbers(0, rows, terms)
    b, start = numbers(1, terms, columns), numbers(2, columns)
    exact = a.double() @ b.double()
    assert close(product(a, b), exact, terms)
    assert close(product(a, b, start), exact + start, terms)
    total = numbers(3, rows, columns)
    expected = exact + total.double()
    assert product(a, b, total, total) is total
    assert close(total, expected, terms)


@settings(deadline=None)
@given(st.sampled_from(["first", "second", "both"]), sizes, sizes, st.integers(1, 5), st.booleans())
def test_batches_of_products(which: str, rows: int, columns: int, batch: int, add: bool) -> None:
    a = numbers(0, *([batch] if which != "second" else []), rows, 20)
    b = numbers(1, *([batch] if which != "first" else []), 20, columns)
    start = numbers(2, batch, rows, columns) if add else None
    expected = a.double() @ b.double() + (0 if start is None else start)
    assert close(product(a, b, start), expected, 20)


@compiled
def test_products_do_not_depend_on_neighbours_and_layout() -> None:
    a, b = numbers(0, 3, 301, 300), numbers(1, 300, 45)
    assert torch.equal(product(a, b), product(a, b.T.contiguous().T))
    assert torch.equal(product(a, b), torch.stack([product(part, b) for part in a]))


@compiled
def test_several_threads_are_left_to_pytorch(threads: None) -> None:
    torch.set_num_threads(2)
    assert compiled_tiles() is None
    a, b = numbers(0, 301, 300), numbers(1, 300, 45)
    assert torch.equal(product(a, b), a @ b)


@compiled
def test_what_is_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        AVAILABLE = True

        def multiply(self, *arguments: object) -> None:
            raise AssertionError

    a, b = numbers(0, 8, 8), numbers(1, 8, 8)
    monkeypatch.setattr(products, "compiled_tiles", Refusing)
    for first, second in (
        (a.double(), b.double()),
        (a[:2], b),
        (a, b[:, :3]),
        (a.clone().requires_grad_(), b),
    ):
        assert torch.equal(product(first, second), first @ second)
    for shapes in (((8, 8), (7, 8)), ((2, 8, 8), (3, 8, 8))):
        with pytest.raises(RuntimeError):
            product(*(torch.zeros(shape) for shape in shapes))
    with pytest.raises(RuntimeError):
        product(a, b, torch.zeros(7))
    batched = torch.func.vmap(lambda row: product(row, b))(numbers(2, 4, 8, 8))
    assert torch.allclose(batched, numbers(2, 4, 8, 8) @ b)
    for second in (b, b.T):
        with pytest.raises(AssertionError):
            product(a, second)
    with torch.no_grad(), pytest.raises(AssertionError):
        product(a.clone().requires_grad_(), b)


def test_what_is_written_to_counts_as_changed() -> None:
    out = torch.zeros(8, 8)
    before = out._version
    product(numbers(0, 8, 8), numbers(1, 8, 8), out=out)
    assert out._version > before


MODELS = {
    "1D": ((70,), dict(modes=(9,), periodic=(True,))),
    "bounded": ((19, 67), dict(modes=(6, 8))),
    "channel MLP": ((19, 40), dict(modes=(6, 8), channel_mlp=0.5)),
    "Tucker": ((19, 40), dict(modes=(6, 8), weights="tucker", rank=0.3)),
    "no activation": ((19, 40), dict(modes=(6, 8), channel_mlp=0.5, activation=False)),
    "3D": ((12, 9, 20), dict(modes=(4, 4, 6), periodic=(True, False, True), width=5)),
    "one layer": ((19, 40), dict(modes=(6, 8), layers=1)),
}


def built(name: str) -> tuple[FNO, Tensor]:
    """A model with every number drawn, and functions for it."""
    space, config = MODELS[name]
    torch.manual_seed(0)
    model = FNO(2, 3, **{"periodic": (False,) * len(space), "width": 12, **config})
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model, torch.randn(3, *space, 2)


@compiled
@pytest.mark.parametrize("name", MODELS)
def test_sweeps_are_layer_after_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, a = built(name)
    swept = []
    monkeypatch.setattr(fno, "sweep", lambda v, *rest: swept.append(v) or sweeps.sweep(v, *rest))
    with torch.no_grad():
        found = model(a)
        assert len(swept) == 1
        with torch.inference_mode():
            assert torch.equal(model(a), found)
        monkeypatch.setattr(fno, "sweepable", lambda *given: False)
        assert torch.allclose(model(a), found, rtol=1e-5, atol=1e-5)
        assert np.allclose(model.double()(a.double()), found, rtol=1e-5, atol=1e-5)


@compiled
@pytest.mark.parametrize("name", MODELS)
def test_gradients_by_fused_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, a = built(name)
    weights, found = torch.randn(3, *a.shape[1:-1], 3), []
    taken, steps = set(), products.compiled_steps()
    names = ("branches", "branches_backward", "mlp", "mlp_backward")
    counted = {n: lambda *given, n=n: (taken.add(n), getattr(steps, n)(*given)) for n in names}
    monkeypatch.setattr(pointwise, "compiled_steps", lambda: types.SimpleNamespace(**counted))
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(pointwise, "compiled_steps", lambda: None)
        model.zero_grad()
        (model(a) * weights).sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    assert taken == set(names)
    model.double().zero_grad()
    (model(a.double()) * weights).sum().backward()
    for one, other, parameter in zip(*found, model.parameters(), strict=True):
        for gradient in (one, other):
            assert (gradient - parameter.grad).norm() < 2e-5 * parameter.grad.norm()


@compiled
def test_long_sums_round_little() -> None:
    """Gradients of parameters are sums over all points, of numbers of one sign here."""
    torch.manual_seed(0)
    x, given = torch.rand(400_000, 1), [torch.ones(1, 1), torch.zeros(1), torch.ones(1, 1)]
    single = [part.clone().requires_grad_() for part in given]
    pointwise.pointwise_mlp(x, *single, torch.zeros(1)).sum().backward()
    double = [part.double().requires_grad_() for part in given]
    (torch.nn.functional.gelu(x.double() @ double[0] + double[1]) @ double[2]).sum().backward()
    for one, exact in zip(single, double, strict=True):
        assert abs(one.grad - exact.grad) < 2e-6 * exact.grad
    weight = torch.ones(1, 1, requires_grad=True)
    transform = TruncatedFourier((2,), (True,), 0.0), (len(x),)
    _, mixed, _ = pointwise.branches(x[None], weight, torch.zeros(1), None, None, transform)
    mixed.sum().backward()
    assert abs(weight.grad - x.double().sum()) < 2e-6 * x.double().sum()


@compiled
def test_who_looks_between_layers_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model, a = built("channel MLP")
    monkeypatch.setattr(fno, "sweep", lambda *given: pytest.fail("taken"))
    seen = []
    for module in (model.lifting, model.layers[1], model.layers[2].skip, model.layers[0].mlp[0]):
        handle = module.register_forward_hook(lambda module, given, result: seen.append(result))
        with torch.no_grad():
            model(a)
        handle.remove()
    assert len(seen) == 4
    model(a).sum().backward()
    weight = model.layers[1].skip.weight
    weight.data = torch.zeros(12, 11)
    with torch.no_grad(), pytest.raises(RuntimeError):
        model(a)
    for config in ({"weights": "separable"}, {"norm": "instance"}, {"skip": "gate"}):
        with torch.no_grad():
            FNO(2, 3, modes=(6, 8), width=12, **config)(a)


@compiled
def test_functions_of_tiles_have_names_of_their_own() -> None:
    """Kernels from the caches of several processes share functions by name."""
    from sciml.operators import tiles

    functions: list = [tiles._two, tiles._one, tiles._half, tiles._number]
    for function in tuple(functions):
        cells = (cell.cell_contents for cell in function.py_func.__closure__)
        functions += [part for part in cells if hasattr(part, "py_func")]
    assert len(functions) == 16
    assert len({function.py_func.__qualname__ for function in functions}) == 16


KERNELS = """
import sys
import numpy as np
from sciml.operators import fused

rng, none = np.random.default_rng(0), np.empty(0, np.float32)
x, rows, weight, analysis = (rng.standard_normal(s, np.float32) for s in ((2, 7, 32), (2, 6, 32), (32, 32), (7, 6)))

def mlp():
    flat = weight.ravel()
    fused.mlp(32, 32, 32, x.reshape(-1), flat, weight[0], flat, flat, weight[0], np.zeros(448, np.float32), False)

def branches():
    results = np.zeros(384, np.float32), np.zeros(448, np.float32)
    fused.branches(2, 7, 32, 6, 32, x.reshape(-1), weight.ravel(), weight[0], none, none, False, analysis.ravel(),
                   *results, none)

def sweep():
    expected, v = x @ weight + weight[0] + analysis @ rows, x.copy()
    fused.sweep(2, 7, 32, 6, 0, v.reshape(-1), analysis.ravel(), rows.ravel(), weight.ravel(), weight[0], *[none] * 5,
                False, analysis.ravel(), none)
    assert np.abs(v - expected).max() < 1e-4

for name in sys.argv[1:]:
    globals()[name]()
"""


@pytest.mark.slow
@compiled
def test_kernels_of_several_processes_in_one_cache(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for kernels in (["mlp"], ["branches", "sweep"], ["mlp", "sweep"]):
        subprocess.run([sys.executable, "-c", KERNELS, *kernels], check=True, env=environment)
