"""Equations of transport: advection, Burgers, Korteweg-de Vries, Kuramoto-Sivashinsky, Navier-Stokes."""

import math
import reprlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from sciml.errors import ConfigError

from .basis import multiplied, records_gradients
from .equation import SpectralEquation, Term, check, half_square, is_finite_number, square_norm
from .transforms import Transforms

__all__ = [
    "AdvectionDiffusion",
    "Burgers",
    "KortewegDeVries",
    "KuramotoSivashinsky",
    "NavierStokes",
]

Array = Any  # NumPy array, torch tensor, ...


@dataclass(frozen=True)
class AdvectionDiffusion(SpectralEquation):
    """u_t + c . grad u = D Laplace u.

    Both terms are advanced exactly. Without diffusion a step in u keeps its Gibbs oscillations for ever.

    Parameters
    ----------
    velocity : tuple of float
        c, one number per axis.
    diffusivity : float
        D >= 0.

    Raises
    ------
    ConfigError
        If a number is not finite, or negative where it must not be.

    Examples
    --------
    >>> AdvectionDiffusion((1.0, 0.0), 0.1).dim
    2
    """

    velocity: tuple[float, ...]
    diffusivity: float

    def __post_init__(self) -> None:
        try:
            numbers = list(self.velocity)
        except TypeError:
            numbers = []
        if not 1 <= len(numbers) <= 3 or not all(map(is_finite_number, numbers)):
            shown = " ".join(reprlib.repr(self.velocity).split())
            raise ConfigError(
                f"velocity={shown} of AdvectionDiffusion: give one to three finite numbers, as (1.0, 0.0)"
            )
        object.__setattr__(self, "velocity", tuple(float(c) for c in numbers))
        check(self, {"diffusivity": 0})

    @property
    def dim(self) -> int:
        """Space dimensions, as many as the velocity has."""
        return len(self.velocity)

    @property
    def degree(self) -> int:
        """1, a linear equation."""
        return 1

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return -i c . k - D k^2."""
        drift = sum(c * k for c, k in zip(self.velocity, wavenumbers, strict=True))
        return -1j * drift - self.diffusivity * square_norm(wavenumbers)

    def nonlinear(self, transforms: Transforms) -> Term:
        """Return zero."""
        return lambda modes: 0 * modes


@dataclass(frozen=True)
class Burgers(SpectralEquation):
    """u_t + (u^2 / 2)_x = nu u_xx, or u_t + (u . grad) u = nu Laplace u for a vector u of D components.

    In one dimension the truncated system conserves the mean, and mean u^2 but for viscosity. Shocks have
    a width of about 4 nu / jump: with fewer than some three nodes in it the solution rings.

    Parameters
    ----------
    viscosity : float
        nu >= 0.
    dim : int

    Raises
    ------
    ConfigError
        If a parameter is out of its range.

    Examples
    --------
    >>> Burgers(0.01, dim=2).components
    2
    """

    viscosity: float
    dim: int = 1

    def __post_init__(self) -> None:
        check(self, {"viscosity": 0})

    @property
    def components(self) -> int:
        """As many as there are axes."""
        return self.dim

    @property
    def advective(self) -> bool:
        """u is a velocity."""
        return True

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return -nu k^2."""
        return -self.viscosity * square_norm(wavenumbers)

    def nonlinear(self, transforms: Transforms) -> Term:
        """Return -(u^2 / 2)_x, or -(u . grad) u."""
        if self.dim == 1:
            return half_square(transforms, 1.0)
        slopes = [transforms.factor(1j * k) for k in transforms.basis.wavenumbers]

        def term(modes: Array) -> Array:
            xp, dim = array_namespace(modes), self.dim
            values = transforms.to_grid(xp.concat([modes, *(modes * slope for slope in slopes)], axis=1))
            change = -values[:, :1] * values[:, dim : 2 * dim]
            for d in range(1, dim):
                change -= values[:, d : d + 1] * values[:, (d + 1) * dim : (d + 2) * dim]
            return transforms.to_modes(change)

        return term

    def flow(self, transforms: Transforms, modes: Array) -> Array:
        """Return u."""
        return transforms.to_grid(modes)


