"""CatBoost's own raw values on models and rows made to be awkward; one-hot splits; refusals; damaged files."""

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.ensemble import MAX_TREES, TreeEnsemble
from xai_assets.explain.treeshap.margin import predict_margin
from xai_assets.explain.treeshap.readers.catboost import read
from xai_assets.explain.treeshap.readers.cityhash import category_hash

PLAIN = {"iterations": 4, "depth": 3, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
NAMES = ["amount", "age", "home"]


def data(rng: np.random.Generator, rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    X = np.stack([rng.normal(size=rows), rng.normal(size=rows), rng.integers(0, 6, rows)], 1)
    return X, X[:, 0] * (X[:, 1] > 0) + 2.0 * (X[:, 2] % 3 == 1)


def raw(model: Any, rows: Any) -> np.ndarray:
    return np.asarray(model.predict(rows, prediction_type="RawFormulaVal"))


def frame(X: np.ndarray, levels: list[str] | None = None) -> pd.DataFrame:
    """The matrix with its last column as CatBoost wants categories: whole numbers, or texts."""
    found = pd.DataFrame(X, columns=NAMES)
    codes = found["home"].astype(int)
    found["home"] = codes if levels is None else [levels[code] for code in codes]
    return found


def one_hot(X: np.ndarray, y: np.ndarray, levels: list[str] | None = None, **more: Any) -> Any:
    model = catboost.CatBoostRegressor(**{**PLAIN, "one_hot_max_size": 50, **more})
    return model.fit(frame(X, levels), y, cat_features=["home"])


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise", "Lossguide"])
@pytest.mark.parametrize("nan_mode", ["Min", "Max"])
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1))
def test_margin_is_catboosts_own(
    policy: str, nan_mode: str, seed: int, edge_rows: Callable[..., np.ndarray], check_reading: Callable[..., None]
) -> None:
    rng = np.random.default_rng(seed)
    X, y = data(rng)
    X[rng.random(len(X)) < 0.2, 0] = np.nan  # the other columns have none, so NaN is "AsIs" there
    plain = {**PLAIN, "grow_policy": policy, "nan_mode": nan_mode, "random_seed": seed % 1000}
    fitted = [
        catboost.CatBoostRegressor(**plain).fit(X, y),
        catboost.CatBoostClassifier(**plain).fit(X, y > 0.5, sample_weight=rng.uniform(0.1, 2, len(y))),
        catboost.CatBoostClassifier(**plain).fit(X, rng.integers(0, 3, len(y))),
        catboost.CatBoostRegressor(**plain, loss_function="MultiRMSE").fit(X, np.stack([y, -y], 1)),
    ]
    for model in fitted:
        ensemble = read(model)
        rows = edge_rows(ensemble, rng, infinite=True)
        check_reading(ensemble, rows, raw(model, rows))


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise"])
def test_one_hot_splits_on_whole_numbers(policy: str, check_reading: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    X, y = data(rng)
    X[:, 2] *= 1111  # hashes of texts with one and with four digits are made in different ways
    model = one_hot(X, y, grow_policy=policy)
    ensemble = read(model)
    assert (ensemble.category_set >= 0).any()
    rows = X.copy()
    rows[:, 2] = rng.choice([*X[:20, 2], -1, -1111, 1, 31, 32, 6666, 10**6, 10**9], len(X))
    check_reading(ensemble, rows, raw(model, frame(rows)))


def test_one_hot_splits_on_texts(check_reading: Callable[..., None]) -> None:
    """Texts of 1 to 60 bytes go through every branch of the hash; the text "nan" stands for missing values."""
    rng = np.random.default_rng(1)
    texts = [
        "".join(rng.choice(list("abcdefgh _é"), size)) for size in (1, 2, 3, 4, 7, 8, 9, 15, 17, 25, 31, 33, 45, 58)
    ]
    assert max(len(text.encode()) for text in texts) <= 64
    levels = [*texts, "nan"]
    codes = rng.integers(0, len(levels), 2000)
    X = np.stack([rng.normal(size=2000), np.zeros(2000), codes], 1)
    model = one_hot(X, rng.normal(size=len(levels))[codes] * 3, levels, iterations=60)
    X[:, 2] = np.where(codes == len(texts), np.nan, codes)
    expected = raw(model, frame(np.nan_to_num(X, nan=len(texts)), levels))
    for named in ({"home": texts}, {2: texts}, {"home": levels}):
        ensemble = read(model, levels=named)
        assert len(np.unique(ensemble.category_words)) >= len(texts)  # all levels but few are split on
        check_reading(ensemble, X, expected)
    X[:, 2] = len(levels) + 5
    unknown = pd.DataFrame(X, columns=NAMES).assign(home="never seen")
    check_reading(ensemble, X, raw(model, unknown))
    with pytest.raises(ModelError, match=r"splits feature 'home' on a category.*give the feature's levels"):
        read(model)
    with pytest.raises(ModelError, match="splits feature 'home' on a category"):
        read(model, levels={"home": texts[:3]})


def test_category_hash() -> None:
    """As CatBoost 1.2.10 exports the categories 0 … 3 of a column (`categorical_features.values`, as signed)."""
    exported = {-1438285038, -1284790409, 593172586, 1121341681}
    assert {category_hash(str(code)) for code in range(4)} == {value & 0xFFFFFFFF for value in exported}
    assert category_hash("x" * 65) is None


def test_covers_are_those_of_catboosts_own_attributions() -> None:
    """By definition, path-dependent: they depend on which split of an oblivious tree is the root."""
    rng = np.random.default_rng(2)
    X, y = data(rng)
    X[:, 1] += X[:, 0]
    model = catboost.CatBoostRegressor(**PLAIN).fit(X, y)
    ensemble = read(model)

    def expected(node: int, x: np.ndarray, known: tuple[int, ...]) -> float:
        left, right = ensemble.left[node], ensemble.right[node]
        if left < 0:
            return float(ensemble.value[node])
        if ensemble.feature[node] in known:
            goes_left = np.float32(x[ensemble.feature[node]]) < ensemble.threshold[node]
            return expected(left if goes_left else right, x, known)
        weights = ensemble.cover[[left, right]]
        if weights.sum() == 0:
            return 0.0
        return float(np.average([expected(left, x, known), expected(right, x, known)], weights=weights))

    for x in X[:4]:
        subsets = [s for size in range(4) for s in itertools.combinations(range(3), size)]
        game = {s: sum(expected(root, x, s) for root in ensemble.tree_starts[:-1]) for s in subsets}
        phi = np.zeros(4)
        phi[3] = game[()] + ensemble.base_score[0]
        for feature, s in itertools.product(range(3), subsets):
            if feature not in s:
                share = math.factorial(len(s)) * math.factorial(2 - len(s)) / math.factorial(3)
                phi[feature] += share * (game[tuple(sorted((*s, feature)))] - game[s])
        pool = catboost.Pool(x[None])
        own = model.get_feature_importance(pool, type="ShapValues", shap_calc_type="Regular")
        np.testing.assert_allclose(phi, own[0], atol=1e-9)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catboost")
    X, y = data(np.random.default_rng(0))
    model = catboost.CatBoostRegressor(**PLAIN).fit(pd.DataFrame(X, columns=NAMES), y)
    model.save_model(str(folder / "model.cbm"))
    model.save_model(str(folder / "model.json"), format="json")
    statistics = one_hot(X, y, one_hot_max_size=2)
    statistics.save_model(str(folder / "statistics.cbm"))
    return folder


def test_everything_a_model_can_be_given_as(files: Path) -> None:
    X, _ = data(np.random.default_rng(3))
    model = catboost.CatBoost().load_model(str(files / "model.cbm"))
    cbm, exported = files / "model.cbm", files / "model.json"
    for given_as in (model, cbm, str(exported), cbm.read_bytes(), exported.read_bytes()):
        ensemble = TreeEnsemble.from_catboost(given_as)
        np.testing.assert_allclose(predict_margin(ensemble, X)[:, 0], raw(model, X), atol=1e-12)
        assert ensemble.feature_names == tuple(NAMES)
        assert ensemble.source == f"catboost {catboost.__version__}"
    assert read(catboost.CatBoostRegressor(**PLAIN).fit(X, X[:, 0])).feature_names in ((), ("0", "1", "2"))


def test_a_json_file_is_read_without_the_library(files: Path) -> None:
    program = (
        "import sys\n"
        "from xai_assets.explain.treeshap.readers.catboost import read\n"
        f"assert read({str(files / 'model.json')!r}).n_trees == 4\n"
        "assert 'catboost' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# ---------------------------------------------------------------- bad input


def test_target_statistics_are_refused_naming_the_feature(files: Path) -> None:
    for given_as in (files / "statistics.cbm", catboost.CatBoost().load_model(str(files / "statistics.cbm"))):
        with pytest.raises(ModelError, match=r"target statistics of categories: home.*one_hot_max_size"):
            read(given_as)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("name", ["model.cbm", "model.json"])
def test_truncated_files(files: Path, name: str, share: float) -> None:
    content = (files / name).read_bytes()
    with pytest.raises(ModelError, match=r"damaged|empty|not a CatBoost model"):
        read(content[: int(len(content) * share)])


def test_a_file_cut_in_its_tables_does_not_end_the_process(files: Path) -> None:
    """CatBoost itself dies of it: the tables of target statistics are read before they are checked."""
    content = (files / "statistics.cbm").read_bytes()
    core = 8 + int.from_bytes(content[4:8], "little")
    assert core < len(content) - 40
    with pytest.raises(ModelError, match="damaged"):
        read(content[: len(content) - 30])


def document(files: Path) -> Any:
    return json.loads((files / "model.json").read_bytes())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: d.pop("features_info"), "no part 'features_info'"),
        (lambda d: d.pop("scale_and_bias"), "no part 'scale_and_bias'"),
        (lambda d: d["oblivious_trees"][0]["leaf_values"].pop(), "leaf values and 4 weights"),
        (lambda d: d["oblivious_trees"][0].pop("leaf_weights"), "no weights of its leaves"),
        (lambda d: d["oblivious_trees"][0]["leaf_weights"].__setitem__(0, -1), "negative"),
        (lambda d: d["oblivious_trees"][0]["leaf_values"].__setitem__(0, float("nan")), "not finite"),
        (lambda d: d["oblivious_trees"][0]["splits"][0].update(float_feature_index=9), "no part 9"),
        (lambda d: d["oblivious_trees"][0]["splits"][0].update(split_type="TextFeature"), "TextFeature"),
        (lambda d: d["oblivious_trees"][0]["splits"][0].update(border="x"), "could not convert"),
        (lambda d: d["oblivious_trees"][0].update(splits=d["oblivious_trees"][0]["splits"] * 9), "depth 18"),
        (lambda d: d["features_info"]["float_features"][0].update(flat_feature_index=7), "positions are not"),
        (lambda d: d["features_info"]["float_features"][0].update(nan_value_treatment="AsNew"), "treatment"),
        (lambda d: d.update(scale_and_bias=[1, [0.1, 0.2]]), "2 biases for 1 outputs"),
        (lambda d: d.update(oblivious_trees=[]), "has no trees"),
        (lambda d: d.pop("oblivious_trees"), "has no trees"),
        (lambda d: d.update(oblivious_trees=d["oblivious_trees"][:1] * (MAX_TREES + 1)), f"at most {MAX_TREES}"),
    ],
)
def test_damaged_parts_are_named(files: Path, change: Any, found: str) -> None:
    twin = document(files)
    assert read(json.dumps(twin).encode()).n_trees == 4
    change(twin)
    with pytest.raises(ModelError, match=found):
        read(json.dumps(twin).encode())


@pytest.mark.parametrize("model", [None, 3, object(), np.zeros(3)])
def test_other_objects(model: Any) -> None:
    with pytest.raises(ModelError, match="not a model that can be read"):
        read(model)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "model.cbm").write_bytes(b"\x80\x04 not a model")
    (tmp_path / "list.json").write_text('{"a": [1]}')
    with pytest.raises(ModelError, match="not a CatBoost model"):
        read(tmp_path / "model.cbm")
    with pytest.raises(ModelError, match="no part 'features_info'"):
        read(tmp_path / "list.json")
    with pytest.raises(ModelError, match="does not exist"):
        read(tmp_path / "missing.cbm")
    with pytest.raises(ModelError, match="not fitted"):
        read(catboost.CatBoostClassifier())
