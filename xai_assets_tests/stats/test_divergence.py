import numpy as np
import pytest

from xai_assets.errors import StatisticsError
from xai_assets.records import Edges, HistogramBlock
from xai_assets.stats.divergence import summarize
from xai_assets.stats.histograms import accumulate, empty_block

EDGES = tuple(Edges(f, np.linspace(-3, 3, 7)) for f in ("old", "both", "new", "idle"))


def _blocks(
    production: np.ndarray, experimental: np.ndarray, weights: np.ndarray
) -> dict[tuple[str, str], HistogramBlock]:
    values = {"production": production, "experimental": experimental, "difference": experimental - production}
    codes = np.column_stack([np.zeros(len(weights)), np.arange(len(weights)) % 2 * 2 - 1]).astype(np.int32)
    blocks = {}
    for role, phi in values.items():
        blocks[role, "divergent"] = empty_block(["overall", "s=odd"], EDGES)
        accumulate(blocks[role, "divergent"], EDGES, phi, weights, codes)
    return blocks


@pytest.fixture(scope="module")
def values() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    production, experimental = rng.normal(size=(2, 500, 4))
    production[:, 2] = 0.0
    experimental[:, 0] = 0.0
    production[:, 3] = experimental[:, 3] = 0.0
    experimental[:, 1] = production[:, 1] + 2.5
    return production, experimental, rng.integers(1, 4, 500).astype(float)


def test_summary_equals_the_means_of_the_rows(values: tuple) -> None:
    production, experimental, weights = values
    rows = {r.feature: r for r in summarize(_blocks(*values))}
    delta = experimental - production
    for j, edges in enumerate(EDGES):
        row = rows[edges.feature]
        assert row.mean_difference == pytest.approx(np.average(delta[:, j], weights=weights))
        assert row.mean_abs_difference == pytest.approx(np.average(np.abs(delta[:, j]), weights=weights))
        assert row.production_importance == pytest.approx(np.average(np.abs(production[:, j]), weights=weights))
    assert sum(r.difference_share for r in rows.values()) == pytest.approx(1.0)


def test_the_difference_of_the_margins_is_the_sum_of_mean_differences(values: tuple) -> None:
    production, experimental, weights = values
    total = sum(r.mean_difference for r in summarize(_blocks(*values)))
    assert total == pytest.approx(np.average((experimental - production).sum(axis=1), weights=weights))


def test_newly_used_and_no_longer_used_stand_apart_from_the_largest_change(values: tuple) -> None:
    rows = summarize(_blocks(*values))
    assert rows[0].feature == "both"
    assert {r.feature: r.usage for r in rows} == {"new": "newly used", "old": "no longer used", "both": "", "idle": ""}


def test_a_segment(values: tuple) -> None:
    production, experimental, weights = values
    odd = slice(1, None, 2)
    (row,) = [r for r in summarize(_blocks(*values), segment="s=odd") if r.feature == "new"]
    expected = np.average((experimental - production)[odd, 2], weights=weights[odd])
    assert (row.segment, row.mean_difference) == ("s=odd", pytest.approx(expected))


def test_no_divergent_request_is_no_number() -> None:
    rows = summarize(_blocks(np.empty((0, 4)), np.empty((0, 4)), np.empty(0)))
    assert [r.feature for r in rows] == ["old", "both", "new", "idle"]
    assert all(np.isnan(r.mean_difference) and np.isnan(r.difference_share) and r.usage == "" for r in rows)


def test_refusals(values: tuple) -> None:
    blocks = _blocks(*values)
    with pytest.raises(StatisticsError, match="did you mean 's=odd'"):
        summarize(blocks, segment="s=odt")
    with pytest.raises(StatisticsError, match="population all"):
        summarize(blocks, "all")
