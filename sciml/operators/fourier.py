"""Truncated Fourier transforms as matrix products, in real arithmetic.

On an axis of period P (in units of the domain's length) with nodes x_j and quadrature weights w_j,

    c_k = sum_j w_j v(x_j) exp(-2 pi i k x_j / P),      v(x) = Re sum_k c_k exp(2 pi i k x / P),

for the few wavenumbers k that are kept. The cost per point is that of two small dense products, any number
of nodes is as good as a power of two, and c_k is a quadrature of an integral, so it does not depend on the
resolution.

Periodic axis: P = 1, x_j = j / s, w_j = 1 / s: exactly the discrete Fourier transform. Bounded axis:
P = 1 + padding. The domain, with nodes x_j = j / (s - 1), is followed by an extension over a fixed *fraction*
of its length, which keeps its two ends apart at every resolution. Functions may jump from the one to the
other: each is a closed interval with nodes at both its ends and trapezoidal weights of its own, so that
coefficients converge at second order.

Of N wavenumbers an axis keeps those around zero, -N//2 .. N - N//2 - 1, in the order 0, 1, ..., -1, ...,
-N//2; the last axis keeps 0 .. N//2 and takes the negative ones from the symmetry of real functions. Real
and imaginary parts lie side by side along an axis of length 2, never in complex tensors: compilers,
exporters, mixed precision and distributed training treat them like any other numbers.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.errors import ConfigError

from .plain import is_plain

__all__ = ["TruncatedFourier", "coordinates", "extension_nodes", "wavenumbers", "with_coordinates"]

Tables = tuple[Tensor, ...]
"""A table for each axis."""


def coordinates(size: int, periodic: bool) -> Tensor:
    """Return x_j in units of the domain's length, shape (size,), float64."""
    return torch.arange(size, dtype=torch.float64) / (size if periodic else max(size - 1, 1))


