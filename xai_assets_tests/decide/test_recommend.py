"""Recommendations: one healthy baseline, one fault at a time; identities that hold still."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest

from xai_assets.config import RemediationConfig
from xai_assets.decide.recommend import recommend
from xai_assets.records import Alert, Recommendation

DAY = date(2025, 3, 1)
QUIET = {DAY - timedelta(days=i): (0.10, 5_000) for i in range(10)}


def _alert(feature: str = "income", opened: int = 0, **changes: object) -> Alert:
    alert = Alert(
        fingerprint=f"{feature}-{changes.get('role', 'production')}-{changes.get('cause', 'population_moved')}",
        state="ongoing",
        severity="critical",
        cause="population_moved",
        role="production",
        feature=feature,
        segment="region=south",
        window_days=1,
        first_exceeded_on=DAY + timedelta(days=opened - 1),
        opened_on=DAY + timedelta(days=opened),
        last_seen_on=DAY + timedelta(days=opened),
        effect=1.0,
        effect_unit="nats",
        sentence=f"`{feature}` moved.",
    )
    return replace(alert, **changes)  # type: ignore[arg-type]


def _recommend(
    alerts: Sequence[Alert], rates: dict | None = None, reference: float = 0.10, mode: str = "observe"
) -> list[Recommendation]:
    remediation = RemediationConfig(mode=mode)  # type: ignore[arg-type]
    return recommend(alerts, DAY, remediation, QUIET if rates is None else rates, reference)


def test_nothing_to_do_is_said() -> None:
    (one,) = _recommend([])
    assert (one.action, one.target, one.focus_features) == ("none", "-", ())
    assert one.evidence == "No alert is open on 2025-03-01."


def test_a_broken_input_is_investigated_once_for_all_roles_and_never_learnt() -> None:
    broken = [
        _alert(role=r, cause="input_fault", moved_with=("age",)) for r in ("production", "experimental", "difference")
    ]
    (one,) = _recommend(broken)
    assert (one.action, one.target) == ("investigate_upstream", "upstream")
    assert (one.focus_features, one.focus_segments) == (("income",), ("region=south",))
    assert len(one.alert_fingerprints) == 3
    assert "Moved with it: age." in one.evidence


def test_alerts_of_a_feature_with_a_broken_input_do_not_call_for_retraining() -> None:
    broken = _alert(role="experimental", cause="input_fault", segment="channel=broker")
    assert {r.action for r in _recommend([broken, _alert()])} == {"investigate_upstream"}
    with_other = _recommend([broken, _alert(), _alert("age")])
    (retrain,) = [r for r in with_other if r.action == "retrain"]
    assert retrain.focus_features == ("age",)
    assert "Left out as broken inputs: income." in retrain.evidence


def test_a_moved_population_calls_for_one_retraining_per_model() -> None:
    alerts = [_alert(role=r, feature=f) for r in ("production", "experimental") for f in ("income", "age")]
    found = _recommend(alerts)
    assert [(r.action, r.target, r.focus_features) for r in found] == [
        ("retrain", "production", ("age", "income")),
        ("retrain", "experimental", ("age", "income")),
    ]
    assert all(r.focus_segments == ("region=south",) for r in found)
    assert "remediation mode is observe" in found[0].evidence
    assert "observe" not in _recommend(alerts, mode="automatic")[0].evidence


@pytest.mark.parametrize(
    "changes, actions",
    [
        ({}, {"retrain"}),
        ({"severity": "warning"}, {"retrain"}),
        ({"severity": "noted"}, {"none"}),
        ({"state": "resolved"}, {"none"}),
        ({"cause": "use_changed"}, {"retrain"}),
        ({"cause": "relation_changed"}, {"retrain"}),
        ({"role": "difference"}, {"none"}),
        ({"cause": "input_fault"}, {"investigate_upstream"}),
        ({"cause": "input_fault", "role": "input", "severity": "noted"}, {"investigate_upstream"}),
        ({"cause": "relation_changed", "role": "experimental"}, {"retrain", "reduce_traffic"}),
    ],
)
def test_one_field_at_a_time(changes: dict, actions: set[str]) -> None:
    assert {r.action for r in _recommend([_alert(**changes)])} == actions


def test_open_alerts_that_call_for_nothing_are_named() -> None:
    (one,) = _recommend([_alert(severity="noted")])
    assert "income (production, region=south, noted)" in one.evidence


def test_a_changed_relation_weighs_first() -> None:
    relation = _alert("rate", cause="relation_changed", segment="overall", severity="warning", effect=0.06)
    (one,) = _recommend([_alert(), relation])
    assert one.focus_features == ("rate", "income")
    assert one.focus_segments == ("region=south",)


def test_a_relation_that_changed_for_both_models_is_no_fault_of_the_experimental_one() -> None:
    both = [_alert(role=r, cause="relation_changed") for r in ("production", "experimental")]
    assert {r.action for r in _recommend(both)} == {"retrain"}
    apart = [both[0], replace(both[1], segment="region=north")]
    assert "reduce_traffic" in {r.action for r in _recommend(apart)}


def _rates(*last: float, rows: int = 5_000) -> dict[date, tuple[float, int]]:
    return QUIET | {DAY - timedelta(days=len(last) - 1 - i): (rate, rows) for i, rate in enumerate(last)}


@pytest.mark.parametrize(
    "rates, reference, raised",
    [
        (_rates(0.21, 0.22), 0.10, True),
        (_rates(0.19, 0.19), 0.10, False),
        (_rates(0.10, 0.25), 0.10, False),
        (_rates(0.25, 0.10, 0.25), 0.10, True),
        (_rates(0.25, 0.10, 0.10), 0.10, False),
        (_rates(0.25, 0.25, rows=30), 0.10, False),
        (_rates(0.25, 0.25), float("nan"), False),
        (_rates(0.25, 0.25), 0.0, False),
        ({}, 0.10, False),
    ],
)
def test_a_raised_divergence_rate_reduces_traffic(rates: dict, reference: float, raised: bool) -> None:
    actions = {r.action for r in _recommend([], rates, reference)}
    assert actions == ({"reduce_traffic"} if raised else {"none"})


def test_the_raised_rate_keeps_its_first_day_and_identity() -> None:
    rates = _rates(0.25, 0.25, 0.25, 0.25)
    found = []
    for back in (2, 1, 0):
        day = DAY - timedelta(days=back)
        (one,) = recommend([], day, RemediationConfig(), rates, 0.10)
        found.append(one)
    assert len({r.recommendation_id for r in found}) == 1
    assert {r.opened_on for r in found} == {DAY - timedelta(days=2)}
    assert "25.0 % of 5000 requests" in found[0].evidence


def test_a_raised_rate_under_a_broken_input_is_put_down_to_it() -> None:
    (one,) = _recommend([_alert(cause="input_fault")], _rates(0.3, 0.3))
    assert one.action == "investigate_upstream"
    assert "That may be its consequence." in one.evidence


def _retrain_id(*alerts: Alert) -> str:
    (one,) = [r for r in _recommend(alerts) if r.action == "retrain" and r.target == "production"]
    return one.recommendation_id


def test_the_identity_holds_while_one_event_fills_up_and_lasts() -> None:
    first = _alert("age", opened=0)
    identity = _retrain_id(first)
    second, third = _alert("income", opened=1), _alert("debt", opened=6, segment="overall")
    assert _retrain_id(first, second) == identity
    assert _retrain_id(first, second, third) == identity
    # The first one is over; while it is reported the event keeps its beginning.
    assert _retrain_id(replace(first, state="resolved"), second, third) == identity
    assert _retrain_id(replace(first, effect=9.9, severity="warning"), second) == identity


def test_a_separate_fault_that_opens_later_is_another_recommendation() -> None:
    shift = _alert("age", opened=0)
    relation = _alert("rate", opened=3, cause="relation_changed", segment="overall")
    late_shift = _alert("debt", opened=20)
    first = _retrain_id(shift)
    assert _retrain_id(shift, relation) != first
    assert _retrain_id(shift, late_shift) != first
    # The relation stays: what it opened stays, whatever becomes of the shift.
    assert (
        _retrain_id(relation) == _retrain_id(shift, relation) == _retrain_id(replace(shift, state="resolved"), relation)
    )
    # It goes, the shift stays: back to the identity that was started before.
    assert _retrain_id(shift, replace(relation, state="resolved")) == first


def test_identities_of_targets_and_actions_differ() -> None:
    alerts = [
        _alert(role=r, cause=c)
        for r in ("production", "experimental")
        for c in ("population_moved", "relation_changed")
    ]
    alerts += [_alert("other", cause="input_fault")]
    ids = [r.recommendation_id for r in _recommend(alerts, _rates(0.3, 0.3))]
    assert len(ids) == len(set(ids)) == 3


def test_order_of_alerts_does_not_matter() -> None:
    alerts = [
        _alert(f, opened=i, cause=c) for i, f in enumerate("abc") for c in ("population_moved", "relation_changed")
    ]
    assert _recommend(alerts) == _recommend(alerts[::-1])
