"""Folders in The Well's layout: divided right, whole or not at all, and every byte accounted for."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciml.datasets import FieldsDataset, engine, generate, open_dataset, publication, shards
from sciml.datasets.publication import split_counts, summary, verify_manifest
from sciml.datasets.recipes import DarcyRecipe
from sciml.errors import ConfigError, DatasetFormatError, OutputExistsError

RECIPE = DarcyRecipe(resolution=9)
SPLIT = (0.5, 0.25, 0.25)
FILES = [
    "darcy.yaml",
    "data/test/darcy.hdf5",
    "data/train/darcy.hdf5",
    "data/valid/darcy.hdf5",
    "manifest.json",
    "stats.yaml",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight trajectories in shards that the parts do not align with."""
    return generate(RECIPE, 8, tmp_path / "darcy", split=SPLIT, shard_size=3)


def contents(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def fields(path: Path) -> dict[str, np.ndarray]:
    with open_dataset(path) as data:
        assert isinstance(data, FieldsDataset)
        assert data.record is not None
        columns = {name: data[name][()] for name in data.fields}
        return {**columns, "seeds": data.record.seeds, "checksums": data.record.checksums}


@given(
    n=st.integers(3, 10_000),
    weights=st.tuples(*[st.integers(0, 1000)] * 3).filter(lambda weights: sum(weights) > 0),
)
def test_largest_remainder(n: int, weights: tuple[int, int, int]) -> None:
    shares = np.array(weights) / sum(weights)
    counts = np.array(split_counts(n, shares.tolist()))
    assert counts.sum() == n
    assert (counts[shares == 0] == 0).all()
    positive = shares > 0
    assert (counts[positive] > 0).all()
    if (n * shares[positive] >= 1).all():
        assert (np.abs(counts - n * shares) < 1 + 1e-6).all()


def test_split_counts_by_hand() -> None:
    assert split_counts(1100, (0.8, 0.1, 0.1)) == (880, 110, 110)
    assert split_counts(10, (0.75, 0.25, 0)) == (8, 2, 0)
    assert split_counts(70, (0.1, 0.1, 0.8)) == (7, 7, 56)
    assert split_counts(1, (0, 1, 0)) == (0, 1, 0)
    assert split_counts(3, (0.98, 0.01, 0.01)) == (1, 1, 1)
    for n, shares, parts in ((2, (0.8, 0.1, 0.1), 3), (1, (0.5, 0.5, 0), 2)):
        with pytest.raises(
            ConfigError, match=rf"split=.*: n={n} cannot fill {parts} parts; take n={parts} or"
        ):
            split_counts(n, shares)
    for wrong in ((0.8, 0.1), (0.8, 0.3, -0.1), (0.8, 0.1, 0.2), (np.nan, 0.5, 0.5)):
        with pytest.raises(ConfigError, match="split="):
            split_counts(10, wrong)


def test_the_parts_hold_the_trajectories_of_the_single_file(folder: Path, tmp_path: Path) -> None:
    assert contents(folder) == FILES
    assert sorted(tmp_path.iterdir()) == [folder]
    whole = fields(generate(RECIPE, 8, tmp_path / "whole.h5"))
    for part, first, stop in (("train", 0, 4), ("valid", 4, 6), ("test", 6, 8)):
        path = folder / "data" / part / "darcy.hdf5"
        for name, values in fields(path).items():
            assert np.array_equal(values, whole[name][first:stop]), (part, name)
        with open_dataset(path) as data:
            assert data.config["split"] == list(SPLIT)
            assert (data.config["part"], data.config["first"]) == (part, first)
            assert data.record is not None
            assert data.record.verified.tolist() == ([0, 1, 2] if part == "train" else [])
    assert summary(folder).startswith(f"{folder} holds 4 train, 2 valid, 2 test trajectories (0 rejected")
    assert summary(tmp_path / "whole.h5").startswith(f"{tmp_path / 'whole.h5'} holds 8 trajectories (0 rej")


def test_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["config"]["parameters"]["resolution"] == 9
    assert manifest["trajectories"] == {"train": 4, "valid": 2, "test": 2}
    assert sorted(manifest["files"]) == [name for name in FILES if name != "manifest.json"]
    with h5py.File(folder / "data" / "train" / "darcy.hdf5") as file:
        u, a = file["t0_fields/u"][:, 1].astype(float), file["t0_fields/a"][()].astype(float)
    for name, values in (("t0_fields/u", u), ("t0_fields/a", a)):
        found = manifest["statistics"]["data/train/darcy.hdf5"][name]
        assert (found["min"], found["max"], found["nan_count"]) == (values.min(), values.max(), 0)
        assert found["mean"] == pytest.approx(values.mean(), rel=1e-13)
        assert found["std"] == pytest.approx(values.std(), rel=1e-13)

    assert verify_manifest(folder) == []
    test = folder / "data" / "test" / "darcy.hdf5"
    content = bytearray(test.read_bytes())
    content[len(content) // 2] ^= 1
    test.write_bytes(content)
    assert verify_manifest(folder) == ["data/test/darcy.hdf5: its content differs"]
    (folder / "stats.yaml").write_text("")
    (folder / "darcy.yaml").unlink()
    problems = verify_manifest(folder)
    assert problems[0] == "darcy.yaml: missing"
    assert problems[2].startswith("stats.yaml: 0 bytes where ")
    with pytest.raises(DatasetFormatError, match=r"holds no manifest\.json"):
        verify_manifest(folder / "data")


def test_a_folder_that_was_not_published(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetFormatError, match=r"give an HDF5 file, or a folder made with --split or by conv"
    ):
        verify_manifest(tmp_path)


def test_statistics_are_joined_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from zero and a trajectory at a time, nothing cancels."""
    path = tmp_path / "x.h5"
    values = 1e6 + np.random.default_rng(0).random((50, 7))
    values[3, 2] = np.nan
    with h5py.File(path, "w") as file:
        file["x"] = values
        file["x"].attrs["sample_varying"] = file["x"].attrs["time_varying"] = True
    for rows in (1, 7, 50):
        found = publication._statistics(path, rows)["x"]
        assert found["std"] == pytest.approx(np.nanstd(values), rel=1e-9)
        assert found["mean"] == pytest.approx(np.nanmean(values), rel=1e-14)
        assert found["nan_count"] == 1


def test_statistics_of_blocks_without_values(tmp_path: Path) -> None:
    path, values = tmp_path / "x.h5", np.arange(12.0).reshape(4, 3)
    values[1] = np.nan
    with h5py.File(path, "w") as file:
        for name, data in (("some", values), ("none", np.full((4, 3), np.nan))):
            file[name] = data
            file[name].attrs["sample_varying"] = file[name].attrs["time_varying"] = True
    found = publication._statistics(path, 1)
    assert found["some"]["mean"] == pytest.approx(np.nanmean(values))
    assert found["some"]["nan_count"] == 3
    # JSON has no NaN.
    assert found["none"] == {"min": None, "max": None, "mean": None, "std": None, "nan_count": 12}


def test_the_wells_loader_reads_it(folder: Path) -> None:
    yaml = pytest.importorskip("yaml")
    well = pytest.importorskip("the_well.data")
    from the_well.data.normalization import ZScoreNormalization

    for part, count in (("train", 4), ("valid", 2), ("test", 2)):
        dataset = well.WellDataset(
            path=str(folder),
            well_split_name=part,
            n_steps_input=1,
            n_steps_output=1,
            use_normalization=True,
            normalization_type=ZScoreNormalization,
        )
        assert len(dataset) == count
        with open_dataset(folder / "data" / part / "darcy.hdf5") as data:
            u = data["u"][:, 1]
        if part == "train":
            statistics = yaml.safe_load((folder / "stats.yaml").read_text())
            assert statistics["mean"]["u"] == pytest.approx(u.mean(), rel=1e-5)
        expected = (u[0] - statistics["mean"]["u"]) / max(statistics["std"]["u"], 1e-4)
        got = dataset[0]["output_fields"][0, ..., 0].numpy()
        assert np.allclose(got, expected, rtol=1e-4, atol=1e-5)
    card = yaml.safe_load((folder / "darcy.yaml").read_text())
    assert card["resolution"] == [9, 9]
    assert card["trajectories"] == {"train": 4, "valid": 2, "test": 2}
    for measure in card["checks"]["every trajectory"].values():
        assert isinstance(measure["limit"], float), "a number with an exponent must not become text"
        assert measure["largest"] <= measure["limit"]


def test_existing_folders(folder: Path, tmp_path: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(OutputExistsError, match=r"--resume .* --overwrite"):
        generate(RECIPE, 8, folder, split=SPLIT)
    generate(RECIPE, 8, folder, split=SPLIT, resume=True)
    with pytest.raises(OutputExistsError, match="another dataset"):
        generate(RECIPE, 8, folder, split=(0.75, 0.25, 0), resume=True)
    with pytest.raises(ConfigError, match="is a folder"):
        generate(RECIPE, 8, folder, overwrite=True)
    assert (folder / "manifest.json").read_bytes() == before
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"holds other things \(thesis\.txt\)"):
        generate(RECIPE, 8, folder, split=SPLIT, overwrite=True)
    (folder / "thesis.txt").unlink()
    generate(RECIPE, 4, folder, split=(0.75, 0.25, 0), overwrite=True)
    assert contents(folder) == [name for name in FILES if "test" not in name]
    assert verify_manifest(folder) == []
    assert sorted(tmp_path.iterdir()) == [folder]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="with split, give a folder"):
        generate(RECIPE, 8, tmp_path / "file", split=SPLIT, overwrite=True)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    generate(RECIPE, 4, foreign, split=SPLIT)  # an empty one is taken
    (foreign / "manifest.json").unlink()
    with pytest.raises(OutputExistsError, match="holds other things"):
        generate(RECIPE, 4, foreign, split=SPLIT, overwrite=True)


def test_the_folder_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_disks: Callable[..., Iterator[bool]]
) -> None:
    """The disk is full at every second flush in turn; the next attempt goes on."""
    monkeypatch.setattr(shards, "is_verified", lambda index: False)
    folder = tmp_path / "darcy"
    for refused in full_disks(lambda: generate(RECIPE, 4, folder, split=SPLIT, shard_size=4), stride=2):
        if refused and not folder.exists():
            generate(RECIPE, 4, folder, split=SPLIT, shard_size=4)
        assert verify_manifest(folder) == []
        assert contents(folder) == FILES
        shutil.rmtree(folder)
        shutil.rmtree(tmp_path / "darcy.parts", ignore_errors=True)


def test_killed_between_the_old_folder_and_the_new_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment in which neither is in its place: whatever is run next, the old one is not lost."""
    rename = os.rename

    def kill(source: Path, target: Path) -> None:
        if target == folder:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", kill)
        with pytest.raises(KeyboardInterrupt):
            generate(RECIPE, 4, folder, split=SPLIT, overwrite=True)
    assert not folder.exists()
    assert (tmp_path / ".darcy.exchange/old").exists()
    with pytest.raises(OutputExistsError):
        generate(RECIPE, 5, folder, split=SPLIT)
    assert verify_manifest(folder) == []
    assert json.loads((folder / "manifest.json").read_text())["config"]["n"] == 8
    generate(RECIPE, 4, folder, split=SPLIT, overwrite=True)
    assert json.loads((folder / "manifest.json").read_text())["config"]["n"] == 4
    assert sorted(tmp_path.iterdir()) == [folder]


def test_killed_after_the_exchange_of_folders(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards are still there: the same command replaces all of it."""

    def kill(parts: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_discard", kill)
        with pytest.raises(KeyboardInterrupt):
            generate(RECIPE, 4, folder, split=SPLIT, overwrite=True)
    assert (tmp_path / "darcy.parts").exists()
    generate(RECIPE, 4, folder, split=SPLIT, overwrite=True)
    assert sorted(tmp_path.iterdir()) == [folder]
    assert verify_manifest(folder) == []


def test_command_line(sciml, tmp_path: Path) -> None:
    options = ["--resolution", 9, "-n", 8, "--split", 0.5, 0.25, 0.25, "--workers", 1]
    run = sciml("generate", "darcy", *options, "-o", "mine")
    assert run.returncode == 0, run.stderr
    assert "mine holds 4 train, 2 valid, 2 test trajectories" in run.stdout
    assert run.stdout.strip().endswith("sciml inspect mine")
    assert verify_manifest(tmp_path / "mine") == []
