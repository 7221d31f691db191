"""The PLG finite difference method: from a problem and a grid to a sparse system.

Unknowns are the grid nodes inside the domain. *Regular* nodes, whose whole central stencil lies
inside, carry that stencil; the *irregular* rest carry a local polynomial fit on a poised lattice,
enriched by nearby nodes and by boundary data (foot point and equispaced boundary points). The
result is

    A u = f - G g

with A and G sparse: the domain and the operator are in A and G, the data in f and g. The lattices
are those of arXiv 2408.03814; boundary rows, weights and fallbacks are our own scheme.
"""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.ndimage import binary_dilation
from scipy.spatial import cKDTree

from sciml.errors import ConfigError, GeometryError, StencilError

from ..domains import BoundaryPoints, Domain
from ..grid import CartesianGrid
from ..operators import EllipticOperator
from ..polynomials import monomials, multi_indices
from .lattice import find_lattice, lattice_points
from .links import cut_links, leaves
from .stencil import capped_inverse_distance, enrich, fit_functional, strengthen_diagonal

if TYPE_CHECKING:
    from ..problems import EllipticProblem

__all__ = ["PLG", "LinearSystem", "regular_stencil"]

# Central differences of order 2, 4 and 6 on the offsets -r..r, for h^k times the k-th derivative.
CENTRAL = {
    1: ((-1 / 2, 0.0, 1 / 2), (1.0, -2.0, 1.0)),
    2: ((1 / 12, -2 / 3, 0.0, 2 / 3, -1 / 12), (-1 / 12, 4 / 3, -5 / 2, 4 / 3, -1 / 12)),
    3: (
        (-1 / 60, 3 / 20, -3 / 4, 0.0, 3 / 4, -3 / 20, 1 / 60),
        (1 / 90, -3 / 20, 3 / 2, -49 / 18, 3 / 2, -3 / 20, 1 / 90),
    ),
}
INSIDE_TOLERANCE = 1e-10  # of h: nodes closer to the boundary than this count as on it
BOUNDARY_RADIUS = 2.0  # of h: boundary points used around a node
BOUNDARY_NEIGHBOURS = 12
STEEP = 2.0  # weight powers from here on make diagonals strong, and weak ones a sign of instability
FACING = -0.5  # cosine between normals below which two sides may bound a gap
VISIBILITY_TOLERANCE = 0.1  # of h: how far a line of sight may leave the domain


@dataclass(frozen=True)
class LinearSystem:
    """A discrete boundary-value problem, A u = f - G g.

    Attributes
    ----------
    matrix : csr_array, shape (m, m)
        A.
    boundary_matrix : csr_array, shape (m, b)
        G.
    node_index : ndarray of int, shape (m, D)
        Grid indices of the unknowns.
    irregular : ndarray of int, shape (k,)
        Unknowns whose equations are local fits.
    boundary_points : BoundaryPoints
        The b points where g is evaluated; the first k are the foot points of the irregular unknowns.
    info : dict
        Diagnostics: unknowns, irregular nodes, patterns, fallbacks, largest condition number, seconds.
    """

    matrix: sp.csr_array
    boundary_matrix: sp.csr_array
    node_index: np.ndarray
    irregular: np.ndarray
    boundary_points: BoundaryPoints
    info: dict[str, Any] = field(default_factory=dict)


