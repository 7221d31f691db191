"""Paths of densities from one that is easy to sample to the target, and how fast they are walked.

dilation:   the law of sqrt(lambda) X, X from the target: a point mass that grows to the target. Its score is known,
                grad log mu(x) = lambda^(-1/2) grad log pi(x / sqrt(lambda)),
            its modes have the right weights everywhere, and crowd at the centre without merging (Chehab and Korba, "A
            Practical Diffusion Path for Sampling", 2024, arXiv 2406.14040).
geometric:  nu^(1 - lambda) pi^lambda, nu = N(centre, s^2), the classical one; modes change their weights on the way.
"""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.registry import unknown_name

from .targets import Density

__all__ = ["SCHEDULES", "DilationPath", "GeometricPath", "Path", "levels"]

RATE = 3.0
"""T of the exponential schedule, exp(-2 T (1 - t))."""
SCHEDULES = {
    "linear": lambda t: t,
    "square": lambda t: t**2,
    "quartic": lambda t: t**4,
    "concave": lambda t: 1 - (1 - t) ** 2,
    "exponential": lambda t: (np.exp(2 * RATE * t) - 1) / (math.exp(2 * RATE) - 1),
}
"""From t in [0, 1] to how far lambda is on its way, by name. Along the square one, from 0, the dilation path is the
geodesic of W_2 at constant speed; the exponential one is that of a diffusion, exp(-6 (1 - t)), made to begin at 0."""


def levels(count: int, schedule: str = "square", first: float = 1e-3) -> np.ndarray:
    """Return lambda from ``first`` to 1.

    Parameters
    ----------
    count : int
    schedule : {"linear", "square", "quartic", "concave", "exponential"}
    first : float
        Above 0, where scores of the dilation path are singular.

    Raises
    ------
    ConfigError
        If an argument is out of its range.

    Examples
    --------
    >>> levels(3, "square", 0.1).round(4).tolist()
    [0.1, 0.325, 1.0]
    """
    if schedule not in SCHEDULES:
        raise unknown_name("schedule", schedule, list(SCHEDULES))
    if count < 2:
        raise ConfigError(f"count={count}: give two levels or more")
    if not 0 < first < 1:
        raise ConfigError(
            f"first={first}: lambda must begin between 0 and 1; at 0 all mass is in a point, whose score is infinite"
        )
    return first + (1 - first) * SCHEDULES[schedule](np.linspace(0, 1, count))


