"""PLG with every boundary condition and kind of operator: errors, fitted orders, reference values."""

import numpy as np
from _results import record

from sciml.solvers import (
    PLG,
    Box,
    CartesianGrid,
    Dirichlet,
    DivAGrad,
    EllipticOperator,
    EllipticProblem,
    Mixed,
    Neumann,
    Robin,
    Star,
    manufactured,
    problem_registry,
    solve,
)

SMOOTH = "exp(x)*sin(2*y) + sin(3*x*y + 0.3)"
GRIDS = (40, 80, 160, 320)
CROSS = EllipticOperator(((1.0, 0.5), (0.5, 2.0)))
VARIABLE = EllipticOperator((("2 + x*y", "x/4"), ("x/4", "1 + y**2")), first=("y", -0.7), zeroth="-exp(x)")


def right_half(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x > 0


def cases() -> list[tuple[str, EllipticProblem, int, tuple[int, ...], tuple[float, ...] | None]]:
    """Name, problem, degree, grids, and L2 errors of an independent prototype with p = 1."""
    star, corners = Star(), Box() - Box((0.0, 0.0), (0.4, 0.4))
    mixed = Mixed(((right_half, Neumann()),))

    def on(operator: EllipticOperator | None = None, boundary: object = None) -> EllipticProblem:
        return manufactured(SMOOTH, star, operator, boundary=boundary or Dirichlet())

    reference = {
        "Robin": (1.5e-6, 6.6e-8, 5.3e-9, 3.5e-10),
        "Neumann": (2.7e-6, 1.2e-7, 1.0e-8, 7.0e-10),
        "cross": (2.3e-7, 4.3e-9, 9.6e-11, 3.8e-12),
        "cross 5": (5.3e-8, 2.3e-9, 7.0e-12, 2.4e-13),
        "JC": (5.4e-7, 1.5e-8, 4.2e-10, 1.4e-11),
    }
    johansen = problem_registry["johansen-colella"](star)
    corner_problem = manufactured(SMOOTH, corners)
    return [
        ("Dirichlet", on(), 4, GRIDS, None),
        ("Neumann", on(boundary=Neumann()), 4, GRIDS, reference["Neumann"]),
        ("Robin, alpha = 1", on(boundary=Robin(1.0)), 4, GRIDS, reference["Robin"]),
        ("Neumann where x > 0, else Dirichlet", on(boundary=mixed), 4, GRIDS, None),
        ("u_xx + u_xy + 2 u_yy", on(CROSS), 4, GRIDS, reference["cross"]),
        ("variable A, b, c", on(VARIABLE), 4, GRIDS, None),
        ("div((1 + xy + x^2) grad u)", on(DivAGrad("1 + x*y + x**2")), 4, GRIDS, None),
        ("L-shape, Dirichlet", corner_problem, 4, (37, 75, 151, 301), None),
        ("Johansen-Colella 1", johansen, 4, GRIDS, reference["JC"]),
        ("u_xx + u_xy + 2 u_yy, n = 5", on(CROSS), 5, GRIDS, reference["cross 5"]),
        ("Dirichlet, n = 6", on(), 6, (40, 57, 80, 113), None),
    ]


def main() -> None:
    rows: list[list[object]] = []
    for name, problem, degree, grids, reference in cases():
        for power in (1.0, 3.0):
            solutions = [
                solve(problem, CartesianGrid.uniform(n), PLG(degree=degree, weight_power=power))
                for n in grids
            ]
            errors = [solution.errors()["l2"] for solution in solutions]
            ratio = ""
            if reference and power == 1.0:
                ratio = ", ".join(f"{a / b:.2f}" for a, b in zip(errors, reference, strict=True))
            rate = -np.polyfit(np.log(grids), np.log(errors), 1)[0]
            cpu = f"{solutions[-1].info['cpu_seconds']:.2f}"
            shown = ", ".join(f"{error:.1e}" for error in errors)
            rows.append([name, f"{power:g}", ", ".join(map(str, grids)), shown, f"{rate:.2f}", ratio, cpu])
    record(
        "plg_conditions",
        "PLG: boundary conditions and operators on the six-petal star and an L-shape",
        ["problem (degree 4 unless said)", "p", "N", "L2 errors", "order", "L2 / reference", "CPU s, last N"],
        rows,
        "Order fitted over all four grids. Pure Neumann errors are up to a constant.",
    )


if __name__ == "__main__":
    main()
