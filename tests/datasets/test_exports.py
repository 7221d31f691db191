"""Exports to PDEBench and imports: read back by a reference loader of its rules."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sciml.cli import main
from sciml.datasets import FieldsLayout, FieldSpec, Trajectory, generate, open_dataset, recipe_registry
from sciml.datasets.fields import check_fields
from sciml.datasets.kinds import create
from sciml.datasets.kinds import write as write_rows
from sciml.datasets.pdebench import export_pdebench, import_pdebench
from sciml.datasets.record import Record
from sciml.datasets.well import export_well
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
    scalar: str = "strength",
    **more: Any,
) -> Arrays:
    """A dataset of random fields, given by rank and whether they vary in time; its arrays."""
    grid = CartesianGrid((0.0,) * dim, (2.0,) * dim, tuple(range(5, 5 + dim)), (periodic,) * dim)
    layout = FieldsLayout(
        name,
        grid,
        tuple(FieldSpec(key, key, rank, varies) for key, (rank, varies) in specs.items()),
        times=(0.0, 1.0) if steady else tuple(0.5 * np.arange(frames)),
        steady=steady,
        scalars=(scalar,),
        **{"parameters": {"nu": 0.25, "beta": 2.0}, **more},
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
            write_rows(file, layout, i, [Trajectory(fields, {scalar: float(arrays["strength"][i])})])
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
    with h5py.File(tmp_path / "b.hdf5", "r+") as file:
        del file.attrs["sciml"]
    import_pdebench(tmp_path / "b.hdf5", tmp_path / "d.h5")
    with open_dataset(tmp_path / "d.h5") as data:
        assert data.fields == ("a", "u")
        assert data.periodic == (False, False)


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
        assert data.fields == ("rho", "vx", "vy", "force")
        assert (data["rho"][()] == arrays["density"]).all()
        assert (data["vy"][()] == arrays["velocity"][..., 1]).all()
        assert (data["strength"][()] == arrays["strength"]).all()
        assert (data["force"][()] == arrays["force"]).all()
    with pytest.raises(ConfigError, match="give 3 different names"):
        import_pdebench(tmp_path / "b.h5", tmp_path / "d.h5", channels=("rho",))


VORTICITY = {"w": (0, True)}
HEAT = {"mask": (0, False), "u": (0, True)}
STRESS = {"p": (0, True), "v": (1, True), "s": (2, True), "k": (0, False), "g": (1, False)}


@pytest.mark.parametrize(
    ("specs", "dim", "steady", "periodic"),
    [
        (VORTICITY, 1, False, True),
        (VORTICITY, 2, False, True),
        ({"kappa": (0, False), "head": (0, True)}, 2, True, False),
        (HEAT, 2, False, False),
        (STRESS, 2, False, True),
        (STRESS, 1, False, False),
    ],
)
def test_names_ranks_roles_and_periodicity_come_back(
    tmp_path: Path, specs: dict[str, tuple[int, bool]], dim: int, steady: bool, periodic: bool
) -> None:
    """All that PDEBench's layouts have no place for."""
    targets = tuple(name for name, (_, varies) in specs.items() if varies)
    roles = {"inputs": tuple(specs)[:1], "targets": targets, "boundary": "OPEN"}
    if specs is HEAT:
        roles["mask"] = "mask"
    arrays = make(tmp_path / "a.h5", specs, dim, steady=steady, periodic=periodic, **roles)
    there = tmp_path / ("b.hdf5" if steady or (specs is VORTICITY and dim == 1) else "b.h5")
    export_pdebench(tmp_path / "a.h5", there)
    import_pdebench(there, tmp_path / "c.h5")
    with open_dataset(tmp_path / "c.h5") as data, open_dataset(tmp_path / "a.h5") as source:
        assert set(data.fields) == set(specs)
        for name in specs:
            again = data[name][:, -1] if steady and specs[name][1] else data[name][()]
            assert (again == arrays[name]).all()
            assert data[name].attrs["description"] == name
        for name in ("inputs", "targets", "mask", "periodic", "steady"):
            assert getattr(data, name) == getattr(source, name)
        assert list(data.file["boundary_conditions"]) == list(source.file["boundary_conditions"])
        assert data.config["converted_from"]["file"] == "a.h5"
        digest = hashlib.sha256((tmp_path / "a.h5").read_bytes()).hexdigest()
        assert data.config["converted_from"]["sha256"] == digest
    wrong = "along x" if periodic else "along no axis"
    with pytest.raises(ConfigError, match=rf"periodic={not periodic}: .*b\.h.* was written periodic {wrong}"):
        import_pdebench(there, tmp_path / "d.h5", periodic=not periodic)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("{", "cannot be read"),
        (
            {"fields": [{"title": "u"}], "periodic": [True], "roles": {}, "converted_from": {}},
            "cannot be read",
        ),
        ({"fields": [], "periodic": [True]}, "cannot be read"),
        ({"fields": [{"name": "u", "description": "", "rank": 1}]}, "describes other fields"),
        ({"fields": [{"name": "u", "description": "", "time_varying": False}]}, "describes other fields"),
    ],
)
@pytest.mark.parametrize("dim", [1, 2])
def test_a_damaged_note_is_reported(tmp_path: Path, about: Any, message: str, dim: int) -> None:
    make(tmp_path / "a.h5", U, dim)
    there = tmp_path / ("b.hdf5" if dim == 1 else "b.h5")
    export_pdebench(tmp_path / "a.h5", there)
    with h5py.File(there, "r+") as file:
        if message == "describes other fields":
            about = {**json.loads(file.attrs["sciml"]), **about}
        file.attrs["sciml"] = about if isinstance(about, str) else json.dumps(about)
    with pytest.raises(DatasetFormatError, match=rf"attribute 'sciml' {message}"):
        import_pdebench(there, tmp_path / "c.h5")


