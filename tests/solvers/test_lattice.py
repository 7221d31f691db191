"""Facts F1-F4 of poised lattices, the searches against brute force, symmetries of windows."""

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
    Lattice,
    SearchResult,
    act,
    canonical_forms,
    canonical_search,
    compose,
    d_permutations,
    find_lattice,
    inverse,
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
def test_f2_action_is_simply_transitive(dim: int, degree: int, count: int) -> None:
    """Different D-permutations give different lattices (D >= 2), and all lattices of the cube arise."""
    indices = multi_indices(degree, dim)
    lattices = set()
    for a in d_permutations(degree, dim):
        lattice = np.array(act(a, principal_lattice(degree, dim)))
        flat = np.zeros(len(indices), dtype=int)
        for d in range(dim):
            flat = flat * (degree + 1) + lattice[d][indices[:, d]]
        lattices.add(np.sort(flat).tobytes())
    assert len(lattices) == count
    if math.factorial(degree + 1) ** dim <= 216:
        assert lattices == {np.sort(flat).tobytes() for flat in all_lattices(degree + 1, degree, dim)}


def d_permutation(degree: int, dim: int) -> st.SearchStrategy[Lattice]:
    return st.tuples(*[st.permutations(range(degree + 1)).map(tuple)] * dim)


@given(st.data(), st.integers(1, 6), st.integers(1, 3))
def test_d_permutations_are_a_group_that_acts(data: st.DataObject, degree: int, dim: int) -> None:
    a, b, c = (data.draw(d_permutation(degree, dim)) for _ in range(3))
    identity = principal_lattice(degree, dim)
    lattice = tuple(tuple(10 * d + 3 * j for j in range(degree + 1)) for d in range(dim))
    assert compose(compose(a, b), c) == compose(a, compose(b, c))
    assert compose(a, identity) == compose(identity, a) == a
    assert compose(a, inverse(a)) == compose(inverse(a), a) == identity
    assert act(identity, lattice) == lattice
    assert act(compose(a, b), lattice) == act(b, act(a, lattice))
    # The only element that takes lattice a to lattice b.
    assert act(compose(inverse(a), b), act(a, lattice)) == act(b, lattice)


def assert_solves(result: SearchResult, feasible: np.ndarray, q: tuple[int, ...]) -> None:
    """The lattice, if one was found, lies in K and contains q."""
    assert (result.lattice is not None) == (result.status == "found")
    if result.lattice is not None:
        assert all(len(set(row)) == len(row) for row in result.lattice)
        points = lattice_points(result.lattice) + np.array(q)
        assert points.min() >= 0
        assert feasible[tuple(points.T)].all()
        assert q in map(tuple, points.tolist())


def test_searches_agree_with_brute_force_on_random_sets() -> None:
    """F4: the depth-first search and the subset search are complete."""
    rng = np.random.default_rng(3)
    cases = [(1, 2, 4, 40), (2, 1, 3, 120), (2, 2, 4, 180), (2, 3, 5, 120)]
    cases += [(3, 1, 3, 120), (3, 2, 3, 160), (4, 1, 3, 60)]
    outcomes = []
    for dim, degree, size, repeats in cases:
        for _ in range(repeats):
            feasible = rng.random((size,) * dim) < rng.uniform(0.3 if dim < 3 else 0.6, 0.95)
            q = tuple(rng.integers(0, size, dim).tolist())
            feasible[q] = True
            outcomes.append(brute_force(feasible, degree, q))
            for result in (search(feasible, degree, q, 10**9), subset_search(feasible, degree, q)):
                assert (result.status == "found") == outcomes[-1]
                assert_solves(result, feasible, q)
    assert len(outcomes) == 800
    assert 200 < sum(outcomes) < 700  # both answers occur


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4), st.integers(0, 2**31), st.floats(0.6, 0.95))
def test_subset_search_decides_what_the_depth_first_search_decides(
    degree: int, seed: int, density: float
) -> None:
    feasible = np.random.default_rng(seed).random((2 * degree + 1,) * 2) < density
    feasible[degree, degree] = True
    first, second = search(feasible, degree, node_limit=20_000), subset_search(feasible, degree)
    assert_solves(second, feasible, (degree, degree))
    assert second.status != "limit"
    if first.status != "limit":
        assert second.status == first.status


