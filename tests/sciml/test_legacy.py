"""Weights of public FNO codes: the same outputs, and where the other code is wrong."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from sciml.errors import ConfigError
from sciml.operators import FNO, from_legacy

EVEN = [
    (1, (8,), (8,)),
    (1, (8,), (17,)),
    (2, (8, 8), (16, 16)),
    (2, (7, 8), (16, 17)),
    (2, (8, 8), (32, 24)),
]
EVEN += [(3, (6, 6, 6), (8, 8, 8)), (3, (5, 6, 5), (12, 10, 9))]
ODD = [(2, (8, 8), (17, 16)), (2, (7, 7), (33, 33)), (3, (6, 6, 6), (8, 9, 8)), (3, (5, 5, 5), (11, 12, 12))]


def neuraloperator(**options: object) -> torch.nn.Module:
    pytest.importorskip("neuralop", reason="extra peers")
    from neuralop.models import FNO as Other

    torch.manual_seed(0)
    return Other(in_channels=2, out_channels=3, hidden_channels=12, **options)


def difference(other: torch.nn.Module, ours: FNO, space: tuple[int, ...]) -> float:
    """Largest difference, in units of the largest value."""
    x = torch.randn(2, 2, *space, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = other(x).movedim(1, -1)
        return float((ours(x.movedim(1, -1)) - expected).abs().max() / expected.abs().max())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "group_norm"},
        {"norm": "instance_norm"},
        {"channel_mlp_skip": "linear", "fno_skip": "soft-gating"},
        {"fno_skip": "identity", "channel_mlp_skip": "identity"},
        {"factorization": "tucker", "rank": 0.3},
        {"positional_embedding": None, "lifting_channel_ratio": 0, "channel_mlp_expansion": 1.0},
    ],
)
@pytest.mark.parametrize(("dim", "modes", "space"), EVEN)
def test_equal_to_neuraloperator(dim: int, modes: tuple, space: tuple, options: dict) -> None:
    other = neuraloperator(n_modes=modes, **options)
    ours = from_legacy(other.state_dict(), skip="identity", channel_mlp_skip="identity")
    assert difference(other, ours, space) < 1e-5
    if "factorization" not in options:
        counts = [
            sum(p.numel() * (2 if p.is_complex() else 1) for p in model.parameters())
            for model in (other, ours)
        ]
        assert counts[0] == counts[1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dim", "modes", "space"), ODD)
def test_neuraloperator_is_wrong_on_odd_sizes_of_all_axes_but_the_last(
    dim: int, modes: tuple, space: tuple
) -> None:
    """Version 2.0.0 undoes a shift of the spectrum by the same shift: on odd sizes it ends one mode away."""
    other = neuraloperator(n_modes=modes)
    ours = from_legacy(other.state_dict())
    assert difference(other, ours, space) > 0.01
    shift = torch.fft.fftshift
    calls = itertools.count()

    def mended(x: Tensor, dim: object) -> Tensor:
        return (torch.fft.ifftshift if next(calls) % 2 else shift)(x, dim=dim)

    torch.fft.fftshift = mended
    try:
        assert difference(other, ours, space) < 1e-5
    finally:
        torch.fft.fftshift = shift


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"domain_padding": 0.25}, "domain_padding"),
        ({"separable": True}, "separable"),
        ({"preactivation": True}, "preactivation"),
        ({"use_channel_mlp": False}, "use_channel_mlp"),
        ({"factorization": "cp", "rank": 0.3}, "CP"),
        ({"stabilizer": "tanh"}, "stabilizer"),
    ],
)
def test_variants_without_a_counterpart_are_named(options: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        from_legacy(neuraloperator(n_modes=(8, 8), **options).state_dict())


def numbers(*shape: int) -> Tensor:
    """Weights that need no random generator."""
    return torch.sin(torch.arange(1.0, math.prod(shape) + 1) ** 2).view(shape) / math.sqrt(shape[0])


def neuraloperator_state() -> dict[str, Tensor]:
    """Of FNO(n_modes=(4, 4), in_channels=1, out_channels=1, hidden_channels=4, n_layers=2)."""
    state = {}
    for i in range(2):
        block = "fno_blocks."
        state[f"{block}convs.{i}.bias"] = numbers(4, 1, 1)
        state[f"{block}convs.{i}.weight.tensor"] = torch.complex(
            numbers(4, 4, 4, 3), numbers(4, 4, 4, 3).flip(0)
        )
        state[f"{block}fno_skips.{i}.conv.weight"] = numbers(4, 4, 1)
        state[f"{block}channel_mlp.{i}.fcs.0.weight"] = numbers(2, 4, 1)
        state[f"{block}channel_mlp.{i}.fcs.0.bias"] = numbers(2)
        state[f"{block}channel_mlp.{i}.fcs.1.weight"] = numbers(4, 2, 1)
        state[f"{block}channel_mlp.{i}.fcs.1.bias"] = numbers(4)
        state[f"{block}channel_mlp_skips.{i}.weight"] = numbers(1, 4, 1, 1)
    for name, (into, hidden, out) in {"lifting": (3, 8, 4), "projection": (4, 8, 1)}.items():
        for j, (a, b) in enumerate(((into, hidden), (hidden, out))):
            state |= {f"{name}.fcs.{j}.weight": numbers(b, a, 1), f"{name}.fcs.{j}.bias": numbers(b)}
    return state


GOLDEN = [1.264719, 1.265704, 1.277694, 1.272917, 1.272853, 1.284268, 1.270181, 1.281233, 1.280316]


@pytest.mark.filterwarnings("ignore")
def test_values_of_neuraloperator() -> None:
    """Recorded from version 2.0.0, for machines without it; compared with it where it is."""
    state = neuraloperator_state()
    x = numbers(1, 1, 6, 7)
    found = from_legacy(state)(x.movedim(1, -1))[0, ::2, ::3, 0].flatten()
    try:
        from neuralop.models import FNO as Other
    except ImportError:
        pass
    else:
        other = Other(n_modes=(4, 4), in_channels=1, out_channels=1, hidden_channels=4, n_layers=2)
        other.load_state_dict(state)
        assert torch.allclose(other(x)[0, 0, ::2, ::3].flatten(), torch.tensor(GOLDEN), atol=1e-6)
    assert torch.allclose(found, torch.tensor(GOLDEN), atol=1e-5)


def script_state(
    modes: tuple[int, ...], width: int, channels: int, complex_numbers: bool
) -> dict[str, Tensor]:
    """A state dict as the scripts of 2021 have them."""
    dim, blocks = len(modes), 2 ** (len(modes) - 1)
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / math.sqrt(width)

    state = {"fc0.weight": random(width, channels + dim), "fc0.bias": random(width)}
    for i in range(4):
        for j in range(blocks):
            state[f"conv{i}.weights{j + 1}"] = random(width, width, *modes, 2)
            if complex_numbers:
                state[f"conv{i}.weights{j + 1}"] = torch.view_as_complex(state[f"conv{i}.weights{j + 1}"])
        state |= {f"w{i}.weight": random(width, width, *(1,) * dim), f"w{i}.bias": random(width)}
    state |= {"fc1.weight": random(128, width), "fc1.bias": random(128)}
    return state | {"fc2.weight": random(1, 128), "fc2.bias": random(1)}


def run_script(state: dict[str, Tensor], modes: tuple[int, ...], x: Tensor) -> Tensor:
    """The scripts' network: unscaled FFT, blocks of weights at the corners, coordinates with both ends."""
    space = x.shape[1:-1]
    dim = len(space)
    axes = [torch.linspace(0, 1, n) for n in space]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).expand(len(x), *space, dim)
    v = torch.cat([x, grid], -1) @ state["fc0.weight"].T + state["fc0.bias"]
    # The sign of the first axis changes fastest from block to block.
    signs = [tuple(reversed(s)) for s in itertools.product((1, -1), repeat=dim - 1)]
    for i in range(4):
        axes = tuple(range(1, dim + 1))
        c = torch.fft.rfftn(v, dim=axes)
        result = torch.zeros_like(c)
        for j, sign in enumerate(signs):
            corner = [
                slice(None, m) if s > 0 else slice(-m, None) for s, m in zip(sign, modes[:-1], strict=True)
            ]
            index = (slice(None), *corner, slice(None, modes[-1]))
            weight = state[f"conv{i}.weights{j + 1}"]
            weight = weight if weight.is_complex() else torch.view_as_complex(weight)
            result[index] = torch.einsum("b...i,io...->b...o", c[index], weight)
        linear = v @ state[f"w{i}.weight"].flatten(1).T + state[f"w{i}.bias"]
        v = torch.fft.irfftn(result, s=space, dim=axes) + linear
        v = gelu(v) if i < 3 else v
    hidden = gelu(v @ state["fc1.weight"].T + state["fc1.bias"])
    return hidden @ state["fc2.weight"].T + state["fc2.bias"]


