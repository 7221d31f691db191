"""Links between neighbouring nodes that a thin gap of the domain cuts.

Two neighbouring nodes inside the domain may lie on either side of a gap narrower than the spacing:
no node is outside, yet the solution is not one smooth function. Gaps from a thirtieth of the spacing on
show when phi is looked at along the link. Thinner ones have two sides that face each other; where there
are such, the segment is traced by steps of the distance to the boundary, inside balls that are known to
be free of it; where the steps shrink to nothing the segment crosses.
"""

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.spatial import cKDTree

from ..domains import BoundaryPoints, Domain
from ..grid import CartesianGrid

__all__ = ["cut_links", "facing", "leaves", "outside"]

FACING = -0.5  # cosine between normals below which two sides may bound a gap
LOOKS = 32  # parts of a segment at whose ends phi is looked at
TOUCH = 4e-3  # of h: closer than this the trace has met the boundary
GRAZING = 0.05  # cosine between segment and normal below which it slides along
MAX_STEPS = 200


def cut_links(
    domain: Domain, grid: CartesianGrid, inside: np.ndarray, samples: BoundaryPoints, thin: np.ndarray
) -> np.ndarray:
    """Return the links between inside nodes that leave the domain, shape (D, *grid.shape).

    Entry ``[d, i]`` is the link from node i to its next node along axis d. ``samples`` are dense boundary
    points, ``thin``, shape (m,), says which of them are `facing` others.
    """
    h = np.asarray(grid.spacing)
    dim = grid.dim
    cut = np.zeros((dim, *grid.shape), dtype=bool)
    cells = np.floor((samples.points - np.asarray(grid.lower)) / h).astype(int)
    met: np.ndarray = np.zeros(grid.shape, dtype=bool)
    narrow: np.ndarray = np.zeros(grid.shape, dtype=bool)
    for corner in np.ndindex(*(2,) * dim):
        node = cells + corner
        kept = ((node >= 0) & (node < np.asarray(grid.shape))).all(axis=1)
        met[tuple(node[kept].T)] = True
        narrow[tuple(node[kept & thin].T)] = True
    # A link is next to cells that it does not pass, and the samples of 3D do not meet every cell.
    narrow = np.asarray(binary_dilation(narrow))
    if dim == 3:
        met = np.asarray(binary_dilation(met))
    near = np.argwhere(met & inside)
    x = grid.coordinates(near)
    distance = np.full(grid.shape, np.inf)
    distance[tuple(near.T)] = np.linalg.norm(domain.closest_point(x).points - x, axis=1)
    for axis in range(dim):
        step = np.eye(dim, dtype=int)[axis]
        start = near[near[:, axis] + 1 < grid.shape[axis]]
        stop = start + step
        reach = distance[tuple(start.T)] + distance[tuple(stop.T)]
        # Two balls without boundary that overlap cover the segment.
        start = start[inside[tuple(stop.T)] & (reach < h[axis])]
        crossed = outside(domain, grid.coordinates(start), grid.coordinates(start + step))
        doubt = np.flatnonzero(~crossed & narrow[tuple(start.T)])
        crossed[doubt] = leaves(domain, grid.coordinates(start[doubt]), grid.coordinates(start[doubt] + step))
        cut[(axis, *start[crossed].T)] = True
    return cut


def facing(samples: BoundaryPoints, spacing: float) -> np.ndarray:
    """Whether another boundary sample close by has the opposite normal, shape (m,)."""
    count = min(16, len(samples.points))
    distance, neighbour = cKDTree(samples.points).query(
        samples.points, k=count, distance_upper_bound=1.5 * spacing
    )
    other = samples.normals[np.where(np.isfinite(distance), neighbour, 0)]
    opposite = np.einsum("mkd,md->mk", other, samples.normals) < FACING
    return np.asarray((opposite & np.isfinite(distance)).any(axis=1))


def outside(domain: Domain, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return whether segments from x to y are seen to leave the domain at points between, shape (m,)."""
    fractions = np.arange(1, LOOKS)[:, None] / LOOKS
    return np.asarray((domain.phi(x[:, None, :] + fractions * (y - x)[:, None, :]) > 0).any(axis=1))


def leaves(domain: Domain, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return whether segments from x, inside, to y, inside or on the boundary, leave the domain.

    Shapes (m, D) and (m, D) to (m,).
    """
    length = np.linalg.norm(y - x, axis=1)
    direction = (y - x) / length[:, None]
    crossed = outside(domain, x, y)
    travelled = np.zeros(len(x))
    active = np.flatnonzero(~crossed)
    for _ in range(MAX_STEPS):
        active = active[travelled[active] < length[active]]
        if len(active) == 0:
            break
        points = x[active] + travelled[active, None] * direction[active]
        foot = domain.closest_point(points)
        distance = np.linalg.norm(foot.points - points, axis=1)
        outwards = np.sum(foot.normals * direction[active], axis=1)
        shortest = TOUCH * length[active]
        # The boundary is met well before the end: an end almost on it is no crossing.
        ahead = distance < 0.5 * outwards * (length[active] - travelled[active])
        out = domain.phi(points) > 0
        out |= (distance < shortest) & (outwards > GRAZING) & ahead
        crossed[active[out]] = True
        travelled[active] += np.maximum(distance, shortest)
        active = active[~out]
    return crossed
