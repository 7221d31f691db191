"""Schedules of discrete-time models, as functions of a continuous time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sciml.errors import ConfigError

from .schedules import Array, VariancePreserving, as_array, softplus

__all__ = ["DiscreteSchedule"]


@dataclass(frozen=True)
class DiscreteSchedule(VariancePreserving):
    """N betas of a discrete-time model (DDPM), log alpha piecewise linear between t_n = (n + 1) / N.

    log alpha_n is half the sum of log(1 - beta_k), k <= n; beyond the ends it goes on linearly. Trailing steps with
    lambda below ``lowest`` are dropped, as those of cosine betas whose alpha is nearly 0.

    Parameters
    ----------
    betas : sequence of float
        In (0, 1).
    lowest : float
        Smallest half log-SNR.

    Raises
    ------
    ConfigError
        If the betas are not at least two numbers in (0, 1).

    Examples
    --------
    >>> schedule = DiscreteSchedule.scaled_linear()
    >>> round(float(np.exp(-schedule.half_log_snr(1.0))), 3)  # the largest sigma / alpha
    14.615
    """

    betas: Sequence[float]
    lowest: float = -np.inf

    def __post_init__(self) -> None:
        betas = np.asarray(self.betas, float)
        if betas.ndim != 1 or len(betas) < 2 or not ((betas > 0) & (betas < 1)).all():
            raise ConfigError(f"betas={betas}: give at least two numbers between 0 and 1, ends excluded")
        log_alpha = 0.5 * np.cumsum(np.log1p(-betas))
        half_log_snr = log_alpha - 0.5 * np.log(-np.expm1(2 * log_alpha))
        kept = int((half_log_snr >= self.lowest).sum())
        if kept < 2:
            raise ConfigError(f"lowest={self.lowest}: it leaves {kept} of {len(betas)} steps")
        times = np.arange(1, len(betas) + 1) / len(betas)
        for name, value in (
            ("betas", tuple(betas.tolist())),
            ("_times", times[:kept]),
            ("_logs", log_alpha[:kept]),
        ):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "t_min", float(times[0]))
        object.__setattr__(self, "t_max", float(times[kept - 1]))

    _times: ClassVar[np.ndarray]
    _logs: ClassVar[np.ndarray]

    @classmethod
    def linear(cls, first: float = 1e-4, last: float = 0.02, count: int = 1000) -> "DiscreteSchedule":
        """Return the schedule of betas at equal distances (Ho et al., NeurIPS 2020, arXiv 2006.11239)."""
        return cls(np.linspace(first, last, count).tolist())

    @classmethod
    def scaled_linear(
        cls, first: float = 0.00085, last: float = 0.012, count: int = 1000
    ) -> "DiscreteSchedule":
        """Return the schedule of betas whose roots are at equal distances (Rombach et al., CVPR 2022)."""
        return cls((np.linspace(first**0.5, last**0.5, count) ** 2).tolist())

    @classmethod
    def cosine(cls, count: int = 1000, largest: float = 0.999, lowest: float = -5.1) -> "DiscreteSchedule":
        """Return the betas of the cosine schedule, which are cut at ``largest``."""
        bar = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        return cls(np.minimum(1 - bar[1:] / bar[:-1], largest).tolist(), lowest)

    def label(self, t: Array) -> Array:
        """Return the index n = N t - 1 that a discrete-time model was trained with; fractions are kept."""
        _, t = as_array(t)
        return t * len(self.betas) - 1

    def _interpolated(self, at: Array, x: np.ndarray, y: np.ndarray, rates: bool = False) -> Array:
        """Piecewise linear in x, increasing, and beyond; or its slopes."""
        xp, at = as_array(at)
        slopes = np.diff(y) / np.diff(x)
        if xp.__name__.endswith("torch"):
            import torch

            tensors = [torch.as_tensor(part.copy(), device=at.device) for part in (x, y, slopes)]
            piece = torch.clamp(
                torch.searchsorted(tensors[0], at.double().contiguous()) - 1, 0, len(slopes) - 1
            )
            x_p, y_p, slope = tensors[0][piece], tensors[1][piece], tensors[2][piece]
            return (slope if rates else y_p + slope * (at.double() - x_p)).to(at.dtype)
        found = np.clip(np.searchsorted(x, at) - 1, 0, len(slopes) - 1)
        return slopes[found] + 0 * at if rates else y[found] + slopes[found] * (at - x[found])

    def log_alpha(self, t: Array) -> Array:
        """Return log alpha."""
        return self._interpolated(t, self._times, self._logs)

    def log_alpha_rate(self, t: Array) -> Array:
        """Return f = d log alpha / dt, piecewise constant."""
        return self._interpolated(t, self._times, self._logs, rates=True)

    def time(self, half_log_snr: Array) -> Array:
        """Return the t at which the half log-SNR has a value."""
        xp, lam = as_array(half_log_snr)
        return self._interpolated(-softplus(xp, -2 * lam) / 2, self._logs[::-1], self._times[::-1])
