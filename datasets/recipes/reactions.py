"""Reaction and diffusion: Fisher-KPP, Allen-Cahn, Gray-Scott; and Kuramoto-Sivashinsky."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sciml.solvers.spectral import (
    AllenCahn,
    FourierBasis,
    GrayScott,
    KuramotoSivashinsky,
    ReactionDiffusion,
)

from ..random_fields import GaussianRandomField
from ..recipe import NOT_NEGATIVE, POSITIVE, REAL, FieldSpec, recipe_registry
from .periodic import PeriodicRecipe
from .waves import SineWaves

__all__ = ["AllenCahnRecipe", "GrayScottRecipe", "KuramotoSivashinskyRecipe", "ReactionDiffusionRecipe"]

Array = Any  # NumPy array or torch tensor


@recipe_registry.register("reaction-diffusion")
@dataclass(frozen=True)
class ReactionDiffusionRecipe(PeriodicRecipe):
    """Fisher-KPP fronts: PDEBench's one-dimensional reaction-diffusion problem.

    u_t = nu u_xx + rho u (1 - u) on (0, 1), periodic, t in [0, 1]; all dimensionless. u(x, 0) is a sum
    of two sine waves with wavenumbers 1 to 8, scaled to the range [0, 1] (arXiv 2210.07182 takes
    absolute values there, which leave kinks). PDEBench's nu of 0.5 and more flattens it at once; the
    default is 0.002, with rho = 5. The mean grows by rho (u - u^2), which is checked, as is 0 <= u <= 1.
    Solved on 256 points with steps of 1/100. Stated accuracy 1e-6.
    """

    equation = "u_t = nu u_xx + rho u (1 - u) on (0, 1), periodic"
    check_limits = {"balance": 1e-6, "range": 1e-6}  # noqa: RUF012 - read only
    accuracy = 1e-6
    ranges = {"nu": NOT_NEGATIVE, "rho": REAL}  # noqa: RUF012 - read only
    fields = (FieldSpec("u", "concentration, dimensionless"),)

    nu: float = 0.002
    """Diffusivity."""
    rho: float = 5.0
    """Growth rate."""

    def pde(self) -> ReactionDiffusion:
        """Return the equation."""
        return ReactionDiffusion(self.nu, self.rho)

    def parameters(self) -> dict[str, float]:
        """Return diffusivity and growth rate."""
        return {"nu": self.nu, "rho": self.rho}

    def initial(self, seed: int, axes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Draw two sine waves and scale them by their range on a fixed fine grid."""
        wave = SineWaves(seed, 2, (1, 8), (0.0, 1.0), self.length)
        fixed = wave(np.linspace(0, self.length, 4097))
        return ((wave(axes[0]) - fixed.min()) / (fixed.max() - fixed.min()))[None]

    def balance(self, basis: FourierBasis, modes: Array, source: Array | None) -> tuple[Array, Array]:
        """Return mean u and rho (mean u - mean u^2)."""
        mean = basis.mean(modes)[..., 0]
        return mean, self.rho * (mean - basis.inner(modes, modes)[..., 0])

    def more_checks(self, seed: int, values: np.ndarray) -> dict[str, float]:
        """Return how far u leaves [0, 1]."""
        return {"range": float(max(values.max() - 1, -values.min(), 0.0))}


