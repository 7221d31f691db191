"""Searches for a triangular lattice T with q in T in K; see `sciml.solvers.plg.lattice` for the terms.

`search` enumerates ordered coordinate choices depth first with backtracking and prunes only what no
completion can repair. `subset_search` decides the same question by intersections of nested sets.
Problem: Zhang, Zhu, Li, arXiv 2408.03814 (2024); the searches and their proofs are our own.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sciml.errors import ConfigError

from ..polynomials import multi_indices

__all__ = ["Lattice", "SearchResult", "search", "subset_search"]

Lattice = tuple[tuple[int, ...], ...]
"""Ordered coordinates P[d][j], one tuple of n + 1 distinct integers per axis."""


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

    Examples
    --------
    >>> search(np.ones((3, 3), bool), 1)
    SearchResult(status='found', lattice=((0, 1), (0, 1)), visited=4)
    """

    status: Literal["found", "infeasible", "limit"]
    lattice: Lattice | None
    visited: int


def _start(feasible: np.ndarray, degree: int, start: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return q, the centre of the window by default, after checking the arguments."""
    if degree < 1:
        raise ConfigError(f"degree={degree}: it must be at least 1")
    q = tuple(n // 2 for n in feasible.shape) if start is None else start
    if not feasible[q]:
        raise ConfigError(f"starting node {q} is not among the feasible nodes: choose one of them")
    return q


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

    Returns
    -------
    SearchResult
        "limit" where the search was stopped.

    Raises
    ------
    ConfigError
        If the degree is below 1 or the starting node is not feasible.

    Examples
    --------
    >>> search(np.ones((5, 5), bool), 2).lattice
    ((0, 1, -1), (0, 1, -1))
    """
    dim = feasible.ndim
    q = _start(feasible, degree, start)
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


class _NestedSets:
    """Recursion of `subset_search` over the axes.

    A vector J_0, ..., J_n of sets over the axes from ``axis`` on is one integer of n + 1 bit fields, so
    that one operation intersects all of them.
    """

    def __init__(self, feasible: np.ndarray, degree: int, q: tuple[int, ...]) -> None:
        self.degree, self.q, self.last = degree, q, feasible.ndim - 1
        self.orders = [_near_first(feasible, d, q[d]) for d in range(feasible.ndim)]
        self.cells = [int(np.prod(feasible.shape[d:])) for d in range(feasible.ndim + 1)]
        bits = int.from_bytes(np.packbits(feasible, bitorder="little").tobytes(), "little")
        self.sets = sum(bits << m * self.cells[0] for m in range(degree + 1))
        self.known: dict[tuple[int, int, int], Lattice | None] = {}
        self.visited = 0

    def slices(self, axis: int, sets: int, c: int) -> int:
        """Return the vector of slices J_m(c)."""
        wide, narrow = self.cells[axis], self.cells[axis + 1]
        mask = (1 << narrow) - 1
        return sum((sets >> m * wide + c * narrow & mask) << m * narrow for m in range(self.degree + 1))

    def restrict(self, axis: int, sets: int, row: tuple[int, ...]) -> int:
        """Return the vector with S_m = J_m(c_0) & J_(m-1)(c_1) & ... & J_0(c_m)."""
        narrow = self.cells[axis + 1]
        result = (1 << narrow * (self.degree + 1)) - 1
        for j, c in enumerate(row):
            result &= self.slices(axis, sets, c) << j * narrow | (1 << j * narrow) - 1
        return result

    def decide(self, axis: int, sets: int, offset: int) -> Lattice | None:
        """Return rows for a nested problem, of all its axes but the last, or None if there are none.

        ``offset`` is the sum of the starting node's positions on the axes before, or a lower bound.
        """
        if offset > self.degree:
            return None
        if axis == self.last:
            width = self.cells[axis]
            mask = (1 << width) - 1
            hall = all(
                (sets >> m * width & mask).bit_count() > self.degree - m for m in range(self.degree + 1)
            )
            return () if hall and sets >> offset * width + self.q[axis] & 1 else None
        key = (axis, sets, offset)
        if key not in self.known:
            self.known[key] = self.branch(axis, sets, offset)
        return self.known[key]

    def branch(self, axis: int, sets: int, offset: int) -> Lattice | None:
        """Choose the row of one axis; every partial row must leave a solution on the axes behind it."""
        width, q = self.cells[axis + 1], self.q[axis]
        slices = {c: self.slices(axis, sets, c) for c in self.orders[axis]}
        failed: set[tuple[int, int, int]] = set()

        def extend(row: tuple[int, ...], used: int, rest: int, position: int) -> Lattice | None:
            j = len(row)
            # On the last axis the sets are judged one by one, and S_0, ..., S_(j-1) have passed.
            key = (used, position, rest >> j * width if axis + 1 == self.last else rest)
            if key in failed:
                return None
            refuted: list[int] = []
            for c in self.orders[axis]:
                kept = rest & (slices[c] << j * width | (1 << j * width) - 1)
                if used >> c & 1 or any(not kept & ~other for other in refuted):
                    continue
                self.visited += 1
                reached = j if c == q else position
                tail = self.decide(axis + 1, kept, offset + (j + 1 if reached < 0 else reached))
                if tail is not None:
                    longer = (*row, c)
                    if j == self.degree:
                        return (longer, *tail)
                    found = extend(longer, used | 1 << c, kept, reached)
                    if found is not None:
                        return found
                refuted.append(kept)
            failed.add(key)
            return None

        return extend((), 0, (1 << width * (self.degree + 1)) - 1, -1)


def subset_search(feasible: np.ndarray, degree: int, start: tuple[int, ...] | None = None) -> SearchResult:
    """Search one row after the other by intersections of nested sets: no blow-up on curved walls.

    It solves the *nested problem*: given sets J_0 >= J_1 >= ... >= J_n over some axes, find rows such
    that the lattice point of index k lies in J_(n - |k|) for all |k| <= n. At first every J_m is K.
    Once the row c_0, ..., c_n of the first axis is chosen, the other axes face the nested problem of

        S_m = J_m(c_0) & J_(m-1)(c_1) & ... & J_0(c_m),       J(c) the slice of J at c.

    On one axis the coordinate at position k must lie in S_(n-k). These sets are nested, so by Hall's
    condition coordinates exist if and only if |S_m| >= n + 1 - m for all m. The starting node, at
    positions that add up to a on the axes before, is then contained if and only if S_a holds it.

    Three things keep the search small; none of them loses a lattice:

    - With part of a row chosen, the factors known so far give larger sets and a position not known yet
      is at least the number of coordinates placed. If these have no solution on the axes behind, no
      completion has.
    - If c has failed at position j, so does every c' that leaves smaller sets: a solution with c' at j
      would have one with c there, by exchange of the two (by replacement, if c is not used). Only the
      starting node's coordinate must not be moved back so; it is tried first.
    - Solutions of equal nested problems, and failures of equal partial rows, are remembered.

    Parameters
    ----------
    feasible, degree, start
        As for `search`.

    Returns
    -------
    SearchResult
        Never "limit".

    Raises
    ------
    ConfigError
        As `search`.

    Examples
    --------
    >>> subset_search(np.ones((3, 3), bool), 3).status
    'infeasible'
    >>> subset_search(np.ones((5, 5, 5), bool), 2).lattice
    ((0, 1, -1), (0, 1, -1), (0, 1, -1))
    """
    q = _start(feasible, degree, start)
    problem = _NestedSets(feasible, degree, q)
    rows = problem.decide(0, problem.sets, 0)
    if rows is None:
        return SearchResult("infeasible", None, problem.visited)
    sets = problem.sets
    for axis, row in enumerate(rows):
        sets = problem.restrict(axis, sets, row)
    width, slots = problem.cells[problem.last], []
    # From the smallest set to the largest. The starting node's coordinate is the nearest, so it is taken
    # as soon as a set holds it: at a position that contains the starting node.
    for m in range(degree, -1, -1):
        members = sets >> m * width
        slots.append(next(c for c in problem.orders[-1] if members >> c & 1 and c not in slots))
    lattice = tuple(tuple(c - q[d] for c in row) for d, row in enumerate((*rows, tuple(slots))))
    return SearchResult("found", lattice, problem.visited)
