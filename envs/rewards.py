"""Rewards of single refinement steps.

Foucart, Charous and Lermusiaux, J. Comput. Phys. 491, 112381 (2023), equations 3 to 5: with the change of the solution
du = int |u_new - u_old|, the part p of the budget that is in use and a barrier B,

    refining     r = + (log(du + eps) - log eps) - gamma_c (B(p_new) - B(p_old))
    coarsening   r = - (log(du + eps) - log eps) - gamma_c (B(p_new) - B(p_old))        nothing   r = 0

and -1000, and the end, where the budget is used up. Nothing of it needs an exact solution.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from sciml.errors import ConfigError
from sciml.registry import Registry

from .states import COARSEN, State

__all__ = [
    "OVERRUN",
    "ErrorDrop",
    "LogErrorDrop",
    "PublishedReward",
    "Reward",
    "reward_registry",
]

OVERRUN = -1000.0
"""Of an action that uses up the budget."""

reward_registry: Registry[type["Reward"]] = Registry("reward")
"""Rewards by name."""


class Reward(Protocol):
    """A number for an action that changed the state."""

    def __call__(self, before: State, after: State, action: int, used: float, used_after: float) -> float:
        """Return the reward; ``used`` is p before, ``used_after`` after, below 1."""


@reward_registry.register("published")
@dataclass(frozen=True)
class PublishedReward:
    """The reward of Foucart et al.

    Parameters
    ----------
    gamma_c : float
        Price of cells against accuracy.
    barrier : str
        "plain", B = sqrt(p) / (1 - p), or "hortative", B = p / (1 - p) - (1 / sqrt(p) - 1), which asks for more cells
        where few are in use.
    eps : float

    Raises
    ------
    ConfigError
        If a number is negative or the barrier unknown.

    Examples
    --------
    >>> reward = PublishedReward()
    >>> round(reward.gamma_c * (reward.cost(13 / 25) - reward.cost(12 / 25)), 1)
    4.2
    """

    gamma_c: float = 25.0
    barrier: Literal["plain", "hortative"] = "plain"
    eps: float = 1e-16

    def __post_init__(self) -> None:
        if not (self.gamma_c >= 0 and self.eps > 0):
            raise ConfigError(f"gamma_c={self.gamma_c}, eps={self.eps}: they must not be negative, nor eps 0")
        if self.barrier not in ("plain", "hortative"):
            raise ConfigError(f"barrier={self.barrier!r}: choose 'plain' or 'hortative'")

    def cost(self, used: float) -> float:
        """B(p)."""
        if self.barrier == "plain":
            return math.sqrt(used) / (1 - used)
        return used / (1 - used) - (1 / math.sqrt(used) - 1)

    def __call__(self, before: State, after: State, action: int, used: float, used_after: float) -> float:
        """Return the reward."""
        gain = math.log(after.distance(before) + self.eps) - math.log(self.eps)
        return (-gain if action == COARSEN else gain) - self.gamma_c * (
            self.cost(used_after) - self.cost(used)
        )


@reward_registry.register("error-drop")
@dataclass(frozen=True)
class ErrorDrop:
    """Drop of the true relative L2 error; Yang et al., AISTATS (2023), with the error at the start left out.

    Parameters
    ----------
    scale : float
    """

    scale: float = 1.0

    def __call__(self, before: State, after: State, action: int, used: float, used_after: float) -> float:
        """Return the reward."""
        return self.scale * (before.error - after.error)


@reward_registry.register("log-error-drop")
@dataclass(frozen=True)
class LogErrorDrop:
    """log(e_old / e_new) of the true error, less a price for cells; Yang et al., AAMAS (2023).

    Parameters
    ----------
    price : float
        Of using up the whole budget.
    """

    price: float = 0.0

    def __call__(self, before: State, after: State, action: int, used: float, used_after: float) -> float:
        """Return the reward."""
        tiny = 1e-300
        return math.log((before.error + tiny) / (after.error + tiny)) - self.price * (used_after - used)
