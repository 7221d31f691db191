"""GELU and its derivative compiled by numba (extra `fast`), for one-dimensional float32 arrays.

    gelu(x) = x Phi(x),      gelu'(x) = Phi(x) + x phi(x),

phi and Phi the normal distribution's density and its integral. Phi - 1/2 and gelu' - 1/2 are odd functions that end
at 1/2: each is x P(x^2) / Q(x^2) up to where float32 cannot tell it from its limit. The coefficients are best
approximations in the maximum norm, of errors 2.4e-8 and 1.2e-7, from linear least squares with weights that are
corrected again and again (Lawson). One division and a dozen fused products and sums are a fraction of what an error
function and an exponential cost.
"""

import functools
import hashlib
from pathlib import Path

import numpy as np

from sciml.solvers.compiled.lanes import compiled

__all__ = ["DIGEST", "gelu_backward", "gelu_forward", "gelu_in_place", "gelu_of"]

DIGEST = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
"""Of what is in this file, for caches of kernels that it is a part of."""

ZERO, HALF, ONE = (np.float32(value) for value in (0.0, 0.5, 1.0))
# Phi - 1/2 up to x = 5.6; at 5.7 three units in the last place above 1/2.
P_END = np.float32(5.7)
P0, P1, P2, P3, P4, P5, P6 = np.array(
    [
        *(0.3989421259350831, 0.03711495476670917, 0.0045877163525671946, 0.0001824931570060193),
        *(3.361877499850545e-06, -2.1997368565222432e-08, 1.0802068881813966e-10),
    ],
    np.float32,
)
Q1, Q2, Q3, Q4 = np.array(
    [0.25969751542645736, 0.02978741812294068, 0.0019016226631832767, 6.625647249182758e-05], np.float32
)
# gelu' - 1/2 up to x = 6.
D_END = np.float32(6.0)
D0, D1, D2, D3, D4, D5, D6 = np.array(
    [
        *(0.797885423186699, -0.030770898956734308, 0.014239990081165917, 2.1884844868485518e-05),
        *(3.629691970155689e-05, 2.0216152551809496e-07, -3.3960861184580854e-11),
    ],
    np.float32,
)
E1, E2, E3, E4, E5 = np.array(
    [
        *(0.2947765870223062, 0.04108518009618513, 0.0035415482788398065),
        *(0.00019333700589180988, 9.138138407482964e-06),
    ],
    np.float32,
)

# Products and sums may be fused; where the quotient is taken, nothing is divided by zero.
elementwise = functools.partial(compiled, fastmath={"contract"}, error_model="numpy")


@elementwise
def gelu_of(x: np.float32) -> np.float32:
    """Return gelu(x)."""
    # Where Phi - 1/2 would end, x P / Q goes on beyond 1/2, which the last line cuts.
    s = min(x * x, P_END * P_END)
    p = (((((P6 * s + P5) * s + P4) * s + P3) * s + P2) * s + P1) * s + P0
    q = (((Q4 * s + Q3) * s + Q2) * s + Q1) * s + ONE
    return x * min(max(HALF + x * p / q, ZERO), ONE)


@elementwise
def _derivative(x: np.float32) -> np.float32:
    # What is not a number stays so.
    c = D_END if x > D_END else x
    c = -D_END if c < -D_END else c
    s = c * c
    p = (((((D6 * s + D5) * s + D4) * s + D3) * s + D2) * s + D1) * s + D0
    q = ((((E5 * s + E4) * s + E3) * s + E2) * s + E1) * s + ONE
    return HALF + c * p / q


@elementwise
def gelu_forward(x: np.ndarray, y: np.ndarray) -> None:
    """Write gelu(x) to y, other memory."""
    for i in range(x.size):
        y[i] = gelu_of(x[i])


@elementwise
def gelu_in_place(x: np.ndarray) -> None:
    """Write gelu(x) to x."""
    for i in range(x.size):
        x[i] = gelu_of(x[i])


@elementwise
def gelu_backward(x: np.ndarray, gradient: np.ndarray) -> None:
    """Multiply the gradient by gelu'(x)."""
    for i in range(x.size):
        gradient[i] *= _derivative(x[i])
