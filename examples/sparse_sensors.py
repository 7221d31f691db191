"""Darcy flow from 32 sensors of both fields: the posterior of a score model, and interpolation of the solution."""

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator

from sciml.datasets import generate
from sciml.datasets.recipes import DarcyRecipe
from sciml.operators import Denoiser, DenoiserConfig
from sciml.sampling import Measurements, reconstruct
from sciml.training import ScoreConfig, load_fields, train


def main() -> list[float]:
    data = generate(DarcyRecipe(resolution=16, medium="smooth"), 404, "darcy16.h5", resume=True)
    config = ScoreConfig(epochs=16, n_test=4, symmetric=True, precision="bfloat16")
    train(config, data, "runs/prior", model=DenoiserConfig(width=24), resume=True)
    model, fields, found = Denoiser.load("runs/prior"), load_fields(data, config).targets, []
    nodes, rng = np.argwhere(np.ones((16, 16))), np.random.default_rng(0)
    for truth in fields[-4:]:
        sensors = rng.permutation(256) < 32
        posterior = reconstruct(
            model, Measurements(torch.tensor(sensors).view(16, 16, 1).expand(-1, -1, 2), truth)
        )
        known = sensors | (nodes % 15 == 0).any(1)  # on the sides the solution is 0
        spline = torch.tensor(RBFInterpolator(nodes[known], truth[..., 1].numpy().ravel()[known])(nodes))
        guesses = posterior.mean(0)[..., 1], spline.view(16, 16), fields[:400, ..., 1].mean(0)
        found.append([float((g - truth[..., 1]).norm() / truth[..., 1].norm()) for g in guesses])
    return np.mean(found, 0).tolist()  # relative L2 errors: posterior mean, interpolation, prior mean


if __name__ == "__main__":
    print(main())
