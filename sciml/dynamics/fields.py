"""The interface of everything that moves: dx/dt = f(t, x), or dx = drift dt + diffusion dw.

A learned model, a recipe's right-hand side and the probability-flow ODE of a score model are all callables f(t, x), and
the integrators of `sciml.solvers.timestepping` run them, forward or backward in time.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers.timestepping import DORMAND_PRINCE, RK4, Tableau, explicit_system, integrate

__all__ = ["DriftDiffusion", "VectorField", "integrate_field", "integrate_sde"]

Array = Any  # NumPy array or torch tensor


@runtime_checkable
class VectorField(Protocol):
    """The right-hand side of an ODE."""

    def __call__(self, t: float, x: Array) -> Array:
        """Return dx/dt, of the shape of x."""


@runtime_checkable
class DriftDiffusion(Protocol):
    """The terms of an SDE dx = drift dt + diffusion dw, in the sense of Ito."""

    def drift(self, t: float, x: Array) -> Array:
        """Return the drift, of the shape of x."""

    def diffusion(self, t: float, x: Array) -> Array:
        """Return the factors of independent noise, a number or an array that multiplies one like x."""


def integrate_field(
    field: VectorField,
    x: Array,
    times: Sequence[float] | np.ndarray,
    *,
    step: float | None = None,
    tolerance: float | tuple[float, float] | None = None,
    tableau: Tableau | None = None,
    progress: bool = False,
) -> list[Array]:
    """Integrate dx/dt = f(t, x) through times that grow or fall.

    Parameters
    ----------
    field : VectorField
    x : array, any shape
        At times[0].
    times : sequence of float
    step, tolerance
        Length of fixed steps, or (rtol, atol) of adaptive ones: see `sciml.solvers.timestepping.integrate`.
    tableau : Tableau, optional
        An explicit method; RK4 for fixed and Dormand-Prince for adaptive steps by default.
    progress : bool

    Returns
    -------
    list of array
        The state at each time.

    Raises
    ------
    ConfigError
        If an argument cannot be used.
    ConvergenceError
        If the state is no longer finite.

    Examples
    --------
    >>> backward = integrate_field(lambda t, x: x, np.ones(1), [1.0, 0.0], step=0.01)
    >>> round(float(backward[-1][0]), 8), round(float(np.exp(-1)), 8)
    (0.36787944, 0.36787944)
    """
    grid = np.asarray(times, float)
    if grid.ndim != 1 or len(grid) < 2:
        raise ConfigError(f"times={times}: give two or more")
    if not ((np.diff(grid) > 0).all() or (np.diff(grid) < 0).all()):
        raise ConfigError(f"times={times}: they must all grow, or all fall")
    sign = -1.0 if grid[1] < grid[0] else 1.0
    if tableau is None:
        tableau = DORMAND_PRINCE if step is None else RK4
    # Backward in t is forward in -t.
    system = explicit_system(lambda t, x: sign * field(sign * t, x))
    run = integrate(
        *(system, x, sign * grid),
        step=step,
        tolerance=tolerance,
        tableau=tableau,
        progress=progress,
        norm=_size if isinstance(x, Tensor) else None,
    )
    try:
        return [state for _, state, _ in run]
    except ConvergenceError as error:
        if sign > 0:
            raise
        raise ConvergenceError(re.sub(r"t=(-?)", lambda m: "t=" if m[1] else "t=-", str(error))) from error


def _size(values: Tensor) -> float:
    """Root mean square, without a gradient: the size of steps is not differentiated."""
    return float(values.detach().abs().square().mean().sqrt())


def integrate_sde(
    sde: DriftDiffusion,
    x: Array,
    times: Sequence[float] | np.ndarray,
    noise: Callable[[int, Array], Array],
) -> Array:
    """Integrate an SDE by Euler and Maruyama's steps, one from each time to the next; they may fall.

    Of strong order 1/2 and weak order 1.

    Parameters
    ----------
    sde : DriftDiffusion
    x : array, any shape
    times : sequence of float
    noise : callable
        ``noise(step, x)``, standard normal like x, such as `sciml.sampling.SampleNoise`.

    Returns
    -------
    array
        The last state.

    Raises
    ------
    ConfigError
        If there are fewer than two times, or they do not all grow or all fall.
    ConvergenceError
        If the state is no longer finite.
    """
    grid = [float(t) for t in times]
    steps = np.diff(grid)
    if len(grid) < 2 or not ((steps > 0).all() or (steps < 0).all()):
        raise ConfigError(f"times={times}: give two or more that all grow, or all fall")
    for number, (t, later) in enumerate(itertools.pairwise(grid)):
        dt = later - t
        kick = abs(dt) ** 0.5 * sde.diffusion(t, x) * noise(number, x)
        x = x + dt * sde.drift(t, x) + kick
        if not np.isfinite(float(x.sum())):
            raise ConvergenceError(
                f"the state is not finite after step {number + 1}, t={later:.6g}: take shorter steps"
            )
    return x
