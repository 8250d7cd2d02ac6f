"""The fold: persistence, resolution, identity, and independence of the order of computation."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.config import DriftConfig, Persistence
from xai_assets.decide.alerts import ECHO_TOLERANCE, Sighting, fingerprint, fold_alerts, fold_findings, is_echo
from xai_assets.decide.findings import DayFindings, Disturbance, Finding
from xai_assets.records import Alert
from xai_assets.stats import drift

START = date(2025, 2, 1)
DRIFT = DriftConfig()
TWO_OF_THREE = DriftConfig(persistence=Persistence(2, 3, "never"))
SEGMENTS = ("overall", "channel=web", "channel=broker", "region=north")
FEATURES = frozenset(("income", "age", "debt", "*"))
FINDING = Finding(
    role="production",
    feature="income",
    segment="channel=broker",
    window_days=1,
    cause="input_fault",
    severity="critical",
    effect=1.83,
    effect_unit="nats",
    evidence=1.83,
    exceeding=("channel=broker",),
    detail="corrected PSI 1.83 nats, mean |φ| 0.42 → 0.11. 96 % of its values are missing.",
)
RELATION = replace(
    FINDING, feature="age", segment="overall", cause="relation_changed", exceeding=SEGMENTS, effect=0.1, evidence=9.0
)


def _day(offset: int, *findings: Finding, judged: Sequence[str] = SEGMENTS, **more: object) -> DayFindings:
    day = START + timedelta(days=offset)
    roles = ("production", "experimental", "difference", "input")
    all_judged = {(r, s): FEATURES for r in roles for s in judged}
    return DayFindings(day, tuple(findings), judged=all_judged, labels_judged=all_judged, **more)  # type: ignore[arg-type]


def _fold(days: Sequence[DayFindings], as_of: int, drift: DriftConfig = DRIFT, **settings_: int) -> list[Alert]:
    reference = [START - timedelta(days=i) for i in range(1, 29)]
    findings = {d.day: d for d in days}
    return fold_findings(findings, START + timedelta(days=as_of), drift, reference, **settings_)


def _states(pattern: str, drift: DriftConfig = DRIFT, finding: Finding = FINDING) -> str:
    """A letter per day: x exceeds, . clear, ? not judged, - no rows. Back: o open, O ongoing, r resolved, . nothing."""
    days = []
    for i, letter in enumerate(pattern):
        if letter == "x":
            days.append(_day(i, finding))
        elif letter == ".":
            days.append(_day(i))
        elif letter == "?":
            days.append(_day(i, judged=("overall",)))
    letters = {"open": "o", "ongoing": "O", "resolved": "r"}
    found = [_fold(days, i, drift) for i in range(len(pattern))]
    assert all(len(alerts) <= 1 for alerts in found)
    return "".join(letters[a[0].state] if a else "." for a in found)


@pytest.mark.parametrize(
    "pattern, states",
    [
        ("......", "......"),
        ("x.....", "......"),
        ("xx....", ".oOOrr"),
        ("x.x...", "..oOOr"),
        ("x..x..", "......"),
        ("xx..x..x", ".oOOOOOO"),
        ("xx..?.", ".oOOOr"),
        ("xx..--.", ".oOOOOr"),
        ("x?x", "..o"),
        ("x-x", "..o"),
        ("x??.x", "....o"),
        # Reported for seven days after it was resolved.
        ("xx...........", ".oOOrrrrrrrr."),
        # Comes back: needs persistence again.
        ("xx...x...", ".oOOrrrrr"),
        ("xx...xx...", ".oOOrroOOr"),
    ],
)
def test_states_by_day(pattern: str, states: str) -> None:
    assert _states(pattern, TWO_OF_THREE) == states


@pytest.mark.parametrize(
    "pattern, states",
    [
        ("......", "......"),
        ("x.....", "oOOrrr"),
        ("xx....", "oOOOrr"),
        ("x..x..", "oOOOOO"),
        ("?-x?..", "..oOOO"),
        ("x...x...", "oOOroOOr"),
        # Days that say nothing resolve nothing.
        ("x??--...", "oOOOOOOr"),
    ],
)
def test_by_default_an_alert_opens_on_its_first_day(pattern: str, states: str) -> None:
    assert _states(pattern) == states


def test_persistence_and_resolution_are_the_users() -> None:
    assert _states("x...", DriftConfig(persistence=Persistence(1, 1), resolve_after_days=1)) == "orrr"
    assert _states("xxx...", DriftConfig(persistence=Persistence(3, 3, "never"), resolve_after_days=2)) == "..oOrr"


def test_dates_and_the_sentence() -> None:
    days = [_day(0, FINDING), _day(1), _day(2, FINDING), _day(3, FINDING), _day(4)]
    (alert,) = _fold(days, 4, TWO_OF_THREE)
    assert alert.first_exceeded_on == START
    assert alert.opened_on == START + timedelta(days=2)
    assert alert.last_seen_on == START + timedelta(days=3)
    assert alert.sentence == (
        "Since 2025-02-01 `income` contributes differently to the production model for channel=broker: "
        "corrected PSI 1.83 nats, mean |φ| 0.42 → 0.11. 96 % of its values are missing."
    )
    assert alert.fingerprint == fingerprint("production", "income", "channel=broker", "input_fault")
    (resolved,) = _fold([_day(0, FINDING), _day(1, FINDING), *(_day(i) for i in range(2, 6))], 5)
    assert resolved.sentence.endswith("Not seen since 2025-02-02: resolved.")


def test_nothing_opens_on_reference_days() -> None:
    days = [_day(-3, FINDING), _day(-2, FINDING), _day(-1, FINDING), _day(0, FINDING)]
    assert _fold(days, -1) == []
    assert _fold(days, 0, TWO_OF_THREE) == []
    assert len(_fold([*days, _day(1, FINDING)], 1, TWO_OF_THREE)) == 1
    assert _fold(days, 0)[0].first_exceeded_on == START


def test_days_after_the_day_asked_for_are_not_read() -> None:
    days = [_day(0, FINDING), _day(1, FINDING), _day(2), _day(3), _day(4)]
    assert _fold(days, 1) == _fold(days[:2], 1)


PLACES = st.sampled_from([None, "overall", "channel=broker", "channel=web", "region=north"])
HISTORY = st.lists(
    st.tuples(PLACES, PLACES, st.sampled_from(["input_fault", "population_moved", "use_changed"]), st.booleans()),
    max_size=25,
)


def _history(history: list) -> list[DayFindings]:
    days = []
    for i, (place, other, cause, known) in enumerate(history):
        findings = [replace(FINDING, segment=place, cause=cause)] if place else []
        findings += [replace(FINDING, role="experimental", feature="age", segment=other)] if other else []
        relations = (replace(RELATION, segment=other),) if other and place else ()
        judged = SEGMENTS if known else ("overall",)
        disturbances = (Disturbance("income", place, "input_fault"),) if place and known else ()
        days.append(_day(i, *findings, judged=judged, relations=relations, disturbances=disturbances))
    return days


@given(HISTORY, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_of_computation_does_not_matter(history: list, random: object) -> None:
    days = _history(history)
    straight = [_fold(days, i, label_delay_days=2) for i in range(len(days))]
    random.shuffle(days)  # type: ignore[attr-defined]
    order = list(range(len(days)))
    random.shuffle(order)  # type: ignore[attr-defined]
    again = {i: _fold(days, i, label_delay_days=2) for i in order}
    assert [again[i] for i in range(len(days))] == straight


@given(HISTORY)
@settings(max_examples=60)
def test_what_was_opened_stays_until_it_is_resolved(history: list) -> None:
    days = _history(history)
    before: dict[tuple[str, date], Alert] = {}
    for i in range(len(days)):
        now = {(a.fingerprint, a.opened_on): a for a in _fold(days, i)}
        for key, alert in before.items():
            superseded = any(f == key[0] and opened > key[1] for f, opened in now)
            if alert.state != "resolved" and not superseded:
                assert key in now
                assert now[key].first_exceeded_on == alert.first_exceeded_on
        for alert in now.values():
            assert alert.first_exceeded_on <= alert.opened_on <= START + timedelta(days=i)
            assert alert.first_exceeded_on <= alert.last_seen_on
        before = now


def test_one_fault_is_one_alert_where_its_place_flips_between_nested_segments() -> None:
    places = ["overall", "channel=broker", "channel=broker", "overall", "channel=broker"]
    days = [_day(i, replace(FINDING, segment=p)) for i, p in enumerate(places)]
    alerts = [_fold(days, i, TWO_OF_THREE) for i in range(5)]
    assert [len(a) for a in alerts] == [0, 1, 1, 1, 1]
    assert [len(_fold(days, i)) for i in range(5)] == [1] * 5
    assert len({a.fingerprint for found in alerts for a in found}) == 1
    assert alerts[4][0].segment == "channel=broker"


def test_the_cause_shown_is_that_of_most_days_the_identity_that_of_the_opening() -> None:
    causes = ["use_changed", "use_changed", "input_fault", "input_fault"]
    days = [_day(i, replace(FINDING, cause=c)) for i, c in enumerate(causes)]
    (opened,), (later,) = _fold(days, 1), _fold(days, 3)
    assert (opened.cause, later.cause) == ("use_changed", "input_fault")
    assert opened.fingerprint == later.fingerprint


@pytest.mark.parametrize(("severity", "opens_on"), [("noted", 1), ("warning", 0), ("critical", 0)])
def test_what_is_only_noted_waits_for_a_second_day(severity: str, opens_on: int) -> None:
    days = [_day(i, replace(FINDING, severity=severity)) for i in range(3)]
    assert next(i for i in range(3) if _fold(days, i)) == opens_on
    noted_at_once = DriftConfig(persistence=Persistence(2, 3, "noted"))
    assert _fold(days, 0, noted_at_once)


@pytest.mark.parametrize(
    "judged, state",
    [(FEATURES, "resolved"), (frozenset({"*", "income"}), "ongoing"), (frozenset({"*", "age"}), "resolved")],
)
def test_only_its_own_feature_clears_an_alert(judged: frozenset[str], state: str) -> None:
    """Label rows of other features, `*` among them, say nothing about this one's relation."""
    later = [replace(_day(i), labels_judged={("production", s): judged for s in SEGMENTS}) for i in range(1, 4)]
    (alert,) = _fold([_day(0, relations=(RELATION,)), *later], 3)
    assert (alert.feature, alert.state) == ("age", state)
    finding = replace(FINDING, feature="age")
    later = [replace(_day(i), judged={("production", s): judged for s in SEGMENTS}) for i in range(1, 4)]
    (alert,) = _fold([_day(0, finding), *later], 3)
    assert alert.state == state


