"""Domains: plane regions with piecewise smooth boundaries, and set operations on them.

A domain is known in two ways: a function ``phi`` that is negative inside, positive outside (not a
distance in general), and the arcs that make up its boundary, which give closest points and normals
to round-off. Set operations combine the first by min and max and trim the second against each
other.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from sciml.errors import ConfigError, GeometryError
from sciml.registry import Registry

from .curves import Arc, PolarCurve, Segment

__all__ = ["BoundaryPoints", "Box", "Disk", "Domain", "Star", "domain_registry"]

domain_registry: Registry[Callable[[], "Domain"]] = Registry("domain")
"""Factories of the domains that the command line knows by name."""


@dataclass(frozen=True)
class BoundaryPoints:
    """Points on a boundary: positions and outward unit normals (m, 2), index of the arc (m,)."""

    points: np.ndarray
    normals: np.ndarray
    piece: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "BoundaryPoints":
        """Return the points chosen by indices or truth values."""
        return BoundaryPoints(self.points[chosen], self.normals[chosen], self.piece[chosen])

    def __add__(self, other: "BoundaryPoints") -> "BoundaryPoints":
        pairs = ((self.points, other.points), (self.normals, other.normals), (self.piece, other.piece))
        return BoundaryPoints(*map(np.concatenate, pairs))


class Domain(ABC):
    """A bounded open region of the plane."""

    dim = 2

    @abstractmethod
    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return a function that is negative exactly inside, shape (..., 2) to (...)."""

    @abstractmethod
    def arcs(self) -> tuple[Arc, ...]:
        """Return the smooth pieces of the boundary."""

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return whether points lie inside, shape (..., 2) to (...)."""
        return self.phi(np.asarray(points, dtype=float)) < 0

    def __or__(self, other: "Domain") -> "Domain":
        return Union(self, other)

    def __and__(self, other: "Domain") -> "Domain":
        return Intersection(self, other)

    def __sub__(self, other: "Domain") -> "Domain":
        return Difference(self, other)

    @cached_property
    def _arcs(self) -> tuple[Arc, ...]:
        arcs = self.arcs()
        if not arcs:
            raise GeometryError(f"domain {self} is empty: its operands do not overlap as the operation needs")
        return arcs

    @cached_property
    def _samples(self) -> tuple[cKDTree, np.ndarray, np.ndarray, np.ndarray]:
        """Dense boundary samples: tree, arc index, parameter, and parameter step of each arc."""
        lengths = [arc.length_table()[1][-1] for arc in self._arcs]
        parameters = [arc.equispaced(sum(lengths) / 8192) for arc in self._arcs]
        points = np.concatenate([a.curve.point(t) for a, t in zip(self._arcs, parameters, strict=True)])
        if np.abs(self.phi(points)).max() > 1e-7 * np.ptp(points, axis=0).max():
            raise GeometryError(
                f"the boundary of {self} cannot be resolved: it has features below 1/1000 of its size"
            )
        piece = np.repeat(np.arange(len(parameters)), [len(t) for t in parameters])
        steps = np.array([np.diff(t).max() for t in parameters])
        return cKDTree(points), piece, np.concatenate(parameters), steps

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner of the bounding box, each of shape (2,)."""
        points = self._samples[0].data
        return points.min(axis=0), points.max(axis=0)

    def boundary(self, spacing: float) -> BoundaryPoints:
        """Return boundary points at equal arc lengths of at most ``spacing`` on every arc.

        A corner appears once for each arc that ends there, with that arc's normal.
        """
        parameters = [arc.equispaced(spacing) for arc in self._arcs]
        return BoundaryPoints(
            np.concatenate([arc.curve.point(t) for arc, t in zip(self._arcs, parameters, strict=True)]),
            np.concatenate([arc.normal(t) for arc, t in zip(self._arcs, parameters, strict=True)]),
            np.repeat(np.arange(len(parameters)), [len(t) for t in parameters]),
        )

    def closest_point(self, points: np.ndarray) -> BoundaryPoints:
        """Return the boundary points closest to points of shape (m, 2).

        Nearest of a dense boundary sample, then Newton on the parameter of its arc.
        """
        tree, sample_piece, parameters, steps = self._samples
        # Arcs share their corners: the nearest sample may be the end of the wrong one.
        candidates = tree.query(points, k=3)[1].T
        best = np.full(len(points), np.inf)
        feet, normals = np.empty_like(points), np.empty_like(points)
        piece = np.zeros(len(points), dtype=int)
        for nearest in candidates:
            for index, arc in enumerate(self._arcs):
                mine = np.flatnonzero(sample_piece[nearest] == index)
                if len(mine) == 0:
                    continue
                t = arc.closest(points[mine], parameters[nearest[mine]], 1.5 * steps[index])
                foot = arc.curve.point(t)
                distance = np.linalg.norm(points[mine] - foot, axis=1)
                closer = distance < best[mine]
                update = mine[closer]
                best[update], feet[update], piece[update] = distance[closer], foot[closer], index
                normals[update] = arc.normal(t[closer])
        return BoundaryPoints(feet, normals, piece)


