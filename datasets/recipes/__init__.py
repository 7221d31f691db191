"""The recipes that ship with the suite; importing this package registers them.

A class is named as its recipe, with the suffix ``Recipe``: ``heat-star`` is `HeatStarRecipe`.
"""

from .conservation_laws import AdvectionRecipe, BurgersRecipe, KdvRecipe
from .darcy import DarcyRecipe
from .darcy_star import DarcyStarRecipe
from .elasticity import ElasticityRecipe
from .heat_star import HeatStarRecipe
from .navier_stokes import NavierStokesRecipe
from .odes import LorenzRecipe, LotkaVolterraRecipe
from .pipe_flow import PipeFlowRecipe
from .poisson_star import PoissonStarRecipe
from .poisson_star_cloud import PoissonStarCloudRecipe
from .reactions import AllenCahnRecipe, GrayScottRecipe, KuramotoSivashinskyRecipe, ReactionDiffusionRecipe

__all__ = [
    "AdvectionRecipe",
    "AllenCahnRecipe",
    "BurgersRecipe",
    "DarcyRecipe",
    "DarcyStarRecipe",
    "ElasticityRecipe",
    "GrayScottRecipe",
    "HeatStarRecipe",
    "KdvRecipe",
    "KuramotoSivashinskyRecipe",
    "LorenzRecipe",
    "LotkaVolterraRecipe",
    "NavierStokesRecipe",
    "PipeFlowRecipe",
    "PoissonStarCloudRecipe",
    "PoissonStarRecipe",
    "ReactionDiffusionRecipe",
]
