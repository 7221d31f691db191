"""One training loop, which resumes exactly.

The order of the samples in epoch e is a function of (seed, e), the learning rate one of the step; so
weights, optimiser moments and the epoch are the whole state. They are written after every epoch, to
one file, atomically. A run that was interrupted and resumed on the same machine ends with the same
bits as one that was not.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sciml.errors import ConfigError, ConvergenceError, OutputExistsError
from sciml.files import read_json, write_json
from sciml.metrics import relative_l2
from sciml.operators import FNOConfig
from sciml.operators.base import MODEL_FILE, operator_of
from sciml.operators.storage import load_tensors, save_tensors
from sciml.provenance import collect, first_difference, jsonable

from .config import TrainConfig
from .data import Pairs, load_pairs
from .reports import report_training

__all__ = ["one_cycle", "predict", "resolve_device", "train"]

CHECKPOINT = "checkpoint.safetensors"
# What a run and its evaluations leave, most telling first.
STALE = (
    MODEL_FILE,
    CHECKPOINT,
    "history.json",
    "report.html",
    "loss.png",
    "evaluation-*/evaluation.json",
    "evaluation-*/report.html",
    "evaluation-*/samples.png",
)


def one_cycle(step: int, total: int, peak: float) -> float:
    """Return the learning rate of a step: cosine up to ``peak`` over a fifth of the run, then down to 0.

    Examples
    --------
    >>> one_cycle(20, 100, 1e-3), round(one_cycle(100, 100, 1e-3), 12)
    (0.001, 0.0)
    """
    rise = 0.2 * total
    if step < rise:
        return peak * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / rise)))
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))


def resolve_device(name: str) -> torch.device:
    """Return the device that a name means; "auto" is the GPU if there is one.

    Raises
    ------
    ConfigError
        If the device is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name!r}: choose auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name!r}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device={name!r}: {torch.cuda.device_count()} GPUs are available here, choose cpu or auto"
        )
    return device


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor, batch_size: int = 20) -> Tensor:
    """Apply a model to many samples, batch by batch, on the device where it is."""
    device = next(model.parameters()).device
    return torch.cat([model(batch.to(device)).cpu() for batch in inputs.split(batch_size)])


