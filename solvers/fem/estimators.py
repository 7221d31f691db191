"""Error estimators of Galerkin solutions, triangle by triangle: eta_T, with the energy error like (sum eta_T^2)^(1/2).

With the residual r = f + div(a grad u) - b . grad u - c u and jumps [a du/dn] over edges E of length h_E,

    residual   eta_T^2 = h_T^2 |r|_T^2 + 1/2 sum_E h_E |[a du/dn]|_E^2        Verfuerth (1996)
    kelly      eta_T^2 = sum_E h_T / 24 |[a du/dn]|_E^2                       Kelly et al., IJNME 19, 1593 (1983)
    zz         eta_T   = |a^(1/2) (G u - grad u)|_T                           Zienkiewicz and Zhu, IJNME 24, 337 (1987)

where G u interpolates means of grad u over the triangles around each node. On natural boundaries h - a du/dn counts in
full; nothing is estimated of the error in Dirichlet data.
"""

from collections.abc import Callable

import numpy as np

from sciml.registry import unknown_name
from sciml.solvers.functions import derivative, evaluate
from sciml.solvers.legendre import gauss

from .elliptic import Galerkin
from .lagrange import OPPOSITE, FEFunction, basis, triangle_rule

__all__ = ["ESTIMATORS", "estimate", "flux_jumps"]


def flux_jumps(method: Galerkin, u: FEFunction) -> np.ndarray:
    """Return |[a du/dn]|_E^2, the integral over each edge, shape (E,).

    0 on Dirichlet edges; on natural ones of h - a du/dn.
    """
    mesh, problem, order = method.mesh, method.problem, method.order
    along, weights = gauss(order if not callable(problem.diffusion) else order + 1)
    x, y = mesh.edge_vectors.T
    difference = _differences(method, u, np.array([y, -x]) / mesh.edge_lengths, along)
    # On the boundary it is the outward derivative.
    natural = method.natural_edges
    if callable(problem.diffusion) or len(natural):
        points = mesh.vertices[mesh.edges[:, :1]] + along[:, None] * mesh.edge_vectors[:, None]
    if callable(problem.diffusion):
        a = evaluate(problem.diffusion, points.reshape(-1, 2), "diffusion").reshape(difference.shape)
        difference = a * difference
    else:
        difference *= problem.diffusion
    if len(natural):
        h = evaluate(problem.neumann, points[natural].reshape(-1, 2), "Neumann data").reshape(
            len(natural), -1
        )
        difference[natural] -= h
    difference[method.essential_edges] = 0.0
    return (difference**2 @ weights) * mesh.edge_lengths


