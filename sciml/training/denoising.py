"""Score models of fields: what is minimised, and what stands in place of the supervised run's parts.

Fields z, normalised, of a dataset's samples are the data: of a steady problem its inputs and its solution together,
else the target fields at the last frame. The loss of a sample is EDM's,

    (1 + sigma^2) / sigma^2  |D(z + sigma n, sigma) - z|^2 / N,      log sigma ~ N(mean, std^2),

(Karras et al., NeurIPS 2022, arXiv 2206.00364, equation 8, for data of deviation 1). The error that is reported is
|D - z| / |z| of fixed noise, the mean over samples and five levels, the quantiles 1/10, 3/10, ... of the training
distribution.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from sciml.datasets import FieldsDataset
from sciml.errors import ConfigError
from sciml.operators import Denoiser, Operator

from .config import TrainConfig
from .data import Pairs, load_pairs, rows_on
from .loop import Trainer
from .objective import Batch, Objective, random_symmetry

__all__ = ["DenoisingObjective", "ScoreConfig", "ScoreTrainer", "load_fields"]

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
BATCH = 50
UNUSED = ("inputs", "code", "loss", "physics", "unroll", "pushforward", "noise", "increments", "reflect")


@dataclass(frozen=True)
class ScoreConfig(TrainConfig):
    """Settings of a score model's training run."""

    epochs: int = 60
    """Passes over the training samples."""
    batch_size: int = 16
    """Samples per step, of each process."""
    lr: float = 2e-3
    """Peak learning rate."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW)."""
    clip: float = 1.0
    """Largest norm of the gradient, longer ones are shortened to it; 0 leaves them."""
    ema: float = 0.998
    """Decay of an exponential moving average of the weights, which is then tested and kept; 0 for none."""


def load_fields(path: str | Path, config: TrainConfig) -> Pairs:
    """Read the fields that a score model is of, as inputs and targets both.

    Raises
    ------
    ConfigError
        If the dataset is of another kind or has a mask, or settings of supervised runs are given.
    DatasetFormatError
        If it cannot be read.
    """
    for name in UNUSED:
        if getattr(config, name) != TrainConfig.__dataclass_fields__[name].default:
            raise ConfigError(
                f"{name}={getattr(config, name)!r}: a score model does not use it; leave it out"
            )
    if config.task not in ("auto", "steady", "final"):
        raise ConfigError(f"task={config.task!r}: a score model is of single frames; leave it out")
    pairs = load_pairs(path, config.stride, config.task, config.n_in, config.n_out, config.start)
    if pairs.cloud or pairs.mask is not None:
        held = "functions at points" if pairs.cloud else "fields with a mask"
        raise ConfigError(f"{str(path)!r} holds {held}: score models are of fields on whole grids")
    names, fields = pairs.names[1], pairs.targets
    if pairs.task == "steady":
        names, fields = (*pairs.names[0], *names), torch.cat([pairs.inputs, fields], -1)
    return replace(pairs, inputs=fields, targets=fields, names=(names, names), last_channels=())


class DenoisingObjective(Objective):
    """The loss of single fields; its batches are noised fields, fields and sigma."""

    def batch(self, model: Operator, samples: np.ndarray, epoch: int, step: int) -> Batch:
        """Return z + sigma n, z and sigma; noise depends on the seed, the epoch and the sample alone."""
        assert isinstance(model, Denoiser)
        fields = rows_on(model.input_mean.device, self.pairs.targets, samples)
        if self.config.symmetric:
            fields = random_symmetry(
                np.random.default_rng([self.config.seed, epoch, step, 2]), self.pairs.periodic
            )(fields)
        z = model.normalise(fields)
        logs, noise = [], []
        for sample in samples:
            rng = np.random.default_rng([self.config.seed, epoch, int(sample), 4])
            logs.append(rng.standard_normal())
            noise.append(rng.standard_normal(z.shape[1:], dtype=np.float32))
        space = tuple(z.shape[1:-1])
        sigma = torch.tensor(logs, dtype=torch.float64).mul(model.config.noise_std).exp()
        sigma = (sigma * model.noise_scale(space)).float().to(z.device)
        return z + _like(sigma, z) * torch.from_numpy(np.stack(noise)).to(z.device), z, sigma

    def losses(self, model: Operator, inputs: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
        """Return the loss of each sample of a batch; sigma stands in the place of the mask."""
        assert mask is not None
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            denoised = model(inputs, mask)
        return (1 + mask**-2) * (denoised - targets).square().flatten(1).mean(1)


class ScoreTrainer(Trainer):
    """A run that trains a `Denoiser`."""

    model: Denoiser

    def _pairs(self, data: Path) -> Pairs:
        return load_fields(data, self.config)

    def _objective(self) -> Objective:
        return DenoisingObjective(self.config, self.fit)

    def _described(self, pairs: Pairs, data: Path) -> dict[str, Any]:
        """The grid and the fields, by which samples become a dataset."""
        with FieldsDataset(data) as file:
            return {
                "dataset": file.name,
                "lower": [float(x[0]) for x in file.axes.values()],
                "spacing": list(pairs.spacing),
                "given": list(file.inputs) if pairs.task == "steady" else [],
                "ranks": [int(file[name].parent.name[2]) for name in pairs.names[1]],
                "descriptions": [str(file[name].attrs.get("description", "")) for name in pairs.names[1]],
            }

    def _no_skill(self) -> dict[str, float]:
        """Return the error of z = 0, the mean of all fields."""
        return {"zero": 1.0}

    @torch.no_grad()
    def _error(self, pairs: Pairs) -> float:
        self.model.eval()
        part = self.team.part(len(pairs))
        total = torch.zeros(1, dtype=torch.float64, device=self.device)
        scale, spread = self.model.noise_scale(pairs.resolution), self.model.config.noise_std
        for start in range(part.start, part.stop, BATCH):
            rows = range(start, min(start + BATCH, part.stop))
            z = self.model.normalise(pairs.targets[rows.start : rows.stop].to(self.device))
            for level, quantile in enumerate(QUANTILES):
                # Of each sample its own: the error is the same however many processes share the work.
                draws = [
                    np.random.default_rng([self.config.seed, row, level, 5]).standard_normal(
                        z.shape[1:], dtype=np.float32
                    )
                    for row in rows
                ]
                sigma = z.new_full((len(z),), scale * float(np.exp(spread * ndtri(quantile))))
                noised = z + _like(sigma, z) * torch.from_numpy(np.stack(draws)).to(z.device)
                difference = (self.model(noised, sigma) - z).flatten(1).norm(dim=1)
                total += (difference / z.flatten(1).norm(dim=1)).double().sum() / len(QUANTILES)
        self.team.add([total])
        return float(total) / len(pairs)


def _like(sigma: Tensor, z: Tensor) -> Tensor:
    return sigma.view(-1, *(1,) * (z.ndim - 1))