@recipe_registry.register("allen-cahn")
@dataclass(frozen=True)
class AllenCahnRecipe(PeriodicRecipe):
    """Phase separation in two dimensions.

    u_t = epsilon^2 Laplace u + u - u^3 on (0, 1)^2, periodic, t in [0, 10]; all dimensionless. u(x, 0) =
    tanh of a Gaussian random field of unit variance, N(0, s^2 (-Laplace + 225)^-3) without its mean.
    |u| <= 1 and the decay of the free energy, mean epsilon^2 / 2 |grad u|^2 + (1 - u^2)^2 / 4, are
    checked, and the mean of u^2 / 2 against what produces it. Solved on 128 x 128 points with steps of 1/20, stored on
    64 x 64. Stated accuracy 3e-4.
    """

    equation = "u_t = epsilon^2 Laplace u + u - u^3 on (0, 1)^2, periodic"
    check_limits = {"balance": 3e-6, "range": 1e-4, "free_energy_rise": 1e-9}  # noqa: RUF012 - read only
    accuracy = 3e-4
    ranges = {"epsilon": NOT_NEGATIVE}  # noqa: RUF012 - read only
    dim = 2
    fields = (FieldSpec("u", "order parameter, dimensionless"),)

    resolution: int = 64
    """Stored nodes per axis."""
    refine: int = 2
    """The solver's grid is this many times finer than the stored one."""
    final_time: float = 10.0
    """Of the last frame."""
    step: float = 0.05
    """Largest step of the solver."""
    epsilon: float = 0.03
    """Width of the interfaces."""
    tau: float = 15.0
    """Inverse length scale of the initial state."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._field()

    def _field(self) -> GaussianRandomField:
        return GaussianRandomField(3.0, self.tau, "periodic", 2, 16, 1.0)

    def pde(self) -> AllenCahn:
        """Return the equation."""
        return AllenCahn(self.epsilon**2, dim=2)

    def parameters(self) -> dict[str, float]:
        """Return the interface width."""
        return {"epsilon": self.epsilon}

    def initial(self, seed: int, axes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Draw tanh of a random field of unit variance."""
        field = self._field()
        return np.tanh(field.sample(seed, axes) / np.sqrt((field.spectrum() ** 2).sum()))[None]

    def balance(self, basis: FourierBasis, modes: Array, source: Array | None) -> tuple[Array, Array]:
        """Return mean u^2 / 2 and mean u^2 - u^4 - epsilon^2 |grad u|^2."""
        square = basis.inner(modes, modes)[..., 0]
        slopes = [basis.derivative(modes, order) for order in ((1, 0), (0, 1))]
        gradient = sum(basis.inner(slope, slope)[..., 0] for slope in slopes)
        # Exact: the solver's grid has at least 4 m + 1 nodes along each axis.
        quartic = (basis.to_grid(modes) ** 4).mean(axis=(-3, -2, -1))
        return 0.5 * square, square - quartic - self.epsilon**2 * gradient

    def more_checks(self, seed: int, values: np.ndarray) -> dict[str, float]:
        """Return how far |u| exceeds 1, and the largest rise of the free energy between frames."""
        u = values[:, 0]
        k = 2 * np.pi * np.fft.fftfreq(self.resolution, 1 / self.resolution)
        modes = np.abs(np.fft.fft2(u) / self.resolution**2) ** 2
        gradient = (modes * (k[:, None] ** 2 + k**2)).sum(axis=(1, 2))
        energy = self.epsilon**2 / 2 * gradient + ((1 - u**2) ** 2).mean(axis=(1, 2)) / 4
        rise = float(np.maximum(np.diff(energy), 0).max() / energy[0])
        return {"range": float(max(np.abs(u).max() - 1, 0.0)), "free_energy_rise": rise}


