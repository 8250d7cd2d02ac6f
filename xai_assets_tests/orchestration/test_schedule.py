"""The daily schedule asks for yesterday when its files are there, and says why when it does not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from xai_assets.config import MonitorConfig
from xai_assets_tests.conftest import DAYS, day
from xai_assets_tests.orchestration.conftest import Deployment

Deploy = Callable[[MonitorConfig], Deployment]
Configure = Callable[..., MonitorConfig]


def tick(deployment: Deployment, number: int) -> dg.SkipReason | dg.RunRequest:
    """What the schedule says on the morning after a day."""
    schedule = deployment.defs.resolve_schedule_def("lending_yesterday")
    morning = datetime.combine(day(number) + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=6)
    context = dg.build_schedule_context(
        scheduled_execution_time=morning,
        instance=deployment.instance,
        repository_def=deployment.defs.get_repository_def(),
    )
    data = schedule.evaluate_tick(context)
    return data.run_requests[0] if data.run_requests else dg.SkipReason(data.skip_message)


def test_yesterday_is_requested_once_its_file_is_there(deploy: Deploy, lending: Configure) -> None:
    request = tick(deploy(lending()), 5)
    assert isinstance(request, dg.RunRequest)
    assert request.tags["dagster/partition"] == str(day(5))
    assert request.run_key == f"lending-{day(5)}"


def test_a_day_without_a_file_is_skipped_with_the_reason(deploy: Deploy, lending: Configure, source: Path) -> None:
    (source / f"data/demo/lending/logs/{day(5)}.parquet").unlink()
    skipped = tick(deploy(lending()), 5)
    assert isinstance(skipped, dg.SkipReason)
    assert f"no source file for {day(5)}" in str(skipped.skip_message)


def test_days_outside_the_monitor_are_skipped(deploy: Deploy, lending: Configure) -> None:
    skipped = tick(deploy(lending()), DAYS + 1)
    assert isinstance(skipped, dg.SkipReason)
    assert "outside the monitor's days" in str(skipped.skip_message)


def test_the_schedule_runs_in_the_zone_of_the_source(deploy: Deploy, lending: Configure) -> None:
    deployment = deploy(lending(source={"timezone": "Europe/Lisbon"}, schedule_hour=3))
    schedule = deployment.defs.resolve_schedule_def("lending_yesterday")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * *", "Europe/Lisbon")
