"""Weights decide stability: spectra of PLG Laplacians on the six-petal star for weights and enrichments."""

import numpy as np
from _results import record

from sciml.solvers import PLG, BoundaryCondition, CartesianGrid, Dirichlet, Neumann, Poisson, Star

N = 48
POWERS = (0.0, 1.0, 3.0)
CONDITIONS: dict[str, BoundaryCondition] = {"Dirichlet": Dirichlet(), "Neumann": Neumann()}
# Largest and smallest real part, times h^2, of an independent prototype, for each power of POWERS.
REFERENCE: dict[tuple[str, float], tuple[tuple[float, float | None], ...]] = {
    ("Dirichlet", 0.0): ((0.090, None), (-0.067, -19), (-0.074, -89)),
    ("Dirichlet", 0.5): ((0.72, None), (-0.060, -12), (-0.073, -84)),
    ("Dirichlet", 1.0): ((0.55, None), (-0.062, -10.5), (-0.073, -74)),
    ("Dirichlet", 2.0): ((0.40, None), (-0.054, -10.5), (-0.073, -60)),
    ("Neumann", 0.0): ((0.31, None), (0.12, -10.5), (0.48, -10.5)),
    ("Neumann", 0.5): ((0.58, None), (0.0, -10.5), (0.0, -10.5)),
    ("Neumann", 1.0): ((0.34, None), (0.0, -10.5), (0.0, -10.5)),
}
ROUND_OFF = 1e-10  # of the largest real part: a zero mode


def spectrum(condition: BoundaryCondition, rho: float, power: float) -> np.ndarray:
    """Eigenvalues of the Laplacian, times h^2."""
    method = PLG(enrichment=rho, weight_power=power)
    matrix = method.discretise(Poisson(Star(), 0.0, condition), CartesianGrid.uniform(N)).matrix
    return np.linalg.eigvals(matrix.toarray() / N**2)


def main() -> None:
    rows: list[list[object]] = []
    for name, condition in CONDITIONS.items():
        for rho in (0.0, 0.5, 1.0, 2.0):
            reference = REFERENCE.get((name, rho), ((None, None),) * len(POWERS))
            for power, (high, low) in zip(POWERS, reference, strict=True):
                values = spectrum(condition, rho, power)
                largest, smallest = values.real.max(), values.real.min()
                rows.append(
                    [
                        name,
                        f"{rho:g}",
                        f"{power:g}",
                        "0" if abs(largest) < ROUND_OFF else f"{largest:+.3f}",
                        "" if high is None else f"{high:+.3g}",
                        f"{smallest:.1f}",
                        "" if low is None else f"{low:.3g}",
                        f"{np.abs(values.imag).max():.2f}",
                        "stable" if largest < ROUND_OFF else "unstable",
                    ]
                )
    record(
        "plg_stability",
        "Spectrum of the PLG Laplacian on the six-petal star, N = 48, degree 4",
        ["data", "rho", "p", "max Re", "prototype", "min Re", "prototype", "max Im", ""],
        rows,
        "Eigenvalues times h^2; the regular stencil alone reaches -10.67. Prototype: an independent one, of the "
        "same weights but with other lattices, and without refits of equations with a weak diagonal (p = 3). "
        "Neumann data: the largest is the zero of constants. The method's default is rho = 1, p = 3.",
    )


if __name__ == "__main__":
    main()
