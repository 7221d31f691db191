"""Evaluations of agents as tables, pictures and a report."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.errors import ConfigError
from sciml.files import atomic_folder, refuse_folder, write_json
from sciml.provenance import git_commit, jsonable
from sciml.report import Report

from .agents import Agent, environment
from .evaluation import STEPS, Comparison, Outcome, compare_policies, held_out, run_policy
from .families import families_of
from .policies import End, Policy
from .unfinished import Unfinished

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .environments import RefinementEnv

__all__ = ["HEAD", "LEGEND", "comparison_figure", "evaluate_agents", "table_rows"]

MARKER = "evaluation.json"
HEAD = ["agents' error over that of", "with", "ratio", "least agent", "largest"]
"""Of tables."""
LEGEND = (
    "Below 1 agents are better. 'with' is the best setting in hindsight: indicator, theta and, in time, what is "
    "merged; 'least agent' and 'largest' are the means of single agents."
)
CURVE_PROBLEMS = 8
"""Problems over which curves are averaged."""


def evaluate_agents(
    runs: Sequence[str | Path],
    *,
    families: Sequence[str] = (),
    budget: int = 0,
    problems: int = 24,
    look_ahead: bool | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Compare agents with all strategies, and write table, pictures and a report.

    Parameters
    ----------
    runs : sequence of path
        Folders of finished trainings, of one kind of problems.
    families : sequence of str, optional
        By default all of that kind.
    budget : int, optional
        By default that of training.
    problems : int
    look_ahead : bool, optional
        By default for budgets of at most 100 cells.
    output : path, optional
        By default ``evaluation-BUDGET`` in the first run's folder.
    overwrite : bool
    progress : bool
        Whether to show a bar where there is a terminal.

    Problems that are finished are kept beside the folder, in FOLDER.unfinished.jsonl, until all are: after an
    interruption the same call goes on.

    Returns
    -------
    dict
        "tables" (head and rows of each family), "legend" (what they say), "results" and "folder".

    Raises
    ------
    ConfigError
        If agents are of different kinds, or a family is unknown or of another kind.
    OutputExistsError
        If the folder is taken, or another evaluation has begun there.
    """
    from tqdm import tqdm

    agents = [Agent.load(run) for run in runs]
    kinds = sorted({agent.kind for agent in agents})
    if len(kinds) > 1:
        raise ConfigError(f"runs are agents for {' and '.join(kinds)}: evaluate those of one kind together")
    kind, config = kinds[0], agents[0].config
    families = list(families) or families_of(kind)
    given: dict[str, Any] = {"budget": budget} if budget else {}
    envs = {name: environment(kind, config, family=name, start="coarse", **given) for name in families}
    reached = next(iter(envs.values())).budget
    first = Path(runs[0])
    folder = Path(output or (first if first.is_dir() else first.parent) / f"evaluation-{reached}")
    refuse_folder(folder, MARKER, overwrite)
    legend = LEGEND + (f" Errors are those after {STEPS} steps in time." if kind == "transport" else "")
    settings = {
        "agents": [agent.digest() for agent in agents],
        "budget": reached,
        "look_ahead": look_ahead,
        "commit": git_commit(),
    }
    unfinished = Unfinished(folder.with_name(f"{folder.name}.unfinished.jsonl"), settings, overwrite)
    results, tables, pictures = {}, {}, {}
    total = len(envs) * (problems + min(problems, CURVE_PROBLEMS))
    with tqdm(total=total, unit=" problems", disable=not (progress and sys.stderr.isatty())) as bar:
        for name, env in envs.items():
            bar.set_description_str(name)
            found = _compared(env, agents, problems, look_ahead, unfinished, bar.update)
            results[name] = {"table": found.table(), **found.failures()}
            tables[name] = (HEAD, table_rows(found))
            bar.set_description_str(f"{name}, curves")
            pictures[name] = comparison_figure(env, agents, found, unfinished, bar.update)
    with atomic_folder(folder, MARKER, overwrite) as temporary:
        report = Report("Refinement agents beside classical strategies", temporary)
        report.text(
            f"{counted(len(agents), 'agent')} trained on {kind} problems, budget {reached} cells, "
            f"{counted(problems, 'held-out problem')} of each family. Errors at equal numbers of unknowns, "
            f"geometric means over problems. {legend}"
        )
        for name in families:
            report.section(name)
            report.table(*tables[name])
            stopped = results[name]["stopped early"]
            report.text(f"{stopped} of {results[name]['runs']} runs stopped below half of the budget.")
            report.figure(
                pictures[name], f"error-{name}", "Relative L2 error against unknowns, geometric means."
            )
        report.save()
        record = {
            "kind": kind,
            "budget": reached,
            "problems": problems,
            "agents": len(agents),
            "families": results,
        }
        write_json(temporary / MARKER, record)
    unfinished.remove()
    return {"tables": tables, "legend": legend, "results": results, "folder": str(folder)}


