"""Parametrised plane curves and the arcs cut out of them.

A curve c(t) runs counterclockwise around the region that it bounds, so that the outward normal is
(c_y', -c_x') / |c'|.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.interpolate import BSpline, make_interp_spline

from .functions import Expression

__all__ = ["Arc", "Curve", "EllipseCurve", "ParametricCurve", "PolarCurve", "Segment", "SplineCurve"]

NEWTON_STEPS = 8


class Curve(ABC):
    """A smooth curve c(t) in the plane."""

    @abstractmethod
    def derivatives(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return c, c' and c'' at parameters of shape (...), each of shape (..., 2)."""

    def point(self, t: np.ndarray) -> np.ndarray:
        """Return c(t), shape (..., 2)."""
        return self.derivatives(t)[0]

    def normal(self, t: np.ndarray) -> np.ndarray:
        """Return the unit normal to the right of the direction of travel, shape (..., 2)."""
        tangent = self.derivatives(t)[1]
        normal = np.stack([tangent[..., 1], -tangent[..., 0]], axis=-1)
        return normal / np.linalg.norm(normal, axis=-1, keepdims=True)


@dataclass(frozen=True)
class PolarCurve(Curve):
    """r(t) = radius + sum_k amplitude_k cos(petals_k t - phase_k) around a centre, 0 <= t <= 2 pi."""

    center: tuple[float, float]
    radius: float
    amplitude: tuple[float, ...]
    petals: tuple[int, ...]
    phase: tuple[float, ...]

    def radii(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return r, r' and r'' at angles t."""
        r, r1, r2 = np.full(np.shape(t), self.radius), np.zeros(np.shape(t)), np.zeros(np.shape(t))
        for a, k, phase in zip(self.amplitude, self.petals, self.phase, strict=True):
            cosine, sine = np.cos(k * t - phase), np.sin(k * t - phase)
            r, r1, r2 = r + a * cosine, r1 - a * k * sine, r2 - a * k**2 * cosine
        return r, r1, r2

    def derivatives(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return c, c' and c''."""
        r, r1, r2 = (value[..., None] for value in self.radii(t))
        e = np.stack([np.cos(t), np.sin(t)], axis=-1)
        e1 = np.stack([-np.sin(t), np.cos(t)], axis=-1)
        return np.asarray(self.center) + r * e, r1 * e + r * e1, (r2 - r) * e + 2 * r1 * e1


@dataclass(frozen=True)
class EllipseCurve(Curve):
    """Centre + R (a cos t, b sin t), R the rotation by an angle, 0 <= t <= 2 pi."""

    center: tuple[float, float]
    semi_axes: tuple[float, float]
    angle: float

    def derivatives(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return c, c' and c''."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        axes = np.array([[c, s], [-s, c]]) * np.asarray(self.semi_axes)[:, None]
        radius = np.stack([np.cos(t), np.sin(t)], axis=-1) @ axes
        return np.asarray(self.center) + radius, np.stack([-np.sin(t), np.cos(t)], axis=-1) @ axes, -radius


@dataclass(frozen=True)
class SplineCurve(Curve):
    """The periodic spline of odd degree through points at the parameters of chord length, 0 <= t <= 1."""

    points: tuple[tuple[float, float], ...]
    degree: int

    @cached_property
    def _splines(self) -> tuple[BSpline, BSpline, BSpline]:
        points = np.array([*self.points, self.points[0]])
        chords = np.linalg.norm(np.diff(points, axis=0), axis=1)
        t = np.concatenate([[0.0], np.cumsum(chords)]) / chords.sum()
        spline = make_interp_spline(t, points, k=self.degree, bc_type="periodic")
        return spline, spline.derivative(), spline.derivative(2)

    def derivatives(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return c, c' and c''."""
        c, c1, c2 = (spline(np.mod(t, 1.0)) for spline in self._splines)
        return c, c1, c2


@dataclass(frozen=True)
class ParametricCurve(Curve):
    """(x(t), y(t)), expressions of t as text, 0 <= t <= 1."""

    x: str
    y: str

    @cached_property
    def _functions(self) -> list[list[Expression]]:
        import sympy

        t = sympy.Symbol("t", real=True)
        rows = [[Expression(self.x, (t,)), Expression(self.y, (t,))]]
        for _ in range(2):
            rows.append([Expression(sympy.diff(f.expression, t), (t,)) for f in rows[-1]])
        return rows

    def derivatives(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return c, c' and c''."""
        t = np.asarray(t, dtype=float)
        c, c1, c2 = (np.stack([f(t) for f in row], axis=-1) for row in self._functions)
        return c, c1, c2


@dataclass(frozen=True)
class Segment(Curve):
    """The straight line from a to b, 0 <= t <= 1."""

    a: tuple[float, float]
    b: tuple[float, float]

    def derivatives(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return c, c' and c''."""
        a, direction = np.asarray(self.a), np.subtract(self.b, self.a)
        t = np.asarray(t)[..., None]
        return a + t * direction, np.broadcast_to(direction, (*t.shape[:-1], 2)), np.zeros((*t.shape[:-1], 2))


@dataclass(frozen=True)
class Arc:
    """The part start <= t <= stop of a curve.

    Parameters
    ----------
    curve : Curve
    start, stop : float
        Parameter interval; it may run past one period of a closed curve.
    closed : bool
        Whether the arc returns to its start.
    outward : {1, -1}
        -1 where the region lies on the curve's other side (a hole).
    """

    curve: Curve
    start: float
    stop: float
    closed: bool = False
    outward: int = 1

    def normal(self, t: np.ndarray) -> np.ndarray:
        """Return the outward unit normal of the region at parameters t, shape (..., 2)."""
        return self.outward * self.curve.normal(t)

    def length_table(self) -> tuple[np.ndarray, np.ndarray]:
        """Return parameters and the arc length up to each."""
        t = np.linspace(self.start, self.stop, 2049)
        steps = np.linalg.norm(np.diff(self.curve.point(t), axis=0), axis=1)
        return t, np.concatenate([[0.0], np.cumsum(steps)])

    def equispaced(self, spacing: float) -> np.ndarray:
        """Return parameters at equal distances of at most ``spacing``, ends included."""
        t, length = self.length_table()
        count = max(int(np.ceil(length[-1] / spacing)), 3 if self.closed else 1)
        return np.interp(np.linspace(0.0, length[-1], count + 1)[: count if self.closed else None], length, t)

    def closest(self, points: np.ndarray, guess: np.ndarray, reach: float) -> np.ndarray:
        """Return the parameter of the closest point near a guess, by safeguarded Newton steps.

        Minimises |x - c(t)|^2 over |t - guess| <= reach, inside the arc.
        """
        low, high = guess - reach, guess + reach
        if not self.closed:
            low, high = np.maximum(low, self.start), np.minimum(high, self.stop)
        t = guess
        for _ in range(NEWTON_STEPS):
            c, c1, c2 = self.curve.derivatives(t)
            slope = np.sum((c - points) * c1, axis=-1)
            speed = np.sum(c1 * c1, axis=-1)
            # At the centre of curvature the Hessian vanishes; the reach bounds the step there.
            hessian = np.maximum(speed + np.sum((c - points) * c2, axis=-1), 1e-3 * speed)
            t, before = np.clip(t - slope / hessian, low, high), t
            if np.abs(t - before).max(initial=0.0) <= 1e-15 * (self.stop - self.start):
                break
        return t
