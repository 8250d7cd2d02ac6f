"""The closing table: a find is a find, a half find says which half, and a miss is a miss."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from xai_assets.demo.faults import DEFAULT_FAULTS, POPULATION_SHIFT, RELATION_CHANGE, UNIT_ERROR
from xai_assets.demo.verdict import unexplained_alerts, verdict
from xai_assets.records import Alert, Recommendation

OPENED = UNIT_ERROR.first_date + timedelta(days=1)
ALERT = Alert(
    fingerprint="a1",
    state="open",
    severity="critical",
    cause="input_fault",
    role="production",
    feature="annual_income",
    segment="channel=broker",
    window_days=1,
    first_exceeded_on=UNIT_ERROR.first_date,
    opened_on=OPENED,
    last_seen_on=OPENED,
    effect=7.0,
    effect_unit="nats",
    sentence="annual_income moved in channel=broker",
)
ANSWER = Recommendation(
    recommendation_id="r1",
    action="investigate_upstream",
    target="upstream",
    focus_features=("annual_income",),
    focus_segments=("channel=broker",),
    opened_on=OPENED,
    evidence="…",
    alert_fingerprints=("a1",),
)
RETRAIN_ALERT = replace(
    ALERT,
    fingerprint="a2",
    cause="relation_changed",
    feature="interest_rate_percent",
    segment="overall",
    opened_on=RELATION_CHANGE.visible_from + timedelta(days=1),
)
RETRAIN = replace(ANSWER, recommendation_id="r2", action="retrain", target="production", alert_fingerprints=("a2",))


def judged(fault=UNIT_ERROR, alerts=(ALERT,), recommendations=(ANSWER,), launched=()):
    by_day = {a.opened_on: [x for x in alerts if x.opened_on == a.opened_on] for a in alerts}
    advice = {r.opened_on: [x for x in recommendations if x.opened_on == r.opened_on] for r in recommendations}
    return verdict((fault,), by_day, advice, launched)[0]


def test_found_right_in_every_respect():
    row = judged()
    assert (row.found, row.found_on, row.delay_days) == ("yes", OPENED, 1)
    assert row.feature_right
    assert row.segment_right
    assert row.cause_right
    assert row.recommendation_right
    assert row.retraining_started is None
    assert row.cells() == {
        "planted fault": "annual_income in channel=broker: annual_income in thousands",
        "from": "2025-02-04 (day 35)",
        "found": "yes",
        "on": "2025-02-05 (+1 d)",
        "feature": "annual_income",
        "segment": "channel=broker",
        "cause": "input_fault",
        "recommendation": "investigate_upstream",
        "retraining": "not called for",
    }


@pytest.mark.parametrize(
    "changes, found, wrong",
    [
        ({"segment": "overall"}, "partly", "segment"),
        ({"feature": "loan_amount"}, "partly", "feature"),
        ({"cause": "population_moved"}, "yes", "cause"),
        ({"segment": "overall", "cause": "population_moved"}, "no", None),
        ({"feature": "loan_amount", "cause": "population_moved"}, "no", None),
        ({"feature": "loan_amount", "segment": "overall"}, "no", None),
        ({"opened_on": UNIT_ERROR.first_date - timedelta(days=1)}, "no", None),
    ],
)
def test_one_thing_wrong_at_a_time(changes, found, wrong):
    row = judged(alerts=(replace(ALERT, **changes),))
    assert row.found == found
    if wrong is not None:
        assert row.cells()[wrong].endswith("(wrong)")
    else:
        assert row.found_on is None
        assert row.cells()["on"] == row.cells()["feature"] == row.cells()["recommendation"] == "-"


def test_nothing_stored_is_a_miss_for_all():
    rows = verdict(DEFAULT_FAULTS, {}, {}, ())
    assert [r.found for r in rows] == ["no"] * 3
    assert [r.retraining_started for r in rows] == [None, False, False]
    assert [r.cells()["retraining"] for r in rows] == ["not called for", "not started", "not started"]


def test_the_best_alert_is_named_and_the_earliest_of_equals():
    half = replace(ALERT, fingerprint="a0", segment="overall", opened_on=UNIT_ERROR.first_date)
    late = replace(ALERT, fingerprint="a3", opened_on=OPENED + timedelta(days=4), effect=99.0)
    row = judged(alerts=(half, late, ALERT))
    assert (row.segment, row.found_on) == ("channel=broker", OPENED)


def test_a_resolved_alert_alone_is_no_find_and_ongoing_days_count_once():
    assert judged(alerts=(replace(ALERT, state="resolved"),)).found == "no"
    later = replace(ALERT, state="ongoing", effect=9.0)
    days = {OPENED: [ALERT], OPENED + timedelta(days=1): [later]}
    assert verdict((UNIT_ERROR,), days, {}, ())[0].found_on == OPENED


def test_delay_counts_from_the_first_day_on_which_data_could_show_it():
    row = judged(RELATION_CHANGE, (RETRAIN_ALERT,), (RETRAIN,), {"r2"})
    assert (row.found, row.delay_days) == ("yes", 1)
    assert row.retraining_started is True
    assert "visible 2025-02-26" in row.cells()["from"]
    early = replace(RETRAIN_ALERT, opened_on=RELATION_CHANGE.first_date)
    assert judged(RELATION_CHANGE, (early,), (RETRAIN,)).found == "no"


@pytest.mark.parametrize("launched, started", [((), False), (("r9",), False), (("r2", "r9"), True)])
def test_retraining_counts_only_for_the_recommendation_that_cites_the_alert(launched, started):
    assert judged(RELATION_CHANGE, (RETRAIN_ALERT,), (RETRAIN,), launched).retraining_started is started


def test_a_retraining_nobody_called_for_is_shown():
    wrong = replace(RETRAIN, alert_fingerprints=("a1",))
    row = judged(recommendations=(wrong,), launched=("r2",))
    assert row.cells()["recommendation"] == "retrain (wrong)"
    assert row.cells()["retraining"] == "started"


def test_another_segments_alert_is_not_taken_for_a_population_shift():
    north = replace(ALERT, cause="population_moved", feature="loan_amount", segment="region=north")
    assert judged(POPULATION_SHIFT, (replace(north, opened_on=date(2025, 2, 20)),)).found == "no"


def test_false_alarms():
    before = replace(ALERT, fingerprint="b", opened_on=UNIT_ERROR.first_date - timedelta(days=5))
    elsewhere = replace(ALERT, fingerprint="c", feature="purpose", segment="region=west")
    consequence = replace(ALERT, fingerprint="d", feature="purpose")
    whole = replace(ALERT, fingerprint="e", segment="overall")
    found = unexplained_alerts((UNIT_ERROR,), {OPENED: [before, elsewhere, consequence, whole, ALERT]})
    assert [(day, a.fingerprint) for day, a in found] == [(before.opened_on, "b"), (OPENED, "c")]
    assert unexplained_alerts((), {OPENED: [ALERT]}) == ((OPENED, ALERT),)
