"""The pseudo-spectral solver: order in time, batches, steps, blow-up, bad input."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from test_spectral import TAU, box, smooth

from sciml.errors import ConfigError, ConvergenceError
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
from sciml.solvers.spectral import solver as spectral_solver
from sciml.solvers.spectral.replay import Replay
from sciml.solvers.spectral.solver import _Run


def start(equation: SpectralEquation, grid: CartesianGrid, seed: int = 0) -> np.ndarray:
    """An initial state; positive for Fisher's equation, which has no bound from below."""
    u = smooth(grid, equation.components, seed)
    return 0.5 + 0.2 * u if isinstance(equation, ReactionDiffusion) else u


def slope(sizes: Any, errors: Any) -> float:
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


EQUATIONS: list[tuple[SpectralEquation, CartesianGrid, float]] = [
    (Burgers(0.05), box(48), 1.0),
    (Burgers(0.05, dim=2), box(24, 20), 1.0),
    (KortewegDeVries(1.0, 0.02), box(48), 1.0),
    (KuramotoSivashinsky(), box(32, length=24.0), 1.0),
    (KuramotoSivashinsky(dim=2), box(16, 18, length=(16.0, 18.0)), 1.0),
    (AllenCahn(0.02, dim=1), box(48), 1.0),
    (ReactionDiffusion(0.02, 3.0, dim=2), box(24, 24), 0.3),
    (GrayScott(0.02, 0.01, 0.3, 0.6, dim=1), box(48), 1.0),
    (NavierStokes(0.02, drag=0.1), box(24, 30, length=(TAU, 3.0)), 1.0),
]
NAMES = [f"{type(e).__name__}-{e.dim}d" for e, _, _ in EQUATIONS]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize(("method", "low"), [("etdrk4", 3.7), ("imex", 3.6)])
@pytest.mark.parametrize(("equation", "grid", "end"), EQUATIONS, ids=NAMES)
def test_order_four_in_time(
    equation: SpectralEquation, grid: CartesianGrid, end: float, method: Any, low: float
) -> None:
    u0 = start(equation, grid)

    def run(n: int) -> np.ndarray:
        return SpectralSolver(equation, grid, step=end / n, method=method).run(u0, [0.0, end])[-1]

    exact, steps = run(320), np.array([20, 28, 40, 56])
    errors = [abs(run(n) - exact).max() for n in steps]
    assert low < -slope(steps, errors) < 4.5
    assert errors[-1] < 1e-4


def test_methods_agree() -> None:
    equation, grid, _ = EQUATIONS[8]
    runs = [
        SpectralSolver(equation, grid, step=0.01, method=m).run(smooth(grid), [0, 1])
        for m in ("etdrk4", "imex")
    ]
    assert runs[0] == pytest.approx(runs[1], abs=1e-8)


# -- Arrays, batches, steps -------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("equation", "grid", "end"), EQUATIONS, ids=NAMES)
def test_batches_equal_loops_and_torch_agrees(
    equation: SpectralEquation, grid: CartesianGrid, end: float, device: str
) -> None:
    solver = SpectralSolver(equation, grid, step=end / 8)
    u0 = np.stack([start(equation, grid, seed) for seed in range(6)]).reshape(
        2, 3, equation.components, *grid.shape
    )
    times = [0.0, 0.5 * end, end]
    together = solver.run(u0, times)
    assert together.shape == (2, 3, 3, equation.components, *grid.shape)
    apart = np.stack([[solver.run(u, times) for u in row] for row in u0])
    assert np.array_equal(together, apart)
    tensor = torch.from_numpy(u0).to(device)
    theirs = solver.run(tensor, times)
    assert theirs.device == tensor.device
    assert theirs.cpu().numpy() == pytest.approx(together, abs=1e-12)
    assert solver.run(tensor[1, 2], times).cpu().numpy() == pytest.approx(together[1, 2], abs=1e-12)
    single = solver.run(u0.astype(np.float32), times)
    assert single.dtype == np.float32
    assert single == pytest.approx(together, abs=3e-5)
    assert solver.run(tensor.float(), times).dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", ["etdrk4", "imex"])
def test_replayed_steps_are_those_of_the_gpu(monkeypatch: pytest.MonkeyPatch, method: Any) -> None:
    """The same bits as step by step, also where steps of two lengths alternate."""
    u0 = torch.from_numpy(smooth(box(40, 40))).to("cuda")
    solver = SpectralSolver(NavierStokes(0.05), box(40, 40), step=0.1, method=method)
    times = [0.0, 0.5, 0.6, 1.45, 1.5, 2.0]
    replayed = solver.run(u0, times)
    monkeypatch.setattr(Replay, "__call__", lambda replay, step, state: step(state))
    assert torch.equal(replayed, solver.run(u0, times))


