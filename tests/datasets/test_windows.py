"""Windows of frames: every layout of a file against plain slicing, workers, forks, The Well's loader."""

import multiprocessing
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from sciml.datasets import FieldsLayout, FieldSpec, Trajectory, generate, open_dataset, recipe_registry
from sciml.datasets.kinds import create
from sciml.datasets.kinds import write as write_rows
from sciml.datasets.record import Record
from sciml.datasets.windows import Windows
from sciml.errors import ConfigError, DatasetFormatError
from sciml.solvers import CartesianGrid


def make(
    path: Path, n: int = 3, frames: int = 7, dim: int = 2, steady: bool = False
) -> dict[str, np.ndarray]:
    """A file with a scalar, a vector, a tensor, a coefficient, a parameter and a scalar; its arrays."""
    grid = CartesianGrid((0.0,) * dim, (1.0,) * dim, tuple(range(4, 4 + dim)), (True,) * dim)
    ranks = {"u": 0, "v": 1, "s": 2}
    layout = FieldsLayout(
        "test",
        grid,
        (
            FieldSpec("k", "", time_varying=False),
            *(FieldSpec(name, "", rank) for name, rank in ranks.items()),
        ),
        times=(0.0, 1.0) if steady else tuple(0.5 * np.arange(frames)),
        steady=steady,
        scalars=("strength",),
        parameters={"nu": 0.25},
    )
    rng = np.random.default_rng(n + frames + dim)
    data = {"k": rng.normal(size=(n, *grid.shape)), "strength": rng.normal(size=n)}
    for name, rank in ranks.items():
        time = () if steady else (frames,)
        data[name] = rng.normal(size=(n, *time, *grid.shape, *(dim,) * rank))
    with h5py.File(path, "w") as file:
        create(file, layout, n)
        trajectories = [
            Trajectory({name: data[name][i] for name in ("k", *ranks)}, {"strength": data["strength"][i]})
            for i in range(n)
        ]
        write_rows(file, layout, 0, trajectories)
        Record({"recipe": "test"}, np.arange(n)).write(file)
    return {name: values.astype(np.float32) for name, values in data.items()}


def repack(path: Path, **storage: object) -> None:
    """Store the time-varying fields in another way."""
    with h5py.File(path, "r+") as file:
        for name in ("t0_fields/u", "t1_fields/v", "t2_fields/s"):
            values, attributes = file[name][()], dict(file[name].attrs)
            del file[name]
            chunks = storage.get("chunks")
            kind = {**storage, "chunks": (*chunks, *values.shape[len(chunks) :])} if chunks else storage  # type: ignore[misc]
            dataset = file.create_dataset(name, data=values, **kind)
            dataset.attrs.update(attributes)


STORAGE: dict[str, dict | None] = {
    "ours": None,
    "contiguous": {},
    "one frame": {"chunks": (1, 1)},
    "three frames": {"chunks": (1, 3)},
    "two trajectories": {"chunks": (2, 2)},
    "gzip": {"chunks": (1, 3), "compression": "gzip", "shuffle": True},
    "float64": {"dtype": ">f8", "chunks": (1, 2)},
    "cut in space": {"chunks": (2, 3, 2)},
}


def expected(data: dict[str, np.ndarray], names: tuple[str, ...], row: int, frames: np.ndarray) -> np.ndarray:
    space = data["k"].shape[1:]
    parts = [data[name][row, frames].reshape(len(frames), *space, -1) for name in names]
    return np.concatenate(parts, axis=-1)


