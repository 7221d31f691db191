"""Where shards are computed: own processes, Dask, MPI; and what happens when these die."""

import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from sciml.datasets import generate, pools
from sciml.datasets.recipes import DarcyRecipe
from sciml.errors import ConfigError, SciMLError

RECIPE = DarcyRecipe(resolution=17)


def same(one: Path, two: Path) -> bool:
    """Whether all datasets of two files are equal, bit for bit."""
    with h5py.File(one) as a, h5py.File(two) as b:
        names: list[str] = []
        a.visit(names.append)
        others: list[str] = []
        b.visit(others.append)
        return names == others and all(
            a[name][()] == b[name][()] if a[name].shape == () else np.array_equal(a[name][()], b[name][()])
            for name in names
            if isinstance(a[name], h5py.Dataset)
        )


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(RECIPE, 12, tmp_path_factory.mktemp("serial") / "d.h5")


class Dying(Executor):
    """Computes some tasks in this process, then fails."""

    def __init__(self, error: Exception, survives: int, at_submission: bool = False) -> None:
        self.error, self.left, self.at_submission = error, survives, at_submission

    def submit(self, function: Callable, /, *arguments: object, **options: object) -> Future:
        future: Future = Future()
        self.left -= 1
        if self.left >= 0:
            future.set_result(function(*arguments))
        elif self.at_submission:
            raise self.error
        else:
            future.set_exception(self.error)
        return future


@pytest.mark.parametrize(
    ("error", "at_submission"),
    [
        (BrokenExecutor("the pool is no more"), True),
        (BrokenExecutor("the pool is no more"), False),
        (RuntimeError("cannot schedule new futures after shutdown"), True),
        (CancelledError("lost by the scheduler"), False),
        (ConnectionError("peer reset"), False),
    ],
)
def test_an_executor_that_dies_loses_nothing(
    tmp_path: Path, serial: Path, error: Exception, at_submission: bool
) -> None:
    path = tmp_path / "d.h5"
    with pytest.raises(SciMLError, match=rf"the executor failed \({type(error).__name__}: .*shards are kept"):
        generate(RECIPE, 12, path, shard_size=3, executor=Dying(error, 2, at_submission))
    assert len(list((tmp_path / "d.h5.parts").glob("shard-*.h5"))) == 2
    generate(RECIPE, 12, path, shard_size=3)
    assert same(path, serial)


@pytest.mark.parametrize("at_submission", [True, False])
def test_an_executor_that_fails_at_once_is_not_in_the_way(tmp_path: Path, at_submission: bool) -> None:
    path = tmp_path / "d.h5"
    with pytest.raises(SciMLError, match="the executor failed"):
        generate(RECIPE, 12, path, shard_size=3, executor=Dying(RuntimeError("gone"), 0, at_submission))
    assert not list(tmp_path.iterdir())
    with ThreadPoolExecutor(1) as executor:
        executor.shutdown()
        with pytest.raises(SciMLError, match=r"the executor failed .*after shutdown"):
            generate(RECIPE, 12, path, shard_size=3, executor=executor)
    generate(RECIPE, 12, path, shard_size=4)


def test_tasks_in_hand_are_waited_for() -> None:
    """Whoever catches the error may clean up."""
    begun, finished = threading.Event(), threading.Event()

    def compute(task: int) -> None:
        if task == 0:
            begun.wait()
            raise ValueError("wrong")
        begun.set()
        time.sleep(0.2)
        finished.set()

    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(ValueError, match="wrong"):
            list(pools.run(compute, [0, 1], executor))
        assert finished.is_set()


def test_errors_of_a_task_are_its_own() -> None:
    """Neither are they taken for the executor's, nor can one that does not pickle break it."""
    survivor = Dying(RuntimeError(), 9)
    for wrong in ("1", None):
        with pytest.raises(TypeError, match="bad operand") as caught:
            list(pools.run(abs, [1, wrong], survivor))  # type: ignore[list-item]
        assert "_guarded" in caught.value.__notes__[0]

    class Local(Exception):
        pass

    def fail(task: int) -> None:
        raise Local("cannot be sent")

    with pytest.raises(RuntimeError, match="cannot be sent"):
        list(pools.run(fail, [1], survivor))


def test_processes_that_always_die_are_given_up() -> None:
    with pytest.raises(SciMLError, match=r"a worker process died .* 3 times in a row"):
        list(pools.run(os._exit, [1, 1], workers=2))


