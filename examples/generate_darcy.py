"""A Darcy dataset on two processes; run it again after a kill and it goes on. Then read it."""

from sciml.datasets import generate, open_dataset
from sciml.datasets.recipes import DarcyRecipe


def main() -> float:
    generate(DarcyRecipe(resolution=43), 100, "darcy100.h5", workers=2, resume=True)
    with open_dataset("darcy100.h5") as data:
        coefficient, pressure = data["a"][0], data["u"][0, -1]
        residuals, limit = data.checks["relative_residual"]
        print(data, f"\nresolution {data.resolution}, seed of the first sample {data.seeds[0]}")
        print(
            f"coefficient from {coefficient.min():g} to {coefficient.max():g}, pressure up to {pressure.max():.4f}"
        )
        print(f"largest residual {residuals.max():.1e}, limit {limit:g}")
    return float(residuals.max())


if __name__ == "__main__":
    main()