def regular_stencil(
    operator: EllipticOperator, spacing: tuple[float, ...], degree: int, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return offsets (S, D) and weights (m, S) of the central stencils at points of shape (m, D).

    Of order 2 for degree 2, 4 for degrees 3 and 4, 6 for degrees 5 and 6.

    Examples
    --------
    >>> from sciml.solvers import Laplacian
    >>> offsets, weights = regular_stencil(Laplacian(2), (1.0, 1.0), 4, np.zeros((1, 2)))
    >>> len(offsets), round(float(abs(weights).sum()), 12)
    (9, 10.666666666667)
    """
    # A constant operator has one stencil, whatever the number of points.
    where = points[:1] if operator.constant else points
    second, first, zeroth = operator.coefficients(where)
    dim, reach = operator.dim, (degree + 1) // 2 if degree > 2 else 1
    slope, bend = (np.array(row) for row in CENTRAL[reach])
    unit = np.eye(2 * reach + 1)[reach]
    terms = [(zeroth, _outer([unit] * dim))]
    for i in range(dim):
        factors = [unit] * dim
        factors[i] = slope
        terms.append((first[:, i] / spacing[i], _outer(factors)))
        factors[i] = bend
        terms.append((second[:, i, i] / spacing[i] ** 2, _outer(factors)))
        for j in range(i):
            factors = [unit] * dim
            factors[i] = factors[j] = slope
            terms.append((2 * second[:, i, j] / (spacing[i] * spacing[j]), _outer(factors)))
    used = [(coefficient, stencil) for coefficient, stencil in terms if coefficient.any()]
    offsets = np.argwhere(np.any([stencil != 0 for _, stencil in used], axis=0))
    compact = np.stack([stencil[tuple(offsets.T)] for _, stencil in used])
    weights = np.stack([coefficient for coefficient, _ in used], axis=1) @ compact
    return offsets - reach, np.broadcast_to(weights, (len(points), len(offsets)))


def _outer(factors: list[np.ndarray]) -> np.ndarray:
    product = factors[0]
    for factor in factors[1:]:
        product = np.multiply.outer(product, factor)
    return product


@dataclass(frozen=True)
class PLG:
    """The PLG finite difference method.

    Parameters
    ----------
    degree : {2, 3, 4, 5, 6}
        n, total degree of the local polynomials. With Dirichlet data the solution converges at
        least at the order of the interior stencil, 2, 4, 4, 6, 6; with Neumann or Robin data at
        least at order n or that of the stencil, the lower of them.
    enrichment : float
        rho: local fits use (1 + rho) N nodes. Values of 0.5 to 1 are stable and accurate.
    weight_power : float
        p: rows are weighted by 1 / max(|xi|, 1/2)^p. p = 3 gives small errors and nearly real
        spectra; p = 1 a 6 to 8 times less stiff operator; p = 0 is unstable. From p = 2 on, single
        equations with a weak diagonal are refitted with another power (``info["refitted"]``).
    node_limit : int
        Search nodes after which the depth-first search gives way to the subset search.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid, Disk, problem_registry
    >>> system = PLG().discretise(problem_registry["poisson"](Disk()), CartesianGrid.uniform(20))
    >>> system.matrix.shape == (system.info["unknowns"],) * 2
    True
    """

    degree: int = 4
    enrichment: float = 1.0
    weight_power: float = 3.0
    node_limit: int = 3000

    def __post_init__(self) -> None:
        if self.degree not in (2, 3, 4, 5, 6):
            raise ConfigError(f"degree={self.degree}: choose 2, 3, 4, 5 or 6")
        if not 0 <= self.enrichment <= 5:
            raise ConfigError(f"enrichment={self.enrichment}: choose a value from 0 to 5 (0.5 to 1 is best)")
        if not 0 <= self.weight_power <= 10:
            raise ConfigError(f"weight_power={self.weight_power}: choose a value from 0 to 10 (1 or 3)")

    def discretise(self, problem: "EllipticProblem", grid: CartesianGrid) -> LinearSystem:
        """Build A and G.

        Raises
        ------
        GeometryError
            If the domain is not inside the grid's box, or no node is inside the domain.
        StencilError
            If somewhere the domain is too thin for the stencil.
        """
        started = time.process_time()
        h = np.asarray(grid.spacing)
        inside = _inside(problem.domain, grid)
        index = np.argwhere(inside)
        number = np.full(grid.shape, -1)
        number[tuple(index.T)] = np.arange(len(index))

        offsets, weights = regular_stencil(
            problem.operator, grid.spacing, self.degree, grid.coordinates(index)
        )
        reach = int(np.abs(offsets).max())
        padded = np.pad(inside, reach)
        regular = _look_up(padded, index[:, None, :] + offsets + reach).all(axis=1)
        cut = cut_links(problem.domain, grid, inside)
        regular &= ~_look_up(_near_a_cut(cut, reach), index)

        irregular = index[~regular]
        nodes, valid, counts = self._stencils(inside, cut, irregular, grid)
        geometry = _boundary_rows(problem.domain, grid, irregular)

        exponents = multi_indices(self.degree, grid.dim)
        xi_nodes = (nodes - irregular[:, None, :]).astype(float)
        data_rows = problem.boundary.rows(
            geometry.xi.reshape(-1, grid.dim), geometry.points[geometry.column.ravel()], exponents, h
        )
        rows = np.concatenate(
            [monomials(xi_nodes, exponents), data_rows.reshape(*geometry.xi.shape[:2], -1)], axis=1
        )
        row_weights = capped_inverse_distance(
            np.concatenate([xi_nodes, geometry.xi], axis=1), self.weight_power
        )
        row_weights *= np.concatenate([valid, geometry.valid], axis=1)
        functional = problem.operator.monomial_coefficients(exponents, h, grid.coordinates(irregular))
        s, condition = fit_functional(rows, row_weights, functional)
        if not np.isfinite(condition).all():
            raise _too_thin(grid.coordinates(irregular[np.argmax(condition)]), self.degree, grid)

        width = nodes.shape[1]
        refitted = 0
        if self.weight_power >= STEEP:
            centre = np.argmax(valid & ~xi_nodes.any(axis=-1), axis=1)
            refitted = strengthen_diagonal(s, condition, rows, row_weights, functional, centre, width)
        regular_rows, irregular_rows = np.flatnonzero(regular), np.flatnonzero(~regular)
        neighbours = index[regular][:, None, :] + offsets
        matrix = _scatter(weights[regular], regular_rows, _look_up(number, neighbours), len(index))
        matrix += _scatter(s[:, :width] * valid, irregular_rows, _look_up(number, nodes), len(index))
        scale = problem.boundary.scale(geometry.points, float(h.min()))
        boundary_matrix = _scatter(
            s[:, width:] * scale[geometry.column],
            irregular_rows,
            geometry.column,
            len(index),
            len(geometry.points.points),
        )
        boundary_matrix.eliminate_zeros()
        info = {
            "unknowns": len(index),
            "irregular": len(irregular),
            **counts,
            "refitted": refitted,
            "max_condition": float(condition.max(initial=1.0)),
            "nonzeros": int(matrix.nnz),
            "discretise_cpu_seconds": time.process_time() - started,
        }
        return LinearSystem(matrix, boundary_matrix, index, irregular_rows, geometry.points, info)

    def _stencils(
        self, inside: np.ndarray, cut: np.ndarray, irregular: np.ndarray, grid: CartesianGrid
    ) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        """Choose the nodes of every irregular fit: indices (B, M, D), which are valid (B, M), counts.

        One search per distinct pattern of feasible nodes. Where no triangular lattice fits into the
        window it is widened, at last by plain nearest nodes whose rank the fit verifies; both are
        counted.
        """
        dim = grid.dim
        size = len(multi_indices(self.degree, dim))
        wanted = int(np.ceil((1 + self.enrichment) * size))
        capacity = max(wanted, int(np.ceil(1.5 * size)))
        chosen = np.zeros((len(irregular), capacity, dim), dtype=int)
        valid = np.zeros((len(irregular), capacity), dtype=bool)
        counts = {"patterns": 0, "widened": 0, "least_squares_fallbacks": 0, "search_nodes": 0}
        remaining = np.arange(len(irregular))
        # Next to a wall half of a window is feasible; it should hold the nodes wanted.
        first_radius = self.degree
        while (2 * first_radius + 1) ** dim < 2 * wanted:
            first_radius += 1
        last_radius = first_radius + 2
        for radius in range(first_radius, last_radius + 1):
            windows = _connected_windows(inside, cut, irregular[remaining], radius)
            keys = np.packbits(windows.reshape(len(windows), -1), axis=1)
            _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
            inverse = inverse.ravel()
            counts["patterns"] += len(first)
            failed = np.zeros(len(first), dtype=bool)
            last = radius == last_radius
            for pattern, representative in enumerate(first):
                feasible = windows[representative]
                result = find_lattice(feasible, self.degree, self.node_limit)
                counts["search_nodes"] += result.visited
                members = remaining[inverse == pattern]
                if result.lattice is not None:
                    offsets = enrich(feasible, lattice_points(result.lattice), wanted)
                elif last and feasible.sum() >= size:
                    offsets = enrich(feasible, np.zeros((0, dim), dtype=int), capacity)
                    counts["least_squares_fallbacks"] += len(members)
                elif last:
                    raise _too_thin(grid.coordinates(irregular[members[0]]), self.degree, grid)
                else:
                    failed[pattern] = True
                    continue
                chosen[members, : len(offsets)] = offsets
                valid[members, : len(offsets)] = True
            remaining = remaining[failed[inverse]]
            if len(remaining) == 0:
                break
            counts["widened"] += len(remaining) if radius == first_radius else 0
        # Padding points at the node itself, so that every index is valid; its weight is zero.
        chosen[~valid] = 0
        return chosen + irregular[:, None, :], valid, counts


def _near_a_cut(cut: np.ndarray, reach: int) -> np.ndarray:
    """Nodes with a cut link in the box of the central stencil around them."""
    ends: np.ndarray = np.any(cut, axis=0)
    for d in range(len(cut)):
        ends = ends | np.roll(cut[d], 1, axis=d)
    box = np.ones((2 * reach + 1,) * len(cut))
    return np.asarray(binary_dilation(ends, box), dtype=bool) if ends.any() else ends


def _look_up(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Entries of a D-dimensional table at indices of shape (..., D)."""
    return table[tuple(index[..., d] for d in range(index.shape[-1]))]


def _scatter(
    values: np.ndarray, rows: np.ndarray, columns: np.ndarray, height: int, width: int | None = None
) -> sp.csr_array:
    """Sparse matrix with the sum of all values[i, j] whose row is rows[i] and column columns[i, j]."""
    row_of = np.broadcast_to(rows[:, None], values.shape)
    entries = (values.ravel(), (row_of.ravel(), columns.ravel()))
    return sp.coo_array(entries, shape=(height, width or height)).tocsr()


@dataclass(frozen=True)
class _BoundaryRows:
    """Boundary data of each irregular fit: scaled positions (B, k, D), validity and column (B, k), points."""

    xi: np.ndarray
    valid: np.ndarray
    column: np.ndarray
    points: BoundaryPoints


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
    phi = domain.phi(nodes) / _slope(domain, float(h.min())).mean()
    inside = phi < -INSIDE_TOLERANCE * h.min()
    # Where operands of a union merely touch, phi vanishes inside: no direction leads out from there.
    doubtful = np.argwhere(np.abs(phi) <= INSIDE_TOLERANCE * h.min())
    if len(doubtful):
        directions = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [1, -1], [-1, 1], [-1, -1]])
        around = domain.phi(_look_up(nodes, doubtful)[:, None, :] + 1e-3 * h * directions)
        seam = (around <= 0).all(axis=1) & (around < 0).any(axis=1)
        inside[tuple(doubtful[seam].T)] = True
    if not inside.any():
        raise GeometryError(
            f"no node of the grid with cells={grid.cells} lies inside the domain: use more cells"
        )
    return inside


