"""The generation engine: kills, workers, full disks, bad trajectories."""

import fcntl
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
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
    generate,
    open_dataset,
    trajectory_seeds,
)
from sciml.datasets.recipes import Darcy, PoissonStar
from sciml.errors import ConfigError, ConvergenceError, DatasetFormatError, OutputExistsError, StorageError
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
    "240",
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
    return datasets(generate(RECIPE, 240, path, shard_size=6))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds child processes in /proc")
def test_killed_three_times_and_resumed_is_bit_identical(
    tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    path, moments = tmp_path / "darcy.h5", random.Random(1)
    parts = tmp_path / "darcy.h5.parts"
    command = [*COMMAND, "--workers", "2", "-o", str(path)]
    kept = 0
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(parts.glob("shard-*.h5"))) <= kept:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.15))
        assert process.poll() is None, "the generation finished before it could be killed"
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not path.exists()
        kept = len(list(parts.glob("shard-*.h5")))
        assert kept > 0
        deadline = time.time() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.time() < deadline, "workers outlive their killed parent"
            time.sleep(0.02)
    subprocess.run(command, check=True, capture_output=True)
    assert datasets(path) == uninterrupted
    assert not parts.exists()
    assert list(tmp_path.iterdir()) == [path]


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


def test_worker_that_dies_is_reported_and_nothing_is_lost(tmp_path: Path) -> None:
    path, parts = tmp_path / "darcy.h5", tmp_path / "darcy.h5.parts"
    process = subprocess.Popen(
        [*COMMAND, "--workers", "2", "-o", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(parts.glob("shard-*.h5")):
        assert process.poll() is None
        time.sleep(0.005)
    for pid in children(process.pid):
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"spawn_main" in command_line:
            os.kill(pid, signal.SIGKILL)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a worker process died" in errors
    assert "Traceback" not in errors
    assert list(parts.glob("shard-*.h5"))


@pytest.mark.parametrize("limit", [60_000, 1_500_000], ids=["shard", "merge"])
def test_full_disk_leaves_the_old_file(tmp_path: Path, limit: int) -> None:
    """A file-size limit makes writes fail in the kernel, first of a shard, then of the merged file."""
    path = tmp_path / "darcy.h5"
    generate(Darcy(resolution=33), 2, path)
    old = path.read_bytes()
    command = [*COMMAND, "--workers", "1", "--overwrite", "-o", str(path)]
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
    subprocess.run(command, check=True, capture_output=True)
    with open_dataset(path) as data:
        assert data.n_trajectories == 240


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


def test_no_space_left_on_a_small_disk(small_disk: Path) -> None:
    path = small_disk / "darcy.h5"
    generate(Darcy(resolution=17), 2, path)
    old = path.read_bytes()
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
    for left in (".plan.json.123.tmp", "shard-00000000.h5", "lock"):
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
    with pytest.raises(DatasetFormatError, match="run the same command again"):
        generate(recipe, 8, path, shard_size=2)
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
    with (tmp_path / "f.h5.parts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputExistsError, match="another process"):
            generate(recipe, 8, tmp_path / "f.h5", shard_size=2)


def test_thread_limits_are_restored(tmp_path: Path) -> None:
    before = [pool["num_threads"] for pool in threadpool_info()]
    with ThreadPoolExecutor(3) as executor:
        generate(Darcy(resolution=17), 24, tmp_path / "d.h5", shard_size=2, executor=executor)
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def generate_and_stop(recipe: Recipe, n: int, path: Path) -> None:
    class Stop(ThreadPoolExecutor):
        def submit(self, *args: object, **kwargs: object):
            if args[1].start >= n // 2:  # type: ignore[attr-defined]
                raise KeyboardInterrupt
            return super().submit(*args, **kwargs)  # type: ignore[arg-type]

    with Stop(1) as executor, pytest.raises(KeyboardInterrupt):
        generate(recipe, n, path, shard_size=2, executor=executor)


@dataclass(frozen=True)
class Faulty(Recipe):
    """Fails on purpose."""

    check_limits = {"residual": 1.0}  # noqa: RUF012

    broken: str = ""
    residual: float = 0.0

    def layout(self) -> FieldsLayout:
        return FieldsLayout("faulty", CartesianGrid.uniform(4), (FieldSpec("u", ""),), scalars=("s",))

    def sample(self, seed: int) -> Trajectory:
        value = {"nan": np.nan, "overflow": 1e39}.get(self.broken, 0.0)
        scalars = {"s": np.inf if self.broken == "scalar" else 0.0}
        checks = {} if self.broken == "unchecked" else {"residual": self.residual}
        return Trajectory({"u": np.full((5, 5), value)}, scalars, checks)


def test_bad_trajectories_are_never_stored(tmp_path: Path) -> None:
    seed = int(trajectory_seeds(0, 0, 1)[0])
    for broken in ("nan", "overflow", "scalar"):
        with pytest.raises(ConvergenceError, match=f"seed {seed} is not finite"):
            generate(Faulty(broken=broken), 2, tmp_path / f"{broken}.h5")
    with pytest.raises(DatasetFormatError, match=r"has checks \[\], the recipe declares"):
        generate(Faulty(broken="unchecked"), 2, tmp_path / "unchecked.h5")
    for residual in (2.0, 1.0 + 1e-12):
        with pytest.raises(ConvergenceError, match=f"check 'residual' .* seed {seed}"):
            generate(Faulty(residual=residual), 2, tmp_path / f"check{residual}.h5")
    assert not list(tmp_path.glob("*.h5"))
    with pytest.raises(ConfigError, match="not finite"):
        generate(Faulty(residual=np.nan), 2, tmp_path / "nan-setting.h5")
    generate(Faulty(), 2, tmp_path / "good.h5")


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
