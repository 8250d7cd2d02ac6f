"""XGBoost's own margin on models and rows made to be awkward; files of other versions; damaged files."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.ensemble import MAX_TREES, TreeEnsemble
from xai_assets.explain.treeshap.margin import predict_margin
from xai_assets.explain.treeshap.readers.xgboost import read

DATA = Path(__file__).parent / "data"
TYPES = ["float", "float", "c"]
NAMES = ["amount", "age", "home"]
SINGLE = 3e-6  # XGBoost adds float32 numbers


def matrix(X: np.ndarray, y: Any = None, **more: Any) -> xgboost.DMatrix:
    return xgboost.DMatrix(
        X, label=y, feature_types=TYPES, feature_names=NAMES, enable_categorical=True, nthread=1, **more
    )


def data(rng: np.random.Generator, rows: int = 160) -> tuple[np.ndarray, np.ndarray]:
    X = np.stack([rng.normal(size=rows).round(1), rng.normal(size=rows), rng.integers(0, 40, rows)], 1)
    y = X[:, 0] * (X[:, 1] > 0) + 2.0 * (X[:, 2] % 3 == 1) + 0.1 * rng.normal(size=rows)
    X[rng.random(X.shape) < 0.1] = np.nan
    return X.astype(np.float32), y


def train(parameters: dict[str, Any], X: np.ndarray, y: np.ndarray, rounds: int = 4, **more: Any) -> xgboost.Booster:
    return xgboost.train({"nthread": 1, "max_depth": 4, **parameters}, matrix(X, y, **more), rounds)


def margin(booster: xgboost.Booster, X: np.ndarray, **more: Any) -> np.ndarray:
    return booster.predict(matrix(X), output_margin=True, strict_shape=True, **more)


def some_model(rng: np.random.Generator) -> xgboost.Booster:
    X, y = data(rng)
    parameters: dict[str, Any] = {
        "max_depth": int(rng.integers(1, 7)),
        "max_cat_to_onehot": int(rng.choice([1, 100])),
        "gamma": float(rng.choice([0.0, 1.0])),
        "booster": str(rng.choice(["gbtree", "dart"])),
        "rate_drop": 0.5,
        "base_score": float(rng.choice([0.2, 0.7])),
        "subsample": 0.8,
        "seed": int(rng.integers(1000)),
    }
    if parameters["booster"] == "gbtree":
        del parameters["rate_drop"]
    objective = str(rng.choice(["reg:squarederror", "binary:logistic", "count:poisson", "multi:softprob"]))
    if objective == "multi:softprob":
        parameters |= {"num_class": 3, "num_parallel_tree": 2}
        y = rng.integers(0, 3, len(y))
    elif objective != "reg:squarederror":
        y = (y > 0.5).astype(float)
    return train({**parameters, "objective": objective}, X, y)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_margin_is_xgboosts_own(
    seed: int, edge_rows: Callable[..., np.ndarray], check_reading: Callable[..., None]
) -> None:
    rng = np.random.default_rng(seed)
    booster = some_model(rng)
    as_json, as_ubjson = (read(bytes(booster.save_raw(kind))) for kind in ("json", "ubj"))
    rows = edge_rows(as_json, rng, categorical=[2], fractions=[0.5, 3.99], infinite=True)
    X = np.clip(rows, -3.4e38, 3.4e38).astype(np.float32)  # XGBoost refuses infinite values
    check_reading(as_json, X, margin(booster, X), SINGLE)
    np.testing.assert_array_equal(predict_margin(as_ubjson, X), predict_margin(as_json, X))


@pytest.mark.parametrize(
    "objective",
    [
        *("reg:squarederror", "reg:logistic", "binary:logistic", "binary:logitraw", "binary:hinge", "count:poisson"),
        *("reg:gamma", "reg:tweedie", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror"),
        *("survival:cox", "multi:softmax", "rank:pairwise", "rank:ndcg", "rank:map", "reg:quantileerror"),
    ],
)
@pytest.mark.parametrize("base_score", [None, 0.3])
def test_base_score_of_every_objective(objective: str, base_score: float | None) -> None:
    """`base_score` is stored in the units of the prediction: with one split per tree an error of the link is large."""
    rng = np.random.default_rng(0)
    X, y = data(rng)
    label = (y > 0.5) + (1.0 if objective == "reg:gamma" else 0.0)
    parameters: dict[str, Any] = {"objective": objective, "max_depth": 1}
    if base_score is not None:
        parameters["base_score"] = base_score
    if objective.startswith("multi"):
        parameters["num_class"] = 2
    if objective == "reg:quantileerror":
        parameters["quantile_alpha"] = [0.2, 0.8]
    more = {"qid": np.arange(len(y)) // 20} if objective.startswith("rank") else {}
    booster = train(parameters, X, label, 1, **more)
    np.testing.assert_allclose(predict_margin(read(booster), X), margin(booster, X), atol=SINGLE)


def test_custom_objective_keeps_the_base_score() -> None:
    X, y = data(np.random.default_rng(0))
    booster = xgboost.train(
        {"base_score": 0.7, "nthread": 1},
        matrix(X, y),
        3,
        obj=lambda predicted, rows: (predicted - rows.get_label(), np.ones(len(predicted))),
    )
    np.testing.assert_allclose(predict_margin(read(booster), X), margin(booster, X), atol=SINGLE)


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("child_weight", [1.0, 1e9])  # the second leaves single leaves
@pytest.mark.parametrize("strategy", ["multi_output_tree", "one_output_per_tree"])
def test_several_targets(depth: int, child_weight: float, strategy: str, check_reading: Callable[..., None]) -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(120, 2)).astype(np.float32)
    rows = xgboost.DMatrix(X, label=np.stack([X[:, 0], -X[:, 1], X[:, 0] * X[:, 1]], 1))
    parameters = {"max_depth": depth, "min_child_weight": child_weight, "base_score": 0.3, "lambda": 0.0, "nthread": 1}
    booster = xgboost.train({"multi_strategy": strategy, **parameters}, rows, 3)
    ensemble = read(booster)
    assert (ensemble.n_outputs, ensemble.n_trees) == (3, 9)
    check_reading(ensemble, X, booster.predict(rows, output_margin=True), SINGLE)


def test_pruned_nodes_are_left_out() -> None:
    """The exact method grows first and prunes then; the file keeps the deleted nodes."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3)).astype(np.float32)
    X[:, 2] = 0
    y = X[:, 0] + 0.1 * rng.normal(size=400)
    booster = xgboost.train(
        {"tree_method": "exact", "gamma": 1.0, "max_depth": 6, "nthread": 1}, xgboost.DMatrix(X, label=y), 3
    )
    stored = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    deleted = sum(int(tree["tree_param"]["num_deleted"]) for tree in stored)
    assert deleted > 0
    ensemble = read(booster)
    assert len(ensemble.left) == sum(int(tree["tree_param"]["num_nodes"]) for tree in stored) - deleted
    reached = np.zeros(len(ensemble.left), int)
    reached[ensemble.tree_starts[:-1]] += 1
    inner = ensemble.left >= 0
    np.add.at(reached, np.concatenate([ensemble.left[inner], ensemble.right[inner]]), 1)
    assert (reached == 1).all()
    np.testing.assert_allclose(
        predict_margin(ensemble, X)[:, 0], booster.predict(xgboost.DMatrix(X), output_margin=True), atol=SINGLE
    )