@recipe_registry.register("gray-scott")
@dataclass(frozen=True)
class GrayScottRecipe(PeriodicRecipe):
    """Two reacting chemicals that form spots, stripes and mazes.

    A_t = D_A Laplace A - A B^2 + F (1 - A), B_t = D_B Laplace B + A B^2 - (F + k) B on (0, 1)^2,
    periodic, t in [0, 1000]; concentrations dimensionless, times in the units of Pearson (Science 261,
    1993), lengths in half of his: D_A = 8e-5, D_B = 4e-5. At first A = 1 - B is the product of 10 dips
    to 1/2 of random place and width, periodic. F = 0.029, k = 0.057 gives mazes. The mean of A + B is
    checked against what is fed and removed, and 0 <= A, B <= 1. Solved on 128 x 128 points with steps
    of 1, stored on 64 x 64. Stated accuracy 1e-3.
    """

    equation = "A_t = D_A Laplace A - A B^2 + F (1 - A), B_t = D_B Laplace B + A B^2 - (F + k) B, periodic"
    check_limits = {"balance": 1e-5, "range": 1e-3}  # noqa: RUF012 - read only
    accuracy = 1e-3
    ranges = dict.fromkeys(("feed", "kill", "diffusivity_a", "diffusivity_b"), NOT_NEGATIVE)
    dim = 2
    fields = (FieldSpec("A", "concentration of A"), FieldSpec("B", "concentration of B"))

    resolution: int = 64
    """Stored nodes per axis."""
    refine: int = 2
    """The solver's grid is this many times finer than the stored one."""
    final_time: float = 1000.0
    """Of the last frame."""
    step: float = 1.0
    """Largest step of the solver."""
    feed: float = 0.029
    """F."""
    kill: float = 0.057
    """k."""
    diffusivity_a: float = 8e-5
    """D_A."""
    diffusivity_b: float = 4e-5
    """D_B."""

    def pde(self) -> GrayScott:
        """Return the equation."""
        return GrayScott(self.diffusivity_a, self.diffusivity_b, self.feed, self.kill, dim=2)

    def parameters(self) -> dict[str, float]:
        """Return rates and diffusivities."""
        return {"F": self.feed, "k": self.kill, "D_A": self.diffusivity_a, "D_B": self.diffusivity_b}

    def initial(self, seed: int, axes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Draw ten dips, 1 - exp((cos 2 pi (x - c) - 1) / (2 pi w)^2) / 2, the exponential along each axis."""
        rng = np.random.default_rng(seed)
        clear = np.ones(tuple(len(x) for x in axes))
        for _ in range(10):
            width = 2 * np.pi * rng.uniform(0.03, 0.06)
            factors = [np.exp((np.cos(2 * np.pi * (x - rng.uniform())) - 1) / width**2) for x in axes]
            clear *= 1 - 0.5 * np.multiply.outer(*factors)
        return np.stack([clear, 1 - clear])

    def balance(self, basis: FourierBasis, modes: Array, source: Array | None) -> tuple[Array, Array]:
        """Return mean A + B and F (1 - mean A) - (F + k) mean B."""
        mean = basis.mean(modes)
        a, b = mean[..., 0], mean[..., 1]
        return a + b, self.feed * (1 - a) - (self.feed + self.kill) * b

    def more_checks(self, seed: int, values: np.ndarray) -> dict[str, float]:
        """Return how far a concentration leaves [0, 1]."""
        return {"range": float(max(values.max() - 1, -values.min(), 0.0))}


@recipe_registry.register("kuramoto-sivashinsky")
@dataclass(frozen=True)
class KuramotoSivashinskyRecipe(PeriodicRecipe):
    """Spatio-temporal chaos in one dimension.

    u_t + u u_x + u_xx + u_xxxx = 0 on (0, 64), periodic, t in [0, 100]; all dimensionless. u(x, 0) is a
    sum of 10 sine waves with wavenumbers 1 to 3, amplitudes uniform in [-1/2, 1/2] and random phases
    (arXiv 2202.07643). The largest Lyapunov exponent is about 0.09 at this length (Edson et al., ANZIAM
    J. 61, 2019): trajectories are compared point by point over t <= 50, 4.5 Lyapunov times, to a stated
    accuracy of 1e-3, and by their mean square beyond. The mean is conserved, and the mean of u^2 / 2 is
    checked against production by u_x^2 and dissipation by u_xx^2. Solved on 256 points with steps of 1/50.
    """

    equation = "u_t + u u_x + u_xx + u_xxxx = 0 on (0, L), periodic"
    check_limits = {"balance": 1e-4, "mean_drift": 1e-12}  # noqa: RUF012 - read only
    accuracy = 1e-3
    ranges = {"period": POSITIVE}  # noqa: RUF012 - read only
    horizon = 50.0
    statistics_limit = 0.5
    fields = (FieldSpec("u", "slope of a flame front, dimensionless"),)
    conserves_mean = True

    frames: int = 101
    """Stored times, the first included."""
    final_time: float = 100.0
    """Of the last frame."""
    step: float = 0.02
    """Largest step of the solver."""
    period: float = 64.0
    """L."""

    @property
    def length(self) -> float:
        """L."""
        return self.period

    def pde(self) -> KuramotoSivashinsky:
        """Return the equation."""
        return KuramotoSivashinsky()

    def parameters(self) -> dict[str, float]:
        """Return the period."""
        return {"L": self.period}

    def initial(self, seed: int, axes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Draw ten sine waves."""
        return SineWaves(seed, 10, (1, 3), (-0.5, 0.5), self.length)(axes[0])[None]

    def balance(self, basis: FourierBasis, modes: Array, source: Array | None) -> tuple[Array, Array]:
        """Return mean u^2 / 2 and mean u_x^2 - mean u_xx^2."""
        slope, bend = basis.derivative(modes, (1,)), basis.derivative(modes, (2,))
        rate = basis.inner(slope, slope) - basis.inner(bend, bend)
        return 0.5 * basis.inner(modes, modes)[..., 0], rate[..., 0]
