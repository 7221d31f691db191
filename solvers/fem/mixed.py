"""Incompressible solids and fluids by Taylor-Hood elements on quadrilaterals, and Newton's method.

Find a vector field u and a pressure p such that for all v and q

    int S(grad u, p) : grad v + int c(u, grad u) . v = int f . v + int t . v,      int g(grad u) q = 0,

with u given on the boundary but for its natural part, where the traction t = S n is. u is biquadratic and p bilinear
on quadrilaterals of nine nodes: third order in u and second in p and grad u, stable (Boffi, Brezzi and Fortin, Mixed
Finite Element Methods and Applications, Springer 2013, section 8.8).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import scipy.sparse as sp

from sciml.errors import ConfigError, ConvergenceError
from sciml.solvers.functions import DataFunction, evaluate
from sciml.solvers.legendre import gauss
from sciml.solvers.linear import DirectSolver

from .patterns import Pattern, pattern_of
from .quad_fields import MixedSolution
from .quads import QuadMesh, bilinear, biquadratic, quadratic, square_rule

__all__ = ["HyperElasticity", "IncompressibleFlow", "MixedProblem", "solve_mixed"]

Vector = tuple[DataFunction, DataFunction]
UNKNOWNS = 22  # of an element: nine nodes of two components, four vertices
ROUNDING = 1e-14  # A residual this small, relative to its terms, is as good as none.
CALM = 0.1  # A step this long, relative to the solution, shows that Newton's method has not found its way.


@dataclass(frozen=True)
class MixedProblem(ABC):
    """What is common to incompressible solids and fluids in the plane.

    Attributes
    ----------
    dirichlet : (float or callable, float or callable)
        u on the boundary but for its natural part.
    natural : callable, optional
        Whether the traction is given, of positions (x, y) of midpoints of element sides; nowhere by default. Then p
        keeps its value at rest at the first vertex.
    traction : (float or callable, float or callable)
        t on the natural part.
    force : (float or callable, float or callable)
        f.
    name : str

    Raises
    ------
    ConfigError
        If a vector has not two components, or a coefficient is out of its range.
    """

    dirichlet: Vector = (0.0, 0.0)
    natural: Callable | None = None
    traction: Vector = (0.0, 0.0)
    force: Vector = (0.0, 0.0)
    name: str = "mixed"

    def __post_init__(self) -> None:
        for label in ("dirichlet", "traction", "force"):
            value = getattr(self, label)
            if not isinstance(value, tuple) or len(value) != 2:
                raise ConfigError(f"{label}={value!r}: give a tuple of two components")

    @property
    @abstractmethod
    def stiffness(self) -> float:
        """The factor of grad u in S."""

    @property
    def rest_pressure(self) -> float:
        """p where nothing moves."""
        return 0.0

    @property
    def convects(self) -> bool:
        """Whether c is (grad u) u, otherwise 0."""
        return False

    @property
    def finite_strain(self) -> bool:
        """Whether g is det(1 + grad u) - 1, otherwise its linear part, div u."""
        return False

    @abstractmethod
    def stress(self, slopes: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Return S of du_i / dx_j at [..., i, j] and p."""

    @abstractmethod
    def constraint(self, slopes: np.ndarray) -> np.ndarray:
        """Return g."""

    @abstractmethod
    def constraint_slopes(self, slopes: np.ndarray) -> np.ndarray:
        """Return dg / d(grad u), which is - dS / dp, too."""

    @abstractmethod
    def easier(self) -> Self:
        """Return a problem whose solution is easier to find and not far away."""


