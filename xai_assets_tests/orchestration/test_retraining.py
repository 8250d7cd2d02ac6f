"""From stored recommendations to a registered candidate: once for each, also for drift found in a backfill."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.errors import LakeError, ModelError
from xai_assets.flow.decisions import rows_of
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.retraining import focus_weights, train_candidate
from xai_assets.lake.tables import RECOMMENDATIONS
from xai_assets.orchestration.jobs import retraining_job_name
from xai_assets.records import Recommendation
from xai_assets_tests.conftest import DAYS, day
from xai_assets_tests.orchestration.conftest import Deployment

pytestmark = pytest.mark.slow
Deploy = Callable[[MonitorConfig], Deployment]
Configure = Callable[..., MonitorConfig]
NOW = date(2025, 1, 13)

RETRAIN = Recommendation(
    recommendation_id="r1",
    action="retrain",
    target="production",
    focus_features=("annual_income",),
    focus_segments=("region=south",),
    opened_on=day(10),
    evidence="stored by the test",
)


def recommend(deployment: Deployment, on: date, *rows: Recommendation) -> None:
    """Store recommendations as the daily job would, with the event that the sensor reads."""
    import dagster as dg

    frame = rows_of(list(rows), RECOMMENDATIONS.schema)
    deployment.lake.write("recommendations", "lending", on, frame, {"provenance": "test"})
    key = dg.AssetKey(["lending", "recommendations"])
    deployment.instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=key, partition=str(on)))


@pytest.fixture
def deployment(deploy: Deploy, lending: Configure) -> Deployment:
    settings = {"mode": "automatic", "train_window_days": 12, "min_labels": 200}
    return deploy(lending(remediation=settings, labels={"complete_after_days": 2}))


def test_each_recommendation_is_launched_once_however_many_days_name_it(deployment: Deployment) -> None:
    for number in range(8, 11):
        recommend(deployment, day(number), RETRAIN)
    first = deployment.sensor("retraining_sensor")
    assert [r.run_key for r in first.run_requests] == ["lending-retrain-r1"]
    assert first.run_requests[0].tags["xai_assets/recommendation_id"] == "r1"
    nothing = deployment.sensor("retraining_sensor", first.cursor)
    assert nothing.run_requests == []
    recommend(deployment, day(11), RETRAIN, replace(RETRAIN, recommendation_id="r2"))
    second = deployment.sensor("retraining_sensor", first.cursor)
    assert [r.run_key for r in second.run_requests] == ["lending-retrain-r2"]


def test_observing_only_recommends(deploy: Deploy, lending: Configure) -> None:
    deployment = deploy(lending(remediation={"mode": "observe"}))
    recommend(deployment, day(9), RETRAIN)
    tick = deployment.sensor("retraining_sensor")
    assert tick.run_requests == []
    assert "observe" in tick.skip_message


def test_an_unreadable_recommendation_is_a_skip_that_does_not_move_the_cursor(deployment: Deployment) -> None:
    from pathlib import Path

    recommend(deployment, day(9), RETRAIN)
    path = Path(deployment.lake.path("recommendations", "lending", day(9)))
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    tick = deployment.sensor("retraining_sensor")
    assert tick.run_requests == []
    assert "could not be read" in tick.skip_message
    path.write_bytes(whole)
    assert [r.run_key for r in deployment.sensor("retraining_sensor", tick.cursor).run_requests] == [
        "lending-retrain-r1"
    ]


def test_the_sensor_s_request_trains_tests_and_registers_a_candidate(deployment: Deployment) -> None:
    deployment.run(day(1), day(DAYS))
    recommend(deployment, day(DAYS), RETRAIN)
    (request,) = deployment.sensor("retraining_sensor").run_requests
    result = deployment.follow(replace_job(request, deployment))
    assert result.success
    (row,) = deployment.lake.read("model_versions", "lending").iter_rows(named=True)
    assert row["recommendation_id"] == "r1"
    assert row["role"] == "production"
    assert row["trained_to"] < row["tested_from"] <= row["tested_to"]
    assert row["tested_to"] == day(DAYS - 7)  # labels arrive a week after the request
    assert 0.5 < row["candidate_metric"] <= 1.0
    assert row["decision"] == ("better" if row["candidate_metric"] > row["incumbent_metric"] else "not_better")
    again = train_candidate_again(deployment)
    assert again.version.sha256 == row["sha256"], "the same rows give the same bytes"
    assert deployment.lake.row_count("model_versions", "lending") == 2


def replace_job(request: Any, deployment: Deployment) -> Any:
    return request.with_replaced_attrs(job_name=retraining_job_name(deployment.config))


def train_candidate_again(deployment: Deployment) -> Any:
    from datetime import UTC, datetime

    return train_candidate(
        Monitor(deployment.config, deployment.lake),
        model_dir=str(deployment.config.base_dir / "models"),
        recommendation_id="r1",
        as_of=day(DAYS),
        now=datetime(2025, 1, 13, tzinfo=UTC),
    )


def test_rows_under_an_open_input_fault_are_not_learnt(deployment: Deployment) -> None:
    from xai_assets.lake.tables import DRIFT_ALERTS
    from xai_assets.records import Alert

    deployment.run(day(1), day(DAYS))
    recommend(deployment, day(DAYS), RETRAIN)
    before = train_candidate_again(deployment).version
    fault = Alert(
        fingerprint="f",
        state="ongoing",
        severity="critical",
        cause="input_fault",
        role="production",
        feature="annual_income",
        segment="channel=broker",
        window_days=1,
        first_exceeded_on=day(2),
        opened_on=day(3),
        last_seen_on=day(DAYS),
        effect=3.0,
        effect_unit="nats",
        sentence="broken",
    )
    deployment.lake.write("drift_alerts", "lending", day(DAYS), rows_of([fault], DRIFT_ALERTS.schema), {})
    after = train_candidate_again(deployment).version
    log = deployment.lake.read_days("replay_log", "lending", [day(i) for i in range(2, DAYS - 6)])
    labelled = after.train_rows + after.test_rows
    broken = log.filter(pl.col("channel") == "broker").height
    assert before.train_rows + before.test_rows - labelled == pytest.approx(broken, abs=broken * 0.05)
    assert broken > 50


def test_too_few_labels_are_refused_with_what_is_missing(deploy: Deploy, lending: Configure) -> None:
    deployment = deploy(lending(remediation={"mode": "automatic", "min_labels": 100_000}))
    deployment.run(day(1), day(DAYS))
    recommend(deployment, day(DAYS), RETRAIN)
    with pytest.raises(ModelError, match="min_labels"):
        train_candidate_again(deployment)
    assert not deployment.lake.exists("model_versions", "lending")


def test_without_a_recommendation_there_is_nothing_to_train(deployment: Deployment) -> None:
    with pytest.raises(LakeError, match="no open retrain recommendation"):
        train_candidate_again(deployment)


def test_focus_segments_weigh_more() -> None:
    rows = pl.DataFrame({"region": ["south", "north", None]})
    assert focus_weights(rows, ["region=south"], 3.0).tolist() == [3.0, 1.0, 1.0]
    assert focus_weights(rows, ["overall"], 3.0).tolist() == [1.0, 1.0, 1.0]
    assert focus_weights(rows, ["region=(missing)"], 2.0).tolist() == [1.0, 1.0, 2.0]


def test_the_cursor_is_readable(deployment: Deployment) -> None:
    recommend(deployment, day(9), RETRAIN)
    state = json.loads(deployment.sensor("retraining_sensor").cursor)
    assert state["launched"] == ["r1"]
    assert state["storage_id"] > 0
