"""Which open retrain recommendations are to be started now, and why the others are not.

Belongs here: the decision inside the retraining sensor. Does not belong here: reading tables, cursors, runs.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

from xai_assets.decide.recommend import RETRAIN
from xai_assets.records import Recommendation


@dataclass(frozen=True)
class Launch:
    """One retraining to start. `as_of` is the last day on which it was recommended: rows up to it may be used."""

    recommendation_id: str
    as_of: date
    target: str
    recommendation: Recommendation


def decide_launches(
    rows: Sequence[tuple[date, Recommendation]], *, launched: Collection[str], mode: str
) -> tuple[list[Launch], list[str]]:
    """Retrainings to start, oldest recommendation first, and in words why each other one is skipped.

    Every identity is started once, however many days name it: a range of days that was computed in one run may hold
    several. With mode `observe` nothing is started.

    Parameters
    ----------
    rows
        Recommendations with the day of their partition, in any order; actions other than `retrain` are passed over.
    launched
        Identities started before.
    mode
        `observe` or `automatic` (`remediation.mode`).
    """
    latest: dict[str, tuple[date, Recommendation]] = {}
    for day, recommendation in sorted(rows, key=lambda row: row[0]):
        if recommendation.action == RETRAIN:
            latest[recommendation.recommendation_id] = (day, recommendation)
    launches, reasons = [], []
    for identity, (day, recommendation) in sorted(latest.items(), key=lambda kv: (kv[1][1].opened_on, kv[0])):
        reason = _obstacle(identity, recommendation, launched, mode)
        if reason:
            reasons.append(f"{identity} ({recommendation.target}, opened {recommendation.opened_on}): {reason}")
        else:
            launches.append(Launch(identity, day, recommendation.target, recommendation))
    return launches, reasons


def _obstacle(identity: str, recommendation: Recommendation, launched: Collection[str], mode: str) -> str:
    if identity in launched:
        return "retraining was started before"
    if recommendation.state != "open":
        return f"the recommendation is {recommendation.state}"
    if mode != "automatic":
        return f"remediation mode is {mode}; set it to automatic, or start the retraining job by hand"
    return ""
