"""``sciml generate``: benchmark datasets."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sciml.errors import ConfigError, ConvergenceError

from .parsing import parse, take_name

__all__ = ["run"]

EXAMPLE = "sciml generate darcy -n 100 --resolution 43 -o darcy.h5"


@dataclass(frozen=True)
class GenerateOptions:
    """The dataset and how it is made."""

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """Trajectories."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """File to write, RECIPE.h5 by default; with --split a folder, RECIPE by default."""
    seed: int = 0
    """Of the dataset; the same seed gives the same data."""
    split: tuple[float, ...] | None = None
    """Three fractions, of training, validation and test: a folder in The Well's layout."""
    workers: int | None = None
    """Processes, by default one for each core, on a GPU one. The data do not depend on it."""
    dask: str = ""
    """Compute on a Dask cluster: address of its scheduler."""
    mpi: bool = False
    """Compute on MPI ranks: mpiexec -n 3 python -m mpi4py.futures -m sciml generate ... --mpi"""
    device: str = "cpu"
    """Where recipes that can are computed, e.g. cuda."""
    shard_size: int | None = None
    """Trajectories per unit of work, what a kill can cost; by default as in the unfinished work, or at
    most 32 and 64 MB."""
    resume: bool = False
    """Keep a finished dataset of the same settings. Unfinished work is always taken up."""
    overwrite: bool = False
    """Replace a finished dataset, discard unfinished work of other settings."""
    mix_commits: bool = False
    """Finish unfinished work of another commit of sciml; the file names both."""
    quiet: bool = False
    """No progress bar."""


@contextlib.contextmanager
def _executor(options: GenerateOptions) -> Iterator[Executor | None]:
    from sciml.datasets.pools import dask_executor, mpi_executor

    if options.dask and options.mpi:
        raise ConfigError(f"dask={options.dask!r} and mpi: choose one")
    if options.dask:
        with dask_executor(options.dask) as executor:
            yield executor
    elif options.mpi:
        with mpi_executor() as executor:
            yield executor
    else:
        yield None


def run(arguments: list[str], plugins: list[str]) -> None:
    """Generate a dataset by a named recipe, whose parameters are flags."""
    from sciml.datasets import generate, open_dataset, recipe_registry
    from sciml.datasets.publication import bias_warning, summary

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
    output = options.output or (f"{name}.h5" if options.split is None else name)
    path = Path(output)
    default_workers = (os.cpu_count() or 1) if options.device == "cpu" else 1
    with _executor(options) as executor:
        generate(
            parsed.recipe,
            options.n,
            output,
            seed=options.seed,
            executor=executor,
            workers=default_workers if options.workers is None else options.workers,
            shard_size=options.shard_size,
            device=options.device,
            split=options.split,
            resume=options.resume,
            overwrite=options.overwrite,
            mix_commits=options.mix_commits,
            plugins=plugins,
            progress=not options.quiet,
        )
    print(f"{summary(path)}; look at it with: sciml inspect {path}")
    if warning := bias_warning(path):
        print(f"sciml: warning: {warning}", file=sys.stderr)
    failed: set[str] = set()
    sums: list[bytes] = []
    for file in sorted(path.glob("data/*/*.hdf5")) if path.is_dir() else [path]:
        with open_dataset(file) as data:
            if data.record:
                failed |= set(data.record.failures())
                sums += data.record.checksums.tolist()
    if again := len(sums) - len({*sums}):
        print(
            f"sciml: warning: {again} of the trajectories are the same as others: a recipe draws all that varies "
            "from `seed`",
            file=sys.stderr,
        )
    if failed:
        raise ConvergenceError(
            f"{path} is complete, but {', '.join(sorted(failed))} exceeds what the recipe states: it is less "
            "accurate at these settings; take a smaller step or a finer grid (refine)"
        )
