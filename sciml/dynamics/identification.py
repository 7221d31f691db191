"""From a fitted field to an equation: a polynomial whose terms are chosen, with coefficients and their errors.

The coefficients are fitted to whole parts of trajectories, by multiple shooting with free starts, with sensitivities
from the variational equations: the estimate of maximum likelihood for independent normal noise, of one size for each
component. Of all M monomials those go without which the Bayesian information criterion, in the form for choices out of
many (Bogdan, Ghosh and Doerge, Genetics 167, 989, 2004), is lowest,

    BIC = n log(RSS / n + floor^2) + k (log n + 2 log M)

with n numbers, k coefficients, and a floor, the accuracy of numbers without noise.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError, ConvergenceError
from sciml.symbolic import PolynomialMap

from .polynomial_flow import PolynomialFlow
from .shooting import LeastSquares, Segments, ShootingState, levenberg_marquardt, segments

__all__ = ["Equation", "PolynomialShooting", "bootstrap", "identify"]

FLOOR = 1e-7
"""Relative accuracy of data without noise and of the integrator."""
REWEIGHINGS = 10
"""Most fits for the components' noise."""
PREDICTABLE = 30.0
"""Growth of a start's error over a segment, up to which segments are made longer."""


@dataclass(frozen=True, eq=False)
class Equation:
    """An identified vector field.

    Attributes
    ----------
    polynomial : PolynomialMap
    errors : ndarray, shape (M, o)
        Standard errors of the coefficients, 0 where there is no term.
    residual : ndarray, shape (d,)
        Root mean squares of the errors of the fit: the size of the noise.
    window : int
        Frames of the segments of the fit.
    """

    polynomial: PolynomialMap
    errors: np.ndarray
    residual: np.ndarray
    window: int

    @property
    def active(self) -> np.ndarray:
        """Which coefficients are there, shape (M, o)."""
        found: np.ndarray = self.polynomial.coefficients != 0
        return found

    def roll_out(self, starts: np.ndarray, times: np.ndarray, substeps: int = 8) -> np.ndarray:
        """Return states (n, T, d) from starts (n, d), by ``substeps`` Runge-Kutta steps between two times.

        Where one leaves the range of numbers, so do the states.
        """
        lengths = np.broadcast_to(np.diff(times), (len(starts), len(times) - 1))
        flow = PolynomialFlow(self.polynomial.exponents, substeps)
        return flow.frames(self.polynomial.coefficients, np.asarray(starts, float), lengths)

    def text(self, digits: int = 6) -> str:
        """Return the equations, one line each, with standard errors of the last digits in brackets."""
        return self.polynomial.text(
            [f"d{name}/dt" for name in self.polynomial.variables], digits, self.errors
        )


