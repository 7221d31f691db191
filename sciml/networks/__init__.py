"""Networks without activations: Mu-layers, blocks of them, and image classifiers made of these (MONet)."""

from .monet import MONET_S, MONET_T, MONet, MONetConfig
from .mu_layer import MuLayer, Norm, PolyBlock
from .shift import SpatialShift

__all__ = ["MONET_S", "MONET_T", "MONet", "MONetConfig", "MuLayer", "Norm", "PolyBlock", "SpatialShift"]
