"""Recipes are pure functions of their seed, and solve what they say."""

import itertools

import numpy as np
import pytest
from scipy.sparse.linalg import spsolve

from sciml.datasets import Recipe, recipe_registry, trajectory_seeds
from sciml.datasets.recipes import Darcy, PoissonStar
from sciml.errors import ConfigError
from sciml.solvers import CartesianGrid
from sciml.solvers.five_point import FivePoint

SMALL: dict[str, Recipe] = {"darcy": Darcy(resolution=33), "poisson-star": PoissonStar(resolution=49)}


def test_every_recipe_is_tested_here() -> None:
    assert set(SMALL) == set(recipe_registry)


@pytest.mark.parametrize("recipe", SMALL.values(), ids=SMALL.keys())
def test_sample_is_pure_and_batch_agrees(recipe: Recipe) -> None:
    seeds = [int(seed) for seed in trajectory_seeds(5, 0, 3)]
    first, again = recipe.sample(seeds[1]), recipe.sample_batch(seeds)[1]
    for name, values in first.fields.items():
        assert values == pytest.approx(again.fields[name], abs=1e-13)
    assert first.scalars == again.scalars
    assert not np.allclose(first.fields["u"], recipe.sample(seeds[0]).fields["u"])


@pytest.mark.parametrize("recipe", SMALL.values(), ids=SMALL.keys())
def test_trajectories_fit_their_layout_and_pass_their_checks(recipe: Recipe) -> None:
    layout, trajectory = recipe.layout(), recipe.sample(3)
    for spec in layout.fields:
        steady = layout.steady and spec.time_varying
        assert trajectory.fields[spec.name].shape == layout.shape(spec)[1 if steady else 0 :]
    assert set(trajectory.scalars) == set(layout.scalars)
    assert all(trajectory.checks[name] <= limit for name, limit in recipe.check_limits.items())
    assert recipe.check_limits


def test_five_point_scheme_against_sparse_direct_solve() -> None:
    grid = CartesianGrid((0.0, 0.0), (1.0, 2.0), (20, 31))
    rng = np.random.default_rng(0)
    scheme = FivePoint(rng.uniform(0.1, 10, grid.shape), grid)
    f = rng.normal(size=grid.shape)
    u, residual = scheme.solve(f)
    direct = spsolve(scheme.matrix().tocsc(), f[1:-1, 1:-1].ravel()).reshape(19, 30)
    assert u[1:-1, 1:-1] == pytest.approx(direct, abs=1e-9)
    assert residual < 1e-10
    assert scheme.matrix() @ direct.ravel() == pytest.approx(scheme.apply(direct).ravel(), abs=1e-9)
    assert not u[[0, -1]].any()
    assert not u[:, [0, -1]].any()


def test_five_point_scheme_is_of_second_order_for_smooth_coefficients() -> None:
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


def test_darcy_coefficient_is_the_same_medium_at_every_resolution() -> None:
    coarse, fine = Darcy(resolution=43).sample(9), Darcy(resolution=85).sample(9)
    assert (coarse.fields["a"] == fine.fields["a"][::2, ::2]).all()
    assert set(np.unique(fine.fields["a"])) == {3.0, 12.0}
    refined = Darcy(resolution=43, refine=2).sample(9)
    assert refined.fields["u"] == pytest.approx(fine.fields["u"][::2, ::2], abs=1e-12)


def test_darcy_phases_are_equally_likely() -> None:
    shares = [np.mean(Darcy(resolution=43).sample(seed).fields["a"] == 12) for seed in range(60)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)


def test_poisson_star_converges_at_fourth_order() -> None:
    """Self-convergence over four grids, judged on the coarsest grid's nodes, averaged over three seeds."""
    cells, logs = (48, 96, 192, 384), []
    for seed in (5, 6, 7):
        u = [PoissonStar(resolution=n + 1).sample(seed).fields["u"][:: n // 48, :: n // 48] for n in cells]
        differences = [np.sqrt(np.mean((a - b) ** 2)) for a, b in itertools.pairwise(u)]
        assert differences[0] < 1e-4 * np.abs(u[0]).max()
        logs.append(np.log(differences))
    rate = -np.polyfit(np.log(cells[:3]), np.mean(logs, axis=0), 1)[0]
    assert 3.8 < rate < 5.0, logs


def test_bad_parameters() -> None:
    with pytest.raises(ConfigError, match="resolution=3"):
        Darcy(resolution=3)
    with pytest.raises(ConfigError, match="must be positive and finite"):
        Darcy(low=0.0)
    with pytest.raises(ConfigError, match=r"roughness=0.9"):
        PoissonStar(roughness=0.9)
    grid = CartesianGrid.uniform(8)
    with pytest.raises(ConfigError, match="positive everywhere"):
        FivePoint(np.zeros(grid.shape), grid)
    with pytest.raises(ConfigError, match="shape"):
        FivePoint(np.ones((3, 3)), grid)
