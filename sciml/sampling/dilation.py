"""Annealed Langevin dynamics along a path of densities, with rules for its steps.

    x <- x + h s(x) + sqrt(2 h) z,      s the score of mu_lambda, lambda growing.

Along the dilation path with h = eta lambda this is *exactly* unadjusted Langevin on the target, each step followed by
a shrink to the centre: with y = x / sqrt(lambda)

    y <- sqrt(lambda / lambda') (y + eta grad log pi(y) + sqrt(2 eta) z),

so that the path by itself finds no mode that plain Langevin from the origin does not find. What finds modes are steps
that are larger than that, such as those of a fixed length of the drift; these sample another density, mu max(|s| /
delta, 1 / cap), unless they are corrected (`Rule`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciml.errors import ConfigError, ConvergenceError

from .metropolis import accepted
from .noise import SampleNoise
from .paths import Path
from .targets import Density, checked, required

__all__ = ["Annealed", "Rule", "anneal"]


@dataclass(frozen=True)
class Rule:
    """How large steps are.

    Attributes
    ----------
    kind : {"fixed", "proportional", "drift", "population", "corrected"}
        fixed: h = size, which diverges where lambda < size L / 2, L that of the target's score.
        proportional: h = size lambda (R1), safe.
        drift: h = min(cap, size / |s(x)|) (R2): a drift of that length. Its law is pi / h: averages weighted by
        ``steps(score(x), 1)`` are right.
        population: h = min(cap, size / mean |s|) (R3), of all particles: unbiased for many of them.
        corrected: h = size / sqrt(|s|^2 + (size / cap)^2) and a drift grad h (R4): unbiased for small steps, at the
        price of a Hessian-vector product.
    size : float
        h, eta or delta.
    cap : float
        The largest h of the last three.
    adjusted : bool
        Metropolise each step (R5 with "drift"): exact at every level, for two evaluations a step.

    Raises
    ------
    ConfigError
        If a step has no cap, or an argument cannot be used.

    Examples
    --------
    >>> Rule("drift", 1.0, cap=1.0).steps(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 0.5).tolist()
    [[0.20000000298023224], [1.0]]
    """

    kind: Literal["fixed", "proportional", "drift", "population", "corrected"] = "drift"
    size: float = 1.0
    cap: float = math.inf
    adjusted: bool = False

    def __post_init__(self) -> None:
        if self.kind == "population" and self.adjusted:
            raise ConfigError(
                "rule kind='population', adjusted=True: the step depends on all proposals, each of which is accepted "
                "alone; take 'drift'"
            )
        kinds = ("fixed", "proportional", "drift", "population", "corrected")
        if self.kind not in kinds:
            raise ConfigError(f"rule kind={self.kind!r}: choose {', '.join(kinds)}")
        if not 0 < self.size < math.inf or not self.cap > 0:
            raise ConfigError(
                f"rule size={self.size}, cap={self.cap}: they must be positive, the size finite"
            )
        if self.kind in kinds[2:] and not self.cap < math.inf:
            raise ConfigError(
                f"rule kind={self.kind!r} without a cap: at a mode the score vanishes and the step explodes; give one, "
                "such as the size"
            )

    def steps(self, score: Tensor, lam: float) -> Tensor:
        """Return h of states with these scores, shape (B, 1)."""
        length = score.norm(dim=1, keepdim=True)
        if self.kind in ("fixed", "proportional"):
            return torch.full_like(length, self.size * (lam if self.kind == "proportional" else 1.0))
        if self.kind == "corrected":
            return self.size * torch.rsqrt(length.square() + (self.size / self.cap) ** 2)
        if self.kind == "population":
            length = length.mean(0, keepdim=True).expand_as(length)
        return (self.size / length).clamp(max=self.cap)


@dataclass(frozen=True, eq=False)
class Annealed:
    """Where particles are at the end of a path.

    Attributes
    ----------
    x : Tensor, shape (n, d)
    acceptance : float
        Of the Metropolised steps, 1 if there were none.
    """

    x: Tensor
    acceptance: float


def anneal(
    path: Path,
    lambdas: Sequence[float] | np.ndarray,
    rule: Rule,
    n: int = 1000,
    *,
    x: Tensor | None = None,
    polish: int = 0,
    polish_step: float = 0.1,
    polish_adjusted: bool = False,
    seed: int = 0,
    bound: float = 1e10,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Annealed:
    """Take one Langevin step at each of the densities of a path, then some at the target.

    Parameters
    ----------
    path : Path
    lambdas : sequence of float
        Growing, such as from `sciml.sampling.paths.levels`.
    rule : Rule
    n : int
        Particles, where x is not given.
    x : Tensor, shape (n, d), optional
        Where they begin; the path's own start by default.
    polish : int
        Steps of constant size at the target, which mend shapes of modes, not their weights.
    polish_step : float
    polish_adjusted : bool
        Metropolise those.
    seed : int
        The noise of particle i depends on the seed and i alone.
    bound : float
        Of coordinates: a particle that is beyond it, at one of every 16 steps, has diverged, even if larger lambdas
        would bring it back.
    dtype, device
        Of the states, where x is not given.
    progress : bool
        Show a bar on a terminal.

    Returns
    -------
    Annealed

    Raises
    ------
    ConfigError
        If lambda begins at 0, does not grow, or another argument cannot be used.
    ConvergenceError
        If a particle diverges: the message names the step, lambda and h.

    Examples
    --------
    >>> from sciml.sampling.paths import DilationPath, levels
    >>> from sciml.sampling.targets import gmm40
    >>> rule = Rule("drift", 1.0, cap=1.0)
    >>> found = anneal(DilationPath(gmm40()), levels(700, "linear"), rule, 300, polish=100)
    >>> found.x.shape
    torch.Size([300, 2])
    """
    lams = np.asarray(lambdas, float)
    if lams.ndim != 1 or not len(lams) or not (np.diff(lams) >= 0).all() or not lams[0] > 0 or lams[-1] > 1:
        raise ConfigError("lambdas: give numbers that grow, above 0 and at most 1")
    if n < 1 or polish < 0 or not polish_step > 0:
        raise ConfigError(
            f"n={n}, polish={polish}, polish_step={polish_step}: give n >= 1, polish >= 0, a step > 0"
        )
    noise = SampleNoise(seed)
    empty = torch.empty((n, path.target.d), dtype=dtype, device=device)
    if x is None:
        x = path.start(n, noise(-1, empty), float(lams[0]))
    checked(path.at(float(lams[0])), x)
    constant = Rule("fixed", polish_step, adjusted=polish_adjusted)
    plan = [(float(lam), rule) for lam in lams] + [(1.0, constant)] * polish
    taken = x.new_zeros(())
    for k, (lam, each) in enumerate(tqdm(plan, desc="anneal", disable=None if progress else True)):
        density = path.at(lam)
        z = noise(k, x.new_empty((len(x), x.shape[1] + each.adjusted)))
        x, h, share = _step(density, x, each, lam, z)
        taken = taken + share
        if (k % 16 == 15 or k == len(plan) - 1) and not (x.abs() <= bound).all():
            bad = int((~(x.abs() <= bound)).any(1).sum())
            raise ConvergenceError(
                f"{bad} of {len(x)} particles diverged by step {k + 1} of {len(plan)}, lambda={lam:.4g}, h up to "
                f"{float(h.nan_to_num().max()):.3g}: start at a larger lambda, or take steps in proportion to it"
            )
    adjusted = sum(each.adjusted for _, each in plan)
    return Annealed(x, float(taken) / adjusted if adjusted else 1.0)


def _step(density: Density, x: Tensor, rule: Rule, lam: float, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the next states, h, and the share of proposals that were accepted."""
    d = x.shape[1]
    value, mean, h = _proposal(density, x, rule, lam)
    new = mean + (2 * h).sqrt() * z[:, :d]
    if not rule.adjusted:
        return new, h, x.new_zeros(())
    new_value, back, new_h = _proposal(density, new, rule, lam)
    accept = accepted(x, z, new_value - required(density, x, value), back, 2 * h, 2 * new_h)
    return torch.where(accept[:, None], new, x), h, accept.to(x).mean()


def _proposal(density: Density, x: Tensor, rule: Rule, lam: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-density, mean of the next state, and h."""
    if rule.kind != "corrected":
        value, score = density.value_and_score(x)
        h = rule.steps(score, lam)
        return value, x + h * score, h
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        value = density.log_density(at)
        (score,) = torch.autograd.grad(value.sum(), at, create_graph=True)
        h = rule.steps(score, lam)
        (slope,) = torch.autograd.grad(h.sum(), at)
    h, score = h.detach(), score.detach()
    return value.detach(), x + h * score + slope, h
