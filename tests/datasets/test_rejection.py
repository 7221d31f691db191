"""Bad trajectories: never stored, replaced, reported."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_engine import datasets

from sciml.cli import main
from sciml.datasets import (
    FieldsLayout,
    FieldSpec,
    Recipe,
    Trajectory,
    generate,
    open_dataset,
    shards,
    trajectory_seeds,
)
from sciml.datasets.publication import bias_warning
from sciml.datasets.record import Record
from sciml.errors import ConfigError, ConvergenceError, DatasetFormatError
from sciml.solvers import CartesianGrid


@dataclass(frozen=True)
class Faulty(Recipe):
    """Fails on purpose."""

    check_limits = {"residual": 1.0}  # noqa: RUF012

    broken: str = ""
    residual: float = 0.0

    def layout(self) -> FieldsLayout:
        return FieldsLayout("faulty", CartesianGrid.uniform(4), (FieldSpec("u", ""),), scalars=("s",))

    def sample(self, seed: int) -> Trajectory:
        value = {"nan": np.nan, "overflow": 1e39, "complex": 1j}.get(self.broken, 0.0)
        scalars = {"s": {"scalar": np.inf, "complex scalar": 0j}.get(self.broken, 0.0)}
        checks = {} if self.broken == "unchecked" else {"residual": self.residual}
        if self.broken in ("dict", "None"):
            return {"dict": {"u": 0}}.get(self.broken)  # type: ignore[return-value]
        if self.broken == "nan check":
            checks = {"residual": np.nan}
        return Trajectory({"u": np.full((5, 5), value)}, scalars, checks)

    def sample_batch(self, seeds: Sequence[int]) -> list[Trajectory]:  # type: ignore[override]
        if self.broken == "iterator":
            return map(self.sample, seeds)  # type: ignore[return-value]
        return [self.sample(seed) for seed in seeds][: 1 if self.broken == "short" else None]


def test_bad_trajectories_are_never_stored(tmp_path: Path) -> None:
    """Whoever fails six times is not to be mended by other seeds; defects of a recipe are not retried."""
    seed = int(trajectory_seeds(0, 0, 1, attempt=5)[0])
    for broken in ("nan", "overflow", "scalar"):
        with pytest.raises(
            ConvergenceError, match=f"trajectory 0 .* seed {seed}: '.' is not finite; .* step"
        ):
            generate(Faulty(broken=broken), 2, tmp_path / f"{broken}.h5")
    for residual in (2.0, 1.0 + 1e-12):
        with pytest.raises(ConvergenceError, match=f"seed {seed}: check 'residual' is .* above its limit"):
            generate(Faulty(residual=residual), 2, tmp_path / f"check{residual}.h5")
    with pytest.raises(ConvergenceError, match=f"seed {seed}: check 'residual' is nan"):
        generate(Faulty(broken="nan check"), 2, tmp_path / "nan-check.h5")
    for broken, name in (("complex", "u"), ("complex scalar", "s")):
        with pytest.raises(DatasetFormatError, match=f"'{name}' of the trajectory with seed .* is complex"):
            generate(Faulty(broken=broken), 2, tmp_path / f"{broken}.h5")
    with pytest.raises(DatasetFormatError, match=r"has checks \[\], the recipe declares"):
        generate(Faulty(broken="unchecked"), 2, tmp_path / "unchecked.h5")
    with pytest.raises(DatasetFormatError, match="returned 1 trajectories for 2 seeds"):
        generate(Faulty(broken="short"), 2, tmp_path / "short.h5")
    first = int(trajectory_seeds(0, 0, 1)[0])
    for broken, kind in (("dict", "dict"), ("None", "NoneType")):
        with pytest.raises(
            DatasetFormatError, match=f"^Faulty: sample returned a {kind} for seed {first}: return"
        ):
            generate(Faulty(broken=broken), 2, tmp_path / f"{broken}.h5")
    with pytest.raises(DatasetFormatError, match=r"^Faulty: sample_batch returned a map .* return a list"):
        generate(Faulty(broken="iterator"), 2, tmp_path / "iterator.h5")
    with pytest.raises(ConfigError, match="runs on the CPU only"):
        generate(Faulty(), 2, tmp_path / "cuda.h5", device="cuda")
    with pytest.raises(ConfigError, match="finite"):
        generate(Faulty(residual=np.nan), 2, tmp_path / "nan-setting.h5")
    assert not list(tmp_path.iterdir()), "nothing is left to be in the way of another attempt"
    generate(Faulty(), 2, tmp_path / "good.h5")


@pytest.mark.parametrize("trouble", ["nan", "raise", "check"])
def test_rejected_trajectories_are_replaced(
    tmp_path: Path, plugin: Path, unstable: Callable[..., Recipe], trouble: str
) -> None:
    """The same bits whatever the workers, the shards and the blocks in which they are computed."""
    recipe, n = unstable(trouble), 40
    settings = [{"shard_size": 40}, {"shard_size": 7}, {}]
    if trouble == "nan":
        settings.append({"shard_size": 9, "workers": 2, "plugins": [str(plugin)]})
    files = [
        generate(recipe, n, tmp_path / f"{k}.h5", **setting)  # type: ignore[arg-type]
        for k, setting in enumerate(settings)
    ]
    seeds, rejected, indices = [], [], []
    for index in range(n):
        attempts = [int(trajectory_seeds(0, index, index + 1, attempt)[0]) for attempt in range(6)]
        good = next(k for k, seed in enumerate(attempts) if seed % 7)
        seeds.append(attempts[good])
        rejected += attempts[:good]
        indices += [index] * good
    assert len(rejected) > 3
    with open_dataset(files[0]) as data:
        assert data.record is not None
        assert data.record.seeds.tolist() == seeds
        assert data.record.rejected.tolist() == rejected
        assert data.record.rejected_index.tolist() == indices
        reasons = {
            "nan": "'u' is not finite",
            "check": "check 'overshoot' is 2.00e+00, above its limit 1.00e+00",
        }
        assert list(data.record.rejected_reason) == [
            reasons.get(trouble, f"seed {seed} blew up") for seed in rejected
        ]
        assert data.record.verified.tolist() == [0, 1, 2]
        assert (data.record.verification["self_convergence"] == 0).all()
        assert np.array_equal(data["u"][5], recipe.sample(seeds[5]).fields["u"].astype(np.float32))
    assert all(datasets(file) == datasets(files[0]) for file in files[1:])


def test_many_rejections_are_warned_of(
    tmp_path: Path, unstable: Callable[..., Recipe], capsys: pytest.CaptureFixture
) -> None:
    """Every seventh seed is bad: 6 of 40 are more than a tenth."""
    path = generate(unstable(), 40, tmp_path / "u.h5")
    with open_dataset(path) as data:
        assert data.record is not None
        rejected = len(data.record.rejected)
    share = rejected / (40 + rejected)
    assert share > 0.1
    warning = rf"{rejected} of {40 + rejected} trajectories \({share:.0%}\) were rejected: .* biased"
    assert re.match(warning, bias_warning(path))
    folder = generate(unstable(), 40, tmp_path / "u", split=(0.5, 0.25, 0.25))
    assert re.match(warning, bias_warning(folder))
    start, claimed = 0, 0
    for part in ("train", "valid", "test"):
        with open_dataset(folder / "data" / part / "u.hdf5") as data:
            assert data.record is not None
            stop = start + data.n_trajectories
            again = [
                int(trajectory_seeds(0, start + k, start + k + 1)[0]) for k in data.record.rejected_index
            ]
            assert set(again) <= set(data.record.rejected.tolist())
            assert all(reason == "'u' is not finite" for reason in data.record.rejected_reason)
            start, claimed = stop, claimed + len(data.record.rejected)
    assert claimed == rejected
    capsys.readouterr()
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count(": 'u' is not finite\n") == min(rejected, 5)
    assert bias_warning(generate(Faulty(), 9, tmp_path / "good.h5")) == ""
    for name, count in (("unstable", 1), ("darcy", 0)):
        options = ["--resolution", "9"] if name == "darcy" else []
        assert (
            main(
                ["generate", name, "-n", "40", "-o", str(tmp_path / f"{name}.h5"), "--workers", "1", *options]
            )
            == 0
        )
        errors = capsys.readouterr().err
        assert errors.count("sciml: warning: ") == count
        assert len(re.findall(warning, errors)) == count


def test_errors_speak_of_finished_shards_only_if_there_are_some(
    tmp_path: Path, unstable: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = next(seed for seed in range(9) if trajectory_seeds(seed, 0, 1)[0] % 7)
    sound = next(k for k, own in enumerate(trajectory_seeds(seed, 0, 40)) if own % 7 == 0)
    recipe = unstable("raise")
    monkeypatch.setattr(shards, "ATTEMPTS", 0)
    with pytest.raises(
        ConvergenceError, match=rf"a higher resolution; finished shards are kept \({sound} of 40\)$"
    ):
        generate(recipe, 40, tmp_path / "some.h5", seed=seed, shard_size=1)
    with pytest.raises(ConvergenceError, match=r"a smaller step or a higher resolution$"):
        generate(recipe, 40, tmp_path / "none.h5", seed=seed, shard_size=40)


def test_reasons_that_an_older_file_does_not_hold(tmp_path: Path, unstable: Callable[..., Recipe]) -> None:
    path = generate(unstable(), 12, tmp_path / "u.h5", seed=1)
    with h5py.File(path, "r+") as file:
        seeds = file["provenance/rejected"][()].tolist()
        del file["provenance/rejected_index"], file["provenance/rejected_reason"]
    with open_dataset(path) as data:
        record = data.record
    assert record is not None
    assert seeds
    for part in (record, record.select(3, 5), Record.join([record, record], {}).select(0, 12)):
        assert set(part.rejected.tolist()) == set(seeds)
        assert set(part.rejected_index.tolist()) == {-1}
        assert part.rejected_reason == ("",) * len(part.rejected)
    with h5py.File(path, "r+") as file:
        del file["provenance"]
        replace(record, rejected_index=np.zeros(len(seeds)), rejected_reason=("a\0b",) * len(seeds)).write(
            file
        )
    with open_dataset(path) as data:
        assert data.record is not None
        assert set(data.record.rejected_reason) == {"a b"}
