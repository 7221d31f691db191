"""What defines a training run."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sciml.errors import ConfigError

from .data import TaskName

__all__ = ["TrainConfig"]

CHOICES = {
    "task": get_args(TaskName),
    "loss": ("l2", "h1"),
    "schedule": ("onecycle", "cosine", "constant"),
    "precision": ("float32", "bfloat16"),
}


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
    spacetime: to the next n_out frames at once; step: any n_in frames to the next one, and so on from there;
    auto: steady or final, as the dataset is."""
    start: int = 0
    """The first frame that is used."""
    n_in: int = 1
    """Frames that are given, from there."""
    n_out: int = 0
    """Frames ahead; 0 goes to the last one."""
    inputs: tuple[str, ...] | None = None
    """Of clouds of points: fields that are given, in place of those that the dataset declares; none with no names."""
    code: bool = False
    """Of clouds of points: give every point the scalars that describe its sample, too."""
    n_train: int = 0
    """Training samples, from the start of the file; 0 takes all but the test and validation samples."""
    n_valid: int = 0
    """Validation samples, before the test samples: the weights with the smallest error on them are the result;
    0 takes the last weights."""
    n_test: int = 0
    """Test samples, from the end of the file; 0 takes a tenth."""
    epochs: int = 20
    """Passes over the training samples."""
    batch_size: int = 20
    """Samples per step, of each process."""
    loss: Literal["l2", "h1"] = "l2"
    """Relative error in L2, or in H1 (with derivatives from second-order differences, of task spacetime in time,
    too)."""
    physics: float = 0.0
    """Weight of the equation's relative residual (PINO); task spacetime of recipes on periodic boxes."""
    unroll: int = 1
    """Task step: steps in a row whose errors are averaged."""
    pushforward: bool = False
    """Task step: no gradients from one of the steps in a row to those before it (with unroll=2 the one-step and
    stability losses of Brandstetter et al., ICLR 2022, arXiv 2202.03376)."""
    noise: float = 0.0
    """Task step: deviation of Gaussian noise on the given frames, in units of each channel's own."""
    increments: bool = False
    """Task step: learn the change from the last frame to the next one."""
    symmetric: bool = False
    """Reflect and turn every batch at random: for problems of scalar fields that all reflections and
    exchanges of the axes leave the same, as Darcy flow on the square (not vorticity, whose sign changes)."""
    reflect: tuple[int, ...] = ()
    """Coordinates that every batch is reflected in at random: for problems of scalar fields that this leaves the
    same, as 0 does the elastic cell's and 1 the horizontal velocity in a pipe. Of clouds about the middle of the box,
    not with a code; of mapped grids, whose first inputs are the positions x, y, ..., with the nodes of that axis in
    reverse, if the position grows along it everywhere."""
    lr: float = 3e-3
    """Peak learning rate."""
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    """Of the learning rate: up over a fifth of the run and down to 0, down from the start, or constant."""
    weight_decay: float = 1e-4
    """Decoupled weight decay (AdamW)."""
    clip: float = 0.0
    """Largest norm of the gradient, longer ones are shortened to it; 0 leaves them."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, which is then tested and kept; 0 for none."""
    patience: int = 0
    """Stop after so many epochs in a row without a smaller validation error; 0 never does."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 computes all but the Fourier transforms in mixed precision, for GPUs."""
    seed: int = 0
    """Of the initial weights, the order of the samples, reflections and noise."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        for name in ("stride", "n_in", "epochs", "batch_size", "unroll"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: it must be at least 1")
        for name in (
            *("start", "n_out", "n_train", "n_valid", "n_test", "physics", "noise"),
            *("weight_decay", "clip", "patience", "seed"),
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)}: it must be finite and not negative")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r}: choose {', '.join(choices)}")
        if self.seed >= 2**63:
            raise ConfigError(f"seed={self.seed}: it must be below 2**63")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"lr={self.lr}: it must be positive and finite")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema={self.ema}: choose a decay from 0 to below 1, such as 0.99")
        if self.patience and not self.n_valid:
            raise ConfigError(f"patience={self.patience}: it needs validation samples, set n_valid")
        if self.task != "step":
            for name in ("unroll", "pushforward", "noise", "increments"):
                if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                    raise ConfigError(
                        f"{name}={getattr(self, name)}: it belongs to task='step', not to {self.task!r}"
                    )
        if self.physics and self.task != "spacetime":
            raise ConfigError(f"physics={self.physics}: it belongs to task='spacetime', not to {self.task!r}")
        if self.pushforward and self.unroll < 2:
            raise ConfigError(f"pushforward=True, unroll={self.unroll}: it needs two steps in a row at least")

    def split(self, n: int) -> tuple[slice, slice, slice]:
        """Return which of ``n`` samples train, which validate and which test."""
        n_test = self.n_test or max(n // 10, 1)
        held_out = self.n_valid + n_test
        n_train = self.n_train or n - held_out
        if n_train < 1 or n_train + held_out > n:
            raise ConfigError(
                f"n_train={n_train}, n_valid={self.n_valid} and n_test={n_test} need {n_train + held_out} samples, "
                f"the dataset has {n}: generate more, or ask for fewer"
            )
        return slice(0, n_train), slice(n - held_out, n - n_test), slice(n - n_test, n)
