"""Order conditions, convergence, stiffness, step control and failures of the time integrators."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from array_api_compat import array_namespace
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers.linear import DirectSolver
from sciml.solvers.timestepping import (
    ARK4,
    DORMAND_PRINCE,
    RK4,
    Stage,
    Tableau,
    explicit_system,
    imaginary_stability,
    integrate,
    real_stability,
    step,
)

METHODS = [RK4, DORMAND_PRINCE, ARK4]
EMBEDDED = [DORMAND_PRINCE, ARK4]
EULER = Tableau("Euler", np.zeros((1, 1)), None, np.ones(1), None, np.zeros(1), 1, None)


class MatrixSystem:
    """y' = A y + f(t) + e(t, y), A y + f(t) implicit; A dense or sparse, y of shape (m,) or (m, k)."""

    def __init__(
        self,
        matrix: Any,
        forcing: Callable[[float], Any] | None = None,
        explicit: Callable[[float, Any], Any] | None = None,
    ) -> None:
        self.matrix = matrix
        self._forcing = forcing
        self._explicit = explicit
        self.solver = functools.lru_cache(maxsize=8)(self._factorise)

    def _factorise(self, shift: float) -> Callable[[Any], Any]:
        if sp.issparse(self.matrix):
            return DirectSolver(sp.eye_array(self.matrix.shape[0]) - shift * self.matrix).solve
        xp = array_namespace(self.matrix)
        # The standard has no LU factorisation to keep; an inverse costs three times as much, once.
        identity = xp.eye(self.matrix.shape[0], dtype=self.matrix.dtype, device=self.matrix.device)
        inverse = xp.linalg.inv(identity - shift * self.matrix)
        return lambda rhs: inverse @ rhs

    def explicit(self, stage: Stage, y: Any) -> Any:
        return None if self._explicit is None else self._explicit(stage.time, y)

    def implicit(self, stage: Stage, y: Any) -> Any:
        return self.matrix @ y if self._forcing is None else self.matrix @ y + self._forcing(stage.time)

    def solve(self, stage: Stage, rhs: Any, shift: float, guess: Any) -> Any:
        return self.solver(shift)(rhs if self._forcing is None else rhs + shift * self._forcing(stage.time))


class Logistic:
    """y' = y - y^2, the growth explicit and the decay implicit; y(0) = 1/5 gives 1 / (1 + 4 e^-t)."""

    def explicit(self, stage: Stage, y: Any) -> Any:
        return y

    def implicit(self, stage: Stage, y: Any) -> Any:
        return -y * y

    def solve(self, stage: Stage, rhs: Any, shift: float, guess: Any) -> Any:
        return ((1 + 4 * shift * rhs) ** 0.5 - 1) / (2 * shift)


@functools.cache
def trees(order: int) -> list[tuple]:
    """Rooted trees with so many vertices, each the sorted tuple of its subtrees."""
    if order == 1:
        return [()]
    found = set()
    for size in range(1, order):
        for branch, rest in itertools.product(trees(size), trees(order - size)):
            found.add(tuple(sorted((*rest, branch))))
    return sorted(found)


def vertices(tree: tuple) -> int:
    return 1 + sum(map(vertices, tree))


def density(tree: tuple) -> int:
    return vertices(tree) * math.prod(map(density, tree))


def stage_weights(tree: tuple, matrices: list[np.ndarray]) -> list[np.ndarray]:
    """Per stage, for every way to give each vertex below the root one of the matrices."""
    branches = [[a @ w for a in matrices for w in stage_weights(branch, matrices)] for branch in tree]
    return [math.prod(chosen, start=np.ones(len(matrices[0]))) for chosen in itertools.product(*branches)]


def defects(tableau: Tableau, weights: np.ndarray, order: int) -> float:
    """Largest violation of the conditions of exactly this order (Butcher), coupling included."""
    matrices = [a for a in (tableau.explicit, tableau.implicit) if a is not None]
    return max(
        abs(weights @ w - 1 / density(tree)) for tree in trees(order) for w in stage_weights(tree, matrices)
    )


