"""Cut-cell and boundary quadrature: closed forms, convergence orders, and the divergence theorem."""

from dataclasses import dataclass
from math import gamma, hypot, pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import ConfigError, GeometryError
from sciml.solvers import Box, CartesianGrid, Disk, Domain, Star
from sciml.solvers.domains import BoundaryPoints
from sciml.solvers.quadrature import boundary_quadrature, cut_cell_quadrature


def lens(radius: float, distance: float) -> float:
    """Area common to two equal disks."""
    return 2 * radius**2 * np.arccos(distance / 2 / radius) - distance / 2 * np.sqrt(
        4 * radius**2 - distance**2
    )


AREAS = {
    "disk": (Disk(0.37, (0.012, -0.031)), pi * 0.37**2, 1e-12),
    "star": (Star(), pi * (0.3**2 + 0.15**2 / 2), 1e-8),
    "hole": (Box() - Disk(0.2), 0.64 - pi * 0.04, 1e-11),
    "L": (Box() - Box((0.0, 0.0), (0.4, 0.4)), 0.48, 1e-14),
    "shifted L": (Box() - Box((0.013, 0.017), (0.41, 0.41)), 0.64 - 0.387 * 0.383, 1e-14),
    "union": (
        Disk(0.25, (-0.15, 0.0)) | Disk(0.25, (0.15, 0.05)),
        2 * pi * 0.25**2 - lens(0.25, hypot(0.3, 0.05)),
        1e-11,
    ),
    "lens": (Disk(0.35, (-0.15, 0.0)) & Disk(0.35, (0.15, 0.0)), lens(0.35, 0.3), 1e-11),
    "cusps": (Disk(0.4) - Disk(0.2, (0.2, 0.0)), pi * 0.12, 1e-8),
    "inside one cell": (Disk(0.008, (0.011, 0.013)), pi * 0.008**2, 1e-9),
    "slit": (Box() - Box((-0.5, 0.001), (0.5, 0.0012)), 0.64 - 0.8 * 0.0002, 1e-14),
}


@dataclass(frozen=True)
class Ellipsoid:
    """What the quadrature needs of a domain, and no more; in one to three dimensions."""

    semiaxes: tuple[float, ...]
    center: tuple[float, ...]

    @property
    def dim(self) -> int:
        return len(self.semiaxes)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return np.subtract(self.center, self.semiaxes), np.add(self.center, self.semiaxes)

    @property
    def volume(self) -> float:
        return pi ** (self.dim / 2) / gamma(self.dim / 2 + 1) * np.prod(self.semiaxes)

    def phi(self, points: np.ndarray) -> np.ndarray:
        return np.linalg.norm((points - np.array(self.center)) / np.array(self.semiaxes), axis=-1) - 1

    def boundary(self, spacing: float) -> BoundaryPoints:
        count = int(40 * (max(self.semiaxes) / spacing) ** (self.dim - 1))
        away = np.random.default_rng(0).normal(size=(count, self.dim))
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        points = np.array(self.center) + away * np.array(self.semiaxes)
        return BoundaryPoints(points, away, np.zeros(count, dtype=int))


@dataclass(frozen=True)
class Intersection:
    """Two such domains combined, known by phi and samples only."""

    left: Ellipsoid
    right: Ellipsoid

    @property
    def dim(self) -> int:
        return self.left.dim

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = zip(self.left.bounds, self.right.bounds, strict=True)
        return np.maximum(*lower), np.minimum(*upper)

    def phi(self, points: np.ndarray) -> np.ndarray:
        return np.maximum(self.left.phi(points), self.right.phi(points))

    def boundary(self, spacing: float) -> BoundaryPoints:
        both = self.left.boundary(spacing) + self.right.boundary(spacing)
        return both[self.phi(both.points) < 1e-12]


def cube(cells: int, dim: int = 3) -> CartesianGrid:
    return CartesianGrid.uniform(cells, (-0.5,) * dim, (0.5,) * dim)


@pytest.mark.parametrize(("domain", "area", "tolerance"), AREAS.values(), ids=AREAS.keys())
def test_areas(domain: Domain, area: float, tolerance: float) -> None:
    points, weights = cut_cell_quadrature(domain, cube(20, 2), order=8)
    assert abs(weights.sum() / area - 1) < tolerance
    assert (weights > 0).all()
    assert domain.contains(points).all()


def test_moments_over_a_disk() -> None:
    """int x^a y^b = 2 G((a+1)/2) G((b+1)/2) R^(a+b+2) / (G((a+b)/2 + 1) (a+b+2)) for even a, b."""
    points, weights = cut_cell_quadrature(Disk(0.4), cube(40, 2), order=8)
    for a in range(7):
        for b in range(7):
            n = a + b + 2
            even = a % 2 == 0 and b % 2 == 0
            exact = even * 2 * gamma((a + 1) / 2) * gamma((b + 1) / 2) / gamma(n / 2) * 0.4**n / n
            assert weights @ (points[:, 0] ** a * points[:, 1] ** b) == pytest.approx(exact, abs=1e-14)


