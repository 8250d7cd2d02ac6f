"""scikit-learn: decision trees, forests, gradient boosting and histogram gradient boosting.

Belongs here: the meaning of the fields of fitted estimators, scikit-learn 1.4 and later.
Does not belong here: loading estimators from files (a pickle runs code; see `models`).

Splits send x left iff x ≤ threshold: trees, forests and gradient boosting round x to float32 before, histogram gradient
boosting does not. NaN goes where training sent it. In histogram gradient boosting a categorical split sends listed
categories left, other categories seen in training right, and NaN and unseen ones where missing values go. Codes are
whole numbers: a fraction is an unseen category to scikit-learn, and its whole part in the one form.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.ensemble import Float64, Int64, TreeEnsemble, UInt32
from xai_assets.explain.treeshap.readers.assemble import RawTree, assemble, at_most, check_tree_count
from xai_assets.explain.treeshap.readers.content import wrong_object

MAX_CATEGORY = 2**24
LOCATION = "the scikit-learn model"
EXPECTED = (
    "a fitted DecisionTree, ExtraTree, RandomForest, ExtraTrees, GradientBoosting or HistGradientBoosting "
    "classifier or regressor"
)


def read(model: Any) -> TreeEnsemble:
    """The trees of a fitted estimator.

    Returns
    -------
    What the margin is depends on the kind:

    - decision trees and forests, regression: the prediction, one output per target;
    - decision trees and forests, classification: the probabilities, one output per class;
    - gradient boosting of both kinds, regression: the raw prediction (before the inverse link, where there is one);
    - gradient boosting of both kinds, classification: the decision function, one output for two classes (log-odds;
      half of it under exponential loss), else one per class.

    `cover` is the weighted number of training rows, of histogram gradient boosting the number of rows.

    Raises
    ------
    ModelError
        Another kind of object, not fitted, classification of several targets, an `init` estimator that is not
        constant, or categories that are neither texts nor whole numbers from 0.
    """
    from sklearn import ensemble, tree

    forests = (
        ensemble.RandomForestClassifier,
        ensemble.RandomForestRegressor,
        ensemble.ExtraTreesClassifier,
        ensemble.ExtraTreesRegressor,
    )
    boosted = (ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor)
    histogram = (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor)
    if isinstance(model, (tree.DecisionTreeClassifier, tree.DecisionTreeRegressor)):
        return _averaged(_fitted(model), [model])
    if isinstance(model, forests):
        return _averaged(_fitted(model), model.estimators_)
    if isinstance(model, boosted):
        return _boosted(_fitted(model))
    if isinstance(model, histogram):
        return _histogram(_fitted(model))
    raise wrong_object(model, EXPECTED)


def _fitted(model: Any) -> Any:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise ModelError(
            "the scikit-learn model is not fitted", found=type(model).__name__, next_step="call fit first"
        ) from error
    return model


def _ensemble(model: Any, trees: Sequence[RawTree], base_score: npt.ArrayLike, precision: str) -> TreeEnsemble:
    import sklearn

    return assemble(
        trees,
        n_features=int(model.n_features_in_),
        base_score=base_score,
        input_precision=precision,
        feature_names=getattr(model, "feature_names_in_", ()),
        source=f"scikit-learn {sklearn.__version__}",
        location=LOCATION,
    )


def _averaged(model: Any, estimators: Sequence[Any]) -> TreeEnsemble:
    check_tree_count(len(estimators), LOCATION)
    is_classifier = hasattr(model, "classes_")
    if is_classifier and model.n_outputs_ > 1:
        raise ModelError(
            "a classifier of several targets cannot be read",
            expected="one target",
            found=f"{model.n_outputs_} targets",
            next_step="fit one classifier per target",
        )
    trees = [_tree(estimator.tree_, is_classifier, 1.0 / len(estimators)) for estimator in estimators]
    return _ensemble(model, trees, np.zeros(trees[0].value.shape[1]), "float32")


def _tree(tree: Any, is_classifier: bool, scale: float) -> RawTree:
    value = np.asarray(tree.value, np.float64)  # [nodes, targets, classes]; regression has one class
    if is_classifier:
        value = value[:, 0, :]
        total = value.sum(axis=1, keepdims=True)  # counts up to 1.2, shares since
        value = np.divide(value, total, out=np.zeros_like(value), where=total > 0)
    else:
        value = value[:, :, 0]
    return _numeric(tree, value * scale, output=0)


def _numeric(tree: Any, value: Float64, output: int) -> RawTree:
    left, right, threshold, missing_left = at_most(
        np.asarray(tree.children_left, np.int64),
        np.asarray(tree.children_right, np.int64),
        np.asarray(tree.threshold, np.float64),
        np.asarray(tree.missing_go_to_left).astype(np.bool_),
    )
    return RawTree(
        left=left,
        right=right,
        feature=np.asarray(tree.feature, np.int64),
        threshold=threshold,
        missing_left=missing_left,
        value=value,
        cover=np.asarray(tree.weighted_n_node_samples, np.float64),
        output=output,
    )


def _boosted(model: Any) -> TreeEnsemble:
    check_tree_count(model.estimators_.size, LOCATION)
    trees = [
        _numeric(estimator.tree_, estimator.tree_.value[:, 0, 0] * float(model.learning_rate), output)
        for stage in model.estimators_
        for output, estimator in enumerate(stage)
    ]
    return _ensemble(model, trees, _initial(model), "float32")


def _initial(model: Any) -> Float64:
    """The raw prediction before the first tree: what the constant `init` estimator says, through the loss's link."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    outputs = model.estimators_.shape[1]
    if isinstance(model.init_, str):  # "zero"
        return np.zeros(outputs)
    row = np.zeros((1, model.n_features_in_))
    if isinstance(model.init_, DummyRegressor):
        return np.asarray(model.init_.predict(row), np.float64).ravel()
    if not isinstance(model.init_, DummyClassifier) or model.init_.strategy == "stratified":
        raise ModelError(
            "the model starts from another model's predictions, which are no trees",
            expected="init=None, 'zero', or a constant dummy estimator",
            found=f"init={type(model.init_).__name__}",
            next_step="fit the gradient boosting without init",
        )
    tiny = np.finfo(np.float64).eps
    share = np.clip(np.asarray(model.init_.predict_proba(row), np.float64)[0], tiny, 1 - tiny)
    if outputs > 1:
        return np.asarray(np.log(share) - np.log(share).mean(), np.float64)
    log_odds = np.log(share[1] / (1 - share[1]))
    return np.array([log_odds / 2 if model.loss == "exponential" else log_odds])


