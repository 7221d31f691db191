"""What a local fit is made of: nodes that its node sees, and boundary points around it."""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.spatial import cKDTree

from sciml.errors import ConfigError, GeometryError, StencilError

from ..domains import BoundaryPoints, Domain
from ..grid import CartesianGrid
from ..polynomials import multi_indices
from .lattice import canonical_forms, canonical_search, lattice_points
from .links import cut_links, facing, leaves, outside
from .stencil import enrich

__all__ = ["BoundaryNeighbours", "Neighbourhoods", "too_thin"]

INSIDE_TOLERANCE = 1e-10  # of h: nodes closer to the boundary than this count as on it
BOUNDARY_RADIUS = 2.0  # of h: boundary points used around a node
BOUNDARY_NEIGHBOURS = {1: 2, 2: 12, 3: 20}
VISIBILITY_TOLERANCE = 0.1  # of h: how far a line of sight may leave the domain
CHUNK = 1 << 23  # window entries handled at a time


@dataclass(frozen=True)
class BoundaryNeighbours:
    """Boundary data of k nodes.

    Attributes
    ----------
    xi : ndarray, shape (k, r, D)
        Positions relative to the node, in spacings; the first is the foot point of the node.
    valid : ndarray of bool, shape (k, r)
    column : ndarray of int, shape (k, r)
        Indices into ``points``.
    points : BoundaryPoints
        The k foot points, then all boundary points of the grid's spacing.
    """

    xi: np.ndarray
    valid: np.ndarray
    column: np.ndarray
    points: BoundaryPoints