def final(*arguments: Any, **options: Any) -> tuple:
    return list(integrate(*arguments, **options))[-1]


def fitted_order(steps: list[float], errors: list[float]) -> float:
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


@pytest.mark.parametrize("tableau", METHODS, ids=lambda t: t.name)
def test_order_conditions(tableau: Tableau) -> None:
    assert [len(trees(order)) for order in range(1, 7)] == [1, 1, 2, 4, 9, 20]
    for order in range(1, tableau.order + 1):
        assert defects(tableau, tableau.b, order) < 1e-14
    assert defects(tableau, tableau.b, tableau.order + 1) > 1e-4
    if tableau.b_hat is not None:
        for order in range(1, tableau.embedded_order + 1):
            assert defects(tableau, tableau.b_hat, order) < 1e-14
        assert defects(tableau, tableau.b_hat, tableau.embedded_order + 1) > 1e-4


def test_implicit_part_is_stiffly_accurate_and_l_stable() -> None:
    a, c = ARK4.implicit, ARK4.c
    assert np.array_equal(a[-1], ARK4.b)
    assert np.array_equal(np.diag(a), [0, 0.25, 0.25, 0.25, 0.25, 0.25])
    np.testing.assert_allclose(a @ c, c**2 / 2, atol=1e-15)  # stage order 2

    def growth(z: complex) -> float:
        return abs(1 + z * ARK4.b @ np.linalg.solve(np.eye(6) - z * a, np.ones(6)))

    # The poles lie at 4, so a bound on the axis is one on the left half plane.
    assert max(growth(1j * y) for y in np.geomspace(1e-3, 1e6, 2000)) <= 1 + 1e-12
    assert growth(-1e9) < 1e-7


@pytest.mark.parametrize("tableau", [RK4, DORMAND_PRINCE], ids=lambda t: t.name)
def test_explicit_convergence(tableau: Tableau) -> None:
    system = explicit_system(lambda t, y: np.cos(t) * y)
    steps = [1 / n for n in (4, 6, 8, 12, 16, 24)]
    errors = [
        abs(final(system, np.ones(1), [0, 2], step=h, tableau=tableau)[1] - np.exp(np.sin(2)))[0]
        for h in steps
    ]
    assert fitted_order(steps, errors) == pytest.approx(tableau.order, abs=0.25)


def test_additive_convergence() -> None:
    steps = [1 / n for n in (2, 3, 4, 6, 8, 12)]
    errors = [
        abs(final(Logistic(), np.array([0.2]), [0, 4], step=h)[1][0] - 1 / (1 + 4 * np.exp(-4)))
        for h in steps
    ]
    assert fitted_order(steps, errors) == pytest.approx(4, abs=0.25)


def test_implicit_convergence() -> None:
    """A rotation with a forcing, y = (cos 2t, sin 2t) + (sin t, 0)."""
    matrix = np.array([[0.0, -2.0], [2.0, 0.0]])
    system = MatrixSystem(matrix, forcing=lambda t: np.array([np.cos(t), -2 * np.sin(t)]))
    exact = np.array([np.cos(4) + np.sin(2), np.sin(4)])
    steps = [1 / n for n in (4, 6, 8, 12, 16)]
    errors = [abs(final(system, np.array([1.0, 0.0]), [0, 2], step=h)[1] - exact).max() for h in steps]
    assert fitted_order(steps, errors) == pytest.approx(4, abs=0.25)


