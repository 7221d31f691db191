"""Fourier transforms at scattered points: against the FFT, full spectra, adjoints, derivatives."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sciml.errors import ConfigError
from sciml.operators import NonuniformFourier
from sciml.operators import nonuniform as module
from sciml.operators.fourier import TruncatedFourier, coordinates, wavenumbers

METHODS = ["direct"]
try:
    import finufft  # noqa: F401

    METHODS.append("fast")
except ImportError:
    pass

every_method = pytest.mark.parametrize("method", METHODS)
cases = pytest.mark.parametrize(
    ("modes", "space"), [((6,), (11,)), ((6, 5), (9, 12)), ((4, 5, 6), (8, 9, 10))]
)


def uniform(space: tuple[int, ...], batch: int) -> tuple[Tensor, Tensor]:
    """Nodes of a periodic grid as scattered points, and their weights."""
    nodes = torch.stack(torch.meshgrid(*[coordinates(n, True) for n in space], indexing="ij"), -1)
    xi = nodes.flatten(0, -2).expand(batch, -1, -1)
    return xi, torch.full(xi.shape[:2], 1 / xi.shape[1], dtype=torch.float64)


@every_method
@cases
def test_equals_the_fft_on_uniform_grids(modes: tuple[int, ...], space: tuple[int, ...], method: str) -> None:
    torch.manual_seed(0)
    v = torch.randn(2, *space, 3, dtype=torch.float64)
    axes = tuple(range(1, len(space) + 1))
    spectrum = torch.fft.rfftn(v, dim=axes, norm="forward")
    index = np.ix_(*[wavenumbers(n, axis == len(modes) - 1) for axis, n in enumerate(modes)])
    expected = spectrum[(slice(None), *index)]
    xi, weights = uniform(space, 2)
    fourier = NonuniformFourier(modes, method)  # type: ignore[arg-type]
    found = fourier.analyse(v.flatten(1, -2), xi, weights)
    assert (torch.complex(found[:, 0], found[:, 1]) - expected).abs().max() < 1e-12
    # Back, from any coefficients: those that the inverse FFT of real functions makes of them.
    c = torch.randn_like(found)
    padded = torch.zeros_like(spectrum)
    padded[(slice(None), *index)] = torch.complex(c[:, 0], c[:, 1])
    function = torch.fft.irfftn(padded, s=space, dim=axes, norm="forward")
    scale = function.abs().max()
    assert (fourier.synthesise(c, xi) - function.flatten(1, -2)).abs().max() < 1e-12 * scale
    truncated = TruncatedFourier(modes, (True,) * len(modes), 0.0)
    assert (
        truncated.synthesise(c, space).flatten(1, -2) - fourier.synthesise(c, xi)
    ).abs().max() < 1e-12 * scale


def completed(half: Tensor, rows: list[int]) -> Tensor:
    """Return coefficients at k2 < 0 of a real function, by a map of the rows to those of -k1.

    ``half`` has those at k2 = 0, 1, ..., shape (m1, m2).
    """
    return half[rows][:, 1:].flip(1).conj()


def test_the_index_map_of_the_other_half_and_the_published_one() -> None:
    """u(-k1, -k2) = conj u(k1, k2): rows [0, m - 1, ..., 1]. Geo-FNO's code flips all rows, which pairs 0 with -1."""
    torch.manual_seed(1)
    modes, xi = (7, 6), torch.rand(1, 40, 2, dtype=torch.float64)
    fourier = NonuniformFourier(modes, "direct")
    weights = torch.full((1, 40), 1 / 40, dtype=torch.float64)
    c = fourier.analyse(torch.randn(1, 40, 1, dtype=torch.float64), xi, weights)
    # In the order of the FFT, 0, 1, ..., -2, -1, as in that code.
    ours = torch.tensor(wavenumbers(modes[0], last=False))
    order = torch.argsort(ours % modes[0])
    half = torch.complex(c[0, 0, ..., 0], c[0, 1, ..., 0])[order]
    k1, k2 = ours[order].double(), torch.tensor(wavenumbers(modes[1], last=True)).double()

    def real_function(rows: list[int]) -> Tensor:
        whole = torch.cat([half, completed(half, rows)], 1)
        columns = torch.cat([k2, -k2[1:].flip(0)])
        phase = 2 * math.pi * (xi[0, :, 0, None, None] * k1[:, None] + xi[0, :, 1, None, None] * columns)
        return (whole * torch.polar(torch.ones_like(phase), phase)).sum((1, 2))

    m = len(k1)
    right, published = real_function([0, *range(m - 1, 0, -1)]), real_function([*range(m)][::-1])
    assert right.imag.abs().max() < 1e-12
    assert (fourier.synthesise(c, xi)[0, :, 0] - right.real).abs().max() < 1e-12
    # The published map does not even give a real function, nor is its real part the right one.
    size = right.real.abs().max()
    assert published.imag.abs().max() > 0.1 * size
    assert (published.real - right.real).abs().max() > 0.1 * size


