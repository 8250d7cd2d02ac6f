import time

import numpy as np
import pytest

from xai_assets.errors import StatisticsError
from xai_assets.records import Edges, HistogramBlock
from xai_assets.stats import drift
from xai_assets.stats.dispersion import Dispersion, evidence
from xai_assets.stats.edges import EdgeSketch, category_edges
from xai_assets.stats.histograms import accumulate, empty_block
from xai_assets.stats.homogeneity import comparison_size, homogeneity
from xai_assets.stats.scores import Normal, score_blocks

FEATURES = ("a", "b", "c")
SEGMENTS = ("overall", "s=x", "s=y")


def _values(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 3)).astype(np.float32) * np.array([1.0, 0.5, 0.1], np.float32)
    values[rng.random(n) < 0.05, 1] = np.nan
    codes = np.column_stack([np.zeros(n), 1 + (rng.random(n) < 0.3)]).astype(np.int32)
    return values, codes


def _edges(values: np.ndarray) -> tuple[Edges, ...]:
    sketch = EdgeSketch(FEATURES)
    sketch.add(values)
    return sketch.edges(20)


def _block(
    edges: tuple[Edges, ...], values: np.ndarray, codes: np.ndarray, weights: np.ndarray | None = None
) -> HistogramBlock:
    block = empty_block(SEGMENTS, edges)
    accumulate(block, edges, values, np.ones(len(values)) if weights is None else weights, codes)
    return block


@pytest.fixture(scope="module")
def reference() -> tuple[tuple[Edges, ...], HistogramBlock]:
    values, codes = _values(1, 30_000)
    edges = _edges(values)
    return edges, _block(edges, values, codes)


def _scores(
    reference: tuple[tuple[Edges, ...], HistogramBlock], block: HistogramBlock, role: str = "production"
) -> dict:
    edges, block_before = reference
    return score_blocks(block_before, block, edges, role=role, population="all", window_days=7)


def _row(scores: dict, segment: str, feature: str) -> dict:
    (at,) = np.flatnonzero((scores["segment"] == segment) & (scores["feature"] == feature))
    return {name: column[at] for name, column in scores.items()}


def test_columns_are_those_of_the_table(reference: tuple) -> None:
    from xai_assets.lake.tables import DRIFT_SCORES

    scores = _scores(reference, _block(reference[0], *_values(2, 1_000)))
    of_grading = {"severity", "rule", "effect", "effect_metric", "threshold", "reference_hash"}
    assert set(scores) == set(DRIFT_SCORES.schema) - of_grading
    assert {len(column) for column in scores.values()} == {len(SEGMENTS) * (len(FEATURES) + 1)}
    assert set(scores["window_days"]) == {7}
    assert set(scores["role"]) == {"production"}


def test_each_row_equals_the_metrics_computed_alone(reference: tuple) -> None:
    edges, before = reference
    weights = np.random.default_rng(3).choice([1.0, 4.0], 2_000)
    values, codes = _values(3, 2_000)
    values[:, 0] *= 1.4
    now = _block(edges, values, codes, weights)
    scores = _scores(reference, now)
    for g, segment in enumerate(SEGMENTS):
        inside = codes[:, 1] == g if g else np.ones(2_000, bool)
        n = weights[inside].sum() ** 2 / (weights[inside] ** 2).sum()
        for j, feature in enumerate(FEATURES):
            row, q, p = _row(scores, segment, feature), before.weight[g, j], now.weight[g, j]
            m = before.row_count[g, j].sum()
            size = {"n_effective_reference": m, "n_effective": n}
            phi = np.nan_to_num(values[inside, j].astype(float))
            assert row["row_count"] == inside.sum()
            assert row["n_effective"] == pytest.approx(n)
            assert row["n_effective_reference"] == pytest.approx(m)
            assert row["psi_nats"] == pytest.approx(float(drift.psi(q, p, **size)))
            assert row["psi_corrected_nats"] == pytest.approx(float(drift.psi_corrected(q, p, **size)))
            assert row["kullback_leibler_bits"] == pytest.approx(float(drift.kullback_leibler(q, p, **size)))
            for name in ("jensen_shannon", "kolmogorov_smirnov", "hellinger", "l_infinity"):
                assert row[name] == pytest.approx(float(getattr(drift, name)(q, p)))
            assert row["importance"] == pytest.approx((weights[inside] * np.abs(phi)).sum() / weights[inside].sum())
            missing = weights[inside][np.isnan(values[inside, j])].sum() / weights[inside].sum()
            assert row["missing_share"] == pytest.approx(missing)


