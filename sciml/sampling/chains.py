"""Many chains of a kernel at once: states that are kept, averages, and what to do where a chain leaves."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from sciml.errors import ConfigError, ConvergenceError

from .averages import Average, average
from .langevin import Kernel, State
from .noise import SampleNoise
from .targets import checked

__all__ = ["Chains", "run_chains"]

BLOCK = 16
"""Steps whose noise is drawn, and whose states are checked, at once. Results depend on it."""


@dataclass(frozen=True, eq=False)
class Chains:
    """What chains were.

    Attributes
    ----------
    x : Tensor, shape (B, d)
        Their last states; nan of those that diverged.
    values : dict from name to Tensor, shape (kept, B)
        Observables of the states that were kept.
    states : Tensor, shape (kept, B, d), or None
    weights : Tensor, shape (kept, B), or None
        The monitor, where averages need it.
    diverged : Tensor, shape (B,)
        The step at which each chain left, 0 of those that did not. Where all have left nothing more is done.
    acceptance : float
        Share of accepted proposals, 1 of kernels that do not reject.
    """

    x: Tensor
    values: dict[str, Tensor]
    states: Tensor | None
    weights: Tensor | None
    diverged: Tensor
    acceptance: float

    def average(self, name: str) -> Average:
        """Return the average of an observable over the chains that did not diverge.

        Raises
        ------
        ConfigError
            If the name is not known, or all chains diverged.
        """
        if name not in self.values:
            raise ConfigError(f"observable {name!r}: known are {', '.join(self.values) or 'none'}")
        kept = self.diverged == 0
        if not kept.any():
            raise ConfigError("all chains diverged: take a smaller step")
        weights = None if self.weights is None else self.weights[:, kept]
        return average(self.values[name][:, kept], weights)


def run_chains(
    kernel: Kernel,
    x: Tensor,
    steps: int,
    *,
    seed: int = 0,
    burn: int = 0,
    every: int = 1,
    observables: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    keep: bool = False,
    on_divergence: Literal["raise", "keep"] = "raise",
    bound: float = 1e10,
    progress: bool = False,
) -> Chains:
    """Run chains of a kernel.

    Parameters
    ----------
    kernel : Kernel
    x : Tensor, shape (B, d)
        Where they start.
    steps : int
        After those of ``burn``.
    seed : int
        The noise of chain i depends on the seed and i alone.
    burn : int
        Steps of which nothing is kept.
    every : int
        Keep every so-manieth state.
    observables : mapping from name to callable, optional
        From states (B, d) to (B,); by default the moments that are known of the target.
    keep : bool
        Keep the states, too.
    on_divergence : {"raise", "keep"}
        What to do where a chain's state is not finite, or beyond ``bound``: raise an error, or go on with the others.
    bound : float
        Of coordinates.
    progress : bool
        Show a bar on a terminal.

    Returns
    -------
    Chains

    Raises
    ------
    ConfigError
        If an argument cannot be used.
    ConvergenceError
        If a chain diverges: the message says which, at which step, and h. Or if the target is not finite at the start.

    Examples
    --------
    >>> from sciml.sampling.langevin import Overdamped
    >>> from sciml.sampling.targets import SteepDoubleWell
    >>> mala = Overdamped(SteepDoubleWell(), 0.05, adjusted=True)
    >>> found = run_chains(mala, -torch.ones(500, 1).double(), 400, burn=100, seed=1)
    >>> abs(found.average("E x").mean - -0.383) < 4 * found.average("E x").error
    True
    """
    if steps < 1 or burn < 0 or every < 1:
        raise ConfigError(
            f"steps={steps}, burn={burn}, every={every}: give steps >= 1, burn >= 0, every >= 1"
        )
    if on_divergence not in ("raise", "keep"):
        raise ConfigError(f"on_divergence={on_divergence!r}: choose raise or keep")
    checked(kernel.target, x)
    if observables is None:
        observables = {moment.name: moment.of for moment in kernel.target.moments}
    noise = SampleNoise(seed)
    state = kernel.start(x, noise(-1, x))
    values: dict[str, list[Tensor]] = {name: [] for name in observables}
    states: list[Tensor] = []
    weights: list[Tensor] = []
    diverged = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    total = burn + steps

    def record(state: State, number: int) -> None:
        if number <= burn or (number - burn) % every:
            return
        for name, function in observables.items():
            values[name].append(function(state.q))
        if keep:
            states.append(state.q)
        if kernel.weighted:
            assert isinstance(state.place.g, Tensor)
            weights.append(state.place.g[:, 0])

    with tqdm(total=total, desc="chains", disable=None if progress else True) as bar:
        for block, first in enumerate(range(0, total, BLOCK)):
            drawn = noise(block, x.new_empty((len(x), BLOCK * kernel.width)))
            steps_of_block = drawn.view(len(x), BLOCK, kernel.width).transpose(0, 1).contiguous()
            count, before = min(BLOCK, total - first), state
            for i in range(count):
                state = kernel.step(state, steps_of_block[i])
                record(state, first + i + 1)
            gone = _gone(state.q, bound) & (diverged == 0)
            if gone.any():
                _mark(kernel, before, steps_of_block[:count], first, bound, diverged)
                if on_divergence == "raise":
                    chain = int(torch.where(diverged > 0, diverged, total + 1).argmin())
                    raise ConvergenceError(
                        f"chain {chain} of {len(x)} diverged in step {int(diverged[chain])} of {total}, h={kernel.h:g} "
                        f"({int(gone.sum())} up to step {first + count}): take a smaller step, a monitor, or a "
                        'Metropolised kernel; on_divergence="keep" goes on with the others'
                    )
                if (diverged > 0).all():
                    break
            bar.update(count)
    accepted = state.accepted
    kept_states = torch.stack(states) if keep else None
    return Chains(
        torch.where((diverged > 0)[:, None], math.nan, state.q),
        {name: torch.stack(part) for name, part in values.items()},
        kept_states,
        torch.stack(weights) if weights else None,
        diverged,
        1.0 if accepted is None else float(accepted.double().mean()) / total,
    )


def _gone(q: Tensor, bound: float) -> Tensor:
    return ~(q.abs().amax(1) <= bound)


def _mark(kernel: Kernel, state: State, noise: Tensor, first: int, bound: float, diverged: Tensor) -> None:
    """Set the step of divergence, by taking the steps of a block again."""
    for i, z in enumerate(noise):
        state = kernel.step(state, z)
        new = _gone(state.q, bound) & (diverged == 0)
        diverged[new] = first + i + 1
