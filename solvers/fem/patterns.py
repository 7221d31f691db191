"""Sums of element matrices with the rows and columns of given unknowns left out."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse as sp

__all__ = ["Pattern", "pattern_of"]


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where element matrices go: ``free`` unknowns, the places of ``kept`` entries, and rows of the sum as of CSR."""

    free: np.ndarray
    places: np.ndarray
    kept: np.ndarray
    indices: np.ndarray
    starts: np.ndarray

    def matrix(self, local: np.ndarray) -> sp.csr_array:
        """Sum element matrices, shape (E, k, k)."""
        data = np.bincount(self.places, local.reshape(-1)[self.kept], minlength=len(self.indices))
        return sp.csr_array((data, self.indices, self.starts), shape=(len(self.free),) * 2)


@lru_cache(maxsize=4)
def pattern_of(unknowns: bytes, elements: int, given: bytes) -> Pattern:
    """Return the pattern of the unknowns of elements, int64, and of which are given, bool; the last four are kept."""
    numbers = np.frombuffer(unknowns, dtype=np.int64).reshape(elements, -1)
    fixed, size = np.frombuffer(given, dtype=bool), numbers.shape[1]
    free = np.flatnonzero(~fixed)
    number = np.full(len(fixed), -1)
    number[free] = np.arange(len(free))
    local = number[numbers]
    rows, columns = np.repeat(local, size, axis=1).ravel(), np.tile(local, (1, size)).ravel()
    kept = np.flatnonzero((rows >= 0) & (columns >= 0))
    entries, places = np.unique(rows[kept] * len(free) + columns[kept], return_inverse=True)
    rows, columns = np.divmod(entries, len(free))
    return Pattern(free, places, kept, columns, np.searchsorted(rows, np.arange(len(free) + 1)))
