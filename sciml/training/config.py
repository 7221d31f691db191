"""What defines a training run."""

import math
from dataclasses import dataclass

from sciml.errors import ConfigError

from .data import TaskName

__all__ = ["TrainConfig"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a supervised training run; with the dataset and the architecture they determine the weights.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    stride: int = 1
    """Train on every stride-th node: 2 turns 85 x 85 into 43 x 43."""
    task: TaskName = "auto"
    """steady: constant inputs to the solution; final: the first n_in frames to the n_out-th after them;
    spacetime: to the next n_out frames at once; auto: steady or final, as the dataset is."""
    n_in: int = 1
    """Frames that are given."""
    n_out: int = 0
    """Frames ahead; 0 goes to the last one."""
    n_train: int = 0
    """Training samples, from the start of the file; 0 takes all but the test samples."""
    n_test: int = 0
    """Test samples, from the end of the file; 0 takes a tenth."""
    epochs: int = 20
    """Passes over the training samples."""
    batch_size: int = 20
    """Samples per step."""
    lr: float = 3e-3
    """Peak learning rate of the one-cycle schedule."""
    weight_decay: float = 1e-4
    """Decoupled weight decay (AdamW)."""
    symmetric: bool = False
    """Reflect and turn every batch at random: for problems of scalar fields that all reflections and
    exchanges of the axes leave the same, as Darcy flow on the square."""
    seed: int = 0
    """Of the initial weights and of the order of the samples."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        for name in ("stride", "n_in", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: it must be at least 1")
        for name in ("n_out", "n_train", "n_test", "weight_decay", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)}: it must be finite and not negative")
        if self.seed >= 2**63:
            raise ConfigError(f"seed={self.seed}: it must be below 2**63")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"lr={self.lr}: it must be positive and finite")

    def split(self, n: int) -> tuple[slice, slice]:
        """Return which of ``n`` samples train and which test."""
        n_test = self.n_test or max(n // 10, 1)
        n_train = self.n_train or n - n_test
        if n_train < 1 or n_train + n_test > n:
            raise ConfigError(
                f"n_train={n_train} and n_test={n_test} need {n_train + n_test} samples, the dataset has {n}: "
                "generate more, or ask for fewer"
            )
        return slice(0, n_train), slice(n - n_test, n)
