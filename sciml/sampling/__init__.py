"""Samplers: diffusion models' schedules and solvers, targets with known answers, samples as datasets."""

from .adaptive import StepControl
from .discrete_schedule import DiscreteSchedule
from .dpm_solver import Sampled, Sampler, sample
from .fields import draw_fields, load_score_model, sample_fields
from .flows import ProbabilityFlow, ReverseDiffusion
from .grids import time_grid
from .guidance import DynamicThreshold, classifier_free_guidance, classifier_guidance
from .measurements import Measurements, measured_denoiser, reconstruct
from .noise import SampleNoise
from .parametrisations import edm_preconditioning
from .plans import SOLVERS, Solver
from .schedules import VE, FlowMatching, Level, Schedule, VPCosine, VPLinear
from .score_evaluation import evaluate_score
from .targets import Gaussian, Mixture1D, Target

__all__ = [
    "SOLVERS",
    "VE",
    "DiscreteSchedule",
    "DynamicThreshold",
    "FlowMatching",
    "Gaussian",
    "Level",
    "Measurements",
    "Mixture1D",
    "ProbabilityFlow",
    "ReverseDiffusion",
    "SampleNoise",
    "Sampled",
    "Sampler",
    "Schedule",
    "Solver",
    "StepControl",
    "Target",
    "VPCosine",
    "VPLinear",
    "classifier_free_guidance",
    "classifier_guidance",
    "draw_fields",
    "edm_preconditioning",
    "evaluate_score",
    "load_score_model",
    "measured_denoiser",
    "reconstruct",
    "sample",
    "sample_fields",
    "time_grid",
]
