"""Stage 6c: whether a model's error changed for good, from labels that are complete, by two stream detectors."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.concept_drift import ConceptFolder, write_day_errors
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.store import Lake

ERRORS, TABLE = "error_stream", "concept_drift"


def build_errors(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `error_stream` asset: mean errors of blocks of requests, for the day whose labels became complete."""

    @stage.asset(settings, ERRORS, deps=["labels", "replay_log"], kinds={"parquet"})
    def error_stream(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            return write_day_errors(monitor, day, provenance)

        yield from stage.run_days(context, monitor, ERRORS, compute, force=config.force)

    return error_stream


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `concept_drift` asset of a monitor; a rise of errors shows as a check with severity WARN, a fall does not."""
    key = stage.asset_key(settings, TABLE)
    description = "Passes when no detector says on the last day of the run that the error of a model rose."
    check = dg.AssetCheckSpec(TABLE, asset=key, description=description)

    @stage.asset(settings, TABLE, deps=[ERRORS], kinds={"parquet", "river"}, checks=[check])
    def concept_drift(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)
        folder = ConceptFolder(monitor)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            states = folder.write_day(day, provenance)
            shown = states.select("role", "detector", "state", "detected_on", "error_before", "error_after", "sentence")
            rising = states.filter(pl.col("state") == "rising").height
            return {"dagster/partition_row_count": states.height, "rising": rising, "states": stage.table_of(shown)}

        yield from stage.run_days(context, monitor, TABLE, compute, force=config.force)
        last = date.fromisoformat(context.partition_keys[-1])
        days = [last] if lake.exists(TABLE, settings.name, last) else []
        states = lake.read_days(TABLE, settings.name, days)
        rising = states.filter(pl.col("state") == "rising")
        yield dg.AssetCheckResult(
            passed=rising.is_empty(),
            check_name=check.name,
            asset_key=key,
            severity=dg.AssetCheckSeverity.WARN,
            description=rising_errors(rising["role"].to_list(), states.height),
            metadata={"day": str(last), "rising": stage.list_of(rising["sentence"].to_list())},
        )

    return concept_drift


def rising_errors(roles: Sequence[str], detectors: int) -> str:
    """Of which models the error rose, and how many detectors say so. roles: one per detector that does.

    >>> rising_errors(["production", "production"], 4), rising_errors([], 4), rising_errors([], 0)
    ('2 of 4 rising: production', 'none of 4 rising', 'no day is stored')
    """
    if not detectors:
        return "no day is stored"
    return (
        f"{len(roles)} of {detectors} rising: {', '.join(dict.fromkeys(roles))}"
        if roles
        else f"none of {detectors} rising"
    )
