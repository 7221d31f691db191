"""Poised lattice generation: find nodes on which polynomial interpolation has one solution.

A *triangular lattice* of degree n in D variables is given by an ordered list of n + 1 distinct
coordinates per axis, P[d] = (P[d][0], ..., P[d][n]):

    T(P) = { (P[0][k_0], ..., P[D-1][k_(D-1)]) : |k| <= n }.

It has N = C(n + D, D) points and is always poised: in Newton's basis the sample matrix is
triangular. *D-permutations* (D rows, each a permutation of 0..n) form a group that acts on the
lattices by P -> P o A, from the right; for D >= 2 the action on the lattices of the cube {0..n}^D is
simply transitive.

The problem: given feasible nodes K and a starting node q in K, find T with q in T in K.
`find_lattice` puts K into a canonical form under the symmetries of the cube, searches depth first for
a compact lattice, and leaves the hard sets to `subset_search`, which decides them without blow-up.
Problem and action: Zhang, Zhu, Li, arXiv 2408.03814 (2024); searches and proofs are our own.
"""

import functools
import itertools
import math
from collections.abc import Iterator

import numpy as np

from ..polynomials import multi_indices
from .search import Lattice, SearchResult, search, subset_search

__all__ = [
    "Lattice",
    "SearchResult",
    "act",
    "canonical_forms",
    "canonical_search",
    "compose",
    "d_permutations",
    "find_lattice",
    "inverse",
    "lattice_points",
    "principal_lattice",
    "sample_determinant",
    "search",
    "subset_search",
]


def principal_lattice(degree: int, dim: int) -> Lattice:
    """Return P[d] = (0, 1, ..., n) for all axes: the lattice {k : |k| <= n}.

    It is also the identity of the group of D-permutations.

    Examples
    --------
    >>> principal_lattice(2, 2)
    ((0, 1, 2), (0, 1, 2))
    """
    return (tuple(range(degree + 1)),) * dim


def lattice_points(lattice: Lattice) -> np.ndarray:
    """Return the points of T(P) in the order of `multi_indices`, shape (N, D).

    Examples
    --------
    >>> lattice_points(((0, 1), (5, 7))).tolist()
    [[0, 5], [0, 7], [1, 5]]
    """
    indices = multi_indices(len(lattice[0]) - 1, len(lattice))
    return np.stack([np.asarray(row)[indices[:, d]] for d, row in enumerate(lattice)], axis=1)


def sample_determinant(lattice: Lattice) -> int:
    """Return the determinant of the matrix x^e over points x of T(P) and |e| <= n, exactly.

    det V = prod_d prod_(j=1..n) prod_(i<j) (P[d][j] - P[d][i]) ^ C(n - j + D - 1, D - 1),
    rows and columns in the same order. Never zero: triangular lattices are poised.

    Examples
    --------
    >>> [sample_determinant(principal_lattice(n, 2)) for n in (1, 2, 3, 4)]
    [1, 4, 576, 47775744]
    """
    degree, dim = len(lattice[0]) - 1, len(lattice)
    result = 1
    for row in lattice:
        for j in range(1, degree + 1):
            product = math.prod(int(row[j]) - int(row[i]) for i in range(j))
            result *= product ** math.comb(degree - j + dim - 1, dim - 1)
    return result


def d_permutations(degree: int, dim: int) -> Iterator[Lattice]:
    """Iterate over the group of D-permutations of degree n, of order ((n + 1)!)^D.

    Examples
    --------
    >>> len(list(d_permutations(2, 2)))
    36
    """
    return itertools.product(itertools.permutations(range(degree + 1)), repeat=dim)


def act(permutation: Lattice, lattice: Lattice) -> Lattice:
    """Return P o A, the action of a D-permutation A on the lattice T(P).

    Examples
    --------
    >>> act(((1, 0), (0, 1)), ((3, 4), (5, 6)))
    ((4, 3), (5, 6))
    """
    return tuple(tuple(row[j] for j in order) for order, row in zip(permutation, lattice, strict=True))


def compose(first: Lattice, second: Lattice) -> Lattice:
    """Return the product A o B of two D-permutations: acting with it is acting with A, then with B.

    Parameters
    ----------
    first, second : Lattice
        A and B, of one degree and dimension.

    Examples
    --------
    >>> a, b = ((1, 2, 0),), ((0, 2, 1),)
    >>> compose(a, b)
    ((1, 0, 2),)
    >>> act(compose(a, b), ((5, 6, 7),)) == act(b, act(a, ((5, 6, 7),)))
    True
    """
    return act(second, first)


def inverse(permutation: Lattice) -> Lattice:
    """Return the inverse of a D-permutation.

    Examples
    --------
    >>> inverse(((1, 2, 0), (0, 2, 1)))
    ((2, 0, 1), (0, 2, 1))
    """
    return tuple(tuple(sorted(range(len(row)), key=row.__getitem__)) for row in permutation)


