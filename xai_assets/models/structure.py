"""What the document of an XGBoost model must look like for its library to be trusted with it.

Belongs here: checks of sizes, indices, weights and the shape of trees, so that a damaged file cannot crash the process
or make a prediction walk in circles. Does not belong here: parsing (see `xai_assets.model_document`), the monitor's
features.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_PER_NODE = (
    "left_children",
    "right_children",
    "parents",
    "split_indices",
    "split_conditions",
    "default_left",
    "base_weights",
)


def check_structure(learner: Mapping[str, Any]) -> None:
    """Check a tree model's ``learner`` section.

    Raises
    ------
    ValueError
        Naming the part that is wrong. KeyError and TypeError for parts that are missing or of another type.
    """
    features = int(learner["learner_model_param"]["num_feature"])
    for key in ("feature_names", "feature_types"):
        if len(learner.get(key) or ()) not in (0, features):
            raise ValueError(f"{len(learner[key])} {key} for {features} features")
    booster = learner["gradient_booster"]
    model = booster["gbtree"]["model"] if "gbtree" in booster else booster["model"]
    trees = model["trees"]
    if int(model["gbtree_model_param"]["num_trees"]) != len(trees) or len(model["tree_info"]) != len(trees):
        raise ValueError("the number of trees is not what the model says")
    if "weight_drop" in booster and len(booster["weight_drop"]) != len(trees):
        raise ValueError("the number of tree weights is not the number of trees")
    if any(int(group) != 0 for group in model["tree_info"]):
        raise ValueError("trees of several outputs")
    _check_rounds(model.get("iteration_indptr"), len(trees))
    if "cats" in model:
        _check_levels(model["cats"], features)
    for number, tree in enumerate(trees):
        try:
            _check_tree(tree, features)
        except ValueError as error:
            raise ValueError(f"tree {number}: {error}") from None


def check_linear(learner: Mapping[str, Any]) -> None:
    """Check a linear booster's ``learner`` section: one finite weight per feature and the bias. Raises as above."""
    features = int(learner["learner_model_param"]["num_feature"])
    for key in ("feature_names", "feature_types"):
        if len(learner.get(key) or ()) not in (0, features):
            raise ValueError(f"{len(learner[key])} {key} for {features} features")
    weights = np.asarray(learner["gradient_booster"]["model"]["weights"], dtype=np.float64)
    if weights.shape != (features + 1,) or not np.isfinite(weights).all():
        raise ValueError(f"{weights.size} weights for {features} features and a bias")


def _check_rounds(borders: Sequence[int] | None, trees: int) -> None:
    if borders is None:
        return
    rounds = np.asarray(borders, dtype=np.int64)
    if len(rounds) == 0 or rounds[0] != 0 or rounds[-1] != trees or (np.diff(rounds) < 0).any():
        raise ValueError("boosting rounds do not cover the trees")


def _check_levels(levels: Mapping[str, Any], features: int) -> None:
    """Stored levels: per feature, text as bytes with offsets, or plain numbers; `feature_segments` counts them up."""
    encodings = levels["enc"]
    if len(encodings) == 0:
        return
    segments = np.asarray(levels["feature_segments"], dtype=np.int64)
    if len(encodings) != features or len(segments) != features + 1:
        raise ValueError("stored levels are not those of the features")
    counts = []
    for encoding in encodings:
        values = encoding["values"]
        if "offsets" not in encoding:
            counts.append(len(values))
            continue
        offsets = np.asarray(encoding["offsets"], dtype=np.int64)
        if len(offsets) and (offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any()):
            raise ValueError("stored levels are cut off")
        counts.append(max(len(offsets) - 1, 0))
    order = np.sort(np.asarray(levels["sorted_idx"], dtype=np.int64))
    if not np.array_equal(np.cumsum([0, *counts]), segments) or len(order) != segments[-1]:
        raise ValueError("stored levels do not add up")
    if len(order) and (order[0] < 0 or order[-1] >= max(counts)):
        raise ValueError("order of the stored levels is out of range")


def _check_tree(tree: Mapping[str, Any], features: int) -> None:
    nodes = int(tree["tree_param"]["num_nodes"])
    if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise ValueError("leaves with several outputs")
    if nodes < 1 or any(len(tree[key]) != nodes for key in _PER_NODE):
        raise ValueError(f"arrays are not {nodes} nodes long")
    left, right = (np.asarray(tree[key], dtype=np.int64) for key in ("left_children", "right_children"))
    inner = left != -1
    if not np.array_equal(inner, right != -1):
        raise ValueError("a node with one child")
    children = np.concatenate((left[inner], right[inner]))
    if ((children < 1) | (children >= nodes)).any() or len(np.unique(children)) != len(children):
        # Each node has at most one parent and the root has none, so no walk from the root can come back.
        raise ValueError("children are not a tree")
    parents = np.asarray(tree["parents"], dtype=np.int64)
    inside = (parents >= 0) & (parents < nodes)
    if not np.array_equal(parents[children], np.tile(np.flatnonzero(inner), 2)) or not inside[1:].all() or inside[0]:
        # XGBoost follows parents without looking: 8 of 500 single damaged bytes crashed it here.
        raise ValueError("parents are not those of the children")
    _check_splits(tree, features, inner, nodes)


def _check_splits(tree: Mapping[str, Any], features: int, inner: npt.NDArray[np.bool_], nodes: int) -> None:
    used = np.asarray(tree["split_indices"], dtype=np.int64)[inner]
    if ((used < 0) | (used >= features)).any():
        raise ValueError("a split on a feature that does not exist")
    kinds = np.asarray(tree["split_type"] if "split_type" in tree else np.zeros(nodes), dtype=np.int64)
    if len(kinds) not in (0, nodes) or ((kinds != 0) & (kinds != 1)).any():
        raise ValueError("an unknown kind of split")
    # A leaf keeps its value in split_conditions; a threshold of infinity is odd but harmless. A categorical split has
    # none: up to 3.1 the file says NaN there.
    unused = (kinds == 1) & inner if len(kinds) else np.zeros(nodes, dtype=np.bool_)
    if np.isnan(np.asarray(tree["split_conditions"], dtype=np.float64)[~unused]).any():
        raise ValueError("a leaf or a threshold is not a number")
    categorical = np.flatnonzero(kinds == 1)
    owners = np.asarray(tree.get("categories_nodes", ()), dtype=np.int64)
    starts = np.asarray(tree.get("categories_segments", ()), dtype=np.int64)
    sizes = np.asarray(tree.get("categories_sizes", ()), dtype=np.int64)
    codes = np.asarray(tree.get("categories", ()), dtype=np.int64)
    if not np.array_equal(np.sort(owners), categorical) or not len(owners) == len(starts) == len(sizes):
        raise ValueError("sets of levels do not belong to the categorical splits")
    if (starts < 0).any() or (sizes < 0).any() or (starts + sizes > len(codes)).any():
        raise ValueError("sets of levels are cut off")
    if len(codes) and (codes.min() < 0 or codes.max() >= 2**24):
        raise ValueError("a level's code is out of range")
