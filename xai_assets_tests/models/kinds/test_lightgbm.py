"""LightGBM's text models: the library's own predictions, levels by position, and every damage refused."""

import hashlib
import pickle

import lightgbm
import numpy as np
import pandas as pd
import pytest

from xai_assets.errors import ModelError
from xai_assets.models.artifact import load_model
from xai_assets.records import FeatureSpec

QUIET = {"verbose": -1, "min_data_in_leaf": 5, "num_threads": 1}


def train(rows, **parameters):
    given = {"objective": "binary", **QUIET, **parameters}
    return lightgbm.train(given, lightgbm.Dataset(rows.frame, rows.label), 12)


@pytest.fixture(scope="module")
def text(rows) -> str:
    return train(rows).model_to_string()


@pytest.mark.parametrize(
    "parameters",
    [{}, {"boosting": "dart"}, {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, {"sigmoid": 2.0}],
    ids=str,
)
def test_classifier(rows, tmp_path, parameters):
    trained = train(rows, **parameters)
    trained.save_model(tmp_path / "m.txt")
    model = load_model(tmp_path / "m.txt", features=rows.features)
    X = model.encode(rows.table)
    np.testing.assert_array_equal(model.predict_output(X), trained.predict(rows.frame))
    np.testing.assert_array_equal(model.predict_output(X, "probability"), trained.predict(rows.frame))
    trees = 12 if parameters.get("boosting") == "rf" else 1  # the raw score of a forest is a sum, its margin an average
    np.testing.assert_allclose(model.predict_margin(X), trained.predict(rows.frame, raw_score=True) / trees, rtol=1e-12)
    assert model.kind == "lightgbm"
    assert model.features == rows.listed
    assert model.is_classifier
    assert model.native.num_trees() == 12
    assert len(set(model.predict_output(X))) > 20


@pytest.mark.parametrize("objective", ["regression", "poisson", "quantile"])
def test_regression(rows, tmp_path, objective):
    trained = train(rows, objective=objective)
    trained.save_model(tmp_path / "m.txt")
    model = load_model(tmp_path / "m.txt", "lightgbm", features=rows.features)
    X = model.encode(rows.table)
    np.testing.assert_array_equal(model.predict_output(X), trained.predict(rows.frame))
    np.testing.assert_array_equal(model.predict_margin(X), trained.predict(rows.frame, raw_score=True))
    assert not model.is_classifier
    with pytest.raises(ModelError, match=r"models\.output is 'probability'"):
        model.predict_output(X, "probability")


def test_only_the_best_iteration_is_saved_and_predicts(rows, tmp_path):
    data = lightgbm.Dataset(rows.frame[:200], rows.label[:200])
    held = data.create_valid(rows.frame[200:], rows.label[200:])
    stop = lightgbm.early_stopping(3, verbose=False)
    trained = lightgbm.train(
        {"objective": "binary", **QUIET, "learning_rate": 0.5}, data, 60, valid_sets=[held], callbacks=[stop]
    )
    trained.save_model(tmp_path / "m.txt")
    model = load_model(tmp_path / "m.txt", features=rows.features)
    assert model.native.num_trees() == trained.best_iteration < 60
    np.testing.assert_array_equal(model.predict_output(model.encode(rows.table)), trained.predict(rows.frame))


def test_own_objective_is_a_raw_score(rows, tmp_path):
    def squares(margin, data):
        return margin - data.get_label(), np.ones_like(margin)

    trained = train(rows, objective=squares)
    trained.save_model(tmp_path / "m.txt")
    model = load_model(tmp_path / "m.txt", features=rows.features)
    X = model.encode(rows.table)
    np.testing.assert_array_equal(model.predict_output(X), model.predict_margin(X))
    assert any("objective of its own" in note for note in model.notes)


def test_linear_leaves_can_only_be_asked_for_predictions(rows, tmp_path):
    trained = lightgbm.train(
        {"objective": "regression", "linear_tree": True, **QUIET}, lightgbm.Dataset(rows.numbers, rows.label), 3
    )
    trained.save_model(tmp_path / "m.txt")
    model = load_model(tmp_path / "m.txt", features=rows.numeric)
    assert model.kind == "callable"
    X = rows.numbers.astype(np.float32)
    np.testing.assert_allclose(model.predict_output(X), trained.predict(X), rtol=1e-12)
    assert load_model(tmp_path / "m.txt", "lightgbm", features=rows.numeric).kind == "callable"
    (tmp_path / "MLmodel").write_text("flavors: {lightgbm: {data: m.txt}}")
    for kind in ("mlflow", "lightgbm"):
        assert load_model(tmp_path, kind, features=rows.numeric).kind == "callable"
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(trained))
    pin = hashlib.sha256((tmp_path / "m.pkl").read_bytes()).hexdigest()
    assert load_model(tmp_path / "m.pkl", "lightgbm", pin, rows.numeric, trust_pickle=True).kind == "callable"
    with pytest.raises(ModelError, match=r"not of the configured kind.*lightgbm, out of a pickle"):
        load_model(tmp_path / "m.pkl", "sklearn", pin, rows.numeric, trust_pickle=True)


# ---------------------------------------------------------------- names and levels


def test_without_names_the_configured_order_is_used_when_the_number_agrees(rows, tmp_path):
    lightgbm.train({"objective": "binary", **QUIET}, lightgbm.Dataset(rows.numbers, rows.label), 3).save_model(
        tmp_path / "m.txt"
    )
    model = load_model(tmp_path / "m.txt", features=rows.numeric)
    assert model.feature_names == ("size", "weight")
    assert "no feature names" in model.notes[0]
    with pytest.raises(ModelError, match="no feature names, and their number differs"):
        load_model(tmp_path / "m.txt", features=rows.listed)


