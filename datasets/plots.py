"""Pictures of datasets: frames, space-time images, spectra, animations; states of ODEs.

Figures are made without pyplot, so no window opens and no global state changes.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.errors import ConfigError
from sciml.files import atomic_path
from sciml.registry import unknown_name

from .reader import Dataset, FieldsDataset, OdeDataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "animate",
    "chosen_row",
    "energy_spectrum",
    "plot_fields",
    "plot_space_time",
    "plot_spectrum",
    "plot_states",
]

GIF, MP4 = ".gif", ".mp4"


def _choose(data: FieldsDataset, field: str, trajectory: int) -> tuple[str, int]:
    """A field, by default the first target, else the first that varies in time; and a trajectory."""
    if not isinstance(data, FieldsDataset):
        raise ConfigError(f"{data.path.name} is of kind {data.kind!r}: draw it with plot_states")
    varying = [name for name in data.fields if data.is_time_varying(name)]
    field = field or next(iter((*data.targets, *varying, *data.fields)))
    if field not in data.fields:
        raise unknown_name(f"field of {data.path.name}", field, list(data.fields))
    return field, chosen_row(data, trajectory)


def chosen_row(data: Dataset, trajectory: int) -> int:
    """Return a trajectory counted from 0, of one that may be counted from the end.

    Raises
    ------
    ConfigError
        If there is no such trajectory.
    """
    count, whole = data.n_trajectories, isinstance(trajectory, int | np.integer)
    if not whole or not -count <= trajectory < count:
        name = data.path.name
        raise ConfigError(f"trajectory={trajectory!r}: {name} has {count}, counted from 0; -1 is the last")
    return trajectory % count


def _read(data: FieldsDataset, field: str, trajectory: int, frames: Sequence[int]) -> np.ndarray:
    """Frames of a field, (frames, *space, components), float64; NaN outside the mask."""
    dataset, time = data[field], data.is_time_varying(field)
    index: tuple[int | list[int], ...] = (trajectory,) if dataset.attrs["sample_varying"] else ()
    values = np.asarray(dataset[(*index, list(frames))] if time else dataset[index][None], dtype=float)
    along = dataset.attrs["dim_varying"]
    kept = [m if varies else 1 for m, varies in zip(data.resolution, along, strict=True)]
    values = values.reshape(len(values), *kept, -1)
    values = np.broadcast_to(values, (len(values), *data.resolution, values.shape[-1]))
    if data.mask and field in data.targets:
        inside = data[data.mask][trajectory] > 0.5
        values = np.where(inside[..., None], values, np.nan)
    return values


def _moving(data: FieldsDataset, field: str) -> int:
    """Number of frames of a field that moves."""
    if data.steady or not data.is_time_varying(field):
        raise ConfigError(
            f"field {field!r} of {data.path.name} does not vary in time: plot it as kind 'fields'"
        )
    return int(data.times.shape[-1])


def _component(data: FieldsDataset, field: str, component: int, components: int) -> str:
    letters = "".join(list(data.axes)[int(d)] for d in _digits(component, len(data.axes), components))
    return f"{field}_{letters}" if letters else field


def _digits(component: int, dim: int, components: int) -> list[int]:
    """Indices of a flattened vector's or tensor's component."""
    digits: list[int] = []
    while components > 1:
        components //= dim
        digits.append(component // components % dim)
    return digits


def _images(
    data: FieldsDataset, frame: np.ndarray, field: str
) -> list[tuple[str, np.ndarray, tuple[int, int]]]:
    """Title, image and its two axes, for each component and, in 3D, each mid-plane."""
    images = []
    for c in range(frame.shape[-1]):
        values, title = frame[..., c], _component(data, field, c, frame.shape[-1])
        if values.ndim == 2:
            images.append((title, values, (0, 1)))
            continue
        for normal, (name, x) in enumerate(data.axes.items()):
            middle = len(x) // 2
            across = tuple(d for d in range(3) if d != normal)
            plane = np.take(values, middle, axis=normal)
            images.append((f"{title}, {name} = {x[middle]:.3g}", plane, (across[0], across[1])))
    return images


def _extent(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Sides of an image whose pixels are centred at the nodes."""
    half_x, half_y = (0.5 * (v[-1] - v[0]) / max(1, len(v) - 1) for v in (x, y))
    return (x[0] - half_x, x[-1] + half_x, y[0] - half_y, y[-1] + half_y)


