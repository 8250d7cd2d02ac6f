"""What to do about the open alerts: repair an input, retrain, give the experimental model less traffic, nothing.

Belongs here: the step from alerts to recommendations, with every reason. Does not belong here: opening alerts (see
`alerts`), starting anything (see `retrain`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from xai_assets.config import RemediationConfig
from xai_assets.decide.alerts import SETTLING_DAYS
from xai_assets.decide.causes import INPUT_FAULT, RELATION_CHANGED
from xai_assets.decide.localise import nested
from xai_assets.records import EXPERIMENTAL, MODEL_ROLES, OVERALL, PRODUCTION, Alert, Recommendation, severity_rank

INVESTIGATE, RETRAIN, REDUCE_TRAFFIC, NONE = "investigate_upstream", "retrain", "reduce_traffic", "none"
DIVERGENCE_RATIO, DIVERGENCE_Z = 2.0, 4.0
"""The divergence rate is raised from this multiple of the reference on, with this evidence (normal deviate)."""
RAISED_DAYS, OF_DAYS = 2, 3


def recommend(
    alerts: Sequence[Alert],
    as_of: date,
    remediation: RemediationConfig,
    divergence_rates: Mapping[date, tuple[float, int]],
    reference_rate: float,
) -> list[Recommendation]:
    """Recommendations as of a day; never empty: with nothing to do there is one of action `none`.

    - `investigate_upstream`, one per feature and segment with an open `input_fault`, whatever the role.
    - `retrain`, at most one per model role, from its open alerts of at least severity warning; features with an open
      `input_fault` are left out (a model must not learn a broken input). A changed relation weighs first.
    - `reduce_traffic` to the experimental model, where only for it the relation to the truth changed, or where the
      divergence rate is at least twice the reference's. A raised rate under an open `input_fault` is put down to the
      fault.

    Parameters
    ----------
    alerts
        Alerts as of the day (`alerts.fold_findings`), resolved ones among them: they keep identities stable.
    as_of
        The day.
    remediation
        Its `mode` is stated in the evidence of `retrain`.
    divergence_rates
        Day → (share of requests that diverge, 0–1; requests).
    reference_rate
        That share over the reference days; NaN where it is not known.
    """
    active = [a for a in alerts if a.state != "resolved"]
    raised = _raised(divergence_rates, as_of, reference_rate)
    found = _investigations(active, raised)
    found += [r for role in MODEL_ROLES if (r := _retraining(role, alerts, remediation)) is not None]
    if (reduction := _reduction(active, raised)) is not None:
        found.append(reduction)
    return found or [_nothing(active, as_of)]


def recommendation_id(action: str, target: str, *parts: str) -> str:
    """Identity of a recommendation: 12 hex digits over its action, its target and what opened it."""
    return hashlib.sha256("|".join((action, target, *parts)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class _RaisedRate:
    """A divergence rate above the reference's: since when, and in words."""

    since: date
    text: str


def _investigations(active: Sequence[Alert], raised: _RaisedRate | None) -> list[Recommendation]:
    groups: dict[tuple[str, str], list[Alert]] = {}
    for alert in active:
        if alert.cause == INPUT_FAULT:
            groups.setdefault((alert.feature, alert.segment), []).append(alert)
    return [_investigation(*place, group, raised) for place, group in sorted(groups.items())]


def _investigation(feature: str, segment: str, group: Sequence[Alert], raised: _RaisedRate | None) -> Recommendation:
    opened = min(a.opened_on for a in group)
    worst = max(group, key=lambda a: (severity_rank(a.severity), a.role == PRODUCTION, a.effect))
    others = sorted({name for a in group for name in a.moved_with})
    texts = [worst.sentence]
    if others:
        texts.append(f"Moved with it: {', '.join(others)}.")
    if raised:
        texts.append(f"{raised.text} That may be its consequence.")
    return Recommendation(
        recommendation_id=recommendation_id(INVESTIGATE, "upstream", feature, segment, str(opened)),
        action=INVESTIGATE,
        target="upstream",
        focus_features=(feature,),
        focus_segments=(segment,),
        opened_on=opened,
        evidence=" ".join(texts),
        alert_fingerprints=_fingerprints(group),
    )


def _retraining(role: str, alerts: Sequence[Alert], remediation: RemediationConfig) -> Recommendation | None:
    broken = {a.feature for a in alerts if a.cause == INPUT_FAULT and a.state != "resolved"}
    concerned = [a for a in alerts if a.role == role and a.cause != INPUT_FAULT and a.feature not in broken]
    loud = [a for a in concerned if severity_rank(a.severity) >= severity_rank("warning")]
    active = sorted((a for a in loud if a.state != "resolved"), key=_weight)
    if not active:
        return None
    family, opened = _newest_event(concerned)
    left_out = f" Left out as broken inputs: {', '.join(sorted(broken))}." if broken else ""
    mode = {"observe": "Nothing is started: remediation mode is observe."}.get(remediation.mode, "")
    return Recommendation(
        recommendation_id=recommendation_id(RETRAIN, role, family, str(opened)),
        action=RETRAIN,
        target=role,
        focus_features=tuple(dict.fromkeys(a.feature for a in active if a.feature != "*")),
        focus_segments=tuple(dict.fromkeys(a.segment for a in active if a.segment != OVERALL)),
        opened_on=opened,
        evidence=" ".join([*(a.sentence for a in active), *filter(None, (left_out.strip(), mode))]),
        alert_fingerprints=_fingerprints(active),
    )


