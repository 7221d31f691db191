"""Evaluations of agents as tables, pictures and a report."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.errors import ConfigError
from sciml.files import atomic_folder, locked, refuse_folder, write_json
from sciml.provenance import git_commit, package_versions
from sciml.report import Report

from .agents import Agent, environment
from .evaluation import STEPS, Comparison, Outcome, compare_policies, held_out, run_policy, strategies
from .families import families_of
from .policies import End, Policy
from .states import State
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

    Problems that are finished are kept beside the folder, in FOLDER.unfinished.jsonl, until all are: after an
    interruption the same call goes on.

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

    Returns
    -------
    dict
        "tables" (head and rows of each family), "legend" (what they say), "results" and "folder".

    Raises
    ------
    ConfigError
        If agents are of different kinds, or a family is unknown or of another kind.
    OutputExistsError
        If the folder is taken, or another evaluation is under way or unfinished there.
    StorageError
        If the disk is full or the folder cannot be written.
    """
    agents = [Agent.load(run) for run in runs]
    kinds = sorted({agent.kind for agent in agents})
    if len(kinds) > 1:
        raise ConfigError(f"runs are agents for {' and '.join(kinds)}: evaluate those of one kind together")
    kind, config = kinds[0], agents[0].config
    given: dict[str, Any] = {"budget": budget} if budget else {}
    envs = {
        name: environment(kind, config, family=name, start="coarse", **given)
        for name in families or families_of(kind)
    }
    reached = next(iter(envs.values())).budget
    first = Path(runs[0])
    folder = Path(output or (first if first.is_dir() else first.parent) / f"evaluation-{reached}")
    legend = LEGEND + (f" Errors are those after {STEPS} steps in time." if kind == "transport" else "")
    with locked(folder):
        refuse_folder(folder, MARKER, overwrite)
        settings = {
            "agents": [agent.digest() for agent in agents],
            "families": list(envs),
            "look_ahead": any("look-ahead" in strategies(env, look_ahead) for env in envs.values()),
            "budget": reached,
            "versions": package_versions(),
            # Results of the evaluation may be tracked, too.
            "commit": git_commit().removesuffix("-dirty"),
        }
        unfinished = Unfinished(folder.with_name(f"{folder.name}.unfinished.jsonl"), settings, overwrite)
        found = _compared(envs, agents, problems, look_ahead, unfinished, progress)
        results = {name: {"table": one.table(), **one.failures()} for name, (one, _) in found.items()}
        tables = {name: (HEAD, table_rows(one)) for name, (one, _) in found.items()}
        with atomic_folder(folder, MARKER, overwrite) as temporary:
            report = Report("Refinement agents beside classical strategies", temporary)
            report.text(
                f"{counted(len(agents), 'agent')} trained on {kind} problems, budget {reached} cells, "
                f"{counted(problems, 'held-out problem')} of each family. Errors at equal numbers of unknowns, "
                f"geometric means over problems. {legend}"
            )
            for name, (_, picture) in found.items():
                report.section(name)
                report.table(*tables[name])
                stopped = results[name]["stopped early"]
                report.text(f"{stopped} of {results[name]['runs']} runs stopped below half of the budget.")
                report.figure(
                    picture, f"error-{name}", "Relative L2 error against unknowns, geometric means."
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
    envs: dict[str, "RefinementEnv"],
    agents: Sequence[Agent],
    problems: int,
    look_ahead: bool | None,
    unfinished: Unfinished,
    progress: bool,
) -> dict[str, tuple[Comparison, "Figure"]]:
    """Return comparison and picture for each family, made of what is there and of what is kept from now on."""
    from tqdm import tqdm

    found = {}
    total = len(envs) * (problems + min(problems, CURVE_PROBLEMS))
    with tqdm(total=total, unit=" problems", disable=not (progress and sys.stderr.isatty())) as bar:
        for name, env in envs.items():

            def outcome(number: int, make: Callable[[], Outcome], name: str = name) -> Outcome:
                ends, errors = unfinished.once([name, number], make)
                bar.update()
                return Outcome([End(*end) for end in ends], errors)

            def curves(number: int, make: Callable[[], Any], name: str = name) -> Any:
                # Which strategies are the best depends on all problems.
                ends = unfinished.once([name, number, f"curves, {problems} problems"], make)
                bar.update()
                return ends

            bar.set_description_str(name)
            one = compare_policies(env, agents, problems=problems, look_ahead=look_ahead, once=outcome)
            bar.set_description_str(f"{name}, curves")
            found[name] = one, comparison_figure(env, agents, one, curves)
    return found


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
    once: Callable[[int, Callable[[], Any]], Any] = lambda number, make: make(),
) -> "Figure":
    """Return errors against unknowns: agents with every budget, and the best of each kind of strategies.

    As in `compare_policies`, ``once`` gets the number of each problem and the function that runs policies on it.
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

    def runs(state: State) -> list[list[End]]:
        return [[run_policy(one, state, most).end for most in budgets.tolist()] for one in shown.values()]

    ends = [once(number, partial(runs, state)) for number, state in enumerate(states)]
    _, unknowns, errors = np.moveaxis(np.exp(np.log(ends).mean(axis=0)), -1, 0)
    for label, x, y in zip(shown, unknowns, errors, strict=True):
        style = "o-" if label.startswith("agent") else "k:" if label in ("uniform", "random") else "s--"
        ax.loglog(x, y, style, label=label, markersize=4, alpha=0.8)
    ax.set(xlabel="unknowns", ylabel="relative L2 error")
    ax.legend(fontsize=8)
    ax.grid(which="both", alpha=0.2)
    return figure
