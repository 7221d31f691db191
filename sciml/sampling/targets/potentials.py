"""Potentials whose wells hide from each other, and a funnel; moments by quadrature or transfer matrices."""

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError

from .base import TARGETS, Density, Moment

__all__ = ["DoubleWells", "FourParticles", "Funnel", "ManyWell", "MuellerBrown", "Phi4Chain", "TwoPathways"]


def _line_quadrature(
    log_density: Callable[[np.ndarray], np.ndarray], reach: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return nodes, probabilities and the logarithm of the integral of a factor of a density."""
    x = np.linspace(-reach, reach, 20_001)
    mass = np.exp(log_density(x))
    return x, mass / mass.sum(), float(np.log(mass.sum() * (x[1] - x[0])))


@TARGETS.register("many-well")
class ManyWell(Density):
    """exp(-U), U = sum over pairs of -x_1 / 2 - 6 x_1^2 + x_1^4 + x_2^2 / 2: 2^(d / 2) modes (Noe et al., 2019).

    Parameters
    ----------
    d : int
        Even.

    Examples
    --------
    >>> round(ManyWell(32).log_z, 5)
    164.69568
    """

    def __init__(self, d: int = 32) -> None:
        if d < 2 or d % 2:
            raise ConfigError(f"d={d}: give an even number of coordinates")
        self.d, self.reach = d, 1.7
        x, p, log_z = _line_quadrature(lambda x: 0.5 * x + 6 * x**2 - x**4, 5.0)
        self.log_z = d / 2 * (log_z + 0.5 * math.log(2 * math.pi))
        self.moments = (
            Moment("E x_1", float(p @ x), lambda x: x[:, ::2].mean(1)),
            Moment("E x_1^2", float(p @ x**2), lambda x: x[:, ::2].square().mean(1)),
            Moment("P(x_1 > 0)", float(p @ (x > 0)), lambda x: (x[:, ::2] > 0).to(x).mean(1)),
            Moment("E x_2^2", 1.0, lambda x: x[:, 1::2].square().mean(1)),
        )

    def log_density(self, x: Tensor) -> Tensor:
        """Return -U."""
        first, second = x[:, ::2], x[:, 1::2]
        square = first.square()
        return (0.5 * first + 6 * square - square.square() - 0.5 * second.square()).sum(1)

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log_density and the score."""
        with torch.no_grad():
            score = -x
            first = x[:, ::2]
            score[:, ::2] = 0.5 + (12 - 4 * first.square()) * first
            return self.log_density(x), score

    def compiled(self) -> tuple[str, np.ndarray]:
        """Return the name of the compiled form."""
        return "many-well", np.zeros(1, np.float32)


@TARGETS.register("double-wells")
class DoubleWells(Density):
    """exp(-sum_(i <= m) (x_i^2 - delta)^2 - sum_(i > m) x_i^2): 2^m modes of equal weight.

    Parameters
    ----------
    d, m : int
    delta : float

    Examples
    --------
    >>> round(DoubleWells(1, 1, 4.0).moments[0].value, 6)
    3.934105
    """

    def __init__(self, d: int = 5, m: int = 5, delta: float = 4.0) -> None:
        if not 1 <= m <= d or not delta > 0:
            raise ConfigError(f"d={d}, m={m}, delta={delta}: give 1 <= m <= d and delta > 0")
        self.d, self.m, self.delta, self.reach = d, m, delta, delta**0.5
        x, p, log_z = _line_quadrature(lambda x: -((x**2 - delta) ** 2), delta**0.5 + 4)
        self.log_z = m * log_z + (d - m) * 0.5 * math.log(math.pi)
        self.moments = (
            Moment("E x_1^2", float(p @ x**2), lambda x: x[:, :m].square().mean(1)),
            Moment("P(x_1 > 0)", 0.5, lambda x: (x[:, 0] > 0).to(x)),
        )

    def log_density(self, x: Tensor) -> Tensor:
        """Return the exponent."""
        wells, rest = x[:, : self.m], x[:, self.m :]
        return -(wells.square() - self.delta).square().sum(1) - rest.square().sum(1)

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log_density and the score."""
        with torch.no_grad():
            score = -2 * x
            wells = x[:, : self.m]
            score[:, : self.m] = -4 * wells * (wells.square() - self.delta)
            return self.log_density(x), score


@TARGETS.register("dw4")
class FourParticles(Density):
    """Four particles in a plane, exp(-sum_(i < j) [0.9 (d_ij - 4)^4 - 4 (d_ij - 4)^2]), d_ij their distances.

    The density does not feel a common shift: the states are the six coordinates of the space in which the centre of the
    particles is 0. Moments are those of long runs, of two digits. A start must be one of low energy (`start`).

    Examples
    --------
    >>> target = FourParticles()
    >>> target.positions(target.start(3)).shape
    torch.Size([3, 4, 2])
    """

    d = 6
    reach = 3.0

    def __init__(self) -> None:
        # Orthonormal contrasts of four particles.
        contrasts = np.array([[1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
        self._contrasts = torch.from_numpy(contrasts)
        self.moments = (
            Moment("E U", -22.52, lambda x: -self.log_density(x), 0.03),
            Moment("E d_ij", 4.01, lambda x: self.distances(x).mean(1), 0.01),
            Moment("P(d_ij < 4)", 0.505, lambda x: (self.distances(x) < 4).to(x).mean(1), 0.01),
        )

    def positions(self, x: Tensor) -> Tensor:
        """Return the particles' places, shape (B, 4, 2)."""
        return torch.einsum("kp,bkc->bpc", self._contrasts.to(x), x.view(-1, 3, 2))

    def distances(self, x: Tensor) -> Tensor:
        """Return the distances of the six pairs, shape (B, 6)."""
        places = self.positions(x)
        pairs = list(itertools.combinations(range(4), 2))
        i, j = zip(*pairs, strict=True)
        return (places[:, i] - places[:, j]).norm(dim=2)

    def log_density(self, x: Tensor) -> Tensor:
        """Return minus the energy."""
        square = (self.distances(x) - 4).square()
        return (4 * square - 0.9 * square.square()).sum(1)

    def start(self, n: int, seed: int = 0) -> Tensor:
        """Return states near minima of the energy, by descent from random ones."""
        x = torch.from_numpy(3 * np.random.default_rng(seed).standard_normal((n, self.d)))
        for _ in range(500):
            slope = self.score(x)
            x = x + 0.02 * slope / (1 + 0.02 * slope.norm(dim=1, keepdim=True))
        return x


@TARGETS.register("funnel")
class Funnel(Density):
    """x_1 ~ N(0, 9), the others N(0, e^(x_1)) (Neal, Annals of Statistics 31, 2003): a neck of any narrowness.

    Examples
    --------
    >>> round(Funnel().moments[2].value, 4)  # E x_2^2, of a heavy tail
    90.0171
    """

    log_z = 0.0

    def __init__(self, d: int = 10) -> None:
        if d < 2:
            raise ConfigError(f"d={d}: give two coordinates or more")
        self.d, self.reach = d, 3.0
        self.moments = (
            Moment("E x_1", 0.0, lambda x: x[:, 0]),
            Moment("E x_1^2", 9.0, lambda x: x[:, 0].square()),
            Moment("E x_2^2", math.exp(4.5), lambda x: x[:, 1:].square().mean(1)),
        )

    def log_density(self, x: Tensor) -> Tensor:
        """Return the logarithm of the density, normalised."""
        first, rest = x[:, 0], x[:, 1:]
        spread = 0.5 * rest.square().sum(1) * torch.exp(-first)
        constant = 0.5 * self.d * math.log(2 * math.pi) + math.log(3)
        return -(first.square() / 18 + spread + 0.5 * (self.d - 1) * first + constant)

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log_density and the score."""
        with torch.no_grad():
            first, rest = x[:, :1], x[:, 1:]
            inverse = torch.exp(-first)
            spread = 0.5 * (rest.square() * inverse).sum(1, keepdim=True)
            score = torch.cat([spread - first / 9 - 0.5 * (self.d - 1), -rest * inverse], 1)
            return self.log_density(x), score

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw samples, shape (n, d)."""
        z = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, self.d)))
        first = 3 * z[:, :1]
        return torch.cat([first, torch.exp(first / 2) * z[:, 1:]], 1)

    def compiled(self) -> tuple[str, np.ndarray]:
        """Return the name of the compiled form."""
        return "funnel", np.zeros(1, np.float32)


