"""Facts F1-F4 of poised lattices, and both searches against brute force."""

import functools
import itertools
import math

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import ConfigError
from sciml.solvers.plg.lattice import (
    act,
    d_permutations,
    find_lattice,
    lattice_points,
    principal_lattice,
    sample_determinant,
    search,
    subset_search,
)
from sciml.solvers.polynomials import monomials, multi_indices


def exact_determinant(points: np.ndarray, degree: int) -> int:
    rows = [
        [
            math.prod(int(x) ** int(k) for x, k in zip(p, e, strict=True))
            for e in multi_indices(degree, points.shape[1])
        ]
        for p in points
    ]
    return int(sympy.Matrix(rows).det())


@functools.cache
def all_lattices(size: int, degree: int, dim: int) -> np.ndarray:
    """Every triangular lattice in a cube of nodes, as flat indices of its points, shape (lattices, N)."""
    rows = np.array(list(itertools.permutations(range(size), degree + 1)))
    indices = multi_indices(degree, dim)
    flat = np.zeros((len(rows),) * dim + (len(indices),), dtype=int)
    for d in range(dim):
        shape = [1] * dim + [len(indices)]
        shape[d] = len(rows)
        flat = flat * size + rows[:, indices[:, d]].reshape(shape)
    return flat.reshape(-1, len(indices))


def brute_force(feasible: np.ndarray, degree: int, q: tuple[int, ...]) -> bool:
    """Whether some triangular lattice lies in K and contains q, by trying all of them."""
    lattices = all_lattices(len(feasible), degree, feasible.ndim)
    inside = feasible.ravel()[lattices].all(axis=1)
    contains = (lattices == np.ravel_multi_index(q, feasible.shape)).any(axis=1)
    return bool((inside & contains).any())


@pytest.mark.parametrize(("dim", "degree"), [(1, 3), (2, 1), (2, 2), (2, 3), (2, 4), (3, 1), (3, 2)])
def test_f1_determinant_formula(dim: int, degree: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(6):
        lattice = tuple(tuple(rng.permutation(np.arange(-6, 7))[: degree + 1].tolist()) for _ in range(dim))
        assert sample_determinant(lattice) == exact_determinant(lattice_points(lattice), degree) != 0


def test_f1_principal_lattices() -> None:
    values = [sample_determinant(principal_lattice(n, 2)) for n in (1, 2, 3, 4, 5)]
    assert values == [1, 4, 576, 47775744, 57063042868838400]


@pytest.mark.parametrize(
    ("dim", "degree", "count"),
    [(2, 1, 4), (2, 2, 36), (2, 3, 576), (2, 4, 14400), (3, 1, 8), (3, 2, 216), (3, 3, 13824), (1, 3, 1)],
)
def test_f2_permutations_are_lattices(dim: int, degree: int, count: int) -> None:
    identity = principal_lattice(degree, dim)
    indices = multi_indices(degree, dim)
    lattices = set()
    for a in d_permutations(degree, dim):
        lattice = np.array(act(a, identity))
        flat = np.zeros(len(indices), dtype=int)
        for d in range(dim):
            flat = flat * (degree + 1) + lattice[d][indices[:, d]]
        lattices.add(np.sort(flat).tobytes())
    assert len(lattices) == count


def test_action_is_a_group_action() -> None:
    rng = np.random.default_rng(2)

    def draw() -> tuple:
        return tuple(tuple(rng.permutation(4).tolist()) for _ in range(2))

    for _ in range(20):
        a, b, lattice = draw(), draw(), draw()
        assert act(b, act(a, lattice)) == act(act(b, a), lattice)


def test_searches_agree_with_brute_force_on_500_random_sets() -> None:
    """F4: the depth-first search is complete; so is the subset search, in two dimensions."""
    rng = np.random.default_rng(3)
    cases = [(2, 1, 3, 120), (2, 2, 4, 180), (2, 3, 5, 120), (3, 1, 3, 80)]
    assert sum(case[-1] for case in cases) == 500
    disagreements, feasible_cases = 0, 0
    for dim, degree, size, repeats in cases:
        for _ in range(repeats):
            density = rng.uniform(0.3, 0.9)
            feasible = rng.random((size,) * dim) < density
            q = tuple(rng.integers(0, size, dim).tolist())
            feasible[q] = True
            expected = brute_force(feasible, degree, q)
            feasible_cases += expected
            results = [search(feasible, degree, q, node_limit=10**9)]
            results += [subset_search(feasible, degree, q)] if dim == 2 else []
            for result in results:
                disagreements += (result.status == "found") != expected
                if result.lattice is not None:
                    points = lattice_points(result.lattice) + np.array(q)
                    assert feasible[tuple(points.T)].all()
                    assert q in map(tuple, points.tolist())
                    assert sample_determinant(result.lattice) != 0
    assert disagreements == 0
    assert 100 < feasible_cases < 400  # both answers occur


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4), st.integers(0, 2**31), st.floats(0.6, 0.95))
def test_subset_search_decides_what_the_depth_first_search_decides(
    degree: int, seed: int, density: float
) -> None:
    feasible = np.random.default_rng(seed).random((2 * degree + 1,) * 2) < density
    feasible[degree, degree] = True
    first = search(feasible, degree, node_limit=20_000)
    if first.status != "limit":
        assert subset_search(feasible, degree).status == first.status


def test_node_limit_gives_way_to_the_subset_search() -> None:
    """Curved walls blow the depth-first search up although a lattice exists."""
    offsets = np.arange(-5, 6)
    x, y = np.meshgrid(offsets, offsets, indexing="ij")
    limited = 0
    for shift in np.linspace(0.05, 0.95, 40):
        feasible = y - shift < -0.08 * (x - 0.3 * shift) ** 2
        feasible[5, 5] = True
        result = search(feasible, 5, node_limit=50)
        limited += result.status == "limit"
        assert find_lattice(feasible, 5, node_limit=50).status == subset_search(feasible, 5).status
    assert limited > 0


def test_full_window_gives_the_centred_lattice() -> None:
    lattice = search(np.ones((9, 9), bool), 4).lattice
    assert lattice == ((0, 1, -1, 2, -2),) * 2


@pytest.mark.parametrize(
    ("dim", "one_sided", "centred"),
    [
        (2, [20.44, 236.8, 4325, 1.043e5, 3.098e6], [8.069, 33.38, 109.2, 1116, 5559]),
        (3, [27.78, 323.3, 6168, 1.566e5, 4.885e6], [14.11, 56.02, 273.9, 2557, 1.735e4]),
    ],
)
def test_condition_numbers(dim: int, one_sided: list[float], centred: list[float]) -> None:
    for degree, side, middle in zip((2, 3, 4, 5, 6), one_sided, centred, strict=True):
        near_first = sorted(range(-degree, degree + 1), key=lambda c: (abs(c), c < 0))[: degree + 1]
        for row, expected in ((range(degree + 1), side), (near_first, middle)):
            points = lattice_points((tuple(row),) * dim)
            condition = np.linalg.cond(monomials(points.astype(float), multi_indices(degree, dim)))
            assert condition == pytest.approx(expected, rel=1e-3)


def test_bad_arguments() -> None:
    window = np.ones((3, 3), bool)
    with pytest.raises(ConfigError, match="degree=0"):
        search(window, 0)
    window[1, 1] = False
    with pytest.raises(ConfigError, match="not among the feasible nodes"):
        subset_search(window, 1)