def test_places_that_share_requests_are_one_alert_of_one_cause() -> None:
    """On some days the requests of the north stand out more than those of the broker, by which they come."""
    north = replace(FINDING, segment="region=north")
    found = _fold([_day(i, north if i in (3, 4) else FINDING) for i in range(8)], 7)
    assert [(a.segment, a.state, a.opened_on) for a in found] == [("channel=broker", "ongoing", START)]


def test_two_values_of_one_context_are_separate_alerts() -> None:
    web = replace(FINDING, segment="channel=web")
    found = _fold([_day(i, FINDING) for i in range(3)] + [_day(i, web) for i in range(3, 5)], 4)
    assert {a.segment for a in found} == {"channel=broker", "channel=web"}


def test_a_broken_input_is_not_resolved_while_the_attributions_speak_for_it() -> None:
    alone = replace(FINDING, role="input")
    days = [_day(i, alone) for i in range(2)] + [_day(i, FINDING, continued=(alone,)) for i in range(2, 8)]
    found = {a.role: a for a in _fold(days, 7)}
    assert {r: a.state for r, a in found.items()} == {"input": "ongoing", "production": "ongoing"}
    assert found["input"].last_seen_on == START + timedelta(days=7)
    assert {a.role for a in _fold(days[2:], 7)} == {"production"}


