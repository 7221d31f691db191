"""Folders of meshes as datasets of kind ``points``."""

from pathlib import Path

import meshio
import numpy as np
import pytest
from scipy.spatial import Delaunay

from sciml.cli import main
from sciml.datasets import PointsDataset, generate
from sciml.datasets.mesh_import import import_meshes
from sciml.datasets.meshes import write_samples
from sciml.datasets.recipes import ElasticityRecipe
from sciml.errors import ConfigError, DatasetFormatError, GeometryError


def write(path: Path, dim: int = 2, seed: int = 0, **changes: np.ndarray) -> None:
    rng = np.random.default_rng(seed)
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * dim), axis=-1).reshape(-1, dim)
    x = np.concatenate([corners, rng.random((20 + seed, dim))])
    points = np.column_stack([x, np.zeros((len(x), 3 - dim))])
    data = {"u": x[:, 0] + seed, "v": points, "s": np.full(len(x), float(seed)), **changes}
    cells = [("triangle" if dim == 2 else "tetra", Delaunay(x).simplices)]
    meshio.Mesh(points, cells, point_data=data).write(path)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("ending", ["vtu", "vtk"])
def test_meshes_become_samples(dim: int, ending: str, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for seed in (0, 1, 2):
        write(tmp_path / "m" / f"{seed}.{ending}", dim, seed)
    (tmp_path / "m" / "notes.txt").write_text("not a mesh")
    path = import_meshes(tmp_path / "m", tmp_path / "m.h5", ["u", "v"], code=["s"])
    with PointsDataset(path) as data:
        assert data.n_trajectories == 3
        assert (data.dim, data.targets, data.inputs, data.code, data.weight) == (
            dim,
            ("u", "v"),
            (),
            ("s",),
            "weight",
        )
        for row in range(3):
            x = data.read("positions", row)
            assert len(x) == 2**dim + 20 + row
            assert np.allclose(data.read("u", row), x[:, 0] + row)
            assert np.allclose(data.read("v", row), x)
            assert float(data["s"][row]) == row
            # Of the unit box, exact for linear functions.
            assert np.allclose(
                data.read("weight", row) @ np.column_stack([np.ones(len(x)), x]), [1] + dim * [0.5]
            )
            assert data.read(f"cells/{data.cells[0]}", row).max() == len(x) - 1
    assert main(["inspect", str(path)]) == 0


def test_there_and_back(tmp_path: Path) -> None:
    recipe = ElasticityRecipe(angles=24, rings=5, modes=3, around=32, across=6)
    path = generate(recipe, 2, tmp_path / "cells.h5", progress=False)
    with PointsDataset(path) as data:
        write_samples(data, tmp_path / "cells")
    names = ["--targets", "stress", "displacement", "--inputs", "distance", "--code", "radius_00"]
    assert (
        main(["convert", str(tmp_path / "cells"), "--to", "sciml", "-o", str(tmp_path / "back.h5"), *names])
        == 0
    )
    with PointsDataset(path) as data, PointsDataset(tmp_path / "back.h5") as back:
        for name in ("positions", "stress", "displacement", "distance", "weight", "cells/quad"):
            assert np.array_equal(back.read(name, 1), data.read(name, 1))
        assert np.array_equal(back["radius_00"][:], data["radius_00"][:])


def test_a_cloud_has_no_weights(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    x = np.random.default_rng(0).random((9, 3))
    cloud = meshio.Mesh(x, [("vertex", np.arange(9)[:, None])], point_data={"u": x[:, 0]})
    cloud.write(tmp_path / "m" / "a.vtu")
    with PointsDataset(import_meshes(tmp_path / "m", tmp_path / "m.h5", ["u"])) as data:
        assert (data.dim, data.weight, data.cells) == (3, "", ())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"u": np.zeros((24, 5))}, ConfigError, "'u' of .* have 5 components"),
        ({"u": np.zeros((25, 3))}, ConfigError, "another rank than those of '0.vtu'"),
        ({"s": np.arange(25.0)}, ConfigError, "'s' of .* vary"),
        ({"weight": np.ones(24)}, ConfigError, "has no point data weight"),
    ],
)
def test_meshes_that_do_not_fit(change: dict, error: type, message: str, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    first = next(iter(change.values())).shape[0] == 24
    write(tmp_path / "m" / "0.vtu", seed=0, **(change if first else {}))
    write(tmp_path / "m" / "1.vtu", seed=1, **({} if first else change))
    with pytest.raises(error, match=message):
        import_meshes(tmp_path / "m", tmp_path / "m.h5", ["u"], code=["s"])
    assert not (tmp_path / "m.h5").exists()


def test_other_folders_and_roles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*arguments: object) -> str:
        assert main(["convert", *map(str, arguments), "--to", "sciml", "-o", str(tmp_path / "m.h5")]) == 1
        assert not (tmp_path / "m.h5").exists()
        return capsys.readouterr().err

    (tmp_path / "m").mkdir()
    assert "holds neither meshes" in error(tmp_path / "m")
    with pytest.raises(ConfigError, match="holds no meshes"):
        import_meshes(tmp_path / "m", tmp_path / "m.h5", ["u"])
    write(tmp_path / "m" / "0.vtu")
    assert "name the point data to predict" in error(tmp_path / "m")
    assert "has no point data w (it has u, v, s)" in error(tmp_path / "m", "--targets", "w")
    assert "is no folder of meshes" in error(tmp_path / "m" / "0.vtu", "--targets", "u")
    write(tmp_path / "m" / "1.vtu", dim=3)
    with pytest.raises(GeometryError, match="is not flat"):
        import_meshes(tmp_path / "m", tmp_path / "m.h5", ["u"])
    meshio.Mesh(np.ones((3, 3)), [("vertex", np.arange(3)[:, None])], point_data={"u": np.ones(3)}).write(
        tmp_path / "m" / "0.vtu"
    )
    assert "fewer than two different points" in error(tmp_path / "m", "--targets", "u")
    points = np.random.default_rng(0).random((6, 3))
    (tmp_path / "m" / "1.vtu").unlink()
    meshio.Mesh(points, [("triangle6", np.arange(6)[None])], point_data={"u": points[:, 0]}).write(
        tmp_path / "m" / "0.vtu"
    )
    with pytest.raises(DatasetFormatError, match="has cells triangle6: known are"):
        import_meshes(tmp_path / "m", tmp_path / "m.h5", ["u"])
