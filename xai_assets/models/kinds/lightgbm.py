"""LightGBM's text models.

Belongs here: the checks without which its reader cannot be trusted with a file, the booster, its levels.
Does not belong here: attributions (see `explain`).

The levels of categorical features are on the file's last line, `pandas_categorical`: one list per categorical column
of the training frame, in the order of columns, without names. A column is known to be categorical where its
`feature_infos` entry lists codes (`-1:0:1`) rather than a range.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import ModelError
from xai_assets.models.kinds.loaded import Loaded, damaged, first_line, library, rounding_note, several_outputs
from xai_assets.records import Float32, Float64

NEWEST_FORMAT = 4
"""`version=v4` is written by LightGBM 4; the file does not name the library's own version."""
_PER_TREE = ("num_leaves", "num_cat", "is_linear", "shrinkage")
_PER_LEAF = ("leaf_value", "leaf_weight", "leaf_count")
_PER_NODE = (
    "split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child",
    "internal_value", "internal_weight", "internal_count",
)  # fmt: skip
_OTHER_SIZES = ("cat_boundaries", "cat_threshold", "leaf_const", "num_features", "leaf_features", "leaf_coeff")
_OPTIONAL = ("is_linear", "leaf_weight", "internal_weight")
"""Parts that older versions, or trees of one leaf, do not write."""
_REALS = ("shrinkage", "leaf_value", "leaf_weight", "split_gain", "threshold", "internal_value", "internal_weight")
_HEADER = (
    "version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective",
    "average_output", "feature_names", "monotone_constraints", "feature_infos", "tree_sizes",
)  # fmt: skip
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)
_REAL = re.compile(r"-?(\d+(\.\d*)?([eE][-+]?\d+)?|inf|nan)", re.ASCII)
_PARAMETER = re.compile(r"\[\w+: .*\]")
_INFO = re.compile(rf"none|\[{_REAL.pattern}:{_REAL.pattern}\]|-?\d{{1,18}}(:-?\d{{1,18}})*", re.ASCII)
WHAT, WRITER = "a LightGBM text model", "booster.save_model"


def load(location: str, raw: bytes) -> Loaded:
    """The booster of a file's bytes. Raises ModelError where it is damaged, newer, or has several outputs."""
    lightgbm = library("lightgbm", "lightgbm", location)
    try:
        header = _header(raw)
        _refuse_newer(location, header["version"])
        _refuse_several(location, header)
        linear = _check_trees(raw, header)
        text = raw.decode()
        levels = _levels(text, header)
        booster = lightgbm.Booster(model_str=text)
    except (lightgbm.basic.LightGBMError, KeyError, TypeError, ValueError, IndexError) as error:
        raise damaged(location, WHAT, WRITER, error) from error
    objective = header.get("objective", "custom").split(" ")[0]
    names = tuple(header["feature_names"].split(" "))
    notes = [rounding_note(location)]
    if linear:
        notes.append(f"model {location} has linear leaves, which only its own predictions know how to read")
    if objective == "custom":
        notes.append(f"model {location} was trained on an objective of its own: its output is the raw score")
    return Loaded(
        kind="callable" if linear else "lightgbm",
        native=booster,
        bind=lambda _: BoosterPredictor(booster, averaged="average_output" in header),
        objective=objective,
        is_classifier=objective == "binary",
        n_features=len(names),
        feature_names=None if names == tuple(f"Column_{i}" for i in range(len(names))) else names,
        categorical=levels,
        notes=tuple(notes),
        file_kind="lightgbm",
    )


@dataclass(frozen=True, eq=False)
class BoosterPredictor:
    """Raw scores and outputs. A float32 input is compared as float64, as LightGBM does with any frame.

    averaged: the trees are a random forest. LightGBM's raw score is then their sum, though its prediction puts their
    average through the link; the margin here is the average.
    """

    booster: Any
    averaged: bool = False

    def margin(self, X: Float32) -> Float64:
        scores = np.asarray(self.booster.predict(X, raw_score=True), dtype=np.float64)
        return scores / self.booster.current_iteration() if self.averaged else scores

    def value(self, X: Float32) -> Float64:
        return np.asarray(self.booster.predict(X), dtype=np.float64)

    def probability(self, X: Float32) -> Float64:
        return self.value(X)


