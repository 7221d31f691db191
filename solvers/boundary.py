"""Boundary conditions.

A condition is linear in u: B u = g on the boundary. For a local polynomial p(xi) = sum_e c_e xi^e,
xi = (x - x_q) / h, `rows` gives the matrix of s B with respect to the c_e, with a factor s that makes
every row of order 1, such as h^k with k the order of derivatives in B; `scale` gives s and `data` gives g. That is all
that a method needs to know about a condition.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sciml.errors import ConfigError

from .domains import BoundaryPoints
from .functions import DataFunction, Expression, at_time, derivative, evaluate
from .polynomials import monomial_derivatives, monomials

__all__ = ["BoundaryCondition", "Dirichlet", "Mixed", "Neumann", "Robin", "WithNormal"]


class BoundaryCondition(ABC):
    """B u = g on the boundary."""

    @abstractmethod
    def data(self, boundary: BoundaryPoints) -> np.ndarray:
        """Evaluate g at m boundary points, shape (m,)."""

    @abstractmethod
    def rows(
        self, xi: np.ndarray, boundary: BoundaryPoints, exponents: np.ndarray, spacing: np.ndarray
    ) -> np.ndarray:
        """Return s B applied to the monomials, shape (m, N), with s of `scale` for the smallest spacing h.

        Parameters
        ----------
        xi : ndarray, shape (m, D)
            Scaled positions of the boundary points.
        boundary : BoundaryPoints
            The same points with their normals and pieces.
        exponents : ndarray of int, shape (N, D)
        spacing : ndarray, shape (D,)
        """

    @abstractmethod
    def scale(self, boundary: BoundaryPoints, h: float) -> np.ndarray:
        """Return the factor s at each boundary point, shape (m,)."""

    @abstractmethod
    def of_exact(self, exact: Expression, dim: int) -> "BoundaryCondition":
        """Return the same kind of condition with the data of an exact solution."""

    def check(self, boundary: BoundaryPoints) -> None:  # noqa: B027 - most conditions fit every boundary
        """Refuse to be used on a boundary, of which points at the grid's spacing are given.

        Raises
        ------
        ConfigError
            If parts do not exist on it.
        """

    @abstractmethod
    def at(self, time: float, dim: int) -> "BoundaryCondition":
        """Return the condition with its data, functions ``g(x, y, t)``, at one time."""

    @property
    def annihilates_constants(self) -> bool:
        """Whether B 1 = 0 everywhere."""
        return False


@dataclass(frozen=True)
class Dirichlet(BoundaryCondition):
    """u = g on the boundary.

    Parameters
    ----------
    value : float or callable
        g, a constant or a function ``g(x, y)`` of position.

    Examples
    --------
    >>> from sciml.solvers import Disk
    >>> Dirichlet(lambda x, y: x).data(Disk(2.0).closest_point(np.array([[1.0, 0.0]])))
    array([2.])
    """

    value: DataFunction = 0.0

    def data(self, boundary: BoundaryPoints) -> np.ndarray:
        """Evaluate g."""
        return evaluate(self.value, boundary.points, "Dirichlet data")

    def rows(
        self, xi: np.ndarray, boundary: BoundaryPoints, exponents: np.ndarray, spacing: np.ndarray
    ) -> np.ndarray:
        """Return the monomials."""
        return monomials(xi, exponents)

    def scale(self, boundary: BoundaryPoints, h: float) -> np.ndarray:
        """Return ones: no derivative."""
        return np.ones(len(boundary.points))

    def of_exact(self, exact: Expression, dim: int) -> "Dirichlet":
        """Return u = exact."""
        return Dirichlet(exact)

    def at(self, time: float, dim: int) -> "Dirichlet":
        """Return u = g(., time)."""
        return Dirichlet(at_time(self.value, time, dim))


@dataclass(frozen=True)
class Robin(BoundaryCondition):
    """alpha u + n . grad u = g on the boundary, n the outward unit normal.

    Parameters
    ----------
    alpha, value : float or callable
        alpha and g. Functions of position; ``value`` may also take the normal, ``g(x, y, nx, ny)``,
        when it is wrapped in `WithNormal`.

    Examples
    --------
    >>> from sciml.solvers import Disk
    >>> Robin(2.0, 1.0).data(Disk(2.0).closest_point(np.array([[1.0, 0.0]])))
    array([1.])
    """

    alpha: DataFunction = 1.0
    value: "DataFunction | WithNormal" = 0.0

    def data(self, boundary: BoundaryPoints) -> np.ndarray:
        """Evaluate g."""
        name = f"{type(self).__name__} data"
        if isinstance(self.value, WithNormal):
            flat = np.concatenate([boundary.points, boundary.normals], axis=1)
            return evaluate(self.value.function, flat, name)
        return evaluate(self.value, boundary.points, name)

    def rows(
        self, xi: np.ndarray, boundary: BoundaryPoints, exponents: np.ndarray, spacing: np.ndarray
    ) -> np.ndarray:
        """Return h (alpha p + n . grad p) / (1 + h |alpha|) of the monomials p, of order 1 for any alpha."""
        h = spacing.min()
        derivatives = monomial_derivatives(xi, exponents)
        rows = np.einsum("md,mdn->mn", h * boundary.normals / spacing, derivatives)
        alpha = evaluate(self.alpha, boundary.points, "Robin alpha")
        if alpha.any():
            rows += h * alpha[:, None] * monomials(xi, exponents)
            rows /= 1 + h * np.abs(alpha[:, None])
        return rows

    def scale(self, boundary: BoundaryPoints, h: float) -> np.ndarray:
        """Return h / (1 + h |alpha|)."""
        return h / (1 + h * np.abs(evaluate(self.alpha, boundary.points, "Robin alpha")))

    def of_exact(self, exact: Expression, dim: int) -> "Robin":
        """Return the condition whose data are alpha exact + n . grad exact."""
        return Robin(self.alpha, WithNormal(_RobinData(exact, self.alpha, dim)))

    def at(self, time: float, dim: int) -> "Robin":
        """Return the condition with the data g(., time)."""
        if isinstance(self.value, WithNormal):
            return Robin(self.alpha, WithNormal(at_time(self.value.function, time, dim, 2 * dim)))
        return Robin(self.alpha, at_time(self.value, time, dim))

    @property
    def annihilates_constants(self) -> bool:
        """Whether B 1 = 0 for certain: alpha is the number zero."""
        return not callable(self.alpha) and self.alpha == 0


class Neumann(Robin):
    """n . grad u = g on the boundary, n the outward unit normal.

    Parameters
    ----------
    value : float or callable
        g, a constant, a function of position, or a `WithNormal`.

    Examples
    --------
    >>> from sciml.solvers import Disk
    >>> Neumann(WithNormal(lambda x, y, nx, ny: nx)).data(Disk().closest_point(np.array([[0.1, 0.0]])))
    array([1.])
    """

    def __init__(self, value: "DataFunction | WithNormal" = 0.0) -> None:
        super().__init__(0.0, value)

    def at(self, time: float, dim: int) -> "Neumann":
        """Return the condition with the data g(., time)."""
        return Neumann(super().at(time, dim).value)

    def __reduce__(self) -> tuple:
        return (Neumann, (self.value,))

    def __repr__(self) -> str:
        return f"Neumann(value={self.value!r})"

    def of_exact(self, exact: Expression, dim: int) -> "Neumann":
        """Return the condition whose data are n . grad exact."""
        return Neumann(WithNormal(_RobinData(exact, 0.0, dim)))


@dataclass(frozen=True)
class WithNormal:
    """Boundary data that depend on the outward normal: ``function(x, y, nx, ny)``."""

    function: Callable[..., np.ndarray]


class _RobinData:
    """alpha u + n . grad u of an exact solution, as a function of position and normal."""

    def __init__(self, exact: Expression, alpha: DataFunction, dim: int) -> None:
        self.exact, self.alpha, self.dim = exact, alpha, dim
        self.gradient = [derivative(exact, axis, dim) for axis in range(dim)]

    @property
    def takes_time(self) -> bool:
        """Whether the exact solution does."""
        return self.exact.takes_time

    def __call__(self, *arguments: np.ndarray) -> np.ndarray:
        # Position, time if there is one, normal.
        where, normal = arguments[: -self.dim], arguments[-self.dim :]
        alpha = self.alpha(*where[: self.dim]) if callable(self.alpha) else self.alpha
        flux = sum(n * d(*where) for n, d in zip(normal, self.gradient, strict=True))  # type: ignore[operator]
        return alpha * self.exact(*where) + flux

    def __repr__(self) -> str:
        return f"(alpha={self.alpha!r}) * u + du/dn, u={self.exact!r}"


@dataclass(frozen=True)
class Mixed(BoundaryCondition):
    """Different conditions on different parts of the boundary.

    Parameters
    ----------
    parts : tuple of pairs (where, condition)
        ``where`` is the index of a piece of the boundary (`BoundaryPoints.piece`), or a function
        ``where(x, y)`` that is true on the part. The first that holds counts. Pieces are numbered in
        the order of a domain's arcs or faces; those of set operations begin with the left operand's.
    otherwise : BoundaryCondition
        On the rest.

    Examples
    --------
    >>> from sciml.solvers import Box
    >>> insulated_sides = Mixed(((1, Neumann()), (3, Neumann())), Dirichlet(lambda x, y: y))
    >>> insulated_sides.data(Box().closest_point(np.array([[0.3, 0.0], [0.0, -0.3]])))
    array([ 0. , -0.4])
    """

    parts: tuple[tuple[int | Callable, BoundaryCondition], ...]
    otherwise: BoundaryCondition = Dirichlet()

    def __post_init__(self) -> None:
        for part in self.parts:
            if not (isinstance(part, tuple) and len(part) == 2 and isinstance(part[1], BoundaryCondition)):
                raise ConfigError(f"Mixed part {part!r}: give tuples of pairs (where, condition)")

    def _split(self, boundary: BoundaryPoints) -> list[tuple[np.ndarray, BoundaryCondition, BoundaryPoints]]:
        """Positions in the arrays, condition and boundary points of every part."""
        free = np.ones(len(boundary.points), dtype=bool)
        found = []
        for where, condition in self.parts:
            if callable(where):
                chosen = np.asarray(where(*boundary.points.T))
                if chosen.shape != free.shape or chosen.dtype != bool:
                    raise ConfigError(
                        f"Mixed part {where} returned {chosen.dtype} of shape {chosen.shape} for "
                        f"{len(free)} points: return one truth value per point"
                    )
            else:
                chosen = boundary.piece == where
            found.append((chosen & free, condition))
            free &= ~chosen
        found.append((free, self.otherwise))
        return [(np.flatnonzero(chosen), condition, boundary[chosen]) for chosen, condition in found]

    def data(self, boundary: BoundaryPoints) -> np.ndarray:
        """Evaluate the data of each part."""
        result = np.zeros(len(boundary.points))
        for chosen, condition, points in self._split(boundary):
            result[chosen] = condition.data(points) if len(chosen) else 0.0
        return result

    def rows(
        self, xi: np.ndarray, boundary: BoundaryPoints, exponents: np.ndarray, spacing: np.ndarray
    ) -> np.ndarray:
        """Return the rows of each part."""
        result = np.zeros((len(xi), len(exponents)))
        for chosen, condition, points in self._split(boundary):
            if len(chosen):
                result[chosen] = condition.rows(xi[chosen], points, exponents, spacing)
        return result

    def scale(self, boundary: BoundaryPoints, h: float) -> np.ndarray:
        """Return the factors of each part."""
        result = np.ones(len(boundary.points))
        for chosen, condition, points in self._split(boundary):
            result[chosen] = condition.scale(points, h)
        return result

    def of_exact(self, exact: Expression, dim: int) -> "Mixed":
        """Return the same parts with the data of an exact solution."""
        parts = tuple((where, condition.of_exact(exact, dim)) for where, condition in self.parts)
        return Mixed(parts, self.otherwise.of_exact(exact, dim))

    def check(self, boundary: BoundaryPoints) -> None:
        """Refuse parts that hold nowhere."""
        for (chosen, _, _), (where, _) in zip(self._split(boundary), self.parts, strict=False):
            if len(chosen) == 0:
                pieces = sorted(set(boundary.piece.tolist()))
                raise ConfigError(
                    f"Mixed part {where} holds nowhere on the boundary, or where earlier ones hold: its pieces are "
                    f"{pieces}, from {boundary.points.min(axis=0).tolist()} to {boundary.points.max(axis=0).tolist()}"
                )

    def at(self, time: float, dim: int) -> "Mixed":
        """Return the same parts with their data at one time."""
        parts = tuple((where, condition.at(time, dim)) for where, condition in self.parts)
        return Mixed(parts, self.otherwise.at(time, dim))

    @property
    def annihilates_constants(self) -> bool:
        """Whether all parts do."""
        conditions = [condition for _, condition in self.parts] + [self.otherwise]
        return all(condition.annihilates_constants for condition in conditions)
