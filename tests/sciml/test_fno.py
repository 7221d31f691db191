"""The FNO: against a fast Fourier transform, across resolutions, parameter counts."""

import math

import numpy as np
import pytest
import torch

from sciml.errors import ConfigError
from sciml.operators import FNO, FNOConfig, SpectralConv


def fft_reference(layer: SpectralConv, v: torch.Tensor) -> torch.Tensor:
    """The layer by torch.fft, for periodic axes: pick modes, multiply, transform back."""
    *_, width = v.shape
    space, modes = v.shape[1:-1], layer.modes
    axes = tuple(range(1, v.ndim - 1))
    coefficients = torch.fft.rfftn(v, dim=axes, norm="forward")
    kept = [torch.arange(-m, m) % n for m, n in zip(modes[:-1], space[:-1], strict=True)] + [
        torch.arange(modes[-1])
    ]
    index = (slice(None), *torch.meshgrid(*kept, indexing="ij"))
    weight = torch.view_as_complex(layer.weight.movedim(1, -1).contiguous())
    weight = weight.reshape(*(len(k) for k in kept), width, width)
    result = torch.zeros_like(coefficients)
    result[index] = torch.einsum("b...i,...io->b...o", coefficients[index], weight)
    # The imaginary part of the last axis' zero column must not leak: transform the others first.
    if len(axes) > 1:
        result = torch.fft.ifftn(result, dim=axes[:-1], norm="forward")
    return torch.fft.irfft(result, n=space[-1], dim=axes[-1], norm="forward")


@pytest.mark.parametrize(
    ("modes", "space"),
    [((5,), (16,)), ((5,), (13,)), ((4, 5), (16, 15)), ((3, 4), (6, 9)), ((2, 3, 2), (7, 6, 5))],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_spectral_convolution_equals_the_fft(
    modes: tuple, space: tuple, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    layer = SpectralConv(3, modes, (True,) * len(modes), 0.0).to(dtype)
    v = torch.randn(2, *space, 3, dtype=dtype)
    assert torch.allclose(layer(v), fft_reference(layer, v), atol=tolerance, rtol=tolerance)


def test_gradients_of_the_spectral_convolution() -> None:
    torch.manual_seed(0)
    layer = SpectralConv(2, (2, 2), (True, False), 0.4).double()
    v = torch.randn(1, 5, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (v,))


def band_limited(n: int, periodic: bool) -> torch.Tensor:
    x = torch.arange(n, dtype=torch.float64) / (n if periodic else n - 1)
    x, y = torch.meshgrid(x, x, indexing="ij")
    turn = 2 * math.pi
    return (torch.sin(turn * x) * torch.cos(2 * turn * y) + 0.5 * torch.cos(3 * turn * (x - y)) + 0.2)[
        None, ..., None
    ]


def test_periodic_layer_is_exact_across_resolutions() -> None:
    torch.manual_seed(0)
    layer = SpectralConv(1, (5, 5), (True, True), 0.0).double()
    coarse, fine = layer(band_limited(16, True)), layer(band_limited(64, True))
    assert torch.allclose(coarse, fine[:, ::4, ::4], atol=1e-13)


def test_bounded_layer_converges_across_resolutions() -> None:
    """Trapezoidal quadrature: the coefficients, so the output, converge at second order."""
    torch.manual_seed(0)
    layer = SpectralConv(1, (4, 4), (False, False), 0.25).double()
    cells = (16, 32, 64, 128)
    outputs = [layer(band_limited(n + 1, False))[:, :: n // 16, :: n // 16] for n in (*cells, 512)]
    errors = [float((output - outputs[-1]).detach().abs().max()) for output in outputs[:-1]]
    rate = -np.polyfit(np.log(cells), np.log(errors), 1)[0]
    assert 1.9 < rate < 2.3, errors


def test_whole_model_converges_across_resolutions() -> None:
    torch.manual_seed(0)
    model = FNO(modes=(4, 4), width=6, layers=3).double()
    cells = (16, 32, 64, 128)
    with torch.no_grad():
        outputs = [model(band_limited(n + 1, False))[:, :: n // 16, :: n // 16] for n in (*cells, 512)]
    errors = [float((output - outputs[-1]).abs().max()) for output in outputs[:-1]]
    rate = -np.polyfit(np.log(cells), np.log(errors), 1)[0]
    assert 1.8 < rate < 2.4, errors


def test_output_is_real_and_translation_equivariant_on_the_torus() -> None:
    torch.manual_seed(0)
    layer = SpectralConv(2, (4, 4), (True, True), 0.0).double()
    # Wavenumber -m has no partner +m on the first axis; below it the layer commutes with shifts.
    with torch.no_grad():
        layer.weight.reshape(8, 4, 2, 2, 2)[0] = 0
    v = torch.randn(1, 12, 14, 2, dtype=torch.float64)
    shifted = layer(torch.roll(v, (3, 5), (1, 2)))
    assert torch.allclose(shifted, torch.roll(layer(v), (3, 5), (1, 2)), atol=1e-12)


def test_parameter_count() -> None:
    """The paper's 2D Navier-Stokes model, less the 160 numbers of its batch normalisation."""
    model = FNO(in_channels=10, modes=(8, 8), width=20)
    assert sum(p.numel() for p in model.parameters()) == 414_517 - 160


def test_normalisers_are_part_of_the_model() -> None:
    torch.manual_seed(0)
    model = FNO(modes=(2, 2), width=4)
    a, u = torch.randn(8, 9, 9, 1), torch.randn(8, 9, 9, 1)
    plain = model(a)
    model.set_normalisers(1000 * a + 7, 1e-3 * u - 5)
    scaled = model(1000 * a + 7)
    assert scaled.mean().item() == pytest.approx(-5, abs=0.1)
    standard = (a - a.mean()) / a.std()
    model.set_normalisers(standard, u)
    model.output_mean.zero_()
    model.output_std.fill_(1)
    assert not torch.allclose(model(standard), plain)
    assert set(dict(model.named_buffers())) == {"input_mean", "input_std", "output_mean", "output_std"}


def test_weights_are_real() -> None:
    assert not any(p.is_complex() for p in FNO(modes=(3, 3), width=4).parameters())


def test_bad_input() -> None:
    model = FNO(modes=(6, 6), width=4, padding=0.0)
    with pytest.raises(ConfigError, match=r"axis 0 with 9 nodes is too coarse for modes=6: use at least 13"):
        model(torch.zeros(1, 9, 20, 1))
    model(torch.zeros(1, 13, 13, 1))
    with pytest.raises(ConfigError, match="1 channels"):
        model(torch.zeros(1, 20, 20, 2))
    with pytest.raises(ConfigError, match="2 axes"):
        model(torch.zeros(1, 20, 1))
    for name, value in (
        ("width", 0),
        ("modes", ()),
        ("modes", (0, 3)),
        ("padding", 2.0),
        ("periodic", (True,)),
    ):
        with pytest.raises(ConfigError, match=name):
            FNOConfig(**{name: value})  # type: ignore[arg-type]
