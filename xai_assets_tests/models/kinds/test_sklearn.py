"""scikit-learn through skops: the estimators' own predictions, texts behind codes, and what is not trusted."""

import io
import json
import zipfile

import numpy as np
import polars as pl
import pytest
import skops.io
from sklearn import ensemble, linear_model, svm
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from xai_assets.errors import ModelError
from xai_assets.models.artifact import load_model
from xai_assets.models.kinds.sklearn import from_estimator
from xai_assets.models.training import evaluate

SMALL = {"n_estimators": 5, "max_depth": 3, "random_state": 0}
HIST = {"max_iter": 5, "random_state": 0}
DECISIONS = {
    "logistic": linear_model.LogisticRegression(),
    "ridge": linear_model.RidgeClassifier(),
    "sgd": linear_model.SGDClassifier(random_state=0),
    "boosting": ensemble.GradientBoostingClassifier(**SMALL),
    "histograms": ensemble.HistGradientBoostingClassifier(**HIST),
    "scaled": make_pipeline(StandardScaler(), linear_model.LogisticRegression()),
    "svm": svm.LinearSVC(random_state=0),
}
FORESTS = {
    "tree": DecisionTreeClassifier(max_depth=3, random_state=0),
    "forest": ensemble.RandomForestClassifier(**SMALL),
    "extra": ensemble.ExtraTreesClassifier(**SMALL),
    "scaled forest": make_pipeline(StandardScaler(), ensemble.RandomForestClassifier(**SMALL)),
}
REGRESSIONS = {
    "linear": linear_model.LinearRegression(),
    "ridge": linear_model.Ridge(),
    "poisson": linear_model.PoissonRegressor(),
    "tweedie": linear_model.TweedieRegressor(power=1.5),
    "tree": DecisionTreeRegressor(max_depth=3, random_state=0),
    "forest": ensemble.RandomForestRegressor(**SMALL),
    "boosting": ensemble.GradientBoostingRegressor(**SMALL),
    "histograms": ensemble.HistGradientBoostingRegressor(**HIST),
    "counts": ensemble.HistGradientBoostingRegressor(**HIST, loss="poisson"),
}
LOG_LINKS = ("poisson", "tweedie", "counts")


def loaded(estimator, tmp_path, features, kind="auto"):
    skops.io.dump(estimator, tmp_path / "m.skops")
    return load_model(tmp_path / "m.skops", kind, features=features)


def named(rows):
    """The numeric columns as a frame, so that the estimator knows its features' names."""
    return rows.frame[["weight", "size"]].fillna(0.0)


@pytest.mark.parametrize("name", DECISIONS)
def test_classifiers_with_a_decision_function(rows, tmp_path, name):
    trained = DECISIONS[name].fit(named(rows), rows.label)
    model = loaded(trained, tmp_path, rows.features, "sklearn")
    X = model.encode(rows.table.with_columns(pl.col("size").fill_nan(0.0)))
    assert model.feature_names == ("weight", "size")  # the model's order, not the configuration's
    assert (model.kind, model.is_classifier) == ("sklearn", True)
    np.testing.assert_allclose(model.predict_margin(X), trained.decision_function(named(rows)), rtol=1e-12)
    if hasattr(trained, "predict_proba"):
        np.testing.assert_allclose(model.predict_output(X), trained.predict_proba(named(rows))[:, 1], rtol=1e-12)
    else:
        np.testing.assert_array_equal(model.predict_output(X), trained.predict(named(rows)))
        with pytest.raises(ModelError, match=r"models\.output is 'probability'"):
            model.predict_output(X, "probability")


@pytest.mark.parametrize("name", FORESTS)
def test_margin_of_a_forest_is_its_averaged_probability(rows, tmp_path, name):
    trained = FORESTS[name].fit(rows.numbers, rows.label)
    model = loaded(trained, tmp_path, rows.numeric)
    X = rows.numbers.astype(np.float32)
    expected = trained.predict_proba(rows.numbers)[:, 1]
    for found in (model.predict_margin(X), model.predict_output(X), model.predict_output(X, "probability")):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert any("averages probabilities" in note for note in model.notes)
    assert "no feature names" in model.notes[0]