def test_stiff_prothero_robinson() -> None:
    """y' = lambda (y - cos t) - sin t; an error of size dt^2 / lambda remains at any step."""
    rate = -1e6
    system = MatrixSystem(np.array([[rate]]), forcing=lambda t: np.array([-rate * np.cos(t) - np.sin(t)]))
    for h in (0.5, 0.2, 0.1, 0.05):
        for t, y, _ in integrate(system, np.ones(1), np.linspace(0, 5, 6), step=h):
            assert abs(y[0] - np.cos(t)) < h**2 / abs(rate)
    transient = final(system, np.array([2.0]), [0, 5], step=0.1)[1][0]  # off the smooth solution
    assert abs(transient - np.cos(5)) < 1e-7
    _, y, run = final(system, np.array([2.0]), [0, 5], tolerance=1e-6)
    assert abs(y[0] - np.cos(5)) < 1e-6
    assert run.accepted < 300
    assert len(run.shifts) < 25


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8, 1e-10])
def test_free_steps_reach_the_tolerance(tolerance: float) -> None:
    """A peak of width 1/10 at t = 1 has to be found and left again; errors decay."""

    def peak(t: float) -> float:
        return 1 / (1 + 100 * (t - 1) ** 2)

    system = explicit_system(lambda t, y: peak(t) - y - 200 * (t - 1) * peak(t) ** 2)
    times = [0, 0.7, 1, 1.2, 3]
    seen = list(integrate(system, np.array([peak(0)]), times, tolerance=tolerance, tableau=DORMAND_PRINCE))
    assert tolerance / 10 < max(abs(y[0] - peak(t)) for t, y, _ in seen) < 10 * tolerance
    run = seen[-1][2]
    assert run.largest > 2 * run.smallest
    assert run.rejected < 0.3 * run.accepted
    assert run.shifts == ()


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7, 1e-9])
def test_ladder_reaches_the_tolerance(tolerance: float) -> None:
    """A fast component rests on a slow one, y = (sin t, 2 sin t - e^(-1000 t))."""
    matrix = np.array([[0.0, 0.0], [2000.0, -1000.0]])
    system = MatrixSystem(
        matrix,
        forcing=lambda t: np.array([0.0, 2 * np.cos(t)]),
        explicit=lambda t, y: np.array([np.cos(t), 0.0]),
    )
    start = np.array([0.0, -1.0])
    seen = list(integrate(system, start, np.linspace(0, 3, 4), tolerance=tolerance))
    for t, y, _ in seen:
        assert abs(y - [np.sin(t), 2 * np.sin(t) - np.exp(-1000 * t)]).max() < 10 * tolerance
    run = seen[-1][2]
    ratios = np.log2(np.array(run.shifts) / run.shifts[0])
    assert np.array_equal(ratios, np.round(ratios))
    assert len(run.shifts) <= 14
    assert run.rejected <= 4
    assert system.solver.cache_info().currsize <= 8


def test_ladder_work_follows_the_tolerance() -> None:
    """Fourth order: per factor 16^2 of tolerance, at most about 4 times the steps."""
    counts = [
        final(Logistic(), np.array([0.2]), [0, 8], tolerance=tolerance)[2].accepted
        for tolerance in 1e-4 / 256.0 ** np.arange(3)
    ]
    assert counts[2] > counts[1] > counts[0]
    assert counts[2] < 6 * counts[1] < 36 * counts[0]


def test_equal_steps_have_equal_bits() -> None:
    """One factorisation for intervals that differ by the rounding of their ends."""
    times = np.linspace(0, 10, 101)
    assert len(set(np.diff(times))) > 1
    _, _, run = final(Logistic(), np.array([0.2]), times, step=0.02)
    assert run.accepted == 500
    assert len(run.shifts) == 1
    _, _, run = final(Logistic(), np.array([0.2]), [0, 0.1, 0.3, 0.7], tolerance=1e-7)
    ratios = np.log2(np.array(run.shifts) / run.shifts[0])
    assert np.array_equal(ratios, np.round(ratios))


@pytest.mark.parametrize("tableau", METHODS, ids=lambda t: t.name)
def test_aligned_output_does_not_change_fixed_steps(tableau: Tableau) -> None:
    coarse = final(Logistic(), np.array([0.2]), [0, 4], step=0.25, tableau=tableau)
    fine = final(Logistic(), np.array([0.2]), [0, 0.5, 1, 3, 4], step=0.25, tableau=tableau)
    assert coarse[0] == fine[0] == 4
    assert np.array_equal(coarse[1], fine[1])
    assert coarse[2] == fine[2]


