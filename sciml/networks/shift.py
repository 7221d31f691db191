"""The spatial shift: groups of channels moved by whole cells. It mixes tokens without a weight."""

import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError

__all__ = ["SpatialShift"]


class SpatialShift(nn.Module):
    """Move groups of channels by whole cells along the axes of a grid.

    Group g of equal size (the last one takes the rest) becomes y_i = x_(i - o_g) with the offset o_g. With
    ``axes=2`` and the defaults this is the operator of the released MONet, and of S2-MLP (Yu et al., WACV 2022,
    arXiv 2106.07477): quarters that move by +1 and -1 along the first axis, then along the second. Out of place: the
    released code assigns overlapping slices, and depends on how its backend copies.

    Parameters
    ----------
    axes : 1 or 2
        Of the grid.
    border : {"keep", "periodic"}
        What is where nothing moves in: the old value, or what leaves on the other side.
    reach : int
        Largest offset; all up to it have a group.
    unshifted : bool
        Whether the first group stays. A local stencil needs it, or has no centre.

    Attributes
    ----------
    offsets : tuple of tuple of int
        Of each group, one entry for each axis.

    Raises
    ------
    ConfigError
        If an argument is out of its range, or an input has fewer channels than there are groups.

    Examples
    --------
    >>> shift = SpatialShift(1, border="periodic", unshifted=True)
    >>> shift.offsets
    ((0,), (1,), (-1,))
    >>> x = torch.arange(4.0).reshape(1, 4, 1).expand(1, 4, 3)
    >>> shift(x)[0].T
    tensor([[0., 1., 2., 3.],
            [3., 0., 1., 2.],
            [1., 2., 3., 0.]])
    """

    def __init__(
        self,
        axes: int,
        *,
        border: Literal["keep", "periodic"] = "keep",
        reach: int = 1,
        unshifted: bool = False,
    ) -> None:
        super().__init__()
        if axes not in (1, 2):
            raise ConfigError(f"SpatialShift axes={axes}: choose 1 or 2")
        if border not in ("keep", "periodic"):
            raise ConfigError(f"SpatialShift border={border!r}: choose 'keep' or 'periodic'")
        if reach < 1:
            raise ConfigError(f"SpatialShift reach={reach}: it must be at least 1")
        self.axes, self.border, self.reach = axes, border, reach
        self.offsets: tuple[tuple[int, ...], ...] = tuple(
            tuple(sign * distance if axis == moved else 0 for axis in range(axes))
            for distance in range(1, reach + 1)
            for moved in range(axes)
            for sign in (1, -1)
        )
        if unshifted:
            self.offsets = ((0,) * axes, *self.offsets)

    def groups(self, channels: int) -> list[slice]:
        """Return the channels of each group."""
        count = len(self.offsets)
        size = channels // count
        if not size:
            raise ConfigError(
                f"SpatialShift input of {channels} channels: it has {count} groups (reach={self.reach}); give at least "
                "as many channels"
            )
        ends = [*range(0, size * count, size), channels]
        return [slice(a, b) for a, b in itertools.pairwise(ends)]

    def forward(self, x: Tensor) -> Tensor:
        """Shift (B, *space, channels)."""
        if x.ndim != self.axes + 2:
            raise ConfigError(
                f"SpatialShift input of shape {tuple(x.shape)}: expected (batch, {self.axes} axes, channels)"
            )
        if min(x.shape[1:-1]) <= self.reach:
            raise ConfigError(
                f"SpatialShift input of {tuple(x.shape[1:-1])} cells: each axis needs more than reach={self.reach}"
            )
        parts = []
        for offset, channels in zip(self.offsets, self.groups(x.shape[-1]), strict=True):
            part = x[..., channels]
            for axis, cells in enumerate(offset, 1):
                if cells:
                    part = self._moved(part, axis, cells)
            parts.append(part)
        return torch.cat(parts, dim=-1)

    def _moved(self, x: Tensor, axis: int, cells: int) -> Tensor:
        if self.border == "periodic":
            return x.roll(cells, axis)
        size, n = x.shape[axis], abs(cells)
        if cells > 0:
            return torch.cat([x.narrow(axis, 0, n), x.narrow(axis, 0, size - n)], axis)
        return torch.cat([x.narrow(axis, n, size - n), x.narrow(axis, size - n, n)], axis)

    def extra_repr(self) -> str:
        """Return what the module prints of itself."""
        return f"offsets={self.offsets}, border={self.border!r}"
