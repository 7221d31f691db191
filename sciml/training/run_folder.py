"""The folder of a run: its settings, and the state from which it goes on.

``config.json`` comes first and says what the run is. ``checkpoint.safetensors`` holds weights, their moving
average, the best ones, the optimiser's moments and the place in the epoch; it is replaced as a whole. Random
draws are functions of seed, epoch, step and sample, so this is all there is to a run's state.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sciml.operators import Operator
from sciml.operators.base import MODEL_FILE
from sciml.operators.storage import load_tensors, save_tensors

__all__ = ["BEST_FILE", "STALE", "Progress", "load_checkpoint", "save_checkpoint"]

CHECKPOINT = "checkpoint.safetensors"
BEST_FILE = "best.safetensors"
# What a run and its evaluations leave. First what another run could go on from.
STALE = (
    CHECKPOINT,
    MODEL_FILE,
    BEST_FILE,
    "history.json",
    "report.html",
    "loss.png",
    "tensorboard/events.*",
    "samples.h5",
    "evaluation-*/*.json",
    "evaluation-*/*.html",
    "evaluation-*/*.png",
)

Average = dict[str, Tensor]


@dataclass
class Progress:
    """How far a run is.

    Attributes
    ----------
    history : list of dict
        One record per finished epoch.
    batch : int
        Steps done of the epoch in hand.
    summed : float
        Sum of the losses of its samples so far.
    seconds : float
        Spent on it so far.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    batch: int = 0
    summed: float = 0.0
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """The epoch in hand."""
        return len(self.history)

    def best(self) -> dict[str, float] | None:
        """Return the record with the smallest validation error, the first of equals; None without any."""
        validated = [record for record in self.history if "valid_relative_l2" in record]
        return min(validated, key=lambda record: record["valid_relative_l2"], default=None)

    def stopped(self, patience: int) -> bool:
        """Whether the validation error has not fallen for so many epochs."""
        best = self.best()
        return bool(patience and best and self.epoch - 1 - best["epoch"] >= patience)


def save_checkpoint(
    output: Path,
    model: Operator,
    average: Average,
    best: Average,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write the whole state of a run, atomically."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"average/{name}": tensor for name, tensor in average.items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    for name, parameter in model.named_parameters():
        tensors |= {f"optimiser/{name}/{key}": value for key, value in optimiser.state[parameter].items()}
    save_tensors(output / CHECKPOINT, tensors, "checkpoint", {"progress": vars(progress)})


def load_checkpoint(
    output: Path, model: Operator, average: Average, best: Average, optimiser: torch.optim.Optimizer
) -> Progress:
    """Read the state of a run into a model, its other weights and its optimiser; a run without one is at its start.

    Raises
    ------
    DatasetFormatError
        If the file is damaged or of another version.
    """
    path = output / CHECKPOINT
    if not path.exists():
        return Progress()
    tensors, header = load_tensors(path, "checkpoint")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "best": {}, "optimiser": {}}
    for name, tensor in tensors.items():
        part, key = name.split("/", 1)
        parts[part][key] = tensor
    model.load_state_dict(parts["model"])
    for part, weights in (("average", average), ("best", best)):
        for name, tensor in weights.items():
            tensor.copy_(parts[part][name])
    for name, parameter in model.named_parameters():
        prefix = f"{name}/"
        state = {
            key.removeprefix(prefix): value
            for key, value in parts["optimiser"].items()
            if key.startswith(prefix)
        }
        # AdamW keeps its step counters on the CPU, but where steps are one kernel.
        fused = optimiser.param_groups[0]["fused"]
        optimiser.state[parameter] = {
            key: value if key == "step" and not fused else value.to(parameter.device)
            for key, value in state.items()
        }
    return Progress(**header["progress"])
