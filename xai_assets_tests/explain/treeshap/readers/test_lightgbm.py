"""LightGBM's own raw scores on models and rows made to be awkward; damaged texts."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.ensemble import MAX_TREES, TreeEnsemble
from xai_assets.explain.treeshap.margin import predict_margin
from xai_assets.explain.treeshap.readers.lightgbm import read

NAMES = ["amount", "zeros", "home", "age"]
PLAIN = {"verbose": -1, "num_leaves": 8, "min_data_in_leaf": 3, "min_data_per_group": 3, "cat_smooth": 1}
FRACTIONS = [-0.5, 0.5, 3.99, np.inf, -np.inf, 1e20]


def data(rng: np.random.Generator, rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    X = rng.normal(size=(rows, 4))
    X[:, 2] = rng.integers(0, 60, rows)
    X[rng.random(rows) < 0.3, 1] = 0.0
    y = X[:, 0] + (X[:, 1] == 0) + 2.0 * (X[:, 2] % 3 == 1) + X[:, 3] * (X[:, 0] > 0)
    for feature in range(3):  # the last one has no missing values, so its splits are of type none
        X[rng.random(rows) < 0.1, feature] = np.nan
    return X, y


def train(parameters: dict[str, Any], X: np.ndarray, y: np.ndarray, rounds: int = 4, **more: Any) -> lightgbm.Booster:
    rows = lightgbm.Dataset(X, y, feature_name=NAMES, categorical_feature=["home"], params={"verbose": -1})
    return lightgbm.train({**PLAIN, "num_threads": 1, **parameters}, rows, rounds, **more)


@pytest.fixture(scope="module")
def text() -> str:
    return str(train({}, *data(np.random.default_rng(0)), rounds=3).model_to_string())


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "zeros are missing": {"zero_as_missing": True},
    "missing values unused": {"use_missing": False},
    "dart": {"boosting": "dart", "drop_rate": 0.5},
    "one-hot": {"max_cat_to_onehot": 100},
    "goss": {"data_sample_strategy": "goss"},
    "extra trees": {"extra_trees": True},
    "binary": {"objective": "binary"},
    "poisson": {"objective": "poisson"},
    "l1": {"objective": "l1"},
    "three classes": {"objective": "multiclass", "num_class": 3},
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1))
def test_margin_is_lightgbms_own(
    kind: str, seed: int, edge_rows: Callable[..., np.ndarray], check_reading: Callable[..., None]
) -> None:
    rng = np.random.default_rng(seed)
    X, y = data(rng)
    label = {"binary": y > 0.5, "poisson": np.abs(y), "three classes": rng.integers(0, 3, len(y))}.get(kind, y)
    booster = train({**KINDS[kind], "seed": seed % 1000}, X, label)
    ensemble = read(booster)
    rows = edge_rows(ensemble, rng, categorical=[2], fractions=FRACTIONS, infinite=True)
    check_reading(ensemble, rows, booster.predict(rows, raw_score=True))


def test_every_kind_of_missing_value_and_split_occurs() -> None:
    """The test above says nothing of a kind that no model has."""
    X, y = data(np.random.default_rng(0))
    plain, zeros = read(train({}, X, y)), read(train({"zero_as_missing": True}, X, y))
    assert (plain.category_set >= 0).any()
    assert not plain.zero_is_missing.any()
    assert zeros.zero_is_missing.any()
    assert {bool(v) for v in plain.missing_left[plain.feature == 3]} == {True, False}  # 0 ≤ threshold, and not


@pytest.mark.parametrize("objective", ["regression", "multiclass"])
def test_random_forests_are_averaged_as_predict_does(objective: str) -> None:
    """LightGBM's raw score of a forest is the sum of its trees; what it predicts with is their average."""
    X, y = data(np.random.default_rng(0))
    parameters = {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5, "objective": objective}
    label = y if objective == "regression" else np.arange(len(y)) % 3
    booster = train(parameters | ({"num_class": 3} if objective == "multiclass" else {}), X, label, rounds=5)
    found = predict_margin(read(booster), X)
    raw = np.asarray(booster.predict(X, raw_score=True)).reshape(len(X), -1)
    np.testing.assert_allclose(found, raw / 5, atol=1e-12)
    if objective == "regression":
        np.testing.assert_allclose(found[:, 0], booster.predict(X), atol=1e-12)
    else:
        share = np.exp(found) / np.exp(found).sum(1, keepdims=True)
        np.testing.assert_allclose(share, booster.predict(X), atol=1e-12)


