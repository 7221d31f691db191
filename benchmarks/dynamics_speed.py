"""A training step of a Mu-layer's vector field beside torchdiffeq's neural ODE of equal size (extra `peers`)."""

from collections.abc import Callable

import torch
from _results import alternate, record
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from sciml.dynamics import NeuralODE, PolynomialODE, Segments, Shooting
from sciml.dynamics.gradient_descent import segment_loss

SEGMENTS, FRAMES, SUBSTEPS, STEP = 96, 9, 4, 0.06


def true_segments(d: int) -> Segments:
    """States of size one; what they are does not matter for the time that a step takes."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(SEGMENTS, FRAMES, d, dtype=torch.float64, generator=generator)
    return Segments(states, torch.full((SEGMENTS, FRAMES - 1), STEP, dtype=torch.float64))


def step_of(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Loss, gradient and an Adam step that changes nothing, so that all steps are alike."""
    optimiser = torch.optim.Adam(model.parameters(), 0.0)

    def run() -> None:
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()

    return run


def mlp_width(d: int, parameters: int) -> int:
    """Of one hidden layer with about as many parameters: 2 d w + w + d."""
    return max(round((parameters - d) / (2 * d + 1)), 1)


def main() -> None:
    torch.set_num_threads(1)
    rows: list[list[object]] = []
    for d in (2, 3, 6):
        data = true_segments(d)
        torch.manual_seed(0)
        field = PolynomialODE([f"x{i}" for i in range(d)])
        nn.init.normal_(field.layers[0].C.weight, std=0.05)
        width = mlp_width(d, field.parameter_count)
        peer = NeuralODE(field.variables, width=width, depth=1)
        problem, plain = (Shooting(model, data, SUBSTEPS, False) for model in (field, field))
        plain.flow = None
        own_mlp = Shooting(peer, data, SUBSTEPS, False)
        times = torch.arange(FRAMES, dtype=torch.float64) * STEP
        options = {"step_size": STEP / SUBSTEPS}

        def of_peer(
            solve: Callable[..., Tensor], peer=peer, data=data, times=times, options=options
        ) -> Tensor:  # type: ignore[no-untyped-def]
            found = solve(peer, data.states[:, 0], times, method="rk4", options=options).transpose(0, 1)
            return (found - data.states)[:, 1:].square().mean()

        candidates = {
            "ours": step_of(field, lambda p=problem, s=data: segment_loss(p, s)),
            "ours, plain torch": step_of(field, lambda p=plain, s=data: segment_loss(p, s)),
            "ours, MLP": step_of(peer, lambda p=own_mlp, s=data: segment_loss(p, s)),
            "torchdiffeq": step_of(peer, lambda f=of_peer: f(odeint)),
            "torchdiffeq, adjoint": step_of(peer, lambda f=of_peer: f(odeint_adjoint)),
        }
        seconds = alternate(candidates, 15)
        base = seconds["ours"]
        for name, value in seconds.items():
            size = (peer if "MLP" in name or "diffeq" in name else field).parameter_count
            rows.append([d, name, size, f"{1000 * value:.2f}", f"{value / base:.1f}"])
    record(
        "dynamics_speed",
        f"Training step: {SEGMENTS} segments of {FRAMES} frames, {SUBSTEPS} RK4 steps between two",
        ["components", "method", "parameters", "CPU ms", "times ours"],
        rows,
        "Loss, gradients and an Adam step, float64, one thread. Ours: one Mu-layer without norms (a polynomial of "
        "degree two), its roll-out and the adjoint of it in one compiled loop (extra `fast`); in plain torch; and the "
        "MLP with the suite's integrators. torchdiffeq with the same MLP (tanh, one hidden layer) and the same steps.",
    )


if __name__ == "__main__":
    main()
