"""Annealed sequential Monte Carlo: particles along a path, with weights that make the weights of modes right.

Between two densities of a path a particle gains the logarithm of their ratio where it is; where few particles carry
all of the weight they are drawn anew; between draws Metropolised Langevin steps move them (Neal, Statistics and
Computing 11, 2001, physics/9803008; Del Moral, Doucet and Jasra, JRSS B 68, 2006). The mean of the weights estimates
the ratio of the normalising constants.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciml.errors import ConfigError, ConvergenceError

from .metropolis import accepted
from .noise import SampleNoise
from .paths import Path
from .targets import checked, required

__all__ = ["Particles", "annealed_smc", "systematic"]

ACCEPTANCE = 0.574
"""The best share of accepted Langevin proposals in many dimensions (Roberts and Rosenthal, JRSS B 60, 1998)."""


@dataclass(frozen=True, eq=False)
class Particles:
    """What is left at the end of a path.

    Attributes
    ----------
    x : Tensor, shape (n, d)
        Of equal weight.
    log_z : float
        Logarithm of the target's integral: an estimate.
    resampled : int
        Times that particles were drawn anew.
    acceptance : float
        Of all proposals.
    step : float
        h of the last ones.
    """

    x: Tensor
    log_z: float
    resampled: int
    acceptance: float
    step: float


def systematic(log_weights: Tensor, u: float) -> Tensor:
    """Return which particles are drawn, by one uniform number: about weight times n of each.

    Examples
    --------
    >>> systematic(torch.log(torch.tensor([0.6, 0.1, 0.3])), 0.5).tolist()
    [0, 0, 2]
    """
    n = len(log_weights)
    places = torch.softmax(log_weights.double(), 0).cumsum(0)
    at = (torch.arange(n, dtype=torch.float64, device=log_weights.device) + u) / n
    return torch.searchsorted(places, at).clamp(max=n - 1)


def annealed_smc(
    path: Path,
    lambdas: Sequence[float] | np.ndarray,
    n: int = 1000,
    *,
    moves: int = 1,
    step: float = 1.0,
    threshold: float = 0.5,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Particles:
    """Sample a target along a path.

    Parameters
    ----------
    path : Path
        A geometric one needs one evaluation of the target for each move, and two at the start; a dilation path, which
        needs a deviation to begin with, one more at each level.
    lambdas : sequence of float
        Growing to 1, such as from `sciml.sampling.paths.levels`.
    n : int
        Particles.
    moves : int
        Of each particle at each level.
    step : float
        h of the first moves; then it follows the acceptance, 0.574 of them.
    threshold : float
        Draw anew where the effective sample size is below this part of n.
    seed : int
    dtype, device
        Of the states.
    progress : bool
        Show a bar on a terminal.

    Returns
    -------
    Particles

    Raises
    ------
    ConfigError
        If lambda does not grow to 1, or another argument cannot be used.
    ConvergenceError
        If the weights are not finite.

    Examples
    --------
    >>> from sciml.sampling.paths import GeometricPath, levels
    >>> from sciml.sampling.targets import three_modes
    >>> found = annealed_smc(GeometricPath(three_modes(), 8.0), levels(300), 500)
    >>> abs(found.log_z) < 0.2
    True
    """
    lams = np.asarray(lambdas, float)
    if lams.ndim != 1 or len(lams) < 2 or not (np.diff(lams) > 0).all() or not lams[0] > 0 or lams[-1] != 1:
        raise ConfigError("lambdas: give two numbers or more that grow strictly, from above 0 to 1")
    if n < 2 or moves < 1 or not 0 < step < math.inf or not 0 < threshold <= 1:
        raise ConfigError(
            f"n={n}, moves={moves}, step={step}, threshold={threshold}: give n >= 2, moves >= 1, a step > 0, and a "
            "threshold above 0 and at most 1"
        )
    noise = SampleNoise(seed)
    empty = torch.empty((n, path.target.d), dtype=dtype, device=device)
    d = path.target.d
    first = float(lams[0])
    x = path.start(n, noise(-1, empty), first)
    checked(path.at(first), x)
    rng = np.random.default_rng([seed, 1])
    known = path.known(x)
    value, score = path.value_and_score(x, first, known)
    log_weights = (required(path.at(first), x, value) - path.log_start(x, first)).double()
    log_z, resampled, total, h = 0.0, 0, 0.0, step
    for k, lam in enumerate(tqdm(lams, desc="smc", disable=None if progress else True)):
        if k:
            last = value
            value, score = path.value_and_score(x, lam, known)
            log_weights = log_weights + (value - last).double()
        if not torch.isfinite(log_weights).all():
            raise ConvergenceError(
                f"a weight is not finite at lambda={lam:.4g}: take more levels, or a wider start"
            )
        weights = torch.softmax(log_weights, 0)
        if float(1 / weights.square().sum()) < threshold * n or k == len(lams) - 1:
            log_z += float(torch.logsumexp(log_weights, 0)) - math.log(n)
            rows = systematic(log_weights, float(rng.random()))
            x, value, score, known = x[rows], value[rows], score[rows], tuple(part[rows] for part in known)
            log_weights = torch.zeros_like(log_weights)
            resampled += k < len(lams) - 1
        for move in range(moves):
            z = noise(k * moves + move, x.new_empty((n, d + 1)))
            new = x + h * score + math.sqrt(2 * h) * z[:, :d]
            new_known = path.known(new)
            new_value, new_score = path.value_and_score(new, lam, new_known)
            accept = accepted(x, z, new_value - value, new + h * new_score, 2 * h, 2 * h)
            column = accept[:, None]
            x, value, score = (
                torch.where(column, new, x),
                torch.where(accept, new_value, value),
                torch.where(column, new_score, score),
            )
            known = tuple(
                torch.where(accept.view(-1, *(1,) * (old.ndim - 1)), fresh, old)
                for fresh, old in zip(new_known, known, strict=True)
            )
            share = float(accept.double().mean())
            total += share
            h *= math.exp(0.5 * (share - ACCEPTANCE))
    return Particles(x, log_z, resampled, total / (len(lams) * moves), h)
