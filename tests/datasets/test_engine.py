"""The generation engine: executors, arguments, what is refused, what is kept within bounds."""

import fcntl
import hashlib
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from sciml.datasets import (
    Recipe,
    Trajectory,
    engine,
    generate,
    open_dataset,
    recipe_registry,
    resources,
    trajectory_seeds,
)
from sciml.datasets.recipe import OdeLayout
from sciml.datasets.recipes import DarcyRecipe, PoissonStarRecipe
from sciml.datasets.shards import ShardTask, compute_shard
from sciml.errors import (
    ConfigError,
    OutputExistsError,
    StorageError,
)
from sciml.registry import load_plugin

RECIPE = DarcyRecipe(resolution=65)


def datasets(path: Path) -> dict[str, bytes]:
    """Every dataset of a file, as bytes."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.__setitem__(name, np.asarray(item[()]).tobytes())
                if isinstance(item, h5py.Dataset) and item.dtype != object
                else found.__setitem__(name, repr(np.asarray(item.asstr()[()]).tolist()).encode())
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


@pytest.mark.parametrize(
    "recipe",
    [RECIPE, recipe_registry["navier-stokes"](resolution=16, frames=3, final_time=0.5, modes=4)],
    ids=["one by one", "in batches"],
)
def test_any_executor_gives_the_same_data(tmp_path: Path, recipe: Recipe) -> None:
    one = datasets(generate(recipe, 20, tmp_path / "one.h5", shard_size=6))
    two = datasets(generate(recipe, 20, tmp_path / "two.h5", shard_size=7, workers=2))
    with ThreadPoolExecutor(2) as executor:
        threads = datasets(generate(recipe, 20, tmp_path / "threads.h5", shard_size=6, executor=executor))
    assert one == two == threads


def test_a_longer_dataset_begins_with_the_shorter_one(tmp_path: Path) -> None:
    with (
        open_dataset(generate(RECIPE, 5, tmp_path / "short.h5")) as short,
        open_dataset(generate(RECIPE, 9, tmp_path / "long.h5", shard_size=4)) as long,
    ):
        assert (short["u"][()] == long["u"][:5]).all()
        assert (long.seeds == trajectory_seeds(0, 0, 9)).all()
    assert not (trajectory_seeds(0, 0, 9) == trajectory_seeds(1, 0, 9)).any()


def test_existing_output_and_other_plans_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "darcy.h5"
    small = DarcyRecipe(resolution=17)
    generate(small, 3, path)
    old = path.read_bytes()
    with pytest.raises(OutputExistsError, match=r"--resume .* --overwrite"):
        generate(small, 3, path)
    generate(small, 3, path, resume=True)
    with pytest.raises(OutputExistsError, match=r"n was 3, now 4"):
        generate(small, 4, path, resume=True)
    with pytest.raises(OutputExistsError, match="resolution was 17, now 18"):
        generate(DarcyRecipe(resolution=18), 3, path, resume=True)
    assert path.read_bytes() == old
    generate(small, 4, path, overwrite=True)
    parts = tmp_path / "other.h5.parts"
    generate_and_stop(small, 8, tmp_path / "other.h5")
    assert parts.exists()
    with pytest.raises(OutputExistsError, match="unfinished generation"):
        generate(DarcyRecipe(resolution=19), 8, tmp_path / "other.h5")
    generate(DarcyRecipe(resolution=19), 8, tmp_path / "other.h5", overwrite=True)
    assert not parts.exists()


def test_foreign_folders_and_a_second_process_are_refused(tmp_path: Path) -> None:
    path, recipe = tmp_path / "d.h5", DarcyRecipe(resolution=17)
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


@pytest.mark.parametrize("name", ["n", "seed", "workers", "shard_size"])
@pytest.mark.parametrize("value", [1.5, True, "2"])
def test_counts_are_integers(tmp_path: Path, name: str, value: object) -> None:
    arguments = {"n": 2, name: value}
    with pytest.raises(ConfigError, match=f"{name}={value!r}: it must be an integer"):
        generate(DarcyRecipe(resolution=17), path=tmp_path / "f.h5", **arguments)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    recipe, long = DarcyRecipe(resolution=9), "x" * 240
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
        generate(DarcyRecipe(resolution=17), 24, tmp_path / "d.h5", shard_size=2, executor=executor)
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


def test_disk_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {name: shutil._ntuple_diskusage(10**9, 0, free) for name, free in (("small", 10**5), ("none", 0))}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: sizes["small"])
    path = tmp_path / "deep" / "d.h5"
    with pytest.raises(StorageError, match=r"need 3\.4 MB more, 0\.1 MB are free .* free some space"):
        generate(RECIPE, 50, path)
    assert not list(tmp_path.iterdir())
    generate(DarcyRecipe(resolution=9), 2, path)
    # Finished shards need no more room; a file system that tells nothing is believed to have it.
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 0))
    generate(DarcyRecipe(resolution=9), 2, path, overwrite=True)


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
            generate(PoissonStarRecipe(), path=tmp_path / "x.h5", **arguments)  # type: ignore[arg-type]


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


def test_a_plugin_that_was_edited_meanwhile(tmp_path: Path) -> None:
    """Neither this process nor a worker that lives on computes with the old one."""
    plugin, path = tmp_path / "edited.py", tmp_path / "c.h5"
    plugin.write_text(PLUGIN.replace("constant", "edited"))
    load_plugin(plugin)
    recipe, digest = recipe_registry["edited"](), hashlib.sha256(plugin.read_bytes()).hexdigest()
    with ThreadPoolExecutor(1) as executor:
        generate(recipe, 1, path, executor=executor, plugins=[str(plugin)])
        plugin.write_text(plugin.read_text().replace("self.level)", "2 * self.level)"))
        with pytest.raises(ConfigError, match=r"edited\.py' was edited .* restart the process"):
            generate(recipe, 1, path, executor=executor, plugins=[str(plugin)], overwrite=True)
    assert path.exists()
    for known in (digest, hashlib.sha256(plugin.read_bytes()).hexdigest()):
        task = ShardTask(
            pickle.dumps(recipe), ((str(plugin), known),), 0, "cpu", 0, 1, str(tmp_path / "s.h5")
        )
        with pytest.raises(ConfigError, match="was edited"):
            compute_shard(task)


def test_nothing_to_compute_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, recipe = tmp_path / "d.h5", DarcyRecipe(resolution=9)

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "publish_file", interrupt)
        with pytest.raises(KeyboardInterrupt):
            generate(recipe, 6, path, shard_size=2)
    shards = sorted((tmp_path / "d.h5.parts").glob("shard-*.h5"))
    monkeypatch.setattr(resources, "available_memory", lambda: 0.0)
    monkeypatch.setattr(resources, "MOST_STEPS", -1)
    last = shards[-1].read_bytes()
    shards[-1].unlink()
    with pytest.raises(ConfigError, match="steps"):
        generate(recipe, 6, path, shard_size=2)
    monkeypatch.undo()
    monkeypatch.setattr(resources, "available_memory", lambda: 0.0)
    with pytest.raises(ConfigError, match="1 worker would need"):
        generate(recipe, 6, path, shard_size=2, workers=3)
    shards[-1].write_bytes(last)
    generate(recipe, 6, path, shard_size=2)
    generate(recipe, 6, path, resume=True)


def test_unfinished_work_keeps_its_size_of_shards(tmp_path: Path) -> None:
    path, recipe = tmp_path / "d.h5", DarcyRecipe(resolution=9)
    generate_and_stop(recipe, 8, path)
    with pytest.raises(OutputExistsError, match="shard_size was 2, now 3"):
        generate(recipe, 8, path, shard_size=3)
    with pytest.raises(OutputExistsError, match="seed was 0, now 1"):
        generate(recipe, 8, path, seed=1)
    kept = sorted((tmp_path / "d.h5.parts").glob("shard-*.h5"))
    with Stop(6) as executor, pytest.raises(KeyboardInterrupt):
        generate(recipe, 8, path, executor=executor)
    assert len(sorted((tmp_path / "d.h5.parts").glob("shard-*.h5"))) == len(kept) + 1
    assert datasets(generate(recipe, 8, path)) == datasets(generate(recipe, 8, tmp_path / "e.h5"))


def test_a_recipe_that_no_worker_can_load_leaves_nothing(tmp_path: Path) -> None:
    class Local(DarcyRecipe):
        """Of this function alone."""

    with pytest.raises(ConfigError, match="Local: it cannot be sent to a worker"):
        generate(Local(), 1, tmp_path / "l.h5", progress=False)
    assert not list(tmp_path.iterdir())


def test_arguments_of_another_kind(tmp_path: Path) -> None:
    class Client(ThreadPoolExecutor):
        """Like that of Dask."""

        def get_executor(self) -> None: ...

    for recipe in ("burgers", DarcyRecipe):
        with pytest.raises(ConfigError, match=r"^recipe=.*: give a recipe object such as BurgersRecipe\(\)$"):
            generate(recipe, 1, tmp_path / "x.h5")  # type: ignore[arg-type]
    for executor in (4, Client()):
        with pytest.raises(ConfigError, match=r"^executor=.*: give a concurrent\.futures\.Executor"):
            generate(RECIPE, 1, tmp_path / "x.h5", executor=executor)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="sub/' is a folder: give the name of a file"):
        generate(RECIPE, 1, f"{tmp_path}/sub/")
    for name in ("x.h5", "x.hdf5"):
        with pytest.raises(ConfigError, match=rf"{name}': a split makes a folder"):
            generate(RECIPE, 4, tmp_path / name, split=(0.5, 0.25, 0.25))
    assert not list(tmp_path.iterdir())


def test_what_is_no_recipe_is_not_registered() -> None:
    class Bare(Recipe):
        layout = sample = None  # type: ignore[assignment]

    for wrong, message in (
        (Bare, r"Bare is no dataclass; put @dataclass\(frozen=True\)"),
        (dict, "is no subclass of sciml.datasets.Recipe"),
        (RECIPE, "is no subclass"),
    ):
        with pytest.raises(ConfigError, match=f"^recipe 'wrong': .*{message}"):
            recipe_registry.register("wrong")(wrong)  # type: ignore[arg-type]
    assert "wrong" not in recipe_registry
