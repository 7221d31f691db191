"""Truncated Fourier series on periodic boxes, and the transforms between modes and nodal values.

On a box with periods L_d and lower corner a, a real function is represented by the coefficients of

    u(x) = sum_k u_k exp(i k . (x - a)),    k_d = 2 pi q_d / L_d,    |q_d| <= m_d,

the ordinary Fourier coefficients: u_0 is the mean. As u_(-k) = conj(u_k), the last axis holds
q = 0, ..., m only; the others hold q = 0, ..., m, -m, ..., -1, in this order. The Nyquist mode of an
even number n of nodes is not part of the basis, m <= (n - 1) // 2: its sine cannot be seen on the
nodes, so that its odd derivatives are not defined.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.fft
from array_api_compat import array_namespace, device, is_numpy_array

from sciml.errors import ConfigError

from ..compiled import kernels
from ..grid import CartesianGrid

__all__ = ["FourierBasis", "multiplied", "records_gradients"]

Array = Any  # NumPy array, torch tensor, ...


_LIBRARIES: dict[type, tuple[Any, Any]] = {}


def _library(values: Array) -> tuple[Any, Any]:
    """Return an array's namespace and its transforms; looked up once, as small transforms take microseconds."""
    kind = type(values)
    if kind not in _LIBRARIES:
        xp = array_namespace(values)
        _LIBRARIES[kind] = xp, scipy.fft if is_numpy_array(values) else xp.fft
    return _LIBRARIES[kind]


def _compiled(modes: tuple[int, ...], nodes: tuple[int, ...], like: Array) -> Any:
    """Return a compiled transform for NumPy arrays where there is a faster one, else None."""
    # Lines of a batch fill its lanes, so that a long one by itself is faster with SciPy. No other choice
    # than by size: the bits of a solution must not depend on how many are computed together.
    if not is_numpy_array(like) or like.dtype.char not in "fdFD" or not like.dtype.isnative:
        return None
    if math.prod(nodes) < 64 or (len(nodes) == 1 and nodes[0] > 1024):
        return None
    fourier = kernels("fourier")
    if fourier is None or not fourier.CompiledTransform.suits(modes, nodes):
        return None
    return fourier.CompiledTransform(modes, nodes, np.result_type(like, np.complex64))


def records_gradients(values: Array) -> bool:
    """Whether derivatives of what is computed from an array will be asked for, so that it must be kept."""
    return bool(getattr(values, "requires_grad", False))


def multiplied(values: Array, factor: Array) -> Array:
    """Return the product of two arrays, in the memory of the first unless that must be kept for gradients.

    Examples
    --------
    >>> u = np.array([2.0, 3.0])
    >>> multiplied(u, u) is u, u.tolist()
    (True, [4.0, 9.0])
    """
    if records_gradients(values):
        return values * factor
    values *= factor
    return values