def test_cubic_lattices_in_half_spaces_with_holes() -> None:
    rng = np.random.default_rng(4)
    outcomes = []
    for size in (4, 5) * 20:
        q = tuple(rng.integers(0, size, 3).tolist())
        normal = rng.normal(size=3)
        distance = (np.stack(np.indices((size,) * 3), -1) - q) @ normal / np.linalg.norm(normal)
        feasible = (distance < rng.uniform(0, 3)) & (rng.random((size,) * 3) < rng.uniform(0.85, 1.0))
        feasible[q] = True
        result = subset_search(feasible, 3, q)
        assert_solves(result, feasible, q)
        outcomes.append((result.status, search(feasible, 3, q, node_limit=30_000).status))
    assert set(outcomes) <= {(a, a) for a in ("found", "infeasible")} | {("infeasible", "limit")}
    assert min(outcomes.count((a, a)) for a in ("found", "infeasible")) >= 5


@pytest.mark.parametrize(
    ("window", "q"),
    [
        ("bddfddbbf3fef8df", (2, 2, 1)),
        ("fedff3fdbe7f9fff", (2, 1, 2)),
        ("3a43ffdffafeaf5d", (1, 2, 0)),
        ("f1f9f7f6feff878f", (2, 0, 2)),
    ],
)
def test_failures_are_remembered_for_equal_partial_rows_only(window: str, q: tuple[int, ...]) -> None:
    """A lattice needs its slices in one order; the same slices in another order fail first."""
    feasible = np.unpackbits(np.frombuffer(bytes.fromhex(window), np.uint8)).astype(bool).reshape(4, 4, 4)
    result = subset_search(feasible, 3, q)
    assert result.status == "found"
    assert_solves(result, feasible, q)


