"""MLflow folders, as MLflow writes them, are read without MLflow; URIs through it."""

import hashlib
import pickle
from types import SimpleNamespace

import lightgbm
import numpy as np
import pytest
import xgboost
import yaml
from sklearn.linear_model import LogisticRegression

from xai_assets.errors import ModelError
from xai_assets.models.artifact import inspect_features, load_model
from xai_assets.models.kinds import mlflow as mlflow_kind


def folder(place, flavors):
    place.mkdir()
    (place / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors, "mlflow_version": "3.9.0"}))
    return place


@pytest.fixture
def booster(rows):
    matrix = xgboost.DMatrix(rows.numbers, rows.label, feature_names=["size", "weight"])
    return xgboost.train({"objective": "binary:logistic", "max_depth": 2}, matrix, 4)


def test_a_folder_leads_to_its_librarys_file(rows, booster, tmp_path):
    place = folder(
        tmp_path / "credit", {"python_function": {"loader_module": "mlflow.xgboost"}, "xgboost": {"data": "m"}}
    )
    booster.save_model(place / "model.ubj")
    (place / "model.ubj").rename(place / "m")
    model = load_model(place, features=rows.numeric)
    same = load_model(place / "m", features=rows.numeric)
    assert (model.kind, model.sha256) == ("xgboost", same.sha256)
    assert load_model(place, "mlflow", same.sha256, rows.numeric).sha256 == same.sha256
    assert inspect_features(place) == (("size", ""), ("weight", ""))
    with pytest.raises(ModelError, match="not the pinned file"):
        load_model(place, "mlflow", "0" * 64, rows.numeric)
    with pytest.raises(ModelError, match="is not a LightGBM model"):
        load_model(place, "lightgbm", features=rows.numeric)


def test_a_flavor_whose_file_is_of_another_kind(rows, booster, tmp_path):
    place = folder(tmp_path / "credit", {"lightgbm": {"data": "model.lgb"}})
    booster.save_model(place / "model.json")
    (place / "model.json").rename(place / "model.lgb")
    with pytest.raises(ModelError, match=r"is not a LightGBM model.*JSON or UBJSON"):
        load_model(place, features=rows.numeric)
    lightgbm.train({"verbose": -1}, lightgbm.Dataset(rows.numbers, rows.label), 2).save_model(place / "model.lgb")
    assert load_model(place, features=rows.numeric).kind == "lightgbm"


def test_the_pickle_in_a_folder_is_a_pickle(rows, tmp_path):
    place = folder(tmp_path / "credit", {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "pickle"}})
    raw = pickle.dumps(LogisticRegression().fit(rows.numbers, rows.label))
    (place / "model.pkl").write_bytes(raw)
    with pytest.raises(ModelError, match="is a pickle and is refused"):
        load_model(place, features=rows.numeric)
    model = load_model(place, "mlflow", hashlib.sha256(raw).hexdigest(), rows.numeric, trust_pickle=True)
    assert model.kind == "sklearn"


def test_a_network_is_found_in_its_folder(rows, tmp_path):
    place = folder(tmp_path / "net", {"pytorch": {"model_data": "data"}})
    (place / "data").mkdir()
    (place / "data/pickle_module_info.txt").write_text("mlflow.pytorch.pickle_module")
    (place / "data/model.pth").write_bytes(pickle.dumps(1))
    with pytest.raises(ModelError, match=r"data/model\.pth is a pickle and is refused"):
        load_model(place, features=rows.numeric)


@pytest.mark.parametrize(
    "flavors, message",
    [
        ({"python_function": {}}, "no flavor that can be read without running its code.*python_function"),
        ({"xgboost": {"data": "nowhere.ubj"}}, r"does not hold the file that its flavor xgboost names"),
        ({"xgboost": {"data": "../outside.ubj"}}, r"does not hold the file that its flavor xgboost names"),
    ],
    ids=["own code", "missing", "outside"],
)
def test_folders_without_a_file_to_read(rows, booster, tmp_path, flavors, message):
    booster.save_model(tmp_path / "outside.ubj")
    with pytest.raises(ModelError, match=message):
        load_model(folder(tmp_path / "credit", flavors), features=rows.numeric)


