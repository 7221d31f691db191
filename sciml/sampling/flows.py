"""A diffusion model as a dynamical system: its probability-flow ODE and its reverse SDE."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError

from .evaluation import Evaluation, Model
from .parametrisations import Parametrisation
from .schedules import Schedule

__all__ = ["ProbabilityFlow", "ReverseDiffusion"]


@dataclass(frozen=True, eq=False)
class ProbabilityFlow:
    """The field f(t, x) = f(t) x + g(t)^2 / (2 sigma) eps of a model's ODE (Song et al., arXiv 2011.13456).

    It is a `sciml.dynamics.VectorField`: any integrator runs it, and then pays for not knowing that it is linear but
    for eps.

    Parameters
    ----------
    model : callable
        ``model(x, t)``, as for `sciml.sampling.sample`.
    schedule : Schedule
    prediction : str

    Examples
    --------
    >>> import torch
    >>> from sciml.dynamics import integrate_field
    >>> from sciml.sampling import VE, Gaussian
    >>> flow = ProbabilityFlow(Gaussian([0.0], [[1.0]]).model(VE()), VE())
    >>> x = integrate_field(flow, torch.ones(1, 1).double(), [3.0, 0.0625], step=0.0625)[-1]
    >>> round(float(x), 4), round(((1 + 0.0625**2) / 10) ** 0.5, 4)
    (0.3168, 0.3168)
    """

    model: Model
    schedule: Schedule
    prediction: Parametrisation = "noise"

    def __call__(self, t: float, x: Tensor) -> Tensor:
        """Return dx/dt at states x, (B, ...)."""
        level = self.schedule.level(t)
        evaluate = Evaluation(self.model, self.schedule, "noise", self.prediction)
        with torch.no_grad():
            noise = evaluate(x, level, evaluate.labels([level], x)[0])
        half = float(self.schedule.diffusion_squared(t)) / (2 * level.sigma)
        return float(self.schedule.drift(t)) * x + half * noise


@dataclass(frozen=True, eq=False)
class ReverseDiffusion:
    """Drift and diffusion of the SDE that goes from noise to data with the marginals of the model.

    dx = (f x + (1 + eta) g^2 / (2 sigma) eps) dt + sqrt(eta) g dw, with dt < 0, a
    `sciml.dynamics.DriftDiffusion`.

    Parameters
    ----------
    flow : ProbabilityFlow
    eta : float
        0 is the ODE, 1 the reverse SDE.
    """

    flow: ProbabilityFlow
    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"ReverseDiffusion eta={self.eta}: give a number from 0 to 1")

    def drift(self, t: float, x: Tensor) -> Tensor:
        """Return the drift at states x."""
        linear = float(self.flow.schedule.drift(t)) * x
        return linear + (1 + self.eta) * (self.flow(t, x) - linear)

    def diffusion(self, t: float, x: Tensor) -> float:
        """Return the factor of the noise, the same for all states."""
        return float((self.eta * self.flow.schedule.diffusion_squared(t)) ** 0.5)