def _normal(segments: int = len(SEGMENTS), features: int = len(FEATURES)) -> Normal:
    """A dispersion of its own for every segment and feature; the reference as if it were 28 days of equal size."""
    grid = 1.0 + np.arange(segments * features, dtype=np.float64).reshape(segments, features) / 4
    of = Dispersion(grid, grid / 10, np.full(grid.shape, 200.0), 3.0 + grid, 100.0 * grid)
    return Normal(of, np.linspace(1.0, 1 / 7, segments), np.full(segments, 1 / 28))


def test_evidence_is_that_of_its_pieces_computed_alone(reference: tuple) -> None:
    edges, before = reference
    weights = np.random.default_rng(3).choice([1.0, 4.0], 2_000)
    values, codes = _values(3, 2_000)
    values[:, 0] *= 1.4
    now, normal = _block(edges, values, codes, weights), _normal()
    scores = score_blocks(before, now, edges, role="production", population="all", window_days=7, normal=normal)
    for g, segment in enumerate(SEGMENTS):
        for j, feature in enumerate(FEATURES):
            row = _row(scores, segment, feature)
            n, m = row["n_effective"], row["n_effective_reference"]
            x2, freedom = homogeneity(before.weight[g, j], now.weight[g, j], n_effective_reference=m, n_effective=n)
            size = comparison_size(n, m, normal.day_share[g], normal.day_share_reference[g])
            fields = ("factor", "standard_error", "size", "freedom_window", "freedom_reference")
            alone = Dispersion(*(getattr(normal.dispersion, name)[g, j] for name in fields))
            assert row["evidence"] == pytest.approx(float(evidence(x2 / freedom, freedom, size, alone)))
            assert row["dispersion"] == pytest.approx(float(alone.at(size)))
        assert np.isnan(_row(scores, segment, "*")["evidence"])
    assert _row(scores, "overall", "a")["evidence"] > 3 > _row(scores, "overall", "c")["evidence"]


def test_without_a_calibration_there_is_no_evidence(reference: tuple) -> None:
    scores = _scores(reference, _block(reference[0], *_values(2, 1_000)))
    assert np.isnan(scores["evidence"]).all()
    assert np.isnan(scores["dispersion"]).all()


def test_a_segment_never_seen_in_the_reference_has_no_evidence(reference: tuple) -> None:
    edges, before = reference
    now = empty_block(["overall", "s=x", "s=new"], edges)
    values, codes = _values(9, 1_000)
    accumulate(now, edges, values, np.ones(1_000), codes)
    scores = score_blocks(before, now, edges, role="input", population="all", window_days=1, normal=_normal())
    assert list(dict.fromkeys(scores["segment"])) == ["overall", "s=x", "s=y", "s=new"]
    known = np.isin(scores["segment"], ["overall", "s=x"]) & (scores["feature"] != "*")
    assert np.isfinite(scores["evidence"][known]).all()
    for segment in ("s=new", "s=y"):  # nothing before, nothing now
        assert np.isnan(scores["evidence"][scores["segment"] == segment]).all()


