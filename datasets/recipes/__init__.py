"""The recipes that ship with the suite; importing this package registers them."""

from .conservation_laws import AdvectionRecipe, BurgersRecipe, KdvRecipe
from .darcy import Darcy
from .navier_stokes import NavierStokesRecipe
from .odes import Lorenz, LotkaVolterra
from .poisson_star import PoissonStar
from .reactions import AllenCahnRecipe, GrayScottRecipe, KuramotoSivashinskyRecipe, ReactionDiffusionRecipe

__all__ = [
    "AdvectionRecipe",
    "AllenCahnRecipe",
    "BurgersRecipe",
    "Darcy",
    "GrayScottRecipe",
    "KdvRecipe",
    "KuramotoSivashinskyRecipe",
    "Lorenz",
    "LotkaVolterra",
    "NavierStokesRecipe",
    "PoissonStar",
    "ReactionDiffusionRecipe",
]
