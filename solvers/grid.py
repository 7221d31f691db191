"""Cartesian grids: where the nodes are, and how they are numbered.

Axis d runs from ``lower[d]`` to ``upper[d]`` in ``cells[d]`` intervals of length ``spacing[d]``.
A bounded axis has ``cells + 1`` nodes, both ends included; a periodic axis has ``cells`` nodes and
leaves out its right end, which is the same point as its left end.
"""

from dataclasses import dataclass

import numpy as np

from sciml.errors import ConfigError

__all__ = ["CartesianGrid"]


@dataclass(frozen=True)
class CartesianGrid:
    """A uniform grid on a box, in one to three dimensions.

    Parameters
    ----------
    lower, upper : tuple of float, length D
        Corners of the box.
    cells : tuple of int, length D
        Intervals per axis.
    periodic : tuple of bool, length D, optional
        Which axes are periodic; none by default.

    Raises
    ------
    ConfigError
        If the lengths differ, the box is empty or not finite, or an axis has no cell.

    Examples
    --------
    >>> grid = CartesianGrid.uniform(4, lower=(0.0, 0.0), upper=(1.0, 1.0))
    >>> grid.shape, grid.spacing
    ((5, 5), (0.25, 0.25))
    >>> grid.coordinates(np.array([[0, 4]]))
    array([[0., 1.]])
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    cells: tuple[int, ...]
    periodic: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", tuple(float(value) for value in self.lower))
        object.__setattr__(self, "upper", tuple(float(value) for value in self.upper))
        object.__setattr__(self, "cells", tuple(int(value) for value in self.cells))
        periodic = self.periodic or (False,) * len(self.cells)
        object.__setattr__(self, "periodic", tuple(bool(value) for value in periodic))
        lengths = {len(self.lower), len(self.upper), len(self.cells), len(self.periodic)}
        if len(lengths) != 1 or not 1 <= self.dim <= 3:
            raise ConfigError(
                f"grid with lower={self.lower}, upper={self.upper}, cells={self.cells}, "
                f"periodic={self.periodic}: give one value per axis, for 1 to 3 axes"
            )
        if not all(
            np.isfinite(a) and np.isfinite(b) and a < b for a, b in zip(self.lower, self.upper, strict=True)
        ):
            raise ConfigError(
                f"grid box from {self.lower} to {self.upper} is empty: each lower must be below upper"
            )
        if min(self.cells) < 1:
            raise ConfigError(f"grid cells={self.cells}: every axis needs at least one")

    @classmethod
    def uniform(
        cls,
        n: int,
        lower: tuple[float, ...] = (-0.5, -0.5),
        upper: tuple[float, ...] = (0.5, 0.5),
        periodic: bool = False,
    ) -> "CartesianGrid":
        """Return the grid with ``n`` cells along every axis of the box."""
        if isinstance(n, str) or n != int(n):
            raise ConfigError(f"n={n!r}: give a whole number of cells")
        if np.ndim(lower) != 1 or np.ndim(upper) != 1:
            raise ConfigError(f"lower={lower}, upper={upper}: give one value per axis, such as (0.0,)")
        dim = len(lower)
        return cls(lower, upper, (n,) * dim, (periodic,) * dim)

    @property
    def dim(self) -> int:
        """Number of axes, D."""
        return len(self.cells)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of nodes along each axis."""
        return tuple(n if p else n + 1 for n, p in zip(self.cells, self.periodic, strict=True))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring nodes along each axis, h."""
        return tuple((b - a) / n for a, b, n in zip(self.lower, self.upper, self.cells, strict=True))

    @property
    def axes(self) -> tuple[np.ndarray, ...]:
        """Coordinates of the nodes along each axis."""
        return tuple(
            a + h * np.arange(m) for a, h, m in zip(self.lower, self.spacing, self.shape, strict=True)
        )

    def nodes(self) -> np.ndarray:
        """Return all node positions, shape (*shape, D)."""
        return np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1)

    def coordinates(self, index: np.ndarray) -> np.ndarray:
        """Return the positions of nodes given by integer indices, shape (..., D) to (..., D)."""
        return np.asarray(self.lower) + np.asarray(self.spacing) * np.asarray(index)

    def index(self, points: np.ndarray) -> np.ndarray:
        """Return the indices of the nodes nearest to points, shape (..., D), clipped to the grid."""
        scaled = (np.asarray(points) - np.asarray(self.lower)) / np.asarray(self.spacing)
        nearest = np.rint(scaled).astype(int)
        for d, (n, periodic) in enumerate(zip(self.shape, self.periodic, strict=True)):
            nearest[..., d] = nearest[..., d] % n if periodic else np.clip(nearest[..., d], 0, n - 1)
        return nearest
