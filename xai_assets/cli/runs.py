"""Runs through Dagster in this process, on the persistent instance, so that the UI shows them like any other.

Belongs here: the instance, a range of days as one run, the sensor that starts retraining.
Does not belong here: what a run computes (see `assets`), printing (see `output`).
"""

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_assets.cli.event_log import quick_commits
from xai_assets.cli.progress import RunProgress, StageCount
from xai_assets.config import MonitorConfig
from xai_assets.errors import ConfigError, XaiAssetsError
from xai_assets.lake.location import data_root, lake_root, project_root, warehouse_path

if TYPE_CHECKING:
    import dagster as dg

INSTANCE_FILE = "dagster.yaml"
PROCESS_TAG = "xai_assets/process"
RUN_KEY_TAG = "dagster/run_key"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Run configuration: the event log keeps everything, the terminal gets bars and our own messages."""


class RunFailed(XaiAssetsError):  # noqa: N818 - reads as what happened
    """A run ended without success."""


@dataclass(frozen=True)
class RangeRun:
    """What one run over a range of days did. stages: by table, in the order of the flow.

    run_id is empty where every day was up to date and no run was made.
    """

    run_id: str
    first: date
    last: date
    seconds: float
    stages: dict[str, StageCount]

    @property
    def computed(self) -> int:
        return sum(s.computed for s in self.stages.values())

    @property
    def unchanged(self) -> int:
        return sum(s.unchanged for s in self.stages.values())


@dataclass(frozen=True)
class Launch:
    """A retraining run that the sensor asked for. started_now: False where an earlier command had run it."""

    recommendation_id: str
    run_id: str
    started_now: bool
    error: str = ""


def dagster_home() -> Path:
    """`$DAGSTER_HOME`, or `dagster` in the data folder, made ready with the project's `dagster.yaml`."""
    home = Path(os.environ.get("DAGSTER_HOME") or data_root() / "dagster")
    home.mkdir(parents=True, exist_ok=True)
    settings, target = project_root() / INSTANCE_FILE, home / INSTANCE_FILE
    if settings.is_file() and not target.exists():
        try:
            target.symlink_to(settings)
        except OSError:  # file systems without links
            shutil.copyfile(settings, target)
    return home


