"""The file sensor: which days it finds stale, what it runs, what it leaves as it was."""

import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import DAILY_TABLES, Provenance
from xai_assets.flow.retention import apply_retention
from xai_assets.orchestration.jobs import daily_job_name
from xai_assets.orchestration.sensors import ATTEMPTS
from xai_assets_tests.conftest import DAYS, REFERENCE_DAYS, day
from xai_assets_tests.orchestration.conftest import Deployment, log, settle

pytestmark = pytest.mark.slow
TABLES = tuple(t for t in DAILY_TABLES if t != "version_effects")  # which needs an earlier version of a model
MEMORY = (
    "attribution_histograms",
    "residual_histograms",
    "drift_scores",
    "label_scores",
    "error_stream",
    "concept_drift",
    "drift_alerts",
)
Deploy = Callable[[MonitorConfig], Deployment]
Configure = Callable[..., MonitorConfig]


def test_a_late_file_makes_its_day_and_the_windows_over_it_stale(
    deploy: Deploy, lending: Configure, source: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "late.parquet"
    log(source, 8).rename(kept)
    deployment = deploy(lending())
    deployment.run(day(1), day(DAYS))
    idle = deployment.sensor("stale_days")
    assert idle.run_requests == []
    assert "up to date" in idle.skip_message
    kept.rename(log(source, 8))
    tick = deployment.sensor("stale_days")
    request = tick.run_requests[0]
    assert request.tags["dagster/asset_partition_range_start"] == str(day(8))
    untouched = deployment.lake.metadata("production_attributions", "lending", day(9))
    deployment.follow(request)
    assert deployment.metadata("replay_log", day(8))["status"] == "complete"
    assert deployment.lake.row_count("production_attributions", "lending", day(8)) > 0
    assert deployment.lake.metadata("production_attributions", "lending", day(9)) == untouched
    settle(deployment)
    seven = deployment.lake.read("drift_scores", "lending", day(DAYS)).filter(
        (pl.col("window_days") == 7) & (pl.col("segment") == "overall") & (pl.col("role") == "production")
    )
    rows = sum(deployment.lake.row_count("divergence_set", "lending", day(i)) for i in range(DAYS - 6, DAYS + 1))
    assert set(seven.filter((pl.col("population") == "all") & (pl.col("feature") != "*"))["row_count"]) == {rows}


def test_a_file_that_is_rotated_away_leaves_its_day_as_it_was(deploy: Deploy, lending: Configure, source: Path) -> None:
    deployment = deploy(lending())
    deployment.run(day(1), day(DAYS))
    before = {t: deployment.lake.metadata(t, "lending", day(9)) for t in TABLES}
    log(source, 9).unlink()
    (source / f"data/demo/lending/labels/{day(9)}.parquet").unlink()
    assert deployment.sensor("stale_days").run_requests == []
    deployment.run(day(9))
    assert {t: deployment.lake.metadata(t, "lending", day(9)) for t in TABLES} == before


def test_a_reference_day_without_a_file_is_noted_and_the_monitor_starts(
    deploy: Deploy, lending: Configure, source: Path
) -> None:
    log(source, 3).unlink()
    deployment = deploy(lending())
    settle(deployment)
    assert deployment.metadata("replay_log", day(3))["status"] == "missing"
    assert deployment.lake.days("recommendations", "lending") == [day(i) for i in range(1, DAYS + 1)]


def test_what_is_past_retention_makes_nothing_stale_until_it_is_graded_otherwise(
    deploy: Deploy, lending: Configure, source: Path
) -> None:
    kept = {"replay_log_days": 8, "quarantine_days": 7, "divergence_set_days": 7, "attributions_days": 7}

    def with_budget(budget: str) -> Deployment:
        config = lending(
            reference={"start_date": day(1), "end_date": day(2)},
            drift={"windows_days": [1, 3], "alarm_budget": budget},
            labels={"complete_after_days": 2},
            remediation={"mode": "observe", "train_window_days": 3},
            retention=kept,
        )
        return deploy(config)

    deployment = with_budget("1 per 30 days")
    settle(deployment)
    before = {(t, i): deployment.lake.row_count(t, "lending", day(i)) for t in MEMORY for i in range(1, DAYS + 1)}
    deleted = apply_retention(Monitor(deployment.config, deployment.lake))
    assert deleted["production_attributions"] == [day(3), day(4), day(5)]
    assert deployment.lake.exists("replay_log", "lending", day(2)), "reference days are kept"
    assert deployment.sensor("stale_days").run_requests == []
    deployment.run(day(1), day(DAYS))
    after = {(t, i): deployment.lake.row_count(t, "lending", day(i)) for t in MEMORY for i in range(1, DAYS + 1)}
    assert after == before

    # All days are graded by the new budget, those without rows and without files too.
    log(source, 4).unlink()
    apply_retention(Monitor(deployment.config, deployment.lake))
    assert not deployment.lake.exists("replay_log", "lending", day(4))
    deployment = with_budget("1 per 10 days")
    settle(deployment)
    provenance = Provenance(Monitor(deployment.config, deployment.lake))
    for table in ("drift_scores", "label_scores", "drift_alerts", "recommendations"):
        for i in range(1, DAYS + 1):
            assert provenance.stored(table, day(i)) is not None
            assert provenance.stored(table, day(i)) == provenance.expected(table, day(i)), (table, i)
    assert {(t, i): deployment.lake.row_count(t, "lending", day(i)) for t, i in before if "histograms" in t} == {
        key: rows for key, rows in before.items() if "histograms" in key[0]
    }


def test_a_profile_is_never_made_of_another_model_s_attributions(
    deploy: Deploy, lending: Configure, source: Path
) -> None:
    deployment = deploy(lending(columns={"production_output": None, "experimental_output": None}))
    deployment.run(day(1), day(REFERENCE_DAYS))
    models = source / "data/demo/lending/models"
    shutil.copy(models / "experimental.ubj", models / "production.ubj")
    old = deployment.lake.metadata("reference_profile", "lending")["profile_hash"]
    deployment.run(day(REFERENCE_DAYS + 1))
    assert deployment.lake.metadata("reference_profile", "lending")["profile_hash"] == old
    assert deployment.lake.days("drift_scores", "lending")[-1] == day(REFERENCE_DAYS)
    settle(deployment)
    assert deployment.lake.metadata("reference_profile", "lending")["profile_hash"] != old
    assert deployment.lake.days("drift_scores", "lending")[-1] == day(DAYS)


def test_the_sensor_waits_while_a_run_is_at_work_and_gives_up_on_a_lasting_failure(
    deploy: Deploy, lending: Configure, source: Path
) -> None:
    deployment = deploy(lending())
    job = deployment.defs.resolve_job_def(daily_job_name(deployment.config))
    started = deployment.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    tick = deployment.sensor("stale_days")
    assert tick.run_requests == []
    assert "at work" in tick.skip_message
    deployment.instance.report_run_canceled(started)
    (source / "data/demo/lending/models/production.ubj").write_bytes(b"no model")
    assert "could not be compared" in deployment.sensor("stale_days").skip_message
    shutil.copy(
        source / "data/demo/lending/models/experimental.ubj", source / "data/demo/lending/models/production.ubj"
    )
    request = deployment.sensor("stale_days").run_requests[0]
    keys = [request.run_key]
    for _ in range(ATTEMPTS):
        failed = deployment.instance.create_run_for_job(job, tags=request.tags, status=dg.DagsterRunStatus.STARTED)
        deployment.instance.report_run_failed(failed)
        keys += [r.run_key for r in deployment.sensor("stale_days").run_requests]
    assert len(keys) == len(set(keys)) == ATTEMPTS
    assert "still stale" in deployment.sensor("stale_days").skip_message


def test_another_model_at_the_same_path_makes_days_stale(deploy: Deploy, lending: Configure, source: Path) -> None:
    deployment = deploy(lending(columns={"production_output": None, "experimental_output": None}))
    deployment.run(day(1), day(REFERENCE_DAYS + 1))
    models = source / "data/demo/lending/models"
    profile = deployment.lake.metadata("reference_profile", "lending")["profile_hash"]
    shutil.copy(models / "experimental.ubj", models / "production.ubj")
    tick = deployment.sensor("stale_days")
    assert tick.run_requests[0].tags["dagster/asset_partition_range_start"] == str(day(1))
    deployment.run(day(1), day(REFERENCE_DAYS + 1))
    assert deployment.lake.metadata("reference_profile", "lending")["profile_hash"] != profile
    delta = deployment.lake.read("divergence_set", "lending", day(2))["delta"]
    assert delta.abs().max() == 0.0
