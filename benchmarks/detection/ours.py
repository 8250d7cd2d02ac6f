"""This package's own rule, through the pure entry points that the flow uses.

Belongs here: windows from daily histograms, and reading the alarm and the first finding from the graded rows.
Does not belong here: any threshold.
"""

from typing import Any

import numpy as np

from benchmarks.detection.days import Day, Stream, calendar
from benchmarks.detection.verdicts import Verdict
from xai_assets.config import DriftConfig
from xai_assets.decide.findings import daily_findings
from xai_assets.flow.calibration import calibrate_days
from xai_assets.flow.scoring import score_windows, window_of
from xai_assets.records import OUTPUT, severity_rank


class Calibrated:
    """Scores of the windows that end on a day, graded against the calibration of the reference days.

    An alarm is any row that is at least noted (only population `all` is judged). What is named first is the worst
    finding of the day, in the order in which alerts are listed.
    """

    name, evidence = "xai_assets", "xai_assets, evidence alone"

    def __init__(self, stream: Stream, drift: DriftConfig | None = None) -> None:
        self.drift = drift or DriftConfig()
        self._profile = stream.profile
        self.calibration = calibrate_days(stream.reference_days, stream.profile, self.drift)

    def judge(self, day: Day, before: list[Day]) -> dict[str, Verdict]:
        rows = self.scores(day, before)
        noted = [severity_rank(s) >= severity_rank("noted") for s in rows["severity"]]
        return {self.name: Verdict(any(noted), *self._first(day, rows)), self.evidence: self._loudest(rows)}

    def scores(self, day: Day, before: list[Day]) -> dict[str, Any]:
        """Graded rows of the day, as `drift_scores` holds them."""
        days = [d.blocks for d in (*before, day)]
        windows = {length: window_of(days[-length:]) for length in self.drift.windows_days}
        return score_windows(windows, self._profile, self.calibration, self.drift)

    def _first(self, day: Day, rows: dict[str, Any]) -> tuple[str, str]:
        """Feature and segment of the worst finding."""
        findings = daily_findings(calendar(day.number), rows, None, self.drift).findings
        if not findings:
            return "", ""
        worst = min(findings, key=lambda f: (-severity_rank(f.severity), -f.effect, f.role, f.feature))
        return worst.feature, worst.segment

    def _loudest(self, rows: dict[str, Any]) -> Verdict:
        """Without the floor on the effect: the judged row whose evidence is furthest above its threshold."""
        important = (rows["role"] == OUTPUT) | (rows["importance_share"] >= self.drift.min_importance_share)
        judged = important & (rows["severity"] != "insufficient") & np.isfinite(rows["threshold"])
        excess = np.where(judged, rows["evidence"] - rows["threshold"], -np.inf)
        at = int(np.argmax(excess))
        return Verdict(bool(excess[at] >= 0), str(rows["feature"][at]), str(rows["segment"][at]))
