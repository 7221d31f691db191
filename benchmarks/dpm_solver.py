"""DPM-Solver beside diffusers: time per step without the model, and errors against evaluations on an exact mixture."""

import sys
import warnings
from collections.abc import Callable

import numpy as np
import torch
from _results import alternate, record
from scipy.optimize import brentq
from scipy.special import ndtr
from torch import Tensor

from sciml.dynamics import integrate_field
from sciml.sampling import (
    VE,
    Mixture1D,
    ProbabilityFlow,
    Sampler,
    Schedule,
    Solver,
    VPLinear,
    sample,
)

GMM3 = Mixture1D((0.3, 0.5, 0.2), (-2.0, 0.5, 3.0), (0.5, 0.3, 0.8))
STEPS, REPEATS = 50, 31
SHAPE = 4, 3, 64, 64
COUNTS = 10, 20, 40, 80, 160, 320


def overhead() -> None:
    """Whole runs of 50 steps whose model returns a tensor that is there already."""
    from diffusers import DPMSolverMultistepScheduler

    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(device)
    output = 0.1 * start
    schedule, rows = VPLinear(), []
    for ours, order, algorithm in (
        ("dpm++1", 1, "dpmsolver++"),
        ("dpm++2m", 2, "dpmsolver++"),
        (Solver(order=3, compat=True), 3, "dpmsolver++"),
        ("sde-dpm++2m", 2, "sde-dpmsolver++"),
    ):
        scheduler = DPMSolverMultistepScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            solver_order=order,
            algorithm_type=algorithm,
        )
        noise = torch.randn_like(start)

        def public(scheduler: DPMSolverMultistepScheduler = scheduler, noise: Tensor = noise) -> Tensor:
            scheduler.set_timesteps(STEPS, device=device)
            x = start
            for t in scheduler.timesteps:
                x = scheduler.step(output, t, x, variance_noise=noise, return_dict=False)[0]
            return x

        # Made once for a grid, as a user draws batch after batch.
        sampler = Sampler(lambda x, t: output, schedule, ours, STEPS, final_zero=True)

        def own(sampler: Sampler = sampler, noise: Tensor = noise) -> Tensor:
            return sampler(start, lambda step, x: noise).x

        def prepared(ours: str | Solver = ours, noise: Tensor = noise) -> Tensor:
            made = Sampler(lambda x, t: output, schedule, ours, STEPS, final_zero=True)
            return made(start, lambda step, x: noise).x

        candidates: dict[str, Callable[[], object]] = {
            "theirs": public,
            "ours": own,
            "planned anew": prepared,
        }
        if gpu:
            candidates["graph"] = captured(sampler, start, noise)
        seconds = alternate(candidates, REPEATS, gpu)
        rows.append(
            [
                ours if isinstance(ours, str) else "dpm++3m, compat",
                *(f"{seconds[name] / STEPS * 1e6:.0f}" for name in candidates),
                *(f"{seconds['theirs'] / seconds[name]:.1f}" for name in list(candidates)[1:]),
            ]
        )
    names = ["ours", "planned anew", *(["CUDA graph"] if gpu else [])]
    record(
        "dpm_solver_gpu" if gpu else "dpm_solver",
        f"Solver overhead, microseconds per step without the model, {' x '.join(map(str, SHAPE))} float32, "
        f"{torch.cuda.get_device_name() if gpu else 'one CPU thread'}",
        ["solver", "diffusers 0.39", *names, *(f"ratio, {name}" for name in names)],
        rows,
        f"Runs of {STEPS} steps in turn, median of {REPEATS}; diffusers with set_timesteps, ours with the plan made "
        "before, and with it made in every run. Noise of the SDE solvers is given to both. The check for finite "
        "outputs is part of ours.",
    )


def captured(sampler: Sampler, start: Tensor, noise: Tensor) -> Callable[[], object]:
    """The loop as a CUDA graph: it could not be recorded if it waited for the device."""
    draw = lambda step, x: noise  # noqa: E731
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        sampler.integrate(start, draw)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sampler.integrate(start, draw)
    return graph.replay


def quantiles(schedule: Schedule) -> Tensor:
    level = schedule.level(schedule.t_max)
    deviations = np.sqrt(level.alpha**2 * GMM3.deviations**2 + level.sigma**2)
    rows = [
        brentq(
            lambda x, p: float(GMM3.weights @ ndtr((x - level.alpha * GMM3.means) / deviations)) - p,
            *(-9 * deviations.max(), 9 * deviations.max(), ((i + 0.5) / 64,)),
        )
        for i in range(64)
    ]
    return torch.tensor(rows, dtype=torch.float64)[:, None]


