"""What a network predicts, and how to get data and noise from it.

With x = alpha x_0 + sigma eps, all of these say the same:

===========  ===============================================  ==========================================
name         output                                           data x_0
===========  ===============================================  ==========================================
noise        eps                                              (x - sigma eps) / alpha
data         x_0                                              itself
score        grad log p_t(x) = -eps / sigma                   (x + sigma^2 score) / alpha
v            alpha eps - sigma x_0, alpha^2 + sigma^2 = 1     alpha x - sigma v
velocity     dx/dt = alpha' x_0 + sigma' eps                  (sigma v - sigma' x) / (alpha' sigma - sigma' alpha)
===========  ===============================================  ==========================================

(the last is eps - x_0 of flow matching). All are linear in x and output, so that a solver gets them as two numbers.
"""

from typing import Literal, get_args

from sciml.errors import ConfigError
from sciml.registry import unknown_name

from .schedules import Array, Level, Schedule, as_array

__all__ = ["Parametrisation", "check_parametrisation", "edm_preconditioning", "to_data", "to_noise"]

Parametrisation = Literal["noise", "data", "score", "v", "velocity"]


def check_parametrisation(name: str, schedule: Schedule) -> None:
    """Refuse a name that is not known, or that a schedule has no meaning for.

    Raises
    ------
    ConfigError
    """
    if name not in get_args(Parametrisation):
        raise unknown_name("parametrisation", name, list(get_args(Parametrisation)))
    if name == "v" and not schedule.variance_preserving:
        raise ConfigError(
            f"prediction='v': {type(schedule).__name__} does not preserve the variance; give a VP schedule, or "
            "'velocity' for dx/dt"
        )


def to_data(name: str, level: Level) -> tuple[float, float]:
    """Return (a, b) such that x_0 = a x + b output.

    Examples
    --------
    >>> from sciml.sampling import FlowMatching
    >>> to_data("velocity", FlowMatching().level(0.25))  # x - t v
    (1.0, -0.25)
    """
    alpha, sigma = level.alpha, level.sigma
    if name == "data":
        return 0.0, 1.0
    if name == "noise":
        return 1 / alpha, -sigma / alpha
    if name == "score":
        return 1 / alpha, sigma**2 / alpha
    if name == "v":
        return alpha, -sigma
    scale = level.alpha_rate * sigma - level.sigma_rate * alpha
    return -level.sigma_rate / scale, sigma / scale


def to_noise(name: str, level: Level) -> tuple[float, float]:
    """Return (a, b) such that eps = a x + b output.

    Examples
    --------
    >>> from sciml.sampling import VE
    >>> to_noise("score", VE().level(2.0))
    (0.0, -2.0)
    """
    alpha, sigma = level.alpha, level.sigma
    if name == "data":
        return 1 / sigma, -alpha / sigma
    if name == "noise":
        return 0.0, 1.0
    if name == "score":
        return 0.0, -sigma
    if name == "v":
        return sigma, alpha
    scale = level.alpha_rate * sigma - level.sigma_rate * alpha
    return level.alpha_rate / scale, -alpha / scale


def edm_preconditioning(sigma: Array, data_std: float = 0.5) -> tuple[Array, Array, Array, Array]:
    """Return c_skip, c_out, c_in and c_noise of D = c_skip x + c_out F(c_in x; c_noise), for alpha = 1.

    Input and target of the network F have unit variance at every sigma, and its errors are amplified least (Karras
    et al., NeurIPS 2022, arXiv 2206.00364, table 1).

    Examples
    --------
    >>> float(edm_preconditioning(0.5)[0])
    0.5
    """
    xp, sigma = as_array(sigma)
    variance = sigma**2 + data_std**2
    return data_std**2 / variance, sigma * data_std / variance**0.5, variance**-0.5, xp.log(sigma) / 4
