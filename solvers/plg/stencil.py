"""Local least-squares fits, all nodes of a grid in a few batched calls.

At a node q, with xi = (x - x_q) / h, a polynomial p = sum_e c_e xi^e of degree n is fitted to the
rows ``w_j p(xi_j) = w_j u_j`` (nodes) and ``w_b B p(xi_b) = w_b g_b`` (boundary data). With A the
unweighted rows, W = diag(w) and ell the operator applied to the monomials at q, the discrete
operator is the minimum-norm solution

    s = W z,   (W A)^T z = ell,   that is   W A = Q R,  z = Q R^-T ell.

It reproduces every polynomial of degree n exactly whatever the positive weights; the weights decide
constants and stability.
"""

import numpy as np

__all__ = ["capped_inverse_distance", "enrich", "fit_functional", "fit_polynomial", "strengthen_diagonal"]

CORRECTIONS = 2
LARGEST_CONDITION = 1e13
POWER_STEPS = 6
WEAK_DIAGONAL = 0.5
OTHER_POWERS = (1 / 3, 2 / 3, 4 / 3, 5 / 3, 2.0, 8 / 3, 4.0)


def enrich(feasible: np.ndarray, core: np.ndarray, count: int) -> np.ndarray:
    """Return the poised core followed by the nearest other feasible nodes, at most ``count`` in all.

    Nodes at one distance from the centre come together or not at all: part of such a shell, chosen by
    the order of the axes, costs symmetry and so accuracy.

    Parameters
    ----------
    feasible : ndarray of bool, D axes of odd length
        K as a window around the starting node.
    core : ndarray of int, shape (N, D)
        Points of the lattice, as offsets from the centre; may be empty.
    count : int
        Nodes wanted, (1 + rho) N.

    Returns
    -------
    ndarray of int, shape (at most max(count, N), D)
        Offsets. The core guarantees full rank for any set of extra nodes.

    Examples
    --------
    >>> enrich(np.ones((3, 3), bool), np.array([[0, 0], [0, 1], [1, 0]]), 6).tolist()
    [[0, 0], [0, 1], [1, 0], [-1, 0], [0, -1]]
    """
    radius = feasible.shape[0] // 2
    rest = feasible.copy()
    rest[tuple((core + radius).T)] = False
    offsets = np.argwhere(rest) - radius
    distance = np.sum(offsets**2, axis=1)
    order = np.argsort(distance, kind="stable")
    room = max(count - len(core), 0)
    if room < len(order):
        order = order[:room][distance[order[:room]] < distance[order[room]]]
    return np.concatenate([core, offsets[order]])


def capped_inverse_distance(xi: np.ndarray, power: float) -> np.ndarray:
    """Return the weights 1 / max(|xi|, 1/2)^power, shape (..., D) to (...)."""
    return np.maximum(np.linalg.norm(xi, axis=-1), 0.5) ** -power


