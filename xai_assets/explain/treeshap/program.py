"""From trees to a program: one flat list of operations per tree, with every factor that does not depend on the row.

Belongs here: the algebra and the order of operations. Does not belong here: running them (see `kernel`).

The Shapley value of a leaf's game is an integral over t in (0, 1) of a product with one factor per distinct feature
on the path, g(t) = w + (m − w) t: w is the share of training rows that the feature's splits let through, m whether
the row passes them. The integrand is a polynomial of degree D − 1 for D features, so Gauss–Legendre with ⌈D/2⌉
points is exact. Summed over leaves, with C the product of the factors above a node and H = C · (sum below it):

    going down    C_hot = C · r,  C_cold = C · (1 − r),   r = ratio of the feature's new factor to its old one
    coming up     H = H_hot + H_cold
                  φ += m_old · Σ_t [ (κ(m_hot) H_hot + κ(m_cold) H_cold) ]

where the two children's factors add up to the parent's because their shares do.
κ(1, w) − κ_old = q(w) − q(w_old), κ(0) − κ_old = −q(w_old) with q(w) = 1 / (g₁(w) (1 − t)), g₁(w) = w + (1 − w) t;
for a feature that is new on the path w_old = 1 and m_old = 1. See docs/treeshap.md for the derivation.

"Hot" is the child taken when the comparison ±x ≥ limit holds, which it never does for NaN: so the comparison's
direction also says where missing values go, and the kernel needs no case for them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.compiled import compiled
from xai_assets.explain.treeshap.ensemble import ZERO, Float64, Int32, Int64, TreeEnsemble, UInt32, float32_ceiling

LEAF, PAIR, PAIR_AGAIN, TRIPLE, TRIPLE_TOP, TRIPLE_LOW, TRIPLE_ANY = range(7)
SPLIT, SPLIT_AGAIN, JOIN, JOIN_AGAIN, DERIVE = range(7, 12)
"""Kinds of operations. PAIR: a node whose children are leaves. TRIPLE: a node whose children are pairs or leaves.
SPLIT and JOIN: any other node, on the way down and up. AGAIN: the feature occurred before on the path; of a triple
that of the TOP node, of a child (LOW), or of both (ANY).
DERIVE: a categorical or zero-is-missing split is evaluated into a plane of its own, 1 where it sends the row left."""

KIND, X1, A1, C, H, S1, K, DEPTH, X2, A2, S2, X3, A3, S3, FLAGS = range(15)
"""Columns of an operation. X: plane of the compared values. A: plane of the feature's sum. C, H: slots read and
written. S: plane that says whether the row follows the feature's earlier splits. K: first of its factors. DEPTH: of a
SPLIT or JOIN; the category set of a DERIVE, or −1."""
COLUMNS = 15
MOST_OFFSETS = 2**31
"""Operations hold places of factors as int32."""
KEEP_HOT, KEEP_COLD, SAME_AS_TOP_HOT, SAME_AS_TOP_COLD = 1, 2, 16, 32
"""Flags. SPLIT: a node below asks whether the row went to the hot (cold) child. TRIPLE_LOW, TRIPLE_ANY: the hot (cold)
child splits on the top node's feature."""


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
        zero_high = np.full(ensemble.n_features, ZERO)
        zero_low = -zero_high
    inner = ensemble.left >= 0
    used = np.unique(ensemble.feature[inner]).astype(np.int32)
    order = np.argsort(ensemble.tree_output, kind="stable").astype(np.int64)
    roots = ensemble.tree_starts[:-1][order]
    most, depth = _measure(roots, ensemble.left, ensemble.right, ensemble.feature)
    points = max(1, (most + 1) // 2)
    abscissae, weights = np.polynomial.legendre.leggauss(points)
    nodes = _nodes(ensemble, inner, used, zero_low, zero_high)
    operations, factors, starts, expected = _emit(roots, nodes, (abscissae + 1) / 2, len(used), depth)
    if max(len(factors), operations.size) >= MOST_OFFSETS:
        raise ModelError(
            "the ensemble is too large to be explained at once",
            expected=f"fewer than {MOST_OFFSETS:,} factors and operations",
            found=f"{len(factors):,} factors of {ensemble.n_trees:,} trees with {len(ensemble.left):,} nodes",
            next_step="explain parts of its trees and add the attributions",
        )
    base_value = ensemble.base_score.astype(np.float64)
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
        depth=int(depth),
        planes=len(used) + (int(depth) + 3 if nodes.derived.any() else 0),
        base_value=base_value,
        category_starts=ensemble.category_starts.astype(np.int64),
        category_words=ensemble.category_words.astype(np.uint32),
        category_other_left=ensemble.category_other_left.astype(np.bool_),
    )