def test_large_batches_are_cut_into_blocks() -> None:
    grid = box(40, 40)
    u0 = np.stack([smooth(grid, seed=seed) for seed in range(30)])[:, None][:, :, 0]
    for method in ("etdrk4", "imex"):
        solver = SpectralSolver(NavierStokes(0.05), grid, step=0.1, method=method)
        together = solver.run(u0, [0.0, 0.2])
        assert np.array_equal(together[27], solver.run(u0[27], [0.0, 0.2]))


def test_resolution_is_that_of_the_series() -> None:
    grid = box(16, 24)
    solver = SpectralSolver(NavierStokes(0.05), grid, step=0.1)
    u0 = smooth(grid)
    full, fine = solver.run(u0, [0.0, 0.3]), solver.run(u0, [0.0, 0.3], resolution=(32, 72))
    assert fine[..., ::2, ::3] == pytest.approx(full, abs=1e-13)
    assert solver.run(u0, [0.0, 0.3], resolution=8) == pytest.approx(full[..., ::2, ::3], abs=1e-13)


def test_cfl_steps() -> None:
    grid = box(32, 32)
    solver = SpectralSolver(NavierStokes(0.01), grid, step="cfl", cfl=0.4)
    u0, clock = 3 * smooth(grid), []
    run = solver.run(u0, [0.0, 1.0], monitor=lambda t, modes: clock.append(t))
    exact = SpectralSolver(NavierStokes(0.01), grid, step=1 / 256).run(u0, [0.0, 1.0])
    assert run[-1] == pytest.approx(exact[-1], abs=1e-4)
    steps = np.diff(clock)
    assert (np.log2(steps) % 1 == 0).all()
    assert sum(steps) == 1
    transforms = Transforms(solver.basis, solver.nodes, u0)
    u, v = abs(solver.equation.flow(transforms, solver.basis.to_modes(u0)[None])[0])
    courant = steps[0] * ((u + v) / grid.spacing[0]).max()
    assert 0.2 < courant <= 0.4


def test_cfl_steps_grow_as_the_flow_slows_down() -> None:
    grid, clock = box(32), []
    solver = SpectralSolver(Burgers(0.5), grid, step="cfl")
    u0 = 8 * np.sin(grid.axes[0])[None]
    run = solver.run(u0, [0.0, 3.0], monitor=lambda t, modes: clock.append(t))
    assert run[-1] == pytest.approx(
        SpectralSolver(Burgers(0.5), grid, step=0.005).run(u0, [0.0, 3.0])[-1], abs=1e-4
    )
    steps = np.diff(clock) / 3
    assert steps[-1] >= 4 * steps[0]
    # Each step starts at a multiple of its length, so that the last one ends at the end.
    assert clock[-1] == 3.0
    assert np.array(clock[:-1]) / 3 / steps == pytest.approx(
        np.rint(np.array(clock[:-1]) / 3 / steps), abs=1e-6
    )


@pytest.mark.parametrize(
    "equation", [Burgers(0.1), Burgers(0.1, dim=2), KortewegDeVries(), KuramotoSivashinsky()]
)
def test_every_advective_equation_takes_cfl_steps(equation: SpectralEquation) -> None:
    grid, clock = box(*(24,) * equation.dim), []
    solver = SpectralSolver(equation, grid, step="cfl", cfl=0.5)
    solver.run(smooth(grid, equation.components), [0.0, 1.0], monitor=lambda t, modes: clock.append(t))
    assert 4 < len(clock) < 400


# -- Blow-up and bad input --------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0.1, "cfl"])
def test_blow_up(step: Any) -> None:
    grid = box(24, 24)
    good, bad = smooth(grid, 2), 1e200 * smooth(grid, 2, seed=1)
    solver = SpectralSolver(Burgers(0.05, dim=2), grid, step=step)
    with pytest.raises(ConvergenceError, match=r"near t=.* with a step of .* members \[1\].*smaller step"):
        solver.run(np.stack([good, bad, good]), [0.0, 2.0])
    kept = solver.run(np.stack([good, bad, good]), [0.0, 2.0], on_blowup="keep")
    assert np.isnan(kept[1, -1]).all()
    assert np.array_equal(kept[0], kept[2])
    assert np.array_equal(kept[0], solver.run(good, [0.0, 2.0]))
    tensor = solver.run(torch.from_numpy(np.stack([good, bad])), [0.0, 2.0], on_blowup="keep")
    assert tensor[0].numpy() == pytest.approx(kept[0], abs=1e-12)


