"""Both assets and the check in real runs: a quiet service, and one whose labels turn round on a day."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.orchestration.jobs import RANGE_END, RANGE_START, daily_job_name
from xai_assets_tests.conftest import DAYS, day
from xai_assets_tests.orchestration.conftest import Deployment

pytestmark = pytest.mark.slow
Deploy = Callable[[MonitorConfig], Deployment]
Configure = Callable[..., MonitorConfig]
TABLES = ("labels", "replay_log", "error_stream", "concept_drift")
REFERENCE = {"start_date": day(1), "end_date": day(3)}


def run(deployment: Deployment, first: int, last: int) -> dg.AssetCheckEvaluation:
    """The part of the daily job that concept drift needs; returns the outcome of its check."""
    job = deployment.defs.resolve_job_def(daily_job_name(deployment.config))
    tags = {RANGE_START: str(day(first)), RANGE_END: str(day(last))}
    keys = [dg.AssetKey(["lending", t]) for t in TABLES]
    result = job.execute_in_process(instance=deployment.instance, tags=tags, asset_selection=keys)
    assert result.success
    found = [e for e in result.get_asset_check_evaluations() if e.check_name == "concept_drift"]
    assert [e.severity for e in found] == [dg.AssetCheckSeverity.WARN]
    return found[0]


def turn_labels(source: Path, numbers: range) -> None:
    """Labels of these days of arrival say the opposite."""
    for number in numbers:
        path = source / f"data/demo/lending/labels/{day(number)}.parquet"
        pl.read_parquet(path).with_columns((1 - pl.col("label")).alias("label")).write_parquet(path)


def test_a_quiet_service_passes_a_second_run_recomputes_nothing_and_a_turned_label_fails_only_the_check(
    deploy: Deploy, lending: Configure, source: Path
) -> None:
    deployment = deploy(lending(reference=REFERENCE))
    assert run(deployment, 1, DAYS).passed
    lake = deployment.lake
    for table in TABLES:
        assert lake.days(table, "lending") == [day(i) for i in range(1, DAYS + 1)], table
    quiet = lake.read("concept_drift", "lending", day(DAYS))
    assert quiet.select("role", "detector", "state").rows() == [
        ("production", "adwin", "stable"),
        ("production", "page_hinkley", "stable"),
        ("experimental", "adwin", "stable"),
        ("experimental", "page_hinkley", "stable"),
    ]
    requests = lake.row_count("replay_log", "lending", day(DAYS - 7))
    labels = lake.read("error_stream", "lending", day(DAYS)).group_by("role").agg(pl.col("label_count").sum())
    assert all(0.8 * requests < n <= requests for n in labels["label_count"])
    assert deployment.metadata("error_stream", day(DAYS))["requests_of"] == str(day(DAYS - 7))

    before = {t: lake.metadata(t, "lending", day(DAYS)) for t in TABLES}
    assert run(deployment, 1, DAYS).passed
    assert {t: lake.metadata(t, "lending", day(DAYS)) for t in TABLES} == before
    assert deployment.metadata("concept_drift", day(DAYS))["unchanged"]

    turn_labels(source, range(DAYS - 1, DAYS + 1))
    failed = run(deployment, 1, DAYS)
    assert not failed.passed
    sentences = failed.metadata["rising"].value
    assert "- Page–Hinkley: the production model's Brier loss rose from" in str(sentences)
    assert "of 4 rising: production" in str(failed.description)
    assert deployment.metadata("concept_drift", day(DAYS - 2))["unchanged"], "days before the turn are left alone"
    assert lake.read("concept_drift", "lending", day(DAYS - 2))["detected_on"].null_count() == 4