def test_levels_that_differ_and_kinds_that_differ_are_refused(rows, text, tmp_path):
    (tmp_path / "m.txt").write_text(text)
    sorted_levels = FeatureSpec("fruit", "categorical", tuple(sorted(rows.listed[1].categories)))
    with pytest.raises(ModelError, match=r"levels of 'fruit' differ.*pear, apple, fig \(stored in the model\)"):
        load_model(tmp_path / "m.txt", features=(rows.features[0], sorted_levels, rows.features[2]))
    with pytest.raises(ModelError, match="trained with 'fruit' as categorical"):
        load_model(tmp_path / "m.txt", features=(rows.features[0], FeatureSpec("fruit", "numeric"), rows.features[2]))


def test_levels_must_be_listed_where_the_file_does_not_tell_whose_they_are(rows, tmp_path):
    ordered = rows.frame.assign(  # an ordered category is coded, but read as a number
        fruit=pd.Categorical(rows.frame["fruit"], categories=list(rows.listed[1].categories), ordered=True)
    )
    trained = lightgbm.train({"objective": "binary", **QUIET}, lightgbm.Dataset(ordered, rows.label), 5)
    trained.save_model(tmp_path / "m.txt")
    with pytest.raises(ModelError, match=r"levels of categorical feature 'fruit' are unknown"):
        load_model(tmp_path / "m.txt", features=rows.features)
    model = load_model(tmp_path / "m.txt", features=rows.listed)
    np.testing.assert_array_equal(model.predict_output(model.encode(rows.table)), trained.predict(ordered))


def test_levels_that_are_numbers(rows, tmp_path):
    frame = rows.frame.assign(fruit=pd.Categorical(rows.frame["fruit"].cat.codes.replace(-1, 7) * 10))
    trained = lightgbm.train({"objective": "binary", **QUIET}, lightgbm.Dataset(frame, rows.label), 5)
    trained.save_model(tmp_path / "m.txt")
    model = load_model(tmp_path / "m.txt", features=rows.features)
    assert model.features[1].categories == ("0", "10", "20", "70")


# ---------------------------------------------------------------- refused


def test_several_classes(rows, tmp_path):
    data = lightgbm.Dataset(rows.numbers, np.arange(400) % 3)
    lightgbm.train({"objective": "multiclass", "num_class": 3, **QUIET}, data, 2).save_model(tmp_path / "m.txt")
    with pytest.raises(ModelError, match=r"more than one output.*num_class 3"):
        load_model(tmp_path / "m.txt", features=rows.numeric)


def test_a_truncated_file_is_refused_wherever_it_ends(rows, text, refused_wherever_it_ends):
    complete = text[: text.index("\n\npandas_categorical")]  # a file without that last line is complete too
    refused_wherever_it_ends(complete.encode(), "m.txt", rows.listed, cuts=40)


def part(text: str, key: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(key + "="))


DAMAGES = {
    "child out of range": ("left_child", lambda v: ["77", *v[1:]], "children are not a tree"),
    "walk in a circle": ("right_child", lambda v: ["0", *v[1:]], "children are not a tree"),
    "feature": ("split_feature", lambda v: ["3", *v[1:]], "feature that does not exist"),
    "leaf": ("leaf_value", lambda v: ["nan", *v[1:]], "not a number"),
    "short": ("threshold", lambda v: v[1:], "values of threshold instead of"),
    "levels": ("cat_boundaries", lambda v: [*v[:-1], "99"], "values of cat_threshold instead of 99"),
    "text": ("threshold", lambda v: ["0.5x", *v[1:]], "'0.5x' in threshold is not a number"),
    "no whole number": ("left_child", lambda v: ["1.5", *v[1:]], "'1.5' in left_child is not a number"),
    "covers": ("leaf_count", lambda v: ["_1", *v[1:]], "'_1' in leaf_count is not a number"),
    "names": ("feature_names", lambda v: v[1:], "2 feature_names for 3 features"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_structure_is_refused_before_the_library_reads_it(rows, text, tmp_path, damage):
    key, change, message = DAMAGES[damage]
    line = part(text, key)
    broken = f"{key}={' '.join(change(line.split('=')[1].split(' ')))}"
    changed = text.replace(line, broken, 1)
    first = int(part(text, "tree_sizes").split("=")[1].split(" ")[0])  # the sizes stay right: only the part is wrong
    grown = first + len(broken) - len(line) * (key != "feature_names") - len(broken) * (key == "feature_names")
    changed = changed.replace(f"tree_sizes={first} ", f"tree_sizes={grown} ")
    (tmp_path / "m.txt").write_text(changed)
    with pytest.raises(ModelError, match=f"damaged.*{message}"):
        load_model(tmp_path / "m.txt", features=rows.listed)


def test_a_newer_format_is_refused(rows, text, tmp_path):
    (tmp_path / "m.txt").write_text(text.replace("version=v4", "version=v5"))
    with pytest.raises(ModelError, match="newer lightgbm than the installed one"):
        load_model(tmp_path / "m.txt", features=rows.listed)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("[num_machines: 1]", "[num_machines+ 1]", "is no parameter"),
        ("feature_infos=[", "feature_infos=(", "no range and no list of levels"),
        ("\nlabel_index=", "\nlabel_endex=", "unknown parts label_endex before the trees"),
        ("\nleaf_weight=", "\nleaf_wright=", "unknown parts leaf_wright"),
    ],
)
def test_damages_that_end_the_process_in_lightgbm_itself(rows, text, tmp_path, old, new, message):
    assert text.count(old)
    (tmp_path / "m.txt").write_text(text.replace(old, new, 1))
    with pytest.raises(ModelError, match=f"damaged.*{message}"):
        load_model(tmp_path / "m.txt", features=rows.listed)
