"""Exports and imports: read back by a reference loader of PDEBench's rules and by The Well's own."""

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest

from sciml.cli import main
from sciml.datasets import FieldsLayout, FieldSpec, Trajectory, open_dataset
from sciml.datasets.fields import check_fields
from sciml.datasets.kinds import create
from sciml.datasets.kinds import write as write_rows
from sciml.datasets.pdebench import export_pdebench, import_pdebench
from sciml.datasets.record import Record
from sciml.datasets.well import export_well, field_statistics, import_well, write_statistics
from sciml.errors import ConfigError, DatasetFormatError, OutputExistsError
from sciml.solvers import CartesianGrid

Arrays = dict[str, np.ndarray]


def make(
    path: Path,
    specs: dict[str, tuple[int, bool]],
    dim: int,
    *,
    n: int = 3,
    frames: int = 4,
    steady: bool = False,
    name: str = "test",
    periodic: bool = True,
) -> Arrays:
    """A dataset of random fields, given by rank and whether they vary in time; its arrays."""
    grid = CartesianGrid((0.0,) * dim, (2.0,) * dim, tuple(range(5, 5 + dim)), (periodic,) * dim)
    layout = FieldsLayout(
        name,
        grid,
        tuple(FieldSpec(key, key, rank, varies) for key, (rank, varies) in specs.items()),
        times=(0.0, 1.0) if steady else tuple(0.5 * np.arange(frames)),
        steady=steady,
        scalars=("strength",),
        parameters={"nu": 0.25, "beta": 2.0},
    )
    rng = np.random.default_rng(dim + n)
    arrays: Arrays = {"strength": rng.normal(size=n).astype(np.float32)}
    for key, (rank, varies) in specs.items():
        time = (frames,) if varies and not steady else ()
        arrays[key] = rng.normal(size=(n, *time, *grid.shape, *(dim,) * rank)).astype(np.float32)
    with h5py.File(path, "w") as file:
        create(file, layout, n)
        for i in range(n):
            fields = {key: arrays[key][i] for key in specs}
            write_rows(file, layout, i, [Trajectory(fields, {"strength": float(arrays["strength"][i])})])
        Record({"recipe": name}, np.arange(n), equation="u_t = 0").write(file)
    return arrays


U = {"u": (0, True)}
DARCY = {"a": (0, False), "u": (0, True)}
FLOW = {"density": (0, True), "velocity": (1, True), "force": (1, False)}


def reference_single(path: Path) -> np.ndarray:
    """All samples as PDEBench's loader of one array file sees them: (N, *space, time, channels)."""
    assert path.suffix == ".hdf5"
    with h5py.File(path) as file:
        if "tensor" not in file:
            keys = [key for key in ("density", "pressure", "Vx", "Vy", "Vz") if key in file]
            return np.stack([np.moveaxis(file[key][()], 1, -1) for key in keys], axis=-1)
        tensor = file["tensor"][()]
        if tensor.ndim == 3:
            return np.moveaxis(tensor, 1, -1)[..., None]
        # Rank 4 is always Darcy: the coefficient is time 0, the solution time 1.
        both = np.concatenate([file["nu"][()][:, None], tensor], axis=1)
        return np.moveaxis(both, 1, -1)[..., None]


