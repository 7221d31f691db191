"""Transport in one dimension: advection, Burgers, Korteweg-de Vries."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sciml.errors import ConfigError
from sciml.solvers.spectral import AdvectionDiffusion, Burgers, FourierBasis, KortewegDeVries

from ..random_fields import GaussianRandomField
from ..recipe import MOST, NOT_NEGATIVE, POSITIVE, REAL, FieldSpec, recipe_registry
from .periodic import PeriodicRecipe
from .waves import SineWaves

__all__ = ["AdvectionRecipe", "BurgersRecipe", "KdvRecipe"]

Array = Any  # NumPy array or torch tensor
PASSAGES = 20


@recipe_registry.register("advection")
@dataclass(frozen=True)
class AdvectionRecipe(PeriodicRecipe):
    """Linear advection: PDEBench's simplest problem, with a closed form.

    u_t + beta u_x = 0 on (0, 1), periodic, t in [0, 2]; all dimensionless. u(x, 0) is the sum of two
    sine waves with wavenumbers 1 to 8, amplitudes uniform in [0, 1] and random phases (arXiv
    2210.07182, without its random windows and absolute values). The Fourier modes are advanced
    exactly, whatever the step: every trajectory is compared with u(x - beta t, 0). Stated accuracy 1e-6 (float32).
    """

    equation = "u_t + beta u_x = 0 on (0, 1), periodic"
    check_limits = {"balance": 1e-12, "mean_drift": 1e-12, "closed_form": 1e-12}  # noqa: RUF012 - read only
    accuracy = 1e-6
    # The waves have wavenumbers up to 8.
    ranges = {"resolution": (18, MOST), "beta": REAL}  # noqa: RUF012 - read only
    fields = (FieldSpec("u", "transported quantity, dimensionless"),)
    conserves_mean = True

    frames: int = 41
    """Stored times, the first included."""
    final_time: float = 2.0
    """Of the last frame."""
    step: float = 0.05
    """Largest step of the solver."""
    beta: float = 0.4
    """Velocity."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # Rounding of the phases, relative to which the wave is compared, grows with them.
        if abs(self.beta) * self.final_time > PASSAGES:
            raise ConfigError(
                f"advection beta={self.beta}, final_time={self.final_time}: the wave crosses the box more than "
                f"{PASSAGES} times, beyond which rounding spoils its phases; take less of one"
            )

    def pde(self) -> AdvectionDiffusion:
        """Return the equation."""
        return AdvectionDiffusion((self.beta,), 0.0)

    def parameters(self) -> dict[str, float]:
        """Return the velocity."""
        return {"beta": self.beta}

    def _wave(self, seed: int) -> SineWaves:
        return SineWaves(seed, 2, (1, 8), (0.0, 1.0), self.length)

    def initial(self, seed: int, axes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Draw two sine waves."""
        return self._wave(seed)(axes[0])[None]

    def balance(self, basis: FourierBasis, modes: Array, source: Array | None) -> tuple[Array, Array]:
        """Return mean u^2, which is conserved."""
        energy = basis.inner(modes, modes)[..., 0]
        return energy, 0 * energy

    def more_checks(self, seed: int, values: np.ndarray) -> dict[str, float]:
        """Return the largest difference to u(x - beta t, 0), over the largest |u|."""
        wave = self._wave(seed)
        x = self.grid().axes[0] - self.beta * self.times[:, None]
        return {"closed_form": float(np.abs(values[:, 0] - wave(x)).max() / np.abs(values[0]).max())}


@recipe_registry.register("burgers")
@dataclass(frozen=True)
class BurgersRecipe(PeriodicRecipe):
    """Burgers' equation from a Gaussian random field: the problem of the FNO paper, made well defined.

    u_t + (u^2 / 2)_x = nu u_xx on (0, 1), periodic, t in [0, 1]; all dimensionless. u(x, 0) is drawn
    from N(0, 625 (-Laplace + 25)^-2) with its mean removed (arXiv 2010.08895). That paper states nu =
    0.1, with which the unit interval decays to almost nothing by t = 1 and which its files do not
    match; the default is 0.01, so compare with its errors as "a similar problem". Solved on 512
    points with steps of 1/1000, stored on 256. The mean is conserved, and the mean of u^2 / 2 falls by
    nu u_x^2: both are checked. Stated accuracy 1e-6.
    """

    equation = "u_t + (u^2 / 2)_x = nu u_xx on (0, 1), periodic"
    check_limits = {"balance": 2e-4, "mean_drift": 1e-12}  # noqa: RUF012 - read only
    accuracy = 1e-6
    ranges = {"viscosity": NOT_NEGATIVE}  # noqa: RUF012 - read only
    fields = (FieldSpec("u", "velocity, dimensionless"),)
    conserves_mean = True

    refine: int = 2
    """The solver's grid is this many times finer than the stored one."""
    step: float = 1 / 1000
    """Largest step of the solver."""
    viscosity: float = 0.01
    """nu."""
    modes: int = 100
    """Wavenumbers in the initial state; the same at every resolution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._field()
        # The solver keeps a third of its wavenumbers, and the state's are 0 to modes - 1.
        most = (self.resolution * self.refine - 1) // 3 + 1
        if self.modes > most:
            raise ConfigError(
                f"burgers modes={self.modes}: {self.resolution * self.refine} points resolve {most}, so "
                "take fewer modes or a larger refine"
            )

    def _field(self) -> GaussianRandomField:
        return GaussianRandomField(2.0, 5.0, "periodic", 1, self.modes, 25.0)

    def pde(self) -> Burgers:
        """Return the equation."""
        return Burgers(self.viscosity)

    def parameters(self) -> dict[str, float]:
        """Return the viscosity."""
        return {"nu": self.viscosity}

    def initial(self, seed: int, axes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Draw a random field."""
        return self._field().sample(seed, axes)[None]

    def balance(self, basis: FourierBasis, modes: Array, source: Array | None) -> tuple[Array, Array]:
        """Return mean u^2 / 2 and -nu mean u_x^2."""
        slope = basis.derivative(modes, (1,))
        return 0.5 * basis.inner(modes, modes)[..., 0], -self.viscosity * basis.inner(slope, slope)[..., 0]


@recipe_registry.register("kdv")
@dataclass(frozen=True)
class KdvRecipe(PeriodicRecipe):
    """Korteweg-de Vries: dispersive waves and solitons, the setting of Lie-point-symmetry augmentation.

    u_t + u u_x + u_xxx = 0 on (0, 128), periodic, t in [0, 100]; all dimensionless. u(x, 0) is a sum of
    10 sine waves with wavenumbers 1 to 3, amplitudes uniform in [-1/2, 1/2] and random phases (arXiv
    2202.07643). Mean and mean square are conserved and checked. Solved on 512 points with steps of
    1/80, stored on 256. Stated accuracy 2e-4; tall solitons are the hardest.
    """

    equation = "u_t + u u_x + u_xxx = 0 on (0, L), periodic"
    check_limits = {"balance": 1e-5, "mean_drift": 1e-12}  # noqa: RUF012 - read only
    accuracy = 2e-4
    ranges = {"period": POSITIVE}  # noqa: RUF012 - read only
    fields = (FieldSpec("u", "surface elevation, dimensionless"),)
    conserves_mean = True

    frames: int = 101
    """Stored times, the first included."""
    final_time: float = 100.0
    """Of the last frame."""
    refine: int = 2
    """The solver's grid is this many times finer than the stored one."""
    step: float = 0.0125
    """Largest step of the solver."""
    period: float = 128.0
    """L."""

    @property
    def length(self) -> float:
        """L."""
        return self.period

    def pde(self) -> KortewegDeVries:
        """Return the equation."""
        return KortewegDeVries(nonlinearity=1.0, dispersion=1.0)

    def parameters(self) -> dict[str, float]:
        """Return the period."""
        return {"L": self.period}

    def initial(self, seed: int, axes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Draw ten sine waves."""
        return SineWaves(seed, 10, (1, 3), (-0.5, 0.5), self.length)(axes[0])[None]

    def balance(self, basis: FourierBasis, modes: Array, source: Array | None) -> tuple[Array, Array]:
        """Return mean u^2, which is conserved."""
        energy = basis.inner(modes, modes)[..., 0]
        return energy, 0 * energy
