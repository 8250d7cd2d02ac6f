"""The state of every alert as of a day: a pure fold over the findings of all days up to it.

Belongs here: persistence, opening, resolving, identity, the sentence. Does not belong here: what one day's rows say
(see `findings`), what to do (see `recommend`).

The fold starts anew each time, from the stored scores alone. So any day can be recomputed, in any order, and the
result for a day never depends on results stored for others.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from xai_assets.config import DriftConfig
from xai_assets.decide.causes import INPUT_FAULT, RELATION_CHANGED
from xai_assets.decide.findings import Columns, DayFindings, Disturbance, Finding, daily_findings
from xai_assets.decide.localise import nested, overlapping, siblings
from xai_assets.records import DIFFERENCE, EXPERIMENTAL, INPUT, OVERALL, PRODUCTION, WHOLE, Alert, severity_rank

REPORTED_AFTER_DAYS = 7
"""Days for which a resolved alert is still reported."""
ECHO_TOLERANCE = 1.25
MEMORY_DAYS = 60
"""Days for which a story remembers what it saw; longer than the longest usual window."""
SETTLING_DAYS = 7
"""Alerts that open within so many days of a first one are taken for the same event: windows fill at their own pace."""


def fold_alerts(
    score_rows_by_day: Mapping[date, Columns],
    label_rows_by_day: Mapping[date, Columns],
    as_of: date,
    drift: DriftConfig,
    reference_days: Collection[date],
    label_delay_days: int = 0,
) -> list[Alert]:
    """`fold_findings` over the rows themselves; to fold several days, compute the findings of each day once."""
    days = sorted({d for d in (*score_rows_by_day, *label_rows_by_day) if d <= as_of})
    findings = {d: daily_findings(d, score_rows_by_day.get(d), label_rows_by_day.get(d), drift) for d in days}
    return fold_findings(findings, as_of, drift, reference_days, label_delay_days)


def fold_findings(
    findings_by_day: Mapping[date, DayFindings],
    as_of: date,
    drift: DriftConfig,
    reference_days: Collection[date],
    label_delay_days: int = 0,
) -> list[Alert]:
    """Alerts as of a day, the worst first.

    An alert opens when its role and feature exceed on `drift.persistence.days` of the last `.of` judged days, or at
    once from severity `.at_once_from` on, is resolved after `drift.resolve_after_days` judged days without, and is
    reported for `REPORTED_AFTER_DAYS` more. Days without rows, and days on which its segment had too few requests to
    judge its feature, count neither way. Nothing that is seen on a reference day counts. A finding belongs to a running
    alert of the same role and feature when their segments are the same or one is `overall`, or when they share requests
    and the cause is the same; a longer window that only
    remembers what a shorter one saw and no longer sees (`is_echo`) counts as not seen; place and cause shown are those
    of most of the last `.of` days on which it was seen, the identity (`fingerprint`) is that of the day it opened.

    A changed relation to the truth is believed only outside of disturbed requests: while an input is broken in one
    channel, residuals change there without the truth having changed. It has to show in another value of that
    context as well. Of several features that show one in the same place, the one with the strongest evidence is
    named; the others moved with it.

    Parameters
    ----------
    findings_by_day
        `daily_findings` by day; days after `as_of` are not read.
    as_of
        The day of the report.
    drift
        Persistence and resolution.
    reference_days
        Days on which nothing can open.
    label_delay_days
        Days between a request and the day whose label rows hold it (`labels.complete_after_days`).
    """
    tracks: list[_Track] = []
    disturbed: dict[date, tuple[Disturbance, ...]] = {}
    for day in sorted(d for d in findings_by_day if d <= as_of and d not in reference_days):
        findings = findings_by_day[day]
        disturbed[day] = findings.disturbances
        relations = _believed(findings, disturbed, label_delay_days)
        tracks = _step(tracks, findings, (*findings.findings, *relations), drift)
    return _report(tracks, as_of)


@dataclass(frozen=True)
class Sighting:
    """An effect (nats) seen over the `window_days` days that end on `day`."""

    day: date
    window_days: int
    effect: float


def is_echo(finding: Finding, day: date, sightings: Sequence[Sighting]) -> bool:
    """Whether a longer window only remembers what shorter windows saw and no longer see.

    PSI is convex: w days of which k were seen with effect e, the others being as in the reference, reach at most
    e·k/w together (`ECHO_TOLERANCE` allows for days of different size). What exceeds that is a drift of its own, such
    as a small lasting one.
    """
    days = [day - timedelta(days=i) for i in range(finding.window_days)]
    shorter = [s for s in sightings if s.window_days < finding.window_days]
    covered = [max((s.effect for s in shorter if 0 <= (s.day - d).days < s.window_days), default=0.0) for d in days]
    return bool(shorter) and finding.effect <= ECHO_TOLERANCE * sum(covered) / len(days)


@dataclass
class _Track:
    """One running story. `recent`: for the last judged days, whether it was seen."""

    role: str
    feature: str
    of_labels: bool
    segment: str
    first_exceeded_on: date
    last_seen_on: date
    seen: list[Finding] = field(default_factory=list)
    recent: list[bool] = field(default_factory=list)
    clear_days: int = 0
    opened_on: date | None = None
    resolved_on: date | None = None
    fingerprint: str = ""
    sightings: list[Sighting] = field(default_factory=list)


def fingerprint(role: str, feature: str, segment: str, cause: str) -> str:
    """Identity of an alert: 12 hex digits.

    >>> fingerprint("production", "income", "overall", "input_fault")
    '5a1e30bb62c9'
    """
    return hashlib.sha256("|".join((role, feature, segment, cause)).encode()).hexdigest()[:12]


def _step(tracks: Sequence[_Track], day: DayFindings, findings: Sequence[Finding], drift: DriftConfig) -> list[_Track]:
    finished = [t for t in tracks if t.resolved_on is not None]
    running = [t for t in tracks if t.resolved_on is None]
    attached: dict[int, Finding] = {}
    for finding in (f for f in findings if not _is_echo_of(f, day.day, tracks)):
        track = _track_of(finding, running, attached)
        if track is None:
            track = _new_track(finding, day.day)
            running.append(track)
        attached[id(track)] = finding
    for finding in day.continued:
        track = _track_of(finding, running, attached)
        if track is not None:
            attached[id(track)] = finding
    for track in running:
        _advance(track, attached.get(id(track)), day, drift)
    kept = [t for t in running if t.opened_on is not None or any(t.recent)]
    return finished + kept


def _is_echo_of(finding: Finding, day: date, tracks: Sequence[_Track]) -> bool:
    if finding.cause == RELATION_CHANGED or finding.window_days == 1:
        return False
    same = [t for t in tracks if not t.of_labels and (t.role, t.feature) == (finding.role, finding.feature)]
    return is_echo(finding, day, [s for t in same if nested(t.segment, finding.segment) for s in t.sightings])


def _track_of(finding: Finding, running: Sequence[_Track], attached: Mapping[int, Finding]) -> _Track | None:
    """The running story a finding continues: the same segment, else a nested one, else one that shares requests and
    has the same cause; then the oldest.

    A fault in one channel shows in the regions of its requests as well; which of them stands out differs from day to
    day, and from window to window, without there being a second fault."""
    matching = [
        t
        for t in running
        if id(t) not in attached
        and (t.role, t.feature, t.of_labels) == (finding.role, finding.feature, finding.cause == RELATION_CHANGED)
        and (nested(t.segment, finding.segment) or _same_story(t, finding))
    ]

    def order(track: _Track) -> tuple[bool, bool, date]:
        same, held = track.segment == finding.segment, nested(track.segment, finding.segment)
        return (not same, not held, track.first_exceeded_on)

    return min(matching, key=order, default=None)


def _same_story(track: _Track, finding: Finding) -> bool:
    return overlapping(track.segment, finding.segment) and track.seen[-1].cause == finding.cause


def _new_track(finding: Finding, day: date) -> _Track:
    of_labels = finding.cause == RELATION_CHANGED
    return _Track(finding.role, finding.feature, of_labels, finding.segment, day, day)


def _advance(track: _Track, finding: Finding | None, day: DayFindings, drift: DriftConfig) -> None:
    of = drift.persistence.of
    if finding is not None:
        track.seen = [*track.seen, finding][-of:]
        track.recent = [*track.recent, True][-of:]
        track.last_seen_on, track.clear_days = day.day, 0
        recently = [s for s in track.sightings if (day.day - s.day).days < MEMORY_DAYS]
        track.sightings = [*recently, Sighting(day.day, finding.window_days, finding.effect)]
        track.segment = _majority([f.segment for f in track.seen])
    elif track.feature in (day.labels_judged if track.of_labels else day.judged).get((track.role, track.segment), ()):
        track.recent = [*track.recent, False][-of:]
        track.clear_days += 1
    if track.opened_on is None and (sum(track.recent) >= drift.persistence.days or _at_once(finding, drift)):
        track.opened_on = day.day
        cause = _majority([f.cause for f in track.seen])
        track.fingerprint = fingerprint(track.role, track.feature, track.segment, cause)
    elif track.opened_on is not None and track.clear_days >= drift.resolve_after_days:
        track.resolved_on = day.day


def _at_once(finding: Finding | None, drift: DriftConfig) -> bool:
    first = drift.persistence.at_once_from
    return finding is not None and first != "never" and severity_rank(finding.severity) >= severity_rank(first)


def _majority(words: Sequence[str]) -> str:
    """The most frequent word; among equals the one used last."""
    counts = Counter(words)
    return max(counts, key=lambda w: (counts[w], len(words) - 1 - words[::-1].index(w)))


def _believed(
    findings: DayFindings, disturbed: Mapping[date, tuple[Disturbance, ...]], label_delay_days: int
) -> list[Finding]:
    """Changed relations that no broken input explains, one per role and place, the others folded into it."""
    named: list[Finding] = []
    for finding in findings.relations:
        if _explained(finding, _disturbances_of(finding, findings.day, disturbed, label_delay_days), findings):
            continue
        root = next(
            (i for i, f in enumerate(named) if f.role == finding.role and nested(f.segment, finding.segment)), -1
        )
        if root < 0:
            named.append(finding)
        else:
            others = {*named[root].moved_with, finding.feature}
            named[root] = replace(named[root], moved_with=tuple(sorted(others)))
    return named


def _disturbances_of(
    finding: Finding, day: date, disturbed: Mapping[date, tuple[Disturbance, ...]], label_delay_days: int
) -> set[Disturbance]:
    """What was wrong with the inputs on the days whose requests the labels of the window belong to."""
    last = day - timedelta(days=label_delay_days)
    days = (last - timedelta(days=i) for i in range(finding.window_days))
    return {d for past in days for d in disturbed.get(past, ())}


def _explained(finding: Finding, disturbances: Collection[Disturbance], findings: DayFindings) -> bool:
    for d in disturbances:
        concerns = d.cause == INPUT_FAULT or finding.feature in (d.feature, WHOLE)
        if not concerns or not nested(d.segment, finding.segment):
            continue
        if d.segment == OVERALL and d.cause != INPUT_FAULT and finding.feature != WHOLE:
            # Another mix of requests leaves the mean residual within a cell as it was: this one did not come from it.
            continue
        judged = [s for r, s in findings.labels_judged if r == finding.role]
        if not set(siblings(judged, d.segment)).intersection(finding.exceeding):
            return True
    return False


def _report(tracks: Sequence[_Track], as_of: date) -> list[Alert]:
    alerts: dict[str, Alert] = {}
    for track in sorted(tracks, key=lambda t: (t.resolved_on is None, t.opened_on or date.min)):
        if track.opened_on is None:
            continue
        if _is_past(track, tracks, as_of):
            continue
        alert = _alert(track, as_of)
        alerts[alert.fingerprint] = alert
    return sorted(alerts.values(), key=_rank)


def _is_past(track: _Track, tracks: Sequence[_Track], as_of: date) -> bool:
    """Resolved long enough, and no story that began beside it still runs: that one's event begins with this."""
    if track.resolved_on is None or (as_of - track.resolved_on).days <= REPORTED_AFTER_DAYS:
        return False
    opened = track.opened_on or date.min
    running = (
        t.opened_on for t in tracks if t.resolved_on is None and t.opened_on is not None and t.role == track.role
    )
    return not any(abs((day - opened).days) <= SETTLING_DAYS for day in running)


