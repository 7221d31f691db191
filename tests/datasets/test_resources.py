"""Memory and steps are estimated before anything is written."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from sciml.datasets import FieldsLayout, FieldSpec, Recipe, Trajectory, generate, recipe_registry, resources
from sciml.errors import ConfigError, SciMLError
from sciml.solvers import CartesianGrid

GB = 10**9


@pytest.mark.parametrize(
    ("name", "parameters", "least"),
    [
        ("navier-stokes", {"resolution": 20_000}, 500),
        ("darcy", {"refine": 100_000}, 9_000_000),
        ("poisson-star", {"resolution": 20_001}, 300),
        ("heat-star", {"refine": 200}, 100),
        ("gray-scott", {"refine": 300}, 30),
        # The monitor keeps what it saw of every step.
        ("burgers", {"step": 2e-8}, 30),
    ],
)
def test_what_cannot_fit_into_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, parameters: dict, least: float
) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: least * GB)
    recipe = recipe_registry[name](**parameters)
    ((key, value),) = parameters.items()
    with pytest.raises(
        ConfigError, match=rf"^{name} .*{key}={value}.* 1 worker would need .* choose .*{key}"
    ):
        generate(recipe, 1, tmp_path / "x.h5")
    assert not list(tmp_path.iterdir())


def test_workers_share_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have something to do, and the refined solution included."""
    recipe = recipe_registry["darcy"](resolution=9, modes=4)
    one = recipe.refined().working_memory(3) + 3 * 4 * 4 * 2 * 81
    monkeypatch.setattr(resources, "available_memory", lambda: 2.5 * one)
    settings = {"shard_size": 4, "progress": False}
    with pytest.raises(ConfigError, match=r"modes=4: 3 workers would need .* or fewer workers$"):
        generate(recipe, 12, tmp_path / "x.h5", workers=9, **settings)
    generate(recipe, 4, tmp_path / "x.h5", workers=9, **settings)
    monkeypatch.setattr(resources, "available_memory", lambda: 0.9 * one)
    with pytest.raises(ConfigError, match="1 worker would need"):
        generate(recipe, 4, tmp_path / "y.h5", **settings)


@dataclass(frozen=True)
class Plain(Recipe):
    """Says nothing of what it needs."""

    def layout(self) -> FieldsLayout:
        return FieldsLayout("plain", CartesianGrid.uniform(999), (FieldSpec("u", ""),))

    def sample(self, seed: int) -> Trajectory:
        raise AssertionError


def test_a_recipe_that_says_nothing_holds_its_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 3 * 16 * 4e6 - 1)
    with pytest.raises(ConfigError, match=r"Plain: 1 worker .* 0\.2 GB of memory.*choose a smaller problem"):
        generate(Plain(), 99, tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("name", "parameters", "steps"),
    [
        ("burgers", {"step": 1e-12}, r"1\.0e\+12"),
        ("lorenz", {"step": 1e-9}, r"2\.0e\+10"),
        ("heat-star", {"substeps": 10**6}, r"2\.0e\+07"),
    ],
)
def test_steps_without_end_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, parameters: dict, steps: str
) -> None:
    if name == "heat-star":
        monkeypatch.setattr(resources, "MOST_STEPS", 1e7)
    recipe = recipe_registry[name](**parameters)
    ((key, value),) = parameters.items()
    message = rf"^{name} .*{key}={value}.*: a trajectory would take {steps} steps, .* longer steps"
    with pytest.raises(ConfigError, match=message):
        generate(recipe, 1, tmp_path / "x.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "steps"), [("burgers", 1000), ("lorenz", 10_000), ("heat-star", 40), ("advection", 40)]
)
def test_steps_by_hand(name: str, steps: int) -> None:
    recipe = recipe_registry[name]()
    assert (recipe.steps(), recipe.refined().steps()) == (steps, 2 * steps)


def test_every_registered_recipe_fits_at_its_defaults() -> None:
    for name in recipe_registry:
        recipe = recipe_registry[name]()
        resources.refuse_many_steps(recipe)
        try:
            resources.refuse_small_memory(recipe, recipe.layout(), 32, 2)
        except SciMLError as error:
            pytest.fail(f"{name}: {error}")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The texts of all files that there are."""
    texts: dict[str, str] = {}

    def read(path: Path) -> str:
        if str(path) not in texts:
            raise FileNotFoundError(path)
        return texts[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(Path, "exists", lambda path: str(path) in texts)
    return texts


def test_limits_of_control_groups(files: dict[str, str]) -> None:
    """Versions 1 and 2, by the group's path or, in a container, at the root; "max" is none."""
    files["/proc/meminfo"] = "MemTotal: 9 kB\nMemFree: 3 kB\nMemAvailable: 8 kB\n"
    assert resources.available_memory() == 8192
    files["/proc/self/cgroup"] = "4:memory:/job/7\n2:cpuacct:/\n0::/slice\n"
    assert resources.available_memory() == 8192
    for path, text, expected in (
        ("/sys/fs/cgroup/memory.max", "max\n", 8192),
        ("/sys/fs/cgroup/slice/memory.max", "5000\n", 5000),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "4000\n", 4000),
        ("/sys/fs/cgroup/memory/job/7/memory.limit_in_bytes", "3000\n", 3000),
        ("/sys/fs/cgroup/memory.max", "2000\n", 2000),
    ):
        files[path] = text
        assert resources.available_memory() == expected


def test_what_control_groups_use_and_those_above_them_allow(files: dict[str, str]) -> None:
    files["/proc/self/cgroup"] = "0::/job/step/task\n"
    files["/sys/fs/cgroup/job/step/task/memory.max"] = "max\n"
    files["/sys/fs/cgroup/job/memory.max"] = "5000\n"
    files["/proc/meminfo"] = "MemAvailable: 8 kB\n"
    assert resources.available_memory() == 5000
    files["/sys/fs/cgroup/job/memory.current"] = "4000\n"
    assert resources.available_memory() == 1000
    # What the cache holds of files is given back.
    files["/sys/fs/cgroup/job/memory.stat"] = "anon 1000\ninactive_file 2000\nactive_file 500\n"
    assert resources.available_memory() == 3500
    files["/sys/fs/cgroup/job/memory.current"] = "9000\n"
    assert resources.available_memory() == 0
    files["/proc/self/cgroup"] = "3:cpuset,memory:/job/7\n2:cpu,cpuacct:/job/7\n"
    for path, text, expected in (
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n", 8192),
        ("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "7000\n", 7000),
        ("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "6000\n", 1000),
        ("/sys/fs/cgroup/memory/job/memory.stat", "total_inactive_file 100\n", 1100),
    ):
        files[path] = text
        assert resources.available_memory() == expected


@pytest.mark.parametrize(
    ("amount", "text"),
    [(900, "0.9 kB"), (123_456, "0.1 MB"), (5e7, "50.0 MB"), (2.5e9, "2.5 GB"), (1.671168e14, "167.1 TB")],
)
def test_sizes_are_written_in_a_unit_that_suits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amount: float, text: str
) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: amount)
    monkeypatch.setattr(Plain, "working_memory", lambda recipe, batch: 1e18)
    with pytest.raises(
        ConfigError, match=rf"1 worker would need about 10+\.\d TB of memory, {text} are avail"
    ):
        generate(Plain(), 1, tmp_path / "x.h5")