def _histogram(model: Any) -> TreeEnsemble:
    predictors = model._predictors  # scikit-learn has no public access to these trees
    check_tree_count(sum(map(len, predictors)), LOCATION)
    columns, categories = _columns(model)
    trees = [
        _histogram_tree(predictor, output, columns, categories)
        for iteration in predictors
        for output, predictor in enumerate(iteration)
    ]
    return _ensemble(model, trees, np.asarray(model._baseline_prediction, np.float64).ravel(), "float64")


def _columns(model: Any) -> tuple[Int64, dict[int, Int64]]:
    """Which input column each of the trees' columns is, and the codes of the categorical ones.

    Before the trees see a row, categorical columns are moved to the front and replaced by positions in the sorted
    categories of the training data.
    """
    columns = np.arange(model.n_features_in_)
    if getattr(model, "_preprocessor", None) is None:
        return columns, {}
    is_categorical = np.asarray(model.is_categorical_, np.bool_)
    columns = np.concatenate((columns[is_categorical], columns[~is_categorical]))
    encoder = model._preprocessor.named_transformers_["encoder"]
    names = getattr(model, "feature_names_in_", [f"number {i}" for i in range(len(columns))])
    return columns, {
        position: _codes(found, str(names[columns[position]])) for position, found in enumerate(encoder.categories_)
    }


def _codes(categories: npt.NDArray[Any], name: str) -> Int64:
    """What a matrix holds for the categories: numbers themselves, of texts the position among the sorted ones.

    Missing values among them take no part.
    """
    if any(isinstance(category, str) for category in categories):
        return np.arange(sum(isinstance(category, str) for category in categories))
    try:
        values = np.asarray(categories, np.float64)
    except (TypeError, ValueError) as error:
        raise _not_codes(name, f"category {categories[0]!r}") from error
    values = values[~np.isnan(values)]
    wrong = values[(values < 0) | (values >= MAX_CATEGORY) | (values != np.floor(values))]
    if len(wrong):
        raise _not_codes(name, f"category {wrong[0]:g}")
    return values.astype(np.int64)


def _not_codes(name: str, found: str) -> ModelError:
    return ModelError(
        f"the categories of feature '{name}' cannot be read from a matrix of numbers",
        expected=f"texts, or whole numbers from 0 to {MAX_CATEGORY - 1}",
        found=found,
        next_step="encode the column as such numbers, then fit again",
    )


def _histogram_tree(predictor: Any, output: int, columns: Int64, categories: dict[int, Int64]) -> RawTree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(np.bool_)
    missing_left = nodes["missing_go_to_left"].astype(np.bool_)
    left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    left, right, threshold, nan_left = at_most(left, right, nodes["num_threshold"].astype(np.float64), missing_left)
    own = nodes["feature_idx"].astype(np.int64)
    positions = np.full(len(nodes), -1)
    sets: list[tuple[UInt32, bool]] = []
    categorical = np.flatnonzero(nodes["is_categorical"].astype(np.bool_) & ~leaf)
    for node in categorical:
        positions[node] = len(sets)
        listed = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        sets.append(_set(listed, categories[int(own[node])], bool(missing_left[node])))
    left[categorical], right[categorical] = nodes["left"][categorical], nodes["right"][categorical]
    nan_left[categorical] = missing_left[categorical]
    return RawTree(
        left=left,
        right=right,
        feature=np.where(leaf, -1, columns[np.where(leaf, 0, own)]),
        threshold=threshold,
        missing_left=nan_left,
        value=nodes["value"].astype(np.float64),
        cover=nodes["count"].astype(np.float64),
        output=output,
        category_set=positions,
        sets=sets,
    )


def _set(listed: UInt32, codes: Int64, missing_left: bool) -> tuple[UInt32, bool]:
    """Words over the codes themselves; `listed` has a bit per position among the sorted categories."""
    bits = np.full(32 * (int(codes.max()) // 32 + 1) if len(codes) else 0, missing_left)
    place = np.arange(len(codes))
    bits[codes] = (listed[place // 32] >> (place % 32).astype(np.uint32)) & np.uint32(1)
    return np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32), missing_left
