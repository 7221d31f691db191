"""Checks of what metrics are given: arrays of one library that fit each other, and numbers."""

import math
import reprlib
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj

from sciml.errors import ConfigError

__all__ = ["check_arrays", "check_frames", "checked_integer", "checked_numbers", "shown"]

Array = Any  # NumPy array or torch tensor

FRAMES = "(samples, time, *space, channels)"


def shown(value: object) -> str:
    """Return a short form of a value for a message of one line.

    Examples
    --------
    >>> shown(list(range(100)))
    '[0, 1, 2, 3, 4, 5, ...]'
    """
    return " ".join(reprlib.repr(value).split())


def check_arrays(axes: int, layout: str, **arrays: Array) -> None:
    """Refuse anything but arrays of one library and device, in single or double precision, none empty.

    Parameters
    ----------
    axes : int
        Least number of axes.
    layout : str
        What they mean, for the message.
    **arrays : array
        By the name of the argument. A mask may hold integers and booleans.

    Raises
    ------
    ConfigError
        If one of them is something else.

    Examples
    --------
    >>> check_arrays(2, "(samples, channels)", target=np.ones(3))
    Traceback (most recent call last):
    sciml.errors.ConfigError: target of shape (3,): give (samples, channels), each of at least 1
    """
    origin = None
    for name, values in arrays.items():
        if not is_array_api_obj(values):
            raise ConfigError(f"{name} of type {type(values).__name__}: give a NumPy array or a torch tensor")
        xp, shape = array_namespace(values), tuple(values.shape)
        weight = name == "mask" and xp.isdtype(values.dtype, ("bool", "integral"))
        if values.dtype not in (xp.float32, xp.float64) and not weight:
            raise ConfigError(f"{name} of dtype {values.dtype}: convert it to float32 or float64")
        if len(shape) < axes or 0 in shape:
            raise ConfigError(f"{name} of shape {shape}: give {layout}, each of at least 1")
        place = type(values).__module__.split(".")[0], str(device(values))
        if origin is None:
            origin = name, place
        elif place != origin[1]:
            ours, theirs = (f"{library} on {where}" for library, where in (place, origin[1]))
            raise ConfigError(
                f"{name} of {ours}, {origin[0]} of {theirs}: give arrays of one library on one device"
            )


def check_frames(prediction: Array, target: Array) -> None:
    """Refuse arrays that are not two of one shape (samples, time, *space, channels).

    Raises
    ------
    ConfigError
        If the shapes differ or are too short, or for what `check_arrays` refuses.

    Examples
    --------
    >>> check_frames(np.ones((1, 2, 8, 1)), np.ones((1, 3, 8, 1)))
    Traceback (most recent call last):
    sciml.errors.ConfigError: prediction of shape (1, 2, 8, 1) against target of (1, 3, 8, 1): give both the
    same frames, points and channels
    """
    layout = f"{FRAMES}, with a channel axis also for one channel"
    check_arrays(4, layout, prediction=prediction, target=target)
    if tuple(prediction.shape) != tuple(target.shape):
        raise ConfigError(
            f"prediction of shape {tuple(prediction.shape)} against target of {tuple(target.shape)}: "
            "give both the same frames, points and channels"
        )


def checked_integer(name: str, value: Any, least: int, most: float = math.inf, reason: str = "") -> int:
    """Return an integer from ``least`` to ``most``.

    Raises
    ------
    ConfigError
        If it is no such number; the message ends with the reason.

    Examples
    --------
    >>> checked_integer("bins", 2.5, 1)
    Traceback (most recent call last):
    sciml.errors.ConfigError: bins=2.5: give an integer of at least 1
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        bounds = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ConfigError(f"{name}={shown(value)}: give an integer {bounds}{reason}")
    return int(value)


def checked_numbers(name: str, values: Any, count: int) -> tuple[float, ...]:
    """Return positive numbers below 1e30, one for each of ``count`` axes.

    Raises
    ------
    ConfigError
        If it is anything else.

    Examples
    --------
    >>> checked_numbers("lengths", (1, 2.5), 2)
    (1.0, 2.5)
    """
    try:
        numbers = list(values.tolist() if hasattr(values, "tolist") else values)
    except TypeError:
        numbers = []
    if len(numbers) != count or not all(
        isinstance(v, int | float | np.integer | np.floating) and not isinstance(v, bool) and 0 < v < 1e30
        for v in numbers
    ):
        raise ConfigError(
            f"{name}={shown(values)}: give a positive number for each of the {count} axes of space"
        )
    return tuple(float(v) for v in numbers)
