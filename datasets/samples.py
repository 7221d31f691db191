"""Samples of functions at points for PyTorch."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sciml.errors import DatasetFormatError
from sciml.registry import unknown_name

from .reader import PointsDataset
from .windows import INHERITED

__all__ = ["Samples"]


class Samples(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Samples of a dataset of kind ``points``, each with points of its own.

    A sample is a dict: "positions" (N, dim) and the fields, (N,) or (N, components), float32; the cells, "cells/<type>"
    (M, vertices), int64; and "code", the scalars that describe it, if there are any. As lengths differ, batches need a
    ``collate_fn``, or ``batch_size=None``.

    The file is opened in each process at its first read, so any number of workers may read, however they were started.

    Parameters
    ----------
    path : path
    fields : sequence of str, optional
        Which of positions, fields and cells to read; all by default.

    Raises
    ------
    ConfigError
        If a field is not known.
    DatasetFormatError
        If the file cannot be read, or is another one when a worker opens it.

    Examples
    --------
    >>> samples = Samples("elasticity.h5", ["positions", "stress"])  # doctest: +SKIP
    >>> samples[0]["stress"].shape  # doctest: +SKIP
    torch.Size([988])
    """

    def __init__(self, path: str | Path, fields: Sequence[str] | None = None) -> None:
        self.path = Path(path)
        self._data: PointsDataset | None = None
        self._owner: int | None = None
        with PointsDataset(path) as data:
            self._stat = self._fingerprint()
            self.fields = data.fields if fields is None else tuple(fields)
            for name in self.fields:
                if name not in data.fields:
                    raise unknown_name(f"field of {data.path.name}", name, list(data.fields))
            self._n = data.n_trajectories

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -self._n <= index < self._n:
            raise IndexError(f"sample {index} of {self._n}")
        data, row = self._opened(), index % self._n
        sample = {}
        for name in self.fields:
            values = torch.from_numpy(data.read(name, row))
            sample[name] = values.long() if name.startswith("cells/") else values.float()
        if data.code:
            sample["code"] = torch.tensor([float(data[name][row]) for name in data.code])
        return sample

    def _fingerprint(self) -> tuple[int, int, int]:
        stat = self.path.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _opened(self) -> PointsDataset:
        if self._data is None or self._owner != os.getpid():
            self.close()
            if self._fingerprint() != self._stat:
                raise DatasetFormatError(f"{str(self.path)!r} has changed since it was opened: open it again")
            self._data, self._owner = PointsDataset(self.path), os.getpid()
        return self._data

    def close(self) -> None:
        """Close the file in this process; the next read opens it again."""
        if self._data is not None and self._owner == os.getpid():
            self._data.close()
        elif self._data is not None:
            INHERITED.append(self._data.file)
        self._data = self._owner = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None, "_owner": None}