class _Nodes(NamedTuple):
    """All nodes as the walk needs them. hot ⟺ sign · x ≥ limit. share: of the parent's cover, the hot child's."""

    hot: Int64
    cold: Int64
    feature: Int64
    sign: npt.NDArray[np.float32]
    limit: npt.NDArray[np.float32]
    share: Float64
    value: Float64
    derived: npt.NDArray[np.bool_]
    category_set: Int64
    threshold: npt.NDArray[np.float32]
    missing_left: npt.NDArray[np.bool_]
    zero_low: Float64
    zero_high: Float64


class _Path(NamedTuple):
    """The splits above a node, by depth.

    share: product over the feature's splits so far, the taken side of this one included. side: 0 hot, 1 cold.
    operation: the SPLIT.
    """

    feature: Int64
    share: Float64
    side: Int64
    operation: Int64


def _nodes(
    ensemble: TreeEnsemble, inner: npt.NDArray[np.bool_], used: Int32, zero_low: Float64, zero_high: Float64
) -> _Nodes:
    infinity = np.float32(np.inf)
    threshold = float32_ceiling(ensemble.threshold)
    derived = inner & (ensemble.zero_is_missing | (ensemble.category_set >= 0))
    hot_right = inner & ensemble.missing_left & ~derived
    # x < limit ⟺ −x ≥ the float after −limit; nothing is below −∞, and NaN as a limit says so.
    below = np.where(threshold == -infinity, np.float32(np.nan), np.nextafter(-threshold, infinity))
    limit = np.where(derived, np.float32(0.5), np.where(hot_right, threshold, below))
    hot = np.where(hot_right, ensemble.right, ensemble.left).astype(np.int32)
    cold = np.where(hot_right, ensemble.left, ensemble.right).astype(np.int32)
    hot_cover = np.where(inner, ensemble.cover[hot], 0.0)
    total = hot_cover + np.where(inner, ensemble.cover[cold], 0.0)
    slot = np.zeros(max(ensemble.n_features, 1), np.int32)
    slot[used] = np.arange(len(used))
    raw = np.maximum(ensemble.feature, 0)
    zero_low, zero_high = (np.append(z, 0.0) for z in (zero_low, zero_high))  # leaves of a model without features
    return _Nodes(
        hot=hot.astype(np.int64),
        cold=cold.astype(np.int64),
        feature=np.where(inner, slot[raw], -1).astype(np.int64),
        sign=np.where(hot_right | derived, np.float32(1), np.float32(-1)),
        limit=limit.astype(np.float32),
        share=np.divide(hot_cover, total, out=np.full(len(inner), 0.5), where=total > 0),
        value=ensemble.value.astype(np.float64),
        derived=derived,
        category_set=ensemble.category_set.astype(np.int64),
        threshold=threshold,
        missing_left=ensemble.missing_left.astype(np.bool_),
        zero_low=np.where(ensemble.zero_is_missing, zero_low[raw], 1.0),  # between 1 and 0 lies nothing
        zero_high=np.where(ensemble.zero_is_missing, zero_high[raw], 0.0),
    )


