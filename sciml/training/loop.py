"""One training loop for every operator, which resumes exactly.

The order of the samples and every random draw are functions of seed, epoch, step and sample, the learning rate
one of the step. A run that was killed at any moment and resumed on the same machine ends with the same bits as one
that was not; it repeats at most the steps since its last checkpoint.
"""

import math
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciml.errors import ConfigError, ConvergenceError
from sciml.files import locked, write_json
from sciml.metrics import relative_l2
from sciml.operators import CloudOperator, DenoiserConfig, FNOConfig, Operator, operator_registry
from sciml.operators.base import MODEL_FILE, operator_of
from sciml.provenance import jsonable
from sciml.runs import open_run

from .config import TrainConfig
from .data import Pairs, load_pairs
from .gradients import Gradients
from .objective import Objective, fit_normalisers
from .parallel import Team, resolve_device, team
from .prediction import predict_pairs
from .reports import report_training
from .run_folder import BEST_FILE, STALE, Average, Progress, load_checkpoint, save_checkpoint
from .scores import no_skill_errors

__all__ = ["DIVERGED", "Trainer", "learning_rate", "train"]

DIVERGED = 1e30
"""What stands in a history for an error that is not finite, of a roll-out that left the range of its numbers."""


def learning_rate(
    step: int, total: int, peak: float, schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
) -> float:
    """Return the learning rate of a step.

    One-cycle: cosine up to ``peak`` over a fifth of the run, then down to 0; cosine: down from the start.

    Examples
    --------
    >>> learning_rate(20, 100, 1e-3), round(learning_rate(100, 100, 1e-3), 12)
    (0.001, 0.0)
    >>> [round(learning_rate(50, 100, 1.0, schedule), 12) for schedule in ("cosine", "constant")]
    [0.5, 1.0]
    """
    if schedule == "constant":
        return peak
    rise = 0.2 * total if schedule == "onecycle" else 0.0
    if step < rise:
        return peak * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / rise)))
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))


def train(
    config: TrainConfig,
    data: str | Path,
    output: str | Path,
    *,
    model: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    tensorboard: bool = False,
    checkpoint_seconds: float = 30.0,
) -> dict[str, Any]:
    """Train an operator on a dataset, into a run folder.

    Under ``torchrun --nproc-per-node N`` all N processes train together, each on ``batch_size`` samples of
    every step; the first writes the files.

    Parameters
    ----------
    config : TrainConfig
    data : path
        Dataset of kind ``fields`` that declares input and target fields.
    output : path
        Run folder: ``config.json``, ``checkpoint.safetensors``, with validation samples
        ``best.safetensors``, at the end ``model.safetensors``, ``history.json``, ``loss.png`` and
        ``report.html``.
    model : FNOConfig, UNetConfig, DeepONetConfig or another operator's, optional
        The architecture, ``FNOConfig()`` by default; its channels and axes are the dataset's. A ``DenoiserConfig``
        makes a score model of all fields (`sciml.training.denoising`).
    resume : bool
        Go on with an interrupted run of the same settings.
    overwrite : bool
        Discard an existing run.
    progress : bool
        Show a progress bar on a terminal, elsewhere a line for each epoch.
    tensorboard : bool
        Write loss, errors and learning rate to ``tensorboard/``.
    checkpoint_seconds : float
        Time between checkpoints: what an interruption can cost. 0 writes one after every step.

    Returns
    -------
    dict
        "test_relative_l2" of the weights that are kept, of "epoch"; "no_skill", errors on the same samples without a
        model (`sciml.training.scores.no_skill_errors`); "history" (one record per epoch; an error that is
        not finite stands there as 1e30), "parameters", "n_train", "n_test" and "seconds".

    Raises
    ------
    OutputExistsError
        If the folder exists and neither ``resume`` nor ``overwrite`` is given, or resuming would mix
        two different runs.
    ConvergenceError
        If the loss or its gradient is not finite; the last checkpoint, of finite weights, is kept.
    ConfigError, DatasetFormatError
        If settings and dataset do not fit together.

    Examples
    --------
    >>> from sciml.training import TrainConfig, train
    >>> train(TrainConfig(epochs=5), "darcy.h5", "runs/darcy")["test_relative_l2"]  # doctest: +SKIP
    0.04
    """
    if not checkpoint_seconds >= 0:
        raise ConfigError(f"checkpoint_seconds={checkpoint_seconds}: it must not be negative")
    device = resolve_device(config.device)
    with team(device) as processes:
        kind = Trainer
        if isinstance(model, DenoiserConfig):
            from .denoising import ScoreTrainer  # which derives from this one

            kind = ScoreTrainer
        trainer = kind(config, Path(data), Path(output), model, device, processes)
        with locked(output) if processes.leads else nullcontext():
            return trainer.run(resume, overwrite, progress, tensorboard, checkpoint_seconds)


