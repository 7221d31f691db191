"""Set operations on domains: union, intersection, difference.

Membership combines by min and max. The boundary of two plane domains is made of the arcs of both,
trimmed against each other. For other domains the boundary is where either boundary changes
membership, plus the edges where both meet; closest points are those of the operands where they
count, and points of the edges, found by Newton steps, where not.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from sciml.errors import GeometryError

from .curves import Arc
from .domains import BoundaryPoints, Domain
from .plane import PlaneDomain

__all__ = ["difference", "intersection", "union"]

EDGE_STEPS = 60
EXAMINED = 2049  # parameters of an arc looked at for crossings


def union(left: Domain, right: Domain) -> Domain:
    """Return the points in either domain."""
    return _combine(left, right, 1, 1)


def intersection(left: Domain, right: Domain) -> Domain:
    """Return the points in both domains."""
    return _combine(left, right, -1, 1)


def difference(left: Domain, right: Domain) -> Domain:
    """Return the points of the first domain that are not in the second."""
    return _combine(left, right, -1, -1)


def _combine(left: Domain, right: Domain, joined: int, outward: int) -> Domain:
    if left.dim != right.dim:
        raise GeometryError(
            f"set operation of a {left.dim}D and a {right.dim}D domain: they must have the same dimension"
        )
    if isinstance(left, PlaneDomain) and isinstance(right, PlaneDomain):
        return PlaneSetOperation(left, right, joined, outward)
    return SetOperation(left, right, joined, outward)


@dataclass(frozen=True)
class _Combined:
    """Membership of two domains combined.

    Parameters
    ----------
    left, right : Domain
    joined : {1, -1}
        1 for the union, -1 for the intersection.
    outward : {1, -1}
        -1 to take the complement of the right domain.
    """

    left: Domain
    right: Domain
    joined: int
    outward: int

    def __str__(self) -> str:
        sign = "|" if self.joined == 1 else "&" if self.outward == 1 else "-"
        return f"({self.left} {sign} {self.right})"

    @property
    def dim(self) -> int:
        """That of the operands."""
        return self.left.dim

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return the minimum or maximum of both, the right one with its sign."""
        choose = np.minimum if self.joined == 1 else np.maximum
        return choose(self.left.phi(points), self.outward * self.right.phi(points))


class SetOperation(_Combined, Domain):
    """Two domains of any kind combined."""

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounding box of the dense boundary samples."""
        points = self._samples[0].data
        return points.min(axis=0), points.max(axis=0)

    @cached_property
    def _samples(self) -> tuple[cKDTree, BoundaryPoints]:
        lower, upper = self.left.bounds
        other = self.right.bounds
        size = max(float((upper - lower).max()), float((other[1] - other[0]).max()))
        points = self.boundary(size / (64 if self.dim == 3 else 1024))
        if len(points.points) == 0:
            raise GeometryError(f"domain {self} is empty: its operands do not overlap as the operation needs")
        return cKDTree(points.points), points

    def _kept(self, mine: int, points: BoundaryPoints) -> np.ndarray:
        """Whether boundary points of an operand (0 left, 1 right) bound the combination."""
        other = (self.right, self.left)[mine].phi(points.points) * ((self.outward, 1)[mine])
        # Where both boundaries coincide the left one stands for both.
        rounding = 1e-12 * np.abs(other).max(initial=0.0)
        return np.asarray(self.joined * other > (0 if mine else -rounding))

    def _of_operand(self, mine: int, points: BoundaryPoints) -> BoundaryPoints:
        if mine == 0:
            return points
        return BoundaryPoints(points.points, self.outward * points.normals, points.piece + self._offset)

    @cached_property
    def _offset(self) -> int:
        """Number of the first piece of the right domain."""
        lower, upper = self.left.bounds
        return int(self.left.boundary(float((upper - lower).max()) / 64).piece.max()) + 1

    def boundary(self, spacing: float) -> BoundaryPoints:
        """Return the boundary points of both operands that bound the combination."""
        kept = []
        for mine, operand in enumerate((self.left, self.right)):
            points = operand.boundary(spacing)
            kept.append(self._of_operand(mine, points[self._kept(mine, points)]))
        return kept[0] + kept[1]

    def closest_point(self, points: np.ndarray) -> BoundaryPoints:
        """Return the closest of both operands' closest points that count, or else a point of an edge."""
        operands = (self.left, self.right)
        feet = [
            self._of_operand(mine, operand.closest_point(points)) for mine, operand in enumerate(operands)
        ]
        counts = np.stack([self._kept(mine, foot) for mine, foot in enumerate(feet)])
        distance = np.stack([np.linalg.norm(foot.points - points, axis=1) for foot in feet])
        near = distance.argmin(axis=0)
        every = np.arange(len(points))
        best = (feet[0] + feet[1])[every + near * len(points)]
        # No boundary point is closer than the closer operand: where its foot counts, that is the one.
        open_ = np.flatnonzero(~counts[near, every])
        if len(open_) == 0:
            return best
        x = points[open_]
        tree, samples = self._samples
        nearest = samples[tree.query(x)[1]]
        candidates, usable = [nearest], [np.ones(len(x), dtype=bool)]
        for mine, operand in enumerate(operands):
            # From the nearest sample that counts as well: the operand's closest point may be one that does not.
            other = self._of_operand(
                mine, operand.closest_point(nearest.points + 1e-3 * (x - nearest.points))
            )
            candidates += [feet[mine][open_], other]
            usable += [counts[mine, open_], self._kept(mine, other)]
        edge, met = self._edge_points(x, nearest.points)
        candidates, usable = [*candidates, edge], [*usable, met]
        gap = np.stack([np.linalg.norm(c.points - x, axis=1) for c in candidates])
        chosen = np.where(np.stack(usable), gap, np.inf).argmin(axis=0)
        for number, candidate in enumerate(candidates):
            won = np.flatnonzero(chosen == number)
            best.points[open_[won]] = candidate.points[won]
            best.normals[open_[won]] = candidate.normals[won]
            best.piece[open_[won]] = candidate.piece[won]
        return best

    def _edge_points(self, points: np.ndarray, start: np.ndarray) -> tuple[BoundaryPoints, np.ndarray]:
        """Closest points on the edges, where both boundaries meet, near a start; which were found."""
        p = start.copy()
        reach = np.ptp(self._samples[0].data, axis=0).max() / 32
        for _ in range(EDGE_STEPS):
            a, b = self.left.closest_point(p), self.right.closest_point(p)
            normal = np.stack([a.normals, b.normals], axis=1)
            to_feet = np.stack([a.points - p, b.points - p], axis=1)
            distance = np.sum(normal * to_feet, axis=2)
            # Least-norm step onto both boundaries, and along the edge towards the point.
            inverse = np.linalg.pinv(normal, rcond=1e-6)
            step = (inverse @ distance[..., None])[..., 0]
            towards = points - p
            along = towards - (inverse @ (normal @ towards[..., None]))[..., 0]
            length = np.linalg.norm(along, axis=1, keepdims=True)
            along *= np.minimum(1.0, reach / np.maximum(length, 1e-300))
            p = p + step + along
            if np.abs(step).max(initial=0.0) < 1e-15 and np.abs(along).max(initial=0.0) < 1e-13:
                break
        a, b = self.left.closest_point(p), self.right.closest_point(p)
        gap = np.linalg.norm(a.points - p, axis=1) + np.linalg.norm(b.points - p, axis=1)
        return a, gap < 1e-10 * np.ptp(self._samples[0].data, axis=0).max()


