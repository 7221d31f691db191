"""The recipes that ship with the suite; importing this package registers them."""

from .darcy import Darcy
from .poisson_star import PoissonStar

__all__ = ["Darcy", "PoissonStar"]
