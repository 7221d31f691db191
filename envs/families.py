"""Families of problems: what an agent is trained on, and what it has never seen.

A family draws a problem, and the coarsest mesh for it, from a random generator. Its *kind* says what is solved:

    advection   steady advection u' = f on an interval, DG        poisson     - k u'' + b u' = f on an interval, DG
    transport   u_t + div(b u) = 0 on quadtrees, DG               triangles   elliptic problems, P1 elements

Exact solutions serve evaluation only: neither observations nor the published reward look at them. Coarsest meshes see
the features: a front between the nodes of every quadrature rule cannot be found by any strategy.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sciml.errors import ConfigError
from sciml.registry import Registry, unknown_name
from sciml.solvers.dg import AdvectionProblem, DiffusionProblem, TreeMesh
from sciml.solvers.fem import FEMProblem, TriMesh, l_shape, rectangle

from .functions import Arcs, Fronts, Layer, Peaks, PlanePeaks, Rotating

__all__ = ["Family", "Mixture", "Sample", "families_of", "family_of", "family_registry"]


class Sample(NamedTuple):
    """A problem and the coarsest mesh for it."""

    problem: Any
    mesh: Any


class Family(ABC):
    """A distribution of problems; subclasses are frozen dataclasses of its parameters."""

    kind: ClassVar[str]

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw a problem."""


family_registry: Registry[type[Family]] = Registry("refinement family")
"""Families by name: the command line and environments take these names."""


def family_of(family: str | Family, kind: str) -> Family:
    """Return a family by name, or the given one, if it is of a kind.

    Raises
    ------
    ConfigError
        If there is no such family, or it is of another kind.

    Examples
    --------
    >>> family_of("advection-tanh", "advection").sample(np.random.default_rng(0)).mesh.roots
    (8,)
    """
    if isinstance(family, str) and family not in family_registry:
        unknown = unknown_name(f"family of {kind} problems", family, families_of(kind))
        raise ConfigError(f"{unknown}; families of your own come with a plug-in (--plugin FILE)")
    made = family_registry[family]() if isinstance(family, str) else family
    if not isinstance(made, Family):
        raise ConfigError(f"family={family!r}: give a name or a Family")
    if made.kind != kind:
        raise ConfigError(
            f"family {family!r} is of kind {made.kind!r}, not {kind!r}: choose one of {', '.join(families_of(kind))}"
        )
    return made


def families_of(kind: str) -> list[str]:
    """Return the names of the families of a kind.

    Examples
    --------
    >>> families_of("transport")
    ['transport-bumps', 'transport-discs']
    """
    return [name for name in family_registry if family_registry[name].kind == kind]


@dataclass(frozen=True)
class Mixture(Family):
    """Problems of several families of one kind, each as often as the others.

    Attributes
    ----------
    parts : tuple of Family
    """

    parts: tuple[Family, ...]

    @property
    def kind(self) -> str:  # type: ignore[override]
        """That of the parts."""
        return self.parts[0].kind

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw a family, and a problem of it."""
        return self.parts[int(rng.integers(len(self.parts)))].sample(rng)


Range = tuple[float, float]


def _draw(rng: np.random.Generator, bounds: Range, count: int) -> tuple[float, ...]:
    return tuple(rng.uniform(*bounds, count).tolist())


def _log_draw(rng: np.random.Generator, bounds: Range, count: int) -> tuple[float, ...]:
    return tuple(np.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1]), count)).tolist())


def _interval(roots: int = 8) -> TreeMesh:
    return TreeMesh((0.0,), (1.0,), (roots,))


def _fronts(rng: np.random.Generator, count: int, steepness: Range) -> Fronts:
    heights = rng.choice([-1.0, 1.0], count) * rng.uniform(0.5, 1.5, count)
    return Fronts(tuple(heights.tolist()), _draw(rng, steepness, count), _draw(rng, (0.1, 0.9), count))


def _peaks(rng: np.random.Generator, count: int, widths: Range) -> Peaks:
    heights = rng.choice([-1.0, 1.0], count) * rng.uniform(0.5, 1.5, count)
    return Peaks(tuple(heights.tolist()), _log_draw(rng, widths, count), _draw(rng, (0.1, 0.9), count))


def _advection(u: Fronts | Peaks, name: str) -> Sample:
    return Sample(AdvectionProblem((1.0,), u.slope, u, u, name), _interval())


@family_registry.register("advection-tanh")
@dataclass(frozen=True)
class TanhAdvection(Family):
    """u' = f with one front tanh(k (x - c))."""

    kind: ClassVar[str] = "advection"
    steepness: Range = (20.0, 60.0)

    def sample(self, rng: np.random.Generator) -> Sample:
        return _advection(_fronts(rng, 1, self.steepness), "advection-tanh")


@family_registry.register("advection-steps")
@dataclass(frozen=True)
class StepsAdvection(Family):
    """u' = f with two to four fronts of different steepness."""

    kind: ClassVar[str] = "advection"
    steepness: Range = (10.0, 80.0)

    def sample(self, rng: np.random.Generator) -> Sample:
        return _advection(_fronts(rng, int(rng.integers(2, 5)), self.steepness), "advection-steps")


