"""``sciml demo``: the whole loop, small: solve, generate, train, evaluate, refine, sample, learn equations, report."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sciml.errors import OutputExistsError
from sciml.files import refuse_existing, write_json

from .parsing import parse, print_table

if TYPE_CHECKING:
    from sciml.report import Report

__all__ = ["run"]

EXAMPLE = "sciml demo -o runs/demo"
MARKER = "demo.json"
GRIDS = (40, 80, 160, 320)
SAMPLES, STARS, FLOWS, EPOCHS, SCORE_EPOCHS = 1100, 16, 8, 12, 6

GO_ON = """sciml solve poisson --domain star --n 320 --order 4       # other problems, domains and orders: --help
sciml generate darcy -n 1100 -o darcy.h5                   # killed? run it again, it resumes
sciml generate poisson-star -n 200 -o stars.h5             # curved domains, solved to fourth order
sciml generate navier-stokes -n 100 --split 0.8 0.1 0.1 -o flows       # train, valid, test; on a GPU: --device cuda
sciml inspect darcy.h5 --verify
sciml train fno darcy.h5 --stride 2 --epochs 40 -o runs/darcy
sciml evaluate runs/darcy darcy.h5
sciml refine train triangles -o runs/agent                 # an agent that refines triangulations
sciml refine evaluate runs/agent --families triangles-fronts triangles-lshape
sciml refine watch runs/agent -o film
sciml train score darcy.h5 --stride 2 --symmetric -o runs/prior        # a score model of media and solutions
sciml sample runs/prior -n 64 --solver dpm++3m --steps 15
sciml generate burgers -n 24 --frames 61 --resolution 128 --refine 4 -o burgers.h5
sciml train dynamics burgers.h5 --frames 21 -o runs/burgers            # a stencil of three nodes
sciml equation runs/burgers --derivatives 2"""


@dataclass(frozen=True)
class DemoArguments:
    """Where to."""

    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = "runs/demo"
    """Folder for the results."""
    overwrite: bool = False
    """Discard a demo that is there."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Run the loop and write a report."""
    options = parse(
        DemoArguments, "sciml demo", arguments, "Solve, generate, train, evaluate, report.", EXAMPLE
    )
    output = Path(options.output)
    marker = output / MARKER
    if output.exists() and not marker.exists():
        raise OutputExistsError(
            f"output {str(output)!r} holds other things than a demo: choose another folder"
        )
    if options.overwrite:
        shutil.rmtree(output, ignore_errors=True)
    if (output / "report.html").exists():
        refuse_existing(output)
    write_json(marker, {"demo": "unfinished parts are taken up when it is run again"})

    from sciml.report import Report

    started = time.perf_counter()
    report = Report("sciml demo: from an equation to a trained operator", output)
    report.text(
        "Six steps: a PDE solved to fourth order on a curved domain; benchmark datasets whose checks are "
        "stored with them; a neural operator trained on one of them and tested on a finer grid; an agent that "
        "learns where to refine a mesh; a score model that draws new media with their solutions; the equation behind "
        "noisy orbits."
    )
    _solve(report)
    _generate(report, output)
    _train(report, output)
    _refine(report, output)
    _sample(report, output)
    _learn(report, output)
    report.section("How to go on")
    report.text("The same steps at full size, each with --help:")
    report.code(GO_ON)
    report.text(f"This demo took {time.perf_counter() - started:.0f} s.")
    page = report.save()
    print(f"\ndemo finished in {time.perf_counter() - started:.0f} s: open {page} in a browser")


