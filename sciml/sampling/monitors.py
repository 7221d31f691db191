"""Monitor functions: how much of a step a state is worth, small where the density is stiff.

    g(x) = 1 / (1 / M + 1 / sqrt(phi(x)^2 + m^2)),        m M / (m + M) <= g < M,

phi a length or time that is short where the density is stiff (Leroy, Leimkuhler, Latz and Higham, SIAM J. Sci. Comput.
46(6), 2024, arXiv 2403.11993, section 3). With f = 1 / phi, large there, it is g = 1 / (1 / M + f / sqrt(1 + m^2 f^2)),
which does not divide by f. M caps steps, m is their floor; both are smooth, as the correction needs grad g everywhere.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from sciml.errors import ConfigError, ConvergenceError

from .targets import Density

__all__ = ["BoundedMonitor", "FunctionMonitor", "GradientMonitor", "Monitor"]

Scalar = Callable[[Tensor], Tensor]


class Monitor(ABC):
    """g > 0 of states (B, d)."""

    @abstractmethod
    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return g, shape (B, 1), and its gradient, (B, d)."""

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """Return g, shape (B, 1)."""


def _differentiated(function: Scalar, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = _scalar(function, x)
        if not value.requires_grad:  # A constant.
            return value, torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(value.sum(), x, materialize_grads=True)
    return value.detach(), gradient


def _given(gradient: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    found = gradient(x)
    if found.shape != x.shape:
        raise ConfigError(
            f"monitor: its gradient has shape {tuple(found.shape)} for states of shape {tuple(x.shape)}; it must be "
            "the same"
        )
    return found


def _scalar(function: Scalar, x: Tensor) -> Tensor:
    value = function(x)
    if value.shape != x.shape[:1]:
        raise ConfigError(
            f"monitor: its function returned shape {tuple(value.shape)} for states of shape {tuple(x.shape)}; it must "
            f"be ({len(x)},)"
        )
    return value


class FunctionMonitor(Monitor):
    """g from a function of states (B, d), shape (B,), positive, bounded and smooth; its gradient by autograd or given.

    Examples
    --------
    >>> g = FunctionMonitor(lambda x: 1 / (1 + x.square().sum(1)))
    >>> value, gradient = g.value_and_gradient(torch.ones(1, 1))
    >>> float(value), float(gradient)
    (0.5, -0.5)
    """

    def __init__(self, function: Scalar, gradient: Callable[[Tensor], Tensor] | None = None) -> None:
        self.function, self.gradient = function, gradient

    def value(self, x: Tensor) -> Tensor:
        """Return g.

        Raises
        ------
        ConvergenceError
            If it is not positive.
        """
        with torch.no_grad():
            return self._positive(_scalar(self.function, x), x)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return g and its gradient."""
        if self.gradient is not None:
            return self.value(x), _given(self.gradient, x)
        value, gradient = _differentiated(self.function, x)
        return self._positive(value, x), gradient

    @staticmethod
    def _positive(value: Tensor, x: Tensor) -> Tensor:
        # Of states that are not finite nothing is said here: samplers find these.
        bad = (value <= 0) & torch.isfinite(x).all(1)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise ConvergenceError(
                f"monitor: g={float(value[row]):.4g} at x={x[row].tolist()[:4]}; it must be positive everywhere, for "
                "instance by BoundedMonitor"
            )
        return value[:, None]


class BoundedMonitor(Monitor):
    """g between m M / (m + M) and M.

    Parameters
    ----------
    function : callable
        phi of states (B, d), shape (B,), or with ``stiff`` f = 1 / phi.
    gradient : callable, optional
        Its gradient, shape (B, d); by automatic differentiation by default.
    stiff : bool
        Whether the function is large where the density is stiff.
    least, most : float
        m and M.

    Raises
    ------
    ConfigError
        If they are not positive and finite: a step without a cap explodes where phi is large.

    Examples
    --------
    >>> g = BoundedMonitor(lambda x: x[:, 0].exp(), least=0.1, most=1.5)
    >>> g.value(torch.tensor([[-50.0], [0.0], [50.0]])).squeeze(1).tolist()  # m M / (m + M) and M at the ends
    [0.09375, 0.6017919778823853, 1.5]
    """

    def __init__(
        self,
        function: Scalar,
        gradient: Callable[[Tensor], Tensor] | None = None,
        *,
        stiff: bool = False,
        least: float = 0.1,
        most: float = 1.0,
    ) -> None:
        if not (0 < least < torch.inf and 0 < most < torch.inf):
            raise ConfigError(
                f"least={least}, most={most}: give positive and finite bounds; a state-dependent step without a cap "
                "explodes where the density is flat"
            )
        self.function, self.gradient, self.stiff, self.least, self.most = (
            function,
            gradient,
            stiff,
            least,
            most,
        )

    def value(self, x: Tensor) -> Tensor:
        """Return g."""
        with torch.no_grad():
            return self._bounded(_scalar(self.function, x))[0][:, None]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return g and its gradient."""
        if self.gradient is None:
            inner, gradient = _differentiated(self.function, x)
        else:
            with torch.no_grad():
                inner, gradient = _scalar(self.function, x), _given(self.gradient, x)
        g, rate = self._bounded(inner)
        return g[:, None], rate[:, None] * gradient

    def _bounded(self, inner: Tensor) -> tuple[Tensor, Tensor]:
        """Return g and dg by the function."""
        most = torch.finfo(inner.dtype).max / (1 + self.least)
        inner = inner.clamp(-most, most)
        if self.stiff:
            root = torch.hypot(torch.ones_like(inner), self.least * inner)
            slowness, rate = inner.abs() / root, inner.sign() / root**3
        else:
            slowness = torch.rsqrt(inner.square() + self.least**2)
            rate = -inner * slowness**3
        g = 1 / (1 / self.most + slowness)
        return g, -g.square() * rate


class GradientMonitor(BoundedMonitor):
    """g by the slope of the density: f = sqrt(|score|^2 + smoothing^2) / scale.

    Each value costs an evaluation of the score, each gradient a Hessian-vector product besides: take one or two sweeps
    in `Underdamped`. Without smoothing g has kinks at modes, where the score vanishes.

    Parameters
    ----------
    target : Density
    scale : float
        Slope at which a step is about half of what it is where the density is flat, for most = 1.
    smoothing : float
        Slope below which steps do not grow any more.
    least, most : float
        As those of `BoundedMonitor`.

    Examples
    --------
    >>> from sciml.sampling.targets import SteepDoubleWell
    >>> g = GradientMonitor(SteepDoubleWell(), scale=2.0)
    >>> bool(g.value(torch.tensor([[1.5]]).double()) < g.value(torch.tensor([[-1.5]]).double()))
    True
    """

    def __init__(
        self, target: Density, scale: float, *, smoothing: float = 0.1, least: float = 0.1, most: float = 1.0
    ) -> None:
        if not (scale > 0 and smoothing > 0):
            raise ConfigError(f"scale={scale}, smoothing={smoothing}: they must be positive")
        super().__init__(self._slope, self._slope_gradient, stiff=True, least=least, most=most)
        self.target, self.scale, self.smoothing = target, scale, smoothing

    def _slope(self, x: Tensor) -> Tensor:
        return (self.target.score(x).square().sum(1) + self.smoothing**2).sqrt() / self.scale

    def _slope_gradient(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self.target.log_density(x).sum()
            (score,) = torch.autograd.grad(value, x, create_graph=True)
            slope = (score.square().sum(1) + self.smoothing**2).sqrt() / self.scale
            (gradient,) = torch.autograd.grad(slope.sum(), x)
        return gradient
