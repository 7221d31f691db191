"""Problems that evolve in time: parabolic equations with advection and reaction, and wave equations."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sciml.errors import ConfigError

from .boundary import BoundaryCondition, Dirichlet
from .domains import Domain
from .functions import DataFunction, Expression, at_time, coordinates, expect
from .nonlinear import Reaction
from .operators import Coefficient, DifferentialOperator, EllipticOperator, Laplacian
from .problems import EllipticProblem, refuse_misfits

__all__ = ["ParabolicProblem", "WaveProblem", "manufactured_evolution"]


@dataclass(frozen=True)
class _Frame(EllipticProblem):
    """The problem that a state refers to: the initial data determine it whatever the boundary."""

    @property
    def determined_up_to_constants(self) -> bool:
        return False


@dataclass(frozen=True)
class _EvolutionProblem:
    domain: Domain
    operator: EllipticOperator
    boundary: BoundaryCondition
    initial: DataFunction | np.ndarray
    source: DataFunction = 0.0
    exact: Callable | None = None
    name: str = "evolution"

    def __post_init__(self) -> None:
        refuse_misfits(self.domain, self.operator, self.boundary)

    def at(self, time: float) -> EllipticProblem:
        """Return domain, operator, data and exact solution at one time, as of an elliptic problem."""
        dim = self.domain.dim
        source, exact = (at_time(function, time, dim) for function in (self.source, self.exact))
        boundary = self.boundary.at(time, dim)
        return _Frame(self.domain, self.operator, source, boundary, exact, self.name)


@dataclass(frozen=True)
class ParabolicProblem(_EvolutionProblem):
    """u_t + v . grad u = L u + r(u) + f, with a condition B u = g on the boundary.

    Attributes
    ----------
    domain : Domain
    operator : EllipticOperator
        L, constant in time.
    boundary : BoundaryCondition
        Its data are functions ``g(x, y, t)``, or ``g(x, y)`` if they do not change.
    initial : float, callable or ndarray
        u(x, y) at the first time, or values on the grid: ``values[k]`` of an `Evolution` to go on from.
    source : float or callable
        f(x, y, t) or f(x, y).
    exact : callable, optional
        u(x, y, t), where it is known.
    name : str
    velocity : tuple, length D, optional
        v, constant in time: numbers, functions of position or text.
    reaction : Reaction, optional
        r.

    Examples
    --------
    >>> from sciml.solvers import Disk
    >>> cooling = ParabolicProblem(Disk(), Laplacian(2), Dirichlet(lambda x, y, t: t * x), initial=1.0)
    >>> cooling.at(2.0).boundary.value(0.5, 0.0)
    array(1.)
    """

    velocity: tuple[Coefficient, ...] = ()
    reaction: Reaction | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        expect("velocity", self.velocity, tuple, "one coefficient for every axis, constant in time")
        if self.reaction is not None:
            expect("reaction", self.reaction, Reaction, 'Reaction("u - u**3"), for example')
        if len(self.velocity) not in (0, self.domain.dim):
            raise ConfigError(f"velocity={self.velocity}: give {self.domain.dim} components")

    @property
    def advection(self) -> DifferentialOperator | None:
        """v . grad, if there is a velocity."""
        dim = self.domain.dim
        moving = any(callable(v) or isinstance(v, str) or v != 0 for v in self.velocity)
        return DifferentialOperator(((0.0,) * dim,) * dim, self.velocity) if moving else None


@dataclass(frozen=True)
class WaveProblem(_EvolutionProblem):
    """u_tt = L u + f, with a condition B u = g on the boundary.

    Attributes
    ----------
    domain, operator, boundary, initial, source, exact, name
        As for `ParabolicProblem`.
    initial_velocity : float or callable
        u_t(x, y) at the first time.

    Examples
    --------
    >>> from sciml.solvers import Disk
    >>> WaveProblem(Disk(), Laplacian(2), Dirichlet(), initial=lambda x, y: x, initial_velocity=0.0).name
    'evolution'
    """

    initial_velocity: DataFunction = 0.0


def manufactured_evolution(
    expression: object,
    domain: Domain,
    operator: EllipticOperator | None = None,
    velocity: tuple[Coefficient, ...] = (),
    reaction: Reaction | None = None,
    boundary: BoundaryCondition | None = None,
    wave: bool = False,
    start: float = 0.0,
    name: str = "manufactured",
) -> ParabolicProblem | WaveProblem:
    """Build the problem whose exact solution is a given expression of position and time.

    Parameters
    ----------
    expression : str or sympy.Expr
        u in the symbols x, y (z) and t.
    domain : Domain
    operator : EllipticOperator, optional
        L, the Laplacian by default.
    velocity, reaction
        As for `ParabolicProblem`; the reaction given as text.
    boundary : BoundaryCondition, optional
        Kind of condition, `Dirichlet` by default; its data are replaced by those of u.
    wave : bool
        Build a `WaveProblem`.
    start : float
        Time of the initial data.
    name : str

    Raises
    ------
    ConfigError
        If the expression contains other symbols, or a wave equation is asked to flow or to react.

    Examples
    --------
    >>> from sciml.solvers import Disk
    >>> manufactured_evolution("exp(-t)*x", Disk()).source
    Expression(-x*exp(-t))
    """
    import sympy

    dim = domain.dim
    space, t = coordinates(dim), sympy.Symbol("t", real=True)
    operator = operator or Laplacian(dim)
    exact = Expression(expression, (*space, t))
    u = exact.expression
    condition = (boundary or Dirichlet()).of_exact(exact, dim)

    def initially(value: object) -> Expression:
        return Expression(sympy.sympify(value).subs(t, start), space)

    residual = sympy.diff(u, t, 2 if wave else 1) - operator.apply_to(u, space)
    if wave:
        if velocity or reaction:
            raise ConfigError("wave=True: a wave equation takes no velocity and no reaction")
        return WaveProblem(
            domain,
            operator,
            condition,
            initially(u),
            Expression(residual, (*space, t)),
            exact,
            name,
            initially(sympy.diff(u, t)),
        )
    if velocity:
        flow = DifferentialOperator(((0.0,) * dim,) * dim, velocity)
        residual += flow.apply_to(u, space)
    if reaction:
        if not isinstance(reaction.function, Expression):
            raise ConfigError(f"reaction {reaction.function!r} has no expression: give it as text in u")
        residual -= reaction.function.expression.subs(reaction.function.symbols[0], u)
    source = Expression(residual, (*space, t))
    return ParabolicProblem(
        domain, operator, condition, initially(u), source, exact, name, velocity, reaction
    )