def test_fixed_steps_never_exceed_the_request() -> None:
    growth = explicit_system(lambda t, y: y)
    assert final(growth, np.ones(1), [0, 3 * 0.1], step=0.1, tableau=RK4)[2].accepted == 3
    run = final(growth, np.ones(1), [0, 1, 1.25], step=0.3, tableau=RK4)[2]
    assert (run.accepted, run.rejected, run.largest, run.smallest) == (5, 0, 0.25, 0.25)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-3, 2.0), min_size=1, max_size=5), st.floats(-5.0, 5.0), st.booleans())
def test_output_times_are_hit_exactly(lengths: list[float], start: float, ladder: bool) -> None:
    times = np.cumsum([start, *lengths]).tolist()
    seen = list(
        integrate(
            explicit_system(lambda t, y: np.array([1.0, t])),
            np.array([0.0, 0.0]),
            times,
            tolerance=1e-6,
            tableau=ARK4 if ladder else DORMAND_PRINCE,
        )
    )
    assert [t for t, _, _ in seen] == times
    for t, y, _ in seen:
        np.testing.assert_allclose(y, [t - start, (t**2 - start**2) / 2], atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.lists(st.floats(-3, 3), min_size=6, max_size=6),
    st.floats(-1, 1),
    st.floats(0.1, 1),
)
def test_quadrature_of_polynomials_is_exact(
    tableau: Tableau, coefficients: list[float], t: float, dt: float
) -> None:
    """y' = p(t) of degree order - 1, as explicit and as implicit part."""
    p = np.polynomial.Polynomial(coefficients[: tableau.order])
    exact = p.integ()(t + dt) - p.integ()(t)
    for system in (
        explicit_system(lambda s, y: np.array([p(s)])),
        MatrixSystem(np.zeros((1, 1)), forcing=lambda s: np.array([p(s)])),
    ):
        assert step(tableau, system, t, np.zeros(1), dt)[0][0] == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("tableau", EMBEDDED, ids=lambda t: t.name)
def test_error_estimate_has_the_order_of_the_embedded_method(tableau: Tableau) -> None:
    steps = [1 / n for n in (8, 12, 16, 24, 32)]
    errors = [abs(step(tableau, Logistic(), 0.0, np.array([0.2]), h)[1][0]) for h in steps]
    assert fitted_order(steps, errors) == pytest.approx(tableau.embedded_order + 1, abs=0.25)


def test_explicit_methods_take_both_parts() -> None:
    both = step(RK4, Logistic(), 0.0, np.array([0.2]), 0.1)
    plain = step(RK4, explicit_system(lambda t, y: y - y * y), 0.0, np.array([0.2]), 0.1)
    assert both[0] == pytest.approx(plain[0], rel=1e-15)
    assert both[1] is plain[1] is None


class Unsolvable(type(explicit_system(abs))):  # type: ignore[misc]
    solve = None


def test_absent_parts_cost_nothing() -> None:
    """Without explicit part ARK4 is its ESDIRK method; without implicit part its ERK method."""
    matrix = np.array([[-1.0, 2.0], [0.0, -3.0]])
    start = np.array([1.0, 1.0])
    zeros = MatrixSystem(matrix, explicit=lambda t, y: 0 * y)
    assert np.array_equal(step(ARK4, MatrixSystem(matrix), 0, start, 0.1), step(ARK4, zeros, 0, start, 0.1))
    erk = Tableau("ERK", ARK4.explicit, None, ARK4.b, ARK4.b_hat, ARK4.c, 4, 3)
    system = Unsolvable(lambda t, y: matrix @ y)
    assert np.array_equal(step(ARK4, system, 0, start, 0.1), step(erk, system, 0, start, 0.1))


def test_first_same_as_last_saves_an_evaluation() -> None:
    calls = []

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        calls.append(t)
        return np.cos(t) * y

    _, y, _ = final(explicit_system(slope), np.ones(1), [0, 1], step=0.1, tableau=DORMAND_PRINCE)
    assert len(calls) == 10 * 6 + 1
    plain = np.ones(1)
    for n in range(10):
        plain, _ = step(DORMAND_PRINCE, explicit_system(slope), n * 0.1, plain, 0.1)
    assert y == pytest.approx(plain, rel=1e-14)


