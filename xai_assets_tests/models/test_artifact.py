"""What is accepted as a model, what is refused and how, and that predictions are the library's own."""

import gzip
import hashlib
import io
import json
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xgboost

from xai_assets.errors import ModelError
from xai_assets.explain import additivity_error, explainer_for
from xai_assets.models.artifact import feature_levels, inspect_features, load_model
from xai_assets.records import FeatureSpec

from .conftest import FEATURES, LEVELS, coded_matrix, pandas_matrix

LOGISTIC = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1}


@pytest.fixture(scope="module")
def booster(table) -> xgboost.Booster:
    return xgboost.train(LOGISTIC, pandas_matrix(table), 10)


@pytest.fixture
def path(booster, tmp_path) -> Path:
    place = tmp_path / "model.ubj"
    booster.save_model(place)
    return place


def numeric(names: str, kind: str = "numeric") -> tuple[FeatureSpec, ...]:
    return tuple(FeatureSpec(n, kind) for n in names)


# ---------------------------------------------------------------- accepted


@pytest.mark.parametrize("ending", ["ubj", "json", "model"])
def test_predictions_are_those_of_the_library_on_the_original_frame(booster, table, tmp_path, ending):
    place = tmp_path / f"model.{ending}"
    raw = booster.save_raw("json" if ending == "json" else "ubj")
    place.write_bytes(raw)
    model = load_model(place, features=FEATURES)
    X = model.encode(table)
    np.testing.assert_array_equal(model.predict_output(X), booster.predict(pandas_matrix(table)))
    margin = booster.predict(pandas_matrix(table), output_margin=True)
    np.testing.assert_array_equal(model.predict_margin(X), margin)
    np.testing.assert_array_equal(model.predict_output(X, "margin"), margin)
    np.testing.assert_allclose(model.predict_output(X, "probability"), booster.predict(pandas_matrix(table)), atol=1e-6)
    assert model.predict_output(X).dtype == np.float64
    assert model.features == (FEATURES[0], FeatureSpec("fruit", "categorical", LEVELS), FEATURES[2])
    assert model.sha256 == hashlib.sha256(raw).hexdigest()
    assert model.version == model.sha256[:12]
    assert model.is_classifier
    assert not model.notes


def test_unseen_level_is_predicted_as_missing(path):
    model = load_model(path, features=FEATURES)
    frame = pl.DataFrame({"size": [0.5, 0.5], "fruit": ["durian", None], "ripe": [True, True]})
    assert len(set(model.predict_output(model.encode(frame)))) == 1


def test_a_uri_is_read(path):
    assert load_model(path.as_uri(), features=FEATURES).sha256 == load_model(path, features=FEATURES).sha256


def test_same_file_is_parsed_once_and_a_replaced_one_again(path, table):
    first = load_model(path, features=FEATURES)
    assert load_model(path, features=FEATURES) is first
    xgboost.train(LOGISTIC, pandas_matrix(table), 2).save_model(path)
    assert load_model(path, features=FEATURES).sha256 != first.sha256


def test_pin(path):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_model(path, sha256=digest.upper(), features=FEATURES).sha256 == digest
    with pytest.raises(ModelError, match=f"not the pinned file.*{digest}"):
        load_model(path, sha256="0" * 64, features=FEATURES)


@pytest.mark.parametrize("booster_name", ["gbtree", "dart"])
def test_trees_after_the_best_iteration_do_not_predict(table, tmp_path, booster_name):
    parameters = {**LOGISTIC, "booster": booster_name, "learning_rate": 1.0, "max_depth": 8}
    train, held = pandas_matrix(table[:400]), pandas_matrix(table[400:])
    stopped = xgboost.train(parameters, train, 40, evals=[(held, "held")], early_stopping_rounds=5, verbose_eval=False)
    assert stopped.best_iteration + 1 < stopped.num_boosted_rounds()
    stopped.save_model(tmp_path / "m.ubj")
    model = load_model(tmp_path / "m.ubj", features=FEATURES)
    expected = stopped.predict(pandas_matrix(table), iteration_range=(0, stopped.best_iteration + 1))
    assert np.abs(expected - stopped.predict(pandas_matrix(table))).max() > 0.01
    np.testing.assert_allclose(model.predict_output(model.encode(table)), expected, atol=1e-6)
    assert model.features[1].categories == LEVELS
    assert additivity_error(explainer_for(model).explain(model.encode(table))) < 1e-5


