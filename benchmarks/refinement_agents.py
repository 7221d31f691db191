"""Agents of three seeds beside every classical strategy, swept, on problems they never saw: at equal unknowns.

`python benchmarks/refinement_agents.py advection poisson triangles transport variants` (all by default).
"""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch
from _results import FOLDER, record

from sciml.envs.agents import AGENT_FILE, Agent, AgentConfig, environment
from sciml.envs.evaluation import STEPS, compare_policies, error_at, held_out
from sciml.envs.policies import Doerfler, deploy
from sciml.envs.states import State
from sciml.envs.training import train_agent
from sciml.files import read_json, write_json
from sciml.provenance import git_commit, jsonable

SEEDS, PROBLEMS = 3, 24
RUNS = FOLDER.parent / "build" / "benchmarks" / "agents"
# Family and budget of each comparison; the first is that of training.
CASES = {
    "advection": [
        ("advection-tanh", 40),
        ("advection-gaussians", 40),
        ("advection-steps", 40),
        ("advection-tanh", 160),
        ("advection-gaussians", 160),
    ],
    "poisson": [
        ("poisson-tanh", 40),
        ("poisson-gaussians", 40),
        ("poisson-layers", 40),
        ("poisson-tanh", 160),
    ],
    "triangles": [
        ("triangles-fronts", 400),
        ("triangles-lshape", 400),
        ("triangles-corners", 400),
        ("triangles-layers", 400),
        ("triangles-peaks", 400),
        ("triangles-fronts", 100),
    ],
    "transport": [
        ("transport-bumps", 200),
        ("transport-discs", 200),
    ],
}
STEADY = "ten values. Looking ahead only for budgets up to 100 cells."
IN_TIME = (
    f"three values with four or five for what is merged. Errors are those after {STEPS} steps, at equal unknowns in "
    "the mean over time. The true-error oracle makes a mesh for each step anew."
)
REFERENCE = Doerfler(0.05, "entering")
AGAINST = [
    "uniform",
    "random",
    "rule",
    "true-error",
    "look-ahead",
    "best doerfler",
    "best threshold",
    "best fraction",
    "best of doerfler and threshold",
]


def trained(kind: str, config: AgentConfig, name: str) -> tuple[Agent, float]:
    """Return an agent and the CPU seconds of its training, which are kept with it while settings and code are."""
    folder = RUNS / f"{kind}-{name.replace(' ', '-').replace(',', '')}"
    timing, settings = folder.with_suffix(".json"), jsonable(asdict(config))
    known = read_json(timing) if timing.exists() and (folder / AGENT_FILE).exists() else {}
    if (known.get("config"), known.get("commit")) != (settings, git_commit()):
        started = time.process_time()
        train_agent(kind, config, folder, overwrite=True, progress=True)
        known = {"config": settings, "commit": git_commit(), "seconds": time.process_time() - started}
        write_json(timing, known)
    return Agent.load(folder), known["seconds"]


def scattered(seed: int) -> Callable[[State], State]:
    """Return what refines a coarsest state at random, up to a quarter of 40 cells."""

    def start(state: State) -> State:
        rng = np.random.default_rng(seed)
        while len(state) < 16:
            state = state.refined(np.unique(rng.integers(len(state), size=2)))
        return state

    return start


def ratio(row: dict) -> str:
    return f"{row['ratio']:.3g} ({row['least']:.3g}-{row['largest']:.3g})"


def compared(kind: str) -> None:
    """Train and compare, and store the table."""
    agents, seconds = zip(
        *(trained(kind, AgentConfig(seed=seed), f"{seed}") for seed in range(SEEDS)), strict=True
    )
    rows = []
    for family, budget in CASES[kind]:
        env = environment(kind, AgentConfig(), family=family, budget=budget, start="coarse")
        found = compare_policies(env, agents, problems=PROBLEMS)
        table = {row["against"]: row for row in found.table()}
        cells = np.mean([end.cells for ends in found.ends for end in ends])
        cells_of = [ratio(table[name]) if name in table else "" for name in AGAINST]
        best = table["best of doerfler and threshold"]["strategy"]
        rows.append([family, budget, f"{cells:.0f}", *cells_of, best, found.failures()["stopped early"]])
        print(rows[-1], flush=True)
    record(
        f"refinement_{kind}",
        f"Refinement agents on {kind} problems: their error over that of others at equal unknowns",
        ["family", "budget", "agents' cells", *AGAINST, "which is", "stopped early"],
        rows,
        f"Geometric means over {PROBLEMS} held-out problems and {SEEDS} seeds, in brackets the range of the seeds'. "
        f"Trained on {CASES[kind][0][0]} with a budget of {CASES[kind][0][1]}: imitation of the true-error oracle on "
        f"{AgentConfig().imitate} problems, then {AgentConfig().steps} steps of PPO with the published reward, "
        f"{min(seconds):.0f} to {max(seconds):.0f} CPU seconds on one core. Strategies with parameters: the best ones "
        f"in hindsight, for each estimator {IN_TIME if kind == 'transport' else STEADY}",
    )


