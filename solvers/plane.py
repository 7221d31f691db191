"""Plane domains: regions bounded by arcs of smooth curves."""

import itertools
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from sciml.errors import ConfigError, GeometryError

from .curves import Arc, EllipseCurve, ParametricCurve, PolarCurve, Segment, SplineCurve
from .domains import BoundaryPoints, Domain, domain_registry

__all__ = ["Annulus", "Box", "Disk", "Ellipse", "Parametric", "PlaneDomain", "Polygon", "Spline", "Star"]


class PlaneDomain(Domain):
    """A region of the plane whose boundary is made of arcs.

    A subclass must give its `arcs`; if it knows a cheap function that is negative exactly inside, it
    overrides `phi`, which is the signed distance otherwise.
    """

    @property
    def dim(self) -> int:
        """Two."""
        return 2

    @abstractmethod
    def arcs(self) -> tuple[Arc, ...]:
        """Return the smooth pieces of the boundary."""

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return the signed distance, exact near the boundary and to within its samples further off."""
        flat = np.asarray(points, dtype=float).reshape(-1, 2)
        tree, *_ = self._samples
        distance, nearest = tree.query(flat)
        foot, normal = tree.data[nearest], self._sample_normals[nearest]
        near = np.flatnonzero(distance < 4 * self._resolution)
        closest = self.closest_point(flat[near])
        # At a corner the sum of both normals tells the sides apart; one of them does not.
        gap, sample = tree.query(closest.points)
        at_corner = (gap < 1e-9 * self._resolution) & self._at_corner[sample]
        foot[near] = closest.points
        normal[near] = np.where(at_corner[:, None], self._sample_normals[sample], closest.normals)
        sign = np.sign(np.sum((flat - foot) * normal, axis=1))
        return (sign * np.linalg.norm(flat - foot, axis=1)).reshape(np.shape(points)[:-1])

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
        known = type(self).phi is not PlaneDomain.phi
        if known and np.abs(self.phi(points)).max() > 1e-7 * np.ptp(points, axis=0).max():
            raise GeometryError(
                f"the boundary of {self} cannot be resolved: it has features below 1/1000 of its size"
            )
        piece = np.repeat(np.arange(len(parameters)), [len(t) for t in parameters])
        steps = np.array([np.diff(t).max() for t in parameters])
        return cKDTree(points), piece, np.concatenate(parameters), steps

    @cached_property
    def _resolution(self) -> float:
        """Largest distance of neighbouring dense samples."""
        return sum(float(arc.length_table()[1][-1]) for arc in self._arcs) / 8192

    @cached_property
    def _at_corner(self) -> np.ndarray:
        """Whether a dense sample is the end of an arc, shape (samples,)."""
        _, piece, parameters, _ = self._samples
        ends = np.array([[-np.inf] * 2 if arc.closed else [arc.start, arc.stop] for arc in self._arcs])[piece]
        return np.isclose(parameters[:, None], ends, rtol=0, atol=1e-14).any(axis=1)

    @cached_property
    def _sample_normals(self) -> np.ndarray:
        """Normals at the dense samples, at corners the sum of both, shape (samples, 2)."""
        tree, piece, parameters, _ = self._samples
        normals = np.empty((len(piece), 2))
        for index, arc in enumerate(self._arcs):
            normals[piece == index] = arc.normal(parameters[piece == index])
        corners = np.flatnonzero(self._at_corner)
        around = tree.query_ball_point(tree.data[corners], 1e-9 * self._resolution)
        sums = [normals[group].sum(axis=0) for group in around]
        for corner, total in zip(corners, sums, strict=True):
            normals[corner] = total
        return normals

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
        first = candidates[0]
        for number, nearest in enumerate(candidates):
            # A neighbouring sample of the same arc leads to the same foot.
            apart = np.abs(parameters[nearest] - parameters[first]) > 1.5 * steps[sample_piece[first]]
            other = (sample_piece[nearest] != sample_piece[first]) | apart
            for index, arc in enumerate(self._arcs):
                mine = np.flatnonzero((sample_piece[nearest] == index) & (other | (number == 0)))
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
class Star(PlaneDomain):
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
class Disk(PlaneDomain):
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
class Box(PlaneDomain):
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


@domain_registry.register("ellipse")
@dataclass(frozen=True)
class Ellipse(PlaneDomain):
    """The ellipse with given semi-axes, turned counterclockwise by an angle.

    Examples
    --------
    >>> foot = Ellipse((0.4, 0.1)).closest_point(np.array([[0.0, 0.3]]))
    >>> bool(np.allclose(foot.points, [[0.0, 0.1]]))
    True
    """

    semi_axes: tuple[float, float] = (0.4, 0.1)
    center: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0

    def __post_init__(self) -> None:
        if not min(self.semi_axes) > 0:
            raise GeometryError(f"ellipse semi_axes={self.semi_axes}: both must be positive")

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return (|S x| - 1) times the shorter semi-axis, S the map onto the unit disk."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        turned = (points - np.asarray(self.center)) @ np.array([[c, -s], [s, c]])
        return (np.linalg.norm(turned / np.asarray(self.semi_axes), axis=-1) - 1) * min(self.semi_axes)

    def arcs(self) -> tuple[Arc, ...]:
        """Return the one closed arc."""
        return (Arc(EllipseCurve(self.center, self.semi_axes, self.angle), 0.0, 2 * np.pi, closed=True),)


@domain_registry.register("annulus")
@dataclass(frozen=True)
class Annulus(PlaneDomain):
    """The ring inner < |x - center| < outer.

    Examples
    --------
    >>> Annulus(0.2, 0.4).contains(np.array([[0.1, 0.0], [0.3, 0.0]])).tolist()
    [False, True]
    """

    inner: float = 0.2
    outer: float = 0.4
    center: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not 0 < self.inner < self.outer:
            raise GeometryError(f"annulus inner={self.inner}, outer={self.outer}: give 0 < inner < outer")

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return the signed distance."""
        r = np.hypot(points[..., 0] - self.center[0], points[..., 1] - self.center[1])
        return np.maximum(r - self.outer, self.inner - r)

    def arcs(self) -> tuple[Arc, ...]:
        """Return the outer and the inner circle."""
        circles = [PolarCurve(self.center, r, (), (), ()) for r in (self.outer, self.inner)]
        return (
            Arc(circles[0], 0.0, 2 * np.pi, closed=True),
            Arc(circles[1], 0.0, 2 * np.pi, closed=True, outward=-1),
        )


