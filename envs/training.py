"""Training of agents: imitation of an oracle, then reinforcement learning, in segments that can be done again.

A segment begins with fresh seeds, environments and random states, all functions of the run's seed and the segment's
number, and ends with an evaluation on held-out problems and a checkpoint. So a run that was interrupted goes on with
the segment that it was in, and ends with the same agent as one that was not.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.errors import DatasetFormatError
from sciml.files import locked, write_json
from sciml.provenance import first_difference, jsonable
from sciml.runs import open_run

from .agents import AGENT_FILE, EXPLORATION, Agent, AgentConfig, algorithm, environment, plan
from .evaluation import COLLAPSE, error_at, held_out, marked, run_policy
from .imitation import imitate
from .policies import policy_registry

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from torch import Tensor

__all__ = ["train_agent"]

CHECKPOINT = "checkpoint.safetensors"
HISTORY = "history.json"
STALE = (
    CHECKPOINT,
    AGENT_FILE,
    HISTORY,
    "tensorboard/*/events.*",
    "evaluation-*/*.json",
    "evaluation-*/*.html",
    "evaluation-*/*.png",
)
REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""Arrays of a replay buffer."""


def train_agent(
    kind: str,
    config: AgentConfig,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Train an agent and write its run folder.

    Parameters
    ----------
    kind : str
        Of problems: advection, poisson, transport or triangles.
    config : AgentConfig
    output : path
        Folder for ``config.json``, ``history.json``, ``checkpoint.safetensors`` and at last ``agent.safetensors``.
    resume, overwrite : bool
        Go on with a run, or discard it.
    progress : bool
        Whether to show a bar.
    tensorboard : bool
        Whether stable-baselines3 writes its logs to ``tensorboard``.

    Returns
    -------
    dict
        "score", of the best agent on held-out problems (its error over that of Doerfler's marking with theta = 0.1 of
        the environment's first indicator, in time with 1 % of the sum of squares merged, at the same number of
        unknowns; e times that if it stops below half of the budget), "stopped" (on what part of the problems it did),
        "best" (after which segment, 0 is imitation) and "history".

    Raises
    ------
    ConfigError
        If a setting is impossible.
    OutputExistsError
        If the folder is taken.

    Examples
    --------
    >>> train_agent("advection", AgentConfig(steps=0), "runs/agent")["score"]  # doctest: +SKIP
    1.0
    """
    output = Path(output)
    policy_registry[config.oracle]
    environment(kind, config)
    with locked(output):
        open_run(
            output,
            _resolved(kind, config),
            finished=AGENT_FILE,
            stale=STALE,
            packages=("stable-baselines3", "gymnasium"),
            resume=resume,
            overwrite=overwrite,
        )
        return _Run(kind, config, output, tensorboard).finish(progress)


def _resolved(kind: str, config: AgentConfig) -> dict[str, Any]:
    return {"kind": kind, "config": jsonable(dataclasses.asdict(config))}


class _Run:
    def __init__(self, kind: str, config: AgentConfig, output: Path, tensorboard: bool) -> None:
        self.kind, self.config, self.output = kind, config, output
        self.resolved = _resolved(kind, config)
        self.model = algorithm(kind, config, output / "tensorboard" if tensorboard else None)
        self.segments, _, self.size = plan(config)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}

    def finish(self, progress: bool) -> dict[str, Any]:
        from tqdm import tqdm

        self._load()
        done, total = max(len(self.history) - 1, 0) * self.size, self.segments * self.size
        # A line for each segment where there is no terminal.
        shown = progress and sys.stderr.isatty()
        with tqdm(total=total, initial=done, unit=" steps", disable=not shown) as bar:
            for number in range(len(self.history), self.segments + 1):
                record: dict[str, Any] = {"segment": number}
                self._reseed(number)
                if number:
                    record |= self._reinforce(bar.update)
                elif self.config.imitate:
                    record |= imitate(self.kind, self.config, self.model.policy, bar.set_description_str)
                    self._align()
                bar.set_description_str("held-out problems")
                record["score"], record["stopped"] = self._score()
                if not self.history or record["score"] < min(past["score"] for past in self.history):
                    self.best = {
                        name: tensor.clone() for name, tensor in self.model.policy.state_dict().items()
                    }
                self.history.append(record)
                self._save()
                bar.set_description_str(f"score {record['score']:.3f}")
                if progress and not shown:
                    print(
                        f"segment {number} of {self.segments}: score {record['score']:.3f}", file=sys.stderr
                    )
        best = min(self.history, key=lambda record: record["score"])
        if not (self.output / AGENT_FILE).exists():
            self.model.policy.load_state_dict(self.best)
            Agent(self.kind, self.config, self.model.policy).save(
                self.output / AGENT_FILE, {"score": best["score"], "segment": best["segment"]}
            )
        return {
            "score": best["score"],
            "stopped": best["stopped"],
            "best": best["segment"],
            "history": self.history,
        }

    def _reseed(self, number: int) -> None:
        seed = np.random.SeedSequence([self.config.seed, 2, number]).generate_state(1)[0]
        self.model.set_random_seed(int(seed))
        # The next segment begins with a reset, and counts its own episodes.
        self.model._last_obs = None
        self.model.ep_info_buffer = None
        if hasattr(self.model, "exploration_rate"):
            self.model.exploration_rate = EXPLORATION

    def _align(self) -> None:
        """Give the target network of dqn what was learned by imitation."""
        policy: Any = self.model.policy
        if hasattr(policy, "q_net"):
            policy.q_net_target.load_state_dict(policy.q_net.state_dict())

    def _reinforce(self, advance: Callable[[int], Any]) -> dict[str, float]:
        from stable_baselines3.common.callbacks import BaseCallback

        class Advance(BaseCallback):
            def _on_step(self) -> bool:
                advance(self.training_env.num_envs)
                return True

        self.model.learn(self.size, callback=Advance(), reset_num_timesteps=False)
        found = {"steps": float(self.model.num_timesteps)}
        if episodes := list(self.model.ep_info_buffer or []):
            found["return"], found["length"] = (
                float(np.mean([one[key] for one in episodes])) for key in "rl"
            )
        return found

    @property
    def _rewards(self) -> Any:
        """Running mean and variance of discounted returns, by which rewards are scaled."""
        scaled = self.model.get_vec_normalize_env()
        assert scaled is not None
        return scaled.ret_rms

    def _score(self) -> tuple[float, float]:
        """Geometric mean of errors over those of Doerfler's marking, and how often the agent stopped early."""
        agent, ratios, stopped = Agent(self.kind, self.config, self.model.policy), [], []
        for state, curve, budget in self._held_out():
            end = run_policy(agent, state, budget).end
            stopped.append(end.cells < COLLAPSE * budget)
            # One that stops early is no better for that.
            ratios.append(np.log(end.error / error_at(curve, end.unknowns)) + stopped[-1])
        return float(np.exp(np.mean(ratios))), float(np.mean(stopped))

    def _held_out(self) -> list[Any]:
        if not hasattr(self, "_problems"):
            env = environment(self.kind, self.config, start="coarse")
            states = held_out(env, self.config.validate, stream=0)
            self._problems = [(state, marked(env, state), env.budget) for state in states]
        return self._problems

    def _save(self) -> None:
        from sciml.operators.storage import save_tensors

        tensors = {f"policy/{name}": tensor for name, tensor in self.model.policy.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        moments, plain = _optimiser_state(self.model)
        tensors |= {f"optimiser/{name}": tensor for name, tensor in moments.items()}
        tensors |= {f"replay/{name}": tensor for name, tensor in _replay(self.model).items()}
        rewards = self._rewards
        progress = {
            "history": self.history,
            "optimiser": plain,
            "rewards": {name: float(getattr(rewards, name)) for name in ("mean", "var", "count")},
            "counters": {name: getattr(self.model, name) for name in _COUNTERS if hasattr(self.model, name)},
            "replay": [self.model.replay_buffer.pos, self.model.replay_buffer.full]
            if hasattr(self.model, "replay_buffer")
            else [],
        }
        header = {"run": self.resolved, "progress": progress}
        save_tensors(self.output / CHECKPOINT, tensors, "agent checkpoint", header)
        write_json(self.output / HISTORY, {"history": self.history})

    def _load(self) -> None:
        from sciml.operators.storage import load_tensors

        if not (self.output / CHECKPOINT).exists():
            return
        tensors, header = load_tensors(self.output / CHECKPOINT, "agent checkpoint")
        if header["run"] != self.resolved:
            raise DatasetFormatError(
                f"{str(self.output / CHECKPOINT)!r} is of another run "
                f"({first_difference(header['run'], self.resolved)}): put its own there, or start with --overwrite"
            )
        parts: dict[str, dict[str, Tensor]] = {"policy": {}, "best": {}, "optimiser": {}, "replay": {}}
        for name, tensor in tensors.items():
            part, key = name.split("/", 1)
            parts[part][key] = tensor
        progress = header["progress"]
        self.history, self.best = progress["history"], parts["best"]
        self.model.policy.load_state_dict(parts["policy"])
        _restore_optimiser(self.model, parts["optimiser"], progress["optimiser"])
        rewards = self._rewards
        rewards.mean, rewards.var = (np.array(progress["rewards"][name]) for name in ("mean", "var"))
        rewards.count = progress["rewards"]["count"]
        for name, value in progress["counters"].items():
            setattr(self.model, name, value)
        if parts["replay"]:
            buffer: Any = self.model.replay_buffer  # type: ignore[attr-defined]
            for name, tensor in parts["replay"].items():
                getattr(buffer, name)[: len(tensor)] = tensor.numpy()
            buffer.pos, buffer.full = progress["replay"]


_COUNTERS = ("num_timesteps", "_n_updates", "_n_calls", "_episode_num")


def _optimiser_state(model: "BaseAlgorithm") -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Tensors and plain numbers of an optimiser's state, by parameter and name."""
    import torch

    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for parameter, state in model.policy.optimizer.state_dict()["state"].items():
        for name, value in state.items():
            (tensors if isinstance(value, torch.Tensor) else plain)[f"{parameter}/{name}"] = value
    return tensors, plain


def _restore_optimiser(model: "BaseAlgorithm", tensors: dict[str, "Tensor"], plain: dict[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **plain}.items():
        parameter, name = key.split("/")
        state.setdefault(int(parameter), {})[name] = value
    current = model.policy.optimizer.state_dict()
    model.policy.optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})


def _replay(model: "BaseAlgorithm") -> dict[str, "Tensor"]:
    """What is in a replay buffer; nothing of algorithms without one."""
    import torch

    buffer = getattr(model, "replay_buffer", None)
    if buffer is None:
        return {}
    count = buffer.buffer_size if buffer.full else buffer.pos
    return {name: torch.from_numpy(getattr(buffer, name)[:count]) for name in REPLAY}
