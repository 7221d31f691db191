"""Where tasks are computed: this process, processes of its own, or any executor.

A task returns its own errors as values, so that whatever a future raises is the executor's failure: a
worker that was killed, a scheduler that is gone, an argument that could not be sent. Own processes
that die are replaced; a user's executor cannot be, and the error says so.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from sciml.errors import ConfigError, SciMLError

__all__ = ["dask_executor", "mpi_executor", "one_thread", "run"]

T = TypeVar("T")
R = TypeVar("R")

DEATHS = 3
"""So many pools in a row may break without a finished task in between."""
POLL_SECONDS = 1.0
IDLE_SECONDS = 30.0
"""So long a Dask cluster may be without workers after it had some."""
START_SECONDS = 600.0
"""So long it may take to start the first."""


class _OneThread:
    """Limit BLAS to one thread while any task is computed in this process.

    Sums in another order would change the last bits with the number of workers. The limit belongs to
    the process, so threads that compute tasks share it: the last one out lifts it.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limits = threadpool_limits(limits=1)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limits.restore_original_limits()


one_thread = _OneThread()
"""Context manager to compute in."""


@dataclass(frozen=True)
class _Failure:
    """An error of the task itself."""

    error: Exception


class _Lost(Exception):
    """An executor did not return all results."""


