"""Noise schedules of diffusion models: x_t = alpha(t) x_0 + sigma(t) eps, eps ~ N(0, I).

t runs from clean data, near 0, to noise. Everything follows from log alpha and log sigma; the *half log-SNR*

    lambda(t) = log(alpha / sigma),        strictly decreasing in t,

is the variable in which exponential integrators step (Lu et al., NeurIPS 2022, arXiv 2206.00927, equation 2.3). The
drift and diffusion of the forward process dx = f x dt + g dw are f = d log alpha / dt and g^2 = -2 sigma^2 dlambda/dt.

Each schedule has closed forms in which nothing cancels: log sigma of a variance-preserving one is
log(-expm1(2 log alpha)) / 2, and the inverse of lambda is a rationalised root. In double precision t survives
t -> lambda -> t to round-off, the cosine schedule, too, from t = 1e-6 on; in single precision lambda is right to
6e-7, or to 6e-7 of itself where it is larger than 1.

Methods take numbers, NumPy arrays or torch tensors, and return the same.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from sciml.errors import ConfigError

__all__ = [
    "VE",
    "Array",
    "FlowMatching",
    "Level",
    "Schedule",
    "VPCosine",
    "VPLinear",
    "VariancePreserving",
    "as_array",
    "softplus",
]

Array = Any  # NumPy array, torch tensor or a number
LEAST = 1e-12
"""What alpha and sigma are at least; the cosine of 90 degrees is 6e-17."""


def as_array(value: Array) -> tuple[Any, Array]:
    """The namespace of a value, and the value as its array; numbers become NumPy's."""
    if isinstance(value, int | float):
        value = np.float64(value)
    return array_namespace(np.asarray(value) if isinstance(value, np.generic) else value), value


def softplus(xp: Any, z: Array) -> Array:
    """log(1 + exp z), without overflow."""
    return (z + abs(z)) / 2 + xp.log1p(xp.exp(-abs(z)))


class Level(NamedTuple):
    """A schedule at one time, as numbers.

    Attributes
    ----------
    t : float
    alpha, sigma : float
    half_log_snr : float
        log(alpha / sigma); infinite where sigma = 0.
    alpha_rate, sigma_rate : float
        Derivatives in t, for velocities.
    """

    t: float
    alpha: float
    sigma: float
    half_log_snr: float
    alpha_rate: float
    sigma_rate: float


