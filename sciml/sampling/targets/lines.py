"""Densities on a line that are steep somewhere; what is known of them is found by quadrature.

They are exp(-V / temperature), from Leroy, Leimkuhler, Latz and Higham, SIAM J. Sci. Comput. 46(6), 2024, arXiv
2403.11993, sections 2 and 6, but for the double well, which has the same purpose.
"""

import functools
from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError

from .base import TARGETS, Density, Moment

__all__ = ["Line", "ModifiedHarmonic", "SteepDoubleWell", "SteepPrior"]


class Line(Density):
    """exp(-V(x) / temperature) on a line."""

    d = 1
    temperature = 1.0
    span = (-10.0, 10.0)
    """Beyond which there is no mass that double precision could tell."""

    @abstractmethod
    def potential(self, x: Tensor) -> Tensor:
        """Return V, elementwise."""

    @abstractmethod
    def slope(self, x: Tensor) -> Tensor:
        """Return V', elementwise."""

    def log_density(self, x: Tensor) -> Tensor:
        """Return -V / temperature."""
        return -self.potential(x[:, 0]) / self.temperature

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log_density and -V' / temperature."""
        with torch.no_grad():
            return self.log_density(x), -self.slope(x) / self.temperature

    @functools.cached_property
    def _quadrature(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Return nodes, their probabilities, and the logarithm of the integral."""
        x = np.linspace(*self.span, 400_001)
        logs = self.log_density(torch.from_numpy(x[:, None])).numpy()
        mass = np.exp(logs - logs.max())
        # The trapezoidal rule, whose error is below any power of the step where the ends vanish.
        return x, mass / mass.sum(), float(logs.max() + np.log(mass.sum() * (x[1] - x[0])))

    @property
    def log_z(self) -> float:  # type: ignore[override]
        """Logarithm of the integral."""
        return self._quadrature[2]

    @functools.cached_property
    def moments(self) -> tuple[Moment, ...]:  # type: ignore[override]
        """E x, E x^2 and P(x > 0)."""
        x, p, _ = self._quadrature
        return (
            Moment("E x", float(p @ x), lambda x: x[:, 0]),
            Moment("E x^2", float(p @ x**2), lambda x: x[:, 0].square()),
            Moment("P(x > 0)", float(p @ ((x > 0) + 0.5 * (x == 0))), lambda x: (x[:, 0] > 0).to(x)),
        )

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw samples by the inverse of the distribution function, shape (n, 1)."""
        x, p, _ = self._quadrature
        return torch.from_numpy(np.interp(np.random.default_rng(seed).random(n), np.cumsum(p), x)[:, None])


@TARGETS.register("steep-double-well")
class SteepDoubleWell(Line):
    """V = 0.3 (x^2 - 1)^2 S(x), S = 1 + 9 / (1 + exp(-8 x)): curvatures 2.4 and 24 in the wells, barrier 1.65.

    Examples
    --------
    >>> [round(moment.value, 5) for moment in SteepDoubleWell().moments]
    [-0.38295, 1.01146, 0.30256]
    """

    span = (-6.0, 6.0)

    @staticmethod
    def steepness(x: Tensor) -> Tensor:
        """Return S, elementwise."""
        return 1 + 9 * torch.sigmoid(8 * x)

    def potential(self, x: Tensor) -> Tensor:
        """Return V."""
        return 0.3 * (x**2 - 1) ** 2 * self.steepness(x)

    def slope(self, x: Tensor) -> Tensor:
        """Return V'."""
        return self._potential_and_slope(x)[1]

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log_density and the score."""
        with torch.no_grad():
            potential, slope = self._potential_and_slope(x[:, 0])
            return potential.neg_(), slope.neg_()[:, None]

    def _potential_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        share, well = torch.sigmoid(8 * x), x.square() - 1
        steep = 1 + 9 * share
        return 0.3 * well.square() * steep, well * (1.2 * x * steep + 21.6 * well * share * (1 - share))

    def compiled(self) -> tuple[str, np.ndarray]:
        """Return the name of the compiled form."""
        return "steep-double-well", np.zeros(1, np.float32)


@TARGETS.register("modified-harmonic")
class ModifiedHarmonic(Line):
    """V' = (omega^2 + c) x, omega = b / (b / a + (x - x0)^2): stiff near x0, where omega = a.

    Parameters
    ----------
    a, b, c, x0 : float
    temperature : float

    Raises
    ------
    ConfigError
        If a, b, c or the temperature are not positive.

    Examples
    --------
    >>> [round(moment.value, 5) for moment in ModifiedHarmonic().moments[:2]]
    [-1.19489, 9.37837]
    """

    def __init__(
        self, a: float = 2.75, b: float = 0.1, c: float = 0.1, x0: float = 0.5, temperature: float = 1.0
    ) -> None:
        if min(a, b, c, temperature) <= 0:
            raise ConfigError(f"a={a}, b={b}, c={c}, temperature={temperature}: they must be positive")
        self.a, self.b, self.c, self.x0, self.temperature = a, b, c, x0, temperature
        self.reach = (temperature / c) ** 0.5
        self.span = (-12 * self.reach, 12 * self.reach)

    def frequency(self, x: Tensor) -> Tensor:
        """Return omega, elementwise."""
        return self.b / (self.b / self.a + (x - self.x0) ** 2)

    def potential(self, x: Tensor) -> Tensor:
        """Return V."""
        a, b, x0, r = self.a, self.b, self.x0, x - self.x0
        stiff = a**1.5 * b**0.5 * x0 * torch.atan((a / b) ** 0.5 * r) + a * b * (a * x0 * r - b) / (
            a * r**2 + b
        )
        return 0.5 * (stiff + self.c * r**2 + 2 * self.c * x0 * r)

    def slope(self, x: Tensor) -> Tensor:
        """Return V'."""
        return (self.frequency(x) ** 2 + self.c) * x


@TARGETS.register("steep-prior")
class SteepPrior(Line):
    """Mean of N observations of unit variance, prior exp(-(x - a)^(2 K)): walls on both sides.

    Parameters
    ----------
    k : int
        K.
    a : float
        Centre of the prior.
    count : int
        N.
    total : float
        Sum of the observations.

    Examples
    --------
    >>> round(float(SteepPrior().slope(torch.tensor(1.72))), 6)  # only the prior's is left
    -0.001079
    """

    def __init__(self, k: int = 4, a: float = 2.0, count: int = 10, total: float = 17.2) -> None:
        if k < 1 or count < 0:
            raise ConfigError(f"k={k}, count={count}: give k >= 1 and count >= 0")
        self.reach = 2.0
        self.k, self.a, self.count, self.total = k, a, count, total
        self.span = (a - 8.0, a + 8.0)

    def potential(self, x: Tensor) -> Tensor:
        """Return V."""
        return 0.5 * self.count * x**2 - self.total * x + (x - self.a) ** (2 * self.k)

    def slope(self, x: Tensor) -> Tensor:
        """Return V'."""
        return self.count * x - self.total + 2 * self.k * (x - self.a) ** (2 * self.k - 1)
