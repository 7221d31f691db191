"""Relative errors in the L2 and H1 norms: one ratio per sample, over all points and channels."""

from collections.abc import Sequence

import numpy as np
from array_api_compat import array_namespace

from sciml.errors import ConfigError

from .arguments import Array, check_arrays, checked_numbers, shown

__all__ = ["relative_h1", "relative_l2"]


def _square_norm(values: Array, weight: Array | None) -> Array:
    xp = array_namespace(values)
    squares = values * values if weight is None else values * values * weight
    return xp.sum(squares, axis=tuple(range(1, values.ndim)))


def _check(prediction: Array, target: Array, mask: Array | None, axes: int) -> None:
    masks = {} if mask is None else {"mask": mask}
    check_arrays(axes, "(samples, *space, channels)", prediction=prediction, target=target, **masks)
    if tuple(prediction.shape) != tuple(target.shape):
        raise ConfigError(
            f"prediction of shape {tuple(prediction.shape)} against target of {tuple(target.shape)}: "
            "give both the same points and channels"
        )
    if mask is not None and tuple(mask.shape) not in (tuple(target.shape), (*target.shape[:-1], 1)):
        raise ConfigError(
            f"mask of shape {tuple(mask.shape)} against target of {tuple(target.shape)}: give (samples, *space, 1)"
        )


def relative_l2(prediction: Array, target: Array, mask: Array | None = None) -> Array:
    """Return |p - u| / |u| per sample, in the Euclidean norm over all points and channels.

    Parameters
    ----------
    prediction, target : array, shape (samples, *space, channels)
    mask : array, shape (samples, *space, 1), optional
        Weight of each point; 0 leaves it out.

    Returns
    -------
    array, shape (samples,)
        Infinite where the target is zero; NaN where the prediction is zero, too, or nothing is left in.

    Raises
    ------
    ConfigError
        If the shapes differ, or one is no array of the other's library.

    Examples
    --------
    >>> u = np.ones((1, 4, 1))
    >>> float(relative_l2(1.5 * u, u)[0])
    0.5
    """
    _check(prediction, target, mask, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (_square_norm(prediction - target, mask) / _square_norm(target, mask)) ** 0.5


def _derivative(values: Array, axis: int, spacing: float, periodic: bool) -> Array:
    """Second-order differences: central, at the ends of bounded axes one-sided."""
    xp = array_namespace(values)
    if periodic:
        return (xp.roll(values, -1, axis=axis) - xp.roll(values, 1, axis=axis)) / (2 * spacing)

    def at(start: int | None, stop: int | None) -> Array:
        return values[(*(slice(None),) * axis, slice(start, stop))]

    inner = at(2, None) - at(None, -2)
    first = -3 * at(0, 1) + 4 * at(1, 2) - at(2, 3)
    last = 3 * at(-1, None) - 4 * at(-2, -1) + at(-3, -2)
    return xp.concat([first, inner, last], axis=axis) / (2 * spacing)


def _with_neighbours(mask: Array, axis: int, periodic: bool) -> Array:
    """The mask of points whose two neighbours along an axis are inside as well."""
    xp = array_namespace(mask)
    ahead, behind = xp.roll(mask, -1, axis=axis), xp.roll(mask, 1, axis=axis)
    if not periodic:
        lead = (slice(None),) * axis
        edge = xp.zeros_like(mask[(*lead, slice(0, 1))])
        ahead = xp.concat([mask[(*lead, slice(1, None))], edge], axis=axis)
        behind = xp.concat([edge, mask[(*lead, slice(None, -1))]], axis=axis)
    return mask * ahead * behind


def relative_h1(
    prediction: Array,
    target: Array,
    spacing: Sequence[float],
    periodic: Sequence[bool],
    mask: Array | None = None,
) -> Array:
    """Return the relative error in the H1 norm, (|v|^2 + |grad v|^2)^(1/2), per sample.

    Gradients are second-order differences on the grid. With a mask, a derivative counts only where
    the point and both its neighbours along the axis are inside.

    Parameters
    ----------
    prediction, target : array, shape (samples, *space, channels)
        At least three nodes along each axis.
    spacing : sequence of float
        h per axis, in the unit in which gradients are measured.
    periodic : sequence of bool
        Per axis.
    mask : array, shape (samples, *space, 1), optional
        1 inside, 0 outside.

    Returns
    -------
    array, shape (samples,)
        Infinite where the target is zero; NaN where the prediction is zero, too, or nothing is left in.

    Raises
    ------
    ConfigError
        If the shapes differ, one is no array of the other's library, an axis has fewer than three nodes,
        or there is not one positive ``spacing`` and one boolean ``periodic`` for each axis.

    Examples
    --------
    >>> u = np.sin(2 * np.pi * np.arange(64) / 64)[None, :, None]
    >>> round(float(relative_h1(1.5 * u, u, spacing=(1 / 64,), periodic=(True,))[0]), 6)
    0.5
    """
    _check(prediction, target, mask, 3)
    if min(target.shape[1:-1]) < 3:
        raise ConfigError(
            f"target of shape {tuple(target.shape)}: differences need three nodes along each axis"
        )
    count = target.ndim - 2
    wraps = list(periodic) if isinstance(periodic, Sequence | np.ndarray) else []
    if len(wraps) != count or not all(isinstance(wrap, bool | np.bool_) for wrap in wraps):
        raise ConfigError(
            f"periodic={shown(periodic)}: give True or False for each of the {count} axes of space"
        )
    steps = checked_numbers("spacing", spacing, count)
    error = prediction - target
    numerator, denominator = _square_norm(error, mask), _square_norm(target, mask)
    for axis, (h, wrap) in enumerate(zip(steps, wraps, strict=True), start=1):
        inner = None if mask is None else _with_neighbours(mask, axis, wrap)
        numerator = numerator + _square_norm(_derivative(error, axis, h, wrap), inner)
        denominator = denominator + _square_norm(_derivative(target, axis, h, wrap), inner)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (numerator / denominator) ** 0.5
