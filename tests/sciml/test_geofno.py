"""Geo-FNO and its baselines: what does not change the function, deformations, training on clouds, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciml.errors import ConfigError
from sciml.operators import (
    CloudOperator,
    GeoFNO,
    GeoFNOConfig,
    InterpolatedFNO,
    NonuniformFourier,
    Operator,
    PointMLP,
    cloud,
)
from sciml.operators import geofno as module

SMALL = {"modes": (6,), "point_modes": (4,), "width": 8, "latent": (8,), "deformation_width": 16}


def geofno(dim: int = 2, fields: int = 1, code: int = 3, **changes: Any) -> GeoFNO:
    """A small model with a deformation that is not the identity."""
    torch.manual_seed(0)
    channels = dim + 1 + fields + code
    model = GeoFNO(channels, 2, (False,) * dim, code_size=code, **{**SMALL, **changes}).double()
    if model.deformation is not None:
        nn.init.normal_(model.deformation.out.weight, std=0.02)
    return model.eval()


def clouds(dim: int = 2, n: int = 90, fields: int = 1, code: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = (3, n, dim), (3, n, fields), (3, code)
    return cloud(*(torch.rand(*size, generator=generator, dtype=torch.float64) for size in sizes))


MODELS = {
    "geofno": geofno,
    "interpolated": lambda **more: InterpolatedFNO(
        7, 2, config=None, modes=(4,), width=8, grid=9, code_size=3, **more
    ).double(),
    "point": lambda **more: PointMLP(7, 2, width=16, code_size=3, **more).double(),
}
every = pytest.mark.parametrize("name", MODELS)


@every
def test_order_and_filling_up_do_not_matter(name: str) -> None:
    torch.manual_seed(0)
    model: CloudOperator = MODELS[name]().eval()
    a = clouds()
    u = model(a)
    assert u.shape == (3, 90, 2)
    assert u.std() > 1e-3
    order = torch.randperm(90)
    assert torch.allclose(model(a[:, order]), u[:, order], atol=1e-12)
    filled = torch.cat([a, a[:, :7]], 1)
    filled[:, 90:, 2] = 0
    assert torch.allclose(model(filled)[:, :90], u, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("deformation", ["learned", "none", "given"])
def test_in_all_dimensions_and_in_parts(dim: int, deformation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = geofno(dim, dim, deformation=deformation)
    a = clouds(dim, 150, dim)
    with torch.no_grad():
        u = model(a)
        monkeypatch.setattr(module, "LARGEST", 100)
        assert torch.allclose(model(a), u, atol=1e-12)
    assert u.shape == (3, 150, 2)
    assert u.std() > 1e-3


def test_points_with_half_their_weight_twice_are_the_same_function() -> None:
    model, a = geofno(), clouds()
    twice = torch.cat([a, a], 1)
    twice[..., 2] /= 2
    assert torch.allclose(model(twice)[:, :90], model(a), atol=1e-12)
    # Plain sums, as published, give another function, of another size.
    summed = torch.cat([a, a], 1)
    change = (model(summed)[:, :90] - model(a)).norm() / model(a).norm()
    assert change > 0.01


def test_more_points_of_the_same_function_change_little() -> None:
    """Uniform random points: sums are Monte Carlo integrals. Midpoints of cells: second order."""
    model = geofno(code=0, frequencies=1)

    def on_midpoints(n: int) -> Tensor:
        t = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        x = torch.stack(torch.meshgrid(t, t, indexing="ij"), -1).flatten(0, 1)[None]
        probe = torch.tensor([[[0.2, 0.3], [0.7, 0.6]]], dtype=torch.float64)
        points = torch.cat([probe, x], 1)
        f = torch.sin(3 * points[..., :1] + points[..., 1:])
        weights = torch.full(points.shape[:2], 1 / n**2, dtype=torch.float64)
        weights[:, :2] = 1e-12
        return model(cloud(points, f, None, weights))[0, :2].detach()

    exact = on_midpoints(320)
    sizes = (16, 20, 28, 40, 56)
    errors = [float((on_midpoints(n) - exact).norm()) for n in sizes]
    assert -np.polyfit(np.log(sizes), np.log(errors), 1)[0] > 1.85


def test_given_coordinates_are_those_of_the_box() -> None:
    none, given = geofno(deformation="none"), geofno(fields=3, deformation="given")
    state = none.state_dict()
    first = state["lifting.0.weight"]
    state["lifting.0.weight"] = torch.cat([first[:, :2], 0 * first[:, :2], first[:, 2:]], 1)
    for part in ("mean", "std"):
        values = state[f"input_{part}"]
        filled = torch.full((2,), float(part == "std"), dtype=torch.float64)
        state[f"input_{part}"] = torch.cat([values[:3], filled, values[3:]])
    given.load_state_dict(state)
    a = clouds()
    coordinates = a[..., :2] / 1.25
    assert torch.allclose(given(torch.cat([a[..., :3], coordinates, a[..., 3:]], -1)), none(a), atol=1e-12)
    # They stay as they are.
    b = torch.cat([a[..., :3], coordinates, a[..., 3:]], -1)
    given.set_normalisers(b, torch.rand(3, 90, 2))
    assert given.input_mean[3:5].tolist() == [0, 0]
    assert given.input_std[3:5].tolist() == [1, 1]


def test_derivatives_by_points_and_code() -> None:
    model, a = geofno(), clouds(n=40)

    def function(points: Tensor, code: Tensor) -> Tensor:
        return model(cloud(points, a[:1, :, 3:4], code)).sum((0, 1))

    points, code = a[:1, :, :2].clone().requires_grad_(), a[:1, 0, 4:].clone().requires_grad_()
    assert torch.autograd.gradcheck(function, (points, code), atol=1e-6)


def test_the_deformation_has_no_jump_at_an_angle_of_pi() -> None:
    """Published features are sines of 2^j pi theta, which jump there."""
    model = geofno()
    assert model.deformation is not None
    left = torch.tensor([[[0.2, 0.5 - 1e-9], [0.2, 0.5 + 1e-9]]], dtype=torch.float64)
    code = torch.rand(1, 3, dtype=torch.float64)
    fields = torch.zeros(1, 2, 1, dtype=torch.float64)
    below, above = model.deformation(left, fields, code)[0]
    assert (below - above).abs().max() < 1e-5
    angle = torch.atan2(left[0, :, 1] - 0.5, left[0, :, 0] - 0.5)
    published = torch.sin(torch.pi * angle)
    assert (published[0] - published[1]).abs() > 0.8
    # At the centre there is no angle, but a number, and a derivative.
    centre = torch.full((1, 1, 2), 0.5, dtype=torch.float64, requires_grad=True)
    model.deformation(centre, fields[:, :1], code).sum().backward()
    assert torch.isfinite(centre.grad).all()  # type: ignore[arg-type]


class Mirrored(nn.Module):
    """Turns the plane over to the left of x = 0.25."""

    def forward(self, x: Tensor, fields: Tensor, code: Tensor) -> Tensor:
        return torch.stack([(x[..., 0] - 0.25).abs(), x[..., 1]], -1) - x


def test_every_parameter_is_learned() -> None:
    for model in (geofno(), geofno(coordinates="polar", magnitude=2), geofno(deformation="none", code=0)):
        code = model.config.code_size
        model(clouds(code=code)).sum().backward()
        assert all(p.grad is not None for p in model.parameters())


@every
def test_the_unit_of_length_does_not_matter(name: str) -> None:
    a, targets = clouds(), torch.rand(3, 90, 2).double()
    results = []
    for scale in (1.0, 1000.0):
        torch.manual_seed(0)
        model, scaled = MODELS[name](), a.clone()
        scaled[..., :2] *= scale
        scaled[..., 2] *= scale**2
        model.set_normalisers(scaled, targets)
        results.append(model(scaled))
    assert torch.allclose(*results, atol=1e-8)


def test_polar_coordinates() -> None:
    model = geofno(fields=0, code=0, coordinates="polar", padding=0.5, latent=(8, 12))
    assert model.space == (8, 12)
    nn.init.zeros_(model.deformation.out.weight)  # type: ignore[union-attr]
    x = torch.tensor([[[1.0, 0.5], [0.5, 0.9], [0.1, 0.1]]]).double()
    expected = [[0.5, 0.0], [0.4, 0.25], [0.4 * 2**0.5, -3 / 8]]
    scale = torch.tensor([2**0.5 / 1.5, 1.0])
    with torch.no_grad():
        place = model._deformed(x, x[..., :0], x[:, 0, :0])
    assert torch.allclose(place, torch.tensor([expected]).double() * scale, atol=1e-6)
    # Where the angle jumps by a turn the function does not, and what turns to the left in the box does so here.
    near = torch.tensor([[[0.2, 0.5 + 1e-9], [0.2, 0.5 - 1e-9]]]).double()
    rest = torch.rand(1, 40, 2).double()
    with torch.no_grad():
        u = model(cloud(torch.cat([near, rest], 1)))[0, :, 0]
    assert abs(u[0] - u[1]) < 1e-6 * u.abs().max()
    assert model.folded(cloud(rest)) == 0.0
    # What the first layer adds at the nodes does not jump there either.
    given: list[Tensor] = []
    model.first.register_forward_pre_hook(lambda _, arguments: given.append(arguments[2]))
    model(cloud(rest))
    steps = (given[0] - given[0].roll(1, 2)).abs().amax((0, 1, 3))
    assert steps.max() < 2 * steps.min() + 0.5 * steps.mean()
    for dim, deformation in ((3, "none"), (2, "given")):
        with pytest.raises(ConfigError, match="coordinates='polar'"):
            geofno(dim, 3, coordinates="polar", deformation=deformation)


@every
def test_magnitudes(name: str) -> None:
    model, a = MODELS[name](magnitude=3), clouds()
    targets = torch.rand(3, 90, 2).double() + torch.tensor([2.0, 5.0])
    model.set_normalisers(a, targets)
    u = model(a)
    assert u.shape == targets.shape
    assert u.min() > 0
    assert (u.mean((0, 1)) < targets.mean((0, 1))).all()
    # Of components that vanish there is no derivative but no harm either.
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    u = model(a)
    assert torch.allclose(u, (1e-3 * targets.std((0, 1))).expand_as(u), rtol=0.1)
    u.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_tables_survive_a_traced_call() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    fourier = NonuniformFourier((5,), "direct")
    with FakeTensorMode():
        fourier.analyse(torch.rand(1, 4, 1), torch.rand(1, 4, 1), torch.ones(1, 4))
    assert fourier.analyse(torch.rand(1, 4, 1), torch.rand(1, 4, 1), torch.ones(1, 4)).isfinite().all()


def test_folds_are_counted() -> None:
    model, a = geofno(deformation="learned"), clouds()
    a[:, -5:, 2] = 0
    fresh = GeoFNO(7, 2, code_size=3, **SMALL).double().eval()  # type: ignore[arg-type]
    assert fresh.folded(a).abs().max() == 0
    model.deformation = Mirrored()  # type: ignore[assignment]
    expected = (a[:, :-5, 0] < 0.25).double().mean(1)
    assert torch.allclose(model.folded(a).double(), expected, atol=1e-6)
    assert geofno(deformation="none").folded(a).abs().max() == 0


@every
def test_save_and_load(name: str, tmp_path: Path) -> None:
    model = MODELS[name]().float()
    a = clouds().float()
    model.set_normalisers(a, torch.rand(3, 90, 2))
    model.save(tmp_path / "m.safetensors")
    loaded = Operator.load(tmp_path / "m.safetensors")
    assert type(loaded) is type(model)
    assert torch.equal(loaded(a), model.eval()(a))


def test_normalisers_do_not_count_what_fills_up() -> None:
    a, u = clouds(), torch.rand(3, 90, 2, dtype=torch.float64)
    filled, more = torch.cat([a, 100 + a[:, :9]], 1), torch.cat([u, 50 * u[:, :9]], 1)
    filled[:, 90:, 2] = 0
    first, second = geofno(), geofno()
    first.set_normalisers(a, u)
    second.set_normalisers(filled, more)
    for part in ("input_mean", "input_std", "output_mean", "output_std"):
        assert torch.allclose(getattr(first, part), getattr(second, part))
    assert torch.equal(first.input_mean[:2], a[..., :2].amin((0, 1)))
    assert first.input_mean[2] == 0
    assert first.input_std[2] == 1


def test_interpolation_is_exact_for_linear_functions_at_the_nodes_and_between() -> None:
    model = MODELS["interpolated"]()
    nodes = torch.from_numpy(model.nodes)
    plane = (1 + 2 * nodes[:, :1] - nodes[:, 1:]).view(1, 9, 9, 1)
    x = torch.rand(1, 50, 2, dtype=torch.float64)
    assert torch.allclose(model._at_points(plane, x)[0], 1 + 2 * x[0, :, :1] - x[0, :, 1:], atol=1e-12)
    # Points on the nodes give them their values, and distance 0.
    found = model._at_nodes(nodes, torch.ones(81), plane.view(81, 1))
    assert torch.allclose(found[:, 0], plane.view(81), atol=1e-4)
    assert found[:, 1].abs().max() < 1e-12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeoFNOConfig(modes=(1,)), r"GeoFNO modes=\(1,\)"),
        (lambda: GeoFNOConfig(latent=(20,)), r"GeoFNO latent=\(20"),
        (lambda: GeoFNOConfig(layers=1), "GeoFNO layers=1"),
        (lambda: GeoFNOConfig(deformation="some"), "choose learned, given, none"),  # type: ignore[arg-type]
        (lambda: GeoFNOConfig(padding=-0.1), "GeoFNO padding=-0.1"),
        (lambda: GeoFNOConfig(width=0), "GeoFNO width=0"),
        (lambda: GeoFNO(4, code_size=2), "in_channels=4"),
        (lambda: GeoFNO(3, periodic=(True, False)), "positions are of a box"),
        (lambda: GeoFNO(3, modes=(8, 8, 8)), "one number for all axes, or one for each of 2"),
        (lambda: GeoFNO(4, deformation="given"), "must be coordinates"),
        (lambda: geofno(point_modes=(6,))(clouds(n=8)), "too few points, 8: it needs at least 9"),
        (lambda: geofno()(clouds(fields=2)), "expected .batch, 1 axes, 7 channels."),
        (lambda: geofno()(2 * clouds()), "is outside of the box from"),
        (
            lambda: geofno()(clouds() * torch.tensor([1, float("nan")] + 5 * [1])),
            "is outside of the box from",
        ),
        (lambda: cloud(torch.rand(9, 2)), r"points of shape \(9, 2\)"),
        (lambda: cloud(torch.rand(3, 9, 2), weights=torch.rand(3, 8)), r"weights .* give \(3, 9\)"),
        (lambda: cloud(torch.rand(3, 9, 2), torch.rand(3, 9)), r"fields .* give \(3, 9, channels\)"),
        (lambda: cloud(torch.rand(3, 9, 2), code=torch.rand(2, 9)), r"code .* give \(3, channels\)"),
        (lambda: InterpolatedFNO(3, grid=1), "grid=1"),
        (lambda: InterpolatedFNO(3, grid=5), "too coarse"),
        (lambda: GeoFNOConfig(coordinates="log"), "choose box, polar"),  # type: ignore[arg-type]
        (lambda: GeoFNOConfig(latent=(40, 12)), r"GeoFNO latent=\(40, 12\): the grid cannot tell modes"),
        (lambda: GeoFNO(3, latent=(40, 40, 40)), "latent=.*one number for all axes, or one for each of 2"),
        (lambda: GeoFNOConfig(magnitude=-1), "GeoFNO magnitude=-1"),
        (lambda: InterpolatedFNO(3, magnitude=-1), "InterpolatedFNO .*magnitude=-1"),
        (lambda: PointMLP(3, depth=0), "depth=0"),
        (lambda: PointMLP(3, magnitude=-1), "PointMLP .*magnitude=-1"),
        (
            lambda: PointMLP(3, magnitude=2).set_normalisers(clouds(2, 9, 0, 0), -torch.ones(3, 9, 1)),
            "a target is -1, and magnitudes are not negative",
        ),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
