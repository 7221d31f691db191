"""Compiled kernels: the sums they stand for, bits that depend on nothing else, and life without them."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sciml.errors import ConfigError
from sciml.solvers import CartesianGrid
from sciml.solvers.dg import AdvectionProblem, DGAdvection, TreeMesh
from sciml.solvers.exponential import ETDRK4
from sciml.solvers.spectral import Burgers, FourierBasis, KuramotoSivashinsky, NavierStokes, SpectralSolver

pytest.importorskip("numba")
from sciml.solvers.compiled import fourier, kernels, lanes
from sciml.solvers.compiled.fourier import CompiledTransform

# Every radix, alone and together, first and last axis; the smallest number of columns.
SHAPES = [(64,), (250,), (96,), (6,), (64, 64), (25, 48), (18, 30), (9, 16, 24), (5, 27, 50)]
ROUND_OFF = {np.complex128: 2e-15, np.complex64: 1e-6}


def transform(shape: tuple[int, ...], dtype: type, divisor: int = 3) -> CompiledTransform:
    modes = tuple(max(1, (n - 1) // divisor) for n in shape)
    modes = modes if len(shape) == 1 else (*modes[:-1], max(7, modes[-1]))
    return CompiledTransform(modes, shape, np.dtype(dtype))


def expected_modes(values: np.ndarray, modes: tuple[int, ...]) -> np.ndarray:
    axes = tuple(range(-len(modes), 0))
    result = np.fft.rfftn(values.astype(float), axes=axes, norm="forward")[..., : modes[-1] + 1]
    for axis, m in zip(axes[:-1], modes[:-1], strict=True):
        result = np.take(result, np.r_[0 : m + 1, -m:0], axis=axis)
    return result


@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("divisor", [2, 3])
def test_transforms_are_the_sums(shape: tuple[int, ...], dtype: type, divisor: int) -> None:
    compiled, rng = transform(shape, dtype, divisor), np.random.default_rng(1)
    tolerance = ROUND_OFF[dtype]
    values = rng.standard_normal((3, 2, *compiled.nodes)).astype(compiled.real_dtype)
    modes = compiled.to_modes(values)
    assert modes.dtype == dtype
    assert np.abs(modes - expected_modes(values, compiled.modes)).max() < tolerance
    # The series itself, evaluated and transformed again.
    again = compiled.to_modes(compiled.to_grid(modes))
    assert np.abs(again - modes).max() < tolerance
    mean = compiled.to_grid(modes).mean(axis=tuple(range(2, values.ndim)))
    assert np.abs(mean - values.mean(axis=tuple(range(2, values.ndim)))).max() < tolerance
    # One component times several factors.
    factor = (rng.standard_normal((4, *compiled.shape)) + 1j).astype(dtype)
    product = compiled.to_grid(modes[:, :1] * factor)
    assert compiled.to_grid(modes[:, :1], factor) == pytest.approx(product, abs=4 * tolerance)
    one = compiled.to_grid(modes[:, :1] * factor[0])
    assert compiled.to_grid(modes[:, :1], factor[0]) == pytest.approx(one, abs=4 * tolerance)
    two = compiled.to_grid(modes * factor[:2])
    assert compiled.to_grid(modes, factor[:2]) == pytest.approx(two, abs=4 * tolerance)


def test_a_wave_on_a_grid() -> None:
    compiled = CompiledTransform((9, 9), (30, 32), np.dtype(complex))
    x, y = np.meshgrid(np.arange(30) / 30, np.arange(32) / 32, indexing="ij")
    wave = 3 + np.cos(2 * np.pi * (4 * x - 9 * y)) - 2 * np.sin(2 * np.pi * (7 * x + 5 * y))
    modes = np.zeros((19, 10), dtype=complex)
    modes[0, 0], modes[-4, 9], modes[7, 5] = 3, 0.5, 1j
    assert np.abs(compiled.to_modes(wave) - modes).max() < 4e-15
    assert np.abs(compiled.to_grid(modes) - wave).max() < 1e-13


def test_an_imaginary_mean_is_ignored() -> None:
    """Rounding makes one, and products would feed it back."""
    compiled, modes = CompiledTransform((9,), (30,), np.dtype(complex)), np.zeros((1, 10), dtype=complex)
    modes[0, :2] = 2, 0.5 + 0.25j
    spoilt = modes + 3j * (np.arange(10) == 0)
    assert np.array_equal(compiled.to_grid(spoilt), compiled.to_grid(modes))
    assert np.array_equal(compiled.squared(spoilt, np.ones(10)), compiled.squared(modes, np.ones(10)))


@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
def test_weighted_square(dtype: type) -> None:
    compiled, rng = CompiledTransform((29,), (90,), np.dtype(dtype)), np.random.default_rng(2)
    modes = compiled.to_modes(rng.standard_normal((11, 1, 90)))
    weight = (rng.standard_normal(30) + 1j * rng.standard_normal(30)).astype(dtype)
    square = expected_modes(compiled.to_grid(modes).astype(float) ** 2, (29,))
    assert np.abs(compiled.squared(modes, weight) - weight * square).max() < 20 * ROUND_OFF[dtype]


@pytest.mark.parametrize("shape", [(80,), (30, 32)])
def test_members_do_not_see_each_other(shape: tuple[int, ...]) -> None:
    compiled, rng = transform(shape, complex), np.random.default_rng(3)
    values = rng.standard_normal((11, 1, *shape))
    modes = compiled.to_modes(values)
    grid = compiled.to_grid(modes)
    spoilt = values.copy()
    spoilt[5] = np.nan
    for b in (0, 4, 10):
        assert np.array_equal(compiled.to_modes(values[b : b + 1]), modes[b : b + 1])
        assert np.array_equal(compiled.to_modes(spoilt)[b], modes[b])
        assert np.array_equal(compiled.to_grid(modes[b : b + 1]), grid[b : b + 1])
        if len(shape) == 1:
            weight = np.ones(modes.shape[-1], dtype=complex)
            alone = compiled.squared(modes[b : b + 1], weight)
            assert np.array_equal(alone, compiled.squared(modes, weight)[b : b + 1])


def test_any_memory_layout() -> None:
    compiled, rng = CompiledTransform((9, 9), (30, 32), np.dtype(complex)), np.random.default_rng(4)
    values = rng.standard_normal((2, 30, 32))
    modes = compiled.to_modes(values)
    values.flags.writeable = False
    assert np.array_equal(compiled.to_modes(values), modes)
    assert np.array_equal(compiled.to_modes(np.asfortranarray(values)), modes)
    assert np.array_equal(compiled.to_grid(np.asfortranarray(modes)), compiled.to_grid(modes))
    raw = np.zeros(values.nbytes + 1, dtype=np.uint8)[1:].view(float).reshape(values.shape)
    raw[:] = values
    assert np.array_equal(compiled.to_modes(raw), modes)
    # Nothing is compiled again for them, which would take seconds: once for each precision.
    assert len(fourier._rows_to_modes.signatures) <= 2


def test_factors_broadcast() -> None:
    compiled, rng = CompiledTransform((9, 9), (30, 32), np.dtype(complex)), np.random.default_rng(7)
    modes = compiled.to_modes(rng.standard_normal((2, 1, 30, 32)))
    for shape in ((1, 19, 1), (3, 1, 1), (3, 1, 10), (19, 1), (3, 19, 10), (2, 1, 19, 10), ()):
        factor = rng.standard_normal(shape) + 0j
        assert compiled.to_grid(modes, factor) == pytest.approx(compiled.to_grid(modes * factor), abs=1e-13)


def test_empty_batches() -> None:
    for shape in ((80,), (30, 32)):
        compiled = transform(shape, complex)
        modes = compiled.to_modes(np.empty((0, 2, *shape)))
        assert modes.shape == (0, 2, *compiled.shape)
        assert compiled.to_grid(modes).shape == (0, 2, *shape)


def test_kinds_of_numbers() -> None:
    """Others than those that kernels are compiled for go the usual way."""
    basis = FourierBasis(CartesianGrid((0.0,), (1.0,), (80,), (True,)))
    values = np.random.default_rng(8).integers(-9, 9, 80)
    modes = basis.to_modes(values.astype(float))
    for kind in ("int16", "longdouble", ">f8"):
        assert np.abs(basis.to_modes(values.astype(kind)) - modes).max() < 1e-15
    assert np.abs(basis.to_grid(modes.astype("clongdouble")) - basis.to_grid(modes)).max() < 1e-14
    with pytest.raises(TypeError):
        basis.to_modes(values + 1j)


def test_shapes_are_checked_first() -> None:
    basis = FourierBasis(CartesianGrid((0.0,), (1.0,), (80,), (True,)))
    for wrong in ((80,), (39,), (2, 41)):
        with pytest.raises(ConfigError, match=r"modes of shape .* give \(\.\.\., 40\)"):
            basis.to_grid(np.zeros(wrong, dtype=complex))
        with pytest.raises(ConfigError, match="modes of shape"):
            basis.squared(np.zeros(wrong, dtype=complex), (80,), np.ones(40, dtype=complex))
    for wrong in ((1,), (39,), (1, 40)):
        with pytest.raises(ConfigError, match="weight of shape"):
            basis.squared(np.zeros((2, 40), dtype=complex), (80,), np.ones(wrong, dtype=complex))
    with pytest.raises(ConfigError, match="no sizes for compiled transforms"):
        CompiledTransform((10,), (28,), np.dtype(complex))


def test_the_cache_belongs_to_the_operations() -> None:
    """numba itself would go on with kernels from before a change of lanes.py."""
    digest = hashlib.sha256(Path(lanes.__file__).read_bytes()).hexdigest()
    assert fourier._rows_to_grid.py_func.__qualname__ == f"_rows_to_grid_{digest[:12]}"


def test_sizes_that_suit() -> None:
    suits = CompiledTransform.suits
    assert suits((10,), (60,))
    assert not suits((10,), (45,))
    assert not suits((10,), (28,))
    assert not suits((10, 10), (33, 32))
    assert not suits((10, 6), (30, 32))
    assert suits((2, 2, 7), (5, 9, 16))


@pytest.mark.parametrize("linear", [-(np.arange(40.0) ** 2), 1j * np.arange(40.0) ** 3])
def test_etdrk4_is_the_method(linear: np.ndarray) -> None:
    """Against the same step of states with an axis that the kernels do not take."""
    rng = np.random.default_rng(5)
    y = rng.standard_normal((3, 2, 20)) + 1j * rng.standard_normal((3, 2, 20))
    linear = linear.reshape(2, 20) + 0j
    times = []

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        times.append(t)
        return np.cos(t) * y[..., ::-1] - y * y

    compiled = ETDRK4(linear, 0.01).step(0.3, y, rate)
    # Weights with one more axis are broadcast, which is left to NumPy.
    generic = ETDRK4(linear[None], 0.01).step(0.3, y[None], lambda t, y: rate(t, y))[0]
    assert np.abs(compiled - generic).max() < 1e-14 * np.abs(generic).max()
    assert times[:4] == times[4:]


def solutions() -> list[np.ndarray]:
    rng = np.random.default_rng(6)
    result = []
    for equation, shape, step in (
        (NavierStokes(1e-3), (30, 32), 0.1),
        (Burgers(0.1), (80,), 0.01),
        (KuramotoSivashinsky(), (64,), 0.01),
    ):
        dim = len(shape)
        grid = CartesianGrid((0.0,) * dim, (1.0,) * dim, shape, (True,) * dim)
        u0 = rng.standard_normal((3, 1, *shape))
        result.append(SpectralSolver(equation, grid, step=step).run(u0, [0.0, 10 * step]))
    return result


def test_solutions_without_numba(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    with_numba = solutions()
    for name in ("fourier", "exponential", "lanes"):
        monkeypatch.delitem(sys.modules, f"sciml.solvers.compiled.{name}")
    monkeypatch.setitem(sys.modules, "numba", None)
    kernels.cache_clear()
    request.addfinalizer(kernels.cache_clear)
    grid = CartesianGrid((0.0,), (1.0,), (80,), (True,))
    assert FourierBasis(grid)._compiled((80,), np.zeros(1)) is None
    for ours, plain in zip(with_numba, solutions(), strict=True):
        assert not np.array_equal(ours, plain)
        assert np.abs(ours - plain).max() < 1e-12 * np.abs(plain).max()
    # Not asked again at every step, as a failing import takes longer than a step.
    assert kernels.cache_info().misses == 2


def test_without_a_place_for_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(**options: bool) -> Callable[[Callable], Callable]:
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'square': no locator available for file 'x.py'")
        return compiler(**options)

    compiler = lanes.njit
    monkeypatch.setattr(lanes, "njit", njit)
    assert lanes.compiled(lambda x: x * x)(3) == 9


def digest_elsewhere(**environment: str) -> str:
    code = """
