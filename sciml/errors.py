"""Errors that the suite raises on purpose.

All derive from `SciMLError`, so that one ``except`` catches what a user can mend and lets defects
through. Every message names the argument, the value that was received and the remedy; the command
line prints it as one line.
"""

__all__ = [
    "ConfigError",
    "ConvergenceError",
    "DatasetFormatError",
    "GeometryError",
    "OutputExistsError",
    "SciMLError",
    "StencilError",
    "StorageError",
]


class SciMLError(Exception):
    """Base class of all errors that a user can mend."""


class ConfigError(SciMLError, ValueError):
    """An argument, a name or a data function that cannot be used."""


class GeometryError(SciMLError, ValueError):
    """A domain and a grid that do not go together."""


class StencilError(SciMLError, ValueError):
    """A node at which no local polynomial fit of the requested degree exists."""


class ConvergenceError(SciMLError, RuntimeError):
    """A linear or nonlinear solve, or a training run, that did not reach its tolerance."""


class DatasetFormatError(SciMLError, ValueError):
    """A file that is damaged, of another format, or of a newer version."""


class OutputExistsError(SciMLError, FileExistsError):
    """An output that is already there; nothing was touched."""


class StorageError(SciMLError, OSError):
    """A write that the operating system refused (disk full, no permission); the old file survives."""
