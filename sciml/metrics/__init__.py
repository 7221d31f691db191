"""Errors of predictions, on any array library of the array API standard. No torch needed.

Every metric states its reduction; they differ between communities and so do the numbers.

- `relative_l2`, `relative_h1`: arrays (samples, *space, channels), one value per sample, shape
  (samples,); reports use their mean. The reduction of the operator-learning papers: one ratio over
  all points and channels of a sample jointly, then the mean of the ratios. It is not PDEBench's
  nRMSE, which takes a ratio per channel and time first.
- `pdebench` and `well`: the metrics of those two benchmarks, arrays (samples, time, *space, channels).
- `pdebench_metrics`, `windowed_vrmse`, `correlation_time`, `geometric_mean_nrmse`: forecasts. They
  take the whole target, drop its given frames themselves and refuse a prediction that contains them.

All of them take float32 or float64 arrays of one library on one device, and refuse anything else with
a ConfigError; NaN and infinity in a prediction go through to the result.
"""

from . import pdebench, well
from .forecasts import correlation_time, forecast_target, geometric_mean_nrmse, windowed_vrmse
from .pdebench import pdebench_metrics
from .relative import relative_h1, relative_l2

__all__ = [
    "correlation_time",
    "forecast_target",
    "geometric_mean_nrmse",
    "pdebench",
    "pdebench_metrics",
    "relative_h1",
    "relative_l2",
    "well",
    "windowed_vrmse",
]
