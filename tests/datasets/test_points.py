"""Kind ``points``: ragged rows, whatever the shards; the recipes that fill it; what is refused."""

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sciml.cli import main
from sciml.datasets import (
    FieldsDataset,
    FieldSpec,
    PointsDataset,
    PointsLayout,
    Recipe,
    Trajectory,
    generate,
    open_dataset,
)
from sciml.datasets.point_plots import plot_points
from sciml.datasets.recipes import ElasticityRecipe, PipeFlowRecipe, PoissonStarCloudRecipe, PoissonStarRecipe
from sciml.datasets.recipes.elasticity import RandomVoid
from sciml.datasets.rows import row_datasets
from sciml.datasets.samples import Samples
from sciml.datasets.verification import verify
from sciml.datasets.windows import Windows
from sciml.errors import ConfigError, DatasetFormatError
from sciml.solvers.fem import square_with_void
from sciml.solvers.fem.quads import biquadratic

SMALL = ElasticityRecipe(angles=16, rings=5, modes=4, around=64, across=10)


@dataclass(frozen=True)
class Ragged(Recipe):
    """From one to six points and no to five cells."""

    check_limits = {}  # noqa: RUF012 - read only

    def layout(self) -> PointsLayout:
        fields = FieldSpec("u", "u"), FieldSpec("w", "w", rank=1)
        return PointsLayout(
            "ragged", 3, fields, 4, ("triangle", "line"), ("s",), {"c": 2.0}, ("w",), ("u",), code=("s",)
        )

    def sample(self, seed: int) -> Trajectory:
        rng = np.random.default_rng(seed)
        n, m = int(rng.integers(1, 7)), int(rng.integers(0, 6))
        fields = {
            "positions": rng.random((n, 3)),
            "u": rng.random(n),
            "w": rng.random((n, 3)),
            "cells/triangle": rng.integers(0, n, (m, 3)),
            "cells/line": rng.integers(0, n, (n, 2)),
        }
        return Trajectory(fields, {"s": rng.random()})


