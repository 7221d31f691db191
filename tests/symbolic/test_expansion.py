"""Networks as polynomials: equality to rounding, degrees, foldings, what cannot be expanded."""

import itertools

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sciml.errors import ConfigError
from sciml.networks import MuLayer, PolyBlock, SpatialShift
from sciml.symbolic import PolynomialMap, differential_form, expand, monomial_exponents


def stack(layers: int, d: int, seed: int, shift: SpatialShift | None = None, **options) -> nn.Sequential:  # type: ignore[no-untyped-def]
    hidden = 5 * len(shift.offsets) if shift else 5
    rank = len(shift.offsets) if shift else 2
    network = nn.Sequential(
        *(
            MuLayer(d, hidden, d, rank, norm=None, shift=shift, dtype=torch.float64, **options)
            for _ in range(layers)
        )
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(0, 1000), st.booleans())
def test_expansion_equals_the_network(layers: int, d: int, seed: int, bias: bool) -> None:
    network = stack(layers, d, seed, bias=bias)
    p = expand(network)
    assert len(p.exponents) <= len(monomial_exponents(d, 2**layers))
    assert p.degree <= 2**layers
    x = torch.rand(50, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    expected = network(x).detach().numpy()
    assert abs(p(x.numpy()) - expected).max() < 1e-12 * max(1, abs(p.coefficients).max())


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_degree_along_a_line(layers: int) -> None:
    network, degree = stack(layers, 3, layers), 2**layers
    assert expand(network).degree == degree
    direction = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    t = torch.linspace(-4, 4, degree + 3, dtype=torch.float64)
    values = network(t[:, None] * direction).detach().numpy()
    differences = np.diff(values, degree, axis=0)
    # The differences of the order of the degree are constant, and not zero.
    assert abs(differences).max() > 1e-7 * abs(values).max()
    assert abs(np.diff(differences, axis=0)).max() < 1e-11 * abs(values).max()


def test_closed_form_of_one_layer() -> None:
    network = stack(1, 2, 3)
    w = {n.removeprefix("0."): p.detach().numpy() for n, p in network.named_parameters()}
    product = w["B.weight"] @ w["D.weight"]
    b = w["B.weight"] @ w["D.bias"] + w["B.bias"]
    p = expand(network, ("x", "y"))
    for k in range(2):
        c = w["C.weight"][k]
        quadratic = np.einsum("j,ji,jl->il", c, w["A.weight"], product)
        terms = p.terms(k)
        assert terms["x y"] == pytest.approx(quadratic[0, 1] + quadratic[1, 0], abs=1e-13)
        assert terms["y^2"] == pytest.approx(quadratic[1, 1], abs=1e-13)
        linear = c @ ((1 + b)[:, None] * w["A.weight"] + w["A.bias"][:, None] * product)
        assert terms["x"] == pytest.approx(linear[0], abs=1e-13)
        assert terms["1"] == pytest.approx(w["C.bias"][k] + c @ (w["A.bias"] * (1 + b)), abs=1e-13)


def test_folded_scaling_of_inputs() -> None:
    network, scale, offset = stack(2, 2, 4), np.array([0.5, 3.0]), np.array([0.2, -1.0])
    x = np.random.default_rng(0).normal(size=(20, 2))
    expected = network(torch.as_tensor((x - offset) / scale)).detach().numpy()
    assert abs(expand(network, scale=scale, offset=offset)(x) - expected).max() < 1e-11
    p = expand(network).rescaled(scale, [2.0, 5.0])
    expected = network(torch.as_tensor(x / scale)).detach().numpy() * [2.0, 5.0]
    assert abs(p(x) - expected).max() < 1e-11


def test_folded_batch_norms_and_residuals() -> None:
    torch.manual_seed(0)
    block = PolyBlock(2, rank_ratio=1, norm="batch", dtype=torch.float64)
    for _ in range(3):
        block(torch.randn(64, 2, dtype=torch.float64))
    with pytest.raises(ConfigError, match="'norm' is a batch norm in training mode"):
        expand(block)
    block.eval()
    x = torch.rand(20, 2, dtype=torch.float64)
    p = expand(block)
    assert p.degree == 4
    expected = block(x).detach().numpy()
    assert abs(p(x.numpy()) - expected).max() < 1e-11 * abs(p.coefficients).max()


@pytest.mark.parametrize("axes", [1, 2])
def test_shifted_layers_are_stencils(axes: int) -> None:
    shift = SpatialShift(axes, border="periodic", unshifted=True)
    layers = 2 if axes == 1 else 1
    network = stack(layers, 1, 7, shift)
    p = expand(network, ("u",), limit=10**5)
    x = torch.randn(1, *[8] * axes, 1, dtype=torch.float64)
    y = network(x)[0, ..., 0].detach().numpy()
    u = x[0, ..., 0].numpy()
    for node in itertools.islice(np.ndindex(*u.shape), 5):
        # "u[-1,0]" is the value of the neighbour at that offset.
        cells = [tuple(int(k) for k in name[2:-1].split(",")) for name in p.variables]
        values = [u[tuple((i + k) % 8 for i, k in zip(node, cell, strict=True))] for cell in cells]
        assert abs(p(np.array(values))[0] - y[node]) < 1e-11
    # Two layers on a line, one in the plane.
    assert len(p.variables) == 5


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (nn.Sequential(MuLayer(2, 4, 2, norm=None), MuLayer(2, 4, 2)), "layer '1.norm_a' is a LayerNorm"),
        (PolyBlock(8, rank_ratio=2), "layer 'norm' is a LayerNorm"),
        (nn.Sequential(MuLayer(2, 4, 2, norm=None), nn.Tanh()), "layer '1' is a Tanh"),
        (
            nn.Sequential(MuLayer(2, 8, 2, 4, norm=None, shift=SpatialShift(2)), nn.Identity()),
            "only a periodic shift",
        ),
        (nn.Tanh(), "no linear map or Mu-layer"),
    ],
)
def test_what_is_no_polynomial_is_named(network: nn.Module, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand(network)
    assert text in str(caught.value)


def test_too_many_monomials_are_counted_before_they_are_made() -> None:
    # Degree 8 in 6 variables: (8 + 6 choose 6).
    with pytest.raises(ConfigError, match="up to 3003 monomials, limit=3002"):
        expand(stack(3, 6, 0), limit=3002)
    for argument, value in (("scale", [1.0, 0.0]), ("scale", [1.0] * 3), ("offset", [np.nan, 0.0])):
        with pytest.raises(ConfigError, match=f"{argument}="):
            expand(stack(1, 2, 0), **{argument: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"variables=.*2 inputs"):
        expand(stack(1, 2, 0), ("x",))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_algebra_against_values(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def random() -> PolynomialMap:
        exponents = monomial_exponents(2, 2)
        kept = rng.permutation(len(exponents))[: rng.integers(1, 6)]
        coefficients = rng.normal(size=(len(kept), 3)) * rng.integers(0, 2, (len(kept), 1))
        return PolynomialMap(exponents[kept], coefficients, ("x", "y"))

    p, q, x = random(), random(), rng.normal(size=(10, 2))
    assert np.allclose((p + q)(x), p(x) + q(x), atol=1e-12)
    assert np.allclose(p.times(q)(x), p(x) * q(x), atol=1e-11)
    w, b = rng.normal(size=(4, 3)), rng.normal(size=4)
    assert np.allclose(p.transformed(w, b)(x), p(x) @ w.T + b, atol=1e-12)


def test_algebra_of_nothing_and_of_others() -> None:
    nothing = PolynomialMap(np.zeros((0, 2), int), np.zeros((0, 1)), ("x", "y"))
    one = PolynomialMap(np.zeros((1, 2), int), np.ones((1, 1)), ("x", "y"))
    # A row without a coefficient must not be taken for another one.
    hidden = PolynomialMap(np.array([[2, 0], [0, 1]]), np.array([[0.0], [1.0]]), ("x", "y"))
    assert hidden.times(one).pruned(0.0).terms() == {"y": 1.0}
    assert nothing.times(one).terms() == (nothing + nothing).terms() == {}
    assert nothing(np.ones((3, 2))).tolist() == [[0.0]] * 3
    assert nothing.text(["f"]) == "f = 0"
    other = PolynomialMap(np.zeros((1, 2), int), np.ones((1, 1)), ("x", "z"))
    for combine in (one.times, one.__add__):
        with pytest.raises(ConfigError, match="polynomials of variables"):
            combine(other)
        with pytest.raises(ConfigError, match="polynomials of outputs 1 and 2"):
            combine(PolynomialMap(np.zeros((1, 2), int), np.ones((1, 2)), ("x", "y")))


def test_forms_of_output() -> None:
    p = PolynomialMap(np.array([[0, 0], [1, 0], [1, 2]]), np.array([[0.5], [0.0], [-2.0]]), ("x", "y"))
    x, y = sympy.symbols("x y")
    assert sympy.simplify(p.sympy()[0] - (0.5 - 2 * x * y**2)) == 0
    assert p.text(["f"]) == "f = 0.5 - 2 x y^2"
    assert p.latex(["f"]) == r"f &= 0.5 - 2\, x y^{2}"
    waves = PolynomialMap(np.array([[1, 2]]), np.array([[3.0]]), ("u", "u_xx"))
    assert waves.latex(["f"]) == r"f &= 3\, u u_{xx}^{2}"
    rounded = PolynomialMap(np.array([[1]]), np.array([[1.5]]), ("x",))
    assert rounded.text(["f"], errors=np.array([[0.0996]])) == "f = 1.50(10) x"
    errors = np.array([[0.0123], [0.0], [3.0e-5]])
    assert p.text(["f"], errors=errors) == "f = 0.500(12) - 2.000000(30) x y^2"
    assert p.pruned(0.6).terms() == {"x y^2": -2.0}
    # In units of the variables' sizes the small term is the large one.
    assert p.pruned(0.3, sizes=[0.1, 0.1]).terms() == {"1": 0.5}
    with pytest.raises(ConfigError, match="a monomial is there twice"):
        PolynomialMap(np.array([[1], [1]]), np.ones((2, 1)), ("x",))
    with pytest.raises(ConfigError, match="not all are finite"):
        PolynomialMap(np.array([[1]]), np.full((1, 1), np.nan), ("x",))


def test_differential_form_of_differences() -> None:
    h = 0.1
    names = ("u[-1]", "u[0]", "u[1]")
    exponents = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 0, 0], [0, 0, 2]])
    nu = 0.01
    c = np.array([nu / h**2, -2 * nu / h**2, nu / h**2, 0.25 / h, -0.25 / h])[:, None]
    form = differential_form(PolynomialMap(exponents, c, names), [h], 3).pruned(1e-12).terms()
    # Burgers' equation; the error term of (u^2)_x / 2 is h^2 (u^2)_xxx / 12.
    assert form.pop("u_xx") == pytest.approx(nu, abs=1e-12)
    assert form.pop("u u_x") == pytest.approx(-1, abs=1e-12)
    assert form.pop("u u_xxx") == pytest.approx(-(h**2) / 6, abs=1e-12)
    assert form.pop("u_x u_xx") == pytest.approx(-(h**2) / 2, abs=1e-12)
    assert form == {}
    plane = PolynomialMap(np.eye(2, dtype=int), np.array([[1.0], [-1.0]]), ("u[1,1]", "u[-1,-1]"))
    terms = differential_form(plane, [0.5, 0.25], 1).pruned(1e-12).terms()
    assert terms == {"u_x": pytest.approx(1.0), "u_y": pytest.approx(0.5)}
    with pytest.raises(ConfigError, match="values of cells"):
        differential_form(PolynomialMap(np.array([[1]]), np.ones((1, 1)), ("x",)), [h])
    with pytest.raises(ConfigError, match="the stencil has 1 axes"):
        differential_form(PolynomialMap(exponents, c, names), [h, h])
