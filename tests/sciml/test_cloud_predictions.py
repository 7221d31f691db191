"""Predictions at points: datasets and meshes, weights from cells, what is refused."""

import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import meshio
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay

from sciml.cli import main
from sciml.datasets import FieldSpec, PointsDataset, PointsLayout, Recipe, Trajectory, generate
from sciml.datasets.meshes import vertex_weights, write_sample
from sciml.datasets.recipes import ElasticityRecipe, PoissonStarCloudRecipe
from sciml.errors import DatasetFormatError
from sciml.operators import GeoFNOConfig, Operator, PointMLPConfig, cloud
from sciml.training import TrainConfig, train

SMALL = GeoFNOConfig(modes=(6,), point_modes=(4,), width=8, latent=(8,), deformation_width=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells, clouds, and models of them."""
    folder = tmp_path_factory.mktemp("clouds")
    cells = generate(
        ElasticityRecipe(angles=24, rings=6, modes=4, around=64, across=10),
        4,
        folder / "cells.h5",
        progress=False,
    )
    stars = generate(PoissonStarCloudRecipe(density=400), 6, folder / "stars.h5", progress=False)
    config = TrainConfig(epochs=2, batch_size=2)
    for name, model, data, code in (
        ("cell", SMALL, cells, False),
        ("coded", PointMLPConfig(width=8, depth=1), cells, True),
        ("star", SMALL, stars, False),
    ):
        changed = TrainConfig(**{**config.__dict__, "code": code})
        train(changed, data, folder / name, model=model, progress=False)
    return folder


def predict(*arguments: object) -> int:
    return main(["predict", *map(str, arguments), "--quiet"])


@pytest.mark.parametrize(("model", "data"), [("cell", "cells"), ("coded", "cells"), ("star", "stars")])
def test_datasets(model: str, data: str, folder: Path, tmp_path: Path) -> None:
    assert predict(folder / model, folder / f"{data}.h5", "-o", tmp_path / "p.h5") == 0
    operator = Operator.load(folder / model)
    with PointsDataset(folder / f"{data}.h5") as given, PointsDataset(tmp_path / "p.h5") as found:
        assert np.array_equal(found.offsets, given.offsets)
        assert found.seeds is not None
        assert np.array_equal(found.seeds, given.seeds)
        (target,) = given.targets
        for row in range(2):
            x, weight = given.read("positions", row), given.read(given.weight, row)
            assert np.array_equal(found.read("positions", row), x)
            fields = np.column_stack(
                [np.zeros((len(x), 0)), *(given.read(name, row) for name in given.inputs)]
            )
            code = [[float(given[name][row]) for name in given.code]] if model == "coded" else None
            a = cloud(
                *(torch.tensor(part)[None] for part in (x, fields)),
                None if code is None else torch.tensor(code),
                torch.tensor(weight)[None],
            ).float()
            with torch.no_grad():
                expected = operator(a)[0, :, 0].numpy()
            assert np.allclose(found.read(target, row), expected, atol=1e-6 * np.abs(expected).max())
    assert main(["inspect", str(tmp_path / "p.h5")]) == 0


def test_runs_with_a_code_and_without_are_compared(folder: Path, tmp_path: Path) -> None:
    runs = [str(folder / name) for name in ("cell", "coded")]
    assert main(["compare", *runs, "--data", str(folder / "cells.h5"), "-o", str(tmp_path / "report")]) == 0


def test_meshes(folder: Path, tmp_path: Path) -> None:
    predict(folder / "cell", folder / "cells.h5", "-o", tmp_path / "p.h5")
    with PointsDataset(folder / "cells.h5") as data:
        write_sample(data, 1, tmp_path / "cell.vtu")
        stress = data.read("stress", 1)
    mesh = meshio.read(tmp_path / "cell.vtu")
    assert np.array_equal(mesh.point_data["stress"], stress)
    assert mesh.point_data["displacement"].shape == (144, 3)
    assert predict(folder / "cell", tmp_path / "cell.vtu", "-o", tmp_path / "out.vtu") == 0
    out = meshio.read(tmp_path / "out.vtu")
    assert np.array_equal(out.cells_dict["quad"], mesh.cells_dict["quad"])
    assert np.array_equal(out.point_data["stress"], stress)
    with PointsDataset(tmp_path / "p.h5") as found:
        expected = found.read("stress", 1)
    close = {"rtol": 1e-5, "atol": 1e-5 * np.abs(expected).max()}
    assert np.allclose(out.point_data["stress_predicted"], expected, **close)
    # Without weights at the points those from the cells, which leave half a ring at the square out.
    for name in ("stress", "weight"):
        del mesh.point_data[name]
    mesh.write(tmp_path / "bare.vtu")
    assert predict(folder / "cell", tmp_path / "bare.vtu", "-o", tmp_path / "out.msh") == 0
    found = meshio.read(tmp_path / "out.msh", file_format="gmsh").point_data["stress"]
    assert not np.allclose(found, expected, **close)
    operator, x = Operator.load(folder / "cell"), mesh.points[:, :2]
    weights = vertex_weights(x, {"quad": mesh.cells_dict["quad"]})
    fields = np.column_stack([mesh.point_data[name] for name in ("distance", "curvature")])
    with torch.no_grad():
        a = cloud(
            *(torch.tensor(part)[None].float() for part in (x, fields)), weights=torch.tensor(weights)[None]
        )
        assert np.allclose(found, operator(a.float())[0, :, 0], **close)
    # Of a model that looks at no other point, the same numbers; the code is point data.
    predict(folder / "coded", folder / "cells.h5", "-o", tmp_path / "q.h5")
    assert predict(folder / "coded", tmp_path / "cell.vtu", "-o", tmp_path / "coded.vtk") == 0
    with PointsDataset(tmp_path / "q.h5") as found:
        assert np.allclose(
            meshio.read(tmp_path / "coded.vtk").point_data["stress_predicted"],
            found.read("stress", 1),
            rtol=1e-5,
        )


@dataclass(frozen=True)
class Mixture(Recipe):
    """A scalar and a vector to predict, from a vector, which are multiples of the place."""

    check_limits = {}  # noqa: RUF012 - read only

    def layout(self) -> PointsLayout:
        fields = FieldSpec("a", "a", rank=1), FieldSpec("s", "s"), FieldSpec("v", "v", rank=1)
        return PointsLayout("mixture", 2, fields, 30, ("triangle",), inputs=("a",), targets=("s", "v"))

    def sample(self, seed: int) -> Trajectory:
        x = np.random.default_rng(seed).random((30, 2))
        fields = {"positions": x, "a": x + 1, "s": x[:, 0], "v": np.column_stack([5 * x[:, 1], -x[:, 0]])}
        return Trajectory({**fields, "cells/triangle": Delaunay(x).simplices})


def test_targets_of_different_ranks_are_told_apart(tmp_path: Path) -> None:
    path = generate(Mixture(), 30, tmp_path / "m.h5", progress=False)
    config = TrainConfig(epochs=80, batch_size=6, lr=1e-2)
    train(config, path, tmp_path / "run", model=PointMLPConfig(width=32, depth=2), progress=False)
    assert predict(tmp_path / "run", path, "-o", tmp_path / "p.h5") == 0
    with PointsDataset(path) as data, PointsDataset(tmp_path / "p.h5") as found:
        write_sample(data, 2, tmp_path / "m.vtu")
        s, v = data.read("s", 2), data.read("v", 2)
        assert np.abs(found.read("s", 2) - s).max() < 0.3
        assert np.abs(found.read("v", 2) - v).max() < 0.5
        assert predict(tmp_path / "run", tmp_path / "m.vtu", "-o", tmp_path / "out.vtu") == 0
        mesh = meshio.read(tmp_path / "out.vtu").point_data
        assert np.allclose(mesh["s_predicted"], found.read("s", 2), atol=1e-5)
        assert np.allclose(
            mesh["v_predicted"], np.column_stack([found.read("v", 2), np.zeros(30)]), atol=1e-5
        )


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([1, 2, 3]), st.integers(0, 2**31))
def test_weights_are_exact_for_linear_functions(dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inner = rng.random((12, dim))
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * dim), axis=-1).reshape(-1, dim)
    points = np.concatenate([corners, inner])
    if dim == 1:
        order = np.argsort(points[:, 0])
        cells = {"line": np.stack([order[:-1], order[1:]], axis=1)}
    else:
        cells = {"triangle" if dim == 2 else "tetra": Delaunay(points).simplices}
    slope = rng.standard_normal(dim)
    weights = vertex_weights(points, cells)
    assert weights @ (1 + points @ slope) == pytest.approx(1 + slope.sum() / 2)


def test_weights_of_boxes() -> None:
    box = np.array(
        [[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0], [0, 0, 3], [2, 0, 3], [2, 1, 3], [0, 1, 3]], dtype=float
    )
    assert vertex_weights(box, {"hexahedron": np.arange(8)[None]}).sum() == pytest.approx(6)
    # A sheared one has the same volume.
    sheared = box + np.outer(box[:, 2], [0.3, 0.2, 0])
    assert vertex_weights(sheared, {"hexahedron": np.arange(8)[None]}).sum() == pytest.approx(6)
    with pytest.raises(DatasetFormatError, match=r"no cells to take quadrature weights from \(line\)"):
        vertex_weights(np.zeros((4, 2)), {"line": np.zeros((1, 2), int)})
    mixed = {"tetra": np.arange(4)[None], "wedge": np.arange(6)[None], "triangle": np.arange(3)[None]}
    with pytest.raises(DatasetFormatError, match="not known of wedge: give a mesh of tetra or hexahedron"):
        vertex_weights(box, mixed)


def changed(mesh: meshio.Mesh, name: str) -> meshio.Mesh:
    if name == "twice":
        mesh.points[1] = mesh.points[0]
    elif name == "far":
        mesh.points[:, 0] += 2
    elif name == "solid":
        mesh.points[:, 2] = mesh.points[:, 0]
    elif name == "negative":
        mesh.point_data["weight"][5] = -1
    elif name == "loose":
        del mesh.point_data["weight"]
        mesh.cells[0].data = mesh.cells[0].data[1:]
        mesh.cells[0].data[mesh.cells[0].data == 7] = 8
    elif name == "no cells":
        del mesh.point_data["weight"]
        mesh.cells = [meshio.CellBlock("line", np.array([[0, 1]]))]
    elif name == "no number":
        mesh.points[3, 1] = np.nan
    return mesh


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        ("cell", "twice", "1 points of .* coincide"),
        ("cell", "far", "is outside of the box"),
        ("cell", "solid", "is not flat"),
        ("cell", "no cells", "no cells to take quadrature weights"),
        ("cell", "no number", "not finite"),
        ("cell", "negative", "the quadrature weights, are not one positive number a point"),
        ("cell", "loose", "1 points of .* are in no cell"),
        ("star", "same", "no point data f"),
    ],
)
def test_meshes_that_do_not_fit(
    model: str, name: str, message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with PointsDataset(folder / "cells.h5") as data:
        write_sample(data, 0, tmp_path / "whole.vtu")
    changed(meshio.read(tmp_path / "whole.vtu"), name).write(tmp_path / "mesh.vtu")
    assert predict(folder / model, tmp_path / "mesh.vtu", "-o", tmp_path / "out.vtu") == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out.vtu").exists()


def test_other_things_that_do_not_fit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*arguments: object) -> str:
        assert predict(*arguments, "-o", tmp_path / "out.h5") == 1
        assert not (tmp_path / "out.h5").exists()
        return capsys.readouterr().err

    assert "no f" in error(folder / "star", folder / "cells.h5")
    assert "no distance, curvature, radius_00" in error(folder / "coded", folder / "stars.h5")
    assert "leave them out" in error(folder / "cell", folder / "cells.h5", "--stride", "2")
    assert "does not exist" in error(folder / "cell", folder / "none.h5")
    assert predict(folder / "cell", folder / "cells.h5", "-o", tmp_path / "p.vtu") == 1
    assert "a dataset gives a dataset" in capsys.readouterr().err
    assert predict(folder / "cell", folder / "none.vtu", "-o", tmp_path / "p.vtu") == 1
    assert "none.vtu not found" in capsys.readouterr().err
    assert not (tmp_path / "p.vtu").exists()
    data = tmp_path / "unweighted.h5"
    data.write_bytes((folder / "cells.h5").read_bytes())
    with h5py.File(data, "r+") as file:
        file.attrs["weight_field"] = ""
    assert "declares no quadrature weights" in error(folder / "cell", data)
    assert main(["evaluate", str(folder / "cell"), str(data), "-o", str(tmp_path / "report")]) == 1
    assert "declares no quadrature weights" in capsys.readouterr().err
    (tmp_path / "broken.vtu").write_text("<nothing>")
    assert "cannot be read as a mesh" in error(folder / "cell", tmp_path / "broken.vtu")
    data = tmp_path / "nan.h5"
    data.write_bytes((folder / "stars.h5").read_bytes())
    with h5py.File(data, "r+") as file:
        file["fields/f"][0] = np.nan
    assert "not finite in sample 0" in error(folder / "star", data)
    with PointsDataset(folder / "cells.h5") as opened:
        write_sample(opened, 0, tmp_path / "mesh.vtu")
    assert (
        main(["predict", str(folder / "cell"), str(tmp_path / "mesh.vtu"), "-o", str(tmp_path / "m.xyz2")])
        == 1
    )
    assert "endings are" in capsys.readouterr().err
