"""elec2: on 1997-05-05, half-hour 17,424, three features that had been constant begin to move. Found on that day."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from xai_assets.config import DriftConfig
from xai_assets.decide.findings import DayFindings, daily_findings
from xai_assets.explain.treeshap import TreeShap
from xai_assets.explain.treeshap.ensemble import TreeEnsemble
from xai_assets.flow.calibration import calibrate_days
from xai_assets.flow.histograms import Profile
from xai_assets.flow.scoring import score_windows, window_of
from xai_assets.lake.histogram_rows import Blocks
from xai_assets.lake.segments import segment_codes, top_segments, value_counts
from xai_assets.records import (
    DIFFERENCE,
    EXPERIMENTAL,
    INPUT,
    MODEL_ROLES,
    OUTPUT,
    OUTPUT_FEATURES,
    POPULATIONS,
    PRODUCTION,
    ROLES,
    severity_rank,
)
from xai_assets.stats.edges import EdgeSketch
from xai_assets.stats.histograms import accumulate, add_blocks, empty_block
from xai_assets_tests.examples.conftest import Example

pytestmark = pytest.mark.slow
SWITCH, REFERENCE_DAYS, QUIET_DAYS = 17_424, 60, 14
VICTORIAN = {"vic_price", "vic_demand", "transfer"}
CONTEXT = ("day_of_week",)
Values = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def days(elec2: Example) -> dict[date, tuple[pl.DataFrame, Values]]:
    """Rows and values by role of 60 reference days, 14 quiet days, the day of the switch and two more."""
    rows = elec2.module.read_half_hours(elec2.source)
    rows = rows[SWITCH - 48 * (REFERENCE_DAYS + QUIET_DAYS) : SWITCH + 48 * 3]
    values: Values = {}
    for role, path in {r: elec2.out / "models" / f"{r}.ubj" for r in MODEL_ROLES}.items():
        model = elec2.module.load_model(path, features=elec2.module.FEATURES)
        encoded = model.encode(rows)
        values[role] = TreeShap(TreeEnsemble.from_xgboost(path.read_bytes())).explain(encoded).values
        values[f"{role}_output"] = model.predict_output(encoded)
        values[INPUT] = encoded
    outputs = [values.pop(f"{role}_output") for role in MODEL_ROLES]
    values[DIFFERENCE] = values[EXPERIMENTAL] - values[PRODUCTION]
    values[OUTPUT] = np.column_stack((*outputs, outputs[1] - outputs[0]))
    first = rows["requested_at"].dt.date()[0]
    at = [slice(48 * i, 48 * (i + 1)) for i in range(rows.height // 48)]
    return {first + timedelta(days=i): (rows[s], {r: v[s] for r, v in values.items()}) for i, s in enumerate(at)}


@pytest.fixture(scope="module")
def findings(days: dict[date, tuple[pl.DataFrame, Values]]) -> dict[date, DayFindings]:
    """What is found on each day after the reference."""
    drift = DriftConfig()
    reference = list(days)[:REFERENCE_DAYS]
    names = {r: OUTPUT_FEATURES if r == OUTPUT else [f"{i}" for i in range(7)] for r in ROLES}
    features = ["period", "nsw_price", "nsw_demand", "vic_price", "vic_demand", "transfer", "day_of_week"]
    names |= {r: features for r in ROLES if r != OUTPUT}
    sketches = {r: EdgeSketch(names[r]) for r in ROLES}
    for day in reference:
        for role, sketch in sketches.items():
            sketch.add(days[day][1][role])
    edges = {r: s.edges(20) for r, s in sketches.items()}
    counts = value_counts(pl.concat([days[d][0] for d in reference]), CONTEXT)
    segments = top_segments(counts, drift.top_segment_values)

    def blocks_of(day: date) -> Blocks:
        rows, values = days[day]
        found = {(r, p): empty_block(segments, edges[r]) for r in ROLES for p in POPULATIONS}
        for role in ROLES:
            weights = np.ones(rows.height)
            accumulate(found[role, "all"], edges[role], values[role], weights, segment_codes(rows, CONTEXT, segments))
        return found

    blocks = {d: blocks_of(d) for d in days}
    total = blocks[reference[0]]
    for day in reference[1:]:
        total = {key: add_blocks(total[key], blocks[day][key]) for key in total}
    profile = Profile("elec2", segments, edges, total)
    calibration = calibrate_days({d: blocks[d] for d in reference}, profile, drift)
    found = {}
    for i, day in enumerate(list(days)[REFERENCE_DAYS:], start=REFERENCE_DAYS):
        last = list(blocks.values())[max(0, i - 27) : i + 1]
        windows = {w: window_of(last[-w:]) for w in drift.windows_days}
        found[day] = daily_findings(day, score_windows(windows, profile, calibration, drift), None, drift)
    return found


def test_the_switch_is_found_on_its_first_day_with_the_three_victorian_features(
    findings: dict[date, DayFindings], days: dict[date, tuple[pl.DataFrame, Values]]
) -> None:
    switch = list(days)[REFERENCE_DAYS + QUIET_DAYS]
    assert str(switch) == "1997-05-05"
    first = findings[switch].findings
    named = {f.feature for f in first if severity_rank(f.severity) >= severity_rank("noted")}
    assert named >= VICTORIAN
    assert {f.cause for f in first if f.feature in VICTORIAN} == {"input_fault"}


def test_the_quiet_weeks_before_it_keep_the_alarm_budget(findings: dict[date, DayFindings]) -> None:
    quiet = [d for d in findings if d < date(1997, 5, 5)]
    assert len(quiet) == QUIET_DAYS
    assert sum(bool(findings[d].findings) for d in quiet) <= 1
