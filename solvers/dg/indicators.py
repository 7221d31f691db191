"""Where a solution on a tree is poor, leaf by leaf.

The exact solution is continuous: jumps over faces show the error of a discontinuous method. With

    J_F = int_F |[[u]]| ds,      gamma_K = (1 / |dK|) sum_(F in dK) J_F

the latter is the *non-conformity* of Foucart, Charous and Lermusiaux, J. Comput. Phys. 491, 112381 (2023). It blames
both sides of a face. In transport problems a jump belongs to the leaf that the flow enters there: its solution starts
from a value which the leaf upstream could not represent any better, or is itself too coarse to follow. `Jumps.entering`
is the one-sided form.
"""

from dataclasses import dataclass

import numpy as np

from sciml.solvers.functions import evaluate

from .advection import DGAdvection
from .diffusion import DGDiffusion

__all__ = ["Jumps", "advection_jumps", "diffusion_jumps"]


@dataclass(frozen=True)
class Jumps:
    """Jumps of a discontinuous solution.

    Attributes
    ----------
    nonconformity : ndarray, shape (N,)
        gamma_K, jumps to boundary data included where the method takes them from there.
    entering, leaving : ndarray, shape (N,)
        Integrals of |[[u]]| over those parts of the boundary of a leaf through which the flow enters and leaves it;
        without a flow both are the mean of all.
    """

    nonconformity: np.ndarray
    entering: np.ndarray
    leaving: np.ndarray


def advection_jumps(method: DGAdvection, coefficients: np.ndarray, time: float = 0.0) -> Jumps:
    """Return the jumps of a solution with coefficients of shape (N, n), to the inflow data at a time included.

    Examples
    --------
    >>> from sciml.solvers.dg import AdvectionProblem, TreeMesh
    >>> method = DGAdvection(AdvectionProblem((1.0,)), TreeMesh((0.0,), (1.0,), (2,)), order=0)
    >>> found = advection_jumps(method, np.array([[1.0], [3.0]]))
    >>> found.nonconformity.tolist(), found.entering.tolist(), found.leaving.tolist()
    ([1.5, 1.0], [1.0, 2.0], [2.0, 0.0])
    """
    mesh = method.mesh
    if method.one_way:
        return _jumps_on_a_line(method, coefficients, time)
    faces, sides, values = method.face_flow, method.inflow_boundary, method.at_sides(coefficients)
    jump = np.abs(values[faces.lower] - values[faces.upper]) * faces.weights
    whole, upwards, downwards = (
        part.sum(axis=1) for part in (jump, jump * (faces.flux > 0), jump * (faces.flux < 0))
    )
    below_and_above = np.concatenate([faces.lower[0], faces.upper[0]])
    total, leaving, entering = (
        np.bincount(below_and_above, np.concatenate(parts), len(mesh))
        for parts in ((whole, whole), (upwards, downwards), (downwards, upwards))
    )
    if len(sides.flux):
        inflow = method.problem.inflow_at(time)
        given = evaluate(inflow, sides.points.reshape(-1, mesh.dim), "inflow").reshape(sides.flux.shape)
        jump = np.abs(values[sides.places] - given) * sides.weights * (sides.flux < 0)
        added = np.bincount(sides.places[0], jump.sum(axis=1), len(mesh))
        # Without faces they are sums of nothing, which are integers.
        total, entering = total + added, entering + added
    perimeters = 2.0 * (mesh.volumes[:, None] / mesh.sizes).sum(axis=1)
    return Jumps(total / perimeters, entering, leaving)


def _jumps_on_a_line(method: DGAdvection, coefficients: np.ndarray, time: float) -> Jumps:
    """Of a flow that everywhere goes one way."""
    ends, forward = coefficients @ method.cell.ends, method.one_way > 0
    jump = np.zeros(len(ends) + 1)
    jump[1:-1] = np.abs(ends[:-1, 1] - ends[1:, 0])
    first, value = (0, ends[0, 0]) if forward else (-1, ends[-1, 1])
    jump[first] = abs(value - method.entering(time))
    left, right = jump[:-1], jump[1:]
    return Jumps(0.5 * (left + right), *((left, right) if forward else (right, left)))


def diffusion_jumps(method: DGDiffusion, coefficients: np.ndarray) -> Jumps:
    """Return the jumps of a solution with coefficients of shape (N, n), to the data at both ends included.

    Examples
    --------
    >>> from sciml.solvers.dg import DiffusionProblem, TreeMesh
    >>> method = DGDiffusion(DiffusionProblem(0.0), TreeMesh((0.0,), (1.0,), (2,)), order=1)
    >>> diffusion_jumps(method, np.array([[1.0, 0.0], [3.0, 0.0]])).nonconformity.tolist()
    [1.5, 2.5]
    """
    mesh = method.mesh
    ends = coefficients @ method.cell.ends
    g = evaluate(method.problem.boundary, np.array([mesh.lower, mesh.upper]), "boundary data")
    jump = np.abs(np.append(ends[:, 0], g[1]) - np.append(g[0], ends[:, 1]))
    left, right = jump[:-1], jump[1:]
    mean, wind = 0.5 * (left + right), method.problem.velocity
    if wind == 0:
        return Jumps(mean, mean, mean)
    return Jumps(mean, *((left, right) if wind > 0 else (right, left)))
