from dataclasses import replace
from datetime import date

import pytest

from xai_assets.decide.staleness import DayFact, StaleDay, ranges_of, stale_days

FRESH = DayFact(date(2025, 1, 1), "f1", "f1", "complete", {"drift_scores": ("p1", "p1"), "drift_alerts": ("p2", "p2")})


@pytest.mark.parametrize(
    "change, reasons",
    [
        ({}, ()),
        ({"source_fingerprint": "f2"}, ("its files changed after they were read",)),
        ({"source_fingerprint": None}, ()),
        ({"source_fingerprint": None, "stored_fingerprint": None, "stored_status": None}, ()),
        ({"source_fingerprint": None, "stored_fingerprint": None, "stored_status": "missing"}, ()),
        (
            {"stored_fingerprint": None, "stored_status": "missing"},
            ("its files came after the day was noted as missing",),
        ),
        ({"stored_fingerprint": None, "stored_status": None}, ("its files have not been read yet",)),
        ({"tables": {"drift_scores": (None, "p1")}}, ("drift_scores has not been made",)),
        ({"tables": {"drift_scores": ("p0", "p1")}}, ("drift_scores was made from other data, models or settings",)),
        ({"tables": {"drift_scores": (None, None)}}, ()),
        (
            {"tables": {"a": ("p0", "p1"), "b": (None, "p1")}},
            ("a was made from other data, models or settings", "b has not been made"),
        ),
        # Files are gone, but what was made from them is of other settings.
        (
            {"source_fingerprint": None, "tables": {"a": ("p0", "p1")}},
            ("a was made from other data, models or settings",),
        ),
        ({"stored_status": "empty", "tables": {}}, ()),
    ],
)
def test_one_field_at_a_time(change: dict, reasons: tuple[str, ...]) -> None:
    found = stale_days([replace(FRESH, **change)])
    assert tuple(r for s in found for r in s.reasons) == reasons


def test_days_that_follow_one_another_make_one_range() -> None:
    days = [StaleDay(date(2025, 1, d), ("new",), "s") for d in (5, 1, 2, 4, 9)]
    assert [[s.day.day for s in group] for group in ranges_of(days)] == [[1, 2], [4, 5], [9]]
    assert ranges_of([]) == []


def test_the_hash_tells_states_apart_and_is_the_same_for_the_same_state() -> None:
    def state(**change: object) -> str:
        found = stale_days([replace(FRESH, **{"source_fingerprint": "f2"} | change)])
        return found[0].state_hash(found)

    assert state() == state()
    assert state() != state(source_fingerprint="f3")
    assert state() != state(tables={"drift_scores": ("p9", "p1")})