@pytest.mark.parametrize(
    ("modes", "space"), [((5,), (16,)), ((3, 4), (12, 13)), ((3, 4), (9, 8)), ((2, 3, 3), (7, 8, 6))]
)
@pytest.mark.parametrize("complex_numbers", [True, False])
def test_equal_to_the_scripts(modes: tuple, space: tuple, complex_numbers: bool) -> None:
    state = script_state(modes, 6, 2, complex_numbers)
    model = from_legacy(state, resolution=space)
    assert model.in_channels == 2
    x = torch.randn(2, *space, 2, generator=torch.Generator().manual_seed(3))
    expected = run_script(state, modes, x)
    assert torch.allclose(model(x), expected, atol=1e-5 * float(expected.abs().max()))
    for resolution in (None, (16, 16, 16, 16)):
        with pytest.raises(ConfigError, match="resolution"):
            from_legacy(state, resolution=resolution)


def test_what_is_no_fno_is_refused() -> None:
    for state in ({}, {"layer.weight": torch.zeros(2)}):
        with pytest.raises(ConfigError, match="neither of neuraloperator's FNO nor of the FNO scripts"):
            from_legacy(state)
    state = script_state((3,), 4, 1, True)
    state["w0.weight"] = torch.zeros(5, 5, 1)
    with pytest.raises(ConfigError, match="another variant"):
        from_legacy(state, resolution=(16,))
    state = neuraloperator_state()
    del state["fno_blocks.channel_mlp.1.fcs.0.bias"]
    with pytest.raises(
        ConfigError, match=r"another variant of the FNO: it has no 'fno_blocks\.channel_mlp\.1"
    ):
        from_legacy(state)
