"""The configuration: one healthy baseline, one key broken per row."""

from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from xai_assets.config import AlarmBudget, EffectFloors, ModelConfig, MonitorConfig, Persistence
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
    assert config.drift.persistence == Persistence(2, 3, "warning")
    assert config.drift.effect_floors == EffectFloors(0.10, 0.25, 0.50, "psi_corrected_nats")
    assert (config.drift.min_effective_rows, config.drift.match_weekday) == (30, False)
    assert len(config.reference_days) == 28
    assert config.first_date == date(2025, 1, 1)
    assert config.models.production.path == "p.ubj"
    assert config.resolve("a/b") == "/base/a/b"
    assert config.resolve("s3://bucket/x") == "s3://bucket/x"
    assert config.resolve("models:/credit/3") == "models:/credit/3"
    assert config.models.production.kind == "auto"
    assert not config.models.production.trust_pickle


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
    ("models.production", {"path": "p", "kind": "lightgmb"}, ["lending.models.production.kind", "'lightgbm'?"]),
    (
        "models.production",
        {"path": "p", "kind": "pickle"},
        ["lending.models.production.kind", "trust_pickle", "xgboost"],
    ),
    ("models.production", {"path": "p", "trust_pickle": True}, ["lending.models.production.sha256 is missing", "code"]),
    (
        "models.experimental",
        {"path": "p", "trust_pickle": True, "sha256": "ab"},
        ["lending.models.experimental.sha256", "64 hexadecimal digits"],
    ),
    ("models.production", {"path": "p", "trust_pickle": "yes"}, ["models.production.trust_pickle", "true or false"]),
    ("models.production", {"path": "p", "previous": {"pth": "o"}}, ["models.production.previous.pth", "'path'?"]),
    (
        "models.production",
        {"path": "p", "previous": {"path": "o", "kind": "pickle"}},
        ["lending.models.production.previous.kind", "trust_pickle"],
    ),
    (
        "models.experimental",
        {"path": "p", "previous": {"path": "o", "previous": "oldest.ubj"}},
        ["lending.models.experimental.previous.previous", "one earlier version", "oldest.ubj"],
    ),
    ("reference.end_date", "2024-12-31", ["lending.reference.end_date", "from 2025-01-01 on"]),
    # A reference of no day at all.
    ("reference", {"start_date": "2025-01-02", "end_date": "2025-01-01"}, ["lending.reference.end_date"]),
    ("reference", {"start_date": "2025-01-02"}, ["lending.reference.end_date is missing", "add 'end_date:'"]),
    ("reference.start_date", "01/02/2025", ["lending.reference.start_date", "2025-01-31"]),
    ("start_date", "2025-02-01", ["lending.start_date", "up to 2025-01-01"]),
    ("end_date", "2025-01-02", ["lending.end_date"]),
    ("divergence.threshold", 0, ["lending.divergence.threshold", "above 0"]),
    ("divergence.kinds", ["magnitud"], ["lending.divergence.kinds[0]", "did you mean 'magnitude'?"]),
    ("divergence.threshold_quantile", 1.0, ["lending.divergence.threshold_quantile", "between 0 and 1"]),
    ("explanation.budget_rows_per_day", 0, ["lending.explanation.budget_rows_per_day"]),
    ("explanation.budget_rows_per_day", "all", ["lending.explanation.budget_rows_per_day", "whole number"]),
    ("explanation.seed", True, ["lending.explanation.seed", "whole number"]),
    ("explanation.seed", -1, ["lending.explanation.seed", "4294967295"]),
    ("explanation.seed", 2**32, ["lending.explanation.seed", "4294967295"]),
    ("explanation.method", "tree", ["lending.explanation.method", "did you mean 'treeshap'?"]),
    ("explanation.background_rows", 0, ["lending.explanation.background_rows", "1 or more"]),
    ("explanation.quality_sample_rows", 1, ["lending.explanation.quality_sample_rows", "2 or more"]),
    ("explanation.targets", 0.95, ["lending.explanation.targets", "a mapping of keys"]),
    ("explanation.targets.covrage", 0.9, ["lending.explanation.targets.covrage", "did you mean 'coverage'?"]),
    ("explanation.targets.coverage", 95, ["lending.explanation.targets.coverage", "0…1"]),
    ("explanation.targets.median_ms", 0, ["lending.explanation.targets.median_ms", "above 0"]),
    ("explanation.targets.p95_ms", 20, ["lending.explanation.targets.p95_ms", "median_ms or more"]),
    ("explanation.targets.stability", 1, ["lending.explanation.targets.stability", "below 1"]),
    ("explanation.targets.error_rate", 0, ["lending.explanation.targets.error_rate", "above 0"]),
    ("drift.alarm_budget", "once a month", ["lending.drift.alarm_budget", "1 per 30 days"]),
    ("drift.alarm_budget", {"alarms": 0, "per_days": 30}, ["lending.drift.alarm_budget", "above 0"]),
    ("drift.alarm_budget", "0 per 30 days", ["lending.drift.alarm_budget", "above 0"]),
    ("drift.alarm_budget", "30 per 30 days", ["lending.drift.alarm_budget", "less than one a day"]),
    ("drift.alarm_budget", "1..2 per 30 days", ["lending.drift.alarm_budget", "'1 per 30 days'", "1..2"]),
    ("drift.alarm_budget", 1, ["lending.drift.alarm_budget", "'1 per 30 days'", "alarms, per_days"]),
    ("drift.alarm_budget", "1 per 0 days", ["lending.drift.alarm_budget", "less than one a day"]),
    ("drift.effect_floors.metric", "jensen_shanon", ["lending.drift.effect_floors.metric", "'jensen_shannon'?"]),
    ("drift.effect_floors.metric", "ndcg", ["lending.drift.effect_floors.metric", "importance_ratio"]),
    ("drift.effect_floors", {"noted": 0}, ["lending.drift.effect_floors", "0 < noted"]),
    (
        "drift.effect_floors",
        {"metric": "jensen_shannon"},
        ["lending.drift.effect_floors.noted is missing", "units of jensen_shannon", "add noted, warning, critical"],
    ),
    (
        "drift.effect_floors",
        {"metric": "wasserstein", "noted": 0.1, "critical": 0.5},
        ["lending.drift.effect_floors.warning is missing", "noted, critical"],
    ),
    (
        "drift.effect_floors",
        {"metric": "hellinger", "noted": 0.1, "warning": 0.5, "critical": 1.5},
        ["lending.drift.effect_floors.critical", "at most 1", "1.5"],
    ),
    (
        "drift.effect_floors",
        {"metric": "importance_ratio", "noted": 0.5, "warning": 2, "critical": 4},
        ["lending.drift.effect_floors.noted", "above 1", "0.5"],
    ),
    ("drift.match_weekday", "yes", ["lending.drift.match_weekday", "true or false"]),
    ("drift.match_weekdays", True, ["lending.drift.match_weekdays", "did you mean 'match_weekday'?"]),
    ("drift.min_effective_rows", 0, ["lending.drift.min_effective_rows", "1 or more"]),
    ("drift.persistence", {"days": 0}, ["lending.drift.persistence", "1 ≤ days"]),
    ("drift.windows_days", [], ["lending.drift.windows_days", "whole days from 1"]),
    ("drift.windows_days", [0, 7], ["lending.drift.windows_days", "whole days from 1"]),
    ("drift.effect_floors", {"noted": 0.6}, ["lending.drift.effect_floors", "noted ≤ warning"]),
    (
        "drift.windows_days",
        [1, 120],
        [
            "lending.retention.replay_log_days",
            "at least 120: drift.windows_days",
            "90",
            "set retention.replay_log_days",
        ],
    ),
    (
        "remediation.train_window_days",
        100,
        ["lending.retention.replay_log_days", "at least 100: remediation.train_window_days", "90"],
    ),
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