def test_trees_past_the_best_iteration_are_left_out() -> None:
    rng = np.random.default_rng(0)
    X, y = data(rng)
    held = lightgbm.Dataset(
        X[200:],
        y[200:] + rng.normal(size=100),
        feature_name=NAMES,
        categorical_feature=["home"],
        params={"verbose": -1},
    )
    booster = train({"learning_rate": 0.5}, X[:200], y[:200], 30, valid_sets=[held], **stop_early())
    assert 0 < booster.best_iteration < booster.current_iteration()
    ensemble = read(booster)
    assert ensemble.n_trees == booster.best_iteration
    np.testing.assert_allclose(predict_margin(ensemble, X)[:, 0], booster.predict(X, raw_score=True), atol=1e-12)


def stop_early() -> dict[str, Any]:
    """Without keep_training_booster `train` itself drops the later trees."""
    return {"callbacks": [lightgbm.early_stopping(3, verbose=False)], "keep_training_booster": True}


def test_single_leaves(check_reading: Callable[..., None]) -> None:
    X, y = data(np.random.default_rng(0))
    booster = train({"min_data_in_leaf": 1000}, X, y, rounds=2)
    check_reading(read(booster), X, booster.predict(X, raw_score=True))


def test_covers_count_rows_as_lightgbms_contributions_do() -> None:
    """The expected value of its contributions is Σ count · value ÷ Σ count over the leaves."""
    X, y = data(np.random.default_rng(0))
    booster = train({"objective": "binary"}, X, y > 0.5)
    ensemble = read(booster)
    leaf = ensemble.left < 0
    expected = 0.0
    for first, last in zip(ensemble.tree_starts[:-1], ensemble.tree_starts[1:], strict=True):
        own = np.flatnonzero(leaf[first:last]) + first
        expected += np.average(ensemble.value[own], weights=ensemble.cover[own])
    assert expected == pytest.approx(booster.predict(X[:1], pred_contrib=True)[0, -1], abs=1e-12)


def test_a_split_that_only_parts_missing_values() -> None:
    """Its threshold is ∞, and ∞ ≤ ∞ is true, which no strict comparison says."""
    X = np.array([[np.nan], [-2.0], [-1.0], [1.0], [3.0]] * 20)
    rows = lightgbm.Dataset(X, np.isnan(X[:, 0]).astype(float), params={"verbose": -1})
    booster = lightgbm.train({**PLAIN, "num_threads": 1}, rows, 1)
    assert "threshold=inf" in booster.model_to_string()
    edge = np.array([[np.nan], [np.inf], [-np.inf], [1e300], [0.0]])
    np.testing.assert_allclose(predict_margin(read(booster), edge)[:, 0], booster.predict(edge), atol=1e-12)


GOLDEN = """tree
version=v4
num_class=1
num_tree_per_iteration=1
max_feature_idx=1
feature_names=a b
feature_infos=[0:1] [0:1]

Tree=0
num_leaves=3
num_cat=0
split_feature=0 1
threshold=0.5 -2.5
decision_type=2 10
left_child=1 -1
right_child=-3 -2
leaf_value=1 2 4
leaf_count=5 6 7
internal_count=18 11
shrinkage=1


end of trees
"""


def test_golden_text() -> None:
    """By hand: a ≤ 0.5 (missing values: none, so NaN is 0), then b ≤ -2.5 with NaN to the left."""
    ensemble = read(GOLDEN)
    X = np.array([[0.5, -2.5], [0.5, -2.4], [np.nextafter(0.5, 1), 0.0], [np.nan, np.nan], [np.nan, 0.0]])
    assert predict_margin(ensemble, X)[:, 0].tolist() == [1, 2, 4, 1, 2]
    assert ensemble.cover.tolist() == [18, 11, 5, 6, 7]
    assert (ensemble.feature_names, ensemble.source) == (("a", "b"), "lightgbm text v4")


def test_everything_a_model_can_be_given_as(tmp_path: Path) -> None:
    X, y = data(np.random.default_rng(0))
    fitted = lightgbm.LGBMRegressor(n_estimators=3, verbose=-1, n_jobs=1).fit(X, y, categorical_feature=[2])
    fitted.booster_.save_model(tmp_path / "model.txt")
    text = (tmp_path / "model.txt").read_bytes()
    given = [fitted, fitted.booster_, tmp_path / "model.txt", str(tmp_path / "model.txt"), text, text.decode()]
    margins = [predict_margin(TreeEnsemble.from_lightgbm(model), X) for model in given]
    for found in margins:
        np.testing.assert_array_equal(found, margins[0])
    windows = text.replace(b"\n", b"\r\n")
    np.testing.assert_array_equal(predict_margin(read(windows), X), margins[0])
    assert read(train({}, X, y)).feature_names == tuple(NAMES)


