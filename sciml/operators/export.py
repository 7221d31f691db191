"""Trained operators as ONNX programs, which run without Python or PyTorch.

The transforms inside are matrix products in real arithmetic, so that a program consists of standard
operators. Its grid is fixed, as the tables of cosines and sines are part of it; batches may have any length.
PyTorch's own archives (``torch.export.save``, ``*.pt2``) are not written: they hold a pickle, and loading
them unpickles it.
"""

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from sciml.errors import ConfigError
from sciml.files import atomic_path, refuse_existing
from sciml.provenance import jsonable

from .base import Operator
from .clouds import CloudOperator
from .denoiser import Denoiser

__all__ = ["export_onnx"]

LARGEST = 2**31 - 2**24
"""Bytes of weights in one file, with room for the tables."""


def export_onnx(
    model: Operator, path: str | Path, resolution: Sequence[int], overwrite: bool = False
) -> None:
    """Write an operator on one grid as an ONNX file, with weights, normalisers and coordinates inside.

    Input ``a``, float32, shape (batch, *resolution, in_channels), output ``u``, float32, shape (batch,
    *resolution, out_channels), in physical values, as `Operator.forward` has them; batch is any positive
    number. Results agree to rounding. Metadata ``sciml`` holds the architecture as JSON.

    Parameters
    ----------
    model : Operator
        On the CPU or a GPU; it is left as it is.
    path : path
    resolution : sequence of int
        Nodes per axis; of models of task ``spacetime`` the last is the number of predicted frames.
    overwrite : bool
        Replace an existing file; it survives until the new one is complete.

    Raises
    ------
    ConfigError
        If the grid has another number of axes or is too coarse for the model, the model is too large for the
        format, or a package is not installed.
    OutputExistsError
        If the file exists.
    StorageError
        If it cannot be written.

    Examples
    --------
    >>> from sciml.operators import FNO
    >>> export_onnx(FNO.load("runs/darcy"), "darcy.onnx", (43, 43))  # doctest: +SKIP
    """
    resolution = tuple(resolution)
    if isinstance(model, Denoiser):
        raise ConfigError(
            "a score model is sampled, not applied: use sciml sample; only operators are exported"
        )
    if isinstance(model, CloudOperator):
        raise ConfigError(
            f"{type(model).__name__}: operators on clouds of points cannot be exported; use Python"
        )
    if len(resolution) != len(model.periodic):
        raise ConfigError(
            f"resolution={resolution}: give one number of nodes for each of the model's {len(model.periodic)} axes "
            "(of task spacetime the last is that of the predicted frames)"
        )
    model.check_resolution(resolution)
    size = 4 * model.parameter_count
    if size > LARGEST:
        raise ConfigError(
            f"model of {size / 2**30:.1f} GiB: an ONNX file holds 2 GiB at most; export a smaller one"
        )
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export to ONNX needs {' and '.join(missing)}, not installed here: pip install 'sciml[onnx]'"
        )
    if not overwrite:
        refuse_existing(path)
    # A batch of two: lengths 0 and 1 are taken for constants.
    example = torch.zeros(2, *resolution, model.in_channels, device=model.input_mean.device)
    training = model.training
    with torch.no_grad(), _quiet():
        try:
            program = torch.onnx.export(
                model.eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["a"],
                output_names=["u"],
                verbose=False,
            )
        finally:
            model.train(training)
    proto = program.model_proto  # type: ignore[union-attr]
    # Source lines, with their paths on this machine, are no part of a program.
    for part in (proto, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        del part.metadata_props[:]
    about = {"architecture": type(model).__name__, "periodic": model.periodic}
    proto.metadata_props.add(key="sciml", value=json.dumps({**about, "config": jsonable(model.config)}))
    with atomic_path(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which speaks of its own affairs: packages that it looks for, and its types."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
