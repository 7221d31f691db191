"""Problems: what is to be solved, and nothing about how."""

from collections.abc import Callable
from dataclasses import dataclass

from sciml.errors import ConfigError
from sciml.registry import Registry

from .boundary import BoundaryCondition, Dirichlet, Mixed, Neumann, Robin
from .domains import Domain
from .functions import DataFunction, Expression, coordinates, expect
from .operators import DivAGrad, EllipticOperator, Laplacian

__all__ = ["EllipticProblem", "Poisson", "manufactured", "problem_registry", "refuse_misfits"]

problem_registry: Registry[Callable[[Domain], "EllipticProblem"]] = Registry("problem")
"""Named problems: factories that state the problem on a given domain."""


def refuse_misfits(domain: Domain, operator: EllipticOperator, boundary: BoundaryCondition) -> None:
    """Raise a ConfigError if one of the three is of another kind, or the dimensions differ."""
    expect("domain", domain, Domain, "Disk(), for example")
    expect("operator", operator, EllipticOperator, "Laplacian(2), for example")
    expect("boundary", boundary, BoundaryCondition, "Dirichlet(0.0), for example")
    if operator.dim != domain.dim:
        raise ConfigError(f"a {operator.dim}D operator on a {domain.dim}D domain: choose the same dimension")


@dataclass(frozen=True)
class EllipticProblem:
    """L u = f in the domain, with a condition on its boundary.

    Attributes
    ----------
    domain : Domain
    operator : EllipticOperator
        L. The Poisson problem is *Laplace u = f*, without a minus sign.
    source : float or callable
        f(x, y).
    boundary : BoundaryCondition
    exact : callable, optional
        The exact solution u(x, y), where it is known; solutions then report their errors.
    name : str
    """

    domain: Domain
    operator: EllipticOperator
    source: DataFunction
    boundary: BoundaryCondition
    exact: Callable | None = None
    name: str = "elliptic"

    def __post_init__(self) -> None:
        refuse_misfits(self.domain, self.operator, self.boundary)

    @property
    def determined_up_to_constants(self) -> bool:
        """Whether u + constant solves the problem too: pure Neumann data, no zeroth-order term."""
        return self.boundary.annihilates_constants and self.operator.annihilates_constants


def Poisson(
    domain: Domain,
    source: DataFunction,
    boundary: BoundaryCondition | None = None,
    exact: Callable | None = None,
) -> EllipticProblem:
    """State Laplace u = f, with u = 0 on the boundary by default.

    Examples
    --------
    >>> from sciml.solvers import CartesianGrid, Disk, solve
    >>> torsion = Poisson(Disk(0.4), source=-1.0, exact=lambda x, y: (0.16 - x**2 - y**2) / 4)
    >>> bool(solve(torsion, CartesianGrid.uniform(20)).errors()["linf"] < 1e-14)
    True
    """
    expect("domain", domain, Domain, "Disk(), for example")
    condition = Dirichlet() if boundary is None else boundary
    return EllipticProblem(domain, Laplacian(domain.dim), source, condition, exact, "poisson")


def manufactured(
    expression: object,
    domain: Domain,
    operator: EllipticOperator | None = None,
    name: str = "manufactured",
    boundary: BoundaryCondition | None = None,
) -> EllipticProblem:
    """Build the problem whose exact solution is a given expression.

    Parameters
    ----------
    expression : str or sympy.Expr
        u in the symbols x, y (and z).
    domain : Domain
    operator : EllipticOperator, optional
        The Laplacian by default.
    name : str
    boundary : BoundaryCondition, optional
        Kind of condition, `Dirichlet` by default; its data are replaced by those of u.

    Returns
    -------
    EllipticProblem
        With source L u, the boundary data of u and the exact solution.

    Raises
    ------
    ConfigError
        If the expression contains other symbols.

    Examples
    --------
    >>> from sciml.solvers import Disk
    >>> manufactured("x**2 + y**2", Disk()).source
    Expression(4)
    """
    operator = operator or Laplacian(domain.dim)
    symbols = coordinates(domain.dim)
    exact = Expression(expression, symbols)
    source = Expression(operator.apply_to(exact.expression, symbols), symbols)
    condition = (boundary or Dirichlet()).of_exact(exact, domain.dim)
    return EllipticProblem(domain, operator, source, condition, exact, name)


