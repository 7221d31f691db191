"""Quadrature on curved domains cut out of a Cartesian grid, and on their boundaries.

Cells inside get tensor Gauss rules. In a cut cell the interface is a graph over a face, the *base*, and
the integral one over the base of integrals along lines in the *height* direction, split where they
meet {phi = 0}. The outer integrand is smooth but where the interface leaves through the two end faces,
so the base is split, by the same procedure one dimension lower, at the zeros of phi on both: R. I. Saye,
SIAM J. Sci. Comput. 37, A993 (2015). Saye bounds slopes by interval arithmetic; here ``phi`` is a black
box with kinks (set operations), so rules are checked and the cells that fail are bisected.

All work is on unit cells: a *function* maps cell numbers (m,) and points (m, d) of the unit cell of
dimension d to values (m,).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from sciml.errors import ConfigError, GeometryError

from .domains import BoundaryPoints, Domain
from .grid import CartesianGrid
from .legendre import gauss
from .plane import PlaneDomain

__all__ = ["boundary_quadrature", "cut_cell_quadrature"]

CellFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]

LATTICE = np.linspace(0.0, 1.0, 5)  # coordinates at which a function's signs are looked at first
END_NODES = np.array([1e-3, 1 - 1e-3])  # where the ends of a smooth piece are looked at
BISECTIONS = {1: 16, 2: 12, 3: 5}
"""How often a cut cell is bisected, per dimension: kinks have dimension D - 2, so 3D must stop early."""

CHUNK = 4096  # cut cells treated at once, which bounds the memory


class _Rule(NamedTuple):
    """Nodes of all cells: cell number (m,), points (m, d), weights (m,), smooth piece (m,)."""

    cell: np.ndarray
    points: np.ndarray
    weights: np.ndarray
    piece: np.ndarray


def _gauss(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss nodes and weights on [0, 1], exact to degree ``order`` at least."""
    if order < 1:
        raise ConfigError(f"order={order}: it must be at least 1")
    return gauss(-(-(order + 1) // 2))


def _tensor(axes: list[np.ndarray]) -> np.ndarray:
    """Return all points with coordinates from the axes, shape (n, D)."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _lift(points: np.ndarray, axis: int, value: np.ndarray | float) -> np.ndarray:
    """Return points with a coordinate put in at an axis."""
    lifted = np.empty((len(points), points.shape[1] + 1))
    lifted[:, :axis], lifted[:, axis], lifted[:, axis + 1 :] = points[:, :axis], value, points[:, axis:]
    return lifted


def _face(function: CellFunction, axis: int, side: float) -> CellFunction:
    return lambda cell, points: function(cell, _lift(points, axis, side))


def _lattice_values(function: CellFunction, cells: np.ndarray, dim: int) -> np.ndarray:
    """Return values on the lattice of every cell, shape (n, 5, ..., 5)."""
    lattice = _tensor([LATTICE] * dim)
    values = function(np.repeat(cells, len(lattice)), np.tile(lattice, (len(cells), 1)))
    return values.reshape(len(cells), *[len(LATTICE)] * dim)


def _zero(function: Callable, bracket: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return one zero of function(number, t) per bracket (m, 2): the Illinois method, then bisection."""
    a, b, fa, fb = *bracket.T, *values.T
    active, zeros, halve = np.arange(len(bracket)), b.copy(), np.zeros(len(bracket), dtype=bool)
    for step in range(90):
        with np.errstate(invalid="ignore"):
            t = np.where(halve | (step >= 25), 0.5 * (a + b), b - fb * (b - a) / (fb - fa))
        ft = function(active, t)
        crossed = (ft < 0) != (fb < 0)
        halve = np.abs(t - b) <= 1e-14
        a, fa = np.where(crossed, b, a), np.where(crossed, fb, 0.5 * fa)
        b, fb = t, ft
        # A small step is at a zero only if the sign changes there: another zero just outside stops it too.
        small = np.flatnonzero(halve)
        probe = t[small] + np.copysign(2e-14, a[small] - t[small])
        halve[small] = (function(active[small], probe) < 0) == (ft[small] < 0)
        zeros[active] = t
        going = (ft != 0) & (np.abs(a - b) > 2e-14) & (halve | ~np.isin(np.arange(len(t)), small))
        active, halve = active[going], halve[going]
        a, b, fa, fb = a[going], b[going], fa[going], fb[going]
        if len(active) == 0:
            break
    return zeros


def _on_lines(function: CellFunction, cell: np.ndarray, base: np.ndarray, axis: int) -> Callable:
    """Return a function of line number and coordinate on the lines over base points along an axis."""
    return lambda line, t: function(cell[line], _lift(base[line], axis, t))


def _line_zeros(function: CellFunction, base: _Rule, axis: int) -> np.ndarray:
    """Return the zeros of a function on the lines over base points, ascending: (m, r), NaN-padded."""
    on_line = _on_lines(function, base.cell, base.points, axis)
    lines = np.arange(len(base.cell))
    t = np.tile(LATTICE, (len(lines), 1))
    values = on_line(np.repeat(lines, t.shape[1]), t.ravel()).reshape(t.shape)
    # A pair of zeros between samples shows as a minimum of |f|: add its abscissa, by parabolas.
    for _ in range(3):
        middle = np.abs(values).argmin(axis=1).clip(1, t.shape[1] - 2)
        (ta, tb, tc), (fa, fb, fc) = ([array[lines, middle + i] for i in (-1, 0, 1)] for array in (t, values))
        with np.errstate(divide="ignore", invalid="ignore"):
            left, right = (fb - fa) / (tb - ta), (fc - fb) / (tc - tb)
            bend = (right - left) / (tc - ta)
            vertex = 0.5 * (ta + tb) - left / (2 * bend)
            depth = fa - bend * (vertex - ta) ** 2
            near = (vertex > ta) & (vertex < tc) & (fa * fb > 0) & (fb * fc > 0)
            near &= (depth * fb < 0) | (np.abs(depth) < 0.1 * np.abs(fb - depth))
        chosen = np.flatnonzero(near)
        if len(chosen) == 0:
            break
        extra_t, extra = tb.copy(), fb.copy()
        extra_t[chosen], extra[chosen] = vertex[chosen], on_line(chosen, vertex[chosen])
        t, values = np.column_stack([t, extra_t]), np.column_stack([values, extra])
        order = t.argsort(axis=1, kind="stable")
        t, values = np.take_along_axis(t, order, axis=1), np.take_along_axis(values, order, axis=1)
    line, at = np.nonzero(np.diff(values < 0, axis=1))
    pick = (line[:, None], at[:, None] + np.arange(2))
    zeros = _zero(lambda i, x: on_line(line[i], x), t[pick], values[pick])
    # Zeros at the ends are the base's business; round-off would count them on some lines only.
    kept = (zeros > 1e-13) & (zeros < 1 - 1e-13)
    table = np.full(values.shape, np.nan)
    table[line[kept], at[kept]] = zeros[kept]
    table.sort(axis=1)
    return table[:, : np.isfinite(table).sum(axis=1).max(initial=0)]


def _outline(function: CellFunction, cells: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cell numbers and positions of the zeros on lattice edges."""
    values = _lattice_values(function, cells, dim)
    found, points = [], []
    for d in range(dim):
        low = np.argwhere(np.diff(values < 0, axis=d + 1))
        high = low + np.eye(dim + 1, dtype=int)[d + 1]
        cell, base = cells[low[:, 0]], np.delete(LATTICE[low[:, 1:]], d, axis=1)
        bracket = np.column_stack([LATTICE[low[:, d + 1]], LATTICE[high[:, d + 1]]])
        ends = np.column_stack([values[tuple(low.T)], values[tuple(high.T)]])
        points.append(_lift(base, d, _zero(_on_lines(function, cell, base, d), bracket, ends)))
        found.append(cell)
    return np.concatenate(found), np.concatenate(points)


def _spread(group: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest value in each entry's group."""
    kinds, group = np.unique(group, return_inverse=True)
    low, high = np.full(len(kinds), np.inf), np.full(len(kinds), -np.inf)
    np.minimum.at(low, group, values)
    np.maximum.at(high, group, values)
    return low[group], high[group]


def _gradient(function: CellFunction, cell: np.ndarray, points: np.ndarray, step: float) -> np.ndarray:
    """Return the gradient on unit cells by fourth-order central differences, shape (m, d)."""
    shifts = step * np.eye(points.shape[1])
    near = [function(cell, points + s) - function(cell, points - s) for s in shifts]
    far = [function(cell, points + 2 * s) - function(cell, points - 2 * s) for s in shifts]
    return (8 * np.stack(near, axis=-1) - np.stack(far, axis=-1)) / (12 * step)


@dataclass
class _CutCells:
    """Boxes that a boundary may pass: corners and edge lengths (n, D); dimension reduction on them.

    ``rough`` (n,) marks the cells on which the reduction has failed.
    """

    phi: Callable[[np.ndarray], np.ndarray]
    order: int
    lower: np.ndarray
    size: np.ndarray

    def __post_init__(self) -> None:
        self.rough = np.zeros(len(self.lower), dtype=bool)

    def halves(self, chosen: np.ndarray) -> "_CutCells":
        """Return the 2^D halves of the chosen boxes."""
        corners = _tensor([np.array([0.0, 0.5])] * self.lower.shape[1])
        lower = self.lower[chosen, None] + self.size[chosen, None] * corners
        size = np.repeat(0.5 * self.size[chosen], len(corners), axis=0)
        return _CutCells(self.phi, self.order, lower.reshape(size.shape), size)

    def place(self, cell: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return the positions of points of the unit cells."""
        return self.lower[cell] + self.size[cell] * points

    def level(self, cell: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return phi at points of the unit cells."""
        return self.phi(self.place(cell, points))

    def height_axis(self, functions: list[CellFunction], cells: np.ndarray, dim: int) -> np.ndarray:
        """Return the axis along which the functions are steepest across their zeros, for every cell.

        Marks as rough the cells where a function may touch zero between the lattice's points only.
        """
        score = np.zeros((len(cells), dim))
        inner = tuple(range(1, dim + 1))
        for function in functions:
            values = _lattice_values(function, cells, dim)
            values /= np.maximum(np.abs(values).max(axis=inner, keepdims=True), np.finfo(float).tiny)
            bend = np.zeros(len(cells))
            for d in range(dim):
                step = np.abs(np.diff(values, axis=d + 1))
                flip = np.diff(values < 0, axis=d + 1)
                # Without crossings any axis will do; the small term takes the steepest.
                score[:, d] += (step * (flip + 1e-3)).sum(axis=inner)
                bend = np.maximum(bend, np.abs(np.diff(values, n=2, axis=d + 1)).max(axis=inner))
            least = np.abs(values).min(axis=inner)
            one_sign = (values < 0).all(axis=inner) | (values >= 0).all(axis=inner)
            # Bends of round-off size are those of a plane in a face, not of a near miss.
            self.rough[cells] |= one_sign & (least < bend) & (bend > 1e-9)
        return score.argmax(axis=1)

    def mark_jumps(
        self, function: CellFunction, cell: np.ndarray, points: np.ndarray, axis: int, group: np.ndarray
    ) -> None:
        """Mark cells where the zeros' slopes as a graph over an axis vary too much within a group."""
        gradient = _gradient(function, cell, points, 1e-5)
        with np.errstate(divide="ignore", invalid="ignore"):
            for slope in np.delete(gradient, axis, axis=1).T / gradient[:, axis]:
                low, high = _spread(group, slope)
                size = np.where(low * high > 0, np.minimum(np.abs(low), np.abs(high)), 0.0)
                self.rough[cell[~(high - low < 0.25 * (1 + size))]] = True

    def heights(
        self, functions: list[CellFunction], cells: np.ndarray, dim: int, axis: int
    ) -> tuple[_Rule, list[np.ndarray]]:
        """Return a rule on the base of cells and each function's zeros on the lines over it.

        Marks as rough the cells where the zeros' number or slope jumps within a piece of the base.
        """
        faces = [_face(function, axis, side) for function in functions for side in (0.0, 1.0)]
        base = self.split(faces, cells, dim - 1, base=True)
        zeros = [_line_zeros(function, base, axis) for function in functions]
        for function, z in zip(functions, zeros, strict=True):
            low, high = _spread(base.piece, np.isfinite(z).sum(axis=1))
            self.rough[base.cell[low != high]] = True
            line, branch = np.nonzero(np.isfinite(z))
            points = _lift(base.points[line], axis, z[line, branch])
            self.mark_jumps(function, base.cell[line], points, axis, base.piece[line] * z.shape[1] + branch)
        return base, zeros

    def split(self, functions: list[CellFunction], cells: np.ndarray, dim: int, base: bool = False) -> _Rule:
        """Return a rule on whole unit cells for integrands smooth but at the functions' zeros.

        On a base every piece also gets nodes of weight zero near its ends, for `heights` to see
        interfaces that turn back just beyond the last Gauss node.
        """
        if dim == 0:
            return _Rule(cells, np.empty((len(cells), 0)), np.ones(len(cells)), np.arange(len(cells)))
        nodes, node_weights = _gauss(self.order)
        if base:
            nodes, node_weights = np.concatenate([nodes, END_NODES]), np.append(node_weights, (0.0, 0.0))
        axes = self.height_axis(functions, cells, dim) if dim > 1 else np.zeros(len(cells))
        rules, pieces = [], 0
        for axis in map(int, np.unique(axes)):
            lines, zeros = self.heights(functions, cells[axes == axis], dim, axis)
            m = len(lines.cell)
            ends = np.sort(np.concatenate([np.zeros((m, 1)), np.ones((m, 1)), *zeros], axis=1), axis=1)
            length = np.diff(ends, axis=1)
            line, at = np.nonzero((length > 0) & (base | (lines.weights[:, None] > 0)))
            start, length = ends[line, at, None], length[line, at, None]
            piece = pieces + lines.piece[line] * ends.shape[1] + at
            pieces = int(piece.max(initial=pieces)) + 1
            weights = (lines.weights[line, None] * length * node_weights).ravel()
            line, piece = np.repeat(line, len(nodes)), np.repeat(piece, len(nodes))
            points = _lift(lines.points[line], axis, (start + length * nodes).ravel())
            rules.append(_Rule(lines.cell[line], points, weights, piece))
        return _Rule(*map(np.concatenate, zip(*rules, strict=True)))

    def volume(self, last: bool) -> tuple[np.ndarray, ...]:
        """Return cell numbers, points and weights of a rule on the inside."""
        rule = self.split([self.level], np.arange(len(self.lower)), self.lower.shape[1])
        points = self.place(rule.cell, rule.points)
        inside = self.phi(points) < 0
        low, high = _spread(rule.piece, inside)
        self.rough[rule.cell[low != high]] = True
        return rule.cell[inside], points[inside], (rule.weights * self.size[rule.cell].prod(axis=1))[inside]

    def surface(self, last: bool) -> tuple[np.ndarray, ...]:
        """Return cell numbers, points, normals and weights of a rule on {phi = 0}.

        With normal n and height direction e, dS = dx / |n.e|, x in the base. In the last round, where no
        direction may do, dS = sum_e (n.e)^2 dS = sum_e |n.e| dx covers all walls with bounded weights.
        """
        cells, dim = np.arange(len(self.lower)), self.lower.shape[1]
        axes = self.height_axis([self.level], cells, dim)
        parts: list[tuple[np.ndarray, ...]] = []
        for axis in range(dim) if last else map(int, np.unique(axes)):
            mine = cells if last else cells[axes == axis]
            # A wall along the height direction is on no line: the heights alone cannot tell.
            if not last:
                cell, points = _outline(self.level, mine, dim)
                self.mark_jumps(self.level, cell, points, axis, cell)
            base, (zeros,) = self.heights([self.level], mine, dim, axis)
            line, branch = np.nonzero(np.isfinite(zeros) & (base.weights[:, None] > 0))
            cell, points = base.cell[line], _lift(base.points[line], axis, zeros[line, branch])
            gradient = _gradient(self.level, cell, points, 2e-3) / self.size[cell]
            normals = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
            cosine = np.abs(normals[:, axis])
            area = self.size[cell].prod(axis=1) / self.size[cell, axis]
            weights = base.weights[line] * area * (cosine if last else 1 / cosine)
            parts.append((cell, self.place(cell, points), normals, weights))
        return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _adaptive(cells: _CutCells, reduction: Callable) -> tuple[np.ndarray, ...]:
    """Return what a reduction gives beside cell numbers, bisecting the cells that it is not good for."""
    limit, parts = BISECTIONS[cells.lower.shape[1]], []
    for level in range(limit + 1):
        for first in range(0, len(cells.lower), CHUNK):
            chunk = slice(first, first + CHUNK)
            part = _CutCells(cells.phi, cells.order, cells.lower[chunk], cells.size[chunk])
            cell, *found = reduction(part, level == limit)
            kept = ~part.rough[cell] | (level == limit)
            parts.append([array[kept] for array in found])
            cells.rough[chunk] = part.rough
        cells = cells.halves(np.flatnonzero(cells.rough))
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def _classify(domain: Domain, grid: CartesianGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the indices of the cells inside (a, D) and cut (b, D), and the boundary's corners (c, D)."""
    h, lower, cells = np.array(grid.spacing), np.array(grid.lower), np.array(grid.cells)
    nodes = lower + h * _tensor([np.arange(n + 1) for n in cells])
    negative = (domain.phi(nodes) < 0).reshape(cells + 1)
    corners = np.lib.stride_tricks.sliding_window_view(negative, (2,) * grid.dim)
    corners = corners.reshape(*cells, 2**grid.dim)
    cut = np.asarray(corners.any(axis=-1) & ~corners.all(axis=-1))
    samples = domain.boundary(float(h.min()) / 4).points
    # Between samples, up to two steps apart, the boundary may reach into cells that hold none.
    for shift in itertools.product((-0.5, 0.5), repeat=grid.dim):
        index = np.floor((samples - lower) / h + shift).astype(int)
        cut[tuple(np.clip(index, 0, cells - 1).T)] = True
    # Each of two arcs has a sample at their corner; in 3D corners are lines, of no use for cutting.
    pairs = cKDTree(samples).query_pairs(1e-9 * float(h.min()), output_type="ndarray")
    kinks = samples[np.unique(pairs[:, 0])] if grid.dim == 2 else samples[:0]
    return np.argwhere(corners[..., 0] & ~cut), np.argwhere(cut), kinks


def _cut_at(lower: np.ndarray, size: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut boxes along all axes at the points that they contain, so that kinks lie at vertices."""
    margin = 1e-10 * size.max(initial=0.0)
    for corner in corners:
        holds = ((lower < corner + margin) & (corner - margin < lower + size)).all(axis=1)
        for d in range(lower.shape[1]):
            offset = corner[d] - lower[:, d]
            cut = holds & (offset > margin) & (offset < size[:, d] - margin)
            upper_lower, upper_size = lower[cut], size[cut]
            upper_lower[:, d], upper_size[:, d] = corner[d], upper_size[:, d] - offset[cut]
            size[cut, d] = offset[cut]
            lower, size = np.concatenate([lower, upper_lower]), np.concatenate([size, upper_size])
            holds = np.concatenate([holds, holds[cut]])
    return lower, size


def cut_cell_quadrature(domain: Domain, grid: CartesianGrid, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points and weights that integrate over the inside {phi < 0} of a domain.

    Parameters
    ----------
    domain : Domain
        Only ``dim``, ``phi``, ``bounds`` and ``boundary`` are used. ``phi`` may have kinks.
    grid : CartesianGrid
        Its cells, of edge length h, are the ones integrated over; it must cover the domain.
    order : int
        The error for smooth integrands is O(h^order) or better: Gauss rules with
        ceil((order + 1) / 2) points per direction are used on every smooth piece.

    Returns
    -------
    points : ndarray, shape (m, D)
        All inside the domain.
    weights : ndarray, shape (m,)
        All positive.

    Raises
    ------
    ConfigError
        If ``order`` is below 1.
    GeometryError
        If the numbers of dimensions differ, or the domain is not within the grid's box.

    Notes
    -----
    In the plane corners of the boundary keep the order: cells are cut at them. Edges in 3D are only
    approached by bisection, down to h / 32, where the order is lost; edges along axes are exact.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid, Disk
    >>> points, weights = cut_cell_quadrature(Disk(0.4), CartesianGrid.uniform(10), order=6)
    >>> bool(abs(weights.sum() - np.pi * 0.4**2) < 1e-8)
    True
    """
    nodes, node_weights = _gauss(order)
    if domain.dim != grid.dim:
        raise GeometryError(
            f"domain has {domain.dim} dimensions and grid {grid.dim}: use a grid of the domain's dimension"
        )
    h, lower = np.array(grid.spacing), np.array(grid.lower)
    low, high = domain.bounds
    if (low < lower - 1e-9 * h).any() or (high > np.array(grid.upper) + 1e-9 * h).any():
        raise GeometryError(
            f"grid from {grid.lower} to {grid.upper} does not cover the domain, which reaches from "
            f"{tuple(map(float, low))} to {tuple(map(float, high))}: enlarge the grid"
        )
    full, cut, corners = _classify(domain, grid)
    inner = (lower + h * (full[:, None] + _tensor([nodes] * grid.dim))).reshape(-1, grid.dim)
    inner_weights = np.tile(h.prod() * _tensor([node_weights] * grid.dim).prod(axis=1), len(full))
    boxes = _cut_at(lower + h * cut, np.tile(h, (len(cut), 1)), corners)
    points, weights = _adaptive(_CutCells(domain.phi, order, *boxes), _CutCells.volume)
    return np.concatenate([inner, points]), np.concatenate([inner_weights, weights])


def _arc_quadrature(domain: PlaneDomain, spacing: float, order: int) -> tuple[BoundaryPoints, np.ndarray]:
    """Return Gauss rules in the parameter of every arc, on pieces of length at most ``spacing``."""
    nodes, node_weights = _gauss(order)
    parts = []
    for number, arc in enumerate(domain.arcs()):
        ends = arc.equispaced(spacing)
        ends = np.append(ends, arc.stop) if arc.closed else ends
        step = np.diff(ends)[:, None]
        t = (ends[:-1, None] + step * nodes).ravel()
        position, tangent, _ = arc.curve.derivatives(t)
        arc_weights = (step * node_weights).ravel() * np.linalg.norm(tangent, axis=-1)
        parts.append((position, arc.normal(t), np.full(len(t), number), arc_weights))
    *samples, weights = map(np.concatenate, zip(*parts, strict=True))
    return BoundaryPoints(*samples), weights


def boundary_quadrature(domain: Domain, spacing: float, order: int) -> tuple[BoundaryPoints, np.ndarray]:
    """Return points and weights that integrate over the boundary of a domain.

    Parameters
    ----------
    domain : Domain
        A `PlaneDomain` is integrated along its arcs; of all others {phi = 0} is integrated by
        dimension reduction in the cells of a grid, from ``phi``, ``bounds`` and ``boundary``.
    spacing : float
        Greatest length of a piece of an arc, or edge length of the cells.
    order : int
        The error for smooth integrands is O(spacing^order) or better.

    Returns
    -------
    points : BoundaryPoints
        Positions, outward unit normals, and arc numbers (zero where there are no arcs).
    weights : ndarray, shape (m,)
        Arc lengths or areas, all positive.

    Raises
    ------
    ConfigError
        If ``order`` is below 1 or ``spacing`` is not positive.

    Notes
    -----
    Without arcs normals come from differences of ``phi``, accurate to about 1e-11, and edges that are
    not along axes are approached by bisection, to an error of the order of the last cells' size.

    Examples
    --------
    >>> from sciml.solvers import Disk
    >>> points, weights = boundary_quadrature(Disk(0.5), spacing=0.1, order=4)
    >>> float(round(weights.sum(), 12)), points.points.shape == points.normals.shape
    (3.14159265359, True)
    """
    if not spacing > 0:
        raise ConfigError(f"spacing={spacing}: it must be positive")
    if isinstance(domain, PlaneDomain):
        return _arc_quadrature(domain, spacing, order)
    _gauss(order)
    low, high = map(np.asarray, domain.bounds)
    # Zeros in faces are left out: an uneven margin keeps flat sides off them, also after bisection.
    lower = low - spacing * (0.3 + 0.1 * np.sqrt([2.0, 3.0, 5.0])[: domain.dim])
    cells = np.ceil((high - lower) / spacing + 0.2).astype(int)
    grid = CartesianGrid(tuple(lower), tuple(lower + spacing * cells), tuple(cells))
    cut = _classify(domain, grid)[1]
    boxes = _CutCells(domain.phi, order, lower + spacing * cut, np.full(cut.shape, float(spacing)))
    points, normals, weights = _adaptive(boxes, _CutCells.surface)
    return BoundaryPoints(points, normals, np.zeros(len(points), dtype=int)), weights
