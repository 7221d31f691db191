"""Weights of two public FNO codes, as an `FNO` of ours.

``neuraloperator``: the state dict of the FNO of the library of that name, versions 1 and 2. Weights of the
first axes are stored from wavenumber -N//2 upwards, those of the last axis from 0 to N//2.

``scripts``: the state dict of the scripts published with arXiv 2010.08895 (fourier_1d.py, fourier_2d.py,
fourier_3d.py of 2021), with one block of weights for each combination of signs. Their coordinates include
both ends of every axis, also of periodic ones, so that they change with the resolution: conversion is exact
at the resolution given.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sciml.errors import ConfigError

from .fno import FNO, FNOConfig, Skip
from .fourier import wavenumbers
from .spectral import multiply_modes

__all__ = ["from_legacy"]


def from_legacy(
    state: Mapping[str, Any],
    *,
    resolution: tuple[int, ...] | None = None,
    skip: Skip = "none",
    channel_mlp_skip: Skip = "none",
) -> FNO:
    """Return our FNO with the weights of another code, recognised by their names.

    Parameters
    ----------
    state : mapping of str to Tensor
        State dict of neuraloperator's ``FNO`` (dense or Tucker weights, no domain padding) or of a script's
        ``FNO1d``, ``FNO2d``, ``FNO3d`` (without padding). Other entries, ``_metadata`` for one, are ignored.
    resolution : tuple of int, optional
        Nodes per axis at which a script's model was trained.
    skip, channel_mlp_skip : str
        What neuraloperator's skip connections are, "identity" or "none", where they have no weights.

    Returns
    -------
    FNO
        On periodic axes. The normalisers are left at mean 0 and deviation 1: theirs are not part of the model.

    Raises
    ------
    ConfigError
        If the names are of neither code, or of a variant without a counterpart here.

    Examples
    --------
    >>> from neuralop.models import FNO as Other  # doctest: +SKIP
    >>> other = Other(n_modes=(16, 16), in_channels=1, out_channels=1, hidden_channels=32)  # doctest: +SKIP
    >>> model = from_legacy(other.state_dict())  # doctest: +SKIP
    """
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    try:
        if "fno_blocks.convs.0.bias" in tensors:
            return _from_neuraloperator(tensors, state.get("_metadata") or {}, skip, channel_mlp_skip)
        if "fc0.weight" in tensors and "conv0.weights1" in tensors:
            return _from_scripts(tensors, resolution)
    except KeyError as error:
        raise ConfigError(f"state dict of another variant of the FNO: it has no {error}") from error
    raise ConfigError(
        f"state dict with {', '.join(list(tensors)[:4]) or 'no tensors'}, ...: neither of neuraloperator's FNO nor of "
        "the FNO scripts of 2021; convert another variant by hand"
    )


def _count(tensors: dict[str, Tensor], pattern: str) -> int:
    return next(i for i in itertools.count() if pattern.format(i) not in tensors)


def _real(weight: Tensor, kept: list[list[int]]) -> Tensor:
    """From (in, out, *modes), complex, to (K, in, 2, out): rows in the order of ``kept`` indices."""
    for axis, index in enumerate(kept):
        weight = weight.index_select(axis + 2, torch.tensor(index))
    flat = weight.flatten(2).permute(2, 0, 1)
    return torch.stack([flat.real, flat.imag], dim=2)


def _from_neuraloperator(
    tensors: dict[str, Tensor], facts: dict[str, Any], skip: Skip, channel_mlp_skip: Skip
) -> FNO:
    blocks = "fno_blocks."
    for name, accepted in (
        ("domain_padding", (None, 0)),
        ("separable", (False,)),
        ("preactivation", (False,)),
        ("stabilizer", (None,)),
        ("resolution_scaling_factor", (None,)),
    ):
        if facts.get(name, accepted[0]) not in accepted:
            raise ConfigError(f"neuraloperator FNO with {name}={facts[name]!r} has no counterpart here")
    if blocks + "channel_mlp.0.fcs.0.weight" not in tensors:
        raise ConfigError(
            "neuraloperator FNO with use_channel_mlp=False has no counterpart here: it applies the activation twice"
        )
    layers = _count(tensors, blocks + "convs.{}.bias")
    width, dim = len(tensors[blocks + "convs.0.bias"]), tensors[blocks + "convs.0.bias"].ndim - 1
    weights = [_neuraloperator_weight(tensors, f"{blocks}convs.{i}.weight.") for i in range(layers)]
    *first, last = weights[0].shape[2:]
    if weights[0].ndim != dim + 2:
        raise ConfigError("neuraloperator FNO with separable=True has no counterpart here")
    kinds: dict[str, Skip] = {}
    for name, otherwise in (("fno_skips", skip), ("channel_mlp_skips", channel_mlp_skip)):
        linear, gate = (f"{blocks}{name}.0.{end}" in tensors for end in ("conv.weight", "weight"))
        kinds[name] = "linear" if linear else "gate" if gate else otherwise
    hidden = tensors[blocks + "channel_mlp.0.fcs.0.weight"].shape[0]
    into = tensors["lifting.fcs.0.weight"].shape[1]
    named_norm = str(facts.get("norm") or "none").removesuffix("_norm")
    grid = facts.get("positional_embedding", "grid") is not None
    sizes = into - dim * grid, tensors["projection.fcs.1.weight"].shape[0], (True,) * dim
    config = FNOConfig(
        modes=(*first, 2 * (last - 1) or 1),
        width=width,
        layers=layers,
        skip=kinds["fno_skips"],
        channel_mlp=hidden / width,
        channel_mlp_skip=kinds["channel_mlp_skips"],
        norm="group" if blocks + "norm.0.weight" in tensors else named_norm,  # type: ignore[arg-type]
        lifting_width=tensors["lifting.fcs.0.weight"].shape[0] if "lifting.fcs.1.weight" in tensors else 0,
        projection_width=tensors["projection.fcs.0.weight"].shape[0],
        coordinates=grid,
    )
    kept = [[k + n // 2 for k in wavenumbers(n, last=False)] for n in first] + [list(range(last))]
    ours: dict[str, Tensor] = {}
    for there, here in (("lifting", "lifting"), ("projection", "projection")):
        ours |= _mlp(tensors, f"{there}.fcs.", here)
    for i in range(layers):
        ours[f"layers.{i}.spectral.weight"] = _real(weights[i], kept)
        ours[f"layers.{i}.spectral.bias"] = tensors[f"{blocks}convs.{i}.bias"].flatten()
        ours |= _mlp(tensors, f"{blocks}channel_mlp.{i}.fcs.", f"layers.{i}.mlp")
        for there, here in (("fno_skips", "skip"), ("channel_mlp_skips", "mlp_skip")):
            if kinds[there] == "linear":
                ours[f"layers.{i}.{here}.weight"] = tensors[f"{blocks}{there}.{i}.conv.weight"].flatten(1)
            elif kinds[there] == "gate":
                ours[f"layers.{i}.{here}.weight"] = tensors[f"{blocks}{there}.{i}.weight"].flatten()
        if config.norm == "group":
            for j, end in itertools.product((0, 1), ("weight", "bias")):
                ours[f"layers.{i}.norms.{j}.{end}"] = tensors[f"{blocks}norm.{2 * i + j}.{end}"]
    return _filled(sizes, config, ours)


def _neuraloperator_weight(tensors: dict[str, Tensor], prefix: str) -> Tensor:
    """The full spectral weight (in, out, *modes), from its Tucker factors where it has them."""
    if prefix + "tensor" in tensors:
        return tensors[prefix + "tensor"]
    if prefix + "core" not in tensors:
        raise ConfigError("neuraloperator FNO with CP or TT weights: convert dense or Tucker weights")
    core = tensors[prefix + "core"]
    return multiply_modes(core, (tensors[f"{prefix}factors.factor_{axis}"] for axis in range(core.ndim)))


def _mlp(tensors: dict[str, Tensor], there: str, here: str) -> dict[str, Tensor]:
    """One or two pointwise layers, stored as convolutions."""
    names = {0: f"{here}.0", 1: f"{here}.2"} if there + "1.weight" in tensors else {0: here}
    return {
        f"{name}.{end}": tensors[f"{there}{i}.{end}"].flatten(1)
        if end == "weight"
        else tensors[f"{there}{i}.{end}"]
        for i, name in names.items()
        for end in ("weight", "bias")
    }


def _from_scripts(tensors: dict[str, Tensor], resolution: tuple[int, ...] | None) -> FNO:
    blocks = [_complex(tensors[f"conv0.weights{i + 1}"]) for i in range(_count_from_one(tensors))]
    dim = blocks[0].ndim - 2
    if resolution is None or len(resolution) != dim or min(resolution) < 2:
        raise ConfigError(
            f"resolution={resolution}: give the {dim} numbers of nodes that the script was trained at"
        )
    *first, last = blocks[0].shape[2:]
    lifting = tensors["fc0.weight"].clone()
    # j / (s - 1) there is j / s here.
    lifting[:, -dim:] *= torch.tensor([s / (s - 1) for s in resolution])
    layers = _count(tensors, "conv{}.weights1")
    sizes = lifting.shape[1] - dim, tensors["fc2.weight"].shape[0], (True,) * dim
    config = FNOConfig(
        modes=(*(2 * m for m in first), 2 * last - 1),
        width=lifting.shape[0],
        layers=layers,
        projection_width=tensors["fc1.weight"].shape[0],
    )
    ours = {"lifting.weight": lifting, "lifting.bias": tensors["fc0.bias"]}
    for here, there in (("projection.0", "fc1"), ("projection.2", "fc2")):
        ours |= {f"{here}.{end}": tensors[f"{there}.{end}"] for end in ("weight", "bias")}
    # Blocks in the order (+, +), (-, +), (+, -), (-, -); within one, wavenumbers -m ... -1.
    kept = [[*range(m), *range(2 * m - 1, m - 1, -1)] for m in first] + [list(range(last))]
    for i in range(layers):
        parts = [_complex(tensors[f"conv{i}.weights{j + 1}"]) for j in range(len(blocks))]
        for axis in range(dim - 1):
            parts = [torch.cat(parts[j : j + 2], axis + 2) for j in range(0, len(parts), 2)]
        ours[f"layers.{i}.spectral.weight"] = _real(parts[0], kept)
        ours[f"layers.{i}.spectral.bias"] = tensors[f"w{i}.bias"]
        ours[f"layers.{i}.skip.weight"] = tensors[f"w{i}.weight"].flatten(1)
    return _filled(sizes, config, ours)


def _count_from_one(tensors: dict[str, Tensor]) -> int:
    return next(i for i in itertools.count(1) if f"conv0.weights{i + 1}" not in tensors)


def _complex(weight: Tensor) -> Tensor:
    """Scripts of 2020 store real and imaginary parts along a last axis of 2."""
    return weight if weight.is_complex() else torch.view_as_complex(weight.contiguous())


def _filled(sizes: tuple[int, int, tuple[bool, ...]], config: FNOConfig, tensors: dict[str, Tensor]) -> FNO:
    model = FNO(*sizes, config)
    buffers = dict(model.named_buffers())
    try:
        model.load_state_dict({**buffers, **tensors})
    except RuntimeError as error:
        raise ConfigError(f"state dict of another variant of the FNO: {error}") from error
    return model
