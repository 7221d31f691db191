"""Training and evaluation of learned operators."""

from .config import TrainConfig
from .evaluation import evaluate
from .loop import train

__all__ = ["TrainConfig", "evaluate", "train"]
