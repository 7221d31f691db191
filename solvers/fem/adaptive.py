"""The adaptive loop: solve, estimate, mark, refine."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sciml.errors import ConfigError

from .elliptic import FEMProblem, Galerkin
from .estimators import estimate
from .lagrange import FEFunction
from .marking import mark_doerfler
from .mesh import TriMesh

__all__ = ["AdaptiveStep", "solve_adaptively"]


@dataclass(frozen=True)
class AdaptiveStep:
    """One mesh of an adaptive run.

    Attributes
    ----------
    u : FEFunction
    indicators : ndarray, shape (T,)
        eta_T.
    unknowns : int
        Nodes without given values.
    """

    u: FEFunction
    indicators: np.ndarray
    unknowns: int

    @property
    def estimate(self) -> float:
        """(sum eta_T^2)^(1/2)."""
        return float(np.sqrt((self.indicators**2).sum()))


def solve_adaptively(
    problem: FEMProblem,
    mesh: TriMesh,
    *,
    order: int = 1,
    estimator: str = "residual",
    mark: Callable[[np.ndarray], np.ndarray] = mark_doerfler,
    max_unknowns: int = 10_000,
) -> Iterator[AdaptiveStep]:
    """Yield solutions on ever finer meshes, until one has as many unknowns as allowed or nothing is marked.

    Parameters
    ----------
    problem : FEMProblem
    mesh : TriMesh
        To start from.
    order : int
        Of the elements, 1 or 2.
    estimator : str
        "residual", "kelly" or "zz".
    mark : callable
        From indicators to numbers of triangles; `mark_doerfler` with theta = 1/2 by default.
    max_unknowns : int

    Raises
    ------
    ConfigError
        If the first mesh has more unknowns, or arguments are wrong.

    Examples
    --------
    >>> from sciml.solvers.fem import l_shape
    >>> *_, last = solve_adaptively(FEMProblem(source=1.0), l_shape(2), max_unknowns=2000)
    >>> bool(0 < 0.2140758 - last.u.integral() < 1e-3)
    True
    """
    start = mesh
    while True:
        method = Galerkin(problem, mesh, order)
        unknowns = int((~method.fixed).sum())
        if unknowns > max_unknowns:
            if mesh is start:
                raise ConfigError(f"max_unknowns={max_unknowns}: the first mesh has {unknowns} already")
            return
        u = method.solve()
        indicators = estimate(method, u, estimator)
        yield AdaptiveStep(u, indicators, unknowns)
        marked = mark(indicators)
        if len(marked) == 0:
            return
        mesh = mesh.refine(marked)