def unwrap(location: str, model: Any) -> Loaded:
    """The same from a booster or a scikit-learn wrapper in memory, up to its best iteration."""
    try:
        booster = model if hasattr(model, "model_to_string") else model.booster_
    except Exception as error:  # lightgbm's NotFittedError is sklearn's where that is installed
        raise ModelError(f"model {location} is not fitted", found=first_line(error)) from error
    return load(location, booster.model_to_string().encode())


def _header(raw: bytes) -> dict[str, str]:
    """The keys before the first tree."""
    head = raw.split(b"\nTree=", 1)[0].split(b"\nend of trees", 1)[0]
    pairs = (line.partition("=") for line in head.decode().splitlines()[1:])
    found = {key: value for key, _, value in pairs if key}
    odd = sorted(set(found) - set(_HEADER))
    if odd:
        raise ValueError(f"unknown parts {', '.join(odd[:5])} before the trees")
    return found


def _refuse_newer(location: str, version: str) -> None:
    if int(version.removeprefix("v")) > NEWEST_FORMAT:
        raise ModelError(
            f"model {location} was written by a newer lightgbm than the installed one",
            expected=f"the text format v{NEWEST_FORMAT} or older",
            found=version,
            next_step="upgrade lightgbm here, or save the model with the installed version",
        )


def _refuse_several(location: str, header: Mapping[str, str]) -> None:
    for key in ("num_class", "num_tree_per_iteration"):
        if int(header[key]) != 1:
            raise several_outputs(location, f"{key} {header[key]}, objective {header.get('objective', 'unknown')}")


def _check_trees(raw: bytes, header: Mapping[str, str]) -> bool:
    """Whether leaves are linear. Raises ValueError or KeyError where the trees are not what the header says."""
    features = int(header["max_feature_idx"]) + 1
    for key in ("feature_names", "feature_infos"):
        if len(header[key].split(" ")) != features:
            raise ValueError(f"{len(header[key].split(' '))} {key} for {features} features")
    for info in header["feature_infos"].split(" "):
        if not _INFO.fullmatch(info):
            raise ValueError(f"{info!r} in feature_infos is no range and no list of levels")
    sizes = [int(size) for size in header["tree_sizes"].split()]
    first, linear = raw.find(b"\nTree=0\n") + 1, False
    position = first if sizes else raw.find(b"\nend of trees") + 1
    for number, size in enumerate(sizes):
        block = raw[position : position + size]
        position += size
        if len(block) != size or not block.startswith(b"Tree=%d\n" % number):
            raise ValueError(f"tree {number} is cut off")
        try:
            linear |= _check_tree(block.decode(), features)
        except ValueError as error:
            raise ValueError(f"tree {number}: {error}") from None
    _check_parameters(raw[position:])
    return linear


def _check_parameters(tail: bytes) -> None:
    """`[name: value]` per line. They do not predict, but LightGBM crashes on a line without a colon."""
    start, end = tail.find(b"\nparameters:"), tail.find(b"\nend of parameters")
    if not tail.startswith(b"end of trees") or not 0 <= start < end:
        raise ValueError("the file ends before its last section")
    for line in tail[start:end].decode().splitlines()[2:]:
        if line and not (line.isprintable() and _PARAMETER.fullmatch(line)):
            raise ValueError(f"{line[:50]!r} is no parameter")


