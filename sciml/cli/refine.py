"""``sciml refine``: agents that refine meshes, and classical strategies beside them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sciml.errors import ConfigError, DatasetFormatError
from sciml.registry import unknown_name

from .parsing import parse, print_table, take_name

__all__ = ["run"]

USAGE = """usage: sciml refine train|evaluate|watch ...

  train     train an agent on a kind of problems (advection or poisson in 1D, transport in time on quadtrees, or
            triangles): imitation of an oracle, then stable-baselines3
  evaluate  agents beside swept classical strategies, at equal numbers of unknowns, on problems they never saw
  watch     a film of an agent at work, and its meshes as VTU files

example:
  {train}
  {evaluate}
  {watch}
"""
TRAIN = "sciml refine train poisson -o runs/agent"
EVALUATE = "sciml refine evaluate runs/agent --families poisson-tanh poisson-gaussians"
WATCH = "sciml refine watch runs/agent -o film"


@dataclass(frozen=True)
class TrainFiles:
    """Where to."""

    output: Annotated[str, tyro.conf.arg(aliases=["-o"])]
    """Run folder."""
    settings: str = ""
    """JSON file with the settings below, such as the config.json of another run; options given here come before it."""
    resume: bool = False
    """Go on with an interrupted run."""
    overwrite: bool = False
    """Discard a run that is there."""
    tensorboard: bool = False
    """Write stable-baselines3's logs to RUN/tensorboard."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class EvaluateArguments:
    """What to evaluate, and on what."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUNS")]
    """Folders of finished trainings, such as those of several seeds."""
    families: tuple[str, ...] = ()
    """Families of problems; by default all of the agent's kind."""
    budget: int = 0
    """Cells that meshes stay below; by default as in training."""
    problems: int = 24
    """Held-out problems of each family. In time one takes about a minute, others a few seconds."""
    look_ahead: bool = False
    """Run the look-ahead oracle for budgets above 100, too: it solves once for each cell in every step.
    Not for problems in time."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """Folder for the table and pictures; by default RUN/evaluation-BUDGET of the first run."""
    overwrite: bool = False
    """Replace an evaluation that is there."""


@dataclass(frozen=True)
class WatchArguments:
    """What to watch."""

    policy: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Folder of a finished training."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])]
    """Folder for refinement.gif, mesh-0000.vtu, ... and meshes.pvd."""
    family: str = ""
    """Family of the problem; by default the first one of training."""
    problem: int = 0
    """Which of the held-out problems."""
    budget: int = 0
    """Cells that meshes stay below; by default as in training."""
    steps: int = 40
    """Cycles, or steps in time, at most."""
    overwrite: bool = False
    """Replace a film that is there."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Train, evaluate or watch."""
    commands = {"train": _train, "evaluate": _evaluate, "watch": _watch}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(train=TRAIN, evaluate=EVALUATE, watch=WATCH), end="")
        return
    if arguments[0] not in commands:
        raise unknown_name("command of 'sciml refine'", arguments[0], list(commands))
    commands[arguments[0]](arguments[1:])


def _train(arguments: list[str]) -> None:
    from sciml.envs.agents import ENVIRONMENTS, AgentConfig
    from sciml.envs.families import families_of
    from sciml.envs.policies import policy_registry

    kind = take_name(
        arguments, "kind of problem", ENVIRONMENTS, "sciml refine train KIND -o RUN [options]", TRAIN
    )
    if kind is None:
        return
    given = _settings(arguments, kind)
    config = dataclasses.field(default_factory=lambda: AgentConfig.of(given))
    families, oracles = ", ".join(families_of(kind)), ", ".join(policy_registry)
    about = f"Train an agent. Families of {kind} problems: {families}. Oracles: {oracles}."
    both = dataclasses.make_dataclass(
        "TrainArguments", [("files", TrainFiles), ("config", AgentConfig, config)]
    )
    parsed: Any = parse(
        both, f"sciml refine train {kind}", arguments[1:], about, TRAIN.replace("poisson", kind)
    )
    files: TrainFiles = parsed.files
    if not files.output:
        raise ConfigError(f"output={files.output!r}: name a folder")

    from sciml.envs.training import train_agent

    result = train_agent(
        kind,
        parsed.config,
        files.output,
        resume=files.resume,
        overwrite=files.overwrite,
        progress=not files.quiet,
        tensorboard=files.tensorboard,
    )
    origin = f"after segment {result['best']}" if result["best"] else "after imitation"
    if not result["best"] and parsed.config.steps:
        origin += " (reinforcement learning made it no better)"
    early = (
        f" (it stops below half of the budget on {result['stopped']:.0%} of them, which counts as e times the error)"
        if result["stopped"]
        else ""
    )
    print(
        f"on held-out problems {result['score']:.3f} times the error of Doerfler's marking in small steps{early}, "
        f"{origin}; wrote {files.output}, evaluate it with: sciml refine evaluate {files.output}"
    )


