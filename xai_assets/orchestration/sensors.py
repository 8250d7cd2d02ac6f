"""Sensors: new, late or changed data makes days run; open retrain recommendations start the retraining job.

Belongs here: reading facts, cursors, run requests. Does not belong here: the decisions (`decide.staleness`,
`decide.retrain`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES

from xai_assets.config import MonitorConfig
from xai_assets.decide.retrain import decide_launches
from xai_assets.decide.staleness import ranges_of, stale_days
from xai_assets.errors import XaiAssetsError
from xai_assets.flow.decisions import retrain_recommendations
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.staleness import day_facts
from xai_assets.lake.store import Lake
from xai_assets.orchestration.jobs import RANGE_END, RANGE_START, daily_job_name
from xai_assets.stage import asset_key

RECOMMENDATION_TAG = "xai_assets/recommendation_id"
STATE_TAG = "xai_assets/state"
"""The state of the facts for which a run was asked: a transient failure is tried again, a lasting one is not."""
EVENTS_PER_TICK, ATTEMPTS = 500, 3


def build_stale_days(config: MonitorConfig, job: Any) -> dg.SensorDefinition:
    """Days whose source or provenance no longer matches what is stored, as one run per contiguous range."""

    @dg.sensor(
        job=job,
        name=f"{config.name}_stale_days",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={"lake"},
        description=f"Runs the days of '{config.name}' whose files are new, late or changed.",
    )
    def stale(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        lake: Lake = context.resources.lake
        if context.instance.get_runs(_daily_runs(config, NOT_FINISHED_STATUSES), limit=1):
            # What is stored changes while a run is at work; judged now, the same days would be asked for again.
            yield dg.SkipReason("a run of these days is at work; looking again when it is done")
            return
        try:
            facts = day_facts(Monitor(config, lake), _today(config))
        except (OSError, XaiAssetsError) as error:
            yield dg.SkipReason(f"what is stored could not be compared with the source: {error}")
            return
        found = stale_days(facts)
        if not found:
            yield dg.SkipReason(f"all {len(facts)} days are up to date")
        for group in ranges_of(found):
            first, last = group[0].day, group[-1].day
            reasons = {str(s.day): list(s.reasons) for s in group}
            context.log.info(f"{first} … {last}: {json.dumps(reasons)}")
            state = f"{first}-{last}-{group[0].state_hash(group)}"
            tried = len(context.instance.get_runs(_daily_runs(config, FINISHED_STATUSES, {STATE_TAG: state})))
            if tried >= ATTEMPTS:
                yield dg.SkipReason(
                    f"{first} … {last} was run {tried} times and is still stale; look at the last run's errors"
                )
                continue
            yield dg.RunRequest(
                run_key=f"{config.name}-{state}-{tried}",
                tags={
                    RANGE_START: str(first),
                    RANGE_END: str(last),
                    STATE_TAG: state,
                    "xai_assets/reason": group[0].reasons[0][:200],
                },
            )

    return stale


def _daily_runs(
    config: MonitorConfig, statuses: Sequence[dg.DagsterRunStatus], tags: Mapping[str, str] | None = None
) -> dg.RunsFilter:
    return dg.RunsFilter(job_name=daily_job_name(config), statuses=list(statuses), tags=dict(tags or {}))


def _today(config: MonitorConfig) -> date:
    return datetime.now(ZoneInfo(config.source.timezone)).date()


def build_retraining(config: MonitorConfig, job: Any) -> dg.SensorDefinition:
    """One retraining run per open retrain recommendation, even when drift was found in a backfill.

    Reads materializations of `recommendations` after the cursor's storage id, because a tick that looks only at the
    newest event loses what a range of days found.
    """
    key = asset_key(config, "recommendations")

    @dg.sensor(
        job=job,
        name=f"{config.name}_retraining_sensor",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={"lake"},
        description=f"Starts retraining for '{config.name}' from open retrain recommendations, once for each.",
    )
    def retrain(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        lake: Lake = context.resources.lake
        state: dict[str, Any] = json.loads(context.cursor) if context.cursor else {"storage_id": 0, "launched": []}
        events = context.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, after_storage_id=state["storage_id"]),
            limit=EVENTS_PER_TICK,
            ascending=True,
        ).records
        if not events:
            return dg.SkipReason("no recommendation was made since the last look")
        days = sorted({date.fromisoformat(e.partition_key) for e in events if e.partition_key})
        try:
            rows = retrain_recommendations(Monitor(config, lake), days)
        except (OSError, XaiAssetsError) as error:
            return dg.SkipReason(f"recommendations of {days[0]} … {days[-1]} could not be read: {error}")
        launches, reasons = decide_launches(rows, launched=state["launched"], mode=config.remediation.mode)
        cursor = {
            "storage_id": events[-1].storage_id,
            "launched": state["launched"] + [launch.recommendation_id for launch in launches],
        }
        requests = [
            dg.RunRequest(
                run_key=f"{config.name}-retrain-{launch.recommendation_id}",
                run_config={
                    "ops": {
                        f"{config.name}__candidate_model": {
                            "config": {"recommendation_id": launch.recommendation_id, "as_of": str(launch.as_of)}
                        }
                    }
                },
                tags={RECOMMENDATION_TAG: launch.recommendation_id},
            )
            for launch in launches
        ]
        skip = None if requests else dg.SkipReason("; ".join(reasons) or "no open retrain recommendation")
        return dg.SensorResult(run_requests=requests, skip_reason=skip, cursor=json.dumps(cursor))

    return retrain
