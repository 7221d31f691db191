"""Tensors and their description in one safetensors file. Nothing is ever unpickled.

The description (architecture, configuration, training state) is JSON in the file's header, so that a
model or a checkpoint is one file and appears whole or not at all.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sciml.errors import DatasetFormatError
from sciml.files import atomic_path
from sciml.provenance import package_versions

__all__ = ["load_tensors", "save_tensors", "stored_kind"]

FORMAT_VERSION = 4


def save_tensors(
    path: str | Path, tensors: dict[str, Tensor], kind: str, description: dict[str, Any]
) -> None:
    """Write tensors with a JSON description, atomically."""
    # A contiguous copy each: safetensors refuses views that share memory.
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "versions": package_versions(),
        "sha256": _digest(owned),
        **description,
    }
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
        if header["format_version"] == FORMAT_VERSION and header["sha256"] != _digest(tensors):
            raise ValueError("its checksum differs")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        with path.open("rb") as file:
            if file.read(8) == b"\x89HDF\r\n\x1a\n":
                raise DatasetFormatError(
                    f"{str(path)!r} is an HDF5 file, not a {kind}: name the {kind} first, then the dataset"
                ) from None
        raise DatasetFormatError(
            f"{str(path)!r} is damaged or not a sciml {kind} ({error}): train again or restore it"
        ) from error
    if header["kind"] != kind:
        raise DatasetFormatError(f"{str(path)!r} is a file of kind {header['kind']!r}, not {kind!r}")
    if header["format_version"] != FORMAT_VERSION:
        remedy = "upgrade" if header["format_version"] > FORMAT_VERSION else "train again"
        raise DatasetFormatError(
            f"{str(path)!r} has format version {header['format_version']}, this sciml reads {FORMAT_VERSION}: {remedy}"
        )
    return tensors, header


def stored_kind(path: Path) -> str:
    """Return the kind of a file of tensors; "" if it is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return str(json.loads((file.metadata() or {})["sciml"])["kind"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return ""


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of all values, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
