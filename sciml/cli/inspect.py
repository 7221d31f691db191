"""``sciml inspect``: what a dataset holds, and whether it is what it says."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from sciml.errors import ConvergenceError

from .parsing import parse, print_table

if TYPE_CHECKING:
    from sciml.datasets import Dataset, FieldsDataset, OdeDataset, PointsDataset

__all__ = ["run"]

EXAMPLE = "sciml inspect darcy.h5 --verify"
SHOWN_REASONS = 5


@dataclass(frozen=True)
class InspectArguments:
    """What to look at."""

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """Dataset: an HDF5 file, or a folder made with --split or convert --to well."""
    verify: bool = False
    """Recompute all checksums, regenerate random trajectories from their seeds, and solve the stored
    sample again at twice the resolution with half the step; a plug-in's recipe needs --plugin FILE.py."""
    samples: int = 3
    """Trajectories that --verify regenerates."""
    verify_seed: int | None = None
    """Decides which; others each time by default."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Print layout, checks and provenance; fail if a stored check exceeds its limit, or --verify finds
    something wrong or cannot check it."""
    options = parse(InspectArguments, "sciml inspect", arguments, "Show what a dataset holds.", EXAMPLE)
    path, failed = Path(options.file), []
    if path.is_dir():
        from sciml.datasets.publication import verify_manifest

        for file in sorted(path.glob("data/*/*.hdf5")):
            failed += _inspect(file, options)
            print()
        damaged = verify_manifest(path)
        print(f"manifest: {'; '.join(damaged) or 'all files are as written'}")
        failed += damaged
    else:
        failed += _inspect(path, options)
    if failed:
        from sciml.datasets.verification import UNCHECKED

        unchecked = all(subject.startswith(UNCHECKED) for subject in failed)
        remedy = "" if unchecked else ": not passed; generate, or make, it again"
        raise ConvergenceError(f"{options.file}: {', '.join(failed)}{remedy}")


def _inspect(path: Path, options: InspectArguments) -> list[str]:
    """Print one file; return what failed."""
    from sciml.datasets import FieldsDataset, OdeDataset, PointsDataset, open_dataset

    with open_dataset(path) as data:
        print(f"{data.path}: {data.name}, {data.n_trajectories} trajectories, kind {data.kind}")
        if isinstance(data, FieldsDataset):
            _print_fields(data)
        elif isinstance(data, OdeDataset):
            _print_states(data)
        elif isinstance(data, PointsDataset):
            _print_points(data)
        failed = _print_measures(data)
        if data.provenance:
            equation = data.provenance.get("equation")
            print(f"\nequation: {equation}" if equation else "")
            print(f"config: {json.dumps(data.config)}")
            for key in ("created_utc", "command", "git_commit", "versions", "processor", "device"):
                print(f"{key}: {data.provenance.get(key, 'unknown')}")
        else:
            print("\nno /provenance: not made by sciml")
    return failed + (_verify(path, options) if options.verify else [])


def _print_fields(data: "FieldsDataset") -> None:
    for (axis, x), periodic in zip(data.axes.items(), data.periodic, strict=True):
        side = "periodic" if periodic else "bounded"
        print(f"  axis {axis}: {len(x)} nodes from {x[0]:g} to {x[-1]:g}, {side}")
    steady = "steady, the last frame is the solution"
    print(
        f"  time: {len(data.times)} frames, "
        + (steady if data.steady else f"{data.times[0]:g} to {data.times[-1]:g}")
        + "\n"
    )
    roles = {**dict.fromkeys(data.inputs, "input"), **dict.fromkeys(data.targets, "target")}
    print_table(
        ["field", "shape", "role", "description"],
        [
            [name, data[name].shape, roles.get(name, ""), data[name].attrs.get("description", "")]
            for name in data.fields
        ],
    )


def _print_states(data: "OdeDataset") -> None:
    print(f"  time: {len(data.times)} states, {data.times[0]:g} to {data.times[-1]:g}\n")
    descriptions = data["states"].attrs["descriptions"]
    print_table(
        ["component", "description"],
        [list(pair) for pair in zip(data.components, descriptions, strict=True)],
    )


def _print_points(data: "PointsDataset") -> None:
    counts = np.diff(data.offsets)
    print(
        f"  points: {counts.min()} to {counts.max()} of a sample in {data.dim} dimensions, {counts.sum()} in all"
    )
    for kind in data.cells:
        print(f"  cells: {data[f'cells/{kind}'].shape[0]} of type {kind} in all")
    if data.code:
        print(f"  code: {len(data.code)} scalars, {data.code[0]} to {data.code[-1]}")
    print()
    roles = {
        **dict.fromkeys(data.inputs, "input"),
        **dict.fromkeys(data.targets, "target"),
        data.weight: "weight",
    }
    names = [name for name in data.fields if name != "positions" and not name.startswith("cells/")]
    print_table(
        ["field", "components", "role", "description"],
        [
            [
                name,
                int(np.prod(data[name].shape[1:])),
                roles.get(name, ""),
                data[name].attrs.get("description", ""),
            ]
            for name in names
        ],
    )


def _print_measures(data: "Dataset") -> list[str]:
    """Print the stored checks and verification; return the names of what failed."""
    record = data.record
    if record is None or not (record.checks or record.verification):
        print("\nno checks stored")
        return []
    failed = record.failures()
    rows: list[list[object]] = [
        [name, kind, len(values), f"{values.max():.2e}", limits.get(name, ""), _verdict(name, failed)]
        for kind, measures, limits in (
            ("check", record.checks, record.limits),
            ("solved again", record.verification, record.verification_limits),
        )
        for name, values in measures.items()
        if len(values)
    ]
    print()
    print_table(["measure", "kind", "trajectories", "largest", "limit", ""], rows)
    print(f"rejected and replaced: {len(record.rejected)} trajectories")
    reasons = list(zip(record.rejected.tolist(), record.rejected_reason, strict=True))
    for seed, reason in reasons[:SHOWN_REASONS]:
        if reason:
            print(f"  seed {seed}: {reason}")
    if len(reasons) > SHOWN_REASONS:
        print("  ...")
    return [f"stored {name} exceeds its limit" for name in failed]


def _verdict(name: str, failed: list[str]) -> str:
    return "FAIL" if name in failed else "pass"


def _verify(path: Path, options: InspectArguments) -> list[str]:
    """Print what a verification finds; return the subjects that failed."""
    from sciml.datasets.verification import UNCHECKED, verify

    findings = verify(path, samples=options.samples, seed=options.verify_seed)
    print("\nverification")
    for finding in findings:
        failed = "    " if finding.subject == UNCHECKED else "FAIL"
        print(f"  {'pass' if finding.passed else failed}  {finding.subject}: {finding.found}")
    return [f"{finding.subject} ({finding.found})" for finding in findings if not finding.passed]
