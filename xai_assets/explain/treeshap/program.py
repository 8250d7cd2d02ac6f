"""From trees to a program: one flat list of operations per tree, with every factor that does not depend on the row.

Belongs here: the algebra and the order of operations. Does not belong here: running them (see `kernel`).

The Shapley value of a leaf's game is an integral over t in (0, 1) of a product with one factor per distinct feature
on the path, g(t) = w + (m − w) t: w is the share of training rows that the feature's splits let through, m whether
the row passes them. The integrand is a polynomial of degree D − 1 for D features, so Gauss–Legendre with ⌈D/2⌉
points is exact. Summed over leaves, with C the product of the factors above a node and H = C · (sum below it):

    going down    C_hot = C · r,  C_cold = C − C_hot,     r = ratio of the feature's new factor to its old one
    coming up     H = H_hot + H_cold
                  φ += m_old · Σ_t [ (κ(m_hot) H_hot + κ(m_cold) H_cold) ]

where the two children's factors add up to the parent's because their shares do: that is what saves most of the work.
κ(1, w) − κ_old = q(w) − q(w_old), κ(0) − κ_old = −q(w_old) with q(w) = 1 / (g₁(w) (1 − t)), g₁(w) = w + (1 − w) t;
for a feature that is new on the path w_old = 1 and m_old = 1. See docs/treeshap.md for the derivation.

"Hot" is the child taken when the comparison ±x ≥ limit holds, which it never does for NaN: so the comparison's
direction also says where missing values go, and the kernel needs no case for them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.explain.treeshap.compiled import compiled
from xai_assets.explain.treeshap.ensemble import Float64, Int32, Int64, TreeEnsemble, UInt32, float32_ceiling

LEAF, PAIR, PAIR_AGAIN, TRIPLE, TRIPLE_AGAIN, SPLIT, SPLIT_AGAIN, JOIN, JOIN_AGAIN, DERIVE = range(10)
"""Kinds of operations. PAIR: a node whose children are leaves. TRIPLE: a node whose children are pairs or leaves.
SPLIT and JOIN: any other node, on the way down and up. AGAIN: a feature occurred before on the path.
DERIVE: a categorical or zero-is-missing split is evaluated into a plane of its own, 1 where it sends the row left."""

KIND, X1, A1, C, H, S1, K, DEPTH, X2, A2, S2, X3, A3, S3, FLAGS = range(15)
"""Columns of an operation. X: plane of the compared values. A: plane of the feature's sum. C, H: slots read and
written. S: plane that says whether the row follows the feature's earlier splits. K: first of its factors."""
COLUMNS = 16
TOP_HOT = 1 << 4
"""Flags of TRIPLE_AGAIN: bit 4 (5) — the second (third) node splits on the first one's feature."""
ZERO = 1e-35
"""|x| up to this counts as zero where zero is missing (LightGBM's kZeroThreshold)."""


@dataclass(frozen=True, eq=False)
class Program:
    """What the kernel runs.

    operations: int32 [n, COLUMNS]; factors: float32; starts: int64 [T+1], operations of each tree, trees sorted by
    output; output_starts: int64 [k+1], trees of each output. used: int32, features that have a plane.
    points: quadrature points; weights: float32 [points]. depth: of the deepest tree. planes: value planes needed.
    base_value: float64 [k], expected margin under the trees' covers, base score included.
    """

    operations: Int32
    factors: npt.NDArray[np.float32]
    starts: Int64
    output_starts: Int64
    used: Int32
    points: int
    weights: npt.NDArray[np.float32]
    depth: int
    planes: int
    base_value: Float64
    category_starts: Int64
    category_words: UInt32
    category_other_left: npt.NDArray[np.bool_]