def _rank(alert: Alert) -> tuple[object, ...]:
    return (alert.state == "resolved", -severity_rank(alert.severity), -alert.effect, alert.role, alert.feature)


def _alert(track: _Track, as_of: date) -> Alert:
    assert track.opened_on is not None
    cause = _majority([f.cause for f in track.seen])
    shown = next((f for f in track.seen[::-1] if (f.segment, f.cause) == (track.segment, cause)), track.seen[-1])
    state = "resolved" if track.resolved_on else "open" if track.opened_on == as_of else "ongoing"
    return Alert(
        fingerprint=track.fingerprint,
        state=state,
        severity=max((f.severity for f in track.seen), key=severity_rank),
        cause=cause,
        role=track.role,
        feature=track.feature,
        segment=track.segment,
        window_days=shown.window_days,
        first_exceeded_on=track.first_exceeded_on,
        opened_on=track.opened_on,
        last_seen_on=track.last_seen_on,
        effect=shown.effect,
        effect_unit=shown.effect_unit,
        sentence=_sentence(track, cause, shown),
        moved_with=tuple(sorted({name for f in track.seen for name in f.moved_with} - {track.feature})),
        effect_of=shown.effect_of,
    )


_WHO = {
    PRODUCTION: "the production model",
    EXPERIMENTAL: "the experimental model",
    DIFFERENCE: "the disagreement of the two models",
}


def _sentence(track: _Track, cause: str, shown: Finding) -> str:
    where = "for all requests" if track.segment == OVERALL else f"for {track.segment}"
    since, feature = track.first_exceeded_on, f"`{track.feature}`"
    known = f"In labels complete since {since}"
    if track.role == INPUT:
        start = f"Since {since} the input {feature} looks broken {where}: "
    elif cause == RELATION_CHANGED and track.feature == WHOLE:
        start = f"{known} outcomes are no longer as {_WHO[track.role]} predicts {where}, whatever the feature: "
    elif cause == RELATION_CHANGED:
        start = f"{known} {feature} no longer means for the truth what {_WHO[track.role]} learnt {where}: "
    else:
        start = f"Since {since} {feature} contributes differently to {_WHO[track.role]} {where}: "
    end = f" Not seen since {track.last_seen_on}: resolved." if track.resolved_on else ""
    return start + shown.detail + end
