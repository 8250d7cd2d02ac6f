"""Stage 3b: service levels of a day's explanations, each held against its target; nothing waits for them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from math import isfinite
from typing import Any

import dagster as dg

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.decide.service_levels import CHECKED, Verdict, description
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.service_levels import TABLE, judge_days, load_levels, measure_day
from xai_assets.lake.store import Lake
from xai_assets.records import OVERALL, ServiceLevel


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `explanation_quality` asset of a monitor, with a check per target (severity WARN, blocks nothing)."""
    key, targets = stage.asset_key(settings, TABLE), settings.explanation.targets
    specs = [dg.AssetCheckSpec(measure, asset=key, description=description(measure, targets)) for measure in CHECKED]
    deps = ["replay_log", "divergence_set", "production_attributions", "experimental_attributions"]

    @stage.asset(settings, TABLE, deps=deps, kinds={"parquet"}, checks=specs)
    def explanation_quality(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            return _metadata(measure_day(monitor, day, provenance))

        yield from stage.run_days(context, monitor, TABLE, compute, force=config.force)
        levels = load_levels(lake, settings.name, [date.fromisoformat(key) for key in context.partition_keys])
        for verdict in judge_days(settings, levels):
            yield _check(verdict, key)

    return explanation_quality


def _metadata(levels: Sequence[ServiceLevel]) -> Mapping[str, Any]:
    """One figure per role and measure, which the Dagster UI draws over the days."""
    overall = {f"{x.role}_{x.measure}": x.value for x in levels if x.segment == OVERALL and isfinite(x.value)}
    return {"dagster/partition_row_count": len(levels), **overall}


def _check(verdict: Verdict, key: dg.AssetKey) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"target": verdict.target, "missed": list(verdict.sentences)}
    figures = {"worst": verdict.worst, "budget_rows_per_day_needed": verdict.budget_rows or None}
    return dg.AssetCheckResult(
        passed=verdict.passed,
        check_name=verdict.measure,
        asset_key=key,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=metadata | {name: value for name, value in figures.items() if value is not None},
    )