@pytest.mark.parametrize("order", [2, 4, 6, 8])
@pytest.mark.parametrize(
    "domain",
    [Disk(0.37, (0.012, -0.031)), Disk(0.25, (-0.15, 0.0)) | Disk(0.25, (0.15, 0.05))],
    ids=["disk", "union"],
)
def test_convergence(domain: Domain, order: int) -> None:
    def integral(cells: int, order: int) -> float:
        points, weights = cut_cell_quadrature(domain, cube(cells, 2), order)
        return weights @ np.exp(2 * points[:, 0] - points[:, 1])

    sizes, exact = np.array([40, 56, 80, 112]), integral(60, 14)
    errors = np.array([abs(integral(n, order) / exact - 1) for n in sizes])
    above = errors > 1e-14
    assert above.all() or errors[-1] < 1e-13
    if above.sum() > 1:
        assert -np.polyfit(np.log(sizes[above]), np.log(errors[above]), 1)[0] > order


@settings(max_examples=12, deadline=None)
@given(
    st.floats(0.03, 0.4), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.sampled_from([7, 10, 20]),
    st.integers(4, 8),
)  # fmt: skip
def test_any_disk(radius: float, x: float, y: float, cells: int, order: int) -> None:
    domain = Disk(radius, (x, y))
    points, weights = cut_cell_quadrature(domain, cube(cells, 2), order)
    assert abs(weights.sum() / (pi * radius**2) - 1) < 1e-6
    assert (weights > 0).all()
    assert domain.contains(points).all()


@settings(max_examples=5, deadline=None)
@given(st.lists(st.floats(-0.45, 0.45), min_size=4, max_size=4, unique=True), st.integers(0, 5))
def test_polynomials_are_integrated_exactly_over_boxes(ends: list[float], degree: int) -> None:
    """Wherever the sides lie in their cells."""
    (a, b), (c, d) = sorted(ends[:2]), sorted(ends[2:])
    if min(b - a, d - c) < 1e-3:
        return
    points, weights = cut_cell_quadrature(Box((a, c), (b, d)), cube(8, 2), order=5)
    x, y = np.polynomial.Polynomial.basis(degree).integ(), np.polynomial.Polynomial.basis(1).integ()
    exact = (x(b) - x(a)) * (y(d) - y(c))
    assert weights @ (points[:, 0] ** degree * points[:, 1]) == pytest.approx(exact, abs=1e-15)


@pytest.mark.parametrize("below", [1e-300, 1e-20, 1e-16, 1e-13, 1e-9])
def test_a_side_just_beyond_a_face_of_cells(below: float) -> None:
    """phi is all but zero at the face, which is no zero of it: the next one is inside the cell."""
    weights = cut_cell_quadrature(Box((0.0, -below), (0.375, 0.0078125)), cube(8, 2), order=5)[1]
    assert weights.sum() == pytest.approx(0.375 * (0.0078125 + below), rel=1e-9)


def test_intervals() -> None:
    points, weights = cut_cell_quadrature(Ellipsoid((0.31,), (0.05,)), cube(7, 1), order=4)
    assert weights @ points[:, 0] ** 4 == pytest.approx((0.36**5 + 0.26**5) / 5, rel=1e-14)
    ends, ones = boundary_quadrature(Ellipsoid((0.31,), (0.05,)), 0.1, order=4)
    assert np.allclose(np.sort(ends.points[:, 0]), [-0.26, 0.36], atol=1e-14)
    assert np.allclose(ones, 1)


@pytest.mark.parametrize(
    ("domain", "order", "tolerance"),
    [
        (Ellipsoid((0.4, 0.4, 0.4), (0.012, -0.023, 0.031)), 4, 1e-7),
        (Ellipsoid((0.45, 0.4, 0.4), (0.0, 0.0, 0.0)), 5, 1e-7),
    ],
    ids=["ball", "ellipsoid"],
)
def test_volumes(domain: Ellipsoid, order: int, tolerance: float) -> None:
    points, weights = cut_cell_quadrature(domain, cube(6), order)
    assert abs(weights.sum() / domain.volume - 1) < tolerance
    assert (weights > 0).all()
    assert (domain.phi(points) < 0).all()
    moment = weights @ (points[:, 2] - domain.center[2]) ** 2
    assert moment == pytest.approx(domain.volume * domain.semiaxes[2] ** 2 / 5, rel=10 * tolerance)


def test_edges_in_three_dimensions() -> None:
    """Two balls of radius R at distance d share pi (4 R + d) (2 R - d)^2 / 12."""
    domain = Intersection(
        Ellipsoid((0.4,) * 3, (-0.11, 0.02, 0.03)), Ellipsoid((0.4,) * 3, (0.12, 0.0, 0.01))
    )
    points, weights = cut_cell_quadrature(domain, cube(3), order=2)
    distance = hypot(0.23, 0.02, 0.02)
    assert weights.sum() == pytest.approx(pi * (1.6 + distance) * (0.8 - distance) ** 2 / 12, rel=1e-4)
    assert (domain.phi(points) < 0).all()


