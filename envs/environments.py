"""Gymnasium environments in which an agent refines a mesh, one cell at a time.

The agent sits on a cell, sees what `sciml.envs.observations` tells of it, and refines, leaves or coarsens it; the
problem is solved on the new mesh, the reward measures what that changed everywhere, and the agent is moved to another
cell, drawn uniformly: Foucart, Charous and Lermusiaux, J. Comput. Phys. 491, 112381 (2023), sections 2 and 3.
"""

from abc import abstractmethod
from typing import Any, ClassVar, Literal, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from sciml.errors import ConfigError

from .families import Family, Mixture, Sample, family_of
from .observations import Observation, observation_registry
from .rewards import OVERRUN, Reward, reward_registry
from .states import COARSEN, KEEP, REFINE, State
from .trees import AdvectionState, DiffusionState, TransportState
from .triangles import TriangleState

__all__ = ["AdvectionEnv", "PoissonEnv", "RefinementEnv", "TransportEnv", "TriangleEnv", "begun"]

Start = Literal["random", "coarse"]
S = TypeVar("S", bound=State)
FULLEST_START = 0.9
"""Part of the budget that random meshes use at most."""


def begun(state: S | None) -> S:
    """Return the state of an episode.

    Raises
    ------
    ResetNeeded
        If none was begun.
    """
    if state is None:
        raise ResetNeeded("there is no mesh yet: call reset first")
    return state


def _check_start(start: object) -> None:
    if start not in ("random", "coarse"):
        raise ConfigError(f"start={start!r}: choose 'random' or 'coarse'")


