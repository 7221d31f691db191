"""Tensors and their description in one safetensors file. Nothing is ever unpickled.

The description (architecture, configuration, training state) is JSON in the file's header, so that a
model or a checkpoint is one file and appears whole or not at all.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sciml.errors import DatasetFormatError
from sciml.files import atomic_path
from sciml.operators import FNO, FNOConfig
from sciml.provenance import jsonable, package_versions

__all__ = ["load_model", "load_tensors", "parameter_count", "save_model", "save_tensors"]

FORMAT_VERSION = 1


def save_tensors(
    path: str | Path, tensors: dict[str, Tensor], kind: str, description: dict[str, Any]
) -> None:
    """Write tensors with a JSON description, atomically."""
    header = {"kind": kind, "format_version": FORMAT_VERSION, "versions": package_versions(), **description}
    # A contiguous copy each: safetensors refuses views that share memory.
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(owned, metadata={"sciml": json.dumps(header, allow_nan=False)}))


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and their description.

    Raises
    ------
    DatasetFormatError
        If the file is missing, damaged, of another kind or of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetFormatError(f"{kind} {str(path)!r} does not exist: give the folder of a finished run")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        header = json.loads(metadata["sciml"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DatasetFormatError(
            f"{str(path)!r} is damaged or not a sciml {kind} ({error}): train again or restore it"
        ) from error
    if header["kind"] != kind:
        raise DatasetFormatError(f"{str(path)!r} is a {header['kind']}, not a {kind}")
    if header["format_version"] > FORMAT_VERSION:
        raise DatasetFormatError(
            f"{str(path)!r} has format version {header['format_version']}, this sciml reads up to {FORMAT_VERSION}: "
            "upgrade"
        )
    return tensors, header


def save_model(model: FNO, path: str | Path, description: dict[str, Any] | None = None) -> None:
    """Write a model to one file, ``*.safetensors``.

    Parameters
    ----------
    model : FNO
    path : path
    description : dict, optional
        JSON-ready facts to keep with it.
    """
    config = {"architecture": "FNO", "config": jsonable(model.config), **(description or {})}
    save_tensors(path, model.state_dict(), "model", config)


def load_model(path: str | Path) -> FNO:
    """Read a model written by `save_model`, or the model of a run folder.

    Raises
    ------
    DatasetFormatError
        If the file is missing, damaged, or of another architecture or version.

    Examples
    --------
    >>> model = load_model("runs/darcy")  # doctest: +SKIP
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    tensors, header = load_tensors(path, "model")
    if header.get("architecture") != "FNO":
        raise DatasetFormatError(
            f"{str(path)!r} holds a {header.get('architecture')}, which this sciml does not know"
        )
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in header["config"].items()}
    try:
        model = FNO(FNOConfig(**values))
        model.load_state_dict(tensors)
    except (TypeError, RuntimeError) as error:
        raise DatasetFormatError(f"{str(path)!r}: weights and architecture do not agree ({error})") from error
    return model.eval()


def parameter_count(model: nn.Module) -> int:
    """Return the number of learned real numbers."""
    return sum(parameter.numel() for parameter in model.parameters())