class PolynomialShooting(LeastSquares):
    """The least-squares problem of a polynomial's coefficients.

    Parameters
    ----------
    polynomial : PolynomialMap
        Monomials, and the coefficients to start with.
    active : ndarray of bool, shape (M, d)
        Coefficients that are unknown; all others are zero.
    data : Segments
        Of shape (B, W, d).
    scale : Tensor, shape (d,)
    substeps : int
    free_starts : bool
    """

    def __init__(
        self,
        polynomial: PolynomialMap,
        active: np.ndarray,
        data: Segments,
        scale: Tensor,
        substeps: int,
        free_starts: bool = True,
    ) -> None:
        super().__init__(data, scale, free_starts)
        self.polynomial, self.active, self.substeps = polynomial, active, substeps
        self.rows, self.outputs = np.nonzero(active)
        self.flow = PolynomialFlow(polynomial.exponents, substeps)

    def start(self) -> ShootingState:
        """Return the state before the first step."""
        theta = torch.as_tensor(self.polynomial.coefficients[self.rows, self.outputs])
        return self.assess(ShootingState(theta, self.data.states[:, 0].clone(), damping=1e-6))

    def coefficients(self, theta: Tensor) -> np.ndarray:
        """Return the table of coefficients, shape (M, d)."""
        table = np.zeros(self.active.shape)
        table[self.rows, self.outputs] = theta.numpy()
        return table

    def roll_out(self, theta: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        """Return all frames, shape (B, W, d)."""
        return torch.as_tensor(self.flow.frames(self.coefficients(theta), starts.numpy(), lengths.numpy()))

    def jacobians(
        self, theta: Tensor, starts: Tensor, data: Segments
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return errors and derivatives: the variational equations run along with the states."""
        table = self.coefficients(theta)
        found = self.flow.sensitivities(table, self.rows, self.outputs, starts.numpy(), data.lengths.numpy())
        return self.split(torch.as_tensor(found), data)

    def growth(self, state: ShootingState) -> float:
        """Return the largest factor by which an error of a start grows over its segment, in units of sizes."""
        none, size = np.zeros(0, np.int64), self.scale.numpy()
        frames = self.flow.sensitivities(
            *(self.coefficients(state.theta), none, none), state.starts.numpy(), self.data.lengths.numpy()
        )
        ends = frames[:, -1, :, 1:] / size[:, None] * size
        return float(np.linalg.norm(ends, 2, axis=(1, 2)).max()) if np.isfinite(ends).all() else math.inf


@dataclass(frozen=True, eq=False)
class _Fit:
    problem: PolynomialShooting
    state: ShootingState
    window: int

    @property
    def polynomial(self) -> PolynomialMap:
        table = self.problem.coefficients(self.state.theta)
        return replace(self.problem.polynomial, coefficients=table)

    def covariance(self) -> Tensor:
        """Of the coefficients: the inverse of S times the variance of the errors."""
        free = self.problem.count - len(self.state.theta) - self.state.starts.numel()
        if free < 1:
            raise ConfigError(
                f"{self.problem.count} numbers for {len(self.state.theta)} coefficients and "
                f"{self.state.starts.numel()} numbers of starts: give more frames, or longer windows"
            )
        matrix = self.problem.normal(self.state).reduced()[0]
        size = matrix.diagonal().clamp_min(1e-300).sqrt()
        inverse = torch.linalg.pinv(matrix / size / size[:, None], hermitian=True) / size / size[:, None]
        return inverse * (self.state.cost * self.problem.count / free)

    def criterion(self, floor: float) -> float:
        return self.problem.count * math.log(self.state.cost + floor) + len(self.state.theta) * self.price

    @property
    def price(self) -> float:
        """What a term costs."""
        return math.log(self.problem.count) + 2 * math.log(self.problem.active.size)

    def noise(self) -> np.ndarray:
        """Root mean square of the errors of each component."""
        p, data = self.problem, self.problem.data
        difference = p.roll_out(self.state.theta, self.state.starts, data.lengths) - data.states
        found: np.ndarray = difference.square().mean((0, 1)).sqrt().numpy()
        return found

    def equation(self) -> Equation:
        errors = np.zeros(self.problem.active.shape)
        errors[self.problem.rows, self.problem.outputs] = self.covariance().diagonal().clamp_min(0).sqrt()
        kept = self.problem.active.any(axis=1)
        p = self.polynomial
        polynomial = replace(p, exponents=p.exponents[kept], coefficients=p.coefficients[kept])
        return Equation(polynomial, errors[kept], self.noise(), self.window)


def _fitted(problem: PolynomialShooting, window: int, starts: Tensor | None = None) -> _Fit:
    state = problem.start()
    if starts is not None:
        state = problem.assess(replace(state, starts=starts))
    *_, state = [state, *levenberg_marquardt(problem, state, iterations=50, tolerance=1e-8)]
    return _Fit(problem, state, window)


def identify(
    polynomial: PolynomialMap,
    states: np.ndarray,
    times: np.ndarray,
    *,
    substeps: int = 8,
    window: int = 0,
    floor: float = FLOOR,
) -> Equation:
    """Choose the terms of a vector field and fit their coefficients.

    Parameters
    ----------
    polynomial : PolynomialMap
        All monomials that may be there, with coefficients to start from, such as a network's expansion.
    states : ndarray, shape (n, T, d)
        Trajectories, with noise or without.
    times : ndarray, shape (T,)
    substeps : int
        Runge-Kutta steps between two frames.
    window : int
        Frames of a segment. 0 doubles them from ten, as long as an error of a start grows over a segment at most
        thirtyfold and the roll-outs fit, up to whole trajectories: the longer, the more they tell of small terms.
    floor : float
        Accuracy of the numbers without noise, in units of each component's size.

    Raises
    ------
    ConfigError
        If shapes do not fit, or there are not enough frames.
    ConvergenceError
        If the polynomial's roll-outs from the data are not finite.

    Examples
    --------
    >>> from sciml.symbolic import monomial_exponents
    >>> times = np.linspace(0, 2, 41)
    >>> start = PolynomialMap(monomial_exponents(1, 2), np.array([[0.0], [-0.9], [0.1]]), ("x",))
    >>> found = identify(start, np.exp(-1.5 * times)[None, :, None], times)
    >>> print(found.polynomial.text(["dx/dt"]))
    dx/dt = - 1.5 x
    """
    states = np.asarray(states, float)
    if states.ndim != 3 or states.shape[2] != polynomial.coefficients.shape[1]:
        raise ConfigError(
            f"states of shape {states.shape}: expected (trajectories, times, {polynomial.coefficients.shape[1]})"
        )
    size = torch.as_tensor(np.sqrt((states**2).mean(axis=(0, 1))))
    active = np.ones(polynomial.coefficients.shape, bool)
    frames = window or min(10, states.shape[1])

    def shooting(p: PolynomialMap, active: np.ndarray, frames: int, scale: Tensor) -> PolynomialShooting:
        return PolynomialShooting(p, active, segments(states, times, frames), scale, substeps)

    def lowest(scale: Tensor) -> float:
        """The cost of errors as small as the floor."""
        return float(((floor * size / scale) ** 2).mean())

    def lengthened(fit: _Fit) -> _Fit:
        while not window and fit.window < states.shape[1]:
            if fit.problem.growth(fit.state) > PREDICTABLE:
                break
            frames = min(2 * fit.window, states.shape[1])
            problem = shooting(fit.polynomial, fit.problem.active, frames, fit.problem.scale)
            try:
                longer = _fitted(problem, frames)
            except ConvergenceError:
                break
            # Fewer starts leave larger errors, but not much larger ones.
            if not longer.state.cost < 4 * fit.state.cost + lowest(fit.problem.scale):
                break
            fit = longer
        return fit

    def weighed(fit: _Fit) -> _Fit:
        """Count errors in units of each component's noise, which is only known when they are."""
        for _ in range(REWEIGHINGS):
            scale = torch.maximum(torch.as_tensor(fit.noise()), floor * size)
            change = (scale / fit.problem.scale).log().abs().max()
            problem = PolynomialShooting(
                fit.polynomial, fit.problem.active, fit.problem.data, scale, substeps
            )
            fit = _fitted(problem, fit.window, fit.state.starts)
            if change < 0.05:
                break
        return fit

    fit = lengthened(_fitted(shooting(polynomial, active, frames, size), frames))
    for again in (True, False):
        fit = weighed(fit)
        fit = weighed(_eliminated(fit, lowest(fit.problem.scale)))
        longer = lengthened(fit)
        if longer.window == fit.window or not again:
            break
        fit = longer
    return fit.equation()


def _eliminated(fit: _Fit, lowest: float) -> _Fit:
    """Take terms away as long as that lowers the criterion."""
    while weakest := _weakest(fit, lowest):
        old = fit.problem
        # What the quadratic form of the full fit promises is made sure of, or asked of half as many terms.
        while weakest:
            active = old.active.copy()
            active[old.rows[weakest], old.outputs[weakest]] = False
            problem = PolynomialShooting(fit.polynomial, active, old.data, old.scale, old.substeps)
            smaller = _fitted(problem, fit.window, fit.state.starts)
            if smaller.criterion(lowest) <= fit.criterion(lowest):
                break
            weakest = weakest[: len(weakest) // 2]
        if not weakest:
            break
        fit = smaller
    return fit


def _weakest(fit: _Fit, lowest: float) -> list[int]:
    """Coefficients without which the criterion should be lowest, those first that are missed least.

    Without the coefficients c of covariance V the errors grow by c^T V^-1 c in units of their variance (Wald). One or
    two go at a time: of two terms that stand for each other each may seem to be needed.
    """
    theta = fit.state.theta.numpy()
    covariance = fit.covariance().numpy() * (1 + lowest / max(fit.state.cost, 1e-300))
    left, best = set(range(len(theta))), 0.0
    gone: list[int] = []
    while left:
        choices = [(i,) for i in left] + list(itertools.combinations(sorted(left), 2))
        found = min(
            (_wald(theta, covariance, [*gone, *c]) - fit.price * len([*gone, *c]), c) for c in choices
        )
        if found[0] >= best:
            break
        best = found[0]
        gone += sorted(found[1], key=lambda i: theta[i] ** 2 / covariance[i, i])
        left -= set(found[1])
    return gone


def _wald(theta: np.ndarray, covariance: np.ndarray, chosen: list[int]) -> float:
    part = covariance[np.ix_(chosen, chosen)]
    size = np.sqrt(np.maximum(np.diag(part), 1e-300))
    c = theta[chosen] / size
    return float(c @ np.linalg.pinv(part / size / size[:, None], hermitian=True) @ c)


def bootstrap(
    equation: Equation,
    states: np.ndarray,
    times: np.ndarray,
    n: int,
    *,
    substeps: int = 8,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Yield the coefficients, shape (M, d), of fits to n sets of data with new noise.

    The fitted trajectories with normal noise of the fitted size, of the same terms (the parametric bootstrap). Set i
    depends on the seed and i alone.

    Raises
    ------
    ConfigError
        If the data are not those of the equation, or n is not positive.
    """
    if n < 1:
        raise ConfigError(f"bootstrap n={n}: it must be at least 1")
    p, data = equation.polynomial, segments(states, times, equation.window)
    scale = torch.as_tensor(np.maximum(equation.residual, 1e-300))
    fit = _fitted(PolynomialShooting(p, equation.active, data, scale, substeps), equation.window)
    clean = fit.problem.roll_out(fit.state.theta, fit.state.starts, data.lengths)
    for number in range(n):
        noise = np.random.default_rng([seed, number]).standard_normal(tuple(clean.shape))
        drawn = Segments(clean + scale * torch.as_tensor(noise), data.lengths)
        problem = PolynomialShooting(fit.polynomial, equation.active, drawn, scale, substeps)
        refitted = _fitted(problem, equation.window, fit.state.starts)
        yield problem.coefficients(refitted.state.theta)