class Trainer:
    """A run: data, model and optimiser, and the loop over them."""

    def __init__(
        self, config: TrainConfig, data: Path, output: Path, model: Any, device: torch.device, processes: Team
    ) -> None:
        self.config, self.output, self.device, self.team = config, output, device, processes
        model = FNOConfig() if model is None else model
        operator_type = operator_of(model)
        pairs = self._pairs(data)
        model = _fitted(model, operator_type, pairs, data)
        rows = config.split(len(pairs))
        self.fit, self.valid, self.test = (pairs.subset(part) for part in rows)
        if config.symmetric and (pairs.cloud or not pairs.turnable):
            raise ConfigError(
                f"symmetric=True: {str(data)!r} does not hold scalar fields on a grid whose axes can be exchanged; "
                "leave it out"
            )
        for name, part in (("training", self.fit), ("validation", self.valid), ("test", self.test)):
            empty = torch.nonzero(_norms(part) == 0)
            if len(empty):
                raise ConfigError(
                    f"the target of {name} sample {int(empty[0, 0])} of {str(data)!r} is zero everywhere, or a frame "
                    "of it: its relative error is undefined, generate the data again without it"
                )
        self.objective = self._objective()
        fit = self.fit
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            operator = operator_type(fit.inputs.shape[-1], fit.targets.shape[-1], fit.periodic, model)
        operator.check_resolution(fit.resolution if fit.mask is None or not fit.cloud else _fewest(pairs))
        fit_normalisers(operator, fit, config.increments)
        if config.increments:
            operator.adds_to = (fit.history - 1) * fit.targets.shape[-1]
        self.model: Operator = operator.to(device)
        self.average: Average = {}
        if config.ema:
            self.average = _copied(self.model)
        self.best: Average = {}
        if config.n_valid:
            self.best = _copied(self.model)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=True if device.type == "cuda" else None,
        )
        self.gradients = Gradients(self.model, self.objective.losses)
        self.resolved: dict[str, Any] = {
            "train": jsonable(replace(config, device="auto", task=pairs.task)),
            "processes": processes.size,
            "model": {"architecture": type(operator).__name__, **jsonable(operator.config)},
            "data": {
                "file": data.name,
                "config": pairs.config,
                "inputs": list(pairs.names[0]),
                "targets": list(pairs.names[1]),
                **self._described(pairs, data),
                "resolution": list(fit.resolution),
                "train_rows": [rows[0].start, rows[0].stop],
                "valid_rows": [rows[1].start, rows[1].stop],
                "train_seeds": jsonable(fit.seeds),
                "valid_seeds": jsonable(self.valid.seeds),
                "test_seeds": jsonable(self.test.seeds),
            },
        }
        # Of all processes together.
        self.batch = config.batch_size * processes.size
        self.steps = math.ceil(len(self.objective) / self.batch)

    def _pairs(self, data: Path) -> Pairs:
        config = self.config
        return load_pairs(
            *(data, config.stride, config.task, config.n_in, config.n_out, config.start, config.code),
            config.inputs,
        )

    def _objective(self) -> Objective:
        return Objective(self.config, self.fit)

    def _described(self, pairs: Pairs, data: Path) -> dict[str, Any]:
        """What a model's file says besides about the data."""
        names = ("code", "weight", "ranks") if pairs.cloud else ()
        return {name: jsonable(getattr(pairs, name)) for name in names}

    def _no_skill(self) -> dict[str, float]:
        return no_skill_errors(self.test)

    def run(
        self, resume: bool, overwrite: bool, progress: bool, tensorboard: bool, checkpoint_seconds: float
    ) -> dict[str, Any]:
        """Train, and return what `train` does."""
        if self.team.leads:
            open_run(
                self.output,
                self.resolved,
                finished=MODEL_FILE,
                stale=STALE,
                resume=resume,
                overwrite=overwrite,
            )
        self.team.wait()
        state = Progress()
        if resume:
            state = load_checkpoint(self.output, self.model, self.average, self.best, self.optimiser)
        config, saved = self.config, time.perf_counter()
        shown = progress and self.team.leads
        with (
            tqdm(
                total=config.epochs * self.steps,
                initial=state.epoch * self.steps + state.batch,
                desc=f"train {self.output.name}",
                unit="step",
                disable=None if shown else True,
            ) as bar,
            _Log(self.output if tensorboard and self.team.leads else None, state.epoch) as log,
        ):
            while state.epoch < config.epochs and not state.stopped(config.patience):
                started = time.perf_counter() - state.seconds
                for batch in range(state.batch, self.steps):
                    state.summed += self._step(state.epoch, batch)
                    state.batch, state.seconds = batch + 1, time.perf_counter() - started
                    bar.update()
                    last = state.batch == self.steps
                    if not last and time.perf_counter() - saved >= checkpoint_seconds:
                        self._save(state)
                        saved = time.perf_counter()
                record = self._record(state, started)
                state = Progress([*state.history, record])
                bar.set_postfix(test=f"{record['test_relative_l2']:.4f}")
                if shown and bar.disable:
                    tqdm.write(_line(record, config.epochs), file=sys.stderr)
                log.add(record)
                if config.n_valid and state.best() is record:
                    with self._averaged():
                        self.best = _copied(self.model)
                    if self.team.leads:
                        self._save_model(BEST_FILE, self.best)
                ended = state.epoch == config.epochs or state.stopped(config.patience)
                if ended or time.perf_counter() - saved >= checkpoint_seconds:
                    self._save(state)
                    saved = time.perf_counter()
        return self._finish(state)

    def _step(self, epoch: int, batch: int) -> float:
        """Take one step; return the sum of the losses of its samples."""
        config = self.config
        # One permutation an epoch, drawn again at each step: a run may begin anywhere.
        order = np.random.default_rng([config.seed, epoch]).permutation(len(self.objective))
        samples = order[batch * self.batch : (batch + 1) * self.batch]
        own = samples[self.team.part(len(samples))]
        step = epoch * self.steps + batch
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, config.epochs * self.steps, config.lr, config.schedule)
        self.model.train()
        self.optimiser.zero_grad()
        summed = torch.zeros(1, device=self.device)
        if len(own):
            drawn = self.objective.batch(self.model, own, epoch, batch)
            summed += self.gradients(drawn, len(samples)).sum()
        self.team.add_gradients(self.model.parameters(), summed)
        value = float(summed)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip or math.inf)
        for name, number in (("loss", value), ("gradient", float(norm))):
            if not math.isfinite(number):
                raise ConvergenceError(
                    f"the {name} became {number} in epoch {epoch}, batch {batch} (samples "
                    f"{samples[:4].tolist()}...): start again with a lower lr than {config.lr} and --overwrite, or "
                    "look at these samples; weights and checkpoint are those before this batch"
                )
        self.optimiser.step()
        if self.average:
            # Of few steps the average is short.
            decay = min(config.ema, (1 + step) / (10 + step))
            for name, parameter in self.model.named_parameters():
                self.average[name].lerp_(parameter.detach(), 1 - decay)
        return value

    def _record(self, state: Progress, started: float) -> dict[str, float]:
        """Test the weights at the end of an epoch."""
        record: dict[str, float] = {"epoch": state.epoch, "train_loss": state.summed / len(self.objective)}
        record["lr"] = self.optimiser.param_groups[0]["lr"]
        with self._averaged():
            for name, part in (("valid", self.valid), ("test", self.test)):
                if len(part):
                    error = self._error(part)
                    # A roll-out of a young model may well overflow.
                    record[f"{name}_relative_l2"] = error if math.isfinite(error) else DIVERGED
        return {**record, "seconds": time.perf_counter() - started}

    def _error(self, pairs: Pairs) -> float:
        self.model.eval()
        own = pairs.subset(self.team.part(len(pairs)))
        total = torch.zeros(1, dtype=torch.float64, device=self.device)
        if len(own):
            total += relative_l2(predict_pairs(self.model, own), own.targets, own.target_mask).sum()
        self.team.add([total])
        return float(total) / len(pairs)

    def _averaged(self) -> "_Exchanged":
        return _Exchanged(self.model, self.average)

    def _save(self, state: Progress) -> None:
        if self.team.leads:
            save_checkpoint(self.output, self.model, self.average, self.best, self.optimiser, state)

    def _save_model(self, name: str, weights: Average) -> None:
        description = {"data": self.resolved["data"], "train": self.resolved["train"]}
        with _Exchanged(self.model, weights):
            self.model.save(self.output / name, description)

    def _finish(self, state: Progress) -> dict[str, Any]:
        kept = state.best() or state.history[-1]
        result = {
            "test_relative_l2": kept["test_relative_l2"],
            "epoch": kept["epoch"],
            "n_train": len(self.fit),
            "n_test": len(self.test),
            "no_skill": self._no_skill(),
            "parameters": self.model.parameter_count,
            "seconds": sum(record["seconds"] for record in state.history),
            "history": state.history,
        }
        if self.team.leads:
            write_json(self.output / "history.json", state.history)
            report_training(self.output, self.resolved, result)
            # The model comes last: where it is, the run is complete.
            self._save_model(MODEL_FILE, self.best or self.average)
        self.team.wait()
        return result


