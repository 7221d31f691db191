"""Errors of forecasts: how well, and for how long, a trajectory is predicted from its first frames.

Predictions hold the predicted frames only. Targets are whole trajectories, of which each metric drops
the given frames itself.
"""

import itertools
import operator
from collections.abc import Sequence
from numbers import Real

import numpy as np
from array_api_compat import array_namespace, device

from sciml.errors import ConfigError

from .arguments import FRAMES, Array, check_arrays, check_frames, checked_integer, shown
from .well import vrmse

__all__ = ["correlation_time", "forecast_target", "geometric_mean_nrmse", "windowed_vrmse"]


def forecast_target(prediction: Array, target: Array, n_given: int) -> Array:
    """Return the frames of a target that a forecast predicts.

    Parameters
    ----------
    prediction : array, shape (samples, T - n_given, *space, channels)
    target : array, shape (samples, T, *space, channels)
    n_given : int
        Frames that the model was given, 1 to T - 1.

    Returns
    -------
    array, shape (samples, T - n_given, *space, channels)

    Raises
    ------
    ConfigError
        If the prediction does not have T - n_given frames or differs otherwise, if one of both is no
        array of the other's library, or ``n_given`` is no integer from 1 to T - 1.

    Examples
    --------
    >>> u = np.zeros((1, 5, 8, 1))
    >>> forecast_target(u[:, 2:], u, n_given=2).shape
    (1, 3, 8, 1)
    >>> forecast_target(u, u, n_given=2)
    Traceback (most recent call last):
    sciml.errors.ConfigError: prediction has 5 frames, target 5 with n_given=2: give the 3 predicted
    frames; the given frames must not be included
    """
    check_arrays(4, FRAMES, prediction=prediction, target=target)
    frames = target.shape[1]
    n_given = checked_integer("n_given", n_given, 1, frames - 1, f", as the target has {frames} frames")
    if prediction.shape[1] != frames - n_given:
        raise ConfigError(
            f"prediction has {prediction.shape[1]} frames, target {frames} with n_given={n_given}: give the "
            f"{frames - n_given} predicted frames; the given frames must not be included"
        )
    rest = target[:, n_given:]
    check_frames(prediction, rest)
    return rest


def windowed_vrmse(
    prediction: Array,
    target: Array,
    n_given: int,
    windows: Sequence[tuple[int, int]] = ((6, 12), (13, 30)),
) -> dict[str, Array]:
    """Return The Well's roll-out score: VRMSE averaged over windows of predicted frames.

    Parameters
    ----------
    prediction : array, shape (samples, T - n_given, *space, channels)
    target : array, shape (samples, T, *space, channels)
    n_given : int
        Frames that the model was given.
    windows : sequence of (int, int)
        First and one past the last predicted frame, counted from 0.

    Returns
    -------
    dict of str to array, shape (samples,)
        By window, "6:12": the mean of `sciml.metrics.well.vrmse` over its frames and all channels.

    Raises
    ------
    ConfigError
        If the shapes do not fit or a window reaches beyond the prediction.

    Examples
    --------
    >>> u = np.random.default_rng(0).normal(size=(1, 8, 64, 1))
    >>> scores = windowed_vrmse(u[:, 2:] + u[:, 2:].std(), u, n_given=2, windows=((0, 6),))
    >>> scores["0:6"].round(1).tolist()
    [1.0]
    """
    errors = vrmse(prediction, forecast_target(prediction, target, n_given))
    xp, frames = array_namespace(errors), errors.shape[1]
    try:
        pairs = [(operator.index(start), operator.index(stop)) for start, stop in windows]
    except (TypeError, ValueError):
        pairs = []
    if not pairs:
        raise ConfigError(f"windows={shown(windows)}: give pairs of integers such as ((6, 12), (13, 30))")
    for start, stop in pairs:
        if not 0 <= start < stop <= frames:
            raise ConfigError(
                f"windows={shown(windows)}: {start}:{stop} is not 0 <= start < stop <= {frames}, the number of "
                "predicted frames: leave it out or predict more"
            )
    return {f"{start}:{stop}": xp.mean(errors[:, start:stop], axis=(1, 2)) for start, stop in pairs}


