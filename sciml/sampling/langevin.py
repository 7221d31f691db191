"""Langevin dynamics of densities, with steps that depend on the state and yet keep the density.

With V = -temperature log pi, force F = -V', monitor g > 0 and a time s in which a step h is g h of real time,

    overdamped:   dx = (g F + T grad g) ds + sqrt(2 T g) dw
    underdamped:  dq = g p ds,   dp = (g F + T grad g - gamma g p) ds + sqrt(2 gamma T g) dw

leave pi, or pi N(0, T), invariant: the terms with grad g are what plain rescaling lacks, whose law is pi / g (Leroy,
Leimkuhler, Latz and Higham, SIAM J. Sci. Comput. 46(6), 2024, arXiv 2403.11993). Averages of them are plain averages
over steps. Without that term states must be weighted by g.
"""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sciml.errors import ConfigError

from .metropolis import accepted
from .monitors import Monitor
from .targets import Density, required

__all__ = ["Kernel", "Overdamped", "State", "Underdamped"]

SCHEMES = ("BAOAB", "ABOBA", "OBABO", "ASA")
"""Of `Underdamped`. The first has the smallest error of averages of positions; the last is stochastic Verlet."""


class Place:
    """What is known of states q, found when it is asked for."""

    def __init__(
        self, q: Tensor, target: Density, monitor: Monitor | None, temperature: float, slopes: bool
    ) -> None:
        self.q, self._target, self._monitor, self._temperature = q, target, monitor, temperature
        self._slopes = slopes

    @functools.cached_property
    def _value_and_score(self) -> tuple[Tensor, Tensor]:
        return self._target.value_and_score(self.q)

    @functools.cached_property
    def value(self) -> Tensor:
        """Log-density, shape (B,)."""
        return self._value_and_score[0]

    @functools.cached_property
    def force(self) -> Tensor:
        """-V', shape (B, d)."""
        score = self._value_and_score[1]
        return score if self._temperature == 1 else self._temperature * score

    @functools.cached_property
    def _monitored(self) -> tuple[Tensor, Tensor]:
        assert self._monitor is not None
        return self._monitor.value_and_gradient(self.q)

    @functools.cached_property
    def g(self) -> Tensor | float:
        """The monitor, shape (B, 1), or 1 without one."""
        if self._monitor is None:
            return 1.0
        return self._monitored[0] if self._slopes else self._monitor.value(self.q)

    @functools.cached_property
    def slope(self) -> Tensor:
        """The monitor's gradient, shape (B, d)."""
        return self._monitored[1]


@dataclass(frozen=True, eq=False)
class State:
    """Chains between two steps.

    Attributes
    ----------
    place : Place
        Positions, and what is known there.
    p : Tensor or None, shape (B, d)
        Momenta of underdamped dynamics.
    accepted : Tensor or None, shape (B,)
        Accepted proposals, of Metropolised kernels.
    """

    place: Place
    p: Tensor | None = None
    accepted: Tensor | None = None

    @property
    def q(self) -> Tensor:
        """Positions, shape (B, d)."""
        return self.place.q


class Kernel(ABC):
    """One step of a Markov chain.

    Attributes
    ----------
    target : Density
    h : float
        Step, in real time or where there is a monitor in that of s.
    monitor : Monitor or None
    temperature : float
    correction : str
        What is done about the monitor's bias; "weights" needs no gradient of it.
    width : int
        Normal numbers that a step of one chain takes.
    weighted : bool
        Whether averages must weigh states by the monitor.
    """

    target: Density
    h: float
    monitor: Monitor | None
    temperature: float
    correction: str
    width: int
    weighted = False

    def _check(self) -> None:
        if not 0 < self.h < math.inf or not 0 < self.temperature < math.inf:
            raise ConfigError(f"h={self.h}, temperature={self.temperature}: they must be positive and finite")

    def place(self, q: Tensor) -> Place:
        """Return states as places."""
        return Place(q, self.target, self.monitor, self.temperature, self.correction != "weights")

    @abstractmethod
    def start(self, q: Tensor, z: Tensor) -> State:
        """Return the state of chains at positions q, with z, (B, d), for momenta."""

    @abstractmethod
    def step(self, state: State, z: Tensor) -> State:
        """Return the next state; z has shape (B, width)."""


