"""Opening datasets, and saying clearly why one cannot be opened."""

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import h5py
import numpy as np

from sciml.errors import ConfigError, DatasetFormatError
from sciml.registry import unknown_name

from .fields import FORMAT_VERSION, check_fields
from .ode import check_ode
from .points import check_points
from .record import Record
from .rows import read_row

if TYPE_CHECKING:
    from .samples import Samples
    from .windows import Windows

__all__ = [
    "Dataset",
    "FieldsDataset",
    "OdeDataset",
    "PointsDataset",
    "is_pdebench",
    "open_dataset",
    "open_hdf5",
]

FLOW = ("density", "pressure", "Vx")
"""What each file of compressible flow of PDEBench holds."""


def open_hdf5(path: str | Path) -> h5py.File:
    """Open an HDF5 file for reading, or raise `DatasetFormatError` saying what is wrong with it."""
    path = Path(path)
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.parts")
        if (unfinished / "plan.json").is_file():
            raise DatasetFormatError(
                f"dataset {str(path)!r} does not exist yet, its generation is unfinished ({str(unfinished)!r}): "
                "run the same 'sciml generate' again"
            )
        raise DatasetFormatError(f"dataset {str(path)!r} does not exist: check the path")
    if path.is_dir():
        # The first file of each part.
        parts = {file.parent: str(file) for file in sorted(path.glob("data/*/*.h*5"), reverse=True)}
        files = ", ".join(repr(file) for file in sorted(parts.values()))
        raise DatasetFormatError(
            f"dataset {str(path)!r} is a folder: give {'one of its files, ' + files if files else 'an HDF5 file'}"
        )
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


def is_pdebench(file: h5py.File) -> bool:
    """Whether a file is in one of PDEBench's layouts that describe themselves."""
    groups = (item for item in file.values() if isinstance(item, h5py.Group))
    return "tensor" in file or set(FLOW) <= set(file) or any("data" in group for group in groups)


