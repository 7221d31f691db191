"""The kinds of dataset that recipes can fill; the class of a layout decides which."""

from collections.abc import Sequence

import h5py
import numpy as np

from sciml.errors import DatasetFormatError

from . import fields, ode
from .recipe import FieldsLayout, Layout, OdeLayout, Trajectory

__all__ = ["bytes_per_trajectory", "create", "stored_dtype", "write"]


def create(file: h5py.File, layout: Layout, n: int) -> None:
    """Write the skeleton of a dataset of ``n`` trajectories into an empty file."""
    if isinstance(layout, FieldsLayout):
        fields.create_fields(file, layout, n)
    else:
        ode.create_ode(file, layout, n)


def write(file: h5py.File, layout: Layout, start: int, trajectories: Sequence[Trajectory]) -> None:
    """Write trajectories start, start + 1, ... into a file made by `create`.

    Raises
    ------
    DatasetFormatError
        If a trajectory does not fit the layout, or a scalar its type.
    """
    if isinstance(layout, FieldsLayout):
        fields.write_trajectories(file, layout, start, list(trajectories))
    else:
        ode.write_states(file, layout, start, trajectories)
    rows = slice(start, start + len(trajectories))
    for name in layout.scalars:
        if any(name not in trajectory.scalars for trajectory in trajectories):
            raise DatasetFormatError(f"scalar {name!r} is missing: {layout.name!r} declares it")
        values, stored = [trajectory.scalars[name] for trajectory in trajectories], file["scalars"][name]
        for value in values:
            if not fields.fits(value, stored.dtype):
                raise DatasetFormatError(
                    f"scalar {name!r}={value:g} does not fit {stored.dtype}: give it in another unit"
                )
        stored[rows] = values


def stored_dtype(layout: Layout) -> type:
    """Return the floating-point type in which fields and scalars are stored."""
    return np.float64 if isinstance(layout, OdeLayout) else np.float32


def bytes_per_trajectory(layout: Layout) -> int:
    """Return how much of a file one trajectory takes; frame 0 of a steady problem takes nothing."""
    if isinstance(layout, OdeLayout):
        return 8 * (int(np.prod(layout.shape)) + len(layout.scalars))
    entries = len(layout.scalars)
    for spec in layout.fields:
        shape = layout.shape(spec)
        entries += int(np.prod(shape[1:] if layout.steady and spec.time_varying else shape))
    return 4 * entries