def build(ensemble: TreeEnsemble, zero_low: Float64 | None = None, zero_high: Float64 | None = None) -> Program:
    """The program of an ensemble. Cost: one walk over all nodes.

    zero_low, zero_high: float64 [d], the values that count as zero, where the thresholds are not on the scale of
    the features themselves (see `ranks`).
    """
    if zero_low is None or zero_high is None:
        zero_high = np.full(ensemble.n_features, -float32_ceiling(np.array([-ZERO]))[0], np.float64)
        zero_low = -zero_high
    inner = ensemble.left >= 0
    used = np.unique(ensemble.feature[inner]).astype(np.int32)
    slot = np.zeros(ensemble.n_features, np.int32)
    slot[used] = np.arange(len(used))
    split = _comparisons(ensemble, inner)
    order = np.argsort(ensemble.tree_output, kind="stable").astype(np.int64)
    roots = ensemble.tree_starts[:-1][order]
    most, depth = _measure(roots, ensemble.left, ensemble.right, ensemble.feature)
    points = max(1, (most + 1) // 2)
    nodes, weights = np.polynomial.legendre.leggauss(points)
    t = (nodes + 1) / 2
    feature = np.where(inner, slot[np.maximum(ensemble.feature, 0)], -1).astype(np.int32)
    operations, factors, starts, expected = _emit(
        roots, split.hot, split.cold, feature, split.sign, split.limit, split.derived, ensemble.category_set,
        split.share, float32_ceiling(ensemble.threshold), ensemble.missing_left, ensemble.zero_is_missing, ensemble.value, t, len(used), depth,
        zero_low[used], zero_high[used],
    )  # fmt: skip
    base_value = ensemble.base_score.astype(np.float64).copy()
    np.add.at(base_value, ensemble.tree_output[order], expected)
    counts = np.bincount(ensemble.tree_output, minlength=ensemble.n_outputs)
    return Program(
        operations=operations,
        factors=factors,
        starts=starts,
        output_starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        used=used,
        points=points,
        weights=(weights / 2).astype(np.float32),
        depth=depth,
        planes=len(used) + (depth + 3 if split.derived.any() else 0),
        base_value=base_value,
        category_starts=ensemble.category_starts.astype(np.int64),
        category_words=ensemble.category_words.astype(np.uint32),
        category_other_left=ensemble.category_other_left.astype(np.bool_),
    )


@dataclass(frozen=True, eq=False)
class _Comparisons:
    hot: Int32
    cold: Int32
    sign: npt.NDArray[np.float32]
    limit: npt.NDArray[np.float32]
    derived: npt.NDArray[np.int8]
    share: Float64


def _comparisons(ensemble: TreeEnsemble, inner: npt.NDArray[np.bool_]) -> _Comparisons:
    """Per node: hot ⟺ sign · x ≥ limit; the share of the parent's cover that the hot child has."""
    infinity = np.float32(np.inf)
    threshold = float32_ceiling(ensemble.threshold)
    derived = np.zeros(len(inner), np.int8)
    derived[inner & ensemble.zero_is_missing] = 2
    derived[inner & (ensemble.category_set >= 0)] = 1
    hot_right = inner & ensemble.missing_left & (derived == 0)
    # x < limit ⟺ −x ≥ the float after −limit; nothing is below −∞, and NaN as a limit says so.
    below = np.where(threshold == -infinity, np.float32(np.nan), np.nextafter(-threshold, infinity))
    limit = np.where(derived > 0, np.float32(0.5), np.where(hot_right, threshold, below)).astype(np.float32)
    sign = np.where(hot_right | (derived > 0), np.float32(1), np.float32(-1))
    hot = np.where(hot_right, ensemble.right, ensemble.left).astype(np.int32)
    cold = np.where(hot_right, ensemble.left, ensemble.right).astype(np.int32)
    hot_cover = np.where(inner, ensemble.cover[hot], 0.0)
    total = hot_cover + np.where(inner, ensemble.cover[cold], 0.0)
    share = np.divide(hot_cover, total, out=np.full(len(inner), 0.5), where=total > 0)
    return _Comparisons(hot, cold, sign, limit, derived, share)


@compiled()
def _measure(roots: Int64, left: Int32, right: Int32, feature: Int32) -> Any:
    """Most distinct features on any path, and the depth of the deepest tree."""
    most, deepest = 0, 0
    stack_node = np.empty(len(left) + 1, np.int32)
    stack_depth = np.empty(len(left) + 1, np.int32)
    stack_distinct = np.empty(len(left) + 1, np.int32)
    path = np.empty(len(left) + 1, np.int32)
    for root in roots:
        top = 0
        stack_node[0], stack_depth[0], stack_distinct[0] = root, 0, 0
        while top >= 0:
            node, depth, distinct = stack_node[top], stack_depth[top], stack_distinct[top]
            top -= 1
            most, deepest = max(most, distinct), max(deepest, depth)
            if left[node] < 0:
                continue
            again = False
            for j in range(depth):
                again = again or path[j] == feature[node]
            path[depth] = feature[node]  # preorder: entries above stay those of the ancestors
            for child in (right[node], left[node]):
                top += 1
                stack_node[top], stack_depth[top] = child, depth + 1
                stack_distinct[top] = distinct + (0 if again else 1)
    return most, deepest


@compiled()
def _room(array: Any, used: int, more: int) -> Any:
    """The array, or one twice as long with the same start, so that `more` rows fit after `used`."""
    if used + more <= len(array):
        return array
    longer = np.zeros((2 * (used + more), array.shape[1]), array.dtype)
    longer[:used] = array[:used]
    return longer


@compiled()
def _again(f: int, depth: int, path_feature: Int32) -> int:
    """Depth of the last node above `depth` that splits on feature f, or −1."""
    for j in range(depth - 1, -1, -1):
        if path_feature[j] == f:
            return j
    return -1


@compiled()
def _point(share: float, w_old: float, t: float) -> Any:
    """r₁, r₀, q_hot, q_cold, q_old of one split at one quadrature point."""
    w_hot, w_cold = w_old * share, w_old * (1 - share)
    old = w_old + (1 - w_old) * t
    hot, cold = w_hot + (1 - w_hot) * t, w_cold + (1 - w_cold) * t
    return hot / old, w_hot * (1 - t) / old, 1 / (hot * (1 - t)), 1 / (cold * (1 - t)), 1 / (old * (1 - t))


@compiled()
def _pair_point(share: float, w_old: float, t: float, v_hot: float, v_cold: float) -> Any:
    """Sum below a pair per unit of C, and the feature's φ per unit of C; each for hot and for cold."""
    r1, r0, q_hot, q_cold, q_old = _point(share, w_old, t)
    phi1 = (q_hot - q_old) * r1 * v_hot - q_old * (1 - r1) * v_cold
    phi0 = -q_old * r0 * v_hot + (q_cold - q_old) * (1 - r0) * v_cold
    return r1 * v_hot + (1 - r1) * v_cold, r0 * v_hot + (1 - r0) * v_cold, phi1, phi0


@compiled()
def _emit(roots, hot, cold, feature, sign, limit, derived, category_set, share, threshold, missing_left, zero_is_missing, value, t,
          used, deepest, zero_low, zero_high):  # type: ignore[no-untyped-def]  # fmt: skip  # noqa: ANN001, ANN202
    """Operations and factors of all trees, in depth-first order; expected value of each tree."""
    points = len(t)
    ops = np.zeros((1024, 16), np.int32)
    factors = np.zeros((4096, 1), np.float64)
    n, k = 0, 0
    starts = np.zeros(len(roots) + 1, np.int64)
    expected = np.zeros(len(roots), np.float64)
    stack = np.empty((2 * deepest + 4, 5), np.int64)  # node, depth, C slot, H slot, stage
    reach = np.empty(2 * deepest + 4, np.float64)
    path_feature = np.empty(deepest + 1, np.int32)
    path_share = np.empty(deepest + 1, np.float64)  # of the feature's splits so far, this one's taken side included
    path_op = np.empty(deepest + 1, np.int64)
    path_side = np.empty(deepest + 1, np.int64)
    for tree in range(len(roots)):
        top = 0
        stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3], stack[0, 4] = roots[tree], 0, 0, 2 * deepest + 2, 0
        reach[0] = 1.0
        while top >= 0:
            node, d, c, h, stage = stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3], stack[top, 4]
            here = reach[top]
            ops = _room(ops, n, 4)
            factors = _room(factors, k, 16 + 16 * points)
            if hot[node] < 0:
                top -= 1
                expected[tree] += here * value[node]
                if d > 0:
                    ops[n, 0], ops[n, 3], ops[n, 4], ops[n, 6] = 0, c, h, k
                    factors[k, 0] = value[node]
                    n, k = n + 1, k + 1
                continue
            f, a, b = feature[node], hot[node], cold[node]
            prev = _again(f, d, path_feature)
            w_old = 1.0 if prev < 0 else path_share[prev]
            s = 0 if prev < 0 else 1 + 2 * prev + path_side[prev]
            x = f if derived[node] == 0 else used + d
            if stage == 0:
                if prev >= 0:
                    ops[path_op[prev], 14] |= 1 << path_side[prev]
                if derived[node] > 0:
                    n, k = _derive(
                        ops,
                        n,
                        factors,
                        k,
                        node,
                        f,
                        x,
                        derived,
                        category_set,
                        threshold,
                        missing_left,
                        zero_is_missing,
                        zero_low,
                        zero_high,
                    )
                a_end = hot[a] < 0 or (hot[hot[a]] < 0 and hot[cold[a]] < 0)
                b_end = hot[b] < 0 or (hot[hot[b]] < 0 and hot[cold[b]] < 0)
                if hot[a] < 0 and hot[b] < 0:
                    top -= 1
                    expected[tree] += here * (share[node] * value[a] + (1 - share[node]) * value[b])
                    ops[n, 0] = 1 if prev < 0 else 2
                    ops[n, 1], ops[n, 2], ops[n, 3], ops[n, 4], ops[n, 5], ops[n, 6] = x, f, c, h, s, k
                    factors[k, 0], factors[k + 1, 0] = sign[node], limit[node]
                    if prev < 0:
                        factors[k + 2, 0] = (1 - share[node]) * (value[a] - value[b])
                        factors[k + 3, 0] = -share[node] * (value[a] - value[b])
                        k += 4
                    else:
                        factors[k + 2, 0] = share[node] * value[a] + (1 - share[node]) * value[b]
                        k += 3
                    for i in range(points):
                        u1, u0, phi1, phi0 = _pair_point(share[node], w_old, t[i], value[a], value[b])
                        factors[k, 0], factors[k + 1, 0] = u1, u0
                        k += 2
                        if prev >= 0:
                            factors[k, 0], factors[k + 1, 0] = phi1, phi0
                            k += 2
                    n += 1
                    continue
                if a_end and b_end:
                    top -= 1
                    expected[tree] += here * (
                        share[node] * _end_value(a, hot, cold, share, value)
                        + (1 - share[node]) * _end_value(b, hot, cold, share, value)
                    )
                    path_feature[d] = f
                    prev_a = -1 if hot[a] < 0 else _again(feature[a], d + 1, path_feature)
                    prev_b = -1 if hot[b] < 0 else _again(feature[b], d + 1, path_feature)
                    x_a, x_b = x, x
                    if hot[a] >= 0:
                        x_a = feature[a]
                        if derived[a] > 0:
                            x_a = used + deepest + 1
                            n, k = _derive(ops, n, factors, k, a, feature[a], x_a, derived, category_set, threshold,
                                           missing_left, zero_is_missing, zero_low, zero_high)  # fmt: skip
                    if hot[b] >= 0:
                        x_b = feature[b]
                        if derived[b] > 0:
                            x_b = used + deepest + 2
                            n, k = _derive(ops, n, factors, k, b, feature[b], x_b, derived, category_set, threshold,
                                           missing_left, zero_is_missing, zero_low, zero_high)  # fmt: skip
                    again = prev >= 0 or prev_a >= 0 or prev_b >= 0
                    ops[n, 0] = 4 if again else 3
                    ops[n, 1], ops[n, 2], ops[n, 3], ops[n, 4], ops[n, 5], ops[n, 6] = x, f, c, h, s, k
                    ops[n, 8], ops[n, 9], ops[n, 11], ops[n, 12] = x_a, f, x_b, f
                    if hot[a] >= 0:
                        ops[n, 9] = feature[a]
                    if hot[b] >= 0:
                        ops[n, 12] = feature[b]
                    factors[k, 0], factors[k + 1, 0] = sign[node], limit[node]
                    factors[k + 2, 0], factors[k + 3, 0], factors[k + 4, 0], factors[k + 5, 0] = 1.0, 0.0, 1.0, 0.0
                    if hot[a] >= 0:
                        factors[k + 2, 0], factors[k + 3, 0] = sign[a], limit[a]
                    if hot[b] >= 0:
                        factors[k + 4, 0], factors[k + 5, 0] = sign[b], limit[b]
                    w_a, w_b = 1.0, 1.0
                    if again:
                        if prev_a == d:
                            ops[n, 14] |= 16
                            w_a = w_old * share[node]
                        elif prev_a >= 0:
                            ops[n, 10] = 1 + 2 * prev_a + path_side[prev_a]
                            ops[path_op[prev_a], 14] |= 1 << path_side[prev_a]
                            w_a = path_share[prev_a]
                        if prev_b == d:
                            ops[n, 14] |= 32
                            w_b = w_old * (1 - share[node])
                        elif prev_b >= 0:
                            ops[n, 13] = 1 + 2 * prev_b + path_side[prev_b]
                            ops[path_op[prev_b], 14] |= 1 << path_side[prev_b]
                            w_b = path_share[prev_b]
                        factors[k + 6, 0] = share[node]
                        factors[k + 7, 0] = _end_value(a, hot, cold, share, value)
                        factors[k + 8, 0] = _end_value(b, hot, cold, share, value)
                        k += 9
                    else:
                        factors[k + 6, 0], factors[k + 7, 0] = 1 - share[node], -share[node]
                        for i in range(4):
                            factors[k + 8 + i, 0] = 0.0
                        if hot[a] >= 0:
                            difference = value[hot[a]] - value[cold[a]]
                            factors[k + 8, 0] = (1 - share[a]) * difference
                            factors[k + 9, 0] = -share[a] * difference
                        if hot[b] >= 0:
                            difference = value[hot[b]] - value[cold[b]]
                            factors[k + 10, 0] = (1 - share[b]) * difference
                            factors[k + 11, 0] = -share[b] * difference
                        k += 12
                    for i in range(points):
                        r1, r0, q_hot, q_cold, q_old = _point(share[node], w_old, t[i])
                        ua1, ua0, pa1, pa0 = value[a], value[a], 0.0, 0.0
                        if hot[a] >= 0:
                            ua1, ua0, pa1, pa0 = _pair_point(share[a], w_a, t[i], value[hot[a]], value[cold[a]])
                        ub1, ub0, pb1, pb0 = value[b], value[b], 0.0, 0.0
                        if hot[b] >= 0:
                            ub1, ub0, pb1, pb0 = _pair_point(share[b], w_b, t[i], value[hot[b]], value[cold[b]])
                        factors[k, 0], factors[k + 1, 0] = r1, r0
                        factors[k + 2, 0], factors[k + 3, 0] = ua1, ua0
                        factors[k + 4, 0], factors[k + 5, 0] = ub1, ub0
                        k += 6
                        if again:
                            factors[k, 0], factors[k + 1, 0] = q_hot - q_old, -q_old
                            factors[k + 2, 0] = q_cold - q_old
                            factors[k + 3, 0], factors[k + 4, 0] = pa1, pa0
                            factors[k + 5, 0], factors[k + 6, 0] = pb1, pb0
                            k += 7
                    n += 1
                    continue
                ops[n, 0] = 5 if prev < 0 else 6
                ops[n, 1], ops[n, 2], ops[n, 3], ops[n, 5], ops[n, 6], ops[n, 7] = x, f, c, s, k, d
                factors[k, 0], factors[k + 1, 0], factors[k + 2, 0] = sign[node], limit[node], share[node]
                k += 3
                for i in range(points):
                    r1, r0, q_hot, q_cold, q_old = _point(share[node], w_old, t[i])
                    factors[k, 0], factors[k + 1, 0] = r1, r0
                    k += 2
                path_feature[d], path_op[d] = f, n
                n += 1
            if stage < 2:
                # stage 0: into the hot child; stage 1: into the cold one
                path_side[d] = stage
                path_share[d] = w_old * (share[node] if stage == 0 else 1 - share[node])
                stack[top, 4] = stage + 1
                top += 1
                stack[top, 0], stack[top, 1] = (a if stage == 0 else b), d + 1
                stack[top, 2], stack[top, 3], stack[top, 4] = 1 + 2 * d + stage, 2 * d + stage, 0
                reach[top] = here * (share[node] if stage == 0 else 1 - share[node])
                continue
            top -= 1
            ops[n, 0] = 7 if prev < 0 else 8
            ops[n, 1], ops[n, 2], ops[n, 4], ops[n, 5], ops[n, 6], ops[n, 7] = x, f, h, s, k, d
            factors[k, 0], factors[k + 1, 0] = sign[node], limit[node]
            k += 2
            for i in range(points):
                r1, r0, q_hot, q_cold, q_old = _point(share[node], w_old, t[i])
                factors[k, 0], factors[k + 1, 0], factors[k + 2, 0] = q_hot - q_old, -q_old, q_cold - q_old
                k += 3
            n += 1
        starts[tree + 1] = n
    return ops[:n].copy(), factors[:k, 0].astype(np.float32), starts, expected


@compiled()
def _end_value(node, hot, cold, share, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Expected value of a leaf or a pair."""
    if hot[node] < 0:
        return value[node]
    return share[node] * value[hot[node]] + (1 - share[node]) * value[cold[node]]


@compiled()
def _derive(
    ops, n, factors, k, node, f, x, derived, category_set, threshold, missing_left, zero_is_missing, zero_low, zero_high
):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The operation that evaluates a special split into plane x."""
    ops[n, 0], ops[n, 1], ops[n, 8], ops[n, 6] = 9, f, x, k
    ops[n, 7] = category_set[node] if derived[node] == 1 else -1
    factors[k, 0] = threshold[node]
    factors[k + 1, 0] = 1.0 if missing_left[node] else 0.0
    factors[k + 2, 0], factors[k + 3, 0] = 1.0, 0.0  # nothing lies between
    if zero_is_missing[node]:
        factors[k + 2, 0], factors[k + 3, 0] = zero_low[f], zero_high[f]
    return n + 1, k + 4
