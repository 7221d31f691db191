"""What is measured of predictions. Every number states its reduction; what has no finite value is left out."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.metrics import correlation_time, pdebench_metrics, relative_h1, relative_l2, well

from .data import Pairs
from .spectra import spectrum_by_band, wave_spectrum

__all__ = ["WINDOWS", "frames_first", "no_skill_errors", "relative_errors", "scores"]

WELL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "VRMSE": well.vrmse,
    "NRMSE": well.nrmse,
    "NMAE": well.nmae,
    "Linf": well.linf,
    "Pearson r": well.pearson_r,
}
WINDOWS = ((6, 12), (13, 30))
"""The Well's, of predicted frames: the first, and one past the last."""
THRESHOLD = 0.8
CHUNK = 32
"""Samples that are transformed at once, in double precision."""


def frames_first(values: Tensor, framed: bool) -> Tensor:
    """Return values (n, *space, [frames,] channels) as (n, frames, *space, channels), a view."""
    return values.movedim(-2, 1) if framed else values.unsqueeze(1)


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def relative_errors(prediction: Tensor, pairs: Pairs) -> Tensor:
    """Return the relative L2 error of each sample, over all its points, frames and channels, shape (n,)."""
    return relative_l2(prediction, pairs.targets, pairs.target_mask)


def no_skill_errors(pairs: Pairs) -> dict[str, float]:
    """Return mean relative L2 errors of predictions that take no model, by name; a model should do better.

    "zero": 1. "mean": of the mean of all other samples' targets, of clouds of points of one number; absent for one
    sample. "last frame": of the last given frame, where what is predicted is among the inputs.
    """
    guesses: dict[str, Tensor] = {}
    n, targets = len(pairs), pairs.targets
    if n > 1 and pairs.cloud:
        # Points are not the same: one value for all.
        mask = torch.ones_like(targets) if pairs.mask is None else pairs.mask.expand_as(targets)
        total, count = (
            (values * mask).flatten(0, 1).double().sum(0) for values in (targets, torch.ones_like(targets))
        )
        guesses["mean"] = (total / count).to(targets).expand_as(targets)
    elif n > 1:
        guesses["mean"] = (targets.sum(0) - targets) / (n - 1)
    if pairs.last_given is not None:
        guesses["last frame"] = pairs.last_given
    errors = {name: float(relative_errors(guess, pairs).mean()) for name, guess in guesses.items()}
    return _finite({"zero": 1.0, **errors})


def scores(
    prediction: Tensor, pairs: Pairs, times: Sequence[float] | np.ndarray | None = None
) -> dict[str, Any]:
    """Return all that is measured of the predictions of pairs, ready for JSON.

    Parameters
    ----------
    prediction : Tensor, of the targets' shape
    pairs : Pairs
    times : sequence of float, optional
        Of the last given frame and of those that are predicted, where targets have an axis of frames.

    Returns
    -------
    dict
        "diverged": samples whose prediction is not finite everywhere.
        "no_skill": `no_skill_errors`.
        "relative_l2", "median_relative_l2", "worst_relative_l2": over samples, of the error relative to the
        target over all points, frames and channels of a sample. "relative_h1": the mean, with gradients in
        space only; absent on grids with fewer than three nodes along an axis.
        "pdebench": `sciml.metrics.pdebench_metrics`. "well": `sciml.metrics.well`, means over samples,
        frames and channels, and of roll-outs that are long enough the VRMSE over The Well's windows of frames.
        "spectrum": energy of target and error by shell of wavenumbers (`wave_spectrum`), channels added,
        means over samples and frames; and `spectrum_by_band` of these means.
        "frames": the time "from" which is predicted, and by predicted frame, at "times", the "relative_l2" over
        points and channels, its mean, 10th and 90th percentile over samples, and "VRMSE", the mean over samples
        and channels; up to the first frame with an error that is not finite.
        "correlation_time": `sciml.metrics.correlation_time`, "mean" over samples of at most the "horizon", the
        time that is predicted, and how many samples "never" fall below the "threshold".
        With a mask, and of clouds of points, which are no grid: relative errors in L2 only.
    """
    framed = times is not None
    p, u = frames_first(prediction, framed), frames_first(pairs.targets, framed)
    l2 = relative_errors(prediction, pairs).double()
    result: dict[str, Any] = {
        "diverged": int((~torch.isfinite(prediction).flatten(1).all(1)).sum()),
        "no_skill": no_skill_errors(pairs),
        **_finite(
            {
                "relative_l2": float(l2.mean()),
                "median_relative_l2": float(l2.quantile(0.5)),
                "worst_relative_l2": float(l2.max()),
                **({} if pairs.cloud else _relative_h1(p, u, pairs)),
            }
        ),
    }
    if pairs.mask is None and not pairs.cloud:
        result |= _unmasked(p, u, pairs)
    if times is not None:
        result["frames"] = _by_frame(p, u, pairs, times)
        if pairs.mask is None:
            result["correlation_time"] = _correlation(p, u, times)
    return result


