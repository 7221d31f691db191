"""Fourier transforms of functions that are given at scattered points.

With points xi_n of the torus [0, 1)^d and quadrature weights w_n,

    c_k = sum_n w_n v_n exp(-2 pi i k . xi_n),      u(xi) = Re sum_k c_k exp(2 pi i k . xi),

for the low wavenumbers that `sciml.operators.fourier.TruncatedFourier` keeps, in its layout: on a uniform grid with
w = 1 / s both are its transforms, and those of the FFT. Wavenumbers of the last axis stand for their negatives, too.
Where it is 0, both k and -k of the other axes are kept, and a layer can give them coefficients that are not
conjugate: as in the FFT of real functions their mean is what counts. (Geo-FNO's published code fills up the half that
is not kept by flipping the axis of the others, which takes k to -k - 1: a test shows the difference.)

Without the factor of 2, each of the two maps is the other's transpose, so that they give each other's gradients.

Sums are products with a table of all products of cosines and sines along the axes, a part of the points at a time;
or, with finufft, found from an FFT (Barnett, Magland and af Klinteberg, SIAM J. Sci. Comput. 41, 2019): functions
are real, so two channels go through one complex transform.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError

from .fourier import kept, wavenumbers
from .plain import is_plain

__all__ = ["NonuniformFourier"]

Method = Literal["auto", "direct", "fast"]
LARGEST = 2**20
"""Numbers of a table that is in memory at a time; sixteen times as many take up to 2.5 times as long."""
MANY = {1: 200, 2: 1000, 3: 4000}
"""Products of cosines and sines by dimension beyond which transforms by FFT are faster: about, for 10^3 to 10^5 points.

Forward and backward, 32 channels, one thread, direct over fast: 0.6 to 1.3 with 625 of them in the plane, 0.9 to 1.2
with 1089, 1.9 to 3.3 with 2401; in space 0.3 to 0.8 with 2197 and 1.0 to 1.8 with 4913.
"""
ACCURACY = {torch.float32: 1e-6, torch.float64: 1e-13}
"""Relative error of fast transforms."""


@dataclass(frozen=True)
class NonuniformFourier:
    """Fourier coefficients of low wavenumbers of functions at scattered points, and functions from them.

    Attributes
    ----------
    modes : tuple of int
        N per axis, of one to three axes.
    method : {"auto", "direct", "fast"}
        ``fast`` needs finufft and tensors on the CPU; ``auto`` takes it where it can and there are many wavenumbers.

    Examples
    --------
    >>> fourier = NonuniformFourier((4,))
    >>> xi = torch.tensor([0.0, 0.1, 0.25, 0.6])[None, :, None]
    >>> c = torch.zeros(1, 2, 3, 1)  # (batch, 2, modes, channels)
    >>> c[0, 0, 1] = 0.5  # cos(2 pi xi)
    >>> bool(torch.allclose(fourier.synthesise(c, xi), torch.cos(2 * torch.pi * xi), atol=1e-5))
    True
    """

    modes: tuple[int, ...]
    method: Method = "auto"

    @property
    def shape(self) -> tuple[int, ...]:
        """Coefficients per axis."""
        return (*self.modes[:-1], self.modes[-1] // 2 + 1)

    def analyse(self, v: Tensor, xi: Tensor, weights: Tensor) -> Tensor:
        """Return the coefficients of a function.

        Parameters
        ----------
        v : Tensor, shape (B, N, C)
        xi : Tensor, shape (B, N, d)
        weights : Tensor, shape (B, N)
            Of the points; 0 leaves one out.

        Returns
        -------
        Tensor, shape (B, 2, *self.shape, C)
            Real and imaginary parts.

        Raises
        ------
        ConfigError
            If method="fast" and there is no finufft, or tensors are on a GPU.
        """
        if torch.is_autocast_enabled(v.device.type):
            # As in other layers coefficients span more orders of magnitude than half precision resolves.
            with torch.autocast(v.device.type, enabled=False):
                return self.analyse(v.float(), xi.float(), weights)
        return _Project.apply(v * weights[..., None], xi, self)

    def synthesise(self, c: Tensor, xi: Tensor) -> Tensor:
        """Return the function with the given coefficients, shape (B, 2, *self.shape, C), at points: (B, N, C)."""
        if torch.is_autocast_enabled(c.device.type):
            with torch.autocast(c.device.type, enabled=False):
                return self.synthesise(c.float(), xi.float())
        twice = torch.full((self.shape[-1], 1), 2.0, device=c.device, dtype=c.dtype)
        twice[0] = 1.0
        return _Expand.apply(c * twice, xi, self)

    def _project(self, v: Tensor, xi: Tensor) -> Tensor:
        fast = self._fast(v, xi)
        return (
            _project_directly(v, xi, self.modes) if fast is None else _project_fast(fast, v, xi, self.modes)
        )

    def _expand(self, c: Tensor, xi: Tensor) -> Tensor:
        fast = self._fast(c, xi)
        return _expand_directly(c, xi, self.modes) if fast is None else _expand_fast(fast, c, xi, self.modes)

    def _fast(self, *tensors: Tensor) -> ModuleType | None:
        """The library, if its transforms are to be taken."""
        if self.method == "direct" or (
            self.method == "auto" and math.prod(_full(self.modes)) <= MANY[len(self.modes)]
        ):
            return None
        fits = is_plain(*tensors) and all(x.device.type == "cpu" and x.dtype in ACCURACY for x in tensors)
        library = _finufft() if fits else None
        if library is None and self.method == "fast":
            raise ConfigError("method='fast': install sciml[fast] for finufft and keep tensors on the CPU")
        return library


class _Project(torch.autograd.Function):
    """Re and im of sum_n v_nc exp(-2 pi i k xi_n), (B, N, C) to (B, 2, *K, C)."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, xi: Tensor, fourier: NonuniformFourier) -> Tensor:
        ctx.save_for_backward(v, xi)
        ctx.fourier = fourier
        return fourier._project(v, xi)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (v, xi) = gradients, ctx.saved_tensors
        of_v, of_xi = _gradients(gradient, v, xi, ctx.fourier, *ctx.needs_input_grad[:2])
        return of_v, of_xi, None


