"""Binary trees of intervals and quadtrees of rectangles, 2:1 balanced, as values that do not change.

The domain, a box, is cut into equal *roots*; a cell of level l is a root bisected l times along each axis. The mesh is
the list of its *leaves* in Morton order: the coordinates of the lower corner, counted in cells of the finest level,
with their bits interleaved. Children take the place of their parent, siblings follow each other, and the leaf that
holds a point is found by bisection in the list of codes.

Balance: leaves that share a face differ by one level at most. `TreeMesh.refine` refines neighbours where that asks
for it; `TreeMesh.coarsen` leaves out what it forbids.
"""

import functools
import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sciml.errors import ConfigError, GeometryError

__all__ = ["MAX_LEVEL", "MAX_ROOTS", "BoundaryFaces", "Faces", "TreeMesh"]

MAX_LEVEL = 20
"""Of a cell: corners and their interleaved bits are integers of 64 bits."""
MAX_ROOTS = 1024
"""Along an axis, likewise."""


def _none() -> np.ndarray:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Faces:
    """Faces between two leaves.

    Attributes
    ----------
    axis : ndarray of int, shape (F,)
        To which they are normal.
    lower, upper : ndarray of int, shape (F,)
        Leaves below and above along that axis.
    part_of_lower, part_of_upper : ndarray of int, shape (F,)
        Of the side of that leaf: 0 all of it, 1 the lower half along the other axis, 2 the upper half.
    """

    axis: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    part_of_lower: np.ndarray
    part_of_upper: np.ndarray


@dataclass(frozen=True)
class BoundaryFaces:
    """Sides of leaves in the boundary of the domain.

    Attributes
    ----------
    axis, side, cell : ndarray of int, shape (F,)
        The side is 0 for the lower end of the axis and 1 for the upper one.
    """

    axis: np.ndarray
    side: np.ndarray
    cell: np.ndarray


