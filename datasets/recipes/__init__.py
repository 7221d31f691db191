"""The recipes that ship with the suite; importing this package registers them."""

from .conservation_laws import AdvectionRecipe, BurgersRecipe, KdvRecipe
from .darcy import Darcy
from .darcy_star import DarcyStar
from .heat_star import HeatStar
from .navier_stokes import NavierStokesRecipe
from .odes import Lorenz, LotkaVolterra
from .poisson_star import PoissonStar
from .reactions import AllenCahnRecipe, GrayScottRecipe, KuramotoSivashinskyRecipe, ReactionDiffusionRecipe

__all__ = [
    "AdvectionRecipe",
    "AllenCahnRecipe",
    "BurgersRecipe",
    "Darcy",
    "DarcyStar",
    "GrayScottRecipe",
    "HeatStar",
    "KdvRecipe",
    "KuramotoSivashinskyRecipe",
    "Lorenz",
    "LotkaVolterra",
    "NavierStokesRecipe",
    "PoissonStar",
    "ReactionDiffusionRecipe",
]