LINE, SQUARE = box(16), box(16, 16)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpectralSolver("Burgers", LINE, step=0.1), "equation='Burgers'"),
        (lambda: SpectralSolver(Burgers(0.1), SQUARE, step=0.1), "grid with 2 axes: Burgers has dim=1"),
        (lambda: SpectralSolver(Burgers(0.1), CartesianGrid((0,), (1,), (8,)), step=0.1), "periodic=.False"),
        (lambda: SpectralSolver(Burgers(0.1), box(3), step=0.1), "needs 4 per axis"),
        (lambda: SpectralSolver(Burgers(0.1), LINE, step=0.0), "step=0.0"),
        (lambda: SpectralSolver(Burgers(0.1), LINE, step="fast"), "step='fast'"),
        (lambda: SpectralSolver(Burgers(0.1), LINE, step=None), "step=None"),  # type: ignore[arg-type]
        (
            lambda: SpectralSolver(Burgers(0.1), LINE, step=0.1, source=lambda t: 1.0),
            r"source cannot be called with \(t, x\): too many positional arguments",
        ),
        (lambda: CartesianGrid.uniform(8, 0.0, 1.0), r"lower=0.0.*such as \(0.0,\)"),  # type: ignore[arg-type]
        (lambda: SpectralSolver(AllenCahn(0.1), LINE, step="cfl"), "AllenCahn has no velocity"),
        (lambda: SpectralSolver(KuramotoSivashinsky(2), SQUARE, step="cfl"), "has no velocity"),
        (lambda: SpectralSolver(Burgers(0.1), LINE, step="cfl", cfl=-1), "cfl=-1"),
        (lambda: SpectralSolver(Burgers(0.1), LINE, step=0.1, method="rk4"), "method='rk4'"),
        (lambda: SpectralSolver(Burgers(0.1), LINE, step=0.1, dealias="3/2"), "dealias='3/2'"),
        (
            lambda: SpectralSolver(Burgers(0.1), LINE, step=0.1, source=np.zeros(16)),
            r"source of shape \(16,\)",
        ),
        (lambda: SpectralSolver(Burgers(0.1), LINE, step=0.1, source=1.0), "source of type float"),
        (lambda: SpectralSolver(Burgers(0.1), LINE, step=0.1, source=[[0.0] * 16]), "source of type list"),
        (lambda: FourierBasis(LINE, (8,)), r"modes=\(8,\)"),
        (lambda: FourierBasis(LINE, (2, 2)), r"modes=\(2, 2\)"),
        (lambda: FourierBasis(LINE).to_modes(np.zeros(8)), "need more nodes"),
        (lambda: FourierBasis(LINE).derivative(np.zeros(8) + 0j, (1, 1)), r"order=\(1, 1\)"),
        (lambda: Burgers(-0.1), "viscosity=-0.1 of Burgers"),
        (lambda: Burgers(0.1, dim=4), "dim=4 of Burgers"),
        (lambda: KortewegDeVries(math.nan), "nonlinearity=nan"),
        (lambda: AdvectionDiffusion((math.inf,), 0.1), "velocity="),
        (lambda: AdvectionDiffusion((), 0.1), r"velocity=\(\) of AdvectionDiffusion: give one to three"),
        (lambda: AdvectionDiffusion((1.0,) * 4, 0.1), r"velocity=\(1.0.* give one to three"),
        (lambda: AdvectionDiffusion(1.0, 0.1), "velocity=1.0 of AdvectionDiffusion"),  # type: ignore[arg-type]
        (lambda: AdvectionDiffusion((1.0, True), 0.1), "velocity="),
        (lambda: NavierStokes(0.1, drag=-1.0), "drag=-1.0"),
        (lambda: GrayScott(0.1, 0.1, -0.1, 0.1), "feed=-0.1"),
    ],
)
def test_bad_settings(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


EVERY = [
    AdvectionDiffusion((1.0,), 0.1),
    AllenCahn(0.1),
    Burgers(0.1),
    GrayScott(0.1, 0.1, 0.1, 0.1),
    KortewegDeVries(),
    KuramotoSivashinsky(),
    NavierStokes(0.1),
    ReactionDiffusion(0.1, 1.0),
]
PARAMETERS = [(equation, field.name) for equation in EVERY for field in fields(equation)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("equation", "parameter"), PARAMETERS, ids=[f"{type(e).__name__}-{p}" for e, p in PARAMETERS]
)
def test_every_parameter_refuses_what_is_no_number(equation: Any, parameter: str) -> None:
    for value in ("a", None, True, math.nan, math.inf, -math.inf, 10**400, 1j, [[1]], {}, np.ones((9, 9))):
        with pytest.raises(ConfigError, match=rf"\b{parameter}=") as caught:
            replace(equation, **{parameter: value})
        assert "\n" not in str(caught.value)
    for value in () if parameter == "velocity" else (np.float32(2), np.int64(2), 2):
        if parameter != "dim" or isinstance(value, np.integer | int):
            replace(equation, **{parameter: value})
    for value in (0, 2.0, 4, -1) if parameter == "dim" else ():
        with pytest.raises(ConfigError, match=f"dim={value}"):
            replace(equation, dim=value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u0": np.zeros(16)}, r"u0 of shape \(16,\): give \(\*batch, 1, 16\)"),
        ({"u0": np.zeros((1, 15))}, r"u0 of shape \(1, 15\)"),
        ({"u0": np.zeros((0, 1, 16))}, r"u0 of shape \(0, 1, 16\)"),
        ({"u0": np.zeros((1, 16), int)}, "u0 of dtype int64"),
        ({"u0": np.full((1, 16), np.nan)}, "u0 contains NaN"),
        ({"times": [0.0, 0.0]}, "times="),
        ({"times": [0.0, math.inf]}, "times="),
        ({"times": []}, "times="),
        ({"u0": [[0.0] * 16]}, "u0 of type list"),
        ({"resolution": 0}, "resolution=0"),
        ({"resolution": 2.5}, "resolution=2.5"),
        ({"resolution": "x"}, "resolution=x"),
        ({"resolution": True}, "resolution=True"),
        ({"resolution": (8, 8)}, r"resolution=\(8, 8\)"),
        ({"on_blowup": "ignore"}, "on_blowup='ignore'"),
    ],
)
def test_bad_runs(change: dict, message: str) -> None:
    arguments: dict = {"u0": np.zeros((1, 16)), "times": [0.0, 1.0], **change}
    with pytest.raises(ConfigError, match=message):
        SpectralSolver(Burgers(0.1), LINE, step=0.5).run(**arguments)


