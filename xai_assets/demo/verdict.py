"""What the platform found of what was planted: the closing table of the demo.

Belongs here: a pure comparison of the planted truth with stored alerts, recommendations and launched retrainings.
Does not belong here: reading tables, printing, making a miss look like a find.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from xai_assets.demo.faults import PlantedFault
from xai_assets.records import OVERALL, Alert, Recommendation

RETRAIN = "retrain"


@dataclass(frozen=True)
class VerdictRow:
    """One planted fault and what became of it.

    found: "yes" (an alert names the right feature and segment), "partly" (of the right cause, but one of the two is
    wrong) or "no". delay_days counts from the first day on which any data could show the fault.
    retraining_started: None where no retraining was called for.
    """

    fault: PlantedFault
    found: str
    found_on: date | None = None
    delay_days: int | None = None
    feature: str | None = None
    feature_right: bool = False
    segment: str | None = None
    segment_right: bool = False
    cause: str | None = None
    cause_right: bool = False
    recommendation: str | None = None
    recommendation_right: bool = False
    retraining_started: bool | None = None

    def cells(self) -> dict[str, str]:
        """The row as text, by column heading."""
        planted = f"{self.fault.features[0]} in {self.fault.segment}: {self.fault.name}"
        visible = "" if self.fault.visible_from == self.fault.first_date else f", visible {self.fault.visible_from}"
        return {
            "planted fault": planted,
            "from": f"{self.fault.first_date} (day {self.fault.first_day}{visible})",
            "found": self.found,
            "on": "-" if self.found_on is None else f"{self.found_on} (+{self.delay_days} d)",
            "feature": _judged(self.feature, self.feature_right),
            "segment": _judged(self.segment, self.segment_right),
            "cause": _judged(self.cause, self.cause_right),
            "recommendation": _judged(self.recommendation, self.recommendation_right),
            "retraining": {None: "not called for", True: "started", False: "not started"}[self.retraining_started],
        }


def verdict(
    faults: Sequence[PlantedFault],
    alerts: Mapping[date, Sequence[Alert]],
    recommendations: Mapping[date, Sequence[Recommendation]],
    launched: Collection[str] = (),
) -> tuple[VerdictRow, ...]:
    """One row per planted fault.

    Parameters
    ----------
    alerts, recommendations
        As stored on each day.
    launched
        Ids of the recommendations for which a retraining was started.
    """
    return tuple(_judge(fault, _first_states(alerts), recommendations, launched) for fault in faults)


def unexplained_alerts(
    faults: Sequence[PlantedFault], alerts: Mapping[date, Sequence[Alert]]
) -> tuple[tuple[date, Alert], ...]:
    """Alerts that no planted fault accounts for, with the day they opened: false alarms, in order of time.

    An alert is accounted for when it opened once the fault's requests had come in, and names one of the fault's
    features, or its segment (a segment that is not everybody).
    """
    return tuple(
        (alert.opened_on, alert)
        for alert in _first_states(alerts)
        if not any(alert.opened_on >= f.first_date and _related(f, alert) for f in faults)
    )


def _first_states(alerts: Mapping[date, Sequence[Alert]]) -> list[Alert]:
    """Each opening of an alert as it was first stored."""
    seen: dict[tuple[str, date], Alert] = {}
    for day in sorted(alerts):
        for alert in alerts[day]:
            if alert.state != "resolved":
                seen.setdefault((alert.fingerprint, alert.opened_on), alert)
    return sorted(seen.values(), key=lambda a: (a.opened_on, a.fingerprint))


def _related(fault: PlantedFault, alert: Alert) -> bool:
    return alert.feature in fault.features or (alert.segment == fault.segment and fault.segment != OVERALL)


def _judge(
    fault: PlantedFault,
    alerts: Sequence[Alert],
    recommendations: Mapping[date, Sequence[Recommendation]],
    launched: Collection[str],
) -> VerdictRow:
    candidates = [a for a in alerts if a.opened_on >= fault.visible_from and _candidate(fault, a)]
    called_for = fault.expected_action == RETRAIN
    if not candidates:
        return VerdictRow(fault, "no", retraining_started=False if called_for else None)
    best = max(candidates, key=lambda a: (*_quality(fault, a), -a.opened_on.toordinal(), a.effect))
    feature_right, segment_right, cause_right = _quality_parts(fault, best)
    answers = _answers(candidates, recommendations)
    right = next((r for r in answers if r.action == fault.expected_action), None)
    answer = right or next((r for r in answers if r.action != "none"), None)
    started = {r.recommendation_id for r in answers if r.action == RETRAIN} & set(launched)
    return VerdictRow(
        fault=fault,
        found="yes" if feature_right and segment_right else "partly",
        found_on=best.opened_on,
        delay_days=(best.opened_on - fault.visible_from).days,
        feature=best.feature,
        feature_right=feature_right,
        segment=best.segment,
        segment_right=segment_right,
        cause=best.cause,
        cause_right=cause_right,
        recommendation=None if answer is None else answer.action,
        recommendation_right=right is not None,
        retraining_started=bool(started) if called_for or started else None,
    )


def _candidate(fault: PlantedFault, alert: Alert) -> bool:
    """Exactly this fault under whatever cause, or one of its sides under the right cause."""
    feature_right, segment_right, cause_right = _quality_parts(fault, alert)
    if feature_right and segment_right:
        return True
    return cause_right and (feature_right or (segment_right and fault.segment != OVERALL))


def _quality_parts(fault: PlantedFault, alert: Alert) -> tuple[bool, bool, bool]:
    return alert.feature in fault.features, alert.segment == fault.segment, alert.cause == fault.expected_cause


def _quality(fault: PlantedFault, alert: Alert) -> tuple[bool, bool, bool]:
    feature_right, segment_right, cause_right = _quality_parts(fault, alert)
    return feature_right and segment_right, cause_right, feature_right


def _answers(
    candidates: Sequence[Alert], recommendations: Mapping[date, Sequence[Recommendation]]
) -> list[Recommendation]:
    """Recommendations that cite one of the alerts, oldest first, each once."""
    fingerprints = {a.fingerprint for a in candidates}
    found: dict[str, Recommendation] = {}
    for day in sorted(recommendations):
        for recommendation in recommendations[day]:
            if fingerprints.intersection(recommendation.alert_fingerprints):
                found.setdefault(recommendation.recommendation_id, recommendation)
    return list(found.values())


def _judged(word: str | None, right: bool) -> str:
    if word is None:
        return "-"
    return word if right else f"{word} (wrong)"
