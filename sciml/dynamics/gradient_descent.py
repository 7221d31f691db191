"""Adam on segments, for fields with more weights than Levenberg-Marquardt steps can take."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConvergenceError

from .models import PolynomialODE
from .polynomial_flow import PolynomialFlow, roll_out_polynomial
from .shooting import Segments, Shooting

__all__ = ["DescentState", "descend", "segment_loss"]

BETAS, EPS = (0.9, 0.999), 1e-8


@dataclass
class DescentState:
    """Where a descent is.

    Attributes
    ----------
    theta, first, second : Tensor, shape (P,)
        Weights and their gradients' moments.
    cost : float
        Mean of the squared errors of the last epoch, in units of the components' sizes.
    iteration : int
        Epochs done.
    """

    theta: Tensor
    first: Tensor
    second: Tensor
    cost: float = math.inf
    iteration: int = 0


def segment_loss(problem: Shooting, data: Segments) -> Tensor:
    """Return the mean squared error of segments, in units of the components' sizes, with gradients to the weights.

    Of a polynomial ODE of one layer gradients are those of the compiled adjoint.

    Examples
    --------
    >>> from sciml.dynamics import PolynomialODE, segments
    >>> data = segments(np.ones((1, 4, 1)), np.arange(4.0), 2)
    >>> loss = segment_loss(Shooting(PolynomialODE(("x",)), data, 1, False), data)
    >>> loss.requires_grad, float(loss.detach())
    (True, 0.0)
    """
    model, starts = problem.model, data.states[:, 0]
    if isinstance(problem.flow, PolynomialFlow) and isinstance(model, PolynomialODE):
        found = roll_out_polynomial(problem.flow, model.table(), starts, data.lengths)
    else:
        found = problem.unrolled(starts, data.lengths)
    return problem.compared(found, data).square().mean()


def descend(
    problem: Shooting,
    state: DescentState | None,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: Sequence[int],
) -> Iterator[DescentState]:
    """Fit by Adam (Kingma and Ba, arXiv 1412.6980); yield the state after every epoch, from which a call goes on.

    The learning rate falls as a cosine. The order of segments is a function of the seed and the epoch.

    Raises
    ------
    ConvergenceError
        If the loss or a gradient is not finite.
    """
    if state is None:
        theta = problem.theta()
        state = DescentState(theta, torch.zeros_like(theta), torch.zeros_like(theta))
    count = math.ceil(len(problem.data) / batch_size)
    parameters = list(problem.model.parameters())
    while state.iteration < epochs:
        order = np.random.default_rng([*seed, state.iteration]).permutation(len(problem.data))
        total = 0.0
        theta, first, second = state.theta.clone(), state.first.clone(), state.second.clone()
        for batch in range(count):
            rows = torch.as_tensor(order[batch * batch_size : (batch + 1) * batch_size])
            problem.write(replace(state, theta=theta))
            loss = segment_loss(problem, problem.data[rows])
            gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
            value = float(loss.detach())
            if not (math.isfinite(value) and bool(torch.isfinite(gradient).all())):
                raise ConvergenceError(
                    f"the loss became {value} in epoch {state.iteration}, batch {batch}: take a lower lr than {lr}, "
                    "shorter windows, or more substeps"
                )
            # Long gradients of roll-outs that just fit would undo what many steps did.
            gradient = gradient / max(float(gradient.norm()), 1.0)
            step = state.iteration * count + batch + 1
            rate = lr * 0.5 * (1 + math.cos(math.pi * (step - 1) / (epochs * count)))
            first = BETAS[0] * first + (1 - BETAS[0]) * gradient
            second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
            size = (second / (1 - BETAS[1] ** step)).sqrt() + EPS
            theta = theta - rate * first / (1 - BETAS[0] ** step) / size
            total += value * len(rows)
        state = DescentState(theta, first, second, total / len(problem.data), state.iteration + 1)
        problem.write(state)
        yield state
