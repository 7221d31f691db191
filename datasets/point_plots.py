"""Pictures of functions at points."""

from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.registry import unknown_name

from .plots import chosen_row
from .reader import PointsDataset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_points", "plot_points"]

TRIANGLES = {"triangle": ((0, 1, 2),), "quad": ((0, 1, 2), (0, 2, 3))}
"""Of cells in the plane."""


def draw_points(
    ax: "Axes", positions: np.ndarray, values: np.ndarray, triangles: np.ndarray | None, **kwargs: Any
) -> Any:
    """Draw values at points of a line, the plane or space into axes; return the image.

    Parameters
    ----------
    ax : matplotlib Axes
        Of three dimensions for points in space.
    positions : ndarray, shape (N, dim)
    values : ndarray, shape (N,)
    triangles : ndarray of int, shape (M, 3), or None
        Which are filled in the plane; dots without.
    **kwargs
        Passed on.
    """
    columns = positions.T
    if len(columns) == 1:
        order = np.argsort(columns[0])
        return ax.plot(columns[0][order], values[order], ".-")[0]
    if len(columns) == 2 and triangles is not None and len(triangles):
        image: Any = ax.tripcolor(*columns, triangles, values, shading="gouraud", **kwargs)  # type: ignore[call-overload]
    else:
        size = max(1.0, min(12.0, 6000 / len(values)))
        options: dict[str, Any] = {"c": values, "s": size, "linewidths": 0, **kwargs}
        # Axes in three dimensions take a third column.
        image = getattr(ax, "scatter")(*columns, **options)  # noqa: B009
    ax.set(xlabel="x", ylabel="y", aspect="equal")
    return image


def plot_points(data: PointsDataset, field: str = "", trajectory: int = 0) -> "Figure":
    """Draw fields of one sample at its points.

    Parameters
    ----------
    data : PointsDataset
    field : str
        By default every input and target.
    trajectory : int
        Which sample, counted from 0; -1 is the last.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ConfigError
        If there is no such field or sample.

    Examples
    --------
    >>> with PointsDataset("elasticity.h5") as data:  # doctest: +SKIP
    ...     plot_points(data).savefig("stress.png")
    """
    import matplotlib.pyplot as plt

    row = chosen_row(data, trajectory)
    known = [name for name in data.fields if name != "positions" and not name.startswith("cells/")]
    if field and field not in known:
        raise unknown_name(f"field of {data.path.name}", field, known)
    names = [field] if field else [*data.inputs, *data.targets] or known
    x = data.read("positions", row)
    triangles = [
        data.read(f"cells/{kind}", row)[:, corners]
        for kind in data.cells
        if kind in TRIANGLES
        for corners in TRIANGLES[kind]
    ]
    panels = [
        (f"{name}[{i}]" if values.shape[1] > 1 else name, column)
        for name, values in ((name, data.read(name, row).reshape(len(x), -1)) for name in names)
        for i, column in enumerate(values.T)
    ]
    figure = plt.figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    for place, (title, values) in enumerate(panels, 1):
        ax = figure.add_subplot(1, len(panels), place, projection="3d" if data.dim == 3 else None)
        image = draw_points(ax, x, values, np.concatenate(triangles) if triangles else None)
        if data.dim > 1:
            figure.colorbar(image, ax=ax, shrink=0.85)
        ax.set_title(title)
    figure.suptitle(f"{data.name}, sample {row}")
    return figure
