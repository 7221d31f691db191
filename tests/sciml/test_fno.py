"""The FNO: against a fast Fourier transform and sums, across resolutions, parameter counts."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sciml.errors import ConfigError
from sciml.operators import FNO, FNOConfig, SpectralConv, UNetConfig
from sciml.operators.fno import FunctionNorm
from sciml.operators.fourier import TruncatedFourier, wavenumbers
from sciml.operators.spectral import SpectralWeights


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def complex_weight(layer: SpectralConv) -> torch.Tensor:
    """R, shape (*coefficients, C, C)."""
    weight = torch.view_as_complex(layer.full_weight().movedim(2, -1).contiguous())
    return weight.unflatten(0, layer.fourier.shape)


def fft_reference(layer: SpectralConv, v: torch.Tensor, space: tuple[int, ...]) -> torch.Tensor:
    """The layer by torch.fft, for periodic axes: pick modes, multiply, transform back."""
    modes = layer.fourier.modes
    axes = tuple(range(1, v.ndim - 1))
    coefficients = torch.fft.rfftn(v, dim=axes, norm="forward")
    kept = [torch.tensor(wavenumbers(n, False)) % s for n, s in zip(modes[:-1], space[:-1], strict=True)]
    kept.append(torch.arange(modes[-1] // 2 + 1))
    index = (slice(None), *torch.meshgrid(*kept, indexing="ij"))
    result = torch.zeros_like(coefficients)
    result[index] = torch.einsum("b...i,...io->b...o", coefficients[index], complex_weight(layer))
    # The imaginary part of the last axis' zero column must not leak: transform the others first.
    if len(axes) > 1:
        result = torch.fft.ifftn(result, dim=axes[:-1], norm="forward")
    return torch.fft.irfft(result, n=space[-1], dim=axes[-1], norm="forward") + layer.bias


def interval(count: int, length: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and trapezoidal weights."""
    weights = torch.full((count,), length / (count - 1), dtype=torch.float64)
    weights[0] = weights[-1] = 0.5 * length / (count - 1)
    return torch.arange(count, dtype=torch.float64) * length / (count - 1), weights


def dense_reference(layer: SpectralConv, v: torch.Tensor, space: tuple[int, ...]) -> torch.Tensor:
    """The layer from its definition: sums over nodes and wavenumbers, in double precision."""
    fourier = layer.fourier
    dim = len(space)
    phases, weights, multiplicity = [], [], torch.ones(())
    for axis, (size, count, periodic) in enumerate(zip(space, fourier.modes, fourier.periodic, strict=True)):
        period = 1.0 if periodic else 1.0 + fourier.padding
        k = torch.tensor(wavenumbers(count, axis == dim - 1))
        if periodic:
            x, weight = (
                torch.arange(size, dtype=torch.float64) / size,
                torch.full((size,), 1 / size, dtype=torch.float64),
            )
        else:
            x, weight = interval(size, 1.0)
            beyond, more = interval(v.shape[axis + 1] - size, fourier.padding)
            x, weight = torch.cat([x, 1.0 + beyond]), torch.cat([weight, more])
        phases.append(torch.exp(2j * math.pi / period * torch.outer(k.double(), x)))
        weights.append(weight)
        multiplicity = torch.where((k == 0) | (periodic & (2 * k == size)), 1.0, 2.0)
    letters, nodes = "klm"[:dim], "xyz"[:dim]
    tables = ",".join(k + x for k, x in zip(letters, nodes, strict=True))
    coefficients = torch.einsum(
        f"{tables},{','.join(nodes)},b{nodes}c->b{letters}c",
        *(phase.conj() for phase in phases),
        *(weight.to(torch.complex128) for weight in weights),
        v.to(torch.complex128),
    )
    mixed = torch.einsum("b...i,...io->b...o", coefficients, complex_weight(layer).to(torch.complex128))
    mixed = mixed * multiplicity[:, None]
    return torch.einsum(f"{tables},b{letters}c->b{nodes}c", *phases, mixed).real + layer.bias.double()


SIZES = [
    ((10,), (16,)),
    ((9,), (13,)),
    ((8,), (8,)),  # the Nyquist wavenumber is kept
    ((7,), (7,)),
    ((8, 9), (16, 15)),
    ((6, 8), (6, 9)),
    ((5, 8), (7, 8)),
    ((4, 5, 4), (7, 6, 5)),
    ((3, 4, 4), (4, 4, 5)),
]


