"""Training gives back what was asked for, the same way each time; metrics are the textbook ones."""

import numpy as np
import polars as pl
import pytest
import xgboost

from xai_assets.errors import ModelError
from xai_assets.models.artifact import load_model
from xai_assets.models.registry import register_artifact
from xai_assets.models.training import (
    MIN_ROWS,
    TrainSettings,
    evaluate,
    score_outputs,
    train_classifier,
    train_regressor,
)
from xai_assets.records import FeatureSpec

from .conftest import FEATURES, LEVELS, pandas_matrix

QUICK = TrainSettings(rounds=12, parameters={"max_depth": 3}, threads=1)
USED = (FEATURES[0], FeatureSpec("fruit", "categorical", LEVELS), FEATURES[2])


def loaded(artifact, folder, features=FEATURES):
    path, digest = register_artifact(folder, "m", "production", artifact.raw)
    return load_model(path, sha256=digest, features=features)


def test_names_kinds_and_levels_come_back(table, tmp_path):
    artifact = train_classifier(table, table["label"], None, USED, settings=QUICK)
    model = loaded(artifact, tmp_path)
    assert model.features == USED
    assert model.objective == artifact.objective == "binary:logistic"
    assert (artifact.rounds, artifact.train_rows) == (12, 600)
    assert model.native.feature_types == ["float", "c", "float"]


def test_same_as_the_library_on_a_pandas_frame(table, tmp_path):
    ours = loaded(train_classifier(table, table["label"], None, USED, settings=QUICK), tmp_path)
    theirs = xgboost.train({"objective": "binary:logistic", "max_depth": 3}, pandas_matrix(table), 12)
    np.testing.assert_array_equal(ours.predict_output(ours.encode(table)), theirs.predict(pandas_matrix(table)))


def test_same_bytes_each_time_and_on_any_number_of_threads(table):
    settings = [TrainSettings(12, {"subsample": 0.7}, seed=s, threads=t) for s, t in ((1, 0), (1, 1), (1, 2), (2, 0))]
    digests = [train_classifier(table, table["label"], None, USED, settings=s).sha256 for s in settings]
    assert digests[0] == digests[1] == digests[2] != digests[3]


def test_levels_of_the_frame_where_none_are_given(table, tmp_path):
    artifact = train_classifier(table, table["label"], None, FEATURES, settings=QUICK)
    assert artifact.features[1].categories == tuple(sorted(LEVELS))
    assert loaded(artifact, tmp_path).features[1].categories == tuple(sorted(LEVELS))


def test_feature_that_is_null_throughout_is_unused(table, tmp_path):
    nothing = table.with_columns(fruit=pl.lit(None, pl.String), size=pl.lit(None, pl.Float64))
    model = loaded(train_classifier(nothing, nothing["label"], None, FEATURES, settings=QUICK), tmp_path)
    with_fruit = model.predict_margin(model.encode(nothing.with_columns(fruit=pl.lit("fig"))))
    np.testing.assert_array_equal(with_fruit, model.predict_margin(model.encode(nothing)))


def test_weight_two_is_the_row_twice(table, tmp_path):
    # min_child_weight counts Hessians, so doubling rows and doubling weights must grow the same trees.
    doubled = pl.concat([table, table[:100]])
    weights = np.where(np.arange(600) < 100, 2.0, 1.0)
    settings = TrainSettings(5, {"max_depth": 3, "tree_method": "exact"})
    numeric = (FEATURES[0], FEATURES[2])
    once = loaded(train_classifier(table, table["label"], weights, numeric, settings=settings), tmp_path)
    twice = loaded(train_classifier(doubled, doubled["label"], None, numeric, settings=settings), tmp_path)
    X = once.encode(table)
    np.testing.assert_allclose(once.predict_margin(X), twice.predict_margin(X), atol=1e-4)


