"""Fields from sparse measurements: samples of a score model's posterior.

Of measurements y = A x_0 + noise of deviation s_y the posterior's denoiser is, with the Gaussian that has the
denoiser's own mean and covariance V = sigma^2 dD/dx (moment matching: Rozet et al., NeurIPS 2024, arXiv 2405.13712),

    E[x_0 | x, y] = D + V A' (s_y^2 + A V A')^-1 (y - A D).

V is applied by one vector-Jacobian product; the system is solved by a few steps of the generalised conjugate residual
method, as the Jacobian of a learned denoiser is not quite symmetric.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.operators import Denoiser

from .evaluation import Model
from .fields import field_sampler
from .noise import SampleNoise
from .plans import Solver

__all__ = ["Measurements", "measured_denoiser", "reconstruct"]


@dataclass(frozen=True, eq=False)
class Measurements:
    """Values at some entries of a field.

    Parameters
    ----------
    mask : Tensor of bool, shape (*space, channels)
        What was measured: some nodes, or all of a region (inpainting).
    values : Tensor, shape (*space, channels)
        Where the mask is true; anything elsewhere.
    noise : float
        Deviation of the measurements, in units of the fields' own (of each channel).

    Raises
    ------
    ConfigError
        If nothing was measured, shapes differ, or a value is not finite.
    """

    mask: Tensor
    values: Tensor
    noise: float = 0.01

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool or self.mask.shape != self.values.shape:
            raise ConfigError(
                f"mask of {self.mask.dtype}, shape {tuple(self.mask.shape)}, values of shape "
                f"{tuple(self.values.shape)}: give a mask of bool and values of one shape, (*space, channels)"
            )
        if not self.mask.any():
            raise ConfigError("mask: nothing was measured, set some entries")
        if not torch.isfinite(self.values[self.mask]).all():
            raise ConfigError("values: a measurement is not finite; leave it out of the mask")
        if not 0 < self.noise < torch.inf:
            raise ConfigError(f"noise={self.noise}: it must be positive and finite, such as 0.01")


def measured_denoiser(model: Model, mask: Tensor, values: Tensor, noise: float, iterations: int = 3) -> Model:
    """Return the denoiser of the posterior, for alpha = 1 and ``prediction="data"``.

    Parameters
    ----------
    model : callable
        ``model(x, sigma)``, differentiable in x, to E[x_0 | x].
    mask, values : Tensor, shape (...)
        Of one sample.
    noise : float
        Deviation of the measurements.
    iterations : int
        Of the linear solver: vector-Jacobian products at each evaluation.

    Examples
    --------
    Of x_0 ~ N(0, 1), measured as 2 with deviation 1, and seen as x = 0 through noise of deviation 1:

    >>> prior = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
    >>> posterior = measured_denoiser(prior, torch.tensor([True]), torch.tensor([2.0]), 1.0)
    >>> round(float(posterior(torch.zeros(1, 1), torch.ones(1))), 6)
    0.666667
    """

    def denoised(x: Tensor, sigma: Tensor) -> Tensor:
        selected, wanted = mask.to(x), torch.where(mask, values, 0.0).to(x)
        variance = (sigma**2).view(-1, *(1,) * (x.ndim - 1))
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            data = model(x, sigma)

        def covariance(v: Tensor) -> Tensor:
            """V A' v."""
            (product,) = torch.autograd.grad(data, x, selected * v, retain_graph=True)
            return variance * product

        correction = torch.zeros_like(x)
        residual = wanted - selected * data.detach()
        # V A' and the system's matrix, of each direction before.
        earlier: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(iterations):
            moved = covariance(residual)
            image = noise**2 * residual + selected * moved
            for other_moved, other_image, square in earlier:
                factor = _dot(image, other_image) / square
                moved, image = moved - factor * other_moved, image - factor * other_image
            square = _dot(image, image).clamp_min(torch.finfo(x.dtype).tiny)
            earlier.append((moved, image, square))
            step = _dot(residual, image) / square
            correction, residual = correction + step * moved, residual - step * image
        return data.detach() + correction

    return denoised


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Product of each sample, with the axes of a."""
    return (a * b).flatten(1).sum(1).view(-1, *(1,) * (a.ndim - 1))


def reconstruct(
    model: Denoiser,
    measurements: Measurements,
    n: int = 8,
    *,
    solver: str | Solver = "sde-dpm++2m",
    steps: int = 20,
    iterations: int = 3,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Draw fields that agree with measurements, shape (n, *space, channels), in their own units.

    Their mean is the estimate with the least square error, their deviation says how uncertain it is.

    Parameters
    ----------
    model : Denoiser
    measurements : Measurements
    n : int
        Samples, drawn together.
    solver, steps, seed
        As for `sciml.sampling.sample`.
    iterations : int
        Of the linear solver.
    progress : bool
        Show a bar on a terminal.

    Raises
    ------
    ConfigError
        If shapes do not fit the model, or another argument cannot be used.
    ConvergenceError
        If the model's output is not finite.

    Examples
    --------
    >>> from sciml.sampling import Measurements, load_score_model, reconstruct
    >>> model, header = load_score_model("runs/prior")  # doctest: +SKIP
    >>> fields = reconstruct(model, Measurements(mask, values))  # doctest: +SKIP
    """
    shape = tuple(measurements.mask.shape)
    if len(shape) != model.axes + 1 or shape[-1] != model.out_channels:
        raise ConfigError(
            f"mask of shape {shape}: the model's fields have {model.axes} axes of space and {model.out_channels} "
            "channels"
        )
    for name, value in (("n", n), ("iterations", iterations)):
        if value < 1:
            raise ConfigError(f"{name}={value}: it must be at least 1")
    device = model.input_mean.device
    values = model.normalise(measurements.values.to(device, torch.float32))
    guided = measured_denoiser(model, measurements.mask.to(device), values, measurements.noise, iterations)
    sampler = field_sampler(model, guided, shape[:-1], solver, steps)
    noise = SampleNoise(seed)
    x = sampler.levels[0].sigma * noise(-1, torch.empty((n, *shape), device=device))
    return model.denormalise(sampler(x, noise, progress).x).cpu()