def _check_tree(block: str, features: int) -> bool:
    """Children form a tree, splits read features and level sets that exist; whether its leaves are linear.

    LightGBM parses trees in threads, and ends the process at a number that it cannot read: 20 of 300 files with one
    damaged bit did that. So every part is read here first.
    """
    lines = [line.split("=", 1) for line in block.splitlines() if line.strip()]
    parts = {line[0]: line[-1] for line in lines[1:]}
    odd = sorted(set(parts) - {*_PER_TREE, *_PER_NODE, *_PER_LEAF, *_OTHER_SIZES})
    if odd or any(len(line) != 2 for line in lines):
        raise ValueError(f"unknown parts {', '.join(odd)}")
    leaves = int(_numbers(parts, "num_leaves", 1)[0])
    nodes = leaves - 1
    for keys, length in ((_PER_TREE, 1), (_PER_LEAF, leaves), (_PER_NODE, nodes)):
        for key in keys:
            # a tree of one leaf has no covers
            if key in parts or (key not in _OPTIONAL and length):
                _numbers(parts, key, length, (0, length) if leaves == 1 else (length,))
    if np.isnan(_numbers(parts, "leaf_value", leaves)).any():
        raise ValueError("a leaf is not a number")
    if nodes:
        used, kinds = _numbers(parts, "split_feature", nodes), _numbers(parts, "decision_type", nodes).astype(np.int64)
        children = np.concatenate([_numbers(parts, key, nodes) for key in ("left_child", "right_child")])
        if ((used < 0) | (used >= features)).any():
            raise ValueError("a split on a feature that does not exist")
        if not np.array_equal(np.sort(children), np.r_[-leaves:0, 1:nodes]):
            # Each node and leaf has exactly one parent and the root none, so no walk from the root can come back.
            raise ValueError("children are not a tree")
        _check_level_sets(parts, _numbers(parts, "threshold", nodes)[(kinds & 1) == 1])
    return parts.get("is_linear", "0").strip() == "1"


def _check_level_sets(parts: Mapping[str, str], positions: npt.NDArray[Any]) -> None:
    count = int(parts["num_cat"])
    if count:
        borders = _numbers(parts, "cat_boundaries", count + 1).astype(np.int64)
        if borders[0] != 0 or (np.diff(borders) < 0).any():
            raise ValueError("sets of levels are cut off")
        words = _numbers(parts, "cat_threshold", int(borders[-1]))
        if ((words < 0) | (words >= 2**32)).any():
            raise ValueError("a set of levels is out of range")
    if ((positions < 0) | (positions >= count)).any():
        raise ValueError("a split on a set of levels that does not exist")


def _numbers(parts: Mapping[str, str], key: str, length: int, lengths: Sequence[int] = ()) -> Float64:
    """A part as float64; whole numbers where LightGBM reads whole numbers."""
    texts = parts[key].split()
    pattern = _REAL if key in _REALS else _WHOLE
    for text in texts:
        if not pattern.fullmatch(text):
            raise ValueError(f"{text!r} in {key} is not a number")
    if len(texts) not in (lengths or (length,)):
        raise ValueError(f"{len(texts)} values of {key} instead of {length}")
    return np.array(texts, dtype=np.float64)


def _levels(text: str, header: Mapping[str, str]) -> dict[int, tuple[str, ...] | None]:
    """Levels by the position of the categorical features; None where the file does not tell which list is whose."""
    infos = header["feature_infos"].split(" ")
    codes = {p: info for p, info in enumerate(infos) if not info.startswith("[") and info != "none"}
    lists = _pandas_categorical(text)
    if len(lists) != len(codes):
        return dict.fromkeys(codes)
    highest = [max(int(code) for code in info.split(":")) for info in codes.values()]
    if any(code >= len(levels) for code, levels in zip(highest, lists, strict=True)):
        return dict.fromkeys(codes)
    return {position: tuple(_text(v) for v in levels) for position, levels in zip(codes, lists, strict=True)}


def _pandas_categorical(text: str) -> Sequence[Sequence[object]]:
    marker = "\npandas_categorical:"
    position = text.rfind(marker)
    if position < 0:
        return ()
    return json.loads(text[position + len(marker) :]) or ()


def _text(level: object) -> str:
    """A level as the data's columns give it as text."""
    return str(level).lower() if isinstance(level, bool) else str(level)