def _settings(arguments: list[str], kind: str) -> dict[str, Any]:
    """Return what the file of settings holds that is named among arguments; of a run it must be of that kind."""
    from sciml.files import read_json

    named = ""
    for place, argument in enumerate(arguments):
        if argument == "--settings" and place + 1 < len(arguments):
            named = arguments[place + 1]
        elif argument.startswith("--settings="):
            named = argument.removeprefix("--settings=")
    if not named:
        return {}
    if not Path(named).is_file():
        raise ConfigError(
            f"settings={named!r} is no file: name a JSON file, such as the config.json of a run"
        )
    try:
        found = read_json(named)
    except DatasetFormatError as error:
        raise ConfigError(f"settings={named!r} are no JSON: name the config.json of a run") from error
    if not isinstance(found, dict):
        raise ConfigError(f"settings={named!r} hold no names with values: give a JSON object")
    if found.get("kind", kind) != kind:
        raise ConfigError(f"settings={named!r} are of a run on {found['kind']!r} problems, not {kind!r}")
    settings = found.get("config", found)
    if not isinstance(settings, dict):
        raise ConfigError(f"settings={named!r}: its config holds no names with values, give a JSON object")
    return settings


def _evaluate(arguments: list[str]) -> None:
    options = parse(
        EvaluateArguments,
        "sciml refine evaluate",
        arguments,
        "Compare agents with classical strategies. Interrupted, the same command goes on after the last problem.",
        EVALUATE,
    )
    if not options.runs:
        raise ConfigError("name at least one run: sciml refine evaluate RUN")
    if options.problems < 1:
        raise ConfigError(f"problems={options.problems}: it must be at least 1")

    from sciml.envs.reports import evaluate_agents

    result = evaluate_agents(
        options.runs,
        families=options.families,
        budget=options.budget,
        problems=options.problems,
        look_ahead=True if options.look_ahead else None,
        output=options.output or None,
        overwrite=options.overwrite,
        progress=True,
    )
    for family, (head, cells) in result["tables"].items():
        print(f"{family}:")
        print_table(head, cells)
        print()
    print(f"{result['legend']}\nwrote {result['folder']}/report.html")


def _watch(arguments: list[str]) -> None:
    options = parse(WatchArguments, "sciml refine watch", arguments, "Watch an agent refine a mesh.", WATCH)

    from sciml.envs.agents import Agent, environment
    from sciml.envs.evaluation import held_out
    from sciml.envs.render import episode, write_film, write_states
    from sciml.files import atomic_folder, refuse_folder

    if options.steps < 1:
        raise ConfigError(f"steps={options.steps}: it must be at least 1")
    if options.problem < 0:
        raise ConfigError(f"problem={options.problem}: it must not be negative")
    refuse_folder(options.output, "refinement.gif", options.overwrite)
    agent = Agent.load(options.policy)
    family = options.family or next(iter(agent.config.families), "")
    settings: dict[str, Any] = {"family": family} if family else {}
    if options.budget:
        settings["budget"] = options.budget
    env = environment(agent.kind, agent.config, start="coarse", **settings)
    state = held_out(env, options.problem + 1)[-1]
    states = episode(agent, state, env.budget, steps=options.steps)
    with atomic_folder(options.output, "refinement.gif", options.overwrite) as folder:
        write_film(folder / "refinement.gif", states, env.budget)
        write_states(folder, states)
    print(
        f"{len(states)} meshes, of {len(states[0])} to {len(states[-1])} cells, relative error {states[0].error:.3g} "
        f"to {states[-1].error:.3g}; wrote {options.output}/refinement.gif, {len(states)} VTU files and meshes.pvd"
    )
