"""Pseudo-spectral solution of periodic equations: Galerkin truncation, products on a grid, ETDRK4 or IMEX."""

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Real
from typing import Any, Literal

import numpy as np
import scipy.fft
from array_api_compat import array_namespace, device, is_numpy_array

from sciml.errors import ConfigError, ConvergenceError

from ..exponential import ETDRK4
from ..grid import CartesianGrid
from ..timestepping import ARK4, Stage
from ..timestepping import step as runge_kutta_step
from .basis import FourierBasis
from .equation import SpectralEquation
from .replay import Replay
from .transforms import Transforms

__all__ = ["SpectralSolver"]

Array = Any  # NumPy array, torch tensor, ...
Source = Array | Callable[..., Array]

_ARK4 = replace(ARK4, b_hat=None, embedded_order=None)
# Bytes of the values of a block of the batch: with the temporaries it fills a cache, and these are small
# enough to be allocated without new pages. Twice as many where a call takes twice as long.
_BLOCK = 1 << 17
# Steps of a run that would take for ever; a member of the batch that asks for so many within an interval,
# for step="cfl", has no say in their size.
_MOST_STEPS = 2.0**30
# Steps between checks of the state, which cost about as much as a tenth of a step.
_CHECK = 16
# Steps of different length whose weights are kept; a step's take as much memory as six states.
_KEPT = 4


