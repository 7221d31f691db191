"""Windows of frames for PyTorch, read as fast as the disk gives them.

The frames of an uncompressed file lie in it as plain numbers, so a window is copied from a memory map,
without a call of the HDF5 library; that library is used to find where, once, and to read what is
compressed.
"""

import itertools
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from sciml.errors import ConfigError, DatasetFormatError
from sciml.registry import unknown_name

from .reader import Dataset, FieldsDataset, OdeDataset, PointsDataset, open_dataset, open_hdf5

__all__ = ["Windows"]

INHERITED: list[h5py.File] = []
"""Handles of a parent process: closing one here would release the parent's lock."""


@dataclass(frozen=True)
class _Field:
    """Where a field's frames lie: in chunks of ``rows`` trajectories times ``frames`` whole frames.

    ``offsets`` holds the chunks' places in the file, -1 for one that was never written; None if they
    must be read through the HDF5 library. ``shape`` has 1 for an axis along which the field is constant.
    """

    path: str
    dtype: np.dtype
    shape: tuple[int, ...]
    components: int
    sample_varying: bool
    time_varying: bool
    rows: int
    frames: int
    offsets: np.ndarray | None
    fill: float

    @classmethod
    def find(cls, dataset: h5py.Dataset, components: int, userblock: int) -> "_Field":
        attributes = dataset.attrs
        sample, time = bool(attributes["sample_varying"]), bool(attributes["time_varying"])
        kept = iter(dataset.shape[sample + time :])
        space = tuple(next(kept) if varies else 1 for varies in attributes.get("dim_varying", ()))
        leading = (dataset.shape[0] if sample else 1, dataset.shape[sample] if time else 1)
        rows, frames, offsets = _chunks(dataset, sample, time, leading)
        return cls(
            dataset.name,
            dataset.dtype,
            space,
            components,
            sample,
            time,
            rows,
            frames,
            None if userblock else offsets,
            float(dataset.fillvalue),
        )

    def copy(self, out: np.ndarray, data: mmap.mmap, row: int, start: int, stride: int) -> None:
        """Copy frames start, start + stride, ... of a mapped file into ``out``, (frames, *space, components)."""
        assert self.offsets is not None
        shape = (self.frames, *self.shape, self.components)
        row = row if self.sample_varying else 0
        block, inner = divmod(row, self.rows)
        count = int(np.prod(shape))
        skipped = inner * count * self.dtype.itemsize
        done, total = 0, len(out)
        while done < total:
            chunk, first = divmod(start + done * stride, self.frames)
            take = min(total - done, (self.frames - 1 - first) // stride + 1)
            offset = int(self.offsets[block, chunk])
            if offset < 0:
                out[done : done + take] = self.fill
            else:
                values = np.frombuffer(data, self.dtype, count, offset + skipped).reshape(shape)
                out[done : done + take] = values[first : first + (take - 1) * stride + 1 : stride]
            done += take

    def read(self, out: np.ndarray, source: Any, row: int, start: int, stride: int) -> None:
        """Copy frames out of a dataset or of an array of the same shape."""
        index: tuple[int | slice, ...] = (row,) if self.sample_varying else ()
        if self.time_varying:
            # HDF5 is slow at strided selections.
            index += (slice(start, start + (len(out) - 1) * stride + 1),)
        values = source[index]
        values = values[::stride] if self.time_varying else values
        out[:] = values.reshape(len(out), *self.shape, self.components)


def _channel_names(data: Dataset, name: str) -> list[str]:
    """Names of a field's components."""
    if isinstance(data, OdeDataset):
        return list(data.components)
    assert isinstance(data, FieldsDataset)
    rank = int(data[name].name.split("/")[1][1])
    suffixes = ("".join(letters) for letters in itertools.product(data.axes, repeat=rank))
    return [f"{name}_{suffix}" if suffix else name for suffix in suffixes]


def _chunks(
    dataset: h5py.Dataset, sample: bool, time: bool, leading: tuple[int, int]
) -> tuple[int, int, np.ndarray | None]:
    """Trajectories and frames per chunk, and the chunks' offsets, None if the numbers are not plain."""
    plan = dataset.id.get_create_plist()
    layout = plan.get_layout()
    if layout == h5py.h5d.CONTIGUOUS and not plan.get_external_count():
        offset = dataset.id.get_offset()
        return *leading, np.array([[-1 if offset is None else offset]])
    space = dataset.shape[sample + time :]
    if layout != h5py.h5d.CHUNKED or plan.get_nfilters() or dataset.chunks[sample + time :] != space:
        return *leading, None
    rows = dataset.chunks[0] if sample else 1
    frames = dataset.chunks[sample] if time else 1
    offsets = np.full((-(-leading[0] // rows), -(-leading[1] // frames)), -1)

    def note(chunk: Any) -> None:
        place = chunk.chunk_offset
        offsets[place[0] // rows if sample else 0, place[sample] // frames if time else 0] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return rows, frames, offsets


class Windows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Windows of consecutive frames of a dataset of any kind, ours or The Well's.

    Sample i is a trajectory and a start; starts vary fastest. There are B * (T - (n_in + n_out - 1) *
    stride) of them. A sample is a dict of float32 tensors, channels last: vectors and tensors are
    flattened, row-major. States of kind ``ode`` are channels without space.

    ``"input"`` (n_in, *space, C), ``"output"`` (n_out, *space, C)
        Time-varying fields.
    ``"constant"`` (*space, C')
        Fields without a time axis, if there are any.
    ``"scalars"`` (S)
        Parameters and the trajectory's scalars, if there are any; those that vary in time are left out.

    The file is opened in each process at its first read, never shared between processes, so any number
    of workers may read, however they were started.

    Parameters
    ----------
    path : path
        HDF5 file.
    n_in, n_out : int
        Frames.
    stride : int
        Distance of the frames of a window; 2 takes every other frame.
    rollout : bool
        One sample per trajectory: the first ``n_in`` frames and, as output, all that follow, without
        the given ones. ``n_out`` must be left at 1.
    in_memory : bool
        Read the whole file now and keep it. Forked workers share it; spawned ones get a copy each.
    fields : sequence of str, optional
        Which fields to read; all by default.

    Attributes
    ----------
    channels : tuple of str
        Of input and output, in the order of the file: ``u``, ``velocity_x``, ``stress_xy``; of kind
        ``ode`` the names of the states.
    constant_channels : tuple of str
    scalar_names : tuple of str
        In the order of the file: parameters, then the scalars that vary by trajectory.

    Raises
    ------
    ConfigError
        If a window is longer than a trajectory, a count is not a positive whole number, a switch is not a
        bool, a field is not known, or none that is chosen varies in time.
    DatasetFormatError
        If the file cannot be read, or is another one when a worker opens it.

    Examples
    --------
    >>> import os, tempfile
    >>> from sciml.datasets import save
    >>> from sciml.solvers import CartesianGrid, Disk, Poisson, solve
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "torsion.h5")
    >>> save(solve(Poisson(Disk(), -1.0), CartesianGrid.uniform(32)), path)
    >>> windows = Windows(path)
    >>> len(windows), windows.channels, windows.constant_channels
    (1, ('u',), ('f', 'mask'))
    >>> {name: tuple(values.shape) for name, values in windows[0].items()}
    {'input': (1, 33, 33, 1), 'output': (1, 33, 33, 1), 'constant': (33, 33, 2)}
    >>> windows.close(); folder.cleanup()
    """

    def __init__(
        self,
        path: str | Path,
        n_in: int = 1,
        n_out: int = 1,
        *,
        stride: int = 1,
        rollout: bool = False,
        in_memory: bool = False,
        fields: Sequence[str] | None = None,
    ) -> None:
        for name, value in (("n_in", n_in), ("n_out", n_out), ("stride", stride)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ConfigError(f"{name}={value!r}: give a whole number, at least 1")
        for name, switch in (("rollout", rollout), ("in_memory", in_memory)):
            if not isinstance(switch, bool):
                raise ConfigError(f"{name}={switch!r}: give True or False")
        listed = isinstance(fields, Sequence) and not isinstance(fields, str)
        if fields is not None and not (listed and all(isinstance(name, str) for name in fields)):
            raise ConfigError(f"fields={fields!r}: give a list of names, such as ['u']")
        if rollout and n_out != 1:
            raise ConfigError(f"n_out={n_out} with rollout: leave it out, the output is all that follows")
        self.path, self.n_in, self.n_out = Path(path), n_in, n_out
        self.stride, self.rollout = stride, rollout
        self._owner: int | None = None
        self._map: mmap.mmap | None = None
        self._file: h5py.File | None = None
        self._memory: dict[str, np.ndarray] = {}
        with open_dataset(path) as data:
            if isinstance(data, PointsDataset):
                raise ConfigError(
                    f"{str(path)!r} holds functions at points, without frames: read it as Samples"
                )
            self._stat = self._fingerprint()
            self._read_header(data, fields)
            if in_memory:
                chosen = [*self._varying, *self._constant]
                self._memory = {f.path: data.file[f.path][()].astype(np.float32) for f in chosen}
        self._starts = 1 if rollout else self._frames - (n_in + n_out - 1) * stride
        if rollout:
            self.n_out = (self._frames - 1) // stride + 1 - n_in
        if self._starts < 1 or self.n_out < 1:
            raise ConfigError(
                f"n_in={n_in}, n_out={n_out}, stride={stride}: {self.path.name} has {self._frames} frames, "
                "choose a shorter window"
            )

    def _read_header(self, data: Dataset, fields: Sequence[str] | None) -> None:
        known = list(data.fields)
        for name in fields or ():
            if name not in known:
                raise unknown_name(f"field of {self.path.name}", name, known)
        self._n, self._frames = data.n_trajectories, data.times.shape[-1]
        self._space = data.resolution if isinstance(data, FieldsDataset) else ()
        groups: dict[bool, list[_Field]] = {True: [], False: []}
        channels: dict[bool, list[str]] = {True: [], False: []}
        for name in known if fields is None else [name for name in known if name in fields]:
            names = _channel_names(data, name)
            field = _Field.find(data[name], len(names), data.file.userblock_size)
            groups[field.time_varying].append(field)
            channels[field.time_varying] += names
        self._varying, self._constant = groups[True], groups[False]
        if not self._varying:
            raise ConfigError(f"fields={fields}: none of {self.path.name} that is chosen varies in time")
        self.channels, self.constant_channels = tuple(channels[True]), tuple(channels[False])
        scalars = data.file["scalars"]
        numbers = {
            name: np.broadcast_to(scalars[name][()].astype(np.float32), (self._n,))
            for name in (str(name) for name in scalars.attrs["field_names"])
            if not scalars[name].attrs["time_varying"]
        }
        self.scalar_names = tuple(numbers)
        self._scalars = np.stack(list(numbers.values()), axis=1) if numbers else None

    def __len__(self) -> int:
        return self._n * self._starts

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        row, start = divmod(index % len(self), self._starts)
        self._open()
        frames = self._read(self._varying, row, start, self.n_in + self.n_out)
        sample = {
            "input": torch.from_numpy(frames[: self.n_in]),
            "output": torch.from_numpy(frames[self.n_in :]),
        }
        if self._constant:
            sample["constant"] = torch.from_numpy(self._read(self._constant, row, 0, 1)[0])
        if self._scalars is not None:
            sample["scalars"] = torch.tensor(self._scalars[row])
        return sample

    def _read(self, fields: list[_Field], row: int, start: int, count: int) -> np.ndarray:
        out = np.empty((count, *self._space, sum(field.components for field in fields)), np.float32)
        channel = 0
        for field in fields:
            part = out[..., channel : channel + field.components]
            if field.path in self._memory:
                field.read(part, self._memory[field.path], row, start, self.stride)
            elif field.offsets is not None:
                assert self._map is not None
                field.copy(part, self._map, row, start, self.stride)
            else:
                assert self._file is not None
                field.read(part, self._file[field.path], row, start, self.stride)
            channel += field.components
        return out

    def _fingerprint(self) -> tuple[int, int, int]:
        stat = self.path.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _open(self) -> None:
        """Open what the fields need, unless this process has done so."""
        if self._owner == os.getpid():
            return
        self.close()
        if not self._memory:
            if self._fingerprint() != self._stat:
                raise DatasetFormatError(f"{str(self.path)!r} has changed since it was opened: open it again")
            chosen = [*self._varying, *self._constant]
            if any(field.offsets is None for field in chosen):
                self._file = open_hdf5(self.path)
            if any(field.offsets is not None for field in chosen):
                with self.path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._owner = os.getpid()

    def close(self) -> None:
        """Close the file in this process; the next read opens it again."""
        if self._map is not None:
            self._map.close()
        if self._file is not None and self._owner == os.getpid():
            self._file.close()
        elif self._file is not None:
            INHERITED.append(self._file)
        self._map = self._file = self._owner = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None, "_file": None, "_owner": None}
