"""A hyper-elastic unit cell with a random void."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from scipy.spatial import cKDTree

from sciml.errors import ConfigError
from sciml.solvers.fem import HyperElasticity, solve_mixed, square_with_void
from sciml.solvers.fem.quad_domains import square_outline

from ..recipe import MOST, FieldSpec, PointsLayout, Recipe, Trajectory, recipe_registry

__all__ = ["ElasticityRecipe", "RandomVoid"]

C1, C2 = 1.863e5, 9.79e3
TRACTION = 100.0
STATIONS = 42
BOUNDARY = 2048
"""Samples of a boundary among which the nearest one is looked for."""
BENT = 3.0
"""Curvature of a void of the mean radius, about: beyond it the stored number grows like a logarithm."""


class RandomVoid:
    """The radius of a void by angle, between 0.2 and 0.4: r = 0.2 + 0.2 / (1 + exp g).

    Parameters
    ----------
    coefficients : array, shape (modes + 1, 2)
        Of cos k angle and sin k angle in g, float64; also of torch, whose gradients then pass through the radius.

    Examples
    --------
    >>> void = RandomVoid.drawn(0, modes=8)
    >>> bool((abs(void(np.linspace(0, 6.2, 50)) - 0.3) < 0.1).all())
    True
    """

    def __init__(self, coefficients: Any) -> None:
        self.coefficients = coefficients

    @classmethod
    def drawn(cls, seed: int, modes: int) -> "RandomVoid":
        """Return the void of a seed: g from N(0, 4^2 (-Laplace + 3^2)^-1) on the circle, its first modes."""
        k = np.arange(modes + 1)
        deviation = 4 / np.sqrt(np.pi * (k**2 + 9.0))
        deviation[0] /= np.sqrt(2)
        # Mode by mode, so that more of them do not change the first ones.
        draws = np.random.default_rng(seed).standard_normal((modes + 1, 2))
        return cls(deviation[:, None] * draws)

    def __call__(self, angle: np.ndarray) -> np.ndarray:
        """Evaluate the radius at angles, shape (m,) to (m,)."""
        return self.derivatives(angle)[0]

    def derivatives(self, angle: np.ndarray) -> tuple[Any, Any, Any]:
        """Return the radius and its first two derivatives by the angle, in the coefficients' array library."""
        xp = array_namespace(self.coefficients)
        k = np.arange(self.coefficients.shape[0])
        phase = np.multiply.outer(angle, k)
        cosine, sine, k, square = (
            xp.asarray(part, dtype=xp.float64) for part in (np.cos(phase), np.sin(phase), k, k**2)
        )
        a, b = self.coefficients[:, 0], self.coefficients[:, 1]
        g, slope = cosine @ a + sine @ b, cosine @ (k * b) - sine @ (k * a)
        bend = -(cosine @ (square * a) + sine @ (square * b))
        s = 1 / (1 + xp.exp(g))
        first, second = -s * (1 - s), s * (1 - s) * (1 - 2 * s)
        return 0.2 + 0.2 * s, 0.2 * first * slope, 0.2 * (second * slope**2 + first * bend)

    def nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distances of points to the void's boundary, and its curvature where they are nearest.

        The curvature is positive where the void bulges.

        Parameters
        ----------
        x : ndarray, shape (m, 2)

        Returns
        -------
        distance, curvature : ndarray, shape (m,)
        """
        samples = 2 * np.pi * np.arange(BOUNDARY) / BOUNDARY
        angle = samples[cKDTree(self._points(samples)[0]).query(x)[1]]
        for _ in range(3):
            # Newton's steps to a right angle, none longer than a sample's distance, where the nearest point jumps.
            place, tangent, bend = self._points(angle)
            offset = place - x
            slope = (offset * tangent).sum(axis=1)
            rate = (tangent**2 + offset * bend).sum(axis=1)
            step = np.where(rate > 0, -slope / np.where(rate > 0, rate, 1.0), 0.0)
            angle = angle + np.clip(step, -2 * np.pi / BOUNDARY, 2 * np.pi / BOUNDARY)
        place, tangent, bend = self._points(angle)
        turn = tangent[:, 0] * bend[:, 1] - tangent[:, 1] * bend[:, 0]
        return np.linalg.norm(place - x, axis=1), turn / (tangent**2).sum(axis=1) ** 1.5

    def _points(self, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The boundary, and its first two derivatives by the angle, shape (m, 2) each."""
        r, slope, bend = (part[:, None] for part in self.derivatives(angle))
        out = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        along = np.stack([-out[:, 1], out[:, 0]], axis=1)
        return 0.5 + r * out, slope * out + r * along, (bend - r) * out + 2 * slope * along


