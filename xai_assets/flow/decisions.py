"""Alerts and recommendations of a day from everything stored up to it.

Belongs here: reading scores for the pure fold, and the rows of `drift_alerts` and `recommendations`.
Does not belong here: the fold (`decide.alerts`) and what to recommend (`decide.recommend`).
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import polars as pl

from xai_assets.decide.alerts import fold_findings
from xai_assets.decide.causes import VersionFacts
from xai_assets.decide.findings import LABEL_COLUMNS, SCORE_COLUMNS, DayFindings, daily_findings
from xai_assets.decide.recommend import recommend
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import all_days
from xai_assets.lake.tables import DRIFT_ALERTS, RECOMMENDATIONS
from xai_assets.records import Alert, Recommendation


class AlertFolder:
    """Folds stored scores into alerts; the findings of each day are computed once."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._findings: dict[date, DayFindings | None] = {}

    def write_day(self, day: date, provenance: str) -> pl.DataFrame:
        """Compute and store `drift_alerts` of one day; returns what was stored."""
        frame = rows_of(self.alerts(day), DRIFT_ALERTS.schema)
        self.monitor.lake.write("drift_alerts", self.monitor.name, day, frame, {"provenance": provenance})
        return frame

    def alerts(self, day: date) -> list[Alert]:
        """Alerts as of a day, a pure fold over all stored days up to it. Stores nothing."""
        config = self.monitor.config
        reference = set(config.reference_days)  # which the fold passes over, so they need not be read
        days = (d for d in all_days(config.first_date, day) if d not in reference)
        found = {d: f for d in days if (f := self._day(d)) is not None}
        return fold_findings(found, day, config.drift, config.reference_days, config.label_delay_days or 0)

    def _day(self, day: date) -> DayFindings | None:
        if day not in self._findings:
            self._findings[day] = self._load(day)
        return self._findings[day]

    def _load(self, day: date) -> DayFindings | None:
        scores = self._columns("drift_scores", day, SCORE_COLUMNS)
        labels = self._columns("label_scores", day, LABEL_COLUMNS)
        if scores is None and labels is None:
            return None
        kinds = {f.name: f.kind for f in self.monitor.config.features}
        drift, versions = self.monitor.config.drift, self._versions(day)
        return daily_findings(day, scores, labels, drift, kinds=kinds, versions=versions)

    def _versions(self, day: date) -> dict[tuple[str, str], VersionFacts]:
        """What the new version of each role whose earlier one is configured did on the day; of these two only."""
        lake, name = self.monitor.lake, self.monitor.name
        found: dict[tuple[str, str], VersionFacts] = {}
        if not self.monitor.config.roles_with_previous or not lake.exists("version_effects", name, day):
            return found
        rows = lake.read("version_effects", name, day)
        for role in self.monitor.config.roles_with_previous:
            pair = (self.monitor.previous_model(role).version, self.monitor.model(role).version)
            for row in rows.filter(pl.col("role") == role).iter_rows(named=True):
                if (row["previous_version"], row["model_version"]) == pair:
                    facts = VersionFacts(row["data_effect_nats"], row["model_effect_nats"], row["verdict"])
                    found[role, str(row["feature"])] = facts
        return found

    def _columns(self, table: str, day: date, columns: Sequence[str]) -> dict[str, Any] | None:
        lake, name = self.monitor.lake, self.monitor.name
        if not lake.exists(table, name, day):
            return None
        frame = lake.read(table, name, day, columns=list(columns))
        if frame.is_empty():
            return None
        if "population" in columns:
            # The others are not read by the findings; leaving them here halves the time of a year's fold.
            frame = frame.filter((pl.col("population") == "all") & (pl.col("severity") != "insufficient"))
        return {c: frame[c].to_numpy() for c in columns}


class Recommender:
    """Recommends from stored alerts and divergence rates; each day's footer is read once."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._rates: dict[date, tuple[float, int] | None] = {}

    def write_day(self, day: date, provenance: str) -> pl.DataFrame:
        """Compute and store `recommendations` of one day; returns what was stored."""
        lake, name, config = self.monitor.lake, self.monitor.name, self.monitor.config
        alerts = [Alert(**_tuples(row)) for row in lake.read("drift_alerts", name, day).iter_rows(named=True)]
        rates, reference = self.divergence_rates(day)
        frame = rows_of(recommend(alerts, day, config.remediation, rates, reference), RECOMMENDATIONS.schema)
        lake.write("recommendations", name, day, frame, {"provenance": provenance})
        return frame

    def divergence_rates(self, day: date) -> tuple[dict[date, tuple[float, int]], float]:
        """Per day up to `day`: (share of requests that diverge, requests); and that share over the reference days."""
        config = self.monitor.config
        rates = {d: r for d in all_days(config.first_date, day) if (r := self._rate(d)) is not None}
        reference = [rates[d] for d in config.reference_days if d in rates]
        requests = sum(n for _, n in reference)
        return rates, sum(r * n for r, n in reference) / requests if requests else float("nan")

    def _rate(self, day: date) -> tuple[float, int] | None:
        if day not in self._rates:
            self._rates[day] = self._load(day)
        return self._rates[day]

    def _load(self, day: date) -> tuple[float, int] | None:
        lake, name = self.monitor.lake, self.monitor.name
        if not lake.exists("attribution_histograms", name, day):
            return None
        report = json.loads(lake.metadata("attribution_histograms", name, day)["divergence_report"])
        return (report["divergent_rows"] / report["rows"], report["rows"]) if report["rows"] else None


def retrain_recommendations(monitor: Monitor, days: Iterable[date]) -> list[tuple[date, Recommendation]]:
    """Stored retrain recommendations of these days, with the day of each."""
    found = []
    for day in days:
        if monitor.lake.exists("recommendations", monitor.name, day):
            rows = monitor.lake.read("recommendations", monitor.name, day).filter(pl.col("action") == "retrain")
            found += [(day, Recommendation(**_tuples(row))) for row in rows.iter_rows(named=True)]
    return found


def rows_of(records: Sequence[Alert] | Sequence[Recommendation], schema: dict[str, Any]) -> pl.DataFrame:
    """Records as rows of their table, in the table's column order and types."""
    rows = [dataclasses.asdict(r) for r in records]
    return pl.DataFrame([[_listed(row[c]) for c in schema] for row in rows], schema=schema, orient="row")


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
