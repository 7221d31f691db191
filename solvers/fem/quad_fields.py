"""Velocities or displacements with a pressure, on quadrilaterals."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .quads import QuadMesh, bilinear, biquadratic, square_rule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MixedSolution"]


@dataclass(frozen=True, eq=False)
class MixedSolution:
    """What `solve_mixed` found.

    Attributes
    ----------
    mesh : QuadMesh
    problem : MixedProblem
    u : ndarray, shape (N, 2)
        At the nodes.
    p : ndarray, shape (V,)
        At the vertices.
    info : dict
        How it was found.
    """

    mesh: QuadMesh
    problem: Any
    u: np.ndarray
    p: np.ndarray
    info: dict[str, Any]

    def at(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate at points of the map's unit square.

        Parameters
        ----------
        parameters : ndarray, shape (P, 2)

        Returns
        -------
        x, u : ndarray, shape (P, 2)
            Positions and values.
        slopes : ndarray, shape (P, 2, 2)
            du_i / dx_j at [i, j].
        p : ndarray, shape (P,)

        Raises
        ------
        ConfigError
            If a point is outside.
        """
        chosen, local = self.mesh.locate(parameters)
        values, corners = biquadratic(local)[0][:, None], bilinear(local)
        of_u = self.u[self.mesh.elements[chosen]]
        x = (values @ self.mesh.nodes[self.mesh.elements[chosen]])[:, 0]
        slopes = np.swapaxes(of_u, 1, 2) @ self.mesh.gradients_at(chosen, local)
        return x, (values @ of_u)[:, 0], slopes, (corners * self.p[self.mesh.vertices[chosen]]).sum(axis=1)

    def integral(self, function: Callable[..., np.ndarray]) -> float:
        """Integrate a function of x, u, grad u and p over the domain.

        Parameters
        ----------
        function : callable
            Of arrays of shapes (E, Q, 2), (E, Q, 2), (E, Q, 2, 2) and (E, Q), to (E, Q).
        """
        mesh = self.mesh
        of_u = self.u[mesh.elements]
        slopes = np.swapaxes(of_u, 1, 2)[:, None] @ mesh.gradients
        local = square_rule()[0]
        p = self.p[mesh.vertices] @ bilinear(local).T
        return float((mesh.weights * function(mesh.points, biquadratic(local)[0] @ of_u, slopes, p)).sum())

    def errors(self, exact: Callable, slopes: Callable, pressure: Callable) -> dict[str, float]:
        """Compare with the exact solution.

        Parameters
        ----------
        exact : callable
            (u_1, u_2) of (x, y).
        slopes : callable
            ((du_1 / dx, du_1 / dy), (du_2 / dx, du_2 / dy)).
        pressure : callable

        Returns
        -------
        dict
            "u", "slopes" and "p", in L2; the last without the mean, where u is given on the whole boundary.
        """

        def stacked(values: Any, like: np.ndarray) -> np.ndarray:
            if isinstance(values, tuple | list):
                return np.stack([stacked(part, like) for part in values], axis=-1)
            return np.broadcast_to(values, like.shape)

        def square(wanted: Callable, which: int) -> float:
            def difference(x: np.ndarray, *found: np.ndarray) -> np.ndarray:
                values = stacked(wanted(x[..., 0], x[..., 1]), x[..., 0])
                if which == 1:
                    values = np.swapaxes(values, -1, -2)
                return ((values - found[which]) ** 2).reshape(*x.shape[:2], -1).sum(axis=-1)

            return self.integral(difference)

        area = float(self.mesh.weights.sum())
        mean = 0.0
        if self.problem.natural is None:
            mean = self.integral(lambda x, u, du, p: pressure(x[..., 0], x[..., 1]) - p) / area
        return {
            "u": square(exact, 0) ** 0.5,
            "slopes": square(slopes, 1) ** 0.5,
            "p": max(0.0, square(pressure, 2) - mean**2 * area) ** 0.5,
        }

    def plot(self, ax: "Axes | None" = None, values: np.ndarray | None = None, **kwargs: Any) -> "Axes":
        """Draw values at the nodes, by default the length of u.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Made if not given.
        values : ndarray, shape (N,), optional
        **kwargs
            Passed on to ``tripcolor``.
        """
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=(5, 4), layout="constrained")[1] if ax is None else ax
        values = np.linalg.norm(self.u, axis=1) if values is None else values
        # Four squares of an element, two triangles each.
        corners = np.array(
            [(3 * i + j, 3 * i + j + 3, 3 * i + j + 4, 3 * i + j + 1) for i in (0, 1) for j in (0, 1)]
        )
        triangles = corners[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
        options: dict[str, Any] = {"shading": "gouraud", "cmap": "viridis", **kwargs}
        x, y = self.mesh.nodes.T
        every = self.mesh.elements[:, triangles].reshape(-1, 3)
        image = ax.tripcolor(x, y, every, values, **options)  # type: ignore[call-overload]
        ax.figure.colorbar(image, ax=ax, shrink=0.85)
        ax.set(aspect="equal", xlabel="x", ylabel="y")
        return ax
