"""Pseudo-spectral equations: bases, closed forms, conservation."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import iv

from sciml.solvers import CartesianGrid
from sciml.solvers.spectral import (
    AdvectionDiffusion,
    AllenCahn,
    Burgers,
    FourierBasis,
    GrayScott,
    KortewegDeVries,
    KuramotoSivashinsky,
    NavierStokes,
    ReactionDiffusion,
    SpectralEquation,
    SpectralSolver,
    Transforms,
)

TAU = 2 * np.pi


def box(*nodes: int, length: float | tuple[float, ...] = TAU) -> CartesianGrid:
    lengths = length if isinstance(length, tuple) else (length,) * len(nodes)
    return CartesianGrid((0.0,) * len(nodes), lengths, nodes, (True,) * len(nodes))


def smooth(grid: CartesianGrid, components: int = 1, seed: int = 0, waves: int = 2) -> np.ndarray:
    """Random real functions of few waves and zero mean, shape (components, *nodes), of size about 1."""
    rng, x = np.random.default_rng(seed), np.moveaxis(grid.nodes(), -1, 0)
    unit = TAU / (np.array(grid.upper) - grid.lower)
    result = np.zeros((components, *grid.shape))
    for c in range(components):
        for _ in range(5):
            k = rng.integers(1, waves + 1, grid.dim) * rng.choice([-1, 1], grid.dim) * unit
            result[c] += 0.4 * np.cos(np.tensordot(k, x, 1) + rng.uniform(0, TAU))
    return result


# -- Bases ------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.data())
def test_basis_round_trip_and_parseval(dim: int, data: st.DataObject) -> None:
    nodes = tuple(data.draw(st.integers(3, 9)) for _ in range(dim))
    basis = FourierBasis(box(*nodes, length=(1.0, 2.5, 0.7)[:dim]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    u, v = (basis.to_grid(basis.to_modes(rng.normal(size=(2, *nodes)))) for _ in range(2))
    modes = basis.to_modes(u)
    assert modes.shape == (2, *basis.mode_shape)
    assert basis.to_grid(modes) == pytest.approx(u, abs=1e-13)
    axes = tuple(range(1, dim + 1))
    assert basis.inner(modes, basis.to_modes(v)) == pytest.approx((u * v).mean(axis=axes), abs=1e-13)
    assert basis.mean(modes) == pytest.approx(u.mean(axis=axes), abs=1e-14)
    finer = tuple(n + data.draw(st.integers(0, 5)) for n in nodes)
    assert basis.to_modes(basis.to_grid(modes, finer)) == pytest.approx(modes, abs=1e-13)


@pytest.mark.parametrize("nodes", [(12,), (13,), (12, 9), (7, 10, 8)])
def test_series_are_evaluated_exactly_on_any_grid(nodes: tuple[int, ...]) -> None:
    basis = FourierBasis(box(*nodes, length=3.0))
    k = tuple((n - 1) // 2 for n in nodes)

    def wave(sizes: tuple[int, ...]) -> np.ndarray:
        x = np.moveaxis(box(*sizes, length=3.0).nodes(), -1, 0)
        return np.cos(TAU / 3 * np.tensordot(k, x, 1) + 0.3) + 2

    modes = basis.to_modes(wave(nodes))
    for sizes in (nodes, tuple(2 * n + 1 for n in nodes), tuple(n // 2 for n in nodes), (3,) * len(nodes)):
        assert basis.to_grid(modes, sizes) == pytest.approx(wave(sizes), abs=1e-13)


@pytest.mark.parametrize("n", [16, 17])
def test_derivatives_of_the_highest_mode(n: int) -> None:
    basis, x = FourierBasis(box(n, n)), box(n).axes[0]
    m = (n - 1) // 2
    u = np.sin(m * x)[:, None] * np.cos(m * x + 0.2)
    exact = -(m**3) * np.cos(m * x)[:, None] * np.cos(m * x + 0.2)
    assert basis.to_grid(basis.derivative(basis.to_modes(u), (1, 2))) == pytest.approx(exact, abs=1e-9)


def test_the_nyquist_mode_is_dropped() -> None:
    """cos(n x / 2) would have the wrong derivative, 0 on the nodes; a run does not contain it."""
    grid = box(16)
    u0 = np.cos(8 * grid.axes[0])[None]
    assert abs(FourierBasis(grid).to_modes(u0)).max() < 1e-16
    solver = SpectralSolver(AdvectionDiffusion((1.0,), 0.0), grid, step=1.0)
    assert solver.basis.modes == (7,)
    assert abs(solver.run(u0, [0.0, 1.0])).max() < 1e-15
    assert SpectralSolver(AdvectionDiffusion((1.0,), 0.0), box(17), step=1.0).basis.modes == (8,)


def test_symmetrise_removes_what_values_do_not_show() -> None:
    basis = FourierBasis(box(6, 7, 8))
    rng = np.random.default_rng(2)
    clean = basis.to_modes(rng.normal(size=(6, 7, 8)))
    kept = clean.copy()
    basis.symmetrise(kept)
    assert kept == pytest.approx(clean, abs=1e-16)
    spoiled = clean + rng.normal(size=clean.shape)
    before = basis.to_grid(spoiled)
    basis.symmetrise(spoiled)
    assert basis.to_grid(spoiled) == pytest.approx(before, abs=1e-13)
    assert basis.to_modes(before) == pytest.approx(spoiled, abs=1e-14)


@pytest.mark.parametrize("degree", [2, 3])
@pytest.mark.parametrize("n", [24, 25, 26, 27, 30])
@pytest.mark.parametrize("dealias", ["2/3", "padded"])
def test_products_do_not_alias(degree: int, n: int, dealias: Any) -> None:
    equation = Burgers(0.1) if degree == 2 else AllenCahn(0.1)
    solver = SpectralSolver(equation, box(n), step=1.0, dealias=dealias)
    basis, rng = solver.basis, np.random.default_rng(3)
    u = rng.normal(size=(1, 1, n))
    modes = basis.to_modes(u)
    transforms = Transforms(basis, solver.nodes, u)
    product = transforms.to_modes(transforms.to_grid(modes) ** degree)
    assert product == pytest.approx(basis.to_modes(basis.to_grid(modes, (8 * n,)) ** degree), abs=1e-14)
    assert solver.nodes[0] >= (degree + 1) * basis.modes[0] + 1
    assert basis.modes[0] == (n - 1) // (degree + 1 if dealias == "2/3" else 2)


def test_dealiasing_rules_agree_where_resolved() -> None:
    grid = box(64)
    runs = [
        SpectralSolver(Burgers(0.5), grid, step=0.01, dealias=rule).run(smooth(grid), [0.0, 0.5])
        for rule in ("2/3", "padded", "none")
    ]
    assert runs[0] == pytest.approx(runs[1], abs=1e-11)
    assert runs[0] == pytest.approx(runs[2], abs=1e-11)
    rough = [
        SpectralSolver(Burgers(0.02), grid, step=0.01, dealias=rule).run(smooth(grid), [0.0, 2.0])
        for rule in ("padded", "none")
    ]
    assert abs(rough[0] - rough[1]).max() > 1e-4


# -- Closed forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["etdrk4", "imex"])
def test_heat_and_advection(method: Any) -> None:
    grid, c, diffusivity, t = box(12, 9, length=(2.0, 3.0)), (0.7, -1.1), 0.03, 1.3
    x, y = np.moveaxis(grid.nodes(), -1, 0)
    k = (TAU / 2 * 3, TAU / 3 * 2)
    decay = math.exp(-diffusivity * (k[0] ** 2 + k[1] ** 2) * t)
    exact = decay * np.cos(k[0] * (x - c[0] * t) + k[1] * (y - c[1] * t)) + 0.5
    solver = SpectralSolver(AdvectionDiffusion(c, diffusivity), grid, step=1.3 / 64, method=method)
    u = solver.run((np.cos(k[0] * x + k[1] * y) + 0.5)[None], [0.0, t])[-1, 0]
    assert u == pytest.approx(exact, abs=1e-13 if method == "etdrk4" else 1e-4)


def test_intervals_of_nearly_equal_length_have_their_own_coefficients() -> None:
    grid = box(8)
    solver = SpectralSolver(AdvectionDiffusion((1.0,), 0.0), grid, step=1.0)
    run = solver.run(np.sin(grid.axes[0])[None], [0.0, 0.1, 0.2001])
    assert run[-1, 0] == pytest.approx(np.sin(grid.axes[0] - 0.2001), abs=1e-14)


def soliton(n: int) -> tuple[SpectralSolver, np.ndarray, np.ndarray]:
    grid, c, t = box(n, length=40.0), 2.0, 1.0
    x = grid.axes[0]
    first, last = (c / 2 / np.cosh(math.sqrt(c) / 2 * (x - 15 - c * s)) ** 2 for s in (0.0, t))
    return SpectralSolver(KortewegDeVries(), grid, step=1 / 400), first, last


def cole_hopf(n: int) -> tuple[SpectralSolver, np.ndarray, np.ndarray]:
    nu, x = 0.2, box(n).axes[0]

    def exact(t: float) -> np.ndarray:
        a = 0.6 * math.exp(-nu * t)
        return 2 * nu * a * np.sin(x) / (1 + a * np.cos(x))

    return SpectralSolver(Burgers(nu), box(n), step=1 / 100), exact(0.0), exact(1.0)


def shear_flow(n: int) -> tuple[SpectralSolver, np.ndarray, np.ndarray]:
    """A shear flow does not move itself: w diffuses, from exp(sin x) less its mean."""
    grid, nu = box(n, n + 2), 0.05
    x, _ = np.moveaxis(grid.nodes(), -1, 0)
    # exp(sin x) = I_0(1) + 2 sum_k I_k(1) cos(k (x - pi / 2))
    exact = sum(2 * iv(k, 1.0) * math.exp(-nu * k**2) * np.cos(k * (x - np.pi / 2)) for k in range(1, 20))
    return SpectralSolver(NavierStokes(nu), grid, step=0.02), np.exp(np.sin(x)) - iv(0, 1.0), exact


def fronts_at_rest(n: int) -> tuple[SpectralSolver, np.ndarray, np.ndarray]:
    """A front and its mirror image, far apart."""
    grid, width = box(n, length=1.0), math.sqrt(2 * 1e-4)
    x = grid.axes[0]
    u = np.tanh((x - 0.25) / width) * np.tanh((0.75 - x) / width)
    return SpectralSolver(AllenCahn(1e-4), grid, step=0.01), u, u


@pytest.mark.parametrize(
    ("case", "sizes", "last"),
    [
        (soliton, (64, 96, 144, 192), 1e-8),
        (cole_hopf, (16, 24, 32, 48, 64), 1e-10),
        (shear_flow, (8, 16, 24, 36), 1e-11),
        (fronts_at_rest, (128, 192, 256, 512), 1e-7),
    ],
)
def test_spectral_accuracy(case: Callable, sizes: tuple[int, ...], last: float) -> None:
    errors = []
    for n in sizes:
        solver, start, exact = case(n)
        errors.append(abs(solver.run(start[None], [0.0, 1.0])[-1, 0] - exact).max())
    assert errors[-1] < last
    # Faster than a power: the local order rises, or the rounding has been met.
    orders = -np.diff(np.log(errors)) / np.diff(np.log(sizes))
    assert orders[0] > 3
    assert all(later > 1.05 * sooner for sooner, later in itertools.pairwise(orders))


def test_taylor_green_vortices_decay() -> None:
    grid, nu = box(16, 18), 0.1
    x, y = np.moveaxis(grid.nodes(), -1, 0)
    w = 2 * np.cos(x) * np.cos(y)
    run = SpectralSolver(NavierStokes(nu, drag=0.3), grid, step=0.1).run(w[None], [0.0, 0.5, 2.0])
    for t, u in zip((0.0, 0.5, 2.0), run[:, 0], strict=True):
        assert u == pytest.approx(w * math.exp(-(2 * nu + 0.3) * t), abs=1e-14)


def test_fisher_mean_grows_logistically() -> None:
    solver = SpectralSolver(ReactionDiffusion(0.1, 2.0), box(8), step=0.01)
    u = solver.run(np.full((1, 8), 0.2), [0.0, 1.0])[-1]
    assert u == pytest.approx(np.full((1, 8), 0.2 * math.e**2 / (0.8 + 0.2 * math.e**2)), abs=1e-9)


def test_gray_scott_without_reaction_relaxes() -> None:
    equation, grid, t = GrayScott(0.1, 0.05, 0.3, 0.2, dim=2), box(12, 16), 1.5
    start = np.stack([0.4 + 0.1 * np.cos(grid.nodes()[..., 1]), np.zeros(grid.shape)])
    a, b = SpectralSolver(equation, grid, step=0.05).run(start, [0.0, t])[-1]
    exact = 1 - 0.6 * math.exp(-0.3 * t) + 0.1 * math.exp(-0.4 * t) * np.cos(grid.nodes()[..., 1])
    assert a == pytest.approx(exact, abs=1e-9)
    assert abs(b).max() < 1e-15


def manufactured(equation: SpectralEquation, x: list[Any], t: Any) -> list[Any]:
    """Return u(x, t) per component, in sympy."""
    import sympy

    phase = sum(x)
    return [sympy.sin(phase - t + c) / 2 + sympy.cos(x[0] + c * t) / 4 for c in range(equation.components)]


def right_hand_side(equation: SpectralEquation, u: list[Any], x: list[Any]) -> list[Any]:
    import sympy

    def laplace(f: Any) -> Any:
        return sum(sympy.diff(f, s, 2) for s in x)

    d = sympy.diff
    match equation:
        case Burgers(viscosity=nu):
            return [nu * laplace(f) - sum(g * d(f, s) for g, s in zip(u, x, strict=True)) for f in u]
        case KortewegDeVries(nonlinearity=a, dispersion=b):
            return [-a * u[0] * d(u[0], x[0]) - b * d(u[0], x[0], 3)]
        case KuramotoSivashinsky(dim=1):
            return [-u[0] * d(u[0], x[0]) - d(u[0], x[0], 2) - d(u[0], x[0], 4)]
        case KuramotoSivashinsky():
            return [-sum(d(u[0], s) ** 2 for s in x) / 2 - laplace(u[0]) - laplace(laplace(u[0]))]
        case AllenCahn(diffusivity=nu):
            return [nu * laplace(u[0]) + u[0] - u[0] ** 3]
        case ReactionDiffusion(diffusivity=nu, rate=rho):
            return [nu * laplace(u[0]) + rho * u[0] * (1 - u[0])]
        case GrayScott(diffusivity_a=p, diffusivity_b=q, feed=feed, kill=kill):
            gain = u[0] * u[1] ** 2
            return [
                p * laplace(u[0]) - gain + feed * (1 - u[0]),
                q * laplace(u[1]) + gain - (feed + kill) * u[1],
            ]
    raise AssertionError(equation)


SOURCED: list[SpectralEquation] = [
    Burgers(0.1),
    Burgers(0.1, dim=2),
    Burgers(0.1, dim=3),
    KortewegDeVries(2.0, 0.1),
    KuramotoSivashinsky(),
    KuramotoSivashinsky(dim=2),
    AllenCahn(0.1, dim=2),
    AllenCahn(0.1, dim=3),
    ReactionDiffusion(0.1, 1.5),
    GrayScott(0.1, 0.05, 0.3, 0.4, dim=2),
]


@pytest.mark.parametrize("equation", SOURCED, ids=lambda e: f"{type(e).__name__}-{e.dim}d")
def test_manufactured_solutions(equation: SpectralEquation) -> None:
    """Every term has the right sign and factor: the source is derived by sympy."""
    import sympy

    t, x = sympy.Symbol("t"), list(sympy.symbols("x y z")[: equation.dim])
    u = manufactured(equation, x, t)
    rest = [sympy.diff(f, t) - g for f, g in zip(u, right_hand_side(equation, u, x), strict=True)]
    source, exact = (sympy.lambdify([t, *x], e, "numpy") for e in (rest, u))
    grid = box(*(14, 15, 16)[: equation.dim])
    nodes = np.moveaxis(grid.nodes(), -1, 0)

    def values(function: Callable, time: float, *at: np.ndarray) -> np.ndarray:
        return np.stack([np.broadcast_to(f, grid.shape) for f in function(time, *at)])

    solver = SpectralSolver(
        equation, grid, step=0.02, dealias="padded", source=lambda time, *at: values(source, time, *at)
    )
    start, end = values(exact, 0.0, *nodes), values(exact, 0.4, *nodes)
    assert solver.run(start, [0.0, 0.4])[-1] == pytest.approx(end, abs=2e-6)


def test_constant_source_is_the_function_without_time() -> None:
    grid = box(16, 18, length=1.0)
    x, y = np.moveaxis(grid.nodes(), -1, 0)
    force = 0.1 * (np.sin(TAU * (x + y)) + np.cos(TAU * (x + y)))[None]
    u0 = smooth(grid)
    runs = [
        SpectralSolver(NavierStokes(1e-2), grid, step=0.05, source=source).run(u0, [0.0, 1.0])
        for source in (force, lambda t, x, y: 0.1 * (np.sin(TAU * (x + y)) + np.cos(TAU * (x + y))))
    ]
    assert runs[0] == pytest.approx(runs[1], abs=1e-14)
    assert (
        abs(runs[0][-1] - SpectralSolver(NavierStokes(1e-2), grid, step=0.05).run(u0, [0, 1])[-1]).max()
        > 0.01
    )


# -- Structure --------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [(16, 16), (15, 20)])
def test_basdevant_form_is_the_convective_form(nodes: tuple[int, int]) -> None:
    grid = box(*nodes, length=(TAU, 5.0))
    solver = SpectralSolver(NavierStokes(0.1), grid, step=0.1)
    basis = solver.basis
    w = np.random.default_rng(4).normal(size=(1, 1, *nodes))
    modes = basis.to_modes(w - w.mean())
    transforms = Transforms(basis, solver.nodes, w)
    u, v = solver.equation.flow(transforms, modes)[0]
    gradient = [basis.to_grid(basis.derivative(modes, order))[0, 0] for order in ((1, 0), (0, 1))]
    convective = basis.to_modes(-(u * gradient[0] + v * gradient[1]))
    assert solver.equation.nonlinear(transforms)(modes)[0, 0] == pytest.approx(convective, abs=1e-13)
    # The flow is free of divergence, and its curl is w.
    u_hat, v_hat = basis.to_modes(u), basis.to_modes(v)
    assert basis.derivative(u_hat, (1, 0)) + basis.derivative(v_hat, (0, 1)) == pytest.approx(
        0 * u_hat, abs=1e-14
    )
    curl = basis.derivative(v_hat, (1, 0)) - basis.derivative(u_hat, (0, 1))
    assert curl == pytest.approx(modes[0, 0], abs=1e-13)


@pytest.mark.parametrize("dealias", ["2/3", "padded"])
@pytest.mark.parametrize("n", [24, 25])
def test_truncated_systems_conserve(dealias: Any, n: int) -> None:
    """<u, N(u)> = 0 up to rounding, for states as rough as the truncation permits."""
    rng = np.random.default_rng(5)
    for equation in (Burgers(0.1), KortewegDeVries(), KuramotoSivashinsky(), NavierStokes(0.1)):
        solver = SpectralSolver(equation, box(*(n,) * equation.dim), step=0.1, dealias=dealias)
        basis, u = solver.basis, rng.normal(size=(2, 1, *(n,) * equation.dim))
        u -= u.mean(axis=tuple(range(2, u.ndim)), keepdims=True)
        modes = basis.to_modes(u)
        change = solver.equation.nonlinear(Transforms(basis, solver.nodes, u))(modes)
        size = np.sqrt(basis.inner(modes, modes) * basis.inner(change, change))
        assert abs(basis.inner(modes, change) / size).max() < 1e-14
        assert abs(basis.mean(change)).max() < 1e-14
        if isinstance(equation, NavierStokes):  # energy: mean psi w / 2
            square = sum(k**2 for k in basis.wavenumbers)
            square[0, 0] = 1.0
            assert abs(basis.inner(modes / square, change) / size).max() < 1e-14


def test_monitor_sees_every_step_and_energy_balances() -> None:
    equation, grid = NavierStokes(0.02), box(24, 24)
    solver = SpectralSolver(equation, grid, step=0.05)
    seen: list[tuple[float, float, float]] = []

    def monitor(t: float, modes: np.ndarray) -> None:
        gradient = [solver.basis.derivative(modes, order) for order in ((1, 0), (0, 1))]
        dissipation = sum(solver.basis.inner(g, g).item() for g in gradient)
        seen.append((t, solver.basis.inner(modes, modes).item() / 2, 0.02 * dissipation))

    for _ in solver.frames(smooth(grid), [0.0, 0.5, 1.0], monitor=monitor):
        pass
    t, energy, loss = np.array(seen).T
    assert t == pytest.approx(np.linspace(0, 1, 21), abs=1e-15)
    simpson = (t[1] - t[0]) / 3 * (loss[0] + 4 * loss[1::2].sum() + 2 * loss[2:-1:2].sum() + loss[-1])
    assert energy[0] - energy[-1] == pytest.approx(simpson, rel=1e-6)


def test_hermitian_symmetry_lasts() -> None:
    """Without symmetrise the part that values do not show grows like exp(t / 4) from rounding."""
    grid, seen = box(18, 16, length=16.0), []
    solver = SpectralSolver(KuramotoSivashinsky(dim=2), grid, step=0.5)

    def monitor(t: float, modes: np.ndarray) -> None:
        repaired = modes.copy()
        solver.basis.symmetrise(repaired)
        seen.append(abs(repaired - modes).max())

    for _ in solver.frames(0.1 * smooth(grid), [0.0, 150.0], monitor=monitor):
        pass
    assert max(seen) < 1e-10
