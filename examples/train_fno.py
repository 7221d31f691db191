"""Train a Fourier neural operator on a small Darcy dataset and test it on a finer grid."""

from sciml.datasets import generate
from sciml.datasets.recipes import DarcyRecipe
from sciml.operators import FNOConfig
from sciml.training import TrainConfig, evaluate, train


def main() -> list[dict]:
    generate(DarcyRecipe(resolution=43), 220, "darcy43.h5", resume=True)
    train(
        TrainConfig(stride=2, epochs=12),
        "darcy43.h5",
        "runs/darcy43",
        model=FNOConfig(modes=(16,), width=24),
        resume=True,
    )
    rows = evaluate("runs/darcy43", "darcy43.h5")
    for row in rows:
        print(f"{row['resolution']}: relative L2 {row['relative_l2']:.3f}, H1 {row['relative_h1']:.3f}")
    return rows


if __name__ == "__main__":
    main()
