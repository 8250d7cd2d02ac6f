"""XGBoost: JSON and UBJSON files, boosters and scikit-learn wrappers.

Belongs here: the meaning of the fields of XGBoost's model files, versions 1.0 to 3.x.
Does not belong here: the two formats (see `xai_assets.model_document`).

The library itself is not needed for a file. What the fields mean was checked against XGBoost 3.2's predictions:
numbers are float32 written in decimal, so they are rounded to float32 first; a numeric split sends x left iff
x < threshold; a categorical split sends the listed codes right and every other code, negative and unseen ones
included, left (codes are whole numbers: of a fraction between -1 and 0 XGBoost says that it is no category, the one
form that it is code 0); DART multiplies each tree with its `weight_drop`; `base_score` is stored in the units of the
prediction, not of the margin.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.ensemble import Float64, Int64, TreeEnsemble, UInt32
from xai_assets.explain.treeshap.readers.assemble import RawTree, assemble, check_tree_count
from xai_assets.explain.treeshap.readers.content import file_content, wrong_object
from xai_assets.model_document import parse

NEWEST_MAJOR = 3
MAX_CATEGORY = 2**24
"""XGBoost's own limit: codes are float32."""


def _identity(value: Float64) -> Float64:
    return value


def _logit(probability: Float64) -> Float64:
    return -np.log(1.0 / probability - 1.0)


_LINKS: Mapping[str, Callable[[Float64], Float64]] = {
    "reg:logistic": _logit,
    "binary:logistic": _logit,
    "count:poisson": np.log,
    "reg:gamma": np.log,
    "reg:tweedie": np.log,
    "survival:cox": np.log,
    "survival:aft": np.log,
    "reg:squarederror": _identity,
    "reg:linear": _identity,
    "reg:squaredlogerror": _identity,
    "reg:pseudohubererror": _identity,
    "reg:absoluteerror": _identity,
    "reg:quantileerror": _identity,
    "binary:hinge": _identity,
    "binary:logitraw": _identity,
    "multi:softmax": _identity,
    "multi:softprob": _identity,
    "rank:pairwise": _identity,
    "rank:ndcg": _identity,
    "rank:map": _identity,
}
"""From `base_score` to margin. A custom objective is stored under the name given beside it, by default identity."""

_BOOSTER_PARTS = {"name", "model", "gbtree", "weight_drop"}
_MODEL_PARTS = {"trees", "tree_info", "gbtree_model_param", "iteration_indptr", "cats", "weight_drop"}
_TREE_PARTS = {
    *("id", "tree_param", "left_children", "right_children", "parents", "split_indices", "split_conditions"),
    *("split_type", "default_left", "categories", "categories_nodes", "categories_segments", "categories_sizes"),
    *("base_weights", "leaf_weights", "loss_changes", "sum_hessian"),
    "leaf_child_counts",  # up to 1.2; always zero
}


def read(model: Any) -> TreeEnsemble:
    """The trees of an XGBoost model, those up to the best iteration where early stopping stored one.

    Parameters
    ----------
    model
        A `Booster`, a fitted scikit-learn wrapper, the path of a JSON or UBJSON file, or its bytes.

    Returns
    -------
    One output per class or target. Its margin is what ``predict(output_margin=True)`` gives.

    Raises
    ------
    ModelError
        Damaged or no XGBoost model, no trees or too many, a linear booster, a version or objective that is not known.
    """
    raw, location = _content(model)
    try:
        document = parse(raw)
        learner = document["learner"]
        _refuse_linear(learner, location)
        return _ensemble(document, learner, location)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError, AttributeError) as error:
        raise ModelError(
            f"{location} is damaged, or not an XGBoost model",
            expected="a complete JSON or UBJSON file written by booster.save_model",
            found=f"no part {error}" if isinstance(error, KeyError) else str(error).splitlines()[0][:200],
            next_step="copy the file again, or save the model again",
        ) from error


def _content(model: Any) -> tuple[bytes, str]:
    found = file_content(model)
    if found is not None:
        return found
    if hasattr(model, "get_booster"):
        try:
            model = model.get_booster()
        except Exception as error:  # scikit-learn's NotFittedError, which needs no import here
            raise ModelError("the XGBoost model is not fitted", found=str(error), next_step="call fit first") from error
    if not hasattr(model, "save_raw"):
        raise wrong_object(model, "an xgboost.Booster, a fitted wrapper, a path, or the bytes of a model file")
    return bytes(model.save_raw("ubj")), "the booster"


