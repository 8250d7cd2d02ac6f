"""What loaders share, and that a library is imported only for its own files."""

import hashlib
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from xai_assets.errors import ModelError
from xai_assets.models.artifact import load_model
from xai_assets.models.kinds.loaded import log_odds, logistic, refuse_newer

NEEDS = {
    "lightgbm": ("lightgbm", b"tree\nversion=v4\n", "m.txt", "lightgbm"),
    "catboost": ("catboost", b"CBM1" + bytes(20), "m.cbm", "catboost"),
    "sklearn": ("skops.io", b"PK\x03\x04", "m.skops", "sklearn-formats"),
    "onnx": ("onnxruntime", b"\x08\x0a\x12\x00", "m.onnx", "onnx"),
    "torch": ("torch", b"PK\x03\x04", "m.pt2", "torch"),
}


@pytest.mark.parametrize("kind", NEEDS)
def test_a_missing_library_names_the_extra_that_brings_it(tmp_path, monkeypatch, kind):
    module, raw, name, extra = NEEDS[kind]
    monkeypatch.setitem(sys.modules, module, None)  # what Python itself does for a module that must not be found
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ModelError, match=rf"needs {module.split('.')[0]}.*pip install 'xai-assets\[{extra}\]'"):
        load_model(tmp_path / name, sha256=hashlib.sha256(raw).hexdigest(), trust_pickle=True)


def test_mlflow_uris_need_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ModelError, match=r"needs mlflow.*xai-assets\[mlflow\]"):
        load_model("models:/credit/3")


def test_an_xgboost_model_imports_no_other_library(tmp_path):
    rng = np.random.default_rng(0)
    matrix = xgboost.DMatrix(rng.normal(size=(50, 1)), rng.normal(size=50), feature_names=["a"])
    xgboost.train({"max_depth": 1}, matrix, 1).save_model(tmp_path / "m.ubj")
    code = (
        "import sys; from xai_assets.models import load_model; from xai_assets.records import FeatureSpec as F;"
        f"load_model({str(tmp_path / 'm.ubj')!r}, features=(F('a', 'numeric'),));"
        "print([m for m in ('lightgbm', 'catboost', 'skops', 'onnxruntime', 'torch', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@given(st.floats(-25, 25))
def test_log_odds_undo_the_logistic_function(margin):
    assert log_odds(logistic(np.array([margin])))[0] == pytest.approx(margin, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("written, installed, refused", [("3.3.0", "3.2.9", True), ("4.0", "3.9.1", True)])
def test_newer_is_judged_by_major_and_minor(written, installed, refused):
    with pytest.raises(ModelError, match="newer thing"):
        refuse_newer("m", "thing", written, installed)
    for fine in (installed, "3.2.99" if installed == "3.2.9" else "3.9.99", "1.0"):
        refuse_newer("m", "thing", fine, installed)


def test_each_kind_has_its_module():
    from xai_assets.models.artifact import LOADERS

    for module in LOADERS.values():
        assert callable(importlib.import_module(f"xai_assets.models.kinds.{module}").load)
