"""From single trees, as a library stores them, to the arrays of a `TreeEnsemble`.

Belongs here: joining trees, dropping nodes that nothing reaches, and the checks that hold for every library.
Does not belong here: what a library's fields mean (see the reader of each).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.ensemble import MAX_TREES, Bool, Float64, Int32, Int64, TreeEnsemble, UInt32


@dataclass(frozen=True)
class RawTree:
    """One tree of n nodes, root at 0; positions are its own. Fields as in `TreeEnsemble`, if not said here.

    value: float64 [n], or [n, k] for leaves that give all k outputs.
    output: which output the leaves of a one-column `value` add to.
    category_set: int64 [n], index into `sets`, or None where no split is categorical.
    sets: per set its words and where other codes go (True: left).
    """

    left: Int64
    right: Int64
    feature: Int64
    threshold: Float64
    missing_left: Bool
    value: Float64
    cover: Float64
    output: int = 0
    zero_is_missing: Bool | None = None
    category_set: Int64 | None = None
    sets: Sequence[tuple[UInt32, bool]] = field(default=())


def check_tree_count(count: int, location: str) -> None:
    """Refuse models without trees, and such with more than `MAX_TREES`."""
    if count == 0:
        raise ModelError(
            f"{location} has no trees",
            expected="a fitted model with at least one tree",
            next_step="train it for at least one round, then save it again",
        )
    if count > MAX_TREES:
        raise ModelError(
            f"{location} has too many trees",
            expected=f"at most {MAX_TREES}",
            found=str(count),
            next_step="train fewer rounds with a higher learning rate",
        )


def at_most(left: Int64, right: Int64, threshold: Float64, missing_left: Bool) -> tuple[Int64, Int64, Float64, Bool]:
    """Children, threshold and direction of missing values for splits that send x left iff x ≤ threshold.

    A split that only parts missing values from all others has the threshold ∞, and x = ∞ goes left there, which no
    x < t says: its children change places, and t = −∞ sends every number right.
    """
    everything = np.isposinf(threshold)
    return (
        np.where(everything, right, left),
        np.where(everything, left, right),
        np.where(everything, -np.inf, np.nextafter(threshold, np.inf)),
        np.where(everything, ~missing_left, missing_left),
    )


def assemble(
    trees: Sequence[RawTree],
    *,
    n_features: int,
    base_score: npt.ArrayLike,
    input_precision: str,
    feature_names: Sequence[str],
    source: str,
    location: str,
) -> TreeEnsemble:
    """One ensemble of all trees. Trees with vector leaves are stored once per output; unreachable nodes are dropped.

    Raises
    ------
    ModelError
        No trees or too many, or arrays that are no trees over `n_features` features: naming `location`.
    """
    base = np.atleast_1d(np.asarray(base_score, dtype=np.float64))
    check_tree_count(len(trees), location)
    scalar = [part for tree in trees for part in _per_output(tree)]
    try:
        _check_lengths(scalar)
        starts = np.cumsum([0, *(len(tree.left) for tree in scalar)])
        left, right = (_joined_children(scalar, starts, side) for side in ("left", "right"))
        feature = np.concatenate([tree.feature for tree in scalar]).astype(np.int64)
        _check_shape(left, right, feature, starts, n_features)
        value, threshold, cover = (
            np.concatenate([getattr(tree, name) for tree in scalar]).astype(np.float64)
            for name in ("value", "threshold", "cover")
        )
        categories, category_starts, words, other_left = _joined_sets(scalar)
        _check_numbers(left, np.where(categories < 0, threshold, 0.0), value, cover, base)
    except ValueError as error:
        raise ModelError(
            f"{location} is damaged", found=str(error), next_step="copy the file again, or save the model again"
        ) from error
    leaf = left < 0
    whole = TreeEnsemble(
        n_features=n_features,
        tree_starts=starts.astype(np.int64),
        tree_output=np.array([tree.output for tree in scalar], np.int32),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        feature=np.where(leaf, -1, feature).astype(np.int32),
        threshold=np.where(leaf | (categories >= 0), 0.0, threshold),
        missing_left=np.concatenate([tree.missing_left for tree in scalar]).astype(np.bool_) & ~leaf,
        zero_is_missing=np.concatenate([_zero_is_missing(tree) for tree in scalar]) & ~leaf,
        category_set=np.where(leaf, -1, categories).astype(np.int32),
        category_starts=category_starts,
        category_words=words,
        category_other_left=other_left,
        value=np.where(leaf, value, 0.0),
        cover=cover,
        base_score=base,
        input_precision=input_precision,
        feature_names=tuple(str(name) for name in feature_names),
        source=source,
    )
    return _without_unreachable(whole)


def _per_output(tree: RawTree) -> list[RawTree]:
    if tree.value.ndim == 1:
        return [tree]
    return [
        replace(tree, value=np.ascontiguousarray(tree.value[:, output]), output=output)
        for output in range(tree.value.shape[1])
    ]


def _check_lengths(trees: Sequence[RawTree]) -> None:
    for number, tree in enumerate(trees):
        nodes = len(tree.left)
        names = ["right", "feature", "threshold", "missing_left", "value", "cover"]
        names += [name for name in ("zero_is_missing", "category_set") if getattr(tree, name) is not None]
        wrong = [name for name in names if len(getattr(tree, name)) != nodes]
        if nodes == 0 or wrong:
            raise ValueError(f"tree {number} has no nodes" if not wrong else f"tree {number}: {wrong[0]} is cut off")


def _joined_children(trees: Sequence[RawTree], starts: Int64, side: str) -> Int64:
    parts = []
    for number, (tree, start) in enumerate(zip(trees, starts[:-1], strict=True)):
        own = np.asarray(getattr(tree, side), dtype=np.int64)
        if (own >= len(own)).any() or (own == 0).any():
            raise ValueError(f"tree {number}: a child that is not a node of the tree")
        parts.append(np.where(own < 0, -1, own + start))
    return np.concatenate(parts)


def _check_shape(left: Int64, right: Int64, feature: Int64, starts: Int64, n_features: int) -> None:
    """Every node has at most one parent and roots have none: no walk from a root can come back."""
    inner = left >= 0
    if not np.array_equal(inner, right >= 0):
        raise ValueError("a node with one child")
    children = np.concatenate((left[inner], right[inner]))
    if len(np.unique(children)) != len(children):
        tree = int(np.searchsorted(starts, children[0], "right")) - 1 if len(children) else 0
        raise ValueError(f"two nodes share a child, near tree {tree}")
    reachable = _reachable(left, right, starts)
    used = feature[inner & reachable]
    if len(used) and (used.min() < 0 or used.max() >= n_features):
        raise ValueError(f"a split on a feature outside 0 … {n_features - 1}")


def _check_numbers(left: Int64, threshold: Float64, value: Float64, cover: Float64, base: Float64) -> None:
    inner = left >= 0
    if np.isnan(threshold[inner]).any():
        raise ValueError("a threshold that is not a number")
    if not np.isfinite(value[~inner]).all() or not np.isfinite(base).all():
        raise ValueError("a leaf or a base score that is not finite")
    if not np.isfinite(cover).all() or (cover < 0).any():
        raise ValueError("a node's training weight is negative or not finite")


def _zero_is_missing(tree: RawTree) -> Bool:
    return np.zeros(len(tree.left), np.bool_) if tree.zero_is_missing is None else tree.zero_is_missing


def _joined_sets(trees: Sequence[RawTree]) -> tuple[Int64, Int64, UInt32, Bool]:
    positions: list[Int64] = []
    sizes, words = [0], [np.empty(0, np.uint32)]
    other_left: list[bool] = []
    for tree in trees:
        before = len(other_left)
        own = np.full(len(tree.left), -1) if tree.category_set is None else np.asarray(tree.category_set, np.int64)
        positions.append(np.where(own < 0, -1, own + before))
        for bits, other in tree.sets:
            if len(bits) == 0:  # one word that says the same spares kernels the empty case
                bits = np.full(1, 0xFFFFFFFF if other else 0, np.uint32)
            words.append(np.asarray(bits, np.uint32))
            sizes.append(len(bits))
            other_left.append(other)
    starts = np.cumsum(sizes).astype(np.int64)
    return np.concatenate(positions), starts, np.concatenate(words), np.array(other_left, np.bool_)


def _reachable(left: Int64, right: Int64, starts: Int64) -> Bool:
    reached = np.zeros(len(left), np.bool_)
    level = starts[:-1]
    while len(level):
        reached[level] = True
        inner = level[left[level] >= 0]
        level = np.concatenate((left[inner], right[inner]))
    return reached


def _without_unreachable(whole: TreeEnsemble) -> TreeEnsemble:
    """Pruning leaves deleted nodes behind in XGBoost's files; kernels should not carry them."""
    kept = _reachable(whole.left.astype(np.int64), whole.right.astype(np.int64), whole.tree_starts)
    if kept.all():
        return whole
    moved = np.cumsum(kept) - 1
    per_node = ("feature", "threshold", "missing_left", "zero_is_missing", "category_set", "value", "cover")

    def children(side: Int32) -> Int32:
        own = side[kept]
        return np.where(own < 0, -1, moved[np.maximum(own, 0)]).astype(np.int32)

    return replace(
        whole,
        tree_starts=np.concatenate(([0], np.cumsum(kept)[whole.tree_starts[1:] - 1])).astype(np.int64),
        left=children(whole.left),
        right=children(whole.right),
        **{name: getattr(whole, name)[kept] for name in per_node},
    )