@pytest.mark.parametrize("storage", STORAGE)
def test_windows_are_slices_of_the_file(tmp_path: Path, storage: str) -> None:
    path = tmp_path / "a.h5"
    data = make(path)
    if STORAGE[storage] is not None:
        repack(path, **STORAGE[storage])
    for n_in, n_out, stride in ((1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 4, 1), (1, 1, 5)):
        windows = Windows(path, n_in, n_out, stride=stride)
        plain = storage not in ("gzip", "cut in space")
        assert all((field.offsets is not None) == plain for field in windows._varying)
        starts = 7 - (n_in + n_out - 1) * stride
        assert len(windows) == 3 * starts
        for i in range(len(windows)):
            row, start = divmod(i, starts)
            frames = start + stride * np.arange(n_in + n_out)
            both = expected(data, ("u", "v", "s"), row, frames)
            sample = windows[i]
            assert all(values.dtype == torch.float32 for values in sample.values())
            assert (sample["input"].numpy() == both[:n_in]).all()
            assert (sample["output"].numpy() == both[n_in:]).all()
            assert (sample["constant"].numpy()[..., 0] == data["k"][row]).all()
            assert sample["scalars"].tolist() == [0.25, data["strength"][row]]
        windows.close()
    assert windows.channels == ("u", "v_x", "v_y", "s_xx", "s_xy", "s_yx", "s_yy")
    assert windows.constant_channels == ("k",)
    assert windows.scalar_names == ("nu", "strength")


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_window(tmp_path_factory: pytest.TempPathFactory, draw: st.DataObject) -> None:
    dim, n, frames = draw.draw(st.integers(1, 3)), draw.draw(st.integers(1, 4)), draw.draw(st.integers(2, 9))
    path = tmp_path_factory.mktemp("windows") / "a.h5"
    data = make(path, n, frames, dim)
    if draw.draw(st.booleans()):
        repack(path, chunks=(draw.draw(st.integers(1, n)), draw.draw(st.integers(1, frames))))
    n_in = draw.draw(st.integers(1, frames - 1))
    n_out = draw.draw(st.integers(1, frames - n_in))
    stride = draw.draw(st.integers(1, (frames - 1) // (n_in + n_out - 1)))
    windows = Windows(path, n_in, n_out, stride=stride, in_memory=draw.draw(st.booleans()), fields=("s", "u"))
    starts = frames - (n_in + n_out - 1) * stride
    assert len(windows) == n * starts
    index = draw.draw(st.integers(-len(windows), len(windows) - 1))
    row, start = divmod(index % len(windows), starts)
    both = expected(data, ("u", "s"), row, start + stride * np.arange(n_in + n_out))
    sample = windows[index]
    assert set(sample) == {"input", "output", "scalars"}
    assert (torch.cat([sample["input"], sample["output"]]).numpy() == both).all()
    windows.close()


def test_rollout_gives_all_that_follows_and_nothing_given(tmp_path: Path) -> None:
    data = make(tmp_path / "a.h5")
    windows = Windows(tmp_path / "a.h5", n_in=3, rollout=True, fields=("u",))
    assert len(windows) == 3
    for row, sample in enumerate(windows):
        assert (sample["input"].numpy()[..., 0] == data["u"][row, :3]).all()
        assert (sample["output"].numpy()[..., 0] == data["u"][row, 3:]).all()
    sample = Windows(tmp_path / "a.h5", n_in=2, stride=2, rollout=True, fields=("u",))[1]
    assert (sample["output"].numpy()[..., 0] == data["u"][1, 4::2]).all()


def test_a_steady_problem_has_a_zero_frame_and_its_solution(tmp_path: Path) -> None:
    data = make(tmp_path / "a.h5", steady=True)
    windows = Windows(tmp_path / "a.h5")
    assert len(windows) == 3
    for row, sample in enumerate(windows):
        assert (sample["input"] == 0).all()
        assert (sample["output"].numpy()[0, ..., 0] == data["u"][row]).all()
        assert (sample["output"].numpy()[0, ..., 1:3] == data["v"][row]).all()


def test_chunks_never_written_hold_the_fill_value(tmp_path: Path) -> None:
    make(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        attributes = dict(file["t0_fields/u"].attrs)
        shape = file["t0_fields/u"].shape
        for name, kind in (("u", {"chunks": (1, 2, *shape[2:])}), ("w", {})):
            if name in file["t0_fields"]:
                del file[f"t0_fields/{name}"]
            file.create_dataset(f"t0_fields/{name}", shape, np.float32, fillvalue=7.0, **kind)
            file[f"t0_fields/{name}"].attrs.update(attributes)
        file["t0_fields/u"][1, 2:4] = 1.0
        file["t0_fields"].attrs["field_names"] = ["u", "w"]
    windows = Windows(tmp_path / "a.h5", 2, 2, fields=("u", "w"))
    sample = windows[4 + 0]
    assert (sample["input"] == 7).all()
    assert (sample["output"][..., 0] == 1).all()
    assert (sample["output"][..., 1] == 7).all()


def test_fields_shared_by_all_trajectories_and_constant_along_an_axis(tmp_path: Path) -> None:
    """Files of The Well may leave axes out."""
    data = make(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        u = file["t0_fields/u"][()]
        for name, values, sample, time, along in (
            ("u", u[0, :, :, 0], False, True, [True, False]),
            ("k", u[0, 0], False, False, [True, True]),
        ):
            del file[f"t0_fields/{name}"]
            dataset = file.create_dataset(f"t0_fields/{name}", data=values)
            dataset.attrs.update({"sample_varying": sample, "time_varying": time, "dim_varying": along})
    with open_dataset(tmp_path / "a.h5"):
        pass
    for in_memory in (False, True):
        sample = Windows(tmp_path / "a.h5", 1, 2, fields=("u", "k"), in_memory=in_memory)[5 + 2]
        wanted = np.broadcast_to(data["u"][0, 3:5, :, :1], (2, 4, 5))
        assert (sample["output"].numpy()[..., 0] == wanted).all()
        assert (sample["constant"].numpy()[..., 0] == data["u"][0, 0]).all()


@pytest.mark.parametrize("compressed", [False, True])
def test_workers_and_pickles_read_the_same(tmp_path: Path, compressed: bool) -> None:
    data = make(tmp_path / "a.h5")
    if compressed:
        repack(tmp_path / "a.h5", chunks=(1, 2), compression="gzip")
    windows = Windows(tmp_path / "a.h5", 2, 1, fields=("u",))
    first = windows[0]["input"]  # opens in the parent, before the workers fork
    assert (windows._file is not None) == compressed
    loader = DataLoader(
        windows, batch_size=5, num_workers=2, multiprocessing_context=multiprocessing.get_context("fork")
    )
    outputs = torch.cat([batch["output"] for batch in loader])[..., 0].numpy()
    assert (outputs == data["u"][:, 2:].reshape(15, 1, *data["u"].shape[2:])).all()
    assert (windows[0]["input"] == first).all()
    copy = pickle.loads(pickle.dumps(windows))
    assert copy._file is copy._map is None
    assert (copy[0]["input"] == first).all()
    windows.close()
    assert (windows[0]["input"] == first).all()


@pytest.mark.parametrize("in_memory", [False, True])
def test_states_of_odes_are_channels_without_space(tmp_path: Path, in_memory: bool) -> None:
    recipe = recipe_registry["lorenz"](final_time=0.1)
    with open_dataset(generate(recipe, 3, tmp_path / "a.h5")) as data:
        states = data["states"][()].astype(np.float32)
        windows = data.torch(4, 2, stride=2, in_memory=in_memory)
        rollout = data.torch(3, rollout=True)
        names, count = data.components, len(data.times)
    starts = count - 5 * 2
    assert len(windows) == 3 * starts
    assert windows.channels == names
    for index in (0, starts - 1, 2 * starts + 3):
        row, start = divmod(index, starts)
        sample = windows[index]
        assert (sample["input"].numpy() == states[row, start : start + 8 : 2]).all()
        assert (sample["output"].numpy() == states[row, start + 8 : start + 12 : 2]).all()
        assert sample["scalars"].shape == (len(windows.scalar_names),)
    assert (rollout[1]["output"].numpy() == states[1, 3:]).all()
    batch = next(iter(DataLoader(windows, batch_size=5)))
    assert batch["input"].shape == (5, 4, 3)
    assert batch["input"].dtype == torch.float32


def test_a_replaced_file_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "a.h5")
    windows = Windows(tmp_path / "a.h5")
    make(tmp_path / "b.h5", n=4)
    os.replace(tmp_path / "b.h5", tmp_path / "a.h5")
    with pytest.raises(DatasetFormatError, match="has changed"):
        windows[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_in": 4, "n_out": 4}, "n_in=4, n_out=4, stride=1: a.h5 has 7 frames"),
        ({"stride": 7}, "choose a shorter window"),
        ({"n_in": 7, "rollout": True}, "choose a shorter window"),
        ({"n_in": 0}, "n_in=0: give a whole number"),
        ({"n_in": 1.5}, "n_in=1.5: give a whole number"),
        ({"n_out": "2"}, "n_out='2': give a whole number"),
        ({"n_in": True}, "n_in=True: give a whole number"),
        ({"stride": None}, "stride=None: give a whole number"),
        ({"rollout": 3}, "rollout=3: give True or False"),
        ({"in_memory": "no"}, "in_memory='no': give True or False"),
        ({"fields": [0]}, r"fields=\[0\]: give a list of names"),
        ({"fields": 5}, "fields=5: give a list of names"),
        ({"stride": -1}, "stride=-1"),
        ({"n_out": 2, "rollout": True}, "n_out=2 with rollout"),
        ({"fields": "u"}, "give a list of names"),
        ({"fields": ("w",)}, "unknown field of a.h5 'w'"),
        ({"fields": ("k",)}, "none of a.h5 that is chosen varies in time"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    make(tmp_path / "a.h5")
    with pytest.raises(ConfigError, match=message):
        Windows(tmp_path / "a.h5", **arguments)


def test_the_wells_loader_reads_the_same_windows(tmp_path: Path) -> None:
    data = pytest.importorskip("the_well.data")
    make(tmp_path / "a.h5")
    peer = data.WellDataset(path=str(tmp_path), include_filters=[], n_steps_input=2, n_steps_output=3)
    windows = open_dataset(tmp_path / "a.h5").torch(2, 3)
    assert len(peer) == len(windows)
    for i in (0, 2, 4, 8):
        theirs, ours = peer[i], windows[i]
        assert (theirs["input_fields"] == ours["input"]).all()
        assert (theirs["output_fields"] == ours["output"]).all()
        assert (theirs["constant_fields"] == ours["constant"]).all()