def _slope(domain: Domain, h: float) -> np.ndarray:
    """Normal derivative of phi at boundary points of spacing h: what turns phi into a distance."""
    boundary = domain.boundary(h)
    step = 1e-3 * h * boundary.normals
    slope = (domain.phi(boundary.points + step) - domain.phi(boundary.points - step)) / (2e-3 * h)
    # At a corner one side may be the other operand's.
    return np.maximum(slope, 0.1 * np.median(slope))


def _too_thin(position: np.ndarray, degree: int, grid: CartesianGrid) -> StencilError:
    return StencilError(
        f"the domain is thinner than the stencil of degree {degree} near {np.round(position, 4).tolist()} "
        f"at cells={grid.cells}: use about {2 * max(grid.cells)} cells per axis, or a lower degree"
    )


def _connected_windows(inside: np.ndarray, cut: np.ndarray, index: np.ndarray, radius: int) -> np.ndarray:
    """Return, for each node, the feasible window restricted to the node's connected component.

    Nodes that can be reached only around the outside of the window, across a gap of the domain, are
    refused: the solution is not one smooth function there. Cut links do not connect. In windows with
    a cut only paths that never turn back towards the centre count: what lies behind the end of a
    slit is refused with what lies across it.
    """
    dim = inside.ndim
    padded = np.pad(inside, radius)
    span = np.stack(np.meshgrid(*[np.arange(2 * radius + 1)] * dim, indexing="ij"), axis=-1)
    windows = _look_up(padded, index.reshape(-1, *(1,) * dim, dim) + span)
    base = index.reshape(-1, *(1,) * dim, dim) + span
    links = [_look_up(np.pad(~cut[d], radius, constant_values=True), base) for d in range(dim)]
    has_cut = ~np.all([link.all(axis=tuple(range(1, dim + 1))) for link in links], axis=0)
    has_cut = has_cut.reshape(-1, *(1,) * dim)
    reached = np.zeros_like(windows)
    centre: tuple = (slice(None), *(radius,) * dim)
    reached[centre] = True
    count = -1
    while (new_count := int(reached.sum())) != count:
        count = new_count
        for axis in range(1, dim + 1):
            ahead = [slice(None)] * (dim + 1)
            behind = [slice(None)] * (dim + 1)
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            to, back = tuple(ahead), tuple(behind)
            shape = [1] * (dim + 1)
            shape[axis] = 2 * radius
            outwards = (np.arange(2 * radius) >= radius).reshape(shape)
            link = links[axis - 1][back]
            reached[to] |= reached[back] & link & (outwards | ~has_cut)
            reached[back] |= reached[to] & link & (~outwards | ~has_cut)
            reached &= windows
    return reached