class Path(ABC):
    """Densities mu_lambda.

    Attributes
    ----------
    target : Density
    """

    target: Density

    @abstractmethod
    def at(self, lam: float) -> Density:
        """Return mu_lambda."""

    @abstractmethod
    def start(self, n: int, noise: Tensor, lam: float) -> Tensor:
        """Return states to begin with at lambda, from standard normal numbers (n, d)."""

    @abstractmethod
    def log_start(self, x: Tensor, lam: float) -> Tensor:
        """Return the log-density, normalised, of the law of `start`; `ConfigError` if that is a point."""

    def known(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what evaluations of the target at states are good for at every lambda, one row for each state."""
        return ()

    def value_and_score(self, x: Tensor, lam: float, known: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return log mu_lambda and its score, with what is known of the states."""
        return self.at(lam).value_and_score(x)


def _centre(centre: Tensor | float, d: int) -> Tensor:
    result = torch.as_tensor(centre, dtype=torch.float64).expand(d)
    if not torch.isfinite(result).all():
        raise ConfigError("centre: it must be finite")
    return result


def _log_normal(x: Tensor, centre: Tensor, deviation: float) -> tuple[Tensor, Tensor]:
    """Return the logarithm of N(centre, deviation^2 I) and its gradient."""
    away = (x - centre.to(x)) / deviation
    constant = x.shape[1] * (math.log(deviation) + 0.5 * math.log(2 * math.pi))
    return -0.5 * away.square().sum(1) - constant, -away / deviation


class _Dilated(Density):
    """The law of c + sqrt(lambda) (X - c)."""

    def __init__(self, target: Density, centre: Tensor, lam: float) -> None:
        self.target, self.centre, self.root, self.d = target, centre, math.sqrt(lam), target.d

    def _inside(self, x: Tensor) -> Tensor:
        centre = self.centre.to(x)
        return centre + (x - centre) / self.root

    def log_density(self, x: Tensor) -> Tensor:
        """Return log pi of the state that is dilated, less d / 2 log lambda."""
        return self.target.log_density(self._inside(x)) - self.d * math.log(self.root)

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log_density and the score."""
        value, score = self.target.value_and_score(self._inside(x))
        return value - self.d * math.log(self.root) if len(value) else value, score / self.root


class DilationPath(Path):
    """A point mass at the centre that grows to the target.

    Parameters
    ----------
    target : Density
    centre : float or Tensor, shape (d,)
        Modes near to it are favoured by samplers on this path: one that is about as far from all is best.
    deviation : float
        Of a normal law, drawn to the centre as all else is, from which particles begin; 0: in the centre. Particles
        with weights need one that covers the target.

    Examples
    --------
    >>> from sciml.sampling.targets import FunctionDensity
    >>> normal = FunctionDensity(lambda x: -x.square().sum(1) / 2, 1)
    >>> DilationPath(normal).at(0.25).score(torch.ones(1, 1)).tolist()  # of N(0, 1/4)
    [[-4.0]]
    """

    def __init__(self, target: Density, centre: Tensor | float = 0.0, deviation: float = 0.0) -> None:
        if not 0 <= deviation < math.inf:
            raise ConfigError(f"deviation={deviation}: it must not be negative, and finite")
        self.target, self.centre, self.deviation = target, _centre(centre, target.d), deviation

    def at(self, lam: float) -> Density:
        """Return mu_lambda."""
        if not 0 < lam <= 1:
            raise ConfigError(f"lambda={lam}: it must be above 0, where the score is infinite, and at most 1")
        return _Dilated(self.target, self.centre, lam)

    def start(self, n: int, noise: Tensor, lam: float) -> Tensor:
        """Return the centre, or samples of the normal law about it."""
        return self.centre.to(noise) + math.sqrt(lam) * self.deviation * noise

    def log_start(self, x: Tensor, lam: float) -> Tensor:
        """Return the log-density of the normal law."""
        if not self.deviation:
            raise ConfigError(
                "path: it begins in a point, which has no density, and weights of modes would be what the first steps "
                "make of it; give DilationPath a deviation, or take a GeometricPath"
            )
        return _log_normal(x, self.centre, math.sqrt(lam) * self.deviation)[0]


class _Geometric(Density):
    """nu^(1 - lambda) pi^lambda."""

    def __init__(self, path: "GeometricPath", lam: float) -> None:
        self.path, self.lam, self.d = path, lam, path.target.d

    def log_density(self, x: Tensor) -> Tensor:
        """Return (1 - lambda) log nu + lambda log pi."""
        return torch.lerp(self.path.reference(x)[0], self.path.target.log_density(x), self.lam)

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log_density and the score."""
        return self.path.value_and_score(x, self.lam, self.path.known(x))


class GeometricPath(Path):
    """From N(centre, s^2 I) to the target by powers.

    Parameters
    ----------
    target : Density
    deviation : float
        s; modes that nu does not reach are not found.
    centre : float or Tensor, shape (d,)

    Examples
    --------
    >>> from sciml.sampling.targets import FunctionDensity
    >>> normal = FunctionDensity(lambda x: -x.square().sum(1) / 2, 1)
    >>> GeometricPath(normal, 2.0).at(0.5).score(torch.ones(1, 1)).tolist()
    [[-0.625]]
    """

    def __init__(self, target: Density, deviation: float = 1.0, centre: Tensor | float = 0.0) -> None:
        if not 0 < deviation < math.inf:
            raise ConfigError(f"deviation={deviation}: it must be positive and finite")
        self.target, self.deviation, self.centre = target, deviation, _centre(centre, target.d)

    def at(self, lam: float) -> Density:
        """Return mu_lambda."""
        if not 0 <= lam <= 1:
            raise ConfigError(f"lambda={lam}: give a number from 0 to 1")
        return _Geometric(self, lam)

    def start(self, n: int, noise: Tensor, lam: float) -> Tensor:
        """Return samples of nu."""
        return self.centre.to(noise) + self.deviation * noise

    def known(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the target's log-density and score."""
        return self.target.value_and_score(x)

    def value_and_score(self, x: Tensor, lam: float, known: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return log mu_lambda and its score, without the target."""
        value, score = known
        start, slope = self.reference(x)
        # Where the target has a score alone, so has the path.
        return torch.lerp(start, value, lam) if len(value) else value, torch.lerp(slope, score, lam)

    def log_start(self, x: Tensor, lam: float) -> Tensor:
        """Return log nu, from which particles begin whatever lambda is."""
        return self.reference(x)[0]

    def reference(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log nu and its score."""
        return _log_normal(x, self.centre, self.deviation)