def test_sparse_matrices_and_several_columns() -> None:
    second = np.diag(np.full(20, -2.0)) + np.diag(np.ones(19), 1) + np.diag(np.ones(19), -1)
    start = np.random.default_rng(0).random((20, 3))
    dense = final(MatrixSystem(second), start, [0, 1, 2], step=0.1)[1]
    sparse = final(MatrixSystem(sp.csr_array(second)), start, [0, 1, 2], step=0.1)[1]
    np.testing.assert_allclose(sparse, dense, rtol=1e-13)


@pytest.mark.parametrize("tableau", METHODS, ids=lambda t: t.name)
def test_torch_agrees_with_numpy(tableau: Tableau) -> None:
    torch = pytest.importorskip("torch")
    matrix, start = np.array([[-1.0, 2.0], [0.0, -3.0]]), np.array([1.0, 0.5])
    control = {"step": 0.1} if tableau.b_hat is None else {"tolerance": 1e-6}
    numpy_run = final(
        MatrixSystem(matrix, explicit=lambda t, y: -(y**3)), start, [0, 1, 2], tableau=tableau, **control
    )
    system = MatrixSystem(torch.from_numpy(matrix), explicit=lambda t, y: -(y**3))
    torch_run = final(system, torch.from_numpy(start), [0, 1, 2], tableau=tableau, **control)
    assert isinstance(torch_run[1], torch.Tensor)
    np.testing.assert_allclose(torch_run[1].numpy(), numpy_run[1], rtol=1e-12)
    assert torch_run[2].accepted == numpy_run[2].accepted


def test_single_precision_and_gradients_survive() -> None:
    torch = pytest.importorskip("torch")
    rate = torch.tensor(0.5, requires_grad=True)
    y = final(explicit_system(lambda t, y: rate * y), torch.ones(2), [0, 1], step=0.1, tableau=RK4)[1]
    assert y.dtype is torch.float32
    single = np.ones(1, np.float32)
    assert final(Logistic(), single, [0, 1], tolerance=1e-3)[1].dtype == np.float32
    y.sum().backward()
    assert float(rate.grad) == pytest.approx(2 * math.exp(0.5), rel=1e-4)


def test_complex_states() -> None:
    y = final(explicit_system(lambda t, y: 1j * y), np.ones(1, complex), [0, np.pi], tolerance=1e-9)[1]
    assert y[0] == pytest.approx(-1, abs=1e-7)


def test_the_norm_decides() -> None:
    """A norm that sees only the slow entry lets the steps of the fast one be wrong."""
    system = explicit_system(lambda t, y: np.array([0.0, 20 * np.cos(20 * t)]))
    options = {"tolerance": 1e-8, "tableau": DORMAND_PRINCE}
    seen = final(system, np.zeros(2), [0, 1], **options)[2]
    unseen = final(system, np.zeros(2), [0, 1], norm=lambda w: abs(float(w[0])), **options)[2]
    assert unseen.accepted < seen.accepted / 5


@pytest.mark.parametrize(
    ("tableau", "real", "imaginary"),
    [
        (EULER, 2.0, 0.0),
        (RK4, 2.785293563405282, math.sqrt(8)),
        (DORMAND_PRINCE, 3.3066, 0.9972),
        (ARK4, 4.2345, 4.0007),
    ],
    ids=lambda value: value.name if isinstance(value, Tableau) else "",
)
def test_stability_intervals(tableau: Tableau, real: float, imaginary: float) -> None:
    assert real_stability(tableau) == pytest.approx(real, abs=5e-5)
    assert imaginary_stability(tableau) == pytest.approx(imaginary, abs=5e-5)
    for extent, direction in ((real, -1.0), (imaginary, 1j)):
        for factor in (0.25, 0.5, 0.75, 0.99, 1.01):
            z = direction * max(extent, 0.1) * factor
            grown = abs(
                step(tableau, explicit_system(lambda t, y, z=z: z * y), 0.0, np.ones(1, complex), 1.0)[0][0]
            )
            assert (grown <= 1 + 1e-12) == (max(extent, 0.1) * factor <= extent)


