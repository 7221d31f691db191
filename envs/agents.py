"""Agents: networks that learn to refine one cell at a time, and decide for all cells of a mesh at once.

Training is that of stable-baselines3, in the environments of `sciml.envs.environments`. An agent that is deployed sees
every cell of a mesh as it saw its own; those that it would refine most gladly are refined, a part of the mesh in each
cycle, so that decisions rest on solutions that are not too old.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np

from sciml.errors import ConfigError, DatasetFormatError
from sciml.provenance import jsonable
from sciml.registry import unknown_name

from .environments import RefinementEnv
from .families import Mixture, family_of
from .policies import Policy, within_budget
from .states import COARSEN, KEEP, REFINE, State

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from torch import Tensor, nn

__all__ = [
    "AGENT_FILE",
    "ENVIRONMENTS",
    "EXPLORATION",
    "Agent",
    "AgentConfig",
    "algorithm",
    "environment",
    "plan",
    "preferences",
]

AGENT_FILE = "agent.safetensors"
ENVIRONMENTS = {
    "advection": "sciml/AMR1DAdvection-v0",
    "poisson": "sciml/AMR1DPoisson-v0",
    "transport": "sciml/AMRTreeAdvection-v0",
    "triangles": "sciml/AMRTriPoisson-v0",
}
"""Environments by the kind of their problems."""
EXPLORATION = 0.1
"""Part of dqn's actions that are random."""
ROLLOUT = {"ppo": 250, "a2c": 20, "dqn": 1}
"""Steps of a roll-out in each environment, at most."""
BATCH = 500
"""Of ppo, at most."""
LARGEST_BUDGET = 5000
"""Of training: oracles refine one cell at a time."""
AT_ONCE = 0.05
"""Part of a mesh that an agent refines in a cycle at most."""


@dataclass(frozen=True)
class AgentConfig:
    """What an agent is, and what it learns from.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    families: tuple[str, ...] = ()
    """Where problems come from; by default the environment's own family."""
    budget: int = 0
    """Cells that meshes stay below in training; 0: the environment's own."""
    observation: str = "rich"
    """What is seen of a cell: rich (two rings, all indicators), standard (the environments' own default: one ring,
    jumps only), or raw (as published)."""
    reward: str = "published"
    """published, error-drop or log-error-drop."""
    start: Literal["random", "coarse"] = "random"
    """Meshes at the start of episodes."""
    algorithm: Literal["ppo", "a2c", "dqn"] = "ppo"
    """Of stable-baselines3."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the network's layers, with ReLU."""
    imitate: int = 60
    """Problems on which an oracle's meshes are imitated before any reward is seen; 0: none."""
    oracle: str = "true-error"
    """The policy that makes them: true-error, look-ahead, or another one's name."""
    steps: int = 40_000
    """Actions of reinforcement learning, all environments together, in whole roll-outs; 0: imitation only."""
    environments: int = 8
    """Side by side, in one process."""
    learning_rate: float = 1e-4
    """Of reinforcement learning."""
    discount: float = 0.99
    """gamma."""
    entropy: float = 0.0
    """Weight of the policy's entropy in the loss (not of dqn)."""
    segment: int = 8_000
    """Actions, at most, between two evaluations on held-out problems, by which the best agent is kept."""
    validate: int = 8
    """Held-out problems of the training families, for that."""
    seed: int = 0
    """Of everything that is drawn."""

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "AgentConfig":
        """Return the configuration of JSON-ready settings.

        Raises
        ------
        ConfigError
            If one is unknown or of another type.
        """
        defaults: dict[str, Any] = {part.name: part.default for part in fields(cls)}
        values: dict[str, Any] = {}
        if not isinstance(settings, dict):
            raise ConfigError(f"settings {settings!r} have no names: give an object of names and values")
        for name, value in settings.items():
            if name not in defaults:
                raise unknown_name("setting of an agent", name, sorted(defaults))
            value = tuple(value) if isinstance(value, list) else value
            kind = type(defaults[name])
            inside = {"hidden": int, "families": str}.get(name)
            fits = isinstance(value, (float, int) if kind is float else kind) and not isinstance(value, bool)
            if not fits or (isinstance(value, tuple) and any(type(part) is not inside for part in value)):
                wanted = (
                    "a list" if kind is tuple else {int: "an integer", float: "a number", str: "a text"}[kind]
                )
                raise ConfigError(f"{name}={value!r}: give {wanted}, such as {defaults[name]!r}")
            values[name] = value
        return cls(**values)

    def __post_init__(self) -> None:
        for name in ("environments", "segment", "validate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: it must be at least 1")
        for name in ("budget", "imitate", "steps", "entropy", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)}: it must not be negative")
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"learning_rate={self.learning_rate}: choose a rate between 0 and 1")
        if not 0 <= self.discount <= 1:
            raise ConfigError(f"discount={self.discount}: choose 0 to 1")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden={self.hidden}: give at least one width, none below 1")
        if self.seed >= 2**32 - self.environments:
            raise ConfigError(f"seed={self.seed}: choose one below 2^32 - {self.environments}")
        if self.budget > LARGEST_BUDGET:
            raise ConfigError(
                f"budget={self.budget}: choose at most {LARGEST_BUDGET} for training, agents go further afterwards"
            )
        if self.algorithm not in ("ppo", "a2c", "dqn"):
            raise unknown_name("algorithm", self.algorithm, ["ppo", "a2c", "dqn"])
        if not self.imitate and not self.steps:
            raise ConfigError("imitate=0 and steps=0: nothing would be learned, give one of them")


