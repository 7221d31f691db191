"""Meshes and results from and to files by meshio, and scikit-fem's meshes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sciml.errors import DatasetFormatError, GeometryError
from sciml.files import atomic_path

from .mesh import TriMesh

__all__ = ["load_meshio", "read_mesh", "save_meshio", "to_skfem", "write_mesh"]

CHOSEN = {".msh": "gmsh22"}
"""Of several formats of an ending, the one that holds data at points, with tags of gmsh and without."""


def load_meshio(path: str | Path) -> Any:
    """Return a mesh of meshio's.

    Raises
    ------
    DatasetFormatError
        If the file is not there, or of no known format.
    """
    import meshio

    try:
        return meshio.read(path)
    # meshio's readers fail in ways of their own on damaged files.
    except (Exception, SystemExit) as error:
        raise DatasetFormatError(
            f"{str(path)!r} cannot be read as a mesh ({error}): give a file that meshio knows"
        ) from error


def save_meshio(path: str | Path, mesh: Any) -> None:
    """Write a mesh of meshio's, in the format of the file's ending, one file, whole or not at all.

    Raises
    ------
    DatasetFormatError
        If the ending is of no known format, or of one that does not hold the mesh or the data on it.
    """
    import meshio

    path = Path(path)
    known = meshio.extension_to_filetypes
    if path.suffix not in known:
        raise DatasetFormatError(f"{path.name!r}: endings are {', '.join(sorted(known))}")
    kind = CHOSEN.get(path.suffix, known[path.suffix][0])
    more = {"data_format": "XML"} if kind == "xdmf" else {}
    with atomic_path(path) as temporary:
        try:
            mesh.write(temporary, file_format=kind, **more)
        except OSError:
            raise
        # Writers fail in ways of their own on meshes that they have no place for, or lack a library.
        except (Exception, SystemExit) as error:
            raise DatasetFormatError(
                f"{path.name!r}: {kind} does not hold such a mesh ({error}); use .vtu"
            ) from error
        # Formats leave out what they have no place for without a word.
        if data := {name for name in (*mesh.point_data, *mesh.cell_data) if not name.startswith("gmsh:")}:
            try:
                with np.errstate(over="ignore"):
                    found = meshio.read(temporary, file_format=kind.removesuffix("22"))
                kept = {*found.point_data, *found.cell_data}
            except (Exception, SystemExit):
                kept = set()
            if lost := data - kept:
                raise DatasetFormatError(
                    f"{path.name!r}: {kind} does not hold {', '.join(sorted(lost))} on a mesh; use .vtu"
                )


def read_mesh(path: str | Path) -> TriMesh:
    """Read the triangles of a mesh file; all else in it is left out.

    Raises
    ------
    DatasetFormatError
        If the file is not there, of no known format, or holds no triangles.
    GeometryError
        If points are not in a plane z = const, or a triangle is degenerate or clockwise.
    """
    mesh = load_meshio(path)
    blocks = [block.data for block in mesh.cells if block.type == "triangle"]
    if not blocks:
        kinds = sorted({block.type for block in mesh.cells})
        raise DatasetFormatError(
            f"{str(path)!r} holds no triangles but {', '.join(kinds) or 'no cells'}: convert it"
        )
    points = np.asarray(mesh.points, dtype=float)
    if points.shape[1] == 3:
        if np.ptp(points[:, 2]) > 1e-12 * max(float(np.ptp(points)), 1e-300):
            raise GeometryError(
                f"the points of {str(path)!r} are not in a plane z = const: give a plane mesh"
            )
        points = points[:, :2]
    used, triangles = np.unique(np.concatenate(blocks), return_inverse=True)
    return TriMesh.given(points[used], triangles.reshape(-1, 3))


def write_mesh(
    path: str | Path,
    mesh: TriMesh,
    point_data: Mapping[str, np.ndarray] | None = None,
    cell_data: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a mesh, with values at vertices and on triangles, in the format of the file's ending, .vtu for example.

    Raises
    ------
    DatasetFormatError
        If the ending is of no known format.
    """
    import meshio

    points = np.column_stack([mesh.vertices, np.zeros(len(mesh.vertices))])
    data = {name: [values] for name, values in (cell_data or {}).items()}
    whole = meshio.Mesh(
        points, [("triangle", mesh.triangles)], point_data=dict(point_data or {}), cell_data=data
    )
    save_meshio(path, whole)


def to_skfem(mesh: TriMesh) -> Any:
    """Return the same mesh as scikit-fem's, for what is not here.

    Examples
    --------
    >>> from sciml.solvers.fem import rectangle
    >>> to_skfem(rectangle(2, 1)).t.shape
    (3, 4)
    """
    from skfem import MeshTri

    return MeshTri(
        np.ascontiguousarray(mesh.vertices.T), np.ascontiguousarray(mesh.triangles.T), sort_t=False
    )
