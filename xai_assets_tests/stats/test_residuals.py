"""Changed relations: a planted one is named, its healthy twin is quiet."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from xai_assets.errors import StatisticsError
from xai_assets.records import Edges
from xai_assets.stats.cells import cell_numbers
from xai_assets.stats.edges import EdgeSketch, category_edges
from xai_assets.stats.residuals import (
    ResidualTable,
    accumulate_residuals,
    add_residuals,
    empty_residuals,
    label_scores,
)

NAMES = ("a", "twin_of_a", "b", "flag", "level", "noise")
SEGMENTS = ("overall", "s=x", "s=y")
ARRAYS = ("label_count", "residual_sum", "residual_squared_sum", "label_sum", "residual_abs_sum")


def _draw(rng: np.random.Generator, n: int) -> np.ndarray:
    x = rng.normal(size=(n, 6))
    x[:, 1] = 0.6 * x[:, 0] + 0.8 * x[:, 1]
    x[:, 3] = rng.random(n) < 0.3
    x[:, 4] = rng.integers(0, 4, n)
    x[rng.random(n) < 0.05, 2] = np.nan
    return x.astype(np.float32)


def _truth(x: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(np.nan_to_num(x) @ coefficients - 0.5)))


COEFFICIENTS = np.array([0.8, 0.4, 0.6, 0.7, 0.2, 0.0])


@pytest.fixture(scope="module")
def service() -> tuple:
    """A model trained on the reference relation, its edges, and residuals of 20,000 reference requests."""
    import xgboost

    rng = np.random.default_rng(0)
    x = _draw(rng, 20_000)
    y = (rng.random(20_000) < _truth(x, COEFFICIENTS)).astype(float)
    settings_ = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.2, "nthread": 1}
    booster = xgboost.train(settings_, xgboost.DMatrix(x, y), num_boost_round=60)
    sketch = EdgeSketch(NAMES)
    sketch.add(x)
    edges = tuple(category_edges(e.feature, 4) if e.feature == "level" else e for e in sketch.edges(20))

    def table(seed: int, n: int, coefficients: np.ndarray, inside: str = "overall") -> ResidualTable:
        rng = np.random.default_rng(seed)
        x = _draw(rng, n)
        codes = np.column_stack([np.zeros(n), 1 + (rng.random(n) < 0.4)]).astype(np.int32)
        changed = codes[:, 1] == SEGMENTS.index(inside) if inside != "overall" else np.ones(n, bool)
        p_true = np.where(changed, _truth(x, coefficients), _truth(x, COEFFICIENTS))
        y = (rng.random(n) < p_true).astype(float)
        outputs = booster.predict(xgboost.DMatrix(x)).astype(float)
        result = empty_residuals(SEGMENTS, edges)
        accumulate_residuals(result, edges, x, y, outputs, codes, is_classifier=True)
        return result

    return table, table(1, 40_000, COEFFICIENTS)


def _scores(reference: ResidualTable, current: ResidualTable, is_classifier: bool = True) -> dict:
    return label_scores({"production": reference}, {"production": current}, window_days=7, is_classifier=is_classifier)


def _column(scores: dict, name: str, segment: str) -> dict:
    inside = scores["segment"] == segment
    return dict(zip(scores["feature"][inside], scores[name][inside].tolist(), strict=True))


@pytest.mark.parametrize("position", [0, 2, 3, 4], ids=lambda j: NAMES[j])
@pytest.mark.parametrize("seed", [10, 11, 12])
def test_the_feature_whose_coefficient_changed_its_sign_comes_first(service: tuple, position: int, seed: int) -> None:
    table, reference = service
    coefficients = COEFFICIENTS.copy()
    coefficients[position] *= -1.0 if position != 4 else -3.0
    scores = _scores(reference, table(seed, 5_000, coefficients))
    z, shift = (_column(scores, name, "overall") for name in ("z_score", "residual_shift"))
    single = {f: v for f, v in z.items() if f != "*"}
    assert max(single, key=single.get) == NAMES[position]
    assert max((f for f in shift if f != "*"), key=shift.get) == NAMES[position]
    assert z[NAMES[position]] > 6
    assert shift[NAMES[position]] > 0.05


def test_without_change_nothing_stands_out(service: tuple) -> None:
    table, reference = service
    z = np.concatenate([_scores(reference, table(s, 3_000, COEFFICIENTS))["z_score"] for s in range(20, 60)])
    # 40 days × 3 segments × 7 rows: normal deviates, of mean 0 and deviation 1.
    assert abs(z.mean()) < 0.15
    assert 0.8 < z.std() < 1.2
    assert z.max() < 4.0


def test_a_change_of_the_whole_level_belongs_to_no_feature(service: tuple) -> None:
    table, reference = service
    now = table(70, 5_000, COEFFICIENTS)
    lifted = ResidualTable(
        now.segments,
        now.features,
        now.label_count,
        now.residual_sum + 0.1 * now.label_count,
        now.residual_squared_sum + 0.2 * now.residual_sum + 0.01 * now.label_count,
        now.label_sum,
        now.residual_abs_sum,
    )
    before, after = _scores(reference, now), _scores(reference, lifted)
    for feature in NAMES:
        assert _column(after, "z_score", "overall")[feature] == pytest.approx(
            _column(before, "z_score", "overall")[feature]
        )
    assert _column(after, "z_score", "overall")["*"] > 6
    assert _column(after, "residual_shift", "overall")["*"] == pytest.approx(0.1, abs=0.02)


def test_a_change_in_one_segment_shows_there_alone(service: tuple) -> None:
    table, reference = service
    coefficients = COEFFICIENTS.copy()
    coefficients[2] *= -1
    scores = _scores(reference, table(80, 8_000, coefficients, inside="s=y"))
    assert _column(scores, "z_score", "s=y")["b"] > 8
    assert abs(_column(scores, "z_score", "s=x")["b"]) < 3
    assert _column(scores, "residual_shift", "s=y")["b"] > 2 * _column(scores, "residual_shift", "overall")["b"]


def test_auc_and_labels() -> None:
    rng = np.random.default_rng(3)
    outputs = rng.integers(0, 20, 500) / 20 + 0.01
    labels = (rng.random(500) < outputs).astype(float)
    edges = (Edges("f", np.array([0.0, 1.0])),)
    now = empty_residuals(["overall"], edges)
    accumulate_residuals(now, edges, outputs[:, None], labels, outputs, np.zeros((500, 1), int), is_classifier=True)
    scores = _scores(now, now)
    assert _column(scores, "metric_value", "overall")["*"] == pytest.approx(roc_auc_score(labels, outputs))
    assert np.isnan(_column(scores, "metric_value", "overall")["f"])
    assert set(scores["label_count"]) == {500}
    assert set(scores["metric"]) == {"auc"}


def test_columns_are_those_of_the_table(service: tuple) -> None:
    from xai_assets.lake.tables import LABEL_SCORES

    _, reference = service
    scores = label_scores(
        {"production": reference, "experimental": reference},
        {"production": reference, "experimental": reference},
        window_days=7,
        is_classifier=True,
    )
    graded = {"severity", "rule", "threshold", "reference_hash"}
    assert set(scores) == set(LABEL_SCORES.schema) - graded
    assert {len(c) for c in scores.values()} == {2 * 3 * 7}
    assert scores["residual_shift"].max() == 0.0


def test_a_regression_has_an_error_and_a_shift_in_its_own_units() -> None:
    rng = np.random.default_rng(4)
    edges = (Edges("f", np.linspace(-3, 3, 21)), Edges("g", np.linspace(-3, 3, 21)))

    def table(n: int, slope: float) -> ResidualTable:
        x = rng.normal(size=(n, 2)).clip(-3, 3)
        y = 100 * slope * x[:, 0] + 50 * rng.normal(size=n)
        result = empty_residuals(["overall"], edges)
        accumulate_residuals(result, edges, x, y, 100 * x[:, 0], np.zeros((n, 1), int), is_classifier=False)
        return result

    scores = _scores(table(20_000, 1.0), table(3_000, 0.5), is_classifier=False)
    assert _column(scores, "residual_shift", "overall")["f"] == pytest.approx(50, rel=0.1)
    assert _column(scores, "z_score", "overall")["f"] > 6
    assert _column(scores, "z_score", "overall")["g"] < 4
    # Mean |N(0, 50)| = 50·√(2/π).
    assert _column(scores, "metric_reference", "overall")["*"] == pytest.approx(50 * np.sqrt(2 / np.pi), rel=0.02)
    assert set(scores["metric"]) == {"mae"}


def test_too_few_labels_are_no_number(service: tuple) -> None:
    table, reference = service
    scores = _scores(reference, table(90, 4, COEFFICIENTS))
    assert np.isnan(scores["z_score"]).all()
    nothing = ResidualTable(reference.segments, reference.features, *(getattr(reference, a) * 0 for a in ARRAYS))
    assert np.isnan(_scores(reference, nothing)["z_score"]).all()


def _naive(edges: tuple[Edges, ...], x: np.ndarray, y: np.ndarray, p: np.ndarray, codes: np.ndarray) -> ResidualTable:
    table = empty_residuals(SEGMENTS, edges)
    for i in range(len(y)):
        cells = [int(cell_numbers(e, x[i, j : j + 1])[0]) for j, e in enumerate(edges)]
        cells.append(min(int(p[i] * 20), 19))
        r = y[i] - p[i]
        for g in (g for g in codes[i] if g >= 0):
            for j, cell in enumerate(cells):
                for name, value in zip(ARRAYS, (1.0, r, r * r, y[i], abs(r)), strict=True):
                    getattr(table, name)[g, j, cell] += value
    return table


@given(st.integers(0, 2**32 - 1), st.integers(0, 80))
@settings(max_examples=25, deadline=None)
def test_sums_equal_their_twin_and_add(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    edges = (Edges("f", np.array([-1.0, 0.0, 1.0])), category_edges("g", 2), Edges("h", np.empty(0)))
    x = rng.choice([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0, np.nan], (n, 3))
    y, p = rng.integers(0, 2, n).astype(float), rng.choice([0.0, 0.04, 0.05, 0.5, 1.0], n)
    codes = np.column_stack([np.zeros(n), rng.integers(-1, 3, n)]).astype(int)
    codes[codes[:, 1] == 0, 1] = -1
    whole = empty_residuals(SEGMENTS, edges)
    accumulate_residuals(whole, edges, x, y, p, codes, is_classifier=True)
    half = empty_residuals(SEGMENTS[:2], edges), empty_residuals(SEGMENTS, edges)
    first = np.where(codes[: n // 2] == 2, -1, codes[: n // 2])
    accumulate_residuals(half[0], edges, x[: n // 2], y[: n // 2], p[: n // 2], first, is_classifier=True)
    accumulate_residuals(half[1], edges, x[n // 2 :], y[n // 2 :], p[n // 2 :], codes[n // 2 :], is_classifier=True)
    twin, total = _naive(edges, x, y, p, codes), add_residuals(*half)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(whole, name), getattr(twin, name), atol=1e-9)
        np.testing.assert_allclose(getattr(total, name)[:2], getattr(twin, name)[:2], atol=1e-9)


def test_refusals(service: tuple) -> None:
    _, reference = service
    edges = (Edges("f", np.array([0.0, 1.0])),)
    table = empty_residuals(["overall"], edges)
    x, y, codes = np.zeros((3, 1)), np.array([0.0, 1.0, 0.0]), np.zeros((3, 1), int)
    for labels, outputs, match in (
        (y, np.array([0.1, np.nan, 0.2]), "not finite"),
        (np.array([0.0, np.nan, 0.0]), y, "not finite"),
        (y, y + 0.5, "outside 0…1"),
        (y[:2], y, "do not fit"),
    ):
        with pytest.raises(StatisticsError, match=match):
            accumulate_residuals(table, edges, x, labels, outputs, codes, is_classifier=True)
    with pytest.raises(StatisticsError, match="segment codes"):
        accumulate_residuals(table, edges, x, y, y, codes + 1, is_classifier=True)
    with pytest.raises(StatisticsError, match="borders"):
        accumulate_residuals(table, (), x, y, y, codes, is_classifier=True)
    assert table.label_count.sum() == 0
    with pytest.raises(StatisticsError, match="roles do not fit"):
        label_scores({"production": table}, {}, window_days=1, is_classifier=True)
    with pytest.raises(StatisticsError, match="other features"):
        label_scores({"production": table}, {"production": reference}, window_days=1, is_classifier=True)
    with pytest.raises(StatisticsError, match="cannot be added"):
        add_residuals(table, reference)
