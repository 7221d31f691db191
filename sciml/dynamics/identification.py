"""From a fitted field to an equation: a polynomial whose terms are chosen, with coefficients and their errors.

The coefficients are fitted to whole parts of trajectories, by multiple shooting with free starts, with sensitivities
from the variational equations: the estimate of maximum likelihood for independent normal noise, of one size for each
component. Of all terms those go without which the Bayesian information criterion, in the form for choices out of
many (Bogdan, Ghosh and Doerge, Genetics 167, 989, 2004), is lowest,

    BIC = n log(RSS / n + floor^2) + k (log n + 2 log K)

with n numbers, k coefficients out of K = M d, and a floor, the accuracy of numbers without noise.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError, ConvergenceError
from sciml.symbolic import PolynomialMap

from .polynomial_flow import PolynomialFlow
from .shooting import LeastSquares, Segments, ShootingState, levenberg_marquardt, segments

__all__ = ["Equation", "PolynomialShooting", "bootstrap", "identify"]

WORSE = 1.4
"""Growth of the errors up to which a longer roll-out fits as well."""
MOST = 500
"""Coefficients that terms are chosen from."""
NOTHING = 1e-13
"""Curvature, as a part of the largest, below which data say nothing."""
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
        # Unknowns are of size one, whatever the units of states and times.
        size = data.states.square().mean((0, 1)).sqrt().numpy()
        size = np.where(size > 0, size, 1.0)
        rate = 1 / float(data.lengths.mean())
        powers = np.prod(size ** polynomial.exponents[self.rows], axis=1)
        self.units = rate * size[self.outputs] / powers

    def start(self) -> ShootingState:
        """Return the state before the first step."""
        theta = torch.as_tensor(self.polynomial.coefficients[self.rows, self.outputs] / self.units)
        return self.assess(ShootingState(theta, self.data.states[:, 0].clone(), damping=1e-6))

    def coefficients(self, theta: Tensor) -> np.ndarray:
        """Return the table of coefficients, shape (M, d)."""
        table = np.zeros(self.active.shape)
        table[self.rows, self.outputs] = theta.numpy() * self.units
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
        errors, of_theta, of_start = self.split(torch.as_tensor(found), data)
        return errors, of_theta * torch.as_tensor(self.units)[:, None, None], of_start

    def growth(self, state: ShootingState, size: np.ndarray) -> float:
        """Return the largest factor by which an error of a start grows over its segment, in units of sizes (d,)."""
        none = np.zeros(0, np.int64)
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

    @property
    def freedom(self) -> int:
        """Numbers less unknowns."""
        free = self.problem.count - len(self.state.theta) - self.state.starts.numel()
        if free < 1:
            raise ConfigError(
                f"{self.problem.count} numbers for {len(self.state.theta)} coefficients and "
                f"{self.state.starts.numel()} numbers of starts: give more frames or longer windows, or do not choose "
                "terms (terms=False, --no-terms)"
            )
        return free

    def spectrum(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Roots of the coefficients' curvatures, and what is left without them: eigenvalues and -vectors."""
        matrix = self.problem.normal(self.state).reduced()[0].numpy()
        if not np.isfinite(matrix).all():
            raise ConvergenceError("derivatives of roll-outs are not finite: take shorter windows")
        size = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
        values, vectors = np.linalg.eigh(matrix / size / size[:, None])
        return size, values, vectors

    def unknown(self, spectrum: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Shares of the coefficients, (P, directions), in combinations that the data say nothing about."""
        size, values, vectors = spectrum
        dead = size <= 1e-140
        none = (values <= NOTHING * max(values.max(initial=0.0), 1e-300)) & ~dead.all()
        return np.concatenate([vectors[:, none], np.eye(len(size))[:, dead]], axis=1)

    def covariance(self, lowest: float = 0.0) -> np.ndarray:
        """Of the coefficients in units of `PolynomialShooting.units`, with errors as large as the floor's at least."""
        size, values, vectors = self.spectrum()
        # Combinations that data say nothing about are eliminated before, or marked.
        kept = values > NOTHING * values.max(initial=0.0)
        inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T / size / size[:, None]
        return inverse * ((self.state.cost + lowest) * self.problem.count / self.freedom)

    def criterion(self, floor: float) -> float:
        return self.problem.count * math.log(self.state.cost + floor) + len(self.state.theta) * self.price

    @property
    def price(self) -> float:
        """What a term costs."""
        return math.log(self.problem.count) + 2 * math.log(self.problem.active.size)

    def noise(self) -> np.ndarray:
        """Deviation of each component's errors, without what the unknowns took of it."""
        p, data = self.problem, self.problem.data
        difference = p.compared(p.roll_out(self.state.theta, self.state.starts, data.lengths), data) * p.scale
        mean = difference.square().sum((0, 1)) / p.mask.sum()
        return np.asarray((mean * (p.count / self.freedom)).sqrt().numpy())

    def equation(self, lowest: float) -> Equation:
        problem = self.problem
        errors = np.zeros(problem.active.shape)
        deviations = np.sqrt(np.maximum(np.diag(self.covariance(lowest)), 0)) * problem.units
        shares = self.unknown(self.spectrum())
        deviations[(abs(shares) > 1e-3).any(axis=1)] = np.inf
        errors[problem.rows, problem.outputs] = deviations
        kept = problem.active.any(axis=1)
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
    states, outputs = np.asarray(states, float), polynomial.coefficients.shape[1]
    if states.ndim != 3 or states.shape[2] != outputs or len(polynomial.variables) != outputs:
        raise ConfigError(
            f"states of shape {states.shape}: expected (trajectories, times, {outputs}), and {outputs} variables, not "
            f"{len(polynomial.variables)}"
        )
    if polynomial.coefficients.size > MOST:
        raise ConfigError(
            f"{polynomial.coefficients.size} coefficients to choose from, the limit is {MOST}: take fewer layers or "
            "variables"
        )
    for name, value, least in (("substeps", substeps, 1), ("window", window, 0)):
        if value < least:
            raise ConfigError(f"{name}={value}: it must be at least {least}")
    if not 0 < floor < 1:
        raise ConfigError(f"floor={floor}: choose a small positive number")
    size = torch.as_tensor(np.sqrt((states**2).mean(axis=(0, 1))))
    size = torch.where(size > 0, size, 1.0)
    active = np.ones(polynomial.coefficients.shape, bool)
    frames = window or min(10, states.shape[1])

    def shooting(p: PolynomialMap, active: np.ndarray, frames: int, scale: Tensor) -> PolynomialShooting:
        return PolynomialShooting(p, active, segments(states, times, frames), scale, substeps)

    def lowest(scale: Tensor) -> float:
        """The cost of errors as small as the floor."""
        return float(((floor * size / scale) ** 2).mean())

    def lengthened(fit: _Fit) -> _Fit:
        while not window and fit.window < states.shape[1]:
            if fit.problem.growth(fit.state, size.numpy()) > PREDICTABLE:
                break
            frames = min(2 * fit.window, states.shape[1])
            problem = shooting(fit.polynomial, fit.problem.active, frames, fit.problem.scale)
            try:
                longer = _fitted(problem, frames)
            except ConvergenceError:
                break
            # Errors of the shortest segments are the noise; a longer roll-out that fits leaves no larger ones.
            if not (longer.noise() < WORSE * reference + floor * size.numpy()).all():
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

    fit = _fitted(shooting(polynomial, active, frames, size), frames)
    reference = fit.noise()
    fit = lengthened(fit)
    while True:
        fit = weighed(fit)
        fit = weighed(_eliminated(fit, lowest(fit.problem.scale)))
        longer = lengthened(fit)
        if longer.window == fit.window:
            return fit.equation(lowest(fit.problem.scale))
        fit = longer


def _eliminated(fit: _Fit, lowest: float) -> _Fit:
    """Take terms away as long as that lowers the criterion."""
    while len(fit.state.theta):
        shares, covariance = fit.unknown(fit.spectrum()), fit.covariance(lowest)
        certain = bool(shares.shape[1])
        if certain:
            # Of a combination that data say nothing about any one can go; the highest power is missed least.
            share = abs(shares[:, 0])
            weakest = [int(np.flatnonzero(share > 0.1 * share.max())[-1])]
        else:
            weakest = weakest_terms(fit.state.theta.numpy(), covariance, fit.price)
        # What the quadratic form of the full fit promises is made sure of, or asked of half as many terms.
        while weakest:
            smaller = _without(fit, weakest, covariance)
            if smaller and (certain or smaller.criterion(lowest) <= fit.criterion(lowest)):
                fit = smaller
                break
            weakest = weakest[: len(weakest) // 2]
        if not weakest:
            break
    return fit


def _without(fit: _Fit, gone: list[int], covariance: np.ndarray) -> _Fit | None:
    """Fit again without some coefficients; None if roll-outs are not finite."""
    old, theta = fit.problem, fit.state.theta.numpy()
    active = old.active.copy()
    active[old.rows[gone], old.outputs[gone]] = False
    problem = PolynomialShooting(fit.polynomial, active, old.data, old.scale, old.substeps)
    own = np.array(gone)
    left = np.setdiff1d(np.arange(len(theta)), own)
    # Coefficients may be large and cancel: the others first make up for those that go, as in a linear fit.
    across = covariance[np.ix_(left, own)] @ np.linalg.pinv(covariance[np.ix_(own, own)], hermitian=True)
    for start in (theta[left] - across @ theta[gone], theta[left]):
        state = replace(problem.start(), theta=torch.as_tensor(start), starts=fit.state.starts, cost=math.inf)
        with suppress(ConvergenceError):
            *_, state = levenberg_marquardt(problem, problem.assess(state), iterations=50, tolerance=1e-8)
            return _Fit(problem, state, fit.window)
    return None


def weakest_terms(theta: np.ndarray, covariance: np.ndarray, price: float) -> list[int]:
    """Return the coefficients without which a criterion is lowest, in the order in which they go.

    Without the coefficients c of covariance V the errors grow by c^T V^-1 c in units of their variance (Wald), and each
    saves a price. One or two go at a time: of two terms that stand for each other each may seem to be needed. What is
    left is then as if it had been fitted without.

    Examples
    --------
    >>> weakest_terms(np.array([5.0, 1.0]), np.eye(2), 4.0)
    [1]
    """
    theta, covariance, left = theta.copy(), covariance.copy(), np.arange(len(theta))
    gone: list[int] = []
    while len(left):
        variance = np.maximum(np.diag(covariance), 1e-300)
        single = theta**2 / variance - price
        best, chosen = float(single.min()), np.array([single.argmin()])
        i, j = np.triu_indices(len(left), 1)
        if len(i):
            # The form of two, in closed form.
            a, b, c = variance[i], covariance[i, j], variance[j]
            determinant = np.maximum(a * c - b**2, 1e-12 * a * c)
            form = (c * theta[i] ** 2 - 2 * b * theta[i] * theta[j] + a * theta[j] ** 2) / determinant
            place = int(form.argmin())
            if form[place] - 2 * price < best:
                best, chosen = float(form[place] - 2 * price), np.array([i[place], j[place]])
                chosen = chosen[np.argsort(theta[chosen] ** 2 / variance[chosen])]
        if best >= 0:
            break
        kept = np.setdiff1d(np.arange(len(left)), chosen)
        part = covariance[np.ix_(chosen, chosen)]
        across = covariance[np.ix_(kept, chosen)] @ np.linalg.pinv(part, hermitian=True)
        gone += left[chosen].tolist()
        theta, left = theta[kept] - across @ theta[chosen], left[kept]
        covariance = covariance[np.ix_(kept, kept)] - across @ covariance[np.ix_(chosen, kept)]
    return gone


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
    size = np.sqrt((np.asarray(states, float) ** 2).mean(axis=(0, 1)))
    scale = torch.as_tensor(np.maximum(equation.residual, FLOOR * np.where(size > 0, size, 1.0)))
    fit = _fitted(PolynomialShooting(p, equation.active, data, scale, substeps), equation.window)
    clean = fit.problem.roll_out(fit.state.theta, fit.state.starts, data.lengths)
    for number in range(n):
        noise = np.random.default_rng([seed, number]).standard_normal(tuple(clean.shape))
        noisy = clean + torch.as_tensor(equation.residual * noise)
        drawn = Segments(noisy, data.lengths, data.counted)
        problem = PolynomialShooting(fit.polynomial, equation.active, drawn, scale, substeps)
        refitted = _fitted(problem, equation.window, fit.state.starts)
        yield problem.coefficients(refitted.state.theta)
