"""Mixtures of Gaussians, among them the one of forty modes that learned samplers are compared by."""

import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError

from .base import TARGETS, Density, Modes, Moment

__all__ = ["IsotropicMixture", "digits", "gmm40", "three_modes"]

# 80 (u - 1/2), u the first numbers of a generator seeded with 0 (Midgley et al., ICLR 2023, arXiv 2208.01893).
MEANS40 = """
-0.2995,21.4577 -32.9218,-29.4376 -15.4062,10.7263 -0.7925,31.7156 -3.5498,10.5845 -12.0885,-7.8626
-38.2139,-26.4913 -16.4889,1.4817 15.8134,24.0009 -27.1176,-17.4185 14.5287,33.2155 -8.2320,29.9325
-6.4473,4.2326 36.2190,-37.1068 -25.1815,-10.1266 -15.5920,34.5600 -25.9272,-18.4133 -27.9456,-37.4624
-23.3496,34.3839 17.8487,19.3869 2.1037,-20.5073 6.7674,-37.3478 -28.9026,-20.6212 25.2375,23.4529
-17.7398,-1.4433 25.5824,39.7653 15.8753,5.4037 26.8195,-23.5521 7.4538,-31.0122 -27.7234,-20.6633
18.0989,16.0864 -23.6941,12.0843 21.9589,-5.0487 1.5273,9.2682 24.8151,38.4078 -30.8249,-14.6588
15.7204,33.1420 34.8083,35.2943 7.9606,-34.7833 3.6797,-25.0242
"""
DEVIATION40 = 1.3132616875182228
"""log(1 + e)."""


class IsotropicMixture(Density):
    """sum_k w_k N(m_k, s^2 I), normalised.

    Parameters
    ----------
    weights : sequence of float, shape (k,)
        In any unit.
    means : array, shape (k, d)
    deviation : float
        s, of all components.

    Raises
    ------
    ConfigError
        If shapes differ, or weights or the deviation are not positive.

    Examples
    --------
    >>> pair = IsotropicMixture([1, 3], [[-2.0], [2.0]], 1.0)
    >>> [round(moment.value, 6) for moment in pair.moments]  # E x_1, E |x|^2
    [1.0, 5.0]
    """

    log_z = 0.0

    def __init__(
        self,
        weights: Sequence[float] | np.ndarray,
        means: Sequence[Sequence[float]] | np.ndarray,
        deviation: float,
    ) -> None:
        w, m = np.asarray(weights, float), np.asarray(means, float)
        if w.ndim != 1 or m.ndim != 2 or len(w) != len(m) or not m.size:
            raise ConfigError(f"weights of shape {w.shape}, means of shape {m.shape}: give (k,) and (k, d)")
        if not (w > 0).all() or not deviation > 0 or not (np.isfinite(w).all() and np.isfinite(m).all()):
            raise ConfigError(f"weights, deviation={deviation}: they must be positive, and all finite")
        self.weights, self.means, self.deviation, self.d = w / w.sum(), m, float(deviation), m.shape[1]
        self.modes = Modes(torch.from_numpy(m), torch.from_numpy(self.weights))
        self._centre = self.weights @ m
        # Of each coordinate, about the origin.
        self.reach = float(np.sqrt((self.weights @ m**2).max() + self.deviation**2))
        constant = self.d * (np.log(self.deviation) + 0.5 * np.log(2 * np.pi))
        self._offsets = np.log(self.weights) - constant
        self._tensors: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor]] = {}
        square = float(self.weights @ (m**2).sum(1)) + self.d * self.deviation**2
        self.moments = (
            *(
                Moment(f"E x_{i + 1}", float(self._centre[i]), operator.itemgetter((slice(None), i)))
                for i in range(min(self.d, 2))
            ),
            Moment("E |x|^2", square, lambda x: x.square().sum(1)),
        )

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return centre, means about it and offsets, like x."""
        key = x.device, x.dtype
        if key not in self._tensors:
            about = self.means - self._centre
            offsets = self._offsets - 0.5 * (about**2).sum(1) / self.deviation**2
            parts = (torch.as_tensor(part).to(*key) for part in (self._centre, about, offsets))
            self._tensors[key] = tuple(parts)  # type: ignore[assignment]
        return self._tensors[key]

    def _logits(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the logarithms of the components less -|x|^2 / (2 s^2), x and the means about the centre."""
        centre, means, offsets = self._parts(x)
        about = x - centre
        return torch.addmm(offsets, about, means.T, alpha=self.deviation**-2), about, means, centre

    def log_density(self, x: Tensor) -> Tensor:
        """Return the logarithm of the density, normalised."""
        logits, about, _, _ = self._logits(x)
        return torch.logsumexp(logits, 1) - 0.5 * about.square().sum(1) / self.deviation**2

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log_density and the score, (E[component's mean | x] - x) / s^2."""
        with torch.no_grad():
            logits, about, means, _ = self._logits(x)
            peak = logits.amax(1, keepdim=True)
            # Below e^-60 a share is nothing, and tiny numbers are slow.
            shares = logits.sub_(peak).clamp_(min=-60).exp_()
            total = shares.sum(1, keepdim=True)
            value = (total.log() + peak)[:, 0] - 0.5 * about.square().sum(1) / self.deviation**2
            return value, ((shares @ means) / total - about) / self.deviation**2

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw samples, shape (n, d)."""
        rng = np.random.default_rng(seed)
        component = rng.choice(len(self.weights), n, p=self.weights)
        return torch.from_numpy(self.means[component] + self.deviation * rng.standard_normal((n, self.d)))

    def compiled(self) -> tuple[str, np.ndarray]:
        """Return the name of the compiled form, with 1 / s^2, then offset and mean of each component."""
        components = np.column_stack([self._offsets, self.means]).ravel()
        return "mixture", np.concatenate([[self.deviation**-2], components]).astype(np.float32)


@TARGETS.register("gmm40")
def gmm40() -> IsotropicMixture:
    """Return forty modes of equal weight in a square of side 80, deviation 1.313.

    The closest pair is 1.18 apart, less than a deviation. Log-density and score are those of the mixture everywhere:
    FAB's code sets the former to minus infinity below -1e4.

    Examples
    --------
    >>> gmm40().modes.means.shape
    torch.Size([40, 2])
    """
    return IsotropicMixture(
        np.full(40, 1 / 40), [tuple(map(float, pair.split(","))) for pair in MEANS40.split()], DEVIATION40
    )


@TARGETS.register("three-modes")
def three_modes() -> IsotropicMixture:
    """Return modes (3, 0), (0, -6), (-9, 0) of weights 0.2, 0.3, 0.5, deviation 1: unequal weights and radii.

    Examples
    --------
    >>> three_modes().modes.weights.tolist()
    [0.2, 0.3, 0.5]
    """
    return IsotropicMixture([0.2, 0.3, 0.5], [[3.0, 0.0], [0.0, -6.0], [-9.0, 0.0]], 1.0)


@TARGETS.register("digits")
def digits(deviation: float = 0.1, centred: bool = False) -> IsotropicMixture:
    """Return a mixture around the 1797 images of scikit-learn's digits, 8 x 8, pixels from 0 to 1.

    Parameters
    ----------
    deviation : float
    centred : bool
        Subtract the mean image, so that none of the digits is much nearer to the origin than others.

    Examples
    --------
    >>> digits().d
    64
    """
    images, _ = digit_images()
    return IsotropicMixture(np.ones(len(images)), images - images.mean(0) if centred else images, deviation)


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Return images, shape (1797, 64), and which digit each is."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    images, labels = load_digits(return_X_y=True)
    return images / 16, labels
