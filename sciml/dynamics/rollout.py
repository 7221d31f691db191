"""Roll-outs that can be differentiated."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers.timestepping import RK4, Tableau, explicit_system, step

from .fields import VectorField

__all__ = ["advance", "check_times", "roll_out"]


def check_times(times: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return times as an array, or raise `ConfigError` if they are not finite or do not grow."""
    clock = np.asarray(times, float)
    if clock.ndim != 1 or len(clock) < 2:
        raise ConfigError(f"times of shape {clock.shape}: give two or more")
    if not np.isfinite(clock).all():
        raise ConfigError(f"times: number {int(np.argmin(np.isfinite(clock)))} is not finite")
    wrong = np.flatnonzero(np.diff(clock) <= 0)
    if len(wrong):
        k = int(wrong[0])
        raise ConfigError(
            f"times: {clock[k + 1]:g} (number {k + 1}) follows {clock[k]:g}; sort them, and drop what is there twice"
        )
    return clock


def advance(
    field: Callable[[Any, Any], Any], x: Any, lengths: Any, substeps: int, tableau: Tableau = RK4
) -> Any:
    """Return x after a time of ``lengths``, which broadcasts against x, by equal steps of an explicit method."""
    # In units of the length: segments of different lengths go together.
    system = explicit_system(lambda s, y: lengths * field(0.0, y))
    for number in range(substeps):
        x, _ = step(tableau, system, number / substeps, x, 1 / substeps)
    return x


def roll_out(
    field: VectorField,
    x: Tensor,
    times: Sequence[float] | np.ndarray,
    *,
    substeps: int = 4,
    tableau: Tableau = RK4,
) -> Tensor:
    """Integrate an autonomous field through growing times by equal steps between two of them, differentiably.

    `integrate_field` takes adaptive steps and falling times, too.

    Parameters
    ----------
    field : VectorField
    x : Tensor, any shape
        At times[0].
    times : sequence of float
    substeps : int
        Steps from each time to the next.
    tableau : Tableau
        An explicit method.

    Returns
    -------
    Tensor, shape (T, *x.shape)

    Raises
    ------
    ConfigError
        If times are not finite or do not grow.
    ConvergenceError
        If the state is no longer finite: with the time and the last finite state.

    Examples
    --------
    >>> rate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    >>> x = roll_out(lambda t, x: rate * x, torch.ones(1, dtype=torch.float64), [0.0, 0.5, 1.0])
    >>> x[-1].backward()
    >>> round(float(rate.grad), 3), round(float(x[-1].detach()), 3)
    (2.718, 2.718)
    """
    clock = check_times(times)
    if substeps < 1:
        raise ConfigError(f"substeps={substeps}: it must be at least 1")
    states = [x]
    for start, end in zip(clock[:-1].tolist(), clock[1:].tolist(), strict=True):
        x = advance(field, states[-1], end - start, substeps, tableau)
        if not bool(torch.isfinite(x).all()):
            raise blown_up(start, end, states[-1])
        states.append(x)
    return torch.stack(states)


def blown_up(start: float, end: float, state: Tensor) -> ConvergenceError:
    """Return the error of a roll-out whose state is not finite at ``end``, with that at ``start``."""
    flat = state.detach().flatten()
    largest = int(flat.abs().argmax())
    shown = ", ".join(f"{value:.4g}" for value in flat[:6].tolist()) + (", ..." if len(flat) > 6 else "")
    return ConvergenceError(
        f"the roll-out is not finite at t={end:.6g}; at t={start:.6g} the state was ({shown}), largest entry "
        f"{float(flat[largest]):.4g}: a polynomial field leaves its data's range fast, start within it, take more "
        "substeps, or end before"
    )
