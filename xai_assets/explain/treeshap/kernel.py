"""The path-dependent kernel: runs a `Program` over blocks of rows.

Belongs here: the loops. Does not belong here: the algebra (see `program`), inputs and threads (see `shap`).

Rows are the vector dimension: within a block every operation is done for sixteen rows at a time, on planes (one
array per feature, block-sized). A row's result does not depend on the rows beside it, so it is the same for any
split of the rows over blocks, batches and threads.
"""

import functools
from typing import Any

import numpy as np
from numba import types

from xai_assets.explain.treeshap.compiled import compiled
from xai_assets.explain.treeshap.program import (
    A1,
    A2,
    A3,
    DEPTH,
    FLAGS,
    JOIN,
    JOIN_AGAIN,
    KIND,
    LEAF,
    PAIR,
    PAIR_AGAIN,
    S1,
    S2,
    S3,
    SAME_AS_TOP_COLD,
    SAME_AS_TOP_HOT,
    SPLIT,
    SPLIT_AGAIN,
    TRIPLE,
    TRIPLE_ANY,
    TRIPLE_LOW,
    TRIPLE_TOP,
    X1,
    X2,
    X3,
    C,
    H,
    K,
)
from xai_assets.explain.treeshap.simd import (
    LANES,
    add,
    at_least,
    both,
    either,
    fma,
    load,
    mul,
    only_first,
    select,
    splat,
    spread,
    store,
    sub,
)

SPECIALISED_POINTS = 4
"""Up to this many quadrature points (8 distinct features on a path) the kernel is compiled for that number."""
TREES_PER_SUM = 32
"""Trees whose φ are summed in float32 before they go to the float64 sum."""

_ROWS = types.Array(types.float32, 2, "A", readonly=True)  # a matrix that may not be written is taken too
_SIGNATURE = (
    _ROWS,
    types.int64,
    types.int64,
    types.float32[:, :, ::1],
    types.int32[:, ::1],
    types.float32[::1],
    types.int64[::1],
    types.int64[::1],
    types.int32[::1],
    types.float32[::1],
    types.int64,
    types.int64,
    types.int64,
    types.int64[::1],
    types.uint32[::1],
    types.boolean[::1],
)


def kernel_for(points: int) -> Any:
    """The compiled kernel for a number of quadrature points. The first call on a machine compiles (seconds)."""
    return _compile(points if points <= SPECIALISED_POINTS else 0)


