"""Pseudo-spectral solvers on periodic boxes, for NumPy arrays and others of the array API standard."""

from .basis import FourierBasis
from .equation import SpectralEquation
from .reactions import AllenCahn, GrayScott, ReactionDiffusion
from .solver import SpectralSolver
from .transforms import Transforms
from .transport import AdvectionDiffusion, Burgers, KortewegDeVries, KuramotoSivashinsky, NavierStokes

__all__ = [
    "AdvectionDiffusion",
    "AllenCahn",
    "Burgers",
    "FourierBasis",
    "GrayScott",
    "KortewegDeVries",
    "KuramotoSivashinsky",
    "NavierStokes",
    "ReactionDiffusion",
    "SpectralEquation",
    "SpectralSolver",
    "Transforms",
]