@dataclass(frozen=True, eq=False)
class Overdamped(Kernel):
    """Euler and Maruyama's step, unadjusted (ULA) or Metropolised (MALA).

    Parameters
    ----------
    target : Density
    h : float
    monitor : Monitor, optional
        Of steps h g(x).
    correction : {"drift", "weights"}
        What keeps the density where there is a monitor: the drift T grad g, or weights g in averages (of the state
        before a step). Metropolised chains need neither; the drift makes their proposals better.
    adjusted : bool
        Metropolise: exact for any h.
    temperature : float

    Raises
    ------
    ConfigError
        If an argument cannot be used.

    Examples
    --------
    >>> from sciml.sampling.targets import FunctionDensity
    >>> normal = FunctionDensity(lambda x: -x.square().sum(1) / 2, 1)
    >>> ula = Overdamped(normal, 0.1)
    >>> ula.step(ula.start(torch.ones(1, 1), torch.zeros(1, 1)), torch.zeros(1, 1)).q.tolist()
    [[0.8999999761581421]]
    """

    target: Density
    h: float
    monitor: Monitor | None = None
    correction: Literal["drift", "weights"] = "drift"
    adjusted: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        self._check()
        if self.correction not in ("drift", "weights"):
            raise ConfigError(f"correction={self.correction!r}: choose drift or weights")

    @property
    def width(self) -> int:  # type: ignore[override]
        """The coordinates', and one of the decision."""
        return self.target.d + self.adjusted

    @property
    def weighted(self) -> bool:  # type: ignore[override]
        """Whether averages must weigh states by the monitor."""
        return self.monitor is not None and self.correction == "weights" and not self.adjusted

    def start(self, q: Tensor, z: Tensor) -> State:
        """Return the state of chains at positions q."""
        accepted = torch.zeros(len(q), dtype=torch.int64, device=q.device) if self.adjusted else None
        return State(self.place(q), accepted=accepted)

    def _mean(self, place: Place) -> tuple[Tensor, Tensor | float]:
        """Return the mean of a step from a place, and its variance."""
        h = self.h * place.g
        if not isinstance(h, Tensor):
            return torch.add(place.q, place.force, alpha=h), 2 * self.temperature * h
        mean = place.q + h * place.force
        if self.correction == "drift":
            mean = mean + self.h * self.temperature * place.slope
        return mean, 2 * self.temperature * h

    def step(self, state: State, z: Tensor) -> State:
        """Return the next state."""
        place, d = state.place, self.target.d
        mean, variance = self._mean(place)
        if isinstance(variance, float):
            q = torch.add(mean, z[:, :d], alpha=variance**0.5)
        else:
            q = torch.addcmul(mean, variance.sqrt(), z[:, :d])
        if not self.adjusted:
            return State(self.place(q))
        proposed = self.place(q)
        back, back_variance = self._mean(proposed)
        gain = proposed.value - required(self.target, place.q, place.value)
        accept = accepted(place.q, z, gain, back, variance, back_variance)
        assert state.accepted is not None
        return State(_chosen(accept, proposed, place, self), accepted=state.accepted + accept)


def _chosen(accept: Tensor, new: Place, old: Place, kernel: Kernel) -> Place:
    """Return the place of each chain, with all that is known of it."""
    column = accept[:, None]
    place = kernel.place(torch.where(column, new.q, old.q))
    place.value = torch.where(accept, new.value, old.value)
    place.force = torch.where(column, new.force, old.force)
    if kernel.monitor is not None:
        place.g = torch.where(column, new.g, old.g)
        if "slope" in new.__dict__:
            place.slope = torch.where(column, new.slope, old.slope)
    return place


