"""Several processes train as one does with all their batches together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sciml.datasets import generate
from sciml.datasets.recipes import DarcyRecipe
from sciml.errors import ConfigError
from sciml.files import read_json
from sciml.operators import FNOConfig
from sciml.training import TrainConfig, train
from sciml.training.parallel import resolve_device

# 45 training samples: the last step has one, which leaves the second process nothing.
FLAGS = [
    *("--modes", "8", "--width", "8", "--epochs", "3", "--lr", "1e-2"),
    *("--n-train", "45", "--n-valid", "5", "--clip", "0.5", "--ema", "0.9"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(DarcyRecipe(resolution=17), 60, tmp_path_factory.mktemp("data") / "darcy.h5")


def torchrun(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", "sciml", *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def test_two_processes_equal_one_with_twice_the_batch(data: Path, tmp_path: Path) -> None:
    done = torchrun("train", "fno", str(data), "-o", str(tmp_path / "two"), *FLAGS, "--batch-size", "11")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test relative L2 error") == 1
    config = TrainConfig(epochs=3, lr=1e-2, n_train=45, n_valid=5, clip=0.5, ema=0.9, batch_size=22)
    train(config, data, tmp_path / "one", model=FNOConfig(modes=(8,), width=8))
    two, one = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    for name, values in one.items():
        assert torch.allclose(two[name], values, rtol=1e-5, atol=1e-5 * float(values.abs().max())), name
    two, one = (read_json(tmp_path / name / "history.json") for name in ("two", "one"))
    for ours, other in zip(two, one, strict=True):
        for key in ("train_loss", "valid_relative_l2", "test_relative_l2"):
            assert ours[key] == pytest.approx(other[key], rel=1e-5)


def test_processes_that_do_not_know_each_other(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=2 without MASTER_ADDR: .*torchrun"):
        train(TrainConfig(), data, tmp_path / "run")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda") == resolve_device("auto") == torch.device("cuda:1")


def test_errors_of_processes_end_all_of_them(data: Path, tmp_path: Path) -> None:
    arguments = ("train", "fno", str(data), "-o", str(tmp_path / "run"), *FLAGS)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    done = torchrun(*arguments)
    assert done.returncode != 0
    assert "holds other files than a run" in done.stderr
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["notes.txt"]