def reference_groups(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    assert path.suffix == ".h5"
    with h5py.File(path) as file:
        data = np.stack([file[key]["data"][()] for key in sorted(file)])
        grid = file[sorted(file)[0]]["grid"]
        return np.moveaxis(data, 1, -2), [grid[key][()] for key in ("x", "y", "t") if key in grid]


def test_scalar_in_1d_is_an_array(tmp_path: Path) -> None:
    arrays = make(tmp_path / "a.h5", U, 1, name="burgers")
    export_pdebench(tmp_path / "a.h5", tmp_path / "b.hdf5")
    assert (reference_single(tmp_path / "b.hdf5")[..., 0] == np.moveaxis(arrays["u"], 1, -1)).all()
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert file["tensor"].shape == (3, 4, 5)
        assert file["tensor"].dtype == np.float32
        assert file["x-coordinate"][()] == pytest.approx(0.4 * np.arange(5))
        assert file["t-coordinate"][()] == pytest.approx([0, 0.5, 1, 1.5])
        assert file.attrs["Nu"] == pytest.approx(0.25 * math.pi)  # u_t + u u_x = (Nu / pi) u_xx
        assert file.attrs["beta"] == 2.0
    import_pdebench(tmp_path / "b.hdf5", tmp_path / "c.h5", periodic=True)
    with open_dataset(tmp_path / "c.h5") as data:
        assert (data["u"][()] == arrays["u"]).all()
        assert (data["strength"][()] == arrays["strength"]).all()
        assert data["Nu"][()] == pytest.approx(0.25 * math.pi)
        assert data.periodic == (True,)
        assert data.times == pytest.approx([0, 0.5, 1, 1.5])
        assert data.config["imported_from"]["format"] == "PDEBench"
        assert data.config["imported_from"]["file"] == "b.hdf5"
        assert (data.seeds == -1).all()
        assert data.targets == ("u",)
        assert check_fields(data.file) == []


def test_darcy_is_an_array_with_its_coefficient(tmp_path: Path) -> None:
    arrays = make(tmp_path / "a.h5", DARCY, 2, steady=True, periodic=False)
    export_pdebench(tmp_path / "a.h5", tmp_path / "b.hdf5")
    seen = reference_single(tmp_path / "b.hdf5")
    assert (seen[..., 0, 0] == arrays["a"]).all()
    assert (seen[..., 1, 0] == arrays["u"]).all()
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert file["tensor"].shape == (3, 1, 6, 7)
        assert file["y-coordinate"][()] == pytest.approx(np.linspace(0, 2, 7))
    import_pdebench(tmp_path / "b.hdf5", tmp_path / "c.h5", periodic=False)
    with open_dataset(tmp_path / "c.h5") as data:
        assert data.steady
        assert (data["a"][()] == arrays["a"]).all()
        assert (data["u"][:, 1] == arrays["u"]).all()
        assert (data.inputs, data.targets) == (("a",), ("u",))
        assert [x[-1] for x in data.axes.values()] == pytest.approx([2.0, 2.0])


def test_more_fields_or_dimensions_are_groups(tmp_path: Path) -> None:
    arrays = make(tmp_path / "a.h5", FLOW, 2)
    export_pdebench(tmp_path / "a.h5", tmp_path / "b.h5")
    seen, (x, y, t) = reference_groups(tmp_path / "b.h5")
    assert seen.shape == (3, 5, 6, 4, 3)
    assert (seen[..., 0] == np.moveaxis(arrays["density"], 1, -1)).all()
    assert (seen[..., 1:] == np.moveaxis(arrays["velocity"], 1, -2)).all()
    assert x == pytest.approx(0.4 * np.arange(5))
    assert y == pytest.approx(np.arange(6) / 3)
    assert t == pytest.approx([0, 0.5, 1, 1.5])
    with h5py.File(tmp_path / "b.h5") as file:
        assert list(file) == ["0000", "0001", "0002"]
        assert (file["0001/force"][()] == arrays["force"][1]).all()
        config = json.loads(file["0002"].attrs["config"])
        assert config["fields"] == {"density": 1, "velocity": 2}
        assert config["parameters"]["strength"] == arrays["strength"][2]
    import_pdebench(tmp_path / "b.h5", tmp_path / "c.h5", periodic=[True, True], channels=("rho", "vx", "vy"))
    with open_dataset(tmp_path / "c.h5") as data:
        assert (data["rho"][()] == arrays["density"]).all()
        assert (data["vy"][()] == arrays["velocity"][..., 1]).all()
        assert (data["strength"][()] == arrays["strength"]).all()
    with pytest.raises(ConfigError, match="give 3 different names"):
        import_pdebench(tmp_path / "b.h5", tmp_path / "d.h5", periodic=True, channels=("rho",))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_compressible_flow_is_imported_with_a_velocity(tmp_path: Path, dim: int) -> None:
    shape = (2, 3, *range(4, 4 + dim))
    rng = np.random.default_rng(dim)
    keys = ["density", "pressure", "Vx", "Vy", "Vz"][: 2 + dim]
    arrays = {key: rng.normal(size=shape).astype(np.float32) for key in keys}
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.attrs["eta"] = 0.01
        for key, values in arrays.items():
            file[key] = values
        for axis, m in zip("xyz", shape[2:], strict=False):
            file[f"{axis}-coordinate"] = (np.arange(m) + 0.5) / m
        file["t-coordinate"] = np.arange(4.0)  # edges
    import_pdebench(tmp_path / "a.hdf5", tmp_path / "b.h5", periodic=True)
    with open_dataset(tmp_path / "b.h5") as data:
        assert (data["velocity"][()] == np.stack([arrays[key] for key in keys[2:]], axis=-1)).all()
        assert (data["pressure"][()] == arrays["pressure"]).all()
        assert data.times.tolist() == [0, 1, 2]
        assert data["eta"][()] == np.float32(0.01)
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        del file[keys[-1]]
    message = "is in no layout" if dim == 1 else "needs density, pressure"
    with pytest.raises(DatasetFormatError, match=message):
        import_pdebench(tmp_path / "a.hdf5", tmp_path / "c.h5", periodic=True)
    assert not (tmp_path / "c.h5").exists()


@pytest.mark.parametrize(
    ("shape", "nu", "message"),
    [
        ((2, 5, 4, 4), None, "store a scalar in 2D that varies in time in groups"),
        ((2, 5, 4, 4), (2, 4, 4), "a steady problem is"),
        ((2, 4, 4), (2, 4, 4), "a steady problem is"),
        ((2, 1, 4, 4), (2, 4, 3), "'nu' of shape"),
        ((2, 5, 4, 4, 4), None, "not what PDEBench's loader takes it for"),
    ],
)
def test_tensors_that_pdebench_misreads_are_refused(
    tmp_path: Path, shape: tuple[int, ...], nu: tuple[int, ...] | None, message: str
) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["tensor"] = np.zeros(shape)
        file["x-coordinate"] = file["y-coordinate"] = np.arange(4.0)
        if nu:
            file["nu"] = np.zeros(nu)
    with pytest.raises(DatasetFormatError, match=message):
        import_pdebench(tmp_path / "a.hdf5", tmp_path / "b.h5", periodic=True)


def test_imports_refuse_what_does_not_fit(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["tensor"] = np.zeros((2, 5, 4))
        file["x-coordinate"] = np.array([0.0, 1.0, 3.0, 4.0])
    with pytest.raises(DatasetFormatError, match="evenly spaced"):
        import_pdebench(tmp_path / "a.hdf5", tmp_path / "b.h5", periodic=True)
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file["x-coordinate"][()] = np.arange(4.0)
        file["t-coordinate"] = np.arange(9.0)
    with pytest.raises(ConfigError, match="one for each of 1 axes"):
        import_pdebench(tmp_path / "a.hdf5", tmp_path / "b.h5", periodic=(True, False))
    with pytest.raises(DatasetFormatError, match="'t-coordinate' has shape"):
        import_pdebench(tmp_path / "a.hdf5", tmp_path / "b.h5", periodic=True)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["velocity"] = np.zeros(3)
    with pytest.raises(DatasetFormatError, match="no layout of PDEBench"):
        import_pdebench(tmp_path / "c.h5", tmp_path / "b.h5", periodic=True)


def test_exports_refuse_what_has_no_layout(tmp_path: Path) -> None:
    make(tmp_path / "a.h5", U, 3)
    with pytest.raises(ConfigError, match="convert to 'well'"):
        export_pdebench(tmp_path / "a.h5", tmp_path / "b.h5")
    make(tmp_path / "a.h5", {**DARCY, "mask": (0, False)}, 2, steady=True)
    with pytest.raises(ConfigError, match="one scalar coefficient"):
        export_pdebench(tmp_path / "a.h5", tmp_path / "b.hdf5")
    make(tmp_path / "a.h5", U, 2)
    with pytest.raises(ConfigError, match=r"files named \*\.h5"):
        export_pdebench(tmp_path / "a.h5", tmp_path / "b.hdf5")
    make(tmp_path / "d.h5", U, 2, n=2)
    with pytest.raises(ConfigError, match="cannot be split"):
        export_well(tmp_path / "d.h5", tmp_path / "d")


def test_statistics_are_those_of_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = {"u": (0, True), "v": (1, True), "s": (2, True), "k": (0, False), "c": (0, True)}
    monkeypatch.setattr("sciml.datasets.well.BLOCK_BYTES", 8 * 30 * 4 * 2)  # two frames of s at a time
    parts = []
    for i, n in enumerate((2, 3)):
        parts.append(make(tmp_path / f"{i}.h5", specs, 2, n=n, frames=7))
        with h5py.File(tmp_path / f"{i}.h5", "r+") as file:
            file["t0_fields/c"][()] = 0.1
            file["t0_fields/k"][0, 0, 0] = np.nan
    found = field_statistics([tmp_path / "0.h5", tmp_path / "1.h5"])
    for name, (rank, _) in specs.items():
        if name in ("k", "c"):
            continue
        values = np.concatenate([part[name] for part in parts]).astype(float)
        axes = tuple(range(values.ndim - rank))
        difference = np.diff(values, axis=1)
        for key, wanted in {
            "mean": values.mean(axes), "std": values.std(axes), "rms": np.sqrt((values**2).mean(axes)),
            "mean_delta": difference.mean(axes), "std_delta": difference.std(axes),
            "rms_delta": np.sqrt((difference**2).mean(axes)), "min": values.min(axes), "max": values.max(axes),
        }.items():  # fmt: skip
            assert np.asarray(found[key][name]) == pytest.approx(wanted, rel=1e-13, abs=1e-13), (key, name)
    assert found["mean"]["c"] == found["rms"]["c"] == float(np.float32(0.1))
    assert found["std"]["c"] == found["std_delta"]["c"] == found["mean_delta"]["k"] == 0
    assert found["nan_count"] == {"u": 0, "v": 0, "s": 0, "k": 2, "c": 0}
    k = np.concatenate([part["k"] for part in parts])
    k[[0, 2], 0, 0] = np.nan
    assert found["mean"]["k"] == pytest.approx(np.nanmean(k))
    make(tmp_path / "2.h5", U, 2)
    with pytest.raises(ConfigError, match="first file"):
        field_statistics([tmp_path / "0.h5", tmp_path / "2.h5"])


def test_statistics_of_a_steady_problem_leave_its_zero_frame_out(tmp_path: Path) -> None:
    arrays = make(tmp_path / "a.h5", DARCY, 2, steady=True)
    found = field_statistics([tmp_path / "a.h5"])
    assert found["mean"]["u"] == pytest.approx(arrays["u"].mean(dtype=float))
    assert found["std"]["u"] == pytest.approx(arrays["u"].std(dtype=float))
    assert found["mean_delta"]["u"] == pytest.approx(found["mean"]["u"])


def test_statistics_are_written_as_numbers(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    make(tmp_path / "a.h5", {"y": (0, True), "v": (1, True)}, 2)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        attributes, shape = dict(file["t0_fields/y"].attrs), file["t0_fields/y"].shape
        del file["t0_fields/y"]
        file["t0_fields/y"] = np.full(shape, 1e-5)  # float64: YAML 1.1 takes its repr, 1e-05, for text
        file["t0_fields/y"].attrs.update(attributes)
    write_statistics(tmp_path, [tmp_path / "a.h5"])
    read = yaml.safe_load((tmp_path / "stats.yaml").read_text())
    found = field_statistics([tmp_path / "a.h5"])
    assert read == {key: found[key] for key in read}
    assert set(read) == {"mean", "std", "mean_delta", "std_delta", "rms", "rms_delta"}
    assert read["mean"]["y"] == 1e-5


def test_the_well_opens_and_normalises_an_export(tmp_path: Path) -> None:
    the_well = pytest.importorskip("the_well.data")
    from the_well.data.normalization import ZScoreNormalization

    arrays = make(tmp_path / "a.h5", {"u": (0, True), "k": (0, False), "v": (1, True)}, 2, n=11)
    export_well(tmp_path / "a.h5", tmp_path / "out")
    sizes = {}
    for split in ("train", "valid", "test"):
        sizes[split] = len(the_well.WellDataset(path=str(tmp_path / "out"), well_split_name=split)) // 3
    assert sizes == {"train": 9, "valid": 1, "test": 1}
    dataset = the_well.WellDataset(
        path=str(tmp_path / "out"),
        well_split_name="valid",
        n_steps_input=2,
        use_normalization=True,
        normalization_type=ZScoreNormalization,
    )
    sample = dataset[1]
    for values, seen in (
        (arrays["u"], sample["input_fields"][..., 0]),
        (arrays["v"][..., 1], sample["input_fields"][..., 2]),
    ):
        train = values[:9].astype(float)
        wanted = (values[9, 1:3] - train.mean()) / train.std()
        assert seen.numpy() == pytest.approx(wanted, abs=1e-5)
    train = arrays["k"][:9].astype(float)
    assert sample["constant_fields"][..., 0].numpy() == pytest.approx(
        (arrays["k"][9] - train.mean()) / train.std(), abs=1e-5
    )
    with open_dataset(tmp_path / "out/data/test/test.hdf5") as part, open_dataset(tmp_path / "a.h5") as whole:
        assert part.seeds.tolist() == [10]
        assert part.config == whole.config
        assert part.provenance["created_utc"] == whole.provenance["created_utc"]
    with pytest.raises(OutputExistsError):
        export_well(tmp_path / "a.h5", tmp_path / "out")
    (tmp_path / "out/data/train/old.hdf5").write_text("")
    export_well(tmp_path / "a.h5", tmp_path / "out", overwrite=True)
    assert [path.name for path in (tmp_path / "out/data/train").iterdir()] == ["test.hdf5"]


def test_a_file_of_the_well_is_imported(tmp_path: Path) -> None:
    arrays = make(tmp_path / "a.h5", FLOW, 2)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["provenance"]
        for name in (
            "format",
            "kind",
            "format_version",
            "steady",
            "input_fields",
            "target_fields",
            "mask_field",
        ):
            del file.attrs[name]
        for name in ("dimensions/time", "t0_fields/density"):
            values, attributes = file[name][()], dict(file[name].attrs)
            del file[name]
            file[name] = np.tile(values, (3, 1)) if name.endswith("time") else values.astype(float)
            file[name].attrs.update(attributes)
        file["dimensions/time"].attrs["sample_varying"] = True
    import_well(tmp_path / "a.h5", tmp_path / "b.h5")
    with open_dataset(tmp_path / "b.h5") as data:
        for name in FLOW:
            assert data[name].dtype == np.float32
            assert (data[name][()] == arrays[name]).all()
        assert data.times == pytest.approx([0, 0.5, 1, 1.5])
        assert data.targets == ("density", "velocity")
        assert data.periodic == (True, True)
        assert data.config["imported_from"]["format"] == "The Well"
        assert (data["strength"][()] == arrays["strength"]).all()
    with pytest.raises(ConfigError, match="needs no import"):
        import_well(tmp_path / "b.h5", tmp_path / "c.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["dimensions/time"][1] += 1
    with pytest.raises(ConfigError, match="times differ"):
        import_well(tmp_path / "a.h5", tmp_path / "c.h5")


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arrays = make(tmp_path / "a.h5", U, 2)
    a, b, c = (str(tmp_path / name) for name in ("a.h5", "b.h5", "c.h5"))
    assert main(["convert", a, "--to", "pdebench", "-o", b]) == 0
    assert main(["convert", b, "--to", "sciml", "-o", c]) == 1
    assert "give --periodic all" in capsys.readouterr().err
    assert main(["convert", b, "--to", "sciml", "-o", c, "--periodic", "z"]) == 1
    assert "axes among x, y" in capsys.readouterr().err
    assert main(["convert", b, "--to", "sciml", "-o", c, "--periodic", "x"]) == 0
    with open_dataset(c) as data:
        assert data.periodic == (True, False)
        assert (data["u"][()] == arrays["u"]).all()
    assert main(["convert", b, "--to", "sciml", "-o", c, "--periodic", "all"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["convert", b, "--to", "sciml", "-o", c, "--periodic", "all", "--overwrite"]) == 0
    with open_dataset(c) as data:
        assert data.periodic == (True, True)
    assert main(["convert", a, "--to", "well", "-o", str(tmp_path / "well")]) == 0
    part = str(tmp_path / "well/data/test/test.hdf5")
    assert main(["convert", part, "--to", "sciml", "-o", str(tmp_path / "d.h5")]) == 1
    assert "needs no import" in capsys.readouterr().err
    assert main(["convert", a, "--to", "well"]) == 1
    assert "output is missing" in capsys.readouterr().err
