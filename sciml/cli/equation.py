"""``sciml equation``: what a run of learned dynamics found, as formulas."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sciml.errors import ConfigError

from .parsing import parse

__all__ = ["run"]

EXAMPLE = """sciml equation runs/lv
  sciml equation runs/lv-0 runs/lv-1 runs/lv-2
  sciml equation runs/lv --data lv.h5 --bootstrap 100"""


@dataclass(frozen=True)
class EquationArguments:
    """Which equation, and how."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUNS")]
    """Run folders of 'sciml train dynamics'. Of several, such as those of different seeds, mean and deviation."""
    network: bool = False
    """The polynomial that the network is, with all its terms, not that of chosen and fitted terms."""
    derivatives: int = 0
    """Of stencils: the differential equation that they stand for, up to so many derivatives."""
    data: str = ""
    """The dataset of the run, for a bootstrap."""
    bootstrap: int = 0
    """Fit again to so many sets of data with new noise, and print the deviations."""
    seed: int = 0
    """Of their noise."""
    digits: int = 6
    """Significant digits of coefficients without uncertainties."""
    tolerance: float = 0.0
    """Leave out terms below this part of the largest one of an equation."""
    latex: bool = False
    """Print LaTeX."""
    quiet: bool = False
    """No progress bar."""


def run(arguments: list[str], plugins: list[str]) -> None:
    """Print the equations."""
    description = "Print the equation that 'sciml train dynamics' learned."
    options = parse(EquationArguments, "sciml equation", arguments, description, EXAMPLE)
    if not options.runs:
        raise ConfigError("name a run: sciml equation RUN [RUN ...]")
    if bool(options.data) != bool(options.bootstrap):
        raise ConfigError("--data and --bootstrap go together: give both, or neither")
    if options.bootstrap and (len(options.runs) > 1 or options.network or options.derivatives):
        raise ConfigError(
            "--bootstrap is of the fitted terms of one run: leave out the other runs and options"
        )
    for name, least in (("derivatives", 0), ("bootstrap", 0), ("seed", 0), ("digits", 1), ("tolerance", 0)):
        if not getattr(options, name) >= least:
            raise ConfigError(f"{name}={getattr(options, name)}: it must be at least {least}")

    from sciml.training.equations import (
        bootstrap_equation,
        fields_of,
        of_run,
        read_polynomials,
        spread,
        tidy,
    )

    for folder in options.runs:
        if not (Path(folder) / "config.json").is_file():
            raise ConfigError(f"{folder!r} is not a run folder: make one with 'sciml train dynamics'")
    if options.bootstrap:
        found = bootstrap_equation(
            options.runs[0], options.data, options.bootstrap, options.seed, not options.quiet
        )
    elif len(options.runs) > 1:
        polynomials = read_polynomials(options.runs, options.network, options.derivatives)
        found = spread(polynomials, fields_of(options.runs[0]))
    else:
        found = of_run(options.runs[0], options.network, options.derivatives)
    found = tidy(found, options.tolerance)
    if options.latex:
        print(found.polynomial.latex([rf"\frac{{d {name}}}{{d t}}" for name in found.fields], options.digits))
        return
    print(found.polynomial.text(found.names, options.digits, found.errors))
    print(f"({found.origin})")
