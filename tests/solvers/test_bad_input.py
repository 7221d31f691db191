"""Arguments of the wrong kind, and data that cannot be used: one line that names argument, value and remedy."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from sciml.errors import ConfigError, GeometryError
from sciml.solvers import (
    Box,
    CartesianGrid,
    Dirichlet,
    Disk,
    EllipticProblem,
    EllipticSolver,
    Laplacian,
    LevelSet,
    Mixed,
    Neumann,
    ParabolicProblem,
    Poisson,
    Reaction,
    Robin,
    eigenvalues,
    evolve,
    solve,
    solve_nonlinear,
)

GRID = CartesianGrid.uniform(24)
TORSION = Poisson(Disk(), -1.0)
HEAT = ParabolicProblem(Disk(), Laplacian(2), Dirichlet(), 0.0)


def nothing(x: np.ndarray, y: np.ndarray) -> None:
    return None


CASES: dict[str, tuple[Callable[[], object], str]] = {
    "boundary a number": (
        lambda: Poisson(Disk(), 1.0, 5.0),
        r"boundary=5.0 is no BoundaryCondition: Dirichlet",
    ),
    "boundary None": (lambda: EllipticProblem(Disk(), Laplacian(2), 1.0, None), "boundary=None is no"),
    "domain": (lambda: Poisson("disk", 1.0), "domain='disk' is no Domain"),
    "grid": (lambda: solve(TORSION, 40), r"grid=40 is no CartesianGrid: CartesianGrid.uniform"),
    "method": (lambda: solve(TORSION, GRID, 4), r"method=4 is no PLG: PLG\(degree=4\)"),
    "parabolic to solve": (lambda: solve(HEAT, GRID), "is no EllipticProblem: evolve"),
    "elliptic to evolve": (
        lambda: evolve(TORSION, GRID, [0, 1], step=0.1),
        "solve takes problems without time",
    ),
    "times": (lambda: evolve(HEAT, GRID, 0.1, step=0.1), "times=0.1: give a sequence"),
    "velocity": (
        lambda: ParabolicProblem(Disk(), Laplacian(2), Dirichlet(), 0.0, velocity=1.0),
        "velocity=1.0 is no tuple",
    ),
    "reaction": (
        lambda: ParabolicProblem(Disk(), Laplacian(2), Dirichlet(), 0.0, reaction="u"),
        "reaction='u' is no Reaction: Reaction",
    ),
    "reaction of Newton": (lambda: solve_nonlinear(TORSION, "exp(u)", GRID), "is no Reaction"),
    "eigenvalues": (lambda: eigenvalues(Disk(), Laplacian(2), GRID), "operator=Disk"),
    "slice": (lambda: evolve(HEAT, GRID, [0, 1], step=1)[0:1], "give one number"),
    "initial array": (
        lambda: evolve(ParabolicProblem(Disk(), Laplacian(2), Dirichlet(), np.ones(3)), GRID, [0, 1], step=1),
        "initial of shape",
    ),
    "scalar function": (
        lambda: solve(Poisson(Disk(), lambda x, y: math.sin(x)), GRID),
        "np.sin for math.sin",
    ),
    "if of an array": (
        lambda: solve(Poisson(Disk(), lambda x, y: 1.0 if x > 0 else 0.0), GRID),
        "np.where for if",
    ),
    "one argument": (lambda: solve(Poisson(Disk(), lambda x: x), GRID), "called with 2 arrays"),
    "no value": (lambda: solve(Poisson(Disk(), nothing), GRID), "source returned NoneType"),
    "cells": (lambda: CartesianGrid.uniform(40.5), "n=40.5: give a whole number"),
    "cells as text": (lambda: CartesianGrid.uniform("40"), "n='40'"),
    "part of Mixed": (lambda: Mixed((0, Neumann())), "give tuples of pairs"),
    "no such piece": (
        lambda: solve(Poisson(Disk() - Disk(0.1), -1.0, Mixed(((2, Neumann()),))), GRID),
        r"Mixed part 2 holds nowhere .* pieces are \[0, 1\]",
    ),
    "part that never holds": (
        lambda: solve(Poisson(Disk(), -1.0, Mixed(((lambda x, y: x > 9, Neumann()),))), GRID),
        "holds nowhere",
    ),
    "two free components": (
        lambda: solve(Poisson(Disk(0.15, (-0.2, 0.0)) | Disk(0.15, (0.2, 0.0)), 0.0, Neumann()), GRID),
        r"component of the domain around \[.*\] up to a constant",
    ),
    "one free component": (
        lambda: solve(
            Poisson(
                Disk(0.15, (-0.2, 0.0)) | Disk(0.15, (0.2, 0.0)),
                0.0,
                Mixed(((lambda x, y: x > 0, Dirichlet()),), Neumann()),
            ),
            GRID,
        ),
        r"component of the domain around \[-0\..*\] up to a constant",
    ),
    "Neumann in disguise": (
        lambda: solve(Poisson(Disk(), 0.0, Robin(lambda x, y: 0 * x)), GRID),
        "state Neumann",
    ),
    "negative beyond the box": (
        lambda: solve(
            Poisson(LevelSet("0.3 - (cos(2*pi*x) + cos(2*pi*y))/2", (-0.5, -0.5), (0.5, 0.5)), 1.0),
            CartesianGrid.uniform(48, (-1.5, -1.5), (1.5, 1.5)),
        ),
        "outside the domain's bounds",
    ),
    "another condition": (
        lambda: EllipticSolver(TORSION, GRID).solve(boundary=Neumann(1.0)),
        "the matrix was built for Dirichlet",
    ),
    "another alpha": (
        lambda: EllipticSolver(Poisson(Disk(), 0.0, Robin(1.0)), GRID).solve(boundary=Robin(2.0, 1.0)),
        "only the data may differ",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_that_says_what_to_do(case: str) -> None:
    call, message = CASES[case]
    with pytest.raises((ConfigError, GeometryError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_evolution_goes_on_from_its_values() -> None:
    problem = ParabolicProblem(
        Box(), Laplacian(2), Dirichlet(), lambda x, y: np.cos(3 * x), reaction=Reaction("u")
    )
    whole = evolve(problem, GRID, [0, 0.1, 0.2], step=0.01)
    rest = ParabolicProblem(Box(), Laplacian(2), Dirichlet(), whole.values[1], reaction=Reaction("u"))
    again = evolve(rest, GRID, [0.1, 0.2], step=0.01)
    assert np.nanmax(np.abs(again.values[-1] - whole.values[-1])) < 1e-12
