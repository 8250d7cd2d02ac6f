"""Retention: row-level tables are kept for the configured days; histograms, scores and decisions for good."""

import dagster as dg

from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.retention import apply_retention
from xai_assets.lake.store import Lake


def build(config: MonitorConfig) -> dg.ScheduleDefinition:
    """A job that deletes what is past its retention, an hour after the daily run."""

    @dg.op(name=f"{config.name}_apply_retention")
    def apply(context: dg.OpExecutionContext, lake: dg.ResourceParam[Lake]) -> None:
        for table, days in apply_retention(Monitor(config, lake)).items():
            context.log.info(f"{table}: deleted {len(days)} days up to {days[-1]}")

    @dg.job(
        name=f"{config.name}_retention",
        executor_def=dg.in_process_executor,
        description="Deletes row-level partitions past their retention; the reference days are kept.",
    )
    def retention() -> None:
        apply()

    return dg.ScheduleDefinition(
        name=f"{config.name}_retention_schedule",
        job=retention,
        cron_schedule=f"30 {(config.schedule_hour + 1) % 24} * * *",
        execution_timezone=config.source.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
