"""The five-point Darcy solve: sine-transform-preconditioned CG beside sparse direct solvers."""

import numpy as np
from _results import alternate, record
from scipy.sparse.linalg import splu, spsolve

from sciml.datasets.recipes import Darcy
from sciml.solvers import CartesianGrid
from sciml.solvers.five_point import FivePoint


def main() -> None:
    rows: list[list[object]] = []
    for n in (85, 211, 421):
        grid = CartesianGrid.uniform(n - 1, (0.0, 0.0), (1.0, 1.0))
        scheme = FivePoint(Darcy(resolution=n).sample(1).fields["a"], grid)
        matrix, ones = scheme.matrix().tocsc(), np.ones((n - 2) ** 2)
        lu = {"permc_spec": "MMD_AT_PLUS_A", "options": {"SymmetricMode": True}, "diag_pivot_thresh": 0.0}
        seconds = alternate(
            {
                "ours": lambda scheme=scheme, grid=grid: scheme.solve(np.ones(grid.shape)),
                "spsolve": lambda matrix=matrix, ones=ones: spsolve(matrix, ones),
                "splu": lambda matrix=matrix, ones=ones, lu=lu: splu(matrix, **lu).solve(ones),
            },
            repeats=5,
        )
        residual = scheme.solve(np.ones(grid.shape))[1]
        rows.append(
            [
                f"{n} x {n}",
                f"{seconds['ours']:.4f}",
                f"{seconds['spsolve']:.4f}",
                f"{seconds['splu']:.4f}",
                f"{seconds['spsolve'] / seconds['ours']:.1f}",
                f"{seconds['splu'] / seconds['ours']:.1f}",
                f"{residual:.1e}",
            ]
        )
    record(
        "darcy_solver",
        "One Darcy solve, coefficient 12 or 3",
        [
            "grid",
            "ours CPU s",
            "spsolve CPU s",
            "splu (MMD) CPU s",
            "spsolve / ours",
            "splu / ours",
            "our residual",
        ],
        rows,
        "Matrix assembly is not counted for the direct solvers; our time includes everything but the coefficient.",
    )


if __name__ == "__main__":
    main()
