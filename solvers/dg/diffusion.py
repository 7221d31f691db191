"""The symmetric interior penalty method for diffusion, and advection with it, on binary trees.

    - kappa u'' + b u' = f in an interval,      u = g at both ends.

With jumps [v] = v(left of x) - v(right of x) and means {v} at the faces x between leaves,

    sum_K (kappa u', v')_K - sum_x ({kappa u'} [v] + {kappa v'} [u] - sigma kappa / h_x [u] [v])
        + sum_K (- (b u, v')_K + <b n u*, v>_dK) = (f, v),

h_x the smaller of both sizes, u* the upwind value, and at the ends [u] = +-(u - g) and {u'} = u': order p + 1 in L2;
Arnold, SIAM J. Numer. Anal. 19, 742 (1982). The matrix is block tridiagonal and solved as a band.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import LinAlgError, solve_banded

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers.functions import DataFunction, evaluate
from sciml.solvers.legendre import legendre

from .fields import TreeFunction, project
from .reference import ReferenceCell, reference_cell
from .tree import TreeMesh

__all__ = ["DGDiffusion", "DiffusionProblem", "solve_diffusion"]


@dataclass(frozen=True)
class DiffusionProblem:
    """- kappa u'' + b u' = f in an interval, u = g at its ends.

    Attributes
    ----------
    source : float or callable
        f(x).
    boundary : float or callable
        g(x).
    diffusion : float
        kappa, positive.
    velocity : float
        b.
    exact : callable, optional
        u(x), where it is known.
    name : str

    Raises
    ------
    ConfigError
        If diffusion is not positive or a number not finite.
    """

    source: DataFunction
    boundary: DataFunction = 0.0
    diffusion: float = 1.0
    velocity: float = 0.0
    exact: Callable | None = None
    name: str = "diffusion"

    def __post_init__(self) -> None:
        if not 0 < self.diffusion < math.inf:
            raise ConfigError(f"diffusion={self.diffusion}: it must be positive")
        if not math.isfinite(self.velocity):
            raise ConfigError(f"velocity={self.velocity}: it must be finite")


@dataclass(frozen=True, eq=False)
class DGDiffusion:
    """The method on one mesh.

    Parameters
    ----------
    problem : DiffusionProblem
    mesh : TreeMesh
        Of one axis, not periodic.
    order : int
        Degree p >= 1 of the polynomials.

    Raises
    ------
    ConfigError
        If mesh or order are others.

    Examples
    --------
    >>> mesh = TreeMesh((0.0,), (1.0,), (3,)).refine([1])
    >>> u = DGDiffusion(DiffusionProblem(source=2.0), mesh, order=2).solve()
    >>> bool(u.errors(lambda x: x * (1 - x))["linf"] < 1e-14)
    True
    """

    problem: DiffusionProblem
    mesh: TreeMesh
    order: int

    def __post_init__(self) -> None:
        if self.mesh.dim != 1 or self.mesh.periodic[0]:
            raise ConfigError(
                f"mesh of {self.mesh.dim} axes, periodic={self.mesh.periodic}: give one that is not"
            )
        if self.order < 1:
            raise ConfigError(f"order={self.order}: penalties need a degree of at least 1")

    @property
    def cell(self) -> ReferenceCell:
        """Polynomials on the unit cell."""
        return reference_cell(1, self.order)

    @property
    def penalty(self) -> float:
        """sigma = 2 (p + 1)^2: twice of what the inverse inequality of polynomials asks for, and some more."""
        return 2.0 * (self.order + 1) ** 2

    @cached_property
    def blocks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the matrix on and below and above its diagonal, shapes (N, n, n) and (N - 1, n, n) twice.

        Those below have rows of the right leaf of a face and columns of the left one.
        """
        kappa, wind, sigma = self.problem.diffusion, self.problem.velocity, self.penalty
        n, h = self.cell.size, self.mesh.sizes[:, 0]
        tables, between = _tables(self.order)
        at_faces = sigma * kappa / np.minimum(h[:-1], h[1:])
        left, right = np.concatenate([[0.0], at_faces]), np.concatenate([at_faces, [0.0]])
        left[0], right[-1] = sigma * kappa / h[0], sigma * kappa / h[-1]
        # Of an end the slope counts once, of a face half.
        share = np.full((2, len(h)), 0.5)
        share[0, 0] = share[1, -1] = 1.0
        into, out = max(wind, 0.0), min(wind, 0.0)
        ones = np.ones(len(h))
        scales = [
            kappa / h,
            kappa / h * share[0],
            kappa / h * share[1],
            left - out,
            right + into,
            -wind * ones,
        ]
        diagonal = np.stack(scales, axis=1) @ tables
        scales = [0.5 * kappa / h[:-1], 0.5 * kappa / h[1:], -at_faces - into]
        below = np.stack(scales, axis=1) @ between[0]
        scales = [0.5 * kappa / h[1:], 0.5 * kappa / h[:-1], -at_faces + out]
        above = np.stack(scales, axis=1) @ between[1]
        return diagonal.reshape(-1, n, n), below.reshape(-1, n, n), above.reshape(-1, n, n)

    @cached_property
    def load(self) -> np.ndarray:
        """Of the source and the ends, shape (N, n)."""
        problem, mesh = self.problem, self.mesh
        found = mesh.volumes[:, None] * project(problem.source, mesh, self.cell, "source")
        g = evaluate(problem.boundary, np.array([mesh.lower, mesh.upper]), "boundary data")
        values, slopes = legendre(np.array([0.0, 1.0]), self.order)
        for leaf, side, sign, wind in (
            (0, 0, -1.0, max(problem.velocity, 0.0)),
            (-1, 1, 1.0, -min(problem.velocity, 0.0)),
        ):
            scale = problem.diffusion / mesh.sizes[leaf, 0]
            found[leaf] += g[side] * (
                (self.penalty * scale + wind) * values[side] - sign * scale * slopes[side]
            )
        return found

    def solve(self) -> TreeFunction:
        """Return the solution.

        Raises
        ------
        ConvergenceError
            If the matrix is singular to rounding.
        """
        diagonal, below, above = self.blocks
        n, count = self.cell.size, len(self.mesh)
        bands = np.zeros((4 * n - 1, count * n))
        _write(bands, diagonal, 0, 0)
        _write(bands, below, 1, 0)
        _write(bands, above, 0, 1)
        width = 2 * n - 1
        try:
            u = solve_banded((width, width), bands, self.load.ravel(), overwrite_ab=True, check_finite=False)
        except LinAlgError as error:
            raise ConvergenceError(
                f"the problem {self.problem.name!r} is singular ({error}): check its data"
            ) from error
        return TreeFunction(self.mesh, self.order, u.reshape(count, n))


