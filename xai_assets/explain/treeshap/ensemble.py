"""A tree ensemble as flat arrays: the one form that every reader produces and every kernel reads.

Belongs here: the form, its meaning, its checks. Does not belong here: file formats and libraries (see `readers`),
attributions (see `kernel`, `interventional`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import ModelError

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
UInt32 = npt.NDArray[np.uint32]
Bool = npt.NDArray[np.bool_]

MAX_TREES = 10_000
ZERO = float(np.float32(1e-35))
"""|x| up to this counts as zero where zero is missing; a float32 constant in LightGBM, slightly above 1e-35."""
FLOAT32_ROWS_ONLY = "float32 rows only"


@dataclass(frozen=True, eq=False)
class TreeEnsemble:
    """T trees with N nodes in all, C category sets, k outputs. The margin of a row x is, per output o,

        base_score[o] + Σ over trees t with tree_output[t] == o of value[leaf that x reaches in t]

    Weights of trees (learning rate, DART, averaging) are already multiplied into `value`; trees past the best
    iteration are left out; trees with vector leaves are stored once per output.

    tree_starts: int64 [T+1]; tree t owns nodes tree_starts[t] … tree_starts[t+1]-1, its root first.
    left, right: int32 [N], positions in the whole arrays; -1 at a leaf.
    feature: int32 [N], -1 at a leaf.
    threshold: float64 [N]. A numeric split sends x left iff x < threshold (x ≤ c is stored as x < nextafter(c, ∞)).
    missing_left: bool [N], where NaN goes. zero_is_missing: bool [N], whether |x| ≤ `ZERO` counts as
    missing too.
    category_set: int32 [N], -1 for a numeric split. A categorical split takes the code trunc(x); where
    0 ≤ code < 32 · words of the set, the code goes left iff its bit in `category_words` is set; any other code goes
    left iff category_other_left[set].
    category_starts: int64 [C+1] into category_words: uint32 [W]; bit i of word j stands for code 32 j + i.
    value: float64 [N], margin units, 0 at inner nodes. cover: float64 [N] ≥ 0, training weight that reached the node.
    base_score: float64 [k], margin units.
    input_precision: "float32" where the library rounds inputs to float32 before it compares, else "float64"; or
    `FLOAT32_ROWS_ONLY`, a stack whose models do both and which therefore takes float32 rows alone.
    feature_names: as the model stores them, or empty. source: library and version, for provenance.
    """

    n_features: int
    tree_starts: Int64
    tree_output: Int32
    left: Int32
    right: Int32
    feature: Int32
    threshold: Float64
    missing_left: Bool
    zero_is_missing: Bool
    category_set: Int32
    category_starts: Int64
    category_words: UInt32
    category_other_left: Bool
    value: Float64
    cover: Float64
    base_score: Float64
    input_precision: str = "float32"
    feature_names: tuple[str, ...] = ()
    source: str = ""

    @property
    def n_trees(self) -> int:
        return len(self.tree_output)

    @property
    def n_outputs(self) -> int:
        return len(self.base_score)

    @classmethod
    def from_xgboost(cls, model: Any) -> "TreeEnsemble":
        """From an `xgboost.Booster`, a fitted scikit-learn wrapper, a path, or the bytes of a JSON or UBJSON model."""
        from xai_assets.explain.treeshap.readers.xgboost import read

        return read(model)

    @classmethod
    def from_lightgbm(cls, model: Any) -> "TreeEnsemble":
        """From a `lightgbm.Booster`, a fitted scikit-learn wrapper, or the path of a text model."""
        from xai_assets.explain.treeshap.readers.lightgbm import read

        return read(model)

    @classmethod
    def from_catboost(cls, model: Any) -> "TreeEnsemble":
        """From a fitted CatBoost model or the path of a cbm or JSON model (oblivious trees)."""
        from xai_assets.explain.treeshap.readers.catboost import read

        return read(model)

    @classmethod
    def from_sklearn(cls, model: Any) -> "TreeEnsemble":
        """From a fitted decision tree, random forest, extra trees, (hist) gradient boosting of scikit-learn."""
        from xai_assets.explain.treeshap.readers.sklearn import read

        return read(model)

    @classmethod
    def stack(cls, ensembles: Sequence["TreeEnsemble"]) -> "TreeEnsemble":
        """One ensemble with the outputs of all, over the same features in the same order: both models in one pass.

        Raises
        ------
        ModelError
            They do not read the same features.
        """
        if not ensembles:
            raise ModelError("there is nothing to stack", expected="at least one ensemble")
        precisions = {e.input_precision for e in ensembles}
        if len(precisions) > 1:
            # Codes are cut off, not compared: rounding them first cannot be expressed by another threshold.
            rounded_codes = any(e.input_precision != "float64" and (e.category_set >= 0).any() for e in ensembles)
            ensembles = [e.as_float64() for e in ensembles]
            precisions = {FLOAT32_ROWS_ONLY if rounded_codes else "float64"}
        first = replace(ensembles[0], input_precision=precisions.pop())
        names = next((e.feature_names for e in ensembles if e.feature_names), ())
        for other in ensembles[1:]:
            if other.n_features != first.n_features or (other.feature_names and other.feature_names != names):
                raise ModelError(
                    "the models do not read the same features, so one pass cannot serve both",
                    expected=f"{first.n_features} features: {', '.join(names[:10])}",
                    found=f"{other.n_features} features: {', '.join(other.feature_names[:10])}",
                    next_step="give both the same columns first: ensemble.over_features(names)",
                )
        nodes = np.cumsum([0, *(len(e.left) for e in ensembles)])
        outputs = np.cumsum([0, *(e.n_outputs for e in ensembles)])
        sets = np.cumsum([0, *(len(e.category_other_left) for e in ensembles)])
        words = np.cumsum([0, *(len(e.category_words) for e in ensembles)])

        def moved(values: Any, offset: int) -> Any:
            return np.where(values >= 0, values + offset, -1).astype(values.dtype)

        each = list(enumerate(ensembles))
        return replace(
            first,
            tree_starts=np.concatenate([[0], *(e.tree_starts[1:] + nodes[i] for i, e in each)]).astype(np.int64),
            tree_output=np.concatenate([e.tree_output + outputs[i] for i, e in each]).astype(np.int32),
            left=np.concatenate([moved(e.left, nodes[i]) for i, e in each]),
            right=np.concatenate([moved(e.right, nodes[i]) for i, e in each]),
            feature=np.concatenate([e.feature for e in ensembles]),
            threshold=np.concatenate([e.threshold for e in ensembles]),
            missing_left=np.concatenate([e.missing_left for e in ensembles]),
            zero_is_missing=np.concatenate([e.zero_is_missing for e in ensembles]),
            category_set=np.concatenate([moved(e.category_set, sets[i]) for i, e in each]),
            category_starts=np.concatenate([[0], *(e.category_starts[1:] + words[i] for i, e in each)]).astype(
                np.int64
            ),
            category_words=np.concatenate([e.category_words for e in ensembles]),
            category_other_left=np.concatenate([e.category_other_left for e in ensembles]),
            value=np.concatenate([e.value for e in ensembles]),
            cover=np.concatenate([e.cover for e in ensembles]),
            base_score=np.concatenate([e.base_score for e in ensembles]),
            feature_names=names,
            source=" + ".join(e.source for e in ensembles),
        )

    def as_float64(self) -> "TreeEnsemble":
        """The same function of float64 inputs: thresholds moved to where rounding to float32 would tip over.

        Categorical splits stay: they would need codes that are rounded first, where those are not whole numbers.
        """
        if self.input_precision != "float32":
            return self
        above = float32_ceiling(self.threshold)
        below = np.nextafter(above, np.float32(-np.inf))
        middle = (above.astype(np.float64) + below.astype(np.float64)) / 2  # exact: one bit more than float32
        to_below = middle.astype(np.float32) == below  # ties round to the even neighbour
        threshold = np.where(to_below, np.nextafter(middle, np.inf), middle)
        # Beyond the largest float32 the next one would be 2¹²⁸: from half way on a value rounds to infinity.
        threshold = np.where(above == np.inf, _ROUNDS_TO_INFINITY, threshold)
        threshold = np.where(np.isnan(middle) | (above == -np.inf), self.threshold, threshold)
        return replace(self, threshold=threshold, input_precision="float64")

    def over_features(self, names: Sequence[str]) -> "TreeEnsemble":
        """The same trees reading a wider matrix whose columns are `names`; features it does not use get exactly 0.

        Raises
        ------
        ModelError
            The model has no feature names, or one of them is not among `names`.
        """
        position = {name: i for i, name in enumerate(names)}
        lost = [name for name in self.feature_names if name not in position]
        if not self.feature_names or lost:
            raise ModelError(
                "the model's features cannot be found among the given columns",
                expected=", ".join(names[:20]),
                found=f"no column for '{lost[0]}'" if lost else "a model without feature names",
            )
        mapping = np.array([position[name] for name in self.feature_names], np.int32)
        feature = np.where(self.feature >= 0, mapping[np.maximum(self.feature, 0)], -1).astype(np.int32)
        return replace(self, n_features=len(names), feature=feature, feature_names=tuple(names))


_ROUNDS_TO_INFINITY = float(np.finfo(np.float32).max) + 2.0**103


def float32_ceiling(values: Float64) -> npt.NDArray[np.float32]:
    """The smallest float32 that is not below each value: x < value and x < ceiling agree for every float32 x."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
        return np.where(rounded < values, np.nextafter(rounded, np.float32(np.inf)), rounded).astype(np.float32)
