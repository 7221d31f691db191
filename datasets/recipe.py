"""Recipes: pure functions from one integer seed to one trajectory.

A recipe is a frozen dataclass; its fields are its parameters, the flags of ``sciml generate`` and
the stored configuration.
"""

import dataclasses
import reprlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

import numpy as np

from sciml.errors import ConfigError
from sciml.provenance import jsonable
from sciml.registry import Registry
from sciml.solvers.grid import CartesianGrid

__all__ = [
    "MOST",
    "NOT_NEGATIVE",
    "POSITIVE",
    "REAL",
    "FieldSpec",
    "FieldsLayout",
    "Layout",
    "OdeLayout",
    "PointsLayout",
    "Recipe",
    "Trajectory",
    "recipe_registry",
    "relative_difference",
    "trajectory_seeds",
]

MOST = 10**6
"""Largest number of nodes along an axis, of frames, and of whatever else a recipe counts."""
# Whose powers can be computed.
REAL = (-1e12, 1e12)
"""Range of a parameter of either sign."""
NOT_NEGATIVE = (0.0, 1e12)
"""Range of a parameter that may be zero."""
POSITIVE = (1e-12, 1e12)
"""Range of a parameter that must be positive."""

VERTICES = {"vertex": 1, "line": 2, "triangle": 3, "quad": 4, "tetra": 4, "hexahedron": 8}
"""Of one cell of kind ``points``."""
ATTEMPTS = 5
"""So many times a rejected trajectory is replaced."""


class _Recipes(Registry[type["Recipe"]]):
    """Refuses what is no recipe where it is registered, not where its parameters are looked for."""

    def register(self, name: str) -> Callable[[type["Recipe"]], type["Recipe"]]:
        decorate = super().register(name)

        def checked(entry: type[Recipe]) -> type[Recipe]:
            if not (isinstance(entry, type) and issubclass(entry, Recipe)):
                raise ConfigError(f"recipe {name!r}: {entry!r} is no subclass of sciml.datasets.Recipe")
            if not dataclasses.is_dataclass(entry):
                raise ConfigError(
                    f"recipe {name!r}: {entry.__qualname__} is no dataclass; put @dataclass(frozen=True) "
                    "between its registration and the class"
                )
            return decorate(entry)

        return checked


recipe_registry: Registry[type["Recipe"]] = _Recipes("recipe")
"""All recipes that ``sciml generate`` knows."""


@dataclass(frozen=True)
class FieldSpec:
    """One gridded field.

    Parameters
    ----------
    name : str
    description : str
        What it is, with its unit or "dimensionless".
    rank : {0, 1, 2}
        Scalar, vector or 2-tensor: the number of trailing component axes.
    time_varying : bool
    """

    name: str
    description: str
    rank: int = 0
    time_varying: bool = True


@dataclass(frozen=True)
class FieldsLayout:
    """What every trajectory of a dataset of kind ``fields`` holds.

    Parameters
    ----------
    name : str
        Of the dataset.
    grid : CartesianGrid
        The nodes are the coordinates.
    fields : tuple of FieldSpec
    times : tuple of float
        Of the stored frames. A steady problem has (0, 1): frame 0 is zero, frame 1 the solution, so
        that loaders that ask for an input and an output frame can read it.
    scalars : tuple of str
        Numbers that vary by trajectory.
    parameters : dict
        Numbers common to all trajectories.
    inputs, targets : tuple of str
        The learning task: which fields predict which.
    mask : str
        The field that is 1 where targets are defined; empty if they are everywhere.
    boundary : {"WALL", "OPEN"}
        Type of the sides that are not periodic.
    """

    name: str
    grid: CartesianGrid
    fields: tuple[FieldSpec, ...]
    times: tuple[float, ...] = (0.0, 1.0)
    steady: bool = True
    scalars: tuple[str, ...] = ()
    parameters: dict[str, float] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    mask: str = ""
    boundary: str = "WALL"

    def __post_init__(self) -> None:
        known = {spec.name for spec in self.fields}
        used = {*self.inputs, *self.targets, *([self.mask] if self.mask else [])}
        if not used <= known:
            raise ConfigError(
                f"layout {self.name!r} uses fields {sorted(used - known)}: it declares {sorted(known)}"
            )

    def shape(self, spec: FieldSpec) -> tuple[int, ...]:
        """Shape of one trajectory's field: [time,] space, components."""
        time = (len(self.times),) if spec.time_varying else ()
        return (*time, *self.grid.shape, *(self.grid.dim,) * spec.rank)


