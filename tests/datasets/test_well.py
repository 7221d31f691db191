"""The Well's directories: exports that its loader opens and `inspect --verify` passes, statistics, imports."""

import hashlib
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_exports import DARCY, FLOW, U, make

from sciml.cli import main
from sciml.datasets import generate, open_dataset, recipe_registry
from sciml.datasets.publication import verify_manifest
from sciml.datasets.verification import verify
from sciml.datasets.well import export_well, field_statistics, import_well, write_statistics
from sciml.errors import ConfigError, OutputExistsError


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
    for path in (tmp_path / "0.h5", str(tmp_path / "0.h5")):
        with pytest.raises(ConfigError, match=r"0\.h5': give a list of files"):
            write_statistics(tmp_path, path)  # type: ignore[arg-type]
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
        digest = hashlib.sha256((tmp_path / "a.h5").read_bytes()).hexdigest()
        size = (tmp_path / "a.h5").stat().st_size
        origin = {"converted_from": {"file": "a.h5", "bytes": size, "sha256": digest}}
        assert part.config == {**whole.config, **origin, "part": "test", "first": 10}
        assert part.provenance["created_utc"] == whole.provenance["created_utc"]
    with pytest.raises(OutputExistsError):
        export_well(tmp_path / "a.h5", tmp_path / "out")
    make(tmp_path / "b.h5", U, 2, name="other")
    export_well(tmp_path / "b.h5", tmp_path / "out", overwrite=True)
    assert [path.name for path in (tmp_path / "out/data/train").iterdir()] == ["other.hdf5"]
    assert not (tmp_path / "out/test.yaml").exists()


def test_an_export_replaces_its_like_whole_and_no_stranger(tmp_path: Path) -> None:
    make(tmp_path / "a.h5", U, 1, n=5)
    make(tmp_path / "b.h5", U, 1, n=6)
    out = tmp_path / "out"
    export_well(tmp_path / "a.h5", out)
    # As a kill between the two renames leaves it.
    (tmp_path / ".out.exchange/new").mkdir(parents=True)
    out.rename(tmp_path / ".out.exchange/old")
    with pytest.raises(OutputExistsError, match="exists: pass --overwrite"):
        export_well(tmp_path / "b.h5", out)
    assert verify_manifest(out) == []
    with pytest.raises(OutputExistsError, match="holds the input"):
        export_well(out / "data/train/test.hdf5", out, overwrite=True)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds other things \(notes.txt\)"):
        export_well(tmp_path / "b.h5", out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    export_well(tmp_path / "b.h5", out, overwrite=True)
    assert verify_manifest(out) == []
    with open_dataset(out / "data/train/test.hdf5") as part:
        assert part.n_trajectories == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5", "out"]


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
        attributes = dict(file["scalars/nu"].attrs)
        del file["scalars/nu"]
        file["scalars/nu"] = 1e300
        file["scalars/nu"].attrs.update(attributes)
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
        assert data["nu"][()] == 1e300
    with pytest.raises(OutputExistsError, match="is the input"):
        import_well(tmp_path / "a.h5", tmp_path / "a.h5", overwrite=True)
    with pytest.raises(ConfigError, match="needs no import"):
        import_well(tmp_path / "b.h5", tmp_path / "c.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["dimensions/time"][1] += 1
    with pytest.raises(ConfigError, match="times differ"):
        import_well(tmp_path / "a.h5", tmp_path / "c.h5")


def test_an_export_is_verified_as_if_generated_in_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generate(recipe_registry["darcy"](resolution=9), 5, "darcy.h5")
    assert main(["convert", "darcy.h5", "--to", "well", "-o", "darcy"]) == 0
    assert main(["inspect", "darcy", "--verify"]) == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out
    assert "manifest: all files are as written" in out
    manifest = json.loads(Path("darcy/manifest.json").read_text())
    assert manifest["trajectories"] == {"train": 3, "valid": 1, "test": 1}
    assert manifest["config"]["converted_from"]["file"] == "darcy.h5"
    files = {f"data/{part}/darcy.hdf5" for part in ("train", "valid", "test")}
    assert set(manifest["files"]) == {"stats.yaml", "darcy.yaml", *files}
    assert set(manifest["statistics"]) == files
    with open_dataset("darcy.h5") as whole, open_dataset("darcy/data/train/darcy.hdf5") as part:
        for name in ("created_utc", "command", "git_commit", "processor"):
            assert part.provenance[name] == whole.provenance[name]
        assert part.provenance["cpu_seconds"] == pytest.approx(0.6 * whole.provenance["cpu_seconds"])
        assert part.provenance["converted_utc"] >= whole.provenance["created_utc"]
    with h5py.File("darcy/data/valid/darcy.hdf5", "r+") as file:
        file["t0_fields/u"][0, 1, 4, 4] += 1
    assert [finding.subject for finding in verify("darcy", samples=1) if not finding.passed][:2] == [
        "manifest",
        "valid: checksums",
    ]


def test_the_readme_shows_how_the_wells_loader_normalises(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("the_well.data")
    monkeypatch.chdir(tmp_path)
    generate(recipe_registry["advection"](frames=8), 4, "flows", split=(0.5, 0.25, 0.25))
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    [block] = [block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "WellDataset" in block]
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out == "8 torch.Size([4, 256, 1])\n"
    with open_dataset("flows/data/train/flows.hdf5") as data:
        u = data["u"][()].astype(float)
    seen = names["flows"][0]["input_fields"][..., 0].numpy()
    assert seen == pytest.approx((u[0, :4] - u.mean()) / u.std(), abs=1e-5)


def test_an_export_of_a_part_or_of_an_import_keeps_its_origin(tmp_path: Path) -> None:
    generate(recipe_registry["darcy"](resolution=9), 8, tmp_path / "darcy", split=(0.5, 0.5, 0.0))
    export_well(tmp_path / "darcy/data/valid/darcy.hdf5", tmp_path / "again")
    assert all(finding.passed for finding in verify(tmp_path / "again", samples=2))
    with open_dataset(tmp_path / "again/data/test/darcy.hdf5") as part:
        assert (part.config["first"], part.config["part"]) == (7, "test")
    make(tmp_path / "a.h5", U, 2)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["provenance"], file.attrs["format"]
    export_well(tmp_path / "a.h5", tmp_path / "foreign")
    assert verify_manifest(tmp_path / "foreign") == []
    with open_dataset(tmp_path / "foreign/data/test/test.hdf5") as part:
        assert part.record is None
