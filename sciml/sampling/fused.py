"""What samplers do beside models and targets, in one pass over memory, compiled by numba (extra `fast`).

Blocks of the state are taken through all that a step does while they are in the processor's first cache. Without it
each product and sum is a pass of its own, and passes are nearly all that a step costs.
"""

import math

from sciml.solvers.compiled.lanes import compiled

__all__ = ["advance", "decide"]

BLOCK = 2048
"""Numbers at once: five rows of float32 fill a first cache of 40 kB."""


@compiled
def advance(numbers, output, x, base, rows, newest, keep, z, new, start, stop):  # type: ignore[no-untyped-def]
    """Convert an output, write the next state, and return whether that is finite.

    ``numbers`` are ratio, scale, noise and weights; m = output + ratio x goes to ``rows[newest]`` if it is to be kept
    and is the output itself if not, older ones are in the rows before, in turn. Then

        new = scale base + sum_j weights_j m_j + noise z,

    and ``new`` is other memory than all of them, but x if the output is kept. Arrays but ``numbers`` and ``rows`` have
    one axis, of which the part from ``start`` to ``stop`` is taken.
    """
    ratio, scale, noise = numbers[0], numbers[1], numbers[2]
    bad = False
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        m = output[first:last]
        if keep:
            given, at = m, x[first:last]
            m = rows[newest, first:last]
            for i in range(m.size):
                m[i] = given[i] + ratio * at[i]
        old, target = base[first:last], new[first:last]
        weight = numbers[3]
        for i in range(target.size):
            target[i] = scale * old[i] + weight * m[i]
        for j in range(1, numbers.size - 3):
            weight = numbers[3 + j]
            if weight:
                m = rows[newest - j, first:last]
                for i in range(target.size):
                    target[i] += weight * m[i]
        if noise:
            m = z[first:last]
            for i in range(target.size):
                target[i] += noise * m[i]
        for i in range(target.size):
            none = target[i] - target[i]
            bad |= none != none
    return not bad


@compiled
def decide(x, z, gain, back, variance, accept):  # type: ignore[no-untyped-def]
    """Write which proposals are accepted: `sciml.sampling.metropolis.accepted` with one variance for all."""
    n, d = x.shape
    for i in range(n):
        ratio = float(gain[i])
        for j in range(d):
            away = float(x[i, j]) - back[i, j]
            ratio += 0.5 * float(z[i, j]) ** 2 - away * away / (2 * variance)
        # Most are certain. Far below, where the complement has no digits, u is nearly 0, too.
        accept[i] = ratio >= 0 or 0.5 * math.erfc(-float(z[i, d]) * math.sqrt(0.5)) < math.exp(ratio)
