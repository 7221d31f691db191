"""Piecewise polynomials on trees: projection, evaluation, norms, and exact transfer between meshes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.errors import ConfigError
from sciml.solvers.functions import DataFunction, evaluate

from .reference import ReferenceCell, reference_cell
from .tree import MAX_LEVEL, TreeMesh

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TreeFunction", "overlay", "positions", "project", "transfer"]


def positions(mesh: TreeMesh, points: np.ndarray) -> np.ndarray:
    """Return where points of the unit cell, shape (Q, d), lie on each leaf, shape (N, Q, d)."""
    # The coordinates one after the other, as functions are called with them.
    return (mesh.origins.T[..., None] + mesh.sizes.T[..., None] * points.T[:, None]).transpose(1, 2, 0)


def project(
    function: DataFunction, mesh: TreeMesh, cell: ReferenceCell, name: str = "function"
) -> np.ndarray:
    """Return the coefficients of the L2 projection, shape (N, n), by p + 3 Gauss nodes per axis.

    Raises
    ------
    ConfigError
        If the function cannot be evaluated, or is not finite.

    Examples
    --------
    >>> mesh = TreeMesh((0.0,), (1.0,), (2,))
    >>> project(lambda x: x, mesh, reference_cell(1, 0)).round(12).tolist()
    [[0.25], [0.75]]
    """
    points = positions(mesh, cell.data_rule[0])
    values = evaluate(function, points.reshape(-1, mesh.dim), name)
    return values.reshape(len(mesh), -1) @ cell.data_moments.T


def transfer(coefficients: np.ndarray, old: TreeMesh, new: TreeMesh, cell: ReferenceCell) -> np.ndarray:
    """Return the L2 projection of a piecewise polynomial onto another tree of the same roots, shape (M, n).

    Exact where the new mesh is as fine; where it is coarser, children are averaged, which keeps integrals.
    """
    source = old.holding(new.codes)
    found, finer = coefficients[source], new.levels - old.levels[source]
    for left in range(int(finer.max()), 0, -1):
        (part,) = (finer >= left).nonzero()
        child = (new.codes[part] >> old.dim * (MAX_LEVEL + left - 1 - new.levels[part])) % old.children
        found[part] = (cell.children[child] @ found[part, :, None])[..., 0]
    if finer.min() < 0:
        found[finer < 0] = _merged(coefficients, old, new, cell)
    return found


def _merged(coefficients: np.ndarray, old: TreeMesh, new: TreeMesh, cell: ReferenceCell) -> np.ndarray:
    """Return the projection on those leaves of the new mesh that are coarser than the old one's there."""
    wanted = new.levels[new.holding(old.codes)]
    part = wanted < old.levels
    codes, levels, wanted, merged = (array[part] for array in (old.codes, old.levels, wanted, coefficients))
    for level in range(int(levels.max()), 0, -1):
        family = old.children << old.dim * (MAX_LEVEL - level)
        first = np.flatnonzero((levels == level) & (wanted < level) & (codes % family == 0))
        group = first[:, None] + np.arange(old.children)
        merged[first] = np.einsum("kji,gkj->gi", cell.children, merged[group]) / old.children
        levels[first] -= 1
        kept = np.ones(len(codes), dtype=bool)
        kept[group[:, 1:]] = False
        codes, levels, wanted, merged = (array[kept] for array in (codes, levels, wanted, merged))
    return merged


def overlay(first: TreeMesh, second: TreeMesh) -> TreeMesh:
    """Return the coarsest mesh that is as fine as both; its balance is theirs.

    Raises
    ------
    ConfigError
        If the roots differ.
    """
    if (first.lower, first.upper, first.roots) != (second.lower, second.upper, second.roots):
        raise ConfigError(
            "two meshes of other roots have no common refinement: start both from the same roots"
        )
    a = first.levels >= second.levels[second.holding(first.codes)]
    if a.all():
        return first
    b = second.levels > first.levels[first.holding(second.codes)]
    if b.sum() + a.sum() == len(second):
        return second
    codes = np.concatenate([first.codes[a], second.codes[b]])
    levels = np.concatenate([first.levels[a], second.levels[b]])
    order = np.argsort(codes)
    return TreeMesh(first.lower, first.upper, first.roots, first.periodic, levels[order], codes[order])


