"""What all operators share: scalar normalisers, checks of their input, one file format."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError, DatasetFormatError
from sciml.provenance import jsonable
from sciml.registry import Registry

from .storage import load_tensors, save_tensors, stored_kind

__all__ = ["MODEL_FILE", "Operator", "operator_of", "operator_registry"]

MODEL_FILE = "model.safetensors"


class Operator(nn.Module):
    """A map between functions on a box, given on a grid.

    Physical values go in and come out: scalar normalisers, one mean and deviation per channel, are part of
    the model. A subclass sets ``config_type`` and implements `map_normalised`; `operator_registry` makes it
    known to files and to the command line.

    Parameters
    ----------
    in_channels, out_channels : int
        Of the input and of the output function.
    periodic : tuple of bool
        Which of the one to three axes are periodic.
    config : dataclass, optional
        The architecture, of type ``config_type``.
    **overrides
        Fields of it to replace.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    config_type: ClassVar[type]
    adds_to: int | None = None
    """The first of the input channels to which the output is added: of a model that learns increments."""
    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        periodic: tuple[bool, ...] = (False, False),
        config: Any = None,
        **overrides: object,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        for argument, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value < 1:
                raise ConfigError(f"{name} {argument}={value}: it must be at least 1")
        if not 1 <= len(periodic) <= 3:
            raise ConfigError(f"{name} periodic={periodic}: give one value for each of 1 to 3 axes")
        self.in_channels, self.out_channels, self.periodic = in_channels, out_channels, tuple(periodic)
        if config is not None and not isinstance(config, self.config_type):
            raise ConfigError(f"{name} config={config!r}: give a {self.config_type.__name__}")
        self.config: Any = replace(config or self.config_type(), **overrides)  # type: ignore[type-var]
        for part, channels in (("input", in_channels), ("output", out_channels)):
            self.register_buffer(f"{part}_mean", torch.zeros(channels))
            self.register_buffer(f"{part}_std", torch.ones(channels))

    def set_normalisers(self, inputs: Tensor | Sequence[Tensor], outputs: Tensor) -> None:
        """Set mean and deviation per channel from training data of shape (..., channels).

        Inputs may be several tensors, with the channels of one after those of the other.
        """
        parts = [inputs] if isinstance(inputs, Tensor) else inputs
        for name, values in (("input", parts), ("output", [outputs])):
            # Frames of one state are the same tensor again and again.
            known = {id(part): _moments(part) for part in values}
            means, deviations = zip(*(known[id(part)] for part in values), strict=True)
            getattr(self, f"{name}_mean").copy_(torch.cat(means))
            getattr(self, f"{name}_std").copy_(torch.cat(deviations))

    @property
    def axes(self) -> int:
        """Axes of the input between batch and channels: those of the box."""
        return len(self.periodic)

    def check_resolution(self, space: tuple[int, ...]) -> None:
        """Raise `ConfigError` if a grid is too coarse for the model."""
        raise NotImplementedError

    def map_normalised(self, a: Tensor) -> Tensor:
        """Map normalised input functions to normalised output functions, both channels last."""
        raise NotImplementedError

    def forward(self, a: Tensor) -> Tensor:
        """Map input functions (B, *space, in_channels) to output functions (B, *space, out_channels).

        Raises
        ------
        ConfigError
            If channels, axes or the precision do not fit, or the grid is too coarse.
        """
        if a.ndim != self.axes + 2 or a.shape[-1] != self.in_channels:
            raise ConfigError(
                f"{type(self).__name__} input of shape {tuple(a.shape)}: expected (batch, {self.axes} axes, "
                f"{self.in_channels} channels)"
            )
        if a.dtype != self.input_mean.dtype:
            raise ConfigError(
                f"{type(self).__name__} input of {a.dtype}, its weights are {self.input_mean.dtype}: convert the one "
                "(a.float()) or the other (model.double())"
            )
        self.check_resolution(tuple(a.shape[1:-1]))
        u = self.map_normalised((a - self.input_mean) / self.input_std) * self.output_std + self.output_mean
        return u if self.adds_to is None else u + a.narrow(-1, self.adds_to, self.out_channels)

    @property
    def parameter_count(self) -> int:
        """Learned real numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def save(self, path: str | Path, description: dict[str, Any] | None = None) -> None:
        """Write the model to one file, ``*.safetensors``, atomically.

        Parameters
        ----------
        path : path
        description : dict, optional
            JSON-ready facts to keep with it.
        """
        header = {
            "architecture": type(self).__name__,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "periodic": list(self.periodic),
            "adds_to": self.adds_to,
            "config": jsonable(self.config),
            **(description or {}),
        }
        save_tensors(path, self.state_dict(), "model", header)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model from its file or from a run folder, ready to be evaluated.

        ``Operator.load`` reads any architecture, a subclass its own.

        Raises
        ------
        DatasetFormatError
            If the file is missing, damaged, or of another architecture or version.

        Examples
        --------
        >>> from sciml.operators import FNO
        >>> model = FNO.load("runs/darcy")  # doctest: +SKIP
        """
        path = Path(path)
        if path.is_dir():
            path = path / MODEL_FILE
        tensors, header = load_tensors(path, "model")
        name = header.get("architecture")
        known = {operator_registry[n].__name__: operator_registry[n] for n in operator_registry}
        if name not in known:
            raise DatasetFormatError(f"{str(path)!r} holds a {name}, which this sciml does not know")
        if not issubclass(known[name], cls):
            raise DatasetFormatError(f"{str(path)!r} holds a {name}, not a {cls.__name__}: use {name}.load")
        config_type = known[name].config_type
        unknown = set(header["config"]) - {field.name for field in fields(config_type)}
        if unknown:
            raise DatasetFormatError(
                f"{str(path)!r}: {name} has no setting {', '.join(sorted(unknown))}: upgrade"
            )
        values = {n: tuple(v) if isinstance(v, list) else v for n, v in header["config"].items()}
        try:
            sizes = header["in_channels"], header["out_channels"], tuple(header["periodic"])
            model = known[name](*sizes, config_type(**values))
            model.load_state_dict(tensors)
            model.adds_to = header["adds_to"]
        except (TypeError, KeyError, RuntimeError, ConfigError) as error:
            # Of a long list of tensors the first.
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
            raise DatasetFormatError(
                f"{str(path)!r}: weights and architecture do not agree ({reason}): restore the file"
            ) from error
        return model.eval()  # type: ignore[return-value]