@compiled()
def _measure(roots: Any, left: Any, right: Any, feature: Any) -> Any:
    """Most distinct features on any path, and the depth of the deepest tree."""
    most, deepest = 0, 0
    stack = np.empty((64, 3), np.int64)  # node, depth, distinct features above
    path = np.empty(64, np.int32)
    for root in roots:
        top = 0
        stack[0, 0], stack[0, 1], stack[0, 2] = root, 0, 0
        while top >= 0:
            node, depth, distinct = stack[top, 0], stack[top, 1], stack[top, 2]
            top -= 1
            most, deepest = max(most, distinct), max(deepest, depth)
            if left[node] < 0:
                continue
            again = False
            for j in range(depth):
                again = again or path[j] == feature[node]
            if depth + 1 >= len(path):
                path = np.concatenate((path, np.empty(len(path), np.int32)))
            path[depth] = feature[node]  # preorder: the entries above are the ancestors'
            if top + 3 >= len(stack):
                stack = np.concatenate((stack, np.empty(stack.shape, np.int64)))
            for child in (right[node], left[node]):
                top += 1
                stack[top, 0], stack[top, 1], stack[top, 2] = child, depth + 1, distinct + (0 if again else 1)
    return most, deepest


@compiled()
def _emit(roots: Any, nodes: Any, t: Any, used: int, deepest: int) -> Any:
    """Operations and factors of all trees, in depth-first order; expected value of each tree."""
    ops = np.zeros((1024, COLUMNS), np.int32)
    factors = np.zeros(4096, np.float32)
    n: Any = np.int64(0)  # not a literal: numba would compile every step twice
    k: Any = np.int64(0)
    starts = np.zeros(len(roots) + 1, np.int64)
    expected = np.zeros(len(roots), np.float64)
    stack = np.empty((deepest + 2, 5), np.int64)  # node, depth, C slot, H slot, children done
    reach = np.empty(deepest + 2, np.float64)  # share of the training rows that come here
    path = _Path(
        np.empty(deepest + 1, np.int64),
        np.empty(deepest + 1, np.float64),
        np.empty(deepest + 1, np.int64),
        np.empty(deepest + 1, np.int64),
    )
    for tree in range(len(roots)):
        top = 0
        stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3], stack[0, 4] = roots[tree], 0, 0, 2 * deepest + 2, 0
        reach[0] = 1.0
        while top >= 0:
            node, d, c, h, done = stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3], stack[top, 4]
            if n + 4 > len(ops):
                ops = np.concatenate((ops, np.zeros(ops.shape, np.int32)))
            if k + 32 + 16 * len(t) > len(factors):
                factors = np.concatenate((factors, np.zeros(len(factors) + 32 + 16 * len(t), np.float32)))
            hot, cold = nodes.hot[node], nodes.cold[node]
            if _is_end(nodes, node) or (_is_end(nodes, hot) and _is_end(nodes, cold)):
                expected[tree] += reach[top] * _expected(nodes, node)
                if hot < 0:
                    if d > 0:  # a tree of one leaf is part of the base value, nothing else
                        n, k = _leaf(ops, n, factors, k, nodes, node, c, h)
                elif nodes.hot[hot] < 0 and nodes.hot[cold] < 0:
                    n, k = _pair(ops, n, factors, k, nodes, path, node, d, c, h, t, used)
                else:
                    n, k = _triple(ops, n, factors, k, nodes, path, node, d, c, h, t, used, deepest)
                top -= 1
                continue
            before = _earlier(path, d, nodes.feature[node])
            w_old = _share_above(path, before)
            if done == 2:
                n, k = _join(ops, n, factors, k, nodes, path, node, d, h, t, used)
                top -= 1
                continue
            if done == 0:
                n, k = _split(ops, n, factors, k, nodes, path, node, d, c, t, used)
                path.feature[d] = nodes.feature[node]
                path.operation[d] = n - 1
            share = nodes.share[node] if done == 0 else 1 - nodes.share[node]
            path.side[d], path.share[d] = done, w_old * share
            stack[top, 4] = done + 1
            top += 1
            stack[top, 0], stack[top, 1], stack[top, 4] = (hot if done == 0 else cold), d + 1, 0
            stack[top, 2], stack[top, 3] = 1 + 2 * d + done, 2 * d + done
            reach[top] = reach[top - 1] * share
        starts[tree + 1] = n
    return ops[:n].copy(), factors[:k].copy(), starts, expected


@compiled()
def _is_end(nodes: Any, node: int) -> bool:
    """A leaf, or a pair."""
    return bool(nodes.hot[node] < 0 or (nodes.hot[nodes.hot[node]] < 0 and nodes.hot[nodes.cold[node]] < 0))


