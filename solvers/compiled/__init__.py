"""Kernels compiled by numba (extra `fast`), for NumPy arrays; `kernels` gives them.

They are chosen by the sizes of a problem alone and treat every member of a batch in the same way, so that
results depend neither on the size of the batch nor on the processor.
"""

import functools
import importlib
from types import ModuleType

__all__ = ["kernels"]


@functools.cache
def kernels(name: str, package: str = __name__) -> ModuleType | None:
    """Import a module of kernels, such as "fourier"; None without numba, which is found out once.

    Examples
    --------
    >>> module = kernels("fourier")
    """
    try:
        numba = importlib.import_module("numba")
    except ImportError:
        return None
    # With NUMBA_DISABLE_JIT there are no vectors.
    return None if numba.config.DISABLE_JIT else importlib.import_module(f"{package}.{name}")
