"""LightGBM: text models, boosters and scikit-learn wrappers.

Belongs here: the text format, versions 2 to 4, and the meaning of its fields.
Does not belong here: LightGBM's datasets, pandas categories (a matrix holds codes already).

The library itself is not needed for a file. Rules as in LightGBM 4 (`Tree::NumericalDecision` and
`Tree::CategoricalDecision` in its ``tree.h``), checked against its predictions: numbers are float64 and a split sends x
left iff x ≤ threshold; of a split without missing values (type none) NaN counts as 0; of type zero NaN and zeros count
as missing; of type NaN only NaN does. Every |x| ≤ 1e-35 counts as 0, at any split, because rows are made sparse before
they are predicted. A categorical split sends the listed codes left and NaN, negative and other codes right. The
learning rate and DART's weights are in the leaves already, and so is the average of the labels (in the first tree).
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.ensemble import ZERO, Float64, Int64, TreeEnsemble
from xai_assets.explain.treeshap.readers.assemble import RawTree, assemble, at_most, check_tree_count
from xai_assets.explain.treeshap.readers.content import file_content, wrong_object

KNOWN_VERSIONS = ("v2", "v3", "v4")
CATEGORICAL, DEFAULT_LEFT = 1, 2
"""Bits of `decision_type`; the two above them are the kind of missing values."""
MISSING_NONE, MISSING_ZERO, MISSING_NAN = 0, 1, 2


def read(model: Any) -> TreeEnsemble:
    """The trees of a LightGBM model, those up to the best iteration where the booster knows one.

    Parameters
    ----------
    model
        A `Booster`, a fitted scikit-learn wrapper, the path of a text model, or the text itself (str or bytes).

    Returns
    -------
    One output per class. Its margin is what ``predict`` puts through its link, and equals ``predict(raw_score=True)``
    but for random forests: there LightGBM's raw scores and contributions are the sum of the trees, while ``predict``
    takes their average, and so does the margin here. `cover` counts training rows, as in LightGBM's own contributions.

    Raises
    ------
    ModelError
        Damaged or no LightGBM model, no trees or too many, linear trees, a version that is not known.
    """
    text, location = _text(model)
    try:
        return _ensemble(text, location)
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise ModelError(
            f"{location} is damaged, or not a LightGBM model",
            expected="a complete text file written by booster.save_model",
            found=f"no part {error}" if isinstance(error, KeyError) else str(error).splitlines()[0][:200],
            next_step="copy the file again, or save the model again",
        ) from error


def _text(model: Any) -> tuple[str, str]:
    if isinstance(model, str) and model.startswith("tree\n"):
        return model, "the model"
    found = file_content(model)
    if found is None:
        return _booster_text(model), "the booster"
    raw, location = found
    if not raw.startswith((b"tree\n", b"tree\r\n")):
        raise ModelError(
            f"{location} is not a LightGBM text model",
            expected="a file that starts with 'tree', written by booster.save_model",
            found=f"a file that starts with {raw[:16]!r}",
            next_step="save the model with booster.save_model('model.txt') and give that file",
        )
    return raw.decode("utf-8", errors="replace"), location


def _booster_text(model: Any) -> str:
    if hasattr(type(model), "booster_"):  # on the type: on an instance that is not fitted it raises
        try:
            model = model.booster_
        except Exception as error:
            raise ModelError(
                "the LightGBM model is not fitted", found=str(error), next_step="call fit first"
            ) from error
    if not hasattr(model, "model_to_string"):
        raise wrong_object(model, "a lightgbm.Booster, a fitted wrapper, or the path or text of a text model")
    return str(model.model_to_string())  # up to the best iteration, if there is one


def _ensemble(text: str, location: str) -> TreeEnsemble:
    header, blocks = _sections(text)
    version = header["version"]
    if version not in KNOWN_VERSIONS:
        raise ModelError(
            f"{location} has a format version that is not known",
            expected=", ".join(KNOWN_VERSIONS),
            found=version,
            next_step="update this package, or save the model with LightGBM 4",
        )
    outputs = int(header["num_tree_per_iteration"])
    n_features = int(header["max_feature_idx"]) + 1
    names = header["feature_names"].split()
    if outputs < 1 or len(names) != n_features:
        raise ValueError(f"{len(names)} feature names for {n_features} features, {outputs} trees per iteration")
    if "tree_sizes" in header and len(header["tree_sizes"].split()) != len(blocks):
        raise ValueError("the number of trees is not what the model says")
    check_tree_count(len(blocks), location)
    rounds, rest = divmod(len(blocks), outputs)
    if rest:
        raise ValueError(f"{len(blocks)} trees for {outputs} outputs")
    scale = 1.0 / rounds if "average_output" in header else 1.0
    return assemble(
        [_tree(block, number % outputs, scale, location) for number, block in enumerate(blocks)],
        n_features=n_features,
        base_score=np.zeros(outputs),
        input_precision="float64",
        feature_names=names,
        source=f"lightgbm text {version}",
        location=location,
    )


def _sections(text: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The header's fields, and those of each tree. A field without a value (``average_output``) has an empty one."""
    body, end, _ = text.replace("\r\n", "\n").partition("\nend of trees")
    if not end:
        raise ValueError("the file is cut off: it has no line 'end of trees'")
    parts = body.split("\nTree=")
    sections = [dict(_field(line) for line in part.split("\n") if line) for part in parts]
    return sections[0], sections[1:]