def test_places_that_are_not_nested_are_separate_alerts_where_the_cause_differs() -> None:
    days = [_day(i, FINDING) for i in range(3)]
    days += [_day(i, replace(FINDING, segment="region=north", cause="population_moved")) for i in range(3, 8)]
    found = {a.segment: a for a in _fold(days, 7)}
    assert {s: a.state for s, a in found.items()} == {"channel=broker": "resolved", "region=north": "ongoing"}


def test_roles_are_alerts_of_their_own_and_the_worst_comes_first() -> None:
    noted = replace(FINDING, role="experimental", severity="noted", effect=0.12)
    alerts = _fold([_day(i, FINDING, noted) for i in range(3)], 2)
    assert [(a.role, a.severity) for a in alerts] == [("production", "critical"), ("experimental", "noted")]


def test_severity_is_the_worst_of_the_last_days_seen() -> None:
    severities = ["noted", "warning", "noted", "noted", "noted"]
    days = [_day(i, replace(FINDING, severity=s)) for i, s in enumerate(severities)]
    assert _fold(days, 2)[0].severity == "warning"
    assert _fold(days, 4)[0].severity == "noted"


def _relation_days(
    *relations: Finding, disturbance: Disturbance | None = None, disturbed: Sequence[int] = (), days: int = 12
) -> list[DayFindings]:
    """Relations from day 10 on; the inputs disturbed on some days."""
    return [
        _day(
            i,
            relations=relations if i >= 10 else (),
            disturbances=(disturbance,) if disturbance and i in disturbed else (),
        )
        for i in range(days)
    ]