@recipe_registry.register("elasticity")
@dataclass(frozen=True)
class ElasticityRecipe(Recipe):
    """Stress in a hyper-elastic unit cell with a random void (after Li et al., Geo-FNO, arXiv 2207.05209).

    The unit square around a void r(angle) = 0.2 + 0.2 / (1 + exp g), g from N(0, 4^2 (-Laplace + 3^2)^-1) on the circle
    (its first ``modes``: of all of them the boundary has no tangent, and more need finer meshes), is clamped at the
    bottom and pulled upwards at the top by a traction of 100. An incompressible Rivlin-Saunders solid, C1 = 1.863e5 and
    C2 = 9.79e3, in plane strain. Stored are von Mises's equivalent of the Cauchy stress, the displacement, the distance
    to the void, its curvature at the nearest point and quadrature weights, at ``rings`` times ``angles`` points between
    void, on which the last ring lies, and square, from which the first one keeps a ``margin``, however many there are:
    at the corners of the clamped side stresses are infinite. Distances between rings differ from sample to sample: what
    is learned from the same distances is not learned between. The void is given by its radius at 42 equal angles, too.
    All in the units of the paper, in which only positions and radii are inputs; leave the others out to compare with it
    (``--inputs``).

    Solved by Taylor-Hood elements on 24 x 160 quadrilaterals; stresses converge at second order, away from the clamped
    corners. Stated accuracy, as the relative L2 difference to the solution on a mesh of half the spacing: 0.02.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    equation = "div S = 0, det F = 1, S = 2 (C1 + C2) F - p cof F in the unit square around a random void"
    check_limits = {"relative_residual": 1e-9}  # noqa: RUF012 - read only
    accuracy = 0.02
    ranges = {  # noqa: RUF012 - read only
        "angles": (8, MOST),
        "rings": (3, MOST),
        "margin": (0.01, 0.5),
        "grading": (0.0, 0.9),
        "modes": (1, 20),
        "around": (16, MOST),
        "across": (4, MOST),
    }

    angles: int = 76
    """Points on a ring, an even number."""
    rings: int = 13
    """Rings of points."""
    margin: float = 1 / 17
    """Share of the way from square to void that is left out."""
    grading: float = 0.4
    """By up to which share rings are further from each other at void and square than on average, or nearer."""
    modes: int = 8
    """Largest wavenumber of the void's boundary."""
    around: int = 160
    """Elements around the void, a multiple of 4."""
    across: int = 24
    """Elements between void and square."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.angles % 2 or self.around % 4:
            raise ConfigError(
                f"elasticity angles={self.angles}, around={self.around}: give multiples of 2 and of 4"
            )

    def layout(self) -> PointsLayout:
        """Return stress, displacement and weights on a mesh of quadrilaterals, with the void's radii as scalars."""
        radii = tuple(f"radius_{i:02d}" for i in range(STATIONS))
        return PointsLayout(
            name="elasticity",
            dim=2,
            fields=(
                FieldSpec("stress", "von Mises stress, units of C1"),
                FieldSpec("displacement", "displacement, units of the cell", rank=1),
                FieldSpec("distance", "distance to the void, units of the cell"),
                FieldSpec("curvature", "asinh(k / 3), k the curvature of the void at the nearest point"),
                FieldSpec("weight", "quadrature weight, units of the cell's area"),
            ),
            size=self.angles * self.rings,
            cells=("quad",),
            scalars=radii,
            parameters={"c1": C1, "c2": C2, "traction": TRACTION},
            inputs=("distance", "curvature"),
            targets=("stress",),
            weight="weight",
            code=radii,
        )

    def solve(self, void: RandomVoid, grading: float = 0.0) -> Trajectory:
        """Return the sample of a given void, its rings so much further from each other at void and square.

        Raises
        ------
        ConvergenceError
            If there is no solution.
        """
        mesh = square_with_void(void, self.around, self.across)
        problem = HyperElasticity(
            c1=C1,
            c2=C2,
            natural=lambda x, y: y > 1e-9,
            traction=(0.0, lambda x, y: TRACTION * (y > 1 - 1e-9)),
            name="elasticity",
        )
        solution = solve_mixed(problem, mesh)
        x, weight = self.points(void, grading)
        _, u, slopes, _ = solution.at(self._parameters(grading)[0])
        distance, curvature = void.nearest(x)
        radii = void(2 * np.pi * np.arange(STATIONS) / STATIONS)
        return Trajectory(
            {
                "positions": x,
                "stress": problem.von_mises(slopes),
                "displacement": u,
                "distance": distance,
                "curvature": np.arcsinh(curvature / BENT),
                "weight": weight,
                "cells/quad": self._cells(),
            },
            {f"radius_{i:02d}": float(r) for i, r in enumerate(radii)},
            {"relative_residual": solution.info["residual"]},
        )

    def _parameters(self, grading: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Of the points in the map of `square_with_void`, shape (angles * rings, 2), and their weights in it."""
        # A quarter of a step from the corners, whatever the number of angles.
        around = (np.arange(self.angles) + 0.25) / self.angles
        phase = 2 * np.pi * np.linspace(0.0, 1.0, self.rings)
        across = self.margin + (1 - self.margin) * (phase + grading * np.sin(phase)) / (2 * np.pi)
        # Gregory's rule with first differences: of few rings, the trapezoid's error at the ends is most of it.
        share = np.ones(self.rings)
        share[[0, -1]] -= 7 / 12
        # Of three rings both fall on the same one.
        np.add.at(share, [1, -2], 1 / 12)
        share *= (1 - self.margin) * (1 + grading * np.cos(phase)) / (self.rings - 1)
        # The first ring stands for what is left out, too.
        share[0] += self.margin
        places = np.stack(np.meshgrid(around, across, indexing="ij"), axis=-1).reshape(-1, 2)
        return places, np.tile(share / self.angles, self.angles)

    def points(self, void: RandomVoid, grading: float = 0.0) -> tuple[Any, Any]:
        """Return where a sample's points are, and their quadrature weights.

        In the array library of the void's coefficients: with torch, gradients of what is predicted there pass through
        to the shape.

        Parameters
        ----------
        void : RandomVoid
        grading : float
            Share by which rings are further from each other at void and square than on average, below 0 nearer.

        Returns
        -------
        positions : array, shape (angles * rings, 2)
        weights : array, shape (angles * rings,)
        """
        xp = array_namespace(void.coefficients)
        places, share = self._parameters(grading)
        around, across = places.T
        square, tangent = square_outline(around)
        offset = square - 0.5
        angle = np.arctan2(offset[:, 1], offset[:, 0])
        # By the parameter that goes around.
        turn = (offset[:, 0] * tangent[:, 1] - offset[:, 1] * tangent[:, 0]) / (offset**2).sum(axis=1)
        out = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        along = np.stack([-out[:, 1], out[:, 0]], axis=1)
        r, slope, _ = void.derivatives(angle)
        constants = (square, tangent, out, along, turn[:, None], across[:, None])
        square, tangent, out, along, turn, t = (xp.asarray(part, dtype=xp.float64) for part in constants)
        r, slope = r[:, None], slope[:, None]
        edge = 0.5 + r * out
        by_t, by_a = edge - square, (1 - t) * tangent + t * turn * (slope * out + r * along)
        area = by_a[:, 0] * by_t[:, 1] - by_a[:, 1] * by_t[:, 0]
        return (1 - t) * square + t * edge, area * xp.asarray(share, dtype=xp.float64)

    def _cells(self) -> np.ndarray:
        i, j = np.meshgrid(np.arange(self.angles), np.arange(self.rings - 1), indexing="ij")
        after = (i + 1) % self.angles
        corners = ((i, j), (after, j), (after, j + 1), (i, j + 1))
        return np.stack([(a * self.rings + b).ravel() for a, b in corners], axis=1).astype(np.int32)

    def sample(self, seed: int) -> Trajectory:
        """Return the stress around one void."""
        # Drawn apart from the void, which is the same whatever the points are.
        grading = self.grading * np.random.default_rng([seed, 1]).uniform(-1, 1)
        return self.solve(RandomVoid.drawn(seed, self.modes), grading)

    def working_memory(self, batch: int) -> float:
        """Estimate from measurements: element matrices and factors of one sample."""
        return 5.5e4 * self.around * self.across

    def refined(self) -> "ElasticityRecipe":
        """Return the recipe solved on a mesh of half the spacing."""
        return replace(self, around=2 * self.around, across=2 * self.across)

    def verification_limits(self) -> dict[str, float]:
        """Return the stated accuracy, scaled to other meshes by the order of convergence."""
        return {"self_convergence": self.accuracy * max(1.0, 160 / self.around, 24 / self.across) ** 2}
