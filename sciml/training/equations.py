"""The equations of finished runs: of one, with standard errors or a bootstrap, or of several seeds together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from tqdm import tqdm

from sciml.dynamics import LearnedField, NeuralODE, StencilODE
from sciml.dynamics.identification import Equation, bootstrap
from sciml.dynamics.models import MuField
from sciml.errors import ConfigError, DatasetFormatError
from sciml.files import read_json
from sciml.symbolic import PolynomialMap, differential_form

from .dynamics import EQUATION_FILE, DynamicsConfig, training_states
from .dynamics_data import load_trajectories

__all__ = [
    "Found",
    "bootstrap_equation",
    "fields_of",
    "of_run",
    "read_equation",
    "read_polynomials",
    "spread",
    "tidy",
]


@dataclass(frozen=True, eq=False)
class Found:
    """A polynomial with uncertainties.

    Attributes
    ----------
    polynomial : PolynomialMap
    errors : ndarray, shape (M, o), or None
    origin : str
        What the errors are.
    fields : tuple of str
        Whose rates of change the outputs are.
    """

    polynomial: PolynomialMap
    errors: np.ndarray | None
    origin: str
    fields: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Left-hand sides."""
        return [f"d{name}/dt" for name in self.fields]


def read_equation(run: str | Path) -> Equation | None:
    """Read the equation with chosen terms of a run; None if it has none.

    Raises
    ------
    DatasetFormatError
        If the file is damaged.
    """
    path = Path(run) / EQUATION_FILE
    if not path.exists():
        return None
    try:
        values = read_json(path)
        exponents = np.array(values["exponents"], np.int64).reshape(-1, len(values["variables"]))
        coefficients = np.array(values["coefficients"], float)
        coefficients = coefficients.reshape(len(exponents), len(values["variables"]))
        p = PolynomialMap(exponents, coefficients, tuple(values["variables"]))
        errors = np.array(values["errors"], float).reshape(p.coefficients.shape)
        return Equation(p, errors, np.array(values["residual"]), int(values["window"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetFormatError(f"{str(path)!r} is damaged ({error}): train again") from error


def read_polynomials(
    runs: Sequence[str | Path], network: bool = False, derivatives: int = 0
) -> list[PolynomialMap]:
    """Return the polynomial of each run: of its chosen terms, or, of stencils or if asked, its network's expansion.

    Parameters
    ----------
    runs : sequence of path
    network : bool
        The network's own, all terms.
    derivatives : int
        Of stencils: not 0 returns their differential forms up to so many derivatives.

    Raises
    ------
    ConfigError
        If a run's field is no polynomial, or derivatives are asked of one without a grid.
    DatasetFormatError
        If a run is not one of learned dynamics.
    """
    found = []
    for run in runs:
        model = LearnedField.load(run)
        if isinstance(model, NeuralODE):
            raise ConfigError(f"{str(run)!r} is a neural ODE with tanh: only Mu-layers are polynomials")
        equation = None if network else read_equation(run)
        p = equation.polynomial if equation is not None else cast("MuField", model).polynomial()
        if derivatives:
            if not isinstance(model, StencilODE):
                raise ConfigError(f"derivatives={derivatives}: {str(run)!r} has no grid; leave it out")
            spacing = read_json(Path(run) / "config.json")["data"]["spacing"]
            p = differential_form(p, spacing, derivatives)
        found.append(p)
    return found


def spread(polynomials: Sequence[PolynomialMap], fields: tuple[str, ...]) -> Found:
    """Return the mean of the coefficients of several runs, with their standard deviations.

    Raises
    ------
    ConfigError
        If variables differ.
    """
    first = polynomials[0]
    if any(p.variables != first.variables for p in polynomials):
        raise ConfigError("the runs are of different variables: give runs on one dataset")
    rows = PolynomialMap.merged(
        np.concatenate([p.exponents for p in polynomials]),
        np.concatenate([p.coefficients for p in polynomials]) / len(polynomials),
        first.variables,
    )
    tables = []
    for p in polynomials:
        known = {tuple(row): c for row, c in zip(p.exponents.tolist(), p.coefficients, strict=True)}
        zero = np.zeros(first.coefficients.shape[1])
        tables.append([known.get(tuple(row), zero) for row in rows.exponents.tolist()])
    errors = np.std(tables, axis=0, ddof=1)
    return Found(rows, errors, f"standard deviations over {len(polynomials)} runs", fields)


def bootstrap_equation(
    run: str | Path, data: str | Path, n: int, seed: int = 0, progress: bool = False
) -> Found:
    """Return a run's equation with deviations over fits to n sets of data with new noise.

    Raises
    ------
    ConfigError
        If the run has no equation of chosen terms, or the data are not those it was trained on.
    """
    if n < 2:
        raise ConfigError(f"bootstrap={n}: a deviation needs two fits at least")
    equation = read_equation(run)
    if equation is None:
        raise ConfigError(
            f"{str(run)!r} has no equation of chosen terms to fit again: leave out the bootstrap"
        )
    resolved = read_json(Path(run) / "config.json")
    config = DynamicsConfig.stored(resolved["train"])
    trajectories = load_trajectories(data, config.stride)
    if trajectories.config != resolved["data"]["config"]:
        raise ConfigError(f"{str(data)!r} is not the dataset that {str(run)!r} was trained on")
    states, times = training_states(config, trajectories)
    draws = bootstrap(equation, states, times, n, substeps=config.substeps, seed=seed)
    tables = list(tqdm(draws, total=n, desc="bootstrap", disable=None if progress else True))
    errors = np.std(tables, axis=0, ddof=1)
    origin = f"standard deviations over {n} fits with new noise"
    return Found(equation.polynomial, errors, origin, equation.polynomial.variables)


def fields_of(run: str | Path) -> tuple[str, ...]:
    """Return the names of a run's fields."""
    return LearnedField.load(run).variables


def of_run(run: str | Path, network: bool = False, derivatives: int = 0) -> Found:
    """Return the polynomial of one run, with its standard errors where there are any."""
    (p,) = read_polynomials([run], network, derivatives)
    equation = None if network or derivatives else read_equation(run)
    if equation is None:
        return Found(p, None, "no uncertainties: give several runs", fields_of(run))
    return Found(p, equation.errors, "standard errors of the fit", fields_of(run))


def tidy(found: Found, tolerance: float) -> Found:
    """Leave out terms that are smaller than a part of their output's largest."""
    p = found.polynomial
    largest = abs(p.coefficients).max(axis=0, initial=0.0)
    small = abs(p.coefficients) <= tolerance * largest
    coefficients = np.where(small, 0.0, p.coefficients)
    kept = (coefficients != 0).any(axis=1)
    errors = None if found.errors is None else found.errors[kept]
    polynomial = replace(p, exponents=p.exponents[kept], coefficients=coefficients[kept])
    return replace(found, polynomial=polynomial, errors=errors)
