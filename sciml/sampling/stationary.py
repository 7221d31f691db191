"""The law that a kernel really samples, without a chain: numerical bias to many digits, on a line.

The transition operator (P f)(x) = E f(step(x, z)) acts on polynomials through Chebyshev nodes, and the expectation over
z is a Gauss-Hermite sum; what it leaves invariant is the left eigenvector of the value 1.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from scipy.special import roots_hermitenorm
from torch import Tensor

from sciml.errors import ConfigError

from .langevin import Kernel, Underdamped

__all__ = ["stationary_averages"]


def stationary_averages(
    kernel: Kernel,
    span: tuple[float, float],
    observables: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    *,
    nodes: tuple[int, int] = (100, 32),
    quadrature: int = 24,
    fastest: float = 6.0,
) -> dict[str, float]:
    """Return averages under the stationary law of a kernel that does not reject.

    They are not weighted, whatever the kernel asks for: of a kernel with weights g ask for g f and g.

    Parameters
    ----------
    kernel : Kernel
        Of a target on a line.
    span : (float, float)
        Outside of which there is practically nothing; steps beyond end there.
    observables : mapping from name to callable, optional
        From states (B, 1) to (B,); the target's moments by default. "E p^2" is added for underdamped kernels.
    nodes : (int, int)
        In positions and momenta.
    quadrature : int
        Values of each normal number.
    fastest : float
        Momenta in units of their deviation.

    Returns
    -------
    dict from name to float

    Raises
    ------
    ConfigError
        If the target is not on a line, or the kernel rejects.

    Examples
    --------
    Euler's steps of size h on a unit normal have the variance 1 / (1 - h / 2):

    >>> from sciml.sampling.langevin import Overdamped
    >>> from sciml.sampling.targets import FunctionDensity
    >>> normal = FunctionDensity(lambda x: -x[:, 0].square() / 2, 1)
    >>> ula = Overdamped(normal, 0.5)
    >>> found = stationary_averages(ula, (-9.0, 9.0), {"E x^2": lambda x: x[:, 0].square()}, nodes=(80, 1))
    >>> round(found["E x^2"], 8)
    1.33333333
    """
    if kernel.target.d != 1 or getattr(kernel, "adjusted", False):
        raise ConfigError("kernel: give one of a target on a line that does not reject")
    if observables is None:
        observables = {moment.name: moment.of for moment in kernel.target.moments}
    moving = isinstance(kernel, Underdamped)
    reach = fastest * kernel.temperature**0.5
    q = _chebyshev(nodes[0], *span)
    p = _chebyshev(nodes[1], -reach, reach) if moving else np.zeros(1)
    z, w = roots_hermitenorm(quadrature)
    w = w / w.sum()
    grids = np.meshgrid(q, p, *[z] * kernel.width, indexing="ij")
    at = [torch.from_numpy(grid.reshape(-1, 1)) for grid in grids]
    weight = np.ones(1)
    for _ in range(kernel.width):
        weight = np.multiply.outer(weight, w).reshape(-1)
    state = kernel.start(at[0], torch.zeros_like(at[0]))
    if moving:
        state = type(state)(state.place, at[1])
    state = kernel.step(state, torch.cat(at[2:], 1))
    parts = [_interpolation(state.q[:, 0].numpy(), q, *span)]
    if moving:
        assert state.p is not None
        parts.append(_interpolation(state.p[:, 0].numpy(), p, -reach, reach))
    size, count = len(q) * len(p), len(weight)
    operator = np.zeros((size, size))
    for row in range(size):
        part = slice(row * count, (row + 1) * count)
        first = parts[0][part] * weight[:, None]
        operator[row] = (first.T @ parts[1][part]).ravel() if moving else first.sum(0)
    # mu (P - 1) = 0 and mu 1 = 1, in place of one of the equations, as they add up to nothing.
    system = (operator - np.eye(size)).T
    system[-1] = 1.0
    law = np.linalg.solve(system, np.eye(size)[-1]).reshape(len(q), len(p))
    states = torch.from_numpy(q[:, None])
    found = {name: float(law.sum(1) @ function(states).numpy()) for name, function in observables.items()}
    if moving:
        found["E p^2"] = float(law.sum(0) @ p**2)
    return found


def _chebyshev(n: int, low: float, high: float) -> np.ndarray:
    """Return n Chebyshev points of the first kind."""
    angles = np.pi * (np.arange(n) + 0.5) / n
    return (low + high) / 2 - (high - low) / 2 * np.cos(angles)


def _interpolation(x: np.ndarray, nodes: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the matrix from values at the nodes to those at x of the polynomial through them (barycentric formula)."""
    n = len(nodes)
    angles = np.pi * (np.arange(n) + 0.5) / n
    weights = (-1.0) ** np.arange(n) * np.sin(angles)
    difference = np.clip(x, low, high)[:, None] - nodes
    exact = difference == 0
    difference[exact] = 1.0
    matrix = weights / difference
    matrix /= matrix.sum(1, keepdims=True)
    rows = exact.any(1)
    matrix[rows] = exact[rows]
    return matrix
