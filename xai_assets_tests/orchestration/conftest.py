"""A monitor run for real: its own lake, its own Dagster instance, jobs executed in process."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.lake.store import Lake
from xai_assets.orchestration.assembly import build_definitions
from xai_assets.orchestration.jobs import RANGE_END, RANGE_START, daily_job_name
from xai_assets.orchestration.resources import resources
from xai_assets_tests.conftest import day

FLOW = (
    *("replay_log", "labels", "divergence_set", "production_attributions", "experimental_attributions"),
    *("reference_profile", "attribution_histograms", "drift_calibration", "drift_scores"),
    *("residual_histograms", "label_calibration", "label_scores", "error_stream", "concept_drift"),
    *("drift_alerts", "recommendations"),
)
"""From files to recommendations, without what is only measured beside: for tests that look at neither that nor the
sensor, to which days without it would be stale."""


@dataclass
class Deployment:
    """One monitor with everything real under it."""

    config: MonitorConfig
    lake: Lake
    instance: dg.DagsterInstance
    defs: dg.Definitions = field(init=False)

    def __post_init__(self) -> None:
        self.defs = build_definitions(self.config, resources(self.lake.root))

    def run(
        self,
        first: date,
        last: date | None = None,
        *,
        raise_on_error: bool = True,
        tables: Sequence[str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """The daily job over a range of days; `tables`: only these assets."""
        job = self.defs.resolve_job_def(daily_job_name(self.config))
        tags = {RANGE_START: str(first), RANGE_END: str(last or first)}
        keys = None if tables is None else [dg.AssetKey([self.config.name, t]) for t in tables]
        return job.execute_in_process(
            instance=self.instance, tags=tags, raise_on_error=raise_on_error, asset_selection=keys
        )

    def follow(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Run what a sensor asked for."""
        job = self.defs.resolve_job_def(request.job_name or daily_job_name(self.config))
        tags = {**request.tags, "dagster/run_key": request.run_key or ""}
        return job.execute_in_process(instance=self.instance, tags=tags, run_config=request.run_config)

    def sensor(self, name: str, cursor: str | None = None) -> Any:
        context = dg.build_sensor_context(
            instance=self.instance, definitions=self.defs, cursor=cursor, resources={"lake": self.lake}
        )
        return self.defs.resolve_sensor_def(f"{self.config.name}_{name}").evaluate_tick(context)

    def metadata(self, table: str, day: date) -> dict[str, Any]:
        """Metadata of the newest materialization of a partition."""
        key = dg.AssetKey([self.config.name, table])
        found = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, asset_partitions=[str(day)]), limit=1
        ).records
        materialization = found[0].asset_materialization if found else None
        return {k: v.value for k, v in materialization.metadata.items()} if materialization else {}

    def report(self, day: date) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.lake.metadata("replay_log", self.config.name, day)["report"])
        return report


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[[MonitorConfig], Deployment]]:
    """Deploys a configuration on a lake and an instance of the test's own."""
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    with dg.DagsterInstance.ephemeral() as instance:
        yield lambda config: Deployment(config, Lake(str(tmp_path / "lake")), instance)


def settle(deployment: Deployment, ticks: int = 4) -> None:
    """Let the file sensor run what it finds until it finds nothing more."""
    for _ in range(ticks):
        requests = deployment.sensor("stale_days").run_requests
        if not requests:
            return
        for request in requests:
            deployment.follow(request)
    pytest.fail(f"still stale after {ticks} ticks")


def log(source: Path, number: int) -> Path:
    """The file with the requests of a day."""
    return source / f"data/demo/lending/logs/{day(number)}.parquet"


def checks(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], bool]:
    """Outcome of every asset check of a run by (table, check)."""
    found = result.get_asset_check_evaluations()
    return {(e.asset_key.path[-1], e.check_name): e.passed for e in found}