def _figure(columns: int, rows: int, width: float = 3.0, height: float = 2.8) -> tuple["Figure", np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.0, width * columns), height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _limits(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _times(data: FieldsDataset, trajectory: int) -> np.ndarray:
    """Times of the frames; files of The Well may have their own for each trajectory."""
    return data.times if data.times.ndim == 1 else data.times[trajectory]


def _spread(data: FieldsDataset, field: str, frames: int) -> list[int]:
    """Frames to draw, evenly spaced; the last of what does not move."""
    if not isinstance(frames, int | np.integer) or frames < 1:
        raise ConfigError(f"frames={frames!r}: give a whole number, at least 1")
    last = data.times.shape[-1] - 1
    if data.steady or not data.is_time_varying(field):
        return [last]
    return sorted(set(np.linspace(0, last, frames).round().astype(int).tolist()))


def _draw(
    figure: "Figure", axes: np.ndarray, data: FieldsDataset, values: np.ndarray, field: str
) -> list[list[Any]]:
    """Draw frames, in 1D into one picture per component, else side by side; the artists, row by row."""
    names, coordinates = list(data.axes), list(data.axes.values())
    artists: list[list[Any]] = []
    if len(names) == 1:
        for c, ax in enumerate(axes[:, 0]):
            artists.append([ax.plot(coordinates[0], frame[:, c])[0] for frame in values])
            ax.set(xlabel=names[0], ylabel=_component(data, field, c, values.shape[-1]))
        return artists
    columns = [_images(data, frame, field) for frame in values]
    for row, (title, _, (first, second)) in enumerate(columns[0]):
        images = [column[row][1] for column in columns]
        low, high = _limits(np.stack(images))
        extent = _extent(coordinates[first], coordinates[second])
        artists.append(
            [
                ax.imshow(
                    image.T, origin="lower", extent=extent, vmin=low, vmax=high, interpolation="nearest"
                )
                for image, ax in zip(images, axes[row], strict=True)
            ]
        )
        for ax in axes[row]:
            ax.set(xlabel=names[first], ylabel=names[second], title=title)
        figure.colorbar(artists[-1][-1], ax=list(axes[row]), shrink=0.8)
    return artists


def plot_fields(data: FieldsDataset, field: str = "", trajectory: int = 0, frames: int = 4) -> "Figure":
    """Draw frames of one trajectory, evenly spaced in its run.

    In 1D lines; in 2D images; in 3D the mid-planes normal to each axis. Vectors and tensors have a row
    of pictures for each component. Targets are left blank where the mask is 0. A row has one colour
    scale.

    Parameters
    ----------
    data : FieldsDataset
    field : str
        By default the first target.
    trajectory : int
        Counted from 0; from the end if negative.
    frames : int
        At most; a field without a time axis has one, a steady problem its solution.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ConfigError
        If the field or the trajectory does not exist, or ``frames`` is below 1.

    Examples
    --------
    >>> import tempfile
    >>> from sciml.datasets import generate, recipe_registry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = generate(recipe_registry["darcy"](resolution=17), 1, f"{folder}/darcy.h5")
    ...     with FieldsDataset(path) as data:
    ...         plot_fields(data).axes[0].images[0].get_array().shape
    (17, 17)
    """
    field, trajectory = _choose(data, field, trajectory)
    chosen = _spread(data, field, frames)
    values = _read(data, field, trajectory, chosen)
    labels = [f"t = {_times(data, trajectory)[k]:g}" for k in chosen]
    moving = not data.steady and data.is_time_varying(field)
    if len(data.axes) == 1:
        figure, axes = _figure(1, values.shape[-1], width=6.0)
        _draw(figure, axes, data, values, field)
        if moving:
            for line, label in zip(axes[0, 0].lines, labels, strict=True):
                line.set_label(label)
            axes[0, 0].legend()
    else:
        figure, axes = _figure(len(values), len(_images(data, values[0], field)))
        _draw(figure, axes, data, values, field)
        if moving:
            for ax, label in zip(axes[0], labels, strict=True):
                ax.set_title(f"{ax.get_title()}, {label}")
    figure.suptitle(f"{data.name}, trajectory {trajectory}")
    return figure


def plot_space_time(data: FieldsDataset, field: str = "", trajectory: int = 0) -> "Figure":
    """Draw a field in 1D over space (across) and time (up), one image per component.

    Parameters
    ----------
    data : FieldsDataset
    field : str
        By default the first target.
    trajectory : int
        Counted from 0; from the end if negative.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ConfigError
        If the dataset is not 1D, or the field does not vary in time or does not exist.

    Examples
    --------
    >>> import tempfile
    >>> from sciml.datasets import generate, recipe_registry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = generate(recipe_registry["advection"](frames=4), 1, f"{folder}/advection.h5")
    ...     with FieldsDataset(path) as data:
    ...             plot_space_time(data).axes[0].collections[0].get_array().shape
    (4, 256)
    """
    field, trajectory = _choose(data, field, trajectory)
    if len(data.axes) != 1:
        raise ConfigError(
            f"{data.path.name} is {len(data.axes)}D: space-time images are of 1D, plot kind 'fields'"
        )
    values = _read(data, field, trajectory, range(_moving(data, field)))
    [(axis, x)] = data.axes.items()
    figure, axes = _figure(values.shape[-1], 1, width=4.5, height=4.0)
    for c, ax in enumerate(axes[0]):
        image = ax.pcolormesh(x, _times(data, trajectory), values[..., c], shading="nearest", rasterized=True)
        ax.set(xlabel=axis, ylabel="t", title=_component(data, field, c, values.shape[-1]))
        figure.colorbar(image, ax=ax)
    figure.suptitle(f"{data.name}, trajectory {trajectory}")
    return figure


def energy_spectrum(values: np.ndarray, lengths: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the radially summed energy spectrum of a periodic field.

    E_i = sum over i - 1/2 <= |k| / k_0 < i + 1/2 of |F_k|^2 / 2, with angular wave vectors k, F
    normalised by the number of points, and k_0 = 2 pi / max L. All E_i together give <u^2> / 2.

    Parameters
    ----------
    values : ndarray, shape (*space, components)
        On a periodic grid; components are added.
    lengths : sequence of float
        Periods L, per axis.

    Returns
    -------
    k : ndarray, shape (M,)
        0, k_0, 2 k_0, ..., up to the corner of the grid's wave vectors.
    energy : ndarray, shape (M,)

    Examples
    --------
    >>> x = np.arange(16) / 16
    >>> u = np.sin(2 * np.pi * 3 * x)[:, None] * np.ones((16, 16))
    >>> k, energy = energy_spectrum(u[..., None], (1.0, 1.0))
    >>> int(energy.argmax()), round(float(energy.sum()), 6), round(float(k[3] / (2 * np.pi)), 6)
    (3, 0.25, 3.0)
    """
    shape = values.shape[:-1]
    f = np.fft.fftn(values, axes=range(len(shape)), norm="forward")
    smallest = 2 * np.pi / max(lengths)
    waves = [
        np.fft.fftfreq(n, 1 / n) * max(lengths) / length for n, length in zip(shape, lengths, strict=True)
    ]
    radius = np.sqrt(sum(k**2 for k in np.meshgrid(*waves, indexing="ij")))
    shell = np.floor(radius + 0.5).astype(int).ravel()
    energy = np.bincount(shell, weights=0.5 * (np.abs(f) ** 2).sum(axis=-1).ravel())
    return smallest * np.arange(len(energy)), energy


def plot_spectrum(data: FieldsDataset, field: str = "", trajectory: int = 0, frames: int = 3) -> "Figure":
    """Draw the energy spectrum of some frames, evenly spaced in a trajectory's run.

    Parameters
    ----------
    data : FieldsDataset
        Periodic along all axes.
    field : str
        By default the first target.
    trajectory : int
        Counted from 0; from the end if negative.
    frames : int

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ConfigError
        If an axis is not periodic, or as `plot_fields`.

    Examples
    --------
    >>> import tempfile
    >>> from sciml.datasets import generate, recipe_registry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = generate(recipe_registry["advection"](frames=4), 1, f"{folder}/advection.h5")
    ...     with FieldsDataset(path) as data:
    ...             [line.get_label() for line in plot_spectrum(data).axes[0].lines]
    ['t = 0', 't = 1.33333', 't = 2']
    """
    field, trajectory = _choose(data, field, trajectory)
    if not all(data.periodic):
        bounded = [axis for axis, periodic in zip(data.axes, data.periodic, strict=True) if not periodic]
        raise ConfigError(
            f"{data.path.name} is not periodic along {', '.join(bounded)}: its jump there would hide the spectrum"
        )
    chosen = _spread(data, field, frames)
    lengths = [len(x) * (x[1] - x[0]) for x in data.axes.values()]
    figure, axes = _figure(1, 1, width=5.0, height=4.0)
    ax, highest = axes[0, 0], 0.0
    for k, values in zip(chosen, _read(data, field, trajectory, chosen), strict=True):
        wavenumber, energy = energy_spectrum(values, lengths)
        ax.loglog(wavenumber[1:], energy[1:], label=f"t = {_times(data, trajectory)[k]:g}")
        highest = max(highest, float(energy[1:].max()))
    if highest > 0:
        # Round-off of float32 would stretch the axis.
        ax.set_ylim(bottom=1e-16 * highest)
    ax.set(xlabel="wavenumber", ylabel=f"energy of {field}", title=f"{data.name}, trajectory {trajectory}")
    ax.legend()
    return figure


def plot_states(data: OdeDataset, trajectory: int = 0) -> "Figure":
    """Draw the states of one trajectory over time and, if they are two or three, in phase space.

    Parameters
    ----------
    data : OdeDataset
    trajectory : int
        Counted from 0; from the end if negative.

    Returns
    -------
    matplotlib Figure
        The curves over time, then the phase portrait.

    Raises
    ------
    ConfigError
        If the trajectory does not exist.

    Examples
    --------
    >>> import tempfile
    >>> from sciml.datasets import generate, recipe_registry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = generate(recipe_registry["lotka-volterra"](), 1, f"{folder}/orbit.h5")
    ...     with OdeDataset(path) as data:
    ...         [len(ax.lines) for ax in plot_states(data).axes]
    [2, 1]
    """
    from matplotlib.figure import Figure

    if not isinstance(data, OdeDataset):
        raise ConfigError(f"{data.path.name} is of kind {data.kind!r}: draw it with plot_fields")
    trajectory = chosen_row(data, trajectory)
    states, names = data["states"][trajectory].T, data.components
    portrait = len(names) in (2, 3)
    figure = Figure(figsize=(10.0 if portrait else 6.0, 4.0), layout="constrained")
    ax = figure.add_subplot(1, 1 + portrait, 1)
    for name, values in zip(names, states, strict=True):
        ax.plot(data.times, values, label=name)
    ax.set(xlabel="t")
    ax.legend()
    if portrait:
        ax = figure.add_subplot(1, 2, 2, projection="3d" if len(names) == 3 else None)
        ax.plot(*states)
        ax.set(**{f"{axis}label": name for axis, name in zip("xyz", names, strict=False)})
    figure.suptitle(f"{data.name}, trajectory {trajectory}")
    return figure


def animate(
    data: FieldsDataset, path: str | Path, field: str = "", trajectory: int = 0, frames_per_second: int = 10
) -> None:
    """Write all frames of a trajectory as a moving picture, by suffix ``.gif`` or ``.mp4``.

    Parameters
    ----------
    data : FieldsDataset
    path : path
        Replaced when the new picture is complete.
    field : str
        By default the first target.
    trajectory : int
        Counted from 0; from the end if negative.
    frames_per_second : int

    Raises
    ------
    ConfigError
        If the suffix is another one, ``.mp4`` is asked for and ffmpeg is not installed, or the field
        does not vary in time or does not exist.
    StorageError
        If it cannot be written.

    Examples
    --------
    >>> with FieldsDataset("burgers.h5") as data:  # doctest: +SKIP
    ...     animate(data, "burgers.gif")
    """
    path = Path(path)
    field, trajectory = _choose(data, field, trajectory)
    count = _moving(data, field)
    if path.suffix not in (GIF, MP4):
        raise ConfigError(f"output {str(path)!r}: an animation's name ends in {GIF} or {MP4}")
    if frames_per_second < 1:
        raise ConfigError(f"frames_per_second={frames_per_second}: at least 1")
    if path.suffix == MP4 and shutil.which("ffmpeg") is None:
        raise ConfigError(f"output {str(path)!r}: {MP4} needs ffmpeg, install it or use {GIF}")
    from matplotlib.animation import FFMpegWriter, PillowWriter
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    values = _read(data, field, trajectory, range(count))
    line = len(data.axes) == 1
    rows = values.shape[-1] if line else len(_images(data, values[0], field))
    figure, axes = _figure(1, rows, width=6.0 if line else 4.0)
    artists = [row[0] for row in _draw(figure, axes, data, values[:1], field)]
    for row, artist in enumerate(artists):
        if line:
            low, high = _limits(values[..., row])
            margin = 0.05 * (high - low) or 1.0
            axes[row, 0].set_ylim(low - margin, high + margin)
        else:
            artist.set_clim(*_limits(np.stack([_images(data, frame, field)[row][1] for frame in values])))
    FigureCanvasAgg(figure)
    title = figure.suptitle("")
    writer: Any = (PillowWriter if path.suffix == GIF else FFMpegWriter)(fps=frames_per_second)
    with atomic_path(path) as temporary:
        # The writers choose the format by the suffix.
        suffixed = temporary.with_name(temporary.name + path.suffix)
        try:
            with writer.saving(figure, str(suffixed), dpi=100):
                for frame, time in zip(values, _times(data, trajectory), strict=True):
                    title.set_text(f"{data.name}, trajectory {trajectory}, t = {time:g}")
                    images = [] if line else _images(data, frame, field)
                    for row, artist in enumerate(artists):
                        if line:
                            artist.set_ydata(frame[:, row])
                        else:
                            artist.set_data(images[row][1].T)
                    writer.grab_frame()
            os.replace(suffixed, temporary)
        finally:
            suffixed.unlink(missing_ok=True)