def contents(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        names = [name for name in row_datasets(file)]
        offsets = ["points/offsets", "cells/triangle/offsets", "cells/line/offsets"]
        return {name: file[name][()] for name in (*names, *offsets, "provenance/checksum")}


def test_rows_come_back_whatever_the_shards(tmp_path: Path) -> None:
    recipe = Ragged()
    whole = generate(recipe, 11, tmp_path / "whole.h5", progress=False)
    parts = generate(recipe, 11, tmp_path / "parts.h5", shard_size=3, progress=False)
    first, second = contents(whole), contents(parts)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    with PointsDataset(parts) as data:
        assert (data.dim, data.cells, data.code, data.inputs, data.targets) == (
            *(3, ("line", "triangle"), ("s",), ("w",), ("u",)),
        )
        assert data.seeds is not None
        for row, seed in enumerate(data.seeds):
            expected = recipe.sample(int(seed))
            for name, values in expected.fields.items():
                found = data.read(name, row)
                exact = name == "positions" or name.startswith("cells/")
                assert np.array_equal(found, values if exact else values.astype(np.float32))
            assert data["s"][row] == np.float32(expected.scalars["s"])
        assert data.offsets[-1] == len(data["positions"])


def test_a_folder_of_parts(tmp_path: Path) -> None:
    folder = generate(Ragged(), 10, tmp_path / "ragged", split=(0.6, 0.2, 0.2), shard_size=4, progress=False)
    whole = generate(Ragged(), 10, tmp_path / "whole.h5", progress=False)
    with PointsDataset(whole) as data, PointsDataset(folder / "data" / "test" / "ragged.hdf5") as part:
        assert part.n_trajectories == 2
        for row in range(2):
            for name in data.fields:
                assert np.array_equal(part.read(name, row), data.read(name, 8 + row)), name


def test_elasticity_is_verified_and_an_altered_value_found(tmp_path: Path) -> None:
    path = generate(SMALL, 3, tmp_path / "e.h5", progress=False)
    assert all(finding.passed for finding in verify(path, seed=0))
    with h5py.File(path, "r+") as file:
        file["points/offsets"][1] += 1
        file["points/offsets"][2] += 1
    assert not verify(path, seed=0)[0].passed


def test_the_same_voids_at_other_points() -> None:
    coarse, fine = SMALL.sample(3), replace(SMALL, angles=32, rings=11).sample(3)
    assert coarse.scalars == fine.scalars
    # The area of the points' cells, exact up to the square of their size.
    void = RandomVoid.drawn(3, SMALL.modes)
    angle = np.linspace(0, 2 * np.pi, 4096, endpoint=False)
    area = 1 - np.pi * (void(angle) ** 2).mean()
    assert [
        abs(part.fields["weight"].sum() - area) < bound for part, bound in ((coarse, 0.02), (fine, 0.005))
    ] == [
        *(True, True),
    ]
    # Rings of samples are at different places, but for the last one, which lies on the void.
    other = SMALL.sample(4)
    rings = [
        np.linalg.norm(np.diff(one.fields["positions"].reshape(16, 5, 2)[0], axis=0), axis=1)
        for one in (coarse, other)
    ]
    assert abs(rings[0] / rings[0].sum() - rings[1] / rings[1].sum()).max() > 0.01
    x, y = (fine.fields["positions"].reshape(32, 11, 2)[:, -1] - 0.5).T
    assert np.allclose(np.hypot(x, y), void(np.arctan2(y, x)), atol=1e-12)
    for part, n in ((coarse, 16), (fine, 32)):
        corners = part.fields["positions"][part.fields["cells/quad"]]
        a, b = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
        assert (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] > 0).all()
        assert len(corners) == n * (len(part.fields["positions"]) // n - 1)


@pytest.mark.parametrize("rings", [3, 4, 5, 9])
def test_weights_across_rings_are_exact_for_linear_functions(rings: int) -> None:
    places, weights = replace(SMALL, rings=rings)._parameters()
    first = places[0, 1]
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    assert weights @ places[:, 1] == pytest.approx(0.5 + first**2 / 2, abs=1e-14)


@pytest.mark.parametrize("grading", [0.0, 0.4, -0.4])
def test_weights_across_rings_are_of_third_order(grading: float) -> None:
    counts, errors = np.array([9, 17, 33, 65]), []
    for rings in counts:
        places, weights = replace(SMALL, rings=int(rings))._parameters(grading)
        first = places[0, 1]
        exact = np.exp(1) - np.exp(first) + first * np.exp(first)
        errors.append(abs(weights @ np.exp(places[:, 1]) - exact))
    assert -np.polyfit(np.log(counts - 1), np.log(errors), 1)[0] > 2.8


@pytest.mark.parametrize("grading", [0.0, 0.4, -0.4])
def test_points_follow_their_void_and_carry_gradients(grading: float) -> None:
    void = RandomVoid.drawn(5, 4)
    recipe = replace(SMALL, angles=200, rings=60)
    x, weight = recipe.points(void, grading)
    # Moments of the cell: those of the square less those of the void.
    angle = np.linspace(0, 2 * np.pi, 4096, endpoint=False)
    r = void(angle)
    assert weight.sum() == pytest.approx(1 - np.pi * (r**2).mean(), rel=2e-3)
    first = 0.5 - np.pi * (r**2).mean() / 2 - 2 * np.pi * (r**3 * np.cos(angle)).mean() / 3
    assert weight @ x[:, 0] == pytest.approx(first, rel=2e-3)
    # Where the finite elements' map has the same points.
    mesh = square_with_void(void, 64, 10)
    chosen, local = mesh.locate(recipe._parameters(grading)[0])
    mapped = (biquadratic(local)[0][:, None] @ mesh.nodes[mesh.elements[chosen]])[:, 0]
    assert np.abs(mapped - x).max() < 1e-3
    coefficients = torch.tensor(void.coefficients, requires_grad=True)

    def function(c: torch.Tensor) -> torch.Tensor:
        positions, weights = SMALL.points(RandomVoid(c))
        return torch.cat([positions.flatten(), weights])

    assert torch.allclose(function(coefficients)[:10], torch.tensor(SMALL.points(void)[0].ravel()[:10]))
    assert torch.autograd.gradcheck(function, (coefficients,))


def test_the_void_is_the_literal_random_field() -> None:
    """Variances of a mode over many seeds: 4^2 / (k^2 + 3^2) in an orthonormal basis of the circle."""
    draws = np.array([RandomVoid.drawn(seed, 4).coefficients for seed in range(4000)])
    k = np.arange(5)
    expected = 16 / (k**2 + 9) / np.where(k == 0, 2 * np.pi, np.pi)
    assert draws.var(axis=0)[:, 0] == pytest.approx(expected, rel=0.1)
    assert np.array_equal(RandomVoid.drawn(5, 9).coefficients[:5], draws[5])


def test_distances_and_curvatures_of_voids() -> None:
    circle = RandomVoid(np.array([[0.3, 0.0]]))
    radius = float(circle(np.zeros(1))[0])
    x = np.random.default_rng(0).uniform(0, 1, (50, 2))
    distance, curvature = circle.nearest(x)
    assert np.allclose(distance, np.abs(np.linalg.norm(x - 0.5, axis=1) - radius), atol=1e-12)
    assert np.allclose(curvature, 1 / radius)
    void, step = RandomVoid.drawn(3, 8), 1e-4
    angle = np.linspace(0, 6, 23)
    r, first, second = void.derivatives(angle)
    before, after = void(angle - step), void(angle + step)
    assert np.allclose(first, (after - before) / (2 * step), atol=1e-5)
    assert np.allclose(second, (after - 2 * r + before) / step**2, atol=1e-3)
    dense = np.linspace(0, 2 * np.pi, 100_001)
    boundary = 0.5 + void(dense)[:, None] * np.stack([np.cos(dense), np.sin(dense)], axis=1)
    outside = x[np.linalg.norm(x - 0.5, axis=1) > 0.4]
    gaps = np.linalg.norm(outside[:, None] - boundary, axis=-1).min(axis=1)
    assert np.allclose(void.nearest(outside)[0], gaps, atol=1e-7)
    # Against the circle through three close points.
    a, b, c = boundary[[9999, 10000, 10001]]
    doubled = (b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]
    bent = 2 * doubled / (np.linalg.norm(b - a) * np.linalg.norm(c - b) * np.linalg.norm(c - a))
    assert void.nearest(b[None])[1][0] == pytest.approx(bent, rel=1e-3)


def test_pipes_are_mapped_by_their_index() -> None:
    recipe = PipeFlowRecipe(resolution=17, along=64, across=8)
    found = recipe.sample(0)
    x, y, u = (found.fields[name] for name in "xyu")
    assert np.allclose(x, np.linspace(0, 10, 17)[:, None])
    assert np.allclose(y[:, -1] - y[:, 0], 1.0)
    assert np.allclose(u[0], 1 - 4 * (np.linspace(0, 1, 17) - 0.5) ** 2, atol=1e-12)
    assert np.allclose(u[:, [0, -1]], 0)
    middle = y[[0, 4, 8, 12, 16], 8]
    assert middle == pytest.approx([found.scalars[f"height_{i}"] for i in range(5)])
    # What flows in flows through every section.
    flux = np.trapezoid(u, y, axis=1)
    assert flux[1:] == pytest.approx(2 / 3, rel=0.03)


def test_clouds_agree_with_the_grid() -> None:
    cloud, grid = PoissonStarCloudRecipe(), PoissonStarRecipe()
    points, box = cloud.sample(2), grid.sample(2)
    assert points.scalars == box.scalars
    x = points.fields["positions"]
    index = np.rint((x + 0.5) * 64).astype(int)
    close = np.linalg.norm((x + 0.5) * 64 - index, axis=1) < 0.15
    assert close.sum() > 20
    u = box.fields["u"][tuple(index[close].T)]
    assert np.abs(points.fields["u"][close] - u).max() < 0.1 * np.abs(u).max()
    assert points.fields["weight"].sum() == pytest.approx(
        box.fields["mask"].mean() * (65 / 64) ** 2, rel=0.05
    )
    more = replace(cloud, density=4096).sample(2)
    assert np.array_equal(more.fields["positions"][: len(x)], x)


def test_pictures_and_description(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = generate(SMALL, 2, tmp_path / "e.h5", progress=False)
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "80 to 80 of a sample in 2 dimensions" in printed
    assert "128 of type quad" in printed
    for more in ([], ["--field", "displacement", "--trajectory", "-1"]):
        assert main(["plot", str(path), *more, "-o", str(tmp_path / "e.png")]) == 0
    assert main(["plot", str(path), "-o", str(tmp_path / "e.gif")]) == 1
    assert main(["plot", str(path), "--kind", "spectrum", "-o", str(tmp_path / "e.png")]) == 1
    with PointsDataset(generate(Ragged(), 2, tmp_path / "r.h5", progress=False)) as data:
        assert len(plot_points(data).axes) == 8
        with pytest.raises(ConfigError, match="trajectory=2"):
            plot_points(data, trajectory=2)
        with pytest.raises(ConfigError, match="field"):
            plot_points(data, "v")
    plt.close("all")


def test_samples_for_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = generate(Ragged(), 7, tmp_path / "r.h5", progress=False)
    with PointsDataset(path) as data:
        samples = data.torch()
        for row in (0, -1):
            found = samples[row]
            assert set(found) == {*data.fields, "code"}
            assert np.allclose(found["w"], data.read("w", row % 7))
            assert found["cells/line"].dtype == torch.int64
            assert np.array_equal(found["cells/line"], data.read("cells/line", row % 7))
            assert float(found["code"][0]) == float(data["s"][row % 7])
    with pytest.raises(IndexError):
        samples[7]
    # In worker processes, forked from one that has the file open, and spawned.
    only = Samples(path, ["u"])
    expected = [only[row]["u"] for row in range(7)]
    for context in ("fork", "spawn"):
        loader = torch.utils.data.DataLoader(
            only, batch_size=None, num_workers=2, multiprocessing_context=context
        )
        assert all(torch.equal(found["u"], one) for found, one in zip(loader, expected, strict=True))
    # A file that was open when a process was forked is not the child's to read.
    opened = only._opened()
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: -1)
        assert only._opened() is not opened
    with pytest.raises(ConfigError, match="unknown field"):
        Samples(path, ["v"])
    with pytest.raises(ConfigError, match="read it as Samples"):
        Windows(path)
    only.close()
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(DatasetFormatError, match="has changed"):
        only[0]


def test_other_kinds_say_so(tmp_path: Path) -> None:
    path = generate(Ragged(), 2, tmp_path / "r.h5", progress=False)
    assert isinstance(open_dataset(path), PointsDataset)
    with pytest.raises(DatasetFormatError, match="kind 'points'"):
        FieldsDataset(path)
    with h5py.File(path, "r+") as file:
        file["fields/u"].resize(1, axis=0)
    with pytest.raises(DatasetFormatError, match="fields/u: 1 rows where"):
        PointsDataset(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"u": np.zeros(2)}, r"field 'u' has shape \(2,\)"),
        ({"positions": np.zeros((3, 2))}, r"field 'positions' has shape \(3, 2\)"),
        ({"cells/line": np.zeros((1, 2))}, "cells/line has shape"),
        ({"cells/line": np.full((1, 2), 3)}, "cells/line names point 3: there are 3"),
        ({"v": np.zeros(3)}, "the sample has fields"),
        ({"u": np.full(3, 1e300)}, "does not fit float32"),
        (
            {
                "positions": np.zeros((0, 3)),
                "u": np.zeros(0),
                "w": np.zeros((0, 3)),
                "cells/line": np.zeros((0, 2), int),
            },
            "has no points",
        ),
    ],
)
def test_samples_that_do_not_fit(changed: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    from sciml.datasets.kinds import create, write

    sample = {
        "positions": np.zeros((3, 3)),
        "u": np.zeros(3),
        "w": np.zeros((3, 3)),
        "cells/triangle": np.zeros((0, 3), int),
        "cells/line": np.zeros((1, 2), int),
    }
    layout = Ragged().layout()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        create(file, layout, 1)
        with pytest.raises(DatasetFormatError, match=message):
            write(file, layout, 0, [Trajectory({**sample, **changed}, {"s": 1.0})])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("v",)}, r"uses \['v'\]"),
        ({"code": ("t",)}, r"uses \['t'\]"),
        ({"weight": "area"}, r"uses \['area'\]"),
        (
            {"fields": (FieldSpec("positions", "x"),), "inputs": (), "targets": ()},
            "positions and cells are there",
        ),
    ],
)
def test_layouts_that_contradict_themselves(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(Ragged().layout(), **changes)
    with pytest.raises(ConfigError, match="angles=15"):
        ElasticityRecipe(angles=15)