def _refuse_linear(learner: Mapping[str, Any], location: str) -> None:
    if learner["gradient_booster"]["name"] == "gblinear":
        raise ModelError(
            f"{location} is a linear booster and has no trees",
            expected="booster gbtree or dart",
            found="gblinear",
            next_step="explain it with the linear explainer, which is exact for it",
        )


def _ensemble(document: Mapping[str, Any], learner: Mapping[str, Any], location: str) -> TreeEnsemble:
    version = [int(part) for part in document["version"]]
    if version[0] > NEWEST_MAJOR:
        raise ModelError(
            f"{location} was written by a newer XGBoost",
            expected=f"version {NEWEST_MAJOR}.x or older",
            found=".".join(map(str, version)),
            next_step="update this package, or save the model with an older XGBoost",
        )
    parameters = learner["learner_model_param"]
    n_features = int(parameters["num_feature"])
    outputs = max(int(parameters.get("num_class", 0)), int(parameters.get("num_target", 1)), 1)
    names = list(learner.get("feature_names") or ())
    if len(names) not in (0, n_features):
        raise ValueError(f"{len(names)} feature names for {n_features} features")
    return assemble(
        _trees(learner, outputs, location),
        n_features=n_features,
        base_score=_base_score(parameters, str(learner["objective"]["name"]), outputs, location),
        input_precision="float32",
        feature_names=names,
        source="xgboost " + ".".join(map(str, version)),
        location=location,
    )


def _base_score(parameters: Mapping[str, Any], objective: str, outputs: int, location: str) -> Float64:
    """Stored as text: one number, or since 3.1 a list with one number per output."""
    if objective not in _LINKS:
        raise ModelError(
            f"{location} has an objective that is not known, so its base score cannot be read",
            expected=", ".join(_LINKS),
            found=objective,
        )
    text = str(parameters["base_score"]).strip("[] ")
    stored = np.array([float(part) for part in text.split(",")], np.float32).astype(np.float64)
    if len(stored) not in (1, outputs):
        raise ValueError(f"{len(stored)} base scores for {outputs} outputs")
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = _LINKS[objective](stored)
    if not np.isfinite(margin).all():
        raise ValueError(f"base score {text} is outside what {objective} allows")
    return np.broadcast_to(margin, (outputs,)).copy()


def _trees(learner: Mapping[str, Any], outputs: int, location: str) -> list[RawTree]:
    booster = learner["gradient_booster"]
    model = booster["gbtree"]["model"] if "gbtree" in booster else booster["model"]
    stored, groups = model["trees"], [int(group) for group in model["tree_info"]]
    if int(model["gbtree_model_param"]["num_trees"]) != len(stored) or len(groups) != len(stored):
        raise ValueError("the number of trees is not what the model says")
    if groups and not 0 <= min(groups) <= max(groups) < outputs:
        raise ValueError(f"trees of outputs outside 0 … {outputs - 1}")
    _refuse_unknown_parts(booster, model, stored, location)
    dropped = [*booster.get("weight_drop", ()), *model.get("weight_drop", ())]  # 3.4 moved it into the model
    weights = [float(np.float32(weight)) for weight in dropped] or [1.0] * len(stored)
    if len(weights) != len(stored):
        raise ValueError("the number of tree weights is not the number of trees")
    used = _used_trees(learner, model, len(stored), outputs)
    check_tree_count(used, location)
    return [_tree(stored[i], groups[i], weights[i], outputs) for i in range(used)]


def _refuse_unknown_parts(
    booster: Mapping[str, Any], model: Mapping[str, Any], trees: Sequence[Mapping[str, Any]], location: str
) -> None:
    """A part that this reader does not know could change every prediction: 3.4 moved DART's weights, for one."""
    for known, section in ((_BOOSTER_PARTS, booster), (_MODEL_PARTS, model), *((_TREE_PARTS, tree) for tree in trees)):
        unknown = sorted(section.keys() - known)
        if unknown:
            raise ModelError(
                f"{location} has a part that is not known, so it may be of a newer XGBoost",
                found=f"'{unknown[0]}'",
                next_step="update this package, or save the model with an older XGBoost",
            )


def _used_trees(learner: Mapping[str, Any], model: Mapping[str, Any], trees: int, outputs: int) -> int:
    """Trees up to the best iteration, as XGBoost's scikit-learn interface predicts with."""
    best = (learner.get("attributes") or {}).get("best_iteration")
    if best is None:
        return trees
    borders: Sequence[int] | None = model.get("iteration_indptr")
    if borders is None:  # before 2.0 every round had the same number of trees
        each = outputs * max(int(model["gbtree_model_param"].get("num_parallel_tree", 1)), 1)
        return min(trees, (int(best) + 1) * each)
    rounds = np.asarray(borders, np.int64)
    if len(rounds) == 0 or rounds[0] != 0 or rounds[-1] != trees or (np.diff(rounds) < 0).any() or int(best) < 0:
        raise ValueError("boosting rounds do not cover the trees")
    return int(rounds[min(int(best) + 1, len(rounds) - 1)])


