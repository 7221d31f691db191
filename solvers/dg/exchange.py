"""Functions on trees into files that viewers read."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sciml.errors import DatasetFormatError
from sciml.files import atomic_path

from .fields import TreeFunction, positions

__all__ = ["write_tree"]

CORNERS = {1: np.array([[0.0], [1.0]]), 2: np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])}


def write_tree(
    path: str | Path, u: TreeFunction, cell_data: Mapping[str, np.ndarray] | None = None, name: str = "u"
) -> None:
    """Write a function with its leaves as lines or quadrilaterals, in the format of the ending, .vtu for example.

    Values are those at the corners, each leaf's own: jumps are seen.

    Raises
    ------
    DatasetFormatError
        If the ending is of no known format.
    """
    import meshio

    path, mesh, known = Path(path), u.mesh, meshio.extension_to_filetypes
    if path.suffix not in known:
        raise DatasetFormatError(f"{path.name!r}: endings are {', '.join(sorted(known))}")
    corners = CORNERS[mesh.dim]
    points = np.zeros((len(mesh) * len(corners), 3))
    points[:, : mesh.dim] = positions(mesh, corners).reshape(-1, mesh.dim)
    values = u.coefficients @ u.cell.evaluate(corners).T
    cells = np.arange(len(points)).reshape(len(mesh), -1)
    whole = meshio.Mesh(
        points,
        [("line" if mesh.dim == 1 else "quad", cells)],
        point_data={name: values.ravel()},
        cell_data={key: [data] for key, data in (cell_data or {}).items()},
    )
    with atomic_path(path) as temporary:
        whole.write(temporary, file_format=known[path.suffix][0])
