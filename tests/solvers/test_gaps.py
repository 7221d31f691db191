"""Gaps of the domain narrower than stencils or the spacing, of every kind of boundary: both sides stay apart.

On either side of the gap u is another cubic, so that any datum from across shows.
"""

import numpy as np
import pytest

from sciml.solvers import (
    Ball,
    CartesianGrid,
    Cuboid,
    Dirichlet,
    Disk,
    Domain,
    Ellipse,
    Ellipsoid,
    LevelSet,
    Poisson,
    Polygon,
    Spline,
    solve,
)


def round_spline(y: float, radius: float = 0.2) -> Spline:
    angle = 2 * np.pi * np.arange(24) / 24
    return Spline(
        tuple(zip((radius * np.cos(angle)).tolist(), (y + radius * np.sin(angle)).tolist(), strict=True))
    )


def disk_without(gap: Domain) -> Domain:
    return Disk(0.4) - gap


def plane_gap(kind: str, y: float, width: float) -> Domain:
    half = width / 2
    if kind == "level set":
        # phi is quadratic across: far from a distance.
        return disk_without(
            LevelSet(f"(x/2)**2 + ((y - {y})/{half})**2 - 1", (-2.1, y - 2 * half), (2.1, y + 2 * half))
        )
    if kind == "ellipse":
        return disk_without(Ellipse((4.0, half), (0.0, y)))
    if kind == "polygon":
        return disk_without(Polygon(((-0.5, y - half), (0.5, y - half), (0.5, y + half), (-0.5, y + half))))
    if kind == "spline":
        return round_spline(y + half + 0.2) | round_spline(y - half - 0.2)
    if kind == "two lobes":
        circles = (f"(x**2 + (y - {y} - {sign * (0.21)})**2 - {(0.21 - half) ** 2})" for sign in (1, -1))
        return LevelSet("*".join(circles), (-0.25, -0.48), (0.25, 0.48))
    both = LevelSet(f"x**2 + (y - {y} - 0.21)**2 - {(0.21 - half) ** 2}", (-0.25, -0.1), (0.25, 0.48))
    other = LevelSet(f"x**2 + (y - {y} + 0.21)**2 - {(0.21 - half) ** 2}", (-0.25, -0.48), (0.25, 0.1))
    return both | other


@pytest.mark.parametrize("kind", ["level set", "ellipse", "polygon", "spline", "two level sets", "two lobes"])
@pytest.mark.parametrize(("width", "offset"), [(1.2, 0.3), (0.4, 0.5), (0.4, 0.27), (0.2, 0.5)])
def test_gaps_in_the_plane(kind: str, width: float, offset: float) -> None:
    n = 40
    y = offset / n
    domain = plane_gap(kind, y, width / n)

    def exact(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.where(z > y, x**3 - 3 * x * z**2 + z, 5 + x**2 - z**2 + 3 * x**2 * z - z**3)

    problem = Poisson(domain, 0.0, Dirichlet(exact), exact)
    assert solve(problem, CartesianGrid.uniform(n)).errors()["linf"] < 1e-9


@pytest.mark.parametrize("width", [0.4, 0.8])
@pytest.mark.parametrize("kind", ["ellipsoid", "cuboid"])
def test_gaps_in_space(kind: str, width: float) -> None:
    n, z0 = 14, 0.27 / 14
    half = width / n / 2
    gap = (
        Ellipsoid((0.5, 0.5, half), (0.0, 0.0, z0))
        if kind == "ellipsoid"
        else Cuboid((-0.5, -0.5, z0 - half), (0.5, 0.5, z0 + half))
    )

    def exact(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.where(z > z0, x**3 - 3 * x * y**2 + z, 5 + x**2 - z**2 + y)

    problem = Poisson(Ball(0.42) - gap, 0.0, Dirichlet(exact), exact)
    grid = CartesianGrid.uniform(n, (-0.5,) * 3, (0.5,) * 3)
    assert solve(problem, grid).errors()["linf"] < 1e-9
