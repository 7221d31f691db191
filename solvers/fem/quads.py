"""Quadrilaterals of nine nodes, mapped from a grid: biquadratic in geometry and fields, bilinear in the pressure.

A mesh is a grid of nodes (i, j), of which every second one along both axes is a vertex; an element takes three by three
of them. Where a domain is the image of a rectangle, or of a ring, that is the whole mesh generation.
"""

import functools
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sciml.errors import ConfigError, GeometryError
from sciml.solvers.legendre import gauss

__all__ = ["QuadMesh", "bilinear", "biquadratic", "quadratic", "square_rule"]

NODES = 3
"""Gauss nodes along an axis: exact for products of biquadratic functions on parallelograms."""


def quadratic(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the functions that are 1 at 0, 1/2 and 1 in turn, and their derivatives, shape (..., 3)."""
    values = np.stack([(1 - t) * (1 - 2 * t), 4 * t * (1 - t), t * (2 * t - 1)], axis=-1)
    return values, np.stack([4 * t - 3, 4 - 8 * t, 4 * t - 1], axis=-1)


def biquadratic(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nine shape functions at points of the unit square, and their gradients.

    Parameters
    ----------
    points : ndarray, shape (..., 2)

    Returns
    -------
    values : ndarray, shape (..., 9)
        Node (i, j) of an element has number 3 i + j.
    gradients : ndarray, shape (..., 9, 2)

    Examples
    --------
    >>> values, gradients = biquadratic(np.array([0.5, 1.0]))
    >>> int(values.argmax()), float(values.max()), bool(abs(gradients.sum(axis=0)).max() < 1e-15)
    (5, 1.0, True)
    """
    (a, da), (b, db) = quadratic(points[..., 0]), quadratic(points[..., 1])
    shape = points.shape[:-1]
    values, x, y = (
        (one[..., :, None] * other[..., None, :]).reshape(*shape, 9)
        for one, other in ((a, b), (da, b), (a, db))
    )
    return values, np.stack([x, y], axis=-1)


def bilinear(points: np.ndarray) -> np.ndarray:
    """Return the four shape functions at points of the unit square, shape (..., 2) to (..., 4).

    Vertex (i, j) of an element has number 2 i + j.
    """
    x, y = points[..., 0], points[..., 1]
    return np.stack([(1 - x) * (1 - y), (1 - x) * y, x * (1 - y), x * y], axis=-1)


@functools.cache
def square_rule() -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss nodes (9, 2) and weights on the unit square."""
    nodes, weights = gauss(NODES)
    points = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    return points, np.outer(weights, weights).ravel()


@dataclass(frozen=True, eq=False)
class QuadMesh:
    """Quadrilaterals of nine nodes.

    Parameters
    ----------
    nodes : ndarray, shape (N, 2)
    elements : ndarray of int, shape (E, 9)
        Nodes of each, in the order of `biquadratic`. Use `QuadMesh.mapped`.
    vertices : ndarray of int, shape (E, 4)
        Numbers among the vertices, in the order of `bilinear`.
    sides : ndarray of int, shape (B, 3)
        Nodes of the element sides in the boundary, with the domain to the left.
    shape : (int, int)
        Elements along both axes of the grid.
    periodic : bool
        Whether its first axis is closed.

    Examples
    --------
    >>> x = np.linspace(0, 1, 5)
    >>> mesh = QuadMesh.mapped(np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1))
    >>> len(mesh), len(mesh.nodes), mesh.corners, round(float(mesh.weights.sum()), 12)
    (4, 25, 9, 1.0)
    """

    nodes: np.ndarray
    elements: np.ndarray = field(repr=False)
    vertices: np.ndarray = field(repr=False)
    sides: np.ndarray = field(repr=False)
    shape: tuple[int, int]
    periodic: bool

    @classmethod
    def mapped(cls, grid: np.ndarray, periodic: bool = False) -> "QuadMesh":
        """Return the mesh of a grid of nodes.

        Parameters
        ----------
        grid : ndarray, shape (2 m + 1, 2 n + 1, 2)
            Positions; (2 m, 2 n + 1, 2) if the first axis is closed.
        periodic : bool
            Whether it is.

        Raises
        ------
        ConfigError
            If the shape is another one.
        GeometryError
            If an element is folded, or the grid is a mirror image.
        """
        grid = np.asarray(grid, dtype=float)
        rows, columns = grid.shape[:2] if grid.ndim == 3 else (0, 0)
        wanted = (
            rows % 2 == (not periodic) and columns % 2 and min(rows, columns) > 2 and grid.shape[2:] == (2,)
        )
        if not wanted:
            raise ConfigError(
                f"grid of shape {grid.shape}: give positions of {'2 m' if periodic else '2 m + 1'} by 2 n + 1 nodes"
            )
        if not np.isfinite(grid).all():
            raise GeometryError("a node of the grid is not finite: mend the map")
        m, n = rows // 2, columns // 2
        i, j = np.arange(m)[:, None, None], np.arange(n)[:, None]
        a, b = np.divmod(np.arange(9), 3)
        elements = ((2 * i + a) % rows * columns + 2 * j + b).reshape(-1, 9)
        c, d = np.divmod(np.arange(4), 2)
        vertices = ((i + c) % (m if periodic else m + 1) * (n + 1) + j + d).reshape(-1, 4)
        number = np.arange(rows * columns).reshape(rows, columns)
        ring = np.concatenate([number, number[:1]]) if periodic else number
        along = [ring[:, 0], ring[::-1, -1]]
        if not periodic:
            along += [number[-1], number[0, ::-1]]
        sides = np.concatenate([np.stack([one[:-1:2], one[1::2], one[2::2]], axis=1) for one in along])
        mesh = cls(grid.reshape(-1, 2), elements, vertices, sides, (m, n), periodic)
        at_corners = _jacobians(mesh, np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))[1]
        folded = np.flatnonzero((np.concatenate([mesh._jacobians[1], at_corners], axis=1) <= 0).any(axis=1))
        if len(folded):
            raise GeometryError(
                f"element {folded[0]} with nodes {mesh.nodes[elements[folded[0]]].round(6).tolist()} is folded: "
                "give a finer or smoother grid, or exchange its axes if it is a mirror image"
            )
        return mesh

    def __len__(self) -> int:
        return len(self.elements)

    @cached_property
    def corners(self) -> int:
        """Number of vertices."""
        return int(self.vertices.max()) + 1

    @cached_property
    def _jacobians(self) -> tuple[np.ndarray, np.ndarray]:
        return _jacobians(self, square_rule()[0])

    @cached_property
    def weights(self) -> np.ndarray:
        """Of the quadrature nodes, shape (E, Q)."""
        return self._jacobians[1] * square_rule()[1]

    @cached_property
    def gradients(self) -> np.ndarray:
        """Of the biquadratic shape functions at the quadrature nodes, shape (E, Q, 9, 2)."""
        return _by_position(biquadratic(square_rule()[0])[1], self._jacobians[0])

    @cached_property
    def points(self) -> np.ndarray:
        """Quadrature nodes, shape (E, Q, 2)."""
        return biquadratic(square_rule()[0])[0] @ self.nodes[self.elements]

    def gradients_at(self, chosen: np.ndarray, local: np.ndarray) -> np.ndarray:
        """Return gradients of the biquadratic shape functions at single points.

        Parameters
        ----------
        chosen : ndarray of int, shape (P,)
            The element of each point.
        local : ndarray, shape (P, 2)
            Where in its unit square, see `locate`.

        Returns
        -------
        ndarray, shape (P, 9, 2)
        """
        slopes = biquadratic(local)[1]
        return _by_position(slopes, np.swapaxes(slopes, 1, 2) @ self.nodes[self.elements[chosen]])

    def locate(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where points of the map's unit square lie.

        Parameters
        ----------
        parameters : ndarray, shape (P, 2)
            Along the axes of the grid, from 0 to 1.

        Returns
        -------
        elements : ndarray of int, shape (P,)
        local : ndarray, shape (P, 2)
            Within them, from 0 to 1.

        Raises
        ------
        ConfigError
            If a point is outside.
        """
        parameters = np.asarray(parameters, dtype=float)
        outside = ~((parameters >= 0) & (parameters <= 1)).all(axis=-1)
        if outside.any():
            raise ConfigError(f"parameters={parameters[outside][0].tolist()}: they go from 0 to 1")
        scaled = parameters * self.shape
        cell = np.minimum(scaled.astype(np.int64), np.array(self.shape) - 1)
        return cell @ np.array([self.shape[1], 1]), scaled - cell


def _jacobians(mesh: QuadMesh, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The map from the unit square at points (Q, 2) of it: dx_j / dxi_i at [i, j], (E, Q, 2, 2), and determinants."""
    found = np.swapaxes(biquadratic(local)[1], 1, 2) @ mesh.nodes[mesh.elements][:, None]
    return found, found[..., 0, 0] * found[..., 1, 1] - found[..., 0, 1] * found[..., 1, 0]


def _by_position(slopes: np.ndarray, jacobians: np.ndarray) -> np.ndarray:
    """Gradients in space, (..., 9, 2), from those in the unit square and dx_j / dxi_i at [..., i, j]."""
    (a, b), (c, d) = np.moveaxis(jacobians, (-2, -1), (0, 1))
    inverse = np.stack([np.stack([d, -b], axis=-1), np.stack([-c, a], axis=-1)], axis=-2)
    inverse /= (a * d - b * c)[..., None, None]
    return slopes @ np.swapaxes(inverse, -1, -2)
