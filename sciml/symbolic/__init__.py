"""Models as polynomials: exact expansion of activation-free networks, algebra, formulas."""

from .expansion import expand
from .polynomials import LIMIT, PolynomialMap, monomial_exponents

__all__ = ["LIMIT", "PolynomialMap", "expand", "monomial_exponents"]