def kind_of(path: str | Path) -> str:
    """Return the kind of model in a run folder or file: "model" (an operator) or "dynamics"; "" if there is none."""
    path = Path(path)
    path = path / MODEL_FILE if path.is_dir() else path
    return stored_kind(path)


def unrepeated(values: Tensor, first: int = 0) -> Tensor:
    """Return a view in which what is only repeated along an axis, from the ``first`` on, is there once.

    Examples
    --------
    >>> unrepeated(torch.zeros(2, 1).expand(2, 1000)).shape
    torch.Size([2, 1])
    """
    once = (slice(0, 1) if step == 0 else slice(None) for step in values.stride()[first:])
    return values[(..., *once)]


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel, the latter 1 where there is none."""
    # Channels may be repeated, too, and are counted.
    once = unrepeated(values.movedim(-1, 0), first=1).movedim(0, -1)
    count = once[..., 0].numel()
    # Part by part: training data in double precision are a lot. Two passes, or digits would cancel.
    mean = sum(part.flatten(0, -2).double().sum(0) for part in once.split(64)) / count
    squares = sum(((part.flatten(0, -2).double() - mean) ** 2).sum(0) for part in once.split(64))
    deviation = (squares / max(count - 1, 1)).sqrt()
    return mean, torch.where(deviation > 0, deviation, 1.0)


operator_registry: Registry[type[Operator]] = Registry("operator")
"""Architectures by the name that the command line knows."""


def operator_of(config: object) -> type[Operator]:
    """Return the architecture that a configuration is of.

    Raises
    ------
    ConfigError
        If there is none.
    """
    for name in operator_registry:
        if operator_registry[name].config_type is type(config):
            return operator_registry[name]
    known = ", ".join(operator_registry[name].config_type.__name__ for name in operator_registry)
    raise ConfigError(f"model={config!r}: give a configuration of an operator, one of {known}")
