"""Design a void of given size with less stress: gradients through a Geo-FNO to its shape; checked by elements."""

import torch

from sciml.datasets import generate
from sciml.datasets.recipes.elasticity import ElasticityRecipe, RandomVoid
from sciml.operators import GeoFNO, GeoFNOConfig, cloud
from sciml.training import TrainConfig, train


def main() -> tuple[float, float, float]:
    cell = ElasticityRecipe(angles=36, rings=5, modes=2, around=48, across=8)
    data = generate(cell, 100, "cells.h5", workers=2, resume=True)
    network = GeoFNOConfig(modes=(12,), point_modes=(12,), latent=(12,), width=16, deformation="none")
    result = train(TrainConfig(epochs=40, inputs=(), reflect=(0,)), data, "run", model=network, resume=True)
    model, start = GeoFNO.load("run").double(), RandomVoid.drawn(1, modes=2)
    shape = torch.tensor(start.coefficients, requires_grad=True)
    area, optimiser = cell.points(start)[1].sum(), torch.optim.Adam([shape], lr=0.05)
    for _ in range(80):
        x, w = cell.points(RandomVoid(shape))
        peak = (w @ model(cloud(x[None], weights=w[None]))[0, :, 0].clamp_min(0) ** 8) ** (1 / 8)
        (shape.grad,) = torch.autograd.grad(peak * (1 + 100 * (w.sum() / area - 1) ** 2), shape)
        optimiser.step()
    old, new = (cell.solve(v).fields["stress"].max() for v in (start, RandomVoid(shape.detach().numpy())))
    return result["test_relative_l2"], float(old / new), float(w.detach().sum() / area)


if __name__ == "__main__":
    print(main())
