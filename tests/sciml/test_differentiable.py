"""The differentiable solve: gradients of both orders, agreement with `solve`, batches, an inverse problem."""

import numpy as np
import pytest
import torch

from sciml.errors import ConfigError
from sciml.operators import DifferentiableSolve
from sciml.solvers import (
    Ball,
    BoundaryCondition,
    CartesianGrid,
    Dirichlet,
    Disk,
    DivAGrad,
    EllipticOperator,
    EllipticProblem,
    Mixed,
    Neumann,
    Poisson,
    Robin,
    Star,
    manufactured,
    solve,
)

TINY = CartesianGrid.uniform(12)
FLOW = EllipticOperator(((0.5, 0.1), (0.1, 0.5)), ("y", "-x"), -1.0)
CONDITIONS = [Dirichlet(), Robin(1.0), Mixed(((lambda x, y: x > 0, Neumann()),))]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("solver", ["direct", "krylov"])
def test_gradients_of_both_orders(condition: BoundaryCondition, solver: str) -> None:
    problem = EllipticProblem(Disk(0.4), FLOW, 0.0, condition)
    layer = DifferentiableSolve(problem, TINY, solver=solver)  # type: ignore[arg-type]
    f = random(2, len(layer.nodes)).requires_grad_()
    g = random(len(layer.boundary_points)).requires_grad_()

    def nonlinear(f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        return layer(f, g) ** 2

    assert torch.autograd.gradcheck(layer, (f, g), fast_mode=True)
    assert torch.autograd.gradgradcheck(nonlinear, (f, g), fast_mode=True)


def test_full_jacobians_are_the_inverse_and_the_boundary_map() -> None:
    layer = DifferentiableSolve(Poisson(Disk(0.4), 0.0), CartesianGrid.uniform(8))
    f, g = random(len(layer.nodes)).requires_grad_(), random(len(layer.boundary_points)).requires_grad_()
    assert torch.autograd.gradcheck(layer, (f, g))
    by_source, by_data = torch.autograd.functional.jacobian(layer, (f, g))
    assert torch.allclose(by_source @ f + by_data @ g, layer(f, g), atol=1e-13)
    # u = 1 for f = 0, g = 1.
    assert torch.allclose(by_data.sum(dim=1), torch.ones(len(f), dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("solver", ["direct", "krylov"])
@pytest.mark.parametrize("condition", [Dirichlet(), Robin(1.0)])
def test_agrees_with_solve(solver: str, condition: BoundaryCondition) -> None:
    problem = manufactured("exp(x)*sin(2*y)", Star(), DivAGrad("1 + x*y + x**2"), boundary=condition)
    grid = CartesianGrid.uniform(40)
    layer = DifferentiableSolve(problem, grid, solver=solver)  # type: ignore[arg-type]
    solution = solve(problem, grid)
    x, y = layer.nodes.T.numpy()
    f = torch.tensor(problem.source(x, y))  # type: ignore[operator]
    nearest = problem.domain.closest_point(layer.boundary_points.numpy())
    g = torch.tensor(problem.boundary.data(nearest))
    assert np.allclose(layer(f, g), solution.values[solution.mask], rtol=0, atol=1e-10)
    assert np.array_equal(layer.nodes, grid.nodes()[solution.mask])
    assert np.allclose(problem.domain.phi(layer.boundary_points.numpy()), 0, atol=1e-9)


def test_adjoint_identity_in_a_ball() -> None:
    grid = CartesianGrid.uniform(16, (-0.5,) * 3, (0.5,) * 3)
    layer = DifferentiableSolve(Poisson(Ball(0.4), 0.0), grid, solver="krylov")
    f, w = random(2, len(layer.nodes))
    f.requires_grad_()
    product = layer(f) @ w
    (gradient,) = torch.autograd.grad(product, f)
    assert torch.allclose(gradient @ f, product, rtol=1e-10, atol=0)


@pytest.mark.parametrize("solver", ["direct", "krylov"])
def test_a_batch_is_a_loop(solver: str) -> None:
    layer = DifferentiableSolve(Poisson(Disk(0.4), 0.0), TINY, solver=solver)  # type: ignore[arg-type]
    f, g = random(3, 2, len(layer.nodes)), random(2, len(layer.boundary_points))
    u = layer(f, g)
    assert u.shape == f.shape
    for i in range(3):
        for j in range(2):
            assert torch.allclose(u[i, j], layer(f[i, j], g[j]), rtol=0, atol=1e-12)
    assert torch.allclose(layer(f) + layer(boundary_data=g), u, atol=1e-12)
    assert torch.equal(layer(), torch.zeros(len(layer.nodes), dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_in_double_out(dtype: torch.dtype) -> None:
    layer = DifferentiableSolve(Poisson(Disk(0.4), 0.0), TINY)
    f = torch.ones(len(layer.nodes), dtype=dtype, requires_grad=True)
    u = layer(f)
    assert u.dtype == torch.float64
    u.sum().backward()
    assert f.grad is not None
    assert f.grad.dtype == dtype


def test_inverse_problem_finds_a_source() -> None:
    layer = DifferentiableSolve(Poisson(Disk(0.4), 0.0), CartesianGrid.uniform(24))

    def source(p: torch.Tensor) -> torch.Tensor:
        return p[2] * torch.exp(-20 * ((layer.nodes - p[:2]) ** 2).sum(dim=1))

    wanted = torch.tensor([0.12, -0.05, 3.0], dtype=torch.float64)
    measured = layer(source(wanted))
    p = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [p], max_iter=60, tolerance_grad=1e-14, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = 1e4 * ((layer(source(p)) - measured) ** 2).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(p.detach(), wanted, rtol=1e-6)


def test_refusals_name_the_argument() -> None:
    disk = Disk(0.4)
    with pytest.raises(ConfigError, match="pure Neumann"):
        DifferentiableSolve(Poisson(disk, 0.0, Neumann()), TINY)
    with pytest.raises(ConfigError, match="solver='lu'"):
        DifferentiableSolve(Poisson(disk, 0.0), TINY, solver="lu")  # type: ignore[arg-type]
    layer = DifferentiableSolve(Poisson(disk, 0.0), TINY)
    size = len(layer.nodes)
    with pytest.raises(
        ConfigError, match=rf"source of shape \({size}, 1\): its last axis must have length {size}"
    ):
        layer(torch.zeros(size, 1))
    with pytest.raises(ConfigError, match=r"boundary_data of shape \(\)"):
        layer(boundary_data=torch.tensor(1.0))
    with pytest.raises(ConfigError, match=f"source has {size} values that are not finite"):
        layer(torch.full((size,), torch.nan))