@pytest.mark.parametrize(
    ("name", "periodic"),
    [
        ("1D_CFD_Rand_Eta1.e-8_Zeta1.e-8_periodic_Train.hdf5", (True,)),
        ("1D_CFD_Shock_Eta1.e-8_Zeta1.e-8_trans_Train.hdf5", (False,)),
        ("1D_CFD_Shock.hdf5", None),
    ],
)
def test_names_of_flows_say_whether_they_are_periodic(
    tmp_path: Path, name: str, periodic: tuple[bool] | None
) -> None:
    with h5py.File(tmp_path / name, "w") as file:
        for key in ("density", "pressure", "Vx"):
            file[key] = np.zeros((1, 2, 4), np.float32)
        file["x-coordinate"] = np.arange(4.0)
    if periodic is None:
        with pytest.raises(ConfigError, match=r"give --periodic all.* --to sciml --periodic all -o .*b\.h5"):
            import_pdebench(tmp_path / name, tmp_path / "b.h5")
        return
    import_pdebench(tmp_path / name, tmp_path / "b.h5")
    with open_dataset(tmp_path / "b.h5") as data:
        assert data.periodic == periodic
        assert list(data.file["boundary_conditions"]) == ["x_periodic" if periodic[0] else "x_open"]


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
    for periodic in ("all", 3, np.array([True])):
        with pytest.raises(ConfigError, match=r"periodic=.*: give True, False, or a list"):
            import_pdebench(tmp_path / "a.hdf5", tmp_path / "b.h5", periodic=periodic)
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
    generate(recipe_registry["lorenz"](final_time=0.1), 3, tmp_path / "e.h5")
    with pytest.raises(ConfigError, match=r"kind 'ode', PDEBench has no layout .* read it with open_dataset"):
        export_pdebench(tmp_path / "e.h5", tmp_path / "b.h5")
    with pytest.raises(ConfigError, match=r"kind 'ode', The Well has no layout"):
        export_well(tmp_path / "e.h5", tmp_path / "d")


@pytest.mark.parametrize("scalar", ["nu", "tensor", "x-coordinate", "u", "data", "scalars", "a/b", "sciml"])
@pytest.mark.parametrize("specs", [U, DARCY, FLOW])
def test_scalars_of_any_name_come_back(
    tmp_path: Path, specs: dict[str, tuple[int, bool]], scalar: str
) -> None:
    dim, steady = 1 if specs is U else 2, specs is DARCY
    arrays = make(tmp_path / "a.h5", specs, dim, steady=steady, scalar=scalar, parameters={})
    there = tmp_path / ("b.h5" if specs is FLOW else "b.hdf5")
    export_pdebench(tmp_path / "a.h5", there)
    import_pdebench(there, tmp_path / "c.h5")
    with open_dataset(tmp_path / "c.h5") as data:
        assert set(data.fields) == set(specs)
        assert (data.file["scalars"][scalar][()] == arrays["strength"]).all()


