"""Time integration of y' = f_I(t, y) + f_E(t, y) by additive Runge-Kutta methods.

A *split system* treats its stiff part f_I implicitly and the rest, f_E, explicitly. With stage values
Y_i, slopes k_i = f(t_n + c_i dt, Y_i) and matrices A^I (lower triangular) and A^E (strictly so),

    Y_i = y_n + dt sum_j (A^E_ij k^E_j + A^I_ij k^I_j),    y_(n+1) = y_n + dt sum_j b_j (k^E_j + k^I_j).

An implicit stage is one solve of Y - s f_I(Y) = r with the *shift* s = dt A^I_ii. A factorisation
belongs to one shift and costs far more than a step: adaptive implicit runs only halve and double.
States are arrays of any library of the array API standard, real or complex, of any shape.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

import numpy as np
from array_api_compat import array_namespace
from tqdm import tqdm

from sciml.errors import ConfigError, ConvergenceError

__all__ = [
    "ARK4",
    "DORMAND_PRINCE",
    "RK4",
    "SplitSystem",
    "Stage",
    "Statistics",
    "Tableau",
    "explicit_system",
    "imaginary_stability",
    "integrate",
    "real_stability",
    "step",
]

Array = Any  # NumPy array, torch tensor, ...


@dataclass(frozen=True, eq=False)
class Tableau:
    """Coefficients of an additive Runge-Kutta method of s stages; both parts share b, b_hat and c.

    Parameters
    ----------
    name : str
    explicit, implicit : ndarray, shape (s, s)
        A^E and A^I; with implicit=None the method is explicit and takes both parts as such.
    b, b_hat : ndarray, shape (s,)
        Weights of the solution and of the embedded one, which may be None.
    c : ndarray, shape (s,)
        Nodes in units of the step, the row sums of both matrices.
    order, embedded_order : int

    Raises
    ------
    ConfigError
        If a shape, a triangle, a row sum, or the sum of the weights is wrong.

    Examples
    --------
    >>> Tableau("Euler", np.zeros((1, 1)), None, np.ones(1), None, np.zeros(1), 1, None).fsal
    False
    """

    name: str
    explicit: np.ndarray
    implicit: np.ndarray | None
    b: np.ndarray
    b_hat: np.ndarray | None
    c: np.ndarray
    order: int
    embedded_order: int | None

    def __post_init__(self) -> None:
        shape = np.shape(self.c)
        for key, matrix, diagonal in (("explicit", self.explicit, 0), ("implicit", self.implicit, 1)):
            if matrix is not None and (
                np.shape(matrix) != shape * 2
                or np.triu(matrix, diagonal).any()
                or abs(matrix.sum(axis=1) - self.c).max() > 1e-12
            ):
                raise ConfigError(f"{key}={matrix} of {self.name}: give a triangle of row sums c={self.c}")
        for key, weights in (("b", self.b), ("b_hat", self.b_hat)):
            if weights is not None and (np.shape(weights) != shape or abs(weights.sum() - 1) > 1e-12):
                raise ConfigError(f"{key}={weights} of {self.name}: give weights of shape {shape} and sum 1")
        if (self.b_hat is None) != (self.embedded_order is None):
            raise ConfigError(f"embedded_order={self.embedded_order} of {self.name}: it goes with b_hat")

    @property
    def fsal(self) -> bool:
        """First same as last: an explicit method whose last slope is the first of the next step."""
        return self.implicit is None and bool((self.explicit[-1] == self.b).all())


def _vector(text: str) -> np.ndarray:
    return np.array([float(Fraction(entry)) for entry in text.split()])


def _triangle(text: str) -> np.ndarray:
    rows = [_vector(row) for row in text.split(";")]
    return np.stack([np.pad(row, (0, len(rows) - len(row))) for row in rows])


_RK4_MATRIX = _triangle("0; 1/2; 0 1/2; 0 0 1")
_DP_MATRIX = _triangle(
    "0; 1/5; 3/40 9/40; 44/45 -56/15 32/9; 19372/6561 -25360/2187 64448/6561 -212/729;"
    "9017/3168 -355/33 46732/5247 49/176 -5103/18656; 35/384 0 500/1113 125/192 -2187/6784 11/84 0"
)
_DP_HAT = _vector("5179/57600 0 7571/16695 393/640 -92097/339200 187/2100 1/40")
_ARK4_EXPLICIT = _triangle(
    "0; 1/2; 13861/62500 6889/62500;"
    "-116923316275/2393684061468 -2731218467317/15368042101831 9408046702089/11113171139209;"
    "-451086348788/2902428689909 -2682348792572/7519795681897 12662868775082/11960479115383"
    " 3355817975965/11060851509271; 647845179188/3216320057751 73281519250/8382639484533"
    " 552539513391/3454668386233 3354512671639/8306763924573 4040/17871"
)
_ARK4_IMPLICIT = _triangle(
    "0; 1/4 1/4; 8611/62500 -1743/31250 1/4; 5012029/34652500 -654441/2922500 174375/388108 1/4;"
    "15267082809/155376265600 -71443401/120774400 730878875/902184768 2285395/8070912 1/4;"
    "82889/524892 0 15625/83664 69875/102672 -2260/8211 1/4"
)
_ARK4_HAT = _vector(
    "4586570599/29645900160 0 178811875/945068544 814220225/1159782912 -3700637/11593932 61727/225920"
)

RK4 = Tableau("RK4", _RK4_MATRIX, None, _vector("1/6 1/3 1/3 1/6"), None, _vector("0 1/2 1/2 1"), 4, None)
"""The classical method of Kutta (1901)."""

DORMAND_PRINCE = Tableau(
    "Dormand-Prince", _DP_MATRIX, None, _DP_MATRIX[-1], _DP_HAT, _vector("0 1/5 3/10 4/5 8/9 1 1"), 5, 4
)
"""RK5(4)7M of Dormand and Prince, J. Comput. Appl. Math. 6, 19 (1980)."""

_ARK4_NODES = _vector("0 1/2 83/250 31/50 17/20 1")
ARK4 = Tableau("ARK4", _ARK4_EXPLICIT, _ARK4_IMPLICIT, _ARK4_IMPLICIT[-1], _ARK4_HAT, _ARK4_NODES, 4, 3)
"""ARK4(3)6L[2]SA of Kennedy and Carpenter, Appl. Numer. Math. 44, 139 (2003).