def _space(u: Tensor) -> int:
    """Axes of space of (n, frames, *space, channels)."""
    return u.ndim - 3


def _mask_of_space(pairs: Pairs, axes: int) -> Tensor | None:
    """The mask (n, *space, 1), which is the same for all frames."""
    if pairs.mask is None or pairs.mask.ndim == axes + 2:
        return pairs.mask
    return pairs.mask[..., 0, :]


def _relative_h1(p: Tensor, u: Tensor, pairs: Pairs) -> dict[str, float]:
    axes = _space(u)
    if min(u.shape[2:-1]) < 3:
        return {}
    # Frames count as channels: gradients are those in space, of one unit.
    p, u = (values.movedim(1, -2).flatten(-2) for values in (p, u))
    mask = _mask_of_space(pairs, axes)
    return {"relative_h1": float(relative_h1(p, u, pairs.spacing[:axes], pairs.periodic[:axes], mask).mean())}


def _unmasked(p: Tensor, u: Tensor, pairs: Pairs) -> dict[str, Any]:
    """What is a mean over frames, frame by frame: never more than one of them is copied."""
    axes, frames = _space(u), u.shape[1]
    spacing, periodic = pairs.spacing[:axes], pairs.periodic[:axes]
    lengths = [
        h * (n if wraps else n - 1) for h, n, wraps in zip(spacing, u.shape[2:-1], periodic, strict=True)
    ]
    benchmark: list[dict[str, float]] = []
    ours: list[dict[str, float]] = []
    energies = []
    for t in range(frames):
        guess, target = p[:, t : t + 1], u[:, t : t + 1]
        # The frame in front is taken for a given one, and dropped.
        benchmark.append(pdebench_metrics(guess, torch.cat([target, target], 1), 1, lengths))
        ours.append({name: float(metric(guess, target).mean()) for name, metric in WELL.items()})
        energies.append(_mean_spectra(guess[:, 0], target[:, 0], spacing, periodic))
    vrmse = [frame["VRMSE"] for frame in ours]
    windows = {
        f"VRMSE {first}:{stop}": sum(vrmse[first:stop]) / (stop - first)
        for first, stop in WINDOWS
        if stop <= frames
    }
    result: dict[str, Any] = {
        "pdebench": _finite(_mean_of(benchmark)),
        "well": _finite({**_mean_of(ours), **windows}),
    }
    error, target_energy = np.mean(energies, axis=0)
    if np.isfinite(error).all() and target_energy.sum() > 0:
        result["spectrum"] = {
            "target": target_energy.tolist(),
            "error": error.tolist(),
            "bands": spectrum_by_band(error, target_energy),
        }
    return result


def _mean_of(frames: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(frame[name] for frame in frames) / len(frames) for name in frames[0]}


def _mean_spectra(
    p: Tensor, u: Tensor, spacing: Sequence[float], periodic: Sequence[bool]
) -> tuple[np.ndarray, np.ndarray]:
    """Spectra of error and target of one frame, means over samples."""
    sums: list[Any] = [0.0, 0.0]
    with np.errstate(invalid="ignore", over="ignore"):
        for guess, target in zip(p.split(CHUNK), u.split(CHUNK), strict=True):
            values = target.double().numpy()
            for place, part in enumerate((guess.double().numpy() - values, values)):
                sums[place] = sums[place] + wave_spectrum(part, spacing, periodic).sum(0)
    return sums[0] / len(u), sums[1] / len(u)


def _by_frame(p: Tensor, u: Tensor, pairs: Pairs, times: Sequence[float] | np.ndarray) -> dict[str, Any]:
    mask = _mask_of_space(pairs, _space(u))
    frames = range(u.shape[1])
    errors = np.stack([relative_l2(p[:, t], u[:, t], mask).double().numpy() for t in frames])
    # Beyond a frame that diverges there is nothing to average.
    finite = np.isfinite(errors).all(1)
    count = len(finite) if finite.all() else int(np.argmin(finite))
    errors = errors[:count]
    result = {
        "from": float(times[0]),
        "times": [float(t) for t in times[1 : count + 1]],
        "relative_l2": {
            "mean": errors.mean(1).tolist(),
            "p10": np.percentile(errors, 10, axis=1).tolist() if count else [],
            "p90": np.percentile(errors, 90, axis=1).tolist() if count else [],
        },
    }
    if pairs.mask is None:
        result["VRMSE"] = [float(well.vrmse(p[:, t : t + 1], u[:, t : t + 1]).mean()) for t in frames[:count]]
    return result


def _correlation(p: Tensor, u: Tensor, times: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Correlation times; of the given frames only the time of the last one counts."""
    found = [
        correlation_time(guess, torch.cat([target[:, :1], target], 1), 1, list(times), THRESHOLD)
        for guess, target in zip(p.split(CHUNK), u.split(CHUNK), strict=True)
    ]
    values, horizon = torch.cat(found).double(), float(times[-1] - times[0])
    return {
        "threshold": THRESHOLD,
        "mean": float(values.clamp(max=horizon).mean()),
        "horizon": horizon,
        "never": int(torch.isinf(values).sum()),
    }