def _per_mode(value: float | tuple) -> tuple:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


@domain_registry.register("star")
@dataclass(frozen=True)
class Star(Domain):
    """The region r < radius + sum_k amplitude_k cos(petals_k theta - phase_k) around a centre.

    The defaults are Johansen and Colella's six-petal star (J. Comput. Phys. 147, 1998, problem 1).

    Parameters
    ----------
    radius : float
        Mean radius.
    amplitude, petals, phase : float or tuple
        One value, or one per mode.
    center : tuple of float

    Raises
    ------
    GeometryError
        If the amplitudes add up to the radius or more: the curve could pass through its centre.

    Examples
    --------
    >>> star = Star(radius=0.3, amplitude=(0.1, 0.02), petals=(3, 5), phase=(0.0, 1.0))
    >>> bool(star.contains(np.array([0.39, 0.0])))
    True
    """

    radius: float = 0.30
    amplitude: float | tuple[float, ...] = 0.15
    petals: int | tuple[int, ...] = 6
    phase: float | tuple[float, ...] = 0.0
    center: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        count = len(_per_mode(self.amplitude))
        phase = _per_mode(self.phase)
        if len(phase) == 1:
            object.__setattr__(self, "phase", phase * count)
        if len(_per_mode(self.petals)) != count or len(_per_mode(self.phase)) != count:
            raise ConfigError(
                f"star amplitude={self.amplitude}, petals={self.petals}, phase={self.phase}: "
                "give one of each per mode"
            )
        if not all(k == int(k) and k >= 1 for k in _per_mode(self.petals)):
            raise ConfigError(
                f"star petals={self.petals}: give positive integers, or the curve does not close"
            )
        total = sum(abs(a) for a in _per_mode(self.amplitude))
        if not 0 <= total < self.radius:
            raise GeometryError(
                f"star amplitude={self.amplitude}: the amplitudes must add up to less than radius={self.radius}"
            )

    @cached_property
    def _curve(self) -> PolarCurve:
        modes = map(_per_mode, (self.amplitude, self.petals, self.phase))
        return PolarCurve(self.center, self.radius, *modes)

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return |x - centre| - r(theta)."""
        x, y = points[..., 0] - self.center[0], points[..., 1] - self.center[1]
        return np.hypot(x, y) - self._curve.radii(np.arctan2(y, x))[0]

    def arcs(self) -> tuple[Arc, ...]:
        """Return the one closed arc."""
        return (Arc(self._curve, 0.0, 2 * np.pi, closed=True),)


@domain_registry.register("disk")
@dataclass(frozen=True)
class Disk(Domain):
    """The disk |x - center| < radius.

    Examples
    --------
    >>> foot = Disk(radius=2.0).closest_point(np.array([[0.5, 0.0]]))
    >>> bool(np.allclose(foot.points, [[2.0, 0.0]]) and np.allclose(foot.normals, [[1.0, 0.0]]))
    True
    """

    radius: float = 0.4
    center: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise GeometryError(f"disk radius={self.radius}: it must be positive")

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return the signed distance."""
        return np.hypot(points[..., 0] - self.center[0], points[..., 1] - self.center[1]) - self.radius

    def arcs(self) -> tuple[Arc, ...]:
        """Return the one closed arc."""
        return (Arc(PolarCurve(self.center, self.radius, (), (), ()), 0.0, 2 * np.pi, closed=True),)


