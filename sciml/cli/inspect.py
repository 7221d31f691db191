"""``sciml inspect``: what a dataset holds."""

import json
from dataclasses import dataclass

import tyro

from sciml.errors import ConvergenceError

from .parsing import parse, print_table

__all__ = ["run"]

EXAMPLE = "sciml inspect darcy.h5"


@dataclass(frozen=True)
class InspectArguments:
    """What to look at."""

    file: tyro.conf.Positional[str]
    """Dataset, an HDF5 file."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Print layout, checks and provenance; fail if a stored check exceeds its limit."""
    from sciml.datasets import open_dataset

    options = parse(InspectArguments, "sciml inspect", arguments, "Show what a dataset holds.", EXAMPLE)
    with open_dataset(options.file) as data:
        print(f"{data.path.name}: {data.name}, {data.n_trajectories} trajectories, kind fields")
        for (axis, x), periodic in zip(data.axes.items(), data.periodic, strict=True):
            side = "periodic" if periodic else "bounded"
            print(f"  axis {axis}: {len(x)} nodes from {x[0]:g} to {x[-1]:g}, {side}")
        kind = (
            "steady, the last frame is the solution"
            if data.steady
            else f"{data.times[0]:g} to {data.times[-1]:g}"
        )
        print(f"  time: {len(data.times)} frames, {kind}\n")
        roles = {**dict.fromkeys(data.inputs, "input"), **dict.fromkeys(data.targets, "target")}
        print_table(
            ["field", "shape", "role", "description"],
            [
                [name, data[name].shape, roles.get(name, ""), data[name].attrs.get("description", "")]
                for name in data.fields
            ],
        )
        failed = []
        if data.checks:
            print()
            rows: list[list[object]] = []
            for name, (values, limit) in data.checks.items():
                passed = limit is None or bool((values <= limit).all())
                failed += [] if passed else [name]
                rows.append([name, f"{values.max():.2e}", limit or "", "pass" if passed else "FAIL"])
            print_table(["check", "largest", "limit", ""], rows)
        else:
            print("\nno checks stored")
        if data.provenance:
            print(f"\nequation: {data.provenance.get('equation', 'not given')}")
            print(f"config: {json.dumps(data.config)}")
            for key in ("created_utc", "command", "git_commit", "versions"):
                print(f"{key}: {data.provenance.get(key, 'unknown')}")
        else:
            print("\nno /provenance: not made by sciml")
    if failed:
        raise ConvergenceError(
            f"{options.file}: checks {', '.join(failed)} exceed their limits: generate it again"
        )