@family_registry.register("advection-gaussians")
@dataclass(frozen=True)
class GaussiansAdvection(Family):
    """u' = f with a sum of three Gaussians."""

    kind: ClassVar[str] = "advection"
    widths: Range = (0.02, 0.1)

    def sample(self, rng: np.random.Generator) -> Sample:
        return _advection(_peaks(rng, 3, self.widths), "advection-gaussians")


def _poisson(u: Fronts | Peaks, name: str) -> Sample:
    return Sample(DiffusionProblem(_Negative(u), u, exact=u, name=name), _interval())


@dataclass(frozen=True)
class _Negative:
    """- u''."""

    u: Fronts | Peaks

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return -self.u.curvature(x)


@family_registry.register("poisson-tanh")
@dataclass(frozen=True)
class TanhPoisson(Family):
    """- u'' = f with one front."""

    kind: ClassVar[str] = "poisson"
    steepness: Range = (20.0, 60.0)

    def sample(self, rng: np.random.Generator) -> Sample:
        return _poisson(_fronts(rng, 1, self.steepness), "poisson-tanh")


@family_registry.register("poisson-gaussians")
@dataclass(frozen=True)
class GaussiansPoisson(Family):
    """- u'' = f with a sum of three Gaussians."""

    kind: ClassVar[str] = "poisson"
    widths: Range = (0.02, 0.1)

    def sample(self, rng: np.random.Generator) -> Sample:
        return _poisson(_peaks(rng, 3, self.widths), "poisson-gaussians")


@family_registry.register("poisson-layers")
@dataclass(frozen=True)
class LayersPoisson(Family):
    """- eps u'' + u' = 1, or the wind from the right: a layer at one end."""

    kind: ClassVar[str] = "poisson"
    widths: Range = (0.005, 0.05)

    def sample(self, rng: np.random.Generator) -> Sample:
        layer, wind = Layer(_log_draw(rng, self.widths, 1)[0]), float(rng.choice([-1.0, 1.0]))
        exact = layer if wind > 0 else _Mirrored(layer)
        return Sample(DiffusionProblem(1.0, 0.0, layer.width, wind, exact, "poisson-layers"), _interval())


@dataclass(frozen=True)
class _Mirrored:
    function: Layer

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.function(1 - x)


