"""sciml: PDE solvers on curved domains, learned operators, and the HDF5 datasets that flow between them.

Importing the package loads nothing else; each part is imported when it is first touched:

>>> import sciml
>>> sciml.errors.SciMLError.__name__
'SciMLError'
"""

import importlib
from types import ModuleType

from ._version import __version__

__all__ = [
    "__version__",
    "datasets",
    "dynamics",
    "envs",
    "errors",
    "metrics",
    "networks",
    "operators",
    "report",
    "sampling",
    "solvers",
    "symbolic",
    "training",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"sciml.{name}")
    raise AttributeError(f"module 'sciml' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
