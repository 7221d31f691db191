"""Poisson's equation by scikit-fem on fitted triangles: the peer in elliptic_time_to_accuracy.py.

A few dozen to a few hundred *macro* triangles are made once per domain; those on the boundary have
one curved edge. A mesh divides each into n^2 triangles of degree p whose nodes lie on the macro
triangle's map, so that angles and grading are those of the macro mesh on every level. Triangles with
straight sides are mapped affinely, the others isoparametrically with their element's own degree.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyamg
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import splu
from scipy.spatial import Delaunay, cKDTree
from scipy.spatial.distance import cdist
from skfem import (
    Basis,
    BilinearForm,
    Dofs,
    ElementTriP1,
    ElementTriP2,
    ElementTriP4,
    LinearForm,
    MappingAffine,
    MappingIsoparametric,
    MeshTri1,
)

from sciml.errors import GeometryError
from sciml.solvers import Disk, Star
from sciml.solvers.curves import Curve

ELEMENTS = {1: ElementTriP1, 2: ElementTriP2, 4: ElementTriP4}
TRIANGULATIONS, MOVES = 6, 5  # of the macro mesh, and of its points in each
CLEARANCE = 0.5  # of the local size, between curve and inner macro points


@dataclass(frozen=True)
class Macro:
    """Points (k, 2), triangles (m, 3), of which the first ``curved`` have their first edge on the curve.

    ``parameters`` (curved, 2) are the ends of these edges.
    """

    curve: Callable[[np.ndarray], np.ndarray]
    points: np.ndarray
    triangles: np.ndarray
    parameters: np.ndarray

    @property
    def curved(self) -> int:
        return len(self.parameters)

    @cached_property
    def smallest_angle(self) -> float:
        """Of the straight-sided triangles, in degrees."""
        p = self.points[self.triangles]
        a, b = np.roll(p, -1, axis=1) - p, np.roll(p, 1, axis=1) - p
        cosine = np.sum(a * b, axis=2) / (np.linalg.norm(a, axis=2) * np.linalg.norm(b, axis=2))
        return float(np.degrees(np.arccos(cosine.max())))

    def map(self, triangle: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Map barycentric coordinates (..., 3) in given triangles (...) to positions (..., 2).

        The displacement d(s) of a curved edge is carried inwards as l_a l_b / (s (1 - s)) d(s) with
        s = (1 + l_b - l_a) / 2 (Szabo and Babuska, Finite Element Analysis, 1991, section 6.1): its
        k-th derivatives are of order h^k, as isoparametric elements of optimal order need.
        """
        corners = self.points[self.triangles[triangle]]
        x = np.einsum("...c,...cd->...d", weights, corners)
        on = np.flatnonzero(triangle < self.curved)
        la, lb = weights[on, ..., 0], weights[on, ..., 1]
        s = (1 + lb - la) / 2
        start, stop = self.parameters[triangle[on]].T
        a, b = (self.curve(t) for t in (start, stop))
        chord = (1 - s)[:, None] * a + s[:, None] * b
        bubble = s * (1 - s)
        ratio = np.divide(la * lb, bubble, out=np.zeros_like(s), where=bubble > 0)
        x[on] += ratio[:, None] * (self.curve((1 - s) * start + s * stop) - chord)
        return x


def graded_parameters(curve: Curve, spacing: float, bend: float, growth: float) -> np.ndarray:
    """Return the parameters of boundary nodes over one period, both ends included.

    Their distances are min(spacing, bend / curvature), eased to grow at most at the given rate.
    """
    t = np.linspace(0, 2 * np.pi, 361)
    c, c1, c2 = curve.derivatives(t)
    speed = np.linalg.norm(c1, axis=1)
    curvature = np.abs(c1[:, 0] * c2[:, 1] - c1[:, 1] * c2[:, 0]) / speed**3
    size = np.minimum(spacing, bend / np.maximum(curvature, 1e-9))
    size = (size + growth * cdist(c, c)).min(axis=1)
    density = speed / size
    count = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(t))])
    # Six petals: an edge across each tip, where a node would make a triangle with two curved edges,
    # and a node at the bottom of each valley.
    arcs = 12 * max(1, round(count[-1] / 12 - 0.5)) + 6
    nodes = np.interp((np.arange(arcs) + 0.5) / arcs, count / count[-1], t)
    return np.append(nodes, nodes[0] + 2 * np.pi)