def canonical_forms(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn windows by symmetries of the cube so that images of one another become the same.

    Axes are flipped until their first moments are negative, as more nodes lie behind than ahead, and
    sorted by them. Where moments vanish or agree, which they hardly do unless the window has that
    symmetry itself, images may keep two forms; then both are searched.

    Parameters
    ----------
    windows : ndarray of bool, shape (k, s, ..., s)
        Windows with D axes of one odd length s around starting nodes.

    Returns
    -------
    forms : ndarray of bool, shape (k, s, ..., s)
    axes : ndarray of int, shape (k, D)
        Axis d of a form is axis ``axes[d]`` of the window, ...
    signs : ndarray of int, shape (k, D)
        ... read backwards where ``signs[d]`` is -1.

    Examples
    --------
    >>> forms, axes, signs = canonical_forms(np.array([[[1, 1, 1], [1, 1, 1], [0, 0, 0]]], bool))
    >>> forms[0].astype(int).tolist(), axes[0].tolist(), signs[0].tolist()
    ([[1, 1, 0], [1, 1, 0], [1, 1, 0]], [1, 0], [1, 1])
    """
    dim, side = windows.ndim - 1, windows.shape[1]
    offsets = np.indices((side,) * dim).reshape(dim, -1).T - side // 2
    # Odd powers: integers, exact as float64, and seldom equal unless the window is symmetric.
    moments = windows.reshape(len(windows), -1) @ (offsets**3 + 1000.0 * offsets)
    axes = np.argsort(np.abs(moments), axis=1, kind="stable")
    signs = np.where(np.take_along_axis(moments, axes, axis=1) > 0, -1, 1)
    forms = np.empty_like(windows)
    symmetries, member = np.unique(np.concatenate([axes, signs], axis=1), axis=0, return_inverse=True)
    for number, symmetry in enumerate(symmetries):
        mine = member.ravel() == number
        turned = windows[mine].transpose(0, *(symmetry[:dim] + 1))
        forms[mine] = turned[(slice(None), *(slice(None, None, sign) for sign in symmetry[dim:]))]
    return forms, axes, signs


@functools.lru_cache(maxsize=4096)
def canonical_search(window: bytes, shape: tuple[int, ...], degree: int, node_limit: int) -> SearchResult:
    """Search depth first, then by subsets if the node limit is met; results are kept for repeated use.

    Parameters
    ----------
    window : bytes
        K, one byte per node in C order; the starting node is the centre.
    shape : tuple of int
        Shape of the window.
    degree, node_limit : int
        As for `find_lattice`.

    Examples
    --------
    >>> canonical_search(bytes([1] * 9), (3, 3), 1, 100).lattice
    ((0, 1), (0, 1))
    """
    feasible = np.frombuffer(window, dtype=bool).reshape(shape)
    result = search(feasible, degree, node_limit=node_limit)
    if result.status != "limit":
        return result
    second = subset_search(feasible, degree)
    return SearchResult(second.status, second.lattice, result.visited + second.visited)


def find_lattice(feasible: np.ndarray, degree: int, node_limit: int = 300) -> SearchResult:
    """Find a triangular lattice in K that contains the centre of the window, or prove that there is none.

    Windows that differ by a symmetry of the cube share one search, and so do repeated windows. The
    result depends on the arguments alone.

    Parameters
    ----------
    feasible : ndarray of bool, D axes
        K as a window; the starting node has index shape // 2.
    degree : int
        n.
    node_limit : int
        Nodes of the depth-first search, whose lattices are the more compact ones. Near curved walls it
        either ends within some hundred nodes or, as a rule, does not end.

    Returns
    -------
    SearchResult
        Never "limit".

    Raises
    ------
    ConfigError
        If the degree is below 1 or the centre is not feasible.

    Examples
    --------
    >>> wall = np.ones((5, 5), bool)
    >>> wall[3:] = False
    >>> find_lattice(wall, 2).lattice
    ((0, -1, -2), (0, 1, -1))
    """
    centre = [n // 2 for n in feasible.shape]
    radius = max(centre)
    padded = np.pad(
        feasible, [(radius - c, radius - (n - 1 - c)) for n, c in zip(feasible.shape, centre, strict=True)]
    )
    forms, axes, signs = canonical_forms(padded[None])
    result = canonical_search(forms[0].tobytes(), forms[0].shape, degree, node_limit)
    if result.lattice is None:
        return result
    rows: list[tuple[int, ...]] = [()] * feasible.ndim
    for row, axis, sign in zip(result.lattice, axes[0].tolist(), signs[0].tolist(), strict=True):
        rows[axis] = tuple(sign * c for c in row)
    return SearchResult(result.status, tuple(rows), result.visited)