class Plane(Density):
    """exp(-U / temperature) in the plane, with moments by quadrature on a rectangle."""

    d = 2
    temperature: float
    rectangle: tuple[tuple[float, float], tuple[float, float]]
    nodes = (1501, 1501)

    def potential(self, x: Tensor) -> Tensor:
        """Return U of states (B, 2)."""
        raise NotImplementedError

    def log_density(self, x: Tensor) -> Tensor:
        """Return -U / temperature."""
        return -self.potential(x) / self.temperature

    @functools.cached_property
    def _quadrature(self) -> tuple[Tensor, Tensor, float]:
        """Return nodes, probabilities and the logarithm of the integral."""
        pairs = zip(self.rectangle, self.nodes, strict=True)
        x, y = (torch.linspace(*ends, count, dtype=torch.float64) for ends, count in pairs)
        nodes = torch.cartesian_prod(x, y)
        logs = self.log_density(nodes)
        log_sum = torch.logsumexp(logs, 0)
        return nodes, (logs - log_sum).exp(), float(log_sum + torch.log((x[1] - x[0]) * (y[1] - y[0])))

    @property
    def log_z(self) -> float:  # type: ignore[override]
        """Logarithm of the integral."""
        return self._quadrature[2]

    def _moments(self, **of: Callable[[Tensor], Tensor]) -> tuple[Moment, ...]:
        nodes, p, _ = self._quadrature
        return tuple(
            Moment(name, float(p @ function(nodes)), function, 1e-5) for name, function in of.items()
        )

    @functools.cached_property
    def moments(self) -> tuple[Moment, ...]:  # type: ignore[override]
        """E x, E y, E x^2, E y^2 and E U."""
        return self._moments(
            **{
                "E x": lambda x: x[:, 0],
                "E y": lambda x: x[:, 1],
                "E x^2": lambda x: x[:, 0].square(),
                "E y^2": lambda x: x[:, 1].square(),
                "E U": self.potential,
            }
        )