class Neighbourhoods:
    """Nodes inside a domain, and around any of them what a local fit of given degree may use.

    Parameters
    ----------
    domain : Domain
    grid : CartesianGrid
    degree : int
        n of the polynomials.
    enrichment : float
        rho: fits use (1 + rho) N nodes.
    node_limit : int
        Of the depth-first lattice search.

    Attributes
    ----------
    inside : ndarray of bool, shape grid.shape
    index : ndarray of int, shape (m, D)
        Grid indices of the nodes inside.
    cut : ndarray of bool, shape (D, *grid.shape)
        Links between inside nodes that leave the domain.
    thin_gaps : ndarray, shape (g, D)
        Boundary points that face others across less than about a fifth of the spacing, in 3D one and a
        half: gaps that only tracing finds.

    Raises
    ------
    GeometryError
        If the domain is not inside the grid's box, or no node is inside the domain.
    """

    def __init__(
        self, domain: Domain, grid: CartesianGrid, degree: int, enrichment: float, node_limit: int
    ) -> None:
        self.domain, self.grid, self.degree, self.node_limit = domain, grid, degree, node_limit
        self.size = len(multi_indices(degree, grid.dim))
        self.wanted = int(np.ceil((1 + enrichment) * self.size))
        self.inside = _inside(domain, grid)
        self.index = np.argwhere(self.inside)
        spacing = min(grid.spacing) / (8 if grid.dim < 3 else 1)
        samples = domain.boundary(spacing)
        thin = facing(samples, spacing)
        self.cut = cut_links(domain, grid, self.inside, samples, thin)
        self.thin_gaps = samples.points[thin]

    def number(self) -> np.ndarray:
        """Return the position of every node in `index`, -1 outside, shape grid.shape."""
        number = np.full(self.grid.shape, -1)
        number[self.inside] = np.arange(len(self.index))
        return number

    def holds(self, offsets: np.ndarray) -> np.ndarray:
        """Return where a central stencil fits: all its nodes inside, no cut link between, shape (m,)."""
        reach = int(np.abs(offsets).max())
        padded = np.pad(self.inside, reach)
        strides = np.array(padded.strides)
        flat, base = padded.ravel(), (self.index + reach) @ strides
        fits = np.ones(len(base), dtype=bool)
        for offset in offsets:
            fits &= flat[base + offset @ strides]
        return np.asarray(fits & ~self._near_a_cut(reach)[self.inside])

    def _near_a_cut(self, reach: int) -> np.ndarray:
        """Nodes with a cut link in the box of the central stencil around them."""
        cut = self.cut
        ends: np.ndarray = np.any(cut, axis=0)
        for d in range(len(cut)):
            ends = ends | np.roll(cut[d], 1, axis=d)
        box = np.ones((2 * reach + 1,) * len(cut))
        return np.asarray(binary_dilation(ends, box), dtype=bool) if ends.any() else ends

    def nodes(self, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        """Choose the nodes of the fits around inside nodes, shape (k, D).

        One search per distinct pattern of feasible nodes. Where no triangular lattice fits into the
        window it is widened, at last by plain nearest nodes whose rank the fit verifies; both are
        counted.

        Returns
        -------
        offsets : ndarray of int, shape (k, M, D)
            Relative to the centres; padded with zeros.
        valid : ndarray of bool, shape (k, M)
        counts : dict
            Patterns searched, search nodes, windows widened, least-squares fallbacks.

        Raises
        ------
        StencilError
            If the domain is too thin for the stencil at a node.
        """
        dim = self.grid.dim
        capacity = max(self.wanted, int(np.ceil(1.5 * self.size)))
        chosen = np.zeros((len(centres), capacity, dim), dtype=np.int16)
        valid = np.zeros((len(centres), capacity), dtype=bool)
        counts = {"patterns": 0, "widened": 0, "least_squares_fallbacks": 0, "search_nodes": 0}
        remaining = np.arange(len(centres))
        # Next to a wall half of a window is feasible; it should hold the nodes wanted.
        first_radius = self.degree
        while (2 * first_radius + 1) ** dim < 2 * self.wanted:
            first_radius += 1
        last_radius = first_radius + 2
        for radius in range(first_radius, last_radius + 1):
            shape = (2 * radius + 1,) * dim
            keys = self._window_keys(centres[remaining], radius)
            windows, member = np.unique(keys, axis=0, return_inverse=True)
            counts["patterns"] += len(windows)
            windows = np.unpackbits(windows, axis=1, count=shape[0] ** dim).reshape(-1, *shape).astype(bool)
            forms, axes, signs = canonical_forms(windows)
            packed = np.packbits(forms.reshape(len(forms), -1), axis=1)
            _, first, form_of = np.unique(packed, axis=0, return_index=True, return_inverse=True)
            form_of = form_of.ravel()[member.ravel()]
            order = np.argsort(form_of, kind="stable")
            groups = np.split(order, np.cumsum(np.bincount(form_of, minlength=len(first)))[:-1])
            axes, signs = axes[member.ravel()], signs[member.ravel()]
            failed = np.zeros(len(remaining), dtype=bool)
            last = radius == last_radius
            for representative, group in zip(first, groups, strict=True):
                feasible = forms[representative]
                result = canonical_search(feasible.tobytes(), shape, self.degree, self.node_limit)
                counts["search_nodes"] += result.visited
                members = remaining[group]
                if result.lattice is not None:
                    offsets = enrich(feasible, lattice_points(result.lattice), self.wanted)
                elif last and feasible.sum() >= self.size:
                    offsets = enrich(feasible, np.zeros((0, dim), dtype=int), capacity)
                    counts["least_squares_fallbacks"] += len(members)
                elif last:
                    raise too_thin(self.grid.coordinates(centres[members[0]]), self.degree, self.grid)
                else:
                    failed[group] = True
                    continue
                turned = offsets * signs[group, None, :]
                place = np.arange(len(offsets))[:, None]
                chosen[members[:, None, None], place, axes[group, None, :]] = turned
                valid[members, : len(offsets)] = True
            remaining = remaining[failed]
            if len(remaining) == 0:
                break
            counts["widened"] += len(remaining) if radius == first_radius else 0
        return chosen, valid, counts

    def _window_keys(self, centres: np.ndarray, radius: int) -> np.ndarray:
        """Packed bits of the feasible window of every centre, shape (k, bytes)."""
        dim = self.grid.dim
        width = (2 * radius + 1) ** dim
        padded = np.pad(self.inside, radius)
        links = np.stack([np.pad(~cut, radius, constant_values=True) for cut in self.cut])
        no_cut = bool(links.all())
        strides = np.array(padded.strides)
        span = np.stack(np.meshgrid(*[np.arange(2 * radius + 1)] * dim, indexing="ij"), axis=-1)
        span = (span.reshape(-1, dim) @ strides).astype(np.int32)
        base = (centres @ strides).astype(np.int32)
        step = max(CHUNK // width, 1)
        keys = []
        for start in range(0, len(centres), step):
            where = base[start : start + step, None] + span
            windows = padded.ravel()[where].reshape(-1, *(2 * radius + 1,) * dim)
            around = None if no_cut else [link.ravel()[where].reshape(windows.shape) for link in links]
            keys.append(np.packbits(_connected(windows, around).reshape(len(windows), -1), axis=1))
        return np.concatenate(keys) if keys else np.zeros((0, (width + 7) // 8), dtype=np.uint8)

    def boundary(self, centres: np.ndarray) -> BoundaryNeighbours:
        """Find the foot points of inside nodes, shape (k, D), and visible boundary points around."""
        domain, h = self.domain, np.asarray(self.grid.spacing)
        x = self.grid.coordinates(centres)
        feet = domain.closest_point(x)
        boundary = domain.boundary(float(h.min()))
        samples = boundary.points
        # More than are used: behind the nearest side there may be another.
        count = min(3 * BOUNDARY_NEIGHBOURS[self.grid.dim], len(samples))
        distance, nearest = cKDTree(samples / h).query(x / h, k=count, distance_upper_bound=BOUNDARY_RADIUS)
        distance, nearest = distance.reshape(len(x), -1), nearest.reshape(len(x), -1)
        valid = np.isfinite(distance)
        nearest = np.where(valid, nearest, 0)
        # A gap may be too thin to show in phi. Its two sides face each other, and the far one is met from
        # outside.
        narrow = facing(boundary, float(h.min()))
        node, neighbour = np.nonzero(valid & narrow[nearest])
        end = nearest[node, neighbour]
        behind = np.sum((samples[end] - x[node]) * boundary.normals[end], axis=1) < 0
        gap = np.zeros(len(x), dtype=bool)
        gap[node[behind]] = True
        # A point across a gap of the domain carries data of another piece of the solution.
        slope = _slope(domain, boundary, float(h.min()))
        node, neighbour = np.nonzero(valid)
        end = nearest[node, neighbour]
        blocked = np.zeros(len(node), dtype=bool)
        for fraction in np.arange(1, 6) / 6:
            sight = (1 - fraction) * x[node] + fraction * samples[end]
            blocked |= domain.phi(sight) > VISIBILITY_TOLERANCE * h.min() * slope[end]
        valid[node, neighbour] = ~blocked
        node, neighbour = np.nonzero(valid & gap[:, None])
        valid[node, neighbour] = ~outside(domain, x[node], samples[nearest[node, neighbour]])
        if len(self.thin_gaps):
            reach = BOUNDARY_RADIUS * float(h.max())
            gap &= cKDTree(self.thin_gaps).query(x, distance_upper_bound=reach)[0] < reach
            node, neighbour = np.nonzero(valid & gap[:, None])
            valid[node, neighbour] = ~leaves(domain, x[node], samples[nearest[node, neighbour]])
        kept = np.argsort(~valid, axis=1, kind="stable")[:, : BOUNDARY_NEIGHBOURS[self.grid.dim]]
        valid, nearest = np.take_along_axis(valid, kept, axis=1), np.take_along_axis(nearest, kept, axis=1)
        points = np.concatenate([feet.points[:, None, :], samples[nearest]], axis=1)
        column = np.concatenate([np.arange(len(x))[:, None], len(x) + nearest], axis=1)
        valid = np.concatenate([np.ones((len(x), 1), dtype=bool), valid], axis=1)
        return BoundaryNeighbours((points - x[:, None, :]) / h, valid, column, feet + boundary)


def _connected(windows: np.ndarray, links: list[np.ndarray] | None) -> np.ndarray:
    """Restrict feasible windows (k, ...) to the connected component of their centre.

    Nodes that can be reached only around the outside of the window, across a gap of the domain, are
    refused: the solution is not one smooth function there. Cut links do not connect. In windows with
    a cut only paths that never turn back towards the centre count: what lies behind the end of a
    slit is refused with what lies across it.
    """
    dim = windows.ndim - 1
    radius = windows.shape[1] // 2
    if links is not None:
        whole = np.all([link.reshape(len(link), -1).all(axis=1) for link in links], axis=0)
        has_cut = ~whole.reshape(-1, *(1,) * dim)
    reached = np.zeros_like(windows)
    reached[(slice(None), *(radius,) * dim)] = True
    count = -1
    while (new_count := int(np.count_nonzero(reached))) != count:
        count = new_count
        for axis in range(1, dim + 1):
            ahead = [slice(None)] * (dim + 1)
            behind = [slice(None)] * (dim + 1)
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            to, back = tuple(ahead), tuple(behind)
            if links is None:
                reached[to] |= reached[back]
                reached[back] |= reached[to]
            else:
                shape = [1] * (dim + 1)
                shape[axis] = 2 * radius
                outwards = (np.arange(2 * radius) >= radius).reshape(shape)
                link = links[axis - 1][back]
                reached[to] |= reached[back] & link & (outwards | ~has_cut)
                reached[back] |= reached[to] & link & (~outwards | ~has_cut)
            reached &= windows
    return reached


def _inside(domain: Domain, grid: CartesianGrid) -> np.ndarray:
    if any(grid.periodic):
        raise ConfigError(f"grid periodic={grid.periodic}: PLG needs a bounded grid around the domain")
    if domain.dim != grid.dim:
        raise GeometryError(f"a {domain.dim}D domain needs a {domain.dim}D grid, not cells={grid.cells}")
    lower, upper = domain.bounds
    slack = 1e-9 * np.subtract(grid.upper, grid.lower)
    if (lower < np.asarray(grid.lower) - slack).any() or (upper > np.asarray(grid.upper) + slack).any():
        raise GeometryError(
            f"domain from {np.round(lower, 4).tolist()} to {np.round(upper, 4).tolist()} leaves the grid's box "
            f"from {list(grid.lower)} to {list(grid.upper)}: enlarge the box or shrink the domain"
        )
    h = np.asarray(grid.spacing)
    nodes = grid.nodes()
    phi = domain.phi(nodes) / _slope(domain, domain.boundary(float(h.min())), float(h.min())).mean()
    inside = phi < -INSIDE_TOLERANCE * h.min()
    # Where operands of a union merely touch, phi vanishes inside: no direction leads out from there.
    doubtful = np.argwhere(np.abs(phi) <= INSIDE_TOLERANCE * h.min())
    if len(doubtful):
        directions = np.array([d for d in itertools.product((-1, 0, 1), repeat=grid.dim) if any(d)])
        around = domain.phi(nodes[tuple(doubtful.T)][:, None, :] + 1e-3 * h * directions)
        seam = (around <= 0).all(axis=1) & (around < 0).any(axis=1)
        inside[tuple(doubtful[seam].T)] = True
    beyond = inside & ((nodes < lower - h) | (nodes > upper + h)).any(axis=-1)
    if beyond.any():
        raise GeometryError(
            f"phi of {domain} is negative at {nodes[beyond][0].tolist()}, outside the domain's bounds "
            f"{np.round(lower, 4).tolist()} to {np.round(upper, 4).tolist()}: make it positive there"
        )
    if not inside.any():
        raise GeometryError(
            f"no node of the grid with cells={grid.cells} lies inside the domain: use more cells"
        )
    return inside


def _slope(domain: Domain, boundary: BoundaryPoints, h: float) -> np.ndarray:
    """Normal derivative of phi at boundary points: what turns phi into a distance."""
    step = 1e-3 * h * boundary.normals
    slope = (domain.phi(boundary.points + step) - domain.phi(boundary.points - step)) / (2e-3 * h)
    # At a corner one side may be the other operand's.
    return np.maximum(slope, 0.1 * np.median(slope))


def too_thin(position: np.ndarray, degree: int, grid: CartesianGrid) -> StencilError:
    """Return the error for a node around which no fit is possible."""
    return StencilError(
        f"the domain is thinner than the stencil of degree {degree} near {np.round(position, 4).tolist()} "
        f"at cells={grid.cells}: use about {2 * max(grid.cells)} cells per axis, or a lower degree"
    )
