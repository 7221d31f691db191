"""From a recipe to a tested operator, in ``build/benchmarks``.

Hours of work are not repeated: what a commit has trained it finds again, and goes on where it was interrupted.
With ``--reuse`` runs of other commits and of changed files count, too.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciml.datasets import generate
from sciml.datasets.recipe import Recipe
from sciml.files import read_json
from sciml.provenance import collect
from sciml.training import TrainConfig, evaluate, train

FOLDER = Path(__file__).parents[1] / "build" / "benchmarks"


@dataclass(frozen=True)
class Trained:
    """A finished run, its errors by stride, and the seconds that training took, tests included."""

    run: Path
    data: Path
    errors: dict[int, dict[str, Any]]
    parameters: int
    seconds: float


def dataset(name: str, recipe: Recipe, n: int, device: str = "cpu", seed: int = 0) -> Path:
    """Generate a dataset, or find it as an earlier benchmark left it."""
    path = FOLDER / f"{name}.h5"
    generate(recipe, n, path, seed=seed, resume=path.exists(), device=device, workers=os.cpu_count() or 1)
    return path


def trained(
    name: str, data: Path, config: TrainConfig, model: object, strides: tuple[int, ...] = ()
) -> Trained:
    """Train an operator and test it at several resolutions."""
    run = FOLDER / name
    result = train(config, data, run, model=model, **_again(run))
    rows = evaluate(run, data, strides=strides or (config.stride,))
    errors = {row["stride"]: row for row in rows}
    return Trained(run, data, errors, result["parameters"], result["seconds"])


def _again(run: Path) -> dict[str, bool]:
    """Whether a run that is there is gone on with, or replaced."""
    there = (run / "config.json").exists()
    same = there and read_json(run / "config.json")["provenance"]["git_commit"]
    resume = there and ("--reuse" in sys.argv or (same == collect()["git_commit"] and "dirty" not in same))
    return {"resume": resume, "overwrite": there and not resume}


def trained_score(name: str, data: Path, config: TrainConfig, model: object) -> tuple[Path, dict[str, Any]]:
    """Train a score model, or find it; return its run and what training returned."""
    run = FOLDER / name
    return run, train(config, data, run, model=model, **_again(run))