@dataclass(frozen=True, eq=False)
class TreeMesh:
    """Leaves of binary trees (one axis) or quadtrees (two) side by side.

    Parameters
    ----------
    lower, upper : tuple of float
        Corners of the domain.
    roots : tuple of int
        Cells of level 0 along each axis.
    periodic : tuple of bool, optional
        Which axes have their ends joined; by default none.
    levels, codes : ndarray of int, shape (N,), optional
        Levels of the leaves and Morton codes of their lower corners, in the order of the latter; by default those of
        the roots.

    Raises
    ------
    ConfigError
        If the numbers of axes differ, or there are more than 2, or roots are too many.
    GeometryError
        If the box is empty.

    Examples
    --------
    >>> mesh = TreeMesh((0.0,), (1.0,), (2,)).refine([0])
    >>> mesh.levels.tolist(), mesh.centres[:, 0].tolist()
    ([1, 1, 0], [0.125, 0.375, 0.75])
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    roots: tuple[int, ...]
    periodic: tuple[bool, ...] = ()
    levels: np.ndarray = field(default_factory=_none, repr=False)
    codes: np.ndarray = field(default_factory=_none, repr=False)

    def __post_init__(self) -> None:
        if len(self.levels):
            return
        dim = len(self.roots)
        periodic = self.periodic or (False,) * dim
        if not 1 <= dim <= 2 or {len(self.lower), len(self.upper), len(periodic)} != {dim}:
            raise ConfigError(
                f"lower={self.lower}, upper={self.upper}, roots={self.roots}, periodic={self.periodic}: give all for "
                "one axis, or for two"
            )
        if not all(1 <= count <= MAX_ROOTS for count in self.roots):
            raise ConfigError(f"roots={self.roots}: give 1 to {MAX_ROOTS} along each axis")
        if not all(a < b < np.inf and a > -np.inf for a, b in zip(self.lower, self.upper, strict=True)):
            raise GeometryError(
                f"lower={self.lower} is not below upper={self.upper}: give a box with an inside"
            )
        corners = np.stack(np.meshgrid(*map(np.arange, self.roots), indexing="ij"), axis=-1).reshape(-1, dim)
        codes = np.sort(_interleaved(corners << MAX_LEVEL))
        object.__setattr__(self, "periodic", periodic)
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "levels", np.zeros(len(codes), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.roots)

    @property
    def children(self) -> int:
        """Of a cell that is refined."""
        return 1 << self.dim

    @cached_property
    def corners(self) -> np.ndarray:
        """Lower corners in cells of the finest level, shape (N, d)."""
        return _separated(self.codes, self.dim)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Edge lengths of the leaves, shape (N, d)."""
        return np.ldexp(_lattice(self.lower, self.upper, self.roots)[1], -self.levels[:, None])

    @cached_property
    def origins(self) -> np.ndarray:
        """Lower corners, shape (N, d)."""
        lower, _, finest = _lattice(self.lower, self.upper, self.roots)
        return self.corners * finest + lower

    @property
    def centres(self) -> np.ndarray:
        """Midpoints of the leaves, shape (N, d)."""
        return self.origins + 0.5 * self.sizes

    @cached_property
    def volumes(self) -> np.ndarray:
        """Lengths or areas, shape (N,)."""
        return self.sizes[:, 0] if self.dim == 1 else self.sizes[:, 0] * self.sizes[:, 1]

    def digest(self) -> str:
        """Return a hash of the leaves, equal for equal meshes on all machines.

        Examples
        --------
        >>> mesh = TreeMesh((0.0, 0.0), (1.0, 1.0), (1, 1))
        >>> mesh.refine([0]).coarsen([0, 1, 2, 3]).digest() == mesh.digest()
        True
        """
        outline = repr((self.lower, self.upper, self.roots, self.periodic)).encode()
        leaves = np.stack([self.levels, self.codes]).astype("<i8").tobytes()
        return hashlib.blake2b(outline + leaves, digest_size=16).hexdigest()

    def find(self, points: np.ndarray) -> np.ndarray:
        """Return the leaf that holds each point, shape (..., d) to (...,); on a face the upper one of the two.

        Raises
        ------
        GeometryError
            If a point is outside the domain.
        """
        points = np.asarray(points, dtype=float)
        lower, upper = np.array(self.lower), np.array(self.upper)
        outside = ~((points >= lower) & (points <= upper)).all(axis=-1)
        if outside.any():
            raise GeometryError(
                f"point {points[outside][0].tolist()} is not between {self.lower} and {self.upper}: leave it out"
            )
        cells = np.array(self.roots) << MAX_LEVEL
        index = ((points - lower) / (upper - lower) * cells).astype(np.int64)
        return self.holding(_interleaved(np.minimum(index, cells - 1)))

    def holding(self, codes: np.ndarray) -> np.ndarray:
        """Return the leaf of which the finest cell of each Morton code is a part, shape (...,)."""
        return self.codes.searchsorted(codes, side="right") - 1

    @cached_property
    def neighbours(self) -> np.ndarray:
        """Leaf beyond each side, -1 outside the domain, shape (d, 2, N): the coarser one, or of two the lower."""
        if self.dim == 1:
            last = len(self) - 1
            found = np.empty((1, 2, last + 1), dtype=np.int64)
            found[0, 0] = np.arange(-1, last)
            found[0, 1] = np.arange(1, last + 2)
            found[0, 1, last] = -1
            if self.periodic[0]:
                found[0, 0, 0], found[0, 1, last] = last, 0
            return found
        ends = np.array(self.roots)[:, None, None] << MAX_LEVEL
        along = self.corners.T[:, None] + np.stack([0 * self.levels - 1, 1 << MAX_LEVEL - self.levels])
        outside = ((along < 0) | (along >= ends)) & ~np.array(self.periodic)[:, None, None]
        points = np.broadcast_to(self.corners, (*along.shape, 2)).copy()
        for axis in range(2):
            points[axis, ..., axis] = along[axis] % ends[axis]
        found = self.holding(_interleaved(points))
        found[outside] = -1
        return found

    @cached_property
    def faces(self) -> Faces:
        """All faces between leaves, one for every pair of them, periodic ends included."""
        if self.dim == 1:
            lower = np.arange(len(self) if self.periodic[0] else len(self) - 1)
            whole = np.zeros(len(lower), dtype=np.int64)
            return Faces(whole, lower, (lower + 1) % len(self), whole, whole)
        parts = []
        for axis in range(self.dim):
            # Of two leaves the finer one names the face; of equals the lower one does.
            below, above = self.neighbours[axis]
            half = 1 + (self.corners[:, 1 - axis] >> MAX_LEVEL - self.levels) % 2
            own = np.flatnonzero((above >= 0) & (self.levels[above] <= self.levels))
            equal = self.levels[above[own]] == self.levels[own]
            parts.append((axis, own, above[own], 0 * own, np.where(equal, 0, half[own])))
            own = np.flatnonzero((below >= 0) & (self.levels[below] < self.levels))
            parts.append((axis, below[own], own, half[own], 0 * own))
        axes = np.concatenate([np.full(len(lower), axis) for axis, lower, *_ in parts])
        return Faces(axes, *(np.concatenate([part[i] for part in parts]) for i in range(1, 5)))

    @cached_property
    def boundary(self) -> BoundaryFaces:
        """All sides of leaves in the boundary."""
        if self.dim == 1:
            ends = np.arange(0 if self.periodic[0] else 2)
            return BoundaryFaces(0 * ends, ends, ends * (len(self) - 1))
        axis, side, cell = np.nonzero(self.neighbours < 0)
        return BoundaryFaces(axis, side, cell)

    def refine(self, cells: np.ndarray | list[int]) -> "TreeMesh":
        """Return the mesh with these leaves bisected along each axis, and others as balance asks for.

        Parameters
        ----------
        cells : array of int or bool
            Numbers of leaves, or for each leaf whether it is one.

        Raises
        ------
        GeometryError
            If a leaf is of level `MAX_LEVEL` already.
        ConfigError
            If there is no such leaf.
        """
        marked = self._marked(cells)
        (asking,) = marked.nonzero()
        while len(asking):
            near = self.neighbours.take(asking, axis=2)
            coarser = near[(near >= 0) & (self.levels[near] < self.levels[asking])]
            asking = coarser[~marked[coarser]]
            if len(asking) > 1:
                asking = np.unique(asking)
            marked[asking] = True
        levels = self.levels + marked
        if levels.max() > MAX_LEVEL:
            raise GeometryError(f"cells of level {MAX_LEVEL} cannot be refined: stop before")
        counts = 1 + (self.children - 1) * marked
        first = (counts.cumsum() - counts).repeat(counts)
        levels, codes = levels.repeat(counts), self.codes.repeat(counts)
        number = np.arange(len(levels)) - first
        return self._of(levels, codes + (number << self.dim * (MAX_LEVEL - levels)))

    @cached_property
    def families(self) -> np.ndarray:
        """First leaves of those sibling groups that could be merged, shape (G,); balance is not looked at."""
        last, levels, codes = self.children - 1, self.levels, self.codes
        # Leaves that are the first of their parent, the last of which is where it should be.
        span = np.left_shift(last, self.dim * (MAX_LEVEL - levels))
        (first,) = ((levels > 0) & (codes & span == 0))[: max(len(codes) - last, 0)].nonzero()
        end = first + last
        same = (levels[end] == levels[first]) & (codes[end] == codes[first] + span[first])
        return first[same]

    @cached_property
    def mergeable(self) -> np.ndarray:
        """First leaves of those sibling groups that `coarsen` would merge, shape (G,)."""
        first = self.families
        near = self.neighbours.take(first + np.arange(self.children)[:, None], axis=2)
        finer = (near >= 0) & (self.levels[near] > self.levels[first])
        return first[~finer.any(axis=(0, 1, 2))]

    def coarsen(self, cells: np.ndarray | list[int]) -> "TreeMesh":
        """Return the mesh with each complete group of siblings among these leaves merged, where balance permits it.

        Parameters
        ----------
        cells : array of int or bool
            Numbers of leaves, or for each leaf whether it is one.

        Raises
        ------
        ConfigError
            If there is no such leaf.
        """
        marked = self._marked(cells)
        group = self.mergeable[:, None] + np.arange(self.children)
        group = group[marked[group].all(axis=1)]
        levels = self.levels.copy()
        levels[group[:, 0]] -= 1
        kept = np.ones(len(self), dtype=bool)
        kept[group[:, 1:]] = False
        return self._of(levels[kept], self.codes[kept])

    def fresh(self) -> "TreeMesh":
        """Return the same mesh without the tables that were made for it.

        Examples
        --------
        >>> mesh = TreeMesh((0.0,), (1.0,), (2,))
        >>> mesh.fresh().digest() == mesh.digest()
        True
        """
        return self._of(self.levels, self.codes)

    def _of(self, levels: np.ndarray, codes: np.ndarray) -> "TreeMesh":
        return TreeMesh(self.lower, self.upper, self.roots, self.periodic, levels, codes)

    def _marked(self, cells: np.ndarray | list[int]) -> np.ndarray:
        cells = np.asarray(cells)
        if cells.dtype == bool and cells.shape == (len(self),):
            return cells.copy()
        marked = np.zeros(len(self), dtype=bool)
        if cells.size == 0:
            return marked
        if cells.dtype.kind not in "iu" or cells.min() < 0 or cells.max() >= len(self):
            raise ConfigError(
                f"cells={cells}: give numbers from 0 to {len(self) - 1}, or a bool for each leaf"
            )
        marked[cells] = True
        return marked


@functools.cache
def _lattice(
    lower: tuple[float, ...], upper: tuple[float, ...], roots: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the lower corner, and the sizes of roots and of cells of the finest level, shapes (d,)."""
    sizes = (np.array(upper) - lower) / roots
    return np.array(lower, dtype=float), sizes, np.ldexp(sizes, -MAX_LEVEL)


def _interleaved(corners: np.ndarray) -> np.ndarray:
    """Return Morton codes, shape (..., d) to (...,); the first axis has the higher bits."""
    if corners.shape[-1] == 1:
        return corners[..., 0]
    spread = corners.astype(np.int64)
    for shift, mask in _STEPS:
        spread = (spread | (spread << shift)) & mask
    return (spread[..., 0] << 1) | spread[..., 1]


def _separated(codes: np.ndarray, dim: int) -> np.ndarray:
    if dim == 1:
        return codes[:, None]
    bits = np.stack([codes >> 1, codes], axis=-1) & _STEPS[-1][1]
    for (shift, _), mask in zip(_STEPS[::-1], _MASKS, strict=True):
        bits = (bits | (bits >> shift)) & mask
    return bits


_STEPS = [
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
]
_MASKS = [mask for _, mask in _STEPS[-2::-1]] + [0x00000000FFFFFFFF]
