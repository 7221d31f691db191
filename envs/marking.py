"""`sciml/MarkingTheta-v0`: the agent sets the parameter of an adaptive loop instead of marking cells.

Gillette, Keith and Petrides, SIAM J. Sci. Comput. 46, A264 (2024): solve, estimate, mark in bulk with theta, refine.
Small theta makes good meshes in many solves, large theta poor ones in few; the budget counts the triangles of
all meshes.
"""

import math
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from sciml.errors import ConfigError
from sciml.solvers.fem import estimate, mark_doerfler
from sciml.solvers.fem.estimators import ESTIMATORS

from .environments import begun
from .families import Family, family_of
from .triangles import TriangleState

__all__ = ["MarkingEnv"]

SMALLEST_THETA = 0.02


class MarkingEnv(gymnasium.Env):
    """An adaptive loop whose bulk parameter the agent sets in every step.

    ================  =========================================================================================
    Action            `Box(-1, 1, (1,))`: theta = (1 + a) / 2, at least 0.02
    Observation       `Box(5)`: triangles used up of the budget, the estimate against that of the start in decades,
                      and standard deviation, skewness and kurtosis of log10 eta over the triangles, scaled
    Reward            log(estimate before / after): their sum is the logarithm of what was gained in all
    Start             a problem of the family on its coarsest mesh
    Terminated        the next mesh would exceed the budget; that step gains nothing
    Truncated         after ``max_steps``
    ================  =========================================================================================

    Parameters
    ----------
    family : str or Family
        Of kind "triangles".
    budget : int
        Triangles of all meshes together, the first included.
    estimator : str
        "residual", "kelly" or "zz".
    max_steps : int
    level_cap : int
        Triangles that were bisected so often are not refined.
    render_mode : str, optional
        "rgb_array".

    Raises
    ------
    ConfigError
        If the budget is no more than the coarsest mesh or a name is unknown.

    Examples
    --------
    >>> import gymnasium, sciml.envs
    >>> env = gymnasium.make("sciml/MarkingTheta-v0")
    >>> _, first = env.reset(seed=0)
    >>> *_, info = env.step(np.array([0.0], dtype=np.float32))
    >>> info["theta"], info["triangles"] > first["triangles"]
    (0.5, True)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 - as Gymnasium declares it
    kind: ClassVar[str] = "triangles"
    _state: TriangleState | None = None

    def __init__(
        self,
        family: str | Family = "triangles-corners",
        budget: int = 4000,
        *,
        estimator: str = "residual",
        max_steps: int = 100,
        level_cap: int = 40,
        render_mode: str | None = None,
    ) -> None:
        self.family, self.budget, self.estimator = family_of(family, self.kind), budget, estimator
        self.max_steps, self.level_cap, self.render_mode = max_steps, level_cap, render_mode
        if estimator not in ESTIMATORS:
            raise ConfigError(f"estimator={estimator!r}: choose one of {', '.join(ESTIMATORS)}")
        for name, value in (("budget", budget), ("max_steps", max_steps), ("level_cap", level_cap)):
            if not isinstance(value, int | np.integer) or value < 1:
                raise ConfigError(f"{name}={value!r}: give an integer, at least 1")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(f"render_mode={render_mode!r}: choose 'rgb_array' or none")
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = spaces.Box(-2.0, 2.0, (5,), np.float32)
        self._refuse_small_budget(self.family.sample(np.random.default_rng(0)).mesh)

    def _refuse_small_budget(self, mesh: Any) -> None:
        if self.budget <= len(mesh):
            raise ConfigError(f"budget={self.budget}: the coarsest mesh has {len(mesh)} triangles, give more")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; ``options={"sample": ...}`` sets the problem."""
        super().reset(seed=seed)
        if unknown := sorted(set(options or {}) - {"sample"}):
            raise ConfigError(f"options={unknown}: there is 'sample'")
        sample = (options or {}).get("sample") or self.family.sample(self.np_random)
        self._refuse_small_budget(sample.mesh)
        self._enter(TriangleState(sample.problem, sample.mesh, self.level_cap))
        self.first, self.spent, self.steps = self.estimate, len(self.state), 0
        return self._observation(), self._info(math.nan)

    @property
    def state(self) -> TriangleState:
        """Mesh and solution; before the first episode `ResetNeeded` is raised."""
        return begun(self._state)

    def _enter(self, state: TriangleState) -> None:
        self._state = state
        self.eta = estimate(state.method, state.u, self.estimator)
        self.estimate = float(np.sqrt((self.eta**2).sum()))

    def _observation(self) -> np.ndarray:
        values = np.log10(np.maximum(self.eta, 1e-12 * max(self.estimate, 1e-300)))
        centred = values - values.mean()
        spread = float(centred.std())
        skewness, kurtosis = ((centred**k).mean() / max(spread, 1e-12) ** k for k in (3, 4))
        decades = math.log10(max(self.estimate, 1e-300) / max(self.first, 1e-300)) if self.steps else 0.0
        seen = [self.spent / self.budget, decades / 2, spread, skewness / 4, kurtosis / 10]
        return np.clip(np.array(seen, dtype=np.float32), -2.0, 2.0)

    def _info(self, theta: float) -> dict[str, Any]:
        return {
            "triangles": len(self.state),
            "spent": self.spent,
            "estimate": self.estimate,
            "theta": theta,
        }

    def digest(self) -> str:
        """Return a hash of the mesh."""
        return self.state.digest()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Mark with theta, refine, solve.

        Raises
        ------
        ConfigError
            If the action is outside the action space.
        """
        given = action
        try:
            action = np.asarray(action, dtype=np.float32)
        except (TypeError, ValueError):
            action = np.empty(0, dtype=np.float32)
        if not self.action_space.contains(action):
            raise ConfigError(f"action={given!r}: give an array of one number from -1 to 1, shape (1,)")
        theta = max(0.5 * (1.0 + float(action[0])), SMALLEST_THETA)
        state = self.state
        marked = mark_doerfler(self.eta, theta)
        finer = state.refined(marked[state.refinable[marked]])
        self.steps += 1
        over = self.spent + len(finer) > self.budget or len(finer) == len(state)
        reward = 0.0
        if not over:
            before = self.estimate
            self._enter(finer)
            self.spent += len(finer)
            reward = math.log(before / self.estimate) if self.estimate and before else 0.0
        return self._observation(), reward, over, not over and self.steps >= self.max_steps, self._info(theta)

    def render(self) -> np.ndarray | None:
        """Return the solution and the mesh as an RGB array."""
        if self.render_mode is None:
            return None
        from .render import frame

        return frame(self.state, self.budget)
