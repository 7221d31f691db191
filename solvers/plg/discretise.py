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

from sciml.errors import ConfigError

from ..boundary import BoundaryCondition
from ..domains import BoundaryPoints, Domain
from ..grid import CartesianGrid
from ..operators import DifferentialOperator
from .local import LocalFits
from .neighbourhoods import Neighbourhoods
from .stencil import fit_functional, strengthen_diagonal

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
STEEP = 2.0  # weight powers from here on make diagonals strong, and weak ones a sign of instability


@dataclass(frozen=True)
class LinearSystem:
    """A discrete boundary-value problem, A u = f - G g.

    Attributes
    ----------
    matrix : csr_array, shape (m, m)
        A.
    boundary_matrix : csr_array, shape (m, b)
        G.
    places : Neighbourhoods
        The nodes inside, which are the unknowns, and what local fits around them use.
    irregular : ndarray of int, shape (k,)
        Unknowns whose equations are local fits.
    boundary_points : BoundaryPoints
        The b points where g is evaluated; the first k are the foot points of the irregular unknowns.
    info : dict
        Diagnostics: unknowns, irregular nodes, patterns, fallbacks, largest condition number, seconds.
    """

    matrix: sp.csr_array
    boundary_matrix: sp.csr_array
    places: Neighbourhoods = field(repr=False)
    irregular: np.ndarray
    boundary_points: BoundaryPoints
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def node_index(self) -> np.ndarray:
        """Grid indices of the unknowns, shape (m, D)."""
        return self.places.index


def regular_stencil(
    operator: DifferentialOperator, spacing: tuple[float, ...], degree: int, points: np.ndarray
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
    used = [(coefficient, stencil) for coefficient, stencil in terms if coefficient.any()] or terms[:1]
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
    node_limit: int = 300

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
        return self.discretise_all((problem.operator,), problem.domain, problem.boundary, grid)[0]

    def discretise_all(
        self,
        operators: tuple[DifferentialOperator, ...],
        domain: Domain,
        boundary: BoundaryCondition,
        grid: CartesianGrid,
    ) -> list[LinearSystem]:
        """Build A and G of several operators from the same local fits; errors as for `discretise`.

        The first must be elliptic: equations are made stable for it.
        """
        started = time.process_time()
        places = Neighbourhoods(domain, grid, self.degree, self.enrichment, self.node_limit)
        x = grid.coordinates(places.index)
        stencils = [regular_stencil(operator, grid.spacing, self.degree, x) for operator in operators]
        regular = np.all([places.holds(offsets) for offsets, _ in stencils], axis=0)
        regular_rows, irregular_rows = np.flatnonzero(regular), np.flatnonzero(~regular)
        fits = LocalFits.around(places, boundary, places.index[irregular_rows], self.weight_power)
        boundary.check(fits.boundary.points[np.arange(len(irregular_rows), len(fits.boundary.points.points))])
        weights, condition, refitted = self._fit(fits, operators)

        height, width = len(places.index), fits.offsets.shape[1]
        number = places.number()
        strides = np.array(number.strides) // number.itemsize
        flat, base = number.ravel(), places.index @ strides
        points = fits.boundary.points
        scale = boundary.scale(points, min(grid.spacing))[fits.boundary.column]
        fit_columns = flat[base[irregular_rows, None] + fits.offsets @ strides]
        info = {
            "unknowns": height,
            "irregular": len(irregular_rows),
            **fits.counts,
            "refitted": refitted,
            "max_condition": float(condition.max(initial=1.0)),
        }
        systems = []
        for k, (offsets, central) in enumerate(stencils):
            columns = flat[base[regular_rows, None] + offsets @ strides]
            matrix = _csr(central[regular_rows], regular_rows, columns, (height, height))
            s = weights[..., k]
            matrix += _csr(s[:, :width], irregular_rows, fit_columns, (height, height))
            data = _csr(
                s[:, width:] * scale, irregular_rows, fits.boundary.column, (height, len(points.points))
            )
            seconds = {"nonzeros": int(matrix.nnz), "discretise_cpu_seconds": time.process_time() - started}
            systems.append(LinearSystem(matrix, data, places, irregular_rows, points, {**info, **seconds}))
        return systems

    def _fit(
        self, fits: LocalFits, operators: tuple[DifferentialOperator, ...]
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Weights (k, M + r, operators), condition numbers (k,), number of refits."""
        h, x = np.asarray(fits.grid.spacing), fits.grid.coordinates(fits.centres)
        width = fits.offsets.shape[1]
        s = np.zeros((len(x), width + fits.boundary.valid.shape[1], len(operators)))
        condition = np.ones(len(x))
        refitted = 0
        for chunk, rows, weights in fits.systems():
            functionals = [op.monomial_coefficients(fits.exponents, h, x[chunk]) for op in operators]
            s[chunk], condition[chunk] = fit_functional(rows, weights, np.stack(functionals, axis=-1))
            fits.check(chunk, condition[chunk])
            if self.weight_power >= STEEP:
                centre = np.argmax(fits.valid[chunk] & ~fits.offsets[chunk].any(axis=-1), axis=1)
                refitted += strengthen_diagonal(
                    s[chunk, :, 0], condition[chunk], rows, weights, functionals[0], centre, width
                )
        return s, condition, refitted


def _csr(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sp.csr_array:
    """Sparse matrix with values[i, j] in the increasing row rows[i] and column columns[i, j], zeros left out."""
    count = np.zeros(shape[0] + 1, dtype=np.int64)
    used = values != 0
    count[rows + 1] = used.sum(axis=1)
    matrix = sp.csr_array((values[used], columns[used].astype(np.int32), np.cumsum(count)), shape=shape)
    matrix.sort_indices()
    return matrix
