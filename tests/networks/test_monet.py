"""Mu-layers, spatial shifts and MONet: formulas, published sizes, files, bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import ConfigError, DatasetFormatError
from sciml.networks import MONET_S, MONET_T, MONet, MuLayer, PolyBlock, SpatialShift


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.5)
    return module


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_the_layer_is_its_formula(d: int, m: int, o: int, rank: int, bias: bool) -> None:
    layer = MuLayer(d, m, o, rank, bias=bias, norm=None, dtype=torch.float64)
    randomised(layer, d + 7 * m)
    x = torch.randn(5, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    w = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    zero = {"A": m, "B": m, "C": o, "D": rank}
    b = {name: w.get(f"{name}.bias", np.zeros(size)) for name, size in zero.items()}
    tokens = x.numpy().T
    a = w["A.weight"] @ tokens + b["A"][:, None]
    inner = w["D.weight"] @ tokens + b["D"][:, None]
    product = a * (w["B.weight"] @ inner + b["B"][:, None])
    expected = w["C.weight"] @ (product + a) + b["C"][:, None]
    assert abs(layer(x).detach().numpy() - expected.T).max() < 1e-12
    assert layer(x).shape == (5, o)


def test_numbers_of_a_layer() -> None:
    d, m, rank, o = 5, 16, 2, 3
    plain = sum(p.numel() for p in MuLayer(d, m, o, norm=None).parameters())
    assert plain == d * m + m + d * rank + rank + rank * m + m + m * o + o
    # Two affine layer norms of m, and alpha.
    assert sum(p.numel() for p in MuLayer(d, m, o).parameters()) == plain + 4 * m + 1


def test_normed_layer_normalises_each_branch_and_scales_the_product() -> None:
    layer = MuLayer(3, 8, 2, dtype=torch.float64)
    with torch.no_grad():
        layer.alpha.fill_(0.7)
    x = torch.randn(4, 3, dtype=torch.float64)

    def norm(v: torch.Tensor) -> torch.Tensor:
        centred = v - v.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    n1, n2 = norm(layer.A(x)), norm(layer.B(layer.D(x)))
    assert torch.allclose(layer(x), layer.C(n1 + 0.7 * n1 * n2), rtol=0, atol=1e-12)


def test_released_initial_values() -> None:
    layer = MuLayer(64, 64, 64)
    assert layer.rank == 8
    for name in ("A", "B", "D"):
        assert bool((getattr(layer, name).bias == 1).all())
    assert bool((layer.C.bias == 0).all())
    assert float(layer.alpha.detach()) == 1
    # Kaiming's: variance 2 / fan-in.
    assert abs(float(layer.A.weight.detach().std()) - (2 / 64) ** 0.5) < 0.02


def test_convolutions_start_as_lecun_s() -> None:
    torch.manual_seed(0)
    weight = MONet(3, 2, depths=(1,), widths=(256,), patches=(8,)).embedding[0].weight.detach()
    assert abs(float(weight.std()) * (3 * 64) ** 0.5 - 1) < 0.02
    assert float(weight.abs().max()) < 2.3 / (3 * 64) ** 0.5


@pytest.mark.parametrize(("config", "count"), [(MONET_T, 10_339_436), (MONET_S, 32_880_688)])
def test_published_sizes(config: object, count: int) -> None:
    with torch.device("meta"):
        assert MONet(config=config).parameter_count == count  # type: ignore[arg-type]


def test_shift_moves_each_quarter_of_a_delta_by_one_cell() -> None:
    x = torch.zeros(1, 7, 7, 8)
    x[0, 3, 3] = 1
    y = SpatialShift(2)(x)
    for quarter, place in enumerate([(4, 3), (2, 3), (3, 4), (3, 2)]):
        for channel in (2 * quarter, 2 * quarter + 1):
            assert torch.nonzero(y[0, :, :, channel]).tolist() == [list(place)]
    assert float(y.sum()) == 8
    assert float(x[0, 3, 3].sum()) == 8


def test_borders_keep_their_value_or_wrap() -> None:
    x = torch.arange(5.0).view(1, 5, 1).expand(1, 5, 5)
    kept = SpatialShift(1, reach=2, unshifted=True)
    assert kept.offsets == ((0,), (1,), (-1,), (2,), (-2,))
    found = kept(x)[0].T.tolist()
    assert found == [
        [0, 1, 2, 3, 4],
        [0, 0, 1, 2, 3],
        [1, 2, 3, 4, 4],
        # Two cells have no source, and keep what they had.
        [0, 1, 0, 1, 2],
        [2, 3, 4, 3, 4],
    ]
    wrapped = SpatialShift(1, border="periodic", reach=2, unshifted=True)(x)[0].T
    for row, (offset,) in zip(wrapped, kept.offsets, strict=True):
        assert torch.equal(row, torch.arange(5.0).roll(offset))


def test_the_last_group_takes_the_rest() -> None:
    groups = SpatialShift(2, unshifted=True).groups(13)
    assert [g.stop - g.start for g in groups] == [2, 2, 2, 2, 5]


def test_block_is_two_residual_layers_behind_one_norm() -> None:
    block = PolyBlock(16, shift=SpatialShift(2), rank_ratio=4, dtype=torch.float64)
    randomised(block)
    x = torch.randn(2, 5, 5, 16, dtype=torch.float64)
    y = x + block.mu1(block.norm(x))
    assert torch.equal(block(x), y + block.mu2(block.norm(y)))
    assert block.mu1.shift is not None
    assert block.mu2.shift is None
    assert (block.mu1.hidden, block.mu2.hidden, block.mu2.rank) == (16, 48, 12)


def test_batch_norms_fit_their_places() -> None:
    torch.manual_seed(0)
    block = PolyBlock(8, rank_ratio=2, norm="batch", dtype=torch.float64)
    x = 1 + 2 * torch.randn(500, 8, dtype=torch.float64)
    for _ in range(200):
        block(x)
    trained = block(x)
    # Running statistics are those of the batch, up to its own correction for n.
    assert torch.allclose(
        block.eval()(x), trained, rtol=0.02, atol=0.02 * float(trained.detach().abs().max())
    )


def test_drop_path_skips_and_scales_while_training() -> None:
    torch.manual_seed(0)
    block = randomised(PolyBlock(8, rank_ratio=2, drop_path=0.5))
    x = torch.randn(400, 8)
    change = (block(x) - x).norm(dim=1)
    # Both layers skipped: a quarter of all samples.
    assert 0.15 < float((change == 0).float().mean()) < 0.35
    block.eval()
    assert float(((block(x) - x).norm(dim=1) == 0).float().mean()) == 0


def test_without_shift_tokens_do_not_mix() -> None:
    x = torch.randn(1, 4, 4, 8)
    z = x.clone()
    z[0, 0, 0] += 1
    for shift, mixes in ((None, False), (SpatialShift(2), True)):
        block = randomised(PolyBlock(8, rank_ratio=2, shift=shift))
        changed = (block(x) - block(z)).abs().sum(-1)[0] > 0
        assert bool(changed[0, 0])
        assert bool(changed[0, 1]) == mixes


def test_classifier_learns_pyramid_and_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model = MONet(1, 3, depths=(1, 1), widths=(16, 32), patches=(2, 2), pyramid=True, rank_ratio=4)
    images = torch.rand(12, 1, 16, 16)
    assert bool((model(images) == 0).all())
    labels = torch.arange(12) % 3
    images[:, 0, :8] = (labels / 2).view(-1, 1, 1)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    assert bool((model(images).argmax(1) == labels).all())
    model.save(tmp_path / "m.safetensors")
    again = MONet.load(tmp_path / "m.safetensors")
    assert torch.equal(again(images), model.eval()(images))
    assert again.config == model.config
    with torch.no_grad():
        again.coarse_scale.zero_()
    assert not torch.equal(again(images), model(images))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: MuLayer(0, 4, 2), "in_features=0"),
        (
            lambda: MuLayer(2, 4, 2, 2, shift=SpatialShift(1)).__class__(2, 4, 2, 1, shift=SpatialShift(1)),
            "rank=1",
        ),
        (lambda: MuLayer(2, 4, 2, norm="group"), "norm='group'"),
        (lambda: MuLayer(2, 4, 2)(torch.zeros(1, 3)), "last axis must be 2"),
        (lambda: SpatialShift(3), "axes=3"),
        (lambda: SpatialShift(1, border="zero"), "border='zero'"),
        (lambda: SpatialShift(1, reach=0), "reach=0"),
        (lambda: SpatialShift(2)(torch.zeros(1, 4, 4, 3)), "3 channels"),
        (lambda: SpatialShift(1)(torch.zeros(4, 4)), "expected (batch, 1 axes, channels)"),
        (lambda: SpatialShift(1, reach=3)(torch.zeros(1, 3, 8)), "more than reach=3"),
        (lambda: PolyBlock(8, expansion=0), "expansion=0"),
        (lambda: PolyBlock(8, drop_path=1.0), "drop_path=1.0"),
        (lambda: MONet(1, 0), "classes=0"),
        (lambda: MONet(depths=(1,), widths=(8, 8)), "one number of each"),
        (lambda: MONet(patches=(4,), pyramid=True), "two steps"),
        (lambda: MONet(norm="rms"), "norm='rms'"),
        (lambda: MONet(1, 2, depths=(1,), widths=(32,))(torch.zeros(1, 1, 3, 3)), "at least 8"),
    ],
)
def test_bad_input_is_named(make, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as caught:
        make()
    assert text in str(caught.value)


def test_damaged_file_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    MONet(1, 2, depths=(1,), widths=(32,), patches=(2,)).save(tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(content[:-100])
    with pytest.raises(DatasetFormatError, match="damaged"):
        MONet.load(tmp_path / "m.safetensors")
