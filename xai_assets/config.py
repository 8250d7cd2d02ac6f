"""`MonitorConfig`: everything a user may write about one monitored pair of models.

Belongs here: keys, defaults, units, and refusals that name the key's path and the nearest valid name.
Does not belong here: reading YAML or any other file, Dagster, anything about how a value is used.
"""

import dataclasses
import functools
import hashlib
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin
from zoneinfo import ZoneInfo

from xai_assets.errors import ConfigError, nearest
from xai_assets.records import MODEL_ROLES, FeatureSpec

NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]*")
FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
PSI_METRICS = ("psi_corrected_nats", "psi_nats")
UNIT_METRICS = ("jensen_shannon", "kolmogorov_smirnov", "hellinger", "l_infinity")
"""Metrics of drift that are 0–1."""
MIN_WEEKDAY_REFERENCE_DAYS = 14
"""Reference days without which a weekday has no other of its kind to be compared with."""
_OWN_NAMES = """
    request_id requested_at row_index base_value role model_version date monitor label
    production_output experimental_output production_latency_ms experimental_latency_ms
"""
RESERVED_FEATURES = frozenset(_OWN_NAMES.split())


def is_uri(path: str) -> bool:
    """Whether a path stands by itself, wherever the project is: ``scheme://…`` or an MLflow URI.

    >>> is_uri("s3://bucket/model.ubj"), is_uri("models:/credit/3"), is_uri("models/credit.ubj")
    (True, True, False)
    """
    return "://" in path or path.startswith(("models:/", "runs:/"))


@dataclass(frozen=True)
class SourceConfig:
    """Where the replayed requests of a day are.

    `path` is a file, a glob, or a URI with `{date}` (ISO) or strftime parts such as `{date:%Y/%m/%d}`;
    a path without `{date}` is read whole and each day keeps its own rows.
    """

    path: str
    format: Literal["parquet", "csv", "jsonl"] | None = None
    timezone: str = "UTC"
    encoding: str = "utf-8"
    separator: str = ","
    unknown_columns: Literal["ignore", "error"] = "ignore"
    quarantine_limit_share: float = 0.05


@dataclass(frozen=True)
class ColumnsConfig:
    """Names of the columns in the source. `features` renames: feature name → source column."""

    request_id: str = "request_id"
    requested_at: str = "requested_at"
    production_output: str | None = None
    experimental_output: str | None = None
    label: str | None = None
    production_latency_ms: str | None = None
    experimental_latency_ms: str | None = None
    features: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelsConfig:
    """Labels that arrive later: one file (or glob) per day of arrival, joined by `request_id`.

    `complete_after_days`: days after a request by which its label is there whatever it is. Only then can
    residuals of a day be compared: where one outcome is known sooner than the other, earlier labels are biased.
    Without it labels serve retraining only.
    """

    path: str
    format: Literal["parquet", "csv", "jsonl"] | None = None
    request_id: str = "request_id"
    label: str = "label"
    complete_after_days: int | None = None


@dataclass(frozen=True)
class ModelConfig:
    """One artifact. `sha256` pins it: another file at the same path is refused.

    `path` may also be an MLflow URI (`models:/name/3`, `runs:/id/path`) or folder. `kind` "auto" tells by content.
    `trust_pickle` lets a pickle, a joblib file or a PyTorch archive be loaded, which runs code in it; only with its
    `sha256`. `previous` is the version that was in service before: the monitor then tells what its replacement changed.
    """

    path: str
    kind: Literal["auto", "xgboost", "lightgbm", "catboost", "sklearn", "onnx", "torch", "mlflow", "pickle"] = "auto"
    sha256: str | None = None
    trust_pickle: bool = False
    previous: "ModelConfig | None" = None


@dataclass(frozen=True)
class ModelsConfig:
    """The pair. `output` is the unit of logged outputs: auto and value are what the model predicts."""

    production: ModelConfig
    experimental: ModelConfig
    output: Literal["auto", "probability", "margin", "value"] = "auto"


