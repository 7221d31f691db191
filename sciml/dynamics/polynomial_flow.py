"""Trajectories of polynomial vector fields by the classical Runge-Kutta method, with their derivatives.

In one compiled loop with the extra `fast`; without it by NumPy, many trajectories at a time, to the same digits but
the last ones.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.operators.threads import in_parts
from sciml.solvers.compiled import kernels

from .rollout import advance

__all__ = ["PolynomialFlow", "StencilFlow", "roll_out_polynomial"]


class PolynomialFlow:
    """The flow of fields with given monomials.

    Parameters
    ----------
    exponents : ndarray of int, shape (M, d)
    substeps : int
        Steps from each frame to the next.

    Examples
    --------
    >>> flow = PolynomialFlow(np.array([[1]]), 10)
    >>> flow.frames(np.array([[-1.0]]), np.ones((1, 1)), np.ones((1, 2))).round(4).ravel().tolist()
    [1.0, 0.3679, 0.1353]
    """

    def __init__(self, exponents: np.ndarray, substeps: int) -> None:
        self.exponents = np.ascontiguousarray(exponents, np.int64)
        self.substeps, self.degree = substeps, int(self.exponents.max(initial=1))
        self.kernels: Any = kernels("compiled_flow", __package__)

    def frames(self, table: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return states, shape (B, W, d), from starts (B, d) and the times between frames (B, W - 1)."""
        if self.kernels is None:
            none = np.zeros(0, np.int64)
            return self._stepped(table, none, none, starts[..., None], lengths)[..., 0]
        frames = np.empty((len(starts), lengths.shape[1] + 1, starts.shape[1]))
        frames[:, 0] = starts
        arguments = (
            *self.chain[1:],
            self._ordered(table),
            np.ascontiguousarray(lengths),
            self.substeps,
            frames,
        )
        self._in_blocks(self.kernels.states, arguments, len(starts))
        return frames

    def sensitivities(
        self,
        table: np.ndarray,
        rows: np.ndarray,
        outputs: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
    ) -> np.ndarray:
        """Return states and their derivatives by the start and by ``table[rows, outputs]``.

        The variational equations, integrated with the states: what comes out are the derivatives of the discrete
        states.

        Returns
        -------
        ndarray, shape (B, W, d, 1 + d + P)
        """
        d = starts.shape[1]
        start = np.zeros((len(starts), d, 1 + d + len(rows)))
        start[:, :, 0] = starts
        start[:, :, 1 : 1 + d] = np.eye(d)
        return self._run(table, rows, outputs, start, lengths)

    def adjoint(
        self, table: np.ndarray, frames: np.ndarray, lengths: np.ndarray, upstream: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives of sum(upstream * frames) by the table and by the starts.

        Exact ones, of the discrete states, at the cost of about three roll-outs, whatever the number of coefficients.
        """
        if self.kernels is None:
            rows, outputs = (index.ravel() for index in np.indices(table.shape))
            found = self.sensitivities(table, rows, outputs, frames[:, 0], lengths)[..., 1:]
            both = np.einsum("bwd,bwdp->bp", upstream, found)
            d = frames.shape[2]
            return both[:, d:].sum(0).reshape(table.shape), both[:, :d]
        count, _, d = frames.shape
        blocks = -(-count // self.kernels.LANES)
        ordered = self._ordered(table)
        of_table, of_start = np.empty((blocks, *ordered.shape)), np.empty((count, d))
        arrays = (np.ascontiguousarray(array) for array in (frames, upstream))
        arguments = (*self.chain[1:], ordered, np.ascontiguousarray(lengths), self.substeps, *arrays)
        self._in_blocks(self.kernels.adjoint, (*arguments, of_table, of_start), count)
        found = np.empty_like(ordered)
        found[self.chain[0]] = of_table.sum(0)
        return found[: len(table)], of_start

    @functools.cached_property
    def chain(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Order of the monomials by degree, and of each another one and the variable that gives it; -1 of 1.

        Those that are missing for this come after the table's own in what is ordered.
        """
        rows = [tuple(row) for row in self.exponents.tolist()]
        for row in rows:
            if sum(row) and _parent(row)[0] not in rows:
                rows.append(_parent(row)[0])
        order = np.array(sorted(range(len(rows)), key=lambda i: sum(rows[i])), np.int64)
        rows = [rows[i] for i in order]
        parents = [rows.index(_parent(row)[0]) if sum(row) else -1 for row in rows]
        factors = [_parent(row)[1] if sum(row) else 0 for row in rows]
        return order, np.array(parents, np.int64), np.array(factors, np.int64)

    def _ordered(self, table: np.ndarray) -> np.ndarray:
        """The table in that order, with zeros for the monomials that are added."""
        order = self.chain[0]
        return np.ascontiguousarray(np.pad(table, ((0, len(order) - len(table)), (0, 0)))[order])

    def _in_blocks(self, kernel: Any, arguments: tuple[Any, ...], count: int) -> None:
        blocks = -(-count // self.kernels.LANES)
        in_parts(lambda first, last: kernel(*arguments, first, last), blocks, most=blocks)

    def _run(
        self, table: np.ndarray, rows: np.ndarray, outputs: np.ndarray, start: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        if self.kernels is None:
            return self._stepped(table, rows, outputs, start, lengths)
        frames = np.empty((len(start), lengths.shape[1] + 1, *start.shape[1:]))
        frames[:, 0] = start
        table, lengths = np.ascontiguousarray(table), np.ascontiguousarray(lengths)
        rows, outputs = (np.ascontiguousarray(index, np.int64) for index in (rows, outputs))

        def work(first: int, last: int) -> None:
            self.kernels.flow(
                *(self.exponents, self.degree, table, rows, outputs, lengths, self.substeps, frames),
                *(first, last),
            )

        in_parts(work, len(start), most=len(start) // 4)
        return frames

    def _stepped(
        self, table: np.ndarray, rows: np.ndarray, outputs: np.ndarray, start: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        d = start.shape[1]
        columns = 1 + d + np.arange(len(rows))

        def slope(t: float, y: np.ndarray) -> np.ndarray:
            powers = self.powers(y[:, :, 0])
            monomials = self.product(powers)
            found = np.empty_like(y)
            found[:, :, 0] = monomials @ table
            if y.shape[2] > 1:
                np.matmul(self.jacobian(powers, table), y[:, :, 1:], out=found[:, :, 1:])
                found[:, outputs, columns] += monomials[:, rows]
            return found

        return _stepped(slope, start, lengths, self.substeps)

    def powers(self, x: np.ndarray) -> np.ndarray:
        """Return x^0, x^1, ..., shape (degree + 1, B, d), of points (B, d)."""
        table = np.ones((self.degree + 1, *x.shape))
        for power in range(1, self.degree + 1):
            np.multiply(table[power - 1], x, out=table[power])
        return table

    def product(self, powers: np.ndarray, derived: int = -1) -> np.ndarray:
        """Return the monomials, shape (B, M), or their derivatives by one variable."""
        product: np.ndarray | float = 1.0
        for j, exponents in enumerate(self.exponents.T):
            product = product * powers[exponents - (j == derived), :, j]
        if derived >= 0:
            product = product * self.exponents[:, derived, None]
        return np.asarray(product).T

    def jacobian(self, powers: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Return df_k/dx_i, shape (B, d, d)."""
        return np.stack([self.product(powers, i) @ table for i in range(self.exponents.shape[1])], -1)


class StencilFlow:
    """The flow of polynomial stencils on periodic grids.

    Parameters
    ----------
    exponents : ndarray of int, shape (M, cells * k)
        Variable v is component v mod k of cell v // k.
    cells : list of tuple of int
        Offsets of a node's neighbours, itself one of them.
    substeps : int

    Examples
    --------
    >>> flow = StencilFlow(np.eye(3, dtype=int), [(-1,), (0,), (1,)], 4)
    >>> heat = np.array([[1.0], [-2.0], [1.0]])
    >>> flow.frames(heat, np.eye(4)[:1, :, None], np.array([[0.1]]))[0, 1, :, 0].round(4).tolist()
    [0.8269, 0.0824, 0.0082, 0.0824]
    """

    def __init__(self, exponents: np.ndarray, cells: list[tuple[int, ...]], substeps: int) -> None:
        self.exponents = np.ascontiguousarray(exponents, np.int64)
        self.cells, self.substeps, self.degree = cells, substeps, int(self.exponents.max(initial=1))
        self.kernels: Any = kernels("compiled_stencils", __package__)

    def frames(self, table: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return states, shape (B, W, *space, k), from starts (B, *space, k) and times between frames (B, W - 1)."""
        none = np.zeros(0, np.int64)
        return self.sensitivities(table, none, none, starts, lengths)[..., 0]

    def sensitivities(
        self,
        table: np.ndarray,
        rows: np.ndarray,
        outputs: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
    ) -> np.ndarray:
        """Return states and their derivatives by ``table[rows, outputs]``, shape (B, W, *space, k, 1 + P)."""
        space = starts.shape[1:-1]
        start = np.zeros((*starts.shape, 1 + len(rows)))
        start[..., 0] = starts
        start = start.reshape(len(starts), -1, *start.shape[-2:])
        nodes = np.arange(start.shape[1]).reshape(space)
        axes = tuple(range(len(space)))
        # The value of cell k at node n is that of node n + k.
        neighbours = np.stack([np.roll(nodes, [-k for k in cell], axes).ravel() for cell in self.cells], 1)
        run = self._compiled if self.kernels is not None else self._stepped
        frames = run(
            table, np.ascontiguousarray(rows), np.ascontiguousarray(outputs), neighbours, start, lengths
        )
        return frames.reshape(*frames.shape[:2], *space, *frames.shape[-2:])

    def _compiled(
        self,
        table: np.ndarray,
        rows: np.ndarray,
        outputs: np.ndarray,
        neighbours: np.ndarray,
        start: np.ndarray,
        lengths: np.ndarray,
    ) -> np.ndarray:
        frames = np.empty((len(start), lengths.shape[1] + 1, *start.shape[1:]))
        frames[:, 0] = start
        table, lengths = np.ascontiguousarray(table), np.ascontiguousarray(lengths)
        neighbours = np.ascontiguousarray(neighbours)

        def work(first: int, last: int) -> None:
            self.kernels.flow(
                *(self.exponents, self.degree, table, rows, outputs, neighbours, lengths, self.substeps),
                *(frames, first, last),
            )

        in_parts(work, len(start), most=len(start))
        return frames

    def _stepped(
        self,
        table: np.ndarray,
        rows: np.ndarray,
        outputs: np.ndarray,
        neighbours: np.ndarray,
        start: np.ndarray,
        lengths: np.ndarray,
    ) -> np.ndarray:
        batch, nodes, k, columns = start.shape
        places = 1 + np.arange(len(rows))
        local = PolynomialFlow(self.exponents, 1)

        def slope(t: float, y: np.ndarray) -> np.ndarray:
            # All nodes of all states are points; their variables the neighbours' components.
            around = y[:, neighbours].reshape(batch * nodes, -1, columns)
            powers = local.powers(around[:, :, 0])
            monomials = local.product(powers)
            found = np.empty((batch * nodes, k, columns))
            found[:, :, 0] = monomials @ table
            if columns > 1:
                np.matmul(local.jacobian(powers, table), around[:, :, 1:], out=found[:, :, 1:])
                found[:, outputs, places] += monomials[:, rows]
            return found.reshape(y.shape)

        return _stepped(slope, start, lengths, self.substeps)


def _stepped(slope: Any, start: np.ndarray, lengths: np.ndarray, substeps: int) -> np.ndarray:
    """Frames by the integrators of the suite."""
    frames, tail = [start], (1,) * (start.ndim - 1)
    # Trial fields may leave all ranges; the states say so.
    with np.errstate(all="ignore"):
        for length in lengths.T:
            frames.append(advance(slope, frames[-1], length.reshape(-1, *tail), substeps))
    return np.stack(frames, 1)


def _parent(row: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """A monomial without its last variable, and that."""
    last = max(j for j, power in enumerate(row) if power)
    return tuple(power - (j == last) for j, power in enumerate(row)), last


def roll_out_polynomial(flow: PolynomialFlow, table: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
    """Return states, shape (B, W, d), with gradients to the table of coefficients (M, d) and to starts (B, d)."""
    found: Tensor = _RollOut.apply(flow, table, starts, lengths)
    return found


class _RollOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flow: PolynomialFlow, table: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        frames = torch.from_numpy(flow.frames(*(part.detach().numpy() for part in (table, starts, lengths))))
        ctx.flow = flow
        ctx.save_for_backward(table, lengths, frames)
        return frames

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor, Tensor, None]:
        table, lengths, frames = (part.detach().numpy() for part in ctx.saved_tensors)
        of_table, of_start = ctx.flow.adjoint(table, frames, lengths, upstream.numpy())
        return None, torch.from_numpy(of_table), torch.from_numpy(of_start), None
