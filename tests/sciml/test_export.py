"""Exported programs give what the model gives, for batches of any length."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sciml.errors import ConfigError, OutputExistsError
from sciml.operators import FNO, DeepONet, Operator, UNet, activation, products
from sciml.operators.export import export_onnx

MODELS = {
    "fno": (lambda: FNO(2, 1, (False, True), modes=(6, 6), width=4, layers=1), (17, 12)),
    "tucker": (lambda: FNO(1, 1, (True,), modes=(8,), width=4, layers=1, weights="tucker", rank=0.4), (32,)),
    "unet": (lambda: UNet(width=4, depth=1, periodic=(True, False)), (8, 9)),
    "deeponet": (lambda: DeepONet(sensors=4, width=8, basis=4, periodic=(True, False)), (8, 9)),
}


def untrained(build: Callable[[], Operator]) -> Operator:
    torch.manual_seed(0)
    model = build().eval()
    # Normalisers of their own, so that leaving them out would show.
    model.set_normalisers(3 + 2 * torch.randn(50, model.in_channels), 5 - torch.randn(50, model.out_channels))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_traced_programs_hold_for_any_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch.export sees them; a first trace must leave nothing behind in the tables' cache."""
    build, space = MODELS[name]
    model = untrained(build)
    shape = (*space, model.in_channels)
    with torch.no_grad():
        batch = torch.export.Dim("batch")
        program = torch.export.export(model, (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},)).module()
        for n in (1, 5):
            a = torch.randn(n, *shape)
            compiled = model(a)
            # Programs have PyTorch's activation and products, a rounding away from the compiled ones.
            with monkeypatch.context() as patch:
                for module in (activation, products):
                    patch.setattr(module, "kernels", lambda *arguments: None)
                assert torch.equal(program(a), model(a))
            assert torch.allclose(compiled, program(a), rtol=1e-5, atol=1e-5)


def test_onnx(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    build, space = MODELS["fno"]
    model, path = untrained(build), tmp_path / "model.onnx"
    export_onnx(model, path, space)
    assert b"base.py" not in path.read_bytes()
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", *space, 2]
    about = json.loads(session.get_modelmeta().custom_metadata_map["sciml"])
    assert about["architecture"] == "FNO"
    for n in (1, 5):
        a = torch.randn(n, *space, 2)
        with torch.no_grad():
            expected = model(a)
        found = torch.from_numpy(session.run(["u"], {"a": a.numpy()})[0])
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(OutputExistsError, match="overwrite"):
        export_onnx(model, path, space)


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained(MODELS["fno"][0])
    with pytest.raises(ConfigError, match=r"resolution=\(9,\): give one number .* 2 axes"):
        export_onnx(model, tmp_path / "x.onnx", (9,))
    with pytest.raises(ConfigError, match="axis 1 with 4 nodes is too coarse"):
        export_onnx(model, tmp_path / "x.onnx", (9, 4))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs onnx and onnxscript, .* pip install 'sciml\[onnx\]'"):
        export_onnx(model, tmp_path / "x.onnx", (9, 9))
    assert list(tmp_path.iterdir()) == []
