"""ONNX through onnxruntime: ports as features and outputs, and what is refused."""

import numpy as np
import onnx
import pytest
import skl2onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from xai_assets.errors import ModelError
from xai_assets.models.artifact import load_model


def write(model, place) -> bytes:
    raw = model.SerializeToString()
    place.write_bytes(raw)
    return raw


def converted(estimator, rows, **options):
    matrix = [("X", FloatTensorType([None, 2]))]
    return skl2onnx.to_onnx(estimator, initial_types=matrix, options={id(estimator): options} if options else None)


@pytest.mark.parametrize("zipmap", [True, False, "columns"])
def test_classifier(rows, tmp_path, zipmap):
    trained = LogisticRegression().fit(rows.numbers, rows.label)
    write(converted(trained, rows, zipmap=zipmap), tmp_path / "m.onnx")
    if zipmap == "columns":
        with pytest.raises(ModelError, match="more than one output"):
            load_model(tmp_path / "m.onnx", features=rows.numeric)
        return
    model = load_model(tmp_path / "m.onnx", features=rows.numeric)
    X = rows.numbers.astype(np.float32)
    p = trained.predict_proba(rows.numbers)[:, 1]
    np.testing.assert_allclose(model.predict_output(X), p, atol=1e-6)
    np.testing.assert_allclose(model.predict_output(X, "probability"), p, atol=1e-6)
    np.testing.assert_allclose(model.predict_margin(X), trained.decision_function(rows.numbers), atol=1e-4)
    assert (model.kind, model.is_classifier) == ("onnx", True)
    assert "no feature names" in model.notes[0]
    with pytest.raises(ModelError, match="no feature names, and their number differs"):
        load_model(tmp_path / "m.onnx", features=rows.listed)