@pytest.mark.parametrize("moved", [False, True])
def test_a_constant_feature_is_evidence_of_nothing_until_it_moves(moved: bool) -> None:
    rng, n = np.random.default_rng(2), 2_000
    values = np.column_stack([rng.normal(size=n), np.full(n, 3.0)])
    sketch = EdgeSketch(("a", "fixed"))
    sketch.add(values)
    edges = sketch.edges(20)
    before, now = empty_block(["overall"], edges), empty_block(["overall"], edges)
    accumulate(before, edges, values, np.ones(n), np.zeros((n, 1), np.int32))
    values[:, 1] += 2.0 * moved
    accumulate(now, edges, values, np.ones(n), np.zeros((n, 1), np.int32))
    scores = score_blocks(before, now, edges, role="input", population="all", window_days=1, normal=_normal(1, 2))
    row = _row(scores, "overall", "fixed")
    assert not row["is_constant"]
    assert row["outside_share"] == float(moved)
    if moved:
        assert row["evidence"] > 50
        assert row["psi_corrected_nats"] > 1
    else:
        assert np.nan_to_num(row["evidence"]) == 0.0
        assert row["psi_corrected_nats"] == 0.0


@pytest.mark.parametrize("side", ["window", "reference", "both"])
def test_all_weights_zero_are_no_evidence_and_no_warning(reference: tuple, side: str) -> None:
    edges, before = reference
    full, nothing = _block(edges, *_values(2, 1_000)), empty_block(SEGMENTS, edges)
    q, p = (nothing if side != "window" else before), (nothing if side != "reference" else full)
    scores = score_blocks(q, p, edges, role="production", population="all", window_days=1, normal=_normal())
    for name in ("evidence", "psi_corrected_nats", "importance_ratio"):
        assert np.isnan(scores[name]).all()
    assert not scores["is_constant"].any()


def test_importances_of_a_segment(reference: tuple) -> None:
    values, codes = _values(4, 5_000)
    values[:, 2] *= 8
    scores = _scores(reference, _block(reference[0], values, codes))
    row, before = _row(scores, "overall", "c"), reference[1]
    assert row["importance_ratio"] == pytest.approx(8, rel=0.05)
    assert row["importance_reference"] == pytest.approx(before.abs_sum[0, 2] / 30_000)
    # The larger of the two shares: now 0.8 of (0.8 + 0.475 + 0.64)·0.8, before 0.05.
    now = [float(_row(scores, "overall", f)["importance"]) for f in FEATURES]
    assert row["importance_share"] == pytest.approx(now[2] / sum(now))
    calm = _row(scores, "overall", "a")
    assert calm["importance_share"] == pytest.approx(before.abs_sum[0, 0] / before.abs_sum[0].sum())
    expected = drift.ndcg(before.abs_sum[0] / 30_000, np.array(now))
    assert _row(scores, "overall", "*")["ndcg"] == pytest.approx(float(expected))
    assert np.isnan(_row(scores, "overall", "a")["ndcg"])
    assert np.isnan(_row(scores, "overall", "*")["psi_nats"])


def test_a_shift_in_one_segment_is_not_in_its_complement(reference: tuple) -> None:
    values, codes = _values(5, 5_000)
    values[codes[:, 1] == 2, 0] += 2
    scores = _scores(reference, _block(reference[0], values, codes))
    there, elsewhere = _row(scores, "s=y", "a"), _row(scores, "s=x", "a")
    assert there["psi_corrected_nats"] > 2
    assert abs(there["psi_complement_nats"]) < 0.01
    assert elsewhere["psi_complement_nats"] == pytest.approx(there["psi_corrected_nats"])
    assert np.isnan(_row(scores, "overall", "a")["psi_complement_nats"])


def test_without_drift_nothing_scores(reference: tuple) -> None:
    scores = _scores(reference, _block(reference[0], *_values(6, 5_000)))
    features = scores["feature"] != "*"
    assert np.nanmax(np.abs(scores["psi_corrected_nats"][features])) < 0.02
    assert np.nanmin(scores["ndcg"][~features]) > 0.999
    assert not scores["is_constant"].any()