The implicit part, L-stable and stiffly accurate, is used alone where f_E is None.
"""


@dataclass(frozen=True)
class Stage:
    """Where a system is evaluated: index i from 0, time t_n + c_i dt, start t_n, step dt."""

    index: int
    time: float
    start: float
    step: float
    tableau: Tableau


@runtime_checkable
class SplitSystem(Protocol):
    """The equation y' = f_I + f_E, as integrators see it."""

    def explicit(self, stage: Stage, y: Array) -> Array | None:
        """Return f_E, of the shape of y; always None if there is no such part."""

    def implicit(self, stage: Stage, y: Array) -> Array | None:
        """Return f_I, of the shape of y; always None if there is no such part.

        Called at stages without shift: the first of ARK4, and all stages of explicit methods.
        """

    def solve(self, stage: Stage, rhs: Array, shift: float, guess: Array) -> Array:
        """Return y with y - shift f_I(stage, y) = rhs; `guess` is the previous stage's value.

        A ConvergenceError raised here makes an adaptive run try a smaller step.
        """


@dataclass(frozen=True)
class _Explicit:
    function: Callable[[float, Array], Array]

    def explicit(self, stage: Stage, y: Array) -> Array:
        return self.function(stage.time, y)

    def implicit(self, stage: Stage, y: Array) -> None:
        return None

    def solve(self, stage: Stage, rhs: Array, shift: float, guess: Array) -> Array:
        return rhs


def explicit_system(function: Callable[[float, Array], Array]) -> SplitSystem:
    """Return the system y' = function(t, y), all of it explicit.

    Examples
    --------
    >>> *_, (t, y, run) = integrate(explicit_system(lambda t, y: y), np.ones(1), [0, 1], step=0.01)
    >>> bool(abs(y[0] - np.e) < 1e-9), run.accepted
    (True, 100)
    """
    return _Explicit(function)


def _combine(base: Array, dt: float, weights: Sequence[float], slopes: Sequence[Array | None]) -> Array:
    for weight, slope in zip(weights, slopes, strict=False):
        if weight != 0 and slope is not None:
            base = base + (dt * weight) * slope
    return base


