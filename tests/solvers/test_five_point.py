"""The five-point scheme: order, exactness of the elimination, the V-cycle, iterations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import spsolve
from threadpoolctl import threadpool_limits

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers import CartesianGrid, five_point
from sciml.solvers.five_point import RED, FivePoint, _BandedCholesky, _coarsen, _Multigrid, _Network
from sciml.solvers.linear import conjugate_gradient

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))


def faces(inner: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random conductances, contrast 1e3."""
    rng, (m, n) = np.random.default_rng(seed), inner
    return 10 ** rng.uniform(-1, 2, (m + 1, n)), 10 ** rng.uniform(-1, 2, (m, n + 1))


def operator(face_x: np.ndarray, face_y: np.ndarray) -> np.ndarray:
    """The dense matrix of a network, node by node."""
    m, n = len(face_y), face_x.shape[1]
    number = np.full((m + 2, n + 2), -1)
    number[1:-1, 1:-1] = np.arange(m * n).reshape(m, n)
    matrix = np.zeros((m * n, m * n))
    for i, j in np.ndindex(m, n):
        row = number[i + 1, j + 1]
        for c, other in (
            (face_x[i, j], number[i, j + 1]),
            (face_x[i + 1, j], number[i + 2, j + 1]),
            (face_y[i, j], number[i + 1, j]),
            (face_y[i, j + 1], number[i + 1, j + 2]),
        ):
            matrix[row, row] += c
            if other >= 0:
                matrix[row, other] -= c
    return matrix


def two_phases(n: int, contrast: float) -> tuple[np.ndarray, CartesianGrid]:
    grid = CartesianGrid.uniform(n, (0.0, 0.0), (1.0, 1.0))
    x, y = np.moveaxis(grid.nodes(), -1, 0)
    return np.where(np.sin(9 * x + 4 * y) * np.cos(7 * y - 3 * x) >= 0, contrast, 1.0), grid


@pytest.mark.parametrize("cells", [(20, 31), (31, 20), (2, 2), (3, 2), (2, 9), (60, 53), (51, 80), (100, 64)])
def test_against_sparse_direct_solve(cells: tuple[int, int]) -> None:
    grid = CartesianGrid((0.0, 0.0), (1.0, 2.0), cells)
    rng = np.random.default_rng(0)
    scheme = FivePoint(rng.uniform(0.1, 10, grid.shape), grid)
    f = rng.normal(size=grid.shape)
    u, residual = scheme.solve(f)
    shape = (cells[0] - 1, cells[1] - 1)
    direct = np.reshape(spsolve(scheme.matrix().tocsc(), f[1:-1, 1:-1].ravel()), shape)
    assert u[1:-1, 1:-1] == pytest.approx(direct, abs=1e-10)
    assert residual < 1.1e-11
    assert scheme.matrix() @ direct.ravel() == pytest.approx(scheme.apply(direct).ravel(), abs=1e-9)
    assert not u[[0, -1]].any()
    assert not u[:, [0, -1]].any()


def test_second_order_for_smooth_coefficients() -> None:
    """-div(a grad u) with a = 2 + sin(3x + y) and u = sin(pi x) sin(2 pi y)."""
    errors, grids = [], (16, 32, 64, 128)
    for n in grids:
        grid = CartesianGrid.uniform(n, (0.0, 0.0), (1.0, 1.0))
        x, y = np.moveaxis(grid.nodes(), -1, 0)
        u = np.sin(np.pi * x) * np.sin(2 * np.pi * y)
        ux, uy = (
            np.pi * np.cos(np.pi * x) * np.sin(2 * np.pi * y),
            2 * np.pi * np.sin(np.pi * x) * np.cos(2 * np.pi * y),
        )
        a, ax, ay = 2 + np.sin(3 * x + y), 3 * np.cos(3 * x + y), np.cos(3 * x + y)
        f = 5 * np.pi**2 * a * u - ax * ux - ay * uy
        errors.append(np.abs(FivePoint(a, grid).solve(f)[0] - u).max())
    rate = -np.polyfit(np.log(grids), np.log(errors), 1)[0]
    assert 1.9 < rate < 2.1


