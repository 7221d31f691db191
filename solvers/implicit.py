"""Domains bounded by the zero set of a function, in two and three dimensions."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from sciml.errors import ConfigError, GeometryError

from .domains import BoundaryPoints, Domain, domain_registry
from .functions import Expression, coordinates, derivative

__all__ = ["Ball", "Cuboid", "Ellipsoid", "ImplicitDomain", "LevelSet", "Torus"]

NEWTON_STEPS = 30
CHUNK = 1 << 18  # cells looked at at a time
RESOLUTION = {2: 512, 3: 64}  # samples along the longest side of the bounding box


class ImplicitDomain(Domain):
    """A region {phi < 0}; a subclass gives `phi`, its `gradient` and `bounds`.

    Closest points solve x - p = lambda grad phi(p), phi(p) = 0 by Newton's method from the nearest
    of the boundary samples, 512 along the box in 2D and 64 in 3D: where the body is about as thin as
    their distance, or bends as sharply, another sheet's point may be taken.
    """

    @abstractmethod
    def gradient(self, points: np.ndarray) -> np.ndarray:
        """Return grad phi, shape (m, D) to (m, D)."""

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners of the box in which the boundary is looked for."""
        return self.bounds

    @cached_property
    def _extent(self) -> float:
        lower, upper = self.box
        return float((upper - lower).max())

    @cached_property
    def _samples(self) -> tuple[cKDTree, np.ndarray]:
        points = self._project_cells(self._extent / RESOLUTION[self.dim])
        if len(points) == 0:
            raise GeometryError(
                f"domain {self} has no boundary in its box from {self.box[0].tolist()} to "
                f"{self.box[1].tolist()}: phi must be negative inside and positive on the box"
            )
        return cKDTree(points), points

    def boundary(self, spacing: float) -> BoundaryPoints:
        """Return one boundary point for every cell of that side length which the boundary passes."""
        finest = self._extent / RESOLUTION[self.dim]
        points = self._project_cells(spacing) if spacing < finest else self._thinned(spacing)
        return BoundaryPoints(points, self._normals(points), self._pieces(points))

    def _thinned(self, spacing: float) -> np.ndarray:
        """Of the samples one for every cell of a lattice and side that normals point to.

        Both sides of a thin gap in a cell must be kept: that is how the gap is seen.
        """
        points, normals = self._samples[1], self._sample_normals
        keys = np.concatenate([np.floor(points / spacing), normals > 0], axis=1).astype(int)
        return points[np.sort(np.unique(keys, axis=0, return_index=True)[1])]

    def _normals(self, points: np.ndarray) -> np.ndarray:
        gradient = self.gradient(points)
        return gradient / np.linalg.norm(gradient, axis=1, keepdims=True)

    def _pieces(self, points: np.ndarray) -> np.ndarray:
        return np.zeros(len(points), dtype=int)

    def _project_cells(self, side: float) -> np.ndarray:
        """Boundary points, one in each cell of a lattice in which the boundary is met.

        The cells are found by halving coarser ones, which bounds the work by the size of the boundary.
        """
        lower, upper = self.box
        coarse = max(self._extent / RESOLUTION[self.dim], side)
        halvings = int(np.ceil(np.log2(coarse / side) - 1e-9))
        lower = lower - 0.513 * coarse
        cells = np.stack(
            np.meshgrid(
                *[np.arange(n) for n in np.ceil((upper - lower) / coarse).astype(int) + 1], indexing="ij"
            ),
            axis=-1,
        ).reshape(-1, self.dim)
        cells = cells[self._met(lower, coarse, cells)]
        for _ in range(halvings):
            coarse /= 2
            cells = (2 * cells[:, None, :] + self._corners).reshape(-1, self.dim)
            cells = cells[self._met(lower, coarse, cells)]
        centres = lower + coarse * (cells + 0.5)
        p = self._newton(centres, centres, 1.5 * coarse)
        own = (np.floor((p - lower) / coarse).astype(int) == cells).all(axis=1)
        return p[own & self._on_boundary(p)]

    @cached_property
    def _corners(self) -> np.ndarray:
        return np.stack(np.meshgrid(*[np.arange(2)] * self.dim, indexing="ij"), axis=-1).reshape(-1, self.dim)

    def _met(self, lower: np.ndarray, side: float, cells: np.ndarray) -> np.ndarray:
        """Whether phi changes its sign between the corners of cells."""
        met = np.empty(len(cells), dtype=bool)
        for start in range(0, len(cells), CHUNK):
            chunk = slice(start, start + CHUNK)
            outside = self.phi(lower + side * (cells[chunk, None, :] + self._corners)) > 0
            met[chunk] = outside.any(axis=1) & ~outside.all(axis=1)
        return met

    def _on_boundary(self, p: np.ndarray) -> np.ndarray:
        slope = np.linalg.norm(self.gradient(p), axis=1)
        return np.asarray(np.abs(self.phi(p)) <= 1e-11 * self._extent * slope)

    def closest_point(self, points: np.ndarray) -> BoundaryPoints:
        """Return the closest boundary points: Newton's method from the three nearest samples."""
        tree, samples = self._samples
        candidates = tree.query(points, k=min(3, len(samples)))[1].reshape(len(points), -1).T
        reach = 3 * self._extent / RESOLUTION[self.dim]
        feet = samples[candidates[0]]
        best = np.linalg.norm(feet - points, axis=1) * (1 + 1e-9)
        for number, nearest in enumerate(candidates):
            start = samples[nearest]
            # Neighbouring samples lead to the same foot; others may lie on another sheet.
            cosine = np.sum(self._sample_normals[nearest] * self._sample_normals[candidates[0]], axis=1)
            chosen = np.flatnonzero((cosine < 0.5) | (number == 0))
            p = self._newton(points[chosen], start[chosen], reach)
            distance = np.linalg.norm(p - points[chosen], axis=1)
            closer = (distance < best[chosen]) & self._on_boundary(p)
            feet[chosen[closer]], best[chosen[closer]] = p[closer], distance[closer]
        return BoundaryPoints(feet, self._normals(feet), self._pieces(feet))

    @cached_property
    def _sample_normals(self) -> np.ndarray:
        return self._normals(self._samples[1])

    def _newton(self, x: np.ndarray, start: np.ndarray, reach: float) -> np.ndarray:
        """Solve p + lambda grad phi(p) = x, phi(p) = 0 near a start."""
        p = start.copy()
        active = np.arange(len(p))
        step_size = 1e-5 * self._extent
        for _ in range(NEWTON_STEPS):
            q, g = p[active], self.gradient(p[active])
            square = np.maximum(np.sum(g * g, axis=1), 1e-300)
            multiplier = np.sum((x[active] - q) * g, axis=1) / square
            hessian = np.empty((len(q), self.dim, self.dim))
            for d in range(self.dim):
                e = np.eye(self.dim)[d] * step_size
                hessian[:, :, d] = (self.gradient(q + e) - self.gradient(q - e)) / (2 * step_size)
            system = np.zeros((len(q), self.dim + 1, self.dim + 1))
            system[:, :-1, :-1] = np.eye(self.dim) + multiplier[:, None, None] * hessian
            system[:, :-1, -1] = system[:, -1, :-1] = g
            rhs = np.concatenate([x[active] - q - multiplier[:, None] * g, -self.phi(q)[:, None]], axis=1)
            scale = np.sqrt(square)[:, None]
            # Rows and columns of the multiplier in units of |grad phi|, so that the system is balanced.
            system[:, :-1, -1] /= scale
            system[:, -1, :-1] /= scale
            rhs[:, -1] /= scale[:, 0]
            # Beyond a centre of curvature the Newton matrix turns indefinite; then project and slide.
            tangential = rhs[:, :-1]
            slide = tangential + (rhs[:, -1:] / scale) * g
            determinant = np.linalg.det(system)
            sound = determinant < -1e-3
            system[~sound] = np.eye(self.dim + 1)
            step = np.where(sound[:, None], np.linalg.solve(system, rhs[..., None])[:, :-1, 0], 0.5 * slide)
            length = np.linalg.norm(step, axis=1)
            step *= np.minimum(1.0, 0.5 * reach / np.maximum(length, 1e-300))[:, None]
            p[active] = q + step
            active = active[length > 1e-14 * self._extent]
            if len(active) == 0:
                break
        return np.where((np.linalg.norm(p - start, axis=1) <= 2 * reach)[:, None], p, start)