def with_coordinates(a: Tensor, periodic: tuple[bool, ...]) -> Tensor:
    """Append each point's coordinates to the channels of a, shape (B, *space, channels)."""
    space = a.shape[1:-1]
    axes = [coordinates(n, p).to(a) for n, p in zip(space, periodic, strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return torch.cat([a, grid.expand(a.shape[0], *grid.shape)], dim=-1)


def wavenumbers(count: int, last: bool) -> list[int]:
    """Return which wavenumbers an axis keeps, in the order of its coefficients.

    Examples
    --------
    >>> wavenumbers(4, last=False), wavenumbers(5, last=False), wavenumbers(4, last=True)
    ([0, 1, -1, -2], [0, 1, 2, -1, -2], [0, 1, 2])
    """
    half = count // 2
    return list(range(half + 1)) if last else [*range(count - half), *range(-1, -half - 1, -1)]


def extension_nodes(size: int, periodic: bool, padding: float) -> int:
    """Return how many nodes extend an axis: about as close to each other as those of the domain.

    Examples
    --------
    >>> [extension_nodes(size, False, 1 / 6) for size in (43, 85)], extension_nodes(43, True, 1 / 6)
    ([8, 15], 0)
    """
    return 0 if periodic or padding == 0 else max(2, round(padding * (size - 1)) + 1)


def _trapezoid(count: int, length: float) -> tuple[Tensor, Tensor]:
    """Nodes from 0 to ``length``, and weights."""
    weights = torch.full((count,), length / (count - 1), dtype=torch.float64)
    weights[[0, -1]] *= 0.5
    return torch.linspace(0, length, count, dtype=torch.float64), weights


@functools.lru_cache(maxsize=128)
def _tables(
    size: int, half: int, periodic: bool, padding: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cosines and sines of wavenumbers 0..half at the n nodes of domain and extension.

    With quadrature weights, so that a real function gives real and imaginary parts, shape (2 (half + 1), n),
    and as they are; then without weights, shape (n, 2 (half + 1)), so that the kept half of a real function's
    spectrum gives that function, and as they are.
    """
    if periodic:
        x, weight = coordinates(size, True), torch.full((size,), 1.0 / size, dtype=torch.float64)
    else:
        x, weight = _trapezoid(size, 1.0)
        if count := extension_nodes(size, periodic, padding):
            beyond, more = _trapezoid(count, padding)
            x, weight = torch.cat([x, 1.0 + beyond]), torch.cat([weight, more])
    period = 1.0 if periodic else 1.0 + padding
    k = torch.arange(half + 1, dtype=torch.float64)
    phase = 2 * math.pi / period * torch.outer(k, x)
    both = torch.stack([phase.cos(), phase.sin()])
    # A wavenumber k > 0 stands for -k as well, but that of Nyquist is its own negative.
    multiplicity = torch.where((k == 0) | (periodic & (2 * k == size)), 1.0, 2.0)
    conjugate = torch.stack([both[0], -both[1]])
    tables = (
        (weight * conjugate).flatten(0, 1),
        (weight * both).flatten(0, 1),
        (multiplicity[:, None] * conjugate).flatten(0, 1).T,
        both.flatten(0, 1).T,
    )
    moved = (table.to(device=device, dtype=dtype) for table in tables)
    return tuple(table.contiguous() for table in moved)  # type: ignore[return-value]


@dataclass(frozen=True)
class TruncatedFourier:
    """Fourier coefficients of low wavenumbers, and functions from them.

    Attributes
    ----------
    modes : tuple of int
        N per axis.
    periodic : tuple of bool
        Per axis.
    padding : float
        Length of the extension of bounded axes, as a fraction of the domain's.

    Examples
    --------
    >>> fourier = TruncatedFourier((4,), (True,), 0.0)
    >>> v = torch.cos(2 * torch.pi * coordinates(10, True))[None, :, None]
    >>> c = fourier.analyse(v, (10,))  # (batch, 2, modes, channels): 1/2 at wavenumber 1
    >>> [round(x, 12) + 0.0 for x in c[0, 0, :, 0].tolist()]
    [0.0, 0.5, 0.0]
    >>> bool(torch.allclose(fourier.synthesise(c, (10,)), v))
    True
    """

    modes: tuple[int, ...]
    periodic: tuple[bool, ...]
    padding: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Coefficients per axis."""
        return (*self.modes[:-1], self.modes[-1] // 2 + 1)

    def extended(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """Return the nodes of domain and extension per axis."""
        return tuple(
            n + extension_nodes(n, p, self.padding) for n, p in zip(space, self.periodic, strict=True)
        )

    def check_resolution(self, space: tuple[int, ...]) -> None:
        """Raise `ConfigError` if a grid cannot tell the kept wavenumbers apart."""
        for axis, (size, count, periodic) in enumerate(zip(space, self.modes, self.periodic, strict=True)):
            if axis == len(self.modes) - 1:
                count -= count % 2
            points = size if periodic else (size - 1) * (1 + self.padding)
            if points < count - 1e-9 or size < 2:
                needed = count if periodic else math.ceil(count / (1 + self.padding) - 1e-9) + 1
                most = min(
                    n if p else (n - 1) * (1 + self.padding)
                    for n, p in zip(space, self.periodic, strict=True)
                )
                raise ConfigError(
                    f"axis {axis} with {size} nodes is too coarse for modes={self.modes[axis]}: use at least "
                    f"{max(needed, 2)} nodes (a smaller stride) or a model of {max(int(most + 1e-9), 1)} modes"
                )

    def _tables_of(self, space: tuple[int, ...], like: Tensor, kinds: tuple[int, int]) -> Tables:
        """Tables of one kind for all axes but the last, of another kind for that."""
        # While a program is traced, tables are part of it: the cache would keep stand-ins without numbers.
        build = _tables.__wrapped__ if torch.compiler.is_compiling() else _tables
        last = len(space) - 1
        return tuple(
            build(size, modes // 2, wraps, self.padding, like.device, like.dtype)[kinds[axis == last]]
            for axis, (size, modes, wraps) in enumerate(zip(space, self.modes, self.periodic, strict=True))
        )

    def analyse(self, v: Tensor, space: tuple[int, ...]) -> Tensor:
        """Return the coefficients of v.

        Parameters
        ----------
        v : Tensor, shape (B, *self.extended(space), C)
        space : tuple of int
            Nodes of the domain per axis.

        Returns
        -------
        Tensor, shape (B, 2, *self.shape, C)
            Real and imaginary parts.

        Raises
        ------
        ConfigError
            If the grid is too coarse.
        """
        self.check_resolution(space)
        tables = self._tables_of(space, v, (1, 0))
        if _records(v):
            return _Analysis.apply(v, self.modes, tables)
        return _analyse(v, self.modes, tables)

    def synthesise(self, c: Tensor, space: tuple[int, ...], add_to: Tensor | None = None) -> Tensor:
        """Return the function with the given coefficients on a grid and its extension.

        Parameters
        ----------
        c : Tensor, shape (B, 2, *self.shape, C)
        space : tuple of int
            Nodes of the domain per axis.
        add_to : Tensor, shape (B, *self.extended(space), C), optional
            The result is added to it, in its memory if no gradients of c are recorded.

        Returns
        -------
        Tensor, shape (B, *self.extended(space), C)
        """
        tables = self._tables_of(space, c, (3, 2))
        if _records(c):
            return _Synthesis.apply(c, add_to, self.modes, tables)
        return _synthesise(c, self.modes, tables, add_to)


def _records(values: Tensor) -> bool:
    """Whether gradients are recorded, of plain tensors and not for a program of standard operators."""
    return torch.is_grad_enabled() and values.requires_grad and is_plain(values)


def _analyse(v: Tensor, modes: tuple[int, ...], tables: Tables) -> Tensor:
    """Coefficients from nodes, the last axis first: of it the real ones, of the others sums of both waves."""
    *others, table = tables
    c = _unfolded(torch.matmul(table, v), v.ndim - 2, (2, len(table) // 2))
    for axis in range(len(others) - 1, -1, -1):
        # The axis in hand, then (2, modes of the later ones, channels).
        tail = c.shape[axis + 2 :]
        both = torch.matmul(others[axis], _folded(c, axis + 2))
        both = _unfolded(both, axis + 1, (2, len(others[axis]) // 2))
        cosine, sine = both.unbind(axis + 1)
        cosine_re, cosine_im = _unfolded(cosine, axis + 2, tail).unbind(axis + 2)
        sine_re, sine_im = _unfolded(sine, axis + 2, tail).unbind(axis + 2)
        half = modes[axis] // 2
        up, down = (axis + 1, 0, modes[axis] - half), (axis + 1, 1, half)
        re = torch.cat([(cosine_re + sine_im).narrow(*up), (cosine_re - sine_im).narrow(*down)], axis + 1)
        im = torch.cat([(cosine_im - sine_re).narrow(*up), (cosine_im + sine_re).narrow(*down)], axis + 1)
        c = torch.stack([re, im], dim=axis + 1)
    return c


def _synthesise(
    c: Tensor,
    modes: tuple[int, ...],
    tables: Tables,
    add_to: Tensor | None = None,
    in_place: bool = True,
) -> Tensor:
    """Nodes from coefficients, the last axis last; the adjoint of `_analyse` with transposed tables."""
    *others, table = tables
    for axis, other in enumerate(others):
        # (B, nodes of the earlier axes, 2, the axis in hand, ...)
        re, im = c.unbind(axis + 1)
        half = modes[axis] // 2
        up, down = modes[axis] - half, half
        where = axis + 1
        zero = re.narrow(where, 0, 1)
        odd = up == half + 1
        # P_k cos + Q_k sin with P_k = c_k + c_-k and Q_k = i (c_k - c_-k), k > 0.
        parts = []
        for a in (re, im):
            a_up, a_down = a.narrow(where, 1, up - 1), a.narrow(where, up, down)
            if not odd:
                a_up = torch.nn.functional.pad(a_up, (0, 0) * (a_up.ndim - 1 - where) + (0, 1))
            parts.append((a_up + a_down, a_up - a_down))
        (sum_re, difference_re), (sum_im, difference_im) = parts
        nothing = torch.zeros_like(zero)
        first = torch.cat([zero, sum_re, nothing, -difference_im], where)
        second = torch.cat([im.narrow(where, 0, 1), sum_im, nothing, difference_re], where)
        stacked = torch.stack([first, second], dim=where + 1)
        product = torch.matmul(other, _folded(stacked, where + 1))
        c = _unfolded(product, where + 1, stacked.shape[where + 1 :])
    flat = c.reshape(*c.shape[:-3], c.shape[-3] * c.shape[-2], c.shape[-1])
    if add_to is None:
        return torch.matmul(table, flat)
    flat = flat.flatten(0, -3)
    table, onto = table.expand(flat.shape[0], *table.shape), add_to.flatten(0, -3)
    return (onto.baddbmm_ if in_place else onto.baddbmm)(table, flat).view(add_to.shape)


# Batched gradients (``is_grads_batched``) know `reshape`, but neither `flatten` nor `unflatten`.
def _folded(values: Tensor, axis: int) -> Tensor:
    return values.reshape(*values.shape[:axis], math.prod(values.shape[axis:]))


def _unfolded(values: Tensor, axis: int, sizes: Sequence[int]) -> Tensor:
    return values.reshape(*values.shape[:axis], *sizes, *values.shape[axis + 1 :])


def _transposed(tables: Tables) -> Tables:
    return tuple(table.T for table in tables)


class _Analysis(torch.autograd.Function):
    """`_analyse`, whose gradients are those of a linear map: one synthesis in place of all its steps backwards."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, modes: tuple[int, ...], tables: Tables) -> Tensor:
        ctx.modes, ctx.tables = modes, tables
        return _analyse(v, modes, tables)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _Synthesis.apply(gradients[0], None, ctx.modes, _transposed(ctx.tables)), None, None


class _Synthesis(torch.autograd.Function):
    """`_synthesise`, in memory of its own, and its gradients by one analysis."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, add_to: Tensor | None, modes: tuple[int, ...], tables: Tables) -> Tensor:
        ctx.modes, ctx.tables, ctx.adds = modes, tables, add_to is not None
        return _synthesise(c, modes, tables, add_to, in_place=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        c = _Analysis.apply(gradients[0], ctx.modes, _transposed(ctx.tables))
        return c, gradients[0] if ctx.adds else None, None, None
