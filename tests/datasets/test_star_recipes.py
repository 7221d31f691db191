"""Recipes on random stars: closed-form solutions, orders, stated accuracy, boundary conditions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import j0, jn_zeros

from sciml.datasets import recipe_registry
from sciml.datasets.recipe import FieldsLayout
from sciml.datasets.recipes import heat_star
from sciml.datasets.recipes.darcy_star import DarcyStarRecipe, LogNormal
from sciml.datasets.recipes.heat_star import FRAMES, HeatStarRecipe
from sciml.datasets.recipes.poisson_star import PoissonStarRecipe
from sciml.datasets.recipes.random_star import RandomStarRecipe
from sciml.errors import ConfigError

RECIPES: dict[str, RandomStarRecipe] = {
    "poisson-star": PoissonStarRecipe(),
    "darcy-star": DarcyStarRecipe(),
    "heat-star": HeatStarRecipe(),
}
every = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())


@every
def test_trajectories_fit_their_layout_and_pass_their_checks(recipe: RandomStarRecipe) -> None:
    layout, trajectory = recipe.layout(), recipe.sample(3)
    assert isinstance(layout, FieldsLayout)
    assert recipe_registry[layout.name] is type(recipe)
    for spec in layout.fields:
        steady = layout.steady and spec.time_varying
        assert trajectory.fields[spec.name].shape == layout.shape(spec)[1 if steady else 0 :]
        assert np.isfinite(trajectory.fields[spec.name]).all()
    assert set(trajectory.scalars) == set(layout.scalars)
    assert set(trajectory.checks) == set(recipe.check_limits)
    assert all(trajectory.checks[name] <= limit for name, limit in recipe.check_limits.items())
    inside = recipe.star(3).contains(layout.grid.nodes())
    assert (trajectory.fields["mask"] == inside).all()
    assert not trajectory.fields["u"][..., ~inside].any()


@every
def test_sample_is_a_pure_function_of_the_seed(recipe: RandomStarRecipe) -> None:
    small = replace(recipe, resolution=33)
    first, again, other = (small.sample(seed) for seed in (4, 4, 5))
    assert first.scalars == again.scalars
    for name, values in first.fields.items():
        assert (values == again.fields[name]).all()
        assert (values != other.fields[name]).any()


@every
@pytest.mark.parametrize("changes", [None, {}, {"degree": 2}, {"degree": 3}])
def test_stated_accuracy_holds(recipe: RandomStarRecipe, changes: dict[str, Any] | None) -> None:
    if changes is not None:
        recipe = replace(recipe, resolution=33, **changes)
    limit = recipe.verification_limits()["self_convergence"]
    if changes is None:
        assert limit == recipe.accuracy
    coarse, fine = recipe.sample(11), recipe.refined().sample(11)
    assert fine.scalars == coarse.scalars
    assert (fine.fields["mask"] == coarse.fields["mask"]).all()
    found = recipe.compare(coarse, fine)["self_convergence"]
    assert limit / 300 < found < limit


@every
def test_refined_recipe_has_half_the_spacing_and_half_the_step(recipe: RandomStarRecipe) -> None:
    steps: dict[str, Any] = {"substeps": 4} if isinstance(recipe, HeatStarRecipe) else {}
    assert recipe.refined() == replace(recipe, refine=2, **steps)
    assert recipe.refined().grid() == recipe.grid()
    assert recipe.refined().coarseness == 0.5


def test_heat_star_is_of_fourth_order_in_time() -> None:
    substeps, recipe = (1, 2, 3, 4), HeatStarRecipe(resolution=33)
    *found, fine = (replace(recipe, substeps=k).sample(5).fields["u"] for k in (*substeps, 10))
    rate = -np.polyfit(np.log(substeps), [np.log(np.linalg.norm(u - fine)) for u in found], 1)[0]
    assert 3.5 < rate < 4.7


def test_darcy_star_in_a_uniform_disk() -> None:
    """a = 1: u = (R^2 - r^2) / 4, a polynomial, is exact."""
    recipe = DarcyStarRecipe(resolution=41, roughness=0.0, amplitude=0.0)
    trajectory = recipe.sample(1)
    x, y = np.moveaxis(recipe.grid().nodes(), -1, 0)
    exact = np.maximum(trajectory.scalars["radius"] ** 2 - x**2 - y**2, 0.0) / 4
    assert trajectory.fields["u"] == pytest.approx(exact, abs=1e-13)


def test_darcy_star_scales_with_its_coefficient(monkeypatch: pytest.MonkeyPatch) -> None:
    """-div(2 a grad u) = 1 has half the solution of -div(a grad u) = 1."""
    recipe = DarcyStarRecipe(resolution=41)
    before = recipe.sample(2).fields
    value = LogNormal.__call__
    monkeypatch.setattr(LogNormal, "__call__", lambda self, x, y: 2 * value(self, x, y))
    after = recipe.sample(2).fields
    assert after["a"] == pytest.approx(2 * before["a"])
    assert after["u"] == pytest.approx(before["u"] / 2, abs=1e-12)


def test_darcy_star_satisfies_its_equation() -> None:
    """Central differences of the stored fields, of second order, far from the boundary."""
    grids, errors = (49, 65, 97, 129), []
    for n in grids:
        recipe = DarcyStarRecipe(resolution=n)
        fields, h = recipe.sample(8).fields, 1 / (n - 1)
        a, u = fields["a"], fields["u"]
        flux_x, flux_y = (
            (np.take(a, range(1, n), axis) + np.take(a, range(n - 1), axis)) / 2 * np.diff(u, axis=axis) / h
            for axis in (0, 1)
        )
        divergence = (np.diff(flux_x, axis=0)[:, 1:-1] + np.diff(flux_y, axis=1)[1:-1]) / h
        x, y = np.moveaxis(recipe.grid().nodes()[1:-1, 1:-1], -1, 0)
        errors.append(np.abs(divergence + 1)[np.hypot(x, y) < 0.12].max())
    rate = -np.polyfit(np.log([n - 1 for n in grids]), np.log(errors), 1)[0]
    assert errors[-1] < 0.05
    assert 1.7 < rate < 2.4


def test_darcy_star_is_of_fourth_order() -> None:
    """Against one finer solution, averaged over two seeds."""
    refinements, logs = (1, 2, 3, 4), []
    for seed in (5, 6):
        *found, fine = (DarcyStarRecipe(33, refine).sample(seed).fields["u"] for refine in (*refinements, 6))
        logs.append(np.log([np.linalg.norm(u - fine) for u in found]))
    rate = -np.polyfit(np.log(refinements), np.mean(logs, axis=0), 1)[0]
    assert 3.6 < rate < 5.5, logs


def test_heat_star_against_the_first_mode_of_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """u = J0(j r / R) exp(-kappa (j / R)^2 t), j the first zero of J0: fourth order in space and time."""
    zero = jn_zeros(0, 1)[0]

    class Mode:
        def __init__(self, star: Any, function: Any) -> None:
            self.radius = star.radius

        def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
            return j0(zero * np.hypot(x, y) / self.radius)

    monkeypatch.setattr(heat_star, "_Initial", Mode)
    errors, cells = [], (32, 40, 48, 64)
    for n in cells:
        recipe = HeatStarRecipe(resolution=n + 1, roughness=0.0, substeps=n // 8, kappa=0.04)
        trajectory, grid = recipe.sample(1), recipe.grid()
        radius, inside = trajectory.scalars["radius"], trajectory.fields["mask"] == 1
        mode = j0(zero * np.hypot(*np.moveaxis(grid.nodes(), -1, 0)) / radius) * inside
        decay = np.exp(-recipe.kappa * (zero / radius) ** 2 * recipe.times)
        errors.append(np.abs(trajectory.fields["u"] - decay[:, None, None] * mode).max())
    rate = -np.polyfit(np.log(cells), np.log(errors), 1)[0]
    assert 3.5 < rate < 5.5, errors
    assert errors[-1] < 2e-6


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**62))
def test_heat_star_starts_from_compatible_data(seed: int) -> None:
    """u0 and its Laplacian vanish on the boundary; 1 - s^6 to the fifth power has five vanishing terms."""
    recipe = HeatStarRecipe()
    star = recipe.star(seed)
    initial = heat_star._Initial(star, recipe.function(seed))
    theta = np.linspace(0, 2 * np.pi, 40)
    direction = np.stack([np.cos(theta), np.sin(theta)])
    radius = -star.phi(1e-9 * direction.T) + 1e-9
    near = [np.abs(initial(*(radius * (1 - depth) * direction))).max() for depth in (0.02, 0.01, 0.0)]
    assert near[2] < 1e-60
    # Five powers of the distance.
    assert near[1] < near[0] / 20
    centre = initial(np.zeros(1), np.zeros(1))
    assert centre == pytest.approx(recipe.function(seed)(np.zeros(1), np.zeros(1)))


def test_heat_star_loses_energy_at_the_rate_of_its_gradient() -> None:
    """d/dt int u^2 = -2 kappa int |grad u|^2, sums over nodes: u is 0 on and beyond the boundary."""
    recipe = HeatStarRecipe()
    u, h = recipe.sample(4).fields["u"], 1 / 64
    energy = np.sum(u**2, axis=(1, 2)) * h**2
    gradient = sum(np.sum(np.diff(u, axis=axis) ** 2, axis=(1, 2)) for axis in (1, 2))
    dt = recipe.times[1]
    rate = (energy[2:] - energy[:-2]) / (2 * dt)
    assert len(u) == FRAMES
    assert rate[4:] == pytest.approx(-2 * recipe.kappa * gradient[5:-1], rel=0.05)


def test_bad_parameters() -> None:
    with pytest.raises(ConfigError, match=r"poisson-star resolution=9"):
        PoissonStarRecipe(resolution=9)
    with pytest.raises(ConfigError, match=r"darcy-star refine=0"):
        DarcyStarRecipe(refine=0)
    with pytest.raises(ConfigError, match=r"darcy-star roughness=0.9"):
        DarcyStarRecipe(roughness=0.9)
    with pytest.raises(ConfigError, match=r"darcy-star amplitude=9"):
        DarcyStarRecipe(amplitude=9.0)
    with pytest.raises(ConfigError, match=r"heat-star kappa=0"):
        HeatStarRecipe(kappa=0.0)
    with pytest.raises(ConfigError, match=r"heat-star substeps=0"):
        HeatStarRecipe(substeps=0)