FIELDS = {name: AREAS[name][0] for name in ("disk", "star", "hole", "shifted L", "union", "lens")}


@pytest.mark.parametrize("domain", FIELDS.values(), ids=FIELDS.keys())
def test_divergence_theorem(domain: Domain) -> None:
    """F = (sin(x + 2 y), exp(x) y^2)."""
    (x, y), weights = (part.T for part in cut_cell_quadrature(domain, cube(60, 2), order=8))
    inside = weights @ (np.cos(x + 2 * y) + 2 * np.exp(x) * y)
    edge, lengths = boundary_quadrature(domain, 0.01, order=8)
    x, y = edge.points.T
    field = np.stack([np.sin(x + 2 * y), np.exp(x) * y**2], axis=-1)
    assert inside == pytest.approx(lengths @ np.sum(field * edge.normals, axis=1), abs=1e-11)
    assert (lengths > 0).all()


@pytest.mark.parametrize("order", [4, 6, 8])
def test_convergence_on_arcs(order: int) -> None:
    domain = Star(0.3, 0.05, 3) - Box((-0.5, -0.5), (0.02, 0.5))

    def integral(spacing: float, order: int) -> float:
        edge, weights = boundary_quadrature(domain, spacing, order)
        return weights @ np.exp(4 * edge.points[:, 0])

    spacings, exact = 0.3 / 1.4 ** np.arange(7), integral(0.005, 12)
    errors = [abs(integral(spacing, order) / exact - 1) for spacing in spacings]
    assert np.polyfit(np.log(spacings), np.log(errors), 1)[0] > order
    circle, weights = boundary_quadrature(Disk(0.3), 0.1, order)
    assert weights.sum() == pytest.approx(2 * pi * 0.3, rel=1e-14)
    assert set(circle.piece) == {0}


@dataclass(frozen=True)
class WithoutArcs:
    """A plane domain of which phi, bounds and samples are known only."""

    whole: Domain
    dim: int = 2

    def __post_init__(self) -> None:
        for name in ("phi", "bounds", "boundary"):
            object.__setattr__(self, name, getattr(self.whole, name))


@pytest.mark.parametrize(
    ("domain", "tolerance"),
    [(FIELDS["disk"], 1e-9), (FIELDS["hole"], 1e-9), (FIELDS["lens"], 1e-4)],
    ids=["disk", "hole", "lens"],
)
def test_level_set_and_arcs_agree(domain: Domain, tolerance: float) -> None:
    """Corners between walls that are not along axes are known to the size of the last cells only."""

    def integrals(found: tuple[BoundaryPoints, np.ndarray]) -> np.ndarray:
        edge, weights = found
        f = weights * np.exp(edge.points[:, 0] - 2 * edge.points[:, 1])
        return np.array([f.sum(), *(f @ edge.normals)])

    expected = integrals(boundary_quadrature(domain, 0.01, order=8))
    assert np.allclose(
        integrals(boundary_quadrature(WithoutArcs(domain), 0.05, order=8)), expected, atol=tolerance
    )


def test_surfaces() -> None:
    ball = Ellipsoid((0.4, 0.4, 0.4), (0.012, -0.023, 0.031))
    surface, areas = boundary_quadrature(ball, 0.2, order=4)
    assert areas.sum() == pytest.approx(4 * pi * 0.16, rel=1e-6)
    assert np.abs(ball.phi(surface.points)).max() < 1e-13
    assert np.allclose(surface.normals, (surface.points - np.array(ball.center)) / 0.4, atol=1e-10)
    flux = np.sum(surface.points * surface.normals, axis=1)
    assert areas @ flux == pytest.approx(3 * ball.volume, rel=1e-6)
    assert (areas > 0).all()


def test_surfaces_with_edges() -> None:
    domain = Intersection(
        Ellipsoid((0.4,) * 3, (-0.11, 0.02, 0.03)), Ellipsoid((0.4,) * 3, (0.12, 0.0, 0.01))
    )
    areas = boundary_quadrature(domain, 0.4, order=1)[1]
    assert areas.sum() == pytest.approx(4 * pi * 0.4 * (0.4 - hypot(0.23, 0.02, 0.02) / 2), rel=5e-3)


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="order=0"):
        cut_cell_quadrature(Disk(0.4), cube(10, 2), order=0)
    with pytest.raises(ConfigError, match="spacing=0"):
        boundary_quadrature(Disk(0.4), 0, order=4)
    with pytest.raises(GeometryError, match="use a grid of the domain's dimension"):
        cut_cell_quadrature(Disk(0.4), cube(4), order=4)
    with pytest.raises(GeometryError, match="enlarge the grid"):
        cut_cell_quadrature(Disk(0.4, (0.2, 0.0)), cube(10, 2), order=4)
