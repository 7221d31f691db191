"""Many chains of a kernel at once: states that are kept, averages, and what to do where a chain leaves."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciml.errors import ConfigError, ConvergenceError
from sciml.operators.threads import in_parts
from sciml.solvers.compiled import kernels

from .averages import Average, average
from .langevin import Kernel, Overdamped, State
from .noise import SampleNoise
from .targets import checked

__all__ = ["Chains", "run_chains"]

BLOCK = 16
"""Steps whose noise is drawn at once. Results depend on it."""
CHECKED = 64
"""Steps after which states are looked at; which step it was is found by taking them again."""


@dataclass(frozen=True, eq=False)
class Chains:
    """What chains were.

    Attributes
    ----------
    x : Tensor, shape (B, d)
        Their last states; nan of those that diverged.
    values : dict from name to Tensor, shape (kept, B)
        Observables of the states that were kept; of none where all chains diverged before.
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
    compiled: bool = False,
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
        The noise of chain i depends on the seed and i alone. To go on from a run take another one.
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
        Of coordinates. It is looked at every 64 steps, and where a state is kept.
    compiled : bool
        Run in one loop that is compiled for the processor (extra `fast`), many times as fast: `Overdamped` kernels
        without a monitor, of float32 states on a CPU, of mixtures, `ManyWell`, `Funnel` and `SteepDoubleWell`. The
        noise is that of another generator.
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
    if steps < 1 or burn < 0 or not 1 <= every <= steps:
        raise ConfigError(
            f"steps={steps}, burn={burn}, every={every}: give steps >= 1, burn >= 0, and every from 1 to steps"
        )
    if on_divergence not in ("raise", "keep"):
        raise ConfigError(f"on_divergence={on_divergence!r}: choose raise or keep")
    checked(kernel.target, x)
    if observables is None:
        observables = {moment.name: moment.of for moment in kernel.target.moments}
    total = burn + steps
    run: Any = (_Compiled if compiled else _Steps)(kernel, x, seed)
    recorded = bool(observables) or keep
    values: dict[str, list[Tensor]] = {name: [] for name in observables}
    states: list[Tensor] = []
    weights: list[Tensor] = []
    diverged = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    number = 0
    with tqdm(total=total, desc="chains", disable=None if progress else True) as bar:
        while number < total and not (diverged > 0).all():
            # States are wanted at burn + every, burn + 2 every, ..., and looked at in between.
            due = burn + (max(number - burn, 0) // every + 1) * every if recorded else total
            before, first, last = run.saved(), number, min(due, number + CHECKED, total)
            run.advance(first, last)
            number = last
            if number == due and recorded:
                q = run.q
                for name, function in observables.items():
                    values[name].append(_observed(name, function, q))
                if keep:
                    states.append(q)
                if run.weights is not None:
                    weights.append(run.weights)
            gone = _gone(run.q, bound) & (diverged == 0)
            if gone.any():
                after = run.saved()
                _mark(run, before, first, last, bound, diverged, gone)
                run.restore(after)
                if on_divergence == "raise":
                    chain = int(torch.where(diverged > 0, diverged, total + 1).argmin())
                    raise ConvergenceError(
                        f"chain {chain} of {len(x)} diverged in step {int(diverged[chain])} of {total}, h={kernel.h:g} "
                        f"({int(gone.sum())} up to step {last}): take a smaller step, a monitor, or a Metropolised "
                        'kernel; on_divergence="keep" goes on with the others'
                    )
            bar.update(last - first)
    return Chains(
        torch.where((diverged > 0)[:, None], math.nan, run.q),
        {name: torch.stack(part) if part else x.new_empty((0, len(x))) for name, part in values.items()},
        (torch.stack(states) if states else x.new_empty((0, *x.shape))) if keep else None,
        torch.stack(weights) if weights else None,
        diverged,
        run.acceptance(number),
    )


class _Steps:
    """Chains by steps of a kernel."""

    def __init__(self, kernel: Kernel, x: Tensor, seed: int) -> None:
        self.kernel, self.noise = kernel, SampleNoise(seed)
        self.state = kernel.start(x, self.noise(-1, x))
        self._empty = x.new_empty((len(x), BLOCK * kernel.width))
        self._block, self._drawn = -1, x.new_empty(0)

    @property
    def q(self) -> Tensor:
        return self.state.q

    @property
    def weights(self) -> Tensor | None:
        """The monitor, where averages need it."""
        if not self.kernel.weighted:
            return None
        assert isinstance(self.state.place.g, Tensor)
        return self.state.place.g[:, 0]

    def saved(self) -> State:
        return self.state

    def restore(self, state: State) -> None:
        self.state = state

    def advance(self, first: int, last: int) -> None:
        """Take steps number ``first`` to ``last``, less the latter."""
        for step in range(first, last):
            if step // BLOCK != self._block:
                self._block = step // BLOCK
                drawn = self.noise(self._block, self._empty).view(len(self._empty), BLOCK, self.kernel.width)
                self._drawn = drawn.transpose(0, 1).contiguous()
            self.state = self.kernel.step(self.state, self._drawn[step % BLOCK])

    def acceptance(self, total: int) -> float:
        accepted = self.state.accepted
        return 1.0 if accepted is None else float(accepted.double().mean()) / total


class _Compiled:
    """The same in one loop, `sciml.sampling.compiled_chains`."""

    weights = None

    def __init__(self, kernel: Kernel, x: Tensor, seed: int) -> None:
        module: Any = kernels("compiled_chains", __package__)
        form = kernel.target.compiled()
        if not isinstance(kernel, Overdamped) or kernel.monitor is not None or kernel.temperature != 1:
            raise ConfigError("compiled=True: for Overdamped kernels without a monitor, of temperature 1")
        if form is None:
            raise ConfigError(
                f"compiled=True: {type(kernel.target).__name__} has no compiled form; mixtures, ManyWell, Funnel and "
                "SteepDoubleWell have"
            )
        if module is None or x.device.type != "cpu" or x.dtype != torch.float32:
            raise ConfigError("compiled=True: it needs the extra fast, and float32 states on a CPU")
        self.adjusted, self.h, self._loop = kernel.adjusted, np.float32(kernel.h), module.loop
        self._target = module.KINDS[form[0]], form[1]
        self._keys, width, self.n = module.keys_of(SampleNoise(seed).seed), module.WIDTH, len(x)
        self._tiles = -(-self.n // width)
        # Columns that fill the last tile are chains like the last one, which nobody looks at.
        rows = torch.arange(self._tiles * width).clamp(max=self.n - 1)
        self._x = x[rows].T.contiguous().numpy()
        self._accepted = np.zeros(len(rows), np.int64)

    @property
    def q(self) -> Tensor:
        return torch.from_numpy(self._x).T[: self.n].clone(memory_format=torch.contiguous_format)

    def saved(self) -> tuple[np.ndarray, np.ndarray]:
        return self._x.copy(), self._accepted.copy()

    def restore(self, saved: tuple[np.ndarray, np.ndarray]) -> None:
        self._x, self._accepted = saved[0].copy(), saved[1].copy()

    def advance(self, first: int, last: int) -> None:
        """Take steps number ``first`` to ``last``, less the latter."""
        given = *self._target, self._x, self.h, self.adjusted, first, last - first, self._keys, self._accepted
        in_parts(lambda *part: self._loop(*given, *part), self._tiles, self._tiles)

    def acceptance(self, total: int) -> float:
        return float(self._accepted[: self.n].mean()) / total if self.adjusted else 1.0


def _observed(name: str, function: Callable[[Tensor], Tensor], q: Tensor) -> Tensor:
    value = function(q)
    if value.shape != q.shape[:1]:
        raise ConfigError(
            f"observable {name!r}: it has shape {tuple(value.shape)} for states of shape {tuple(q.shape)}; it must be "
            f"({len(q)},)"
        )
    # A view would keep all of the states.
    return value.clone()


def _gone(q: Tensor, bound: float) -> Tensor:
    return ~(q.abs().amax(1) <= bound)


def _mark(
    run: _Steps | _Compiled, before: Any, first: int, last: int, bound: float, diverged: Tensor, gone: Tensor
) -> None:
    """Set the steps at which chains left that are gone, by taking steps again one by one."""
    run.restore(before)
    for step in range(first, last):
        run.advance(step, step + 1)
        diverged[_gone(run.q, bound) & (diverged == 0) & gone] = step + 1
