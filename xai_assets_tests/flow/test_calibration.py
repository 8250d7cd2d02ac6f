"""Days in, graded scores out: what short, empty, constant and foreign references make of a day's judgement."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import reduce
from typing import Any

import numpy as np
import polars as pl
import pytest

from xai_assets.config import DriftConfig, MonitorConfig
from xai_assets.errors import LakeError, ProvenanceError
from xai_assets.flow.calibration import calibrate_days, load_calibration
from xai_assets.flow.histograms import Profile
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.scoring import Columns, score_windows, window_of
from xai_assets.lake.histogram_rows import Blocks
from xai_assets.lake.store import Lake
from xai_assets.lake.tables import DRIFT_CALIBRATION, DRIFT_SCORES
from xai_assets.records import MODEL_ROLES, POPULATIONS, ROLES, Edges, severity_rank
from xai_assets.stats.calibration import Calibration
from xai_assets.stats.histograms import accumulate, add_blocks, empty_block

FIRST = date(2025, 1, 6)
FEATURES = ("a", "b", "fixed")
SEGMENTS = ("overall", "s=x", "s=y", "s=new")
"""No request of the reference is in the last one."""
EDGES = (Edges("a", np.linspace(-3, 3, 11)), Edges("b", np.linspace(-3, 3, 11)), Edges("fixed", np.array([1.0, 1.0])))
DRIFT = DriftConfig(windows_days=(1, 7))
NEW = SEGMENTS.index("s=new")


def blocks(seed: int, *, weight: float = 1.0, shift: float = 0.0, fixed: float = 1.0, new: bool = False) -> Blocks:
    """A day of 600 requests; every role sees the same values. shift: of feature `b`."""
    rng = np.random.default_rng([8, seed])
    values = np.column_stack([rng.normal(size=600), rng.normal(size=600) + shift, np.full(600, fixed)])
    segment = rng.integers(1, 3, 600) if not new else np.full(600, NEW)
    codes = np.column_stack([np.zeros(600), segment]).astype(np.int32)
    block = empty_block(SEGMENTS, EDGES)
    accumulate(block, EDGES, values, np.full(600, weight), codes)
    return {(role, population): block for role in ROLES for population in POPULATIONS}


def profile_of(days: Sequence[Blocks]) -> Profile:
    total = {key: reduce(add_blocks, [d[key] for d in days]) for key in days[0]}
    return Profile("0123456789abcdef", SEGMENTS, dict.fromkeys(ROLES, EDGES), total)


def calibrated(days: Sequence[Blocks], drift: DriftConfig = DRIFT) -> tuple[Profile, Calibration]:
    profile = profile_of(days)
    return profile, calibrate_days({FIRST + timedelta(days=i): d for i, d in enumerate(days)}, profile, drift)


def scored(days: Sequence[Blocks], now: Blocks, drift: DriftConfig = DRIFT) -> Columns:
    """The day after the reference, in windows of one and of seven days."""
    profile, calibration = calibrated(days, drift)
    windows = {w: window_of([*days, now][-w:]) for w in drift.windows_days}
    return score_windows(windows, profile, calibration, drift)


def rows(columns: Columns, **wanted: Any) -> list[dict[str, Any]]:
    chosen = np.all([columns[c] == v for c, v in ({"population": "all"} | wanted).items()], axis=0)
    return [{c: values[i] for c, values in columns.items()} for i in np.flatnonzero(chosen)]


def alarms(columns: Columns) -> set[tuple[str, str]]:
    loud = [severity_rank(s) >= severity_rank("noted") for s in columns["severity"]]
    return {(columns["feature"][i], columns["segment"][i]) for i in np.flatnonzero(loud)}


MONTH = [blocks(i) for i in range(28)]


def test_the_columns_are_those_of_the_table() -> None:
    assert set(scored(MONTH, blocks(28))) == set(DRIFT_SCORES.schema)


def test_a_month_of_reference_says_so_and_finds_what_moved_and_nothing_else() -> None:
    assert alarms(scored(MONTH, blocks(28))) == set()
    found = scored(MONTH, blocks(28, shift=1.5))
    assert {feature for feature, _ in alarms(found)} == {"b"}
    (row,) = rows(found, role="production", feature="b", segment="overall", window_days=1)
    assert row["severity"] == "critical"
    assert row["evidence"] >= row["threshold"]
    assert row["rule"] == "evidence over the threshold (Westfall–Young, 28 reference days), effect from 0.5"
    assert row["reference_hash"] == "0123456789abcdef"


def test_thirteen_days_of_reference_judge_by_the_false_discovery_rate_and_say_so() -> None:
    assert alarms(scored(MONTH[:13], blocks(28))) == set()
    found = scored(MONTH[:13], blocks(28, shift=1.5))
    assert {feature for feature, _ in alarms(found)} == {"b"}
    (row,) = rows(found, role="production", feature="b", segment="overall", window_days=1)
    assert "F distribution and Benjamini–Hochberg: only 13 reference days" in row["rule"]
    assert any("Westfall–Young, 14 reference days" in r for r in scored(MONTH[:14], blocks(28, shift=1.5))["rule"])


def test_one_day_of_reference_judges_nothing_and_says_so() -> None:
    found = scored(MONTH[:1], blocks(28, shift=3.0))
    assert alarms(found) == set()
    judged = rows(found, segment="overall", feature="b")
    assert {r["severity"] for r in judged} == {"insufficient"}
    assert {r["rule"] for r in judged} == {"what is normal cannot be told from 1 reference day, 2 are needed"}
    assert all(r["effect"] > 0.5 for r in judged if r["window_days"] == 1)  # it is measured all the same


def test_no_day_of_reference_at_all_calibrates_to_unknown() -> None:
    found = calibrate_days({}, profile_of(MONTH[:1]), DRIFT)
    assert (found.threshold.rule, found.reference_days) == ("unknown", 0)


def test_a_constant_feature_raises_no_alarm_until_it_moves() -> None:
    quiet = rows(scored(MONTH, blocks(28)), feature="fixed", segment="overall")
    assert {severity_rank(r["severity"]) for r in quiet} <= {severity_rank("insufficient"), severity_rank("none")}
    assert all(np.nan_to_num(r["evidence"]) == 0.0 for r in quiet)
    moved = alarms(scored(MONTH, blocks(28, fixed=2.0)))
    assert {feature for feature, _ in moved} == {"fixed"}
    assert ("fixed", "overall") in moved


def test_a_segment_value_never_seen_in_the_reference_is_not_judged() -> None:
    found = scored(MONTH, blocks(28, new=True))
    unseen = rows(found, segment="s=new", window_days=1, feature="a")
    assert {r["severity"] for r in unseen} == {"insufficient"}
    assert {r["rule"] for r in unseen} == {"fewer than 30 effective requests in the reference"}
    assert {r["n_effective"] for r in unseen} == {600.0}
    assert alarms(found) == set()


def test_all_weights_zero_judge_nothing() -> None:
    nothing = {key: empty_block(SEGMENTS, EDGES) for key in MONTH[0]}
    today = scored(MONTH, nothing)
    of_day = [r for r in rows(today, window_days=1) if r["feature"] != "*"]
    assert {r["severity"] for r in of_day} == {"insufficient"}
    assert {r["rule"] for r in of_day} == {"fewer than 30 effective requests in the window"}
    reference = scored([nothing] * 28, blocks(28, shift=3.0))
    assert alarms(reference) == set()
    judged = [r for r in rows(reference) if r["feature"] != "*"]
    assert {r["severity"] for r in judged} == {"insufficient"}
    assert calibrated([nothing] * 28)[1].threshold.rule == "unknown"


def test_the_scale_of_the_weights_does_not_matter() -> None:
    one, thousand = (
        scored(MONTH, blocks(28, shift=0.5)),
        scored([blocks(i, weight=1e3) for i in range(28)], blocks(28, weight=1e3, shift=0.5)),
    )
    np.testing.assert_allclose(one["evidence"], thousand["evidence"], rtol=1e-4)
    np.testing.assert_array_equal(one["severity"], thousand["severity"])


def test_days_in_another_order_give_the_same_and_a_gap_is_a_day_without_requests() -> None:
    profile = profile_of(MONTH)
    dated = [(FIRST + timedelta(days=i), d) for i, d in enumerate(MONTH)]
    one, other = (calibrate_days(items, profile, DRIFT) for items in (dated, reversed(dated)))
    assert one.threshold == other.threshold
    gap = calibrate_days([x for x in dated if x[0] != FIRST + timedelta(days=9)], profile, DRIFT)
    assert gap.reference_days == 27
    assert gap.threshold.days == 28 - 1


def unused(day: Blocks, *roles: str) -> Blocks:
    """The same day, but in these roles nothing is attributed to feature `b`."""
    used = np.array([1.0, 0.0, 1.0])
    return {(r, p): replace(b, abs_sum=b.abs_sum * used) if r in roles else b for (r, p), b in day.items()}


def test_an_input_counts_where_either_model_uses_it() -> None:
    days, now = [unused(d, "production") for d in MONTH], unused(blocks(28, shift=1.5), "production")
    loud = {r["role"] for r in rows(scored(days, now), feature="b") if severity_rank(r["severity"]) >= 2}
    assert loud == {"experimental", "difference", "input", "output"}
    days, now = ([unused(d, *MODEL_ROLES) for d in some] for some in (MONTH, [blocks(28, shift=1.5)]))
    loud = {r["role"] for r in rows(scored(days, now[0]), feature="b") if severity_rank(r["severity"]) >= 2}
    assert loud == {"difference", "output"}


def test_what_cannot_raise_an_alarm_does_not_raise_the_threshold() -> None:
    """Feature `b` is wild on one reference day; nobody uses it."""
    quiet = {key: b for key, b in blocks(99).items() if key[0] == "output"}
    wild = [unused(blocks(i, shift=2.0 * (i == 13)), *ROLES) | quiet for i in range(28)]
    of_used = calibrated(wild)[1].threshold.value
    of_all = calibrated(wild, replace(DRIFT, min_importance_share=0.0))[1].threshold.value
    assert of_used == pytest.approx(calibrated([unused(d, *ROLES) | quiet for d in MONTH])[1].threshold.value, rel=0.15)
    assert of_all > 1.5 * of_used


def _stored(monitor: Monitor, profile_hash: str) -> None:
    metadata = {"provenance": "p", "profile_hash": profile_hash}
    monitor.lake.write("drift_calibration", monitor.name, None, pl.DataFrame(schema=DRIFT_CALIBRATION.schema), metadata)


def test_a_calibration_of_another_reference_is_refused_with_both_hashes(
    lending: Callable[..., MonitorConfig], tmp_path: Any
) -> None:
    monitor, profile = Monitor(lending(), Lake(str(tmp_path / "lake"))), profile_of(MONTH[:2])
    with pytest.raises(LakeError):
        load_calibration(monitor, profile)
    _stored(monitor, "fedcba9876543210")
    with pytest.raises(ProvenanceError, match="belongs to another reference") as refusal:
        load_calibration(monitor, profile)
    for word in ("0123456789abcdef", "fedcba9876543210", "materialize lending/drift_calibration again"):
        assert word in str(refusal.value)