BROKEN = Disturbance("income", "channel=broker", "input_fault")


def test_a_changed_relation_opens_its_own_alert() -> None:
    (alert,) = _fold(_relation_days(RELATION), 11, label_delay_days=7)
    assert (alert.cause, alert.feature, alert.segment) == ("relation_changed", "age", "overall")
    assert alert.sentence.startswith("In labels complete since 2025-02-11 `age` no longer means for the truth what")


@pytest.mark.parametrize(
    "exceeding, disturbed, believed",
    [
        # Shows in another channel too: it is not the broken channel's doing.
        (SEGMENTS, range(12), True),
        # Shows in the broken channel and its shadows only.
        (("overall", "channel=broker", "region=north"), range(12), False),
        # The input is whole again now, but was broken when the labelled requests came in.
        (("overall", "channel=broker", "region=north"), range(3, 5), False),
        # It broke after the labelled requests had come in.
        (("overall", "channel=broker", "region=north"), range(6, 12), True),
    ],
)
def test_residuals_of_requests_with_broken_inputs_say_nothing(
    exceeding: tuple[str, ...], disturbed: range, believed: bool
) -> None:
    days = _relation_days(replace(RELATION, exceeding=exceeding), disturbance=BROKEN, disturbed=disturbed)
    assert bool(_fold(days, 11, label_delay_days=7)) == believed


def test_an_input_broken_everywhere_explains_every_residual() -> None:
    everywhere = replace(BROKEN, segment="overall")
    assert _fold(_relation_days(RELATION, disturbance=everywhere, disturbed=range(12)), 11, label_delay_days=7) == []


def test_a_moved_population_explains_the_residuals_of_its_own_feature_only() -> None:
    local = replace(RELATION, exceeding=("overall", "channel=broker"))
    for feature, believed in (("age", False), ("income", True)):
        moved = Disturbance(feature, "channel=broker", "population_moved")
        days = _relation_days(local, disturbance=moved, disturbed=range(12))
        assert bool(_fold(days, 11, label_delay_days=7)) == believed


