"""Averages over Markov chains, with errors that know of their correlations, and whether chains agree."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sciml.errors import ConfigError

__all__ = ["Average", "average", "effective_sample_size", "split_r_hat"]


@dataclass(frozen=True)
class Average:
    """A mean over chains.

    Attributes
    ----------
    mean : float
    error : float
        Standard error, nan where it cannot be told.
    effective : float
        Independent samples that would have that error.
    r_hat : float
        Of split chains, nan of fewer than 4 states.
    """

    mean: float
    error: float
    effective: float
    r_hat: float

    def __str__(self) -> str:
        return f"{self.mean:.5g} +- {self.error:.2g}"


def _values(values: Tensor | np.ndarray) -> np.ndarray:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, float)
    if array.ndim != 2 or not array.size:
        raise ConfigError(f"values of shape {array.shape}: give (states, chains)")
    if not np.isfinite(array).all():
        raise ConfigError("values: one is not finite; leave diverged chains out")
    return array


def average(values: Tensor | np.ndarray, weights: Tensor | np.ndarray | None = None) -> Average:
    """Return the mean of values along chains and its error.

    Parameters
    ----------
    values : array, shape (states, chains)
        Of an observable.
    weights : array, shape (states, chains), optional
        For sum(w f) / sum(w); the error is that of the mean of w (f - mean), to first order.

    Returns
    -------
    Average

    Raises
    ------
    ConfigError
        If shapes differ, or a number is not finite.

    Examples
    --------
    >>> print(average(np.random.default_rng(0).standard_normal((1000, 4)) + 2))
    1.9849 +- 0.016
    """
    f = _values(values)
    if weights is None:
        mean, moved = float(f.mean()), f
    else:
        w = _values(weights)
        if w.shape != f.shape:
            raise ConfigError(f"weights of shape {w.shape}: give that of the values, {f.shape}")
        mean = float((w * f).sum() / w.sum())
        moved = w * (f - mean) / w.mean()
    effective = effective_sample_size(moved)
    error = float(moved.std() / np.sqrt(effective)) if effective > 0 else float("nan")
    return Average(mean, error, effective, split_r_hat(f))


def effective_sample_size(values: Tensor | np.ndarray) -> float:
    """Return how many independent samples chains are worth (Geyer, Statistical Science 7, 1992).

    The sum of autocorrelations ends where that of a pair of lags is no longer positive, and pairs are made to fall;
    the variance between chains counts, so that chains in different modes are worth about as many samples as there are
    chains (Vehtari et al., Bayesian Analysis 16, 2021, arXiv 1903.08008).

    Parameters
    ----------
    values : array, shape (states, chains)

    Returns
    -------
    float
        nan for values that are all the same.

    Examples
    --------
    >>> rng, x = np.random.default_rng(0), np.zeros((20_000, 2))
    >>> for i in range(1, len(x)):
    ...     x[i] = 0.9 * x[i - 1] + rng.standard_normal(2)
    >>> 1700 < effective_sample_size(x) < 2600  # 40000 (1 - 0.9) / (1 + 0.9) = 2105
    True
    """
    x = _values(values)
    n, chains = x.shape
    if n < 4:
        # Of so few states nothing is known but that chains are independent.
        return float(chains) if chains > 1 and float(np.ptp(x)) > 0 else float("nan")
    within, between = x.var(0, ddof=1).mean(), x.mean(0).var(ddof=1) if chains > 1 else 0.0
    total = within * (n - 1) / n + between
    if not total > 0:
        return float("nan")
    centred = x - x.mean(0)
    size = 1 << (2 * n - 1).bit_length()
    covariance = np.zeros(n)
    # A few chains at a time, for memory.
    for first in range(0, chains, 64):
        spectrum = np.fft.rfft(centred[:, first : first + 64], size, axis=0)
        covariance += np.fft.irfft(np.abs(spectrum) ** 2, size, axis=0)[:n].sum(1)
    covariance /= n * chains
    rho = 1 - (within - covariance * n / (n - 1)) / total
    rho[0] = 1.0
    pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(1)
    ends = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: ends[0]] if len(ends) else pairs)
    time = max(2 * float(pairs.sum()) - 1, 1 / np.log10(x.size))
    return float(x.size / time)


def split_r_hat(values: Tensor | np.ndarray) -> float:
    """Return how much wider all chains together are than each half of one (Gelman and Rubin's ratio): 1 if they agree.

    Parameters
    ----------
    values : array, shape (states, chains)

    Returns
    -------
    float
        nan of fewer than 4 states, or of values that are all the same.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal((500, 4))
    >>> round(split_r_hat(noise), 2), round(split_r_hat(noise + 3 * np.arange(4)), 1)
    (1.0, 3.7)
    """
    x = _values(values)
    half = len(x) // 2
    if half < 2:
        return float("nan")
    halves = np.concatenate([x[:half], x[-half:]], 1)
    within, between = halves.var(0, ddof=1).mean(), halves.mean(0).var(ddof=1)
    return float(np.sqrt((half - 1) / half + between / within)) if within > 0 else float("nan")
