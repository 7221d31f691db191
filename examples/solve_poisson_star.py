"""Poisson's equation on a six-petal star: four grids, one table, a file for ParaView."""

from sciml.solvers import CartesianGrid, Star, manufactured, solve

problem = manufactured("exp(x)*sin(2*y) + sin(3*x*y + 0.3)", Star(radius=0.30, amplitude=0.15, petals=6))


def main() -> list[float]:
    errors = []
    for n in (40, 80, 160, 320):
        solution = solve(problem, CartesianGrid.uniform(n))
        errors.append(solution.errors()["l2"])
        print(f"N = {n:3d}   unknowns {solution.info['unknowns']:5d}   L2 error {errors[-1]:.2e}")
    solution.export("star.vtu")
    solution.plot().figure.savefig("star.png")
    return errors


if __name__ == "__main__":
    main()
