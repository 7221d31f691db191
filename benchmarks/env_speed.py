"""Environment steps of a random policy in a CPU second, and beside the same environment on scikit-fem's own calls."""

import logging
import time
from statistics import median

import gymnasium
from _results import record
from _skfem_state import SkfemEnv

import sciml.envs  # noqa: F401
from sciml.envs.environments import RefinementEnv

CASES = [
    ("sciml/AMR1DAdvection-v0", 6000),
    ("sciml/AMR1DPoisson-v0", None),
    ("sciml/AMRTriPoisson-v0", 1500),
    ("sciml/AMRTreeAdvection-v0", 800),
    ("sciml/MarkingTheta-v0", None),
]
SECONDS, ROUNDS = 4.0, 9


def rate(env: RefinementEnv, seed: int) -> tuple[float, float]:
    """Return steps in a CPU second, resets included, and the mean number of cells."""
    env.reset(seed=seed)
    env.action_space.seed(seed)
    steps, cells, started = 0, 0, time.process_time()
    while time.process_time() - started < SECONDS:
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        steps += 1
        cells += info.get("cells", info.get("triangles", 0))
        if terminated or truncated:
            env.reset()
    return steps / (time.process_time() - started), cells / steps


def main() -> None:
    logging.getLogger("skfem").setLevel(logging.ERROR)
    rows: list[list[object]] = []
    for name, goal in CASES:
        env = gymnasium.make(name).unwrapped
        peer = SkfemEnv() if name == "sciml/AMRTriPoisson-v0" else None
        found, theirs = [], []
        for seed in range(ROUNDS):
            found.append(rate(env, seed))
            if peer is not None:
                theirs.append(rate(peer, seed))
        speed, cells = (median(part) for part in zip(*found, strict=True))
        other = f"{median(r for r, _ in theirs):.0f}" if theirs else ""
        ratio = f"{speed / median(r for r, _ in theirs):.1f}" if theirs else ""
        rows.append([name, env.budget, f"{cells:.0f}", f"{speed:.0f}", goal or "", other, ratio])
        print(rows[-1], flush=True)
    record(
        "env_speed",
        "Environment steps in a CPU second, random actions, one thread",
        ["environment", "budget", "mean cells", "steps / s", "goal", "on scikit-fem's calls", "ratio"],
        rows,
        f"Medians of {ROUNDS} runs of {SECONDS:.0f} s, resets included. MarkingTheta's budget counts the triangles of "
        "all meshes. scikit-fem's environment: its own refinement (red, green, blue), assembly, solve and facet "
        "jumps, in the same class.",
    )


if __name__ == "__main__":
    main()