def _float32(values: npt.ArrayLike) -> Float64:
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float64).astype(np.float32).astype(np.float64)


def _tree(tree: Mapping[str, Any], group: int, weight: float, outputs: int) -> RawTree:
    left = np.asarray(tree["left_children"], np.int64)
    right = np.asarray(tree["right_children"], np.int64)
    conditions = _float32(tree["split_conditions"])
    width = int(tree["tree_param"].get("size_leaf_vector", 1))
    if len({len(left), len(right), len(conditions), int(tree["tree_param"]["num_nodes"])}) != 1:
        raise ValueError("a tree's arrays are cut off")
    if "sum_hessian" not in tree or (width > 1 and "leaf_weights" not in tree):
        raise ModelError(
            "trees with vector leaves carry no training weights in files of this XGBoost version",
            expected="multi_output_tree models saved by XGBoost 3.2 or later",
            next_step="train with multi_strategy='one_output_per_tree', or with a newer XGBoost",
        )
    value = _vector_leaves(tree, left, right, width, outputs) if width > 1 else conditions
    positions, sets = _categories(tree, len(left))
    return RawTree(
        left=left,
        right=np.where(left < 0, -1, right) if width > 1 else right,  # leaves with vectors keep their number here
        feature=np.asarray(tree["split_indices"], np.int64),
        threshold=conditions,
        missing_left=np.asarray(tree["default_left"], np.bool_),
        value=value * weight,
        cover=_float32(tree["sum_hessian"]),
        output=group,
        category_set=positions,
        sets=sets,
    )


def _vector_leaves(tree: Mapping[str, Any], left: Int64, right: Int64, width: int, outputs: int) -> Float64:
    if width != outputs:
        raise ValueError(f"leaves with {width} values for {outputs} outputs")
    leaves = left < 0
    vectors = _float32(tree["leaf_weights"]).reshape(-1, width)
    value = np.zeros((len(left), width))
    # A tree that is one leaf has no number for it.
    numbers = np.maximum(right[leaves], 0)
    if (numbers >= len(vectors)).any():
        raise ValueError("a leaf's values are cut off")
    value[leaves] = vectors[numbers]
    return value


def _categories(tree: Mapping[str, Any], nodes: int) -> tuple[Int64 | None, list[tuple[UInt32, bool]]]:
    kinds = np.asarray(tree.get("split_type", ()), np.int64)
    owners = np.asarray(tree.get("categories_nodes", ()), np.int64)
    inner = np.asarray(tree["left_children"], np.int64) >= 0
    if len(kinds) not in (0, nodes) or ((kinds != 0) & (kinds != 1)).any():
        raise ValueError("an unknown kind of split")
    if len(kinds) and not np.isin(np.flatnonzero((kinds == 1) & inner), owners).all():
        raise ValueError("sets of categories do not belong to the categorical splits")
    if len(owners) == 0:
        return None, []
    starts, sizes = (np.asarray(tree[key], np.int64) for key in ("categories_segments", "categories_sizes"))
    codes = np.asarray(tree["categories"], np.int64)
    if not len(owners) == len(starts) == len(sizes) or owners.min() < 0 or owners.max() >= nodes:
        raise ValueError("sets of categories do not belong to the categorical splits")
    if (starts < 0).any() or (sizes < 0).any() or (starts + sizes > len(codes)).any():
        raise ValueError("sets of categories are cut off")
    if len(codes) and (codes.min() < 0 or codes.max() >= MAX_CATEGORY):
        raise ValueError("a category's code is out of range")
    positions = np.full(nodes, -1, np.int64)
    positions[owners] = np.arange(len(owners))
    return positions, [(_all_but(codes[start : start + size]), True) for start, size in zip(starts, sizes, strict=True)]


def _all_but(codes: Int64) -> UInt32:
    """Words with every bit set but those of `codes`, which go right."""
    words = np.full(int(codes.max()) // 32 + 1 if len(codes) else 0, 0xFFFFFFFF, np.uint32)
    np.bitwise_and.at(words, codes // 32, ~(np.uint32(1) << (codes % 32).astype(np.uint32)))
    return words
