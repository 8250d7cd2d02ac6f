"""What all assets of the flow share: keys, partitions, pools, column schemas, and the loop over a run's days.

Belongs here: the one way a daily stage compares provenance, skips what is up to date, and reports per partition.
Does not belong here: anything about one particular stage (see `assets`), jobs and sensors (see `orchestration`).
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from xai_assets.config import MonitorConfig
from xai_assets.errors import XaiAssetsError
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import STAGE_VERSION, Provenance, combine
from xai_assets.lake.tables import TABLES

GROUP = {
    "replay_log": "replay",
    "labels": "replay",
    "divergence_set": "divergence",
    "divergence_slices": "divergence",
    "production_attributions": "attribution",
    "experimental_attributions": "attribution",
    "explanation_quality": "attribution",
    "reference_profile": "drift",
    "attribution_histograms": "drift",
    "feature_statistics": "drift",
    "drift_calibration": "drift",
    "drift_scores": "drift",
    "explanation_shift": "drift",
    "drift_slices": "drift",
    "residual_histograms": "drift",
    "label_calibration": "drift",
    "label_scores": "drift",
    "error_stream": "drift",
    "concept_drift": "drift",
    "version_effects": "drift",
    "drift_alerts": "remediation",
    "recommendations": "remediation",
    "model_versions": "remediation",
}
Compute = Callable[[date, str], Mapping[str, Any]]


class StageConfig(dg.Config):
    """`force`: compute again even where stored and expected provenance are equal."""

    force: bool = False


def asset_key(config: MonitorConfig, table: str) -> dg.AssetKey:
    """`[monitor, table]`."""
    return dg.AssetKey([config.name, table])


def partitions(config: MonitorConfig) -> dg.DailyPartitionsDefinition:
    """One partition per calendar day of the source's time zone, from the first day on."""
    end = config.end_date
    return dg.DailyPartitionsDefinition(
        start_date=config.first_date.isoformat(),
        end_date=None if end is None else date.fromordinal(end.toordinal() + 1).isoformat(),
        timezone=config.source.timezone,
    )


def column_schema(table: str) -> dg.TableSchema:
    """Columns with types and descriptions, as the Dagster UI shows them."""
    columns = [dg.TableColumn(c.name, _type_name(c.dtype), c.description) for c in TABLES[table].columns]
    more = TABLES[table].open_columns
    return dg.TableSchema(columns + ([dg.TableColumn("…", "", more)] if more else []))


def _type_name(dtype: Any) -> str:
    return str(dtype).lower()


def asset(
    config: MonitorConfig,
    table: str,
    *,
    deps: Sequence[str],
    kinds: set[str],
    name: str | None = None,
    daily: bool = True,
    checks: Sequence[dg.AssetCheckSpec] = (),
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorator for the asset that writes one table of one monitor.

    name: last part of the key where it is not the table's. The function yields results, and none where it has
    nothing to materialize; it must yield the results of its `checks` in any case.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        policy = dg.BackfillPolicy.single_run()
    version_key = "attributions" if table.endswith("_attributions") else table
    arguments: dict[str, Any] = {
        "key": asset_key(config, name or table),
        "deps": [asset_key(config, d) for d in deps],
        "description": TABLES[table].description,
        "group_name": f"{config.name}_{GROUP[table]}",
        "kinds": kinds,
        "owners": list(config.owners) or None,
        "metadata": {"dagster/column_schema": column_schema(table), "monitor": config.name},
        "code_version": STAGE_VERSION.get(version_key, "1"),
        "pool": f"{config.name}_{name or table}",
        "check_specs": list(checks),
        "output_required": False,
        # also where there are no partitions: `dg launch --partition-range` asks it of every asset of the job
        "backfill_policy": policy,
    }
    if daily:
        arguments["partitions_def"] = partitions(config)
    decorate: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(**arguments)
    return decorate


def run_days(
    context: dg.AssetExecutionContext, monitor: Monitor, table: str, compute: Compute, *, force: bool = False
) -> Iterator[dg.MaterializeResult[Any]]:
    """Bring every day of the run up to date and yield one result, with metadata per partition.

    A day whose stored provenance is the expected one is left alone. A day whose upstream is not there yet is
    waiting: nothing is stored for it. Where every day waits, nothing is materialized and downstream is skipped.
    A day that is refused keeps what was stored, and does not hold up the others: its error is logged and in its
    metadata, and is raised only where no day of the run could be made.
    """
    provenance, made, refused = Provenance(monitor), [], []
    for key in context.partition_keys:
        day = date.fromisoformat(key)
        try:
            metadata = _one_day(context, provenance, table, day, compute, force)
        except XaiAssetsError as error:
            context.log.error(f"{table} {day}: {error}")
            context.add_asset_metadata({"refused": str(error)}, partition_key=key)
            refused.append(error)
            continue
        if metadata is not None:
            context.add_asset_metadata(dict(metadata), partition_key=key)
            made.append(provenance.stored(table, day) or "-")
    if made:
        yield dg.MaterializeResult(data_version=dg.DataVersion(combine(*made)))
    elif refused:
        raise refused[0]
    else:
        context.log.warning(f"{table}: nothing to do yet, upstream of {context.partition_keys} is not there")


def _one_day(
    context: dg.AssetExecutionContext, provenance: Provenance, table: str, day: date, compute: Compute, force: bool
) -> Mapping[str, Any] | None:
    monitor = provenance.monitor
    expected, stored = provenance.expected(table, day), provenance.stored(table, day)
    if expected is None and stored is None:
        return None
    if expected is None or (expected == stored and not force):
        return {"unchanged": True, "dagster/partition_row_count": monitor.lake.row_count(table, monitor.name, day)}
    metadata = compute(day, expected)
    provenance.forget(table, day)
    context.log.info(f"{table} {day}: stored {monitor.lake.row_count(table, monitor.name, day)} rows")
    return {"unchanged": False, **metadata}


def table_of(frame: pl.DataFrame, rows: int = 10) -> dg.MarkdownMetadataValue:
    """The first rows of a frame as a small table for the Dagster UI."""
    head = frame.head(rows)
    lines = ["| " + " | ".join(head.columns) + " |", "|" + " --- |" * head.width]
    lines += ["| " + " | ".join(_cell(v) for v in row) + " |" for row in head.iter_rows()]
    return dg.MetadataValue.md("\n".join(lines))


def list_of(sentences: Iterable[str]) -> dg.MarkdownMetadataValue:
    """Sentences as a list for the Dagster UI.

    >>> list_of(["age moved", "income moved"]).md_str, list_of([]).md_str
    ('- age moved\\n- income moved', 'none')
    """
    return dg.MetadataValue.md("\n".join(f"- {s}" for s in sentences) or "none")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(str(v) for v in value)
    return "" if value is None else str(value).replace("|", "\\|")