@dataclass(frozen=True, eq=False)
class TreeFunction:
    """A function that is a polynomial of degree p per axis on each leaf of a tree.

    Attributes
    ----------
    mesh : TreeMesh
    order : int
        Degree p.
    coefficients : ndarray, shape (N, n)
        Of the basis in `sciml.solvers.dg.reference`.

    Raises
    ------
    ConfigError
        If coefficients are of another shape.

    Examples
    --------
    >>> mesh = TreeMesh((0.0, 0.0), (1.0, 1.0), (2, 2)).refine([0])
    >>> u = TreeFunction.projected(lambda x, y: x * y**2, mesh, order=2)
    >>> bool(abs(u(np.array([[0.3, 0.5]])) - 0.3 * 0.25) < 1e-14), bool(abs(u.integral() - 1 / 6) < 1e-14)
    (True, True)
    """

    mesh: TreeMesh
    order: int
    coefficients: np.ndarray

    def __post_init__(self) -> None:
        wanted = len(self.mesh), self.cell.size
        if np.shape(self.coefficients) != wanted:
            raise ConfigError(
                f"coefficients have shape {np.shape(self.coefficients)}: give (leaves, polynomials) = {wanted}"
            )

    @property
    def cell(self) -> ReferenceCell:
        """Polynomials on the unit cell."""
        return reference_cell(self.mesh.dim, self.order)

    @classmethod
    def projected(cls, function: DataFunction, mesh: TreeMesh, order: int) -> "TreeFunction":
        """Return the L2 projection of a number or of a callable of one array per axis."""
        return cls(mesh, order, project(function, mesh, reference_cell(mesh.dim, order)))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return values at points, shape (..., d) to (...,); on a face those of the upper leaf.

        Raises
        ------
        GeometryError
            If a point is outside the domain.
        """
        points = np.asarray(points, dtype=float)
        leaf = self.mesh.find(points)
        local = (points - self.mesh.origins[leaf]) / self.mesh.sizes[leaf]
        return (self.cell.evaluate(local) * self.coefficients[leaf]).sum(axis=-1)

    def on(self, mesh: TreeMesh) -> "TreeFunction":
        """Return its L2 projection onto another tree of the same roots, exact where that one is as fine.

        Examples
        --------
        >>> coarse = TreeMesh((0.0,), (1.0,), (2,))
        >>> u = TreeFunction(coarse, 1, np.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> np.allclose(u.on(coarse.refine([0, 1])).on(coarse).coefficients, u.coefficients, atol=1e-14)
        True
        """
        if mesh is self.mesh:
            return self
        return TreeFunction(mesh, self.order, transfer(self.coefficients, self.mesh, mesh, self.cell))

    def integral(self) -> float:
        """Return the integral over the domain."""
        return float(self.mesh.volumes @ self.coefficients[:, 0])

    def distance(self, other: "TreeFunction") -> float:
        """Return the integral of |u - v|, v of the same degree on any tree of the same roots.

        By p + 3 Gauss nodes per axis of each half of a leaf: to about a percent where u - v changes its sign.
        """
        mesh = overlay(self.mesh, other.mesh)
        basis, weights = self.cell.children_rule
        values = (self.on(mesh).coefficients - other.on(mesh).coefficients) @ basis.T
        return float(mesh.volumes @ (np.abs(values) @ weights))

    def errors(self, exact: Callable) -> dict[str, float]:
        """Return norms of u - exact by p + 3 Gauss nodes per axis.

        Returns
        -------
        dict
            "l1", "l2", "linf" (at the nodes) and "relative_l2".
        """
        nodes, weights = self.cell.data_rule
        points = positions(self.mesh, nodes)
        values = evaluate(exact, points.reshape(-1, self.mesh.dim), "exact solution").reshape(
            points.shape[:2]
        )
        error = self.coefficients @ self.cell.data_values.T - values
        l2, size = (float(np.sqrt(self.mesh.volumes @ (v**2 @ weights))) for v in (error, values))
        return {
            "l1": float(self.mesh.volumes @ (np.abs(error) @ weights)),
            "l2": l2,
            "linf": float(np.abs(error).max()),
            "relative_l2": l2 / size if size else np.inf,
        }

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> "Axes":
        """Draw the function with the outlines of its leaves, of one axis as a curve with the ends of leaves.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Made if not given.
        **kwargs
            Passed on to ``plot`` or ``tripcolor``.
        """
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=(5, 4), layout="constrained")[1] if ax is None else ax
        steps = np.linspace(0, 1, max(self.order + 1, 2) + 2)
        local = np.stack(np.meshgrid(*[steps] * self.mesh.dim, indexing="ij"), axis=-1).reshape(
            -1, self.mesh.dim
        )
        points, values = positions(self.mesh, local), self.coefficients @ self.cell.evaluate(local).T
        if self.mesh.dim == 1:
            gap = np.full((len(self.mesh), 1), np.nan)
            x, y = (np.concatenate([part, gap], axis=1).ravel() for part in (points[..., 0], values))
            ax.plot(x, y, **kwargs)
            ends = np.append(self.mesh.origins[:, 0], self.mesh.upper)
            ax.plot(ends, np.full(len(ends), ax.get_ylim()[0]), "k|", clip_on=False)
            ax.set(xlabel="x", ylabel="u")
            return ax
        m = len(steps)
        corner = (np.arange(m - 1)[:, None] * m + np.arange(m - 1)).ravel()
        pair = np.stack(
            [corner, corner + m, corner + m + 1, corner, corner + m + 1, corner + 1], axis=1
        ).reshape(-1, 3)
        triangles = (pair + len(local) * np.arange(len(self.mesh))[:, None, None]).reshape(-1, 3)
        x, y = points.reshape(-1, 2).T
        options: dict[str, Any] = {"shading": "gouraud", "cmap": "viridis", **kwargs}
        image = ax.tripcolor(x, y, triangles, values.ravel(), **options)  # type: ignore[call-overload]
        ax.figure.colorbar(image, ax=ax, shrink=0.85)
        box = self.mesh.origins[:, None] + self.mesh.sizes[:, None] * [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
        lines = np.concatenate([box, np.full((len(self.mesh), 1, 2), np.nan)], axis=1).reshape(-1, 2)
        ax.plot(*lines.T, color="k", linewidth=0.4)
        ax.set(aspect="equal", xlabel="x", ylabel="y")
        return ax
