"""Densities to sample from, each with what is known of it.

A density is exp(log_density), often without its constant. What is known of it are `Moment` objects, so that a set of
samples is judged in the same way whatever the density.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError, ConvergenceError
from sciml.registry import Registry

__all__ = [
    "TARGETS",
    "Counted",
    "Density",
    "FunctionDensity",
    "Modes",
    "Moment",
    "ScoreDensity",
    "checked",
    "required",
]

TARGETS: Registry[Callable[[], "Density"]] = Registry("target")
"""Densities by name; a plug-in adds its own by ``@TARGETS.register("name")`` over a class or a function."""


@dataclass(frozen=True)
class Moment:
    """A mean that is known.

    Attributes
    ----------
    name : str
        Such as "E x^2".
    value : float
    of : callable
        From states (B, d) to what is averaged, (B,).
    tolerance : float
        Of the value: half a unit of its last digit, or the error of the run that it is from.
    """

    name: str
    value: float
    of: Callable[[Tensor], Tensor] = field(repr=False)
    tolerance: float = 1e-6


@dataclass(frozen=True, eq=False)
class Modes:
    """Where the mass of a density lies: components by which samples are counted.

    Attributes
    ----------
    means : Tensor, shape (k, d)
    weights : Tensor, shape (k,)
    """

    means: Tensor
    weights: Tensor

    def nearest(self, x: Tensor) -> Tensor:
        """Return the number of the mode that is nearest to each state, shape (B,)."""
        return torch.cdist(x.double(), self.means.to(x.device)).argmin(1)


class Density(ABC):
    """A density on R^d.

    Attributes
    ----------
    d : int
    log_z : float or None
        Logarithm of the integral of exp(log_density), where it is known.
    modes : Modes or None
    moments : sequence of Moment
    reach : float
        Deviation of a normal law at the origin that covers where the mass is.
    """

    d: int
    log_z: float | None = None
    modes: Modes | None = None
    moments: Sequence[Moment] = ()
    reach: float = 1.0

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """Return the logarithm of the density up to a constant, of states (B, d), shape (B,)."""

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log_density, (B,), and its gradient, (B, d); by automatic differentiation unless overridden."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self.log_density(x)
            if not value.requires_grad:
                raise ConfigError(
                    "target: its log_density is not made of x by torch's operations; give a gradient, too"
                )
            (score,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), score

    def score(self, x: Tensor) -> Tensor:
        """Return the gradient of log_density, of the shape of x, (B, d)."""
        return self.value_and_score(x)[1]

    def compiled(self) -> tuple[str, np.ndarray] | None:
        """Return a name of `sciml.sampling.compiled_chains.KINDS` and parameters, where there is such a form."""
        return None

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw exact samples, shape (n, d), float64.

        Raises
        ------
        ConfigError
            If there is no way to.
        """
        raise ConfigError(f"{type(self).__name__} has no exact samples: run a sampler, such as MALA")


class FunctionDensity(Density):
    """A density from a function of states (B, d) to log_density (B,), differentiable, or with its gradient given.

    Parameters
    ----------
    function : callable
    d : int
    gradient : callable, optional
        From states to the gradients of ``function``, (B, d).

    Examples
    --------
    >>> normal = FunctionDensity(lambda x: -x.square().sum(1) / 2, 3)
    >>> normal.score(torch.ones(1, 3)).tolist()
    [[-1.0, -1.0, -1.0]]
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        d: int,
        gradient: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if d < 1:
            raise ConfigError(f"d={d}: give the number of coordinates, at least 1")
        self.function, self.d, self.gradient = function, d, gradient

    def log_density(self, x: Tensor) -> Tensor:
        """Return what the function does."""
        return self.function(x)

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log_density and its gradient."""
        if self.gradient is None:
            return super().value_and_score(x)
        with torch.no_grad():
            return self.function(x), self.gradient(x)


class ScoreDensity(Density):
    """A density of which the score alone is known, such as a score model's near zero noise.

    Parameters
    ----------
    score : callable
        From states (B, d) to (B, d).
    d : int

    Examples
    --------
    >>> normal = ScoreDensity(lambda x: -x, 2)
    >>> normal.score(torch.ones(1, 2)).tolist()
    [[-1.0, -1.0]]
    """

    def __init__(self, score: Callable[[Tensor], Tensor], d: int) -> None:
        if d < 1:
            raise ConfigError(f"d={d}: give the number of coordinates, at least 1")
        self._score, self.d = score, d

    def log_density(self, x: Tensor) -> Tensor:
        """Raise `ConfigError`."""
        raise ConfigError(
            "target: of this one only the score is known; use a method without Metropolis decisions, weights or "
            "Hessians, such as ULA or the dilation path"
        )

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return nothing, (0,), in the place of log_density, and the score."""
        with torch.no_grad():
            return x.new_empty(0), self._score(x)


class Counted(Density):
    """A density that counts its evaluations.

    Attributes
    ----------
    evaluations : int
        States at which density or score were asked for; both at once count once.

    Examples
    --------
    >>> counted = Counted(FunctionDensity(lambda x: -x.square().sum(1) / 2, 1))
    >>> _ = counted.score(torch.zeros(5, 1)), counted.log_density(torch.zeros(2, 1))
    >>> counted.evaluations
    7
    """

    def __init__(self, density: Density) -> None:
        self.density, self.evaluations = density, 0
        for name in ("d", "log_z", "modes", "moments", "reach"):
            setattr(self, name, getattr(density, name))

    def log_density(self, x: Tensor) -> Tensor:
        """Count the states, and return their log_density."""
        self.evaluations += len(x)
        return self.density.log_density(x)

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Count the states, and return their log_density and score."""
        self.evaluations += len(x)
        return self.density.value_and_score(x)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw exact samples."""
        return self.density.sample(n, seed)


def required(density: Density, x: Tensor, value: Tensor) -> Tensor:
    """Return the log-density that came with a score, or let the density say that it has none."""
    return value if len(value) else density.log_density(x)


def checked(density: Density, x: Tensor) -> None:
    """Evaluate a density at states from which a sampler is to start.

    Raises
    ------
    ConfigError
        If states or what the density returns have a wrong shape or type.
    ConvergenceError
        If value or score are not finite.
    """
    if x.ndim != 2 or x.shape[1] != density.d or len(x) < 1 or not x.is_floating_point():
        raise ConfigError(
            f"x of {x.dtype}, shape {tuple(x.shape)}: give floating-point states of shape (chains, {density.d})"
        )
    value, score = density.value_and_score(x)
    parts = [("log_density", value, x.shape[:1]), ("score", score, x.shape)]
    # Where log_density is not known, its place is empty.
    for name, found, shape in parts[value.shape == (0,) :]:
        if found.shape != shape:
            raise ConfigError(
                f"target: its {name} has shape {tuple(found.shape)} for states of shape {tuple(x.shape)}; it must be "
                f"{tuple(shape)}"
            )
        bad = ~torch.isfinite(found)
        if bad.any():
            row = int(bad.reshape(len(x), -1).any(1).nonzero()[0])
            raise ConvergenceError(
                f"target: its {name} is not finite at the start of chain {row}, x={x[row].tolist()[:4]}; start where "
                "the density is positive"
            )
