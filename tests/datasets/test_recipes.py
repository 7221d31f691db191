"""Recipes are pure functions of their seed, and solve what they say."""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

from sciml.datasets import GaussianRandomField, Recipe, Trajectory, recipe_registry, recipes, trajectory_seeds
from sciml.datasets.recipe import Layout
from sciml.datasets.recipes import DarcyRecipe, PoissonStarRecipe
from sciml.errors import ConfigError
from sciml.solvers.five_point import FivePoint

SMALL: dict[str, Recipe] = {
    "darcy": DarcyRecipe(resolution=33),
    "poisson-star": PoissonStarRecipe(resolution=49),
}


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


def test_darcy_coefficient_is_the_same_medium_at_every_resolution() -> None:
    coarse, fine = DarcyRecipe(resolution=43).sample(9), DarcyRecipe(resolution=85).sample(9)
    assert (coarse.fields["a"] == fine.fields["a"][::2, ::2]).all()
    assert set(np.unique(fine.fields["a"])) == {3.0, 12.0}
    refined = DarcyRecipe(resolution=43, refine=2).sample(9)
    assert refined.fields["u"] == pytest.approx(fine.fields["u"][::2, ::2], abs=1e-12)


def test_darcy_is_high_where_the_field_is_not_negative() -> None:
    recipe, x = DarcyRecipe(resolution=43), np.linspace(0, 1, 43)
    field = GaussianRandomField(2.0, 3.0, "neumann", 2, 128).sample(9, (x, x))
    a = recipe.sample(9).fields["a"]
    assert (a[field >= 0] == 12).all()
    assert (a[field < 0] == 3).all()


