"""`TreeShap` as a caller meets it: inputs, batches, threads, two models in one pass, refusals."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap import TreeEnsemble, TreeShap
from xai_assets.explain.treeshap.shap import BATCH_ROWS


@pytest.fixture(scope="module")
def booster() -> Any:
    """60 trees of depth 6 over 8 named features, so that features repeat on paths."""
    import xgboost

    rng = np.random.default_rng(5)
    X = rng.normal(size=(4_000, 8)).astype(np.float32)
    X[rng.random(X.shape) < 0.05] = np.nan
    z = np.nan_to_num(X)
    y = (z[:, 0] * z[:, 1] + z[:, 2] > 0).astype(int)
    data = xgboost.DMatrix(X, y, feature_names=[f"f{i}" for i in range(8)])
    return xgboost.train({"max_depth": 6, "objective": "binary:logistic", "nthread": 1}, data, 60)


@pytest.fixture(scope="module")
def shap(booster: Any) -> TreeShap:
    return TreeShap(TreeEnsemble.from_xgboost(booster), threads=1)


@pytest.fixture(scope="module")
def rows() -> Any:
    rng = np.random.default_rng(6)
    X = rng.normal(size=(1_003, 8)).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    return X


def read_only(X: Any) -> Any:
    X = X.copy(order="K")
    X.setflags(write=False)
    return X


def test_agrees_with_the_library(shap: TreeShap, booster: Any, rows: Any) -> None:
    import xgboost

    matrix = xgboost.DMatrix(rows, feature_names=shap.ensemble.feature_names)
    theirs = booster.predict(matrix, pred_contribs=True)
    ours = shap.explain(rows)
    assert ours.values.dtype == np.float32
    np.testing.assert_allclose(ours.values, theirs[:, :-1], atol=1e-5)
    np.testing.assert_allclose(ours.base_value, theirs[0, -1], atol=1e-5)
    np.testing.assert_allclose(shap.margin(rows)[:, 0], booster.predict(matrix, output_margin=True), atol=1e-5)


def test_values_add_up_to_the_margin(shap: TreeShap, rows: Any) -> None:
    explained, margin = shap.explain(rows), shap.margin(rows)[:, 0]
    total = explained.base_value[0] + explained.values.sum(axis=1, dtype=np.float64)
    assert np.abs(total - margin).max() <= 1e-5 * max(1, np.abs(margin).max())


@pytest.mark.parametrize(
    "form",
    [
        lambda X: X.astype(np.float64),
        np.asfortranarray,
        lambda X: np.repeat(X, 2, axis=0)[::2],
        read_only,
        lambda X: read_only(np.asfortranarray(X)),
        lambda X: pl.DataFrame(np.asfortranarray(X), schema=[f"f{i}" for i in range(8)]),
        lambda X: pl.DataFrame(X, schema=[f"f{i}" for i in range(8)]).fill_nan(None),
        lambda X: pl.DataFrame(X, schema=[f"f{i}" for i in range(8)]).select(pl.all().reverse().reverse()),
        lambda X: pl.DataFrame(X, schema=[f"f{i}" for i in range(8)])[[f"f{i}" for i in reversed(range(8))]],
        lambda X: pa.table({f"f{i}": X[:, i] for i in range(8)}),
        lambda X: pd.DataFrame(X, columns=[f"f{i}" for i in range(8)]).assign(request_id="r"),
    ],
    ids=[
        "float64",
        "fortran",
        "strided",
        "read-only",
        "read-only fortran",
        "one block",
        "nulls",
        "polars",
        "other order",
        "arrow",
        "pandas with more columns",
    ],
)
def test_every_form_of_the_same_rows_gives_the_same_bytes(shap: TreeShap, rows: Any, form: Any) -> None:
    assert shap.explain(form(rows)).values.tobytes() == shap.explain(rows).values.tobytes()


def test_neither_threads_nor_batches_nor_neighbours_change_a_value(shap: TreeShap, rows: Any) -> None:
    many = np.concatenate([rows] * 5)
    expected = shap.explain(many).values
    assert TreeShap(shap.ensemble, threads=3).explain(many).values.tobytes() == expected.tobytes()
    assert np.concatenate(list(shap.stream(many, 700))).tobytes() == expected.tobytes()
    assert (
        np.concatenate([shap.explain(many[i : i + 1]).values for i in range(40)]).tobytes() == expected[:40].tobytes()
    )
    order = np.random.default_rng(0).permutation(len(many))
    assert shap.explain(many[order]).values.tobytes() == expected[order].tobytes()


def test_one_batch_ends_where_the_next_begins(shap: TreeShap, rows: Any) -> None:
    many = np.resize(rows, (BATCH_ROWS + 17, 8))
    explained = shap.explain(many).values
    tail = shap.explain(many[BATCH_ROWS - 3 :]).values
    assert explained[BATCH_ROWS - 3 :].tobytes() == tail.tobytes()


def test_two_models_in_one_pass(shap: TreeShap, booster: Any, rows: Any) -> None:
    other = TreeEnsemble.from_xgboost(booster[:20])
    both = TreeShap(TreeEnsemble.stack([shap.ensemble, other]))
    explained = both.explain(rows)
    assert explained.values.shape == (len(rows), 8, 2)
    assert explained.values[:, :, 0].tobytes() == shap.explain(rows).values.tobytes()
    assert explained.values[:, :, 1].tobytes() == TreeShap(other).explain(rows).values.tobytes()
    np.testing.assert_array_equal(explained.base_value, [shap.base_value[0], TreeShap(other).base_value[0]])


def test_models_of_other_features_are_stacked_over_all_of_them(shap: TreeShap, rows: Any) -> None:
    names = ["new", *(f"f{i}" for i in reversed(range(8)))]
    wide = TreeEnsemble.stack([shap.ensemble.over_features(names), shap.ensemble.over_features(names)])
    matrix = np.column_stack([np.zeros(len(rows), np.float32), rows[:, ::-1]])
    values = TreeShap(wide).explain(matrix).values[:, :, 1]
    assert (values[:, 0] == 0).all()
    np.testing.assert_array_equal(values[:, 1:][:, ::-1], shap.explain(rows).values)
    with pytest.raises(ModelError, match="do not read the same features"):
        TreeEnsemble.stack([shap.ensemble, shap.ensemble.over_features(names)])


def test_a_stack_of_both_precisions_decides_like_each_alone(tree_builder: Any) -> None:
    def stump(precision: str, threshold: float) -> TreeEnsemble:
        build = tree_builder(1, 1, precision)
        build.base_score = [0.0]
        root = build.split(0, threshold)
        build.join(root, build.leaf(-1.0), build.leaf(1.0))
        build.end_tree()
        return build.build()

    single, double = stump("float32", 0.1), stump("float64", 0.1)
    near = np.float64(np.float32(0.1))
    X = np.array([[0.1], [np.nextafter(0.1, 0)], [near], [np.nextafter(near, 0)], [np.nextafter(near, 1)], [0.0]])
    stacked = TreeShap(TreeEnsemble.stack([single, double]))
    for i, alone in enumerate((single, double)):
        np.testing.assert_array_equal(stacked.explain(X).values[:, :, i], TreeShap(alone).explain(X).values)
        np.testing.assert_array_equal(stacked.margin(X)[:, i], TreeShap(alone).margin(X)[:, 0])
    assert stacked.margin(X)[1].tolist() == [1.0, -1.0]  # rounds to 0.1 in float32, is below it in float64


def test_a_stack_that_rounds_codes_and_does_not_takes_float32_rows_alone(tree_builder: Any) -> None:
    def stump(precision: str) -> TreeEnsemble:
        build = tree_builder(1, 1, precision)
        build.base_score = [0.0]
        root = build.split(0, categories=((0b010,), False))
        build.join(root, build.leaf(-1.0), build.leaf(1.0))
        build.end_tree()
        return build.build()

    stacked = TreeShap(TreeEnsemble.stack([stump("float32"), stump("float64")]))
    X = np.array([[1.0], [2.0]])
    assert stacked.explain(X.astype(np.float32)).values.tolist() == [[[-1.0, -1.0]], [[1.0, 1.0]]]
    for method in (stacked.explain, stacked.margin):
        with pytest.raises(ModelError, match="float32 rows"):
            method(X)
    with pytest.raises(ModelError, match="float32 rows"):
        stacked.explain(pl.DataFrame({"x": X[:, 0]}))


def test_rows_beyond_float32_are_told_apart(random_ensemble: Any, exact_path_dependent: Any) -> None:
    """Thresholds one float64 apart, as LightGBM and histogram boosting compare them."""
    for seed in range(20):
        rng = random.Random(seed)
        ensemble = replace(random_ensemble(rng, features=3), input_precision="float64")
        numeric = replace(ensemble, category_set=np.full_like(ensemble.category_set, -1))
        X = np.array(
            [[rng.choice((0.1, 0.5, 1.0)) + rng.choice((-1, 0, 1)) * 1e-16 for _ in range(3)] for _ in range(8)]
        )
        want, base = exact_path_dependent(numeric, X)
        explained = TreeShap(numeric).explain(X)
        np.testing.assert_allclose(explained.values.reshape(want.shape), want, atol=1e-5)
        np.testing.assert_allclose(explained.base_value, base, atol=1e-9)


def test_no_rows(shap: TreeShap) -> None:
    assert shap.explain(np.empty((0, 8), np.float32)).values.shape == (0, 8)
    assert list(shap.stream(np.empty((0, 8), np.float32))) == []
    assert shap.margin(np.empty((0, 8), np.float32)).shape == (0, 1)


def test_only_leaves(tree_builder: Any) -> None:
    build = tree_builder(2)
    build.base_score = [0.5]
    build.leaf(2.0)
    build.end_tree()
    explained = TreeShap(build.build()).explain(np.ones((3, 2), np.float32))
    assert (explained.values == 0).all()
    assert explained.base_value.tolist() == [2.5]


@pytest.mark.parametrize(
    "X, said",
    [
        (np.zeros((2, 7), np.float32), r"numbers \[n, 8\] in the order f0, f1"),
        (np.zeros(8, np.float32), r"float32 \[8\]"),
        (np.array([["a"] * 8]), "<U1"),
        (np.array([[None] * 8], object), "object"),
        ([[0.0] * 8], "builtins.list"),
        (pd.Series([0.0] * 8), "Series"),
        (np.ma.masked_array(np.zeros((1, 8)), np.ones((1, 8))), "masked array"),
        (pl.DataFrame({f"f{i}": [1.0] for i in range(7)}), "feature 'f7' is not in the table"),
        (pl.DataFrame({f"f{i}": ["1.0"] for i in range(8)}), "column 'f0' does not hold numbers"),
        (pl.DataFrame({f"f{i}": ["a"] for i in range(8)}).cast(pl.Categorical), "column 'f0' does not hold numbers"),
    ],
    ids=[
        "too few",
        "one row flat",
        "text",
        "objects",
        "list",
        "one column",
        "masked",
        "missing column",
        "text column",
        "categorical column",
    ],
)
def test_what_does_not_fit_is_refused(shap: TreeShap, X: Any, said: str) -> None:
    for method in (shap.explain, shap.margin, lambda rows: list(shap.stream(rows))):
        with pytest.raises(ModelError, match=said):
            method(X)


def test_ensembles_that_cannot_be_explained(shap: TreeShap) -> None:
    empty = replace(shap.ensemble, tree_output=np.empty(0, np.int32), tree_starts=np.zeros(1, np.int64))
    with pytest.raises(ModelError, match="0 trees"):
        TreeShap(empty)
    with pytest.raises(ModelError, match="at least one thread"):
        TreeShap(shap.ensemble, threads=0)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_border_of_zero_is_lightgbms(tree_builder: Any, precision: str, dtype: Any) -> None:
    build = tree_builder(1, 1, precision)
    build.base_score = [0.0]
    root = build.split(0, -1.0, zero_is_missing=True, missing_left=True)
    build.join(root, build.leaf(-1.0), build.leaf(1.0))
    build.end_tree()
    border = np.float32(1e-35)
    X = np.array([[border], [np.nextafter(border, np.float32(1))], [-border], [-np.nextafter(border, np.float32(1))]])
    shap = TreeShap(build.build())
    assert shap.explain(X.astype(dtype)).values[:, 0].tolist() == [-1.0, 1.0, -1.0, 1.0]
    assert shap.margin(X.astype(dtype))[:, 0].tolist() == [-1.0, 1.0, -1.0, 1.0]


def test_a_set_of_no_categories_sends_every_code_the_other_way(tree_builder: Any) -> None:
    build = tree_builder(1)
    build.base_score = [0.0]
    root = build.split(0, categories=((), True))
    build.join(root, build.leaf(-1.0), build.leaf(1.0))
    build.end_tree()
    X = np.array([[-0.5], [0.0], [3.0], [-2.0]], np.float32)
    assert TreeShap(build.build()).explain(X).values[:, 0].tolist() == [-1.0] * 4


def test_a_column_without_any_value_is_missing(shap: TreeShap) -> None:
    table = pl.DataFrame({f"f{i}": [1.0] for i in range(8)}).with_columns(f3=pl.lit(None))
    row = np.ones((1, 8))
    row[0, 3] = np.nan
    np.testing.assert_array_equal(shap.explain(table).values, shap.explain(row).values)


def test_a_feature_may_be_named_like_a_pattern(shap: TreeShap, rows: Any) -> None:
    names = ("*", "^f.*$", *(f"f{i}" for i in range(6)))
    odd = TreeShap(replace(shap.ensemble, feature_names=names))
    table = pl.DataFrame(rows, schema=names)
    np.testing.assert_array_equal(odd.explain(table).values, shap.explain(rows).values)


def test_a_result_is_the_callers_own(shap: TreeShap, rows: Any) -> None:
    before = float(shap.base_value[0])
    for kernel in (shap, TreeShap(shap.ensemble, background=rows[:20])):
        kept = float(kernel.base_value[0])
        kernel.explain(rows[:1]).base_value[:] += 100
        assert float(kernel.base_value[0]) == kept
    assert before == float(shap.base_value[0])


def test_batches_need_rows(shap: TreeShap, rows: Any) -> None:
    with pytest.raises(ModelError, match="batch_rows ≥ 1"):
        list(shap.stream(rows, 0))


def test_nothing_can_be_stacked_that_is_not_the_same(shap: TreeShap) -> None:
    unnamed = replace(shap.ensemble, feature_names=())
    other = replace(shap.ensemble, feature_names=tuple(reversed(shap.ensemble.feature_names)))
    with pytest.raises(ModelError, match="do not read the same features"):
        TreeEnsemble.stack([unnamed, shap.ensemble, other])
    with pytest.raises(ModelError, match="nothing to stack"):
        TreeEnsemble.stack([])


def test_beyond_float32_a_stack_rounds_as_the_model_alone(tree_builder: Any) -> None:
    def stump(precision: str) -> TreeEnsemble:
        build = tree_builder(1, 1, precision)
        build.base_score = [0.0]
        root = build.split(0, np.inf)
        build.join(root, build.leaf(-1.0), build.leaf(1.0))
        build.end_tree()
        return build.build()

    border = 3.4028235677973366e38  # from here on a float64 rounds to infinity
    X = np.array([[border], [np.nextafter(border, 0)], [1e39], [np.inf], [1.0]])
    alone, stacked = TreeShap(stump("float32")), TreeShap(TreeEnsemble.stack([stump("float32"), stump("float64")]))
    assert alone.margin(X)[:, 0].tolist() == [1.0, -1.0, 1.0, 1.0, -1.0]
    assert stacked.margin(X)[:, 0].tolist() == alone.margin(X)[:, 0].tolist()


def test_a_model_without_features(tree_builder: Any) -> None:
    build = tree_builder(0)
    build.base_score = [0.0]
    build.leaf(2.0)
    build.end_tree()
    explained = TreeShap(build.build()).explain(np.empty((3, 0), np.float32))
    assert (explained.values.shape, explained.base_value.tolist()) == ((3, 0), [2.0])


def test_an_ensemble_past_the_places_that_operations_can_hold(shap: TreeShap, monkeypatch: Any) -> None:
    from xai_assets.explain.treeshap import program

    monkeypatch.setattr(program, "MOST_OFFSETS", 1_000)
    with pytest.raises(ModelError, match="too large to be explained at once"):
        TreeShap(shap.ensemble).explain(np.zeros((1, 8), np.float32))


def test_rare_and_huge_leaves_do_not_cost_the_other_rows_their_digits() -> None:
    """Where one training row in 2,000 is worth 1e5, ordinary rows keep the precision of the library's own values."""
    import xgboost

    rng = np.random.default_rng(3)
    X = rng.normal(size=(20_000, 6)).astype(np.float32)
    y = X[:, 0] + X[:, 1] * X[:, 2] + np.where(rng.random(len(X)) < 5e-4, 1e5, 0.0)
    booster = xgboost.train({"max_depth": 6, "nthread": 1, "base_score": 0.0}, xgboost.DMatrix(X, y), 60)
    kernel = TreeShap(TreeEnsemble.from_xgboost(booster))
    margin = kernel.margin(X)[:, 0]
    ordinary = np.flatnonzero(np.abs(margin) <= np.median(np.abs(margin)))[:2_000]
    ours = kernel.explain(X[ordinary])
    theirs = booster.predict(xgboost.DMatrix(X[ordinary]), pred_contribs=True).astype(np.float64)
    our_gap = np.abs(ours.base_value[0] + ours.values.sum(1, dtype=np.float64) - margin[ordinary]).max()
    their_gap = np.abs(theirs.sum(1) - margin[ordinary]).max()
    assert our_gap <= 2 * their_gap