def _fewest(pairs: Pairs) -> tuple[int]:
    """Points of the smallest cloud."""
    assert pairs.mask is not None
    return (int(pairs.mask.sum(1).min()),)


def _fitted(model: Any, operator_type: type[Operator], pairs: Pairs, data: Path) -> Any:
    """The architecture with the size of a cloud's code, if it is one for what the dataset holds."""
    takes_clouds = issubclass(operator_type, CloudOperator)
    if takes_clouds != pairs.cloud:
        known = ", ".join(
            name
            for name in operator_registry
            if issubclass(operator_registry[name], CloudOperator) == pairs.cloud
        )
        held = "functions at points" if pairs.cloud else "functions on a grid"
        raise ConfigError(f"{operator_type.__name__}: {str(data)!r} holds {held}; choose {known}")
    if not takes_clouds:
        return model
    if model.code_size not in (0, len(pairs.code)):
        raise ConfigError(
            f"code_size={model.code_size}: {str(data)!r} gives {len(pairs.code)} scalars of a sample; leave it out"
        )
    return replace(model, code_size=len(pairs.code))


def _copied(model: Operator) -> Average:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@dataclass
class _Exchanged:
    """Put other weights into a model for a while."""

    model: Operator
    weights: Average

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *error: object) -> None:
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.model.named_parameters():
            if name in self.weights:
                parameter.data, self.weights[name] = self.weights[name], parameter.data


