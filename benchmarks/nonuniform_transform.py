"""Geo-FNO's first layer from scattered points, forward and backward: time and memory, beside a dense complex transform.

That is the published form: one tensor of all exponentials, points times wavenumbers. Every figure is of a process of
its own, whose largest memory is compared with what it had before.
"""

import json
import math
import resource
import subprocess
import sys
import time

import torch
from _results import record
from torch import Tensor

from sciml.operators import NonuniformFourier
from sciml.operators.fourier import wavenumbers
from sciml.operators.nonuniform import MANY, _full
from sciml.operators.spectral import SpectralConv

WIDTH, REPEATS = 32, 5
CASES = ((2, 24), (2, 64), (3, 16))
POINTS = (1_000, 10_000, 100_000)
NAMES = {"fast": "finufft", "direct": "direct", "dense": "dense"}
MEMORY = 20e9
"""What the dense transform may take: beyond that it is not run."""


def dense(v: Tensor, xi: Tensor, modes: tuple[int, ...]) -> Tensor:
    """Coefficients by the table of all exponentials, real and imaginary part as other layers have them."""
    axes = [
        torch.tensor(wavenumbers(n, axis == len(modes) - 1), dtype=xi.dtype) for axis, n in enumerate(modes)
    ]
    k = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    phase = -2 * math.pi * xi @ k.T
    basis = torch.complex(phase.cos(), phase.sin())
    c = basis.transpose(1, 2) @ v.to(basis.dtype)
    return torch.stack([c.real, c.imag], 1).unflatten(2, [len(axis) for axis in axes])


def measure(method: str, dim: int, count: int, points: int) -> dict[str, float]:
    """CPU seconds and bytes of one step of the layer."""
    torch.manual_seed(0)
    modes = (count,) * dim
    layer = SpectralConv(WIDTH, modes, (True,) * dim, 0.0)
    xi, v = torch.rand(1, points, dim), torch.randn(1, points, WIDTH)
    weights = torch.full((1, points), 1 / points)
    fourier = None if method == "dense" else NonuniformFourier(modes, method)  # type: ignore[arg-type]

    def step(xi: Tensor, v: Tensor) -> Tensor:
        xi, v = xi.detach().requires_grad_(), v.detach().requires_grad_()
        w = weights[:, : v.shape[1]]
        c = dense(v * w[..., None], xi, modes) if fourier is None else fourier.analyse(v, xi, w)
        layer.mix(c).square().sum().backward()
        return c

    step(xi[:, :100], v[:, :100])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    c = step(xi, v)
    used = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        step(xi, v)
        seconds.append(time.process_time() - started)
    return {"seconds": sorted(seconds)[REPEATS // 2], "bytes": used, "norm": float(c.detach().norm())}


def main() -> None:
    if len(sys.argv) > 1:
        method, *numbers = sys.argv[1:]
        print(json.dumps(measure(method, *map(int, numbers))))
        return
    rows: list[list[object]] = []
    for dim, count in CASES:
        for points in POINTS:
            found = {}
            for method in NAMES:
                if method == "dense" and 24 * points * count ** (dim - 1) * (count // 2 + 1) > MEMORY:
                    continue
                command = [sys.executable, __file__, method, str(dim), str(count), str(points)]
                found[method] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                assert abs(found[method]["norm"] / found["fast"]["norm"] - 1) < 1e-4, (
                    method,
                    dim,
                    count,
                    points,
                )
            default = "direct" if math.prod(_full((count,) * dim)) <= MANY[dim] else "fast"
            row: list[object] = [f"{dim}D, {count} wavenumbers an axis", points, NAMES[default]]
            row += [f"{1e3 * found[m]['seconds']:.0f}" if m in found else "-" for m in NAMES]
            row += [
                f"{found['dense'][key] / found[default][key]:.1f}" if "dense" in found else "-"
                for key in ("seconds", "bytes")
            ]
            row += [f"{found[m]['bytes'] / 1e6:.0f}" if m in found else "-" for m in NAMES]
            rows.append(row)
            print(row, flush=True)
    record(
        "nonuniform_transform",
        "From scattered points to Fourier coefficients, forward and backward, width 32, float32",
        [
            *("transform", "points", "by default", *(f"{name} CPU ms" for name in NAMES.values())),
            *("dense / default, time", "memory", *(f"{name} MB" for name in NAMES.values())),
        ],
        rows,
        f"Gradients of values and of places. Medians of {REPEATS} steps, each in a process of its own, with "
        f"{torch.get_num_threads()} thread; memory beyond what the process had. Not run where the dense table alone "
        "would take tens of GB.",
    )


if __name__ == "__main__":
    main()
