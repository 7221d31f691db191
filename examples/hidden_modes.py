"""Forty modes of equal weight: what Langevin chains find of them, and what particles with weights do."""

from sciml.sampling.divergences import mmd_squared, modes_found, weight_error
from sciml.sampling.methods import Budget, draw
from sciml.sampling.targets import gmm40


def main() -> dict[str, tuple[int, float, float]]:
    """Print and return modes that were found, the error of their weights, and MMD^2."""
    target = gmm40()
    reference = target.sample(2000, seed=1)
    samples = {
        method: draw(target, method, Budget(n=1000, evaluations=1000)).x
        for method in ("mala", "dilation", "smc")
    }
    samples["exact"] = target.sample(1000, seed=2)
    found = {}
    print("1000 evaluations of the score for each sample\nmethod      modes of 40   weight error   MMD^2")
    for method, x in samples.items():
        modes, error = modes_found(x, target.modes), weight_error(x, target.modes)
        found[method] = modes, error, mmd_squared(x, reference)
        print(f"{method:10s} {modes:8d} {error:16.3f} {found[method][2]:13.4f}")
    return found


if __name__ == "__main__":
    main()