@compiled()
def _expected(nodes: Any, node: int) -> float:
    """Expected value of a leaf, a pair or a triple under the training cover."""
    if nodes.hot[node] < 0:
        return nodes.value[node]  # type: ignore[no-any-return]
    total = 0.0
    for child, share in ((nodes.hot[node], nodes.share[node]), (nodes.cold[node], 1 - nodes.share[node])):
        if nodes.hot[child] < 0:
            total += share * nodes.value[child]
        else:
            hot, cold = nodes.hot[child], nodes.cold[child]
            total += share * (nodes.share[child] * nodes.value[hot] + (1 - nodes.share[child]) * nodes.value[cold])
    return total


@compiled()
def _earlier(path: Any, depth: int, feature: int) -> int:
    """Depth of the last split on the feature above `depth`, or −1."""
    for j in range(depth - 1, -1, -1):
        if path.feature[j] == feature:
            return j
    return -1


@compiled()
def _share_above(path: Any, before: int) -> float:
    """w_old: share that the feature's earlier splits let through."""
    return 1.0 if before < 0 else path.share[before]


@compiled()
def _follows(ops: Any, path: Any, before: int) -> int:
    """Plane that says whether the row follows the earlier splits (0: always); its SPLIT is told to keep it."""
    if before < 0:
        return 0
    ops[path.operation[before], FLAGS] |= KEEP_HOT if path.side[before] == 0 else KEEP_COLD
    return 1 + 2 * before + path.side[before]  # type: ignore[no-any-return]


@compiled()
def _point(share: float, w_old: float, t: float) -> Any:
    """Of one split at one quadrature point: r if hot, if cold; 1 − r if hot, if cold; q_hot, q_cold, q_old.

    1 − r comes from its own terms: a rare child's share would be lost to rounding in the difference.
    """
    w_hot, w_cold = w_old * share, w_old * (1 - share)
    old = w_old + (1 - w_old) * t
    hot, cold = w_hot + (1 - w_hot) * t, w_cold + (1 - w_cold) * t
    missed = (1 - t) / old
    q_hot, q_cold, q_old = 1 / (hot * (1 - t)), 1 / (cold * (1 - t)), 1 / (old * (1 - t))
    return hot / old, w_hot * missed, w_cold * missed, cold / old, q_hot, q_cold, q_old


@compiled()
def _pair_point(nodes: Any, node: int, w_old: float, t: float) -> Any:
    """Of a leaf or pair, per unit of C: the sum below if hot, if cold; the feature's φ if hot, if cold."""
    if nodes.hot[node] < 0:
        return nodes.value[node], nodes.value[node], 0.0, 0.0
    v_hot, v_cold = nodes.value[nodes.hot[node]], nodes.value[nodes.cold[node]]
    r1, r0, c1, c0, q_hot, q_cold, q_old = _point(nodes.share[node], w_old, t)
    phi1 = (q_hot - q_old) * r1 * v_hot - q_old * c1 * v_cold
    phi0 = -q_old * r0 * v_hot + (q_cold - q_old) * c0 * v_cold
    return r1 * v_hot + c1 * v_cold, r0 * v_hot + c0 * v_cold, phi1, phi0


@compiled()
def _compare(ops: Any, n: int, factors: Any, k: int, nodes: Any, node: int, plane: int) -> Any:
    """Plane whose values the node's comparison reads: its feature's, or `plane`, derived by an operation of its own."""
    if not nodes.derived[node]:
        return n, k, nodes.feature[node]
    ops[n, KIND], ops[n, X1], ops[n, X2], ops[n, K] = DERIVE, nodes.feature[node], plane, k
    ops[n, DEPTH] = nodes.category_set[node]
    factors[k], factors[k + 1] = nodes.threshold[node], 1.0 if nodes.missing_left[node] else 0.0
    factors[k + 2], factors[k + 3] = nodes.zero_low[node], nodes.zero_high[node]
    return n + 1, k + 4, plane


@compiled()
def _operation(ops: Any, n: int, kind: int, x: int, feature: int, c: int, h: int, s: int, k: int, depth: int) -> None:
    ops[n, KIND], ops[n, X1], ops[n, A1], ops[n, C], ops[n, H], ops[n, S1] = kind, x, feature, c, h, s
    ops[n, K], ops[n, DEPTH] = k, depth


