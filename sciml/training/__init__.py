"""Training and evaluation of learned operators and score models."""

from .comparison import compare
from .config import TrainConfig
from .denoising import ScoreConfig, load_fields
from .dynamics import DynamicsConfig, train_dynamics
from .evaluation import evaluate
from .loop import train
from .prediction_files import predict_file

__all__ = [
    "DynamicsConfig",
    "ScoreConfig",
    "TrainConfig",
    "compare",
    "evaluate",
    "load_fields",
    "predict_file",
    "train",
    "train_dynamics",
]