VARIANTS = {
    "pruned": {"gamma": 3, "tree_method": "exact"},
    "forest": {"num_parallel_tree": 4, "subsample": 0.5},
    "lossguide": {"grow_policy": "lossguide", "max_leaves": 9},
    "dart": {"booster": "dart", "rate_drop": 0.3},
    "stumps": {"max_depth": 1},
    "leaves_only": {"gamma": 1e9},
    "base_score": {"base_score": 0.9},
    "logitraw": {"objective": "binary:logitraw"},
    "squared": {"objective": "reg:squarederror"},
    "absolute": {"objective": "reg:absoluteerror"},
    "median": {"objective": "reg:quantileerror", "quantile_alpha": 0.5},
    "poisson": {"objective": "count:poisson"},
    "tweedie": {"objective": "reg:tweedie"},
    "monotone": {"monotone_constraints": "(1,0,0)"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_single_output_tree_model(variant, tmp_path):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(500, 3)).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    y = (np.nan_to_num(X[:, 0] * X[:, 1]) + rng.normal(size=500) > 0).astype(float)
    matrix = xgboost.DMatrix(X, y, feature_names=list("abc"))
    trained = xgboost.train({"objective": "binary:logistic", "nthread": 1, **VARIANTS[variant]}, matrix, 8)
    for ending in ("ubj", "json"):
        trained.save_model(tmp_path / f"m.{ending}")
        model = load_model(tmp_path / f"m.{ending}", features=numeric("abc"))
        np.testing.assert_allclose(model.predict_output(X), trained.predict(matrix), atol=1e-6)
        assert additivity_error(explainer_for(model).explain(X)) < 1e-5


def test_regression_is_no_classifier_and_has_no_probability(table, tmp_path):
    xgboost.train({"max_depth": 2}, pandas_matrix(table), 3).save_model(tmp_path / "m.ubj")
    model = load_model(tmp_path / "m.ubj", features=FEATURES)
    assert not model.is_classifier
    assert model.objective == "reg:squarederror"
    with pytest.raises(ModelError, match=r"models\.output is 'probability'"):
        model.predict_output(model.encode(table), "probability")


def test_model_without_names_takes_the_configured_order_when_the_number_agrees(codes, table, tmp_path):
    matrix = coded_matrix(codes, table["label"].to_numpy(), named=False)
    xgboost.train(LOGISTIC, matrix, 5).save_model(tmp_path / "m.ubj")
    features = (FEATURES[0], FeatureSpec("fruit", "categorical", LEVELS), FEATURES[2])
    model = load_model(tmp_path / "m.ubj", features=features)
    assert model.feature_names == ("size", "fruit", "ripe")
    assert "no feature names" in model.notes[0]
    assert explainer_for(model).explain(model.encode(table)).values.shape == (600, 3)
    with pytest.raises(ModelError, match="no feature names, and their number differs"):
        load_model(tmp_path / "m.ubj", features=(*features, FEATURES[3]))


def test_shape_of_the_matrix_is_checked(path):
    model = load_model(path, features=FEATURES)
    with pytest.raises(ModelError, match=r"\[n, 3\].*size, fruit, ripe"):
        model.predict_margin(np.zeros((2, 4), np.float32))
    assert model.predict_margin(np.empty((0, 3), np.float32)).shape == (0,)


def test_loads_without_a_visible_gpu_and_without_training_libraries(path):
    code = (
        "import sys; from xai_assets.models import load_model; from xai_assets.records import FeatureSpec as F;"
        "m = load_model(sys.argv[1], features=(F('size','numeric'), F('fruit','categorical'), F('ripe','boolean')));"
        "print(m.objective, 'sklearn' in sys.modules, 'shap' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(path)],
        env={"CUDA_VISIBLE_DEVICES": "", "PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "binary:logistic"
    assert done.stdout.split()[2] == "False"


# ---------------------------------------------------------------- levels


def test_levels_of_the_configuration_are_needed_where_the_model_has_none(codes, table, tmp_path):
    xgboost.train(LOGISTIC, coded_matrix(codes, table["label"].to_numpy()), 5).save_model(tmp_path / "m.ubj")
    with pytest.raises(ModelError, match=r"levels of categorical feature 'fruit' are unknown.*features\.categorical"):
        load_model(tmp_path / "m.ubj", features=FEATURES)
    listed = (FEATURES[0], FeatureSpec("fruit", "categorical", LEVELS), *FEATURES[2:])
    model = load_model(tmp_path / "m.ubj", features=listed)
    np.testing.assert_array_equal(model.encode(table), codes)


@pytest.mark.parametrize("levels", [("apple", "fig", "pear"), ("pear", "apple"), (*LEVELS, "kiwi")])
def test_levels_that_differ_are_refused(path, levels):
    features = (FEATURES[0], FeatureSpec("fruit", "categorical", levels), *FEATURES[2:])
    with pytest.raises(ModelError, match=r"levels of 'fruit' differ.*pear, apple, fig \(stored in the model\)"):
        load_model(path, features=features)


def test_equal_levels_in_both_are_fine(path):
    features = (FEATURES[0], FeatureSpec("fruit", "categorical", LEVELS), *FEATURES[2:])
    assert load_model(path, features=features).features[1].categories == LEVELS


def test_categorical_in_the_model_numeric_in_the_configuration(path):
    with pytest.raises(ModelError, match=r"trained with 'fruit' as categorical.*move 'fruit'"):
        load_model(path, features=(FEATURES[0], FeatureSpec("fruit", "numeric"), *FEATURES[2:]))


def test_levels_over_both_models(path):
    model = load_model(path, features=FEATURES)
    assert feature_levels(FEATURES, [model, model]) == {"fruit": LEVELS}
    listed = (FeatureSpec("fruit", "categorical", ("fig",)),)
    assert feature_levels(listed, [model]) == {"fruit": ("fig",)}


# ---------------------------------------------------------------- refused


def test_features_that_the_configuration_lacks(path):
    with pytest.raises(ModelError, match=r"uses 2 feature.*size, ripe.*'size': did you mean 'sizes'") as refusal:
        load_model(path, features=(FeatureSpec("sizes", "numeric"), FEATURES[1]))
    assert "Nothing was written" in str(refusal.value)


def test_missing_file_suggests_a_neighbour(path):
    with pytest.raises(ModelError, match=r"does not exist.*did you mean 'model\.ubj'"):
        load_model(path.with_name("modle.ubj"), features=FEATURES)
    with pytest.raises(ModelError, match="does not exist"):
        load_model(path.parent / "nowhere" / "m.ubj", features=FEATURES)
    with pytest.raises(ModelError, match="does not exist"):
        load_model((path.parent / "no.ubj").as_uri(), features=FEATURES)


def test_folder_and_unknown_scheme(path):
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(path.parent, features=FEATURES)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model("gopher://host/model.ubj", features=FEATURES)


class Bomb:
    """Unpickling it would create the file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["model.ubj", "model.pkl", "model.json"])
def test_pickle_is_refused_by_content_and_never_run(tmp_path, protocol, name):
    victim = tmp_path / "boom"
    place = tmp_path / name
    place.write_bytes(pickle.dumps(Bomb(victim), protocol))
    with pytest.raises(ModelError, match=r"is a pickle and is refused.*runs whatever code.*save_model"):
        load_model(place, features=FEATURES)
    assert not victim.exists()
    pickle.loads(place.read_bytes())
    assert victim.exists(), "the planted pickle must be a working one"


@pytest.mark.parametrize("ending", ["pkl", "pickle", "joblib", "PKL"])
def test_pickle_is_refused_by_name(booster, tmp_path, ending):
    place = tmp_path / f"model.{ending}"
    place.write_bytes(booster.save_raw("ubj"))
    with pytest.raises(ModelError, match="is a pickle and is refused"):
        load_model(place, features=FEATURES)


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(1))
    return buffer.getvalue()


FOREIGN = {
    "zip archive": zip_file(),
    "gzip": gzip.compress(pickle.dumps([1, 2])),
    "LightGBM": b"tree\nversion=v4\nnum_class=1\n",
    "CatBoost": b"CBM1\x00\x01",
    "an empty file": b"",
    "starts with": b"\x00\x01\x02 no model",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n",
    "old binary format": b"binf" + bytes(50),
}


@pytest.mark.parametrize("meaning", FOREIGN)
def test_other_formats_are_named(tmp_path, meaning):
    (tmp_path / "m.ubj").write_bytes(FOREIGN[meaning])
    with pytest.raises(ModelError, match=rf"is not an XGBoost model.*{meaning}"):
        load_model(tmp_path / "m.ubj", "xgboost", features=FEATURES)


@pytest.mark.parametrize("meaning", sorted(set(FOREIGN) - {"LightGBM", "CatBoost"}))
def test_what_is_no_model_is_named_whatever_the_file_is_called(tmp_path, meaning):
    for name in ("m", "m.model", "m.bin"):
        (tmp_path / name).write_bytes(FOREIGN[meaning])
        with pytest.raises(ModelError, match=rf"is not a model file that can be read.*{meaning}"):
            load_model(tmp_path / name, features=FEATURES)


@pytest.mark.parametrize(
    "text",
    ["{}", '{"a": 1}', '{"learner": {}}', '{"learner": []}', '{"learner"', "{[[[[", '{"learner": 5}', "{" * 999],
)
def test_json_that_is_no_model(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ModelError, match="damaged, or not an XGBoost model"):
        load_model(tmp_path / "m.json", features=FEATURES)


@pytest.mark.parametrize("form", ["ubj", "json"])
def test_a_truncated_file_is_refused_wherever_it_ends(booster, tmp_path, form):
    raw = booster.save_raw(form)
    chance = random.Random(3)
    for end in (*chance.sample(range(1, len(raw)), 60), len(raw) - 1):
        place = tmp_path / f"m.{form}"
        place.write_bytes(raw[:end])
        with pytest.raises(ModelError, match=r"damaged|is not an XGBoost model"):
            load_model(place, features=FEATURES)
    place.write_bytes(raw + b"}")
    with pytest.raises(ModelError, match="damaged"):
        load_model(place, features=FEATURES)


def set_path(document: dict, value, *keys) -> None:
    for key in keys[:-1]:
        document = document[key]
    document[keys[-1]] = value


MODEL = ("learner", "gradient_booster", "model")
TREE = (*MODEL, "trees", 0)
DAMAGES = {
    "child out of range": ((*TREE, "left_children", 0), 99_999, "children are not a tree"),
    "walk in a circle": ((*TREE, "left_children", 1), 0, "children are not a tree"),
    "one child": ((*TREE, "right_children", 0), -1, "one child"),
    "parent": ((*TREE, "parents", 3), 77_777, "parents"),
    "feature out of range": ((*TREE, "split_indices", 0), 3, "feature that does not exist"),
    "kind of split": ((*TREE, "split_type", 0), 7, "unknown kind of split"),
    "short array": ((*TREE, "split_conditions"), [0.0], "nodes long"),
    "levels cut": ((*TREE, "categories_sizes"), [99], "levels"),
    "fewer trees": ((*MODEL, "gbtree_model_param", "num_trees"), "99", "number of trees"),
    "rounds": ((*MODEL, "iteration_indptr", -1), 99, "rounds do not cover"),
    "stored levels": ((*MODEL, "cats", "enc", 1, "offsets", 3), 500, "stored levels are cut off"),
    "names": (("learner", "feature_names"), ["size", "fruit"], "2 feature_names for 3 features"),
    "part missing": (MODEL, {}, "no part"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_structure_is_refused_before_the_library_reads_it(booster, tmp_path, damage):
    keys, value, message = DAMAGES[damage]
    document = json.loads(booster.save_raw("json"))
    set_path(document, value, *keys)
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=f"damaged.*{message}"):
        load_model(tmp_path / "m.json", features=FEATURES)


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror"])
@pytest.mark.parametrize("form", ["ubj", "json"])
def test_linear_booster(codes, table, tmp_path, form, objective):
    matrix = xgboost.DMatrix(codes, table["label"].to_numpy(), feature_names=["size", "fruit", "ripe"])
    trained = xgboost.train({"booster": "gblinear", "objective": objective, "nthread": 1}, matrix, 2)
    trained.save_model(tmp_path / f"m.{form}")
    features = (FEATURES[0], FeatureSpec("fruit", "categorical", LEVELS), *FEATURES[2:])
    model = load_model(tmp_path / f"m.{form}", features=features)
    X = model.encode(table)
    np.testing.assert_array_equal(model.predict_output(X), trained.predict(matrix))
    np.testing.assert_array_equal(model.predict_margin(X), trained.predict(matrix, output_margin=True))
    assert model.is_classifier == (objective == "binary:logistic")


@pytest.mark.parametrize("weights, found", [([1.0], "1 weights for 3 features"), ([1.0, 2.0, 3.0, "NaN"], "4 weights")])
def test_damaged_linear_booster(codes, table, tmp_path, weights, found):
    matrix = xgboost.DMatrix(codes, table["label"].to_numpy(), feature_names=["size", "fruit", "ripe"])
    document = json.loads(xgboost.train({"booster": "gblinear"}, matrix, 2).save_raw("json"))
    set_path(document, [float(w) for w in weights], *MODEL, "weights")
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=f"damaged.*{found}"):
        load_model(tmp_path / "m.json", features=FEATURES)


def test_a_newer_library_is_refused(booster, tmp_path):
    document = json.loads(booster.save_raw("json"))
    document["version"] = [9, 1, 0]
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"newer xgboost than the installed one.*xgboost 9\.1\.0"):
        load_model(tmp_path / "m.json", features=FEATURES)


def test_several_outputs(table, codes, tmp_path):
    y = np.arange(600) % 3
    matrix = xgboost.DMatrix(codes, y, feature_names=["size", "fruit", "ripe"])
    for number, parameters in enumerate(
        (
            {"objective": "multi:softprob", "num_class": 3},
            {"objective": "reg:quantileerror", "quantile_alpha": np.array([0.1, 0.9])},
        )
    ):
        xgboost.train(parameters, matrix, 2).save_model(tmp_path / f"{number}.ubj")
        with pytest.raises(ModelError, match="more than one output, which is not supported yet"):
            load_model(tmp_path / f"{number}.ubj", features=FEATURES)
    targets = xgboost.DMatrix(codes, np.column_stack([y, y]), feature_names=["size", "fruit", "ripe"])
    for strategy in ("one_output_per_tree", "multi_output_tree"):
        xgboost.train({"multi_strategy": strategy}, targets, 2).save_model(tmp_path / "t.ubj")
        with pytest.raises(ModelError, match="more than one output, which is not supported yet"):
            load_model(tmp_path / "t.ubj", features=FEATURES)


def test_unknown_kind(path):
    with pytest.raises(ModelError, match=r"'keras' is not supported.*auto, xgboost, lightgbm"):
        load_model(path, kind="keras", features=FEATURES)


@pytest.mark.parametrize("kind", ["lightgbm", "catboost", "sklearn", "onnx", "torch"])
def test_a_file_of_another_kind_than_the_configured_one(path, kind):
    with pytest.raises(ModelError, match=r"is not an? .* model.*Found: a JSON or UBJSON document.*kind: xgboost"):
        load_model(path, kind=kind, features=FEATURES)


def test_inspection_tells_names_and_kinds(path, codes, table, tmp_path):
    assert inspect_features(path) == (("size", ""), ("fruit", "categorical"), ("ripe", ""))
    matrix = coded_matrix(codes, table["label"].to_numpy(), named=False)
    xgboost.train(LOGISTIC, matrix, 2).save_model(tmp_path / "m.ubj")
    with pytest.raises(ModelError, match="no feature names, so its columns cannot be told"):
        inspect_features(tmp_path / "m.ubj")