@compiled()
def _leaf(ops: Any, n: int, factors: Any, k: int, nodes: Any, node: int, c: int, h: int) -> Any:
    """Factors: the value."""
    _operation(ops, n, LEAF, 0, 0, c, h, 0, k, 0)
    factors[k] = nodes.value[node]
    return n + 1, k + 1


@compiled()
def _pair(
    ops: Any, n: int, factors: Any, k: int, nodes: Any, path: Any, node: int, d: int, c: int, h: int, t: Any, used: int
) -> Any:
    """Factors: sign, limit; φ per Σ C if hot, if cold; by point the sum below if hot, if cold.

    AGAIN: sign, limit; the sum below if the row does not follow; by point sum hot, sum cold, φ hot, φ cold.
    """
    feature, share = nodes.feature[node], nodes.share[node]
    before = _earlier(path, d, feature)
    w_old, s = _share_above(path, before), _follows(ops, path, before)
    n, k, x = _compare(ops, n, factors, k, nodes, node, used + d)
    _operation(ops, n, PAIR if before < 0 else PAIR_AGAIN, x, feature, c, h, s, k, d)
    factors[k], factors[k + 1] = nodes.sign[node], nodes.limit[node]
    if before < 0:
        difference = nodes.value[nodes.hot[node]] - nodes.value[nodes.cold[node]]
        factors[k + 2], factors[k + 3] = (1 - share) * difference, -share * difference
        k += 4
    else:
        factors[k + 2] = _expected(nodes, node)
        k += 3
    for i in range(len(t)):
        factors[k], factors[k + 1], phi1, phi0 = _pair_point(nodes, node, w_old, t[i])
        k += 2
        if before >= 0:
            factors[k], factors[k + 1] = phi1, phi0
            k += 2
    return n + 1, k


@compiled()
def _triple(
    ops: Any, n: int, factors: Any, k: int, nodes: Any, path: Any, node: int, d: int, c: int, h: int, t: Any,
    used: int, deepest: int,
) -> Any:  # fmt: skip
    """Factors: signs and limits of the three nodes (of a leaf: 1, 0). Then of the top node r and 1 − r where the
    row does not follow, or, if new, the φ factors if hot, if cold; of the children the sums where the row does not
    follow, or, if both are new, the φ factors of each if hot, if cold. By point r, 1 − r and the sums below the
    children, each if hot, if cold; if the top is not new the φ factors as in `_join`; if a child is not new φ of both,
    each if hot, if cold.
    """
    feature, share = nodes.feature[node], nodes.share[node]
    hot, cold = nodes.hot[node], nodes.cold[node]
    before = _earlier(path, d, feature)
    w_old, s = _share_above(path, before), _follows(ops, path, before)
    path.feature[d] = feature
    n, k, x = _compare(ops, n, factors, k, nodes, node, used + d)
    x_hot, x_cold, before_hot, before_cold = x, x, -1, -1
    if nodes.hot[hot] >= 0:
        before_hot = _earlier(path, d + 1, nodes.feature[hot])
        n, k, x_hot = _compare(ops, n, factors, k, nodes, hot, used + deepest + 1)
    if nodes.hot[cold] >= 0:
        before_cold = _earlier(path, d + 1, nodes.feature[cold])
        n, k, x_cold = _compare(ops, n, factors, k, nodes, cold, used + deepest + 2)
    top_again, low_again = before >= 0, before_hot >= 0 or before_cold >= 0
    kind = (TRIPLE_ANY if low_again else TRIPLE_TOP) if top_again else (TRIPLE_LOW if low_again else TRIPLE)
    _operation(ops, n, kind, x, feature, c, h, s, k, d)
    ops[n, X2], ops[n, A2] = x_hot, feature if nodes.hot[hot] < 0 else nodes.feature[hot]
    ops[n, X3], ops[n, A3] = x_cold, feature if nodes.hot[cold] < 0 else nodes.feature[cold]
    factors[k], factors[k + 1] = nodes.sign[node], nodes.limit[node]
    for child, at in ((hot, k + 2), (cold, k + 4)):
        is_leaf = nodes.hot[child] < 0
        factors[at], factors[at + 1] = (1.0, 0.0) if is_leaf else (nodes.sign[child], nodes.limit[child])
    k += 6
    factors[k], factors[k + 1] = (share, 1 - share) if top_again else (1 - share, -share)
    k += 2
    w_hot, w_cold = 1.0, 1.0
    if low_again:
        if before_hot == d:
            ops[n, FLAGS] |= SAME_AS_TOP_HOT
            ops[n, S2], w_hot = s, w_old * share
        else:
            ops[n, S2], w_hot = _follows(ops, path, before_hot), _share_above(path, before_hot)
        if before_cold == d:
            ops[n, FLAGS] |= SAME_AS_TOP_COLD
            ops[n, S3], w_cold = s, w_old * (1 - share)
        else:
            ops[n, S3], w_cold = _follows(ops, path, before_cold), _share_above(path, before_cold)
        factors[k], factors[k + 1] = _expected(nodes, hot), _expected(nodes, cold)
        k += 2
    else:
        for child in (hot, cold):
            difference = 0.0
            if nodes.hot[child] >= 0:
                difference = nodes.value[nodes.hot[child]] - nodes.value[nodes.cold[child]]
            factors[k], factors[k + 1] = (1 - nodes.share[child]) * difference, -nodes.share[child] * difference
            k += 2
    for i in range(len(t)):
        r1, r0, c1, c0, q_hot, q_cold, q_old = _point(share, w_old, t[i])
        factors[k], factors[k + 1], factors[k + 2], factors[k + 3] = r1, r0, c1, c0
        factors[k + 4], factors[k + 5], hot1, hot0 = _pair_point(nodes, hot, w_hot, t[i])
        factors[k + 6], factors[k + 7], cold1, cold0 = _pair_point(nodes, cold, w_cold, t[i])
        k += 8
        if top_again:
            factors[k], factors[k + 1], factors[k + 2] = q_hot - q_old, -q_old, q_cold - q_old
            k += 3
        if low_again:
            factors[k], factors[k + 1], factors[k + 2], factors[k + 3] = hot1, hot0, cold1, cold0
            k += 4
    return n + 1, k