def test_features_with_weaker_evidence_moved_with_the_strongest() -> None:
    weaker = replace(RELATION, feature="debt", evidence=5.0)
    elsewhere = replace(RELATION, role="experimental", feature="debt", evidence=5.0)
    alerts = _fold(_relation_days(RELATION, weaker, elsewhere), 11, label_delay_days=7)
    assert {(a.role, a.feature, a.moved_with) for a in alerts} == {
        ("production", "age", ("debt",)),
        ("experimental", "debt", ()),
    }


def test_attributions_and_labels_of_a_feature_are_separate_alerts() -> None:
    drifting = replace(FINDING, feature="age", segment="overall", cause="population_moved")
    days = [replace(d, findings=(drifting,)) for d in _relation_days(RELATION)]
    assert {a.cause for a in _fold(days, 11, label_delay_days=7)} == {"population_moved", "relation_changed"}


def _seen(effect: float, *offsets: int, window: int = 1) -> list[Sighting]:
    return [Sighting(START + timedelta(days=i), window, effect) for i in offsets]


@pytest.mark.parametrize(
    ("effect", "window", "day", "sightings", "echo"),
    [
        # Three days of 1.4 nats leave at most 3/7 of it in the week, with the tolerance 0.75.
        (0.60, 7, 6, _seen(1.4, 0, 1, 2), True),
        (0.74, 7, 6, _seen(1.4, 0, 1, 2), True),
        (0.76, 7, 6, _seen(1.4, 0, 1, 2), False),
        # Two of the days have left the window.
        (0.60, 7, 8, _seen(1.4, 0, 1, 2), False),
        (0.24, 7, 8, _seen(1.4, 0, 1, 2), True),
        (0.01, 7, 9, _seen(1.4, 0, 1, 2), False),
        # Nothing was seen before: a small lasting shift.
        (0.12, 7, 6, [], False),
        # Other windows of the same or a greater length explain nothing.
        (0.12, 7, 6, _seen(1.4, 3, window=7) + _seen(1.4, 3, window=28), False),
        # Of two sightings of a day the larger counts, not both.
        (0.40, 7, 6, _seen(1.4, 0) + _seen(1.4, 0), False),
        (0.24, 7, 6, _seen(1.4, 0) + _seen(0.2, 0), True),
        # A week that was seen covers its seven days of the month.
        (0.12, 28, 27, _seen(0.4, 10, window=7), True),
        (0.13, 28, 27, _seen(0.4, 10, window=7), False),
        # A sighting of today is of today's window, too.
        (0.24, 7, 0, _seen(1.4, 0), True),
    ],
)
def test_an_echo_is_what_the_days_seen_can_leave_in_a_longer_window(
    effect: float, window: int, day: int, sightings: list[Sighting], echo: bool
) -> None:
    finding = replace(FINDING, window_days=window, effect=effect)
    assert is_echo(finding, START + timedelta(days=day), sightings) == echo


def test_a_finding_of_the_shortest_window_is_never_an_echo() -> None:
    assert not is_echo(replace(FINDING, effect=0.01), START, _seen(9.0, 0))


SHARES = st.lists(st.integers(1, 1_000), min_size=2, max_size=12)


@given(st.data(), st.integers(1, 28))
@settings(max_examples=150)
def test_a_mixture_of_days_reaches_at_most_the_share_of_its_faulty_days(data: st.DataObject, w: int) -> None:
    """The bound behind `is_echo`, over equal days: PSI(k faulty and w − k clean days) ≤ k/w · PSI(faulty days)."""
    q = np.array(data.draw(SHARES), dtype=np.float64)
    faulty = np.array(data.draw(st.lists(st.integers(1, 1_000), min_size=len(q), max_size=len(q))), dtype=np.float64)
    k = data.draw(st.integers(0, w))
    q, faulty = q / q.sum(), faulty / faulty.sum()
    requests = 1e9  # the half request that is added to every cell is nothing beside them
    week = drift.psi(requests * q, requests * (k * faulty + (w - k) * q))
    assert week <= k / w * drift.psi(requests * q, requests * faulty) + 1e-6
    seen = Sighting(START, 1, float(drift.psi(requests * q, requests * faulty)))
    if w > 1 and k:
        sightings = [replace(seen, day=START + timedelta(days=i)) for i in range(k)]
        of_window = replace(FINDING, window_days=w, effect=max(float(week) - 1e-6, 0.0))
        assert is_echo(of_window, START + timedelta(days=w - 1), sightings)


