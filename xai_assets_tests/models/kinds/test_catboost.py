"""CatBoost's cbm files: the library's own predictions, categorical features as the texts they were, refusals."""

import catboost
import numpy as np
import polars as pl
import pytest

from xai_assets.errors import ModelError
from xai_assets.models.artifact import load_model
from xai_assets.records import FeatureSpec

QUIET = {"iterations": 12, "verbose": 0, "allow_writing_files": False, "thread_count": 1, "random_seed": 0}


def saved(model, place) -> bytes:
    model.save_model(str(place))
    return place.read_bytes()


@pytest.fixture(scope="module")
def numeric(rows):
    frame = rows.frame[["size", "weight"]]
    return catboost.CatBoostClassifier(**QUIET).fit(frame, rows.label)


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise", "Lossguide"])
@pytest.mark.parametrize("loss", ["Logloss", "CrossEntropy"])
def test_classifier(rows, tmp_path, loss, policy):
    frame = rows.frame[["size", "weight"]]
    trained = catboost.CatBoostClassifier(**QUIET, loss_function=loss, grow_policy=policy).fit(frame, rows.label)
    saved(trained, tmp_path / "m.cbm")
    model = load_model(tmp_path / "m.cbm", features=rows.features)
    X = model.encode(rows.table)
    np.testing.assert_array_equal(model.predict_output(X), trained.predict_proba(frame)[:, 1])
    np.testing.assert_array_equal(model.predict_output(X, "probability"), trained.predict_proba(frame)[:, 1])
    np.testing.assert_array_equal(model.predict_margin(X), trained.predict(frame, prediction_type="RawFormulaVal"))
    assert (model.kind, model.objective, model.is_classifier) == ("catboost", loss, True)
    assert model.feature_names == ("size", "weight")
    assert not model.notes


@pytest.mark.parametrize("loss", ["RMSE", "MAE", "Poisson", "Tweedie:variance_power=1.5"])
def test_regression(rows, tmp_path, loss):
    trained = catboost.CatBoostRegressor(**QUIET, loss_function=loss).fit(rows.numbers, rows.label)
    saved(trained, tmp_path / "m.cbm")
    model = load_model(tmp_path / "m.cbm", "catboost", features=rows.numeric)
    X = rows.numbers.astype(np.float32)
    np.testing.assert_allclose(model.predict_output(X), trained.predict(X), rtol=1e-12)
    np.testing.assert_array_equal(model.predict_margin(X), trained.predict(X, prediction_type="RawFormulaVal"))
    assert "no feature names" in model.notes[0]  # trained on an array
    assert not model.is_classifier
    with pytest.raises(ModelError, match=r"models\.output is 'probability'"):
        model.predict_output(X, "probability")


@pytest.mark.parametrize("one_hot", [2, 10], ids=["statistics of levels", "one-hot"])
def test_codes_become_the_texts_they_were_and_missing_is_nan(rows, tmp_path, one_hot):
    frame = rows.text("nan")
    trained = catboost.CatBoostClassifier(**QUIET, one_hot_max_size=one_hot, cat_features=["fruit"])
    trained.fit(frame, rows.label)
    saved(trained, tmp_path / "m.cbm")
    with pytest.raises(ModelError, match=r"levels of categorical feature 'fruit' are unknown"):
        load_model(tmp_path / "m.cbm", features=rows.features)
    model = load_model(tmp_path / "m.cbm", features=rows.listed)
    X = model.encode(rows.table)
    np.testing.assert_array_equal(model.predict_output(X), trained.predict_proba(frame)[:, 1])
    assert "as the text 'nan'" in model.notes[0]
    fruit = pl.Series("fruit", ["durian"])
    unseen = model.encode(rows.table[:1].with_columns(fruit))
    as_missing = model.encode(rows.table[:1].with_columns(pl.Series("fruit", [None], pl.String)))
    np.testing.assert_array_equal(model.predict_margin(unseen), model.predict_margin(as_missing))
    swapped = (rows.listed[0], FeatureSpec("fruit", "categorical", ("apple", "pear", "fig")), rows.listed[2])
    other = load_model(tmp_path / "m.cbm", features=swapped)
    assert not np.array_equal(other.encode(rows.table), X)  # other codes, the same texts
    np.testing.assert_array_equal(other.predict_output(other.encode(rows.table)), model.predict_output(X))


