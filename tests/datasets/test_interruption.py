"""What interrupts a generation: kills, Ctrl-C, full disks, damaged shards."""

import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_engine import RECIPE, Stop, datasets, generate_and_stop

from sciml import provenance
from sciml.datasets import Recipe, Trajectory, engine, generate, open_dataset
from sciml.datasets.journal import Journal
from sciml.datasets.recipes import DarcyRecipe
from sciml.datasets.shards import Shard, ShardTask, compute_shard
from sciml.datasets.verification import verify
from sciml.errors import DatasetFormatError, OutputExistsError, StorageError

# Whoever edits the code meanwhile changes the commit.
COMMAND = [sys.executable, "-m", "sciml", "generate", "darcy", "--resolution", "65", "-n", "240"]
COMMAND += ["--shard-size", "6", "--mix-commits"]


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("engine") / "darcy.h5"
    return datasets(generate(RECIPE, 240, path, shard_size=6))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds child processes in /proc")
@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_again_and_again_and_resumed_is_bit_identical(
    tmp_path: Path, plugin: Path, unstable: Callable[..., Recipe], kills: int
) -> None:
    """At random moments, mostly by SIGKILL, once by SIGTERM; once before anything is there."""
    n, moments = 50 * kills, random.Random(kills)
    path, parts = tmp_path / "u.h5", tmp_path / "u.h5.parts"
    command = [sys.executable, "-m", "sciml", "generate", "unstable", "-n", str(n), "--shard-size", "4"]
    command += ["--workers", "2", "-o", str(path), "--plugin", str(plugin), "--mix-commits"]
    environment = {**os.environ, "UNSTABLE_PAUSE": "0.02"}
    kept = 0
    for kill in range(kills):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        while kill and process.poll() is None and len(list(parts.glob("shard-*.h5"))) <= kept:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.2))
        assert process.poll() is None, "the generation finished before it could be killed"
        workers = children(process.pid)
        process.send_signal(signal.SIGTERM if kill == 1 else signal.SIGKILL)
        process.wait()
        assert not path.exists()
        shards = len(list(parts.glob("shard-*.h5")))
        assert shards >= kept + (kill > 0)
        kept = shards
        deadline = time.time() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.time() < deadline, "workers outlive their killed parent"
            time.sleep(0.02)
    subprocess.run(command, check=True, capture_output=True)
    undisturbed = generate(unstable(), n, tmp_path / "undisturbed.h5", shard_size=4)
    assert datasets(path) == datasets(undisturbed)
    assert sorted(tmp_path.iterdir()) == sorted([path, undisturbed])


def test_a_scheduler_ends_it_in_one_line(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    path = tmp_path / "darcy.h5"
    command = [*COMMAND, "--workers", "2", "-o", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "darcy.h5.parts").glob("shard-*.h5")):
        assert process.poll() is None
        time.sleep(0.005)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert errors.strip().splitlines()[-1].startswith("sciml: error: terminated: run the same command again")
    assert "Traceback" not in errors
    subprocess.run(command, check=True, capture_output=True)
    assert datasets(path) == uninterrupted


