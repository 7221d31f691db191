"""Conforming triangulations that are refined by newest vertex bisection, as values that do not change.

A triangle (a, b, c), counter-clockwise, has its *newest vertex* first and is bisected at the midpoint m of the opposite
edge, its *refinement edge* (b, c), into (m, a, b) and (m, c, a). Where a neighbour has another refinement edge, that
one is bisected first: marks spread until no vertex hangs. Triangles of at most four shapes come from each one of the
start, so angles stay away from 0 however often it is done; Mitchell, ACM Trans. Math. Softw. 15, 326 (1989).
"""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sciml.errors import ConfigError, GeometryError

__all__ = ["TriMesh", "l_shape", "rectangle"]

SMALLEST_ANGLE = 0.1
"""In degrees, below which a triangle counts as degenerate."""


@dataclass(frozen=True, eq=False)
class TriMesh:
    """A conforming triangulation.

    Parameters
    ----------
    vertices : ndarray, shape (V, 2)
    triangles : ndarray of int, shape (T, 3)
        Vertices of each, counter-clockwise, newest first. Use `TriMesh.given` for triangles of any origin.
    parents : ndarray of int, shape (T,), optional
        Of a refined mesh: which triangle of the mesh before each one is a part of.
    ends : ndarray of int, shape (n, 2), optional
        Of a refined mesh: end points of the edges whose midpoints the last n vertices are.

    Examples
    --------
    >>> mesh = rectangle(1, 1)
    >>> len(mesh), len(mesh.refine([0])), round(float(mesh.areas.sum()), 12)
    (2, 4, 1.0)
    """

    vertices: np.ndarray
    triangles: np.ndarray
    parents: np.ndarray | None = field(default=None, repr=False)
    ends: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def given(cls, vertices: np.ndarray, triangles: np.ndarray) -> "TriMesh":
        """Return a mesh whose triangles have their longest edge as refinement edge.

        Raises
        ------
        ConfigError
            If shapes are wrong or there are no triangles.
        GeometryError
            If a triangle is degenerate or clockwise, a vertex is not finite or not there, or an edge has three
            triangles.

        Examples
        --------
        >>> TriMesh.given([[0, 0], [1, 0], [0, 1]], [[0, 1, 2]]).triangles.tolist()
        [[0, 1, 2]]
        """
        vertices, triangles = np.asarray(vertices, dtype=float), np.asarray(triangles)
        if vertices.ndim != 2 or vertices.shape[1] != 2:
            raise ConfigError(f"vertices have shape {vertices.shape}: give (V, 2), triangulations are plane")
        if triangles.ndim != 2 or triangles.shape[1:] != (3,) or len(triangles) == 0:
            raise ConfigError(
                f"triangles have shape {triangles.shape}: give (T, 3) with at least one triangle"
            )
        if triangles.dtype.kind not in "iu":
            raise ConfigError(f"triangles are of type {triangles.dtype}: give numbers of vertices")
        bad = np.flatnonzero(((triangles < 0) | (triangles >= len(vertices))).any(axis=1))
        if len(bad):
            raise GeometryError(
                f"triangle {bad[0]} has vertices {triangles[bad[0]].tolist()}: there are 0 to {len(vertices) - 1}"
            )
        if not np.isfinite(vertices[triangles]).all():
            raise GeometryError("a vertex is not finite: mend the mesh")
        mesh = cls(vertices, triangles.astype(np.int64))
        lengths = mesh.edge_lengths[mesh.triangle_edges]
        shift = lengths.argmax(axis=1)
        mesh = cls(vertices, np.take_along_axis(mesh.triangles, (shift[:, None] + np.arange(3)) % 3, axis=1))
        for found, what in (
            (np.flatnonzero(mesh.areas < 0), "is clockwise: exchange two of its vertices"),
            (np.flatnonzero(mesh.smallest_angles < SMALLEST_ANGLE), "is degenerate: leave it out"),
        ):
            if len(found):
                corners = vertices[mesh.triangles[found[0]]].tolist()
                raise GeometryError(f"triangle {found[0]} with corners {corners} {what}")
        return mesh

    def __len__(self) -> int:
        return len(self.triangles)

    @cached_property
    def corners(self) -> np.ndarray:
        """Coordinates of the vertices of triangles, shape (2, 3, T): arithmetic on rows is fastest."""
        return np.ascontiguousarray(self.vertices.T).take(self.triangles.T, axis=1)

    @cached_property
    def areas(self) -> np.ndarray:
        """Shape (T,); negative of clockwise triangles."""
        (ax, bx, cx), (ay, by, cy) = self.corners
        return 0.5 * ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))

    @cached_property
    def gradients(self) -> np.ndarray:
        """Gradients of the barycentric coordinates, shape (T, 3, 2)."""
        # In memory as the corners are.
        found = self.corners[::-1, [2, 0, 1]] - self.corners[::-1, [1, 2, 0]]
        np.negative(found[0], out=found[0])
        found /= 2 * self.areas
        return found.transpose(2, 1, 0)

    @property
    def centroids(self) -> np.ndarray:
        """Shape (T, 2)."""
        return (self.corners.sum(axis=1) / 3).T

    @cached_property
    def _edge_tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        one, other = self.triangles[:, [1, 2, 0]].ravel(), self.triangles[:, [2, 0, 1]].ravel()
        low, high = np.minimum(one, other), np.maximum(one, other)
        key = low * len(self.vertices) + high
        order = key.argsort()
        ordered, first = key[order], np.ones(len(key), dtype=bool)
        np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
        number = first.cumsum() - 1
        of_side = np.empty_like(number)
        of_side[order] = number
        (starts,) = first.nonzero()
        counts = np.bincount(number)
        if counts.max() > 2:
            ends = divmod(int(ordered[starts[counts.argmax()]]), len(self.vertices))
            raise GeometryError(
                f"the edge between vertices {ends} has {counts.max()} triangles: at most two can meet"
            )
        side = order[starts]
        one, other = side // 3, order[starts + counts - 1] // 3
        owners = np.array([np.minimum(one, other), np.where(counts == 2, np.maximum(one, other), -1)])
        return np.array([low[side], high[side]]).T, of_side.reshape(-1, 3), owners.T

    @property
    def edges(self) -> np.ndarray:
        """Vertices of each edge, the lower number first, shape (E, 2)."""
        return self._edge_tables[0]

    @property
    def triangle_edges(self) -> np.ndarray:
        """Edges of each triangle, that opposite to its first vertex first, shape (T, 3)."""
        return self._edge_tables[1]

    @property
    def edge_triangles(self) -> np.ndarray:
        """Triangles of each edge, the lower number first, shape (E, 2); -1 outside."""
        return self._edge_tables[2]

    @cached_property
    def boundary_edges(self) -> np.ndarray:
        """Numbers of those with one triangle, shape (B,)."""
        return (self.edge_triangles[:, 1] < 0).nonzero()[0]

    @cached_property
    def boundary_vertices(self) -> np.ndarray:
        """Numbers of the vertices in the boundary, ascending."""
        on = np.zeros(len(self.vertices), dtype=bool)
        on[self.edges[self.boundary_edges]] = True
        return np.flatnonzero(on)

    @cached_property
    def edge_vectors(self) -> np.ndarray:
        """From the vertex of the lower number to the other, shape (E, 2)."""
        low, high = self.edges.T
        x, y = np.ascontiguousarray(self.vertices.T)
        return np.array([x[high] - x[low], y[high] - y[low]]).T

    @cached_property
    def edge_lengths(self) -> np.ndarray:
        """Shape (E,)."""
        x, y = self.edge_vectors.T
        return np.sqrt(x**2 + y**2)

    @cached_property
    def diameters(self) -> np.ndarray:
        """Longest edges h_T, shape (T,)."""
        return self.edge_lengths[self.triangle_edges].max(axis=1)

    @cached_property
    def smallest_angles(self) -> np.ndarray:
        """In degrees, shape (T,); 0 of triangles without area."""
        _, b, c = np.sort(self.edge_lengths[self.triangle_edges], axis=1).T
        with np.errstate(divide="ignore", invalid="ignore"):
            sine = 2 * np.abs(self.areas) / (b * c)
        return np.degrees(np.arcsin(np.clip(np.nan_to_num(sine), 0, 1)))

    def digest(self) -> str:
        """Return a hash of vertices and triangles, equal for equal meshes."""
        data = self.vertices.astype("<f8").tobytes() + self.triangles.astype("<i8").tobytes()
        return hashlib.blake2b(data, digest_size=16).hexdigest()

    def refine(self, marked: np.ndarray | list[int]) -> "TriMesh":
        """Return the mesh with these triangles bisected, and others as conformity asks for.

        Parameters
        ----------
        marked : array of int or bool
            Numbers of triangles, or for each whether it is one.

        Raises
        ------
        ConfigError
            If there is no such triangle.

        Examples
        --------
        >>> mesh = l_shape(1).refine([0])
        >>> mesh.parents.tolist(), bool(mesh.smallest_angles.min() > 44.9)
        ([0, 0, 1, 1, 2, 3, 4, 5], True)
        """
        split = np.zeros(len(self.edges), dtype=bool)
        split[self.triangle_edges[self._chosen(marked), 0]] = True
        return self._split(split)

    def uniformly_refined(self, times: int = 1) -> "TriMesh":
        """Return the mesh with all edges halved so many times: each triangle becomes four.

        Examples
        --------
        >>> len(rectangle(2, 2).uniformly_refined())
        32
        """
        mesh = self
        for _ in range(times):
            mesh = mesh._split(np.ones(len(mesh.edges), dtype=bool))
        return mesh

    def _split(self, split: np.ndarray) -> "TriMesh":
        """Halve edges, and those in whose way they are."""
        sides = self.triangle_edges
        while True:
            parts = split[sides]
            asked = ~parts[:, 0] & (parts[:, 1] | parts[:, 2])
            if not asked.any():
                break
            split[sides[asked, 0]] = True
        (cut,) = split.nonzero()
        ends = self.edges[cut]
        middle = np.full(len(split), -1)
        middle[cut] = len(self.vertices) + np.arange(len(cut))
        vertices = np.concatenate(
            [self.vertices, 0.5 * (self.vertices[ends[:, 0]] + self.vertices[ends[:, 1]])]
        )
        # Children stand where their parent stood: (m, a, b) or its halves, then (m, c, a) or its halves.
        counts = 1 + parts.sum(axis=1)
        triangles = self.triangles.repeat(counts, axis=0)
        (here,) = parts[:, 0].nonzero()
        place = (counts.cumsum() - counts)[here]
        a, b, c = self.triangles[here].T
        opposite_a, opposite_b, opposite_c = middle[sides[here]].T
        for begin, base, other, midpoint in (
            (place, a, b, opposite_c),
            (place + 1 + (opposite_c >= 0), c, a, opposite_b),
        ):
            triangles[begin] = np.array([opposite_a, base, other]).T
            (twice,) = (midpoint >= 0).nonzero()
            if len(twice):
                m, n, p, q = opposite_a[twice], midpoint[twice], base[twice], other[twice]
                triangles[begin[twice]] = np.array([n, m, p]).T
                triangles[begin[twice] + 1] = np.array([n, q, m]).T
        return TriMesh(vertices, triangles, np.arange(len(self)).repeat(counts), ends)

    def _chosen(self, marked: np.ndarray | list[int]) -> np.ndarray:
        marked = np.asarray(marked)
        if marked.dtype == bool and marked.shape == (len(self),):
            return np.flatnonzero(marked)
        if marked.size and (marked.dtype.kind not in "iu" or marked.min() < 0 or marked.max() >= len(self)):
            raise ConfigError(
                f"marked={marked}: give numbers from 0 to {len(self) - 1}, or a bool for each triangle"
            )
        return marked.astype(np.int64).ravel()