@pytest.mark.parametrize("where", [(20, 20), (0, 20)])
def test_darcy_notices_a_wrong_solution(where: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside and on the boundary, whatever the solver says of itself."""
    right = FivePoint.solve

    def wrong(self: FivePoint, source: np.ndarray, tolerance: float = 1e-11) -> tuple[np.ndarray, float]:
        u, _ = right(self, source, tolerance)
        u[where] += 1e-5
        return u, 0.0

    recipe = DarcyRecipe(resolution=43)
    assert 0 < recipe.sample(9).checks["relative_residual"] <= recipe.check_limits["relative_residual"]
    monkeypatch.setattr(FivePoint, "solve", wrong)
    assert recipe.sample(9).checks["relative_residual"] > 10 * recipe.check_limits["relative_residual"]


def test_darcy_in_a_uniform_medium() -> None:
    """The torsion function of the unit square has the maximum 0.0736713..., and 1 / a of it for any a."""
    for a in (1.0, 5.0):
        u = DarcyRecipe(resolution=43, high=a, low=a).sample(0).fields["u"]
        assert a * u.max() == pytest.approx(0.0736713, rel=1e-3)
        assert not u[[0, -1]].any()


def test_darcy_phases_are_equally_likely() -> None:
    shares = [np.mean(DarcyRecipe(resolution=43).sample(seed).fields["a"] == 12) for seed in range(60)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)


def test_smooth_darcy_medium_is_lognormal() -> None:
    """log a has mean 0 over the square and, in the mean over media, mean square amplitude^2."""
    x = (np.arange(60) + 0.5) / 60
    recipe = DarcyRecipe(medium="smooth", amplitude=0.5)
    logs = np.log([recipe.coefficient(seed, (x, x)) for seed in range(200)])
    assert logs.mean(axis=(1, 2)) == pytest.approx(0, abs=1e-3)
    assert np.mean(logs**2) == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize(("medium", "order"), [("binary", 1.0), ("smooth", 2.0)])
def test_darcy_converges_as_stated(medium: Literal["binary", "smooth"], order: float) -> None:
    grids, logs = (1, 2, 4, 8), []
    for seed in range(6):
        u = [
            DarcyRecipe(resolution=22, refine=k, medium=medium).sample(seed).fields["u"] for k in (*grids, 16)
        ]
        logs.append(np.log([np.linalg.norm(a - b) for a, b in itertools.pairwise(u)]))
    rate = -np.polyfit(np.log(grids), np.mean(logs, axis=0), 1)[0]
    assert rate == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("medium", ["binary", "smooth"])
@pytest.mark.parametrize(("resolution", "refine"), [(85, 1), (33, 1), (43, 4)])
def test_darcy_has_the_accuracy_that_it_states(
    medium: Literal["binary", "smooth"], resolution: int, refine: int
) -> None:
    recipe = DarcyRecipe(resolution, refine, medium)
    limit = recipe.verification_limits()["self_convergence"]
    if (resolution, refine, medium) == (85, 1, "binary"):
        assert limit == recipe.accuracy
    for seed in range(3):
        found = recipe.compare(recipe.sample(seed), recipe.refined().sample(seed))["self_convergence"]
        assert limit / 100 < found < limit


def test_poisson_star_converges_at_fourth_order() -> None:
    """Self-convergence over four grids, judged on the coarsest grid's nodes, averaged over three seeds."""
    cells, logs = (48, 96, 192, 384), []
    for seed in (5, 6, 7):
        u = [
            PoissonStarRecipe(resolution=n + 1).sample(seed).fields["u"][:: n // 48, :: n // 48]
            for n in cells
        ]
        differences = [np.sqrt(np.mean((a - b) ** 2)) for a, b in itertools.pairwise(u)]
        assert differences[0] < 1e-4 * np.abs(u[0]).max()
        logs.append(np.log(differences))
    rate = -np.polyfit(np.log(cells[:3]), np.mean(logs, axis=0), 1)[0]
    assert 3.8 < rate < 5.0, logs


def test_bad_parameters() -> None:
    with pytest.raises(ConfigError, match="resolution=3"):
        DarcyRecipe(resolution=3)
    with pytest.raises(ConfigError, match=r"darcy low=0.0: choose a value from 1e-12 to 1e"):
        DarcyRecipe(low=0.0)
    with pytest.raises(ConfigError, match=r"darcy high=1.0, low=1e-07: .* ratio of the two below"):
        DarcyRecipe(high=1.0, low=1e-7)
    with pytest.raises(ConfigError, match=r"roughness=0.9"):
        PoissonStarRecipe(roughness=0.9)
    with pytest.raises(ConfigError, match="medium='rough'"):
        DarcyRecipe(medium="rough")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="amplitude=-1"):
        DarcyRecipe(amplitude=-1.0)


HOSTILE = ("a", "", None, True, math.nan, math.inf, -math.inf, 1e300, 10**400, 1j, [1], (1,), np.ones(99))
WHOLE = (-1, 0, 2.5, 5.0, np.float64(9), 10**9)
PARAMETERS = [
    (name, field.name, (*HOSTILE, *WHOLE) if field.type is int else HOSTILE)
    for name in recipe_registry
    if recipe_registry[name].__module__.startswith("sciml.datasets.recipes")
    for field in dataclasses.fields(recipe_registry[name])  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("recipe", "parameter", "values"), PARAMETERS, ids=[f"{r}-{p}" for r, p, _ in PARAMETERS]
)
def test_every_parameter_refuses_what_it_cannot_be(recipe: str, parameter: str, values: tuple) -> None:
    """In one line that names it, when the recipe is made, and without a warning, which is an error here."""
    for value in values:
        with pytest.raises(ConfigError, match=rf"\b{parameter}=") as caught:
            recipe_registry[recipe](**{parameter: value})
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("recipe", sorted({name for name, _, _ in PARAMETERS}))
def test_numpy_numbers_are_parameters(recipe: str) -> None:
    default = recipe_registry[recipe]()
    values = {field: getattr(default, field) for _, field, _ in PARAMETERS if hasattr(default, field)}
    arrays = {
        field: np.array(value)[()] if isinstance(value, int | float) else value
        for field, value in values.items()
    }
    known = {field.name for field in dataclasses.fields(default)}  # type: ignore[arg-type]
    assert recipe_registry[recipe](**{field: arrays[field] for field in known}) == default


def test_extreme_random_fields() -> None:
    """Sampled without overflow, or refused."""
    assert PoissonStarRecipe(alpha=50.0, tau=1e-6).sample(1).checks["relative_residual"] < 1e-9
    with pytest.raises(ConfigError, match=r"alpha=50.0, tau=1000000.0: powers .* underflow"):
        PoissonStarRecipe(alpha=50.0, tau=1e6)
    with pytest.raises(ConfigError, match="modes=2000: 8000000000 coefficients are more than 100000000"):
        GaussianRandomField(2.0, 3.0, dim=3, modes=2000)
    with pytest.raises(ConfigError, match="modes=5001: 100020001 coefficients"):
        GaussianRandomField(2.0, 3.0, "periodic", modes=5001)


def test_signs_and_ends_of_ranges_are_accepted() -> None:
    fast = recipe_registry["advection"](beta=-10.0)  # type: ignore[call-arg]
    assert max(t.checks["closed_form"] for t in fast.sample_batch(range(20))) < 1e-12
    recipe_registry["reaction-diffusion"](rho=-1, nu=0)  # type: ignore[call-arg]
    recipe_registry["burgers"](viscosity=0, step=1e12)  # type: ignore[call-arg]
    recipe_registry["heat-star"](roughness=0.35, kappa=1e-12, resolution=10**6)  # type: ignore[call-arg]
    for degree in (2, 3, 4):
        assert PoissonStarRecipe(degree=degree).degree == degree


def test_recipes_of_others_are_checked_by_type_only() -> None:
    """With annotations that are strings, as under `from __future__ import annotations`, too."""

    @dataclass(frozen=True)
    class Plasma(Recipe):
        ranges = {"charge": (1, 3)}  # noqa: RUF012 - read only

        density: "float" = 1e20
        charge: "int" = 1
        species: tuple[str, ...] = ("D", "T")

        def layout(self) -> Layout:
            raise NotImplementedError

        def sample(self, seed: int) -> Trajectory:
            raise NotImplementedError

    assert Plasma(1e25, species=()).density == 1e25
    assert Plasma(np.float32(1e20)).density == np.float32(1e20)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"density": math.nan}, "Plasma density=nan: give a finite number"),
        ({"density": "1"}, "Plasma density='1': give a number"),
        ({"charge": 1.0}, "Plasma charge=1.0: give an integer"),
        ({"charge": 4}, "Plasma charge=4: choose a value from 1 to 3"),
    ]
    for changes, message in cases:
        with pytest.raises(ConfigError, match=message):
            Plasma(**changes)


def test_ranges_add_to_those_of_the_base_classes() -> None:
    for changes, message in (
        ({"resolution": 17}, "at least 18"),
        ({"frames": 1}, "at least 2"),
        ({"beta": 1e13}, "to 1e"),
    ):
        with pytest.raises(ConfigError, match=f"advection .*{message}"):
            recipe_registry["advection"](**changes)


def test_classes_are_named_as_their_recipes() -> None:
    for name in {name for name, _, _ in PARAMETERS}:
        words = "".join(word.capitalize() for word in name.split("-"))
        assert recipe_registry[name].__name__ == f"{words}Recipe"
        assert getattr(recipes, f"{words}Recipe") is recipe_registry[name]
