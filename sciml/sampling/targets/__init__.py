"""Densities whose answers are known: for samplers of densities, and in closed form under noise for diffusion models."""

from .base import TARGETS, Counted, Density, FunctionDensity, Modes, Moment, ScoreDensity, checked, required
from .diffused import Gaussian, Mixture1D, Target
from .lines import Line, ModifiedHarmonic, SteepDoubleWell, SteepPrior
from .mixtures import IsotropicMixture, digit_images, digits, gmm40, three_modes
from .potentials import (
    DoubleWells,
    FourParticles,
    Funnel,
    ManyWell,
    MuellerBrown,
    Phi4Chain,
    TwoPathways,
)

__all__ = [
    "TARGETS",
    "Counted",
    "Density",
    "DoubleWells",
    "FourParticles",
    "FunctionDensity",
    "Funnel",
    "Gaussian",
    "IsotropicMixture",
    "Line",
    "ManyWell",
    "Mixture1D",
    "Modes",
    "ModifiedHarmonic",
    "Moment",
    "MuellerBrown",
    "Phi4Chain",
    "ScoreDensity",
    "SteepDoubleWell",
    "SteepPrior",
    "Target",
    "TwoPathways",
    "checked",
    "digit_images",
    "digits",
    "gmm40",
    "required",
    "three_modes",
]
