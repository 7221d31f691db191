"""Dense and Tucker weights on Darcy flow, all else equal."""

from _operators import dataset, trained
from _results import record
from fno_darcy import CONFIG, MODEL, RECIPE

from sciml.operators import FNOConfig

MODELS = {"dense": FNOConfig(), "Tucker": MODEL}


def main() -> None:
    data = dataset("darcy", RECIPE, 1100)
    runs = {
        name: trained(f"darcy-{name.lower()}", data, CONFIG, model, (2, 1)) for name, model in MODELS.items()
    }
    dense = runs["dense"]
    record(
        "fno_tucker",
        "Dense and Tucker spectral weights: FNO on Darcy, trained at 43 x 43, 1000 samples and their "
        "reflections and rotations, 100 test samples",
        ["weights", "parameters", "of dense", "test relative L2", "over dense", "at 85 x 85"],
        [
            [
                name,
                f"{done.parameters:,}",
                f"{done.parameters / dense.parameters:.1%}",
                f"{done.errors[2]['relative_l2']:.4f}",
                f"{done.errors[2]['relative_l2'] / dense.errors[2]['relative_l2']:.3f}",
                f"{done.errors[1]['relative_l2']:.4f}",
            ]
            for name, done in runs.items()
        ],
        f"{CONFIG.epochs} epochs each, peak learning rate {CONFIG.lr:g}.",
    )


if __name__ == "__main__":
    main()