def test_a_level_called_nan_and_integer_levels(rows, tmp_path):
    frame = rows.frame.assign(fruit=rows.frame["fruit"].cat.codes.astype(int))  # −1 … 2
    trained = catboost.CatBoostClassifier(**QUIET, cat_features=["fruit"]).fit(frame, rows.label)
    saved(trained, tmp_path / "m.cbm")
    features = (rows.features[0], FeatureSpec("fruit", "categorical", ("nan", "2", "1", "0", "-1")), rows.features[2])
    model = load_model(tmp_path / "m.cbm", features=features)
    table = rows.table.with_columns(pl.Series("fruit", frame["fruit"].to_numpy()))
    np.testing.assert_array_equal(model.predict_output(model.encode(table)), trained.predict_proba(frame)[:, 1])


@pytest.mark.parametrize("loss", ["MultiClass", "MultiClassOneVsAll"])
def test_several_classes(rows, tmp_path, loss):
    trained = catboost.CatBoostClassifier(**QUIET, loss_function=loss).fit(rows.numbers, np.arange(400) % 3)
    saved(trained, tmp_path / "m.cbm")
    with pytest.raises(ModelError, match="more than one output"):
        load_model(tmp_path / "m.cbm", features=rows.numeric)


def test_several_outputs_of_a_regression(rows, tmp_path):
    trained = catboost.CatBoostRegressor(**QUIET, loss_function="RMSEWithUncertainty").fit(rows.numbers, rows.label)
    saved(trained, tmp_path / "m.cbm")
    with pytest.raises(ModelError, match="more than one output"):
        load_model(tmp_path / "m.cbm", features=rows.numeric)


def test_text_features(rows, tmp_path):
    words = {
        "tokenizers": [{"tokenizer_id": "Space", "delimiter": " "}],
        "dictionaries": [{"dictionary_id": "Word", "occurrence_lower_bound": "1"}],
        "feature_processing": {
            "default": [
                {"tokenizers_names": ["Space"], "dictionaries_names": ["Word"], "feature_calcers": ["BoW"]},
            ]
        },
    }
    trained = catboost.CatBoostClassifier(**QUIET, text_features=["fruit"], text_processing=words)
    trained.fit(rows.text("none")[["fruit"]], rows.label)
    saved(trained, tmp_path / "m.cbm")
    with pytest.raises(ModelError, match=r"reads text features.*fruit"):
        load_model(tmp_path / "m.cbm", features=rows.listed)


def test_a_truncated_file_is_refused_wherever_it_ends(rows, numeric, tmp_path, refused_wherever_it_ends):
    refused_wherever_it_ends(saved(numeric, tmp_path / "whole.cbm"), "m.cbm", rows.features)
    texts = catboost.CatBoostClassifier(**QUIET, one_hot_max_size=2, cat_features=["fruit"])
    raw = saved(texts.fit(rows.text("nan"), rows.label), tmp_path / "whole.cbm")
    trees = 8 + int.from_bytes(raw[4:8], "little")
    assert trees < len(raw)  # the statistics of levels come after the trees
    refused_wherever_it_ends(raw, "m.cbm", rows.listed)


def test_a_newer_library_is_refused(rows, numeric, tmp_path):
    raw = saved(numeric, tmp_path / "m.cbm")
    release = f"release {catboost.__version__}".encode()
    assert raw.count(release) == 1
    (tmp_path / "m.cbm").write_bytes(raw.replace(release, b"release 9" + release[9:]))
    with pytest.raises(ModelError, match=r"newer catboost than the installed one.*Found: catboost 9\."):
        load_model(tmp_path / "m.cbm", features=rows.features)
