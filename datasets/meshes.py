"""Meshes of other programs: their points as clouds, quadrature weights from their cells, fields back onto them."""

from pathlib import Path
from typing import Any

import numpy as np

from sciml.errors import DatasetFormatError, GeometryError
from sciml.files import atomic_folder, write_json
from sciml.solvers.fem.exchange import save_meshio

from .reader import PointsDataset

__all__ = ["mesh_points", "on_vtk", "vertex_weights", "write_sample", "write_samples"]

MARKER = "samples.json"

SIMPLICES: dict[int, dict[str, tuple[tuple[int, ...], ...]]] = {
    1: {"line": ((0, 1),)},
    2: {"triangle": ((0, 1, 2),), "quad": ((0, 1, 2), (0, 2, 3))},
    3: {
        "tetra": ((0, 1, 2, 3),),
        "hexahedron": ((0, 1, 3, 7), (0, 1, 7, 5), (0, 5, 7, 4), (1, 2, 3, 7), (1, 2, 7, 6), (1, 6, 7, 5)),
    },
}
"""Cells by dimension, and simplices that they are divided into."""
LOWER = {1: ("vertex",), 2: ("vertex", "line"), 3: ("vertex", "line", "triangle", "quad", "polygon")}
"""What cells of lower dimension are called, by dimension."""
FLAT = 1e-9
"""Extent of a coordinate, relative to the largest one, below which a mesh has no such dimension."""


def mesh_points(mesh: Any, dim: int, name: str) -> np.ndarray:
    """Return the points of a mesh in the first ``dim`` coordinates, shape (N, dim).

    Raises
    ------
    GeometryError
        If others are not constant.
    """
    points = np.asarray(mesh.points, dtype=float)
    if points.shape[1] < dim:
        raise GeometryError(f"{name!r} has points of {points.shape[1]} coordinates: {dim} are needed")
    rest = np.ptp(points[:, dim:], axis=0) if len(points) else np.zeros(0)
    if (rest > FLAT * max(float(np.ptp(points[:, :dim], axis=0).max(initial=0.0)), 1e-300)).any():
        raise GeometryError(
            f"{name!r} is not flat in the coordinates after the first {dim}: give a mesh of {dim} dimensions"
        )
    return np.ascontiguousarray(points[:, :dim])


def vertex_weights(points: np.ndarray, cells: dict[str, np.ndarray]) -> np.ndarray:
    """Return quadrature weights of points: each has its equal share of the cells around it.

    Exact for functions that are linear on simplices; second order for others.

    Parameters
    ----------
    points : ndarray, shape (N, dim)
    cells : dict of str to ndarray of int
        By type in meshio's terms. Those of lower dimension are left out; of the points' own they are lines, triangles
        and quadrilaterals, tetrahedra and hexahedra, of straight edges.

    Returns
    -------
    ndarray, shape (N,)
        0 for points of no cell.

    Raises
    ------
    DatasetFormatError
        If there are no such cells, or some of another type.

    Examples
    --------
    >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> vertex_weights(square, {"triangle": np.array([[0, 1, 2], [0, 2, 3]])}).round(3).tolist()
    [0.333, 0.167, 0.333, 0.167]
    """
    dim = points.shape[1]
    known = SIMPLICES[dim]
    others = [kind for kind in cells if kind not in known and not kind.startswith(LOWER[dim])]
    if others:
        raise DatasetFormatError(
            f"quadrature weights are not known of {', '.join(sorted(others))}: give a mesh of {' or '.join(known)}"
        )
    simplices = [
        values[:, list(corners)] for kind, values in cells.items() for corners in known.get(kind, ())
    ]
    if not simplices:
        raise DatasetFormatError(
            f"there are no cells to take quadrature weights from ({', '.join(sorted(cells)) or 'none'}): give a mesh "
            f"of {' or '.join(known)}, or the weights as point data"
        )
    corners = np.concatenate(simplices)
    edges = points[corners[:, 1:]] - points[corners[:, :1]]
    sizes = np.abs(np.linalg.det(edges)) / np.prod(np.arange(1, dim + 1))
    shares = np.repeat(sizes / (dim + 1), dim + 1)
    return np.bincount(corners.ravel(), shares, minlength=len(points))


def on_vtk(values: np.ndarray) -> np.ndarray:
    """Return point data as VTK has them: tensors flattened, vectors of the plane with a third component, 0.

    Examples
    --------
    >>> on_vtk(np.ones((1, 2))).tolist(), on_vtk(np.ones((1, 2, 2))).shape
    ([[1.0, 1.0, 0.0]], (1, 4))
    """
    if values.ndim == 1:
        return values
    values = values.reshape(len(values), -1)
    return np.column_stack([values, np.zeros(len(values))]) if values.shape[1] == 2 else values


def write_sample(data: PointsDataset, row: int, path: str | Path) -> None:
    """Write one sample of a dataset of points as a mesh, fields, weights and the code at its points.

    Parameters
    ----------
    data : PointsDataset
    row : int
    path : path
        Its ending names the format, .vtu for example.

    Raises
    ------
    DatasetFormatError
        If the ending is of no known format.

    Examples
    --------
    >>> with PointsDataset("elasticity.h5") as data:  # doctest: +SKIP
    ...     write_sample(data, 0, "cell.vtu")
    """
    import meshio

    x = data.read("positions", row)
    points = np.zeros((len(x), 3))
    points[:, : data.dim] = x
    cells = {kind: data.read(f"cells/{kind}", row) for kind in data.cells}
    cells = cells or {"vertex": np.arange(len(x))[:, None]}
    fields = {}
    for name in data.fields:
        if name != "positions" and not name.startswith("cells/"):
            fields[name] = on_vtk(data.read(name, row))
    for name in data.code:
        fields[name] = np.full(len(x), float(data[name][row]))
    save_meshio(path, meshio.Mesh(points, list(cells.items()), point_data=fields))


def write_samples(data: PointsDataset, folder: str | Path, overwrite: bool = False) -> list[str]:
    """Write every sample of a dataset of points as ``<name>-<number>.vtu`` into a folder; return the names.

    ``samples.json`` names them with the samples' seeds.

    Raises
    ------
    OutputExistsError
        If the folder exists and ``overwrite`` is not given.
    """
    digits = len(str(data.n_trajectories - 1))
    names = [f"{data.name}-{row:0{digits}d}.vtu" for row in range(data.n_trajectories)]
    with atomic_folder(folder, MARKER, overwrite) as temporary:
        for row, name in enumerate(names):
            write_sample(data, row, temporary / name)
        seeds = [-1] * len(names) if data.seeds is None else data.seeds.tolist()
        write_json(temporary / MARKER, {"dataset": data.name, "seeds": dict(zip(names, seeds, strict=True))})
    return names