def _compared(
    env: "RefinementEnv",
    agents: Sequence[Agent],
    problems: int,
    look_ahead: bool | None,
    unfinished: Unfinished,
    progress: Callable[[], object],
) -> Comparison:
    family, known = repr(env.family), {}
    for number in range(problems):
        if entry := unfinished.get([family, "outcome", number]):
            ends, errors = entry
            known[number] = Outcome([End(*end) for end in ends], errors)

    def keep(number: int, outcome: Outcome) -> None:
        if number not in known:
            unfinished.add([family, "outcome", number], jsonable(outcome))
        progress()

    return compare_policies(env, agents, problems=problems, look_ahead=look_ahead, known=known, progress=keep)


def counted(count: int, name: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> counted(2, "agent")
    '2 agents'
    """
    return f"{count} {name}{'' if count == 1 else 's'}"


def table_rows(found: Comparison) -> list[list[object]]:
    """Return the rows of a comparison's table under `HEAD`."""
    return [
        [
            row["against"],
            row["strategy"] if " " in row["strategy"] else "",
            *(f"{row[key]:.3f}" for key in ("ratio", "least", "largest")),
        ]
        for row in found.table()
    ]


def comparison_figure(
    env: "RefinementEnv",
    agents: Sequence[Agent],
    found: Comparison,
    unfinished: Unfinished | None = None,
    progress: Callable[[], object] = lambda: None,
) -> "Figure":
    """Return errors against unknowns: agents with every budget, and the best of each kind of strategies.

    Runs are taken from what is unfinished, and kept there.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    ax = figure.subplots()
    states = held_out(env, min(CURVE_PROBLEMS, len(found.ends[0])))
    budgets = np.unique(np.geomspace(1.5 * len(states[0]), env.budget, 6).round().astype(int))
    best = [found.best(kind) for kind in ("doerfler", "threshold")]
    shown: dict[str, Policy] = {f"agent {number}": agent for number, agent in enumerate(agents, 1)}
    shown |= {f"best {name}": found.policies[name] for name in best}
    shown |= {name: found.policies[name] for name in ("uniform", "random")}
    runs = []
    for number, state in enumerate(states):
        key = [repr(env.family), "curves", number, *shown]
        ends = unfinished.get(key) if unfinished else None
        if ends is None:
            ends = [[run_policy(one, state, most).end for most in budgets.tolist()] for one in shown.values()]
            if unfinished:
                unfinished.add(key, jsonable(ends))
        runs.append(ends)
        progress()
    _, unknowns, errors = np.moveaxis(np.exp(np.log(runs).mean(axis=0)), -1, 0)
    for label, x, y in zip(shown, unknowns, errors, strict=True):
        style = "o-" if label.startswith("agent") else "k:" if label in ("uniform", "random") else "s--"
        ax.loglog(x, y, style, label=label, markersize=4, alpha=0.8)
    ax.set(xlabel="unknowns", ylabel="relative L2 error")
    ax.legend(fontsize=8)
    ax.grid(which="both", alpha=0.2)
    return figure
