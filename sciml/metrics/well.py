"""The Well's metrics: a value per sample, time and channel; reports use the mean of all.

Arrays have shape (samples, time, *space, channels), values (samples, time, channels). <.> is the mean
over the points of one frame and channel, e = p - u. Denominators carry EPSILON = 1e-7, so a field
that is zero (in `vmse`: constant in space) gives <e^2> / 1e-7, not infinity.

Source: arXiv 2412.00568, appendix on metrics. The numbers agree with the package the_well 1.2.
"""

import functools
import itertools
import math

import numpy as np
from array_api_compat import array_namespace, device

from sciml.errors import ConfigError

from .arguments import Array, check_frames, checked_integer

__all__ = [
    "binned_spectral_mse",
    "linf",
    "mae",
    "mse",
    "nmae",
    "nmse",
    "nrmse",
    "pearson_r",
    "rmse",
    "vmse",
    "vrmse",
]

EPSILON = 1e-7


def _mean(values: Array) -> Array:
    xp = array_namespace(values)
    return xp.mean(values, axis=tuple(range(2, values.ndim - 1)))


def _variance(values: Array) -> Array:
    """Unbiased, over space."""
    if math.prod(values.shape[2:-1]) < 2:
        raise ConfigError(
            f"target of shape {tuple(values.shape)}: a variance needs at least 2 points in space"
        )
    xp = array_namespace(values)
    return xp.var(values, axis=tuple(range(2, values.ndim - 1)), correction=1)


def mse(prediction: Array, target: Array) -> Array:
    """Return <e^2>, shape (samples, time, channels).

    Examples
    --------
    >>> u = np.ones((1, 2, 8, 8, 1))
    >>> mse(u + 2, u).ravel().tolist()
    [4.0, 4.0]
    """
    check_frames(prediction, target)
    return _mean((prediction - target) ** 2)


def rmse(prediction: Array, target: Array) -> Array:
    """Return <e^2>^(1/2), shape (samples, time, channels)."""
    return mse(prediction, target) ** 0.5


def nmse(prediction: Array, target: Array) -> Array:
    """Return <e^2> / (<u^2> + 1e-7), shape (samples, time, channels)."""
    return mse(prediction, target) / (_mean(target**2) + EPSILON)


def nrmse(prediction: Array, target: Array) -> Array:
    """Return the root of `nmse`, shape (samples, time, channels)."""
    return nmse(prediction, target) ** 0.5


def vmse(prediction: Array, target: Array) -> Array:
    """Return <e^2> / (Var u + 1e-7), shape (samples, time, channels).

    Var is the unbiased variance over space of one frame and channel.
    """
    return mse(prediction, target) / (_variance(target) + EPSILON)


def vrmse(prediction: Array, target: Array) -> Array:
    """Return the root of `vmse`: 1 is the error of predicting each frame's spatial mean.

    Returns
    -------
    array, shape (samples, time, channels)

    Examples
    --------
    >>> u = np.sin(2 * np.pi * np.arange(256) / 256)[None, None, :, None]
    >>> round(float(vrmse(0 * u, u)[0, 0, 0]), 2)
    1.0
    """
    return vmse(prediction, target) ** 0.5


def mae(prediction: Array, target: Array) -> Array:
    """Return <|e|>, shape (samples, time, channels)."""
    check_frames(prediction, target)
    return _mean(array_namespace(target).abs(prediction - target))


def nmae(prediction: Array, target: Array) -> Array:
    """Return <|e|> / (<|u|> + 1e-7), shape (samples, time, channels)."""
    return mae(prediction, target) / (_mean(array_namespace(target).abs(target)) + EPSILON)


def linf(prediction: Array, target: Array) -> Array:
    """Return the largest |e| over space, shape (samples, time, channels)."""
    check_frames(prediction, target)
    xp = array_namespace(target)
    return xp.max(xp.abs(prediction - target), axis=tuple(range(2, target.ndim - 1)))


def pearson_r(prediction: Array, target: Array) -> Array:
    """Return cov(p, u) / (std p * std u + 1e-7) over space, shape (samples, time, channels).

    The covariance divides by n, the standard deviations by n - 1: a perfect prediction scores
    (n - 1) / n. A constant frame scores 0.
    """
    check_frames(prediction, target)
    axes = tuple(range(2, target.ndim - 1))
    xp = array_namespace(target)
    mean_p = xp.mean(prediction, axis=axes, keepdims=True)
    mean_u = xp.mean(target, axis=axes, keepdims=True)
    covariance = _mean((prediction - mean_p) * (target - mean_u))
    return covariance / ((_variance(prediction) * _variance(target)) ** 0.5 + EPSILON)


@functools.lru_cache(maxsize=16)
def _bins(shape: tuple[int, ...], count: int) -> list[np.ndarray]:
    """Flat indices of the wave vectors in each bin; angular wavenumbers at sample spacing 1."""
    k = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n) for n in shape), indexing="ij")
    length = np.sqrt(sum(component**2 for component in k)).ravel()
    first, last = 2 * math.pi / max(shape), math.pi * math.sqrt(len(shape))
    edges = np.geomspace(first, last, count + 1)
    # The mean and the corner |k| = pi sqrt(D) belong to the outer bins.
    edges[0], edges[-1] = 0.0, np.inf
    return [np.flatnonzero((length >= a) & (length < b)) for a, b in itertools.pairwise(edges)]


def binned_spectral_mse(prediction: Array, target: Array, bins: int = 3) -> tuple[Array, Array]:
    """Return the error's energy in bins of isotropic wavenumber, and relative to the target's.

    Bin edges are spaced logarithmically from 2 pi / max n to pi sqrt(D), for sample spacing 1; the
    first bin also takes what lies below.

    Parameters
    ----------
    prediction, target : array, shape (samples, time, *space, channels)
    bins : int

    Returns
    -------
    mse : array, shape (samples, time, bins, channels)
        Sum over the bin of |F e|^2 / N^2; over all bins it adds up to <e^2> (Parseval).
    nmse : array, shape (samples, time, bins, channels)
        ``mse`` divided by the same of the target + 1e-7.

    Raises
    ------
    ConfigError
        If the shapes differ or ``bins`` is below 1.

    Examples
    --------
    >>> u = np.random.default_rng(0).normal(size=(1, 1, 16, 16, 1))
    >>> absolute, relative = binned_spectral_mse(2 * u, u)
    >>> bool(np.isclose(absolute.sum(), mse(2 * u, u).sum())), relative.round(4).ravel().tolist()
    (True, [1.0, 1.0, 1.0])
    """
    check_frames(prediction, target)
    bins = checked_integer("bins", bins, 1)
    xp = array_namespace(target)
    shape = tuple(target.shape[2:-1])

    def energy(values: Array) -> Array:
        f = xp.fft.fftn(values, axes=tuple(range(2, values.ndim - 1)))
        squares = (xp.real(f) ** 2 + xp.imag(f) ** 2) / math.prod(shape) ** 2
        squares = xp.reshape(squares, (*target.shape[:2], math.prod(shape), target.shape[-1]))
        chosen = [xp.asarray(index, device=device(target)) for index in _bins(shape, bins)]
        return xp.stack([xp.sum(xp.take(squares, index, axis=2), axis=2) for index in chosen], axis=2)

    error = energy(prediction - target)
    return error, error / (energy(target) + EPSILON)
