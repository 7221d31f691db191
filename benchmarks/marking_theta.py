"""Agents that set the parameter of an adaptive loop, beside every fixed parameter, on problems they never saw.

PPO of stable-baselines3 as it comes, in `sciml/MarkingTheta-v0`: Gillette, Keith and Petrides, SIAM J. Sci. Comput. 46,
A264 (2024). Errors are those of the last mesh when the triangles of all meshes use up the budget.
"""

import time

import gymnasium
import numpy as np
import torch
from _results import record
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

import sciml.envs  # noqa: F401
from sciml.envs.families import Family, Mixture, family_of
from sciml.envs.marking import SMALLEST_THETA, MarkingEnv

SEEDS, PROBLEMS, STEPS = 3, 24, 100_000
THETAS = (SMALLEST_THETA, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BUDGET = 4000
TRAINED = {
    "corners": ("triangles-corners",),
    "corners, peaks, layers": ("triangles-corners", "triangles-peaks", "triangles-layers"),
}
CASES = [
    ("triangles-corners", BUDGET),
    ("triangles-lshape", BUDGET),
    ("triangles-fronts", BUDGET),
    ("triangles-corners", 4 * BUDGET),
]


def made(family: str | Family, budget: int) -> MarkingEnv:
    env = gymnasium.make("sciml/MarkingTheta-v0", family=family, budget=budget).unwrapped
    assert isinstance(env, MarkingEnv)
    return env


def trained(families: tuple[str, ...], seed: int) -> PPO:
    parts = tuple(family_of(name, "triangles") for name in families)
    venv = DummyVecEnv([lambda: made(Mixture(parts), BUDGET)] * 8)
    model = PPO(
        "MlpPolicy",
        venv,
        n_steps=250,
        batch_size=500,
        gamma=1.0,
        # Environment i has the seed s + i.
        seed=1000 * seed,
        device="cpu",
        policy_kwargs={"net_arch": [64, 64], "activation_fn": nn.Tanh, "log_std_init": -1.0},
    )
    return model.learn(STEPS)


def ended(env: MarkingEnv, number: int, theta: float | PPO) -> tuple[float, int]:
    """Return the error of the last mesh and the number of solves."""
    sample = env.family.sample(np.random.default_rng([1, number, 20230]))
    seen, _ = env.reset(seed=0, options={"sample": sample})
    done = False
    while not done:
        if isinstance(theta, PPO):
            action, _ = theta.predict(seen, deterministic=True)
        else:
            action = np.array([2 * theta - 1], dtype=np.float32)
        seen, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
    return env.state.error, env.steps


def main() -> None:
    torch.set_num_threads(1)
    started = time.process_time()
    agents = {label: [trained(names, seed) for seed in range(SEEDS)] for label, names in TRAINED.items()}
    seconds = (time.process_time() - started) / SEEDS / len(TRAINED)
    rows: list[list[object]] = []
    for family, budget in CASES:
        env = made(family, budget)
        fixed = np.array([[ended(env, k, theta) for k in range(PROBLEMS)] for theta in THETAS])
        errors = np.log(fixed[..., 0])
        best = int(errors.mean(axis=1).argmin())
        for label, models in agents.items():
            own = np.array([[ended(env, k, model) for k in range(PROBLEMS)] for model in models])
            logs = np.log(own[..., 0])
            ratios = np.exp(logs.mean(axis=1) - errors[best].mean())
            mean, half = np.exp(logs.mean() - errors[[best, THETAS.index(0.5)]].mean(axis=1))
            # One parameter for each problem, the best in hindsight, cannot be had.
            each = np.exp(logs.mean() - errors.min(axis=0).mean())
            rows.append(
                [
                    label,
                    family,
                    budget,
                    f"{mean:.3f} ({ratios.min():.3f}-{ratios.max():.3f})",
                    THETAS[best],
                    f"{each:.3f}",
                    f"{half:.3f}",
                    f"{own[..., 1].mean():.1f}",
                    f"{fixed[best, :, 1].mean():.1f}",
                ]
            )
            print(rows[-1], flush=True)
    record(
        "marking_theta",
        "Agents that set theta: their error over that of a fixed theta, when all meshes together use up the budget",
        [
            "trained on",
            "family",
            "triangles of all meshes",
            "over the best fixed theta",
            "which is",
            "over the best for each problem",
            "over theta = 0.5",
            "their solves",
            "solves with the best",
        ],
        rows,
        f"Geometric means of L2 errors over {PROBLEMS} held-out problems and {SEEDS} seeds, in brackets the range of "
        f"the seeds'. Trained with a budget of {BUDGET}: {STEPS} steps of PPO, {seconds:.0f} CPU "
        f"seconds each on one core. Fixed parameters: {', '.join(map(str, THETAS))}.",
    )


if __name__ == "__main__":
    main()
