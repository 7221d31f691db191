"""Darcy flow from 32 sensors of both fields: the posterior of a score model, and interpolation of the solution."""

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
    model, fields, errors = Denoiser.load("runs/prior"), load_fields(data, config).targets, []
    for row, truth in enumerate(fields[-4:]):
        sensors = torch.randperm(256, generator=torch.Generator().manual_seed(row)).view(16, 16) < 32
        mean = reconstruct(model, Measurements(sensors[..., None].expand_as(truth), truth)).mean(0)
        sensors[[0, -1]] = sensors[:, [0, -1]] = True  # on the sides the solution is 0
        spline = RBFInterpolator(sensors.argwhere(), truth[sensors][:, 1])(torch.ones(16, 16).argwhere())
        guesses = mean[..., 1], torch.tensor(spline).view(16, 16), fields[:400, ..., 1].mean(0)
        errors.append([float((g - truth[..., 1]).norm() / truth[..., 1].norm()) for g in guesses])
    return torch.tensor(errors).mean(0).tolist()  # posterior mean, interpolation, prior mean


if __name__ == "__main__":
    print(main())
