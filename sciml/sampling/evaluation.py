"""A model's output, as a solver wants it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError

from .parametrisations import Parametrisation, check_parametrisation, to_data, to_noise
from .schedules import Level, Schedule

__all__ = ["DataHook", "Evaluation", "Model", "like"]

Model = Callable[[Tensor, Tensor], Tensor]
"""From states (B, ...) and times or labels (B,) to an output like the states."""
DataHook = Callable[[Tensor, Tensor, Level], Tensor]
"""From predicted data, the state and its level to the data in their place."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Data or noise from a model's output of any parametrisation, with a hook on the data.

    Raises
    ------
    ConfigError
        If the parametrisation is not known, or has no meaning for the schedule.
    """

    model: Model
    schedule: Schedule
    form: str
    prediction: Parametrisation
    label: Callable[[float], float] | None = None
    data_hook: DataHook | None = None

    def __post_init__(self) -> None:
        check_parametrisation(self.prediction, self.schedule)

    def labels(self, levels: list[Level], x: Tensor) -> Tensor:
        """Return what the model gets for the time at levels, shape (levels, B)."""
        values = [level.t if self.label is None else float(self.label(level.t)) for level in levels]
        # Half precision cannot tell 999 from 1000.
        dtype = torch.promote_types(x.dtype, torch.float32)
        return torch.tensor(values, dtype=dtype, device=x.device)[:, None].repeat(1, len(x))

    def __call__(self, x: Tensor, level: Level, label: Tensor) -> Tensor:
        """Evaluate at states x of one level, label of shape (B,)."""
        a, b = self.conversion(level)
        return torch.mul(self.output(x, level, label), b).add_(x, alpha=a)

    def conversion(self, level: Level) -> tuple[float, float]:
        """Return (a, b) such that the result is a x + b `output`."""
        prediction = self.prediction if self.data_hook is None else "data"
        return (to_data if self.form == "data" else to_noise)(prediction, level)

    def output(self, x: Tensor, level: Level, label: Tensor) -> Tensor:
        """Return what the model does, or behind a hook on the data what that returns."""
        output = like(self.model(x, label), x, "the model")
        if self.data_hook is None:
            return output
        a, b = to_data(self.prediction, level)
        return like(self.data_hook((a * x).add_(output, alpha=b), x, level), x, "data_hook")


def like(result: object, x: Tensor, source: str) -> Tensor:
    """Return what a user's function gave for states, if it is of their shape.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if not isinstance(result, Tensor) or result.shape != x.shape or result.is_complex():
        found = (
            f"{result.dtype}, {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        )
        raise ConfigError(
            f"{source} returned {found} for states of {x.dtype}, {tuple(x.shape)}: it must return a tensor like them"
        )
    return result
