"""Trees: balance, order, faces, and transfer of polynomials between them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import ConfigError, GeometryError
from sciml.solvers.dg import TreeFunction, TreeMesh
from sciml.solvers.dg.fields import overlay
from sciml.solvers.dg.reference import reference_cell
from sciml.solvers.dg.tree import MAX_LEVEL


def square(roots: int = 2, periodic: tuple[bool, bool] = (False, False)) -> TreeMesh:
    return TreeMesh((0.0, -1.0), (2.0, 2.0), (roots, roots + 1), periodic)


def interval() -> TreeMesh:
    return TreeMesh((-1.0,), (2.0,), (3,))


@st.composite
def trees(draw: st.DrawFn) -> TreeMesh:
    """Trees after a few random rounds of refining and coarsening."""
    periodic = draw(st.booleans())
    mesh = draw(st.sampled_from([interval(), square(1), square(2, (periodic, False))]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    for _ in range(draw(st.integers(0, 6))):
        mesh = mesh.refine(rng.integers(len(mesh), size=2))
        if rng.random() < 0.5:
            mesh = mesh.coarsen(rng.random(len(mesh)) < 0.8)
    return mesh


@given(trees())
@settings(max_examples=60, deadline=None)
def test_leaves_fill_the_box_in_order_and_are_balanced(mesh: TreeMesh) -> None:
    assert np.isclose(mesh.volumes.sum(), np.prod(np.subtract(mesh.upper, mesh.lower)), rtol=1e-14)
    assert (np.diff(mesh.codes) > 0).all()
    faces = mesh.faces
    assert (np.abs(mesh.levels[faces.lower] - mesh.levels[faces.upper]) <= 1).all()


@given(trees())
@settings(max_examples=60, deadline=None)
def test_faces_cover_the_sides_of_every_leaf_once(mesh: TreeMesh) -> None:
    faces, boundary = mesh.faces, mesh.boundary
    covered = np.zeros((len(mesh), mesh.dim, 2))
    own = np.where(faces.part_of_lower > 0, faces.upper, faces.lower)
    area = mesh.volumes[own] / mesh.sizes[own, faces.axis]
    np.add.at(covered, (faces.lower, faces.axis, 1), area)
    np.add.at(covered, (faces.upper, faces.axis, 0), area)
    np.add.at(
        covered,
        (boundary.cell, boundary.axis, boundary.side),
        mesh.volumes[boundary.cell] / mesh.sizes[boundary.cell, boundary.axis],
    )
    assert np.allclose(covered, (mesh.volumes[:, None] / mesh.sizes)[..., None], rtol=1e-13)


@given(trees())
@settings(max_examples=60, deadline=None)
def test_both_sides_of_a_face_meet_where_its_parts_say(mesh: TreeMesh) -> None:
    faces, cell = mesh.faces, reference_cell(mesh.dim, 1)
    for f in range(len(faces.axis)):
        axis = faces.axis[f]
        places = []
        for leaf, side, part in (
            (faces.lower[f], 1, faces.part_of_lower[f]),
            (faces.upper[f], 0, faces.part_of_upper[f]),
        ):
            points = cell.face_nodes(axis, side)
            if part and mesh.dim == 2:
                points[:, 1 - axis] = 0.5 * (points[:, 1 - axis] + part - 1)
            places.append(mesh.origins[leaf] + mesh.sizes[leaf] * points)
        gap = places[0] - places[1]
        # The ends of a periodic axis are one place.
        gap[:, axis] %= (mesh.upper[axis] - mesh.lower[axis]) if mesh.periodic[axis] else np.inf
        assert np.allclose(np.minimum(gap, 1e9), 0, atol=1e-12)


@given(trees(), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_coarsening_undoes_refining_and_the_digest_tells(mesh: TreeMesh, seed: int) -> None:
    leaf = int(np.random.default_rng(seed).integers(len(mesh)))
    if mesh.levels[leaf] < mesh.levels.max() or mesh.levels.max() == 0:
        fine = mesh.refine([leaf])
        assert fine.digest() != mesh.digest()
        if len(fine) == len(mesh) + mesh.children - 1:
            back = fine.coarsen(np.arange(leaf, leaf + mesh.children))
            assert back.digest() == mesh.digest()
            u = TreeFunction(mesh, 2, np.random.default_rng(seed).normal(size=(len(mesh), 3**mesh.dim)))
            assert np.allclose(u.on(fine).on(back).coefficients, u.coefficients, rtol=0, atol=1e-13)


@given(trees())
@settings(max_examples=40, deadline=None)
def test_siblings_may_be_merged_where_no_neighbour_is_finer(mesh: TreeMesh) -> None:
    finest, faces = mesh.levels.copy(), mesh.faces
    np.maximum.at(finest, faces.lower, mesh.levels[faces.upper])
    np.maximum.at(finest, faces.upper, mesh.levels[faces.lower])
    wanted = [
        i
        for i in mesh.families
        if (finest[i : i + mesh.children] == mesh.levels[i : i + mesh.children]).all()
    ]
    assert mesh.mergeable.tolist() == wanted


@pytest.mark.parametrize("roots", [interval(), square(), square(1)])
def test_roots_have_no_siblings(roots: TreeMesh) -> None:
    assert len(roots.families) == len(roots.mergeable) == 0
    assert roots.coarsen(np.ones(len(roots), dtype=bool)).digest() == roots.digest()


@given(trees(), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_points_are_found_in_the_leaf_that_holds_them(mesh: TreeMesh, seed: int) -> None:
    points = np.random.default_rng(seed).uniform(mesh.lower, mesh.upper, (50, mesh.dim))
    leaf = mesh.find(points)
    inside = (points - mesh.origins[leaf]) / mesh.sizes[leaf]
    assert ((inside >= -1e-9) & (inside <= 1 + 1e-9)).all()
    assert (mesh.find(mesh.centres) == np.arange(len(mesh))).all()


def test_refining_a_corner_again_and_again_grades_the_mesh() -> None:
    mesh = TreeMesh((0.0, 0.0), (1.0, 1.0), (1, 1))
    for _ in range(6):
        mesh = mesh.refine([0])
    # A corner alone: three leaves stay behind on every level, neighbours are refined for balance.
    assert np.bincount(mesh.levels).tolist() == [0, 3, 3, 3, 3, 3, 4]
    for _ in range(3):
        mesh = mesh.refine(mesh.find(np.array([[0.4999, 0.4999]])))
    # Its neighbours to the right and above were of level 1.
    places = np.array([[0.4999, 0.4999], [0.5001, 0.4999], [0.4999, 0.5001], [0.99, 0.99]])
    assert mesh.levels[mesh.find(places)].tolist() == [5, 4, 4, 2]


def test_coarsening_leaves_incomplete_and_unbalanced_groups_alone() -> None:
    # Levels 1 1 | 0, then 1 2 2 | 1 1: the last refinement of the first root asks for one of the second.
    line = TreeMesh((0.0,), (1.0,), (2,)).refine([0]).refine([1])
    assert line.levels.tolist() == [1, 2, 2, 1, 1]
    assert line.families.tolist() == [1, 3]
    assert line.mergeable.tolist() == [1]
    assert line.coarsen([3, 4]).digest() == line.digest()
    assert line.coarsen([1]).digest() == line.digest()
    assert line.coarsen(np.ones(5, dtype=bool)).levels.tolist() == [1, 1, 1, 1]
    # A family whose members are refined is none.
    mesh = TreeMesh((0.0, 0.0), (1.0, 1.0), (1, 1)).refine([0]).refine([3])
    assert mesh.families.tolist() == [3]
    assert mesh.coarsen([0, 1, 2]).digest() == mesh.digest()


def test_periodic_ends_are_balanced_too() -> None:
    mesh = TreeMesh((0.0,), (1.0,), (4,), (True,)).refine([0]).refine([0])
    assert mesh.levels.tolist() == [2, 2, 1, 0, 0, 1, 1]
    assert len(mesh.boundary.cell) == 0


def test_polynomials_survive_any_transfer_between_meshes_that_hold_them() -> None:
    rng = np.random.default_rng(3)
    for start in (interval(), square(2)):
        exact = (lambda x: x**3 - x) if start.dim == 1 else (lambda x, y: x**3 * y**2 - y**3)
        first = second = start
        for _ in range(5):
            first = first.refine(rng.integers(len(first), size=2))
            second = second.refine(rng.integers(len(second), size=2))
        u = TreeFunction.projected(exact, first, 3)
        assert u.errors(exact)["linf"] < 1e-12
        assert u.on(second).errors(exact)["linf"] < 1e-12
        assert u.on(second).on(start).errors(exact)["linf"] < 1e-12
        assert u.distance(u.on(second)) < 1e-12


def test_projection_keeps_integrals_and_is_orthogonal() -> None:
    rng = np.random.default_rng(5)
    for coarse in (interval(), square(1)):
        fine = coarse
        for _ in range(6):
            fine = fine.refine(rng.integers(len(fine), size=2))
        u = TreeFunction(fine, 2, rng.normal(size=(len(fine), 3**fine.dim)))
        mean = u.on(coarse)
        assert np.isclose(mean.integral(), u.integral(), rtol=1e-13)
        rest = u.coefficients - mean.on(fine).coefficients
        for _ in range(3):
            v = TreeFunction(coarse, 2, rng.normal(size=mean.coefficients.shape)).on(fine)
            assert abs((fine.volumes[:, None] * rest * v.coefficients).sum()) < 1e-12


def test_distance_is_the_integral_of_the_difference_on_any_two_meshes() -> None:
    mesh = TreeMesh((0.0,), (1.0,), (1,))
    left, right = mesh.refine([0]).refine([0]), mesh.refine([0]).refine([1])
    step = TreeFunction(left, 0, np.array([[0.0], [1.0], [1.0]]))
    other = TreeFunction(right, 0, np.array([[0.0], [0.0], [1.0]]))
    # 1 from 1/4 on against 1 from 3/4 on.
    assert np.isclose(step.distance(other), 0.5, rtol=1e-14)
    assert len(overlay(left, right)) == 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TreeMesh((0.0,), (1.0, 1.0), (2,)), "give all for one axis"),
        (lambda: TreeMesh((0.0,) * 3, (1.0,) * 3, (2,) * 3), "give all for one axis"),
        (lambda: TreeMesh((0.0,), (1.0,), (0,)), r"roots=\(0,\)"),
        (lambda: TreeMesh((1.0,), (1.0,), (4,)), "not below"),
        (lambda: TreeMesh((np.nan,), (1.0,), (4,)), "not below"),
        (lambda: interval().refine([3]), "numbers from 0 to 2"),
        (lambda: interval().coarsen([-1]), "numbers from 0 to 2"),
        (lambda: interval().refine([0.5]), "numbers from 0 to 2"),
        (lambda: interval().find(np.array([[3.0]])), "is not between"),
        (lambda: interval().find(np.array([[np.nan]])), "is not between"),
        (lambda: TreeFunction(interval(), 1, np.zeros((3, 3))), "give \\(leaves, polynomials\\)"),
        (lambda: TreeFunction.projected(1.0, interval(), 99), "order=99"),
        (lambda: overlay(interval(), square()), "other roots"),
    ],
)
def test_bad_input_is_named(make, words: str) -> None:
    with pytest.raises((ConfigError, GeometryError), match=words):
        make()


def test_the_finest_level_is_the_end() -> None:
    mesh = TreeMesh((0.0,), (1.0,), (1,))
    for _ in range(MAX_LEVEL):
        mesh = mesh.refine([0])
    assert mesh.sizes.min() == 2.0**-MAX_LEVEL
    with pytest.raises(GeometryError, match="stop before"):
        mesh.refine([0])
