"""Training and evaluation of learned operators."""

from .config import TrainConfig
from .evaluation import evaluate
from .loop import train
from .weights import load_model, save_model

__all__ = ["TrainConfig", "evaluate", "load_model", "save_model", "train"]