@pytest.mark.parametrize(("modes", "space"), SIZES)
@pytest.mark.parametrize("reference", [fft_reference, dense_reference])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_spectral_convolution_on_the_torus(
    modes: tuple, space: tuple, reference: Callable, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    layer = SpectralConv(3, modes, (True,) * len(modes), 0.0).to(dtype)
    torch.nn.init.normal_(layer.bias)
    v = torch.randn(2, *space, 3, dtype=dtype)
    expected = reference(layer, v, space)
    assert torch.allclose(
        layer(v, space).to(expected), expected, atol=tolerance * float(expected.detach().abs().max())
    )


@pytest.mark.parametrize(("modes", "space"), SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("weights", ["dense", "tucker"])
def test_spectral_convolution_on_bounded_axes(
    modes: tuple, space: tuple, dtype: torch.dtype, tolerance: float, weights: SpectralWeights
) -> None:
    torch.manual_seed(0)
    periodic = tuple(axis == 1 for axis in range(len(modes)))
    layer = SpectralConv(3, modes, periodic, 0.3, weights, 0.5).to(dtype)
    v, skipped = torch.randn(2, 2, *layer.fourier.extended(space), 3, dtype=dtype)
    expected = dense_reference(layer, v, space) + skipped
    assert torch.allclose(
        layer(v, space, skipped.clone()).to(expected),
        expected,
        atol=tolerance * float(expected.detach().abs().max()),
    )


def test_separable_weights_sum_one_dimensional_layers() -> None:
    torch.manual_seed(0)
    layer = SpectralConv(3, (6, 5), (True, False), 0.25, "separable").double()
    space = (9, 8)
    v, skipped = torch.randn(2, 2, *layer.fourier.extended(space), 3, dtype=torch.float64)
    expected = layer.bias + skipped
    for axis, weight in enumerate(layer.axis_weights):
        line = SpectralConv(3, (6, 5)[axis : axis + 1], (axis == 0,), 0.25).double()
        line.weight.data = weight.data
        turned = v.movedim(axis + 1, 2)
        expected = expected + line(turned.flatten(0, 1), space[axis : axis + 1]).view(turned.shape).movedim(
            2, axis + 1
        )
    assert torch.allclose(layer(v, space, skipped.clone()), expected, atol=1e-13)
    with pytest.raises(ConfigError, match="separable"):
        layer.full_weight()


@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.15, 0.6, 1.0])
@pytest.mark.parametrize("modes", [(32,), (24, 24), (8, 9, 10)])
def test_tucker_weights_have_the_fraction_asked_for(modes: tuple, fraction: float) -> None:
    torch.manual_seed(0)
    dense = SpectralConv(16, modes, (True,) * len(modes), 0.0)
    layer = SpectralConv(16, modes, (True,) * len(modes), 0.0, "tucker", fraction)
    ratio = parameters(layer) / parameters(dense)
    assert ratio <= fraction or fraction == 0.001
    assert ratio > 0.6 * fraction
    # The factors' columns are nearly orthonormal, so the weight has the norm of its core.
    weight, core = layer.full_weight().detach(), layer.core.detach()
    assert float(weight.norm()) == pytest.approx(float(core.norm()), rel=0.1)
    # It starts with the lowest wavenumbers, as large as those of dense weights, and next to nothing beyond.
    sizes = weight.flatten(1).std(1)
    order = sizes.sort(descending=True).indices
    kept = math.prod(core.shape[: len(modes)])
    if core.numel() > 500:  # of fewer random numbers the norm says little about their variance
        assert float(weight[order[:kept]].std()) == pytest.approx(math.sqrt(0.5 / 16), rel=0.1)
    if kept < len(sizes):
        assert float(sizes[order[kept:]].max()) < 0.3 * math.sqrt(0.5 / 16)
        assert 0 in order[:kept]


