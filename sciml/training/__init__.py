"""Training and evaluation of learned operators."""

from .comparison import compare
from .config import TrainConfig
from .evaluation import evaluate
from .loop import train
from .prediction_files import predict_file

__all__ = ["TrainConfig", "compare", "evaluate", "predict_file", "train"]
