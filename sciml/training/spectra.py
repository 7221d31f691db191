"""Spectra of errors by isotropic wavenumber, on periodic and on bounded axes.

Along a periodic axis of length L the waves are exp(2 pi i k x / L), whole k: the discrete Fourier transform.
Along a bounded axis they are cos(pi m x / L), whole m >= 0, of wavenumber k = m / 2: the cosine transform
(DCT-I), which is the Fourier transform of the function reflected at both ends. What is reflected does not
jump there, so that no energy leaks into high wavenumbers, as it would if a bounded axis were taken for a
periodic one; and no window hides the ends.

A shell i holds the waves with i <= |k| < i + 1, |k| in cycles along the longest side of the box, and bands are
PDEBench's: below 4, from 4 to below 12, and above. They are the same functions at every resolution.
"""

from collections.abc import Sequence

import numpy as np
from scipy.fft import dct

__all__ = ["BANDS", "spectrum_by_band", "wave_spectrum"]

BANDS = {"low": (0, 4), "mid": (4, 12), "high": (12, None)}
"""First shell, and one past the last."""


def _energies(values: np.ndarray, periodic: Sequence[bool]) -> np.ndarray:
    """Energy of each wave, shape (n, *waves), channels added."""
    v = np.asarray(values, float)
    weights = np.ones(v.shape[1:-1])
    for axis, wraps in enumerate(periodic, start=1):
        if not wraps:
            last = v.shape[axis] - 1
            v = dct(v, type=1, axis=axis) / (2 * last)
            # <cos^2> is 1/2, but 1 for the constant and for the shortest wave.
            factors = np.full(last + 1, 2.0)
            factors[[0, -1]] = 1.0
            weights = weights * factors.reshape(-1, *(1,) * (weights.ndim - axis))
    waves = [axis for axis, wraps in enumerate(periodic, start=1) if wraps]
    if waves:
        v = np.fft.fftn(v, axes=waves, norm="forward")
    return (np.abs(v) ** 2).sum(-1) * weights


def wave_spectrum(values: np.ndarray, spacing: Sequence[float], periodic: Sequence[bool]) -> np.ndarray:
    """Return the energy of functions by shell of wavenumbers, channels added.

    Parameters
    ----------
    values : ndarray, shape (n, *space, channels)
        Nodes at both ends of bounded axes, at one end of periodic ones.
    spacing : sequence of float
        h per axis, for the ratio of the sides.
    periodic : sequence of bool
        Per axis.

    Returns
    -------
    ndarray, shape (n, shells), float64
        Shell i: i <= |k| < i + 1 in cycles along the longest side, up to the corners of the wave vectors.
        Together they are the mean of the square (Parseval), at the ends of bounded axes by the trapezoidal
        rule.

    Examples
    --------
    >>> x = np.linspace(0, 1, 33)
    >>> wave_spectrum(np.cos(5 * np.pi * x)[None, :, None], (1 / 32,), (False,))[0, :4].round(3).tolist()
    [0.0, 0.0, 0.5, 0.0]
    """
    space = values.shape[1:-1]
    sides = [h * (n if wraps else n - 1) for h, n, wraps in zip(spacing, space, periodic, strict=True)]
    k = [
        (np.fft.fftfreq(n, 1 / n) if wraps else np.arange(n) / 2) * max(sides) / side
        for n, wraps, side in zip(space, periodic, sides, strict=True)
    ]
    length = np.sqrt(sum(component**2 for component in np.meshgrid(*k, indexing="ij"))).ravel()
    # Whole numbers belong to their own shell, whatever the round-off of the sides.
    shell = np.floor(length + 1e-9).astype(int)
    energies = _energies(values, periodic).reshape(len(values), -1)
    return np.stack([np.bincount(shell, weights=energy) for energy in energies])


def spectrum_by_band(error: np.ndarray, target: np.ndarray) -> dict[str, dict[str, float]]:
    """Return an error's size in each band.

    Parameters
    ----------
    error, target : ndarray, shape (shells,)
        Spectra, such as means over samples.

    Returns
    -------
    dict of str to dict
        By band that the grid has, "low", "mid" and "high": "of_target", the root of the error's energy in the band
        over all the target's energy, whose squares add up to that of the whole error; and "of_band", over the
        target's energy in the band, absent where that is zero.

    Examples
    --------
    >>> spectrum_by_band(np.array([0.0, 0.04, 0.0, 0.0, 0.01]), np.array([0.0, 0.84, 0.0, 0.0, 0.16]))
    {'low': {'of_target': 0.2, 'of_band': 0.218...}, 'mid': {'of_target': 0.1, 'of_band': 0.25}}
    """
    found: dict[str, dict[str, float]] = {}
    for band, (first, stop) in BANDS.items():
        if first >= len(target):
            continue
        part, whole = error[first:stop].sum(), target[first:stop].sum()
        found[band] = {"of_target": float((part / target.sum()) ** 0.5)}
        if whole > 0:
            found[band]["of_band"] = float((part / whole) ** 0.5)
    return found
