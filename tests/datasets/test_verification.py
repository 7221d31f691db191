"""Verification: a dataset is what it says, and one altered value is found."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from sciml.cli import main
from sciml.datasets import OdeDataset, Trajectory, generate, open_dataset
from sciml.datasets.recipe import OdeLayout, Recipe, recipe_registry, relative_difference, trajectory_seeds
from sciml.datasets.recipes import DarcyRecipe, LotkaVolterraRecipe, NavierStokesRecipe
from sciml.datasets.record import Record
from sciml.datasets.rows import checksums, copy_rows, header_checksum, row_datasets
from sciml.datasets.verification import is_verified, recipe_of, self_convergence, verify
from sciml.errors import ConfigError, DatasetFormatError

SMALL = LotkaVolterraRecipe(final_time=2.0, frames=11)


@pytest.fixture(scope="module")
def darcy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(DarcyRecipe(resolution=33), 5, tmp_path_factory.mktemp("d") / "darcy.h5")


@pytest.fixture(scope="module")
def orbits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(SMALL, 6, tmp_path_factory.mktemp("o") / "orbits.h5", shard_size=4)


def failed(path: Path) -> list[str]:
    return [finding.subject for finding in verify(path, seed=0, progress=False) if not finding.passed]


def test_generated_files_pass(darcy: Path, orbits: Path) -> None:
    for path in (darcy, orbits):
        findings = verify(path, seed=0, progress=False)
        assert all(finding.passed for finding in findings), findings
        assert any(finding.found == "bit for bit" for finding in findings)
        with open_dataset(path) as data:
            assert data.record is not None
            assert data.record.verified.tolist() == [0, 1, 2]
            assert len(data.record.verification["self_convergence"]) == 3


@pytest.mark.parametrize("device", ["cpu:0", *(["cuda"] if torch.cuda.is_available() else [])])
def test_files_made_on_a_device_pass_on_the_processor(tmp_path: Path, device: str) -> None:
    recipe = NavierStokesRecipe(frames=4, final_time=3.0)
    path = generate(recipe, 4, tmp_path / "flow.h5", device=device)
    findings = verify(path, seed=0, progress=False)
    assert all(finding.passed for finding in findings), findings
    with open_dataset(path) as data:
        assert data.record is not None
        assert data.record.device == device


def alter(path: Path, change: Callable[[h5py.File], None], tmp_path: Path) -> Path:
    copy = Path(shutil.copy(path, tmp_path / "altered.h5"))
    with h5py.File(copy, "r+") as file:
        change(file)
    return copy


def one_value(name: str, index: tuple[int, ...]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name][index] = np.nextafter(file[name][index], file[name].dtype.type(10))

    return change


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("t0_fields/u", (3, 1, 9, 9)),
        ("t0_fields/a", (4, 2, 2)),
        ("dimensions/x", (5,)),
        ("dimensions/time", (1,)),
    ],
)
def test_one_altered_value_is_found(darcy: Path, tmp_path: Path, name: str, index: tuple[int, ...]) -> None:
    # The last bit of one value of a trajectory that need not be among the regenerated ones.
    assert "checksums" in failed(alter(darcy, one_value(name, index), tmp_path))


def provenance(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file["provenance"].attrs[name] = value

    return change


def set_attribute(path: str, name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[path].attrs[name] = value

    return change


def set_entry(path: str, index: tuple[int, ...], value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[path][index] = value

    return change


CHECK = "provenance/checks/invariant_drift"


@pytest.mark.parametrize(
    "change",
    [
        one_value("states", (5, 7, 1)),
        set_attribute("/", "alpha", 0.7),
        set_attribute("states", "names", ["y", "x"]),
        set_attribute(CHECK, "limit", 10.0),
        set_entry("provenance/seed", (1,), 5),
        set_entry(CHECK, (2,), 1e-20),
        set_entry("provenance/verification/self_convergence", (1,), 0.0),
        set_entry("provenance/verification/index", (1,), 44),
        provenance("device", "cuda"),
        provenance("equation", "x' = 0"),
    ],
)
def test_whatever_is_altered_is_found(
    orbits: Path, tmp_path: Path, change: Callable[[h5py.File], None]
) -> None:
    assert "checksums" in failed(alter(orbits, change, tmp_path))


def reseal(file: h5py.File) -> None:
    """Forge the checksums, too."""
    file["provenance/checksum"][...] = checksums(file)
    file["provenance"].attrs["header_checksum"] = header_checksum(file)


def forged(*changes: Callable[[h5py.File], None]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for part in changes:
            part(file)
        reseal(file)

    return change


def test_regeneration_finds_what_a_forged_checksum_hides(orbits: Path, tmp_path: Path) -> None:
    path = alter(orbits, forged(one_value("states", (0, 3, 0))), tmp_path)
    findings = verify(path, samples=6, progress=False)
    assert [f.subject[:11] for f in findings if not f.passed] == ["regenerated"]
    path = alter(orbits, forged(set_entry(CHECK, (2,), 1e-20)), tmp_path)
    findings = verify(path, samples=6, progress=False)
    assert ["invariant_drift" in f.found for f in findings if not f.passed] == [True]


def test_a_wrong_solution_is_found_by_solving_it_again(orbits: Path, tmp_path: Path) -> None:
    def wrong(file: h5py.File) -> None:
        file["states"][1, 5:] *= 1.001

    subjects = failed(alter(orbits, forged(wrong), tmp_path))
    assert any("solved again" in subject for subject in subjects)


def test_measures_are_judged_by_the_recipe_and_must_be_there(orbits: Path, tmp_path: Path) -> None:
    def without(name: str) -> Callable[[h5py.File], None]:
        def change(file: h5py.File) -> None:
            del file["provenance"][name]

        return change

    worse = (set_entry(CHECK, (2,), 5.0), set_attribute(CHECK, "limit", 10.0))
    assert "stored check: invariant_drift" in failed(alter(orbits, forged(*worse), tmp_path))
    large = set_entry("provenance/verification/self_convergence", (2,), 1.0)
    assert "stored: self_convergence" in failed(alter(orbits, forged(large), tmp_path))
    assert "stored check: invariant_drift" in failed(alter(orbits, forged(without("checks")), tmp_path))
    missing = failed(alter(orbits, forged(without("verification")), tmp_path))
    assert {"stored: solved again", "stored: self_convergence"} <= set(missing)


def test_nothing_is_not_verified(orbits: Path) -> None:
    for arguments in ({"samples": 0}, {"samples": -1}, {"seed": -1}):
        with pytest.raises(ConfigError, match="at least 1 sample"):
            verify(orbits, **arguments)


def test_generate_says_when_a_dataset_is_less_accurate_than_stated(sciml, tmp_path: Path) -> None:
    run = sciml("generate", "lorenz", "-n", 1, "--step", 0.02, "--workers", 1, "-o", "l.h5")
    assert run.returncode == 1
    assert "l.h5 is complete, but self_convergence exceeds" in run.stderr
    assert (tmp_path / "l.h5").exists()


def test_foreign_seeds_and_shapes_are_found(orbits: Path, tmp_path: Path) -> None:
    assert "seeds" in failed(alter(orbits, forged(set_entry("provenance/seed", (1,), 5)), tmp_path))

    def fewer(file: h5py.File) -> None:
        config = json.loads(file["provenance/config"].asstr()[()])
        config["parameters"]["frames"] = 7
        del file["provenance/config"]
        file["provenance/config"] = json.dumps(config)

    assert {"layout", "regenerated"} <= set(failed(alter(orbits, forged(fewer), tmp_path)))


def test_the_zero_frame_of_a_steady_problem_must_stay_zero(darcy: Path, tmp_path: Path) -> None:
    assert "checksums" in failed(alter(darcy, set_entry("t0_fields/u", (3, 0, 9, 9), 7.0), tmp_path))


def test_a_folder_is_verified_with_all_its_parts(tmp_path: Path) -> None:
    folder = generate(SMALL, 6, tmp_path / "orbits", split=(0.5, 0.25, 0.25))
    findings = verify(folder, seed=0, progress=False)
    assert all(finding.passed for finding in findings), findings
    for part in ("train", "valid", "test"):
        assert any(f.subject.startswith(f"{part}: solved again") for f in findings)
    with h5py.File(next(folder.glob("data/test/*.hdf5")), "r+") as file:
        forged(one_value("states", (0, 3, 0)))(file)
    assert {"manifest", "test: regenerated"} <= {subject.split(" traj")[0] for subject in failed(folder)}


def test_an_older_or_foreign_file(orbits: Path, tmp_path: Path) -> None:
    def old(file: h5py.File) -> None:
        for name in ("checksum", "rejected", "verification"):
            del file["provenance"][name]

    altered = alter(orbits, old, tmp_path)
    assert "checksums" in failed(altered)
    assert "samples" not in [finding.subject for finding in verify(altered, seed=0, progress=False)]

    with pytest.raises(ConfigError, match="stored parameters"):
        recipe_of({"recipe": "darcy", "parameters": {"colour": 3}})


def configured(**config: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["provenance/config"]
        file["provenance/config"] = json.dumps(config)

    return change


def test_without_its_recipe_what_can_be_checked_is_checked(
    orbits: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    unknown = configured(recipe="lorenz-mine", parameters={}, seed=0)
    path = alter(orbits, forged(unknown), tmp_path)
    assert failed(path) == ["not checked"]
    assert main(["inspect", str(path), "--verify"]) == 1
    output = capsys.readouterr()
    assert "pass  stored check: invariant_drift" in output.out
    assert "(recipe 'lorenz-mine' is not known here: pass --plugin FILE.py)" in output.err
    assert "again" not in output.err
    assert failed(alter(orbits, unknown, tmp_path)) == ["checksums", "not checked"]
    worse = set_entry(CHECK, (2,), 5.0)
    assert failed(alter(orbits, forged(unknown, worse), tmp_path)) == [
        "stored check: invariant_drift",
        "not checked",
    ]
    path = alter(orbits, forged(configured(imported_from={})), tmp_path)
    findings = verify(path)
    assert [finding.subject for finding in findings if finding.passed][:1] == ["checksums"]
    assert "names no recipe" in findings[-1].found
    assert not findings[-1].passed


def test_a_foreign_file_is_not_verified(darcy: Path, tmp_path: Path) -> None:
    def foreign(file: h5py.File) -> None:
        del file["provenance"], file.attrs["format"]

    assert failed(alter(darcy, foreign, tmp_path)) == ["not checked"]


def test_elsewhere_the_stated_accuracy_is_the_tolerance(orbits: Path, tmp_path: Path) -> None:
    def elsewhere(scale: float) -> Callable[[h5py.File], None]:
        def change(file: h5py.File) -> None:
            file["provenance"].attrs["processor"] = "another"
            file["states"][...] = file["states"][()] * (1 + scale)
            reseal(file)

        return change

    assert failed(alter(orbits, elsewhere(1e-13), tmp_path)) == []
    assert any("regenerated" in subject for subject in failed(alter(orbits, elsewhere(1e-6), tmp_path)))


def test_the_verified_sample_grows_with_the_dataset() -> None:
    assert [i for i in range(160) if is_verified(i)] == [0, 1, 2, 50, 100, 150]


def test_relative_difference_is_the_largest_over_fields() -> None:
    ours = Trajectory({"a": np.array([1.0, 2.0]), "b": np.array([0.0, 0.0])})
    theirs = Trajectory({"a": np.array([1.0, 2.1]), "b": np.array([0.0, 0.0])})
    assert relative_difference(ours, theirs) == pytest.approx(0.1 / np.hypot(1.0, 2.1))
    assert relative_difference(ours, theirs, slice(1)) == 0
    zero = Trajectory({"a": np.zeros(2), "b": np.array([0.0, 0.0])})
    assert relative_difference(ours, zero) == np.inf
    assert relative_difference(Trajectory({"a": np.full(2, np.nan)}), ours) == np.inf


def test_replacement_seeds_differ_from_all_others() -> None:
    seeds = np.concatenate([trajectory_seeds(0, 0, 50, attempt) for attempt in range(4)])
    assert len(set(seeds.tolist())) == 200
    assert (trajectory_seeds(0, 3, 5, 2) == trajectory_seeds(0, 0, 5, 2)[3:]).all()


def test_records_are_joined_and_split_again(orbits: Path) -> None:
    with OdeDataset(orbits) as data:
        record = data.record
        assert record is not None
        parts = [record.select(0, 2), record.select(2, 5), record.select(5, 6)]
        assert [part.verified.tolist() for part in parts] == [[0, 1], [0], []]
        whole = Record.join(parts, record.config)
        assert whole.verified.tolist() == record.verified.tolist()
        assert (whole.seeds == record.seeds).all()
        assert (whole.checksums == record.checksums).all()
        assert all((whole.verification[name] == values).all() for name, values in record.verification.items())


def test_rows_are_copied_whole(orbits: Path, darcy: Path, tmp_path: Path) -> None:
    for path, expected in ((orbits, ["states"]), (darcy, ["t0_fields/a", "t0_fields/u"])):
        target = Path(shutil.copy(path, tmp_path / path.name))
        with h5py.File(path) as source, h5py.File(target, "r+") as file:
            assert row_datasets(source) == expected
            copy_rows(source, file, 0, slice(2, 4))
            assert (checksums(file)[:2] == checksums(source)[2:4]).all()
            assert (checksums(file)[2:] == checksums(source)[2:]).all()


def test_reading_states(orbits: Path) -> None:
    with OdeDataset(orbits) as data:
        assert data.components == ("x", "y")
        assert data["states"].shape == (6, 11, 2)
        assert data["states"].dtype == np.float64
        assert data["alpha"][()] == SMALL.alpha
        assert data.seeds is not None
        again = SMALL.sample(int(data.seeds[4])).fields["states"]
        assert (again == data["states"][4]).all()
        with pytest.raises(ConfigError, match="did you mean 'states'"):
            data["state"]


@pytest.mark.parametrize("name", ["time", "states", "scalars", "provenance/seed"])
def test_a_damaged_file_of_states_is_refused(orbits: Path, tmp_path: Path, name: str) -> None:
    def damage(file: h5py.File) -> None:
        del file[name]

    with pytest.raises(DatasetFormatError, match=name.split("/")[-1]):
        open_dataset(alter(orbits, damage, tmp_path))


def test_wrong_kinds_are_named(orbits: Path, darcy: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="kind 'fields': a dataset of kind 'ode'"):
        OdeDataset(darcy)

    def rename(file: h5py.File) -> None:
        file.attrs["kind"] = "graph"

    with pytest.raises(
        DatasetFormatError, match="kind 'graph': this sciml reads the kinds fields, ode, points"
    ):
        open_dataset(alter(orbits, rename, tmp_path))


@dataclass(frozen=True)
class Unrefined(Recipe):
    """A recipe that cannot be refined."""

    def layout(self) -> OdeLayout:
        return OdeLayout("plain", {"x": "number"}, (0.0, 1.0))

    def sample(self, seed: int) -> Trajectory:
        return Trajectory({"states": np.full((2, 1), float(seed % 1000))})


def test_a_recipe_that_cannot_be_refined_is_still_regenerated(tmp_path: Path) -> None:
    recipe_registry.register("unrefined-for-tests")(Unrefined)
    path = generate(Unrefined(), 3, tmp_path / "plain.h5")
    findings = verify(path, seed=1, progress=False)
    assert all(finding.passed for finding in findings)
    assert any("cannot be refined" in finding.found for finding in findings)
    assert self_convergence(Unrefined(), [1], [Unrefined().sample(1)]) == {}


@dataclass(frozen=True)
class Constant(Unrefined):
    """A recipe that draws hardly anything from its seed."""

    def sample(self, seed: int) -> Trajectory:
        return Trajectory({"states": np.full((2, 1), float(seed % 2))})


def test_samples_that_are_the_same_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    recipe_registry.register("constant-for-tests")(Constant)
    path = tmp_path / "same.h5"
    assert main(["generate", "constant-for-tests", "-n", "12", "--workers", "1", "-o", str(path)]) == 0
    assert "warning: 10 of the trajectories are the same as others" in capsys.readouterr().err
    assert failed(path) == ["samples"]
    with open_dataset(path) as data:
        assert data.record is not None
        values = data["states"][:, 0, 0].tolist()
        again = [row for row, value in enumerate(values) if value in values[:row]]
        assert len(again) == 10
    assert main(["inspect", str(path), "--verify"]) == 1
    assert f"{', '.join(map(str, again[:8]))} and 2 more" in capsys.readouterr().out
    # Two parts of one sample each, which are the same.
    parts = ["generate", "constant-for-tests", "-n", "3", "--workers", "1", "-o", str(tmp_path / "parts")]
    assert main([*parts, "--split", "0.34", "0.33", "0.33"]) == 0
    assert "warning: 1 of the trajectories" in capsys.readouterr().err
    assert failed(tmp_path / "parts") == ["samples of all parts"]