@pytest.mark.parametrize("parallel", [1, 3])
def test_trees_past_the_best_iteration_are_left_out(parallel: int) -> None:
    rng = np.random.default_rng(0)
    X, y = data(rng, 300)
    booster = xgboost.train(
        {"eta": 0.5, "num_parallel_tree": parallel, "subsample": 0.7, "nthread": 1},
        matrix(X[:150], y[:150]),
        40,
        evals=[(matrix(X[150:], y[150:] + rng.normal(size=150)), "held")],
        early_stopping_rounds=3,
        verbose_eval=False,
    )
    best = booster.best_iteration + 1
    assert 1 < best < booster.num_boosted_rounds()
    ensemble = read(booster)
    assert ensemble.n_trees == best * parallel
    expected = margin(booster, X, iteration_range=(0, best))
    np.testing.assert_allclose(predict_margin(ensemble, X), expected, atol=SINGLE)
    assert not np.allclose(predict_margin(ensemble, X), margin(booster, X), atol=1e-3)


@pytest.mark.parametrize("path", sorted(DATA.glob("xgboost-*.json")), ids=lambda path: path.stem)
def test_files_of_other_versions(path: Path) -> None:
    """Models and margins as that version of XGBoost wrote and predicted them."""
    golden = json.loads(path.read_bytes())
    assert len(golden["cases"]) == 5
    for case in golden["cases"]:
        ensemble = read(json.dumps(case["model"]).encode())
        X = np.array([[np.nan if x is None else x for x in row] for row in case["X"]])
        np.testing.assert_allclose(predict_margin(ensemble, X), case["margin"], atol=SINGLE, err_msg=case["name"])
        assert ensemble.source == f"xgboost {golden['xgboost']}"
        assert ensemble.feature_names == ("a", "b", "c")