class SpectralSolver:
    """Solve an equation on a periodic grid for a batch of initial states.

    The state is the truncated Fourier series of `basis`, and the solution that of the Galerkin system:
    L is exact, and so are products, which are formed on M points along each axis, where no wavenumber
    aliases to a retained one if M >= (degree + 1) m + 1.

    States in NumPy arrays take compiled kernels where numba is installed (extra ``fast``): about twice as
    fast, the same to rounding. M must have no factors but 2, 3 and 5 and be even along the last axis, with
    64 points at least, 1024 at most in one dimension, and m >= 7 along the last axis in two or three. The
    first run in an environment compiles for some seconds.

    Parameters
    ----------
    equation : SpectralEquation
    grid : CartesianGrid
        With n nodes along each axis, all of them periodic.
    step : float or "cfl"
        Largest step: each time interval is divided into equal ones. With "cfl", every step is the
        interval over a power of two such that step * sum_d |u_d| / h_d <= cfl, for the fastest member of
        the batch, whose steps all take; one that asks for more than 2^30 steps counts as blown up.
    method : {"etdrk4", "imex"}
        Exponential time differencing, or ARK4(3)6L[2]SA with L implicit. Both are of fourth order;
        the former takes 4 evaluations of N a step and has the smaller error, the latter takes 6.
    dealias : {"2/3", "padded", "none"}
        "2/3": M = n and m = (n - 1) // (degree + 1). "padded": m = (n - 1) // 2, all modes but Nyquist's,
        and M a fast length. "none": m = (n - 1) // 2 and M = n, with aliasing.
    source : array or callable, optional
        Added to the right-hand side: an array of shape (components, *nodes), constant in time, or a
        function of (t, x, ...) that returns one (or a number, or for one component shape (*nodes)), given
        t and arrays of coordinates of shape (*nodes).
    cfl : float
        For step="cfl". Explicit stages are stable up to about 1.3.

    Attributes
    ----------
    basis : FourierBasis
        The retained modes.

    Raises
    ------
    ConfigError
        If an argument cannot be used.

    Examples
    --------
    >>> from sciml.solvers.spectral import Burgers
    >>> grid = CartesianGrid((0.0,), (2 * np.pi,), (64,), (True,))
    >>> solver = SpectralSolver(Burgers(0.1), grid, step=0.05)
    >>> solver.run(np.sin(grid.axes[0])[None], [0.0, 0.5, 1.0]).shape
    (3, 1, 64)
    """

    def __init__(
        self,
        equation: SpectralEquation,
        grid: CartesianGrid,
        *,
        step: float | Literal["cfl"],
        method: Literal["etdrk4", "imex"] = "etdrk4",
        dealias: Literal["2/3", "padded", "none"] = "2/3",
        source: Source | None = None,
        cfl: float = 0.5,
    ) -> None:
        if not isinstance(equation, SpectralEquation):
            raise ConfigError(f"equation={equation!r}: give a SpectralEquation such as Burgers(0.01)")
        if grid.dim != equation.dim:
            raise ConfigError(f"grid with {grid.dim} axes: {type(equation).__name__} has dim={equation.dim}")
        if method not in ("etdrk4", "imex"):
            raise ConfigError(f"method={method!r}: choose 'etdrk4' or 'imex'")
        if dealias not in ("2/3", "padded", "none"):
            raise ConfigError(f"dealias={dealias!r}: choose '2/3', 'padded' or 'none'")
        if step == "cfl":
            if not equation.advective:
                raise ConfigError(f"step='cfl': {type(equation).__name__} has no velocity, so give a number")
        elif not isinstance(step, Real) or not 0 < step < math.inf:
            raise ConfigError(f"step={step!r}: give a positive number or 'cfl'")
        if not 0 < cfl < math.inf:
            raise ConfigError(f"cfl={cfl}: it must be positive and finite")
        parts = equation.degree + 1
        if min(grid.shape) <= parts:
            raise ConfigError(
                f"grid with {grid.shape} nodes: {type(equation).__name__} needs {parts + 1} per axis"
            )
        divisor = parts if dealias == "2/3" else 2
        self.equation, self.grid, self.step, self.cfl = equation, grid, step, float(cfl)
        self.method, self.dealias, self.source = method, dealias, source
        self.basis = FourierBasis(grid, tuple((n - 1) // divisor for n in grid.shape))
        self.nodes = grid.shape
        """Points of the product grid along each axis, M."""
        if dealias == "padded" and equation.degree > 1:
            least = [parts * m + 1 for m in self.basis.modes]
            # Even along the last axis: real lines of odd length are slow.
            last = 2 * scipy.fft.next_fast_len(-(-least.pop() // 2), real=True)
            self.nodes = (*(scipy.fft.next_fast_len(n, real=True) for n in least), last)
        self._runs: dict[str, _Run] = {}
        if callable(source):
            _require_signature(source, grid.dim)
        shape = (equation.components, *grid.shape)
        if source is not None and not callable(source) and tuple(getattr(source, "shape", ())) != shape:
            # A list or a number has no shape, and a ragged list not even for NumPy.
            found = (
                f"shape {tuple(source.shape)}"
                if hasattr(source, "shape")
                else f"type {type(source).__name__}"
            )
            raise ConfigError(
                f"source of {found}: give a function, or an array of shape {shape}, components and nodes"
            )

    def frames(
        self,
        u0: Array,
        times: Sequence[float] | np.ndarray,
        *,
        resolution: int | Sequence[int] | None = None,
        monitor: Callable[[float, Array], None] | None = None,
        on_blowup: Literal["raise", "keep"] = "raise",
    ) -> Iterator[tuple[float, Array]]:
        """Yield (t, u) at every time, the first included.

        Parameters
        ----------
        u0 : array, shape (*batch, components, *nodes)
            State at times[0] on the grid, in single or double precision, which the run keeps, as it
            does library and device. Truncated to the retained modes before it is yielded.
        times : sequence of float, increasing
        resolution : int or sequence of int, optional
            Yield the solution at this many nodes per axis instead of the grid's; see `FourierBasis.to_grid`.
        monitor : callable, optional
            Called with t and the modes, of shape (*batch, components, *mode_shape), at times[0] and after
            every step. It must not change them.
        on_blowup : {"raise", "keep"}
            What to do when a state is not finite: raise a ConvergenceError, or go on with NaN in the
            members of the batch concerned and nowhere else.

        Raises
        ------
        ConfigError
            If an argument cannot be used; like the other, when the first item is asked for or later.
        ConvergenceError
            If a state is not finite; found within 16 steps.

        Examples
        --------
        >>> from sciml.solvers.spectral import AdvectionDiffusion
        >>> grid = CartesianGrid((0.0,), (1.0,), (8,), (True,))
        >>> solver = SpectralSolver(AdvectionDiffusion((1.0,), 0.0), grid, step=0.5)
        >>> u0 = np.sin(2 * np.pi * grid.axes[0])[None]
        >>> [(t, bool(np.allclose(u, u0))) for t, u in solver.frames(u0, [0, 0.5, 1])]
        [(0.0, True), (0.5, False), (1.0, True)]
        """
        clock, nodes = self._validated(u0, times, resolution, on_blowup)
        xp = array_namespace(u0)
        batch = tuple(u0.shape[: -self.grid.dim - 1])
        flat = xp.reshape(u0, (-1, *u0.shape[-self.grid.dim - 1 :]))
        run = _Run(self, flat)
        modes = self.basis.to_modes(flat)

        def shaped(values: Array) -> Array:
            return xp.reshape(values, (*batch, *values.shape[1:]))

        if monitor is not None:
            monitor(float(clock[0]), shaped(modes))
        yield float(clock[0]), shaped(self.basis.to_grid(modes, nodes))
        count = 0
        for start, end in itertools.pairwise(clock.tolist()):
            done, length = Fraction(0), end - start
            while done < 1:
                # What NumPy would warn of shows in the state.
                with np.errstate(all="ignore"):
                    part = run.part(modes, length, done)
                    t = start + float(done) * length
                    modes = run.advance(t, modes, float(part) * length)
                    done, count = done + part, count + 1
                    if done == 1 or count % _CHECK == 0:
                        self.basis.symmetrise(modes)
                        if on_blowup == "raise":
                            _require_finite(modes, t, float(part) * length)
                if monitor is not None:
                    monitor(end if done == 1 else start + float(done) * length, shaped(modes))
            with np.errstate(all="ignore"):
                values = shaped(self.basis.to_grid(modes, nodes))
            yield end, values

    def rate(self, u: Array, t: float = 0.0) -> Array:
        """Return u_t of states on the grid, as the equation has it for their retained modes.

        Torch records gradients through it.

        Parameters
        ----------
        u : array, shape (*batch, components, *nodes)
            In single or double precision.
        t : float
            For a source that changes in time.

        Raises
        ------
        ConfigError
            If the shape or the precision is another.

        Examples
        --------
        >>> from sciml.solvers.spectral import AdvectionDiffusion
        >>> grid = CartesianGrid((0.0,), (2 * np.pi,), (8,), (True,))
        >>> solver = SpectralSolver(AdvectionDiffusion((1.0,), 0.0), grid, step=0.5)
        >>> bool(np.allclose(solver.rate(np.sin(grid.axes[0])[None]), -np.cos(grid.axes[0])))
        True
        """
        xp, wanted = self._require_states("u", u), (self.equation.components, *self.grid.shape)
        flat = xp.reshape(u, (-1, *wanted))
        key = str((xp.__name__, u.dtype, device(u)))
        if key not in self._runs:
            self._runs[key] = _Run(self, flat)
        run = self._runs[key]
        modes = self.basis.to_modes(flat)
        change = run.linear * modes + run.rate(t, modes)
        return xp.reshape(self.basis.to_grid(change), u.shape)

    def run(
        self,
        u0: Array,
        times: Sequence[float] | np.ndarray,
        *,
        resolution: int | Sequence[int] | None = None,
        monitor: Callable[[float, Array], None] | None = None,
        on_blowup: Literal["raise", "keep"] = "raise",
    ) -> Array:
        """Return all frames in one array, shape (*batch, frames, components, *nodes); see `frames`.

        Examples
        --------
        >>> from sciml.solvers.spectral import AllenCahn
        >>> grid = CartesianGrid((0.0,), (1.0,), (8,), (True,))
        >>> solver = SpectralSolver(AllenCahn(0.01), grid, step=0.1)
        >>> solver.run(np.ones((5, 1, 8)), [0.0, 1.0], resolution=16).shape
        (5, 2, 1, 16)
        """
        every = self.frames(u0, times, resolution=resolution, monitor=monitor, on_blowup=on_blowup)
        # First of all, so that u0 is checked before its library is asked for.
        frames = [u for _, u in every]
        return array_namespace(u0).stack(frames, axis=-self.grid.dim - 2)

    def _require_states(self, name: str, u: Any) -> Any:
        """Check states; return their library."""
        if not hasattr(u, "dtype"):
            raise ConfigError(f"{name} of type {type(u).__name__}: give an array")
        xp, wanted = array_namespace(u), (self.equation.components, *self.grid.shape)
        if tuple(u.shape[-len(wanted) :]) != wanted or 0 in tuple(u.shape):
            raise ConfigError(
                f"{name} of shape {tuple(u.shape)}: give (*batch, {', '.join(map(str, wanted))})"
            )
        if u.dtype not in (xp.float32, xp.float64):
            raise ConfigError(f"{name} of dtype {u.dtype}: give float32 or float64")
        return xp

    def _validated(
        self, u0: Array, times: Any, resolution: int | Sequence[int] | None, on_blowup: str
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        xp = self._require_states("u0", u0)
        if not bool(xp.all(xp.isfinite(u0))):
            raise ConfigError("u0 contains NaN or infinity: give a finite initial state")
        clock = np.asarray(times, dtype=float)
        if clock.ndim != 1 or not (len(clock) and np.isfinite(clock).all() and (np.diff(clock) > 0).all()):
            raise ConfigError(f"times={clock}: give finite times in increasing order")
        span = float(clock[-1] - clock[0])
        if isinstance(self.step, Real) and span / self.step > _MOST_STEPS:
            raise ConfigError(
                f"step={self.step:g}: times that span {span:g} would take {span / self.step:.1e} steps, take "
                "longer ones"
            )
        if on_blowup not in ("raise", "keep"):
            raise ConfigError(f"on_blowup={on_blowup!r}: choose 'raise' or 'keep'")
        if resolution is None:
            return clock, self.grid.shape
        nodes = tuple(np.atleast_1d(resolution).tolist())
        nodes = nodes * self.grid.dim if np.ndim(resolution) == 0 else nodes
        if len(nodes) != self.grid.dim or not all(type(n) is int and n >= 1 for n in nodes):
            raise ConfigError(f"resolution={resolution}: give one number of nodes, or one for each axis")
        return clock, nodes


def _require_signature(source: Callable[..., Array], dim: int) -> None:
    arguments = ("t", "x", "y", "z")[: dim + 1]
    try:
        inspect.signature(source).bind(*arguments)
    except TypeError as error:
        raise ConfigError(f"source cannot be called with ({', '.join(arguments)}): {error}") from error
    except ValueError:
        # Some built-in functions do not tell.
        return


def _require_finite(modes: Array, t: float, step: float) -> None:
    xp = array_namespace(modes)
    good = xp.all(xp.isfinite(modes), axis=tuple(range(1, modes.ndim)))
    if not bool(xp.all(good)):
        members = [b for b, fine in enumerate(good.tolist()) if not fine]
        raise ConvergenceError(
            f"the state became NaN or infinite near t={t:.9g} with a step of {step:.3g}, in members "
            f"{members} of the batch: take a smaller step, or on_blowup='keep'"
        )


@dataclass(frozen=True)
class _Split:
    """The equation as integrators of `timestepping` see it, with L implicit."""

    linear: Array
    function: Callable[[float, Array], Array]

    def explicit(self, stage: Stage, y: Array) -> Array:
        return self.function(stage.time, y)

    def implicit(self, stage: Stage, y: Array) -> Array:
        return self.linear * y

    def solve(self, stage: Stage, rhs: Array, shift: float, guess: Array) -> Array:
        return rhs / (1 - shift * self.linear)


class _Run:
    """A solver at work on states of one library, precision and device."""

    def __init__(self, solver: SpectralSolver, u0: Array) -> None:
        self.solver, basis = solver, solver.basis
        self.transforms = Transforms(basis, solver.nodes, u0)
        self.term = solver.equation.nonlinear(self.transforms)
        shape = (solver.equation.components, *basis.mode_shape)
        symbol = np.broadcast_to(solver.equation.symbol(basis.wavenumbers), shape)
        self.linear = self.transforms.factor(symbol)
        self.methods: dict[str, tuple[float, ETDRK4 | None, Replay | None]] = {}
        self.forcing: dict[float, Array] = {}
        self.coordinates: list[Array] = []
        if callable(solver.source):
            self.coordinates = [self.transforms.array(x) for x in np.moveaxis(solver.grid.nodes(), -1, 0)]
        elif solver.source is not None:
            self.constant = basis.to_modes(self.transforms.array(solver.source))
        # A source that changes in time changes the operations.
        self.replayed = getattr(u0, "is_cuda", False) and not callable(solver.source)
        on_cpu = str(device(u0)) == "cpu"
        room = _BLOCK if is_numpy_array(u0) else 2 * _BLOCK
        self.block = max(1, room // u0[0, ...].nbytes) if on_cpu else u0.shape[0]

    def advance(self, t: float, modes: Array, dt: float) -> Array:
        """Return the modes one step later."""
        if modes.shape[0] <= self.block:
            return self._advance(t, modes, dt)
        blocks = range(0, modes.shape[0], self.block)
        return array_namespace(modes).concat(
            [self._advance(t, modes[b : b + self.block], dt) for b in blocks]
        )

    def _advance(self, t: float, modes: Array, dt: float) -> Array:
        # Steps of intervals that differ by rounding are one: they share length, coefficients and recording.
        key = f"{dt:.12e}"
        if key not in self.methods:
            # Irregular intervals would pile them up.
            if len(self.methods) == _KEPT:
                del self.methods[next(iter(self.methods))]
            method = None if self.solver.method == "imex" else ETDRK4(self.linear, dt)
            self.methods[key] = dt, method, Replay() if self.replayed else None
        dt, method, replay = self.methods[key]

        def step(modes: Array) -> Array:
            if method is None:
                return runge_kutta_step(_ARK4, _Split(self.linear, self.rate), t, modes, dt)[0]
            return method.step(t, modes, self.rate)

        return step(modes) if replay is None else replay(step, modes)

    def rate(self, t: float, modes: Array) -> Array:
        """Return N and the source."""
        change = self.term(modes)
        if self.solver.source is not None:
            change += self._source(t)
        return change

    def _source(self, t: float) -> Array:
        if not callable(self.solver.source):
            return self.constant
        if t not in self.forcing:
            # The stages of a step need three times at most, or six; blocks of the batch share them.
            if len(self.forcing) == 6:
                del self.forcing[next(iter(self.forcing))]
            values = self.solver.source(t, *self.coordinates)
            if values is None:
                raise ConfigError("source returns None: return an array, of components and nodes")
            values = self.transforms.array(values)
            nodes = self.solver.grid.shape
            shape = (self.solver.equation.components, *nodes)
            # Values at the nodes alone could be meant for any of several components.
            if tuple(values.shape) not in ((), shape, *([nodes] if shape[0] == 1 else [])):
                raise ConfigError(
                    f"source returns shape {tuple(values.shape)}: return {shape}, components and nodes"
                )
            xp = array_namespace(values)
            if not bool(xp.all(xp.isfinite(values))):
                raise ConfigError(f"source returns NaN or infinity at t={t:.9g}: return finite values")
            values = xp.broadcast_to(values, shape)
            self.forcing[t] = self.solver.basis.to_modes(values)
        return self.forcing[t]

    def part(self, modes: Array, length: float, done: Fraction) -> Fraction:
        """Return the next step as a part of the interval of which `done` is behind."""
        if not isinstance(self.solver.step, str):
            return Fraction(1, max(1, math.ceil(length / self.solver.step * (1 - 1e-9))))
        xp, dim = array_namespace(modes), self.solver.grid.dim
        flow = xp.abs(self.solver.equation.flow(self.transforms, modes))
        rates = sum(flow[:, d] / h for d, h in enumerate(self.solver.grid.spacing))
        fastest = xp.max(rates, axis=tuple(range(-dim, 0)))
        wanted = [rate * length / self.solver.cfl for rate in fastest.tolist()]
        # A member that has blown up, or is about to, must not hold up the others.
        steps = max((n for n in wanted if n < _MOST_STEPS), default=1.0)
        halvings = math.ceil(math.log2(max(steps, 1.0)) - 1e-9)
        part = Fraction(1, 2**halvings)
        while (done / part).denominator > 1:
            part /= 2
        return part