def fit_functional(
    rows: np.ndarray, weights: np.ndarray, functional: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Express a functional of the fitted polynomials by the data, for a batch of nodes.

    Parameters
    ----------
    rows : ndarray, shape (B, M, N)
        A: data functionals applied to the monomials.
    weights : ndarray, shape (B, M)
        w; zero for padding.
    functional : ndarray, shape (B, N, K)
        ell, K functionals for every node.

    Returns
    -------
    s : ndarray, shape (B, M, K)
        Weights of the discrete functionals: ell(p) = sum_j s_j data_j.
    condition : ndarray, shape (B,)
        Spectral condition number, to about a per cent, of W A after its columns are normalised; infinite
        if rank deficient.
    """
    weighted, inverse, scale, condition = _factored(rows, weights)
    transposed = np.swapaxes(weighted, 1, 2)
    s = np.zeros((*rows.shape[:2], functional.shape[2]))
    # W A = Q R without Q: s = W A R^-1 R^-T ell, and corrections by what is left of ell.
    for _ in range(1 + CORRECTIONS):
        rest = functional / scale[..., None] - transposed @ s
        s += weighted @ (inverse @ (np.swapaxes(inverse, 1, 2) @ rest))
    return weights[..., None] * s, condition


def fit_polynomial(rows: np.ndarray, weights: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit polynomials to data.

    Parameters
    ----------
    rows, weights
        As for `fit_functional`.
    data : ndarray, shape (B, M)
        Where the weight is zero it does not count.

    Returns
    -------
    coefficients : ndarray, shape (B, N)
        Of the monomials.
    condition : ndarray, shape (B,)
        As for `fit_functional`.
    """
    weighted, inverse, scale, condition = _factored(rows, weights)
    transposed = np.swapaxes(weighted, 1, 2)
    right = np.where(weights > 0, weights * data, 0.0)[..., None]
    c = np.zeros((len(rows), rows.shape[2], 1))
    for _ in range(1 + CORRECTIONS):
        c += inverse @ (np.swapaxes(inverse, 1, 2) @ (transposed @ (right - weighted @ c)))
    return c[..., 0] / scale, condition


def _factored(rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return B = W A S^-1, R^-1 of B = Q R, the column norms S, and the condition numbers."""
    weighted = rows * weights[..., None]
    scale = np.linalg.norm(weighted, axis=1)
    scale[scale == 0] = 1.0
    weighted /= scale[:, None, :]
    r = np.asarray(np.linalg.qr(weighted, mode="r"))
    pivots = np.abs(np.einsum("bii->bi", r))
    deficient = ~(pivots.min(axis=1) > pivots.max(axis=1) / LARGEST_CONDITION)
    r[deficient] = np.eye(r.shape[-1])
    inverse = np.linalg.inv(r)
    condition = _spectral_norm(r) * _spectral_norm(inverse)
    condition[deficient | ~(condition < LARGEST_CONDITION)] = np.inf
    return weighted, inverse, scale, condition


def _spectral_norm(matrices: np.ndarray) -> np.ndarray:
    """Largest singular values, to about a per cent, by power iteration."""
    gram = np.swapaxes(matrices, 1, 2) @ matrices
    largest = np.argmax(np.einsum("bii->bi", gram), axis=1)
    v = gram[np.arange(len(gram)), largest][..., None]
    for _ in range(POWER_STEPS):
        v = gram @ (v / np.linalg.norm(v, axis=1, keepdims=True))
    return np.sqrt(np.linalg.norm(v, axis=1)[:, 0])


def strengthen_diagonal(
    s: np.ndarray,
    condition: np.ndarray,
    rows: np.ndarray,
    weights: np.ndarray,
    functional: np.ndarray,
    centre: np.ndarray,
    nodes: int,
) -> int:
    """Refit, in place, the equations whose diagonal is weak, with other powers of the same weights.

    Where a node almost meets the point at which Dirichlet data change to Neumann data, the two kinds
    of data compete, the diagonal loses against the rest of its row or changes its sign, and a single
    such row can put an eigenvalue into the right half plane. Of the powers tried the one with the
    strongest diagonal is kept; all reproduce polynomials.

    Parameters
    ----------
    s, condition, rows, weights, functional
        Results and arguments of `fit_functional` for one functional, shapes (B, M), (B,), (B, M, N),
        (B, M) and (B, N).
    centre : ndarray of int, shape (B,)
        Column of the node itself.
    nodes : int
        Columns that belong to nodes, not to boundary data.

    Returns
    -------
    int
        Number of equations refitted.
    """

    def strength(s: np.ndarray, centre: np.ndarray) -> np.ndarray:
        diagonal = s[np.arange(len(s)), centre]
        rest = np.abs(s[:, :nodes]).sum(axis=1) - np.abs(diagonal)
        return -diagonal / np.maximum(rest, np.finfo(float).tiny)

    best = strength(s, centre)
    weak = np.flatnonzero(best < WEAK_DIAGONAL)
    for factor in OTHER_POWERS if len(weak) else ():
        other, number = fit_functional(rows[weak], weights[weak] ** factor, functional[weak, :, None])
        other = other[..., 0]
        strong = strength(other, centre[weak])
        better = (strong > best[weak]) & np.isfinite(number)
        chosen = weak[better]
        s[chosen], condition[chosen], best[chosen] = other[better], number[better], strong[better]
    return len(weak)
