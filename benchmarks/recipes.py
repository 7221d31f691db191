"""Every recipe at its default settings: what a sample costs, and how accurate it is against what is stated."""

import time

import numpy as np
from _results import record

from sciml.datasets import FieldsLayout, PointsLayout, recipe_registry, trajectory_seeds

SAMPLES, COMPARED = 16, 3


def main() -> None:
    rows: list[list[object]] = []
    for name in recipe_registry:
        recipe = recipe_registry[name]()
        seeds = [int(seed) for seed in trajectory_seeds(0, 0, SAMPLES)]
        recipe.sample(seeds[0])
        started = time.process_time()
        samples = recipe.sample_batch(seeds)
        seconds = (time.process_time() - started) / SAMPLES
        fine = recipe.refined().sample_batch(seeds[:COMPARED])
        measured = [recipe.compare(a, b) for a, b in zip(samples, fine, strict=False)]
        limits = recipe.verification_limits()
        layout = recipe.layout()
        if isinstance(layout, FieldsLayout):
            stored = " x ".join(
                map(str, ([] if layout.steady else [len(layout.times)]) + [*layout.grid.shape])
            )
        elif isinstance(layout, PointsLayout):
            stored = f"{layout.size} points"
        else:
            stored = " x ".join(map(str, layout.shape))
        worst = {key: np.max([entry[key] for entry in measured]) for key in limits}
        rows.append(
            [
                name,
                stored,
                f"{seconds:.3f}",
                f"{limits['self_convergence']:.0e}",
                f"{worst['self_convergence']:.1e}",
            ]
        )
    record(
        "recipes",
        "Recipes at their default settings",
        ["recipe", "stored", "CPU s a sample", "stated accuracy", "measured"],
        rows,
        f"CPU seconds: mean of {SAMPLES} samples of one batch. Accuracy: relative L2 difference to a solution with "
        f"half the spacing and step, largest of {COMPARED} samples, chaotic problems up to their horizon.",
    )


if __name__ == "__main__":
    main()
