"""Label scores of simulated services: quiet while only days differ, loud in the right place once a relation changes.

A logistic model that is right on average. Each day has a level of its own and moves every feature's cells a little,
both from one day to the next as an AR(1).
"""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xai_assets.config import DriftConfig, LabelsConfig, MonitorConfig
from xai_assets.decide.findings import daily_findings
from xai_assets.flow.label_calibration import calibrate_cohorts
from xai_assets.flow.label_scoring import Columns, add_tables, score_label_windows
from xai_assets.flow.residuals import Tables
from xai_assets.records import MODEL_ROLES, Edges
from xai_assets.stats.calibration import Calibration
from xai_assets.stats.residuals import accumulate_residuals, empty_residuals
from xai_assets_tests.conftest import lending_attributes

DRIFT = DriftConfig()
FEATURES, CELLS = 6, 4
EDGES = tuple(Edges(f"f{j}", np.linspace(-2, 2, 7)) for j in range(FEATURES))
SEGMENTS = ("overall", "s=x", "s=y", "s=z")
REFERENCE = 42
COEFFICIENTS = np.full(FEATURES, 0.5)


def service(days: int, seed: int, *, reversed_from: int = 10**6, feature: int = 0, kept: float = 0.5) -> list[Tables]:
    """400 requests a day; kept: the AR coefficient. From day `reversed_from` on a feature means the opposite."""
    rng = np.random.default_rng([9, seed])
    level, moved, found = 0.0, np.zeros((FEATURES, CELLS)), []
    for day in range(days):
        fresh = 0.05 * np.sqrt(1 - kept**2)
        level, moved = kept * level + fresh * rng.normal(), kept * moved + fresh * rng.normal(size=moved.shape)
        x = rng.normal(size=(rng.poisson(400), FEATURES))
        learnt = 1 / (1 + np.exp(-(x @ COEFFICIENTS)))
        present = COEFFICIENTS * np.where((np.arange(FEATURES) == feature) & (day >= reversed_from), -1, 1)
        truth = 1 / (1 + np.exp(-(x @ present))) + level
        truth += sum(moved[j][np.searchsorted([-1, 0, 1], x[:, j])] for j in range(FEATURES))
        y = (rng.random(len(x)) < truth).astype(float)
        codes = np.column_stack([np.zeros(len(x)), rng.integers(1, 4, len(x))]).astype(int)
        table = empty_residuals(SEGMENTS, EDGES)
        accumulate_residuals(table, EDGES, x, y, learnt, codes, is_classifier=True)
        found.append(dict.fromkeys(MODEL_ROLES, table))
    return found


def monitor(**changes: Any) -> MonitorConfig:
    return MonitorConfig.from_mapping("lending", lending_attributes(**changes), Path())


def scored(days: list[Tables], day: int, reference: Tables, calibration: Calibration) -> Columns:
    windows = {w: days[max(0, day - w + 1) : day + 1] for w in DRIFT.windows_days}
    return score_label_windows(windows, reference, calibration, DRIFT, is_classifier=True)


def is_alarm(columns: Columns) -> bool:
    return bool(np.isin(columns["severity"], ("noted", "warning", "critical")).any())


def test_days_that_differ_without_a_changed_relation_stay_within_the_budget() -> None:
    """Label scores have half of one false alarm in 30 days: 4 in 240. A rule by `z_score` alone, which
    takes the requests of a day for independent, alarms on most days."""
    by_evidence = by_score = 0
    for seed in (1, 2):
        days = service(REFERENCE + 120, seed)
        calibration, reference = calibrate_cohorts(days[:REFERENCE], monitor()), add_tables(days[:REFERENCE])
        assert calibration.threshold.rule == "westfall_young"
        assert calibration.threshold.alarm_rate == 1 / 60
        for day in range(REFERENCE, len(days)):
            columns = scored(days, day, reference, calibration)
            by_evidence += is_alarm(columns)
            by_score += bool(((columns["z_score"] >= 4.5) & (columns["residual_shift"] >= 0.02)).any())
    assert by_evidence <= 1.5 * 240 / 60
    assert by_score >= 120


@pytest.mark.parametrize("feature", [0, 3])
def test_a_reversed_relation_is_found_within_days_of_complete_labels_with_its_feature(feature: int) -> None:
    days = service(REFERENCE + 6, 10 + feature, reversed_from=REFERENCE, feature=feature)
    calibration, reference = calibrate_cohorts(days[:REFERENCE], monitor()), add_tables(days[:REFERENCE])
    first = []
    for day in range(REFERENCE, len(days)):
        columns = scored(days, day, reference, calibration)
        found = daily_findings(date(2025, 1, 1) + timedelta(days=day), None, columns, DRIFT).relations
        first += [(f.feature, f.segment) for f in found if f.role == "production"][:1]
    assert len(first) >= 4  # of six days
    assert {name for name, _ in first} == {f"f{feature}"}
    assert first[-1][1] == "overall"


def test_few_reference_days_judge_by_the_false_discovery_rate() -> None:
    days = service(19, 3, reversed_from=12)
    calibration, reference = calibrate_cohorts(days[:12], monitor()), add_tables(days[:12])
    assert calibration.threshold.rule == "benjamini_hochberg"
    assert not is_alarm(scored(days, 11, reference, calibration))
    columns = scored(days, 18, reference, calibration)
    assert is_alarm(columns)
    assert np.all(columns["threshold"][columns["severity"] != "insufficient"] > 0)
    assert any("Benjamini–Hochberg: only 12 reference days" in rule for rule in columns["rule"])


def test_drift_scores_and_label_scores_share_the_budget_where_labels_are_compared() -> None:
    both = monitor(drift={"alarm_budget": "1 per 10 days"})
    assert both.alarm_rate_per_family == pytest.approx(1 / 20)
    alone = monitor(drift={"alarm_budget": "1 per 10 days"}, labels={"complete_after_days": None})
    assert isinstance(alone.labels, LabelsConfig)
    assert alone.alarm_rate_per_family == pytest.approx(1 / 10)