def _advance(
    tableau: Tableau, system: SplitSystem, t: float, y: Array, dt: float, first: Array | None = None
) -> tuple[Array, Array | None, Array | None]:
    """Return new state, error estimate and k^E_s; `first` is k^E_1 where it is known."""
    # Python floats keep the precision of y; NumPy's would turn float32 into float64.
    explicit = tableau.explicit.tolist()
    implicit = explicit if tableau.implicit is None else tableau.implicit.tolist()
    slopes_e: list[Array | None] = []
    slopes_i: list[Array | None] = []
    value = y
    for i, node in enumerate(tableau.c.tolist()):
        stage = Stage(i, t + node * dt, t, dt, tableau)
        rhs = _combine(_combine(y, dt, explicit[i], slopes_e), dt, implicit[i], slopes_i)
        shift = dt * implicit[i][i]
        if shift != 0 and not (slopes_i and slopes_i[0] is None):
            value = system.solve(stage, rhs, shift, value)
            slopes_i.append((value - rhs) / shift)
        else:
            value = rhs
            slopes_i.append(system.implicit(stage, value))
        slopes_e.append(system.explicit(stage, value) if i or first is None else first)
    # From the last stage, not from y: what a stiffly accurate method has solved then stays solved.
    for matrix, slopes in ((explicit, slopes_e), (implicit, slopes_i)):
        value = _combine(value, dt, (tableau.b - matrix[-1]).tolist(), slopes)
    if tableau.b_hat is None:
        return value, None, slopes_e[-1]
    error = array_namespace(value).zeros_like(value)
    for slopes in (slopes_e, slopes_i):
        error = _combine(error, dt, (tableau.b - tableau.b_hat).tolist(), slopes)
    return value, error, slopes_e[-1]


def step(tableau: Tableau, system: SplitSystem, t: float, y: Array, dt: float) -> tuple[Array, Array | None]:
    """Advance y, floating point of any shape, from t to t + dt.

    Returns
    -------
    y_new : array
    error : array or None
        dt sum (b - b_hat) k, an estimate of the embedded solution's local error; None without b_hat.

    Examples
    --------
    >>> step(RK4, explicit_system(lambda t, y: t**3 + 0 * y), 0.0, np.zeros(1), 2.0)
    (array([4.]), None)
    """
    return _advance(tableau, system, t, y, dt)[:2]


@dataclass(frozen=True)
class Statistics:
    """What a run has done so far.

    Attributes
    ----------
    accepted, rejected : int
        Numbers of steps.
    smallest, largest : float
        Accepted steps; inf and 0 before the first.
    shifts : tuple of float
        All different shifts dt A^I_ii, ascending: one factorisation each.
    """

    accepted: int = 0
    rejected: int = 0
    smallest: float = math.inf
    largest: float = 0.0
    shifts: tuple[float, ...] = ()

    def _after(self, tableau: Tableau, dt: float, accepted: bool) -> "Statistics":
        diagonal = () if tableau.implicit is None else np.diag(tableau.implicit).tolist()
        shifts = tuple(sorted({*self.shifts, *(dt * entry for entry in diagonal if entry)}))
        low, high = (
            (min(self.smallest, dt), max(self.largest, dt)) if accepted else (self.smallest, self.largest)
        )
        return Statistics(self.accepted + accepted, self.rejected + (not accepted), low, high, shifts)


def _intervals(times: list[float]) -> Iterator[tuple[float, float, float]]:
    """Start, end and length between output times.

    Lengths whose ratio is a power of two up to rounding get exactly this ratio, so that equal steps in
    different intervals have the same bits, and share a factorisation.
    """
    lengths: set[float] = set()
    for start, end in itertools.pairwise(times):
        length, slack = end - start, 4 * np.finfo(float).eps * max(abs(start), abs(end))
        scaled = (math.ldexp(known, round(math.log2(length / known))) for known in lengths)
        length = next((near for near in scaled if abs(near - length) <= slack), length)
        lengths.add(length)
        yield start, end, length


def _is_finite(y: Array) -> bool:
    xp = array_namespace(y)
    return bool(xp.all(xp.isfinite(y)))


def _rms(values: Array) -> float:
    xp = array_namespace(values)
    return float(xp.sqrt(xp.mean(xp.abs(values) ** 2)))


