"""Operators between functions that are given at points of domains of their own.

A cloud of points is a tensor of shape (N, channels). Its channels are the position, one quadrature weight, the input
fields, and the code: numbers that describe the whole sample, the same at all its points. Batches of clouds of different
lengths are filled up with points of weight 0, which count for nothing.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sciml.errors import ConfigError

from .base import Operator

__all__ = ["CloudOperator", "cloud"]

ROUNDING = 1e-6
"""Added to the squares of magnitudes, in units of the targets' variance: of nothing there is no derivative."""
MARGIN = 0.02
"""Of the box around the training points, how far others may be outside, as a fraction of its length."""


def cloud(
    points: Tensor, fields: Tensor | None = None, code: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return clouds as operators take them.

    Parameters
    ----------
    points : Tensor, shape (B, N, dim)
    fields : Tensor, shape (B, N, channels), optional
    code : Tensor, shape (B, numbers), optional
    weights : Tensor, shape (B, N), optional
        Of the points, whose sum is the size of the domain; 0 for points that only fill up. 1 / N each by default.

    Returns
    -------
    Tensor, shape (B, N, dim + 1 + channels + numbers)

    Raises
    ------
    ConfigError
        If shapes do not fit together.

    Examples
    --------
    >>> cloud(torch.rand(2, 100, 2), fields=torch.rand(2, 100, 3), code=torch.rand(2, 5)).shape
    torch.Size([2, 100, 11])
    """
    if points.ndim != 3:
        raise ConfigError(f"points of shape {tuple(points.shape)}: give (clouds, points, coordinates)")
    batch, count = points.shape[:2]
    wanted_shapes = (
        ("fields", fields, 3, (batch, count)),
        ("code", code, 2, (batch,)),
        ("weights", weights, 2, (batch, count)),
    )
    for name, part, axes, begin in wanted_shapes:
        if part is not None and (part.ndim != axes or tuple(part.shape[: len(begin)]) != begin):
            wanted = ", ".join(map(str, begin)) + ("" if len(begin) == axes else ", channels")
            raise ConfigError(
                f"{name} of shape {tuple(part.shape)} beside points of {tuple(points.shape)}: give ({wanted})"
            )
    if weights is None:
        weights = points.new_full((batch, count), 1 / max(count, 1))
    parts = [points, weights[..., None]]
    if fields is not None:
        parts.append(fields)
    if code is not None:
        parts.append(code[:, None].expand(-1, count, -1))
    return torch.cat(parts, -1)


class CloudOperator(Operator):
    """What operators on clouds share: the box of the training points is taken to the unit box.

    Parameters
    ----------
    in_channels : int
        Of a point: position, weight, fields, code.
    out_channels : int
    periodic : tuple of bool
        One value, False, for each coordinate of a position.
    config : dataclass, optional
        With ``code_size``, the number of channels of the code, and ``magnitude``, of how many components targets are
        the magnitude, 0 if they are none.
    **overrides
        Fields of it to replace.

    Raises
    ------
    ConfigError
        If there are fewer channels than these.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        periodic: tuple[bool, ...] = (False, False),
        config: Any = None,
        **overrides: object,
    ) -> None:
        super().__init__(in_channels, out_channels, periodic, config, **overrides)
        name = type(self).__name__
        if any(periodic):
            raise ConfigError(f"{name} periodic={periodic}: positions are of a box that is not")
        self.dim = len(periodic)
        self.predicted_channels = self.out_channels * max(1, self.config.magnitude)
        self.field_channels = in_channels - self.dim - 1 - self.config.code_size
        if self.field_channels < 0:
            raise ConfigError(
                f"{name} in_channels={in_channels}: a position takes {self.dim}, a weight 1 and the code "
                f"{self.config.code_size}"
            )

    remedy = "give more"
    """What to do about too few points."""

    @property
    def axes(self) -> int:
        """Axes of the input between batch and channels: that of the points."""
        return 1

    def check_resolution(self, space: tuple[int, ...]) -> None:
        """Raise `ConfigError` if there are too few points for the model."""
        if space[0] < self.least_points:
            raise ConfigError(
                f"{type(self).__name__} has too few points, {space[0]}: it needs at least {self.least_points}, "
                f"{self.remedy}"
            )

    @property
    def least_points(self) -> int:
        """How few points a cloud may have."""
        return self.dim + 1

    def set_normalisers(self, inputs: Tensor | Sequence[Tensor], outputs: Tensor) -> None:
        """Set box, means and deviations from training clouds; points of weight 0 do not count.

        Weights are divided by the domains' mean size, so that the unit of length does not matter.

        Parameters
        ----------
        inputs : Tensor, shape (n, N, in_channels)
        outputs : Tensor, shape (n, N, out_channels)

        Raises
        ------
        ConfigError
            If ``magnitude`` is set and a target is negative.
        """
        assert isinstance(inputs, Tensor)
        inside = inputs[..., self.dim] > 0
        known, results = inputs[inside], outputs[inside]
        if self.config.magnitude and (results < 0).any():
            raise ConfigError(
                f"{type(self).__name__} magnitude={self.config.magnitude}: a target is {float(results.min()):.3g}, and "
                "magnitudes are not negative; leave it out"
            )
        super().set_normalisers(known, results)
        x = known[:, : self.dim]
        low, high = x.amin(0), x.amax(0)
        self.input_mean[: self.dim] = low
        self.input_std[: self.dim] = torch.where(high > low, high - low, 1.0)
        self.input_mean[self.dim], self.input_std[self.dim] = 0.0, inputs[..., self.dim].sum(-1).mean()

    def check_clouds(self, a: Tensor) -> None:
        """Raise `ConfigError` if clouds, (B, N, in_channels), have too few points, or some outside of the box."""
        inside = a[..., self.dim] > 0
        fewest = int(inside.sum(1).min()) if len(a) else self.least_points
        self.check_resolution((fewest,))
        x = (a[..., : self.dim] - self.input_mean[: self.dim]) / self.input_std[: self.dim]
        # What is not a number is not inside either.
        outside = ~((x >= -MARGIN) & (x <= 1 + MARGIN)).all(-1) & inside
        if outside.any():
            row, point = outside.nonzero()[0].tolist()
            low = self.input_mean[: self.dim]
            place, *box = (
                [round(v, 4) for v in part.tolist()]
                for part in (a[row, point, : self.dim], low, low + self.input_std[: self.dim])
            )
            raise ConfigError(
                f"point {point} of cloud {row}, {place}, is outside of the box from {box[0]} to {box[1]} of the "
                f"{type(self).__name__}'s training points: give points inside, in the same units"
            )

    def forward(self, a: Tensor) -> Tensor:
        """Map clouds (B, N, in_channels) to functions at their points, (B, N, out_channels).

        Raises
        ------
        ConfigError
            If channels, axes or the precision do not fit, points are too few, or outside of the box.
        """
        if a.ndim == 3 and a.shape[-1] == self.in_channels and not self.training:
            self.check_clouds(a)
        return super().forward(a)

    def split(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return positions in the unit box, weights, fields, and the code, shape (B, numbers), of normalised clouds."""
        x, weight, fields, code = a.split([self.dim, 1, self.field_channels, self.config.code_size], -1)
        return x, weight[..., 0], fields, code[:, 0]

    def targets_of(self, predicted: Tensor) -> Tensor:
        """Return normalised targets, (..., out_channels), of what networks end with, (..., predicted_channels)."""
        if not self.config.magnitude:
            return predicted
        squares = predicted.unflatten(-1, (self.out_channels, self.config.magnitude)).square().sum(-1)
        return (squares + ROUNDING).sqrt() - self.output_mean / self.output_std