@compiled()
def _split(
    ops: Any, n: int, factors: Any, k: int, nodes: Any, path: Any, node: int, d: int, c: int, t: Any, used: int
) -> Any:
    """Factors: sign, limit; r and 1 − r where the row does not follow; by point r if hot, if cold, 1 − r the same."""
    feature, share = nodes.feature[node], nodes.share[node]
    before = _earlier(path, d, feature)
    w_old, s = _share_above(path, before), _follows(ops, path, before)
    n, k, x = _compare(ops, n, factors, k, nodes, node, used + d)
    _operation(ops, n, SPLIT if before < 0 else SPLIT_AGAIN, x, feature, c, 0, s, k, d)
    factors[k], factors[k + 1], factors[k + 2], factors[k + 3] = nodes.sign[node], nodes.limit[node], share, 1 - share
    k += 4
    for i in range(len(t)):
        factors[k], factors[k + 1], factors[k + 2], factors[k + 3], _, _, _ = _point(share, w_old, t[i])
        k += 4
    return n + 1, k


@compiled()
def _join(
    ops: Any, n: int, factors: Any, k: int, nodes: Any, path: Any, node: int, d: int, h: int, t: Any, used: int
) -> Any:
    """Factors: sign, limit; by point φ factors of H_hot if hot, of the other one, of H_cold if cold."""
    feature = nodes.feature[node]
    before = _earlier(path, d, feature)
    w_old, s = _share_above(path, before), _follows(ops, path, before)
    x = used + d if nodes.derived[node] else feature
    _operation(ops, n, JOIN if before < 0 else JOIN_AGAIN, x, feature, 0, h, s, k, d)
    factors[k], factors[k + 1] = nodes.sign[node], nodes.limit[node]
    k += 2
    for i in range(len(t)):
        _, _, _, _, q_hot, q_cold, q_old = _point(nodes.share[node], w_old, t[i])
        factors[k], factors[k + 1], factors[k + 2] = q_hot - q_old, -q_old, q_cold - q_old
        k += 3
    return n + 1, k
