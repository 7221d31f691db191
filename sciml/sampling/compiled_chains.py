"""Overdamped chains in one loop that numba compiles for the processor's vectors: noise, target, decision.

All arrays have one column for each of `WIDTH` chains, of float32. Normal numbers of chain c in step s are a function of
(seed, c, s) alone: words of the counter-based generator Philox 4x32-10 (Salmon et al., SC 2011), in pairs through Box
and Muller's transform. Logarithms, sines, cosines and exponentials are the polynomials of the Cephes library.

A target is a function that writes ``value``, (WIDTH,), and ``score``, (d, WIDTH), of states x, (d, WIDTH), with
parameters p; `KINDS` has their numbers.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sciml.solvers.compiled.lanes import compiled

__all__ = ["KINDS", "WIDTH", "keys_of", "loop"]

WIDTH = 64
KINDS = {"mixture": 0, "many-well": 1, "funnel": 2, "steep-double-well": 3}
_0, _1, _2, _HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_32, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_LOG2, _QUARTER = np.float32(0.6931471805599453), np.float32(1.5707963267948966)


def keys_of(seed: int) -> np.ndarray:
    """Return the keys of the ten rounds, two for each."""
    low, high, keys = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, []
    for _ in range(10):
        keys += [low, high]
        low, high = low + 0x9E3779B9 & 0xFFFFFFFF, high + 0xBB67AE85 & 0xFFFFFFFF
    return np.array(keys, np.uint64)


@intrinsic
def _float_of(context: Any, bits: Any) -> Any:
    """Return the float32 with these bits."""
    return types.float32(types.int32), lambda c, builder, s, args: builder.bitcast(args[0], ir.FloatType())


@intrinsic
def _bits_of(context: Any, number: Any) -> Any:
    """Return the bits of a float32."""
    return types.int32(types.float32), lambda c, builder, s, args: builder.bitcast(args[0], ir.IntType(32))


@compiled
def _round(a, b, c, d, key, other):  # type: ignore[no-untyped-def]
    p, q = _M0 * a, _M1 * c
    return (q >> _32) ^ b ^ key, q & _LOW, (p >> _32) ^ d ^ other, p & _LOW


@compiled
def _words(out, group, chain, step, keys):  # type: ignore[no-untyped-def]
    """Write four words for each of the chains from ``chain`` on."""
    # A loop over rounds inside would keep the other one from the vectors.
    for i in range(WIDTH):
        a, b, c, d = group, chain + np.uint64(i), step, np.uint64(0)
        a, b, c, d = _round(a, b, c, d, keys[0], keys[1])
        a, b, c, d = _round(a, b, c, d, keys[2], keys[3])
        a, b, c, d = _round(a, b, c, d, keys[4], keys[5])
        a, b, c, d = _round(a, b, c, d, keys[6], keys[7])
        a, b, c, d = _round(a, b, c, d, keys[8], keys[9])
        a, b, c, d = _round(a, b, c, d, keys[10], keys[11])
        a, b, c, d = _round(a, b, c, d, keys[12], keys[13])
        a, b, c, d = _round(a, b, c, d, keys[14], keys[15])
        a, b, c, d = _round(a, b, c, d, keys[16], keys[17])
        a, b, c, d = _round(a, b, c, d, keys[18], keys[19])
        out[0, i], out[1, i], out[2, i], out[3, i] = np.int32(a), np.int32(b), np.int32(c), np.int32(d)


@compiled
def _polar(first, second, cosines, sines):  # type: ignore[no-untyped-def]
    """Box and Muller: two normal numbers from two words."""
    for i in range(WIDTH):
        # u = (word + 1/2) 2^-31, log u = log m + e log 2.
        u = np.float32((first[i] >> np.int32(1)) & np.int32(0x7FFFFFFF)) + _HALF
        bits = _bits_of(u)
        m = _float_of((bits & np.int32(0x7FFFFF)) | np.int32(0x3F000000))
        e = np.float32((bits >> np.int32(23)) - np.int32(157))
        below = m < np.float32(0.70710678)
        e = e - _1 if below else e
        x = (m + m if below else m) - _1
        w = x * x
        y = np.float32(7.0376836292e-2) * x - np.float32(1.1514610310e-1)
        y = y * x + np.float32(1.1676998740e-1)
        y = y * x - np.float32(1.2420140846e-1)
        y = y * x + np.float32(1.4249322787e-1)
        y = y * x - np.float32(1.6668057665e-1)
        y = y * x + np.float32(2.0000714765e-1)
        y = y * x - np.float32(2.4999993993e-1)
        y = y * x + np.float32(3.3333331174e-1)
        square = -_2 * (x + (y * x * w - _HALF * w) + e * _LOG2)
        radius = np.sqrt(square if square > 0 else np.float32(0))
        # Two bits say which quarter of the circle, thirty where in it.
        k = second[i]
        angle = (np.float32(k & np.int32(0x3FFFFFFF)) * np.float32(2.0**-30) - _HALF) * _QUARTER
        t = angle * angle
        s = np.float32(-1.9515295891e-4) * t + np.float32(8.3321608736e-3)
        s = (s * t - np.float32(1.6666654611e-1)) * t * angle + angle
        c = np.float32(2.443315711809948e-5) * t - np.float32(1.388731625493765e-3)
        c = (c * t + np.float32(4.166664568298827e-2)) * t * t - _HALF * t + _1
        radius = -radius if k < 0 else radius
        odd = (k & np.int32(0x40000000)) != 0
        cosines[i], sines[i] = radius * (s if odd else c), radius * (c if odd else s)


@compiled
def _normals(out, chain, step, keys, room):  # type: ignore[no-untyped-def]
    """Write normal numbers, (4 groups, WIDTH), of the chains from ``chain`` on; ``room`` is int32, (4, WIDTH)."""
    for group in range(out.shape[0] // 4):
        _words(room, np.uint64(group), np.uint64(chain), np.uint64(step), keys)
        _polar(room[0], room[1], out[4 * group], out[4 * group + 1])
        _polar(room[2], room[3], out[4 * group + 2], out[4 * group + 3])


@compiled
def _exponential(x):  # type: ignore[no-untyped-def]
    """Return e^x of a float32, between 1e-37 and 1e38."""
    x = min(max(x, np.float32(-86)), np.float32(88))
    n = np.floor(np.float32(1.44269504088896341) * x + _HALF)
    x = x - n * np.float32(0.693359375)
    x = x - n * np.float32(-2.12194440e-4)
    y = np.float32(1.9875691500e-4) * x + np.float32(1.3981999507e-3)
    y = y * x + np.float32(8.3334519073e-3)
    y = y * x + np.float32(4.1665795894e-2)
    y = y * x + np.float32(1.6666665459e-1)
    y = y * x + np.float32(5.0000001201e-1)
    y = y * x * x + x + _1
    return y * _float_of((np.int32(n) + np.int32(127)) << np.int32(23))


@compiled
def _mixture(x, p, value, score):  # type: ignore[no-untyped-def]
    """p: 1 / s^2, then offset and mean of each component."""
    d, inverse = x.shape[0], p[0]
    total, peak, exponent = (
        np.empty(WIDTH, np.float32),
        np.empty(WIDTH, np.float32),
        np.empty(WIDTH, np.float32),
    )
    for c in range(WIDTH):
        total[c], peak[c] = _0, np.float32(-3e38)
    score[:] = _0
    count = (p.size - 1) // (d + 1)
    # Twice over the components, the first time for the largest exponent.
    for turn in range(2):
        for k in range(count):
            at = 1 + k * (d + 1)
            for c in range(WIDTH):
                exponent[c] = p[at]
            for j in range(d):
                for c in range(WIDTH):
                    away = x[j, c] - p[at + 1 + j]
                    exponent[c] -= _HALF * inverse * away * away
            if turn == 0:
                for c in range(WIDTH):
                    peak[c] = max(peak[c], exponent[c])
            else:
                for c in range(WIDTH):
                    exponent[c] = _exponential(exponent[c] - peak[c])
                    total[c] += exponent[c]
                for j in range(d):
                    for c in range(WIDTH):
                        score[j, c] += exponent[c] * p[at + 1 + j]
    for j in range(d):
        for c in range(WIDTH):
            score[j, c] = inverse * (score[j, c] / total[c] - x[j, c])
    for c in range(WIDTH):
        value[c] = peak[c] + np.log(total[c])


@compiled
def _many_well(x, p, value, score):  # type: ignore[no-untyped-def]
    for c in range(WIDTH):
        value[c] = _0
    for j in range(0, x.shape[0], 2):
        for c in range(WIDTH):
            a, b = x[j, c], x[j + 1, c]
            square = a * a
            value[c] += _HALF * a + np.float32(6) * square - square * square - _HALF * b * b
            score[j, c] = _HALF + (np.float32(12) - np.float32(4) * square) * a
            score[j + 1, c] = -b


@compiled
def _funnel(x, p, value, score):  # type: ignore[no-untyped-def]
    d = x.shape[0]
    scale = np.empty(WIDTH, np.float32)
    for c in range(WIDTH):
        scale[c], value[c] = _exponential(-x[0, c]), _0
    for j in range(1, d):
        for c in range(WIDTH):
            value[c] += x[j, c] * x[j, c]
            score[j, c] = -x[j, c] * scale[c]
    for c in range(WIDTH):
        spread, half = _HALF * value[c] * scale[c], _HALF * np.float32(d - 1)
        value[c] = -x[0, c] * x[0, c] / np.float32(18) - spread - half * x[0, c]
        score[0, c] = -x[0, c] / np.float32(9) + spread - half


@compiled
def _steep_double_well(x, p, value, score):  # type: ignore[no-untyped-def]
    for c in range(WIDTH):
        a = x[0, c]
        share = _1 / (_1 + _exponential(np.float32(-8) * a))
        well, steep = a * a - _1, _1 + np.float32(9) * share
        value[c] = np.float32(-0.3) * well * well * steep
        score[0, c] = -well * (np.float32(1.2) * a * steep + np.float32(21.6) * well * share * (_1 - share))


@compiled
def _evaluate(kind, x, p, value, score):  # type: ignore[no-untyped-def]
    if kind == 0:
        _mixture(x, p, value, score)
    elif kind == 1:
        _many_well(x, p, value, score)
    elif kind == 2:
        _funnel(x, p, value, score)
    else:
        _steep_double_well(x, p, value, score)


@compiled
def loop(kind, p, x, h, adjusted, first, steps, keys, accepted, start, stop):  # type: ignore[no-untyped-def]
    """Take steps from states x, (d, n), n a multiple of WIDTH, in their place.

    Steps have the numbers from ``first`` on, and are h long; proposals that are accepted are counted, (n,). Chains are
    those of the tiles from ``start`` to ``stop``.
    """
    d = x.shape[0]
    z = np.empty(((d + 2 * adjusted + 3) // 4 * 4, WIDTH), np.float32)
    room = np.empty((4, WIDTH), np.int32)
    at, new = np.empty((d, WIDTH), np.float32), np.empty((d, WIDTH), np.float32)
    score, new_score = np.empty((d, WIDTH), np.float32), np.empty((d, WIDTH), np.float32)
    value, new_value = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32)
    ratio, take = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.bool_)
    deviation, quarter = np.sqrt(_2 * h), np.float32(0.25) / h
    for tile in range(start, stop):
        chain = tile * WIDTH
        at[:] = x[:, chain : chain + WIDTH]
        _evaluate(kind, at, p, value, score)
        for step in range(first, first + steps):
            _normals(z, chain, step, keys, room)
            for j in range(d):
                for c in range(WIDTH):
                    new[j, c] = at[j, c] + h * score[j, c] + deviation * z[j, c]
            _evaluate(kind, new, p, new_value, new_score)
            if not adjusted:
                at[:], score[:] = new, new_score
                continue
            for c in range(WIDTH):
                # With two more normal numbers (z^2 + z'^2) / 2 = -log u, u uniform.
                a, b = z[d, c], z[d + 1, c]
                ratio[c] = new_value[c] - value[c] + _HALF * (a * a + b * b)
            for j in range(d):
                for c in range(WIDTH):
                    back = at[j, c] - new[j, c] - h * new_score[j, c]
                    ratio[c] += _HALF * z[j, c] * z[j, c] - quarter * back * back
            for c in range(WIDTH):
                # What is not a number is refused.
                take[c] = ratio[c] > 0
                accepted[chain + c] += take[c]
                value[c] = new_value[c] if take[c] else value[c]
            for j in range(d):
                for c in range(WIDTH):
                    at[j, c] = new[j, c] if take[c] else at[j, c]
                    score[j, c] = new_score[j, c] if take[c] else score[j, c]
        x[:, chain : chain + WIDTH] = at