@functools.cache
def _compile(fixed_points: int) -> Any:
    POINTS = fixed_points

    @compiled(*_SIGNATURE)
    def run(
        X: Any, first_row: int, last_row: int, phi: Any, operations: Any, factors: Any, starts: Any,
        output_starts: Any, used: Any, weights: Any, depth: int, planes: int, block: int, category_starts: Any,
        category_words: Any, category_other_left: Any,
    ) -> None:  # fmt: skip
        """Add to phi[:, first_row:last_row], which hold zeros. block: rows at a time, a multiple of 16."""
        P = POINTS if POINTS > 0 else len(weights)
        slot = P * block
        x = np.zeros(planes * block, np.float32)
        sums = np.zeros(len(used) * block, np.float32)
        totals = np.zeros(len(used) * block, np.float64)
        above = np.empty((2 * depth + 3) * slot, np.float32)  # C
        below = np.empty((2 * depth + 3) * slot, np.float32)  # H
        follows = np.empty((2 * depth + 3) * block, np.float32)
        follows[:block] = np.float32(1)
        for p in range(P):
            above[p * block : (p + 1) * block] = weights[p]
        one, zero, half = splat(np.float32(1)), splat(np.float32(0)), splat(np.float32(0.5))
        for start in range(first_row, last_row, block):
            rows = min(block, last_row - start)
            wide = (rows + LANES - 1) // LANES * LANES
            for i in range(rows):
                for j in range(len(used)):
                    x[j * block + i] = X[start + i, used[j]]
            for output in range(len(output_starts) - 1):
                totals[:] = 0.0
                first, last = output_starts[output], output_starts[output + 1]
                for group in range(first, last, TREES_PER_SUM):
                    sums[:] = np.float32(0)
                    for o in range(starts[group], starts[min(group + TREES_PER_SUM, last)]):
                        kind = operations[o, KIND]
                        x1 = operations[o, X1] * block
                        a1 = operations[o, A1] * block
                        c = operations[o, C] * slot
                        h = operations[o, H] * slot
                        s1 = operations[o, S1] * block
                        k = operations[o, K]
                        if kind == TRIPLE:
                            x2, x3 = operations[o, X2] * block, operations[o, X3] * block
                            a2, a3 = operations[o, A2] * block, operations[o, A3] * block
                            for b in range(0, wide, LANES):
                                m1 = at_least(mul(load(x, x1 + b), spread(factors, k)), spread(factors, k + 1))
                                m2 = at_least(mul(load(x, x2 + b), spread(factors, k + 2)), spread(factors, k + 3))
                                m3 = at_least(mul(load(x, x3 + b), spread(factors, k + 4)), spread(factors, k + 5))
                                through, hot_share, cold_share = zero, zero, zero
                                for p in range(P):
                                    q = k + 12 + 8 * p
                                    w = load(above, c + p * block + b)
                                    hot = mul(w, select(m1, spread(factors, q), spread(factors, q + 1)))
                                    cold = mul(w, select(m1, spread(factors, q + 2), spread(factors, q + 3)))
                                    u2 = select(m2, spread(factors, q + 4), spread(factors, q + 5))
                                    u3 = select(m3, spread(factors, q + 6), spread(factors, q + 7))
                                    store(below, h + p * block + b, fma(hot, u2, mul(cold, u3)))
                                    through = fma(w, sub(u2, u3), through)
                                    hot_share = add(hot_share, hot)
                                    cold_share = add(cold_share, cold)
                                f = select(m1, spread(factors, k + 6), spread(factors, k + 7))
                                store(sums, a1 + b, fma(through, f, load(sums, a1 + b)))
                                f = select(m2, spread(factors, k + 8), spread(factors, k + 9))
                                store(sums, a2 + b, fma(hot_share, f, load(sums, a2 + b)))
                                f = select(m3, spread(factors, k + 10), spread(factors, k + 11))
                                store(sums, a3 + b, fma(cold_share, f, load(sums, a3 + b)))
                        elif kind == TRIPLE_TOP:
                            x2, x3 = operations[o, X2] * block, operations[o, X3] * block
                            a2, a3 = operations[o, A2] * block, operations[o, A3] * block
                            for b in range(0, wide, LANES):
                                m1 = at_least(mul(load(x, x1 + b), spread(factors, k)), spread(factors, k + 1))
                                m2 = at_least(mul(load(x, x2 + b), spread(factors, k + 2)), spread(factors, k + 3))
                                m3 = at_least(mul(load(x, x3 + b), spread(factors, k + 4)), spread(factors, k + 5))
                                f1 = at_least(load(follows, s1 + b), half)
                                phi1, hot_share, cold_share = zero, zero, zero
                                for p in range(P):
                                    q = k + 12 + 11 * p
                                    w = load(above, c + p * block + b)
                                    r = select(m1, spread(factors, q), spread(factors, q + 1))
                                    hot = mul(w, select(f1, r, spread(factors, k + 6)))
                                    r = select(m1, spread(factors, q + 2), spread(factors, q + 3))
                                    cold = mul(w, select(f1, r, spread(factors, k + 7)))
                                    h2 = mul(hot, select(m2, spread(factors, q + 4), spread(factors, q + 5)))
                                    h3 = mul(cold, select(m3, spread(factors, q + 6), spread(factors, q + 7)))
                                    store(below, h + p * block + b, add(h2, h3))
                                    old = spread(factors, q + 9)
                                    phi1 = fma(select(m1, spread(factors, q + 8), old), h2, phi1)
                                    phi1 = fma(select(m1, old, spread(factors, q + 10)), h3, phi1)
                                    hot_share = add(hot_share, hot)
                                    cold_share = add(cold_share, cold)
                                store(sums, a1 + b, add(load(sums, a1 + b), select(f1, phi1, zero)))
                                f = select(m2, spread(factors, k + 8), spread(factors, k + 9))
                                store(sums, a2 + b, fma(hot_share, f, load(sums, a2 + b)))
                                f = select(m3, spread(factors, k + 10), spread(factors, k + 11))
                                store(sums, a3 + b, fma(cold_share, f, load(sums, a3 + b)))
                        elif kind == TRIPLE_LOW:
                            x2, x3 = operations[o, X2] * block, operations[o, X3] * block
                            a2, a3 = operations[o, A2] * block, operations[o, A3] * block
                            s2, s3 = operations[o, S2] * block, operations[o, S3] * block
                            flags = operations[o, FLAGS]
                            # free: the top node sets no condition for this child
                            free2 = at_least(zero if flags & SAME_AS_TOP_HOT else one, half)
                            free3 = at_least(zero if flags & SAME_AS_TOP_COLD else one, half)
                            for b in range(0, wide, LANES):
                                m1 = at_least(mul(load(x, x1 + b), spread(factors, k)), spread(factors, k + 1))
                                m2 = at_least(mul(load(x, x2 + b), spread(factors, k + 2)), spread(factors, k + 3))
                                m3 = at_least(mul(load(x, x3 + b), spread(factors, k + 4)), spread(factors, k + 5))
                                f2 = both(at_least(load(follows, s2 + b), half), either(free2, m1))
                                f3 = only_first(at_least(load(follows, s3 + b), half), only_first(m1, free3))
                                through, phi2, phi3 = zero, zero, zero
                                for p in range(P):
                                    q = k + 10 + 12 * p
                                    w = load(above, c + p * block + b)
                                    hot = mul(w, select(m1, spread(factors, q), spread(factors, q + 1)))
                                    cold = mul(w, select(m1, spread(factors, q + 2), spread(factors, q + 3)))
                                    u2 = select(m2, spread(factors, q + 4), spread(factors, q + 5))
                                    u2 = select(f2, u2, spread(factors, k + 8))
                                    u3 = select(m3, spread(factors, q + 6), spread(factors, q + 7))
                                    u3 = select(f3, u3, spread(factors, k + 9))
                                    store(below, h + p * block + b, fma(hot, u2, mul(cold, u3)))
                                    through = fma(w, sub(u2, u3), through)
                                    phi2 = fma(select(m2, spread(factors, q + 8), spread(factors, q + 9)), hot, phi2)
                                    phi3 = fma(select(m3, spread(factors, q + 10), spread(factors, q + 11)), cold, phi3)
                                f = select(m1, spread(factors, k + 6), spread(factors, k + 7))
                                store(sums, a1 + b, fma(through, f, load(sums, a1 + b)))
                                store(sums, a2 + b, add(load(sums, a2 + b), select(f2, phi2, zero)))
                                store(sums, a3 + b, add(load(sums, a3 + b), select(f3, phi3, zero)))
                        elif kind == TRIPLE_ANY:
                            x2, x3 = operations[o, X2] * block, operations[o, X3] * block
                            a2, a3 = operations[o, A2] * block, operations[o, A3] * block
                            s2, s3 = operations[o, S2] * block, operations[o, S3] * block
                            flags = operations[o, FLAGS]
                            free2 = at_least(zero if flags & SAME_AS_TOP_HOT else one, half)  # as above
                            free3 = at_least(zero if flags & SAME_AS_TOP_COLD else one, half)
                            for b in range(0, wide, LANES):
                                m1 = at_least(mul(load(x, x1 + b), spread(factors, k)), spread(factors, k + 1))
                                m2 = at_least(mul(load(x, x2 + b), spread(factors, k + 2)), spread(factors, k + 3))
                                m3 = at_least(mul(load(x, x3 + b), spread(factors, k + 4)), spread(factors, k + 5))
                                f1 = at_least(load(follows, s1 + b), half)
                                f2 = both(at_least(load(follows, s2 + b), half), either(free2, both(f1, m1)))
                                f3 = both(at_least(load(follows, s3 + b), half), either(free3, only_first(f1, m1)))
                                phi1, phi2, phi3 = zero, zero, zero
                                for p in range(P):
                                    q = k + 10 + 15 * p
                                    w = load(above, c + p * block + b)
                                    r = select(m1, spread(factors, q), spread(factors, q + 1))
                                    hot = mul(w, select(f1, r, spread(factors, k + 6)))
                                    r = select(m1, spread(factors, q + 2), spread(factors, q + 3))
                                    cold = mul(w, select(f1, r, spread(factors, k + 7)))
                                    u2 = select(m2, spread(factors, q + 4), spread(factors, q + 5))
                                    u2 = select(f2, u2, spread(factors, k + 8))
                                    u3 = select(m3, spread(factors, q + 6), spread(factors, q + 7))
                                    u3 = select(f3, u3, spread(factors, k + 9))
                                    h2, h3 = mul(hot, u2), mul(cold, u3)
                                    store(below, h + p * block + b, add(h2, h3))
                                    old = spread(factors, q + 9)
                                    phi1 = fma(select(m1, spread(factors, q + 8), old), h2, phi1)
                                    phi1 = fma(select(m1, old, spread(factors, q + 10)), h3, phi1)
                                    phi2 = fma(select(m2, spread(factors, q + 11), spread(factors, q + 12)), hot, phi2)
                                    phi3 = fma(select(m3, spread(factors, q + 13), spread(factors, q + 14)), cold, phi3)
                                store(sums, a1 + b, add(load(sums, a1 + b), select(f1, phi1, zero)))
                                store(sums, a2 + b, add(load(sums, a2 + b), select(f2, phi2, zero)))
                                store(sums, a3 + b, add(load(sums, a3 + b), select(f3, phi3, zero)))
                        elif kind == PAIR:
                            for b in range(0, wide, LANES):
                                m = at_least(mul(load(x, x1 + b), spread(factors, k)), spread(factors, k + 1))
                                all_shares = zero
                                for p in range(P):
                                    q = k + 4 + 2 * p
                                    w = load(above, c + p * block + b)
                                    u = select(m, spread(factors, q), spread(factors, q + 1))
                                    store(below, h + p * block + b, mul(w, u))
                                    all_shares = add(all_shares, w)
                                f = select(m, spread(factors, k + 2), spread(factors, k + 3))
                                store(sums, a1 + b, fma(all_shares, f, load(sums, a1 + b)))
                        elif kind == PAIR_AGAIN:
                            for b in range(0, wide, LANES):
                                m = at_least(mul(load(x, x1 + b), spread(factors, k)), spread(factors, k + 1))
                                f1 = at_least(load(follows, s1 + b), half)
                                phi1 = zero
                                for p in range(P):
                                    q = k + 3 + 4 * p
                                    w = load(above, c + p * block + b)
                                    u = select(m, spread(factors, q), spread(factors, q + 1))
                                    u = select(f1, u, spread(factors, k + 2))
                                    store(below, h + p * block + b, mul(w, u))
                                    phi1 = fma(w, select(m, spread(factors, q + 2), spread(factors, q + 3)), phi1)
                                store(sums, a1 + b, add(load(sums, a1 + b), select(f1, phi1, zero)))
                        elif kind in (SPLIT, SPLIT_AGAIN):
                            d = operations[o, DEPTH]
                            hot_slot, cold_slot = (1 + 2 * d) * slot, (2 + 2 * d) * slot
                            flags = operations[o, FLAGS]
                            if kind == SPLIT:
                                for b in range(0, wide, LANES):
                                    m = at_least(mul(load(x, x1 + b), spread(factors, k)), spread(factors, k + 1))
                                    for p in range(P):
                                        q = k + 4 + 4 * p
                                        w = load(above, c + p * block + b)
                                        r = select(m, spread(factors, q), spread(factors, q + 1))
                                        store(above, hot_slot + p * block + b, mul(w, r))
                                        r = select(m, spread(factors, q + 2), spread(factors, q + 3))
                                        store(above, cold_slot + p * block + b, mul(w, r))
                            else:
                                for b in range(0, wide, LANES):
                                    m = at_least(mul(load(x, x1 + b), spread(factors, k)), spread(factors, k + 1))
                                    f1 = at_least(load(follows, s1 + b), half)
                                    for p in range(P):
                                        q = k + 4 + 4 * p
                                        w = load(above, c + p * block + b)
                                        r = select(m, spread(factors, q), spread(factors, q + 1))
                                        r = select(f1, r, spread(factors, k + 2))
                                        store(above, hot_slot + p * block + b, mul(w, r))
                                        r = select(m, spread(factors, q + 2), spread(factors, q + 3))
                                        r = select(f1, r, spread(factors, k + 3))
                                        store(above, cold_slot + p * block + b, mul(w, r))
                            if flags:
                                hot_s, cold_s = (1 + 2 * d) * block, (2 + 2 * d) * block
                                for b in range(0, wide, LANES):
                                    m = at_least(mul(load(x, x1 + b), spread(factors, k)), spread(factors, k + 1))
                                    old = load(follows, s1 + b)
                                    store(follows, hot_s + b, select(m, old, zero))
                                    store(follows, cold_s + b, select(m, zero, old))
                        elif kind in (JOIN, JOIN_AGAIN):
                            hot_h = 2 * operations[o, DEPTH] * slot
                            cold_h = hot_h + slot
                            if kind == JOIN:
                                for b in range(0, wide, LANES):
                                    m = at_least(mul(load(x, x1 + b), spread(factors, k)), spread(factors, k + 1))
                                    phi1 = load(sums, a1 + b)
                                    for p in range(P):
                                        q = k + 2 + 3 * p
                                        h2 = load(below, hot_h + p * block + b)
                                        h3 = load(below, cold_h + p * block + b)
                                        store(below, h + p * block + b, add(h2, h3))
                                        old = spread(factors, q + 1)
                                        phi1 = fma(select(m, spread(factors, q), old), h2, phi1)
                                        phi1 = fma(select(m, old, spread(factors, q + 2)), h3, phi1)
                                    store(sums, a1 + b, phi1)
                            else:
                                for b in range(0, wide, LANES):
                                    m = at_least(mul(load(x, x1 + b), spread(factors, k)), spread(factors, k + 1))
                                    f1 = at_least(load(follows, s1 + b), half)
                                    phi1 = zero
                                    for p in range(P):
                                        q = k + 2 + 3 * p
                                        h2 = load(below, hot_h + p * block + b)
                                        h3 = load(below, cold_h + p * block + b)
                                        store(below, h + p * block + b, add(h2, h3))
                                        old = spread(factors, q + 1)
                                        phi1 = fma(select(m, spread(factors, q), old), h2, phi1)
                                        phi1 = fma(select(m, old, spread(factors, q + 2)), h3, phi1)
                                    store(sums, a1 + b, add(load(sums, a1 + b), select(f1, phi1, zero)))
                        elif kind == LEAF:
                            for b in range(0, wide, LANES):
                                for p in range(P):
                                    w = load(above, c + p * block + b)
                                    store(below, h + p * block + b, mul(w, spread(factors, k)))
                        else:
                            category_set = operations[o, DEPTH]
                            to = operations[o, X2] * block
                            missing = factors[k + 1]
                            if category_set >= 0:
                                words = category_starts[category_set]
                                codes = 32 * (category_starts[category_set + 1] - words)
                                other = np.float32(1) if category_other_left[category_set] else np.float32(0)
                                for i in range(rows):
                                    value = x[x1 + i]
                                    if value != value or (value >= factors[k + 2] and value <= factors[k + 3]):
                                        x[to + i] = missing
                                    elif codes > 0 and value > -1 and value < codes:
                                        code = np.int64(value)
                                        bit = (category_words[words + code // 32] >> np.uint32(code % 32)) & np.uint32(
                                            1
                                        )
                                        x[to + i] = np.float32(bit)
                                    else:
                                        x[to + i] = other
                            else:
                                for i in range(rows):
                                    value = x[x1 + i]
                                    if value != value or (value >= factors[k + 2] and value <= factors[k + 3]):
                                        x[to + i] = missing
                                    else:
                                        x[to + i] = np.float32(1) if value < factors[k] else np.float32(0)
                    for i in range(len(sums)):
                        totals[i] += sums[i]
                for i in range(rows):
                    for j in range(len(used)):
                        phi[output, start + i, used[j]] = totals[j * block + i]

    return run