class FourierBasis:
    """The functions exp(i k . (x - a)) with |q_d| <= m_d on a periodic box.

    Arrays of modes have shape (..., *mode_shape), arrays of values (..., *nodes), with any leading
    axes, and belong to any library of the array API standard, on any device, in single or double
    precision. Transforms along an axis pass over retained columns only.

    Parameters
    ----------
    grid : CartesianGrid
        Periodic along all axes.
    modes : tuple of int, optional
        m_d, from 1 to (n_d - 1) // 2, the default: all modes but Nyquist's.

    Raises
    ------
    ConfigError
        If the grid is not periodic or a number of modes is out of its range.

    Examples
    --------
    >>> basis = FourierBasis(CartesianGrid((0.0,), (2 * np.pi,), (16,), (True,)))
    >>> x = basis.grid.axes[0]
    >>> slope = basis.derivative(basis.to_modes(np.sin(3 * x)), (1,))
    >>> bool(abs(basis.to_grid(slope) - 3 * np.cos(3 * x)).max() < 1e-13)
    True
    """

    def __init__(self, grid: CartesianGrid, modes: Sequence[int] | None = None) -> None:
        if not all(grid.periodic):
            raise ConfigError(f"grid with periodic={grid.periodic}: Fourier modes need all axes periodic")
        largest = tuple((n - 1) // 2 for n in grid.shape)
        self.grid = grid
        self.modes = largest if modes is None else tuple(int(m) for m in modes)
        if len(self.modes) != grid.dim or not all(
            1 <= m <= top for m, top in zip(self.modes, largest, strict=True)
        ):
            raise ConfigError(
                f"modes={self.modes} on {grid.shape} nodes: choose from 1 to {largest} per axis"
            )
        # Plain attributes: steps of small problems ask for them often.
        self.dim = grid.dim
        """Number of axes, D."""
        self.mode_shape = (*(2 * m + 1 for m in self.modes[:-1]), self.modes[-1] + 1)
        """Number of stored modes along each axis, (2 m + 1, ..., 2 m + 1, m + 1)."""
        self._tables: dict[tuple, Array] = {}
        self._transforms: dict[tuple, Any] = {}

    @property
    def wavenumbers(self) -> tuple[np.ndarray, ...]:
        """Angular wavenumber k_d along each axis, of shapes that broadcast to `mode_shape`."""
        result = []
        for d, (m, n) in enumerate(zip(self.modes, self.mode_shape, strict=True)):
            integers = np.arange(m + 1) if d == self.dim - 1 else np.r_[0 : m + 1, -m:0]
            period = self.grid.upper[d] - self.grid.lower[d]
            shape = [1] * self.dim
            shape[d] = n
            result.append((2 * np.pi / period * integers).reshape(shape))
        return tuple(result)

    def to_modes(self, values: Array) -> Array:
        """Return the modes of the trigonometric interpolant through nodal values, truncated.

        Parameters
        ----------
        values : array, shape (..., *nodes)
            Real, on a uniform periodic grid over the box that starts at its lower corner, of any size
            n_d >= 2 m_d + 1. Wavenumbers that the nodes cannot tell from a retained one alias to it:
            none if the function has none beyond n_d - m_d - 1.

        Raises
        ------
        ConfigError
            If there are fewer axes or nodes.

        Examples
        --------
        >>> basis = FourierBasis(CartesianGrid((0.0,), (1.0,), (5,), (True,)), (1,))
        >>> basis.to_modes(np.cos(2 * np.pi * np.arange(8) / 8)).real.round(12)[1].item()
        0.5
        """
        nodes = tuple(values.shape[-self.dim :])
        if values.ndim < self.dim or any(n < 2 * m + 1 for n, m in zip(nodes, self.modes, strict=True)):
            raise ConfigError(f"values of shape {tuple(values.shape)}: modes={self.modes} need more nodes")
        compiled = self._compiled(nodes, values)
        # SciPy refuses complex values.
        if compiled is not None and values.dtype.kind == "f":
            return compiled.to_modes(values)
        xp, transform = _library(values)
        result = transform.rfft(values, axis=-1, norm="forward")[..., : self.modes[-1] + 1]
        for d in range(self.dim - 2, -1, -1):
            m, axis = self.modes[d], d - self.dim
            # In place where the library can.
            keyword = {"overwrite_x": True} if transform is scipy.fft and d < self.dim - 2 else {}
            full = transform.fft(result, axis=axis, norm="forward", **keyword)
            rest = (slice(None),) * (self.dim - 1 - d)
            result = xp.concat(
                [full[(..., slice(m + 1), *rest)], full[(..., slice(-m, None), *rest)]], axis=axis
            )
        return result

    def to_grid(self, modes: Array, nodes: Sequence[int] | None = None, factor: Array | None = None) -> Array:
        """Evaluate the series on a uniform periodic grid of any size over the box.

        The values are those of the series itself, whatever the size: a finer grid shows no new waves,
        and a coarser one samples without a filter, so that it may be too coarse to get the modes back.

        Parameters
        ----------
        modes : array, shape (..., *mode_shape)
        nodes : sequence of int, optional
            Nodes per axis, those of the grid by default.
        factor : array, optional
            Evaluate the series of modes * factor, which saves a pass over memory. It has the axes of modes.

        Returns
        -------
        array, shape (..., *nodes)

        Raises
        ------
        ConfigError
            If modes have another shape.

        Examples
        --------
        >>> basis = FourierBasis(CartesianGrid((0.0,), (1.0,), (8,), (True,)))
        >>> basis.to_grid(np.array([0.0, 0.0, 0.5, 0.0]) + 0j, (4,)).tolist()
        [1.0, -1.0, 1.0, -1.0]
        """
        self._require(modes)
        wanted = self.grid.shape if nodes is None else tuple(nodes)
        strides = tuple(-(-(2 * m + 1) // n) for m, n in zip(self.modes, wanted, strict=True))
        fine = tuple(n * stride for n, stride in zip(wanted, strides, strict=True))
        compiled = self._compiled(fine, modes)
        values = compiled.to_grid(modes, factor) if compiled else self._evaluated(modes, fine, factor)
        if max(strides) > 1:
            values = values[(..., *(slice(None, None, stride) for stride in strides))]
        return values

    def _evaluated(self, modes: Array, nodes: tuple[int, ...], factor: Array | None) -> Array:
        xp, transform = _library(modes)
        keyword = {"overwrite_x": True} if transform is scipy.fft else {}
        values = modes
        for d, m in enumerate(self.modes[:-1]):
            axis, rest = d - self.dim, (slice(None),) * (self.dim - 1 - d)
            shape = list(values.shape if factor is None else np.broadcast_shapes(values.shape, factor.shape))
            shape[axis] = nodes[d]
            padded = xp.zeros(tuple(shape), dtype=values.dtype, device=device(values))
            for rows in ((..., slice(m + 1), *rest), (..., slice(-m, None), *rest)):
                if factor is None:
                    padded[rows] = values[rows]
                elif records_gradients(values):
                    padded[rows] = values[rows] * factor[rows]
                else:
                    xp.multiply(values[rows], factor[rows], out=padded[rows])
            values, factor = transform.ifft(padded, axis=axis, norm="forward", **keyword), None
        if factor is not None:
            values = values * factor
        return transform.irfft(values, n=nodes[-1], axis=-1, norm="forward")

    def squared(self, modes: Array, nodes: Sequence[int], weight: Array) -> Array:
        """Return weight times the modes of the square of the series, taken on a grid, in one dimension.

        Parameters
        ----------
        modes : array, shape (..., m + 1)
        nodes : sequence of int
            One number; where it is below 3 m + 1, products alias.
        weight : array, shape (m + 1,)
            Like modes.

        Raises
        ------
        ConfigError
            If shapes differ from these.

        Examples
        --------
        >>> basis = FourierBasis(CartesianGrid((0.0,), (1.0,), (8,), (True,)))
        >>> basis.squared(np.array([1.0, 0.5, 0, 0]) + 0j, (12,), np.ones(4) + 0j).real.round(12).tolist()
        [1.5, 1.0, 0.25, 0.0]
        """
        self._require(modes)
        if tuple(weight.shape) != self.mode_shape or self.dim > 1:
            raise ConfigError(
                f"weight of shape {tuple(weight.shape)}: give {self.mode_shape}, in one dimension"
            )
        compiled = self._compiled(tuple(nodes), modes)
        if compiled is not None:
            return compiled.squared(modes, weight)
        values = self.to_grid(modes, nodes)
        return self.to_modes(multiplied(values, values)) * weight

    def derivative(self, modes: Array, order: Sequence[int]) -> Array:
        """Return the modes of a derivative, `order` times along each axis.

        Examples
        --------
        >>> basis = FourierBasis(CartesianGrid((0.0,), (2 * np.pi,), (8,), (True,)))
        >>> basis.derivative(np.array([0, 0, 1, 0]) + 0j, (2,)).real.tolist()[2]
        -4.0
        """
        if len(order) != self.dim or min(order) < 0:
            raise ConfigError(f"order={tuple(order)}: give {self.dim} numbers of derivatives, one per axis")
        table = self._table(
            ("derivative", *order),
            lambda: math.prod((1j * k) ** times for k, times in zip(self.wavenumbers, order, strict=True)),
            modes,
        )
        return modes * table

    def inner(self, first: Array, second: Array) -> Array:
        """Return the mean of u v over the box, from the modes of u and v, by Parseval's identity.

        Parameters
        ----------
        first, second : array, shape (..., *mode_shape)
            Leading axes broadcast.

        Returns
        -------
        array, shape (...)
            Real; with the component axis last if there is one.

        Examples
        --------
        >>> basis = FourierBasis(CartesianGrid((0.0,), (1.0,), (8,), (True,)))
        >>> u = basis.to_modes(1 + np.sin(2 * np.pi * np.arange(8) / 8))
        >>> round(float(basis.inner(u, u)), 12)
        1.5
        """
        xp = array_namespace(first)
        # Modes with a positive last wavenumber stand for their conjugates, too.
        weights = self._table(("weights",), lambda: np.r_[1.0, [2.0] * self.modes[-1]], first)
        return xp.sum(xp.real(xp.conj(first) * weights * second), axis=tuple(range(-self.dim, 0)))

    def mean(self, modes: Array) -> Array:
        """Return the mean over the box, shape (..., *mode_shape) to (...).

        Examples
        --------
        >>> basis = FourierBasis(CartesianGrid((0.0,), (1.0,), (8,), (True,)))
        >>> round(float(basis.mean(basis.to_modes(np.full(8, 3.0)))), 12)
        3.0
        """
        return array_namespace(modes).real(modes[(..., *(0,) * self.dim)])

    def symmetrise(self, modes: Array) -> None:
        """Restore u_(-k) = conj(u_k) on the plane q = 0 of the last axis, in place.

        Rounding breaks the symmetry there. Nonlinear terms, made from real values, do not see the
        spurious part, so that nothing stops its growth where the linear part is unstable.

        Examples
        --------
        >>> basis = FourierBasis(CartesianGrid((0.0, 0.0), (1.0, 1.0), (4, 4), (True, True)))
        >>> modes = np.array([[1 + 1j, 0], [1, 0], [0, 0]])
        >>> basis.symmetrise(modes)
        >>> modes[:, 0].real.tolist()
        [1.0, 0.5, 0.5]
        """
        xp, axes = array_namespace(modes), tuple(range(1 - self.dim, 0))
        plane = modes[..., 0]
        mirrored = plane
        if axes:
            mirrored = xp.roll(xp.flip(plane, axis=axes), (1,) * len(axes), axis=axes)
        modes[..., 0] = 0.5 * (plane + xp.conj(mirrored))

    def _require(self, modes: Array) -> None:
        if modes.shape[-self.dim :] != self.mode_shape:
            wanted = ", ".join(map(str, self.mode_shape))
            raise ConfigError(f"modes of shape {tuple(modes.shape)}: give (..., {wanted})")

    def _compiled(self, nodes: tuple[int, ...], like: Array) -> Any:
        """Return the compiled transform for arrays like this one, or None; made once."""
        key = nodes, type(like), like.dtype
        if key not in self._transforms:
            self._transforms[key] = _compiled(self.modes, nodes, like)
        return self._transforms[key]

    def _table(self, name: tuple, make: Callable[[], Any], like: Array) -> Array:
        """Return an array in the library, precision and on the device of modes, kept for the next call."""
        xp = array_namespace(like)
        key = (name, xp.__name__, like.dtype, str(device(like)))
        if key not in self._tables:
            self._tables[key] = xp.asarray(make(), dtype=like.dtype, device=device(like))
        return self._tables[key]
