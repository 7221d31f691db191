"""All layers of an FNO in inference on a processor: one sweep over a function for each of them.

From a function v and the Fourier coefficients of its lines along the last axis a sweep makes those of the next layer,
line by line in the processor's caches (`sciml.operators.fused.sweep`). Steps one after the other, each over the whole
function, would spend as much time on memory as on numbers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .plain import is_plain, watched
from .products import compiled_steps, numbers

if TYPE_CHECKING:
    from .fno import FourierLayer

__all__ = ["sweep", "sweepable"]


def sweepable(v: Tensor, layers: "Sequence[FourierLayer]") -> bool:
    """Return whether `sweep` can be taken, and nobody looks at what is between."""
    if torch.is_grad_enabled() or not is_plain(v) or compiled_steps() is None:
        return False
    return (
        (v.dtype, v.device.type) == (torch.float32, "cpu")
        and not torch.is_autocast_enabled("cpu")
        and all(_takes_part(layer, v.shape[-1]) for layer in layers)
    )


def _takes_part(layer: "FourierLayer", width: int) -> bool:
    if not layer.together or any(map(watched, layer.modules())):
        return False
    parameters = _parameters(layer)
    hidden = len(parameters[3]) if len(parameters) > 2 else 0
    shapes = (width, width), (width,), (width, hidden), (hidden,), (hidden, width), (width,), (width,)
    return is_plain(*parameters, *layer.spectral.parameters()) and all(
        parameter.shape == shape and (parameter.dtype, parameter.device.type) == (torch.float32, "cpu")
        for parameter, shape in zip(parameters, shapes, strict=False)
    )


def _parameters(layer: "FourierLayer") -> list[Tensor]:
    """Matrices and vectors of a layer in the order of the kernel's."""
    parameters = [layer.skip.weight.T, layer.spectral.bias]
    if layer.mlp is not None and layer.mlp_skip is not None:
        first, first_bias, second, shift = layer.mlp.numbers
        parameters += [first.T, first_bias, second.T, layer.mlp_skip.weight, shift]
    return parameters


def sweep(v: Tensor, layers: "Sequence[FourierLayer]", space: tuple[int, ...]) -> Tensor:
    """Take v, shape (B, *extended, width), through all layers, in its memory where that can be.

    Parameters
    ----------
    v : Tensor, shape (B, *extended, width)
    layers : sequence of FourierLayer
    space : tuple of int
        Nodes of the domain per axis.

    Raises
    ------
    ConfigError
        If the grid is too coarse.
    """
    v = v.contiguous()
    fourier = layers[0].spectral.fourier
    transposed, table = fourier.last_tables(space, v)
    analysis, synthesis = numbers(transposed), numbers(table)
    c, (points, channels), kept = fourier.analyse(v, space), v.shape[-2:], table.shape[1]
    lines = v.numel() // (points * channels)
    for layer in layers:
        rows = fourier.synthesise_rows(layer.spectral.mix(c), space)
        found = None if layer is layers[-1] else rows.new_empty(rows.shape)
        arrays = [numbers(parameter) for parameter in _parameters(layer)]
        arrays += [numbers(None)] * (7 - len(arrays))
        compiled_steps().sweep(
            *(lines, points, channels, kept, arrays[3].size, numbers(v), synthesis, numbers(rows)),
            *(*arrays, layer.activate, analysis, numbers(found)),
        )
        if found is not None:
            c = fourier.analyse_rows(found, space)
    torch.autograd.graph.increment_version(v)
    return v
