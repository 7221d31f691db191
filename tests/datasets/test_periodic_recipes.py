"""Recipes on periodic boxes and of ordinary differential equations: pure, batched, accurate, checked."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from sciml.datasets import Recipe, Trajectory
from sciml.datasets.recipes import (
    AdvectionRecipe,
    AllenCahnRecipe,
    BurgersRecipe,
    GrayScottRecipe,
    KdvRecipe,
    KuramotoSivashinskyRecipe,
    LorenzRecipe,
    LotkaVolterraRecipe,
    NavierStokesRecipe,
    ReactionDiffusionRecipe,
)
from sciml.datasets.recipes.periodic import PeriodicRecipe
from sciml.datasets.recipes.waves import SineWaves
from sciml.errors import ConfigError
from sciml.solvers.spectral import SpectralSolver

SHORT: tuple[PeriodicRecipe, ...] = (
    AdvectionRecipe(frames=9),
    BurgersRecipe(frames=6, final_time=0.1),
    KdvRecipe(frames=6, final_time=5.0),
    KuramotoSivashinskyRecipe(frames=6, final_time=5.0),
    ReactionDiffusionRecipe(frames=11),
    AllenCahnRecipe(frames=4, final_time=0.6),
    GrayScottRecipe(frames=4, final_time=30.0),
    NavierStokesRecipe(frames=4, final_time=1.5),
)
# Of the relative difference to the equation written out again: three times what seeds 1 and 2 have.
LIMITS = (7e-3, 5e-7, 2e-10, 3e-6, 2e-6, 1e-4, 4e-4, 1e-6)
ODES: tuple[Recipe, ...] = (
    LotkaVolterraRecipe(final_time=4.0, frames=41),
    LorenzRecipe(final_time=2.0, frames=21),
)


def names(recipe: Recipe) -> str:
    return type(recipe).__name__


@pytest.mark.parametrize("recipe", [*SHORT, *ODES], ids=names)
def test_a_batch_is_the_loop_bit_for_bit(recipe: Recipe) -> None:
    seeds = [11, 5, 8]
    for seed, member in zip(seeds, recipe.sample_batch(seeds), strict=True):
        alone = recipe.sample(seed)
        assert all((values == alone.fields[name]).all() for name, values in member.fields.items())
        assert member.checks == alone.checks


@pytest.mark.parametrize("recipe", [*SHORT, *ODES], ids=names)
def test_checks_and_accuracy_are_within_their_limits(recipe: Recipe) -> None:
    fine = recipe.refined()
    assert fine is not None
    assert fine.layout() == recipe.layout()
    for ours, theirs in zip(recipe.sample_batch([1, 2, 3]), fine.sample_batch([1, 2, 3]), strict=True):
        assert set(ours.checks) == set(recipe.check_limits)
        assert all(value <= recipe.check_limits[name] for name, value in ours.checks.items()), ours.checks
        measures = recipe.compare(ours, theirs)
        assert set(measures) == set(recipe.verification_limits())
        assert all(value <= recipe.verification_limits()[name] for name, value in measures.items()), measures


@pytest.mark.parametrize("recipe", SHORT, ids=names)
def test_a_seed_is_one_initial_state_at_every_resolution(recipe: PeriodicRecipe) -> None:
    coarse, fine = recipe.grid(), recipe.grid(3)
    every = (slice(None), *(slice(None, None, 3),) * recipe.dim)
    assert np.allclose(recipe.initial(4, coarse.axes), recipe.initial(4, fine.axes)[every], atol=1e-12)


# "cpu:0" is torch's name for the processor; "cpu" stays with NumPy.
@pytest.mark.parametrize("device", ["cpu:0", *(["cuda"] if torch.cuda.is_available() else [])])
@pytest.mark.parametrize("recipe", SHORT, ids=names)
def test_torch_agrees_with_numpy(recipe: PeriodicRecipe, device: str) -> None:
    ours, theirs = recipe.sample_batch([3, 4]), recipe.sample_batch([3, 4], device=device)
    for a, b in zip(ours, theirs, strict=True):
        for name, values in a.fields.items():
            assert np.abs(values - b.fields[name]).max() < 1e-10 * np.abs(values).max()
    with pytest.raises(ConfigError, match="device='cuda:77'"):
        recipe.sample_batch([3], device="cuda:77")


def test_memory_does_not_hold_the_modes_of_every_step() -> None:
    """One state has 15 kB."""
    peaks = []
    for end in (2.0, 12.0):
        recipe = NavierStokesRecipe(frames=3, final_time=end)
        tracemalloc.start()
        recipe.sample_batch([0])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / (10 / recipe.step) < 3000


def test_a_step_beyond_stability_gives_nan_in_its_member_only() -> None:
    recipe = NavierStokesRecipe(step=1.0, final_time=20.0, frames=3, viscosity=1e-5)
    assert any(np.isnan(t.fields["w"]).any() for t in recipe.sample_batch([0, 1, 2, 3]))
    # Steps of 1/10 are too long for some flows.
    edge = NavierStokesRecipe(step=0.1, frames=11)
    lost = [bool(np.isnan(t.fields["w"]).any()) for t in edge.sample_batch([0, 1, 2])]
    assert any(lost)
    assert not all(lost)


@pytest.mark.parametrize(
    ("recipe", "error"),
    [(BurgersRecipe(frames=3), 0.01), (AllenCahnRecipe(frames=3, final_time=0.6), 1e-3)],
    ids=["burgers", "allen-cahn"],
)
def test_the_balance_notices_a_wrong_rate(
    recipe: PeriodicRecipe, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, limit = type(recipe), recipe.check_limits["balance"]
    right = kind.balance
    assert recipe.sample(1).checks["balance"] < limit

    def wrong(self, basis, modes, source):  # type: ignore[no-untyped-def]
        quantity, rate = right(self, basis, modes, source)
        return quantity, (1 + error) * rate

    monkeypatch.setattr(kind, "balance", wrong)
    assert recipe.sample(1).checks["balance"] > 10 * limit


@pytest.mark.parametrize("frames", [2, 3])
def test_the_balance_of_few_steps_is_computed(frames: int) -> None:
    recipe = BurgersRecipe(frames=frames, final_time=1e-5, step=1.0)
    assert recipe.sample(1).checks["balance"] < 1e-6


def test_beyond_the_horizon_statistics_are_compared() -> None:
    recipe = KuramotoSivashinskyRecipe(frames=21, final_time=60.0, resolution=128, step=0.05)
    assert set(recipe.verification_limits()) == {"self_convergence", "statistics"}
    trajectory = recipe.sample(1)
    changed = replace(trajectory, fields={"u": trajectory.fields["u"].copy()})
    changed.fields["u"][-1] *= 2
    measures = recipe.compare(changed, trajectory)
    assert measures["self_convergence"] == 0
    assert measures["statistics"] > 0.1
    assert set(replace(recipe, final_time=40.0).verification_limits()) == {"self_convergence"}


def test_lotka_volterra_orbits_close() -> None:
    # Small orbits around the centre have the period 2 pi / sqrt(alpha gamma).
    recipe = LotkaVolterraRecipe(alpha=1.0, beta=1.0, final_time=2 * np.pi, frames=3)

    class Near(LotkaVolterraRecipe):
        def initial(self, seed: int) -> np.ndarray:
            return np.array([1.001, 1.0])

    states = Near(alpha=1.0, beta=1.0, final_time=recipe.final_time, frames=3).sample(0).fields["states"]
    assert np.abs(states[-1] - states[0]).max() < 2e-6
    assert np.abs(states[1] - states[0]).max() > 1e-3


def test_sine_waves_have_the_declared_ranges() -> None:
    wave = SineWaves(0, 2000, (1, 3), (-0.5, 0.5), 4.0)
    assert sorted({round(k * 4 / (2 * np.pi)) for k in wave.k}) == [1, 2, 3]
    assert abs(wave.amplitude.mean()) < 0.03
    assert 0.48 < np.abs(wave.amplitude).max() <= 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BurgersRecipe(viscosity=-1.0), "viscosity=-1"),
        (lambda: BurgersRecipe(resolution=4), "burgers resolution=4"),
        (lambda: KdvRecipe(step=0.0), "kdv step=0"),
        (lambda: KuramotoSivashinskyRecipe(period=-1.0), "period=-1"),
        (lambda: AdvectionRecipe(frames=1), "advection frames=1"),
        (lambda: LotkaVolterraRecipe(alpha=0.0), "alpha=0"),
        (lambda: LorenzRecipe(rho=np.nan), "rho=nan"),
        (lambda: LorenzRecipe(final_time=np.inf), "final_time=inf"),
        (lambda: LotkaVolterraRecipe(frames=1), "frames=1"),
        (lambda: LotkaVolterraRecipe().sample_batch([1], device="cuda"), "CPU only"),
        (lambda: GrayScottRecipe(feed=np.nan), "feed=nan"),
        (lambda: KdvRecipe(period=np.nan), "kdv period=nan"),
        (lambda: AllenCahnRecipe(tau=-1.0), "tau=-1"),
        (lambda: AdvectionRecipe(resolution=17), "advection resolution=17: use at least 18"),
        (lambda: AdvectionRecipe(beta=-11.0), "advection beta=-11.0, final_time=2.0: .* more than 20 times"),
        (lambda: BurgersRecipe(modes=1), "modes=1"),
        (lambda: BurgersRecipe(modes=20.5), "modes=20.5"),
        (lambda: BurgersRecipe(modes=172), "burgers modes=172: 512 points resolve 171"),
        (lambda: KdvRecipe(period=0.0), "kdv period=0"),
        (lambda: AllenCahnRecipe(tau=0.0), "tau=0"),
    ],
)
def test_bad_parameters(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    "recipe",
    [
        NavierStokesRecipe(refine=4, modes=64, viscosity=1e-4, frames=2, final_time=0.2, step=0.005),
        BurgersRecipe(resolution=64, refine=8),
    ],
    ids=names,
)
def test_stored_nodes_that_are_too_few_for_the_modes_fail_no_check(recipe: PeriodicRecipe) -> None:
    assert all(value <= recipe.check_limits[name] for name, value in recipe.sample(1).checks.items())


@pytest.mark.parametrize("recipe", SHORT, ids=names)
def test_refined_halves_spacing_and_step(recipe: PeriodicRecipe) -> None:
    fine = recipe.refined()
    assert (fine.refine, fine.step) == (2 * recipe.refine, recipe.step / 2)
    assert replace(fine, refine=recipe.refine, step=recipe.step) == recipe


@pytest.mark.parametrize("recipe", [BurgersRecipe(step=1e9), LorenzRecipe(step=1.0)], ids=names)
def test_a_step_longer_than_a_frame_is_halved_all_the_same(recipe: BurgersRecipe | LorenzRecipe) -> None:
    fine = recipe.refined()
    assert fine.step == recipe.final_time / (recipe.frames - 1) / 2


def mean_squares(recipe: PeriodicRecipe, count: int) -> np.ndarray:
    axes = recipe.grid().axes
    return np.array([np.mean(recipe.initial(seed, axes) ** 2) for seed in range(count)])


def test_initial_states_have_the_stated_distributions() -> None:
    # sum over k != 0 of 7^3 (4 pi^2 |k|^2 + 49)^(-5/2) and of 625 (4 pi^2 k^2 + 25)^(-2).
    k = np.arange(-20, 21)
    square = 4 * np.pi**2 * (k[:, None] ** 2 + k**2)
    flow = (343 * (square + 49) ** -2.5)[square > 0].sum()
    assert flow == pytest.approx(0.034, abs=0.001)
    assert mean_squares(NavierStokesRecipe(), 40).mean() == pytest.approx(flow, rel=0.12)
    burgers = 2 * (625 * (4 * np.pi**2 * np.arange(1, 100) ** 2 + 25.0) ** -2).sum()
    assert mean_squares(BurgersRecipe(), 200).mean() == pytest.approx(burgers, rel=0.2)
    for recipe in (KdvRecipe(), KuramotoSivashinskyRecipe()):
        # Ten waves with mean square amplitude 1/12, wavenumbers 1 to 3.
        assert mean_squares(recipe, 200).mean() == pytest.approx(10 / 24, rel=0.15)
        spectrum = np.abs(np.fft.rfft(recipe.initial(0, recipe.grid().axes)[0]))
        assert spectrum[4:].max() < 1e-10 < spectrum[1:4].min()
    allen_cahn = AllenCahnRecipe()
    inverse = np.arctanh(np.concatenate([allen_cahn.initial(s, allen_cahn.grid().axes) for s in range(20)]))
    assert np.mean(inverse**2) == pytest.approx(1.0, rel=0.15)
    a, b = GrayScottRecipe().initial(1, GrayScottRecipe().grid(4).axes)
    assert np.allclose(a + b, 1)
    assert 0 < a.min() < 0.51
    assert a.max() > 0.99


def test_forcing_of_the_flow() -> None:
    f = NavierStokesRecipe().forcing((np.array([0.0, 0.25]), np.array([0.0, 0.125])))[0]
    assert f == pytest.approx(0.1 * np.array([[1.0, np.sqrt(2)], [1.0, 0.0]]))


def test_compare_looks_no_further_than_the_horizon() -> None:
    recipe = KuramotoSivashinskyRecipe(frames=5, final_time=80.0)  # 0, 20, 40 | 60, 80
    ones = np.ones((5, 4))
    for frame, found in ((2, 0.1 / np.sqrt(3)), (3, 0.0)):
        changed = ones.copy()
        changed[frame] += 0.1
        measures = recipe.compare(Trajectory({"u": changed}), Trajectory({"u": ones}))
        assert measures["self_convergence"] == pytest.approx(found)


def rates(recipe: PeriodicRecipe, u: np.ndarray) -> list[np.ndarray]:
    """Right-hand sides as the docstrings state them, by plain NumPy, without the solver's code."""
    n, dim = u.shape[-1], recipe.dim
    k = 2 * np.pi / recipe.length * np.fft.fftfreq(n, 1 / n)
    mesh = np.meshgrid(*[k] * dim, indexing="ij")

    def d(values: np.ndarray, *order: int) -> np.ndarray:
        factor = np.prod([(1j * m) ** times for m, times in zip(mesh, order, strict=True)], axis=0)
        return np.fft.ifftn(factor * np.fft.fftn(values)).real

    def laplace(values: np.ndarray) -> np.ndarray:
        return d(values, 2, 0) + d(values, 0, 2)

    first = u[0]
    match recipe:
        case AdvectionRecipe():
            return [-0.4 * d(first, 1)]
        case BurgersRecipe():
            return [0.01 * d(first, 2) - first * d(first, 1)]
        case KdvRecipe():
            return [-first * d(first, 1) - d(first, 3)]
        case KuramotoSivashinskyRecipe():
            return [-first * d(first, 1) - d(first, 2) - d(first, 4)]
        case ReactionDiffusionRecipe():
            return [0.002 * d(first, 2) + 5 * first * (1 - first)]
        case AllenCahnRecipe():
            return [0.03**2 * laplace(first) + first - first**3]
        case GrayScottRecipe():
            gain = first * u[1] ** 2
            return [
                8e-5 * laplace(first) - gain + 0.029 * (1 - first),
                4e-5 * laplace(u[1]) + gain - (0.029 + 0.057) * u[1],
            ]
        case NavierStokesRecipe():
            square = mesh[0] ** 2 + mesh[1] ** 2
            square[0, 0] = np.inf  # psi has no mean
            psi = np.fft.ifftn(np.fft.fftn(first) / square).real
            phase = 2 * np.pi * np.add.outer(np.arange(n) / n, np.arange(n) / n)
            transport = d(psi, 0, 1) * d(first, 1, 0) - d(psi, 1, 0) * d(first, 0, 1)
            return [1e-3 * laplace(first) - transport + 0.1 * (np.sin(phase) + np.cos(phase))]
    raise AssertionError(recipe)


