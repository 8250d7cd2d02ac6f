"""Pickles: not a byte of them is loaded unless the configuration trusts them and the hash is the pinned one."""

import hashlib
import io
import pickle
from pathlib import Path

import catboost
import joblib
import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from xai_assets.errors import ModelError
from xai_assets.models.artifact import inspect_features, load_model


def trusted(path, features, kind="auto"):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return load_model(path, kind, digest, features, trust_pickle=True)


class Bomb:
    """Unpickling it creates a file; the object that comes out is no model."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


def compressed(value: object, method: str) -> bytes:
    out = io.BytesIO()
    joblib.dump(value, out, compress=(method, 3))
    return out.getvalue()


WRITERS = {
    "pickle": pickle.dumps,
    "text pickle": lambda value: pickle.dumps(value, 0),
    "zlib": lambda value: compressed(value, "zlib"),
    "gzip": lambda value: compressed(value, "gzip"),
    "bz2": lambda value: compressed(value, "bz2"),
    "xz": lambda value: compressed(value, "xz"),
}


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "model.ubj", "model.bin"])
@pytest.mark.parametrize("writer", WRITERS)
def test_nothing_runs_without_trust_and_the_right_hash(rows, tmp_path, writer, name):
    victim, place = tmp_path / "boom", tmp_path / name
    raw = WRITERS[writer](Bomb(victim))
    place.write_bytes(raw)
    digest = hashlib.sha256(raw).hexdigest()
    with pytest.raises(ModelError, match="pickle"):
        load_model(place, features=rows.numeric)
    with pytest.raises(ModelError, match="pickle"):
        load_model(place, sha256=digest, features=rows.numeric)  # a pin alone is no trust
    with pytest.raises(ModelError, match="without a pinned hash"):
        load_model(place, features=rows.numeric, trust_pickle=True)
    with pytest.raises(ModelError, match="not the pinned file"):
        load_model(place, sha256="0" * 64, features=rows.numeric, trust_pickle=True)
    with pytest.raises(ModelError, match="pickle"):
        inspect_features(place)
    assert not victim.exists()
    with pytest.raises(ModelError, match="holds no model"):
        load_model(place, sha256=digest, features=rows.numeric, trust_pickle=True)
    assert victim.exists(), "the planted pickle must be a working one"


def test_a_file_replaced_after_it_was_loaded_is_compared_again(rows, tmp_path):
    place, victim = tmp_path / "m.pkl", tmp_path / "boom"
    place.write_bytes(pickle.dumps(LogisticRegression().fit(rows.numbers, rows.label)))
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    load_model(place, sha256=digest, features=rows.numeric, trust_pickle=True)
    place.write_bytes(pickle.dumps(Bomb(victim)))
    with pytest.raises(ModelError, match="not the pinned file"):
        load_model(place, sha256=digest, features=rows.numeric, trust_pickle=True)
    assert not victim.exists()


class Halves:
    """A user's own class with nothing but predict."""

    def predict(self, X):
        return X[:, 0] / 2


class Coin:
    """A user's own classifier."""

    def predict_proba(self, X):
        return np.tile([0.75, 0.25], (len(X), 1))

    predict = None


def models(rows):
    X, y = rows.numbers, rows.label
    quiet = {"verbose": 0, "allow_writing_files": False}
    return {
        "xgboost": xgboost.XGBClassifier(n_estimators=5).fit(X, y),
        "lightgbm": lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(X, y),
        "catboost": catboost.CatBoostClassifier(iterations=5, **quiet).fit(X, y),
        "sklearn": RandomForestClassifier(5, random_state=0).fit(X, y),
        "callable": Coin(),
    }


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "catboost", "sklearn", "callable"])
@pytest.mark.parametrize("writer", ["pickle", "gzip"])
def test_every_library_comes_out_as_its_own_kind(rows, tmp_path, kind, writer):
    trained = models(rows)[kind]
    place = tmp_path / "m.joblib"
    place.write_bytes(WRITERS[writer](trained))
    model = trusted(place, rows.numeric)
    X = rows.numbers.astype(np.float32)
    expected = trained.predict_proba(X)[:, 1]
    np.testing.assert_allclose(model.predict_output(X), expected, atol=1e-7)
    assert (model.kind, model.is_classifier) == (kind, True)
    assert model.sha256 == hashlib.sha256(place.read_bytes()).hexdigest()
    if kind != "callable":
        assert trusted(place, rows.numeric, kind).kind == kind
    assert trusted(place, rows.numeric, "pickle").kind == kind
    with pytest.raises(ModelError, match=r"not of the configured kind.*out of a pickle"):
        trusted(place, rows.numeric, "onnx")


def test_a_search_is_its_best_estimator(rows, tmp_path):
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(rows.numbers, rows.label)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(search))
    model = trusted(tmp_path / "m.pkl", rows.numeric)
    assert isinstance(model.native, LogisticRegression)
    np.testing.assert_allclose(model.predict_margin(rows.numbers), search.decision_function(rows.numbers), rtol=1e-12)


def test_an_own_class_with_predict(rows, tmp_path):
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Halves()))
    model = trusted(tmp_path / "m.pkl", rows.numeric)
    assert (model.kind, model.is_classifier) == ("callable", False)
    assert model.predict_output(np.array([[3.0, 1.0]], np.float32)).tolist() == [1.5]
    assert model.predict_margin(np.array([[3.0, 1.0]], np.float32)).tolist() == [1.5]


def test_a_file_of_a_format_of_its_own_is_read_as_that_even_when_trusted(rows, tmp_path):
    booster = xgboost.train({"max_depth": 2}, xgboost.DMatrix(rows.numbers, rows.label), 3)
    (tmp_path / "m.pkl").write_bytes(booster.save_raw("ubj"))
    assert trusted(tmp_path / "m.pkl", rows.numeric).kind == "xgboost"


def test_what_is_refused_although_it_is_trusted(rows, tmp_path):
    place = tmp_path / "m.pkl"
    whole = pickle.dumps(LogisticRegression().fit(rows.numbers, rows.label))
    place.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged, or not a pickle of a model"):
        trusted(place, rows.numeric)
    place.write_bytes(b"\x80\x04cnot_a_package.models\nModel\n.")
    with pytest.raises(ModelError, match="needs the package not_a_package"):
        trusted(place, rows.numeric)
    place.write_bytes(pickle.dumps(xgboost.XGBClassifier()))
    with pytest.raises(ModelError, match=r"cannot be used.*fit"):
        trusted(place, rows.numeric)
    place.write_bytes(pickle.dumps(LogisticRegression().fit(rows.numbers, np.arange(400) % 3)))
    with pytest.raises(ModelError, match="more than one output"):
        trusted(place, rows.numeric)


def test_kind_pickle_without_trust(rows, tmp_path):
    with pytest.raises(ModelError, match=r"configured as a pickle and is refused.*trust_pickle"):
        load_model(tmp_path / "m.pkl", "pickle", features=rows.numeric)