@pytest.mark.parametrize(("dim", "degree"), [(2, 3), (2, 4), (3, 2), (3, 3)])
def test_containment_of_the_starting_node_is_exact(dim: int, degree: int) -> None:
    """K is one lattice: each of its points can start, another node of the cube hardly ever."""
    rng = np.random.default_rng(5)
    infeasible = 0
    for _ in range(3):
        lattice = tuple(tuple(rng.permutation(degree + 1).tolist()) for _ in range(dim))
        points = lattice_points(lattice)
        for q in np.ndindex((degree + 1,) * dim):
            feasible = np.zeros((degree + 1,) * dim, bool)
            feasible[tuple(points.T)] = feasible[q] = True
            result = subset_search(feasible, degree, q)
            assert (result.status == "found") == brute_force(feasible, degree, q)
            infeasible += result.status == "infeasible"
            if list(q) in points.tolist():
                found = tuple(tuple(c + q[d] for c in row) for d, row in enumerate(result.lattice or ()))
                assert found == lattice  # by F2 no other lattice has these points
    assert infeasible > 0


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 3), st.integers(0, 2**31), st.floats(0.6, 0.95), st.integers(1, 400))
def test_symmetry_images_share_one_search(dim: int, seed: int, density: float, node_limit: int) -> None:
    rng = np.random.default_rng(seed)
    degree = 4 - dim
    feasible = rng.random(tuple((2 * rng.integers(degree, degree + 2, dim) + 1).tolist())) < density
    feasible[tuple(n // 2 for n in feasible.shape)] = True
    canonical_search.cache_clear()
    status = find_lattice(feasible, degree, node_limit).status
    for axes in itertools.permutations(range(dim)):
        for flips in itertools.product((1, -1), repeat=dim):
            image = feasible.transpose(axes)[tuple(slice(None, None, flip) for flip in flips)]
            result = find_lattice(image, degree, node_limit)
            assert result.status == status
            assert_solves(result, image, tuple(n // 2 for n in image.shape))
    assert canonical_search.cache_info().misses <= (1 if one_form(feasible) else 2**dim * math.factorial(dim))


def one_form(feasible: np.ndarray) -> bool:
    """Whether the first moments tell all symmetries apart."""
    moments = set()
    for axis, n in enumerate(feasible.shape):
        offsets = np.arange(n) - n // 2
        counts = feasible.sum(axis=tuple(d for d in range(feasible.ndim) if d != axis))
        moments.add(abs(int(counts @ (offsets**3 + 1000 * offsets))))
    return 0 not in moments and len(moments) == feasible.ndim


def test_canonical_forms_say_how_they_were_made() -> None:
    windows = np.random.default_rng(6).random((20, 5, 5, 5)) < 0.5
    forms, axes, signs = canonical_forms(windows)
    for window, form, axis, sign in zip(windows, forms, axes, signs, strict=True):
        rebuilt = np.empty_like(window)
        for index in np.ndindex(form.shape):
            source = [0] * 3
            for d in range(3):
                source[axis[d]] = index[d] if sign[d] == 1 else 4 - index[d]
            rebuilt[tuple(source)] = form[index]
        assert np.array_equal(rebuilt, window)
        image = window.transpose(2, 0, 1)[::-1, :, ::-1]
        if one_form(window):
            assert np.array_equal(canonical_forms(image[None])[0][0], form)


def test_result_does_not_depend_on_the_history_of_the_cache() -> None:
    feasible = curved_wall(np.random.default_rng(7), 2, 5)
    canonical_search.cache_clear()
    fresh = find_lattice(feasible, 4)
    canonical_search.cache_clear()
    find_lattice(feasible[::-1].T, 4)
    assert find_lattice(feasible, 4) == fresh
    assert canonical_search.cache_info().hits == 1
    assert canonical_search.cache_info().maxsize is not None


def test_even_windows_start_behind_the_middle() -> None:
    feasible = np.zeros((4, 4), bool)
    feasible[1:3, 1:3] = True
    for edge in ((1, 1), (1, 2), (2, 1)):
        opened = feasible.copy()
        opened[edge] = False
        assert_solves(find_lattice(opened, 1), opened, (2, 2))
        assert find_lattice(opened, 1).status == "found"


def curved_wall(rng: np.random.Generator, dim: int, radius: int, layer: float = np.inf) -> np.ndarray:
    """Nodes behind a parabolic wall with random normal, at most one node from q, down to some depth."""
    normal = rng.normal(size=dim)
    offsets = np.stack(np.indices((2 * radius + 1,) * dim), -1) - radius
    height = offsets @ normal / np.linalg.norm(normal)
    depth = rng.uniform() - 0.08 * (np.sum(offsets**2, axis=-1) - height**2) - height
    return (depth > 0) & (depth < layer)


@pytest.mark.parametrize(
    ("dim", "degree", "count"), [(2, 4, 40), (2, 5, 40), (2, 6, 40), (3, 2, 20), (3, 3, 20), (3, 4, 20)]
)
def test_curved_walls_are_decided(dim: int, degree: int, count: int) -> None:
    rng = np.random.default_rng(8)
    decided = []
    for _ in range(count):
        for layer in (np.inf, degree, 1.5):
            feasible = curved_wall(rng, dim, degree + 1, layer)
            first, result = search(feasible, degree, node_limit=100), find_lattice(feasible, degree, 100)
            assert result.status == "found" or (result.status == "infeasible" and layer < np.inf)
            assert first.status in ("limit", result.status)
            assert_solves(result, feasible, (degree + 1,) * dim)
            decided.append((first.status, result.status))
    assert "limit" in {first for first, _ in decided}
    assert {"found", "infeasible"} == {second for _, second in decided}


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
