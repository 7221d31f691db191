"""What takes minutes: the demo, killed and taken up again, and the accuracy that the README claims."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sciml.datasets import generate
from sciml.datasets.recipes import Darcy
from sciml.training import TrainConfig, evaluate, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_demo_goes_on_after_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sciml", "demo", "-o", "demo"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    checkpoint = tmp_path / "demo" / "fno" / "checkpoint.safetensors"
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert not (tmp_path / "demo" / "report.html").exists()
    started = time.perf_counter()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert time.perf_counter() - started < 360
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "How to go on" in page
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr


def test_fno_on_darcy(tmp_path: Path) -> None:
    data = generate(Darcy(resolution=85), 1100, tmp_path / "darcy.h5")
    started = time.perf_counter()
    train(TrainConfig(stride=2, epochs=24, n_train=1000, n_test=100), data, tmp_path / "run")
    assert time.perf_counter() - started < 600
    trained, finer = evaluate(tmp_path / "run", data, strides=(2, 1))
    assert trained["resolution"] == [43, 43]
    assert trained["relative_l2"] <= 0.020
    assert finer["relative_l2"] <= 1.15 * trained["relative_l2"]
