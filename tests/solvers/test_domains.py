"""Domains: closest points, normals, arcs, set operations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import ConfigError, GeometryError
from sciml.solvers import Box, CartesianGrid, Disk, Domain, Star

DOMAINS = {
    "disk": Disk(0.4),
    "star": Star(),
    "modes": Star(0.3, (0.05, 0.03), (2, 5), (0.3, 1.0), (0.02, -0.01)),
    "box": Box(),
    "union": Disk(0.25, (-0.15, 0.0)) | Disk(0.25, (0.15, 0.05)),
    "lens": Disk(0.35, (-0.15, 0.0)) & Disk(0.35, (0.15, 0.0)),
    "hole": Box() - Disk(0.2),
    "bite": Box() - Disk(0.3, (0.4, 0.4)),
    "touching": Box((-0.4, -0.4), (0.0, 0.4)) | Box((0.0, -0.3), (0.4, 0.3)),
    "L": Box() - Box((0.0, 0.0), (0.4, 0.4)),
    "shared side": Box((-0.4, -0.4), (0.1, 0.4)) | Box((-0.1, -0.4), (0.4, 0.2)),
    "beside": Box((-0.4, -0.4), (0.0, 0.4)) - Box((0.0, -0.4), (0.4, 0.4)),
    "nested": (Box() - Disk(0.15)) | Disk(0.2, (0.4, 0.0)),
}


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())
def test_boundary_points_lie_on_the_boundary_with_outward_normals(domain: Domain) -> None:
    boundary = domain.boundary(0.01)
    assert np.abs(domain.phi(boundary.points)).max() < 1e-12
    assert np.allclose(np.linalg.norm(boundary.normals, axis=1), 1)
    # Away from corners a small step along the normal leaves the domain, one against it enters.
    step = 1e-6 * boundary.normals
    corners = np.array([arc.curve.point(np.array(t)) for arc in domain.arcs() if not arc.closed
                        for t in (arc.start, arc.stop)]).reshape(-1, 2)  # fmt: skip
    smooth = np.ones(len(step), bool)
    for corner in corners:
        smooth &= np.linalg.norm(boundary.points - corner, axis=1) > 1e-4
    assert (domain.phi(boundary.points + step)[smooth] > 0).all()
    assert domain.contains((boundary.points - step)[smooth]).all()


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())
def test_closest_point_is_closest(domain: Domain) -> None:
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (300, 2))
    foot = domain.closest_point(x)
    distance = np.linalg.norm(foot.points - x, axis=1)
    samples = domain.boundary(1e-4).points
    brute = np.array([np.linalg.norm(samples - p, axis=1).min() for p in x])
    assert np.abs(domain.phi(foot.points)).max() < 1e-12
    assert (distance <= brute + 1e-9).all()
    assert (distance >= brute - 1e-4).all()


def test_disk_closed_form() -> None:
    x = np.random.default_rng(1).normal(size=(200, 2))
    foot = Disk(0.7, (0.1, -0.2)).closest_point(x)
    away = x - [0.1, -0.2]
    direction = away / np.linalg.norm(away, axis=1, keepdims=True)
    assert np.allclose(foot.points, [0.1, -0.2] + 0.7 * direction, atol=1e-12)
    assert np.allclose(foot.normals, direction, atol=1e-12)


def test_foot_points_are_orthogonal_to_round_off() -> None:
    grid = CartesianGrid.uniform(64)
    star = Star()
    x = grid.nodes().reshape(-1, 2)
    x = x[np.abs(star.phi(x)) < 0.05]
    foot = star.closest_point(x)
    tangent = np.stack([-foot.normals[:, 1], foot.normals[:, 0]], axis=1)
    assert np.abs(np.sum((x - foot.points) * tangent, axis=1)).max() < 1e-12


@settings(max_examples=50, deadline=None)
@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(0.05, 0.3))
def test_set_operations_agree_with_membership(x: float, y: float, radius: float) -> None:
    a, b = Star(), Disk(radius, (x, y))
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (500, 2))
    in_a, in_b = a.contains(points), b.contains(points)
    assert ((a | b).contains(points) == (in_a | in_b)).all()
    assert ((a & b).contains(points) == (in_a & in_b)).all()
    assert ((a - b).contains(points) == (in_a & ~in_b)).all()
    for domain in (a | b, a & b, a - b):
        arcs = domain.arcs()
        for arc in arcs:
            middle = np.array([0.5 * (arc.start + arc.stop)])
            point, step = arc.curve.point(middle), 1e-7 * arc.normal(middle)
            assert domain.contains(point - step).all()
            assert not domain.contains(point + step).any()
        # Closed loops: as many ends as starts, pairwise at the same corners.
        ends = np.array(
            [arc.curve.point(np.array(t)) for arc in arcs if not arc.closed for t in (arc.start, arc.stop)]
        )
        for end in ends:
            assert (np.linalg.norm(ends - end, axis=1) < 1e-9).sum() % 2 == 0


def test_boundary_length_of_a_lens() -> None:
    """Two unit-type circles at distance d: each arc subtends 2 acos(d / 2r)."""
    r, d = 0.35, 0.3
    points = DOMAINS["lens"].boundary(1e-3)
    length = sum(
        np.linalg.norm(np.diff(points.points[points.piece == i], axis=0), axis=1).sum() for i in range(2)
    )
    assert length == pytest.approx(2 * r * 2 * np.arccos(d / (2 * r)), rel=1e-5)


def test_bites_between_the_points_that_are_examined_are_seen() -> None:
    angle = np.pi / 2048
    bitten = Disk(0.4) - Disk(5e-4, (0.4 * np.cos(angle), 0.4 * np.sin(angle)))
    assert len(bitten.arcs()) == 2
    slit = Disk(0.4) - Box((-0.45, 0.00625), (0.45, 0.0070833))
    assert len(slit.arcs()) == 4
    assert np.abs(slit.phi(slit.boundary(0.01).points)).max() < 1e-12


def test_bad_shapes() -> None:
    with pytest.raises(GeometryError, match="amplitude"):
        Star(radius=0.1, amplitude=0.2)
    with pytest.raises(ConfigError, match="one of each per mode"):
        Star(amplitude=(0.1, 0.1), petals=(3,))
    with pytest.raises(GeometryError, match="radius=-1"):
        Disk(-1)
    with pytest.raises(GeometryError, match="empty"):
        Box((0.0, 0.0), (0.0, 1.0))
    with pytest.raises(GeometryError, match="do not overlap"):
        _ = (Disk(0.1, (-0.3, 0.0)) & Disk(0.1, (0.3, 0.0))).bounds
    with pytest.raises(ConfigError, match=r"petals=2.5"):
        Star(petals=2.5)  # type: ignore[arg-type]

    class Shifted(Disk):
        def phi(self, points: np.ndarray) -> np.ndarray:
            return super().phi(points) + 0.01

    with pytest.raises(GeometryError, match="cannot be resolved"):
        _ = Shifted().bounds
    with pytest.raises(ConfigError, match="one value per axis"):
        CartesianGrid((0.0,), (1.0, 1.0), (4,))
    with pytest.raises(ConfigError, match="empty"):
        CartesianGrid.uniform(4, (0.0, 0.0), (0.0, 1.0))