@dataclass(frozen=True)
class DivergenceConfig:
    """When two outputs count as different. `threshold` is absolute, in output units; `threshold_quantile`
    takes the quantile of |Δ| over the reference days instead."""

    kinds: tuple[Literal["magnitude", "decision_flip"], ...] = ("magnitude", "decision_flip")
    threshold: float = 0.10
    threshold_quantile: float | None = None
    decision_threshold: float = 0.5


@dataclass(frozen=True)
class ExplanationTargets:
    """Service levels of explanations that asset checks hold each day against (see the table `explanation_quality`).

    `coverage`, `error_rate`: shares, 0–1. `median_ms`, `p95_ms`: milliseconds for one request explained alone.
    `stability`: mean cosine similarity between attributions of a request and of its perturbed neighbours.
    """

    coverage: float = 0.95
    median_ms: float = 50.0
    p95_ms: float = 200.0
    stability: float = 0.8
    error_rate: float = 0.01


@dataclass(frozen=True)
class ExplanationConfig:
    """How many requests of a day are explained, how, and how well.

    `budget_rows_per_day`: most requests explained per day; None: all of them where both models' explainers are fast
    (trees, linear), else 2,000. `background_rows`: requests that stand for "feature absent", for methods that need
    them. `quality_sample_rows`: requests on which service levels are measured each day.
    """

    budget_rows_per_day: int | None = None
    method: Literal[
        "auto", "treeshap", "treeshap_interventional", "linear", "integrated_gradients", "permutation", "kernel"
    ] = "auto"
    background_rows: int = 100
    divergent_share: float = 0.5
    seed: int = 0
    replay_check_rows: int = 1_000
    additivity_tolerance: float = 1e-4
    quality_sample_rows: int = 200
    targets: ExplanationTargets = field(default_factory=ExplanationTargets)


@dataclass(frozen=True)
class ReferenceConfig:
    """The days that define normal, both ends included."""

    start_date: date
    end_date: date


@dataclass(frozen=True)
class AlarmBudget:
    """False alarms a user can bear: `alarms` per `per_days` days. In YAML also `1 per 30 days`."""

    alarms: float = 1.0
    per_days: int = 30


@dataclass(frozen=True)
class EffectFloors:
    """Size of an effect from which drift is noted, a warning, critical, in units of `metric`.

    `metric` is a column of `drift_scores`. The default numbers are corrected PSI in nats; another metric is refused
    without its own three. `importance_ratio` counts both ways: 0.5 as 2.
    """

    noted: float = 0.10
    warning: float = 0.25
    critical: float = 0.50
    metric: Literal[
        "psi_corrected_nats",
        "psi_nats",
        "jensen_shannon",
        "kullback_leibler_bits",
        "kolmogorov_smirnov",
        "wasserstein",
        "hellinger",
        "l_infinity",
        "importance_ratio",
    ] = "psi_corrected_nats"

    @property
    def nats(self) -> tuple[float, float, float]:
        """Floors of noted, warning and critical for what is measured in PSI whatever `metric` is, nats.

        >>> EffectFloors(0.2, 0.3, 0.4).nats, EffectFloors(1.5, 2.0, 4.0, "importance_ratio").nats
        ((0.2, 0.3, 0.4), (0.1, 0.25, 0.5))
        """
        own = self if self.metric in PSI_METRICS else EffectFloors()
        return own.noted, own.warning, own.critical


@dataclass(frozen=True)
class Persistence:
    """An alert opens when scores are alarms on `days` of the last `of` days, and on its first day from severity
    `at_once_from` on."""

    days: int = 2
    of: int = 3
    at_once_from: Literal["noted", "warning", "critical", "never"] = "warning"


