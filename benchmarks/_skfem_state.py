"""The triangle environment's state built on scikit-fem's own calls, as one would write it without this suite."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import skfem
from scipy.spatial import cKDTree
from skfem.helpers import dot, grad

from sciml.envs.environments import TriangleEnv
from sciml.envs.families import Sample
from sciml.envs.triangles import TriangleState
from sciml.solvers.fem import FEMProblem, to_skfem

__all__ = ["SkfemEnv"]


@skfem.BilinearForm
def laplace(u, v, w):
    return dot(grad(u), grad(v))


@dataclass(frozen=True, eq=False)
class SkfemState(TriangleState):
    """Mesh, assembly, solve and jumps by scikit-fem; red-green-blue refinement."""

    problem: FEMProblem
    mesh: skfem.MeshTri
    level_cap: int = 20
    depth: np.ndarray | None = None

    def __len__(self) -> int:
        return self.mesh.nelements

    @cached_property
    def basis(self) -> skfem.Basis:
        return skfem.Basis(self.mesh, skfem.ElementTriP1(), intorder=4)

    @property
    def unknowns(self) -> int:
        return self.mesh.nvertices

    @cached_property
    def levels(self) -> np.ndarray:
        corners = self.mesh.p[:, self.mesh.t]
        (ax, ay), (bx, by) = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        areas = 0.5 * np.abs(ax * by - ay * bx)
        return np.rint(np.log2(1 / 32 / areas)).astype(int)

    def refined(self, cells: np.ndarray) -> "SkfemState":
        return SkfemState(self.problem, self.mesh.refined(np.asarray(cells)), self.level_cap)

    @cached_property
    def siblings(self) -> np.ndarray:
        return np.full(self.mesh.nelements, -1)

    @cached_property
    def u(self) -> np.ndarray:
        @skfem.LinearForm
        def load(v, w):
            return self.problem.source(w.x[0].ravel(), w.x[1].ravel()).reshape(w.x[0].shape) * v

        boundary = self.mesh.boundary_nodes()
        u = np.zeros(self.mesh.nvertices)
        u[boundary] = self.problem.dirichlet(*self.mesh.p[:, boundary])
        system = skfem.condense(laplace.assemble(self.basis), load.assemble(self.basis), x=u, D=boundary)
        return skfem.solve(*system)

    @cached_property
    def pairs(self) -> np.ndarray:
        owners = self.mesh.f2t.T
        return owners[owners[:, 1] >= 0]

    @cached_property
    def nonconformity(self) -> np.ndarray:
        facets = [skfem.InteriorFacetBasis(self.mesh, skfem.ElementTriP1(), side=side) for side in (0, 1)]
        w = {f"u{side + 1}": facet.interpolate(self.u) for side, facet in enumerate(facets)}

        @skfem.Functional
        def jump(w):
            n = w.n
            (ax, ay), (bx, by) = grad(w["u1"]), grad(w["u2"])
            return np.abs((ax - bx) * n[0] + (ay - by) * n[1])

        found = jump.elemental(facets[0], **w)
        lengths = np.linalg.norm(np.diff(self.mesh.p[:, self.mesh.facets], axis=1)[:, 0], axis=0)
        total = np.zeros(self.mesh.nfacets)
        total[facets[0].find] = found
        return total[self.mesh.t2f].sum(axis=0) / lengths[self.mesh.t2f].sum(axis=0)

    @cached_property
    def deviation(self) -> float:
        @skfem.Functional
        def moments(w):
            return w["u"] ** 2

        @skfem.Functional
        def mean(w):
            return w["u"]

        u = self.basis.interpolate(self.u)
        return float(
            np.sqrt(max(moments.assemble(self.basis, u=u) - mean.assemble(self.basis, u=u) ** 2, 0.0))
        )

    @property
    def centres(self) -> np.ndarray:
        return self.mesh.p[:, self.mesh.t].mean(axis=1).T

    def distance(self, other: "SkfemState") -> float:
        # Old vertices keep their numbers; each new one is the midpoint of an edge of the old mesh.
        count, facets = other.mesh.nvertices, other.mesh.facets
        middles = other.mesh.p[:, facets].mean(axis=1).T
        _, edge = cKDTree(middles).query(self.mesh.p[:, count:].T)
        old = np.concatenate([other.u, other.u[facets[:, edge]].mean(axis=0)])

        @skfem.Functional
        def change(w):
            return np.abs(w["u"])

        return float(change.assemble(self.basis, u=self.basis.interpolate(self.u - old)))


class SkfemEnv(TriangleEnv):
    """`sciml/AMRTriPoisson-v0` on these states."""

    def first_state(self, sample: Sample) -> SkfemState:
        return SkfemState(sample.problem, to_skfem(sample.mesh), self.level_cap)
