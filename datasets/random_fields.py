"""Gaussian random fields drawn mode by mode: one seed is one function, at every resolution.

On the unit cube, with an orthonormal basis phi_k of Laplace eigenfunctions and standard normal xi_k,

    u(x) = sigma * sum_(k != 0) (lambda_k + tau^2)^(-alpha/2) xi_k phi_k(x),

so that u ~ N(0, sigma^2 (-Laplace + tau^2)^(-alpha)) with its mean removed. sigma defaults to
tau^(alpha - d/2). These are the conventions of the FNO
benchmarks (arXiv 2010.08895); the sum is cut at a fixed number of modes, whatever the grid.
"""

import sys
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sciml.errors import ConfigError

__all__ = ["GaussianRandomField"]


REAL, INTEGER = (int, float, np.integer, np.floating), (int, np.integer)
# As many coefficients take 800 MB.
MOST_COEFFICIENTS = 10**8


@dataclass(frozen=True)
class GaussianRandomField:
    """A Gaussian random field on the unit cube.

    Parameters
    ----------
    alpha, tau : float
        Smoothness and inverse length scale.
    boundary : {"neumann", "periodic"}
        Cosines k pi, or cosines and sines 2 pi k, along each axis.
    dim : int
        Space dimensions, d.
    modes : int
        Wavenumbers 0 <= k < modes along each axis. Fields with more modes share the lower ones.
    sigma : float, optional
        tau^(alpha - d/2) by default. Initial states of Burgers' equation, N(0, 625 (-Laplace + 25)^-2),
        have alpha 2, tau 5 and sigma 25.

    Raises
    ------
    ConfigError
        If a parameter is out of its range: alpha in [1e-6, 50], tau in [1e-6, 1e6], or the coefficients of
        so many modes would not fit into 800 MB.

    Examples
    --------
    >>> field = GaussianRandomField(alpha=2.0, tau=3.0, modes=32)
    >>> coarse, fine = (field.sample(7, (np.linspace(0, 1, m),) * 2) for m in (5, 9))
    >>> bool(np.allclose(coarse, fine[::2, ::2]))
    True
    """

    alpha: float
    tau: float
    boundary: Literal["neumann", "periodic"] = "neumann"
    dim: int = 2
    modes: int = 128
    sigma: float | None = None

    def __post_init__(self) -> None:
        if self.boundary not in ("neumann", "periodic"):
            raise ConfigError(f"random field boundary={self.boundary!r}: choose 'neumann' or 'periodic'")
        # Powers of tau neither overflow nor vanish.
        for name, kinds, least, most in (
            ("alpha", REAL, 1e-6, 50),
            ("tau", REAL, 1e-6, 1e6),
            ("dim", INTEGER, 1, 3),
            ("modes", INTEGER, 2, MOST_COEFFICIENTS),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
                kind = "an integer" if kinds is INTEGER else "a number"
                raise ConfigError(f"random field {name}={value!r}: give {kind} from {least:g} to {most:g}")
        sigma = self.sigma
        if sigma is not None and (
            isinstance(sigma, bool) or not isinstance(sigma, REAL) or not 0 < sigma < np.inf
        ):
            raise ConfigError(f"random field sigma={sigma!r}: it must be positive and finite, or None")
        count = (self.modes if self.boundary == "neumann" else 2 * self.modes - 1) ** self.dim
        if count > MOST_COEFFICIENTS:
            raise ConfigError(
                f"random field modes={self.modes}: {count} coefficients are more than {MOST_COEFFICIENTS}, take fewer"
            )

    @property
    def wavenumbers(self) -> np.ndarray:
        """Angular wavenumber of each one-dimensional basis function, shape (M,)."""
        if self.boundary == "neumann":
            return np.pi * np.arange(self.modes)
        return 2 * np.pi * ((np.arange(2 * self.modes - 1) + 1) // 2)

    def basis(self, x: np.ndarray) -> np.ndarray:
        """Evaluate the one-dimensional orthonormal basis, shape (m,) to (m, M).

        Neumann: 1, sqrt(2) cos(k pi x). Periodic: 1, and sqrt(2) cos and sin of 2 pi k x in turn.
        """
        phase = np.outer(x, self.wavenumbers)
        values = np.sqrt(2) * np.cos(phase)
        if self.boundary == "periodic":
            values[:, 2::2] = np.sqrt(2) * np.sin(phase[:, 2::2])
        values[:, 0] = 1.0
        return values

    def basis_derivative(self, x: np.ndarray) -> np.ndarray:
        """Evaluate the derivatives of the one-dimensional basis, shape (m,) to (m, M)."""
        phase = np.outer(x, self.wavenumbers)
        values = -np.sqrt(2) * self.wavenumbers * np.sin(phase)
        if self.boundary == "periodic":
            values[:, 2::2] = np.sqrt(2) * self.wavenumbers[2::2] * np.cos(phase[:, 2::2])
        return values

    def normalised(self) -> "GaussianRandomField":
        """Return the field scaled to an expected mean square of 1.

        Examples
        --------
        >>> field = GaussianRandomField(alpha=2.0, tau=3.0).normalised()
        >>> round(float(np.sum(field.spectrum() ** 2)), 12)
        1.0
        """
        square = np.sum(replace(self, sigma=1.0).spectrum() ** 2)
        if square < sys.float_info.min:
            raise ConfigError(
                f"random field alpha={self.alpha}, tau={self.tau}: powers tau^-alpha underflow, take less of one"
            )
        return replace(self, sigma=float(square**-0.5))

    def spectrum(self) -> np.ndarray:
        """Return the standard deviation of each coefficient, shape (M,) * d.

        The sum of its squares is the expected mean square of the field.
        """
        eigenvalues = np.asarray(sum(np.meshgrid(*[self.wavenumbers**2] * self.dim, indexing="ij")))
        eigenvalues[(0,) * self.dim] = 1.0  # does not count, and its power may overflow
        sigma = self.tau ** (self.alpha - self.dim / 2) if self.sigma is None else self.sigma
        spectrum = sigma * (eigenvalues + self.tau**2) ** (-self.alpha / 2)
        spectrum[(0,) * self.dim] = 0.0
        return spectrum

    def coefficients(self, seed: int) -> np.ndarray:
        """Draw the coefficients of one field, shape (M,) * d.

        Drawn shell by shell of max |k|, so that raising ``modes`` only adds to the field.
        """
        shape = (len(self.wavenumbers),) * self.dim
        shell = np.max(np.indices(shape), axis=0).ravel()
        order = np.argsort(shell, kind="stable")
        xi = np.empty(shell.shape)
        xi[order] = np.random.default_rng(seed).standard_normal(len(order))
        return self.spectrum() * xi.reshape(shape)

    def sample(self, seed: int, axes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Evaluate the field of a seed on a tensor-product grid.

        Parameters
        ----------
        seed : int
        axes : tuple of ndarray
            Coordinates along each axis, in [0, 1].

        Returns
        -------
        ndarray, shape (len(axes[0]), ..., len(axes[d - 1]))
        """
        if len(axes) != self.dim:
            raise ConfigError(f"random field axes: {len(axes)} given, dim={self.dim} needed")
        values = self.coefficients(seed)
        for x in axes:
            # Contract the leading axis and append the grid's: after d turns the order is restored.
            values = np.tensordot(values, self.basis(np.asarray(x)), axes=(0, 1))
        return values