def _differences(method: Galerkin, u: FEFunction, normals: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Normal derivatives of one triangle less those of the other, at points along each edge; in the boundary outward.

    Normals, shape (2, E), point to the right of edges, which run from the vertex of the lower number to the other.
    """
    mesh = method.mesh
    if method.order == 1:
        slopes = (u.values[mesh.triangles.T] * mesh.gradients.T).sum(axis=1)
        (first, second), outer = mesh.edge_triangles.T, mesh.boundary_edges
        inside = first[outer]
        jumps = slopes[:, first] - slopes[:, second]
        jumps[:, outer] = slopes[:, inside]
        found = (jumps * normals).sum(axis=0)
        from_inside = mesh.vertices[mesh.edges[outer, 0]].T - mesh.corners[:, :, inside].mean(axis=1)
        found[outer] *= np.sign((from_inside * normals[:, outer]).sum(axis=0))
        return found[:, None].repeat(len(along), axis=1)
    local = u.values[method.space.elements]
    found = np.zeros((len(mesh.edges), len(along)))
    for side, (j, k) in enumerate(OPPOSITE):
        nodes = np.zeros((len(along), 3))
        nodes[:, j], nodes[:, k] = 1 - along, along
        slopes = np.einsum("ti,qik->tqk", local, basis(method.order, nodes)[1]) @ mesh.gradients
        # Triangles may see edges the other way: those that see them as they run have them to their left.
        turned = mesh.triangles[:, j] > mesh.triangles[:, k]
        slopes[turned] = slopes[turned, ::-1]
        edge = mesh.triangle_edges[:, side]
        flux = (slopes * normals.T[edge, None]).sum(axis=-1)
        found[edge[~turned]] += flux[~turned]
        found[edge[turned]] -= flux[turned]
    return found


def _residual(method: Galerkin, u: FEFunction) -> np.ndarray:
    mesh, problem = method.mesh, method.problem
    nodes, weights = triangle_rule(2 * method.order + 2)
    residual = method.space.data(problem.source, nodes, "source")
    values, slopes = u.at(nodes)
    if callable(problem.reaction) or problem.reaction:
        residual = residual - method.space.data(problem.reaction, nodes, "reaction") * values
    for axis in range(2):
        speed = problem.velocity[axis]
        if callable(speed) or speed:
            residual = residual - method.space.data(speed, nodes, "velocity") * slopes[..., axis]
        if callable(problem.diffusion):
            change = derivative(problem.diffusion, axis, 2)
            residual = (
                residual + method.space.data(change, nodes, "slope of the diffusion") * slopes[..., axis]
            )
    if method.order == 2:
        a = method.space.data(problem.diffusion, nodes, "diffusion")
        residual = residual + a * _laplacian(method, u)[:, None]
    inside = (residual**2 @ weights) * mesh.areas
    on_edges = flux_jumps(method, u) * mesh.edge_lengths
    on_edges[mesh.edge_triangles[:, 1] >= 0] *= 0.5
    return np.sqrt(mesh.diameters**2 * inside + on_edges[mesh.triangle_edges].sum(axis=1))


def _laplacian(method: Galerkin, u: FEFunction) -> np.ndarray:
    """Of a quadratic function, shape (T,)."""
    gradients, local = method.mesh.gradients, u.values[method.space.elements]
    metric = gradients @ np.swapaxes(gradients, 1, 2)
    of_vertices = 4 * np.diagonal(metric, axis1=1, axis2=2)
    of_edges = 8 * np.stack([metric[:, j, k] for j, k in OPPOSITE], axis=1)
    return (local * np.concatenate([of_vertices, of_edges], axis=1)).sum(axis=1)


def _kelly(method: Galerkin, u: FEFunction) -> np.ndarray:
    jumps = flux_jumps(method, u)[method.mesh.triangle_edges].sum(axis=1)
    return np.sqrt(method.mesh.diameters / 24 * jumps)


def _zz(method: Galerkin, u: FEFunction) -> np.ndarray:
    mesh, space, order = method.mesh, method.space, method.order
    at_nodes = np.eye(3) if order == 1 else np.concatenate([np.eye(3), 0.5 * (1 - np.eye(3))])
    slopes = u.at(at_nodes)[1] * mesh.areas[:, None, None]
    flat = space.elements.ravel()
    total = np.bincount(flat, np.repeat(mesh.areas, space.elements.shape[1]), minlength=space.size)
    parts = [np.bincount(flat, slopes[..., axis].ravel(), minlength=space.size) / total for axis in range(2)]
    nodes, weights = triangle_rule(2 * order)
    values = basis(order, nodes)[0]
    recovered = np.stack([part[space.elements] @ values.T for part in parts], axis=-1)
    gap = ((recovered - u.at(nodes)[1]) ** 2).sum(axis=-1)
    return np.sqrt(mesh.areas * ((gap * space.data(method.problem.diffusion, nodes, "diffusion")) @ weights))


ESTIMATORS: dict[str, Callable[[Galerkin, FEFunction], np.ndarray]] = {
    "residual": _residual,
    "kelly": _kelly,
    "zz": _zz,
}
"""By name."""


def estimate(method: Galerkin, u: FEFunction, name: str = "residual") -> np.ndarray:
    """Return eta_T of a Galerkin solution, shape (T,).

    Raises
    ------
    ConfigError
        If there is no estimator of that name.

    Examples
    --------
    >>> from sciml.solvers.fem import FEMProblem, rectangle
    >>> method = Galerkin(FEMProblem(dirichlet=lambda x, y: x), rectangle(2, 2))
    >>> bool(estimate(method, method.solve(), "kelly").max() < 1e-14)
    True
    """
    if name not in ESTIMATORS:
        raise unknown_name("estimator", name, list(ESTIMATORS))
    return ESTIMATORS[name](method, u)