def unipc(schedule: Schedule, start: Tensor, steps: int, order: int) -> Tensor:
    """diffusers' UniPC (bh2) on the same sigmas, in double precision as far as it goes."""
    from diffusers import UniPCMultistepScheduler

    sampler = Sampler(GMM3.model(schedule), schedule, "dpm++1", steps)
    scheduler = UniPCMultistepScheduler(
        solver_order=order, lower_order_final=False, final_sigmas_type="sigma_min"
    )
    scheduler.set_timesteps(steps)
    ratios = torch.tensor([level.sigma / level.alpha for level in sampler.levels], dtype=torch.float64)
    scheduler.sigmas = ratios
    scheduler.timesteps = torch.arange(steps)
    # Its states are of the form alpha^2 + sigma^2 = 1.
    x = start * float((1 + ratios[0] ** 2).rsqrt()) / sampler.levels[0].alpha
    for i in range(steps):
        alpha, sigma = (1 + ratios[i] ** 2).rsqrt(), ratios[i] * (1 + ratios[i] ** 2).rsqrt()
        data = GMM3.denoised(x, alpha.expand(len(x), 1), sigma.expand(len(x), 1))
        x = scheduler.step((x - alpha * data) / sigma, scheduler.timesteps[i], x, return_dict=False)[0]
    return x * float((1 + ratios[-1] ** 2).sqrt()) * sampler.levels[-1].alpha


def accuracy() -> None:
    """Largest error on the mixture by evaluations, all on the same uniform grid in log-SNR."""
    rows: list[list[object]] = []
    for schedule in (VPLinear(), VE()):
        start = quantiles(schedule)
        exact = GMM3.flow(start, schedule, schedule.t_max, schedule.t_min)
        model = GMM3.model(schedule)
        flow = ProbabilityFlow(model, schedule)

        def multistep(
            solver: str | Solver, schedule: Schedule = schedule, start: Tensor = start, model: object = model
        ) -> Callable[[int], Tensor]:
            return lambda count: sample(model, schedule, solver, count, x=start).x  # type: ignore[arg-type]

        def runge_kutta(n: int, flow: ProbabilityFlow = flow, start: Tensor = start) -> Tensor:
            s = flow.schedule
            # Uniform in t, or for sigma = t in its logarithm.
            if isinstance(s, VE):
                logs = np.log([s.t_max, s.t_min])
                field = lambda u, x: float(np.exp(u)) * flow(float(np.exp(u)), x)  # noqa: E731
                return integrate_field(
                    field, start, logs, step=float(-np.diff(logs)[0]) / (n / 4) * 1.0000001
                )[-1]
            return integrate_field(
                flow, start, [s.t_max, s.t_min], step=(s.t_max - s.t_min) / (n / 4) * 1.0000001
            )[-1]

        methods: dict[str, Callable[[int], Tensor]] = {
            "++3M, ours": multistep("dpm++3m"),
            "++3M with UniC, ours": multistep("unipc-3"),
            "++3M, public coefficient": multistep(Solver(order=3, compat=True)),
            "++2M": multistep("dpm++2m"),
            "++2M heun": multistep(Solver(rule="taylor")),
            "2M, noise": multistep("dpm-2m"),
            "3M, noise, ours": multistep("dpm-3m"),
            "3M, noise, public coefficient": multistep(Solver("noise", 3, compat=True)),
            "DDIM": multistep("dpm++1"),
            "UniPC-2 (diffusers)": lambda n, s=schedule, x=start: unipc(s, x, n, 2),
            "UniPC-3 (diffusers)": lambda n, s=schedule, x=start: unipc(s, x, n, 3),
            "singlestep 3, data": multistep("dpm++fast"),
            "RK4 (generic integrator)": runge_kutta,
        }
        for name, method in methods.items():
            found = [float((method(n) - exact).abs().max()) for n in COUNTS]
            rows.append([type(schedule).__name__, name, *(f"{error:.2e}" for error in found)])
    record(
        "dpm_solver_accuracy",
        "Largest error of 64 trajectories of a mixture of three Gaussians, by evaluations of the model",
        ["schedule", "solver", *map(str, COUNTS)],
        rows,
        "Exact scores, double precision; grids uniform in log-SNR, RK4 uniform in t (VE: in log t), with a quarter as "
        "many steps, rounded up. UniPC keeps sigmas and states in the precision that diffusers gives them.",
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if "--accuracy" not in sys.argv:
        overhead()
    if "--overhead" not in sys.argv:
        accuracy()