def test_ctrl_c_keeps_finished_shards(
    tmp_path: Path, uninterrupted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, parts = tmp_path / "darcy.h5", tmp_path / "darcy.h5.parts"
    command = [*COMMAND, "--workers", "2", "-o", str(path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(parts.glob("shard-*.h5")):
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1].startswith("sciml: error: interrupted")
    assert "Traceback" not in errors
    assert not path.exists()
    shards = {shard: shard.stat().st_mtime_ns for shard in parts.glob("shard-*.h5")}
    assert shards
    journal = parts / "journal.jsonl"
    lines = journal.read_text().splitlines()
    # A line may be there twice, where Ctrl-C came between its writing and its counting.
    starts = [int(shard.stem.removeprefix("shard-")) for shard in shards]
    finished = {index for start in starts for index in range(start, start + 6)}
    assert {json.loads(line)["index"] for line in lines} == finished

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "publish_file", interrupt)
        with pytest.raises(KeyboardInterrupt):
            generate(RECIPE, 240, path, shard_size=6, mix_commits=True)
    assert all(shard.stat().st_mtime_ns == written for shard, written in shards.items())
    again = journal.read_text().splitlines()
    assert again[: len(lines)] == lines
    assert len(again) == len(lines) + 240 - len(finished), "no finished trajectory is computed again"
    assert datasets(generate(RECIPE, 240, path, shard_size=6, mix_commits=True)) == uninterrupted


def test_ctrl_c_in_a_destructor_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python drops exceptions there: the generation went on to its end."""

    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    append = Journal.append

    def append_while_dying(journal: Journal, entries: list) -> None:
        append(journal, entries)
        Dying()

    monkeypatch.setattr(Journal, "append", append_while_dying)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        generate(RECIPE, 8, tmp_path / "darcy.h5", shard_size=2)
    assert len(list((tmp_path / "darcy.h5.parts").glob("shard-*.h5"))) == 2
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("commits", [("a" * 40, "b" * 40), ("a" * 40, "a" * 40 + "-dirty")])
def test_another_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commits: tuple[str, str]) -> None:
    """Unfinished work of one commit is finished by another only if asked for, and the file says so."""
    recipe, path, parts = DarcyRecipe(resolution=9), tmp_path / "d.h5", tmp_path / "d.h5.parts"
    old, new = commits

    def check_out(commit: str) -> None:
        monkeypatch.setattr(engine, "git_commit", lambda: commit)
        monkeypatch.setattr(provenance, "git_commit", lambda: commit)

    check_out(old)
    generate_and_stop(recipe, 8, path)
    shards = {shard: shard.stat().st_mtime_ns for shard in parts.glob("shard-*.h5")}
    check_out(new)
    message = f"unfinished generation of commit {old}, now {new}: check that one out, pass --mix-commits"
    with pytest.raises(OutputExistsError, match=message):
        generate(recipe, 8, path, shard_size=2)
    with pytest.raises(OutputExistsError, match="seed was 0, now 1"):
        generate(recipe, 8, path, shard_size=2, seed=1, mix_commits=True)
    with Stop(6) as executor, pytest.raises(KeyboardInterrupt):
        generate(recipe, 8, path, shard_size=2, mix_commits=True, executor=executor)
    assert all(shard.stat().st_mtime_ns == written for shard, written in shards.items())
    generate(recipe, 8, path, shard_size=2)  # now it is this one's work, too
    expected = generate(recipe, 8, tmp_path / "new.h5")
    assert datasets(path) == datasets(expected)
    with open_dataset(path) as mixed, open_dataset(expected) as pure:
        assert mixed.provenance["git_commit"] == f"{old}, {new}"
        assert pure.provenance["git_commit"] == new
    assert all(finding.passed for finding in verify(path, samples=8, seed=0, progress=False))

    # Bits that differ are a defect in the recorded environment, and within the tolerance otherwise.
    sample = DarcyRecipe.sample

    def almost(recipe: DarcyRecipe, seed: int) -> Trajectory:
        found = sample(recipe, seed)
        return replace(found, fields={name: 1.00001 * values for name, values in found.fields.items()})

    monkeypatch.setattr(DarcyRecipe, "sample", almost)
    *_, last = verify(path, samples=8, seed=0, progress=False)
    assert last.passed
    assert "another environment than recorded, tolerance" in last.found
    *_, last = verify(expected, samples=8, seed=0, progress=False)
    assert not last.passed


def test_shards_of_another_commit_are_discarded_with_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, path = DarcyRecipe(resolution=9), tmp_path / "d.h5"
    generate_and_stop(recipe, 8, path)
    monkeypatch.setattr(engine, "git_commit", lambda: "b" * 40)
    monkeypatch.setattr(provenance, "git_commit", lambda: "b" * 40)
    generate(recipe, 8, path, shard_size=2, overwrite=True)
    with open_dataset(path) as data:
        assert data.provenance["git_commit"] == "b" * 40


def test_worker_that_dies_is_replaced(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    path, parts = tmp_path / "darcy.h5", tmp_path / "darcy.h5.parts"
    process = subprocess.Popen(
        [*COMMAND, "--workers", "2", "-o", str(path)], stderr=subprocess.PIPE, text=True
    )
    while not list(parts.glob("shard-*.h5")):
        assert process.poll() is None
        time.sleep(0.005)
    workers = [
        pid for pid in children(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert datasets(path) == uninterrupted


@pytest.mark.parametrize("limit", [60_000, 1_500_000], ids=["shard", "merge"])
def test_full_disk_leaves_the_old_file(tmp_path: Path, limit: int) -> None:
    """A file-size limit makes writes fail in the kernel, first of a shard, then of the merged file."""
    path = tmp_path / "darcy.h5"
    generate(DarcyRecipe(resolution=33), 2, path)
    old = path.read_bytes()
    command = [*COMMAND, "-n", "60", "--workers", "1", "--overwrite", "-o", str(path)]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert run.returncode == 1, run.stderr
    assert run.stderr.strip().count("\n") == 0
    assert "the file would exceed the size limit" in run.stderr
    assert path.read_bytes() == old
    assert not list(tmp_path.glob(".*tmp"))
    with open_dataset(generate(RECIPE, 60, path, shard_size=6, overwrite=True)) as data:
        assert data.n_trajectories == 60


@pytest.fixture
def small_disk(tmp_path: Path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not permitted here; the file-size limit above covers the code path")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_no_space_left_on_a_small_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_disk / "darcy.h5"
    generate(DarcyRecipe(resolution=17), 2, path)
    old = path.read_bytes()
    before = sorted(small_disk.iterdir())
    with pytest.raises(StorageError, match=r"need 16\.2 MB more, 0\.\d MB are free"):
        generate(RECIPE, 240, path, shard_size=6, overwrite=True)
    assert sorted(small_disk.iterdir()) == before
    # Somebody else fills it meanwhile.
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 0, 10**9))
    with pytest.raises(StorageError, match="no space left on the disk"):
        generate(RECIPE, 240, path, shard_size=6, overwrite=True)
    assert path.read_bytes() == old


def test_unfinished_overwriting_is_not_taken_for_finished(tmp_path: Path) -> None:
    """Without --overwrite, what is there must be what was asked for, whatever lies beside it."""
    path, recipe = tmp_path / "d.h5", DarcyRecipe(resolution=9)
    generate(recipe, 2, path)
    with Stop(4) as executor, pytest.raises(KeyboardInterrupt):
        generate(recipe, 8, path, shard_size=2, executor=executor, overwrite=True)
    for resume in (False, True):
        with pytest.raises(OutputExistsError, match=r"holds another dataset \(n was 2, now 8"):
            generate(recipe, 8, path, shard_size=2, resume=resume)
    assert len(list((tmp_path / "d.h5.parts").glob("shard-*.h5"))) == 2
    generate(recipe, 8, path, shard_size=2, overwrite=True)


def test_a_shard_that_is_there_is_not_computed_again(tmp_path: Path, unstable: Callable[..., Recipe]) -> None:
    """Its worker died after writing it, or a scheduler gave it to two."""
    path = tmp_path / "shard-00000000.h5"
    task = ShardTask(pickle.dumps(unstable()), (), 0, "cpu", 0, 8, str(path))
    entries = compute_shard(task)
    written = path.stat().st_mtime_ns
    assert compute_shard(task) == entries
    assert path.stat().st_mtime_ns == written


def test_a_shard_that_a_cancelled_task_wrote_too_late_is_made_again(
    tmp_path: Path, unstable: Callable[..., Recipe]
) -> None:
    """Where other settings found nothing, and began."""
    path = tmp_path / "shard-00000000.h5"
    right = ShardTask(pickle.dumps(unstable()), (), 0, "cpu", 0, 8, str(path))
    for wrong in (replace(right, seed=1), replace(right, stop=6)):
        compute_shard(wrong)
        entries = compute_shard(right)
        assert [entry["index"] for entry in entries if entry["status"] == "done"] == list(range(8))
        Shard(0, 8, path).record({**unstable().config(), "seed": 0})
        path.unlink()


def test_killed_after_publication_before_the_shards_are_removed(tmp_path: Path) -> None:
    path, parts = tmp_path / "d.h5", tmp_path / "d.h5.parts"
    recipe = DarcyRecipe(resolution=17)
    generate_and_stop(recipe, 8, path)
    left_over = tmp_path / "left-over"
    shutil.copytree(parts, left_over)
    generate(recipe, 8, path, shard_size=2)
    old = path.read_bytes()
    shutil.copytree(left_over, parts)
    generate(recipe, 8, path, shard_size=2)  # the same command simply finishes
    assert not parts.exists()
    assert path.read_bytes() == old


def test_killed_while_the_folder_of_shards_is_made_or_removed(tmp_path: Path) -> None:
    """Either moment can leave the engine's own files without a plan; they are not in the way."""
    path, recipe = tmp_path / "d.h5", DarcyRecipe(resolution=17)
    for left in (".plan.json.123.tmp", "shard-00000000.h5", "journal.jsonl"):
        parts = tmp_path / "d.h5.parts"
        parts.mkdir()
        (parts / left).write_bytes(b"half written")
        generate(recipe, 4, path, shard_size=2, overwrite=True)
        assert not parts.exists()
    with open_dataset(path) as data:
        assert data.n_trajectories == 4


def test_damaged_shard_is_made_again(tmp_path: Path) -> None:
    path, recipe = tmp_path / "d.h5", DarcyRecipe(resolution=17)
    generate_and_stop(recipe, 8, path)
    shard = next((tmp_path / "d.h5.parts").glob("shard-*.h5"))
    shard.write_bytes(shard.read_bytes()[:3000])
    generate(recipe, 8, path, shard_size=2)
    assert datasets(path) == datasets(generate(recipe, 8, tmp_path / "e.h5"))


@pytest.mark.parametrize("other", ["seed", "parameter", "length", "dataset"])
def test_a_shard_of_another_dataset_is_made_again(tmp_path: Path, other: str) -> None:
    recipe, path, name = DarcyRecipe(resolution=17), tmp_path / "f.h5", "shard-00000000.h5"
    expected = datasets(generate(recipe, 8, tmp_path / "expected.h5"))
    generate_and_stop(recipe, 8, path)
    shard, foreign = tmp_path / "f.h5.parts" / name, tmp_path / name
    if other == "dataset":
        generate(recipe, 2, foreign)  # the right trajectories, but not what a task wrote
    else:
        stop = 3 if other == "length" else 2
        cousin = DarcyRecipe(resolution=17, low=2.0) if other == "parameter" else recipe
        seed = int(other == "seed")
        compute_shard(ShardTask(pickle.dumps(cousin), (), seed, "cpu", 0, stop, str(foreign)))
    shutil.copy(foreign, shard)
    with pytest.raises(DatasetFormatError, match="trajectories of another dataset; it is removed"):
        Shard(0, 2, foreign).record({**recipe.config(), "seed": 0})
    assert not foreign.exists()
    generate(recipe, 8, path, shard_size=2)
    assert datasets(path) == expected


def test_journal(tmp_path: Path, unstable: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows all that happened, and mends itself after a kill."""
    path, parts = tmp_path / "u.h5", tmp_path / "u.h5.parts"

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    def stop_before_publication() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "publish_file", interrupt)
            with pytest.raises(KeyboardInterrupt):
                generate(unstable(), 40, path, shard_size=2)

    stop_before_publication()
    journal = parts / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    entries = [json.loads(line) for line in lines]
    done = [entry for entry in entries if entry["status"] == "done"]
    assert [entry["index"] for entry in done] == list(range(40))
    assert all(entry["checks"]["overshoot"] < 1 and entry["cpu_seconds"] > 0 for entry in done)
    rejected = [entry for entry in entries if entry["status"] == "rejected"]
    assert rejected
    assert all(entry["seed"] % 7 == 0 and entry["reason"] == "'u' is not finite" for entry in rejected)
    for damaged in (
        "",
        "".join(lines)[:-9],
        "".join(lines[:3]) + "\0\0\0\n" + "".join(lines) * 2,
        lines[-1][:-1],
    ):
        journal.write_text(damaged)
        mended = Journal(journal)
        assert all(json.loads(line) in entries for line in journal.read_text().splitlines())
        assert not mended.knows(40)
        stop_before_publication()
        again = Journal(journal)
        assert again.rejected == len(rejected)
        assert again.cpu_seconds == pytest.approx(sum(entry["cpu_seconds"] for entry in done) / len(done))
        assert journal.read_text().endswith("\n")
    generate(unstable(), 40, path, shard_size=2)
    assert not parts.exists()


def test_a_full_disk_at_any_moment(tmp_path: Path, full_disks: Callable[..., Iterator[bool]]) -> None:
    """Every flush to the disk fails once: plan, shards, journal, final file, folders."""
    path, recipe = tmp_path / "d.h5", DarcyRecipe(resolution=9)
    generate(recipe, 2, path)
    old, new = datasets(path), datasets(generate(recipe, 4, tmp_path / "new.h5"))
    for refused in full_disks(lambda: generate(recipe, 4, path, shard_size=2, overwrite=True)):
        assert datasets(path) in ((old, new) if refused else (new,))
        assert not list(tmp_path.glob(".*.tmp"))
        generate(recipe, 4, path, shard_size=2, overwrite=True)
        assert datasets(path) == new
        assert not (tmp_path / "d.h5.parts").exists()
        generate(recipe, 2, path, overwrite=True)
