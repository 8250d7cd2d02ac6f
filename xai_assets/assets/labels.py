"""Stage 1b: labels by the day they arrived, joined to requests later."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.ingest import ingest_labels
from xai_assets.lake.store import Lake

TABLE = "labels"


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `labels` asset of a monitor whose labels come in files of their own."""

    @stage.asset(settings, TABLE, deps=[], kinds={"parquet", "polars"})
    def labels(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            report = ingest_labels(lake, settings, day, provenance)
            return {
                "status": report.status,
                "dagster/partition_row_count": report.rows_stored,
                "rows_quarantined": report.rows_quarantined,
            }

        yield from stage.run_days(context, monitor, TABLE, compute, force=config.force)

    return labels