def test_sources_of_the_wrong_shape() -> None:
    solver = SpectralSolver(Burgers(0.1), LINE, step=0.5, source=lambda t, x: x[:5])
    with pytest.raises(ConfigError, match=r"source returns shape \(5,\)"):
        solver.run(np.zeros((1, 16)), [0.0, 1.0])
    for source, message in (
        (lambda t, x: None, "source returns None"),
        (lambda t, x: x / (t < 0.4), "source returns NaN or infinity at t=0.5"),
    ):
        with pytest.raises(ConfigError, match=message), np.errstate(all="ignore"):
            SpectralSolver(Burgers(0.1), LINE, step=0.5, source=source).run(np.zeros((1, 16)), [0.0, 1.0])
    two = SpectralSolver(GrayScott(1e-3, 1e-3, 0.03, 0.06, dim=1), LINE, step=0.5, source=lambda t, x: x)
    with pytest.raises(ConfigError, match=r"source returns shape \(16,\): return \(2, 16\)"):
        two.run(np.zeros((2, 16)), [0.0, 1.0])


def test_steps_without_end_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"step=1e-300: times that span 2 would take 2\.0e\+300 steps"):
        SpectralSolver(Burgers(0.1), LINE, step=1e-300).run(np.zeros((1, 16)), [0.0, 2.0])


def test_a_source_may_be_a_number() -> None:
    solver = SpectralSolver(Burgers(0.1), LINE, step=0.5, source=lambda t, x: 2.0)
    assert solver.run(np.ones((1, 16)), [0.0, 1.0])[-1] == pytest.approx(3.0, abs=1e-13)


def test_weights_of_few_steps_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[_Run] = []

    def remembered(*args: Any) -> _Run:
        runs.append(_Run(*args))
        return runs[-1]

    monkeypatch.setattr(spectral_solver, "_Run", remembered)
    SpectralSolver(Burgers(0.1), LINE, step=1.0).run(smooth(LINE), np.arange(9.0) ** 2 / 64)
    assert len(runs) == 1
    assert 1 < len(runs[0].methods) <= 4


def test_torch_takes_read_only_numpy_arrays() -> None:
    """Of which it warns, and warnings are errors here."""
    source = np.broadcast_to(np.array([0.5]), (1, 16))
    solver = SpectralSolver(Burgers(0.1), LINE, step=0.1, source=source)
    ours, theirs = (solver.run(u0, [0.0, 0.3]) for u0 in (smooth(LINE), torch.from_numpy(smooth(LINE))))
    assert theirs.numpy() == pytest.approx(ours, abs=1e-13)


def test_padded_products_have_an_even_number_of_points() -> None:
    """Along the last axis, where real lines are transformed; no wavenumber aliases."""
    for n in (45, 64, 90):
        grid = CartesianGrid((0.0, 0.0), (1.0, 1.0), (n, n), (True, True))
        solver = SpectralSolver(AllenCahn(0.01, dim=2), grid, step=0.1, dealias="padded")
        m = solver.basis.modes[0]
        assert solver.nodes[1] % 2 == 0
        assert 4 * m + 1 <= min(solver.nodes) <= max(solver.nodes) <= 1.2 * (4 * m + 1)
