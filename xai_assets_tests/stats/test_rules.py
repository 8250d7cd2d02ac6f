"""Rules: what a condition means, how it reads, and cuts that a person can remember."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xai_assets.errors import StatisticsError
from xai_assets.stats.rules import (
    Interval,
    LevelColumn,
    LevelSet,
    NumberColumn,
    condition_on,
    number_text,
    round_between,
    rule_mask,
    rule_sentence,
    with_condition,
)

INCOME = NumberColumn("income", np.array([10.0, 20.0, 30.0, np.nan, np.inf]))
CHANNEL = LevelColumn("channel", np.array([0, 1, 2, -1, 1]), ("app", "broker", "web"))
FINITE = st.floats(-1e9, 1e9, allow_nan=False, width=32)

SENTENCES = [
    (Interval("x").below(30_000.0, missing=False), "x < 30,000"),
    (Interval("x").below(30_000.0, missing=True), "(x < 30,000 or missing)"),
    (Interval("x").from_cut(0.25, missing=False), "x ≥ 0.25"),
    (Interval("x").below(30.0, missing=False).from_cut(20.0, missing=False), "20 ≤ x < 30"),
    (Interval("x").below(30.0, missing=True).below(20.0, missing=True), "(x < 20 or missing)"),
    (Interval("x").below(30.0, missing=True).below(20.0, missing=False), "x < 20"),
    (Interval("x").below(math.inf, missing=False), "x is present"),
    (Interval("x").from_cut(math.inf, missing=True), "x is missing"),
    (LevelSet("c").only("web"), "c = web"),
    (LevelSet("c").without("web"), "c ≠ web"),
    (LevelSet("c").without("web").without("app"), "c not in (app, web)"),
    (LevelSet("c").without("web").without(None), "c is present and not web"),
    (LevelSet("c").without("web").without(None).without("app"), "c is present and not in (app, web)"),
    (LevelSet("c").only(None), "c is missing"),
    (LevelSet("c").without(None), "c is present"),
    (LevelSet("c").without("web").only("app"), "c = app"),
]


@pytest.mark.parametrize(("condition", "sentence"), SENTENCES, ids=[s for _, s in SENTENCES])
def test_conditions_read_as_a_person_would_say_them(condition: Interval | LevelSet, sentence: str) -> None:
    assert condition.sentence == sentence
    assert json.loads(json.dumps(condition.plain)) == condition.plain


def test_conditions_as_data_have_no_infinite_bound() -> None:
    assert Interval("x", high=3.0, missing=False).plain == {"column": "x", "below": 3.0, "missing": False}
    assert Interval("x").from_cut(math.inf, missing=True).plain == {"column": "x", "missing": True}
    assert LevelSet("c").without("web").plain == {"column": "c", "not_in": ["web"], "missing": True}
    assert LevelSet("c").only("web").plain == {"column": "c", "in": ["web"], "missing": False}


def test_an_infinity_is_missing() -> None:
    assert Interval("income", low=20.0, missing=False).matches(INCOME).tolist() == [False, True, True, False, False]
    assert Interval("income", high=20.0, missing=True).matches(INCOME).tolist() == [True, False, False, True, True]
    assert Interval("income").matches(INCOME).all()


def test_levels_match_by_name_and_missing_stands_apart() -> None:
    assert LevelSet("channel").only("broker").matches(CHANNEL).tolist() == [False, True, False, False, True]
    assert LevelSet("channel").without("broker").matches(CHANNEL).tolist() == [True, False, True, True, False]
    assert LevelSet("channel").only(None).matches(CHANNEL).tolist() == [False, False, False, True, False]
    assert LevelSet("channel").only("fax").matches(CHANNEL).tolist() == [False] * 5, "a level that no row has"


@given(st.lists(st.tuples(FINITE, st.booleans(), st.booleans(), st.booleans()), max_size=4), FINITE)
def test_merged_intervals_hold_where_every_step_holds(steps: list[tuple[float, bool, bool, bool]], x: float) -> None:
    """Axiom: simplifying repeated conditions changes nothing for a number nor for a missing value."""
    column = NumberColumn("x", np.array([x, np.nan]))
    merged, expected = Interval("x"), np.array([True, True])
    for cut, is_left, missing, _ in steps:
        if is_left:
            merged = merged.below(cut, missing=missing)
            expected &= np.array([x < cut, missing])
        else:
            merged = merged.from_cut(cut, missing=missing)
            expected &= np.array([x >= cut, missing])
    assert merged.matches(column).tolist() == expected.tolist()


def test_a_rule_keeps_one_condition_per_column_by_name() -> None:
    rule = with_condition((), LevelSet("channel").only("broker"))
    rule = with_condition(rule, Interval("income", high=30.0, missing=False))
    rule = with_condition(rule, condition_on(rule, INCOME).from_cut(15.0, missing=False))  # type: ignore[union-attr]
    assert rule_sentence(rule) == "channel = broker and 15 ≤ income < 30"
    assert rule_mask(rule, [INCOME, CHANNEL]).tolist() == [False, True, False, False, False]
    assert rule_sentence(()) == "every request"
    with pytest.raises(StatisticsError, match="not there: income"):
        rule_mask(rule, [CHANNEL])


@given(FINITE, FINITE)
def test_a_round_cut_tells_both_numbers_apart(a: float, b: float) -> None:
    low, high = sorted((a, b))
    if low == high:
        with pytest.raises(StatisticsError):
            round_between(low, high)
        return
    cut = round_between(low, high)
    assert low < cut <= high
    assert len(number_text(cut)) <= max(len(number_text(high)), len(number_text(low))) + 1


@pytest.mark.parametrize(
    ("low", "high", "cut"),
    [
        (29_873.12, 30_021.5, 30_000.0),
        (-5.0, 3.0, 0.0),
        (0.0, 1.0, 1.0),
        (2.0, 3.0, 3.0),
        (0.1, 0.2, 0.2),
        (-0.2, -0.1, -0.1),
        (1_234_567.0, 1_234_568.0, 1_234_568.0),
        (1e-30, 1e30, 1e30),
        (0.30000001192092896, 0.30000004172325134, 0.30000003),
    ],
)
def test_cuts_have_the_fewest_digits(low: float, high: float, cut: float) -> None:
    assert round_between(low, high) == cut
