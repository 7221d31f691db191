"""The public arrays of Geo-FNO, in their own layouts."""

from pathlib import Path

import meshio
import numpy as np
import pytest
from scipy.io import savemat

from sciml.cli import main
from sciml.datasets import FieldsDataset, PointsDataset, generate
from sciml.datasets.geofno_arrays import import_geofno
from sciml.datasets.recipes import ElasticityRecipe
from sciml.errors import ConfigError, DatasetFormatError, OutputExistsError
from sciml.operators import FNOConfig, PointMLPConfig
from sciml.training import TrainConfig, train

RNG = np.random.default_rng(0)


def elasticity(folder: Path) -> dict[str, np.ndarray]:
    arrays = {"XY": RNG.random((30, 2, 12)), "sigma": RNG.random((30, 12)), "rr": RNG.random((42, 12))}
    for name, values in arrays.items():
        np.save(folder / f"Random_UnitCell_{name}_10.npy", values)
    return arrays


def structured(folder: Path, name: str, channels: int) -> dict[str, np.ndarray]:
    arrays = {"X": RNG.random((12, 9, 7)), "Y": RNG.random((12, 9, 7)), "Q": RNG.random((12, channels, 9, 7))}
    for part, values in arrays.items():
        np.save(folder / f"{name}_{part}.npy", values)
    return arrays


def test_elasticity(tmp_path: Path) -> None:
    arrays = elasticity(tmp_path)
    path = import_geofno(tmp_path, tmp_path / "e.h5")
    with PointsDataset(path) as data:
        assert (data.n_trajectories, len(data.code), data.targets) == (12, 42, ("stress",))
        for row in (0, 11):
            assert np.array_equal(data.read("positions", row), arrays["XY"][:, :, row])
            assert np.allclose(data.read("stress", row), arrays["sigma"][:, row])
            assert float(data["radius_41"][row]) == pytest.approx(arrays["rr"][41, row])
    config = TrainConfig(epochs=1, code=True, n_train=8, n_test=2)
    assert train(config, path, tmp_path / "run", model=PointMLPConfig(width=8), progress=False)["n_test"] == 2
    with pytest.raises(OutputExistsError):
        import_geofno(tmp_path, path)


@pytest.mark.parametrize(
    ("prefix", "channels", "target", "which"), [("Pipe", 3, "u", 0), ("NACA_Cylinder", 5, "mach", 4)]
)
def test_structured_meshes(prefix: str, channels: int, target: str, which: int, tmp_path: Path) -> None:
    arrays = structured(tmp_path, prefix, channels)
    path = import_geofno(tmp_path, tmp_path / "s.h5")
    with FieldsDataset(path) as data:
        assert data.resolution == (9, 7)
        assert (data.inputs, data.targets) == (("x", "y"), (target,))
        assert np.allclose(data.read(target), arrays["Q"][:, which])
        assert np.allclose(data.read("y"), arrays["Y"])
    model = FNOConfig(modes=(4,), width=4, layers=1)
    assert train(TrainConfig(epochs=1), path, tmp_path / "run", model=model, progress=False)["n_train"] == 11


def test_plasticity(tmp_path: Path) -> None:
    die, output = RNG.random((6, 5)), RNG.random((6, 5, 4, 3, 4))
    savemat(tmp_path / "plas_N987_T20.mat", {"input": die, "output": output})
    with FieldsDataset(import_geofno(tmp_path, tmp_path / "p.h5")) as data:
        assert data.targets == ("x", "y", "u", "v")
        assert np.allclose(data["v"][2, 1:], np.moveaxis(output[2, ..., 3], -1, 0))
        assert np.allclose(data["x"][2, 0], output[2, :, :, 0, 0] - output[2, :, :, 0, 2])
        assert np.allclose(data["y"][2, 0], output[2, :, :, 0, 1] - output[2, :, :, 0, 3])
        assert (data["u"][:, 0] == 0).all()
        assert np.allclose(data["die"][1], die[1][:, None])


def test_command_line_and_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    structured(tmp_path, "Pipe", 2)
    assert main(["convert", str(tmp_path), "--to", "sciml", "-o", str(tmp_path / "pipe.h5")]) == 0
    assert (
        main(["convert", str(tmp_path), "--to", "sciml", "--periodic", "x", "-o", str(tmp_path / "q.h5")])
        == 1
    )
    np.save(tmp_path / "Pipe_Y.npy", np.zeros((12, 9, 6)))
    with pytest.raises(DatasetFormatError, match=r"shapes .*12, 9, 6.* do not fit"):
        import_geofno(tmp_path, tmp_path / "x.h5")
    np.save(tmp_path / "Pipe_Y.npy", np.zeros((12, 9)))
    with pytest.raises(DatasetFormatError, match="3 axes of real numbers"):
        import_geofno(tmp_path, tmp_path / "x.h5")
    (tmp_path / "Pipe_Y.npy").write_bytes(b"nothing")
    with pytest.raises(DatasetFormatError, match="download it again"):
        import_geofno(tmp_path, tmp_path / "x.h5")
    (tmp_path / "Pipe_Y.npy").unlink()
    with pytest.raises(ConfigError, match="none of the public data"):
        import_geofno(tmp_path, tmp_path / "x.h5")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "plas_N987_T20.mat").write_bytes(b"nothing")
    with pytest.raises(DatasetFormatError, match="download it again"):
        import_geofno(tmp_path / "m", tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_samples_as_meshes(tmp_path: Path) -> None:
    cells = ElasticityRecipe(angles=16, rings=4, modes=2, around=32, across=6)
    path = generate(cells, 2, tmp_path / "cells.h5", progress=False)
    assert main(["convert", str(path), "--to", "vtu", "-o", str(tmp_path / "cells")]) == 0
    assert main(["convert", str(path), "--to", "vtu", "-o", str(tmp_path / "cells")]) == 1
    names = sorted(file.name for file in (tmp_path / "cells").glob("*.vtu"))
    assert names == ["elasticity-0.vtu", "elasticity-1.vtu"]
    mesh = meshio.read(tmp_path / "cells" / names[1])
    with PointsDataset(path) as data:
        assert np.array_equal(mesh.point_data["stress"], data.read("stress", 1))
        assert np.array_equal(mesh.cells_dict["quad"], data.read("cells/quad", 1))
