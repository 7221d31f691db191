"""Networks without activations written down as polynomials, exactly.

Linear maps, products and sums of polynomials are polynomials; batch normalisation in eval mode is affine; the spatial
shift renames variables. One Mu-layer y = C [(A x + a) * (L x + b) + A x + a] + c with L = B D and b = B d + b_0 is

    y_k = x^T (sum_j C_kj a_j l_j^T) x + sum_j C_kj ((1 + b_j) A_j + a_j L_j) x + c_k + sum_j C_kj a_j (1 + b_j).
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor, nn

from sciml.errors import ConfigError
from sciml.networks import MuLayer, PolyBlock, SpatialShift

from .polynomials import LIMIT, PolynomialMap

__all__ = ["expand"]

Norms = nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | nn.InstanceNorm1d | nn.InstanceNorm2d


def expand(
    module: nn.Module,
    variables: Sequence[str] = (),
    *,
    scale: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
    limit: int = LIMIT,
) -> PolynomialMap:
    """Return the polynomial that a network without norms is.

    Parameters
    ----------
    module : MuLayer, PolyBlock, nn.Linear, batch norm in eval mode, or nn.Sequential of such
    variables : sequence of str
        Names of the inputs, x0, x1, ... by default. Behind a spatial shift, which must be periodic, the variables are
        those of all cells in reach: u[-1], u[0], u[1].
    scale, offset : sequence of float, optional
        Expand module((x - offset) / scale).
    limit : int
        Most monomials.

    Raises
    ------
    ConfigError
        If a layer is no polynomial (its name is told) or the polynomial has too many monomials.

    Examples
    --------
    >>> import torch
    >>> layers = nn.Sequential(MuLayer(2, 4, 2, norm=None), MuLayer(2, 4, 1, norm=None)).double()
    >>> p = expand(layers, ("x", "y"))
    >>> x = torch.rand(5, 2, dtype=torch.float64)
    >>> p.degree, bool(np.allclose(p(x.numpy()), layers(x).detach(), rtol=0, atol=1e-11))
    (4, True)
    """
    shifts = list(_shifts(module))
    for shift in shifts:
        if shift.border != "periodic":
            raise ConfigError(f"{shift}: only a periodic shift is the same at all cells; border='periodic'")
    features = _features(module)
    names = tuple(variables) or tuple(f"x{i}" for i in range(features))
    if len(names) != features:
        raise ConfigError(f"variables={list(variables)}: the network has {features} inputs")
    for argument, given in (("scale", scale), ("offset", offset)):
        values = np.asarray(0.5 if given is None else given, float)
        zero = argument == "scale" and not (values != 0).all()
        if values.shape not in ((), (features,)) or not np.isfinite(values).all() or zero:
            raise ConfigError(f"{argument}={given}: give {features} finite numbers, scales not 0")
    cells = _cells(shifts)
    if shifts:
        names = tuple(f"{name}[{','.join(map(str, cell))}]" for cell in cells for name in names)
    weight = np.zeros((features, len(cells) * features))
    centre = cells.index((0,) * len(cells[0])) * features
    inverse = 1 / np.broadcast_to(np.asarray(1.0 if scale is None else scale, float), features)
    weight[:, centre : centre + features] = np.diag(inverse)
    start = None if offset is None else -np.broadcast_to(np.asarray(offset, float), features) * inverse
    identity = PolynomialMap.linear_map(weight, start, names).pruned(0.0)
    return _Expansion(cells, features, limit).run(module, identity, "")


def _shifts(module: nn.Module) -> Iterator[SpatialShift]:
    """Every shift that is passed on the way, one that is shared as often as it is used."""
    for _, part in module.named_modules(remove_duplicate=False):
        if isinstance(part, MuLayer) and part.shift is not None:
            yield part.shift


def _features(module: nn.Module) -> int:
    for part in module.modules():
        if isinstance(part, MuLayer | nn.Linear):
            return part.in_features
        if isinstance(part, nn.BatchNorm1d):
            return part.num_features
    raise ConfigError(f"{type(module).__name__}: it has no linear map or Mu-layer to expand")


def _cells(shifts: Sequence[SpatialShift]) -> list[tuple[int, ...]]:
    """Offsets of the cells that the output can depend on."""
    if not shifts:
        return [(0,)]
    reach, axes = sum(shift.reach for shift in shifts), shifts[0].axes
    box = itertools.product(range(-reach, reach + 1), repeat=axes)
    return [cell for cell in box if sum(map(abs, cell)) <= reach]


class _Expansion:
    def __init__(self, cells: list[tuple[int, ...]], features: int, limit: int) -> None:
        self.cells, self.features, self.limit = cells, features, limit

    def run(self, module: nn.Module, p: PolynomialMap, name: str) -> PolynomialMap:
        """Return module(p); the name is the module's place."""
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.Sequential):
            for key, part in module.named_children():
                p = self.run(part, p, prefix + key)
            return p
        if isinstance(module, nn.Linear):
            return p.transformed(_array(module.weight), _optional(module.bias))
        if isinstance(module, nn.BatchNorm1d):
            return self._batch_norm(module, p, name)
        if isinstance(module, MuLayer):
            return self._mu(module, p, prefix)
        if isinstance(module, PolyBlock):
            second = "norm" if module.norm2 is None else "norm2"
            for key, norm in (("mu1", "norm"), ("mu2", second)):
                part = getattr(module, norm)
                z = p if part is None else self.run(part, p, prefix + norm)
                p = p + self.run(getattr(module, key), z, prefix + key)
            return p
        if isinstance(module, nn.Identity):
            return p
        kind = type(module).__name__
        where = f"layer {name!r}" if name else "the module"
        if isinstance(module, Norms):
            raise ConfigError(
                f"{where} is a {kind}, which divides by what depends on its input: no polynomial; train with "
                "norm=None, or with norm='batch' and expand in eval mode"
            )
        raise ConfigError(f"{where} is a {kind}: only Mu-layers, linear maps and batch norms are polynomials")

    def _mu(self, layer: MuLayer, p: PolynomialMap, prefix: str) -> PolynomialMap:
        a = p.transformed(_array(layer.A.weight), _optional(layer.A.bias))
        d = p.transformed(_array(layer.D.weight), _optional(layer.D.bias))
        if layer.shift is not None:
            a, d = self._shift(layer.shift, a), self._shift(layer.shift, d)
        b = d.transformed(_array(layer.B.weight), _optional(layer.B.bias))
        if layer.norm_a is not None and layer.norm_b is not None and layer.alpha is not None:
            a = self.run(layer.norm_a, a, f"{prefix}norm_a")
            b = self.run(layer.norm_b, b, f"{prefix}norm_b")
            b = b.transformed(layer.alpha.item() * np.eye(layer.hidden))
        return (a.times(b, self.limit) + a).transformed(_array(layer.C.weight), _optional(layer.C.bias))

    def _batch_norm(self, norm: nn.BatchNorm1d, p: PolynomialMap, name: str) -> PolynomialMap:
        if norm.training or norm.running_mean is None or norm.running_var is None:
            raise ConfigError(
                f"layer {name!r} is a batch norm in training mode, which depends on the batch: call eval() first"
            )
        scale = 1 / np.sqrt(_array(norm.running_var) + norm.eps)
        scale = scale if norm.weight is None else scale * _array(norm.weight)
        bias = np.zeros_like(scale) if norm.bias is None else _array(norm.bias)
        return p.transformed(np.diag(scale), bias - scale * _array(norm.running_mean))

    def _shift(self, shift: SpatialShift, p: PolynomialMap) -> PolynomialMap:
        parts = []
        for offset, channels in zip(shift.offsets, shift.groups(p.coefficients.shape[1]), strict=True):
            # y_i = x_(i - o): what was the variable of cell k is now that of cell k - o.
            exponents = np.zeros_like(p.exponents)
            for place, cell in enumerate(self.cells):
                old = p.exponents[:, place * self.features : (place + 1) * self.features]
                if old.any():
                    moved = self.cells.index(tuple(k - o for k, o in zip(cell, offset, strict=True)))
                    exponents[:, moved * self.features : (moved + 1) * self.features] = old
            coefficients = np.zeros_like(p.coefficients)
            coefficients[:, channels] = p.coefficients[:, channels]
            parts.append((exponents, coefficients))
        exponents, coefficients = (np.concatenate(part) for part in zip(*parts, strict=True))
        return PolynomialMap.merged(exponents, coefficients, p.variables).pruned(0.0)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _optional(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else _array(tensor)
