"""Densities whose noised scores, and whose probability flow, are known in closed form.

Of x_t = alpha x_0 + sigma eps with x_0 from a target, the score is -E[eps | x_t] / sigma, and all that a perfect model
would predict follows from E[x_0 | x_t]. What a solver makes of it can be compared with the exact flow.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp
from torch import Tensor

from sciml.errors import ConfigError

from ..evaluation import Model
from ..schedules import Schedule

__all__ = ["Gaussian", "Mixture1D", "Target"]


class Target(ABC):
    """A density of data in closed form, with its noised versions; computes in double precision."""

    @abstractmethod
    def denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x_0 | x_t = x], of the shape of x, (B, d); alpha and sigma of shape (B, 1)."""

    @abstractmethod
    def flow(self, x: Tensor, schedule: Schedule, source: float, target: float) -> Tensor:
        """Return where the probability-flow ODE takes states x, (B, d), from time ``source`` to ``target``."""

    @abstractmethod
    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw samples, shape (n, d), float64."""

    def score(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """Return the score of x_t at states x, (B, d)."""
        pair = (torch.full_like(x[:, :1], value) for value in (alpha, sigma))
        return (alpha * self.denoised(x, *pair) - x) / sigma**2

    def model(self, schedule: Schedule, prediction: str = "noise") -> Model:
        """Return the model that predicts noise, or data, without error.

        States may have any shape (B, ...) for a target of independent coordinates, else (B, d).
        """
        if prediction not in ("noise", "data"):
            raise ConfigError(f"prediction={prediction!r}: targets predict noise or data")

        def predict(x: Tensor, t: Tensor) -> Tensor:
            times = t.double()
            alpha, sigma = (part(times)[:, None] for part in (schedule.alpha, schedule.sigma))
            flat = x.double().flatten(1)
            data = self.denoised(flat, alpha, sigma)
            result = data if prediction == "data" else (flat - alpha * data) / sigma
            return result.view_as(x).to(x.dtype)

        return predict


class Gaussian(Target):
    """N(mean, covariance), a point mass where the covariance is zero.

    Parameters
    ----------
    mean : sequence of float, shape (d,)
    covariance : array, shape (d, d)

    Raises
    ------
    ConfigError
        If shapes do not fit, or the covariance is not symmetric and positive semi-definite.

    Examples
    --------
    >>> from sciml.sampling import VE
    >>> point = Gaussian([2.0], [[0.0]])
    >>> float(point.flow(torch.tensor([[5.0]]).double(), VE(), 3.0, 1.0))
    3.0
    """

    def __init__(self, mean: Sequence[float], covariance: Sequence[Sequence[float]] | np.ndarray) -> None:
        self.mean = torch.as_tensor(np.asarray(mean, float))
        matrix = torch.as_tensor(np.asarray(covariance, float))
        d = len(self.mean) if self.mean.ndim == 1 else 0
        if d < 1 or matrix.shape != (d, d) or not torch.equal(matrix, matrix.T):
            raise ConfigError(
                f"mean of shape {tuple(self.mean.shape)}, covariance of shape {tuple(matrix.shape)}: give (d,) and a "
                "symmetric (d, d)"
            )
        if not (torch.isfinite(self.mean).all() and torch.isfinite(matrix).all()):
            raise ConfigError("mean, covariance: an entry is not finite")
        values, self.vectors = torch.linalg.eigh(matrix)
        if values.min() < -1e-12 * max(float(values.max()), 1.0):
            raise ConfigError(f"covariance: its eigenvalue {float(values.min()):.3g} is negative")
        self.variances = values.clamp_min(0.0)

    def denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x_0 | x_t = x]."""
        mean, vectors, variances = (part.to(x.device) for part in (self.mean, self.vectors, self.variances))
        along = (x - alpha * mean) @ vectors
        return mean + (alpha * variances / (alpha**2 * variances + sigma**2) * along) @ vectors.T

    def flow(self, x: Tensor, schedule: Schedule, source: float, target: float) -> Tensor:
        """Return m_t + C_t C_s^-1 (x - m_s), C = (alpha^2 covariance + sigma^2)^(1/2)."""
        s, t = schedule.level(source), schedule.level(target)
        mean, vectors, variances = (part.to(x.device) for part in (self.mean, self.vectors, self.variances))
        ratio = torch.sqrt((t.alpha**2 * variances + t.sigma**2) / (s.alpha**2 * variances + s.sigma**2))
        along = (x.double() - s.alpha * mean) @ vectors
        return t.alpha * mean + (ratio * along) @ vectors.T

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw samples, shape (n, d)."""
        z = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, len(self.mean))))
        return self.mean + (z * self.variances.sqrt()) @ self.vectors.T


class Mixture1D(Target):
    """Independent coordinates, each from one mixture sum_k w_k N(m_k, s_k^2).

    The flow keeps the distribution function of each coordinate: x_t = F_t^-1(F_s(x_s)).

    Parameters
    ----------
    weights, means, deviations : sequence of float

    Raises
    ------
    ConfigError
        If lengths differ, weights are not positive, or deviations are negative.

    Examples
    --------
    >>> from sciml.sampling import VPLinear
    >>> mixture = Mixture1D((0.3, 0.5, 0.2), (-2.0, 0.5, 3.0), (0.5, 0.3, 0.8))
    >>> level = VPLinear().level(0.4)
    >>> round(float(mixture.score(torch.tensor([[0.7]]).double(), level.alpha, level.sigma)), 8)
    -0.42196751
    """

    def __init__(self, weights: Sequence[float], means: Sequence[float], deviations: Sequence[float]) -> None:
        parts = [np.asarray(part, float) for part in (weights, means, deviations)]
        w, _, s = parts
        if len({part.shape for part in parts}) > 1 or w.ndim != 1 or len(w) < 1:
            raise ConfigError("weights, means, deviations: give as many of each, at least one")
        if not (w > 0).all() or not (s >= 0).all() or not np.isfinite(parts).all():
            raise ConfigError(
                f"weights={w}, deviations={s}: weights must be positive, deviations not negative"
            )
        self.weights, self.means, self.deviations = w / w.sum(), parts[1], s

    def denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x_0 | x_t = x]."""
        w, m, s = (
            torch.as_tensor(part, device=x.device) for part in (self.weights, self.means, self.deviations)
        )
        alpha, sigma, offset = alpha[..., None], sigma[..., None], x[..., None]
        variance = alpha**2 * s**2 + sigma**2
        offset = offset - alpha * m
        logits = w.log() - 0.5 * variance.log() - 0.5 * offset**2 / variance
        return (torch.softmax(logits, -1) * (m + alpha * s**2 / variance * offset)).sum(-1)

    def flow(self, x: Tensor, schedule: Schedule, source: float, target: float) -> Tensor:
        """Return F_t^-1(F_s(x)) coordinate by coordinate, to 1e-13."""
        s, t = schedule.level(source), schedule.level(target)
        values = [self._moved(float(entry), s.alpha, s.sigma, t.alpha, t.sigma) for entry in x.flatten()]
        return torch.tensor(values, dtype=torch.float64).view(x.shape)

    def _tail(self, x: float, alpha: float, sigma: float, side: int) -> float:
        """Log of the probability below x, or with side = -1 above."""
        z = side * (x - alpha * self.means) / np.sqrt(alpha**2 * self.deviations**2 + sigma**2)
        return float(logsumexp(log_ndtr(z), b=self.weights))

    def _moved(self, x: float, alpha_s: float, sigma_s: float, alpha_t: float, sigma_t: float) -> float:
        # In the smaller tail, where no digits are lost.
        side = min((1, -1), key=lambda side: self._tail(x, alpha_s, sigma_s, side))
        wanted = self._tail(x, alpha_s, sigma_s, side)
        # Of a single component the map is linear; that of the mixture lies between those of its components.
        ratio = np.sqrt(
            (alpha_t**2 * self.deviations**2 + sigma_t**2) / (alpha_s**2 * self.deviations**2 + sigma_s**2)
        )
        reach = (
            float(np.abs(alpha_t * self.means).max() + (ratio * np.abs(x - alpha_s * self.means)).max()) + 1.0
        )
        while self._tail(-reach, alpha_t, sigma_t, 1) > self._tail(x, alpha_s, sigma_s, 1) or self._tail(
            reach, alpha_t, sigma_t, -1
        ) > self._tail(x, alpha_s, sigma_s, -1):
            reach *= 2
        return float(
            brentq(
                lambda y: self._tail(y, alpha_t, sigma_t, side) - wanted,
                -reach,
                reach,
                xtol=1e-14,
                rtol=1e-14,
            )
        )

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw samples of one coordinate, shape (n, 1)."""
        rng = np.random.default_rng(seed)
        component = rng.choice(len(self.weights), n, p=self.weights)
        values = self.means[component] + self.deviations[component] * rng.standard_normal(n)
        return torch.from_numpy(values[:, None])