def _arcs(rng: np.random.Generator, count: int, steepness: Range) -> Arcs:
    """Arcs through points of the unit square, of centres outside."""
    angle = rng.uniform(0, 2 * math.pi, count)
    far = rng.uniform(0.9, 1.6, count)
    centres = 0.5 + far[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    through = rng.uniform(0.25, 0.75, (count, 2))
    radii = np.hypot(*(through - centres).T)
    heights = rng.choice([-1.0, 1.0], count) * rng.uniform(0.5, 1.5, count)
    return Arcs(
        tuple(heights), _draw(rng, steepness, count), tuple(radii), tuple(map(tuple, centres.tolist()))
    )


@family_registry.register("triangles-fronts")
@dataclass(frozen=True)
class FrontTriangles(Family):
    """- Laplace u = f on the unit square with a front along an arc."""

    kind: ClassVar[str] = "triangles"
    steepness: Range = (15.0, 40.0)

    def sample(self, rng: np.random.Generator) -> Sample:
        u = _arcs(rng, 1, self.steepness)
        return Sample(FEMProblem(u.minus_laplacian, u, exact=u, name="triangles-fronts"), rectangle(4, 4))


@family_registry.register("triangles-peaks")
@dataclass(frozen=True)
class PeakTriangles(Family):
    """- Laplace u = f on the unit square with three Gaussians."""

    kind: ClassVar[str] = "triangles"
    widths: Range = (0.03, 0.12)

    def sample(self, rng: np.random.Generator) -> Sample:
        heights = tuple((rng.choice([-1.0, 1.0], 3) * rng.uniform(0.5, 1.5, 3)).tolist())
        centres = tuple(map(tuple, rng.uniform(0.15, 0.85, (3, 2)).tolist()))
        u = PlanePeaks(heights, _log_draw(rng, self.widths, 3), centres)
        return Sample(FEMProblem(u.minus_laplacian, u, exact=u, name="triangles-peaks"), rectangle(4, 4))


@dataclass(frozen=True)
class Corner:
    """r^(pi / w) sin(pi angle / w): harmonic in a sector of angle w, zero on its legs.

    Attributes
    ----------
    opening, turn : float
        w, and the direction of the first leg.
    """

    opening: float
    turn: float

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Evaluate."""
        angle = (np.arctan2(y, x) - self.turn + 1e-9) % (2 * math.pi) - 1e-9
        return np.hypot(x, y) ** (math.pi / self.opening) * np.sin(math.pi / self.opening * angle)


@family_registry.register("triangles-corners")
@dataclass(frozen=True)
class CornerTriangles(Family):
    """Laplace u = 0 in sectors with a re-entrant corner of a random angle and direction."""

    kind: ClassVar[str] = "triangles"
    openings: Range = (1.2 * math.pi, 1.9 * math.pi)

    def sample(self, rng: np.random.Generator) -> Sample:
        u = Corner(float(rng.uniform(*self.openings)), float(rng.uniform(0, 2 * math.pi)))
        parts = math.ceil(u.opening / (math.pi / 3))
        angles = u.turn + u.opening * np.arange(parts + 1) / parts
        vertices = np.concatenate([[[0.0, 0.0]], np.stack([np.cos(angles), np.sin(angles)], axis=1)])
        first = 1 + np.arange(parts)
        fan = TriMesh.given(vertices, np.stack([0 * first, first, first + 1], axis=1))
        return Sample(FEMProblem(0.0, u, exact=u, name="triangles-corners"), fan.uniformly_refined(1))


@family_registry.register("triangles-lshape")
@dataclass(frozen=True)
class LShapeTriangles(Family):
    """- Laplace u = f on the L-shape with the corner's function and a Gaussian beside it."""

    kind: ClassVar[str] = "triangles"
    widths: Range = (0.08, 0.3)

    def sample(self, rng: np.random.Generator) -> Sample:
        corner = Corner(1.5 * math.pi, 0.0)
        centre = [(-0.5, 0.5), (-0.5, -0.5), (0.5, 0.5)][int(rng.integers(3))]
        peak = PlanePeaks((float(rng.uniform(0.3, 1.0)),), _log_draw(rng, self.widths, 1), (centre,))
        u = _Sum((corner, peak))
        return Sample(FEMProblem(peak.minus_laplacian, u, exact=u, name="triangles-lshape"), l_shape(2))


@dataclass(frozen=True)
class _Sum:
    parts: tuple[Any, ...]

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return sum(part(x, y) for part in self.parts)


@family_registry.register("triangles-layers")
@dataclass(frozen=True)
class LayerTriangles(Family):
    """- eps Laplace u + (1, 1) . grad u = f on the unit square: layers at two sides."""

    kind: ClassVar[str] = "triangles"
    widths: Range = (0.02, 0.08)

    def sample(self, rng: np.random.Generator) -> Sample:
        layer = Layer(_log_draw(rng, self.widths, 1)[0])
        problem = FEMProblem(
            _LayerSource(layer),
            0.0,
            layer.width,
            (1.0, 1.0),
            exact=_LayerProduct(layer),
            name="triangles-layers",
        )
        return Sample(problem, rectangle(4, 4))


@dataclass(frozen=True)
class _LayerSource:
    layer: Layer

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.layer(x) + self.layer(y)


@dataclass(frozen=True)
class _LayerProduct:
    layer: Layer

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.layer(x) * self.layer(y)


def _transport(u: Rotating, name: str) -> Sample:
    problem = AdvectionProblem((u.velocity_x, u.velocity_y), 0.0, 0.0, u, name)
    return Sample(problem, TreeMesh((0.0, 0.0), (1.0, 1.0), (4, 4)))


@family_registry.register("transport-bumps")
@dataclass(frozen=True)
class BumpTransport(Family):
    """Rotating Gaussians, one or two."""

    kind: ClassVar[str] = "transport"
    widths: Range = (0.04, 0.08)

    def sample(self, rng: np.random.Generator) -> Sample:
        count = int(rng.integers(1, 3))
        angle, radius = rng.uniform(0, 2 * math.pi, count), rng.uniform(0.1, 0.25, count)
        centres = 0.5 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        peaks = PlanePeaks(
            _draw(rng, (0.5, 1.5), count), _draw(rng, self.widths, count), tuple(map(tuple, centres.tolist()))
        )
        return _transport(Rotating(peaks, float(rng.choice([-1.0, 1.0]))), "transport-bumps")


@family_registry.register("transport-discs")
@dataclass(frozen=True)
class DiscTransport(Family):
    """Rotating discs with smooth edges."""

    kind: ClassVar[str] = "transport"
    steepness: Range = (20.0, 40.0)

    def sample(self, rng: np.random.Generator) -> Sample:
        angle, radius = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.2)
        centre = (0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle))
        disc = Disc(float(rng.uniform(0.08, 0.15)), float(rng.uniform(*self.steepness)), centre)
        return _transport(Rotating(disc, float(rng.choice([-1.0, 1.0]))), "transport-discs")


@dataclass(frozen=True)
class Disc:
    """(1 - tanh(k (|x - c| - r))) / 2.

    Attributes
    ----------
    radius, steepness : float
        r, k.
    centre : (float, float)
        c.
    """

    radius: float
    steepness: float
    centre: tuple[float, float]

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Evaluate."""
        distance = np.hypot(x - self.centre[0], y - self.centre[1])
        return 0.5 * (1 - np.tanh(self.steepness * (distance - self.radius)))