class _Expand(torch.autograd.Function):
    """Re sum_k c_kc exp(2 pi i k xi_n), (B, 2, *K, C) to (B, N, C)."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, xi: Tensor, fourier: NonuniformFourier) -> Tensor:
        ctx.save_for_backward(c, xi)
        ctx.fourier = fourier
        return fourier._expand(c, xi)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (c, xi) = gradients, ctx.saved_tensors
        of_c = _Project.apply(gradient, xi, ctx.fourier) if ctx.needs_input_grad[0] else None
        _, of_xi = _gradients(c, gradient, xi, ctx.fourier, False, ctx.needs_input_grad[1])
        return of_c, of_xi, None


def _gradients(
    c: Tensor, v: Tensor, xi: Tensor, fourier: NonuniformFourier, by_v: bool, by_xi: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of sum_nc v_nc Re sum_k c_kc exp(2 pi i k xi_n), in one transform."""
    wanted = [c] if by_v else []
    if by_xi:
        # 2 pi i k c
        turned = 2 * math.pi * torch.stack([-c[:, 1], c[:, 0]], 1)
        for axis, count in enumerate(fourier.modes):
            k = _wavenumbers(count, axis == len(fourier.modes) - 1, c.device, c.dtype)
            wanted.append(turned * k.view(-1, *(1,) * (len(fourier.modes) - axis)))
    if not wanted:
        return None, None
    parts = _Expand.apply(torch.cat(wanted, -1), xi, fourier).split(c.shape[-1], -1)
    of_xi = torch.stack([(v * part).sum(-1) for part in parts[by_v:]], -1) if by_xi else None
    return parts[0] if by_v else None, of_xi


def _numbers(modes: tuple[int, ...]) -> list[list[int]]:
    """Kept wavenumbers by axis."""
    return [wavenumbers(count, axis == len(modes) - 1) for axis, count in enumerate(modes)]


