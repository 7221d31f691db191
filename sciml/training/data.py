"""Supervised pairs from datasets of kind ``fields``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.datasets import FieldsDataset
from sciml.errors import ConfigError

__all__ = ["Pairs", "load_pairs"]


@dataclass(frozen=True)
class Pairs:
    """Input and target functions on one grid, in memory.

    Attributes
    ----------
    inputs, targets : Tensor, float32, shape (n, *space, channels)
    mask : Tensor or None, shape (n, *space, 1)
        1 where targets are defined.
    spacing : tuple of float
        h per axis.
    periodic : tuple of bool
        Per axis.
    names : tuple of tuples of str
        Input and target fields.
    seeds : ndarray of int64 or None
        Of the trajectories.
    config : dict
        Recipe and parameters of what made them.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor | None
    spacing: tuple[float, ...]
    periodic: tuple[bool, ...]
    names: tuple[tuple[str, ...], tuple[str, ...]]
    seeds: np.ndarray | None
    config: dict[str, Any]

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def resolution(self) -> tuple[int, ...]:
        """Nodes per axis."""
        return tuple(self.inputs.shape[1:-1])

    def subset(self, rows: np.ndarray | slice) -> "Pairs":
        """Return some of the pairs."""
        seeds = None if self.seeds is None else self.seeds[rows]
        mask = None if self.mask is None else self.mask[rows]
        return Pairs(
            self.inputs[rows],
            self.targets[rows],
            mask,
            self.spacing,
            self.periodic,
            self.names,
            seeds,
            self.config,
        )


def load_pairs(path: str | Path, stride: int = 1) -> Pairs:
    """Read the learning task that a dataset declares.

    Parameters
    ----------
    path : path
        Dataset of a steady problem: constant input fields, last frame of the target fields.
    stride : int
        Use every ``stride``-th node along each axis.

    Raises
    ------
    ConfigError
        If the dataset declares no task, the stride does not fit, or values are not finite.
    DatasetFormatError
        If the file cannot be read.
    """
    with FieldsDataset(path) as data:
        if not (data.steady and data.inputs and data.targets):
            raise ConfigError(
                f"dataset {str(path)!r} declares no steady learning task (fields {', '.join(data.fields)}): "
                "use one whose recipe names input and target fields, such as darcy"
            )

        def stack(names: tuple[str, ...]) -> Tensor:
            arrays = []
            for name in names:
                values = data.read(name, stride)
                if not np.isfinite(values).all():
                    row = int(np.argwhere(~np.isfinite(values))[0, 0])
                    raise ConfigError(
                        f"field {name!r} of {str(path)!r} is not finite in trajectory {row}: generate the file again"
                    )
                space = values.shape[: 1 + len(data.axes)]
                arrays.append(torch.from_numpy(values.reshape(*space, -1)))
            return torch.cat(arrays, dim=-1).float()

        inputs, targets = stack(data.inputs), stack(data.targets)
        # Reading has checked that the stride leaves two nodes on every axis.
        spacing = tuple(float(x[stride] - x[0]) for x in data.axes.values())
        return Pairs(
            inputs,
            targets,
            stack((data.mask,)) if data.mask else None,
            spacing,
            data.periodic,
            (data.inputs, data.targets),
            data.seeds,
            data.config,
        )
