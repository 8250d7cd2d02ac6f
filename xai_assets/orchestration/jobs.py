"""Jobs of a monitor: the daily flow, and retraining.

Belongs here: which assets run together, and where. Does not belong here: when (schedules, sensors).
"""

from typing import Any

import dagster as dg

from xai_assets.config import MonitorConfig
from xai_assets.stage import asset_key

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
"""Run tags that make one run cover a range of partitions."""


def daily_job_name(config: MonitorConfig) -> str:
    """Name of the job from replay log to recommendations."""
    return f"{config.name}_daily"


def retraining_job_name(config: MonitorConfig) -> str:
    """Name of the job that trains a candidate."""
    return f"{config.name}_retraining"


def build(config: MonitorConfig, assets: list[dg.AssetsDefinition]) -> list[Any]:
    """The daily job over everything but the candidate, and the retraining job over the candidate alone."""
    candidate = asset_key(config, "candidate_model")
    daily = [key for a in assets for key in a.keys if key != candidate]
    return [
        dg.define_asset_job(
            daily_job_name(config),
            selection=dg.AssetSelection.assets(*daily),
            executor_def=dg.in_process_executor,
            description=f"Replay log to recommendations for a day or a range of days of '{config.name}'.",
        ),
        dg.define_asset_job(
            retraining_job_name(config),
            selection=dg.AssetSelection.assets(candidate),
            executor_def=dg.in_process_executor,
            description=f"Train, test and register a candidate model for '{config.name}'.",
        ),
    ]
