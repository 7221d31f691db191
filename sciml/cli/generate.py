"""``sciml generate``: benchmark datasets."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sciml.errors import ConfigError

from .parsing import parse, take_name

__all__ = ["run"]

EXAMPLE = "sciml generate darcy -n 100 --resolution 43 -o darcy.h5"


@dataclass(frozen=True)
class GenerateOptions:
    """The dataset and how it is made."""

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """Trajectories."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """File to write; RECIPE.h5 by default."""
    seed: int = 0
    """Of the dataset; the same seed gives the same data."""
    workers: int = os.cpu_count() or 1
    """Processes. The data do not depend on it."""
    shard_size: int = 32
    """Trajectories per unit of work: what a kill can cost."""
    resume: bool = False
    """Keep a finished file of the same settings. Unfinished work is always taken up."""
    overwrite: bool = False
    """Replace a finished file, discard unfinished work of other settings."""
    quiet: bool = False
    """No progress bar."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Generate a dataset by a named recipe, whose parameters are flags."""
    from sciml.datasets import generate, recipe_registry

    name = take_name(arguments, "recipe", recipe_registry, "sciml generate RECIPE [options]", EXAMPLE)
    if name is None:
        return
    recipe = recipe_registry[name]
    parameters = {f.name for f in dataclasses.fields(recipe)}  # type: ignore[arg-type]
    clash = parameters & {f.name for f in dataclasses.fields(GenerateOptions)}
    if clash:
        raise ConfigError(
            f"recipe {name!r} has parameters {sorted(clash)}, which are options of 'sciml generate': rename them"
        )
    both = dataclasses.make_dataclass("GenerateArguments", [("recipe", recipe), ("dataset", GenerateOptions)])
    description = (recipe.__doc__ or "").strip().split("\n")[0]
    example = EXAMPLE if name == "darcy" else f"sciml generate {name} -n 16 -o {name}.h5"
    parsed: Any = parse(both, f"sciml generate {name}", arguments[1:], description, example)
    options: GenerateOptions = parsed.dataset
    path = Path(options.output or f"{name}.h5")
    generate(
        parsed.recipe,
        options.n,
        path,
        seed=options.seed,
        workers=options.workers,
        shard_size=options.shard_size,
        resume=options.resume,
        overwrite=options.overwrite,
        plugins=plugins,
        progress=not options.quiet,
    )
    print(f"{path} holds {options.n} trajectories; look at it with: sciml inspect {path}")
