"""Models as polynomials: exact expansion of activation-free networks, algebra, formulas."""

from .expansion import expand
from .polynomials import LIMIT, PolynomialMap, monomial_exponents
from .stencils import differential_form

__all__ = ["LIMIT", "PolynomialMap", "differential_form", "expand", "monomial_exponents"]
