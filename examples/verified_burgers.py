"""Generate Burgers trajectories, verify the file, and read windows of frames for training."""

from sciml.datasets import FieldsDataset, generate
from sciml.datasets.recipes import BurgersRecipe
from sciml.datasets.verification import verify


def main() -> float:
    recipe = BurgersRecipe(viscosity=0.02)
    generate(recipe, 8, "burgers8.h5", overwrite=True)
    for finding in verify("burgers8.h5"):
        print("pass" if finding.passed else "FAIL", finding.subject, "-", finding.found)
    with FieldsDataset("burgers8.h5") as data:
        windows = data.torch(n_in=4, n_out=1)  # a torch Dataset: give it to a DataLoader
        print(len(windows), "windows, input", tuple(windows[0]["input"].shape))
        assert data.record is not None
        return float(data.record.verification["self_convergence"].max())


if __name__ == "__main__":
    print(f"self-convergence error {main():.1e}")