class Schedule(ABC):
    """A noise schedule; a subclass gives logarithms, their rates and the inverse.

    Attributes
    ----------
    t_min, t_max : float
        Where sampling ends and starts unless another time is given.
    variance_preserving : bool
        alpha^2 + sigma^2 = 1, as the parametrisation by v needs it.
    """

    t_min: float = 1e-3
    t_max: float = 1.0
    variance_preserving: ClassVar[bool] = False

    @abstractmethod
    def log_alpha(self, t: Array) -> Array:
        """Return log alpha."""

    @abstractmethod
    def log_sigma(self, t: Array) -> Array:
        """Return log sigma."""

    @abstractmethod
    def log_alpha_rate(self, t: Array) -> Array:
        """Return f = d log alpha / dt, the drift of the forward process."""

    @abstractmethod
    def half_log_snr_rate(self, t: Array) -> Array:
        """Return dlambda / dt, negative."""

    def time(self, half_log_snr: Array) -> Array:
        """Return the t at which the half log-SNR has a value.

        Raises
        ------
        ConfigError
            If the schedule has no inverse.
        """
        raise ConfigError(
            f"schedule {type(self).__name__} has no inverse of lambda(t): implement `time`, or give `times` and a "
            "multistep solver, which need none"
        )

    def half_log_snr(self, t: Array) -> Array:
        """Return lambda = log(alpha / sigma)."""
        return self.log_alpha(t) - self.log_sigma(t)

    def alpha(self, t: Array) -> Array:
        """Return alpha, the factor of the data."""
        xp, t = as_array(t)
        return xp.exp(self.log_alpha(t))

    def sigma(self, t: Array) -> Array:
        """Return sigma, the deviation of the noise."""
        xp, t = as_array(t)
        return xp.exp(self.log_sigma(t))

    def drift(self, t: Array) -> Array:
        """Return f of the forward process dx = f x dt + g dw."""
        return self.log_alpha_rate(t)

    def diffusion_squared(self, t: Array) -> Array:
        """Return g^2 = -2 sigma^2 dlambda/dt of the forward process."""
        return -2 * self.sigma(t) ** 2 * self.half_log_snr_rate(t)

    def level(self, t: float) -> Level:
        """Return everything at one time.

        Raises
        ------
        ConfigError
            If alpha or sigma is zero or not finite there.
        """
        return self.levels([t])[0]

    def levels(self, times: Sequence[float] | np.ndarray) -> list[Level]:
        """Return everything at each of some times.

        Raises
        ------
        ConfigError
            If alpha or sigma is zero or not finite at one of them.
        """
        t = np.asarray(times, float)
        with np.errstate(all="ignore"):
            log_alpha, log_sigma, rate, lam_rate = (
                np.asarray(part(t), float)
                for part in (self.log_alpha, self.log_sigma, self.log_alpha_rate, self.half_log_snr_rate)
            )
            alpha, sigma = np.exp(log_alpha), np.exp(log_sigma)
            rates = alpha * rate, sigma * (rate - lam_rate)
        bad = ~(np.isfinite(log_alpha) & np.isfinite(log_sigma) & (np.minimum(alpha, sigma) > LEAST))
        if bad.any():
            i = int(np.argmax(bad))
            raise ConfigError(
                f"t={t[i]:g}: {type(self).__name__} has alpha={alpha[i]:g}, sigma={sigma[i]:g} there; both must be "
                f"positive: stay within [{self.t_min:g}, {self.t_max:g}]"
            )
        columns = (t, alpha, sigma, log_alpha - log_sigma, *rates)
        return [Level(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _check_times(schedule: Schedule, largest: float) -> None:
    name = type(schedule).__name__
    if not 0 < schedule.t_min < schedule.t_max < largest:
        raise ConfigError(
            f"{name} t_min={schedule.t_min:g}, t_max={schedule.t_max:g}: give 0 < t_min < t_max < {largest:g}, such "
            f"as {type(schedule).t_max:g}"
        )


class VariancePreserving(Schedule):
    """Base of schedules with alpha^2 + sigma^2 = 1: they give log alpha, its rate and the inverse."""

    variance_preserving = True

    def log_sigma(self, t: Array) -> Array:
        """Return log sigma."""
        xp, t = as_array(t)
        return 0.5 * xp.log(-xp.expm1(2 * self.log_alpha(t)))

    def half_log_snr_rate(self, t: Array) -> Array:
        """Return dlambda / dt."""
        xp, t = as_array(t)
        return -self.log_alpha_rate(t) / xp.expm1(2 * self.log_alpha(t))


@dataclass(frozen=True)
class VPLinear(VariancePreserving):
    """Variance preserving, beta(t) = beta_0 + (beta_1 - beta_0) t (Song et al., ICLR 2021, arXiv 2011.13456).

    log alpha = -(beta_1 - beta_0) t^2 / 4 - beta_0 t / 2.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.

    Examples
    --------
    >>> schedule = VPLinear()
    >>> float(schedule.half_log_snr(1.0)), float(schedule.time(schedule.half_log_snr(0.25)))
    (-5.0249784066592..., 0.25)
    """

    beta_0: float = 0.1
    beta_1: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.beta_0 < self.beta_1:
            raise ConfigError(
                f"VPLinear beta_0={self.beta_0}, beta_1={self.beta_1}: give 0 <= beta_0 < beta_1"
            )
        _check_times(self, np.inf)

    def log_alpha(self, t: Array) -> Array:
        """Return log alpha."""
        _, t = as_array(t)
        return -((self.beta_1 - self.beta_0) * t / 4 + self.beta_0 / 2) * t

    def log_alpha_rate(self, t: Array) -> Array:
        """Return f = d log alpha / dt."""
        _, t = as_array(t)
        return -((self.beta_1 - self.beta_0) * t + self.beta_0) / 2

    def time(self, half_log_snr: Array) -> Array:
        """Return the t at which the half log-SNR has a value."""
        xp, lam = as_array(half_log_snr)
        ell = softplus(xp, -2 * lam)
        # The root without a difference: nothing cancels for small t.
        return 2 * ell / (xp.sqrt(self.beta_0**2 + 2 * (self.beta_1 - self.beta_0) * ell) + self.beta_0)


@dataclass(frozen=True)
class VPCosine(VariancePreserving):
    """Variance preserving, alpha a cosine (Nichol and Dhariwal, ICML 2021, arXiv 2102.09672).

    log alpha = log cos(pi/2 (t + s) / (1 + s)) - log cos(pi/2 s / (1 + s)); alpha is 0 at t = 1, sampling starts
    before.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.

    Examples
    --------
    >>> float(VPCosine().alpha(0.5)).__round__(12)
    0.702740058941
    """

    s: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.9946

    def __post_init__(self) -> None:
        if not 0 <= self.s < 1:
            raise ConfigError(f"VPCosine s={self.s}: give a number from 0 to below 1")
        _check_times(self, 1.0)

    @property
    def _first(self) -> float:
        """The angle a_0 at t = 0."""
        return math.pi / 2 * self.s / (1 + self.s)

    def log_alpha(self, t: Array) -> Array:
        """Return log alpha."""
        xp, t = as_array(t)
        a0, delta = self._first, (math.pi / 2) / (1 + self.s) * t
        # 1 - cos(a_0 + delta) / cos(a_0) as a product: its log1p keeps all digits near data, the plain log near noise.
        lost = 2 * xp.sin(a0 + delta / 2) * xp.sin(delta / 2) / math.cos(a0)
        near = xp.log1p(-xp.where(lost < 0.5, lost, 0 * lost))
        return xp.where(lost < 0.5, near, xp.log(xp.cos(a0 + delta) / math.cos(a0)))

    def log_alpha_rate(self, t: Array) -> Array:
        """Return f = d log alpha / dt."""
        xp, t = as_array(t)
        rate = (math.pi / 2) / (1 + self.s)
        return -rate * xp.tan(self._first + rate * t)

    def time(self, half_log_snr: Array) -> Array:
        """Return the t at which the half log-SNR has a value."""
        xp, lam = as_array(half_log_snr)
        cos, sin = math.cos(self._first), math.sin(self._first)
        # Of the angle a_0 + u with cosine cos(a_0) - q, sine and cosine of u from sums of positive numbers.
        q = -cos * xp.expm1(-softplus(xp, -2 * lam) / 2)
        sine = xp.sqrt(sin**2 + q * (2 * cos - q))
        u = xp.atan2(cos * q * (2 * cos - q) / (sine + sin) + q * sin, (cos - q) * cos + sine * sin)
        return 2 * (1 + self.s) / math.pi * u


@dataclass(frozen=True)
class VE(Schedule):
    """Variance exploding, alpha = 1, sigma = t, as in EDM (Karras et al., NeurIPS 2022, arXiv 2206.00364).

    Raises
    ------
    ConfigError
        If the times are out of range.

    Examples
    --------
    >>> round(float(VE().sigma(3.0)), 12), round(float(VE().diffusion_squared(3.0)), 12)
    (3.0, 6.0)
    """

    t_min: float = 0.002
    t_max: float = 80.0

    def __post_init__(self) -> None:
        _check_times(self, np.inf)

    def log_alpha(self, t: Array) -> Array:
        """Return 0."""
        _, t = as_array(t)
        return 0 * t

    def log_sigma(self, t: Array) -> Array:
        """Return log t."""
        xp, t = as_array(t)
        return xp.log(t)

    def log_alpha_rate(self, t: Array) -> Array:
        """Return 0."""
        _, t = as_array(t)
        return 0 * t

    def half_log_snr_rate(self, t: Array) -> Array:
        """Return -1 / t."""
        _, t = as_array(t)
        return -1 / t

    def time(self, half_log_snr: Array) -> Array:
        """Return the t at which the half log-SNR has a value."""
        xp, lam = as_array(half_log_snr)
        return xp.exp(-lam)


@dataclass(frozen=True)
class FlowMatching(Schedule):
    """Straight paths, alpha = 1 - s, sigma = s with s = shift t / (1 + (shift - 1) t) (Lipman et al., ICLR 2023).

    ``shift`` above 1 spends more time at high noise, as models of large fields want it.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.

    Examples
    --------
    >>> float(FlowMatching(shift=3.0).sigma(0.5))
    0.75
    """

    shift: float = 1.0
    t_min: float = 1e-3
    t_max: float = 0.999

    def __post_init__(self) -> None:
        if not 0 < self.shift < np.inf:
            raise ConfigError(f"FlowMatching shift={self.shift}: it must be positive and finite")
        _check_times(self, 1.0)

    def _odds(self, t: Array) -> Array:
        """s / t: neither alpha nor sigma is a difference of nearly equal numbers then."""
        return self.shift / (1 + (self.shift - 1) * t)

    def log_alpha(self, t: Array) -> Array:
        """Return log(1 - s)."""
        xp, t = as_array(t)
        return xp.log1p(-t) - xp.log1p((self.shift - 1) * t)

    def log_sigma(self, t: Array) -> Array:
        """Return log s."""
        xp, t = as_array(t)
        return xp.log(t * self._odds(t))

    def log_alpha_rate(self, t: Array) -> Array:
        """Return f = d log alpha / dt."""
        _, t = as_array(t)
        return -self._odds(t) / (1 - t)

    def half_log_snr_rate(self, t: Array) -> Array:
        """Return dlambda / dt."""
        _, t = as_array(t)
        return -1 / (t * (1 - t))

    def time(self, half_log_snr: Array) -> Array:
        """Return the t at which the half log-SNR has a value."""
        xp, lam = as_array(half_log_snr)
        return 1 / (1 + self.shift * xp.exp(lam))
