"""One healthy day; each fault is one figure changed, and fails one check with a sentence that says what to do."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest

from xai_assets.config import ExplanationTargets
from xai_assets.decide.service_levels import CHECKED, Verdict, judge
from xai_assets.records import ServiceLevel

DAY = date(2025, 1, 7)
TARGETS = ExplanationTargets()
HEALTHY = {
    "coverage": ("share", 1.0),
    "error_rate": ("share", 0.0),
    "median_ms": ("ms", 0.4),
    "p95_ms": ("ms", 0.9),
    "stability": ("cosine", 0.98),
    "bytes": ("bytes", 1e6),
}


def levels(**changes: float) -> list[ServiceLevel]:
    """Both roles' levels of a day of 1,000 requests; keywords change the experimental model's figures."""
    found = []
    for role in ("production", "experimental"):
        for measure, (unit, value) in HEALTHY.items():
            shown = changes.get(measure, value) if role == "experimental" else value
            found.append(ServiceLevel(role, "overall", measure, unit, shown, 1_000))
        found.append(ServiceLevel(role, "region=south", "coverage", "share", 1.0, 400))
    return found


def verdicts(day: Sequence[ServiceLevel], targets: ExplanationTargets = TARGETS) -> dict[str, Verdict]:
    return {v.measure: v for v in judge({DAY: day}, targets, min_segment_rows=200)}


def test_a_healthy_day_meets_every_target() -> None:
    found = verdicts(levels())
    assert list(found) == list(CHECKED)
    assert all(v.passed and not v.sentences for v in found.values())
    assert (found["coverage"].worst, found["stability"].worst, found["p95_ms"].worst) == (1.0, 0.98, 0.9)


@pytest.mark.parametrize(
    ("measure", "fine", "fault", "words"),
    [
        ("median_ms", 49.9, 50.0, "median_ms is 50 ms of 1,000 requests, the target is 50 ms"),
        ("p95_ms", 199.0, 200.5, "the target is 200 ms"),
        ("stability", 0.81, 0.8, "stability is 0.8 cosine"),
        ("error_rate", 0.0099, 0.01, "error_rate is 1.00% of 1,000 requests, the target is 1.00%"),
        ("coverage", 0.95, 0.949, "coverage is 94.90% of 1,000 requests, the target is 95.00%"),
    ],
)
def test_one_figure_beyond_its_target_fails_that_check_alone(
    measure: str, fine: float, fault: float, words: str
) -> None:
    assert all(v.passed for v in verdicts(levels(**{measure: fine})).values())
    found = verdicts(levels(**{measure: fault}))
    assert [m for m, v in found.items() if not v.passed] == [measure]
    (sentence,) = found[measure].sentences
    assert sentence.startswith("2025-01-07 experimental: ")
    assert words in sentence
    assert found[measure].worst == fault


def test_a_small_budget_fails_once_with_the_budget_that_would_do() -> None:
    day = [replace(x, value=0.333) if x.measure == "coverage" else replace(x, row_count=333) for x in levels()]
    coverage = verdicts(day)["coverage"]
    assert not coverage.passed
    assert len(coverage.sentences) == 2, "one per role; segments repeat the same fault"
    assert all("explanation.budget_rows_per_day of at least 950 would meet it" in s for s in coverage.sentences)
    assert coverage.budget_rows == 950
    assert verdicts(day, replace(TARGETS, coverage=0.33))["coverage"].passed


def test_explanations_that_failed_ask_for_no_budget() -> None:
    coverage = verdicts(levels(coverage=0.5))["coverage"]
    assert coverage.budget_rows == 0
    assert "1,000 were chosen, but not all could be explained" in coverage.sentences[0]


def south(value: float, rows: int) -> list[ServiceLevel]:
    return [
        replace(x, value=value, row_count=rows) if x.segment != "overall" and x.role == "production" else x
        for x in levels()
    ]


def test_a_segment_left_out_shows_though_the_whole_is_covered() -> None:
    (sentence,) = verdicts(south(0.6, 400))["coverage"].sentences
    assert "2025-01-07 production, region=south: coverage is 60.00% of 400 requests" in sentence
    assert verdicts(south(0.6, 400))["coverage"].worst == 0.6


def test_small_segments_and_sampling_noise_are_not_faults() -> None:
    assert verdicts(south(0.6, 199))["coverage"].passed
    assert verdicts(south(0.93, 400))["coverage"].passed, "two standard errors under the target"


def test_what_could_not_be_measured_is_not_held_against_the_day() -> None:
    found = verdicts(levels(stability=float("nan")))
    assert found["stability"].passed
    assert verdicts([])["coverage"] == Verdict("coverage", 0.95, passed=True, worst=None, sentences=())


def test_of_several_days_each_fault_is_named_and_the_largest_budget_wins() -> None:
    small = [replace(x, value=0.1, row_count=2_000) if x.measure == "coverage" else x for x in levels()]
    other = [replace(x, value=0.1, row_count=5_000) if x.measure == "coverage" else x for x in levels()]
    days = {DAY: small, DAY + timedelta(days=1): other, DAY + timedelta(days=2): levels()}
    coverage = judge(days, TARGETS, min_segment_rows=200)[0]
    assert coverage.budget_rows == 4_750
    assert {s[:10] for s in coverage.sentences} == {"2025-01-07", "2025-01-08"}
