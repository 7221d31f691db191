"""Samplers of diffusion models and of densities, targets with known answers, samples as datasets."""

from .adaptive import StepControl
from .averages import Average, average, effective_sample_size, split_r_hat
from .chains import Chains, run_chains
from .dilation import Annealed, Rule, anneal
from .discrete_schedule import DiscreteSchedule
from .dpm_solver import Sampled, Sampler, sample
from .fields import draw_fields, load_score_model, sample_fields
from .flows import ProbabilityFlow, ReverseDiffusion
from .grids import time_grid
from .guidance import DynamicThreshold, classifier_free_guidance, classifier_guidance
from .langevin import Overdamped, Underdamped
from .measurements import Measurements, measured_denoiser, reconstruct
from .methods import Budget, draw
from .monitors import BoundedMonitor, FunctionMonitor, GradientMonitor, Monitor
from .noise import SampleNoise
from .parametrisations import edm_preconditioning
from .paths import DilationPath, GeometricPath, levels
from .plans import SOLVERS, Solver
from .schedules import VE, FlowMatching, Level, Schedule, VPCosine, VPLinear
from .score_evaluation import evaluate_score
from .smc import Particles, annealed_smc
from .stationary import stationary_averages
from .targets import (
    TARGETS,
    Density,
    FunctionDensity,
    Gaussian,
    IsotropicMixture,
    Mixture1D,
    Moment,
    ScoreDensity,
    Target,
)

__all__ = [
    "SOLVERS",
    "TARGETS",
    "VE",
    "Annealed",
    "Average",
    "BoundedMonitor",
    "Budget",
    "Chains",
    "Density",
    "DilationPath",
    "DiscreteSchedule",
    "DynamicThreshold",
    "FlowMatching",
    "FunctionDensity",
    "FunctionMonitor",
    "Gaussian",
    "GeometricPath",
    "GradientMonitor",
    "IsotropicMixture",
    "Level",
    "Measurements",
    "Mixture1D",
    "Moment",
    "Monitor",
    "Overdamped",
    "Particles",
    "ProbabilityFlow",
    "ReverseDiffusion",
    "Rule",
    "SampleNoise",
    "Sampled",
    "Sampler",
    "Schedule",
    "ScoreDensity",
    "Solver",
    "StepControl",
    "Target",
    "Underdamped",
    "VPCosine",
    "VPLinear",
    "anneal",
    "annealed_smc",
    "average",
    "classifier_free_guidance",
    "classifier_guidance",
    "draw",
    "draw_fields",
    "edm_preconditioning",
    "effective_sample_size",
    "evaluate_score",
    "levels",
    "load_score_model",
    "measured_denoiser",
    "reconstruct",
    "run_chains",
    "sample",
    "sample_fields",
    "split_r_hat",
    "stationary_averages",
    "time_grid",
]
