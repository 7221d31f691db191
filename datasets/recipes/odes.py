"""Small ordinary differential equations with known invariants: benchmarks for learned dynamics."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from sciml.errors import ConfigError
from sciml.solvers.timestepping import DORMAND_PRINCE, explicit_system, integrate

from ..recipe import MOST, POSITIVE, OdeLayout, Recipe, Trajectory, recipe_registry, relative_difference

__all__ = ["LorenzRecipe", "LotkaVolterraRecipe", "OdeRecipe"]


@dataclass(frozen=True)
class OdeRecipe(Recipe):
    """Base of recipes for y' = f(y): fifth-order Dormand-Prince steps of fixed length, many seeds at once.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    ranges = {"frames": (2, MOST), "final_time": POSITIVE, "step": POSITIVE}  # noqa: RUF012 - read only
    horizon: ClassVar[float] = np.inf
    """Time up to which a chaotic trajectory is compared point by point."""
    statistics_limit: ClassVar[float] = 0.0

    frames: int = 201
    """Stored states, the first included."""
    final_time: float = 20.0
    """Time of the last state."""
    step: float = 0.01
    """Of the integrator."""

    @property
    def times(self) -> np.ndarray:
        """Times of the stored states."""
        return np.linspace(0.0, self.final_time, self.frames)

    @abstractmethod
    def slope(self, y: np.ndarray) -> np.ndarray:
        """Return f, shape (B, d), at states of the same shape."""

    @abstractmethod
    def initial(self, seed: int) -> np.ndarray:
        """Draw an initial state, shape (d,)."""

    @abstractmethod
    def invariant(self, states: np.ndarray) -> dict[str, float]:
        """Return the checks of one trajectory, shape (T, d)."""

    def steps(self) -> float:
        """Return the number of steps, all of one length between two states."""
        intervals = self.frames - 1
        return intervals * float(np.ceil(self.final_time / intervals / self.step * (1 - 1e-9)))

    def sample(self, seed: int) -> Trajectory:
        """Return the trajectory of a seed."""
        return self.sample_batch([seed])[0]

    def sample_batch(self, seeds: Sequence[int], device: str = "cpu") -> list[Trajectory]:
        """Return the trajectories of many seeds."""
        if device != "cpu":
            raise ConfigError(f"device={device!r}: this recipe runs on the CPU only")
        y = np.stack([self.initial(seed) for seed in seeds])
        system = explicit_system(lambda t, y: self.slope(y))
        run = integrate(system, y, self.times, step=self.step, tableau=DORMAND_PRINCE)
        states = np.stack([y for _, y, _ in run], axis=1)
        return [Trajectory({"states": rows}, {}, self.invariant(rows)) for rows in states]

    def refined(self) -> Self:
        """Return the recipe with half the step."""
        # Steps are never longer than the time between two states.
        return replace(self, step=min(self.step, self.final_time / (self.frames - 1)) / 2)

    def compare(self, trajectory: Trajectory, fine: Trajectory) -> dict[str, float]:
        """Compare point by point up to the horizon, by the mean square of the states beyond."""
        inside = int(np.searchsorted(self.times, self.horizon, side="right"))
        measures = {"self_convergence": relative_difference(trajectory, fine, slice(inside))}
        if "statistics" in self.verification_limits():
            ours, theirs = (
                float(np.mean(entry.fields["states"][inside:] ** 2)) for entry in (trajectory, fine)
            )
            measures["statistics"] = abs(ours / theirs - 1)
        return measures

    def verification_limits(self) -> dict[str, float]:
        """Return the accuracy and, beyond the horizon, the limit of the statistics."""
        limits = {"self_convergence": self.accuracy}
        beyond = np.searchsorted(self.times, self.horizon, side="right") < self.frames
        return {**limits, "statistics": self.statistics_limit} if beyond else limits