def test_days_that_are_a_quarter_larger_are_within_the_tolerance() -> None:
    q, faulty = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    bound = float(drift.psi(1e9 * q, 1e9 * faulty)) / 7
    larger = float(drift.psi(1e9 * q, 1e9 * (1.25 * faulty + 6 * q)))
    assert larger <= ECHO_TOLERANCE * bound


def _repaired(days: int, effect: float = 1.4) -> list[DayFindings]:
    """Three faulty days; then the week remembers for six days, the month for all of them."""
    of_day = replace(FINDING, effect=effect)
    found = [_day(i, of_day) for i in range(3)]
    for i in range(3, days):
        week = max(0, min(3, 9 - i))  # faulty days in the window of seven that ends on day i
        window, share = (7, week / 7) if week else (28, 3 / 28)
        found.append(_day(i, replace(FINDING, window_days=window, effect=0.9 * effect * share)))
    return found


def _life(days: Sequence[DayFindings], rule: DriftConfig = DRIFT) -> str:
    letters = {"open": "o", "ongoing": "O", "resolved": "r"}
    return "".join(letters[a[0].state] if a else "." for a in (_fold(days, i, rule) for i in range(len(days))))


def test_after_a_repair_longer_windows_do_not_keep_the_alert_alive() -> None:
    days = _repaired(20)
    assert _life(days) == "oOOOO" + "r" * 8 + "." * 7
    (resolved,) = _fold(days, 10)
    assert resolved.last_seen_on == START + timedelta(days=2)
    assert resolved.window_days == 1
    assert _life(days, TWO_OF_THREE) == ".oOOO" + "r" * 8 + "." * 7


def test_a_small_lasting_shift_that_only_the_week_sees_is_no_echo() -> None:
    lasting = [_day(i, replace(FINDING, window_days=7, effect=0.12)) for i in range(12)]
    assert _life(lasting) == "o" + "O" * 11


def test_a_shift_that_stays_after_a_partial_repair_keeps_the_alert_alive() -> None:
    """What the week sees is more than the three bad days can have left in it."""
    days = _repaired(3) + [_day(i, replace(FINDING, window_days=7, effect=0.9)) for i in range(3, 12)]
    assert _life(days) == "o" + "O" * 11


@pytest.mark.parametrize(
    ("change", "states"),
    [
        # Shadow of the broken channel in all requests, and the other way round.
        ({"segment": "overall"}, {"resolved"}),
        # Another feature, role or channel has not been seen before: its own story.
        ({"feature": "age"}, {"resolved", "open"}),
        ({"role": "experimental"}, {"resolved", "open"}),
        ({"segment": "region=north"}, {"resolved", "open"}),
    ],
)
def test_echoes_are_of_the_same_role_feature_and_place(change: dict[str, str], states: set[str]) -> None:
    days = [_day(0, replace(FINDING, effect=1.4)), *(_day(i) for i in range(1, 6))]
    week = replace(FINDING, window_days=7, effect=0.2, **change)  # type: ignore[arg-type]
    assert {a.state for a in _fold([*days, _day(6, week)], 6)} == states


def test_a_changed_relation_is_no_echo_of_an_attribution() -> None:
    days = [_day(0, replace(FINDING, feature="age", effect=9.0)), *(_day(i) for i in range(1, 5))]
    relation = replace(RELATION, window_days=7)
    found = _fold([*days, _day(5, relations=(relation,))], 5)
    assert {(a.cause, a.state) for a in found} == {("input_fault", "resolved"), ("relation_changed", "open")}


def test_fold_alerts_over_no_rows() -> None:
    assert fold_alerts({}, {}, START, DRIFT, []) == []
