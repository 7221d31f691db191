"""An elliptic solve as a differentiable torch function of its source and boundary data.

    u = A^-1 (f - G g),      df = A^-T du,      dg = -G^T A^-T du

with du, df, dg the gradients of a scalar with respect to u, f, g (the discrete adjoint method: Giles and
Pierce, Flow, Turbulence and Combustion 65, 2000). The map is linear and so is its adjoint, of which the
map is the adjoint: derivatives of any order.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from sciml.errors import ConfigError
from sciml.solvers import PLG, CartesianGrid, EllipticProblem, EllipticSolver
from sciml.solvers.elliptic import LinearSolverName, refuse_free_constants, refuse_unknown_solver
from sciml.solvers.linear import DirectSolver

__all__ = ["DifferentiableSolve"]

Map = Callable[[np.ndarray], np.ndarray]
DIRECT_UNKNOWNS = {
    1: 10**9,
    2: 200_000,
    3: 20_000,
}  # one factorisation serves many solves: larger than for one


class _LinearMap(torch.autograd.Function):
    """A linear map of the last axis with its adjoint; leading axes are a batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, apply: Map, adjoint: Map) -> Tensor:
        ctx.maps = adjoint, apply
        flat = x.detach().cpu().numpy().reshape(-1, x.shape[-1])
        y = np.ascontiguousarray(apply(flat.T).T)
        return torch.from_numpy(y).reshape(*x.shape[:-1], -1).to(x.device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _LinearMap.apply(gradients[0], *ctx.maps), None, None


class DifferentiableSolve(nn.Module):
    """Solve L u = f, B u = g for tensors of nodal values of f and g, with gradients, on the CPU.

    Parameters
    ----------
    problem : EllipticProblem
        L, the domain and the kind of boundary condition; its data are not used.
    grid : CartesianGrid
        Its box must contain the domain.
    method : PLG, optional
        ``PLG()`` by default: fourth order.
    solver : {"auto", "direct", "krylov"}
        One sparse LU for A and A^T and all batches; or preconditioned GMRES for one right-hand side
        after the other; by default LU up to 200 000 unknowns in 2D and 20 000 in 3D.
    tolerance : float
        Of GMRES, as for `EllipticSolver`.

    Raises
    ------
    ConfigError
        If the problem determines u only up to a constant, or the solver is not known.
    ConvergenceError
        If the matrix is singular or, from `forward` or in the backward pass, GMRES does not converge.
    GeometryError, StencilError
        As for `sciml.solvers.solve`.

    Examples
    --------
    >>> from sciml.solvers import Disk, Poisson
    >>> layer = DifferentiableSolve(Poisson(Disk(0.4), 0.0), CartesianGrid.uniform(20))
    >>> f = torch.full((len(layer.nodes),), -1.0, dtype=torch.float64, requires_grad=True)
    >>> u = layer(f)  # (0.16 - r^2) / 4, of maximum 0.04
    >>> round(float(u.max().detach()), 12)
    0.04
    >>> u.sum().backward()
    >>> bool(f.grad.max() < 0)
    True
    """

    def __init__(
        self,
        problem: EllipticProblem,
        grid: CartesianGrid,
        method: PLG | None = None,
        solver: LinearSolverName = "auto",
        tolerance: float = 1e-13,
    ) -> None:
        super().__init__()
        refuse_unknown_solver(solver)
        if problem.determined_up_to_constants:
            raise ConfigError(
                f"problem {problem.name!r} has pure Neumann data and no zeroth-order term, which leave u free up to a "
                "constant: add a zeroth-order term, or use Robin or Mixed data"
            )
        system = (method or PLG()).discretise(problem, grid)
        refuse_free_constants(problem, grid, system)
        size = len(system.node_index)
        self._nodes = torch.from_numpy(grid.coordinates(system.node_index))
        self._boundary_points = torch.from_numpy(system.boundary_points.points.copy())
        self._data: tuple[Map, Map] = (system.boundary_matrix.dot, system.boundary_matrix.T.dot)
        self._inverse: tuple[Map, Map]
        if solver == "direct" or (solver == "auto" and size <= DIRECT_UNKNOWNS[grid.dim]):
            direct = DirectSolver(system.matrix)
            self._inverse = (direct.solve, direct.solve_transposed)
        else:
            # The low-order matrix of L is close to that of its transpose where diffusion dominates.
            both = (system, replace(system, matrix=sp.csr_array(system.matrix.T)))
            solvers = [
                EllipticSolver(problem, grid, solver=solver, tolerance=tolerance, system=s) for s in both
            ]
            self._inverse = (_by_column(solvers[0]), _by_column(solvers[1]))

    @property
    def nodes(self) -> Tensor:
        """Coordinates of the m unknowns, where the source is given, shape (m, D)."""
        return self._nodes

    @property
    def boundary_points(self) -> Tensor:
        """Coordinates of the b points where the boundary data are given, shape (b, D)."""
        return self._boundary_points

    def forward(self, source: Tensor | None = None, boundary_data: Tensor | None = None) -> Tensor:
        """Return u at the nodes.

        Parameters
        ----------
        source : Tensor, shape (..., m), optional
            f at `nodes`; zero by default.
        boundary_data : Tensor, shape (..., b), optional
            g at `boundary_points`; zero by default. Leading axes broadcast against those of ``source``.

        Returns
        -------
        Tensor, shape (..., m), float64

        Raises
        ------
        ConfigError
            If a tensor has another last axis, or is not finite.
        """
        rhs = torch.zeros(len(self._nodes), dtype=torch.float64)
        if source is not None:
            rhs = _checked(source, len(self._nodes), "source")
        if boundary_data is not None:
            data = _checked(boundary_data, len(self._boundary_points), "boundary_data")
            rhs = rhs.to(data.device) - _LinearMap.apply(data, *self._data)
        return _LinearMap.apply(rhs, *self._inverse)


def _checked(values: Tensor, size: int, name: str) -> Tensor:
    if values.ndim == 0 or values.shape[-1] != size:
        raise ConfigError(f"{name} of shape {tuple(values.shape)}: its last axis must have length {size}")
    if not torch.isfinite(values).all():
        raise ConfigError(
            f"{name} has {int((~torch.isfinite(values)).sum())} values that are not finite: mend them"
        )
    return values.to(torch.float64)


def _by_column(solver: EllipticSolver) -> Map:
    return lambda rhs: np.stack([solver.solve_unknowns(column)[0] for column in rhs.T], axis=1)
