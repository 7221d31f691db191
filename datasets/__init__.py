"""HDF5 datasets: one format, recipes that fill it, an engine that cannot lose work."""

from . import recipes  # noqa: F401 - registers what ships with the suite
from .engine import generate
from .random_fields import GaussianRandomField
from .reader import Dataset, FieldsDataset, OdeDataset, PointsDataset, open_dataset
from .recipe import (
    FieldsLayout,
    FieldSpec,
    OdeLayout,
    PointsLayout,
    Recipe,
    Trajectory,
    recipe_registry,
    trajectory_seeds,
)
from .solutions import save

__all__ = [
    "Dataset",
    "FieldSpec",
    "FieldsDataset",
    "FieldsLayout",
    "GaussianRandomField",
    "OdeDataset",
    "OdeLayout",
    "PointsDataset",
    "PointsLayout",
    "Recipe",
    "Trajectory",
    "generate",
    "open_dataset",
    "recipe_registry",
    "save",
    "trajectory_seeds",
]
