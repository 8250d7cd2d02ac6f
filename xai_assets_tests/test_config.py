"""The configuration: one healthy baseline, one key broken per row."""

from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from xai_assets.config import AlarmBudget, MonitorConfig
from xai_assets.errors import ConfigError

HEALTHY: dict[str, Any] = {
    "source": {"path": "logs/{date}.parquet"},
    "features": {"numeric": ["income", "age"], "categorical": {"purpose": ["car", "home"]}, "boolean": ["returning"]},
    "context": ["region"],
    "models": {"production": "p.ubj", "experimental": {"path": "e.json", "sha256": "ab"}},
    "reference": {"start_date": "2025-01-01", "end_date": date(2025, 1, 28)},
}


def build(mapping: dict[str, Any], name: str = "lending") -> MonitorConfig:
    return MonitorConfig.from_mapping(name, mapping, Path("/base"))


def broken(path: str, value: Any) -> dict[str, Any]:
    mapping = deepcopy(HEALTHY)
    if path == "retention.replay_log_days":
        mapping["labels"] = {"path": "labels/{date}.csv", "complete_after_days": 27}
    *parents, last = path.split(".")
    place = mapping
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return mapping


def test_the_healthy_baseline_loads_with_defaults() -> None:
    config = build(HEALTHY)
    assert config.feature_names == ("income", "age", "purpose", "returning")
    assert config.features[2].categories == ("car", "home")
    assert config.drift.windows_days == (1, 7, 28)
    assert config.drift.alarm_budget == AlarmBudget(1.0, 30)
    assert len(config.reference_days) == 28
    assert config.first_date == date(2025, 1, 1)
    assert config.models.production.path == "p.ubj"
    assert config.resolve("a/b") == "/base/a/b"
    assert config.resolve("s3://bucket/x") == "s3://bucket/x"


WRONG = [
    ("sourc", {}, ["lending.sourc", "did you mean 'source'?"]),
    ("source.formt", "csv", ["lending.source.formt", "did you mean 'format'?"]),
    ("source.format", "parqet", ["lending.source.format", "did you mean 'parquet'?"]),
    ("source.path", "logs/{date}", ["lending.source.format is missing", "logs/{date}"]),
    ("source.path", 7, ["lending.source.path", "text", "7"]),
    ("source.timezone", "Lisbon", ["lending.source.timezone", "IANA", "Lisbon"]),
    ("source.quarantine_limit_share", 1.5, ["lending.source.quarantine_limit_share", "0…1", "1.5"]),
    ("features", ["income"], ["lending.features", "a mapping with numeric"]),
    ("features.numerical", ["x"], ["lending.features.numerical", "did you mean 'numeric'?"]),
    ("features.numeric", "income", ["lending.features.numeric", "a list"]),
    ("features.numeric", ["income", "income"], ["names 'income' twice"]),
    ("features.numeric", ["request_id"], ["'request_id' is a name the platform uses"]),
    ("features.numeric", [True], ["lending.features.numeric", "as text", "quotes"]),
    ("features.categorical", {"purpose": "car"}, ["lending.features.categorical.purpose", "levels"]),
    ("columns.features", {"incom": "inc"}, ["lending.columns.features.incom", "did you mean 'income'?"]),
    ("models", {"production": "p.ubj"}, ["lending.models.experimental is missing"]),
    ("models.production", {"path": "p", "kind": "pickle"}, ["lending.models.production.kind", "xgboost"]),
    ("reference.end_date", "2024-12-31", ["lending.reference.end_date", "from 2025-01-01 on"]),
    ("reference.start_date", "01/02/2025", ["lending.reference.start_date", "2025-01-31"]),
    ("start_date", "2025-02-01", ["lending.start_date", "up to 2025-01-01"]),
    ("end_date", "2025-01-02", ["lending.end_date"]),
    ("divergence.threshold", 0, ["lending.divergence.threshold", "above 0"]),
    ("divergence.kinds", ["magnitud"], ["lending.divergence.kinds[0]", "did you mean 'magnitude'?"]),
    ("divergence.threshold_quantile", 1.0, ["lending.divergence.threshold_quantile", "between 0 and 1"]),
    ("explanation.budget_rows_per_day", 0, ["lending.explanation.budget_rows_per_day"]),
    ("explanation.seed", True, ["lending.explanation.seed", "whole number"]),
    ("drift.alarm_budget", "once a month", ["lending.drift.alarm_budget", "1 per 30 days"]),
    ("drift.effect_floors", {"noted": 0.6}, ["lending.drift.effect_floors", "noted ≤ warning"]),
    ("drift.windows_days", [7, 1], ["lending.drift.windows_days", "rising"]),
    ("drift.persistence", {"days": 4, "of": 3}, ["lending.drift.persistence", "days ≤ of"]),
    ("labels", {"path": "labels.csv"}, ["lending.labels.path", "{date}"]),
    ("remediation.mode", "auto", ["lending.remediation.mode", "observe"]),
    ("retention.replay_log_days", 3, ["lending.retention.replay_log_days", "28"]),
    ("retention.replay_log_days", 50, ["lending.retention.replay_log_days", "at least 55"]),
    ("remediation.mode", "automatic", ["lending.remediation.mode", "labels"]),
    ("owners", ["bob"], ["lending.owners", "team:"]),
    ("schedule_hour", 24, ["lending.schedule_hour", "0…23"]),
]


@pytest.mark.parametrize(("path", "value", "words"), WRONG, ids=[f"{p}={v}"[:60] for p, v, _ in WRONG])
def test_a_wrong_value_is_refused_with_its_path_and_a_way_out(path: str, value: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refusal:
        build(broken(path, value))
    for word in (*words, "Nothing was written"):
        assert word in str(refusal.value)


def test_a_bad_monitor_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="lower-case"):
        build(HEALTHY, name="My Monitor")


def test_the_alarm_budget_reads_as_a_sentence() -> None:
    assert build(broken("drift.alarm_budget", "0.5 per 7 days")).drift.alarm_budget == AlarmBudget(0.5, 7)


def test_the_fingerprint_follows_its_sections_and_nothing_else() -> None:
    before = build(HEALTHY)
    owner, threshold = build(broken("owners", ["team:risk"])), build(broken("divergence.threshold", 0.2))
    sections = ("source", "features", "divergence")
    assert before.fingerprint(*sections) == owner.fingerprint(*sections)
    assert before.fingerprint(*sections) != threshold.fingerprint(*sections)
