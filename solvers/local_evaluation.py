"""Grid functions between the nodes: local polynomials that see no boundary between node and point.

A point takes the polynomial of the nearest inside node that sees it, fitted as the PLG method fits its
equations: to node values and boundary data around. Nodes far from the boundary share one pattern, and
with it one pseudo-inverse.
"""

from functools import cached_property

import numpy as np
from scipy.ndimage import distance_transform_cdt
from scipy.spatial import cKDTree

from sciml.errors import ConfigError, StencilError

from .boundary import BoundaryCondition
from .plg.lattice import lattice_points
from .plg.links import leaves, outside
from .plg.local import FIT_ENTRIES, LocalFits
from .plg.neighbourhoods import Neighbourhoods
from .plg.stencil import capped_inverse_distance, enrich, fit_functional
from .polynomials import monomial_derivatives, monomials, multi_indices

__all__ = ["LocalPolynomials"]

OUTSIDE_TOLERANCE = 1e-6  # of h: points that far outside count as on the boundary
CANDIDATES = 32  # nearest nodes tried for a point: beside a gap the nearer ones may lie across it
SIGHT = 0.999  # part of a line of sight that is looked at: its end may lie on the boundary
GAP = 2.0  # of h: how far beside a line of sight thin gaps count
POINTS = 1 << 16  # evaluated at a time


