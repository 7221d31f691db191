"""What an agent sees of a cell: a few numbers, the same for every mesh size.

Refinement agents act on one cell at a time and see that cell, its neighbours, and the mean over the mesh: Foucart,
Charous and Lermusiaux, J. Comput. Phys. 491, 112381 (2023), section 2. Neighbours differ in number at hanging nodes and
between meshes, so their largest value and their mean stand for them. Observations know nothing of positions, signs and
sizes of the solution: they are the same for u, -u, c u and mirror images.
"""

from abc import ABC, abstractmethod

import numpy as np
from gymnasium import spaces

from sciml.registry import Registry

from .states import State

__all__ = ["Observation", "RawObservation", "RichObservation", "StandardObservation", "observation_registry"]

SMALLEST = 1e-12
LOW, HIGH = -1.0, 2.0

observation_registry: Registry[type["Observation"]] = Registry("observation")
"""Observations by name."""


class Observation(ABC):
    """A map from states to numbers for each cell."""

    names: tuple[str, ...]
    bounds: tuple[float, float] = (LOW, HIGH)

    def seeing(self, indicators: tuple[str, ...]) -> "Observation":
        """Return the same observation of an environment whose states have these indicators."""
        return self

    @property
    def space(self) -> spaces.Box:
        """Of the numbers of one cell."""
        return spaces.Box(*self.bounds, (len(self.names),), np.float32)

    def __call__(self, state: State, used: float) -> np.ndarray:
        """Return the observations of all cells, shape (N, len(names)), float32, within the space.

        Parameters
        ----------
        state : State
        used : float
            p, cells over budget.
        """
        seen = np.empty((len(state), len(self.names)), np.float32)
        for number, column in enumerate(self.columns(state, used)):
            seen[:, number] = column
        low, high = self.bounds
        return np.minimum(np.maximum(seen, low, out=seen), high, out=seen)

    @abstractmethod
    def columns(self, state: State, used: float) -> list[np.ndarray | float]:
        """Return one array, shape (N,), or number for each name."""


def scaled_log(x: np.ndarray | float) -> np.ndarray:
    """Return log10(max(x, 1e-12)) / 6 + 1: -1 of nothing, 1 of the size of the solution.

    Examples
    --------
    >>> scaled_log(np.array([0.0, 1e-6, 1.0])).tolist()
    [-1.0, 0.0, 1.0]
    """
    return np.log10(np.maximum(x, SMALLEST)) / 6 + 1


def largest_of_neighbours(state: State, values: np.ndarray) -> np.ndarray:
    """Return the largest value among each cell's neighbours, shape (N,); 0 of a cell without any."""
    if state.dim == 1:
        left, right = _beside(values)
        return np.maximum(left, right)
    found = np.zeros(len(state))
    a, b = state.pairs.T
    np.maximum.at(found, a, values[b])
    np.maximum.at(found, b, values[a])
    return found


def _beside(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values to the left and to the right on a line, 0 beyond its ends."""
    padded = np.zeros(len(values) + 2)
    padded[1:-1] = values
    return padded[:-2], padded[2:]


def mean_of_neighbours(state: State, values: np.ndarray) -> np.ndarray:
    """Return the mean over each cell's neighbours, shape (N,)."""
    if state.dim == 1:
        left, right = _beside(values)
        total = left + right
        total[1:-1] *= 0.5
        return total
    a, b = state.pairs.T
    ends = np.concatenate([a, b])
    total = np.bincount(ends, values[np.concatenate([b, a])], minlength=len(state))
    return total / np.maximum(np.bincount(ends, minlength=len(state)), 1)


@observation_registry.register("raw")
class RawObservation(Observation):
    """The published one: gamma of the cell and of its neighbours, the mean over the mesh, and p, as they are.

    Of an interval's cells both neighbours count (0 beyond the ends); elsewhere their largest value and their mean.
    """

    names = ("own", "first neighbour or largest", "second neighbour or mean", "mean", "used")
    bounds = (0.0, np.inf)

    def columns(self, state: State, used: float) -> list[np.ndarray | float]:
        gamma = state.nonconformity
        if state.dim == 1:
            around = _beside(gamma)
        else:
            around = largest_of_neighbours(state, gamma), mean_of_neighbours(state, gamma)
        return [gamma, *around, float(gamma.mean()), used]


@observation_registry.register("standard")
class StandardObservation(Observation):
    """The same in logarithms and relative to the size of the solution, with levels, and the drift to the worst side."""

    names = (
        "own",
        "largest neighbour",
        "mean neighbour",
        "mean",
        "own to mean",
        "level",
        "level step",
        "used",
        "drift",
    )

    def columns(self, state: State, used: float) -> list[np.ndarray | float]:
        gamma = state.nonconformity / max(state.deviation, 1e-300)
        sizes = np.empty((4, len(state)))
        sizes[:3] = gamma, largest_of_neighbours(state, gamma), mean_of_neighbours(state, gamma)
        sizes[3] = gamma.mean()
        logs, levels = scaled_log(sizes), state.levels.astype(float)
        return [
            *logs,
            # From sixths of a decade to thirds.
            2 * (logs[0] - logs[3]),
            levels / state.level_cap,
            largest_of_neighbours(state, levels) - levels,
            used,
            state.inflow_from_worst,
        ]


@observation_registry.register("rich")
class RichObservation(Observation):
    """Two rings of neighbours, and all indicators of a state relative to their root mean squares.

    Only relative sizes, so that an agent ranks cells; how many to refine follows from p.
    """

    kinds: tuple[str, ...]

    def __init__(self, kinds: tuple[str, ...] = ()) -> None:
        self.kinds = kinds
        each = ("own", "largest neighbour", "mean neighbour", "second ring", "to the mean")
        shared = ("level", "level step", "used", "drift")
        self.names = (*(f"{kind}: {part}" for kind in kinds for part in each), *shared)

    def seeing(self, indicators: tuple[str, ...]) -> "RichObservation":
        """Return the observation of those indicators that it was made for, or of all."""
        return self if self.kinds else RichObservation(indicators)

    def columns(self, state: State, used: float) -> list[np.ndarray | float]:
        found: list[np.ndarray | float] = []
        for kind in self.kinds:
            eta = state.indicators[kind]
            size = float(np.sqrt((eta**2).mean()))
            relative = eta / max(size, 1e-300)
            near = largest_of_neighbours(state, relative)
            parts = [relative, near, mean_of_neighbours(state, relative), largest_of_neighbours(state, near)]
            found += [np.log10(np.maximum(part, SMALLEST)) / 3 for part in parts]
            found.append(float(scaled_log(size / max(state.deviation, 1e-300))))
        levels = state.levels.astype(float)
        step = largest_of_neighbours(state, levels) - levels
        return [*found, levels / state.level_cap, step, used, state.inflow_from_worst]