@dataclass(frozen=True)
class Polygon(PlaneDomain):
    """The polygon with given vertices, in either direction; the first may be repeated at the end.

    Raises
    ------
    GeometryError
        If sides cross.

    Examples
    --------
    >>> Polygon(((0, 0), (1, 0), (0, 1))).contains(np.array([[0.2, 0.2], [0.6, 0.6]])).tolist()
    [True, False]
    """

    vertices: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "vertices", _open_chain(self.vertices, "polygon vertices"))
        if len(self.vertices) < 3:
            raise GeometryError(f"polygon vertices={self.vertices}: give at least three")
        _orientation(np.asarray(self.vertices), "polygon")

    def arcs(self) -> tuple[Arc, ...]:
        """Return the sides, in the order of the vertices."""
        corners = list(self.vertices)
        outward = _orientation(np.asarray(corners), "polygon")
        sides = zip(corners, corners[1:] + corners[:1], strict=True)
        return tuple(Arc(Segment(a, b), 0.0, 1.0, outward=outward) for a, b in sides)


@dataclass(frozen=True)
class Spline(PlaneDomain):
    """The region inside the periodic spline through given points, in either direction.

    Parameters
    ----------
    points : tuple of (x, y)
        At least degree + 1; the first may be repeated at the end.
    degree : {3, 5}
        3: continuous curvature; 5: four continuous derivatives.

    Raises
    ------
    GeometryError
        If the curve crosses itself.

    Examples
    --------
    >>> angles = 2 * np.pi * np.arange(12) / 12
    >>> disk = Spline(tuple(zip(0.4 * np.cos(angles), 0.4 * np.sin(angles))))
    >>> bool(abs(np.linalg.norm(disk.boundary(0.01).points, axis=1) - 0.4).max() < 1e-4)
    True
    """

    points: tuple[tuple[float, float], ...]
    degree: int = 5

    def __post_init__(self) -> None:
        if self.degree not in (3, 5):
            raise ConfigError(f"spline degree={self.degree}: choose 3 or 5")
        object.__setattr__(self, "points", _open_chain(self.points, "spline points"))
        if len(self.points) < self.degree + 1:
            raise GeometryError(f"spline with {len(self.points)} points: give at least {self.degree + 1}")
        self.arcs()

    def arcs(self) -> tuple[Arc, ...]:
        """Return the one closed arc."""
        curve = SplineCurve(self.points, self.degree)
        outward = _orientation(curve.point(np.linspace(0, 1, 513)[:-1]), "spline")
        return (Arc(curve, 0.0, 1.0, closed=True, outward=outward),)


