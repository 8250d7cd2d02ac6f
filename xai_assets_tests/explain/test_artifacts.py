"""From the file to attributions that add up: every kind of artifact under `auto`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xai_assets.explain import additivity_error, explainer_for
from xai_assets.models import load_model
from xai_assets.records import FeatureSpec

LEVELS = tuple("abcdef")
NUMBERS = tuple(FeatureSpec(name, "numeric") for name in "xyz")
ALL = (*NUMBERS, FeatureSpec("c", "categorical", LEVELS))
RNG = np.random.default_rng(0)
CODES = RNG.integers(0, 6, 400)
TABLE = pd.DataFrame(RNG.normal(size=(400, 3)).astype(np.float32), columns=list("xyz")).assign(
    c=[LEVELS[i] for i in CODES]
)
TARGET = (TABLE["x"] * TABLE["y"] + CODES % 2 + TABLE["z"] + 0.3 * RNG.normal(size=400) > 0.5).astype(int)
DENSE = TABLE[list("xyz")]


def lightgbm(path: Path, **more: Any) -> None:
    library = pytest.importorskip("lightgbm")
    parameters = {"objective": "binary", "num_leaves": 8, "num_threads": 1, "verbose": -1, **more}
    table = TABLE.assign(c=pd.Categorical(TABLE["c"], categories=list(LEVELS)))
    library.train(parameters, library.Dataset(table, TARGET), 10).save_model(path)


def catboost(path: Path, one_hot: int) -> None:
    library = pytest.importorskip("catboost")
    settings = {"iterations": 15, "depth": 4, "verbose": 0, "thread_count": 1, "allow_writing_files": False}
    model = library.CatBoostClassifier(**settings, cat_features=["c"], one_hot_max_size=one_hot)
    model.fit(TABLE, TARGET).save_model(str(path))


def skops(path: Path, estimator: Any) -> None:
    pytest.importorskip("skops.io").dump(estimator.fit(DENSE, TARGET), path)


def onnx(path: Path) -> None:
    convert = pytest.importorskip("skl2onnx").to_onnx
    pytest.importorskip("onnxruntime")
    forest = RandomForestClassifier(5, max_depth=3, random_state=0).fit(DENSE.to_numpy(), TARGET)
    model = convert(forest, DENSE.to_numpy()[:1], options={"zipmap": False})
    path.write_bytes(model.SerializeToString())


def gblinear(path: Path) -> None:
    parameters = {"booster": "gblinear", "objective": "binary:logistic", "nthread": 1}
    xgboost.train(parameters, xgboost.DMatrix(DENSE, TARGET), 10).save_model(path)


CASES: dict[str, tuple[str, tuple[FeatureSpec, ...], Callable[[Path], None]]] = {
    "lightgbm.txt": ("treeshap", ALL, lightgbm),
    "forest.txt": ("treeshap", ALL, lambda p: lightgbm(p, boosting="rf", bagging_fraction=0.6, bagging_freq=1)),
    "linear leaves.txt": ("permutation", ALL, lambda p: lightgbm(p, linear_tree=True)),
    "levels one by one.cbm": ("treeshap", ALL, lambda p: catboost(p, one_hot=10)),
    "counters of levels.cbm": ("catboost_exact", ALL, lambda p: catboost(p, one_hot=2)),
    "pipeline.skops": ("linear", NUMBERS, lambda p: skops(p, make_pipeline(StandardScaler(), LogisticRegression()))),
    "forest.skops": ("treeshap", NUMBERS, lambda p: skops(p, RandomForestClassifier(5, max_depth=4))),
    "boosting.skops": ("treeshap", NUMBERS, lambda p: skops(p, HistGradientBoostingClassifier(max_iter=10))),
    "bayes.skops": ("permutation", NUMBERS, lambda p: skops(p, GaussianNB())),
    "forest.onnx": ("permutation", NUMBERS, onnx),
    "gblinear.ubj": ("linear", NUMBERS, gblinear),
}


@pytest.mark.filterwarnings("ignore:.*np.object:FutureWarning")
@pytest.mark.parametrize("name", CASES)
def test_every_artifact_gets_its_explainer_and_adds_up(tmp_path: Path, name: str) -> None:
    expected, features, write = CASES[name]
    write(tmp_path / name)
    model = load_model(str(tmp_path / name), "auto", None, features)
    X = model.encode(pl.from_pandas(TABLE))
    explainer = explainer_for(model, background=X[:10])
    rows = X if explainer.is_fast else X[:4]
    found = explainer.explain(rows)
    assert explainer.id == expected
    assert additivity_error(found) < 1e-5
    np.testing.assert_array_equal(found.margin, model.predict_margin(rows))
    assert np.abs(found.values).max() > 0.01


def test_levels_that_are_configured_otherwise_make_another_explainer(tmp_path: Path) -> None:
    """CatBoost's file holds hashes of texts: which code is which text is the configuration's."""
    catboost(tmp_path / "model.cbm", one_hot=10)
    turned = (*NUMBERS, FeatureSpec("c", "categorical", LEVELS[::-1]))
    frame = pl.from_pandas(TABLE)
    found = []
    for features in (ALL, turned):
        model = load_model(str(tmp_path / "model.cbm"), "auto", None, features)
        found.append(explainer_for(model).explain(model.encode(frame)))
    np.testing.assert_allclose(found[0].values, found[1].values, atol=1e-6)
    assert additivity_error(found[1]) < 1e-5