def variants() -> None:
    """What helped: algorithms, imitation, rewards, observations and starts, all on 1D advection and Poisson."""
    base = AgentConfig(seed=0)
    alone = replace(base, imitate=0, steps=200_000, segment=20_000, learning_rate=3e-4, entropy=0.01)
    settings = {
        "imitation, then PPO": base,
        "imitation only": replace(base, steps=0),
        "PPO only": alone,
        "PPO only, published observation": replace(alone, observation="raw"),
        "PPO only, standard observation": replace(alone, observation="standard"),
        "PPO only, coarse starts": replace(alone, start="coarse"),
        "A2C only": replace(alone, algorithm="a2c", learning_rate=7e-4),
        "DQN only": replace(alone, algorithm="dqn", steps=100_000),
        "imitation, then A2C": replace(base, algorithm="a2c"),
        "imitation, then DQN": replace(base, algorithm="dqn"),
        "imitation, then PPO, true error": replace(base, reward="log-error-drop"),
        "imitation, then PPO, coarse starts": replace(base, start="coarse"),
        "imitation of looking ahead": replace(base, steps=0, oracle="look-ahead"),
        "imitation, standard observation": replace(base, steps=0, observation="standard"),
        "imitation, published observation": replace(base, steps=0, observation="raw"),
        "budget 25": replace(base, budget=25),
        "budget 25, coarse starts": replace(base, budget=25, start="coarse"),
    }
    cases = [
        ("advection-tanh", 40, None),
        ("advection-gaussians", 40, None),
        ("advection-tanh", 40, 7),
        ("advection-tanh", 500, None),
    ]
    rows: list[list[object]] = []
    agents = []
    for label, config in settings.items():
        agent, seconds = trained("advection", config, label)
        agents.append(agent)
        rows.append([label, f"{seconds:.0f}"])
    for family, budget, seed in cases:
        env = environment("advection", base, family=family, budget=budget, start="coarse")
        start = None if seed is None else scattered(seed)
        logarithms, cells = np.zeros(len(agents)), np.zeros(len(agents))
        for state in held_out(env, PROBLEMS):
            curve = deploy(REFERENCE, state, int(1.2 * budget))
            for number, agent in enumerate(agents):
                trace = deploy(agent, state if start is None else start(state), budget, cycles=200)
                ratio_here = trace.errors[-1] / error_at(curve, trace.unknowns[-1])
                logarithms[number] += np.log(ratio_here) / PROBLEMS
                cells[number] += trace.cells[-1] / PROBLEMS
        for row, mean, count in zip(rows, np.exp(logarithms), cells, strict=True):
            row += [f"{mean:.3g}", f"{count:.0f}"]
        print(family, budget, seed, np.exp(logarithms).round(3), flush=True)
    record(
        "refinement_variants",
        "What helps refinement agents: error over that of Doerfler's marking of entering jumps, theta = 0.05",
        [
            "agent",
            "CPU s",
            "tanh, 40",
            "cells",
            "Gaussians, 40",
            "cells",
            "tanh, 40, from random meshes",
            "cells",
            "tanh, 500",
            "cells",
        ],
        rows,
        f"1D advection, seed 0, {PROBLEMS} held-out problems, geometric means at equal unknowns; the marking is the "
        "best of all strategies swept on these problems. From random meshes of 16 cells agents have to coarsen what "
        "they do not need; marking begins from the coarsest mesh all the same. Trained with a budget of 40 but where "
        "another one is named.",
    )


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or [*CASES, "variants"]:
        if name == "variants":
            variants()
        else:
            compared(name)


if __name__ == "__main__":
    main()