def _boundary_rows(domain: Domain, grid: CartesianGrid, irregular: np.ndarray) -> _BoundaryRows:
    """Foot point of every irregular node, and the visible boundary points within two spacings."""
    h = np.asarray(grid.spacing)
    x = grid.coordinates(irregular)
    feet = domain.closest_point(x)
    boundary = domain.boundary(float(h.min()))
    samples = boundary.points
    distance, nearest = cKDTree(samples / h).query(
        x / h, k=min(BOUNDARY_NEIGHBOURS, len(samples)), distance_upper_bound=BOUNDARY_RADIUS
    )
    valid = np.isfinite(distance)
    nearest = np.where(valid, nearest, 0)
    # A point across a gap of the domain carries data of another piece of the solution.
    fractions = np.array([1, 2, 3, 4, 5]) / 6
    sight = x[:, None, None, :] + fractions[:, None] * (samples[nearest] - x[:, None, :])[:, :, None, :]
    slope = _slope(domain, float(h.min()))[nearest]
    blocked = (domain.phi(sight) > VISIBILITY_TOLERANCE * h.min() * slope[..., None]).any(axis=-1)
    valid &= ~blocked
    # A gap may be too thin for that to see; its two sides face each other.
    normals = np.where(valid[..., None], boundary.normals[nearest], 0.0)
    facing = (normals @ np.swapaxes(normals, 1, 2)).min(axis=(1, 2)) < FACING
    node, neighbour = np.nonzero(valid & facing[:, None])
    valid[node, neighbour] = ~leaves(domain, x[node], samples[nearest[node, neighbour]])
    points = np.concatenate([feet.points[:, None, :], samples[nearest]], axis=1)
    column = np.concatenate([np.arange(len(x))[:, None], len(x) + nearest], axis=1)
    valid = np.concatenate([np.ones((len(x), 1), dtype=bool), valid], axis=1)
    return _BoundaryRows((points - x[:, None, :]) / h, valid, column, feet + boundary)