def environment(kind: str, config: AgentConfig, **options: Any) -> RefinementEnv:
    """Return the environment of a kind of problems as an agent sees it; options are the environment's.

    Raises
    ------
    ConfigError
        If there is no such kind, or the environment refuses a setting.
    """
    if kind not in ENVIRONMENTS:
        raise unknown_name("kind of problems", kind, list(ENVIRONMENTS))
    if config.families:
        parts = tuple(family_of(name, kind) for name in config.families)
        options.setdefault("family", parts[0] if len(parts) == 1 else Mixture(parts))
    if config.budget:
        options.setdefault("budget", config.budget)
    options = {
        "observation": config.observation,
        "reward": config.reward,
        "start": config.start,
        **options,
    }
    made = gymnasium.make(ENVIRONMENTS[kind], disable_env_checker=True, **options).unwrapped
    assert isinstance(made, RefinementEnv)
    return made


def plan(config: AgentConfig) -> tuple[int, int, int]:
    """Return the number of segments, the steps of a roll-out in each environment, and the actions of a segment.

    Examples
    --------
    >>> plan(AgentConfig(steps=40_000, segment=8_000, environments=8))
    (5, 250, 8000)
    """
    segments = -(-config.steps // config.segment)
    each = -(-config.steps // (max(segments, 1) * config.environments))
    rollouts = max(1, -(-each // ROLLOUT[config.algorithm]))
    # PPO scales advantages by their deviation: one number has none.
    length = max(-(-each // rollouts), 2)
    return segments, length, rollouts * length * config.environments


def algorithm(kind: str, config: AgentConfig, tensorboard: Path | None = None) -> "BaseAlgorithm":
    """Return stable-baselines3's algorithm with environments whose rewards are scaled to unit variance.

    Its network is the agent's, with the initial weights of the seed.
    """
    from stable_baselines3 import A2C, DQN, PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize
    from torch import nn

    made: list[Callable[[], gymnasium.Env]] = [lambda: environment(kind, config)] * config.environments
    venv = VecNormalize(
        VecMonitor(DummyVecEnv(made)), norm_obs=False, norm_reward=True, gamma=config.discount
    )
    shared: dict[str, Any] = {
        "policy": "MlpPolicy",
        "env": venv,
        "learning_rate": config.learning_rate,
        "gamma": config.discount,
        "policy_kwargs": {"net_arch": list(config.hidden), "activation_fn": nn.ReLU},
        "seed": config.seed,
        "device": "cpu",
        "tensorboard_log": None if tensorboard is None else str(tensorboard),
    }
    _, length, _ = plan(config)
    if config.algorithm == "ppo":
        together = length * config.environments
        batch = next(size for size in range(min(BATCH, together), 0, -1) if together % size == 0)
        return PPO(
            **shared,
            n_steps=length,
            batch_size=batch if batch > 1 else together,
            n_epochs=5,
            ent_coef=config.entropy,
            target_kl=0.02,
        )
    if config.algorithm == "a2c":
        return A2C(**shared, n_steps=length, ent_coef=config.entropy)
    # Every fourth action is followed by an update, and what was imitated by no random actions but the explorer's.
    return DQN(
        **shared,
        buffer_size=50_000,
        learning_starts=128 if config.imitate else 1000,
        batch_size=128,
        train_freq=max(1, 4 // config.environments),
        gradient_steps=max(1, config.environments // 4),
        target_update_interval=1000,
        exploration_initial_eps=EXPLORATION,
        exploration_final_eps=EXPLORATION,
    )


def preferences(policy: Any, observations: "Tensor") -> "Tensor":
    """Return what a network of stable-baselines3 makes of each action: logits, or values of dqn; shape (N, actions)."""
    if hasattr(policy, "q_net"):
        return policy.q_net(observations)
    return policy.get_distribution(observations).distribution.logits


@dataclass(frozen=True, eq=False)
class Agent(Policy):
    """A trained network as a policy.

    Parameters
    ----------
    kind : str
        Of the problems that it was trained on.
    config : AgentConfig
    network : Module
        Policy of stable-baselines3.

    Examples
    --------
    >>> agent = Agent.load("runs/agent")  # doctest: +SKIP
    >>> deploy(agent, env.state, budget=160).errors[-1]  # doctest: +SKIP
    """

    kind: str
    config: AgentConfig
    network: "nn.Module" = field(repr=False)

    @cached_property
    def environment(self) -> RefinementEnv:
        """That of its training, which knows what is seen of a cell and what can be done."""
        return environment(self.kind, self.config)

    def seen(self, state: State, budget: int) -> np.ndarray:
        """Return the preferences for each action of every cell, shape (N, actions).

        Raises
        ------
        ConfigError
            If the state is of another kind than those it was trained on.
        """
        import torch

        if state.kind != self.kind:
            raise ConfigError(
                f"an agent trained on {self.kind!r} problems cannot act on {state.kind!r}: train one for them"
            )
        observations = self.environment.observe(state, len(state) / budget)
        with torch.no_grad():
            return preferences(self.network, torch.from_numpy(observations)).numpy()

    def actions(self, state: State, budget: int, rng: np.random.Generator) -> np.ndarray:
        """Refine those cells where that is preferred most, `AT_ONCE` of all; merge siblings that prefer it on average.

        What siblings prefer are logarithms of odds (or values, of dqn), each from another place: their mean weighs all.
        """
        found, possible = self.seen(state, budget), list(self.environment.actions)
        gain = _margin(found, possible.index(REFINE))
        wanted = np.flatnonzero((gain > 0) & state.refinable)
        order = wanted[np.argsort(-gain[wanted], kind="stable")]
        order = order[: max(1, int(AT_ONCE * len(state)))]
        actions = np.full(len(state), KEEP)
        if COARSEN in possible:
            first = np.unique(state.siblings)
            members = first[first >= 0, None] + np.arange(state.family_size)
            merged = _margin(found, possible.index(COARSEN))[members].mean(axis=1) > 0
            actions[members[merged]] = COARSEN
        # Of siblings of whom one is refined none are merged.
        actions[within_budget(state, order, budget, actions)] = REFINE
        return actions

    def digest(self) -> str:
        """Return a hash of settings and weights."""
        found = hashlib.blake2b(json.dumps([self.kind, jsonable(self.config)]).encode(), digest_size=16)
        for tensor in self.network.state_dict().values():
            found.update(tensor.numpy().tobytes())
        return found.hexdigest()

    def save(self, path: str | Path, description: dict[str, Any] | None = None) -> None:
        """Write network and settings to a safetensors file."""
        from sciml.operators.storage import save_tensors

        header = {"kind_of_problems": self.kind, "config": asdict(self.config)}
        save_tensors(path, dict(self.network.state_dict()), "agent", {**header, **(description or {})})

    @classmethod
    def load(cls, path: str | Path) -> "Agent":
        """Read an agent from its file, or from the folder of a finished run.

        Raises
        ------
        DatasetFormatError
            If the file is missing, damaged or no agent.
        """
        from sciml.operators.storage import load_tensors

        file = Path(path) / AGENT_FILE if Path(path).is_dir() else Path(path)
        tensors, header = load_tensors(file, "agent")
        try:
            config = AgentConfig.of(header["config"])
            network = _network(header["kind_of_problems"], config)
            network.load_state_dict(tensors)
        except (ConfigError, KeyError, RuntimeError) as error:
            raise DatasetFormatError(
                f"agent {str(file)!r} cannot be made again ({str(error).splitlines()[0]}): load the --plugin of its "
                "family if it has one, else train again"
            ) from error
        return cls(header["kind_of_problems"], config, network)


def _margin(preferences: np.ndarray, action: int) -> np.ndarray:
    """Return by how much an action is preferred to the best of the others, shape (N,)."""
    return preferences[:, action] - np.delete(preferences, action, axis=1).max(axis=1)


def _network(kind: str, config: AgentConfig) -> "nn.Module":
    """Return an untrained network of the algorithm's, and leave random states as they are."""
    import torch
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.dqn.policies import DQNPolicy
    from torch import nn

    env = environment(kind, config)
    made: Any = DQNPolicy if config.algorithm == "dqn" else ActorCriticPolicy
    with torch.random.fork_rng(devices=[]):
        return made(
            env.observation_space,
            env.action_space,
            lambda _: config.learning_rate,
            net_arch=list(config.hidden),
            activation_fn=nn.ReLU,
        )
