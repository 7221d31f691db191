"""Dense and Tucker weights on Darcy flow, all else equal."""

from dataclasses import replace

import torch
from _operators import dataset, trained
from _results import record
from fno_darcy import CONFIG, RECIPE

from sciml.operators import FNOConfig

MODELS = {
    "dense": (FNOConfig(), 3e-3),
    "Tucker": (FNOConfig(weights="tucker", rank=0.14), 6e-3),
}


def main() -> None:
    data = dataset("darcy", RECIPE, 1100)
    runs = {
        name: trained(f"darcy-{name.lower()}", data, replace(CONFIG, lr=lr), model, (2, 1))
        for name, (model, lr) in MODELS.items()
    }
    dense = runs["dense"]
    record(
        "fno_tucker",
        "Dense and Tucker spectral weights: FNO on Darcy, trained at 43 x 43, 1000 samples and their "
        "reflections and rotations, 100 test samples",
        ["weights", "parameters", "of dense", "test relative L2", "over dense", "at 85 x 85", "training, s"],
        [
            [
                name,
                f"{done.parameters:,}",
                f"{done.parameters / dense.parameters:.1%}",
                f"{done.errors[2]['relative_l2']:.4f}",
                f"{done.errors[2]['relative_l2'] / dense.errors[2]['relative_l2']:.3f}",
                f"{done.errors[1]['relative_l2']:.4f}",
                f"{done.seconds:.0f}",
            ]
            for name, done in runs.items()
        ],
        f"{CONFIG.epochs} epochs each, {torch.get_num_threads()} threads; peak learning rates "
        + ", ".join(f"{lr:g} ({name})" for name, (_, lr) in MODELS.items())
        + ".",
    )


if __name__ == "__main__":
    main()
