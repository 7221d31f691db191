"""Gradients of training steps; those that a GPU replays are what it gives step by step."""

import pytest
import torch
from torch import Tensor

from sciml.metrics import relative_l2
from sciml.operators import FNO, DeepONet, Operator, UNet
from sciml.training.gradients import Gradients

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
MODELS = {
    "dense": lambda: FNO(modes=(6, 6), width=8),
    "Tucker": lambda: FNO(modes=(6, 6), width=8, weights="tucker", rank=0.3),
    "separable": lambda: FNO(modes=(6, 6), width=8, weights="separable"),
    "U-Net": lambda: UNet(width=8, depth=2),
    "DeepONet": lambda: DeepONet(sensors=8, width=16, basis=8),
}


def losses(model: Operator, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    return relative_l2(model(x), y, mask)


def drawn(seed: int, samples: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(samples, 16, 16, 1, generator=generator) for _ in range(2))
    return x.to(device), y.to(device), (torch.rand(samples, 16, 16, 1, generator=generator) > 0.2).to(device)


def by_hand(model: Operator, batch: tuple[Tensor, ...], divisor: int) -> tuple[Tensor, list[Tensor]]:
    found = losses(model, *batch)
    return found.detach(), list(torch.autograd.grad(found.sum() / divisor, list(model.parameters())))


def check(model: Operator, device: str) -> Gradients:
    """Batches in turn, and of other shapes and divisors in between."""
    gradients = Gradients(model, losses)
    for seed, samples, divisor in ((0, 4, 4), (1, 4, 4), (2, 3, 3), (3, 4, 4), (4, 3, 7), (5, 3, 3)):
        batch = drawn(seed, samples, device)
        expected, wanted = by_hand(model, batch, divisor)
        assert torch.allclose(gradients(batch, divisor), expected, rtol=1e-5)
        for parameter, gradient in zip(model.parameters(), wanted, strict=True):
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
            # As an optimiser and clipping do, which must not show in the next step.
            parameter.grad *= 3.0
            parameter.data += 0.01 * gradient
    return gradients


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_the_mean_loss(name: str) -> None:
    torch.manual_seed(0)
    check(MODELS[name](), "cpu")


@on_gpu
@pytest.mark.parametrize("name", MODELS)
def test_replayed_gradients_are_those_of_the_mean_loss(name: str) -> None:
    torch.manual_seed(0)
    gradients = check(MODELS[name]().cuda(), "cuda")
    assert len(gradients._recordings) == 3
    assert None not in gradients._recordings.values()


@on_gpu
def test_a_model_that_needs_the_host_is_not_replayed() -> None:
    class Scaled(FNO):
        def map_normalised(self, a: Tensor) -> Tensor:
            return super().map_normalised(a) * float(a.abs().mean())

    torch.manual_seed(0)
    gradients = check(Scaled(modes=(6, 6), width=8).cuda(), "cuda")
    assert list(gradients._recordings.values()) == [None] * 3
