"""CatBoost: cbm and JSON models, and fitted models.

Belongs here: the meaning of CatBoost's JSON export, for oblivious trees and for those of the other growing policies.
Does not belong here: CatBoost's pools; features made from text, embeddings or target statistics, which a matrix of
numbers does not hold.

The library is needed for a cbm file and for a fitted model (it writes the export), not for a JSON file. Rules, checked
against CatBoost 1.2's predictions: inputs and borders are float32 and a split is true iff x > border; NaN stands below
every border ("AsIs", "AsFalse") or above ("AsTrue"). A one-hot split is true iff the category is the listed one, which
is stored as the hash of its text. Leaf i of an oblivious tree is where split j is true iff bit j of i is set; the last
split is the root, as in CatBoost's own Shapley values.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.ensemble import Float64, TreeEnsemble, UInt32
from xai_assets.explain.treeshap.readers.assemble import RawTree, assemble, check_tree_count
from xai_assets.explain.treeshap.readers.cityhash import category_hash
from xai_assets.explain.treeshap.readers.content import file_content, wrong_object

MAX_DEPTH = 16
"""CatBoost's own limit for oblivious trees."""
HASHED_CODES = 65_536
"""Whole numbers from 0 whose hashes are compared with those of the one-hot categories."""
MISSING_LEVEL = "nan"
"""The text that missing categories are given to CatBoost as."""


def read(model: Any, *, levels: Mapping[str | int, Sequence[str]] | None = None) -> TreeEnsemble:
    """The trees of a CatBoost model.

    Parameters
    ----------
    model
        A fitted `CatBoost`, `CatBoostClassifier` or `CatBoostRegressor`, the path of a cbm or JSON file, or its bytes.
    levels
        Texts of a categorical feature's levels, by the feature's name or position: the matrix holds a level's position
        in the list. A feature that is not named has whole numbers as categories, which the matrix holds themselves.
        NaN stands for the text "nan".

    Returns
    -------
    One output per class or target. Its margin is what ``predict(prediction_type="RawFormulaVal")`` gives.

    Raises
    ------
    ModelError
        Damaged or no CatBoost model, no trees or too many, splits on target statistics of categories (CTR), on text or
        embeddings, one-hot categories that are neither among `levels` nor whole numbers 0 … 65,535, no leaf weights, or
        CatBoost is needed and not installed.
    """
    document, location = _document(model)
    try:
        return _ensemble(document, location, levels or {})
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError, RecursionError) as error:
        found = f"no part {error}" if isinstance(error, KeyError) else str(error).splitlines()[0][:200]
        raise _damaged(location, found) from error


def _document(model: Any) -> tuple[dict[str, Any], str]:
    found = file_content(model)
    if found is None:
        if not hasattr(model, "save_model") or not hasattr(model, "is_fitted"):
            raise wrong_object(model, "a fitted CatBoost model, the path of a cbm or JSON file, or its bytes")
        if not model.is_fitted():
            raise ModelError("the CatBoost model is not fitted", next_step="call fit first")
        return _exported(model), "the CatBoost model"
    raw, location = found
    if raw.startswith(b"CBM1"):
        return _from_cbm(raw, location), location
    if not raw.lstrip().startswith(b"{"):
        raise ModelError(
            f"{location} is not a CatBoost model",
            expected="a cbm or JSON file written by save_model",
            found=f"a file that starts with {raw[:8]!r}",
        )
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _damaged(location, str(error)[:200]) from error
    return document, location


def _from_cbm(raw: bytes, location: str) -> dict[str, Any]:
    """The export of a cbm file, which only CatBoost can read.

    A file is a header with the length of its core (trees and features), the core, and for models with target
    statistics the tables of these. CatBoost checks the core, but a cut in the tables killed the process in 21 of 123
    truncated files: those are read in a process of their own.
    """
    length = int.from_bytes(raw[4:8], "little")
    if len(raw) < 8 + length:
        raise _damaged(location, f"{len(raw)} bytes of at least {8 + length}")
    try:
        import catboost
    except ImportError as error:
        raise ModelError(
            f"{location} is a cbm file, which only CatBoost itself can read",
            next_step="install catboost, or save the model as JSON: model.save_model('model.json', format='json')",
        ) from error
    try:
        if len(raw) > 8 + length:
            return _exported_apart(raw)
        return _exported(catboost.CatBoost().load_model(blob=raw))
    except (catboost.CatBoostError, ValueError) as error:
        raise _damaged(location, str(error).splitlines()[0][:200]) from error