@dataclass(frozen=True)
class HyperElasticity(MixedProblem):
    """An incompressible Rivlin-Saunders (Mooney-Rivlin) solid in plane strain.

    W = C1 (I1 - 3) + C2 (I2 - 3) with det F = 1, F = 1 + grad u, u the displacement. In plane strain I1 = I2, so that
    S = mu F - p cof F is the first Piola-Kirchhoff stress with the shear modulus mu = 2 (C1 + C2); f and t are per
    undeformed volume and area. The Cauchy stress is S F^T, and out of the plane mu - p.

    Attributes
    ----------
    c1, c2 : float
        Not negative, in units of stress, not both 0.
    """

    c1: float = 1.0
    c2: float = 0.0
    name: str = "hyper-elasticity"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.c1 >= 0 and self.c2 >= 0 and 0 < self.c1 + self.c2 < np.inf):
            raise ConfigError(f"c1={self.c1}, c2={self.c2}: they must not be negative, nor both 0")

    @property
    def stiffness(self) -> float:
        """The shear modulus mu."""
        return 2 * (self.c1 + self.c2)

    @property
    def rest_pressure(self) -> float:
        """p without load: mu."""
        return self.stiffness

    @property
    def finite_strain(self) -> bool:
        """It is."""
        return True

    def stress(self, slopes: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Return mu F - p cof F."""
        return self.stiffness * (np.eye(2) + slopes) - p[..., None, None] * self.constraint_slopes(slopes)

    def constraint(self, slopes: np.ndarray) -> np.ndarray:
        """Return det F - 1, without cancellation."""
        (a, b), (c, d) = np.moveaxis(slopes, (-2, -1), (0, 1))
        return a + d + a * d - b * c

    def constraint_slopes(self, slopes: np.ndarray) -> np.ndarray:
        """Return cof F."""
        (a, b), (c, d) = np.moveaxis(slopes, (-2, -1), (0, 1))
        return np.stack([np.stack([1 + d, -c], axis=-1), np.stack([-b, 1 + a], axis=-1)], axis=-2)

    def easier(self) -> "HyperElasticity":
        """Return the solid under half of the load."""
        dirichlet, traction, force = (
            _scaled(part, 0.5) for part in (self.dirichlet, self.traction, self.force)
        )
        return replace(self, dirichlet=dirichlet, traction=traction, force=force)

    def von_mises(self, slopes: np.ndarray) -> np.ndarray:
        """Return von Mises's equivalent of the Cauchy stress, of grad u, shape (..., 2, 2) to (...,)."""
        turned = np.swapaxes(slopes, -1, -2)
        # Less the stress mu - p out of the plane, which leaves the deviator as it is: mu (F F^T - 1).
        plane = self.stiffness * (slopes + turned + slopes @ turned)
        mean = (plane[..., 0, 0] + plane[..., 1, 1]) / 3
        first, second = plane[..., 0, 0] - mean, plane[..., 1, 1] - mean
        return np.sqrt(1.5 * (first**2 + second**2 + mean**2 + 2 * plane[..., 0, 1] ** 2))


@dataclass(frozen=True)
class IncompressibleFlow(MixedProblem):
    """Steady flow of an incompressible fluid: (u . grad) u - nu Laplace u + grad p = f, div u = 0.

    S = nu grad u - p: without traction a fluid leaves freely (Heywood, Rannacher and Turek, Int. J. Numer. Meth.
    Fluids 22, 1996).

    Attributes
    ----------
    viscosity : float
        nu > 0.
    inertia : bool
        Without it, Stokes's equations.
    """

    viscosity: float = 1.0
    inertia: bool = True
    name: str = "flow"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.viscosity < np.inf:
            raise ConfigError(f"viscosity={self.viscosity}: it must be positive and finite")

    @property
    def stiffness(self) -> float:
        """The viscosity nu."""
        return self.viscosity

    @property
    def convects(self) -> bool:
        """Whether there is inertia."""
        return self.inertia

    def stress(self, slopes: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Return nu grad u - p."""
        return self.viscosity * slopes - p[..., None, None] * np.eye(2)

    def constraint(self, slopes: np.ndarray) -> np.ndarray:
        """Return div u."""
        return np.trace(slopes, axis1=-2, axis2=-1)

    def constraint_slopes(self, slopes: np.ndarray) -> np.ndarray:
        """Return the identity."""
        return np.broadcast_to(np.eye(2), slopes.shape)

    def easier(self) -> "IncompressibleFlow":
        """Return the flow of twice the viscosity."""
        return replace(self, viscosity=2 * self.viscosity)


def _scaled(vector: Vector, factor: float) -> Vector:
    def scaled(part: DataFunction) -> DataFunction:
        return (lambda *position: factor * np.asarray(part(*position))) if callable(part) else factor * part

    return scaled(vector[0]), scaled(vector[1])


def solve_mixed(
    problem: MixedProblem,
    mesh: QuadMesh,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 12,
    continuation: int = 6,
) -> MixedSolution:
    """Return the solution on a mesh, by Newton's method.

    It begins with the linear problem of small u (Stokes flow). Where it does not converge, the solution of an easier
    problem (half the load, twice the viscosity) is found first, and so on.

    Parameters
    ----------
    problem : MixedProblem
    mesh : QuadMesh
    tolerance : float
        It ends with a step of this size relative to u; as steps become smaller quadratically, the error is about the
        square of it.
    max_iterations : int
        Steps for one problem.
    continuation : int
        Easier problems at most: load steps, or larger viscosities.

    Returns
    -------
    MixedSolution
        ``info`` has "iterations" (all linear systems), "continuation" (easier problems before) and "residual",
        relative to the sum of the absolute values of its terms.

    Raises
    ------
    ConfigError
        If data cannot be evaluated or are not finite.
    ConvergenceError
        If no solution is found.

    Examples
    --------
    >>> x = np.linspace(0, 1, 5)
    >>> mesh = QuadMesh.mapped(np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1))
    >>> inlet = lambda x, y: y * (1 - y), 0.0
    >>> channel = IncompressibleFlow(inlet, natural=lambda x, y: x == 1, viscosity=0.5)
    >>> flow = solve_mixed(channel, mesh)  # Poiseuille's: p falls by 2 nu.
    >>> round(float(flow.p.max() - flow.p.min()), 10), flow.info["continuation"]
    (1.0, 0)
    """
    iterations = 0
    for easier in range(continuation + 1):
        chain = [problem]
        for _ in range(easier):
            chain.append(chain[-1].easier())
        x: np.ndarray | None = None
        for stage in reversed(chain):
            x, steps, residual = _newton(_System(stage, mesh), x, tolerance, max_iterations)
            iterations += steps
            if x is None:
                break
        if x is not None:
            count = 2 * len(mesh.nodes)
            info = {"iterations": iterations, "continuation": easier, "residual": residual}
            return MixedSolution(mesh, problem, x[:count].reshape(-1, 2), problem.stiffness * x[count:], info)
    raise ConvergenceError(
        f"problem {problem.name!r} has no solution that Newton's method finds on {len(mesh)} elements, after "
        f"{continuation} easier ones: refine the mesh, or take less load or more viscosity"
    )


def _newton(
    system: "_System", x: np.ndarray | None, tolerance: float, max_iterations: int
) -> tuple[np.ndarray | None, int, float]:
    """Return the unknowns, None if they do not converge, steps and relative residual."""
    fresh = x is None
    x = system.start(x)
    free, size = system.pattern.free, np.inf
    for step in range(1, max_iterations + 1):
        residual, matrix, scale = system.linearised(x, convects=not (fresh and step == 1))
        error = _relative(residual[free], scale)
        if step > 1 and error <= ROUNDING:
            return x, step - 1, error
        try:
            change = -_solved(matrix, residual[free])
        except ConvergenceError:
            return None, step, np.inf
        x[free] += change
        size, before = system.displaced(x, free, change), size
        if not np.isfinite(size) or (step > 3 and size > CALM and size > 2 * before):
            return None, step, np.inf
        if size <= tolerance and not (fresh and step == 1 and system.problem.convects):
            residual, _, scale = system.linearised(x, matrix=False)
            return x, step, _relative(residual[free], scale)
    return None, max_iterations, np.inf


def _relative(residual: np.ndarray, scale: float) -> float:
    """The largest residual, relative to the size of its terms if there are any."""
    return float(np.abs(residual).max(initial=0.0) / (scale or 1.0))


def _solved(matrix: sp.csr_array, rhs: np.ndarray) -> np.ndarray:
    try:
        return DirectSolver(matrix, pivoting=0.0).solve(rhs)
    except ConvergenceError:
        # A pivot of the pressure may vanish before its nodes are eliminated: ten to sixty times as slow.
        return DirectSolver(matrix).solve(rhs)


@dataclass(eq=False)
class _System:
    """The discrete equations of a problem on a mesh, with its stiffness as the unit of stress.

    Unknowns are u by node and component, then p by vertex.
    """

    problem: MixedProblem
    mesh: QuadMesh
    pattern: Pattern = field(init=False)

    def __post_init__(self) -> None:
        problem, mesh = self.problem, self.mesh
        nodes, count = mesh.nodes, 2 * len(mesh.nodes)
        self.size = count + mesh.corners
        self.of_u = (2 * mesh.elements[:, :, None] + np.arange(2)).reshape(len(mesh), -1)
        self.unknowns = np.concatenate([self.of_u, count + mesh.vertices], axis=1)
        middle = nodes[mesh.sides[:, 1]]
        natural = np.zeros(len(middle), dtype=bool)
        if problem.natural is not None:
            natural[:] = problem.natural(*middle.T)
        self.at = np.unique(mesh.sides[~natural])
        fixed = np.zeros(self.size, dtype=bool)
        fixed[2 * self.at], fixed[2 * self.at + 1] = True, True
        if natural.all():
            raise ConfigError(
                f"problem {problem.name!r}: tractions are given everywhere, so that it can move freely; give u on a "
                "part of the boundary"
            )
        if not natural.any():
            fixed[count] = True
        self.pattern = pattern_of(self.unknowns.astype(np.int64).tobytes(), len(mesh), fixed.tobytes())
        self.values, self.weights = biquadratic(square_rule()[0])[0], mesh.weights
        self.pressures = bilinear(square_rule()[0])
        self.load = (self._force() + self._traction(mesh.sides[natural])) / problem.stiffness

    def _force(self) -> np.ndarray:
        """(f, v), shape (size,)."""
        found = np.zeros(self.size)
        for i, part in enumerate(self.problem.force):
            if callable(part) or part:
                points = self.mesh.points
                f = evaluate(part, points.reshape(-1, 2), "force").reshape(self.weights.shape)
                local = (f * self.weights) @ self.values
                found += np.bincount(2 * self.mesh.elements.ravel() + i, local.ravel(), minlength=self.size)
        return found

    def _traction(self, sides: np.ndarray) -> np.ndarray:
        """(t, v) on element sides, shape (size,)."""
        found = np.zeros(self.size)
        nodes, weights = gauss(4)
        values, slopes = quadratic(nodes)
        ends = self.mesh.nodes[sides]
        points, lengths = values @ ends, np.linalg.norm(slopes @ ends, axis=-1)
        for i, part in enumerate(self.problem.traction):
            if len(sides) and (callable(part) or part):
                t = evaluate(part, points.reshape(-1, 2), "traction").reshape(lengths.shape)
                local = (t * lengths * weights) @ values
                found += np.bincount(2 * sides.ravel() + i, local.ravel(), minlength=self.size)
        return found

    def start(self, x: np.ndarray | None) -> np.ndarray:
        """Return the given values, and at rest or as in x what is not given."""
        count = 2 * len(self.mesh.nodes)
        if x is None:
            x = np.zeros(self.size)
            x[count:] = self.problem.rest_pressure / self.problem.stiffness
        x = x.copy()
        for i, part in enumerate(self.problem.dirichlet):
            x[2 * self.at + i] = evaluate(part, self.mesh.nodes[self.at], "Dirichlet data")
        return x

    def displaced(self, x: np.ndarray, free: np.ndarray, change: np.ndarray) -> float:
        """Return how much u has changed, relative to itself."""
        count = 2 * len(self.mesh.nodes)
        size = float(np.linalg.norm(x[:count]))
        moved = float(np.linalg.norm(change[free < count]))
        return moved / size if size else moved

    def linearised(
        self, x: np.ndarray, convects: bool = True, matrix: bool = True
    ) -> tuple[np.ndarray, sp.csr_array, float]:
        """Return the residual, its derivative by the free unknowns, and the size of its terms."""
        mesh, problem, w, shape = self.mesh, self.problem, self.weights, self.values
        unit = problem.stiffness
        count, slopes_of = 2 * len(mesh.nodes), mesh.gradients
        u = x[:count].reshape(-1, 2)[mesh.elements]
        p = unit * (x[count:][mesh.vertices] @ self.pressures.T)
        slopes = np.swapaxes(u, 1, 2)[:, None] @ slopes_of
        flux, normal = problem.stress(slopes, p), problem.constraint_slopes(slopes)
        elements, nodes = len(mesh), shape.shape[1]
        # Test functions (a) come first, by quadrature node (q) and axis (j).
        along = slopes_of.transpose(0, 2, 1, 3).reshape(elements, nodes, -1)
        weighted = (w[..., None, None] * flux).transpose(0, 1, 3, 2).reshape(elements, -1, 2)
        of_u = along @ weighted
        carried = convects and problem.convects
        if carried:
            velocity = shape @ u
            of_u += shape.T @ (w[..., None] * (slopes @ velocity[..., None])[..., 0])
        of_u /= unit
        of_p = -(w * problem.constraint(slopes)) @ self.pressures
        local = np.concatenate([of_u.reshape(elements, -1), of_p], axis=1)
        flat = self.unknowns.ravel()
        residual = np.bincount(flat, local.ravel(), minlength=self.size) - self.load
        terms = np.bincount(flat, np.abs(local).ravel(), minlength=self.size) + np.abs(self.load)
        scale = float(terms[:count].max())
        if not matrix:
            return residual, sp.csr_array((0, 0)), scale
        block = np.zeros((elements, UNKNOWNS, UNKNOWNS))
        tangent = np.zeros((elements, nodes, 2, nodes, 2))
        stiff = along @ np.swapaxes(along * np.repeat(w, 2, axis=1)[:, None], 1, 2)
        if carried:
            rates = (slopes_of @ velocity[..., None])[..., 0]
            stiff += shape.T @ (w[..., None] / unit * rates)
            products = (shape[:, :, None] * shape[:, None, :]).reshape(len(shape), -1)
            growth = (
                np.swapaxes((w[..., None, None] / unit * slopes).reshape(elements, len(shape), 4), 1, 2)
                @ products
            )
            tangent += growth.reshape(elements, 2, 2, nodes, nodes).transpose(0, 3, 1, 4, 2)
        for i in range(2):
            tangent[:, :, i, :, i] += stiff
        if problem.finite_strain:
            x_part, y_part = slopes_of[..., 0] * (w * p / unit)[..., None], slopes_of[..., 1]
            turned = np.swapaxes(x_part, 1, 2) @ y_part
            turned = turned - np.swapaxes(turned, 1, 2)
            tangent[:, :, 0, :, 1] -= turned
            tangent[:, :, 1, :, 0] += turned
        pulled = slopes_of @ np.swapaxes(normal, -1, -2) * w[..., None, None]
        mixed = -np.swapaxes(pulled.reshape(elements, len(shape), -1), 1, 2) @ self.pressures
        block[:, :18, :18] = tangent.reshape(elements, 18, 18)
        block[:, :18, 18:], block[:, 18:, :18] = mixed, np.swapaxes(mixed, 1, 2)
        return residual, self.pattern.matrix(block), scale
