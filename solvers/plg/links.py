"""Links between neighbouring nodes that a thin gap of the domain cuts.

Two neighbouring nodes inside the domain may lie on either side of a gap narrower than the spacing:
no node is outside, yet the solution is not one smooth function. The segment between them is traced
by steps of the distance to the boundary, inside balls that are known to be free of it; where the
steps shrink to nothing the segment crosses.
"""

import numpy as np
from scipy.ndimage import binary_dilation

from ..domains import Domain
from ..grid import CartesianGrid

__all__ = ["cut_links", "leaves"]

TOUCH = 1e-3  # of h: closer than this the trace has met the boundary
GRAZING = 0.05  # cosine between segment and normal below which it slides along
MAX_STEPS = 200


def cut_links(domain: Domain, grid: CartesianGrid, inside: np.ndarray) -> np.ndarray:
    """Return the links between inside nodes that leave the domain, shape (D, *grid.shape).

    Entry ``[d, i]`` is the link from node i to its next node along axis d.
    """
    h = np.asarray(grid.spacing)
    dim = grid.dim
    cut = np.zeros((dim, *grid.shape), dtype=bool)
    samples = domain.boundary(float(h.min()) / (8 if dim < 3 else 1)).points
    cells = np.floor((samples - np.asarray(grid.lower)) / h).astype(int)
    met = np.zeros(grid.shape, dtype=bool)
    for corner in np.ndindex(*(2,) * dim):
        node = cells + corner
        node = node[((node >= 0) & (node < np.asarray(grid.shape))).all(axis=1)]
        met[tuple(node.T)] = True
    if dim == 3:
        # The samples are too coarse to meet every cell that the boundary passes.
        met = binary_dilation(met)
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
        doubtful = inside[tuple(stop.T)] & (reach < h[axis])
        start = start[doubtful]
        crossed = leaves(domain, grid.coordinates(start), grid.coordinates(start + step))
        cut[(axis, *start[crossed].T)] = True
    return cut


def leaves(domain: Domain, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return whether segments from x, inside, to y, inside or on the boundary, leave the domain.

    Shapes (m, D) and (m, D) to (m,).
    """
    length = np.linalg.norm(y - x, axis=1)
    direction = (y - x) / length[:, None]
    crossed = np.zeros(len(x), dtype=bool)
    travelled = np.zeros(len(x))
    active = np.arange(len(x))
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