def _damaged(location: str, found: str) -> ModelError:
    return ModelError(
        f"{location} is damaged, or not a CatBoost model",
        expected="a complete file written by save_model, as cbm or JSON",
        found=found,
        next_step="copy the file again, or save the model again",
    )


_EXPORT = """
import sys
from catboost import CatBoost
CatBoost().load_model(blob=sys.stdin.buffer.read()).save_model(sys.argv[1], format="json")
"""


def _exported_apart(raw: bytes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        done = subprocess.run(
            [sys.executable, "-c", _EXPORT, str(path)], input=raw, capture_output=True, check=False, cwd=folder
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise ValueError(said[-1] if said and done.returncode > 0 else "CatBoost cannot read its tables")
        document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def _exported(model: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def _ensemble(document: Mapping[str, Any], location: str, levels: Mapping[str | int, Sequence[str]]) -> TreeEnsemble:
    features = _Features(document["features_info"], location, levels)
    stored = document.get("oblivious_trees")
    own = _oblivious if stored is not None else _nested
    stored = stored if stored is not None else document.get("trees", [])
    check_tree_count(len(stored), location)
    scale, bias = document["scale_and_bias"]
    trees = [own(tree, features, float(scale)) for tree in stored]
    widths = {tree.value.shape[1] for tree in trees}
    if len(widths) != 1:
        raise ValueError("trees of different numbers of outputs")
    outputs = widths.pop()
    base = np.atleast_1d(np.asarray(bias, np.float64))
    if len(base) not in (1, outputs) or (len(base) < outputs and base.any()):
        raise ValueError(f"{len(base)} biases for {outputs} outputs")
    return assemble(
        trees,
        n_features=len(features.names),
        base_score=np.broadcast_to(base, (outputs,)),
        input_precision="float32",
        feature_names=features.names if all(features.names) else (),
        source=_source(document),
        location=location,
    )


def _source(document: Mapping[str, Any]) -> str:
    version = re.search(
        r"release (\d+(?:\.\d+)*)", str(document.get("model_info", {}).get("catboost_version_info", ""))
    )
    return f"catboost {version[1]}" if version else "catboost"


class _Features:
    """Which column each feature of the export is, and how its splits read it."""

    def __init__(self, info: Mapping[str, Any], location: str, levels: Mapping[str | int, Sequence[str]]) -> None:
        self.location, self.levels = location, levels
        self.floats = {int(f["feature_index"]): f for f in info.get("float_features", ())}
        self.categories = {int(f["feature_index"]): f for f in info.get("categorical_features", ())}
        self.ctrs = info.get("ctrs", ())
        kinds = ("float_features", "categorical_features", "text_features", "embedding_features")
        every = {int(f["flat_feature_index"]): f for kind in kinds for f in info.get(kind, ())}
        if sorted(every) != list(range(len(every))):
            raise ValueError("the features' positions are not 0, 1, 2, …")
        self.names = [str(every[i].get("feature_id", "")) for i in range(len(every))]

    def split(self, split: Mapping[str, Any]) -> "_Split":
        kind = split["split_type"]
        if kind == "FloatFeature":
            feature = self.floats[int(split["float_feature_index"])]
            treatment = feature["nan_value_treatment"]
            if treatment not in ("AsIs", "AsFalse", "AsTrue"):
                raise ValueError(f"unknown treatment of missing values: {treatment}")
            border = np.nextafter(float(np.float32(split["border"])), np.inf)
            return _Split(int(feature["flat_feature_index"]), border, treatment != "AsTrue")
        if kind == "OneHotFeature":
            feature = self.categories[int(split["cat_feature_index"])]
            hashed = int(split["value"]) & 0xFFFFFFFF
            return _Split(
                int(feature["flat_feature_index"]),
                threshold=0.0,
                missing_left=hashed != category_hash(MISSING_LEVEL),
                codes=self._codes(feature, hashed),
            )
        raise self._unreadable(kind, split)

    def _codes(self, feature: Mapping[str, Any], hashed: int) -> tuple[int, ...]:
        """The one code whose text has the hash; none where that text stands for missing values only."""
        position = int(feature["flat_feature_index"])
        levels = self.levels.get(self.names[position] or position, self.levels.get(position))
        known = _hashes_of_numbers() if levels is None else _hashes_of_levels(levels)
        if hashed in known:
            return (known[hashed],)
        if hashed == category_hash(MISSING_LEVEL):
            return ()
        raise ModelError(
            f"{self.location} splits feature '{self._name(feature)}' on a category that is not known",
            expected=f"whole numbers from 0 to {HASHED_CODES - 1}" if levels is None else ", ".join(levels[:20]),
            found=f"a text with the hash {hashed} (CatBoost stores only hashes)",
            next_step="give the feature's levels, all that it was trained on",
        )

    def _unreadable(self, kind: str, split: Mapping[str, Any]) -> ModelError:
        names = sorted({self._name(self.categories[i]) for i in self._ctr_features(split)})
        if kind == "OnlineCtr":
            return ModelError(
                f"{self.location} splits on target statistics of categories: {', '.join(names)}",
                expected="numeric features, and categorical ones with one-hot splits",
                found="OnlineCtr splits",
                next_step="raise one_hot_max_size above the number of categories, or encode the column before training",
            )
        return ModelError(
            f"{self.location} has splits that cannot be read from a matrix of numbers",
            expected="FloatFeature and OneHotFeature splits",
            found=str(kind),
            next_step="train without text and embedding features",
        )

    def _ctr_features(self, split: Mapping[str, Any]) -> Iterable[int]:
        """The categorical features of the statistic that has the split's border, else of all statistics."""
        splits_before = sum(len(f.get("borders", ())) for f in self.floats.values())
        splits_before += sum(len(f.get("values", ())) for f in self.categories.values())
        position = int(split.get("split_index", -1)) - splits_before
        elements = [ctr.get("elements", ()) for ctr in self.ctrs for _ in ctr.get("borders", ())]
        chosen = [elements[position]] if 0 <= position < len(elements) else elements
        return {int(e["cat_feature_index"]) for group in chosen for e in group if "cat_feature_index" in e}

    def _name(self, feature: Mapping[str, Any]) -> str:
        return str(feature.get("feature_id") or f"number {feature['flat_feature_index']}")


@dataclass(frozen=True)
class _Split:
    """One split in the form of `TreeEnsemble`: true goes right. codes: None for a numeric split."""

    feature: int
    threshold: float
    missing_left: bool
    codes: tuple[int, ...] | None = None

    @property
    def words(self) -> UInt32:
        """Every bit set but those of the codes that go right."""
        words = np.full(max(self.codes or (0,)) // 32 + 1, 0xFFFFFFFF, np.uint32)
        for code in self.codes or ():
            words[code // 32] ^= np.uint32(1 << (code % 32))
        return words


def _oblivious(tree: Mapping[str, Any], features: _Features, scale: float) -> RawTree:
    """A complete binary tree: node i has children 2i + 1 and 2i + 2, so leaves are in the order of their index."""
    splits = [features.split(split) for split in reversed(tree["splits"] or ())]  # the last is the root
    depth = len(splits)
    if depth > MAX_DEPTH:
        raise ValueError(f"an oblivious tree of depth {depth}")
    inner, leaves = 2**depth - 1, 2**depth
    weights, values = _leaves(tree, leaves)
    level = np.repeat(np.arange(depth), 2 ** np.arange(depth))
    nodes = np.arange(inner)
    own = [splits[i] for i in level]
    cover = np.concatenate((np.zeros(inner), weights))
    for node in range(inner - 1, -1, -1):
        cover[node] = cover[2 * node + 1] + cover[2 * node + 2]
    ends = np.full(leaves, -1)
    return _raw_tree(
        [*own, *[None] * leaves],
        np.concatenate((2 * nodes + 1, ends)),
        np.concatenate((2 * nodes + 2, ends)),
        np.concatenate((np.zeros((inner, values.shape[1])), values * scale)),
        cover,
    )


def _leaves(tree: Mapping[str, Any], leaves: int) -> tuple[Float64, Float64]:
    if not tree.get("leaf_weights"):
        raise _no_weights()
    weights = np.asarray(tree["leaf_weights"], np.float64)
    values = np.asarray(tree["leaf_values"], np.float64)
    if len(weights) != leaves or len(values) == 0 or len(values) % leaves:
        raise ValueError(f"{len(values)} leaf values and {len(weights)} weights for {leaves} leaves")
    return weights, values.reshape(leaves, -1)


def _no_weights() -> ModelError:
    return ModelError(
        "the model stores no weights of its leaves, so it cannot be said how training rows went through its trees",
        expected="a model as CatBoost's fit leaves it",
        next_step="train and save the model again; sums of models lose the weights",
    )


def _nested(tree: Mapping[str, Any], features: _Features, scale: float) -> RawTree:
    """Trees of the policies Depthwise and Lossguide are objects within objects."""
    objects: list[Mapping[str, Any]] = [tree]
    left, right = [], []
    for node in objects:  # grows while it runs: children follow their parents
        if "split" not in node:
            left.append(-1)
            right.append(-1)
            continue
        left.append(len(objects))
        right.append(len(objects) + 1)
        objects += [node["left"], node["right"]]
    splits = [features.split(node["split"]) if "split" in node else None for node in objects]
    ends = [np.atleast_1d(np.asarray(node["value"], np.float64)) for node in objects if "split" not in node]
    values = np.zeros((len(objects), len(ends[0])))
    values[np.array(left) < 0] = np.stack(ends) * scale
    if any("split" not in node and "weight" not in node for node in objects):
        raise _no_weights()
    cover = np.array([float(node.get("weight", 0.0)) if "split" not in node else 0.0 for node in objects])
    for i in range(len(objects) - 1, -1, -1):
        if left[i] >= 0:
            cover[i] = cover[left[i]] + cover[right[i]]
    return _raw_tree(splits, np.array(left), np.array(right), values, cover)


def _raw_tree(splits: Sequence[_Split | None], left: Any, right: Any, value: Float64, cover: Float64) -> RawTree:
    categorical = [i for i, split in enumerate(splits) if split is not None and split.codes is not None]
    positions = np.full(len(splits), -1)
    positions[categorical] = np.arange(len(categorical))
    return RawTree(
        left=left,
        right=right,
        feature=np.array([-1 if s is None else s.feature for s in splits]),
        threshold=np.array([0.0 if s is None else s.threshold for s in splits]),
        missing_left=np.array([s is not None and s.missing_left for s in splits]),
        value=value,
        cover=cover,
        category_set=positions,
        sets=[(split.words, True) for i in categorical if (split := splits[i]) is not None],
    )


@lru_cache(maxsize=1)
def _hashes_of_numbers() -> dict[int, int]:
    """Code by hash, where categories are whole numbers and the code of a category is the number itself (0.2 s)."""
    found: dict[int, int] = {}
    for code in range(HASHED_CODES):
        hashed = category_hash(str(code))
        if hashed is not None:
            found.setdefault(hashed, code)
    return found


def _hashes_of_levels(levels: Sequence[str]) -> dict[int, int]:
    found: dict[int, int] = {}
    for code, level in enumerate(levels):
        hashed = category_hash(level)
        if hashed is not None:
            found.setdefault(hashed, code)
    return found
