"""What equations and solvers compute with: a basis, bound to arrays of one kind and to a product grid."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from .basis import FourierBasis

__all__ = ["Transforms"]

Array = Any  # NumPy array, torch tensor, ...


def _own(values: Any) -> Any:
    """Copy a read-only NumPy array, such as a broadcast one: torch warns of sharing its memory."""
    readonly = isinstance(values, np.ndarray) and not values.flags.writeable
    return values.copy() if readonly else values


class Transforms:
    """Transforms between the modes of a basis and the grid on which products are taken.

    Parameters
    ----------
    basis : FourierBasis
    nodes : tuple of int
        Points of the product grid along each axis, M_d.
    like : array
        A real array of the library and precision, on the device, of the states.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid
    >>> basis = FourierBasis(CartesianGrid((0.0,), (2 * np.pi,), (8,), (True,)))
    >>> transforms = Transforms(basis, (12,), np.zeros(1, dtype=np.float32))
    >>> transforms.factor(basis.wavenumbers[0]).dtype, transforms.to_grid(np.zeros(4, np.complex64)).shape
    (dtype('complex64'), (12,))
    """

    def __init__(self, basis: FourierBasis, nodes: tuple[int, ...], like: Array) -> None:
        self.basis, self.nodes = basis, nodes
        self._xp, self._device, self.real_dtype = array_namespace(like), device(like), like.dtype
        single = self.real_dtype == self._xp.float32
        self.complex_dtype = self._xp.complex64 if single else self._xp.complex128

    def array(self, values: Any) -> Array:
        """Return values as an array like the states."""
        return self._xp.asarray(_own(values), dtype=self.real_dtype, device=self._device)

    def factor(self, values: np.ndarray) -> Array:
        """Return values as an array like modes: a complex one, even where they are real, multiplies fastest."""
        return self._xp.asarray(_own(values), dtype=self.complex_dtype, device=self._device)

    def to_grid(self, modes: Array, factor: Array | None = None) -> Array:
        """Return values on the product grid, shape (..., *mode_shape) to (..., *nodes).

        With a factor, like modes, the product of the two is transformed; it may have more components.
        """
        return self.basis.to_grid(modes, self.nodes, factor)

    def to_modes(self, values: Array) -> Array:
        """Return the truncated modes of values on the product grid, shape (..., *nodes) to (..., *mode_shape)."""
        return self.basis.to_modes(values)

    def squared(self, modes: Array, weight: Array) -> Array:
        """Return weight times the modes of the square, in one dimension, shapes (..., m + 1) and (m + 1,)."""
        return self.basis.squared(modes, self.nodes, weight)