@pytest.mark.parametrize("name", REGRESSIONS)
def test_regressions(rows, tmp_path, name):
    trained = REGRESSIONS[name].fit(rows.numbers, rows.label)
    model = loaded(trained, tmp_path, rows.numeric)
    X = rows.numbers.astype(np.float32)
    value = trained.predict(rows.numbers)
    np.testing.assert_allclose(model.predict_output(X), value, rtol=1e-10)
    np.testing.assert_allclose(model.predict_margin(X), np.log(value) if name in LOG_LINKS else value, rtol=1e-10)
    assert not model.is_classifier


def test_other_probabilities_become_log_odds(rows, tmp_path):
    trained = CalibratedClassifierCV(svm.LinearSVC(random_state=0), cv=2).fit(rows.numbers, rows.label)
    model = loaded(trained, tmp_path, rows.numeric)
    X = rows.numbers.astype(np.float32)
    p = trained.predict_proba(rows.numbers)[:, 1]
    np.testing.assert_allclose(model.predict_margin(X), np.log(p / (1 - p)), rtol=1e-9)


def test_classes_with_names_are_said(rows, tmp_path):
    trained = linear_model.LogisticRegression().fit(rows.numbers, np.where(rows.label, "yes", "no"))
    model = loaded(trained, tmp_path, rows.numeric)
    X = rows.numbers.astype(np.float32)
    np.testing.assert_allclose(model.predict_output(X), trained.predict_proba(rows.numbers)[:, 1], rtol=1e-12)
    assert any("probability of class 'yes'" in note for note in model.notes)


def test_a_classifier_that_only_decides_can_be_evaluated(rows, tmp_path):
    trained = svm.LinearSVC(random_state=0).fit(rows.numbers, rows.label)
    model = loaded(trained, tmp_path, rows.numeric)
    table = rows.table.with_columns(pl.col("size").fill_nan(0.0))
    found = evaluate(model, table, rows.label)
    assert found.value == pytest.approx(roc_auc_score(rows.label, trained.decision_function(rows.numbers)), abs=1e-6)


# ---------------------------------------------------------------- categorical features

ENCODED = {
    "one-hot": make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["fruit"]), (SimpleImputer(), ["size", "weight"])
        ),
        linear_model.LogisticRegression(),
    ),
    "imputed codes": make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="most_frequent"), OrdinalEncoder()), [1]), remainder="passthrough"
        ),
        ensemble.RandomForestClassifier(**SMALL),
    ),
}


@pytest.mark.parametrize("name", ENCODED)
def test_pipelines_that_read_texts_get_texts(rows, tmp_path, name):
    frame = rows.text(np.nan)
    trained = ENCODED[name].fit(frame, rows.label)
    model = loaded(trained, tmp_path, rows.features)
    assert model.features[1].categories == ("apple", "fig", "pear")
    X = model.encode(rows.table)
    np.testing.assert_allclose(model.predict_output(X), trained.predict_proba(frame)[:, 1], rtol=1e-9)


def test_histogram_boosting_over_a_frame_stores_its_levels(rows, tmp_path):
    trained = ensemble.HistGradientBoostingClassifier(**HIST, categorical_features="from_dtype")
    trained.fit(rows.frame, rows.label)
    model = loaded(trained, tmp_path, rows.features)
    assert model.features[1].categories == ("apple", "fig", "pear")
    X = model.encode(rows.table)
    np.testing.assert_allclose(model.predict_margin(X), trained.decision_function(rows.frame), rtol=1e-12)
    with pytest.raises(ModelError, match="levels of 'fruit' differ"):
        load_model(tmp_path / "m.skops", features=rows.listed)


def test_histogram_boosting_over_codes_needs_the_levels(rows, tmp_path):
    codes = rows.frame.assign(fruit=rows.frame["fruit"].cat.codes.replace(-1, np.nan)).to_numpy(dtype=float)
    trained = ensemble.HistGradientBoostingClassifier(**HIST, categorical_features=[1]).fit(codes, rows.label)
    with pytest.raises(ModelError, match="levels of categorical feature 'fruit' are unknown"):
        loaded(trained, tmp_path, rows.features)
    model = load_model(tmp_path / "m.skops", features=rows.listed)
    X = model.encode(rows.table)
    np.testing.assert_allclose(model.predict_margin(X), trained.decision_function(codes), rtol=1e-12)


