"""Functions with fronts and peaks, and the derivatives that right-hand sides need."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

__all__ = ["Arcs", "Fronts", "Layer", "Peaks", "PlanePeaks", "Rotating"]


class _Terms:
    """A sum of terms of which each has one number of every attribute."""

    @cached_property
    def _parts(self) -> list[np.ndarray]:
        return [np.array(getattr(self, part.name)) for part in fields(self)]  # type: ignore[arg-type]


def _squares(x: np.ndarray, y: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Of distances of points to centres, shape (..., n)."""
    dx, dy = (np.asarray(part)[..., None] - c for part, c in zip((x, y), centres.T, strict=True))
    return dx**2 + dy**2


@dataclass(frozen=True)
class Fronts(_Terms):
    """sum_i a_i tanh(k_i (x - c_i)).

    Attributes
    ----------
    heights, steepness, centres : tuple of float
        a, k, c.
    """

    heights: tuple[float, ...]
    steepness: tuple[float, ...]
    centres: tuple[float, ...]

    def _terms(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        a, k, c = self._parts
        return a, k, np.tanh(k * (np.asarray(x)[..., None] - c))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Evaluate."""
        a, _, t = self._terms(x)
        return t @ a

    def slope(self, x: np.ndarray) -> np.ndarray:
        """First derivative."""
        a, k, t = self._terms(x)
        return (1 - t**2) @ (a * k)

    def curvature(self, x: np.ndarray) -> np.ndarray:
        """Second derivative."""
        a, k, t = self._terms(x)
        return (t * (1 - t**2)) @ (-2 * a * k**2)


@dataclass(frozen=True)
class Peaks(_Terms):
    """sum_i a_i exp(-(x - c_i)^2 / (2 s_i^2)).

    Attributes
    ----------
    heights, widths, centres : tuple of float
        a, s, c.
    """

    heights: tuple[float, ...]
    widths: tuple[float, ...]
    centres: tuple[float, ...]

    def _terms(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        a, s, c = self._parts
        z = (np.asarray(x)[..., None] - c) / s
        return z, s, a * np.exp(-0.5 * z**2)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Evaluate."""
        return self._terms(x)[2].sum(axis=-1)

    def slope(self, x: np.ndarray) -> np.ndarray:
        """First derivative."""
        z, s, g = self._terms(x)
        return (-z / s * g).sum(axis=-1)

    def curvature(self, x: np.ndarray) -> np.ndarray:
        """Second derivative."""
        z, s, g = self._terms(x)
        return ((z**2 - 1) / s**2 * g).sum(axis=-1)


@dataclass(frozen=True)
class Layer:
    """x - (e^((x - 1) / eps) - e^(-1 / eps)) / (1 - e^(-1 / eps)): - eps u'' + u' = 1, u(0) = u(1) = 0.

    Attributes
    ----------
    width : float
        eps.
    """

    width: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Evaluate."""
        end = np.exp(-1 / self.width)
        return x - (np.exp((np.asarray(x) - 1) / self.width) - end) / (1 - end)


@dataclass(frozen=True)
class Arcs(_Terms):
    """sum_i a_i tanh(k_i (|x - c_i| - r_i)) in the plane: fronts along circles.

    Attributes
    ----------
    heights, steepness, radii : tuple of float
        a, k, r.
    centres : tuple of (float, float)
        c, not within the domain, where the function has no derivatives there.
    """

    heights: tuple[float, ...]
    steepness: tuple[float, ...]
    radii: tuple[float, ...]
    centres: tuple[tuple[float, float], ...]

    def _terms(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        a, k, r, c = self._parts
        distance = np.sqrt(_squares(x, y, c))
        return a, k, distance, np.tanh(k * (distance - r))

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Evaluate."""
        a, _, _, t = self._terms(x, y)
        return t @ a

    def minus_laplacian(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """-(u_xx + u_yy)."""
        a, k, distance, t = self._terms(x, y)
        return ((1 - t**2) * (2 * k * t - 1 / distance)) @ (a * k)


@dataclass(frozen=True)
class PlanePeaks(_Terms):
    """sum_i a_i exp(-|x - c_i|^2 / (2 s_i^2)) in the plane.

    Attributes
    ----------
    heights, widths : tuple of float
        a, s.
    centres : tuple of (float, float)
        c.
    """

    heights: tuple[float, ...]
    widths: tuple[float, ...]
    centres: tuple[tuple[float, float], ...]

    def _terms(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        a, s, c = self._parts
        square = _squares(x, y, c) / s**2
        return square, s, a * np.exp(-0.5 * square)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Evaluate."""
        return self._terms(x, y)[2].sum(axis=-1)

    def minus_laplacian(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """-(u_xx + u_yy)."""
        square, s, g = self._terms(x, y)
        return ((2 - square) / s**2 * g).sum(axis=-1)


@dataclass(frozen=True)
class Rotating:
    """A function of the plane that turns round a point counter-clockwise with angular velocity w.

    Attributes
    ----------
    start : callable
        u(x, y) at time 0.
    speed : float
        w.
    centre : (float, float)
    """

    start: Callable[[np.ndarray, np.ndarray], np.ndarray]
    speed: float = 1.0
    centre: tuple[float, float] = (0.5, 0.5)

    def __call__(self, x: np.ndarray, y: np.ndarray, t: float = 0.0) -> np.ndarray:
        """Evaluate at a time."""
        c, s = np.cos(self.speed * t), np.sin(self.speed * t)
        dx, dy = x - self.centre[0], y - self.centre[1]
        return self.start(self.centre[0] + c * dx + s * dy, self.centre[1] - s * dx + c * dy)

    def velocity_x(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """First component of the flow."""
        return -self.speed * (y - self.centre[1])

    def velocity_y(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Second component of the flow."""
        return self.speed * (x - self.centre[0])