def _field(line: str) -> tuple[str, str]:
    key, _, value = line.partition("=")
    return key, value


def _numbers(block: Mapping[str, str], key: str, count: int) -> Float64:
    found = np.array([float(word) for word in block[key].split()], np.float64)
    if len(found) != count:
        raise ValueError(f"{key} has {len(found)} values instead of {count}")
    return found


def _integers(block: Mapping[str, str], key: str, count: int) -> Int64:
    found = np.array([int(word) for word in block[key].split()], np.int64)
    if len(found) != count:
        raise ValueError(f"{key} has {len(found)} values instead of {count}")
    return found


def _tree(block: Mapping[str, str], output: int, scale: float, location: str) -> RawTree:
    """Nodes in the order: inner nodes as LightGBM numbers them, then its leaves (child −1 is leaf 0)."""
    if int(block.get("is_linear", 0)):
        raise ModelError(
            f"{location} has linear models in its leaves, which no tree explainer can attribute",
            expected="constant leaves",
            found="linear_tree=true",
            next_step="train with linear_tree=false",
        )
    leaves = int(block["num_leaves"])
    if leaves < 1:
        raise ValueError("a tree without leaves")
    values = _numbers(block, "leaf_value", leaves) * scale
    inner = leaves - 1
    if inner == 0:
        return _single_leaf(values, output)
    kinds = _integers(block, "decision_type", inner)
    categorical = (kinds & CATEGORICAL) != 0
    missing = (kinds >> 2) & 3
    if (missing > MISSING_NAN).any():
        raise ValueError("an unknown kind of missing values")
    threshold = _numbers(block, "threshold", inner)
    default_left = (kinds & DEFAULT_LEFT) != 0
    nan_left = np.where(missing == MISSING_NONE, threshold >= 0.0, default_left) & ~categorical

    left, right = (_children(block, key, inner, leaves) for key in ("left_child", "right_child"))
    left, right, border, nan_left = at_most(left, right, np.where(categorical, 0.0, _around_zero(threshold)), nan_left)

    def padded(values: Any, fill: Any) -> Any:
        return np.concatenate((values, np.full(leaves, fill)))

    positions, sets = _categories(block, categorical, threshold)
    return RawTree(
        left=padded(left, -1),
        right=padded(right, -1),
        feature=padded(_integers(block, "split_feature", inner), -1),
        threshold=padded(border, 0.0),
        missing_left=padded(nan_left, False),
        value=np.concatenate((np.zeros(inner), values)),
        cover=np.concatenate((_numbers(block, "internal_count", inner), _numbers(block, "leaf_count", leaves))),
        output=output,
        zero_is_missing=padded((missing == MISSING_ZERO) & ~categorical, False),
        category_set=padded(positions, -1),
        sets=sets,
    )


def _around_zero(threshold: Float64) -> Float64:
    """The same thresholds, moved so that all |x| ≤ `ZERO` are on the side of 0."""
    above = np.where((threshold >= 0) & (threshold <= ZERO), ZERO, threshold)
    return np.where((threshold < 0) & (threshold >= -ZERO), np.nextafter(-ZERO, -np.inf), above)


def _single_leaf(value: Float64, output: int) -> RawTree:
    """Nothing is known of its cover in older files, and nothing depends on it."""
    nothing = np.array([-1])
    return RawTree(
        nothing, nothing, nothing, np.zeros(1), np.zeros(1, np.bool_), value, cover=np.ones(1), output=output
    )


def _children(block: Mapping[str, str], key: str, inner: int, leaves: int) -> Int64:
    stored = _integers(block, key, inner)
    if (stored >= inner).any() or (~stored >= leaves).any():
        raise ValueError(f"{key} points outside the tree")
    return np.where(stored < 0, inner + ~stored, stored)


def _categories(block: Mapping[str, str], categorical: Any, threshold: Float64) -> tuple[Int64, list[tuple[Any, bool]]]:
    count = int(block.get("num_cat", 0))
    positions = np.where(categorical, threshold, -1.0)
    if (positions >= count).any() or (categorical & (positions != np.floor(positions))).any():
        raise ValueError("a categorical split without its set of categories")
    if count == 0:
        return positions.astype(np.int64), []
    borders = _integers(block, "cat_boundaries", count + 1)
    words = np.array([int(word) for word in block["cat_threshold"].split()], np.int64)
    if borders[0] != 0 or borders[-1] != len(words) or (np.diff(borders) < 0).any():
        raise ValueError("sets of categories are cut off")
    if len(words) and (words.min() < 0 or words.max() > 0xFFFFFFFF):
        raise ValueError("a set of categories is out of range")
    sets = [(words[a:b].astype(np.uint32), False) for a, b in pairwise(borders)]
    return positions.astype(np.int64), sets
