"""Residuals of equations, as a loss (physics-informed neural operators: Li et al., arXiv 2111.03794)."""

import torch
from torch import Tensor

from sciml.datasets.recipes.periodic import PeriodicRecipe
from sciml.datasets.verification import recipe_of
from sciml.errors import ConfigError
from sciml.solvers import CartesianGrid
from sciml.solvers.spectral import SpectralSolver

from .data import Pairs

__all__ = ["PeriodicResidual"]


class PeriodicResidual:
    """The residual of u_t = F(u) on a periodic box, of frames at equal intervals dt.

    Derivatives in space are spectral; in time each frame's is a fourth-order (Simpson) balance with its
    neighbours,

        r_n = (u_{n+1} - u_{n-1}) / (2 dt) - (F(u_{n-1}) + 4 F(u_n) + F(u_{n+1})) / 6,

    which frames of the exact solution satisfy up to dt^4 / 180 times the fifth derivative.

    Parameters
    ----------
    pairs : Pairs
        Of task ``spacetime``, made by a recipe on a periodic box.

    Raises
    ------
    ConfigError
        If the equation is not known.
    """

    def __init__(self, pairs: Pairs) -> None:
        if "recipe" not in pairs.config:
            raise ConfigError(
                "physics: the dataset was not made by a recipe, so that its equation is not known; leave it out"
            )
        recipe = recipe_of(pairs.config)
        if not isinstance(recipe, PeriodicRecipe):
            raise ConfigError(
                f"physics: the dataset's recipe is {pairs.config['recipe']!r}, not one on a periodic box such as "
                "burgers; leave it out"
            )
        *space, _ = pairs.resolution
        size = (recipe.length,) * len(space)
        grid = CartesianGrid((0.0,) * len(space), size, tuple(space), (True,) * len(space))
        source = recipe.forcing(grid.axes)
        self.solver = SpectralSolver(recipe.pde(), grid, step=1.0, dealias="padded", source=source)
        self.interval = pairs.spacing[-1]
        self.components = self.solver.equation.components
        for row, (inputs, target) in enumerate(zip(pairs.inputs, pairs.targets, strict=True)):
            if not self._change(torch.cat([self._given(inputs), target], -2)).any():
                raise ConfigError(
                    f"physics: the state of training sample {row} does not change, which leaves nothing to compare its "
                    "residual with; leave the sample out"
                )

    def _given(self, inputs: Tensor) -> Tensor:
        """The last given frame."""
        return inputs[..., :1, :].unflatten(-1, (self.components, -1))[..., -1]

    def _change(self, frames: Tensor) -> Tensor:
        """Central differences in time."""
        return (frames[..., 2:, :] - frames[..., :-2, :]) / (2 * self.interval)

    def __call__(self, frames: Tensor) -> Tensor:
        """Return r_n of frames of shape (B, *space, T, components), shape (B, *space, T - 2, components)."""
        # (B, T, components, *space) and back.
        rate = self.solver.rate(frames.movedim((-2, -1), (1, 2)).contiguous()).movedim((1, 2), (-2, -1))
        before, here, after = rate[..., :-2, :], rate[..., 1:-1, :], rate[..., 2:, :]
        return self._change(frames) - (before + 4 * here + after) / 6

    def relative(self, inputs: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        """Return |r| of a prediction, the last given frame before it, over |u_t| of the target, shape (B,)."""
        given = self._given(inputs)
        residual = self(torch.cat([given, prediction], -2))
        change = self._change(torch.cat([given, target], -2))
        return residual.flatten(1).norm(dim=1) / change.flatten(1).norm(dim=1)