@dataclass(frozen=True)
class LevelSet(ImplicitDomain):
    """The region where a function is negative.

    Parameters
    ----------
    function : str, sympy expression or callable
        phi(x, y) or phi(x, y, z), smooth near its zero set and with a gradient there.
    lower, upper : tuple of float
        A box around the region; its length is the dimension. Features smaller than 1/512 of it in 2D,
        1/64 in 3D, may be missed.

    Raises
    ------
    GeometryError
        If phi has no sign change in the box, or is negative on its sides (where these are first needed).

    Notes
    -----
    The gradient of text is symbolic, that of a callable is taken by complex steps, or by differences
    where the function takes no complex numbers.

    Examples
    --------
    >>> ellipse = LevelSet("x**2 + 4*y**2 - 1", (-1.1, -0.6), (1.1, 0.6))
    >>> ellipse.closest_point(np.array([[0.0, 0.4], [1.3, 0.0]])).points.round(12).tolist()
    [[0.0, 0.5], [1.0, 0.0]]
    """

    function: str | Callable
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.lower) != len(self.upper) or len(self.lower) not in (2, 3):
            raise ConfigError(f"level set lower={self.lower}, upper={self.upper}: give a box in 2D or 3D")
        if not all(a < b for a, b in zip(self.lower, self.upper, strict=True)):
            raise GeometryError(f"level set box from {self.lower} to {self.upper} is empty")
        if not callable(self.function):
            object.__setattr__(self, "function", Expression(self.function, coordinates(self.dim)))

    @property
    def dim(self) -> int:
        """Two or three, as the box."""
        return len(self.lower)

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """The corners given."""
        return np.asarray(self.lower, dtype=float), np.asarray(self.upper, dtype=float)

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners of the bounding box of the boundary's samples."""
        self._refuse_negative_sides()
        points = self._samples[1]
        return points.min(axis=0), points.max(axis=0)

    def _refuse_negative_sides(self) -> None:
        lower, upper = self.box
        axes = [np.linspace(a, b, RESOLUTION[self.dim] + 1) for a, b in zip(lower, upper, strict=True)]
        for d in range(self.dim):
            for end in (lower[d], upper[d]):
                side = [axis if e != d else np.array([end]) for e, axis in enumerate(axes)]
                points = np.stack(np.meshgrid(*side, indexing="ij"), axis=-1).reshape(-1, self.dim)
                inside = self.phi(points) < 0
                if inside.any():
                    raise GeometryError(
                        f"level set {self.function} is negative at {points[np.argmax(inside)].tolist()}, on its box: "
                        "enlarge the box, or change the sign of phi, which is negative inside"
                    )

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Evaluate the function."""
        # A copy: expressions may return read-only views.
        values: np.ndarray = np.array(self.function(*np.moveaxis(points, -1, 0)), dtype=float)  # type: ignore[operator]
        if values.shape != points.shape[:-1] or not np.isfinite(values).all():
            raise ConfigError(
                f"level set function {self.function} returned shape {values.shape} for points of shape "
                f"{points.shape}, or values that are not finite: return one finite number per point"
            )
        return values

    @cached_property
    def _derivatives(self) -> list[Callable] | None:
        """Derivatives along the axes; None for a function that has none by complex steps in its box."""
        lower, upper = self.box
        points = np.random.default_rng(0).uniform(lower, upper, (256, self.dim))
        try:
            found: list = [derivative(self.function, axis, self.dim) for axis in range(self.dim)]  # type: ignore[arg-type]
            for d in found:
                d(*points.T)
        except (TypeError, ConfigError):
            return None
        return found

    def gradient(self, points: np.ndarray) -> np.ndarray:
        """Evaluate the derivatives."""
        if self._derivatives is None:
            return _differences(self.phi, points, 2e-3 * self._extent)
        return np.stack([d(*points.T) for d in self._derivatives], axis=1)


def _differences(function: Callable, points: np.ndarray, step: float) -> np.ndarray:
    """Gradient by central differences of order eight, shape (m, D)."""
    weights = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280]) / step
    gradient = np.zeros_like(points)
    for d in range(points.shape[1]):
        for k, w in enumerate(weights, start=1):
            e = np.eye(points.shape[1])[d] * k * step
            gradient[:, d] += w * (function(points + e) - function(points - e))
    return gradient


@domain_registry.register("ball")
@dataclass(frozen=True)
class Ball(ImplicitDomain):
    """The ball |x - center| < radius in 3D.

    Examples
    --------
    >>> Ball(0.5).closest_point(np.array([[0.1, 0.0, 0.0]])).points.tolist()
    [[0.5, 0.0, 0.0]]
    """

    radius: float = 0.4
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise GeometryError(f"ball radius={self.radius}: it must be positive")

    @property
    def dim(self) -> int:
        """Three."""
        return 3

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The circumscribed cube."""
        return np.asarray(self.center) - self.radius, np.asarray(self.center) + self.radius

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return the signed distance."""
        return np.linalg.norm(points - np.asarray(self.center), axis=-1) - self.radius

    def gradient(self, points: np.ndarray) -> np.ndarray:
        """Return the direction away from the centre."""
        away = points - np.asarray(self.center)
        length = np.linalg.norm(away, axis=1, keepdims=True)
        return np.where(length > 0, away / np.maximum(length, 1e-300), np.eye(3)[0])

    def closest_point(self, points: np.ndarray) -> BoundaryPoints:
        """Project along the radius."""
        normals = self.gradient(points)
        return BoundaryPoints(
            np.asarray(self.center) + self.radius * normals, normals, np.zeros(len(points), dtype=int)
        )


@domain_registry.register("ellipsoid")
@dataclass(frozen=True)
class Ellipsoid(ImplicitDomain):
    """The ellipsoid with given semi-axes along the coordinate axes.

    Examples
    --------
    >>> foot = Ellipsoid((0.4, 0.3, 0.2)).closest_point(np.array([[0.0, 0.0, 0.25]]))
    >>> np.allclose(foot.points, [[0.0, 0.0, 0.2]])
    True
    """

    semi_axes: tuple[float, float, float] = (0.45, 0.35, 0.25)
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not min(self.semi_axes) > 0:
            raise GeometryError(f"ellipsoid semi_axes={self.semi_axes}: all must be positive")

    @property
    def dim(self) -> int:
        """Three."""
        return 3

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The circumscribed box."""
        return np.subtract(self.center, self.semi_axes), np.add(self.center, self.semi_axes)

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return (|S x|^2 - 1) times half the shortest semi-axis, S the map onto the unit ball."""
        scaled = (points - np.asarray(self.center)) / np.asarray(self.semi_axes)
        return 0.5 * min(self.semi_axes) * (np.sum(scaled**2, axis=-1) - 1)

    def gradient(self, points: np.ndarray) -> np.ndarray:
        """Return the exact gradient."""
        return min(self.semi_axes) * (points - np.asarray(self.center)) / np.asarray(self.semi_axes) ** 2


@domain_registry.register("torus")
@dataclass(frozen=True)
class Torus(ImplicitDomain):
    """The torus of tube radius ``minor`` around the circle of radius ``major`` in the xy-plane.

    Examples
    --------
    >>> Torus(0.3, 0.1).contains(np.array([[0.0, 0.0, 0.0], [0.3, 0.0, 0.05]])).tolist()
    [False, True]
    """

    major: float = 0.3
    minor: float = 0.12
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not 0 < self.minor < self.major:
            raise GeometryError(f"torus major={self.major}, minor={self.minor}: give 0 < minor < major")

    @property
    def dim(self) -> int:
        """Three."""
        return 3

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The circumscribed box."""
        reach = np.array([self.major + self.minor] * 2 + [self.minor])
        return np.asarray(self.center) - reach, np.asarray(self.center) + reach

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return the signed distance."""
        x, y, z = np.moveaxis(points - np.asarray(self.center), -1, 0)
        return np.hypot(np.hypot(x, y) - self.major, z) - self.minor

    def gradient(self, points: np.ndarray) -> np.ndarray:
        """Return the direction away from the nearest point of the circle."""
        x = points - np.asarray(self.center)
        radius = np.hypot(x[:, 0], x[:, 1])
        axial = np.where((radius > 0)[:, None], x[:, :2] / np.maximum(radius, 1e-300)[:, None], np.eye(2)[0])
        away = x - np.concatenate([self.major * axial, np.zeros((len(x), 1))], axis=1)
        length = np.linalg.norm(away, axis=1, keepdims=True)
        return np.where(length > 0, away / np.maximum(length, 1e-300), np.eye(3)[2])

    def closest_point(self, points: np.ndarray) -> BoundaryPoints:
        """Project away from the circle."""
        normals = self.gradient(points)
        x = points - np.asarray(self.center)
        radius = np.hypot(x[:, 0], x[:, 1])
        axial = np.where((radius > 0)[:, None], x[:, :2] / np.maximum(radius, 1e-300)[:, None], np.eye(2)[0])
        circle = np.concatenate([self.major * axial, np.zeros((len(x), 1))], axis=1)
        feet = np.asarray(self.center) + circle + self.minor * normals
        return BoundaryPoints(feet, normals, np.zeros(len(points), dtype=int))


@domain_registry.register("cuboid")
@dataclass(frozen=True)
class Cuboid(Domain):
    """The box lower < x < upper in 3D; pieces 0 to 5 are its faces x-, x+, y-, y+, z-, z+.

    Examples
    --------
    >>> foot = Cuboid().closest_point(np.array([[0.1, 0.0, 0.3]]))
    >>> foot.points.tolist(), foot.piece.tolist()
    ([[0.1, 0.0, 0.4]], [5])
    """

    lower: tuple[float, float, float] = (-0.4, -0.4, -0.4)
    upper: tuple[float, float, float] = (0.4, 0.4, 0.4)

    def __post_init__(self) -> None:
        if not all(a < b for a, b in zip(self.lower, self.upper, strict=True)):
            raise GeometryError(
                f"cuboid from {self.lower} to {self.upper} is empty: each lower must be below upper"
            )

    @property
    def dim(self) -> int:
        """Three."""
        return 3

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Its corners."""
        return np.asarray(self.lower, dtype=float), np.asarray(self.upper, dtype=float)

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Return the largest of the six signed distances to the faces' planes."""
        return np.maximum(np.asarray(self.lower) - points, points - np.asarray(self.upper)).max(axis=-1)

    def boundary(self, spacing: float) -> BoundaryPoints:
        """Return a lattice of points on every face, edges included."""
        lower, upper = self.bounds
        axes = [
            np.linspace(lower[d], upper[d], max(int(np.ceil((upper[d] - lower[d]) / spacing)), 1) + 1)
            for d in range(3)
        ]
        found = []
        for face in range(6):
            d, side = divmod(face, 2)
            ends = [axis if e != d else np.array([(lower, upper)[side][d]]) for e, axis in enumerate(axes)]
            points = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
            found.append(self._on_faces(points, np.full(len(points), face)))
        return sum(found[1:], start=found[0])

    def closest_point(self, points: np.ndarray) -> BoundaryPoints:
        """Clip outside points to the box, move inside points to the nearest face."""
        lower, upper = self.bounds
        beyond = np.stack([lower - points, points - upper], axis=-1).reshape(len(points), 6)
        face = beyond.argmax(axis=1)
        feet = np.clip(points, lower, upper)
        d = face // 2
        feet[np.arange(len(points)), d] = np.where(face % 2, upper[d], lower[d])
        return self._on_faces(feet, face)

    def _on_faces(self, points: np.ndarray, face: np.ndarray) -> BoundaryPoints:
        normals = np.zeros_like(points)
        normals[np.arange(len(points)), face // 2] = 2.0 * (face % 2) - 1
        return BoundaryPoints(points, normals, face)
