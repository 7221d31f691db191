"""Elliptic problems on triangulations by the Galerkin method.

    - div(a grad u) + b . grad u + c u = f,      u = g on the boundary, or a du/dn = h on parts of it.

Element matrices are products of weights at quadrature nodes with tables of the reference triangle, for all triangles
at once. Systems of few unknowns are solved as full matrices: below some 150 of them a sparse factorisation spends its
time on bookkeeping.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import scipy.sparse as sp
from scipy.linalg import LinAlgError, lapack

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers.functions import DataFunction, evaluate
from sciml.solvers.legendre import gauss
from sciml.solvers.linear import DirectSolver

from .lagrange import FEFunction, Lagrange, basis, triangle_rule
from .mesh import TriMesh

__all__ = ["FEMProblem", "Galerkin", "solve_fem"]

FULL = 400
"""Nodes up to which matrices are full."""


@dataclass(frozen=True)
class FEMProblem:
    """- div(a grad u) + b . grad u + c u = f.

    Attributes
    ----------
    source : float or callable
        f(x, y).
    dirichlet : float or callable
        g(x, y), on the boundary but for its natural part.
    diffusion : float or callable
        a(x, y) > 0.
    velocity : (float or callable, float or callable)
        b.
    reaction : float or callable
        c(x, y).
    natural : callable, optional
        Whether the boundary condition is a du/dn = h, of positions (x, y) of midpoints of edges; nowhere by default.
    neumann : float or callable
        h(x, y).
    exact, gradient : callable, optional
        u(x, y) and (u_x, u_y)(x, y), where they are known.
    name : str

    Raises
    ------
    ConfigError
        If the velocity has not two components or the diffusion is a number that is not positive.
    """

    source: DataFunction = 0.0
    dirichlet: DataFunction = 0.0
    diffusion: DataFunction = 1.0
    velocity: tuple[DataFunction, DataFunction] = (0.0, 0.0)
    reaction: DataFunction = 0.0
    natural: Callable | None = None
    neumann: DataFunction = 0.0
    exact: Callable | None = None
    gradient: Callable | None = None
    name: str = "elliptic"

    def __post_init__(self) -> None:
        if not callable(self.diffusion) and not 0 < self.diffusion < math.inf:
            raise ConfigError(f"diffusion={self.diffusion}: it must be positive")
        if not isinstance(self.velocity, tuple) or len(self.velocity) != 2:
            raise ConfigError(f"velocity={self.velocity!r}: give a tuple of two components")

    @property
    def symmetric(self) -> bool:
        """Whether there is no velocity."""
        return not any(callable(component) or component for component in self.velocity)


@cache
def _tables(order: int, degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weighted products of the basis at the nodes of a rule, flattened over test and trial function.

    Of gradients, shape (Q, 9, n n), and their sum, (9, n n); of values with gradients, (Q, 3, n n); of values,
    (Q, n n); values (Q, n).
    """
    nodes, weights = triangle_rule(degree)
    values, slopes = basis(order, nodes)
    count = values.shape[1]
    stiff = np.einsum("q,qik,qjl->qklij", weights, slopes, slopes).reshape(len(nodes), 9, count**2)
    drift = np.einsum("q,qi,qjk->qkij", weights, values, slopes).reshape(len(nodes), 3, count**2)
    mass = np.einsum("q,qi,qj->qij", weights, values, values).reshape(len(nodes), count**2)
    return stiff, stiff.sum(axis=0), drift, mass, weights[:, None] * values