@pytest.mark.parametrize(
    ("recipe", "limit"), list(zip(SHORT, LIMITS, strict=True)), ids=[names(recipe) for recipe in SHORT]
)
def test_solutions_fit_the_equation_written_out_a_second_time(recipe: PeriodicRecipe, limit: float) -> None:
    """A coefficient that is wrong in the solver or in the recipe converges and balances all the same.

    Around inner frames, (u(t + h) - u(t - h)) / 2h is compared with Simpson's mean of the rates, of
    fourth order in the step h, on a grid twice as fine as the solver's.
    """
    fine = recipe.grid(recipe.refine)
    u0 = np.stack([recipe.initial(seed, fine.axes) for seed in (1, 2)])
    solver = SpectralSolver(recipe.pde(), fine, step=recipe.step, source=recipe.forcing(fine.axes))
    nodes = (2 * fine.shape[0],) * recipe.dim
    seen: list[tuple[float, np.ndarray]] = []
    found: list[float] = []

    def monitor(t: float, modes: np.ndarray) -> None:
        seen.append((t, solver.basis.to_grid(modes, nodes)))
        del seen[:-3]
        if len(seen) == 3 and np.isclose(recipe.times[1:-1], seen[1][0], rtol=1e-12).any():
            (start, before), (_, now), (end, after) = seen
            for a, b, c in zip(before, now, after, strict=True):
                ra, rb, rc = (np.stack(rates(recipe, u)) for u in (a, b, c))
                rate = (ra + 4 * rb + rc) / 6
                # Of a truncated system: only the retained part of the rate moves it.
                rate = solver.basis.to_grid(solver.basis.to_modes(rate), nodes)
                found.append(np.linalg.norm((c - a) / (end - start) - rate) / np.linalg.norm(rate))

    for _ in solver.frames(u0, recipe.times, monitor=monitor):
        pass
    assert len(found) == 2 * (recipe.frames - 2)
    assert max(found) < limit