class RefinementEnv(gymnasium.Env):
    """What all environments share.

    ================  =========================================================================================
    Action            `Discrete(3)`: 0 coarsen, 1 nothing, 2 refine. What cannot be done is nothing.
    Observation       `Box`, float32, see `sciml.envs.observations`: a cell, its neighbours, the mean, the budget
    Reward            see `sciml.envs.rewards`; -1000 where the budget is used up, between -100 and 40 elsewhere
    Start             a problem of the family on a mesh with random refinements (or the coarsest), a random cell
    Terminated        the budget is used up
    Truncated         after ``max_steps`` actions, or ``idle_limit`` in a row that changed nothing
    ================  =========================================================================================

    ``info`` holds "cells", "used" (p), "action_applied" (-1, 0, 1: what was done), "level".

    Parameters
    ----------
    family : str or Family
        Where problems come from.
    budget : int
        Cells that may not be reached.
    reward : str or Reward
        "published", "error-drop", "log-error-drop", or an object.
    observation : str or Observation
        "standard", "rich", "raw" (the published one), or an object.
    start : str
        "random" or "coarse".
    max_steps, idle_limit : int
    order : int, optional
        Degree of the polynomials.
    level_cap : int, optional
        Cells of this level are not refined.
    render_mode : str, optional
        "rgb_array".

    Raises
    ------
    ConfigError
        If the budget is no more than the coarsest mesh, a name is unknown, or a family of another kind.

    Examples
    --------
    >>> import gymnasium, sciml.envs
    >>> env = gymnasium.make("sciml/AMR1DAdvection-v0", budget=30)
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(2)
    >>> info["action_applied"], reward != 0
    (1, True)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 - as Gymnasium declares it
    kind: ClassVar[str]
    actions: ClassVar[tuple[int, ...]] = (COARSEN, KEEP, REFINE)
    indicators: ClassVar[tuple[str, ...]] = ("jump", "entering", "modes")
    _state: State | None = None
    _seen: tuple[State, np.ndarray] | None = None

    def __init__(
        self,
        family: str | Family,
        budget: int,
        *,
        reward: str | Reward = "published",
        observation: str | Observation = "standard",
        start: Start = "random",
        max_steps: int = 200,
        idle_limit: int = 50,
        order: int,
        level_cap: int,
        render_mode: str | None = None,
    ) -> None:
        self.family = family_of(family, self.kind)
        self.budget, self.start, self.max_steps, self.idle_limit = budget, start, max_steps, idle_limit
        self.order, self.level_cap = order, level_cap
        self.reward: Reward = reward_registry[reward]() if isinstance(reward, str) else reward
        observe = observation_registry[observation]() if isinstance(observation, str) else observation
        self.observe: Observation = observe.seeing(self.indicators)
        for name, value, least in (
            ("budget", budget, 1),
            ("max_steps", max_steps, 1),
            ("idle_limit", idle_limit, 1),
            ("level_cap", level_cap, 1),
            ("order", order, 0),
        ):
            if not isinstance(value, int | np.integer) or value < least:
                raise ConfigError(f"{name}={value!r}: give an integer, at least {least}")
        _check_start(start)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(f"render_mode={render_mode!r}: choose 'rgb_array' or none")
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(len(self.actions))
        self.observation_space = self.observe.space
        for part in self.family.parts if isinstance(self.family, Mixture) else (self.family,):
            self._refuse_small_budget(part.sample(np.random.default_rng(0)))

    def _refuse_small_budget(self, sample: Sample) -> None:
        if self.budget <= len(sample.mesh) + 1:
            raise ConfigError(
                f"budget={self.budget}: the coarsest mesh has {len(sample.mesh)} cells already, give more"
            )

    @abstractmethod
    def first_state(self, sample: Sample) -> State:
        """Return the state of a problem on its coarsest mesh."""

    @property
    def state(self) -> State:
        """Mesh and solution; before the first episode `ResetNeeded` is raised."""
        return begun(self._state)

    @state.setter
    def state(self, state: State) -> None:
        self._state = state

    @property
    def used(self) -> float:
        """p, the part of the budget that is in use."""
        return len(self.state) / self.budget

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; ``options={"sample": ..., "start": "coarse"}`` set what is drawn otherwise."""
        super().reset(seed=seed)
        options = options or {}
        if unknown := sorted(set(options) - {"sample", "start"}):
            raise ConfigError(f"options={unknown}: there are 'sample' and 'start'")
        _check_start(options.get("start", self.start))
        sample = options.get("sample") or self.family.sample(self.np_random)
        if not isinstance(sample, Sample):
            raise ConfigError(
                f"options['sample']={sample!r}: give a Sample, of a problem and its coarsest mesh"
            )
        self._refuse_small_budget(sample)
        self.state = self.first_state(sample)
        if options.get("start", self.start) == "random":
            self._scatter()
        self.steps = self.idle = 0
        self._move()
        return self._observation(), self._info(KEEP)

    def _scatter(self) -> None:
        """Refine cells at random, up to a random part of the budget."""
        most = FULLEST_START * self.budget
        target = self.np_random.uniform(len(self.state), max(most, len(self.state)))
        while len(self.state) < target:
            # Several at once, for each costs a mesh.
            count = 1 + len(self.state) // 16
            cells = np.unique(self.np_random.integers(len(self.state), size=count))
            cells = cells[self.state.refinable[cells]]
            finer = self.state.refined(cells) if len(cells) else self.state
            if len(finer) >= most or finer is self.state:
                break
            self.state = finer

    def _move(self) -> None:
        self.cell = int(self.np_random.integers(len(self.state)))

    def _observation(self) -> np.ndarray:
        return self.all_observations()[self.cell]

    def _info(self, applied: int) -> dict[str, Any]:
        state = self.state
        cells = len(state)
        return {
            "cells": cells,
            "used": cells / self.budget,
            "action_applied": applied,
            "level": int(state.levels[self.cell]),
        }

    def all_observations(self) -> np.ndarray:
        """Return the observations of all cells, shape (N, d): for policies that act on all of them at once."""
        state = self.state
        if self._seen is None or self._seen[0] is not state:
            self._seen = state, self.observe(state, self.used)
        return self._seen[1]

    def action_masks(self) -> np.ndarray:
        """Return which actions would change something here, doing nothing included; for maskable algorithms."""
        possible = {
            COARSEN: bool(self.state.siblings[self.cell] >= 0),
            KEEP: True,
            REFINE: bool(self.state.refinable[self.cell]),
        }
        return np.array([possible[action] for action in self.actions])

    def apply(self, actions: np.ndarray) -> State:
        """Act on all cells at once, actions of shape (N,) in the numbers of the action space; return the new state.

        Raises
        ------
        ConfigError
            If there is not one action for each cell, or one is outside the action space.
        """
        actions = np.asarray(actions)
        if actions.shape != (len(self.state),) or actions.dtype.kind not in "iu":
            raise ConfigError(
                f"actions of shape {actions.shape}: give one integer for each of {len(self.state)} cells"
            )
        if ((actions < 0) | (actions >= len(self.actions))).any():
            raise ConfigError(
                f"actions hold {actions.min()} to {actions.max()}: give 0 to {len(self.actions) - 1}"
            )
        self.state = self.state.acted(np.array(self.actions)[actions])
        self._move()
        return self.state

    def digest(self) -> str:
        """Return a hash of the mesh."""
        return self.state.digest()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act on the cell; move to another one.

        Raises
        ------
        ConfigError
            If the action is outside the action space.
        """
        if not self.action_space.contains(action):
            raise ConfigError(f"action={action!r}: choose one of 0 to {len(self.actions) - 1}")
        before, wanted = self.state, self.actions[int(action)]
        self.state = after = before.changed(self.cell, wanted)
        applied = KEEP if after is before else wanted
        self.steps += 1
        self.idle = 0 if applied else self.idle + 1
        overrun, reward = len(after) >= self.budget, 0.0
        if overrun:
            reward = OVERRUN
        elif applied:
            reward = float(
                self.reward(before, after, applied, len(before) / self.budget, len(after) / self.budget)
            )
        self._pass_time()
        self._move()
        truncated = not overrun and (self.steps >= self.max_steps or self.idle >= self.idle_limit)
        return self._observation(), reward, overrun, truncated, self._info(applied)

    def _pass_time(self) -> None:
        """Nothing changes by itself in a steady problem."""

    def render(self) -> np.ndarray | None:
        """Return the solution and the mesh as an RGB array, shape (height, width, 3), uint8."""
        if self.render_mode is None:
            return None
        from .render import frame

        return frame(self.state, self.budget)


class AdvectionEnv(RefinementEnv):
    """`sciml/AMR1DAdvection-v0`: steady advection on an interval; Foucart et al., section 4.1."""

    kind = "advection"

    def __init__(
        self,
        family: str | Family = "advection-tanh",
        budget: int = 40,
        *,
        order: int = 3,
        level_cap: int = 12,
        **options: Any,
    ) -> None:
        super().__init__(family, budget, order=order, level_cap=level_cap, **options)

    def first_state(self, sample: Sample) -> AdvectionState:
        """Return the state of a problem on its coarsest mesh."""
        return AdvectionState(sample.problem, sample.mesh, self.order, self.level_cap)


class PoissonEnv(RefinementEnv):
    """`sciml/AMR1DPoisson-v0`: diffusion on an interval; Foucart et al., section 4.4."""

    kind = "poisson"
    indicators = ("jump", "entering", "flux", "modes")

    def __init__(
        self,
        family: str | Family = "poisson-tanh",
        budget: int = 40,
        *,
        order: int = 3,
        level_cap: int = 12,
        **options: Any,
    ) -> None:
        super().__init__(family, budget, order=order, level_cap=level_cap, **options)

    def first_state(self, sample: Sample) -> DiffusionState:
        """Return the state of a problem on its coarsest mesh."""
        return DiffusionState(sample.problem, sample.mesh, self.order, self.level_cap)


class TriangleEnv(RefinementEnv):
    """`sciml/AMRTriPoisson-v0`: elliptic problems on triangulations.

    The action space is `Discrete(2)`: 0 nothing, 1 refine. Budgets count triangles, those included that conformity
    asks for.
    """

    kind = "triangles"
    actions = (KEEP, REFINE)
    indicators = ("residual", "kelly", "zz")

    def __init__(
        self,
        family: str | Family = "triangles-fronts",
        budget: int = 400,
        *,
        level_cap: int = 20,
        **options: Any,
    ) -> None:
        super().__init__(family, budget, order=1, level_cap=level_cap, **options)

    def first_state(self, sample: Sample) -> TriangleState:
        """Return the state of a problem on its coarsest mesh."""
        return TriangleState(sample.problem, sample.mesh, self.level_cap)


class TransportEnv(RefinementEnv):
    """`sciml/AMRTreeAdvection-v0`: transport in time on a quadtree; Foucart et al., section 4.7.

    Within a step in time the agent acts a random number of times, 1 to ``most_actions``, so that it learns no fixed
    cadence; then time passes on the mesh that it left.

    Parameters
    ----------
    step : float
        In time.
    most_actions : int
    """

    kind = "transport"

    def __init__(
        self,
        family: str | Family = "transport-bumps",
        budget: int = 200,
        *,
        step: float = 0.05,
        most_actions: int = 20,
        order: int = 2,
        level_cap: int = 4,
        **options: Any,
    ) -> None:
        if not step > 0:
            raise ConfigError(f"step={step}: it must be positive")
        if most_actions < 1:
            raise ConfigError(f"most_actions={most_actions}: it must be at least 1")
        self.step_length, self.most_actions = step, most_actions
        super().__init__(family, budget, order=order, level_cap=level_cap, **options)

    def first_state(self, sample: Sample) -> TransportState:
        """Return the state of a problem after its first step, on its coarsest mesh."""
        return TransportState(
            sample.problem,
            sample.mesh,
            step=self.step_length,
            order=self.order,
            level_cap=self.level_cap,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode, at time 0."""
        super().reset(seed=seed, options=options)
        self._left = int(self.np_random.integers(1, self.most_actions + 1))
        return self._observation(), self._info(KEEP)

    def _pass_time(self) -> None:
        self._left -= 1
        if self._left == 0:
            assert isinstance(self.state, TransportState)
            self.state = self.state.next()
            self._left = int(self.np_random.integers(1, self.most_actions + 1))
