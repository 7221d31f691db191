"""Learned vector fields: polynomials made of Mu-layers, stencils of them on a grid, and a neural ODE as a baseline.

All are f(t, x) = rate scale g(x / scale) with a network g: states of one size and a time unit, fixed numbers of the
training data, which are folded into the polynomial exactly.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sciml.errors import ConfigError, DatasetFormatError
from sciml.networks import MuLayer, SpatialShift
from sciml.operators.base import MODEL_FILE
from sciml.operators.storage import load_tensors, save_tensors
from sciml.symbolic import LIMIT, PolynomialMap, expand, monomial_exponents

from .polynomial_flow import PolynomialFlow, StencilFlow

__all__ = ["LearnedField", "MuField", "NeuralODE", "PolynomialODE", "StencilODE"]

COEFFICIENTS = 1000
"""Most coefficients of which sensitivities are integrated."""


class LearnedField(nn.Module, ABC):
    """An autonomous vector field with a network inside, in double precision.

    Parameters
    ----------
    variables : sequence of str
        Names of the components of a state.
    dtype : torch.dtype
    **settings
        Of the architecture, kept with the model.
    """

    scale: Tensor
    rate: Tensor
    axes: int = 0
    """Of the grid, between the batch and the components of a state."""
    condition: float = 1e-9
    """Of `fit_last_map`: singular values below this part of the largest one count as zero."""

    def __init__(self, variables: Sequence[str], dtype: torch.dtype, **settings: Any) -> None:
        super().__init__()
        if not variables or len(set(variables)) != len(variables):
            raise ConfigError(f"variables={list(variables)}: give different names, one at least")
        for name, value in settings.items():
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise ConfigError(f"{type(self).__name__} {name}={value}: it must be at least 1")
        self.variables, self.settings, self.dtype = tuple(variables), settings, dtype
        self.register_buffer("scale", torch.ones(len(variables), dtype=dtype))
        self.register_buffer("rate", torch.ones((), dtype=dtype))

    @abstractmethod
    def features(self, z: Tensor) -> Tensor:
        """Return what the last linear map of g is applied to, at states of size one."""

    @property
    @abstractmethod
    def last(self) -> nn.Linear:
        """The last linear map of g."""

    def network(self, z: Tensor) -> Tensor:
        """Return g at states of size one."""
        return linear(self.features(z), self.last.weight, self.last.bias)

    def forward(self, t: float | Tensor, x: Tensor) -> Tensor:
        """Return dx/dt of states (..., components), on a grid (B, *space, components); t does not matter."""
        return self.network(x / self.scale) * (self.rate * self.scale)

    def flow(self, substeps: int) -> PolynomialFlow | StencilFlow | None:
        """Return the integrator of polynomials with few coefficients; None for other fields."""
        return None

    @torch.no_grad()
    def fit_last_map(self, states: np.ndarray, times: np.ndarray) -> None:
        """Set the last linear map by least squares, the rest of the network as it is: where training starts.

        What it sees is averaged over the time between frames, by Simpson's rule where all steps are equal, else by the
        trapezoidal one, and compared with the difference of the states. It becomes zero where that is no use: where
        numbers are not finite.
        """
        self._check(states)
        z = torch.as_tensor(states, dtype=self.dtype) / self.scale
        # Batch and time are one axis for the network.
        seen = self.features(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        dt = torch.as_tensor(np.diff(times), dtype=self.dtype) * self.rate
        if len(dt) > 1 and float((dt - dt[0]).abs().max()) < 1e-6 * float(dt[0]):
            mean = (seen[:, :-2] + 4 * seen[:, 1:-1] + seen[:, 2:]) / 6
            slope = (z[:, 2:] - z[:, :-2]) / (2 * dt[0])
        else:
            mean = (seen[:, 1:] + seen[:, :-1]) / 2
            slope = (z[:, 1:] - z[:, :-1]) / dt.view(-1, *[1] * (z.ndim - 2))
        matrix = mean.flatten(0, -2)
        if self.last.bias is not None:
            matrix = torch.cat([matrix, torch.ones_like(matrix[:, :1])], 1)
        slope = slope.flatten(0, -2)
        found = matrix.new_zeros(slope.shape[1], matrix.shape[1])
        if bool(torch.isfinite(matrix).all() and torch.isfinite(slope).all()):
            found = torch.linalg.lstsq(matrix, slope, rcond=self.condition, driver="gelsd").solution.T
        self.last.weight.copy_(found[:, : self.last.in_features])
        if self.last.bias is not None:
            self.last.bias.copy_(found[:, -1])

    def fit_scales(self, states: np.ndarray, times: np.ndarray) -> None:
        """Set the sizes of states and rates to root mean squares of data, of shape (n, T, *space, components).

        The rate is that of the component that changes fastest, by differences of neighbouring times.
        """
        self._check(states)
        axes = tuple(range(states.ndim - 1))
        size = np.sqrt((states**2).mean(axis=axes))
        if not (size > 0).all():
            name = self.variables[int(np.argmin(size))]
            raise ConfigError(f"states: {name!r} is zero in all training data; leave it out")
        steps = np.diff(times).reshape(-1, *[1] * (states.ndim - 2))
        speed = np.sqrt(((np.diff(states, axis=1) / steps) ** 2).mean(axis=axes))
        self.scale.copy_(torch.as_tensor(size))
        self.rate.copy_(torch.as_tensor(max((speed / size).max(), 1e-12)))

    def _check(self, states: np.ndarray) -> None:
        if states.ndim != 3 + self.axes or states.shape[-1] != len(self.variables):
            raise ConfigError(
                f"states of shape {states.shape}: expected (trajectories, times, {self.axes} axes of space, "
                f"{len(self.variables)} components)"
            )
        if not np.isfinite(states).all():
            raise ConfigError(
                f"states: {np.count_nonzero(~np.isfinite(states))} numbers are not finite; leave them out"
            )

    @property
    def parameter_count(self) -> int:
        """Learned real numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def save(self, path: str | Path, description: dict[str, Any] | None = None) -> None:
        """Write the model to one file, ``*.safetensors``, atomically, with facts to keep with it."""
        header = {
            "architecture": type(self).__name__,
            "variables": list(self.variables),
            "dtype": str(self.dtype).removeprefix("torch."),
            "settings": self.settings,
            **(description or {}),
        }
        save_tensors(path, self.state_dict(), "dynamics", header)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model from its file or from a run folder; ``LearnedField.load`` reads any of them.

        Raises
        ------
        DatasetFormatError
            If the file is missing, damaged, or of another architecture or version.
        """
        path = Path(path)
        path = path / MODEL_FILE if path.is_dir() else path
        tensors, header = load_tensors(path, "dynamics")
        name = header.get("architecture")
        known = {kind.__name__: kind for kind in (PolynomialODE, StencilODE, NeuralODE)}
        if name not in known or not issubclass(known[name], cls):
            raise DatasetFormatError(f"{str(path)!r} holds a {name}, not a {cls.__name__}")
        try:
            dtype = getattr(torch, header["dtype"])
            model = known[name](header["variables"], dtype=dtype, **header["settings"])
            model.load_state_dict(tensors)
        except (TypeError, KeyError, AttributeError, RuntimeError, ConfigError) as error:
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
            raise DatasetFormatError(
                f"{str(path)!r}: weights and architecture do not agree ({reason}): restore the file"
            ) from error
        return model.eval()  # type: ignore[return-value]


class MuField(LearnedField):
    """A vector field of Mu-layers without norms, of which the last one starts at zero: so does the field.

    Between two layers there are as many channels as products, or x would have to be a function of one quadratic form
    for the next one.
    """

    def _make_layers(
        self,
        layers: int,
        hidden: int,
        rank: int,
        bias: bool,
        shift: SpatialShift | None = None,
    ) -> None:
        channels = len(self.variables)
        sizes = [channels, *[hidden] * (layers - 1), channels]
        self.layers = nn.Sequential(
            *(
                MuLayer(a, hidden, b, rank, bias=bias, norm=None, shift=shift, dtype=self.dtype)
                for a, b in itertools.pairwise(sizes)
            )
        )
        nn.init.zeros_(self.last.weight)

    @property
    def last_layer(self) -> MuLayer:
        """The last of the Mu-layers."""
        return cast("MuLayer", self.layers[-1])

    @property
    def last(self) -> nn.Linear:
        """C of the last layer."""
        return self.last_layer.C

    def features(self, z: Tensor) -> Tensor:
        """Return the last layer's products."""
        return self.last_layer.products(self.layers[:-1](z))

    def polynomial(self, limit: int = LIMIT) -> PolynomialMap:
        """Return f as a polynomial, exactly, of at most ``limit`` monomials.

        In the states; of a stencil in the values of a node and of those in reach.
        """
        p = expand(self.layers, self.variables, limit=limit)
        size = self.scale.double().cpu().numpy()
        cells = len(p.variables) // len(size)
        return p.rescaled(np.tile(size, cells), float(self.rate) * size)

    @abstractmethod
    def table(self) -> Tensor:
        """Return the coefficients of one layer's monomials up to degree two, (M, d), with gradients to its weights.

        In the order of `sciml.symbolic.monomial_exponents`.
        """

    def _has_table(self, exponents: np.ndarray) -> bool:
        few = len(self.layers) == 1 and len(exponents) * len(self.variables) <= COEFFICIENTS
        return few and self.dtype == torch.float64 and self.scale.device.type == "cpu"

    def _closed_form(self, a: Tensor, d: Tensor) -> Tensor:
        """Coefficients of one layer with A and D in terms of the polynomial's variables, in units."""
        layer = self.last_layer
        c, product = layer.C.weight, layer.B.weight @ d
        linear_part, constant = a, torch.zeros_like(self.scale)
        if layer.A.bias is not None:
            b = 1 + layer.B.bias + layer.B.weight @ layer.D.bias
            linear_part = b[:, None] * a + layer.A.bias[:, None] * product
            constant = c @ (layer.A.bias * b) + layer.C.bias
        i, j = np.triu_indices(a.shape[1])
        twice = torch.as_tensor(i != j, dtype=a.dtype)
        pairs = a[:, i] * product[:, j] + (a[:, j] * product[:, i]) * twice
        rows = torch.cat([constant[None], (c @ linear_part).T, (c @ pairs).T])
        size = self.scale.repeat(a.shape[1] // len(self.scale))
        sizes = torch.cat([torch.ones_like(size[:1]), size, size[i] * size[j]])
        return rows * (self.rate * self.scale) / sizes[:, None]


class PolynomialODE(MuField):
    """A vector field of Mu-layers without norms: a polynomial of degree 2^layers.

    Parameters
    ----------
    variables : sequence of str
    layers : int
    hidden : int, optional
        Products of each layer; by default as many as there are monomials of degree one and two, enough for any.
    rank : int, optional
        Largest rank of a layer's second factor; by default the number of variables, enough for any.
    bias : bool
        Without biases the polynomial has no constant term.
    dtype : torch.dtype

    Examples
    --------
    >>> field = PolynomialODE(("x", "y"))
    >>> field(0.0, torch.ones(3, 2, dtype=torch.float64)).shape, field.polynomial().degree
    (torch.Size([3, 2]), 0)
    """

    def __init__(
        self,
        variables: Sequence[str],
        *,
        layers: int = 1,
        hidden: int | None = None,
        rank: int | None = None,
        bias: bool = True,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        d = len(variables)
        hidden = d * (d + 3) // 2 if hidden is None else hidden
        rank = d if rank is None else rank
        super().__init__(variables, dtype, layers=layers, hidden=hidden, rank=rank, bias=bias)
        self._make_layers(layers, hidden, rank, bias)

    def flow(self, substeps: int) -> PolynomialFlow | None:
        """Return the integrator for the coefficients of `table`, where one layer has not too many of them."""
        exponents = monomial_exponents(len(self.variables), 2)
        return PolynomialFlow(exponents, substeps) if self._has_table(exponents) else None

    def table(self) -> Tensor:
        """Return the coefficients of one layer's monomials up to degree two, (M, d), with gradients to its weights.

        In the order of `sciml.symbolic.monomial_exponents`.
        """
        return self._closed_form(self.last_layer.A.weight, self.last_layer.D.weight)


class StencilODE(MuField):
    """A semi-discrete PDE on a periodic grid: Mu-layers with a shift, hence a polynomial stencil.

    One layer is any quadratic stencil of its reach, as hidden channel groups see one neighbour each and the low-rank
    branch all of them. The same at every node: a model trained on one part of a grid, or on a larger one of the same
    spacing, is the same model.

    Parameters
    ----------
    variables : sequence of str
        Names of the fields.
    axes : 1 or 2
        Of the grid.
    reach : int
        Cells to each side that one layer sees.
    layers : int
    hidden : int, optional
        Products of each layer; by default enough for any quadratic stencil of one layer.
    rank : int, optional
        By default the number of variables of the stencil, enough for any.
    bias : bool
    dtype : torch.dtype

    Examples
    --------
    >>> field = StencilODE(("u",), axes=1)
    >>> field(0.0, torch.ones(2, 16, 1, dtype=torch.float64)).shape, field.polynomial().variables
    (torch.Size([2, 16, 1]), ('u[-1]', 'u[0]', 'u[1]'))
    """

    def __init__(
        self,
        variables: Sequence[str],
        *,
        axes: Literal[1, 2] = 1,
        reach: int = 1,
        layers: int = 1,
        hidden: int | None = None,
        rank: int | None = None,
        bias: bool = False,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        shift = SpatialShift(axes, border="periodic", reach=reach, unshifted=True)
        d, groups = len(variables), len(shift.offsets)
        # Of each group d linear forms times all linear forms, and themselves.
        hidden = groups * d * (groups * d + 1) if hidden is None else hidden
        rank = groups * d if rank is None else rank
        settings = {"axes": axes, "reach": reach, "layers": layers, "hidden": hidden, "rank": rank}
        super().__init__(variables, dtype, **settings, bias=bias)
        self.axes, self.shift = axes, shift
        self._make_layers(layers, hidden, rank, bias, shift)

    @property
    def cells(self) -> list[tuple[int, ...]]:
        """Offsets of the nodes that one layer sees, in the order of the stencil's variables."""
        return sorted(tuple(-k for k in offset) for offset in self.shift.offsets)

    def flow(self, substeps: int) -> StencilFlow | None:
        """Return the integrator for the coefficients of `table`, where one layer has not too many of them."""
        exponents = monomial_exponents(len(self.cells) * len(self.variables), 2)
        return StencilFlow(exponents, self.cells, substeps) if self._has_table(exponents) else None

    def table(self) -> Tensor:
        """Return the coefficients of one layer's monomials in a node's neighbours, (M, fields), with gradients."""
        return self._closed_form(*(self._wide(m.weight) for m in (self.last_layer.A, self.last_layer.D)))

    def _wide(self, weight: Tensor) -> Tensor:
        """A matrix of values before the shift as one of the neighbours' values."""
        d, cells = len(self.variables), self.cells
        places = torch.empty(len(weight), dtype=torch.long)
        for offset, channels in zip(self.shift.offsets, self.shift.groups(len(weight)), strict=True):
            places[channels] = cells.index(tuple(-k for k in offset)) * d
        # Not in place, which transforms of functions do not allow.
        return weight.new_zeros(len(weight), len(cells) * d).scatter(
            1, places[:, None] + torch.arange(d), weight
        )


class NeuralODE(LearnedField):
    """A multilayer perceptron with tanh as a vector field (Chen et al., NeurIPS 2018, arXiv 1806.07366): a baseline.

    Parameters
    ----------
    variables : sequence of str
    width, depth : int
        Of the hidden layers, and their number.
    dtype : torch.dtype

    Examples
    --------
    >>> NeuralODE(("x", "y"), width=8)(0.0, torch.ones(3, 2, dtype=torch.float64)).shape
    torch.Size([3, 2])
    """

    # Random hidden layers are nearly dependent; large weights that cancel could not be trained.
    condition: float = 1e-3

    def __init__(
        self,
        variables: Sequence[str],
        *,
        width: int = 32,
        depth: int = 2,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(variables, dtype, width=width, depth=depth)
        d = len(variables)
        sizes = [d, *[width] * depth]
        parts: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            parts += [nn.Linear(a, b, dtype=dtype), nn.Tanh()]
        self.layers = nn.Sequential(*parts, nn.Linear(width, d, dtype=dtype))

    @property
    def last(self) -> nn.Linear:
        """The last layer."""
        return cast("nn.Linear", self.layers[-1])

    def features(self, z: Tensor) -> Tensor:
        """Return the last hidden layer at states (..., components)."""
        found: Tensor = self.layers[:-1](z)
        return found