def macro_mesh(domain: Disk | Star, spacing: float, bend: float = 3.0, growth: float = 0.35) -> Macro:
    """Triangulate a domain whose boundary is one curve around the origin, by relaxed Delaunay meshes.

    Boundary nodes as in `graded_parameters`; the edge length grows from that of the nearest boundary
    edges up to ``spacing``. Points are moved by repelling springs (Persson and Strang, SIAM Rev. 46,
    2004).
    """
    curve = domain.arcs()[0].curve
    t = graded_parameters(curve, spacing, bend, growth)
    fixed = curve.point(t[:-1])
    arcs = len(fixed)
    lengths = np.linalg.norm(np.roll(fixed, -1, axis=0) - fixed, axis=1)
    lengths = (lengths + np.roll(lengths, 1)) / 2

    def size(x: np.ndarray) -> np.ndarray:
        distance = cdist(x, fixed)
        return np.minimum((lengths + growth * distance).min(axis=1), spacing)

    def inside(x: np.ndarray) -> np.ndarray:
        """Whether x lies left of the chord that its ray from the origin meets."""
        angle = t[0] + (np.arctan2(x[:, 1], x[:, 0]) - t[0]) % (2 * np.pi)
        sector = np.searchsorted(t, angle, side="right") - 1
        a, b = fixed[sector % arcs], fixed[(sector + 1) % arcs]
        return (b - a)[:, 0] * (x - a)[:, 1] > (b - a)[:, 1] * (x - a)[:, 0]

    dense = cKDTree(curve.point(np.linspace(0, 2 * np.pi, 10 * arcs)))

    def clear(x: np.ndarray) -> np.ndarray:
        """Whether x is inside and leaves room for a triangle up to the curve."""
        return domain.contains(x) & (dense.query(x)[0] > CLEARANCE * size(x))

    rng = np.random.default_rng(0)
    step = lengths.min()
    reach = np.abs(fixed).max()
    x, y = np.meshgrid(np.arange(-reach, reach, step), np.arange(-reach, reach, step * np.sqrt(3) / 2))
    x[1::2] += step / 2
    points = np.column_stack([x.ravel(), y.ravel()])
    points = points[clear(points)]
    points = points[rng.random(len(points)) < (step / size(points)) ** 2]

    def triangulate(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = np.concatenate([fixed, points])
        triangles = Delaunay(p).simplices
        return p, triangles[inside(p[triangles].mean(axis=1))]

    for _ in range(TRIANGULATIONS):
        p, triangles = triangulate(points[clear(points)])
        ends = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        i, j = np.divmod(np.unique(ends[:, 0] * len(p) + ends[:, 1]), len(p))
        for _ in range(MOVES):
            bar = p[i] - p[j]
            length = np.linalg.norm(bar, axis=1)
            wanted = size((p[i] + p[j]) / 2)
            wanted *= 1.2 * np.sqrt(np.sum(length**2) / np.sum(wanted**2))
            force = (np.maximum(wanted - length, 0) / length)[:, None] * bar
            total = np.zeros_like(p)
            np.add.at(total, i, force)
            np.add.at(total, j, -force)
            p[arcs:] += 0.2 * total[arcs:]
        points = p[arcs:]
    return _boundary_first(curve.point, *triangulate(points[clear(points)]), t)


def _boundary_first(
    curve: Callable[[np.ndarray], np.ndarray], points: np.ndarray, triangles: np.ndarray, t: np.ndarray
) -> Macro:
    """Order triangles as `Macro` wants them; nodes 0, 1, ... are on the boundary, at parameters t."""
    arcs = len(t) - 1
    p = points[triangles]
    first, second = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    clockwise = first[:, 0] * second[:, 1] < first[:, 1] * second[:, 0]
    triangles = np.where(clockwise[:, None], triangles[:, ::-1], triangles)
    following = np.roll(triangles, -1, axis=1)
    outer = (triangles < arcs) & (following == (triangles + 1) % arcs)
    if sorted(triangles[outer]) != list(range(arcs)) or outer.sum(axis=1).max() > 1:
        raise GeometryError(f"arcs={arcs}: the macro mesh does not fit the boundary, or has ears; use more")
    turned = np.where(outer.any(axis=1), outer.argmax(axis=1), 0)
    triangles = np.take_along_axis(triangles, (turned[:, None] + np.arange(3)) % 3, axis=1)
    order = np.argsort(~outer.any(axis=1), kind="stable")
    triangles = triangles[order]
    starts = triangles[:arcs, 0]
    return Macro(curve, points, triangles, np.column_stack([t[starts], t[starts + 1]]))


class Triangles(MeshTri1):
    """A triangle mesh whose edges are found by sorting one integer each: faster than sorting columns."""

    def _init_facets(self) -> None:
        a = np.concatenate([self.t[0], self.t[1], self.t[0]]).astype(np.int64)
        b = np.concatenate([self.t[1], self.t[2], self.t[2]])
        keys, edge, count = np.unique(a * self.nvertices + b, return_inverse=True, return_counts=True)
        self._facets = np.ascontiguousarray(np.stack(np.divmod(keys, self.nvertices)).astype(np.int32))
        self._t2f = edge.reshape(3, -1).astype(np.int32)
        self.outer = np.flatnonzero(count == 1).astype(np.int32)


@dataclass(frozen=True)
class Mesh:
    """Triangles with the degrees of freedom of one element.

    Attributes
    ----------
    triangles : Triangles
    dofs : Dofs
    curved : ndarray of int
        Triangles that are mapped isoparametrically; empty for degree 1.
    outer : ndarray of int
        Degrees of freedom on the boundary.
    doflocs : ndarray, shape (2, dofs.N)
        Positions of the degrees of freedom, in curved triangles and at vertices only.
    """

    triangles: Triangles
    dofs: Dofs
    degree: int
    curved: np.ndarray
    outer: np.ndarray
    doflocs: np.ndarray

    def dim(self) -> int:
        """Return 2; with `dofs` and `doflocs` all that `MappingIsoparametric` asks of a mesh."""
        return 2


def subdivide(macro: Macro, n: int, degree: int) -> Mesh:
    """Divide each macro triangle into n^2 triangles and place the nodes of an element."""
    corners, cells = _lattice(n)
    t, count = macro.triangles, len(macro.points)
    ends = np.stack([t, np.roll(t, -1, axis=1)], axis=2)
    keys, edge = np.unique(ends.min(axis=2) * count + ends.max(axis=2), return_inverse=True)
    edge = edge.reshape(-1, 3)
    number = np.empty((len(t), len(corners)), dtype=np.int64)
    interior = np.ones(len(corners), dtype=bool)
    for c in range(3):
        # Nodes of the edge from corner c to the next, in this order.
        along = np.flatnonzero(corners[:, (c + 2) % 3] == 0)
        along = along[np.argsort(corners[along, (c + 1) % 3])]
        interior[along] = False
        number[:, along[0]] = t[:, c]
        k = np.arange(n - 1)
        forward = (ends[:, c, 0] < ends[:, c, 1])[:, None]
        number[:, along[1:-1]] = count + edge[:, c, None] * (n - 1) + np.where(forward, k, n - 2 - k)
    own = int(interior.sum())
    first = count + len(keys) * (n - 1)
    number[:, interior] = first + np.arange(len(t) * own).reshape(len(t), own)
    points = np.empty((first + len(t) * own, 2))
    which = np.repeat(np.arange(len(t)), len(corners))
    points[number.ravel()] = macro.map(which, np.tile(corners / n, (len(t), 1)))
    vertices = number[:, cells]
    order = np.argsort(vertices, axis=2)
    triangles = Triangles(
        np.ascontiguousarray(points.T),
        np.ascontiguousarray(np.take_along_axis(vertices, order, axis=2).reshape(-1, 3).T),
    )
    element = ELEMENTS[degree]()
    dofs = Dofs(triangles, element)
    doflocs = np.zeros((2, dofs.N))
    doflocs[:, : len(points)] = points.T
    curved = np.arange(macro.curved * n**2 if degree > 1 else 0)
    outer = np.unique(number[: macro.curved, corners[:, 2] == 0])
    if degree > 1:
        outer = np.concatenate([outer, dofs.facet_dofs[:, triangles.outer].ravel()])
        local = np.column_stack([1 - element.doflocs.sum(axis=1), element.doflocs])
        inside = np.broadcast_to(corners[cells] / n, (macro.curved, n**2, 3, 3))
        inside = np.take_along_axis(inside, order[: macro.curved, :, :, None], axis=2).reshape(-1, 3, 3)
        weights = np.einsum("lc,tcw->tlw", local, inside)
        which = np.repeat(np.arange(macro.curved), n**2 * len(local))
        x = macro.map(which, weights.reshape(-1, 3))
        doflocs[:, dofs.element_dofs[:, curved].T.ravel()] = x.T
    return Mesh(triangles, dofs, degree, curved, outer, doflocs)


def _lattice(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Barycentric coordinates times n of a triangle's lattice, and its n^2 triangles by index."""
    i, j = (index.ravel() for index in np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij"))
    keep = i + j <= n
    number = np.cumsum(keep) - 1
    at = number.reshape(n + 1, n + 1)
    i, j = i[keep], j[keep]
    up, down = i + j < n, i + j < n - 1
    upper = np.stack([at[i[up], j[up]], at[i[up] + 1, j[up]], at[i[up], j[up] + 1]], axis=1)
    a, b = i[down], j[down]
    lower = np.stack([at[a + 1, b + 1], at[a, b + 1], at[a + 1, b]], axis=1)
    return np.stack([n - i - j, i, j], axis=1), np.concatenate([upper, lower])


@BilinearForm
def stiffness(u, v, w):  # type: ignore[no-untyped-def]
    return u.grad[0] * v.grad[0] + u.grad[1] * v.grad[1]


@LinearForm
def load(v, w):  # type: ignore[no-untyped-def]
    return -w["f"] * v


def bases(mesh: Mesh, order: int) -> list[Basis]:
    """Return the bases on the affine and on the curved triangles, with quadrature of an order."""
    element = ELEMENTS[mesh.degree]()
    total = mesh.triangles.nelements
    affine = np.arange(len(mesh.curved), total)
    result = []
    if len(affine):
        result.append((MappingAffine(mesh.triangles), affine))
    if len(mesh.curved):
        result.append((MappingIsoparametric(mesh, element), mesh.curved))
    return [
        Basis(
            mesh.triangles,
            element,
            mapping=mapping,
            intorder=order,
            elements=part,
            dofs=mesh.dofs,
            disable_doflocs=True,
        )
        for mapping, part in result
    ]


def assemble(
    mesh: Mesh, source: Callable, data: Callable
) -> tuple[csr_matrix, np.ndarray, np.ndarray, np.ndarray]:
    """Assemble -Laplace u = -f with u = g on the boundary.

    Returns
    -------
    matrix, rhs
        Of the free degrees of freedom.
    values : ndarray
        g on the boundary, zero elsewhere.
    free : ndarray of int
    """
    # Enough for the optimal order in L2 (Ciarlet, 1978, section 4.1); more changes no error by 2 %.
    parts = bases(mesh, 2 * mesh.degree - 2)
    matrix = sum(stiffness.assemble(basis) for basis in parts)
    rhs = sum(load.assemble(basis, f=source(*np.asarray(basis.global_coordinates()))) for basis in parts)
    values = np.zeros(mesh.dofs.N)
    values[mesh.outer] = data(*mesh.doflocs[:, mesh.outer])
    free = np.delete(np.arange(mesh.dofs.N), mesh.outer)
    rows = matrix[free]
    return rows[:, free], rhs[free] - rows @ values, values, free


def direct(matrix: csr_matrix, rhs: np.ndarray) -> np.ndarray:
    """Solve a symmetric positive definite system by sparse LU."""
    # Minimum degree takes up to eight times as long on the numbering by vertices, edges, triangles.
    order = reverse_cuthill_mckee(matrix, symmetric_mode=True)
    options = {"SymmetricMode": True}
    lu = splu(matrix[order][:, order].tocsc(), "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    x = np.empty_like(rhs)
    x[order] = lu.solve(rhs[order])
    return x


def multigrid(matrix: csr_matrix, rhs: np.ndarray, tolerance: float) -> np.ndarray:
    """Solve by conjugate gradients with smoothed aggregation, to a relative residual."""
    hierarchy = pyamg.smoothed_aggregation_solver(matrix)
    return hierarchy.solve(rhs, tol=tolerance, accel="cg", maxiter=300)


def l2_error(mesh: Mesh, values: np.ndarray, exact: Callable) -> float:
    """Return the root of the mean of |u_h - u|^2 over the meshed domain.

    Raises
    ------
    GeometryError
        If a curved triangle is folded.
    """
    squares = area = 0.0
    for basis in bases(mesh, 2 * mesh.degree + 4):
        jacobian = basis.mapping.detDF(basis.X, basis.tind)
        if (jacobian.min(axis=1) * jacobian.max(axis=1) <= 0).any():
            raise GeometryError("a curved triangle is folded: lower `bend` of the macro mesh")
        error = basis.interpolate(values) - exact(*np.asarray(basis.global_coordinates()))
        squares += float(np.sum(np.asarray(error) ** 2 * basis.dx))
        area += float(basis.dx.sum())
    return float(np.sqrt(squares / area))