@dataclass(frozen=True, eq=False)
class Galerkin:
    """The method on one mesh.

    Parameters
    ----------
    problem : FEMProblem
    mesh : TriMesh
    order : int
        1 or 2.
    degree : int, optional
        Of the quadrature of coefficients and source, by default 2 p + 2.

    Examples
    --------
    >>> from sciml.solvers.fem import rectangle
    >>> problem = FEMProblem(source=-4.0, dirichlet=lambda x, y: x**2 + y**2)
    >>> u = Galerkin(problem, rectangle(3, 3), order=2).solve()
    >>> bool(u.errors(lambda x, y: x**2 + y**2)["linf"] < 1e-13)
    True
    """

    problem: FEMProblem
    mesh: TriMesh
    order: int = 1
    degree: int | None = None

    @cached_property
    def space(self) -> Lagrange:
        """Of the solution."""
        return Lagrange(self.mesh, self.order)

    @cached_property
    def _nodes(self) -> np.ndarray:
        return triangle_rule(self._degree)[0]

    @property
    def _degree(self) -> int:
        return 2 * self.order + 2 if self.degree is None else self.degree

    @cached_property
    def element_matrices(self) -> np.ndarray:
        """Shape (T, n, n), rows the test functions."""
        problem, mesh, space = self.problem, self.mesh, self.space
        stiff, stiff_of_one, drift, mass, _ = _tables(self.order, self._degree)
        x, y = mesh.gradients.T
        metric = ((x[:, None] * x + y[:, None] * y) * mesh.areas).reshape(9, -1).T
        if callable(problem.diffusion):
            a = space.data(problem.diffusion, self._nodes, "diffusion")
            if not (a > 0).all():
                raise ConfigError(f"diffusion is {a.min()} somewhere: it must be positive")
            found = (a[:, :, None] * metric[:, None]).reshape(len(mesh), -1) @ stiff.reshape(
                -1, stiff.shape[2]
            )
        else:
            found = problem.diffusion * (metric @ stiff_of_one)
        if not problem.symmetric:
            b = np.stack([space.data(part, self._nodes, "velocity") for part in problem.velocity], axis=-1)
            rates = (b @ np.swapaxes(mesh.gradients, 1, 2)) * mesh.areas[:, None, None]
            found += rates.reshape(len(mesh), -1) @ drift.reshape(-1, drift.shape[2])
        if callable(problem.reaction) or problem.reaction:
            found += (space.data(problem.reaction, self._nodes, "reaction") * mesh.areas[:, None]) @ mass
        count = space.elements.shape[1]
        return found.reshape(-1, count, count)

    @property
    def essential_edges(self) -> np.ndarray:
        """Numbers of the boundary edges where the solution is given, ascending, shape (D,)."""
        edges, natural = self.mesh.boundary_edges, self.natural_edges
        return np.setdiff1d(edges, natural, assume_unique=True) if len(natural) else edges

    @cached_property
    def natural_edges(self) -> np.ndarray:
        """Numbers of the boundary edges where the normal derivative is given."""
        edges = self.mesh.boundary_edges
        if self.problem.natural is None:
            return edges[:0]
        middle = self.mesh.vertices[self.mesh.edges[edges]].mean(axis=1)
        return edges[np.broadcast_to(np.asarray(self.problem.natural(*middle.T), dtype=bool), len(edges))]

    @cached_property
    def load(self) -> np.ndarray:
        """(f, v) and (h, v) of the natural boundary, shape (size,)."""
        space, problem = self.space, self.problem
        found = np.zeros(space.size)
        if callable(problem.source) or problem.source:
            moments = _tables(self.order, self._degree)[-1]
            local = (space.data(problem.source, self._nodes, "source") @ moments) * self.mesh.areas[:, None]
            found += np.bincount(space.elements.ravel(), local.ravel(), minlength=space.size)
        edges = self.natural_edges
        if len(edges) and (callable(problem.neumann) or problem.neumann):
            nodes, weights = gauss(self.order + 2)
            ends = self.mesh.vertices[self.mesh.edges[edges]]
            points = ends[:, :1] + nodes[:, None] * (ends[:, 1:] - ends[:, :1])
            values = evaluate(problem.neumann, points.reshape(-1, 2), "Neumann data").reshape(len(edges), -1)
            # On an edge only its own functions are not zero: those of the triangle with lambda = (1 - s, s, 0).
            line = np.stack([1 - nodes, nodes, 0 * nodes], axis=1)
            shape = basis(self.order, line)[0][:, [0, 1] if self.order == 1 else [0, 1, 5]]
            of_edge = self.mesh.edges[edges]
            if self.order == 2:
                of_edge = np.column_stack([of_edge, len(self.mesh.vertices) + edges])
            local = ((values * weights) @ shape) * self.mesh.edge_lengths[edges, None]
            found += np.bincount(of_edge.ravel(), local.ravel(), minlength=space.size)
        return found

    @cached_property
    def fixed(self) -> np.ndarray:
        """Whether the value at a node is given, shape (size,)."""
        mesh, given = self.mesh, np.zeros(self.space.size, dtype=bool)
        edges = self.essential_edges
        given[mesh.edges[edges]] = True
        if self.order == 2:
            given[len(mesh.vertices) + edges] = True
        return given

    def matrix(self) -> sp.csr_array:
        """Return the matrix without boundary conditions, shape (size, size)."""
        elements, count = self.space.elements, self.space.elements.shape[1]
        rows = np.repeat(elements, count, axis=1).ravel()
        columns = np.tile(elements, (1, count)).ravel()
        shape = (self.space.size, self.space.size)
        return sp.coo_array((self.element_matrices.ravel(), (rows, columns)), shape=shape).tocsr()

    def solve(self) -> FEFunction:
        """Return the solution.

        Raises
        ------
        ConfigError
            If data cannot be evaluated, or no value is given anywhere and none follows.
        ConvergenceError
            If the matrix is singular.
        """
        space, fixed = self.space, self.fixed
        if not fixed.any() and not (callable(self.problem.reaction) or self.problem.reaction):
            raise ConfigError(
                "natural conditions hold everywhere: u is determined up to a constant, fix it on a part"
            )
        u = np.zeros(space.size)
        dirichlet = self.problem.dirichlet
        if callable(dirichlet) or dirichlet:
            u[fixed] = evaluate(dirichlet, space.nodes[fixed], "Dirichlet data")
        free = np.flatnonzero(~fixed)
        if len(free):
            solver = self._solve_full if space.size <= FULL else self._solve_sparse
            u[free] = solver(free, u)
        return FEFunction(space, u)

    def _solve_full(self, free: np.ndarray, u: np.ndarray) -> np.ndarray:
        space, m = self.space, len(free)
        (given,) = self.fixed.nonzero()
        number = np.empty(space.size, dtype=np.int64)
        number[free], number[given] = np.arange(m), np.arange(m, space.size)
        local = number[space.elements]
        flat = local[:, :, None] * space.size + local[:, None, :]
        matrix = np.bincount(flat.ravel(), self.element_matrices.ravel(), minlength=space.size**2)
        matrix = matrix.reshape(space.size, space.size)
        rhs = self.load[free] - matrix[:m, m:] @ u[given]
        solve = lapack.dposv if self.problem.symmetric else lapack.dgesv
        *_, found, info = solve(matrix[:m, :m], rhs)
        if info:
            return self._solve_sparse(free, u)
        return found

    def _solve_sparse(self, free: np.ndarray, u: np.ndarray) -> np.ndarray:
        matrix = self.matrix()
        rhs = self.load[free] - (matrix @ u)[free] if u.any() else self.load[free]
        try:
            return DirectSolver(matrix[free][:, free]).solve(rhs)
        except (ConvergenceError, LinAlgError) as error:
            raise ConvergenceError(f"problem {self.problem.name!r} cannot be solved: {error}") from error


def solve_fem(problem: FEMProblem, mesh: TriMesh, order: int = 1) -> FEFunction:
    """Return the Galerkin solution.

    Raises
    ------
    ConfigError
        If data cannot be evaluated, the order is not 1 or 2, or u is not determined.
    ConvergenceError
        If the matrix is singular.

    Examples
    --------
    >>> from sciml.solvers.fem import l_shape
    >>> u = solve_fem(FEMProblem(source=1.0), l_shape(16))
    >>> round(u.integral(), 4)  # The torsion of an L-shape is 0.21408.
    0.2118
    """
    return Galerkin(problem, mesh, order).solve()
