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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from sciml.errors import ConfigError

from .plain import is_plain, owned
from .products import product

__all__ = [
    "TruncatedFourier",
    "coordinates",
    "coordinates_on",
    "extension_nodes",
    "wavenumbers",
    "with_coordinates",
]


def coordinates(size: int, periodic: bool) -> Tensor:
    """Return x_j in units of the domain's length, shape (size,), float64."""
    return torch.arange(size, dtype=torch.float64) / (size if periodic else max(size - 1, 1))


def kept(build: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose results are kept, of tensors on any device."""
    # They outlive the mode in which they are first asked for; steps that a GPU replays read them, too.
    keep = functools.lru_cache(maxsize=1024)(torch.inference_mode(False)(build))

    @functools.wraps(build)
    def call(*given: Any) -> Any:
        # While a program is traced, they are part of it: what is kept would be stand-ins without numbers.
        traced = torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None
        return (build if traced else keep)(*given)

    return call


@kept
def coordinates_on(device: torch.device, dtype: torch.dtype, size: int, periodic: bool) -> Tensor:
    """Return `coordinates` on a device, which are not copied there again and not to be changed."""
    return coordinates(size, periodic).to(device, dtype)


def with_coordinates(a: Tensor, periodic: tuple[bool, ...]) -> Tensor:
    """Append each point's coordinates to the channels of a, shape (B, *space, channels)."""
    space = a.shape[1:-1]
    columns = [
        coordinates_on(a.device, a.dtype, size, wraps)
        .view(size, *(1,) * (len(space) - axis))
        .expand(*a.shape[:-1], 1)
        for axis, (size, wraps) in enumerate(zip(space, periodic, strict=True))
    ]
    return torch.cat([a, *columns], dim=-1)


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


@kept
def _tables(
    size: int,
    modes: int,
    last: bool,
    periodic: bool,
    padding: float,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """What to multiply the values of an axis of n nodes, domain and extension, with: the analysis and the synthesis.

    Of the last axis, whose values are real, shapes (2 m, n) and (n, 2 m); of others (2 m, n 2) and (n 2, 2 m): parts
    of values vary faster than nodes, parts of coefficients slower than wavenumbers.
    """
    if periodic:
        x, weight = coordinates(size, True), torch.full((size,), 1.0 / size, dtype=torch.float64)
    else:
        x, weight = _trapezoid(size, 1.0)
        if count := extension_nodes(size, periodic, padding):
            beyond, more = _trapezoid(count, padding)
            x, weight = torch.cat([x, 1.0 + beyond]), torch.cat([weight, more])
    k = torch.tensor(wavenumbers(modes, last), dtype=torch.float64)
    phase = 2 * math.pi / (1.0 if periodic else 1.0 + padding) * torch.outer(k, x)
    cosine, sine = phase.cos(), phase.sin()
    if last:
        # A wavenumber k > 0 stands for -k as well, but that of Nyquist is its own negative.
        multiplicity = torch.where((k == 0) | (periodic & (2 * k == size)), 1.0, 2.0)[:, None]
        conjugate = torch.stack([cosine, -sine])
        analysis, synthesis = weight * conjugate, multiplicity * conjugate
    else:
        synthesis = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)])
        analysis = weight[:, None] * synthesis
    analysis, synthesis = analysis.reshape(2 * len(k), -1), synthesis.reshape(2 * len(k), -1).T
    analysis, synthesis = analysis.to(device, dtype).contiguous(), synthesis.to(device, dtype).contiguous()
    # Kernels take the points of a line one after the other.
    return analysis.T.contiguous().T if last else analysis, synthesis


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

    def _tables_of(self, space: tuple[int, ...], like: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """Tables of all axes, those of the analysis and those of the synthesis."""
        last = len(space) - 1
        axes = enumerate(zip(space, self.modes, self.periodic, strict=True))
        return tuple(
            _tables(size, modes, axis == last, wraps, self.padding, like.device, like.dtype)
            for axis, (size, modes, wraps) in axes
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
        if torch.is_autocast_enabled(v.device.type):
            # Coefficients span more orders of magnitude than half precision resolves.
            with torch.autocast(v.device.type, enabled=False):
                return self.analyse(v.float(), space)
        table, _ = self._tables_of(space, v)[-1]
        lines = v.reshape(v.shape[0] * math.prod(v.shape[1:-2]), *v.shape[-2:])
        return self.analyse_rows(product(table, lines), space)

    def analyse_rows(self, c: Tensor, space: tuple[int, ...]) -> Tensor:
        """Return all coefficients from those of the last axis, shape (lines, 2 * self.shape[-1], C)."""
        nodes, channels = self.extended(space), c.shape[-1]
        batch = c.shape[0] // math.prod(nodes[:-1])
        for axis, (table, _) in reversed([*enumerate(self._tables_of(space, c)[:-1])]):
            tail = math.prod(self.shape[axis + 1 :]) * channels
            c = product(table, c.reshape(batch * math.prod(nodes[:axis]), table.shape[1], tail))
        return c.view(batch, 2, *self.shape, channels)

    def synthesise_rows(self, c: Tensor, space: tuple[int, ...]) -> Tensor:
        """Return the coefficients of the last axis, shape (lines, 2 * self.shape[-1], C), from all."""
        return self._but_the_last(c, [synthesis for _, synthesis in self._tables_of(space, c)], space)

    def last_tables(self, space: tuple[int, ...], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return what analyses the last axis, transposed, and what synthesises it: shapes (n, 2 * self.shape[-1])."""
        analysis, synthesis = self._tables_of(space, like)[-1]
        return analysis.T, synthesis

    def analyse_transposed_rows(self, c: Tensor, space: tuple[int, ...]) -> Tensor:
        """Return the transpose of `analyse_rows` times c."""
        return self._but_the_last(c, [analysis.T for analysis, _ in self._tables_of(space, c)], space)

    def analyse_transposed(self, c: Tensor, space: tuple[int, ...]) -> Tensor:
        """Return the transpose of `analyse` times c, which takes gradients of coefficients to those of values."""
        rows, (table, _) = self.analyse_transposed_rows(c, space), self.last_tables(space, c)
        return product(table, rows).view(c.shape[0], *self.extended(space), c.shape[-1])

    def synthesise(self, c: Tensor, space: tuple[int, ...], add_to: Tensor | None = None) -> Tensor:
        """Return the function with the given coefficients on a grid and its extension.

        Parameters
        ----------
        c : Tensor, shape (B, 2, *self.shape, C)
        space : tuple of int
            Nodes of the domain per axis.
        add_to : Tensor, shape (B, *self.extended(space), C), optional
            The result is added to it, in its memory where that can be.

        Returns
        -------
        Tensor, shape (B, *self.extended(space), C)
        """
        shape = c.shape[0], *self.extended(space), c.shape[-1]
        tables = [synthesis for _, synthesis in self._tables_of(space, c)]
        c = self._but_the_last(c, tables, space)
        if add_to is None:
            return product(tables[-1], c).view(shape)
        if not is_plain(c, add_to):
            return _plus(add_to, tables[-1], c, in_place=False)
        return (_Onto.apply if torch.is_grad_enabled() else _plus)(owned(add_to), tables[-1], c)

    def _but_the_last(self, c: Tensor, tables: list[Tensor], space: tuple[int, ...]) -> Tensor:
        """Take all axes but the last from coefficients to nodes; those are of one axis with the batch."""
        batch, channels, nodes = c.shape[0], c.shape[-1], self.extended(space)
        for axis, table in enumerate(tables[:-1]):
            tail = math.prod(self.shape[axis + 1 :]) * channels
            c = product(table, c.reshape(batch * math.prod(nodes[:axis]), table.shape[1], tail))
        return c.reshape(batch * math.prod(nodes[:-1]), tables[-1].shape[1], channels)


def _plus(v: Tensor, table: Tensor, c: Tensor, in_place: bool = True) -> Tensor:
    """Return v + table c."""
    rows = v.reshape(c.shape[0], table.shape[0], c.shape[-1])
    return product(table, c, rows, rows if in_place else None).view(v.shape)


class _Onto(torch.autograd.Function):
    """`_plus` in the memory of v, which comes first: of what is overwritten PyTorch takes that for granted."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, table: Tensor, c: Tensor) -> Tensor:
        ctx.mark_dirty(v)
        ctx.table = table
        _plus(v, table, c)
        return v

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        rows = gradient.reshape(-1, len(ctx.table), gradient.shape[-1])
        return gradient, None, product(ctx.table.T, rows)