def _weight(alert: Alert) -> tuple[object, ...]:
    """A changed relation first: there the model is wrong; elsewhere it is only used on other requests."""
    return (alert.cause != RELATION_CHANGED, -severity_rank(alert.severity), -alert.effect, alert.feature)


def _newest_event(alerts: Sequence[Alert]) -> tuple[str, date]:
    """What opened the recommendation: the newest event that still has an open alert, and the day it began.

    An event is a set of alerts that opened within `SETTLING_DAYS` of its first one; changed relations make events of
    their own. Alerts that are resolved but still reported keep the beginning of their event in place. So a
    recommendation keeps its identity while an event fills up, and gets another one, and with it another retraining,
    when a separate fault opens later.
    """
    events: list[tuple[date, str, list[Alert]]] = []
    for family, members in _families(alerts).items():
        for alert in sorted(members, key=lambda a: (a.opened_on, a.fingerprint)):
            last = events[-1] if events and events[-1][1] == family else None
            if last is not None and (alert.opened_on - last[0]).days <= SETTLING_DAYS:
                last[2].append(alert)
            else:
                events.append((alert.opened_on, family, [alert]))
    live = [(day, family) for day, family, members in events if any(_asks(a) for a in members)]
    day, family = max(live)
    return family, day


def _asks(alert: Alert) -> bool:
    """Whether an alert by itself calls for retraining; a quieter one still says when its event began."""
    return alert.state != "resolved" and severity_rank(alert.severity) >= severity_rank("warning")


def _families(alerts: Sequence[Alert]) -> dict[str, list[Alert]]:
    families: dict[str, list[Alert]] = {}
    for alert in alerts:
        families.setdefault("relation" if alert.cause == RELATION_CHANGED else "attributions", []).append(alert)
    return families


def _reduction(active: Sequence[Alert], raised: _RaisedRate | None) -> Recommendation | None:
    worse = [a for a in active if a.cause == RELATION_CHANGED and a.role == EXPERIMENTAL]
    worse = [a for a in worse if severity_rank(a.severity) >= severity_rank("warning")]
    shared = [a for a in active if a.cause == RELATION_CHANGED and a.role == PRODUCTION]
    worse = [a for a in worse if not any(nested(a.segment, b.segment) for b in shared)]
    if any(a.cause == INPUT_FAULT for a in active):
        raised = None
    if not worse and raised is None:
        return None
    days = [a.opened_on for a in worse] + ([raised.since] if raised else [])
    texts = [f"{a.sentence} The production model is not concerned." for a in worse] + ([raised.text] if raised else [])
    return Recommendation(
        recommendation_id=recommendation_id(REDUCE_TRAFFIC, EXPERIMENTAL, str(min(days))),
        action=REDUCE_TRAFFIC,
        target=EXPERIMENTAL,
        focus_features=tuple(dict.fromkeys(a.feature for a in worse if a.feature != "*")),
        focus_segments=tuple(dict.fromkeys(a.segment for a in worse if a.segment != OVERALL)),
        opened_on=min(days),
        evidence=" ".join(texts),
        alert_fingerprints=_fingerprints(worse),
    )


def _raised(rates: Mapping[date, tuple[float, int]], as_of: date, reference: float) -> _RaisedRate | None:
    """Whether the rate is raised on `RAISED_DAYS` of the last `OF_DAYS` known days, and since when it is."""
    if not 0 < reference < 1:
        return None
    days = sorted(d for d in rates if d <= as_of)
    high = [_is_raised(*rates[d], reference) for d in days]
    lasting = [sum(high[max(0, i - OF_DAYS + 1) : i + 1]) >= RAISED_DAYS for i in range(len(days))]
    if not lasting or not lasting[-1]:
        return None
    first = len(lasting) - next((i for i, x in enumerate(reversed(lasting)) if not x), len(lasting))
    latest = next(i for i in reversed(range(len(days))) if high[i])
    rate, rows = rates[days[latest]]
    text = f"The models diverge on {rate:.1%} of {rows} requests ({days[latest]}), in the reference on {reference:.1%}."
    return _RaisedRate(days[first], text.replace("%", " %"))


def _is_raised(rate: float, rows: int, reference: float) -> bool:
    if rows <= 0 or not rate >= DIVERGENCE_RATIO * reference:
        return False
    return bool((rate - reference) / np.sqrt(reference * (1 - reference) / rows) >= DIVERGENCE_Z)


def _nothing(active: Sequence[Alert], as_of: date) -> Recommendation:
    text = f"No alert is open on {as_of}."
    if active:
        names = ", ".join(sorted({f"{a.feature} ({a.role}, {a.segment}, {a.severity})" for a in active}))
        text = f"Open alerts on {as_of} call for no action: {names}."
    return Recommendation(
        recommendation_id=recommendation_id(NONE, "-"),
        action=NONE,
        target="-",
        focus_features=(),
        focus_segments=(),
        opened_on=as_of,
        evidence=text,
        alert_fingerprints=_fingerprints(active),
    )


def _fingerprints(alerts: Sequence[Alert]) -> tuple[str, ...]:
    return tuple(sorted({a.fingerprint for a in alerts}))