def test_blow_up_is_reported() -> None:
    """y' = y^2, y = 1 / (1 - t)."""
    system = explicit_system(lambda t, y: y * y)
    with pytest.raises(
        ConvergenceError, match=r"NaN or infinite at t=\d.* with a step of 0.1: take a smaller step"
    ):
        final(system, np.ones(1), [0, 3], step=0.1, tableau=RK4)
    for tableau in EMBEDDED:
        with pytest.raises(ConvergenceError, match=r"underflow at t=(1|0\.9999)"):
            final(system, np.ones(1), [0, 0.5, 3], tolerance=1e-6, tableau=tableau)
    broken = explicit_system(lambda t, y: np.nan * y)
    with pytest.raises(ConvergenceError, match=r"underflow at t=0 .*NaN or infinite"):
        final(broken, np.ones(1), [0, 1], tolerance=1e-6)


class Stubborn(MatrixSystem):
    """Solves for small shifts only, as Newton's method does."""

    def solve(self, stage: Stage, rhs: Any, shift: float, guess: Any) -> Any:
        if shift > 0.02:
            raise ConvergenceError("no root found")
        return super().solve(stage, rhs, shift, guess)


def test_failed_solves_shorten_the_step() -> None:
    system = Stubborn(-np.eye(1))
    _, y, run = final(system, np.ones(1), [0, 1], tolerance=1e-2)
    assert y[0] == pytest.approx(math.exp(-1), abs=1e-3)
    assert run.rejected > 0
    assert run.largest <= 0.08
    with pytest.raises(ConvergenceError, match=r"no root found at t=0 with a step of 0\.1"):
        final(system, np.ones(1), [0, 1], step=0.1)


def test_progress_bar(capsys: pytest.CaptureFixture) -> None:
    final(Logistic(), np.array([0.2]), [0, 1], step=0.1)
    assert capsys.readouterr().err == ""
    final(Logistic(), np.array([0.2]), [0, 1], step=0.1, progress=True)
    assert "100%" in capsys.readouterr().err


def test_bad_arguments() -> None:
    y, system = np.ones(1), Logistic()
    for times in ([0.0], [0, 0], [1, 0], [0, math.nan], [0, math.inf], [[0, 1]]):
        with pytest.raises(ConfigError, match="increasing order"):
            final(system, y, times, step=0.1)
    for options in ({}, {"step": 0.1, "tolerance": 1e-3}):
        with pytest.raises(ConfigError, match="exactly one"):
            final(system, y, [0, 1], **options)
    for options in ({"step": -0.1}, {"step": math.nan}, {"tolerance": 0.0}, {"tolerance": (1e-3, -1e-3)}):
        with pytest.raises(ConfigError, match="must be positive and finite"):
            final(system, y, [0, 1], **options)
    with pytest.raises(ConfigError, match="RK4 estimates no error"):
        final(system, y, [0, 1], tolerance=1e-3, tableau=RK4)
    with pytest.raises(ConfigError, match="explicit_system"):
        final(lambda t, y: y, y, [0, 1], step=0.1)
    with pytest.raises(ConfigError, match="finite initial state"):
        final(system, np.array([np.nan]), [0, 1], step=0.1)
    with pytest.raises(ConvergenceError, match=r"max_steps=5 are used up at t=0\.5"):
        final(system, y, [0, 1], step=0.1, max_steps=5)


@pytest.mark.parametrize(
    "change",
    [
        {"explicit": RK4.explicit.T},
        {"explicit": RK4.explicit[:3, :3]},
        {"implicit": RK4.explicit + 0.1 * np.eye(4)},
        {"b": np.full(4, 0.3)},
        {"b_hat": np.full(4, 0.25)},
        {"b_hat": np.ones(3) / 3, "embedded_order": 1},
    ],
)
def test_bad_tableaux(change: dict) -> None:
    good = {key: getattr(RK4, key) for key in RK4.__dataclass_fields__}
    with pytest.raises(ConfigError, match="of RK4"):
        Tableau(**{**good, **change})