def _solve(report: "Report") -> None:
    import matplotlib.pyplot as plt
    import numpy as np

    from sciml.solvers import CartesianGrid, Star, problem_registry, solve

    print("1/6 solve: Poisson's equation on a six-petal star, four grids")
    problem = problem_registry["poisson"](Star())
    solutions = [solve(problem, CartesianGrid.uniform(n)) for n in GRIDS]
    errors = [solution.errors() for solution in solutions]
    rate = -np.polyfit(np.log(GRIDS), np.log([error["l2"] for error in errors]), 1)[0]
    head = ["cells per axis", "unknowns", "max error", "L2 error", "CPU seconds"]
    rows: list[list[object]] = [
        [
            n,
            solution.info["unknowns"],
            f"{error['linf']:.2e}",
            f"{error['l2']:.2e}",
            f"{solution.info['cpu_seconds']:.2f}",
        ]
        for n, solution, error in zip(GRIDS, solutions, errors, strict=True)
    ]
    print_table(head, rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    solutions[1].plot(left)
    spacing = 1 / np.array(GRIDS)
    right.loglog(spacing, [error["l2"] for error in errors], "o-", label=f"L2 error, fitted order {rate:.2f}")
    right.loglog(spacing, errors[0]["l2"] * (spacing / spacing[0]) ** 4, "k--", lw=1, label="order 4")
    right.set(xlabel="grid spacing h", ylabel="error")
    right.set_xticks(spacing, [f"1/{n}" for n in GRIDS])
    right.minorticks_off()
    right.grid(alpha=0.3, which="both")
    right.legend()
    report.section("1. Solve")
    report.text(
        "Laplace u = f on the star r < 0.30 + 0.15 cos 6t with Dirichlet data, exact solution "
        "exp(x) sin 2y + sin(3xy + 0.3), by PLG finite differences: local polynomials of degree 4 on poised "
        f"lattices near the boundary, the classical cross inside. Fitted L2 order over four grids: {rate:.2f}."
    )
    report.table(head, rows)
    report.figure(figure, "solve", "The solution at 80 cells per axis, and the error on four grids.")


def _generate(report: "Report", output: Path) -> None:
    import matplotlib.pyplot as plt
    import numpy as np

    from sciml.datasets import FieldsDataset, Recipe, generate
    from sciml.datasets.recipes import DarcyRecipe, NavierStokesRecipe, PoissonStarRecipe
    from sciml.datasets.verification import verify

    print(f"2/6 generate: {SAMPLES} Darcy problems, {STARS} random stars, {FLOWS} flows; verify each file")
    recipes: dict[str, tuple[Recipe, int]] = {
        "darcy": (DarcyRecipe(), SAMPLES),
        "stars": (PoissonStarRecipe(), STARS),
        "flows": (NavierStokesRecipe(frames=13, final_time=12.0), FLOWS),
    }
    rows: list[list[object]] = []
    figure, axes = plt.subplots(3, 4, figsize=(12, 8.4), layout="constrained")
    for line, (name, (recipe, n)) in zip(axes, recipes.items(), strict=True):
        path = generate(recipe, n, output / f"{name}.h5", workers=2, resume=True)
        findings = verify(path)
        passed = sum(finding.passed for finding in findings)
        with FieldsDataset(path) as data:
            assert data.record is not None
            error = data.record.verification["self_convergence"].max()
            size = f"{path.stat().st_size / 1e6:.1f} MB"
            rows.append([path.name, n, f"{error:.1e}", f"{passed} of {len(findings)}", size])
            mask = data[data.mask][:2] if data.mask else np.ones((2, *data.resolution))
            for column, axis in enumerate(line):
                if data.steady:
                    field, row = (data.inputs[0], "u")[column % 2], column // 2
                    values, title = data.read(field, rows=slice(row, row + 1))[0], f"{name}: {field}"
                else:
                    field, row, frame = "w", 0, 4 * column
                    values, title = data[field][row, frame], f"{name}: {field}, t = {data.times[frame]:g}"
                image = axis.imshow(np.where(mask[row] > 0, values, np.nan).T, origin="lower")
                figure.colorbar(image, ax=axis, shrink=0.8)
                axis.set(title=title, xticks=[], yticks=[])
    head = ["file", "samples", "error against a finer solution", "verifications passed", "size"]
    print_table(head, rows)
    report.section("2. Generate")
    report.text(
        "Darcy flow -div(a grad u) = 1 through two-phase random media (85 x 85, five-point scheme), Laplace u = f "
        "on random stars (65 x 65, PLG), and forced two-dimensional flow (64 x 64, Fourier-Galerkin and ETDRK4). "
        "Every file stores its configuration, the seed and a checksum of each sample, and a sample solved again "
        "with half the spacing and step; verification repeats this and makes random samples again, bit for bit."
    )
    report.table(head, rows)
    report.figure(figure, "datasets", "Two samples of the steady datasets, and the vorticity of one flow.")


def _train(report: "Report", output: Path) -> None:
    from sciml.training import TrainConfig, evaluate, train
    from sciml.training.evaluation import plot_samples
    from sciml.training.reports import evaluation_table, plot_history

    print(f"3/6 train: an FNO at 43 x 43, {EPOCHS} epochs; evaluate at 85 x 85 too")
    config = TrainConfig(stride=2, epochs=EPOCHS, n_train=1000, n_test=100)
    result: dict[str, Any] = train(config, output / "darcy.h5", output / "fno", resume=True)
    evaluation = output / "fno" / "evaluation-darcy"
    rows = evaluate(output / "fno", output / "darcy.h5", output=evaluation, overwrite=True)
    head, cells = evaluation_table(rows)
    print_table(head, cells)
    report.section("3. Train and evaluate")
    report.text(
        f"A Fourier neural operator ({result['parameters']:,} parameters) learns the map from coefficient to "
        f"pressure on {result['n_train']} samples at 43 x 43 in {result['seconds']:.0f} s. The same weights are "
        "then evaluated on samples that were not used for training, at several resolutions."
    )
    report.table(head, cells)
    report.figure(plot_history(result["history"]), "loss", "Training loss and test error by epoch.")
    figure = plot_samples(output / "fno", output / "darcy.h5")
    report.figure(figure, "prediction", "The median and the worst test samples at 85 x 85.")


def _refine(report: "Report", output: Path) -> None:
    from sciml.envs.agents import Agent, AgentConfig, environment
    from sciml.envs.evaluation import compare_policies
    from sciml.envs.reports import HEAD, comparison_figure, table_rows
    from sciml.envs.training import train_agent

    config = AgentConfig(imitate=30, steps=16_000)
    print(
        f"4/6 refine: an agent learns from {config.imitate} problems and {config.steps} steps; Doerfler beside it"
    )
    train_agent("advection", config, output / "agent", resume=True)
    agent = Agent.load(output / "agent")
    env = environment("advection", config, family="advection-gaussians", start="coarse")
    found = compare_policies(env, [agent], problems=8)
    rows = table_rows(found)
    print_table(HEAD, rows)
    report.section("4. Refine")
    report.text(
        "An agent learns on steady advection problems with one front where to refine an interval's mesh: it imitates "
        "an oracle, then is trained by PPO on the published reward. Here it meets three Gaussians, which it has never "
        "seen, beside classical strategies with the parameter that is best for them, at equal numbers of unknowns."
    )
    report.table(HEAD, rows)
    report.figure(comparison_figure(env, [agent], found), "refine", "Relative L2 error against unknowns.")


def _sample(report: "Report", output: Path) -> None:
    import matplotlib.pyplot as plt

    from sciml.operators import DenoiserConfig
    from sciml.sampling import draw_fields, evaluate_score, load_score_model
    from sciml.sampling.score_evaluation import distance_table
    from sciml.training import ScoreConfig, train

    print(
        f"5/6 sample: a score model of media and solutions at 22 x 22, {SCORE_EPOCHS} epochs; 15 steps of ++3M"
    )
    config = ScoreConfig(
        stride=4, epochs=SCORE_EPOCHS, n_train=1000, n_test=100, symmetric=True, precision="bfloat16"
    )
    run = output / "prior"
    result = train(config, output / "darcy.h5", run, model=DenoiserConfig(width=24), resume=True)
    head, cells = distance_table(
        evaluate_score(run, output / "darcy.h5", n=50, reference_steps=60, progress=False)
    )
    print_table(head, cells)
    fields = draw_fields(load_score_model(run)[0], 6, (22, 22)).numpy()
    figure, axes = plt.subplots(2, 6, figsize=(12, 4.2), layout="constrained")
    for channel, line in enumerate(axes):
        for row, axis in enumerate(line):
            axis.imshow(fields[row, ..., channel].T, origin="lower")
            axis.set(title=f"sample {row}: {'au'[channel]}", xticks=[], yticks=[])
    report.section("5. Sample")
    report.text(
        f"A score model ({result['parameters']:,} parameters, {result['seconds']:.0f} s of training) draws "
        "coefficients and solutions together, in 15 steps of DPM-Solver++(3M). Distances of mean spectra (|log10| of "
        "the ratio by wavenumber) and of the distributions of values, beside those of training from unseen data."
    )
    report.table(head, cells)
    report.figure(figure, "samples", "Six samples: medium above, solution below.")


def _learn(report: "Report", output: Path) -> None:
    from sciml.datasets import generate
    from sciml.datasets.recipes import LotkaVolterraRecipe
    from sciml.dynamics import LearnedField
    from sciml.training import DynamicsConfig, train_dynamics
    from sciml.training.dynamics_data import load_trajectories
    from sciml.training.dynamics_reports import plot_roll_out
    from sciml.training.equations import of_run, read_equation

    print("6/6 learn: the equation of an orbit, from 60 frames with 5 % of noise")
    recipe = LotkaVolterraRecipe(alpha=1.56, beta=1.12, gamma=3.1, delta=1.21, frames=100, final_time=6.0)
    data = generate(recipe, 2, output / "orbits.h5", resume=True)
    run, config = output / "dynamics", DynamicsConfig(frames=60, n_train=1, n_test=1, noise=0.05)
    if not (run / "model.safetensors").exists():
        train_dynamics(config, data, run, resume=True, progress=False)
    found = of_run(run)
    lines = found.polynomial.text(found.names, errors=found.errors)
    print(lines)
    report.section("6. Learn an equation")
    report.text(
        "A Mu-layer, a network without activations, is a polynomial: trained on one orbit of predators and prey, 60 "
        "frames with 5 % of noise, it gives the right-hand sides, of which those terms that the data need are then "
        "fitted to the whole orbit (standard errors in brackets). True: dx/dt = 1.56 x - 1.12 x y, dy/dt = - 3.1 y + "
        "1.21 x y."
    )
    report.code(lines)
    figure = plot_roll_out(
        read_equation(run) or LearnedField.load(run), load_trajectories(data), 1, 60, config.substeps
    )
    report.figure(
        figure, "dynamics", "Another orbit, which was not trained on, and the roll-out of the equation."
    )
