"""Ellipses, polygons, splines, parametric curves, level sets and bodies in 3D: boundaries and closest points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from sciml.errors import ConfigError, GeometryError
from sciml.solvers import (
    Annulus,
    Ball,
    Cuboid,
    Disk,
    Domain,
    Ellipse,
    Ellipsoid,
    LevelSet,
    Parametric,
    Polygon,
    Spline,
    Torus,
    domain_registry,
)

ARROW = ((-0.4, -0.4), (0.4, -0.3), (0.3, 0.4), (0.0, 0.0), (-0.4, 0.4))


def wobbly(count: int = 9, seed: int = 0) -> tuple[tuple[float, float], ...]:
    """Points of a closed curve around the origin, seeded."""
    angle = 2 * np.pi * np.arange(count) / count
    radius = 0.3 + 0.08 * np.random.default_rng(seed).uniform(-1, 1, count)
    return tuple(zip((radius * np.cos(angle)).tolist(), (radius * np.sin(angle)).tolist(), strict=True))


def clover(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 0.3 - 0.05 * np.cos(3 * np.arctan2(y, x))


def rounded(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.abs(x / 0.4) ** 4 + np.abs(y / 0.4) ** 4 + np.abs(z / 0.3) ** 4 - 1


PLANE = {
    "ellipse": Ellipse((0.44, 0.11), angle=0.4),
    "annulus": Annulus(),
    "polygon": Polygon(ARROW),
    "clockwise polygon": Polygon(ARROW[::-1]),
    "spline": Spline(wobbly()),
    "cubic spline": Spline(wobbly()[::-1], degree=3),
    "parametric": Parametric(
        (("0.4*cos(pi*t)", "0.4*sin(pi*t)"), ("-0.4 + 0.8*t", "-0.2*sin(pi*t)")),
    ),
    "level set": LevelSet("x**4 + y**4 - 0.03 + 0.1*x*y", (-0.5, -0.5), (0.5, 0.5)),
    "level set of a function": LevelSet(clover, (-0.5, -0.5), (0.5, 0.5)),
    "level set and disk": LevelSet("x**2 + y**2 - 0.09", (-0.4, -0.4), (0.4, 0.4)) | Disk(0.2, (0.3, 0.1)),
    "spline with a hole": Spline(wobbly()) - Ellipse((0.1, 0.05)),
}
SPACE = {
    "ball": Ball(),
    "ellipsoid": Ellipsoid(),
    "torus": Torus(),
    "cuboid": Cuboid(),
    "cuboid with a bite": Cuboid() - Ball(0.3, (0.4, 0.4, 0.4)),
    "two balls": Ball(0.25, (-0.15, 0.0, 0.0)) | Ball(0.25, (0.15, 0.05, 0.0)),
    "rounded": LevelSet(rounded, (-0.45, -0.45, -0.35), (0.45, 0.45, 0.35)),
}
ALL = PLANE | SPACE


@pytest.mark.parametrize("domain", ALL.values(), ids=ALL.keys())
def test_boundary_points_lie_on_the_boundary_with_outward_normals(domain: Domain) -> None:
    boundary = domain.boundary(0.01 if domain.dim == 2 else 0.03)
    assert np.abs(domain.phi(boundary.points)).max() < 1e-12
    assert np.allclose(np.linalg.norm(boundary.normals, axis=1), 1)
    inside = domain.contains(boundary.points - 1e-6 * boundary.normals)
    outside = domain.phi(boundary.points + 1e-6 * boundary.normals) > 0
    # At a corner or an edge the normal of one side may run along the other.
    assert (inside & outside).mean() > (
        0.85 if isinstance(domain, Cuboid) or domain is ALL["cuboid with a bite"] else 0.96
    )
    # No part of the boundary is without points.
    fine = domain.boundary(0.002 if domain.dim == 2 else 0.01).points
    assert cKDTree(boundary.points).query(fine)[0].max() < (0.011 if domain.dim == 2 else 0.06)


@pytest.mark.parametrize("domain", ALL.values(), ids=ALL.keys())
def test_closest_points_near_the_boundary_are_closest(domain: Domain) -> None:
    rng = np.random.default_rng(1)
    boundary = domain.boundary(0.02)
    x = boundary.points + rng.uniform(-0.03, 0.03, boundary.points.shape)
    x = x[:: max(len(x) // 400, 1)]
    foot = domain.closest_point(x)
    distance = np.linalg.norm(foot.points - x, axis=1)
    fine = 1e-4 if domain.dim == 2 else 0.01
    brute = cKDTree(domain.boundary(fine).points).query(x)[0]
    assert np.abs(domain.phi(foot.points)).max() < 1e-11
    assert (distance <= brute + 1e-9).all()
    assert (distance >= brute - 2 * fine).all()
    # The way to the foot is normal to the boundary, unless the foot is on a corner or an edge.
    along = np.sum((x - foot.points) * foot.normals, axis=1)
    tangential = np.linalg.norm(x - foot.points - along[:, None] * foot.normals, axis=1)
    assert np.mean(tangential < 1e-11) > 0.6
    if domain in (ALL["spline"], ALL["level set"], ALL["ellipsoid"], ALL["torus"], ALL["rounded"]):
        assert tangential.max() < 1e-10


@pytest.mark.parametrize("domain", [Polygon(ARROW), Spline(wobbly()), PLANE["parametric"]], ids=str)
def test_signed_distance_agrees_with_the_winding_number(domain: Domain) -> None:
    x = np.random.default_rng(2).uniform(-0.6, 0.6, (2000, 2))
    points = [
        arc.curve.point(np.linspace(arc.start, arc.stop, 1001)[:-1])
        for arc in domain.arcs()  # type: ignore[attr-defined]
    ]
    outline = np.concatenate(points)[:, 0] + 1j * np.concatenate(points)[:, 1]
    to_outline = outline[None] - (x[:, 0] + 1j * x[:, 1])[:, None]
    winding = np.angle(np.roll(to_outline, -1, axis=1) / to_outline).sum(axis=1) / (2 * np.pi)
    clear = np.abs(domain.phi(x)) > 1e-4
    assert (domain.contains(x) == (np.abs(winding) > 0.5))[clear].all()
    distance = np.linalg.norm(domain.closest_point(x).points - x, axis=1)
    assert np.allclose(np.abs(domain.phi(x)), distance, atol=1e-5)
    close = x[distance < 1e-3]
    assert len(close) > 5
    exact = np.linalg.norm(domain.closest_point(close).points - close, axis=1)
    assert np.allclose(np.abs(domain.phi(close)), exact, atol=1e-14)


def test_closed_forms_in_space() -> None:
    x = np.random.default_rng(3).normal(size=(200, 3))
    assert np.allclose(Ball(0.7).closest_point(x).points, 0.7 * x / np.linalg.norm(x, axis=1)[:, None])
    torus = Torus(0.5, 0.2)
    foot = torus.closest_point(x)
    assert np.allclose(np.linalg.norm(foot.points - x, axis=1), np.abs(torus.phi(x)))
    sphere = Ellipsoid((0.3, 0.3, 0.3)).closest_point(0.2 * x)
    assert np.allclose(sphere.points, Ball(0.3).closest_point(0.2 * x).points, atol=1e-10)
    face = Cuboid((0, 0, 0), (1, 2, 3)).closest_point(np.array([[0.5, 1.9, 1.0], [3.0, 3.0, 4.0]]))
    assert face.points.tolist() == [[0.5, 2.0, 1.0], [1.0, 2.0, 3.0]]
    assert face.piece[0] == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.3))
def test_set_operations_in_space_agree_with_membership(seed: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = Torus(), Ball(radius, tuple(rng.uniform(-0.3, 0.3, 3)))
    x = rng.uniform(-0.5, 0.5, (300, 3))
    in_a, in_b = a.contains(x), b.contains(x)
    for domain, members in ((a | b, in_a | in_b), (a & b, in_a & in_b), (a - b, in_a & ~in_b)):
        assert (domain.contains(x) == members).all()


def test_pieces_keep_their_numbers() -> None:
    bitten = Cuboid() - Ball(0.3, (0.4, 0.4, 0.4))
    points = bitten.boundary(0.05)
    assert sorted(set(points.piece.tolist())) == [0, 1, 2, 3, 4, 5, 6]
    on_ball = points.piece == 6
    away = points.points[on_ball] - 0.4
    assert np.allclose(np.linalg.norm(away, axis=1), 0.3)
    assert np.allclose(points.normals[on_ball], -away / 0.3)


def test_edges_are_found() -> None:
    """Outside the edge of a lens the closest point lies on the circle where both spheres meet."""
    lens = Ball(0.35, (-0.15, 0.0, 0.0)) & Ball(0.35, (0.15, 0.0, 0.0))
    angle = np.linspace(0, 2 * np.pi, 17)
    ring = np.stack([np.zeros(17), np.cos(angle), np.sin(angle)], axis=1)
    edge = np.sqrt(0.35**2 - 0.15**2)
    foot = lens.closest_point(0.4 * ring)
    assert np.allclose(foot.points, edge * ring, atol=1e-10)


def test_gradients_that_a_callable_does_not_give() -> None:
    """rounded uses abs: complex steps refuse it, differences take over, to round-off for practice."""
    body, text = (
        SPACE["rounded"],
        LevelSet("(x/0.4)**4 + (y/0.4)**4 + (z/0.3)**4 - 1", (-0.45,) * 3, (0.45,) * 3),
    )
    x = np.random.default_rng(4).uniform(-0.4, 0.4, (50, 3))
    assert np.allclose(body.closest_point(x).normals, text.closest_point(x).normals, atol=1e-9)


def test_closed_chains_and_large_boxes() -> None:
    assert Polygon((*ARROW, ARROW[0])) == Polygon(ARROW)
    assert Spline((*wobbly(), wobbly()[0])) == Spline(wobbly())
    lower, upper = LevelSet("x**2 + y**2 - 0.16", (-1.0, -1.0), (1.0, 1.0)).bounds
    assert np.allclose([lower, upper], [[-0.4, -0.4], [0.4, 0.4]], atol=1e-4)


def test_bad_shapes() -> None:
    bow = ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
    with pytest.raises(GeometryError, match="crosses itself"):
        Polygon(bow)
    with pytest.raises(GeometryError, match="at least three"):
        Polygon(bow[:2])
    with pytest.raises(GeometryError, match="no area"):
        Polygon(((0.0, 0.0), (1.0, 0.0), (2.0, 0.0)))
    with pytest.raises(GeometryError, match="ends at"):
        Parametric((("t", "0"), ("1 - t", "t")))
    with pytest.raises(ConfigError, match="degree=4"):
        Spline(wobbly(), degree=4)
    with pytest.raises(GeometryError, match="at least 6"):
        Spline(wobbly(5))
    with pytest.raises(GeometryError, match=r"inner=0\.5"):
        Annulus(0.5, 0.4)
    for shape, arguments in (
        (Ellipse, ((0.0, 1.0),)),
        (Ellipsoid, ((1.0, 1.0, -1.0),)),
        (Ball, (0.0,)),
        (Torus, (0.1, 0.2)),
    ):
        with pytest.raises(GeometryError, match=r"positive|0 < minor"):
            shape(*arguments)
    with pytest.raises(GeometryError, match="no boundary in its box"):
        LevelSet("x**2 + y**2 + 1", (-1.0, -1.0), (1.0, 1.0)).boundary(0.1)
    with pytest.raises(GeometryError, match=r"negative at \[.*\], on its box"):
        _ = LevelSet(lambda x, y: 0.09 - x**2 - y**2, (-0.5,) * 2, (0.5,) * 2).bounds
    with pytest.raises(GeometryError, match=r"negative at \[.*\], on its box"):
        _ = LevelSet("x**2 + y**2 + z**2 - 0.09", (-0.2, -0.5, -0.5), (0.5,) * 3).bounds
    with pytest.raises(GeometryError, match=r"crosses itself near \[0\.5, 0\.5\]"):
        Polygon(bow)
    with pytest.raises(GeometryError, match=r"\[1\.0, 0\.0\] comes twice in a row"):
        Polygon(((0.0, 0.0), (1.0, 0.0), (1.0, 0.0), (0.0, 1.0)))
    with pytest.raises(GeometryError, match="pairs of finite numbers"):
        Spline((*wobbly()[:-1], (np.nan, 0.0)))
    with pytest.raises(ConfigError, match="one finite number per point"):
        LevelSet(lambda x, y: x[:1], (-1.0, -1.0), (1.0, 1.0)).boundary(0.1)
    with pytest.raises(GeometryError, match="2D and a 3D"):
        _ = Disk() | Ball()
    with pytest.raises(GeometryError, match="do not overlap"):
        _ = (Ball(0.1, (-0.3, 0.0, 0.0)) & Ball(0.1, (0.3, 0.0, 0.0))).bounds


@pytest.mark.parametrize(
    "name", ["star", "disk", "box", "ellipse", "annulus", "ball", "ellipsoid", "torus", "cuboid"]
)
def test_domains_of_the_command_line_lie_in_its_box(name: str) -> None:
    lower, upper = domain_registry[name]().bounds
    assert (lower >= -0.5).all()
    assert (upper <= 0.5).all()