@dataclass(frozen=True)
class Parametric(PlaneDomain):
    """The region inside a closed chain of parametric curves, corners where they meet.

    Parameters
    ----------
    pieces : tuple of (x, y)
        Expressions of t as text, each for 0 <= t <= 1. Each curve begins where the one before ends,
        the first where the last ends; a single closed curve with equal tangents has no corner.

    Raises
    ------
    GeometryError
        If the chain is not closed or crosses itself.

    Examples
    --------
    >>> half_disk = Parametric((("cos(pi*t)", "sin(pi*t)"), ("2*t - 1", "0")))
    >>> half_disk.contains(np.array([[0.0, 0.5], [0.0, -0.5]])).tolist()
    [True, False]
    """

    pieces: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        self.arcs()

    def arcs(self) -> tuple[Arc, ...]:
        """Return the pieces."""
        curves = [ParametricCurve(x, y) for x, y in self.pieces]
        t = np.linspace(0, 1, 513)
        points = [curve.point(t) for curve in curves]
        size = np.ptp(np.concatenate(points), axis=0).max()
        for number, (mine, following) in enumerate(zip(points, points[1:] + points[:1], strict=True)):
            if np.linalg.norm(mine[-1] - following[0]) > 1e-9 * size:
                raise GeometryError(
                    f"parametric piece {number} ends at {mine[-1].tolist()}, but the next begins at "
                    f"{following[0].tolist()}: make the chain closed"
                )
        outward = _orientation(np.concatenate([p[:-1] for p in points]), "parametric curve")
        ends = curves[0].derivatives(np.array([0.0, 1.0]))[1]
        smooth = len(curves) == 1 and np.allclose(ends[0], ends[1], rtol=1e-9)
        return tuple(Arc(curve, 0.0, 1.0, smooth, outward) for curve in curves)


def _open_chain(points: object, name: str) -> tuple[tuple[float, float], ...]:
    """Points of a closed chain, each once."""
    array = np.array(points, dtype=float)
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise GeometryError(f"{name} of shape {array.shape}: give pairs of finite numbers (x, y)")
    if len(array) > 1 and (array[0] == array[-1]).all():
        array = array[:-1]
    twice = (array == np.roll(array, -1, axis=0)).all(axis=1)
    if len(array) > 1 and twice.any():
        raise GeometryError(f"{name}: {array[np.argmax(twice)].tolist()} comes twice in a row; leave one out")
    return tuple((float(x), float(y)) for x, y in array)


def _orientation(points: np.ndarray, name: str) -> int:
    """Return 1 for a closed polygon that runs counterclockwise, -1 for clockwise; refuse crossings."""
    a, b = points, np.roll(points, -1, axis=0)

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        return (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (
            r[..., 0] - p[..., 0]
        )

    c, d = a[:, None], b[:, None]
    proper = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    if proper.any():
        i, j = np.argwhere(proper)[0]
        p, q = side(c[j, 0], d[j, 0], a[i]), side(c[j, 0], d[j, 0], b[i])
        where = a[i] + p / (p - q) * (b[i] - a[i])
        raise GeometryError(f"{name} crosses itself near {np.round(where, 4).tolist()}: give a simple curve")
    area = float(np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]))
    if area == 0:
        raise GeometryError(f"{name} encloses no area: check its points")
    return 1 if area > 0 else -1