@recipe_registry.register("lotka-volterra")
@dataclass(frozen=True)
class LotkaVolterraRecipe(OdeRecipe):
    """Predators and prey: periodic orbits around a centre.

    x' = alpha x - beta x y, y' = delta x y - gamma y (Lotka 1925, Volterra 1926), all dimensionless.
    Initial states are uniform in [0.5, 2]^2. V = delta x - gamma log x + beta y - alpha log y is
    conserved; its drift is checked. Dormand-Prince steps of 0.01; stated accuracy 1e-9 relative, at
    T = 20.
    """

    equation = "x' = alpha x - beta x y, y' = delta x y - gamma y"
    check_limits = {"invariant_drift": 1e-9}  # noqa: RUF012 - read only
    accuracy = 1e-9
    ranges = dict.fromkeys(("alpha", "beta", "gamma", "delta"), POSITIVE)

    alpha: float = 2 / 3
    """Growth rate of the prey."""
    beta: float = 4 / 3
    """Predation rate."""
    gamma: float = 1.0
    """Death rate of the predators."""
    delta: float = 1.0
    """Growth of the predators by prey."""

    def layout(self) -> OdeLayout:
        """Return prey and predators."""
        states = {"x": "prey, dimensionless", "y": "predators, dimensionless"}
        parameters = {name: getattr(self, name) for name in ("alpha", "beta", "gamma", "delta")}
        return OdeLayout("lotka-volterra", states, tuple(self.times.tolist()), parameters=parameters)

    def slope(self, y: np.ndarray) -> np.ndarray:
        """Return (alpha x - beta x y, delta x y - gamma y)."""
        prey, predators = y[:, 0], y[:, 1]
        met = prey * predators
        return np.stack(
            [self.alpha * prey - self.beta * met, self.delta * met - self.gamma * predators], axis=1
        )

    def initial(self, seed: int) -> np.ndarray:
        """Draw a state, uniform in [0.5, 2]^2."""
        return np.random.default_rng(seed).uniform(0.5, 2.0, 2)

    def invariant(self, states: np.ndarray) -> dict[str, float]:
        """Return the relative drift of V."""
        x, y = states.T
        with np.errstate(invalid="ignore", divide="ignore"):
            v = self.delta * x - self.gamma * np.log(x) + self.beta * y - self.alpha * np.log(y)
        return {"invariant_drift": float(np.abs(v - v[0]).max() / abs(v[0]))}


@recipe_registry.register("lorenz")
@dataclass(frozen=True)
class LorenzRecipe(OdeRecipe):
    """Lorenz's convection model on and near its strange attractor.

    x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z (Lorenz, J. Atmos. Sci. 20, 130, 1963),
    all dimensionless. Initial states are normal with mean (0, 0, 25) and standard deviation 8. The
    largest Lyapunov exponent is 0.906, so a trajectory is compared point by point over 10 Lyapunov
    times, t <= 11, with a stated accuracy of 1e-4, and by its mean square beyond. Checked: x^2 + y^2 +
    (z - sigma - rho)^2 cannot leave the ball that absorbs every trajectory. Dormand-Prince steps of
    0.002.
    """

    equation = "x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z"
    check_limits = {"absorbing_ball": 1.0}  # noqa: RUF012 - read only
    accuracy = 1e-4
    ranges = dict.fromkeys(("sigma", "rho", "beta"), POSITIVE)
    horizon = 11.0
    statistics_limit = 0.2

    frames: int = 1001
    """Stored states, the first included."""
    step: float = 0.002
    """Of the integrator."""
    sigma: float = 10.0
    """Prandtl number."""
    rho: float = 28.0
    """Reduced Rayleigh number."""
    beta: float = 8 / 3
    """Aspect factor of the cells."""

    def layout(self) -> OdeLayout:
        """Return the three amplitudes."""
        states = {
            "x": "convective motion, dimensionless",
            "y": "horizontal temperature difference, dimensionless",
            "z": "distortion of the vertical temperature profile, dimensionless",
        }
        parameters = {name: getattr(self, name) for name in ("sigma", "rho", "beta")}
        return OdeLayout("lorenz", states, tuple(self.times.tolist()), parameters=parameters)

    def slope(self, y: np.ndarray) -> np.ndarray:
        """Return (sigma (y - x), x (rho - z) - y, x y - beta z)."""
        x, v, z = y[:, 0], y[:, 1], y[:, 2]
        return np.stack([self.sigma * (v - x), x * (self.rho - z) - v, x * v - self.beta * z], axis=1)

    def initial(self, seed: int) -> np.ndarray:
        """Draw a state from N((0, 0, 25), 8^2)."""
        return np.array([0.0, 0.0, 25.0]) + 8.0 * np.random.default_rng(seed).standard_normal(3)

    def invariant(self, states: np.ndarray) -> dict[str, float]:
        """Return the largest squared distance from (0, 0, sigma + rho) over what is allowed.

        With s = min(1, sigma, beta / 2), V = x^2 + y^2 + (z - sigma - rho)^2 obeys
        V' <= -2 s V + beta (sigma + rho)^2 (Sparrow, The Lorenz Equations, 1982, appendix C).
        """
        v = states[:, 0] ** 2 + states[:, 1] ** 2 + (states[:, 2] - self.sigma - self.rho) ** 2
        rate = 2 * min(1.0, self.sigma, self.beta / 2)
        return {
            "absorbing_ball": float((v / max(v[0], self.beta * (self.sigma + self.rho) ** 2 / rate)).max())
        }
