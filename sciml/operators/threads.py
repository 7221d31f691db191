"""Compiled kernels by as many threads as PyTorch uses."""

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import torch

__all__ = ["in_parts"]


@functools.cache
def _helpers() -> ThreadPoolExecutor:
    """Threads beside the calling one, as many as were needed at once."""
    return ThreadPoolExecutor(os.cpu_count(), "sciml-kernel")


# A forked process, which Windows has not, has none of the threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)


def in_parts(work: Callable[[int, int], None], size: int, most: int) -> None:
    """Call ``work(start, stop)`` for parts of ``range(size)``, at most so many, each by a thread of its own.

    Examples
    --------
    >>> in_parts(lambda start, stop: print(start, stop), 10, most=1)
    0 10
    """
    count = min(torch.get_num_threads(), size, most)
    if count < 2:
        work(0, size)
        return
    first, *parts = itertools.pairwise(size * part // count for part in range(count + 1))
    others = [_helpers().submit(work, *part) for part in parts]
    try:
        work(*first)
    finally:
        # Their memory is the caller's.
        wait(others)
    for other in others:
        other.result()
