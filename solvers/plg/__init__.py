"""Poised lattice generation and the PLG finite difference method."""

from .discretise import PLG, LinearSystem

__all__ = ["PLG", "LinearSystem"]
