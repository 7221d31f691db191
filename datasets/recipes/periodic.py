"""Base of the recipes on periodic boxes, solved by a pseudo-spectral method, on CPU or GPU."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from scipy.interpolate import make_interp_spline

from sciml.errors import ConfigError
from sciml.solvers.grid import CartesianGrid
from sciml.solvers.spectral import FourierBasis, SpectralEquation, SpectralSolver

from ..recipe import (
    MOST,
    POSITIVE,
    FieldsLayout,
    FieldSpec,
    Recipe,
    Trajectory,
    recipe_registry,
    relative_difference,
)

__all__ = ["PeriodicRecipe"]

Array = Any  # NumPy array or torch tensor


@dataclass(frozen=True)
class PeriodicRecipe(Recipe):
    """A periodic equation from random initial states: Fourier-Galerkin in space, ETDRK4 in time.

    A subclass declares its equation, its initial states, and a *balance*: a quantity Q of the state
    with dQ/dt = R. The drift of Q - integral of R (of a quintic spline through the steps) is a check of
    every trajectory, relative to the largest |Q|.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    ranges = {  # noqa: RUF012 - read only
        "resolution": (8, MOST),
        "refine": (1, MOST),
        "frames": (2, MOST),
        "final_time": POSITIVE,
        "step": POSITIVE,
    }
    dim: ClassVar[int] = 1
    fields: ClassVar[tuple[FieldSpec, ...]]
    conserves_mean: ClassVar[bool] = False
    horizon: ClassVar[float] = np.inf
    """Time up to which a chaotic trajectory is compared point by point."""
    statistics_limit: ClassVar[float] = 0.0
    """Largest relative difference of the mean square of all frames beyond the horizon."""

    resolution: int = 256
    """Stored nodes per axis; x_j = j L / resolution."""
    refine: int = 1
    """The solver's grid is this many times finer than the stored one."""
    frames: int = 51
    """Stored times, the first included."""
    final_time: float = 1.0
    """Of the last frame."""
    step: float = 1e-2
    """Largest step of the solver."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pde()

    @property
    def length(self) -> float:
        """Length of the box along each axis."""
        return 1.0

    @abstractmethod
    def pde(self) -> SpectralEquation:
        """Return the equation."""

    @abstractmethod
    def initial(self, seed: int, axes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Draw an initial state, shape (components, *space), on any grid of the box."""

    @abstractmethod
    def balance(self, basis: FourierBasis, modes: Array, source: Array | None) -> tuple[Array, Array]:
        """Return Q and R of states, and of the source, in Fourier space, each of shape (B,)."""

    def forcing(self, axes: tuple[np.ndarray, ...]) -> np.ndarray | None:
        """Return a source that does not change in time, shape (components, *space), or None."""
        return None

    def more_checks(self, seed: int, values: np.ndarray) -> dict[str, float]:
        """Return further checks of one trajectory, shape (frames, components, *space)."""
        return {}

    def parameters(self) -> dict[str, float]:
        """Return the numbers of the equation, for the file's header."""
        return {}

    @property
    def times(self) -> np.ndarray:
        """Of the stored frames."""
        return np.linspace(0.0, self.final_time, self.frames)

    def grid(self, refine: int = 1) -> CartesianGrid:
        """Return the stored grid, or a finer one."""
        upper = (self.length,) * self.dim
        return CartesianGrid.uniform(self.resolution * refine, (0.0,) * self.dim, upper, periodic=True)

    def layout(self) -> FieldsLayout:
        """Return the fields at the stored times; the task is to predict later frames from earlier ones."""
        return FieldsLayout(
            name=str(recipe_registry.name_of(type(self))),
            grid=self.grid(),
            fields=self.fields,
            times=tuple(self.times.tolist()),
            steady=False,
            parameters=self.parameters(),
            inputs=tuple(spec.name for spec in self.fields),
            targets=tuple(spec.name for spec in self.fields),
        )

    def working_memory(self, batch: int) -> float:
        """Estimate from measurements: states in work, frames, the initial state's basis, the monitor."""
        components, modes = len(self.fields), 2 * getattr(self, "modes", 0)
        nodes = self.resolution * self.refine
        state = (
            60.0 * components * nodes**self.dim + 20.0 * components * self.frames * self.resolution**self.dim
        )
        basis = 24.0 * nodes * modes + 32.0 * modes**self.dim
        return batch * state + basis + (900 + 420 * batch) * self.steps()

    def steps(self) -> float:
        """Return the number of steps, all of one length between two frames."""
        intervals = self.frames - 1
        return intervals * float(np.ceil(self.final_time / intervals / self.step * (1 - 1e-9)))

    def sample(self, seed: int) -> Trajectory:
        """Return the trajectory of a seed."""
        return self.sample_batch([seed])[0]

    def sample_batch(self, seeds: Sequence[int], device: str = "cpu") -> list[Trajectory]:
        """Return the trajectories of many seeds, solved together; the device is torch's, or "cpu"."""
        fine = self.grid(self.refine)
        u0: Array = np.stack([self.initial(seed, fine.axes) for seed in seeds])
        source: Array = self.forcing(fine.axes)
        if device != "cpu":
            u0, source = _to_device(u0, device), None if source is None else _to_device(source, device)
        solver = SpectralSolver(self.pde(), fine, step=self.step, source=source)
        forced = None if source is None else solver.basis.to_modes(source)
        clock: list[float] = []
        # Arrays of the device: fetching them here would make it wait at every step.
        history: list[tuple[Array, Array]] = []
        means: list[Array] = []

        def monitor(t: float, modes: Array) -> None:
            clock.append(t)
            # A member that blows up overflows here first.
            with np.errstate(all="ignore"):
                history.append(self.balance(solver.basis, modes, forced))
            # Of the series: the stored nodes may be too few for their mean to be it.
            # Without a copy, a view would keep the modes of every step.
            means.append(solver.basis.mean(modes) + 0.0)

        run = solver.frames(u0, self.times, resolution=self.resolution, monitor=monitor, on_blowup="keep")
        # (B, T, components, *space)
        values = np.stack([_to_numpy(u) for _, u in run], axis=1)
        with np.errstate(invalid="ignore", over="ignore"):
            quantity, rate = (
                np.stack([_to_numpy(part) for part in parts]) for parts in zip(*history, strict=True)
            )
            drift = quantity - quantity[0] - _integrals(rate, np.array(clock))
            checks = {"balance": np.abs(drift).max(axis=0) / np.abs(quantity).max(axis=0)}
            if self.conserves_mean:
                mean = np.stack([_to_numpy(values) for values in means], axis=1)
                scale = np.sqrt((values**2).mean(axis=tuple(range(1, values.ndim))))
                checks["mean_drift"] = np.abs(mean - mean[:, :1]).max(axis=(1, 2)) / scale
        return [
            Trajectory(
                {spec.name: rows[:, c] for c, spec in enumerate(self.fields)},
                {},
                {name: float(check[b]) for name, check in checks.items()} | self.more_checks(seed, rows),
            )
            for b, (seed, rows) in enumerate(zip(seeds, values, strict=True))
        ]

    def refined(self) -> Self:
        """Return the recipe on a grid twice as fine with half the step."""
        # Steps are never longer than the time between two frames.
        step = min(self.step, self.final_time / (self.frames - 1))
        return replace(self, refine=2 * self.refine, step=step / 2)

    def compare(self, trajectory: Trajectory, fine: Trajectory) -> dict[str, float]:
        """Compare point by point up to the horizon, by the mean square of all frames beyond."""
        inside = int(np.searchsorted(self.times, self.horizon, side="right"))
        measures = {"self_convergence": relative_difference(trajectory, fine, slice(inside))}
        if "statistics" in self.verification_limits():
            names = [spec.name for spec in self.fields]
            ours, theirs = (
                np.array(
                    [np.mean(np.asarray(entry.fields[name][inside:], dtype=float) ** 2) for name in names]
                )
                for entry in (trajectory, fine)
            )
            measures["statistics"] = float(np.abs(ours / theirs - 1).max())
        return measures

    def verification_limits(self) -> dict[str, float]:
        """Return the accuracy and, where frames lie beyond the horizon, the limit of the statistics."""
        limits = {"self_convergence": self.accuracy}
        beyond = np.searchsorted(self.times, self.horizon, side="right") < self.frames
        return {**limits, "statistics": self.statistics_limit} if beyond else limits


def _integrals(rates: np.ndarray, clock: np.ndarray) -> np.ndarray:
    """Integrate from the first time to every other, shape (times, B): of splines of degree 5 or less.

    One member at a time: a batch is the loop bit for bit, and one that has blown up is alone with it.
    """
    result = np.full(rates.shape, np.nan)
    for b, rate in enumerate(rates.T):
        if np.isfinite(rate).all():
            primitive = make_interp_spline(clock, rate, k=min(5, len(clock) - 1)).antiderivative()(clock)
            result[:, b] = primitive - primitive[0]
    return result


def _to_device(values: np.ndarray, device: str) -> Array:
    import torch

    try:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"device={device!r} cannot be used ({str(error).splitlines()[0]}): try 'cpu'"
        ) from error


def _to_numpy(values: Array) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()
