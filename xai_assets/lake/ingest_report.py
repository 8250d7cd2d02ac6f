"""What happened to a day's rows: counted while they are read, kept in the footer, read back from it.

Belongs here: counting, and `IngestReport` as JSON. Does not belong here: what makes a row usable.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from xai_assets.config import MonitorConfig
from xai_assets.lake.readers import RawBatch
from xai_assets.lake.store import Lake
from xai_assets.lake.validate import OUTSIDE, Validated
from xai_assets.records import IngestReport, SourceFile


@dataclass
class Counts:
    """Where the rows of a day went, while they are read."""

    read: int = 0
    quarantined: int = 0
    other_days: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    outside: list[pl.Series] = field(default_factory=list)

    def add(self, batch: RawBatch, checked: Validated) -> None:
        """Count one batch."""
        self.read += batch.frame.height + len(batch.broken)
        self.quarantined += checked.bad.height + len(batch.broken)
        self.other_days += checked.other_days
        self.outside.append(checked.outside)
        for reason, rows in (*checked.reason_counts.items(), *((b.kind, 1) for b in batch.broken)):
            self.reasons[reason] = self.reasons.get(reason, 0) + rows

    def report(self, day: date, files: tuple[SourceFile, ...], stored: int, duplicates: int, zone: str) -> IngestReport:
        """The report, without what is known of the stored rows only."""
        status = "missing" if not files else "complete" if self.read - self.other_days else "empty"
        return IngestReport(
            date=day,
            status=status,
            files=files,
            rows_read=self.read,
            rows_stored=stored,
            rows_duplicate=duplicates,
            rows_quarantined=self.quarantined,
            rows_other_days=self.other_days,
            quarantine_reasons={self._hint(r, zone): n for r, n in sorted(self.reasons.items())},
        )

    def _hint(self, reason: str, zone: str) -> str:
        """Where most rows read are outside the day, say by how much: a zone or a date that is wrong throughout."""
        if reason != OUTSIDE or self.reasons[OUTSIDE] * 2 <= self.read:
            return reason
        median = pl.concat(self.outside).median()
        assert isinstance(median, timedelta)
        minutes = round(abs(median) / timedelta(minutes=1))
        side = "before it starts" if median < timedelta() else "after it ends"
        typical = f"{minutes // 60} h {minutes % 60} min {side}"
        return f"{reason}: most rows, typically {typical}; check source.timezone ({zone}) and {{date}} in source.path"


class Shape:
    """Counts what is missing and what was never seen before, per feature."""

    def __init__(self, config: MonitorConfig, categories: Mapping[str, Sequence[str]]) -> None:
        self._features = config.feature_names
        self._levels = {f.name: list(categories[f.name]) for f in config.features if categories.get(f.name)}
        self._missing = dict.fromkeys(self._features, 0)
        self._unseen = dict.fromkeys(self._levels, 0)
        self._rows = 0

    def count(self, frame: pl.DataFrame) -> None:
        """Count stored rows."""
        self._rows += frame.height
        for name in self._features:
            self._missing[name] += frame[name].null_count()
        for name, levels in self._levels.items():
            known = frame[name].drop_nulls()
            self._unseen[name] += len(known) - int(known.is_in(levels).sum())

    def fill(self, report: IngestReport) -> IngestReport:
        """The report with what was counted."""
        rows = max(self._rows, 1)
        return replace(
            report,
            unseen_categories={n: c for n, c in self._unseen.items() if c},
            missing_share={n: c / rows for n, c in self._missing.items()},
        )


def stored_report(lake: Lake, table: str, monitor: str, day: date) -> IngestReport:
    """The report in the footer of a stored `replay_log` or `labels` partition. Raises LakeError where there is none."""
    return parse_report(lake.metadata(table, monitor, day)["report"])


def parse_report(text: str) -> IngestReport:
    """A report from the JSON that `report_json` made of it."""
    stored: dict[str, Any] = json.loads(text)
    difference = stored["replay_max_difference"]
    return IngestReport(
        **stored
        | {
            "date": date.fromisoformat(stored["date"]),
            "files": tuple(
                SourceFile(f["uri"], f["size_bytes"], datetime.fromisoformat(f["modified_at"])) for f in stored["files"]
            ),
            "replay_max_difference": float("nan") if difference is None else difference,
        }
    )


def report_json(report: IngestReport) -> str:
    """A report as strict JSON; a difference that was not measured is null."""
    plain = asdict(report)
    if np.isnan(report.replay_max_difference):
        plain["replay_max_difference"] = None
    return json.dumps(plain, default=lambda v: v.isoformat(), sort_keys=True)