def test_everything_a_model_can_be_given_as(tmp_path: Path) -> None:
    X, y = data(np.random.default_rng(0))
    fitted = xgboost.XGBRegressor(n_estimators=3, max_depth=3, enable_categorical=True, feature_types=TYPES, n_jobs=1)
    fitted.fit(X, y)
    booster = fitted.get_booster()
    for name in ("model.json", "model.ubj"):
        booster.save_model(tmp_path / name)
    given = [fitted, booster, tmp_path / "model.json", str(tmp_path / "model.ubj"), bytes(booster.save_raw("json"))]
    margins = [predict_margin(TreeEnsemble.from_xgboost(model), X) for model in given]
    for found in margins:
        np.testing.assert_array_equal(found, margins[0])
    named = read(train({}, X, y))
    assert named.feature_names == tuple(NAMES)
    assert named.source == f"xgboost {xgboost.__version__}"
    assert named.input_precision == "float32"


def test_a_file_is_read_without_the_library(tmp_path: Path) -> None:
    X, y = data(np.random.default_rng(0))
    train({}, X, y).save_model(tmp_path / "model.ubj")
    program = (
        "import sys\n"
        "from xai_assets.explain.treeshap.readers.xgboost import read\n"
        f"assert read({str(tmp_path / 'model.ubj')!r}).n_trees == 4\n"
        "assert 'xgboost' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# ---------------------------------------------------------------- bad input


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    X, y = data(np.random.default_rng(0))
    found: dict[str, Any] = json.loads(train({"max_cat_to_onehot": 1}, X, y, 2).save_raw("json"))
    return found


def damaged(document: dict[str, Any], change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    copy = json.loads(json.dumps(document))
    model = copy["learner"]["gradient_booster"]["model"]
    change(copy, model)
    return json.dumps(copy).encode()


def set_in_tree(key: str, at: int, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(_: dict[str, Any], model: dict[str, Any]) -> None:
        model["trees"][0][key][at] = value

    return change


def test_the_undamaged_twin_is_read(document: dict[str, Any]) -> None:
    assert read(damaged(document, lambda whole, model: None)).n_trees == 2


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (set_in_tree("left_children", 1, 0), "not a node"),
        (set_in_tree("left_children", 1, 10_000), "not a node"),
        (set_in_tree("left_children", 1, 1), "share a child|not a node"),
        (set_in_tree("left_children", 0, -1), "one child"),
        (set_in_tree("right_children", 0, -1), "one child"),
        (set_in_tree("split_indices", 0, 3), "feature outside"),
        (set_in_tree("split_indices", 0, -1), "feature outside"),
        (set_in_tree("split_conditions", -1, float("nan")), "not finite"),
        (set_in_tree("sum_hessian", 0, -1.0), "negative"),
        (set_in_tree("split_type", 0, 2), "unknown kind of split"),
        (set_in_tree("categories_sizes", 0, 10_000), "cut off"),
        (set_in_tree("categories", 0, -1), "out of range"),
        (lambda whole, model: model["trees"][0]["left_children"].pop(), "cut off"),
        (lambda whole, model: model["trees"][0]["sum_hessian"].pop(), "cut off"),
        (lambda whole, model: model["trees"].pop(), "number of trees"),
        (lambda whole, model: model["tree_info"].__setitem__(0, 1), "outside 0"),
        (lambda whole, model: model["trees"][0].pop("left_children"), "no part 'left_children'"),
        (lambda whole, model: whole.pop("learner"), "no part 'learner'"),
        (lambda whole, model: whole["learner"]["feature_names"].append("more"), "feature names"),
        (lambda whole, model: whole["learner"]["learner_model_param"].update(base_score="x"), "could not convert"),
        (lambda whole, model: whole["learner"].update(attributes={"best_iteration": "-5"}), "rounds"),
    ],
)
def test_damaged_parts_are_named(document: dict[str, Any], change: Any, found: str) -> None:
    with pytest.raises(ModelError, match=found):
        read(damaged(document, change))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("kind", ["json", "ubj"])
def test_truncated_files(share: float, kind: str) -> None:
    X, y = data(np.random.default_rng(0))
    raw = bytes(train({}, X, y, 2).save_raw(kind))
    with pytest.raises(ModelError, match=r"damaged|empty"):
        read(raw[: int(len(raw) * share)])


def test_newer_versions_are_refused_or_their_parts_known(document: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="newer XGBoost"):
        read(damaged(document, lambda whole, model: whole.update(version=[4, 0, 0])))
    with pytest.raises(ModelError, match="'tree_scales'"):
        read(damaged(document, lambda whole, model: model.update(tree_scales=[1, 2])))
    with pytest.raises(ModelError, match=r"objective that is not known.*reg:new"):
        read(damaged(document, lambda whole, model: whole["learner"]["objective"].update(name="reg:new")))


def test_models_without_trees_and_with_too_many(document: dict[str, Any]) -> None:
    def repeat(times: int) -> Callable[[dict[str, Any], dict[str, Any]], None]:
        def change(_: dict[str, Any], model: dict[str, Any]) -> None:
            model["trees"] = model["trees"][:1] * times
            model["tree_info"] = [0] * times
            model["iteration_indptr"] = list(range(times + 1))
            model["gbtree_model_param"]["num_trees"] = str(times)

        return change

    with pytest.raises(ModelError, match="has no trees"):
        read(damaged(document, repeat(0)))
    with pytest.raises(ModelError, match=f"too many trees. Expected: at most {MAX_TREES}. Found: {MAX_TREES + 1}"):
        read(damaged(document, repeat(MAX_TREES + 1)))


def test_linear_booster_is_sent_to_the_linear_explainer() -> None:
    rows = xgboost.DMatrix(np.eye(4), label=np.arange(4))
    booster = xgboost.train({"booster": "gblinear", "nthread": 1}, rows, 2)
    with pytest.raises(ModelError, match=r"has no trees.*linear explainer"):
        read(booster)


@pytest.mark.parametrize("model", [None, 3, object(), np.zeros(3), {"learner": {}}])
def test_other_objects(model: Any) -> None:
    with pytest.raises(ModelError, match=r"not a model that can be read.*Booster"):
        read(model)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "model.json").write_text('{"learner": 3}')
    for name in ("model.pkl", "model.json"):
        with pytest.raises(ModelError, match="damaged, or not an XGBoost model"):
            read(tmp_path / name)
    with pytest.raises(ModelError, match="does not exist"):
        read(tmp_path / "missing.json")
    with pytest.raises(ModelError, match="cannot be read"):
        read(tmp_path)
    with pytest.raises(ModelError, match="not fitted"):
        read(xgboost.XGBRegressor())