@dataclass(frozen=True)
class DriftConfig:
    """When a change counts.

    `alarm_budget`: days with a false alarm that can be borne; thresholds follow from it and the reference days.
    `min_effective_rows`: a window or segment with fewer effective requests is not judged. `min_importance_share`: share
    of Σ mean |φ| under which a feature raises no alert. `match_weekday`: windows of less than a week are compared with
    the same weekdays of the reference.
    """

    alarm_budget: AlarmBudget = field(default_factory=AlarmBudget)
    effect_floors: EffectFloors = field(default_factory=EffectFloors)
    windows_days: tuple[int, ...] = (1, 7, 28)
    persistence: Persistence = field(default_factory=Persistence)
    min_effective_rows: int = 30
    min_importance_share: float = 0.02
    resolve_after_days: int = 3
    top_segment_values: int = 12
    match_weekday: bool = False


@dataclass(frozen=True)
class RemediationConfig:
    """What follows an alert. `observe` only recommends; `automatic` lets the sensor start retraining."""

    mode: Literal["observe", "automatic"] = "observe"
    train_window_days: int = 28
    focus_weight: float = 3.0
    holdout_share: float = 0.25
    min_labels: int = 500


@dataclass(frozen=True)
class RetentionConfig:
    """Days for which row-level tables are kept; histograms, scores and decisions are kept for good."""

    replay_log_days: int = 90
    quarantine_days: int = 90
    divergence_set_days: int = 90
    attributions_days: int = 90


