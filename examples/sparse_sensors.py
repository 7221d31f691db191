"""Darcy flow from 32 sensors: the posterior of a score model of coefficient and solution, and interpolation."""

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator

from sciml.datasets import generate
from sciml.datasets.recipes import DarcyRecipe
from sciml.operators import DenoiserConfig
from sciml.sampling import Measurements, load_score_model, reconstruct
from sciml.training import ScoreConfig, load_fields, train


def main() -> list[float]:
    """Return relative L2 errors of the solution: posterior mean, interpolation, prior mean."""
    generate(DarcyRecipe(resolution=16, medium="smooth"), 404, "darcy16.h5", resume=True)
    config = ScoreConfig(epochs=16, n_test=4, symmetric=True, precision="bfloat16")
    train(config, "darcy16.h5", "runs/prior", model=DenoiserConfig(width=24), resume=True)
    (model, _), fields = load_score_model("runs/prior"), load_fields("darcy16.h5", config).targets
    nodes, rng = np.stack(np.mgrid[:16, :16], -1).reshape(-1, 2), np.random.default_rng(0)
    edge, found, truths = np.flatnonzero((nodes % 15 == 0).any(1)), [], fields[-4:]
    for truth in truths:
        sensors = rng.choice(256, 32, replace=False)  # of both fields
        mask = torch.zeros_like(truth, dtype=torch.bool)
        mask.view(256, 2)[sensors] = True
        known = np.union1d(sensors, edge)  # where the solution is 0
        spline = RBFInterpolator(nodes[known], truth[..., 1].flatten()[known].numpy())(nodes)
        mean = reconstruct(model, Measurements(mask, truth), n=8).mean(0)[..., 1]
        found.append(torch.stack([mean, torch.tensor(spline).view(16, 16), fields[:-4, ..., 1].mean(0)]))
    errors = torch.stack(found) - truths[:, None, ..., 1]
    return (errors.norm(dim=(2, 3)) / truths[..., 1].norm(dim=(1, 2))[:, None]).mean(0).tolist()


if __name__ == "__main__":
    print(main())
