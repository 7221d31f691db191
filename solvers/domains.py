"""Domains: bounded open regions, known by a function and by their boundary.

A domain is known in two ways: a function ``phi`` that is negative inside, positive outside (not a
distance in general), and its boundary, of which it gives closest points, normals and samples. Plane
domains are bounded by arcs (`sciml.solvers.plane`), others by the zero set of a function
(`sciml.solvers.implicit`). Set operations combine any two of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sciml.registry import Registry

__all__ = ["BoundaryPoints", "Domain", "domain_registry"]

domain_registry: Registry[Callable[[], "Domain"]] = Registry("domain")
"""Factories of the domains that the command line knows by name."""


@dataclass(frozen=True)
class BoundaryPoints:
    """Points on a boundary: positions and outward unit normals (m, D), number of the piece (m,)."""

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
    """A bounded open region in D dimensions."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Number of space dimensions, D."""

    @abstractmethod
    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return a function that is negative exactly inside, shape (..., D) to (...)."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner of a box around the domain, each of shape (D,)."""

    @abstractmethod
    def boundary(self, spacing: float) -> BoundaryPoints:
        """Return boundary points at distances of about ``spacing``, on every piece of the boundary."""

    @abstractmethod
    def closest_point(self, points: np.ndarray) -> BoundaryPoints:
        """Return the boundary points closest to points of shape (m, D)."""

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return whether points lie inside, shape (..., D) to (...)."""
        return self.phi(np.asarray(points, dtype=float)) < 0

    def __or__(self, other: "Domain") -> "Domain":
        from .set_operations import union

        return union(self, other)

    def __and__(self, other: "Domain") -> "Domain":
        from .set_operations import intersection

        return intersection(self, other)

    def __sub__(self, other: "Domain") -> "Domain":
        from .set_operations import difference

        return difference(self, other)
