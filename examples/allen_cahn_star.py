"""Allen-Cahn on a star: reaction and diffusion, fourth order in space and time, snapshots in HDF5."""

import numpy as np

from sciml import datasets, solvers

problem = solvers.manufactured_evolution(
    "exp(-t)*sin(2*x + 3*t)*cos(y)",
    solvers.Star(),
    solvers.EllipticOperator(((0.1, 0.0), (0.0, 0.1))),
    reaction=solvers.Reaction("u - u**3"),
    boundary=solvers.Neumann(),
)


def main() -> float:
    grids, errors = (32, 48, 64, 96), []
    for n in grids:
        run = solvers.evolve(problem, solvers.CartesianGrid.uniform(n), np.linspace(0, 1, 5), step=2 / n)
        errors.append(run[-1].errors()["l2"])
        print(f"N = {n:3d}   steps {run.info['accepted']:3d}   L2 error at t = 1: {errors[-1]:.2e}")
    datasets.save(run, "allen_cahn.h5", overwrite=True)
    return float(-np.polyfit(np.log(grids), np.log(errors), 1)[0])


if __name__ == "__main__":
    print(f"order {main():.2f}")
