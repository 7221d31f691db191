"""Benchmark results: one JSON file each, and RESULTS.md made from all of them."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sciml.files import atomic_path, write_json
from sciml.provenance import collect

FOLDER = Path(__file__).parent


def alternate(
    candidates: dict[str, Callable[[], object]], repeats: int, gpu: bool = False
) -> dict[str, float]:
    """Run candidates in turn, after two warm-ups each.

    Return the median CPU seconds of each, or on a GPU its wall seconds until that is idle.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    wait = torch.cuda.synchronize if gpu else lambda: None
    clock = time.perf_counter if gpu else time.process_time
    for turn in range(-2, repeats):
        for name, run in candidates.items():
            wait()
            started = clock()
            run()
            wait()
            if turn >= 0:
                seconds[name].append(clock() - started)
    return {name: sorted(values)[repeats // 2] for name, values in seconds.items()}


def record(name: str, title: str, head: list[str], rows: list[list[object]], note: str = "") -> None:
    """Print a result, store it, and write RESULTS.md anew."""
    provenance, options = collect(), [option for option in sys.argv[1:] if option != "--reuse"]
    result = {
        "title": title,
        "head": head,
        "rows": rows,
        "note": note,
        "command": " ".join([f"python benchmarks/{Path(sys.argv[0]).name}", *options]),
        "machine": f"{provenance['processor']}, {os.cpu_count()} cores",
        "versions": provenance["versions"],
        "commit": provenance["git_commit"],
        "created_utc": provenance["created_utc"],
    }
    write_json(FOLDER / "results" / f"{name}.json", result)
    print("\n".join(section(name, result)))
    write_page()


def write_page() -> None:
    """Write RESULTS.md from the stored results."""
    pages = ["# Benchmark results", "", "Made by `make bench` from `results/*.json`; do not edit."]
    for path in sorted((FOLDER / "results").glob("*.json")):
        pages += ["", *section(path.stem, json.loads(path.read_text()))]
    with atomic_path(FOLDER / "RESULTS.md") as temporary:
        temporary.write_text("\n".join(pages) + "\n")


def section(name: str, result: dict) -> list[str]:
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    return [
        f"## {result['title']}",
        "",
        "| " + " | ".join(result["head"]) + " |",
        "|" + "---|" * len(result["head"]),
        *("| " + " | ".join(map(str, row)) + " |" for row in result["rows"]),
        "",
        *([result["note"], ""] if result["note"] else []),
        f"`{result.get('command', f'python benchmarks/{name}.py')}`, {result['created_utc'][:10]}, "
        f"{result['machine']}; {versions}.",
    ]


if __name__ == "__main__":
    write_page()