def test_nothing_outside_the_folder_is_searched_or_read(rows, booster, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    booster.save_model(tmp_path / "elsewhere/model.ubj")
    inside = folder(tmp_path / "inside", {"xgboost": {"data": "data"}})
    (inside / "data").mkdir()
    booster.save_model(inside / "data/model.ubj")
    assert load_model(inside, features=rows.numeric).kind == "xgboost"  # the healthy twin
    (inside / "data/model.ubj").unlink()
    (inside / "data/model.ubj").symlink_to(tmp_path / "elsewhere/model.ubj")
    with pytest.raises(ModelError, match=r"does not hold the file.*inside the model's folder.*model\.ubj"):
        load_model(inside, features=rows.numeric)
    outside = folder(tmp_path / "outside", {"xgboost": {"data": str(tmp_path / "elsewhere")}})
    monkeypatch.setattr(mlflow_kind, "_models_in", lambda place: pytest.fail(f"{place} was searched"))
    with pytest.raises(ModelError, match=r"does not hold the file.*Found: none"):
        load_model(outside, features=rows.numeric)


@pytest.mark.parametrize(
    "uri, times",
    [("models:/credit/7", 1), ("models:/credit@best", 2), ("models:/credit/Production", 2), ("runs:/1/m", 2)],
)
def test_only_what_cannot_change_is_fetched_once(rows, booster, tmp_path, monkeypatch, uri, times):
    place, asked = folder(tmp_path / "credit", {"xgboost": {"data": "model.ubj"}}), []
    booster.save_model(place / "model.ubj")
    download = SimpleNamespace(download_artifacts=lambda artifact_uri, dst_path: asked.append(artifact_uri) or place)
    monkeypatch.setattr(mlflow_kind, "library", lambda *_: SimpleNamespace(artifacts=download))
    mlflow_kind._fetched_once.cache_clear()
    for _ in range(2):
        load_model(uri, features=rows.numeric)
    mlflow_kind._fetched_once.cache_clear()
    assert asked == [uri] * times


@pytest.mark.parametrize("text", ["", "flavors: [1]", "a: b", "{", "flavors: 3"])
def test_a_damaged_description(rows, tmp_path, text):
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(ModelError, match=r"MLflow model .* cannot be read"):
        load_model(tmp_path, features=rows.numeric)


def test_kind_mlflow_on_something_else(rows, booster, tmp_path):
    booster.save_model(tmp_path / "m.ubj")
    for place in (tmp_path, tmp_path / "m.ubj"):
        with pytest.raises(ModelError, match="is not an MLflow model"):
            load_model(place, "mlflow", features=rows.numeric)


@pytest.mark.extras
def test_uris_are_fetched_through_mlflow(rows, booster, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    written = folder(tmp_path / "written", {"xgboost": {"data": "model.ubj"}})
    booster.save_model(written / "model.ubj")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(written), "model")
    model = load_model(f"runs:/{run.info.run_id}/model", features=rows.numeric)
    assert model.sha256 == load_model(written / "model.ubj", features=rows.numeric).sha256
    with pytest.raises(ModelError, match="MLflow does not give model"):
        load_model(f"runs:/{run.info.run_id}/nothing", features=rows.numeric)
    client = mlflow.MlflowClient()
    client.create_registered_model("credit")
    version = client.create_model_version("credit", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("credit", "champion", version.version)
    for uri in (f"models:/credit/{version.version}", "models:/credit@champion"):
        assert load_model(uri, "mlflow", features=rows.numeric).sha256 == model.sha256


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")  # MLflow's own, while it writes
def test_what_mlflow_itself_writes_is_read(rows, booster, tmp_path):
    pytest.importorskip("mlflow")
    import mlflow.xgboost

    mlflow.xgboost.save_model(booster, str(tmp_path / "written"))
    model = load_model(tmp_path / "written", features=rows.numeric)
    np.testing.assert_array_equal(
        model.predict_output(rows.numbers.astype(np.float32)),
        booster.predict(xgboost.DMatrix(rows.numbers, feature_names=["size", "weight"])),
    )