@TARGETS.register("mueller-brown")
class MuellerBrown(Plane):
    """Three wells in the plane, a test of reaction paths (Mueller and Brown, Theor. Chim. Acta 53, 1979).

    Parameters
    ----------
    temperature : float
        k T; out of the deepest well a barrier of 106 leads, 36 back, and 8.5 into the third one.

    Examples
    --------
    >>> [round(moment.value, 4) for moment in MuellerBrown(20.0).moments[:2]]
    [-0.4249, 1.1651]
    """

    rectangle = ((-3.0, 2.5), (-1.5, 3.0))

    def __init__(self, temperature: float = 20.0) -> None:
        if not temperature > 0:
            raise ConfigError(f"temperature={temperature}: it must be positive")
        self.temperature = temperature

    def potential(self, x: Tensor) -> Tensor:
        """Return U."""
        total = torch.zeros_like(x[:, 0])
        for scale, a, b, c, x0, y0 in (
            (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
            (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
            (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
            (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
        ):
            dx, dy = x[:, 0] - x0, x[:, 1] - y0
            total = total + scale * torch.exp(a * dx**2 + b * dx * dy + c * dy**2)
        return total


@TARGETS.register("two-pathways")
class TwoPathways(Plane):
    """Two narrow channels y = x^2 - 4 and y = 4 - x^2 between two places where they meet.

    Leroy et al., arXiv 2403.11993, equation 6.3.

    Examples
    --------
    >>> TwoPathways().d
    2
    """

    rectangle = ((-3.2, 3.2), (-6.0, 6.0))
    reach = 3.0
    # Channels are as narrow as 0.004 across, and x is smooth once y is integrated.
    nodes = (301, 16_001)

    def __init__(self, temperature: float = 0.1) -> None:
        if not temperature > 0:
            raise ConfigError(f"temperature={temperature}: it must be positive")
        self.temperature = temperature

    def potential(self, x: Tensor) -> Tensor:
        """Return V."""
        first, second = (x[:, 1] - x[:, 0] ** 2 + 4) ** 2, (x[:, 1] + x[:, 0] ** 2 - 4) ** 2
        both = first * second
        return both / (1 + 0.1 * first) + 50 * both / (1 + 50 * second) + 0.1 * x[:, 0] ** 2


@TARGETS.register("phi4")
class Phi4Chain(Density):
    """A chain in a double well, the Allen-Cahn functional: 100 sites that are nearly all up, or all down.

    log pi = -beta [a / (2 D) sum_(i=1)^101 (phi_i - phi_(i-1))^2
                    + D / (4 a) sum_(i=1)^100 ((1 - phi_i^2)^2 + h phi_i)]
    with phi_0 = phi_101 = 0, a = 0.1, beta = 20, D = 1 / 100; the literature has other constants, too.

    Parameters
    ----------
    h : float
        A field that favours what is below zero.

    Examples
    --------
    >>> round(Phi4Chain(0.01).moments[2].value, 4)
    0.3145
    """

    a, beta, spacing, d = 0.1, 20.0, 0.01, 100

    def __init__(self, h: float = 0.0) -> None:
        self.h = h

    def log_density(self, x: Tensor) -> Tensor:
        """Return log pi."""
        ends = torch.nn.functional.pad(x, (1, 1))
        bonds = (ends[:, 1:] - ends[:, :-1]).square().sum(1) * self.a / (2 * self.spacing)
        sites = ((1 - x.square()).square() + self.h * x).sum(1) * self.spacing / (4 * self.a)
        return -self.beta * (bonds + sites)

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log pi and the score."""
        with torch.no_grad():
            ends = torch.nn.functional.pad(x, (1, 1))
            bent = (2 * x - ends[:, 2:] - ends[:, :-2]) * self.a / self.spacing
            slope = (-4 * x * (1 - x.square()) + self.h) * self.spacing / (4 * self.a)
            return self.log_density(x), -self.beta * (bent + slope)

    @functools.cached_property
    def _middle(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Return nodes, probabilities of phi_50, and the logarithm of the integral, by the transfer matrix."""
        x = np.linspace(-2.2, 2.2, 801)
        step = x[1] - x[0]
        bond = np.exp(-self.beta * self.a / (2 * self.spacing) * (x[:, None] - x) ** 2) * step
        site = np.exp(-self.beta * self.spacing / (4 * self.a) * ((1 - x**2) ** 2 + self.h * x))
        end = np.exp(-self.beta * self.a / (2 * self.spacing) * x**2)
        left, right, scale = end * site, end.copy(), 0.0
        for i in range(99):
            # Up to site 50 from the left, the others from the right.
            if i < 49:
                left = site * (bond @ left)
            else:
                right = bond @ (site * right)
            scale += math.log(left.max()) + math.log(right.max())
            left, right = left / left.max(), right / right.max()
        mass = left * right
        return x, mass / mass.sum(), scale + math.log(mass.sum() * step)

    @property
    def log_z(self) -> float:  # type: ignore[override]
        """Logarithm of the integral."""
        return self._middle[2]

    @functools.cached_property
    def moments(self) -> tuple[Moment, ...]:  # type: ignore[override]
        """Of the site in the middle."""
        x, p, _ = self._middle
        return (
            Moment("E phi_50", float(p @ x), lambda x: x[:, 49], 1e-4),
            Moment("E phi_50^2", float(p @ x**2), lambda x: x[:, 49].square(), 1e-4),
            Moment(
                "P(phi_50 > 0)", float(p @ ((x > 0) + 0.5 * (x == 0))), lambda x: (x[:, 49] > 0).to(x), 1e-4
            ),
        )
