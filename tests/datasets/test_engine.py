"""The generation engine: kills, workers, full disks, bad trajectories."""

import contextlib
import errno
import fcntl
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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from sciml.datasets import (
    FieldsLayout,
    FieldSpec,
    Recipe,
    Trajectory,
    engine,
    generate,
    open_dataset,
    recipe_registry,
    trajectory_seeds,
)
from sciml.datasets.journal import Journal
from sciml.datasets.recipe import OdeLayout
from sciml.datasets.recipes import Darcy, PoissonStar
from sciml.datasets.shards import Shard, ShardTask, compute_shard
from sciml.errors import (
    ConfigError,
    ConvergenceError,
    DatasetFormatError,
    OutputExistsError,
    StorageError,
)
from sciml.registry import load_plugin
from sciml.solvers import CartesianGrid

RECIPE = Darcy(resolution=65)
COMMAND = [
    sys.executable,
    "-m",
    "sciml",
    "generate",
    "darcy",
    "--resolution",
    "65",
    "-n",
    "600",
    "--shard-size",
    "6",
]


def datasets(path: Path) -> dict[str, bytes]:
    """Every dataset of a file, as bytes."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.__setitem__(name, np.asarray(item[()]).tobytes())
                if isinstance(item, h5py.Dataset) and item.dtype != object
                else found.__setitem__(name, item.asstr()[()].encode())
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


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
    return datasets(generate(RECIPE, 600, path, shard_size=6))


UNSTABLE = """
import os, time
from dataclasses import dataclass
import numpy as np
from sciml.datasets import FieldSpec, FieldsLayout, Recipe, Trajectory, recipe_registry
from sciml.errors import ConvergenceError
from sciml.solvers import CartesianGrid

PAUSE = float(os.environ.get("UNSTABLE_PAUSE", 0))

@recipe_registry.register("unstable")
@dataclass(frozen=True)
class Unstable(Recipe):
    "Noise; every seventh seed blows up."
    equation = "none"
    check_limits = {"overshoot": 1.0}
    accuracy = 1e-6

    trouble: str = "nan"
    "How: nan, raise or check."

    def layout(self):
        specs = FieldSpec("u", "noise"), FieldSpec("a", "noise", rank=1, time_varying=False)
        times = 0.0, 0.5, 1.0
        return FieldsLayout(
            "unstable", CartesianGrid.uniform(4), specs, times, False, ("s",), {"p": 1e-3}, ("a",), ("u",)
        )

    def sample(self, seed):
        time.sleep(PAUSE)
        rng = np.random.default_rng(seed)
        u, a, s = rng.random((3, 5, 5)), rng.random((5, 5, 2)), rng.random()
        bad = seed % 7 == 0
        if bad and self.trouble == "raise":
            raise ConvergenceError(f"seed {seed} blew up")
        if bad and self.trouble == "nan":
            u[2, 1, 1] = np.nan
        return Trajectory({"u": u, "a": a}, {"s": s}, {"overshoot": 2.0 if bad else s})

    def refined(self):
        return self
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "unstable.py"
    path.write_text(UNSTABLE)
    load_plugin(path)
    return path