def test_a_level_that_the_encoder_does_not_know_is_refused_with_its_own_words(rows, tmp_path):
    strict = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["fruit"]), remainder="drop"), linear_model.LogisticRegression()
    )
    known = rows.table["fruit"].is_not_null().to_numpy()
    strict.fit(rows.text(np.nan)[known], rows.label[known])
    model = loaded(strict, tmp_path, rows.features)
    with pytest.raises(ModelError, match=r"scikit-learn model refuses these rows.*unknown categories"):
        model.predict_margin(model.encode(rows.table))


def test_missing_values_in_a_model_that_takes_none(rows, tmp_path):
    model = loaded(linear_model.LogisticRegression().fit(rows.numbers, rows.label), tmp_path, rows.numeric)
    with pytest.raises(ModelError, match=r"refuses these rows.*NaN"):
        model.predict_margin(np.array([[np.nan, 1.0]], np.float32))


# ---------------------------------------------------------------- refused


class Unknown(linear_model.LogisticRegression):
    """A type that no skops trusts."""


def test_types_that_are_not_trusted_are_listed_and_not_built(rows, tmp_path):
    with pytest.raises(ModelError, match=r"types that are not trusted.*Unknown"):
        loaded(Unknown().fit(rows.numbers, rows.label), tmp_path, rows.numeric)