def test_a_file_is_read_without_the_library(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.txt").write_text(text)
    program = (
        "import sys\n"
        "from xai_assets.explain.treeshap.readers.lightgbm import read\n"
        f"assert read({str(tmp_path / 'model.txt')!r}).n_trees == 3\n"
        "assert 'lightgbm' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6])
def test_truncated_texts(text: str, share: float) -> None:
    end = text.index("end of trees")
    with pytest.raises(ModelError, match=r"damaged|empty|not a LightGBM"):
        read(text[: int(end * share)].encode())


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("left_child=1 -1", "left_child=0 -1", "not a node"),
        ("left_child=1 -1", "left_child=1 -4", "outside the tree"),
        ("left_child=1 -1", "left_child=2 -1", "outside the tree"),
        ("left_child=1 -1", "left_child=1 -2", "share a child"),
        ("left_child=1 -1", "left_child=1", "1 values instead of 2"),
        ("split_feature=0 1", "split_feature=0 2", "feature outside"),
        ("threshold=0.5 -2.5", "threshold=0.5 nan", "not a number"),
        ("threshold=0.5 -2.5", "threshold=0.5 x", "could not convert"),
        ("leaf_value=1 2 4", "leaf_value=1 2", "2 values instead of 3"),
        ("leaf_value=1 2 4", "leaf_value=1 2 inf", "not finite"),
        ("leaf_count=5 6 7", "leaf_count=5 6 -7", "negative"),
        ("decision_type=2 10", "decision_type=3 10", "without its set"),
        ("decision_type=2 10", "decision_type=14 10", "unknown kind of missing"),
        ("num_leaves=3", "num_leaves=0", "without leaves"),
        ("threshold=0.5 -2.5\n", "", "no part 'threshold'"),
        ("version=v4", "version=v5", "format version that is not known"),
        ("feature_names=a b", "feature_names=a", "1 feature names"),
        ("num_tree_per_iteration=1", "num_tree_per_iteration=2", "1 trees for 2 outputs"),
        ("shrinkage=1", "is_linear=1\nshrinkage=1", "linear models in its leaves"),
        ("num_class=1", "num_class=1\ntree_sizes=10 11", "number of trees"),
    ],
)
def test_damaged_parts_are_named(old: str, new: str, found: str) -> None:
    assert old in GOLDEN
    with pytest.raises(ModelError, match=found):
        read(GOLDEN.replace(old, new))


def test_damaged_sets_of_categories(text: str) -> None:
    line = next(line for line in text.split("\n") if line.startswith("cat_threshold="))
    for wrong in (line.rsplit(" ", 1)[0], "cat_threshold=x", line + " -1"):
        with pytest.raises(ModelError, match="damaged"):
            read(text.replace(line, wrong, 1))


def test_linear_trees_are_refused() -> None:
    X, y = data(np.random.default_rng(0))
    rows = lightgbm.Dataset(np.nan_to_num(X), y, params={"verbose": -1, "linear_tree": True})
    booster = lightgbm.train({**PLAIN, "linear_tree": True, "num_threads": 1}, rows, 2)
    with pytest.raises(ModelError, match="linear models in its leaves"):
        read(booster)


def test_models_without_trees_and_with_too_many() -> None:
    head, rest = GOLDEN.split("\nTree=0", 1)
    tree, tail = rest.split("end of trees")
    with pytest.raises(ModelError, match="has no trees"):
        read(head + "\nend of trees" + tail)
    with pytest.raises(ModelError, match=f"too many trees. Expected: at most {MAX_TREES}."):
        read(head + f"\nTree=0{tree}" * (MAX_TREES + 1) + "end of trees" + tail)


@pytest.mark.parametrize("model", [None, 3, object(), np.zeros(3)])
def test_other_objects(model: Any) -> None:
    with pytest.raises(ModelError, match="not a model that can be read"):
        read(model)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_bytes(b"\x80\x04 not a model")
    with pytest.raises(ModelError, match="not a LightGBM text model"):
        read(tmp_path / "model.txt")
    with pytest.raises(ModelError, match="does not exist"):
        read("missing.txt")
    with pytest.raises(ModelError, match="not fitted"):
        read(lightgbm.LGBMClassifier())