SMOOTH = {2: "exp(x)*sin(2*y) + sin(3*x*y + 0.3)", 3: "exp(x)*sin(2*y)*cos(z) + sin(3*x*y + 0.3 + z)"}
"""Exact solutions of the catalogue, by dimension."""


def _smooth(
    domain: Domain,
    name: str,
    operator: EllipticOperator | None = None,
    boundary: BoundaryCondition | None = None,
) -> EllipticProblem:
    return manufactured(SMOOTH[domain.dim], domain, operator, name, boundary)


@problem_registry.register("poisson")
def smooth_poisson(domain: Domain) -> EllipticProblem:
    """Laplace u = f with a smooth exact solution, in 2D exp(x) sin 2y + sin(3xy + 0.3)."""
    return _smooth(domain, "poisson")


@problem_registry.register("poisson-neumann")
def neumann_poisson(domain: Domain) -> EllipticProblem:
    """Laplace u = f with n . grad u = g, solved for mean zero; the solution of ``poisson``."""
    return _smooth(domain, "poisson-neumann", boundary=Neumann())


@problem_registry.register("poisson-robin")
def robin_poisson(domain: Domain) -> EllipticProblem:
    """Laplace u = f with u + n . grad u = g; the solution of ``poisson``."""
    return _smooth(domain, "poisson-robin", boundary=Robin(1.0))


def _right_half(x, *others):  # type: ignore[no-untyped-def]
    return x > 0


@problem_registry.register("poisson-mixed")
def mixed_poisson(domain: Domain) -> EllipticProblem:
    """Laplace u = f with Neumann data where x > 0, Dirichlet data elsewhere."""
    return _smooth(domain, "poisson-mixed", boundary=Mixed(((_right_half, Neumann()),)))


@problem_registry.register("anisotropic")
def anisotropic(domain: Domain) -> EllipticProblem:
    """u_xx + u_xy + 2 u_yy (+ u_zz) = f: a cross derivative; the solution of ``poisson``."""
    second = ((1.0, 0.5, 0.0), (0.5, 2.0, 0.0), (0.0, 0.0, 1.0))
    operator = EllipticOperator(tuple(row[: domain.dim] for row in second[: domain.dim]))
    return _smooth(domain, "anisotropic", operator)


@problem_registry.register("diffusion")
def diffusion(domain: Domain) -> EllipticProblem:
    """div(a grad u) = f with a = 1 + xy + x^2; the solution of ``poisson``."""
    return _smooth(domain, "diffusion", DivAGrad("1 + x*y + x**2", domain.dim))


@problem_registry.register("advection-diffusion")
def advection_diffusion(domain: Domain) -> EllipticProblem:
    """Laplace u / 10 + y u_x - x u_y - u = f: diffusion, rotation and decay."""
    dim = domain.dim
    second = tuple(tuple(0.1 * (i == j) for j in range(dim)) for i in range(dim))
    operator = EllipticOperator(second, first=("y", "-x", 0.0)[:dim], zeroth=-1.0)
    return _smooth(domain, "advection-diffusion", operator)


@problem_registry.register("johansen-colella")
def johansen_colella(domain: Domain) -> EllipticProblem:
    """Laplace u = 7 r^2 cos 3t with exact solution r^4 cos 3t (J. Comput. Phys. 147, 1998, problem 1).

    The solution is not smooth at r = 0; a fourth-order stencil loses two orders there.
    """

    if domain.dim != 2:
        raise ConfigError(f"johansen-colella on a {domain.dim}D domain: choose a plane domain")

    # r^4 cos 3t = r Re (x + iy)^3 and r^2 cos 3t = Re (x + iy)^3 / r; no division at the origin.
    def exact(x, y):  # type: ignore[no-untyped-def]
        return (x**2 + y**2) ** 0.5 * (x**3 - 3 * x * y**2)

    def source(x, y):  # type: ignore[no-untyped-def]
        r = (x**2 + y**2) ** 0.5
        return 7 * (x**3 - 3 * x * y**2) / (r + (r == 0))

    return EllipticProblem(domain, Laplacian(2), source, Dirichlet(exact), exact, "johansen-colella")