def _next_step(tableau: Tableau, tried: float, error: float, last: tuple[float, float]) -> float:
    """Choose a step from the relative error of this attempt and (step, error) of the last one.

    Free steps follow the PI controller of Gustafsson, ACM TOMS 17, 533 (1991). On the ladder the error
    is predicted as in TOMS 20, 496 (1994): as it has just grown, so it will again.
    """
    order = 1 + (tableau.embedded_order or 0)
    factor = 0.9 * error ** (-1 / order)
    if error > 1:
        return tried * max(factor, 1 / 16)
    if tableau.implicit is not None:
        growth = error / (last[1] * (tried / last[0]) ** order)
        return tried * (2 if last[1] <= 1 and factor >= 2 * max(growth, 1) ** (1 / order) else 1)
    factor = 0.9 * error ** (-0.7 / order) * min(last[1], 1) ** (0.4 / order)
    return tried * min(factor, 5 if last[1] <= 1 else 1)


def _part(wanted: float, done: Fraction, ladder: bool) -> Fraction:
    """Part of the interval to step over, with `done` of it behind; Fractions add up to 1 exactly."""
    if ladder:
        part = Fraction(2) ** math.floor(math.log2(min(wanted, 1)) + 1e-9)
        while (done / part).denominator > 1:
            part /= 2
        return part
    rest = 1 - done
    return rest if rest <= 1.01 * wanted else min(Fraction(wanted), rest / 2)


def integrate(
    system: SplitSystem,
    y: Array,
    times: Sequence[float] | np.ndarray,
    *,
    step: float | None = None,
    tolerance: float | tuple[float, float] | None = None,
    tableau: Tableau = ARK4,
    progress: bool = False,
    norm: Callable[[Array], float] | None = None,
    max_steps: int = 1_000_000,
) -> Iterator[tuple[float, Array, Statistics]]:
    """Integrate from times[0]; yield (t, y, statistics) at every time exactly, the first included.

    Parameters
    ----------
    system : SplitSystem
    y : array, any shape
        State at times[0]; floating point, real or complex.
    times : sequence of float, increasing
    step : float, optional
        Fixed steps: ceil(length / step) equal ones between two times.
    tolerance : float or (float, float), optional
        Adaptive steps, norm(error / (atol + rtol max(|y_n|, |y_(n+1)|))) <= 1 entry by entry; a pair is
        (rtol, atol), a number is both. Explicit tableaux step freely; those with an implicit part by
        2^-k times the distance of two times.
    tableau : Tableau
    progress : bool
        Show a bar.
    norm : callable, optional
        From an array like y to a float; by default the root mean square.
    max_steps : int
        Most steps to try.

    Raises
    ------
    ConfigError
        If an argument cannot be used; like the other errors, when the first item is asked for or later.
    ConvergenceError
        If the state is no longer finite, a step is too small for the clock, or max_steps are used up.

    Examples
    --------
    >>> decay = explicit_system(lambda t, y: -y)
    >>> for t, y, run in integrate(decay, np.ones(1), [0, 3], tolerance=1e-6, tableau=DORMAND_PRINCE):
    ...     print(t, bool(abs(y - np.exp(-t)).max() < 1e-6))
    0.0 True
    3.0 True
    """
    if not isinstance(system, SplitSystem):
        raise ConfigError(f"system={system!r} is no SplitSystem: wrap functions f(t, y) in explicit_system")
    clock = np.asarray(times, dtype=float)
    if clock.ndim != 1 or len(clock) < 2 or not (np.isfinite(clock).all() and (np.diff(clock) > 0).all()):
        raise ConfigError(f"times={clock}: give at least two finite times in increasing order")
    if (step is None) == (tolerance is None):
        raise ConfigError(f"step={step} and tolerance={tolerance}: give exactly one of them")
    rtol, atol = tolerance if isinstance(tolerance, tuple) else (tolerance, tolerance)
    for name, value in (("step", step), ("tolerance", rtol), ("tolerance", atol)):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{name}={value}: it must be positive and finite")
    if tolerance is not None and tableau.b_hat is None:
        raise ConfigError(f"tolerance={tolerance}: {tableau.name} estimates no error, so give step=")
    if not _is_finite(y):
        raise ConfigError("y contains NaN or infinity: give a finite initial state")

    def relative(values: Array, before: Array, after: Array) -> float:
        xp = array_namespace(before)
        size = (norm or _rms)(values / (atol + rtol * xp.maximum(xp.abs(before), xp.abs(after))))
        return math.inf if math.isnan(size) else size

    run, slope, dt = Statistics(), None, step or float(clock[1] - clock[0])
    yield float(clock[0]), y, run
    if step is None:
        # |y| / |y'| tells how far y is smooth: Hairer, Norsett and Wanner, section II.4. The floor is for
        # y near 0; steps grow slowly, but shrink fast.
        stage = Stage(0, float(clock[0]), float(clock[0]), dt, tableau)
        slopes = [system.implicit(stage, y), system.explicit(stage, y)]
        rate = relative(_combine(0 * y, 1.0, (1.0, 1.0), slopes), y, y)
        if 0 < rate < math.inf:
            dt *= min(1.0, max(1e-4, relative(y, y, y) ** (1 - 1 / tableau.order) / (rate * dt)))
    last, cause, ladder = (dt, 1.0), "", tableau.implicit is not None
    layout = "{l_bar}{bar}| t {n:.4g} of {total:.4g} [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=clock[-1] - clock[0], disable=not progress, bar_format=layout) as bar:
        for start, end, length in _intervals(clock.tolist()):
            done = Fraction(0)
            while done < 1:
                equal = None if step is None else math.ceil(length / step * (1 - 1e-9))
                part = Fraction(1, equal) if equal else _part(dt / length, done, ladder)
                t, tried = start + float(done) * length, float(part) * length
                where = f"at t={t:.9g} with a step of {tried:.3g}"
                if step is None and tried < 16 * np.finfo(float).eps * max(abs(start), abs(end)):
                    raise ConvergenceError(f"step underflow {where}: {cause}; end the run before")
                if run.accepted + run.rejected >= max_steps:
                    raise ConvergenceError(f"max_steps={max_steps} are used up {where}: allow more")
                error, cause = math.inf, "the state became NaN or infinite"
                try:
                    # What NumPy would warn of shows in the new state.
                    with np.errstate(all="ignore"):
                        new, estimate, slope_end = _advance(tableau, system, t, y, tried, slope)
                        if _is_finite(new):
                            error = max(relative(estimate, y, new), 1e-10) if step is None else 0.0
                            cause = f"the error is {error:.1e} times the tolerance"
                except ConvergenceError as failure:
                    cause = str(failure)
                if step is None:
                    chosen = _next_step(tableau, tried, error, last)
                    # A step cut short by an output time tells nothing against a longer one.
                    short = error <= 1 and tried < dt and done + part == 1
                    dt = max(dt, chosen) if short else chosen
                elif error > 1:
                    raise ConvergenceError(f"{cause} {where}: take a smaller step")
                last = (tried, error)
                run = run._after(tableau, tried, error <= 1)
                if error <= 1:
                    # Only a plain function is known to see nothing of a stage but its time.
                    slope = slope_end if tableau.fsal and isinstance(system, _Explicit) else None
                    y, done = new, done + part
                    bar.update(tried)
            yield end, y, run


