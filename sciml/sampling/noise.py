"""Gaussian noise that belongs to samples, not to batches."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError

__all__ = ["SampleNoise"]


@dataclass(frozen=True)
class SampleNoise:
    """Noise of sample ``first + i`` in row i, a function of (seed, sample, step) alone.

    A sample is the same whatever the batch it is in, the device, and the samples beside it. Each step is a stream of
    the counter-based generator Philox (Salmon et al., SC 2011), in which a sample has a place of its own; normal
    numbers are quantiles, as these use one number each.

    Parameters
    ----------
    seed : int
    first : int
        Number of the sample in row 0.

    Raises
    ------
    ConfigError
        If one of them is negative.

    Examples
    --------
    >>> both, second = (SampleNoise(3, first)(0, torch.zeros(2 - first, 4)) for first in (0, 1))
    >>> bool((both[1] == second[0]).all())
    True
    """

    seed: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63 or self.first < 0:
            raise ConfigError(
                f"seed={self.seed}, first={self.first}: they must not be negative, nor the seed 2**63"
            )

    def __call__(self, step: int, x: Tensor) -> Tensor:
        """Return noise like x for a step; -1 is that of the start."""
        size = math.prod(x.shape[1:])
        # A count of the generator gives four numbers.
        counts = -(-size // 4)
        stream = np.random.Philox(key=[self.seed, step + 1])
        stream.advance(self.first * counts)
        uniform = torch.from_numpy(np.random.Generator(stream).random((len(x), 4 * counts)))[:, :size]
        return torch.special.ndtri(uniform + 2.0**-54).view(x.shape).to(x.device, x.dtype)
