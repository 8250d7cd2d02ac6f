"""The trees inside a fitted scikit-learn estimator, checked before they predict.

Belongs here: finding every tree, however deep, and whether its indices lie within it. Does not belong here: reading
files (see `sklearn`), the values of leaves.

scikit-learn walks trees in compiled code without bounds: a child that points back never ends, an index out of range
reads foreign memory. Its own reader checks the sizes of arrays, not what is in them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

BITSET_WORDS = 8
"""256 levels of a categorical feature at most, in words of 32 bits."""


def check_trees(estimator: Any) -> None:
    """Check every tree that an estimator holds: of pipelines, ensembles, calibration, stacks and their members.

    Raises
    ------
    ValueError
        Children are not a tree, or a split reads a feature or a set of levels that does not exist.
    """
    from sklearn.ensemble._forest import BaseForest
    from sklearn.ensemble._gb import BaseGradientBoosting
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.tree import BaseDecisionTree

    for part in _parts(estimator):
        if not hasattr(part, "n_features_in_"):
            continue
        if isinstance(part, BaseForest | BaseGradientBoosting):
            _check_members(part)
        if isinstance(part, BaseDecisionTree) and hasattr(part, "tree_"):
            _check_tree(part.tree_, int(part.n_features_in_))
        if isinstance(part, BaseHistGradientBoosting):
            _check_histograms(part)


def _parts(root: Any) -> Iterator[Any]:
    """The estimator and every object of scikit-learn in its attributes, at any depth, each once."""
    from sklearn.base import BaseEstimator

    seen: set[int] = set()
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        if isinstance(value, Mapping):
            inner = list(value.values())
        elif isinstance(value, list | tuple):
            inner = list(value)
        elif isinstance(value, np.ndarray) and value.dtype == object:
            inner = list(value.flat)
        elif isinstance(value, BaseEstimator) or type(value).__module__.startswith("sklearn."):
            yield value
            inner = list(getattr(value, "__dict__", {}).values())
        else:
            continue
        seen.add(id(value))
        waiting += inner


def _check_members(ensemble: Any) -> None:
    """Forests and gradient boosting check the rows once and hand them to all trees unchecked."""
    members = np.asarray(getattr(ensemble, "estimators_", []), dtype=object)
    for number, member in enumerate(members.flat):
        if member.n_features_in_ != ensemble.n_features_in_:
            raise ValueError(f"tree {number} reads {member.n_features_in_} features of {ensemble.n_features_in_}")
    per_round = getattr(ensemble, "n_trees_per_iteration_", None)
    if per_round is not None and members.shape[1:] != (per_round,):
        raise ValueError(f"trees of shape {list(members.shape)} for {per_round} per round")


def _check_tree(tree: Any, features: int) -> None:
    left, right = (np.asarray(a, dtype=np.int64) for a in (tree.children_left, tree.children_right))
    inner = left != -1
    _check_children(left[inner], right[inner], inner)
    _check_features(np.asarray(tree.feature)[inner], features)


def _check_histograms(boosting: Any) -> None:
    features = int(boosting.n_features_in_)
    mapper = boosting._bin_mapper
    mask = None if mapper is None else mapper.is_categorical_
    categorical = np.zeros(features, bool) if mask is None else np.asarray(mask, dtype=bool)
    if categorical.shape != (features,):
        raise ValueError(f"{categorical.size} kinds of features for {features} features")
    for predictor in (p for round_ in boosting._predictors for p in round_):
        nodes = predictor.nodes
        inner = ~nodes["is_leaf"].astype(bool)
        splits = nodes[inner]
        _check_children(splits["left"].astype(np.int64), splits["right"].astype(np.int64), inner)
        _check_features(splits["feature_idx"].astype(np.int64), features)
        by_level = splits[splits["is_categorical"].astype(bool)]
        sets = predictor.raw_left_cat_bitsets
        if sets.ndim != 2 or sets.shape[1] != BITSET_WORDS or (by_level["bitset_idx"] >= len(sets)).any():
            raise ValueError("a split on a set of levels that does not exist")
        if not categorical[by_level["feature_idx"]].all():
            raise ValueError("a split on levels of a feature that has none")


def _check_children(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], inner: npt.NDArray[np.bool_]) -> None:
    """Children come after their parent, so that no walk returns, and lie in the tree. inner: of all nodes."""
    if not len(inner):
        raise ValueError("a tree without nodes")
    parents = np.flatnonzero(inner)
    for children in (left, right):
        if (children <= parents).any() or (children >= len(inner)).any():
            raise ValueError("children are not a tree")


def _check_features(used: npt.NDArray[Any], features: int) -> None:
    if ((used < 0) | (used >= features)).any():
        raise ValueError("a split on a feature that does not exist")
