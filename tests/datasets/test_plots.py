"""Pictures by their numbers: what is drawn, where, how many frames."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sciml.cli import main
from sciml.datasets import FieldsLayout, FieldSpec, OdeDataset, Trajectory, generate, recipe_registry
from sciml.datasets.kinds import create
from sciml.datasets.kinds import write as write_rows
from sciml.datasets.plots import (
    animate,
    energy_spectrum,
    plot_fields,
    plot_space_time,
    plot_spectrum,
    plot_states,
)
from sciml.datasets.reader import FieldsDataset
from sciml.datasets.record import Record
from sciml.errors import ConfigError
from sciml.solvers import CartesianGrid


def make(
    path: Path, dim: int, *, frames: int = 5, periodic: bool = True, steady: bool = False, mask: bool = False
) -> dict[str, np.ndarray]:
    grid = CartesianGrid((0.0,) * dim, (2.0,) * dim, tuple(range(8, 8 + dim)), (periodic,) * dim)
    layout = FieldsLayout(
        "test",
        grid,
        (FieldSpec("u", ""), FieldSpec("m", "", time_varying=False), FieldSpec("v", "", 1)),
        times=(0.0, 1.0) if steady else tuple(0.5 * np.arange(frames)),
        steady=steady,
        targets=("u", "v"),
        mask="m" if mask else "",
    )
    rng = np.random.default_rng(dim)
    time = () if steady else (frames,)
    arrays = {
        "u": rng.normal(size=(2, *time, *grid.shape)),
        "v": rng.normal(size=(2, *time, *grid.shape, dim)),
        "m": (rng.random((2, *grid.shape)) < 0.7).astype(float),
    }
    with h5py.File(path, "w") as file:
        create(file, layout, 2)
        rows = [Trajectory({name: values[i] for name, values in arrays.items()}) for i in range(2)]
        write_rows(file, layout, 0, rows)
        Record({}, np.arange(2)).write(file)
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def test_late_frames_are_told_apart(tmp_path: Path) -> None:
    make(tmp_path / "a.h5", 1)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["dimensions/time"][...] = [0, 660, 1004, 1005, 1320]
    with FieldsDataset(tmp_path / "a.h5") as data:
        labels = [line.get_label() for line in plot_fields(data, frames=5).axes[0].lines]
    assert labels == ["t = 0", "t = 660", "t = 1004", "t = 1005", "t = 1320"]


def test_fields_in_2d_are_images_of_the_frames(tmp_path: Path) -> None:
    arrays = make(tmp_path / "a.h5", 2)
    with FieldsDataset(tmp_path / "a.h5") as data:
        figure = plot_fields(data, trajectory=1, frames=3)
        pictures = [ax for ax in figure.axes if ax.images]
        assert len(pictures) == 3
        for ax, frame in zip(pictures, (0, 2, 4), strict=True):
            assert (ax.images[0].get_array() == arrays["u"][1, frame].T).all()
            assert ax.images[0].get_extent() == pytest.approx([-0.125, 1.875, -1 / 9, 2 - 1 / 9])
            assert f"t = {0.5 * frame:g}" in ax.get_title()
            drawn = arrays["u"][1, ::2]
            assert ax.images[0].get_clim() == (drawn.min(), drawn.max())
        figure = plot_fields(data, "v", frames=2)
        pictures = [ax for ax in figure.axes if ax.images]
        assert [ax.get_title().split(",")[0] for ax in pictures] == ["v_x", "v_x", "v_y", "v_y"]
        assert (pictures[3].images[0].get_array() == arrays["v"][0, 4, ..., 1].T).all()


def test_masked_targets_are_blank_outside(tmp_path: Path) -> None:
    arrays = make(tmp_path / "a.h5", 2, steady=True, mask=True)
    with FieldsDataset(tmp_path / "a.h5") as data:
        [ax] = [ax for ax in plot_fields(data).axes if ax.images]
        shown = ax.images[0].get_array()
        assert (np.ma.getmaskarray(shown) == (arrays["m"][0] == 0).T).all()
        assert (shown.compressed() == arrays["u"][0].T[arrays["m"][0].T == 1]).all()
        [ax] = [ax for ax in plot_fields(data, "m").axes if ax.images]
        assert (ax.images[0].get_array() == arrays["m"][0].T).all()


def test_fields_in_1d_are_lines_and_in_3d_mid_planes(tmp_path: Path) -> None:
    arrays = make(tmp_path / "a.h5", 1)
    with FieldsDataset(tmp_path / "a.h5") as data:
        [ax] = plot_fields(data, frames=2).axes
        assert [line.get_label() for line in ax.lines] == ["t = 0", "t = 2"]
        assert (ax.lines[1].get_ydata() == arrays["u"][0, 4]).all()
    arrays = make(tmp_path / "b.h5", 3)
    with FieldsDataset(tmp_path / "b.h5") as data:
        pictures = [ax for ax in plot_fields(data, frames=1).axes if ax.images]
        planes = [arrays["u"][0, 0, 4], arrays["u"][0, 0, :, 4], arrays["u"][0, 0, :, :, 5]]
        for ax, plane in zip(pictures, planes, strict=True):
            assert (ax.images[0].get_array() == plane.T).all()
        assert (pictures[1].get_xlabel(), pictures[1].get_ylabel()) == ("x", "z")


def test_space_time_has_time_upwards(tmp_path: Path) -> None:
    arrays = make(tmp_path / "a.h5", 1)
    with FieldsDataset(tmp_path / "a.h5") as data:
        figure = plot_space_time(data, trajectory=-1)
        mesh = figure.axes[0].collections[0]
        assert (mesh.get_array().reshape(5, 8) == arrays["u"][1]).all()
        corners = np.asarray(mesh.get_coordinates())
        assert corners[0, 0] == pytest.approx([-0.125, -0.25])
        assert corners[-1, -1] == pytest.approx([1.875, 2.25])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 7), st.integers(-7, 7), st.integers(-7, 7), st.integers(1, 3), st.sampled_from((0.5, 1, 2))
)
def test_a_single_mode_is_in_its_shell(i: int, j: int, k: int, dim: int, ratio: float) -> None:
    """cos(k . x) has the energy 1/4, a constant 1/2; on a longer domain k is measured by its k_0."""
    wave = np.array([i, j, k][:dim])
    lengths = np.array([ratio, 1.0, 1.0][:dim])
    x = np.meshgrid(*(np.arange(16) / 16,) * dim, indexing="ij")
    u = np.cos(2 * np.pi * sum(a * b for a, b in zip(wave, x, strict=True)))
    numbers, energy = energy_spectrum(u[..., None], lengths)
    shell = int(np.floor(np.linalg.norm(wave * lengths.max() / lengths) + 0.5))
    assert energy[shell] == pytest.approx(0.25 if wave.any() else 0.5)
    assert energy.sum() == pytest.approx(0.5 * (u**2).mean())
    assert numbers[shell] == pytest.approx(2 * np.pi / lengths.max() * shell)


def test_spectrum_is_drawn_for_periodic_data_only(tmp_path: Path) -> None:
    arrays = make(tmp_path / "a.h5", 2)
    with FieldsDataset(tmp_path / "a.h5") as data:
        [ax] = plot_spectrum(data, "v", frames=2).axes
        numbers, energy = energy_spectrum(arrays["v"][0, 4].astype(float), (2.0, 2.0))
        assert ax.lines[1].get_xdata() == pytest.approx(numbers[1:])
        assert ax.lines[1].get_ydata() == pytest.approx(energy[1:])
    make(tmp_path / "b.h5", 2, periodic=False)
    with (
        FieldsDataset(tmp_path / "b.h5") as data,
        pytest.raises(ConfigError, match="not periodic along x, y"),
    ):
        plot_spectrum(data)


@pytest.mark.parametrize(("dim", "field"), [(1, "u"), (2, "v")])
def test_a_gif_has_a_picture_for_every_frame(tmp_path: Path, dim: int, field: str) -> None:
    make(tmp_path / "a.h5", dim)
    with FieldsDataset(tmp_path / "a.h5") as data:
        animate(data, tmp_path / "a.gif", field, frames_per_second=5)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.format == "GIF"
        assert picture.n_frames == 5
        assert picture.info["duration"] == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.h5"]


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "a.h5", 2, steady=True)
    with FieldsDataset(tmp_path / "a.h5") as data:
        for draw, message in (
            (lambda: plot_fields(data, "w"), "unknown field of a.h5 'w'"),
            (lambda: plot_fields(data, trajectory=2), "trajectory=2"),
            (lambda: plot_fields(data, trajectory=1.0), r"trajectory=1\.0"),
            (lambda: plot_fields(data, frames=0), "frames=0"),
            (lambda: plot_fields(data, frames="2"), "frames='2'"),
            (lambda: plot_states(data), "is of kind 'fields': draw it with plot_fields"),
            (lambda: plot_space_time(data), "is 2D"),
            (lambda: animate(data, tmp_path / "a.gif"), "does not vary in time"),
        ):
            with pytest.raises(ConfigError, match=message):
                draw()
    make(tmp_path / "b.h5", 1)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with FieldsDataset(tmp_path / "b.h5") as data:
        with pytest.raises(ConfigError, match=r"install it or use \.gif"):
            animate(data, tmp_path / "b.mp4")
        with pytest.raises(ConfigError, match="ends in"):
            animate(data, tmp_path / "b.webm")


@pytest.mark.parametrize(("name", "dim"), [("lotka-volterra", 2), ("lorenz", 3)])
def test_states_are_drawn_over_time_and_in_phase_space(tmp_path: Path, name: str, dim: int) -> None:
    path = generate(recipe_registry[name](final_time=0.5), 2, tmp_path / "a.h5")
    with OdeDataset(path) as data:
        states = data["states"][1]
        curves, portrait = plot_states(data, trajectory=-1).axes
        assert [line.get_label() for line in curves.lines] == list(data.components)
        for line, values in zip(curves.lines, states.T, strict=True):
            assert (line.get_xdata() == data.times).all()
            assert (line.get_ydata() == values).all()
        [orbit] = portrait.lines
        drawn = orbit.get_data_3d() if dim == 3 else orbit.get_data()
        assert (np.array(drawn) == states.T).all()
        assert portrait.get_ylabel() == data.components[1]
        with pytest.raises(ConfigError, match=r"trajectory=2: a\.h5 has 2, counted from 0; -1 is the last"):
            plot_states(data, 2)
        with pytest.raises(ConfigError, match="is of kind 'ode': draw it with plot_states"):
            plot_fields(data)
    with h5py.File(path, "r+") as file:
        attributes, values = dict(file["states"].attrs), file["states"][:, :, :1]
        del file["states"]
        file["states"] = values
        file["states"].attrs.update({**attributes, "names": ["x"], "descriptions": ["x"]})
    with OdeDataset(path) as data:
        assert len(plot_states(data).axes) == 1


def test_odes_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generate(recipe_registry["lorenz"](final_time=0.5), 2, "lorenz.h5")
    assert main(["plot", "lorenz.h5", "--trajectory", "-1"]) == 0
    with Image.open("lorenz.png") as picture:
        assert picture.format == "PNG"
    make(tmp_path / "a.h5", 1)
    for file, wrong, message in (
        ("lorenz.h5", ["--kind", "spectrum"], "kind='spectrum': lorenz.h5 holds states of ODEs"),
        ("lorenz.h5", ["-o", "a.gif"], "states of ODEs are drawn into .png"),
        ("lorenz.h5", ["--field", "x"], "field='x': all states of lorenz.h5 are drawn"),
        ("a.h5", ["--kind", "states"], "kind='states' is for ODEs"),
    ):
        capsys.readouterr()
        assert main(["plot", file, *wrong]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert message in line


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a.h5", 1)
    assert main(["plot", "a.h5"]) == 0
    with Image.open("a.png") as picture:
        assert picture.format == "PNG"
    assert main(["plot", "a.h5", "-o", "a.gif"]) == 0
    with Image.open("a.gif") as picture:
        assert picture.n_frames == 5
    assert main(["plot", "a.h5", "--kind", "spectrum", "--trajectory", "1", "-o", "s.svg"]) == 0
    assert "<svg" in Path("s.svg").read_text()
    for wrong, message in (
        (["--kind", "fields", "-o", "a.gif"], "of kind 'fields' ends in"),
        (["-o", "a.xyz"], "ends in .png"),
        (["--kind", "animation", "-o", "a.png"], "ends in .gif, .mp4"),
        (["--field", "w"], "unknown field"),
    ):
        capsys.readouterr()
        assert main(["plot", "a.h5", *wrong]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert message in line
