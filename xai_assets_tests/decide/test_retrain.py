from dataclasses import replace
from datetime import date, timedelta

import pytest

from xai_assets.decide.retrain import decide_launches
from xai_assets.records import Recommendation

DAY = date(2025, 2, 1)
RETRAIN = Recommendation("r1", "retrain", "production", ("income",), ("region=south",), DAY, "because", ("a1",))


def test_an_open_recommendation_is_launched_once_as_of_its_last_day() -> None:
    rows = [(DAY + timedelta(days=i), RETRAIN) for i in (2, 0, 1)]
    (launch,), reasons = decide_launches(rows, launched=[], mode="automatic")
    assert (launch.recommendation_id, launch.as_of, launch.target) == ("r1", DAY + timedelta(days=2), "production")
    assert launch.recommendation.focus_features == ("income",)
    assert reasons == []


@pytest.mark.parametrize(
    "change, launched, mode, reason",
    [
        ({}, ["r1"], "automatic", "was started before"),
        ({}, [], "observe", "mode is observe"),
        ({"state": "held"}, [], "automatic", "is held"),
    ],
)
def test_one_obstacle_at_a_time(change: dict, launched: list[str], mode: str, reason: str) -> None:
    launches, reasons = decide_launches([(DAY, replace(RETRAIN, **change))], launched=launched, mode=mode)
    assert launches == []
    assert reason in reasons[0]
    assert reasons[0].startswith("r1 (production, opened 2025-02-01)")


def test_other_actions_are_passed_over() -> None:
    rows = [(DAY, replace(RETRAIN, action=a)) for a in ("none", "investigate_upstream", "reduce_traffic")]
    assert decide_launches(rows, launched=[], mode="automatic") == ([], [])


def test_a_backfill_may_hold_several_the_oldest_goes_first() -> None:
    newer = replace(RETRAIN, recommendation_id="r0", opened_on=DAY + timedelta(days=9))
    launches, reasons = decide_launches(
        [(DAY + timedelta(days=9), newer), (DAY, RETRAIN)], launched=["other"], mode="automatic"
    )
    assert [x.recommendation_id for x in launches] == ["r1", "r0"]
    assert reasons == []
