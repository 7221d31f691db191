"""Times at which a solver evaluates a model: from noise to data, or back."""

from typing import Literal, get_args

import numpy as np

from sciml.errors import ConfigError
from sciml.registry import unknown_name

from .schedules import Schedule

__all__ = ["Grid", "time_grid"]

Grid = Literal["log-snr", "time", "quadratic", "karras", "beta"]
RHO = 7.0


def time_grid(
    schedule: Schedule,
    steps: int,
    grid: Grid = "log-snr",
    start: float | None = None,
    end: float | None = None,
) -> np.ndarray:
    """Return steps + 1 times from ``start`` to ``end``.

    With ratio = sigma / alpha, i = 0 ... N:

    - ``log-snr``: uniform in lambda, so that the ratio falls by one factor (also called exponential, or lu);
    - ``time``: uniform in t;
    - ``quadratic``: uniform in the root of t;
    - ``karras``: uniform in ratio^(1/7) (arXiv 2206.00364, equation 5);
    - ``beta``: ratios at quantiles of Beta(0.6, 0.6), dense at both ends (arXiv 2407.12173).

    Parameters
    ----------
    schedule : Schedule
    steps : int
    grid : {"log-snr", "time", "quadratic", "karras", "beta"}
    start, end : float, optional
        ``t_max`` and ``t_min`` of the schedule by default.

    Returns
    -------
    ndarray, shape (steps + 1,)

    Raises
    ------
    ConfigError
        If a name is not known, there is no step, both ends are the same, or the schedule has no inverse.

    Examples
    --------
    >>> from sciml.sampling import VE
    >>> time_grid(VE(), 9, "karras")[:3].round(6).tolist()
    [80.0, 42.415189, 21.108677]
    """
    if grid not in get_args(Grid):
        raise unknown_name("grid", grid, list(get_args(Grid)))
    if steps < 1:
        raise ConfigError(f"steps={steps}: it must be at least 1")
    first = schedule.t_max if start is None else float(start)
    last = schedule.t_min if end is None else float(end)
    ends = [schedule.level(t).half_log_snr for t in (first, last)]
    if first == last:
        raise ConfigError(f"start={first:g}, end={last:g}: they must differ")
    part = np.linspace(0.0, 1.0, steps + 1)
    if grid in ("time", "quadratic"):
        power = 1 if grid == "time" else 2
        times = (first ** (1 / power) * (1 - part) + last ** (1 / power) * part) ** power
    else:
        if grid == "log-snr":
            lams = ends[0] + part * (ends[1] - ends[0])
        else:
            ratios = np.exp(-np.array(ends))
            if grid == "beta":
                from scipy.stats import beta

                ratios = ratios[1] + beta.ppf(1 - part, 0.6, 0.6) * (ratios[0] - ratios[1])
            else:
                roots = ratios ** (1 / RHO)
                ratios = (roots[0] * (1 - part) + roots[1] * part) ** RHO
            lams = -np.log(ratios)
        times = np.asarray(schedule.time(lams), float)
    times[[0, -1]] = first, last
    return times