@dataclass(frozen=True)
class OdeLayout:
    """What every trajectory of a dataset of kind ``ode`` holds: one field, "states", float64.

    Parameters
    ----------
    name : str
        Of the dataset.
    states : dict of str to str
        Name and description (with unit) of each component, in order.
    times : tuple of float
        Of the stored states.
    scalars : tuple of str
        Numbers that vary by trajectory.
    parameters : dict
        Numbers common to all trajectories.
    """

    name: str
    states: dict[str, str]
    times: tuple[float, ...]
    scalars: tuple[str, ...] = ()
    parameters: dict[str, float] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of one trajectory: times, components."""
        return (len(self.times), len(self.states))


@dataclass(frozen=True)
class PointsLayout:
    """What every sample of a dataset of kind ``points`` holds: functions at points of a domain of its own.

    A trajectory's fields are those that are declared, of shape (N,) or (N, components), "positions" of shape
    (N, dim), and for each type of cells "cells/<type>", integers of shape (M, vertices of one). N and M may differ
    from sample to sample.

    Parameters
    ----------
    name : str
        Of the dataset.
    dim : int
        1 to 3.
    fields : tuple of FieldSpec
        Whether they vary in time is not looked at: they do not.
    size : int
        About how many points a sample has, for estimates of memory.
    cells : tuple of str
        Types of cells: "vertex", "line", "triangle", "quad", "tetra", "hexahedron"; empty for a cloud.
    scalars : tuple of str
        Numbers that vary by sample, the second argument of `Trajectory`.
    parameters : dict
        Numbers common to all samples.
    inputs, targets : tuple of str
        The learning task: positions and these fields predict which.
    weight : str
        The field of quadrature weights, whose sum is the size of the domain; "" if there is none, and 1 / N is taken.
    code : tuple of str
        Scalars that describe the domain or the problem, as inputs.

    Raises
    ------
    ConfigError
        If names are used that are not declared, or a type of cells is not known.
    """

    name: str
    dim: int
    fields: tuple[FieldSpec, ...]
    size: int
    cells: tuple[str, ...] = ()
    scalars: tuple[str, ...] = ()
    parameters: dict[str, float] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    weight: str = ""
    code: tuple[str, ...] = ()
    times: ClassVar[tuple[float, ...]] = (0.0,)

    def __post_init__(self) -> None:
        known = {spec.name for spec in self.fields}
        used = {*self.inputs, *self.targets, *([self.weight] if self.weight else [])}
        if not used <= known or not set(self.code) <= set(self.scalars):
            strangers = sorted((used - known) | (set(self.code) - set(self.scalars)))
            raise ConfigError(
                f"layout {self.name!r} uses {strangers}: it declares fields {sorted(known)} and scalars "
                f"{sorted(self.scalars)}"
            )
        if "positions" in known or any(name.startswith("cells/") for name in known):
            raise ConfigError(
                f"layout {self.name!r}: positions and cells are there anyway, do not declare them"
            )
        if unknown := [kind for kind in self.cells if kind not in VERTICES]:
            raise ConfigError(f"layout {self.name!r} has cells {unknown[0]!r}: choose {', '.join(VERTICES)}")

    def components(self, spec: FieldSpec) -> tuple[int, ...]:
        """Axes of a field after that of the points."""
        return (self.dim,) * spec.rank


Layout = FieldsLayout | OdeLayout | PointsLayout
"""What a recipe's trajectories hold; the class decides the kind of the file."""


@dataclass(frozen=True)
class Trajectory:
    """One sample: arrays by field name, scalars, and the figures that show that it is right.

    A time-varying field of a steady problem is given without its time axis. A trajectory of kind
    ``ode`` has one field, "states", of shape (times, components); for kind ``points`` see `PointsLayout`.
    """

    fields: dict[str, np.ndarray]
    scalars: dict[str, float] = field(default_factory=dict)
    checks: dict[str, float] = field(default_factory=dict)


