"""Predictions of operators on clouds: of datasets of kind ``points``, HDF5 to HDF5, and of meshes of other programs."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciml.datasets import FieldSpec, PointsDataset, PointsLayout, Trajectory
from sciml.datasets.atomic_hdf5 import atomic_hdf5
from sciml.datasets.kinds import create, write
from sciml.datasets.meshes import mesh_points, on_vtk, vertex_weights
from sciml.datasets.record import Record
from sciml.datasets.rows import checksums
from sciml.errors import ConfigError, GeometryError
from sciml.operators import CloudOperator
from sciml.solvers.fem.exchange import load_meshio, save_meshio

from .clouds import check_weights, cloud_channels, read_cloud
from .prediction import predict

__all__ = ["predict_mesh", "predict_points"]


def predict_points(
    model: CloudOperator,
    header: dict[str, Any],
    data: PointsDataset,
    output: str | Path,
    config: dict[str, Any],
    progress: bool = True,
) -> None:
    """Write a dataset of what a model predicts at the points of another one.

    It has these points, cells and scalars, the model's input fields, the weights, and the predicted fields by their
    names.

    Parameters
    ----------
    model : CloudOperator
    header : dict
        Of its file.
    data : PointsDataset
    output : path
        It appears whole or not at all.
    config : dict
        What model and input are, for ``/provenance``.
    progress : bool

    Raises
    ------
    ConfigError
        If fields, scalars, dimensions or points do not fit the model.
    """
    inputs, targets, code = _names(header)
    weights = check_weights(data, header["data"])
    _check_dimension(model, data.dim, str(data.path))
    layout = _layout(data, inputs, dict(zip(targets, header["data"]["ranks"], strict=True)))
    known = all(name in data.fields for name in inputs)
    if known and (channels := cloud_channels(data, inputs, code)) != model.in_channels:
        raise ConfigError(
            f"input {str(data.path)!r} gives points of {channels} channels, the {type(model).__name__} takes "
            f"{model.in_channels}: give fields of the same ranks as those that it was trained on"
        )
    n, started, not_finite = data.n_trajectories, time.process_time(), np.zeros(data.n_trajectories)
    with (
        atomic_hdf5(output) as writer,
        tqdm(total=n, desc=f"predict {Path(output).name}", disable=None if progress else True) as bar,
    ):
        create(writer.file, layout, n)
        for row in range(n):
            prediction = _predicted(model, read_cloud(data, row, inputs, code, weights))
            not_finite[row] = 1 - np.isfinite(prediction).mean()
            fields = {name: data.read(name, row) for name in ("positions", *_cells(data))}
            fields |= {
                spec.name: data.read(spec.name, row) for spec in layout.fields if spec.name not in targets
            }
            fields |= dict(zip(targets, _split(prediction, header, data.dim), strict=True))
            scalars = {name: float(data[name][row]) for name in layout.scalars}
            write(writer.file, layout, row, [Trajectory(fields, scalars)])
            writer.check()
            bar.update()
        Record(
            config,
            np.full(n, -1) if data.seeds is None else data.seeds,
            {"not_finite": not_finite},
            {"not_finite": 0.0},
            f"predicted by {type(model).__name__}, not solved",
            time.process_time() - started,
            checksums(writer.file),
            device=model.input_mean.device.type,
        ).write(writer.file)


def predict_mesh(
    model: CloudOperator, header: dict[str, Any], source: str | Path, output: str | Path
) -> list[str]:
    """Add what a model predicts at the points of a mesh to it, as point data; return the names of the fields.

    Input fields are the mesh's point data of their names; so are the scalars of the code, the same at all points.
    Quadrature weights, if the model was trained with some, are point data of their name, or taken from the cells. A
    field whose name is taken is added as "<name>_predicted".

    Parameters
    ----------
    model : CloudOperator
    header : dict
        Of its file.
    source, output : path
        In formats that meshio knows by their endings.

    Raises
    ------
    ConfigError
        If fields, dimensions or points do not fit the model, or values are not finite.
    DatasetFormatError
        If a file is of no known format or of one without point data, or there are no cells to take weights from.
    GeometryError
        If the mesh has more dimensions than the model.
    """
    mesh, name = load_meshio(source), str(source)
    inputs, targets, code = _names(header)
    x = mesh_points(mesh, model.dim, name)
    if not np.isfinite(x).all():
        raise GeometryError(f"a point of {name!r} is not finite: mend the mesh")
    same = len(x) - len(np.unique(x, axis=0))
    if same:
        raise ConfigError(f"{same} points of {name!r} coincide with others: merge them")
    missing = [field for field in (*inputs, *code) if field not in mesh.point_data]
    if missing:
        raise ConfigError(
            f"mesh {name!r} has no point data {', '.join(missing)} (it has {', '.join(mesh.point_data) or 'none'}): "
            f"the model needs {', '.join((*inputs, *code))}"
        )
    weight = _weights(mesh, x, header["data"]["weight"], name)
    parts = [
        np.asarray(mesh.point_data[field], dtype=float).reshape(len(x), -1) for field in (*inputs, *code)
    ]
    # Vectors of VTK have three components, also in the plane.
    parts = [part[:, :2] if model.dim == 2 and part.shape[1] == 3 else part for part in parts]
    given = np.column_stack([x, weight, *parts]).astype(np.float32)
    if given.shape[1] != model.in_channels:
        raise ConfigError(
            f"mesh {name!r} gives points of {given.shape[1]} channels, the {type(model).__name__} takes "
            f"{model.in_channels}: give point data of the same ranks as the fields that it was trained on"
        )
    if not np.isfinite(given).all():
        raise ConfigError(f"point data of mesh {name!r} are not finite: mend them")
    for field in code:
        if np.ptp(mesh.point_data[field]) > 0:
            raise ConfigError(
                f"point data {field!r} of {name!r} is a scalar of the whole sample: give one value"
            )
    prediction = _predicted(model, given)
    names = [f"{field}_predicted" if field in mesh.point_data else field for field in targets]
    for field, values in zip(names, _split(prediction, header, model.dim), strict=True):
        mesh.point_data[field] = on_vtk(values)
    save_meshio(output, mesh)
    return names


def _weights(mesh: Any, x: np.ndarray, field: str, name: str) -> np.ndarray:
    """Quadrature weights of a mesh's points: the given point data, or from the cells; 1 / N without a field."""
    if not field:
        return np.full(len(x), 1 / max(len(x), 1))
    if field in mesh.point_data:
        weight = np.asarray(mesh.point_data[field], dtype=float)
        if weight.shape != (len(x),) or not (weight > 0).all():
            raise ConfigError(
                f"point data {field!r} of {name!r}, the quadrature weights, are not one positive number a point: "
                "mend them, or leave them out to take them from the cells"
            )
        return weight
    cells: dict[str, list[np.ndarray]] = {}
    for block in mesh.cells:
        cells.setdefault(block.type, []).append(np.asarray(block.data))
    weight = vertex_weights(x, {kind: np.concatenate(blocks) for kind, blocks in cells.items()})
    if not weight.all():
        raise ConfigError(
            f"{int((weight == 0).sum())} points of {name!r} are in no cell and have no quadrature weight: remove them, "
            f"or give weights as point data {field!r}"
        )
    return weight


