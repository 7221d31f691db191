"""Poised lattice generation: find nodes on which polynomial interpolation has one solution.

A *triangular lattice* of degree n in D variables is given by an ordered list of n + 1 distinct
coordinates per axis, P[d] = (P[d][0], ..., P[d][n]):

    T(P) = { (P[0][k_0], ..., P[D-1][k_(D-1)]) : |k| <= n }.

It has N = C(n + D, D) points and is always poised: in Newton's basis the sample matrix is
triangular. *D-permutations* (D rows, each a permutation of 0..n) act on the lattices by P -> P o A;
for D >= 2 the action on the lattices of the cube {0..n}^D is simply transitive.

The problem: given feasible nodes K and a starting node q in K, find T with q in T in K. `search`
enumerates ordered coordinate choices depth first with backtracking and prunes only what no
completion can repair; `subset_search` (two dimensions) decides the same question without blow-up.
Problem and action: Zhang, Zhu, Li, arXiv 2408.03814 (2024); searches and proofs are our own.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sciml.errors import ConfigError

from ..polynomials import multi_indices

__all__ = [
    "Lattice",
    "SearchResult",
    "act",
    "d_permutations",
    "find_lattice",
    "lattice_points",
    "principal_lattice",
    "sample_determinant",
    "search",
    "subset_search",
]

Lattice = tuple[tuple[int, ...], ...]
"""Ordered coordinates P[d][j], one tuple of n + 1 distinct integers per axis."""


def principal_lattice(degree: int, dim: int) -> Lattice:
    """Return P[d] = (0, 1, ..., n) for all axes: the lattice {k : |k| <= n}."""
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
    """Iterate over the group of D-permutations of degree n, of order ((n + 1)!)^D."""
    return itertools.product(itertools.permutations(range(degree + 1)), repeat=dim)


def act(permutation: Lattice, lattice: Lattice) -> Lattice:
    """Return P o A, the action of a D-permutation A on the lattice T(P).

    Examples
    --------
    >>> act(((1, 0), (0, 1)), ((3, 4), (5, 6)))
    ((4, 3), (5, 6))
    """
    return tuple(tuple(row[j] for j in order) for order, row in zip(permutation, lattice, strict=True))


@dataclass(frozen=True)
class SearchResult:
    """Outcome of a search.

    Attributes
    ----------
    status : {"found", "infeasible", "limit"}
        "infeasible" is a proof that no triangular lattice exists; "limit" proves nothing.
    lattice : Lattice or None
        Coordinates are offsets from the starting node.
    visited : int
        Search nodes visited.
    """

    status: Literal["found", "infeasible", "limit"]
    lattice: Lattice | None
    visited: int


def _check(feasible: np.ndarray, degree: int, start: tuple[int, ...]) -> None:
    if degree < 1:
        raise ConfigError(f"degree={degree}: it must be at least 1")
    if not feasible[start]:
        raise ConfigError(f"starting node {start} is not among the feasible nodes: choose one of them")


def _near_first(feasible: np.ndarray, axis: int, start: int) -> list[int]:
    """Coordinates that occur in K along an axis, nearest to the starting node first."""
    others = tuple(d for d in range(feasible.ndim) if d != axis)
    return sorted(
        np.flatnonzero(feasible.any(axis=others)).tolist(), key=lambda c: (abs(c - start), c < start)
    )


def search(
    feasible: np.ndarray, degree: int, start: tuple[int, ...] | None = None, node_limit: int = 3000
) -> SearchResult:
    """Depth-first search with backtracking, in any dimension.

    Entries are placed one at a time, column by column (m = 0: all axes, m = 1: all axes, ...). A
    partial array is abandoned as soon as a lattice point whose coordinates are all placed is not
    feasible, or the starting node can no longer be contained: its positions in the rows, or the
    earliest still free ones, must add up to at most n.

    Parameters
    ----------
    feasible : ndarray of bool, D axes
        K as a window.
    degree : int
        n.
    start : tuple of int, optional
        q; the centre of the window by default.
    node_limit : int
        Stop after this many search nodes. The worst case is exponential (curved walls do blow up).

    Examples
    --------
    >>> search(np.ones((5, 5), bool), 2).lattice
    ((0, 1, -1), (0, 1, -1))
    """
    dim = feasible.ndim
    q = tuple(n // 2 for n in feasible.shape) if start is None else start
    _check(feasible, degree, q)
    coordinates = [_near_first(feasible, d, q[d]) for d in range(dim)]
    strides = [int(np.prod(feasible.shape[d + 1 :])) for d in range(dim)]
    inside = feasible.tobytes()
    # Indices k whose last placed slot (k_d, d) is s; a point is tested when its slot is filled.
    tests: list[list[tuple[int, ...]]] = [[] for _ in range(dim * (degree + 1))]
    for k in map(tuple, multi_indices(degree, dim).tolist()):
        tests[max(k[d] * dim + d for d in range(dim))].append(k)
    rows: list[list[int]] = [[] for _ in range(dim)]
    position: list[int | None] = [None] * dim
    visited = 0

    def extend(slot: int) -> bool:
        nonlocal visited
        if slot == dim * (degree + 1):
            return True
        d = slot % dim
        row = rows[d]
        for c in coordinates[d]:
            if c in row:
                continue
            visited += 1
            if visited > node_limit:
                return False
            row.append(c)
            if c == q[d]:
                position[d] = len(row) - 1
            bound = sum(len(rows[a]) if p is None else p for a, p in enumerate(position))
            if (
                bound <= degree
                and all(inside[sum(rows[a][k[a]] * strides[a] for a in range(dim))] for k in tests[slot])
                and extend(slot + 1)
            ):
                return True
            row.pop()
            if c == q[d]:
                position[d] = None
        return False

    if extend(0):
        lattice = tuple(tuple(c - q[d] for c in row) for d, row in enumerate(rows))
        return SearchResult("found", lattice, visited)
    return SearchResult("limit" if visited > node_limit else "infeasible", None, visited)


def subset_search(feasible: np.ndarray, degree: int, start: tuple[int, int] | None = None) -> SearchResult:
    """Two-dimensional search without blow-up: choose ordered columns only.

    With C(x) the set of rows y for which (x, y) is feasible, and I_i = C(x_0) & ... & C(x_i), the
    row at position n - i must lie in I_i. These sets are nested, so by Hall's condition rows exist
    if and only if |I_i| >= n + 1 - i for all i; the starting node is contained if and only if its
    column is some x_a and its row lies in I_a. I_i depends on the *set* of columns, so failures are
    memoised on it: at most 2^(m + 1) states for m columns.

    Parameters and result as for `search`; never "limit".

    Examples
    --------
    >>> subset_search(np.ones((3, 3), bool), 3).status
    'infeasible'
    """
    q = (feasible.shape[0] // 2, feasible.shape[1] // 2) if start is None else start
    _check(feasible, degree, q)
    columns = _near_first(feasible, 0, q[0])
    members = {x: sum(1 << int(y) for y in np.flatnonzero(feasible[x])) for x in columns}
    failed: set[tuple[int, bool]] = set()
    chosen: list[int] = []
    visited = 0

    def extend(used: int, rows: int, has_q: bool) -> bool:
        nonlocal visited
        i = len(chosen)
        if i == degree + 1:
            return has_q
        if (used, has_q) in failed:
            return False
        for x in columns:
            common = rows & members[x]
            if used >> x & 1 or common.bit_count() < degree + 1 - i:
                continue
            if x == q[0] and not common >> q[1] & 1:
                continue
            visited += 1
            chosen.append(x)
            if extend(used | 1 << x, common, has_q or x == q[0]):
                return True
            chosen.pop()
        failed.add((used, has_q))
        return False

    if not extend(0, (1 << feasible.shape[1]) - 1, False):
        return SearchResult("infeasible", None, visited)

    nested = list(itertools.accumulate((members[x] for x in chosen), lambda a, b: a & b))
    order = _near_first(feasible, 1, q[1])
    slots: list[int] = []
    # From the smallest set to the largest. The starting node's row is the nearest, so it is taken as
    # soon as a set holds it: at a slot of at most n - a, which contains the starting node.
    for rows in reversed(nested):
        slots.append(next(y for y in order if rows >> y & 1 and y not in slots))
    lattice = (tuple(x - q[0] for x in chosen), tuple(y - q[1] for y in slots))
    return SearchResult("found", lattice, visited)


def find_lattice(feasible: np.ndarray, degree: int, node_limit: int = 3000) -> SearchResult:
    """Search depth first; in two dimensions fall back on the subset search at the node limit."""
    result = search(feasible, degree, node_limit=node_limit)
    if result.status == "limit" and feasible.ndim == 2:
        second = subset_search(feasible, degree)
        return SearchResult(second.status, second.lattice, result.visited + second.visited)
    return result
