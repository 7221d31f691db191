"""Opening datasets, and saying clearly why one cannot be opened."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from sciml.errors import ConfigError, DatasetFormatError
from sciml.registry import unknown_name

from .fields import FORMAT_VERSION, check_fields

__all__ = ["FieldsDataset", "open_dataset", "open_hdf5"]


def open_hdf5(path: str | Path) -> h5py.File:
    """Open an HDF5 file for reading, or raise `DatasetFormatError` saying what is wrong with it."""
    path = Path(path)
    if not path.exists():
        raise DatasetFormatError(f"dataset {str(path)!r} does not exist: check the path")
    if path.is_dir():
        raise DatasetFormatError(f"dataset {str(path)!r} is a folder: give the HDF5 file")
    if not h5py.is_hdf5(path):
        raise DatasetFormatError(
            f"{str(path)!r} is not an HDF5 file: give a dataset made by 'sciml generate'"
        )
    try:
        # A cache of a few chunks per dataset; the library's default decodes large chunks again and again.
        return h5py.File(path, "r", rdcc_nbytes=16 << 20, rdcc_nslots=10007)
    except OSError as error:
        if "truncated" in str(error):
            raise DatasetFormatError(
                f"{str(path)!r} is truncated ({path.stat().st_size} bytes are left): copy or generate it again"
            ) from error
        raise DatasetFormatError(
            f"{str(path)!r} cannot be read ({error}): copy or generate it again"
        ) from error


class FieldsDataset:
    """A dataset of kind ``fields``, read lazily.

    ``dataset["u"]`` is an array on disk, of shape (trajectories, [frames,] space, [components]);
    slicing it reads that part as NumPy. Use as a context manager, or call `close`.

    Attributes
    ----------
    path : Path
    name : str
        What the file calls itself.
    n_trajectories : int
    steady : bool
        Whether the last frame is the solution of a steady problem (frame 0 is zero).
    axes : dict of str to ndarray
        Coordinates by axis name.
    times : ndarray
    periodic : tuple of bool
        By axis.
    fields : tuple of str
        Names, scalars first.
    inputs, targets : tuple of str
        The learning task.
    mask : str
        Field that marks where targets are defined, or "".
    seeds : ndarray of int64 or None
    config : dict
        The recipe and its parameters, seed and count.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = open_hdf5(path)
        try:
            self._read_header()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._file.close()
            if isinstance(error, DatasetFormatError):
                raise
            raise DatasetFormatError(
                f"{str(path)!r} is not a valid dataset of kind 'fields' ({error}): generate it again"
            ) from error

    def _read_header(self) -> None:
        file, attributes = self._file, self._file.attrs
        version = int(attributes.get("format_version", FORMAT_VERSION))
        if version > FORMAT_VERSION:
            raise DatasetFormatError(
                f"{str(self.path)!r} has format version {version}, this sciml reads up to {FORMAT_VERSION}: upgrade"
            )
        kind = str(attributes.get("kind", "fields"))
        if kind != "fields":
            raise DatasetFormatError(
                f"{str(self.path)!r} is of kind {kind!r}: a dataset of kind 'fields' is needed"
            )
        problems = check_fields(file)
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise DatasetFormatError(
                f"{str(self.path)!r} is not a valid dataset of kind 'fields': {problems[0]}{more}; generate it again"
            )
        self.name = str(attributes["dataset_name"])
        self.n_trajectories = int(attributes["n_trajectories"])
        self.steady = bool(attributes.get("steady", False))
        dimensions = file["dimensions"]
        names = [_text(name) for name in dimensions.attrs["spatial_dims"]]
        self.axes = {name: dimensions[name][()].astype(float) for name in names}
        self.times = dimensions["time"][()]
        conditions = file["boundary_conditions"].values()
        periodic = {
            _text(dim)
            for condition in conditions
            if str(condition.attrs["bc_type"]).upper() == "PERIODIC"
            for dim in condition.attrs.get("associated_dims", ())
        }
        self.periodic = tuple(name in periodic for name in names)
        self._paths = {
            _text(name): f"t{rank}_fields/{_text(name)}"
            for rank in range(3)
            for name in file[f"t{rank}_fields"].attrs["field_names"]
        }
        self.fields = tuple(self._paths)
        self.inputs = tuple(_text(name) for name in attributes.get("input_fields", ()))
        self.targets = tuple(_text(name) for name in attributes.get("target_fields", ()))
        self.mask = str(attributes.get("mask_field", ""))
        ours = attributes.get("format") == "sciml"
        self.seeds = file["provenance/seed"][()] if ours else None
        self.config: dict[str, Any] = {}
        self.provenance: dict[str, Any] = {}
        self.checks: dict[str, tuple[np.ndarray, float | None]] = {}
        if ours:
            group = file["provenance"]
            self.config = json.loads(group["config"].asstr()[()])
            self.provenance = dict(group.attrs)
            for name, dataset in group.get("checks", {}).items():
                self.checks[name] = (dataset[()], dataset.attrs.get("limit"))

    @property
    def resolution(self) -> tuple[int, ...]:
        """Nodes along each axis."""
        return tuple(len(values) for values in self.axes.values())

    def __getitem__(self, name: str) -> h5py.Dataset:
        if name in self._paths:
            return self._file[self._paths[name]]
        if name in self._file["scalars"]:
            return self._file["scalars"][name]
        raise unknown_name(f"field of {self.path.name}", name, [*self._paths, *self._file["scalars"]])

    def is_time_varying(self, name: str) -> bool:
        """Whether a field has a time axis."""
        return bool(self[name].attrs["time_varying"])

    def read(self, name: str, stride: int = 1, rows: np.ndarray | slice | None = None) -> np.ndarray:
        """Read a steady view of a field: its constant value, or its last frame.

        Parameters
        ----------
        name : str
        stride : int
            Take every ``stride``-th node along each axis; it must divide the intervals of bounded
            axes and the nodes of periodic ones, so that the grid keeps its convention.
        rows : increasing ndarray of int or slice, optional
            Trajectories; all by default.

        Returns
        -------
        ndarray, float32, shape (trajectories, space, components)

        Raises
        ------
        ConfigError
            If the stride does not fit.
        """
        for m, periodic in zip(self.resolution, self.periodic, strict=True):
            if stride < 1 or (m if periodic else m - 1) % stride or m <= stride:
                raise ConfigError(
                    f"stride={stride} does not fit {m} {'periodic' if periodic else 'bounded'} nodes of "
                    f"{self.path.name}: it must divide {m if periodic else m - 1} and leave two nodes"
                )
        dataset = self[name]
        selected: np.ndarray | slice = slice(None) if rows is None else rows
        last = (-1,) if self.is_time_varying(name) else ()
        if dataset.attrs["sample_varying"]:
            values = dataset[(selected, *last)]
        else:
            # One field for all trajectories.
            count = len(np.arange(self.n_trajectories)[selected])
            values = np.broadcast_to(dataset[last or ()], (count, *dataset.shape[len(last) :]))
        return values[(slice(None), *(slice(None, None, stride),) * len(self.axes))]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "FieldsDataset":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FieldsDataset {self.name!r}: {self.n_trajectories} trajectories, fields {', '.join(self.fields)}>"


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def open_dataset(path: str | Path) -> FieldsDataset:
    """Open a dataset for lazy NumPy access.

    Files of The Well that are on a Cartesian grid open too; they have no ``/provenance``.

    Raises
    ------
    DatasetFormatError
        If the file is missing, truncated, not HDF5, of a newer format version or malformed.

    Examples
    --------
    >>> with open_dataset("darcy.h5") as data:  # doctest: +SKIP
    ...     first_solution = data["u"][0, -1]
    """
    return FieldsDataset(path)
