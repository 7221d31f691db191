"""The kinds of dataset that recipes can fill; the class of a layout decides which."""

from collections.abc import Sequence

import h5py
import numpy as np

from sciml.errors import DatasetFormatError

from . import fields, ode, points
from .recipe import VERTICES, FieldsLayout, Layout, OdeLayout, PointsLayout, Trajectory

__all__ = ["bytes_per_trajectory", "create", "stored_dtype", "write"]


def create(file: h5py.File, layout: Layout, n: int) -> None:
    """Write the skeleton of a dataset of ``n`` trajectories into an empty file."""
    if isinstance(layout, FieldsLayout):
        fields.create_fields(file, layout, n)
    elif isinstance(layout, PointsLayout):
        points.create_points(file, layout, n)
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
    elif isinstance(layout, PointsLayout):
        points.write_points(file, layout, start, trajectories)
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


def stored_dtype(layout: Layout, name: str) -> type:
    """Return the type in which a field or scalar is stored."""
    if isinstance(layout, PointsLayout) and name.startswith("cells/"):
        return np.int32
    exact = isinstance(layout, OdeLayout) or (isinstance(layout, PointsLayout) and name == "positions")
    return np.float64 if exact else np.float32


def bytes_per_trajectory(layout: Layout) -> int:
    """Return how much of a file one trajectory takes, about so of points; frame 0 of a steady problem takes nothing."""
    if isinstance(layout, OdeLayout):
        return 8 * (int(np.prod(layout.shape)) + len(layout.scalars))
    entries = len(layout.scalars)
    if isinstance(layout, PointsLayout):
        entries += layout.size * (2 * layout.dim + sum(layout.dim**spec.rank for spec in layout.fields))
        # About as many cells as points.
        entries += layout.size * sum(VERTICES[kind] for kind in layout.cells)
        return 4 * entries
    for spec in layout.fields:
        shape = layout.shape(spec)
        entries += int(np.prod(shape[1:] if layout.steady and spec.time_varying else shape))
    return 4 * entries
