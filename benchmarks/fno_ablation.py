"""What the parts of an FNO do: without the pointwise path W, without the activation, with fewer modes.

Two claims of the FNO paper (arXiv 2010.08895) are put to the test: that W carries what is not periodic, such as
boundaries, and that the activation restores the wavenumbers that the spectral convolutions cut off.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from _operators import Trained, dataset, trained
from _results import record
from fno_burgers import RECIPE as BURGERS
from fno_darcy import RECIPE as DARCY

from sciml.files import atomic_path
from sciml.operators import FNOConfig, Operator
from sciml.training import TrainConfig
from sciml.training.data import load_pairs
from sciml.training.prediction import predict
from sciml.training.spectra import wave_spectrum

FIGURE = Path(__file__).parents[1] / "docs" / "fno_ablation.png"
VARIANTS: dict[str, dict[str, object]] = {
    "full": {},
    "without W": {"skip": "none"},
    "without activation": {"activation": False},
    "half the modes": {"modes": 0.5},
    "a quarter of the modes": {"modes": 0.25},
}
PROBLEMS = {
    "Burgers": (
        "burgers",
        BURGERS,
        1200,
        TrainConfig(stride=16, task="final", epochs=60, n_train=1000, n_test=200),
        FNOConfig(modes=(32,), width=32),
    ),
    "Darcy": (
        "darcy",
        DARCY,
        1100,
        TrainConfig(stride=4, epochs=40, n_train=1000, n_test=100, symmetric=True),
        FNOConfig(modes=(16,), width=24),
    ),
}


def spectra(done: Trained, config: TrainConfig) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean spectra of error and target on the test samples, and the mean square of the error at the boundary.

    The latter on the outer tenth of the nodes of each bounded axis, relative to that on all nodes; 1 where
    every axis is periodic.
    """
    pairs = load_pairs(done.data, config.stride, config.task)
    pairs = pairs.subset(config.split(len(pairs))[2])
    error = (predict(Operator.load(done.run), pairs.inputs) - pairs.targets).numpy()
    parts = [
        wave_spectrum(values, pairs.spacing, pairs.periodic).mean(0)
        for values in (error, pairs.targets.numpy())
    ]
    share = 1.0
    if not any(pairs.periodic):
        inner = tuple(slice(n // 20, n - n // 20) for n in pairs.resolution)
        strip = np.ones(pairs.resolution, bool)
        strip[inner] = False
        share = float((error[:, strip] ** 2).mean() / (error**2).mean())
    return parts[0], parts[1], share


def band(error: np.ndarray, target: np.ndarray, shells: slice) -> str:
    return f"{(error[shells].sum() / target[shells].sum()) ** 0.5:.4f}"


def draw(
    ax: plt.Axes, title: str, target: np.ndarray, errors: dict[str, np.ndarray], cuts: Sequence[float]
) -> None:
    ax.loglog(np.arange(1, len(target)), target[1:], "k", label="solution")
    for name, error in errors.items():
        ax.loglog(np.arange(1, len(error)), error[1:], label=f"error, {name}")
    for cut in cuts:
        ax.axvline(cut, color="0.7", lw=0.8, zorder=0)
    ax.set(title=title, xlabel="wavenumber (periods along the box)", ylabel="energy")
    ax.grid(alpha=0.3)


def main() -> None:
    rows: list[list[object]] = []
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    for ax, (problem, (name, recipe, n, config, base)) in zip(axes, PROBLEMS.items(), strict=True):
        data, errors, full = dataset(name, recipe, n), {}, 0.0
        # The largest wavenumber that full, half and quarter keep.
        cuts = [base.modes[0] / 2 * share for share in (1, 0.5, 0.25)]
        for variant, changes in VARIANTS.items():
            settings = {**vars(base), **changes}
            if "modes" in changes:
                settings["modes"] = (int(base.modes[0] * changes["modes"]),)
            done = trained(
                f"ablation-{name}-{variant.replace(' ', '-')}", data, config, FNOConfig(**settings)
            )
            error, target, share = spectra(done, config)
            errors[variant] = error
            l2 = done.errors[config.stride]["relative_l2"]
            full = full or l2
            kept, beyond = slice(0, int(cuts[0])), slice(int(cuts[0]) + 1, None)
            rows.append(
                [
                    problem,
                    variant,
                    f"{done.parameters:,}",
                    f"{l2:.4f}",
                    f"{l2 / full:.2f}",
                    band(error, target, kept),
                    band(error, target, beyond),
                    f"{share:.2f}" if problem == "Darcy" else "",
                ]
            )
        draw(ax, problem, target, errors, cuts)
    axes[0].legend(fontsize=8)
    with atomic_path(FIGURE) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    record(
        "fno_ablation",
        "What the parts of an FNO do: Burgers' equation on 256 nodes, Darcy flow on 22 x 22",
        [
            *("problem", "variant", "parameters", "test relative L2", "over full"),
            *("error below the cut", "error beyond it", "error at the boundary"),
        ],
        rows,
        "All else equal. Errors below and beyond the largest wavenumber that the full model's convolutions keep are "
        "roots of the error's energy over the solution's, of the means over the test samples; waves are cosines along "
        "bounded axes. At the boundary: the mean square of the error on the outer tenth of the nodes over that on all. "
        f"{torch.get_num_threads()} threads. Figure: docs/fno_ablation.png.",
    )


if __name__ == "__main__":
    main()