@pytest.mark.parametrize(
    ("specs", "more", "message"),
    [
        (U, {"scalar": "config"}, "scalar 'config' has a name"),
        (U, {"scalar": "Nu"}, "parameter 'Nu' has a name"),
        (U, {"parameters": {"sciml": 1.0}}, "parameter 'sciml' has a name"),
        (
            U,
            {"parameters": {"nu": 1.0, "viscosity": 2.0}},
            "parameters nu, viscosity would share the names Nu",
        ),
        ({**U, "data": (0, False)}, {}, "field 'data' has a name"),
        ({**U, "grid": (0, False)}, {}, "field 'grid' has a name"),
    ],
)
def test_names_that_the_layout_needs_are_refused(
    tmp_path: Path, specs: dict[str, tuple[int, bool]], more: dict[str, Any], message: str
) -> None:
    make(tmp_path / "a.h5", specs, 2, **more)
    with pytest.raises(ConfigError, match=message):
        export_pdebench(tmp_path / "a.h5", tmp_path / "b.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_a_scalar_that_varies_in_time_is_not_lost_silently(tmp_path: Path) -> None:
    make(tmp_path / "a.h5", U, 1)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        attributes = dict(file["scalars/strength"].attrs)
        del file["scalars/strength"]
        file["scalars/strength"] = np.zeros((3, 4), np.float32)
        file["scalars/strength"].attrs.update({**attributes, "time_varying": np.True_})
    with pytest.raises(ConfigError, match="scalar 'strength' varies in time"):
        export_pdebench(tmp_path / "a.h5", tmp_path / "b.hdf5")


def test_scalars_of_older_exports_and_foreign_files_are_read(tmp_path: Path) -> None:
    """Without a list, they are the datasets (N,) beside ``tensor``; ``nu`` may be one."""
    arrays = make(tmp_path / "a.h5", U, 1, scalar="nu", parameters={})
    export_pdebench(tmp_path / "a.h5", tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "b.hdf5", "r+") as file:
        about = json.loads(file.attrs["sciml"])
        assert about.pop("scalars") == ["nu"]
        file.attrs["sciml"] = json.dumps(about)
        file.move("scalars/nu", "nu")
    import_pdebench(tmp_path / "b.hdf5", tmp_path / "c.h5")
    with open_dataset(tmp_path / "c.h5") as data:
        assert (data["nu"][()] == arrays["strength"]).all()
    with h5py.File(tmp_path / "b.hdf5", "r+") as file:
        file.attrs["nu"] = 1.0
    with pytest.raises(DatasetFormatError, match="'nu' is an attribute and a dataset"):
        import_pdebench(tmp_path / "b.hdf5", tmp_path / "d.h5")
    with h5py.File(tmp_path / "b.hdf5", "r+") as file:
        file.attrs["sciml"] = json.dumps({**about, "scalars": ["mu"]})
    with pytest.raises(DatasetFormatError, match="describes other fields"):
        import_pdebench(tmp_path / "b.hdf5", tmp_path / "d.h5")


def test_numbers_beyond_float32_do_not_become_infinite(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["tensor"] = np.zeros((2, 5, 4))
        file["x-coordinate"] = np.arange(4.0)
        file.attrs["penalty"] = -1e300
    import_pdebench(tmp_path / "a.hdf5", tmp_path / "b.h5", periodic=True)
    with open_dataset(tmp_path / "b.h5") as data:
        assert data["penalty"][()] == data.file.attrs["penalty"] == -1e300
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file["rho"] = np.array([1.0, 1e39])
    with pytest.raises(DatasetFormatError, match=r"scalar 'rho'=1e\+39 does not fit float32"):
        import_pdebench(tmp_path / "a.hdf5", tmp_path / "c.h5", periodic=True)


def test_an_export_of_darcy_names_its_right_hand_side(tmp_path: Path) -> None:
    generate(recipe_registry["darcy"](resolution=9), 1, tmp_path / "a.h5")
    export_pdebench(tmp_path / "a.h5", tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert file.attrs["beta"] == 1.0


def test_an_output_that_is_its_input_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "a.h5", U, 2)
    content = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "link.h5").symlink_to("a.h5")
    for target in ("a.h5", "link.h5"):
        with pytest.raises(OutputExistsError, match="is the input"):
            export_pdebench(tmp_path / "a.h5", tmp_path / target, overwrite=True)
    assert (tmp_path / "a.h5").read_bytes() == content
    export_pdebench(tmp_path / "a.h5", tmp_path / "b.h5")
    with pytest.raises(OutputExistsError, match="is the input"):
        import_pdebench(tmp_path / "b.h5", tmp_path / "b.h5", overwrite=True)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arrays = make(tmp_path / "a.h5", U, 2)
    a, b, c = (str(tmp_path / name) for name in ("a.h5", "b.h5", "c.h5"))
    assert main(["convert", a, "--to", "pdebench", "-o", b]) == 0
    assert main(["convert", b, "--to", "sciml", "-o", c, "--periodic", "none"]) == 1
    assert "was written periodic along x, y" in capsys.readouterr().err
    assert main(["convert", b, "--to", "sciml", "-o", c]) == 0
    for command in ("inspect", "plot"):
        assert main([command, b]) == 1
        assert f"import it first, sciml convert {b} --to sciml -o b-sciml.h5" in capsys.readouterr().err
    with h5py.File(b, "r+") as file:
        del file.attrs["sciml"]
    assert main(["convert", b, "--to", "sciml", "-o", c, "--overwrite"]) == 1
    assert "give --periodic all" in capsys.readouterr().err
    assert main(["convert", b, "--to", "sciml", "-o", c, "--periodic", "z"]) == 1
    assert "axes among x, y" in capsys.readouterr().err
    assert main(["convert", b, "--to", "sciml", "-o", c, "--periodic", "x", "--overwrite"]) == 0
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
    orbits = str(generate(recipe_registry["lorenz"](final_time=0.1), 1, tmp_path / "e.h5"))
    for ours in (part, orbits):
        assert main(["convert", ours, "--to", "sciml", "-o", str(tmp_path / "d.h5")]) == 1
        assert "needs no import" in capsys.readouterr().err
    with h5py.File(part, "r+") as file:
        del file["provenance"], file.attrs["format"]
    assert main(["convert", part, "--to", "sciml", "-o", c, "--periodic", "x", "--overwrite"]) == 1
    assert "periodic='x': files of The Well say it" in capsys.readouterr().err
    assert main(["convert", a, "--to", "well"]) == 1
    assert "output is missing" in capsys.readouterr().err
