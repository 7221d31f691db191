"""Kind ``ode``: trajectories of ordinary differential equations, float64.

Specification, format version 2
-------------------------------
B trajectories, T times, d components.

``/``
    ``format`` = "sciml", ``kind`` = "ode", ``format_version``, ``dataset_name``, ``n_trajectories``,
    ``simulation_parameters`` (list of names) and one float attribute for each.
``/time``
    float64 (T).
``/states``
    float64 (B, T, d) with ``names`` and ``descriptions`` (lists), ``sample_varying`` and
    ``time_varying``, true. A chunk is one trajectory.
``/scalars``
    ``field_names``; per parameter a float64 () and per varying scalar a float64 (B).
``/provenance``
    As for every kind (`sciml.datasets.record`).
"""

from collections.abc import Sequence

import h5py
import numpy as np

from sciml.errors import DatasetFormatError

from .fields import declare_scalars, flags, identify, scalar_problems, texts
from .recipe import OdeLayout, Trajectory

__all__ = ["check_ode", "create_ode", "write_states"]


def create_ode(file: h5py.File, layout: OdeLayout, n: int) -> None:
    """Write the skeleton of a dataset of ``n`` trajectories into an empty file."""
    identify(file, "ode", layout, n)
    file.create_dataset("time", data=np.asarray(layout.times, dtype=np.float64))
    states = file.create_dataset("states", (n, *layout.shape), np.float64, chunks=(1, *layout.shape))
    states.attrs["names"] = texts(tuple(layout.states))
    states.attrs["descriptions"] = texts(tuple(layout.states.values()))
    flags(states, sample_varying=True, time_varying=True)
    declare_scalars(file, layout, n, np.float64)


def write_states(file: h5py.File, layout: OdeLayout, start: int, trajectories: Sequence[Trajectory]) -> None:
    """Write the states of trajectories start, start + 1, ... into a file made by `create_ode`.

    Raises
    ------
    DatasetFormatError
        If a trajectory does not fit the layout.
    """
    for row, trajectory in enumerate(trajectories, start):
        states = trajectory.fields.get("states")
        if states is None or states.shape != layout.shape:
            got = "missing" if states is None else f"of shape {states.shape}"
            raise DatasetFormatError(
                f"field 'states' is {got}: {layout.name!r} declares shape {layout.shape}"
            )
        file["states"][row] = states


def check_ode(file: h5py.File) -> list[str]:
    """Return everything that is wrong with the layout of an open file; empty if nothing is."""
    problems = [
        f"/: attribute {name!r} is missing"
        for name in ("dataset_name", "n_trajectories")
        if name not in file.attrs
    ]
    problems += [
        f"/: {name!r} is missing"
        for name in ("time", "states", "scalars", "provenance/seed", "provenance/config")
        if name not in file
    ]
    if problems:
        return problems
    n, states = int(file.attrs["n_trajectories"]), file["states"]
    names = states.attrs.get("names")
    expected = (n, *file["time"].shape, 0 if names is None else len(names))
    if states.shape != expected:
        problems.append(f"states: shape {states.shape} where {expected} is declared")
    return problems + scalar_problems(file)
