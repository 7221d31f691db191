"""Metrics: closed forms, masks, NumPy and torch alike, the numbers of other packages."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import ConfigError
from sciml.metrics import (
    correlation_time,
    forecast_target,
    geometric_mean_nrmse,
    pdebench,
    pdebench_metrics,
    relative_h1,
    relative_l2,
    well,
    windowed_vrmse,
)


def sine(n: int, periodic: bool) -> tuple[np.ndarray, float]:
    h = 1 / n if periodic else 1 / (n - 1)
    x = h * np.arange(n)
    return np.sin(2 * np.pi * x)[None, :, None], h


def test_relative_l2_is_joint_over_channels() -> None:
    u = np.stack([np.full((2, 3, 3), 3.0), np.full((2, 3, 3), 4.0)], axis=-1)
    p = u + np.array([0.0, 1.0])
    assert relative_l2(p, u) == pytest.approx([0.2, 0.2])


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 100), st.integers(0, 2**31), st.booleans())
def test_relative_errors_are_scale_free_and_agree_with_torch(scale: float, seed: int, masked: bool) -> None:
    rng = np.random.default_rng(seed)
    u, p = rng.normal(size=(2, 3, 6, 5, 2))
    mask = (rng.random((3, 6, 5, 1)) < 0.8).astype(float) if masked else None
    torch_mask = None if mask is None else torch.tensor(mask)
    l2 = relative_l2(p, u, mask)
    assert relative_l2(scale * p, scale * u, mask) == pytest.approx(l2)
    assert relative_l2(torch.tensor(p), torch.tensor(u), torch_mask).numpy() == pytest.approx(l2)
    h1 = relative_h1(p, u, (0.2, 0.3), (True, False), mask)
    ours = relative_h1(torch.tensor(p), torch.tensor(u), (0.2, 0.3), (True, False), torch_mask).numpy()
    assert ours == pytest.approx(h1)


@pytest.mark.parametrize("periodic", [True, False])
def test_h1_of_a_sine_converges_to_the_closed_form(periodic: bool) -> None:
    """u = sin 2 pi x, p = u + sin(4 pi x) / 10: the H1 ratio is known; differences are of order two."""
    exact = 0.1 * np.sqrt((1 + 16 * np.pi**2) / (1 + 4 * np.pi**2))
    grids, errors = (32, 64, 128, 256), []
    for n in grids:
        u, h = sine(n if periodic else n + 1, periodic)
        x = h * np.arange(u.shape[1])
        p = u + 0.1 * np.sin(4 * np.pi * x)[None, :, None]
        errors.append(abs(relative_h1(p, u, (h,), (periodic,))[0] - exact))
    rate = -np.polyfit(np.log(grids), np.log(errors), 1)[0]
    assert rate > (1.9 if periodic else 0.9), errors  # the ends weigh fully, not half, in the sum


def test_mask_leaves_out_what_is_outside() -> None:
    rng = np.random.default_rng(0)
    u, p = rng.normal(size=(2, 1, 9, 9, 1))
    mask = np.zeros((1, 9, 9, 1))
    mask[:, 2:7, 2:7] = 1
    wild = np.where(mask > 0, p, 1e6)
    assert relative_l2(wild, u, mask) == pytest.approx(relative_l2(p[:, 2:7, 2:7], u[:, 2:7, 2:7]))
    assert relative_h1(wild, u, (0.1, 0.1), (False, False), mask) == pytest.approx(
        relative_h1(p, u, (0.1, 0.1), (False, False), mask)
    )


def test_shapes_must_agree() -> None:
    with pytest.raises(ConfigError, match="prediction of shape"):
        relative_l2(np.ones((1, 3, 1)), np.ones((1, 4, 1)))
    with pytest.raises(ConfigError, match="mask of shape"):
        relative_l2(np.ones((1, 4, 1)), np.ones((1, 4, 1)), np.ones((1, 3, 1)))


def pair(seed: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.normal(size=shape)
    return target + 0.3 * rng.normal(size=shape), target


WELL = {
    "mse": "MSE", "rmse": "RMSE", "nmse": "NMSE", "nrmse": "NRMSE", "vmse": "VMSE", "vrmse": "VRMSE",
    "mae": "MAE", "nmae": "NMAE", "linf": "LInfinity", "pearson_r": "PearsonR",
}  # fmt: skip


@pytest.mark.parametrize("space", [(24,), (16, 12), (15, 16), (6, 8, 7)])
def test_well_gives_the_numbers_of_the_well(space: tuple[int, ...]) -> None:
    theirs = pytest.importorskip("the_well.benchmark.metrics")
    meta = SimpleNamespace(n_spatial_dims=len(space), spatial_resolution=space)
    p, u = pair(1, 2, 3, *space, 2)
    zero = np.zeros_like(u)
    for name, peer in WELL.items():
        for target in (u, 5 + u, zero):
            wanted = getattr(theirs, peer).eval(torch.tensor(p), torch.tensor(target), meta).numpy()
            ours = getattr(well, name)(p, target)
            assert ours.shape == (2, 3, 2)
            assert ours == pytest.approx(wanted, rel=1e-6), name
            assert getattr(well, name)(torch.tensor(p), torch.tensor(target)).numpy() == pytest.approx(ours)
    wanted = theirs.binned_spectral_mse.eval(torch.tensor(p), torch.tensor(u), meta)
    absolute, relative = well.binned_spectral_mse(p, u)
    for k in range(3):
        assert absolute[:, :, k] == pytest.approx(wanted[f"spectral_error_mse_per_bin_{k}"].numpy(), rel=1e-6)
        assert relative[:, :, k] == pytest.approx(
            wanted[f"spectral_error_nmse_per_bin_{k}"].numpy(), rel=1e-6
        )
    assert absolute.sum(axis=2) == pytest.approx(well.mse(p, u))


def by_loops(p: np.ndarray, u: np.ndarray) -> dict[str, float]:
    """PDEBench's metrics of 2D fields, one sample, time and channel after the other."""
    samples, frames, nx, ny, channels = u.shape
    e = p - u
    each = [(b, t, c) for b in range(samples) for t in range(frames) for c in range(channels)]
    root = {i: math.sqrt(np.mean(e[i[0], i[1], :, :, i[2]] ** 2)) for i in each}
    size = {i: math.sqrt(np.mean(u[i[0], i[1], :, :, i[2]] ** 2)) for i in each}
    largest, conserved, bands = [], [], {"low": [], "mid": [], "high": []}
    for t in range(frames):
        for c in range(channels):
            frame = e[:, t, :, :, c]
            largest.append(np.abs(frame).max())
            sums = [p[b, t, :, :, c].sum() - u[b, t, :, :, c].sum() for b in range(samples)]
            conserved.append(math.sqrt(np.mean(np.square(sums))) / (nx * ny))
            shells = np.zeros((samples, min(nx, ny) // 2))
            for b in range(samples):
                f = np.fft.fft2(frame[b])
                for i in range(nx // 2):
                    for j in range(ny // 2):
                        if int(math.hypot(i, j)) < shells.shape[1]:
                            shells[b, int(math.hypot(i, j))] += abs(f[i, j]) ** 2
            errors = np.sqrt(shells.mean(axis=0)) / (nx * ny)
            for band, part in (("low", slice(0, 4)), ("mid", slice(4, 12)), ("high", slice(12, None))):
                bands[band].append(errors[part].mean())
    sides = [
        math.sqrt(
            sum((f[0] ** 2).sum() + (f[-1] ** 2).sum() for f in (e[b, t, :, :, c], e[b, t, :, :, c].T))
            / (2 * nx + 2 * ny)
        )
        for b, t, c in each
    ]
    return {
        "RMSE": np.mean(list(root.values())),
        "nRMSE": np.mean([root[i] / size[i] for i in each]),
        "max": np.mean(largest),
        "cRMSE": np.mean(conserved),
        "bRMSE": np.mean(sides),
        **{f"fRMSE {band}": np.mean(values) for band, values in bands.items()},
    }


def test_pdebench_metrics_are_those_of_its_definitions() -> None:
    p, u = pair(2, 3, 5, 30, 28, 2)
    wanted = by_loops(p[:, 2:], u[:, 2:])
    assert pdebench_metrics(p[:, 2:], u, 2) == pytest.approx(wanted)
    assert pdebench_metrics(torch.tensor(p[:, 2:]), torch.tensor(u), 2) == pytest.approx(wanted)


def test_boundary_error_in_one_and_three_dimensions() -> None:
    u = np.zeros((1, 1, 5, 1))
    p = u.copy()
    p[0, 0, 0], p[0, 0, 2], p[0, 0, -1] = 3.0, 100.0, 4.0
    assert pdebench.boundary_rmse(p, u) == pytest.approx(math.sqrt(12.5))
    u = np.zeros((1, 1, 3, 4, 5, 1))
    p = u.copy()
    p[0, 0, 1, 1, 0] = 2.0  # inside the side z = 0, of 2 (3 * 4 + 4 * 5 + 3 * 5) nodes in all
    assert pdebench.boundary_rmse(p, u) == pytest.approx(math.sqrt(4 / 94))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 12), st.integers(-12, 12), st.floats(0.1, 10))
def test_a_single_mode_is_in_its_band(i: int, j: int, amplitude: float) -> None:
    """A complex pair +-k of size a / 2: the full shell sees both, PDEBench's quadrant at most one."""
    n = 32
    x = 2 * np.pi * np.arange(n) / n
    u = (amplitude * np.cos(i * x[:, None] + j * x))[None, None, :, :, None]
    shell = int(math.hypot(i, j))
    band = "low" if shell < 4 else "mid" if shell < 12 else "high"
    width = {"low": 4, "mid": 8, "high": 4}[band]
    full = pdebench.fourier_rmse(0 * u, u, rule="shell")
    size = amplitude * (1 if (i, j) == (0, 0) else math.sqrt(0.5))
    expected = size / width if shell < n // 2 else 0.0
    assert full == pytest.approx({"low": 0, "mid": 0, "high": 0, band: expected}, abs=1e-12)
    seen = {(0, 0): 1.0}.get((i, j), 0.5 if i >= 0 and (j >= 0 or i == 0) else 0.0)
    quadrant = pdebench.fourier_rmse(0 * u, u)[band]
    assert quadrant == pytest.approx(seen * amplitude / width if shell < n // 2 else 0.0, abs=1e-12)
    assert pdebench.fourier_rmse(0 * u, u, (2.0, 3.0))[band] == pytest.approx(6 * quadrant, abs=1e-12)


def test_zero_fields_are_as_documented() -> None:
    u = np.zeros((1, 1, 8, 1))
    assert pdebench.nrmse(u + 1, u) == np.inf
    assert np.isnan(pdebench.nrmse(u, u))
    assert well.vrmse(u + 1, u)[0, 0, 0] == pytest.approx(1e7**0.5)
    assert well.pearson_r(u, u)[0, 0, 0] == 0


@pytest.mark.parametrize(
    "metric",
    [
        lambda p, u: pdebench_metrics(p, u, 2),
        lambda p, u: windowed_vrmse(p, u, 2, ((0, 1),)),
        lambda p, u: correlation_time(p, u, 2, range(6)),
        lambda p, u: geometric_mean_nrmse(p, u, 2, steps=2),
    ],
)
def test_forecasts_refuse_given_frames(metric: object) -> None:
    assert callable(metric)
    p, u = pair(3, 2, 6, 32, 1)
    metric(p[:, 2:], u)
    for frames in (p, p[:, 1:], p[:, 3:]):
        with pytest.raises(ConfigError, match="given frames must not be included"):
            metric(frames, u)


def test_windowed_vrmse_averages_the_window() -> None:
    p, u = pair(4, 3, 34, 16, 2)
    scores = windowed_vrmse(p[:, 4:], u, 4)
    errors = np.sqrt(((p - u) ** 2).mean(axis=2) / (u.var(axis=2, ddof=1) + 1e-7))
    assert scores["6:12"] == pytest.approx(errors[:, 10:16].mean(axis=(1, 2)))
    assert scores["13:30"] == pytest.approx(errors[:, 17:34].mean(axis=(1, 2)))
    with pytest.raises(ConfigError, match="13:30 is not 0 <= start < stop <= 20"):
        windowed_vrmse(p[:, 14:], u, 14)


def test_correlation_time_of_a_known_decay() -> None:
    """p = r u + (1 - r^2)^(1/2) v, u and v orthonormal and of mean zero: the correlation is r."""
    x = 2 * np.pi * np.arange(32) / 32
    times, r = np.array([0.0, 1.0, 3.0, 4.0]), np.array([0.9, 0.6, 0.95])
    u = np.broadcast_to(np.sin(x)[:, None], (3, 4, 32, 1))
    p = r[:, None] * np.sin(x) + np.sqrt(1 - r**2)[:, None] * np.cos(x)
    p = np.stack([p, p[[0, 0, 0]], np.full_like(p, np.nan)])[..., None]
    expected = [1 + 2 * 2 / 3, np.inf, 0.3]
    assert correlation_time(p, u, 1, times, threshold=0.7) == pytest.approx(expected)
    in_torch = correlation_time(torch.tensor(p), torch.tensor(u.copy()), 1, times.tolist(), threshold=0.7)
    assert in_torch.numpy() == pytest.approx(expected)
    with pytest.raises(ConfigError, match="threshold=2"):
        correlation_time(p, u, 1, times, threshold=2)
    with pytest.raises(ConfigError, match="increasing times"):
        correlation_time(p, u, 1, times[::-1])


def test_geometric_mean_is_over_time_of_the_mean_over_samples() -> None:
    u = np.ones((2, 4, 8, 1))
    factors = 1 + np.array([[0.1, 0.4, 9.0], [0.3, 0.4, 9.0]])
    p = factors[:, :, None, None] * u[:, 1:]
    assert geometric_mean_nrmse(p, u, 1, steps=2) == pytest.approx(math.sqrt(0.2 * 0.4))
    with pytest.raises(ConfigError, match="steps=100: give an integer from 1 to 3"):
        geometric_mean_nrmse(p, u, 1)


# -- Hostile input ----------------------------------------------------------------------------------

METRICS: dict[str, Callable[[Any, Any], object]] = {
    "relative_l2": relative_l2,
    "relative_h1": lambda p, u: relative_h1(p, u, (0.1,) * 2, (True, False)),
    **{
        f"pdebench.{name}": getattr(pdebench, name) for name in pdebench.__all__ if name != "pdebench_metrics"
    },
    **{f"well.{name}": getattr(well, name) for name in well.__all__},
    "pdebench_metrics": lambda p, u: pdebench_metrics(p, u, 2),
    "windowed_vrmse": lambda p, u: windowed_vrmse(p, u, 2, ((0, 1),)),
    "correlation_time": lambda p, u: correlation_time(p, u, 2, range(5)),
    "geometric_mean_nrmse": lambda p, u: geometric_mean_nrmse(p, u, 2, steps=1),
    "forecast_target": lambda p, u: forecast_target(p, u, 2),
}
FORECASTS = (
    "pdebench_metrics",
    "windowed_vrmse",
    "correlation_time",
    "geometric_mean_nrmse",
    "forecast_target",
)
HOSTILE: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "list": (lambda u: u.tolist(), "of type list: give a NumPy array or a torch tensor"),
    "None": (lambda u: None, "of type NoneType: give"),
    "number": (lambda u: np.float64(1), r"of shape \(\): give \(samples, "),
    "text": (lambda u: u.astype(str), "of dtype <U.*: convert it to float32 or float64"),
    "integers": (lambda u: u.astype(np.uint8), "of dtype uint8: convert it to"),
    "complex": (lambda u: u + 0j, "of dtype complex128: convert it to"),
    "half": (lambda u: u.astype(np.float16), "of dtype float16: convert it to"),
    "one axis": (lambda u: u.ravel(), "of shape .*: give "),
    "no samples": (lambda u: u[:0], r"of shape \(0, .* each of at least 1"),
    "other library": (torch.tensor, "give arrays of one library on one device"),
    "other shape": (
        lambda u: u[..., 1:, :],
        "prediction of shape .* against target of .*: give both the same",
    ),
}


@pytest.mark.parametrize("fault", HOSTILE)
@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_refuses_what_is_no_pair_of_arrays(metric: str, fault: str) -> None:
    p, u = pair(6, 2, 5, 6, 1) if metric == "relative_h1" else pair(6, 2, 5, 6, 7, 1)
    given = slice(2, None) if metric in FORECASTS else slice(None)
    p, (spoil, message) = p[:, given], HOSTILE[fault]
    METRICS[metric](p, u)
    for name, arrays in (("prediction", (spoil(p), u)), ("target", (p, spoil(u)))):
        with pytest.raises(ConfigError, match=message) as caught:
            METRICS[metric](*arrays)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


U = np.random.default_rng(7).normal(size=(2, 6, 8, 9, 1))
P, FRAME = U[:, 2:], U[:, 0]
WRONG = (0.0, -1.0, math.nan, math.inf, 10**400, "a", None, True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *[
            (lambda h=h: relative_h1(FRAME, FRAME, h, (True, True)), "spacing=.*: give a positive number for each")
            for h in (0.1, 0.0, np.float64(0.1), (0.1,), "ab", None, *((0.1, h) for h in WRONG))
        ],
        *[
            (lambda w=w: relative_h1(FRAME, FRAME, (0.1, 0.1), w), "periodic=.*: give True or False for each")
            for w in (True, (True,), (1, 0), "ab", None)
        ],
        (lambda: relative_h1(FRAME[:, :2], FRAME[:, :2], (0.1, 0.1), (True, True)), "three nodes along each axis"),
        (lambda: relative_h1(FRAME[:, 0, 0], FRAME[:, 0, 0], (), ()), r"of shape \(2, 1\)"),
        (lambda: relative_l2(U, U, U.tolist()), "mask of type list"),
        (lambda: relative_l2(U, U, torch.tensor(U)), "mask of torch on cpu"),
        (lambda: relative_l2(U, U, U + 0j), "mask of dtype complex128"),
        *[
            (lambda b=b: well.binned_spectral_mse(U, U, b), "bins=.*: give an integer of at least 1")
            for b in (0, -1, 2.5, "3", True, None)
        ],
        (lambda: well.vrmse(U[:, :, :1, :1], U[:, :, :1, :1]), "a variance needs at least 2 points"),
        *[
            (lambda s=s: pdebench.fourier_rmse(U, U, s), "lengths=.*: give a positive number for each of the 2 axes")
            for s in (1.0, (1.0,), "ab", *((1.0, s) for s in WRONG))
        ],
        (lambda: pdebench.fourier_rmse(U, U, rule="disk"), "rule='disk': use 'quadrant'"),
        *[
            (lambda n=n: forecast_target(P, U, n), "n_given=.*: give an integer from 1 to 5, as the target")
            for n in (0, 6, -1, 1.5, "2", True, None)
        ],
        *[
            (lambda w=w: windowed_vrmse(P, U, 2, w), "windows=")
            for w in ((), (0, 2), ((0, 2.5),), "ab", None, ((0, 5),), ((2, 2),), ((-1, 2),), ((0, 1, 2),))
        ],
        *[
            (lambda t=t: correlation_time(P, U, 2, t), "times=.*: give the increasing times of the target's 6 frames")
            for t in (1.0, "abcdef", None, range(5), [0, 1, 2, 3, 4, math.inf], [0, 1, 2, 3, 4, math.nan], [[0]] * 6)
        ],
        *[
            (lambda t=t: correlation_time(P, U, 2, range(6), t), "threshold=.*: give a number between 0 and 1")
            for t in (0, 1, -0.5, math.nan, "0.5", None, True)
        ],
        *[
            (lambda n=n: geometric_mean_nrmse(P, U, 2, n), "steps=.*: give an integer from 1 to 4")
            for n in (0, 5, 1.5, "2", True)
        ],
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_arrays_on_two_devices_are_refused() -> None:
    u = torch.ones(1, 2, 8, 1)
    with pytest.raises(ConfigError, match="target of torch on meta, prediction of torch on cpu"):
        well.mse(u, u.to("meta"))


def test_long_values_are_shortened_in_messages() -> None:
    with pytest.raises(ConfigError, match="times=") as caught:
        correlation_time(P, U, 2, np.linspace(1, 0, 1000))
    assert len(str(caught.value)) < 120


def test_bands_that_the_grid_does_not_resolve_are_nan() -> None:
    """The fewest nodes that are documented for each band, and one fewer."""
    for n, unresolved in ((26, set()), (25, {"high"}), (10, {"high"}), (9, {"mid", "high"})):
        u = np.random.default_rng(8).normal(size=(1, 2, 30, n, 1))
        bands = pdebench.fourier_rmse(0 * u, u)
        assert {band for band, value in bands.items() if math.isnan(value)} == unresolved
        assert all(value > 0 for band, value in bands.items() if band not in unresolved)


def test_relative_errors_of_a_target_of_zero_are_as_documented() -> None:
    """And no warning, which would be an error here."""
    u = np.zeros((2, 8, 1))
    p = u + np.array([0.0, 1.0])[:, None, None]
    for errors in (relative_l2(p, u), relative_h1(p, u, (0.1,), (True,))):
        assert np.isnan(errors[0])
        assert errors[1] == np.inf


def test_masks_may_hold_booleans() -> None:
    p, u = pair(9, 2, 6, 7, 1)
    mask = np.random.default_rng(9).random((2, 6, 7, 1)) < 0.7
    assert relative_l2(p, u, mask) == pytest.approx(relative_l2(p, u, mask.astype(float)))
    for library in (np.asarray, torch.tensor):
        h1 = relative_h1(library(p), library(u), np.array([0.1, 0.2]), np.array([True, False]), library(mask))
        assert np.asarray(h1) == pytest.approx(relative_h1(p, u, (0.1, 0.2), (True, False), 1.0 * mask))
