"""U-Net and DeepONet: shapes, periodic axes, resolutions, settings."""

import math

import pytest
import torch

from sciml.errors import ConfigError
from sciml.operators import DeepONet, DeepONetConfig, UNet, UNetConfig

SPACE = (17, 18, 19)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("periodic", [True, False])
def test_shapes_and_gradients(dim: int, periodic: bool) -> None:
    torch.manual_seed(0)
    for model in (
        UNet(2, 3, (periodic,) * dim, width=4, depth=2),
        DeepONet(2, 3, (periodic,) * dim, sensors=4, width=8, basis=4),
    ):
        result = model(torch.randn(2, *SPACE[:dim], 2))
        assert result.shape == (2, *SPACE[:dim], 3)
        result.square().mean().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_unet_goes_around_periodic_axes_only() -> None:
    """It commutes with shifts by the stride of its coarsest grid, but for the coordinates that it is given."""
    torch.manual_seed(0)
    model = UNet(1, 1, (True, False), width=4, depth=2).double()
    with torch.no_grad():
        model.first[0].convolution.weight[:, 1:] = 0  # the coordinates'
    a = torch.randn(1, 16, 16, 1, dtype=torch.float64)
    along, across = (model(a.roll(4, axis)) - model(a).roll(4, axis) for axis in (1, 2))
    assert float(along.detach().abs().max()) < 1e-12
    assert float(across.detach().abs().max()) > 1e-3


def test_the_deeponet_is_a_sum_of_products() -> None:
    """Of a periodic function of one wavenumber at its sensors, on any grid that holds them."""
    torch.manual_seed(0)
    model = DeepONet(1, 2, (True, False), sensors=4, width=8, depth=2, basis=3).double()

    def function(nodes: int, others: int) -> torch.Tensor:
        x = torch.arange(nodes, dtype=torch.float64) / nodes
        y = torch.linspace(0, 1, others, dtype=torch.float64)
        return (torch.sin(2 * math.pi * x)[:, None] + y)[None, ..., None]

    coarse, fine = model(function(4, 4)), model(function(8, 7))
    assert torch.allclose(coarse, fine[:, ::2, ::2], atol=1e-13)
    branch = model.branch(function(4, 4).flatten(1)).view(2, 3)
    x, y = 0.25, 2 / 3
    place = torch.tensor([math.cos(2 * math.pi * x), math.sin(2 * math.pi * x), y], dtype=torch.float64)
    expected = (branch * model.trunk(place).view(2, 3)).sum(1) / math.sqrt(3)
    assert torch.allclose(coarse[0, 1, 2], expected, atol=1e-13)


def test_bad_settings() -> None:
    for config, name, value in (
        (UNetConfig, "width", 0),
        (UNetConfig, "depth", 0),
        (DeepONetConfig, "sensors", 1),
        (DeepONetConfig, "basis", 0),
    ):
        with pytest.raises(ConfigError, match=f"{name}={value}"):
            config(**{name: value})
    with pytest.raises(ConfigError, match=r"axis 1 with 31 nodes is too coarse for depth=3: use at least 32"):
        UNet()(torch.zeros(1, 32, 31, 1))
    with pytest.raises(ConfigError, match="axis 0 with 1 nodes"):
        DeepONet()(torch.zeros(1, 1, 9, 1))
    with pytest.raises(ConfigError, match=r"UNet input of shape .*expected \(batch, 2 axes, 1 channels\)"):
        UNet()(torch.zeros(1, 32, 32, 2))
    with pytest.raises(ConfigError, match="in_channels=0"):
        UNet(0)
    with pytest.raises(ConfigError, match="periodic="):
        DeepONet(1, 1, ())
