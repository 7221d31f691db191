"""PDEBench's six metrics, with its reductions.

Arrays have shape (samples, time, *space, channels) and hold predicted frames only; e = p - u, n is the
number of points, <.> the mean over the points. Written from the definitions in arXiv 2210.07182,
appendix B, and what the project's scripts compute; no code of theirs is used.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from array_api_compat import array_namespace, device

from sciml.errors import ConfigError

from .arguments import Array, check_frames, checked_numbers
from .forecasts import forecast_target

__all__ = [
    "boundary_rmse",
    "conserved_rmse",
    "fourier_rmse",
    "max_error",
    "nrmse",
    "pdebench_metrics",
    "rmse",
]

LOW, HIGH = 4, 12  # first shells of the middle and the high band


def _space(values: Array) -> tuple[int, ...]:
    return tuple(range(2, values.ndim - 1))


def _root_mean_square(values: Array) -> Array:
    xp = array_namespace(values)
    return xp.mean(values**2, axis=_space(values)) ** 0.5


def rmse(prediction: Array, target: Array) -> float:
    """Return RMSE: mean over samples, channels and times of <e^2>^(1/2).

    Examples
    --------
    >>> u = np.ones((1, 2, 8, 1))
    >>> rmse(u * np.array([[1.0], [3.0]])[None, :, None], u)
    1.0
    """
    check_frames(prediction, target)
    return float(array_namespace(target).mean(_root_mean_square(prediction - target)))


def nrmse(prediction: Array, target: Array) -> float:
    """Return nRMSE: mean over samples, channels and times of <e^2>^(1/2) / <u^2>^(1/2).

    There is no epsilon: a frame and channel in which the target is zero makes the result inf (NaN, if
    the prediction is zero there too).
    """
    check_frames(prediction, target)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = _root_mean_square(prediction - target) / _root_mean_square(target)
    return float(array_namespace(target).mean(ratio))


def max_error(prediction: Array, target: Array) -> float:
    """Return the max error: mean over channels and times of the largest |e| over samples and space.

    It depends on how many samples are given at once. PDEBench takes it per batch and averages over
    the batches; this is its value for one batch.
    """
    check_frames(prediction, target)
    xp = array_namespace(target)
    return float(xp.mean(xp.max(xp.abs(prediction - target), axis=(0, *_space(target)))))


def conserved_rmse(prediction: Array, target: Array) -> float:
    """Return cRMSE: mean over channels and times of (mean over samples of (sum_x e)^2)^(1/2) / n.

    Examples
    --------
    >>> u = np.zeros((1, 1, 4, 1))
    >>> conserved_rmse(u + np.array([1.0, -1.0, 1.0, -1.0])[:, None], u)
    0.0
    """
    check_frames(prediction, target)
    xp = array_namespace(target)
    total = xp.sum(prediction - target, axis=_space(target))
    return float(xp.mean(xp.mean(total**2, axis=0) ** 0.5)) / math.prod(target.shape[2:-1])


def boundary_rmse(prediction: Array, target: Array) -> float:
    """Return bRMSE: mean over samples, channels and times of the root mean square of e on the sides.

    All 2 D sides count with all their nodes, so an edge or corner counts once for each of its sides.
    In 3D channels stay apart, where PDEBench's script adds them.
    """
    check_frames(prediction, target)
    xp = array_namespace(target)
    squares = (prediction - target) ** 2
    total, count = 0.0, 0
    for axis in _space(target):
        others = tuple(range(2, target.ndim - 2))
        for end in (0, -1):
            side = squares[(*(slice(None),) * axis, end)]
            total = total + (xp.sum(side, axis=others) if others else side)
        count += 2 * math.prod(m for d, m in enumerate(target.shape[2:-1], start=2) if d != axis)
    return float(xp.mean((total / count) ** 0.5))


@functools.lru_cache(maxsize=16)
def _shells(shape: tuple[int, ...], rule: str) -> list[np.ndarray]:
    """Flat indices of the wave vectors with floor(|k|) = 0, 1, ..., min n / 2 - 1."""
    if rule == "quadrant":
        k = [np.where(np.arange(n) < n // 2, np.arange(n), np.inf) for n in shape]
    else:
        k = [np.fft.fftfreq(n, 1 / n) for n in shape]
    length = np.sqrt(sum(component**2 for component in np.meshgrid(*k, indexing="ij"))).ravel()
    finite = np.isfinite(length)
    shell = np.where(finite, np.floor(np.where(finite, length, 0)), -1).astype(int)
    order = np.argsort(shell, kind="stable")
    bounds = np.searchsorted(shell[order], np.arange(min(shape) // 2 + 1))
    return np.split(order, bounds)[1:-1]


def fourier_rmse(
    prediction: Array,
    target: Array,
    lengths: Sequence[float] | None = None,
    rule: Literal["quadrant", "shell"] = "quadrant",
) -> dict[str, float]:
    """Return fRMSE, the error in bands of wavenumbers.

    With F the unnormalised Fourier transform of e and whole wavenumbers k, the error of shell i is
    E_i = (mean over samples of sum |F_k|^2)^(1/2) / n * prod L, the sum over floor(|k|) = i. A band's
    value is the mean of E_i over its shells, channels and times.

    Parameters
    ----------
    prediction, target : array, shape (samples, time, *space, channels)
    lengths : sequence of float, optional
        L of the domain, per axis; 1 by default.
    rule : {"quadrant", "shell"}
        Which wave vectors a shell holds. "quadrant", PDEBench's: those with 0 <= k_d < n_d / 2 for
        every axis, a 2^D-th of them. "shell": all, so that by Parseval's identity the squares add up
        to <e^2> (up to the corners beyond the last shell).

    Returns
    -------
    dict of str to float
        "low" (i = 0 to 3), "mid" (4 to 11) and "high" (12 to min n / 2 - 1). A band counts the shells
        that the grid has, and is NaN where it has none of them, not 0: "high" for fewer than 26 nodes
        along the shortest axis, "mid" for fewer than 10.

    Raises
    ------
    ConfigError
        If the shapes differ, or ``rule`` or ``lengths`` do not fit.

    Examples
    --------
    >>> x = np.arange(64) / 64
    >>> u = np.sin(2 * np.pi * 5 * x)[None, None, :, None]
    >>> {band: round(value, 4) for band, value in fourier_rmse(0 * u, u).items()}
    {'low': 0.0, 'mid': 0.0625, 'high': 0.0}
    """
    check_frames(prediction, target)
    shape = tuple(target.shape[2:-1])
    if rule not in ("quadrant", "shell"):
        raise ConfigError(f"rule={rule!r}: use 'quadrant' (PDEBench's) or 'shell'")
    box = (1.0,) if lengths is None else checked_numbers("lengths", lengths, len(shape))
    xp = array_namespace(target)
    f = xp.fft.fftn(prediction - target, axes=_space(target))
    energy = xp.mean(xp.real(f) ** 2 + xp.imag(f) ** 2, axis=0)
    energy = xp.reshape(energy, (target.shape[1], math.prod(shape), target.shape[-1]))
    scale = math.prod(box) / math.prod(shape)
    errors = []
    for shell in _shells(shape, rule):
        members = xp.take(energy, xp.asarray(shell, device=device(target)), axis=1)
        errors.append(float(xp.mean(xp.sum(members, axis=1) ** 0.5)) * scale)
    bands = {"low": errors[:LOW], "mid": errors[LOW:HIGH], "high": errors[HIGH:]}
    return {band: sum(values) / len(values) if values else math.nan for band, values in bands.items()}


def pdebench_metrics(
    prediction: Array, target: Array, n_given: int, lengths: Sequence[float] | None = None
) -> dict[str, float]:
    """Return all of PDEBench's metrics of forecasts.

    PDEBench's published scores count the given frames as predictions and are too small for it; these
    cannot.

    Parameters
    ----------
    prediction : array, shape (samples, T - n_given, *space, channels)
        Without the given frames.
    target : array, shape (samples, T, *space, channels)
        The whole trajectories.
    n_given : int
        Frames that the model was given.
    lengths : sequence of float, optional
        Of the domain, for `fourier_rmse`.

    Returns
    -------
    dict of str to float
        "RMSE", "nRMSE", "max", "cRMSE", "bRMSE", "fRMSE low", "fRMSE mid", "fRMSE high"; the last
        three by the quadrant rule, NaN for bands that the grid does not resolve (`fourier_rmse`).

    Raises
    ------
    ConfigError
        If the prediction has not T - n_given frames, or another shape.

    Examples
    --------
    >>> u = np.ones((2, 5, 32, 1))
    >>> scores = pdebench_metrics(1.5 * u[:, 1:], u, n_given=1)
    >>> scores["nRMSE"], scores["max"]
    (0.5, 0.5)
    """
    target = forecast_target(prediction, target, n_given)
    bands = fourier_rmse(prediction, target, lengths)
    return {
        "RMSE": rmse(prediction, target),
        "nRMSE": nrmse(prediction, target),
        "max": max_error(prediction, target),
        "cRMSE": conserved_rmse(prediction, target),
        "bRMSE": boundary_rmse(prediction, target),
        **{f"fRMSE {band}": value for band, value in bands.items()},
    }