def test_effect_floors_of_another_metric() -> None:
    written = {"noted": 1.5, "warning": 2, "critical": 4, "metric": "importance_ratio"}
    assert build(broken("drift.effect_floors", written)).drift.effect_floors == EffectFloors(
        1.5, 2.0, 4.0, "importance_ratio"
    )
    assert build(broken("drift.match_weekday", True)).drift.match_weekday


def test_floors_in_nats_are_the_defaults_where_the_metric_is_another() -> None:
    """They judge what is PSI whatever the metric is: slices, heat maps, the place of a change."""
    assert EffectFloors(0.2, 0.3, 0.4, "psi_nats").nats == (0.2, 0.3, 0.4)
    assert EffectFloors(0.2, 0.3, 0.4, "jensen_shannon").nats == (0.10, 0.25, 0.50)


@pytest.mark.parametrize(("last", "is_enough"), [("2025-01-13", False), ("2025-01-14", True)])
def test_weekdays_are_matched_with_a_reference_that_has_each_twice(last: str, is_enough: bool) -> None:
    mapping = broken("drift.match_weekday", True)
    mapping["reference"]["end_date"] = last
    if is_enough:
        assert build(mapping).drift.match_weekday
        return
    with pytest.raises(ConfigError, match=r"lending\.drift\.match_weekday .*14 days or more.*13 days.*reference"):
        build(mapping)


