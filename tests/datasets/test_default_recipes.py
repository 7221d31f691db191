"""Every recipe at its default settings: generated, verified, and one altered value found."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from sciml.datasets import generate, open_dataset, recipe_registry
from sciml.datasets.rows import checksums, row_datasets
from sciml.datasets.verification import verify

SHIPPED = (
    "advection",
    "allen-cahn",
    "burgers",
    "darcy",
    "darcy-star",
    "elasticity",
    "gray-scott",
    "heat-star",
    "kdv",
    "kuramoto-sivashinsky",
    "lorenz",
    "lotka-volterra",
    "navier-stokes",
    "pipe-flow",
    "poisson-star",
    "poisson-star-cloud",
    "reaction-diffusion",
)
QUICK = (
    "advection",
    "burgers",
    "darcy",
    "darcy-star",
    "lotka-volterra",
    "poisson-star",
    "poisson-star-cloud",
    "reaction-diffusion",
)


def unaltered(path: Path) -> bool:
    with open_dataset(path) as data:
        assert data.record is not None
        return bool((checksums(data.file) == data.record.checksums).all())


def generated_verified_altered(name: str, folder: Path) -> None:
    path = generate(recipe_registry[name](), 4, folder / "data.h5")
    findings = verify(path, seed=1)
    assert all(finding.passed for finding in findings), findings
    assert any("solved again" in finding.subject for finding in findings)
    assert findings[-1].found == "bit for bit"
    with h5py.File(path, "r+") as file:
        for array in row_datasets(file):
            # The last bit of one value of the last trajectory.
            index = (3, *(n // 2 if n > 2 else n - 1 for n in file[array].shape[1:]))
            old = file[array][index]
            file[array][index] = (
                old + 1 if old.dtype.kind == "i" else np.nextafter(old, old.dtype.type(np.inf))
            )
            assert not unaltered(path), array
            file[array][index] = old


def test_every_recipe_is_listed() -> None:
    shipped = [
        name
        for name in recipe_registry
        if recipe_registry[name].__module__.startswith("sciml.datasets.recipes")
    ]
    assert sorted(shipped) == sorted(SHIPPED)


@pytest.mark.parametrize("name", QUICK)
def test_quick_recipes_pass_their_verification(name: str, tmp_path: Path) -> None:
    generated_verified_altered(name, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(set(SHIPPED) - set(QUICK)))
def test_slow_recipes_pass_their_verification(name: str, tmp_path: Path) -> None:
    generated_verified_altered(name, tmp_path)
