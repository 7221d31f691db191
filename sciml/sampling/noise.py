"""Gaussian noise that belongs to samples, not to batches."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["SampleNoise"]


@dataclass(frozen=True)
class SampleNoise:
    """Noise of sample ``first + i`` in row i, drawn from (seed, sample, step) alone.

    A sample is the same whatever the batch it is in, the device, and the samples beside it.

    Parameters
    ----------
    seed : int
    first : int
        Number of the sample in row 0.

    Examples
    --------
    >>> both, second = (SampleNoise(3, first)(0, torch.zeros(2 - first, 4)) for first in (0, 1))
    >>> bool((both[1] == second[0]).all())
    True
    """

    seed: int = 0
    first: int = 0

    def __call__(self, step: int, x: Tensor) -> Tensor:
        """Return noise like x for a step; -1 is that of the start."""
        kind = np.float64 if x.dtype == torch.float64 else np.float32
        rows = [
            np.random.default_rng([self.seed, self.first + row, step + 1]).standard_normal(x.shape[1:], kind)
            for row in range(len(x))
        ]
        return torch.from_numpy(np.stack(rows)).to(x.device, x.dtype)
