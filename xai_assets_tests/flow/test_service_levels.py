"""Service levels of a really explained day; each planted fault shows in its own figure."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

import xai_assets.flow.attribution as attribution
import xai_assets.flow.service_levels as service_levels
from xai_assets.flow.background import monitor_explainer
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.service_levels import judge_days, load_levels, measure_day
from xai_assets.lake.tables import EXPLANATION_QUALITY
from xai_assets.records import Attributions, ServiceLevel
from xai_assets.stats.explanation_quality import MEASURES
from xai_assets_tests.conftest import day

Explained = Callable[..., Monitor]
TIMES = ("median_ms", "p95_ms", "seconds_per_1000")
PATIENT = {"targets": {"median_ms": 5_000, "p95_ms": 10_000}, "quality_sample_rows": 30}
"""Other work on the machine must not decide about a test."""


def figures(levels: tuple[ServiceLevel, ...], segment: str = "overall") -> dict[tuple[str, str], float]:
    return {(x.role, x.measure): x.value for x in levels if x.segment == segment}


def missed(monitor: Monitor) -> set[str]:
    levels = load_levels(monitor.lake, monitor.name, [day(1)])
    return {v.measure for v in judge_days(monitor.config, levels) if not v.passed}


class Altered:
    """A real explainer whose result is changed on the way out: the planted fault."""

    def __init__(self, explainer: Any, change: Callable[[np.ndarray, Attributions], Attributions]) -> None:
        self._explainer, self._change = explainer, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._explainer, name)

    def explain(self, X: np.ndarray) -> Attributions:
        return self._change(X, self._explainer.explain(X))


def plant(monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray, Attributions], Attributions]) -> None:
    for module in (service_levels, attribution):
        monkeypatch.setattr(module, "monitor_explainer", lambda *a: Altered(monitor_explainer(*a), change))


def test_a_healthy_day_is_measured_whole_and_meets_every_target(explained: Explained) -> None:
    monitor = explained(explanation=PATIENT)
    levels = measure_day(monitor, day(1), "p1")
    found = figures(levels)
    assert {m for _, m in found} == set(MEASURES)
    stored = monitor.lake.read("explanation_quality", "lending", day(1))
    assert stored.schema == EXPLANATION_QUALITY.schema
    assert load_levels(monitor.lake, "lending", [day(1), day(2)]) == {day(1): levels}
    assert monitor.lake.metadata("explanation_quality", "lending", day(1)) == {"provenance": "p1"}
    for role in ("production", "experimental"):
        assert found[role, "coverage"] == 1.0
        assert found[role, "error_rate"] == 0.0
        assert 0.8 < found[role, "stability"] <= 1.0
        assert 0 < found[role, "lipschitz_median"] <= found[role, "lipschitz_max"]
        assert found[role, "deletion_ratio"] > 1.1
        assert found[role, "insertion_ratio"] > 1.1
        assert 0 < found[role, "median_ms"] <= found[role, "p95_ms"]
        assert found[role, "seconds_per_1000"] > 0
        assert found[role, "additivity_error"] < 1e-4
        assert found[role, "bytes"] == monitor.lake.size_bytes(f"{role}_attributions", "lending", day(1))
    assert missed(monitor) == set()


def test_the_same_inputs_give_the_same_numbers_but_for_times(explained: Explained) -> None:
    monitor = explained(explanation=PATIENT)
    first, second = (figures(measure_day(monitor, day(1), "p")) for _ in range(2))
    steady = {k: v for k, v in first.items() if k[1] not in TIMES}
    assert steady == {k: v for k, v in second.items() if k[1] not in TIMES}
    other = Monitor(replace(monitor.config, explanation=replace(monitor.config.explanation, seed=1)), monitor.lake)
    assert figures(measure_day(other, day(1), "p"))["production", "stability"] != first["production", "stability"]


def test_coverage_of_a_sampled_day_counts_requests_of_every_segment(explained: Explained) -> None:
    monitor = explained(explanation={**PATIENT, "budget_rows_per_day": 200})
    levels = measure_day(monitor, day(1), "p")
    log = monitor.lake.read("replay_log", "lending", day(1))
    chosen = monitor.lake.read("divergence_set", "lending", day(1))["row_index"]
    for value, rows in log.group_by("region"):
        (level,) = [x for x in levels if x.segment == f"region={value[0]}" and x.measure == "coverage"][:1]
        inside = log[chosen].filter(pl.col("region") == value[0]).height
        assert level.row_count == rows.height
        assert level.value == pytest.approx(inside / rows.height)
    assert figures(levels)["production", "coverage"] == pytest.approx(200 / log.height)
    assert missed(monitor) == {"coverage"}
    (verdict, *_) = judge_days(monitor.config, load_levels(monitor.lake, "lending", [day(1)]))
    enough = verdict.budget_rows
    assert enough == int(np.ceil(0.95 * log.height))
    again = explained(explanation={**PATIENT, "budget_rows_per_day": enough})
    measure_day(again, day(1), "p")
    assert missed(again) == set(), "the budget that the sentence names is enough"


def test_rows_without_a_finite_explanation_lower_coverage_and_raise_the_error_rate(
    explained: Explained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_for_some(X: np.ndarray, found: Attributions) -> Attributions:
        values = found.values.copy()
        values[::10, 2] = np.nan
        return replace(found, values=values)

    plant(monkeypatch, nothing_for_some)
    monitor = explained(explanation=PATIENT)
    levels = measure_day(monitor, day(1), "p")
    rows = monitor.lake.row_count("replay_log", "lending", day(1))
    failed = -(-rows // 10)
    assert figures(levels)["production", "error_rate"] == pytest.approx(failed / rows)
    assert figures(levels)["production", "coverage"] == pytest.approx(1 - failed / rows)
    by_region = [
        x for x in levels if x.segment.startswith("region=") and x.measure == "coverage" and x.role == "production"
    ]
    assert sum(x.row_count * (1 - x.value) for x in by_region) == pytest.approx(failed)
    assert missed(monitor) == {"coverage", "error_rate"}
    (verdict, *_) = judge_days(monitor.config, load_levels(monitor.lake, "lending", [day(1)]))
    assert verdict.budget_rows == 0


def test_a_noisy_explainer_is_unstable_and_less_faithful(explained: Explained, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = explained(explanation=PATIENT)
    healthy = figures(measure_day(monitor, day(1), "p"))
    rng = np.random.default_rng(0)

    def noise(X: np.ndarray, found: Attributions) -> Attributions:
        return replace(found, values=found.values + rng.normal(0, 2, found.values.shape).astype(np.float32))

    plant(monkeypatch, noise)
    noisy = figures(measure_day(monitor, day(1), "p"))
    assert missed(monitor) == {"stability"}
    assert noisy["production", "stability"] < 0.5 < 0.8 < healthy["production", "stability"]
    assert noisy["production", "lipschitz_median"] > 5 * healthy["production", "lipschitz_median"]
    assert noisy["production", "deletion_ratio"] < healthy["production", "deletion_ratio"]


def test_a_slow_explainer_misses_both_time_targets(explained: Explained, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(X: np.ndarray, found: Attributions) -> Attributions:
        time.sleep(0.03 if len(X) == 1 else 0)
        return found

    monitor = explained(explanation={"targets": {"median_ms": 30, "p95_ms": 30}, "quality_sample_rows": 20})
    plant(monkeypatch, slow)
    levels = measure_day(monitor, day(1), "p")
    assert {"median_ms", "p95_ms"} <= missed(monitor)
    assert figures(levels)["production", "median_ms"] >= 30


def test_timing_ends_after_a_while_but_not_before_twenty_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Sleepy:
        def explain(self, X: np.ndarray) -> None:
            calls.append(len(X))
            time.sleep(0.001)

    monkeypatch.setattr(service_levels, "TIMING_SECONDS", 0.005)
    times = service_levels._milliseconds(Sleepy(), np.zeros((500, 3), np.float32))  # type: ignore[arg-type]
    assert len(times) == 20
    assert calls == [1] * 21, "one call to warm up"
    assert times.min() >= 1.0


def test_an_empty_day_has_nothing_to_measure(explained: Explained) -> None:
    monitor = explained(explanation=PATIENT)
    for table in ("replay_log", "divergence_set", "production_attributions", "experimental_attributions"):
        rows = monitor.lake.read(table, "lending", day(1))
        footer = monitor.lake.metadata(table, "lending", day(1))
        monitor.lake.write(table, "lending", day(1), rows.clear(), footer)
    levels = measure_day(monitor, day(1), "p")
    assert {x.measure for x in levels} == {"seconds_per_1000", "bytes", "additivity_error"}
    assert missed(monitor) == set()


def test_without_segment_columns_the_whole_is_measured(explained: Explained) -> None:
    monitor = explained(explanation=PATIENT, context=[], derived_context=[])
    levels = measure_day(monitor, day(1), "p")
    assert {x.segment for x in levels} == {"overall"}
    assert figures(levels)["production", "coverage"] == 1.0


def test_values_beyond_the_most_frequent_are_other(explained: Explained) -> None:
    monitor = explained(explanation=PATIENT, drift={"top_segment_values": 1})
    levels = [x for x in measure_day(monitor, day(1), "p") if x.measure == "coverage" and x.role == "production"]
    total = next(x.row_count for x in levels if x.segment == "overall")
    regions = {x.segment: x.row_count for x in levels if x.segment.startswith("region=")}
    assert len(regions) == 2
    assert regions["region=(other)"] == total - max(v for k, v in regions.items() if k != "region=(other)")