@pytest.mark.parametrize("weights", ["dense", "tucker", "separable"])
def test_gradients_of_the_spectral_convolution(weights: SpectralWeights) -> None:
    torch.manual_seed(0)
    layer = SpectralConv(2, (4, 3), (True, False), 0.4, weights, 0.5).double()
    v = torch.randn(1, *layer.fourier.extended((5, 4)), 2, dtype=torch.float64, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(v: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (v, (5, 4)))

    assert torch.autograd.gradcheck(run, (v, *values))


def band_limited(n: int, periodic: bool) -> torch.Tensor:
    x = torch.arange(n, dtype=torch.float64) / (n if periodic else n - 1)
    x, y = torch.meshgrid(x, x, indexing="ij")
    turn = 2 * math.pi
    return (torch.sin(turn * x) * torch.cos(2 * turn * y) + 0.5 * torch.cos(3 * turn * (x - y)) + 0.2)[
        None, ..., None
    ]


def test_periodic_layer_is_exact_across_resolutions() -> None:
    torch.manual_seed(0)
    layer = SpectralConv(1, (10, 10), (True, True), 0.0).double()
    coarse, fine = layer(band_limited(16, True), (16, 16)), layer(band_limited(64, True), (64, 64))
    assert torch.allclose(coarse, fine[:, ::4, ::4], atol=1e-13)


def test_bounded_layer_converges_across_resolutions() -> None:
    """Trapezoidal quadrature: the coefficients, so the output, converge at second order."""
    torch.manual_seed(0)
    layer = SpectralConv(1, (8, 8), (False, False), 0.25).double()
    cells = (16, 32, 64, 128)
    outputs = []
    for n in (*cells, 512):
        # The extension, of a quarter, holds the function's even continuation.
        v = band_limited(n + 1, False)
        v = torch.cat([v, v[:, -n // 4 - 1 :].flip(1)], 1)
        v = torch.cat([v, v[:, :, -n // 4 - 1 :].flip(2)], 2)
        outputs.append(layer(v, (n + 1, n + 1))[:, : n + 1 : n // 16, : n + 1 : n // 16])
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


def test_whole_model_agrees_on_two_resolutions() -> None:
    """A band-limited input on the torus: only aliases of the activations differ, and they fall spectrally."""
    torch.manual_seed(0)
    model = FNO(
        modes=(8, 8), width=6, layers=3, periodic=(True, True), coordinates=False, channel_mlp=0.5
    ).double()
    sizes = (16, 24, 32, 48)
    with torch.no_grad():
        finest = model(band_limited(192, True))
        errors = [
            float((model(band_limited(n, True)) - finest[:, :: 192 // n, :: 192 // n]).abs().max())
            for n in sizes
        ]
    assert errors[-1] < 1e-6 * float(finest.abs().max()), errors
    assert errors[-1] < 1e-3 * errors[0], errors


def test_it_commutes_with_translations_of_the_torus() -> None:
    torch.manual_seed(0)
    # Of an odd number of wavenumbers, each has its partner.
    model = FNO(modes=(7, 8), width=4, periodic=(True, True), coordinates=False).double()
    v = torch.randn(1, 12, 14, 1, dtype=torch.float64)
    shifted = model(torch.roll(v, (3, 5), (1, 2)))
    assert torch.allclose(shifted, torch.roll(model(v), (3, 5), (1, 2)), atol=1e-12)


def test_parameter_counts() -> None:
    """The paper's Navier-Stokes models, less the 160 numbers of their batch normalisation."""
    assert parameters(FNO(in_channels=10, modes=(16, 15), width=20)) == 414_517 - 160
    model = FNO(in_channels=10, modes=(16, 16, 15), width=20, periodic=(True, True, False))
    assert parameters(model) == 6_558_537 - 160


def test_layers_from_their_formulas() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 9, 8, 6)  # on periodic axes
    gelu = torch.nn.functional.gelu
    # Between layers there are arguments of activations.
    v = gelu(x)
    for skip in ("linear", "identity", "gate", "none"):
        model = FNO(
            modes=(4, 4),
            width=6,
            periodic=(True, True),
            skip=skip,
            channel_mlp=0.5,
            channel_mlp_skip=skip,
            norm="group",
        )
        layer = model.layers[1]
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        through = {"linear": lambda v, w: v @ w.T, "gate": lambda v, w: v * w, "identity": lambda v, w: v}

        def skipped(
            module: torch.nn.Module | None, kind: str = skip, through: dict = through
        ) -> torch.Tensor:
            return torch.zeros(()) if kind == "none" else through[kind](v, getattr(module, "weight", None))

        def norm(v: torch.Tensor, which: int, layer: torch.nn.Module = layer) -> torch.Tensor:
            weight, bias = layer.norms[which].parameters()
            return torch.nn.functional.group_norm(v.movedim(-1, 1), 1, weight, bias).movedim(1, -1)

        inner = gelu(norm(layer.spectral(v, (9, 8)), 0) + skipped(layer.skip))
        first, _, second = layer.mlp
        hidden = gelu(inner @ first.weight.T + first.bias) @ second.weight.T + second.bias
        expected = norm(hidden + skipped(layer.mlp_skip), 1)
        assert torch.allclose(layer(x, (9, 8)), expected, atol=1e-5), skip
    instance = torch.nn.functional.instance_norm(v.movedim(-1, 1)).movedim(1, -1)
    assert torch.allclose(FunctionNorm(6, "instance")(v), instance, atol=1e-5)


def test_without_activation_only_the_projection_is_not_linear() -> None:
    torch.manual_seed(0)
    model = FNO(modes=(4, 4), width=6, activation=False)
    hidden: list[torch.Tensor] = []
    model.projection.register_forward_pre_hook(lambda module, inputs: hidden.append(inputs[0]))
    a, b = torch.randn(2, 1, 9, 9, 1)
    for x in (a, b, (a + b) / 2):
        model(x)
    assert torch.allclose((hidden[0] + hidden[1]) / 2, hidden[2], atol=1e-5)


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


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize(
    ("modes", "periodic", "space"),
    [
        ((5,), (True,), (9,)),
        ((4,), (False,), (7,)),
        ((4, 5), (True, False), (8, 9)),
        ((5, 4), (False, True), (7, 8)),
        ((3, 4, 4), (True, True, False), (6, 4, 5)),
    ],
)
def test_gradients_of_the_transforms(
    modes: tuple[int, ...], periodic: tuple[bool, ...], space: tuple[int, ...]
) -> None:
    """Each is the adjoint of the other with transposed tables, Nyquist's wavenumbers included."""
    torch.manual_seed(0)
    fourier = TruncatedFourier(modes, periodic, 0.25)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(2, *shape, 2, dtype=torch.float64, requires_grad=True)

    v, onto, c = random(*fourier.extended(space)), random(*fourier.extended(space)), random(2, *fourier.shape)
    gradcheck, gradgradcheck = torch.autograd.gradcheck, torch.autograd.gradgradcheck
    assert gradcheck(lambda v: fourier.analyse(v, space), v, check_forward_ad=True)

    def added(c: torch.Tensor, onto: torch.Tensor) -> torch.Tensor:
        return fourier.synthesise(c, space, onto.clone())

    assert gradcheck(added, (c, onto), check_forward_ad=True)
    assert gradgradcheck(lambda c: fourier.synthesise(c, space).square(), c)
    with torch.no_grad():
        kept = onto.detach().clone()
        assert torch.allclose(fourier.synthesise(c, space, kept), fourier.synthesise(c, space) + onto)


def test_bad_input() -> None:
    model = FNO(modes=(12, 12), width=4, padding=0.0)
    with pytest.raises(
        ConfigError, match=r"axis 0 with 9 nodes is too coarse for modes=12: use at least 13 .* of 8 modes"
    ):
        model(torch.zeros(1, 9, 20, 1))
    model(torch.zeros(1, 13, 13, 1))
    odd = FNO(modes=(13, 13), width=4, periodic=(True, True))
    with pytest.raises(
        ConfigError, match=r"axis 0 with 12 nodes is too coarse for modes=13: use at least 13"
    ):
        odd(torch.zeros(1, 12, 20, 1))
    odd(torch.zeros(1, 13, 12, 1))  # 0..6 on the last axis, of which 6 is Nyquist's
    with pytest.raises(ConfigError, match=r"input of torch.float64, its weights are torch.float32: convert"):
        odd(torch.zeros(1, 13, 12, 1, dtype=torch.float64))
    with pytest.raises(ConfigError, match="1 channels"):
        model(torch.zeros(1, 20, 20, 2))
    with pytest.raises(ConfigError, match="2 axes"):
        model(torch.zeros(1, 20, 1))
    for name, value in (
        ("width", 0),
        ("modes", ()),
        ("modes", (0, 3)),
        ("padding", 2.0),
        ("rank", 0.0),
        ("channel_mlp", -1.0),
        ("weights", "cp"),
        ("skip", "linar"),
        ("norm", "batch"),
    ):
        with pytest.raises(ConfigError, match=name):
            FNOConfig(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=r"modes=\(4, 4, 4\): give one number for all axes, or one for each of 2"
    ):
        FNO(modes=(4, 4, 4))
    with pytest.raises(ConfigError, match="in_channels=0"):
        FNO(0)
    with pytest.raises(ConfigError, match="give a FNOConfig"):
        FNO(1, 1, (True,), UNetConfig())
    assert FNO(config=FNOConfig(modes=(6,), width=3), width=5).config == FNOConfig(modes=(6,), width=5)
    assert FNO(modes=(4,), width=2, channel_mlp=0.01).layers[0].mlp is not None
    with torch.no_grad():
        assert FNO(modes=(4,), width=2)(torch.zeros(0, 9, 9, 1)).shape == (0, 9, 9, 1)
    assert FNO(modes=(6,), periodic=(True, False, True), width=2).fourier.modes == (6, 6, 6)


def test_tables_outlive_the_mode_they_were_made_in() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = FNO(modes=(4, 4), width=4)
    a = torch.randn(1, 19, 21, 1)
    with torch.inference_mode():
        expected = model(a)
    result = model(a)
    result.sum().backward()
    assert torch.allclose(result, expected, atol=1e-6)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model(torch.empty(1, 23, 21, 1))
    assert type(model(torch.randn(1, 23, 21, 1))) is torch.Tensor


def test_repeated_channels_have_moments_of_their_own() -> None:
    model = FNO(4, 1, (True,), modes=(4,), width=4)
    one, other, target = torch.randn(3, 5, 8, 1)
    model.set_normalisers([one.expand(5, 8, 3), other], target)
    assert torch.allclose(model.input_mean, torch.stack([one.mean()] * 3 + [other.mean()]))