def rectangle(
    columns: int, rows: int, lower: tuple[float, float] = (0.0, 0.0), upper: tuple[float, float] = (1.0, 1.0)
) -> TriMesh:
    """Return a box of rectangles, each cut into two triangles along a diagonal.

    Raises
    ------
    ConfigError
        If there are none.
    GeometryError
        If the box is empty.

    Examples
    --------
    >>> len(rectangle(3, 2))
    12
    """
    if columns < 1 or rows < 1:
        raise ConfigError(f"columns={columns}, rows={rows}: give at least 1")
    if not (lower[0] < upper[0] and lower[1] < upper[1]):
        raise GeometryError(f"lower={lower} is not below upper={upper}: give a box with an inside")
    x, y = np.linspace(lower[0], upper[0], columns + 1), np.linspace(lower[1], upper[1], rows + 1)
    vertices = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    i, j = np.meshgrid(np.arange(columns), np.arange(rows), indexing="ij")
    corner = (i * (rows + 1) + j).ravel()
    p, q, r, s = corner, corner + rows + 1, corner + rows + 2, corner + 1
    return TriMesh(vertices, np.stack([q, r, p, s, p, r], axis=1).reshape(-1, 3))


def l_shape(cells: int = 2) -> TriMesh:
    """Return [-1, 1]^2 without the quadrant x > 0, y < 0, of squares of edge length 1 / cells.

    The diagonals of each quadrant are those that lead to the corner, so that the mesh is symmetric.

    Examples
    --------
    >>> mesh = l_shape(2)
    >>> len(mesh), round(float(mesh.areas.sum()), 12)
    (24, 3.0)
    """
    whole = rectangle(2 * cells, 2 * cells, (-1.0, -1.0), (1.0, 1.0))
    pairs = whole.triangles.reshape(-1, 6)
    q, r, p, s = pairs[:, :4].T
    x, y = whole.vertices[pairs].mean(axis=1).T
    falling = np.stack([p, q, s, r, s, q], axis=1)
    chosen = np.where(((x < 0) & (y > 0))[:, None], falling, pairs)[~((x > 0) & (y < 0))]
    used, triangles = np.unique(chosen, return_inverse=True)
    return TriMesh(whole.vertices[used], triangles.reshape(-1, 3))
