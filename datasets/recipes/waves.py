"""Initial states made of a few sine waves: the same function on every grid."""

import numpy as np

__all__ = ["SineWaves"]


class SineWaves:
    """u(x) = sum_i A_i sin(2 pi n_i x / L + p_i), the initial states of PDEBench and of LPSDA.

    PDEBench: arXiv 2210.07182, section D; LPSDA: Brandstetter, Welling, Worrall, arXiv 2202.07643.

    Parameters
    ----------
    seed : int
    count : int
        Waves.
    wavenumbers : (int, int)
        Smallest and largest n_i, drawn uniformly.
    amplitudes : (float, float)
        Of A_i, drawn uniformly; p_i is uniform in [0, 2 pi].
    length : float
        L.

    Examples
    --------
    >>> wave = SineWaves(3, 2, (1, 8), (0.0, 1.0), 1.0)
    >>> bool(np.allclose(wave(np.array([0.25])), wave(np.array([1.25]))))
    True
    """

    def __init__(
        self,
        seed: int,
        count: int,
        wavenumbers: tuple[int, int],
        amplitudes: tuple[float, float],
        length: float,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.k = 2 * np.pi / length * rng.integers(*wavenumbers, count, endpoint=True)
        self.amplitude = rng.uniform(*amplitudes, count)
        self.phase = rng.uniform(0, 2 * np.pi, count)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Evaluate at points of any shape."""
        return np.sin(x[..., None] * self.k + self.phase) @ self.amplitude