class PlaneSetOperation(_Combined, PlaneDomain):
    """Two plane domains combined: arcs of both, trimmed against each other."""

    def arcs(self) -> tuple[Arc, ...]:
        """Return the pieces of both boundaries across which the combination changes from in to out.

        Where both boundaries coincide, the left one stands for both.
        """
        kept = []
        sides = ((self.left, self.right, 1), (self.right, self.left, self.outward))
        for mine, other, outward in sides:
            assert isinstance(mine, PlaneDomain)
            assert isinstance(other, PlaneDomain)
            for arc in (piece for whole in mine.arcs() for piece in _pieces(whole, mine, other, outward)):
                middle = np.array([0.5 * (arc.start + arc.stop)])
                x, length = arc.curve.point(middle), float(arc.length_table()[1][-1])
                step = 1e-6 * length * arc.normal(middle)
                rounding = 1e-12 * length + 1e-15 * float(np.abs(x).max())
                coincident = mine is self.right and abs(other.phi(x)[0]) < rounding
                if self.phi(x - step)[0] < 0 < self.phi(x + step)[0] and not coincident:
                    kept.append(arc)
        return tuple(kept)


def _crossings(arc: Arc, other: Domain, t: np.ndarray) -> np.ndarray:
    """Parameters between the given ones where an arc crosses another domain's boundary, by bisection."""
    outside = other.phi(arc.curve.point(t)) > 0
    flips = np.flatnonzero(outside[1:] != outside[:-1])
    low, high, before = t[flips], t[flips + 1], outside[flips]
    for _ in range(60):
        middle = 0.5 * (low + high)
        same = (other.phi(arc.curve.point(middle)) > 0) == before
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.asarray(0.5 * (low + high))


def _pieces(arc: Arc, mine: PlaneDomain, other: PlaneDomain, outward: int) -> list[Arc]:
    """Cut an arc of one domain where it crosses another domain's boundary."""
    t = np.linspace(arc.start, arc.stop, EXAMINED)
    # Two crossings between neighbouring parameters do not show; those of the other boundary with mine do.
    seen = [t]
    for across in other.arcs():
        found = _crossings(across, mine, np.linspace(across.start, across.stop, EXAMINED))
        x = across.curve.point(found)
        nearest = t[cKDTree(arc.curve.point(t)).query(x)[1]] if len(x) else found
        meeting = arc.closest(x, nearest, t[1] - t[0])
        meeting = meeting[
            np.linalg.norm(arc.curve.point(meeting) - x, axis=1) < 1e-9 * arc.length_table()[1][-1]
        ]
        seen += [meeting + 1e-9 * side * (arc.stop - arc.start) for side in (-1, 1)]
    t = np.unique(np.clip(np.concatenate(seen), arc.start, arc.stop))
    cuts = _crossings(arc, other, t)
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