class Recipe(ABC):
    """A way to make trajectories.

    Subclasses are frozen dataclasses, registered with ``@recipe_registry.register(name)``. Their docstring
    is the dataset's card. A field declared ``int`` takes integers, ``float`` finite real numbers, neither
    of them booleans, and ``Literal`` one of its choices; fields of other types are not looked at.

    Attributes
    ----------
    equation : str
        What is solved.
    ranges : dict
        Least and largest value of each parameter that has them; added to those of the base classes.
    check_limits : dict
        Largest accepted value of each of a trajectory's checks; both have the same names.
    accuracy : float
        The accuracy that the recipe states at its default settings: largest accepted relative
        difference of a trajectory to the same one of `refined`.

    Raises
    ------
    ConfigError
        If a parameter has another type than its field, or is out of its range.

    Examples
    --------
    >>> from sciml.datasets.recipes import DarcyRecipe
    >>> DarcyRecipe(resolution=2.5)
    Traceback (most recent call last):
    sciml.errors.ConfigError: darcy resolution=2.5: give an integer
    >>> DarcyRecipe(resolution=2)
    Traceback (most recent call last):
    sciml.errors.ConfigError: darcy resolution=2: use at least 5
    """

    equation: ClassVar[str] = ""
    ranges: ClassVar[dict[str, tuple[float, float]]] = {}
    check_limits: ClassVar[dict[str, float]] = {}
    accuracy: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {}
        for base in reversed(type(self).__mro__):
            ranges |= vars(base).get("ranges", {})
        kind = recipe_registry.name_of(type(self)) or type(self).__name__
        for parameter in dataclasses.fields(self):  # type: ignore[arg-type]
            name, value = parameter.name, getattr(self, parameter.name)
            remedy = _remedy(parameter.type, value, ranges.get(name))
            if remedy:
                # Of one line, also for an array.
                raise ConfigError(f"{kind} {name}={' '.join(reprlib.repr(value).split())}: {remedy}")

    @abstractmethod
    def layout(self) -> Layout:
        """Return what a trajectory holds; it depends on the parameters only."""

    @abstractmethod
    def sample(self, seed: int) -> Trajectory:
        """Return the trajectory of a seed: a pure function of the parameters and the seed."""

    def sample_batch(self, seeds: Sequence[int], device: str = "cpu") -> list[Trajectory]:
        """Return the trajectories of many seeds; agrees with `sample`, whatever the batch.

        On the CPU bit for bit, elsewhere to round-off. A member that blows up has NaN in its fields.

        Raises
        ------
        ConfigError
            If the recipe does not run on the device.
        """
        if device != "cpu":
            raise ConfigError(f"device={device!r}: this recipe runs on the CPU only")
        return [self.sample(seed) for seed in seeds]

    def refined(self) -> Self | None:
        """Return the recipe solved at twice the resolution with half the step, stored as before.

        None, for a recipe that cannot be refined: its datasets are not verified.
        """
        return None

    def compare(self, trajectory: Trajectory, fine: Trajectory) -> dict[str, float]:
        """Measure how far a trajectory is from a finer one; names as in `verification_limits`."""
        return {"self_convergence": relative_difference(trajectory, fine)}

    def verification_limits(self) -> dict[str, float]:
        """Return the largest accepted value of each measure of `compare`."""
        return {"self_convergence": self.accuracy}

    def working_memory(self, batch: int) -> float:
        """Estimate the bytes that `sample_batch` of so many seeds takes besides its fields; 0 if unknown."""
        return 0.0

    def steps(self) -> float:
        """Return how many steps in time a trajectory takes; 0 if that is not known beforehand."""
        return 0.0

    def config(self) -> dict[str, Any]:
        """Return the name and all parameters, ready for JSON."""
        return {
            "recipe": recipe_registry.name_of(type(self)) or type(self).__name__,
            "parameters": jsonable(self),
        }


def _remedy(declared: Any, value: Any, limits: tuple[float, float] | None) -> str:
    """Return what to give instead of a value that a field cannot take; empty if it can."""
    # A module may have turned its annotations into strings.
    declared = {"int": int, "float": float}.get(declared, declared)
    if get_origin(declared) is Literal:
        choices = get_args(declared)
        known = any(isinstance(value, type(choice)) and value == choice for choice in choices)
        return "" if known else f"choose {' or '.join(map(repr, choices))}"
    if declared not in (int, float):
        return ""
    kinds = (int, np.integer) if declared is int else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return "give an integer" if declared is int else "give a number"
    least, most = limits or (-sys.float_info.max, sys.float_info.max)
    # A float32 cannot be compared with the largest float64.
    if least <= (value.item() if isinstance(value, np.generic) else value) <= most:
        return ""
    if limits and declared is int and value < least:
        return f"use at least {least:.12g}"
    return f"choose a value from {least:.12g} to {most:.12g}" if limits else "give a finite number"


def relative_difference(
    trajectory: Trajectory, fine: Trajectory, frames: slice = slice(None), exclude: Sequence[str] = ()
) -> float:
    """Return max over fields of |coarse - fine| / |fine|, in the Euclidean norm over all entries.

    Parameters
    ----------
    trajectory, fine : Trajectory
    frames : slice
        Of the first axis of each field.
    exclude : sequence of str
        Fields to leave out.

    Examples
    --------
    >>> relative_difference(Trajectory({"u": np.full(4, 1.5)}), Trajectory({"u": np.ones(4)}))
    0.5
    """
    worst = 0.0
    for name, values in trajectory.fields.items():
        if name not in exclude:
            reference = np.asarray(fine.fields[name][frames], dtype=float)
            difference = float(np.linalg.norm(np.asarray(values[frames], dtype=float) - reference))
            norm = float(np.linalg.norm(reference))
            ratio = difference / norm if norm else (0.0 if difference == 0 else np.inf)
            worst = max(worst, np.inf if np.isnan(ratio) else ratio)
    return worst


def trajectory_seeds(seed: int, start: int, stop: int, attempt: int = 0) -> np.ndarray:
    """Return the seeds of trajectories start <= i < stop of a dataset, int64.

    Trajectory i always gets the same seed, so a longer dataset begins with the shorter one. Where it
    had to be rejected, attempt 1, 2, ... gives its replacements.

    Examples
    --------
    >>> bool((trajectory_seeds(0, 0, 5)[3:] == trajectory_seeds(0, 3, 5)).all())
    True
    """
    more = (attempt,) if attempt else ()
    words = [
        np.random.SeedSequence(seed, spawn_key=(i, *more)).generate_state(1, np.uint64)[0]
        for i in range(start, stop)
    ]
    return (np.array(words, dtype=np.uint64) >> np.uint64(1)).astype(np.int64)