class Dataset(ABC):
    """A dataset of any kind, read lazily. Use as a context manager, or call `close`.

    Attributes
    ----------
    path : Path
    file : h5py.File
    name : str
        What the file calls itself.
    n_trajectories : int
    times : ndarray, shape (T,)
    seeds : ndarray of int64 or None
        Of the trajectories.
    config : dict
        The recipe and its parameters, seed and count.
    provenance : dict
        Attributes of ``/provenance``.
    checks : dict of str to (ndarray, float or None)
        Values by trajectory and limit.
    record : Record or None
        All of ``/provenance``; None if the file was not made by sciml.
    """

    kind: ClassVar[str]
    times: np.ndarray
    _paths: dict[str, str]
    """Places of the fields in the file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.file = open_hdf5(path)
        try:
            self._read_header()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.file.close()
            if isinstance(error, DatasetFormatError):
                raise
            raise DatasetFormatError(
                f"{str(path)!r} is not a valid dataset of kind {self.kind!r} ({error}): generate it again"
            ) from error

    @abstractmethod
    def _problems(self) -> list[str]:
        """What is wrong with the file's layout."""

    def _read_header(self) -> None:
        attributes = self.file.attrs
        version = int(attributes.get("format_version", FORMAT_VERSION))
        if version > FORMAT_VERSION:
            raise DatasetFormatError(
                f"{str(self.path)!r} has format version {version}, this sciml reads up to {FORMAT_VERSION}: upgrade"
            )
        kind = str(attributes.get("kind", "fields"))
        if kind != self.kind:
            raise DatasetFormatError(
                f"{str(self.path)!r} is of kind {kind!r}: a dataset of kind {self.kind!r} is needed here "
                "(open_dataset opens every kind)"
            )
        problems = self._problems()
        if problems and is_pdebench(self.file):
            raise DatasetFormatError(
                f"{str(self.path)!r} is in a layout of PDEBench: import it first, sciml convert {self.path} --to sciml "
                f"-o {self.path.stem}-sciml.h5"
            )
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise DatasetFormatError(
                f"{str(self.path)!r} is not a valid dataset of kind {self.kind!r}: {problems[0]}{more}; "
                "generate it again"
            )
        self.name = str(attributes["dataset_name"])
        self.n_trajectories = int(attributes["n_trajectories"])
        ours = attributes.get("format") == "sciml"
        self.record = Record.read(self.file) if ours else None
        self.seeds = self.record.seeds if self.record else None
        self.config: dict[str, Any] = self.record.config if self.record else {}
        self.provenance: dict[str, Any] = dict(self.file["provenance"].attrs) if ours else {}
        self.checks: dict[str, tuple[np.ndarray, float | None]] = {}
        if self.record:
            self.checks = {
                name: (values, self.record.limits.get(name)) for name, values in self.record.checks.items()
            }

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the arrays that vary in space or time."""
        return tuple(self._paths)

    def __getitem__(self, name: str) -> h5py.Dataset:
        file = self._open_file()
        if name in self._paths:
            return file[self._paths[name]]
        if name in file["scalars"]:
            return file["scalars"][name]
        raise unknown_name(f"field of {self.path.name}", name, [*self._paths, *file["scalars"]])

    def _open_file(self) -> h5py.File:
        if not self.file:
            raise ConfigError(
                f"{self.path.name}: the dataset is closed: read before close(), or open it again"
            )
        return self.file

    def torch(
        self,
        n_in: int = 1,
        n_out: int = 1,
        *,
        stride: int = 1,
        rollout: bool = False,
        in_memory: bool = False,
        fields: tuple[str, ...] | None = None,
    ) -> "Windows":
        """Return a `torch.utils.data.Dataset` of windows of frames; it opens the file by itself.

        The arguments are those of `sciml.datasets.windows.Windows`.
        """
        from .windows import Windows

        return Windows(
            self.path, n_in, n_out, stride=stride, rollout=rollout, in_memory=in_memory, fields=fields
        )

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r}: {self.n_trajectories} trajectories, "
            f"fields {', '.join(self.fields)}>"
        )


class OdeDataset(Dataset):
    """A dataset of kind ``ode``: ``dataset["states"]`` is of shape (trajectories, times, components).

    The other attributes are those of `Dataset`.

    Attributes
    ----------
    components : tuple of str
        Names of the states.
    """

    kind = "ode"

    def _problems(self) -> list[str]:
        return check_ode(self.file)

    def _read_header(self) -> None:
        super()._read_header()
        self._paths = {"states": "states"}
        self.times = self.file["time"][()]
        self.components = tuple(_text(name) for name in self.file["states"].attrs["names"])


class FieldsDataset(Dataset):
    """A dataset of kind ``fields``.

    ``dataset["u"]`` is an array on disk, of shape (trajectories, [frames,] space, [components]);
    slicing it reads that part as NumPy. The other attributes are those of `Dataset`.

    Attributes
    ----------
    steady : bool
        Whether the last frame is the solution of a steady problem (frame 0 is zero).
    axes : dict of str to ndarray
        Coordinates by axis name.
    periodic : tuple of bool
        By axis.
    inputs, targets : tuple of str
        The learning task.
    mask : str
        Field that marks where targets are defined, or "".
    """

    kind = "fields"

    def _problems(self) -> list[str]:
        return check_fields(self.file)

    def _read_header(self) -> None:
        super()._read_header()
        file, attributes = self.file, self.file.attrs
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
        self.inputs = tuple(_text(name) for name in attributes.get("input_fields", ()))
        self.targets = tuple(_text(name) for name in attributes.get("target_fields", ()))
        self.mask = str(attributes.get("mask_field", ""))

    @property
    def resolution(self) -> tuple[int, ...]:
        """Nodes along each axis."""
        return tuple(len(values) for values in self.axes.values())

    def is_time_varying(self, name: str) -> bool:
        """Whether a field has a time axis."""
        return bool(self[name].attrs["time_varying"])

    def read(
        self,
        name: str,
        stride: int = 1,
        rows: np.ndarray | slice | None = None,
        frames: int | slice = -1,
    ) -> np.ndarray:
        """Read a field on every ``stride``-th node: its constant value, or one or some of its frames.

        Parameters
        ----------
        name : str
        stride : int
            Take every ``stride``-th node along each axis; it must divide the intervals of bounded
            axes and the nodes of periodic ones, so that the grid keeps its convention.
        rows : increasing ndarray of int or slice, optional
            Trajectories; all by default.
        frames : int or slice
            Of a field that varies in time; the last by default.

        Returns
        -------
        ndarray, float32, shape (trajectories, [frames,] space, [components])
            With an axis of frames if ``frames`` is a slice and the field varies in time.

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
        chosen = (frames,) if self.is_time_varying(name) else ()
        if dataset.attrs["sample_varying"]:
            values = dataset[(selected, *chosen)]
        else:
            # One field for all trajectories.
            count = len(np.arange(self.n_trajectories)[selected])
            one = dataset[chosen or ()]
            values = np.broadcast_to(one, (count, *one.shape))
        leading = 2 if chosen and isinstance(frames, slice) else 1
        return values[(*(slice(None),) * leading, *(slice(None, None, stride),) * len(self.axes))]


