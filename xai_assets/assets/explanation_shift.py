"""Stage 6b: whether a classifier can tell a window's attributions, all features together, from the reference's."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.explanation_shift import TABLE, ShiftJudge
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.store import Lake


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `explanation_shift` asset of a monitor, with a check on the run's last day (WARN; it opens no alert)."""
    key = stage.asset_key(settings, TABLE)
    text = "Passes when on the last day of the run no window's explanations are told from the reference's."
    deps = ["production_attributions", "experimental_attributions", "reference_profile", "attribution_histograms"]
    specs = [dg.AssetCheckSpec(TABLE, asset=key, description=text)]

    @stage.asset(settings, TABLE, deps=deps, kinds={"parquet"}, checks=specs)
    def explanation_shift(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        judge = ShiftJudge(Monitor(settings, lake))

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            return _metadata(judge.judge_day(day, provenance))

        yield from stage.run_days(context, judge.monitor, TABLE, compute, force=config.force)
        yield _check(lake, settings.name, date.fromisoformat(context.partition_keys[-1]), key)

    return explanation_shift


def _metadata(rows: pl.DataFrame) -> Mapping[str, Any]:
    """One AUC per role and window, which the Dagster UI draws over the days, and the verdicts."""
    judged = rows.filter(pl.col("auc").is_not_null())
    aucs = {f"auc_{r}_{w}d": a for r, w, a in judged.select("role", "window_days", "auc").iter_rows()}
    shown = judged.with_columns(pl.col("features").list.head(3)).select("role", "window_days", "rule", "features")
    return {"dagster/partition_row_count": rows.height, **aucs, "verdicts": stage.table_of(shown)}


def _check(lake: Lake, monitor: str, day: date, key: dg.AssetKey) -> dg.AssetCheckResult:
    stored = lake.exists(TABLE, monitor, day)
    rows = lake.read_days(TABLE, monitor, [day] if stored else [])
    shifted = rows.filter(pl.col("verdict") == "shifted")
    found = [f"{r['role']}, {r['window_days']} d: {r['rule']}" for r in shifted.iter_rows(named=True)]
    judged = rows.filter(pl.col("verdict") != "insufficient").height
    return dg.AssetCheckResult(
        passed=not found,
        check_name=TABLE,
        asset_key=key,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} of {judged} windows shifted" if judged else "no window was judged",
        metadata={"day": str(day), "judged": stored, "shifted": stage.list_of(found)},
    )