@domain_registry.register("box")
@dataclass(frozen=True)
class Box(Domain):
    """The rectangle lower < x < upper.

    Examples
    --------
    >>> (Box() - Disk(0.1)).contains(np.array([[0.0, 0.0], [0.2, 0.2]])).tolist()
    [False, True]
    """

    lower: tuple[float, float] = (-0.4, -0.4)
    upper: tuple[float, float] = (0.4, 0.4)

    def __post_init__(self) -> None:
        if not all(a < b for a, b in zip(self.lower, self.upper, strict=True)):
            raise GeometryError(
                f"box from {self.lower} to {self.upper} is empty: each lower must be below upper"
            )

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return the largest of the four signed distances to the sides' lines."""
        return np.maximum(np.asarray(self.lower) - points, points - np.asarray(self.upper)).max(axis=-1)

    def arcs(self) -> tuple[Arc, ...]:
        """Return the sides: bottom, right, top, left."""
        (x0, y0), (x1, y1) = self.lower, self.upper
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
        return tuple(Arc(Segment(a, b), 0.0, 1.0) for a, b in itertools.pairwise(corners))


def _pieces(arc: Arc, other: Domain, outward: int) -> list[Arc]:
    """Cut an arc where it crosses another domain's boundary; the cuts are found by bisection."""
    t = np.linspace(arc.start, arc.stop, 2049)
    outside = other.phi(arc.curve.point(t)) > 0
    flips = np.flatnonzero(outside[1:] != outside[:-1])
    low, high, before = t[flips], t[flips + 1], outside[flips]
    for _ in range(60):
        middle = 0.5 * (low + high)
        same = (other.phi(arc.curve.point(middle)) > 0) == before
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    cuts = 0.5 * (low + high)
    if len(cuts) == 0:
        return [Arc(arc.curve, arc.start, arc.stop, arc.closed, arc.outward * outward)]
    if arc.closed:
        cuts = np.append(cuts, cuts[0] + (arc.stop - arc.start))
    else:
        cuts = np.concatenate([[arc.start], cuts, [arc.stop]])
    shortest = 1e-12 * (arc.stop - arc.start)
    return [
        Arc(arc.curve, a, b, False, arc.outward * outward)
        for a, b in itertools.pairwise(cuts)
        if b - a > shortest
    ]


@dataclass(frozen=True)
class SetOperation(Domain):
    """Two domains combined."""

    left: Domain
    right: Domain

    def _combine(self, right_outward: int) -> tuple[Arc, ...]:
        """Return the pieces of both boundaries across which the combination changes from in to out.

        Where both boundaries coincide, the left one stands for both.
        """
        kept = []
        sides = ((self.left, self.right, 1), (self.right, self.left, right_outward))
        for mine, other, outward in sides:
            for arc in (piece for whole in mine.arcs() for piece in _pieces(whole, other, outward)):
                middle = np.array([0.5 * (arc.start + arc.stop)])
                x, step = arc.curve.point(middle), 1e-7 * arc.normal(middle)
                coincident = mine is self.right and abs(other.phi(x)[0]) < 1e-12
                if self.phi(x - step)[0] < 0 < self.phi(x + step)[0] and not coincident:
                    kept.append(arc)
        return tuple(kept)


class Union(SetOperation):
    """Points in either domain."""

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return the minimum of both."""
        return np.minimum(self.left.phi(points), self.right.phi(points))

    def arcs(self) -> tuple[Arc, ...]:
        """Return each boundary outside the other domain."""
        return self._combine(1)


class Intersection(SetOperation):
    """Points in both domains."""

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return the maximum of both."""
        return np.maximum(self.left.phi(points), self.right.phi(points))

    def arcs(self) -> tuple[Arc, ...]:
        """Return each boundary inside the other domain."""
        return self._combine(1)


class Difference(SetOperation):
    """Points of the first domain that are not in the second."""

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return the maximum of the first and the negative of the second."""
        return np.maximum(self.left.phi(points), -self.right.phi(points))

    def arcs(self) -> tuple[Arc, ...]:
        """Return the first boundary outside the second domain, and the second inside the first."""
        return self._combine(-1)
