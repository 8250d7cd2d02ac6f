"""The daily schedule: yesterday, once its files are there; and retention after it.

Belongs here: cron expressions and the skip reasons of a schedule. Does not belong here: late data (see `sensors`).
"""

from datetime import timedelta
from typing import Any

import dagster as dg

from xai_assets.config import MonitorConfig
from xai_assets.errors import XaiAssetsError
from xai_assets.lake.source import files_of_day


def build(config: MonitorConfig, job: Any) -> dg.ScheduleDefinition:
    """Yesterday at `schedule_hour` in the source's time zone. A day without a file is skipped, with the reason."""

    @dg.schedule(
        job=job,
        name=f"{config.name}_yesterday",
        cron_schedule=f"0 {config.schedule_hour} * * *",
        execution_timezone=config.source.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Materializes yesterday's partition of '{config.name}' when its source files are there.",
    )
    def yesterday(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = context.scheduled_execution_time.date() - timedelta(days=1)
        if day < config.first_date or (config.end_date is not None and day > config.end_date):
            return dg.SkipReason(f"{day} is outside the monitor's days ({config.first_date} … {config.end_date or ''})")
        try:
            files = files_of_day(config, day)
        except (OSError, XaiAssetsError) as error:
            return dg.SkipReason(f"the source of {day} could not be listed: {error}")
        if not files:
            return dg.SkipReason(f"no source file for {day} yet; the file sensor picks it up when it arrives")
        return dg.RunRequest(run_key=f"{config.name}-{day}", partition_key=str(day))

    return yesterday