def _extent(tableau: Tableau, direction: complex) -> float:
    """Largest x with |R(direction s)| <= 1 for s in [0, x], R(z) = 1 + sum_j (b^T A^(j-1) 1) z^j."""
    ones = np.ones(len(tableau.b))
    powers = list(itertools.accumulate(tableau.b[1:], lambda v, _: tableau.explicit @ v, initial=ones))
    r = np.array([1.0, *(tableau.b @ power for power in powers)]) * direction ** np.arange(len(powers) + 1)
    excess = np.convolve(r, r.conj()).real
    excess[0] = 0.0
    # Coefficients that should vanish split the multiple root 0.
    excess[abs(excess) < 1e-14] = 0.0
    roots = [float(root.real) for root in np.roots(excess[::-1]) if abs(root.imag) < 1e-9 and root.real > 0]
    for left, right in itertools.pairwise([0.0, *sorted(roots), math.inf]):
        if np.polyval(excess[::-1], (left + min(right, left + 1)) / 2) > 0:
            return left
    return math.inf


def real_stability(tableau: Tableau) -> float:
    """Return the largest x with |R| <= 1 on [-x, 0]: f_E = lambda y, lambda < 0, allows dt |lambda| <= x.

    Examples
    --------
    >>> round(real_stability(RK4), 3)
    2.785
    """
    return _extent(tableau, -1.0)


def imaginary_stability(tableau: Tableau) -> float:
    """Return the largest x with |R| <= 1 on [-i x, i x]: f_E = i omega y allows dt |omega| <= x.

    Examples
    --------
    >>> round(imaginary_stability(RK4), 3)
    2.828
    """
    return _extent(tableau, 1j)