def test_a_certain_probability_has_a_finite_margin(rows, tmp_path):
    trained = LogisticRegression(C=1e6).fit(rows.numbers, (rows.numbers[:, 0] > 0).astype(int))
    write(converted(trained, rows), tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx", features=rows.numeric)
    margin = model.predict_margin(np.array([[1e4, 0], [-1e4, 0]], np.float32))
    np.testing.assert_allclose(margin, [16.118, -16.118], atol=1e-3)  # ln((1 − 1e-7) / 1e-7)


@pytest.mark.parametrize("estimator", [LinearRegression(), RandomForestRegressor(5, random_state=0)], ids=str)
def test_regression(rows, tmp_path, estimator):
    trained = estimator.fit(rows.numbers, rows.label)
    write(converted(trained, rows), tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx", "onnx", features=rows.numeric)
    X = rows.numbers.astype(np.float32)
    np.testing.assert_allclose(model.predict_output(X), trained.predict(rows.numbers), atol=1e-5)
    np.testing.assert_array_equal(model.predict_margin(X), model.predict_output(X))
    assert not model.is_classifier


def test_one_input_per_feature_names_the_features(rows, tmp_path):
    numbers = rows.frame[["weight", "size"]].fillna(0.0)
    trained = make_pipeline(
        make_column_transformer((StandardScaler(), ["weight", "size"])), GradientBoostingClassifier(n_estimators=5)
    ).fit(numbers, rows.label)
    ports = [(name, FloatTensorType([None, 1])) for name in ("weight", "size")]
    write(skl2onnx.to_onnx(trained, initial_types=ports), tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx", features=rows.features)
    assert model.feature_names == ("weight", "size")
    X = numbers.to_numpy(np.float32)
    np.testing.assert_allclose(model.predict_output(X), trained.predict_proba(numbers)[:, 1], atol=1e-6)


@pytest.mark.parametrize("odd", [np.nan, 2.9, np.inf, -1e30])
@pytest.mark.parametrize("columns", [False, True])
def test_inputs_of_whole_numbers_take_no_others(rows, tmp_path, columns, odd):
    counts = np.random.default_rng(1).integers(-5, 5, (400, 2))
    trained = DecisionTreeRegressor(max_depth=3).fit(counts, counts[:, 0] * 2.0 - counts[:, 1])
    ports = [("X", Int64TensorType([None, 2]))]
    if columns:
        trained = make_pipeline(make_column_transformer(("passthrough", [0, 1])), trained)
        trained.fit(counts, counts[:, 0] * 2.0 - counts[:, 1])
        ports = [("size", Int64TensorType([None, 1])), ("weight", Int64TensorType([None, 1]))]
    write(skl2onnx.to_onnx(trained, initial_types=ports), tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx", features=rows.numeric)
    np.testing.assert_allclose(model.predict_output(counts.astype(np.float32)), trained.predict(counts), atol=1e-5)
    with pytest.raises(ModelError, match=r"ONNX model refuses these rows.*whole numbers for its int64 input"):
        model.predict_output(np.array([[2, 1], [odd, 1]], np.float32))


def bare(output_shape=("n", 1), *, weights=((2.0,), (-1.0,)), input_shape=("n", 2)):
    """X · w: one float output and nothing said about what it is."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "w"], ["out"])],
        "bare",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(np.array(weights, np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_bare_output_is_a_value_or_the_log_odds_as_models_output_says(rows, tmp_path):
    write(bare(), tmp_path / "m.onnx")
    X = np.array([[1.0, 0.5], [0.0, 0.0]], np.float32)
    plain = load_model(tmp_path / "m.onnx", features=rows.numeric)
    assert not plain.is_classifier
    assert plain.predict_output(X).tolist() == [1.5, 0.0]
    classifier = load_model(tmp_path / "m.onnx", features=rows.numeric, output="probability")
    assert classifier.is_classifier
    np.testing.assert_allclose(classifier.predict_output(X, "probability"), [1 / (1 + np.exp(-1.5)), 0.5])
    assert classifier.predict_margin(X).tolist() == [1.5, 0.0]


@pytest.mark.parametrize(
    "model, message",
    [
        (bare(("n", 3), weights=np.ones((2, 3))), "more than one output.*width 3"),
        (bare(("n", 2), weights=np.ones((2, 2))), "more than one output.*width 2"),
    ],
    ids=["three", "two"],
)
def test_several_outputs(rows, tmp_path, model, message):
    write(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "m.onnx", features=rows.numeric)


def test_an_input_of_open_width_is_tried(rows, tmp_path):
    write(bare(input_shape=("n", "d")), tmp_path / "m.onnx")
    assert load_model(tmp_path / "m.onnx", features=rows.numeric).feature_names == ("size", "weight")
    with pytest.raises(ModelError, match="ONNX model refuses these rows"):
        load_model(tmp_path / "m.onnx", features=rows.listed)


@pytest.mark.parametrize("zipmap", [True, False])
def test_several_classes(rows, tmp_path, zipmap):
    trained = LogisticRegression().fit(rows.numbers, np.arange(400) % 3)
    write(converted(trained, rows, zipmap=zipmap), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="more than one output"):
        load_model(tmp_path / "m.onnx", features=rows.numeric)


def test_inputs_that_are_texts(rows, tmp_path):
    trained = make_pipeline(make_column_transformer((OneHotEncoder(), ["fruit"])), LogisticRegression())
    trained.fit(rows.text("none")[["fruit"]], rows.label)
    ports = [("fruit", StringTensorType([None, 1]))]
    write(skl2onnx.to_onnx(trained, initial_types=ports), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"inputs that are not numbers.*fruit: tensor\(string\)"):
        load_model(tmp_path / "m.onnx", features=rows.listed)


def test_a_truncated_file_is_refused_wherever_it_ends(rows, refused_wherever_it_ends):
    refused_wherever_it_ends(bare().SerializeToString(), "m.onnx", rows.numeric)


def test_newer_versions_are_refused(rows, tmp_path):
    model = bare()
    model.ir_version = 99
    write(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"newer onnxruntime than the installed one.*99"):
        load_model(tmp_path / "m.onnx", features=rows.numeric)
    model = bare()
    model.opset_import[0].version = 99
    write(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"newer onnxruntime than the installed one.*99"):
        load_model(tmp_path / "m.onnx", features=rows.numeric)


def test_a_file_with_its_weights_elsewhere_is_refused(rows, tmp_path):
    model = bare()
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="weights.bin")
    with pytest.raises(ModelError, match="damaged, or not an ONNX model"):
        load_model(tmp_path / "m.onnx", features=rows.numeric)
