"""States of adaptive refinement: a mesh and the solution on it, as values that do not change.

A state is all that observations, rewards, policies and environments know of a solver. Refining returns another state;
its solution is computed when it is asked for, once.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

__all__ = ["COARSEN", "KEEP", "REFINE", "State"]

COARSEN, KEEP, REFINE = -1, 0, 1
"""What can be done to a cell."""


class State(ABC):
    """A mesh with a solution.

    Attributes
    ----------
    kind : str
        What is solved, as families call it.
    problem : problem of a family
    level_cap : int
        Cells of this level are not refined, whoever asks for it.
    dim : int
        Number of axes; of one, cells are in the order of the line.
    """

    kind: ClassVar[str]
    problem: Any
    level_cap: int
    dim: int = 2

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of cells, which budgets count."""

    @property
    @abstractmethod
    def unknowns(self) -> int:
        """Degrees of freedom of the solution, by which strategies are compared."""

    @property
    @abstractmethod
    def levels(self) -> np.ndarray:
        """How often each cell's root was refined, shape (N,)."""

    @abstractmethod
    def fresh(self) -> "State":
        """Return the same state with nothing computed yet: what was computed takes far more memory than the mesh."""

    @abstractmethod
    def refined(self, cells: np.ndarray) -> "State":
        """Return the state with cells, numbers of shape (m,), refined, and others as the mesh asks for."""

    @abstractmethod
    def coarsened(self, cells: np.ndarray) -> "State":
        """Return the state with those groups of siblings merged of which all are given, where the mesh permits it."""

    @property
    @abstractmethod
    def siblings(self) -> np.ndarray:
        """First cell of the group that coarsening a cell would merge, -1 where it would merge none, shape (N,)."""

    @property
    @abstractmethod
    def pairs(self) -> np.ndarray:
        """Cells that share a face, shape (F, 2)."""

    @property
    @abstractmethod
    def sizes(self) -> np.ndarray:
        """Lengths or areas of cells, shape (N,)."""

    @property
    @abstractmethod
    def centres(self) -> np.ndarray:
        """Shape (N, d)."""

    @property
    @abstractmethod
    def nonconformity(self) -> np.ndarray:
        """Mean jump of the solution, or of its gradient, over the boundary of each cell, shape (N,)."""

    @property
    @abstractmethod
    def indicators(self) -> dict[str, np.ndarray]:
        """Estimates of the error in each cell by name, shape (N,), whose squares add up."""

    @property
    @abstractmethod
    def deviation(self) -> float:
        """Root mean square of the solution less its mean: the size of what is to be resolved."""

    @property
    @abstractmethod
    def error(self) -> float:
        """Relative L2 error against the exact solution; for evaluation."""

    @property
    @abstractmethod
    def errors(self) -> np.ndarray:
        """L2 error in each cell against the exact solution, shape (N,); for oracles."""

    @abstractmethod
    def distance(self, other: "State") -> float:
        """Return the L1 norm of the difference of two solutions, on a common refinement."""

    @abstractmethod
    def plot(self, ax: Any) -> None:
        """Draw solution and mesh into matplotlib axes."""

    @abstractmethod
    def digest(self) -> str:
        """Return a hash of the mesh."""

    @cached_property
    def refinable(self) -> np.ndarray:
        """Whether a cell is below the level cap, shape (N,)."""
        return self.levels < self.level_cap

    @property
    def inflow_from_worst(self) -> np.ndarray | float:
        """How many cells the flow moves within a step out of the worst neighbour into a cell, shape (N,), or 0."""
        return 0.0

    def changed(self, cell: int, action: int) -> "State":
        """Return the state after an action on one cell; the same one where nothing can be done.

        Coarsening a cell merges it with its siblings.
        """
        if action == REFINE and self.levels[cell] < self.level_cap:
            return self.refined(np.array([cell]))
        if action == COARSEN and (first := self.siblings[cell]) >= 0:
            return self.coarsened(first + np.arange(self.family_size))
        return self

    def prospects(self, cell: int) -> "list[State]":
        """Return states to which refining a cell leads, the nearest first, by which it is to be judged."""
        return [self.changed(cell, REFINE)]

    @property
    @abstractmethod
    def family_size(self) -> int:
        """Number of siblings."""

    def acted(self, actions: np.ndarray) -> "State":
        """Return the state after actions on all cells, shape (N,): first coarsening, then refining.

        Siblings are merged where all of them agree.
        """
        refine = np.flatnonzero((actions == REFINE) & self.refinable)
        coarsen = np.flatnonzero(actions == COARSEN)
        if len(refine) and len(coarsen):
            # Both act on cells of this mesh: those that refine are found again by their midpoints.
            merged = self.coarsened(coarsen)
            return merged.refined(merged.find(self.centres[refine]))
        if len(refine):
            return self.refined(refine)
        return self.coarsened(coarsen) if len(coarsen) else self

    @abstractmethod
    def find(self, points: np.ndarray) -> np.ndarray:
        """Return the cell that holds each point, shape (m, d) to (m,)."""