@every_method
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(3,), (6,), (4, 5), (7, 6), (3, 4, 5)]),
    st.integers(1, 30),
    st.integers(1, 5),
    st.integers(0, 2**31),
)
def test_the_transforms_are_adjoint(
    method: str, modes: tuple[int, ...], points: int, channels: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    xi = 4 * torch.rand(2, points, len(modes), generator=generator, dtype=torch.float64) - 2
    v = torch.randn(2, points, channels, generator=generator, dtype=torch.float64)
    fourier = NonuniformFourier(modes, method)  # type: ignore[arg-type]
    weights = torch.rand(2, points, generator=generator, dtype=torch.float64)
    c = torch.randn(2, 2, *fourier.shape, channels, generator=generator, dtype=torch.float64)
    # Wavenumbers of the last axis but 0 count twice.
    twice = torch.full((fourier.shape[-1], 1), 2.0, dtype=torch.float64)
    twice[0] = 1
    left = (fourier.analyse(v, xi, weights) * twice * c).sum()
    right = (v * weights[..., None] * fourier.synthesise(c, xi)).sum()
    assert abs(left - right) < 1e-11 * (1 + v.norm() * c.norm())


@every_method
@pytest.mark.parametrize("modes", [(6,), (4, 5), (2, 3, 3)])
def test_derivatives(modes: tuple[int, ...], method: str) -> None:
    torch.manual_seed(2)
    fourier = NonuniformFourier(modes, method)  # type: ignore[arg-type]
    xi = torch.rand(2, 5, len(modes), dtype=torch.float64, requires_grad=True)
    v = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    c = torch.randn(2, 2, *fourier.shape, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fourier.analyse, (v, xi, weights))
    assert torch.autograd.gradcheck(fourier.synthesise, (c, xi))
    if len(modes) == 1:
        assert torch.autograd.gradgradcheck(fourier.synthesise, (c, xi))


@pytest.mark.skipif("fast" not in METHODS, reason="needs finufft")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_methods_agree(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    xi, v = torch.rand(3, 500, 2, dtype=dtype), torch.randn(3, 500, 5, dtype=dtype)
    weights = torch.rand(3, 500, dtype=dtype) / 500
    direct, fast = (NonuniformFourier((24, 24), method) for method in ("direct", "fast"))  # type: ignore[arg-type]
    c = direct.analyse(v, xi, weights)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert fast.analyse(v, xi, weights).dtype == dtype
    assert (fast.analyse(v, xi, weights) - c).norm() < tolerance * c.norm()
    u = direct.synthesise(c, xi)
    assert (fast.synthesise(c, xi) - u).norm() < tolerance * u.norm()


def test_parts_of_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    fourier = NonuniformFourier((6, 6), "direct")
    xi, v = torch.rand(2, 57, 2, dtype=torch.float64), torch.randn(2, 57, 3, dtype=torch.float64)
    weights = torch.full((2, 57), 1 / 57, dtype=torch.float64)
    c = fourier.analyse(v, xi, weights)
    u = fourier.synthesise(c, xi)
    monkeypatch.setattr(module, "LARGEST", 1000)
    assert torch.allclose(fourier.analyse(v, xi, weights), c, atol=1e-14)
    assert torch.allclose(fourier.synthesise(c, xi), u, atol=1e-14)
    nothing = xi[:, :0]
    assert fourier.analyse(v[:, :0], nothing, weights[:, :0]).abs().max() == 0
    assert fourier.synthesise(c, nothing).shape == (2, 0, 3)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_finufft", lambda: None)
    monkeypatch.setattr(module, "MANY", {1: 0})
    xi, c = torch.rand(1, 4, 1), torch.ones(1, 2, 2, 1)
    assert NonuniformFourier((2,)).synthesise(c, xi).shape == (1, 4, 1)
    with pytest.raises(ConfigError, match=r"install sciml\[fast\]"):
        NonuniformFourier((2,), "fast").synthesise(c, xi)