@pytest.fixture(scope="module")
def unstable(plugin: Path) -> Callable[..., Recipe]:
    return recipe_registry["unstable"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds child processes in /proc")
@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_again_and_again_and_resumed_is_bit_identical(
    tmp_path: Path, plugin: Path, unstable: Callable[..., Recipe], kills: int
) -> None:
    """At random moments, mostly by SIGKILL, once by SIGTERM; once before anything is there."""
    n, moments = 50 * kills, random.Random(kills)
    path, parts = tmp_path / "u.h5", tmp_path / "u.h5.parts"
    command = [sys.executable, "-m", "sciml", "generate", "unstable", "-n", str(n), "--shard-size", "4"]
    command += ["--workers", "2", "-o", str(path), "--plugin", str(plugin)]
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


def test_any_executor_gives_the_same_data(tmp_path: Path) -> None:
    one = datasets(generate(RECIPE, 20, tmp_path / "one.h5", shard_size=6))
    two = datasets(generate(RECIPE, 20, tmp_path / "two.h5", shard_size=6, workers=2))
    with ThreadPoolExecutor(2) as executor:
        threads = datasets(generate(RECIPE, 20, tmp_path / "threads.h5", shard_size=6, executor=executor))
    assert one == two == threads


def test_a_longer_dataset_begins_with_the_shorter_one(tmp_path: Path) -> None:
    with (
        open_dataset(generate(RECIPE, 5, tmp_path / "short.h5")) as short,
        open_dataset(generate(RECIPE, 9, tmp_path / "long.h5", shard_size=4)) as long,
    ):
        assert (short["u"][()] == long["u"][:5]).all()
        assert (long.seeds == trajectory_seeds(0, 0, 9)).all()
    assert not (trajectory_seeds(0, 0, 9) == trajectory_seeds(1, 0, 9)).any()


def test_ctrl_c_keeps_finished_shards(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
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
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("sciml: error: interrupted")
    assert "Traceback" not in errors
    assert not path.exists()
    assert list(parts.glob("shard-*.h5"))
    subprocess.run(command, check=True, capture_output=True)
    assert datasets(path) == uninterrupted


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
    generate(Darcy(resolution=33), 2, path)
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
    generate(Darcy(resolution=17), 2, path)
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


def test_existing_output_and_other_plans_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "darcy.h5"
    small = Darcy(resolution=17)
    generate(small, 3, path)
    old = path.read_bytes()
    with pytest.raises(OutputExistsError, match=r"--resume .* --overwrite"):
        generate(small, 3, path)
    generate(small, 3, path, resume=True)
    with pytest.raises(OutputExistsError, match=r"n was 3, now 4"):
        generate(small, 4, path, resume=True)
    with pytest.raises(OutputExistsError, match="resolution was 17, now 18"):
        generate(Darcy(resolution=18), 3, path, resume=True)
    assert path.read_bytes() == old
    generate(small, 4, path, overwrite=True)
    parts = tmp_path / "other.h5.parts"
    generate_and_stop(small, 8, tmp_path / "other.h5")
    assert parts.exists()
    with pytest.raises(OutputExistsError, match="unfinished generation"):
        generate(Darcy(resolution=19), 8, tmp_path / "other.h5")
    generate(Darcy(resolution=19), 8, tmp_path / "other.h5", overwrite=True)
    assert not parts.exists()


def test_unfinished_overwriting_is_not_taken_for_finished(tmp_path: Path) -> None:
    """Without --overwrite, what is there must be what was asked for, whatever lies beside it."""
    path, recipe = tmp_path / "d.h5", Darcy(resolution=9)
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


def test_killed_after_publication_before_the_shards_are_removed(tmp_path: Path) -> None:
    path, parts = tmp_path / "d.h5", tmp_path / "d.h5.parts"
    recipe = Darcy(resolution=17)
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
    path, recipe = tmp_path / "d.h5", Darcy(resolution=17)
    for left in (".plan.json.123.tmp", "shard-00000000.h5", "journal.jsonl"):
        parts = tmp_path / "d.h5.parts"
        parts.mkdir()
        (parts / left).write_bytes(b"half written")
        generate(recipe, 4, path, shard_size=2, overwrite=True)
        assert not parts.exists()
    with open_dataset(path) as data:
        assert data.n_trajectories == 4


def test_damaged_shard_is_made_again(tmp_path: Path) -> None:
    path, recipe = tmp_path / "d.h5", Darcy(resolution=17)
    generate_and_stop(recipe, 8, path)
    shard = next((tmp_path / "d.h5.parts").glob("shard-*.h5"))
    shard.write_bytes(shard.read_bytes()[:3000])
    generate(recipe, 8, path, shard_size=2)
    assert datasets(path) == datasets(generate(recipe, 8, tmp_path / "e.h5"))


def test_foreign_folders_and_a_second_process_are_refused(tmp_path: Path) -> None:
    path, recipe = tmp_path / "d.h5", Darcy(resolution=17)
    precious = tmp_path / "d.h5.parts" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match="move it away"):
            generate(recipe, 2, path, overwrite=overwrite)
    assert precious.exists()
    with pytest.raises(ConfigError, match="is a folder"):
        generate(recipe, 2, tmp_path)
    generate_and_stop(recipe, 8, tmp_path / "f.h5")
    shards = sorted((tmp_path / "f.h5.parts").glob("shard-*"))
    with (tmp_path / ".f.h5.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for overwrite in (False, True):
            with pytest.raises(OutputExistsError, match="another process"):
                generate(recipe, 8, tmp_path / "f.h5", shard_size=2, seed=int(overwrite), overwrite=overwrite)
    assert sorted((tmp_path / "f.h5.parts").glob("shard-*")) == shards  # none of the other's work is lost
    generate(recipe, 8, tmp_path / "f.h5", shard_size=2)
    assert not (tmp_path / ".f.h5.lock").exists()


@pytest.mark.parametrize("other", ["seed", "parameter", "length", "dataset"])
def test_a_shard_of_another_dataset_is_made_again(tmp_path: Path, other: str) -> None:
    recipe, path, name = Darcy(resolution=17), tmp_path / "f.h5", "shard-00000000.h5"
    expected = datasets(generate(recipe, 8, tmp_path / "expected.h5"))
    generate_and_stop(recipe, 8, path)
    shard, foreign = tmp_path / "f.h5.parts" / name, tmp_path / name
    if other == "dataset":
        generate(recipe, 2, foreign)  # the right trajectories, but not what a task wrote
    else:
        stop = 3 if other == "length" else 2
        cousin = Darcy(resolution=17, low=2.0) if other == "parameter" else recipe
        seed = int(other == "seed")
        compute_shard(ShardTask(pickle.dumps(cousin), (), seed, "cpu", 0, stop, str(foreign)))
    shutil.copy(foreign, shard)
    with pytest.raises(DatasetFormatError, match="trajectories of another dataset; it is removed"):
        Shard(0, 2, foreign).record({**recipe.config(), "seed": 0})
    assert not foreign.exists()
    generate(recipe, 8, path, shard_size=2)
    assert datasets(path) == expected


@pytest.mark.parametrize("name", ["n", "seed", "workers", "shard_size"])
@pytest.mark.parametrize("value", [1.5, True, "2"])
def test_counts_are_integers(tmp_path: Path, name: str, value: object) -> None:
    arguments = {"n": 2, name: value}
    with pytest.raises(ConfigError, match=f"{name}={value!r}: it must be an integer"):
        generate(Darcy(resolution=17), path=tmp_path / "f.h5", **arguments)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    recipe, long = Darcy(resolution=9), "x" * 240
    (tmp_path / "file").touch()
    for path, error, message in (
        (f"{tmp_path}/a\0b", ConfigError, "null character"),
        ("/", ConfigError, "is a folder"),
        # Its temporary files would have names too long only when all is computed.
        (tmp_path / long, ConfigError, "longer than 200 bytes"),
        (tmp_path / (long * 2) / "d.h5", StorageError, "File name too long"),
        (tmp_path / "file" / "d.h5", StorageError, "choose another path"),
    ):
        with pytest.raises(error, match=message):
            generate(recipe, 2, path)
    with pytest.raises(ConfigError, match=r"plugins=\['nowhere\.py'\]: no such file"):
        generate(recipe, 2, tmp_path / "d.h5", plugins=["nowhere.py"])
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]
    assert generate(recipe, 2, tmp_path / long[:200], split=(0.5, 0.5, 0)).is_dir()


def test_thread_limits_are_restored(tmp_path: Path) -> None:
    before = [pool["num_threads"] for pool in threadpool_info()]
    with ThreadPoolExecutor(3) as executor:
        generate(Darcy(resolution=17), 24, tmp_path / "d.h5", shard_size=2, executor=executor)
    assert [pool["num_threads"] for pool in threadpool_info()] == before


class Stop(ThreadPoolExecutor):
    """Computes the trajectories before ``last``, then is interrupted."""

    def __init__(self, last: int) -> None:
        super().__init__(1)
        self.last = last

    def submit(self, *args: object, **kwargs: object):
        task = args[1]
        if task.start >= self.last:  # type: ignore[attr-defined]
            self.shutdown()
            raise KeyboardInterrupt
        return super().submit(*args, **kwargs)  # type: ignore[arg-type]


def generate_and_stop(recipe: Recipe, n: int, path: Path, seed: int = 0) -> None:
    with Stop(n // 2) as executor, pytest.raises(KeyboardInterrupt):
        generate(recipe, n, path, seed=seed, shard_size=2, executor=executor)


@dataclass(frozen=True)
class Faulty(Recipe):
    """Fails on purpose."""

    check_limits = {"residual": 1.0}  # noqa: RUF012

    broken: str = ""
    residual: float = 0.0

    def layout(self) -> FieldsLayout:
        return FieldsLayout("faulty", CartesianGrid.uniform(4), (FieldSpec("u", ""),), scalars=("s",))

    def sample(self, seed: int) -> Trajectory:
        value = {"nan": np.nan, "overflow": 1e39, "complex": 1j}.get(self.broken, 0.0)
        scalars = {"s": {"scalar": np.inf, "complex scalar": 0j}.get(self.broken, 0.0)}
        checks = {} if self.broken == "unchecked" else {"residual": self.residual}
        if self.broken == "nan check":
            checks = {"residual": np.nan}
        return Trajectory({"u": np.full((5, 5), value)}, scalars, checks)

    def sample_batch(self, seeds: Sequence[int]) -> list[Trajectory]:  # type: ignore[override]
        return [self.sample(seed) for seed in seeds][: 1 if self.broken == "short" else None]


def test_bad_trajectories_are_never_stored(tmp_path: Path) -> None:
    """Whoever fails six times is not to be mended by other seeds; defects of a recipe are not retried."""
    seed = int(trajectory_seeds(0, 0, 1, attempt=5)[0])
    for broken in ("nan", "overflow", "scalar"):
        with pytest.raises(
            ConvergenceError, match=f"trajectory 0 .* seed {seed}: '.' is not finite; .* step"
        ):
            generate(Faulty(broken=broken), 2, tmp_path / f"{broken}.h5")
    for residual in (2.0, 1.0 + 1e-12):
        with pytest.raises(ConvergenceError, match=f"seed {seed}: check 'residual' is .* above its limit"):
            generate(Faulty(residual=residual), 2, tmp_path / f"check{residual}.h5")
    with pytest.raises(ConvergenceError, match=f"seed {seed}: check 'residual' is nan"):
        generate(Faulty(broken="nan check"), 2, tmp_path / "nan-check.h5")
    for broken, name in (("complex", "u"), ("complex scalar", "s")):
        with pytest.raises(DatasetFormatError, match=f"'{name}' of the trajectory with seed .* is complex"):
            generate(Faulty(broken=broken), 2, tmp_path / f"{broken}.h5")
    with pytest.raises(DatasetFormatError, match=r"has checks \[\], the recipe declares"):
        generate(Faulty(broken="unchecked"), 2, tmp_path / "unchecked.h5")
    with pytest.raises(DatasetFormatError, match="returned 1 trajectories for 2 seeds"):
        generate(Faulty(broken="short"), 2, tmp_path / "short.h5")
    with pytest.raises(ConfigError, match="runs on the CPU only"):
        generate(Faulty(), 2, tmp_path / "cuda.h5", device="cuda")
    with pytest.raises(ConfigError, match="not finite"):
        generate(Faulty(residual=np.nan), 2, tmp_path / "nan-setting.h5")
    assert not list(tmp_path.iterdir()), "nothing is left to be in the way of another attempt"
    generate(Faulty(), 2, tmp_path / "good.h5")


@pytest.mark.parametrize("trouble", ["nan", "raise", "check"])
def test_rejected_trajectories_are_replaced(
    tmp_path: Path, plugin: Path, unstable: Callable[..., Recipe], trouble: str
) -> None:
    """The same bits whatever the workers, the shards and the blocks in which they are computed."""
    recipe, n = unstable(trouble), 40
    settings = [{"shard_size": 40}, {"shard_size": 7}, {}]
    if trouble == "nan":
        settings.append({"shard_size": 9, "workers": 2, "plugins": [str(plugin)]})
    files = [
        generate(recipe, n, tmp_path / f"{k}.h5", **setting)  # type: ignore[arg-type]
        for k, setting in enumerate(settings)
    ]
    seeds, rejected = [], []
    for index in range(n):
        attempts = [int(trajectory_seeds(0, index, index + 1, attempt)[0]) for attempt in range(6)]
        good = next(k for k, seed in enumerate(attempts) if seed % 7)
        seeds.append(attempts[good])
        rejected += attempts[:good]
    assert len(rejected) > 3
    with open_dataset(files[0]) as data:
        assert data.record is not None
        assert data.record.seeds.tolist() == seeds
        assert data.record.rejected.tolist() == rejected
        assert data.record.verified.tolist() == [0, 1, 2]
        assert (data.record.verification["self_convergence"] == 0).all()
        assert np.array_equal(data["u"][5], recipe.sample(seeds[5]).fields["u"].astype(np.float32))
    assert all(datasets(file) == datasets(files[0]) for file in files[1:])


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


def test_a_full_disk_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every flush to the disk fails once: plan, shards, journal, final file, folders."""
    path, recipe, flush = tmp_path / "d.h5", Darcy(resolution=9), os.fsync
    generate(recipe, 2, path)
    old, new = datasets(path), datasets(generate(recipe, 4, tmp_path / "new.h5"))
    calls = 0

    def refuse(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    moment, refused = 1, True
    while refused:
        calls = 0
        monkeypatch.setattr(os, "fsync", refuse)
        with contextlib.suppress(StorageError):
            generate(recipe, 4, path, shard_size=2, overwrite=True)
        refused = calls >= moment
        monkeypatch.setattr(os, "fsync", flush)
        assert datasets(path) in ((old, new) if refused else (new,))
        assert not list(tmp_path.glob(".*.tmp"))
        generate(recipe, 4, path, shard_size=2, overwrite=True)
        assert datasets(path) == new
        assert not (tmp_path / "d.h5.parts").exists()
        generate(recipe, 2, path, overwrite=True)
        moment += 1
    assert moment > 10


def test_disk_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {name: shutil._ntuple_diskusage(10**9, 0, free) for name, free in (("small", 10**5), ("none", 0))}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: sizes["small"])
    path = tmp_path / "deep" / "d.h5"
    with pytest.raises(StorageError, match=r"need 3\.4 MB more, 0\.1 MB are free .* free some space"):
        generate(RECIPE, 50, path)
    assert not list(tmp_path.iterdir())
    generate(Darcy(resolution=9), 2, path)
    # Finished shards need no more room; a file system that tells nothing is believed to have it.
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 0))
    generate(Darcy(resolution=9), 2, path, overwrite=True)


FAT = """
import resource, sys
from dataclasses import dataclass
import numpy as np
from sciml.datasets import FieldSpec, FieldsLayout, Recipe, Trajectory, generate, shards
from sciml.solvers import CartesianGrid

@dataclass(frozen=True)
class Fat(Recipe):
    def layout(self):
        return FieldsLayout("fat", CartesianGrid.uniform(255), (FieldSpec("u", ""),), tuple(range(4)), False)

    def sample(self, seed):
        return Trajectory({"u": np.full((4, 256, 256), seed % 100, dtype=np.float32)})

shards.BLOCK_BYTES = 4 << 20
generate(Fat(), 4, sys.argv[1])
small = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
generate(Fat(), 100, sys.argv[1], overwrite=True, shard_size=50)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - small)
"""


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A hundred trajectories of a megabyte in two shards take hardly more than four."""
    run = subprocess.run(
        [sys.executable, "-c", FAT, str(tmp_path / "fat.h5")], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 20_000, f"{run.stdout} KiB more"


@dataclass(frozen=True)
class Oscillator(Recipe):
    """Of kind ode."""

    def layout(self) -> OdeLayout:
        return OdeLayout("oscillator", {"x": "position", "v": "velocity"}, (0.0, 0.1, 0.2), ("phase",))

    def sample(self, seed: int) -> Trajectory:
        phase = np.random.default_rng(seed).random()
        t = phase + np.array([0.0, 0.1, 0.2])
        return Trajectory({"states": np.stack([np.cos(t), -np.sin(t)], axis=1)}, {"phase": phase})


def test_another_kind(tmp_path: Path) -> None:
    files = [generate(Oscillator(), 9, tmp_path / f"{size}.h5", shard_size=size) for size in (2, 9)]
    assert datasets(files[0]) == datasets(files[1])
    with open_dataset(files[0]) as data:
        states, phase = data["states"][()], data["phase"][()]
    assert (states[:, 0, 0] == np.cos(phase)).all()


def test_bad_arguments(tmp_path: Path) -> None:
    for arguments in ({"n": 0}, {"n": 1, "workers": 0}, {"n": 1, "shard_size": 0}, {"n": 1, "seed": -1}):
        name, value = list(arguments.items())[-1]
        with pytest.raises(ConfigError, match=f"{name}={value}"):
            generate(PoissonStar(), path=tmp_path / "x.h5", **arguments)  # type: ignore[arg-type]


PLUGIN = """
from dataclasses import dataclass
import numpy as np
from sciml.datasets import FieldSpec, FieldsLayout, Recipe, Trajectory, recipe_registry
from sciml.solvers import CartesianGrid

@recipe_registry.register("constant")
@dataclass(frozen=True)
class Constant(Recipe):
    "Constant fields."
    level: float = 1.0
    "The value."

    def layout(self):
        return FieldsLayout("constant", CartesianGrid.uniform(4), (FieldSpec("u", "a constant"),))

    def sample(self, seed):
        return Trajectory({"u": np.full((5, 5), self.level)})
"""


def test_plugin_recipe_with_worker_processes(sciml, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    options = ["-n", 6, "--shard-size", 2, "--workers", 2, "--level", "2.5", "-o", "c.h5"]
    run = sciml("generate", "constant", *options, "--plugin", "mine.py")
    assert run.returncode == 0, run.stderr
    with open_dataset(tmp_path / "c.h5") as data:
        assert (data["u"][:, 1] == 2.5).all()
        assert data.config["recipe"] == "constant"
    (tmp_path / "c.h5").unlink()
    parts = tmp_path / "c.h5.parts"
    parts.mkdir()
    (parts / "plan.json").write_text('{"plugins": {"mine.py": "another content"}}')
    run = sciml("generate", "constant", *options, "--plugin", "mine.py")
    assert run.returncode == 1
    assert "unfinished generation" in run.stderr
    run = sciml("generate", "constant", "-o", "d.h5")
    assert run.returncode == 1
    assert "unknown recipe 'constant'" in run.stderr