@settings(max_examples=20, deadline=None)
@given(SIZES, st.integers(0, 2**20))
def test_elimination_of_the_black_nodes_is_exact(inner: tuple[int, int], seed: int) -> None:
    face_x, face_y = faces(inner, seed)
    network, matrix = _Network(face_x, face_y), operator(face_x, face_y)
    u = np.random.default_rng(seed).normal(size=inner)
    f = (matrix @ u.ravel()).reshape(inner)
    rhs, source = network.eliminate(f)
    red = network._flat(u, RED)
    assert network.schur(red) * (network.inverse[RED] > 0) == pytest.approx(rhs, rel=1e-9, abs=1e-9)
    assert network.complete(red, source) == pytest.approx(u, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(SIZES, st.integers(0, 2**20))
def test_banded_cholesky_solves(inner: tuple[int, int], seed: int) -> None:
    face_x, face_y = faces(inner, seed)
    f = np.random.default_rng(seed).normal(size=inner)
    exact = np.linalg.solve(operator(face_x, face_y), f.ravel()).reshape(inner)
    assert _BandedCholesky(face_x, face_y).solve(f) == pytest.approx(exact, rel=1e-8, abs=1e-10)


@settings(max_examples=20, deadline=None)
@given(SIZES, st.integers(0, 2**20))
def test_restriction_is_the_transpose_of_prolongation(inner: tuple[int, int], seed: int) -> None:
    network = _Network(*faces(inner, seed))
    rng = np.random.default_rng(seed)
    coarse, red = rng.normal(size=(inner[0] // 2, inner[1] // 2)), rng.normal(size=network.diagonal.shape)
    red *= network.inverse[RED] > 0
    left, right = np.vdot(network.prolong(coarse), red), np.vdot(coarse, network.restrict(red))
    assert left == pytest.approx(right, abs=1e-10)


def test_prolongation_is_exact_for_flow_across_layers() -> None:
    """Layers normal to x with flux 1 through all of them: u is the sum of resistances."""
    inner = (15, 15)
    face_x = np.repeat(np.random.default_rng(3).uniform(1, 1e3, (16, 1)), 15, axis=1)
    face_y = np.ones((15, 16))
    u = np.cumsum(1 / face_x, axis=0)[:-1]
    network = _Network(face_x, face_y)
    found = network.prolong(u[1::2, 1::2])
    ours, exact = (network._blocks(values, RED)[1][1:-1, 1:-1] for values in (found, network._flat(u, RED)))
    assert u.shape == inner
    assert ours == pytest.approx(exact, rel=1e-12)


def test_coarse_conductances() -> None:
    """A uniform network stays the same in two dimensions; a face without a partner is kept."""
    assert _coarsen(np.ones((16, 15))) == pytest.approx(np.ones((8, 7)))
    layers = np.arange(1.0, 8.0)[:, None] * np.ones(15)
    assert _coarsen(layers) == pytest.approx(
        np.array([4 / 3, 24 / 7, 60 / 11, 14.0])[:, None] * np.ones(7), rel=1e-14
    )
    assert _coarsen(np.ones((4, 14)))[:, -1] == pytest.approx(0.75)


@pytest.mark.parametrize("inner", [(51, 51), (52, 60), (25, 70)])
def test_v_cycle_is_symmetric_and_positive(inner: tuple[int, int]) -> None:
    cycle = _Multigrid(*faces(inner)).cycle
    mask = _Network(*faces(inner)).inverse[RED] > 0
    vectors = np.random.default_rng(1).normal(size=(6, mask.size)) * mask
    images = np.stack([cycle(v) for v in vectors])
    gram = images @ vectors.T
    assert gram == pytest.approx(gram.T, rel=1e-10, abs=1e-10 * np.abs(gram).max())
    assert np.linalg.eigvalsh(gram).min() > 0


def test_iterations_depend_little_on_grid_and_contrast(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def counted(*args, **kwargs):  # type: ignore[no-untyped-def]
        x, history = conjugate_gradient(*args, **kwargs)
        counts.append(len(history) - 1)
        return x, history

    monkeypatch.setattr(five_point, "conjugate_gradient", counted)
    for contrast in (1.0, 4.0, 1e4):
        for n in (64, 128, 256):
            a, grid = two_phases(n, contrast)
            assert FivePoint(a, grid).solve(np.ones(grid.shape), 1e-8)[1] < 2e-8
    uniform, mild, strong = np.reshape(counts, (3, 3))
    assert max(uniform) <= 7
    assert max(mild) <= 12
    assert max(strong) <= 40
    assert max(mild) - min(mild) <= 3


def test_unequal_spacings_converge() -> None:
    grid = CartesianGrid((0.0, 0.0), (10.0, 1.0), (64, 64))
    x, y = np.moveaxis(grid.nodes(), -1, 0)
    scheme = FivePoint(np.where(np.sin(2 * x) * np.sin(5 * y) > 0, 4.0, 1.0), grid)
    assert scheme.solve(np.ones(grid.shape), 1e-10)[1] < 1.1e-10


@settings(max_examples=10, deadline=None)
@given(st.integers(-300, 300), st.integers(-300, 300))
def test_powers_of_two_scale_the_solution_bit_for_bit(k: int, j: int) -> None:
    a, grid = two_phases(40, 4.0)
    f = np.random.default_rng(2).normal(size=grid.shape)
    u = FivePoint(a, grid).solve(f)[0]
    assert (FivePoint(a * 2.0**k, grid).solve(f * 2.0**j)[0] == u * 2.0 ** (j - k)).all()


def test_bits_do_not_depend_on_threads() -> None:
    a, grid = two_phases(170, 4.0)
    scheme, f = FivePoint(a, grid), np.random.default_rng(2).normal(size=grid.shape)
    solutions = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            solutions.append(scheme.solve(f))
    assert (solutions[0][0] == solutions[1][0]).all()
    assert solutions[0][1] == solutions[1][1]


def test_zero_source() -> None:
    a, grid = two_phases(40, 4.0)
    u, residual = FivePoint(a, grid).solve(np.zeros(grid.shape))
    assert not u.any()
    assert residual == 0


def test_too_few_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    a, grid = two_phases(40, 4.0)
    monkeypatch.setattr(five_point, "MAX_ITERATIONS", 2)
    with pytest.raises(ConvergenceError, match="no convergence to 1e-11 in 2 iterations"):
        FivePoint(a, grid).solve(a)


def test_bad_input() -> None:
    grid = CartesianGrid.uniform(8)
    with pytest.raises(ConfigError, match="positive everywhere"):
        FivePoint(np.zeros(grid.shape), grid)
    with pytest.raises(ConfigError, match="shape"):
        FivePoint(np.ones((3, 3)), grid)
    with pytest.raises(ConfigError, match="bounded 2D grid"):
        FivePoint(np.ones((8, 8)), CartesianGrid.uniform(8, periodic=True))
    with pytest.raises(ConfigError, match="dtype complex128"):
        FivePoint(np.ones(grid.shape) + 1j, grid)
    with pytest.raises(ConfigError, match="coefficient of type list: give an array"):
        FivePoint([[1.0], [1.0, 2.0]], grid)  # type: ignore[arg-type]
    scheme = FivePoint(np.ones(grid.shape), grid)
    for source, shape in ((1.0, r"\(\)"), (np.ones((3, 3)), r"\(3, 3\)"), ([1.0, 2.0], r"\(2,\)")):
        with pytest.raises(ConfigError, match=f"source of shape {shape}: the grid has shape"):
            scheme.solve(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.float32, int])
def test_coefficients_are_taken_in_double_precision(dtype: type) -> None:
    a, grid = two_phases(40, 3.0)
    ones = np.ones(grid.shape)
    u, residual = FivePoint(a.astype(dtype), grid).solve(ones.astype(dtype))
    assert residual < 1e-11
    assert (u == FivePoint(a, grid).solve(ones)[0]).all()