def test_the_fingerprint_follows_its_sections_and_nothing_else() -> None:
    before = build(HEALTHY)
    owner, threshold = build(broken("owners", ["team:risk"])), build(broken("divergence.threshold", 0.2))
    sections = ("source", "features", "divergence")
    assert before.fingerprint(*sections) == owner.fingerprint(*sections)
    assert before.fingerprint(*sections) != threshold.fingerprint(*sections)


def test_a_single_key_counts_where_only_that_key_is_asked_for() -> None:
    before = build(HEALTHY)
    seed, target = build(broken("explanation.seed", 1)), build(broken("explanation.targets.coverage", 0.5))
    keys = ("divergence", "explanation.seed")
    assert before.fingerprint(*keys) == target.fingerprint(*keys) != seed.fingerprint(*keys)


def test_by_default_every_request_is_explained_as_well_as_the_targets_say() -> None:
    explanation = build(HEALTHY).explanation
    assert (explanation.budget_rows_per_day, explanation.method, explanation.quality_sample_rows) == (None, "auto", 200)
    targets = explanation.targets
    assert (targets.coverage, targets.median_ms, targets.p95_ms) == (0.95, 50.0, 200.0)
    assert (targets.stability, targets.error_rate) == (0.8, 0.01)
    assert build(broken("explanation.budget_rows_per_day", None)).explanation.budget_rows_per_day is None


@pytest.mark.parametrize(
    "written", [{"kind": "lightgbm"}, {"kind": "pickle", "trust_pickle": True, "sha256": "a" * 64}, {"kind": "mlflow"}]
)
def test_kinds_of_models(written: dict[str, Any]) -> None:
    model = build(broken("models.production", {"path": "p", **written})).models.production
    assert {key: getattr(model, key) for key in written} == written


def test_an_earlier_version_is_an_artifact_like_any_other() -> None:
    config = build(broken("models.production", {"path": "p", "previous": {"path": "o", "sha256": "a" * 64}}))
    assert config.models.production.previous == ModelConfig("o", sha256="a" * 64)
    assert config.roles_with_previous == ("production",)
    short = build(broken("models.experimental", {"path": "p", "previous": "o.ubj"}))
    assert short.models.experimental.previous == ModelConfig("o.ubj")
    assert short.roles_with_previous == ("experimental",)
    assert build(HEALTHY).roles_with_previous == ()