def test_a_search_is_to_be_saved_as_its_best_estimator(rows, tmp_path):
    search = GridSearchCV(linear_model.LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(rows.numbers, rows.label)
    with pytest.raises(ModelError, match=r"not trusted.*save search\.best_estimator_"):
        loaded(search, tmp_path, rows.numeric)
    assert loaded(search.best_estimator_, tmp_path, rows.numeric).is_classifier


@pytest.mark.parametrize(
    "estimator, message",
    [
        (KMeans(2, n_init=1), "neither a classifier nor a regression"),
        (StandardScaler(), "neither a classifier nor a regression"),
    ],
    ids=str,
)
def test_what_predicts_no_label(rows, tmp_path, estimator, message):
    with pytest.raises(ModelError, match=message):
        loaded(estimator.fit(rows.numbers), tmp_path, rows.numeric)


def test_what_was_never_fitted(rows, tmp_path):
    with pytest.raises(ModelError, match="is not fitted"):
        loaded(linear_model.LogisticRegression(), tmp_path, rows.numeric)


def test_several_outputs(rows, tmp_path):
    three = linear_model.LogisticRegression().fit(rows.numbers, np.arange(400) % 3)
    two = linear_model.LinearRegression().fit(rows.numbers, rows.numbers)
    forest = ensemble.RandomForestClassifier(**SMALL).fit(rows.numbers, np.column_stack([rows.label, 1 - rows.label]))
    for estimator in (three, two, forest):
        with pytest.raises(ModelError, match="more than one output"):
            loaded(estimator, tmp_path, rows.numeric)


def test_a_truncated_file_is_refused_wherever_it_ends(rows, refused_wherever_it_ends):
    trained = linear_model.LogisticRegression().fit(rows.numbers, rows.label)
    refused_wherever_it_ends(skops.io.dumps(trained), "m.skops", rows.numeric)


def changed(raw: bytes, change) -> bytes:
    """The skops file with another schema."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name == "schema.json" else old.read(name))
    return out.getvalue()


def test_versions(rows, tmp_path):
    import sklearn

    raw = skops.io.dumps(linear_model.LogisticRegression().fit(rows.numbers, rows.label))
    version = f'"\\"{sklearn.__version__}\\""'.encode()
    place = tmp_path / "m.skops"
    place.write_bytes(changed(raw, lambda schema: schema.replace(version, b'"\\"9.1.0\\""')))
    with pytest.raises(ModelError, match=r"newer scikit-learn than the installed one.*Found: scikit-learn 9\.1\.0"):
        load_model(place, features=rows.numeric)
    place.write_bytes(changed(raw, lambda schema: schema.replace(version, b'"\\"1.5.0\\""')))
    model = load_model(place, features=rows.numeric)
    assert any("written by scikit-learn 1.5.0, an older version" in note for note in model.notes)
    place.write_bytes(changed(raw, lambda schema: json.dumps({**json.loads(schema), "protocol": 99}).encode()))
    with pytest.raises(ModelError, match="newer skops than the installed one"):
        load_model(place, features=rows.numeric)


def damage(tree, part, value):
    state = tree.tree_.__getstate__()
    state["nodes"][part][0] = value
    tree.tree_.__setstate__(state)


TREE = DecisionTreeClassifier(max_depth=3, random_state=0)
NESTED = {
    "alone": (TREE, lambda m: m),
    "pipeline in a pipeline": (make_pipeline(make_pipeline(TREE)), lambda m: m.steps[0][1].steps[0][1]),
    "calibrated": (CalibratedClassifierCV(TREE, cv=2), lambda m: m.calibrated_classifiers_[1].estimator),
    "forest": (ensemble.RandomForestClassifier(**SMALL), lambda m: m.estimators_[4]),
    "boosting": (ensemble.GradientBoostingClassifier(**SMALL), lambda m: m.estimators_[4, 0]),
    "bagging": (ensemble.BaggingClassifier(TREE, 3, random_state=0), lambda m: m.estimators_[2]),
    "stack's last": (ensemble.StackingClassifier([("t", TREE)], TREE), lambda m: m.final_estimator_),
    "stack's first": (ensemble.StackingClassifier([("t", TREE)], TREE), lambda m: m.estimators_[0]),
    "vote": (ensemble.VotingClassifier([("t", TREE)], voting="soft"), lambda m: m.estimators_[0]),
    "target": (
        TransformedTargetRegressor(DecisionTreeRegressor(max_depth=3), transformer=StandardScaler()),
        lambda m: m.regressor_,
    ),
}


@pytest.mark.parametrize("part, value, message", [("left_child", 0, "not a tree"), ("feature", 2**30, "feature that")])
@pytest.mark.parametrize("name", NESTED)
def test_a_damaged_tree_is_refused_wherever_it_is(rows, name, part, value, message):
    estimator, inner = NESTED[name]
    trained = clone(estimator).fit(rows.numbers, rows.label)
    from_estimator("m", trained)  # the healthy twin
    damage(inner(trained), part, value)
    with pytest.raises(ModelError, match=f"damaged.*{message}"):
        from_estimator("m", trained)


def test_a_tree_that_claims_more_features_than_its_forest(rows, tmp_path):
    trained = ensemble.RandomForestClassifier(**SMALL).fit(rows.numbers, rows.label)
    trained.estimators_[3].n_features_in_ = 2**31
    damage(trained.estimators_[3], "feature", 2**30)
    with pytest.raises(ModelError, match=r"damaged.*tree 3 reads 2147483648 features of 2"):
        loaded(trained, tmp_path, rows.numeric)


@pytest.mark.parametrize(
    "part, value, message",
    [
        ("feature_idx", 9, "feature that does not exist"),
        ("left", 0, "not a tree"),
        ("bitset_idx", 99, "set of levels that does not exist"),
        ("feature_idx", 2, "levels of a feature that has none"),
    ],
)
def test_damaged_histogram_trees(rows, tmp_path, part, value, message):
    codes = rows.frame.assign(fruit=rows.frame["fruit"].cat.codes.replace(-1, np.nan)).to_numpy(dtype=float)
    trained = ensemble.HistGradientBoostingClassifier(**HIST, categorical_features=[1]).fit(codes, rows.label)
    loaded(trained, tmp_path, rows.listed)
    nodes = next(p.nodes for r in trained._predictors for p in r if (p.nodes["is_categorical"] == 1).any())
    nodes[part][np.flatnonzero(nodes["is_categorical"])[0]] = value
    with pytest.raises(ModelError, match=f"damaged.*{message}"):
        loaded(trained, tmp_path, rows.listed)