def _names(header: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Input fields, target fields and scalars of a model."""
    trained = header["data"]
    return tuple(trained["inputs"]), tuple(trained["targets"]), tuple(trained["code"])


def _check_dimension(model: CloudOperator, dim: int, name: str) -> None:
    if dim != model.dim:
        raise ConfigError(
            f"input {name!r} has points of {dim} dimensions, the {type(model).__name__} takes {model.dim}: give a "
            "dataset like those that it was trained on"
        )


def _predicted(model: CloudOperator, given: np.ndarray) -> np.ndarray:
    """Predict at the points of one cloud, (N, channels)."""
    inputs: Tensor = torch.from_numpy(given)[None]
    return predict(model, inputs, 1)[0].numpy()


def _cells(data: PointsDataset) -> list[str]:
    return [f"cells/{kind}" for kind in data.cells]


def _layout(data: PointsDataset, inputs: tuple[str, ...], targets: dict[str, int]) -> PointsLayout:
    """What is written, of targets with their ranks."""

    def spec(name: str, rank: int, note: str = "") -> FieldSpec:
        described = str(data[name].attrs.get("description", "")) if name in data.fields else ""
        return FieldSpec(name, f"{described}{note}".strip(), rank)

    kept = [
        name for name in dict.fromkeys((*inputs, data.weight)) if name in data.fields and name not in targets
    ]
    stored = data.file["scalars"]
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in stored.attrs["field_names"]]
    return PointsLayout(
        name=f"{data.name}-predicted",
        dim=data.dim,
        fields=(
            *(spec(name, data[name].ndim - 1) for name in kept),
            *(spec(name, rank, " (predicted)") for name, rank in targets.items()),
        ),
        size=int(np.diff(data.offsets).mean()),
        cells=data.cells,
        scalars=tuple(name for name in names if stored[name].shape == (data.n_trajectories,)),
        parameters={name: float(stored[name][()]) for name in names if stored[name].shape == ()},
        inputs=tuple(name for name in inputs if name in kept),
        targets=tuple(targets),
        weight=data.weight if data.weight in kept else "",
        code=data.code,
    )


def _split(prediction: np.ndarray, header: dict[str, Any], dim: int) -> list[np.ndarray]:
    """Divide channels (N, C) among the predicted fields, (N,) or (N, components)."""
    shapes = [(dim,) * rank for rank in header["data"]["ranks"]]
    parts = np.split(prediction, np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1], axis=1)
    return [part.reshape(len(part), *shape) for part, shape in zip(parts, shapes, strict=True)]
