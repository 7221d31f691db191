"""Meshes of other programs, a file for each sample, as a dataset of kind ``points``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sciml.errors import ConfigError, DatasetFormatError
from sciml.files import refuse_existing
from sciml.solvers.fem.exchange import load_meshio

from .imported import write_imported
from .meshes import FLAT, SIMPLICES, mesh_points, vertex_weights
from .recipe import VERTICES, FieldSpec, PointsLayout, Trajectory

__all__ = ["import_meshes", "mesh_files"]

WEIGHT = "weight"


def mesh_files(folder: str | Path) -> list[Path]:
    """Return the files of a folder that meshio knows by their endings, in the order of their names."""
    import meshio

    folder = Path(folder)
    known = meshio.extension_to_filetypes
    return sorted(path for path in folder.iterdir() if path.suffix in known) if folder.is_dir() else []


def import_meshes(
    folder: str | Path,
    output: str | Path,
    targets: Sequence[str],
    inputs: Sequence[str] = (),
    code: Sequence[str] = (),
    *,
    overwrite: bool = False,
) -> Path:
    """Write the meshes in a folder as a dataset, one sample each, in the order of their names.

    Point data become fields: one number a point a scalar, two or three a vector, four or nine a tensor; cells of linear
    types are kept. The point data ``weight`` are quadrature weights; if the meshes have none they are taken from the
    cells, and of meshes without cells of their own dimension every point weighs the same.

    Parameters
    ----------
    folder : path
    output : path
        HDF5 file; it appears whole or not at all.
    targets, inputs : sequence of str
        Point data: what is to be predicted, and what is given beside the positions.
    code : sequence of str
        Point data that are the same at all points of a sample: numbers that describe it.
    overwrite : bool
        Replace an existing file; it survives until the new one is complete.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        If there are no meshes, or one has not the point data, or other ones than the first.
    DatasetFormatError
        If a file cannot be read, or has cells of other types.
    GeometryError
        If a mesh has more dimensions than the first.
    OutputExistsError
        If ``output`` exists and ``overwrite`` is not given.

    Examples
    --------
    >>> import_meshes("cells", "cells.h5", targets=["stress"], inputs=["distance"])  # doctest: +SKIP
    PosixPath('cells.h5')
    """
    files = mesh_files(folder)
    if not files:
        raise ConfigError(f"folder {str(folder)!r} holds no meshes: give one with files such as .vtu or .msh")
    if not overwrite:
        refuse_existing(output)
    first = load_meshio(files[0])
    if len(np.unique(first.points, axis=0)) < 2:
        raise ConfigError(f"mesh {str(files[0])!r} has fewer than two different points: it has no dimension")
    dim = _dimension(first)
    wanted = list(dict.fromkeys((*inputs, *targets)))
    kinds: dict[str, None] = {}
    size = 0
    for path in files:
        mesh = load_meshio(path)
        _check(mesh, path, (*wanted, *code), WEIGHT in first.point_data)
        kinds |= dict.fromkeys(block.type for block in mesh.cells if block.type != "vertex")
        size += len(mesh.points)
    weighted = WEIGHT in first.point_data or any(kind in SIMPLICES[dim] for kind in kinds)
    fields = {name: _components(first, name, dim, files[0]) for name in wanted if name != WEIGHT}
    layout = PointsLayout(
        name=Path(folder).resolve().name,
        dim=dim,
        fields=(
            *(FieldSpec(name, name, rank=values.ndim - 1) for name, values in fields.items()),
            *([FieldSpec(WEIGHT, "quadrature weight")] if weighted else []),
        ),
        size=size // len(files),
        cells=tuple(kinds),
        scalars=tuple(code),
        inputs=tuple(inputs),
        targets=tuple(targets),
        weight=WEIGHT if weighted else "",
        code=tuple(code),
    )
    return write_imported(
        output, layout, _samples(files, layout), len(files), files, "meshes of another program"
    )


def _samples(files: list[Path], layout: PointsLayout) -> Iterator[Trajectory]:
    for path in files:
        mesh = load_meshio(path)
        x = mesh_points(mesh, layout.dim, str(path))
        fields = {}
        for spec in (spec for spec in layout.fields if spec.name != WEIGHT):
            fields[spec.name] = _components(mesh, spec.name, layout.dim, path)
            if fields[spec.name].ndim - 1 != spec.rank:
                raise ConfigError(
                    f"point data {spec.name!r} of {str(path)!r} are of another rank than those of {files[0].name!r}"
                )
        cells = {kind: np.zeros((0, VERTICES[kind]), dtype=np.int32) for kind in layout.cells}
        for block in (block for block in mesh.cells if block.type != "vertex"):
            cells[block.type] = np.concatenate([cells[block.type], np.asarray(block.data, dtype=np.int32)])
        if layout.weight:
            given = mesh.point_data.get(WEIGHT)
            there = {kind: values for kind, values in cells.items() if len(values)}
            fields[WEIGHT] = (
                vertex_weights(x, there) if given is None else np.asarray(given, dtype=float).ravel()
            )
        for name in layout.code:
            if np.ptp(mesh.point_data[name]) > 0:
                raise ConfigError(
                    f"point data {name!r} of {str(path)!r} vary, the code is one number a sample"
                )
        scalars = {name: float(np.ravel(mesh.point_data[name])[0]) for name in layout.code}
        yield Trajectory({"positions": x, **fields, **{f"cells/{k}": v for k, v in cells.items()}}, scalars)


def _dimension(mesh: Any) -> int:
    """How many of the first coordinates it takes to hold all that vary."""
    extents = np.ptp(np.asarray(mesh.points, dtype=float), axis=0)
    return int(np.flatnonzero(extents > FLAT * max(extents.max(), 1e-300))[-1]) + 1


def _check(mesh: Any, path: Path, names: Sequence[str], weighted: bool) -> None:
    missing = [name for name in (*names, *([WEIGHT] if weighted else [])) if name not in mesh.point_data]
    if missing:
        raise ConfigError(
            f"mesh {str(path)!r} has no point data {', '.join(missing)} (it has {', '.join(mesh.point_data) or 'none'})"
        )
    if strangers := sorted({block.type for block in mesh.cells} - set(VERTICES)):
        raise DatasetFormatError(
            f"mesh {str(path)!r} has cells {', '.join(strangers)}: known are {', '.join(VERTICES)}; convert it"
        )


def _components(mesh: Any, name: str, dim: int, path: Path) -> np.ndarray:
    """Point data as a scalar (N,), a vector (N, dim) or a tensor (N, dim, dim)."""
    values = np.asarray(mesh.point_data[name], dtype=float)
    values = values.reshape(len(values), -1)
    count = values.shape[1]
    if count == 1:
        return values[:, 0]
    # Vectors of VTK have three components, also in the plane.
    if count == dim or (count == 3 and dim < 3 and not values[:, dim:].any()):
        return values[:, :dim]
    if count == dim * dim:
        return values.reshape(-1, dim, dim)
    raise ConfigError(
        f"point data {name!r} of {str(path)!r} have {count} components: in {dim} dimensions there are scalars, vectors "
        f"of {dim} and tensors of {dim * dim}"
    )
