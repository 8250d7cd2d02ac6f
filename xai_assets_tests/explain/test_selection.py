"""Which explainer a model gets, and that it is built once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from xai_assets.errors import ModelError
from xai_assets.explain import METHODS, choose_method, explainer_for
from xai_assets.explain.cache import BuildOnce
from xai_assets.explain.selection import EXPLAINERS_KEPT

X = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def booster(rounds: int = 3, **parameters):
    depth = {} if parameters.get("booster") == "gblinear" else {"max_depth": 2}
    return xgboost.train({**depth, "nthread": 1, **parameters}, xgboost.DMatrix(X, Y), rounds)


def test_auto_goes_by_the_model(of_booster, of_sklearn, of_function):
    assert choose_method(of_booster(booster())) == "treeshap"
    assert choose_method(of_booster(booster(booster="dart"))) == "treeshap"
    assert choose_method(of_booster(booster(booster="gblinear"))) == "linear"
    assert choose_method(of_sklearn(LogisticRegression().fit(X, Y))) == "linear"
    assert choose_method(of_sklearn(RandomForestClassifier(3).fit(X, Y))) == "treeshap"
    assert choose_method(of_sklearn(GaussianNB().fit(X, Y))) == "permutation"
    assert choose_method(of_function(lambda Z: Z.sum(1), 3, "onnx")) == "permutation"
    assert choose_method(of_function(lambda Z: Z.sum(1), 3, "callable")) == "permutation"
    assert choose_method(of_function(lambda Z: Z.sum(1), 3, "torch")) == "integrated_gradients"


def test_a_method_that_is_asked_for_is_taken(of_booster):
    assert choose_method(of_booster(booster()), "permutation") == "permutation"
    assert explainer_for(of_booster(booster()), method="library").id == "xgboost_exact"
    with pytest.raises(ModelError, match=r"no explainer 'permutations'.*did you mean 'permutation'"):
        choose_method(of_booster(booster()), "permutations")


def test_a_method_that_does_not_fit_the_model_is_refused(of_booster, of_function):
    with pytest.raises(ModelError, match="no closed form"):
        explainer_for(of_booster(booster()), method="linear", background=X)
    with pytest.raises(ModelError, match="linear"):
        explainer_for(of_booster(booster(booster="gblinear")), method="treeshap")
    with pytest.raises(ModelError, match="has no trees"):
        explainer_for(of_function(lambda Z: Z.sum(1), 3), method="treeshap")
    with pytest.raises(ModelError, match="gives no attributions"):
        explainer_for(of_function(lambda Z: Z.sum(1), 3), method="library")


@pytest.mark.parametrize("method", [m.name for m in METHODS.values() if m.needs_background and m.name != "lime"])
def test_no_background(of_booster, of_function, method):
    model = of_booster(booster(booster="gblinear" if method == "linear" else "gbtree"))
    if method == "integrated_gradients":
        pytest.importorskip("captum")
    for background in (None, X[:0]):
        with pytest.raises(ModelError, match="a background is needed"):
            explainer_for(model, method=method, background=background)
    if method != "integrated_gradients":
        with pytest.raises(ModelError, match="does not fit"):
            explainer_for(model, method=method, background=np.ascontiguousarray(X[:, :2]))


@pytest.mark.parametrize("method", [m.name for m in METHODS.values() if m.needs_background and m.name != "lime"])
@pytest.mark.parametrize(
    "bad, found", [([[0.0] * 3], "list"), (7, "int"), (np.zeros((1, 3)), r"float64 \[1, 3\]"), (X.astype(str), "<U")]
)
def test_a_background_that_is_no_float32_matrix(of_booster, method, bad, found):
    model = of_booster(booster(booster="gblinear" if method == "linear" else "gbtree"))
    with pytest.raises(ModelError, match=f"only a float32 matrix.*{found}"):
        explainer_for(model, method=method, background=bad)


def test_a_value_near_the_largest_float_is_finite(of_booster):
    huge = np.full((4, 3), np.finfo(np.float32).max)
    huge[0, 0] = np.nan
    assert explainer_for(of_booster(booster())).explain(huge).values.shape == (4, 3)


def test_the_same_artifact_is_built_once_and_a_changed_one_anew(of_booster):
    first = explainer_for(of_booster(booster()))
    assert explainer_for(of_booster(booster())) is first  # another object of the same bytes
    assert explainer_for(of_booster(booster(rounds=4))) is not first
    assert explainer_for(of_booster(booster()), seed=7) is first  # nothing is drawn
    assert explainer_for(of_booster(booster()), background=X[:5]) is first  # nothing is compared


def test_background_and_seed_make_another_explainer_where_they_matter(of_function):
    model = of_function(lambda Z: Z.sum(1), 3)
    first = explainer_for(model, background=X[:5])
    assert explainer_for(model, background=X[:5].copy()) is first
    others = [explainer_for(model, background=X[:6]), explainer_for(model, background=X[:5], seed=1)]
    assert len({id(e) for e in (first, *others)}) == 3
    assert [e.seed for e in (first, *others)] == [0, 0, 1]
    assert first.background_hash == others[1].background_hash != others[0].background_hash


def test_only_so_many_explainers_are_kept(of_function):
    models = [of_function(lambda Z: Z.sum(1), 3) for _ in range(EXPLAINERS_KEPT + 1)]
    made = [explainer_for(m, background=X[:5]) for m in models]
    assert explainer_for(models[-1], background=X[:5]) is made[-1]
    assert explainer_for(models[0], background=X[:5]) is not made[0]


def test_threads_that_ask_at_once_wait_for_one_build():
    kept: BuildOnce[object] = BuildOnce(2)
    started, go = threading.Event(), threading.Event()

    def build() -> object:
        started.set()
        assert go.wait(10)
        return object()

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(kept.get, "one", build) for _ in range(4)]
        assert started.wait(10)
        assert kept.get("two", lambda: "side by side") == "side by side"
        go.set()
        assert len({id(f.result(10)) for f in found}) == 1
    assert kept.builds == 2


def test_a_build_that_fails_is_tried_again():
    kept: BuildOnce[int] = BuildOnce(2)
    with pytest.raises(ZeroDivisionError):
        kept.get("one", lambda: 1 // 0)
    assert kept.get("one", lambda: 1) == 1
    kept.clear()
    assert len(kept) == 0


@pytest.mark.parametrize("method", list(METHODS))
def test_what_is_known_before_is_what_is_built(of_booster, of_function, method):
    if method in ("integrated_gradients", "lime"):
        pytest.skip("tested with their extras")
    known = METHODS[method]
    model = of_booster(booster(booster="gblinear" if method == "linear" else "gbtree"))
    built = explainer_for(model, method=method, background=X[:9])
    assert built.is_fast == known.is_fast
    assert (built.background_hash is not None) == known.needs_background
    assert (built.seed is not None) == known.draws
    assert built.version == known.full_version(model)


# ---------------------------------------------------------------- what no explainer takes


@pytest.mark.parametrize("method", ["treeshap", "treeshap_interventional", "library", "linear", "permutation"])
@pytest.mark.parametrize(
    "bad, message",
    [
        (X[:, :2], r"\[n, 3\] in the order f0, f1, f2.*\[120, 2\]"),
        (np.hstack([X, X]), r"\[120, 6\]"),
        (X[0], r"\[3\]"),
        (X.astype(np.float64), "only a float32 matrix.*float64"),
        (X.astype(np.int32), "only a float32 matrix.*int32"),
        (X.astype(object), "only a float32 matrix.*object"),
        (X.astype(str), "only a float32 matrix.*<U"),
        (X.tolist(), "only a float32 matrix.*list"),
        (np.where(X > 2, np.float32(np.inf), X), "infinite values of feature 'f[0-2]'"),
        (np.where(X > 2, np.float32(-np.inf), np.float32(np.nan)), "infinite values of feature 'f[0-2]'"),
    ],
)
def test_bad_matrices(of_booster, method, bad, message):
    model = of_booster(booster(booster="gblinear" if method == "linear" else "gbtree"))
    explainer = explainer_for(model, method=method, background=X[:9])
    with pytest.raises(ModelError, match=message):
        explainer.explain(bad)
    nothing = explainer.explain(X[:0])
    assert (nothing.values.shape, nothing.base_value.shape, nothing.margin.shape) == ((0, 3), (0,), (0,))