class LocalPolynomials:
    """A grid function with its boundary data, as polynomials around the inside nodes.

    Parameters
    ----------
    places : Neighbourhoods
        Of the domain and the degree n.
    condition : BoundaryCondition
        Its data join the fits near the boundary.
    values : ndarray, shape grid.shape
        Finite at the nodes inside; others are not used.
    weight_power : float
        As for `PLG`.

    Raises
    ------
    ConfigError
        If ``values`` has another shape or is not finite at some node inside.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid, Dirichlet, Disk
    >>> grid = CartesianGrid.uniform(20)
    >>> places = Neighbourhoods(Disk(0.4), grid, degree=4, enrichment=1.0, node_limit=300)
    >>> square = LocalPolynomials(places, Dirichlet(lambda x, y: x**2), grid.nodes()[..., 0] ** 2, 3.0)
    >>> np.allclose(square.evaluate(np.array([[0.4, 0.0], [0.1, 0.1]]), gradient=True),
    ...             [[0.16, 0.8, 0.0], [0.01, 0.2, 0.0]])
    True
    """

    def __init__(
        self, places: Neighbourhoods, condition: BoundaryCondition, values: np.ndarray, weight_power: float
    ) -> None:
        if values.shape != places.grid.shape:
            raise ConfigError(
                f"values of shape {values.shape}: give one per node of grid {places.grid.shape}"
            )
        missing = np.argwhere(places.inside & ~np.isfinite(values))
        if len(missing):
            raise ConfigError(
                f"values{missing[0].tolist()} is {values[tuple(missing[0])]} at a node inside the domain "
                f"({len(missing)} of {len(places.index)} are not finite): give the value at every node inside"
            )
        self.places, self.condition = places, condition
        self.values, self.weight_power = values, weight_power

    def evaluate(self, points: np.ndarray, gradient: bool) -> np.ndarray:
        """Return values and, if asked for, gradients.

        Of order n + 1 and n in h for smooth functions.

        Parameters
        ----------
        points : ndarray, shape (m, D)
            Positions in the domain or on its boundary.
        gradient : bool

        Returns
        -------
        ndarray, shape (m, 1) or (m, 1 + D)
            The value, then the derivatives along the axes.

        Raises
        ------
        ConfigError
            If ``points`` has another shape, or one is not finite or outside the domain.
        StencilError
            If no node sees one of the points, or the domain is too thin for a fit there.
        """
        h = np.asarray(self.places.grid.spacing)
        exponents = multi_indices(self.places.degree, len(h))
        points = self._checked(points)
        node, member = np.unique(self._nodes(points), return_inverse=True)
        coefficients = self._coefficients(node)
        centres = self.places.grid.coordinates(self.places.index[node])
        result = np.empty((len(points), 1 + len(h) if gradient else 1))
        for start in range(0, len(points), POINTS):
            chunk = slice(start, start + POINTS)
            xi = (points[chunk] - centres[member[chunk]]) / h
            own = coefficients[member[chunk]]
            result[chunk, 0] = np.einsum("mn,mn->m", monomials(xi, exponents), own)
            if gradient:
                derivatives = monomial_derivatives(xi, exponents)
                result[chunk, 1:] = np.einsum("mdn,mn->md", derivatives, own) / h
        return result

    def _checked(self, points: np.ndarray) -> np.ndarray:
        points, dim = np.asarray(points, dtype=float), self.places.grid.dim
        if points.ndim != 2 or points.shape[1] != dim:
            raise ConfigError(f"points of shape {points.shape}: give an array of shape (m, {dim})")
        bad = ~np.isfinite(points).all(axis=1)
        if bad.any():
            first = int(np.argmax(bad))
            raise ConfigError(
                f"points[{first}] = {points[first].tolist()} ({int(bad.sum())} of {len(points)} points "
                "are not finite): give finite coordinates"
            )
        return points

    def _nodes(self, points: np.ndarray) -> np.ndarray:
        """Return for every point the number of the nearest node that sees it, shape (m,)."""
        places, grid = self.places, self.places.grid
        nearest = tuple(grid.index(points).T)
        number, deep = places.number()[nearest], self._deep[nearest]
        shallow = np.flatnonzero(~deep)
        x = points[shallow]
        self._refuse_outside(points, shallow)
        scaled = (x - np.asarray(grid.lower)) / np.asarray(grid.spacing)
        waiting = np.arange(len(x))
        for rank in range(1, min(CANDIDATES, len(places.index)) + 1):
            if len(waiting) == 0:
                break
            candidate = self._tree.query(scaled[waiting], k=[rank])[1][:, 0]
            seen = self._sees(candidate, x[waiting])
            number[shallow[waiting[seen]]] = candidate[seen]
            waiting = waiting[~seen]
        if len(waiting):
            raise StencilError(
                f"no node sees the point {np.round(x[waiting[0]], 6).tolist()} ({len(waiting)} of {len(points)} "
                f"points): use about {2 * max(grid.cells)} cells per axis"
            )
        return number

    def _sees(self, number: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return whether the segment from a node to a point stays inside, shapes (k,) and (k, D) to (k,)."""
        domain, grid = self.places.domain, self.places.grid
        centre = grid.coordinates(self.places.index[number])
        ray = x - centre
        length = np.linalg.norm(ray, axis=1)
        seen = length < self._clearance[number]
        near = np.flatnonzero(~seen)
        near = near[~outside(domain, centre[near], centre[near] + SIGHT * ray[near])]
        seen[near] = True
        if self._gaps is not None:
            # Only a trace finds gaps that are thin; it is slow where it runs along a boundary.
            thin = near[self._gaps.query(x[near])[0] < length[near] + GAP * max(grid.spacing)]
            seen[thin] = ~leaves(domain, centre[thin], centre[thin] + SIGHT * ray[thin])
        return seen

    def _refuse_outside(self, points: np.ndarray, shallow: np.ndarray) -> None:
        domain = self.places.domain
        beyond = shallow[domain.phi(points[shallow]) > 0] if len(shallow) else shallow
        if len(beyond) == 0:
            return
        distance = np.linalg.norm(domain.closest_point(points[beyond]).points - points[beyond], axis=1)
        out = distance > OUTSIDE_TOLERANCE * min(self.places.grid.spacing)
        if out.any():
            first = beyond[np.argmax(out)]
            raise ConfigError(
                f"points[{first}] = {points[first].tolist()} lies {distance[np.argmax(out)]:.3g} outside the "
                f"domain ({int(out.sum())} of {len(points)} points do): choose the points inside by "
                "solution.problem.domain.contains"
            )

    def _coefficients(self, numbers: np.ndarray) -> np.ndarray:
        """Return the polynomials around nodes, shape (k,) to (k, N)."""
        index = self.places.index[numbers]
        deep = self._deep[tuple(index.T)]
        offsets, inverse = self._pattern
        result = np.empty((len(index), inverse.shape[1]))
        for chunk in np.array_split(np.flatnonzero(deep), 1 + deep.sum() * inverse.size // FIT_ENTRIES):
            nodes = index[chunk, None, :] + offsets
            result[chunk] = self.values[tuple(np.moveaxis(nodes, -1, 0))] @ inverse
        if not deep.all():
            fits = LocalFits.around(self.places, self.condition, index[~deep], self.weight_power)
            result[~deep] = fits.polynomials(self.values)
        return result

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.places.index)

    @cached_property
    def _clearance(self) -> np.ndarray:
        """Distance of the inside nodes to the boundary, infinite for deep ones, shape (nodes,)."""
        index = self.places.index
        clearance = np.where(self._deep[tuple(index.T)], np.inf, 0.0)
        shallow = np.flatnonzero(clearance == 0)
        x = self.places.grid.coordinates(index[shallow])
        clearance[shallow] = np.linalg.norm(self.places.domain.closest_point(x).points - x, axis=1)
        return clearance

    @cached_property
    def _gaps(self) -> cKDTree | None:
        return cKDTree(self.places.thin_gaps) if len(self.places.thin_gaps) else None

    @cached_property
    def _pattern(self) -> tuple[np.ndarray, np.ndarray]:
        """Offsets (M, D) of the fits far from the boundary, and their transposed pseudo-inverse (M, N)."""
        degree, dim = self.places.degree, self.places.grid.dim
        near_first = sorted(range(-degree, degree + 1), key=lambda c: (abs(c), c < 0))[: degree + 1]
        window = np.ones((2 * degree + 1,) * dim, dtype=bool)
        offsets = enrich(window, lattice_points((tuple(near_first),) * dim), self.places.wanted)
        rows = monomials(offsets.astype(float), multi_indices(degree, dim))
        weights = capped_inverse_distance(offsets.astype(float), self.weight_power)
        return offsets, fit_functional(rows[None], weights[None], np.eye(rows.shape[1])[None])[0][0]

    @cached_property
    def _deep(self) -> np.ndarray:
        """Whether the shared pattern fits: no node outside and no boundary around, shape grid.shape."""
        grid = self.places.grid
        h = np.asarray(grid.spacing)
        samples = self.places.domain.boundary(float(h.min())).points
        cells = np.floor((samples - np.asarray(grid.lower)) / h).astype(int)
        clear = self.places.inside.copy()
        clear[tuple(np.clip(cells, 0, np.asarray(grid.cells)).T)] = False
        # Between samples the boundary may pass through the cells next to theirs.
        reach = int(np.abs(self._pattern[0]).max()) + 1
        return np.asarray(distance_transform_cdt(clear, "chessboard") > reach)