import hashlib
import numpy as np
from sciml.errors import ConfigError
from sciml.solvers import CartesianGrid
from sciml.solvers.compiled import kernels
from sciml.solvers.spectral import NavierStokes, SpectralSolver
grid = CartesianGrid((0.0, 0.0), (1.0, 1.0), (30, 32), (True, True))
u0 = np.random.default_rng(6).standard_normal((2, 1, 30, 32))
u = SpectralSolver(NavierStokes(1e-3), grid, step=0.1).run(u0, [0.0, 1.0])
found = hashlib.sha256(u.tobytes())
if module := kernels("advection"):
    rng, columns, starts = np.random.default_rng(7), np.array([0, 1, 1, 2, 0]), np.array([0, 2, 4, 5])
    blocks, load, start = rng.random((5, 9, 9)), rng.random((3, 9)), rng.random((3, 9))
    found.update(module.taylor_steps(blocks, columns, starts, np.full(3, 0.1), load, start, 3, 3))
print(found.hexdigest())
"""
    everything = {**os.environ, **environment}
    run = subprocess.run(
        [sys.executable, "-c", code], env=everything, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_numba_switched_off() -> None:
    assert digest_elsewhere(NUMBA_DISABLE_JIT="1") != digest_elsewhere()


@pytest.mark.slow
def test_a_plain_processor_computes_the_same_bits(tmp_path: Path) -> None:
    """Compiled for the least processor of the family, without AVX on x86."""
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    assert digest_elsewhere(**plain) == digest_elsewhere()


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("order", range(5))
def test_steps_of_transport_are_those_of_the_sparse_matrix(
    order: int, periodic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Up to 25 numbers a leaf: two rows of sixteen, the second with room to spare. On one root a leaf is its own
    # neighbour, on two it is so twice.
    problem = AdvectionProblem(
        (lambda x, y: 1 + y, lambda x, y: 0.3 - x), source=lambda x, y: x * y, inflow=lambda x, y: x
    )
    mesh = TreeMesh((0.0, 0.0), (1.0, 1.0), (1, 2) if periodic else (3, 3), (periodic, periodic))
    mesh = mesh if periodic else mesh.refine([0, 4, 7]).refine([3, 8])
    method = DGAdvection(problem, mesh, order)
    start = np.random.default_rng(order).standard_normal((len(mesh), (order + 1) ** 2))
    module = kernels("advection")
    assert module is not None
    calls: list[tuple[int, int]] = []
    steps = module.taylor_steps
    monkeypatch.setattr(module, "taylor_steps", lambda *a: calls.append(a[-2:]) or steps(*a))
    found = method.advance(start, 0.0, 0.07)
    # Of one number a leaf the sparse matrix is faster.
    assert [degree for _, degree in calls] == ([max(order + 1, 3)] if order else [])
    monkeypatch.setattr("sciml.solvers.dg.advection.kernels", lambda name: None)
    assert np.abs(found - start).max() > 0.01
    assert np.abs(found - method.advance(start, 0.0, 0.07)).max() < 2e-14 * np.abs(start).max()
    assert len(calls) == (order > 0)