def test_wasserstein_is_the_shift_even_inside_the_cells(reference: tuple) -> None:
    values, codes = _values(1, 30_000)
    for shift in (0.003, 0.7):
        scores = _scores(reference, _block(reference[0], values + np.float32(shift), codes))
        assert _row(scores, "overall", "a")["wasserstein"] == pytest.approx(shift, rel=0.1)
        # Nulls have no place on the axis and must not be put at 0.
        assert _row(scores, "overall", "b")["wasserstein"] == pytest.approx(shift, rel=0.1)


def test_broken_inputs() -> None:
    rng = np.random.default_rng(7)
    n = 4_000
    edges = (*_edges(rng.normal(size=(n, 3))), category_edges("k", 3))

    def block(values: np.ndarray) -> HistogramBlock:
        result = empty_block(SEGMENTS, edges)
        accumulate(result, edges, values, np.ones(n), np.zeros((n, 1), np.int32))
        return result

    normal = rng.normal(size=(n, 4))
    normal[:, 3] = rng.integers(0, 3, n)
    broken = normal.copy()
    broken[: n // 2, 0] = np.nan
    broken[: n // 4, 1] *= 1_000
    broken[:, 2] = 0.5
    broken[: n // 5, 3] = 3
    scores = score_blocks(block(normal), block(broken), edges, role="input", population="all", window_days=1)
    assert _row(scores, "overall", "a")["missing_share"] == 0.5
    assert _row(scores, "overall", "a")["missing_share_reference"] == 0.0
    assert _row(scores, "overall", "b")["outside_share"] == pytest.approx(0.25, abs=0.01)
    assert _row(scores, "overall", "c")["is_constant"]
    assert _row(scores, "overall", "k")["outside_share"] == pytest.approx(0.2)
    assert not _row(scores, "overall", "a")["is_constant"]
    assert _row(scores, "overall", "c")["importance"] == pytest.approx(0.5)
    assert _row(scores, "overall", "a")["importance"] == pytest.approx(np.nanmean(broken[:, 0]), rel=1e-6)
    assert np.isnan(_row(scores, "overall", "a")["importance_share"])
    assert np.isnan(_row(scores, "overall", "*")["ndcg"])


def test_a_rare_flag_that_is_not_set_today_is_not_stuck() -> None:
    edges = (Edges("flag", np.array([0.0, 1.0, 1.0])),)
    before, now = empty_block(["overall"], edges), empty_block(["overall"], edges)
    rare = (np.arange(20_000) % 1_000 == 0).astype(float)[:, None]
    accumulate(before, edges, rare, np.ones(20_000), np.zeros((20_000, 1), np.int32))
    accumulate(now, edges, np.zeros((300, 1)), np.ones(300), np.zeros((300, 1), np.int32))
    few = score_blocks(before, now, edges, role="input", population="all", window_days=1)
    assert not few["is_constant"].any()
    accumulate(now, edges, np.zeros((20_000, 1)), np.ones(20_000), np.zeros((20_000, 1), np.int32))
    many = score_blocks(before, now, edges, role="input", population="all", window_days=1)
    assert many["is_constant"][0]


def test_values_that_are_not_finite_do_not_break_the_mean_of_inputs(reference: tuple) -> None:
    values, codes = _values(8, 1_000)
    values[:10, 0] = np.inf
    scores = _scores(reference, _block(reference[0], values, codes), role="input")
    assert _row(scores, "overall", "a")["outside_share"] >= 0.01
    assert np.isfinite(_row(scores, "overall", "a")["importance"])


def test_segments_known_to_one_side_only(reference: tuple) -> None:
    edges, before = reference
    now = empty_block(["overall", "s=x", "s=new"], edges)
    values, codes = _values(9, 1_000)
    accumulate(now, edges, values, np.ones(1_000), codes)
    scores = score_blocks(before, now, edges, role="production", population="all", window_days=1)
    assert list(dict.fromkeys(scores["segment"])) == ["overall", "s=x", "s=y", "s=new"]
    gone, new = _row(scores, "s=y", "a"), _row(scores, "s=new", "a")
    assert (gone["n_effective"], gone["row_count"]) == (0, 0)
    assert new["n_effective_reference"] == 0
    assert np.isnan(gone["psi_nats"])
    assert np.isnan(new["psi_corrected_nats"])


def test_an_empty_window(reference: tuple) -> None:
    scores = _scores(reference, empty_block(SEGMENTS, reference[0]))
    assert set(scores["n_effective"]) == {0.0}
    assert np.isnan(scores["psi_corrected_nats"]).all()


def test_features_in_another_order_give_the_same_rows(reference: tuple) -> None:
    edges, _ = reference
    values, codes = _values(10, 2_000)
    order = [2, 0, 1]
    other_edges = tuple(edges[j] for j in order)
    reference_values, reference_codes = _values(1, 30_000)
    other = score_blocks(
        _block(other_edges, reference_values[:, order], reference_codes),
        _block(other_edges, values[:, order], codes),
        other_edges,
        role="production",
        population="all",
        window_days=7,
    )
    same = _scores(reference, _block(edges, values, codes))
    for segment in SEGMENTS:
        for feature in (*FEATURES, "*"):
            a, b = _row(same, segment, feature), _row(other, segment, feature)
            for name in a:
                if isinstance(a[name], float):
                    assert a[name] == pytest.approx(b[name], nan_ok=True, abs=1e-12)


def test_refusals(reference: tuple) -> None:
    edges, before = reference
    with pytest.raises(StatisticsError, match="different features"):
        score_blocks(before, empty_block(SEGMENTS, edges[:2]), edges, role="x", population="all", window_days=1)
    coarse = (edges[0], edges[1], Edges("c", np.linspace(-1, 1, 40)))
    with pytest.raises(StatisticsError, match="different cells"):
        score_blocks(before, empty_block(SEGMENTS, coarse), edges, role="x", population="all", window_days=1)


def test_fifty_features_in_twenty_segments_take_well_under_a_second() -> None:
    rng = np.random.default_rng(0)
    edges = tuple(Edges(f"f{j}", np.linspace(-1, 1, 21)) for j in range(50))
    before, now = (empty_block([f"s={i}" for i in range(19)] + ["overall"], edges) for _ in range(2))
    for block in (before, now):
        block.weight[:] = block.row_count[:] = block.weight_squared[:] = rng.integers(0, 500, block.weight.shape)
    score_blocks(before, now, edges, role="production", population="all", window_days=1)
    started = time.perf_counter()
    for window in (1, 7, 28):
        for role in ("production", "experimental"):
            score_blocks(before, now, edges, role=role, population="all", window_days=window)
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_one_value_inside_a_wide_cell_is_stuck(missing: float) -> None:
    """A segment whose values all lie in one wide cell of the borders: only the moments tell that they are stuck."""
    rng, n = np.random.default_rng(11), 2_000
    edges = (Edges("x", np.array([0.0, 100.0, 200.0, 300.0])),)

    def block(values: np.ndarray) -> HistogramBlock:
        found = empty_block(["overall"], edges)
        values = np.where(rng.random(len(values)) < missing, np.nan, values).astype(np.float32)[:, None]
        accumulate(found, edges, values, np.ones(len(values)), np.zeros((len(values), 1), np.int32))
        return found

    def is_stuck(before: np.ndarray, now: np.ndarray) -> bool:
        scores = score_blocks(block(before), block(now), edges, role="input", population="all", window_days=1)
        return bool(scores["is_constant"][0])

    varied, elsewhere = rng.uniform(110, 190, n), rng.uniform(0, 300, n)
    assert is_stuck(varied, np.full(n, 137.7))
    assert is_stuck(elsewhere, np.full(n, 137.7))
    assert not is_stuck(varied, np.full(20, 137.7)), "a few equal values are no proof"
    assert not is_stuck(varied, rng.uniform(137, 138, n)), "narrow, but not one value"
    assert not is_stuck(np.full(n, 137.7), np.full(n, 137.7)), "it was so in the reference"
    nearly = np.where(np.arange(n) % 200 == 0, 150.0, 137.7)
    assert not is_stuck(nearly, np.full(n, 137.7)), "nearly all of the reference has that value"