class PointsDataset(Dataset):
    """A dataset of kind ``points``.

    ``dataset.read("u", 3)`` returns the values of a field at the points of sample 3; ``dataset["u"]`` is the array on
    disk, of all samples one after the other. The other attributes are those of `Dataset`.

    Attributes
    ----------
    dim : int
        Axes of space.
    offsets : ndarray of int64, shape (n_trajectories + 1,)
        Sample i has points offsets[i] to offsets[i + 1].
    cells : tuple of str
        Types of cells; their connectivity is the field "cells/<type>".
    inputs, targets, code : tuple of str
        The learning task: fields that are given and predicted, and scalars that are given.
    weight : str
        Field of quadrature weights, or "".
    """

    kind = "points"

    def _problems(self) -> list[str]:
        return check_points(self.file)

    def _read_header(self) -> None:
        super()._read_header()
        file, attributes = self.file, self.file.attrs
        self.times = np.zeros(1)
        self.dim = int(attributes["n_spatial_dims"])
        self.offsets = file["points/offsets"][()]
        self.cells = tuple(file.get("cells", ()))
        names = [_text(name) for name in file["fields"].attrs["field_names"]]
        self._paths = {"positions": "points/positions", **{name: f"fields/{name}" for name in names}}
        self._paths |= {f"cells/{kind}": f"cells/{kind}/connectivity" for kind in self.cells}
        self.inputs, self.targets, self.code = (
            tuple(_text(name) for name in attributes.get(key, ()))
            for key in ("input_fields", "target_fields", "code_scalars")
        )
        self.weight = str(attributes.get("weight_field", ""))

    def torch(self, fields: tuple[str, ...] | None = None) -> "Samples":  # type: ignore[override]
        """Return a `torch.utils.data.Dataset` of samples; it opens the file by itself."""
        from .samples import Samples

        return Samples(self.path, fields)

    def read(self, name: str, row: int) -> np.ndarray:
        """Return a field of one sample, shape (points, [components]) or (cells, vertices)."""
        return read_row(self.file, self[name].name, row)


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


KINDS: dict[str, type[Dataset]] = {
    reader.kind: reader for reader in (FieldsDataset, OdeDataset, PointsDataset)
}


def open_dataset(path: str | Path) -> Dataset:
    """Open a dataset of any kind for lazy NumPy access.

    `FieldsDataset`, `OdeDataset` or `PointsDataset` opens one of that kind only. Files of The Well that are on a
    Cartesian grid open too; they have no ``/provenance``.

    Raises
    ------
    DatasetFormatError
        If the file is missing, truncated, not HDF5, of a newer format version or malformed.

    Examples
    --------
    >>> with open_dataset("darcy.h5") as data:  # doctest: +SKIP
    ...     first_solution = data["u"][0, -1]
    """
    with open_hdf5(path) as file:
        kind = str(file.attrs.get("kind", "fields"))
    if kind not in KINDS:
        raise DatasetFormatError(
            f"{str(path)!r} is of kind {kind!r}: this sciml reads the kinds {', '.join(KINDS)}; upgrade"
        )
    return KINDS[kind](path)
