"""Darcy coefficient and solution from sparse sensors: a score model's posterior, interpolation and the prior mean."""

import numpy as np
import torch
from _operators import FOLDER, dataset
from _operators import trained_score as trained
from _results import record
from matplotlib import pyplot as plt
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from sciml.datasets.recipes import DarcyRecipe
from sciml.operators import DenoiserConfig
from sciml.sampling import Measurements, load_score_model, reconstruct
from sciml.training.denoising import ScoreConfig, load_fields

RECIPE = DarcyRecipe(resolution=32, medium="smooth")
CONFIG = ScoreConfig(n_train=2000, n_test=100, precision="bfloat16", epochs=40, symmetric=True)
SENSORS, TRUTHS, DRAWS, NOISE = 64, 20, 16, 0.01
KERNELS = "linear", "thin_plate_spline", "cubic"
DOCS = FOLDER.parents[1] / "docs"


def errors(fields: Tensor, truths: Tensor) -> list[float]:
    """Mean relative L2 error of each channel."""
    return [
        float(
            ((fields - truths)[..., c].flatten(1).norm(dim=1) / truths[..., c].flatten(1).norm(dim=1)).mean()
        )
        for c in range(truths.shape[-1])
    ]


def interpolated(mask: Tensor, values: Tensor, kernel: str) -> Tensor:
    """Radial functions through the sensors, of u through the sides, too, where it is known to be 0."""
    n = mask.shape[0]
    nodes = np.stack(np.meshgrid(*[np.linspace(0, 1, n)] * 2, indexing="ij"), -1)
    edge = torch.ones(n, n, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    channels = []
    for channel in range(values.shape[-1]):
        known = mask[..., channel] | (edge if channel else torch.zeros_like(edge))
        given = torch.where(mask[..., channel], values[..., channel], 0.0)[known]
        function = RBFInterpolator(nodes[known.numpy()], given.double().numpy(), kernel=kernel)
        channels.append(torch.from_numpy(function(nodes.reshape(-1, 2))).view(n, n).float())
    return torch.stack(channels, -1)


def main() -> None:
    data = dataset("darcy-32", RECIPE, 4400)
    run, result = trained("score-darcy", data, CONFIG, DenoiserConfig())
    model, _ = load_score_model(run)
    fields = load_fields(data, CONFIG).targets
    truths, mean = fields[2000 : 2000 + TRUTHS], fields[:2000].mean(0).expand(TRUTHS, *fields.shape[1:])
    spread = fields[:2000].std((0, 1, 2))
    rng = np.random.default_rng(0)
    found: dict[str, list[Tensor]] = {name: [] for name in ("posterior mean", *KERNELS)}
    masks = []
    for i, truth in enumerate(truths):
        mask = torch.zeros(truth.shape, dtype=torch.bool)
        mask.view(-1, 2)[rng.choice(32 * 32, SENSORS, replace=False)] = True
        values = truth + NOISE * spread * torch.from_numpy(rng.standard_normal(truth.shape)).float()
        draws = reconstruct(model, Measurements(mask, values, NOISE), DRAWS, iterations=5, seed=i)
        found["posterior mean"].append(draws.mean(0))
        for kernel in KERNELS:
            found[kernel].append(interpolated(mask, values, kernel))
        masks.append(mask)
    table = [["prior mean", *errors(mean, truths)]]
    table += [[name, *errors(torch.stack(parts), truths)] for name, parts in found.items()]
    draw(
        truths[0],
        masks[0],
        {name: parts[0] for name, parts in found.items() if name in ("posterior mean", "cubic")},
    )
    record(
        "sparse_sensors",
        f"Darcy coefficient a and solution u on 32 x 32 nodes from {SENSORS} sensors of both, mean relative L2 error "
        f"of {TRUTHS} unseen samples",
        ["from", "a", "u"],
        [[name, *(f"{value:.4f}" for value in values)] for name, *values in table],
        f"Measured with noise of {NOISE} deviations. Posterior mean: {DRAWS} samples of 20 steps of SDE-++2M, "
        f"5 products with the Jacobian each; the score model ({result['parameters']:,} parameters) was trained on 2000 "
        f"samples and their reflections for {result['seconds']:.0f} s, {torch.get_num_threads()} threads, bfloat16. "
        "Interpolation: radial functions of the sensors' places, of u with 0 on the sides.",
    )


def draw(truth: Tensor, mask: Tensor, found: dict[str, Tensor]) -> None:
    figure, axes = plt.subplots(2, 3, figsize=(8.4, 5.4), layout="constrained")
    for channel, line in enumerate(axes):
        low, high = float(truth[..., channel].min()), float(truth[..., channel].max())
        for ax, (name, values) in zip(line, {"truth, sensors": truth, **found}.items(), strict=True):
            ax.imshow(values[..., channel].T, origin="lower", vmin=low, vmax=high)
            ax.set(xticks=[], yticks=[], title=f"{'au'[channel]}: {name}")
        x, y = np.nonzero(mask[..., channel].numpy())
        line[0].plot(x, y, "w.", ms=4, mec="k", mew=0.4)
    figure.savefig(DOCS / "sparse_sensors.png", dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    main()