def test_dask(tmp_path: Path, serial: Path) -> None:
    """Two processes."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        with pools.dask_executor(cluster.scheduler_address) as executor:
            generate(RECIPE, 12, tmp_path / "d.h5", shard_size=3, executor=executor)
        assert same(tmp_path / "d.h5", serial)


@pytest.mark.parametrize(
    ("status", "closed"), [("connecting", False), ("closed", False), ("closing", False), ("running", True)]
)
def test_pending_futures_of_a_client_without_a_scheduler_are_lost(
    monkeypatch: pytest.MonkeyPatch, status: str, closed: bool
) -> None:
    """What Dask leaves of tasks that are submitted while a cluster closes: nothing ever comes back."""
    monkeypatch.setattr(pools, "POLL_SECONDS", 0.01)

    class Silent(Executor):
        _client = SimpleNamespace(status="running", scheduler_comm=SimpleNamespace(closed=lambda: False))

        def submit(self, function: Callable, /, *arguments: object, **options: object) -> Future:
            future: Future = Future()
            if arguments[0] == -1:
                future.set_result(function(*arguments))
            else:
                # Half a second of silence is no reason to give up.
                threading.Timer(0.5, self.lose).start()
            return future

        def lose(self) -> None:
            self._client.status, self._client.scheduler_comm.closed = status, lambda: closed

    results = pools.run(abs, [-1, -2], Silent())
    assert next(results) == 1
    started = time.monotonic()
    with pytest.raises(
        SciMLError, match=r"the executor failed \(ConnectionError: the Dask cluster is closed"
    ):
        next(results)
    assert time.monotonic() - started > 0.3


@pytest.mark.parametrize("started", [True, False])
def test_a_cluster_without_workers_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    """One that had some and lost them sooner than one that has none yet."""
    for name, seconds in (("POLL_SECONDS", 0.01), ("IDLE_SECONDS", 0.2), ("START_SECONDS", 0.6)):
        monkeypatch.setattr(pools, name, seconds)
    answers = [{"tcp://a": 1}, {}, {"tcp://b": 1}] if started else []

    class Silent(Executor):
        _client = SimpleNamespace(nthreads=lambda: answers.pop(0) if answers else {})

        def submit(self, function: Callable, /, *arguments: object, **options: object) -> Future:
            return Future()

    begun = time.monotonic()
    with pytest.raises(SciMLError, match=r"TimeoutError: the Dask cluster has had no workers for") as caught:
        list(pools.run(abs, [-1], Silent()))
    assert not answers
    waited = time.monotonic() - begun
    assert waited > (0.2 if started else 0.6)
    assert f"for {0 if started else 1} s" in str(caught.value)


def test_a_failure_whose_cause_is_mended_is_not_returned_again() -> None:
    """As Dask does with the results of equal tasks that it still holds."""
    held: dict[bytes, Future] = {}

    class Holding(Executor):
        def submit(self, function: Callable, /, *arguments: object, **options: object) -> Future:
            key = pickle.dumps((function, arguments))
            if key not in held:
                held[key] = Future()
                held[key].set_result(function(*arguments))
            return held[key]

    with pytest.raises(SciMLError, match="licence server"):
        list(pools.run(fail_without_licence, [1], Holding()))
    LICENCES.append("mended")
    assert list(pools.run(fail_without_licence, [1], Holding())) == [1]


LICENCES: list[str] = []


def fail_without_licence(task: int) -> int:
    if not LICENCES:
        raise SciMLError("licence server away")
    return task


def test_a_connection_error_of_a_task_is_its_own() -> None:
    def refuse(task: int) -> None:
        raise ConnectionError("the recipe's server is down")

    with pytest.raises(ConnectionError, match="the recipe's server"):
        list(pools.run(refuse, [1], Dying(RuntimeError(), 9)))


def test_dask_that_closes(tmp_path: Path) -> None:
    """While tasks are being submitted: the cluster is gone, and the work goes on elsewhere."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        path, parts = tmp_path / "e.h5", tmp_path / "e.h5.parts"

        def close_after_the_first_shard() -> None:
            while not list(parts.glob("shard-*.h5")):
                time.sleep(0.005)
            cluster.close()

        with pools.dask_executor(cluster.scheduler_address) as executor:
            closing = threading.Thread(target=close_after_the_first_shard)
            closing.start()
            with pytest.raises(SciMLError, match=r"the executor failed .* shards are kept"):
                generate(DarcyRecipe(resolution=9), 600, path, shard_size=1, executor=executor)
            closing.join()
    assert list(parts.glob("shard-*.h5"))


def test_missing_extras_and_servers_give_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    if "mpi4py.futures" in sys.modules:
        pytest.skip("runs under MPI")
    with pytest.raises(ConfigError, match="mpi"), pools.mpi_executor():
        pass
    for module, enter, remedy in (
        ("distributed", lambda: pools.dask_executor("tcp://localhost:1"), "sciml[dask]"),
        ("mpi4py", pools.mpi_executor, "sciml[mpi]"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(ConfigError) as caught, enter():
                pass
        assert f'pip install "{remedy}"' in str(caught.value)


def test_mpi(tmp_path: Path, serial: Path) -> None:
    """A master and two ranks that compute."""
    probe = [sys.executable, "-c", "from mpi4py import MPI"]
    launcher = shutil.which("mpiexec")
    if launcher is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no MPI runtime")
    command = [
        launcher,
        "-n",
        "3",
        sys.executable,
        "-m",
        "mpi4py.futures",
        "-m",
        "sciml",
        "generate",
        "darcy",
    ]
    options = ["--resolution", "17", "-n", "12", "--shard-size", "3", "--mpi", "-o", str(tmp_path / "d.h5")]
    subprocess.run([*command, *options], check=True, capture_output=True, timeout=120)
    assert same(tmp_path / "d.h5", serial)
    run = subprocess.run([*command, "-n", "0", "--mpi"], capture_output=True, text=True, timeout=120)
    assert run.returncode
    assert "sciml: error: n=0" in run.stderr


def test_command_line_chooses_one(capsys: pytest.CaptureFixture) -> None:
    from sciml.cli import main

    assert main(["generate", "darcy", "--dask", "tcp://localhost:1", "--mpi", "-o", "x.h5"]) == 1
    assert "choose one" in capsys.readouterr().err