def test_early_stopping_uses_the_last_rows_only(table, tmp_path):
    rng = np.random.default_rng(0)
    settings = TrainSettings(80, {"max_depth": 4}, early_stopping_share=0.25, threads=1)
    artifact = train_classifier(table, table["label"], None, USED, settings=settings)
    assert artifact.train_rows == 450
    assert artifact.rounds < 60
    assert loaded(artifact, tmp_path).native.num_boosted_rounds() == artifact.rounds
    # With labels of the tail drawn by lot nothing improves for long, whatever the head says.
    noise = np.where(np.arange(600) < 450, table["label"], rng.integers(0, 2, 600))
    assert train_classifier(table, noise, None, USED, settings=settings).rounds < artifact.rounds


@pytest.mark.parametrize("share", [0.0, 1.0, 0.95])
def test_early_stopping_share_out_of_range(table, share):
    with pytest.raises(ModelError, match="early stopping leave too few"):
        train_classifier(table, table["label"], None, USED, settings=TrainSettings(early_stopping_share=share))


def test_regression(table, tmp_path):
    y = table["size"].fill_nan(0.0).to_numpy() * 3 + 1
    model = loaded(train_regressor(table, y, None, USED, settings=TrainSettings(rounds=40)), tmp_path)
    assert not model.is_classifier
    found = evaluate(model, table, y)
    assert found.metric == "rmse"
    assert found.value == found.metrics["rmse"] < 0.3
    assert found.metrics["mae"] <= found.metrics["rmse"]


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.ones(600), "on one class.*600 rows with label 1"),
        (np.arange(600) % 3, "must be 0 or 1.*0, 1, 2"),
        (np.full(600, np.nan), "must be finite.*600 of 600"),
        (np.ones(599), "do not fit the rows"),
    ],
)
def test_labels_that_cannot_be_learnt(table, labels, message):
    with pytest.raises(ModelError, match=message):
        train_classifier(table, labels, None, USED, settings=QUICK)


@pytest.mark.parametrize("rows", [0, 1, MIN_ROWS - 1])
def test_too_few_rows(table, rows):
    few = table[:rows]
    with pytest.raises(ModelError, match=f"too few rows.*at least {MIN_ROWS}.*Found: {rows}"):
        train_classifier(few, np.arange(rows) % 2, None, USED, settings=QUICK)
    with pytest.raises(ModelError, match=f"too few rows.*at least {MIN_ROWS}.*Found: {rows}"):
        train_regressor(few, np.arange(rows) % 2, None, USED, settings=QUICK)


@pytest.mark.parametrize("weights", [np.zeros(600), np.full(600, np.nan), np.full(600, -1.0), np.ones(3)])
def test_weights(table, weights):
    with pytest.raises(ModelError, match="weights must be positive"):
        train_classifier(table, table["label"], weights, USED, settings=QUICK)


def test_metrics_by_hand():
    outputs, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
    found = score_outputs(outputs, labels, is_classifier=True)
    # The AUC is the example of scikit-learn's roc_auc_score; the others follow from their definitions.
    assert found.metrics["auc"] == pytest.approx(0.75)
    chosen = np.where(labels == 1, outputs, 1 - outputs)
    assert found.metrics["log_loss"] == pytest.approx(-np.log(chosen).mean())
    assert found.metrics["brier"] == pytest.approx(((outputs - labels) ** 2).mean())
    assert (found.metric, found.value, found.rows) == ("auc", found.metrics["auc"], 4)
    errors = score_outputs([1.0, 3.0], [2.0, 5.0], is_classifier=False, weights=[1.0, 3.0])
    assert errors.metrics == {"rmse": pytest.approx(np.sqrt(13 / 4)), "mae": pytest.approx(7 / 4)}


def test_metrics_that_do_not_exist():
    with pytest.raises(ModelError, match="evaluated on one class"):
        score_outputs([0.1, 0.2], [0, 0], is_classifier=True)
    with pytest.raises(ModelError, match="no rows"):
        score_outputs([], [], is_classifier=False)


def test_certain_and_wrong_has_a_finite_loss():
    assert np.isfinite(score_outputs([0.0, 1.0], [1, 0], is_classifier=True).metrics["log_loss"])