def correlation_time(
    prediction: Array, target: Array, n_given: int, times: Sequence[float], threshold: float = 0.8
) -> Array:
    """Return for how long a forecast stays correlated with the truth, per sample.

    The time, from the last given frame on, at which Pearson's correlation of prediction and target
    (over all points and channels of a frame) first falls below the threshold; between frames the
    correlation is taken as linear, and at the last given frame as 1. A frame whose correlation is
    undefined (constant, or not finite) counts as 0. Infinite, if the correlation never falls below.

    Parameters
    ----------
    prediction : array, shape (samples, T - n_given, *space, channels)
    target : array, shape (samples, T, *space, channels)
    n_given : int
        Frames that the model was given.
    times : sequence of float, length T
        Of the target's frames, increasing.
    threshold : float
        Between 0 and 1.

    Returns
    -------
    array, shape (samples,)
        In the unit of ``times``.

    Raises
    ------
    ConfigError
        If the shapes do not fit, or ``times`` or ``threshold`` cannot be used.

    Examples
    --------
    >>> u = np.sin(np.arange(64))[None, None, :, None] * np.ones((1, 4, 1, 1))
    >>> p = u[:, 1:].copy()
    >>> p[:, 1:] = 0
    >>> correlation_time(p, u, 1, times=[0.0, 1.0, 2.0, 3.0], threshold=0.5).tolist()
    [1.5]
    """
    rest = forecast_target(prediction, target, n_given)
    try:
        clock = [float(t) for t in times]
    except (TypeError, ValueError):
        clock = []
    if len(clock) != target.shape[1] or not all(0 < b - a < np.inf for a, b in itertools.pairwise(clock)):
        raise ConfigError(
            f"times={shown(times)}: give the increasing times of the target's {target.shape[1]} frames"
        )
    if not isinstance(threshold, Real) or not 0 < threshold < 1:
        raise ConfigError(f"threshold={threshold!r}: give a number between 0 and 1")
    xp = array_namespace(target)
    axes = tuple(range(2, target.ndim))
    p = prediction - xp.mean(prediction, axis=axes, keepdims=True)
    u = rest - xp.mean(rest, axis=axes, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        norm = (xp.sum(p * p, axis=axes) * xp.sum(u * u, axis=axes)) ** 0.5
        r = xp.sum(p * u, axis=axes) / norm
    r = xp.where(xp.isfinite(r), r, xp.zeros_like(r))
    r = xp.concat([xp.ones_like(r[:, :1]), r], axis=1)
    elapsed = xp.asarray(
        [t - clock[n_given - 1] for t in clock[n_given - 1 :]], dtype=r.dtype, device=device(r)
    )
    after, before = r[:, 1:], r[:, :-1]
    crosses = (before >= threshold) & (after < threshold)
    drop = xp.where(crosses, before - after, xp.ones_like(after))
    crossing = elapsed[:-1] + (before - threshold) / drop * (elapsed[1:] - elapsed[:-1])
    never = xp.full_like(crossing, float("inf"))
    return xp.min(xp.where(crosses, crossing, never), axis=1)


def geometric_mean_nrmse(prediction: Array, target: Array, n_given: int, steps: int = 100) -> float:
    """Return APEBench's GMean100: the geometric mean over the first predicted frames of their nRMSE.

    The nRMSE of a frame is the mean over samples of |p - u| / |u|, norms over all points and channels
    of the frame. A frame of the target that is zero makes the result infinite or NaN.

    Parameters
    ----------
    prediction : array, shape (samples, T - n_given, *space, channels)
    target : array, shape (samples, T, *space, channels)
    n_given : int
        Frames that the model was given.
    steps : int
        Frames that count.

    Raises
    ------
    ConfigError
        If the shapes do not fit or fewer than ``steps`` frames are predicted.

    Notes
    -----
    Koehler, Niedermayr, Westermann, Thuerey, arXiv 2411.00180 (2024).

    Examples
    --------
    >>> u = np.ones((1, 3, 8, 1))
    >>> growing = np.array([1.1, 1.4])[None, :, None, None]
    >>> round(geometric_mean_nrmse(growing * u[:, 1:], u, n_given=1, steps=2), 6)
    0.2
    """
    rest = forecast_target(prediction, target, n_given)
    steps = checked_integer("steps", steps, 1, rest.shape[1], ", the number of predicted frames")
    xp = array_namespace(target)
    axes = tuple(range(2, target.ndim))
    p, u = prediction[:, :steps], rest[:, :steps]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (xp.sum((p - u) ** 2, axis=axes) / xp.sum(u * u, axis=axes)) ** 0.5
        return float(xp.exp(xp.mean(xp.log(xp.mean(ratio, axis=0)))))