class _Log:
    """TensorBoard's scalars, or nothing."""

    def __init__(self, output: Path | None, epoch: int) -> None:
        self.writer: Any = None
        if output is not None:
            from torch.utils.tensorboard import SummaryWriter

            # What an interrupted run logged beyond its checkpoint is hidden.
            self.writer = SummaryWriter(output / "tensorboard", purge_step=epoch)

    def add(self, record: dict[str, float]) -> None:
        if self.writer is not None:
            for name, value in record.items():
                if name != "epoch":
                    self.writer.add_scalar(name, value, record["epoch"])
            self.writer.flush()

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *error: object) -> None:
        if self.writer is not None:
            self.writer.close()


def _line(record: dict[str, float], epochs: int) -> str:
    """An epoch, for logs."""
    ending = "_relative_l2"
    errors = [f"{name.removesuffix(ending)} {record[name]:.4g}" for name in record if name.endswith(ending)]
    return (
        f"epoch {record['epoch'] + 1} of {epochs}: training loss {record['train_loss']:.4g}, relative L2 "
        f"{', '.join(errors)}, {record['seconds']:.1f} s"
    )


def _norms(pairs: Pairs) -> Tensor:
    """Of each sample's target, as the loss divides by: of every frame of an autoregressive task."""
    targets = pairs.targets if pairs.target_mask is None else pairs.targets * pairs.target_mask
    if not pairs.history:
        return targets.flatten(1).norm(dim=1)
    return targets.movedim(-2, 1).flatten(2).norm(dim=2).min(dim=1).values