@dataclass(frozen=True)
class KortewegDeVries(SpectralEquation):
    """u_t + a u u_x + b u_xxx = 0.

    The truncated system conserves the mean and mean u^2. As L is imaginary, nothing damps unresolved
    waves, and the order of accuracy in time shows only where dt times a u k is small.

    Parameters
    ----------
    nonlinearity : float
        a, 6 by default: solitons are c / 2 sech^2(sqrt(c) (x - c t) / 2).
    dispersion : float
        b.

    Raises
    ------
    ConfigError
        If a parameter is not finite.

    Examples
    --------
    >>> KortewegDeVries().symbol((np.array([2.0]),))
    array([0.+8.j])
    """

    nonlinearity: float = 6.0
    dispersion: float = 1.0

    def __post_init__(self) -> None:
        check(self, {"nonlinearity": -math.inf, "dispersion": -math.inf})

    @property
    def advective(self) -> bool:
        """a u is a velocity."""
        return True

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return i b k^3."""
        return 1j * self.dispersion * wavenumbers[0] ** 3

    def nonlinear(self, transforms: Transforms) -> Term:
        """Return -a (u^2 / 2)_x."""
        return half_square(transforms, self.nonlinearity)

    def flow(self, transforms: Transforms, modes: Array) -> Array:
        """Return a u."""
        return self.nonlinearity * transforms.to_grid(modes)


@dataclass(frozen=True)
class KuramotoSivashinsky(SpectralEquation):
    """u_t + u u_x + u_xx + u_xxxx = 0, or u_t + |grad u|^2 / 2 + Laplace u + Laplace^2 u = 0 for D > 1.

    Chaotic for periods beyond about 18: errors grow by a factor e in about ten units of time, whatever
    the method. For D > 1 the mean falls steadily; in one dimension, the slope form, it is conserved.

    Parameters
    ----------
    dim : int

    Raises
    ------
    ConfigError
        If there are no such dimensions.

    Examples
    --------
    >>> KuramotoSivashinsky().symbol((np.array([0.0, 1.0, 2.0]),)).tolist()
    [0.0, 0.0, -12.0]
    """

    dim: int = 1

    def __post_init__(self) -> None:
        check(self, {})

    @property
    def advective(self) -> bool:
        """u is a velocity in one dimension."""
        return self.dim == 1

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return k^2 - k^4."""
        square = square_norm(wavenumbers)
        return np.asarray(square - square**2)

    def nonlinear(self, transforms: Transforms) -> Term:
        """Return -(u^2 / 2)_x, or -|grad u|^2 / 2."""
        if self.dim == 1:
            return half_square(transforms, 1.0)
        slopes = [transforms.factor(1j * k) for k in transforms.basis.wavenumbers]

        def term(modes: Array) -> Array:
            xp = array_namespace(modes)
            gradient = transforms.to_grid(xp.concat([modes * slope for slope in slopes], axis=1))
            squares = multiplied(gradient, gradient)
            return transforms.to_modes(-0.5 * xp.sum(squares, axis=1, keepdims=True))

        return term

    def flow(self, transforms: Transforms, modes: Array) -> Array:
        """Return u."""
        return transforms.to_grid(modes) if self.dim == 1 else super().flow(transforms, modes)


@dataclass(frozen=True)
class NavierStokes(SpectralEquation):
    """w_t + u . grad w = nu Laplace w - mu w in two dimensions, with u = (psi_y, -psi_x), -Laplace psi = w.

    Incompressible flow in terms of the vorticity w = v_x - u_y, on any periodic box. The transport is
    computed as (d_xx - d_yy)(u v) + d_xy (v^2 - u^2), which takes four transforms instead of five
    (Basdevant, J. Comput. Phys. 50, 209, 1983); for exact products it is the same, so that the truncated
    system conserves energy and enstrophy but for nu, mu and the source. A mean vorticity, impossible on
    a torus, drives no flow and decays by drag alone. Without enough viscosity, enstrophy piles up at the
    largest wavenumbers: the dissipation scale sqrt(nu) / <w^2>^(1/4) must span about a node.

    Parameters
    ----------
    viscosity, drag : float
        nu, mu >= 0.

    Raises
    ------
    ConfigError
        If a parameter is negative or not finite.

    Examples
    --------
    >>> NavierStokes(1e-3).dim
    2
    """

    viscosity: float
    drag: float = 0.0

    def __post_init__(self) -> None:
        check(self, {"viscosity": 0, "drag": 0})

    @property
    def dim(self) -> int:
        """2."""
        return 2

    @property
    def advective(self) -> bool:
        """The flow is a velocity."""
        return True

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return -nu k^2 - mu."""
        return np.asarray(-self.viscosity * square_norm(wavenumbers) - self.drag)

    def nonlinear(self, transforms: Transforms) -> Term:
        """Return -u . grad w."""
        kx, ky = transforms.basis.wavenumbers
        induced = self._induced(transforms)
        # Of u v and v^2 - u^2.
        weights = transforms.factor(np.stack([kx**2 - ky**2, kx * ky]))

        def term(modes: Array) -> Array:
            xp = array_namespace(modes)
            flow = transforms.to_grid(modes, induced)
            u, v = flow[:, 0], flow[:, 1]
            if records_gradients(flow):
                products = xp.stack([u * v, v * v - u * u], axis=1)
            else:
                products = xp.empty_like(flow)
                xp.multiply(u, v, out=products[:, 0])
                flow *= flow
                xp.subtract(v, u, out=products[:, 1])
            change = multiplied(transforms.to_modes(products), weights)
            return change[:, :1] + change[:, 1:]

        return term

    def flow(self, transforms: Transforms, modes: Array) -> Array:
        """Return (u, v)."""
        return transforms.to_grid(modes, self._induced(transforms))

    @staticmethod
    def _induced(transforms: Transforms) -> Array:
        """Return the factors i (k_y, -k_x) / k^2 that turn vorticity into velocity."""
        kx, ky = np.broadcast_arrays(*transforms.basis.wavenumbers)
        square = kx**2 + ky**2
        square[0, 0] = 1.0
        return transforms.factor(1j * np.stack([ky, -kx]) / square)