def _guarded(compute: Callable[[T], R], task: T, call: str) -> R | _Failure:
    """Compute a task where it was sent.

    ``call`` only makes it unlike those of earlier calls: Dask gives equal tasks the result, here perhaps
    a failure whose cause is mended, that it still holds.
    """
    try:
        return compute(task)
    except Exception as error:
        if not isinstance(error, SciMLError):
            error.add_note(traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            # Unpickling it in the parent would break the pool and hide what happened.
            return _Failure(RuntimeError("".join(traceback.format_exception(error))))
        return _Failure(error)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Deliver Ctrl-C at the end of the block; processes started inside never receive it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def run(
    compute: Callable[[T], R], tasks: Sequence[T], executor: Executor | None = None, workers: int = 1
) -> Generator[R]:
    """Compute tasks and yield their results as they are finished, in any order.

    Parameters
    ----------
    compute : callable
        Of one task; both must pickle if they leave this process. A task may be computed twice, when a
        worker died after its work but before saying so.
    tasks : sequence
    executor : concurrent.futures.Executor, optional
        By default own processes.
    workers : int
        Own processes; 1 computes in this one.

    Raises
    ------
    SciMLError
        If the executor fails, or own processes die again and again.
    Exception
        The first that a task raises; other tasks in hand are finished first, except on Dask, whose
        workers may finish them later.

    Examples
    --------
    >>> list(run(abs, [-3, 2]))
    [3, 2]
    """
    if executor is not None:
        try:
            for _, result in _collect(executor, compute, tasks):
                yield result
        except _Lost as lost:
            cause = lost.__cause__
            raise SciMLError(
                f"the executor failed ({type(cause).__name__}: {cause}): run the same again, with another "
                "executor if need be"
            ) from cause
    elif workers == 1 or len(tasks) <= 1:
        for task in tasks:
            yield compute(task)
    else:
        yield from _run_in_processes(compute, tasks, workers)


def _run_in_processes(compute: Callable[[T], R], tasks: Sequence[T], workers: int) -> Generator[R]:
    remaining = dict(enumerate(tasks))
    deaths = 0
    while remaining:
        numbers = list(remaining)
        pool = ProcessPoolExecutor(
            min(workers, len(numbers)), multiprocessing.get_context("spawn"), initializer=_start_worker
        )
        try:
            for position, result in _collect(pool, compute, list(remaining.values())):
                deaths = 0
                del remaining[numbers[position]]
                yield result
        except _Lost as lost:
            deaths += 1
            if deaths == DEATHS:
                raise SciMLError(
                    f"a worker process died (killed, or out of memory) {DEATHS} times in a row: run the same "
                    "again, with fewer workers if memory is short"
                ) from lost.__cause__
        finally:
            # Tasks in hand are finished.
            pool.shutdown(wait=True, cancel_futures=True)


def _collect(executor: Executor, compute: Callable[[T], R], tasks: Sequence[T]) -> Generator[tuple[int, R]]:
    """Yield position and result of every task that comes back; raise `_Lost` if some do not."""
    call = uuid.uuid4().hex
    futures: dict[Future[R | _Failure], int] = {}
    lost: Exception | None = None
    try:
        try:
            # Workers start while tasks are submitted; until they are ready, Ctrl-C would print their
            # tracebacks.
            with _interrupts_held_back():
                for position, task in enumerate(tasks):
                    futures[executor.submit(partial(_guarded, compute), task, call)] = position
        except Exception as error:
            # Broken, or shut down.
            lost = error
        for future in _completed(executor, futures):
            try:
                result = future.result()
            except Exception as error:
                lost = error
                continue
            if isinstance(result, _Failure):
                raise result.error
            yield futures[future], result
        if lost is not None:
            raise _Lost from lost
    except _Lost:
        # All are done, or nothing more will be heard of them.
        futures.clear()
        raise
    finally:
        # Tasks in hand would go on writing where the caller may clean up: they are waited for, but for
        # Dask's, which are cancelled in name only, though their workers may finish them later.
        wait([future for future in futures if not future.cancel()])
        futures.clear()


def _completed(executor: Executor, futures: Iterable[Future[R]]) -> Iterator[Future[R]]:
    """Yield futures as they are done.

    Raises
    ------
    _Lost
        If a Dask client lost its scheduler, or the cluster all its workers: what was submitted would stay
        pending for ever.
    """
    pending = set(futures)
    patience, alive = START_SECONDS, time.monotonic()
    while pending:
        try:
            for future in as_completed(pending, timeout=POLL_SECONDS):
                pending.discard(future)
                yield future
        except TimeoutError:
            if not _is_connected(executor):
                raise _Lost from ConnectionError("the Dask cluster is closed or out of reach")
            if _has_workers(executor):
                patience, alive = IDLE_SECONDS, time.monotonic()
            elif time.monotonic() - alive > patience:
                raise _Lost from TimeoutError(f"the Dask cluster has had no workers for {patience:.0f} s")


def _is_connected(executor: Executor) -> bool:
    """Whether the Dask client of an executor, if it has one, has a scheduler.

    One that connects again has given up all its futures.
    """
    client = getattr(executor, "_client", None)
    comm = getattr(client, "scheduler_comm", None)
    lost = getattr(client, "status", None) in ("connecting", "closing", "closed")
    return not (lost or (comm is not None and comm.closed()))


def _has_workers(executor: Executor) -> bool:
    """Whether the Dask cluster of an executor, if it has one, has workers."""
    client: Any = getattr(executor, "_client", None)
    if not hasattr(client, "nthreads"):
        return True
    try:
        return bool(client.nthreads())
    except Exception:
        # Whether it is gone is for the next poll to say.
        return True


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and die with it.

    A worker whose parent was killed would wait for its next task for ever: all workers hold both
    ends of the task queue, so that it never reports an end of file.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """Yield the executor of a running Dask cluster, whose workers must see the same file system.

    Parameters
    ----------
    address : str
        Of the scheduler, e.g. "tcp://node7:8786".

    Raises
    ------
    ConfigError
        If Dask is not installed or no scheduler answers.

    Examples
    --------
    >>> with dask_executor("tcp://node7:8786") as executor:  # doctest: +SKIP
    ...     generate(DarcyRecipe(), 1000, "darcy.h5", executor=executor)
    """
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError as error:
        raise ConfigError(f'dask={address!r} needs Dask: pip install "sciml[dask]"') from error
    try:
        # A client of an address that makes no sense would hang when it is deleted.
        get_address_host_port(address)
        client = Client(address, timeout=20, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"dask={address!r}: no scheduler answers there ({error}); start one with 'dask scheduler'"
        ) from error
    with client:
        yield client.get_executor()


@contextlib.contextmanager
def mpi_executor() -> Iterator[Executor]:
    """Yield the executor of the MPI ranks that ``python -m mpi4py.futures`` started.

    Raises
    ------
    ConfigError
        If mpi4py or an MPI runtime is missing, or the program was started otherwise.

    Examples
    --------
    >>> with mpi_executor() as executor:  # doctest: +SKIP
    ...     generate(DarcyRecipe(), 1000, "darcy.h5", executor=executor)
    """
    started = "mpi4py.futures" in sys.modules
    try:
        from mpi4py import MPI
        from mpi4py.futures import MPIPoolExecutor
    except ImportError as error:
        raise ConfigError('mpi needs mpi4py: pip install "sciml[mpi]"') from error
    except RuntimeError as error:
        raise ConfigError(
            "mpi needs an MPI runtime, and mpi4py finds none: install MPICH or Open MPI"
        ) from error
    if not started or MPI.COMM_WORLD.Get_size() < 2:
        raise ConfigError(
            "mpi needs at least two ranks: start with "
            "'mpiexec -n 3 python -m mpi4py.futures -m sciml generate ... --mpi'"
        )
    with MPIPoolExecutor() as executor:
        yield executor