@contextmanager
def open_instance() -> Iterator["dg.DagsterInstance"]:
    """The persistent instance. Slots that killed commands left taken are freed first, or the next run would wait."""
    wanted = {"DAGSTER_HOME": str(dagster_home()), "DAGSTER_DISABLE_TELEMETRY": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    import dagster as dg

    try:
        with quick_commits(), dg.DagsterInstance.get() as instance:
            _bury_dead_runs(instance)
            yield instance
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run_range(
    config: MonitorConfig,
    first: date,
    last: date,
    instance: "dg.DagsterInstance",
    *,
    force: bool = False,
    show_progress: bool = True,
) -> RangeRun:
    """Bring the days first … last of a monitor up to date, as one Dagster run in this process.

    Raises
    ------
    ConfigError
        A day is outside the monitor's days.
    XaiAssetsError
        What a stage refused, as it said it.
    RunFailed
        A blocking check failed.
    """
    _check_range(config, first, last)
    if not force and _up_to_date(config, first, last):
        return RangeRun("", first, last, 0.0, {})
    from xai_assets.orchestration.assembly import build_definitions
    from xai_assets.orchestration.jobs import RANGE_END, RANGE_START, daily_job_name
    from xai_assets.orchestration.resources import resources

    job = build_definitions(config, resources()).resolve_job_def(daily_job_name(config))
    days = (last - first).days + 1
    tables = frozenset(k.path[-1] for k in job.asset_layer.executable_asset_keys)
    with RunProgress(config.name, first, days, tables, shown=show_progress) as progress:
        run_config: dict[str, Any] = dict(QUIET)
        if force:
            # Not the reference: to compute a day again is no decision to define normal anew.
            forced = sorted(t for t in tables if t != "reference_profile")
            run_config["ops"] = {f"{config.name}__{t}": {"config": {"force": True}} for t in forced}
        started = time.monotonic()
        run_id = _execute(job, instance, {RANGE_START: str(first), RANGE_END: str(last)}, run_config, progress)
    _refresh_warehouse()
    return RangeRun(run_id, first, last, time.monotonic() - started, progress.stages)


def _refresh_warehouse() -> None:
    """Tables that a run made for the first time become views in the analysts' DuckDB file."""
    from xai_assets.lake.queries import open_warehouse
    from xai_assets.lake.store import Lake

    open_warehouse(warehouse_path(), Lake(lake_root())).close()


def _up_to_date(config: MonitorConfig, first: date, last: date) -> bool:
    """Whether no day of the range is stale. A range whose last day was never judged is not, whatever its footers say:
    the reference profile may be due."""
    from xai_assets.decide.staleness import stale_days
    from xai_assets.flow.monitor import Monitor
    from xai_assets.flow.staleness import day_facts
    from xai_assets.lake.store import Lake

    lake = Lake(lake_root())
    if last not in lake.days("recommendations", config.name):
        return False
    facts = day_facts(Monitor(config, lake), last + timedelta(days=1))
    return not stale_days([f for f in facts if f.day >= first])


def evaluate_retraining(config: MonitorConfig, instance: "dg.DagsterInstance") -> list[Launch]:
    """Evaluate the retraining sensor on this instance and run what it asks for, each run key once.

    The sensor's cursor starts at zero every time; run keys keep a recommendation from being followed twice, as they
    do in the daemon. A retraining that is refused (too few labels) is reported, not raised.
    """
    import dagster as dg

    from xai_assets.orchestration.assembly import build_definitions
    from xai_assets.orchestration.jobs import retraining_job_name
    from xai_assets.orchestration.resources import resources

    defs = build_definitions(config, resources())
    sensor = defs.resolve_sensor_def(f"{config.name}_retraining_sensor")
    job = defs.resolve_job_def(retraining_job_name(config))
    launches: list[Launch] = []
    cursor: str | None = None
    while True:
        with dg.build_sensor_context(
            instance=instance, cursor=cursor, definitions=defs, resources=resources()
        ) as context:
            tick = sensor.evaluate_tick(context)
        for request in tick.run_requests or []:
            launches.append(_launch(job, instance, request))
        if tick.cursor is None or tick.cursor == cursor:
            return launches
        cursor = tick.cursor


def _launch(job: Any, instance: "dg.DagsterInstance", request: Any) -> Launch:
    import dagster as dg

    from xai_assets.orchestration.sensors import RECOMMENDATION_TAG

    key = {RUN_KEY_TAG: request.run_key}
    identity = request.tags[RECOMMENDATION_TAG]
    earlier = instance.get_runs(dg.RunsFilter(tags=key), limit=1)
    if earlier:
        return Launch(identity, earlier[0].run_id, started_now=False)
    run_id = _new_run_id()
    try:
        _execute(job, instance, {**request.tags, **key}, {**request.run_config, **QUIET}, None, run_id)
    except XaiAssetsError as error:
        return Launch(identity, run_id, started_now=True, error=str(error))
    return Launch(identity, run_id, started_now=True)


def _execute(
    job: Any,
    instance: "dg.DagsterInstance",
    tags: dict[str, str],
    run_config: dict[str, Any],
    progress: RunProgress | None,
    run_id: str | None = None,
) -> str:
    import dagster as dg

    run_id = run_id or _new_run_id()
    if progress is not None:
        instance.add_event_listener(run_id, progress)
    tags = {**tags, PROCESS_TAG: _process_mark(os.getpid())}
    try:
        result = job.execute_in_process(
            run_config=run_config, instance=instance, tags=tags, run_id=run_id, raise_on_error=True
        )
    except dg.DagsterError as error:
        steps = ", ".join(progress.failed_steps) if progress else job.name
        raise RunFailed(
            f"the run stopped in {steps or 'Dagster'}",
            found=" ".join(str(error).split()),
            next_step="look at the run in the UI (make ui), or use --verbose",
            nothing_written=False,
        ) from error
    return str(result.run_id)


def _new_run_id() -> str:
    import uuid

    return str(uuid.uuid4())


def _check_range(config: MonitorConfig, first: date, last: date) -> None:
    if last < first:
        raise ConfigError("--to is before --from", found=f"{first} … {last}")
    end = config.end_date or date.today()
    if first < config.first_date or last > end:
        raise ConfigError(
            f"{first} … {last} is outside the days of '{config.name}'",
            expected=f"days from {config.first_date} to {end}",
            next_step="correct the range, or start_date and end_date in defs.yaml",
        )


def _process_mark(pid: int) -> str:
    return f"{socket.gethostname()}/{pid}"


def _bury_dead_runs(instance: "dg.DagsterInstance") -> None:
    """Mark runs of this machine whose process is gone as failed, and give their pool slots back."""
    import dagster as dg

    active = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
    for run in instance.get_runs(dg.RunsFilter(statuses=active)):
        host, _, pid = run.tags.get(PROCESS_TAG, "").rpartition("/")
        if host == socket.gethostname() and not _alive(int(pid)):
            instance.report_run_failed(run, f"process {pid} is gone; the run was killed")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def forget_monitor(config: MonitorConfig, instance: "dg.DagsterInstance") -> None:
    """Remove a monitor's runs and materializations from the instance, for a fresh start of the demo."""
    import dagster as dg

    from xai_assets.orchestration.jobs import daily_job_name, retraining_job_name

    keys = [k for k in instance.all_asset_keys() if k.path[0] == config.name]
    if keys:
        instance.wipe_assets(keys)
    for name in (daily_job_name(config), retraining_job_name(config)):
        for run in instance.get_runs(dg.RunsFilter(job_name=name)):
            instance.delete_run(run.run_id)


def days_between(first: date, last: date) -> list[date]:
    """Every day from first to last, both included."""
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]
