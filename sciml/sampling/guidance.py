"""Guided models, and thresholds for what they predict."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError

from .evaluation import Model
from .schedules import Level, Schedule

__all__ = ["DynamicThreshold", "classifier_free_guidance", "classifier_guidance"]


def classifier_free_guidance(conditional: Model, unconditional: Model, scale: float) -> Model:
    """Return the model u + scale (c - u) (Ho and Salimans, 2022, arXiv 2207.12598).

    scale = 1 is the conditional model, larger ones exaggerate the condition. The same for every parametrisation.

    Examples
    --------
    >>> guided = classifier_free_guidance(lambda x, t: x + 1, lambda x, t: x, 3.0)
    >>> guided(torch.zeros(2), torch.zeros(2)).tolist()
    [3.0, 3.0]
    """

    def guided(x: Tensor, t: Tensor) -> Tensor:
        without = unconditional(x, t)
        return torch.lerp(without, conditional(x, t), scale)

    return guided


def classifier_guidance(
    model: Model,
    log_probability: Callable[[Tensor, Tensor], Tensor],
    schedule: Schedule,
    scale: float,
    label: Callable[[Tensor], Tensor] | None = None,
) -> Model:
    """Return the noise model eps - scale sigma grad log p(c | x_t) (Dhariwal and Nichol, 2021, arXiv 2105.05233).

    Parameters
    ----------
    model : callable
        Predicts noise.
    log_probability : callable
        From states (B, ...) and times (B,) to log p(c | x_t), shape (B,), differentiable.
    schedule : Schedule
    scale : float
    label : callable, optional
        From t to what the model gets in its place, such as `DiscreteSchedule.label`: here, not in `sample`, as sigma
        is needed of t itself.

    Examples
    --------
    >>> from sciml.sampling import VE
    >>> guided = classifier_guidance(lambda x, t: 0 * x, lambda x, t: -x.square().sum(1) / 2, VE(), 1.0)
    >>> guided(torch.ones(1, 2), torch.full((1,), 3.0)).tolist()  # sigma = 3
    [[3.0, 3.0]]
    """

    def guided(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(log_probability(x, t).sum(), x)
        sigma = schedule.sigma(t).view(-1, *(1,) * (x.ndim - 1))
        return model(x.detach(), t if label is None else label(t)) - scale * sigma * slope

    return guided


@dataclass(frozen=True)
class DynamicThreshold:
    """Data hook that keeps predicted images in range (Saharia et al., NeurIPS 2022, arXiv 2205.11487).

    q is a quantile of |x_0| of each sample, at least 1, and x_0 becomes clip(x_0, -q, q) / q. For images in [-1, 1],
    not for latent variables nor for fields without bounds.

    Raises
    ------
    ConfigError
        If a value is out of its range.

    Examples
    --------
    >>> DynamicThreshold(1.0)(torch.tensor([[4.0, -2.0], [0.5, 0.25]]), None, None).tolist()
    [[1.0, -0.5], [0.5, 0.25]]
    """

    quantile: float = 0.995
    most: float = torch.inf
    """The largest q; 1 clips to [-1, 1]."""

    def __post_init__(self) -> None:
        if not 0 < self.quantile <= 1 or not self.most >= 1:
            raise ConfigError(
                f"DynamicThreshold quantile={self.quantile}, most={self.most}: give a quantile in (0, 1] and 1 or more"
            )

    def __call__(self, data: Tensor, x: Tensor, level: Level) -> Tensor:
        """Return the data within their threshold."""
        q = torch.quantile(data.reshape(len(data), -1).abs().float(), self.quantile, dim=1)
        q = q.clamp(1.0, self.most).to(data.dtype)
        q = q.view(-1, *(1,) * (data.ndim - 1))
        return data.clamp(-q, q) / q
