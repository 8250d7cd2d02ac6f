"""This package's own rule, through the pure entry points that the flow uses.

Belongs here: windows from daily histograms, and reading the alarm and the first finding from the graded rows.
Does not belong here: any threshold.
"""

from typing import Any

import numpy as np

from benchmarks.detection.days import Day, Stream, calendar, sum_of
from benchmarks.detection.verdicts import Verdict
from xai_assets.config import DriftConfig
from xai_assets.decide.findings import daily_findings
from xai_assets.records import severity_rank


class Calibrated:
    """Scores of the windows that end on a day, graded against the calibration of the reference days.

    An alarm is any row of population `all` that is at least noted. What is named first is the worst finding of the
    day, in the order in which alerts are listed.
    """

    name, evidence = "xai_assets", "xai_assets, evidence alone"

    def __init__(self, stream: Stream, drift: DriftConfig | None = None) -> None:
        self.drift = drift or DriftConfig()
        self._profile = stream.profile
        self._calibration = self._calibrate(stream)

    def _calibrate(self, stream: Stream) -> Any:
        from xai_assets.flow.calibration import calibrate_days

        return calibrate_days(stream.reference_days, stream.profile, self.drift)

    def judge(self, day: Day, before: list[Day]) -> dict[str, Verdict]:
        rows = self.scores(day, before)
        everybody = rows["population"] == "all"
        noted = np.array([severity_rank(s) >= severity_rank("noted") for s in rows["severity"]])
        feature, segment = self.first(day, rows)
        found = {self.name: Verdict(bool(np.any(everybody & noted)), feature, segment)}
        if "evidence" in rows:
            found[self.evidence] = self._evidence(rows, everybody)
        return found

    def scores(self, day: Day, before: list[Day]) -> dict[str, Any]:
        """Graded rows of the day, as `drift_scores` holds them."""
        from xai_assets.flow.scoring import score_windows

        return score_windows(self.windows(day, before), self._profile, self._calibration, self.drift)

    def windows(self, day: Day, before: list[Day]) -> dict[int, Any]:
        """Sums of the last days per length of window; a longer one adds its older days to a shorter one."""
        days = [d.blocks for d in (*before, day)]
        found: dict[int, Any] = {}
        done = 0
        for window in sorted(self.drift.windows_days):
            older = days[-window : len(days) - done]
            found[window] = sum_of([*found.values()][-1:] + older)
            done = window
        return found

    def first(self, day: Day, rows: dict[str, Any]) -> tuple[str, str]:
        """Feature and segment of the worst finding."""
        findings = daily_findings(calendar(day.number), rows, None, self.drift).findings
        if not findings:
            return "", ""
        worst = min(findings, key=lambda f: (-severity_rank(f.severity), -f.effect, f.role, f.feature))
        return worst.feature, worst.segment

    def _evidence(self, rows: dict[str, Any], everybody: Any) -> Verdict:
        excess = np.where(everybody, np.nan_to_num(rows["evidence"] - rows["evidence_threshold"], nan=-np.inf), -np.inf)
        at = int(np.argmax(excess))
        return Verdict(bool(excess[at] >= 0), str(rows["feature"][at]), str(rows["segment"][at]))