@kept
def _wavenumbers(count: int, last: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(wavenumbers(count, last), device=device, dtype=dtype)


def _full(modes: tuple[int, ...]) -> tuple[int, ...]:
    """How many wavenumbers -m, ..., m there are on all axes, and cosines and sines."""
    return tuple(2 * (count // 2) + 1 for count in modes)


@kept
def _exponentials(count: int, last: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    """What turns coefficients of an axis's cosines and sines into those of exponentials, shape (2, K, 2, J).

    Of the real and imaginary parts; those of the last axis, the first that is turned, are real.
    """
    k, m = wavenumbers(count, last), count // 2
    parts = torch.zeros(2, len(k), 2, 2 * m + 1, dtype=torch.float64)
    for row, number in enumerate(k):
        # (re + i im) (cosine - i sine)
        parts[0, row, 0, abs(number)] = parts[1, row, 1, abs(number)] = 1.0
        if number:
            sign = math.copysign(1.0, number)
            parts[0, row, 1, m + abs(number)], parts[1, row, 0, m + abs(number)] = sign, -sign
    return (parts[:, :, :1] if last else parts).to(device, dtype)


def _turns(like: Tensor, modes: tuple[int, ...]) -> list[tuple[int, Tensor]]:
    """The axes with their `_exponentials`."""
    last = len(modes) - 1
    return [(a, _exponentials(n, a == last, like.device, like.dtype)) for a, n in enumerate(modes)]


def _tables(xi: Tensor, modes: tuple[int, ...]) -> Iterator[tuple[slice, Tensor]]:
    """Products of cosines of 0, ..., m and sines of 1, ..., m along the axes, (B, n, J), of parts of the points."""

    def waves(points: Tensor, axis: int) -> Tensor:
        k = torch.arange(modes[axis] // 2 + 1, device=xi.device, dtype=xi.dtype)
        # Sines of large arguments have lost digits.
        phase = 2 * math.pi * (points[..., axis, None] % 1.0) * k
        return torch.cat([phase.cos(), phase[..., 1:].sin()], -1)

    step = max(1, LARGEST // max(1, len(xi) * math.prod(_full(modes))))
    for start in range(0, max(1, xi.shape[1]), step):
        part = slice(start, start + step)
        table = waves(xi[:, part], 0)
        for axis in range(1, len(modes)):
            table = (table[..., :, None] * waves(xi[:, part], axis)[..., None, :]).flatten(-2)
        yield part, table


def _project_directly(v: Tensor, xi: Tensor, modes: tuple[int, ...]) -> Tensor:
    r = v.new_zeros(len(v), math.prod(_full(modes)), v.shape[-1])
    for part, table in _tables(xi, modes):
        r = r + table.transpose(1, 2) @ v[:, part]
    c = r.unflatten(1, (1, *_full(modes)))
    for axis, turn in reversed(_turns(v, modes)):
        c = torch.tensordot(turn, c, dims=([2, 3], [1, axis + 2])).movedim(2, 0).movedim(2, axis + 2)
    return c


def _expand_directly(c: Tensor, xi: Tensor, modes: tuple[int, ...]) -> Tensor:
    r = c
    for axis, turn in _turns(c, modes):
        r = torch.tensordot(turn, r, dims=([0, 1], [1, axis + 2])).movedim(2, 0).movedim(2, axis + 2)
    r = r.flatten(1, -2)
    return torch.cat([table @ r for _, table in _tables(xi, modes)], 1)


@functools.cache
def _finufft() -> ModuleType | None:
    try:
        import finufft
    except ImportError:
        return None
    return finufft


def _kept(modes: tuple[int, ...]) -> Any:
    """Places of the kept wavenumbers among all, after an axis of channels."""
    places = (np.array(k) + count // 2 for k, count in zip(_numbers(modes), modes, strict=True))
    return (slice(None), *np.ix_(*places))


def _prepared(xi: Tensor) -> tuple[np.ndarray, dict[str, Any]]:
    """Points as finufft takes them, (B, d, N), and how it is called."""
    turns = np.ascontiguousarray(np.moveaxis(xi.detach().numpy(), 2, 1)) % 1.0
    options = {"eps": ACCURACY[xi.dtype], "nthreads": torch.get_num_threads()}
    return (2 * math.pi * turns).astype(turns.dtype), options


def _paired(values: np.ndarray) -> np.ndarray:
    """Two channels, along the first axis, as real and imaginary part of one."""
    if len(values) % 2:
        values = np.concatenate([values, np.zeros_like(values[:1])])
    return np.ascontiguousarray(values[::2] + 1j * values[1::2])


def _mirrored(values: np.ndarray) -> np.ndarray:
    """The conjugates at the negatives of all wavenumbers."""
    return np.flip(values, tuple(range(1, values.ndim))).conj()


def _project_fast(library: ModuleType, v: Tensor, xi: Tensor, modes: tuple[int, ...]) -> Tensor:
    transform, full, channels = getattr(library, f"nufft{len(modes)}d1"), _full(modes), v.shape[-1]
    points, options = _prepared(xi)
    found = np.empty((len(v), 2, *map(len, _numbers(modes)), channels), dtype=points.dtype)
    for row, (x, values) in enumerate(zip(points, v.detach().numpy(), strict=True)):
        z = transform(*x, _paired(values.T), full, isign=-1, **options).reshape(-1, *full)
        # A real function has the even part, one times i the odd one.
        both = np.stack([(z + _mirrored(z)) / 2, (z - _mirrored(z)) / 2j], 1).reshape(-1, *full)
        c = np.moveaxis(both[:channels][_kept(modes)], 0, -1)
        found[row, 0], found[row, 1] = c.real, c.imag
    return torch.from_numpy(found)


def _expand_fast(library: ModuleType, c: Tensor, xi: Tensor, modes: tuple[int, ...]) -> Tensor:
    transform, full, channels = getattr(library, f"nufft{len(modes)}d2"), _full(modes), c.shape[-1]
    points, options = _prepared(xi)
    found = np.empty((*xi.shape[:2], channels), dtype=points.dtype)
    for row, (x, values) in enumerate(zip(points, np.moveaxis(c.detach().numpy(), -1, 2), strict=True)):
        half = np.zeros((channels, *full), dtype=np.result_type(points.dtype, 1j))
        half[_kept(modes)] = (values[0] + 1j * values[1]) / 2
        z = transform(*x, _paired(half + _mirrored(half)), isign=1, **options).reshape(-1, len(x[0]))
        found[row] = np.stack([z.real, z.imag], 1).reshape(-1, len(x[0]))[:channels].T
    return torch.from_numpy(found)
