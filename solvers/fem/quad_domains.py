"""Domains that are images of a ring or a rectangle, with their meshes of quadrilaterals."""

from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from sciml.errors import ConfigError, GeometryError

from .quads import QuadMesh

__all__ = ["channel", "square_outline", "square_with_void"]


def square_with_void(radius: Callable[[np.ndarray], np.ndarray], around: int, across: int) -> QuadMesh:
    """Return the unit square without a void about its centre, meshed by an O-grid.

    The first parameter of the map goes around the square at constant speed, counter-clockwise from (0, 0); the second
    one from the square, along the straight line to the centre, to the void.

    Parameters
    ----------
    radius : callable
        Of the void, by angle, shape (m,) to (m,).
    around : int
        Elements around the void, a multiple of 4: each side of the square has a quarter of them.
    across : int
        Elements between square and void.

    Raises
    ------
    ConfigError
        If ``around`` is not a positive multiple of 4, or ``across`` not positive.
    GeometryError
        If the void is not inside of the square.

    Examples
    --------
    >>> mesh = square_with_void(lambda angle: 0.25 + 0 * angle, 32, 8)
    >>> len(mesh), bool(abs(mesh.weights.sum() - (1 - np.pi / 16)) < 1e-5)
    (256, True)
    """
    if around < 4 or around % 4 or across < 1:
        raise ConfigError(f"around={around}, across={across}: give a multiple of 4, and at least 1")
    square = square_outline(np.arange(2 * around) / (2 * around))[0]
    angle = np.arctan2(square[:, 1] - 0.5, square[:, 0] - 0.5)
    r = np.asarray(radius(angle), dtype=float)
    if not (np.isfinite(r).all() and (r > 0).all() and (r < np.linalg.norm(square - 0.5, axis=1)).all()):
        raise GeometryError(
            f"the void's radius goes from {r.min():.3g} to {r.max():.3g}: it must be positive and the void inside of "
            "the unit square"
        )
    void = 0.5 + r[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    t = np.linspace(0, 1, 2 * across + 1)[:, None]
    return QuadMesh.mapped(square[:, None] * (1 - t) + void[:, None] * t, periodic=True)


def square_outline(parameter: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points on the outline of the unit square, counter-clockwise from (0, 0), and their derivatives.

    Parameters
    ----------
    parameter : ndarray, shape (m,)
        From 0 to 1, at constant speed.

    Returns
    -------
    positions, derivatives : ndarray, shape (m, 2)

    Examples
    --------
    >>> square_outline(np.array([0.3, 0.75]))[0].round(3).tolist()
    [[1.0, 0.2], [0.0, 1.0]]
    """
    side, part = np.divmod(4 * np.asarray(parameter, dtype=float) % 4, 1.0)
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    first = side.astype(int)
    step = corners[(first + 1) % 4] - corners[first]
    return corners[first] + part[:, None] * step, 4 * step


def channel(
    stations: np.ndarray, heights: np.ndarray, slopes: np.ndarray, width: float, along: int, across: int
) -> QuadMesh:
    """Return a channel about a centre line of cubic pieces, of the same width in y everywhere.

    Parameters
    ----------
    stations, heights, slopes : ndarray, shape (m,)
        x, ascending, y and dy / dx of the centre line where its pieces meet.
    width : float
    along, across : int
        Elements.

    Raises
    ------
    ConfigError
        If the stations do not ascend or sizes are not positive.

    Examples
    --------
    >>> mesh = channel(np.array([0.0, 3.0]), np.zeros(2), np.zeros(2), 1.0, 6, 2)
    >>> len(mesh), round(float(mesh.weights.sum()), 12)
    (12, 3.0)
    """
    stations = np.asarray(stations, dtype=float)
    if len(stations) < 2 or not (np.diff(stations) > 0).all():
        raise ConfigError(f"stations={stations.tolist()}: they must ascend")
    if not (width > 0 and along >= 1 and across >= 1):
        raise ConfigError(f"width={width}, along={along}, across={across}: they must be positive")
    x = np.linspace(stations[0], stations[-1], 2 * along + 1)
    centre = CubicHermiteSpline(stations, heights, slopes)(x)
    y = width * (np.linspace(0, 1, 2 * across + 1) - 0.5)
    return QuadMesh.mapped(np.stack(np.broadcast_arrays(x[:, None], centre[:, None] + y), axis=-1))