@dataclass(frozen=True, eq=False)
class Underdamped(Kernel):
    """Splittings of underdamped Langevin dynamics, of weak order 2 in all that keeps the density.

    A letter is a part of the dynamics solved alone, for as much of the step as makes it whole: A moves positions, B
    kicks momenta by the force, O is their friction and noise, S is B and O in one.

    With a monitor A is q1 = q0 + h p g((q0 + q1) / 2), found by sweeps of a fixed point from the explicit step; none
    leaves order 1, one is enough for order 2. It contracts where (h / 4) |p| |grad g| < 1.

    Parameters
    ----------
    target : Density
    h : float
    scheme : {"BAOAB", "ABOBA", "OBABO", "ASA"}
    friction : float
        gamma.
    monitor : Monitor, optional
        Of steps h g(q).
    correction : {"tilde", "hat", "weights"}
        Where the term T grad g is: in O (tilde, stable at larger steps) or in B (hat); or weights g in averages.
    sweeps : int
        Of A.
    tolerance : float
        Stop sweeps of a chain below this change, or after 100, where they do not contract; 0: as many as ``sweeps``.
    temperature : float

    Raises
    ------
    ConfigError
        If an argument cannot be used.

    Examples
    --------
    >>> from sciml.sampling.targets import FunctionDensity
    >>> normal = FunctionDensity(lambda x: -x.square().sum(1) / 2, 1)
    >>> Underdamped(normal, 0.1).letters
    (('B', 0.5), ('A', 0.5), ('O', 1.0), ('A', 0.5), ('B', 0.5))
    """

    target: Density
    h: float
    scheme: str = "BAOAB"
    friction: float = 1.0
    monitor: Monitor | None = None
    correction: Literal["tilde", "hat", "weights"] = "tilde"
    sweeps: int = 4
    tolerance: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        self._check()
        if self.scheme not in SCHEMES:
            raise ConfigError(f"scheme={self.scheme!r}: choose {', '.join(SCHEMES)}")
        if self.correction not in ("tilde", "hat", "weights"):
            raise ConfigError(f"correction={self.correction!r}: choose tilde, hat or weights")
        if not 0 < self.friction < math.inf or self.sweeps < 0 or not self.tolerance >= 0:
            raise ConfigError(
                f"friction={self.friction}, sweeps={self.sweeps}, tolerance={self.tolerance}: friction must be "
                "positive, the others not negative"
            )

    @property
    def letters(self) -> tuple[tuple[str, float], ...]:
        """The parts of a step, each with its share of it."""
        return tuple((letter, 1 / self.scheme.count(letter)) for letter in self.scheme)

    @property
    def width(self) -> int:  # type: ignore[override]
        """Numbers for each O or S."""
        return self.target.d * (self.scheme.count("O") + self.scheme.count("S"))

    @property
    def weighted(self) -> bool:  # type: ignore[override]
        """Whether averages must weigh states by the monitor."""
        return self.monitor is not None and self.correction == "weights"

    def start(self, q: Tensor, z: Tensor) -> State:
        """Return the state of chains at positions q, momenta from their law."""
        return State(self.place(q), self.temperature**0.5 * z)

    def step(self, state: State, z: Tensor) -> State:
        """Return the next state."""
        place, p, d, used = state.place, state.p, self.target.d, 0
        assert p is not None
        for letter, part in self.letters:
            h = part * self.h
            if letter == "A":
                place = self.place(self._moved(place, p, h))
            elif letter == "B":
                p = p + h * (place.g * place.force)
                if self.monitor is not None and self.correction == "hat":
                    p = p + h * self.temperature * place.slope
            else:
                p = self._damped(place, p, h, z[:, used : used + d], forced=letter == "S")
                used += d
        return State(place, p)

    def _damped(self, place: Place, p: Tensor, h: float, z: Tensor, forced: bool) -> Tensor:
        """Return p after friction and noise, exactly, with the force if that is a part of it."""
        rate = self.friction * h * place.g
        decay = torch.exp(-rate) if isinstance(rate, Tensor) else math.exp(-rate)
        lost = -torch.expm1(-2 * rate) if isinstance(rate, Tensor) else -math.expm1(-2 * rate)
        result = decay * p + (lost * self.temperature) ** 0.5 * z
        if forced:
            gone = -torch.expm1(-rate) if isinstance(rate, Tensor) else -math.expm1(-rate)
            result = result + gone / self.friction * place.force
        if self.monitor is not None and (self.correction == "tilde" or (forced and self.correction == "hat")):
            shift = -torch.expm1(-rate) / (self.friction * place.g)  # type: ignore[arg-type]
            result = result + shift * self.temperature * place.slope
        return result

    def _moved(self, place: Place, p: Tensor, h: float) -> Tensor:
        q = place.q
        if self.monitor is None:
            return q + h * p
        moved = q + h * p * place.g
        if not self.tolerance:
            for _ in range(self.sweeps):
                moved = q + h * p * self.monitor.value((q + moved) / 2)
            return moved
        active = torch.ones_like(q[:, :1], dtype=torch.bool)
        for _ in range(100):
            new = torch.where(active, q + h * p * self.monitor.value((q + moved) / 2), moved)
            active = active & ((new - moved).abs().amax(1, keepdim=True) > self.tolerance)
            moved = new
            if not active.any():
                break
        return moved
