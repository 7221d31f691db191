"""The file format: layout, checker, reader, round trips, and The Well's own loader."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.cli import main
from sciml.datasets import FieldsLayout, FieldSpec, Trajectory, generate, open_dataset, recipe_registry, save
from sciml.datasets.fields import check_fields
from sciml.datasets.kinds import create
from sciml.datasets.kinds import write as write_rows
from sciml.datasets.recipes import DarcyRecipe, PoissonStarRecipe
from sciml.datasets.record import Record
from sciml.errors import ConfigError, DatasetFormatError, OutputExistsError
from sciml.solvers import CartesianGrid, Star, problem_registry, solve


def write(path: Path, layout: FieldsLayout, trajectories: list[Trajectory]) -> None:
    with h5py.File(path, "w") as file:
        create(file, layout, len(trajectories))
        write_rows(file, layout, 0, trajectories)
        Record({"recipe": layout.name}, np.arange(len(trajectories))).write(file)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 2),
    st.integers(0, 2**31),
)
def test_write_then_read(
    tmp_path_factory: pytest.TempPathFactory,
    dim: int,
    n: int,
    frames: int,
    periodic: bool,
    rank: int,
    seed: int,
) -> None:
    grid = CartesianGrid(*((0.0,) * dim, (1.0,) * dim), tuple(range(3, 3 + dim)), (periodic,) * dim)
    layout = FieldsLayout(
        "test",
        grid,
        (FieldSpec("w", "", rank), FieldSpec("k", "", 0, time_varying=False)),
        times=tuple(0.5 * np.arange(frames)),
        steady=False,
        scalars=("strength",),
        parameters={"nu": 0.25},
    )
    rng = np.random.default_rng(seed)
    shape = (frames, *grid.shape, *(dim,) * rank)
    data = [
        Trajectory(
            {"w": rng.normal(size=shape), "k": rng.normal(size=grid.shape)}, {"strength": rng.normal()}
        )
        for _ in range(n)
    ]
    path = tmp_path_factory.mktemp("fields") / "test.h5"
    write(path, layout, data)
    with h5py.File(path) as file:
        assert check_fields(file) == []
    with open_dataset(path) as opened:
        assert opened["w"].shape == (n, *shape)
        for i, trajectory in enumerate(data):
            assert (opened["w"][i] == trajectory.fields["w"].astype(np.float32)).all()
            assert (opened["k"][i] == trajectory.fields["k"].astype(np.float32)).all()
            assert opened["strength"][i] == np.float32(trajectory.scalars["strength"])
        assert opened["nu"][()] == np.float32(0.25)
        assert opened.periodic == (periodic,) * dim
        assert opened.resolution == grid.shape
        assert opened.times == pytest.approx(layout.times)


@pytest.fixture(scope="module")
def darcy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(DarcyRecipe(resolution=33), 6, tmp_path_factory.mktemp("well") / "darcy.h5", shard_size=4)


@pytest.fixture(scope="module")
def stars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(PoissonStarRecipe(resolution=41), 3, tmp_path_factory.mktemp("well") / "stars.h5")


def test_reading_is_lazy_and_strided(darcy: Path) -> None:
    with open_dataset(darcy) as data:
        assert data["u"].shape == (6, 2, 33, 33)
        assert isinstance(data["u"], h5py.Dataset)
        assert (data.read("u", 4) == data["u"][:, 1, ::4, ::4]).all()
        assert (data.read("a", rows=np.array([1, 4])) == data["a"][[1, 4]]).all()
        assert not data["u"][:, 0].any()
        assert data.inputs == ("a",)
        assert data.targets == ("u",)
        with pytest.raises(ConfigError, match=r"stride=3 .* must divide 32"):
            data.read("u", 3)
        with pytest.raises(ConfigError, match=r"unknown field .* 'uu': did you mean 'u'"):
            data["uu"]


def test_a_closed_dataset_says_so(darcy: Path, tmp_path: Path) -> None:
    orbits = generate(recipe_registry["lorenz"](final_time=0.1), 1, tmp_path / "orbit.h5")
    for path, names in ((darcy, ("u", "none")), (orbits, ("states", "sigma"))):
        with open_dataset(path) as data:
            pass
        for name in names:
            with pytest.raises(ConfigError, match=f"{path.name}: the dataset is closed"):
                data[name]


def test_first_frame_of_a_steady_problem_takes_no_space(darcy: Path) -> None:
    with h5py.File(darcy) as file:
        u = file["t0_fields/u"]
        assert u.id.get_storage_size() == 6 * 33 * 33 * 4
        assert u.chunks == (1, 1, 33, 33)


def test_stored_sample_is_regenerated_from_its_seed(darcy: Path, stars: Path) -> None:
    for path, recipe in ((darcy, DarcyRecipe(resolution=33)), (stars, PoissonStarRecipe(resolution=41))):
        with open_dataset(path) as data:
            assert data.seeds is not None
            again = recipe.sample(int(data.seeds[2]))
            for name in data.fields:
                assert data.read(name)[2] == pytest.approx(
                    again.fields[name].astype(np.float32), rel=1e-6, abs=1e-9
                )
            assert data.config["parameters"]["resolution"] == recipe.resolution


def test_the_well_opens_our_files(darcy: Path, stars: Path) -> None:
    well = pytest.importorskip("the_well.data", reason="needs the extra 'peers'")
    for path, constants in ((darcy, ["a"]), (stars, ["f", "mask"])):
        loaded = well.WellDataset(path=str(path.parent), n_steps_input=1, n_steps_output=1)
        with open_dataset(path) as data:
            assert len(loaded) == data.n_trajectories
            assert loaded.metadata.spatial_resolution == data.resolution
            for i in (0, data.n_trajectories - 1):
                sample = loaded[i]
                assert sample["input_fields"].shape == (1, *data.resolution, 1)
                assert (sample["output_fields"][0, ..., 0].numpy() == data["u"][i, 1]).all()
                assert not sample["input_fields"].any()
                for channel, name in enumerate(constants):
                    assert (sample["constant_fields"][..., channel].numpy() == data[name][i]).all()
                x = sample["space_grid"][..., 0].numpy()
                assert x[:, 0] == pytest.approx(data.axes["x"], abs=1e-6)
                assert sample["boundary_conditions"].shape == (2, 2)


def test_save_and_read_a_solution(tmp_path: Path) -> None:
    solution = solve(problem_registry["poisson"](Star()), CartesianGrid.uniform(40))
    save(solution, tmp_path / "star.h5")
    with open_dataset(tmp_path / "star.h5") as data:
        mask = data.read("mask")[0] > 0
        assert (mask == solution.mask).all()
        assert data.read("u")[0][mask] == pytest.approx(solution.values[mask], rel=1e-6)
        assert "Star" in data.config["domain"]
    with pytest.raises(OutputExistsError, match="--overwrite"):
        save(solution, tmp_path / "star.h5")
    save(solution, tmp_path / "star.h5", overwrite=True)


DAMAGE = {
    "missing group": (lambda f: f.__delitem__("scalars"), "scalars"),
    "missing field": (lambda f: f.__delitem__("t0_fields/u"), "t0_fields/u: declared but missing"),
    "integer flag": (lambda f: f["t0_fields/a"].attrs.__setitem__("time_varying", 0), "must be a boolean"),
    "wrong flag": (lambda f: f["t0_fields/u"].attrs.modify("time_varying", np.bool_(False)), "shape"),
    "wrong count": (lambda f: f.attrs.modify("n_trajectories", 7), "shape"),
    "bad condition": (lambda f: f["boundary_conditions/x_wall"].attrs.modify("bc_type", "X"), "bc_type"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_checker_finds_damage(darcy: Path, tmp_path: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    path = tmp_path / "bad.h5"
    path.write_bytes(darcy.read_bytes())
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(DatasetFormatError, match=message):
        open_dataset(path)


def test_unreadable_files(darcy: Path, tmp_path: Path) -> None:
    content = darcy.read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetFormatError, match="truncated"):
        open_dataset(tmp_path / "cut.h5")
    (tmp_path / "text.h5").write_text("not a dataset")
    with pytest.raises(DatasetFormatError, match="not an HDF5 file"):
        open_dataset(tmp_path / "text.h5")
    with pytest.raises(DatasetFormatError, match="does not exist"):
        open_dataset(tmp_path / "none.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetFormatError, match=r"'.*empty' is a folder: give an HDF5 file"):
        open_dataset(tmp_path / "empty")
    for attribute, value, message in (
        ("format_version", 99, "version 99.*upgrade"),
        ("kind", "ode", "kind 'ode'"),
    ):
        (tmp_path / "other.h5").write_bytes(content)
        with h5py.File(tmp_path / "other.h5", "r+") as file:
            file.attrs[attribute] = value
        with pytest.raises(DatasetFormatError, match=message):
            open_dataset(tmp_path / "other.h5")


def test_a_folder_is_refused_by_the_names_of_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generate(DarcyRecipe(resolution=9), 4, "darcy", split=(0.5, 0.25, 0.25))
    files = [f"darcy/data/{part}/darcy.hdf5" for part in ("test", "train", "valid")]
    message = f"dataset 'darcy' is a folder: give one of its files, {', '.join(map(repr, files))}"
    with pytest.raises(DatasetFormatError) as caught:
        open_dataset("darcy")
    assert str(caught.value) == message
    for command in (["plot", "darcy"], ["convert", "darcy", "--to", "pdebench", "-o", "b.hdf5"]):
        assert main(command) == 1
        assert message in capsys.readouterr().err
    with open_dataset(files[1]) as data:
        assert data.n_trajectories == 2


def test_layout_refuses_what_does_not_fit(tmp_path: Path) -> None:
    grid = CartesianGrid.uniform(4)
    with pytest.raises(ConfigError, match="uses fields"):
        FieldsLayout("x", grid, (FieldSpec("a", ""),), inputs=("b",))
    layout = FieldsLayout("x", grid, (FieldSpec("a", ""),))
    with pytest.raises(DatasetFormatError, match="field 'a' is of shape"):
        write(tmp_path / "x.h5", layout, [Trajectory({"a": np.zeros(3)})])
    with pytest.raises(DatasetFormatError, match="field 'a' is missing"):
        write(tmp_path / "y.h5", layout, [Trajectory({})])


def test_evolutions_and_their_frames_are_stored(tmp_path: Path) -> None:
    from sciml.solvers import (
        CartesianGrid,
        Dirichlet,
        Disk,
        Laplacian,
        ParabolicProblem,
        Reaction,
        WaveProblem,
        evolve,
    )

    grid = CartesianGrid.uniform(24)
    problem = ParabolicProblem(
        Disk(), Laplacian(2), Dirichlet(), lambda x, y: x, velocity=(1.0, 0.0), reaction=Reaction("u - u**3")
    )
    run = evolve(problem, grid, [0.0, 0.25, 1.0], step=0.05)
    save(run, tmp_path / "run.h5")
    save(run[-1], tmp_path / "frame.h5")
    save(
        evolve(WaveProblem(Disk(), Laplacian(2), Dirichlet(), 0.0), grid, [0, 1], step=0.1),
        tmp_path / "wave.h5",
    )
    with open_dataset(tmp_path / "run.h5") as data:
        assert data.times.tolist() == [0.0, 0.25, 1.0]
        stored = data["u"][0]
        assert np.allclose(stored, np.nan_to_num(run.values), atol=1e-7)
    with h5py.File(tmp_path / "run.h5") as file:
        stated: list[str] = [repr(dict(file["provenance"].attrs))]
        file["provenance"].visititems(
            lambda name, item: stated.append(
                repr(item[()] if isinstance(item, h5py.Dataset) else dict(item.attrs))
            )
        )
    text = "".join(stated)
    assert "velocity" in text
    assert "u - u**3" in text.replace("-u**3 + u", "u - u**3")
    assert "0x" not in text
    with open_dataset(tmp_path / "frame.h5") as data:
        assert np.allclose(data.read("u")[0], np.nan_to_num(run.values[-1]), atol=1e-7)