def _tables(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Products of the basis: on a leaf, shape (6, n n), and across a face, shape (2, 3, n n), rows the test's."""
    cell = reference_cell(1, order)
    slope = cell.gradients(cell.nodes)[:, 0]
    stiff = (slope * cell.weights[:, None]).T
    (left, right), (d_left, d_right) = legendre(np.array([0.0, 1.0]), order)
    on_leaf = [
        stiff @ slope,
        np.outer(left, d_left) + np.outer(d_left, left),
        -np.outer(right, d_right) - np.outer(d_right, right),
        np.outer(left, left),
        np.outer(right, right),
        stiff @ cell.values,
    ]
    below = [np.outer(left, d_right), -np.outer(d_left, right), np.outer(left, right)]
    above = [-np.outer(right, d_left), np.outer(d_right, left), np.outer(right, left)]
    size = cell.size**2
    return np.reshape(on_leaf, (6, size)), np.reshape([below, above], (2, 3, size))


def _write(bands: np.ndarray, blocks: np.ndarray, row: int, column: int) -> None:
    """Write blocks (m, n, n), the first of which is at this block row and column, to a matrix in LAPACK's band form."""
    m, n, _ = blocks.shape
    i, j = np.arange(n)[:, None], np.arange(n)
    place = 2 * n - 1 + (row - column) * n + i - j
    bands[place, (column + np.arange(m))[:, None, None] * n + j] = blocks


def solve_diffusion(problem: DiffusionProblem, mesh: TreeMesh, order: int = 3) -> TreeFunction:
    """Return the solution of - kappa u'' + b u' = f.

    Raises
    ------
    ConfigError
        If the mesh is not one of an interval, or the order is 0.
    ConvergenceError
        If the matrix is singular to rounding.

    Examples
    --------
    >>> mesh = TreeMesh((0.0,), (1.0,), (4,))
    >>> u = solve_diffusion(DiffusionProblem(lambda x: np.pi**2 * np.sin(np.pi * x)), mesh)
    >>> bool(u.errors(lambda x: np.sin(np.pi * x))["l2"] < 1e-4)
    True
    """
    return DGDiffusion(problem, mesh, order).solve()
