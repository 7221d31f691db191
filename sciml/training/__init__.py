"""Training and evaluation of learned operators."""

from .comparison import compare
from .config import TrainConfig
from .evaluation import evaluate
from .loop import train

__all__ = ["TrainConfig", "compare", "evaluate", "train"]