@dataclass(frozen=True)
class MonitorConfig:
    """One monitor. `name` is its folder in `defs/`; `base_dir` is what relative paths start from."""

    name: str
    base_dir: Path
    source: SourceConfig
    features: tuple[FeatureSpec, ...]
    models: ModelsConfig
    reference: ReferenceConfig
    description: str = ""
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    labels: LabelsConfig | None = None
    context: tuple[str, ...] = ()
    derived_context: tuple[Literal["hour_of_day", "weekday"], ...] = ()
    divergence: DivergenceConfig = field(default_factory=DivergenceConfig)
    explanation: ExplanationConfig = field(default_factory=ExplanationConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    remediation: RemediationConfig = field(default_factory=RemediationConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    owners: tuple[str, ...] = ()
    schedule_hour: int = 6
    start_date: date | None = None
    end_date: date | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.features)

    @property
    def first_date(self) -> date:
        """First day of the monitor: `start_date`, or the first day of the reference."""
        return self.start_date or self.reference.start_date

    @property
    def segment_columns(self) -> tuple[str, ...]:
        """Columns whose values are segments: the context columns, then the derived ones."""
        return (*self.context, *self.derived_context)

    @property
    def reference_days(self) -> tuple[date, ...]:
        start, end = self.reference.start_date, self.reference.end_date
        return tuple(start + timedelta(days=i) for i in range((end - start).days + 1))

    @property
    def label_delay_days(self) -> int | None:
        """Days after a request by which its label is there whatever it is; None where labels are not compared."""
        return None if self.labels is None else self.labels.complete_after_days

    @property
    def roles_with_previous(self) -> tuple[str, ...]:
        """Model roles whose earlier version is configured."""
        return tuple(r for r in MODEL_ROLES if getattr(self.models, r).previous is not None)

    @property
    def alarm_rate_per_family(self) -> float:
        """False alarms a day that one family of scores may raise: `drift.alarm_budget`, of which drift scores and
        label scores get half each where labels are compared."""
        budget = self.drift.alarm_budget
        return budget.alarms / budget.per_days / (1 if self.label_delay_days is None else 2)

    def feature_column(self, feature: str) -> str:
        """Name of a feature's column in the source."""
        return self.columns.features.get(feature, feature)

    def resolve(self, path: str) -> str:
        """A path of this file made absolute; a URI is left alone."""
        if is_uri(path) or Path(path).is_absolute():
            return path
        return str(self.base_dir / path)

    def fingerprint(self, *sections: str) -> str:
        """Hash (16 hex digits) of the named sections or keys, so that a changed owner does not make scores stale.

        A key of a section is written with a dot: `explanation.seed`.
        """
        chosen = {name: _plain(functools.reduce(getattr, name.split("."), self)) for name in sections}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def from_mapping(cls, name: str, mapping: Mapping[str, Any], base_dir: Path) -> "MonitorConfig":
        """Build and check a configuration.

        Parameters
        ----------
        name
            Monitor name: lower-case letters, digits and underscores.
        mapping
            What the user wrote under `attributes:`, as plain lists, mappings and scalars.
        base_dir
            Folder from which relative paths are resolved.

        Raises
        ------
        ConfigError
            Naming the key's path, what was expected, what was found and the nearest valid name.
        """
        if not NAME_PATTERN.fullmatch(name):
            raise ConfigError(f"monitor name '{name}' cannot be used", expected="lower-case letters, digits and _")
        if not isinstance(mapping, Mapping):
            raise _wrong(name, "a mapping of keys", mapping)
        given = dict(mapping)
        if "features" in given:
            given["features"] = _features(given["features"], f"{name}.features")
        given |= {"name": name, "base_dir": base_dir}
        config: MonitorConfig = _build(cls, given, name, hidden=("name", "base_dir"))
        _check(config)
        _floors(config, given)
        return config


def _wrong(path: str, expected: str, found: object, next_step: str = "") -> ConfigError:
    return ConfigError(f"{path} is wrong", expected=expected, found=repr(found), next_step=next_step)


def _build(cls: Any, given: Mapping[str, Any], path: str, hidden: Sequence[str] = ()) -> Any:
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    public = [n for n in fields if n not in hidden]
    for key in given:
        if key not in fields:
            raise ConfigError(f"{path}.{key} is not a key", found=repr(key), next_step=nearest(str(key), public))
    values = {}
    for key, spec in fields.items():
        if key in given:
            values[key] = _value(hints[key], given[key], f"{path}.{key}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{path}.{key} is missing", expected=_describe(hints[key]), next_step=f"add '{key}:'")
    return cls(**values)


def _value(hint: Any, value: Any, path: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        options = [a for a in get_args(hint) if a is not type(None)]
        if value is None and len(options) < len(get_args(hint)):
            return None
        return _value(options[0], value, path)
    if origin is Literal:
        if value not in get_args(hint):
            hint_text = nearest(str(value), [str(a) for a in get_args(hint)])
            raise _wrong(path, _describe(hint), value, hint_text)
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise _wrong(path, "a list", value)
        return tuple(_value(get_args(hint)[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(path, "a mapping", value)
        return {str(k): _value(get_args(hint)[1], v, f"{path}.{k}") for k, v in value.items()}
    return _scalar(hint, value, path)


def _scalar(hint: Any, value: Any, path: str) -> Any:
    if isinstance(value, hint):
        if hint in (int, float) and isinstance(value, bool):
            raise _wrong(path, _describe(hint), value)
        return value.date() if isinstance(value, datetime) else value
    if hint is AlarmBudget and not isinstance(value, Mapping):
        return _alarm_budget(value, path)
    if hint is ModelConfig and isinstance(value, str):
        return ModelConfig(path=value)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise _wrong(path, "a mapping of keys", value)
        return _build(hint, value, path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is date and isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise _wrong(path, "a date such as 2025-01-31", value) from None
    raise _wrong(path, _describe(hint), value)


def _alarm_budget(value: Any, path: str) -> AlarmBudget:
    match = (
        re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s+per\s+(\d+)\s+days?\s*", value) if isinstance(value, str) else None
    )
    if not match:
        raise _wrong(path, "text such as '1 per 30 days', or a mapping with alarms, per_days", value)
    return AlarmBudget(float(match[1]), int(match[2]))


def _describe(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in get_args(hint))
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(a) for a in get_args(hint) if a is not type(None))
    if origin is tuple:
        return "a list"
    if dataclasses.is_dataclass(hint):
        return "a mapping with " + ", ".join(f.name for f in dataclasses.fields(hint))
    names = {
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        date: "a date such as 2025-01-31",
    }
    return names.get(hint, str(hint))


def _features(value: Any, path: str) -> tuple[FeatureSpec, ...]:
    """`numeric: [a, b]`, `boolean: [c]`, `categorical: [d]` or `categorical: {d: [level, …]}`."""
    if not isinstance(value, Mapping):
        raise _wrong(path, "a mapping with numeric, categorical, boolean", value)
    kinds = ("numeric", "categorical", "boolean")
    specs: list[FeatureSpec] = []
    for kind, names in value.items():
        if kind not in kinds:
            raise ConfigError(f"{path}.{kind} is not a key", found=repr(kind), next_step=nearest(str(kind), kinds))
        if isinstance(names, str) or not isinstance(names, Sequence | Mapping):
            raise _wrong(f"{path}.{kind}", "a list of feature names", names)
        for feature in names:
            levels = names[feature] if isinstance(names, Mapping) else ()
            if isinstance(names, Mapping) and kind != "categorical":
                raise _wrong(f"{path}.{kind}", "a list of feature names", names)
            if not isinstance(feature, str):
                raise _wrong(f"{path}.{kind}", "feature names as text", feature, "put the name in quotes")
            if isinstance(levels, str) or not isinstance(levels, Sequence):
                raise _wrong(f"{path}.{kind}.{feature}", "a list of levels, in the order of the model's codes", levels)
            specs.append(FeatureSpec(feature, kind, tuple(str(v) for v in levels)))
    return tuple(specs)


def _check(c: MonitorConfig) -> None:
    """Conditions between and on values. Each message starts with the key's path."""
    n = c.name
    names = c.feature_names
    if not names:
        raise _wrong(f"{n}.features", "at least one feature", [])
    for twice in sorted({f for f in names if names.count(f) > 1}):
        raise ConfigError(f"{n}.features names '{twice}' twice", next_step="remove one of them")
    for reserved in sorted(RESERVED_FEATURES.intersection((*names, *c.context))):
        raise ConfigError(f"{n}.features: '{reserved}' is a name the platform uses itself", next_step="rename it")
    for key in c.columns.features:
        if key not in names:
            raise ConfigError(f"{n}.columns.features.{key} is not a feature", next_step=nearest(key, names))
    if c.reference.end_date < c.reference.start_date:
        raise _wrong(f"{n}.reference.end_date", f"a date from {c.reference.start_date} on", str(c.reference.end_date))
    if c.first_date > c.reference.start_date:
        raise _wrong(f"{n}.start_date", f"a date up to {c.reference.start_date}", str(c.start_date))
    if c.end_date and c.end_date < c.reference.end_date:
        raise _wrong(f"{n}.end_date", f"a date from {c.reference.end_date} on", str(c.end_date))
    _formats(c)
    _models(c)
    _ranges(c)


def _formats(c: MonitorConfig) -> None:
    for key, part in (("source", c.source), ("labels", c.labels)):
        if part is not None and part.format is None and Path(part.path).suffix not in FORMATS:
            raise ConfigError(
                f"{c.name}.{key}.format is missing and the path's ending does not tell it",
                expected="parquet, csv or jsonl",
                found=part.path,
            )
    if c.labels is not None and "{date" not in c.labels.path:
        raise _wrong(f"{c.name}.labels.path", "a path with {date}, the day the labels arrived", c.labels.path)
    try:
        ZoneInfo(c.source.timezone)
    except (KeyError, ValueError, OSError):
        raise _wrong(f"{c.name}.source.timezone", "an IANA zone such as Europe/Lisbon", c.source.timezone) from None


def _models(c: MonitorConfig) -> None:
    for role in MODEL_ROLES:
        model: ModelConfig = getattr(c.models, role)
        path = f"{c.name}.models.{role}"
        _artifact(model, path)
        if model.previous is not None:
            _artifact(model.previous, f"{path}.previous")
            if model.previous.previous is not None:
                expected = "one earlier version: it is compared with the present one only"
                raise _wrong(f"{path}.previous.previous", expected, model.previous.previous.path)


def _artifact(model: ModelConfig, path: str) -> None:
    if model.trust_pickle and model.sha256 is None:
        expected = "the SHA-256 of the file beside trust_pickle: loading it runs its code"
        raise ConfigError(f"{path}.sha256 is missing", expected=expected, next_step=f"sha256sum {model.path}")
    if model.trust_pickle and not re.fullmatch(r"[0-9a-fA-F]{64}", str(model.sha256)):
        raise _wrong(f"{path}.sha256", "64 hexadecimal digits", model.sha256)
    if model.kind == "pickle" and not model.trust_pickle:
        expected = "a kind such as xgboost, or trust_pickle: true and sha256: loading a pickle runs its code"
        raise _wrong(f"{path}.kind", expected, model.kind)


def _ranges(c: MonitorConfig) -> None:
    d, e, r = c.drift, c.explanation, c.remediation
    floors = d.effect_floors
    quantile = c.divergence.threshold_quantile
    conditions: list[tuple[str, object, bool, str]] = [
        (
            "source.quarantine_limit_share",
            c.source.quarantine_limit_share,
            0 <= c.source.quarantine_limit_share <= 1,
            "0…1",
        ),
        ("source.separator", c.source.separator, len(c.source.separator) == 1, "one character"),
        ("divergence.threshold", c.divergence.threshold, c.divergence.threshold > 0, "a number above 0"),
        ("divergence.threshold_quantile", quantile, quantile is None or 0 < quantile < 1, "between 0 and 1"),
        ("divergence.kinds", c.divergence.kinds, len(c.divergence.kinds) > 0, "at least one kind"),
        (
            "explanation.budget_rows_per_day",
            e.budget_rows_per_day,
            e.budget_rows_per_day is None or e.budget_rows_per_day > 0,
            "1 or more, or null for as many as the explainer can do",
        ),
        ("explanation.seed", e.seed, 0 <= e.seed < 2**32, "0 … 4294967295"),
        ("explanation.background_rows", e.background_rows, e.background_rows >= 1, "1 or more"),
        ("explanation.quality_sample_rows", e.quality_sample_rows, e.quality_sample_rows >= 2, "2 or more"),
        ("explanation.targets.coverage", e.targets.coverage, 0 <= e.targets.coverage <= 1, "0…1"),
        ("explanation.targets.median_ms", e.targets.median_ms, e.targets.median_ms > 0, "a number above 0"),
        ("explanation.targets.p95_ms", e.targets.p95_ms, e.targets.p95_ms >= e.targets.median_ms, "median_ms or more"),
        ("explanation.targets.stability", e.targets.stability, -1 <= e.targets.stability < 1, "from -1, below 1"),
        ("explanation.targets.error_rate", e.targets.error_rate, 0 < e.targets.error_rate <= 1, "above 0, up to 1"),
        ("explanation.divergent_share", e.divergent_share, 0 < e.divergent_share < 1, "between 0 and 1"),
        ("explanation.replay_check_rows", e.replay_check_rows, e.replay_check_rows >= 0, "0 or more"),
        ("explanation.additivity_tolerance", e.additivity_tolerance, e.additivity_tolerance > 0, "a number above 0"),
        (
            "drift.alarm_budget",
            d.alarm_budget,
            0 < d.alarm_budget.alarms < d.alarm_budget.per_days,
            "above 0 and less than one a day",
        ),
        (
            "drift.effect_floors",
            floors,
            0 < floors.noted <= floors.warning <= floors.critical,
            "0 < noted ≤ warning ≤ critical",
        ),
        ("drift.windows_days", d.windows_days, bool(d.windows_days) and min(d.windows_days) >= 1, "whole days from 1"),
        ("drift.windows_days", d.windows_days, list(d.windows_days) == sorted(set(d.windows_days)), "in rising order"),
        ("drift.persistence", d.persistence, 1 <= d.persistence.days <= d.persistence.of, "1 ≤ days ≤ of"),
        ("drift.min_effective_rows", d.min_effective_rows, d.min_effective_rows >= 1, "1 or more"),
        ("drift.min_importance_share", d.min_importance_share, 0 <= d.min_importance_share < 1, "from 0, below 1"),
        ("drift.resolve_after_days", d.resolve_after_days, d.resolve_after_days >= 1, "1 or more"),
        ("drift.top_segment_values", d.top_segment_values, d.top_segment_values >= 1, "1 or more"),
        ("remediation.train_window_days", r.train_window_days, r.train_window_days >= 1, "1 or more"),
        ("remediation.focus_weight", r.focus_weight, r.focus_weight >= 1, "1 or more"),
        ("remediation.holdout_share", r.holdout_share, 0 < r.holdout_share < 1, "between 0 and 1"),
        ("remediation.min_labels", r.min_labels, r.min_labels >= 2, "2 or more"),
        ("schedule_hour", c.schedule_hour, 0 <= c.schedule_hour <= 23, "0…23"),
    ]
    for path, value, fine, expected in conditions:
        if not fine:
            raise _wrong(f"{c.name}.{path}", expected, _plain(value))
    _retention(c)
    _weekdays(c)
    if r.mode == "automatic" and c.labels is None and c.columns.label is None:
        raise _wrong(f"{c.name}.remediation.mode", "observe, or labels (or columns.label) to train on", r.mode)
    for owner in c.owners:
        if not (owner.startswith("team:") or "@" in owner):
            raise _wrong(f"{c.name}.owners", "e-mail addresses or team:name", owner)


def _retention(c: MonitorConfig) -> None:
    """Rows are kept as long as a window or the training asks for them."""
    longest, training = max(c.drift.windows_days), c.remediation.train_window_days
    window = (f"drift.windows_days has a window of {longest} days", longest)
    asked = dict.fromkeys(dataclasses.asdict(c.retention), window)
    key, days = ("remediation.train_window_days", training) if training > longest else ("drift.windows_days", longest)
    if c.label_delay_days is not None or key.startswith("remediation"):
        delay = c.label_delay_days or 0
        text = f"{key} asks for {days} days" + (f" after labels.complete_after_days, {delay}" if delay else "")
        asked["replay_log_days"] = (text, delay + days)
    for name, (reason, needed) in asked.items():
        kept = getattr(c.retention, name)
        if kept < needed:
            step = f"set retention.{name} to {needed} or more, or shorten what asks for it"
            raise _wrong(f"{c.name}.retention.{name}", f"at least {needed}: {reason}", kept, step)


def _weekdays(c: MonitorConfig) -> None:
    days = len(c.reference_days)
    if c.drift.match_weekday and days < MIN_WEEKDAY_REFERENCE_DAYS:
        expected = f"a reference of {MIN_WEEKDAY_REFERENCE_DAYS} days or more, so that it has each weekday twice"
        step = "set reference.end_date later, or match_weekday to false"
        raise ConfigError(
            f"{c.name}.drift.match_weekday cannot be true", expected=expected, found=f"{days} days", next_step=step
        )


def _floors(c: MonitorConfig, given: Mapping[str, Any]) -> None:
    """Floors of a metric other than PSI: all three written, and within what the metric can be."""
    floors, path = c.drift.effect_floors, f"{c.name}.drift.effect_floors"
    if floors.metric in PSI_METRICS:
        return
    drift = given.get("drift")
    written = drift.get("effect_floors") if isinstance(drift, Mapping) else None
    keys = ("noted", "warning", "critical")
    missing = [k for k in keys if k not in written] if isinstance(written, Mapping) else []
    if missing:
        raise ConfigError(
            f"{path}.{missing[0]} is missing",
            expected=f"noted, warning and critical in units of {floors.metric}: the defaults are PSI in nats",
            found=", ".join(k for k in keys if k not in missing) or "none of the three",
            next_step=f"add {', '.join(missing)}",
        )
    if floors.metric in UNIT_METRICS and floors.critical > 1:
        raise _wrong(f"{path}.critical", f"at most 1, the largest {floors.metric} there is", floors.critical)
    if floors.metric == "importance_ratio" and floors.noted <= 1:
        raise _wrong(f"{path}.noted", "above 1, which is no change of importance_ratio", floors.noted)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {k: _plain(v) for k, v in dataclasses.asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, int | float | str | bool | None) else str(value)