def train(
    config: TrainConfig,
    data: str | Path,
    output: str | Path,
    *,
    model: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Train an operator on a dataset, into a run folder.

    Parameters
    ----------
    config : TrainConfig
    data : path
        Dataset of kind ``fields`` that declares input and target fields.
    output : path
        Run folder: ``config.json``, ``checkpoint.safetensors`` after every epoch, at the end
        ``model.safetensors``, ``history.json``, ``loss.png`` and ``report.html``.
    model : FNOConfig, UNetConfig, DeepONetConfig or another operator's, optional
        The architecture, ``FNOConfig()`` by default; its channels and axes are the dataset's.
    resume : bool
        Go on with an interrupted run of the same settings.
    overwrite : bool
        Discard an existing run.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    dict
        "test_relative_l2", "history" (one record per epoch), "parameters" and "seconds".

    Raises
    ------
    OutputExistsError
        If the folder exists and neither ``resume`` nor ``overwrite`` is given, or resuming would mix
        two different runs.
    ConvergenceError
        If the loss is not finite; the last checkpoint is kept.
    ConfigError, DatasetFormatError
        If settings and dataset do not fit together.

    Examples
    --------
    >>> from sciml.training import TrainConfig, train
    >>> train(TrainConfig(epochs=5), "darcy.h5", "runs/darcy")["test_relative_l2"]  # doctest: +SKIP
    0.04
    """
    output = Path(output)
    device = resolve_device(config.device)
    model = FNOConfig() if model is None else model
    operator_type = operator_of(model)
    pairs = load_pairs(data, config.stride, config.task, config.n_in, config.n_out)
    train_rows, test_rows = config.split(len(pairs))
    fit, held_out = pairs.subset(train_rows), pairs.subset(test_rows)
    if config.symmetric and not pairs.turnable:
        raise ConfigError(
            f"symmetric=True: {str(data)!r} does not hold scalar fields on a grid whose axes can be exchanged; "
            "leave it out"
        )
    for part, rows in (("training", fit), ("test", held_out)):
        empty = torch.nonzero(_norms(rows) == 0)
        if len(empty):
            raise ConfigError(
                f"the target of {part} sample {int(empty[0])} of {str(data)!r} is zero everywhere: its relative "
                "error is undefined, generate the data again without it"
            )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        operator = operator_type(fit.inputs.shape[-1], fit.targets.shape[-1], fit.periodic, model)
        operator.check_resolution(fit.resolution)
        operator.set_normalisers(fit.inputs, fit.targets)
    optimiser = torch.optim.AdamW(operator.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    resolved = {
        "train": jsonable(replace(config, device="auto")),
        "model": {"architecture": type(operator).__name__, **jsonable(operator.config)},
        "data": {
            "file": Path(data).name,
            "config": pairs.config,
            "inputs": list(pairs.names[0]),
            "targets": list(pairs.names[1]),
            "resolution": list(fit.resolution),
            "train_rows": [train_rows.start, train_rows.stop],
            "train_seeds": jsonable(fit.seeds),
            "test_seeds": jsonable(held_out.seeds),
        },
    }
    history = _open_run(output, resolved, operator, optimiser, resume, overwrite)
    operator.to(device)
    _to_device(optimiser, device)

    steps = math.ceil(len(fit) / config.batch_size)
    with tqdm(
        total=config.epochs * steps,
        initial=len(history) * steps,
        desc=f"train {output.name}",
        unit="step",
        disable=None if progress else True,
    ) as bar:
        for epoch in range(len(history), config.epochs):
            started = time.perf_counter()
            record = _epoch(config, operator, optimiser, fit, epoch, bar)
            record["test_relative_l2"] = _test(operator, held_out)
            if not math.isfinite(record["test_relative_l2"]):
                raise ConvergenceError(
                    f"the test error became {record['test_relative_l2']} after epoch {epoch}: lower lr={config.lr}; "
                    "the checkpoint before this epoch is kept"
                )
            record["seconds"] = time.perf_counter() - started
            history.append(record)
            bar.set_postfix(test=f"{record['test_relative_l2']:.4f}")
            _save_checkpoint(output, resolved, operator, optimiser, history)

    result = {
        "test_relative_l2": history[-1]["test_relative_l2"],
        "n_train": len(fit),
        "n_test": len(held_out),
        "parameters": operator.parameter_count,
        "seconds": sum(record["seconds"] for record in history),
        "history": history,
    }
    write_json(output / "history.json", history)
    report_training(output, resolved, result)
    # The model comes last: where it is, the run is complete.
    description = {"data": resolved["data"], "train": resolved["train"]}
    operator.cpu().save(output / MODEL_FILE, description)
    return result


def _epoch(
    config: TrainConfig, model: nn.Module, optimiser: torch.optim.Optimizer, fit: Pairs, epoch: int, bar: tqdm
) -> dict[str, float]:
    """Train for one epoch; return its mean loss and last learning rate."""
    device = next(model.parameters()).device
    rng = np.random.default_rng([config.seed, epoch])
    order = rng.permutation(len(fit))
    batches = np.split(order, range(config.batch_size, len(order), config.batch_size))
    total_steps = config.epochs * len(batches)
    model.train()
    summed = 0.0
    for index, rows in enumerate(batches):
        lr = one_cycle(epoch * len(batches) + index, total_steps, config.lr)
        for group in optimiser.param_groups:
            group["lr"] = lr
        turn = _random_symmetry(rng, len(fit.resolution)) if config.symmetric else lambda v: v
        mask = None if fit.mask is None else turn(fit.mask[rows].to(device))
        prediction = model(turn(fit.inputs[rows].to(device)))
        loss = relative_l2(prediction, turn(fit.targets[rows].to(device)), mask).mean()
        optimiser.zero_grad()
        loss.backward()
        value = loss.item()
        if not math.isfinite(value):
            raise ConvergenceError(
                f"the loss became {value} in epoch {epoch}, batch {index} (samples {rows[:4].tolist()}...): "
                f"lower lr={config.lr}; the checkpoint before this epoch is kept"
            )
        optimiser.step()
        summed += value * len(rows)
        bar.update()
    return {"epoch": epoch, "train_loss": summed / len(fit), "lr": lr}


def _random_symmetry(rng: np.random.Generator, dim: int) -> Callable[[Tensor], Tensor]:
    """Reflect some of the axes and exchange them, of tensors of shape (B, *space, C)."""
    flipped = [axis + 1 for axis in range(dim) if rng.integers(2)]
    order = (0, *(1 + rng.permutation(dim)).tolist(), dim + 1)
    return lambda v: v.flip(flipped).permute(order)


def _norms(pairs: Pairs) -> Tensor:
    weight = 1 if pairs.mask is None else pairs.mask
    return (pairs.targets * weight).flatten(1).norm(dim=1)


def _test(model: nn.Module, held_out: Pairs) -> float:
    model.eval()
    prediction = predict(model, held_out.inputs)
    return float(relative_l2(prediction, held_out.targets, held_out.mask).mean())


def _open_run(
    output: Path,
    resolved: dict[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    resume: bool,
    overwrite: bool,
) -> list[dict[str, float]]:
    """Start a run folder, or load the state of the run that it holds; return the epochs done."""
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other: choose one")
    checkpoint, config_file = output / CHECKPOINT, output / "config.json"
    if output.exists() and not output.is_dir():
        raise OutputExistsError(f"output {str(output)!r} is a file: name a folder")
    taken = output.exists() and any(output.iterdir())
    if taken and not config_file.exists():
        raise OutputExistsError(f"output {str(output)!r} holds other files than a run: choose another folder")
    if taken and not (resume or overwrite):
        state = "a finished run" if (output / "model.safetensors").exists() else "an unfinished run"
        raise OutputExistsError(
            f"output {str(output)!r} holds {state}: pass --resume to go on, --overwrite to start again, "
            "or choose another path"
        )
    if taken and resume:
        recorded = {key: value for key, value in read_json(config_file).items() if key != "provenance"}
        if recorded != resolved:
            raise OutputExistsError(
                f"output {str(output)!r} holds a run of other settings ({first_difference(recorded, resolved)}): "
                "resume it with its own, or choose another path"
            )
        return _load_checkpoint(checkpoint, model, optimiser) if checkpoint.exists() else []
    for pattern in STALE:
        for file in output.glob(pattern):
            file.unlink()
    write_json(config_file, {**resolved, "provenance": collect()})
    return []


def _save_checkpoint(
    output: Path,
    resolved: dict[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    history: list[dict[str, float]],
) -> None:
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        tensors |= {f"optimiser/{name}/{key}": value for key, value in optimiser.state[parameter].items()}
    save_tensors(output / CHECKPOINT, tensors, "checkpoint", {"history": history, "train": resolved["train"]})


def _load_checkpoint(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer
) -> list[dict[str, float]]:
    tensors, header = load_tensors(path, "checkpoint")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimiser": {}}
    for name, tensor in tensors.items():
        part, key = name.split("/", 1)
        parts[part][key] = tensor
    model.load_state_dict(parts["model"])
    for name, parameter in model.named_parameters():
        prefix = f"{name}/"
        optimiser.state[parameter] = {
            key.removeprefix(prefix): value
            for key, value in parts["optimiser"].items()
            if key.startswith(prefix)
        }
    return list(header["history"])


def _to_device(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Move loaded moments to the device; AdamW keeps its step counters on the CPU."""
    for state in optimiser.state.values():
        for key, value in state.items():
            if key != "step":
                state[key] = value.to(device)
